/** Time to close by Kaplan-Meier against a table worked by hand, and against the plain quantile where nothing is open. */
import assert from 'node:assert/strict';
import { after, before, beforeEach, describe, test } from 'node:test';
import { eat } from '../../demo/ticket.ts';
import { type Environment, startEnvironment } from '../support/environment.ts';
import { HOUR } from '../support/lifecycles.ts';
import { csvOf, fetchNow, keyOf } from '../support/pipeline.ts';

/** The only snapshot; with no closings to measure, what is before 48 h earlier is settled. */
const SNAPSHOT = Date.parse('2026-06-15T12:00:00+03:00');
const SETTLED = SNAPSHOT - 48 * HOUR;

describe('tickets.inc_time_to_close', () => {
  let env: Environment;
  before(async () => {
    env = await startEnvironment();
  });
  after(() => env.close());
  beforeEach(() => env.reset());

  /** Tickets that closed so many hours after their clock started, and such as were open for so long when the past was settled. */
  const load = async (closed: number[], open: number[], extra: Record<string, string>[] = []) => {
    const record = (id: number, created: number, end: number | null) => ({
      ticket_id: `WOT${id}`,
      is_actionable: String(end === null),
      created_at_service: eat(created),
      closed_at: end === null ? '' : eat(end),
      cluster: 'Kilimani',
    });
    const start = SETTLED - 100 * HOUR;
    await env.putObject(
      keyOf(12),
      csvOf([
        ...closed.map((hours, n) => record(100 + n, start + n * HOUR, start + (n + hours) * HOUR)),
        ...open.map((hours, n) => record(200 + n, SETTLED - hours * HOUR, null)),
        ...extra,
      ]),
    );
    assert.deepEqual(await fetchNow(env), []);
  };
  const ask = async (from = '2026-06-01', to = '2026-06-14') => {
    const { rows } = await env.pool.query(
      `select opened::int, closed::int, still_open::int, clock_known_pct::float8, within_24h_pct::float8, within_48h_pct::float8,
         median_hours::float8, p80_hours::float8, p95_hours::float8, naive_mean_hours::float8, naive_median_hours::float8, through
       from tickets.inc_time_to_close($1, $2)`,
      [from, to],
    );
    assert.equal(rows.length, 1);
    return rows[0];
  };

  test('is the curve of a table worked by hand', async () => {
    // hours  at risk  closed  stay open
    //   2       8       1     7/8                   = 0.875
    //   3       7       -                             (open for 3 h)
    //   4       6       2     0.875 × 4/6           = 0.583
    //   6       4       -                             (open for 6 h)
    //   8       3       1     0.583 × 2/3           = 0.389
    //  10       2       1     0.389 × 1/2           = 0.194
    //  30       1       -                             (open for 30 h)
    await load([2, 4, 4, 8, 10], [3, 6, 30]);
    assert.deepEqual(await ask(), {
      opened: 8,
      closed: 5,
      still_open: 3,
      clock_known_pct: 100,
      within_24h_pct: 80.6,
      within_48h_pct: null, // nobody was watched for so long
      median_hours: 8,
      p80_hours: 10,
      p95_hours: null, // not reached
      naive_mean_hours: 5.6,
      naive_median_hours: 4,
      through: new Date(SETTLED),
    });
  });

  test('is the plain quantile where nothing is open', async () => {
    const hours = Array.from({ length: 20 }, (_, n) => ((n * 7) % 20 === 0 ? 20 : (n * 7) % 20));
    await load(hours, []);
    const { rows } = await env.pool.query(
      'select percentile_disc(array[0.5, 0.8, 0.95]) within group (order by h) as plain from unnest($1::float8[]) as h',
      [hours],
    );
    const { median_hours, p80_hours, p95_hours, naive_median_hours, within_24h_pct } = await ask();
    assert.deepEqual([median_hours, p80_hours, p95_hours], rows[0].plain);
    assert.equal(naive_median_hours, median_hours);
    assert.equal(within_24h_pct, 100);
  });

  test('leaves out what was closed before its clock or nobody knows when, and says nothing of under five', async () => {
    const closed = { is_actionable: 'false', created_at_service: '2026-06-10 10:00:00' };
    await load(
      [5, 5, 5, 5],
      [],
      [
        { ticket_id: 'WOT1', ...closed, closed_at: '2026-06-10 09:00:00' },
        { ticket_id: 'WOT2', ...closed, closed_at: '' },
      ],
    );
    const { opened, closed: ended, median_hours, naive_mean_hours, within_24h_pct } = await ask();
    assert.deepEqual([opened, ended, median_hours, naive_mean_hours, within_24h_pct], [6, 6, null, 5, 100]);
  });

  test('what closed after the past was settled is no better known than what is still open', async () => {
    // All opened a day before the snapshot: the quick ones have been told, of the others nobody knows yet.
    const opened = SNAPSHOT - 24 * HOUR;
    const young = (n: number, closed: number | null) => ({
      ticket_id: `WOT${n}`,
      is_actionable: String(closed === null),
      created_at_service: eat(opened),
      closed_at: closed === null ? '' : eat(opened + closed * HOUR),
    });
    const quick = [1, 2, 3, 4, 5, 6].map((hours) => young(hours, hours));
    const slow = Array.from({ length: 60 }, (_, n) => young(100 + n, null));
    await load([], [], [...quick, ...slow]);
    const { opened: all, closed, still_open, ...figures } = await ask('2026-06-14', '2026-06-15');
    assert.deepEqual([all, closed, still_open], [66, 6, 60]);
    assert.deepEqual(figures, {
      clock_known_pct: 100,
      within_24h_pct: null,
      within_48h_pct: null,
      median_hours: null,
      p80_hours: null,
      p95_hours: null,
      naive_mean_hours: 3.5,
      naive_median_hours: 3,
      through: new Date(SETTLED),
    });
  });

  test('one that was open when the past was settled counts as open until then, whether it closed since or not', async () => {
    // Ten opened ten hours before: five closed after 1 to 5 hours, two after 20, three not.
    const opened = SETTLED - 10 * HOUR;
    const record = (n: number, closed: number | null) => ({
      ticket_id: `WOT${n}`,
      is_actionable: String(closed === null),
      created_at_service: eat(opened),
      closed_at: closed === null ? '' : eat(opened + closed * HOUR),
    });
    await load(
      [],
      [],
      [1, 2, 3, 4, 5, 20, 20, null, null, null].map((hours, n) => record(n, hours)),
    );
    const { closed, still_open, median_hours, p80_hours, within_24h_pct } = await ask();
    assert.deepEqual([closed, still_open, median_hours, p80_hours, within_24h_pct], [7, 3, 5, null, null]);
  });

  test('is the plain quantile of what closed lately, too, where nothing is open', async () => {
    const opened = SNAPSHOT - 24 * HOUR;
    const closed = [1, 2, 3, 4, 5].map((hours) => ({
      ticket_id: `WOT${hours}`,
      is_actionable: 'false',
      created_at_service: eat(opened),
      closed_at: eat(opened + hours * HOUR),
    }));
    await load([], [], closed);
    const { median_hours, p95_hours, within_24h_pct } = await ask('2026-06-14', '2026-06-15');
    assert.deepEqual([median_hours, p95_hours, within_24h_pct], [3, 5, 100]);
  });

  test('a closing of before history that was corrected and then undone counts as it was last told', async () => {
    const ticket = { ticket_id: 'WOT1', created_at_service: '2026-06-10 00:00:00', cluster: 'Kilimani' };
    const closed = (at: string) => ({ ...ticket, is_actionable: 'false', closed_at: at });
    await env.pool.query(`insert into tickets.inc (ticket_id, raw) values ('WOT1', $1)`, [
      closed('2026-06-10 05:00:00'),
    ]);
    await env.pool.query(
      `insert into tickets.inc_events (ticket_id, event, snapshot_at, closed_at)
       select ticket_id, 'baseline', '2026-06-15 06:00:00+03', closed_at from tickets.inc`,
    );
    for (const [hour, record] of [
      [7, closed('2026-06-10 08:00:00')],
      [8, { ...ticket, is_actionable: 'true', closed_at: '' }],
      [9, closed('2026-06-12 00:00:00')],
    ] as const) {
      await env.putObject(keyOf(hour), csvOf([record]));
      assert.deepEqual(await fetchNow(env), []);
    }
    const { opened, closed: ended, naive_mean_hours } = await ask();
    assert.deepEqual([opened, ended, naive_mean_hours], [1, 1, 8]);
  });

  test('of an empty cohort it counts none and estimates nothing', async () => {
    await load([5], []);
    const { opened, closed, median_hours, clock_known_pct } = await ask('2025-01-01', '2025-02-01');
    assert.deepEqual([opened, closed, median_hours, clock_known_pct], [0, 0, null, null]);
  });
});
