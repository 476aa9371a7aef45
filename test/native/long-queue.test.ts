/** What operators ask of a long queue costs as much as it is long, and one job of it nothing of that. The figures: bench/jobs.ts. */
import assert from 'node:assert/strict';
import { after, before, beforeEach, describe, test } from 'node:test';
import { type Environment, native, startEnvironment } from '../support/environment.ts';
import { asking } from '../support/rows.ts';

const WAITING = 60_000;

describe('a long queue', { skip: !native && 'needs a native Postgres' }, () => {
  let env: Environment;
  before(async () => {
    env = await startEnvironment();
  });
  after(() => env.close());
  beforeEach(() => env.reset());

  const sql = asking(() => env.pool);
  /** Adds jobs, so many of which have failed. */
  const fill = async (jobs: number, failed: number) => {
    await env.reset();
    await sql(
      `select tickets_ops.enqueue_all(
         array_agg('geocode_location'::text), array_agg(json_build_object('cluster', 'Kilimani', 'location_name', 'place ' || n)),
         array_agg('geocode_location:kilimani:place ' || n), array_agg(now()), array_agg(30)
       )
       from generate_series(1, $1::integer) as n`,
      [jobs],
    );
    await sql(
      `update graphile_worker._private_jobs set attempts = max_attempts, last_error = 'it is down'
       where id in (select id from tickets_ops.queued_jobs() order by id limit $1)`,
      [failed],
    );
    await sql('analyze');
  };
  /** Milliseconds, the least of three. */
  const timeOf = async (statement: string, prepare: () => Promise<unknown> = async () => {}) => {
    const times: number[] = [];
    for (let n = 0; n < 3; n += 1) {
      await prepare();
      const from = performance.now();
      await sql(statement);
      times.push(performance.now() - from);
    }
    return Math.min(...times);
  };

  test('is tried again in a time that grows with the failed jobs, not with their square', async () => {
    const retry = (failed: number) =>
      timeOf('select count(*) from tickets_ops.retry_failed()', () => fill(2 * failed, failed));
    const [few, many] = [await retry(500), await retry(8_000)];
    assert.ok(many < 3 * 16 * Math.max(few, 5), `${few} ms for 500, ${many} ms for 8 000`);
  });

  test('gives one job by its number, and health, without much ado', async () => {
    await fill(WAITING, 1_000);
    const all = await timeOf('select count(*) from (select * from tickets_ops.jobs offset 0) as listed');
    const [{ id }] = (await sql(`select min(id) as id from tickets_ops.jobs where state = 'ready'`)) as [
      { id: string },
    ];
    const cancel = await timeOf(`select tickets_ops.cancel_job((select max(id) from graphile_worker._private_jobs))`);
    const retry = await timeOf(`select tickets_ops.retry_job(${id})`);
    const health = await timeOf('select * from tickets_ops.health');
    const told = JSON.stringify({ all, cancel, retry, health });
    assert.ok(cancel < all / 2 && retry < all / 2, told);
    assert.ok(health < 3 * all, told);
  });
});
