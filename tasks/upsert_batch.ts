/** upsert_batch: one range of staged rows becomes tickets. See src/load.ts. */
import { z } from 'zod';
import { dataset } from '../src/dataset.ts';
import { fail } from '../src/ledger.ts';
import { loadBatch } from '../src/load.ts';
import { hideSecrets } from '../src/secrets.ts';
import { defineTask, Id, PermanentError } from '../src/task.ts';

const Payload = z.strictObject({ snapshot_id: Id, batch: z.int().positive() });

export default defineTask('upsert_batch', Payload, { snapshot_id: 42, batch: 1 }, async (payload, context) => {
  const { snapshot_id: snapshotId, batch } = payload;
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
});
