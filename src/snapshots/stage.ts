/**
 * Staging: the rows of a file go to tickets_ops.snapshot_rows while they arrive, then one transaction seals them: the
 * batches and their jobs come into being together with the state `loading`, or not at all.
 * No transaction is open while the network is awaited. Of a row that equals its ticket only a digest is sent, and only its
 * id is kept; the duplicate of a row replaces the earlier line.
 */
import { hash } from 'node:crypto';
import type { ClientBase } from 'pg';
import { type Chunk, readTicketCsv, rowsAsJson, type TicketRow } from '../csv/records.ts';
import { type Db, transaction } from '../database/client.ts';
import type { Dataset } from '../settings/dataset.ts';
import { type Claim, ClaimLostError } from './ledger.ts';

/** Rows of a batch: measured best on two cores between 2 500 and 10 000; one takes about 0.4 s. */
const BATCH_ROWS = 5_000;
/** Attempts of a load task: the last one comes about 4 minutes after the first, so a failure never outlives its hour. */
export const LOAD_ATTEMPTS = 6;
/** Before every geocoding job. */
export const LOAD_PRIORITY = -10;

interface Totals {
  read: number;
  alarms: number;
  sentinels: number;
  duplicates: number;
  rejected: number;
  repaired: number;
  /** Whether the chunk before held rows that equal their tickets. */
  unchangedLately: boolean;
}

/** Another attempt has another number, a sealed or failed snapshot another status. */
const FENCE = `snapshot_id = $1 and attempt = $2 and status = 'staging'`;
/** The beginning of each statement while rows arrive; its parameters are progress(). */
const HELD = `
  unflushed as (
    -- Nobody waits for the disk here: the sealing transaction does, for everything before it.
    select set_config('synchronous_commit', 'off', true) as setting
  ),
  held as (
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

/**
 * Stages a claimed snapshot.
 * @param bytes the file
 * @param seenSha256 of the last whole load: the same bytes under another ETag are not loaded again
 * @returns 'unchanged' when the bytes are those of the last load: nothing was sealed, the caller decides
 * @throws NotTicketCsvError; ClaimLostError when another attempt took over; whatever `bytes` throws
 */
export async function stage(
  client: ClientBase,
  dataset: Dataset,
  claim: Claim,
  bytes: AsyncIterable<Buffer>,
  seenSha256: string | null,
): Promise<'sealed' | 'unchanged'> {
  const totals: Totals = {
    read: 0,
    alarms: 0,
    sentinels: 0,
    duplicates: 0,
    rejected: 0,
    repaired: 0,
    unchangedLately: true,
  };
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
      const { brokenOff, sha256 } = next.value;
      if (brokenOff === undefined && sha256 === seenSha256) return 'unchanged';
      await transaction(client, () => seal(client, claim, totals, brokenOff ?? null, sha256));
      return 'sealed';
    }
    written = writing;
    writing = written.then(() => writeChunk(client, dataset, claim, next.value, totals));
    // Awaited above; without this a failure before then would end the process as an unhandled rejection.
    writing.catch(() => undefined);
  }
}

async function writeChunk(db: Db, dataset: Dataset, claim: Claim, chunk: Chunk, totals: Totals): Promise<void> {
  const { counts } = chunk;
  totals.read += counts.read;
  totals.alarms += counts.alarms;
  totals.sentinels += counts.sentinels;
  totals.repaired += counts.repaired;
  totals.rejected += chunk.rejects.length;
  totals.duplicates += counts.duplicates;
  // Where no row of the chunk before was known, digests would only come on top of the rows.
  const rows = totals.unchangedLately ? await recognise(db, dataset, claim, chunk.rows, totals) : chunk.rows;
  if (rows.length === 0 && chunk.rejects.length === 0) return;
  const result = await db.query<{ held: boolean; duplicates: number; unchanged: number }>(
    `with ${HELD},
     rejected as (
       insert into tickets_ops.snapshot_rejects (snapshot_id, line, reason, row_text)
       select held.snapshot_id, r.line, r.reason, r.text
       from held, jsonb_to_recordset($9) as r (line bigint, reason text, text text)
     ),
     staged as (
       insert into tickets_ops.snapshot_rows (snapshot_id, ticket_id, line, raw)
       select held.snapshot_id, r.ticket_id, r.line, case when t.raw is distinct from r.raw then r.raw end
       from held, jsonb_to_recordset($8) as r (line bigint, ticket_id text, raw jsonb)
       left join tickets.${dataset.name} t on t.ticket_id = r.ticket_id -- primary key
       on conflict (snapshot_id, ticket_id) do update set line = excluded.line, raw = excluded.raw
       returning xmax <> 0 as is_duplicate, raw is null as is_unchanged
     )
     select exists (select from held) as held, (select count(*)::int from staged where is_duplicate) as duplicates,
       (select count(*)::int from staged where is_unchanged) as unchanged
     from unflushed`,
    [...progress(claim, totals), rowsAsJson(rows), JSON.stringify(chunk.rejects)],
  );
  const written = result.rows[0];
  if (!written?.held) throw lost(claim);
  totals.duplicates += written.duplicates;
  totals.unchangedLately = written.unchanged > 0 || rows.length < chunk.rows.length;
}

/** Stages the rows whose digest is that of their ticket. @returns the others */
async function recognise(
  db: Db,
  dataset: Dataset,
  claim: Claim,
  rows: readonly TicketRow[],
  totals: Totals,
): Promise<readonly TicketRow[]> {
  const digests = rows.map((row) => ({ id: row.ticket_id, line: row.line, sha256: hash('sha256', row.raw, 'base64') }));
  const result = await db.query<{ held: boolean; duplicates: number; others: string[] }>(
    `with ${HELD},
     listed as materialized (
       select held.snapshot_id, r.id, r.line,
         encode(sha256(convert_to(t.raw::text, 'UTF8')), 'base64') is not distinct from r.sha256 as is_unchanged
       from held, jsonb_to_recordset($8) as r (id text, line bigint, sha256 text)
       left join tickets.${dataset.name} t on t.ticket_id = r.id -- primary key
     ),
     staged as (
       insert into tickets_ops.snapshot_rows (snapshot_id, ticket_id, line)
       select snapshot_id, id, line from listed where is_unchanged
       on conflict (snapshot_id, ticket_id) do update set line = excluded.line, raw = null
       returning xmax <> 0 as is_duplicate
     )
     select exists (select from held) as held, (select count(*)::int from staged where is_duplicate) as duplicates,
       array(select id from listed where not is_unchanged) as others
     from unflushed`,
    [...progress(claim, totals), JSON.stringify(digests)],
  );
  const recognised = result.rows[0];
  if (!recognised?.held) throw lost(claim);
  totals.duplicates += recognised.duplicates;
  const others = new Set(recognised.others);
  return rows.filter((row) => others.has(row.ticket_id));
}

async function seal(db: Db, claim: Claim, totals: Totals, brokenOff: string | null, sha256: string): Promise<void> {
  const { rows } = await db.query<{ batches: number }>(
    `with held as (
       select snapshot_id from tickets_ops.snapshots
       where ${FENCE}
       for update
     ),
     numbered as (
       select r.ticket_id, (row_number() over (order by r.ticket_id) - 1) / ${BATCH_ROWS} + 1 as batch
       from tickets_ops.snapshot_rows r
       where r.snapshot_id = $1 and r.raw is not null -- primary key, in whose order they are numbered
         and exists (select from held)
     ),
     batches as (
       insert into tickets_ops.snapshot_batches (snapshot_id, batch, first_ticket_id, last_ticket_id)
       select $1, batch, min(ticket_id), max(ticket_id) from numbered group by batch
       returning batch
     ),
     jobs as (
       select tickets_ops.enqueue(
         'upsert_batch', json_build_object('snapshot_id', $1::bigint, 'batch', batch), tickets_ops.batch_job_key($1, batch)
       )
       from batches
     )
     select count(jobs)::int as batches from held left join jobs on true group by held.snapshot_id`,
    [claim.snapshotId, claim.attempt],
  );
  const sealed = rows[0];
  if (!sealed) throw lost(claim);
  await db.query(
    `update tickets_ops.snapshots
     set status = case when $2 = 0 then 'finalizing' else 'loading' end, batches_total = $2, batches_done = 0,
       source_sha256 = $3, broken_off = $4, staged_at = clock_timestamp(), load_began_at = clock_timestamp(), progress_at = clock_timestamp(),
       rows_read = $5, rows_dropped_alarm = $6, rows_dropped_sentinel = $7, rows_duplicate = $8, rows_rejected = $9, rows_repaired = $10,
       rows_unchanged = (select count(*) from tickets_ops.snapshot_rows where snapshot_id = $1 and raw is null)
     where snapshot_id = $1`,
    [
      claim.snapshotId,
      sealed.batches,
      sha256,
      brokenOff,
      totals.read,
      totals.alarms,
      totals.sentinels,
      totals.duplicates,
      totals.rejected,
      totals.repaired,
    ],
  );
  // These rows are joined at once: with the statistics of the hour before, the plans are quadratic.
  await db.query('analyze tickets_ops.snapshot_rows');
  if (sealed.batches === 0) await enqueueFinalize(db, claim.snapshotId);
}

/** Asks for the end of a snapshot; in the transaction that completes its last batch. */
export async function enqueueFinalize(db: Db, snapshotId: string): Promise<void> {
  await db.query(
    `select tickets_ops.enqueue(
       'finalize_snapshot', json_build_object('snapshot_id', $1::bigint), tickets_ops.finalize_job_key($1)
     )`,
    [snapshotId],
  );
}

const lost = (claim: Claim) =>
  new ClaimLostError(
    `Snapshot ${claim.snapshotId} was taken over from attempt ${claim.attempt}: nothing more is written`,
  );
