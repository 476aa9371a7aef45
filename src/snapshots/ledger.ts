/**
 * The ledger (tickets_ops.snapshots) as the pipeline uses it. Its states are written down in the migration that makes
 * it; every change of state is one statement that names the state it comes from, so a process that lost its claim
 * changes nothing.
 */

import type { ClientBase } from 'pg';
import type { Candidate, Knowledge, LedgerStatus } from '../bucket/choose.ts';
import { versionOf } from '../bucket/choose.ts';
import { type Db, transaction } from '../database/client.ts';
import { ExpectedError } from '../settings/errors.ts';

/** The work on a snapshot was taken over or finished by someone else: stop, and change nothing more. */
export class ClaimLostError extends ExpectedError {
  override name = 'ClaimLostError';
}

/** A claim to stage a snapshot. The attempt is a fencing token: an older attempt can write nothing more. */
export interface Claim {
  readonly snapshotId: string;
  readonly attempt: number;
}

export interface InFlight {
  readonly snapshot_id: string;
  readonly source_key: string;
  readonly status: LedgerStatus;
  readonly job_id: string | null;
  /** Nobody works on it any more, so it may be put back. Only ever true while staging. */
  readonly abandoned: boolean;
}

/** Silence after which a local file's reader, which is no job, counts as dead. */
const FILE_READER_TIMEOUT = '2 minutes';

/**
 * The snapshot of the dataset that is in flight, if any.
 * One that is being staged belongs to its job while that runs; a job that waits for its next attempt, or that failed
 * or vanished, holds nothing. A job's own earlier attempt counts as abandoned.
 */
export async function inFlight(db: Db, dataset: string, ownJob: string | null): Promise<InFlight | undefined> {
  const { rows } = await db.query<InFlight>(
    `select
       s.snapshot_id, s.source_key, s.status, s.job_id,
       s.status = 'staging' and case
         when s.job_id is null then s.progress_at < now() - interval '${FILE_READER_TIMEOUT}'
         else s.job_id = $2 or not exists (select from graphile_worker.jobs j where j.id = s.job_id and j.locked_at is not null)
       end as abandoned
     from tickets_ops.snapshots s
     where s.dataset = $1 and s.status in ('staging', 'loading', 'finalizing')`,
    [dataset, ownJob],
  );
  return rows[0];
}

/** Whether a backfill of the dataset waits or runs: it has more files to load, in their order. */
export async function isBackfilling(db: Db, dataset: string): Promise<boolean> {
  const { rows } = await db.query(
    `select from graphile_worker.jobs
     where key = format('fetch_snapshot:%s:backfill', $1::text) and (attempts < max_attempts or locked_at is not null)`,
    [dataset],
  );
  return rows.length > 0;
}

/** Puts a snapshot whose reading broke off back, so that its file is read again; no transaction needs to be open. */
export async function release(db: Db, snapshotId: string): Promise<void> {
  await db.query(`select tickets_ops.put_back($1, 'staging')`, [snapshotId]);
}

/** What the ledger and import_meta (which a takeover inherits) know about these files and about the last load. */
export async function knowledge(
  db: Db,
  dataset: string,
  listing: readonly Candidate[],
): Promise<Knowledge & { rememberedEtag: string | null; rememberedSha256: string | null }> {
  const looked = await db.query<{ source_key: string; source_etag: string; status: LedgerStatus }>(
    `select distinct on (source_key, source_etag) source_key, source_etag, status
     from tickets_ops.snapshots
     where dataset = $1 and source_key = any($2)
     order by source_key, source_etag, snapshot_id desc -- index snapshots_by_file`,
    [dataset, listing.map((file) => file.key)],
  );
  const { rows } = await db.query<{
    loaded_through: Date | null;
    etag: string | null;
    sha256: string | null;
    now: Date;
  }>(
    `select
       now(),
       tickets_ops.loaded_through($1) as loaded_through,
       -- The last snapshot that touched tickets decides what an equal ETag means: after a partial or failed one, nothing.
       case when last.status is null then btrim(meta.metadata ->> 'source_etag', '"') when last.status = 'done' then last.source_etag end as etag,
       -- A local file is forgotten: whatever the bucket holds next is loaded.
       case when last.status = 'done' and last.origin = 'bucket' then last.source_sha256 end as sha256
     from (select) as one
     left join tickets.import_meta meta on meta.dataset = $1
     left join lateral (
       select status, source_etag, source_sha256, origin from tickets_ops.snapshots
       where dataset = $1 and staged_at is not null
       order by staged_at desc limit 1
     ) as last on true`,
    [dataset],
  );
  const known = rows[0];
  return {
    looked: new Map(looked.rows.map((row) => [versionOf(row.source_key, row.source_etag), row.status])),
    loadedThrough: known?.loaded_through ?? null,
    now: known?.now ?? new Date(),
    rememberedEtag: known?.etag ?? null,
    rememberedSha256: known?.sha256 ?? null,
  };
}

export interface Look {
  readonly dataset: string;
  readonly jobId: string | null;
  readonly forced: boolean;
  readonly backfill: boolean;
}

/**
 * Writes down that a file was looked at and not read, once per version: superseded, unchanged, or failed with a reason.
 * Its time of archiving is written by `archived`.
 */
export async function noteFile(
  client: ClientBase,
  look: Look,
  file: Candidate,
  status: 'superseded' | 'unchanged' | 'failed',
  error: string | null = null,
): Promise<void> {
  await transaction(client, async () => {
    await oneAtATime(client, look.dataset);
    await writeNote(client, look, file, status, error);
  });
}

/** Looks at a dataset that change the ledger take turns, so that each sees what the one before it wrote. */
async function oneAtATime(db: Db, dataset: string): Promise<void> {
  await db.query(`select pg_advisory_xact_lock(hashtext('fleettickets ledger'), hashtext($1))`, [dataset]);
}

async function writeNote(db: Db, look: Look, file: Candidate, status: string, error: string | null): Promise<void> {
  const updated = await db.query(
    `update tickets_ops.snapshots
     set status = $4, error = $5, progress_at = now(), loaded_at = case when $4 = 'unchanged' then now() end
     where dataset = $1 and source_key = $2 and source_etag = $3 and status = 'superseded'`,
    [look.dataset, file.key, file.etag, status, error],
  );
  if (updated.rowCount !== 0) return;
  await db.query(
    `insert into tickets_ops.snapshots
       (dataset, source_key, source_etag, source_size, source_last_modified, snapshot_at, status, error, forced, backfill, job_id, loaded_at)
     select $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, case when $7 = 'unchanged' then now() end
     -- Another look at the same listing may have noted it, or be reading it.
     where not exists (
       select from tickets_ops.snapshots
       where dataset = $1 and source_key = $2 and source_etag = $3 and (status = $7 or $7 <> 'unchanged')
     )`,
    [
      look.dataset,
      file.key,
      file.etag,
      file.size,
      file.lastModified,
      file.snapshotAt,
      status,
      error,
      look.forced,
      look.backfill,
      look.jobId,
    ],
  );
}

/** What a claim needs to know of a file; a local one has no ETag. */
export type Claimable = Omit<Candidate, 'etag'> & { readonly etag: string | null };

/**
 * Claims a file for staging: reopens its superseded row, or makes one.
 * @returns 'busy' when another snapshot of the dataset is in flight (the database's constraint decides); 'stale' when the
 * listing it was chosen from is out of date: something newer, or this very version, has been loaded since
 */
export async function claim(
  client: ClientBase,
  look: Look,
  file: Claimable,
  origin: 'bucket' | 'file',
): Promise<Claim | 'busy' | 'stale'> {
  try {
    return await transaction(client, async () => {
      await oneAtATime(client, look.dataset);
      return (await isStale(client, look, file)) ? 'stale' : openRow(client, look, file, origin);
    });
  } catch (error) {
    if ((error as { constraint?: string }).constraint === 'snapshots_one_in_flight') return 'busy';
    throw error;
  }
}

async function isStale(db: Db, look: Look, file: Claimable): Promise<boolean> {
  const { rows } = await db.query<{ stale: boolean }>(
    `select coalesce(tickets_ops.loaded_through($1) > $2, false)
       or (not $5 and exists (
         select from tickets_ops.snapshots
         where dataset = $1 and source_key = $3 and source_etag = $4 and status not in ('superseded', 'staging')
       )) as stale`,
    [look.dataset, file.snapshotAt, file.key, file.etag, look.forced],
  );
  return rows[0]?.stale ?? false;
}

async function openRow(db: Db, look: Look, file: Claimable, origin: string): Promise<Claim> {
  const row = [look.forced, look.backfill, look.jobId, look.dataset, file.key, file.etag];
  const reopened = await db.query<{ snapshot_id: string; attempt: number }>(
    `update tickets_ops.snapshots
     set status = 'staging', error = null, forced = $1, backfill = $2, job_id = $3, progress_at = now()
     where dataset = $4 and source_key = $5 and source_etag = $6 and status = 'superseded'
     returning snapshot_id, attempt`,
    row,
  );
  const { rows } = reopened.rows[0]
    ? reopened
    : await db.query<{ snapshot_id: string; attempt: number }>(
        `insert into tickets_ops.snapshots
           (forced, backfill, job_id, dataset, source_key, source_etag, source_size, source_last_modified, snapshot_at, status, origin)
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9, 'staging', $10)
         returning snapshot_id, attempt`,
        [...row, file.size, file.lastModified, file.snapshotAt, origin],
      );
  const { snapshot_id: snapshotId = '', attempt = 0 } = rows[0] ?? {};
  return { snapshotId, attempt };
}

/**
 * Marks a snapshot in flight as failed, with a reason for people. Its staging is kept for a retry.
 * Waits for batches that are being written: once it has failed, none is.
 */
export async function fail(db: Db, snapshotId: string, reason: string): Promise<void> {
  await db.query(
    `update tickets_ops.snapshots set status = 'failed', error = $2, progress_at = now()
     where snapshot_id = (select snapshot_id from tickets_ops.snapshots where snapshot_id = $1 for update)
       and status in ('staging', 'loading', 'finalizing')`,
    [snapshotId, reason],
  );
}

/** Writes down where the file of a loaded or unchanged snapshot was moved to. */
export async function archived(
  db: Db,
  dataset: string,
  key: string,
  etag: string,
  target: string | null,
): Promise<void> {
  await db.query(
    `update tickets_ops.snapshots set archived_at = now(), archived_key = $4
     where dataset = $1 and source_key = $2 and source_etag = $3 and status in ('done', 'unchanged') and archived_at is null`,
    [dataset, key, etag, target],
  );
}

/**
 * Writes to import_meta that the bucket was looked at; `unchangedAt`, when the newest file was the one loaded, is its
 * export time, and the data count as that fresh.
 */
export async function checked(db: Db, dataset: string, unchangedAt: Date | null = null): Promise<void> {
  await db.query(
    `insert into tickets.import_meta as m (dataset, metadata)
     values ($1, jsonb_strip_nulls(jsonb_build_object('checked_at', now(), 'snapshot_at', $2::timestamptz)))
     on conflict (dataset) do update set metadata = m.metadata || jsonb_strip_nulls(jsonb_build_object(
       'checked_at', now(),
       -- Of two looks at once the older may write last.
       'snapshot_at', case when $2 > coalesce(tickets.eat_ts(m.metadata ->> 'snapshot_at'), '-infinity') then $2::timestamptz end
     ))`,
    [dataset, unchangedAt],
  );
}
