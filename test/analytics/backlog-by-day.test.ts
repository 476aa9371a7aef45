/** The backlog by day: recorded at the end of every look at the bucket, with clocks as of the snapshot's own time. */
import assert from 'node:assert/strict';
import { after, before, beforeEach, describe, test } from 'node:test';
import { type Environment, startEnvironment } from '../support/environment.ts';
import { addFetch, csvOf, fetchNow, keyOf, PREFIX } from '../support/pipeline.ts';

const open = (n: number, created: string, more: Record<string, string> = {}) => ({
  ticket_id: `WOT${n}`,
  is_actionable: 'true',
  created_at_service: created,
  cluster: 'Kilimani',
  region: 'Nairobi',
  assigned_team: 'A',
  ...more,
});

describe('the backlog by day', () => {
  let env: Environment;
  before(async () => {
    env = await startEnvironment();
  });
  after(() => env.close());
  beforeEach(() => env.reset());
  const ask = async (sql: string) => (await env.pool.query(sql)).rows;
  const put = async (key: string, records: Record<string, string>[]) => {
    await env.putObject(key, csvOf(records));
    assert.deepEqual(await fetchNow(env), []);
  };
  const backlog = (from: string, to: string, by = 'null') =>
    ask(
      `select day::text, value, open::int, opened::int, closed::int, observed from tickets.inc_backlog_daily('${from}', '${to}', ${by})`,
    );

  test('ages and SLA states are those at the snapshot’s own time, with their borders', async () => {
    // At 12:00 on 15 June: 0 h, 24 h, 40 h, 48 h, 7 days, 30 days; none; in the future.
    await put(keyOf(12), [
      open(1, '2026-06-15 12:00:00'),
      open(2, '2026-06-14 12:00:00'),
      open(3, '2026-06-13 20:00:00'),
      open(4, '2026-06-13 12:00:00'),
      open(5, '2026-06-08 12:00:00'),
      open(6, '2026-05-16 12:00:00'),
      open(7, ''),
      open(8, '2026-06-15 13:00:00'),
      open(9, '2026-06-15 11:00:00', { is_actionable: 'false' }),
    ]);
    assert.deepEqual(
      await ask(
        `select day::text, cluster, region, assigned_team, open, open_breached, open_at_risk, open_unknown, aged_0_24h, aged_24_48h,
           aged_2_7d, aged_7_30d, aged_over_30d, opened, reopened, closed, source
         from tickets.inc_daily where open > 0`,
      ),
      [
        {
          day: '2026-06-15',
          cluster: 'Kilimani',
          region: 'nairobi',
          assigned_team: 'A',
          open: 8,
          open_breached: 3,
          open_at_risk: 1,
          open_unknown: 1,
          aged_0_24h: 2,
          aged_24_48h: 2,
          aged_2_7d: 1,
          aged_7_30d: 1,
          aged_over_30d: 1,
          opened: 8,
          reopened: 0,
          closed: 0,
          source: 'state',
        },
      ],
    );
  });

  test('an unchanged file lets the clocks run; a look that finds none is no look', async () => {
    const records = [open(1, '2026-06-14 12:00:00')];
    await put(keyOf(12), records);
    const breached = () =>
      ask('select day::text, open_breached, snapshot_at from tickets.inc_daily where open > 0 order by 1');
    await put(`${PREFIX}2026-06-16T11-59-59.csv`, records);
    await put(`${PREFIX}2026-06-16T12-00-00.csv`, records);
    assert.deepEqual(await breached(), [
      { day: '2026-06-15', open_breached: 0, snapshot_at: new Date('2026-06-15T12:00:00+03:00') },
      { day: '2026-06-16', open_breached: 1, snapshot_at: new Date('2026-06-16T12:00:00+03:00') },
    ]);
    await addFetch(env);
    assert.deepEqual(await env.runJobs(), []);
    assert.equal((await breached()).length, 2);
    assert.deepEqual(await backlog('2026-06-14', '2026-06-18'), [
      { day: '2026-06-14', value: null, open: null, opened: 0, closed: 0, observed: false },
      { day: '2026-06-15', value: null, open: 1, opened: 1, closed: 0, observed: true },
      { day: '2026-06-16', value: null, open: 1, opened: 0, closed: 0, observed: true },
      { day: '2026-06-17', value: null, open: 1, opened: 0, closed: 0, observed: false },
    ]);
  });

  test('a day on which nothing is open was looked at all the same', async () => {
    await put(keyOf(7), [open(1, '2026-06-14 12:00:00')]);
    await put(keyOf(8), [open(1, '2026-06-14 12:00:00', { is_actionable: 'false' })]);
    assert.deepEqual(await backlog('2026-06-15', '2026-06-16'), [
      { day: '2026-06-15', value: null, open: 0, opened: 1, closed: 1, observed: true },
    ]);
    // Carried forward is what is open, not what came and went that day.
    assert.deepEqual(await backlog('2026-06-16', '2026-06-17', `'team'`), []);
    await put(`${PREFIX}2026-06-16T07-00-00.csv`, [open(2, '2026-06-14 12:00:00', { is_actionable: 'false' })]);
    assert.deepEqual(await backlog('2026-06-16', '2026-06-17'), [
      { day: '2026-06-16', value: null, open: 0, opened: 0, closed: 0, observed: true },
    ]);
    assert.deepEqual(await backlog('2026-06-16', '2026-06-17', `'team'`), []);
  });

  test('a ticket that a closing team never had open is credited to it, and left the backlog of another', async () => {
    await put(keyOf(7), [open(1, '2026-06-14 12:00:00')]);
    await put(`${PREFIX}2026-06-16T07-00-00.csv`, [
      open(1, '2026-06-14 12:00:00', { is_actionable: 'false', assigned_team: 'B', closed_at: '2026-06-15 20:00:00' }),
    ]);
    assert.deepEqual(
      (await backlog('2026-06-15', '2026-06-17', `'team'`)).filter(({ day }) => day === '2026-06-16'),
      [
        { day: '2026-06-16', value: 'A', open: 0, opened: 0, closed: 0, observed: true },
        { day: '2026-06-16', value: 'B', open: 0, opened: 0, closed: 1, observed: true },
      ],
    );
    assert.deepEqual(
      await ask('select assigned_team, team_before, handover_at_close, reassignments from tickets.inc_closures'),
      [{ assigned_team: 'B', team_before: 'A', handover_at_close: true, reassignments: 1 }],
    );
  });

  test('a snapshot that fails half-way leaves a day that tells what it had changed', async () => {
    await put(keyOf(7), [open(1, '2026-06-14 12:00:00')]);
    await ask(
      `insert into tickets_ops.snapshots (dataset, source_key, snapshot_at, status, origin)
       values ('inc', 'half.csv', '2026-06-15 19:00:00+03', 'staging', 'file')`,
    );
    await ask(
      `update tickets_ops.snapshots set status = 'loading', batches_total = 2, batches_done = 1, load_began_at = now() where source_key = 'half.csv'`,
    );
    await ask(`update tickets.inc set raw = raw || '{"is_actionable": "false"}'`);
    await ask(
      `insert into tickets.inc_events (ticket_id, event, old_value, snapshot_id, snapshot_at, assigned_team, cluster, region)
       select 'WOT1', 'closed', '', snapshot_id, snapshot_at, 'A', 'Kilimani', 'nairobi' from tickets_ops.snapshots where source_key = 'half.csv'`,
    );
    await ask(
      `select tickets_ops.fail_snapshot(snapshot_id, 'a disk was full') from tickets_ops.snapshots where source_key = 'half.csv'`,
    );
    assert.deepEqual(await backlog('2026-06-15', '2026-06-16'), [
      { day: '2026-06-15', value: null, open: 0, opened: 1, closed: 1, observed: true },
    ]);
  });

  test('values of any length are recorded, cut', async () => {
    const long = '🛰'.repeat(5_000);
    await put(keyOf(7), [
      open(1, '2026-06-14 12:00:00', { assigned_team: long, cluster: long, region: long, owner: long }),
    ]);
    await put(keyOf(8), [
      open(1, '2026-06-14 12:00:00', {
        assigned_team: long,
        cluster: long,
        region: long,
        owner: long,
        is_actionable: 'false',
        normalized_status: long,
        closed_at: '2026-06-15 07:30:00',
      }),
      open(2, '2026-06-14 12:00:00', { assigned_team: long }),
    ]);
    assert.deepEqual(
      await ask(
        'select length(assigned_team) as team, length(cluster) as cluster, closed from tickets.inc_daily where closed > 0',
      ),
      [{ team: 100, cluster: 100, closed: 1 }],
    );
    assert.deepEqual(await ask('select count(*)::int as n from tickets.inc_closures'), [{ n: 1 }]);
    assert.deepEqual(
      await ask(`select closed::int, open_now::int from tickets.inc_team_scorecard('2026-06-15', '2026-06-16')`),
      [{ closed: 1, open_now: 1 }],
    );
  });
});
