/**
 * A migrated database for one test file. Migrating takes seconds, so it is done once and copied: natively from a
 * template database, embedded from a dump in node_modules/.cache. Both are named by a hash of all that shapes the
 * schema, so a changed migration makes a new one.
 */
import { createHash, randomBytes } from 'node:crypto';
import { existsSync } from 'node:fs';
import { mkdir, readdir, readFile, rename, rm, writeFile } from 'node:fs/promises';
import { fileURLToPath } from 'node:url';
import type pg from 'pg';
import { pino } from 'pino';
import { startDatabase } from '../../demo/embedded.ts';
import { withClient } from '../../src/database/client.ts';
import { migrate } from '../../src/database/schema.ts';
import { JobSchemaSettings, readSettings } from '../../src/settings/settings.ts';

const PROJECT = fileURLToPath(new URL('../..', import.meta.url));
const CACHE = `${PROJECT}/node_modules/.cache/fleettickets`;
const TEMPLATE = 'fleettickets_template_';
/** TEST_POSTGIS_SCHEMA: PostGIS stands in a schema of this name, not in public. */
const postgisSchema = process.env['TEST_POSTGIS_SCHEMA'];
const silent = pino({ level: 'silent' });

/** "test databases" as an advisory lock of the maintenance database. */
const LOCK = 4_210_077;

type TestDatabase = { url: string; close(): Promise<void> };

/** An embedded database, in memory. */
export async function embeddedDatabase(): Promise<TestDatabase> {
  const image = `${CACHE}/${await schemaHash()}.tar.gz`;
  if (existsSync(image)) return startDatabase(await readFile(image));
  const database = await startDatabase();
  try {
    await migrate(database.url, silent);
    await keepImage(image, await database.dump());
    return database;
  } catch (error) {
    await database.close();
    throw error;
  }
}

async function keepImage(image: string, dump: Uint8Array): Promise<void> {
  await mkdir(CACHE, { recursive: true });
  const unfinished = `${image}.${process.pid}`;
  await writeFile(unfinished, dump);
  await rename(unfinished, image); // another test file may be at the same, or reading it
  for (const old of await readdir(CACHE)) {
    if (old.endsWith('.tar.gz') && !image.endsWith(old)) await rm(`${CACHE}/${old}`, { force: true });
  }
}

/** A database on the server of `serverUrl`, whose role may create databases; dropped by `close()`. */
export async function nativeDatabase(serverUrl: string): Promise<TestDatabase> {
  const name = `fleettickets_test_${randomBytes(6).toString('hex')}`;
  await withClient(serverUrl, async (client) => {
    await client.query('select pg_advisory_lock($1)', [LOCK]);
    const template = await nativeTemplate(client, serverUrl);
    await client.query(`create database ${name} template ${template}`);
    // As a DBA does who puts PostGIS there: people find it. Sessions of ours pin a path of their own.
    if (postgisSchema) await client.query(`alter database ${name} set search_path = "$user", public, ${postgisSchema}`);
  });
  return {
    url: inDatabase(serverUrl, name),
    close: () =>
      withClient(serverUrl, async (client) => void (await client.query(`drop database ${name} with (force)`))),
  };
}

/** The template's name; makes it when this is the first use of this schema. The caller holds the lock. */
async function nativeTemplate(client: pg.Client, serverUrl: string): Promise<string> {
  const template = TEMPLATE + (await schemaHash());
  const { rows } = await client.query<{ datname: string }>(
    'select datname from pg_database where starts_with(datname, $1)',
    [TEMPLATE],
  );
  if (rows.some(({ datname }) => datname === template)) return template;
  for (const { datname } of rows) await client.query(`drop database ${datname} with (force)`);
  const unfinished = `${TEMPLATE}unfinished`; // one that a failed migration left is among those just dropped
  await client.query(`create database ${unfinished}`);
  if (postgisSchema)
    await withClient(inDatabase(serverUrl, unfinished), (inside) =>
      inside.query(
        `create schema ${postgisSchema}; grant usage on schema ${postgisSchema} to public; create extension postgis schema ${postgisSchema}`,
      ),
    );
  await migrate(inDatabase(serverUrl, unfinished), silent);
  await client.query(`alter database ${unfinished} rename to ${template}`); // waits up to 5 s for connections that are still closing
  return template;
}

function inDatabase(serverUrl: string, database: string): string {
  const url = new URL(serverUrl);
  url.pathname = `/${database}`;
  return url.href;
}

async function schemaHash(): Promise<string> {
  const migrations = `${PROJECT}/migrations`;
  const sql = (await readdir(migrations, { recursive: true }))
    .filter((file) => /^committed\/|^[^/]*\.sql$/.test(file))
    .sort();
  const hash = createHash('sha256').update(`${readSettings(JobSchemaSettings).WORKER_SCHEMA} ${postgisSchema}`);
  for (const file of [...sql.map((name) => `migrations/${name}`), '.gmrc', 'package-lock.json']) {
    hash.update(`${file}\n`).update(await readFile(`${PROJECT}/${file}`));
  }
  return hash.digest('hex').slice(0, 16);
}
