/**
 * What `migrate` looks at before it touches anything, and `doctor` shows: is this database ours to change?
 *
 * Ours are the tasks with our names, and what we made. graphile-worker and graphile-migrate keep their tables in schemas
 * that other applications of the database may use as well, and those are never upgraded, nor their code run as us.
 */
import type { ClientBase } from 'pg';
import { settingInUse } from '../settings/recorded.ts';
import type { JobSchemaSettings } from '../settings/settings.ts';
import { listed } from '../text/wording.ts';
import { pending } from './committed.ts';
import { readCrontab } from './crontab.ts';
import { foreignCode, ownedByUs, shadowsOfPostgres, US } from './foreign-code.ts';
import { JOB_POLICY } from './jobs.ts';
import { readServer, serverObstacle } from './server.ts';
import { otherSchema, REVISION, recordedSchema, revisionOf } from './worker-schema.ts';

/** Something that is in the way: what was seen, and what a person can choose. */
interface Obstacle {
  readonly what: string;
  readonly remedy: string;
}

/** Tasks that we had under another name: their jobs are no other application's. */
const FORMER_TASKS = ['maintain'];
const TASKS_SHOWN = 5;

/** Everything that keeps `migrate` from touching this database. Changes nothing. */
export async function obstacles(client: ClientBase, settings: JobSchemaSettings): Promise<Obstacle[]> {
  const server = serverObstacle(await readServer(client));
  if (server) return [server]; // what follows may ask for what such a server does not know
  const foreign = await foreignCode(client, [settings.WORKER_SCHEMA, 'graphile_migrate']);
  const records = await recordsObstacles(client);
  const shadows = records.length === 0 && (await pending(client)).length > 0 ? await shadowsOfPostgres(client) : [];
  return [
    ...(await workerSchemaObstacles(client, settings)),
    ...records,
    ...foreign.map((what) => ({
      what: `${what}: what others made there would run with our rights`,
      remedy: 'Let its owner, or the DBA, say what it is for, and take it away if it is for nothing.',
    })),
    ...shadows.map((what) => ({
      what: `${what} could be called in place of Postgres’s or PostGIS’s own while our tables are made`,
      remedy: 'Let its owner move it to another schema than PostGIS’s, or give it another name.',
    })),
  ];
}

async function workerSchemaObstacles(client: ClientBase, settings: JobSchemaSettings): Promise<Obstacle[]> {
  const { WORKER_SCHEMA: schema } = settings;
  const { rows: words } = await client.query('select where quote_ident($1) <> $1', [schema]);
  if (words.length > 0) return [{ what: `WORKER_SCHEMA=${schema} is a word of SQL`, remedy: 'Choose another name.' }];
  const recorded = await recordedSchema(client);
  if (recorded !== undefined && recorded !== schema)
    return [{ what: otherSchema(recorded, schema), remedy: `WORKER_SCHEMA=${recorded}` }];
  const seen = await seenInWorkerSchema(client, schema);
  if (!seen) return [];
  const inUse = await settingInUse(recorded === undefined ? undefined : client, 'WORKER_SCHEMA_SHARED');
  const shared = inUse === undefined ? undefined : inUse === 'true';
  return recorded === undefined ? beforeTheFirst(schema, seen, shared) : beforeAnUpgrade(schema, seen, shared);
}

type Seen = {
  owner: string;
  isOurs: boolean;
  isEmpty: boolean;
  revision: number | undefined;
  /** Tasks that are not ours. */
  tasks: readonly { name: string; jobs: number }[];
  /** Entries of another application's crontab that are called as ours. */
  crontabIds: readonly string[];
};

function beforeTheFirst(schema: string, seen: Seen, shared: boolean | undefined): Obstacle[] {
  if (seen.isEmpty) return [];
  const alien = [
    ...(seen.isOurs ? [] : [`it belongs to ${seen.owner}`]),
    ...(seen.isOurs && seen.revision === undefined ? ['it holds other things than graphile-worker’s tables'] : []),
    ...(seen.revision === undefined || seen.revision === REVISION
      ? []
      : [`graphile-worker’s tables are at revision ${seen.revision} there, and at ${REVISION} in this release`]),
  ];
  const apart = `Set WORKER_SCHEMA to a schema of our own, e.g. WORKER_SCHEMA=fleettickets_worker`;
  const canShare = alien.length === 0 && seen.crontabIds.length === 0;
  if (canShare && (shared || seen.tasks.length === 0)) return [];
  const what = [
    ...alien,
    ...(seen.tasks.length > 0 ? [`it has tasks that are not ours: ${listTasks(seen.tasks)}`] : []),
    ...seen.crontabIds.map((id) => `an entry of another application’s crontab has the id of ours, ${id}`),
  ];
  const together =
    'or, for both applications in one schema, WORKER_SCHEMA_SHARED=true: they must then always be of the same revision';
  return [
    {
      what: `The schema ${schema} is another application’s: ${what.join('; ')}`,
      remedy: canShare ? `${apart}; ${together}.` : `${apart}.`,
    },
  ];
}

function beforeAnUpgrade(schema: string, seen: Seen, shared: boolean | undefined): Obstacle[] {
  if (seen.revision === undefined || seen.revision >= REVISION) return [];
  if (shared === false || (shared === undefined && seen.tasks.length === 0)) return [];
  const others = seen.tasks.length > 0 ? ` (${listTasks(seen.tasks)})` : '';
  return [
    {
      what: `graphile-worker’s tables in the schema ${schema} are at revision ${seen.revision}, this release needs ${REVISION}, and another application${others} uses them too`,
      remedy:
        'Bring that application to the same version of graphile-worker, and let its own migration upgrade the tables; ' +
        'or set WORKER_SCHEMA_SHARED=false if it no longer has jobs there.',
    },
  ];
}

/** Tasks in our schema that are not ours: somebody else's, or misspelt. */
export async function unknownTasks(client: ClientBase, schema: string): Promise<string[]> {
  return ((await seenInWorkerSchema(client, schema))?.tasks ?? []).map(({ name }) => name);
}

const listTasks = (tasks: Seen['tasks']) =>
  listed(
    tasks.map(({ name, jobs }) => `${name} (${jobs} jobs)`),
    TASKS_SHOWN,
  );

/** @returns undefined where there is no such schema */
async function seenInWorkerSchema(client: ClientBase, schema: string): Promise<Seen | undefined> {
  const { rows } = await client.query<{ owner: string; is_ours: boolean; is_empty: boolean }>(
    `with ${US}
     select pg_get_userbyid(n.nspowner) as owner, ${ownedByUs('n.nspowner')} as is_ours,
       not exists (select from pg_class where relnamespace = n.oid)
       and not exists (select from pg_proc where pronamespace = n.oid) as is_empty
     from pg_namespace n, us where n.nspname = $1`,
    [schema],
  );
  if (!rows[0]) return undefined;
  const { owner, is_ours: isOurs, is_empty: isEmpty } = rows[0];
  const seen = { owner, isOurs, isEmpty, revision: undefined, tasks: [], crontabIds: [] };
  if (!isOurs || isEmpty) return seen; // its tables are not ours to read
  const { rows: tables } = await client.query<{ name: string }>(
    `select c.relname as name from pg_class c join pg_namespace n on n.oid = c.relnamespace
     where n.nspname = $1 and pg_has_role(c.relowner, 'usage')`,
    [schema],
  );
  const has = (table: string) => tables.some(({ name }) => name === table);
  const revision = has('migrations') ? await revisionOf(client, schema) : undefined;
  // Their names since revision 11; of one before it, the revision says enough. They are private to graphile-worker, which
  // offers no other way to read which tasks there are: https://github.com/graphile/worker/issues/349
  if (!has('_private_tasks') || !has('_private_jobs')) return { ...seen, revision };
  const ours = Object.keys(JOB_POLICY);
  const { rows: tasks } = await client.query<{ name: string; jobs: number }>(
    `select t.identifier as name, count(j.id)::int as jobs
     from ${schema}._private_tasks t left join ${schema}._private_jobs j on j.task_id = t.id
     where t.identifier <> all ($1) group by 1 order by 1`,
    [[...ours, ...FORMER_TASKS]],
  );
  // In a schema that we share, no entry of others may be called as one of ours. Where tasks of ours are, it is one that we left there.
  const ids = (await readCrontab()).map(({ identifier }) => identifier);
  const { rows: crontab } = await client.query<{ id: string }>(
    `select identifier as id from ${schema}._private_known_crontabs
     where identifier = any ($1) and not exists (select from ${schema}._private_tasks where identifier = any ($2))`,
    [ids, ours],
  );
  return { ...seen, revision, tasks, crontabIds: crontab.map(({ id }) => id) };
}

/** graphile-migrate keeps its records in one schema of a fixed name, so a database holds those of one application. */
async function recordsObstacles(client: ClientBase): Promise<Obstacle[]> {
  const { rows } = await client.query<{ owner: string; is_ours: boolean }>(
    `with ${US}
     select pg_get_userbyid(nspowner) as owner, ${ownedByUs('nspowner')} as is_ours
     from pg_namespace, us where nspname = 'graphile_migrate'`,
  );
  if (!rows[0]) return [];
  if (!rows[0].is_ours) return [otherRecords(`it belongs to ${rows[0].owner}`)];
  const [first] = await pending(client);
  if (first?.state !== 'foreign') return [];
  return [otherRecords('its migrations are not ours, and there is nothing of ours in this database')];
}

const otherRecords = (why: string): Obstacle => ({
  what: `The schema graphile_migrate is another application’s: ${why}`,
  remedy: 'graphile-migrate knows no other name for it: give one of the two applications a database of its own.',
});
