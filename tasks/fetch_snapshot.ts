/** fetch_snapshot: looks at the bucket and stages the newest snapshot. The crontab enqueues it. See src/fetch.ts. */
import { z } from 'zod';
import { openBucket } from '../src/bucket/s3.ts';
import { dataset } from '../src/settings/dataset.ts';
import { hideSecrets } from '../src/settings/secrets.ts';
import { BucketSettings, readSettings } from '../src/settings/settings.ts';
import { fetchSnapshot } from '../src/snapshots/fetch.ts';
import { fail, inFlight } from '../src/snapshots/ledger.ts';
import { LOAD_ATTEMPTS, LOAD_PRIORITY } from '../src/snapshots/stage.ts';
import { DatasetName, defineTask, PermanentError } from '../src/worker/task.ts';

const WAIT_SECONDS = 5;
/** Half an hour: longer than any load, shorter than the hour to the next one. */
const MAX_WAITS = 360;

const Payload = z
  .strictObject({
    dataset: DatasetName.default('inc'),
    /** Load the newest file again, whatever the ledger says of it. */
    force: z.boolean().default(false),
    /** Take the oldest file that is newer than what is loaded, and come back for the next. */
    backfill: z.boolean().default(false),
    /** How often this request has waited for another snapshot. */
    waits: z.int().min(0).default(0),
  })
  .refine(({ force, backfill }) => !(force && backfill), 'choose either force or backfill');

export default defineTask('fetch_snapshot', Payload, { dataset: 'inc', force: true }, async (payload, context) => {
  const { log, job, abortSignal, isLastAttempt } = context;
  const mode = payload.force ? 'force' : payload.backfill ? 'backfill' : 'newest';
  const from = dataset(payload.dataset);
  const bucket = openBucket(readSettings(BucketSettings));
  const jobId = String(job.id);
  await context.withPgClient(async (client) => {
    try {
      const result = await fetchSnapshot(client, bucket, from, { mode, jobId, signal: abortSignal, log });
      if (result.outcome === 'nothing new') log.info('nothing new in the bucket');
      if (result.outcome !== 'busy') return;
      if (payload.waits >= MAX_WAITS) throw new PermanentError(`Gave up waiting for ${result.with}`);
      log.info(`waiting for ${result.with}`);
      await context.addJob(
        'fetch_snapshot',
        { ...payload, waits: payload.waits + 1 },
        {
          jobKey: job.key ?? `fetch_snapshot:${payload.dataset}:${mode}`,
          runAt: new Date(Date.now() + WAIT_SECONDS * 1_000),
          maxAttempts: LOAD_ATTEMPTS,
          priority: LOAD_PRIORITY,
        },
      );
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
