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
import { asPerson, type Environment, native, startEnvironment } from '../support/environment.ts';

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
