/**
 * Maintenance, every few minutes and when a worker starts: frees the work of dead workers, puts back or re-drives
 * snapshots whose jobs are gone, marks what is beyond hope, prunes. Every step is idempotent, so any number of workers
 * may run it at once.
 */
import type { ClientBase } from 'pg';
import { transaction } from './database.ts';
import type { Db } from './ledger.ts';
import { rescue } from './lifeline.ts';
import type { Log } from './log.ts';
import { LOAD_ATTEMPTS, LOAD_PRIORITY } from './stage.ts';

/** The staging of a failed snapshot, for a retry. */
const KEEP_FAILED_STAGING = '7 days';
const KEEP_WORKERS = '7 days';

export async function maintain(client: ClientBase, ownPool: string, log: Log): Promise<void> {
  const result = await transaction(client, () => rescue(client, ownPool));
  if ('unknowable' in result) log.debug('sessions are shared here: dead workers cannot be told from live ones');
  else if (result.rescued.length > 0) log.warn({ pools: result.rescued }, 'freed the jobs of dead workers');

  for (const failed of await failHopeless(client)) log.error({ snapshot: failed.snapshot_id }, failed.error);
  const redriven = await redrive(client);
  if (redriven > 0) log.warn({ jobs: redriven }, 'asked again for jobs that had vanished');
  await prune(client);
}

/**
 * Snapshots in flight that nothing will move any more: the job that stages it is gone or out of attempts, or the last
 * attempt of one of its batches died with its worker.
 */
async function failHopeless(db: Db): Promise<{ snapshot_id: string; error: string }[]> {
  const { rows } = await db.query<{ snapshot_id: string; error: string }>(
    `with hopeless as (
       select s.snapshot_id, 'Reading it broke off, and no attempt is left' as error
       from tickets_ops.snapshots s
       where s.status = 'staging' and s.progress_at < now() - interval '2 minutes'
         and not exists (
           select from graphile_worker.jobs j
           where j.id = s.job_id and (j.locked_at is not null or j.attempts < j.max_attempts)
         )
       union all
       select s.snapshot_id, format('%s used up its attempts: %s', j.key, coalesce(j.last_error, 'its worker died'))
       from tickets_ops.snapshots s
       join graphile_worker.jobs j
         on (s.status = 'loading' and j.task_identifier = 'upsert_batch' and j.key like format('upsert_batch:%s:%%', s.snapshot_id))
         or (s.status = 'finalizing' and j.key = format('finalize_snapshot:%s', s.snapshot_id))
       where j.locked_at is null and j.attempts >= j.max_attempts
     )
     update tickets_ops.snapshots s
     set status = 'failed', error = h.error, progress_at = now()
     from (select snapshot_id, min(error) as error from hopeless group by snapshot_id) as h
     where s.snapshot_id = h.snapshot_id and s.status in ('staging', 'loading', 'finalizing')
     returning s.snapshot_id, s.error`,
  );
  return rows;
}

/** Jobs that snapshots in flight need and that are not there (someone cancelled or deleted them). */
async function redrive(db: Db): Promise<number> {
  const { rowCount } = await db.query(
    `with needed as (
       select 'upsert_batch' as task, format('upsert_batch:%s:%s', b.snapshot_id, b.batch) as key,
         json_build_object('snapshot_id', b.snapshot_id, 'batch', b.batch) as payload
       from tickets_ops.snapshot_batches b join tickets_ops.snapshots s using (snapshot_id)
       where s.status = 'loading' and b.status <> 'done'
       union all
       select 'finalize_snapshot', format('finalize_snapshot:%s', s.snapshot_id), json_build_object('snapshot_id', s.snapshot_id)
       from tickets_ops.snapshots s where s.status = 'finalizing'
     )
     select graphile_worker.add_job(task, payload, max_attempts := ${LOAD_ATTEMPTS}, priority := ${LOAD_PRIORITY}, job_key := key)
     from needed
     where not exists (select from graphile_worker.jobs j where j.key = needed.key)`,
  );
  return rowCount ?? 0;
}

async function prune(db: Db): Promise<void> {
  await db.query(
    `delete from tickets_ops.snapshot_rows where snapshot_id in (
       select snapshot_id from tickets_ops.snapshots
       where status not in ('staging', 'loading', 'finalizing') and progress_at < now() - interval '${KEEP_FAILED_STAGING}'
     )`,
  );
  await db.query(
    `delete from tickets_ops.workers where seen_at < now() - interval '${KEEP_WORKERS}'`,
  );
}
