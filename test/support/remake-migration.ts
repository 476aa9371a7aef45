/**
 * `npm run migrations:remake`: makes the last committed migration anew from migrations/fixtures/, and migrations/schema.sql
 * with it. `npm run migrations:remake open` stops half-way: the migration's parts (tables, indexes, triggers, data) lie in
 * migrations/current/, to be edited; run it again without `open` to commit them.
 *
 * Only for a migration that no database has yet. It is graphile-migrate's own `uncommit` and `commit`, on a private
 * Postgres that it starts. When something fails, the files are as they were before.
 */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { cp, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { withClient } from '../../src/database/client.ts';
import { startNativePostgres } from './native.ts';
import { writeSchema } from './schema-dump.ts';

const PROJECT = fileURLToPath(new URL('../..', import.meta.url));
const MIGRATIONS = join(PROJECT, 'migrations');
const FOLDERS = ['committed', 'current'];
const MESSAGE = 'tickets';

const onlyOpen = process.argv[2] === 'open';
const before = await mkdtemp(join(tmpdir(), 'fleettickets-remake-'));
await copyFolders(MIGRATIONS, before);
delete process.env.POSTGRES_BIN; // schema.sql is in the words of Debian's own
const server = await startNativePostgres();
try {
  const environment = {
    DATABASE_URL: await scratchDatabase(server.url),
    SHADOW_DATABASE_URL: inDatabase(server.url, 'shadow'),
    ROOT_DATABASE_URL: server.url,
  };
  const last = (await readdir(join(MIGRATIONS, 'committed')))
    .filter((file) => file.endsWith('.sql'))
    .sort()
    .at(-1);
  const isOpen = (await readdir(join(MIGRATIONS, 'current'))).some((file) => file !== '1-current.sql');
  if (!isOpen && last) {
    await resolveMerge(join(MIGRATIONS, 'committed', last));
    await graphileMigrate(environment, 'uncommit');
  }
  if (!onlyOpen) {
    await graphileMigrate(environment, 'reset', '--erase');
    await graphileMigrate(environment, 'commit', '--message', MESSAGE);
    await writeSchema(server.url);
  }
} catch (error) {
  await copyFolders(before, MIGRATIONS);
  console.error(error instanceof Error ? error.message : error);
  console.error('migrations/committed and migrations/current are as they were before.');
  process.exitCode = 1;
} finally {
  await server.close();
  await rm(before, { recursive: true });
}

async function copyFolders(from: string, to: string): Promise<void> {
  for (const folder of FOLDERS) {
    await rm(join(to, folder), { recursive: true, force: true });
    await cp(join(from, folder), join(to, folder), { recursive: true });
  }
}

function inDatabase(serverUrl: string, database: string): string {
  return Object.assign(new URL(serverUrl), { pathname: `/${database}` }).href;
}

/** A database from which a migration can be uncommitted: that only deletes what graphile-migrate noted of it. */
async function scratchDatabase(serverUrl: string): Promise<string> {
  const url = inDatabase(serverUrl, 'scratch');
  await withClient(serverUrl, (client) => client.query('create database scratch'));
  await withClient(url, (client) =>
    client.query('create schema graphile_migrate; create table graphile_migrate.migrations (hash text)'),
  );
  return url;
}

/**
 * After a git merge: the hash is computed anew and what was included is read anew, so conflicts there need no hand.
 * @throws when there is one in the migration's own text
 */
async function resolveMerge(file: string): Promise<void> {
  const text = await readFile(file, 'utf8');
  const resolved = text
    .replace(/^<{7}.*\n(--! Hash: .*\n)(?:\|{7}.*\n(?:.*\n)??)?={7}\n--! Hash: .*\n>{7}.*\n/m, '$1')
    .replace(/^--! Included (\S+)\n[\s\S]*?^--! EndIncluded \1$/gm, '--! Included $1\n--! EndIncluded $1');
  if (/^(<{7}|={7}|>{7})/m.test(resolved))
    throw new Error(
      `${file} has merge conflicts in the migration's own text: resolve them there, then run this again.`,
    );
  if (resolved !== text) await writeFile(file, resolved);
}

async function graphileMigrate(environment: Record<string, string>, ...args: string[]): Promise<void> {
  const child = spawn('npx', ['--no', 'graphile-migrate', ...args], {
    cwd: PROJECT,
    env: { ...process.env, ...environment },
    stdio: ['ignore', 'ignore', 'inherit'],
  });
  const [code] = await once(child, 'exit');
  if (code !== 0) throw new Error(`graphile-migrate ${args[0]} failed.`);
}
