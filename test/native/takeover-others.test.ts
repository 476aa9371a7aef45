/**
 * Taking over an old system that somebody else wrote from the old README (test/fixtures/takeover), in a database of many:
 * everything is compared before and after, from outside, as each role sees it.
 */
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import type pg from 'pg';
import { pino } from 'pino';
import { migrate } from '../../src/database/schema.ts';
import { asPerson, native } from '../support/environment.ts';
import { postgresPrograms } from '../support/native.ts';

const server = process.env.TEST_DATABASE_URL ?? '';
const silent = pino({ level: 'silent' });
const suffix = randomBytes(4).toString('hex');
const NAMES = ['owner', 'dashboard_ro', 'dashboard_api', 'bi', 'dispatcher', 'tickets_loader'] as const;
type Name = (typeof NAMES)[number];
const roleOf = (name: Name) => `${name}_${suffix}`;
const databases: string[] = [];

function url(database: string, role?: Name): string {
  const at = Object.assign(new URL(server), { pathname: `/${database}` });
  return (role ? Object.assign(at, { username: roleOf(role), password: 'a-password' }) : at).href;
}

const ask = async (database: string, sql: string, role?: Name): Promise<unknown[]> =>
  asPerson(url(database, role), async (client) => (await client.query({ text: sql, rowMode: 'array' })).rows);

/** What a role sees, or why it sees nothing. */
const seenBy = (database: string, sql: string, role: Name) =>
  ask(database, sql, role).catch((error: pg.DatabaseError) => error.message.replace(/ for (table|view) \w+$/, ''));

const fixture = async (name: string) =>
  (await readFile(new URL(`../fixtures/takeover/${name}`, import.meta.url), 'utf8'))
    .replaceAll('OWNER;', `${roleOf('owner')};`)
    .replaceAll(/\b(dashboard_ro|dashboard_api|dispatcher|tickets_loader)\b/g, (name) => roleOf(name as Name))
    .replaceAll(/(AUTHORIZATION|ROLE|TO|,) bi\b/g, `$1 ${roleOf('bi')}`);

/** Three towns; a name that stands in two of them; what a person verified, with its cluster. */
const DATA = `
  insert into tickets.geo_clusters (name, geom, provider, verified)
  select name, st_setsrid(st_makepoint(lng, lat), 4326), 'locationiq', name = 'Kilimani'
  from (values ('Kilimani', 36.7866, -1.2921), ('Nakuru Town', 36.0695, -0.2833), ('Nyali', 39.7141, -4.0353)) as c (name, lng, lat);
  insert into tickets.geo_locations (location_name, cluster, geom, provider, verified, note)
  select name, cluster, st_setsrid(st_makepoint(lng, lat), 4326), 'locationiq', verified, note
  from (values
    ('NW_Milimani_FDT3', 'Nakuru Town', 36.0712, -0.2801, true, 'seen on site'), ('NW_Yaya Centre_FDT9', 'Kilimani', 36.7883, -1.2929, true, null),
    ('Cinemax Court', 'Nyali', 39.7155, -4.0301, false, null), ('Nobody Asks Here', 'Nyali', 39.7160, -4.0310, true, null)
  ) as l (name, cluster, lng, lat, verified, note);
  insert into tickets.inc (ticket_id, raw)
  select 'WOT' || (700000 + i), jsonb_build_object(
    'ticket_id', 'WOT' || (700000 + i), 'normalized_status', case when i % 4 = 0 then 'Open' else 'Closed' end,
    'bucket', case when i % 4 = 0 then 'pending' else 'closed' end, 'is_actionable', (i % 4 = 0)::text,
    'cluster', (array['Kilimani', 'Nakuru Town', 'Nyali'])[i % 3 + 1], 'region', 'nairobi', 'assigned_team', 'Team ' || i % 5,
    'location_name', (array['NW_Milimani_FDT3', 'NW_Yaya Centre_FDT9', 'Cinemax Court', ''])[i % 4 + 1], 'mttr', case when i % 4 > 0 then '2.5' else '' end,
    'created_at_service', '2026-06-13 17:00:00', 'closed_at', case when i % 4 > 0 then '2026-06-14 09:30:00' else '' end)
  from generate_series(1, 2400) as i;
  insert into tickets.import_meta values ('inc', '{"source_etag": "abc", "source_key": "automations/inc/2026-06-15T17-00-00.csv", "ingested_at": "2026-06-15 17:15:00"}');`;

async function oldDatabase(change?: string): Promise<string> {
  const name = `takeover_others_${suffix}_${databases.length}`;
  databases.push(name);
  await ask('postgres', `create database ${name}`);
  await asPerson(url(name), async (client) => {
    await client.query(
      `create extension postgis schema public; grant create on database ${name} to ${roleOf('owner')}`,
    );
    await client.query(`set role ${roleOf('owner')}; ${await fixture('old-system.sql')}; ${DATA}; reset role`);
    await client.query(await fixture('others.sql'));
    await client.query(`grant ${roleOf('bi')} to ${roleOf('owner')}`); // as the doctor says, for the migration
    await client.query(`refresh materialized view analytics.mv_backlog`);
    if (change) await client.query(change);
  });
  return name;
}

async function takeOver(database: string, keepOldMap: boolean): Promise<void> {
  if (keepOldMap) process.env.MIGRATE_KEEP_OLD_MAP = '1';
  try {
    await migrate(url(database, 'owner'), silent);
  } finally {
    delete process.env.MIGRATE_KEEP_OLD_MAP;
  }
}

const VIEWS = [
  'select ticket_id, raw, st_astext(geom), geo_source::text, closed_at, latitude, longitude from tickets.inc order by 1',
  'select ticket_id, cluster, st_astext(geom) from tickets.inc order by 1',
  'select ticket_id from tickets.inc_open_sla order by 1',
  'select dataset from tickets.import_meta',
  'select count(*) from tickets.geo_locations where verified',
  'select assignment_id, ticket_id, plate, hours_open > 0 from dispatch.v_open_assignments order by 1',
  'select ticket_id, cluster, geo_source::text from reporting.v_tickets_recent order by 1',
  'select * from analytics.v_closures_weekly order by 1',
  'select cluster, sum(n) from analytics.mv_backlog group by 1 order by 1',
  'select * from analytics.v_backlog_top order by 1',
  `select jsonb_agg(f order by f::text) from jsonb_array_elements(reporting.fn_tickets_for_map() -> 'features') f`,
  `select reporting.fn_tickets_for_map('all', 'Nyali', null, false) #> '{summary,by_status}'`,
  `select count(*) from dispatch.open_of_team('Team 1')`,
  `select dispatch.age_of('WOT700004') > interval '1 day'`,
];

describe('an old system of somebody else, in a database of many', {
  skip: !native && 'needs a native Postgres',
}, () => {
  before(() =>
    asPerson(server, async (client) => {
      for (const name of NAMES) await client.query(`create role ${roleOf(name)} login password 'a-password'`);
    }),
  );
  after(() =>
    asPerson(server, async (client) => {
      for (const name of databases) await client.query(`drop database if exists ${name} with (force)`);
      for (const name of NAMES) await client.query(`drop role ${roleOf(name)}`);
    }),
  );

  test('its map function has other words: the migration stops with the list and the choice, and changes nothing', async () => {
    const database = await oldDatabase();
    const before = await ask(database, VIEWS[0] as string);
    await assert.rejects(takeOver(database, false), (error: Error) => {
      assert.match(error.message, /fn_tickets_for_map has no longer: .*parameter p_dataset.*property precision/);
      assert.match(error.message, /MIGRATE_KEEP_OLD_MAP=1/);
      assert.doesNotMatch(error.message, /drop/i);
      return true;
    });
    assert.deepEqual(await ask(database, VIEWS[0] as string), before);
  });

  test('with the old map kept, every role sees what it saw, row by row', async () => {
    const database = await oldDatabase();
    const roles = NAMES.filter((name) => name !== 'tickets_loader');
    const before = await Promise.all(roles.map((role) => Promise.all(VIEWS.map((sql) => seenBy(database, sql, role)))));
    const verified = await ask(
      database,
      `select cluster, st_astext(geom), note from tickets.geo_locations where verified order by 1, 2`,
    );
    await takeOver(database, true);
    for (const [n, role] of roles.entries())
      for (const [v, sql] of VIEWS.entries())
        assert.deepEqual(await seenBy(database, sql, role), before[n]?.[v], `${role}: ${sql}`);

    assert.deepEqual(
      await ask(
        database,
        `select cluster, st_astext(geom), note from tickets.geo_locations where verified order by 1, 2`,
      ),
      verified,
      'each in the cluster in which it was checked, and in no other',
    );
    assert.deepEqual(
      await ask(
        database,
        `select obj_description('analytics.mv_backlog'::regclass), pg_get_userbyid(relowner) from pg_class where oid = 'analytics.mv_backlog'::regclass`,
      ),
      [['refreshed hourly', roleOf('bi')]],
    );
    await assert.rejects(
      ask(database, `delete from tickets.inc where ticket_id = 'WOT700004'`, 'owner'),
      /foreign key|taken over/,
    );
    assert.equal((await ask(database, `select from reporting.fn_tickets_for_map_v2()`)).length, 1);
    assert.deepEqual(
      await ask(
        database,
        `select has_function_privilege(r, p.oid, 'execute') from pg_proc p, unnest(array['public', '${roleOf('tickets_loader')}']) r
         where p.proname = 'fn_tickets_for_map_v2'`,
      ),
      [[false], [false]],
    );
  });

  test('the old loader is refused, by right and by trigger; a person who says so is not, and the next load knows his row', async () => {
    const database = await oldDatabase();
    await takeOver(database, true);
    const write = `insert into tickets.inc (ticket_id, raw) values ('WOT1', '{"cluster": "Nyali"}') on conflict (ticket_id) do update set raw = excluded.raw`;
    await assert.rejects(ask(database, write, 'tickets_loader'), /permission denied for table inc/);
    await assert.rejects(ask(database, write, 'owner'), /fleettickets has taken over tickets\.inc/);
    await assert.rejects(
      ask(database, 'truncate tickets.import_meta', 'owner'),
      /fleettickets has taken over tickets\.import_meta/,
    );
    assert.match(
      JSON.stringify(
        await ask(database, `select name, note from tickets_takeover.notes where about like 'rights to write%'`),
      ),
      new RegExp(`grant insert on tickets.inc to ${roleOf('tickets_loader')};`),
    );
    await ask(database, `set tickets_ops.client = 'amina'; ${write}`, 'owner');
    assert.deepEqual(await ask(database, `select tickets_ops.record_baselines('inc', null, now())::int`), [[1]]);
    assert.deepEqual(await ask(database, `select event from tickets.inc_events where ticket_id = 'WOT1'`), [
      ['baseline'],
    ]);
    // What a curator decides moves tickets all the same.
    await ask(
      database,
      `update tickets.geo_clusters set geom = st_setsrid(st_makepoint(39.72, -4.04), 4326) where cluster = 'Nyali'`,
      'owner',
    );
    assert.deepEqual(await ask(database, `select st_x(geom) from tickets.inc where ticket_id = 'WOT1'`), [[39.72]]);
  });

  test('the clean-up names what people made in the old schema, and goes once it is given up', async () => {
    const database = await oldDatabase(
      `set role ${roleOf('owner')}; create table tickets.holidays (day date); create table tickets.remarks (ticket_id text references tickets.inc, remark text); insert into tickets.holidays values ('2026-12-12'); alter table tickets.inc add remark text`,
    );
    await takeOver(database, true);
    const cleanUp = (...names: string[]) =>
      ask(database, `select tickets_takeover.clean_up(${names.map((name) => `'${name}'`).join(', ')})`, 'owner');
    const refusal = await cleanUp().then(
      () => assert.fail('nothing was refused'),
      (error: Error) => error.message,
    );
    assert.match(refusal, /table tickets_legacy\.remarks/);
    assert.match(refusal, /column tickets_legacy\.inc\.remark/);
    const names = (await ask(database, 'select name from tickets_takeover.left_behind')).map(
      (row) => (row as string[])[0] ?? '',
    );
    await cleanUp(...names);
    assert.deepEqual(
      await ask(database, `select nspname from pg_namespace where nspname in ('tickets_legacy', 'tickets_takeover')`),
      [],
    );
    await ask(database, `update tickets.inc set ingested_at = now() where ticket_id = 'WOT700001'`, 'owner'); // the fence went with them
  });

  test('the way back brings the old map function back too, and a second time it says so', async () => {
    const database = await oldDatabase();
    const before = await Promise.all(VIEWS.map((sql) => seenBy(database, sql, 'dashboard_ro')));
    await takeOver(database, true);
    await ask(database, 'select tickets_takeover.go_back()', 'owner');
    assert.deepEqual(await Promise.all(VIEWS.map((sql) => seenBy(database, sql, 'dashboard_ro'))), before);
    await assert.rejects(
      ask(database, 'select tickets_takeover.go_back()', 'owner'),
      /no schema tickets_legacy to go back to/,
    );
  });

  test('the rehearsal of docs/taking-over.md runs on a copy, as a role that is no superuser', async () => {
    const database = await oldDatabase();
    const copy = `takeover_others_${suffix}_${databases.length}`;
    databases.push(copy);
    await ask('postgres', `create database ${copy} owner ${roleOf('owner')}`);
    await ask(copy, 'create extension postgis schema public');
    const page = await readFile(new URL('../../docs/taking-over.md', import.meta.url), 'utf8');
    const commands = /^ *```sh rehearsal\n([\s\S]*?)^ *```/m.exec(page)?.[1];
    assert.ok(commands);
    const folder = await mkdtemp(join(tmpdir(), 'fleettickets-rehearsal-'));
    try {
      const cli = fileURLToPath(new URL('../../src/cli.ts', import.meta.url));
      await writeFile(join(folder, 'fleettickets'), `#!/bin/sh\nexec ${process.execPath} ${cli} "$@"\n`, {
        mode: 0o755,
      });
      const env = {
        ...process.env,
        PATH: `${folder}:${await postgresPrograms()}:${process.env.PATH}`,
        DATABASE_URL: url(database, 'owner'),
        COPY_URL: url(copy, 'owner'),
        MIGRATE_KEEP_OLD_MAP: '1',
      };
      const { stdout } = await promisify(execFile)('sh', ['-e', '-c', commands.replaceAll('/tmp/', `${folder}/`)], {
        env,
      });
      assert.match(stdout, /the Python version was taken over/);
      assert.match(stdout, /left in tickets_legacy/);
    } finally {
      await rm(folder, { recursive: true });
    }
    assert.deepEqual(await ask(copy, 'select count(*)::int from tickets.inc'), [[2400]]);
    assert.deepEqual(await ask(database, `select to_regnamespace('tickets_legacy')`), [[null]]);
  });
});
