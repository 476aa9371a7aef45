/**
 * `npm run schema:dump`: writes migrations/schema.sql, the schema that the committed migrations make, so that a review
 * sees what a migration changes. A native test compares it. pg_dump of the server's own major version is used.
 */
import { execFile } from 'node:child_process';
import { writeFile } from 'node:fs/promises';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { nativeDatabase } from './databases.ts';
import { postgresPrograms, startNativePostgres } from './native.ts';

export const SCHEMA_FILE = fileURLToPath(new URL('../../migrations/schema.sql', import.meta.url));

/** Where PostGIS is in this run (databases.ts); in the file it is in public. */
const { TEST_POSTGIS_SCHEMA: postgisSchema = 'public' } = process.env;
const SCHEMAS = ['tickets', 'reporting', 'tickets_ops'];

/** The schema of a migrated database, without what differs from one minor version or one server to the next. */
export async function dumpSchema(databaseUrl: string): Promise<string> {
  const program = `${await postgresPrograms()}/pg_dump`;
  const flags = ['--schema-only', '--no-owner', ...SCHEMAS.map((schema) => `--schema=${schema}`), databaseUrl];
  const { stdout } = await promisify(execFile)(program, flags, { maxBuffer: 64 * 1024 * 1024 });
  const statements = stdout
    .replace(/^(SET|SELECT pg_catalog\.set_config|\\(un)?restrict) ?.*\n/gm, '') // session settings; a random word since 15.14
    .replace(/^--\n-- .*\n--\n/gm, '') // pg_dump's headings
    .replace(/^-- Dumped .*\n/gm, '')
    .replaceAll(`${postgisSchema}.`, 'public.')
    .replace(/\n{3,}/g, '\n\n')
    .trim();
  return `-- Made by npm run schema:dump from the committed migrations; do not edit.\n\n${statements}\n`;
}

/** Of the Postgres whose words the file has: another major version writes the same expressions and columns otherwise. */
export const SCHEMA_FILE_MAJOR = 15;

/** What a dump defines, and the comments on it, without how. */
export const outlineOf = (dump: string): string[] =>
  dump.split('\n').filter((line) => /^(CREATE|COMMENT|ALTER) /.test(line));

/** Writes the schema file, from a database that is made for it on the server. */
async function writeSchema(serverUrl: string): Promise<void> {
  delete process.env.WORKER_SCHEMA; // the file says what a database has by default
  const database = await nativeDatabase(serverUrl);
  try {
    await writeFile(SCHEMA_FILE, await dumpSchema(database.url));
  } finally {
    await database.close();
  }
}

if (import.meta.main) {
  const given = process.env.TEST_DATABASE_URL;
  const server = given ? undefined : await startNativePostgres();
  try {
    await writeSchema(given ?? server?.url ?? '');
  } finally {
    await server?.close();
  }
}
