import assert from 'node:assert/strict';
import { after, before, beforeEach, describe, test } from 'node:test';
import fc from 'fast-check';
import { cleanerFor } from '../../src/csv/clean.ts';
import { readHeader } from '../../src/csv/header.ts';
import { type Environment, startEnvironment } from '../support/environment.ts';
import { csvOf, fetchNow, keyOf, ledger } from '../support/pipeline.ts';

const TIMES = [
  'created_at_service',
  'scheduled_at',
  'closed_at',
  'first_seen_at',
  'last_seen_at',
  'source_created_at',
  'source_updated_at',
];
const TEXTS = [
  'normalized_status',
  'raw_status',
  'bucket',
  'cluster',
  'region',
  'location_name',
  'assigned_team',
  'owner',
  'sla_status',
];
const COLUMNS = [...TIMES, ...TEXTS, 'mttr', 'is_actionable', 'latitude', 'longitude'];

/** Texts that have broken loaders before. */
const NASTY = [
  '',
  ' ',
  'not-a-date',
  '2026-13-45',
  '2026-02-30',
  '2026-02-29',
  '2024-02-29',
  '2026-06-15',
  '2026-06-15 07:00',
  '2026-06-15T07:00:00Z',
  '2026-06-15T07:00:00+14:00',
  '2026-06-15 24:00:00',
  '2026-06-15 23:59:60',
  '2026-06-15 07:00:00.123456',
  '9999-12-31',
  '0000-01-01',
  '0001-01-01 00:00:00',
  '-infinity',
  'now',
  'today',
  'epoch',
  '1e400',
  '-1e400',
  '-5',
  '-0',
  '+1.5',
  '.5',
  '5.',
  'NaN',
  'nan',
  'inf',
  'Infinity',
  '∞',
  '9'.repeat(300),
  `0.${'1'.repeat(300)}`,
  '35791395',
  '1,5',
  '1 000',
  '0x10',
  '1e3',
  '٣',
  '１２',
  'TRUE',
  'True',
  'yes',
  'Y',
  'f',
  '0',
  '1',
  '2',
  'on',
  'off',
  'null',
  'NULL',
  'undefined',
  '[object Object]',
  'true ',
  '\ttrue\n',
  '999',
  '-999',
  '180',
  '-180',
  '91',
  '-1.2921',
  '36.8219',
  '0',
  '0.0',
  "36°49'E",
  '\ufffd',
  '\u202e',
  '😡',
  "'; drop table tickets.inc; --",
  '\\',
  '\\u0000',
  '{}',
  '"',
  '\r\n',
  'ﬁ',
  'ß'.repeat(500),
  '_'.repeat(1_000),
  'NW_'.repeat(300),
];

type Row = Record<string, string | number | boolean | Date | null>;

/** What the columns must hold, in JavaScript, from the contract alone. */
function expected(raw: Record<string, string>): Row {
  const row: Row = { is_actionable: yesOrNo(raw.is_actionable ?? ''), mttr: minutes(raw.mttr ?? '') };
  for (const column of TEXTS) row[column] = raw[column] === '' ? null : (raw[column] ?? null);
  for (const column of TIMES) row[column] = time(raw[column] ?? '');
  return row;
}

const trimmed = (text: string) => text.replace(/^[ \t\r\n]+|[ \t\r\n]+$/g, '');

function yesOrNo(text: string): boolean | null {
  const word = trimmed(text).toLowerCase();
  if (['true', 't', 'yes', 'y', '1', '1.0'].includes(word)) return true;
  return ['false', 'f', 'no', 'n', '0', '0.0'].includes(word) ? false : null;
}

/** Hours as whole minutes, by integers: halves go away from zero. */
function minutes(text: string): string | null {
  const match = text.length > 60 ? null : /^([+-]?)([0-9]*)(?:\.([0-9]*))?$/.exec(trimmed(text));
  if (!match || trimmed(text).length > 40 || (match[2] === '' && !match[3])) return null;
  const [, sign, whole = '', fraction = ''] = match;
  const scale = 10n ** BigInt(fraction.length);
  const scaled = BigInt(`${whole}${fraction}` || '0') * 60n;
  const rounded = (scaled * 2n + scale) / (scale * 2n);
  return `${sign === '-' && rounded > 0n ? '-' : ''}${rounded}`;
}

function time(text: string): Date | null {
  const form =
    /^([0-9]{4})-([0-9]{2})-([0-9]{2})(?:[ T]([0-9]{2}):([0-9]{2})(?::([0-9]{2})(\.[0-9]{1,6})?)?(?: ?(Z|[+-][0-9]{2}(?::?[0-9]{2})?))?)?$/;
  const match = text.length > 64 ? null : form.exec(trimmed(text));
  if (!match) return null;
  const [year = 0, month = 0, day = 0, hour = 0, minute = 0, second = 0] = match
    .slice(1, 7)
    .map((part) => Number(part ?? 0));
  const zone = match[8];
  const wall = new Date(Date.UTC(year, month - 1, day, hour, minute, second));
  const exists =
    wall.getUTCFullYear() === year &&
    wall.getUTCMonth() === month - 1 &&
    wall.getUTCDate() === day &&
    hour < 24 &&
    minute < 60 &&
    second < 60;
  if (!exists || year < 1900 || year > 2100) return null;
  const [zoneHours, zoneMinutes] =
    zone === undefined
      ? [3, 0]
      : zone === 'Z'
        ? [0, 0]
        : [Number(zone.slice(1, 3)), Number(zone.replace(':', '').slice(3) || 0)];
  if (zoneHours > 15 || zoneMinutes > 59) return null;
  const offset = (zoneHours * 60 + zoneMinutes) * (zone?.startsWith('-') ? -1 : 1);
  return new Date(wall.getTime() - offset * 60_000 + Math.floor(Number(match[7] ?? 0) * 1_000));
}

describe('every text in every typed column', () => {
  let env: Environment;
  before(async () => {
    env = await startEnvironment();
  });
  after(() => env.close());
  beforeEach(() => env.reset());

  const columns = Object.keys(expected({}));
  const read = async (): Promise<(Row & { raw: Record<string, string> })[]> => {
    const { rows } = await env.pool.query(
      `select raw, ${columns.join(', ')}, st_x(geom) as x, st_y(geom) as y, geo_source from tickets.inc order by ticket_id`,
    );
    return rows;
  };
  const assertRight = (row: Row & { raw: Record<string, string> }) => {
    for (const [column, value] of Object.entries(expected(row.raw))) {
      const found = row[column];
      // Postgres has microseconds, JavaScript milliseconds.
      const same =
        found instanceof Date && value instanceof Date
          ? Math.abs(found.getTime() - value.getTime()) <= 1
          : Object.is(found, value);
      assert.ok(same, `${column} of ${JSON.stringify(row.raw[column])}: ${found} instead of ${value}`);
    }
  };

  test('loads, and the column is right or NULL: known troublemakers, through a file', async () => {
    const records = NASTY.map((text, n) => ({
      ticket_id: `WOT${String(n).padStart(7, '0')}`,
      ...Object.fromEntries(COLUMNS.map((column) => [column, text])),
    }));
    await env.putObject(keyOf(7), csvOf(records));
    assert.deepEqual(await fetchNow(env), []);
    const [entry] = await ledger(env);
    assert.deepEqual([entry?.status, entry?.rows_inserted, entry?.rows_rejected], ['done', records.length, 0]);
    const rows = await read();
    assert.equal(rows.length, records.length);
    for (const row of rows) {
      assertRight(row);
      assert.deepEqual([row.x, row.y, row.geo_source], [null, null, 'none'], JSON.stringify(row.raw.latitude));
    }
  });

  test('loads, and the column is right or NULL: whatever fast-check thinks of', async () => {
    // Nairobi has had its offset since 1960.
    const year = fc.oneof(fc.integer({ min: 1961, max: 2110 }), fc.constantFrom(1899, 2100, 2101));
    const digits = fc.string({ unit: fc.constantFrom(...'0123456789'), maxLength: 12 });
    const nearlyTime = fc
      .tuple(
        year,
        fc.integer({ min: 0, max: 14 }),
        fc.integer({ min: 0, max: 33 }),
        fc.integer({ min: 0, max: 25 }),
        fc.integer({ min: 0, max: 61 }),
        fc.constantFrom('', ':00', ':59', ':60', ':30.5', ':30.1234567'),
        fc.constantFrom('', 'Z', '+03', '-0330', '+16:00', ' +05:45', '+05:75', 'EAT'),
        fc.constantFrom(' ', 'T', '', 't'),
      )
      .map(
        ([y, mo, d, h, mi, s, zone, between]) =>
          `${y}-${String(mo).padStart(2, '0')}-${String(d).padStart(2, '0')}${between}${String(h).padStart(2, '0')}:${String(mi).padStart(2, '0')}${s}${zone}`,
      );
    const text = fc.oneof(
      fc.constantFrom(...NASTY),
      fc.string({ unit: 'binary', maxLength: 40 }).map((each) => each.toWellFormed().replaceAll('\0', '\ufffd')),
      fc.string({ unit: fc.constantFrom(...'0123456789+-.:TZ eE,٣nN_') }),
      nearlyTime,
      fc.tuple(fc.constantFrom('', '-', '+'), digits, fc.constantFrom('', '.'), digits).map((parts) => parts.join('')),
    );
    const record = fc
      .tuple(...COLUMNS.map(() => text))
      .map((values) => Object.fromEntries(COLUMNS.map((column, n) => [column, values[n] ?? ''])));
    await fc.assert(
      fc.asyncProperty(fc.array(record, { minLength: 40, maxLength: 80 }), async (records) => {
        await env.pool.query('truncate tickets.inc');
        await env.pool.query(
          `insert into tickets.inc (ticket_id, raw) select lpad(n::text, 5, '0'), raw from jsonb_array_elements($1) with ordinality as r (raw, n)`,
          [JSON.stringify(records)],
        );
        const rows = await read();
        assert.equal(rows.length, records.length);
        rows.forEach(assertRight);
      }),
      { numRuns: 15, seed: 20260615, endOnFailure: true },
    );
  });

  test('a cleaned record is written as Postgres writes it: what did not change is recognised by its digest', async () => {
    const text = fc
      .string({ unit: 'binary', maxLength: 12 })
      .map((each) => each.toWellFormed().replaceAll('\0', '\ufffd'));
    const name = fc.oneof(text, fc.constantFrom('region', 'raw_status', 'é', 'zz', 'a"b', 'a\\b', '__proto__', 'ß😀'));
    const value = fc.oneof(
      text,
      fc.constantFrom('', '"', '\\', '\u007f\u0085', '\b\f\n\r\t\u001b', 'İSTANBUL', '👩‍🔧'),
    );
    const column = fc.tuple(name, value).filter(([header]) => !/[\r\n]/.test(header));
    await fc.assert(
      fc.asyncProperty(fc.array(column, { maxLength: 30 }), async (columns) => {
        const record = cleanerFor(readHeader(['ticket_id', ...columns.map(([header]) => header)]))([
          'WOT1',
          ...columns.map(([, each]) => each),
        ]);
        assert.ok(record.kind === 'ticket');
        const { rows } = await env.pool.query('select $1::jsonb::text as written', [record.raw]);
        assert.equal(record.raw, rows[0]?.written);
      }),
      { numRuns: 300, seed: 20260615, endOnFailure: true },
    );
  });

  test('a null or a nested value in raw, which no CSV has, is no error either', async () => {
    const values = [null, 5, true, { a: [1] }, ['x']];
    for (const [n, value] of values.entries()) {
      const raw = Object.fromEntries(COLUMNS.map((column) => [column, value]));
      await env.pool.query('insert into tickets.inc (ticket_id, raw) values ($1, $2)', [`WOT${n}`, raw]);
    }
    assert.equal((await read()).length, values.length);
  });
});
