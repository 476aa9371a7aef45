import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { describe, test } from 'node:test';
import { type ParsedCronItem, parseCrontab } from 'graphile-worker';
import { CRONTAB_FILE } from '../src/worker/worker.ts';

const items = parseCrontab(await readFile(CRONTAB_FILE, 'utf8'));

/** The minutes at which graphile-worker enqueues the item, from `from` for so many days, by its own matcher. */
function ticks({ match }: ParsedCronItem, from: string, days: number): Date[] {
  const start = Date.parse(from);
  return Array.from({ length: days * 24 * 60 }, (_, minute) => new Date(start + minute * 60_000)).filter((time) =>
    // What graphile-worker hands its matcher: the time in UTC.
    match({
      min: time.getUTCMinutes(),
      hour: time.getUTCHours(),
      date: time.getUTCDate(),
      month: time.getUTCMonth() + 1,
      dow: time.getUTCDay(),
    }),
  );
}

const nairobi = new Intl.DateTimeFormat('en-GB', { timeZone: 'Africa/Nairobi', hour: '2-digit', minute: '2-digit' });
const item = (identifier: string) => items.find((each) => each.identifier === identifier) ?? assert.fail(identifier);

describe('the schedule', () => {
  test('fetches at 07:15, 08:15 … 19:15 in Nairobi, thirteen times a day, every day of the year', () => {
    const expected = Array.from({ length: 13 }, (_, n) => `${String(n + 7).padStart(2, '0')}:15`);
    const year = ticks(item('fetch_inc'), '2026-01-01T00:00:00+03:00', 365).map((time) => nairobi.format(time));
    assert.equal(year.length, 13 * 365);
    for (let day = 0; day < 365; day += 1) assert.deepEqual(year.slice(day * 13, day * 13 + 13), expected);
  });

  test('a missed tick is made up for, all of them in one run', () => {
    const { task, payload, options } = item('fetch_inc');
    assert.equal(task, 'fetch_snapshot');
    assert.deepEqual(payload, { dataset: 'inc' });
    assert.equal(options.jobKey, 'fetch_snapshot:inc:newest');
    assert.ok((options.jobKeyMode ?? 'replace') === 'replace');
    // The longest gap, 19:15 to 07:15, is twelve hours: an outage that began before it is still noticed after it.
    assert.ok(options.backfillPeriod >= 12 * 3_600_000);
    assert.equal(options.maxAttempts, 6);
  });

  test('maintenance comes around the clock, every two minutes', () => {
    const day = ticks(item('maintain'), '2026-06-15T00:00:00Z', 1);
    assert.equal(day.length, 720);
    assert.equal(item('maintain').task, 'maintain');
  });
});
