import assert from 'node:assert/strict';
import { after, before, beforeEach, describe, test } from 'node:test';
import {
  CompleteMultipartUploadCommand,
  CreateMultipartUploadCommand,
  HeadObjectCommand,
  UploadPartCommand,
} from '@aws-sdk/client-s3';
import { type Environment, startEnvironment, waitFor } from './support/environment.ts';
import { cutAfter, type FaultProxy, meanwhile, rewritten, startFaultProxy, status } from './support/fault-proxy.ts';
import {
  addFetch,
  csvOf,
  DATASET,
  fetchNow,
  importMeta,
  keyOf,
  ledger,
  PREFIX,
  rawTickets,
  rowVersions,
  runAgain,
  statuses,
  TICKETS,
} from './support/pipeline.ts';

const open = (id: number, fields: Record<string, string> = {}) => ({
  ticket_id: `WOT${String(id).padStart(7, '0')}`,
  is_actionable: 'true',
  is_alarm: 'false',
  normalized_status: 'Open',
  ...fields,
});
const ONE = csvOf([open(1), open(2)]);
const TWO = csvOf([open(1), open(2, { normalized_status: 'On Hold' }), open(3)]);
const THREE = csvOf([open(1), open(3, { normalized_status: 'Assigned' })]);
const HTML = '<!DOCTYPE html>\n<html><body>502 Bad Gateway</body></html>';

describe('ingesting', () => {
  let env: Environment;
  let proxy: FaultProxy;
  before(async () => {
    env = await startEnvironment();
    proxy = await startFaultProxy(env.s3.endpoint);
  });
  after(async () => {
    await proxy.close();
    await env.close();
  });
  beforeEach(async () => {
    proxy.heal();
    process.env.RUSTFS_ENDPOINT = proxy.endpoint;
    await env.reset();
  });

  const put = (hour: number, body: string | Uint8Array) => env.putObject(keyOf(hour), body);
  const archivedKey = (hour: number) => keyOf(hour).replace(PREFIX, `${PREFIX}processed/`);
  const ids = async () => Object.keys(await rawTickets(env)).map((id) => Number(id.slice(3)));
  const looks = async (): Promise<{ future_dated: string[]; new_file_at: Date | null } | undefined> =>
    (await env.pool.query('select future_dated, new_file_at from tickets_ops.looks')).rows[0];
  /** LastModified in milliseconds. */
  const modified = async (Key: string) =>
    (await env.bucket.send(new HeadObjectCommand({ Bucket: env.s3.bucket, Key }))).LastModified?.getTime();
  const staged = async () => {
    const { rows } = await env.pool.query('select count(*)::int as n from tickets_ops.snapshot_rows');
    return rows[0].n as number;
  };

  describe('a file', () => {
    test('with all that a real one has becomes tickets, counts that add up, rejects, freshness and an archived object', async () => {
      const rows = [
        'EXPORT STOPPED: again,,',
        'WOT0000001,true,false,Coast,new,"says ""no light"",\r\nsince 06:00"',
        'WOT0000002,false,false,COAST,done,a;b',
        'ALM1,true,TRUE,coast,,alarm',
        'WOT0000003,true',
        ' WOT0000002 ,false,false,Nairobi,done,the last wins',
        ',true,false,coast,,nobody',
        'WOT0000004,true,false,,,a\0b',
      ];
      const etag = await put(
        7,
        `\ufeffticket_id,is_actionable,is_alarm,region,raw_status,description,week_start\r\n${rows.map((row) => `${row}${row.split(',').length < 3 || row.startsWith('EXPORT') ? '' : ',2026-06-15'}\r\n`).join('')}`,
      );
      assert.deepEqual(await fetchNow(env), []);
      assert.deepEqual(await rawTickets(env), {
        WOT0000001: {
          ticket_id: 'WOT0000001',
          is_actionable: 'true',
          is_alarm: 'false',
          region: 'coast',
          raw_status: 'NEW',
          description: 'says "no light",\r\nsince 06:00',
        },
        WOT0000002: {
          ticket_id: 'WOT0000002',
          is_actionable: 'false',
          is_alarm: 'false',
          region: 'nairobi',
          raw_status: 'DONE',
          description: 'the last wins',
        },
        WOT0000004: {
          ticket_id: 'WOT0000004',
          is_actionable: 'true',
          is_alarm: 'false',
          region: '',
          raw_status: '',
          description: 'a\ufffdb',
        },
      });
      const counts = {
        rows_read: 8,
        rows_inserted: 3,
        rows_updated: 0,
        rows_unchanged: 0,
        rows_dropped_alarm: 1,
        rows_dropped_sentinel: 1,
        rows_duplicate: 1,
        rows_rejected: 2,
      };
      assert.deepEqual(await ledger(env), [
        {
          snapshot_id: 1,
          file: '2026-06-15T07-00-00.csv',
          status: 'done',
          error: null,
          broken_off: null,
          archived_key: archivedKey(7),
          ...counts,
          rows_repaired: 1,
          open_missing: 0,
        },
      ]);
      const { rows: rejects } = await env.pool.query(
        'select line::int, reason, row_text from tickets_ops.snapshot_rejects order by line',
      );
      assert.deepEqual(rejects, [
        { line: 7, reason: '2 fields where the header has 7', row_text: 'WOT0000003,true' },
        { line: 9, reason: 'no ticket_id', row_text: ',true,false,coast,,nobody,2026-06-15' },
      ]);
      const meta = await importMeta(env);
      assert.deepEqual({ ...meta, ...counts, source_etag: etag, source_key: keyOf(7) }, meta);
      assert.equal(new Date(String(meta?.snapshot_at)).toISOString(), '2026-06-15T04:00:00.000Z');
      for (const time of ['ingested_at', 'checked_at', 'source_last_modified'])
        assert.ok(Math.abs(Date.parse(String(meta?.[time])) - Date.now()) < 600_000, time);
      assert.deepEqual(await env.listKeys(), [archivedKey(7)]);
      assert.equal(await staged(), 0);
      const { rows: jobs } = await env.pool.query('select * from graphile_worker.jobs');
      assert.deepEqual(jobs, []);
    });

    test('whose ids stand again in far-away chunks loads the last line of each, in several batches', async () => {
      const records = Array.from({ length: 6_200 }, (_, n) => open(n, { note: 'first' }));
      const again = [open(0, { note: 'second' }), open(3_000, { note: 'second' }), open(3_000, { note: 'third' })];
      await put(7, csvOf([...records, ...again]));
      assert.deepEqual(await fetchNow(env), []);
      const [entry] = await ledger(env);
      assert.deepEqual(
        [entry?.status, entry?.rows_read, entry?.rows_inserted, entry?.rows_duplicate],
        ['done', 6_203, 6_200, 3],
      );
      const { rows } = await env.pool.query(
        `select ticket_id, raw ->> 'note' as note from ${TICKETS} where raw ->> 'note' <> 'first' order by ticket_id`,
      );
      assert.deepEqual(rows, [
        { ticket_id: 'WOT0000000', note: 'second' },
        { ticket_id: 'WOT0003000', note: 'third' },
      ]);
    });

    test('whose later line takes a change back, or brings it, follows the last line', async () => {
      const before = Array.from({ length: 2_500 }, (_, n) => open(n, { note: 'before' }));
      await put(7, csvOf(before));
      assert.deepEqual(await fetchNow(env), []);
      const [zero, one] = [open(0, { note: 'after' }), open(1, { note: 'after' })];
      await put(8, csvOf([zero, ...before.slice(1), ...before.slice(0, 1), one]));
      assert.deepEqual(await fetchNow(env), []);
      const entry = (await ledger(env)).at(-1);
      assert.deepEqual(
        [entry?.status, entry?.rows_read, entry?.rows_updated, entry?.rows_unchanged, entry?.rows_duplicate],
        ['done', 2_502, 1, 2_499, 2],
      );
      const { rows } = await env.pool.query(`select ticket_id from ${TICKETS} where raw ->> 'note' = 'after'`);
      assert.deepEqual(rows, [{ ticket_id: 'WOT0000001' }]);
    });

    test('with a new column, without optional ones, in any order loads', async () => {
      await put(7, 'brand_new,ticket_id\nshiny,WOT0000001\n');
      assert.deepEqual(await fetchNow(env), []);
      assert.deepEqual(await rawTickets(env), { WOT0000001: { ticket_id: 'WOT0000001', brand_new: 'shiny' } });
    });

    test('with fields of 1 MB loads, also in columns that are indexed', async () => {
      const long = 'Kilimani "FDT1", '.repeat(62_000);
      const fields = ['cluster', 'location_name', 'mttr', 'description'];
      await put(7, csvOf([open(1, Object.fromEntries(fields.map((field) => [field, long]))), open(2)]));
      assert.deepEqual(await fetchNow(env), []);
      const { rows } = await env.pool.query(
        `select length(raw ->> 'description') as description, length(cluster) as cluster, mttr from ${TICKETS} order by ticket_id`,
      );
      assert.deepEqual(rows, [
        { description: long.length, cluster: long.length, mttr: null },
        { description: 0, cluster: null, mttr: null },
      ]);
    });

    test('that no longer lists open tickets counts them; its alarms are none', async () => {
      await put(7, ONE);
      await put(8, csvOf([open(2), open(8, { is_alarm: 'true' }), open(9, { is_alarm: 'True' })]));
      assert.deepEqual(await fetchNow(env, { backfill: true }), []);
      assert.deepEqual(
        (await ledger(env)).map((entry) => [
          entry.status,
          entry.rows_read,
          entry.rows_dropped_alarm,
          entry.open_missing,
        ]),
        [
          ['done', 2, 0, 0],
          ['done', 3, 2, 1],
        ],
      );
      assert.deepEqual(await ids(), [1, 2]);
    });

    test('that is under processed/, or no CSV, is not looked at', async () => {
      await env.putObject(archivedKey(6), ONE);
      await env.putObject(`${PREFIX}readme.md`, ONE);
      assert.deepEqual(await fetchNow(env), []);
      assert.deepEqual(await ledger(env), []);
      assert.equal(typeof (await importMeta(env))?.checked_at, 'string');
      assert.equal((await env.listKeys()).length, 2);
    });

    test('that is empty, or nearly a CSV by its name, leaves one row that says so, and stays', async () => {
      await put(7, '');
      await env.putObject(`${PREFIX}2026-06-15T08-00-00.csv.part`, ONE);
      for (let run = 0; run < 2; run += 1) assert.deepEqual(await fetchNow(env), []);
      assert.deepEqual(
        (await ledger(env)).map(({ file, status, error }) => [file, status, /empty|no \.csv/.exec(error ?? '')?.[0]]),
        [
          ['2026-06-15T07-00-00.csv', 'failed', 'empty'],
          ['2026-06-15T08-00-00.csv.part', 'failed', 'no .csv'],
        ],
      );
      assert.equal((await env.listKeys()).length, 2);
      await put(7, ONE);
      assert.deepEqual(await fetchNow(env), []);
      assert.deepEqual(await ids(), [1, 2]);
    });
  });

  describe('only changes are written', () => {
    test('an unchanged row is not touched, a changed one is', async () => {
      await put(7, ONE);
      await fetchNow(env);
      const before = await rowVersions(env);
      await put(8, TWO);
      assert.deepEqual(await fetchNow(env), []);
      const after = await rowVersions(env);
      assert.equal(after.WOT0000001, before.WOT0000001);
      assert.notEqual(after.WOT0000002, before.WOT0000002);
      const [, second] = await ledger(env);
      assert.deepEqual([second?.rows_inserted, second?.rows_updated, second?.rows_unchanged], [1, 1, 1]);
    });

    test('the same ETag again: nothing is read or written but the freshness, and the file is archived', async () => {
      await put(7, ONE);
      await fetchNow(env);
      const [before, meta] = [await rowVersions(env), await importMeta(env)];
      await put(8, ONE);
      proxy.heal();
      assert.deepEqual(await fetchNow(env), []);
      assert.deepEqual(
        proxy.requests.filter((request) => /^GET .*T08/.test(request)),
        [],
      );
      assert.deepEqual(await rowVersions(env), before);
      assert.deepEqual(await statuses(env), [
        [7, 'done'],
        [8, 'unchanged'],
      ]);
      const now = await importMeta(env);
      assert.equal(new Date(String(now?.snapshot_at)).toISOString(), '2026-06-15T05:00:00.000Z');
      assert.ok(String(now?.checked_at) > String(meta?.checked_at));
      assert.equal(now?.ingested_at, meta?.ingested_at);
      assert.deepEqual(await env.listKeys(), [archivedKey(7), archivedKey(8)]);
    });

    test('the same bytes under another ETag are recognised by their hash', async () => {
      await put(7, ONE);
      await fetchNow(env);
      const before = await rowVersions(env);
      const upload = { Bucket: env.s3.bucket, Key: keyOf(8) };
      const { UploadId } = await env.bucket.send(new CreateMultipartUploadCommand(upload));
      const { ETag } = await env.bucket.send(new UploadPartCommand({ ...upload, UploadId, PartNumber: 1, Body: ONE }));
      await env.bucket.send(
        new CompleteMultipartUploadCommand({
          ...upload,
          UploadId,
          MultipartUpload: { Parts: [{ PartNumber: 1, ETag }] },
        }),
      );
      assert.deepEqual(await fetchNow(env), []);
      assert.deepEqual(await statuses(env), [
        [7, 'done'],
        [8, 'unchanged'],
      ]);
      assert.deepEqual(await rowVersions(env), before);
      assert.equal(await staged(), 0);
      assert.deepEqual(await env.listKeys(), [archivedKey(7), archivedKey(8)]);
    });

    test('the same bytes are loaded again once their records would be cleaned by newer rules, and then count as unchanged', async () => {
      await put(7, ONE);
      await fetchNow(env);
      const before = await rowVersions(env);
      await env.pool.query('update tickets_ops.snapshots set cleaning_version = cleaning_version - 1');
      await put(8, ONE);
      assert.deepEqual(await fetchNow(env), []);
      await put(9, ONE);
      assert.deepEqual(await fetchNow(env), []);
      assert.deepEqual(await statuses(env), [
        [7, 'done'],
        [8, 'done'],
        [9, 'unchanged'],
      ]);
      assert.deepEqual(await rowVersions(env), before, 'the rules made the same of them');
      assert.equal(typeof (await importMeta(env))?.cleaning_version, 'number');
    });

    test('the bytes of a takeover, of which nobody knows how they were cleaned, count as unchanged', async () => {
      const etag = await put(7, ONE);
      await env.pool.query(
        `insert into tickets.import_meta (dataset, metadata) values ('${DATASET}', jsonb_build_object('source_etag', $1::text, 'snapshot_at', '2026-06-15T06:00:00'))`,
        [etag],
      );
      assert.deepEqual(await fetchNow(env), []);
      assert.deepEqual(await statuses(env), [[7, 'unchanged']]);
    });

    test('other bytes with the same rows are loaded, and write no ticket', async () => {
      await put(7, ONE);
      await fetchNow(env);
      const before = await rowVersions(env);
      await put(8, `${ONE}\n`);
      assert.deepEqual(await fetchNow(env), []);
      const [, second] = await ledger(env);
      assert.deepEqual([second?.status, second?.rows_unchanged, second?.rows_read], ['done', 2, 2]);
      assert.deepEqual(await rowVersions(env), before);
    });
  });

  describe('which file', () => {
    test('the newest; older ones are written down as superseded and stay where they are', async () => {
      await Promise.all([put(7, ONE), put(8, TWO), put(9, THREE)]);
      assert.deepEqual(await fetchNow(env), []);
      assert.deepEqual((await statuses(env)).sort(), [
        [7, 'superseded'],
        [8, 'superseded'],
        [9, 'done'],
      ]);
      assert.deepEqual(await ids(), [1, 3]);
      assert.deepEqual(await env.listKeys(), [keyOf(7), keyOf(8), archivedKey(9)]);
      assert.deepEqual(await fetchNow(env, { backfill: true }), [], 'nor does a backfill take them any more');
      assert.deepEqual(await ids(), [1, 3]);
    });

    test('a backfill takes them oldest first, unchanged ones included', async () => {
      await Promise.all([put(7, ONE), put(8, TWO), put(9, TWO), put(10, THREE)]);
      assert.deepEqual(await fetchNow(env, { backfill: true }), []);
      assert.deepEqual(await statuses(env), [
        [7, 'done'],
        [8, 'done'],
        [9, 'unchanged'],
        [10, 'done'],
      ]);
      assert.deepEqual(
        (await ledger(env)).map((entry) => [entry.rows_inserted, entry.rows_updated, entry.open_missing]),
        [
          [2, 0, 0],
          [1, 1, 0],
          [0, 0, null],
          [0, 1, 1],
        ],
      );
      assert.deepEqual(await env.listKeys(), [7, 8, 9, 10].map(archivedKey));
    });

    test('a backfill after a failure takes what was passed over', async () => {
      await Promise.all([put(7, ONE), put(8, HTML)]);
      assert.deepEqual(await fetchNow(env), []);
      assert.deepEqual((await statuses(env)).sort(), [
        [7, 'done'],
        [8, 'failed'],
      ]);
    });

    test('one that is older than what is loaded never overwrites newer tickets, not even by force', async () => {
      await put(9, THREE);
      await fetchNow(env);
      await env.deleteObject(archivedKey(9));
      await put(8, TWO);
      for (const payload of [{}, { backfill: true }, { force: true }]) {
        assert.deepEqual(await fetchNow(env, payload), []);
        assert.deepEqual(await ids(), [1, 3]);
      }
      assert.deepEqual(await statuses(env), [
        [9, 'done'],
        [8, 'superseded'],
      ]);
    });

    test('the clock in the name decides, whatever LastModified says', async () => {
      await put(9, THREE);
      await put(8, TWO);
      assert.deepEqual(await fetchNow(env), []);
      assert.deepEqual((await statuses(env)).sort(), [
        [8, 'superseded'],
        [9, 'done'],
      ]);
    });

    test('of one second, the later one; the earlier never overwrites it', async () => {
      await put(10, ONE);
      const copy = keyOf(10).replace('.csv', ' (1).csv');
      await waitFor('another second of LastModified', async () => {
        await env.putObject(copy, TWO);
        const [first, second] = await Promise.all([keyOf(10), copy].map((key) => modified(key)));
        return (second ?? 0) > (first ?? 0);
      });
      for (let run = 0; run < 2; run += 1) assert.deepEqual(await fetchNow(env), []);
      assert.deepEqual(
        (await ledger(env)).map(({ file, status }) => [file, status]),
        [
          ['2026-06-15T10-00-00.csv', 'superseded'],
          ['2026-06-15T10-00-00 (1).csv', 'done'],
        ],
      );
      assert.deepEqual(await ids(), [1, 2, 3]);
    });

    test('of one second with fractions, the later one', async () => {
      await env.putObject(keyOf(10).replace('.csv', '.870.csv'), TWO);
      await env.putObject(keyOf(10).replace('.csv', '.120.csv'), ONE);
      for (let run = 0; run < 2; run += 1) assert.deepEqual(await fetchNow(env), []);
      assert.deepEqual(await ids(), [1, 2, 3]);
    });

    test('one name with the contents A, B, A: the third is loaded like the first', async () => {
      for (const [body, expected] of [
        [ONE, [1, 2]],
        [TWO, [1, 2, 3]],
      ] as const) {
        await put(10, body);
        assert.deepEqual(await fetchNow(env), []);
        assert.deepEqual(await ids(), expected);
      }
      const before = await modified(keyOf(10).replace(PREFIX, `${PREFIX}processed/`));
      await waitFor('another second of LastModified', async () => {
        await put(10, ONE);
        return ((await modified(keyOf(10))) ?? 0) > (before ?? 0) + 1_000;
      });
      assert.deepEqual(await fetchNow(env), []);
      assert.deepEqual(
        (await statuses(env)).map(([, status]) => status),
        ['done', 'done', 'done'],
      );
      assert.equal((await rawTickets(env))['WOT0000002']?.['normalized_status'], 'Open');
    });

    test('a time ahead of the clock is refused at each look, shuts nobody out, and is named while the file lies there', async () => {
      const ahead = new Date(Date.now() + (3 + 13) * 3_600_000).toISOString().slice(0, 19).replaceAll(':', '-');
      await env.putObject(`${PREFIX}${ahead}.csv`, THREE);
      await put(7, ONE);
      for (const mode of [{}, { force: true }, { backfill: true }]) assert.deepEqual(await fetchNow(env, mode), []);
      assert.deepEqual(await ids(), [1, 2]);
      const [refused] = (await ledger(env)).filter(({ file }) => file.startsWith(ahead));
      assert.equal(refused?.status, 'failed');
      assert.match(refused?.error ?? '', /13 hours ahead of the database's clock.*until its time has come/);
      assert.deepEqual((await looks())?.future_dated, [`${PREFIX}${ahead}.csv`]);
      await env.deleteObject(`${PREFIX}${ahead}.csv`);
      await fetchNow(env);
      assert.deepEqual((await looks())?.future_dated, []);
    });

    test('a time ahead of the clock is refused, and the reason says by how much', async () => {
      await env.putObject(`${PREFIX}2062-06-15T09-00-00.csv`, THREE);
      await put(7, ONE);
      for (let run = 0; run < 2; run += 1) assert.deepEqual(await fetchNow(env), []);
      assert.deepEqual(
        (await ledger(env)).map((entry) => [entry.file.slice(0, 4), entry.status]),
        [
          ['2062', 'failed'],
          ['2026', 'done'],
        ],
      );
      assert.match(
        (await ledger(env))[0]?.error ?? '',
        /2062-06-15T06:00:00.000Z, \d+ days ahead of the database's clock.*rename it/,
      );
      assert.deepEqual(await ids(), [1, 2]);
    });

    test('a file that was replaced after it was loaded is loaded again, and archived beside the first', async () => {
      await put(7, ONE);
      await fetchNow(env);
      const etag = await put(7, TWO);
      assert.deepEqual(await fetchNow(env), []);
      assert.deepEqual(await statuses(env), [
        [7, 'done'],
        [7, 'done'],
      ]);
      assert.deepEqual(await ids(), [1, 2, 3]);
      assert.deepEqual(await env.listKeys(), [archivedKey(7).replace('.csv', `-${etag}.csv`), archivedKey(7)].sort());
    });

    test('force loads the newest again, from the archive, and leaves it there', async () => {
      await Promise.all([put(7, ONE), put(8, TWO)]);
      await fetchNow(env, { backfill: true });
      await env.pool.query(
        `update ${TICKETS} set raw = raw || '{"normalized_status": "tampered"}' where ticket_id = 'WOT0000001'`,
      );
      assert.deepEqual(await fetchNow(env, { force: true }), []);
      const entries = await ledger(env);
      assert.deepEqual(
        entries.map(({ status, rows_updated }) => [status, rows_updated]),
        [
          ['done', 0],
          ['done', 1],
          ['done', 1],
        ],
      );
      assert.equal((await rawTickets(env)).WOT0000001?.normalized_status, 'Open');
      assert.deepEqual(await env.listKeys(), [archivedKey(7), archivedKey(8)]);
      await put(9, TWO);
      assert.deepEqual(await fetchNow(env), []);
      assert.deepEqual((await statuses(env)).at(-1), [9, 'unchanged']);
    });
  });

  describe('a file that is none', () => {
    test('fails with its reason, changes nothing, stays, and does not stop the next', async () => {
      await put(7, ONE);
      await fetchNow(env);
      const meta = await importMeta(env);
      for (const [hour, body] of [
        [8, HTML],
        [9, new Uint8Array([0x1f, 0x8b, 8, 0, 0, 0x22, 0, 0xff])],
        [10, 'id;name\n1;2\n'],
      ] as const) {
        await put(hour, body);
        assert.deepEqual(await fetchNow(env), [], 'the job itself did what it could');
      }
      const entries = await ledger(env);
      assert.deepEqual(
        entries.map(({ status }) => status),
        ['done', 'failed', 'failed', 'failed'],
      );
      for (const { error } of entries.slice(1)) assert.match(error ?? '', /^No ticket CSV: /);
      assert.deepEqual(await ids(), [1, 2]);
      assert.deepEqual(await env.listKeys(), [keyOf(8), keyOf(9), keyOf(10), archivedKey(7)].sort());
      assert.deepEqual({ ...(await importMeta(env)), checked_at: null }, { ...meta, checked_at: null });
      await put(11, TWO);
      assert.deepEqual(await fetchNow(env), []);
      assert.deepEqual((await statuses(env)).at(-1), [11, 'done']);
    });

    test('is not tried again by the schedule; the next-newest is taken instead; force tries it again', async () => {
      await Promise.all([put(7, ONE), put(8, HTML)]);
      assert.deepEqual(await fetchNow(env), []);
      assert.deepEqual((await statuses(env)).sort(), [
        [7, 'done'],
        [8, 'failed'],
      ]);
      proxy.heal();
      assert.deepEqual(await fetchNow(env), []);
      assert.deepEqual(
        proxy.requests.filter((request) => /^GET .*T08/.test(request)),
        [],
      );
      assert.deepEqual(await fetchNow(env, { force: true }), []);
      assert.equal(proxy.requests.filter((request) => /^GET .*T08/.test(request)).length, 1);
      await put(8, TWO);
      assert.deepEqual(await fetchNow(env), []);
      assert.deepEqual(await ids(), [1, 2, 3]);
    });
  });

  describe('a file that breaks off', () => {
    const broken = `${ONE}WOT0000003,true,false,"never closed\nnothing that is a record\n`;

    test('is partial: the rows before the break load, the loss is told with its line, it is not archived, its ETag means nothing', async () => {
      await put(7, csvOf([open(9)]));
      await fetchNow(env);
      const meta = await importMeta(env);
      await put(8, broken);
      assert.deepEqual(await fetchNow(env), []);
      const [, entry] = await ledger(env);
      assert.equal(entry?.status, 'partial');
      assert.match(
        entry?.broken_off ?? '',
        /record on line 4 is never closed.*rows before line 4 are loaded, the rest is not/,
      );
      assert.deepEqual([entry?.rows_read, entry?.rows_inserted, entry?.archived_key], [2, 2, null]);
      assert.deepEqual(await ids(), [1, 2, 9]);
      assert.deepEqual(await env.listKeys(), [keyOf(8), archivedKey(7)]);
      assert.deepEqual({ ...(await importMeta(env)), checked_at: null }, { ...meta, checked_at: null });
      assert.deepEqual(await fetchNow(env), []);
      assert.equal((await ledger(env)).length, 2, 'the same version is not read again');
      await put(9, broken);
      assert.deepEqual(await fetchNow(env), []);
      assert.deepEqual((await statuses(env)).at(-1), [9, 'partial']);
      await put(10, csvOf([open(9)]));
      assert.deepEqual(await fetchNow(env), []);
      assert.deepEqual((await statuses(env)).at(-1), [10, 'done'], 'not unchanged, though 07:00 had these bytes');
    });
  });

  test('no connection to the bucket is left when a file is done', async () => {
    for (let hour = 7; hour < 10; hour += 1) {
      await put(hour, csvOf([open(hour)]));
      assert.deepEqual(await fetchNow(env), []);
    }
    // Sooner than a server ends idle ones of its own accord (5 s).
    await waitFor('the connections to end', async () => (await proxy.connections()) === 0, 3_000);
  });

  describe('trouble with the bucket', () => {
    test('a few 503s do not even cost an attempt', async () => {
      await put(7, ONE);
      proxy.inject(/list-type=2/, status(503), 2);
      proxy.inject(/^GET .*T07/, status(503), 2);
      proxy.inject(/^PUT /, status(503), 2);
      proxy.inject(/^DELETE /, status(503), 2);
      assert.deepEqual(await fetchNow(env), []);
      assert.deepEqual(await statuses(env), [[7, 'done']]);
      assert.deepEqual(await env.listKeys(), [archivedKey(7)]);
    });

    test('a connection cut halfway is tried again, and nothing counts twice', async () => {
      const records = Array.from({ length: 4_000 }, (_, n) => open(n));
      await put(7, csvOf(records));
      proxy.inject(/^GET .*T07/, cutAfter(100_000), 2);
      const [failure] = await fetchNow(env);
      assert.match(failure?.error ?? '', /^Reading .*T07-00-00\.csv in bucket /);
      await runAgain(env);
      assert.deepEqual(await runAgain(env), []);
      const [entry, ...others] = await ledger(env);
      assert.deepEqual(others, []);
      assert.deepEqual(
        [entry?.status, entry?.rows_read, entry?.rows_inserted, entry?.rows_duplicate],
        ['done', 4_000, 4_000, 0],
      );
    });

    test('an object replaced during the download: the new version is loaded instead', async () => {
      await put(7, ONE);
      proxy.inject(
        /^GET .*T07/,
        meanwhile(() => put(7, TWO)),
      );
      assert.deepEqual(await fetchNow(env), []);
      assert.deepEqual(await ids(), [1, 2, 3]);
      assert.deepEqual((await statuses(env)).at(-1), [7, 'done']);
      assert.equal((await env.getObject(archivedKey(7))).toString(), TWO);
    });

    test('an object that vanishes: the next-newest is loaded instead', async () => {
      await Promise.all([put(7, ONE), put(8, TWO)]);
      proxy.inject(
        /^GET .*T08/,
        meanwhile(() => env.deleteObject(keyOf(8))),
      );
      assert.deepEqual(await fetchNow(env), []);
      assert.deepEqual((await statuses(env)).sort(), [
        [7, 'done'],
        [8, 'superseded'],
      ]);
      assert.deepEqual(await ids(), [1, 2]);
    });

    for (const code of [404, 412]) {
      for (const mode of [{}, { force: true }, { backfill: true }]) {
        test(`an object that is listed for ever and answers ${code} fails with that reason, and another loads (${JSON.stringify(mode)})`, async () => {
          await Promise.all([put(7, ONE), put(8, TWO)]);
          proxy.inject(/^GET .*T08/, status(code, '<Error><Code>NoSuchKey</Code></Error>'), 99);
          assert.deepEqual(await fetchNow(env, mode), []);
          assert.deepEqual(
            (await statuses(env)).toSorted(([a], [b]) => a - b),
            [
              [7, 'done'],
              [8, 'failed'],
            ],
          );
          assert.match(
            (await ledger(env)).find(({ status }) => status === 'failed')?.error ?? '',
            /listed and cannot be read/,
          );
          assert.equal(proxy.requests.filter((request) => /^GET .*T08/.test(request)).length, 3);
        });
      }
    }

    test('after a forced reading that met a 404, the schedule goes on as before', async () => {
      await Promise.all([put(7, ONE), put(8, TWO)]);
      assert.deepEqual(await fetchNow(env), []);
      proxy.heal();
      proxy.inject(/^GET .*T08/, status(404, '<Error><Code>NoSuchKey</Code></Error>'), 99);
      await fetchNow(env, { force: true });
      proxy.heal();
      for (let run = 0; run < 2; run += 1) assert.deepEqual(await fetchNow(env), []);
      assert.ok(proxy.requests.length < 20, `${proxy.requests.length} requests`);
      assert.deepEqual(await ids(), [1, 2, 3]);
    });

    test('a look that fails is no look: it moves no clock', async () => {
      proxy.inject(/list-type=2/, status(500), 99);
      assert.equal((await fetchNow(env)).length, 1);
      assert.equal((await importMeta(env))?.['checked_at'], undefined);
      assert.equal(await looks(), undefined);
    });

    test('a server that lists no ETags: files load once and are archived all the same', async () => {
      await put(7, ONE);
      const without = rewritten((body) => body.replace(/<ETag>[^<]*<\/ETag>/g, ''));
      proxy.inject(/list-type=2/, without, 99);
      for (let run = 0; run < 2; run += 1) assert.deepEqual(await fetchNow(env), []);
      assert.deepEqual(await statuses(env), [[7, 'done']]);
      assert.deepEqual(await env.listKeys(), [archivedKey(7)]);
    });

    test('a missing bucket, a refused key: the job says so and tries again; the ledger is left alone', async () => {
      process.env.RUSTFS_BUCKET = 'no-such-bucket';
      try {
        const [failure] = await fetchNow(env);
        assert.match(failure?.error ?? '', /in bucket no-such-bucket at .*check RUSTFS_BUCKET/);
      } finally {
        process.env.RUSTFS_BUCKET = env.s3.bucket;
      }
      proxy.inject(/list-type=2/, status(403, '<Error><Code>SignatureDoesNotMatch</Code></Error>'));
      assert.match((await runAgain(env))[0]?.error ?? '', /check RUSTFS_SECRET_KEY/);
      await put(7, ONE);
      assert.deepEqual(await runAgain(env), []);
      assert.deepEqual(await statuses(env), [[7, 'done']]);
    });

    test('a list that cannot be believed loads nothing', async () => {
      await put(7, ONE);
      const page = `<ListBucketResult><IsTruncated>true</IsTruncated><Contents><Key>${keyOf(7)}</Key><LastModified>2026-06-15T04:00:00.000Z</LastModified><ETag>"e"</ETag><Size>1</Size></Contents></ListBucketResult>`;
      proxy.inject(/list-type=2/, status(200, page));
      assert.match((await fetchNow(env))[0]?.error ?? '', /gives no continuation token/);
      assert.deepEqual(await ledger(env), []);
    });

    test('reading that fails to the last attempt fails the snapshot, with its reason, and the next file loads', async () => {
      await put(7, ONE);
      proxy.inject(/^GET .*T07/, status(503), 999);
      await fetchNow(env);
      for (let attempt = 2; attempt <= 6; attempt += 1) await runAgain(env);
      const [entry] = await ledger(env);
      assert.equal(entry?.status, 'failed');
      assert.match(entry?.error ?? '', /Reading .*HTTP 503/);
      await put(8, TWO);
      await fetchNow(env);
      assert.deepEqual(await statuses(env), [
        [7, 'failed'],
        [8, 'done'],
      ]);
    });

    test('archiving that fails undoes no load; the job, or the next run, completes it', async () => {
      for (const step of [/^PUT .*processed/, /^HEAD .*processed/, /^DELETE /]) {
        await env.reset();
        await put(7, ONE);
        proxy.inject(step, status(500), 99);
        const [failure] = await fetchNow(env);
        assert.equal(failure?.task, 'finalize_snapshot');
        assert.deepEqual(await statuses(env), [[7, 'done']]);
        assert.equal((await ledger(env))[0]?.archived_key, null);
        await env.pool.query('delete from graphile_worker._private_jobs');
        await put(8, TWO);
        assert.deepEqual(
          (await fetchNow(env)).map(({ task }) => task),
          ['finalize_snapshot'],
          'the folder cannot be tidied, and yet the next file loads',
        );
        proxy.heal();
        await fetchNow(env);
        assert.deepEqual(await runAgain(env), []);
        assert.deepEqual(
          (await ledger(env)).map((entry) => [entry.status, entry.archived_key]),
          [
            ['done', archivedKey(7)],
            ['done', archivedKey(8)],
          ],
        );
        assert.deepEqual(await env.listKeys(), [archivedKey(7), archivedKey(8)]);
      }
    });
  });

  describe('trouble with the database', () => {
    /** The disk is full: no row's fault. */
    const fillDisk = () =>
      env.pool.query(`
        create function tickets.disk_is_full() returns trigger language plpgsql as $$ begin raise 'no space left' using errcode = 'disk_full'; end $$;
        create trigger disk_is_full before insert on ${TICKETS} for each statement execute function tickets.disk_is_full()`);
    const freeDisk = () => env.pool.query('drop function if exists tickets.disk_is_full() cascade');
    const failForGood = async () => {
      await fetchNow(env);
      for (let attempt = 2; attempt <= 6; attempt += 1) await runAgain(env);
    };
    const retryAll = async () =>
      (await env.pool.query<{ note: string }>('select note from tickets_ops.retry_failed()')).rows.map(
        ({ note }) => note,
      );

    test('a batch that uses up its attempts fails the snapshot with its reason; retrying its job reopens it', async () => {
      await put(7, ONE);
      await fillDisk();
      try {
        await failForGood();
      } finally {
        await freeDisk();
      }
      const [failed] = await ledger(env);
      assert.equal(failed?.status, 'failed');
      assert.match(failed?.error ?? '', /Batch 1 failed 6 times: no space left/);
      assert.ok((await staged()) > 0);
      await retryAll();
      assert.deepEqual(await env.runJobs(), []);
      const [entry] = await ledger(env);
      assert.deepEqual([entry?.status, entry?.error, entry?.rows_inserted], ['done', null, 2]);
      assert.deepEqual(await env.listKeys(), [archivedKey(7)]);
    });

    test('the next snapshot is not blocked by it, and then a retry says that it came too late', async () => {
      await put(7, ONE);
      await fillDisk();
      try {
        await failForGood();
      } finally {
        await freeDisk();
      }
      await put(8, TWO);
      await addFetch(env);
      await env.runJobs();
      assert.deepEqual(await statuses(env), [
        [7, 'failed'],
        [8, 'done'],
      ]);
      assert.deepEqual(await retryAll(), ['Left alone. Snapshot 2 came after it.']);
      await env.runJobs();
      assert.deepEqual(await statuses(env), [
        [7, 'failed'],
        [8, 'done'],
      ]);
      assert.deepEqual(await ids(), [1, 2, 3]);
      const { rows } = await env.pool.query('select attempts = max_attempts as final from graphile_worker.jobs');
      assert.deepEqual(rows, [{ final: true }]);
    });

    test('a snapshot that cannot be finalized fails with its reason; retrying its job finishes it', async () => {
      await env.pool.query(
        `alter table tickets.import_meta add constraint no_meta check (metadata ->> 'source_key' is null)`,
      );
      try {
        await put(7, ONE);
        await failForGood();
      } finally {
        await env.pool.query('alter table tickets.import_meta drop constraint no_meta');
      }
      const [failed] = await ledger(env);
      assert.equal(failed?.status, 'failed');
      assert.match(failed?.error ?? '', /no_meta/);
      assert.deepEqual(await ids(), [1, 2]);
      await retryAll();
      assert.deepEqual(await env.runJobs(), []);
      const [entry] = await ledger(env);
      assert.deepEqual([entry?.status, entry?.error, entry?.archived_key], ['done', null, archivedKey(7)]);
    });

    test('what was staged of a failed snapshot is kept for seven days; after that a retry says so', async () => {
      await put(7, ONE);
      await fillDisk();
      try {
        await failForGood();
      } finally {
        await freeDisk();
      }
      const age = (days: number) =>
        env.pool.query('update tickets_ops.snapshots set progress_at = now() - make_interval(days => $1)', [days]);
      const maintain = async () => {
        await env.pool.query(`select graphile_worker.add_job('fleettickets_maintain')`);
        await env.runJobs();
      };
      await age(6);
      await maintain();
      assert.equal(await staged(), 2);
      await age(8);
      await maintain();
      assert.equal(await staged(), 0);
      assert.match((await retryAll()).join(), /The staged rows of snapshot 1 have been pruned\. Read it again/);
      await env.pool.query(`select graphile_worker.add_job('upsert_batch', '{"snapshot_id": 1, "batch": 1}')`);
      assert.match(
        (await env.runJobs()).at(-1)?.error ?? '',
        /Snapshot 1 is failed and has no staged batch 1: fetch its file again/,
      );
      assert.deepEqual(
        await fetchNow(env, { force: true }).then((failures) =>
          failures.filter(({ task }) => task === 'fetch_snapshot'),
        ),
        [],
      );
      assert.deepEqual(await ids(), [1, 2]);
    });

    test('jobs that someone deleted are asked for again', async () => {
      await put(7, ONE);
      await fillDisk();
      try {
        await fetchNow(env);
      } finally {
        await freeDisk();
      }
      await env.pool.query('delete from graphile_worker._private_jobs');
      await env.pool.query(`select graphile_worker.add_job('fleettickets_maintain')`);
      assert.deepEqual(await env.runJobs(), []);
      assert.deepEqual(await statuses(env), [[7, 'done']]);
    });

    test('a snapshot whose reader is gone for good is marked failed, and blocks nobody meanwhile', async () => {
      await put(7, ONE);
      proxy.inject(/^GET .*T07/, cutAfter(10), 99);
      await fetchNow(env);
      assert.deepEqual(await statuses(env), [[7, 'staging']]);
      await env.pool.query('delete from graphile_worker._private_jobs');
      await env.pool.query(`update tickets_ops.snapshots set progress_at = now() - interval '3 minutes'`);
      await env.pool.query(`select graphile_worker.add_job('fleettickets_maintain')`);
      assert.deepEqual(await env.runJobs(), []);
      assert.match((await ledger(env))[0]?.error ?? '', /Reading it broke off, and no attempt is left/);
      await put(8, TWO);
      proxy.heal();
      assert.deepEqual(await fetchNow(env), []);
      assert.deepEqual(await statuses(env), [
        [7, 'failed'],
        [8, 'done'],
      ]);
    });
  });
});
