/** Analytics where it needs a real server: deaths between the batches and the end, two looks at once, rights, plans. */
import assert from 'node:assert/strict';
import { after, before, beforeEach, describe, test } from 'node:test';
import type pg from 'pg';
import { feed } from '../../demo/feed.ts';
import { type Environment, native, startEnvironment, waitFor } from '../support/environment.ts';
import { PREFIX } from '../support/pipeline.ts';
import { killWorkers, startWorkerProcess } from '../support/worker-process.ts';

const DAY_LOCK = 'tickets_ops.day_lock()';

describe('analytics on a real server', { skip: !native && 'needs a native Postgres' }, () => {
  let env: Environment;
  before(async () => {
    env = await startEnvironment();
  });
  beforeEach(() => env.reset());
  after(async () => {
    await killWorkers();
    await env.close();
  });
  const ask = async (sql: string, values: unknown[] = []) => (await env.pool.query(sql, values)).rows;
  const daily = () =>
    ask(
      'select * from tickets.inc_daily where open + opened + reopened + closed > 0 order by day, cluster, region, assigned_team',
    );

  test('kill -9 between the last batch and the end of a snapshot changes no day', async () => {
    const snapshots = [...feed({ seed: 4, hours: 2, tickets: 300 })];
    const lock = await env.pool.connect();
    let deaths = 0;
    for (const { name, csv } of snapshots) {
      await env.putObject(PREFIX + name, csv);
      await ask('select tickets_ops.fetch_now()');
      // Completing a snapshot waits for the day's lock: there its worker dies.
      await lock.query(`select pg_advisory_lock(${DAY_LOCK})`);
      const worker = await startWorkerProcess();
      await waitFor('the day to be recorded', async () => {
        const waiting = await ask(
          `select from pg_locks l join tickets_ops.snapshots s on s.source_key = $1 and s.status = 'finalizing'
           where l.locktype = 'advisory' and not l.granted and (l.classid::bigint << 32) + l.objid::bigint = ${DAY_LOCK}`,
          [PREFIX + name],
        );
        return waiting.length;
      });
      worker.kill('SIGKILL');
      await worker.exited;
      deaths += 1;
      await lock.query(`select pg_advisory_unlock(${DAY_LOCK})`);
      const survivor = await startWorkerProcess();
      await waitFor(
        `${name} to be done`,
        async () => {
          const done = await ask(`select from tickets_ops.snapshots where source_key = $1 and status = 'done'`, [
            PREFIX + name,
          ]);
          return done.length;
        },
        90_000,
      );
      survivor.kill('SIGTERM');
      await survivor.exited;
    }
    lock.release();
    assert.equal(deaths, 2);

    const [{ opened, closed, reopened }] = await ask(
      'select sum(opened)::int as opened, sum(closed)::int as closed, sum(reopened)::int as reopened from tickets.inc_daily',
    );
    const events = snapshots.map(({ expected }) => expected.events);
    const total = (name: 'opened' | 'closed' | 'reopened') => events.reduce((sum, hour) => sum + hour[name], 0);
    const [{ first_closed: firstClosed }] = await ask(
      `select count(*)::int as first_closed from tickets.inc_events where event = 'closed' and old_value is null`,
    );
    assert.deepEqual([opened, closed, reopened], [total('opened'), total('closed') - firstClosed, total('reopened')]);
    const [{ open }] = await ask('select sum(open)::int as open from tickets.inc_daily');
    assert.equal(open, (await ask('select from tickets.inc where is_actionable')).length);
    const recorded = await daily();
    await ask(`select tickets_ops.record_day('inc')`);
    assert.deepEqual(await daily(), recorded);
  });

  test('two looks that record the same day at once take turns', async () => {
    await ask(`insert into tickets.import_meta values ('inc', '{"snapshot_at": "2026-06-15T12:00:00+03:00"}')`);
    await ask(
      `insert into tickets.inc (ticket_id, raw) select 'WOT' || i, jsonb_build_object('is_actionable', 'true', 'cluster', 'c' || i % 7) from generate_series(1, 100) i`,
    );
    const [one, two] = [await env.pool.connect(), await env.pool.connect()];
    await one.query('begin');
    await one.query(`select tickets_ops.record_day('inc')`);
    const second = two.query(`select tickets_ops.record_day('inc')`);
    await waitFor('the second to wait', async () => {
      return (await ask(`select from pg_locks where locktype = 'advisory' and not granted`)).length;
    });
    await one.query('commit');
    await second;
    one.release();
    two.release();
    assert.deepEqual(await ask('select sum(open)::int as open from tickets.inc_daily'), [{ open: 100 }]);
  });

  describe('rights', () => {
    const as = async (role: string, use: (client: pg.PoolClient) => Promise<unknown>) => {
      const client = await env.pool.connect();
      try {
        await client.query('begin');
        await client.query(`set local role ${role}`);
        await use(client);
      } finally {
        await client.query('rollback');
        client.release();
      }
    };

    test('a reader reads all of analytics', async () => {
      for (const role of ['tickets_reader', 'tickets_operator']) {
        await as(role, async (client) => {
          for (const view of ['inc_closures', 'inc_ageing', 'inc_clock', 'inc_daily'])
            await client.query(`select * from tickets.${view}`);
          for (const call of [
            'inc_flow',
            'inc_repair_times',
            'inc_time_to_close',
            'inc_backlog_daily',
            'inc_team_scorecard',
          ])
            await client.query(`select * from tickets.${call}('2026-06-01', '2026-07-01')`);
          await client.query('select tickets.settled_through(), tickets.reporting_lag(), tickets.freshness()');
          await client.query(
            `select reporting.fn_inc_trends('2026-06-01', '2026-07-01'), reporting.fn_inc_dashboard()`,
          );
        });
      }
    });

    test('nobody records a day but the pipeline, and the dashboard’s functions are for those who were given them', async () => {
      await env.pool.query(
        `do $$ begin create role analytics_nobody; exception when duplicate_object then null; end $$`,
      );
      await env.pool.query('grant usage on schema reporting to analytics_nobody');
      for (const call of [`reporting.fn_inc_trends('2026-06-01', '2026-07-01')`, 'reporting.fn_inc_dashboard()'])
        await as('analytics_nobody', (client) => assert.rejects(client.query(`select ${call}`), /permission denied/));
      for (const call of [`tickets_ops.record_day('inc')`, 'tickets_ops.rebuild_days()'])
        await as('tickets_operator', (client) => assert.rejects(client.query(`select ${call}`), /permission denied/));
      await env.pool.query('revoke usage on schema reporting from analytics_nobody');
      await env.pool.query('drop role analytics_nobody');
    });
  });

  test('no question takes for ever while the tables have no statistics, as after a first load', async () => {
    for (const name of ['inc', 'inc_events']) await ask(`alter table tickets.${name} set (autovacuum_enabled = false)`);
    await ask(
      `insert into tickets.inc_events (ticket_id, event, new_value, snapshot_id, snapshot_at, cluster, assigned_team, created_at_service, closed_at)
       select 'WOT' || n, 'closed', 'Closed', 1, now(), 'Cluster ' || n % 40, 'Team ' || n % 100, now() - interval '20 days', now() - interval '1 hour'
       from generate_series(1, 30000) as n`,
    );
    await ask(
      `insert into tickets.inc (ticket_id, raw)
       select ticket_id, jsonb_build_object('is_actionable', 'false', 'created_at_service', to_char(created_at_service, 'YYYY-MM-DD HH24:MI:SS'))
       from tickets.inc_events`,
    );
    const year = `tickets.eat_day(now()) - 364, tickets.eat_day(now()) + 1`;
    // A comparison of each ticket with each closing takes a minute.
    for (const by of ['null', `'team'`, `'cluster'`])
      for (const call of [
        `inc_flow(${year}, 'week', ${by})`,
        `inc_repair_times(${year}, 'week', ${by})`,
        `inc_time_to_close(${year}, ${by})`,
        `inc_backlog_daily(${year}, ${by})`,
        `inc_team_scorecard(${year})`,
      ])
        await ask(`set statement_timeout = '5s'; select count(*) from tickets.${call}; reset statement_timeout`);
    for (const name of ['inc', 'inc_events']) await ask(`alter table tickets.${name} reset (autovacuum_enabled)`);
  });

  test('a month is read by index', async () => {
    await ask(
      `insert into tickets.inc (ticket_id, raw)
       select 'WOT' || i, jsonb_build_object('ticket_id', 'WOT' || i, 'is_actionable', 'false', 'created_at_service', at, 'closed_at', at)
       from generate_series(1, 20000) i cross join lateral (select to_char(timestamp '2025-01-01' + i * interval '30 minutes', 'YYYY-MM-DD HH24:MI:SS')) as c (at)`,
    );
    await ask(
      `insert into tickets.inc_events (ticket_id, event, snapshot_at, closed_at, assigned_team)
       select ticket_id, 'closed', closed_at + interval '2 days', closed_at, 'Team ' || length(ticket_id) from tickets.inc`,
    );
    await ask('vacuum analyze tickets.inc');
    await ask('vacuum analyze tickets.inc_events');
    const plan = async (query: string) => (await ask(`explain ${query}`)).map((row) => row['QUERY PLAN']).join('\n');
    const closings = await plan(
      `select assigned_team, count(*) from tickets.inc_closures where closed_at >= '2025-05-01' and closed_at < '2025-06-01' group by 1`,
    );
    assert.match(closings, /inc_events_closed_at/);
    assert.doesNotMatch(closings, /Seq Scan/);
    const clocks = await plan(
      `select count(*) from tickets.inc_clock where started_at >= '2025-05-01' and started_at < '2025-06-01'`,
    );
    assert.match(clocks, /Index Only Scan using inc_created_at_service/);
    assert.doesNotMatch(clocks, /Seq Scan/);
    // The indexes' conditions are written out: the functions must come to the same.
    for (const [condition, index] of [
      [`ticket_id = 'WOT7' and tickets.is_first_sight(event, old_value)`, 'inc_events_first'],
      [`snapshot_at < '2020-01-01' and tickets.changed_backlog(event, old_value)`, 'inc_events_backlog'],
    ])
      assert.match(await plan(`select snapshot_at from tickets.inc_events where ${condition}`), new RegExp(`${index}`));
  });
});
