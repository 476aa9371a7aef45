/** What operators ask of a long queue: every job, health, a retry of the failed ones, a cancel. */
import type { Environment } from '../test/support/environment.ts';
import type { Line } from './table.ts';

const WAITING = 199_000;
const FAILED = 1_000;
/** Milliseconds that a person waits for, and a monitor every minute. */
const LIMIT_MS = 1_000;

export async function measureJobs(env: Environment): Promise<Line[]> {
  const { pool } = env;
  await env.reset();
  await pool.query(
    `select tickets_ops.enqueue_all(
       array_agg('geocode_location'::text),
       array_agg(json_build_object('cluster', 'Kilimani', 'location_name', 'place ' || n)),
       array_agg('geocode_location:kilimani:place ' || n), array_agg(now()), array_agg(30)
     )
     from generate_series(1, $1::integer) as n`,
    [WAITING + FAILED],
  );
  const { rows } = await pool.query<{ id: string }>(
    `update graphile_worker._private_jobs set attempts = max_attempts
     where id in (select id from tickets_ops.queued_jobs() order by id limit $1) returning id`,
    [FAILED],
  );
  await pool.query('analyze');
  const lines: Line[] = [];
  for (const [what, sql] of [
    ['tickets_ops.jobs', 'select count(*) from (select * from tickets_ops.jobs offset 0) as listed'],
    ['tickets_ops.health', 'select * from tickets_ops.health'],
    ['cancel_job', `select tickets_ops.cancel_job(${rows.at(-1)?.id})`],
    ['retry_failed', 'select count(*) from tickets_ops.retry_failed()'],
  ] as const) {
    const from = performance.now();
    await pool.query(sql);
    const value = performance.now() - from;
    lines.push({
      what: `${WAITING + FAILED} jobs, ${FAILED} failed: ${what}`,
      ours: '',
      reference: '',
      value,
      limit: LIMIT_MS,
      unit: 'ms',
    });
  }
  await env.reset();
  return lines;
}
