/**
 * Makes the bucket of RUSTFS_BUCKET, for a stack that brings its own S3 server: as a program in compose.yaml, and for the demo.
 * A bucket that is there already is left as it is.
 */
import { CreateBucketCommand } from '@aws-sdk/client-s3';
import { reasonOf } from '../settings/errors.ts';
import { hideSecrets } from '../settings/secrets.ts';
import { BucketSettings, readSettings } from '../settings/settings.ts';
import { type Bucket, explain, openBucket } from './s3.ts';

/** @throws BucketError */
export async function createBucket(bucket: Bucket): Promise<void> {
  try {
    await bucket.client.send(new CreateBucketCommand({ Bucket: bucket.name }));
  } catch (error) {
    if (!/^BucketAlready/.test((error as Error).name)) throw explain(bucket, 'Making the bucket', error);
  }
}

if (import.meta.main) {
  try {
    await createBucket(openBucket(readSettings(BucketSettings)));
  } catch (error) {
    process.stderr.write(`${hideSecrets(reasonOf(error))}\n`);
    process.exitCode = 1;
  }
}
