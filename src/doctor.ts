/**
 * The doctor: looks at everything that the pipeline needs, from outside, and names a remedy for what is wrong.
 * It leaves nothing behind: the object that it moves through the bucket to try the rights is no CSV, and is deleted.
 * It asks the provider one question, at a slot of the shared rate where a worker has declared one.
 */
import { randomBytes } from 'node:crypto';
import { DeleteObjectCommand, PutObjectCommand } from '@aws-sdk/client-s3';
import type pg from 'pg';
import { archiveObject, type Bucket, listFolder, openBucket } from './bucket.ts';
import { candidates } from './choose.ts';
import { connect } from './database.ts';
import { dataset } from './dataset.ts';
import { call } from './geocode/call.ts';
import { type Geocoder, GeocoderSettings, geocoderFrom } from './geocode/settings.ts';
import { callAtSlot } from './geocode/slot.ts';
import { readHealth } from './health.ts';
import { sharesSessions } from './lifeline.ts';
import { missingForFirstMigration } from './rights.ts';
import { FORMER_REMEDY, pending } from './schema.ts';
import { hideSecrets } from './secrets.ts';
import { BucketSettings, DatabaseSettings, RetentionSettings, readSettings, WorkerSettings } from './settings.ts';

export interface Finding {
  readonly check: string;
  readonly state: 'ok' | 'warning' | 'failed' | 'skipped';
  readonly detail: string;
  /** What to do; for a warning and a failure. */
  readonly remedy?: string;
}

type Verdict = Omit<Finding, 'check'>;

const ok = (detail: string): Verdict => ({ state: 'ok', detail });
const skipped = (detail: string): Verdict => ({ state: 'skipped', detail });
const failed = (detail: string, remedy: string): Verdict => ({ state: 'failed', detail, remedy });
const warning = (detail: string, remedy: string): Verdict => ({ state: 'warning', detail, remedy });

/** Runs every check; yields each finding as it is made. Throws for none of them. */
export async function* examine(): AsyncGenerator<Finding> {
  yield await check('settings', settings);
  const database = await open();
  yield {
    check: 'database',
    ...(await attempt(() => (database instanceof Error ? refused(database) : server(database)))),
  };
  const inDatabase: [string, (client: pg.Client) => Promise<Verdict>][] = [
    ['sessions', sessions],
    ['postgis', postgis],
    ['schema', schema],
    ['rights', rights],
    ['search path', searchPath],
    ['roles', roles],
    ['clock', clock],
    ['schedule', schedule],
  ];
  for (const [name, look] of inDatabase) {
    yield await check(name, async () => (database instanceof Error ? skipped('needs the database') : look(database)));
  }
  yield* examineBucket();
  yield await check('provider', () => provider(database instanceof Error ? undefined : database));
  if (!(database instanceof Error)) await database.end();
}

const check = async (name: string, look: () => Promise<Verdict> | Verdict): Promise<Finding> => ({
  check: name,
  ...(await attempt(look)),
});

async function attempt(look: () => Promise<Verdict> | Verdict): Promise<Verdict> {
  try {
    return await look();
  } catch (error) {
    return failed(
      hideSecrets((error as Error).message),
      'the message above says what was tried; the other checks may say why',
    );
  }
}

function settings(): Verdict {
  for (const group of [DatabaseSettings, BucketSettings, WorkerSettings, GeocoderSettings, RetentionSettings])
    readSettings(group);
  return ok('complete and valid');
}

async function open(): Promise<pg.Client | Error> {
  try {
    const client = await connect(readSettings(DatabaseSettings).DATABASE_URL);
    client.on('error', () => undefined); // the query that is under way fails with it
    return client;
  } catch (error) {
    return error as Error;
  }
}

const refused = (error: Error) =>
  failed(hideSecrets(error.message), 'check DATABASE_URL, and that Postgres runs and lets this host in');

async function server(client: pg.Client): Promise<Verdict> {
  const { rows } = await client.query<{ version: string; number: number; encoding: string }>(
    `select current_setting('server_version') as version, current_setting('server_version_num')::integer as number,
       current_setting('server_encoding') as encoding`,
  );
  const [found] = rows as [(typeof rows)[number]];
  if (found.encoding !== 'UTF8')
    return failed(`its encoding is ${found.encoding}`, 'create the database with encoding UTF8: place names need it');
  if (found.number < 150_000) return failed(`Postgres ${found.version}`, 'use Postgres 15 or newer');
  return ok(`Postgres ${found.version}`);
}

async function sessions(client: pg.Client): Promise<Verdict> {
  const { rows } = await client.query<{ pid: number }>('select pg_backend_pid() as pid');
  if (!(await sharesSessions(client, rows[0]?.pid ?? 0, readSettings(DatabaseSettings).DATABASE_URL)))
    return ok('every connection has one of its own');
  return warning(
    'connections share sessions: the jobs of a worker that dies are free again only after 4 hours',
    'connect to Postgres directly, or through a pooler in session mode',
  );
}

async function postgis(client: pg.Client): Promise<Verdict> {
  const { rows } = await client.query<{ version: string; enough: boolean }>(
    `select extversion as version, string_to_array(regexp_replace(extversion, '[^0-9.].*', ''), '.')::integer[] >= array[3, 3] as enough
     from pg_extension where extname = 'postgis'`,
  );
  if (!rows[0]) return failed('it is not installed in this database', 'let the DBA run: create extension postgis');
  if (!rows[0].enough)
    return failed(`PostGIS ${rows[0].version}`, 'use PostGIS 3.3 or newer: alter extension postgis update');
  return ok(`PostGIS ${rows[0].version}`);
}

async function schema(client: pg.Client): Promise<Verdict> {
  const left = await pending(client);
  if (left.length === 0) return ok('current');
  const names = left.map(({ migration, state }) => `${migration} is ${state}`).join(', ');
  if (left.some(({ state }) => state === 'former'))
    return failed('it was made by a version from before the release, which cannot be upgraded', FORMER_REMEDY);
  if (left.some(({ state }) => state === 'changed')) {
    return failed(names, 'a committed migration was changed after it was applied: restore its file from git');
  }
  return failed(names, 'fleettickets migrate');
}

async function rights(client: pg.Client): Promise<Verdict> {
  const { rows } = await client.query<{ me: string; owner: string; mine: boolean; table: string }>(
    `select current_user as me, pg_get_userbyid(relowner) as owner, pg_has_role(relowner, 'usage') as mine, relname as table
     from pg_class
     where (relname = '_private_jobs' and relnamespace = to_regnamespace('graphile_worker'))
       or (relname = 'snapshots' and relnamespace = to_regnamespace('tickets_ops'))`,
  );
  const foreign = rows.find(({ mine }) => !mine);
  if (foreign) {
    return failed(
      `the tables belong to ${foreign.owner}, not to ${foreign.me}`,
      `connect as ${foreign.owner}, or let the DBA run: grant ${foreign.owner} to ${foreign.me}`,
    );
  }
  // graphile-worker's own schema is there even after a first migration that failed.
  const ours = rows.find(({ table }) => table === 'snapshots');
  return ours ? ok(`${ours.me} owns the tables`) : firstRights(client);
}

/** Before the first migration. */
async function firstRights(client: pg.Client): Promise<Verdict> {
  const missing = await missingForFirstMigration(client);
  const { rows } = await client.query<{ me: string }>('select current_user as me');
  const me = rows[0]?.me;
  if (missing.length === 0) return ok(`${me} may migrate`);
  return failed(
    missing.map(({ what }) => `${me} ${what}`).join('\n'),
    `let the DBA run:\n${missing.map(({ remedy }) => remedy).join('\n')}`,
  );
}

/** Names are looked up there as well: whoever may create in it can put a function of his own in the place of another. */
async function searchPath(client: pg.Client): Promise<Verdict> {
  const { rows } = await client.query<{ schema: string }>(
    `select quote_ident(n.nspname) as schema from pg_namespace n
     where n.nspname = any (current_schemas(false))
       and exists (select from aclexplode(n.nspacl) a where a.grantee = 0 and a.privilege_type = 'CREATE')`,
  );
  if (rows.length === 0) return ok('nobody else can put anything where functions are looked up');
  const schemas = rows.map(({ schema: name }) => name).join(', ');
  return warning(
    `everybody may create functions in ${schemas}, and the worker could be made to call them`,
    `let the DBA run: revoke create on schema ${schemas} from public`,
  );
}

async function roles(client: pg.Client): Promise<Verdict> {
  const { rows } = await client.query<{ name: string }>(
    `select name from unnest(array['tickets_reader', 'tickets_operator']) as name
     where not exists (select from pg_roles where rolname = name)`,
  );
  if (rows.length === 0) return ok('tickets_reader and tickets_operator are there');
  const missing = rows.map(({ name }) => name);
  const create = missing.map((name) => `create role ${name}`).join('; ');
  return warning(`${missing.join(' and ')} missing`, `let the DBA run: ${create}; then run: fleettickets migrate`);
}

/** Seconds that the clocks may differ: names of files are compared with the database's time, to a day. */
const CLOCK_TOLERANCE = 60;

async function clock(client: pg.Client): Promise<Verdict> {
  const asked = Date.now();
  const { rows } = await client.query<{ now: Date }>('select clock_timestamp() as now');
  const off = Math.round(((rows[0]?.now.getTime() ?? 0) - (asked + Date.now()) / 2) / 1_000);
  if (Math.abs(off) <= CLOCK_TOLERANCE) return ok(`within ${Math.abs(off) + 1} s of the database's`);
  return warning(
    `the database's is ${Math.abs(off)} s ${off > 0 ? 'ahead of' : 'behind'} this host's`,
    'keep both by NTP: S3 refuses requests that are 15 minutes off',
  );
}

async function schedule(client: pg.Client): Promise<Verdict> {
  if ((await pending(client)).length > 0) return skipped('needs the schema');
  const health = await readHealth(client);
  const next = `the next run is ${health.next_run_at}`;
  if (health.missed_run_at)
    return warning(
      `the run of ${health.missed_run_at} was missed; ${next}`,
      'start a worker, or see why its fetch_snapshot fails: fleettickets status',
    );
  if (health.workers_alive === 0) return warning(`no worker is alive; ${next}`, 'start one: fleettickets worker');
  return ok(`${health.workers_alive} alive to keep it; ${next}`);
}

async function* examineBucket(): AsyncGenerator<Finding> {
  let bucket: Bucket;
  let folder: string;
  try {
    bucket = openBucket(readSettings(BucketSettings));
    folder = dataset('inc').prefix;
  } catch {
    yield { check: 'bucket', ...skipped('needs its settings') };
    return;
  }
  const listed = await check('bucket', async () => {
    const found = await listFolder(bucket, folder);
    return ok(`${candidates(found).length} snapshots in ${bucket.name}/${folder}`);
  });
  yield listed.remedy ? { ...listed, remedy: 'check RUSTFS_ENDPOINT, RUSTFS_BUCKET and the keys' } : listed;
  yield listed.state === 'ok'
    ? withRemedy(await check('bucket rights', () => moveAnObject(bucket, folder)))
    : { check: 'bucket rights', ...skipped('needs the bucket') };
  bucket.client.destroy();
}

const withRemedy = (finding: Finding): Finding =>
  finding.state === 'failed'
    ? { ...finding, remedy: 'give the key the rights to read, write, copy and delete under RUSTFS_PREFIX' }
    : finding;

/** What archiving does, with an object of the doctor's own that no run takes for a snapshot. */
async function moveAnObject(bucket: Bucket, folder: string): Promise<Verdict> {
  const name = `fleettickets-doctor-${randomBytes(4).toString('hex')}.txt`;
  const remove = (Key: string) => bucket.client.send(new DeleteObjectCommand({ Bucket: bucket.name, Key }));
  try {
    const put = await bucket.client.send(
      new PutObjectCommand({ Bucket: bucket.name, Key: folder + name, Body: 'fleettickets doctor\n' }),
    );
    await archiveObject(bucket, folder + name, (put.ETag ?? '').replaceAll('"', ''));
  } finally {
    await Promise.allSettled([remove(folder + name), remove(`${folder}processed/${name}`)]); // the first error says why
  }
  return ok('read, write, copy and delete');
}

async function provider(client: pg.Client | undefined): Promise<Verdict> {
  const geocoder = geocoderFrom(readSettings(GeocoderSettings));
  if ('off' in geocoder) return skipped(geocoder.off);
  const asked = await ask(geocoder, client);
  if (!asked.outcome)
    return warning(`${geocoder.provider.name} is not asked now: ${asked.reason}`, 'wait, or see tickets_ops.geocoding');
  const { outcome } = asked;
  if (outcome.kind === 'found' || outcome.kind === 'not_found') return ok(`${geocoder.provider.name} answers`);
  const remedy =
    outcome.kind === 'key_refused'
      ? 'check GEOCODER_API_KEY'
      : 'check GEOCODER_BASE_URL and the account; the pipeline waits and tries again by itself';
  return failed(hideSecrets(outcome.reason), remedy);
}

async function ask(geocoder: Geocoder, client: pg.Client | undefined) {
  const question = { text: 'Nairobi', near: null };
  const declared = await client
    ?.query('select from tickets_ops.geocoding_providers where provider = $1', [geocoder.provider.name])
    .catch(() => undefined); // no schema yet: then nobody else calls either
  if (client && declared?.rowCount) return callAtSlot(client, geocoder, question);
  return { outcome: await call(geocoder, question), reason: '' };
}
