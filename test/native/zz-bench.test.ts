import { execFileSync } from 'node:child_process';
import { after, before, test } from 'node:test';
import { type Environment, startEnvironment } from '../support/environment.ts';

let env: Environment;
before(async () => {
  env = await startEnvironment();
});
after(() => env.close());

test('bench', { timeout: 500_000 }, async () => {
  const q = (sql: string) => env.pool.query(sql);
  await q(`alter table tickets_ops.snapshots disable trigger user`);
  await q(`insert into tickets_ops.snapshots (dataset, source_key, source_etag, source_last_modified, snapshot_at, status, error, load_began_at, loaded_at, archived_at, listed_at, progress_at, content_through)
    select 'inc', 'automations/inc/' || n || '.csv', 'e' || n, now() - n * interval '1 hour', now() - n * interval '1 hour',
      case when n % 50 = 0 then 'failed' when n % 3 = 0 then 'unchanged' else 'done' end, case when n % 50 = 0 then 'broken' end,
      case when n % 50 <> 0 then now() - n * interval '1 hour' end, now() - n * interval '1 hour', now(), now() - n * interval '1 hour', now() - n * interval '1 hour', now() - (n + 40) * interval '1 hour'
    from generate_series(1, 20000) n`);
  await q(`alter table tickets_ops.snapshots enable trigger user`);
  await q(
    `select tickets_ops.enqueue_all(array_agg('geocode_location'::text), array_agg('{"location_name":"x","cluster":"y"}'::json), array_agg('k' || n), array_agg(now()), array_agg(30)) from generate_series(1, 100000) n`,
  );
  await q(`insert into tickets_ops.settings (name, pool_id, value) values ('INC_FEED', 'x', 'snapshots')`);
  await q('vacuum analyze');
  const statements = [
    `select * from tickets_ops.high_water_mark('inc')`,
    `select tickets_ops.is_below_mark('inc', now(), now(), 'x')`,
    `select * from tickets_ops.known_versions('inc', array(select 'automations/inc/' || n || '.csv' from generate_series(1, 1000) n))`,
    `select * from tickets_ops.snapshot_problems('inc')`,
    `select count(*) from tickets_ops.held('inc')`,
    `select count(*) from tickets_ops.content_lag('inc')`,
    `select * from tickets_ops.job_problems()`,
    `select * from tickets_ops.health`,
    `select count(*) from tickets_ops.metrics`,
    `select * from tickets_ops.queued_jobs() where key = 'k77'`,
    `select * from tickets_ops.described_jobs() where id = 77`,
    `select count(*) from tickets_ops.jobs`,
  ];
  const changes = [
    `select * from tickets_ops.blocking_file('inc')`,
    `select tickets_ops.is_blocked('inc', now(), now(), 'x')`,
  ];
  const measure = async (what: string) => {
    for (const sql of [...statements, 'FEED', ...changes]) {
      if (sql === 'FEED') {
        await q(`update tickets_ops.settings set value = 'changes' where name = 'INC_FEED'`);
        continue;
      }
      const times: number[] = [];
      for (let n = 0; n < 5; n += 1) {
        const t = performance.now();
        await q(sql);
        times.push(performance.now() - t);
      }
      console.log(what, Math.min(...times).toFixed(1), 'ms', sql.slice(0, 70));
    }
    await q(`update tickets_ops.settings set value = 'snapshots' where name = 'INC_FEED'`);
  };
  await measure('new');
  await q(
    'drop function tickets_ops.described_jobs(); drop function tickets_ops.queued_jobs(boolean); drop function tickets_ops.known_versions(text, text[])',
  );
  for (const file of [
    'jobs/worker-schema',
    'snapshots/ledger',
    'operations/problems',
    'snapshots/high-water-mark',
    'snapshots/held',
    'snapshots/feed-of-changes',
    'jobs/job-views',
    'operations/stale-feed',
    'operations/problems',
    'operations/health',
    'operations/storage',
    'operations/metrics',
  ])
    await q(
      execFileSync('git', ['show', `a028ba3:migrations/fixtures/${file}.sql`])
        .toString()
        .replaceAll(':WORKER_SCHEMA', 'graphile_worker'),
    );
  await measure('old');
});
