/**
 * The report: flow, backlog, repair times and teams of the last days, as the analytic functions of the schema `tickets` give
 * them (their comments say units, populations and traps). Reads only.
 */
import type { Db } from '../database/client.ts';

export const DIMENSIONS = ['team', 'cluster', 'region', 'owner', 'status'] as const;
type Dimension = (typeof DIMENSIONS)[number];

/** The first day as text, YYYY-MM-DD, or how many days until today (in Nairobi), today included. */
export type Since = { readonly day: string } | { readonly days: number };

export interface Report {
  /** Days in Nairobi; `to` is the day after the last. */
  readonly from: string;
  readonly to: string;
  readonly by: Dimension | null;
  /** Times in ISO 8601; null before the first snapshot. */
  readonly snapshot_through: string | null;
  readonly settled_through: string | null;
  /** By day. */
  readonly flow: readonly Flow[];
  /** By day. */
  readonly backlog: readonly Backlog[];
  /** By week. */
  readonly repair_times: readonly RepairTimes[];
  readonly time_to_close: TimeToClose;
  readonly teams: readonly Record<string, unknown>[];
  /** Of the whole range by value; null where nothing was asked for. */
  readonly values: readonly Record<string, unknown>[] | null;
}

export interface Flow {
  readonly period: string;
  readonly created: number;
  readonly closed: number;
  readonly closed_final: number;
  readonly reopened: number;
  readonly net: number;
  readonly undated: number;
  readonly provisional: boolean;
}

export interface Backlog {
  readonly day: string;
  readonly open: number | null;
  readonly open_breached: number | null;
  readonly open_at_risk: number | null;
  readonly open_unknown: number | null;
  readonly observed: boolean;
}

interface RepairTimes {
  readonly period: string;
  readonly n: number;
  readonly mttr_median: number | null;
  readonly hours_p80: number | null;
  readonly hours_p95: number | null;
  readonly within_24h_pct: number | null;
  readonly within_48h_pct: number | null;
  readonly reopened_pct: number | null;
  readonly provisional: boolean;
}

interface TimeToClose {
  readonly opened: number;
  readonly still_open: number;
  readonly median_hours: number | null;
  readonly p80_hours: number | null;
  readonly p95_hours: number | null;
  readonly naive_median_hours: number | null;
}

/** One object, so that all of it is of one moment. */
const REPORT = `
  select json_build_object(
    'from', r.first, 'to', r.last, 'by', $3::text,
    'snapshot_through', tickets.snapshot_through(), 'settled_through', tickets.settled_through(),
    'flow', (select coalesce(json_agg(f), '[]') from tickets.inc_flow(r.first, r.last) f),
    'backlog', (select coalesce(json_agg(b), '[]') from tickets.inc_backlog_daily(r.first, r.last) b),
    'repair_times', (select coalesce(json_agg(t), '[]') from tickets.inc_repair_times(r.first, r.last) t),
    'time_to_close', (select to_json(c) from tickets.inc_time_to_close(r.first, r.last) c),
    'teams', (select coalesce(json_agg(s), '[]') from tickets.inc_team_scorecard(r.first, r.last) s),
    'values', case when $3 is not null then (
      select coalesce(json_agg(v), '[]')
      from (
        select f.*, c.median_hours, c.p95_hours, c.within_48h_pct
        from (
          select value, sum(created) as created, sum(closed) as closed, sum(closed_final) as closed_final, sum(reopened) as reopened,
            sum(net) as net
          from tickets.inc_flow(r.first, r.last, 'month', $3) group by value
        ) as f
        left join tickets.inc_time_to_close(r.first, r.last, $3) c on c.value = f.value
        order by f.created desc, f.value
      ) as v
    ) end
  ) as report
  from (
    select coalesce($1::date, tickets.eat_day(now()) - $2::integer + 1) as first, tickets.eat_day(now()) + 1 as last
  ) as r`;

/** The report of the days since then, today included. */
export async function readReport(db: Db, since: Since, by: Dimension | null): Promise<Report> {
  const range = 'day' in since ? [since.day, null] : [null, since.days];
  const { rows } = await db.query<{ report: Report }>(REPORT, [...range, by]);
  return (rows[0] as { report: Report }).report;
}
