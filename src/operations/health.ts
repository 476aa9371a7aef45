/** How the pipeline is doing, as the database sees it: the health row, the last snapshots, the jobs that fail. */
import { hostname } from 'node:os';
import type { Db } from '../database/client.ts';

/** The row of tickets_ops.health, as JSON: times in ISO 8601, intervals as Postgres writes them. */
export interface Health {
  readonly ok: boolean;
  readonly problems: readonly string[];
  readonly checked_at: string | null;
  readonly checked_key: string | null;
  readonly checked_status: string | null;
  readonly loaded_snapshot_id: number | null;
  readonly loaded_key: string | null;
  readonly loaded_at: string | null;
  readonly loaded_status: string | null;
  readonly data_at: string | null;
  readonly open_missing: number | null;
  readonly in_flight_snapshot_id: number | null;
  readonly in_flight_status: string | null;
  readonly in_flight_idle: string | null;
  readonly missed_run_at: string | null;
  /** null: no worker has recorded the schedule yet. */
  readonly next_run_at: string | null;
  readonly jobs_waiting: number;
  readonly oldest_waiting_age: string | null;
  readonly jobs_running: number;
  readonly jobs_failed: number;
  readonly workers_alive: number;
  readonly workers_unsure: number;
  readonly geocoding_state: string | null;
  readonly geocoding_budget_left: number | null;
  readonly geocoding_jobs: number;
  readonly places_for_review: number;
}

/** A row of tickets_ops.datasets, of which `fleettickets status` says what tickets_ops.health does not. */
export interface DatasetHealth {
  readonly dataset: string;
  readonly open_tickets: number;
  readonly checked_at: string | null;
  readonly loaded_at: string | null;
  readonly loaded_key: string | null;
  readonly loaded_status: string | null;
  readonly data_at: string | null;
  readonly open_missing: number | null;
  readonly missed_run_at: string | null;
  readonly next_run_at: string | null;
}

export interface Status {
  readonly health: Health;
  /** Those that are on: inc, and maybe crq. */
  readonly datasets: readonly DatasetHealth[];
  /** The last files that were looked at, newest first. */
  readonly snapshots: readonly {
    readonly snapshot_id: number;
    readonly dataset: string;
    readonly file: string;
    readonly status: string;
    readonly at: string;
    readonly read: number;
    readonly inserted: number;
    readonly updated: number;
    readonly rejected: number;
    readonly reason: string | null;
  }[];
  /** Jobs whose last attempt failed, the latest first. */
  readonly failing: readonly {
    readonly id: number;
    readonly task: string;
    readonly state: string;
    readonly attempts: string;
    readonly next_at: string | null;
    readonly error: string | null;
  }[];
}

const SNAPSHOTS_SHOWN = 10;
const JOBS_SHOWN = 20;

export async function readHealth(db: Db): Promise<Health> {
  const { rows } = await db.query<{ health: Health }>('select to_json(h) as health from tickets_ops.health h');
  return (rows[0] as { health: Health }).health;
}

/** The datasets that are on. */
export async function readDatasets(db: Db): Promise<DatasetHealth[]> {
  const { rows } = await db.query<{ row: DatasetHealth }>('select to_json(d) as row from tickets_ops.datasets d');
  return rows.map(({ row }) => row);
}

/** Everything that `fleettickets status` shows. */
export async function readStatus(db: Db): Promise<Status> {
  const { rows: snapshots } = await db.query<{ row: Status['snapshots'][number] }>(
    `select to_json(s) as row
     from (
       select snapshot_id, dataset, source_key as file, status, coalesce(loaded_at, progress_at) as at,
         rows_read as read, rows_inserted as inserted, rows_updated as updated, rows_rejected as rejected,
         coalesce(tickets_ops.reason(s), array_to_string(nullif(warnings, '{}'), ' ')) as reason
       from tickets_ops.snapshots s
       where dataset in (select tickets.datasets())
       order by snapshot_id desc limit ${SNAPSHOTS_SHOWN} -- primary key
     ) as s`,
  );
  const { rows: failing } = await db.query<{ row: Status['failing'][number] }>(
    `select to_json(j) as row
     from (
       select id, task, state, format('%s of %s', attempts, max_attempts) as attempts,
         case when state = 'retrying' then run_at end as next_at, last_error as error
       from tickets_ops.jobs where state = 'failed' or last_error is not null
       order by run_at desc limit ${JOBS_SHOWN}
     ) as j`,
  );
  return {
    health: await readHealth(db),
    datasets: await readDatasets(db),
    snapshots: snapshots.map(({ row }) => row),
    failing: failing.map(({ row }) => row),
  };
}

/** A worker of this host, as it last showed itself. */
interface LocalWorker {
  readonly state: string;
  /** Since its last heartbeat. */
  readonly secondsAgo: number;
}

/** The workers that run on this host (in this container, whose host name is its own), the latest first. */
export async function workersHere(db: Db): Promise<LocalWorker[]> {
  const { rows } = await db.query<{ state: string; seconds: number }>(
    `select state, extract(epoch from now() - seen_at)::float8 as seconds
     from tickets_ops.worker_states() where host = $1 order by started_at desc`,
    [hostname()],
  );
  return rows.map(({ state, seconds }) => ({ state, secondsAgo: Math.max(0, Math.round(seconds)) }));
}
