import assert from 'node:assert/strict';
import { after, before, beforeEach, describe, test } from 'node:test';
import type { ClientBase } from 'pg';
import { type Environment, startEnvironment } from '../support/environment.ts';
import { csvOf, fetchNow, keyOf, statuses } from '../support/pipeline.ts';

describe('the version of the map', () => {
  let env: Environment;
  before(async () => {
    env = await startEnvironment();
  });
  after(() => env.close());
  beforeEach(async () => {
    await env.reset();
    await env.pool.query(
      `insert into tickets.inc (ticket_id, raw) values ('WOT1', '{"cluster": "Kilimani", "is_actionable": "true"}')`,
    );
    await env.pool.query(
      `insert into tickets.geo_locations (cluster, location_key, status) values ('Kilimani', 'rose court', 'not_found')`,
    );
  });

  const version = async (db: Pick<ClientBase, 'query'> = env.pool) =>
    (await db.query('select reporting.fn_tickets_version() as version')).rows[0].version as string;
  const changes = async (what: string, act: () => Promise<unknown>, yes: boolean) => {
    const before = await version();
    await act();
    assert.equal((await version()) !== before, yes, `${what} ${yes ? 'did not change' : 'changed'} the version`);
  };
  const open = (id: number, status = 'Open') => ({
    ticket_id: `WOT${id}`,
    is_actionable: 'true',
    normalized_status: status,
    cluster: 'Kilimani',
  });

  const CHANGING = [
    `insert into tickets.inc (ticket_id, raw) values ('WOT2', '{}')`,
    `update tickets.inc set raw = raw || '{"owner": "NOC"}'`,
    `delete from tickets.inc`,
    `truncate tickets.inc`,
    `insert into tickets.geo_clusters (cluster, geom) values ('Kilimani', st_setsrid(st_makepoint(36.78, -1.29), 4326))`,
    `update tickets.geo_locations set status = 'found', geom = st_setsrid(st_makepoint(36.79, -1.3), 4326)`,
    `delete from tickets.geo_locations`,
    `truncate tickets.geo_locations`,
    `begin; savepoint a; delete from tickets.inc; rollback to a; update tickets.geo_locations set note = 'x'; commit`,
  ];
  for (const sql of CHANGING) {
    test(`changes with the commit of: ${sql}`, () => changes(sql, () => env.pool.query(sql), true));
  }

  const KEEPING = [
    `update tickets.inc set raw = '{}' where ticket_id = 'WOT9'`,
    `delete from tickets.geo_clusters`,
    `insert into tickets.inc (ticket_id, raw) select 'WOT2', '{}' where false`,
    `begin; delete from tickets.inc; rollback`,
    `begin; savepoint a; delete from tickets.inc; rollback to a; commit`,
    `insert into tickets.import_meta values ('inc', '{"checked_at": "2026-06-15T07:00:00Z"}')`,
    `select reporting.fn_tickets_for_map(), reporting.fn_ticket_places('all')`,
    `vacuum analyze tickets.inc`,
  ];
  for (const sql of KEEPING) {
    test(`stays as it is with: ${sql}`, () => changes(sql, () => env.pool.query(sql), false));
  }

  test('a load changes it where it wrote a ticket, and not where it found all of them unchanged', async () => {
    const file = (tickets: Record<string, string>[], end = '') => csvOf(tickets) + end;
    const load = (hour: number, body: string) => async () => {
      await env.putObject(keyOf(hour), body);
      assert.deepEqual(await fetchNow(env), []);
    };
    await changes('new tickets', load(7, file([open(1), open(2)])), true);
    await changes('the same bytes', load(8, file([open(1), open(2)])), false);
    await changes('the same tickets in other bytes', load(9, file([open(1), open(2)], '\n')), false);
    await changes('a ticket that changed', load(10, file([open(1), open(2, 'On Hold')])), true);
    assert.deepEqual((await statuses(env)).length, 4);
  });

  test('a table of the schema tickets changes it, or the map functions do not show what is in it', async () => {
    const NOT_SHOWN = [
      'assignments',
      'crq_events',
      'dispatch_settings',
      'geo_country',
      'geo_decisions',
      'import_meta',
      'inc_daily',
      'inc_events',
      'version_slots',
    ];
    const { rows } = await env.pool.query<{ name: string; triggers: number }>(
      `select c.relname as name, count(t.oid)::int as triggers
       from pg_class c left join pg_trigger t on t.tgrelid = c.oid and t.tgfoid = 'tickets.change_version()'::regprocedure
       where c.relnamespace = 'tickets'::regnamespace and c.relkind in ('r', 'p')
       group by c.relname order by c.relname`,
    );
    for (const { name, triggers } of rows) {
      // By insert, update, delete and truncate.
      assert.equal(
        triggers,
        NOT_SHOWN.includes(name) ? 0 : 4,
        `${name}: give it the triggers of 100-read-side.sql, or list it here`,
      );
    }
  });

  test('a transaction changes it once, however many statements it has', async () => {
    const client = await env.pool.connect();
    try {
      await client.query('begin');
      await client.query('delete from tickets.geo_locations');
      const first = await version(client);
      for (let n = 2; n < 5; n += 1) {
        await client.query('insert into tickets.inc (ticket_id, raw) values ($1, $2)', [`WOT${n}`, '{}']);
      }
      assert.equal(await version(client), first);
      await client.query('commit');
      assert.equal(await version(), first);
    } finally {
      client.release();
    }
  });
});
