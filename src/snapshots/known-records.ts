/**
 * Records that are known by their digests (tickets_ops.inc_digests): they were loaded before, and the rows of their tickets are
 * the very ones that they made. They are not parsed, and staged without what they hold.
 *
 * A digest is written in the statement that writes the ticket (tickets_ops.load_rows), or that finds it to be the same (stage.ts).
 * It is bound to the version of the row that was written or seen there, so nothing has to be done about it when the ticket is
 * written again, by whomever; and it says nothing about the snapshot it came from, so that may fail, or be held.
 */
import type { FramedRecord, KnownRecords } from '../csv/digests.ts';
import type { Db } from '../database/client.ts';
import type { Dataset } from '../settings/dataset.ts';

/** What is known of a dataset's records. @param ask whether any may be known; else all are parsed, and get their digests */
export async function knownRecords(db: Db, dataset: Dataset, ask: boolean): Promise<KnownRecords> {
  const { rows } = await db.query<{ store: string; any: boolean }>(
    `select format('%s %s', $1::text, pg_relation_filenode('tickets.${dataset.name}')) as store,
       exists (select from tickets_ops.${dataset.name}_digests) as any`,
    [dataset.name],
  );
  const { store = '', any = false } = rows[0] ?? {};
  return { store, find: ask && any ? (records) => find(db, dataset, records) : undefined };
}

async function find(db: Db, dataset: Dataset, records: readonly FramedRecord[]): Promise<(number | undefined)[]> {
  const { rows } = await db.query<{ figures: (number | null)[] }>(
    // Subqueries, because a join may read whole tables to find these few.
    `select array_agg((
       select d.figures from tickets_ops.${dataset.name}_digests d
       where d.ticket_id = a.ticket_id and d.digest = a.digest -- primary key
         and (select t.xmin = d.row_xmin and t.ticket_id = d.ticket_id from tickets.${dataset.name} t where t.ctid = d.row_ctid)
     ) order by a.n) as figures
     from unnest($1::text[], $2::uuid[]) with ordinality as a (ticket_id, digest, n)`,
    [records.map(({ ticketId }) => ticketId), records.map(({ digest }) => digest)],
  );
  return (rows[0]?.figures ?? []).map((figures) => figures ?? undefined);
}
