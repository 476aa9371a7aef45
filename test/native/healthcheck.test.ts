/** fleettickets healthcheck, which a container asks while others have the tables. */
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { run as healthcheck } from '../../src/commands/healthcheck.ts';
import { connect } from '../../src/database/client.ts';
import { type Environment, inJobSchema, native, startEnvironment, waitFor } from '../support/environment.ts';
import { killWorkers, startWorkerProcess } from '../support/worker-process.ts';

describe('healthcheck', { skip: !native && 'needs a native Postgres' }, () => {
  let env: Environment;
  before(async () => {
    env = await startEnvironment();
  });
  after(() => env.close());

  test('it waits for nobody: not for a migration under way, nor for a session that has the tables', async (t) => {
    t.after(killWorkers);
    const worker = await startWorkerProcess();
    await waitFor(
      'the worker to register',
      async () =>
        (await env.pool.query('select from tickets_ops.worker_states() where pool_id = $1', [worker.pool])).rows
          .length > 0,
    );
    // It takes some of the locks below in another order.
    await waitFor('the upkeep of its start', () => worker.log.some(({ msg }) => /Completed task .*maintain/.test(msg)));
    const other = await connect(env.databaseUrl);
    try {
      await other.query(`select pg_advisory_lock(7216406330421507)`); // src/database/schema.ts
      await other.query(
        inJobSchema(
          'begin; lock table tickets.inc, tickets_ops.snapshots, graphile_worker._private_jobs in access exclusive mode',
        ),
      );
      assert.equal(await healthcheck([]), 0);
    } finally {
      await other.end();
    }
  });
});
