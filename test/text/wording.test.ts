import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { NAIROBI_AHEAD_MS, NAIROBI_ZONE, wallClock } from '../../src/text/nairobi.ts';
import { andMore, duration, listed, shortened } from '../../src/text/wording.ts';

describe('words that people read', () => {
  test('a length of time is told as exactly as a person needs', () => {
    for (const [seconds, told] of [
      [0, '0 s'],
      [59.4, '59 s'],
      [60, '1 min'],
      [119 * 60, '119 min'],
      [2 * 3_600, '2 h'],
      [7_500, '2 h 5 min'],
      [47.99 * 3_600, '47 h 59 min'],
      [48 * 3_600, '2 days'],
    ] as const)
      assert.equal(duration(seconds), told);
  });

  test('a text that is cut is no longer than it may be, and holds no half of a character', () => {
    assert.equal(shortened('abcde', 5), 'abcde');
    assert.equal(shortened('abcdef', 5), 'abcd…');
    assert.equal(shortened('abc😀def', 5), 'abc…');
  });

  test('a long list names the first and counts the others', () => {
    assert.equal(listed(['a', 'b', 'c'], 3), 'a, b, c');
    assert.equal(listed(['a', 'b', 'c'], 1), 'a and 2 more');
    assert.deepEqual([andMore(3, 3), andMore(5, 3)], [[], ['and 2 more']]);
  });

  test("Nairobi's clock is as far ahead of UTC in January as in July", () => {
    for (const time of ['2026-01-15T06:00:00Z', '2026-07-15T06:00:00Z']) {
      const local = new Intl.DateTimeFormat('sv', { timeZone: NAIROBI_ZONE, dateStyle: 'short', timeStyle: 'medium' });
      assert.equal(
        Date.parse(`${local.format(new Date(time)).replace(' ', 'T')}Z`),
        Date.parse(time) + NAIROBI_AHEAD_MS,
      );
    }
    assert.equal(wallClock('2026-06-15T06:00:00Z'), 'Mon 15 Jun 09:00 EAT');
  });
});
