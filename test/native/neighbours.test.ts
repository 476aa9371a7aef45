/**
 * Another application lives in the same database, with jobs of its own on graphile-worker, through our migration and a day of
 * our pipeline: it notices nothing, and our operators see nothing of it. Once in schemas of their own, once in one schema.
 */
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { after, before, describe, test } from 'node:test';
import { type Logger, pino } from 'pino';
import { feed } from '../../demo/feed.ts';
import { SchemaError, withClient } from '../../src/database/client.ts';
import { migrate } from '../../src/database/schema.ts';
import { REVISION } from '../../src/database/worker-schema.ts';
import { examine } from '../../src/operations/doctor/doctor.ts';
import type { Finding } from '../../src/operations/doctor/finding.ts';
import { type Environment, native, startEnvironment, waitFor } from '../support/environment.ts';
import {
  CARD_NUMBER,
  OTHER_TABLES,
  type OtherApplication,
  type OtherPackage,
  startOtherApplication,
} from '../support/other-application.ts';
import { killWorkers, startWorkerProcess } from '../support/worker-process.ts';

const PREFIX = 'automations/inc/';
const silent = pino({ level: 'silent' });
const skip = !native && 'needs a native Postgres';

let env: Environment;
before(async () => {
  if (native) env = await startEnvironment();
});
after(() => env?.close());

/** A database with PostGIS, which a role owns that is no superuser, and what is done with it. */
async function withDatabase(use: (database: Database) => Promise<void>): Promise<void> {
  const suffix = randomBytes(4).toString('hex');
  const [name, owner, operator] = ['neighbours', 'owner', 'operator'].map((word) => `${word}_${suffix}`) as Names;
  const { pool } = env;
  for (const role of [owner, operator]) await pool.query(`create role ${role} login password 'a-password'`);
  await pool.query(`create database ${name} owner ${owner}`);
  const url = (role?: string) => {
    const at = Object.assign(new URL(env.databaseUrl), { pathname: `/${name}` });
    return (role ? Object.assign(at, { username: role, password: 'a-password' }) : at).href;
  };
  try {
    await withClient(url(), (client) => client.query('create extension postgis schema public'));
    await use({
      url: url(owner),
      adminUrl: url(),
      operatorUrl: url(operator),
      ask: (sql, values) => withClient(url(), async (client) => (await client.query(sql, values)).rows),
      grantOperator: async () => void (await pool.query(`grant tickets_operator to ${operator}`)),
    });
  } finally {
    await killWorkers();
    await pool.query(`drop database ${name} with (force)`);
    await pool.query(`drop role ${owner}, ${operator}`);
  }
}

type Names = [string, string, string];
type Database = {
  /** As the role that both applications work as. */
  url: string;
  adminUrl: string;
  operatorUrl: string;
  // biome-ignore lint/suspicious/noExplicitAny: rows are whatever the statement selects
  ask(sql: string, values?: unknown[]): Promise<any[]>;
  grantOperator(): Promise<void>;
};

/** Runs `use` under these settings. */
async function withSettings<T>(settings: Record<string, string | undefined>, use: () => Promise<T>): Promise<T> {
  const before = Object.fromEntries(Object.keys(settings).map((name) => [name, process.env[name]]));
  const set = (values: Record<string, string | undefined>) => {
    for (const [name, value] of Object.entries(values)) {
      if (value === undefined) delete process.env[name];
      else process.env[name] = value;
    }
  };
  set(settings);
  try {
    return await use();
  } finally {
    set(before);
  }
}

const migrateWith = (database: Database, settings: Record<string, string | undefined>, log: Logger = silent) =>
  withSettings({ WORKER_SCHEMA: undefined, WORKER_SCHEMA_SHARED: undefined, ...settings }, () =>
    migrate(database.url, log),
  );

async function diagnose(database: Database, check: string, settings: Record<string, string | undefined> = {}) {
  return withSettings(
    { DATABASE_URL: database.url, WORKER_SCHEMA: undefined, WORKER_SCHEMA_SHARED: undefined, ...settings },
    async () => {
      for await (const finding of examine()) if (finding.check === check) return finding;
      return assert.fail(check) as Finding;
    },
  );
}

/** The migration is refused with this reason, in a list; nothing that it says stands in the catalog has changed. */
async function refuses(database: Database, settings: Record<string, string>, ...reasons: RegExp[]): Promise<void> {
  const catalog = () =>
    database.ask(`
      select 'class ' || oid || ' ' || relname || relnamespace || relfilenode as what from pg_class where oid > 16384
      union all select 'proc ' || oid || proname from pg_proc where oid > 16384
      union all select 'schema ' || oid || nspname from pg_namespace order by 1`);
  const before = await catalog();
  await assert.rejects(migrateWith(database, settings), (error: Error) => {
    assert.ok(error instanceof SchemaError, error.stack);
    for (const reason of reasons) assert.match(error.message, reason);
    return true;
  });
  assert.deepEqual(await catalog(), before);
}

/** What the other application has: every row of its tasks, and its own tables. */
const theirs = (database: Database) =>
  database.ask(`
    select 'job ' || j.id || concat_ws('|', t.identifier, j.payload, j.attempts, j.max_attempts, j.locked_by, j.last_error, j.key, j.run_at) as what
    from graphile_worker._private_jobs j join graphile_worker._private_tasks t on t.id = j.task_id
    where t.identifier in ('charge_card', 'long_report') or t.identifier = 'maintain' and j.attempts = j.max_attempts
    union all
    select 'migration ' || m from graphile_worker.migrations m
    union all
    select 'run ' || job_id || task from other.runs where task <> 'maintain'
    order by 1`);

const addTheirs = (database: Database, task: string, options = '') =>
  withClient(database.url, (client) =>
    client.query(`select graphile_worker.add_job('${task}', '{"card": "${CARD_NUMBER}"}' ${options})`),
  );

/** A long job that runs, jobs that failed long ago, one that is scheduled. */
async function startTheirs(database: Database, from: OtherPackage): Promise<OtherApplication> {
  await database.ask(OTHER_TABLES);
  await database.ask(`grant usage on schema other to public; grant all on all tables in schema other to public`);
  const other = await startOtherApplication(database.url, from, 'graphile_worker');
  await addTheirs(database, 'long_report', `, queue_name := 'reports'`);
  await waitFor('their long job to run', async () => (await database.ask('select from other.runs')).length === 1);
  // It has run for an hour, and these failed 40 days ago.
  for (const task of ['charge_card', 'maintain'])
    await addTheirs(database, task, `, run_at := now() + interval '1 hour', job_key := '${task}'`);
  await database.ask(`
    update graphile_worker._private_jobs set locked_at = locked_at - interval '1 hour' where locked_at is not null;
    update graphile_worker._private_job_queues set locked_at = locked_at - interval '1 hour' where locked_at is not null;
    alter table graphile_worker._private_jobs disable trigger all;
    update graphile_worker._private_jobs set attempts = max_attempts, last_error = 'declined ${CARD_NUMBER}', key = null,
      run_at = now() - interval '40 days', updated_at = now() - interval '40 days', created_at = now() - interval '40 days'
    where locked_at is null;
    alter table graphile_worker._private_jobs enable trigger all`);
  await addTheirs(database, 'charge_card', `, run_at := now() + interval '1 hour', job_key := 'tomorrow'`);
  return other;
}

/** Everything that our operators can look at or do. @returns what it showed */
async function operate(database: Database, theirIds: readonly string[]): Promise<string> {
  return withClient(database.operatorUrl, async (client) => {
    const shown: unknown[] = [];
    const see = async (sql: string) => shown.push((await client.query(sql)).rows);
    await see('select * from tickets_ops.jobs');
    await see('select * from tickets_ops.failed_jobs');
    await see('select * from tickets_ops.health');
    await see('select * from tickets_ops.workers');
    await see('select * from tickets_ops.retry_failed()');
    await assert.rejects(client.query(`select * from tickets_ops.retry_failed('charge_card')`), /There is no task/);
    await see('select * from tickets_ops.fetch_now()');
    await see(`select * from tickets.geocode_cluster('Kilimani', true)`);
    await see(`select * from tickets.geocode_location('NW_Kilimani_FDT3', 'Kilimani', true)`);
    for (const id of theirIds) {
      await assert.rejects(client.query('select * from tickets_ops.retry_job($1)', [id]), /There is no job/);
      await assert.rejects(client.query('select tickets_ops.cancel_job($1)', [id]), /There is no job/);
    }
    return JSON.stringify(shown);
  });
}

/** Loads, kills, rescue, maintenance, operators. */
async function aDayOfOurs(database: Database, settings: Record<string, string>): Promise<void> {
  await database.grantOperator();
  const start = () => startWorkerProcess({ DATABASE_URL: database.url, ...settings });
  let worker = await start();
  for (const snapshot of feed({ hours: 3, tickets: 300 })) {
    await env.putObject(PREFIX + snapshot.name, snapshot.csv);
    await database.ask('select tickets_ops.fetch_now()');
    const killed = worker;
    worker = await start();
    killed.kill('SIGKILL');
    await waitFor('the snapshot to be loaded and archived', async () => {
      const sql = 'select from tickets_ops.snapshots where source_key = $1 and archived_at is not null';
      return (await database.ask(sql, [PREFIX + snapshot.name])).length === 1;
    });
    await waitFor('a rescue of the killed worker, or nothing to rescue', async () => {
      const held = await database.ask(`select from tickets_ops.jobs where locked_by = $1`, [killed.pool]);
      return held.length === 0;
    });
  }
  await database.ask(`select tickets_ops.enqueue('fleettickets_maintain', '{}', p_job_key := 'fleettickets_maintain')`);
  await waitFor('maintenance to be over', async () => {
    const sql = `select from tickets_ops.jobs where task = 'fleettickets_maintain'`;
    return (await database.ask(sql)).length === 0;
  });
  const ids = await database.ask(`
    select id::text from graphile_worker._private_jobs j
    where task_id in (select id from graphile_worker._private_tasks where identifier in ('charge_card', 'long_report', 'maintain'))`);
  const shown = await operate(
    database,
    ids.map(({ id }) => id),
  );
  assert.ok(shown.length > 1_000);
  for (const word of [CARD_NUMBER, 'charge_card', 'long_report']) assert.ok(!shown.includes(word), word);
  worker.kill('SIGTERM');
  assert.equal(await worker.exited, 0);
}

/** Its own day goes on: what is asked of it now, it does, and its long job, which ran once, can end. */
async function assertAlive(database: Database, other: OtherApplication): Promise<void> {
  assert.equal(other.ended(), undefined, 'it was shut down');
  for (const task of ['charge_card', 'maintain']) {
    const runs = async () => (await database.ask('select from other.runs where task = $1', [task])).length;
    const before = await runs();
    await addTheirs(database, task);
    await waitFor(`their ${task}`, async () => (await runs()) > before);
  }
  await database.ask('insert into other.gate values (true)');
  const left = `select from graphile_worker._private_jobs where task_id in (select id from graphile_worker._private_tasks where identifier = 'long_report')`;
  await waitFor('their long job to end', async () => (await database.ask(left)).length === 0);
  const [runs] = await database.ask(`select count(*)::int as long from other.runs where task = 'long_report'`);
  assert.deepEqual(runs, { long: 1 });
}

describe('another application on graphile-worker', { skip }, () => {
  for (const [from, revision] of [
    ['graphile-worker-016', 18],
    ['graphile-worker', REVISION],
  ] as const) {
    test(`on ${from}, in a schema of its own, notices nothing of a day of ours`, async () => {
      await withDatabase(async (database) => {
        const other = await startTheirs(database, from);
        try {
          const [found] = await database.ask('select max(id) as revision from graphile_worker.migrations');
          assert.deepEqual(found, { revision });
          const before = await theirs(database);
          await refuses(
            database,
            {},
            /The schema graphile_worker is another application’s: .*tasks that are not ours: charge_card \(2 jobs\), long_report \(1 jobs\)/,
            revision === REVISION ? /WORKER_SCHEMA_SHARED=true/ : /tables are at revision 18 there, and at 20 in/,
            /Set WORKER_SCHEMA to a schema of our own, e\.g\. WORKER_SCHEMA=fleettickets_worker/,
          );
          const finding = await diagnose(database, 'other applications');
          assert.equal(finding.state, 'failed');
          assert.match(finding.remedy ?? '', /WORKER_SCHEMA=fleettickets_worker/);
          assert.deepEqual(await theirs(database), before);

          const settings = { WORKER_SCHEMA: 'fleettickets_worker' };
          await migrateWith(database, settings);
          assert.equal((await diagnose(database, 'other applications', settings)).state, 'ok');
          await aDayOfOurs(database, settings);
          await migrateWith(database, settings); // as the next container does
          assert.deepEqual(await theirs(database), before);
          await assertAlive(database, other);
        } finally {
          await other.stop();
        }
      });
    });
  }

  test('of our revision, in our schema, notices nothing of a day of ours once WORKER_SCHEMA_SHARED says so', async () => {
    await withDatabase(async (database) => {
      const other = await startTheirs(database, 'graphile-worker');
      try {
        const before = await theirs(database);
        const settings = { WORKER_SCHEMA_SHARED: 'true' };
        await migrateWith(database, settings);
        await aDayOfOurs(database, { WORKER_SCHEMA: 'graphile_worker' }); // it is recorded
        await migrateWith(database, {});
        assert.deepEqual(await theirs(database), before);
        await assertAlive(database, other);
      } finally {
        await other.stop();
      }
    });
  });

  test('cannot share a schema of another revision, nor with an entry of its crontab that is called as ours', async () => {
    await withDatabase(async (database) => {
      const other = await startTheirs(database, 'graphile-worker-016');
      await other.stop();
      await refuses(database, { WORKER_SCHEMA_SHARED: 'true' }, /tables are at revision 18 there/);
    });
    await withDatabase(async (database) => {
      const other = await startTheirs(database, 'graphile-worker');
      await other.stop();
      for (const id of ['fetch_inc', 'fetch_crq', 'maintain']) {
        await database.ask(`insert into graphile_worker._private_known_crontabs values ('${id}', now(), null)`);
        await refuses(
          database,
          { WORKER_SCHEMA_SHARED: 'true' },
          new RegExp(`another application’s crontab has the id of ours, ${id}\\b`),
        );
        await database.ask('delete from graphile_worker._private_known_crontabs');
      }
    });
  });
});

test('a publication of all tables, which somebody makes for a replica or a warehouse, stops nothing of a day of ours', {
  skip,
}, async () => {
  await withDatabase(async (database) => {
    await migrateWith(database, {});
    await database.ask('create publication warehouse for all tables');
    await aDayOfOurs(database, { WORKER_SCHEMA: 'graphile_worker' }); // as migrated, whatever this run has
    const [{ id }] = await database.ask('select min(ticket_id) as id from tickets.inc');
    await database.ask('select * from tickets_ops.erase_ticket($1)', [id]);
    // What a row is told by when it is changed or deleted.
    const without = await database.ask(
      `select c.oid::regclass as name from pg_class c
       where c.relkind = 'r' and c.relreplident <> 'f' and c.relnamespace::regnamespace::text in ('tickets', 'tickets_ops', 'graphile_migrate', 'graphile_worker')
         and not exists (select from pg_index i where i.indrelid = c.oid and (i.indisprimary or i.indisreplident))`,
    );
    assert.deepEqual(without, []);
  });
});

describe('migrate looks first', { skip }, () => {
  test('a schema that belongs to somebody else, or holds something else, is left alone', async () => {
    await withDatabase(async (database) => {
      await database.ask('create schema graphile_worker; create table graphile_worker.migrations (id int)');
      await refuses(database, {}, /schema graphile_worker is another application’s: it belongs to postgres/);
      await refuses(database, { WORKER_SCHEMA: 'select' }, /WORKER_SCHEMA=select is a word of SQL/);
      await withClient(database.url, (client) =>
        client.query('create schema jobs; create table jobs.applicants (name text)'),
      );
      await refuses(database, { WORKER_SCHEMA: 'jobs' }, /it holds other things than graphile-worker’s tables/);
      await migrateWith(database, { WORKER_SCHEMA: 'fleettickets_worker' });
    });
  });

  test('another application’s graphile-migrate is refused with the reason', async () => {
    await withDatabase(async (database) => {
      await withClient(database.url, (client) =>
        client.query(`
          create schema graphile_migrate;
          create table graphile_migrate.migrations (hash text primary key, previous_hash text, filename text, date timestamptz);
          insert into graphile_migrate.migrations values ('sha1:theirs', null, '000001.sql', now())`),
      );
      await refuses(database, {}, /schema graphile_migrate is another application’s: its migrations are not ours/);
      await database.ask(`alter schema graphile_migrate owner to postgres`);
      await refuses(database, {}, /schema graphile_migrate is another application’s: it belongs to postgres/);
    });
  });

  test('another schema than that of the first migration is refused, by every command', async () => {
    await withDatabase(async (database) => {
      await migrateWith(database, { WORKER_SCHEMA: 'fleettickets_worker' });
      await refuses(
        database,
        {},
        /The jobs of this database are in the schema fleettickets_worker, not in graphile_worker/,
      );
      await assert.rejects(
        startWorkerProcess({ DATABASE_URL: database.url, WORKER_SCHEMA: 'graphile_worker' }),
        /The jobs of this database are in the schema fleettickets_worker, not in graphile_worker: set WORKER_SCHEMA=fleettickets_worker/,
      );
      assert.deepEqual(await database.ask(`select from pg_namespace where nspname = 'graphile_worker'`), []);
    });
  });

  test('a later upgrade of graphile-worker’s tables takes nobody along, and no worker does it', async () => {
    await withDatabase(async (database) => {
      await migrateWith(database, {});
      const older = () => database.ask(`delete from graphile_worker.migrations where id = ${REVISION}`);
      await older();
      await assert.rejects(
        startWorkerProcess({ DATABASE_URL: database.url, WORKER_SCHEMA: 'graphile_worker' }),
        new RegExp(`are at revision ${REVISION - 1}, this release needs ${REVISION}. Run: fleettickets migrate`),
      );
      await migrateWith(database, {});
      await database.ask(`select graphile_worker.add_job('misspelt')`);
      await older();
      await refuses(database, {}, /another application \(misspelt \(1 jobs\)\) uses them too/);
      await migrateWith(database, { WORKER_SCHEMA_SHARED: 'false' });
    });
  });

  test('a task that nobody has is noted, shown and marked, and its job can only be removed', async () => {
    await withDatabase(async (database) => {
      await migrateWith(database, {});
      await database.ask(`select graphile_worker.add_job('fetch_snapshto', '{"dataset": "inc"}')`);
      const lines: string[] = [];
      await migrateWith(database, {}, pino({ level: 'info' }, { write: (line: string) => void lines.push(line) }));
      assert.match(lines.join(''), /"tasks":\["fetch_snapshto"\]/);
      assert.match((await diagnose(database, 'other applications')).detail, /fetch_snapshto/);
      const [job] = await database.ask('select id, task, state, payload from tickets_ops.jobs');
      assert.deepEqual({ ...job, id: '' }, { id: '', task: 'fetch_snapshto', state: 'unknown task', payload: null });
      const [health] = await database.ask('select problems from tickets_ops.health');
      assert.ok(
        health.problems.some((problem: string) =>
          /1 job\(s\) have a task that no worker of ours has: fetch_snapshto/.test(problem),
        ),
      );
      await assert.rejects(
        database.ask('select tickets_ops.retry_job($1)', [job.id]),
        /There is no task fetch_snapshto/,
      );
      await database.ask('select tickets_ops.cancel_job($1)', [job.id]);
      assert.deepEqual(await database.ask('select from tickets_ops.jobs'), []);
    });
  });

  test('what others made in a schema of graphile-worker or graphile-migrate, and would run as us, is refused', async () => {
    await withDatabase(async (database) => {
      await database.ask(`
        create schema other;
        create function other.note() returns trigger language plpgsql as $$ begin return new; end $$`);
      await withClient(database.url, (client) =>
        client.query(`
          create schema graphile_migrate;
          create table graphile_migrate.migrations (hash text primary key, previous_hash text, filename text, date timestamptz);
          grant all on schema graphile_migrate to public; grant trigger on graphile_migrate.migrations to public`),
      );
      await database.ask(`
        create trigger note before insert on graphile_migrate.migrations for each row execute function other.note();
        create function graphile_migrate.later() returns int language sql return 1`);
      await refuses(
        database,
        {},
        /trigger note on table graphile_migrate\.migrations calls other\.note\(\)/,
        /function graphile_migrate\.later\(\) belongs to postgres/,
        /everybody may create in the schema graphile_migrate/,
      );
    });
  });
});
