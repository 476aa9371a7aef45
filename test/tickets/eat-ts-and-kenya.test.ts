import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import fc from 'fast-check';
import { settlements } from '../../demo/places.ts';
import { COUNTED_COLUMNS } from '../../src/csv/values.ts';
import { type Environment, startEnvironment } from '../support/environment.ts';

let env: Environment;
before(async () => {
  env = await startEnvironment();
});
after(() => env.close());

/** What a function of one text makes of each text, as text. */
async function read(name: string, texts: readonly (string | null)[]): Promise<(string | null)[]> {
  const { rows } = await env.pool.query<{ value: string | null }>(
    `select to_jsonb(${name}(given)) #>> '{}' as value from unnest($1::text[]) with ordinality as t (given, n) order by n`,
    [texts],
  );
  return rows.map(({ value }) => value);
}

/** Instants in ISO form (UTC, microseconds cut to milliseconds), or NULL. */
async function times(texts: readonly (string | null)[]): Promise<(string | null)[]> {
  return (await read('tickets.eat_ts', texts)).map((value) => value && new Date(value).toISOString());
}

function table<T>(reader: (texts: string[]) => Promise<T[]>, expected: Record<string, T>) {
  return async () => assert.deepEqual(await reader(Object.keys(expected)), Object.values(expected));
}

/** What is no time. */
const nothing = [
  ...['', ' ', 'not-a-date', 'now', 'today', 'infinity', 'epoch', '-5', '0', '1767312000', '02/01/2026', '2026-1-2'],
  ...[
    '2026-13-01',
    '2026-00-01',
    '2026-13-45',
    '2026-01-00',
    '2026-01-32',
    '2026-04-31',
    '2026-02-30',
    '2026-02-29',
    '2100-02-29',
  ],
  ...[
    '2026-01-02 24:00',
    '2026-01-02 24:00:00',
    '2026-01-02 23:60',
    '2026-01-02 23:59:60',
    '2026-01-02 03',
    '2026-01-02T',
  ],
  ...[
    '2026-01-02T03:04:05.',
    '2026-01-02T03:04:05.1234567',
    '2026-01-02  03:04',
    '2026-01-02T03:04:05z',
    '2026-01-02Z',
  ],
  ...[
    '2026-01-02T03:04:05+16',
    '2026-01-02T03:04:05+03:60',
    '2026-01-02T03:04:05+3',
    '2026-01-02 03:04:05 EAT',
    '2026-01-02 03:04:05 PM',
  ],
  ...[
    '1899-12-31',
    '2101-01-01',
    '0001-01-01 00:00:00',
    '9999-12-31 23:59:59',
    '٢٠٢٦-01-02',
    '２０２６-01-02',
    '2026−01−02',
  ],
  ...[
    '20-6-01-02 03:04:05',
    '2026-01-02 03:04::5',
    '----_--_-- --:--:--',
    `2026-01-02 03:04:05${' '.repeat(100)}x`,
    '2'.repeat(300),
  ],
];

describe('eat_ts', () => {
  test(
    'reads the forms of the feed as Nairobi time',
    table(times, {
      '2026-01-02': '2026-01-01T21:00:00.000Z',
      '2026-01-02 03:04': '2026-01-02T00:04:00.000Z',
      '2026-01-02 03:04:05': '2026-01-02T00:04:05.000Z',
      '2026-01-02T03:04:05': '2026-01-02T00:04:05.000Z',
      '2026-01-02 03:04:05.5': '2026-01-02T00:04:05.500Z',
      '2026-01-02 23:59:59.999999': '2026-01-02T20:59:59.999Z',
      ' 2026-01-02 03:04:05\t': '2026-01-02T00:04:05.000Z',
      '2024-02-29': '2024-02-28T21:00:00.000Z',
      '2000-02-29': '2000-02-28T21:00:00.000Z',
    }),
  );

  test(
    'honours an explicit offset',
    table(times, {
      '2026-01-02T03:04:05Z': '2026-01-02T03:04:05.000Z',
      '2026-01-02 03:04Z': '2026-01-02T03:04:00.000Z',
      '2026-01-02T03:04:05+03': '2026-01-02T00:04:05.000Z',
      '2026-01-02T03:04:05+0300': '2026-01-02T00:04:05.000Z',
      '2026-01-02 03:04:05.25 +03:00': '2026-01-02T00:04:05.250Z',
      '2026-01-02T03:04-05:30': '2026-01-02T08:34:00.000Z',
      '2026-12-31T23:00:00-02:00': '2027-01-01T01:00:00.000Z',
    }),
  );

  test('gives NULL for anything else', async () => {
    assert.deepEqual(
      (await times(nothing)).map((value, i) => [nothing[i], value]),
      nothing.map((text) => [text, null]),
    );
    assert.deepEqual(await times([null]), [null]);
  });

  test('is right for any instant, whatever the offset it is written in', async () => {
    const instant = fc.date({ min: new Date('1961-01-01'), max: new Date('2100-12-30'), noInvalidDate: true });
    const samples = fc.sample(fc.tuple(instant, fc.integer({ min: -959, max: 959 }), fc.constantFrom(' ', 'T')), {
      numRuns: 3000,
      seed: 5,
    });
    const written = samples.map(([date, minutes, between]) => {
      const wall = new Date(date.getTime() + minutes * 60_000).toISOString().slice(0, 23).replace('T', between);
      const [hh, mm] = [Math.floor(Math.abs(minutes) / 60), Math.abs(minutes) % 60].map((n) =>
        String(n).padStart(2, '0'),
      );
      return minutes === 180 ? wall : `${wall}${minutes < 0 ? '-' : '+'}${hh}:${mm}`;
    });
    assert.deepEqual(
      await times(written),
      samples.map(([date]) => date.toISOString()),
    );
  });
});

test(
  'to_boolean',
  table((texts) => read('tickets.to_boolean', texts), {
    ...Object.fromEntries(['true', 'T', 'Yes', 'y', '1', ' TRUE ', '1.0'].map((text) => [text, 'true'])),
    ...Object.fromEntries(['false', 'F', 'no', 'N', '0', 'False\n', '0.0 '].map((text) => [text, 'false'])),
    ...Object.fromEntries(
      ['', ' ', 'on', 'maybe', '2', '-1', '1.', '1.5', '0.00', 'truе', '１', 'null', 't'.repeat(1e6)].map((text) => [
        text,
        null,
      ]),
    ),
  }),
);

test(
  'hours_to_minutes: whole minutes from decimal hours',
  table((texts) => read('tickets.hours_to_minutes', texts), {
    '1.5': '90',
    ' 48 ': '2880',
    '0.0083': '0',
    '0.0084': '1',
    '.25': '15',
    '+2.': '120',
    '-5': '-300',
    '35791395': '2147483700', // more minutes than an integer holds
    '1.333333333333333333': '80',
    '': null,
    '.': null,
    '-': null,
    '1,5': null,
    '1e3': null,
    '1e400': null,
    NaN: null,
    inf: null,
    '∞': null,
    '0x10': null,
    '1_000': null,
    '٣': null,
    '1.2.3': null,
    '--1': null,
    [`1${'0'.repeat(299)}`]: null,
  }),
);

test(
  'to_degrees',
  table((texts) => read('tickets.to_degrees', texts), {
    '-1.2921': '-1.2921',
    ' 36.8219 ': '36.8219',
    '+0': '0',
    '999': '999',
    '': null,
    '1e2': null,
    NaN: null,
    Infinity: null,
    '1,29': null,
    '36°49′E': null,
    '1234': null,
    '.': null,
    [`1.${'0'.repeat(300)}`]: null,
  }),
);

test('is_lng_lat takes points on earth and nothing else', async () => {
  const expected = {
    'POINT(36.8 -1.3)': true,
    'POINT(180 -90)': true,
    'POINT Z (36.8 -1.3 1700)': true,
    'POINT(180.1 0)': false,
    'POINT(200 95)': false,
    'POINT(0 90.1)': false,
    'POINT(NaN 1)': false,
    'POINT(1 NaN)': false,
    'POINT EMPTY': false,
    'LINESTRING(0 0, 1 1)': false,
    'POLYGON EMPTY': false,
  };
  const { rows } = await env.pool.query(
    'select wkt, tickets.is_lng_lat(wkt::geometry) as ok from unnest($1::text[]) with ordinality as t (wkt, n) order by n',
    [Object.keys(expected)],
  );
  assert.deepEqual(Object.fromEntries(rows.map(({ wkt, ok }) => [wkt, ok])), expected);
  const { rows: unknown } = await env.pool.query('select tickets.is_lng_lat(null) as ok');
  assert.equal(unknown[0].ok, true);
});

test('no text makes a function fail', async () => {
  const digit = fc.constantFrom(...'0012345679-:.T +ZeEN٣∞_');
  const near = fc.tuple(
    fc.constantFrom(
      '2026-01-02 03:04:05',
      '2024-02-29T23:59:59.999999+15:59',
      '9999-99-99 99:99:99',
      '-1.2921',
      '1.25',
      '1e400',
      'true',
    ),
    fc.nat(20),
    fc.string({ unit: digit, maxLength: 3 }),
  );
  const texts = [
    ...fc.sample(fc.string({ unit: digit, maxLength: 30 }), { numRuns: 4000, seed: 3 }),
    ...fc
      .sample(near, { numRuns: 6000, seed: 4 })
      .map(([text, at, put]) => text.slice(0, at) + put + text.slice(at + put.length)),
    ...fc
      .sample(fc.string({ unit: 'binary' }), { numRuns: 2000, seed: 5 })
      .map((text) => text.replaceAll('\0', '').toWellFormed()),
  ];
  for (const name of ['eat_ts', 'to_boolean', 'hours_to_minutes', 'to_degrees']) {
    assert.equal((await read(`tickets.${name}`, texts)).length, texts.length);
  }
});

test("a file's figures count as read what the typed columns read", async () => {
  const digit = fc.constantFrom(...'0012345679-:.T +Ze٣');
  const around = fc.tuple(
    fc.constantFrom('', ' ', '\t', '\n', '\u00a0', ' '.repeat(60)),
    fc.oneof(
      fc.constantFrom(...nothing, 'TRUE', 'f', 'yes', 'N', '1', '0', '1.0', '0.0', '.5', '-1.25', '1e3', '12345'),
      fc.string({ unit: digit, maxLength: 24 }),
      fc
        .tuple(
          fc.constantFrom('2026-01-02 03:04:05', '2024-02-29T23:59:59.999999+15:59', '2100-02-28', '1900-12-31 00:00Z'),
          fc.nat(24),
          fc.string({ unit: digit, maxLength: 2 }),
        )
        .map(([text, at, put]) => text.slice(0, at) + put + text.slice(at + put.length)),
    ),
    fc.constantFrom('', ' ', '\r\n', '\v'),
  );
  const texts = fc.sample(around, { numRuns: 8_000, seed: 6 }).map((parts) => parts.join(''));
  for (const [column, name] of Object.entries({
    is_actionable: 'to_boolean',
    mttr: 'hours_to_minutes',
    created_at_service: 'eat_ts',
    latitude: 'to_degrees',
  })) {
    const values = await read(`tickets.${name}`, texts);
    const reads = COUNTED_COLUMNS[column];
    for (const [n, text] of texts.entries()) {
      assert.equal(reads?.(text), values[n] !== null, `${name}(${JSON.stringify(text)})`);
    }
  }
});

describe('Kenya', () => {
  const inKenya = async (points: readonly { lng: number | string; lat: number | string }[]) => {
    const { rows } = await env.pool.query<{ inside: boolean }>(
      `select tickets.in_kenya(st_setsrid(st_makepoint(lng, lat), 4326)) as inside
      from unnest($1::float8[], $2::float8[]) with ordinality as t (lng, lat, n) order by n`,
      [points.map(({ lng }) => lng), points.map(({ lat }) => lat)],
    );
    return rows.map(({ inside }) => inside);
  };

  test('all its places are in it, those on the coast and at the border too', async () => {
    const edge = {
      Wasini: [39.37, -4.66],
      Diani: [39.5945, -4.2797],
      Kiunga: [41.488, -1.747],
      Mandera: [41.857, 3.937],
      Lamu: [40.902, -2.2717],
    };
    const places = [
      ...settlements,
      ...Object.entries(edge).map(([name, [lng, lat]]) => ({ name, lng: lng ?? 0, lat: lat ?? 0 })),
    ];
    const inside = await inKenya(places);
    assert.deepEqual(
      places.filter((_, i) => !inside[i]).map(({ name }) => name),
      [],
    );
  });

  test('its neighbours are not, nor 0,0, swapped axes, or no point at all', async () => {
    const abroad = {
      Moshi: [37.34, -3.35],
      Arusha: [36.683, -3.387],
      'Moyale, Ethiopia': [39.056, 3.533],
      'Tororo, Uganda': [34.18, 0.69],
      'Busia, Uganda': [34.09, 0.4657],
      'Bula Hawa, Somalia': [41.883, 3.93],
      'Tanga, Tanzania': [39.1, -5.07],
      'the ocean': [41, -3.5],
      'Null Island': [0, 0],
      'Nairobi, swapped': [-1.2833, 36.8167],
      'Nairobi, minus dropped': [36.8167, 11.2833],
      NaN: [Number.NaN, Number.NaN],
      wrapped: [36.8 + 360, -1.28],
    };
    const inside = await inKenya(Object.values(abroad).map(([lng, lat]) => ({ lng: String(lng), lat: String(lat) })));
    assert.deepEqual(
      Object.keys(abroad).filter((_, i) => inside[i]),
      [],
    );
    const { rows } = await env.pool.query(
      `select tickets.in_kenya(null) as unknown, tickets.in_kenya(st_geomfromtext('POINT EMPTY', 4326)) as empty`,
    );
    assert.deepEqual(rows[0], { unknown: false, empty: false });
  });

  test('feed_point takes only coordinates that read as numbers and lie in it', async () => {
    const given: [raw: object, wkt: string | null][] = [
      [{ latitude: '-1.2921', longitude: '36.8219' }, 'POINT(36.8219 -1.2921)'],
      [{ latitude: ' -1.2921', longitude: '36.8219 ' }, 'POINT(36.8219 -1.2921)'],
      [{ latitude: -1.2921, longitude: 36.8219 }, 'POINT(36.8219 -1.2921)'],
      [{ latitude: '', longitude: '' }, null],
      [{}, null],
      [{ latitude: '-1.2921', longitude: '' }, null],
      [{ latitude: '36.8219', longitude: '-1.2921' }, null],
      [{ latitude: '999', longitude: '999' }, null],
      [{ latitude: '0', longitude: '0' }, null],
      [{ latitude: '1e400', longitude: 'NaN' }, null],
      [{ latitude: null, longitude: [] }, null],
    ];
    const { rows } = await env.pool.query(
      `select st_astext(point) as wkt, coalesce(st_srid(point), 4326) as srid
      from unnest($1::jsonb[]) with ordinality as t (raw, n), tickets.feed_point(raw) as point order by n`,
      [given.map(([raw]) => JSON.stringify(raw))],
    );
    assert.deepEqual(
      rows,
      given.map(([, wkt]) => ({ wkt, srid: 4326 })),
    );
  });
});

test('what generated columns and checks call is immutable; nothing needs a search path', async () => {
  const { rows } = await env.pool.query(`
    select proname as name, provolatile as volatility from pg_proc
    where pronamespace = 'tickets'::regnamespace and proparallel = 's' and obj_description(oid, 'pg_proc') is not null
      and proname in ('eat_ts', 'to_boolean', 'hours_to_minutes', 'to_degrees', 'is_lng_lat', 'in_kenya', 'feed_point')
    order by proname`);
  assert.deepEqual(Object.fromEntries(rows.map(({ name, volatility }) => [name, volatility])), {
    eat_ts: 'i',
    feed_point: 's',
    hours_to_minutes: 'i',
    in_kenya: 's',
    is_lng_lat: 'i',
    to_boolean: 'i',
    to_degrees: 'i',
  });
  const client = await env.pool.connect();
  try {
    await client.query('begin');
    await client.query(`set local search_path = ''`);
    await client.query(`set local timezone = 'America/New_York'`);
    await client.query(`set local datestyle = 'SQL, DMY'`);
    const { rows: pinned } = await client.query(`
      select tickets.feed_point('{"latitude": "-1.29", "longitude": "36.82"}') is not null as point,
        tickets.eat_ts('2026-03-04 05:06:07.5') = '2026-03-04 02:06:07.5+00'::timestamptz as wall,
        tickets.eat_ts('2026-03-04T05:06:07-05:30') = '2026-03-04 10:36:07+00'::timestamptz as shifted`);
    assert.deepEqual(pinned[0], { point: true, wall: true, shifted: true });
  } finally {
    await client.query('rollback');
    client.release();
  }
});
