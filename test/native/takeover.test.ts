/**
 * Taking over a database of the Python version (test/fixtures/legacy.sql), as its owner, who is no superuser.
 * Each test has a copy of its own.
 */
import assert from 'node:assert/strict';
import { execFile, spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { readFile } from 'node:fs/promises';
import { after, before, describe, test } from 'node:test';
import { promisify } from 'node:util';
import pg from 'pg';
import { pino } from 'pino';
import { withClient } from '../../src/database/client.ts';
import { pending } from '../../src/database/committed.ts';
import { migrate } from '../../src/database/schema.ts';
import { examine } from '../../src/operations/doctor/doctor.ts';
import { knowledge } from '../../src/snapshots/knowledge.ts';
import { CLI } from '../support/command.ts';
import { definitions, fixtures } from '../support/definitions.ts';
import { asPerson, inJobSchema, native, waitFor } from '../support/environment.ts';
import { postgresPrograms } from '../support/native.ts';

const server = process.env.TEST_DATABASE_URL ?? '';
const silent = pino({ level: 'silent' });
const LEGACY = new URL('../fixtures/legacy.sql', import.meta.url);

const suffix = randomBytes(4).toString('hex');
const owner = `takeover_owner_${suffix}`;
const dashboard = `takeover_dashboard_${suffix}`;
const worker = `takeover_worker_${suffix}`;
const large = `takeover_large_${suffix}`;
const small = `takeover_small_${suffix}`;
const made: string[] = [];

/** A connection string for a database on the server, as a role. */
function url(database: string, role?: string): string {
  const at = new URL(server);
  at.pathname = `/${database}`;
  if (role) at.username = role;
  if (role) at.password = 'a-password';
  return at.href;
}

const admin = <T>(use: (client: pg.Client) => Promise<T>, database?: string) =>
  asPerson(database ? url(database) : server, use);

async function makeTemplate(name: string, tickets: number): Promise<void> {
  await admin((client) => client.query(`create database ${name} owner ${owner}`));
  await admin((client) => client.query('create extension postgis schema public'), name);
  const sql = (await readFile(LEGACY, 'utf8')).replaceAll('DASHBOARD', dashboard).replaceAll('TICKETS)', `${tickets})`);
  await asPerson(url(name, owner), (client) => client.query(sql));
}

/** A copy of the legacy database, after `change` was applied to it as its owner. */
async function legacy(change?: string, template = small): Promise<string> {
  const name = `takeover_${suffix}_${made.length}`;
  made.push(name);
  await admin((client) => client.query(`create database ${name} template ${template} owner ${owner}`));
  if (change) await asPerson(url(name, owner), (client) => client.query(change));
  return name;
}

const takeOver = (database: string) => migrate(url(database, owner), silent);

async function rows<T extends pg.QueryResultRow>(database: string, sql: string, role = owner): Promise<T[]> {
  return asPerson(url(database, role), async (client) => {
    await client.query(`set tickets_ops.client = 'a person'`); // whoever says so may write what was taken over
    return (await client.query<T>(sql)).rows;
  });
}

async function row<T extends pg.QueryResultRow>(database: string, sql: string, role = owner): Promise<T> {
  const [first] = await rows<T>(database, sql, role);
  assert.ok(first, sql);
  return first;
}

/** The whole old system, definitions, grants and data, by object. */
async function dump(database: string): Promise<string[]> {
  const schemas = ['tickets', 'reporting', 'bi'].map((schema) => `--schema=${schema}`);
  const program = `${await postgresPrograms()}/pg_dump`;
  const { stdout } = await promisify(execFile)(program, [...schemas, url(database)], { maxBuffer: 256 * 1024 * 1024 });
  const objects = stdout
    .replace(/^\\(un)?restrict .*\n/gm, '') // a random word
    .replace(/^GRANT .* TO tickets_(reader|curator|operator|dispatcher);\n/gm, '') // on the schema reporting, which both versions use
    .split(/\n+--\n-- (?=Name:|Data for)/);
  return objects.filter((object) => !object.startsWith('Name: SCHEMA reporting; Type: COMMENT')).sort();
}

/** The takeover of `database` fails with this reason, and the old system is as it was. */
async function refuses(database: string, reason: RegExp): Promise<void> {
  const before = await dump(database);
  await assert.rejects(takeOver(database), reason);
  assert.deepEqual(await dump(database), before);
  assert.deepEqual(
    await rows(
      database,
      `select nspname from pg_namespace where nspname ~ '^(tickets|graphile)_' or nspname = '${inJobSchema('graphile_worker')}'`,
    ),
    [],
  );
}

const notes = (database: string, about: string) =>
  rows<{ name: string; note: string }>(
    database,
    `select name, note from tickets_takeover.notes where about like '${about}%' order by name, note`,
  );

describe('taking over from the Python version', { skip: !native && 'needs a native Postgres' }, () => {
  before(async () => {
    for (const role of [owner, dashboard, worker])
      await admin((client) => client.query(`create role ${role} login password 'a-password'`));
    await makeTemplate(small, 1200);
    await makeTemplate(large, 20_000);
  });
  after(async () => {
    for (const name of [...made, small, large]) {
      await admin((client) => client.query(`drop database if exists ${name} with (force)`));
    }
    await admin((client) => client.query(`drop role ${owner}, ${dashboard}, ${worker}`));
  });

  describe('20 000 tickets', () => {
    let database: string;
    let held: pg.Client;
    before(async () => {
      database = await legacy(undefined, large);
      held = new pg.Client(url(database, dashboard));
      await held.connect();
      // A session of the dashboard, with plans made before.
      await held.query({ name: 'count', text: 'select count(*)::int as n from tickets.inc where is_actionable' });
      await held.query('select bi.newest()');
      await takeOver(database);
    });
    after(() => held.end());

    test('its SQL sources are what a database holds that was taken over', async () => {
      const database = await legacy();
      await takeOver(database);
      await withClient(url(database, owner), async (client) => {
        const held = await definitions(client, ['tickets_takeover']);
        assert.ok(held.size > 20);
        for (const [file, sql] of await fixtures()) if (file.startsWith('takeover/')) await client.query(sql);
        assert.deepEqual(await definitions(client, ['tickets_takeover']), held);
      });
    });

    test('every ticket is as it was, and has a baseline', async () => {
      for (const dataset of ['inc', 'crq']) {
        const columns = 'ticket_id, raw, geom::bytea, geo_source, ingested_at';
        assert.deepEqual(
          await rows(
            database,
            `(select ${columns} from tickets.${dataset} except all select ${columns} from tickets_legacy.${dataset})
             union all
             (select ${columns} from tickets_legacy.${dataset} except all select ${columns} from tickets.${dataset})`,
          ),
          [],
        );
      }
      assert.deepEqual(
        await row(
          database,
          `select count(*)::int as tickets, count(*) filter (where t.mttr is distinct from l.mttr)::int as mttr,
             count(*) filter (where t.closed_at is distinct from l.closed_at)::int as closed_at,
             count(*) filter (where t.latitude is distinct from l.latitude)::int as latitude
           from tickets.inc t join tickets_legacy.inc l using (ticket_id)`,
        ),
        { tickets: 20_000, mttr: 0, closed_at: 0, latitude: 0 },
      );
      assert.deepEqual(
        await row(
          database,
          `select count(*)::int as events, count(distinct ticket_id)::int as tickets,
             count(*) filter (where e.event = 'baseline' and e.new_value = t.normalized_status)::int as baselines,
             min(snapshot_at) as "from", max(snapshot_at) as "to"
           from tickets.inc_events e join tickets.inc t using (ticket_id)`,
        ),
        {
          events: 20_000,
          tickets: 20_000,
          baselines: 20_000,
          from: new Date('2026-06-15T14:00:00Z'),
          to: new Date('2026-06-15T14:00:00Z'),
        },
      );
      assert.deepEqual(await row(database, 'select open_tickets::int from tickets.inc_backlog'), {
        open_tickets: 4000,
      });
    });

    test('the pipeline knows the file that was loaded last', async () => {
      const known = await withClient(url(database, owner), (client) => knowledge(client, 'inc', []));
      assert.equal(known.loadedEtag, '0123456789abcdef0123456789abcdef');
      // The file's name is EAT; the metadata called it UTC, three hours in the future.
      assert.deepEqual(known.highWaterMark?.snapshotAt, new Date('2026-06-15T14:00:00Z'));
      const { freshness } = (
        await row<{ map: { freshness: Record<string, string> } }>(
          database,
          `select reporting.fn_tickets_for_map() -> 'summary' as map`,
        )
      ).map;
      assert.equal(new Date(freshness.ingested_at ?? '').toISOString(), '2026-06-15T14:15:09.123Z');
      assert.equal(freshness.source_key, 'automations/inc/2026-06-15T17-00-00.csv');
    });

    test('the gazetteers: by cluster, verified first, doubtful ones for review', async () => {
      assert.deepEqual(
        await rows(database, `select cluster, verified, provider from tickets.geo_clusters order by cluster`),
        [
          { cluster: 'Kilimani', verified: true, provider: 'locationiq' },
          { cluster: 'Kisumu Central', verified: false, provider: 'locationiq' },
          { cluster: 'Nakuru Town', verified: false, provider: 'locationiq' },
          { cluster: 'Nyali', verified: false, provider: 'locationiq' },
        ],
      );
      const places = await rows<{ place: string; status: string; verified: boolean; lng: number }>(
        database,
        `select cluster || '/' || location_key as place, status, verified, st_x(geom) as lng from tickets.geo_locations`,
      );
      const place = (name: string) => places.find((p) => p.place === name);
      assert.deepEqual(
        places
          .filter((p) => p.place.endsWith('/milimani'))
          .map((p) => [p.place, p.status, p.verified])
          .sort(),
        [
          // A person checked it once: it lies in neither of the clusters that have a centroid.
          ['Kilimani/milimani', 'needs_review', false],
          ['Kisumu Central/milimani', 'needs_review', false],
          ['Unknown Cluster/milimani', 'found', true],
        ],
      );
      assert.equal(place('Kilimani/yaya centre')?.lng, 36.7883, 'the verified one of two spellings');
      assert.equal(place('Kilimani/argwings kodhek road')?.status, 'found');
      assert.equal(place('Kisumu Central/argwings kodhek road')?.status, 'needs_review');
      assert.equal(place('Nyali/cinemax court')?.status, 'found');
      assert.equal(place('Nakuru Town/cinemax court')?.status, 'needs_review');
      assert.deepEqual(await notes(database, 'locations of the old gazetteer that no ticket'), [
        { name: 'FDT12', note: null },
        { name: 'Nowhere Heights', note: 'verified' },
      ]);
    });

    test('whoever reads the old tables reads ours, with owner, grants and indexes', async () => {
      assert.deepEqual(
        await rows(
          database,
          `select distinct d.refobjid::regclass as still from pg_depend d join pg_rewrite r on d.classid = 'pg_rewrite'::regclass and r.oid = d.objid
           join pg_class v on v.oid = r.ev_class join pg_class t on d.refclassid = 'pg_class'::regclass and t.oid = d.refobjid
           where v.relnamespace in ('bi'::regnamespace, 'tickets'::regnamespace) and t.relnamespace = 'tickets_legacy'::regnamespace`,
        ),
        [],
      );
      const before = await dump(large);
      const now = await dump(database);
      const theirs = (objects: string[]) => objects.filter((object) => /^.*Name: .*Schema: bi;/.test(object));
      assert.ok(theirs(before).length > 20);
      assert.deepEqual(theirs(now), theirs(before));

      // One row changes, and all of them see it.
      await rows(
        database,
        `update tickets.inc set raw = raw || '{"region": "nairobi", "is_actionable": "false", "cluster": "Nyali"}' where ticket_id = 'WOT0700005'`,
      );
      await rows(database, `delete from tickets.inc where ticket_id = 'WOT0700002'`);
      await rows(database, 'refresh materialized view bi.closed_per_day');
      const seen = await row<Record<string, number>>(
        database,
        `select bi.ticket_count()::int as counted, (select tickets::int from bi.summary) as summary, bi.in_cluster('Nyali')::int as cluster,
           (select sum(open_tickets)::int from bi.open_by_cluster) as open, (select sum(closed)::int from bi.closed_per_day) as closed,
           (select count(*)::int from tickets.made_by_hand) as by_hand`,
        dashboard,
      );
      const old = await row<Record<string, number>>(
        database,
        `select count(*) filter (where cluster = 'Nyali')::int + 1 as cluster, count(closed_at)::int - 1 as closed from tickets_legacy.inc`,
      );
      assert.deepEqual(seen, { counted: 19_999, summary: 19_999, open: 3999, by_hand: 19_999, ...old });
      assert.deepEqual(
        (await held.query({ name: 'count', text: 'select count(*)::int as n from tickets.inc where is_actionable' }))
          .rows,
        [{ n: 3999 }],
      );
      await assert.rejects(rows(database, `insert into bi.visits values (2, 'WOT0700002')`), /visits_ticket_id_fkey/);
    });

    test('the dashboard needs no new grant, and got no more than it had', async () => {
      const may = async (sql: string) =>
        rows(database, sql, dashboard).then(
          () => true,
          () => false,
        );
      assert.deepEqual(
        await Promise.all(
          [
            'select reporting.fn_tickets_for_map()',
            'select reporting.fn_tickets_for_map(p_open_only := false)',
            'select * from tickets.inc_open_sla limit 1',
            'select metadata from tickets.import_meta',
            'select cluster, geom from tickets.geo_clusters',
            'select verified from tickets.geo_clusters',
            'select * from tickets.geo_locations',
            'delete from tickets.inc',
            'select * from tickets_legacy.schema_migrations',
            'select tickets_takeover.go_back()',
          ].map(may),
        ),
        [true, true, true, true, true, true, true, false, false, false], // default privileges: it reads all tables made later
      );
    });

    test('the next snapshot moves exactly the tickets that were announced', async () => {
      const announced = await notes(database, 'tickets of inc that the next snapshot');
      const { moved } = await row<{ moved: number }>(database, `select tickets.place_tickets('inc')::int as moved`);
      assert.ok(moved > 0);
      assert.deepEqual(
        (
          await rows<{ ticket_id: string }>(
            database,
            `select t.ticket_id from tickets.inc t join tickets_legacy.inc l using (ticket_id)
             where (t.geo_source, t.geom::bytea) is distinct from (l.geo_source, l.geom::bytea) and t.raw = l.raw order by 1`,
          )
        ).map((ticket) => ticket.ticket_id),
        announced.map(({ name }) => name).filter((name) => !['WOT0700002', 'WOT0700005'].includes(name)),
      );
    });

    test('a second run changes nothing', async () => {
      const state = () =>
        rows(
          database,
          `select oid, relname, relfilenode, relacl from pg_class where relnamespace::regnamespace::text ~ '^(tickets|bi|reporting)' order by oid`,
        );
      const before = [await state(), await dump(database)];
      await takeOver(database);
      assert.deepEqual([await state(), await dump(database)], before);
    });
  });

  test('a fresh database keeps nothing of all this', async () => {
    const database = await legacy('drop schema tickets, reporting, bi cascade');
    await takeOver(database);
    assert.deepEqual(
      await rows(database, `select nspname from pg_namespace where nspname in ('tickets_takeover', 'tickets_legacy')`),
      [],
    );
    assert.deepEqual(await rows(database, 'select ticket_id from tickets.inc'), []);
  });

  describe('the columns of import_meta', () => {
    const known = (database: string) =>
      row(
        database,
        `select metadata ->> 'source_etag' as etag, tickets.eat_ts(metadata ->> 'snapshot_at') as at from tickets.import_meta where dataset = 'inc'`,
      );
    for (const [name, change] of [
      ['of other names', `rename dataset to name; alter table tickets.import_meta rename metadata to envelope`],
      [
        'instead of an envelope',
        `add source_key text, add etag text, add last_modified timestamptz;
         update tickets.import_meta set source_key = metadata ->> 'source_key', etag = metadata ->> 'source_etag';
         alter table tickets.import_meta drop metadata cascade`,
      ],
    ] as const)
      test(`${name} are read`, async () => {
        const ordinary = await legacy();
        await takeOver(ordinary);
        const database = await legacy(`alter table tickets.import_meta ${change}`);
        await takeOver(database);
        assert.deepEqual(await known(database), await known(ordinary));
      });

    test('of a row for every load say what the newest says', async () => {
      const database = await legacy(`
        alter table tickets.import_meta drop constraint import_meta_pkey;
        insert into tickets.import_meta values
          ('inc', '{"source_etag": "newest"}', now() + interval '1 hour'), ('inc', '{"source_etag": "older"}', now() - interval '1 day')`);
      await takeOver(database);
      assert.equal((await known(database))?.etag, 'newest');
    });

    test('of which none names the dataset are noted', async () => {
      const database = await legacy('alter table tickets.import_meta rename dataset to which');
      await takeOver(database);
      assert.equal((await notes(database, 'import_meta in which no column names the dataset')).length, 1);
      assert.deepEqual(await rows(database, 'select from tickets.import_meta'), []);
    });
  });

  describe('the columns of the gazetteers', () => {
    const variants: Record<string, [verified: number, change: string]> = {
      'latitude and longitude': [
        1,
        `
        alter table tickets.geo_clusters add latitude double precision, add longitude double precision;
        update tickets.geo_clusters set latitude = st_y(geom), longitude = st_x(geom);
        alter table tickets.geo_clusters drop geom;
        alter table tickets.geo_locations add latitude double precision, add longitude double precision;
        update tickets.geo_locations set latitude = st_y(geom), longitude = st_x(geom);
        alter table tickets.geo_locations drop geom, drop source, drop query;`,
      ],
      'lat and lng as numeric, verified as text, the cluster beside the name': [
        2, // in that cluster alone, used by a ticket or not
        `
        alter table tickets.geo_clusters add lat numeric, add lng numeric;
        update tickets.geo_clusters set lat = st_y(geom)::numeric, lng = st_x(geom)::numeric;
        alter table tickets.geo_clusters drop geom, alter verified drop default, alter verified type text using case when verified then 'yes' else 'no' end;
        alter table tickets.geo_locations add lat text, add lng text, add cluster text, alter verified drop default, alter verified type text;
        update tickets.geo_locations set lat = st_y(geom), lng = st_x(geom), cluster = 'Kilimani';
        alter table tickets.geo_locations drop geom;`,
      ],
      'a key and a point of any name': [
        1,
        `alter table tickets.geo_clusters rename cluster to town; alter table tickets.geo_clusters rename geom to centroid;
         alter table tickets.geo_locations rename location_name to place_key; alter table tickets.geo_locations rename geom to point;`,
      ],
      'geography, and no verified': [
        0,
        `alter table tickets.geo_locations alter geom type geography(Point, 4326) using geom::geography, drop verified;`,
      ],
    };
    for (const [name, [verified, change]] of Object.entries(variants)) {
      test(name, async () => {
        const database = await legacy(`alter table tickets.inc disable trigger user; ${change}`);
        await takeOver(database);
        assert.deepEqual(
          await row(
            database,
            `select count(*)::int as clusters, (select count(*) filter (where verified)::int from tickets.geo_locations where location_key <> 'yaya centre') as verified,
               (select count(*)::int from tickets.geo_locations where geom is null) as lost,
               (select st_astext(geom) from tickets.geo_locations where cluster = 'Kilimani' and location_key = 'milimani') as place
             from tickets.geo_clusters where geom is not null`,
          ),
          { clusters: 4, verified, lost: 0, place: 'POINT(36.0712345 -0.2801)' },
        );
      });
    }

    test('a gazetteer that cannot be read stops the takeover', async () => {
      await refuses(
        await legacy(
          'alter table tickets.geo_locations drop constraint geo_locations_pkey; alter table tickets.geo_locations rename location_name to what',
        ),
        /No column of tickets\.geo_locations is known to hold the name of the location/,
      );
    });

    test('a coordinate that only tickets carry goes into the gazetteer', async () => {
      const database = await legacy(`
        alter table tickets.inc disable trigger user;
        delete from tickets.geo_locations where location_name = 'Cinemax Court';
        delete from tickets.geo_clusters where cluster = 'Kisumu Central'`);
      await takeOver(database);
      assert.deepEqual(
        await rows(
          database,
          `select 'cluster' as kind, st_astext(geom) as place, verified from tickets.geo_clusters where cluster = 'Kisumu Central'
           union all
           select status, st_astext(geom), verified from tickets.geo_locations where cluster = 'Nyali' and location_key = 'cinemax court'
           order by 1`,
        ),
        [
          { kind: 'cluster', place: 'POINT(34.7617 -0.0917)', verified: false },
          { kind: 'found', place: 'POINT(39.7155 -4.0301)', verified: false },
        ],
      );
    });
  });

  test('tickets that our rules would refuse are mended, and none is lost', async () => {
    const long = 'W'.repeat(2000);
    const database = await legacy(`
      alter table tickets.inc disable trigger user;
      insert into tickets.inc (ticket_id, raw, geom, geo_source) values
        ('${long}', '{"n": "1"}', null, 'none'),
        (' WOT1 ', '{"n": "2"}', null, 'none'),
        ('WOT1  ', '{"n": "3"}', null, 'none'),
        (' WOT0700001', '{"n": "4"}', null, 'none'),
        ('', '{"n": "5"}', null, 'none'),
        ('NAN', '{"n": "6"}', 'SRID=4326;POINT(NaN NaN)', 'feed'),
        ('FAR', '{"n": "7", "cluster": "Nyali"}', 'SRID=4326;POINT(200 95)', 'cluster'),
        ('EMPTY', '{"n": "8"}', 'SRID=4326;POINT EMPTY', 'location'),
        ('UNSAID', '{"n": "9", "cluster": "Nyali", "location_name": "Old Town"}', 'SRID=4326;POINT(39.7 -4.05)', null),
        ('LIED', '{"n": "10", "latitude": "-1.29", "longitude": "36.8"}', 'SRID=4326;POINT(36.8 -1.29)', 'none'),
        ('OTHER', '{"n": "11", "cluster": "Nyali"}', 'SRID=4326;POINT(39.71 -4.04)', 'manual'),
        ('NOWHERE', '{"n": "12"}', null, 'cluster'),
        ('SCALAR', '"13"', null, null)`);
    await takeOver(database);
    const { before, now, different } = await row<Record<string, number>>(
      database,
      `select (select count(*)::int from tickets_legacy.inc) as before, (select count(*)::int from tickets.inc) as now,
         (select count(*)::int from (select raw from tickets_legacy.inc except all select raw from tickets.inc) d) as different`,
    );
    assert.deepEqual({ now, different }, { now: before, different: 0 });
    assert.deepEqual(
      await rows(
        database,
        `select left(ticket_id, 12) as id, length(ticket_id) as length, raw ->> 'n' as n, geo_source, st_astext(geom) as place
         from tickets.inc where raw ? 'n' or raw = '"13"' order by (raw ->> 'n')::int nulls last`,
      ),
      [
        { id: 'W'.repeat(12), length: 193, n: '1', geo_source: 'none', place: null },
        { id: 'WOT1', length: 4, n: '2', geo_source: 'none', place: null },
        { id: 'WOT1~18d490f', length: 37, n: '3', geo_source: 'none', place: null },
        { id: 'WOT0700001~8', length: 43, n: '4', geo_source: 'none', place: null },
        { id: '~d41d8cd98f0', length: 33, n: '5', geo_source: 'none', place: null },
        { id: 'NAN', length: 3, n: '6', geo_source: 'none', place: null },
        { id: 'FAR', length: 3, n: '7', geo_source: 'none', place: null },
        { id: 'EMPTY', length: 5, n: '8', geo_source: 'none', place: null },
        { id: 'UNSAID', length: 6, n: '9', geo_source: 'location', place: 'POINT(39.7 -4.05)' },
        { id: 'LIED', length: 4, n: '10', geo_source: 'feed', place: 'POINT(36.8 -1.29)' },
        { id: 'OTHER', length: 5, n: '11', geo_source: 'cluster', place: 'POINT(39.71 -4.04)' },
        { id: 'NOWHERE', length: 7, n: '12', geo_source: 'none', place: null },
        { id: 'SCALAR', length: 6, n: null, geo_source: 'none', place: null },
      ],
    );
    assert.deepEqual(
      (await notes(database, 'tickets of inc with another id')).map(({ name }) => name.slice(0, 12)).sort(),
      ['', ' WOT0700001', ' WOT1 ', 'WOT1  ', 'W'.repeat(12)].sort(),
    );
    assert.deepEqual(
      (await notes(database, 'tickets of inc whose coordinate or geo_source')).map(({ name }) => name),
      ['EMPTY', 'FAR', 'LIED', 'NAN', 'NOWHERE', 'OTHER', 'UNSAID'],
    );
  });

  describe('what cannot be taken over stops it, by name, and the old system is as it was', () => {
    test('a view that belongs to somebody else', async () => {
      const database = await legacy();
      await admin(
        (client) => client.query('create view public.of_the_dba as select ticket_id from tickets.inc'),
        database,
      );
      await refuses(
        database,
        /view public\.of_the_dba cannot be pointed at the other tables: must be owner of view of_the_dba\.[\s\S]*does not own what postgres has made for the Python version\. Let the DBA run:\n.*alter view public\.of_the_dba owner to/,
      );
    });

    test('rules, policies, inheritance and publications', async () => {
      await refuses(
        await legacy(`
          create table bi.archive () inherits (tickets.inc);
          create rule log as on delete to tickets.inc do also notify deleted;
          create policy only_open on tickets.inc using (is_actionable);
          create publication warehouse for table tickets.inc`),
        /- bi\.archive inherits from tickets\.inc is.*\n.*\n- policy only_open on table tickets\.inc is.*\n.*\n- publication warehouse of table tickets\.inc is.*\n.*\n- rule log on table tickets\.inc is/,
      );
    });

    test('a parameter, a property and a summary key that the map function has no longer', async () => {
      await refuses(
        await legacy(`
          create function reporting.fn_tickets_for_map(p_open_only boolean, p_service_type text, p_region text default null) returns jsonb language sql stable as $$
            select jsonb_build_object(
              'type', 'FeatureCollection', 'summary', jsonb_build_object('by_team', null, 'total', count(*)),
              'features', jsonb_agg(jsonb_build_object('properties', jsonb_build_object('raw_status', raw_status, 'colour', 'red')))
            ) from tickets.inc
          $$`),
        /fn_tickets_for_map has no longer: parameter p_service_type, property colour, summary key by_team; where it was called, reporting\.fn_tickets_for_map\(boolean,text\) said: .* is not unique\.\n/,
      );
    });

    test('all that does is told at once, each with what to do about it', async () => {
      const database = await legacy(`
        alter table tickets.geo_clusters rename cluster to place; alter table tickets.geo_clusters drop constraint geo_clusters_pkey;
        create policy only_open on tickets.inc using (is_actionable);
        create view bi.named as select place from tickets.geo_clusters;
        create function reporting.fn_tickets_for_map(p_open_only boolean, p_team text, p_service_type text) returns jsonb language sql as $$ select '{"features": []}'::jsonb $$`);
      await withClient(url(database, owner), async (writer) => {
        await writer.query('begin; lock table tickets.inc in row exclusive mode');
        await refuses(
          database,
          /Migration failed: Nothing was changed, because of:\n- No column of tickets\.geo_clusters .*\n {2}Rename it.*\n- Somebody is writing to tickets\.inc: pid .*\n {2}Stop the schedule.*\n- constraint visits_ticket_id_fkey on table bi\.visits is in use: pid .*\n {2}Let that end.*\n- policy only_open .*\n {2}Agree .*\n- reporting\.fn_tickets_for_map has no longer: parameter p_service_type; reporting\.fn_tickets_for_map differs: parameter p_team is at place 4 and was at 2\.\n {2}With MIGRATE_KEEP_OLD_MAP.*\n- view bi\.named cannot .*\n {2}Its owner/,
        );
      });
    });

    test('tables that an earlier takeover set aside', async () => {
      const database = await legacy('create schema tickets_legacy');
      await assert.rejects(takeOver(database), /There is a schema tickets_legacy already/);
    });

    test('a writer who does not end: it is named, and nobody queues up behind it for longer than 5 s', async () => {
      const database = await legacy();
      await withClient(url(database, owner), async (writer) => {
        await writer.query(`set application_name = 'import_tickets.py'`);
        await writer.query('begin');
        await writer.query(`update tickets.inc set ingested_at = now() where ticket_id = 'WOT0700001'`);
        const started = performance.now();
        await assert.rejects(
          takeOver(database),
          /Somebody is writing to tickets\.inc.*import_tickets\.py, idle in transaction/s,
        );
        assert.ok(performance.now() - started < 20_000);
        await writer.query('commit');
      });
      await takeOver(database);
    });

    test('a connection that is cut off when all but the last step is done', async () => {
      const database = await legacy();
      const before = await dump(database);
      await withClient(url(database, dashboard), async (reader) => {
        await reader.query('begin');
        await reader.query('select * from bi.open_by_cluster');
        const env = { ...process.env, DATABASE_URL: url(database, owner) };
        const exit = once(spawn(process.execPath, [CLI, 'migrate'], { env, stdio: 'ignore' }), 'exit');
        const { pid } = await waitFor('the migration to wait for the reader', async () => {
          const waiting = `select pid from pg_locks where relation = 'bi.open_by_cluster'::regclass and not granted`;
          return (await rows<{ pid: number }>(database, waiting))[0];
        });
        await admin((client) => client.query('select pg_terminate_backend($1)', [pid]));
        assert.notEqual((await exit)[0], 0);
        await reader.query('rollback');
      });
      assert.deepEqual(await dump(database), before);
      await takeOver(database);
    });
  });

  test('readers go on while the tickets are copied, and a writer waits', async () => {
    const database = await legacy('drop table bi.visits', large); // dropping a foreign key locks out readers for a moment
    let running = true;
    let longest = 0;
    const reading = withClient(url(database, dashboard), async (reader) => {
      const seen = new Set<string>();
      while (running) {
        const started = performance.now();
        const { rows } = await reader.query(`
          select (select count(*) from tickets.inc)::text || ' ' || (select count(*) from tickets.inc_open_sla) || ' ' || tableoid::regclass as seen
          from tickets.inc limit 1`);
        longest = Math.max(longest, performance.now() - started);
        seen.add(rows[0].seen);
      }
      return [...seen];
    });
    const started = performance.now();
    const taken = takeOver(database);
    const writer = await waitFor('the writer to be locked out', () =>
      withClient(url(database, owner), async (client) => {
        await client.query(`set lock_timeout = '20ms'`);
        return client.query(`update tickets.import_meta set metadata = metadata`).then(
          () => null,
          (error: Error) => error.message,
        );
      }),
    );
    assert.match(writer, /lock timeout/);
    await taken;
    const took = performance.now() - started;
    running = false;
    // A statement that the commit overtakes has read the old table to its end, and finds it under its new name.
    for (const seen of await reading) assert.match(seen, /^20000 4000 tickets(_legacy)?\.inc$/);
    assert.ok(longest < took / 4, `a reader waited ${longest.toFixed(0)} ms of ${took.toFixed(0)}`);
  });

  test('a view whose column has another type with us keeps its own, and those on it notice nothing', async () => {
    const database = await legacy(
      `create view bi.repair_time as select ticket_id, mttr from tickets.inc; create view bi.slow as select * from bi.repair_time where mttr > 600`,
    );
    const seen = () =>
      row(
        database,
        `select (select array_agg(mttr order by ticket_id) from bi.repair_time) as times, (select count(*) from bi.slow) as slow,
           (select format_type(atttypid, atttypmod) from pg_attribute where attrelid = 'bi.slow'::regclass and attname = 'mttr') as type`,
      );
    const before = await seen();
    await takeOver(database);
    assert.deepEqual(await seen(), before);
    await withClient(url(database, owner), (client) => client.query('select tickets_takeover.go_back()'));
    assert.deepEqual(await seen(), before);
  });

  test('the way back, and over again', async () => {
    const database = await legacy();
    const before = await dump(database);
    await takeOver(database);
    await rows(database, `update tickets.inc set raw = raw || '{"cluster": "Nyali"}'`);
    await withClient(url(database, owner), (client) => client.query('select tickets_takeover.go_back()'));
    assert.deepEqual(await dump(database), before);

    // What the Python version does next.
    await rows(
      database,
      `insert into tickets.inc (ticket_id, raw, ingested_at) values ('WOT0700001', '{"ticket_id": "WOT0700001", "cluster": "Nyali", "is_actionable": "true"}', now()), ('WOT0999999', '{"cluster": "Kilimani", "is_actionable": "true"}', now())
       on conflict (ticket_id) do update set raw = excluded.raw, ingested_at = excluded.ingested_at`,
    );
    assert.deepEqual(
      await row(
        database,
        `select (select geo_source from tickets.inc where ticket_id = 'WOT0999999') as source, bi.ticket_count()::int as counted,
           (select count(*)::int from tickets.schema_migrations) as ledger, (reporting.fn_tickets_for_map(true) -> 'summary' ->> 'total')::int as open,
           (select sum(open_tickets)::int from bi.open_by_cluster) as by_cluster`,
      ),
      { source: 'cluster', counted: 1201, ledger: 8, open: 242, by_cluster: 242 },
    );

    await withClient(url(database, owner), async (client) => assert.equal((await pending(client)).length > 0, true));
    await takeOver(database);
    assert.deepEqual(
      await row(database, 'select count(*)::int as tickets, bi.ticket_count()::int as counted from tickets.inc'),
      { tickets: 1201, counted: 1201 },
    );
  });

  test('analytics begins with the baseline, and keeps functions of others that have the names of ours', async () => {
    const database = await legacy(
      `create function reporting.fn_inc_trends(days integer) returns text language sql as $$ select 'theirs' $$;
       comment on function reporting.fn_inc_trends(integer) is 'Theirs.'`,
    );
    await takeOver(database);
    assert.deepEqual(await notes(database, 'functions that are kept'), [
      { name: 'reporting.fn_inc_trends', note: null },
    ]);
    assert.deepEqual(
      await row(
        database,
        `select reporting.fn_inc_trends(3) as theirs, reporting.fn_inc_dashboard() ->> 'window' is not null as ours,
           (select count(*)::int from pg_proc where proname = 'fn_inc_trends') as trends`,
      ),
      { theirs: 'theirs', ours: true, trends: 1 },
    );
    const { open, closed, baselines } = await row<{ open: number; closed: number; baselines: number }>(
      database,
      `select (select sum(open)::int from tickets.inc_daily) as open, (select count(*)::int from tickets.inc_closures where not observed) as closed,
         (select count(*)::int from tickets.inc_events e join tickets.inc t using (ticket_id)
          where (e.assigned_team, e.cluster, e.closed_at, e.mttr) is not distinct from (t.assigned_team, t.cluster, t.closed_at, t.mttr)) as baselines`,
    );
    assert.deepEqual([open, open + closed, baselines], [240, 1200, 1200]);

    const before = await row(
      database,
      `select pg_get_functiondef('reporting.fn_inc_trends(integer)'::regprocedure) as text`,
    );
    await withClient(url(database, owner), (client) => client.query('select tickets_takeover.go_back()'));
    assert.equal(
      (
        await rows(
          database,
          `select from pg_proc where pronamespace = 'reporting'::regnamespace and proname = 'fn_inc_dashboard'`,
        )
      ).length,
      0,
    );
    await takeOver(database);
    assert.deepEqual(
      await row(database, `select pg_get_functiondef('reporting.fn_inc_trends(integer)'::regprocedure) as text`),
      before,
    );
    await rows(database, 'select reporting.fn_inc_dashboard()');
  });

  test('the way back leaves no load of before to what is taken over again, and waits for no worker', async () => {
    const database = await legacy();
    await takeOver(database);
    await asPerson(url(database, owner), async (client) => {
      const add = (task: string, payload: object, key: string) =>
        client.query('select graphile_worker.add_job($1, $2, job_key := $3)', [task, JSON.stringify(payload), key]);
      await add('fetch_snapshot', { dataset: 'inc' }, 'fetch_snapshot:inc:newest');
      await add('upsert_batch', { snapshot_id: 1, batch: 1 }, 'upsert_batch:1:1');
      await add('finalize_snapshot', { snapshot_id: 1 }, 'held by a dead worker');
      await add('geocode_cluster', { cluster: 'Nyali' }, 'geocode_cluster:nyali');
      await client.query(
        `update graphile_worker._private_jobs set locked_at = now(), locked_by = 'killed' where key like 'held%'`,
      );
      await client.query(
        `insert into tickets_ops.workers (pool_id, host, pid, sessions, shares_sessions) values ('lives', 'h', 1, 's', true)`,
      );
      await assert.rejects(client.query('select tickets_takeover.go_back()'), /A worker is alive: stop it first/);
      await client.query('update tickets_ops.workers set stopped_at = now()');
      await client.query('select tickets_takeover.go_back()');
    });
    await takeOver(database);
    assert.deepEqual(await rows(database, 'select key from tickets_ops.jobs'), [{ key: 'geocode_cluster:nyali' }]);
  });

  describe('the doctor, before the first migration, names what the worker’s role lacks; with exactly that it migrates', () => {
    const rights = async (database: string) => {
      const { DATABASE_URL } = process.env;
      process.env.DATABASE_URL = url(database, worker);
      try {
        for await (const finding of examine()) if (finding.check === 'rights') return finding;
      } finally {
        if (DATABASE_URL === undefined) delete process.env.DATABASE_URL;
        else process.env.DATABASE_URL = DATABASE_URL;
      }
      return assert.fail();
    };
    const cases: Record<string, [make: () => Promise<string>, lacks: RegExp]> = {
      'an empty database whose schema reporting is somebody else’s': [
        () => legacy('drop schema tickets, reporting, bi cascade; create schema reporting'),
        /^let the DBA run:\ngrant create on database \S+ to \S+;\ngrant usage, create on schema reporting to \S+;$/,
      ],
      'tables of a role that is no superuser': [
        () => legacy(),
        new RegExp(`\\ngrant ${owner} to ${worker}; -- after the migration: revoke ${owner} from ${worker};$`),
      ],
      'tables of a superuser': [
        async () => {
          const database = await legacy();
          const { rolname } = await row<{ rolname: string }>(
            database,
            'select current_user as rolname',
            new URL(server).username,
          );
          await admin(async (client) => {
            // As if a superuser had made them.
            await client.query(`reassign owned by ${owner} to ${rolname}`);
            await client.query(`alter database ${database} owner to ${rolname}`);
          }, database);
          return database;
        },
        /\nalter schema tickets owner to \S+;\n(.*\n)*alter table tickets\.inc owner to \S+;/,
      ],
    };
    for (const [name, [make, lacks]] of Object.entries(cases)) {
      test(name, async () => {
        const database = await make();
        const finding = await rights(database);
        assert.equal(finding.state, 'failed');
        assert.match(finding.remedy ?? '', lacks);
        await assert.rejects(
          migrate(url(database, worker), silent),
          /permission denied[\s\S]*\nBefore the next try:\n- This role may not create schemas in this database\. Let the DBA run:\n {2}grant create on/,
        );
        // With the first right alone it comes as far as the worker's own schema, and then the rest is still missing.
        await admin((client) => client.query(`grant create on database ${database} to ${worker}`), database);
        await assert.rejects(migrate(url(database, worker), silent), /permission denied|must be/);
        assert.equal((await rights(database)).state, 'failed');

        await admin((client) => client.query((finding.remedy ?? '').replace('let the DBA run:\n', '')), database);
        assert.deepEqual(await rights(database), { check: 'rights', state: 'ok', detail: `${worker} may migrate` });
        await migrate(url(database, worker), silent);

        await admin((client) => client.query(`revoke ${owner} from ${worker}`));
        assert.equal((await rights(database)).detail, `${worker} owns the tables`);
        await withClient(url(database, worker), (client) => client.query('select ok from tickets_ops.health'));
        // As its container does at every start, also where somebody has made something in our schema.
        await admin((client) => client.query('create view tickets.made_later as select 1 as one'), database);
        await migrate(url(database, worker), silent);
        if (name.startsWith('tables')) {
          const { seen } = await row<{ seen: number }>(
            database,
            'select sum(open_tickets)::int as seen from bi.open_by_cluster',
            dashboard,
          );
          assert.equal(seen, 240);
        }
      });
    }
  });
});
