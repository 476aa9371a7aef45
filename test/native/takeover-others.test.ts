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
const NAMES = ['owner', 'dashboard_ro', 'dashboard_api', 'bi', 'dispatcher', 'tickets_loader', 'migrator'] as const;
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

async function takeOver(database: string, keepOldMap: boolean, role: Name = 'owner'): Promise<void> {
  if (keepOldMap) process.env.MIGRATE_KEEP_OLD_MAP = '1';
  try {
    await migrate(url(database, role), silent);
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
      // As the DBA does; another file may have migrated as one who may.
      await client.query(
        'do $$ begin create role tickets_reader; exception when duplicate_object or unique_violation then null; end $$',
      );
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

  test('an old map that reads what our tables lack cannot be kept: the reason and another way are told', async () => {
    const database = await oldDatabase(
      `alter table tickets.inc add remark text;
       set role ${roleOf('owner')};
       do $$ begin execute replace(pg_get_functiondef('reporting.fn_tickets_for_map'::regproc), 'SELECT metadata FROM tickets.import_meta', 'SELECT metadata || (select jsonb_build_object($q$remark$q$, max(remark)) from tickets.inc) FROM tickets.import_meta'); end $$`,
    );
    await assert.rejects(takeOver(database, true), (error: Error) => {
      assert.match(error.message, /column "remark" does not exist/);
      assert.match(error.message, /The old function cannot be kept.*Let its owner make it do without/);
      assert.doesNotMatch(error.message, /With MIGRATE_KEEP_OLD_MAP=1/);
      return true;
    });
    assert.deepEqual(await ask(database, 'select count(*)::int from tickets.inc'), [[2400]]);
  });

  test('an old map that reads other columns of import_meta is kept with them: times are those of the last load', async () => {
    const database = await oldDatabase(
      `alter table tickets.import_meta add id bigserial, add imported_at timestamptz default now(), add source_key text;
       set role ${roleOf('owner')};
       do $$ begin execute replace(pg_get_functiondef('reporting.fn_tickets_for_map'::regproc), 'SELECT metadata FROM tickets.import_meta',
         'SELECT metadata || jsonb_build_object($q$at$q$, imported_at, $q$file$q$, source_key, $q$nth$q$, id) FROM tickets.import_meta'); end $$`,
    );
    await takeOver(database, true);
    assert.deepEqual(
      await ask(
        database,
        `select f ->> 'at', f ->> 'file', f ->> 'nth' from (select reporting.fn_tickets_for_map() #> '{summary,freshness}' as f) as map`,
      ),
      [['2026-06-15T14:15:00+00:00', 'automations/inc/2026-06-15T17-00-00.csv', null]],
    );
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
      `set role ${roleOf('owner')}; create table tickets.holidays (day date); insert into tickets.holidays values ('2026-12-12'); alter table tickets.inc add remark text;
       create table tickets.inc_daily (day date); grant all on tickets.inc_daily to ${roleOf('dispatcher')};
       create function tickets.undo_decision(bigint) returns text language sql as 'select null'; grant execute on function tickets.undo_decision(bigint) to ${roleOf('dispatcher')}; create view tickets.inc_backlog as select 1 as one;
       create function tickets.is_late(tickets.inc) returns boolean language sql as 'select true'`,
    );
    await takeOver(database, true);
    assert.deepEqual(
      await ask(
        database,
        `select has_table_privilege('tickets_reader', 'tickets.holidays', 'select'), has_table_privilege('tickets_reader', 'tickets.inc', 'select')`,
      ),
      [[false, true]],
    );
    // What he had on other things of the names of ours is no right on ours.
    assert.deepEqual(
      await ask(
        database,
        `select has_table_privilege('${roleOf('dispatcher')}', 'tickets.inc_daily', 'insert'), has_function_privilege('${roleOf('dispatcher')}', 'tickets.undo_decision(bigint)', 'execute')`,
      ),
      [[false, false]],
    );
    const cleanUp = (...names: string[]) =>
      ask(database, `select tickets_takeover.clean_up(${names.map((name) => `'${name}'`).join(', ')})`, 'owner');
    const refusal = await cleanUp().then(
      () => assert.fail('nothing was refused'),
      (error: Error) => error.message,
    );
    assert.match(refusal, /table tickets_legacy\.inc_daily\n/); // ours of that name is another one
    assert.match(refusal, /view tickets_legacy\.inc_backlog/);
    assert.match(refusal, /routine tickets_legacy\.is_late\(tickets_legacy\.inc\)/); // bound to the old table
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

  test('what people made in the old schema comes along, bound as it was, and goes back', async () => {
    const database = await oldDatabase(`
      set role ${roleOf('owner')};
      create type tickets.urgency as enum ('low', 'high');
      create sequence tickets.receipts start 41;
      create table tickets.teams (team text primary key, lead text);
      create table tickets.remarks (
        id bigserial primary key, ticket_id text not null references tickets.inc on delete cascade, team text references tickets.teams,
        urgency tickets.urgency, receipt bigint default nextval('tickets.receipts'), written_at timestamptz
      );
      create index remarks_of_a_team on tickets.remarks (team);
      alter table tickets.remarks enable row level security;
      create policy urgent on tickets.remarks for select using (urgency = 'high');
      create function tickets.stamp() returns trigger language plpgsql as $$ begin new.written_at := now(); return new; end $$;
      create trigger stamp before insert on tickets.remarks for each row execute function tickets.stamp();
      create function tickets.lead_of(p_ticket text) returns text language sql stable as $$
        select t.lead from tickets.remarks r join tickets.teams t using (team) join tickets.inc i using (ticket_id) where r.ticket_id = p_ticket $$;
      create view tickets.led as select ticket_id, tickets.lead_of(ticket_id) as lead from tickets.remarks;
      create table tickets.days (day date) partition by range (day);
      create table tickets.days_2026 partition of tickets.days for values from ('2026-01-01') to ('2027-01-01');
      insert into tickets.days values ('2026-06-15');
      insert into tickets.teams values ('Team 1', 'Amina');
      insert into tickets.remarks (ticket_id, team, urgency) values ('WOT700001', 'Team 1', 'high'), ('WOT700002', 'Team 1', 'low');
      grant select on tickets.remarks, tickets.led to ${roleOf('bi')};
      grant execute on function tickets.lead_of(text) to ${roleOf('bi')};
      set role ${roleOf('bi')};
      create view analytics.led as select * from tickets.led where lead is not null;
      reset role`);
    const seen = async () => [
      await seenBy(database, 'select ticket_id, team, receipt from tickets.remarks', 'bi'),
      await seenBy(database, 'select ticket_id, lead from analytics.led order by 1', 'bi'),
      await seenBy(database, `select lead from tickets.led where ticket_id = 'WOT700002'`, 'bi'),
      await seenBy(database, `select count(*)::int from tickets.days`, 'owner'),
      await ask(
        database,
        `select conname, pg_get_constraintdef(oid) from pg_constraint where conrelid = 'tickets.remarks'::regclass order by 1`,
      ),
    ];
    const write = `insert into tickets.remarks (ticket_id, team) values ('WOT700003', 'Team 1') returning receipt::int, written_at is not null`;
    const before = await seen();
    await takeOver(database, true);
    assert.deepEqual(await seen(), before);
    assert.deepEqual(await ask(database, write, 'owner'), [[43, true]]);
    await assert.rejects(
      ask(database, `insert into tickets.remarks (ticket_id) values ('WOT1')`, 'owner'),
      /violates foreign key/,
    );
    assert.deepEqual(
      await ask(
        database,
        `select name from tickets_takeover.left_behind where kind in ('table', 'routine', 'sequence', 'view')`,
      ),
      [],
    );
    await ask(database, 'select tickets_takeover.go_back()', 'owner');
    await ask(database, `delete from tickets.remarks where ticket_id = 'WOT700003'`, 'owner');
    assert.deepEqual(await seen(), before);
    assert.deepEqual(await ask(database, write, 'owner'), [[45, true]]); // 44 went to the refused one
  });

  test('a view on a column that has another type with us goes both ways, and right by right is replayed or noted', async () => {
    const database = await oldDatabase(`
      set role ${roleOf('owner')};
      create type tickets.geocoder as enum ('locationiq', 'opencage');
      alter table tickets.geo_locations alter provider type tickets.geocoder using provider::tickets.geocoder;
      alter table tickets.inc add remark text;
      alter table tickets.crq enable row level security;
      insert into tickets.crq (ticket_id, raw) values ('CRQ1', '{"cluster": "Nyali"}');
      grant select on tickets.geo_locations, tickets.crq to ${roleOf('bi')};
      grant update (remark), update (raw) on tickets.inc to ${roleOf('dispatcher')};
      set role ${roleOf('bi')};
      create view analytics.found_by as select provider::text as provider, count(*) as places from tickets.geo_locations where provider::text like 'loc%' and verified group by 1;
      create materialized view analytics.found_by_then as select count(*) as places from tickets.geo_locations where provider::text like 'loc%' and verified;
      reset role`);
    const seen = async () => [
      await seenBy(database, 'select * from analytics.found_by', 'bi'),
      await seenBy(database, 'select * from analytics.found_by_then', 'bi'),
      await seenBy(database, 'select count(*)::int from tickets.crq', 'bi'),
      await seenBy(database, 'select count(*)::int from tickets.crq', 'owner'),
    ];
    const before = await seen();
    assert.deepEqual(before.slice(2), [[[0]], [[1]]]);
    // As another role than the owner of the old tables, who sees no less than he saw.
    await ask('postgres', `grant create on database ${database} to ${roleOf('migrator')}`);
    await ask('postgres', `grant ${roleOf('owner')}, ${roleOf('bi')} to ${roleOf('migrator')}`);
    try {
      await takeOver(database, true, 'migrator');
      assert.deepEqual(await seen(), before);
      assert.deepEqual(
        await ask(
          database,
          `select name = '${roleOf('dispatcher')}', note from tickets_takeover.notes where about like 'rights on single%' order by 2`,
        ),
        [
          [true, 'update (raw) on tickets.inc'],
          [true, 'update (remark) on tickets.inc'],
        ],
      );
      assert.deepEqual(
        await ask(
          database,
          `select has_schema_privilege('${roleOf('owner')}', 'tickets', 'create'), has_schema_privilege('${roleOf('owner')}', 'tickets', 'usage')`,
        ),
        [[false, true]],
      );
      await ask(database, 'select tickets_takeover.go_back()', 'migrator');
      assert.deepEqual(await seen(), before);
    } finally {
      await ask('postgres', `revoke ${roleOf('owner')}, ${roleOf('bi')} from ${roleOf('migrator')}`);
    }
  });

  test('what the old system noted of closings and of days is history of ours, told before the baselines', async () => {
    const database = await oldDatabase(
      `set role ${roleOf('owner')};
       create table tickets.closure_events (ticket_id text, closed_at timestamptz, team text, mttr numeric, observed_at timestamptz);
       insert into tickets.closure_events values
         ('WOT700001', '2026-06-14 06:30Z', 'Team 9', 150, '2026-06-14 08:00Z'), -- closed then, and closed now
         ('WOT700002', '2026-06-10 06:30Z', 'Team 9', 90, '2026-06-10 08:00Z'), -- closed again since
         ('WOT700004', '2026-06-11 06:30Z', 'Team 8', 60, '2026-06-11 08:00Z'), -- open now
         ('WOT700005', '2026-06-09 06:30Z', 'Team 7', 30, '2026-06-09 08:00Z'), -- closed twice
         ('WOT700005', '2026-06-14 06:30Z', 'Team 6', 150, '2026-06-14 08:00Z'),
         ('WOT1', '2026-06-14 06:30Z', 'Team 9', 150, '2026-06-14 08:00Z'), ('WOT700003', null, 'Team 9', 150, null);
       create table tickets.daily_snapshots (snapshot_date date, cluster text, region text, team text, open_tickets integer);
       insert into tickets.daily_snapshots values ('2026-06-10', 'Nyali', 'Coast', 'Team 1', 7), ('2026-06-10', 'Nyali', 'coast', 'Team 1', 4), ('2026-06-11', 'Nyali', 'coast', null, 9)`,
    );
    await takeOver(database, true);
    assert.deepEqual(
      await ask(
        database,
        `select ticket_id, string_agg(event, ' ' order by event_id) from tickets.inc_events
         where ticket_id between 'WOT700001' and 'WOT700005' group by 1 order by 1`,
      ),
      [
        ['WOT700001', 'closed'],
        ['WOT700002', 'closed closure_corrected'],
        ['WOT700003', 'baseline'],
        ['WOT700004', 'closed reopened'],
        ['WOT700005', 'closed reopened closed'],
      ],
    );
    assert.deepEqual(
      await ask(
        database,
        `select ticket_id, closure_no, closed_at at time zone 'UTC' = '2026-06-14 06:30' as last, assigned_team, mttr_minutes::int, observed, is_final
         from tickets.inc_closures where ticket_id between 'WOT700001' and 'WOT700005' order by 1, 2`,
      ),
      [
        ['WOT700001', 1, true, 'Team 9', 150, true, true],
        ['WOT700002', 1, true, 'Team 9', 150, true, true],
        ['WOT700003', 1, true, 'Team 3', 150, false, true],
        ['WOT700004', 1, false, 'Team 8', 60, true, false],
        ['WOT700005', 1, false, 'Team 7', 30, true, false],
        ['WOT700005', 2, true, 'Team 6', 150, true, true],
      ],
    );
    // Each ticket stands once among what is closed for good or open, and no day before the baseline claims to know the backlog.
    assert.deepEqual(
      await ask(
        database,
        `select (select count(*)::int from tickets.inc_closures where is_final) + (select count(*)::int from tickets.inc where is_actionable),
           (select array_agg(open_tickets::int) from tickets.inc_backlog),
           (select array_agg(format('%s %s %s', day, open, source) order by day) from (select day, sum(open) as open, min(source) as source from tickets.inc_daily group by 1) as d)`,
      ),
      [[2400, [600], ['2026-06-10 11 imported', '2026-06-11 9 imported', '2026-06-15 600 state']]],
    );
    assert.deepEqual(
      await ask(database, `select name, note from tickets_takeover.notes where about ~ 'history' order by 1, 2`),
      [
        ['WOT1', '2026-06-14 06:30:00+00'],
        ['WOT700003', null],
        ['tickets_legacy.closure_events', '5 closings'],
        ['tickets_legacy.daily_snapshots', '2 days of backlog'],
      ],
    );
    assert.deepEqual(await ask(database, 'select count(*)::int from tickets.closure_events', 'owner'), [[7]]);
  });

  test('history in words that nobody knows is named, and stays', async () => {
    const database = await oldDatabase(
      `set role ${roleOf('owner')}; create table tickets.closure_events (what text); create table tickets.daily_snapshots (d date)`,
    );
    await takeOver(database, true);
    assert.deepEqual(
      await ask(database, `select name, note from tickets_takeover.notes where about ~ 'history' order by 1`),
      [
        ['tickets_legacy.closure_events', 'no columns ticket_id and closed_at'],
        ['tickets_legacy.daily_snapshots', 'no column for the day, or none for what was open'],
      ],
    );
  });

  test('row security, comments and indexes of the old tables come along, or are named', async () => {
    const database = await oldDatabase(
      `set role ${roleOf('owner')}; alter table tickets.geo_clusters enable row level security;
       comment on constraint inc_pkey on tickets.inc is 'one row a ticket'; comment on index tickets.crq_pkey is 'the other one';
       create index slow_ones on tickets.inc ((raw ->> 'mttr')); comment on index tickets.slow_ones is 'for the monthly report';
       comment on constraint assignments_ticket_id_fkey on dispatch.assignments is 'no ticket goes that somebody drives to'`,
    );
    await takeOver(database, true);
    assert.deepEqual(
      await ask(
        database,
        `select obj_description(k.oid, 'pg_constraint'), obj_description('tickets.crq_pkey'::regclass, 'pg_class'), obj_description(t.oid, 'pg_trigger'), obj_description(f.oid, 'pg_constraint')
         from pg_constraint k, pg_trigger t, pg_constraint f
         where k.conname = 'inc_pkey' and k.conrelid = 'tickets.inc'::regclass and t.tgname = 'zz_dispatch_notify' and t.tgrelid = 'tickets.inc'::regclass
           and f.conname = 'assignments_ticket_id_fkey'`,
      ),
      [['one row a ticket', 'the other one', 'tells the dispatch desk', 'no ticket goes that somebody drives to']],
    );
    assert.deepEqual(
      await ask(database, `select about, note from tickets_takeover.notes where name = 'slow_ones' order by 1`),
      [
        ['comments on indexes that are no longer there', 'for the monthly report'],
        [
          'indexes of the old tables that ours lack',
          `CREATE INDEX slow_ones ON tickets_legacy.inc USING btree (((raw ->> 'mttr'::text)))`,
        ],
      ],
    );
    assert.deepEqual(await ask(database, 'select count(*)::int from tickets.geo_clusters', 'dispatcher'), [[0]]);
    assert.deepEqual(await ask(database, 'select count(*)::int from tickets.geo_clusters', 'owner'), [[3]]);
  });

  test('row security that is forced on the owner stops the takeover', async () => {
    const database = await oldDatabase('alter table tickets.inc enable row level security, force row level security');
    await assert.rejects(takeOver(database, true), /row security that is forced on the owner of tickets\.inc/);
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
        OLD_URL: url(database, 'owner'),
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
