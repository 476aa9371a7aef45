/**
 * A plan for a feed of changes: every file is needed, in its order, so the oldest that the ledger does not know is taken, and
 * nothing is passed over, not even by force. A file that failed or is empty, is held, or was loaded only in part stops those behind it, until another version
 * of it comes or a person gives it up (tickets_ops.skip_file). Pure.
 */
import { isArchived } from './archive.ts';
import { comparePositions, isCsv, type Listing, type Position, type SnapshotFile, versionOf } from './files.ts';
import {
  archive,
  futureDatedReason,
  isFutureDated,
  isOpen,
  isUnknown,
  type Knowledge,
  type Mode,
  type Step,
  step,
  take,
} from './plan.ts';

/** What to do about these files, in this order; the file to load or to mark unchanged comes last. */
export function planChanges({ files, ignored }: Listing, known: Knowledge, mode: Mode): Step[] {
  const mark = known.highWaterMark;
  const isLate = (file: SnapshotFile) => mark !== null && comparePositions(file, mark) < 0;

  const present = files.filter((file) => !isFutureDated(file.snapshotAt, known.now));
  const here = present.filter((file) => !isArchived(file.key));
  const due = here.filter((file) => isOpen(file, known) && !isLate(file));
  const others = ignored.filter(({ file }) => isUnknown(file, known));
  const empty = others.filter(
    ({ file }) => isCsv(file) && !isArchived(file.key) && !isLate(file) && !isFutureDated(file.snapshotAt, known.now),
  );
  const blocker = [...(known.blocker ? [known.blocker] : []), ...empty.map(({ file }) => file)].sort(
    comparePositions,
  )[0];
  // By force also the one that stops the others, in its place among those that are due.
  const first = here.find(
    (file) => due.includes(file) || (mode === 'force' && file.key === blocker?.key && !isLate(file)),
  );
  const isFree = !here.some((file) => known.versions.get(versionOf(file))?.inFlight);
  const next = first && isFree && !waits(first, blocker) ? first : undefined;
  const nothingWaits = due.length === 0 && blocker === undefined;
  const taken = next ?? (mode === 'force' && nothingWaits ? present.filter((file) => !isLate(file)).at(-1) : undefined);

  return [
    ...archive(here, taken, known),
    ...files
      .filter((file) => isFutureDated(file.snapshotAt, known.now))
      .map((file) => step('postpone', file, futureDatedReason(file.snapshotAt, known.now))),
    ...others.map((other) => step(empty.includes(other) ? 'refuse' : 'ignore', other.file, other.reason)),
    ...here
      .filter((file) => isUnknown(file, known) && isLate(file))
      .map((file) =>
        step('refuse late', file, `${mark?.key} is loaded, and is newer: loading it now would undo changes.`),
      ),
    ...due
      .filter((file) => file !== taken)
      .map((file) => step('wait', file, `it comes after ${(taken ?? blocker ?? due[0])?.key}`)),
    ...(taken ? [take(taken, known, mode === 'force' ? 'force' : 'backfill')] : []),
  ];
}

/** Another version of the file that stops the others is its cure. */
function waits(file: SnapshotFile, blocker: Position | undefined): boolean {
  return blocker !== undefined && file.key !== blocker.key && comparePositions(file, blocker) > 0;
}
