/**
 * The schema: graphile-worker's own tables first, then the committed migrations, then the actions of `.gmrc`.
 *
 * Guarantees: safe to start twice at once, and behind one that was killed (the second waits); needs no shadow database and no superuser where PostGIS
 * is installed; done means that every committed migration stands in the database in the version that is committed.
 * A session lock keeps order, so DATABASE_URL must not go through a transaction-pooling proxy. On the embedded
 * database all connections are one session and a lock excludes nobody: start one migration at a time there.
 */
import { readdir, readFile } from 'node:fs/promises';
import { fileURLToPath } from 'node:url';
import { stripVTControlCharacters } from 'node:util';
import { migrate as applyCommitted, Logger } from 'graphile-migrate';
import { clearAllPools } from 'graphile-migrate/dist/pg.js';
import { runMigrations } from 'graphile-worker';
import type { ClientBase } from 'pg';
import { graphileLogger, type Log } from '../settings/log.ts';
import { SchemaError, withClient } from './client.ts';
import { pinnedUrlIfNeeded } from './session.ts';

const MIGRATIONS = fileURLToPath(new URL('../../migrations', import.meta.url));
const GMRC = new URL('../../.gmrc', import.meta.url);

/** "fleettickets migrate" as an advisory lock, apart from those of graphile-migrate and graphile-worker. */
const LOCK = '7216406330421507';
/** graphile-migrate's own, for which it does not wait: https://github.com/graphile/migrate/blob/main/src/pgReal.ts */
const GRAPHILE_MIGRATE_LOCK = '4727445306447283';

/** The first migration as it was before the release, when it could still be made anew. */
const FORMER_FIRST = 'sha1:5e306a9b341ecf5ca2cffda8447bd551325c9bc6';
export const FORMER_REMEDY =
  'migrate an empty database, which the next file fills; one that took over the Python version can go back first ' +
  '(select tickets_takeover.go_back();) and be migrated again';

/** A committed migration that the database has not, or has in another version: `former` is the one before the release. */
export type Pending = { migration: string; state: 'missing' | 'changed' | 'former' };

/**
 * Brings the database to the committed schema, and says in the log what was done; does nothing where it is there already,
 * except for the idempotent actions of `.gmrc`.
 * @throws SchemaError with the file, the line and Postgres's reason when a migration fails, which is rolled back whole;
 * having changed nothing, for a database of before the release
 */
export async function migrate(databaseUrl: string, log: Log): Promise<void> {
  await withClient(databaseUrl, async (client) => {
    await takeLock(client, LOCK, 'another process is migrating this database', log);
    // A migration that was killed goes on in the database until its statement ends, and is rolled back then.
    await takeLock(client, GRAPHILE_MIGRATE_LOCK, 'a migration whose process is gone is still at work', log);
    await client.query('select pg_advisory_unlock($1)', [GRAPHILE_MIGRATE_LOCK]);
    const isNew = (await appliedMigrations(client)).size === 0;
    const missing = await pending(client);
    requireUpgradable(missing);
    const pinned = await pinnedUrlIfNeeded(client, databaseUrl);
    await migrateWorker(client, pinned, log);
    await applyMigrations(pinned, log);
    const left = await pending(client);
    if (left.length > 0) {
      throw new SchemaError(
        `The database has another version of ${left.map(({ migration }) => migration).join(', ')} than this release. ` +
          'A committed migration must never change once applied: restore the file from git, or start from an empty database.',
      );
    }
    for (const { migration } of missing) log.info(`applied ${migration}`);
    if (isNew) await tellTakeover(client, log);
    await runActions(client, log);
    log.info(missing.length > 0 ? 'the schema is current' : 'the schema is current: no migration was missing');
  }); // closing the session frees the lock, even when the process dies
}

/** @throws SchemaError unless every committed migration stands in the database as it is committed */
export async function requireCurrent(client: ClientBase): Promise<void> {
  const left = await pending(client);
  requireUpgradable(left);
  const [first] = left;
  if (first)
    throw new SchemaError(
      `The schema of this database is not current: ${first.migration} is ${first.state}. Run: fleettickets migrate`,
    );
}

function requireUpgradable(left: Pending[]): void {
  if (left.some(({ state }) => state === 'former'))
    throw new SchemaError(
      `This database was made by a version from before the release, which cannot be upgraded: ${FORMER_REMEDY}.`,
    );
}

/** What a takeover could not carry over as it was: graphile-migrate swallows the migration's notices. */
async function tellTakeover(client: ClientBase, log: Log): Promise<void> {
  const { rows: found } = await client.query(`select where to_regclass('tickets_takeover.notes') is not null`);
  if (found.length === 0) return;
  log.info('the Python version was taken over; the old tables are in the schema tickets_legacy (docs/taking-over.md)');
  const { rows } = await client.query<{ about: string; count: string }>(
    'select about, count(*) from tickets_takeover.notes group by about order by about',
  );
  for (const { about, count } of rows) log.warn(`${count} ${about}: see tickets_takeover.notes`);
}

/** Committed migrations that the database lacks, oldest first; empty when the schema is current or newer. */
export async function pending(client: ClientBase): Promise<Pending[]> {
  const applied = await appliedMigrations(client);
  return (await committedMigrations()).flatMap(({ migration, number, hash }): Pending[] => {
    const appliedHash = applied.get(number);
    if (appliedHash === hash) return [];
    if (appliedHash === FORMER_FIRST) return [{ migration, state: 'former' }];
    return [{ migration, state: appliedHash === undefined ? 'missing' : 'changed' }];
  });
}

/** Waits for an advisory lock, and says for whom. */
async function takeLock(client: ClientBase, lock: string, holder: string, log: Log): Promise<void> {
  const { rows } = await client.query<{ taken: boolean; pid: number | null }>(
    `select pg_try_advisory_lock($1) as taken, (
       select pid from pg_locks
       where locktype = 'advisory' and granted and objsubid = 1 and (classid::bigint << 32) + objid::bigint = $1
         and database = (select oid from pg_database where datname = current_database()) and pid <> pg_backend_pid()
     ) as pid`,
    [lock],
  );
  if (rows[0]?.taken) return;
  log.info(`${holder} (database process ${rows[0]?.pid ?? 'unknown'}): waiting for it`);
  await client.query('select pg_advisory_lock($1)', [lock]);
}

/** graphile-worker's tables. Our SQL names their schema: GRAPHILE_WORKER_SCHEMA in the environment must not move it. */
async function migrateWorker(client: ClientBase, databaseUrl: string, log: Log): Promise<void> {
  const before = await workerRevision(client);
  await runMigrations({ connectionString: databaseUrl, schema: 'graphile_worker', logger: graphileLogger(log) });
  const after = await workerRevision(client);
  if (before === null) log.info(`installed graphile-worker's tables, revision ${after}`);
  else if (after !== before) log.info(`brought graphile-worker's tables from revision ${before} to ${after}`);
}

async function workerRevision(client: ClientBase): Promise<number | null> {
  const { rows: found } = await client.query(`select where to_regclass('graphile_worker.migrations') is not null`);
  if (found.length === 0) return null;
  const { rows } = await client.query<{ revision: number | null }>(
    'select max(id) as revision from graphile_worker.migrations',
  );
  return rows[0]?.revision ?? null;
}

/** Runs `afterAllMigrations` of `.gmrc` in our own session, because graphile-migrate swallows their notices. */
async function runActions(client: ClientBase, log: Log): Promise<void> {
  const tell = ({ message }: { message?: string | undefined }) => log.warn(message ?? '');
  client.on('notice', tell);
  try {
    const { afterAllMigrations } = await readGmrc();
    for (const file of afterAllMigrations) await client.query(await readFile(`${MIGRATIONS}/${file}`, 'utf8'));
  } catch (error) {
    throw new SchemaError(`Granting failed: ${explain(error as MigrationError)}`);
  } finally {
    client.off('notice', tell);
  }
}

const readGmrc = async (): Promise<{ afterAllMigrations: string[] }> => JSON.parse(await readFile(GMRC, 'utf8'));

async function applyMigrations(databaseUrl: string, log: Log): Promise<void> {
  const settings = {
    ...(await readGmrc()),
    afterAllMigrations: [], // runActions
    connectionString: databaseUrl,
    migrationsFolder: MIGRATIONS,
    // Its own copy of the logger's class, by which it knows a logger; each of its steps is a detail to whoever runs them.
    logger: new Logger(() => (level, message) => log[level === 'error' ? 'error' : 'debug'](message)),
  };
  try {
    await applyCommitted(settings);
  } catch (error) {
    throw new SchemaError(`Migration failed: ${explain(error as MigrationError)}`);
  } finally {
    // graphile-migrate keeps an idle pool for 200 ms more and ends the process when that loses its connection. It exports
    // no way to end it: https://github.com/graphile/migrate/blob/main/src/pgReal.ts (clearAllPools).
    clearAllPools();
  }
}

type MigrationError = Error & { detail?: string; hint?: string; _gmMessageOverride?: string };

/** graphile-migrate's excerpt of the SQL around the error where there is one, and what Postgres adds to it. */
function explain({ message, detail, hint, _gmMessageOverride: excerpt }: MigrationError): string {
  const lines = [excerpt ?? message, detail && `Detail: ${detail}`, hint && `Hint: ${hint}`];
  return stripVTControlCharacters(lines.filter(Boolean).join('\n'));
}

/** What graphile-migrate applied, hash by number (`000001.sql`); its table does not exist before the first migration. */
async function appliedMigrations(client: ClientBase): Promise<Map<string, string>> {
  const { rows: found } = await client.query(`select where to_regclass('graphile_migrate.migrations') is not null`);
  if (found.length === 0) return new Map();
  const { rows } = await client.query<{ filename: string; hash: string }>(
    'select filename, hash from graphile_migrate.migrations',
  );
  return new Map(rows.map(({ filename, hash }) => [filename, hash]));
}

async function committedMigrations(): Promise<{ migration: string; number: string; hash: string }[]> {
  const files = (await readdir(`${MIGRATIONS}/committed`)).filter((file) => /^\d{6}.*\.sql$/.test(file)).sort();
  return Promise.all(
    files.map(async (migration) => {
      const text = await readFile(`${MIGRATIONS}/committed/${migration}`, 'utf8');
      const hash = /^--! Hash: (\S+)$/m.exec(text)?.[1];
      if (!hash)
        throw new Error(`migrations/committed/${migration} has no "--! Hash" line: commit it with graphile-migrate.`);
      return { migration, number: `${migration.slice(0, 6)}.sql`, hash };
    }),
  );
}
