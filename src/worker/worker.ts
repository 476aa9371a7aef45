/** The worker: graphile-worker's settings, for our own command and for plain `npx graphile-worker` alike. */
import { EventEmitter } from 'node:events';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { setFlagsFromString } from 'node:v8';
import { type Runner, run, type WorkerEvents } from 'graphile-worker';
import { withClient } from '../database/client.ts';
import { CRONTAB_FILE } from '../database/crontab.ts';
import { enqueue, JOB_KEYS } from '../database/jobs.ts';
import { pinnedUrl } from '../database/session.ts';
import { NEVER_MIGRATES } from '../database/worker-schema.ts';
import { forbiddenFlags, geocodingSlots } from '../geocoding/concurrency.ts';
import { registerGeocoder } from '../geocoding/registration.ts';
import { graphileLogger, type Log } from '../settings/log.ts';
import { DatabaseSettings, JobSchemaSettings, readSettings, WorkerSettings } from '../settings/settings.ts';
import { keepHeartbeat, REGISTERS_FIRST } from './heartbeat.ts';
import { openPool } from './pool.ts';
import { recordSchedule } from './schedule.ts';
import { markSessions, SESSIONS } from './sessions.ts';

/** How long a job may wait for a lock once the worker is told to stop; a container is given 30 s. */
const LOCK_WAIT_MS = 10_000;

export const TASK_DIRECTORY = fileURLToPath(new URL('../../tasks', import.meta.url));

/**
 * Memory before speed: left to itself, V8 keeps up to 130 MB for what is new and lets the rest grow to a multiple of what
 * is in use. Set here, so that it holds however the process was started; reading a file takes a sixth more of a processor.
 */
setFlagsFromString('--semi-space-growth-factor=1');
setFlagsFromString('--heap-growing-percent=30');

/** graphile-worker's settings, from the environment. Where the heartbeat fails, the process ends at once: its container restarts it. */
export function workerPreset(log: Log) {
  const { DATABASE_URL } = readSettings(DatabaseSettings);
  const events: WorkerEvents = new EventEmitter();
  keepHeartbeat(events, DATABASE_URL, log, exitAtOnce(log));
  // A pool whose database is gone for good shuts down in good order otherwise, and the container would not restart.
  events.on('pool:fatalError', () => {
    process.exitCode = 1;
  });
  // A worker shuts down by this notice (https://github.com/graphile/worker/pull/361), which any role that can connect may send;
  // migrations of our tables come with the heartbeat. It looks at the payload after its listeners have.
  events.on('pool:listen:notification', ({ message }) => {
    if (message.channel === 'worker:migrate') message.payload = '';
  });
  return {
    plugins: [NEVER_MIGRATES, REGISTERS_FIRST],
    worker: {
      // Of plain npx graphile-worker only; ours bring a pool (pool.ts).
      connectionString: pinnedUrl(markSessions(DATABASE_URL)),
      schema: readSettings(JobSchemaSettings).WORKER_SCHEMA,
      concurrentJobs: readSettings(WorkerSettings).WORKER_CONCURRENCY,
      taskDirectory: TASK_DIRECTORY,
      crontabFile: CRONTAB_FILE,
      pollInterval: 2_000,
      // Completions are awaited: otherwise SIGTERM loses them, and jobs that were done run again.
      completeJobBatchDelay: 0,
      failJobBatchDelay: 0,
      // Named statements break behind poolers, and where all connections are one session.
      preparedStatements: false,
      logger: graphileLogger(log),
      events,
    },
  };
}

/**
 * Starts a worker with the schedule: jobs of every kind, geocoding in slots of its own beside those of the loads.
 * @param stop aborted, it finishes what it holds and takes nothing more; `runner.promise` resolves then, and workerEnded
 *   closes what is left
 */
export async function startWorker(log: Log, stop?: AbortSignal): Promise<Runner> {
  const { DATABASE_URL } = readSettings(DatabaseSettings);
  const { schedule, geocoder } = await withClient(DATABASE_URL, async (client) => ({
    schedule: await recordSchedule(client),
    geocoder: await registerGeocoder(client),
  }));
  if ('off' in geocoder) log.warn(geocoder.off);
  const slots = 'off' in geocoder ? 1 : geocodingSlots(geocoder.rate);
  const preset = workerPreset(log);
  preset.worker.concurrentJobs += slots;
  // graphile-worker's own handlers end the process by the signal, before the heartbeat has ended in good order.
  const pgPool = openPool(preset.worker.events);
  const runner = await run({
    preset,
    pgPool,
    parsedCronItems: schedule,
    forbiddenFlags: forbiddenFlags(slots),
    noHandleSignals: true,
  });
  const end = () => {
    void runner.stop().catch(() => undefined); // it rejects when the runner has stopped by itself
    void cancelLockWaits(DATABASE_URL, runner, log);
  };
  if (stop?.aborted) end();
  else stop?.addEventListener('abort', end);
  // What a dead worker held is freed now, not at the next tick of the schedule.
  await enqueue(pgPool, 'fleettickets_maintain', {}, { key: JOB_KEYS.fleettickets_maintain, maxAttempts: 1 });
  return runner;
}

/**
 * Somebody's open transaction must not keep a worker that is told to stop: what still waits for a lock then is cancelled, and
 * its job is tried again elsewhere.
 */
async function cancelLockWaits(databaseUrl: string, runner: Runner, log: Log): Promise<void> {
  let stopped = false;
  const end = () => {
    stopped = true;
  };
  runner.promise.then(end, end);
  await sleep(LOCK_WAIT_MS, undefined, { ref: false });
  while (!stopped) {
    await withClient(databaseUrl, (client) =>
      client.query(
        `select pg_cancel_backend(pid) from pg_stat_activity
         where datname = current_database() and application_name = $1 and wait_event_type = 'Lock'`,
        [SESSIONS],
      ),
    ).catch((error: Error) => log.warn(`what waits for a lock cannot be cancelled: ${error.message}`));
    await sleep(1_000, undefined, { ref: false });
  }
}

function exitAtOnce(log: Log): (reason: string) => void {
  return (reason) => {
    log.fatal(`this worker ends at once: ${reason}`);
    process.exit(1);
  };
}
