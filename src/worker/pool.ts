/**
 * The connections of a worker: a pool of our own in place of graphile-worker's, because every session of ours is pinned
 * (database/session.ts) before its first job.
 */
import type { WorkerEvents } from 'graphile-worker';
import type pg from 'pg';
import { openPinnedPool } from '../database/pool.ts';
import { MOST_GEOCODING_SLOTS } from '../geocoding/concurrency.ts';
import { DatabaseSettings, MOST_WORKER_CONCURRENCY, readSettings } from '../settings/settings.ts';
import { heartbeatEnded } from './heartbeat.ts';
import { markSessions } from './sessions.ts';

/** A job holds one connection and may need another. */
const MAX_CONNECTIONS = 2 * (MOST_WORKER_CONCURRENCY + MOST_GEOCODING_SLOTS);

const pools = new WeakMap<WorkerEvents, pg.Pool>();

/** The pool for the worker with these events. */
export function openPool(events: WorkerEvents): pg.Pool {
  const url = markSessions(readSettings(DatabaseSettings).DATABASE_URL);
  const pool = openPinnedPool(url, { max: MAX_CONNECTIONS });
  pools.set(events, pool);
  return pool;
}

/** Waits until a worker that was stopped has signed off and its sessions are closed. */
export async function workerEnded(events: WorkerEvents): Promise<void> {
  await heartbeatEnded(events);
  await pools.get(events)?.end();
}
