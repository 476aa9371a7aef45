import assert from 'node:assert/strict';
import { after, before, beforeEach, describe, test } from 'node:test';
import { Dice } from '../../demo/chance.ts';
import { type Environment, startEnvironment } from '../support/environment.ts';
import { createTracker, park, report } from '../support/fleet.ts';

const NAIROBI = { lng: 36.82, lat: -1.28 };

describe('nearest vehicles and tickets', () => {
  let env: Environment;
  before(async () => {
    env = await startEnvironment();
    await createTracker(env.pool);
  });
  after(() => env.close());
  beforeEach(() => env.reset());

  /** Rows, and what the database says beside them. */
  const ask = async (sql: string, values: unknown[] = []) => {
    const client = await env.pool.connect();
    const notices: string[] = [];
    const note = ({ message = '' }: { message?: string | undefined }) => void notices.push(message);
    client.on('notice', note);
    try {
      return { rows: (await client.query(sql, values)).rows, notices };
    } finally {
      client.off('notice', note);
      client.release();
    }
  };
  const idsOf = (rows: { ticket_id?: string; vehicle_id?: string }[]) =>
    rows.map((row) => row.ticket_id ?? row.vehicle_id);

  test('of tickets are those of brute force, in its order, at every limit and radius', async () => {
    const dice = new Dice(7);
    // North to south and east to west differ on the spheroid; some tickets share a point, some lie far away, one nowhere.
    const point = () => ({ lng: 36.82 + (dice.next() - 0.5) * 0.8, lat: -1.28 + (dice.next() - 0.5) * 0.8 });
    const shared = [point(), point()];
    await report(
      env.pool,
      Array.from({ length: 400 }, (_, n) => ({
        id: `WOT${n}`,
        ...(n % 5 === 0 ? shared[n % 2] : point()),
        ...(n === 13 && { lng: 39.66, lat: -4.05 }),
        open: n % 4 !== 0,
      })),
    );
    await report(env.pool, [{ id: 'NOWHERE' }]);
    await park(env.pool, [
      { id: 'V1', ...NAIROBI },
      { id: 'V2', lng: 36.5, lat: -1.6 },
      { id: 'V3', ...(shared[0] as typeof NAIROBI) },
    ]);
    for (const vehicle of ['V1', 'V2', 'V3']) {
      const { rows: brute } = await ask(
        `select t.ticket_id, st_distance(t.geog, v.geog) as metres
         from tickets.inc t, tickets.vehicles_now v where t.is_actionable and t.geog is not null and v.vehicle_id = $1
         order by 2, 1`,
        [vehicle],
      );
      for (const limit of [1, 2, 10, 77, 1_000]) {
        for (const radius of [null, 0, 3, 30]) {
          const { rows } = await ask('select * from tickets.nearest_tickets($1, $2, $3)', [vehicle, limit, radius]);
          const expected = brute.filter(({ metres }) => radius === null || metres <= radius * 1_000).slice(0, limit);
          assert.deepEqual(
            rows.map(({ ticket_id, metres }) => ({ ticket_id, metres })),
            expected,
            `${vehicle} ${limit} ${radius}`,
          );
        }
      }
      const { rows: within } = await ask(
        'select t.* from tickets.vehicles_now v, tickets.tickets_within(v.lng, v.lat, 20) t where v.vehicle_id = $1',
        [vehicle],
      );
      assert.deepEqual(idsOf(within), idsOf(brute.filter(({ metres }) => metres <= 20_000)));
    }
  });

  test('of vehicles are those of brute force, ties by id', async () => {
    const dice = new Dice(8);
    await park(
      env.pool,
      Array.from({ length: 60 }, (_, n) => ({
        id: `V${n % 3 === 0 ? n : 100 - n}`,
        lng: 36.82 + (n % 7 === 0 ? 0.05 : (dice.next() - 0.5) * 0.5),
        lat: -1.28 + (n % 7 === 0 ? 0.05 : (dice.next() - 0.5) * 0.5),
        located: n % 10 === 1 ? 300 : 1,
      })),
    );
    await report(env.pool, [{ id: 'WOT1', ...NAIROBI }]);
    for (const stale of [false, true]) {
      const { rows: brute } = await ask(
        `select v.vehicle_id, st_distance(t.geog, v.geog) as metres
         from tickets.inc t, tickets.vehicles_now v where v.usable or $1 order by 2, 1`,
        [stale],
      );
      for (const [limit, radius] of [
        [5, null],
        [100, null],
        [100, 10],
        [3, 10],
      ] as const) {
        const { rows } = await ask('select * from tickets.nearest_vehicles($1, $2, $3, $4)', [
          'WOT1',
          limit,
          radius,
          stale,
        ]);
        const expected = brute.filter(({ metres }) => radius === null || metres <= radius * 1_000).slice(0, limit);
        assert.deepEqual(
          rows.map(({ vehicle_id, metres }) => ({ vehicle_id, metres })),
          expected,
        );
      }
    }
  });

  test('a real place comes before a centroid at the same distance, and assigned tickets only when asked for', async () => {
    await env.pool.query(
      `insert into tickets.geo_clusters (cluster, geom) values ('Kilimani', st_setsrid(st_makepoint(36.83, -1.29), 4326))`,
    );
    await report(env.pool, [
      { id: 'WOT1', cluster: 'Kilimani' },
      { id: 'WOT2', lng: 36.83, lat: -1.29, hours: 50, team: 'Kilimani A' },
      { id: 'WOT3', lng: 36.83, lat: -1.29, hours: 41 },
    ]);
    await park(env.pool, [{ id: 'V1', ...NAIROBI }]);
    const { rows } = await ask(`select * from tickets.nearest_tickets('V1')`);
    assert.deepEqual(idsOf(rows), ['WOT2', 'WOT3', 'WOT1']);
    assert.deepEqual(
      rows.map(({ sla_state, at_risk, geo_source, assigned_to }) => [sla_state, at_risk, geo_source, assigned_to]),
      [
        ['breached', false, 'feed', null],
        ['ok', true, 'feed', null],
        ['ok', false, 'cluster', null],
      ],
    );
    const [first] = rows;
    assert.equal(first.road_km_estimate, ((first.metres * 1.4) / 1_000).toFixed(2));
    assert.equal(first.minutes_estimate, (((first.metres * 1.4) / 1_000 / 25) * 60).toFixed(1));
    await env.pool.query(`select tickets.assign('WOT3', 'V1')`);
    assert.deepEqual(idsOf((await ask(`select * from tickets.nearest_tickets('V1')`)).rows), ['WOT2', 'WOT1']);
    const { rows: all } = await ask(`select * from tickets.nearest_tickets('V1', p_unassigned => false)`);
    assert.deepEqual(
      all.map(({ assigned_to }) => assigned_to),
      [null, 'V1', null],
    );
  });

  test('a point that is nowhere is no query: an error for what is not there, a notice for what has no place', async () => {
    await report(env.pool, [{ id: 'WOT1', ...NAIROBI }, { id: 'WOT2' }, { id: 'WOT3', ...NAIROBI, open: false }]);
    await park(env.pool, [
      { id: 'V1', lng: 0, lat: 0 },
      { id: 'V2', ...NAIROBI, located: 2_000 },
      { id: 'V3', ...NAIROBI, located: -180 },
      { id: 'V4', ...NAIROBI, located: null },
    ]);
    for (const [query, reason] of [
      [`select * from tickets.nearest_vehicles('WOT9')`, /There is no open ticket WOT9\./],
      [`select * from tickets.nearest_vehicles('WOT3')`, /There is no open ticket WOT3\./],
      [`select * from tickets.nearest_vehicles(null)`, /There is no open ticket/],
      [`select * from tickets.nearest_vehicles('WOT1', 0)`, /p_limit is 0: give a whole number, 1 or more/],
      ...['-1', `'NaN'`, `'Infinity'`, '1e9'].flatMap((radius) =>
        [
          `tickets.nearest_vehicles('WOT1', 5, ${radius})`,
          `tickets.nearest_tickets('V2', 5, ${radius})`,
          `tickets.tickets_within(36.8, -1.28, ${radius})`,
        ].map((query) => [`select * from ${query}`, /p_radius_km is .+: give kilometres from 0 to 20100/] as const),
      ),
      [`select * from tickets.nearest_tickets('V9')`, /There is no vehicle V9 in tickets\.vehicles\./],
      [`select * from tickets.nearest_tickets('V1', null)`, /p_limit is NULL: give a whole number, 1 or more/],
      ['select * from tickets.tickets_within(null, -1.28, 5)', /no place on earth/],
      [`select * from tickets.tickets_within(36.8, 'NaN', 5)`, /no place on earth/],
      ['select * from tickets.tickets_within(200, 95, 5)', /no place on earth/],
    ] as const)
      await assert.rejects(ask(query), reason, query);
    for (const [query, notice, rows] of [
      [`select * from tickets.nearest_vehicles('WOT2')`, /Nobody knows where ticket WOT2 is/, 0],
      [`select * from tickets.nearest_tickets('V1')`, /Nobody knows where vehicle V1 is/, 0],
      [`select * from tickets.nearest_tickets('V2')`, /position of vehicle V2 is lost: taken 1 day 09:20:00 ago/, 1],
      [
        `select * from tickets.nearest_tickets('V3')`,
        /position of vehicle V3 is clock: its time lies 02:59:00 ahead/,
        1,
      ],
      [
        `select * from tickets.nearest_tickets('V4')`,
        /position of vehicle V4 is lost: nobody knows when it was taken/,
        1,
      ],
    ] as const) {
      const answer = await ask(query);
      assert.equal(answer.rows.length, rows, query);
      assert.match(answer.notices.join(), notice, query);
    }
  });
});
