/**
 * The ledger (tickets_ops.snapshots) as the pipeline writes it. A trigger checks every change of state against the table
 * tickets_ops.snapshot_transitions; each change here is one statement that names the state it comes from, so a process that
 * lost its claim changes nothing. Looks at a dataset take turns, and check within their turn what they decided before it.
 */
import type { ClientBase } from 'pg';
import type { SnapshotFile } from '../bucket/files.ts';
import { CLEANING_VERSION } from '../csv/clean.ts';
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

/** Condition of a claim that still holds; $1 its snapshot, $2 its attempt. Another attempt has another number. */
export const FENCE = `snapshot_id = $1 and attempt = $2 and status = 'staging'`;

export const claimLost = ({ snapshotId, attempt }: Claim) =>
  new ClaimLostError(`Snapshot ${snapshotId} was taken over from attempt ${attempt}: nothing more is written`);

/** Who looks, and how. */
export interface Look {
  readonly dataset: string;
  readonly jobId: string | null;
  readonly forced: boolean;
  readonly backfill: boolean;
}

/** What a claim needs to know of a file; a local one has no ETag. */
export type Claimable = Omit<SnapshotFile, 'etag'> & { readonly etag: string | null };

/** Puts a snapshot whose reading broke off back, so that its file is read again; no transaction needs to be open. */
export async function putBack(db: Db, snapshotId: string): Promise<void> {
  await db.query(`select tickets_ops.put_back($1, 'staging')`, [snapshotId]);
}

/** Looks at a dataset that change the ledger take turns, so that each sees what the one before it wrote. */
async function takeTurn(db: Db, dataset: string): Promise<void> {
  await db.query('select pg_advisory_xact_lock(tickets_ops.ledger_lock($1))', [dataset]);
}

/** Writes down that a file was looked at and is passed over, once per version. */
export async function noteSuperseded(client: ClientBase, look: Look, file: SnapshotFile): Promise<void> {
  await transaction(client, async () => {
    await takeTurn(client, look.dataset);
    await writeNote(client, look, file, 'superseded');
  });
}

/** Why a file was refused without being read. */
interface RefusedUnread {
  /** Of a future-dated file: when it may be loaded. */
  readonly opensAt?: Date | null;
  /** It is empty or no CSV by its name, which is no fault of the feed. */
  readonly ignored?: boolean;
  /** Of a feed of changes: it came when a newer one was loaded already. */
  readonly late?: boolean;
}

/** Writes down that a file was refused without being read, once per version. */
export async function noteRefused(
  client: ClientBase,
  look: Look,
  file: SnapshotFile,
  reason: string,
  refusal: RefusedUnread,
): Promise<void> {
  await transaction(client, async () => {
    await takeTurn(client, look.dataset);
    await writeNote(client, look, file, 'failed', reason, refusal);
  });
}

/**
 * Writes down that a file holds the bytes of the last load, and that the data are as fresh as it.
 * @param bytes what was compared: the file's ETag or the SHA-256 of its bytes
 * @returns false, and nothing is written, where another file was loaded meanwhile: look again
 */
export async function markUnchanged(
  client: ClientBase,
  look: Look,
  file: SnapshotFile,
  bytes: { readonly etag: string } | { readonly sha256: string },
): Promise<boolean> {
  return transaction(client, async () => {
    await takeTurn(client, look.dataset);
    const { rows } = await client.query<{ holds: boolean }>(
      `select coalesce($2 in (last.etag, last.sha256), false) and not tickets_ops.is_below_mark($1, $3, $4, $5) as holds
       from tickets_ops.last_load($1, $6) as last`,
      [
        look.dataset,
        'etag' in bytes ? bytes.etag : bytes.sha256,
        file.snapshotAt,
        file.lastModified,
        file.key,
        CLEANING_VERSION,
      ],
    );
    if (!rows[0]?.holds) return false;
    await writeNote(client, look, file, 'unchanged');
    await client.query('select tickets_ops.replace_held($1, $2, true)', [look.dataset, file.snapshotAt]);
    await checked(client, look.dataset, file.snapshotAt);
    // Clocks run although files do not.
    await client.query('select tickets_ops.record_day($1)', [look.dataset]);
    return true;
  });
}

async function writeNote(
  db: Db,
  look: Look,
  file: SnapshotFile,
  status: 'superseded' | 'unchanged' | 'failed',
  error: string | null = null,
  { opensAt = null, ignored = false, late = false }: RefusedUnread = {},
): Promise<void> {
  const updated = await db.query(
    `update tickets_ops.snapshots
     set status = $5, error = $6, opens_at = $7, ignored = $8, progress_at = now(), loaded_at = case when $5 = 'unchanged' then now() end,
       content_through = case when $5 = 'unchanged' then tickets_ops.content_through(dataset) end
     where dataset = $1 and source_key = $2 and source_etag = $3 and source_last_modified = $4
       -- Not tickets_ops.is_open: also before its time has come, as each look may say so anew.
       and (status = 'superseded' or (status = 'failed' and opens_at is not null)) -- index snapshots_by_file`,
    [look.dataset, file.key, file.etag, file.lastModified, status, error, opensAt, ignored],
  );
  if (updated.rowCount !== 0) return;
  await db.query(
    `insert into tickets_ops.snapshots
       (dataset, source_key, source_etag, source_size, source_last_modified, snapshot_at, status, error, opens_at, forced, backfill, job_id, ignored, is_late, loaded_at, content_through)
     select $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, case when $7 = 'unchanged' then now() end,
       case when $7 = 'unchanged' then tickets_ops.content_through($1) end
     -- Another look at the same listing may have noted it, or be reading it.
     where not exists (
       select from tickets_ops.snapshots
       where dataset = $1 and source_key = $2 and source_etag = $3 and source_last_modified = $5
         and (status = $7 or $7 <> 'unchanged')
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
      opensAt,
      look.forced,
      look.backfill,
      look.jobId,
      ignored,
      late,
    ],
  );
}

/**
 * Claims a file for staging: reopens the row of its version that was passed over, or makes one.
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
      await takeTurn(client, look.dataset);
      return (await isStale(client, look, file, origin)) ? 'stale' : openRow(client, look, file, origin);
    });
  } catch (error) {
    if ((error as { constraint?: string }).constraint === 'snapshots_one_in_flight') return 'busy';
    throw error;
  }
}

/** Local files whose times tie go by their order of arrival, so of them only the time counts. */
async function isStale(db: Db, look: Look, file: Claimable, origin: 'bucket' | 'file'): Promise<boolean> {
  const { rows } = await db.query<{ stale: boolean }>(
    origin === 'file'
      ? 'select coalesce($2 < snapshot_at, false) as stale from tickets_ops.high_water_mark($1)'
      : `select tickets_ops.is_below_mark($1, $2, $3, $4) or tickets_ops.is_blocked($1, $2, $3, $4) or not $6 and exists (
           select from tickets_ops.known_versions($1, array[$4]) v
           where v.etag = $5 and v.last_modified = $3
             and not (tickets_ops.is_open(v.status, v.opens_at) or v.status = 'staging')
         ) as stale`,
    origin === 'file'
      ? [look.dataset, file.snapshotAt]
      : [look.dataset, file.snapshotAt, file.lastModified, file.key, file.etag, look.forced],
  );
  return rows[0]?.stale ?? false;
}

async function openRow(db: Db, look: Look, file: Claimable, origin: string): Promise<Claim> {
  const row = [look.forced, look.backfill, look.jobId, look.dataset, file.key, file.etag, file.lastModified];
  const reopened = await db.query<{ snapshot_id: string; attempt: number }>(
    `update tickets_ops.snapshots
     set status = 'staging', error = null, opens_at = null, forced = $1, backfill = $2, job_id = $3, progress_at = now()
     where dataset = $4 and source_key = $5 and source_etag = $6 and source_last_modified = $7
       and tickets_ops.is_open(status, opens_at)
     returning snapshot_id, attempt`,
    row,
  );
  const { rows } = reopened.rows[0]
    ? reopened
    : await db.query<{ snapshot_id: string; attempt: number }>(
        `insert into tickets_ops.snapshots
           (forced, backfill, job_id, dataset, source_key, source_etag, source_last_modified, source_size, snapshot_at, status, origin)
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9, 'staging', $10)
         returning snapshot_id, attempt`,
        [...row, file.size, file.snapshotAt, origin],
      );
  const { snapshot_id: snapshotId = '', attempt = 0 } = rows[0] ?? {};
  return { snapshotId, attempt };
}

/**
 * Marks a snapshot in flight as failed, with a reason for people. Its staging is kept for a retry; a backfill that it
 * belongs to goes on with the next file. Waits for batches that are being written: once it has failed, none is.
 */
export async function fail(db: Db, snapshotId: string, reason: string): Promise<void> {
  await db.query('select tickets_ops.fail_snapshot($1, $2)', [snapshotId, reason]);
}

/** Writes down where a version's file was moved to; null: it was gone, or another version stood in its place. */
export async function archived(db: Db, dataset: string, file: SnapshotFile, target: string | null): Promise<void> {
  await db.query(
    `update tickets_ops.snapshots set archived_at = now(), archived_key = $5
     where dataset = $1 and source_key = $2 and source_etag = $3 and source_last_modified = $4
       and tickets_ops.is_whole(status)
       -- It may have counted as gone, and been found since.
       and (archived_at is null or archived_key is null and $5::text is not null)`,
    [dataset, file.key, file.etag, file.lastModified, target],
  );
}

/** What a look at the bucket saw, for freshness and health. */
export interface Seen {
  /** CSV files in the folder. */
  readonly files: number;
  /** Objects in the folder that are no CSV files. */
  readonly others: number;
  /** Whether a version was among them that no look had seen before. */
  readonly anyNew: boolean;
  /** Of a feed of changes: files behind the one that is taken, or that stops them. */
  readonly waiting: number;
  /** Keys that wait until their time has come. */
  readonly futureDated: readonly string[];
}

/** Writes down that a look at the bucket succeeded: only then does checked_at move. */
export async function recordLook(client: ClientBase, dataset: string, seen: Seen): Promise<void> {
  await transaction(client, async () => {
    await client.query(
      `insert into tickets_ops.looks as l (dataset, looked_at, files, others, new_file_at, future_dated, waiting)
       select $1, now(), $2, $3, case when $4 then now() else max(s.listed_at) end, $5, $6
       -- A look that broke off has written down which new file it saw, and the next one finds it known.
       from tickets_ops.snapshots s where s.dataset = $1 and s.origin = 'bucket' and not s.ignored and not s.forced
       on conflict (dataset) do update set
         looked_at = now(), files = excluded.files, others = excluded.others,
         new_file_at = greatest(excluded.new_file_at, l.new_file_at),
         future_dated = excluded.future_dated, waiting = excluded.waiting`,
      [dataset, seen.files, seen.others, seen.anyNew, seen.futureDated, seen.waiting],
    );
    await checked(client, dataset, null);
  });
}

/**
 * Writes to import_meta that the bucket was looked at; `unchangedAt`, when the newest file was the one loaded, is its
 * export time, and the data count as that fresh.
 */
async function checked(db: Db, dataset: string, unchangedAt: Date | null): Promise<void> {
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
