/** A person's open transaction keeps others waiting for a bounded time, and is named: by health, and to the person who waits. */
import assert from 'node:assert/strict';
import { rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, afterEach, before, beforeEach, describe, test } from 'node:test';
import type pg from 'pg';
import { fleettickets } from '../support/command.ts';
import { connectAsPerson, type Environment, native, startEnvironment, waitFor } from '../support/environment.ts';
import { csvOf, keyOf } from '../support/pipeline.ts';
import { killWorkers, startWorkerProcess } from '../support/worker-process.ts';

describe('a transaction that somebody left open', { skip: !native && 'needs a native Postgres' }, () => {
  let env: Environment;
  let person: pg.Client;
  let pid: number;
  before(async () => {
    env = await startEnvironment();
  });
  after(() => env.close());
  beforeEach(async () => {
    await env.reset();
    await env.pool.query(
      `insert into tickets.geo_clusters (cluster, geom) values ('Kilimani', st_setsrid(st_makepoint(36.78, -1.29), 4326))`,
    );
    person = await connectAsPerson(env.databaseUrl);
    pid = (await person.query('select pg_backend_pid() as pid')).rows[0].pid;
    await person.query(`set application_name = 'psql'`);
    await person.query('begin');
  });
  afterEach(async () => {
    await person.query('rollback').catch(() => undefined);
    await person.end();
    await killWorkers();
  });
  const leaveOpen = () => person.query(`update tickets.geo_clusters set note = 'looking' where cluster = 'Kilimani'`);
  const named = () =>
    new RegExp(`process ${pid} of user \\w+, idle in transaction since .*update tickets.geo_clusters`);

  test('on a gazetteer keeps another person waiting for half a minute, who is told by whom', async () => {
    await leaveOpen();
    await assert.rejects(env.pool.query(`update tickets.geo_clusters set note = 'mine'`), named());
  });

  test('that asked for a job, or holds one, keeps cancel_job waiting for ten seconds', async () => {
    const { rows } = await env.pool.query(
      `select id from graphile_worker.add_job('upsert_batch', '{"snapshot_id": 1, "batch": 1}', job_key := 'upsert_batch:1:1') as job`,
    );
    await person.query('select from graphile_worker._private_jobs for update');
    await person.query(`lock table tickets_ops.snapshots in exclusive mode`);
    const started = performance.now();
    await assert.rejects(
      env.pool.query('select tickets_ops.cancel_job($1)', [rows[0].id]),
      new RegExp(`process ${pid} of user \\w+, idle in transaction`),
    );
    assert.ok(performance.now() - started < 25_000);
  });

  test('or holds a snapshot, keeps every call of a person waiting for ten seconds', async () => {
    await env.pool.query(
      `insert into tickets_ops.snapshots (dataset, source_key, source_etag, source_size, source_last_modified, snapshot_at, origin, status, error)
       values ('inc', 'automations/inc/2026-06-15T09-00-00.csv', 'e', 1, now(), now(), 'bucket', 'failed', 'x')`,
    );
    const snapshot = '(select max(snapshot_id) from tickets_ops.snapshots)';
    await env.pool.query(`insert into tickets.inc (ticket_id, raw) values ('WOT1', '{"cluster": "Kilimani"}')`);
    const calls = [
      `tickets_ops.release_snapshot(${snapshot})`,
      `tickets_ops.dismiss_snapshot(${snapshot})`,
      `tickets_ops.skip_file('automations/inc/2026-06-15T09-00-00.csv')`,
      'tickets_ops.fetch_now()',
      `tickets.geocode_cluster('Kilimani', true)`,
      `tickets.geocode_location('NW_Yaya_FDT1', 'Kilimani')`,
      `tickets_ops.retry_job((select id from tickets_ops.jobs where task = 'fetch_snapshot'))`,
      'tickets_ops.retry_failed()',
    ];
    await env.pool.query('select tickets_ops.fetch_now()');
    for (const call of [
      `tickets.geocode_cluster('Kilimani', true)`,
      `tickets.geocode_location('NW_Yaya_FDT1', 'Kilimani')`,
    ])
      await env.pool.query(`select ${call}`);
    await env.pool.query(
      `select tickets_ops.enqueue('geocode_cluster', '{"cluster": "Nyali"}', 'dead'); update graphile_worker._private_jobs set attempts = max_attempts where key = 'dead'`,
    );
    await person.query('select from graphile_worker._private_jobs for update');
    await person.query(`lock table tickets_ops.snapshots in exclusive mode`);
    const started = performance.now();
    const told = await Promise.all(
      calls.map((call) =>
        env.pool.query(`select ${call}`).then(
          () => 'it went through',
          (error: Error) => error.message,
        ),
      ),
    );
    const blocked = new RegExp(`given up: .*process ${pid} of user \\w+, idle in transaction`);
    for (const [n, message] of told.entries()) assert.match(message, blocked, calls[n]);
    assert.ok(performance.now() - started < 25_000);
  });

  const file = join(tmpdir(), `fleettickets-blockers-${process.pid}.csv`);
  const locked: [what: string, tables: string, commands: string[][]][] = [
    [
      'the ledger',
      'tickets_ops.snapshots',
      [['status'], ['metrics'], ['doctor'], ['ingest', '--inc-csv', file], ['ingest', '--from-bucket']],
    ],
    [
      'the tickets and the places',
      'tickets.inc, tickets.geo_clusters, tickets.geo_locations, tickets.assignments',
      [['report'], ['dispatch'], ['dispatch', '--apply'], ['geocode', 'clusters'], ['geocode', 'locations', '--apply']],
    ],
    [
      'the record of migrations',
      'graphile_migrate.migrations',
      [['status'], ['report'], ['vehicles'], ['page'], ['worker'], ['ingest', '--from-bucket', '--apply']],
    ],
  ];
  for (const [what, tables, commands] of locked) {
    test(`and has ${what} to itself keeps no command waiting for ever, and each says by whom`, async () => {
      await person.query(`lock table ${tables} in access exclusive mode`);
      await writeFile(file, csvOf([{ ticket_id: 'WOT1' }]));
      const blocked = new RegExp(`given up: .*process ${pid} of user \\w+, idle in transaction`);
      const GEOCODER = { GEOCODER_PROVIDER: 'nominatim', GEOCODER_BASE_URL: 'http://127.0.0.1:1' };
      await Promise.all(
        commands.map(async (args) => {
          const { out, err } = await fleettickets(GEOCODER, ...args);
          assert.match(`${out}${err}`, blocked, args.join(' '));
        }),
      );
      await rm(file);
    });
  }

  test('and holds tickets and gazetteers keeps dispatchers, curators and the owner waiting for ten seconds', async () => {
    await env.pool.query(
      `insert into tickets.inc (ticket_id, raw) values ('WOT1', '{"cluster": "Kilimani", "is_actionable": "true"}')`,
    );
    await env.pool.query(
      `insert into tickets.assignments (ticket_id, vehicle_id, position) values ('WOT1', 'KDA 1', 1)`,
    );
    await person.query('select from tickets.inc for update');
    await person.query('select from tickets.assignments for update');
    await person.query('select pg_advisory_xact_lock(tickets_ops.dispatch_lock())');
    await leaveOpen();
    const calls = [
      `tickets_ops.take_ticket('WOT1', 'KDA 2', null, null, true)`,
      `tickets.release('WOT1', 'flat tyre')`,
      'tickets.assign_plan()',
      'tickets.undo_decision((select max(decision_id) from tickets.geo_decisions))',
      `tickets_ops.erase_ticket('WOT1')`,
    ];
    const told = await Promise.all(
      calls.map((call) =>
        env.pool.query(`select ${call}`).then(
          () => 'it went through',
          (error: Error) => error.message,
        ),
      ),
    );
    for (const [n, message] of told.entries())
      assert.match(message, new RegExp(`given up: .*process ${pid} of user \\w+, idle in transaction`), calls[n]);
  });

  test('and holds a ticket keeps a person who moves its place, and the loads behind that, waiting for half a minute', async () => {
    await env.pool.query(`insert into tickets.inc (ticket_id, raw) values ('WOT1', '{"cluster": "Kilimani"}')`);
    await person.query('select from tickets.inc for update');
    await assert.rejects(
      env.pool.query('update tickets.geo_clusters set geom = st_setsrid(st_makepoint(36.79, -1.3), 4326)'),
      new RegExp(`given up: .*process ${pid} of user \\w+, idle in transaction`),
    );
  });

  test('blocks a load: SIGTERM ends the worker all the same, health names the process, and the load goes on after it', async () => {
    const worker = await startWorkerProcess({ LOG_LEVEL: 'info' });
    await leaveOpen();
    await env.putObject(keyOf(7), csvOf([{ ticket_id: 'WOT1', cluster: 'Kilimani', is_actionable: 'true' }]));
    await env.pool.query('select tickets_ops.fetch_now()');
    await waitFor('the batch to wait', async () => {
      const { rows } = await env.pool.query(
        `select pid from pg_stat_activity a where datname = current_database() and $1 = any (pg_blocking_pids(a.pid))`,
        [pid],
      );
      return rows.length;
    });
    const { rows } = await env.pool.query(
      `select replace(prosrc, 'interval ''1 minute''', 'interval ''0''') as body from pg_proc where proname = 'blocking_problems'`,
    );
    const { rows: found } = await env.pool.query(rows[0].body);
    assert.match(
      found[0]?.problem ?? Object.values(found[0] ?? {}).join(' '),
      new RegExp(
        `Process ${pid} of user \\w+ has kept loads waiting since .*idle in transaction, its query of .* ago: update tickets.geo_clusters`,
      ),
    );
    const told = performance.now();
    worker.kill('SIGTERM');
    assert.notEqual(await worker.exited, null);
    assert.ok(performance.now() - told < 30_000, `${performance.now() - told} ms`);
    await person.query('rollback');
    await startWorkerProcess({ LOG_LEVEL: 'info' });
    await waitFor(
      'the load',
      async () => (await env.pool.query(`select from tickets.inc where geo_source = 'cluster'`)).rowCount,
      120_000,
    );
  });

  test('cancelling a running job holds across the death of its worker', async () => {
    await person.query('rollback');
    const { rows } = await env.pool.query(
      `select id from graphile_worker.add_job('geocode_cluster', '{"cluster": "Kilimani"}', max_attempts := 6)`,
    );
    await env.pool.query(
      `update graphile_worker._private_jobs set attempts = 1, locked_at = now() - interval '1 hour', locked_by = 'pool-of-the-dead'`,
    );
    await env.pool.query('select tickets_ops.cancel_job($1)', [rows[0].id]);
    await env.pool.query(`select tickets_ops.unlock_pools('{pool-of-the-dead}')`);
    const { rows: jobs } = await env.pool.query(
      "select state, failed_at > now() - interval '5 minutes' as lately from tickets_ops.list_jobs()",
    );
    assert.deepEqual(jobs, [{ state: 'failed', lately: true }]);
  });
});
