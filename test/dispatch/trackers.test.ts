/** Pointing tickets.vehicles at the table of another software: what is found, what is written, what the doctor says of it. */
import assert from 'node:assert/strict';
import { after, before, beforeEach, describe, test } from 'node:test';
import { connect } from '../../src/database/client.ts';
import { vehicles as examineVehicles } from '../../src/operations/doctor/vehicles.ts';
import { fleettickets as runFleettickets } from '../support/command.ts';
import { type Environment, startEnvironment } from '../support/environment.ts';
import { createTracker, park, report } from '../support/fleet.ts';

const fleettickets = (...args: string[]) => runFleettickets({}, ...args);

describe('a tracker’s table', () => {
  let env: Environment;
  before(async () => {
    env = await startEnvironment();
  });
  after(() => env.close());
  beforeEach(async () => {
    await env.reset();
    // The newest position of each vehicle; all positions, in local time without a zone; points; and what is none of it.
    await env.pool.query(
      `drop schema if exists live, "Fleet Log", gis, other cascade;
       create schema live;
       create table live.positions (
         imei varchar(20) primary key, device_name text, lat numeric(9, 6), lng numeric(9, 6), gps_time timestamptz(3), hb_time timestamptz,
         speed integer
       );
       insert into live.positions values
         ('8600', 'KDA 123A', -1.28, 36.82, now() - interval '1 minute', now(), 30),
         ('8601', 'KDB 777B', -1.29, 36.80, now() - interval '20 minutes', now(), 0);
       create schema "Fleet Log";
       create table "Fleet Log"."gps-log" (
         id bigint generated always as identity primary key, "vehicleId" integer, "Latitude" double precision, "Longitude" double precision,
         "recordedAt" timestamp
       );
       insert into "Fleet Log"."gps-log" ("vehicleId", "Latitude", "Longitude", "recordedAt")
       select v, -1.28 + n * 0.001, 36.82, (now() at time zone 'Africa/Nairobi') - n * interval '1 minute'
       from generate_series(1, 3) v, generate_series(0, 9) n;
       create schema gis;
       create table gis.units (unit text unique, geom geometry(Point, 4326), ts timestamptz, "group" text, is_moving boolean);
       insert into gis.units values ('U1', st_setsrid(st_makepoint(36.82, -1.28), 4326), now(), 'Kilimani A', true);
       create schema other;
       create table other.customers (id integer primary key, lat double precision, lng double precision, updated_at timestamptz);
       create view other.latest as select * from live.positions;
       create or replace view tickets.vehicles as
       select null::text as vehicle_id, null::text as label, null::text as team, null::double precision as lng,
         null::double precision as lat, null::timestamptz as located_at, null::timestamptz as seen_at, null::boolean as moving,
         null::double precision as speed_kmh, null::text as source where false`,
    );
  });

  const now = async () => (await env.pool.query('select * from tickets.vehicles_now order by vehicle_id')).rows;
  const verdict = async () => {
    const client = await connect(env.databaseUrl);
    try {
      return await examineVehicles(client);
    } finally {
      await client.end();
    }
  };

  test('is found by its columns, with its size and newest time; nothing is changed', async () => {
    const { status, out } = await fleettickets('vehicles', '--json');
    assert.equal(status, 0);
    const { trackers, vehicles } = JSON.parse(out);
    assert.deepEqual(
      trackers.map(({ table, rows }: { table: string; rows: number }) => [table, rows]),
      [
        ['"Fleet Log"."gps-log"', 30],
        ['gis.units', 1],
        ['live.positions', 2],
      ],
    );
    for (const { newest } of trackers) assert.ok(Math.abs(Date.now() - Date.parse(newest)) < 120_000, newest);
    assert.deepEqual(vehicles, []);
    const page = (await fleettickets('vehicles')).out;
    assert.match(page, / live\.positions +\| +2 \| \d{4}-/);
    assert.match(page, /^create or replace view tickets\.vehicles as$/m);
    assert.match(page, /tickets\.vehicles lists no vehicle\./);
    assert.deepEqual(await now(), []);
  });

  test('is shown by a dry run, and used by --apply', async () => {
    const dry = await fleettickets('vehicles', '--use', 'live.positions');
    assert.equal(dry.status, 0);
    assert.match(dry.out, /from live\.positions p;\n[\s\S]*This was a dry run/);
    assert.deepEqual(await now(), []);
    const { status, out } = await fleettickets('vehicles', '--use', 'live.positions', '--apply');
    assert.equal(status, 0);
    assert.match(out, /tickets\.vehicles reads live\.positions now\.\ntickets\.vehicles lists 2: 1 live, 1 parked\./);
    assert.deepEqual(
      (await now()).map(({ vehicle_id, label, lng, lat, freshness, source }) => [
        vehicle_id,
        label,
        lng,
        lat,
        freshness,
        source,
      ]),
      [
        ['8600', 'KDA 123A', 36.82, -1.28, 'live', 'live.positions'],
        ['8601', 'KDB 777B', 36.8, -1.29, 'parked', 'live.positions'],
      ],
    );
    assert.deepEqual(await verdict(), { state: 'ok', detail: '2: 1 live, 1 parked' });
  });

  test('that keeps every position is read for the newest of each, its local time as Nairobi’s', async () => {
    assert.equal((await fleettickets('vehicles', '--use', 'Fleet Log.gps-log', '--apply')).status, 0);
    assert.deepEqual(
      (await now()).map(({ vehicle_id, lat, freshness }) => [vehicle_id, lat, freshness]),
      ['1', '2', '3'].map((id) => [id, -1.28, 'live']),
    );
    assert.equal((await verdict()).state, 'ok');
  });

  test('of points is read as well', async () => {
    assert.equal((await fleettickets('vehicles', '--use', 'gis.units', '--apply')).status, 0);
    const [found] = await now();
    assert.deepEqual(
      [found.vehicle_id, found.team, found.lng, found.lat, found.moving],
      ['U1', 'Kilimani A', 36.82, -1.28, true],
    );
  });

  test('of points in a projection is read in degrees', async () => {
    await env.pool.query(
      `create table gis.projected (unit text unique, geom geometry(Point, 21037), ts timestamptz);
       insert into gis.projected values ('U1', st_transform(st_setsrid(st_makepoint(36.82, -1.28), 4326), 21037), now())`,
    );
    assert.equal((await fleettickets('vehicles', '--use', 'gis.projected', '--apply')).status, 0);
    const [found] = await now();
    assert.deepEqual([found.lng.toFixed(6), found.lat.toFixed(6), found.freshness], ['36.820000', '-1.280000', 'live']);
  });

  test('that is an error to read, or has times of infinity, hides no other', async () => {
    await env.pool.query(
      `create materialized view gis.unread as select * from gis.units with no data;
       insert into gis.units values ('U2', null, 'infinity', null, false)`,
    );
    const { status, out } = await fleettickets('vehicles', '--json');
    assert.equal(status, 0, out);
    const { trackers } = JSON.parse(out);
    const rows = trackers.map((tracker: { table: string; rows: number | null }) => [tracker.table, tracker.rows]);
    assert.deepEqual(rows.slice(1, 3), [
      ['gis.units', 2],
      ['gis.unread', null],
    ]);
    assert.ok(Math.abs(Date.now() - Date.parse(trackers[1].newest)) < 120_000);
    assert.equal((await fleettickets('vehicles', '--use', 'gis.units', '--apply')).status, 0);
    assert.equal((await verdict()).state, 'warning', 'one of two is nowhere');
  });

  test('is refused with a reason where it is no such table, a view, or not understood', async () => {
    for (const [name, reason] of [
      ['live.nothing', /There is no table live\.nothing in this database/],
      ['other.latest', /There is no table other\.latest in this database \(schema\.table, not a view\)/],
      ['other.customers', /No column of other\.customers is recognised as the vehicle\. Write the view yourself/],
      ['tickets.inc', /There is no table tickets\.inc/],
      [`live.positions'; drop table tickets.inc; --`, /There is no table/],
    ] as const) {
      const { status, err } = await fleettickets('vehicles', '--use', name, '--apply');
      assert.equal(status, 1, name);
      assert.match(err, reason);
    }
    assert.equal((await fleettickets('vehicles', '--apply')).status, 2);
  });

  test('that was dropped with the view is used again, by the same readers', async () => {
    await fleettickets('vehicles', '--use', 'live.positions', '--apply');
    await env.pool.query('drop view tickets.vehicles');
    await report(env.pool, [{ id: 'WOT1', lng: 36.83, lat: -1.28 }]);
    const broken = await verdict();
    assert.equal(broken.state, 'failed');
    assert.match(broken.detail, /"tickets\.vehicles" does not exist/);
    assert.match((await fleettickets('vehicles')).out, /tickets\.vehicles cannot be read: /);
    assert.match(
      (await fleettickets('dispatch')).err,
      /^The view tickets\.vehicles is gone, as it goes with the table that it reads\. Make it again: fleettickets vehicles$/m,
    );
    assert.equal((await fleettickets('vehicles', '--use', 'live.positions', '--apply')).status, 0);
    assert.equal((await now()).length, 2);
    const { rows } = await env.pool.query(
      `select has_table_privilege(role, 'tickets.vehicles', 'select') as may from unnest(array['tickets_reader', 'tickets_dispatcher']) as role`,
    );
    assert.deepEqual(rows, [{ may: true }, { may: true }]);
  });

  describe('is looked at by the doctor', () => {
    const pointAt = (select: string) => env.pool.query(`create or replace view tickets.vehicles as ${select}`);
    const AS_SHIPPED = `imei::text as vehicle_id, device_name as label, null::text as team, lng::float8 as lng, lat::float8 as lat,
      gps_time::timestamptz as located_at, hb_time as seen_at, null::boolean as moving, speed::float8 as speed_kmh, ''::text as source`;

    test('unpointed: nothing to check', async () => {
      assert.deepEqual(await verdict(), {
        state: 'skipped',
        detail: 'tickets.vehicles lists none; fleettickets vehicles points it at a tracker',
      });
    });

    for (const [what, change, from, detail, remedy] of [
      [
        'several rows of a vehicle',
        'select',
        'live.positions, generate_series(1, 2)',
        /2 of them have several rows/,
        /newest row of each/,
      ],
      [
        '3 hours ahead',
        `update live.positions set gps_time = now() + interval '3 hours'`,
        'live.positions',
        /3 hours ahead/,
        /'Africa\/Nairobi'/,
      ],
      [
        '3 hours behind',
        `update live.positions set gps_time = now() - interval '179 minutes', hb_time = null`,
        'live.positions',
        /3 hours behind/,
        /'UTC'/,
      ],
      [
        'all too old',
        `update live.positions set gps_time = now() - interval '9 hours', hb_time = null`,
        'live.positions',
        /2 stale\nnone is usable/,
        /still writes/,
      ],
      [
        'exchanged coordinates',
        'update live.positions set lng = lat, lat = lng',
        'live.positions',
        /many positions are missing/,
        /exchanged/,
      ],
      [
        'one clock that is 3 hours ahead, beside others that are right',
        `update live.positions set gps_time = now() + interval '3 hours' where imei = '8601';
         insert into live.positions select '8602', device_name, lat, lng, gps_time, hb_time, speed from live.positions where imei = '8600'`,
        'live.positions',
        /^3: 2 live, 1 clock\nmany positions are [^\n]*in the future$/,
        /look at tickets\.vehicles/,
      ],
      ['a view of others', 'select', 'other.latest', /calls view other\.latest/, /read the table itself/],
    ] as const) {
      test(what, async () => {
        await env.pool.query(change);
        await pointAt(`select ${AS_SHIPPED} from ${from}`);
        const found = await verdict();
        assert.equal(found.state, 'warning', JSON.stringify(found));
        assert.match(found.detail, detail);
        assert.match(found.remedy ?? '', remedy);
      });
    }
  });

  test('feeds fleettickets dispatch: a dry run, then --apply', async () => {
    await fleettickets('vehicles', '--use', 'live.positions', '--apply');
    await report(env.pool, [
      { id: 'WOT1', lng: 36.83, lat: -1.28, cluster: 'Kilimani' },
      { id: 'WOT2', lng: 36.84, lat: -1.28, hours: 45 },
      { id: 'WOT3', lng: 36.85, lat: -1.28 },
      { id: 'WOT4' },
    ]);
    const dry = await fleettickets('dispatch');
    assert.equal(dry.status, 0);
    assert.match(dry.out, / KDB 777B \| +1 \| WOT2 +\| 6\.4 \| at risk \| +45 /);
    assert.match(
      dry.out,
      /2 tickets for 2 vehicles, some \d+ km of road\.\n1 left out: every vehicle within reach goes elsewhere\n1 left out: no place is known\nThis was a dry run/,
    );
    const assigned = async () =>
      (await env.pool.query(`select ticket_id from tickets.assignments where state = 'assigned' order by 1`)).rows
        .length;
    assert.equal(await assigned(), 0);
    const { out } = await fleettickets('dispatch', '--capacity', '2', '--apply', '--json');
    const { stops, leftOut, applied } = JSON.parse(out);
    assert.deepEqual([stops.length, leftOut.length, applied], [3, 1, true]);
    assert.equal(await assigned(), 3);
    for (const capacity of ['0', 'two', '1.5', '-1'])
      assert.equal((await fleettickets('dispatch', `--capacity=${capacity}`)).status, 2);
    assert.match((await fleettickets('dispatch', '--capacity', '2')).out, /^0 tickets for 0 vehicles/);
  });

  test('fleettickets dispatch is narrowed by region, cluster, team, radius and freshness', async () => {
    await createTracker(env.pool);
    await park(env.pool, [
      { id: 'V1', lng: 36.82, lat: -1.28, team: 'A' },
      { id: 'V2', lng: 36.83, lat: -1.28, team: 'b ' }, // as other software writes it
      { id: 'V3', lng: 36.84, lat: -1.28, team: 'B', located: 180 },
    ]);
    await report(env.pool, [
      { id: 'WOT1', lng: 36.82, lat: -1.28, cluster: 'Kilimani', region: 'nairobi', team: 'A' },
      { id: 'WOT2', lng: 36.83, lat: -1.28, cluster: 'Karen', region: 'nairobi', team: 'A' },
      { id: 'WOT3', lng: 37.1, lat: -1.28, cluster: 'Thika', region: 'central', team: 'B' },
    ]);
    const planned = async (...args: string[]) => {
      const { stops, leftOut } = JSON.parse((await fleettickets('dispatch', '--json', ...args)).out);
      return [
        ...stops.map((stop: { vehicle_id: string; ticket_id: string }) => `${stop.vehicle_id} ${stop.ticket_id}`),
        ...leftOut.map((left: { ticket_id: string; note: string }) => `${left.ticket_id}: ${left.note}`),
      ];
    };
    assert.deepEqual(await planned('--region', 'Central'), ['V2 WOT3']);
    assert.deepEqual(await planned('--cluster', 'KAREN'), ['V2 WOT2']);
    assert.deepEqual(await planned('--same-team'), [
      'V1 WOT1',
      'V2 WOT3',
      'WOT2: every vehicle within reach goes elsewhere',
    ]);
    assert.deepEqual(await planned('--team', ' a'), ['V1 WOT1', 'WOT2: every vehicle within reach goes elsewhere']);
    assert.deepEqual(await planned('--radius', '7.5'), ['V1 WOT1', 'V2 WOT2', 'WOT3: no free vehicle within 7.5 km']);
    assert.match((await fleettickets('dispatch', '--team', 'B')).out, /\n1 without a ticket, stale: KDA V3\n/);
    assert.deepEqual(await planned('--stale'), ['V1 WOT1', 'V2 WOT2', 'V3 WOT3']);
    assert.match(
      (await fleettickets('dispatch', '--region', 'Nairobbi')).out,
      /^0 tickets .*\nNo open ticket that is free is among those asked for\.\n/,
    );
    for (const radius of ['-1', 'NaN', 'Infinity', '1e9', 'near', ''])
      assert.equal((await fleettickets('dispatch', `--radius=${radius}`)).status, 2, radius);
    const around = await fleettickets('dispatch', '--radius=20101');
    assert.equal(around.status, 1);
    assert.match(around.err, /p_radius_km is 20101: give kilometres from 0 to 20100/);
  });
});
