/**
 * Fetching: one look at the bucket. Finishes archiving that was cut off, writes down what it passes over, and stages
 * the file that is to be loaded. A file that is no ticket CSV fails in the ledger and the next one is taken.
 */
import type { ClientBase } from 'pg';
import { type Candidate, candidates, choose, type Mode, versionOf } from '../bucket/choose.ts';
import { type Bucket, BucketError, listFolder, ObjectChangedError, readObject } from '../bucket/s3.ts';
import { RefusedFileError } from '../csv/refused.ts';
import type { Dataset } from '../settings/dataset.ts';
import type { Log } from '../settings/log.ts';
import { archive } from './complete.ts';
import * as ledger from './ledger.ts';
import { stage } from './stage.ts';

export interface FetchOptions {
  readonly mode: Mode;
  /** The job that fetches, for the ledger and for telling its own abandoned attempt from others' work. */
  readonly jobId: string;
  readonly signal: AbortSignal;
  readonly log: Log;
}

export type FetchOutcome =
  | { readonly outcome: 'staged'; readonly snapshotId: string; readonly key: string }
  /** Looked, and nothing had to be loaded. */
  | { readonly outcome: 'nothing new' }
  /** Another snapshot is in flight: come back later. */
  | { readonly outcome: 'busy'; readonly with: string };

/**
 * Looks at the dataset's folder and stages at most one snapshot.
 * @throws BucketError (also ObjectChangedError: look again); database errors. A claim it leaves behind is released by
 * the job's next attempt.
 */
export async function fetchSnapshot(
  client: ClientBase,
  bucket: Bucket,
  dataset: Dataset,
  options: FetchOptions,
): Promise<FetchOutcome> {
  const look = {
    dataset: dataset.name,
    jobId: options.jobId,
    forced: options.mode === 'force',
    backfill: options.mode === 'backfill',
  };
  // Versions that this run has read in vain: a forced run, or a bucket that lists what is gone, would take them for ever.
  const tried = new Set<string>();
  for (;;) {
    const current = await ledger.inFlight(client, dataset.name, options.jobId);
    if (current && !current.abandoned) return { outcome: 'busy', with: busyWith(current) };
    if (current) await ledger.release(client, current.snapshot_id);
    // Taking the newest now would shut out for ever the files that the backfill has yet to load.
    if (options.mode === 'newest' && (await ledger.isBackfilling(client, dataset.name))) {
      return { outcome: 'busy', with: 'a backfill' };
    }

    const listing = (await listSnapshots(bucket, dataset, options.mode, options.signal)).filter(
      (file) => !tried.has(versionOf(file.key, file.etag)),
    );
    const known = await ledger.knowledge(client, dataset.name, listing);
    const choice = choose(listing, known, options.mode);
    for (const file of choice.unarchived) await tryToArchive(client, bucket, dataset.name, file, options.log);
    for (const file of choice.fromTheFuture) await ledger.noteFile(client, look, file, 'failed', fromTheFuture(file));
    for (const file of choice.superseded) await ledger.noteFile(client, look, file, 'superseded');

    const file = choice.take;
    const same = file !== undefined && isSame(file, known.rememberedEtag) && options.mode !== 'force';
    if (same) {
      await noteUnchanged(client, bucket, look, file, options.log);
      if (options.mode === 'backfill') continue;
      return { outcome: 'nothing new' };
    }
    await ledger.checked(client, dataset.name);
    if (!file) return { outcome: 'nothing new' };

    const claim = await ledger.claim(client, look, file, 'bucket');
    if (claim === 'busy') return { outcome: 'busy', with: 'another snapshot' };
    if (claim === 'stale') continue;
    tried.add(versionOf(file.key, file.etag));
    options.log.info({ snapshot: claim.snapshotId, key: file.key, bytes: file.size }, 'reading snapshot');
    try {
      const seen = options.mode === 'force' ? null : known.rememberedSha256;
      const staged = await stage(client, dataset, claim, readObject(bucket, file, options.signal), seen);
      if (staged === 'sealed') return { outcome: 'staged', snapshotId: claim.snapshotId, key: file.key };
      await ledger.release(client, claim.snapshotId);
      await noteUnchanged(client, bucket, look, file, options.log);
      if (options.mode !== 'backfill') return { outcome: 'nothing new' };
    } catch (error) {
      if (error instanceof RefusedFileError) {
        await ledger.fail(client, claim.snapshotId, error.message);
        options.log.error({ snapshot: claim.snapshotId, key: file.key }, error.message);
      } else if (error instanceof ObjectChangedError) {
        // Replaced or gone while it was read: what stands there now is found by looking again.
        await ledger.release(client, claim.snapshotId);
        options.log.warn({ key: file.key }, error.message);
      } else throw error;
    }
  }
}

/** Some servers list no ETag: then only reading the file can tell. */
export const isSame = (file: Candidate, rememberedEtag: string | null) =>
  file.etag !== '' && file.etag === rememberedEtag;

/** Force also looks at archived files: the file to load again usually lies there. */
export async function listSnapshots(
  bucket: Bucket,
  dataset: Dataset,
  mode: Mode,
  signal?: AbortSignal,
): Promise<Candidate[]> {
  const folders = mode === 'force' ? [dataset.prefix, `${dataset.prefix}processed/`] : [dataset.prefix];
  const listings = [];
  for (const folder of folders) listings.push(...(await listFolder(bucket, folder, signal)));
  return candidates(listings);
}

async function noteUnchanged(
  client: ClientBase,
  bucket: Bucket,
  look: ledger.Look,
  file: Candidate,
  log: Log,
): Promise<void> {
  await ledger.noteFile(client, look, file, 'unchanged');
  await ledger.checked(client, look.dataset, file.snapshotAt);
  log.info({ key: file.key }, 'snapshot unchanged');
  await tryToArchive(client, bucket, look.dataset, file, log);
}

/** A folder that cannot be tidied must not keep newer tickets out: the next run tries again. */
async function tryToArchive(
  client: ClientBase,
  bucket: Bucket,
  name: string,
  file: Candidate,
  log: Log,
): Promise<void> {
  try {
    await archive(client, bucket, name, file.key, file.etag, log);
  } catch (error) {
    if (!(error instanceof BucketError)) throw error;
    log.error({ key: file.key }, `${error.message}; the next run tries again`);
  }
}

const busyWith = (current: ledger.InFlight) =>
  `snapshot ${current.snapshot_id} (${current.source_key}), which is ${current.status}`;

const fromTheFuture = (file: Candidate) =>
  `Its name says ${file.snapshotAt.toISOString()}, more than a day in the future: loading it would shut out every real snapshot until then. Rename it.`;
