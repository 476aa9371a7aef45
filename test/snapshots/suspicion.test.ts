/** A file is judged as a whole: each rule is a row here, and days that are normal. */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import fc from 'fast-check';
import {
  type Comparison,
  type Figures,
  judge,
  manyRejected,
  type Reading,
  type Verdict,
} from '../../src/snapshots/suspicion.ts';

const COLUMNS = [
  'ticket_id',
  'normalized_status',
  'is_actionable',
  'mttr',
  'created_at_service',
  'scheduled_at',
  'closed_at',
];
const NOON = new Date('2026-06-15T12:00:00Z');
const hoursBefore = (hours: number) => new Date(NOON.getTime() - hours * 3_600_000);

/** Of so many tickets: the values that stand there, all of which read. */
const values = (tickets: number, shares: Record<string, number> = {}) =>
  Object.fromEntries(
    COLUMNS.slice(1).map((column) => {
      const usual = { created_at_service: 0.7, mttr: 0.9, closed_at: 0.9, scheduled_at: 0.35 }[column] ?? 1;
      const filled = Math.round(tickets * (shares[column] ?? usual));
      return [column, { filled, read: filled }];
    }),
  );

const figures = (tickets: number, other: Partial<Figures> = {}): Figures => ({
  rows: tickets,
  rejected: 0,
  tickets,
  ids: tickets,
  repaired: 0,
  columns: COLUMNS,
  values: values(tickets),
  ...other,
});

/** What reading a file of these rows gave. */
function reading(rows: number, rejected = 0, other: Partial<Reading> = {}): Reading {
  const tickets = rows - rejected;
  return {
    counts: { read: rows, alarms: 0, sentinels: 0, duplicates: 0, rejected, repaired: 0 },
    columns: COLUMNS,
    values: values(tickets),
    firstReject: rejected > 0 ? { reason: '8 fields where the header has 7', line: 2, count: rejected } : undefined,
    brokenOff: undefined,
    ...other,
  };
}

const compared = (other: Partial<Comparison> = {}): Comparison => ({
  dataset: 'inc',
  feed: 'snapshots',
  last: figures(1_000),
  known: 1_000,
  open: 100,
  closing: 0,
  hoursSinceLoad: 1,
  snapshotAt: NOON,
  heldSince: null,
  holdMs: 3_600_000,
  ...other,
});

const short = (verdict: Verdict) =>
  verdict.verdict === 'load' ? ['load', ...verdict.warnings] : [verdict.verdict, verdict.reason];

const judged = (file: Reading, against: Partial<Comparison> = {}, onSuspect: 'hold' | 'load' = 'hold') =>
  short(judge(file, compared(against), onSuspect));

const without = (column: string): Partial<Reading> => {
  const { [column]: _, ...others } = values(1_000);
  return { columns: COLUMNS.filter((name) => name !== column), values: others };
};
const readsOf = (column: string, filled: number, read: number): Partial<Reading> => ({
  values: { ...values(1_000), [column]: { filled, read } },
});

describe('a file is refused', () => {
  test('when none of its rows can be loaded, with the first reason and its count', () => {
    assert.deepEqual(judged(reading(100, 100)), [
      'refuse',
      'None of its 100 rows can be loaded: 8 fields where the header has 7 (100 times, first on line 2).',
    ]);
  });

  test('when over half of its rows are rejected, and not when half of them are', () => {
    assert.match(judged(reading(1_001, 501))[1] ?? '', /^501 of its 1001 rows cannot be loaded: /);
    assert.equal(judged(reading(1_000, 500))[0], 'load');
    assert.equal(judged(reading(1_001, 501), { last: null })[0], 'refuse', 'the first file too');
  });

  test('when it has a header and no rows, unless the last load had none either; alarms and sentinels are no rows', () => {
    const counts = { ...reading(0).counts, read: 5, alarms: 4, sentinels: 1 };
    assert.deepEqual(judged(reading(0)), ['refuse', 'It has a header and no rows, and the last load had 1000.']);
    assert.deepEqual(judged(reading(0), { last: null }), ['refuse', 'It has a header and no rows.']);
    assert.match(judged(reading(0, 0, { counts }))[1] ?? '', /no rows, besides 4 alarms and 1 sentinel/);
    assert.deepEqual(judged(reading(0), { last: figures(0) }), ['load']);
  });

  test('when it breaks off before its first row, whatever the last load had', () => {
    const brokenOff = 'The file breaks off: a quote is never closed.';
    assert.deepEqual(judged(reading(0, 0, { brokenOff }), { last: figures(0) }), [
      'refuse',
      `Nothing of it can be loaded. ${brokenOff}`,
    ]);
  });

  test('and nothing that says to load suspects changes that', () => {
    assert.equal(judged(reading(100, 100), {}, 'load')[0], 'refuse');
  });
});

describe('a file is held', () => {
  for (const column of ['is_actionable', 'normalized_status']) {
    test(`when ${column} is gone, or nearly none of its values read although they did`, () => {
      assert.deepEqual(judged(reading(1_000, 0, without(column))), [
        'hold',
        `The column ${column} is gone; in the last load 100 % of its values read.`,
      ]);
      assert.deepEqual(judged(reading(1_000, 0, readsOf(column, 1_000, 49))), [
        'hold',
        `Of ${column} 4.9 % of the values read; in the last load 100 % of its values read.`,
      ]);
      assert.equal(judged(reading(1_000, 0, readsOf(column, 0, 0)))[0], 'hold', 'all of them empty');
      assert.equal(judged(reading(1_000, 0, readsOf(column, 1_000, 60)))[0], 'load');
    });

    test(`but not for ${column} when the last load had it neither, or there was none`, () => {
      const last = figures(1_000, without(column) as Partial<Figures>);
      assert.deepEqual(judged(reading(1_000, 0, without(column)), { last }), ['load']);
      assert.deepEqual(judged(reading(1_000, 0, without(column)), { last: null }), ['load']);
    });
  }

  test('when it closes over 80 % of the open tickets, and more than 50', () => {
    assert.deepEqual(judged(reading(1_000), { open: 100, closing: 81 }), [
      'hold',
      'It closes 81 of 100 open tickets (81 %).',
    ]);
    assert.deepEqual(judged(reading(1_000), { open: 100, closing: 80 }), ['load']);
    assert.deepEqual(judged(reading(1_000), { open: 50, closing: 50 }), ['load']);
    assert.equal(judged(reading(1_000), { open: 51, closing: 51 })[0], 'hold');
    assert.equal(judged(reading(1_000), { open: 51, closing: 51, last: null })[0], 'hold', 'after a takeover too');
  });

  test('and says from when on its closings are believed; without a vital column only a person decides', () => {
    const closes = judge(reading(1_000), compared({ closing: 90 }), 'hold');
    assert.deepEqual(closes.verdict === 'hold' && closes.since, NOON);
    const again = judge(reading(1_000), compared({ closing: 90, heldSince: hoursBefore(0.5) }), 'hold');
    assert.deepEqual(again.verdict === 'hold' && again.since, hoursBefore(0.5));
    const lost = judge(
      reading(1_000, 0, without('is_actionable')),
      compared({ closing: 90, heldSince: hoursBefore(5) }),
      'hold',
    );
    assert.equal(lost.verdict === 'hold' && lost.since, null);
    assert.match(lost.verdict === 'hold' ? lost.reason : '', /is gone; .* It closes 90 of 100/);
  });

  test('unless the last load is over a day old, or a file an hour before it showed the same: then it loads with a warning', () => {
    assert.deepEqual(judged(reading(1_000), { closing: 90, hoursSinceLoad: 25.5 }), [
      'load',
      'It closes 90 of 100 open tickets (90 %). It is loaded because the last load was 25 hours before it.',
    ]);
    assert.equal(judged(reading(1_000), { closing: 90, hoursSinceLoad: 24 })[0], 'hold');
    assert.deepEqual(judged(reading(1_000), { closing: 90, heldSince: hoursBefore(1) }), [
      'load',
      'It closes 90 of 100 open tickets (90 %). It is loaded because a file 60 minutes before it showed the same.',
    ]);
    assert.equal(judged(reading(1_000), { closing: 90, heldSince: hoursBefore(0.99) })[0], 'hold');
    assert.equal(judged(reading(1_000), { closing: 90, heldSince: hoursBefore(1), holdMs: 3_600_001 })[0], 'hold');
    assert.equal(
      judged(reading(1_000, 0, without('is_actionable')), { hoursSinceLoad: 99, heldSince: hoursBefore(9) })[0],
      'hold',
    );
  });

  test('or is loaded with a warning where ON_SUSPECT_SNAPSHOT says so', () => {
    assert.match(
      judged(reading(1_000), { closing: 90 }, 'load').join(),
      /^load,It closes 90 .* because ON_SUSPECT_SNAPSHOT says so/,
    );
    assert.match(
      judged(reading(1_000, 0, without('is_actionable')), {}, 'load')[1] ?? '',
      /is gone.* ON_SUSPECT_SNAPSHOT/,
    );
  });
});

describe('a file is loaded with a warning', () => {
  test('when it has under 60 % of the rows of the last load', () => {
    assert.deepEqual(judged(reading(599)), ['load', 'It has 599 rows, 60 % of the 1000 of the last load.']);
    assert.deepEqual(judged(reading(600)), ['load']);
    assert.deepEqual(judged(reading(10), { last: null }), ['load']);
  });

  test('when it has as many tickets, and others, unless so many changed only', () => {
    assert.deepEqual(judged(reading(1_000), { known: 599 }), [
      'load',
      'Of its 1000 tickets 599 were known, and the last load had 1000. Have the ids changed?',
    ]);
    assert.deepEqual(judged(reading(1_000), { known: 600 }), ['load']);
    assert.deepEqual(judged(reading(100), { known: 50, last: figures(100) }), ['load'], 'so few say nothing');
    assert.deepEqual(judged(reading(1_000), { known: 0, last: null }), ['load']);
    assert.deepEqual(judged(reading(1_000), { known: 0, feed: 'changes' }), ['load']);
  });

  test('and not for its few rows, or none, where files hold changes only', () => {
    for (const rows of [0, 3, 599]) assert.deepEqual(judged(reading(rows), { feed: 'changes' }), ['load']);
    assert.match(judged(reading(100))[1] ?? '', /of the last load\. It looks like a file of changes: INC_FEED\?/);
  });

  test('when a column is gone or new', () => {
    assert.deepEqual(judged(reading(1_000, 0, without('mttr'))), ['load', '1 column of the last load is gone: mttr.']);
    assert.deepEqual(judged(reading(1_000, 0, { columns: [...COLUMNS, 'a\u202e', 'b'] })), [
      'load',
      '2 columns are new: a\\u202e, b.',
    ]);
    const many = Array.from({ length: 40 }, (_, n) => `${n}${'x'.repeat(500)}`);
    assert.ok((judged(reading(1_000, 0, { columns: [...COLUMNS, ...many] }))[1] ?? '').length < 1_000);
  });

  test('when far fewer values of a typed column read', () => {
    assert.deepEqual(judged(reading(1_000, 0, readsOf('created_at_service', 700, 0))), [
      'load',
      'Of created_at_service 700 of 700 values do not read; in the last load 0 of 700 did not.',
    ]);
    assert.equal(judged(reading(1_000, 0, readsOf('created_at_service', 700, 550))).length, 2, 'also a fifth of them');
    assert.deepEqual(judged(reading(1_000, 0, readsOf('closed_at', 300, 300))), [
      'load',
      'Of closed_at 300 of 1000 tickets have a value that reads; in the last load 900 of 1000 had.',
    ]);
    const before = figures(1_000, { values: { ...values(1_000), mttr: { filled: 900, read: 100 } } });
    assert.deepEqual(judged(reading(1_000, 0, readsOf('mttr', 900, 90)), { last: before }), ['load'], 'they never did');
  });

  test('when over 2 % of its tickets, and far more than before, have bytes of another encoding', () => {
    const repaired = (count: number): Partial<Reading> => ({ counts: { ...reading(1_000).counts, repaired: count } });
    assert.deepEqual(judged(reading(1_000, 0, repaired(20))), ['load']);
    assert.deepEqual(judged(reading(1_000, 0, repaired(21))), [
      'load',
      '21 of 1000 tickets have bytes that are no UTF-8, or NULs, which became U+FFFD; in the last load 0 of 1000 had. Is it in another encoding?',
    ]);
    const before = figures(1_000, { repaired: 30 });
    assert.deepEqual(judged(reading(1_000, 0, repaired(60)), { last: before }), ['load'], 'they always had');
    assert.equal(judged(reading(1_000, 0, repaired(61)), { last: before }).length, 2);
  });

  test('when over 2 % of its rows are rejected', () => {
    assert.equal(manyRejected(1_000, 20), undefined);
    assert.equal(manyRejected(1_000, 21), '21 of 1000 rows are rejected (2.1 %): see tickets_ops.snapshot_rejects.');
    assert.equal(manyRejected(0, 0), undefined);
  });
});

test('normal days do not warn: lumps of closings, columns that waver, a few rejects', () => {
  const share = (from: number, to: number) => fc.double({ min: from, max: to, noNaN: true });
  fc.assert(
    fc.property(
      fc.integer({ min: 500, max: 60_000 }),
      share(0.9, 1.1),
      share(0, 0.02),
      share(0, 0.8),
      fc.record({
        mttr: share(0.7, 0.98),
        closed_at: share(0.7, 0.98),
        scheduled_at: share(0.25, 0.5),
        created_at_service: share(0.6, 0.75),
      }),
      (before, growth, rejects, closes, shares) => {
        const rows = Math.round(before * growth);
        const rejected = Math.floor(rows * rejects);
        const open = Math.round(before * 0.2);
        const file = reading(rows, rejected, { values: values(rows - rejected, shares) });
        const against = compared({
          last: figures(before),
          known: Math.min(rows - rejected, before),
          open,
          closing: Math.floor(open * closes),
        });
        assert.deepEqual(judge(file, against, 'hold'), { verdict: 'load', warnings: [] });
        assert.equal(manyRejected(rows, rejected), undefined);
      },
    ),
    { numRuns: 2_000, seed: 20260615 },
  );
});
