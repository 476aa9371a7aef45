/**
 * What others may create in a shared database, and none of it runs with our rights: functions and operators that fit better
 * than Postgres's own, in a schema called as our role, in public and in PostGIS's; triggers; notices; locks.
 */
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { readdir, readFile } from 'node:fs/promises';
import { after, before, describe, test } from 'node:test';
import pg from 'pg';
import { pino } from 'pino';
import { feed } from '../../demo/feed.ts';
import { startProvider } from '../../demo/provider.ts';
import { run as healthcheck } from '../../src/commands/healthcheck.ts';
import { run as ingest } from '../../src/commands/ingest.ts';
import { run as status } from '../../src/commands/status.ts';
import { connect, SchemaError, withClient } from '../../src/database/client.ts';
import { migrate } from '../../src/database/schema.ts';
import { examine } from '../../src/operations/doctor/doctor.ts';
import { fixtures } from '../support/definitions.ts';
import { type Environment, native, startEnvironment, waitFor } from '../support/environment.ts';
import { killWorkers, startWorkerProcess } from '../support/worker-process.ts';

const PREFIX = 'automations/inc/';
const silent = pino({ level: 'silent' });
const SOURCES = new URL('../../src/', import.meta.url);

/** The types of which our SQL has values. */
const TYPES = ['text', 'integer', 'bigint', 'numeric', 'double precision', 'jsonb', 'timestamptz', 'interval'];
const OPERATORS = [
  '||',
  '=',
  '<>',
  '<',
  '>',
  '<=',
  '>=',
  '+',
  '-',
  '*',
  '/',
  '%',
  '->',
  '->>',
  '#>>',
  '?',
  '@>',
  '~',
  '!~',
  '~~',
];
const pairs = TYPES.flatMap((one) => TYPES.map((other) => [one, other] as const));

/** Every name that stands before a bracket in SQL of ours. */
async function calledNames(): Promise<string[]> {
  const files = (await readdir(SOURCES, { recursive: true })).filter((file) => file.endsWith('.ts'));
  const texts = [
    ...(await fixtures()).values(),
    ...(await Promise.all(files.map((file) => readFile(new URL(file, SOURCES), 'utf8')))),
  ];
  return [...new Set(texts.flatMap((text) => [...text.matchAll(/\b([a-z_0-9]+) ?\(/g)].map(([, name]) => name ?? '')))];
}

describe('what others may create', { skip: !native && 'needs a native Postgres' }, () => {
  const suffix = randomBytes(4).toString('hex');
  const owner = `hostile_owner_${suffix}`;
  const other = `hostile_other_${suffix}`;
  const database = `hostile_${suffix}`;
  let env: Environment;
  let admin: pg.Client;
  const urlOf = (role?: string) => {
    const at = Object.assign(new URL(env.databaseUrl), { pathname: `/${database}` });
    return (role ? Object.assign(at, { username: role, password: 'a-password' }) : at).href;
  };

  before(async () => {
    env = await startEnvironment();
    for (const role of [owner, other]) await env.pool.query(`create role ${role} login password 'a-password'`);
    await env.pool.query(`create database ${database}`);
    admin = await connect(urlOf());
    // As a DBA of a database of many gives it: everybody creates in public, this role schemas as well.
    await admin.query(`
      create extension postgis schema public;
      grant create on schema public to public;
      grant create on database ${database} to ${owner}, ${other}`);
    await asOther(`
      create schema ${other}; create schema ${owner};
      grant usage on schema ${other}, ${owner} to public;
      create table ${other}.caught (who text, what text);
      grant insert on ${other}.caught to public;
      create function ${other}.catch(what text) returns void language plpgsql as $$
      begin
        if current_user <> '${other}' then insert into ${other}.caught values (current_user, what); end if;
      end $$`);
  });
  after(async () => {
    await killWorkers();
    await admin.end();
    await env.pool.query(`drop database ${database} with (force)`);
    await env.pool.query(`drop role ${owner}, ${other}`);
    await env.close();
  });

  const asOther = (sql: string) => withClient(urlOf(other), (client) => client.query(sql));
  const caught = async () => (await admin.query(`select distinct who, what from ${other}.caught order by 1, 2`)).rows;

  /** Puts, into a schema, a function and an operator for every name that we call and each combination of argument types. */
  async function setTraps(schema: string): Promise<void> {
    const { rows } = await admin.query<{ name: string; returns: string }>(
      `select distinct on (proname) proname as name, case when prorettype in (16, 20, 23, 25, 1700, 3802) then format_type(prorettype, null) else 'text' end as returns
       from pg_proc where pronamespace = 'pg_catalog'::regnamespace and prokind = 'f' and proname = any ($1) order by 1`,
      [await calledNames()],
    );
    assert.ok(rows.length > 60);
    const trap = (name: string, args: readonly string[], returns: string) =>
      `create function ${schema}.${name}(${args.join(', ')}) returns ${returns} language plpgsql as $$
       begin perform ${other}.catch('${schema}.${name}(${args.join(', ')})'); return null; end $$;`;
    const functions = rows.flatMap(({ name, returns }) => [
      ...TYPES.map((type) => trap(name, [type], returns)),
      ...pairs.map((args) => trap(name, args, returns)),
      ...(/format|concat|replace|substr/.test(name) ? pairs.map((args) => trap(name, ['text', ...args], returns)) : []),
    ]);
    const operators = OPERATORS.flatMap((operator, n) =>
      pairs.map((args) => {
        const returns =
          /[<>=~?@]/.test(operator) && !operator.startsWith('-') && operator !== '#>>' ? 'boolean' : args[0];
        return `${trap(`operator_${n}`, args, returns)}
          create operator ${schema}.${operator} (function = ${schema}.operator_${n}, leftarg = ${args[0]}, rightarg = ${args[1]});`;
      }),
    );
    await asOther([...functions, ...operators].join('\n'));
  }

  test('it does win in a session that is not pinned: the traps work', async () => {
    await setTraps(owner);
    const client = new pg.Client({ connectionString: urlOf(owner) });
    await client.connect();
    await client.query(`select format('%s', 1::bigint)`);
    await client.query('select 1::bigint % 2::integer');
    await client.end();
    assert.deepEqual(
      (await caught()).map(({ who, what }) => [who, what]),
      [
        [owner, `${owner}.format(text, bigint)`],
        [owner, `${owner}.operator_11(bigint, integer)`],
      ],
    );
    await admin.query(`truncate ${other}.caught`);
  });

  test('where it could win while tables are made, in PostGIS’s schema, migrate refuses before it begins', async () => {
    await asOther('create function public.format(text, bigint) returns text language sql return $1');
    await assert.rejects(migrate(urlOf(owner), silent), (error: Error) => {
      assert.ok(error instanceof SchemaError);
      assert.match(
        error.message,
        /function (public\.)?format\(text,bigint\) of hostile_other_\w+ could be called in place/,
      );
      return true;
    });
    await asOther('drop function public.format(text, bigint)');
    await migrate(urlOf(owner), silent);
    assert.deepEqual(await caught(), []);
  });

  test('a day of ours runs none of it: loads, geocoding, maintenance, every command', async (t) => {
    await setTraps('public');
    const provider = await startProvider({ rate: 100, key: 'a-key-of-a-provider' });
    t.after(() => provider.close());
    Object.assign(process.env, {
      DATABASE_URL: urlOf(owner),
      GEOCODER_PROVIDER: 'locationiq',
      GEOCODER_API_KEY: provider.key,
      GEOCODER_BASE_URL: `${provider.url}/v1`,
      GEOCODER_RATE_PER_SECOND: '50',
    });
    const worker = await startWorkerProcess();
    for (const snapshot of feed({ hours: 2, tickets: 200 })) {
      await env.putObject(PREFIX + snapshot.name, snapshot.csv);
      await admin.query('select tickets_ops.fetch_now()');
      await waitFor('the snapshot to be archived', async () => {
        const sql = 'select from tickets_ops.snapshots where source_key = $1 and archived_at is not null';
        return (await admin.query(sql, [PREFIX + snapshot.name])).rows.length === 1;
      });
    }
    await waitFor('places to be found', async () => {
      return (await admin.query(`select from tickets.geo_locations where status = 'found'`)).rows.length > 0;
    });
    await admin.query(`select tickets_ops.enqueue('fleettickets_maintain', '{}')`);
    await waitFor('maintenance', async () => {
      return (await admin.query(`select from tickets_ops.jobs where task = 'fleettickets_maintain'`)).rows.length === 0;
    });
    const write = process.stdout.write.bind(process.stdout);
    t.mock.method(process.stdout, 'write', (text: string | Uint8Array) =>
      String(text).startsWith('{') ? true : write(text),
    );
    for (const run of [
      () => status(['--json']),
      () => healthcheck(['--json']),
      () => ingest(['--from-bucket', '--json']),
    ])
      await run();
    await migrate(urlOf(owner), silent);
    for await (const _ of examine()) assert.deepEqual(await caught(), [], `doctor: ${_.check}`);
    assert.deepEqual(await caught(), []);

    // What a person of our role, or a DBA, types in a session that is not pinned. What they call of ours is safe.
    const person = new pg.Client({ connectionString: urlOf(owner) });
    await person.connect();
    const [ticket] = (await admin.query('select ticket_id, raw from tickets.inc order by 1 limit 1')).rows;
    for (const [sql, values] of [
      ['select ok, problems from tickets_ops.health', []],
      ['select * from tickets_ops.jobs', []],
      ['select * from tickets_ops.failed_jobs', []],
      ['select * from tickets_ops.review_queue', []],
      ['select * from tickets_ops.geocoding', []],
      ['select * from tickets_ops.fetch_now()', []],
      ['select * from tickets_ops.retry_failed()', []],
      [`select * from tickets.geocode_location('NW_Kilimani_FDT3', 'Kilimani', true)`, []],
      [`select * from tickets.geocode_cluster('Kilimani', true)`, []],
      ['select * from tickets.inc_open_sla', []],
      ['select * from tickets.inc_backlog', []],
      ['select reporting.fn_tickets_for_map()', []],
      ['delete from tickets.inc where ticket_id = $1', [ticket.ticket_id]],
      ['insert into tickets.inc (ticket_id, raw) values ($1, $2)', [ticket.ticket_id, ticket.raw]],
      [`update tickets.geo_clusters set geom = 'SRID=4326;POINT(36.79 -1.29)', guard_km = 30`, []],
      [`update tickets.geo_locations set verified = true where status = 'found'`, []],
      [`update tickets.geo_locations set note = 'looked at'`, []],
    ] as const) {
      await person.query(sql, [...values]);
      assert.deepEqual(await caught(), [], sql);
    }
    await person.end();
    worker.kill('SIGTERM');
    assert.equal(await worker.exited, 0);
  });

  test('a function of ours whose body is a text pins its path, but for those whose every name is exact', async () => {
    const { rows } = await admin.query<{ name: string }>(
      `select p.oid::regproc::text as name from pg_proc p
       where p.pronamespace::regnamespace::text in ('tickets', 'tickets_ops', 'reporting') and p.prosqlbody is null and p.prokind = 'f'
         and not exists (select from unnest(p.proconfig) c where c = 'search_path=pg_catalog, pg_temp')
       order by 1`,
    );
    assert.deepEqual(
      rows.map(({ name }) => name),
      [
        'tickets.eat_ts',
        'tickets.hours_to_minutes',
        'tickets.location_rule',
        'tickets.location_walk',
        'tickets.plain_name',
        'tickets.to_degrees', // these run for every row
        'tickets.filtered_tickets', // these are inlined
        'tickets.filtered_crq',
        'tickets.crq_features',
        'tickets.map_collection',
        'tickets.map_features',
        'tickets_ops.queued_jobs',
        'tickets.bytes_of_texts', // and these, of which a bound body would keep columns from being added to the table
        'tickets_ops.is_due',
        'tickets_ops.is_due',
        'tickets_ops.is_unresolvable',
        'tickets_ops.is_failure',
        'tickets_ops.needs_person',
        'tickets_ops.fires_on',
      ].sort(),
    );
  });

  test('the doctor names everybody who may put something there: to all, by name, as owner, as a trigger', async () => {
    const look = async () => {
      process.env.DATABASE_URL = urlOf(owner);
      for await (const finding of examine()) if (finding.check === 'search path') return finding;
      return assert.fail();
    };
    assert.deepEqual(await look(), {
      check: 'search path',
      state: 'warning',
      detail:
        `the schema ${owner} belongs to ${other}, and psql as this role looks up names there\n` +
        'everybody may create in the schema public, where psql as this role looks up names',
      remedy:
        'let the DBA run: revoke create on schema public from public\n' +
        'in psql as this role, name the schema of what you call',
    });
    await admin.query(`
      revoke create on schema public from public; grant create on schema public to ${other};
      grant usage, create on schema tickets to ${other}; grant trigger on tickets.inc to ${other}`);
    await asOther(`
      create function ${other}.notice() returns trigger language plpgsql as $$ begin return null; end $$;
      create trigger notice after insert on tickets.inc for each statement execute function ${other}.notice()`);
    const found = await look();
    assert.equal(found.state, 'failed');
    assert.equal(
      found.detail,
      `${other} may create in the schema tickets, beside what runs as the worker\n` +
        `the schema ${owner} belongs to ${other}, and psql as this role looks up names there\n` +
        `${other} may create in the schema public, where psql as this role looks up names\n` +
        `trigger notice on table tickets.inc, which calls ${other}.notice() of ${other}, runs as the role that writes tickets, the worker included`,
    );
    // What it says to run takes nothing away that anybody has made.
    const [, statements = ''] = /let the DBA run: (.*)/.exec(found.remedy ?? '') ?? [];
    await admin.query(statements);
    await asOther(`alter function ${other}.notice() security definer; drop schema ${owner} cascade`);
    assert.equal((await look()).state, 'ok');
    assert.deepEqual(await caught(), []);
    await admin.query('drop trigger notice on tickets.inc');
  });

  test('a notice of a migration that is not ours ends no worker', async () => {
    const worker = await startWorkerProcess({ DATABASE_URL: urlOf(owner) });
    for (const payload of ['{"migrationNumber": 99, "breaking": true}', 'nonsense', ''])
      await asOther(`select pg_notify('worker:migrate', '${payload}')`);
    const [snapshot] = feed({ seed: 7, hours: 1, tickets: 60, start: new Date('2026-06-16T07:00:00+03:00') });
    await env.putObject(PREFIX + snapshot?.name, snapshot?.csv ?? '');
    await admin.query('select tickets_ops.fetch_now()');
    await waitFor('the worker to go on', async () => {
      const sql = 'select from tickets_ops.snapshots where source_key = $1 and archived_at is not null';
      return (await admin.query(sql, [PREFIX + snapshot?.name])).rows.length === 1;
    });
    worker.kill('SIGTERM');
    assert.equal(await worker.exited, 0);
  });

  test('the session that holds the lock of graphile-migrate is named by migrate', async () => {
    const holder = await connect(urlOf(other));
    await holder.query('select pg_advisory_lock(4727445306447283)');
    const { rows } = await holder.query<{ pid: number }>('select pg_backend_pid() as pid');
    const log: string[] = [];
    const migrated = migrate(urlOf(owner), pino({}, { write: (line) => log.push(JSON.parse(line).msg) }));
    const line = await waitFor('migrate to wait', () => log.find((said) => said.includes('waiting for it')));
    assert.ok(line.includes(`process ${rows[0]?.pid} of user ${other}`), line);
    await holder.end();
    await migrated;
  });

  test('the session that holds a lock of ours is named by health, with the process', async () => {
    const holder = await connect(urlOf(other));
    const { rows } = await admin.query<{ key: string }>('select tickets.gazetteer_lock()::text as key');
    await holder.query(`set application_name = 'fleettickets worker of somebody else'`);
    await holder.query('select pg_advisory_lock($1)', [rows[0]?.key]);
    const { rows: pids } = await holder.query<{ pid: number }>('select pg_backend_pid() as pid');
    const waiting = connect(urlOf(owner)).then(async (client) => {
      await client.query(
        `update tickets.inc set raw = raw || '{"region": "coast"}' where ticket_id = (select min(ticket_id) from tickets.inc)`,
      );
      await client.end();
    });
    await waitFor(
      'health to name it',
      async () => {
        const { rows: found } = await admin.query<{ problems: string[] }>('select problems from tickets_ops.health');
        return found[0]?.problems.some((problem) => problem.includes(`Process ${pids[0]?.pid} of user ${other}`));
      },
      100_000,
    );
    await holder.end();
    await waiting;
  });
});
