import { parseArgs } from 'node:util';
import { withClient } from '../database/client.ts';
import { migrate, requireCurrent } from '../database/schema.ts';
import { createLog, type Log } from '../settings/log.ts';
import { DatabaseSettings, readSettings, requireSettings } from '../settings/settings.ts';
import { drain } from '../worker/drain.ts';
import { workerEnded } from '../worker/pool.ts';
import { startWorker } from '../worker/worker.ts';

/** What it says goes to the log: so does the reason when it fails. */
export const logs = true;
export const summary = 'run jobs and the schedule until SIGTERM';
export const usage = `Usage: fleettickets worker [--migrate] [--once]

Runs jobs, and the schedule in the file crontab, until SIGTERM; then it finishes what it
holds and exits (a second SIGTERM ends it at once). Any number of workers may run at once.

  --migrate   first bring the database to the schema of this release, as migrate does
  --once      run every job that is due, then exit (1 if any failed); no schedule

Settings: DATABASE_URL, WORKER_SCHEMA, RUSTFS_*, INC_FEED, CRQ_*, GEOCODER_*, ALERT_*,
KEEP_*, WORKER_CONCURRENCY, LOG_LEVEL and the others of docs/settings.md but MAP_TILES_*.
`;

export async function run(args: string[]): Promise<number> {
  const { values } = parseArgs({
    args,
    options: { migrate: { type: 'boolean', default: false }, once: { type: 'boolean', default: false } },
  });
  requireSettings(); // a wrong one is better found now than by the first job that reads it
  const log = await createLog();
  const stop = values.once ? undefined : stopOnSignal(log);
  if (values.migrate) await migrateUnlessStopped(log, stop);
  else await withClient(readSettings(DatabaseSettings).DATABASE_URL, requireCurrent);
  if (values.once) return (await drain(log)) === 0 ? 0 : 1;
  const runner = await startWorker(log, stop);
  await runner.promise;
  await workerEnded(runner.events);
  log.info('worker stopped');
  return process.exitCode ? 1 : 0; // set by whatever ended it that was no signal: the container is to start it again
}

/** From the first moment on, not only while jobs run: PID 1 of a container gets no signal that it has no handler for. */
function stopOnSignal(log: Log): AbortSignal {
  const stop = new AbortController();
  for (const name of ['SIGTERM', 'SIGINT'] as const) {
    process.on(name, () => {
      if (stop.signal.aborted) process.exit(1); // what it holds others take over
      log.info(`${name}: stopping`);
      stop.abort();
    });
  }
  return stop.signal;
}

/** Ends the process at once when told to stop: a migration that is cut off is rolled back whole. */
async function migrateUnlessStopped(log: Log, stop: AbortSignal | undefined): Promise<void> {
  const leave = () => process.exit(0);
  stop?.addEventListener('abort', leave);
  await migrate(readSettings(DatabaseSettings).DATABASE_URL, log);
  stop?.removeEventListener('abort', leave);
}
