/** What operators ask of a long queue: every job, health, a retry of the failed ones, a cancel. */
import type { Environment } from '../test/support/environment.ts';
import { timed } from './stand.ts';
import type { Line } from './table.ts';

const JOBS = 200_000;
const FAILED = 1_000;
/** Milliseconds that a person waits for, and a monitor every minute. */
const LIMIT_MS = 1_000;
const RUNS = 3;

export async function measureJobs(env: Environment): Promise<Line[]> {
  const ids = await fill(env, FAILED);
  const lines: Line[] = [];
  for (const [what, sql] of [
    ['tickets_ops.jobs', 'select count(*) from (select * from tickets_ops.jobs offset 0) as listed'],
    ['tickets_ops.health', 'select * from tickets_ops.health'],
    ['cancel_job', `select tickets_ops.cancel_job(${ids.at(-1)})`],
    ['retry_failed', 'select count(*) from tickets_ops.retry_failed()'],
  ] as const) {
    lines.push({
      what: `${JOBS} jobs, ${FAILED} failed: ${what}`,
      ours: '',
      reference: '',
      value: await timed(env, sql),
      limit: LIMIT_MS,
      unit: 'ms',
    });
  }
  lines.push(await retryOfAll(env));
  await env.reset();
  return lines;
}

/** Every row is written anew, in four indexes: that alone may take longer than a person waits, so it is the measure. */
async function retryOfAll(env: Environment): Promise<Line> {
  const ours: number[] = [];
  const reference: number[] = [];
  for (let n = 0; n < RUNS; n += 1) {
    await fill(env, JOBS);
    reference.push(
      await timed(env, 'update graphile_worker._private_jobs set attempts = 0, run_at = now(), last_error = null'),
    );
    await fill(env, JOBS);
    ours.push(await timed(env, 'select count(*) from tickets_ops.retry_failed()'));
  }
  const [best, bare] = [Math.min(...ours), Math.min(...reference)];
  return {
    what: `${JOBS} jobs, all failed: retry_failed, against a bare update of them`,
    ours: `${best.toFixed(0)} ms`,
    reference: `${bare.toFixed(0)} ms`,
    value: best / bare,
    limit: 2,
  };
}

/** A queue of which the first jobs have failed; returns their ids. */
async function fill({ pool, reset }: Environment, failed: number): Promise<string[]> {
  await reset();
  await pool.query(
    `select tickets_ops.enqueue_all(
       array_agg('geocode_location'::text),
       array_agg(json_build_object('cluster', 'Kilimani', 'location_name', 'place ' || n)),
       array_agg('geocode_location:kilimani:place ' || n), array_agg(now()), array_agg(30)
     )
     from generate_series(1, $1::integer) as n`,
    [JOBS],
  );
  const { rows } = await pool.query<{ id: string }>(
    `update graphile_worker._private_jobs set attempts = max_attempts, last_error = 'it is down'
     where id in (select id from tickets_ops.queued_jobs() order by id limit $1) returning id`,
    [failed],
  );
  await pool.query('vacuum analyze graphile_worker._private_jobs');
  return rows.map(({ id }) => id);
}
