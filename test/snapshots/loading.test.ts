/** A file and what comes of it: tickets, counts, rejects; only what changed is written. */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { CompleteMultipartUploadCommand, CreateMultipartUploadCommand, UploadPartCommand } from '@aws-sdk/client-s3';
import { waitFor } from '../support/environment.ts';
import { archivedKey, env, ids, ingesting, ONE, open, proxy, put, staged, TWO } from '../support/ingesting.ts';
import {
  csvOf,
  DATASET,
  fetchNow,
  importMeta,
  keyOf,
  ledger,
  PREFIX,
  rawTickets,
  rowVersions,
  statuses,
  TICKETS,
} from '../support/pipeline.ts';

describe('loading', () => {
  ingesting();

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

  test('no connection to the bucket is left when a file is done', async () => {
    for (let hour = 7; hour < 10; hour += 1) {
      await put(hour, csvOf([open(hour)]));
      assert.deepEqual(await fetchNow(env), []);
    }
    // Sooner than a server ends idle ones of its own accord (5 s).
    await waitFor('the connections to end', async () => (await proxy.connections()) === 0, 3_000);
  });
});
