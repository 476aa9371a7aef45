/**
 * Dispatch with several at once, on a real Postgres: nobody is sent twice, a load that closes a ticket and its assignment
 * agree at every moment, across kill -9 too, and the dispatcher's role can do what it must and nothing else.
 */
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { after, afterEach, before, beforeEach, describe, test } from 'node:test';
import pg from 'pg';
import { Dice } from '../../demo/chance.ts';
import { fleettickets as runFleettickets } from '../support/command.ts';
import { type Environment, native, startEnvironment, waitFor } from '../support/environment.ts';
import { createTracker, park, report } from '../support/fleet.ts';
import { addFetch, csvOf, fetchNow, keyOf } from '../support/pipeline.ts';
import { countRows } from '../support/rows.ts';
import { killWorkers, startWorkerProcess } from '../support/worker-process.ts';

const NAIROBI = { lng: 36.82, lat: -1.28 };
const SEED = Number(process.env['DISPATCH_SEED'] ?? Date.now() % 1_000_000);

describe('dispatch', { skip: !native && 'needs a native Postgres' }, () => {
  let env: Environment;
  const password = `secret-${randomBytes(6).toString('hex')}`;
  const roles = ['dispatcher', 'reader'].map((role) => ({ role, login: `${role}_${randomBytes(4).toString('hex')}` }));
  before(async () => {
    env = await startEnvironment();
    await createTracker(env.pool);
    for (const { role, login } of roles)
      await env.pool.query(`create role ${login} login password '${password}' in role tickets_${role}`);
  });
  after(async () => {
    await killWorkers();
    for (const { login } of roles) await env.pool.query(`drop role ${login}`);
    await env.close();
  });
  beforeEach(() => env.reset());

  const urlOf = (role?: string) => {
    const url = new URL(env.databaseUrl);
    const login = roles.find((known) => known.role === role)?.login;
    if (login) Object.assign(url, { username: login, password });
    return url.href;
  };
  const fleettickets = (role: string, ...args: string[]) => runFleettickets({ DATABASE_URL: urlOf(role) }, ...args);
  const sessions: pg.Client[] = [];
  const session = async (role?: string) => {
    const client = new pg.Client({ connectionString: urlOf(role) });
    await client.connect();
    sessions.push(client);
    return client;
  };
  afterEach(async () => {
    await Promise.all(sessions.splice(0).map((client) => client.end()));
  });

  const shuffled = (items: readonly string[], dice: Dice) =>
    items
      .map((item) => ({ item, key: dice.next() }))
      .sort((a, b) => a.key - b.key)
      .map(({ item }) => item);
  /** Tickets that are closed and assigned, or open although a load has ended their last assignment. */
  const disagreeing = async () => {
    const { rows } = await env.pool.query<{ n: number }>(
      `select count(*)::int as n
       from (select distinct on (ticket_id) * from tickets.assignments order by ticket_id, assignment_id desc) a
       join tickets.inc t using (ticket_id) where (a.state = 'assigned') <> (t.is_actionable is true)`,
    );
    return rows[0]?.n;
  };
  const deadlocks = async () =>
    (await env.pool.query('select deadlocks::int from pg_stat_database where datname = current_database()')).rows[0]
      ?.deadlocks;

  test('four dispatchers who want the same 200 tickets get 200 in all, and each loser is told who has it', async (t) => {
    t.diagnostic(`DISPATCH_SEED=${SEED}`);
    const tickets = Array.from({ length: 200 }, (_, n) => `WOT${String(n).padStart(3, '0')}`);
    const vehicles = ['V1', 'V2', 'V3', 'V4'];
    await report(
      env.pool,
      tickets.map((id) => ({ id, ...NAIROBI })),
    );
    await park(
      env.pool,
      vehicles.map((id) => ({ id, ...NAIROBI })),
    );
    const before = await deadlocks();
    const won = await Promise.all(
      vehicles.map(async (vehicle, n) => {
        const client = await session('dispatcher');
        const mine: string[] = [];
        for (const ticket of shuffled(tickets, new Dice(SEED + n))) {
          try {
            await client.query('select tickets.assign($1, $2)', [ticket, vehicle]);
            mine.push(ticket);
          } catch (error) {
            assert.match(
              (error as Error).message,
              new RegExp(`^Ticket ${ticket} is assigned to vehicle V[1-4] already \\(by dispatcher_`),
            );
          }
        }
        return mine;
      }),
    );
    assert.deepEqual(won.flat().sort(), tickets);
    t.diagnostic(`won: ${won.map((mine) => mine.length)}`);
    const { rows } = await env.pool.query(
      `select ticket_id, vehicle_id from tickets.assignments where state = 'assigned' order by 1`,
    );
    assert.deepEqual(
      rows.map(({ ticket_id, vehicle_id }) => [ticket_id, vehicle_id]),
      tickets.map((ticket) => [ticket, vehicles[won.findIndex((mine) => mine.includes(ticket))]]),
    );
    assert.equal(await deadlocks(), before);
  });

  test('take-overs at once leave one assignment each, with the others’ history', async () => {
    const tickets = Array.from({ length: 20 }, (_, n) => `WOT${n}`);
    await report(
      env.pool,
      tickets.map((id) => ({ id, ...NAIROBI })),
    );
    await park(
      env.pool,
      ['V1', 'V2', 'V3', 'V4'].map((id) => ({ id, ...NAIROBI })),
    );
    await Promise.all(
      ['V1', 'V2', 'V3', 'V4'].map(async (vehicle, n) => {
        const client = await session('dispatcher');
        for (const ticket of shuffled(tickets, new Dice(SEED + n)))
          await client.query('select tickets.assign($1, $2, true)', [ticket, vehicle]);
      }),
    );
    const { rows } = await env.pool.query(
      `select count(*) filter (where state = 'assigned')::int as held, count(*) filter (where state = 'released')::int as released,
         count(distinct ticket_id)::int as tickets from tickets.assignments`,
    );
    assert.deepEqual(rows, [{ held: 20, released: 60, tickets: 20 }]);
  });

  test('a vehicle that four dispatchers send at once has its tickets in one order', async () => {
    const tickets = Array.from({ length: 200 }, (_, n) => `WOT${n}`);
    await report(
      env.pool,
      tickets.map((id) => ({ id, ...NAIROBI })),
    );
    await park(env.pool, [{ id: 'V1', ...NAIROBI }]);
    await Promise.all(
      Array.from({ length: 4 }, async (_, n) => {
        const client = await session('dispatcher');
        for (const ticket of tickets.filter((_, nth) => nth % 4 === n))
          await client.query(`select tickets.assign($1, 'V1')`, [ticket]);
      }),
    );
    const { rows } = await env.pool.query(
      'select count(*)::int as assigned, count(distinct position)::int as positions, max(position) as last from tickets.assignments',
    );
    assert.deepEqual(rows, [{ assigned: 200, positions: 200, last: 200 }]);
  });

  test('two plans that are carried out at once fill no vehicle beyond its capacity', async () => {
    const dice = new Dice(SEED);
    const point = () => ({ lng: 36.7 + dice.next() * 0.2, lat: -1.4 + dice.next() * 0.2 });
    await report(
      env.pool,
      Array.from({ length: 60 }, (_, n) => ({ id: `WOT${n}`, ...point() })),
    );
    await park(
      env.pool,
      Array.from({ length: 10 }, (_, n) => ({ id: `V${n}`, ...point() })),
    );
    const clients = await Promise.all([session('dispatcher'), session('dispatcher'), session('dispatcher')]);
    const plans = await Promise.all(clients.map((client) => client.query('select * from tickets.assign_plan(2)')));
    const { rows } = await env.pool.query(
      `select vehicle_id, count(*)::int as n, count(distinct position)::int as positions from tickets.assignments where state = 'assigned' group by 1 order by 1`,
    );
    assert.deepEqual(
      rows,
      Array.from({ length: 10 }, (_, n) => ({ vehicle_id: `V${n}`, n: 2, positions: 2 })),
    );
    assert.equal(plans.flatMap((plan) => plan.rows.filter((row) => row.vehicle_id)).length, 20);
  });

  test('a plan leaves out what somebody assigned since it was made, and says who has it', async () => {
    await report(env.pool, [{ id: 'WOT1', ...NAIROBI }]);
    await park(
      env.pool,
      ['V1', 'V2'].map((id) => ({ id, ...NAIROBI })),
    );
    const [first, second] = [await session('dispatcher'), await session('dispatcher')];
    await first.query('begin');
    await first.query(`select tickets.assign('WOT1', 'V2')`); // not committed: the plan cannot see it
    const plan = second.query('select vehicle_id, ticket_id, note from tickets.assign_plan()');
    await waitFor('the plan to wait for the ticket', async () => {
      const { rows } = await env.pool.query(
        `select from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock' and query like '%assign_plan()'`,
      );
      return rows.length > 0;
    });
    await first.query('commit');
    const { rows } = await plan;
    assert.equal(rows[0].vehicle_id, null);
    assert.match(rows[0].note, /^Ticket WOT1 is assigned to vehicle V2 already \(by dispatcher_/);
  });

  const ids = Array.from({ length: 6_000 }, (_, n) => `WOT${String(n).padStart(5, '0')}`);
  /** A file of all tickets, of which `closed` are. */
  const fileOf = (closed: ReadonlySet<string>, hour = 0) =>
    csvOf(
      ids.map((ticket_id) => ({
        ticket_id,
        owner: `as of ${hour}`,
        is_actionable: String(!closed.has(ticket_id)),
        latitude: '-1.28',
        longitude: '36.82',
      })),
    );

  test('dispatchers beside loads that close and open tickets: no closed ticket stays assigned, nobody deadlocks', async (t) => {
    const dice = new Dice(SEED);
    await park(env.pool, [{ id: 'V1', ...NAIROBI }]);
    await env.putObject(keyOf(1), fileOf(new Set()));
    assert.deepEqual(await fetchNow(env), []);
    const before = await deadlocks();
    let loading = true;
    const dispatching = Array.from({ length: 3 }, async () => {
      const client = await session('dispatcher');
      let assigned = 0;
      while (loading) {
        const id = dice.pick(ids);
        const done = await client.query('select tickets.assign($1, $2)', [id, 'V1']).catch((error: Error) => {
          assert.match(error.message, /^There is no open ticket/);
        });
        if (done) assigned += 1;
        if (dice.chance(0.1)) await client.query(`select tickets.release($1, 'test')`, [id]).catch(() => undefined); // it may be closed by now
      }
      return assigned;
    });
    for (let hour = 2; hour < 6; hour += 1) {
      await env.putObject(keyOf(hour), fileOf(new Set(ids.filter(() => dice.chance(0.5)))));
      await addFetch(env);
      assert.deepEqual(await Promise.all([env.runJobs(), env.runJobs()]), [[], []]);
    }
    loading = false;
    t.diagnostic(`${await Promise.all(dispatching)} assigned`);
    const { rows } = await env.pool.query(
      `select count(*)::int as n from tickets.assignments a join tickets.inc t using (ticket_id) where a.state = 'assigned' and not t.is_actionable`,
    );
    assert.deepEqual(rows, [{ n: 0 }]);
    const { rows: done } = await env.pool.query(
      `select end_reason, count(*)::int as n from tickets.assignments where state = 'done' group by 1`,
    );
    assert.ok(
      done.length > 0 && done.every(({ end_reason }) => /^closed in snapshot \d+$/.test(end_reason)),
      JSON.stringify(done),
    );
    assert.equal(await deadlocks(), before);
  });

  test('a load that is killed while it closes tickets ends each assignment with its ticket or not at all', {
    timeout: 400_000,
  }, async (t) => {
    // A file that closes every ticket is held for a person otherwise.
    const LOADS_ALL = { ON_SUSPECT_SNAPSHOT: 'load' };
    const dice = new Dice(SEED);
    await park(env.pool, [{ id: 'V1', ...NAIROBI }]);
    const statusOf = async (hour: number) => {
      const { rows } = await env.pool.query('select status from tickets_ops.snapshots where source_key = $1', [
        keyOf(hour),
      ]);
      return rows[0]?.status;
    };
    const seen: string[] = [];
    // By turns all are opened and assigned, and all are closed by a worker that dies over it; another one goes on.
    for (let hour = 1; hour < 12; hour += 2) {
      await env.putObject(keyOf(hour), fileOf(new Set(), hour));
      assert.deepEqual(await fetchNow(env), []);
      await env.pool.query(
        `insert into tickets.assignments (ticket_id, vehicle_id, position)
         select ticket_id, 'V1', row_number() over () from tickets.inc`,
      );
      await env.putObject(keyOf(hour + 1), fileOf(new Set(ids), hour));
      await addFetch(env);
      const victim = await startWorkerProcess(LOADS_ALL);
      await waitFor('tickets to be written', async () =>
        ['loading', 'finalizing', 'done'].includes(await statusOf(hour + 1)),
      );
      const assigned = () => countRows(env.pool, `tickets.assignments where state = 'assigned'`);
      if (dice.chance(0.5)) await waitFor('a batch to be done', async () => (await assigned()) < ids.length);
      await new Promise((resolve) => setTimeout(resolve, dice.next() * 600)); // a moment of the load, whichever
      victim.kill('SIGKILL');
      await victim.exited;
      assert.equal(await disagreeing(), 0);
      seen.push(`${await statusOf(hour + 1)} with ${await assigned()} assigned`);
      const survivor = await startWorkerProcess(LOADS_ALL);
      const isDone = async () => {
        assert.equal(await disagreeing(), 0);
        return (await statusOf(hour + 1)) === 'done';
      };
      await waitFor('the file to be loaded', isDone, 90_000);
      survivor.kill('SIGTERM');
      await survivor.exited;
    }
    t.diagnostic(`when the workers died: ${seen.join('; ')}`);
    const { rows } = await env.pool.query(
      `select a.state, count(*)::int as n, count(distinct end_reason)::int as loads from tickets.assignments a group by 1`,
    );
    assert.deepEqual(rows, [{ state: 'done', n: 6 * ids.length, loads: 6 }]);
  });

  describe('privileges', () => {
    const DENIED = { code: '42501' };
    beforeEach(async () => {
      await report(env.pool, [
        { id: 'WOT1', ...NAIROBI },
        { id: 'WOT2', lng: 36.83, lat: -1.28 },
      ]);
      await park(env.pool, [{ id: 'V1', ...NAIROBI }]);
    });
    const READS = [
      'select * from tickets.vehicles_now',
      'select * from tickets.assignments',
      'select * from tickets.assignments_in_doubt',
      'select * from tickets.dispatch_settings',
      `select * from tickets.nearest_vehicles('WOT1')`,
      `select * from tickets.nearest_tickets('V1')`,
      'select * from tickets.tickets_within(36.8, -1.28, 5)',
    ];
    const DISPATCHES = [
      'select * from tickets.dispatch_plan()',
      'select * from tickets.dispatch_plan(3)',
      'select tickets.dispatch_problem()',
      `select * from tickets.assign('WOT1', 'V1')`,
      `select * from tickets.release('WOT1', 'test')`,
      'select * from tickets.assign_plan(2)',
      `select tickets_ops.min_cost_assignment('{1,2}', 1, 2)`,
    ];

    test('a dispatcher reads, plans and assigns, whatever its search path, and writes nothing else', async () => {
      const client = await session('dispatcher');
      await client.query(`set search_path = ''`);
      for (const query of [...READS, ...DISPATCHES]) await client.query(query);
      assert.equal((await client.query('select * from tickets.assign_plan(2)')).rows.length, 0);
      for (const write of [
        `update tickets.inc set raw = '{}'`,
        `insert into tickets.inc (ticket_id, raw) values ('X', '{}')`,
        'delete from tickets.inc',
        'select from tickets.inc for share',
        `insert into tickets.assignments (ticket_id, vehicle_id, position) values ('X', 'V1', 1)`,
        `update tickets.assignments set vehicle_id = 'V2'`,
        'delete from tickets.assignments',
        'update tickets.dispatch_settings set detour = 2',
        'create or replace view tickets.vehicles as select * from tickets.vehicles_now',
        'select * from tickets_ops.snapshots',
        `select tickets_ops.end_assignments(1, '', 'Z')`,
        'select * from tracker.positions',
      ])
        await assert.rejects(client.query(write), DENIED, write);
    });

    test('the command works for a dispatcher, and tells a reader what he may not', async () => {
      const { status, out } = await fleettickets('dispatcher', 'dispatch', '--apply');
      assert.equal(status, 0, out);
      assert.match(out, /1 tickets for 1 vehicles, .*\n1 left out: .*\nThey are assigned/);
      const refused = await fleettickets('reader', 'dispatch');
      assert.equal(refused.status, 1);
      assert.match(
        refused.err,
        /^Postgres refuses: permission denied for function dispatch_plan \(SQLSTATE 42501\)\n.*docs\/privileges\.md/,
      );
    });

    test('a reader looks, and sends nobody', async () => {
      const client = await session('reader');
      for (const query of READS) await client.query(query);
      for (const query of DISPATCHES) await assert.rejects(client.query(query), DENIED, query);
    });

    test('what a tracker puts into its view runs as the role that asks, never as the owner', async () => {
      await env.pool.query(
        `create table tracker.ran_as (role text); grant insert on tracker.ran_as to public; grant usage on schema tracker to public;
         create function tracker.spy(p text) returns text language plpgsql as $$
         begin insert into tracker.ran_as values (current_user); return p; end $$;
         create schema tracker_copy; create table tracker_copy.vehicles as select * from tickets.vehicles`,
      );
      await env.pool.query(
        `create or replace view tickets.vehicles as
         select tracker.spy(vehicle_id) as vehicle_id, label, team, lng, lat, located_at, seen_at, moving, speed_kmh, source from tracker_copy.vehicles`,
      );
      try {
        const client = await session('dispatcher');
        for (const query of DISPATCHES) await client.query(query);
        const { rows } = await env.pool.query('select distinct role from tracker.ran_as');
        assert.deepEqual(rows, [{ role: roles[0]?.login }]);
      } finally {
        await env.pool.query('drop schema tracker_copy cascade');
        await createTracker(env.pool);
      }
    });
  });
});
