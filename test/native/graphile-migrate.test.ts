/**
 * graphile-migrate as its users know it, in a copy of the repository against scratch databases: what CONTRIBUTING tells
 * them to run.
 */
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { cp, mkdtemp, readdir, readFile, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, beforeEach, describe, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { withClient } from '../../src/database/client.ts';
import { asPerson } from '../support/environment.ts';

const server = process.env.TEST_DATABASE_URL ?? '';
const PROJECT = fileURLToPath(new URL('../..', import.meta.url));
const PARTS = [
  '.gmrc',
  'crontab',
  'demo',
  'graphile.config.ts',
  'migrations',
  'package-lock.json',
  'package.json',
  'src',
  'tasks',
  'test',
];

const suffix = randomBytes(4).toString('hex');
const scratch = `fleettickets_scratch_${suffix}`;
const shadow = `fleettickets_shadow_${suffix}`;
const at = (database: string) =>
  Object.assign(new URL(server || 'postgres://nowhere'), { pathname: `/${database}` }).href;

describe('graphile-migrate in the folder', { skip: !server && 'needs a native Postgres' }, () => {
  let folder: string;
  const migrations = (...path: string[]) => join(folder, 'migrations', ...path);
  const names = async (...path: string[]) => (await readdir(migrations(...path))).sort();
  const run = (command: string, ...args: string[]) =>
    promisify(execFile)(command, args, {
      cwd: folder,
      env: {
        ...process.env,
        DATABASE_URL: at(scratch),
        SHADOW_DATABASE_URL: at(shadow),
        ROOT_DATABASE_URL: server,
      },
    });
  const graphileMigrate = (...args: string[]) => run('npx', '--no', 'graphile-migrate', ...args);
  const held = (database: string, sql: string) =>
    withClient(at(database), async (client) => (await client.query<{ held: unknown }>(sql)).rows[0]?.held);

  before(async () => {
    folder = await mkdtemp(join(tmpdir(), 'fleettickets-migrations-'));
    await symlink(join(PROJECT, 'node_modules'), join(folder, 'node_modules'));
  });
  beforeEach(async () => {
    for (const part of PARTS) {
      await rm(join(folder, part), { recursive: true, force: true });
      await cp(join(PROJECT, part), join(folder, part), { recursive: true });
    }
  });
  after(async () => {
    await rm(folder, { recursive: true });
    await withClient(server, async (client) => {
      for (const name of [scratch, shadow]) await client.query(`drop database if exists ${name} with (force)`);
    });
  });

  test('reset, watch --once, commit and uncommit work, on databases that it makes itself', async () => {
    const released = await names('committed');
    await graphileMigrate('reset', '--erase');
    assert.equal(await held(scratch, `select to_regclass('tickets.inc') is not null as held`), true);

    // A typed column that the map shows: a small migration, and two words in the map's source.
    const column = ['inc', 'crq'].map(
      (table) => `
alter table tickets.${table} drop column if exists service_type,
  add column service_type text generated always as (nullif(raw ->> 'service_type', '')) stored;
comment on column tickets.${table}.service_type is 'Kind of service, as the feed has it.';`,
    );
    // And a function that only operators may call: what is granted is not there before the migration is committed.
    const tried = `create or replace function tickets_ops.tried() returns text language sql return 'yes';`;
    const grants = await readFile(migrations('grants.sql'), 'utf8');
    await writeFile(
      migrations('grants.sql'),
      grants.replace('c_operators constant text[] := array[', `$&'tickets_ops.tried()', `),
    );
    await writeFile(
      migrations('current', '1-current.sql'),
      `${tried}\n${column.join('')}\n\n--!include serving/map.sql\n`,
    );
    const map = await readFile(migrations('fixtures', 'serving', 'map.sql'), 'utf8');
    assert.equal(
      map.match(/t\.ticket_id, t\.geo_source, t\.ingested_at, /g)?.length,
      1,
      'one list of properties, for open and closed tickets',
    );
    await writeFile(
      migrations('fixtures', 'serving', 'map.sql'),
      map.replaceAll('t.geo_source, t.ingested_at, ', '$&t.service_type, '),
    );
    const raw = { service_type: 'FTTH', is_actionable: 'true', cluster: 'Kilimani' };
    await asPerson(at(scratch), async (client) => {
      await client.query(`insert into tickets.inc (ticket_id, raw) values ('1', $1)`, [JSON.stringify(raw)]);
      await client.query(
        `insert into tickets.geo_clusters (cluster, geom) values ('Kilimani', st_point(36.78, -1.29, 4326))`,
      );
    });
    const shown = `select reporting.fn_tickets_for_map() #>> '{features,0,properties,service_type}' as held`;
    for (const _ of ['once', 'and again']) {
      await graphileMigrate('watch', '--once');
      assert.equal(await held(scratch, shown), 'FTTH');
    }

    await graphileMigrate('commit', '--message', 'a small change');
    const after = await names('committed');
    assert.deepEqual(after.slice(0, -1), released);
    const committed = after.at(-1) ?? '';
    assert.match(committed, /^\d{6}-a-small-change\.sql$/);
    assert.match(await readFile(migrations('committed', committed), 'utf8'), /^--! Included serving\/map\.sql$/m);
    assert.deepEqual(await names('current'), ['1-current.sql']);
    assert.equal(await readFile(migrations('current', '1-current.sql'), 'utf8'), '-- Enter migration here\n');
    const readable = `select has_column_privilege('tickets_reader', 'tickets.inc', 'service_type', 'select') as held`;
    for (const database of [scratch, shadow]) assert.equal(await held(database, readable), true);
    const callable = `select has_function_privilege('tickets_operator', 'tickets_ops.tried()', 'execute') as held`;
    for (const database of [scratch, shadow]) assert.equal(await held(database, callable), true);

    await graphileMigrate('uncommit');
    assert.deepEqual(await names('committed'), released);
    assert.match(await readFile(migrations('current', '1-current.sql'), 'utf8'), /^--!include serving\/map\.sql$/m);
  });
});
