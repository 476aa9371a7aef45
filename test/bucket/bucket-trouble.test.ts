/** Reading and archiving while the bucket fails, through a proxy that makes it fail. */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { cutAfter, meanwhile, rewritten, status } from '../support/fault-proxy.ts';
import { archivedKey, env, ids, ingesting, looks, ONE, open, proxy, put, TWO } from '../support/ingesting.ts';
import { csvOf, fetchNow, importMeta, keyOf, ledger, runAgain, statuses } from '../support/pipeline.ts';

describe('ingesting', () => {
  ingesting();

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

    test('a bucket that lets nothing be moved: each look tries one file, health says so after an hour, and no longer once it is mended', async () => {
      proxy.inject(/^DELETE /, status(403, '<Error><Code>AccessDenied</Code></Error>'), 999);
      for (const hour of [7, 8, 9]) {
        await put(hour, `ticket_id,owner\nWOT1,${hour}\n`);
        await fetchNow(env);
      }
      const unarchived = async () => {
        const { rows } = await env.pool.query('select problems from tickets_ops.health');
        return (rows[0].problems as string[]).filter((problem) => /archived/.test(problem)).join();
      };
      assert.equal(await unarchived(), '', 'the next look may yet do it');
      await env.pool.query(`update tickets_ops.snapshots set loaded_at = loaded_at - interval '2 hours'`);
      await env.pool.query('delete from graphile_worker._private_jobs');
      proxy.requests.length = 0;
      await fetchNow(env);
      assert.equal(proxy.requests.filter((request) => request.startsWith('DELETE')).length, 1);
      assert.match(
        await unarchived(),
        /Warning: .*3 loaded file\(s\) could not be archived, the oldest of them .*T07-00-00\.csv/,
      );
      proxy.heal();
      await fetchNow(env);
      assert.deepEqual(await env.listKeys(), [7, 8, 9].map(archivedKey));
      assert.equal(await unarchived(), '');
    });

    test('a file that was first seen by a look that broke off is new all the same', async () => {
      await put(7, ONE);
      await fetchNow(env);
      await env.pool.query(
        `with aged as (update tickets_ops.snapshots set listed_at = listed_at - interval '5 hours') update tickets_ops.looks set new_file_at = new_file_at - interval '5 hours'`,
      );
      await put(8, TWO);
      proxy.inject(/^GET .*T08/, status(403), 99);
      assert.equal((await fetchNow(env)).length, 1);
      proxy.heal();
      assert.deepEqual(await runAgain(env), []);
      assert.deepEqual(await statuses(env), [
        [7, 'done'],
        [8, 'done'],
      ]);
      const { rows } = await env.pool.query(
        `select new_file_at > now() - interval '1 hour' as lately from tickets_ops.looks`,
      );
      assert.deepEqual(rows, [{ lately: true }]);
    });

    test('a file that seemed to be replaced, and is moved by a later look after all, is archived in the ledger', async () => {
      await put(7, ONE);
      proxy.inject(/^DELETE /, status(412, '<Error><Code>PreconditionFailed</Code></Error>'));
      assert.deepEqual(await fetchNow(env), []);
      assert.equal((await ledger(env))[0]?.archived_key, null);
      await fetchNow(env);
      assert.deepEqual(await env.listKeys(), [archivedKey(7)]);
      assert.equal((await ledger(env))[0]?.archived_key, archivedKey(7));
    });

    test('a file that was moved by someone who died before writing it down is archived in the ledger too', async () => {
      for (const [meanwhile, expected] of [
        [async () => {}, archivedKey(7)],
        [() => env.deleteObject(archivedKey(7)), null],
      ] as const) {
        await env.reset();
        await put(7, ONE);
        await fetchNow(env);
        await env.pool.query('update tickets_ops.snapshots set archived_at = null, archived_key = null');
        await meanwhile();
        await fetchNow(env);
        const { rows } = await env.pool.query(
          'select status, archived_at is not null as archived, archived_key from tickets_ops.snapshots',
        );
        assert.deepEqual(rows, [{ status: 'done', archived: true, archived_key: expected }]);
      }
    });
  });
});
