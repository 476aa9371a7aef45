/**
 * Completing: the end of a snapshot, once all its batches are in. One transaction makes it `done` (or `partial`), writes
 * import_meta, plans geocoding and empties the staging; then the file is archived. The archive failing undoes nothing:
 * it is tried again, here or by the next fetch_snapshot.
 */
import type { ClientBase } from 'pg';
import { archiveObject, isArchived } from '../bucket/archive.ts';
import type { SnapshotFile } from '../bucket/files.ts';
import type { Bucket } from '../bucket/s3.ts';
import { type Db, transaction } from '../database/client.ts';
import type { Log } from '../settings/log.ts';
import { archived } from './ledger.ts';
import { manyRejected } from './suspicion.ts';

interface Snapshot {
  snapshot_id: string;
  dataset: string;
  status: string;
  loaded: boolean;
  source_key: string;
  source_etag: string | null;
  source_size: string;
  source_last_modified: Date;
  snapshot_at: Date;
  origin: string;
  broken_off: string | null;
  backfill: boolean;
  archived: boolean;
  /** Rows without alarms and sentinels. */
  rows: number;
  rejected: number;
}

/**
 * Completes a snapshot whose batches are all done; idempotent.
 * @param bucketOf opens the bucket, only where there is a file to archive
 * @returns why there is nothing to complete, in words; undefined when it is complete
 * @throws BucketError when archiving failed; the snapshot is done all the same
 */
export async function complete(
  client: ClientBase,
  snapshotId: string,
  bucketOf: () => Bucket,
  log: Log,
): Promise<string | undefined> {
  const snapshot = await transaction(client, () => completeInDatabase(client, snapshotId));
  if (typeof snapshot === 'string') return snapshot;
  log.info({ snapshot: snapshotId, key: snapshot.source_key, status: snapshot.status }, 'snapshot loaded');
  if (snapshot.origin === 'bucket' && snapshot.status === 'done' && !snapshot.archived) {
    await archive(client, bucketOf(), snapshot.dataset, fileOf(snapshot), log);
  }
  return undefined;
}

const fileOf = (snapshot: Snapshot): SnapshotFile => ({
  key: snapshot.source_key,
  etag: snapshot.source_etag ?? '',
  size: Number(snapshot.source_size),
  lastModified: snapshot.source_last_modified,
  snapshotAt: snapshot.snapshot_at,
});

/** Moves the file of a loaded or unchanged snapshot to processed/ and writes that down. */
export async function archive(db: Db, bucket: Bucket, dataset: string, file: SnapshotFile, log: Log): Promise<void> {
  const { key } = file;
  if (isArchived(key)) return archived(db, dataset, file, key); // a forced replay of an archived file
  const result = await archiveObject(bucket, file);
  if (result.outcome !== 'archived') {
    log.warn({ key, outcome: result.outcome }, 'nothing to archive: the object is no longer the one that was loaded');
  }
  await archived(db, dataset, file, result.outcome === 'archived' ? result.key : null);
}

/** @returns why not, when the snapshot is neither finalizing nor finished */
async function completeInDatabase(client: ClientBase, snapshotId: string): Promise<Snapshot | string> {
  // First of all, as a load does: a session that holds rows must not wait for a gazetteer that waits for them.
  await client.query('select pg_advisory_xact_lock_shared(tickets.gazetteer_lock())');
  const { rows } = await client.query<Snapshot>(
    `select snapshot_id, dataset, status, tickets_ops.is_loaded(status) as loaded, source_key, source_etag, source_size, source_last_modified, snapshot_at, origin, broken_off, backfill, archived_at is not null as archived,
       (rows_read - rows_dropped_alarm - rows_dropped_sentinel)::float8 as rows, rows_rejected::float8 as rejected
     from tickets_ops.snapshots where snapshot_id = $1 for update`,
    [snapshotId],
  );
  const snapshot = rows[0];
  if (snapshot?.loaded) return snapshot;
  if (snapshot?.status !== 'finalizing')
    return `Snapshot ${snapshotId} is ${snapshot?.status ?? 'unknown'}, not finalizing`;

  const status = snapshot.broken_off === null ? 'done' : 'partial';
  // Of rows that somebody wrote past us.
  await client.query('select tickets_ops.record_baselines($1, $2, $3, true)', [
    snapshot.dataset,
    snapshotId,
    snapshot.snapshot_at,
  ]);
  await client.query(
    `update tickets_ops.snapshots
     set status = $2, loaded_at = clock_timestamp(), progress_at = clock_timestamp(),
       content_through = tickets_ops.content_through(dataset), warnings = warnings || $3::text[],
       open_missing = case when tickets_ops.feed(dataset) = 'snapshots' then (
         select count(*) from tickets.${snapshot.dataset} t
         where t.is_actionable -- partial index *_open
           and not exists (select from tickets_ops.snapshot_rows r where r.snapshot_id = $1 and r.ticket_id = t.ticket_id)
       ) end
     where snapshot_id = $1`,
    [snapshotId, status, [manyRejected(snapshot.rows, snapshot.rejected)].filter((warning) => warning !== undefined)],
  );
  await client.query('select tickets_ops.replace_held($1, $2, true)', [snapshot.dataset, snapshot.snapshot_at]);
  if (status === 'done') await writeImportMeta(client, snapshotId);
  await client.query('select tickets_ops.plan_geocoding()');
  if (snapshot.backfill) await client.query('select tickets_ops.continue_backfill($1)', [snapshot.dataset]);
  await client.query('select tickets_ops.record_day($1)', [snapshot.dataset]); // late: other looks wait for its lock
  await client.query('select tickets_ops.empty_staging($1)', [snapshotId]); // last: other stagings wait for its lock
  return { ...snapshot, status };
}

/** The load's fields of import_meta: written here only, because only here is the whole snapshot in. */
async function writeImportMeta(db: Db, snapshotId: string): Promise<void> {
  await db.query(
    `insert into tickets.import_meta as m (dataset, metadata)
     select dataset, jsonb_build_object(
       'source_key', source_key, 'source_etag', source_etag, 'source_sha256', source_sha256,
       'source_last_modified', source_last_modified, 'snapshot_at', snapshot_at,
       'ingested_at', loaded_at, 'snapshot_id', snapshot_id, 'cleaning_version', cleaning_version,
       'rows_read', rows_read, 'rows_inserted', rows_inserted, 'rows_updated', rows_updated, 'rows_unchanged', rows_unchanged,
       'rows_dropped_alarm', rows_dropped_alarm, 'rows_dropped_sentinel', rows_dropped_sentinel,
       'rows_duplicate', rows_duplicate, 'rows_rejected', rows_rejected
     )
     from tickets_ops.snapshots where snapshot_id = $1
     on conflict (dataset) do update set metadata = m.metadata || excluded.metadata`,
    [snapshotId],
  );
}
