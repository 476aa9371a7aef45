/**
 * The schema: graphile-worker's own tables first, then the committed migrations, then the actions of `.gmrc`.
 *
 * Guarantees: safe to start twice at once, and behind one that was killed (the second waits); needs no shadow database and
 * no superuser where PostGIS is installed; done means that every committed migration stands in the database in the version
 * that is committed. A session lock keeps order. On the embedded database all connections are one session and a lock
 * excludes nobody: start one migration at a time there.
 */
import { readFile } from 'node:fs/promises';
import { setTimeout } from 'node:timers/promises';
import { stripVTControlCharacters } from 'node:util';
import { migrate as applyCommitted, Logger } from 'graphile-migrate';
import { clearAllPools } from 'graphile-migrate/dist/pg.js';
import type { ClientBase } from 'pg';
import { REMEDIES } from '../settings/errors.ts';
import type { Log } from '../settings/log.ts';
import { JobSchemaSettings, readSettings, TakeoverSettings } from '../settings/settings.ts';
import { missingForFirstMigration } from '../takeover/rights.ts';
import { listed } from '../text/wording.ts';
import { SchemaError, withClient } from './client.ts';
import { appliedMigrations, FORMER_REMEDY, MIGRATIONS, type Pending, pending } from './committed.ts';
import { postgisSchema } from './foreign-code.ts';
import { obstacles, unknownTasks } from './preflight.ts';
import { newerServer, readServer } from './server.ts';
import { settingsToPin } from './session.ts';
import { boundedWaits, LOCK_NOT_AVAILABLE, sessionsInside } from './waits.ts';
import { migrateWorkerSchema } from './worker-schema.ts';

const GMRC = new URL('../../.gmrc', import.meta.url);

/** "fleettickets migrate" as an advisory lock, apart from graphile-migrate's own. */
const LOCK = '7216406330421507';
/** graphile-migrate's own, for which it does not wait: https://github.com/graphile/migrate/blob/main/src/pgReal.ts */
const GRAPHILE_MIGRATE_LOCK = '4727445306447283';

const DEADLOCK_DETECTED = '40P01';
const DEPENDENT_OBJECTS = '2BP01';
/** Of an upgrade: readers wait behind it for no longer, and come first between two tries. */
const LOCK_WAIT = '3s';
const BETWEEN_TRIES_MS = 1_000;
const UPGRADE_TRIES = 30;
const SESSIONS_NAMED = 3;

/**
 * Brings the database to the committed schema, and says in the log what was done; does nothing where it is there already,
 * except for the idempotent actions of `.gmrc`.
 * @throws SchemaError with the file, the line and Postgres's reason when a migration fails, which is rolled back whole;
 * having changed nothing, for a database of before the release
 */
export async function migrate(databaseUrl: string, log: Log): Promise<void> {
  const jobs = readSettings(JobSchemaSettings);
  await withClient(databaseUrl, async (client) => {
    await takeLock(client, LOCK, 'another process is migrating this database', log);
    // A migration that was killed goes on in the database until its statement ends, and is rolled back then.
    await takeLock(client, GRAPHILE_MIGRATE_LOCK, 'a migration whose process is gone is still at work', log);
    await client.query('select pg_advisory_unlock($1)', [GRAPHILE_MIGRATE_LOCK]);
    await requireNoObstacles(client, jobs);
    await tellNewer(client, log);
    const isNew = (await appliedMigrations(client)).size === 0;
    const missing = await pending(client);
    requireUpgradable(missing);
    const apply = async () => {
      await migrateWorkerSchema(client, databaseUrl, jobs.WORKER_SCHEMA, log);
      const lockWait = isNew ? '0' : LOCK_WAIT; // a takeover waits for readers, in turn
      await patiently(client, () => applyMigrations(client, databaseUrl, jobs.WORKER_SCHEMA, lockWait, log), log);
    };
    try {
      await (isNew ? orNothing(client, jobs.WORKER_SCHEMA, apply, log) : apply());
    } catch (error) {
      if (isNew) await tellTakeover(client, log).catch(() => undefined); // the first may be done: no later run tells it
      throw error;
    }
    if (isNew) await tellTakeover(client, log);
    await recordShared(client, jobs);
    for (const { migration } of missing) log.info(`applied ${migration}`);
    await runActions(client, log);
    await tellUnknownTasks(client, jobs, log);
    log.info(missing.length > 0 ? 'the schema is current' : 'the schema is current: no migration was missing');
  }); // closing the session frees the lock, even when the process dies
}

/**
 * @throws SchemaError unless every committed migration stands in the database as it is committed; as boundedWaits, when somebody
 * keeps what says so locked
 */
export async function requireCurrent(client: ClientBase): Promise<void> {
  const left = await boundedWaits(client, () => pending(client));
  requireUpgradable(left);
  const [first] = left;
  if (first)
    throw new SchemaError(
      `The schema of this database is not current: ${first.migration} is ${first.state}. Run: fleettickets migrate`,
    );
}

async function requireNoObstacles(client: ClientBase, jobs: JobSchemaSettings): Promise<void> {
  const found = await obstacles(client, jobs);
  if (found.length === 0) return;
  const list = found.map(({ what, remedy }) => `- ${what}.\n  ${remedy}`);
  throw new SchemaError(`This database is not migrated, and nothing in it was changed:\n${list.join('\n')}`);
}

function requireUpgradable(left: Pending[]): void {
  if (left.some(({ state }) => state === 'former'))
    throw new SchemaError(
      `The schema of this database is not current: it was made by a version from before the release, and cannot be upgraded. What to do: ${FORMER_REMEDY}`,
    );
  if (left.some(({ state }) => state === 'foreign'))
    throw new SchemaError(
      'This database has nothing of ours, and the migrations in its schema graphile_migrate are another application’s: name another database in DATABASE_URL.',
    );
  const changed = left.filter(({ state }) => state === 'changed').map(({ migration }) => migration);
  if (changed.length > 0)
    throw new SchemaError(
      `The database has another version of ${changed.join(', ')} than this release. A committed migration must never ` +
        'change once applied: restore the file from git, or start from an empty database.',
    );
}

/**
 * Applies the first migration; of one that fails nothing stays, not even the schemas that the libraries make for themselves.
 * @throws what `apply` throws, with the rights that the role lacks where it lacks some
 */
async function orNothing(
  client: ClientBase,
  workerSchema: string,
  apply: () => Promise<void>,
  log: Log,
): Promise<void> {
  const { rows } = await client.query<{ name: string }>(
    `select name from unnest($1::text[]) as name where not exists (select from pg_namespace where nspname = name)`,
    [['graphile_migrate', workerSchema]],
  );
  try {
    await apply();
  } catch (error) {
    if ((await appliedMigrations(client)).size > 0) throw error; // the first is done: it was a later one
    for (const { name } of rows) {
      // Made a moment ago, and yet another application may have begun to use it: its tables are known by their name to all.
      if (name === workerSchema && (await unknownTasks(client, name)).length > 0) continue;
      await drop(client, name).catch(({ message }: Error) =>
        log.warn(`The schema ${name}, which was made for this, stays; nothing is in it yet: ${message}`),
      );
    }
    const missing = await missingForFirstMigration(client);
    if (missing.length === 0) throw error;
    const list = missing.map(
      ({ what, remedy }) => `- This role ${what}. Let the DBA run:\n  ${remedy.replaceAll('\n', '\n  ')}`,
    );
    throw new SchemaError(`${(error as Error).message}\nBefore the next try:\n${list.join('\n')}`, { cause: error });
  }
}

/** Waits for nobody for longer than 5 s. */
async function drop(client: ClientBase, schema: string): Promise<void> {
  await client.query('begin');
  try {
    await client.query(`set local lock_timeout = '5s'; drop schema if exists ${schema} cascade`);
  } finally {
    await client.query('commit');
  }
}

/** SQL has no environment: what this process is told of the schema of the jobs is recorded for it. */
async function recordShared(client: ClientBase, { WORKER_SCHEMA_SHARED }: JobSchemaSettings): Promise<void> {
  if (WORKER_SCHEMA_SHARED === undefined) return;
  await client.query(`select tickets_ops.record_settings('migrate', $1)`, [JSON.stringify({ WORKER_SCHEMA_SHARED })]);
}

async function tellNewer(client: ClientBase, log: Log): Promise<void> {
  const newer = newerServer(await readServer(client));
  if (newer) log.warn(`${newer.what}: ${newer.remedy}`);
}

async function tellUnknownTasks(client: ClientBase, { WORKER_SCHEMA }: JobSchemaSettings, log: Log): Promise<void> {
  const tasks = await unknownTasks(client, WORKER_SCHEMA);
  if (tasks.length > 0)
    log.info({ tasks }, `the schema ${WORKER_SCHEMA} has tasks that are not ours: misspelt, or another application’s`);
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

/** Waits for an advisory lock, and says for whom: anybody who may connect can hold it. */
async function takeLock(client: ClientBase, lock: string, holder: string, log: Log): Promise<void> {
  const { rows } = await client.query<{ taken: boolean }>('select pg_try_advisory_lock($1) as taken', [lock]);
  if (rows[0]?.taken) return;
  log.info(`${holder} (${await holderOf(client, lock)}): waiting for it`);
  await client.query('select pg_advisory_lock($1)', [lock]);
}

async function holderOf(client: ClientBase, lock: string): Promise<string> {
  const { rows } = await client.query<{ holder: string }>(
    `select format('database process %s of user %s', a.pid, a.usename) as holder
     from pg_locks l join pg_stat_activity a on a.pid = l.pid
     where l.locktype = 'advisory' and l.granted and l.objsubid = 1 and a.datname = current_database()
       and l.database = a.datid and (l.classid::bigint << 32) + l.objid::bigint = $1`,
    [lock],
  );
  return rows.map(({ holder }) => holder).join(', ') || 'one that has just ended';
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

/**
 * Under what migrations run. Those that are pending make tables and functions of PostGIS's types and by its functions, and need
 * its schema in the path; nobody has put anything there that could win (foreign-code.ts).
 */
async function sessionSettings(client: ClientBase): Promise<Record<string, string>> {
  const pinned = await settingsToPin(client);
  if ((await pending(client)).length === 0) return pinned;
  const { MIGRATE_KEEP_OLD_MAP: keep = '' } = readSettings(TakeoverSettings);
  return {
    ...pinned,
    search_path: `pg_catalog, ${await postgisSchema(client)}, pg_temp`,
    'tickets_takeover.keep_old_map': keep,
  };
}

/**
 * Upgrades a database that is in use: what waits for a lock is waited for by all who come after it, so each try gives up soon.
 * @throws SchemaError that names the sessions in the way, after two minutes; what `apply` throws
 */
async function patiently(client: ClientBase, apply: () => Promise<void>, log: Log): Promise<void> {
  for (let tries = 1; ; tries += 1) {
    try {
      return await apply();
    } catch (error) {
      const { code = '' } = ((error as Error).cause ?? {}) as { code?: string };
      if (code !== LOCK_NOT_AVAILABLE && code !== DEADLOCK_DETECTED) throw error;
      if ((await appliedMigrations(client)).size === 0) throw error; // of a takeover nothing is there yet that could be asked
      const inTheWay = listed(await sessionsInside(client), SESSIONS_NAMED) || 'a session that has ended meanwhile';
      if (tries === UPGRADE_TRIES)
        throw new SchemaError(
          `Migration failed, and nothing was changed: it waited for ${inTheWay}. Let them end their transaction, or end it: select pg_terminate_backend(process); then migrate again.`,
        );
      log.warn(`the migration gives way and is tried again: in its way is ${inTheWay}`);
      await setTimeout(BETWEEN_TRIES_MS);
    }
  }
}

/** @param lockWait how long a lock is waited for, as Postgres's lock_timeout */
async function applyMigrations(
  client: ClientBase,
  databaseUrl: string,
  workerSchema: string,
  lockWait: string,
  log: Log,
): Promise<void> {
  const settings = {
    ...(await readGmrc()),
    afterAllMigrations: [], // runActions
    placeholders: { ':WORKER_SCHEMA': workerSchema },
    pgSettings: { ...(await sessionSettings(client)), lock_timeout: lockWait },
    connectionString: databaseUrl,
    migrationsFolder: MIGRATIONS,
    // It knows a logger by its own copy of the class, as https://github.com/graphile/migrate/pull/109 made it. Each of its
    // steps is a detail to its users.
    logger: new Logger(() => (level, message) => log[level === 'error' ? 'error' : 'debug'](message)),
  };
  try {
    await applyCommitted(settings);
  } catch (error) {
    const { message } = error as Error;
    if (message === 'Failed to get exclusive lock')
      throw new SchemaError(
        `Another graphile-migrate is at work in this database: ${await holderOf(client, GRAPHILE_MIGRATE_LOCK)}. Run it again when that has ended.`,
      );
    throw new SchemaError(`Migration failed: ${explain(error as MigrationError)}`, { cause: error });
  } finally {
    // graphile-migrate keeps an idle pool for 200 ms more and ends the process when that loses its connection. It exports
    // no way to end it (clearAllPools is its own); as a library it is not supported: https://github.com/graphile/migrate/issues/222
    clearAllPools();
  }
}

/** What graphile-migrate adds to an error: https://github.com/graphile/migrate/blob/main/src/instrumentation.ts */
type MigrationError = Error & { code?: string; detail?: string; hint?: string; _gmMessageOverride?: string };

/** graphile-migrate's excerpt of the SQL around the error where there is one, and what Postgres adds to it. */
function explain({
  message,
  code = '',
  detail,
  hint = REMEDIES[code],
  _gmMessageOverride: excerpt,
}: MigrationError): string {
  // Postgres's own hint for it is CASCADE, which would drop what is somebody's.
  const remedy = code === DEPENDENT_OBJECTS ? 'Drop what depends on it, migrate, and make it anew.' : hint;
  const lines = [excerpt ?? message, detail && `Detail: ${detail}`, remedy && `Hint: ${remedy}`];
  return stripVTControlCharacters(lines.filter(Boolean).join('\n'));
}
