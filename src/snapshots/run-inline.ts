/**
 * Ingesting from the command line: asks for the same jobs as the schedule does, lends a hand running them, and waits
 * for the end. It works whether or not a worker runs elsewhere: whoever is free takes a job.
 */
import { type Runner, run as startRunner, type TaskList } from 'graphile-worker';
import type { ClientBase } from 'pg';
import type { Mode } from '../bucket/choose.ts';
import { RefusedFileError } from '../csv/refused.ts';
import type { Dataset } from '../settings/dataset.ts';
import type { Log } from '../settings/log.ts';
import type { Progress } from '../terminal/progress.ts';
import { heartbeatEnded } from '../worker/heartbeat.ts';
import { workerPreset } from '../worker/worker.ts';
import * as ledger from './ledger.ts';
import { LOAD_ATTEMPTS, LOAD_PRIORITY, stage } from './stage.ts';

/** A row of the ledger, as the command line reports it. */
export interface LoadedSnapshot {
  snapshot_id: string;
  source_key: string;
  status: ledger.InFlight['status'];
  /** Why it failed, is partial or was passed over. */
  reason: string | null;
  rows_read: string;
  rows_inserted: string;
  rows_updated: string;
  rows_unchanged: string;
  rows_dropped_alarm: string;
  rows_dropped_sentinel: string;
  rows_duplicate: string;
  rows_rejected: string;
}

export interface LoadResult {
  /** Nothing failed, and nothing was loaded in part only. */
  readonly ok: boolean;
  /** What was looked at, in order. */
  readonly snapshots: readonly LoadedSnapshot[];
  /** Why nothing could be loaded at all. */
  readonly error?: string;
}

const POLL_MS = 200;
/** How long a local file waits for a snapshot that is being loaded. */
const BUSY_PATIENCE_MS = 10 * 60_000;

/** Loads from the bucket through fetch_snapshot and the jobs it fans out into; resolves when the last one is done. */
export async function loadFromBucket(
  client: ClientBase,
  tasks: TaskList,
  dataset: Dataset,
  mode: Mode,
  log: Log,
  progress: Progress,
): Promise<LoadResult> {
  const since = await databaseTime(client);
  const key = `fetch_snapshot:${dataset.name}:${mode}`;
  const payload = { dataset: dataset.name, force: mode === 'force', backfill: mode === 'backfill' };
  return withLoadTasks(tasks, log, async (runner) => {
    await runner.addJob('fetch_snapshot', payload, {
      jobKey: key,
      maxAttempts: LOAD_ATTEMPTS,
      priority: LOAD_PRIORITY,
    });
    return settle(client, dataset, since, key, progress);
  });
}

/** Stages a local file in this process (a worker elsewhere could not read it) and loads it through the jobs. */
export async function loadFile(
  client: ClientBase,
  tasks: TaskList,
  dataset: Dataset,
  file: ledger.Claimable,
  bytes: AsyncIterable<Buffer>,
  log: Log,
  progress: Progress,
): Promise<LoadResult> {
  const since = await databaseTime(client);
  return withLoadTasks(tasks, log, async () => {
    const claim = await claimWhenFree(client, dataset, file);
    if (typeof claim === 'string') return { ok: false, snapshots: [], error: claim };
    try {
      await stage(client, dataset, claim, bytes, null);
    } catch (error) {
      await ledger.fail(client, claim.snapshotId, (error as Error).message);
      if (!(error instanceof RefusedFileError)) throw error;
    }
    return settle(client, dataset, since, '', progress);
  });
}

/** @returns why it cannot be loaded, in words, or the claim */
async function claimWhenFree(
  client: ClientBase,
  dataset: Dataset,
  file: ledger.Claimable,
): Promise<ledger.Claim | string> {
  const deadline = Date.now() + BUSY_PATIENCE_MS;
  for (;;) {
    const { loadedThrough } = await ledger.knowledge(client, dataset.name, []);
    if (loadedThrough && file.snapshotAt < loadedThrough) {
      return `${file.key} (${file.snapshotAt.toISOString()}) is older than what is loaded (${loadedThrough.toISOString()}): it would overwrite newer tickets, so it is not loaded.`;
    }
    const busy = await ledger.inFlight(client, dataset.name, null);
    if (busy?.abandoned) await ledger.release(client, busy.snapshot_id);
    const look = { dataset: dataset.name, jobId: null, forced: false, backfill: false };
    const claim = await ledger.claim(client, look, file, 'file');
    if (claim === 'stale') continue;
    if (claim !== 'busy') return claim;
    if (Date.now() > deadline)
      return `Snapshot ${busy?.snapshot_id} (${busy?.source_key}) is still being loaded: try again later.`;
    await pause();
  }
}

/** Waits until nothing of the dataset is in flight and no job of this request is left, showing how far it is. */
async function settle(
  client: ClientBase,
  dataset: Dataset,
  since: Date,
  fetchKey: string,
  progress: Progress,
): Promise<LoadResult> {
  try {
    for (;;) {
      const { rows } = await client.query<{ waiting: boolean; status: string; done: number; total: number }>(
        `select
           exists (
             select from graphile_worker.jobs j
             where j.attempts < j.max_attempts and (j.key = $2 or j.key = format('finalize_snapshot:%s', s.snapshot_id))
                or j.locked_at is not null and j.task_identifier in ('fetch_snapshot', 'finalize_snapshot')
           ) as waiting,
           s.status,
           case when s.status = 'staging' then s.rows_read else s.batches_done end::int as done,
           case when s.status = 'staging' then s.rows_read else s.batches_total end::int as total
         from (select) as one
         left join tickets_ops.snapshots s on s.dataset = $1 and s.status in ('staging', 'loading', 'finalizing')`,
        [dataset.name, fetchKey],
      );
      const now = rows[0];
      if (!now?.waiting && !now?.status) break;
      if (now.status && now.total > 0) progress.update(now.status, now.done, now.total);
      await pause();
    }
  } finally {
    progress.stop();
  }
  return resultOf(client, dataset, since, fetchKey);
}

async function resultOf(client: ClientBase, dataset: Dataset, since: Date, fetchKey: string): Promise<LoadResult> {
  const { rows: snapshots } = await client.query<LoadedSnapshot>(
    `select snapshot_id, source_key, status, coalesce(error, broken_off) as reason, rows_read, rows_inserted, rows_updated,
       rows_unchanged, rows_dropped_alarm, rows_dropped_sentinel, rows_duplicate, rows_rejected
     from tickets_ops.snapshots where dataset = $1 and progress_at >= $2 order by snapshot_id`,
    [dataset.name, since],
  );
  const { rows: failed } = await client.query<{ error: string }>(
    `select coalesce(last_error, 'its worker died') as error from graphile_worker.jobs
     where key = $1 and attempts >= max_attempts and locked_at is null`,
    [fetchKey],
  );
  const error = failed[0]?.error;
  const ok = error === undefined && !snapshots.some((s) => s.status === 'failed' || s.status === 'partial');
  return { ok, snapshots, ...(error !== undefined && { error }) };
}

/** Runs load tasks in this process meanwhile; no schedule, no geocoding. */
async function withLoadTasks<T>(tasks: TaskList, log: Log, work: (runner: Runner) => Promise<T>): Promise<T> {
  const runner = await startRunner({ preset: workerPreset(log) }, tasks, []);
  try {
    // A run before this one may have been killed, and be the only other worker there ever was.
    await runner.addJob('maintain', {}, { jobKey: 'maintain', maxAttempts: 1, priority: LOAD_PRIORITY * 2 });
    return await work(runner);
  } finally {
    await runner.stop().catch(() => undefined); // it rejects when the runner has stopped by itself
    await heartbeatEnded(runner.events);
  }
}

async function databaseTime(client: ClientBase): Promise<Date> {
  const { rows } = await client.query<{ now: Date }>('select clock_timestamp() as now');
  return rows[0]?.now ?? new Date();
}

const pause = () => new Promise((resolve) => setTimeout(resolve, POLL_MS));
