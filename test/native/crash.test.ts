/**
 * kill -9 at any point of a load: one worker after another is killed at a random moment while it loads a feed, hour by
 * hour, until enough have died with work in hand. In the end everything is as if nothing had happened.
 * CRASH_SEED (printed) repeats the moments, CRASH_KILLS sets how many workers die.
 */
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { Dice } from '../../demo/chance.ts';
import { feed, type Snapshot } from '../../demo/feed.ts';
import { type Environment, native, startEnvironment, waitFor } from '../support/environment.ts';
import { ledger, PREFIX, rawTickets } from '../support/pipeline.ts';
import { killWorkers, startWorkerProcess, type WorkerProcess } from '../support/worker-process.ts';

const KILLS = Number(process.env['CRASH_KILLS'] ?? 30);
const SEED = Number(process.env['CRASH_SEED'] ?? Date.now() % 1_000_000);
/** What a file goes through. */
const STAGES = ['not read', 'staging', 'loading', 'finalizing', 'not archived', 'jobs left', 'done'] as const;
/** A stage takes about so long, so a death may fall into it or into one of the next. */
const LINGER_MS = 100;
/** From the start of a worker until it gets on with what it finds. */
const AWAKENING_MS = 500;
/** Deaths that one file must survive, at most: then the next is put into the bucket. */
const DEATHS_PER_FILE = 6;
const PATIENCE_MS = 60_000;

describe('kill -9', { skip: !native && 'needs a native Postgres' }, () => {
  let env: Environment;
  before(async () => {
    env = await startEnvironment();
  });
  after(async () => {
    await killWorkers();
    await env.close();
  });

  const stageOf = async ({ name }: Snapshot): Promise<(typeof STAGES)[number]> => {
    const { rows } = await env.pool.query(
      `select case
         when s.status is null or s.status = 'superseded' then 'not read'
         when s.status not in ('done', 'unchanged') then s.status
         when s.archived_at is null then 'not archived'
         when exists (select from graphile_worker.jobs where task_identifier <> 'fleettickets_maintain') then 'jobs left'
         else 'done'
       end as stage
       from (select) as one left join tickets_ops.snapshots s on s.source_key = $1`,
      [PREFIX + name],
    );
    return rows[0].stage;
  };
  const reached = async (snapshot: Snapshot, stage: (typeof STAGES)[number], worker: WorkerProcess) => {
    const isThere = async () => {
      // What killed two workers is set aside for an operator, which is this test.
      const { rows: setAside } = await env.pool.query<{ outcome: string }>(
        `select case when superseded is null then (select note from tickets_ops.retry_job(id)) else tickets_ops.cancel_job(id) end as outcome
         from tickets_ops.failed_jobs where last_error like 'Its worker died%'`,
      );
      // Its rows are in, and only its file is to be archived: the next look does.
      if (setAside.some(({ outcome }) => outcome.includes('cancelled')))
        await env.pool.query('select tickets_ops.fetch_now()');
      return STAGES.indexOf(await stageOf(snapshot)) >= STAGES.indexOf(stage);
    };
    await waitFor(`${snapshot.name} to be ${stage}`, isThere, PATIENCE_MS).catch(async (error: Error) => {
      const { rows } = await env.pool.query(
        `select (select json_agg(j) from tickets_ops.jobs j) as jobs,
           (select json_agg(w) from tickets_ops.worker_states() w where state <> 'stopped') as workers,
           (select json_agg(s) from tickets_ops.snapshots s where status not in ('done', 'unchanged')) as snapshots`,
      );
      throw new Error(
        `${error.message}; it is ${await stageOf(snapshot)}: ${JSON.stringify({ ...rows[0], log: worker.log.slice(-15) })}`,
      );
    });
  };

  test(`of ${KILLS} workers: every file is loaded once, no ticket or event is lost or doubled, nothing stays locked`, {
    timeout: 600_000,
  }, async (t) => {
    t.diagnostic(`CRASH_SEED=${SEED}`);
    const dice = new Dice(SEED);
    const loaded: Snapshot[] = [];
    const deaths: Record<string, number> = {};
    let kills = 0;
    for (const snapshot of feed({ seed: SEED, hours: 60, tickets: 6_000, openShare: 0.9, changeShare: 0.5 })) {
      if (kills >= KILLS) break;
      loaded.push(snapshot);
      await env.putObject(PREFIX + snapshot.name, snapshot.csv);
      await env.pool.query('select tickets_ops.fetch_now()');
      for (let death = 0; death < DEATHS_PER_FILE && kills < KILLS; death += 1) {
        const found = STAGES.indexOf(await stageOf(snapshot));
        const target = found + dice.below(STAGES.length - 1 - found);
        const worker = await startWorkerProcess();
        await reached(snapshot, STAGES[target] ?? 'not read', worker);
        await new Promise((resolve) => setTimeout(resolve, dice.next() * (target > found ? LINGER_MS : AWAKENING_MS)));
        worker.kill('SIGKILL');
        await worker.exited;
        const stage = await stageOf(snapshot);
        if (stage === 'done') break; // it came too late
        deaths[stage] = (deaths[stage] ?? 0) + 1;
        kills += 1;
      }
      if ((await stageOf(snapshot)) === 'done') continue;
      const survivor = await startWorkerProcess();
      await reached(snapshot, 'done', survivor);
      survivor.kill('SIGTERM');
      assert.equal(await survivor.exited, 0);
    }
    t.diagnostic(`${kills} workers died over ${loaded.length} files, when these were: ${JSON.stringify(deaths)}`);
    assert.ok(kills >= KILLS);

    const entries = await ledger(env);
    assert.deepEqual(
      entries.map(({ file, status }) => [file, status]),
      loaded.map(({ name, expected }) => [name, expected.identical ? 'unchanged' : 'done']),
    );
    for (const [n, { name, expected }] of loaded.entries()) {
      if (expected.identical) continue;
      const { identical: _, rejects, events, ...counts } = expected;
      const entry = entries[n] ?? assert.fail();
      assert.deepEqual({ ...entry, ...counts }, entry, `counts of ${name}`);
      const { rows: found } = await env.pool.query(
        'select event, count(*)::int as n from tickets.inc_events where snapshot_id = $1 group by event',
        [entry.snapshot_id],
      );
      const nothing = { opened: 0, closed: 0, reopened: 0, status_changed: 0, team_changed: 0, cluster_changed: 0 };
      assert.deepEqual(
        { ...nothing, ...Object.fromEntries(found.map(({ event, n: count }) => [event, count])) },
        events,
        `events of ${name}`,
      );
      const { rows: rejected } = await env.pool.query(
        'select line::int from tickets_ops.snapshot_rejects where snapshot_id = $1 order by line',
        [entry.snapshot_id],
      );
      assert.deepEqual(
        rejected.map(({ line }) => line),
        rejects.map(({ line }) => line),
        `rejects of ${name}`,
      );
    }
    assert.deepEqual(
      await rawTickets(env),
      Object.fromEntries([...(loaded.at(-1)?.tickets ?? [])].sort(([a], [b]) => (a < b ? -1 : 1))),
    );
    assert.deepEqual(
      await env.listKeys(),
      loaded.map(({ name }) => `${PREFIX}processed/${name}`),
    );
    for (const { name, csv } of loaded)
      assert.ok((await env.getObject(`${PREFIX}processed/${name}`)).equals(csv), name);

    const last = await startWorkerProcess();
    const nothingHeld = async () =>
      (await env.pool.query(`select from tickets_ops.jobs where state = 'running'`)).rows.length === 0;
    await waitFor('the last worker to have freed what dead ones held', nothingHeld, PATIENCE_MS);
    last.kill('SIGTERM');
    assert.equal(await last.exited, 0);
    const { rows: locked } = await env.pool.query(
      `select task_identifier as name from graphile_worker.jobs where locked_at is not null
       union all select queue_name from graphile_worker._private_job_queues where locked_at is not null`,
    );
    assert.deepEqual(locked, []);
    // Draining knows no schedule: a worker adds upkeep when it starts and every two minutes, so maybe in its last moment.
    assert.deepEqual(await env.runJobs(), []);
    const { rows } = await env.pool.query(
      `select
         (select count(*)::int from graphile_worker.jobs) as jobs,
         (select count(*)::int from tickets_ops.snapshot_rows) as rows,
         (select count(*)::int from tickets_ops.snapshot_batches) as batches`,
    );
    assert.deepEqual(rows, [{ jobs: 0, rows: 0, batches: 0 }]);
  });
});
