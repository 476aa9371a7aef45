/**
 * The dry run: what a look at the bucket would do, by the same plan, and what loading a file would do, by the same parser
 * and the same comparison. It writes nothing.
 */
import { versionOf } from '../bucket/files.ts';
import type { Knowledge, Mode, Step } from '../bucket/plan.ts';
import { type Bucket, readObject } from '../bucket/s3.ts';
import { addCounts, type Counts, noCounts, type TicketRow } from '../csv/chunks.ts';
import { csvBytes } from '../csv/gunzip.ts';
import { readTicketCsv } from '../csv/records.ts';
import { orRefusal, Refusal, RefusedFileError } from '../csv/refused.ts';
import type { Reject } from '../csv/rejects.ts';
import type { Db } from '../database/client.ts';
import type { Dataset } from '../settings/dataset.ts';
import { onSuspectSnapshot } from './commit.ts';
import { CLOSES, compare } from './comparison.ts';
import { afterRefusal, everyFile, listSnapshots, planLook } from './fetch.ts';
import { knowledge } from './knowledge.ts';
import { rowParameters, rowsFrom } from './row-parameters.ts';
import { figuresOf, judge, manyRejected, type Verdict } from './suspicion.ts';

export interface Preview {
  readonly counts: Counts;
  readonly inserts: number;
  readonly updates: number;
  readonly unchanged: number;
  readonly rejects: readonly Reject[];
  /** How many of the updated tickets change in a field, most first. */
  readonly changedFields: readonly (readonly [field: string, tickets: number])[];
  /** Why the rest of the file would not be read; undefined when all of it would. */
  readonly brokenOff: string | undefined;
  /** Whether it would be loaded, with warnings, or held. */
  readonly verdict: Exclude<Verdict, { verdict: 'refuse' }>;
}

/** What a fetch would do. */
export interface DryRun {
  /** In this order; the file that would be loaded or marked unchanged is the last. */
  readonly steps: readonly Step[];
  /** Files that would be read and refused, with the reason. */
  readonly refused: readonly { readonly key: string; readonly reason: string }[];
  /** What loading the last one would change; null where none would be loaded. */
  readonly changes: Preview | null;
}

/** As a fetch does: a file that is refused counts as failed, and the bucket is looked at again. */
export async function previewBucket(db: Db, bucket: Bucket, dataset: Dataset, mode: Mode): Promise<DryRun> {
  const listing = await listSnapshots(bucket, dataset, mode);
  let known: Knowledge = await knowledge(db, dataset.name, everyFile(listing));
  const refused: { key: string; reason: string }[] = [];
  for (let nextMode = mode; ; nextMode = afterRefusal(nextMode)) {
    const steps = planLook(listing, known, nextMode);
    const last = steps.at(-1);
    if (last?.action !== 'load') return { steps, refused, changes: null };
    const { key, snapshotAt } = last.file;
    const changes = await preview(db, dataset, csvBytes(key, readObject(bucket, last.file)), snapshotAt);
    if (!(changes instanceof Refusal)) return { steps, refused, changes };
    refused.push({ key, reason: changes.reason });
    const failed = [versionOf(last.file), { isOpen: false, isWhole: false, inFlight: false }] as const;
    const blocker = known.feed === 'changes' ? last.file : null;
    known = { ...known, blocker, versions: new Map([...known.versions, failed]) };
  }
}

/** What would become of a ticket: the fields that change, or 'new', or nothing; and whether it would close. */
interface Change {
  readonly what: readonly string[] | 'new';
  readonly closes: boolean;
}

/**
 * Compares a file with the tickets. Holds one small entry per ticket in memory.
 * @param snapshotAt the file's time
 * @returns a Refusal also where too little of it could be loaded
 * @throws what `bytes` throws
 */
export const preview = (
  db: Db,
  dataset: Dataset,
  bytes: AsyncIterable<Buffer>,
  snapshotAt: Date,
): Promise<Preview | Refusal> => orRefusal(comparedWithTickets(db, dataset, bytes, snapshotAt));

async function comparedWithTickets(
  db: Db,
  dataset: Dataset,
  bytes: AsyncIterable<Buffer>,
  snapshotAt: Date,
): Promise<Preview> {
  const counts = noCounts();
  const rejects: Reject[] = [];
  /** By ticket id, so that the last line wins. */
  const found = new Map<string, Change | undefined>();
  const chunks = readTicketCsv(bytes);
  let next = await chunks.next();
  for (; !next.done; next = await chunks.next()) {
    const chunk = next.value;
    addCounts(counts, chunk.counts);
    rejects.push(...chunk.rejects);
    const changes = await changesOf(db, dataset, chunk.rows);
    for (const { ticket_id } of chunk.rows) {
      if (found.has(ticket_id)) counts.duplicates += 1;
      found.set(ticket_id, changes.get(ticket_id));
    }
  }
  const closing = [...found].filter(([, change]) => change?.closes).map(([id]) => id);
  const reading = { ...next.value, counts };
  const changes = summary([...found.values()]);
  const compared = await compare(db, dataset, found.size - changes.inserts, closing, snapshotAt);
  const verdict = judge(reading, compared, await onSuspectSnapshot(db));
  if (verdict.verdict === 'refuse') throw new RefusedFileError(verdict.reason);
  const many = manyRejected(figuresOf(reading).rows, counts.rejected);
  return {
    counts,
    ...changes,
    rejects,
    brokenOff: reading.brokenOff,
    verdict: many === undefined ? verdict : { ...verdict, warnings: [...verdict.warnings, many] },
  };
}

function summary(changes: readonly (Change | undefined)[]) {
  const changedFields = new Map<string, number>();
  let inserts = 0;
  let updates = 0;
  for (const change of changes) {
    if (change?.what === 'new') inserts += 1;
    else if (change) {
      updates += 1;
      for (const field of change.what) changedFields.set(field, (changedFields.get(field) ?? 0) + 1);
    }
  }
  return {
    inserts,
    updates,
    unchanged: changes.length - inserts - updates,
    changedFields: [...changedFields].sort(([, a], [, b]) => b - a),
  };
}

async function changesOf(db: Db, dataset: Dataset, rows: readonly TicketRow[]): Promise<Map<string, Change>> {
  const result = await db.query<{ ticket_id: string; is_new: boolean; closes: boolean; fields: string[] | null }>(
    `select r.ticket_id, t.ticket_id is null as is_new,
       coalesce(t.is_actionable and ${CLOSES('r.raw')}, false) as closes,
       (
         select array_agg(key) from jsonb_each(t.raw) as old full join jsonb_each(r.raw) as new using (key)
         where old.value is distinct from new.value
       ) as fields
     from ${rowsFrom(1)}
     left join tickets.${dataset.name} t on t.ticket_id = r.ticket_id
     where t.raw is distinct from r.raw`,
    rowParameters(rows),
  );
  return new Map(
    result.rows.map((row) => [row.ticket_id, { what: row.is_new ? 'new' : (row.fields ?? []), closes: row.closes }]),
  );
}
