/** fleettickets healthcheck: whether the worker of this host reaches the database. */
import assert from 'node:assert/strict';
import { after, afterEach, before, beforeEach, describe, test } from 'node:test';
import { fleettickets } from '../support/command.ts';
import { type Environment, startEnvironment, waitFor } from '../support/environment.ts';
import { operations } from '../support/operations.ts';
import { killWorkers, startWorkerProcess } from '../support/worker-process.ts';

let env: Environment;
before(async () => {
  env = await startEnvironment();
});
after(() => env.close());
beforeEach(() => env.reset());

const { rows, one, jobs } = operations(() => env);

describe('healthcheck', () => {
  afterEach(killWorkers);

  test('is healthy while the worker of this host reaches the database: whatever bucket, provider and feed do', async () => {
    const nowhere = {
      RUSTFS_ENDPOINT: 'http://127.0.0.1:1',
      GEOCODER_PROVIDER: 'nominatim',
      GEOCODER_BASE_URL: 'http://127.0.0.1:1',
    };
    const none = await fleettickets(nowhere, 'healthcheck');
    assert.deepEqual(
      [none.status, none.out],
      [1, 'No worker of this host has reached the database in the last 30 s. There has been none.\n'],
    );

    const worker = await startWorkerProcess(nowhere);
    await waitFor(
      'the worker to register',
      async () => (await rows('select from tickets_ops.worker_states()')).length > 0,
    );
    await one('select * from tickets_ops.fetch_now()');
    await waitFor('the look at the bucket to fail', async () => (await jobs('last_error is not null')).length > 0);
    const healthy = await fleettickets(nowhere, 'healthcheck', '--json');
    assert.deepEqual([healthy.status, JSON.parse(healthy.out).healthy], [0, true], healthy.err);

    await env.pool.query(`update tickets_ops.workers set host = 'another container'`);
    assert.equal(
      (await fleettickets(nowhere, 'healthcheck')).status,
      1,
      'the old container does not vouch for the new one',
    );
    worker.kill('SIGTERM');
    assert.equal(await worker.exited, 0);
  });

  test('is not healthy before the schema is current, nor without a database; it and status say so in JSON too', async () => {
    const last = await one<object>('select * from graphile_migrate.migrations order by filename desc limit 1');
    await env.pool.query('delete from graphile_migrate.migrations where filename = $1', [
      (last as { filename: string }).filename,
    ]);
    try {
      const reason = /^The schema of this database is not current: 00000\d-.* is missing\. Run: fleettickets migrate$/m;
      const found = await fleettickets({}, 'healthcheck');
      assert.deepEqual([found.status, reason.test(found.out)], [1, true], found.out);
      for (const command of ['healthcheck', 'status']) {
        const { status, out } = await fleettickets({}, command, '--json');
        assert.deepEqual([status, reason.test(JSON.parse(out).error)], [1, true], out);
      }
    } finally {
      await env.pool.query(
        'insert into graphile_migrate.migrations select * from json_populate_record(null::graphile_migrate.migrations, $1)',
        [JSON.stringify(last)],
      );
    }
    const nowhere = { DATABASE_URL: 'postgres://someone:a-secret-password@127.0.0.1:1/nowhere' };
    const reason = /^Cannot connect to Postgres at someone@127\.0\.0\.1:1\/nowhere/;
    const gone = await fleettickets(nowhere, 'healthcheck');
    assert.deepEqual([gone.status, reason.test(gone.out)], [1, true], gone.out);
    for (const command of ['healthcheck', 'status']) {
      const { status, out, err } = await fleettickets(nowhere, command, '--json');
      assert.deepEqual([status, reason.test(JSON.parse(out).error)], [1, true], out);
      assert.doesNotMatch(out + err, /a-secret-password/);
    }
  });
});
