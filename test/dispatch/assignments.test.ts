import assert from 'node:assert/strict';
import { after, before, beforeEach, describe, test } from 'node:test';
import { type Environment, startEnvironment } from '../support/environment.ts';
import { createTracker, park, report } from '../support/fleet.ts';
import { csvOf, fetchNow, keyOf } from '../support/pipeline.ts';
import { countRows } from '../support/rows.ts';

const NAIROBI = { lng: 36.82, lat: -1.28 };

describe('assignments', () => {
  let env: Environment;
  before(async () => {
    env = await startEnvironment();
    await createTracker(env.pool);
  });
  after(() => env.close());
  beforeEach(async () => {
    await env.reset();
    await park(env.pool, [
      { id: 'V1', ...NAIROBI },
      { id: 'V2', lng: 36.9, lat: -1.28 },
    ]);
  });

  const one = async (sql: string, values: unknown[] = []) => (await env.pool.query(sql, values)).rows[0];
  const history = async () => {
    const { rows } = await env.pool.query(
      'select ticket_id, vehicle_id, position, state, end_reason from tickets.assignments order by assignment_id',
    );
    return rows.map((row) => Object.values(row));
  };

  test('one vehicle has a ticket; the second dispatcher is told which, and may take it over', async () => {
    await report(env.pool, [{ id: 'WOT1', lng: 36.83, lat: -1.28 }]);
    const { assigned_by, metres, ...assigned } = await one(`select * from tickets.assign('WOT1', 'V1')`);
    assert.deepEqual(
      [assigned.ticket_id, assigned.vehicle_id, assigned.position, assigned.state],
      ['WOT1', 'V1', 1, 'assigned'],
    );
    assert.deepEqual(await one('select session_user as name'), { name: assigned_by });
    assert.ok(Math.abs(metres - 1_113) < 1);
    assert.deepEqual(await one(`select (tickets.assign('WOT1', 'V1')).assignment_id`), {
      assignment_id: assigned.assignment_id,
    });
    await assert.rejects(env.pool.query(`select tickets.assign('WOT1', 'V2')`), {
      message: new RegExp(
        `^Ticket WOT1 is assigned to vehicle V1 already \\(by ${assigned_by}, \\d{4}-\\d\\d-\\d\\d \\d\\d:\\d\\d\\)\\.$`,
      ),
      code: '55006',
    });
    await env.pool.query(`select tickets.assign('WOT1', 'V2', p_take_over => true)`);
    assert.deepEqual(await history(), [
      ['WOT1', 'V1', 1, 'released', 'taken over by vehicle V2'],
      ['WOT1', 'V2', 1, 'assigned', null],
    ]);
  });

  test('a vehicle’s tickets have an order, and one that is taken back is free again', async () => {
    await report(
      env.pool,
      ['WOT1', 'WOT2', 'WOT3'].map((id) => ({ id, ...NAIROBI })),
    );
    for (const id of ['WOT1', 'WOT2', 'WOT3']) await env.pool.query('select tickets.assign($1, $2)', [id, 'V1']);
    await env.pool.query(`select tickets.release('WOT2', 'customer is away')`);
    await env.pool.query(`select tickets.assign('WOT2', 'V1')`);
    assert.deepEqual(await history(), [
      ['WOT1', 'V1', 1, 'assigned', null],
      ['WOT2', 'V1', 2, 'released', 'customer is away'],
      ['WOT3', 'V1', 3, 'assigned', null],
      ['WOT2', 'V1', 4, 'assigned', null],
    ]);
  });

  test('a plan goes on after the tickets that a vehicle has, although it gave earlier ones back', async () => {
    await report(
      env.pool,
      ['WOT1', 'WOT2', 'WOT3', 'WOT4'].map((id) => ({ id, ...NAIROBI })),
    );
    for (const id of ['WOT1', 'WOT2', 'WOT3']) await env.pool.query('select tickets.assign($1, $2)', [id, 'V1']);
    for (const id of ['WOT1', 'WOT2']) await env.pool.query('select tickets.release($1, $2)', [id, 'not today']);
    const { rows } = await env.pool.query(
      `select ticket_id, position from tickets.assign_plan(3, p_vehicles => '{V1}') where vehicle_id = 'V1'`,
    );
    assert.deepEqual(rows, [
      { ticket_id: 'WOT1', position: 4 },
      { ticket_id: 'WOT2', position: 5 },
    ]);
  });

  test('what is not there is said, and nothing is written', async () => {
    await report(env.pool, [{ id: 'WOT1', ...NAIROBI, open: false }, { id: 'WOT2' }]);
    for (const [call, reason] of [
      [`assign('WOT1', 'V1')`, /There is no open ticket WOT1\./],
      [`assign('WOT9', 'V1')`, /There is no open ticket WOT9\./],
      [`assign('WOT2', 'V9')`, /There is no vehicle V9 in tickets\.vehicles\./],
      [`assign('WOT2', null)`, /There is no vehicle/],
      [`assign(null, 'V1')`, /There is no open ticket/],
      [`release('WOT2', 'flat tyre')`, /No vehicle is assigned to ticket WOT2\./],
      [`release('WOT2', ' ')`, /Say why ticket WOT2 is released\./],
      [`release('WOT2', null)`, /Say why ticket WOT2 is released\./],
    ] as const)
      await assert.rejects(env.pool.query(`select tickets.${call}`), reason, call);
    assert.deepEqual(await history(), []);
    await env.pool.query(`select tickets.assign('WOT2', 'V1')`); // has no place: a person knows better
    assert.equal((await one('select metres from tickets.assignments')).metres, null);
  });

  test('the table keeps its rules against every writer', async () => {
    await report(env.pool, [{ id: 'WOT1', ...NAIROBI }]);
    await env.pool.query(`select tickets.assign('WOT1', 'V1')`);
    for (const write of [
      `insert into tickets.assignments (ticket_id, vehicle_id, position) values ('WOT1', 'V2', 1)`,
      `insert into tickets.assignments (ticket_id, vehicle_id, position) values ('WOT2', 'V1', 1)`,
      `update tickets.assignments set state = 'done'`,
      `update tickets.assignments set ended_at = now()`,
      `update tickets.assignments set state = 'on its way'`,
      `update tickets.assignments set position = 0`,
      `update tickets.assignments set metres = -1`,
    ])
      await assert.rejects(env.pool.query(write), /violates (unique|check) constraint|duplicate key/, write);
    const { rows } = await env.pool.query(
      `select conname from pg_constraint where contype = 'f' and confrelid = 'tickets.inc'::regclass`,
    );
    assert.deepEqual(rows, [], 'no foreign key points at tickets.inc');
  });

  test('a plan is assigned as it is, in its order, and not beyond what a vehicle may have', async () => {
    await report(
      env.pool,
      Array.from({ length: 6 }, (_, n) => ({ id: `WOT${n}`, lng: 36.82 + n * 0.015, lat: -1.28 })),
    );
    const { rows: plan } = await env.pool.query(
      'select vehicle_id, position, ticket_id, metres from tickets.dispatch_plan(2)',
    );
    const { rows: assigned } = await env.pool.query(
      'select vehicle_id, position, ticket_id, metres from tickets.assign_plan(2)',
    );
    assert.deepEqual(assigned, plan);
    const { rows: written } = await env.pool.query(
      `select vehicle_id, position, ticket_id, metres from tickets.assignments where state = 'assigned' order by 1, 2`,
    );
    assert.deepEqual(
      written,
      plan.filter(({ vehicle_id }) => vehicle_id),
    );
    assert.equal(written.length, 4);
    const { rows: again } = await env.pool.query('select vehicle_id from tickets.assign_plan(2)');
    assert.deepEqual(again, [{ vehicle_id: null }, { vehicle_id: null }], 'every vehicle is full');
  });

  test('a load that closes a ticket ends its assignment; one opened again starts without a vehicle', async () => {
    const states: Record<string, string>[] = [
      { WOT1: 'true', WOT2: 'true', WOT3: 'true' },
      { WOT1: 'false', WOT2: 'true', WOT3: 'true' },
      { WOT1: 'true', WOT2: 'true', WOT3: 'perhaps' },
    ];
    const load = async (hour: number) => {
      const state = states[hour - 7] ?? {};
      await env.putObject(
        keyOf(hour),
        csvOf(
          Object.entries(state).map(([ticket_id, is_actionable]) => ({
            ticket_id,
            is_actionable,
            normalized_status: `at ${hour}`,
          })),
        ),
      );
      assert.deepEqual(await fetchNow(env), []);
    };
    await load(7);
    for (const id of ['WOT1', 'WOT2', 'WOT3']) await env.pool.query('select tickets.assign($1, $2)', [id, 'V1']);
    await load(8);
    assert.deepEqual(await history(), [
      ['WOT1', 'V1', 1, 'done', 'closed in snapshot 2'],
      ['WOT2', 'V1', 2, 'assigned', null],
      ['WOT3', 'V1', 3, 'assigned', null],
    ]);
    await load(9);
    assert.deepEqual(await history(), [
      ['WOT1', 'V1', 1, 'done', 'closed in snapshot 2'],
      ['WOT2', 'V1', 2, 'assigned', null],
      ['WOT3', 'V1', 3, 'done', 'closed in snapshot 3'],
    ]);
    await env.pool.query(`select tickets.assign('WOT1', 'V2')`);
    assert.equal(await countRows(env.pool, 'tickets.assignments'), 4);
  });

  test('assignments of vehicles that nobody heard of for 12 hours are in doubt, and stay', async () => {
    await park(env.pool, [
      { id: 'LIVE', ...NAIROBI },
      { id: 'ASLEEP', ...NAIROBI, located: 3_000, seen: 10, moving: false },
      { id: 'SILENT', ...NAIROBI, located: 725 },
      { id: 'RECENT', ...NAIROBI, located: 715 },
      { id: 'NEVER', ...NAIROBI, located: null },
      { id: 'SOLD', ...NAIROBI },
      { id: 'AHEAD', ...NAIROBI, located: -180 },
      { id: 'IN 2045', ...NAIROBI, located: -10_000_000, seen: 1_500 },
    ]);
    const vehicles = ['LIVE', 'ASLEEP', 'SILENT', 'RECENT', 'NEVER', 'SOLD', 'AHEAD', 'IN 2045'];
    await report(
      env.pool,
      vehicles.map((id) => ({ id: `WOT ${id}` })),
    );
    for (const id of vehicles) await env.pool.query('select tickets.assign($1, $2)', [`WOT ${id}`, id]);
    await env.pool.query(`delete from tracker.positions where imei = 'SOLD'`);
    const { rows } = await env.pool.query('select vehicle_id, doubt from tickets.assignments_in_doubt order by 1');
    assert.deepEqual(rows, [
      { vehicle_id: 'IN 2045', doubt: 'nothing was heard of the vehicle for 1 day 01:00:00' },
      { vehicle_id: 'NEVER', doubt: 'nothing was ever heard of the vehicle' },
      { vehicle_id: 'SILENT', doubt: 'nothing was heard of the vehicle for 12:05:00' },
      { vehicle_id: 'SOLD', doubt: 'tickets.vehicles no longer lists the vehicle' },
    ]);
    assert.equal(await countRows(env.pool, `tickets.assignments where state = 'assigned'`), vehicles.length);
  });
});
