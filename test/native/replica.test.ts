/** What is served runs on a streaming replica: that is where a busy map goes first. */
import assert from 'node:assert/strict';
import { rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import type pg from 'pg';
import { pino } from 'pino';
import { withClient } from '../../src/database/client.ts';
import { migrate } from '../../src/database/schema.ts';
import { fleettickets } from '../support/command.ts';
import { connectAsPerson, native, waitFor } from '../support/environment.ts';
import { startNativePostgres, startReplica } from '../support/native.ts';

/** Whose answers do not change with time: the tickets below have no clock. */
const SERVED = [
  'reporting.fn_tickets_for_map()',
  'reporting.fn_tickets_for_map(p_open_only := false)',
  'reporting.fn_tickets_for_map_json(p_open_only := false)::jsonb',
  `reporting.fn_ticket_places('all')::jsonb`,
  `reporting.fn_ticket_places('closed', '2026-06-01', '2026-07-01')::jsonb`,
  `reporting.ticket_places_mvt(0, 0, 0, '{"state": "all"}')`,
  'reporting.ticket_places_mvt(8, 154, 128)',
  'reporting.fn_tickets_version()',
];

describe('a streaming replica', { skip: !native && 'needs a native Postgres' }, () => {
  const closing: (() => Promise<void>)[] = [];
  let primary: pg.Client;
  let replica: pg.Client;
  let standbyUrl: string;

  before(async () => {
    const server = await startNativePostgres();
    closing.push(server.close);
    await withClient(server.url, (client) => client.query('create database tickets'));
    const url = Object.assign(new URL(server.url), { pathname: '/tickets' }).href;
    await migrate(url, pino({ level: 'silent' }));
    primary = await connectAsPerson(url);
    closing.push(() => primary.end());
    const standby = await startReplica(url);
    closing.push(standby.close);
    standbyUrl = standby.url;
    replica = await connectAsPerson(standby.url);
    closing.push(() => replica.end());
  });
  after(async () => {
    for (const close of closing.reverse()) await close();
  });

  const ask = async (client: pg.Client, what: string) =>
    (await client.query<{ answer: unknown }>(`select ${what} as answer`)).rows[0]?.answer;
  const caughtUp = async () => {
    const { rows } = await primary.query<{ lsn: string }>('select pg_current_wal_lsn() as lsn');
    await waitFor('the replica to have caught up', async () => {
      const [{ done } = { done: false }] = (
        await replica.query<{ done: boolean }>('select pg_last_wal_replay_lsn() >= $1 as done', [rows[0]?.lsn])
      ).rows;
      return done;
    });
  };

  test('answers as its primary does, to a reader, after each change', async () => {
    const version = new Set([await ask(replica, 'reporting.fn_tickets_version()')]);
    await primary.query('create role dashboard in role tickets_reader');
    for (const change of [
      `insert into tickets.inc (ticket_id, raw)
       select 'WOT' || i, jsonb_build_object('cluster', 'Kilimani', 'location_name', 'Rose Court', 'is_actionable', (i % 2 = 0)::text,
         'closed_at', case when i % 2 = 1 then '2026-06-10 10:00:00' else '' end)
       from generate_series(1, 300) as i`,
      `insert into tickets.geo_clusters (cluster, geom) values ('Kilimani', st_setsrid(st_makepoint(36.78, -1.29), 4326))`,
      `insert into tickets.geo_locations (cluster, location_key, status, geom)
       values ('Kilimani', 'rose court', 'found', st_setsrid(st_makepoint(36.79, -1.3), 4326))`,
      `delete from tickets.inc where ticket_id = 'WOT7'`,
    ]) {
      await primary.query(change);
      await caughtUp();
      await replica.query('set role dashboard');
      for (const what of SERVED) assert.deepEqual(await ask(replica, what), await ask(primary, what), what);
      version.add(await ask(replica, 'reporting.fn_tickets_version()'));
      await replica.query('reset role');
    }
    assert.equal(version.size, 5, 'each change has its version');
    const places = (await ask(replica, 'reporting.fn_ticket_places()')) as { features: { properties: unknown }[] };
    assert.equal(places.features.length, 1);
  });

  test('is one: it is in recovery, and takes no write', async () => {
    assert.equal(await ask(replica, 'pg_is_in_recovery()'), true);
    await assert.rejects(replica.query('delete from tickets.inc'), { code: '25006' });
  });

  test('that a failover left in DATABASE_URL is told by each command that writes, and read by those that read', async () => {
    const file = join(tmpdir(), `fleettickets-replica-${process.pid}.csv`);
    await writeFile(file, 'ticket_id\nWOT1\n');
    const run = async (...args: string[]) => {
      const settings = {
        DATABASE_URL: standbyUrl,
        RUSTFS_ENDPOINT: 'http://127.0.0.1:1',
        RUSTFS_ACCESS_KEY: 'a',
        RUSTFS_SECRET_KEY: 'b',
      };
      const { out, err } = await fleettickets(settings, ...args);
      return `${out}${err}`;
    };
    for (const args of [['worker'], ['worker', '--migrate'], ['ingest', '--inc-csv', file, '--apply']]) {
      const said = (await run(...args)).trim().split('\n').slice(-2).join(' ');
      assert.match(said, /takes no writes.*DATABASE_URL/, args.join(' '));
      assert.doesNotMatch(said, /\n {4}at /);
    }
    assert.match(await run('status'), /No worker is alive/);
    assert.match(await run('ingest', '--inc-csv', file), /dry run/);
    await rm(file);
  });
});
