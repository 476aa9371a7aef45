/** Whatever a database sets for its sessions, the pipeline and what people call from psql come to the same. */
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { after, before, beforeEach, describe, test } from 'node:test';
import pg from 'pg';
import { pino } from 'pino';
import { feed } from '../../demo/feed.ts';
import { withClient } from '../../src/database/client.ts';
import { migrate } from '../../src/database/schema.ts';
import { type Environment, native, startEnvironment, waitFor } from '../support/environment.ts';
import { ledger, PREFIX, rawTickets } from '../support/pipeline.ts';
import { dumpSchema } from '../support/schema-dump.ts';
import { killWorkers, startWorkerProcess } from '../support/worker-process.ts';

const SETTINGS: readonly (readonly string[])[] = [
  [`DateStyle = 'German'`],
  [`DateStyle = 'SQL, DMY'`],
  [`TimeZone = 'Pacific/Auckland'`],
  [`IntervalStyle = 'sql_standard'`],
  ['standard_conforming_strings = off'],
  [`bytea_output = 'escape'`],
  [`default_transaction_isolation = 'serializable'`],
  [`default_transaction_isolation = 'repeatable read'`],
  ['default_transaction_read_only = on'],
  [`statement_timeout = '30ms'`],
  [`lock_timeout = '1ms'`],
  [`idle_in_transaction_session_timeout = '5ms'`],
  [`idle_session_timeout = '200ms'`],
  ['extra_float_digits = -15'],
  ['array_nulls = off', `client_encoding = 'LATIN1'`, 'row_security = off', `xmloption = 'document'`],
  [`search_path = 'nowhere'`],
  [
    `DateStyle = 'German'`,
    `TimeZone = 'Pacific/Auckland'`,
    `IntervalStyle = 'iso_8601'`,
    'standard_conforming_strings = off',
    `default_transaction_isolation = 'serializable'`,
    `search_path = 'nowhere'`,
  ],
];
const name = (settings: readonly string[]) => settings.join(', ');

describe('a database that sets', { skip: !native && 'needs a native Postgres' }, () => {
  let env: Environment;
  let database: string;
  const snapshots = [...feed({ seed: 11, hours: 3, tickets: 400 })];
  before(async () => {
    env = await startEnvironment();
    database = new URL(env.databaseUrl).pathname.slice(1);
  });
  after(async () => {
    await killWorkers();
    await env.close();
  });
  beforeEach(() => env.reset());

  /** Runs `use` while new sessions of the database begin with these settings. */
  const under = async (settings: readonly string[], use: () => Promise<void>) => {
    for (const setting of settings) await env.pool.query(`alter database ${database} set ${setting}`);
    try {
      await use();
    } finally {
      await env.pool.query(`alter database ${database} reset all`);
    }
  };
  const assertLoaded = async () => {
    const last = snapshots.at(-1) ?? assert.fail();
    const expected = [...last.tickets].sort(([a], [b]) => (a < b ? -1 : 1));
    assert.deepEqual(await rawTickets(env), Object.fromEntries(expected));
    assert.deepEqual(
      (await ledger(env)).map(({ file, status }) => [file, status]),
      snapshots.map((snapshot) => [snapshot.name, snapshot.expected.identical ? 'unchanged' : 'done']),
    );
    const { rows } = await env.pool.query(
      `select count(*)::int as wrong from tickets.inc
       where created_at_service is distinct from (raw ->> 'created_at_service')::timestamp at time zone 'Africa/Nairobi'
         and raw ->> 'created_at_service' ~ '^[0-9]{4}-[0-9]{2}-[0-9]{2} [0-9:]{8}$'`,
    );
    assert.deepEqual(rows, [{ wrong: 0 }]);
  };

  for (const settings of SETTINGS) {
    test(`${name(settings)}: a drained queue loads every file`, async () => {
      await under(settings, async () => {
        for (const snapshot of snapshots) {
          await env.putObject(PREFIX + snapshot.name, snapshot.csv);
          await env.pool.query('select tickets_ops.fetch_now()');
          assert.deepEqual(await env.runJobs(), []);
        }
      });
      await assertLoaded();
    });
  }

  test('the worst of it: a worker loads every file, and lives', async () => {
    await under(SETTINGS.at(-1) ?? [], async () => {
      const worker = await startWorkerProcess();
      for (const snapshot of snapshots) {
        await env.putObject(PREFIX + snapshot.name, snapshot.csv);
        await env.pool.query('select tickets_ops.fetch_now()');
        await waitFor(`${snapshot.name} to be archived`, async () => {
          const { rows } = await env.pool.query(
            'select from tickets_ops.snapshots where source_key = $1 and archived_at is not null',
            [PREFIX + snapshot.name],
          );
          return rows.length > 0;
        });
      }
      worker.kill('SIGTERM');
      assert.equal(await worker.exited, 0);
    });
    await assertLoaded();
  });

  test('that idle sessions are ended: a worker that waits for work lives', async () => {
    await under([`idle_session_timeout = '200ms'`], async () => {
      const worker = await startWorkerProcess();
      await waitFor('its second heartbeat', async () => {
        const { rows } = await env.pool.query(
          `select from tickets_ops.workers where stopped_at is null and seen_at > started_at + interval '6 seconds'`,
        );
        return rows.length > 0;
      });
      worker.kill('SIGTERM');
      assert.equal(await worker.exited, 0);
    });
  });

  test('the worst of it: the schema that a migration makes is the same', async () => {
    const fresh = `fleettickets_hostile_${randomBytes(4).toString('hex')}`;
    const url = Object.assign(new URL(env.databaseUrl), { pathname: `/${fresh}` }).href;
    await env.pool.query(`create database ${fresh}`);
    try {
      await withClient(url, (client) => client.query('create extension postgis schema public'));
      for (const setting of SETTINGS.at(-1) ?? []) await env.pool.query(`alter database ${fresh} set ${setting}`);
      await migrate(url, pino({ level: 'silent' }));
      await env.pool.query(`alter database ${fresh} reset all`);
      assert.equal(await dumpSchema(url), await dumpSchema(env.databaseUrl));
    } finally {
      await env.pool.query(`drop database ${fresh} with (force)`);
    }
  });

  test('what people call from psql, in sessions that are not ours, is right as well', async () => {
    const snapshot = snapshots[0] ?? assert.fail();
    await env.putObject(PREFIX + snapshot.name, snapshot.csv);
    await env.pool.query('select tickets_ops.fetch_now()');
    await env.runJobs();
    const statements = [
      'select ok, problems from tickets_ops.health',
      'select * from tickets_ops.jobs',
      'select * from tickets_ops.failed_jobs',
      'select * from tickets_ops.geocoding',
      'select * from tickets_ops.review_queue',
      'select sla_state, count(*) from tickets.inc_open_sla group by 1',
      'select open_tickets from tickets.inc_backlog limit 1',
      'select reporting.fn_tickets_for_map()',
      'select job_key from tickets_ops.fetch_now()',
      `select job_key from tickets.geocode_location('NW_Kilimani_FDT3', 'Kilimani')`,
      'select count(*) from tickets_ops.retry_failed()',
    ];
    for (const settings of SETTINGS) {
      if (/read_only|timeout/.test(name(settings))) continue; // their own wish
      await under(settings, async () => {
        const person = new pg.Client({ connectionString: env.databaseUrl });
        await person.connect();
        try {
          for (const statement of statements) await person.query(statement);
          await person.query(`update tickets.inc set raw = raw || '{"location_name": "NW_Acacia  Rd/Kilimani_FDT3", "created_at_service": "2026-06-15 08:30:00"}'
            where ticket_id = (select min(ticket_id) from tickets.inc)`);
        } finally {
          await person.end();
        }
      });
      const { rows } = await withClient(env.databaseUrl, (client) =>
        client.query(
          `select location_key, created_at_service = '2026-06-15T05:30:00Z' as is_right from tickets.inc order by ticket_id limit 1`,
        ),
      );
      assert.deepEqual(rows, [{ location_key: 'acacia road kilimani', is_right: true }], name(settings));
    }
  });
});
