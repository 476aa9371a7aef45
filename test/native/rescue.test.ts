/**
 * What happens to work when workers die, hang or are stopped, and when Postgres restarts under them: real processes,
 * real signals. A batch is caught in the middle by a lock on tickets.inc that the test holds.
 */
import assert from 'node:assert/strict';
import { EventEmitter } from 'node:events';
import { after, afterEach, before, beforeEach, describe, test } from 'node:test';
import type { WorkerEvents } from 'graphile-worker';
import { pino } from 'pino';
import { feed, type Snapshot } from '../../demo/feed.ts';
import { connect, withClient } from '../../src/database/client.ts';
import { RetentionSettings, readSettings } from '../../src/settings/settings.ts';
import { heartbeatEnded, keepHeartbeat } from '../../src/worker/heartbeat.ts';
import { maintain } from '../../src/worker/maintenance.ts';
import { type Environment, native, startEnvironment, waitFor } from '../support/environment.ts';
import { type NativeServers, startNativeServers } from '../support/native.ts';
import { startPgBouncer } from '../support/pgbouncer.ts';
import { killWorkers, startWorkerProcess, type WorkerProcess } from '../support/worker-process.ts';

describe('rescue', { skip: !native && 'needs a native Postgres' }, () => {
  let servers: NativeServers;
  let env: Environment;
  let shared: Record<string, string | undefined>;
  /** Three batches. */
  const [snapshot] = feed({ seed: 3, hours: 1, tickets: 12_000 }) as unknown as [Snapshot];

  before(async () => {
    // Servers of its own: it restarts them.
    servers = await startNativeServers();
    shared = Object.fromEntries(Object.keys(servers.environment).map((name) => [name, process.env[name]]));
    Object.assign(process.env, servers.environment);
    env = await startEnvironment();
  });
  after(async () => {
    await env?.close();
    Object.assign(process.env, shared);
    await servers?.close();
  });
  beforeEach(() => env.reset());
  afterEach(killWorkers);

  const fetchNow = async () => {
    await env.putObject(`automations/inc/${snapshot.name}`, snapshot.csv);
    await env.pool.query('select tickets_ops.fetch_now()');
  };
  const heldBy = async (worker: WorkerProcess) => {
    const { rows } = await env.pool.query<{ held: number }>(
      `select count(*)::int as held from tickets_ops.jobs where state = 'running' and task = 'upsert_batch' and locked_by = $1`,
      [worker.pool],
    );
    return rows[0]?.held ?? 0;
  };
  const stateOf = async (worker: WorkerProcess) => {
    const { rows } = await env.pool.query('select state from tickets_ops.worker_states() where pool_id = $1', [
      worker.pool,
    ]);
    return rows[0]?.state as string | undefined;
  };
  const heartbeatOf = async (worker: WorkerProcess) => {
    const seen = `select seen_at::text from tickets_ops.workers where pool_id = $1`;
    const before = await env.pool.query(seen, [worker.pool]);
    await waitFor('a heartbeat', async () => {
      const { rows } = await env.pool.query(seen, [worker.pool]);
      return rows[0]?.seen_at !== before.rows[0]?.seen_at;
    });
  };
  const registered = (worker: WorkerProcess) => waitFor('a worker to register', () => stateOf(worker));
  const loaded = () =>
    waitFor('the snapshot to be loaded', async () => {
      const { rows } = await env.pool.query(
        `select from tickets_ops.snapshots where status = 'done' and archived_at is not null`,
      );
      return rows.length === 1;
    });

  /** Runs `use` while no batch can write. */
  const whileBatchesHang = async (use: (release: () => Promise<void>) => Promise<void>) => {
    const blocker = await connect(env.databaseUrl);
    blocker.on('error', () => undefined); // the tests that restart Postgres break it
    await blocker.query('begin');
    await blocker.query('lock table tickets.inc in share mode');
    try {
      await use(async () => void (await blocker.query('rollback')));
    } finally {
      await blocker.end().catch(() => undefined); // broken already
    }
  };
  const inTheMiddle = async (worker: WorkerProcess) => {
    await fetchNow();
    await waitFor('a worker to be in the middle of its batches', async () => (await heldBy(worker)) === 3);
  };

  /** Every ticket is there once, with one event each; the ledger's counts are right; nothing waits any more. */
  const assertLoadedOnce = async () => {
    await loaded();
    await waitFor('the queue to be empty', async () => {
      const { rows } = await env.pool.query(`select from tickets_ops.jobs where task <> 'fleettickets_maintain'`);
      return rows.length === 0;
    });
    const { rows: tickets } = await env.pool.query<{ ticket_id: string; raw: Record<string, string> }>(
      'select ticket_id, raw from tickets.inc',
    );
    assert.deepEqual(new Map(tickets.map(({ ticket_id, raw }) => [ticket_id, raw])), new Map(snapshot.tickets));
    const { rows: events } = await env.pool.query<{ event: string; n: number }>(
      'select event, count(*)::int as n from tickets.inc_events group by event',
    );
    const { opened, closed } = snapshot.expected.events;
    assert.deepEqual(Object.fromEntries(events.map(({ event, n }) => [event, n])), { opened, closed });
    const { rows: ledger } = await env.pool.query<{ rows_inserted: string; attempts: string }>(
      'select rows_inserted from tickets_ops.snapshots',
    );
    assert.deepEqual(ledger, [{ rows_inserted: String(snapshot.expected.rows_inserted) }]);
  };

  test('kill -9 of one of two workers: the other has its jobs within seconds', async (t) => {
    const first = await startWorkerProcess();
    await whileBatchesHang(async (release) => {
      await inTheMiddle(first);
      const second = await startWorkerProcess();
      await registered(second);
      const killed = performance.now();
      first.kill('SIGKILL');
      await waitFor('the other worker to take over', async () => (await heldBy(second)) === 3);
      const seconds = (performance.now() - killed) / 1_000;
      t.diagnostic(`${seconds.toFixed(1)} s from kill -9 to resumed work, with a survivor`);
      assert.ok(seconds < 15, `${seconds} s`);
      assert.equal(await stateOf(first), 'dead');
      await release();
    });
    await assertLoadedOnce();
  });

  test('all workers die and one comes back', async (t) => {
    const dead = await Promise.all([startWorkerProcess(), startWorkerProcess()]);
    await whileBatchesHang(async (release) => {
      await fetchNow();
      await waitFor(
        'the workers to be in the middle',
        async () => (await heldBy(dead[0])) + (await heldBy(dead[1])) === 3,
      );
      const killed = performance.now();
      for (const worker of dead) worker.kill('SIGKILL');
      await Promise.all(dead.map(({ exited }) => exited));
      const next = await startWorkerProcess();
      await waitFor('the next worker to take over', async () => (await heldBy(next)) === 3);
      t.diagnostic(
        `${((performance.now() - killed) / 1_000).toFixed(1)} s from kill -9 to resumed work, with a restart`,
      );
      await release();
    });
    await assertLoadedOnce();
  });

  test('a job under which two workers died is set aside, and health says why; an operator can try it again, over and over', async () => {
    const SET_ASIDE = 'Its worker died while it ran, twice';
    await whileBatchesHang(async (release) => {
      await fetchNow();
      for (let round = 0; round < 3; round += 1) {
        for (let death = 0; death < 2; death += 1) {
          const worker = await startWorkerProcess();
          await waitFor('the worker to take the batches', async () => (await heldBy(worker)) === 3);
          worker.kill('SIGKILL');
          await worker.exited;
        }
        const next = await startWorkerProcess();
        await waitFor('the batches to be set aside', async () => {
          const { rows } = await env.pool.query<{ last_error: string }>(
            `select last_error from tickets_ops.failed_jobs where task = 'upsert_batch'`,
          );
          return rows.length === 3 && rows.every(({ last_error }) => last_error.startsWith(SET_ASIDE));
        });
        await waitFor('health to say so', async () => {
          await env.pool.query(
            `select graphile_worker.add_job('fleettickets_maintain', job_key := 'fleettickets_maintain')`,
          );
          const { rows } = await env.pool.query<{ problems: string }>(
            `select array_to_string(problems, ' ') as problems from tickets_ops.health`,
          );
          return rows[0]?.problems.includes(SET_ASIDE);
        });
        next.kill('SIGTERM');
        await next.exited;
        await env.pool.query('select tickets_ops.retry_failed()');
      }
      await release();
    });
    await startWorkerProcess();
    await assertLoadedOnce();
  });

  test('a file under whose reading two workers died fails with that reason, and is not taken by the next look', async () => {
    await fetchNow();
    const locker = await env.pool.connect();
    try {
      // The reading waits when it compares its first rows.
      await locker.query('begin; lock table tickets.inc in access exclusive mode');
      for (let death = 0; death < 2; death += 1) {
        const worker = await startWorkerProcess();
        await waitFor('the worker to read', async () => {
          const { rows } = await env.pool.query(
            `select from tickets_ops.jobs where task = 'fetch_snapshot' and locked_by = $1`,
            [worker.pool],
          );
          const staging = await env.pool.query(
            `select from tickets_ops.snapshots where status = 'staging' and attempt = $1`,
            [death + 1],
          );
          return rows.length > 0 && staging.rows.length > 0;
        });
        worker.kill('SIGKILL');
        await worker.exited;
      }
      const next = await startWorkerProcess();
      await waitFor('the file to fail', async () => {
        const { rows } = await env.pool.query<{ error: string }>(
          `select error from tickets_ops.snapshots where status = 'failed'`,
        );
        return rows[0]?.error.startsWith('Its worker died while it ran, twice: reading this file');
      });
      next.kill('SIGTERM');
      await next.exited;
    } finally {
      await locker.query('rollback');
      locker.release();
    }
    await env.runJobs();
    await env.pool.query('select tickets_ops.fetch_now()');
    await env.runJobs();
    const { rows } = await env.pool.query('select status from tickets_ops.snapshots');
    assert.deepEqual(rows, [{ status: 'failed' }]);
    await env.pool.query(`select tickets_ops.retry_job(id) from tickets_ops.failed_jobs where task = 'fetch_snapshot'`);
    await env.runJobs();
    await assertLoadedOnce();
  });

  for (const mode of ['fast', 'immediate'] as const) {
    test(`Postgres restarts (${mode}) in the middle of a load`, async () => {
      const first = await startWorkerProcess();
      await whileBatchesHang(async () => {
        await inTheMiddle(first);
        await servers.restartPostgres(mode);
      });
      assert.equal(await first.exited, 1, 'not 0, or its container would not restart');
      await startWorkerProcess();
      await assertLoadedOnce();
    });
  }

  test('a worker that hangs without dying: its sessions are ended, and it ends itself when it wakes', async () => {
    const hung = await startWorkerProcess();
    await whileBatchesHang(async (release) => {
      await inTheMiddle(hung);
      hung.kill('SIGSTOP');
      const { rows } = await env.pool.query<{ sessions: string }>(
        `update tickets_ops.workers set seen_at = now() - interval '3 minutes' where pool_id = $1 returning sessions`,
        [hung.pool],
      );
      assert.equal(await stateOf(hung), 'hung');
      const next = await startWorkerProcess();
      await waitFor('the next worker to take over', async () => (await heldBy(next)) === 3);
      await waitFor('the sessions of the hung worker to end', async () => {
        const left = await env.pool.query('select from pg_stat_activity where application_name = $1', [
          rows[0]?.sessions,
        ]);
        return left.rows.length === 0;
      });
      await release();
    });
    await assertLoadedOnce();
    hung.kill('SIGCONT');
    assert.equal(await hung.exited, 1);
    await assertLoadedOnce();
  });

  test('a worker that only works for long is not taken for dead', async () => {
    const busy = await startWorkerProcess();
    await whileBatchesHang(async (release) => {
      await inTheMiddle(busy);
      const idle = await startWorkerProcess();
      await registered(idle);
      await env.pool.query(
        `select graphile_worker.add_job('fleettickets_maintain', job_key := 'fleettickets_maintain')`,
      );
      await waitFor(
        'maintain to run',
        async () =>
          (await env.pool.query(`select from tickets_ops.jobs where task = 'fleettickets_maintain'`)).rows.length === 0,
      );
      assert.equal(await heldBy(busy), 3);
      assert.equal(await stateOf(busy), 'alive');
      await release();
    });
    await assertLoadedOnce();
  });

  test('maintain needs no heartbeat: it frees the dead, and in the same run judges what they held', async () => {
    const dead = await startWorkerProcess();
    await whileBatchesHang(async () => {
      await inTheMiddle(dead);
      dead.kill('SIGKILL');
      await dead.exited;
      await waitFor('Postgres to notice', async () => (await stateOf(dead)) === 'dead');
      // No attempt is left, nor given back for this death.
      await env.pool.query(
        'update graphile_worker._private_jobs set attempts = 25, max_attempts = 25 where locked_by = $1',
        [dead.pool],
      );
      await env.pool.query(
        `insert into tickets_ops.workers (pool_id, host, pid, sessions) values ('this test', 'h', 1, 'none')`,
      );
      await withClient(env.databaseUrl, (client) =>
        maintain(client, 'this test', readSettings(RetentionSettings), pino({ level: 'silent' })),
      );
      const { rows } = await env.pool.query('select status, error from tickets_ops.snapshots');
      assert.deepEqual(rows, [{ status: 'failed', error: 'upsert_batch:1:1 used up its attempts: its worker died' }]);
      assert.equal(await heldBy(dead), 0);
    });
  });

  test('a heartbeat that cannot be set up says so and leaves no session, even where its pool was done sooner', async () => {
    const { TEST_DATABASE_URL: empty = '' } = process.env; // a database without our schema
    const said: string[] = [];
    const log = pino({ level: 'warn' }, { write: (line: string) => void said.push(JSON.parse(line).msg) });
    const events: WorkerEvents = new EventEmitter();
    keepHeartbeat(events, empty, log, assert.fail);
    events.emit('pool:create', { workerPool: { id: 'done', promise: Promise.resolve() } } as never);
    await heartbeatEnded(events);
    assert.match(said.join(), /the heartbeat cannot be set up: .*Run: fleettickets migrate/);
    await waitFor('the session to be gone', async () => {
      const { rowCount } = await env.pool.query(
        `select from pg_stat_activity where datname = $1 and application_name like 'fleettickets worker %'`,
        [new URL(empty).pathname.slice(1)],
      );
      return rowCount === 0;
    });
  });

  test('a worker writes as many batches at once as WORKER_CONCURRENCY says, whatever its other slots hold', async () => {
    const worker = await startWorkerProcess({ WORKER_CONCURRENCY: '2' });
    await whileBatchesHang(async (release) => {
      await fetchNow();
      await waitFor('every slot to hold a batch', async () => (await heldBy(worker)) === 3);
      const writing = () =>
        env.pool.query(
          `select from pg_stat_activity
           where datname = current_database() and application_name like 'fleettickets worker %' and wait_event_type = 'Lock'`,
        );
      await waitFor('two batches to wait for the table', async () => (await writing()).rowCount === 2);
      await heartbeatOf(worker); // time for a third
      assert.equal((await writing()).rowCount, 2);
      await release();
    });
    await assertLoadedOnce();
  });

  test('SIGTERM: what is under way is finished, the rest left untouched, nothing is repeated', async () => {
    const first = await startWorkerProcess({ WORKER_CONCURRENCY: '1' });
    await whileBatchesHang(async (release) => {
      await fetchNow();
      // One slot for loads, and one for geocoding, which takes a batch too: that waits for the first to be written.
      await waitFor('every slot to hold a batch', async () => (await heldBy(first)) === 2);
      first.kill('SIGTERM');
      await waitFor('the worker to shut down', () => first.log.some(({ msg }) => /shutdown/i.test(msg)));
      await release();
      assert.equal(await first.exited, 0);
      const { rows } = await env.pool.query<{ status: string; state: string | null; attempts: number | null }>(
        `select b.status, j.state, j.attempts
         from tickets_ops.snapshot_batches b left join tickets_ops.jobs j on j.key = format('upsert_batch:%s:%s', b.snapshot_id, b.batch)
         order by b.status`,
      );
      assert.deepEqual(rows, [
        { status: 'done', state: null, attempts: null },
        { status: 'done', state: null, attempts: null },
        { status: 'pending', state: 'ready', attempts: 0 },
      ]);
      assert.equal(await stateOf(first), 'stopped');
    });
    await startWorkerProcess();
    await assertLoadedOnce();
  });

  test('behind a pooler in session mode, a dead worker is known and rescued', async (t) => {
    const pooler = await startPgBouncer(env.databaseUrl, 'session');
    t.after(() => pooler.close());
    const settings = { DATABASE_URL: pooler.url };
    const first = await startWorkerProcess(settings);
    await whileBatchesHang(async (release) => {
      await inTheMiddle(first);
      const second = await startWorkerProcess(settings);
      await registered(second);
      assert.equal(await stateOf(first), 'alive');
      first.kill('SIGKILL');
      await waitFor('the other worker to take over', async () => (await heldBy(second)) === 3);
      await release();
    });
    await assertLoadedOnce();
    await killWorkers();
  });
});
