/** One cluster of the gazetteer however the feed, a person or a payload spells it; the ticket keeps what the feed wrote. */
import assert from 'node:assert/strict';
import { after, before, beforeEach, test } from 'node:test';
import { type Environment, startEnvironment } from '../support/environment.ts';
import { csvOf, fetchNow, keyOf } from '../support/pipeline.ts';
import { asking } from '../support/rows.ts';

let env: Environment;
before(async () => {
  env = await startEnvironment();
});
after(() => env.close());
beforeEach(() => env.reset());

const sql = asking(() => env.pool);
const SPELLINGS = ['Ongata Rongai', 'ONGATA RONGAI', 'ongata  rongai', ' Ongata Rongai\u00a0'];
const RONGAI = 'st_setsrid(st_makepoint(36.76, -1.4), 4326)';

/** Loads a file with an open ticket for each spelling. */
const load = async (hour = 7, spellings = SPELLINGS) => {
  const records = spellings.map((cluster, n) => ({
    ticket_id: `WOT${n}`,
    cluster,
    location_name: n % 2 ? 'NW_TUSKYS MALL' : 'Tuskys Mall_FDT4',
    is_actionable: 'true',
  }));
  await env.putObject(keyOf(hour), csvOf(records));
  assert.deepEqual(await fetchNow(env), []);
};
const sources = async () =>
  (await sql('select geo_source from tickets.inc order by ticket_id')).map((r) => r.geo_source);
const jobKeys = async () => (await sql('select key from tickets_ops.jobs order by key')).map(({ key }) => key);

test('a name that is too long is cut where its row can be written, at a blank too', async () => {
  const long = `${'x'.repeat(199)} and more`;
  await sql('insert into tickets.geo_clusters (cluster) values (tickets_ops.cluster_name($1))', [long]);
  assert.deepEqual(await sql('select cluster from tickets.geo_clusters'), [{ cluster: 'x'.repeat(199) }]);
});

test('case and blanks are no part of its key', async () => {
  const [row] = await sql(
    'select array_agg(distinct tickets.cluster_key(name)) as keys from unnest($1::text[]) as name',
    [SPELLINGS],
  );
  assert.deepEqual(row?.keys, ['ongatarongai']);
  assert.deepEqual(await sql(`select tickets.cluster_key(e'  \\t\\u00a0') as key`), [{ key: null }]);
});

test('a load places the tickets of every spelling, and each keeps its own', async () => {
  await sql(`insert into tickets.geo_clusters (cluster, geom) values ('Ongata Rongai', ${RONGAI})`);
  await load();
  assert.deepEqual(await sources(), Array(4).fill('cluster'));
  await sql(
    `insert into tickets.geo_locations (cluster, location_name, geom) values ('ongata rongai', 'Tuskys Mall', ${RONGAI})`,
  );
  assert.deepEqual(await sources(), Array(4).fill('location'), 'a place that comes later too');
  await load(8, [...SPELLINGS].reverse());
  assert.deepEqual(await sources(), Array(4).fill('location'), 'and tickets that come after it');
  assert.deepEqual(
    (await sql('select raw, cluster from tickets.inc order by ticket_id')).map(({ raw, cluster }) => [
      raw.cluster,
      cluster,
    ]),
    [...SPELLINGS].reverse().map((name) => [name, name]),
  );
});

test('it is planned, asked for by a person and reviewed as one', async () => {
  await sql(`select tickets_ops.register_geocoder('locationiq', 100, null, 180, null)`);
  await load(7, [...SPELLINGS, 'Ongata Rongai']);
  assert.deepEqual(await jobKeys(), ['geocode_cluster:ongatarongai', 'geocode_location:ongatarongai:tuskys mall']);
  const due = await sql(`select cluster, tickets::int from tickets_ops.places_to_geocode(array['ONGATA RONGAI'])`);
  assert.deepEqual(due, Array(2).fill({ cluster: 'Ongata Rongai', tickets: 5 }), 'as most tickets write it');

  for (const spelling of SPELLINGS) {
    const [cluster] = await sql('select * from tickets.geocode_cluster($1)', [spelling]);
    const [place] = await sql('select * from tickets.geocode_location($1, $2)', ['NW_Tuskys Mall', spelling]);
    assert.ok(cluster?.already_waiting && place?.already_waiting, spelling);
  }
  assert.equal((await jobKeys()).length, 2);
  assert.deepEqual(await sql(`select distinct payload ->> 'cluster' as cluster from tickets_ops.jobs`), [
    { cluster: 'Ongata Rongai' },
  ]);

  await sql(`insert into tickets.geo_clusters (cluster, geom, verified) values ('Ongata Rongai', null, false)`);
  const queue = await sql('select cluster, open_tickets::int from tickets_ops.review_queue');
  assert.deepEqual(queue, [{ cluster: 'Ongata Rongai', open_tickets: 5 }]);
});

test('the gazetteers write it as who came first, and have it once', async () => {
  await sql(
    `insert into tickets.geo_locations (cluster, location_name, geom) values ('Ongata Rongai', 'Tuskys Mall', ${RONGAI})`,
  );
  await sql(`insert into tickets.geo_clusters (cluster, geom) values ('ONGATA RONGAI', ${RONGAI})`);
  await sql(
    `insert into tickets.geo_clusters (cluster, guard_km) values ('ongata rongai', 40) on conflict (cluster) do update set guard_km = excluded.guard_km`,
  );
  assert.deepEqual(await sql('select cluster, guard_km::int from tickets.geo_clusters'), [
    { cluster: 'Ongata Rongai', guard_km: 40 },
  ]);
  await assert.rejects(
    sql(`insert into tickets.geo_clusters (cluster) values ('OngataRongai')`),
    /duplicate key.*geo_clusters/,
  );
  await load();
  assert.deepEqual(await sources(), Array(4).fill('location'));
});

test('a guard is a finite distance of this country', async () => {
  for (const wrong of ['NaN', 'Infinity', '-Infinity', '0', '0.01', '40000', '-5'])
    await assert.rejects(
      sql(`insert into tickets.geo_clusters (cluster, guard_km) values ('Kilimani', '${wrong}')`),
      /geo_clusters_guard_km_check/,
      wrong,
    );
  await sql(`insert into tickets.geo_clusters (cluster, guard_km) values ('Turkana', 450.5)`);
});

test('the map counts it as one in its summary, as it is filtered, and each feature keeps its own spelling', async () => {
  const summary = async (args = '') =>
    (await sql(`select reporting.fn_tickets_for_map(${args}) -> 'summary' as s`))[0]?.s;
  await load(1, [...SPELLINGS, 'KAREN', 'Karen', 'KAREN', ' ']);
  const counted = await summary();
  const [shown] = Object.keys(counted.by_cluster).filter((name) => /rongai/i.test(name));
  assert.ok(shown && SPELLINGS.includes(shown), shown);
  assert.deepEqual(counted.by_cluster, { [shown]: SPELLINGS.length, KAREN: 3, '(none)': 1 });
  for (const [cluster, tickets] of Object.entries(counted.by_cluster))
    if (cluster !== '(none)')
      assert.deepEqual((await summary(`p_cluster := '${cluster}'`)).by_cluster, { [cluster]: tickets });
  await sql(`insert into tickets.geo_clusters (cluster, geom) values ('ONGATA Rongai', ${RONGAI})`);
  assert.equal((await summary()).by_cluster['ONGATA Rongai'], SPELLINGS.length);
});

test('analytics count it as one, by the spelling that most tickets have', async () => {
  const day = new Date(Date.now() - 2 * 86_400_000).toISOString().slice(0, 10);
  const records = [...SPELLINGS, 'Ongata Rongai', 'Karen'].map((cluster, n) => ({
    ticket_id: `WOT${n}`,
    cluster,
    is_actionable: n % 2 ? 'true' : 'false',
    created_at_service: `${day} 08:00:00`,
    closed_at: n % 2 ? '' : `${day} 09:00:00`,
    mttr: n % 2 ? '' : '1',
  }));
  await env.putObject(`automations/inc/${day}T12-00-00.csv`, csvOf(records));
  assert.deepEqual(await fetchNow(env), []);
  const values = (call: string, figures: string) =>
    sql(`select value, ${figures} from tickets.${call} where value is not null group by value order by value`);
  const range = `'${day}', '${day}'::date + 1`;
  assert.deepEqual(
    await values(`inc_flow(${range}, 'day', 'cluster')`, 'sum(created)::int as created, sum(closed)::int as closed'),
    [
      { value: 'Karen', created: 1, closed: 0 },
      { value: 'Ongata Rongai', created: 5, closed: 3 },
    ],
  );
  assert.deepEqual(await values(`inc_repair_times(${range}, 'day', 'cluster')`, 'sum(n)::int as n'), [
    { value: 'Ongata Rongai', n: 3 },
  ]);
  assert.deepEqual(await values(`inc_time_to_close(${range}, 'cluster')`, 'sum(opened)::int as opened'), [
    { value: 'Karen', opened: 1 },
    { value: 'Ongata Rongai', opened: 5 },
  ]);
  assert.deepEqual(await values(`inc_backlog_daily(${range}, 'cluster')`, 'max(open)::int as open'), [
    { value: 'Karen', open: 1 },
    { value: 'Ongata Rongai', open: 2 },
  ]);
  assert.deepEqual(await sql(`select * from tickets.cluster_spellings('team')`), []);
});

test('the days, the ages and the dashboard have it once, in the spelling of the gazetteer', async () => {
  await sql(
    `insert into tickets.geo_clusters (cluster, geom) values ('Ongata-Rongai', null), ('ONGATA Rongai', ${RONGAI})`,
  );
  await load(7, [...SPELLINGS, ' ONGATA RONGAI', ' ', 'Karen', 'KAREN', 'KAREN']);
  const once = [
    { value: '(none)', open: 1 },
    { value: 'KAREN', open: 3 },
    { value: 'ONGATA Rongai', open: 5 },
  ];
  const daily = () =>
    sql(
      `select coalesce(nullif(cluster, ''), '(none)') as value, open from tickets.inc_daily where open > 0 order by 1`,
    );
  const days = await daily();
  assert.deepEqual(days.map(({ open }) => open).sort(), [1, 3, 5], 'a key of its table is a cluster');
  await sql('delete from tickets.inc_daily');
  await sql('select tickets_ops.rebuild_days()');
  assert.deepEqual(await daily(), days);
  const [{ day }] = (await sql('select min(day)::text as day from tickets.inc_daily')) as [{ day: string }];
  assert.deepEqual(
    await sql(`select value, open::int from tickets.inc_backlog_daily('${day}', '${day}'::date + 1, 'cluster')`),
    once,
  );
  assert.deepEqual(
    await sql(`select coalesce(cluster, '(none)') as value, open::int from tickets.inc_ageing order by 1`),
    once,
  );
  for (const spelling of [...SPELLINGS, 'Ongata Rongai'])
    assert.equal((await sql('select reporting.fn_inc_dashboard($1) as d', [spelling]))[0]?.d.metrics.open, 5, spelling);

  // One to which tickets only moved is told by the days; moved and gone within one, by its key.
  await load(8, [...SPELLINGS.map(() => 'Ngong'), 'NGONG']);
  assert.deepEqual(
    await sql(
      `select value, closed::int as closed, open::int from tickets.inc_backlog_daily('${day}', '${day}'::date + 1, 'cluster') where value ilike 'ngong'`,
    ),
    [{ value: 'Ngong', closed: 0, open: 5 }],
  );
});
