/**
 * Choosing the file: which snapshot of a listing is loaded, which are passed over, which only wait to be archived.
 * Pure: the listing and what the ledger knows go in, a decision comes out. Time never runs backwards: nothing older
 * than what was loaded is ever chosen, not even by force.
 */
import type { BucketObject } from './s3.ts';

export interface Candidate extends BucketObject {
  /** The export's time: from the name, read as East Africa Time (UTC+3, no daylight saving), else LastModified. */
  readonly snapshotAt: Date;
}

export type LedgerStatus =
  | 'staging'
  | 'loading'
  | 'finalizing'
  | 'done'
  | 'partial'
  | 'unchanged'
  | 'superseded'
  | 'failed';

export interface Knowledge {
  /** Status in the ledger of a version of a file (`versionOf`). */
  readonly looked: ReadonlyMap<string, LedgerStatus>;
  /** Export time of the newest snapshot that has touched tickets. */
  readonly loadedThrough: Date | null;
  readonly now: Date;
}

export interface Choice {
  readonly take: Candidate | undefined;
  /** Valid snapshots that are passed over for a newer one, oldest first. */
  readonly superseded: readonly Candidate[];
  /** Loaded or unchanged, but still lying in the folder: their archiving was cut off. */
  readonly unarchived: readonly Candidate[];
  /** Files whose name claims a time in the future: loading one would shut out every real one after it. */
  readonly fromTheFuture: readonly Candidate[];
}

/** newest: the scheduled run. backfill: the oldest first. force: also what was loaded, failed or unchanged before. */
export type Mode = 'newest' | 'backfill' | 'force';

/** Clocks of exporter and database may differ by this much. */
const CLOCK_TOLERANCE_MS = 24 * 3_600_000;

export const versionOf = (key: string, etag: string) => `${key}\n${etag}`;

/**
 * The time in a file name `YYYY-MM-DDTHH-MM-SS.csv`, which is East Africa Time.
 * @returns undefined when the name holds no valid time
 */
export function timeInName(key: string): Date | undefined {
  const match = /(?:^|\/)(\d{4}-\d\d-\d\d)T(\d\d)-(\d\d)-(\d\d)[^/]*\.csv$/i.exec(key);
  if (!match) return undefined;
  const [, day, hour, minute, second] = match;
  const local = `${day}T${hour}:${minute}:${second}`;
  const time = new Date(`${local}+03:00`);
  // JavaScript turns 31 February into March; a name that does not survive the round trip holds no time.
  const roundTrip = Number.isNaN(time.getTime()) ? '' : new Date(time.getTime() + 3 * 3_600_000).toISOString();
  return roundTrip.startsWith(local) ? time : undefined;
}

/** Objects that are snapshots: CSV files that are not empty. */
export function candidates(objects: readonly BucketObject[]): Candidate[] {
  return objects
    .filter((object) => /\.csv$/i.test(object.key) && object.size > 0)
    .map((object) => ({ ...object, snapshotAt: timeInName(object.key) ?? object.lastModified }))
    .sort(
      (a, b) =>
        a.snapshotAt.getTime() - b.snapshotAt.getTime() ||
        a.lastModified.getTime() - b.lastModified.getTime() ||
        (a.key < b.key ? -1 : 1),
    );
}

/** @param listing sorted as `candidates` gives it */
export function choose(listing: readonly Candidate[], known: Knowledge, mode: Mode): Choice {
  const status = (file: Candidate) => known.looked.get(versionOf(file.key, file.etag));
  const isFuture = (file: Candidate) => file.snapshotAt.getTime() > known.now.getTime() + CLOCK_TOLERANCE_MS;
  const isOlder = (file: Candidate) => known.loadedThrough !== null && file.snapshotAt < known.loadedThrough;
  const isOpen = (file: Candidate) => mode === 'force' || [undefined, 'superseded'].includes(status(file));

  const present = listing.filter((file) => !isFuture(file));
  const eligible = present.filter((file) => isOpen(file) && !isOlder(file));
  const take = mode === 'backfill' ? eligible[0] : eligible.at(-1);
  const isNew = (file: Candidate) => status(file) === undefined && file !== take;
  return {
    take,
    // A backfill comes back for those that are newer than what it takes now; force looks through the archive as well.
    superseded: present.filter((file) => isNew(file) && (mode === 'newest' || (mode === 'backfill' && isOlder(file)))),
    unarchived: present.filter((file) => file !== take && ['done', 'unchanged'].includes(status(file) ?? '')),
    fromTheFuture: listing.filter((file) => isFuture(file) && status(file) === undefined),
  };
}
