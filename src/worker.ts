/** The worker: graphile-worker's settings, for our own command and for plain `npx graphile-worker` alike. */
import { EventEmitter } from 'node:events';
import { fileURLToPath } from 'node:url';
import type { WorkerEvents } from 'graphile-worker';
import { keepLifeline } from './lifeline.ts';
import { graphileLogger, type Log } from './log.ts';
import { DatabaseSettings, readSettings, WorkerSettings } from './settings.ts';

const path = (name: string) => fileURLToPath(new URL(`../${name}`, import.meta.url));

export const CRONTAB_FILE = path('crontab');
export const TASK_DIRECTORY = path('tasks');

/**
 * graphile-worker's settings, from the environment.
 * @param onLost the worker lost its lifeline; the default ends the process at once, so that its container restarts
 */
export function workerPreset(log: Log, onLost: (reason: string) => void = exitAtOnce(log)) {
  const { DATABASE_URL } = readSettings(DatabaseSettings);
  const events: WorkerEvents = new EventEmitter();
  keepLifeline(events, DATABASE_URL, log, onLost);
  // A pool that lost its database for good shuts down in good order otherwise, and the container would not restart.
  events.on('pool:fatalError', () => {
    process.exitCode = 1;
  });
  return {
    worker: {
      connectionString: DATABASE_URL,
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

function exitAtOnce(log: Log): (reason: string) => void {
  return (reason) => {
    log.fatal(`this worker ends at once: ${reason}`);
    process.exit(1);
  };
}
