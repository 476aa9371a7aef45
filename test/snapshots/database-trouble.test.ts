/** Loading while the database refuses: attempts, failed snapshots, and what an operator can do about them. */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { cutAfter } from '../support/fault-proxy.ts';
import { archivedKey, env, ids, ingesting, ONE, proxy, put, staged, TWO } from '../support/ingesting.ts';
import { addFetch, fetchNow, ledger, runAgain, statuses, TICKETS } from '../support/pipeline.ts';
import { setBack } from '../support/rows.ts';

describe('ingesting', () => {
  ingesting();

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

    /** Two workers die under the job that waits, without a word. */
    const killTwice = async () => {
      for (let death = 0; death < 2; death += 1) {
        await env.pool.query(
          `update graphile_worker._private_jobs set attempts = attempts + 1, locked_at = now(), locked_by = 'pool-dead' where attempts < max_attempts`,
        );
        await env.pool.query(`select tickets_ops.unlock_pools('{pool-dead}')`);
      }
    };
    const maintain = () =>
      env.pool.query(`select tickets_ops.enqueue('fleettickets_maintain', '{}')`).then(env.runJobs);

    test('a snapshot under whose end two workers died fails with that reason; retrying its job finishes it', async () => {
      await env.pool.query(
        `alter table tickets.import_meta add constraint no_meta check (metadata ->> 'source_key' is null)`,
      );
      await put(7, ONE);
      await fetchNow(env);
      await env.pool.query('alter table tickets.import_meta drop constraint no_meta');
      assert.deepEqual(await statuses(env), [[7, 'finalizing']]);
      await killTwice();
      await maintain();
      const [failed] = await ledger(env);
      assert.equal(failed?.status, 'failed');
      assert.match(
        failed?.error ?? '',
        /finalize_snapshot:1 used up its attempts: Its worker died while it ran, twice/,
      );
      await retryAll();
      assert.deepEqual(await env.runJobs(), []);
      assert.deepEqual(await statuses(env), [[7, 'done']]);
    });

    test('a file under whose archiving two workers died is archived by the next look, and the job matters no more', async () => {
      await put(7, ONE);
      proxy.inject(/^DELETE /, cutAfter(0), 9);
      await fetchNow(env);
      proxy.heal();
      await killTwice();
      await maintain();
      assert.deepEqual(await statuses(env), [[7, 'done']]);
      const { rows } = await env.pool.query('select task, superseded from tickets_ops.failed_jobs');
      assert.deepEqual(rows, [{ task: 'finalize_snapshot', superseded: 'Snapshot 1 is done.' }]);
      assert.equal((await ledger(env))[0]?.archived_key, null);
      await fetchNow(env);
      assert.equal((await ledger(env))[0]?.archived_key, archivedKey(7));
    });

    test('what was staged of a failed snapshot is kept for seven days; after that a retry says so', async () => {
      await put(7, ONE);
      await fillDisk();
      try {
        await failForGood();
      } finally {
        await freeDisk();
      }
      const age = (days: number) => setBack(env.pool, 'tickets_ops.snapshots', 'progress_at', `${days} days`);
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
      await setBack(env.pool, 'tickets_ops.snapshots', 'progress_at', '3 minutes');
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
