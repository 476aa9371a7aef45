/** What a file is compared with before it is judged (suspicion.ts): the last whole load, and the open tickets. */
import type { Db } from '../database/client.ts';
import type { Dataset } from '../settings/dataset.ts';
import { feedOf } from './knowledge.ts';
import type { Comparison, Figures } from './suspicion.ts';

/** SQL for whether a record, as jsonb, is that of a ticket that is not open. */
export const CLOSES = (raw: string) => `tickets.to_boolean(${raw} ->> 'is_actionable') is not true`;

/**
 * Compares a staged snapshot with the tickets. In the transaction that decides about it, with nothing else in flight: so
 * what it finds still holds when the batches come into being.
 */
export async function compareStaged(
  db: Db,
  dataset: Dataset,
  snapshotId: string,
  snapshotAt: Date,
): Promise<Comparison> {
  const { rows } = await db.query<{ closing: string[]; known: number }>(
    `select (
       select count(*)::int from tickets_ops.snapshot_rows r
       where r.snapshot_id = $1
         and (r.raw is null or exists (select from tickets.${dataset.name} t where t.ticket_id = r.ticket_id)) -- primary keys
     ) as known,
     array(
       select r.ticket_id from tickets_ops.snapshot_rows r join tickets.${dataset.name} t on t.ticket_id = r.ticket_id
       where r.snapshot_id = $1 and r.raw is not null and t.is_actionable -- partial index *_open
         and ${CLOSES('r.raw')}
     ) as closing`,
    [snapshotId],
  );
  const { closing = [], known = 0 } = rows[0] ?? {};
  return compare(db, dataset, known, closing, snapshotAt);
}

/**
 * @param known how many ids of the file have a ticket
 * @param closing ids of open tickets that the file closes
 */
export async function compare(
  db: Db,
  dataset: Dataset,
  known: number,
  closing: readonly string[],
  snapshotAt: Date,
): Promise<Comparison> {
  const { rows } = await db.query<{
    last: Figures | null;
    open: number;
    hours_since_load: number | null;
    held_since: Date | null;
    hold_ms: number;
  }>(
    `select
       (
         select s.statistics from tickets_ops.snapshots s
         where s.dataset = $1 and s.status = 'done' and s.statistics is not null
         order by s.load_began_at desc limit 1
       ) as last,
       (select count(*)::int from tickets.${dataset.name} where is_actionable) as open, -- partial index *_open
       extract(epoch from greatest(
         now() - (
           select max(s.loaded_at) from tickets_ops.snapshots s
           where s.dataset = $1 and tickets_ops.counts_as_loaded(s.status)
         ),
         $2::timestamptz - (select m.snapshot_at from tickets_ops.high_water_mark($1) m)
       ))::float8 / 3600 as hours_since_load,
       (
         select h.held_since
         from tickets_ops.snapshots h
         cross join lateral (
           select count(*) as held, count(*) filter (where r.ticket_id = any ($3)) as again
           from tickets_ops.snapshot_rows r join tickets.${dataset.name} t on t.ticket_id = r.ticket_id
           where r.snapshot_id = h.snapshot_id and r.raw is not null and t.is_actionable and ${CLOSES('r.raw')}
         ) as c
         -- The same, or nearly so: an hour brings a few changes of its own.
         where h.dataset = $1 and h.status = 'held' and h.held_since is not null and c.held > 0 and c.again >= 0.9 * c.held
         order by h.held_since limit 1
       ) as held_since,
       1000 * extract(epoch from tickets_ops.hold_time())::float8 as hold_ms`,
    [dataset.name, snapshotAt, closing],
  );
  const { last = null, open = 0, hours_since_load = null, held_since = null, hold_ms = 0 } = rows[0] ?? {};
  return {
    dataset: dataset.name,
    feed: await feedOf(db, dataset.name),
    last,
    known,
    open,
    closing: closing.length,
    hoursSinceLoad: hours_since_load,
    snapshotAt,
    heldSince: held_since,
    holdMs: hold_ms,
  };
}
