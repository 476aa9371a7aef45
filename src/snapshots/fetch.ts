/**
 * Fetching: one look at the bucket, carried out once and in order as bucket/plan.ts says. It stages at most one file.
 * What a step rests on is checked again in its own transaction; where that no longer holds, or a file was refused, another
 * look is asked for, by a job.
 */
import type { ClientBase } from 'pg';
import { planChanges } from '../bucket/changes.ts';
import { ARCHIVE_FOLDER, type Listing, type SnapshotFile, snapshotFiles, versionOf } from '../bucket/files.ts';
import { CLOCK_TOLERANCE_MS, type Knowledge, type Mode, planSnapshots, type Step } from '../bucket/plan.ts';
import { type Bucket, BucketError, listFolder, ObjectChangedError, readObject } from '../bucket/s3.ts';
import { csvBytes } from '../csv/gunzip.ts';
import { orRefusal, Refusal } from '../csv/refused.ts';
import type { Db } from '../database/client.ts';
import { enqueue, JOB_KEYS } from '../database/jobs.ts';
import type { Dataset } from '../settings/dataset.ts';
import type { Log } from '../settings/log.ts';
import { archive } from './complete.ts';
import { feedOf, inFlight, isBackfilling, knowledge, knownBytes } from './knowledge.ts';
import * as ledger from './ledger.ts';
import { NOTHING_KNOWN, stage } from './stage.ts';

interface FetchOptions {
  readonly mode: Mode;
  /** The job that fetches, for the ledger and for telling its own abandoned attempt from others' work. */
  readonly jobId: string;
  readonly signal: AbortSignal;
  readonly log: Log;
}

type FetchOutcome =
  | { readonly outcome: 'staged'; readonly snapshotId: string; readonly key: string }
  /** Looked, and nothing had to be loaded. */
  | { readonly outcome: 'nothing new' }
  /** Another snapshot is in flight: come back later. */
  | { readonly outcome: 'busy'; readonly with: string }
  /** Look again at once, in that mode. `decided`: this look has decided about a file, so the next one has one less. */
  | { readonly outcome: 'look again'; readonly mode: Mode; readonly decided: boolean; readonly reason: string };

/**
 * How often a file is listed and found replaced or gone when it is read, before it counts as failed: an export that is
 * being written again needs one more look, a server that lists what it no longer has would need them for ever.
 */
const MAX_READINGS = 3;

/** Asks for a look by a job; one that waits in the same mode is replaced. @param soFar what this request has used up already */
export async function requestLook(
  db: Db,
  dataset: string,
  mode: Mode,
  soFar: { readonly waits?: number; readonly looks?: number } = {},
  seconds = 0,
): Promise<void> {
  const payload = { dataset, force: mode === 'force', backfill: mode === 'backfill', ...soFar };
  await enqueue(db, 'fetch_snapshot', payload, { key: JOB_KEYS.fetch(dataset, mode), seconds });
}

/**
 * Looks at the dataset's folder and stages at most one snapshot.
 * @throws BucketError; database errors. A claim it leaves behind is put back by the job's next attempt.
 */
export async function fetchSnapshot(
  client: ClientBase,
  bucket: Bucket,
  dataset: Dataset,
  asked: FetchOptions,
): Promise<FetchOutcome> {
  // Of changes each file is needed: a look takes the oldest and comes back, as a backfill does.
  const isChanges = (await feedOf(client, dataset.name)) === 'changes';
  const options: FetchOptions = isChanges && asked.mode === 'newest' ? { ...asked, mode: 'backfill' } : asked;
  const current = await inFlight(client, dataset.name, options.jobId);
  if (current && !current.abandoned) {
    const { snapshot_id, source_key, status } = current;
    return { outcome: 'busy', with: `snapshot ${snapshot_id} (${source_key}), which is ${status}` };
  }
  if (current) await ledger.putBack(client, current.snapshot_id);
  // Taking the newest now would shut out for ever the files that the backfill has yet to load.
  if (options.mode === 'newest' && (await isBackfilling(client, dataset.name))) {
    return { outcome: 'busy', with: 'a backfill' };
  }

  const listing = await listSnapshots(bucket, dataset, options.mode, options.signal);
  const known = await knowledge(client, dataset.name, everyFile(listing));
  let outcome: FetchOutcome = { outcome: 'nothing new' };
  const steps = planLook(listing, known, options.mode);
  let archives = true;
  for (const step of steps) {
    // Where one cannot be moved the others seldom can, and each may take minutes to find out.
    if (step.action !== 'archive') outcome = await carryOut(step, client, bucket, dataset, options);
    else if (archives) archives = await tryToArchive(client, bucket, dataset.name, step.file, options.log);
  }
  if (outcome.outcome !== 'busy') await ledger.recordLook(client, dataset.name, whatWasSeen(listing, known, steps));
  return outcome;
}

async function carryOut(
  { action, file, reason }: Step,
  client: ClientBase,
  bucket: Bucket,
  dataset: Dataset,
  options: FetchOptions,
): Promise<FetchOutcome> {
  const { mode, log } = options;
  const look = { dataset: dataset.name, jobId: options.jobId, forced: mode === 'force', backfill: mode === 'backfill' };
  switch (action) {
    case 'postpone':
      await ledger.noteRefused(client, look, file, reason, {
        opensAt: new Date(file.snapshotAt.getTime() - CLOCK_TOLERANCE_MS),
      });
      log.warn({ key: file.key }, reason);
      break;
    case 'refuse':
      await ledger.noteRefused(client, look, file, reason, {});
      log.error({ key: file.key }, reason);
      break;
    case 'refuse late':
      await ledger.noteRefused(client, look, file, reason, { late: true });
      log.error({ key: file.key }, reason);
      break;
    case 'ignore':
      await ledger.noteRefused(client, look, file, reason, { ignored: true });
      log.warn({ key: file.key }, reason);
      break;
    case 'supersede':
      await ledger.noteSuperseded(client, look, file);
      break;
    case 'mark unchanged':
      return markUnchanged(client, bucket, look, file, { etag: file.etag }, options);
    case 'leave held':
      log.warn({ key: file.key }, `left alone: ${reason}`);
      break;
    case 'load':
      return load(client, bucket, dataset, look, file, options);
    case 'write off':
      await ledger.archived(client, dataset.name, file, null);
      break;
    case 'archive': // by fetchSnapshot
    case 'wait': // nothing to do yet
  }
  return { outcome: 'nothing new' };
}

async function load(
  client: ClientBase,
  bucket: Bucket,
  dataset: Dataset,
  look: ledger.Look,
  file: SnapshotFile,
  options: FetchOptions,
): Promise<FetchOutcome> {
  const { mode, log } = options;
  const known = mode === 'force' ? NOTHING_KNOWN : await knownBytes(client, dataset.name, file.snapshotAt);
  const claim = await ledger.claim(client, look, file, 'bucket');
  if (claim === 'busy') return { outcome: 'busy', with: 'another snapshot' };
  if (claim === 'stale') return lookAgain(mode, false, 'another file was loaded meanwhile');
  log.info({ snapshot: claim.snapshotId, key: file.key, bytes: file.size }, 'reading snapshot');
  try {
    const bytes = csvBytes(file.key, readObject(bucket, file, options.signal));
    const staged = await orRefusal(stage(client, dataset, claim, bytes, known));
    if (staged instanceof Refusal) {
      await ledger.fail(client, claim.snapshotId, staged.reason);
      log.error({ snapshot: claim.snapshotId, key: file.key }, staged.reason);
      return lookAgain(afterRefusal(mode), true, 'the file was refused');
    }
    if (staged === 'loading') return { outcome: 'staged', snapshotId: claim.snapshotId, key: file.key };
    if (staged === 'held') {
      log.warn({ snapshot: claim.snapshotId, key: file.key }, 'held: see tickets_ops.health');
      // A backfill has more files to load.
      return mode === 'backfill' ? lookAgain(mode, true, 'the file is held') : { outcome: 'nothing new' };
    }
    await ledger.putBack(client, claim.snapshotId);
    if (staged === 'held before') return { outcome: 'nothing new' };
    return await markUnchanged(client, bucket, look, file, { sha256: known.loaded ?? '' }, options);
  } catch (error) {
    if (!(error instanceof ObjectChangedError)) throw error;
    log.warn({ snapshot: claim.snapshotId, key: file.key }, error.message);
    if (claim.attempt < MAX_READINGS) {
      await ledger.putBack(client, claim.snapshotId);
      return lookAgain(mode, true, 'the file was replaced, or is gone, although it is listed');
    }
    await ledger.fail(client, claim.snapshotId, `It is listed and cannot be read: ${error.message}`);
    return lookAgain(afterRefusal(mode), true, 'the file is listed and cannot be read');
  }
}

/** By force the same file would be taken again. */
export const afterRefusal = (mode: Mode): Mode => (mode === 'force' ? 'newest' : mode);

const lookAgain = (mode: Mode, decided: boolean, reason: string): FetchOutcome => ({
  outcome: 'look again',
  mode,
  decided,
  reason,
});

/** The files that a look considers. Force also looks at archived ones: the file to load again usually lies there. */
export async function listSnapshots(
  bucket: Bucket,
  dataset: Dataset,
  mode: Mode,
  signal?: AbortSignal,
): Promise<Listing> {
  const folders = mode === 'force' ? [dataset.prefix, dataset.prefix + ARCHIVE_FOLDER] : [dataset.prefix];
  const objects = [];
  for (const folder of folders) objects.push(...(await listFolder(bucket, folder, signal)));
  return snapshotFiles(objects);
}

/** What a look does, by what the files are. */
export const planLook = (listing: Listing, known: Knowledge, mode: Mode): Step[] =>
  (known.feed === 'changes' ? planChanges : planSnapshots)(listing, known, mode);

/** Those that the ledger may know. */
export const everyFile = ({ files, ignored }: Listing): SnapshotFile[] => [
  ...files,
  ...ignored.map(({ file }) => file),
];

function whatWasSeen(listing: Listing, known: Knowledge, steps: readonly Step[]): ledger.Seen {
  const { files, ignored } = listing;
  return {
    files: files.length,
    others: ignored.length,
    anyNew: files.some((file) => !known.versions.has(versionOf(file))),
    waiting: steps.filter(({ action }) => action === 'wait').length,
    futureDated: steps.filter(({ action }) => action === 'postpone').map(({ file }) => file.key),
  };
}

async function markUnchanged(
  client: ClientBase,
  bucket: Bucket,
  look: ledger.Look,
  file: SnapshotFile,
  bytes: { readonly etag: string } | { readonly sha256: string },
  { mode, log }: FetchOptions,
): Promise<FetchOutcome> {
  if (!(await ledger.markUnchanged(client, look, file, bytes))) {
    return lookAgain(mode, false, 'another file was loaded meanwhile');
  }
  log.info({ key: file.key }, 'snapshot unchanged');
  await tryToArchive(client, bucket, look.dataset, file, log);
  // A backfill has more files to load.
  return mode === 'backfill' ? lookAgain(mode, true, 'the file is unchanged') : { outcome: 'nothing new' };
}

/** A folder that cannot be tidied must not keep newer tickets out: the next run tries again. @returns whether it was moved */
async function tryToArchive(
  client: ClientBase,
  bucket: Bucket,
  dataset: string,
  file: SnapshotFile,
  log: Log,
): Promise<boolean> {
  try {
    await archive(client, bucket, dataset, file, log);
    return true;
  } catch (error) {
    if (!(error instanceof BucketError)) throw error;
    log.error({ key: file.key }, `${error.message}; the next run tries again`);
    return false;
  }
}
