/**
 * Maintenance, every few minutes and when a worker starts: frees the work of dead workers, re-drives snapshots whose
 * jobs are gone, fails what has stalled, plans places that fell due, sweeps, notices a missed schedule, prunes by age. Every
 * step is idempotent, so any number of workers may run it at once.
 */
import type { ClientBase } from 'pg';
import { type Db, transaction } from '../database/client.ts';
import type { TaskName } from '../database/jobs.ts';
import { LOCK_NOT_AVAILABLE } from '../database/waits.ts';
import { keepRegistered } from '../geocoding/registration.ts';
import type { Log } from '../settings/log.ts';
import type { RetentionSettings } from '../settings/settings.ts';
import { READER_TIMEOUT } from '../snapshots/knowledge.ts';
import { rescue } from './rescue.ts';
import { prune } from './retention.ts';

/** @param ownPool the worker pool that runs this */
export async function maintain(client: ClientBase, ownPool: string, keep: RetentionSettings, log: Log): Promise<void> {
  await rescue(client, ownPool, log); // first: what follows looks at jobs that nobody holds
  for (const failed of await failStalled(client)) log.error({ snapshot: failed.snapshot_id }, failed.error);
  const { rows: asked } = await client.query<{ jobs: number }>(
    'select tickets_ops.ask_for_missing_jobs()::int as jobs',
  );
  if (asked[0]?.jobs) log.warn(asked[0], 'asked again for jobs that had vanished');
  await keepRegistered(client);
  await planPlaces(client, log);
  await sweep(client, log);
  for (const missed of await missedRuns(client))
    log.error(missed, 'a scheduled run was missed: nothing has looked at the bucket since');
  // This run makes up for those before it; a failed one must not alarm anybody for a month.
  await client.query(
    `select tickets_ops.remove_jobs(array_agg(id)) from tickets_ops.list_jobs() where task = $1 and state = 'failed'`,
    ['fleettickets_maintain' satisfies TaskName],
  );
  const pruned = await transaction(client, () => prune(client, keep));
  if (Object.keys(pruned).length > 0) log.info(pruned, 'pruned by age');
}

/**
 * Snapshots in flight that nothing will move any more: the job that stages it is gone or out of attempts, or the last
 * attempt of one of its batches died with its worker.
 */
const STALLED = `
  select s.snapshot_id, coalesce(j.last_error, 'Reading it broke off, and no attempt is left') as error
  from tickets_ops.snapshots s
  left join tickets_ops.queued_jobs() j on j.id = s.job_id
  where s.status = 'staging' and s.progress_at < now() - interval '${READER_TIMEOUT}'
    and (j.id is null or j.state = 'failed')
  union all
  select s.snapshot_id, min(format('%s used up its attempts: %s', j.key, coalesce(j.last_error, 'its worker died')))
  from tickets_ops.snapshots s
  left join tickets_ops.snapshot_batches b on b.snapshot_id = s.snapshot_id and s.status = 'loading' -- primary key
  join tickets_ops.queued_jobs() j
    on j.key = case s.status when 'loading' then tickets_ops.batch_job_key(b.snapshot_id, b.batch) else tickets_ops.finalize_job_key(s.snapshot_id) end
  where s.status in ('loading', 'finalizing') and j.state = 'failed'
  group by s.snapshot_id`;

interface Stalled {
  readonly snapshot_id: string;
  readonly error: string;
}

/** Asked again under the snapshot's lock, which a retry of its jobs takes as well: a person may have been at it just now. */
async function failStalled(client: ClientBase): Promise<Stalled[]> {
  const failed: Stalled[] = [];
  const { rows } = await client.query<Stalled>(STALLED);
  for (const { snapshot_id: id } of rows) {
    await transaction(client, async () => {
      await client.query('select from tickets_ops.snapshots where snapshot_id = $1 for update', [id]);
      const { rows: still } = await client.query<Stalled>(
        `select * from (${STALLED}) as stalled where snapshot_id = $1`,
        [id],
      );
      for (const stalled of still) {
        await client.query('select tickets_ops.fail_snapshot($1, $2)', [id, stalled.error]);
        failed.push(stalled);
      }
    });
  }
  return failed;
}

/** Plans what fell due while the file stayed the same: a snapshot plans its own places. Not while somebody writes a gazetteer. */
async function planPlaces(client: ClientBase, log: Log): Promise<void> {
  await inNobodysWay(client, log, 'places are planned', async () => {
    await client.query(
      `select case
         when pg_try_advisory_xact_lock_shared(tickets.gazetteer_lock()) then tickets_ops.plan_geocoding()
       end`,
    );
  });
}

/** Compares all tickets with the gazetteers and with their history, now and then. */
async function sweep(client: ClientBase, log: Log): Promise<void> {
  await inNobodysWay(client, log, 'the tickets are swept', async () => {
    const { rows } = await client.query('select * from tickets_ops.sweep()');
    for (const done of rows) log.info(done, 'swept');
  });
}

/** Does in a transaction what the next run can do as well: it waits for others two seconds, then leaves it. */
async function inNobodysWay(client: ClientBase, log: Log, what: string, work: () => Promise<void>): Promise<void> {
  try {
    await transaction(client, async () => {
      await client.query(`set local lock_timeout = '2s'`);
      await work();
    });
  } catch (error) {
    if ((error as { code?: string }).code !== LOCK_NOT_AVAILABLE) throw error;
    log.warn(`${what} in the next run: somebody keeps a transaction open that is in the way`);
  }
}

async function missedRuns(db: Db): Promise<{ dataset: string; run: Date }[]> {
  const { rows } = await db.query<{ dataset: string; run: Date }>(
    `select d.dataset, m.run
     from tickets.datasets() as d (dataset) cross join lateral tickets_ops.missed_run(d.dataset) as m (run)
     where m.run is not null`,
  );
  return rows;
}
