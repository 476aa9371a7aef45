/** Draining: runs the jobs that are due, and those that they add, until none is left; without the schedule. */
import { runOnce } from 'graphile-worker';
import type { Log } from './log.ts';
import { workerPreset } from './worker.ts';

export async function drain(log: Log): Promise<void> {
  await runOnce({ preset: workerPreset(log) });
}
