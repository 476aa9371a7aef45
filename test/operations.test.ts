/** Operating the pipeline from SQL and from the command line: what the person on call reads and calls. */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { readFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { text } from 'node:stream/consumers';
import { after, afterEach, before, beforeEach, describe, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { feed } from '../demo/feed.ts';
import { page } from '../src/commands/status.ts';
import type { Finding } from '../src/operations/doctor/finding.ts';
import type { Status } from '../src/operations/health.ts';
import { recordSchedule } from '../src/worker/schedule.ts';
import { type Environment, startEnvironment, waitFor } from './support/environment.ts';
import { killWorkers, startWorkerProcess } from './support/worker-process.ts';

const CLI = fileURLToPath(new URL('../src/cli.ts', import.meta.url));
const PREFIX = 'automations/inc/';
/** Of the last two hours: health calls a feed dead whose newest file is older than a day. */
const start = new Date(Math.floor(Date.now() / 3_600_000 - 1) * 3_600_000);
const [first, second] = [...feed({ seed: 5, hours: 2, tickets: 60, start })] as [Snapshot, Snapshot];
type Snapshot = ReturnType<typeof feed> extends Generator<infer S> ? S : never;

let env: Environment;
before(async () => {
  env = await startEnvironment();
});
after(() => env.close());
beforeEach(() => env.reset());

async function fleettickets(settings: Record<string, string>, ...args: string[]) {
  const child = spawn(process.execPath, [CLI, ...args], {
    cwd: tmpdir(),
    env: { ...process.env, ...settings },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  const closed = new Promise<number | null>((resolve) => child.once('close', resolve));
  const [out, err] = await Promise.all([text(child.stdout), text(child.stderr)]);
  return { status: await closed, out, err };
}

const rows = async <T = Record<string, unknown>>(sql: string, values: unknown[] = []): Promise<T[]> =>
  (await env.pool.query(sql, values)).rows;
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
const put = (snapshot: Snapshot) => env.putObject(`${PREFIX}${snapshot.name}`, snapshot.csv);
const load = async (snapshot: Snapshot) => {
  await put(snapshot);
  await one('select * from tickets_ops.fetch_now()');
  assert.deepEqual(await env.runJobs(), []);
};

/** Writes to a table fail, through no fault of a row, until the returned function is called. @param when only of such rows */
async function broken(table: string, when = 'true'): Promise<() => Promise<void>> {
  await env.pool.query(`
    create function public.break_it() returns trigger language plpgsql as $$ begin raise exception 'The disk is on fire' using errcode = 'XX000'; end $$;
    create trigger break_it before insert or update on ${table} for each row when (${when}) execute function public.break_it()`);
  return async () => void (await env.pool.query('drop function public.break_it() cascade'));
}

/** Runs the jobs until the task's job has used up its attempts; returns its id. */
async function useUp(task: string): Promise<string> {
  await env.runJobs();
  await env.pool.query(
    'update graphile_worker._private_jobs set attempts = max_attempts - 1, run_at = now() where attempts > 0',
  );
  await env.runJobs();
  const [job] = await jobs(`task = '${task}' and state = 'failed'`);
  assert.ok(job, `a failed ${task}`);
  return job.id;
}

/** Fetches the first file while a table refuses what is written, until the task gives up; then the table is whole again. */
async function givenUp(task: string, ...fault: Parameters<typeof broken>): Promise<string> {
  const repair = await broken(...fault);
  await put(first);
  await env.pool.query('select tickets_ops.fetch_now()');
  return useUp(task).finally(repair);
}

describe('tickets_ops.jobs', () => {
  test('shows what graphile-worker hides, in its states', async () => {
    await addJob('geocode_cluster', { cluster: 'Kilimani' }, `, job_key := 'ready'`);
    await addJob(
      'fleettickets_maintain',
      {},
      `, run_at := now() + interval '1 hour', job_key := 'scheduled', queue_name := 'some queue'`,
    );
    for (const key of ['running', 'retrying', 'failed'])
      await addJob('fleettickets_maintain', { key }, `, job_key := '${key}', max_attempts := 3`);
    await env.pool.query(`
      update graphile_worker._private_jobs set attempts = 1, locked_at = now(), locked_by = 'pool-x' where key = 'running';
      update graphile_worker._private_jobs set attempts = 1, last_error = 'no', run_at = now() + interval '9 s' where key = 'retrying';
      update graphile_worker._private_jobs set attempts = 3, last_error = 'never' where key = 'failed'`);
    const found = await rows(
      "select key, state, locked_by, payload, queue, age >= interval '0' as aged from tickets_ops.jobs order by id",
    );
    const plain = { locked_by: null, queue: null, aged: true };
    assert.deepEqual(found, [
      { ...plain, key: 'ready', state: 'ready', payload: { cluster: 'Kilimani' } },
      { ...plain, key: 'scheduled', state: 'scheduled', payload: {}, queue: 'some queue' },
      { ...plain, key: 'running', state: 'running', payload: { key: 'running' }, locked_by: 'pool-x' },
      { ...plain, key: 'retrying', state: 'retrying', payload: { key: 'retrying' } },
      { ...plain, key: 'failed', state: 'failed', payload: { key: 'failed' } },
    ]);
    assert.deepEqual(await rows('select key, attempts, last_error, superseded from tickets_ops.failed_jobs'), [
      { key: 'failed', attempts: 3, last_error: 'never', superseded: null },
    ]);
  });

  test('nothing of ours depends on graphile-worker’s tables, whose migrations it would block', async () => {
    const dependent = await rows(`
      select distinct d.classid::regclass, d.objid
      from pg_depend d join pg_class c on d.refclassid = 'pg_class'::regclass and d.refobjid = c.oid
      left join pg_rewrite r on d.classid = 'pg_rewrite'::regclass and r.oid = d.objid
      left join pg_class v on v.oid = r.ev_class
      left join pg_proc p on d.classid = 'pg_proc'::regclass and p.oid = d.objid
      where c.relnamespace = 'graphile_worker'::regnamespace
        and coalesce(v.relnamespace, p.pronamespace)::regnamespace::text in ('tickets', 'tickets_ops', 'reporting')
        and c.relname like '\\_private%'`);
    assert.deepEqual(dependent, []);
  });

  test('every table, view, column and function of ours has a comment', async () => {
    const bare = await rows<{ name: string }>(`
      select c.oid::regclass::text as name from pg_class c
      where c.relkind in ('r', 'v') and c.relnamespace in ('tickets'::regnamespace, 'tickets_ops'::regnamespace, 'reporting'::regnamespace)
        and obj_description(c.oid, 'pg_class') is null
      union all
      select a.attrelid::regclass || '.' || a.attname from pg_attribute a join pg_class c on c.oid = a.attrelid
      where c.relkind in ('r', 'v') and c.relnamespace in ('tickets'::regnamespace, 'tickets_ops'::regnamespace, 'reporting'::regnamespace)
        and a.attnum > 0 and not a.attisdropped and col_description(a.attrelid, a.attnum) is null
      union all
      select p.oid::regprocedure::text from pg_proc p
      where p.pronamespace in ('tickets'::regnamespace, 'tickets_ops'::regnamespace, 'reporting'::regnamespace)
        and obj_description(p.oid, 'pg_proc') is null
      order by 1`);
    assert.deepEqual(
      bare.map(({ name }) => name),
      [],
    );
  });
});

describe('trying again', () => {
  test('a batch: its failed snapshot is reopened and loads', async () => {
    const id = await givenUp('upsert_batch', 'tickets.inc');
    assert.deepEqual(
      (await snapshots()).map(({ status }) => status),
      ['failed'],
    );
    assert.match(
      (await health()).problems.join('\n'),
      /Snapshot \d+ .* failed: Batch 1 failed 6 times: The disk is on fire/,
    );

    assert.match((await one<{ note: string }>('select * from tickets_ops.retry_job($1)', [id])).note, /due now/);
    assert.deepEqual(
      (await snapshots()).map(({ status }) => status),
      ['loading'],
    );
    assert.deepEqual(await env.runJobs(), []);
    assert.deepEqual(
      (await snapshots()).map(({ status }) => status),
      ['done'],
    );
    assert.equal((await one<{ n: string }>('select count(*) as n from tickets.inc')).n, String(first.tickets.size));
    assert.deepEqual(await jobs(), []);
  });

  test('a batch alone never brings a failed snapshot back; trying one again brings back all that is left of it', async () => {
    const repair = await broken('tickets.inc');
    const ids = Array.from({ length: 10_001 }, (_, n) => `WOT${10_000_000 + n}\n`); // three batches
    await env.putObject(`${PREFIX}${first.name}`, `ticket_id\n${ids.join('')}`);
    await env.pool.query('select tickets_ops.fetch_now()');
    await env.runJobs();
    const due = (batch: number, attempts: string) =>
      env.pool.query(
        `update graphile_worker._private_jobs set run_at = now(), attempts = ${attempts} where key = 'upsert_batch:1:${batch}'`,
      );
    await due(3, 'max_attempts - 1');
    await env.runJobs();
    await repair();
    // Batches 1 and 2 have attempts left, and nothing would keep them from loading.
    await due(1, 'attempts');
    await env.runJobs();
    assert.deepEqual(
      (await jobs()).map(({ key }) => key).sort(),
      ['upsert_batch:1:2', 'upsert_batch:1:3'],
      'batch 1 waits for nothing',
    );
    await maintain();
    assert.deepEqual(await snapshots(), [
      { snapshot_id: '1', status: 'failed', error: 'Batch 3 failed 6 times: The disk is on fire' },
    ]);
    assert.deepEqual(await rows('select ticket_id from tickets.inc'), []);

    await due(2, 'max_attempts'); // it died with its worker, say
    const [failure] = await jobs(`key = 'upsert_batch:1:3'`);
    assert.deepEqual(await one('select note from tickets_ops.retry_job($1)', [failure?.id]), {
      note: 'It is due now, and with it all that is left of snapshot 1.',
    });
    await maintain();
    assert.deepEqual(await env.runJobs(), []);
    assert.deepEqual(
      (await snapshots()).map(({ status }) => status),
      ['done'],
    );
    assert.equal((await one<{ n: string }>('select count(*) as n from tickets.inc')).n, '10001');
    assert.deepEqual(await jobs(), []);
  });

  test('the end of a snapshot', async () => {
    const id = await givenUp('finalize_snapshot', 'tickets.import_meta', `new.metadata ? 'snapshot_id'`);
    assert.deepEqual(
      (await snapshots()).map(({ status }) => status),
      ['failed'],
    );
    await one('select * from tickets_ops.retry_job($1)', [id]);
    assert.deepEqual(await env.runJobs(), []);
    assert.deepEqual(
      (await snapshots()).map(({ status }) => status),
      ['done'],
    );
  });

  test('a file that could not be read is read again', async () => {
    await givenUp('fetch_snapshot', 'tickets_ops.snapshot_rows');
    assert.deepEqual(
      (await snapshots()).map(({ status }) => status),
      ['failed'],
    );
    assert.equal((await one<{ note: string }>('select note from tickets_ops.retry_failed()')).note, 'It is due now.');
    assert.deepEqual(await env.runJobs(), []);
    assert.deepEqual(
      (await snapshots()).map(({ status }) => status),
      ['done'],
    );
  });

  test('its end, asked for before its batches are loaded, brings the batches back', async () => {
    await givenUp('upsert_batch', 'tickets.inc');
    const { id } = await one<{ id: string }>(
      `select id from graphile_worker.add_job('finalize_snapshot', '{"snapshot_id": 1}')`,
    );
    assert.match(JSON.stringify(await env.runJobs()), /Snapshot 1 is failed, not finalizing/);
    await one('select * from tickets_ops.retry_job($1)', [id]);
    assert.deepEqual(await env.runJobs(), []);
    assert.deepEqual(
      (await snapshots()).map(({ status }) => status),
      ['done'],
    );
    assert.deepEqual(await jobs(), []);
  });

  test('what a newer snapshot superseded says so, and stays failed', async () => {
    const id = await givenUp('upsert_batch', 'tickets.inc');
    await load(second).catch(() => undefined);
    assert.deepEqual(
      (await snapshots()).map(({ status }) => status),
      ['failed', 'done'],
    );
    await assert.rejects(
      one('select * from tickets_ops.retry_job($1)', [id]),
      /superseded by snapshot 2: it stays failed/,
    );
    assert.match(
      (await one<{ superseded: string }>('select superseded from tickets_ops.failed_jobs')).superseded,
      /Snapshot 2 came after it/,
    );
    assert.match((await one<{ note: string }>('select note from tickets_ops.retry_failed()')).note, /Left alone/);
    assert.equal((await health())['jobs_failed'], '0');
  });

  test('after its staging was pruned, it says to read the file again', async () => {
    const id = await givenUp('upsert_batch', 'tickets.inc');
    await env.pool.query(`update tickets_ops.snapshots set progress_at = now() - interval '8 days'`);
    await maintain();
    await assert.rejects(
      one('select * from tickets_ops.retry_job($1)', [id]),
      /have been pruned\. Read it again: .*fetch_now\('inc', true\)/,
    );
    await one(`select * from tickets_ops.fetch_now('inc', true)`);
    await env.runJobs();
    assert.deepEqual(
      (await snapshots()).map(({ status }) => status),
      ['failed', 'done'],
    );
  });

  test('a job that gave up has its attempts back; a look that gave up waiting waits anew', async () => {
    const id = await addJob('geocode_cluster', { clutser: 'Kilimani' }, `, job_key := 'wrong'`);
    await env.runJobs();
    assert.deepEqual(
      (await jobs()).map(({ state }) => state),
      ['failed'],
    );
    const tired = await addJob(
      'fetch_snapshot',
      { dataset: 'inc', waits: 360 },
      `, max_attempts := 1, job_key := 'fetch_snapshot:inc:newest'`,
    );
    await env.pool.query('update graphile_worker._private_jobs set attempts = 1 where id = $1', [tired]);
    const tried = await rows<{ job_id: string }>('select * from tickets_ops.retry_failed()');
    assert.deepEqual(
      tried.map(({ job_id }) => job_id),
      [id, tired],
    );
    assert.deepEqual(await rows('select attempts, max_attempts, payload from tickets_ops.jobs order by id'), [
      { attempts: 0, max_attempts: 6, payload: { clutser: 'Kilimani' } },
      { attempts: 0, max_attempts: 6, payload: { dataset: 'inc' } },
    ]);
  });

  test('one task only, and of those that ask for the same the last', async () => {
    for (const task of ['fleettickets_maintain', 'fetch_snapshot', 'fetch_snapshot']) await addJob(task, {});
    await env.pool.query('update graphile_worker._private_jobs set attempts = max_attempts');
    const tried = await rows<{ note: string }>(`select note from tickets_ops.retry_failed('fetch_snapshot')`);
    assert.deepEqual(
      tried.map(({ note }) => note),
      ['Left alone. A later job asks for the same.', 'It is due now.'],
    );
    assert.deepEqual(
      (await jobs()).map(({ state }) => state),
      ['failed', 'failed', 'ready'],
    );
  });

  test('what is not there or runs is an error that says so', async () => {
    await assert.rejects(one('select * from tickets_ops.retry_job(4711)'), /There is no job 4711/);
    const id = await addJob('fleettickets_maintain', {});
    await env.pool.query(
      `update graphile_worker._private_jobs set attempts = 1, locked_at = now(), locked_by = 'pool-x'`,
    );
    await assert.rejects(one('select * from tickets_ops.retry_job($1)', [id]), /running at this moment/);
  });
});

describe('cancelling', () => {
  test('a waiting job is gone; a running one is not tried again', async () => {
    const waiting = await addJob('geocode_cluster', { cluster: 'Kilimani' });
    const running = await addJob('fleettickets_maintain', {});
    await env.pool.query(
      `update graphile_worker._private_jobs set attempts = 1, locked_at = now(), locked_by = 'pool-x' where id = $1`,
      [running],
    );
    assert.deepEqual(await one('select tickets_ops.cancel_job($1) as said', [waiting]), {
      said: `Job ${waiting} is cancelled.`,
    });
    assert.match(
      (await one<{ said: string }>('select tickets_ops.cancel_job($1) as said', [running])).said,
      /cannot be stopped, but if it fails it is not tried again/,
    );
    assert.deepEqual(await rows('select id, max_attempts from tickets_ops.jobs'), [{ id: running, max_attempts: 1 }]);
    await assert.rejects(one('select tickets_ops.cancel_job($1)', [waiting]), /There is no job/);
  });

  test('a batch takes its snapshot with it, and nothing brings it back', async () => {
    const repair = await broken('tickets.inc');
    await put(first);
    await env.pool.query('select tickets_ops.fetch_now()');
    await env.runJobs().finally(repair);
    const [batch] = await jobs(`task = 'upsert_batch'`);
    assert.match(
      (await one<{ said: string }>('select tickets_ops.cancel_job($1) as said', [batch?.id])).said,
      /Snapshot 1 is cancelled, with 1 of its jobs/,
    );
    await maintain();
    assert.deepEqual(await jobs(), []);
    assert.deepEqual(await snapshots(), [{ snapshot_id: '1', status: 'failed', error: 'Cancelled by postgres' }]);
    await one('select * from tickets_ops.fetch_now(force => true)');
    assert.deepEqual(await env.runJobs(), []);
    assert.deepEqual(
      (await snapshots()).map(({ status }) => status),
      ['failed', 'done'],
    );
  });
});

describe('fetch_now', () => {
  test('looks at the bucket; by force it loads again what is archived', async () => {
    await load(first);
    assert.deepEqual(
      (await snapshots()).map(({ status }) => status),
      ['done'],
    );
    await one('select * from tickets_ops.fetch_now()');
    await env.runJobs();
    assert.equal((await snapshots()).length, 1);
    await one(`select * from tickets_ops.fetch_now('inc', true)`);
    await env.runJobs();
    assert.deepEqual(
      (await snapshots()).map(({ status }) => status),
      ['done', 'done'],
    );
  });

  test('asked twice it says so, and is one job: the one of the schedule', async () => {
    const asked = await one('select job_key, already_waiting from tickets_ops.fetch_now()');
    assert.deepEqual(asked, { job_key: 'fetch_snapshot:inc:newest', already_waiting: false });
    assert.match(
      await readFile(new URL('../crontab', import.meta.url), 'utf8'),
      /fetch_snapshot \?id=fetch_inc.*jobKey=fetch_snapshot:inc:newest /,
    );
    const again = await one<{ note: string }>('select already_waiting, note from tickets_ops.fetch_now()');
    assert.deepEqual(again, {
      already_waiting: true,
      note: 'It waited already, and is due now. But no worker is alive.',
    });
    assert.equal((await jobs()).length, 1);
  });

  test('another dataset is refused, whatever its name holds', async () => {
    for (const name of ['INC', '', null, `inc'; drop table tickets.inc; --`]) {
      await assert.rejects(one('select * from tickets_ops.fetch_now($1)', [name]), /There is no dataset/);
    }
    assert.deepEqual(await jobs(), []);
  });
});

describe('tickets_ops.health', () => {
  test('tells what was checked and loaded, and which open tickets the newest file lacks', async () => {
    await load(first);
    await load(second);
    const found = await health();
    assert.equal(found['loaded_key'], `${PREFIX}${second.name}`);
    assert.equal(found['checked_status'], 'done');
    assert.equal(found['open_missing'], String(second.expected.open_missing));
    assert.deepEqual((found['data_at'] as Date).toISOString(), second.at.toISOString());
    assert.deepEqual(faultsOf(found), ['Fault: No worker is alive: start one (fleettickets worker).']);
    assert.equal(found.ok, false);
  });

  test('is well when a worker lives, and an unchanged hour is a success', async () => {
    await load(first);
    await env.putObject(`${PREFIX}${second.name}`, first.csv);
    await one('select * from tickets_ops.fetch_now()');
    await env.runJobs();
    await liveWorker();
    const found = await health();
    assert.deepEqual(faultsOf(found), []);
    assert.deepEqual([found.ok, found['workers_alive'], found['checked_status']], [true, '1', 'unchanged']);
    assert.deepEqual((found['data_at'] as Date).toISOString(), second.at.toISOString());
  });

  test('a run that was missed is named; a look makes up for it', async () => {
    await recordSchedule(env.pool);
    await env.pool.query(`update tickets_ops.schedule set since = now() - interval '3 days'`);
    const { tick } = await one<{ tick: Date }>(
      `select tickets_ops.last_scheduled_run(now() - interval '30 minutes') as tick`,
    );
    assert.deepEqual((await health())['missed_run_at'], tick);
    assert.match(
      (await health()).problems.join('\n'),
      /Fault: The run of .* EAT was missed: nothing has looked at the bucket since the pipeline began/,
    );
    await one('select * from tickets_ops.fetch_now()');
    await env.runJobs();
    assert.equal((await health())['missed_run_at'], null);
    await env.pool.query(`update tickets_ops.looks set looked_at = $1::timestamptz - interval '1 minute'`, [tick]);
    assert.deepEqual((await health())['missed_run_at'], tick);
  });

  test('a file that broke off is a problem until a whole one comes', async () => {
    await env.putObject(`${PREFIX}${first.name}`, 'ticket_id,cluster\nWOT0000001,Kilimani\nWOT0000002,"never closed\n');
    await one('select * from tickets_ops.fetch_now()');
    await env.runJobs();
    assert.match((await health()).problems.join('\n'), /loaded only in part\. The file breaks off: .*line 3/);
    await load(second);
    assert.doesNotMatch((await health()).problems.join('\n'), /in part/);
  });

  test('work that stands still, and jobs that nobody takes', async () => {
    const repair = await broken('tickets.inc');
    await put(first);
    await env.pool.query('select tickets_ops.fetch_now()');
    await env.runJobs().finally(repair);
    await env.pool.query(`update tickets_ops.snapshots set progress_at = now() - interval '20 minutes';
      update graphile_worker._private_jobs set run_at = now() - interval '20 minutes'`);
    const { problems } = await health();
    assert.match(problems.join('\n'), /Snapshot 1 is loading and has not moved for 00:20:0/);
    assert.match(problems.join('\n'), /A job has waited for a worker since/);
  });
});

async function maintain(settings: Record<string, string> = {}): Promise<void> {
  Object.assign(process.env, settings);
  await addJob('fleettickets_maintain', {}, `, job_key := 'fleettickets_maintain', max_attempts := 1`);
  const failures = (await env.runJobs()).filter(({ task }) => task === 'fleettickets_maintain');
  for (const name of Object.keys(settings)) delete process.env[name];
  assert.deepEqual(failures, []);
}

describe('maintain', () => {
  test('asks again for jobs that vanished', async () => {
    const repair = await broken('tickets.inc');
    await put(first);
    await env.pool.query('select tickets_ops.fetch_now()');
    await env.runJobs().finally(repair);
    await env.pool.query('delete from graphile_worker._private_jobs');
    await maintain();
    await env.runJobs();
    assert.deepEqual(
      (await snapshots()).map(({ status }) => status),
      ['done'],
    );
  });

  test('fails what has stalled, so that the next snapshot is not blocked', async () => {
    const repair = await broken('tickets.inc');
    await put(first);
    await env.pool.query('select tickets_ops.fetch_now()');
    await env.runJobs().finally(repair);
    // As if the last attempt had died with its worker.
    await env.pool.query(
      `update graphile_worker._private_jobs set attempts = max_attempts, last_error = null where key like 'upsert%'`,
    );
    await maintain();
    const [failed] = await snapshots();
    assert.deepEqual(
      [failed?.status, failed?.error],
      ['failed', 'upsert_batch:1:1 used up its attempts: its worker died'],
    );
    await load(second).catch(() => undefined);
    assert.deepEqual(
      (await snapshots()).map(({ status }) => status),
      ['failed', 'done'],
    );
  });

  test('prunes by age, as set, and keeps what the next file is compared with', async () => {
    await load(first);
    await load(second);
    await addJob('geocode_cluster', { cluster: 'Kilimani' }, `, job_key := 'old'`);
    const age = `interval '20 days'`;
    await env.pool.query(`
      update tickets_ops.snapshots set progress_at = now() - ${age};
      update graphile_worker._private_jobs set attempts = max_attempts, run_at = now() - ${age};
      insert into tickets_ops.workers (pool_id, host, pid, sessions, seen_at) values ('gone', 'h', 1, 's', now() - ${age})`);
    await env.pool.query(
      `alter table graphile_worker._private_jobs disable trigger all; update graphile_worker._private_jobs set updated_at = now() - ${age}; alter table graphile_worker._private_jobs enable trigger all`,
    );
    const counts = () =>
      one(`select (select count(*)::int from tickets_ops.snapshots) as snapshots, (select count(*)::int from tickets_ops.snapshot_rejects) as rejects,
        (select count(*)::int from tickets_ops.failed_jobs) as failed, (select count(*)::int from tickets_ops.workers where pool_id = 'gone') as workers`);
    const rejects = first.expected.rows_rejected + second.expected.rows_rejected;
    await maintain();
    assert.deepEqual(await counts(), { snapshots: 2, rejects, failed: 1, workers: 0 });
    await maintain({ KEEP_REJECTS_DAYS: '19', KEEP_FAILED_JOBS_DAYS: '21' });
    assert.deepEqual(await counts(), { snapshots: 2, rejects: 0, failed: 1, workers: 0 });
    await maintain({ KEEP_FAILED_JOBS_DAYS: '19', KEEP_LEDGER_DAYS: '19' });
    assert.deepEqual(await counts(), { snapshots: 1, rejects: 0, failed: 0, workers: 0 });
    assert.deepEqual(
      (await snapshots()).map(({ status }) => status),
      ['done'],
    );
    await env.putObject(`${PREFIX}${second.name.replace('-00-00.csv', '-10-00.csv')}`, second.csv);
    await one('select * from tickets_ops.fetch_now()');
    await env.runJobs();
    assert.deepEqual(
      (await snapshots()).map(({ status }) => status),
      ['done', 'unchanged'],
    );
  });
});

/** A worker's registration, held by this process's pool: the embedded database cannot tell its lock from others'. */
async function liveWorker(): Promise<void> {
  await env.pool.query(
    `insert into tickets_ops.workers (pool_id, host, pid, sessions, shares_sessions) values ('pool-live', 'elsewhere', 1, 'sessions', true)`,
  );
}

describe('payloads that people type', () => {
  test('one that jsonb cannot hold, or that is no object, hides no other job and stops no function', async () => {
    for (const payload of ['{"cluster":"\\u0000"}', '{"a":1e999999}', '"Kilimani"']) {
      await env.pool.query(`select graphile_worker.add_job('geocode_cluster', $1::json, max_attempts := 1)`, [payload]);
    }
    assert.equal((await env.pool.query('select from tickets_ops.jobs')).rowCount, 3);
    await env.pool.query('update graphile_worker._private_jobs set attempts = max_attempts');
    assert.equal((await env.pool.query('select from tickets_ops.failed_jobs')).rowCount, 3);
    assert.equal((await env.pool.query('select from tickets_ops.retry_failed()')).rowCount, 3);
    await env.pool.query('select ok from tickets_ops.health');
    await env.pool.query('select tickets_ops.cancel_job(id) from tickets_ops.jobs');
    assert.equal((await env.pool.query('select from tickets_ops.jobs')).rowCount, 0);
  });
});

describe('status', () => {
  test('is a page that a person can read', () => {
    const status: Status = {
      health: {
        ok: false,
        problems: ['Fault: Snapshot 8 (automations/inc/2026-06-15T10-00-00.csv) failed: No ticket CSV: it is empty'],
        checked_at: '2026-06-15T07:15:03+00:00',
        checked_key: 'automations/inc/2026-06-15T10-00-00.csv',
        checked_status: 'failed',
        loaded_snapshot_id: 7,
        loaded_key: 'automations/inc/2026-06-15T09-00-00.csv',
        loaded_at: '2026-06-15T06:15:10+00:00',
        loaded_status: 'done',
        data_at: '2026-06-15T06:00:00+00:00',
        open_missing: 3,
        in_flight_snapshot_id: 9,
        in_flight_status: 'loading',
        in_flight_idle: '00:00:02',
        missed_run_at: null,
        next_run_at: '2026-06-15T08:15:00+00:00',
        jobs_waiting: 4,
        oldest_waiting_age: '00:01:05',
        jobs_running: 2,
        jobs_failed: 1,
        workers_alive: 2,
        workers_unsure: 0,
        geocoding_state: 'ready',
        geocoding_budget_left: 4832,
        geocoding_jobs: 12,
        places_for_review: 5,
      },
      snapshots: [
        {
          snapshot_id: 8,
          file: 'automations/inc/2026-06-15T10-00-00.csv',
          status: 'failed',
          at: '2026-06-15T07:15:03+00:00',
          read: 0,
          inserted: 0,
          updated: 0,
          rejected: 0,
          reason: 'No ticket CSV: it is empty',
        },
      ],
      failing: [
        {
          id: 17,
          task: 'geocode_cluster',
          state: 'retrying',
          attempts: '2 of 6',
          next_at: '2026-06-15T07:21:00+00:00',
          error: 'locationiq: no\nanswer',
        },
      ],
    };
    assert.equal(
      page(status, new Date('2026-06-15T07:20:00Z')),
      `Needs attention:
  - Fault: Snapshot 8 (automations/inc/2026-06-15T10-00-00.csv) failed: No ticket CSV: it is empty

Tickets    as of Mon 15 Jun 09:00 EAT, 80 min ago; 3 open tickets are not in the newest file
Last look  Mon 15 Jun 10:15 EAT, 5 min ago: automations/inc/2026-06-15T10-00-00.csv failed
Last load  Mon 15 Jun 09:15 EAT, 65 min ago: snapshot 7, automations/inc/2026-06-15T09-00-00.csv done
In flight  snapshot 9 is loading, moved 2 s ago
Next run   Mon 15 Jun 11:15 EAT
Jobs       4 due (the oldest for 00:01:05), 2 running, 1 failed
Workers    2 alive
Geocoding  ready, 4832 calls left today; 12 places wait, 5 are to be reviewed

Last snapshots
 id | file                    | when                 | status | read | inserted | updated | rejected | reason
----+-------------------------+----------------------+--------+------+----------+---------+----------+----------------------------
  8 | 2026-06-15T10-00-00.csv | Mon 15 Jun 10:15 EAT | failed |    0 |        0 |       0 |        0 | No ticket CSV: it is empty

Failing jobs: select * from tickets_ops.retry_job(id) tries one again
 id | task            | state    | attempts | next                 | error
----+-----------------+----------+----------+----------------------+-----------------------
 17 | geocode_cluster | retrying | 2 of 6   | Mon 15 Jun 10:21 EAT | locationiq: no answer
`,
    );
  });

  test('exits with 1 when something needs a person, and with 0 when not; as JSON it is the health row', async () => {
    await load(first);
    const bad = await fleettickets({}, 'status');
    assert.equal(bad.status, 1);
    assert.match(bad.out, /^Needs attention:\n {2}- Fault: No worker is alive/);
    await liveWorker();
    const good = await fleettickets({}, 'status', '--json');
    assert.equal(good.status, 0, good.err);
    const { health: shown, snapshots: listed, failing } = JSON.parse(good.out) as Status;
    assert.deepEqual([shown.ok, shown.loaded_key, listed.length, failing], [true, `${PREFIX}${first.name}`, 1, []]);
  });
});

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

describe('doctor', () => {
  const examined = async (settings: Record<string, string>) => {
    const { status, out, err } = await fleettickets(settings, 'doctor', '--json');
    const findings = JSON.parse(out) as Finding[];
    return { status, err, of: (name: string) => findings.find(({ check }) => check === name), findings };
  };

  test('finds nothing wrong where nothing is, and leaves the bucket as it was', async () => {
    await put(first);
    await liveWorker();
    const { status, findings } = await examined({});
    assert.deepEqual(
      findings.filter(({ state }) => state === 'failed'),
      [],
    );
    assert.equal(status, 0);
    assert.deepEqual(await env.listKeys(), [`${PREFIX}${first.name}`]);
    const text = await fleettickets({}, 'doctor');
    assert.match(text.out, /^ok {4}settings {7}complete and valid$/m);
  });

  test('names a remedy for each thing that is wrong, and shows no secret', async () => {
    const { status, of, findings } = await examined({
      DATABASE_URL: 'postgres://someone:a-secret-password@127.0.0.1:1/nowhere',
      RUSTFS_ENDPOINT: 'http://127.0.0.1:1',
      RUSTFS_SECRET_KEY: 'a-secret-bucket-key',
      GEOCODER_PROVIDER: 'locationiq',
      GEOCODER_API_KEY: 'a-secret-provider-key',
      GEOCODER_BASE_URL: 'http://127.0.0.1:1',
    });
    assert.equal(status, 1);
    assert.match(of('database')?.remedy ?? '', /check DATABASE_URL/);
    assert.equal(of('schema')?.state, 'skipped');
    assert.match(of('bucket')?.detail ?? '', /nothing listens there/);
    assert.match(of('provider')?.detail ?? '', /locationiq: no connection/);
    for (const { state, remedy } of findings)
      assert.equal(remedy !== undefined, state === 'failed' || state === 'warning');
    assert.doesNotMatch(JSON.stringify(findings), /a-secret/);
  });

  test('a setting that is wrong is named', async () => {
    const { status, of } = await examined({ RUSTFS_PREFIX: '/no/slash/at/the/end', KEEP_LEDGER_DAYS: '0' });
    assert.equal(status, 1);
    assert.match(of('settings')?.detail ?? '', /RUSTFS_PREFIX: must end with a slash[\s\S]*KEEP_LEDGER_DAYS/);
  });

  test('a provider that lacks its key or its address is a failure; none at all is none', async () => {
    for (const [settings, what] of [
      [{ GEOCODER_PROVIDER: 'opencage' }, /GEOCODER_API_KEY is not set, and opencage needs one/],
      [{ GEOCODER_PROVIDER: 'nominatim' }, /GEOCODER_BASE_URL is not set, and nominatim needs one/],
    ] as const) {
      const { status, of } = await examined(settings);
      assert.deepEqual([status, of('provider')?.state], [1, 'failed']);
      assert.match(of('provider')?.detail ?? '', what);
      assert.match(of('provider')?.remedy ?? '', /take GEOCODER_PROVIDER away/);
    }
    assert.equal((await examined({ GEOCODER_PROVIDER: '' })).of('provider')?.state, 'skipped');
  });
});
