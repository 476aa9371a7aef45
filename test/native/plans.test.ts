/** The indexes that the comments in the migrations promise are the ones that Postgres takes, at a realistic size. */
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { type Environment, native, startEnvironment } from '../support/environment.ts';
import { createTracker, park } from '../support/fleet.ts';

const TICKETS = 50_000;

describe('query plans', { skip: !native && 'needs a native Postgres' }, () => {
  let env: Environment;
  before(async () => {
    env = await startEnvironment();
    await env.pool.query(
      `insert into tickets.geo_clusters (cluster, geom)
       select 'Cluster ' || i, st_setsrid(st_makepoint(36.5 + i * 0.01, -1.5 + i * 0.01), 4326) from generate_series(0, 49) as i`,
    );
    // 4 % open, in 50 clusters of 20 places.
    await env.pool.query(
      `insert into tickets.inc (ticket_id, raw)
       select id, jsonb_build_object(
         'ticket_id', id, 'is_actionable', (i % 25 = 0)::text, 'normalized_status', case when i % 25 = 0 then 'Open' else 'Closed' end,
         'cluster', 'Cluster ' || i % 50, 'region', 'region ' || i % 7, 'location_name', 'Place ' || chr(65 + i % 20),
         'assigned_team', 'Team ' || i % 200, 'created_at_service', '2026-06-01 10:00:00',
         'closed_at', case when i % 25 <> 0 then to_char(timestamp '2026-01-01' + i * interval '1 minute', 'YYYY-MM-DD HH24:MI:SS') else '' end)
       from (select i, 'WOT' || lpad(i::text, 7, '0') as id from generate_series(1, $1) as i) as ids`,
      [TICKETS],
    );
    await env.pool.query('analyze tickets.inc');
  });
  after(() => env?.close());

  const plan = async (query: string): Promise<string> => {
    const { rows } = await env.pool.query<{ 'QUERY PLAN': string }>(`explain ${query}`);
    return rows.map((row) => row['QUERY PLAN']).join('\n');
  };
  const assertIndex = (text: string, index: string) => {
    assert.match(text, new RegExp(`(using|on) ${index}\\b`), text);
    assert.doesNotMatch(text, /Seq Scan on inc\b/, text);
  };

  test('nearest open tickets, through the view', async () => {
    const text = await plan(
      `select ticket_id, cluster, hours_open from tickets.inc_open_sla
       order by geog <-> st_setsrid(st_makepoint(36.8, -1.29), 4326)::geography limit 10`,
    );
    assertIndex(text, 'inc_open_geog');
    assert.doesNotMatch(text, /Sort Key: .*geog/, text);
  });

  test('every other query of the view reads the open tickets only', async () => {
    for (const query of [
      'select sla_state, count(*) from tickets.inc_open_sla group by 1',
      'select cluster, count(*), round(avg(hours_open), 1) from tickets.inc_open_sla group by 1',
      `select * from tickets.inc_open_sla where cluster = 'Cluster 3' and at_risk`,
      `select * from tickets.inc_open_sla where assigned_team = 'Team 25' and sla_state = 'breached'`,
    ]) {
      const text = await plan(query);
      assert.match(text, /(using|on) inc_(open|open_counts|open_geog|place)\b/, text);
      assert.doesNotMatch(text, /Seq Scan on inc\b/, text);
    }
  });

  test('the rule of the SLA is looked up once for each region', async () => {
    for (const query of [
      'select sla_state, count(*) from tickets.inc_open_sla group by 1',
      'select ticket_id, at_risk from tickets.inc_open_sla',
    ])
      assert.match(await plan(query), /Memoize .*\n\s*Cache Key: t\.region/);
  });

  test('the tickets nearest to a vehicle are found by inc_open_geog, and assigned ones passed over by theirs', async () => {
    await createTracker(env.pool);
    await park(env.pool, [{ id: 'V1', lng: 36.8, lat: -1.29 }]);
    await env.pool.query(
      `insert into tickets.assignments (ticket_id, vehicle_id, position)
       select ticket_id, 'V1', row_number() over () from tickets.inc where is_actionable limit 300`,
    );
    await env.pool.query('analyze tickets.assignments');
    for (const query of [
      `select * from tickets.nearest_tickets('V1')`,
      `select * from tickets.nearest_tickets('V1', 5, 20, false)`,
      'select * from tickets.tickets_within(36.8, -1.29, 3)',
    ]) {
      assert.ok((await scansDuring(query, 'inc_open_geog')).index > 0, query);
      assert.equal((await scansDuring(query, 'inc_open_geog')).table, 0, query);
    }
    await env.pool.query('truncate tickets.assignments');
  });

  test('an assignment is found by its ticket and by its vehicle', async () => {
    await env.pool.query(
      `insert into tickets.assignments (ticket_id, vehicle_id, position, state, ended_at, end_reason)
       select 'WOT' || n, 'V' || n % 200, n, state, case when state = 'done' then now() end, case when state = 'done' then 'test' end
       from generate_series(1, 20000) as n, lateral (select case when n <= 1000 then 'assigned' else 'done' end as state) as s`,
    );
    await env.pool.query('analyze tickets.assignments');
    for (const [query, index] of [
      [`select * from tickets.assignments where ticket_id = 'WOT1' and state = 'assigned'`, 'assignments_one_vehicle'],
      [
        `select * from tickets.assignments where vehicle_id = 'V1' and state = 'assigned' order by position desc limit 1`,
        'assignments_in_order',
      ],
      [`select tickets_ops.end_assignments(1, 'WOT1', 'WOT2')`, 'assignments_one_vehicle'],
    ] as const)
      assert.ok((await scansDuring(query, index)).index > 0, query);
    await env.pool.query('truncate tickets.assignments');
  });

  test('nothing of dispatch is compiled, which takes a second where the query takes milliseconds', async () => {
    await createTracker(env.pool);
    await park(
      env.pool,
      Array.from({ length: 200 }, (_, n) => ({ id: `V${n}`, lng: 36.8 + (n % 20) * 0.01, lat: -1.28 })),
    );
    const client = await env.pool.connect();
    const plans: string[] = [];
    client.on('notice', ({ message }) => plans.push(message ?? ''));
    try {
      // Of every statement within the functions, too.
      await client.query(
        `load 'auto_explain';
         set auto_explain.log_min_duration = 0; set auto_explain.log_nested_statements = on; set auto_explain.log_analyze = on;
         set client_min_messages = log`,
      );
      for (const query of [
        'select * from tickets.vehicles_now',
        `select * from tickets.nearest_vehicles('WOT0000025')`,
        `select * from tickets.nearest_tickets('V7')`,
        'select * from tickets.tickets_within(36.8, -1.29, 20)',
        'select * from tickets.dispatch_plan()',
        'select * from tickets.dispatch_plan(3)',
        'select tickets.dispatch_problem()',
        `select * from tickets.assign('WOT0000025', 'V7')`,
        'select * from tickets.assignments_in_doubt',
      ]) {
        plans.length = 0;
        await client.query(query);
        assert.ok(plans.length > 0, query);
        assert.deepEqual(
          plans.filter((text) => /^JIT:/m.test(text)),
          [],
          query,
        );
      }
    } finally {
      client.release(true);
      await env.pool.query('truncate tickets.assignments');
    }
  });

  test('a radius search over closed tickets, too', async () => {
    assertIndex(
      await plan(
        `select ticket_id from tickets.inc where st_dwithin(geog, st_setsrid(st_makepoint(36.5, -1.5), 4326)::geography, 500)`,
      ),
      'inc_geog',
    );
  });

  test('how far the content reaches is read off the end of an index', async () => {
    assertIndex(await plan('select max(closed_at) from tickets.inc where closed_at <= now()'), 'inc_closed_at');
    assertIndex(
      await plan('select max(created_at_service) from tickets.inc where created_at_service <= now()'),
      'inc_created_at_service',
    );
  });

  test('the tickets of a cluster or place that moved are found by inc_place', async () => {
    for (const write of [
      `update tickets.geo_clusters set geom = st_setsrid(st_makepoint(36.9, -1.2), 4326) where cluster = 'Cluster 7'`,
      `insert into tickets.geo_locations (cluster, location_key, status, geom)
       values ('Cluster 7', tickets.location_key('Place H'), 'found', st_setsrid(st_makepoint(36.91, -1.21), 4326))`,
    ]) {
      assert.ok((await scansDuring(write, 'inc_place')).index > 0, write);
    }
    const { rows } = await env.pool.query(
      `select geo_source, count(*)::int from tickets.inc where cluster = 'Cluster 7' group by 1 order by 1`,
    );
    assert.equal(rows.find(({ geo_source }) => geo_source === 'location')?.count > 0, true);
    assert.equal(
      rows.reduce((sum, { count }) => sum + count, 0),
      TICKETS / 50,
    );
  });

  test('what is served finds the open tickets, those of a week, and those of a tile by their indexes', async () => {
    await env.pool.query('vacuum analyze tickets.inc'); // as autovacuum does
    for (const [call, index] of [
      ['fn_tickets_for_map_json()', 'inc_open'],
      ['fn_ticket_places()', 'inc_open_places'],
      ['fn_ticket_places()', 'inc_open_long_names'],
      [`fn_ticket_places('closed', '2026-01-05', '2026-01-06')`, 'inc_closed_at'],
      ['ticket_places_mvt(13, 4934, 4128)', 'inc_open_places'],
      [`ticket_places_mvt(13, 4934, 4128, '{"state": "closed"}')`, 'inc_geog'],
    ] as const) {
      const scans = await scansDuring(`select reporting.${call}`, index);
      assert.ok(scans.index > 0, `${call} does not use ${index}`);
      assert.equal(scans.table, 0, `${call} reads the whole table`);
    }
  });

  test('what is served of CRQ finds the open requests and those closed last by their indexes', async () => {
    await env.pool.query('insert into tickets.crq (ticket_id, raw) select ticket_id, raw from tickets.inc limit 20000');
    await env.pool.query('analyze tickets.crq');
    const near = 'st_setsrid(st_makepoint(36.8, -1.29), 4326)::geography';
    for (const [query, index] of [
      ['select reporting.fn_crq_for_map()', 'crq_open_ids'],
      [`select tickets.crq_places(null, null)`, 'crq_open_ids'],
      [`select ticket_id from tickets.crq_open order by geog <-> ${near} limit 10`, 'crq_open_geog'],
      ['select max(closed_at) from tickets.crq where closed_at <= now()', 'crq_closed_at'],
    ] as const) {
      const scans = await scansDuring(query, index, 'tickets.crq');
      assert.ok(scans.index > 0, `${query} does not use ${index}`);
      assert.equal(scans.table, 0, `${query} reads the whole table`);
    }
  });

  test('the map lists every ticket it can, and says when one is left out', async () => {
    const map = async () => {
      const { rows } = await env.pool.query<{ listed: number; truncated: boolean; mapped: number }>(
        `select jsonb_array_length(map -> 'features') as listed, (map -> 'summary' -> 'truncated')::boolean as truncated,
           (map -> 'summary' ->> 'mapped')::int as mapped
         from (select reporting.fn_tickets_for_map(p_open_only := false) as map offset 0) as m`,
      );
      return rows[0];
    };
    assert.deepEqual(await map(), { listed: TICKETS, truncated: false, mapped: TICKETS });
    await env.pool.query(
      `insert into tickets.inc (ticket_id, raw) values ('long', jsonb_build_object('cluster', 'Cluster 1', 'owner', repeat('x', 10000)))`,
    );
    assert.deepEqual(await map(), { listed: TICKETS, truncated: true, mapped: TICKETS + 1 });
  });

  test('a monitor counts the open tickets from their index, without a look at the table', async () => {
    const query = 'select sla_state, at_risk, geo_source, count(*) from tickets.inc_open_sla group by 1, 2, 3';
    await env.pool.query('vacuum tickets.inc'); // as autovacuum does
    assert.match(await plan(query), /Index Only Scan using inc_open_counts on inc\b/);
  });

  /** How often a statement used an index, and how often it read the whole of its table. */
  async function scansDuring(
    statement: string,
    index: string,
    table = 'tickets.inc',
  ): Promise<{ index: number; table: number }> {
    const client = await env.pool.connect();
    const scans = async () => {
      // A session reports its own use when this is asked for and the statement is over.
      await client.query('select pg_stat_force_next_flush()');
      const { rows } = await client.query<{ index: number; table: number }>(
        `select i.idx_scan::int as index, t.seq_scan::int as table
         from pg_stat_user_indexes i join pg_stat_user_tables t on t.relid = $2::regclass
         where i.indexrelname = $1`,
        [index, table],
      );
      return rows[0] ?? assert.fail(`there is no index ${index}`);
    };
    try {
      const before = await scans();
      await client.query(statement);
      const after = await scans();
      return { index: after.index - before.index, table: after.table - before.table };
    } finally {
      client.release();
    }
  }
});
