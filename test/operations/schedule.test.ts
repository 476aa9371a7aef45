import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { after, afterEach, before, beforeEach, describe, test } from 'node:test';
import fc from 'fast-check';
import { type CronMatcher, type ParsedCronItem, parseCrontab } from 'graphile-worker';
import { CRONTAB_FILE } from '../../src/database/crontab.ts';
import { entryOf, recordSchedule, timesOf } from '../../src/worker/schedule.ts';
import { type Environment, startEnvironment } from '../support/environment.ts';
import { setBack } from '../support/rows.ts';
import { killWorkers, startWorkerProcess } from '../support/worker-process.ts';

const CRONTAB = await readFile(CRONTAB_FILE, 'utf8');
const items = parseCrontab(CRONTAB);
const item = (identifier: string) => items.find((each) => each.identifier === identifier) ?? assert.fail(identifier);

const MINUTE_MS = 60_000;
const DAY_MS = 24 * 60 * MINUTE_MS;

/** What graphile-worker hands its matcher: a time in UTC. */
const digestOf = (time: Date): Parameters<CronMatcher>[0] => ({
  min: time.getUTCMinutes(),
  hour: time.getUTCHours(),
  date: time.getUTCDate(),
  month: time.getUTCMonth() + 1,
  dow: time.getUTCDay(),
});

/** The minutes at which graphile-worker enqueues the item, from `from` for so many days, by its own matcher. */
function ticks({ match }: Pick<ParsedCronItem, 'match'>, from: string, days: number): Date[] {
  const start = Date.parse(from);
  return Array.from({ length: days * 24 * 60 }, (_, minute) => new Date(start + minute * MINUTE_MS)).filter((time) =>
    match(digestOf(time)),
  );
}

const nairobi = new Intl.DateTimeFormat('en-GB', { timeZone: 'Africa/Nairobi', hour: '2-digit', minute: '2-digit' });

describe('the crontab', () => {
  test('fetches at 07:15, 08:15 … 19:15 in Nairobi, thirteen times a day, every day of the year', () => {
    const expected = Array.from({ length: 13 }, (_, n) => `${String(n + 7).padStart(2, '0')}:15`);
    const year = ticks(item('fetch_inc'), '2026-01-01T00:00:00+03:00', 365).map((time) => nairobi.format(time));
    assert.equal(year.length, 13 * 365);
    for (let day = 0; day < 365; day += 1) assert.deepEqual(year.slice(day * 13, day * 13 + 13), expected);
  });

  test('has a missed tick made up for, all of them in one run', () => {
    const { task, payload, options } = item('fetch_inc');
    assert.equal(task, 'fetch_snapshot');
    assert.deepEqual(payload, { dataset: 'inc' });
    // The longest gap, 19:15 to 07:15, is twelve hours: an outage that began before it is still noticed after it.
    assert.ok(options.backfillPeriod >= 12 * 3_600_000);
  });

  test('has maintenance around the clock, every two minutes', () => {
    const day = ticks(item('maintain'), '2026-06-15T00:00:00Z', 1);
    assert.equal(day.length, 720);
    assert.equal(item('maintain').task, 'fleettickets_maintain');
  });
});

/** A field of a pattern, in every form that graphile-worker's parser takes. */
const field = (from: number, to: number) => {
  const number = fc.integer({ min: from, max: to });
  const part = fc.oneof(
    number.map(String),
    fc.constant('*'),
    fc.integer({ min: 1, max: to + 3 }).map((n) => `*/${n}`),
    fc
      .tuple(number, number)
      .filter(([a, b]) => a < b)
      .map(([a, b]) => `${a}-${b}`),
  );
  return fc.array(part, { minLength: 1, maxLength: 3 }).map((parts) => parts.join(','));
};
const pattern = fc
  .tuple(field(0, 59), field(0, 23), field(1, 31), field(1, 12), field(0, 7))
  .map((fields) => fields.join(' '));
const matcherOf = (text: string) =>
  parseCrontab(`${text} fetch_snapshot`)[0]?.match ?? assert.fail(`${text} is no pattern`);

test('a pattern of any kind is understood as graphile-worker understands it', () => {
  const time = fc.date({ min: new Date('2024-01-01'), max: new Date('2032-01-01'), noInvalidDate: true });
  fc.assert(
    fc.property(pattern, fc.array(time, { minLength: 20, maxLength: 20 }), (text, times) => {
      const match = matcherOf(text);
      const { minutes, hours, dates, months, weekdays } = timesOf(match);
      for (const digest of times.map(digestOf)) {
        const fires =
          minutes.includes(digest.min) &&
          hours.includes(digest.hour) &&
          months.includes(digest.month) &&
          (dates.includes(digest.date) || weekdays.includes(digest.dow));
        assert.equal(fires, match(digest), `${text} at ${JSON.stringify(digest)}`);
      }
    }),
  );
});

describe('the schedule in the database', () => {
  let env: Environment;
  before(async () => {
    env = await startEnvironment();
  });
  after(() => env.close());
  beforeEach(() => env.reset());
  afterEach(killWorkers);

  const record = (crontab: string) =>
    env.pool.query('select tickets_ops.record_schedule($1)', [JSON.stringify(parseCrontab(crontab).map(entryOf))]);
  const runs = async (from: string, days: number): Promise<Date[]> => {
    const to = new Date(Date.parse(from) + days * DAY_MS - MINUTE_MS);
    const { rows } = await env.pool.query(
      `select run from tickets_ops.scheduled_runs('inc', $1, $2) as run order by run`,
      [from, to],
    );
    return rows.map(({ run }) => run);
  };
  const around = async (at: string): Promise<{ last: Date | null; next: Date | null }> => {
    const { rows } = await env.pool.query(
      'select tickets_ops.last_scheduled_run($1) as last, tickets_ops.next_scheduled_run($1) as next',
      [at],
    );
    return rows[0];
  };

  test('is not known before a worker has started', async () => {
    assert.deepEqual(await around('2026-06-15T10:00:00Z'), { last: null, next: null });
    const { rows } = await env.pool.query('select missed_run_at, next_run_at from tickets_ops.health');
    assert.deepEqual(rows, [{ missed_run_at: null, next_run_at: null }]);
  });

  test('is recorded by a worker that starts', async () => {
    await startWorkerProcess({ CRQ_ENABLED: 'true' });
    const { rows } = await env.pool.query(
      'select identifier, task, dataset from tickets_ops.schedule order by identifier',
    );
    const expected = items.map(({ identifier, task, payload }) => ({
      identifier,
      task,
      dataset: payload?.dataset ?? null,
    }));
    assert.deepEqual(
      rows,
      expected.sort((a, b) => (a.identifier < b.identifier ? -1 : 1)),
    );
  });

  test('is that of the crontab, minute by minute', async () => {
    await recordSchedule(env.pool);
    const looks = items.filter(({ payload }) => payload?.dataset === 'inc');
    const match: CronMatcher = (digest) => looks.some((look) => look.match(digest));
    const expected = ticks({ match }, '2026-02-27T00:00:00Z', 3);
    assert.deepEqual(await runs('2026-02-27T00:00:00Z', 3), expected);
    const { rows } = await env.pool.query<{ last: Date; next: Date }>(
      `select distinct tickets_ops.last_scheduled_run(t) as last, tickets_ops.next_scheduled_run(t) as next
       from generate_series($1::timestamptz, $2, '1 minute') t order by 1`,
      [expected[0], expected.at(-1)],
    );
    assert.deepEqual(
      rows.map(({ last }) => last),
      expected,
    );
    assert.deepEqual(
      rows.slice(0, -1).map(({ next }) => next),
      expected.slice(1),
    );
  });

  for (const text of [
    '7,37 */5 * * *',
    '0-10 6 * * 1-5',
    '30 9 1,15 * *',
    '30 9 13 * 5', // the 13th, and every Friday
    '0 0 31 * 7',
    '59 23 28-31 2,12 *',
    '* 12 * 2,3 0,6',
  ])
    test(`is computed for ${text}`, async () => {
      await record(`${text} fetch_snapshot`);
      const expected = ticks({ match: matcherOf(text) }, '2027-11-25T00:00:00Z', 400);
      assert.deepEqual(await runs('2027-11-25T00:00:00Z', 400), expected);
      const at = new Date('2028-03-03T10:20:30Z');
      assert.deepEqual(await around(at.toISOString()), {
        last: expected.filter((tick) => tick <= at).at(-1),
        next: expected.find((tick) => tick > at),
      });
    });

  test('is computed for a day that comes once in eight years', async () => {
    await record('0 5 29 2 * fetch_snapshot');
    assert.deepEqual(await around('2100-01-01T00:00:00Z'), {
      last: new Date('2096-02-29T05:00:00Z'),
      next: new Date('2104-02-29T05:00:00Z'),
    });
  });

  test('another hour is one more line, of the same dataset only', async () => {
    await record(
      `15 4-16 * * * fetch_snapshot ?id=day {"dataset":"inc"}\n15 17 * * * fetch_snapshot ?id=evening {"dataset":"inc"}\n0 * * * * fetch_snapshot ?id=fetch_crq {"dataset":"crq"}\n`,
    );
    const day = (await runs('2026-06-15T00:00:00Z', 1)).map((time) => nairobi.format(time));
    assert.deepEqual([day.length, day.at(-1)], [14, '20:15']);
    assert.deepEqual(await around('2026-06-15T17:20:00Z'), {
      last: new Date('2026-06-15T17:15:00Z'),
      next: new Date('2026-06-16T04:15:00Z'),
    });
  });

  test('an entry that changed counts from then on, one that did not keeps its time, one that is gone is forgotten', async () => {
    const entries = async () => {
      const { rows } = await env.pool.query(
        `select identifier, now() - since < interval '1 hour' as fresh from tickets_ops.schedule order by 1`,
      );
      return Object.fromEntries(rows.map(({ identifier, fresh }) => [identifier, fresh]));
    };
    const line = (id: string, minute: number) => `${minute} 4 * * * fetch_snapshot ?id=${id}\n`;
    await record(line('one', 1) + line('two', 2) + line('three', 3));
    await setBack(env.pool, 'tickets_ops.schedule', 'since', '3 days');
    await record(line('one', 1) + line('two', 22));
    assert.deepEqual(await entries(), { one: false, two: true });
  });
});
