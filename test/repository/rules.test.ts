/** Rules that SQL and TypeScript both need, each of which stands once in either: here they are held together. */
import assert from 'node:assert/strict';
import { readdir, readFile } from 'node:fs/promises';
import { after, before, describe, test } from 'node:test';
import { parseCrontab } from 'graphile-worker';
import { CLOCK_TOLERANCE_MS } from '../../src/bucket/plan.ts';
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

  test('a probe outlasts a call, and whoever gives way outlasts a probe', async () => {
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
