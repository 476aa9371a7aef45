import { parseArgs } from 'node:util';
import { run as start } from 'graphile-worker';
import { createLog, type Log } from '../log.ts';
import { BucketSettings, DatabaseSettings, readSettings } from '../settings.ts';
import { withClient } from '../database.ts';
import { drain } from '../drain.ts';
import { workerPreset } from '../worker.ts';

export const summary = 'run jobs and the schedule until SIGTERM';
export const usage = `Usage: fleettickets worker [--once]

Runs jobs, and the schedule in the file crontab, until SIGTERM; then it finishes what it
holds and exits. Any number of workers may run at once.

  --once   run every job that is due, then exit; no schedule

Settings: DATABASE_URL, RUSTFS_*, GEOCODER_*, WORKER_CONCURRENCY, LOG_LEVEL.
`;

export async function run(args: string[]): Promise<number> {
  const { values } = parseArgs({ args, options: { once: { type: 'boolean', default: false } } });
  readSettings(BucketSettings); // a missing setting is better found now than by the first job
  const log = await createLog();
  if (values.once) await drain(log);
  else await runUntilStopped(log);
  return process.exitCode === 1 ? 1 : 0;
}

async function runUntilStopped(log: Log): Promise<void> {
  const runner = await start({ preset: workerPreset(log) });
  // What a dead worker held is freed now, not at the next tick of the schedule.
  await runner.addJob('maintain', {}, { jobKey: 'maintain', maxAttempts: 1, priority: -20 });
  await runner.promise;
  log.info('worker stopped');
}
