/** The roles: what a reader and an operator can do, who own nothing, and that it is no more than that. */
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { after, before, describe, test } from 'node:test';
import type pg from 'pg';
import { pino } from 'pino';
import { feed } from '../../demo/feed.ts';
import { connect, withClient } from '../../src/database/client.ts';
import { migrate } from '../../src/database/schema.ts';
import { readStatus } from '../../src/operations/status.ts';
import { type Environment, inJobSchema, native, startEnvironment } from '../support/environment.ts';
import { countRows } from '../support/rows.ts';

const silent = pino({ level: 'silent' });
const DENIED = /permission denied/;

describe('roles', { skip: !native && 'needs a native Postgres' }, () => {
  const suffix = randomBytes(4).toString('hex');
  const names = { tickets_reader: `reader_${suffix}`, tickets_operator: `operator_${suffix}` } as const;
  let env: Environment;
  let reader: pg.Client;
  let operator: pg.Client;

  before(async () => {
    env = await startEnvironment();
    for (const [role, login] of Object.entries(names))
      await env.pool.query(`create role ${login} login in role ${role}`);
    [reader, operator] = (await Promise.all(Object.values(names).map((login) => connect(as(login))))) as [
      pg.Client,
      pg.Client,
    ];
    const [snapshot] = feed({ hours: 1, tickets: 60 });
    await env.putObject(`automations/inc/${snapshot?.name}`, snapshot?.csv ?? '');
  });
  after(async () => {
    await reader.end();
    await operator.end();
    for (const login of Object.values(names)) await env.pool.query(`drop role ${login}`);
    await env.close();
  });
  const as = (login: string) => {
    const url = new URL(env.databaseUrl);
    url.username = login;
    return url.href;
  };
  const cell = async (client: pg.Client, sql: string) =>
    Object.values((await client.query({ text: sql, rowMode: 'array' })).rows[0] ?? [])[0];

  test('an operator that owns nothing does everything an operator does', async () => {
    const waiting = await cell(operator, 'select job_id from tickets_ops.fetch_now()');
    assert.equal(await cell(operator, `select state from tickets_ops.jobs where id = ${waiting}`), 'ready');
    assert.deepEqual(await env.runJobs(), []);
    assert.equal(await cell(operator, 'select status from tickets_ops.snapshots'), 'done');
    assert.ok((await readStatus(operator)).snapshots.length > 0);

    assert.match(String(await cell(operator, `select job_key from tickets.geocode_cluster('Kilimani')`)), /Kilimani/i);
    const asked = await cell(
      operator,
      `select job_id from tickets.geocode_location('NW_Kilimani_FDT3', 'Kilimani', true)`,
    );
    assert.equal(await cell(operator, `select job_id from tickets_ops.retry_job(${asked})`), asked);
    await env.pool.query('update graphile_worker._private_jobs set attempts = max_attempts where id = $1', [asked]);
    assert.equal(await cell(operator, 'select id from tickets_ops.failed_jobs'), asked);
    assert.equal(await cell(operator, 'select job_id from tickets_ops.retry_failed()'), asked);
    assert.equal(await cell(operator, `select tickets_ops.cancel_job(${asked})`), `Job ${asked} is cancelled.`);

    assert.equal(await cell(operator, 'select jobs_failed from tickets_ops.health'), '0');
    for (const view of [
      'geocoding',
      'review_queue',
      'snapshots',
      'snapshot_batches',
      'snapshot_rejects',
      'workers',
      'geocoding_calls',
    ]) {
      await operator.query(`select * from tickets_ops.${view}`);
    }
    assert.equal(await countRows(operator, 'tickets.inc'), await countRows(reader, 'tickets.inc'));
  });

  test('a reader reads tickets and the map', async () => {
    assert.notEqual(await countRows(reader, 'tickets.inc'), 0);
    for (const table of [
      'inc',
      'crq',
      'inc_events',
      'geo_clusters',
      'geo_locations',
      'import_meta',
      'inc_open_sla',
      'inc_backlog',
    ]) {
      await reader.query(`select * from tickets.${table} limit 1`);
    }
    await reader.query('select reporting.fn_tickets_for_map()');
    await reader.query(`select tickets.location_key('NW_Kilimani_FDT3')`);
  });

  test('a reader operates nothing', async () => {
    for (const sql of [
      'select * from tickets_ops.jobs',
      'select * from tickets_ops.health',
      'select * from tickets_ops.snapshots',
      'select * from tickets_ops.fetch_now()',
      'select * from tickets_ops.retry_job(1)',
      'select * from tickets_ops.retry_failed()',
      'select tickets_ops.cancel_job(1)',
      `select * from tickets.geocode_cluster('Kilimani')`,
      `select * from tickets.geocode_location('NW_Kilimani_FDT3', 'Kilimani')`,
    ]) {
      await assert.rejects(reader.query(sql), DENIED, sql);
    }
  });

  test('neither reads or writes anything else', async () => {
    const { rows: relations } = await env.pool.query<{ name: string; readable: boolean; writable: boolean }>(
      `select c.oid::regclass::text as name, r.rolname as role,
         has_schema_privilege(r.oid, c.relnamespace, 'usage') and has_any_column_privilege(r.oid, c.oid, 'select') as readable,
         has_table_privilege(r.oid, c.oid, 'insert, update, delete, truncate, references, trigger') as writable
       from pg_class c, pg_roles r
       where r.rolname = any ($1) and c.relkind in ('r', 'v', 'm', 'p', 'f')
         and c.relnamespace::regnamespace::text in ('tickets', 'tickets_ops', 'reporting', 'graphile_worker', 'graphile_migrate')
       order by 1, 2`,
      [Object.keys(names)],
    );
    assert.deepEqual(
      relations.filter(({ writable }) => writable),
      [],
    );
    const { rows: more } = await env.pool.query(
      `select r.rolname, n.nspname from pg_namespace n, pg_roles r
       where r.rolname = any ($1) and n.nspname !~ '^pg_' and has_schema_privilege(r.oid, n.oid, 'create')
       union all
       select r.rolname, c.oid::regclass::text from pg_class c, pg_roles r
       where r.rolname = any ($1) and c.relkind = 'S' and c.relnamespace::regnamespace::text !~ '^pg_'
         and has_sequence_privilege(r.oid, c.oid, 'usage, select, update')
       union all
       select rolname, 'the database' from pg_roles where rolname = any ($1) and has_database_privilege(oid, current_database(), 'create')`,
      [Object.keys(names)],
    );
    assert.deepEqual(more, [], 'schemas to create in, sequences');
    const readable = (role: string) =>
      relations
        .filter((relation) => relation.readable && (relation as unknown as { role: string }).role === role)
        .map(({ name }) => name);
    const data = readable('tickets_reader');
    assert.deepEqual(
      data.filter((name) => !name.startsWith('tickets.')),
      ['graphile_migrate.migrations'],
    );
    const { rows: ours } = await env.pool.query<{ name: string }>(
      `select oid::regclass::text as name from pg_class where relnamespace = 'tickets'::regnamespace and relkind in ('r', 'p', 'v', 'm')`,
    );
    assert.deepEqual(
      data.filter((name) => name.startsWith('tickets.')).sort(),
      ours.map(({ name }) => name).sort(),
      'the list in grants.sql',
    );
    assert.deepEqual(
      readable('tickets_operator').filter((name) => !data.includes(name)),
      [
        'datasets',
        'failed_jobs',
        'geocoding',
        'geocoding_calls',
        'health',
        'jobs',
        'metrics',
        'review_queue',
        'schedule',
        'snapshot_batches',
        'snapshot_rejects',
        'snapshots',
        'storage',
        'workers',
      ].map((name) => `tickets_ops.${name}`),
    );

    const { rows: callable } = await env.pool.query<{ role: string; name: string }>(
      `select r.rolname as role, p.oid::regprocedure::text as name
       from pg_proc p, pg_roles r
       where r.rolname = any ($1) and (p.prosecdef or p.pronamespace = 'tickets_ops'::regnamespace)
         and p.pronamespace::regnamespace::text in ('tickets', 'tickets_ops', 'reporting')
         and has_schema_privilege(r.oid, p.pronamespace, 'usage') and has_function_privilege(r.oid, p.oid, 'execute')
       order by 1, 2`,
      [Object.keys(names)],
    );
    assert.deepEqual(
      callable
        .filter(({ role, name }) => role === 'tickets_operator' && name.startsWith('tickets'))
        .map(({ name }) => name),
      [
        'tickets.datasets()',
        'tickets.freshness(text)',
        'tickets.geocode_cluster(text,boolean)',
        'tickets.geocode_location(text,text,boolean)',
        'tickets_ops.cancel_job(bigint)',
        'tickets_ops.dismiss_snapshot(bigint)',
        'tickets_ops.fetch_now(text,boolean)',
        'tickets_ops.hung_after()',
        'tickets_ops.is_far_from_its_places(text)',
        'tickets_ops.kept_tables()',
        'tickets_ops.list_jobs()',
        'tickets_ops.next_utc_midnight()',
        'tickets_ops.read_datasets()',
        'tickets_ops.read_health()',
        'tickets_ops.read_metrics()',
        'tickets_ops.reason(tickets_ops.snapshots)',
        'tickets_ops.release_snapshot(bigint)',
        'tickets_ops.retry_failed(text)',
        'tickets_ops.retry_job(bigint)',
        'tickets_ops.skip_file(text)',
        'tickets_ops.worker_lock(text)',
        'tickets_ops.worker_schema()',
        'tickets_ops.worker_states()',
      ],
    );
    assert.deepEqual(
      callable
        .filter(({ role, name }) => role === 'tickets_reader' && name.startsWith('tickets'))
        .map(({ name }) => name),
      ['tickets.datasets()', 'tickets.freshness(text)'],
    );
    await assert.rejects(
      operator.query(inJobSchema(`select graphile_worker.add_job('fleettickets_maintain')`)),
      DENIED,
    );
    await assert.rejects(operator.query(`update tickets.inc set raw = '{}'`), DENIED);
  });

  test('every security definer function has a search_path in which nobody but a superuser can put anything', async () => {
    // PostGIS's schema is none: in a database from before Postgres 15 everybody may create in public.
    const { rows } = await env.pool.query<{ name: string; path: string | null }>(
      `select p.oid::regprocedure::text as name, (select c from unnest(p.proconfig) c where c like 'search_path=%') as path
       from pg_proc p
       where p.prosecdef and p.pronamespace::regnamespace::text not in ('pg_catalog', 'information_schema')
         and not exists (select from pg_depend d where d.classid = 'pg_proc'::regclass and d.objid = p.oid and d.deptype = 'e')
       order by 1`,
    );
    assert.ok(rows.length > 9);
    for (const { name, path } of rows) assert.equal(path, 'search_path=pg_catalog, pg_temp', name);

    // The caller's own path and temporary objects change nothing.
    await operator.query(
      `set search_path = pg_temp, public; create temp table import_meta (dataset text); create temp table inc (x int)`,
    );
    assert.equal(await cell(operator, 'select loaded_status from tickets_ops.health'), 'done');
  });

  test('what a migration brings anew is granted by the next one, what the DBA granted stays, and what others made is theirs', async () => {
    await env.pool.query('create table tickets.added (x integer)');
    await env.pool.query(
      `revoke select on tickets_ops.jobs from tickets_operator; revoke select on tickets.inc_ageing from tickets_reader; grant select on tickets_ops.health to ${names.tickets_reader}`,
    );
    await assert.rejects(operator.query('select * from tickets_ops.jobs'), DENIED);
    await migrate(env.databaseUrl, silent);
    await operator.query('select * from tickets_ops.jobs');
    await reader.query('select * from tickets.inc_ageing');
    await assert.rejects(reader.query('select * from tickets.added'), DENIED);
    const kept = await env.pool.query(`select has_table_privilege($1, 'tickets_ops.health', 'select') as kept`, [
      names.tickets_reader,
    ]);
    assert.deepEqual(kept.rows, [{ kept: true }]);
    await env.pool.query(`revoke select on tickets_ops.health from ${names.tickets_reader}; drop table tickets.added`);
  });

  test('an owner that may not create roles grants to those that are there', async () => {
    const owner = `owner_${suffix}`;
    const database = `fleettickets_roles_${suffix}`;
    const url = new URL(as(owner));
    url.pathname = `/${database}`;
    const admin = new URL(env.databaseUrl);
    admin.pathname = `/${database}`;
    await env.pool.query(`create role ${owner} login`);
    await env.pool.query(`create database ${database} owner ${owner}`);
    try {
      await withClient(admin.href, (client) => client.query('create extension postgis schema public'));
      await migrate(url.href, silent);
      const { rows } = await withClient(admin.href, (client) =>
        client.query(`select has_table_privilege('tickets_operator', 'tickets_ops.jobs', 'select') as granted`),
      );
      assert.deepEqual(rows, [{ granted: true }]);
    } finally {
      await env.pool.query(`drop database if exists ${database} with (force)`);
      await env.pool.query(`drop role ${owner}`);
    }
  });
});
