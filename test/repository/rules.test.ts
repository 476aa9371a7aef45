/** Rules that SQL and TypeScript both need, each of which stands once in either: here they are held together. */
import assert from 'node:assert/strict';
import { readdir, readFile } from 'node:fs/promises';
import { after, before, describe, test } from 'node:test';
import { parseCrontab } from 'graphile-worker';
import { DIMENSIONS } from '../../src/analytics/report.ts';
import { CLOCK_TOLERANCE_MS } from '../../src/bucket/plan.ts';
import { enqueue, JOB_KEYS, JOB_POLICY, type TaskName } from '../../src/database/jobs.ts';
import { ROLES } from '../../src/database/roles.ts';
import { DATASET_NAMES } from '../../src/settings/dataset.ts';
import { RetentionSettings } from '../../src/settings/settings.ts';
import { CRONTAB_FILE } from '../../src/worker/schedule.ts';
import { type Environment, startEnvironment } from '../support/environment.ts';

describe('a rule that SQL and TypeScript both need', () => {
  let env: Environment;
  before(async () => {
    env = await startEnvironment();
  });
  after(() => env.close());

  /** The only column of the only row. */
  const ask = async (text: string, values: unknown[] = []): Promise<unknown> => {
    const { rows } = await env.pool.query(text, values);
    return Object.values(rows[0] ?? {})[0];
  };

  test('job policy: attempts, priorities and flags are the same in SQL and TypeScript, one for each task', async () => {
    const { rows } = await env.pool.query(
      `select task, max_attempts as "maxAttempts", priority, on_demand_priority as "onDemandPriority", flags from tickets_ops.job_policy()`,
    );
    assert.deepEqual(Object.fromEntries(rows.map(({ task, ...policy }) => [task, policy])), JOB_POLICY);
    const tasks = (await readdir(new URL('../../tasks', import.meta.url))).map((file) => file.replace(/\.ts$/, ''));
    assert.deepEqual(Object.keys(JOB_POLICY).sort(), tasks.sort());
  });

  test('job policy: the crontab gives its jobs the attempts, priorities and keys of their tasks', async () => {
    const entries = parseCrontab(await readFile(CRONTAB_FILE, 'utf8'));
    for (const { task, payload, options } of entries) {
      const { maxAttempts, priority } = JOB_POLICY[task as TaskName];
      assert.deepEqual(
        { maxAttempts: options.maxAttempts, priority: options.priority },
        { maxAttempts, priority },
        task,
      );
      const key =
        task === 'fleettickets_maintain'
          ? JOB_KEYS.fleettickets_maintain
          : JOB_KEYS.fetch(String(payload?.dataset), 'newest');
      assert.equal(options.jobKey, key);
      assert.equal(options.jobKeyMode ?? 'replace', 'replace');
    }
    assert.deepEqual([...new Set(entries.map(({ task }) => task))].sort(), ['fetch_snapshot', 'fleettickets_maintain']);
  });

  test('job keys: a look has the same one, whoever asks for it', async () => {
    for (const mode of ['newest', 'force', 'backfill'])
      assert.equal(JOB_KEYS.fetch('inc', mode), await ask('select tickets_ops.fetch_job_key($1, $2)', ['inc', mode]));
  });

  test('a job that TypeScript adds has what its task says', async () => {
    await enqueue(env.pool, 'fleettickets_maintain', {}, { key: JOB_KEYS.fleettickets_maintain, seconds: 60 });
    const { rows } = await env.pool.query(
      'select task, key, priority, max_attempts as "maxAttempts", run_at > now() as later from tickets_ops.queued_jobs()',
    );
    const { priority, maxAttempts } = JOB_POLICY.fleettickets_maintain;
    assert.deepEqual(rows, [
      { task: 'fleettickets_maintain', key: 'fleettickets_maintain', priority, maxAttempts, later: true },
    ]);
    await assert.rejects(env.pool.query(`select tickets_ops.enqueue('fetch', '{}')`), /There is no task fetch\./);
  });

  test('clocks may differ by the same time, before a file counts as future-dated', async () => {
    const seconds = await ask('select extract(epoch from tickets_ops.clock_tolerance())::int');
    assert.equal(Number(seconds) * 1_000, CLOCK_TOLERANCE_MS);
  });

  test('how long rows are kept is told with the defaults of the settings, in SQL and in the docs', async () => {
    const told = String(await ask(`select string_agg(distinct kept, ' ') from tickets_ops.storage`));
    const docs = await readFile(new URL('../../docs/keeping.md', import.meta.url), 'utf8');
    for (const [name, days] of Object.entries(RetentionSettings.parse({}))) {
      assert.match(told, new RegExp(`${name} \\(${days}\\)`));
      assert.match(docs, new RegExp(`\`${name}\`, ${days}\\b`));
    }
  });

  const text = (path: string) => readFile(new URL(`../../${path}`, import.meta.url), 'utf8');

  test('what turns are taken for by an advisory lock has a key of its own', async () => {
    const { rows: functions } = await env.pool.query<{ name: string; datasets: boolean }>(
      `select oid::regproc::text as name, pronargs = 1 as datasets from pg_proc
       where pronamespace in ('tickets'::regnamespace, 'tickets_ops'::regnamespace) and proname like '%\\_lock' and prorettype = 'bigint'::regtype`,
    );
    assert.ok(functions.length >= 5, functions.map(({ name }) => name).join());
    const keys = new Map<string, string>();
    for (const { name, datasets } of functions)
      for (const dataset of datasets ? DATASET_NAMES : [null]) {
        const key = String(
          await ask(`select ${name}(${dataset === null ? '' : '$1'})`, dataset === null ? [] : [dataset]),
        );
        assert.equal(keys.get(key), undefined, `${name} has the key of ${keys.get(key)}`);
        keys.set(key, name);
      }
    // And the two of migrating.
    for (const [, key = ''] of (await text('src/database/schema.ts')).matchAll(/LOCK = '([0-9]+)'/g))
      assert.equal(keys.get(key), undefined);
  });

  test('a question can be asked by the same dimensions, in SQL and at the command line', async () => {
    assert.deepEqual(await ask('select tickets.dimensions()'), [...DIMENSIONS]);
    assert.equal(await ask('select tickets.daily_dimensions() <@ tickets.dimensions()'), true);
  });

  test('the numbers of the measures are those that people read', async () => {
    const fewest = await ask('select tickets.fewest_for_comparison()');
    assert.match(await text('src/commands/report.ts'), new RegExp(`\\(\\*: under ${fewest} closings, too few`));
    const days = await ask('select extract(days from tickets.reopening_window())::int');
    assert.match(await text('ops/grafana/tickets.json'), new RegExp(`"title": "Reopened within ${days} days"`));
    const told = async (name: string) => String(await ask('select obj_description($1::regproc)', [`tickets.${name}`]));
    const percentile = await ask('select tickets.fewest_for_percentile()');
    for (const name of ['inc_repair_times', 'inc_team_scorecard']) {
      assert.match(await told(name), new RegExp(`within ${days} days`));
      assert.match(await told(name), new RegExp(`NULL under ${percentile} known values`));
    }
    assert.match(await told('inc_team_scorecard'), new RegExp(`low_n: under ${fewest} closings`));
    assert.match(await told('inc_time_to_close'), new RegExp(`under ${percentile} tickets`));
    assert.match(await told('dashboard_metrics'), new RegExp(`NULL under ${percentile} tickets`));
  });

  test('the ages on the dashboard are the buckets of the view', async () => {
    const labels = [...(await text('ops/grafana/tickets.json')).matchAll(/\(([1-7]), '([^']*)', a\.aged_(\w+)\)/g)].map(
      ([, nth, label = '', column = '']) => ({ bucket: Number(nth) - 1, label, column }),
    );
    assert.deepEqual(labels.pop(), { bucket: 6, label: 'no clock', column: 'unknown' });
    assert.equal(labels.length, 6);
    for (const { bucket, label, column } of labels) {
      const [, word, low = '0', high = '', unit] =
        /^(?:(under|over) )?([0-9]+)(?: to ([0-9]+))? ([hd])$/.exec(label) ?? [];
      const hours = unit === 'd' ? 24 : 1;
      const [from, to] = word === 'under' ? ['0', low] : [low, high];
      assert.equal(await ask('select tickets.age_bucket($1)', [Number(from) * hours]), bucket, label);
      if (to) assert.equal(await ask('select tickets.age_bucket($1 - 0.01)', [Number(to) * hours]), bucket, label);
      assert.equal(column, word === 'over' ? `over_${from}${unit}` : `${from}_${to}${unit}`);
    }
    assert.deepEqual(
      [await ask('select tickets.age_bucket(-1)'), await ask('select tickets.age_bucket(null)')],
      [0, null],
    );
  });

  test('a ticket’s clock is the same one in the view that reads it by index', async () => {
    await env.pool.query(
      `insert into tickets.inc (ticket_id, raw)
       select 'CLOCK' || n, jsonb_strip_nulls(jsonb_build_object(
         'created_at_service', case when n % 2 = 1 then '2026-06-01 10:00:00' end, 'first_seen_at', case when n >= 2 then '2026-06-02 10:00:00' end))
       from generate_series(0, 3) as n`,
    );
    const { rows } = await env.pool.query(
      `select t.ticket_id, c.started_at = k.start and c.source = k.source as equal
       from tickets.inc t
       cross join lateral (
         select tickets.clock_start(t.created_at_service, t.first_seen_at) as start, tickets.clock_source(t.created_at_service, t.first_seen_at) as source
       ) as k
       full join tickets.inc_clock c on c.ticket_id = t.ticket_id
       where t.ticket_id like 'CLOCK%' order by 1`,
    );
    assert.deepEqual(
      rows.map(({ equal }) => equal),
      [null, true, true, true],
    );
  });

  test('freshness of vehicles: the metrics have every word, and the alert counts what is usable', async () => {
    const { rows } = await env.pool.query<{ word: string; usable: boolean }>(
      'select word, tickets.is_usable(word) as usable from unnest(tickets.freshnesses()) as word',
    );
    const metrics = await ask(
      `select array_agg(labels ->> 'freshness' order by array_position(tickets.freshnesses(), labels ->> 'freshness'))
       from tickets_ops.vehicle_metrics()`,
    );
    assert.deepEqual(
      metrics,
      rows.map(({ word }) => word),
    );
    const usable = rows.flatMap(({ word, usable }) => (usable ? [word] : []));
    for (const [, words] of (await text('ops/alerts.yml')).matchAll(/fleettickets_vehicles\{freshness=~"([^"]*)"/g))
      assert.equal(words, usable.join('|'));
    assert.deepEqual(
      [await ask(`select tickets.is_usable('stale', true)`), await ask(`select tickets.is_usable('stale', null)`)],
      [true, false],
    );
  });

  test('the roles that are granted rights are those that the doctor looks for', async () => {
    const { rows } = await env.pool.query<{ name: string }>(
      `select rolname as name from pg_roles where shobj_description(oid, 'pg_authid') like 'fleettickets: %' order by 1`,
    );
    assert.deepEqual(
      rows.map(({ name }) => name),
      ROLES.toSorted(),
    );
  });

  test('a look can be asked for at every dataset, and at no other', async () => {
    await env.pool.query(
      `insert into tickets_ops.settings (name, pool_id, value) values ('CRQ_ENABLED', 'some pool', 'true')`,
    );
    for (const name of DATASET_NAMES) await env.pool.query('select tickets_ops.fetch_now($1)', [name]);
    await assert.rejects(env.pool.query(`select tickets_ops.fetch_now('wfm')`), /There is no dataset 'wfm'/);
  });
});
