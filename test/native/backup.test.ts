/** Backup and restore, by the commands of docs/keeping.md: what was dumped is there again, and the pipeline goes on with it. */
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { promisify } from 'node:util';
import { fleettickets } from '../support/command.ts';
import { asPerson, type Environment, native, startEnvironment } from '../support/environment.ts';
import { postgresPrograms } from '../support/native.ts';
import { first, second } from '../support/operations.ts';
import { PREFIX } from '../support/pipeline.ts';

const MAX_OUTPUT = 64 * 1024 * 1024;
const suffix = randomBytes(4).toString('hex');
const owner = `backup_owner_${suffix}`;
const WORKER_SCHEMA = 'backed_up_jobs';

let env: Environment;
const databases: string[] = [];

function urlOf(database: string, role?: string): string {
  const url = new URL(env.databaseUrl);
  url.pathname = `/${database}`;
  if (role) url.username = role;
  return url.href;
}

async function makeDatabase(setUp = ''): Promise<string> {
  const name = `backup_${suffix}_${databases.length}`;
  databases.push(name);
  await env.pool.query(`create database ${name}`);
  if (setUp) await ask(name, setUp.replaceAll('%I', name));
  return name;
}

const ask = async (database: string, sql: string) =>
  asPerson(urlOf(database), async (client) => (await client.query(sql)).rows);

/** What the DBA prepares: PostGIS in a schema of its own, and the right to make schemas. */
const PREPARED = `create schema gis; create extension postgis schema gis; grant usage on schema gis to public; grant create on database %I to ${owner}`;

const settings = (database: string) => ({ DATABASE_URL: urlOf(database, owner), WORKER_SCHEMA });

async function command(database: string, ...args: string[]): Promise<void> {
  const { status, out, err } = await fleettickets(settings(database), ...args);
  assert.equal(status, 0, out + err);
}

/**
 * A database in use: a file is loaded, the next one is in flight, some of its jobs with a worker that is no more; a ticket is
 * assigned, a place was decided by a person.
 */
async function databaseInUse(): Promise<string> {
  const name = await makeDatabase(PREPARED);
  await command(name, 'migrate');
  await env.putObject(PREFIX + first.name, first.csv);
  await ask(name, 'select * from tickets_ops.fetch_now()');
  await command(name, 'worker', '--once');
  await ask(
    name,
    `insert into tickets.geo_clusters (cluster, geom) select cluster, gis.st_setsrid(gis.st_makepoint(36.78, -1.29), 4326) from tickets.inc where is_actionable and cluster is not null limit 1;
     select tickets_ops.take_ticket(ticket_id, 'KDA 123A', null, null, false) from tickets.inc where is_actionable limit 1;
     create function public.break_it() returns trigger language plpgsql as $$ begin raise exception 'The disk is on fire' using errcode = 'XX000'; end $$;
     create trigger break_it before insert or update on tickets.inc for each row execute function public.break_it()`,
  );
  await env.putObject(PREFIX + second.name, second.csv);
  await ask(name, 'select * from tickets_ops.fetch_now()');
  assert.equal((await fleettickets(settings(name), 'worker', '--once')).status, 1);
  await ask(
    name,
    `drop function public.break_it() cascade;
     insert into tickets_ops.workers (pool_id, host, pid, sessions) values ('pool-gone', 'gone', 1, 'sessions');
     update ${WORKER_SCHEMA}._private_jobs set locked_by = 'pool-gone', locked_at = now() where key like 'upsert_batch%'`,
  );
  return name;
}

/** Runs the commands of a block of docs/keeping.md. */
async function carryOut(
  block: string,
  from: string,
  to: string,
  role: string | undefined,
  folder: string,
): Promise<void> {
  const page = await readFile(new URL('../../docs/keeping.md', import.meta.url), 'utf8');
  const commands = new RegExp(`^\`\`\`sh ${block}\n([\\s\\S]*?)^\`\`\``, 'm').exec(page)?.[1];
  assert.ok(commands, `docs/keeping.md has a block ${block}`);
  const urls = { DATABASE_URL: urlOf(from, role), NEW_URL: urlOf(to, role), WORKER_SCHEMA };
  await promisify(execFile)('sh', ['-e', '-c', commands.replaceAll('/tmp/', `${folder}/`)], {
    env: { ...process.env, ...urls, PATH: `${await postgresPrograms()}:${process.env.PATH}` },
  });
}

/** All that a database holds, by table; and what is defined in our schemas, with its owner, grants, comments and pinned path. */
async function contents(database: string): Promise<Record<string, unknown>> {
  const tables = await ask(
    database,
    `select c.oid::regclass::text as name from pg_class c
     where c.relkind in ('r', 'p') and c.relnamespace::regnamespace::text in ('tickets', 'tickets_ops', 'reporting', 'graphile_migrate', '${WORKER_SCHEMA}')
     order by 1`,
  );
  const held: Record<string, unknown> = {};
  for (const { name } of tables)
    [held[name]] = await ask(
      database,
      `select count(*)::int as rows, md5(coalesce(string_agg(t::text, e'\\n' order by t::text collate "C"), '')) from ${name} t`,
    );
  const ours = ['tickets*', 'reporting', 'graphile_migrate', WORKER_SCHEMA].map((schema) => `--schema=${schema}`);
  const dump = [`${await postgresPrograms()}/pg_dump`, ['--schema-only', ...ours, urlOf(database)]] as const;
  const { stdout } = await promisify(execFile)(...dump, { maxBuffer: MAX_OUTPUT });
  // Postgres writes an expression that it has read back with fewer brackets.
  const named = /^(ALTER .* OWNER TO|COMMENT|CREATE|GRANT|REVOKE| {4}SET search_path| {4}LANGUAGE) /;
  const definitions = stdout
    .split('\n')
    .filter((line) => named.test(line))
    .sort();
  return { ...held, definitions };
}

describe('a backup', { skip: !native && 'needs a native Postgres' }, () => {
  let folder: string;
  before(async () => {
    env = await startEnvironment();
    folder = await mkdtemp(join(tmpdir(), 'fleettickets-backup-'));
    await env.pool.query(`create role ${owner} login`);
  });
  after(async () => {
    await rm(folder, { recursive: true });
    for (const name of databases) await env.pool.query(`drop database ${name} with (force)`);
    await env.pool.query(`drop role ${owner}`);
    await env.close();
  });

  for (const [what, blocks, prepare, role] of [
    ['of the whole database', ['backup', 'restore'], '', undefined],
    ['of our schemas, by the role that owns them', ['backup-ours', 'restore-ours'], PREPARED, owner],
  ] as const) {
    test(`${what} is restored into an empty one, and the pipeline goes on there`, async () => {
      await env.reset();
      const old = await databaseInUse();
      const restored = await makeDatabase(prepare);
      for (const block of blocks) await carryOut(block, old, restored, role, folder);
      assert.deepEqual(await contents(restored), await contents(old));
      if (prepare === '') await ask(restored, `grant create on database ${restored} to ${owner}`); // a right on the database itself

      await command(restored, 'migrate');
      await ask(
        restored,
        `update tickets_ops.workers set seen_at = now() - interval '1 hour';
         update ${WORKER_SCHEMA}._private_jobs set run_at = now()`,
      );
      await command(restored, 'worker', '--once');
      assert.deepEqual(await ask(restored, 'select status from tickets_ops.snapshots order by snapshot_id'), [
        { status: 'done' },
        { status: 'done' },
      ]);
      const [{ tickets, geog, vehicle }] = (await ask(
        restored,
        `select count(*)::int as tickets, count(geog)::int > 0 as geog, (select min(vehicle_id) from tickets.assignments) as vehicle from tickets.inc`,
      )) as [Record<string, unknown>];
      assert.ok(Number(tickets) > 60);
      assert.deepEqual([geog, vehicle], [true, 'KDA 123A']);
      await asPerson(urlOf(restored), async (client) => {
        await client.query('set role tickets_reader');
        const { rows } = await client.query(
          `select jsonb_array_length(reporting.fn_tickets_for_map() -> 'features') > 0 as drawn`,
        );
        assert.deepEqual(rows, [{ drawn: true }]);
      });
    });
  }
});
