/**
 * The lifeline: how workers know which of them are alive, so that the jobs of a dead one are free again in seconds
 * (graphile-worker alone waits four hours).
 *
 * Each worker pool keeps a connection of its own on which it holds an advisory lock named after the pool; it registers
 * in tickets_ops.workers only once it holds the lock. The lock falls with the connection, so a registered pool whose
 * lock is free is dead: no clock is asked. With each heartbeat a worker frees what the dead ones held. A pool that hangs
 * without dying keeps its lock but not its heartbeat: after two minutes it is declared dead too. Its sessions are
 * ended, so that its open transactions hold nothing and can commit nothing, and it ends itself should it ever wake.
 *
 * What it does not promise: a job may be run again although its first run still goes on outside the database (a
 * request to the bucket, say). Tasks are written for that: claims are fenced, batches are locked rows.
 * Where connections share sessions (the embedded database, a pooler in transaction mode) locks say nothing; then
 * nothing is rescued, and the log and tickets_ops.health say so.
 */
import { randomBytes } from 'node:crypto';
import { hostname } from 'node:os';
import type { WorkerEvents } from 'graphile-worker';
import type pg from 'pg';
import { connect, transaction, withClient } from './database.ts';
import type { Db } from './ledger.ts';
import type { Log } from './log.ts';

const HEARTBEAT_MS = 5_000;
/** Longer silence of the database ends the worker: well before others take its jobs (tickets_ops.worker_states: 2 minutes). */
const SILENCE_MS = 30_000;
/** A pool that is starting may lock jobs some milliseconds before it is registered. */
const UNREGISTERED_AFTER = '30 seconds';
/** A killed worker costs its jobs an attempt; it is given back, up to this many, so that a job that kills cannot go on. */
const MAX_ATTEMPTS_AFTER_RESCUES = 25;

/** application_name of all connections of this process, by which another worker can end them. */
const SESSIONS = `fleettickets worker ${randomBytes(6).toString('hex')}`;

const SHARED =
  'DATABASE_URL leads to connections that share sessions (a pooler in transaction mode, or the embedded database): ' +
  'nobody can tell whether a worker lives, so nothing is rescued, and the jobs of one that dies wait for 4 hours. ' +
  'Connect directly, or through a pooler in session mode.';

/** What remains to be waited for of each worker's lifelines. */
const endings = new WeakMap<WorkerEvents, Promise<void>[]>();

/**
 * Waits until the lifelines that were kept for these events have ended: a worker's pool is done a few queries earlier,
 * and who runs one within a longer program wants none of its sessions left.
 */
export async function lifelineEnded(events: WorkerEvents): Promise<void> {
  await Promise.all(endings.get(events) ?? []);
}

/** The connection string that a worker's pool must use: it marks the sessions as this process's. */
export function markSessions(databaseUrl: string): string {
  const url = new URL(databaseUrl);
  url.searchParams.set('application_name', SESSIONS);
  return url.href;
}

/**
 * Keeps a lifeline for every worker pool that these events announce.
 * @param onLost called when the connection broke or another worker declared this pool dead: the process must end
 *   without touching its jobs, which others may be running now
 */
export function keepLifeline(
  events: WorkerEvents,
  databaseUrl: string,
  log: Log,
  onLost: (reason: string) => void,
): void {
  const ended: Promise<void>[] = [];
  endings.set(events, ended);
  events.on('pool:create', ({ workerPool }) => {
    let running = true;
    const lose = (reason: string) => {
      if (running) onLost(reason);
      running = false;
    };
    const lifeline = hold(workerPool.id, databaseUrl, log, lose).catch((error: unknown) => {
      const reason = `the lifeline cannot be set up: ${(error as Error).message}`;
      if (running) lose(reason);
      else log.warn(reason);
      return undefined;
    });
    log.info({ pool: workerPool.id }, 'worker started');
    ended.push(
      workerPool.promise
        .catch(() => undefined) // reported by graphile-worker as pool:fatalError
        .then(async () => {
          running = false;
          await (await lifeline)?.();
        })
        .catch((error: unknown) => log.warn(`the lifeline did not end in good order: ${(error as Error).message}`)),
    );
  });
}

/** @returns ends the lifeline in good order */
async function hold(
  pool: string,
  databaseUrl: string,
  log: Log,
  lose: (reason: string) => void,
): Promise<() => Promise<void>> {
  const client = await connect(markSessions(databaseUrl));
  client.on('error', (error) => lose(`the connection to the database broke: ${error.message}`));
  client.on('end', () => lose('the connection to the database was closed'));
  try {
    return await keepBeating(client, pool, databaseUrl, log, lose);
  } catch (error) {
    client.removeAllListeners('end'); // the caller is to hear of the error, not of what follows from it
    await client.end().catch(() => undefined); // broken already
    throw error;
  }
}

async function keepBeating(
  client: pg.Client,
  pool: string,
  databaseUrl: string,
  log: Log,
  lose: (reason: string) => void,
): Promise<() => Promise<void>> {
  const session = await backendOf(client);
  let isShared = await sharesSessions(client, session, databaseUrl);
  if (isShared) log.warn(SHARED);
  else await client.query('select pg_advisory_lock(space, number) from tickets_ops.worker_lock($1)', [pool]);
  await client.query(
    'insert into tickets_ops.workers (pool_id, host, pid, sessions, shares_sessions) values ($1, $2, $3, $4, $5)',
    [pool, hostname(), process.pid, SESSIONS, isShared],
  );
  if (!isShared) await rescue(client, pool, log);

  const beat = async () => {
    const { rows } = await client.query<{ shared: boolean }>(
      `update tickets_ops.workers
       set seen_at = now(), shares_sessions = shares_sessions or pg_backend_pid() <> $2
       where pool_id = $1 and declared_dead_at is null
       returning shares_sessions as shared`,
      [pool, session],
    );
    if (!rows[0]) return lose('another worker declared this one dead: it had not been heard of for minutes');
    if (rows[0].shared && !isShared) log.warn(SHARED);
    isShared = rows[0].shared;
    if (!isShared) await rescue(client, pool, log);
  };
  let answeredAt = performance.now();
  let beating: Promise<void> | undefined;
  const timer = setInterval(() => {
    // Also when this process itself was suspended: it cannot know what others did meanwhile.
    if (performance.now() - answeredAt > SILENCE_MS)
      return lose(`the database has not answered for ${SILENCE_MS / 1_000} s`);
    beating ??= beat()
      .then(() => {
        answeredAt = performance.now();
      })
      .catch((error: Error) => lose(`the heartbeat failed: ${error.message}`))
      .finally(() => {
        beating = undefined;
      });
  }, HEARTBEAT_MS);

  return async () => {
    clearInterval(timer);
    await beating;
    try {
      await client.query('update tickets_ops.workers set stopped_at = now(), seen_at = now() where pool_id = $1', [
        pool,
      ]);
    } finally {
      await client.end();
    }
  };
}

async function backendOf(db: Db): Promise<number> {
  const { rows } = await db.query<{ pid: number }>('select pg_backend_pid() as pid');
  return rows[0]?.pid ?? 0;
}

/**
 * Does this connection share its session with others? A pooler in transaction mode gives a second connection the
 * session that this one used last, and this one another while the second holds it. A busy pooler may hide that from a
 * few looks; every heartbeat looks again.
 */
export async function sharesSessions(client: pg.Client, session: number, databaseUrl: string): Promise<boolean> {
  return withClient(markSessions(databaseUrl), async (other) => {
    // First without a transaction: the embedded database lets nobody in while another has one open.
    if ((await backendOf(other)) === session) return true;
    for (let look = 0; look < 3; look += 1) {
      await other.query('begin');
      const [theirs, ours] = [await backendOf(other), await backendOf(client)];
      await other.query('commit');
      if (theirs === session || ours !== session || (await backendOf(client)) !== session) return true;
    }
    return false;
  });
}

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
