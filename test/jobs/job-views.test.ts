/** The jobs as people see them: tickets_ops.jobs, whatever payload somebody typed. */
import assert from 'node:assert/strict';
import { after, before, beforeEach, describe, test } from 'node:test';
import { type Environment, startEnvironment } from '../support/environment.ts';
import { operations } from '../support/operations.ts';

let env: Environment;
before(async () => {
  env = await startEnvironment();
});
after(() => env.close());
beforeEach(() => env.reset());

const { rows, one, addJob } = operations(() => env);

describe('tickets_ops.jobs', () => {
  test('shows what graphile-worker hides, in its states', async () => {
    await addJob('geocode_cluster', { cluster: 'Kilimani' }, `, job_key := 'ready'`);
    await addJob(
      'fleettickets_maintain',
      {},
      `, run_at := now() + interval '1 hour', job_key := 'scheduled', queue_name := 'some queue'`,
    );
    for (const key of ['running', 'retrying', 'failed'])
      await addJob('fleettickets_maintain', { key }, `, job_key := '${key}', max_attempts := 3`);
    await env.pool.query(`
      update graphile_worker._private_jobs set attempts = 1, locked_at = now(), locked_by = 'pool-x' where key = 'running';
      update graphile_worker._private_jobs set attempts = 1, last_error = 'no', run_at = now() + interval '9 s' where key = 'retrying';
      update graphile_worker._private_jobs set attempts = 3, last_error = 'never' where key = 'failed'`);
    const found = await rows(
      "select key, state, locked_by, payload, queue, age >= interval '0' as aged from tickets_ops.jobs order by id",
    );
    const plain = { locked_by: null, queue: null, aged: true };
    assert.deepEqual(found, [
      { ...plain, key: 'ready', state: 'ready', payload: { cluster: 'Kilimani' } },
      { ...plain, key: 'scheduled', state: 'scheduled', payload: {}, queue: 'some queue' },
      { ...plain, key: 'running', state: 'running', payload: { key: 'running' }, locked_by: 'pool-x' },
      { ...plain, key: 'retrying', state: 'retrying', payload: { key: 'retrying' } },
      { ...plain, key: 'failed', state: 'failed', payload: { key: 'failed' } },
    ]);
    assert.deepEqual(await rows('select key, attempts, last_error, superseded from tickets_ops.failed_jobs'), [
      { key: 'failed', attempts: 3, last_error: 'never', superseded: null },
    ]);
  });

  test('say when a job failed: the time of its last failure, whatever is asked for since, and however often it is tried again', async () => {
    const ask = () => addJob('geocode_cluster', { clusters: 'misspelt' }, `, job_key := 'the same', max_attempts := 6`);
    const clock = async () => (await one<{ now: Date }>('select clock_timestamp() as now')).now;
    const failure = async () =>
      one<{ state: string; failed_at: Date | null }>(
        'select state, failed_at from tickets_ops.list_jobs() where id = $1',
        [id],
      );
    const id = await ask();
    const began = [await clock()];
    await env.runJobs();
    began.push(await clock());
    const { failed_at: firstTime } = await failure();
    assert.ok(firstTime && began[0] && began[1] && firstTime >= began[0] && firstTime <= began[1], String(firstTime));

    await ask(); // the key goes to a new job
    await env.pool.query(
      `update graphile_worker._private_jobs set updated_at = now() + interval '1 hour' where id = $1`,
      [id],
    );
    assert.deepEqual(await failure(), { state: 'failed', failed_at: firstTime });

    await env.pool.query('select tickets_ops.cancel_job(id) from tickets_ops.jobs where id <> $1', [id]);
    await one('select * from tickets_ops.retry_job($1)', [id]);
    assert.deepEqual(await failure(), { state: 'ready', failed_at: null });
    const again = await clock();
    await env.runJobs();
    const { failed_at: secondTime } = await failure();
    assert.ok(secondTime && secondTime >= again && secondTime <= (await clock()), String(secondTime));
  });

  test('say of a job that used up its attempts when the last of them failed', async () => {
    const id = await addJob('fetch_snapshot', {}, ', max_attempts := 6');
    const failing = { RUSTFS_ENDPOINT: 'http://127.0.0.1:1' };
    const whole = process.env.RUSTFS_ENDPOINT;
    Object.assign(process.env, failing);
    for (let attempt = 1; attempt <= 6; attempt += 1) {
      await env.pool.query('update graphile_worker._private_jobs set run_at = now() where id = $1', [id]);
      await env.runJobs();
    }
    process.env.RUSTFS_ENDPOINT = whole;
    const [failed] = await rows<{ attempts: number; recent: boolean }>(
      `select attempts, failed_at between now() - interval '1 minute' and now() as recent from tickets_ops.failed_jobs`,
    );
    assert.deepEqual(failed, { attempts: 6, recent: true });
  });

  test('nothing of ours depends on graphile-worker’s tables, whose migrations it would block', async () => {
    const dependent = await rows(`
      select distinct d.classid::regclass, d.objid
      from pg_depend d join pg_class c on d.refclassid = 'pg_class'::regclass and d.refobjid = c.oid
      left join pg_rewrite r on d.classid = 'pg_rewrite'::regclass and r.oid = d.objid
      left join pg_class v on v.oid = r.ev_class
      left join pg_proc p on d.classid = 'pg_proc'::regclass and p.oid = d.objid
      where c.relnamespace = 'graphile_worker'::regnamespace
        and coalesce(v.relnamespace, p.pronamespace)::regnamespace::text in ('tickets', 'tickets_ops', 'reporting')
        and c.relname like '\\_private%'`);
    assert.deepEqual(dependent, []);
  });

  test('every table, view, column and function of ours has a comment', async () => {
    const bare = await rows<{ name: string }>(`
      select c.oid::regclass::text as name from pg_class c
      where c.relkind in ('r', 'v') and c.relnamespace in ('tickets'::regnamespace, 'tickets_ops'::regnamespace, 'reporting'::regnamespace)
        and obj_description(c.oid, 'pg_class') is null
      union all
      select a.attrelid::regclass || '.' || a.attname from pg_attribute a join pg_class c on c.oid = a.attrelid
      where c.relkind in ('r', 'v') and c.relnamespace in ('tickets'::regnamespace, 'tickets_ops'::regnamespace, 'reporting'::regnamespace)
        and a.attnum > 0 and not a.attisdropped and col_description(a.attrelid, a.attnum) is null
      union all
      select p.oid::regprocedure::text from pg_proc p
      where p.pronamespace in ('tickets'::regnamespace, 'tickets_ops'::regnamespace, 'reporting'::regnamespace)
        and obj_description(p.oid, 'pg_proc') is null
      order by 1`);
    assert.deepEqual(
      bare.map(({ name }) => name),
      [],
    );
  });
});

describe('payloads that people type', () => {
  test('one that jsonb cannot hold, or that is no object, hides no other job and stops no function', async () => {
    const payloads = [
      '{"cluster":"\\u0000"}',
      '{"cluster":"\\ud800"}',
      '{"cluster":"\\uDC00x"}',
      '{"a":1e999999}',
      '"Kilimani"',
    ];
    for (const payload of payloads) {
      await env.pool.query(`select graphile_worker.add_job('geocode_cluster', $1::json, max_attempts := 1)`, [payload]);
    }
    await env.pool.query(
      `select graphile_worker.add_job('fetch_snapshot', '{"dataset":"inc","a":"\\ud800"}', max_attempts := 1)`,
    );
    assert.equal((await env.pool.query('select from tickets_ops.jobs')).rowCount, 6);
    await env.pool.query('update graphile_worker._private_jobs set attempts = max_attempts');
    assert.equal((await env.pool.query('select from tickets_ops.failed_jobs')).rowCount, 6);
    assert.equal((await env.pool.query('select from tickets_ops.retry_failed()')).rowCount, 6);
    await env.pool.query('select ok from tickets_ops.health');
    await env.pool.query('select tickets_ops.cancel_job(id) from tickets_ops.jobs');
    assert.equal((await env.pool.query('select from tickets_ops.jobs')).rowCount, 0);
  });

  test('one for a dataset that is misspelt is a failure like any other, and one for a dataset that is off is none', async () => {
    for (const dataset of ['INC', 'crq'])
      await env.pool.query(
        `select graphile_worker.add_job('fetch_snapshot', json_build_object('dataset', $1::text), max_attempts := 1)`,
        [dataset],
      );
    await env.pool.query('update graphile_worker._private_jobs set attempts = max_attempts');
    const { rows } = await env.pool.query(
      `select payload ->> 'dataset' as dataset, superseded from tickets_ops.failed_jobs order by 1`,
    );
    assert.deepEqual(rows, [
      { dataset: 'INC', superseded: null },
      { dataset: 'crq', superseded: 'crq is off.' },
    ]);
  });
});
