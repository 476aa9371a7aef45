/**
 * Staging: the rows of a file go to tickets_ops.snapshot_rows while they arrive; then they are committed (commit.ts).
 * No transaction is open while the network is awaited. Of a row that equals its ticket only the id is kept; of two lines of
 * one ticket the later one stays.
 */
import type { ClientBase } from 'pg';
import { addCounts, type Chunk, noCounts } from '../csv/chunks.ts';
import { type Ending, readTicketCsv } from '../csv/records.ts';
import { type Db, Turns } from '../database/client.ts';
import type { Dataset } from '../settings/dataset.ts';
import { commitStaging } from './commit.ts';
import { knownRecords } from './known-records.ts';
import { type Claim, claimLost } from './ledger.ts';
import { FENCED, LATER_LINE, progress, type Totals } from './progress.ts';
import { rowParameters, rowsFrom } from './row-parameters.ts';

/** Bytes that need not be loaded. */
export interface KnownBytes {
  /** SHA-256 of those of the last load. */
  readonly loaded: string | null;
  /** SHA-256 of those that a held snapshot has. */
  readonly held: string | null;
  /** Whether a record that is known by its digest need not be parsed. */
  readonly records: boolean;
}

/** Of a file that is loaded whatever its bytes are. */
export const NOTHING_KNOWN: KnownBytes = { loaded: null, held: null, records: false };

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
  const turns = new Turns(client);
  const { totals, ending } = await stageRows(turns, dataset, claim, bytes, known.records).finally(() => turns.idle());
  const { sha256, ...reading } = ending;
  if (reading.brokenOff === undefined && sha256 === known.loaded) return 'loaded before';
  if (reading.brokenOff === undefined && sha256 === known.held) return 'held before';
  const { rejectsKept, ...counts } = totals;
  return commitStaging(client, dataset, claim, { ...reading, counts }, { sha256, rejectsKept });
}

async function stageRows(
  db: Db,
  dataset: Dataset,
  claim: Claim,
  bytes: AsyncIterable<Buffer>,
  askForKnown: boolean,
): Promise<{ totals: Totals; ending: Ending }> {
  const totals: Totals = { ...noCounts(), rejectsKept: 0 };
  const chunks = readTicketCsv(bytes, await knownRecords(db, dataset, claim, totals, askForKnown));
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
      return { totals, ending: next.value };
    }
    written = writing;
    writing = written.then(() => writeChunk(db, dataset, claim, next.value, totals));
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
  const result = await db.query<{ is_ours: boolean; first_lines: number }>(
    `with ${FENCED},
     rejected as (
       insert into tickets_ops.snapshot_rejects (snapshot_id, line, reason, row_text)
       select fenced.snapshot_id, r.line, r.reason, r.text
       from fenced, jsonb_to_recordset($8) as r (line bigint, reason text, text text)
     ),
     compared as materialized (
       select fenced.snapshot_id, r.*, same.row_ctid, same.row_xmin
       from fenced, ${rowsFrom(9)}
       left join lateral (
         select t.ctid as row_ctid, t.xmin as row_xmin from tickets.${dataset.name} t
         where t.ticket_id = r.ticket_id and t.raw = r.raw -- primary key
         offset 0 -- looked up one by one: a join may read the whole table to find these few
       ) as same on true
     ),
     staged as (
       insert into tickets_ops.snapshot_rows (snapshot_id, ticket_id, line, digest, figures, raw)
       select snapshot_id, ticket_id, line, digest, figures, case when row_ctid is null then raw end from compared
       ${LATER_LINE}
       returning xmax = 0 as is_first
     ),
     learnt as (
       -- So that the next file's need not be parsed.
       insert into tickets_ops.${dataset.name}_digests (ticket_id, digest, figures, row_ctid, row_xmin)
       select ticket_id, digest, figures, row_ctid, row_xmin from compared where row_ctid is not null
       on conflict (ticket_id) do update
         set digest = excluded.digest, figures = excluded.figures, row_ctid = excluded.row_ctid, row_xmin = excluded.row_xmin
     )
     select exists (select from fenced) as is_ours, (select count(*)::int from staged where is_first) as first_lines
     from unflushed`,
    [...progress(claim, totals), JSON.stringify(chunk.rejects), ...rowParameters(chunk.rows)],
  );
  const written = result.rows[0];
  if (!written?.is_ours) throw claimLost(claim);
  totals.duplicates += chunk.rows.length - written.first_lines;
}
