/** Rules that SQL and TypeScript both need, each of which stands once in either: here they are held together. */
import assert from 'node:assert/strict';
import { readdir, readFile } from 'node:fs/promises';
import { after, before, describe, test } from 'node:test';
import { DIMENSIONS } from '../../src/analytics/report.ts';
import { comparePositions } from '../../src/bucket/files.ts';
import { CLOCK_TOLERANCE_MS, type LedgerStatus } from '../../src/bucket/plan.ts';
import { MAX_REJECTS_KEPT, MAX_TEXT_BYTES } from '../../src/csv/rejects.ts';
import { transaction } from '../../src/database/client.ts';
import { readCrontab } from '../../src/database/crontab.ts';
import { enqueue, JOB_KEYS, JOB_POLICY, type TaskName } from '../../src/database/jobs.ts';
import { ROLES } from '../../src/database/roles.ts';
import { CALL_TIMEOUT_MS } from '../../src/geocoding/call.ts';
import { GIVE_WAY_MS } from '../../src/geocoding/jobs.ts';
import { ClusterName } from '../../src/geocoding/names.ts';
import { CONTROL, COUNTRY } from '../../src/geocoding/provider.ts';
import { clusterQueries } from '../../src/geocoding/query.ts';
import { GeocoderSettings } from '../../src/geocoding/settings.ts';
import { ROUTES } from '../../src/page/routes.ts';
import { DATASET_NAMES } from '../../src/settings/dataset.ts';
import { FeedSettings, RetentionSettings } from '../../src/settings/settings.ts';
import { SILENCE_MS } from '../../src/worker/heartbeat.ts';
import { KEEP_WORKERS } from '../../src/worker/retention.ts';
import { fixtures } from '../support/definitions.ts';
import { type Environment, startEnvironment } from '../support/environment.ts';
import { versionOfStatus } from '../support/ledger.ts';

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
  const file = (name: string) => readFile(new URL(`../../${name}`, import.meta.url), 'utf8');
  /** The texts that a check of a column allows. */
  const allowed = async (table: string, column: string): Promise<string[]> => {
    const check = await ask(
      `select pg_get_constraintdef(oid) from pg_constraint
       where conrelid = $1::regclass and contype = 'c' and conkey = array[(select attnum from pg_attribute where attrelid = conrelid and attname = $2)]`,
      [table, column],
    );
    return [...String(check).matchAll(/'(\w+)'/g)].map(([, text = '']) => text);
  };
  /** The texts that the CASE of a function or view has as results. */
  const results = (definition: unknown) =>
    [...String(definition).matchAll(/\b(?:then|else) '(\w+)'/gi)].map(([, text = '']) => text);
  const functionText = (name: string) => ask('select pg_get_functiondef($1::regproc)', [name]);
  /** The values of a label of a metric, without its prefix. */
  const labels = async (metric: string, label: string): Promise<string[]> => {
    const { rows } = await env.pool.query<{ value: string }>(
      `select distinct labels ->> $2 as value from tickets_ops.metrics where name = 'fleettickets_' || $1 and labels ? $2`,
      [metric, label],
    );
    return rows.map(({ value }) => value);
  };
  const same = (found: Iterable<string>, expected: Iterable<string>) =>
    assert.deepEqual([...new Set(found)].sort(), [...new Set(expected)].sort());

  test('job policy: attempts, priorities and flags are the same in SQL and TypeScript, one for each task', async () => {
    const { rows } = await env.pool.query(
      `select task, max_attempts as "maxAttempts", priority, on_demand_priority as "onDemandPriority", flags from tickets_ops.job_policy()`,
    );
    assert.deepEqual(Object.fromEntries(rows.map(({ task, ...policy }) => [task, policy])), JOB_POLICY);
    const tasks = (await readdir(new URL('../../tasks', import.meta.url))).map((file) => file.replace(/\.ts$/, ''));
    assert.deepEqual(Object.keys(JOB_POLICY).sort(), tasks.sort());
  });

  test('job policy: the crontab gives its jobs the attempts, priorities and keys of their tasks', async () => {
    const entries = await readCrontab();
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

  test('job keys: a look has the same one, no matter who asks for it', async () => {
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
    const migrating = [...(await file('src/database/schema.ts')).matchAll(/LOCK = '([0-9]+)'/g)];
    assert.equal(migrating.length, 2);
    for (const [, key = ''] of migrating) assert.equal(keys.get(key), undefined);
  });

  test('a question can be asked by the same dimensions, in SQL and at the command line', async () => {
    assert.deepEqual(await ask('select tickets.dimensions()'), [...DIMENSIONS]);
    // Written out in this one, which is others' to replace: no migration makes it anew.
    const trends = String(await functionText('reporting.fn_inc_trends'));
    const listed = (names: readonly string[]) => names.map((name) => `'${name}'`).join(', ');
    assert.ok(trends.includes(`array[${listed(DIMENSIONS)}]`));
    assert.ok(trends.includes(`p_by in (${listed((await ask('select tickets.daily_dimensions()')) as string[])})`));
    assert.equal(await ask('select tickets.daily_dimensions() <@ tickets.dimensions()'), true);
  });

  test('the numbers of the measures are those that people read', async () => {
    const fewest = await ask('select tickets.fewest_for_comparison()');
    assert.match(await file('src/commands/report.ts'), new RegExp(`\\(\\*: under ${fewest} closings, too few`));
    const days = await ask('select extract(days from tickets.reopening_window())::int');
    assert.match(await file('ops/grafana/tickets.json'), new RegExp(`"title": "Reopened within ${days} days"`));
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
    const labels = [...(await file('ops/grafana/tickets.json')).matchAll(/\(([1-7]), '([^']*)', a\.aged_(\w+)\)/g)].map(
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
    const alerted = [...(await file('ops/alerts.yml')).matchAll(/fleettickets_vehicles\{freshness=~"([^"]*)"/g)];
    assert.ok(alerted.length > 0);
    for (const [, words] of alerted) assert.equal(words, usable.join('|'));
    assert.deepEqual(
      [await ask(`select tickets.is_usable('stale', true)`), await ask(`select tickets.is_usable('stale', null)`)],
      [true, false],
    );
  });

  test('the roles that are granted rights are those that the doctor looks for', async () => {
    const [, named = ''] = /foreach v_role in array array\[(.*)\]/.exec(await file('migrations/grants.sql')) ?? [];
    assert.deepEqual(
      named.split(', ').map((name) => name.replaceAll("'", '')),
      ROLES,
    );
    const there = 'select count(*)::int from pg_roles where rolname = any ($1)';
    assert.equal(await ask(there, [ROLES]), ROLES.length);
  });

  test('what grants.sql names is there, whose absence it passes over', async () => {
    const named = [...(await file('migrations/grants.sql')).matchAll(/'((?:tickets|tickets_ops|reporting)\.[^']+)'/g)];
    assert.ok(named.length > 50);
    for (const [, name = ''] of named) {
      const found = name.includes('(') ? 'to_regprocedure($1)' : 'coalesce(to_regclass($1)::oid, to_regproc($1))';
      assert.ok(await ask(`select ${found} is not null`, [name]), name);
    }
  });

  test('a look can be asked for at every dataset, and at no other', async () => {
    await env.pool.query(
      `insert into tickets_ops.settings (name, pool_id, value) values ('CRQ_ENABLED', 'some pool', 'true')`,
    );
    for (const name of DATASET_NAMES) await env.pool.query('select tickets_ops.fetch_now($1)', [name]);
    await assert.rejects(env.pool.query(`select tickets_ops.fetch_now('wfm')`), /There is no dataset 'wfm'/);
  });

  test('geocoding is what has the flag, by which slots are kept free of it', async () => {
    const flagged = Object.entries(JOB_POLICY).filter(([, { flags }]) =>
      (flags as readonly string[]).includes('geocode'),
    );
    const tasks = flagged.map(([task]) => task);
    for (const task of Object.keys(JOB_POLICY))
      assert.equal(await ask('select tickets_ops.is_geocoding($1)', [task]), tasks.includes(task), task);
    const [, pattern = ''] = /fleettickets_jobs\{task=~"([^"]+)"/.exec(await file('ops/alerts.yml')) ?? [];
    same(
      Object.keys(JOB_POLICY).filter((task) => new RegExp(`^(${pattern})$`).test(task)),
      tasks,
    );
  });

  test('versions of files have one order: that of the bytes of their keys, whatever the collation of the database', async () => {
    const at = [new Date('2026-06-15T07:00:00Z'), new Date('2026-06-15T08:00:00Z')];
    const keys = ['a.csv', 'B.csv', 'b.csv', 'é.csv', 'a (1).csv', 'a-1.csv', '😀.csv', '\uffee.csv'];
    const positions = at.flatMap((snapshotAt) =>
      at.flatMap((lastModified) => keys.map((key) => ({ snapshotAt, lastModified, key }))),
    );
    const { rows } = await env.pool.query<{ a: number; b: number }>(
      `with positions as (
         select * from unnest($1::timestamptz[], $2::timestamptz[], $3::text[]) with ordinality as p (at, modified, key, n)
       )
       select (a.n - 1)::int as a, (b.n - 1)::int as b from positions a, positions b
       where tickets_ops.is_older(a.at, a.modified, a.key, b.at, b.modified, b.key) order by 1, 2`,
      [
        positions.map(({ snapshotAt }) => snapshotAt),
        positions.map(({ lastModified }) => lastModified),
        positions.map(({ key }) => key),
      ],
    );
    const older = positions.flatMap((one, a) =>
      positions.flatMap((other, b) => (comparePositions(one, other) < 0 ? [{ a, b }] : [])),
    );
    assert.deepEqual(rows, older);
    const orders = [...(await fixtures())].flatMap(([name, sql]) =>
      [...sql.matchAll(/order by .*last_modified(?: desc)?(?: nulls last)?, .*/g)].map(
        ([order]) => `${name}: ${order}`,
      ),
    );
    const ordered = orders.filter((order) => !order.includes('status'));
    assert.ok(ordered.length >= 3);
    for (const order of ordered) assert.match(order, /key collate "C"/);
  });

  test('what a status says is the same in plans as in the ledger, and an index knows what is whole', async () => {
    const statuses = (await allowed('tickets_ops.snapshots', 'status')) as LedgerStatus[];
    assert.equal(statuses.length, 9);
    for (const status of statuses) {
      const { rows } = await env.pool.query(
        `select tickets_ops.is_open(s.status, s.opens_at) as "isOpen", tickets_ops.is_whole(s.status) as "isWhole", s.in_flight as "inFlight"
         from jsonb_populate_record(null::tickets_ops.snapshots, jsonb_build_object('status', $1::text, 'in_flight', $2::boolean)) as s`,
        [status, ['staging', 'loading', 'finalizing'].includes(status)],
      );
      assert.deepEqual(rows, [versionOfStatus(status)], status);
    }
    const client = await env.pool.connect();
    try {
      const plan = await transaction(client, async () => {
        await client.query('set local enable_seqscan = off');
        return client.query(
          `explain select from tickets_ops.snapshots
           where dataset = 'inc' and origin = 'bucket' and tickets_ops.is_whole(status) and archived_at is null`,
        );
      });
      assert.match(JSON.stringify(plan.rows), /snapshots_unarchived/);
    } finally {
      client.release();
    }
  });

  test('a future-dated version may be loaded once its time has come, and no other that was refused', async () => {
    for (const [opensAt, isOpen] of [
      ['1 minute', false],
      ['-1 minute', true],
      [null, false],
    ])
      assert.equal(await ask(`select tickets_ops.is_open('failed', now() + $1::interval)`, [opensAt]), isOpen);
    assert.equal(await ask(`select tickets_ops.is_open('done', now() - interval '1 minute')`), false);
  });

  test('a worker ends itself long before others take its jobs', async () => {
    const seconds = Number(await ask('select extract(epoch from tickets_ops.hung_after())::int'));
    assert.ok(seconds * 1_000 > 2 * SILENCE_MS);
    assert.match(await file('migrations/fixtures/jobs/live-workers.sql'), new RegExp(`after ${SILENCE_MS / 1_000} s `));
  });

  test('how many rejects are kept, how long their text is, and how long a worker is remembered, is told as it is', async () => {
    const count = MAX_REJECTS_KEPT.toLocaleString('en').replace(',', ' ');
    const kept = async (table: string) =>
      ask('select kept from tickets_ops.kept_tables() where table_name = $1', [table]);
    assert.match(String(await kept('tickets_ops.snapshot_rejects')), new RegExp(`; ${count} of each file`));
    const told = `select obj_description('tickets_ops.snapshot_rejects'::regclass) || col_description('tickets_ops.snapshot_rejects'::regclass, 5)`;
    assert.match(
      String(await ask(told)),
      new RegExp(`at most ${count} are kept.*cut at ${MAX_TEXT_BYTES / 1_024} KiB`),
    );
    assert.match(String(await kept('tickets_ops.workers')), new RegExp(`Until ${KEEP_WORKERS} after`));
    const help = await ask(`select help from tickets_ops.metric_help() where name = 'workers'`);
    assert.match(String(help), new RegExp(`of the last ${KEEP_WORKERS} `));
  });

  test('after how many hours without a file a feed is stale is said alike wherever it is said', async () => {
    const { description = '' } = FeedSettings.shape.FEED_STALE_HOURS;
    const [, hours = ''] = /Unset: (\d+)$/.exec(description) ?? [];
    assert.match(hours, /^\d+$/);
    assert.match(
      String(await functionText('tickets_ops.feed_problems')),
      new RegExp(`'FEED_STALE_HOURS'\\)::integer, ${hours}\\)`),
    );
    const comment = await ask(`select obj_description('tickets_ops.feed_problems'::regproc)`);
    assert.match(String(comment), new RegExp(`FEED_STALE_HOURS \\(${hours}\\)`));
    assert.match(await file('.env.example'), new RegExp(`^# FEED_STALE_HOURS=${hours}$`, 'm'));
    assert.match(await file('ops/alerts.yml'), new RegExp(`fleettickets_data_age_seconds > ${hours} \\* 3600 `));
    const words = ['no', 'one', 'two', 'three', 'four', 'five', 'six'][Number(hours)];
    assert.match(await file('docs/monitoring.md'), new RegExp(`the tickets are those of ${words} hours ago`));
  });

  test('each subject of a problem is listed, so that it has a metric and its place', async () => {
    const text = String(await functionText('tickets_ops.list_problems'));
    const named = [...text.matchAll(/select '(\w+)'(?: as subject)?, \*/g)].map(([, subject = '']) => subject);
    const { rows } = await env.pool.query<{ subject: string }>('select tickets_ops.problem_subjects() as subject');
    same(
      named,
      rows.map(({ subject }) => subject),
    );
    same(await labels('problems', 'subject'), named);
  });

  test('a metric has a row for each state that there is', async () => {
    same(await labels('jobs', 'state'), results(await functionText('tickets_ops.queued_jobs')));
    same(await labels('workers', 'state'), results(await functionText('tickets_ops.worker_states')));
    same(await labels('geocoding_calls_today', 'outcome'), await allowed('tickets_ops.geocoding_calls', 'outcome'));
    same(
      await labels('vehicles', 'freshness'),
      results(await ask(`select pg_get_viewdef('tickets.vehicles_now'::regclass)`)),
    );
    same(await labels('tickets_placed', 'geo_source'), await allowed('tickets.inc', 'geo_source'));
    same(await labels('storage_bytes', 'part'), [
      ...(
        await env.pool.query<{ part: string }>('select part from tickets_ops.storage where part is not null')
      ).rows.map(({ part }) => part),
      'takeover',
    ]);
    const review = await ask(`select pg_get_viewdef('tickets_ops.review_queue'::regclass)`);
    const [clusters = ''] = String(review).split("'location'");
    // What was found is in the queue too, and waits for nobody.
    const doubtful = (statuses: string[]) => statuses.filter((status) => status !== 'found');
    same(await labels('places_for_review', 'status'), [
      ...doubtful(results(clusters)),
      ...doubtful(await allowed('tickets.geo_locations', 'status')),
    ]);
  });

  test('a cluster’s name is as long in a job as the gazetteers and the key of a cluster take it', async () => {
    const { length } = String(await ask(`select tickets.cluster_spelling(repeat('x', 1000))`));
    assert.deepEqual(
      [length, length + 1].map((size) => ClusterName.safeParse('x'.repeat(size)).success),
      [true, false],
    );
    assert.equal(await ask(`select length(tickets.cluster_key(repeat('x', 1000)))`), length);
    for (const into of [
      'tickets.geo_clusters (cluster) values ($1)',
      `tickets.geo_locations (cluster, location_name, status) values ($1, 'Yaya', 'rejected')`,
    ]) {
      await env.pool.query(`insert into ${into}`, ['x'.repeat(length)]);
      await assert.rejects(env.pool.query(`insert into ${into}`, ['y'.repeat(length + 1)]), { code: '23514' });
    }
  });

  test('the country that is asked for is the one that the judge takes candidates of', async () => {
    const refusal = (country: string) =>
      ask('select refusal from tickets_ops.score_candidates($1, $2, null, null, null)', [
        JSON.stringify([{ lat: -1.29, lng: 36.78, level: 'neighbourhood', country, label: 'Kilimani' }]),
        'kilimani',
      ]);
    assert.equal(await refusal(COUNTRY.code), null);
    assert.equal(await refusal('tz'), `it is not in ${COUNTRY.name}`);
    for (const text of [CONTROL.text, ...clusterQueries('Kilimani', 'Nairobi')])
      assert.ok(text.endsWith(`, ${COUNTRY.name}`), text);
  });

  test('a found place is kept for the same days where the setting is unset, where no provider is known, and in the table', async () => {
    const { GEOCODER_FOUND_DAYS: days } = GeocoderSettings.parse({});
    const kept = `extract(epoch from tickets_ops.answer_expires_at('found', 0, null, now()) - now()) / 86400`;
    assert.equal(Number(await ask(`select ${kept}`)), days);
    const inTable = await ask(
      `insert into tickets_ops.geocoding_providers (provider, rate_per_second) values ('some', 1) returning found_days`,
    );
    assert.equal(Number(inTable), days);
  });

  test('a guard has the same bounds in its table, in what the page sends and in what it takes', async () => {
    const html = await readFile(new URL('../../src/page/static/index.html', import.meta.url), 'utf8');
    const [, least, most] = /name="guard_km" type="number" min="([\d.]+)" max="([\d.]+)"/.exec(html) ?? [];
    const check = await ask(
      `select pg_get_constraintdef(oid) from pg_constraint
       where conrelid = 'tickets.geo_clusters'::regclass and pg_get_constraintdef(oid) like '%guard_km%'`,
    );
    assert.deepEqual(String(check).match(/[\d.]+/g), [least, most]);
    const takes = (guard_km: number) =>
      ROUTES['POST /api/decide']?.input.safeParse({
        kind: 'cluster',
        cluster: 'Kilimani',
        updated_at: 'then',
        decision: 'guard',
        guard_km,
      }).success;
    assert.deepEqual([least, most].map(Number).map(takes), [true, true]);
    assert.deepEqual([Number(least) * 0.99, Number(most) * 1.01].map(takes), [false, false]);
  });

  test('a probe outlasts a call, and a job that gives way waits longer than a probe', async () => {
    await env.pool.query(
      `insert into tickets_ops.geocoding_providers (provider, rate_per_second, breaker, breaker_reason, breaker_since, breaker_until)
       values ('down', 1, 'trouble', 'no answer', now(), now())`,
    );
    await env.pool.query(`select tickets_ops.reserve_geocoding_call('down')`);
    const probeMs = Number(
      await ask(
        `select 1000 * extract(epoch from probing_until - now()) from tickets_ops.geocoding_providers where provider = 'down'`,
      ),
    );
    assert.ok(CALL_TIMEOUT_MS < probeMs && probeMs < GIVE_WAY_MS, `${CALL_TIMEOUT_MS}, ${probeMs}, ${GIVE_WAY_MS} ms`);
  });
});
