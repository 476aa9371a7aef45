/**
 * The heartbeat: how workers show that they are alive.
 *
 * Each worker pool keeps a connection of its own on which it holds an advisory lock named after the pool; it registers
 * in tickets_ops.workers only once it holds the lock, and notes there every few seconds that it reached the database. With
 * each beat it frees what dead workers held (rescue.ts). A worker whose connection breaks, whose database is silent for
 * half a minute or that another one declared dead ends itself at once, without touching its jobs: others may have them.
 */
import { hostname } from 'node:os';
import type { WorkerEvents, WorkerPool } from 'graphile-worker';
import type pg from 'pg';
import { connect } from '../database/client.ts';
import { backendOf, isEmbedded, POOLED } from '../database/pooler.ts';
import { requireCurrent } from '../database/schema.ts';
import { REVISION } from '../database/worker-schema.ts';
import { reasonOf } from '../settings/errors.ts';
import type { Log } from '../settings/log.ts';
import { recordSettings } from '../settings/recorded.ts';
import { rescue } from './rescue.ts';
import { markSessions, SESSIONS } from './sessions.ts';

const HEARTBEAT_MS = 5_000;
/** Longer silence of the database ends the worker: well before others take its jobs (tickets_ops.hung_after). Six heartbeats. */
export const SILENCE_MS = 6 * HEARTBEAT_MS;

const SHARED =
  'DATABASE_URL leads to the embedded database, where all connections share one session: nobody can tell whether a ' +
  'worker lives, so nothing is rescued, and the jobs of one that dies wait for 4 hours.';

/** The heartbeat of each pool, from the moment it is registered. */
const beginnings = new WeakMap<WorkerPool, Promise<unknown>>();

/** A pool takes no job before it is registered: only pools that are can be rescued. */
export const REGISTERS_FIRST: GraphileConfig.Plugin = {
  name: 'fleettickets-registers-first',
  worker: {
    hooks: {
      async startWorker(_, { worker }) {
        await beginnings.get(worker.workerPool);
      },
    },
  },
};

/** What remains to be waited for of each worker's heartbeats. */
const endings = new WeakMap<WorkerEvents, Promise<void>[]>();

/**
 * Waits until the heartbeats that were kept for these events have ended: a worker's pool is done a few queries earlier,
 * and a longer program that runs one wants none of its sessions left.
 */
export async function heartbeatEnded(events: WorkerEvents): Promise<void> {
  await Promise.all(endings.get(events) ?? []);
}

/**
 * Keeps a heartbeat for every worker pool that these events announce.
 * @param onHeartbeatFailure called when the connection broke or another worker declared this pool dead: the process must end
 *   without touching its jobs, which others may be running now
 */
export function keepHeartbeat(
  events: WorkerEvents,
  databaseUrl: string,
  log: Log,
  onHeartbeatFailure: (reason: string) => void,
): void {
  const ended: Promise<void>[] = [];
  endings.set(events, ended);
  events.on('pool:create', ({ workerPool }) => {
    let running = true;
    const end = (reason: string) => {
      if (running) onHeartbeatFailure(reason);
      running = false;
    };
    const heartbeat = start(workerPool.id, databaseUrl, log, end).catch((error: unknown) => {
      const reason = `the heartbeat cannot be set up: ${reasonOf(error)}`;
      if (running) end(reason);
      else log.warn(reason);
      return undefined;
    });
    beginnings.set(workerPool, heartbeat);
    log.info({ pool: workerPool.id }, 'worker started');
    ended.push(
      workerPool.promise
        .catch(() => undefined) // reported by graphile-worker as pool:fatalError
        .then(async () => {
          running = false;
          await (await heartbeat)?.();
        })
        .catch((error: unknown) => log.warn(`the heartbeat did not end in good order: ${(error as Error).message}`)),
    );
  });
}

/** @returns ends the heartbeat in good order */
async function start(
  pool: string,
  databaseUrl: string,
  log: Log,
  end: (reason: string) => void,
): Promise<() => Promise<void>> {
  const client = await connect(markSessions(databaseUrl));
  client.on('error', (error) => end(`the connection to the database broke: ${error.message}`));
  client.on('end', () => end('the connection to the database was closed'));
  try {
    await requireCurrent(client); // plain npx graphile-worker has not asked
    return await keepBeating(client, pool, log, end);
  } catch (error) {
    client.removeAllListeners('end'); // the caller is to hear of the error, not of what follows from it
    await client.end().catch(() => undefined); // broken already
    throw error;
  }
}

async function keepBeating(
  client: pg.Client,
  pool: string,
  log: Log,
  end: (reason: string) => void,
): Promise<() => Promise<void>> {
  const session = await backendOf(client);
  const isShared = await isEmbedded(client);
  if (isShared) log.warn(SHARED);
  else await client.query('select pg_advisory_lock(space, number) from tickets_ops.worker_lock($1)', [pool]);
  await client.query(
    'insert into tickets_ops.workers (pool_id, host, pid, sessions, shares_sessions) values ($1, $2, $3, $4, $5)',
    [pool, hostname(), process.pid, SESSIONS, isShared],
  );
  await recordSettings(client, pool);
  if (!isShared) await rescue(client, pool, log);

  const beat = async () => {
    const { rows } = await client.query<{ pooled: boolean; outgrown: boolean }>(
      `update tickets_ops.workers
       set seen_at = now()
       where pool_id = $1 and declared_dead_at is null
       returning pg_backend_pid() <> $2 as pooled, tickets_ops.worker_breaking_revision() > $3 as outgrown`,
      [pool, session, REVISION],
    );
    if (!rows[0]) return end('another worker declared this one dead: it had not been heard of for minutes');
    if (rows[0].outgrown) return end('the tables of the jobs were migrated for a newer release');
    // Hidden from the looks that connect() took, by other clients of a busy pooler.
    if (rows[0].pooled) return end(`${POOLED.what}; ${POOLED.remedy}`);
    if (!isShared) await rescue(client, pool, log);
  };
  let answeredAt = performance.now();
  let beating: Promise<void> | undefined;
  const timer = setInterval(() => {
    // Also when this process itself was suspended: it cannot know what others did meanwhile.
    if (performance.now() - answeredAt > SILENCE_MS)
      return end(`the database has not answered for ${SILENCE_MS / 1_000} s`);
    beating ??= beat()
      .then(() => {
        answeredAt = performance.now();
      })
      .catch((error: Error) => end(`the heartbeat failed: ${error.message}`))
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
