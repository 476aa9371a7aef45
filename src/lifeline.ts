/**
 * The lifeline: how workers know which of them are alive, so that the jobs of a dead one are free again in seconds
 * (graphile-worker alone waits four hours).
 *
 * Each worker pool keeps a connection of its own on which it holds an advisory lock named after the pool; it registers
 * in tickets_ops.workers only once it holds the lock. The lock falls with the connection, so a registered pool whose
 * lock is free is dead: no clock is asked. A pool that hangs without dying keeps its lock but not its heartbeat; it is
 * declared dead after HUNG_AFTER, and ends itself should it ever wake.
 *
 * What it does not promise: a job may be run again although its first run still goes on somewhere (a hung worker that
 * wakes). Tasks are written for that: claims are fenced, batches are locked rows.
 * Where connections share one session (the embedded database, a pooler in transaction mode) locks say nothing; then
 * nothing is rescued, and the caller is told.
 */
import { hostname } from 'node:os';
import type { WorkerEvents } from 'graphile-worker';
import type pg from 'pg';
import { connect } from './database.ts';
import type { Db } from './ledger.ts';
import type { Log } from './log.ts';

const HEARTBEAT_MS = 10_000;
/** A worker that is only busy still beats: its heartbeat is a timer of its own. */
const HUNG_AFTER = '2 minutes';
/** A pool that is starting may lock jobs some milliseconds before it is registered. */
const UNREGISTERED_AFTER = '30 seconds';
/** Namespace of the advisory locks: the first of their two numbers. */
const LOCK_SPACE = 740_512;
/** A killed worker costs its jobs an attempt; it is given back, up to this many, so that a job that kills cannot go on. */
const MAX_ATTEMPTS_AFTER_RESCUES = 25;

/**
 * Keeps a lifeline for every worker pool that these events announce.
 * @param onLost called when the connection broke or another worker declared this pool dead: the process must end
 *   without touching its jobs, which others may be running now
 */
export function keepLifeline(events: WorkerEvents, databaseUrl: string, log: Log, onLost: (reason: string) => void): void {
  events.on('pool:create', ({ workerPool }) => {
    const lifeline = hold(workerPool.id, databaseUrl, onLost).catch((error: unknown) => {
      onLost(`the lifeline cannot be set up: ${(error as Error).message}`);
      return undefined;
    });
    log.info({ pool: workerPool.id }, 'worker started');
    workerPool.promise
      .catch(() => undefined) // reported by graphile-worker as pool:fatalError
      .then(async () => (await lifeline)?.())
      .catch((error: unknown) => log.warn(`the lifeline did not end in good order: ${(error as Error).message}`));
  });
}

/** @returns ends the lifeline in good order */
async function hold(pool: string, databaseUrl: string, onLost: (reason: string) => void): Promise<() => Promise<void>> {
  let ending = false;
  const client = await connect(databaseUrl);
  const lose = (reason: string) => {
    if (!ending) onLost(reason);
    ending = true;
  };
  client.on('error', (error) => lose(`the connection broke: ${error.message}`));
  client.on('end', () => lose('the connection was closed'));
  await client.query('select pg_advisory_lock($1, hashtext($2))', [LOCK_SPACE, pool]);
  await client.query('insert into tickets_ops.workers (pool_id, host, pid) values ($1, $2, $3)', [
    pool,
    hostname(),
    process.pid,
  ]);
  const timer = setInterval(() => {
    beat(client, pool).then(
      (alive) => alive || lose('another worker declared this one dead: it had not been heard of for minutes'),
      (error: Error) => lose(`the heartbeat failed: ${error.message}`),
    );
  }, HEARTBEAT_MS);
  return async () => {
    if (ending) return;
    ending = true;
    clearInterval(timer);
    await client.query('update tickets_ops.workers set stopped_at = now(), seen_at = now() where pool_id = $1', [pool]);
    await client.end();
  };
}

async function beat(client: pg.Client, pool: string): Promise<boolean> {
  const { rowCount } = await client.query(
    'update tickets_ops.workers set seen_at = now() where pool_id = $1 and declared_dead_at is null',
    [pool],
  );
  return rowCount === 1;
}

export type Rescue =
  | { readonly rescued: readonly string[] }
  /** Sessions are shared here, so nobody can tell who lives; nothing was touched. */
  | { readonly unknowable: true };

/**
 * Frees the jobs and queues of dead pools.
 * @param ownPool of the worker that asks; its lock proves that locks mean something here
 */
export async function rescue(db: Db, ownPool: string): Promise<Rescue> {
  const { rows: own } = await db.query<{ shared: boolean; registered: boolean }>(
    `select pg_try_advisory_xact_lock($1, hashtext($2)) as shared,
       exists (select from tickets_ops.workers where pool_id = $2) as registered`,
    [LOCK_SPACE, ownPool],
  );
  // Not registered yet: the lock is free because it has not been taken, and the next run will tell.
  if (own[0]?.registered === false) return { rescued: [] };
  if (own[0]?.shared) return { unknowable: true };
  const { rows } = await db.query<{ pool_id: string }>(
    `with holding as materialized (
       select locked_by as pool_id, max(locked_at) as locked_at
       from (
         select locked_by, locked_at from graphile_worker.jobs where locked_by is not null
         union all
         select locked_by, locked_at from graphile_worker._private_job_queues where locked_by is not null
       ) as locked
       where locked_by <> $2
       group by locked_by
     ),
     suspects as materialized (
       select h.pool_id, w.seen_at < now() - interval '${HUNG_AFTER}' as hung
       from holding h left join tickets_ops.workers w using (pool_id)
       where w.pool_id is not null or h.locked_at < now() - interval '${UNREGISTERED_AFTER}'
     ),
     dead as materialized (
       select pool_id from suspects where hung or pg_try_advisory_xact_lock($1, hashtext(pool_id))
     ),
     declared as (
       update tickets_ops.workers set declared_dead_at = now() where pool_id in (select pool_id from dead)
     ),
     compensated as (
       update graphile_worker._private_jobs
       set max_attempts = greatest(max_attempts, least(max_attempts + 1, ${MAX_ATTEMPTS_AFTER_RESCUES}))
       where locked_by in (select pool_id from dead)
     )
     select pool_id from dead`,
    [LOCK_SPACE, ownPool],
  );
  const dead = rows.map((row) => row.pool_id);
  if (dead.length > 0) await db.query('select graphile_worker.force_unlock_workers($1)', [dead]);
  return { rescued: dead };
}
