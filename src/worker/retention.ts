/** Retention: what is deleted by age, in every maintenance. How long is a setting; tickets and history stay for ever. */
import type { Db } from '../database/client.ts';
import type { RetentionSettings } from '../settings/settings.ts';

/** Workers that ended, for those who read a log of last week. */
export const KEEP_WORKERS = '7 days';

/** Removes what is older than it is kept; not the snapshot that was loaded last. @returns how many of what, without zeros */
export async function prune(db: Db, keep: RetentionSettings): Promise<Record<string, number>> {
  const removals: Record<string, [sql: string, days?: number]> = {
    // The batches go with the rows: they are what a retry looks for.
    staged: [
      `with over as (
         select snapshot_id from tickets_ops.snapshots
         where not in_flight and progress_at < now() - make_interval(days => $1)
       ), batches as (
         delete from tickets_ops.snapshot_batches where snapshot_id in (select snapshot_id from over)
       )
       delete from tickets_ops.snapshot_rows
       where snapshot_id in (select snapshot_id from over) or snapshot_id not in (select snapshot_id from tickets_ops.snapshots)`,
      keep.KEEP_FAILED_STAGING_DAYS,
    ],
    rejects: [
      `delete from tickets_ops.snapshot_rejects where snapshot_id in (
         select snapshot_id from tickets_ops.snapshots
         where not in_flight and progress_at < now() - make_interval(days => $1)
       )`,
      keep.KEEP_REJECTS_DAYS,
    ],
    jobs: [
      `select tickets_ops.remove_jobs(array[id]) from tickets_ops.list_jobs()
       where state = 'failed' and failed_at < now() - make_interval(days => $1)`,
      keep.KEEP_FAILED_JOBS_DAYS,
    ],
    snapshots: [
      `delete from tickets_ops.snapshots s
       where not in_flight and progress_at < now() - make_interval(days => $1)
         -- What the next file is compared with.
         and snapshot_id not in (
           select distinct on (dataset) snapshot_id from tickets_ops.snapshots
           where load_began_at is not null order by dataset, load_began_at desc
         )
         and snapshot_id not in (
           select distinct on (dataset) snapshot_id from tickets_ops.snapshots
           where tickets_ops.counts_as_loaded(status) order by dataset, snapshot_at desc
         )`,
      keep.KEEP_LEDGER_DAYS,
    ],
    answers: [
      `delete from tickets_ops.geocoding_answers
       where answered_at < tickets_ops.answers_count_since() or provider is distinct from (select provider from tickets_ops.geocoding_setup)`,
    ],
    workers: [`delete from tickets_ops.workers where seen_at < now() - interval '${KEEP_WORKERS}'`],
  };
  const counts: Record<string, number> = {};
  for (const [what, [sql, days]] of Object.entries(removals)) {
    const { rowCount } = await db.query(sql, days === undefined ? [] : [days]);
    if (rowCount) counts[what] = rowCount;
  }
  return counts;
}
