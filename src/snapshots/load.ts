/**
 * Loading: one batch of staged rows becomes tickets and history, in one transaction that also marks the batch done.
 * Only changes are written; a row that the database refuses goes to the rejects, and every other row loads.
 * Running it again, or on two workers at once, changes nothing more: the batch's row lock and status decide.
 */
import type { ClientBase } from 'pg';
import { MAX_REJECTS_KEPT } from '../csv/rejects.ts';
import { type Db, transaction } from '../database/client.ts';
import type { Dataset } from '../settings/dataset.ts';
import { enqueueFinalize } from './commit.ts';
import { ClaimLostError } from './ledger.ts';

/** What became of a batch. */
export type BatchOutcome =
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
    // Without JIT: compiling the upsert takes 2 s, however few rows it writes. With memory for a batch of usual rows, which
    // is some 5 MB in each of its steps: with the default 4 MB they go through files. Without merge joins: they sort whole
    // rows to find the places, of which a hash knows the few. With pages nearly as cheap in any order, which they are in
    // memory: the few tickets of a small batch are looked up, not sought in the whole table.
    await client.query(
      `select pg_advisory_xact_lock_shared(tickets.gazetteer_lock()), set_config('jit', 'off', true),
         set_config('work_mem', '32MB', true), set_config('enable_mergejoin', 'off', true),
         set_config('random_page_cost', '1.1', true)`,
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
    if (range.dataset === 'inc')
      await client.query('select tickets_ops.end_assignments($1, $2, $3)', [snapshotId, range.first, range.last]);
    await markDone(client, snapshotId, batch, written, { rejected: refused.size, kept });
    return { outcome: 'loaded', inserted: written.inserted, updated: written.updated, rejected: refused.size };
  });
}

/** The batches go when the snapshot is finished, and when what was staged of a failed one is pruned. */
async function withoutBatch(db: Db, snapshotId: string, batch: number): Promise<BatchOutcome> {
  const { rows } = await db.query<{ status: string }>(
    'select status from tickets_ops.snapshots where snapshot_id = $1',
    [snapshotId],
  );
  const status = rows[0]?.status ?? 'unknown';
  if (status === 'done' || status === 'partial') return { outcome: 'already done' };
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
    const { rows } = await db.query<Written>(upsertSql(dataset), [snapshotId, first, last, [...refused.keys()]]);
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

/**
 * Writes the refused rows to the rejects, as many as are kept of one snapshot. @returns how many were kept
 * The snapshot's row is locked until the commit, or two batches at once would keep too many.
 */
async function rejectRows(db: Db, snapshotId: string, refused: Refused): Promise<number> {
  if (refused.size === 0) return 0;
  const { rows } = await db.query<{ room: number }>(
    `select greatest($2 - rejects_kept, 0)::int as room from tickets_ops.snapshots where snapshot_id = $1 for no key update`,
    [snapshotId, MAX_REJECTS_KEPT],
  );
  const result = await db.query(
    `insert into tickets_ops.snapshot_rejects (snapshot_id, line, reason, row_text)
     select r.snapshot_id, r.line, f.reason, left(r.raw::text, 65536)
     from unnest($2::text[], $3::text[]) as f (ticket_id, reason)
     join tickets_ops.snapshot_rows r on r.snapshot_id = $1 and r.ticket_id = f.ticket_id -- primary key
     order by r.line limit $4`,
    [snapshotId, [...refused.keys()], [...refused.values()], rows[0]?.room ?? 0],
  );
  return result.rowCount ?? 0;
}

async function markDone(
  db: Db,
  snapshotId: string,
  batch: number,
  written: Written,
  { rejected, kept }: { rejected: number; kept: number },
): Promise<void> {
  await db.query(
    `update tickets_ops.snapshot_batches set status = 'done', error = null, done_at = clock_timestamp()
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

/**
 * The upsert of one range: classify once, then UPDATE, INSERT and history as parts of one statement (measured: 0.2 s
 * for 50 000 unchanged rows, where ON CONFLICT … WHERE raw IS DISTINCT FROM computes every generated column first and
 * takes 1.9 s). Changed tickets are locked in ticket_id order. Places are resolved per distinct place, not per row.
 */
function upsertSql(dataset: Dataset): string {
  const { name } = dataset;
  return `
    with batch as materialized (
      select ticket_id, raw from tickets_ops.snapshot_rows
      where snapshot_id = $1 and ticket_id between $2 and $3 and raw is not null -- primary key
        and ticket_id <> all ($4) -- hashed
    ),
    changed as materialized (
      select b.ticket_id, b.raw, t.is_actionable, t.normalized_status, t.assigned_team, t.cluster, t.closed_at, t.mttr
      from batch b join tickets.${name} t on t.ticket_id = b.ticket_id
      where t.raw <> b.raw
      order by t.ticket_id
      for update of t
    ),
    written as materialized (
      select ticket_id, raw, false as is_new from changed
      union all
      select ticket_id, raw, true from batch b
      where not exists (select from tickets.${name} t where t.ticket_id = b.ticket_id)
    ),
    clusters as materialized (
      -- A name is normalised only where its cluster has a place to compare it with: that is a tenth of a load of new rows.
      select n.cluster, c.geom,
        exists (
          select from tickets.geo_locations l
          where tickets.cluster_key(l.cluster) = tickets.cluster_key(n.cluster) and l.status = 'found' -- index geo_locations_place
        ) as has_places
      from (select distinct raw ->> 'cluster' as cluster from written) as n
      left join tickets.geo_clusters c on tickets.cluster_key(c.cluster) = tickets.cluster_key(n.cluster)
    ),
    names as materialized (
      select n.cluster, n.location_name, c.geom,
        case when c.has_places then tickets.location_key(n.location_name) end as location_key
      from (select distinct raw ->> 'cluster' as cluster, coalesce(raw ->> 'location_name', '') as location_name from written) as n
      join clusters c on c.cluster = n.cluster
      where c.geom is not null or c.has_places
    ),
    places as materialized (
      select n.cluster, n.location_name, l.geom as location_geom, n.geom as cluster_geom
      from names n
      left join tickets.geo_locations l
        on tickets.cluster_key(l.cluster) = tickets.cluster_key(n.cluster) and l.location_key = n.location_key and l.status = 'found'
    ),
    placed as materialized (
      select w.ticket_id, w.raw, w.is_new,
        coalesce(feed.geom, p.location_geom, p.cluster_geom) as geom,
        tickets.geo_source(feed.geom, p.location_geom, p.cluster_geom) as geo_source
      from written w
      cross join lateral (select tickets.feed_point(w.raw) as geom offset 0) as feed
      -- Not "is not distinct from", which cannot be hashed.
      left join places p on p.cluster = w.raw ->> 'cluster' and p.location_name = coalesce(w.raw ->> 'location_name', '')
    ),
    updated as (
      update tickets.${name} t
      set raw = p.raw, geom = p.geom, geo_source = p.geo_source, ingested_at = now()
      from placed p
      where not p.is_new and t.ticket_id = p.ticket_id
      returning t.ticket_id, ${TOLD}
    ),
    inserted as (
      insert into tickets.${name} (ticket_id, raw, geom, geo_source)
      select ticket_id, raw, geom, geo_source from placed where is_new
      returning ticket_id, ${TOLD}
    ),
    ${historySql(dataset)}
    select
      (select count(*)::int from inserted) as inserted,
      (select count(*)::int from updated) as updated,
      (select count(*)::int from batch) - (select count(*)::int from written) as unchanged`;
}

/** The columns of a ticket that its history tells. */
const TOLD =
  'is_actionable, normalized_status, assigned_team, owner, cluster, region, created_at_service, closed_at, mttr, sla_status';

/**
 * The part of the upsert that writes history, from the rows inserted and updated. What happens to a lifecycle carries the
 * ticket as it then was: of a ticket that is reopened, tickets.inc soon no longer knows the first closing.
 */
function historySql({ name }: Dataset): string {
  return `happened as (
      select i.ticket_id, case when i.is_actionable then 'opened' else 'closed' end as event,
        null as old_value, i.normalized_status as new_value,
        left(i.assigned_team, 100) as assigned_team, i.owner, left(i.cluster, 100) as cluster, left(i.region, 100) as region,
        i.created_at_service, null as team_before, i.closed_at, i.mttr, i.sla_status
      from inserted i
      union all
      select u.ticket_id, e.event, e.old_value, e.new_value,
        ticket.assigned_team, ticket.owner, ticket.cluster, ticket.region, ticket.created_at_service, ticket.team_before,
        closing.closed_at, closing.mttr, closing.sla_status
      from updated u
      join changed c on c.ticket_id = u.ticket_id
      cross join lateral (values
        -- NULL is for first sight: a ticket that had no status had an empty one.
        ('closed', coalesce(c.normalized_status, ''), u.normalized_status, c.is_actionable is true and u.is_actionable is not true),
        ('reopened', coalesce(c.normalized_status, ''), u.normalized_status, c.is_actionable is not true and u.is_actionable is true),
        ('closure_corrected', c.normalized_status, u.normalized_status, c.is_actionable is not true and u.is_actionable is not true
          and (c.closed_at is distinct from u.closed_at or c.mttr is distinct from u.mttr)),
        ('status_changed', c.normalized_status, u.normalized_status, c.normalized_status is distinct from u.normalized_status),
        ('team_changed', c.assigned_team, u.assigned_team, c.assigned_team is distinct from u.assigned_team),
        ('cluster_changed', c.cluster, u.cluster, c.cluster is distinct from u.cluster)
      ) as e (event, old_value, new_value, happened)
      left join lateral (
        select left(u.assigned_team, 100) as assigned_team, u.owner, left(u.cluster, 100) as cluster, left(u.region, 100) as region,
          u.created_at_service, left(c.assigned_team, 100) as team_before
      ) as ticket on e.event in ('closed', 'reopened')
      left join lateral (select u.closed_at, u.mttr, u.sla_status) as closing on e.event in ('closed', 'reopened', 'closure_corrected')
      where e.happened
    ),
    events as (
      insert into tickets.${name}_events (
        ticket_id, event, old_value, new_value, assigned_team, owner, cluster, region, created_at_service, team_before,
        closed_at, mttr, sla_status, snapshot_id, snapshot_at
      )
      select h.*, s.snapshot_id, s.snapshot_at from happened h, tickets_ops.snapshots s where s.snapshot_id = $1
    )`;
}
