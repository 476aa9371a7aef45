import assert from 'node:assert/strict';
import { readdir } from 'node:fs/promises';
import { after, before, beforeEach, describe, test } from 'node:test';
import { TASK_DIRECTORY } from '../../src/worker/worker.ts';
import { type Environment, startEnvironment } from '../support/environment.ts';
import { fetchNow, ledger } from '../support/pipeline.ts';

const WRONG: Record<string, [payload: unknown, complaint: RegExp][]> = {
  fetch_snapshot: [
    [{ dataset: 'tickets' }, /expected one of "inc"\|"crq"(.|\n)*at dataset/],
    [{ force: 'yes' }, /expected boolean(.|\n)*at force/],
    [{ froce: true }, /Unrecognized key: "froce"/],
    [{ force: true, backfill: true }, /choose either force or backfill/],
    [[], /expected object/],
    ['inc', /expected object/],
  ],
  upsert_batch: [
    [{}, /at snapshot_id(.|\n)*at batch/],
    [{ snapshot_id: 1, batch: 0 }, /at batch/],
    [{ snapshot_id: 'one', batch: 1 }, /at snapshot_id/],
    [{ snapshot_id: 1e30, batch: 1 }, /at snapshot_id/],
    [{ snapshot_id: '9999999999999999999', batch: 1 }, /at snapshot_id/],
    [{ snapshot_id: 1, batch: 3_000_000_000 }, /at batch/],
  ],
  finalize_snapshot: [
    [{ snapshot_id: -1 }, /at snapshot_id/],
    [{ snapshot: 1 }, /Unrecognized key: "snapshot"/],
  ],
  fleettickets_alert: [[{ ok: 'no' }, /expected boolean(.|\n)*at ok/]],
  fleettickets_maintain: [[{ now: true }, /Unrecognized key: "now"/]],
  geocode_cluster: [
    [{ cluster: '' }, /at cluster/],
    [{ name: 'Kilimani' }, /Unrecognized key: "name"/],
    [{ cluster: 'Kilimani', snoozes: 1e12 }, /at snoozes/],
    [{ cluster: 'Kili\0mani' }, /holds a NUL/],
  ],
  geocode_location: [
    [{ location_name: 'Yaya' }, /at cluster/],
    [{ location_name: 'Yaya \ud800', cluster: 'Kilimani' }, /half of a surrogate pair/],
    [{ location_name: 'Yaya', cluster: 'Kilimani', 'for\udc00ce': true }, /Unrecognized key/],
  ],
};

describe('a task', () => {
  let env: Environment;
  before(async () => {
    env = await startEnvironment();
  });
  after(() => env.close());
  beforeEach(() => env.reset());

  test('each of them is tried here', async () => {
    assert.deepEqual(
      (await readdir(TASK_DIRECTORY)).map((file) => file.replace('.ts', '')).sort(),
      Object.keys(WRONG).sort(),
    );
  });

  for (const [task, cases] of Object.entries(WRONG)) {
    test(`${task} refuses a wrong payload at once and for good, and says what is wrong and how a right one looks`, async () => {
      for (const [payload, complaint] of cases) {
        await env.pool.query('select graphile_worker.add_job($1, $2::json)', [task, JSON.stringify(payload)]);
        const [failure] = await env.runJobs();
        assert.match(failure?.error ?? '', complaint, JSON.stringify(payload));
        assert.match(
          failure?.error ?? '',
          new RegExp(`^Wrong payload:(.|\n)*A right one: select [a-z_]+\\.add_job\\('${task}', '\\{.*\\}'\\);`),
        );
        const { rows } = await env.pool.query('select attempts, max_attempts from graphile_worker.jobs');
        assert.deepEqual(rows, [{ attempts: 1, max_attempts: 1 }]);
        await env.reset();
      }
    });
  }

  test('takes the payload of the schedule, and one that says nothing', async () => {
    assert.deepEqual(
      await fetchNow(env, { dataset: 'inc', _cron: { ts: '2026-06-15T04:15:00.000Z', backfilled: false } }),
      [],
    );
    await env.pool.query(`select graphile_worker.add_job('fetch_snapshot')`);
    assert.deepEqual(await env.runJobs(), []);
    assert.deepEqual(await ledger(env), []);
  });

  test('that names what does not exist says so', async () => {
    await env.pool.query(`select graphile_worker.add_job('upsert_batch', '{"snapshot_id": 999, "batch": 1}')`);
    assert.match((await env.runJobs())[0]?.error ?? '', /Snapshot 999 is unknown/);
    await env.reset();
    await env.pool.query(`select graphile_worker.add_job('finalize_snapshot', '{"snapshot_id": "999"}')`);
    assert.match((await env.runJobs())[0]?.error ?? '', /Snapshot 999 is unknown, not finalizing/);
  });

  test('is over when draining is: the worker has signed off, and asks nothing any more', async () => {
    for (let drains = 1; drains <= 5; drains += 1) {
      await env.pool.query(
        `select graphile_worker.add_job('fleettickets_maintain', '{"now": true}', max_attempts := 1)`,
      );
      await env.runJobs();
      const { rows } = await env.pool.query(
        'select count(*)::int as workers, count(stopped_at)::int as stopped from tickets_ops.workers',
      );
      assert.deepEqual(rows, [{ workers: drains, stopped: drains }]);
    }
  });

  test('leaves no secret in last_error', async () => {
    process.env.RUSTFS_BUCKET = `bucket-${env.s3.secretAccessKey}`;
    try {
      const [failure] = await fetchNow(env);
      assert.match(failure?.error ?? '', /bucket-\[hidden\]/);
    } finally {
      process.env.RUSTFS_BUCKET = env.s3.bucket;
    }
  });
});
