/** Draining: runs the jobs that are due, and those that they add, until none is left; without the schedule. */
import { runOnce } from 'graphile-worker';
import type { Log } from '../settings/log.ts';
import { DatabaseSettings, readSettings } from '../settings/settings.ts';
import { openPool, workerEnded } from './pool.ts';
import { rescueOnce } from './rescue.ts';
import { workerPreset } from './worker.ts';

/** @returns how many jobs threw; they wait for their next attempt, or have failed */
export async function drain(log: Log): Promise<number> {
  await rescueOnce(readSettings(DatabaseSettings).DATABASE_URL, log);
  const preset = workerPreset(log);
  let errors = 0;
  preset.worker.events.on('job:error', () => {
    errors += 1;
  });
  try {
    await runOnce({ preset, pgPool: openPool(preset.worker.events) });
  } finally {
    await workerEnded(preset.worker.events);
  }
  return errors;
}
