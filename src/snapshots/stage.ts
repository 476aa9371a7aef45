/**
 * Staging: the rows of a file go to tickets_ops.snapshot_rows while they arrive; then they are committed (commit.ts).
 * No transaction is open while the network is awaited. Of a row that equals its ticket only a digest is sent, and only its
 * id is kept; the duplicate of a row replaces the earlier line.
 */
import { hash } from 'node:crypto';
import type { ClientBase } from 'pg';
import { addCounts, type Chunk, type Counts, noCounts, rowsAsJson, type TicketRow } from '../csv/chunks.ts';
import { readTicketCsv } from '../csv/records.ts';
import type { Db } from '../database/client.ts';
import type { Dataset } from '../settings/dataset.ts';
import { commitStaging } from './commit.ts';
import { type Claim, claimLost, FENCE } from './ledger.ts';

interface Totals extends Counts {
  /** Rejects that were written with their text. */
  rejectsKept: number;
  /** Whether the chunk before held rows that equal their tickets. */
  unchangedLately: boolean;
}

/** The beginning of each statement while rows arrive; its parameters are progress(). */
const FENCED = `
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

const progress = ({ snapshotId, attempt }: Claim, { read, alarms, sentinels, rejected, repaired }: Totals) => [
  snapshotId,
  attempt,
  read,
  alarms,
  sentinels,
  rejected,
  repaired,
];

/** Bytes that need not be loaded: SHA-256 of those of the last load, and of those that a held snapshot has. */
export interface KnownBytes {
  readonly loaded: string | null;
  readonly held: string | null;
}

/** Of a file that is loaded whatever its bytes are. */
export const NOTHING_KNOWN: KnownBytes = { loaded: null, held: null };

/** What became of a claimed snapshot: it is loading, or held; or nothing was staged, since its bytes are known. */
type Staged = 'loading' | 'held' | 'loaded before' | 'held before';

/**
 * Stages a claimed snapshot.
 * @param bytes the file
 * @param known the same bytes under another ETag are not staged again; the caller decides what becomes of the claim
 * @throws RefusedFileError, also where too little of it can be loaded; ClaimLostError when another attempt took over;
 * whatever `bytes` throws
 */
export async function stage(
  client: ClientBase,
  dataset: Dataset,
  claim: Claim,
  bytes: AsyncIterable<Buffer>,
  known: KnownBytes,
): Promise<Staged> {
  const totals: Totals = { ...noCounts(), rejectsKept: 0, unchangedLately: true };
  const chunks = readTicketCsv(bytes);
  // While a chunk is written, one waits and the next is parsed: neither Postgres nor the parser is ever idle.
  let written: Promise<void> = Promise.resolve();
  let writing = written;
  for (;;) {
    const next = await chunks.next().catch(async (error: unknown) => {
      await writing.catch(() => undefined); // the reading failed first, and its error is the one to report
      throw error;
    });
    await written;
    if (next.done) {
      await writing;
      const { sha256, ...reading } = next.value;
      if (reading.brokenOff === undefined && sha256 === known.loaded) return 'loaded before';
      if (reading.brokenOff === undefined && sha256 === known.held) return 'held before';
      const { rejectsKept, unchangedLately: _, ...counts } = totals;
      return commitStaging(client, dataset, claim, { ...reading, counts }, { sha256, rejectsKept });
    }
    written = writing;
    writing = written.then(() => writeChunk(client, dataset, claim, next.value, totals));
    // Awaited above; without this a failure before then would end the process as an unhandled rejection.
    writing.catch(() => undefined);
    // It is written before the next is read: two would not fit.
    if (next.value.isLarge) await writing;
  }
}

async function writeChunk(db: Db, dataset: Dataset, claim: Claim, chunk: Chunk, totals: Totals): Promise<void> {
  if (chunk.counts.read === 0) return;
  addCounts(totals, chunk.counts);
  totals.rejectsKept += chunk.rejects.length;
  // Where no row of the chunk before was known, digests would only come on top of the rows.
  const digest = totals.unchangedLately && chunk.rows.length > 0;
  const rows = digest ? await stageUnchanged(db, dataset, claim, chunk.rows, totals) : chunk.rows;
  if (digest && rows.length === 0 && chunk.rejects.length === 0) return;
  const result = await db.query<{ is_ours: boolean; duplicates: number; unchanged: number }>(
    `with ${FENCED},
     rejected as (
       insert into tickets_ops.snapshot_rejects (snapshot_id, line, reason, row_text)
       select fenced.snapshot_id, r.line, r.reason, r.text
       from fenced, jsonb_to_recordset($9) as r (line bigint, reason text, text text)
     ),
     staged as (
       insert into tickets_ops.snapshot_rows (snapshot_id, ticket_id, line, raw)
       select fenced.snapshot_id, r.ticket_id, r.line, case when t.raw is distinct from r.raw then r.raw end
       from fenced, jsonb_to_recordset($8) as r (line bigint, ticket_id text, raw jsonb)
       left join tickets.${dataset.name} t on t.ticket_id = r.ticket_id -- primary key
       on conflict (snapshot_id, ticket_id) do update set line = excluded.line, raw = excluded.raw
       returning xmax <> 0 as is_duplicate, raw is null as is_unchanged
     )
     select exists (select from fenced) as is_ours, (select count(*)::int from staged where is_duplicate) as duplicates,
       (select count(*)::int from staged where is_unchanged) as unchanged
     from unflushed`,
    [...progress(claim, totals), rowsAsJson(rows), JSON.stringify(chunk.rejects)],
  );
  const written = result.rows[0];
  if (!written?.is_ours) throw claimLost(claim);
  totals.duplicates += written.duplicates;
  if (chunk.rows.length > 0) totals.unchangedLately = written.unchanged > 0 || rows.length < chunk.rows.length;
}

/** Stages the rows whose digest is that of their ticket. @returns the others */
async function stageUnchanged(
  db: Db,
  dataset: Dataset,
  claim: Claim,
  rows: readonly TicketRow[],
  totals: Totals,
): Promise<readonly TicketRow[]> {
  const digests = rows.map((row) => ({ id: row.ticket_id, line: row.line, sha256: hash('sha256', row.raw, 'base64') }));
  const result = await db.query<{ is_ours: boolean; duplicates: number; others: string[] }>(
    `with ${FENCED},
     listed as materialized (
       select fenced.snapshot_id, r.id, r.line,
         encode(sha256(convert_to(t.raw::text, 'UTF8')), 'base64') is not distinct from r.sha256 as is_unchanged
       from fenced, jsonb_to_recordset($8) as r (id text, line bigint, sha256 text)
       left join tickets.${dataset.name} t on t.ticket_id = r.id -- primary key
     ),
     staged as (
       insert into tickets_ops.snapshot_rows (snapshot_id, ticket_id, line)
       select snapshot_id, id, line from listed where is_unchanged
       on conflict (snapshot_id, ticket_id) do update set line = excluded.line, raw = null
       returning xmax <> 0 as is_duplicate
     )
     select exists (select from fenced) as is_ours, (select count(*)::int from staged where is_duplicate) as duplicates,
       array(select id from listed where not is_unchanged) as others
     from unflushed`,
    [...progress(claim, totals), JSON.stringify(digests)],
  );
  const unchanged = result.rows[0];
  if (!unchanged?.is_ours) throw claimLost(claim);
  totals.duplicates += unchanged.duplicates;
  const others = new Set(unchanged.others);
  return rows.filter((row) => others.has(row.ticket_id));
}
