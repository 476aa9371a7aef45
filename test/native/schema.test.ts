import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { after, before, describe, test } from 'node:test';
import { pino } from 'pino';
import { ConnectionError, connect, SchemaError, withClient } from '../../src/database/client.ts';
import { pending } from '../../src/database/committed.ts';
import { migrate, requireCurrent } from '../../src/database/schema.ts';
import { readServer } from '../../src/database/server.ts';
import { examine } from '../../src/operations/doctor/doctor.ts';
import { type Environment, inJobSchema, native, startEnvironment } from '../support/environment.ts';
import { dumpSchema, outlineOf, SCHEMA_FILE, SCHEMA_FILE_MAJOR } from '../support/schema-dump.ts';

const silent = pino({ level: 'silent' });

describe('migrating a real server', { skip: !native && 'needs a native Postgres' }, () => {
  const suffix = randomBytes(4).toString('hex');
  const database = `fleettickets_schema_${suffix}`;
  const owner = `fleettickets_owner_${suffix}`;
  let env: Environment;
  const as = (user: string, name = database) => {
    const url = new URL(env.databaseUrl);
    url.username = user;
    url.password = 'a-secret-password';
    url.pathname = `/${name}`;
    return url.href;
  };

  before(async () => {
    env = await startEnvironment();
    await env.pool.query(`create role ${owner} login nosuperuser nocreatedb nocreaterole password 'a-secret-password'`);
  });
  after(async () => {
    await env.pool.query(`drop database if exists ${database} with (force)`);
    await env.pool.query(`drop role ${owner}`);
    await env.close();
  });

  test('schema.sql is what the committed migrations make', async () => {
    const committed = await readFile(SCHEMA_FILE, 'utf8').catch(() => '');
    const found = await dumpSchema(env.databaseUrl);
    const remedy = 'run npm run schema:dump and commit the result';
    const { major } = await withClient(env.databaseUrl, readServer);
    if (major === SCHEMA_FILE_MAJOR) assert.equal(found, inJobSchema(committed), remedy);
    else assert.deepEqual(outlineOf(found), outlineOf(inJobSchema(committed)), remedy);
  });

  test('an owner without superuser migrates where PostGIS is installed, started thrice at once', async () => {
    await env.pool.query(`create database ${database} owner ${owner}`);
    const admin = new URL(env.databaseUrl);
    admin.pathname = `/${database}`;
    await withClient(admin.href, (client) => client.query('create extension postgis schema public'));
    await withClient(as(owner), async (client) => {
      assert.ok((await pending(client)).length > 0);
      assert.ok((await pending(client)).every(({ state }) => state === 'missing'));
    });
    await Promise.all([1, 2, 3].map(() => migrate(as(owner), silent)));
    await withClient(as(owner), async (client) => {
      assert.deepEqual(await pending(client), []);
      const { rows } = await client.query(
        `select pg_get_userbyid(relowner) as owner from pg_class where oid = 'tickets.inc'::regclass`,
      );
      assert.deepEqual(rows, [{ owner }]);
    });
  });

  test('a database of before the release is told so in one line, and nothing is changed', async () => {
    const told =
      /^The schema of this database is not current: it was made by a version from before the release, and cannot be upgraded\. What to do: [^\n]+ run: fleettickets migrate$/;
    const isTold = (error: unknown) => error instanceof SchemaError && told.test(error.message);
    await withClient(as(owner), async (client) => {
      await client.query(`delete from graphile_migrate.migrations where filename > '000001.sql'`);
      await client.query(`update graphile_migrate.migrations set hash = 'sha1:former' where filename = '000001.sql'`);
      assert.equal((await pending(client))[0]?.state, 'former');
      const before = (await client.query(`select xmin::text, * from graphile_migrate.migrations`)).rows;
      await assert.rejects(migrate(as(owner), silent), isTold);
      await assert.rejects(requireCurrent(client), isTold);
      assert.deepEqual((await client.query(`select xmin::text, * from graphile_migrate.migrations`)).rows, before);
    });
    process.env.DATABASE_URL = as(owner);
    for await (const { check, state, detail, remedy } of examine()) {
      if (check !== 'schema') continue;
      assert.equal(state, 'failed');
      assert.match(
        `${detail}; ${remedy}`,
        /from before the release.*; name an empty database in DATABASE_URL.* run: fleettickets migrate/,
      );
    }
  });

  test('no error of a failed connection shows the password', async () => {
    const dead = 'postgres://someone:a-secret-password@127.0.0.1:1/tickets';
    for (const url of [dead, as(owner, 'no_such_database'), 'postgres://someone:a-secret-password@[broken/tickets']) {
      const error = await connect(url).then(
        () => assert.fail('connected'),
        (reason: unknown) => reason,
      );
      assert.ok(error instanceof ConnectionError);
      assert.doesNotMatch(JSON.stringify(error, Object.getOwnPropertyNames(error)), /a-secret-password/);
    }
    await assert.rejects(
      connect(dead),
      /Cannot connect to Postgres at someone@127\.0\.0\.1:1\/tickets: .*ECONNREFUSED/,
    );
  });
});
