/** For the tests of operating: two files of the demo, and what the person on call asks the database. */
import assert from 'node:assert/strict';
import { feed } from '../../demo/feed.ts';
import type { Environment } from './environment.ts';
import { DATASET, PREFIX } from './pipeline.ts';

/** Of the last two hours: health calls a feed dead whose newest file is older than a day. */
export const start = new Date(Math.floor(Date.now() / 3_600_000 - 1) * 3_600_000);
export const [first, second] = [...feed({ seed: 5, hours: 2, tickets: 60, start })] as [Snapshot, Snapshot];
type Snapshot = ReturnType<typeof feed> extends Generator<infer S> ? S : never;

/** Asks and operates the database of a test file. @param env the environment, which `before` starts */
export function operations(env: () => Environment) {
  const rows = async <T = Record<string, unknown>>(sql: string, values: unknown[] = []): Promise<T[]> =>
    (await env().pool.query(sql, values)).rows;
  const one = async <T = Record<string, unknown>>(sql: string, values: unknown[] = []): Promise<T> =>
    (await rows<T>(sql, values))[0] as T;
  const addJob = async (task: string, payload: object, options = '') =>
    (
      await one<{ id: string }>(`select id from graphile_worker.add_job($1, $2::json ${options})`, [
        task,
        JSON.stringify(payload),
      ])
    ).id;
  const jobs = (condition = 'true') =>
    rows<{ id: string; task: string; state: string; key: string | null }>(
      `select * from tickets_ops.jobs where ${condition} order by id`,
    );
  const health = () =>
    one<{ ok: boolean; problems: string[] } & Record<string, unknown>>('select * from tickets_ops.health');
  /** Rejected rows of the demo's feed are a warning, and no fault. */
  const faultsOf = ({ problems }: { problems: string[] }) => problems.filter((problem) => problem.startsWith('Fault'));
  const snapshots = () =>
    rows<{ snapshot_id: string; status: string; error: string | null }>(
      'select snapshot_id, status, error from tickets_ops.snapshots order by snapshot_id',
    );
  const put = (snapshot: Snapshot) => env().putObject(`${PREFIX}${snapshot.name}`, snapshot.csv);
  const load = async (snapshot: Snapshot) => {
    await put(snapshot);
    await one(`select * from tickets_ops.fetch_now('${DATASET}')`);
    assert.deepEqual(await env().runJobs(), []);
  };

  /** Writes to a table fail, through no fault of a row, until the returned function is called. @param when only of such rows */
  async function broken(table: string, when = 'true'): Promise<() => Promise<void>> {
    await env().pool.query(`
      create function public.break_it() returns trigger language plpgsql as $$ begin raise exception 'The disk is on fire' using errcode = 'XX000'; end $$;
      create trigger break_it before insert or update on ${table} for each row when (${when}) execute function public.break_it()`);
    return async () => void (await env().pool.query('drop function public.break_it() cascade'));
  }

  /** Runs the jobs until the task's job has used up its attempts; returns its id. */
  async function useUp(task: string): Promise<string> {
    await env().runJobs();
    await env().pool.query(
      'update graphile_worker._private_jobs set attempts = max_attempts - 1, run_at = now() where attempts > 0',
    );
    await env().runJobs();
    const [job] = await jobs(`task = '${task}' and state = 'failed'`);
    assert.ok(job, `a failed ${task}`);
    return job.id;
  }

  /** Fetches the first file while a table refuses what is written, until the task gives up; then the table is whole again. */
  async function givenUp(task: string, ...fault: Parameters<typeof broken>): Promise<string> {
    const repair = await broken(...fault);
    await put(first);
    await env().pool.query(`select tickets_ops.fetch_now('${DATASET}')`);
    return useUp(task).finally(repair);
  }

  /** Runs the maintenance job with settings on top of the environment. */
  async function maintain(settings: Record<string, string> = {}): Promise<void> {
    Object.assign(process.env, settings);
    await addJob('fleettickets_maintain', {}, `, job_key := 'fleettickets_maintain', max_attempts := 1`);
    const failures = (await env().runJobs()).filter(({ task }) => task === 'fleettickets_maintain');
    for (const name of Object.keys(settings)) delete process.env[name];
    assert.deepEqual(failures, []);
  }

  /** A worker's registration, held by this process's pool: the embedded database cannot tell its lock from others'. */
  async function liveWorker(): Promise<void> {
    await env().pool.query(
      `insert into tickets_ops.workers (pool_id, host, pid, sessions, shares_sessions) values ('pool-live', 'elsewhere', 1, 'sessions', true)`,
    );
  }

  return {
    rows,
    one,
    addJob,
    jobs,
    health,
    faultsOf,
    snapshots,
    put,
    load,
    broken,
    useUp,
    givenUp,
    maintain,
    liveWorker,
  };
}
