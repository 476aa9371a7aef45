/**
 * Records that are known by their digests (tickets_ops.inc_digests): they were loaded before, and the rows of their tickets are
 * the very ones that they made. They are not parsed, and staged without what they hold, by the statement that recognises them.
 *
 * A digest is written in the statement that writes the ticket (tickets_ops.load_rows), or that finds it to be the same (stage.ts).
 * It is bound to the version of the row that was written or seen there, so nothing has to be done about it when the ticket is
 * written again, by whomever; and it says nothing about the snapshot it came from, so that may fail, or be held.
 */
import type { FramedRecord, KnownRecords } from '../csv/digests.ts';
import type { Db } from '../database/client.ts';
import type { Dataset } from '../settings/dataset.ts';
import { type Claim, claimLost } from './ledger.ts';
import { FENCED, LATER_LINE, progress, type Totals } from './progress.ts';

/**
 * What is known of a dataset's records.
 * @param ask whether any may be known; else all are parsed, and get their digests
 * @param totals of the rows staged so far: duplicates among those that are known are added
 */
export async function knownRecords(
  db: Db,
  dataset: Dataset,
  claim: Claim,
  totals: Totals,
  ask: boolean,
): Promise<KnownRecords> {
  const { rows } = await db.query<{ store: string; any: boolean }>(
    `select format('%s %s', $1::text, pg_relation_filenode('tickets.${dataset.name}')) as store,
       exists (select from tickets_ops.${dataset.name}_digests) as any`,
    [dataset.name],
  );
  const { store = '', any = false } = rows[0] ?? {};
  return { store, stage: ask && any ? (records) => stageKnown(db, dataset, claim, totals, records) : undefined };
}

async function stageKnown(
  db: Db,
  dataset: Dataset,
  claim: Claim,
  totals: Totals,
  records: readonly FramedRecord[],
): Promise<(number | undefined)[]> {
  const { rows } = await db.query<{ is_ours: boolean; figures: (number | null)[]; duplicates: number }>(
    // Subqueries, because a join may read whole tables to find these few.
    `with ${FENCED},
     known as materialized (
       select a.*, (
         select d.figures from tickets_ops.${dataset.name}_digests d
         where d.ticket_id = a.ticket_id and d.digest = a.digest -- primary key
           and (select t.xmin = d.row_xmin and t.ticket_id = d.ticket_id from tickets.${dataset.name} t where t.ctid = d.row_ctid)
       ) as figures
       from unnest($8::bigint[], $9::text[], $10::uuid[]) with ordinality as a (line, ticket_id, digest, n)
     ),
     staged as (
       insert into tickets_ops.snapshot_rows (snapshot_id, ticket_id, line, digest, figures)
       select distinct on (k.ticket_id collate "C") fenced.snapshot_id, k.ticket_id, k.line, k.digest, k.figures
       from fenced, known k
       where k.figures is not null
       order by k.ticket_id collate "C", k.line desc
       ${LATER_LINE}
       returning xmax = 0 as is_first
     )
     select exists (select from fenced) as is_ours, (select array_agg(figures order by n) from known) as figures,
       ((select count(figures) from known) - (select count(*) from staged where is_first))::int as duplicates
     from unflushed`,
    [
      ...progress(claim, totals),
      records.map(({ line }) => line),
      records.map(({ ticketId }) => ticketId),
      records.map(({ digest }) => digest),
    ],
  );
  const answer = rows[0];
  if (!answer?.is_ours) throw claimLost(claim);
  totals.duplicates += answer.duplicates;
  return answer.figures.map((figures) => figures ?? undefined);
}
