import assert from 'node:assert/strict';
import { after, before, beforeEach, describe, test } from 'node:test';
import { type Environment, startEnvironment } from '../support/environment.ts';
import { createTracker, park, report, type Vehicle } from '../support/fleet.ts';

const NAIROBI = { lng: 36.82, lat: -1.28 };

describe('vehicles', () => {
  let env: Environment;
  before(async () => {
    env = await startEnvironment();
  });
  after(() => env.close());

  test('the view is empty as shipped, and what reads it works', async () => {
    for (const query of [
      'select * from tickets.vehicles',
      'select * from tickets.vehicles_now',
      'select * from tickets.dispatch_plan()',
      'select * from tickets.dispatch_plan(3)',
      'select * from tickets.assignments_in_doubt',
    ]) {
      assert.equal((await env.pool.query(query)).rowCount, 0, query);
    }
    const { rows } = await env.pool.query('select tickets.dispatch_problem() as problem');
    assert.deepEqual(rows, [{ problem: { vehicles: [], jobs: [] } }]);
  });

  test('Postgres refuses a view that lacks a column or has one of another type', async () => {
    await assert.rejects(
      env.pool.query(
        `create or replace view tickets.vehicles as select 'V1'::text as vehicle_id, 'KDA 1'::text as label`,
      ),
      /cannot drop columns from view/,
    );
    await assert.rejects(
      env.pool.query(
        `create or replace view tickets.vehicles as
         select vehicle_id, label, team, lng::text, lat, located_at, seen_at, moving, speed_kmh, source from tickets.vehicles`,
      ),
      /cannot change data type of view column "lng"/,
    );
  });

  describe('of a tracker', () => {
    before(() => createTracker(env.pool));
    beforeEach(() => env.reset());

    const seen = async () => {
      const { rows } = await env.pool.query('select * from tickets.vehicles_now order by vehicle_id');
      return rows;
    };

    // What may be believed of a position, by place, by time, and by what a sleeping tracker says.
    const CASES: [what: string, vehicle: Partial<Vehicle>, freshness: string][] = [
      ['located just now', { located: 0 }, 'live'],
      ['located 15 minutes ago', { located: 14.99 }, 'live'],
      ['located 16 minutes ago, and not heard of since', { located: 16 }, 'stale'],
      ['located 16 minutes ago, standing, heard of now', { located: 16, seen: 1, moving: false }, 'parked'],
      ['located 3 days ago, asleep, heard of an hour ago', { located: 4_320, seen: 59.9, moving: false }, 'parked'],
      ['located 3 days ago, asleep, heard of longer ago', { located: 4_320, seen: 61, moving: false }, 'lost'],
      ['located 16 minutes ago, moving, heard of now', { located: 16, seen: 1, moving: true }, 'stale'],
      ['heard of now, and nobody says whether it moves', { located: 16, seen: 1, moving: null }, 'stale'],
      ['heard of now, and its speed is 0', { located: 16, seen: 1, moving: null, speed: 0 }, 'parked'],
      ['heard of now, and its speed is 40', { located: 16, seen: 1, moving: null, speed: 40 }, 'stale'],
      ['heard of in the future', { located: 16, seen: -180, moving: false }, 'stale'],
      ['located 24 hours ago', { located: 1_439 }, 'stale'],
      ['located 24 hours and a minute ago', { located: 1_441 }, 'lost'],
      ['never located in time', { located: null, seen: 1, moving: false }, 'lost'],
      ['located in a minute', { located: -1 }, 'live'],
      ['located in 3 hours: a time zone mistake', { located: -180 }, 'clock'],
      ['without a position', { lng: null }, 'nowhere'],
      ['without a latitude', { lat: null }, 'nowhere'],
      ['at null island', { lng: 0, lat: 0 }, 'nowhere'],
      ['in Kampala', { lng: 32.58, lat: 0.35 }, 'live'],
      ['in Dar es Salaam', { lng: 39.28, lat: -6.8 }, 'live'],
      ['in Kampala with longitude and latitude exchanged', { lng: 0.35, lat: 32.58 }, 'nowhere'],
      ['in London', { lng: -0.12, lat: 51.5 }, 'nowhere'],
      ['at longitude 200, which geography would wrap', { lng: 396.82 }, 'nowhere'],
      ['on the equator at its own longitude', { lng: 36.8, lat: 0 }, 'live'],
    ];

    for (const [what, vehicle, freshness] of CASES) {
      test(`${what}: ${freshness}`, async () => {
        await park(env.pool, [{ id: 'V1', ...NAIROBI, ...vehicle }]);
        const [found] = await seen();
        assert.equal(found.freshness, freshness);
        assert.equal(found.usable, freshness === 'live' || freshness === 'parked');
        assert.equal(found.geog === null, freshness === 'nowhere');
      });
    }

    test('positions that are no numbers are nowhere', async () => {
      await park(env.pool, [{ id: 'V1', ...NAIROBI }]);
      for (const value of ['NaN', 'Infinity', '-Infinity']) {
        await env.pool.query('update tracker.positions set latitude = $1', [value]);
        assert.equal((await seen())[0].freshness, 'nowhere', value);
      }
    });

    test('a time of infinity is none, and no error for the other vehicles', async () => {
      for (const value of ['infinity', '-infinity']) {
        await park(env.pool, [
          { id: 'V1', ...NAIROBI },
          { id: 'V2', ...NAIROBI, located: 5 },
          { id: 'V3', ...NAIROBI, located: 16, moving: false },
        ]);
        await env.pool.query(
          `update tracker.positions set fix_time = case imei when 'V1' then $1::timestamptz else fix_time end, heartbeat = $1
           where imei <> 'V2'`,
          [value],
        );
        assert.deepEqual(
          (await seen()).map(({ vehicle_id, freshness }) => [vehicle_id, freshness]),
          [
            ['V1', 'lost'],
            ['V2', 'live'],
            ['V3', 'stale'],
          ],
          value,
        );
        await report(env.pool, [{ id: `WOT ${value}` }]);
        await env.pool.query('select tickets.assign($1, $2)', [`WOT ${value}`, 'V1']);
      }
      const { rows } = await env.pool.query('select distinct doubt from tickets.assignments_in_doubt');
      assert.deepEqual(rows, [{ doubt: 'nothing was ever heard of the vehicle' }]);
    });

    test('follow the settings, which refuse nonsense', async () => {
      await park(env.pool, [{ id: 'V1', ...NAIROBI, located: 20 }]);
      const client = await env.pool.connect();
      try {
        await client.query('begin');
        await client.query(
          'update tickets.dispatch_settings set live_minutes = 30, area = st_makeenvelope(36, -2, 37, -1, 4326)',
        );
        const now = 'select freshness from tickets.vehicles_now';
        assert.deepEqual((await client.query(now)).rows, [{ freshness: 'live' }]);
        await client.query('update tracker.positions set longitude = 38');
        assert.deepEqual((await client.query(now)).rows, [{ freshness: 'nowhere' }]);
        await client.query('rollback');
      } finally {
        client.release();
      }
      for (const nonsense of [
        'detour = 0.5',
        `radius_km = 'NaN'`,
        'live_minutes = 3000',
        'area = st_makepoint(1, 1)',
        'only_row = false',
      ])
        await assert.rejects(
          env.pool.query(`update tickets.dispatch_settings set ${nonsense}`),
          /check|violates|Geometry/,
          nonsense,
        );
      await assert.rejects(
        env.pool.query('insert into tickets.dispatch_settings select * from tickets.dispatch_settings'),
        /duplicate key/,
      );
    });

    test('are one row each, the newest, even where the view has several', async () => {
      await park(env.pool, [
        { id: 'V1', ...NAIROBI, located: 5 },
        { id: 'V1', lng: 36.9, lat: -1.2, located: 2 },
        { id: 'V2', ...NAIROBI },
      ]);
      assert.deepEqual(
        (await seen()).map(({ vehicle_id, lng }) => [vehicle_id, lng]),
        [
          ['V1', 36.9],
          ['V2', NAIROBI.lng],
        ],
      );
    });

    test('count the tickets that they are assigned to', async () => {
      await park(env.pool, [{ id: 'V1', ...NAIROBI }]);
      await report(env.pool, [{ id: 'WOT1', ...NAIROBI }, { id: 'WOT2' }]);
      await env.pool.query(`select tickets.assign('WOT1', 'V1'), tickets.assign('WOT2', 'V1')`);
      assert.equal((await seen())[0].open_assignments, 2);
      await env.pool.query(`select tickets.release('WOT1', 'flat tyre')`);
      assert.equal((await seen())[0].open_assignments, 1);
    });

    test('a tracker that drops its table takes the operator’s view along, and nothing of ours', async () => {
      const functions = `select count(*)::int as n from pg_proc where pronamespace in ('tickets'::regnamespace, 'tickets_ops'::regnamespace)`;
      const before = (await env.pool.query(functions)).rows;
      await env.pool.query('drop schema tracker cascade');
      assert.deepEqual((await env.pool.query(functions)).rows, before);
      await assert.rejects(
        env.pool.query('select * from tickets.vehicles_now'),
        /relation "tickets.vehicles" does not exist/,
      );
      assert.equal((await env.pool.query('select * from tickets.inc_open_sla')).rowCount, 0);
      await createTracker(env.pool);
      assert.deepEqual(await seen(), []);
    });
  });
});
