/**
 * Committing what is staged: one transaction judges the snapshot as a whole (suspicion.ts) and gives it its next state. It
 * loads: its batches and their jobs come into being, together with the state `loading`. It is held: its batches wait for a
 * person. Or it is refused.
 */
import type { ClientBase } from 'pg';
import { CLEANING_VERSION } from '../csv/clean.ts';
import { RefusedFileError } from '../csv/refused.ts';
import { type Db, transaction } from '../database/client.ts';
import type { Dataset } from '../settings/dataset.ts';
import { settingInUse } from '../settings/recorded.ts';
import { compareStaged } from './comparison.ts';
import { type Claim, claimLost, FENCE } from './ledger.ts';
import { figuresOf, judge, type Reading, type Verdict } from './suspicion.ts';

/** Rows of a batch: measured best on two cores between 2 500 and 10 000; one takes about 0.4 s. */
const BATCH_ROWS = 5_000;

/**
 * Ends the staging of a claimed snapshot.
 * @throws RefusedFileError when too little of it can be loaded: then it is failed already; ClaimLostError
 */
export async function commitStaging(
  client: ClientBase,
  dataset: Dataset,
  claim: Claim,
  reading: Reading,
  file: { readonly sha256: string; readonly rejectsKept: number },
): Promise<'loading' | 'held'> {
  const verdict = await transaction(client, async () => {
    const { rows } = await client.query<{ snapshot_at: Date }>(
      `select snapshot_at from tickets_ops.snapshots where ${FENCE} for update`,
      [claim.snapshotId, claim.attempt],
    );
    if (!rows[0]) throw claimLost(claim);
    const { snapshot_at: snapshotAt } = rows[0];
    const compared = await compareStaged(client, dataset, claim.snapshotId, snapshotAt);
    const judged = judge(reading, compared, await onSuspectSnapshot(client));
    await writeFigures(client, claim.snapshotId, reading, file);
    if (judged.verdict === 'refuse') await refuse(client, claim.snapshotId, judged.reason);
    else if (judged.verdict === 'hold') await hold(client, dataset, claim.snapshotId, snapshotAt, judged);
    else await load(client, claim.snapshotId, judged.warnings);
    return judged;
  });
  if (verdict.verdict === 'refuse') throw new RefusedFileError(verdict.reason);
  return verdict.verdict === 'hold' ? 'held' : 'loading';
}

/** What is done with a file that is suspect. */
export const onSuspectSnapshot = async (db: Db): Promise<'hold' | 'load'> =>
  (await settingInUse(db, 'ON_SUSPECT_SNAPSHOT')) ?? 'hold';

async function writeFigures(
  db: Db,
  snapshotId: string,
  reading: Reading,
  { sha256, rejectsKept }: { readonly sha256: string; readonly rejectsKept: number },
): Promise<void> {
  const { counts, brokenOff } = reading;
  await db.query(
    `update tickets_ops.snapshots
     set source_sha256 = $2, broken_off = $3, staged_at = clock_timestamp(), progress_at = clock_timestamp(),
       rows_read = $4, rows_dropped_alarm = $5, rows_dropped_sentinel = $6, rows_duplicate = $7, rows_rejected = $8, rows_repaired = $9,
       rows_unchanged = (select count(*) from tickets_ops.snapshot_rows where snapshot_id = $1 and raw is null),
       rejects_kept = $10, cleaning_version = $11, statistics = $12
     where snapshot_id = $1`,
    [
      snapshotId,
      sha256,
      brokenOff ?? null,
      counts.read,
      counts.alarms,
      counts.sentinels,
      counts.duplicates,
      counts.rejected,
      counts.repaired,
      rejectsKept,
      CLEANING_VERSION,
      JSON.stringify(figuresOf(reading)),
    ],
  );
}

async function refuse(db: Db, snapshotId: string, reason: string): Promise<void> {
  await db.query('select tickets_ops.fail_snapshot($1, $2), tickets_ops.wipe_staging($1)', [snapshotId, reason]);
}

async function hold(
  db: Db,
  dataset: Dataset,
  snapshotId: string,
  snapshotAt: Date,
  { reason, since, warnings }: Extract<Verdict, { verdict: 'hold' }>,
): Promise<void> {
  const batches = await makeBatches(db, snapshotId);
  await db.query('select tickets_ops.replace_held($1, $2, false)', [dataset.name, snapshotAt]);
  await db.query(
    `update tickets_ops.snapshots
     set status = 'held', batches_total = $2, batches_done = 0, hold_reason = $3, held_since = $4, warnings = $5
     where snapshot_id = $1`,
    [snapshotId, batches, reason, since, warnings],
  );
}

async function load(db: Db, snapshotId: string, warnings: readonly string[]): Promise<void> {
  const batches = await makeBatches(db, snapshotId);
  await db.query(
    `update tickets_ops.snapshots
     set status = case when $2 = 0 then 'finalizing' else 'loading' end, batches_total = $2, batches_done = 0,
       load_began_at = clock_timestamp(), warnings = $3
     where snapshot_id = $1`,
    [snapshotId, batches, warnings],
  );
  await db.query(
    `select tickets_ops.enqueue(
       'upsert_batch', json_build_object('snapshot_id', $1::bigint, 'batch', batch), tickets_ops.batch_job_key($1, batch)
     )
     from tickets_ops.snapshot_batches where snapshot_id = $1`,
    [snapshotId],
  );
  if (batches === 0) await enqueueFinalize(db, snapshotId);
}

/** Cuts the changed rows into ranges of ticket ids. @returns how many */
async function makeBatches(db: Db, snapshotId: string): Promise<number> {
  const { rowCount } = await db.query(
    `with numbered as (
       select r.ticket_id, (row_number() over (order by r.ticket_id) - 1) / ${BATCH_ROWS} + 1 as batch
       from tickets_ops.snapshot_rows r
       where r.snapshot_id = $1 and r.raw is not null -- primary key, in whose order they are numbered
     )
     insert into tickets_ops.snapshot_batches (snapshot_id, batch, first_ticket_id, last_ticket_id)
     select $1, batch, min(ticket_id), max(ticket_id) from numbered group by batch`,
    [snapshotId],
  );
  // The rows are joined at once: with the statistics of the hour before, the plans are quadratic.
  await db.query('analyze tickets_ops.snapshot_rows');
  return rowCount ?? 0;
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
