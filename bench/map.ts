/** Reading: the map function against a bare aggregate of the same features, and the plans of the queries that need an index. */
import assert from 'node:assert/strict';
import type { Environment } from '../test/support/environment.ts';
import { csvFile, emptyTickets, load, timed, withWorker } from './stand.ts';
import type { Line } from './table.ts';

const RUNS = 5;

/** The fastest way that we know to turn the open tickets into features: nothing is counted, nothing filtered. */
const BARE = `
  select to_jsonb(collection)
  from (
    select 'FeatureCollection' as type, array_agg(feature) as features
    from tickets.inc t
    cross join lateral tickets.sla(t.region, t.created_at_service, t.first_seen_at) as sla
    cross join lateral (
      select
        t.ticket_id, t.geo_source, t.ingested_at, t.normalized_status, t.raw_status, t.bucket, t.is_actionable, t.cluster,
        t.region, t.location_name, t.location_key, t.assigned_team, t.owner, t.sla_status, t.mttr, t.created_at_service,
        t.scheduled_at, t.closed_at, t.first_seen_at, t.last_seen_at, t.source_created_at, t.source_updated_at, t.latitude,
        t.longitude, sla.*
    ) as properties
    cross join lateral (select 'Point' as type, array[t.longitude, t.latitude] as coordinates) as geometry
    cross join lateral (select 'Feature' as type, t.ticket_id as id, geometry, properties) as feature
    where t.is_actionable and t.longitude is not null
  ) as collection`;

/** @param tickets how many the table should hold; loaded when it does not */
export async function measureMap(env: Environment, tickets: number): Promise<Line[]> {
  const { pool } = env;
  const count = async () => (await pool.query<{ n: number }>('select count(*)::int as n from tickets.inc')).rows[0]?.n;
  if ((await count()) !== tickets) {
    await emptyTickets(env);
    await withWorker(env, async () => load(env, await csvFile(tickets)));
  }
  await pool.query('vacuum analyze tickets.inc');
  // The size only: what a client makes of the payload is no concern of either.
  const bare: number[] = [];
  const ours: number[] = [];
  for (let n = 0; n < RUNS; n += 1) {
    bare.push(await timed(env, `select pg_column_size((${BARE}))`));
    ours.push(await timed(env, 'select pg_column_size(reporting.fn_tickets_for_map())'));
  }
  const { rows } = await pool.query<{ same: boolean; listed: number }>(
    `select ours -> 'features' = bare -> 'features' as same, jsonb_array_length(ours -> 'features') as listed
     from (select reporting.fn_tickets_for_map() as ours, (${BARE}) as bare offset 0) as both_ways`,
  );
  assert.ok(rows[0]?.same && rows[0].listed > 0, 'the bare query does not aggregate the same features');
  return [
    {
      what: `fn_tickets_for_map(), ${rows[0].listed} features of ${tickets} tickets`,
      ours: `${Math.round(Math.min(...ours))} ms`,
      reference: `${Math.round(Math.min(...bare))} ms`,
      value: Math.min(...ours) / Math.min(...bare),
      limit: 1.3,
    },
    await measurePlan(
      env,
      'nearest open tickets',
      'inc_open_geog',
      `select ticket_id, cluster, hours_open from tickets.inc_open_sla
       order by geog <-> st_setsrid(st_makepoint(36.8, -1.29), 4326)::geography limit 10`,
    ),
    await measurePlan(
      env,
      'open tickets by SLA state',
      'inc_open_counts',
      'select sla_state, count(*) from tickets.inc_open_sla group by 1',
    ),
  ];
}

async function measurePlan(env: Environment, what: string, index: string, query: string): Promise<Line> {
  const { rows } = await env.pool.query<{ 'QUERY PLAN': string }>(`explain (analyze, timing off) ${query}`);
  const plan = rows.map((row) => row['QUERY PLAN']);
  assert.ok(
    plan.some((line) => line.includes(`using ${index} `) || line.includes(`on ${index} `)),
    plan.join('\n'),
  );
  const time = plan.find((line) => line.startsWith('Execution Time'))?.split(': ')[1] ?? '';
  return { what: `${what}: index ${index}`, ours: time, reference: '' };
}
