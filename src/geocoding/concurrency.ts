/**
 * Concurrency of geocoding within one worker: it runs only a few geocoding jobs at a time, however many are due, so that
 * those that wait for the rate never take the slots that loads need. Give a worker this many slots on top
 * (`concurrentJobs: WORKER_CONCURRENCY + geocodingSlots(rate)`) and the flags that keep further ones off
 * (`forbiddenFlags: forbiddenFlags(slots)`).
 *
 * It does not promise an exact number: workers that wake together may fetch a few jobs more, which put themselves back.
 * Under plain `npx graphile-worker` there is no such limit; loads then come first by priority only.
 */
import { GEOCODING_FLAG } from '../database/jobs.ts';

/** However high the rate is. */
export const MOST_GEOCODING_SLOTS = 16;

/** One that waits for its slot, and as many in flight as answers of half a second need. */
export function geocodingSlots(rate: number): number {
  return Math.min(MOST_GEOCODING_SLOTS, 1 + Math.ceil(rate / 2));
}

let running = 0;
let limit = Number.POSITIVE_INFINITY;
let leftToOthersUntil = 0;

/** graphile-worker's `forbiddenFlags`: no further geocoding job is fetched while this process runs `slots` of them. */
export function forbiddenFlags(slots: number): () => string[] | null {
  limit = slots;
  return () => (running >= limit || performance.now() < leftToOthersUntil ? [GEOCODING_FLAG] : null);
}

/** This process has no provider and others have: for a minute it fetches no geocoding job. */
export function leaveToOthers(): void {
  leftToOthersUntil = performance.now() + 60_000;
}

/** Runs `work` unless the process runs its share of geocoding jobs already; then false. */
export async function inGeocodingSlot(work: () => Promise<void>): Promise<boolean> {
  if (running >= limit) return false;
  running++;
  try {
    await work();
    return true;
  } finally {
    running--;
  }
}
