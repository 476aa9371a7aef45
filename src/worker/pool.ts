/**
 * The connections of a worker: a pool of our own in place of graphile-worker's, because every session of ours is pinned
 * (database/session.ts) before its first job.
 */
import type { WorkerEvents } from 'graphile-worker';
import pg from 'pg';
import { pinSession } from '../database/session.ts';
import { DatabaseSettings, readSettings } from '../settings/settings.ts';
import { heartbeatEnded } from './heartbeat.ts';
import { markSessions } from './sessions.ts';

/** Twice what WORKER_CONCURRENCY and the geocoding slots may come to: a job holds one connection and may need another. */
const MAX_CONNECTIONS = 160;

const pools = new WeakMap<WorkerEvents, pg.Pool>();

/** The pool for the worker with these events. It opens connections only when they are needed. */
export function openPool(events: WorkerEvents): pg.Pool {
  const pool = new pg.Pool({
    connectionString: markSessions(readSettings(DatabaseSettings).DATABASE_URL),
    max: MAX_CONNECTIONS,
    onConnect: pinSession,
  });
  // Of an idle connection that broke: the pool drops it, and whatever asks next gets another or the reason.
  pool.on('error', () => undefined);
  // Of one in use: its query fails with it.
  pool.on('connect', (client) => client.on('error', () => undefined));
  pools.set(events, pool);
  return pool;
}

/** Waits until a worker that was stopped has signed off and its sessions are closed. */
export async function workerEnded(events: WorkerEvents): Promise<void> {
  await heartbeatEnded(events);
  await pools.get(events)?.end();
}
