/**
 * Records that are known by their digests are not parsed, and all that comes of a file is as if they had been. The same
 * random files go both ways: with what was learnt from the files before, and with all digests deleted before each file.
 */
import assert from 'node:assert/strict';
import { after, before, beforeEach, describe, test } from 'node:test';
import fc from 'fast-check';
import pg from 'pg';
import { pino } from 'pino';
import { addCounts, noCounts, type TicketRow } from '../../src/csv/chunks.ts';
import type { KnownRecords } from '../../src/csv/digests.ts';
import { readTicketCsv } from '../../src/csv/records.ts';
import { RefusedFileError } from '../../src/csv/refused.ts';
import type { Reject } from '../../src/csv/rejects.ts';
import { dataset } from '../../src/settings/dataset.ts';
import { complete } from '../../src/snapshots/complete.ts';
import * as ledger from '../../src/snapshots/ledger.ts';
import { loadBatch } from '../../src/snapshots/load.ts';
import { type KnownBytes, NOTHING_KNOWN, stage } from '../../src/snapshots/stage.ts';
import { type Environment, startEnvironment } from '../support/environment.ts';
import { csvOf, ledger as entries, fetchNow, keyOf, rawTickets, rowVersions } from '../support/pipeline.ts';
import { filesInARow } from '../support/random-files.ts';

/** Sequences of files that go through the database; each takes a second there. */
const SEQUENCES = Number(process.env.DIGEST_SEQUENCES ?? 25);

async function* cut(bytes: Buffer, cuts: readonly number[]): AsyncGenerator<Buffer> {
  const edges = [0, ...cuts.filter((at) => at < bytes.length).sort((a, b) => a - b), bytes.length];
  for (const [n, edge] of edges.slice(1).entries()) yield bytes.subarray(edges[n], edge);
}

describe('reading with known records', () => {
  /** What reading gives, or the reason why the file is refused. */
  async function read(bytes: AsyncIterable<Buffer>, known?: KnownRecords) {
    const counts = noCounts();
    const rows: TicketRow[] = [];
    const rejects: Reject[] = [];
    try {
      const chunks = readTicketCsv(bytes, known);
      for (;;) {
        const { value, done } = await chunks.next();
        if (done) return { counts, rows, rejects, ending: value };
        addCounts(counts, value.counts);
        rows.push(...value.rows);
        rejects.push(...value.rejects);
      }
    } catch (error) {
      if (error instanceof RefusedFileError) return { refused: error.message };
      throw error;
    }
  }

  /** The last line of each ticket, and how many lines there were before it. */
  function lastLines(rows: readonly TicketRow[]): { tickets: Record<string, TicketRow>; others: number } {
    const inOrder = [...rows].sort((a, b) => a.line - b.line);
    const tickets = Object.fromEntries(inOrder.map((row) => [row.ticket_id, row]));
    return { tickets, others: rows.length - Object.keys(tickets).length };
  }

  test('tickets, counts, figures, rejects and the end are those of parsing them', async () => {
    let knownRecords = 0;
    await fc.assert(
      fc.asyncProperty(filesInARow(3), fc.array(fc.nat(400), { maxLength: 4 }), async (files, cuts) => {
        const loaded = new Map<string, TicketRow>();
        for (const file of files) {
          const parsed = await read(cut(file, []), { store: 'here', stage: undefined });
          const staged: TicketRow[] = [];
          const seen = await read(cut(file, cuts), {
            store: 'here',
            stage: async (records) =>
              records.map(({ line, ticketId, digest }) => {
                const row = loaded.get(digest);
                if (row?.ticket_id !== ticketId) return undefined;
                staged.push({ ...row, line });
                return row.figures;
              }),
          });
          knownRecords += staged.length;
          assert.deepEqual(outcome(seen, staged), outcome(parsed));
          for (const row of parsed.rows ?? []) loaded.set(row.digest, row);
        }
      }),
      { numRuns: 400, seed: Number(process.env.DIGEST_SEED ?? 20260615) },
    );
    assert.ok(knownRecords > 400, `only ${knownRecords} records were known`);
  });

  function outcome({ rows, ...rest }: Awaited<ReturnType<typeof read>>, staged: readonly TicketRow[] = []) {
    if (!rows || !rest.counts) return rest;
    const { tickets, others } = lastLines([...rows, ...staged]);
    return { ...rest, tickets, counts: { ...rest.counts, duplicates: rest.counts.duplicates + others } };
  }

  const digests = async (csv: string, store = 'a') =>
    (await read(cut(Buffer.from(csv), []), { store, stage: undefined })).rows?.map(({ digest }) => digest);

  test('a record is another one under another header, of another table, or in other bytes', async () => {
    const [one] = (await digests('ticket_id,owner\nWOT1,x\n')) ?? [];
    assert.match(one ?? '', /^[0-9a-f]{32}$/);
    assert.deepEqual(await digests('\ufeff"ticket_id",owner\r\n\r\nWOT1,x'), [one], 'line ends and marks do not count');
    for (const [csv, store] of [
      ['ticket_id,team\nWOT1,x\n', 'a'],
      ['ticket_id,owner\nWOT1,x\n', 'b'],
      ['ticket_id,owner\nWOT1,"x"\n', 'a'],
    ] as const)
      assert.notDeepEqual(await digests(csv, store), [one], csv);
  });

  test('a record is the same one whatever stands in the columns that are dropped, unless that is more than text', async () => {
    const of = async (...fields: string[]) =>
      digests(`ticket_id,source_snapshot_id,owner,week_end\n${fields.join(',')}\n`);
    const one = await of('WOT1', '', 'x', '');
    assert.deepEqual(await of('WOT1', '41', 'x', '2026-06-15'), one);
    assert.deepEqual(await of('WOT1', '"4,""2"" "', 'x', '" "'), one);
    const quoted = await of('"WOT1"', '', '"x, y"', '');
    assert.deepEqual(await of('"WOT1"', '41', '"x, y"', '"2026-06-15"'), quoted);
    // Each is known by its own bytes only.
    for (const dropped of ['é', '\0', '4"2', '"4" 2', '"4\n2"'])
      assert.notDeepEqual(await of('WOT1', dropped, 'x', ''), one, dropped);
    assert.notDeepEqual(await of('WOT1', '', 'x "y"', '4'), await of('WOT1', '', 'x "y"', ''));
  });
});

describe('loading with known records', () => {
  let env: Environment;
  let client: pg.Client;
  before(async () => {
    env = await startEnvironment();
    client = new pg.Client(env.databaseUrl);
    await client.connect();
  });
  after(async () => {
    await client.end();
    await env.close();
  });
  beforeEach(() => env.reset());

  const rowsOf = async (sql: string) => (await client.query(sql)).rows;

  /** Loads a file as the jobs do. @returns what became of its staging */
  async function load(hour: number, file: Buffer, cuts: readonly number[], known: KnownBytes): Promise<string> {
    const inc = dataset('inc');
    const snapshotAt = new Date(Date.UTC(2026, 5, 15, hour));
    const claim = await ledger.claim(
      client,
      { dataset: 'inc', jobId: null, forced: false, backfill: false },
      { key: `${hour}.csv`, etag: null, size: file.length, lastModified: snapshotAt, snapshotAt },
      'file',
    );
    assert.ok(typeof claim === 'object');
    try {
      const staged = await stage(client, inc, claim, cut(file, cuts), known);
      if (staged !== 'loading') return staged;
    } catch (error) {
      if (!(error instanceof RefusedFileError)) throw error;
      await ledger.fail(client, claim.snapshotId, error.message);
      return error.message;
    }
    const batches = await rowsOf(
      `select batch from tickets_ops.snapshot_batches where snapshot_id = ${claim.snapshotId} order by 1`,
    );
    for (const { batch } of batches) await loadBatch(client, dataset, claim.snapshotId, batch);
    assert.equal(
      await complete(client, claim.snapshotId, () => assert.fail('it is a local file'), pino({ level: 'silent' })),
      undefined,
    );
    return 'loaded';
  }

  const LEDGER = `select source_sha256, status, error, broken_off, hold_reason, warnings, statistics, batches_total, rows_read, rows_inserted,
    rows_updated, rows_unchanged, rows_dropped_alarm, rows_dropped_sentinel, rows_duplicate, rows_rejected, rejects_kept, rows_repaired,
    open_missing from tickets_ops.snapshots order by snapshot_id desc limit 1`;
  const EVENTS = `select to_jsonb(e) - '{event_id,recorded_at,snapshot_id}'::text[] as told from tickets.inc_events e order by (to_jsonb(e) - '{event_id,recorded_at,snapshot_id}'::text[])::text collate "C"`;
  const REJECTS = `select snapshot_id - (select min(snapshot_id) from tickets_ops.snapshots) as file, line, reason, row_text
    from tickets_ops.snapshot_rejects order by 1, 2`;
  const VERSIONS = `select ticket_id, format('%s %s', xmin, ctid) as version from tickets.inc`;

  const known = async () =>
    (
      await rowsOf(
        `select t.ticket_id from tickets_ops.inc_digests d
         join tickets.inc t on t.ticket_id = d.ticket_id and t.ctid = d.row_ctid and t.xmin = d.row_xmin order by 1`,
      )
    ).map(({ ticket_id: id }) => id);

  /** What people do to tickets between two files. */
  const PAST_THE_LOAD = {
    nothing: 'select',
    update: `update tickets.inc set raw = raw || '{"owner": "by hand"}' where ticket_id = 'WOT1'`,
    'update to the same': `update tickets.inc set raw = raw`,
    'insert or update': `insert into tickets.inc (ticket_id, raw) values ('WOT2', '{"ticket_id": "WOT2"}')
      on conflict (ticket_id) do update set raw = excluded.raw, ingested_at = now()`,
    rename: `update tickets.inc set ticket_id = 'WOT9' where ticket_id = 'WOT3' and not exists (select from tickets.inc where ticket_id = 'WOT9')`,
    move: `update tickets.inc set geom = null, geo_source = 'none'`,
    delete: `delete from tickets.inc where ticket_id in ('WOT1', 'WOT4')`,
    truncate: 'truncate tickets.inc',
    'write without triggers': `begin; set local session_replication_role = replica;
      update tickets.inc set raw = raw || '{"owner": "past every trigger"}' where ticket_id <= 'WOT2'; commit`,
    rewrite: 'cluster tickets.inc using inc_pkey',
  };
  const pastTheLoad = fc.constantFrom(...(Object.keys(PAST_THE_LOAD) as (keyof typeof PAST_THE_LOAD)[]));

  /** Snapshots that fail on the way: while they are read, when they are staged, when their tickets are written. */
  const failing = fc.constantFrom('none', 'reading', 'staged', 'written');

  /** Begins to load a file, and fails where `at` says. */
  async function failAt(at: string, hour: number, file: Buffer): Promise<void> {
    const inc = dataset('inc');
    const snapshotAt = new Date(Date.UTC(2026, 5, 15, hour));
    const claim = await ledger.claim(
      client,
      { dataset: 'inc', jobId: null, forced: false, backfill: false },
      { key: `${hour}-fails.csv`, etag: null, size: file.length, lastModified: snapshotAt, snapshotAt },
      'file',
    );
    assert.ok(typeof claim === 'object');
    async function* bytes() {
      yield at === 'reading' ? file.subarray(0, Math.ceil(file.length / 2)) : file;
      if (at === 'reading') throw new Error('the network is gone');
    }
    const staged = await stage(client, inc, claim, bytes(), { ...NOTHING_KNOWN, records: true }).catch(
      () => 'not staged',
    );
    if (staged === 'loading' && at === 'written') await loadBatch(client, dataset, claim.snapshotId, 1);
    await ledger.fail(client, claim.snapshotId, 'it should');
  }

  /** Loads files one after the other. @returns all that came of each, and how many tickets had a digest that fitted before it */
  async function outcomes(
    files: readonly Buffer[],
    acts: readonly string[],
    failures: readonly string[],
    cuts: readonly number[],
    learns: boolean,
  ) {
    await client.query(
      `truncate tickets.inc, tickets.inc_events, tickets.inc_daily, tickets.import_meta, tickets_ops.snapshots, tickets_ops.snapshot_rows,
         tickets_ops.inc_digests cascade`,
    );
    const came = [];
    let fitting = 0;
    for (const [n, file] of files.entries()) {
      await client.query(PAST_THE_LOAD[acts[n] as keyof typeof PAST_THE_LOAD]);
      if (!learns) await client.query('delete from tickets_ops.inc_digests');
      const failure = failures[n] ?? 'none';
      if (failure !== 'none') await failAt(failure, n, files[(n + 1) % files.length] as Buffer);
      if (!learns) await client.query('delete from tickets_ops.inc_digests');
      fitting += (await known()).length;
      const before = new Map((await rowsOf(VERSIONS)).map(({ ticket_id: id, version }) => [id, version]));
      const outcome = await load(n, file, cuts, { ...NOTHING_KNOWN, records: true });
      const after = await rowsOf(VERSIONS);
      came.push({
        outcome,
        written: after
          .filter(({ ticket_id: id, version }) => before.get(id) !== version)
          .map(({ ticket_id: id }) => id)
          .sort(),
        ledger: await rowsOf(LEDGER),
        tickets: await rowsOf('select ticket_id, raw, geo_source from tickets.inc order by ticket_id collate "C"'),
        events: await rowsOf(EVENTS),
        rejects: await rowsOf(REJECTS),
      });
    }
    return { came, fitting };
  }

  test('tickets, history, counts, rejects, warnings and what is written are those of parsing every record', async () => {
    let fitting = 0;
    await fc.assert(
      fc.asyncProperty(
        filesInARow(4),
        fc.array(pastTheLoad, { minLength: 4, maxLength: 4 }),
        fc.array(failing, { minLength: 4, maxLength: 4 }),
        fc.array(fc.nat(400), { maxLength: 3 }),
        async (files, acts, failures, cuts) => {
          const learnt = await outcomes(files, acts, failures, cuts, true);
          const parsed = await outcomes(files, acts, failures, cuts, false);
          fitting += learnt.fitting;
          assert.deepEqual(learnt.came, parsed.came);
        },
      ),
      { numRuns: SEQUENCES, seed: Number(process.env.DIGEST_SEED ?? 20260615) },
    );
    assert.ok(fitting > SEQUENCES, `only ${fitting} tickets had digests that fitted`);
  });

  const open = (id: number, fields: Record<string, string> = {}) => ({
    ticket_id: `WOT${id}`,
    is_actionable: 'true',
    normalized_status: 'Open',
    ...fields,
  });
  const putAndFetch = async (hour: number, file: string) => {
    await env.putObject(keyOf(hour), file);
    assert.deepEqual(await fetchNow(env), []);
  };
  /** Until then the records that are known: their tickets count as having no value anywhere. */
  const markDigests = () => env.pool.query('update tickets_ops.inc_digests set figures = 0');
  const ticketsWithAStatus = async () =>
    (
      await rowsOf(
        `select (statistics -> 'values' -> 'normalized_status' ->> 'filled')::int as n from tickets_ops.snapshots order by snapshot_id desc limit 1`,
      )
    )[0]?.n;

  test('an export that writes its own number into every record is known all the same', async () => {
    const exported = (number: number) =>
      csvOf([1, 2, 3].map((id) => open(id, { description: 'says "so", or\nnot', source_snapshot_id: `${number}` })));
    await putAndFetch(7, exported(7));
    await markDigests();
    await putAndFetch(8, exported(8));
    assert.equal(await ticketsWithAStatus(), 0);
    assert.deepEqual(
      (await entries(env)).map((entry) => [entry.rows_inserted, entry.rows_unchanged]),
      [
        [3, 0],
        [0, 3],
      ],
    );
  });

  test('a ticket that is written past the load, in any way: its record is parsed, and the next file sets it right', async () => {
    const file = csvOf([open(1), open(2), open(3)]);
    for (const [act, left] of [
      [`update tickets.inc set raw = raw || '{"owner": "me"}' where ticket_id = 'WOT2'`, ['WOT1', 'WOT3']],
      [`delete from tickets.inc where ticket_id <> 'WOT2'`, ['WOT2']],
      ['truncate tickets.inc', []],
      [`update tickets.inc set ticket_id = 'WOT4' where ticket_id = 'WOT1'`, ['WOT2', 'WOT3']],
      [`update tickets.inc set geom = null, geo_source = 'none', ingested_at = now()`, []],
      [
        `begin; set local session_replication_role = replica; update tickets.inc set raw = '{}' where ticket_id = 'WOT3'; commit`,
        ['WOT1', 'WOT2'],
      ],
      [`begin; update tickets.inc set raw = '{}'; rollback`, ['WOT1', 'WOT2', 'WOT3']],
    ] as const) {
      await env.reset();
      await putAndFetch(7, file);
      assert.deepEqual(await known(), ['WOT1', 'WOT2', 'WOT3']);
      await env.pool.query(act);
      assert.deepEqual(await known(), left, act);
      await putAndFetch(8, `${file}\n`);
      const tickets = await rawTickets(env);
      for (const id of [1, 2, 3]) assert.deepEqual(tickets[`WOT${id}`], open(id), act);
      assert.deepEqual((await known()).slice(0, 3), ['WOT1', 'WOT2', 'WOT3']);
    }
  });

  for (const [when, change] of [
    ['before', `new.raw := new.raw || '{"owner": "trigger"}'; return new;`],
    [
      'after',
      `if pg_trigger_depth() = 1 then
         update tickets.inc set raw = raw || '{"owner": "trigger"}' where ticket_id = new.ticket_id;
       end if;
       return null;`,
    ],
  ] as const)
    test(`somebody's trigger that changes tickets ${when} the load has written them does so with every file`, async () => {
      await env.pool.query(
        `create function public.change_ticket() returns trigger language plpgsql as $$ begin ${change} end $$;
         create trigger change_ticket ${when} insert or update on tickets.inc for each row execute function public.change_ticket()`,
      );
      try {
        for (const hour of [7, 8, 9]) {
          await putAndFetch(hour, csvOf([open(1)]) + '\n'.repeat(hour));
          assert.deepEqual(await rawTickets(env), { WOT1: { ...open(1), owner: 'trigger' } });
          assert.deepEqual(await known(), []);
        }
        assert.deepEqual(
          (await entries(env)).map((entry) => entry.rows_updated),
          [0, 1, 1],
        );
      } finally {
        await env.pool.query('drop function public.change_ticket() cascade');
      }
    });

  test('tickets that have no digest, as after a takeover, get theirs from the first file that shows them unchanged, untouched', async () => {
    await putAndFetch(7, csvOf([open(1), open(2)]));
    await env.pool.query('delete from tickets_ops.inc_digests');
    const before = await rowVersions(env);
    await putAndFetch(8, csvOf([open(1), open(2), open(3)]));
    assert.deepEqual(await known(), ['WOT1', 'WOT2', 'WOT3']);
    const { WOT3: _, ...old } = await rowVersions(env);
    assert.deepEqual(old, before);
  });

  test('by force every record is parsed', async () => {
    await putAndFetch(7, csvOf([open(1), open(2)]));
    await markDigests();
    assert.deepEqual(await fetchNow(env, { force: true }), []);
    assert.equal(await ticketsWithAStatus(), 2);
  });

  test('a ticket that the database refuses gets no digest, and is refused again', async () => {
    await env.pool.query(`alter table tickets.inc add constraint no_bob check (raw ->> 'owner' <> 'Bob')`);
    try {
      const rows = [open(1, { owner: 'Ann' }), open(2, { owner: 'Bob' }), open(3, { owner: 'Cy' })];
      for (const hour of [7, 8]) {
        await putAndFetch(hour, csvOf(rows) + '\n'.repeat(hour));
        assert.deepEqual(await known(), ['WOT1', 'WOT3']);
      }
      assert.deepEqual(
        (await entries(env)).map((entry) => [entry.rows_inserted, entry.rows_unchanged, entry.rows_rejected]),
        [
          [2, 0, 1],
          [0, 2, 1],
        ],
      );
    } finally {
      await env.pool.query('alter table tickets.inc drop constraint no_bob');
    }
  });

  test('the digests of deleted tickets go with the next maintenance, those of the others stay', async () => {
    await putAndFetch(7, csvOf([open(1), open(2)]));
    await env.pool.query(`delete from tickets.inc where ticket_id = 'WOT1'`);
    await env.pool.query(`select graphile_worker.add_job('fleettickets_maintain')`);
    assert.deepEqual(await env.runJobs(), []);
    assert.deepEqual(await rowsOf('select ticket_id from tickets_ops.inc_digests'), [{ ticket_id: 'WOT2' }]);
  });
});
