/** The dry run: what loading a file would do, read from the same parser and the same comparison, writing nothing. */

import { addCounts, type Counts, noCounts, rowsAsJson, type TicketRow } from '../csv/chunks.ts';
import { readTicketCsv } from '../csv/records.ts';
import type { Reject } from '../csv/rejects.ts';
import type { Db } from '../database/client.ts';
import type { Dataset } from '../settings/dataset.ts';

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

/**
 * Compares a file with the tickets. Holds one small entry per ticket in memory.
 * @throws RefusedFileError; whatever `bytes` throws
 */
export async function preview(db: Db, dataset: Dataset, bytes: AsyncIterable<Buffer>): Promise<Preview> {
  const counts = noCounts();
  const rejects: Reject[] = [];
  /** By ticket id, so that the last line wins: the fields that change, or 'new', or nothing. */
  const verdicts = new Map<string, readonly string[] | 'new' | undefined>();
  const chunks = readTicketCsv(bytes);
  let next = await chunks.next();
  for (; !next.done; next = await chunks.next()) {
    const chunk = next.value;
    addCounts(counts, chunk.counts);
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
