/**
 * Rescue: the jobs and queues that a dead worker held are free again in seconds (graphile-worker alone waits four hours).
 *
 * Dead is a registered pool whose advisory lock is free, since that falls with its connection, so no clock is asked; or
 * one that has not been heard of for two minutes. The sessions of the latter are ended, so that its open transactions hold
 * nothing and can commit nothing.
 *
 * What it does not promise: a job may be run again although its first run still goes on outside the database (a
 * request to the bucket, say). Tasks are written for that: claims are fenced, batches are locked rows.
 * Where connections share sessions nothing is rescued, and the log and tickets_ops.health say so.
 */
import type pg from 'pg';
import { type Db, transaction, withClient } from '../database/client.ts';
import type { Log } from '../settings/log.ts';
import { backendOf, sharesSessions } from './sessions.ts';

/** A pool that is starting may lock jobs some milliseconds before it is registered. */
const UNREGISTERED_AFTER = '30 seconds';
/** A killed worker costs its jobs an attempt; it is given back, up to this many, so that a job that kills cannot go on. */
const MAX_ATTEMPTS_AFTER_RESCUES = 25;

/**
 * Frees the jobs and queues of dead pools. Every heartbeat does, so that they wait for seconds; and `maintain` before it
 * judges the jobs of snapshots, so that one that died on its last attempt counts as failed in the same run.
 * @param ownPool of the worker that asks
 */
export async function rescue(client: pg.ClientBase, ownPool: string, log: Log): Promise<void> {
  const { rows: own } = await client.query<{ shared: boolean }>(
    'select shares_sessions as shared from tickets_ops.workers where pool_id = $1',
    [ownPool],
  );
  if (!own[0]) return; // not registered yet: it rescues as soon as it is
  if (own[0].shared) return log.debug('sessions are shared here: dead workers cannot be told from live ones');
  await freeDead(client, ownPool, log);
}

/** Frees the jobs and queues of dead pools before a worker starts that will not live long enough for a heartbeat. */
export async function rescueOnce(databaseUrl: string, log: Log): Promise<void> {
  await withClient(databaseUrl, async (client) => {
    if (await sharesSessions(client, await backendOf(client), databaseUrl)) return;
    await freeDead(client, '', log);
  });
}

async function freeDead(client: pg.ClientBase, ownPool: string, log: Log): Promise<void> {
  const pools = await transaction(client, () => unlockDead(client, ownPool));
  if (pools.length > 0) log.warn({ pools }, 'freed the jobs of dead workers');
}

async function unlockDead(db: Db, ownPool: string): Promise<string[]> {
  const { rows } = await db.query<{ pool_id: string }>(
    `with holding as materialized (
       select locked_by as pool_id, max(locked_at) as locked_at
       from (
         select locked_by, locked_at from graphile_worker.jobs where locked_by is not null
         union all
         select locked_by, locked_at from graphile_worker._private_job_queues where locked_by is not null
       ) as locked
       where locked_by <> $1
       group by locked_by
     ),
     dead as materialized (
       select h.pool_id, w.state, w.sessions
       from holding h left join tickets_ops.worker_states() w using (pool_id)
       where w.state in ('dead', 'hung', 'stopped')
         or (w.state is null and h.locked_at < now() - interval '${UNREGISTERED_AFTER}')
     ),
     declared as (
       update tickets_ops.workers set declared_dead_at = now()
       where pool_id in (select pool_id from dead) and declared_dead_at is null
     ),
     -- What it left open would keep its rows locked, and must not commit once others have its jobs.
     ended as materialized (
       select pg_terminate_backend(a.pid) from pg_stat_activity a
       where a.application_name in (select sessions from dead where state <> 'stopped')
         and a.application_name <> current_setting('application_name')
         and a.datname = current_database() and a.usename = session_user
     ),
     compensated as (
       update graphile_worker._private_jobs
       set max_attempts = greatest(max_attempts, least(max_attempts + 1, ${MAX_ATTEMPTS_AFTER_RESCUES}))
       where locked_by in (select pool_id from dead)
     )
     select pool_id from dead, (select count(*) from ended) as sessions`,
    [ownPool],
  );
  const dead = rows.map((row) => row.pool_id);
  if (dead.length > 0) {
    await db.query('select graphile_worker.force_unlock_workers($1)', [dead]);
    // As adding a job does: workers look now, not at their next poll.
    await db.query(`select pg_notify('jobs:insert', '{"r":0,"count":64}')`);
  }
  return dead;
}
