/** Days, weeks and months are those of Nairobi; questions that make no sense are refused with the words that do. */
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { type Environment, startEnvironment } from '../support/environment.ts';
import { csvOf, fetchNow, keyOf } from '../support/pipeline.ts';

/** Closed in the last second of 31 December 2020 in Nairobi, in the first of 2021, and so on: the feed's times are Nairobi's. */
const CLOSED = [
  '2020-12-27 23:59:59',
  '2020-12-28 00:00:00',
  '2020-12-31T20:59:59Z',
  '2020-12-31T21:00:00Z',
  '2021-01-03 23:59:59',
  '2021-01-04 00:00:00',
];

describe('periods', () => {
  let env: Environment;
  before(async () => {
    env = await startEnvironment();
    await env.putObject(
      keyOf(12),
      csvOf(CLOSED.map((closed_at, n) => ({ ticket_id: `WOT${n}`, is_actionable: 'false', closed_at }))),
    );
    assert.deepEqual(await fetchNow(env), []);
  });
  after(() => env.close());
  const ask = async (sql: string) => (await env.pool.query(sql)).rows;
  const closed = async (from: string, to: string, step: string) =>
    (
      await ask(
        `select period::text, closed::int from tickets.inc_flow('${from}', '${to}', '${step}') where closed > 0`,
      )
    ).map((row) => [row.period, row.closed]);

  test('a day ends at 21:00Z', async () => {
    assert.deepEqual(
      await ask(
        `select tickets.eat_day('2020-12-31 20:59:59Z')::text as before, tickets.eat_day('2020-12-31 21:00:00Z')::text as after,
           tickets.eat_midnight('2021-01-01') = '2020-12-31 21:00:00Z' as midnight`,
      ),
      [{ before: '2020-12-31', after: '2021-01-01', midnight: true }],
    );
    assert.deepEqual(await closed('2020-12-01', '2021-02-01', 'day'), [
      ['2020-12-27', 1],
      ['2020-12-28', 1],
      ['2020-12-31', 1],
      ['2021-01-01', 1],
      ['2021-01-03', 1],
      ['2021-01-04', 1],
    ]);
  });

  test('ISO week 53 begins on Monday, 28 December 2020', async () => {
    assert.deepEqual(await closed('2020-12-21', '2021-01-11', 'week'), [
      ['2020-12-21', 1],
      ['2020-12-28', 4],
      ['2021-01-04', 1],
    ]);
    assert.deepEqual(await ask(`select extract(week from date '2020-12-28')::int as week`), [{ week: 53 }]);
  });

  test('months are as long as they are', async () => {
    assert.deepEqual(await closed('2020-12-01', '2021-02-01', 'month'), [
      ['2020-12-01', 3],
      ['2021-01-01', 3],
    ]);
    assert.deepEqual(
      (await ask(`select period::text from tickets.inc_flow('2024-02-01', '2024-04-01', 'month')`)).map(
        (r) => r.period,
      ),
      ['2024-02-01', '2024-03-01'],
    );
  });

  test('a range that begins or ends within a period counts what is in the range', async () => {
    assert.deepEqual(await closed('2021-01-01', '2021-01-04', 'week'), [['2020-12-28', 2]]);
  });

  test('an empty range has no period', async () => {
    for (const step of ['day', 'week', 'month']) {
      const range = `'2021-01-06', '2021-01-06', '${step}'`;
      assert.deepEqual(await ask(`select * from tickets.inc_flow(${range})`), [], step);
      assert.deepEqual(await ask(`select * from tickets.inc_repair_times(${range})`), [], step);
    }
    assert.deepEqual(await ask(`select * from tickets.inc_backlog_daily('2021-01-06', '2021-01-06')`), []);
  });

  test('what makes no sense is refused, with the words that do', async () => {
    const refused = (call: string, reason: RegExp) => assert.rejects(ask(`select * from ${call}`), reason);
    await refused(
      `tickets.inc_flow('2021-01-01', '2021-02-01', 'hour')`,
      /p_step is 'hour': choose day, week or month/,
    );
    await refused(
      `tickets.inc_flow('2021-01-01', '2021-02-01', 'day', 'vehicle')`,
      /p_by is 'vehicle': choose team, cluster, region, owner, status, or NULL/,
    );
    await refused(
      `tickets.inc_backlog_daily('2021-01-01', '2021-02-01', 'owner')`,
      /choose team, cluster, region, or NULL/,
    );
    await refused(`tickets.inc_repair_times('2021-01-01', '2021-02-01', null)`, /p_step is NULL/);
    await refused(`tickets.inc_time_to_close('2021-01-01', 'infinity')`, /both must be finite/);
    await refused(
      `tickets.inc_backlog_daily('2021-02-01', '2021-01-01')`,
      /p_from \(2021-02-01\) is after p_to \(2021-01-01\)/,
    );
    await refused(`tickets.inc_flow('0001-01-01', '9999-01-01')`, /are more than 100 years apart/);
    await refused(`tickets.inc_team_scorecard(null, '2021-02-01')`, /both are needed/);
  });
});
