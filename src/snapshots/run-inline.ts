/**
 * Ingesting from the command line: asks for the same jobs as the schedule does, lends a hand running them, and waits
 * for the end. It works whether or not a worker runs elsewhere: the next free worker takes a job.
 */
import { run as startRunner, type TaskList } from 'graphile-worker';
import type { ClientBase } from 'pg';
import { futureDatedReason, isFutureDated, type LedgerStatus, type Mode } from '../bucket/plan.ts';
import { csvBytes } from '../csv/gunzip.ts';
import { orRefusal, Refusal } from '../csv/refused.ts';
import type { Db } from '../database/client.ts';
import { enqueue, JOB_KEYS } from '../database/jobs.ts';
import type { Dataset } from '../settings/dataset.ts';
import type { Log } from '../settings/log.ts';
import { openPool, workerEnded } from '../worker/pool.ts';
import { workerPreset } from '../worker/worker.ts';
import { requestLook } from './fetch.ts';
import { highWaterMark, inFlight } from './knowledge.ts';
import * as ledger from './ledger.ts';
import { NOTHING_KNOWN, stage } from './stage.ts';

/** A row of the ledger, as the command line reports it. */
interface LoadedSnapshot {
  snapshot_id: string;
  source_key: string;
  status: LedgerStatus;
  /** Whole or in part. */
  loaded: boolean;
  /** Why it failed, is partial or held, or was passed over. */
  reason: string | null;
  /** What is odd about it, though it was loaded. */
  warnings: string[];
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

/** How far a load is: a phase of the snapshot in flight, and how much of it is done. */
type Report = (phase: string, done: number, total: number) => void;

/** Loads from the bucket through fetch_snapshot and the jobs it fans out into; resolves when the last one is done. */
export async function loadFromBucket(
  client: ClientBase,
  tasks: TaskList,
  dataset: Dataset,
  mode: Mode,
  log: Log,
  report: Report,
): Promise<LoadResult> {
  const since = await databaseTime(client);
  return withLoadTasks(client, tasks, log, async () => {
    await requestLook(client, dataset.name, mode);
    await untilIdle(client, dataset, report);
    return resultOf(client, dataset, since, JOB_KEYS.fetch(dataset.name, mode));
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
  report: Report,
): Promise<LoadResult> {
  const since = await databaseTime(client);
  return withLoadTasks(client, tasks, log, async () => {
    const claim = await claimWhenFree(client, dataset, file);
    if (typeof claim === 'string') return { ok: false, snapshots: [], error: claim };
    const staged = await orRefusal(stage(client, dataset, claim, csvBytes(file.key, bytes), NOTHING_KNOWN)).catch(
      async (error: Error) => {
        await ledger.fail(client, claim.snapshotId, error.message);
        throw error;
      },
    );
    if (staged instanceof Refusal) await ledger.fail(client, claim.snapshotId, staged.reason);
    await untilIdle(client, dataset, report);
    return resultOf(client, dataset, since, null);
  });
}

/**
 * Why a local file may not be loaded now, in words; undefined where it may.
 * Files whose times tie go by their order of arrival, so only an older one is refused.
 */
export async function refusalOf(db: Db, dataset: Dataset, file: ledger.Claimable): Promise<string | undefined> {
  const mark = await highWaterMark(db, dataset.name);
  if (mark !== null && file.snapshotAt < mark.snapshotAt) {
    return `${file.key} (${file.snapshotAt.toISOString()}) is older than what is loaded (${mark.snapshotAt.toISOString()}): it would overwrite newer tickets, so it is not loaded.`;
  }
  const now = await databaseTime(db);
  return isFutureDated(file.snapshotAt, now) ? `${file.key}: ${futureDatedReason(file.snapshotAt, now)}` : undefined;
}

/** @returns why it cannot be loaded, in words, or the claim */
async function claimWhenFree(
  client: ClientBase,
  dataset: Dataset,
  file: ledger.Claimable,
): Promise<ledger.Claim | string> {
  const deadline = Date.now() + BUSY_PATIENCE_MS;
  const look = { dataset: dataset.name, jobId: null, forced: false, backfill: false };
  for (;;) {
    const refusal = await refusalOf(client, dataset, file);
    if (refusal !== undefined) return refusal;
    const busy = await inFlight(client, dataset.name, null);
    if (busy?.abandoned) await ledger.putBack(client, busy.snapshot_id);
    const claim = await ledger.claim(client, look, file, 'file');
    if (typeof claim !== 'string') return claim;
    if (Date.now() > deadline)
      return `Snapshot ${busy?.snapshot_id} (${busy?.source_key}) is still being loaded: try again later.`;
    await pause();
  }
}

/** Waits until nothing of the dataset is in flight and no look at its folder is due, telling how far it is. */
async function untilIdle(client: ClientBase, dataset: Dataset, report: Report): Promise<void> {
  for (;;) {
    const { rows } = await client.query<{ waiting: boolean; status: string; done: number; total: number }>(
      `select
         exists (
           select from tickets_ops.list_jobs() j
           where j.state <> 'failed'
             and (starts_with(j.key, tickets_ops.fetch_job_key($1, '')) or j.key = tickets_ops.finalize_job_key(s.snapshot_id)
               or j.state = 'running' and j.task in ('fetch_snapshot', 'finalize_snapshot'))
         ) as waiting,
         s.status,
         case when s.status = 'staging' then s.rows_read else s.batches_done end::int as done,
         case when s.status = 'staging' then s.rows_read else s.batches_total end::int as total
       from (select) as one
       left join tickets_ops.snapshots s on s.dataset = $1 and s.in_flight`,
      [dataset.name],
    );
    const now = rows[0];
    if (!now?.waiting && !now?.status) return;
    if (now.status && now.total > 0) report(now.status, now.done, now.total);
    await pause();
  }
}

async function resultOf(
  client: ClientBase,
  dataset: Dataset,
  since: Date,
  fetchKey: string | null,
): Promise<LoadResult> {
  const { rows } = await client.query<LoadedSnapshot & { is_trouble: boolean }>(
    `select tickets_ops.needs_person(s) or is_late as is_trouble, snapshot_id, source_key, status, tickets_ops.is_loaded(status) as loaded,
       tickets_ops.reason(s) as reason, warnings, rows_read, rows_inserted, rows_updated, rows_unchanged, rows_dropped_alarm,
       rows_dropped_sentinel, rows_duplicate, rows_rejected
     from tickets_ops.snapshots s where dataset = $1 and progress_at >= $2 order by snapshot_id`,
    [dataset.name, since],
  );
  const { rows: failed } = await client.query<{ error: string }>(
    `select coalesce(last_error, 'its worker died') as error from tickets_ops.list_jobs() where key = $1 and state = 'failed'`,
    [fetchKey],
  );
  const error = failed[0]?.error;
  const snapshots = rows.map(({ is_trouble: _, ...snapshot }) => snapshot);
  // A file that is none of ours, or whose time has not come, is told and is no failure of this load.
  const ok = error === undefined && !rows.some((snapshot) => snapshot.is_trouble);
  return { ok, snapshots, ...(error !== undefined && { error }) };
}

/** Runs load tasks in this process meanwhile; no schedule, no geocoding. */
async function withLoadTasks<T>(client: ClientBase, tasks: TaskList, log: Log, work: () => Promise<T>): Promise<T> {
  const preset = workerPreset(log);
  const runner = await startRunner({ preset, pgPool: openPool(preset.worker.events) }, tasks, []);
  try {
    // A run before this one may have been killed, and be the only other worker there ever was.
    await enqueue(client, 'fleettickets_maintain', {}, { key: JOB_KEYS.fleettickets_maintain });
    return await work();
  } finally {
    await runner.stop().catch(() => undefined); // it rejects when the runner has stopped by itself
    await workerEnded(runner.events);
  }
}

async function databaseTime(client: Db): Promise<Date> {
  const { rows } = await client.query<{ now: Date }>('select clock_timestamp() as now');
  return rows[0]?.now ?? new Date();
}

const pause = () => new Promise((resolve) => setTimeout(resolve, POLL_MS));
