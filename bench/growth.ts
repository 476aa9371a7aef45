/** Growth: what so many tickets cost to load, to read, to clean up and to keep. docs/growth.md has the figures of two sizes. */
import type { Environment } from '../test/support/environment.ts';
import { csvFile, emptyTickets, load, placeClusters, timed, withWorker } from './stand.ts';
import type { Line } from './table.ts';

const RUNS = 3;

/** @param tickets that are loaded; whatever is in the tables goes */
export async function measureGrowth(env: Environment, tickets: number): Promise<Line[]> {
  const { pool } = env;
  const lines: Line[] = [];
  const note = (what: string, ours: string) => lines.push({ what: `${tickets} tickets: ${what}`, ours, reference: '' });
  const seconds = (ms: number) => `${(ms / 1000).toFixed(1)} s`;

  await emptyTickets(env);
  await placeClusters(env);
  // A worker for each, since a process tells only the most that it ever had.
  const { peakMb: idleMb } = await withWorker(env, async () => {});
  for (const [what, changed, snapshot] of [
    ['new rows', 0, 0],
    ['the same rows', 0, 1],
    ['1 % changed', tickets / 100, 2],
  ] as const) {
    const csv = await csvFile(tickets, changed, snapshot);
    const { result, peakMb } = await withWorker(env, () => load(env, csv));
    note(what, seconds(result.ms));
    lines.push({
      what: `${tickets} tickets: ${what}: peak memory of the worker, against an idle one`,
      ours: `${peakMb.toFixed(0)} MB`,
      reference: `${idleMb.toFixed(0)} MB`,
      value: peakMb - idleMb,
      ...(what === '1 % changed' && { limit: 30 }),
      unit: 'MB more',
    });
  }

  for (const table of ['inc', 'inc_events'])
    note(`vacuum analyze ${table}`, seconds(await timed(env, `vacuum analyze tickets.${table}`)));
  for (const [what, sql] of [
    ['fn_tickets_for_map()', 'select pg_column_size(reporting.fn_tickets_for_map())'],
    ['fn_ticket_places(), open', 'select pg_column_size(reporting.fn_ticket_places())'],
    ['fn_ticket_places(), all', `select pg_column_size(reporting.fn_ticket_places('all'))`],
    [
      'the ten nearest open tickets',
      `select ticket_id from tickets.inc_open_sla order by geog <-> st_setsrid(st_makepoint(36.8, -1.29), 4326)::geography limit 10`,
    ],
    ['record_day', `select tickets_ops.record_day('inc')`],
    [
      'backlog of a year by team',
      `select count(*) from tickets.inc_backlog_daily(current_date - 365, current_date, 'team')`,
    ],
    ['planning of geocoding', 'select count(*) from tickets_ops.places_to_geocode()'],
    ['health', 'select ok from tickets_ops.health'],
  ] as const) {
    const times: number[] = [];
    for (let run = 0; run < RUNS; run += 1) times.push(await timed(env, sql));
    note(what, `${Math.min(...times).toFixed(0)} ms`);
  }
  const { rows } = await pool.query<{ what: string; size: string }>(
    `select relname || part as what, pg_size_pretty(bytes) as size
     from pg_class
     cross join lateral (values
       (', rows', pg_table_size(oid)), (', indexes', pg_indexes_size(oid))
     ) as p (part, bytes)
     where oid in ('tickets.inc'::regclass, 'tickets.inc_events'::regclass) order by relname desc, part desc`,
  );
  for (const { what, size } of rows) note(what, size);
  return lines;
}
