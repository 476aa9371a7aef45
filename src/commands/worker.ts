import { parseArgs } from 'node:util';
import { drain } from '../drain.ts';
import { createLog, type Log } from '../log.ts';
import { migrate } from '../schema.ts';
import { BucketSettings, DatabaseSettings, readSettings } from '../settings.ts';
import { startWorker } from '../worker.ts';

export const summary = 'run jobs and the schedule until SIGTERM';
export const usage = `Usage: fleettickets worker [--migrate] [--once]

Runs jobs, and the schedule in the file crontab, until SIGTERM; then it finishes what it
holds and exits (a second SIGTERM ends it at once). Any number of workers may run at once.

  --migrate   first bring the database to the schema of this release, as migrate does
  --once      run every job that is due, then exit; no schedule

Settings: DATABASE_URL, RUSTFS_*, GEOCODER_*, WORKER_CONCURRENCY, LOG_LEVEL.
`;

export async function run(args: string[]): Promise<number> {
  const { values } = parseArgs({
    args,
    options: { migrate: { type: 'boolean', default: false }, once: { type: 'boolean', default: false } },
  });
  readSettings(BucketSettings); // a missing setting is better found now than by the first job
  const log = await createLog();
  const stop = values.once ? undefined : stopOnSignal(log);
  if (values.migrate) await untilStopped(stop, migrate(readSettings(DatabaseSettings).DATABASE_URL, log));
  if (values.once) await drain(log);
  else if (!stop?.aborted) {
    const runner = await startWorker(log, stop);
    await runner.promise;
    log.info('worker stopped');
  }
  return process.exitCode === 1 ? 1 : 0;
}
