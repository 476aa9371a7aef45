/**
 * Suspicion: what a file's figures say about it as a whole, compared with the last load. Pure; staging and the dry run ask
 * it the same. A file of which nearly nothing can be loaded is refused; one that would destroy the state is held for a
 * person; one that is odd is loaded with a warning. Normal days must not warn: content comes in daily lumps, so many tickets
 * may close at once, and columns that are filled for a part of the tickets waver.
 */
import type { Feed } from '../bucket/plan.ts';
import type { Counts, FirstReject } from '../csv/chunks.ts';
import { escapedText } from '../csv/text.ts';
import type { Values } from '../csv/values.ts';
import { listed, shortened } from '../text/wording.ts';

/** Figures of a whole file; kept in the ledger for judging the next one. */
export interface Figures {
  /** Rows that are left after alarms and sentinels. */
  readonly rows: number;
  readonly rejected: number;
  /** Rows that can be loaded; an id that stands twice counts twice. */
  readonly tickets: number;
  /** Ids of the tickets, each once. */
  readonly ids: number;
  /** Tickets with a NUL or an invalid byte, each of which became U+FFFD. */
  readonly repaired: number;
  readonly columns: readonly string[];
  /** Of the tickets, by counted column. */
  readonly values: Readonly<Record<string, Values>>;
}

/** What reading a file to its end, or to where it breaks off, gave. */
export interface Reading {
  readonly counts: Readonly<Counts>;
  readonly columns: readonly string[];
  readonly values: Readonly<Record<string, Values>>;
  readonly firstReject: FirstReject | undefined;
  readonly brokenOff: string | undefined;
}

/** What a file is compared with. */
export interface Comparison {
  readonly dataset: string;
  /** What the files are. One of changes has as many rows as there are changes, none included. */
  readonly feed: Feed;
  /** The last whole load; null before the first. */
  readonly last: Figures | null;
  /** Ids of this file that have a ticket already. */
  readonly known: number;
  /** Open tickets, and those of them that this file closes. */
  readonly open: number;
  readonly closing: number;
  /** Hours since the tickets were last known to be up to date, by the clock or by the files' own times. */
  readonly hoursSinceLoad: number | null;
  /** Time of this file. */
  readonly snapshotAt: Date;
  /** Time of the first file that was held for the same closings; null when none is. */
  readonly heldSince: Date | null;
  /** A file so much later that shows them too is believed (tickets_ops.hold_time). */
  readonly holdMs: number;
}

export type Verdict =
  | { readonly verdict: 'load'; readonly warnings: readonly string[] }
  /** `since`: time of the first file that showed the same closings; null where only a person can release it. */
  | {
      readonly verdict: 'hold';
      readonly reason: string;
      readonly since: Date | null;
      readonly warnings: readonly string[];
    }
  | { readonly verdict: 'refuse'; readonly reason: string };

/** Without these no ticket can be told open from closed, or its state be read. */
const VITAL_COLUMNS = ['is_actionable', 'normalized_status'];
/** Of the tickets: a vital column of which fewer values read is as good as gone, if of more than the second they did. */
const NEARLY_NONE = 0.05;
const MOST = 0.5;
const MAX_CLOSING_SHARE = 0.8;
/** So many may close whatever their share. */
const MAX_CLOSING = 50;
const OUTAGE_HOURS = 24;
const MAX_REJECTED_SHARE = 0.5;
export const MANY_REJECTED_SHARE = 0.02;
export const FEW_ROWS_SHARE = 0.6;
/** So many tickets of the last load may be missing whatever their share. */
const MAX_MISSING = 50;
/** So few rows are more like what changed in an hour. */
const CHANGES_SHARE = 0.2;
/** A column reads far fewer values: half of the share it had, or so much more of what stands there is unreadable. */
const HALF = 0.5;
const UNREADABLE_SHARE = 0.2;
const MANY_REPAIRED_SHARE = 0.02;
/** Fewer values than these are chance. */
const FEW_VALUES = 5;

export const figuresOf = ({ counts, columns, values }: Reading): Figures => {
  const rows = counts.read - counts.alarms - counts.sentinels;
  const tickets = rows - counts.rejected;
  const { rejected, duplicates, repaired } = counts;
  return { rows, rejected, tickets, ids: tickets - duplicates, repaired, columns, values };
};

/** @param onSuspect what is done with a file that would be held (ON_SUSPECT_SNAPSHOT) */
export function judge(reading: Reading, compared: Comparison, onSuspect: 'hold' | 'load'): Verdict {
  const figures = figuresOf(reading);
  const refusal = whyRefused(figures, reading, compared);
  if (refusal !== undefined) return { verdict: 'refuse', reason: refusal };

  const oddities = compared.last === null ? [] : comparedWith(compared.last, figures, compared);
  const vital = compared.last === null ? [] : lostVitalColumns(compared.last, figures);
  const closings = whyClosingsHold(compared);
  const grounds = [...vital, ...(closings ? [closings] : [])];
  if (grounds.length === 0) return { verdict: 'load', warnings: oddities };

  const reason = grounds.join(' ');
  const waiver = vital.length > 0 ? undefined : whyClosingsPass(compared);
  if (waiver !== undefined) return { verdict: 'load', warnings: [`${reason} ${waiver}`, ...oddities] };
  if (onSuspect === 'load') {
    return { verdict: 'load', warnings: [`${reason} It is loaded because ON_SUSPECT_SNAPSHOT says so.`, ...oddities] };
  }
  const { snapshotAt, heldSince } = compared;
  return { verdict: 'hold', reason, since: vital.length === 0 ? (heldSince ?? snapshotAt) : null, warnings: oddities };
}

function whyRefused(
  { rows, rejected, tickets }: Figures,
  { counts, firstReject, brokenOff }: Reading,
  { last, feed }: Comparison,
): string | undefined {
  if (rows === 0) {
    if (brokenOff !== undefined) return `Nothing of it can be loaded. ${brokenOff}`;
    if (last?.rows === 0 || (feed === 'changes' && last !== null)) return undefined;
    const others = [some(counts.alarms, 'alarm'), some(counts.sentinels, 'sentinel')].filter((text) => text !== '');
    const besides = others.length > 0 ? `, besides ${others.join(' and ')}` : '';
    return `It has a header and no rows${besides}${last ? `, and the last load had ${last.rows}` : ''}.`;
  }
  if (tickets > 0 && rejected <= MAX_REJECTED_SHARE * rows) return undefined;
  const which =
    tickets === 0 ? `None of its ${rows} rows can be loaded` : `${rejected} of its ${rows} rows cannot be loaded`;
  const { reason = '', count = 0, line = 0 } = firstReject ?? {};
  return `${which}: ${reason} (${count} times, first on line ${line}).${brokenOff ? ` ${brokenOff}` : ''}`;
}

function lostVitalColumns(last: Figures, now: Figures): string[] {
  return VITAL_COLUMNS.flatMap((column) => {
    const before = shareRead(last, column);
    if (before < MOST || now.tickets === 0) return [];
    const had = `in the last load ${percent(before)} of its values read`;
    if (!now.columns.includes(column)) return [`The column ${column} is gone; ${had}.`];
    const share = shareRead(now, column);
    return share < NEARLY_NONE && now.tickets >= FEW_VALUES
      ? [`Of ${column} ${percent(share)} of the values read; ${had}.`]
      : [];
  });
}

function whyClosingsHold({ open, closing }: Comparison): string | undefined {
  return closing > MAX_CLOSING && closing > MAX_CLOSING_SHARE * open
    ? `It closes ${closing} of ${open} open tickets (${percent(closing / open)}).`
    : undefined;
}

function whyClosingsPass({ hoursSinceLoad, snapshotAt, heldSince, holdMs }: Comparison): string | undefined {
  if (hoursSinceLoad !== null && hoursSinceLoad > OUTAGE_HOURS) {
    return `It is loaded because the last load was ${Math.floor(hoursSinceLoad)} hours before it.`;
  }
  if (heldSince === null) return undefined;
  const heldMs = snapshotAt.getTime() - heldSince.getTime();
  return heldMs < holdMs
    ? undefined
    : `It is loaded because a file ${Math.floor(heldMs / 60_000)} minutes before it showed the same.`;
}

function comparedWith(last: Figures, now: Figures, { dataset, feed, known }: Comparison): string[] {
  const gone = last.columns.filter((name) => !now.columns.includes(name));
  const fresh = now.columns.filter((name) => !last.columns.includes(name));
  return [
    ...(feed === 'snapshots' && now.rows < FEW_ROWS_SHARE * last.rows
      ? [
          `It has ${now.rows} rows, ${percent(now.rows / last.rows)} of the ${last.rows} of the last load.${now.rows < CHANGES_SHARE * last.rows ? ` It looks like a file of changes: ${dataset.toUpperCase()}_FEED?` : ''}`,
        ]
      : whyUnknown(last, now, feed, known)),
    ...(gone.length > 0
      ? [
          `${some(gone.length, 'column')} of the last load ${gone.length === 1 ? 'is' : 'are'} gone: ${listedNames(gone)}.`,
        ]
      : []),
    ...(fresh.length > 0
      ? [`${some(fresh.length, 'column')} ${fresh.length === 1 ? 'is' : 'are'} new: ${listedNames(fresh)}.`]
      : []),
    ...whyRepaired(last, now),
    ...Object.keys(now.values).flatMap((column) => whyFewerRead(column, last, now, feed)),
  ];
}

/** As many rows as before, and other tickets: ids that a spreadsheet has rounded, or a column that has moved. */
function whyUnknown(last: Figures, now: Figures, feed: Feed, known: number): string[] {
  return feed === 'snapshots' && known < FEW_ROWS_SHARE * last.ids && last.ids - known > MAX_MISSING
    ? [
        `Of its ${some(now.ids, 'ticket')} ${known} were known, and the last load had ${last.ids}. Have the ids changed?`,
      ]
    : [];
}

/** A few bytes are spoilt every day; so many, and more than before, are of another encoding. */
function whyRepaired(last: Figures, now: Figures): string[] {
  const share = now.repaired / (now.tickets || 1);
  return now.repaired >= FEW_VALUES && share > MANY_REPAIRED_SHARE && share > 2 * (last.repaired / (last.tickets || 1))
    ? [
        `${now.repaired} of ${now.tickets} tickets have bytes that are no UTF-8, or NULs, which became U+FFFD; in the last load ${last.repaired} of ${last.tickets} had. Is it in another encoding?`,
      ]
    : [];
}

function whyFewerRead(column: string, last: Figures, now: Figures, feed: Feed): string[] {
  const before = last.values[column];
  const { filled, read } = now.values[column] ?? { filled: 0, read: 0 };
  if (!before || now.tickets === 0) return [];
  const unreadable = (filled - read) / (filled || 1) - (before.filled - before.read) / (before.filled || 1);
  if (unreadable > UNREADABLE_SHARE && filled - read >= FEW_VALUES) {
    return [
      `Of ${column} ${filled - read} of ${filled} values do not read; in the last load ${before.filled - before.read} of ${before.filled} did not.`,
    ];
  }
  const expected = shareRead(last, column) * now.tickets;
  // What changes is no sample of all.
  return feed === 'snapshots' && read < HALF * expected && expected - read >= FEW_VALUES
    ? [
        `Of ${column} ${read} of ${now.tickets} tickets have a value that reads; in the last load ${before.read} of ${last.tickets} had.`,
      ]
    : [];
}

/** A warning where many rows were rejected; asked once a snapshot is complete, when the database has refused its own too. */
export function manyRejected(rows: number, rejected: number): string | undefined {
  return rejected > MANY_REJECTED_SHARE * rows
    ? `${rejected} of ${rows} rows are rejected (${percent(rejected / rows)}): see tickets_ops.snapshot_rejects.`
    : undefined;
}

const shareRead = ({ tickets, values }: Figures, column: string) => (values[column]?.read ?? 0) / (tickets || 1);

const percent = (share: number) => `${share > 0 && share < 0.1 ? (100 * share).toFixed(1) : Math.round(100 * share)} %`;

const some = (count: number, what: string) => (count === 0 ? '' : `${count} ${what}${count === 1 ? '' : 's'}`);

/** Names come from the file: they are shown escaped, and not all of a thousand. */
const listedNames = (names: readonly string[]) =>
  listed(
    names.map((name) => escapedText(shortened(name, 60))),
    10,
  );
