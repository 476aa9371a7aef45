/**
 * A look at the bucket is a plan: the listing, what the ledger knows and the database's clock go in, a list of steps with
 * their reasons comes out. Pure. fetch carries the steps out, once and in order; the dry run prints them.
 *
 * Rules: nothing below the high-water mark is loaded, not even by force. A file whose name is ahead of the clock waits until
 * its time has come. What failed is tried again by force only. At most one file is loaded by one plan.
 */
import { duration } from '../text/wording.ts';
import { comparePositions, type Listing, type Position, type SnapshotFile, versionOf } from './files.ts';

/** Status of a snapshot in the ledger; which may follow which is listed in tickets_ops.snapshot_transitions. */
export type LedgerStatus =
  | 'staging'
  | 'loading'
  | 'finalizing'
  | 'held'
  | 'done'
  | 'partial'
  | 'unchanged'
  | 'superseded'
  | 'failed';

/** newest: the scheduled run. backfill: the oldest first. force: also what was loaded, failed or unchanged before. */
export type Mode = 'newest' | 'backfill' | 'force';

/** What the ledger says of one version that it knows; the rules stand in migrations/fixtures/snapshots/ledger.sql. */
export interface KnownVersion {
  /** It may be loaded without force: it was passed over, or refused as future-dated and its time has come. */
  readonly isOpen: boolean;
  /** All that it holds is in the tickets, so that it is archived. */
  readonly isWhole: boolean;
  /** It is being loaded. */
  readonly inFlight: boolean;
}

/** snapshots: each file holds every ticket. changes: a baseline, then changed rows only. */
export type Feed = 'snapshots' | 'changes';

export interface Knowledge {
  /** The database's clock. */
  readonly now: Date;
  /** By `versionOf`. */
  readonly versions: ReadonlyMap<string, KnownVersion>;
  /** Loaded or unchanged, and not known to be archived: the worker that was to move it died before, while or after it did. */
  readonly unarchived: readonly SnapshotFile[];
  /** The newest version that has touched tickets. */
  readonly highWaterMark: Position | null;
  /** ETag of the last load, where that was whole and its cleaning rules are today's; equal bytes need not be read again. */
  readonly loadedEtag: string | null;
  /** What the files are (INC_FEED): changes are planned by changes.ts. */
  readonly feed: Feed;
  /** Of a feed of changes: the file that stops those behind it. */
  readonly blocker: Position | null;
  /** A snapshot that is held for a person, if any: a file of that time or later with its bytes is judged anew, or none is. */
  readonly held: { readonly etag: string; readonly judgedAgainAt: Date | null } | null;
}

export type Action =
  /** Loaded or unchanged, but another version stands at its key now: of it there is nothing left to move. */
  | 'write off'
  /** Loaded or unchanged, but still in the folder, or nobody wrote down that it was moved: its archiving is pending. */
  | 'archive'
  /** Future-dated: looked at again when its time has come. */
  | 'postpone'
  /** No CSV: recorded as failed, with the reason. */
  | 'ignore'
  /** Of a feed of changes: empty, and so lost unless it is mended. Recorded as failed, with the reason; it stops those behind it. */
  | 'refuse'
  /** Of a feed of changes: older than what is loaded. Recorded as failed, with the reason. */
  | 'refuse late'
  /** Of a feed of changes: not touched before its turn. */
  | 'wait'
  /** Recorded as passed over for a newer one. */
  | 'supersede'
  /** The bytes are those of the last load: recorded, and archived. */
  | 'mark unchanged'
  /** The bytes are those of a held snapshot: left alone until a person decides, or tickets_ops.hold_time() has passed. */
  | 'leave held'
  | 'load';

export interface Step {
  readonly action: Action;
  readonly file: SnapshotFile;
  /** Why, in words for people. */
  readonly reason: string;
}

/** Clocks of exporter and database may differ by this much; tickets_ops.clock_tolerance() in SQL. */
export const CLOCK_TOLERANCE_MS = 15 * 60_000;

/** Whether a time is ahead of the clock by more than clocks differ. */
export const isFutureDated = (snapshotAt: Date, now: Date) => snapshotAt.getTime() > now.getTime() + CLOCK_TOLERANCE_MS;

export const futureDatedReason = (snapshotAt: Date, now: Date) =>
  `It is future-dated: its time is ${snapshotAt.toISOString()}, ${duration((snapshotAt.getTime() - now.getTime()) / 1_000)} ahead of the database's clock. ` +
  'Loading it would shut out every file until then, so it is refused until its time has come. If the name is wrong, rename it.';

/**
 * What to do about these files, each of which holds every ticket, in this order; the file to load or to mark unchanged comes last.
 * @param listing as `snapshotFiles` sorts it; by force with the archive's files
 */
export function planSnapshots({ files, ignored }: Listing, known: Knowledge, mode: Mode): Step[] {
  const isBelow = (file: SnapshotFile) =>
    known.highWaterMark !== null && comparePositions(file, known.highWaterMark) < 0;

  const present = files.filter((file) => !isFutureDated(file.snapshotAt, known.now));
  const futureDated = files.filter((file) => isFutureDated(file.snapshotAt, known.now));
  const eligible = present.filter((file) => (mode === 'force' || isOpen(file, known)) && !isBelow(file));
  const taken = mode === 'backfill' ? eligible[0] : eligible.at(-1);
  // A backfill comes back for those that are newer than what it takes now; force looks through the archive as well.
  const passedOver = present.filter(
    (file) => isUnknown(file, known) && file !== taken && (mode === 'newest' || (mode === 'backfill' && isBelow(file))),
  );

  return [
    ...archive(present, taken, known),
    ...futureDated.map((file) => step('postpone', file, futureDatedReason(file.snapshotAt, known.now))),
    ...ignored.filter(({ file }) => isUnknown(file, known)).map(({ file, reason }) => step('ignore', file, reason)),
    ...passedOver.map((file) => step('supersede', file, whyPassedOver(file, taken, known.highWaterMark))),
    ...(taken ? [take(taken, known, mode)] : []),
  ];
}

/** No look has written anything down of this version. */
export const isUnknown = (file: SnapshotFile, { versions }: Knowledge) => !versions.has(versionOf(file));

/** Whether a version may be loaded without force. */
export const isOpen = (file: SnapshotFile, { versions }: Knowledge) => versions.get(versionOf(file))?.isOpen ?? true;

/** What is loaded or unchanged and still lies here, and what is gone from here though nobody wrote down that it was moved. */
export function archive(here: readonly SnapshotFile[], taken: SnapshotFile | undefined, known: Knowledge): Step[] {
  const isWhole = (file: SnapshotFile) => known.versions.get(versionOf(file))?.isWhole ?? false;
  const versions = new Set(here.map(versionOf));
  const keys = new Set(here.map(({ key }) => key));
  const gone = known.unarchived.filter((file) => !versions.has(versionOf(file)));
  return [
    ...[...here.filter(isWhole), ...gone.filter(({ key }) => !keys.has(key))]
      .filter((file) => file !== taken)
      .map((file) => step('archive', file, 'it is loaded, and its archiving was cut off')),
    ...gone
      .filter(({ key }) => keys.has(key))
      .map((file) => step('write off', file, 'it was loaded, and another version stands at its key now')),
  ];
}

export const step = (action: Action, file: SnapshotFile, reason: string): Step => ({ action, file, reason });

function whyPassedOver(file: SnapshotFile, taken: SnapshotFile | undefined, mark: Position | null): string {
  if (mark !== null && comparePositions(file, mark) < 0) return `${mark.key} is loaded, and is newer`;
  return taken ? `${taken.key} is newer` : 'a newer one was looked at';
}

export function take(file: SnapshotFile, known: Knowledge, mode: Mode): Step {
  // Some servers list no ETag: then only reading the file can tell.
  if (file.etag !== '' && mode !== 'force') {
    if (file.etag === known.loadedEtag) return step('mark unchanged', file, 'it has the ETag of the last load');
    const { etag, judgedAgainAt = null } = known.held ?? {};
    if (file.etag === etag && (judgedAgainAt === null || file.snapshotAt < judgedAgainAt))
      return step('leave held', file, 'it has the ETag of the snapshot that is held for a person to decide');
  }
  const reasons: Record<Mode, string> = {
    newest: 'it is the newest that is not loaded',
    backfill: 'it is the oldest that is not loaded',
    force: 'it is asked for by force',
  };
  return step('load', file, reasons[mode]);
}
