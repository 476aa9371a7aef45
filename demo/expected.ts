/**
 * What a right load of the feed must arrive at, computed from the contract alone (cleaning, upsert, history), without the pipeline's code:
 * tests and the demo compare the database with it.
 */
import type { Raw, Ticket } from './ticket.ts';

/** Counts as in tickets_ops.snapshots, for loading this file after those before it. */
export type Expected = {
  /** The same bytes as the file before: the pipeline need not load it. The counts are those of a forced load. */
  identical: boolean;
  rows_read: number;
  rows_inserted: number;
  rows_updated: number;
  rows_unchanged: number;
  rows_dropped_alarm: number;
  rows_dropped_sentinel: number;
  rows_duplicate: number;
  rows_rejected: number;
  /** Rows of the file that hold a NUL or an invalid byte. */
  rows_repaired: number;
  /** Open tickets that the file does not list. */
  open_missing: number;
  /** Line on which each rejected record begins. */
  rejects: { line: number; reason: 'field count' | 'no ticket_id' }[];
  /** New tickets are opened or closed; one that closes or reopens usually changes its status as well. */
  events: Record<EventName, number>;
};

type EventName = 'opened' | 'closed' | 'reopened' | 'status_changed' | 'team_changed' | 'cluster_changed';

/** Stands for a byte that is no UTF-8, until the text becomes bytes. */
export const badByte = '\ue000';

/** Loads the listed tickets as the contract says, and counts them; what else stands in the file, the file's writer counts. */
export function load(listed: ReadonlyMap<string, Ticket>, loaded: Map<string, Raw>): Expected {
  const expected = nothing();
  for (const [id, { raw }] of listed) {
    const before = loaded.get(id);
    const after = cleaned(raw);
    if (raw.description?.includes('\0') || raw.description?.includes(badByte)) expected.rows_repaired++;
    if (before && Object.keys(after).every((key) => after[key] === before[key])) {
      expected.rows_unchanged++;
      continue;
    }
    expected[before ? 'rows_updated' : 'rows_inserted']++;
    for (const event of events(before, after)) expected.events[event]++;
    loaded.set(id, after);
  }
  for (const [id, raw] of loaded) if (raw.is_actionable === 'true' && !listed.has(id)) expected.open_missing++;
  return expected;
}

function events(before: Raw | undefined, after: Raw): EventName[] {
  const open = after.is_actionable === 'true';
  if (!before) return [open ? 'opened' : 'closed'];
  const found: EventName[] = [];
  if (before.is_actionable !== after.is_actionable) found.push(open ? 'reopened' : 'closed');
  if (before.normalized_status !== after.normalized_status) found.push('status_changed');
  if (before.assigned_team !== after.assigned_team) found.push('team_changed');
  if (before.cluster !== after.cluster) found.push('cluster_changed');
  return found;
}

const dropped = 'week_start week_end source_s3_bucket source_s3_key source_snapshot_id department source_type'.split(
  ' ',
);

function cleaned(raw: Raw): Raw {
  const fields = Object.entries(raw).filter(([name]) => !dropped.includes(name));
  const whole = Object.fromEntries(
    fields.map(([name, value]) => [name, value.replaceAll('\0', '\ufffd').replaceAll(badByte, '\ufffd')]),
  );
  return { ...whole, region: whole.region?.toLowerCase() ?? '', raw_status: whole.raw_status?.toUpperCase() ?? '' };
}

function nothing(): Expected {
  return {
    identical: false,
    rows_read: 0,
    rows_inserted: 0,
    rows_updated: 0,
    rows_unchanged: 0,
    rows_dropped_alarm: 0,
    rows_dropped_sentinel: 0,
    rows_duplicate: 0,
    rows_rejected: 0,
    rows_repaired: 0,
    open_missing: 0,
    rejects: [],
    events: noEvents(),
  };
}

function noEvents(): Record<EventName, number> {
  return { opened: 0, closed: 0, reopened: 0, status_changed: 0, team_changed: 0, cluster_changed: 0 };
}

/** What a forced load of the same bytes finds. */
export function again(expected: Expected): Expected {
  const rows_unchanged = expected.rows_inserted + expected.rows_updated + expected.rows_unchanged;
  return { ...expected, identical: true, rows_inserted: 0, rows_updated: 0, rows_unchanged, events: noEvents() };
}
