/** The upgrade path: from every committed migration on, with data in it, to the schema of this release. */
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { cp, mkdir, mkdtemp, readdir, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { migrate as applyCommitted, Logger } from 'graphile-migrate';
import { runMigrations } from 'graphile-worker';
import { pino } from 'pino';
import { feed } from '../../demo/feed.ts';
import { withClient } from '../../src/database/client.ts';
import { pending } from '../../src/database/committed.ts';
import { migrate } from '../../src/database/schema.ts';
import { JobSchemaSettings, readSettings } from '../../src/settings/settings.ts';
import { asPerson, type Environment, native, startEnvironment, waitFor } from '../support/environment.ts';

const MIGRATIONS = fileURLToPath(new URL('../../migrations', import.meta.url));
const committed = (await readdir(`${MIGRATIONS}/committed`)).filter((file) => file.endsWith('.sql')).sort();
const silent = pino({ level: 'silent' });
const { WORKER_SCHEMA } = readSettings(JobSchemaSettings);

describe('upgrading', { skip: !native && 'needs a native Postgres' }, () => {
  const name = `fleettickets_upgrade_${randomBytes(4).toString('hex')}`;
  let env: Environment;
  let url: string;
  before(async () => {
    env = await startEnvironment();
    url = Object.assign(new URL(env.databaseUrl), { pathname: `/${name}` }).href;
  });
  after(() => env.close());

  for (const [index, last] of committed.entries()) {
    test(`from ${last} keeps every ticket, its place and its history`, async () => {
      await env.pool.query(`create database ${name}`);
      try {
        await runMigrations({ connectionString: url, schema: WORKER_SCHEMA });
        await applyFirst(url, index + 1);
        const [snapshot] = feed({ seed: 5, hours: 1, tickets: 200 });
        assert.ok(snapshot);
        await fill(url, snapshot.tickets);
        const before = await contents(url);
        assert.equal(before.length, snapshot.tickets.size);

        await migrate(url, silent);

        await withClient(url, async (client) => assert.deepEqual(await pending(client), []));
        assert.deepEqual(await contents(url), before);
      } finally {
        await env.pool.query(`drop database ${name} with (force)`);
      }
    });
  }

  /** A database of 1.0.0. */
  async function released(): Promise<void> {
    await env.pool.query(`create database ${name}`);
    await runMigrations({ connectionString: url, schema: WORKER_SCHEMA });
    await applyFirst(url, 1);
  }
  const gone = () => env.pool.query(`drop database if exists ${name} with (force)`);

  test('keeps what others set, made and were granted', async () => {
    await released();
    try {
      const set = ['inc_closures', 'open_places', 'inc_ageing', 'inc_open_sla'].map((view) => `tickets.${view}`);
      await asPerson(url, async (client) => {
        for (const view of set) await client.query(`alter view ${view} set (security_invoker = true)`);
        await client.query(`
          grant execute on function tickets_ops.review_place(text, text, text) to pg_monitor;
          create or replace function reporting.fn_inc_trends(p_from date, p_to date, p_step text default 'day', p_by text default null)
            returns jsonb language sql as $$ select '"theirs"'::jsonb $$;
          create function reporting.fn_tickets_for_map(p_open_only text) returns text language sql as $$ select 'theirs' $$;
          drop function reporting.fn_tickets_for_map(boolean, text, text, text);
          drop view tickets.vehicles cascade;
        `);
      });
      await migrate(url, silent);
      await asPerson(url, async (client) => {
        const { rows } = await client.query(
          `select array(select oid::regclass::text from pg_class where reloptions = '{security_invoker=true}' order by 1) as set,
             has_function_privilege('pg_monitor', 'tickets_ops.review_place(text, text, text)', 'execute') as granted,
             reporting.fn_inc_trends(null, null) as trends,
             (select count(*)::int from pg_proc where proname = 'fn_tickets_for_map') as maps,
             to_regclass('tickets.vehicles') as vehicles`,
        );
        assert.deepEqual(rows, [{ set: set.toSorted(), granted: true, trends: 'theirs', maps: 1, vehicles: null }]);
      });
    } finally {
      await gone();
    }
  });

  test('gives way to a reader, says whom it waits for, and is done when that has ended', async () => {
    await released();
    try {
      await withClient(url, async (reader) => {
        await reader.query('begin');
        await reader.query('select from tickets.open_places');
        const said: string[] = [];
        const log = pino({}, { write: (line: string) => void said.push(JSON.parse(line).msg) });
        const migrated = migrate(url, log);
        migrated.catch(() => undefined); // awaited below
        await waitFor('the migration gives way', () => said.some((line) => line.startsWith('the migration gives way')));
        const { rows } = await reader.query<{ pid: number }>('select pg_backend_pid() as pid');
        assert.match(said.join('\n'), new RegExp(`\\b${rows[0]?.pid}\\b`));
        await reader.query('select from tickets.inc_closures');
        await reader.query('commit');
        await migrated;
      });
      await withClient(url, async (client) => assert.deepEqual(await pending(client), []));
    } finally {
      await gone();
    }
  });
});

/** Applies the first migrations only, as the release that ended with them did. */
async function applyFirst(url: string, count: number): Promise<void> {
  const folder = await mkdtemp(join(tmpdir(), 'fleettickets-upgrade-'));
  await mkdir(`${folder}/committed`);
  for (const file of committed.slice(0, count))
    await cp(`${MIGRATIONS}/committed/${file}`, `${folder}/committed/${file}`);
  const { afterAllMigrations: _, ...gmrc } = JSON.parse(await readFile(`${MIGRATIONS}/../.gmrc`, 'utf8'));
  const logger = new Logger(() => () => {});
  const placeholders = { ':WORKER_SCHEMA': WORKER_SCHEMA };
  await applyCommitted({ ...gmrc, placeholders, connectionString: url, migrationsFolder: folder, logger });
  await rm(folder, { recursive: true });
}

async function fill(url: string, tickets: ReadonlyMap<string, object>): Promise<void> {
  await asPerson(url, async (client) => {
    await client.query(
      `insert into tickets.geo_clusters (cluster, geom) values ('Kilimani', st_setsrid(st_makepoint(36.7833, -1.2907), 4326))`,
    );
    await client.query(`insert into tickets.inc (ticket_id, raw) select key, value from jsonb_each($1)`, [
      JSON.stringify(Object.fromEntries(tickets)),
    ]);
    await client.query(
      `insert into tickets.inc_events (ticket_id, event, new_value) select ticket_id, 'opened', normalized_status from tickets.inc`,
    );
  });
}

async function contents(url: string): Promise<unknown[]> {
  return asPerson(url, async (client) => {
    const { rows } = await client.query(
      `select ticket_id, raw, st_astext(geom) as place, geo_source, ingested_at,
         (select count(*) from tickets.inc_events e where e.ticket_id = t.ticket_id) as events
       from tickets.inc t order by ticket_id`,
    );
    return rows;
  });
}
