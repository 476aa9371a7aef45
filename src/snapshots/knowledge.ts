/**
 * What the ledger (tickets_ops.snapshots) and import_meta, which a takeover inherits, know: of files, of the last load, of
 * the snapshot in flight. Read only: a decision that rests on it is checked again in the transaction that carries it out
 * (ledger.ts).
 */
import type { Position, SnapshotFile } from '../bucket/files.ts';
import { versionOf } from '../bucket/files.ts';
import type { Feed, Knowledge, KnownVersion, LedgerStatus } from '../bucket/plan.ts';
import { CLEANING_VERSION } from '../csv/clean.ts';
import type { Db } from '../database/client.ts';
import { settingInUse } from '../settings/recorded.ts';
import type { KnownBytes } from './stage.ts';

interface InFlight {
  readonly snapshot_id: string;
  readonly source_key: string;
  readonly status: LedgerStatus;
  readonly job_id: string | null;
  /** Nobody works on it any more, so it may be put back. Only ever true while staging. */
  readonly abandoned: boolean;
}

/** Silence after which the reader of a file that no job runs for counts as dead. An interval. */
export const READER_TIMEOUT = '2 minutes';

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
         when s.job_id is null then s.progress_at < now() - interval '${READER_TIMEOUT}'
         else s.job_id = $2 or not exists (select from tickets_ops.queued_jobs() j where j.id = s.job_id and j.state = 'running')
       end as abandoned
     from tickets_ops.snapshots s
     where s.dataset = $1 and s.in_flight`,
    [dataset, ownJob],
  );
  return rows[0];
}

/** Whether a backfill of the dataset waits or runs: it has more files to load, in their order. */
export async function isBackfilling(db: Db, dataset: string): Promise<boolean> {
  const { rows } = await db.query(
    `select from tickets_ops.queued_jobs()
     where key = tickets_ops.fetch_job_key($1, 'backfill') and state <> 'failed'`,
    [dataset],
  );
  return rows.length > 0;
}

/** What the files of a dataset are. */
export const feedOf = async (db: Db, dataset: string): Promise<Feed> =>
  (await settingInUse(db, dataset === 'inc' ? 'INC_FEED' : 'CRQ_FEED')) ?? 'snapshots';

async function blockingFile(db: Db, dataset: string): Promise<Position | null> {
  const { rows } = await db.query<{ snapshot_at: Date; last_modified: Date; key: string }>(
    'select snapshot_at, source_last_modified as last_modified, source_key as key from tickets_ops.blocking_file($1)',
    [dataset],
  );
  return rows[0] ? { snapshotAt: rows[0].snapshot_at, lastModified: rows[0].last_modified, key: rows[0].key } : null;
}

/** Files of the bucket that are loaded or unchanged, of which no archiving is written down. Few: each look completes them. */
async function unarchivedFiles(db: Db, dataset: string): Promise<SnapshotFile[]> {
  const { rows } = await db.query<{ key: string; etag: string; size: string; at: Date; modified: Date }>(
    `select source_key as key, source_etag as etag, source_size as size, snapshot_at as at, source_last_modified as modified
     from tickets_ops.snapshots
     where dataset = $1 and origin = 'bucket' and tickets_ops.is_whole(status) and archived_at is null -- index snapshots_unarchived
     order by snapshot_at, source_last_modified`,
    [dataset],
  );
  return rows.map(({ key, etag, size, at, modified }) => ({
    key,
    etag,
    size: Number(size),
    lastModified: modified,
    snapshotAt: at,
  }));
}

/** The newest version that has touched tickets; null before the first load. */
export async function highWaterMark(db: Db, dataset: string): Promise<Position | null> {
  const { rows } = await db.query<{ snapshot_at: Date | null; last_modified: Date; key: string }>(
    'select snapshot_at, last_modified, key from tickets_ops.high_water_mark($1)',
    [dataset],
  );
  const mark = rows[0];
  return mark?.snapshot_at ? { snapshotAt: mark.snapshot_at, lastModified: mark.last_modified, key: mark.key } : null;
}

/** What the database knows about these files and about the last load. */
export async function knowledge(db: Db, dataset: string, files: readonly SnapshotFile[]): Promise<Knowledge> {
  const versions = await db.query<{
    key: string;
    etag: string;
    last_modified: Date;
    is_open: boolean;
    is_whole: boolean;
    in_flight: boolean;
  }>(
    `select key, etag, last_modified, tickets_ops.is_open(status, opens_at) as is_open, tickets_ops.is_whole(status) as is_whole, in_flight
     from tickets_ops.known_versions($1, $2)`,
    [dataset, files.map(({ key }) => key)],
  );
  const { rows } = await db.query<{ now: Date; etag: string | null; held_etag: string | null; again_at: Date | null }>(
    `select now(), last.etag, held.source_etag as held_etag, held.judged_again_at as again_at
     from tickets_ops.last_load($1, $2) as last left join tickets_ops.held($1) as held on true`,
    [dataset, CLEANING_VERSION],
  );
  const { now = new Date(), etag = null, held_etag: heldEtag = null, again_at: judgedAgainAt = null } = rows[0] ?? {};
  return {
    now,
    versions: new Map(
      versions.rows.map(({ key, etag: version, last_modified: lastModified, is_open, is_whole, in_flight }) => [
        versionOf({ key, etag: version, lastModified }),
        { isOpen: is_open, isWhole: is_whole, inFlight: in_flight } satisfies KnownVersion,
      ]),
    ),
    unarchived: await unarchivedFiles(db, dataset),
    highWaterMark: await highWaterMark(db, dataset),
    feed: await feedOf(db, dataset),
    blocker: await blockingFile(db, dataset),
    loadedEtag: etag,
    held: heldEtag === null ? null : { etag: heldEtag, judgedAgainAt },
  };
}

/**
 * Bytes that a file of that time need not have staged again, since they may come under another ETag: those of the last load,
 * where it was whole, from the bucket, and cleaned by today's rules, and those that are held.
 */
export async function knownBytes(db: Db, dataset: string, snapshotAt: Date): Promise<KnownBytes> {
  const { rows } = await db.query<Omit<KnownBytes, 'records'>>(
    `select last.sha256 as loaded, (
       select h.source_sha256 from tickets_ops.held($1) h where h.judged_again_at > $3 or h.judged_again_at is null
     ) as held
     from tickets_ops.last_load($1, $2) as last`,
    [dataset, CLEANING_VERSION, snapshotAt],
  );
  return { loaded: null, held: null, ...rows[0], records: true };
}
