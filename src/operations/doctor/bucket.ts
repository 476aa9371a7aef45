/** The doctor's checks of the bucket: what is in the folder, and each right that archiving needs. */
import { randomBytes } from 'node:crypto';
import { DeleteObjectCommand, PutObjectCommand } from '@aws-sdk/client-s3';
import { archiveObject } from '../../bucket/archive.ts';
import { ARCHIVE_FOLDER, snapshotFiles } from '../../bucket/files.ts';
import { type Bucket, listFolder, openBucket } from '../../bucket/s3.ts';
import type { Db } from '../../database/client.ts';
import { dataset } from '../../settings/dataset.ts';
import { datasetInUse, datasetsOn } from '../../settings/recorded.ts';
import { BucketSettings, readSettings } from '../../settings/settings.ts';
import { check, type Finding, ok, skipped, type Verdict } from './finding.ts';

/** @param db undefined, or without our schema: which datasets are on is then what the environment says */
export async function* examineBucket(db: Db | undefined): AsyncGenerator<Finding> {
  let bucket: Bucket;
  let folders: string[];
  try {
    bucket = openBucket(readSettings(BucketSettings));
    const names = await datasetsOn(db).catch(() => datasetsOn(undefined));
    const datasets = names.map((name) => (db ? datasetInUse(db, name).catch(() => dataset(name)) : dataset(name)));
    folders = (await Promise.all(datasets)).map(({ prefix }) => prefix);
  } catch {
    yield { check: 'bucket', ...skipped('needs its settings') };
    return;
  }
  for (const folder of folders) yield* examineFolder(bucket, folder);
  bucket.client.destroy();
}

async function* examineFolder(bucket: Bucket, folder: string): AsyncGenerator<Finding> {
  const listed = await check('bucket', async () => {
    const found = await listFolder(bucket, folder);
    return ok(`${snapshotFiles(found).files.length} snapshots in ${bucket.name}/${folder}`);
  });
  yield listed.remedy ? { ...listed, remedy: 'check RUSTFS_ENDPOINT, RUSTFS_BUCKET and the keys' } : listed;
  yield listed.state === 'ok'
    ? withRemedy(await check('bucket rights', () => moveAnObject(bucket, folder)), folder)
    : { check: 'bucket rights', ...skipped('needs the bucket') };
}

const withRemedy = (finding: Finding, folder: string): Finding =>
  finding.state === 'failed'
    ? { ...finding, remedy: `give the key the rights to read, write, copy and delete under ${folder}` }
    : finding;

/** What archiving does, with an object of the doctor's own that no run takes for a snapshot. */
async function moveAnObject(bucket: Bucket, folder: string): Promise<Verdict> {
  const name = `fleettickets-doctor-${randomBytes(4).toString('hex')}.probe`;
  const remove = (Key: string) => bucket.client.send(new DeleteObjectCommand({ Bucket: bucket.name, Key }));
  try {
    await bucket.client.send(
      new PutObjectCommand({ Bucket: bucket.name, Key: folder + name, Body: 'fleettickets doctor\n' }),
    );
    for (const probe of await listFolder(bucket, folder + name)) await archiveObject(bucket, probe);
  } finally {
    await Promise.allSettled([remove(folder + name), remove(folder + ARCHIVE_FOLDER + name)]); // the first error says why
  }
  return ok('read, write, copy and delete');
}
