/**
 * Loading: one batch of staged rows becomes tickets and history, in one transaction that also marks the batch done.
 * Only changes are written; a row that the database refuses goes to the rejects, and every other row loads.
 * Running it again, or on two workers at once, changes nothing more: the batch's row lock and status decide.
 */
import type { ClientBase } from 'pg';
import { MAX_REJECTS_KEPT, MAX_TEXT_BYTES, rejectText } from '../csv/rejects.ts';
import { type Db, transaction } from '../database/client.ts';
import type { Dataset } from '../settings/dataset.ts';
import { enqueueFinalize } from './commit.ts';
import { ClaimLostError } from './ledger.ts';

/** What became of a batch. */
type BatchOutcome =
  | { readonly outcome: 'loaded'; readonly inserted: number; readonly updated: number; readonly rejected: number }
  | { readonly outcome: 'already done' }
  /** Its snapshot has failed or was cancelled. If that is reopened (tickets_ops.retry_job), the batch is asked for again. */
  | { readonly outcome: 'snapshot failed' }
  /** It cannot be loaded any more. */
  | { readonly outcome: 'gone'; readonly reason: string };

interface Written {
  readonly inserted: number;
  readonly updated: number;
  readonly unchanged: number;
}

const NOTHING_WRITTEN: Written = { inserted: 0, updated: 0, unchanged: 0 };

/** Settings under which a batch is planned, until its transaction ends. */
const PLANNING = {
  jit: 'off', // compiling the upsert takes 2 s, however few rows it writes
  work_mem: '32MB', // some 5 MB in each step of a batch of usual rows: with the default of 4 MB they go through files
  enable_mergejoin: 'off', // it sorts whole rows to find their places, of which a hash knows the few
  random_page_cost: '1.1', // pages are in memory: the few tickets of a small batch are looked up, not sought in the whole table
};

/**
 * Loads one batch of a staged snapshot.
 * @throws whatever Postgres reports that is no fault of a row (a deadlock, a lost connection): try again
 */
export async function loadBatch(
  client: ClientBase,
  datasetOf: (name: Dataset['name']) => Dataset,
  snapshotId: string,
  batch: number,
): Promise<BatchOutcome> {
  return transaction(client, async () => {
    // First of all statements: what the next one reads of the gazetteers stays true until the commit.
    await client.query(
      `select pg_advisory_xact_lock_shared(tickets.gazetteer_lock()), (
         select count(set_config(name, value, true)) from unnest($1::text[], $2::text[]) as s (name, value)
       )`,
      [Object.keys(PLANNING), Object.values(PLANNING)],
    );
    const { rows } = await client.query<{
      dataset: Dataset['name'];
      done: boolean;
      failed: boolean;
      first: string;
      last: string;
    }>(
      `select s.dataset, s.status = 'failed' as failed, b.status = 'done' as done, b.first_ticket_id as first, b.last_ticket_id as last
       from tickets_ops.snapshot_batches b join tickets_ops.snapshots s using (snapshot_id)
       where b.snapshot_id = $1 and b.batch = $2
       -- The snapshot cannot fail, and a newer one be staged against tickets that this batch is about to change.
       for key share of s for update of b`,
      [snapshotId, batch],
    );
    const range = rows[0];
    if (!range) return withoutBatch(client, snapshotId, batch);
    if (range.done) return { outcome: 'already done' };
    if (range.failed) return { outcome: 'snapshot failed' };

    const refused: Refused = new Map();
    const written = await writeRange(client, datasetOf(range.dataset), snapshotId, range.first, range.last, refused);
    if (range.dataset === 'inc')
      await client.query('select tickets_ops.end_assignments($1, $2, $3)', [snapshotId, range.first, range.last]);
    const kept = await rejectRows(client, snapshotId, refused);
    await markDone(client, snapshotId, batch, written, { rejected: refused.size, kept });
    return { outcome: 'loaded', inserted: written.inserted, updated: written.updated, rejected: refused.size };
  });
}

/** The batches go when the snapshot is finished, and when what was staged of a failed one is pruned. */
async function withoutBatch(db: Db, snapshotId: string, batch: number): Promise<BatchOutcome> {
  const { rows } = await db.query<{ status: string; loaded: boolean }>(
    'select status, tickets_ops.is_loaded(status) as loaded from tickets_ops.snapshots where snapshot_id = $1',
    [snapshotId],
  );
  const { status = 'unknown', loaded = false } = rows[0] ?? {};
  if (loaded) return { outcome: 'already done' };
  return {
    outcome: 'gone',
    reason: `Snapshot ${snapshotId} is ${status} and has no staged batch ${batch}: fetch its file again`,
  };
}

/** SQLSTATE classes that a row's own content can cause: data exception, integrity, program limit exceeded. */
const ROW_FAULT = /^(22|23|54)/;

/** Rows that the database refuses: ticket id and reason. */
type Refused = Map<string, string>;

/**
 * Writes a range of ticket ids without the rows that are refused. Those that a check constraint refuses are found all at
 * once; where the database refuses a range for another reason, it is halved until the rows at fault stand alone.
 */
async function writeRange(
  db: Db,
  dataset: Dataset,
  snapshotId: string,
  first: string,
  last: string,
  refused: Refused,
): Promise<Written> {
  await db.query('savepoint range');
  try {
    const { rows } = await db.query<Written>('select * from tickets_ops.load_rows($1, $2, $3, $4, $5)', [
      dataset.name,
      snapshotId,
      first,
      last,
      [...refused.keys()],
    ]);
    await db.query('release savepoint range');
    return rows[0] ?? NOTHING_WRITTEN;
  } catch (error) {
    const { code = '', constraint, message } = error as { code?: string; constraint?: string; message: string };
    if (!ROW_FAULT.test(code)) throw error;
    await db.query('rollback to savepoint range');
    const violating = constraint ? await violatingRows(db, dataset, snapshotId, constraint, first, last, refused) : [];
    const ids = violating.length > 0 ? [] : await writableIds(db, snapshotId, first, last, refused);
    if (ids.length <= 1) {
      for (const id of [...violating, ...ids]) refused.set(id, `The database refuses it: ${message}`);
      return writeRange(db, dataset, snapshotId, first, last, refused);
    }
    const middle = ids.length >> 1;
    const lower = await writeRange(db, dataset, snapshotId, first, ids[middle - 1] ?? first, refused);
    const upper = await writeRange(db, dataset, snapshotId, ids[middle] ?? last, last, refused);
    return {
      inserted: lower.inserted + upper.inserted,
      updated: lower.updated + upper.updated,
      unchanged: lower.unchanged + upper.unchanged,
    };
  }
}

async function violatingRows(
  db: Db,
  dataset: Dataset,
  snapshotId: string,
  constraint: string,
  first: string,
  last: string,
  refused: Refused,
): Promise<string[]> {
  const { rows } = await db.query<{ id: string }>(
    'select id from tickets_ops.violating_rows($1, $2, $3, $4, $5) as id',
    [dataset.name, constraint, snapshotId, first, last],
  );
  return rows.map(({ id }) => id).filter((id) => !refused.has(id));
}

async function writableIds(
  db: Db,
  snapshotId: string,
  first: string,
  last: string,
  refused: Refused,
): Promise<string[]> {
  const { rows } = await db.query<{ ticket_id: string }>(
    `select ticket_id from tickets_ops.snapshot_rows
     where snapshot_id = $1 and ticket_id between $2 and $3 and raw is not null and ticket_id <> all ($4)
     order by ticket_id`,
    [snapshotId, first, last, [...refused.keys()]],
  );
  return rows.map((row) => row.ticket_id);
}

/** Some megabytes of text. */
const REJECTS_AT_ONCE = 100;

/**
 * Writes the refused rows to the rejects, as many as are kept of one snapshot. @returns how many were kept
 * The snapshot's row is locked until the commit, or two batches at once would keep too many.
 */
async function rejectRows(db: Db, snapshotId: string, refused: Refused): Promise<number> {
  if (refused.size === 0) return 0;
  const { rows: snapshot } = await db.query<{ room: number }>(
    `select greatest($2 - rejects_kept, 0)::int as room from tickets_ops.snapshots where snapshot_id = $1 for no key update`,
    [snapshotId, MAX_REJECTS_KEPT],
  );
  const { rows: kept } = await db.query<{ id: string }>(
    `select r.ticket_id as id from tickets_ops.snapshot_rows r
     where r.snapshot_id = $1 and r.ticket_id = any ($2) -- primary key
     order by r.line limit $3`,
    [snapshotId, [...refused.keys()], snapshot[0]?.room ?? 0],
  );
  for (let from = 0; from < kept.length; from += REJECTS_AT_ONCE) {
    const { rows } = await db.query<{ id: string; line: string; text: string }>(
      // Of a text of megabytes more than enough: a character has a byte at least.
      `select r.ticket_id as id, r.line, left(r.raw::text, $3) as text from tickets_ops.snapshot_rows r
       where r.snapshot_id = $1 and r.ticket_id = any ($2) order by r.line -- primary key`,
      [snapshotId, kept.slice(from, from + REJECTS_AT_ONCE).map(({ id }) => id), MAX_TEXT_BYTES],
    );
    await db.query(
      `insert into tickets_ops.snapshot_rejects (snapshot_id, line, reason, row_text)
       select $1, * from unnest($2::bigint[], $3::text[], $4::text[])`,
      [
        snapshotId,
        rows.map(({ line }) => line),
        rows.map(({ id }) => refused.get(id)),
        rows.map(({ text }) => rejectText(Buffer.from(text))),
      ],
    );
  }
  return kept.length;
}

async function markDone(
  db: Db,
  snapshotId: string,
  batch: number,
  written: Written,
  { rejected, kept }: { rejected: number; kept: number },
): Promise<void> {
  await db.query(
    `update tickets_ops.snapshot_batches set status = 'done', error = null
     where snapshot_id = $1 and batch = $2`,
    [snapshotId, batch],
  );
  // Counting up under the snapshot's row lock: "are there undone batches?" alone can lose the last one.
  const { rows } = await db.query<{ complete: boolean }>(
    `update tickets_ops.snapshots
     set batches_done = batches_done + 1,
       status = case when batches_done + 1 = batches_total then 'finalizing' else status end,
       progress_at = clock_timestamp(),
       rows_inserted = rows_inserted + $2, rows_updated = rows_updated + $3,
       rows_unchanged = rows_unchanged + $4, rows_rejected = rows_rejected + $5, rejects_kept = rejects_kept + $6
     where snapshot_id = $1 and status = 'loading'
     returning batches_done = batches_total as complete`,
    [snapshotId, written.inserted, written.updated, written.unchanged, rejected, kept],
  );
  if (!rows[0])
    throw new ClaimLostError(`Snapshot ${snapshotId} was cancelled while batch ${batch} was written: it is undone`);
  if (rows[0]?.complete) await enqueueFinalize(db, snapshotId);
}
