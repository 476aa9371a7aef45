/** A database without our schema, or with an older one: every command says what to run, in one line, and touches nothing. */
import assert from 'node:assert/strict';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { startDatabase } from '../../demo/embedded.ts';
import { runCommand } from '../support/command.ts';
import { type Environment, startEnvironment } from '../support/environment.ts';
import { csvOf } from '../support/pipeline.ts';

const COMMANDS: [name: string, ...args: string[]][] = [
  ['status'],
  ['metrics'],
  ['metrics', '--listen', '127.0.0.1:0'],
  ['healthcheck'],
  ['worker'],
  ['worker', '--once'],
  ['ingest', '--from-bucket'],
  ['ingest', '--from-bucket', '--apply'],
  ['ingest', '--inc-csv', 'feed.csv'],
  ['ingest', '--inc-csv', 'feed.csv', '--apply'],
  ['report'],
  ['dispatch'],
  ['vehicles'],
  ['page'],
  ['geocode', 'clusters'],
  ['geocode', 'locations', '--apply'],
];
const REMEDY =
  /The schema of this database is not current: 000001-tickets\.sql is missing(, \S+ is missing)*\. Run: fleettickets migrate/;

let folder: string;
before(async () => {
  folder = await mkdtemp(join(tmpdir(), 'fleettickets-unmigrated-'));
  await writeFile(join(folder, 'feed.csv'), csvOf([{ ticket_id: 'WOT1', cluster: 'Kilimani' }]));
});
after(() => rm(folder, { recursive: true }));

const fleettickets = (args: string[], settings: Record<string, string> = {}) => runCommand(folder, settings, args);

/** The command fails with the remedy as its last line, and without a stack trace. */
async function isToldToMigrate(
  args: string[],
  settings: Record<string, string> = {},
  remedy: RegExp = REMEDY,
): Promise<void> {
  const { status, out, err } = await fleettickets(args, settings);
  const lines = `${out}${err}`.trim().split('\n');
  assert.equal(status, 1, lines.join('\n'));
  assert.match(lines.at(-1) ?? '', remedy, args.join(' '));
  assert.equal(lines.length, 1, lines.join('\n'));
}

describe('an empty database', () => {
  let database: Awaited<ReturnType<typeof startDatabase>>;
  let env: Environment;
  before(async () => {
    [database, env] = await Promise.all([startDatabase(), startEnvironment()]);
  });
  after(async () => {
    await Promise.all([database.close(), env.close()]);
  });

  for (const args of COMMANDS) {
    test(`${args.join(' ')} says what to run`, () => isToldToMigrate(args, { DATABASE_URL: database.url }));
  }

  test('migrate of a current one does not look at settings that are not its own', async () => {
    const { status, out, err } = await fleettickets(['migrate'], {
      DATABASE_URL: env.databaseUrl,
      FEED_STALE_HOURS: 'abc',
      CRQ_ENABLED: 'maybe',
    });
    assert.equal(status, 0, out + err);
  });

  test('and nothing is installed', async () => {
    const { default: pg } = await import('pg');
    const client = new pg.Client({ connectionString: database.url });
    await client.connect();
    const { rows } = await client.query(
      `select nspname from pg_namespace where nspname ~ '^(tickets|graphile|reporting)'`,
    );
    await client.end();
    assert.deepEqual(rows, []);
  });

  test('one of another application, which has migrations of its own, is told apart from an older one of ours', async () => {
    const { default: pg } = await import('pg');
    const client = new pg.Client({ connectionString: database.url });
    await client.connect();
    await client.query(
      `create schema graphile_migrate; create table graphile_migrate.migrations (hash text, previous_hash text, filename text);
       insert into graphile_migrate.migrations values ('sha1:theirs', null, '000001.sql')`,
    );
    for (const args of [['status'], ['worker'], ['dispatch']])
      await isToldToMigrate(args, { DATABASE_URL: database.url }, /another application’s: name another database/);
    await client.query('drop schema graphile_migrate cascade');
    await client.end();
  });

  test('a table that is called like graphile-migrate’s and has other columns is named, with what to do', async () => {
    const { default: pg } = await import('pg');
    const client = new pg.Client({ connectionString: database.url });
    await client.connect();
    await client.query('create schema graphile_migrate; create table graphile_migrate.migrations (version text)');
    for (const args of [['status'], ['worker'], ['dispatch']])
      await isToldToMigrate(args, { DATABASE_URL: database.url }, /lacks filename or hash\. Name another database/);
    await client.query('drop schema graphile_migrate cascade');
    await client.end();
  });

  test('an older schema is none that a command works with either, and no job is left in it', async () => {
    await env.pool.query(
      `delete from graphile_migrate.migrations where previous_hash is not null; update graphile_migrate.migrations set hash = 'sha1:older'`,
    );
    for (const args of COMMANDS)
      await isToldToMigrate(args, {}, /not current: .* from before the release.* run: fleettickets migrate(\W|$)/);
    const { rows } = await env.pool.query('select from graphile_worker.jobs');
    assert.deepEqual(rows, []);
  });
});

describe('what can be expected is told without a stack', () => {
  const nowhere = 'postgres://someone:a-secret-password@127.0.0.1:1/nowhere';
  const failures: [what: string, args: string[], settings: Record<string, string>, reason: RegExp][] = [
    [
      'no database',
      ['status'],
      { DATABASE_URL: nowhere },
      /^Cannot connect to Postgres at someone@127\.0\.0\.1:1\/nowhere/,
    ],
    ['no database, for the log', ['migrate'], { DATABASE_URL: nowhere }, /"level":"fatal".*Cannot connect to Postgres/],
    ['no database, for a worker', ['worker'], { DATABASE_URL: nowhere }, /"level":"fatal".*Cannot connect to Postgres/],
    ['several hosts', ['status'], { DATABASE_URL: 'postgres://u:a-secret-password@h1,h2/db' }, /names several hosts/],
    ['a wrong setting of maintenance', ['worker'], { KEEP_LEDGER_DAYS: 'for ever' }, /KEEP_LEDGER_DAYS: /],
    ['a wrong setting of the log', ['worker'], { LOG_LEVEL: 'loud' }, /LOG_LEVEL: /],
  ];
  const settings = {
    RUSTFS_ENDPOINT: 'http://127.0.0.1:1',
    RUSTFS_ACCESS_KEY: 'a',
    RUSTFS_SECRET_KEY: 'a-secret-bucket-key',
  };
  for (const [what, args, wrong, reason] of failures) {
    test(what, async () => {
      const { status, out, err } = await fleettickets(args, { DATABASE_URL: nowhere, ...settings, ...wrong });
      assert.notEqual(status, 0);
      assert.match(`${out}${err}`.trim().split('\n').at(-1) ?? '', reason, 'the last line');
      assert.doesNotMatch(out + err, /\n {4}at |a-secret/);
    });
  }
});
