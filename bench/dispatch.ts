/** Dispatch: nearest vehicles and tickets, and plans, with the vehicles spread over the city and with all of them in one depot. */
import assert from 'node:assert/strict';
import type { Environment } from '../test/support/environment.ts';
import { createTracker, park } from '../test/support/fleet.ts';
import { emptyTickets } from './stand.ts';
import type { Line } from './table.ts';

const RUNS = 5;
const TICKETS = 500_000;
const OPEN = 20_000;
/** Degrees around the middle of Nairobi: vehicles over the whole city, or within 50 m. */
const SPREADS = { 'spread out': 0.5, 'in one depot': 0.0005 };

export async function measureDispatch(env: Environment): Promise<Line[]> {
  await reportTickets(env);
  await createTracker(env.pool);
  const lines: Line[] = [];
  const time = async (what: string, limit: number, query: string, expected: number) => {
    const took: number[] = [];
    for (let n = 0; n < RUNS; n += 1) {
      const from = performance.now();
      const { rows } = await env.pool.query<{ n: number }>(`select count(vehicle_id)::int as n from ${query}`);
      took.push(performance.now() - from);
      assert.equal(rows[0]?.n, expected, query);
    }
    const best = Math.min(...took);
    lines.push({
      what: `dispatch: ${what}`,
      ours: `${best.toFixed(best < 10 ? 1 : 0)} ms`,
      reference: '',
      value: best,
      limit,
      unit: 'ms',
    });
  };
  for (const [where, spread] of Object.entries(SPREADS)) {
    await parkMany(env, 200, spread);
    await time(`nearest vehicles of a ticket, 200 ${where}`, 10, `tickets.nearest_vehicles('B0000025')`, 5);
    await time(
      `nearest tickets of a vehicle, ${OPEN} open of ${TICKETS}, ${where}`,
      10,
      `(select ticket_id as vehicle_id from tickets.nearest_tickets('V0')) as t`,
      10,
    );
    await time(`plan 200 × 2 000, ${where}`, 600, `tickets.dispatch_plan(1, p_region => 'many')`, 200);
    await time(
      `plan 200 × 2 000, 5 tickets each, ${where}`,
      1_500,
      `tickets.dispatch_plan(5, p_region => 'many')`,
      1_000,
    );
    await parkMany(env, 150, spread);
    await time(`plan 150 × 300, ${where}`, 100, `tickets.dispatch_plan(1, p_region => 'few')`, 150);
  }
  return lines;
}

/** Open tickets over the city, all states of the SLA among them: 2 000 in the region `many`, 300 in `few`. */
async function reportTickets(env: Environment): Promise<void> {
  await emptyTickets(env);
  // Placed at once: the triggers would take minutes.
  await env.pool.query('alter table tickets.inc disable trigger user');
  await env.pool.query(
    `insert into tickets.inc (ticket_id, raw, geom, geo_source)
     select 'B' || lpad(i::text, 7, '0'),
       jsonb_build_object(
         'is_actionable', (i % $2 = 0)::text, 'region', case when i <= 2000 * $2 then 'many' when i <= 2300 * $2 then 'few' else 'other' end,
         'created_at_service', to_char((now() - (i * 7 % 80) * interval '1 hour') at time zone 'Africa/Nairobi', 'YYYY-MM-DD HH24:MI:SS')
       ),
       st_setsrid(st_makepoint(36.82 + (i * 0.61803398 % 1 - 0.5) * 0.7, -1.28 + (i * 0.41421356 % 1 - 0.5) * 0.6), 4326), 'feed'
     from generate_series(1, $1::integer) as i`,
    [TICKETS, TICKETS / OPEN],
  );
  await env.pool.query('alter table tickets.inc enable trigger user');
  await env.pool.query('vacuum analyze tickets.inc');
}

const parkMany = (env: Environment, count: number, spread: number) =>
  park(
    env.pool,
    Array.from({ length: count }, (_, n) => ({
      id: `V${n}`,
      lng: 36.82 + (((n * 0.75487766) % 1) - 0.5) * spread,
      lat: -1.28 + (((n * 0.56984029) % 1) - 0.5) * spread,
    })),
  );
