import assert from 'node:assert/strict';
import { after, before, beforeEach, describe, test } from 'node:test';
import { z } from 'zod';
import { Dice } from '../../demo/chance.ts';
import { type Environment, startEnvironment } from '../support/environment.ts';
import { createTracker, park, report, type Ticket, type Vehicle } from '../support/fleet.ts';
import { bestTours, optimum } from '../support/optimum.ts';

const NAIROBI = { lng: 36.82, lat: -1.28 };

interface Planned {
  vehicle_id: string | null;
  position: number | null;
  ticket_id: string;
  metres: number | null;
  cost_km: number | null;
  note: string | null;
}

describe('tickets.dispatch_plan', () => {
  let env: Environment;
  before(async () => {
    env = await startEnvironment();
    await createTracker(env.pool);
  });
  after(() => env.close());
  beforeEach(() => env.reset());

  const plan = async (args = ''): Promise<Planned[]> =>
    (await env.pool.query<Planned>(`select * from tickets.dispatch_plan(${args})`)).rows;
  const sent = (rows: readonly Planned[]) =>
    Object.fromEntries(
      rows.filter((row) => row.vehicle_id).map(({ ticket_id, vehicle_id }) => [ticket_id, vehicle_id]),
    );
  const notes = (rows: readonly Planned[]) => Object.fromEntries(rows.map(({ ticket_id, note }) => [ticket_id, note]));

  /** Vehicles and tickets at random: some tickets share a place, some have none, all states of the SLA, three teams. */
  const scatter = async (seed: number, vehicles: number, tickets: number, spread = 0.6) => {
    const dice = new Dice(seed);
    const point = (width: number) => ({
      lng: 36.82 + (dice.next() - 0.5) * width,
      lat: -1.28 + (dice.next() - 0.5) * width,
    });
    const shared = point(0.6);
    const fleet: Vehicle[] = Array.from({ length: vehicles }, (_, n) => ({
      id: `V${n}`,
      ...point(spread),
      team: dice.pick(['A', 'B', 'C']),
    }));
    const open: Ticket[] = Array.from({ length: tickets }, (_, n) => ({
      id: `WOT${n}`,
      ...(dice.chance(0.05) ? {} : dice.chance(0.1) ? shared : point(0.6)),
      hours: dice.pick([5, 5, 45, 60]),
      team: dice.pick(['A', 'B', 'C']),
    }));
    await env.reset();
    await park(env.pool, fleet);
    await report(env.pool, open);
  };
  const cost =
    "st_distance(v.geog, t.geog) * 1.4 / 1000 - case when t.at_risk then 10 when t.sla_state = 'breached' then 5 else 0 end";

  /** The plan for one ticket each, against an independent optimum over all pairs that are allowed. */
  const assertOptimal = async (what: string, radius: number, sameTeam: boolean) => {
    const rows = await plan(`p_radius_km => ${radius}, p_same_team => ${sameTeam}`);
    const { rows: pairs } = await env.pool.query<{
      vehicle_id: string;
      ticket_id: string;
      cost: number;
      allowed: boolean;
    }>(
      `select v.vehicle_id, t.ticket_id, ${cost} as cost,
         st_distance(v.geog, t.geog) <= $1 * 1000 and (not $2 or v.team = t.assigned_team) as allowed
       from tickets.vehicles_now v, tickets.inc_open_sla t where t.geog is not null`,
      [radius, sameTeam],
    );
    const byVehicle = Map.groupBy(pairs, (pair) => pair.vehicle_id);
    const best = optimum(
      [...byVehicle.values()].map((list) => list.map((pair) => (pair.allowed ? pair.cost : undefined))),
    );
    const chosen = rows.filter((row) => row.vehicle_id !== null);
    const found = chosen.reduce((sum, row) => sum + (row.cost_km ?? 0), 0);
    assert.equal(chosen.length, best.pairs, what);
    assert.ok(Math.abs(found - best.cost) < 1e-6, `${what}: ${found} instead of ${best.cost}`);
    const costOf = new Map(pairs.map((pair) => [`${pair.vehicle_id} ${pair.ticket_id}`, pair.cost]));
    for (const row of chosen)
      assert.ok(Math.abs((row.cost_km ?? 0) - (costOf.get(`${row.vehicle_id} ${row.ticket_id}`) ?? Number.NaN)) < 1e-9);
  };

  test('for one ticket each is as good as an independent optimum, in twenty random problems', async () => {
    for (let seed = 1; seed <= 20; seed += 1) {
      const dice = new Dice(seed);
      await scatter(
        seed,
        1 + dice.below(dice.pick([14, 14, 24])),
        1 + dice.below(dice.pick([40, 40, 90])),
        dice.pick([0.6, 0.6, 0.001, 0]),
      );
      await assertOptimal(`seed ${seed}`, dice.pick([50, 50, 15, 5]), dice.chance(0.3));
    }
  });

  test('for one ticket each is as good as an independent optimum where many vehicles stand in one depot or in two', async () => {
    // Up to 11 km apart, so that the radius reaches from some and not from others; at one point, all costs are ties.
    for (const [seed, spread, radius] of [
      [1, 0, 50],
      [2, 0.0005, 50],
      [3, 0.0005, 9],
      [4, 0.02, 50],
      [5, 0.02, 12],
      [6, 0.1, 20],
    ] as const) {
      await scatter(seed, 30, 120, spread);
      await assertOptimal(`one depot, seed ${seed}`, radius, false);
      await assertOptimal(`one depot with teams, seed ${seed}`, radius, true);
      await env.pool.query(`update tracker.positions set longitude = longitude + 0.2 where imei ~ '[13579]$'`);
      await assertOptimal(`two depots, seed ${seed}`, radius, false);
    }
  });

  test('for several tickets each is the cheapest pair again and again, in twenty random problems', async () => {
    for (let seed = 1; seed <= 20; seed += 1) {
      const dice = new Dice(seed);
      await scatter(seed, 1 + dice.below(8), 1 + dice.below(150), dice.pick([0.6, 0.001, 0]));
      const capacity = 2 + dice.below(5);
      const radius = dice.pick([50, 12]);
      const sameTeam = dice.chance(0.3);
      const rows = await plan(`${capacity}, ${radius}, p_same_team => ${sameTeam}`);
      assert.deepEqual(
        rows
          .filter((row) => row.vehicle_id)
          .map(({ vehicle_id, position, ticket_id }) => `${vehicle_id} ${position} ${ticket_id}`),
        (await greedy(capacity, radius, sameTeam)).sort(),
        `seed ${seed}`,
      );
    }
  });

  test('for several tickets each leaves out no more than it must, and is near the best tours there are', async (t) => {
    const ratios: number[] = [];
    for (let seed = 1; seed <= 20; seed += 1) {
      const dice = new Dice(seed);
      const vehicles = 1 + dice.below(4);
      const tickets = 2 + dice.below(7);
      const capacity = 2 + dice.below(3);
      const point = () => ({ lng: 36.82 + (dice.next() - 0.5) * 0.4, lat: -1.28 + (dice.next() - 0.5) * 0.4 });
      await env.reset();
      await park(
        env.pool,
        Array.from({ length: vehicles }, (_, n) => ({ id: `V${n}`, ...point() })),
      );
      await report(
        env.pool,
        Array.from({ length: tickets }, (_, n) => ({ id: `WOT${n}`, ...point() })),
      );
      const rows = (await plan(`${capacity}, 1000`)).filter((row) => row.vehicle_id);
      assert.equal(rows.length, Math.min(tickets, capacity * vehicles), `seed ${seed}`);
      const found = rows.reduce((sum, row) => sum + (row.cost_km ?? 0), 0);
      const legs = async (from: string) =>
        (
          await env.pool.query<{ costs: number[] }>(
            `select array_agg(st_distance(f.geog, t.geog) * 1.4 / 1000 order by t.ticket_id) as costs
             from ${from} f, tickets.inc_open_sla t group by f.id order by f.id`,
          )
        ).rows.map(({ costs }) => costs);
      const best = bestTours({
        fromStart: await legs('(select vehicle_id as id, geog from tickets.vehicles_now)'),
        between: await legs('(select ticket_id as id, geog from tickets.inc_open_sla)'),
        capacity,
      });
      assert.ok(found > best - 1e-6, `seed ${seed}: ${found} km is less than the best, ${best} km`);
      ratios.push(found / best);
    }
    const mean = ratios.reduce((sum, ratio) => sum + ratio, 0) / ratios.length;
    t.diagnostic(
      `longer than the best tours: ${Math.round((mean - 1) * 100)} %, at most ${Math.round((Math.max(...ratios) - 1) * 100)} %`,
    );
    assert.ok(mean < 1.3, `${mean}`);
  });

  test('the best tours that it is compared with are those of trying every way', () => {
    // Two vehicles at 0 and 10 on a line, tickets at 1, 2 and 9: three each, and one each.
    const tickets = [1, 2, 9];
    const legs = (places: readonly number[]) => places.map((from) => tickets.map((to) => Math.abs(to - from)));
    const line = { fromStart: legs([0, 10]), between: legs(tickets) };
    assert.equal(bestTours({ ...line, capacity: 3 }), 3);
    assert.equal(bestTours({ ...line, capacity: 1 }), 2);
    assert.equal(bestTours({ ...line, fromStart: legs([0]), capacity: 3 }), 9);
    assert.equal(bestTours({ ...line, fromStart: legs([0]), capacity: 2 }), 2);
  });

  /** The rule of several tickets each, as plainly as it can be written. */
  const greedy = async (capacity: number, radius: number, sameTeam: boolean): Promise<string[]> => {
    const { rows } = await env.pool.query<{
      from: string;
      to: string;
      metres: number;
      bonus: number;
      from_team: string;
      to_team: string;
    }>(
      `with places as (
         select vehicle_id as id, geog, team from tickets.vehicles_now
         union all select ticket_id, geog, assigned_team from tickets.inc_open_sla where geog is not null
       )
       select p.id as "from", t.ticket_id as "to", st_distance(p.geog, t.geog) as metres, p.team as from_team, t.assigned_team as to_team,
         case when t.at_risk then 10 when t.sla_state = 'breached' then 5 else 0 end as bonus
       from places p, tickets.inc_open_sla t where t.geog is not null`,
    );
    const legs = Map.groupBy(rows, (leg) => leg.from);
    const vehicles = [...legs.keys()].filter((id) => id.startsWith('V')).sort();
    const at = new Map(vehicles.map((id) => [id, id]));
    const tours = new Map(vehicles.map((id) => [id, [] as string[]]));
    const taken = new Set<string>();
    for (;;) {
      const offers = vehicles
        .filter((id) => (tours.get(id)?.length ?? 0) < capacity)
        .flatMap((id) => {
          const team = legs.get(id)?.[0]?.from_team;
          return (legs.get(at.get(id) ?? '') ?? [])
            .filter(
              ({ to, metres, to_team }) =>
                !taken.has(to) && metres <= radius * 1_000 && (!sameTeam || team === to_team),
            )
            .map(({ to, metres, bonus }) => ({ id, to, cost: (metres * 1.4) / 1_000 - bonus }));
        });
      const best = offers.sort(
        (a, b) => a.cost - b.cost || (a.id < b.id ? -1 : a.id > b.id ? 1 : a.to < b.to ? -1 : 1),
      )[0];
      if (!best) break;
      taken.add(best.to);
      at.set(best.id, best.to);
      tours.get(best.id)?.push(best.to);
    }
    return [...tours].flatMap(([id, tickets]) => tickets.map((ticket, n) => `${id} ${n + 1} ${ticket}`));
  };

  test('keeps its rules: no ticket twice, capacity, radius, one row for each open ticket, equal output for equal input', async () => {
    for (const capacity of [1, 2, 5]) {
      await scatter(capacity, 12, 90);
      const rows = await plan(`${capacity}, 8`);
      const { rows: open } = await env.pool.query('select ticket_id from tickets.inc_open_sla order by 1');
      assert.deepEqual(rows.map(({ ticket_id }) => ticket_id).sort(), open.map(({ ticket_id }) => ticket_id).sort());
      const tours = Map.groupBy(
        rows.filter((row) => row.vehicle_id),
        (row) => row.vehicle_id,
      );
      for (const tour of tours.values())
        assert.deepEqual(
          tour.map(({ position }) => position),
          tour.map((_, n) => n + 1),
        );
      assert.ok(Math.max(...[...tours.values()].map((tour) => tour.length)) <= capacity);
      for (const { vehicle_id, metres, note } of rows) {
        if (vehicle_id) assert.ok(metres !== null && metres <= 8_000);
        else
          assert.match(
            note ?? '',
            /^(no place is known|no free vehicle within 8 km|every vehicle within reach goes elsewhere)$/,
          );
      }
      // In another order of the tracker's rows.
      await env.pool.query('create table tracker.moved as select * from tracker.positions order by random()');
      await env.pool.query('delete from tracker.positions');
      await env.pool.query('insert into tracker.positions select * from tracker.moved');
      await env.pool.query('drop table tracker.moved');
      assert.deepEqual(await plan(`${capacity}, 8`), rows);
    }
  });

  test('a ticket that can still be saved counts as 10 km nearer, a breached one as 5', async () => {
    await park(env.pool, [{ id: 'V1', ...NAIROBI }]);
    // Straight-line km by detour 1.4: 0.045° are 5 km, so 7 km of cost; 0.09° are 14.
    await report(env.pool, [
      { id: 'OK', lng: 36.82, lat: -1.28 + 0.045 },
      { id: 'BREACHED', lng: 36.82, lat: -1.28 + 0.075, hours: 60 },
      { id: 'AT RISK', lng: 36.82, lat: -1.28 + 0.105, hours: 45 },
    ]);
    const order = (await plan('3')).map(({ ticket_id }) => ticket_id);
    assert.deepEqual(sent(await plan()), { 'AT RISK': 'V1' });
    assert.equal(order[0], 'AT RISK');
    await env.pool.query(
      `update tickets.inc set raw = raw || '{"is_actionable": "false"}' where ticket_id = 'AT RISK'`,
    );
    assert.deepEqual(sent(await plan()), { BREACHED: 'V1' });
  });

  test('says why a ticket is left out, and what is odd about one that is not', async () => {
    await env.pool.query(
      `insert into tickets.geo_clusters (cluster, geom) values ('Kilimani', st_setsrid(st_makepoint(36.83, -1.29), 4326))`,
    );
    await park(env.pool, [
      { id: 'V1', ...NAIROBI, team: 'A' },
      { id: 'V2', ...NAIROBI, located: 180 },
      { id: 'V3', lng: 0, lat: 0 },
    ]);
    await report(env.pool, [
      { id: 'WOT1', cluster: 'Kilimani', team: 'A', region: 'nairobi' },
      { id: 'WOT2', lng: 36.85, lat: -1.3, team: 'A' },
      { id: 'WOT3', lng: 39.66, lat: -4.05, team: 'A' },
      { id: 'WOT4', team: 'A' },
      { id: 'WOT5', lng: 36.85, lat: -1.3, team: 'B' },
      { id: 'WOT6', ...NAIROBI, open: false },
    ]);
    assert.deepEqual(notes(await plan()), {
      WOT1: 'lies somewhere in its cluster',
      WOT2: 'every vehicle within reach goes elsewhere',
      WOT3: 'no free vehicle within 50 km',
      WOT4: 'no place is known',
      WOT5: 'every vehicle within reach goes elsewhere',
    });
    assert.equal(notes(await plan('p_same_team => true')).WOT5, 'no vehicle of its team is free');
    assert.equal(notes(await plan(`p_vehicles => '{V3}'`)).WOT1, 'no vehicle is free');
    assert.equal(notes(await plan('p_stale => true')).WOT2, 'the vehicle was located 03:00:00 ago');
    await env.pool.query(`select tickets.assign('WOT2', 'V2')`);
    assert.deepEqual(notes(await plan(`p_tickets => '{WOT1,WOT2,WOT6,WOT9}', p_region => 'Nairobi'`)), {
      WOT1: 'lies somewhere in its cluster',
      WOT2: 'assigned already, to V2',
      WOT6: 'no open ticket has this number',
      WOT9: 'no open ticket has this number',
    });
    assert.deepEqual(notes(await plan(`p_tickets => '{WOT3}', p_region => 'Nairobi'`)), {
      WOT3: 'not in the region or cluster asked for',
    });
  });

  test('an argument that makes no sense is refused by the plan, by carrying it out, and by the problem', async () => {
    for (const [wrong, reason] of [
      ['0', /p_capacity is 0: give a whole number, 1 or more/],
      ['null', /p_capacity is NULL/],
      ['1, -1', /p_radius_km is -1: give kilometres from 0 to 20100/],
      [`1, 'NaN'`, /p_radius_km is NaN/],
      [`5, 'Infinity'`, /p_radius_km is Infinity/],
      ['p_same_team => null', /p_same_team is NULL: give true or false/],
    ] as const)
      for (const made of ['dispatch_plan', 'assign_plan', 'dispatch_problem'])
        await assert.rejects(env.pool.query(`select tickets.${made}(${wrong})`), reason, `${made}(${wrong})`);
  });

  test('a vehicle with an assignment goes on from that ticket, as far as it has room', async () => {
    await park(env.pool, [{ id: 'V1', ...NAIROBI }]);
    await report(env.pool, [
      { id: 'FAR', lng: 37.1, lat: -1.28 },
      { id: 'FARTHER', lng: 37.11, lat: -1.28 },
      { id: 'NEAR', lng: 36.83, lat: -1.28 },
    ]);
    await env.pool.query(`select tickets.assign('FAR', 'V1')`);
    assert.deepEqual(sent(await plan()), {});
    const rows = await plan('2');
    assert.deepEqual(sent(rows), { FARTHER: 'V1' });
    assert.equal(rows[0]?.position, 2);
    assert.ok((rows[0]?.metres ?? 0) < 1_200);
  });

  describe('as VROOM’s problem', () => {
    // https://github.com/VROOM-Project/vroom/blob/master/docs/API.md
    const lngLat = z.tuple([z.number().min(-180).max(180), z.number().min(-90).max(90)]);
    const whole = z.number().int().min(0);
    const problem = z.strictObject({
      vehicles: z.array(
        z.strictObject({
          id: whole,
          description: z.string(),
          start: lngLat,
          capacity: z.array(whole),
          skills: z.array(whole).optional(),
        }),
      ),
      jobs: z.array(
        z.strictObject({
          id: whole,
          description: z.string(),
          location: lngLat,
          delivery: z.array(whole),
          priority: whole.max(100),
          skills: z.array(whole).optional(),
        }),
      ),
    });

    test('holds the vehicles and tickets that the plan is about', async () => {
      await scatter(3, 6, 40);
      for (const args of ['2, 15', '3, 15, p_same_team => true']) {
        const { rows } = await env.pool.query(`select tickets.dispatch_problem(${args}) as problem`);
        const { vehicles, jobs } = problem.parse(rows[0].problem);
        assert.equal(new Set(jobs.map(({ id }) => id)).size, jobs.length);
        assert.deepEqual(
          vehicles.map(({ description }) => description),
          ['V0', 'V1', 'V2', 'V3', 'V4', 'V5'],
        );
        assert.deepEqual(
          vehicles.map(({ capacity }) => capacity[0]),
          Array(6).fill(args.startsWith('2') ? 2 : 3),
        );
        const { rows: inReach } = await env.pool.query(
          `select distinct t.ticket_id from tickets.inc_open_sla t join tickets.vehicles_now v
             on st_dwithin(v.geog, t.geog, 15000) and (v.team = t.assigned_team or not $1)`,
          [args.includes('team')],
        );
        assert.deepEqual(
          jobs.map(({ description }) => description).sort(),
          inReach.map(({ ticket_id }) => ticket_id).sort(),
        );
        if (args.includes('team')) {
          const { rows: teams } = await env.pool.query(
            `select vehicle_id as id, team from tickets.vehicles_now union all select ticket_id, assigned_team from tickets.inc_open_sla`,
          );
          const teamOf = new Map(teams.map(({ id, team }) => [id, team]));
          const bySkill = Map.groupBy([...vehicles, ...jobs], ({ skills }) => skills?.[0]);
          for (const group of bySkill.values())
            assert.equal(new Set(group.map(({ description }) => teamOf.get(description))).size, 1);
        }
      }
    });
  });
});
