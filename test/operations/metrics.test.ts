/** tickets_ops.metrics, and the ways it comes out: fleettickets metrics, its server, the exporter's query. */
import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { after, afterEach, before, beforeEach, describe, test } from 'node:test';
import { pino } from 'pino';
import { feed } from '../../demo/feed.ts';
import { exposition, type Metric, readMetrics } from '../../src/operations/metrics.ts';
import { type MetricsServer, serveMetrics } from '../../src/operations/metrics-server.ts';
import { fleettickets as runFleettickets } from '../support/command.ts';
import { type Environment, startEnvironment } from '../support/environment.ts';
import { createTracker, park, report } from '../support/fleet.ts';
import { fetchNow, PREFIX } from '../support/pipeline.ts';
import { promtool, skipWithoutPromtool } from '../support/promtool.ts';
import { countRows } from '../support/rows.ts';

let env: Environment;
before(async () => {
  env = await startEnvironment();
});
after(() => env.close());
beforeEach(() => env.reset());

const metrics = () => readMetrics(env.pool);
const seriesOf = ({ name, labels }: Metric) => `${name} ${JSON.stringify(labels)}`;

/** The value of the one series with that name, without its prefix, and these labels. */
async function value(name: string, labels: Record<string, string> = {}): Promise<number> {
  const found = (await metrics()).filter(
    (metric) =>
      metric.name === `fleettickets_${name}` &&
      Object.entries(labels).every(([key, text]) => metric.labels[key] === text),
  );
  assert.equal(found.length, 1, `${name} ${JSON.stringify(labels)}`);
  return found[0]?.value ?? Number.NaN;
}

const fleettickets = (args: string[], settings: Record<string, string> = {}) => runFleettickets(settings, ...args);

async function load(hours: number): Promise<void> {
  const start = new Date(Math.floor(Date.now() / 3_600_000) * 3_600_000 - (hours - 1) * 3_600_000);
  for (const { name, csv } of feed({ seed: 5, hours, tickets: 200, start })) {
    await env.putObject(PREFIX + name, csv);
    assert.deepEqual(await fetchNow(env), []);
  }
}

describe('tickets_ops.metrics', () => {
  test('has rows of every name in an empty database: no count but 0, no age that is unknown but NaN', async () => {
    const all = await metrics();
    const { rows } = await env.pool.query('select name from tickets_ops.metric_help() order by place');
    assert.deepEqual(
      [...new Set(all.map(({ name }) => name))],
      rows.map(({ name }) => `fleettickets_${name}`),
    );
    const unknown = all.filter(({ value: figure }) => Number.isNaN(figure)).map(({ name }) => name.slice(13));
    assert.deepEqual(unknown, [
      'checked_age_seconds',
      'data_age_seconds',
      'content_lag_seconds',
      'snapshot_load_seconds',
      'open_missing',
      'geocoding_budget_left',
    ]);
    for (const { name, value: figure, kind, help } of all) {
      assert.ok(
        Number.isNaN(figure) ||
          figure === 0 ||
          name === 'fleettickets_problems' ||
          name === 'fleettickets_storage_bytes',
        name,
      );
      assert.equal(kind, 'gauge');
      assert.match(help, /\.$/);
    }
  });

  test('has the same series whatever there is, each once, and no label with more than twenty values', async () => {
    const empty = (await metrics()).map(seriesOf);
    assert.equal(new Set(empty).size, empty.length);
    await load(2);
    await createTracker(env.pool);
    await park(env.pool, [{ id: '1', lng: 36.8, lat: -1.3 }]);
    await report(env.pool, [{ id: 'WOT1', hours: 44 }]);
    const all = await metrics();
    assert.deepEqual(all.map(seriesOf), empty);
    const values = new Map<string, Set<string>>();
    for (const { labels } of all)
      for (const [key, text] of Object.entries(labels)) values.set(key, (values.get(key) ?? new Set()).add(text));
    for (const [key, texts] of values) assert.ok(texts.size <= 20, `${key}: ${[...texts].join(', ')}`);
  });

  test('says what health, the ledger and the tickets say', async () => {
    await load(2);
    const { rows: ledger } = await env.pool.query(
      'select * from tickets_ops.snapshots order by snapshot_id desc limit 1',
    );
    const rows = (await metrics()).filter(({ name }) => name === 'fleettickets_snapshot_rows');
    assert.equal(
      rows.reduce((sum, row) => sum + row.value, 0),
      Number(ledger[0].rows_read),
    );
    assert.equal(await value('snapshot_rows', { outcome: 'rejected' }), Number(ledger[0].rows_rejected));
    assert.equal(await value('open_missing'), Number(ledger[0].open_missing));
    assert.ok((await value('snapshot_load_seconds')) > 0);
    const { rows: health } = await env.pool.query(
      'select ok, extract(epoch from data_age)::float8 as data_age, places_for_review::int as review, problems from tickets_ops.health',
    );
    assert.equal(await value('health_ok'), Number(health[0].ok));
    assert.ok(Math.abs((await value('data_age_seconds')) - health[0].data_age) < 60);
    const problems = (await metrics()).filter(({ name }) => name === 'fleettickets_problems');
    assert.equal(
      problems.reduce((sum, row) => sum + row.value, 0),
      health[0].problems.length,
    );
    const open = await countRows(env.pool, 'tickets.inc where is_actionable');
    for (const name of ['tickets_open', 'tickets_placed']) {
      const counted = (await metrics()).filter((metric) => metric.name === `fleettickets_${name}`);
      assert.equal(
        counted.reduce((sum, row) => sum + row.value, 0),
        open,
        name,
      );
    }
  });

  test('counts tickets at risk apart from those that are well, and vehicles by what is believed of them', async () => {
    await report(env.pool, [
      { id: '1', hours: 1 },
      { id: '2', hours: 41 },
      { id: '3', hours: 60 },
      { id: '4', hours: 99 },
    ]);
    const open = Object.fromEntries(
      (await metrics())
        .filter(({ name }) => name === 'fleettickets_tickets_open')
        .map((m) => [m.labels['sla_state'], m.value]),
    );
    assert.deepEqual(open, { at_risk: 1, breached: 2, ok: 1, unknown: 0 });
    await createTracker(env.pool);
    await park(env.pool, [
      { id: 'a', lng: 36.8, lat: -1.3 },
      { id: 'b', lng: 36.8, lat: -1.3, located: 300 },
      { id: 'c', lng: 0, lat: 0 },
    ]);
    assert.deepEqual(
      [await value('vehicles', { freshness: 'live' }), await value('vehicles', { freshness: 'stale' })],
      [1, 1],
    );
    assert.equal(await value('vehicles', { freshness: 'nowhere' }), 1);
  });

  test('counts jobs by task and state, failed ones while they matter, and how long the oldest has waited', async () => {
    await env.pool.query(`select tickets_ops.enqueue('geocode_cluster', '{"cluster": "Kilimani"}', p_run_at => now() - interval '90 s'),
      tickets_ops.enqueue('geocode_cluster', '{"cluster": "Karen"}', p_run_at => now() + interval '1 hour')`);
    assert.equal(await value('jobs', { task: 'geocode_cluster', state: 'ready' }), 1);
    assert.equal(await value('jobs', { task: 'geocode_cluster', state: 'scheduled' }), 1);
    const age = await value('oldest_job_age_seconds', { task: 'geocode_cluster' });
    assert.ok(age >= 90 && age < 150, `${age}`);
    await env.pool.query(`select tickets_ops.give_up(id) from tickets_ops.jobs where state = 'ready'`);
    await env.pool.query('update graphile_worker._private_jobs set attempts = max_attempts where run_at < now()');
    assert.equal(await value('jobs', { task: 'geocode_cluster', state: 'failed' }), 1);
    assert.equal(await value('oldest_job_age_seconds', { task: 'geocode_cluster' }), 0);
  });

  test('says that geocoding stands still only when somebody is to be asked and is not', async () => {
    assert.equal(await value('geocoding_stopped'), 0, 'no provider is no standstill');
    await env.pool.query(`
      insert into tickets_ops.geocoding_providers (provider, rate_per_second, daily_budget, used, used_on)
      values ('opencage', 1, 2500, 100, (now() at time zone 'UTC')::date);
      insert into tickets_ops.geocoding_setup (provider) values ('opencage');
      insert into tickets_ops.geocoding_calls values ('opencage', (now() at time zone 'UTC')::date, 'found', 70)`);
    assert.equal(await value('geocoding_stopped'), 0);
    assert.equal(await value('geocoding_budget_left'), 2400);
    assert.equal(await value('geocoding_calls_today', { outcome: 'found' }), 70);
    await env.pool.query('update tickets_ops.geocoding_providers set used = 2500');
    assert.equal(await value('geocoding_stopped'), 1);
    assert.equal(await value('geocoding_budget_left'), 0);
  });
});

describe('a tickets.vehicles that cannot be read', () => {
  afterEach(async () => {
    await createTracker(env.pool);
    await env.pool.query('drop schema if exists evil cascade');
  });
  const problems = async () => {
    const { rows } = await env.pool.query(
      `select severity, problem from tickets_ops.list_problems() where subject = 'vehicles'`,
    );
    return rows;
  };
  const vehicles = async () => [
    ...new Set((await metrics()).filter(({ name }) => name === 'fleettickets_vehicles').map((metric) => metric.value)),
  ];

  test('fails alone: its own figures are NaN, and health says what to do', async () => {
    await createTracker(env.pool);
    await park(env.pool, [{ id: 'a', lng: 36.8, lat: -1.3 }]);
    assert.deepEqual(await problems(), []);
    await env.pool.query(`
      create or replace view tickets.vehicles as
      select imei as vehicle_id, plate as label, crew as team, longitude / (longitude - longitude) as lng, latitude as lat,
        fix_time as located_at, heartbeat as seen_at, moving, speed as speed_kmh, 'test'::text as source
      from tracker.positions`);
    assert.deepEqual(await vehicles(), [Number.NaN]);
    assert.equal(await value('tickets_open', { sla_state: 'ok' }), 0, 'the others are there');
    const [found] = await problems();
    assert.equal(found.severity, 'fault');
    assert.match(found.problem, /tickets\.vehicles cannot be read.*division by zero\. fleettickets vehicles prints/);
  });

  test('is not read at all where that would run what others made', async () => {
    await createTracker(env.pool);
    await env.pool.query(`
      create schema evil;
      create table evil.ran (at timestamptz);
      create function evil.run(text) returns text language plpgsql as $$
      begin insert into evil.ran values (now()); return $1; end $$;
      create or replace view tickets.vehicles as
      select evil.run(imei) as vehicle_id, plate as label, crew as team, longitude as lng, latitude as lat,
        fix_time as located_at, heartbeat as seen_at, moving, speed as speed_kmh, 'test'::text as source
      from tracker.positions`);
    await park(env.pool, [{ id: 'a', lng: 36.8, lat: -1.3 }]);
    assert.deepEqual(await vehicles(), [Number.NaN]);
    const [found] = await problems();
    assert.equal(found.severity, 'warning');
    assert.match(found.problem, /runs function evil\.run\(text\), with the rights of the pipeline/);
    assert.deepEqual((await env.pool.query('select from evil.ran')).rows, []);
  });

  test('nor where its table’s row security would', async () => {
    await createTracker(env.pool);
    await env.pool.query('alter table tracker.positions enable row level security');
    assert.match((await problems())[0].problem, /runs row security of table tracker\.positions/);
  });
});

describe('the exposition', () => {
  test('escapes what has to be, and says of each name once what it tells', () => {
    const metric = { name: 'a_seconds', kind: 'gauge', help: 'One\nof \\ them.' };
    assert.equal(
      exposition([
        { ...metric, labels: {}, value: 1.5 },
        { ...metric, labels: { b: 'x "y" \\ \n', c: '1' }, value: Number.NaN },
      ]),
      '# HELP a_seconds One\\nof \\\\ them.\n# TYPE a_seconds gauge\na_seconds 1.5\na_seconds{b="x \\"y\\" \\\\ \\n",c="1"} NaN\n',
    );
  });

  test('is what promtool takes without a remark', skipWithoutPromtool, async () => {
    await load(1);
    await promtool(['check', 'metrics'], exposition(await metrics()));
  });

  test('is what the SQL exporter asks for, with every label', async () => {
    const config = await readFile(new URL('../../ops/sql_exporter.yml', import.meta.url), 'utf8');
    const declared = /labels: \[(.*)\]/.exec(config)?.[1]?.split(', ') ?? [];
    const labels = new Set((await metrics()).flatMap((metric) => Object.keys(metric.labels)));
    assert.deepEqual(declared, ['name', ...[...labels].sort()]);
    const sql = (/query: \|\n([\s\S]*?)$/.exec(config)?.[1] ?? '').trim();
    const { rows } = await env.pool.query(sql);
    assert.deepEqual(
      rows.map(({ name, value: figure, ...all }) => [
        name,
        Object.fromEntries(
          Object.entries(all)
            .filter(([, text]) => text !== '')
            .sort(),
        ),
      ]),
      (await metrics()).map(({ name, labels: all }) => [name, Object.fromEntries(Object.entries(all).sort())]),
    );
  });
});

describe('fleettickets metrics', () => {
  test('prints them once', async () => {
    const { status, out, err } = await fleettickets(['metrics']);
    assert.deepEqual([status, err], [0, '']);
    assert.match(
      out,
      /^# HELP fleettickets_health_ok .*\n# TYPE fleettickets_health_ok gauge\nfleettickets_health_ok 0\n/,
    );
    assert.match(out, /\nfleettickets_assignments_open 0\n/);
  });

  test('says what is wrong with --listen', async () => {
    for (const listen of ['9464', 'localhost', '127.0.0.1:99999', ':9464', '127.0.0.1:'])
      assert.equal((await fleettickets(['metrics', '--listen', listen])).status, 2, listen);
    const { status, err } = await fleettickets(['metrics', '--listen', '203.0.113.7:9464']);
    assert.deepEqual([status, err], [1, 'This machine has no address 203.0.113.7.\n']);
  });

  describe('served', () => {
    let server: MetricsServer;
    before(async () => {
      server = await serveMetrics(env.databaseUrl, '127.0.0.1', 0, pino({ level: 'silent' }));
    });
    after(() => server.close());

    test('each scrape is of its moment', async () => {
      const scrape = async () => (await fetch(server.url)).text();
      assert.match(await scrape(), /tickets_open\{sla_state="breached"\} 0\n/);
      await report(env.pool, [{ id: 'WOT1', hours: 60 }]);
      assert.match(await scrape(), /tickets_open\{sla_state="breached"\} 1\n/);
      const { headers, status } = await fetch(server.url, { method: 'HEAD' });
      assert.deepEqual([status, headers.get('content-type')], [200, 'text/plain; version=0.0.4; charset=utf-8']);
    });

    test('nothing else is', async () => {
      const answer = await fetch(server.url.replace('metrics', ''));
      assert.deepEqual([answer.status, await answer.text()], [404, 'The metrics are at /metrics.\n']);
      assert.equal((await fetch(server.url, { method: 'POST' })).status, 405);
    });

    test('a scrape that fails says why, and the next one works', async () => {
      await env.pool.query('alter view tickets_ops.metrics rename to mislaid');
      const answer = await fetch(server.url);
      assert.equal(answer.status, 503);
      assert.match(await answer.text(), /relation "tickets_ops\.metrics" does not exist/);
      await env.pool.query('alter view tickets_ops.mislaid rename to metrics');
      assert.equal((await fetch(server.url)).status, 200);
    });
  });
});
