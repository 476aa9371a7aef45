/** The queries that the Python version's README gave its users, word for word: dashboards and people still type them. */
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { type Environment, startEnvironment } from '../support/environment.ts';

const TICKETS = [
  { ticket_id: 'WOT1', is_actionable: 'true', cluster: 'Kilimani', first_seen_at: '2026-06-10 10:00:00' },
  { ticket_id: 'WOT2', is_actionable: 'true', cluster: 'Kilimani', first_seen_at: '2026-06-11 10:00:00' },
  { ticket_id: 'WOT3', is_actionable: 'true', cluster: 'Nyali' },
  // 22:30 UTC of the day before
  { ticket_id: 'WOT4', is_actionable: 'false', cluster: 'Nyali', closed_at: '2026-06-12 01:30:00' },
  { ticket_id: 'WOT5', is_actionable: 'false', cluster: 'Nyali', closed_at: '2026-06-12 23:00:00' },
];

describe("the old README's queries", () => {
  let env: Environment;
  before(async () => {
    env = await startEnvironment();
    await env.pool.query(
      `insert into tickets.geo_clusters (cluster, geom) values
         ('Kilimani', st_setsrid(st_makepoint(36.7833, -1.2921), 4326)), ('Nyali', st_setsrid(st_makepoint(39.7, -4.02), 4326))`,
    );
    await env.pool.query(
      `insert into tickets.inc (ticket_id, raw) select t ->> 'ticket_id', t from jsonb_array_elements($1) as t`,
      [JSON.stringify(TICKETS)],
    );
  });
  after(() => env.close());
  const ask = async (query: string) => (await env.pool.query(query)).rows;

  test('map payload', async () => {
    const [open] = await ask('SELECT reporting.fn_tickets_for_map();');
    assert.equal(open.fn_tickets_for_map.features.length, 3);
    assert.ok('freshness' in open.fn_tickets_for_map.summary);
    const [all] = await ask('SELECT reporting.fn_tickets_for_map(p_open_only := false);');
    assert.equal(all.fn_tickets_for_map.features.length, 5);
  });

  test('open tickets by SLA and by cluster', async () => {
    assert.deepEqual(
      new Map(
        (await ask('SELECT sla_state, count(*) FROM tickets.inc_open_sla GROUP BY 1;')).map((r) => [
          r.sla_state,
          r.count,
        ]),
      ),
      new Map([
        ['breached', '2'],
        ['unknown', '1'],
      ]),
    );
    const clusters = await ask(
      'SELECT cluster, count(*), round(avg(hours_open),1) AS avg_hrs FROM tickets.inc_open_sla GROUP BY 1 ORDER BY 2 DESC;',
    );
    assert.deepEqual(
      clusters.map(({ cluster, count }) => [cluster, count]),
      [
        ['Kilimani', '2'],
        ['Nyali', '1'],
      ],
    );
    assert.match(clusters[0].avg_hrs, /^\d+\.\d$/);
    assert.equal(clusters[1].avg_hrs, null);
  });

  test('closures per day, in EAT', async () => {
    const days = await ask(
      "SELECT (closed_at AT TIME ZONE 'Africa/Nairobi')::date AS d, count(*) FROM tickets.inc WHERE closed_at IS NOT NULL GROUP BY 1 ORDER BY 1 DESC;",
    );
    assert.deepEqual(
      days.map(({ d, count }) => [d.getDate(), count]),
      [[12, '2']],
    );
  });

  test('nearest open tickets to a vehicle', async () => {
    const query = `SELECT ticket_id, cluster, hours_open, round(ST_Distance(geog, ST_SetSRID(ST_MakePoint(:lng,:lat),4326)::geography))::int AS metres FROM tickets.inc_open_sla ORDER BY geog <-> ST_SetSRID(ST_MakePoint(:lng,:lat),4326)::geography LIMIT 10;`;
    const nearest = await ask(query.replaceAll(':lng', '36.7833').replaceAll(':lat', '-1.2831'));
    assert.deepEqual(nearest.map(({ ticket_id }) => ticket_id).sort(), ['WOT1', 'WOT2', 'WOT3']);
    assert.equal(nearest[2].ticket_id, 'WOT3');
    // 0.009 degrees of latitude
    assert.ok(Math.abs(nearest[0].metres - 995) < 5, String(nearest[0].metres));
    assert.ok(nearest[2].metres > 400_000);
  });
});
