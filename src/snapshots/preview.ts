/**
 * The dry run: what a look at the bucket would do, by the same plan, and what loading a file would do, by the same parser
 * and the same comparison. It writes nothing.
 */
import { versionOf } from '../bucket/files.ts';
import { type Knowledge, type Mode, plan, type Step } from '../bucket/plan.ts';
import { type Bucket, readObject } from '../bucket/s3.ts';
import { NotTicketCsvError } from '../csv/clean.ts';

import { type Counts, type Reject, readTicketCsv, rowsAsJson, type TicketRow } from '../csv/records.ts';
import type { Db } from '../database/client.ts';
import type { Dataset } from '../settings/dataset.ts';
import { afterRefusal, everyFile, listSnapshots } from './fetch.ts';
import { knowledge } from './knowledge.ts';

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
    const steps = plan(listing, known, nextMode);
    const last = steps.at(-1);
    if (last?.action !== 'load') return { steps, refused, changes: null };
    try {
      return { steps, refused, changes: await preview(db, dataset, readObject(bucket, last.file)) };
    } catch (error) {
      if (!(error instanceof NotTicketCsvError)) throw error;
      refused.push({ key: last.file.key, reason: error.message });
      const failed = [versionOf(last.file), { status: 'failed', opensAt: null }] as const;
      known = { ...known, versions: new Map([...known.versions, failed]) };
    }
  }
}

/**
 * Compares a file with the tickets. Holds one small entry per ticket in memory.
 * @throws NotTicketCsvError; whatever `bytes` throws
 */
export async function preview(db: Db, dataset: Dataset, bytes: AsyncIterable<Buffer>): Promise<Preview> {
  const counts: Counts = { read: 0, alarms: 0, sentinels: 0, duplicates: 0, repaired: 0 };
  const rejects: Reject[] = [];
  /** By ticket id, so that the last line wins: the fields that change, or 'new', or nothing. */
  const verdicts = new Map<string, readonly string[] | 'new' | undefined>();
  const chunks = readTicketCsv(bytes);
  let next = await chunks.next();
  for (; !next.done; next = await chunks.next()) {
    const chunk = next.value;
    for (const name of Object.keys(counts) as (keyof Counts)[]) counts[name] += chunk.counts[name];
    rejects.push(...chunk.rejects);
    const changes = await compare(db, dataset, chunk.rows);
    for (const { ticket_id } of chunk.rows) {
      if (verdicts.has(ticket_id)) counts.duplicates += 1;
      verdicts.set(ticket_id, changes.get(ticket_id));
    }
  }
  const changedFields = new Map<string, number>();
  let inserts = 0;
  let updates = 0;
  for (const verdict of verdicts.values()) {
    if (verdict === 'new') inserts += 1;
    else if (verdict) {
      updates += 1;
      for (const field of verdict) changedFields.set(field, (changedFields.get(field) ?? 0) + 1);
    }
  }
  return {
    counts,
    inserts,
    updates,
    unchanged: verdicts.size - inserts - updates,
    rejects,
    changedFields: [...changedFields].sort(([, a], [, b]) => b - a),
    brokenOff: next.value.brokenOff,
  };
}

async function compare(db: Db, dataset: Dataset, rows: readonly TicketRow[]): Promise<Map<string, string[] | 'new'>> {
  const result = await db.query<{ ticket_id: string; is_new: boolean; fields: string[] | null }>(
    `select r.ticket_id, t.ticket_id is null as is_new,
       (
         select array_agg(key) from jsonb_each(t.raw) as old full join jsonb_each(r.raw) as new using (key)
         where old.value is distinct from new.value
       ) as fields
     from jsonb_to_recordset($1) as r (ticket_id text, raw jsonb)
     left join tickets.${dataset.name} t on t.ticket_id = r.ticket_id
     where t.raw is distinct from r.raw`,
    [rowsAsJson(rows)],
  );
  return new Map(result.rows.map((row) => [row.ticket_id, row.is_new ? 'new' : (row.fields ?? [])]));
}
