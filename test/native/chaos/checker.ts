/**
 * What must be true after any mishap, worked out from the bucket, the provider's log and the tables alone. None of the
 * pipeline's own code is used: the CSV reader and the cleaning below are written anew, from the contract.
 */
import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import type pg from 'pg';
import { TICKETS } from '../../support/pipeline.ts';

type Raw = Record<string, string>;
/** A file that was put into the bucket, by its key. */
export type Put = ReadonlyMap<string, Buffer>;

type Ledger = {
  snapshot_id: string;
  source_key: string;
  source_etag: string;
  status: string;
  archived_key: string | null;
  read: number;
  written: number;
};

/** Every file is in the ledger with an outcome, at most once loaded, and lies where that outcome puts it, byte for byte. */
export async function checkFiles(db: pg.Pool, put: Put, bucket: ReadonlyMap<string, Buffer>): Promise<Ledger[]> {
  const { rows: ledger } = await db.query<Ledger>(
    `select snapshot_id, source_key, source_etag, status, archived_key, rows_read::int as read,
       (rows_inserted + rows_updated + rows_unchanged + rows_dropped_alarm + rows_dropped_sentinel + rows_duplicate + rows_rejected)::int as written
     from tickets_ops.snapshots order by staged_at, snapshot_id`,
  );
  for (const [key, bytes] of put) {
    const looks = ledger.filter(
      ({ source_key, source_etag }) =>
        source_key === key && source_etag === createHash('md5').update(bytes).digest('hex'),
    );
    const loads = looks.filter(({ status }) => status === 'done');
    assert.ok(looks.length > 0, `${key} is not in the ledger`);
    assert.deepEqual(
      looks.filter(({ status }) => !['done', 'unchanged', 'superseded', 'failed'].includes(status)),
      [],
      `${key} has no outcome`,
    );
    assert.ok(loads.length <= 1, `${key} was loaded twice`);
    const settled = looks.some(({ status }) => status === 'done' || status === 'unchanged');
    const archived = key.replace(/([^/]*)$/, 'processed/$1');
    assert.ok(
      bucket.get(settled ? archived : key)?.equals(bytes),
      `${key} (${looks.map(({ status }) => status)}) is lost or changed`,
    );
    assert.ok(!bucket.has(settled ? key : archived), `${key} is there twice`);
  }
  assert.equal(bucket.size, put.size, 'something else lies in the bucket');
  for (const { snapshot_id, status, read, written } of ledger) {
    if (status === 'done') assert.equal(written, read, `the counts of snapshot ${snapshot_id}`);
  }
  return ledger;
}

/** Tickets and history are what the loaded files, one after the other, make of nothing. */
export async function checkTickets(
  db: pg.Pool,
  put: Put,
  ledger: readonly Ledger[],
): Promise<{ tickets: number; events: number }> {
  const tickets = new Map<string, Raw>();
  const history: string[] = [];
  for (const { snapshot_id, source_key, status } of ledger) {
    if (status !== 'done') continue;
    for (const [id, after] of ticketsOf(put.get(source_key) ?? Buffer.alloc(0))) {
      const before = tickets.get(id);
      tickets.set(id, after);
      history.push(...eventsOf(before, after).map(([event, from, to]) => [snapshot_id, id, event, from, to].join('|')));
    }
  }
  const { rows } = await db.query<{ ticket_id: string; raw: Raw }>(`select ticket_id, raw from ${TICKETS}`);
  assert.deepEqual(new Map(rows.map(({ ticket_id, raw }) => [ticket_id, raw])), tickets);

  const { rows: events } = await db.query<{
    snapshot_id: string;
    ticket_id: string;
    event: string;
    old_value: string | null;
    new_value: string | null;
  }>(`select snapshot_id, ticket_id, event, old_value, new_value from ${TICKETS}_events order by event_id`);
  const told = events.map((e) => [e.snapshot_id, e.ticket_id, e.event, e.old_value ?? '', e.new_value ?? ''].join('|'));
  // Whether a status change is told beside the closing that it is part of is the pipeline's choice; that it is told once, and truly, is not.
  const ofStatus = (line: string) => line.includes('|status_changed|');
  assert.deepEqual(told.filter((line) => !ofStatus(line)).sort(), history.filter((line) => !ofStatus(line)).sort());
  assert.equal(new Set(told).size, told.length, 'an event is told twice');
  const lastStatus = new Map(
    events
      .filter(({ event }) => event !== 'team_changed' && event !== 'cluster_changed')
      .map((e) => [e.ticket_id, e.new_value ?? '']),
  );
  for (const [id, raw] of tickets)
    assert.equal(lastStatus.get(id), raw['normalized_status'], `the history of ${id} ends elsewhere`);
  return { tickets: tickets.size, events: events.length };
}

/** Nothing is stuck, and nothing is left over. */
export async function checkQueue(db: pg.Pool): Promise<void> {
  const of = async (sql: string) => (await db.query(sql)).rows;
  assert.deepEqual(
    await of(
      `select id, task, state, last_error from tickets_ops.jobs where task in ('fetch_snapshot', 'upsert_batch', 'finalize_snapshot') and state <> 'failed'`,
    ),
    [],
  );
  assert.deepEqual(await of(`select id, task, last_error from tickets_ops.failed_jobs where superseded is null`), []);
  assert.deepEqual(await of(`select snapshot_id, status from tickets_ops.snapshots where in_flight`), []);
  const known = `select pool_id from tickets_ops.worker_states() where state = 'alive'`;
  assert.deepEqual(
    await of(
      `select id, task, locked_by from tickets_ops.jobs where state = 'running' and locked_by not in (${known})`,
    ),
    [],
  );
  assert.deepEqual(
    await of(
      `select queue_name from graphile_worker._private_job_queues where locked_by is not null and locked_by not in (${known})`,
    ),
    [],
  );
  assert.deepEqual(
    await of(
      `select snapshot_id from tickets_ops.snapshot_rows r join tickets_ops.snapshots s using (snapshot_id) where s.status <> 'failed'`,
    ),
    [],
  );
}

/** How late a call may be made; later its time has passed, and it must wait for another. */
const LATE_MS = 250;
/**
 * From the worker's decision to call until the provider, another process, sees it; two busy cores run all of them, and the
 * first call of a process loads what it needs.
 */
const ON_THE_WAY_MS = 500;
/** Timers and the two clocks' readings are whole milliseconds. */
const EARLY_MS = 3;

/**
 * By the database's clock no second has more calls than allowed; and each call that the provider saw had a time of its own there, and
 * came then. So no second at the provider can have more than fall into it, and into the 750 ms before it.
 * @param slots when the database gave away a call each
 * @param arrivals of calls at the provider. All in milliseconds.
 * @param thaws when frozen workers were woken: what one was just sending arrives then, which no program can prevent
 * @returns the most calls in any one second
 */
export function checkRate(
  slots: readonly number[],
  arrivals: readonly number[],
  thaws: readonly number[],
  rate: number,
): number {
  for (const [i, at] of slots.entries()) {
    const next = slots[i + rate] ?? Number.POSITIVE_INFINITY;
    assert.ok(next - at >= 1_000, `the database gave away ${rate + 1} calls within ${next - at} ms`);
  }
  const free = [...slots];
  let most = 0;
  for (const [i, at] of arrivals.entries()) {
    const wasFrozen = thaws.some((thaw) => at >= thaw && at < thaw + 2 * ON_THE_WAY_MS);
    const since = wasFrozen ? Number.NEGATIVE_INFINITY : at - LATE_MS - ON_THE_WAY_MS;
    const own = free.findIndex((slot) => slot >= since);
    const slot = free[own] ?? Number.POSITIVE_INFINITY;
    assert.ok(slot <= at + EARLY_MS, `a call at ${new Date(at).toISOString()} had no time of its own`);
    free.splice(own, 1);
    most = Math.max(most, arrivals.slice(i).filter((other) => other < at + 1_000).length);
  }
  return most;
}

function eventsOf(before: Raw | undefined, after: Raw): [string, string, string][] {
  const field = (raw: Raw | undefined, name: string) => raw?.[name] ?? '';
  const [from, to] = [field(before, 'normalized_status'), field(after, 'normalized_status')];
  const isOpen = (raw: Raw) => raw['is_actionable'] === 'true';
  if (!before) return [[isOpen(after) ? 'opened' : 'closed', '', to]];
  const events: [string, string, string][] = [];
  if (isOpen(before) !== isOpen(after)) events.push([isOpen(after) ? 'reopened' : 'closed', from, to]);
  for (const [event, name] of [
    ['team_changed', 'assigned_team'],
    ['cluster_changed', 'cluster'],
  ] as const) {
    if (field(before, name) !== field(after, name)) events.push([event, field(before, name), field(after, name)]);
  }
  return events;
}

const DROPPED = new Set(['week_start', 'week_end', 'source_snapshot_id', 'department', 'source_type']);

function ticketsOf(bytes: Buffer): Map<string, Raw> {
  const text = bytes
    .toString('utf8')
    .replace(/^\ufeff/, '')
    .replaceAll('\0', '\ufffd');
  const [header = [], ...records] = parse(text).filter(([first]) => !first?.startsWith('EXPORT STOPPED'));
  const tickets = new Map<string, Raw>();
  for (const record of records) {
    if (record.length !== header.length) continue;
    const row = Object.fromEntries(header.map((name, i) => [name, record[i] ?? '']));
    const id = row['ticket_id']?.trim() ?? '';
    if (id === '' || row['is_alarm']?.toLowerCase() === 'true') continue;
    const kept = Object.entries(row).filter(([name]) => !DROPPED.has(name) && !name.startsWith('source_s3_'));
    tickets.set(id, {
      ...Object.fromEntries(kept),
      ticket_id: id,
      region: row['region']?.toLowerCase() ?? '',
      raw_status: row['raw_status']?.toUpperCase() ?? '',
    });
  }
  return tickets;
}

/** RFC 4180, with either line end. */
function parse(text: string): string[][] {
  const records: string[][] = [];
  const record: string[] = [];
  let field = '';
  let quoted = false;
  for (let i = 0; i < text.length; i += 1) {
    const char = text[i];
    if (quoted) {
      if (char !== '"') field += char;
      else if (text[i + 1] === '"') field += text[++i];
      else quoted = false;
    } else if (char === '"') quoted = true;
    else if (char === ',' || char === '\n') {
      record.push(char === '\n' && field.endsWith('\r') ? field.slice(0, -1) : field);
      field = '';
      if (char === '\n') records.push(record.splice(0));
    } else field += char;
  }
  return records.filter((fields) => fields.length > 1 || fields[0] !== '');
}
