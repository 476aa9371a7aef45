/** The doctor's checks of the database: server, sessions, PostGIS, schema, rights, roles, clock, schedule, feed, vehicles. */
import type pg from 'pg';
import { FORMER_REMEDY, pending } from '../../database/committed.ts';
import { isEmbedded } from '../../database/pooler.ts';
import { obstacles } from '../../database/preflight.ts';
import { ROLES } from '../../database/roles.ts';
import { newerServer, OLDEST_POSTGIS, readServer, serverObstacle } from '../../database/server.ts';
import { JobSchemaSettings, readSettings } from '../../settings/settings.ts';
import { missingForFirstMigration } from '../../takeover/rights.ts';
import { readDatasets, readHealth } from '../health.ts';
import { failed, ok, skipped, type Verdict, warning } from './finding.ts';
import { otherApplications, othersRights } from './others.ts';
import { vehicles } from './vehicles.ts';

/** Each looks at one thing, in this order. */
export const DATABASE_CHECKS: readonly (readonly [name: string, look: (client: pg.Client) => Promise<Verdict>])[] = [
  ['sessions', sessions],
  ['postgis', postgis],
  ['other applications', otherApplications],
  ['schema', schema],
  ['rights', rights],
  ['search path', othersRights],
  ['roles', roles],
  ['clock', clock],
  ['schedule', schedule],
  ['feed', feed],
  ['vehicles', vehicles],
];

export async function server(client: pg.Client): Promise<Verdict> {
  const found = await readServer(client);
  const obstacle = serverObstacle(found);
  if (obstacle) return failed(obstacle.what, obstacle.remedy);
  const newer = newerServer(found);
  return newer ? warning(newer.what, newer.remedy) : ok(`Postgres ${found.version}`);
}

async function sessions(client: pg.Client): Promise<Verdict> {
  if (!(await isEmbedded(client))) return ok('every connection has one of its own'); // connect() refuses another
  return warning(
    'the connections of the embedded database share one: the jobs of a worker that dies are free again only after 4 hours',
    'use a Postgres server for more than trying out',
  );
}

async function postgis(client: pg.Client): Promise<Verdict> {
  const { rows } = await client.query<{ version: string; enough: boolean }>(
    `select extversion as version, string_to_array(regexp_replace(extversion, '[^0-9.].*', ''), '.')::integer[] >= string_to_array($1, '.')::integer[] as enough
     from pg_extension where extname = 'postgis'`,
    [OLDEST_POSTGIS],
  );
  if (!rows[0]) return failed('it is not installed in this database', 'let the DBA run: create extension postgis');
  if (!rows[0].enough)
    return failed(
      `PostGIS ${rows[0].version}`,
      `use PostGIS ${OLDEST_POSTGIS} or newer: alter extension postgis update`,
    );
  return ok(`PostGIS ${rows[0].version}`);
}

async function schema(client: pg.Client): Promise<Verdict> {
  if ((await obstacles(client, readSettings(JobSchemaSettings))).length > 0)
    return skipped('see above: this database is not ours to migrate');
  const left = await pending(client);
  if (left.length === 0) return ok('current');
  const names = left.map(({ migration, state }) => `${migration} is ${state}`).join(', ');
  if (left.some(({ state }) => state === 'former'))
    return failed('it was made by a version from before the release, and cannot be upgraded', FORMER_REMEDY);
  if (left.some(({ state }) => state === 'changed')) {
    return failed(names, 'a committed migration was changed after it was applied: restore its file from git');
  }
  return failed(names, 'fleettickets migrate');
}

async function rights(client: pg.Client): Promise<Verdict> {
  const { rows } = await client.query<{ me: string; owner: string; mine: boolean }>(
    `select quote_ident(current_user) as me, quote_ident(pg_get_userbyid(relowner)) as owner, pg_has_role(relowner, 'usage') as mine
     from pg_class where relname = 'snapshots' and relnamespace = to_regnamespace('tickets_ops')`,
  );
  const [ours] = rows;
  if (!ours) return firstRights(client);
  if (ours.mine) return ok(`${ours.me} owns the tables`);
  return failed(
    `the tables belong to ${ours.owner}, not to ${ours.me}`,
    `connect as ${ours.owner}, or let the DBA run: grant ${ours.owner} to ${ours.me}`,
  );
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

async function roles(client: pg.Client): Promise<Verdict> {
  const { rows } = await client.query<{ name: string }>(
    `select name from unnest($1::text[]) as name where not exists (select from pg_roles where rolname = name)`,
    [ROLES],
  );
  if (rows.length === 0) return ok(`${ROLES.join(', ')} are there`);
  const missing = rows.map(({ name }) => name);
  const create = missing.map((name) => `create role ${name}`).join('; ');
  return warning(`${missing.join(' and ')} missing`, `let the DBA run: ${create}; then run: fleettickets migrate`);
}

/** Seconds that the clocks may differ without a word: well below what makes a file future-dated (bucket/plan.ts), and S3 refuse. */
const CLOCK_WARNING = 60;

async function clock(client: pg.Client): Promise<Verdict> {
  const asked = Date.now();
  const { rows } = await client.query<{ now: Date }>('select clock_timestamp() as now');
  const off = Math.round(((rows[0]?.now.getTime() ?? 0) - (asked + Date.now()) / 2) / 1_000);
  if (Math.abs(off) <= CLOCK_WARNING) return ok(`within ${Math.abs(off) + 1} s of the database's`);
  return warning(
    `the database's is ${Math.abs(off)} s ${off > 0 ? 'ahead of' : 'behind'} this host's`,
    'keep both by NTP: S3 refuses requests that are 15 minutes off',
  );
}

async function schedule(client: pg.Client): Promise<Verdict> {
  if ((await pending(client)).length > 0) return skipped('needs the schema');
  const { workers_alive } = await readHealth(client);
  const datasets = await readDatasets(client);
  const next = datasets
    .map(
      ({ dataset, next_run_at: at }) => `the next run of ${dataset} is ${at ?? 'not known: no worker has started yet'}`,
    )
    .join(', ');
  const missed = datasets.flatMap(({ dataset, missed_run_at: at }) => (at === null ? [] : [`${at} of ${dataset}`]));
  if (missed.length > 0)
    return warning(
      `missed: the run of ${missed.join(', that of ')}; ${next}`,
      'start a worker, or see why its fetch_snapshot fails: fleettickets status',
    );
  if (workers_alive === 0) return warning(`no worker is alive; ${next}`, 'start one: fleettickets worker');
  return ok(`${workers_alive} alive to keep it; ${next}`);
}

/** What health says of the feed, which may stand still although every look at the bucket succeeds. */
async function feed(client: pg.Client): Promise<Verdict> {
  if ((await pending(client)).length > 0) return skipped('needs the schema');
  const { rows } = await client.query<{ problem: string }>(
    `select problem from tickets_ops.list_problems() where subject = 'feed'`,
  );
  if (rows.length === 0) return ok('no sign that it stands still');
  return warning(
    rows.map(({ problem }) => problem).join('\n'),
    'see the export, and the folder that RUSTFS_PREFIX or CRQ_PREFIX names',
  );
}
