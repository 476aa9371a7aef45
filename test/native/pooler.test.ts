/** Poolers: one that gives a connection no session of its own is refused before anything is done; session mode works. */
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { dirname } from 'node:path';
import { after, before, describe, test } from 'node:test';
import pg from 'pg';
import { connect, PooledError } from '../../src/database/client.ts';
import { POOLED } from '../../src/database/pooler.ts';
import { examine } from '../../src/operations/doctor/doctor.ts';
import { CLI } from '../support/command.ts';
import { asPerson, type Environment, native, startEnvironment } from '../support/environment.ts';
import { startPgBouncer } from '../support/pgbouncer.ts';

const ROUNDS = 20;

type Ended = { status: number; said: string };

/** Runs a command to its end, with another DATABASE_URL. */
const command = (databaseUrl: string, ...args: string[]) =>
  new Promise<Ended>((resolve) => {
    const path = `${dirname(process.execPath)}:${process.env.PATH}`;
    const env = { ...process.env, PATH: path, DATABASE_URL: databaseUrl };
    execFile(CLI, args, { env, timeout: 60_000 }, (error, stdout, stderr) =>
      resolve({ status: error ? Number(error.code) : 0, said: stdout + stderr }),
    );
  });

describe('a pooler before the database', { skip: !native && 'needs a native Postgres' }, () => {
  const name = `fleettickets_pooled_${randomBytes(4).toString('hex')}`;
  let env: Environment;
  let empty: string;
  before(async () => {
    env = await startEnvironment();
    await env.pool.query(`create database ${name}`);
    const url = new URL(env.databaseUrl);
    url.pathname = `/${name}`;
    empty = url.href;
  });
  after(async () => {
    await env.pool.query(`drop database ${name} with (force)`);
    await env.close();
  });

  for (const mode of ['transaction', 'statement'] as const) {
    test(`in ${mode} mode is refused by every command in one line, before anything is done`, async (t) => {
      const pooler = await startPgBouncer(empty, mode, 'default_pool_size = 1');
      t.after(() => pooler.close());
      for (const args of [['migrate'], ['worker'], ['worker', '--migrate'], ['ingest', '--from-bucket'], ['status']]) {
        const { status, said } = await command(pooler.url, ...args);
        assert.equal(status, 1, said);
        assert.equal(said.trim().split('\n').length, 1, said);
        assert.ok(said.includes(`${POOLED.what}. Nothing was done: ${POOLED.remedy}.`), said);
      }
      // The one session of the pool, which other clients get too.
      await asPerson(pooler.url, async (client) => {
        const { rows } = await client.query(
          `select to_regnamespace('tickets_ops') is null as empty, current_setting('search_path') as path,
             current_setting('tickets_ops.client', true) as client, (
               select count(*)::int from pg_locks l join pg_database d on d.oid = l.database
               where l.locktype = 'advisory' and d.datname = current_database()
             ) as locks`,
        );
        assert.deepEqual(rows, [{ empty: true, path: '"$user", public', client: null, locks: 0 }]);
      });
    });
  }

  for (const [what, settings] of [
    ['whose sessions take turns', 'server_round_robin = 1'],
    ['with a single session', 'default_pool_size = 1'],
    ['with a session for each client', 'default_pool_size = 60'],
  ] as const) {
    test(`in transaction mode is known every time, ${what} and used by others meanwhile`, async (t) => {
      const pooler = await startPgBouncer(env.databaseUrl, 'transaction', settings);
      const others = new pg.Pool({ connectionString: pooler.url, max: 4 });
      t.after(async () => {
        await others.end();
        await pooler.close();
      });
      let isOver = false;
      const traffic = [1, 2, 3, 4].map(async () => {
        while (!isOver) await others.query('select pg_sleep(random() / 1000)');
      });
      try {
        for (let round = 0; round < ROUNDS; round += 1) await assert.rejects(connect(pooler.url), PooledError);
      } finally {
        isOver = true;
        await Promise.all(traffic);
      }
    });
  }

  test('in transaction mode is named by the doctor, who says what to do', async (t) => {
    const pooler = await startPgBouncer(env.databaseUrl, 'transaction');
    t.after(() => pooler.close());
    const { DATABASE_URL = '' } = process.env;
    t.after(() => {
      process.env.DATABASE_URL = DATABASE_URL;
    });
    process.env.DATABASE_URL = pooler.url;
    for await (const { check, ...verdict } of examine()) {
      if (check !== 'database') continue;
      return assert.deepEqual(verdict, { state: 'failed', detail: POOLED.what, remedy: POOLED.remedy });
    }
    assert.fail('the doctor did not look at the database');
  });

  test('in session mode is like none: migrate, a worker and the doctor find nothing wrong', async (t) => {
    const pooler = await startPgBouncer(empty, 'session');
    t.after(() => pooler.close());
    for (const args of [['migrate'], ['worker', '--once']]) {
      const { status, said } = await command(pooler.url, ...args);
      assert.equal(status, 0, said);
    }
    const { said } = await command(pooler.url, 'doctor');
    assert.match(said, /sessions +every connection has one of its own/);
  });
});
