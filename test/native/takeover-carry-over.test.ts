/** What a takeover carries over: tickets, places, readers and their rights. */
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import pg from 'pg';
import { withClient } from '../../src/database/client.ts';
import { knowledge } from '../../src/snapshots/knowledge.ts';
import { definitions, fixtures } from '../support/definitions.ts';
import { native } from '../support/environment.ts';
import {
  dashboard,
  dump,
  large,
  legacy,
  notes,
  owner,
  pythonVersion,
  row,
  rows,
  takeOver,
  url,
} from '../support/python-version.ts';

describe('a takeover carries over', { skip: !native && 'needs a native Postgres' }, () => {
  pythonVersion(true);

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

    test('a role that reads the old tables reads ours, with owner, grants and indexes', async () => {
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
});
