/**
 * What every statement begins with that stages rows: it says how far the reading is, and writes nothing once another attempt
 * has taken over.
 */
import type { Counts } from '../csv/chunks.ts';
import { type Claim, FENCE } from './ledger.ts';

/** Of the rows that are staged so far. */
export interface Totals extends Counts {
  /** Rejects that were written with their text. */
  rejectsKept: number;
}

/** SQL: `fenced` has one row while the claim holds. The statement's first parameters are progress(); it selects from `unflushed`. */
export const FENCED = `
  unflushed as (
    -- Nobody waits for the disk here: the sealing transaction does, for everything before it.
    select set_config('synchronous_commit', 'off', true) as setting
  ),
  fenced as (
    update tickets_ops.snapshots
    set progress_at = clock_timestamp(), rows_read = $3, rows_dropped_alarm = $4, rows_dropped_sentinel = $5,
      rows_rejected = $6, rows_repaired = $7
    where ${FENCE}
    returning snapshot_id
  )`;

export const progress = ({ snapshotId, attempt }: Claim, { read, alarms, sentinels, rejected, repaired }: Totals) => [
  snapshotId,
  attempt,
  read,
  alarms,
  sentinels,
  rejected,
  repaired,
];

/** SQL: of two lines of one ticket the later one stays, in whichever order they are staged. */
export const LATER_LINE = `
  on conflict (snapshot_id, ticket_id) do update
    set line = excluded.line, digest = excluded.digest, figures = excluded.figures, raw = excluded.raw
    where snapshot_rows.line < excluded.line`;
