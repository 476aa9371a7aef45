/** finalize_snapshot: the end of a snapshot whose batches are all in; archives its file. See src/snapshots/complete.ts. */
import { z } from 'zod';
import { type Bucket, openBucket } from '../src/bucket/s3.ts';
import { hideSecrets } from '../src/settings/secrets.ts';
import { BucketSettings, readSettings } from '../src/settings/settings.ts';
import { complete } from '../src/snapshots/complete.ts';
import { fail } from '../src/snapshots/ledger.ts';
import { defineTask, Id, PermanentError } from '../src/worker/task.ts';

const Payload = z.strictObject({ snapshot_id: Id });

export default defineTask('finalize_snapshot', Payload, { snapshot_id: 42 }, async (payload, context) => {
  const { snapshot_id: snapshotId } = payload;
  let bucket: Bucket | undefined; // only where there is something to archive
  const openIt = () => {
    bucket ??= openBucket(readSettings(BucketSettings));
    return bucket;
  };
  await context.withPgClient(async (client) => {
    try {
      const refusal = await complete(client, snapshotId, openIt, context.log);
      if (refusal !== undefined) throw new PermanentError(refusal);
    } catch (error) {
      // Changes nothing once the snapshot is done: then only its archiving failed, and the next fetch completes that.
      if (context.isLastAttempt && !(error instanceof PermanentError))
        await fail(client, snapshotId, hideSecrets((error as Error).message));
      throw error;
    } finally {
      bucket?.client.destroy(); // its connections stay open otherwise, one for each file
    }
  });
});
