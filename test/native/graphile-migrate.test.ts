/**
 * graphile-migrate as its users know it, in a copy of the repository against scratch databases: what CONTRIBUTING tells
 * them to run.
 */
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { appendFile, cp, mkdtemp, readdir, readFile, rm, symlink, writeFile } from 'node:fs/promises';
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
    await graphileMigrate('reset', '--erase');
    assert.equal(await held(scratch, `select to_regclass('tickets.inc') is not null as held`), true);

    // A typed column that the map shows: a small migration, and two words in the map's source.
    const column = ['inc', 'crq'].map(
      (table) => `
alter table tickets.${table} drop column if exists service_type,
  add column service_type text generated always as (nullif(raw ->> 'service_type', '')) stored;
comment on column tickets.${table}.service_type is 'Kind of service, as the feed has it.';`,
    );
    await writeFile(migrations('current', '1-current.sql'), `${column.join('')}\n\n--!include map.sql\n`);
    const map = await readFile(migrations('fixtures', 'map.sql'), 'utf8');
    assert.equal(
      map.match(/t\.ticket_id, t\.geo_source, t\.ingested_at, /g)?.length,
      1,
      'one list of properties, for open and closed tickets',
    );
    await writeFile(
      migrations('fixtures', 'map.sql'),
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
    const [first, second] = await names('committed');
    assert.match(first ?? '', /^000001-/);
    assert.equal(second, '000002-a-small-change.sql');
    assert.match(await readFile(migrations('committed', second), 'utf8'), /^--! Included map\.sql$/m);
    assert.deepEqual(await names('current'), ['1-current.sql']);
    assert.equal(await readFile(migrations('current', '1-current.sql'), 'utf8'), '-- Enter migration here\n');
    const readable = `select has_column_privilege('tickets_reader', 'tickets.inc', 'service_type', 'select') as held`;
    for (const database of [scratch, shadow]) assert.equal(await held(database, readable), true);

    await graphileMigrate('uncommit');
    assert.deepEqual(await names('committed'), [first]);
    assert.match(await readFile(migrations('current', '1-current.sql'), 'utf8'), /^--!include map\.sql$/m);
  });

  test('npm run migrations:remake makes the last migration anew from the fixtures, and needs no server', async () => {
    const [first = ''] = await names('committed');
    const before = await readFile(migrations('committed', first), 'utf8');
    const changed = (text: string) =>
      text.replace(`comment on function tickets.in_kenya(geometry) is '`, `$&Changed. `);
    const kenya = await readFile(migrations('fixtures', 'kenya.sql'), 'utf8');
    await writeFile(migrations('fixtures', 'kenya.sql'), changed(kenya));
    await run('npm', 'run', 'migrations:remake');
    const withoutHash = (text: string) => text.replace(/^--! Hash.*$/m, '');
    assert.equal(withoutHash(await readFile(migrations('committed', first), 'utf8')), withoutHash(changed(before)));
    assert.match(await readFile(migrations('schema.sql'), 'utf8'), /tickets\.in_kenya\(.*\) IS 'Changed\. /);
    assert.deepEqual(await names('current'), ['1-current.sql']);
  });

  test('a remake of what does not run names the reason and leaves the files as they were', async () => {
    const [first = ''] = await names('committed');
    const before = await readFile(migrations('committed', first), 'utf8');
    await appendFile(migrations('fixtures', 'kenya.sql'), '\nselect tickets.no_such_function();\n');
    await assert.rejects(run('npm', 'run', 'migrations:remake'), /no_such_function/);
    assert.equal(await readFile(migrations('committed', first), 'utf8'), before);
    assert.deepEqual(await names('current'), ['1-current.sql']);
  });

  test('a remake after a merge drops conflicts in the hash and in what is included, and names others', async () => {
    const [first = ''] = await names('committed');
    const before = await readFile(migrations('committed', first), 'utf8');
    const conflict = (line: string) => `<<<<<<< HEAD\n${line}=======\n--! Hash: sha1:other\n>>>>>>> theirs\n`;
    const merged = before
      .replace(/^--! Hash.*\n/m, conflict)
      .replace(/^--! Included kenya\.sql\n/m, `$&<<<<<<< HEAD\nours\n=======\ntheirs\n>>>>>>> theirs\n`);
    await rm(migrations('committed', first));
    await writeFile(migrations('committed', first), merged);
    await run('npm', 'run', 'migrations:remake');
    assert.equal(await readFile(migrations('committed', first), 'utf8'), before);

    await rm(migrations('committed', first));
    await writeFile(migrations('committed', first), before.replace('create table tickets.inc (', `<<<<<<< HEAD\n$&`));
    await assert.rejects(run('npm', 'run', 'migrations:remake'), /has merge conflicts in the migration's own text/);
  });
});
