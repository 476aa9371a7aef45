/** Trying again what gave up, and cancelling what waits or runs. */
import assert from 'node:assert/strict';
import { after, before, beforeEach, describe, test } from 'node:test';
import { type Environment, startEnvironment } from '../support/environment.ts';
import { first, operations, second } from '../support/operations.ts';
import { DATASET, PREFIX, TICKETS } from '../support/pipeline.ts';
import { countRows, setBack } from '../support/rows.ts';

let env: Environment;
before(async () => {
  env = await startEnvironment();
});
after(() => env.close());
beforeEach(async () => {
  await env.reset();
  await env.runJobs(); // a worker that starts records which datasets are on
});

const { rows, one, addJob, jobs, health, snapshots, put, load, broken, givenUp, maintain } = operations(() => env);

describe('trying again', () => {
  test('a batch: its failed snapshot is reopened and loads', async () => {
    const id = await givenUp('upsert_batch', TICKETS);
    assert.deepEqual(
      (await snapshots()).map(({ status }) => status),
      ['failed'],
    );
    assert.match(
      (await health()).problems.join('\n'),
      /Snapshot \d+ .* failed: Batch 1 failed 6 times: The disk is on fire/,
    );

    assert.match((await one<{ note: string }>('select * from tickets_ops.retry_job($1)', [id])).note, /due now/);
    assert.deepEqual(
      (await snapshots()).map(({ status }) => status),
      ['loading'],
    );
    assert.deepEqual(await env.runJobs(), []);
    assert.deepEqual(
      (await snapshots()).map(({ status }) => status),
      ['done'],
    );
    assert.equal(await countRows(env.pool, TICKETS), first.tickets.size);
    assert.deepEqual(await jobs(), []);
  });

  test('a batch alone never brings a failed snapshot back; trying one again brings back all that is left of it', async () => {
    const repair = await broken(TICKETS);
    const ids = Array.from({ length: 10_001 }, (_, n) => `WOT${10_000_000 + n}\n`); // three batches
    await env.putObject(`${PREFIX}${first.name}`, `ticket_id\n${ids.join('')}`);
    await env.pool.query(`select tickets_ops.fetch_now('${DATASET}')`);
    await env.runJobs();
    const due = (batch: number, attempts: string) =>
      env.pool.query(
        `update graphile_worker._private_jobs set run_at = now(), attempts = ${attempts} where key = 'upsert_batch:1:${batch}'`,
      );
    await due(3, 'max_attempts - 1');
    await env.runJobs();
    await repair();
    // Batches 1 and 2 have attempts left, and nothing would keep them from loading.
    await due(1, 'attempts');
    await env.runJobs();
    assert.deepEqual(
      (await jobs()).map(({ key }) => key).sort(),
      ['upsert_batch:1:2', 'upsert_batch:1:3'],
      'batch 1 waits for nothing',
    );
    await maintain();
    assert.deepEqual(await snapshots(), [
      { snapshot_id: '1', status: 'failed', error: 'Batch 3 failed 6 times: The disk is on fire' },
    ]);
    assert.deepEqual(await rows(`select ticket_id from ${TICKETS}`), []);

    await due(2, 'max_attempts'); // it died with its worker, say
    const [failure] = await jobs(`key = 'upsert_batch:1:3'`);
    assert.deepEqual(await one('select note from tickets_ops.retry_job($1)', [failure?.id]), {
      note: 'It is due now, and with it all that is left of snapshot 1.',
    });
    await maintain();
    assert.deepEqual(await env.runJobs(), []);
    assert.deepEqual(
      (await snapshots()).map(({ status }) => status),
      ['done'],
    );
    assert.equal(await countRows(env.pool, TICKETS), 10_001);
    assert.deepEqual(await jobs(), []);
  });

  test('the end of a snapshot', async () => {
    const id = await givenUp('finalize_snapshot', 'tickets.import_meta', `new.metadata ? 'snapshot_id'`);
    assert.deepEqual(
      (await snapshots()).map(({ status }) => status),
      ['failed'],
    );
    await one('select * from tickets_ops.retry_job($1)', [id]);
    assert.deepEqual(await env.runJobs(), []);
    assert.deepEqual(
      (await snapshots()).map(({ status }) => status),
      ['done'],
    );
  });

  test('a file that could not be read is read again', async () => {
    await givenUp('fetch_snapshot', 'tickets_ops.snapshot_rows');
    assert.deepEqual(
      (await snapshots()).map(({ status }) => status),
      ['failed'],
    );
    assert.equal((await one<{ note: string }>('select note from tickets_ops.retry_failed()')).note, 'It is due now.');
    assert.deepEqual(await env.runJobs(), []);
    assert.deepEqual(
      (await snapshots()).map(({ status }) => status),
      ['done'],
    );
  });

  test('what a look refused without reading it stays refused when that look is tried again', async () => {
    const id = await addJob('fetch_snapshot', { dataset: DATASET });
    await env.pool.query('update graphile_worker._private_jobs set attempts = max_attempts where id = $1', [id]);
    await env.pool.query(
      `insert into tickets_ops.snapshots (dataset, source_key, source_etag, source_last_modified, snapshot_at, status, error, job_id, opens_at, ignored, is_late)
       select $1, kind, kind, now(), now(), 'failed', 'It is ' || kind, $2,
         case kind when 'future-dated' then now() + interval '1 day' end, kind = 'no CSV', kind = 'late'
       from unnest(array['future-dated', 'no CSV', 'late']) as kind`,
      [DATASET, id],
    );
    await one('select * from tickets_ops.retry_job($1)', [id]);
    assert.deepEqual(
      (await snapshots()).map(({ status }) => status),
      ['failed', 'failed', 'failed'],
    );
  });

  test('its end, asked for before its batches are loaded, brings the batches back', async () => {
    await givenUp('upsert_batch', TICKETS);
    const { id } = await one<{ id: string }>(
      `select id from graphile_worker.add_job('finalize_snapshot', '{"snapshot_id": 1}')`,
    );
    assert.match(JSON.stringify(await env.runJobs()), /Snapshot 1 is failed, not finalizing/);
    await one('select * from tickets_ops.retry_job($1)', [id]);
    assert.deepEqual(await env.runJobs(), []);
    assert.deepEqual(
      (await snapshots()).map(({ status }) => status),
      ['done'],
    );
    assert.deepEqual(await jobs(), []);
  });

  test('what a newer snapshot superseded says so, and stays failed', async () => {
    const id = await givenUp('upsert_batch', TICKETS);
    await load(second).catch(() => undefined);
    assert.deepEqual(
      (await snapshots()).map(({ status }) => status),
      ['failed', 'done'],
    );
    await assert.rejects(
      one('select * from tickets_ops.retry_job($1)', [id]),
      /superseded by snapshot 2: it stays failed/,
    );
    assert.match(
      (await one<{ superseded: string }>('select superseded from tickets_ops.failed_jobs')).superseded,
      /Snapshot 2 came after it/,
    );
    assert.match((await one<{ note: string }>('select note from tickets_ops.retry_failed()')).note, /Left alone/);
    assert.equal((await health())['jobs_failed'], '0');
  });

  test('after its staging was pruned, it says to read the file again', async () => {
    const id = await givenUp('upsert_batch', TICKETS);
    await setBack(env.pool, 'tickets_ops.snapshots', 'progress_at', '8 days');
    await maintain();
    await assert.rejects(
      one('select * from tickets_ops.retry_job($1)', [id]),
      new RegExp(`have been pruned\\. Read it again: .*fetch_now\\('${DATASET}', true\\)`),
    );
    await one(`select * from tickets_ops.fetch_now('${DATASET}', true)`);
    await env.runJobs();
    assert.deepEqual(
      (await snapshots()).map(({ status }) => status),
      ['failed', 'done'],
    );
  });

  test('a job that gave up has its attempts back; a look that gave up waiting waits anew', async () => {
    const id = await addJob('geocode_cluster', { clutser: 'Kilimani' }, `, job_key := 'wrong'`);
    await env.runJobs();
    assert.deepEqual(
      (await jobs()).map(({ state }) => state),
      ['failed'],
    );
    const tired = await addJob(
      'fetch_snapshot',
      { dataset: DATASET, waits: 360 },
      `, max_attempts := 1, job_key := 'fetch_snapshot:${DATASET}:newest'`,
    );
    await env.pool.query('update graphile_worker._private_jobs set attempts = 1 where id = $1', [tired]);
    const tried = await rows<{ job_id: string }>('select * from tickets_ops.retry_failed()');
    assert.deepEqual(
      tried.map(({ job_id }) => job_id),
      [id, tired],
    );
    assert.deepEqual(await rows('select attempts, max_attempts, payload from tickets_ops.jobs order by id'), [
      { attempts: 0, max_attempts: 6, payload: { clutser: 'Kilimani' } },
      { attempts: 0, max_attempts: 6, payload: { dataset: DATASET } },
    ]);
  });

  test('one task only, and of those that ask for the same the last', async () => {
    for (const task of ['fleettickets_maintain', 'fetch_snapshot', 'fetch_snapshot']) await addJob(task, {});
    await env.pool.query('update graphile_worker._private_jobs set attempts = max_attempts');
    const tried = await rows<{ note: string }>(`select note from tickets_ops.retry_failed('fetch_snapshot')`);
    assert.deepEqual(
      tried.map(({ note }) => note),
      ['Left alone. A later job asks for the same.', 'It is due now.'],
    );
    assert.deepEqual(
      (await jobs()).map(({ state }) => state),
      ['failed', 'failed', 'ready'],
    );
  });

  test('what is not there or runs is an error that says so', async () => {
    await assert.rejects(one('select * from tickets_ops.retry_job(4711)'), /There is no job 4711/);
    const id = await addJob('fleettickets_maintain', {});
    await env.pool.query(
      `update graphile_worker._private_jobs set attempts = 1, locked_at = now(), locked_by = 'pool-x'`,
    );
    await assert.rejects(one('select * from tickets_ops.retry_job($1)', [id]), /running at this moment/);
  });
});

describe('cancelling', () => {
  test('a waiting job is gone; a running one is not tried again', async () => {
    const waiting = await addJob('geocode_cluster', { cluster: 'Kilimani' });
    const running = await addJob('fleettickets_maintain', {});
    await env.pool.query(
      `update graphile_worker._private_jobs set attempts = 1, locked_at = now(), locked_by = 'pool-x' where id = $1`,
      [running],
    );
    assert.deepEqual(await one('select tickets_ops.cancel_job($1) as said', [waiting]), {
      said: `Job ${waiting} is cancelled.`,
    });
    assert.match(
      (await one<{ said: string }>('select tickets_ops.cancel_job($1) as said', [running])).said,
      /cannot be stopped, but if it fails it is not tried again/,
    );
    assert.deepEqual(await rows('select id, max_attempts from tickets_ops.jobs'), [{ id: running, max_attempts: 1 }]);
    await assert.rejects(one('select tickets_ops.cancel_job($1)', [waiting]), /There is no job/);
  });

  test('a batch takes its snapshot with it, and nothing brings it back', async () => {
    const repair = await broken(TICKETS);
    await put(first);
    await env.pool.query(`select tickets_ops.fetch_now('${DATASET}')`);
    await env.runJobs().finally(repair);
    const [batch] = await jobs(`task = 'upsert_batch'`);
    assert.match(
      (await one<{ said: string }>('select tickets_ops.cancel_job($1) as said', [batch?.id])).said,
      /Snapshot 1 is cancelled, with 1 of its jobs/,
    );
    await maintain();
    assert.deepEqual(await jobs(), []);
    assert.deepEqual(await snapshots(), [{ snapshot_id: '1', status: 'failed', error: 'Cancelled by postgres' }]);
    await one(`select * from tickets_ops.fetch_now('${DATASET}', force => true)`);
    assert.deepEqual(await env.runJobs(), []);
    assert.deepEqual(
      (await snapshots()).map(({ status }) => status),
      ['failed', 'done'],
    );
  });
});
