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

export async function readHealth(db: Db): Promise<Health> {
  const { rows } = await db.query<{ health: Health }>('select to_json(h) as health from tickets_ops.health h');
  return (rows[0] as { health: Health }).health;
}

/** The datasets that are on. */
export async function readDatasets(db: Db): Promise<DatasetHealth[]> {
  const { rows } = await db.query<{ row: DatasetHealth }>('select to_json(d) as row from tickets_ops.datasets d');
  return rows.map(({ row }) => row);
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
