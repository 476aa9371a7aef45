/** Which file of the bucket is loaded, and what becomes of one that cannot be. */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { waitFor } from '../support/environment.ts';
import { meanwhile, status } from '../support/fault-proxy.ts';
import {
  archivedKey,
  env,
  HTML,
  ids,
  ingesting,
  looks,
  modified,
  ONE,
  open,
  proxy,
  put,
  THREE,
  TWO,
} from '../support/ingesting.ts';
import {
  csvOf,
  fetchNow,
  importMeta,
  keyOf,
  ledger,
  PREFIX,
  rawTickets,
  runAgain,
  statuses,
  TICKETS,
} from '../support/pipeline.ts';

describe('which file of the bucket', () => {
  ingesting();

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

    test('one that had the bytes of the last load, until another was loaded during a slow look, does not count as unchanged', async () => {
      await put(7, ONE);
      proxy.inject(/^DELETE /, status(500), 4); // 07 stays, so the next look has something to move
      await fetchNow(env);
      proxy.heal();
      await env.pool.query('delete from graphile_worker._private_jobs');
      await put(8, ONE);
      const loadAnother = async () => {
        await put(9, TWO);
        await fetchNow(env);
      };
      proxy.inject(/^HEAD .*T07/, meanwhile(loadAnother));
      assert.deepEqual(await fetchNow(env), []);
      assert.deepEqual((await statuses(env)).sort(), [
        [7, 'done'],
        [8, 'superseded'],
        [9, 'done'],
      ]);
      assert.match(String((await importMeta(env))?.['snapshot_at']), /T06:00:00/);
      assert.deepEqual(await ids(), [1, 2, 3]);
    });

    test('a backfill that could not look matters until it is tried again: the next look passes over its files', async () => {
      const failed = async () =>
        (await env.pool.query('select superseded from tickets_ops.failed_jobs')).rows.map(
          ({ superseded }) => superseded,
        );
      for (const [payload, superseded] of [
        [{ backfill: true }, null],
        [{}, /^The bucket was looked at again/],
      ] as const) {
        await env.reset();
        await Promise.all([put(7, ONE), put(8, TWO)]);
        proxy.inject(/list-type=2/, status(403), 99);
        await fetchNow(env, payload);
        for (let attempt = 2; attempt <= 6; attempt += 1) await runAgain(env);
        proxy.heal();
        assert.deepEqual(await failed(), [null]);
        await fetchNow(env);
        assert.deepEqual(await statuses(env), [
          [7, 'superseded'],
          [8, 'done'],
        ]);
        const [now] = await failed();
        if (superseded) assert.match(now ?? '', superseded);
        else {
          assert.equal(now, null);
          const { rows } = await env.pool.query(
            'select array_to_string(problems, $1) as problems from tickets_ops.health',
            [' '],
          );
          assert.match(rows[0].problems, /1 job\(s\) failed, the last of them fetch_snapshot/);
        }
      }
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
      assert.match(refused?.error ?? '', /13 h( \d+ min)? ahead of the database's clock.*until its time has come/);
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
});
