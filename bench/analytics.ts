/**
 * Analytics: a history of 400 days, written as the pipeline would have left it, and the time that each question about it
 * takes. The planner knows the tables (vacuum analyze), as it does in a database that lives.
 */
import assert from 'node:assert/strict';
import type { Environment } from '../test/support/environment.ts';
import { emptyTickets } from './stand.ts';
import type { Line } from './table.ts';

const RUNS = 5;
/** Open when the history ends: that many tickets arrive in two days, and the median is closed after half a day. */
const OPEN_SHARE = 1 / 500;

/** 37 clusters in 8 regions, 4 teams each; 3 % are reopened once, 2 % corrected, 20 % move; 30 % have no created_at_service. */
const LIVES = `
  create table bench_lives as
  select
    'WOT' || lpad(i::text, 7, '0') as ticket_id, created, closed,
    case when i % 10 >= 3 then created end as told,
    'Cluster ' || i % 37 as cluster, 'region ' || i % 37 % 8 as region, format('Cluster %s %s', i % 37, chr(65 + i / 37 % 4)) as team,
    'owner ' || i % 8 as owner, i % 33 = 1 as reopened, i % 50 = 2 as corrected, i % 5 = 3 as moved,
    date_trunc('hour', created + interval '49 hours') as seen_at, date_trunc('hour', closed + interval '49 hours') as closing_at
  from generate_series(1, $1::integer) as i
  cross join lateral (select now() - interval '49 hours' - interval '400 days' * (1 - i::float8 / $1) as created) as c
  cross join lateral (
    select case
      when i > $1 * (1 - ${OPEN_SHARE}) then 'infinity'
      -- Between half an hour and four days, half of them within a day, the same in every run.
      else least(created + interval '0.5 hours' + interval '20 hours' * -ln(1 - (hashint4(i) & 65535) / 65536.0), now() - interval '49 hours')
    end as closed
  ) as l`;

const TICKETS = `
  insert into tickets.inc (ticket_id, raw)
  select ticket_id, jsonb_build_object(
    'ticket_id', ticket_id, 'normalized_status', case when is_open then 'Open' else 'Closed' end, 'is_actionable', is_open::text,
    'cluster', cluster, 'region', region, 'assigned_team', team, 'owner', owner, 'sla_status', 'Compliant',
    'mttr', case when is_open then '' else round((extract(epoch from closed - created) / 3600)::numeric, 2)::text end,
    'created_at_service', coalesce(told::text, ''), 'first_seen_at', seen_at::text, 'closed_at', case when is_open then '' else closed::text end,
    'location_name', 'NW_' || cluster || '_FDT', 'description', repeat('Customer has no light. ', 12)
  )
  from bench_lives cross join lateral (select closed = 'infinity' as is_open) as o
  order by ticket_id`;

const EVENTS = `
  insert into tickets.inc_events (
    ticket_id, event, old_value, new_value, snapshot_id, snapshot_at, assigned_team, owner, cluster, region, created_at_service,
    closed_at, mttr, sla_status, team_before
  )
  select
    l.ticket_id, e.event, e.old_value, e.new_value, extract(epoch from e.at) / 3600, e.at,
    case when e.nth < 5 then l.team end, case when e.nth < 5 then l.owner end, case when e.nth < 5 then l.cluster end,
    case when e.nth < 5 then l.region end, case when e.nth < 5 then l.told end, e.closed_at,
    extract(epoch from e.closed_at - l.created) / 60, case when e.closed_at is not null then 'Compliant' end,
    case when e.nth between 2 and 4 and e.old_value is not null then l.team end
  from bench_lives l
  cross join lateral (values
    (1, 'opened', null, 'Open', seen_at, null, seen_at < closing_at),
    (2, 'closed', case when seen_at < closing_at then 'Open' end, 'Closed', closing_at, closed, closed < 'infinity'),
    (3, 'reopened', 'Closed', 'Open', closing_at + interval '1 hour', null, closed < 'infinity' and reopened),
    (4, 'closed', 'Open', 'Closed', closing_at + interval '2 hours', closed, closed < 'infinity' and reopened),
    (5, 'closure_corrected', 'Closed', 'Closed', closing_at + interval '3 hours', closed, closed < 'infinity' and corrected),
    (6, 'status_changed', 'Open', 'Closed', closing_at, null, seen_at < closing_at and closed < 'infinity'),
    (7, 'team_changed', 'Pool', team, closing_at, null, closed < 'infinity' and moved)
  ) as e (nth, event, old_value, new_value, at, closed_at, happened)
  where e.happened and e.at <= now()
  order by e.at, l.ticket_id, e.nth`;

/** @param tickets of which the history is made; whatever is in the tables goes */
export async function measureAnalytics(env: Environment, tickets: number): Promise<Line[]> {
  const { pool } = env;
  await emptyTickets(env);
  await pool.query('drop table if exists bench_lives');
  await pool.query(LIVES, [tickets]);
  await pool.query('alter table tickets.inc disable trigger user');
  await pool.query(TICKETS);
  await pool.query('alter table tickets.inc enable trigger user');
  await pool.query(EVENTS);
  await pool.query(`insert into tickets.import_meta values ('inc', jsonb_build_object('snapshot_at', now()))`);
  await pool.query('vacuum analyze tickets.inc');
  await pool.query('vacuum analyze tickets.inc_events');
  await pool.query(`select tickets_ops.rebuild_days()`);
  await pool.query('vacuum analyze tickets.inc_daily');
  await pool.query('drop table bench_lives');
  const { rows } = await pool.query<{ open: number; tickets: number }>(
    'select count(*)::int as tickets, count(*) filter (where is_actionable)::int as open from tickets.inc',
  );
  const { open = 0, tickets: made } = rows[0] ?? {};
  assert.equal(made, tickets);

  const lines: Line[] = [];
  const measure = async (what: string, limit: number, query: string) => {
    const times: number[] = [];
    for (let n = 0; n < RUNS; n += 1) {
      const from = performance.now();
      await pool.query(query);
      times.push(performance.now() - from);
    }
    const best = Math.min(...times);
    lines.push({
      what: `analytics: ${what}`,
      ours: `${Math.round(best)} ms`,
      reference: '',
      value: best,
      limit,
      unit: 'ms',
    });
  };
  const ask = (call: string) => `select count(*) from tickets.${call}`;
  const month = `date_trunc('month', now() - interval '100 days')::date, (date_trunc('month', now() - interval '100 days') + interval '1 month')::date`;
  const year = `date_trunc('week', now() - interval '52 weeks')::date, date_trunc('week', now())::date`;
  await measure(`flow of a month by day, ${tickets} tickets`, 150, ask(`inc_flow(${month})`));
  await measure('flow of a year by week and team', 600, ask(`inc_flow(${year}, 'week', 'team')`));
  await measure('time to close of a month', 1000, ask(`inc_time_to_close(${month})`));
  await measure('backlog of a year by team', 100, ask(`inc_backlog_daily(${year}, 'team')`));
  await measure(`record_day, ${open} open`, 100, `select tickets_ops.record_day('inc')`);
  return lines;
}
