/** What dashboard_api calls beside the map: trends, and the dashboard of what is open and was closed in a window. */
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { eat } from '../../demo/ticket.ts';
import { type Environment, startEnvironment } from '../support/environment.ts';
import { DAY, HOUR } from '../support/lifecycles.ts';
import { csvOf, fetchNow, PREFIX } from '../support/pipeline.ts';

const now = Date.now();
/** Midnight in Nairobi. */
const today = Math.floor((now + 3 * HOUR) / DAY) * DAY - 3 * HOUR;
const ticket = (n: number, open: boolean, closed: number | null, more: Record<string, string> = {}) => ({
  ticket_id: `WOT${n}`,
  is_actionable: String(open),
  normalized_status: open ? 'Open' : 'Closed',
  created_at_service: eat(now - 60 * HOUR),
  closed_at: closed === null ? '' : eat(closed),
  mttr: open ? '' : '2',
  cluster: 'Kilimani',
  assigned_team: 'A',
  latitude: '-1.29',
  longitude: '36.8',
  ...more,
});

describe('the dashboard functions', () => {
  let env: Environment;
  before(async () => {
    env = await startEnvironment();
    await env.putObject(
      `${PREFIX}${eat(now - 60_000)
        .replace(' ', 'T')
        .replaceAll(':', '-')}.csv`,
      csvOf([
        ticket(1, true, null),
        ticket(2, true, null, { cluster: 'Nyali', latitude: '', longitude: '' }),
        ticket(3, false, today),
        ticket(4, false, today - 1000),
        ticket(5, false, today - 40 * DAY, { created_at_service: '' }),
        ticket(6, false, null),
        ticket(7, false, today + 1000, { cluster: 'Nyali', normalized_status: 'Resolved' }),
      ]),
    );
    assert.deepEqual(await fetchNow(env), []);
  });
  after(() => env.close());
  const dashboard = async (call: string) =>
    (await env.pool.query(`select reporting.fn_inc_dashboard(${call}) as d`)).rows[0].d;
  const ids = ({ features }: { features: { id: string }[] }) => features.map(({ id }) => id).sort();

  test('today: what is open, and what was closed since midnight in Nairobi', async () => {
    const { window, open, closed, metrics, freshness } = await dashboard('');
    assert.deepEqual([window.name, Date.parse(window.from), Date.parse(window.to)], ['today', today, today + DAY]);
    assert.deepEqual([open.type, ids(open), ids(closed)], ['FeatureCollection', ['WOT1'], ['WOT3', 'WOT7']]);
    const [feature] = open.features;
    assert.deepEqual(feature.geometry, { type: 'Point', coordinates: [36.8, -1.29] });
    assert.equal(feature.properties.sla_state, 'breached');
    assert.ok(!('sla_state' in closed.features[0].properties) && !('raw' in feature.properties));
    assert.deepEqual(metrics, {
      open: 2,
      open_mapped: 1,
      open_breached: 2,
      open_at_risk: 0,
      open_unknown: 0,
      open_oldest_hours: metrics.open_oldest_hours,
      closed: 2,
      closed_mapped: 2,
      closed_mttr_median: null,
      closed_within_48h_pct: metrics.closed_within_48h_pct,
      closed_source_compliant_pct: null,
    });
    assert.ok(freshness.age_minutes >= 1); // a minute when the file was written
  });

  test('properties are those of the map', async () => {
    const { rows } = await env.pool.query(`select reporting.fn_tickets_for_map(false) -> 'features' as features`);
    const { open, closed } = await dashboard(`p_window => 'month'`);
    for (const feature of [...open.features, ...closed.features]) {
      assert.deepEqual(
        Object.keys(feature.properties).sort(),
        Object.keys(rows[0].features.find((f: { id: string }) => f.id === feature.id).properties).sort(),
      );
    }
  });

  test('filters concern what is open, what was closed and the figures', async () => {
    const { open, closed, metrics } = await dashboard(`p_cluster => 'NYALI', p_window => 'today'`);
    assert.deepEqual([ids(open), ids(closed), metrics.open, metrics.closed], [[], ['WOT7'], 1, 1]);
    const byStatus = await dashboard(`p_status => 'Closed'`);
    assert.deepEqual([byStatus.metrics.open, ids(byStatus.closed)], [0, ['WOT3']]);
  });

  test('a bound makes the window custom; a side without one is open', async () => {
    const at = (time: number) => `'${new Date(time).toISOString()}'`;
    const since = await dashboard(`p_window => 'week', p_from => ${at(today - 1000)}`);
    assert.deepEqual(
      [since.window.name, since.window.to, ids(since.closed)],
      ['custom', null, ['WOT3', 'WOT4', 'WOT7']],
    );
    const until = await dashboard(`p_to => ${at(today)}`);
    assert.deepEqual([until.window.from, ids(until.closed)], [null, ['WOT4', 'WOT5']]);
    const both = await dashboard(`p_from => ${at(today - 1000)}, p_to => ${at(today)}`);
    assert.deepEqual([ids(both.closed), ids(both.open)], [['WOT4'], ['WOT1']]);
  });

  test('weeks begin on Monday, months on their first day', async () => {
    for (const [name, length] of [
      ['week', 7],
      ['month', 28],
    ] as const) {
      const { window } = await dashboard(`p_window => '${name}'`);
      const from = new Date(Date.parse(window.from) + 3 * HOUR);
      assert.equal(name === 'week' ? from.getUTCDay() : from.getUTCDate(), 1);
      assert.equal(from.getTime() % DAY, 0);
      assert.ok(Date.parse(window.to) - Date.parse(window.from) >= length * DAY);
    }
  });

  test('a window that there is not is refused', async () => {
    await assert.rejects(dashboard(`p_window => 'year'`), /choose today, week, month or custom/);
    await assert.rejects(dashboard(`p_from => '2026-02-01', p_to => '2026-01-01'`), /is after p_to/);
    await assert.rejects(dashboard(`p_window => 'custom'`), /needs p_from, p_to or both/);
    await assert.rejects(dashboard(`p_from => '2026-06-02', p_to => '2026-06-01'`), /p_from \(.*\) is after p_to/);
  });

  test('trends are the rows of the analytic functions', async () => {
    const { rows } = await env.pool.query(
      `select reporting.fn_inc_trends(d - 3, d + 1, 'day', 'cluster') as trends,
         (select count(*)::int from tickets.inc_flow(d - 3, d + 1, 'day', 'cluster')) as flow,
         (select count(*)::int from tickets.inc_backlog_daily(d - 3, d + 1, 'cluster')) as backlog,
         reporting.fn_inc_trends(d, d + 1, 'week', 'owner') -> 'backlog' as none
       from tickets.eat_day(now()) as d`,
    );
    const [{ trends, flow, backlog, none }] = rows;
    assert.deepEqual([trends.flow.length, trends.backlog.length, trends.step, none], [flow, backlog, 'day', null]);
    assert.ok(flow > 0 && backlog > 0 && trends.repair_times.length > 0 && trends.settled_through && trends.freshness);
    await assert.rejects(
      env.pool.query(`select reporting.fn_inc_trends('2026-01-01', '2026-02-01', 'year')`),
      /choose day/,
    );
  });
});
