/** `fleettickets migrate` as its log shows it, behind one that was killed, and as a role that may not do everything. */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { createInterface } from 'node:readline';
import { after, before, describe, test } from 'node:test';
import pg from 'pg';
import { withClient } from '../../src/database/client.ts';
import { CLI } from '../support/command.ts';
import { inJobSchema, native, waitFor } from '../support/environment.ts';

const server = process.env.TEST_DATABASE_URL ?? '';
const suffix = randomBytes(4).toString('hex');
const owner = `migrate_owner_${suffix}`;
const databases: string[] = [];

/** A database with PostGIS that `owner` may create schemas in, and its address for that role. */
async function emptyDatabase(): Promise<string> {
  const name = `migrate_${suffix}_${databases.length}`;
  databases.push(name);
  const url = Object.assign(new URL(server), { pathname: `/${name}` });
  await withClient(server, (client) => client.query(`create database ${name}`));
  await withClient(url.href, (client) =>
    client.query(`create extension postgis schema public; grant create on database ${name} to ${owner}`),
  );
  return Object.assign(url, { username: owner, password: 'a-password' }).href;
}

type Line = { level: string; msg: string };

function startMigrate(url: string) {
  const child = spawn(process.execPath, [CLI, 'migrate'], {
    env: { ...process.env, DATABASE_URL: url },
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  const log: Line[] = [];
  createInterface(child.stdout).on('line', (line) => log.push(JSON.parse(line)));
  const exited = once(child, 'close').then(([status]) => status as number | null);
  return { child, log, exited };
}

async function migrate(url: string): Promise<{ status: number | null; log: Line[] }> {
  const { log, exited } = startMigrate(url);
  return { status: await exited, log };
}

describe('migrate', { skip: !native && 'needs a native Postgres' }, () => {
  before(() =>
    withClient(server, (client) => client.query(`create role ${owner} login password 'a-password' nocreaterole`)),
  );
  after(async () => {
    await withClient(server, async (client) => {
      for (const name of databases) await client.query(`drop database if exists ${name} with (force)`);
      await client.query(`drop role ${owner}`);
    });
  });

  test('says what it did, and the second time that nothing was missing', async () => {
    const url = await emptyDatabase();
    const first = await migrate(url);
    assert.equal(first.status, 0, JSON.stringify(first.log));
    const said = first.log.map(({ msg }) => msg).join('\n');
    assert.match(
      said,
      new RegExp(inJobSchema('^installed .* tables in the schema graphile_worker, revision \\d+$'), 'm'),
    );
    assert.match(said, /^applied 000001-tickets\.sql$/m);
    assert.equal(first.log.at(-1)?.msg, 'the schema is current');
    const second = await migrate(url);
    assert.equal(second.status, 0);
    assert.equal(second.log.at(-1)?.msg, 'the schema is current: no migration was missing');
    assert.doesNotMatch(second.log.map(({ msg }) => msg).join('\n'), /applied|installed/);
  });

  test('shows what the DBA has to grant', async () => {
    const url = await emptyDatabase();
    await withClient(server, (client) =>
      client.query(
        'do $$ begin create role tickets_reader; exception when duplicate_object then null; end $$', // by another file
      ),
    );
    assert.equal((await migrate(url)).status, 0);
    const admin = Object.assign(new URL(url), { username: 'postgres', password: '' }).href;
    await withClient(admin, (client) =>
      client.query('create table tickets.foreign_table (id int); alter view tickets.vehicles owner to postgres'),
    );
    const { status, log } = await migrate(url);
    assert.equal(status, 0, JSON.stringify(log));
    const warnings = log.filter(({ level }) => level === 'warn').map(({ msg }) => msg);
    assert.ok(
      warnings.includes('Let the owner of tickets.vehicles run: grant select on tickets.vehicles to tickets_reader;'),
      JSON.stringify(log),
    );
    assert.doesNotMatch(
      warnings.join('\n'),
      /foreign_table/,
      'what others made is not ours to grant, nor to advise on',
    );
  });

  test('its last line is the reason when it fails, without a stack', async () => {
    const url = await emptyDatabase();
    await withClient(url, (client) => client.query('create schema tickets; create table tickets.geo_country ()'));
    const { status, log } = await migrate(url);
    assert.equal(status, 1);
    assert.equal(log.at(-1)?.level, 'fatal');
    assert.match(log.at(-1)?.msg ?? '', /^Migration failed: /);
    assert.doesNotMatch(JSON.stringify(log), /\\n {4}at /);
  });

  test('waits for what a killed one left at work in the database, and then does it all', async () => {
    const url = await emptyDatabase();
    const blocker = new pg.Client({ connectionString: url });
    await blocker.connect();
    await blocker.query('begin; create schema tickets_ops');
    const killed = startMigrate(url);
    const { rows } = await blocker.query<{ pid: number }>('select pg_backend_pid() as pid');
    // Another session asks: within a transaction pg_stat_activity does not change.
    const orphan = await waitFor('the migration to run into the lock', () =>
      withClient(server, async (client) => {
        const waiting = await client.query<{ pid: number }>(
          'select pid from pg_stat_activity where $1 = any (pg_blocking_pids(pid))',
          [rows[0]?.pid],
        );
        return waiting.rows[0]?.pid;
      }),
    );
    killed.child.kill('SIGKILL');
    await killed.exited;
    const second = startMigrate(url);
    const line = await waitFor('the second one to wait', () => second.log.find(({ msg }) => msg.includes('waiting')));
    assert.equal(
      line.msg,
      `a migration whose process is gone is still at work (database process ${orphan} of user ${new URL(url).username}): waiting for it`,
    );
    await blocker.query('rollback');
    await blocker.end();
    assert.equal(await second.exited, 0, JSON.stringify(second.log));
    assert.equal(second.log.at(-1)?.msg, 'the schema is current');
  });
});
