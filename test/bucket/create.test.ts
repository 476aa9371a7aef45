/** The bucket of a stack that brings its own S3 server: compose.yaml's step, as it runs in the container. */
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { readFile } from 'node:fs/promises';
import { after, before, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { DeleteBucketCommand, ListBucketsCommand } from '@aws-sdk/client-s3';
import { type Environment, startEnvironment } from '../support/environment.ts';

const ROOT = fileURLToPath(new URL('../..', import.meta.url));

let env: Environment;
before(async () => {
  env = await startEnvironment();
});
after(() => env.close());

/** @param settings on top of the environment */
async function step(settings: Record<string, string>): Promise<void> {
  const [, command = ''] = /^ {4}command: \[node, (\S+)\]$/m.exec(await readFile(`${ROOT}/compose.yaml`, 'utf8')) ?? [];
  await promisify(execFile)(process.execPath, [command], { cwd: ROOT, env: { ...process.env, ...settings } });
}

test("compose.yaml's bucket step makes the bucket, and lets one that is there be", async () => {
  const name = `${env.s3.bucket}-compose`;
  for (let n = 0; n < 2; n += 1) await step({ RUSTFS_BUCKET: name });
  const { Buckets = [] } = await env.bucket.send(new ListBucketsCommand({}));
  assert.ok(Buckets.some(({ Name }) => Name === name));
  await env.bucket.send(new DeleteBucketCommand({ Bucket: name }));
});

test('where that cannot be, it says so in a line and fails', async () => {
  await assert.rejects(step({ RUSTFS_ENDPOINT: 'http://127.0.0.1:1' }), {
    code: 1,
    stderr: `Making the bucket in bucket ${env.s3.bucket} at http://127.0.0.1:1: nothing listens there: check RUSTFS_ENDPOINT, and that the server runs\n`,
  });
});
