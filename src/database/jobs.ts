/**
 * Job policy: what the jobs of each task have from the start, and what they are called.
 *
 * SQL adds jobs too and has the same in migrations/fixtures/jobs/job-policy.sql, and the crontab can only repeat it; a test holds
 * the three together. Nothing else names an attempt, a priority or a key.
 */
import type { Db } from './client.ts';

interface Policy {
  /** How often a job is tried before it counts as failed. */
  readonly maxAttempts: number;
  /** Lower runs first. */
  readonly priority: number;
  /** When a person asked for it; null where nobody can. */
  readonly onDemandPriority: number | null;
  /** By which a worker keeps jobs off (geocoding/concurrency.ts). */
  readonly flags: readonly string[];
}

/** Flag of geocoding jobs. */
export const GEOCODING_FLAG = 'geocode';

/**
 * Loads come before geocoding. Of geocoding, what a person asks for comes before what is planned, and a cluster before the
 * places in it, which wait for its centroid. Of six attempts the last comes about 4 minutes after the first, so a load that
 * fails never outlives its hour.
 */
export const JOB_POLICY = {
  fetch_snapshot: { maxAttempts: 6, priority: -10, onDemandPriority: -10, flags: [] },
  upsert_batch: { maxAttempts: 6, priority: -10, onDemandPriority: null, flags: [] },
  finalize_snapshot: { maxAttempts: 6, priority: -10, onDemandPriority: null, flags: [] },
  geocode_cluster: { maxAttempts: 6, priority: 20, onDemandPriority: 10, flags: [GEOCODING_FLAG] },
  geocode_location: { maxAttempts: 6, priority: 30, onDemandPriority: 11, flags: [GEOCODING_FLAG] },
  fleettickets_maintain: { maxAttempts: 3, priority: -20, onDemandPriority: null, flags: [] },
  fleettickets_alert: { maxAttempts: 25, priority: -20, onDemandPriority: null, flags: [] },
} as const satisfies Record<string, Policy>;

/** A task, as its file in tasks/ is called. */
export type TaskName = keyof typeof JOB_POLICY;

/** Keys: of the jobs that wait, only one has it. Those that only SQL uses stand in job-policy.sql. */
export const JOB_KEYS = {
  fetch: (dataset: string, mode: string) => `fetch_snapshot:${dataset}:${mode}`,
  fleettickets_maintain: 'fleettickets_maintain',
} as const;

interface JobOptions {
  readonly key: string;
  /** Due so much later, by the database's clock: this host's may be behind. */
  readonly seconds?: number;
  /** Instead of the policy's. */
  readonly maxAttempts?: number;
}

/** Adds a job; one with the same key that waits is replaced. */
export async function enqueue(db: Db, task: TaskName, payload: object, options: JobOptions): Promise<void> {
  const { key, seconds = 0, maxAttempts = JOB_POLICY[task].maxAttempts } = options;
  await db.query('select tickets_ops.enqueue($1, $2, $3, now() + make_interval(secs => $4), $5, $6)', [
    task,
    JSON.stringify(payload),
    key,
    seconds,
    JOB_POLICY[task].priority,
    maxAttempts,
  ]);
}
