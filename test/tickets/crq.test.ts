/** CRQ beside INC: off it appears nowhere, on it has its own folder, table, line in every list, and no SLA. */
import assert from 'node:assert/strict';
import { after, afterEach, before, beforeEach, describe, test } from 'node:test';
import type { Finding } from '../../src/operations/doctor/finding.ts';
import { dataset } from '../../src/settings/dataset.ts';
import { recordSchedule } from '../../src/worker/schedule.ts';
import { fleettickets } from '../support/command.ts';
import { type Environment, startEnvironment } from '../support/environment.ts';
import { csvOf } from '../support/pipeline.ts';

let env: Environment;
before(async () => {
  env = await startEnvironment();
});
after(() => env.close());
beforeEach(() => env.reset());
const SETTINGS = ['CRQ_ENABLED', 'CRQ_FEED', 'CRQ_PREFIX', 'RUSTFS_PREFIX'] as const;
afterEach(() => {
  for (const name of SETTINGS) delete process.env[name];
});

const ask = async (sql: string, values: unknown[] = []) => (await env.pool.query(sql, values)).rows;

/** Both folders get a file: two open faults, three open requests and a closed one. */
const record = (ticket_id: string, fields: Record<string, string> = {}) => ({
  ticket_id,
  is_actionable: 'true',
  is_alarm: 'false',
  normalized_status: 'Open',
  cluster: 'Kilimani',
  location_name: 'Yaya Centre',
  ...fields,
});
const FAULTS = csvOf([record('WOT1'), record('WOT2', { location_name: '' })]);
const REQUESTS = csvOf([
  record('CRQ1', { created_at_service: '2026-06-13 07:00:00', latitude: '-1.29', longitude: '36.79' }),
  record('CRQ2', { cluster: 'KILIMANI ' }),
  record('CRQ3', { cluster: 'Nyali', location_name: 'Links Road' }),
  record('CRQ4', { is_actionable: 'false', normalized_status: 'Closed', sla_status: 'Compliant' }),
]);
const CRQ_KEY = 'automations/crq/2026-06-15T10-00-00.csv';
async function loadBoth() {
  process.env['CRQ_ENABLED'] = 'true';
  await env.putObject('automations/inc/2026-06-15T10-00-00.csv', FAULTS);
  await env.putObject(CRQ_KEY, REQUESTS);
  await env.runJobs(); // a worker that starts records its settings
  await ask(`select tickets_ops.fetch_now('inc'), tickets_ops.fetch_now('crq')`);
  assert.deepEqual(await env.runJobs(), []);
}

describe('CRQ that is off', () => {
  test('is in no list: schedule, datasets, metrics, planning, health', async () => {
    await env.pool.query(`insert into tickets.crq (ticket_id, raw) values ('CRQ1', $1)`, [
      JSON.stringify(record('CRQ1')),
    ]);
    await recordSchedule(env.pool);
    assert.deepEqual(await ask('select distinct dataset from tickets_ops.schedule where dataset is not null'), [
      { dataset: 'inc' },
    ]);
    assert.deepEqual(await ask('select dataset from tickets_ops.datasets'), [{ dataset: 'inc' }]);
    assert.deepEqual(await ask(`select * from tickets_ops.metrics where labels ->> 'dataset' = 'crq'`), []);
    assert.deepEqual(await ask('select * from tickets.open_places'), []);
    assert.deepEqual(await ask('select * from tickets_ops.places_to_geocode()'), []);
    const { problems } = (await ask('select problems from tickets_ops.health'))[0];
    assert.doesNotMatch(problems.join('\n'), /crq/i);
  });

  test('is not looked at: fetch_now and ingest refuse and say how it is turned on, a job passes it over', async () => {
    await env.putObject(CRQ_KEY, REQUESTS);
    await assert.rejects(ask(`select tickets_ops.fetch_now('crq')`), /crq is off: nothing of it is loaded/);
    const { status, err } = await fleettickets({}, 'ingest', '--from-bucket', '--dataset', 'crq');
    assert.deepEqual(
      [status, err],
      [1, 'crq is off: nothing of it is loaded. Set CRQ_ENABLED=true here and on the workers.\n'],
    );
    await ask(`select tickets_ops.enqueue('fetch_snapshot', '{"dataset":"crq"}')`);
    assert.deepEqual(await env.runJobs(), []);
    assert.deepEqual(await ask('select * from tickets_ops.snapshots'), []);
  });

  test('is off again once a process says so; a process without the setting goes by what is recorded', async () => {
    const isOn = async () => (await ask(`select 'crq' in (select tickets.datasets()) as is_on`))[0].is_on;
    process.env['CRQ_ENABLED'] = 'true';
    await env.runJobs();
    assert.equal(await isOn(), true);
    delete process.env['CRQ_ENABLED'];
    await env.runJobs();
    assert.equal(await isOn(), true);
    await recordSchedule(env.pool);
    assert.equal((await ask(`select from tickets_ops.schedule where dataset = 'crq'`)).length, 1);
    await env.putObject(CRQ_KEY, REQUESTS);
    process.env['RUSTFS_PREFIX'] = 'automations/inc/';
    process.env['CRQ_PREFIX'] = 'automations/inc/';
    await ask(`select tickets_ops.fetch_now('crq')`);
    assert.match(
      (await env.runJobs())[0]?.error ?? '',
      /the folder of CRQ \(CRQ_PREFIX\), automations\/inc\/, and that of INC .* are one/,
    );
    await ask(`update graphile_worker._private_jobs set attempts = max_attempts`);
    const failed = () => ask('select superseded from tickets_ops.failed_jobs');
    assert.deepEqual(await failed(), [{ superseded: null }]);
    process.env['CRQ_ENABLED'] = 'false';
    await env.runJobs();
    assert.equal(await isOn(), false);
    assert.deepEqual(await failed(), [{ superseded: 'crq is off.' }]);
  });
});

describe('CRQ beside INC', () => {
  test('has its own table, history, ledger and archive', async () => {
    await loadBoth();
    assert.deepEqual(
      await ask(
        `select (select array_agg(ticket_id order by ticket_id) from tickets.inc) as inc, (select array_agg(ticket_id order by ticket_id) from tickets.crq) as crq,
           (select count(*)::int from tickets.inc_events) as inc_events, (select count(*)::int from tickets.crq_events) as crq_events,
           (select array_agg(dataset order by dataset) from tickets.import_meta) as loaded`,
      ),
      [
        {
          inc: ['WOT1', 'WOT2'],
          crq: ['CRQ1', 'CRQ2', 'CRQ3', 'CRQ4'],
          inc_events: 2,
          crq_events: 4,
          loaded: ['crq', 'inc'],
        },
      ],
    );
    assert.deepEqual(await env.listKeys(), [
      'automations/crq/processed/2026-06-15T10-00-00.csv',
      'automations/inc/processed/2026-06-15T10-00-00.csv',
    ]);
  });

  test('has the columns of INC, in their order and from the same rules', async () => {
    const columns = (table: string) =>
      ask(
        `select a.attname, format_type(a.atttypid, a.atttypmod), pg_get_expr(d.adbin, d.adrelid) as rule
         from pg_attribute a left join pg_attrdef d on (d.adrelid, d.adnum) = (a.attrelid, a.attnum)
         where a.attrelid = $1::regclass and a.attnum > 0 and not a.attisdropped order by a.attnum`,
        [table],
      );
    assert.deepEqual(await columns('tickets.crq'), await columns('tickets.inc'));
  });

  test('shares places: one row for a place of both, each asked once', async () => {
    await loadBoth();
    assert.deepEqual(
      await ask(
        `select cluster_key, location_key, cluster, tickets::int, inc_tickets::int, crq_tickets::int from tickets.open_places order by 1, 2`,
      ),
      [
        {
          cluster_key: 'kilimani',
          location_key: 'yaya centre',
          cluster: 'Kilimani',
          tickets: 3,
          inc_tickets: 1,
          crq_tickets: 2,
        },
        {
          cluster_key: 'kilimani',
          location_key: null,
          cluster: 'Kilimani',
          tickets: 1,
          inc_tickets: 1,
          crq_tickets: 0,
        },
        {
          cluster_key: 'nyali',
          location_key: 'links road',
          cluster: 'Nyali',
          tickets: 1,
          inc_tickets: 0,
          crq_tickets: 1,
        },
      ],
    );
    assert.deepEqual(
      await ask('select task, cluster, location_key, tickets::int from tickets_ops.places_to_geocode() order by 1, 2'),
      [
        { task: 'geocode_cluster', cluster: 'Kilimani', location_key: null, tickets: 3 },
        { task: 'geocode_cluster', cluster: 'Nyali', location_key: null, tickets: 1 },
        { task: 'geocode_location', cluster: 'Kilimani', location_key: 'yaya centre', tickets: 2 },
        { task: 'geocode_location', cluster: 'Nyali', location_key: 'links road', tickets: 1 },
      ],
    );
  });

  test('moves with the gazetteers, and its open requests count in the review queue', async () => {
    await loadBoth();
    await env.pool.query(
      `insert into tickets.geo_clusters (cluster, geom) values ('Nyali', 'SRID=4326;POINT(39.71 -4.04)')`,
    );
    await env.pool.query(
      `insert into tickets.geo_locations (cluster, location_key, status, note) values ('Nyali', 'links road', 'needs_review', 'two of that name')`,
    );
    assert.deepEqual(await ask(`select geo_source, longitude from tickets.crq where ticket_id = 'CRQ3'`), [
      { geo_source: 'cluster', longitude: 39.71 },
    ]);
    assert.deepEqual(
      await ask(`select open_tickets::int from tickets_ops.review_queue where location_key = 'links road'`),
      [{ open_tickets: 1 }],
    );
    const { found } = (await ask(`select tickets_ops.review_place('location', 'Nyali', 'links road') as found`))[0];
    assert.deepEqual(found.names, [{ name: 'Links Road', tickets: 1, open: 1 }]);
  });

  test('has a clock and no SLA: tickets.crq_open and reporting.fn_crq_for_map()', async () => {
    await loadBoth();
    const [open] = await ask(
      `select ticket_id, clock_source, clock_start, hours_open = trunc(extract(epoch from now() - clock_start) / 3600, 2) as counts
       from tickets.crq_open where clock_start is not null`,
    );
    assert.deepEqual(open, {
      ticket_id: 'CRQ1',
      clock_source: 'created_at_service',
      clock_start: new Date('2026-06-13T04:00:00Z'),
      counts: true,
    });
    assert.equal((await ask('select from tickets.crq_open')).length, 3);
    const { map } = (await ask('select reporting.fn_crq_for_map(p_open_only => false) as map'))[0];
    const { map: inc } = (await ask('select reporting.fn_tickets_for_map() as map'))[0];
    assert.equal(map.type, 'FeatureCollection');
    assert.deepEqual(
      map.features.map((feature: { id: string }) => feature.id),
      ['CRQ1'],
    );
    assert.deepEqual(
      Object.keys(map.features[0].properties)
        .filter((name) => /sla|at_risk|clock|hours/.test(name))
        .sort(),
      ['clock_source', 'clock_start', 'hours_open', 'sla_status'], // sla_status is a column of the feed
    );
    const summary = Object.keys(inc.summary).filter((name) => name !== 'by_sla_state');
    assert.deepEqual(Object.keys(map.summary), summary);
    assert.deepEqual([map.summary.total, map.summary.mapped, map.summary.unmapped], [4, 1, 3]);
    assert.deepEqual(map.summary.by_status, { Open: 3, Closed: 1 });
    assert.equal(map.summary.freshness.source_key, CRQ_KEY);
    const { filtered } = (await ask(`select reporting.fn_crq_for_map(p_cluster => 'nyali') as filtered`))[0];
    assert.deepEqual([filtered.summary.total, filtered.features], [1, []]);
  });

  test('is counted by health, status and metrics', async () => {
    await loadBoth();
    assert.deepEqual(
      await ask('select dataset, feed, open_tickets::int, loaded_status, checked_key from tickets_ops.datasets'),
      [
        {
          dataset: 'inc',
          feed: 'snapshots',
          open_tickets: 2,
          loaded_status: 'done',
          checked_key: 'automations/inc/2026-06-15T10-00-00.csv',
        },
        { dataset: 'crq', feed: 'snapshots', open_tickets: 3, loaded_status: 'done', checked_key: CRQ_KEY },
      ],
    );
    const { problems } = (await ask('select problems from tickets_ops.health'))[0];
    assert.match(
      problems.join('\n'),
      /^Fault: CRQ: The feed stands still: the tickets are as of 2026-06-15 10:00 EAT/m,
    );
    const { out } = await fleettickets({}, 'status');
    assert.match(out, /^CRQ +3 open, as of Mon 15 Jun 10:00 EAT.*automations\/crq\/2026-06-15T10-00-00\.csv done/m);
    assert.deepEqual(
      await ask(
        `select replace(name, 'fleettickets_', '') as name, labels, value from tickets_ops.metrics
         where labels ->> 'dataset' = 'crq' and name ~ '_tickets_|snapshot_rows' and value > 0 order by 1, 2`,
      ),
      [
        { name: 'snapshot_rows', labels: { dataset: 'crq', outcome: 'inserted' }, value: 4 },
        { name: 'tickets_open', labels: { dataset: 'crq' }, value: 3 },
        { name: 'tickets_placed', labels: { dataset: 'crq', geo_source: 'feed' }, value: 1 },
        { name: 'tickets_placed', labels: { dataset: 'crq', geo_source: 'none' }, value: 2 },
      ],
    );
  });

  test('the doctor looks at its folder and its runs, where the database alone knows that it is on', async () => {
    await loadBoth();
    await recordSchedule(env.pool);
    delete process.env['CRQ_ENABLED'];
    const { out } = await fleettickets({}, 'doctor', '--json');
    const findings = JSON.parse(out) as Finding[];
    const details = (name: string) => findings.filter(({ check }) => check === name).map(({ detail }) => detail);
    assert.equal(details('bucket').length, 2);
    assert.match(details('bucket')[1] ?? '', /0 snapshots in .*\/automations\/crq\/$/);
    assert.equal(details('bucket rights').length, 2);
    assert.match(details('schedule').join(), /the next run of inc is 20.*, the next run of crq is 20/);
  });

  test('a file that fails is named with its dataset, and skip_file needs its key only', async () => {
    process.env['CRQ_FEED'] = 'changes';
    await loadBoth();
    await env.putObject('automations/crq/2026-06-15T11-00-00.csv', '<html>502</html>');
    await ask(`select tickets_ops.fetch_now('crq')`);
    await env.runJobs();
    const problems = async () => (await ask('select problems from tickets_ops.health'))[0].problems.join('\n');
    assert.match(await problems(), /Fault: CRQ: automations\/crq\/2026-06-15T11-00-00\.csv failed/);
    await ask(`select tickets_ops.skip_file('automations/crq/2026-06-15T11-00-00.csv')`);
    assert.doesNotMatch(await problems(), /T11-00-00/);
  });

  test('a process without CRQ_PREFIX looks into the folder that others have recorded', async () => {
    await env.reset();
    Object.assign(process.env, { CRQ_ENABLED: 'true', CRQ_PREFIX: 'exports/installations/' });
    await env.runJobs();
    delete process.env['CRQ_ENABLED'];
    delete process.env['CRQ_PREFIX'];
    await env.putObject('exports/installations/2026-06-15T10-00-00.csv', REQUESTS);
    await ask(`select tickets_ops.fetch_now('crq')`);
    assert.deepEqual(await env.runJobs(), []);
    assert.deepEqual(await ask('select status, source_key from tickets_ops.snapshots'), [
      { status: 'done', source_key: 'exports/installations/2026-06-15T10-00-00.csv' },
    ]);
  });

  test('its folder is the one beside that of INC, or that of CRQ_PREFIX', () => {
    assert.deepEqual(dataset('crq'), { name: 'crq', prefix: 'automations/crq/' });
    process.env['CRQ_PREFIX'] = 'exports/installations/';
    assert.deepEqual(dataset('crq'), { name: 'crq', prefix: 'exports/installations/' });
  });
});
