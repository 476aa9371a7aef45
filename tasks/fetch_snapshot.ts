/** fetch_snapshot: looks at the bucket and stages the newest snapshot. The crontab enqueues it. See src/snapshots/fetch.ts. */
import { z } from 'zod';
import type { Mode } from '../src/bucket/plan.ts';
import { openBucket } from '../src/bucket/s3.ts';
import { DEFAULT_DATASET } from '../src/settings/dataset.ts';
import { datasetInUse, datasetsOn } from '../src/settings/recorded.ts';
import { hideSecrets } from '../src/settings/secrets.ts';
import { BucketSettings, readSettings } from '../src/settings/settings.ts';
import { fetchSnapshot, requestLook } from '../src/snapshots/fetch.ts';
import { inFlight } from '../src/snapshots/knowledge.ts';
import { fail } from '../src/snapshots/ledger.ts';
import { DatasetName, defineTask, PermanentError } from '../src/worker/task.ts';

const WAIT_SECONDS = 5;
/** Half an hour: longer than any load, shorter than the hour to the next one. */
const MAX_WAITS = 360;
/** Looks of one request that came to nothing because another one was faster; those that decided a file do not count. */
const MAX_LOOKS = 10;

const Payload = z
  .strictObject({
    dataset: DatasetName.default(DEFAULT_DATASET),
    /** Load the newest file again, whatever the ledger says of it. */
    force: z.boolean().default(false),
    /** Take the oldest file that is newer than what is loaded, and come back for the next. */
    backfill: z.boolean().default(false),
    /** How often this request has waited for another snapshot. */
    waits: z.int().min(0).max(MAX_WAITS).default(0),
    /** How often this request has looked in vain. */
    looks: z.int().min(0).max(MAX_LOOKS).default(0),
  })
  .refine(({ force, backfill }) => !(force && backfill), 'choose either force or backfill');

const modeOf = ({ force, backfill }: z.infer<typeof Payload>): Mode =>
  force ? 'force' : backfill ? 'backfill' : 'newest';

export default defineTask('fetch_snapshot', Payload, { dataset: 'inc', force: true }, async (payload, context) => {
  const { log, job, abortSignal, isLastAttempt } = context;
  const mode = modeOf(payload);
  // The crontab has a line for each; plain npx graphile-worker goes by all of them.
  if (!(await context.withPgClient(datasetsOn)).includes(payload.dataset))
    return log.info(`${payload.dataset} is off: nothing is looked at`);
  const from = await context.withPgClient((client) => datasetInUse(client, payload.dataset));
  const bucket = openBucket(readSettings(BucketSettings));
  const jobId = String(job.id);
  await context.withPgClient(async (client) => {
    try {
      const result = await fetchSnapshot(client, bucket, from, { mode, jobId, signal: abortSignal, log });
      if (result.outcome === 'nothing new') log.info('nothing new in the bucket');
      if (result.outcome === 'busy') {
        if (payload.waits >= MAX_WAITS) throw new PermanentError(`Gave up waiting for ${result.with}`);
        log.info(`waiting for ${result.with}`);
        await requestLook(client, from.name, mode, { waits: payload.waits + 1, looks: payload.looks }, WAIT_SECONDS);
      }
      if (result.outcome === 'look again') {
        if (payload.looks >= MAX_LOOKS)
          throw new PermanentError(`Gave up after ${MAX_LOOKS} looks in vain: ${result.reason}`);
        log.info(`looking again: ${result.reason}`);
        const looks = result.decided ? 0 : payload.looks + 1;
        await requestLook(client, from.name, result.mode, { waits: payload.waits, looks });
      }
    } catch (error) {
      const own = isLastAttempt ? await inFlight(client, from.name, jobId) : undefined;
      if (own?.abandoned && own.job_id === jobId)
        await fail(client, own.snapshot_id, hideSecrets((error as Error).message));
      throw error;
    } finally {
      bucket.client.destroy();
    }
  });
});
