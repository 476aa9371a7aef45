/** What stops a takeover, and who waits for it. */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { describe, test } from 'node:test';
import { withClient } from '../../src/database/client.ts';
import { CLI } from '../support/command.ts';
import { native, waitFor } from '../support/environment.ts';
import {
  admin,
  dashboard,
  dump,
  large,
  legacy,
  owner,
  pythonVersion,
  refuses,
  rows,
  takeOver,
  url,
} from '../support/python-version.ts';

describe('a takeover', { skip: !native && 'needs a native Postgres' }, () => {
  pythonVersion(true);

  describe('what cannot be taken over stops it, by name, and the old system is as it was', () => {
    test('a view that belongs to somebody else', async () => {
      const database = await legacy();
      await admin(
        (client) => client.query('create view public.of_the_dba as select ticket_id from tickets.inc'),
        database,
      );
      await refuses(
        database,
        /view public\.of_the_dba cannot be pointed at the other tables: must be owner of view of_the_dba\.[\s\S]*does not own what postgres has made for the Python version\. Let the DBA run:\n.*alter view public\.of_the_dba owner to/,
      );
    });

    test('rules, policies, inheritance and publications', async () => {
      await refuses(
        await legacy(`
          create table bi.archive () inherits (tickets.inc);
          create rule log as on delete to tickets.inc do also notify deleted;
          create policy only_open on tickets.inc using (is_actionable);
          create publication warehouse for table tickets.inc`),
        /- bi\.archive inherits from tickets\.inc is.*\n.*\n- policy only_open on table tickets\.inc is.*\n.*\n- publication warehouse of table tickets\.inc is.*\n.*\n- rule log on table tickets\.inc is/,
      );
    });

    test('a parameter, a property and a summary key that the map function has no longer', async () => {
      await refuses(
        await legacy(`
          create function reporting.fn_tickets_for_map(p_open_only boolean, p_service_type text, p_region text default null) returns jsonb language sql stable as $$
            select jsonb_build_object(
              'type', 'FeatureCollection', 'summary', jsonb_build_object('by_team', null, 'total', count(*)),
              'features', jsonb_agg(jsonb_build_object('properties', jsonb_build_object('raw_status', raw_status, 'colour', 'red')))
            ) from tickets.inc
          $$`),
        /fn_tickets_for_map has no longer: parameter p_service_type, property colour, summary key by_team; where it was called, reporting\.fn_tickets_for_map\(boolean,text\) said: .* is not unique\.\n/,
      );
    });

    test('all that does is told at once, each with what to do about it', async () => {
      const database = await legacy(`
        alter table tickets.geo_clusters rename cluster to place; alter table tickets.geo_clusters drop constraint geo_clusters_pkey;
        create policy only_open on tickets.inc using (is_actionable);
        create view bi.named as select place from tickets.geo_clusters;
        create function reporting.fn_tickets_for_map(p_open_only boolean, p_team text, p_service_type text) returns jsonb language sql as $$ select '{"features": []}'::jsonb $$`);
      await withClient(url(database, owner), async (writer) => {
        await writer.query('begin; lock table tickets.inc in row exclusive mode');
        await refuses(
          database,
          /Migration failed: Nothing was changed, because of:\n- No column of tickets\.geo_clusters .*\n {2}Rename it.*\n- Somebody is writing to tickets\.inc: pid .*\n {2}Stop the schedule.*\n- constraint visits_ticket_id_fkey on table bi\.visits is in use: pid .*\n {2}Let that end.*\n- policy only_open .*\n {2}Agree .*\n- reporting\.fn_tickets_for_map has no longer: parameter p_service_type; reporting\.fn_tickets_for_map differs: parameter p_team is at place 4 and was at 2\.\n {2}With MIGRATE_KEEP_OLD_MAP.*\n- view bi\.named cannot .*\n {2}Its owner/,
        );
      });
    });

    test('tables that an earlier takeover set aside', async () => {
      const database = await legacy('create schema tickets_legacy');
      await assert.rejects(takeOver(database), /There is a schema tickets_legacy already/);
    });

    test('a writer who does not end: it is named, and nobody queues up behind it for longer than 5 s', async () => {
      const database = await legacy();
      await withClient(url(database, owner), async (writer) => {
        await writer.query(`set application_name = 'import_tickets.py'`);
        await writer.query('begin');
        await writer.query(`update tickets.inc set ingested_at = now() where ticket_id = 'WOT0700001'`);
        const started = performance.now();
        await assert.rejects(
          takeOver(database),
          /Somebody is writing to tickets\.inc.*import_tickets\.py, idle in transaction/s,
        );
        assert.ok(performance.now() - started < 20_000);
        await writer.query('commit');
      });
      await takeOver(database);
    });

    test('a connection that is cut off when all but the last step is done', async () => {
      const database = await legacy();
      const before = await dump(database);
      await withClient(url(database, dashboard), async (reader) => {
        await reader.query('begin');
        await reader.query('select * from bi.open_by_cluster');
        const env = { ...process.env, DATABASE_URL: url(database, owner) };
        const exit = once(spawn(process.execPath, [CLI, 'migrate'], { env, stdio: 'ignore' }), 'exit');
        const { pid } = await waitFor('the migration to wait for the reader', async () => {
          const waiting = `select pid from pg_locks where relation = 'bi.open_by_cluster'::regclass and not granted`;
          return (await rows<{ pid: number }>(database, waiting))[0];
        });
        await admin((client) => client.query('select pg_terminate_backend($1)', [pid]));
        assert.notEqual((await exit)[0], 0);
        await reader.query('rollback');
      });
      assert.deepEqual(await dump(database), before);
      await takeOver(database);
    });
  });

  test('readers go on while the tickets are copied, and a writer waits', async () => {
    const database = await legacy('drop table bi.visits', large); // dropping a foreign key locks out readers for a moment
    let running = true;
    let longest = 0;
    const reading = withClient(url(database, dashboard), async (reader) => {
      const seen = new Set<string>();
      while (running) {
        const started = performance.now();
        const { rows } = await reader.query(`
          select (select count(*) from tickets.inc)::text || ' ' || (select count(*) from tickets.inc_open_sla) || ' ' || tableoid::regclass as seen
          from tickets.inc limit 1`);
        longest = Math.max(longest, performance.now() - started);
        seen.add(rows[0].seen);
      }
      return [...seen];
    });
    const started = performance.now();
    const taken = takeOver(database);
    const writer = await waitFor('the writer to be locked out', () =>
      withClient(url(database, owner), async (client) => {
        await client.query(`set lock_timeout = '20ms'`);
        return client.query(`update tickets.import_meta set metadata = metadata`).then(
          () => null,
          (error: Error) => error.message,
        );
      }),
    );
    assert.match(writer, /lock timeout/);
    await taken;
    const took = performance.now() - started;
    running = false;
    // A statement that the commit overtakes has read the old table to its end, and finds it under its new name.
    for (const seen of await reading) assert.match(seen, /^20000 4000 tickets(_legacy)?\.inc$/);
    assert.ok(longest < took / 4, `a reader waited ${longest.toFixed(0)} ms of ${took.toFixed(0)}`);
  });
});
