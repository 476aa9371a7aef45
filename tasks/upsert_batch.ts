/** upsert_batch: one range of staged rows becomes tickets. See src/snapshots/load.ts. */
import Bottleneck from 'bottleneck';
import { z } from 'zod';
import { dataset } from '../src/settings/dataset.ts';
import { hideSecrets } from '../src/settings/secrets.ts';
import { readSettings, WorkerSettings } from '../src/settings/settings.ts';
import { fail } from '../src/snapshots/ledger.ts';
import { loadBatch } from '../src/snapshots/load.ts';
import { defineTask, Id, PermanentError, type TaskContext } from '../src/worker/task.ts';

const Payload = z.strictObject({ snapshot_id: Id, batch: z.int32().positive() });

/**
 * Batches at once in this process. A worker can hold more, in what it has on top for geocoding; but every batch keeps a core
 * of the database busy, and three on two cores take a tenth longer than two.
 */
let limiter: Bottleneck | undefined;

export default defineTask('upsert_batch', Payload, { snapshot_id: 42, batch: 1 }, (payload, context) => {
  limiter ??= new Bottleneck({ maxConcurrent: readSettings(WorkerSettings).WORKER_CONCURRENCY });
  return limiter.schedule(() => upsertBatch(payload, context));
});

async function upsertBatch({ snapshot_id: snapshotId, batch }: z.infer<typeof Payload>, context: TaskContext) {
  await context.withPgClient(async (client) => {
    try {
      const result = await loadBatch(client, dataset, snapshotId, batch);
      if (result.outcome === 'gone') throw new PermanentError(result.reason);
      context.log.info({ snapshot: snapshotId, batch, ...result }, 'batch');
    } catch (error) {
      if (context.isLastAttempt && !(error instanceof PermanentError)) {
        const reason = hideSecrets((error as Error).message);
        await client.query(
          `update tickets_ops.snapshot_batches set status = 'failed', error = $3
           where snapshot_id = $1 and batch = $2 and status = 'pending'`,
          [snapshotId, batch, reason],
        );
        await fail(client, snapshotId, `Batch ${batch} failed ${context.job.attempts} times: ${reason}`);
      }
      throw error;
    }
  });
}
