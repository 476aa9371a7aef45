/**
 * Rescue: the jobs and queues that a dead worker held are free again in seconds (graphile-worker alone waits four hours).
 *
 * Dead is a registered pool whose advisory lock is free, since that falls with its connection, so no clock is asked; or
 * one that has not been heard of for long (tickets_ops.hung_after, in live-workers.sql). The sessions of the latter are
 * ended, so that its open transactions hold nothing and can commit nothing.
 *
 * What it does not promise: a job may be run again although its first run still goes on outside the database (a
 * request to the bucket, say). Tasks are written for that: claims are fenced, batches are locked rows.
 * On the embedded database, where connections share one session, nothing is rescued, and the log and tickets_ops.health say so.
 */
import type pg from 'pg';
import { withClient } from '../database/client.ts';
import { isEmbedded } from '../database/pooler.ts';
import type { Log } from '../settings/log.ts';

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
    if (await isEmbedded(client)) return;
    await freeDead(client, '', log);
  });
}

async function freeDead(client: pg.ClientBase, ownPool: string, log: Log): Promise<void> {
  const { rows } = await client.query<{ pools: string[] }>('select tickets_ops.free_dead_workers($1) as pools', [
    ownPool,
  ]);
  const pools = rows[0]?.pools ?? [];
  if (pools.length > 0) log.warn({ pools }, 'freed the jobs of dead workers');
}
