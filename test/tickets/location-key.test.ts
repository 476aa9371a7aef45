import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import fc from 'fast-check';
import { allPlaces } from '../../demo/places.ts';
import cases from '../data/normaliser-cases.json' with { type: 'json' };
import { type Environment, startEnvironment } from '../support/environment.ts';

type Normalised = { raw: string; key: string | null; query: string | null };

let env: Environment;
before(async () => {
  env = await startEnvironment();
});
after(() => env.close());

async function normalise(raws: readonly (string | null)[]): Promise<Normalised[]> {
  const { rows } = await env.pool.query<Normalised>(
    `select raw, tickets.location_key(raw) as key, tickets.location_query(raw) as query
    from unnest($1::text[]) with ordinality as given (raw, n) order by n`,
    [raws],
  );
  return rows;
}

const keys = async (raws: readonly (string | null)[]) => (await normalise(raws)).map(({ key }) => key);

/** Every spelling must be the same place; returns its key. */
async function onePlace(spellings: string[]): Promise<string | null | undefined> {
  const found = await keys(spellings);
  assert.deepEqual(
    found,
    spellings.map(() => found[0]),
    spellings.join(' | '),
  );
  return found[0];
}

test('the specification by example', async () => {
  assert.ok(cases.length > 100);
  assert.deepEqual(await normalise(cases.map(({ raw }) => raw)), cases);
  assert.deepEqual(await keys([null]), [null]);
});

describe('several spellings of one place', () => {
  const classes: [key: string | null, ...spellings: string[]][] = [
    ['kilimani', 'NW_Kilimani', 'nw kilimani', 'KILIMANI_NW', 'NW-Kilimani', '(NW) Kilimani!', 'NW/ADR/Kilimani,FDT 3'],
    ['garden estate nairobi', 'NW_Garden Est_NBO', 'GARDEN ESTATE, NAIROBI', 'Garden Est. NRB', 'garden_est_nbo_FDT-1'],
    ['buruburu phase 5', 'Buruburu PH5', 'BuruBuru Phase 5', 'buru buru ph 5', 'Buru-Buru_Ph-5', 'BURUBURU PHASE V'],
    ['umoja 2', 'Umoja 2', 'UMOJA2', 'umoja_2_FDT12', 'Umoja II', 'Umoja-2, Hse 14'],
    ['south b', 'South B', 'SOUTH-B', 'South_B_FDT02', 'southb', 'South B Blk C'],
    ['langata road', 'Langata Rd', 'LANGATA ROAD.', 'Off Langata Rd', 'Along Langata Road 45'],
    ['lang ata', 'Lang’ata', "Lang'ata", 'LANG`ATA', 'Lang´ata', 'Lang ata'],
    ['gĩthũrai', 'Gĩthũrai', 'GĨTHŨRAI', 'GI\u0303THU\u0303RAI', 'nw_gĩthũrai_fdt'],
    [null, 'NW', 'FDT12', 'PORT 4', 'NW_CORE', 'KIL03', '📍', '12', 'Hse No 4', 'INC0012345', '🏳️‍🌈👍🏿🇰🇪', '‘’', '_'],
  ];
  for (const [key, ...spellings] of classes) {
    test(String(key), async () => assert.equal(await onePlace(spellings), key));
  }

  test('whatever codes stand around a real place, in whatever order', async () => {
    const codes = [
      'NW',
      'ADR_MNT',
      'FDT12',
      'fdt-07',
      'FAT 3',
      'PON 0/1/3',
      'GPON 0/2',
      'OLT3',
      'SDUS',
      'mdu',
      'ODF',
      'KIL03',
    ];
    const noise = [...codes, 'INC0012345', 'WOT 0715527', 'PORT 4', 'NODE-2', 'Hse No 14', 'Blk C', '2nd floor', '📍'];
    // The rule takes a bare number off the end, and a repeated word: such a name would test the noise, not the place.
    const names = [...new Set(allPlaces.map(({ name }) => name))].filter((name) => /^[^\d]+$/.test(name));
    const spelling = fc.record({
      name: fc.constantFrom(...names),
      front: fc.array(fc.constantFrom(...noise), { maxLength: 4 }),
      back: fc.array(fc.constantFrom(...noise), { maxLength: 4 }),
      separator: fc.constantFrom('_', ' ', '__', ' / ', ', ', ' | ', ' > '),
    });
    const samples = fc.sample(spelling, { numRuns: 1500, seed: 11 });
    const plain = await keys(samples.map(({ name }) => name));
    const noisy = samples.map(({ name, front, back, separator }) => [...front, name, ...back].join(separator));
    assert.deepEqual(
      (await normalise(noisy)).map(({ raw, key }) => [raw, key]),
      noisy.map((raw, i) => [raw, plain[i]]),
    );
    assert.ok(plain.every((key) => key !== null));
  });
});

test('a real place keeps its words', async () => {
  const names = [...new Set(allPlaces.map(({ name }) => name))].filter((name) => /^[A-Za-z ]+$/.test(name));
  const expected = names.map((name) => name.toLowerCase());
  assert.ok(names.length > 300);
  const found = await keys(names);
  const changed = names.filter((_, i) => found[i] !== expected[i]);
  // Abbreviations and spellings of the vocabulary may change a name; codes may not eat one.
  assert.ok(changed.length < names.length / 50, changed.join(', '));
});

describe('for any text', () => {
  const fragment = fc.constantFrom(
    ...[
      'NW',
      'fdt12',
      'FDT-07',
      'PON',
      'PORT',
      'Ring',
      'CORE',
      'INC0012345',
      'KIL03',
      'House',
      'HSE',
      'H',
      'No',
      'Block',
      'blk4',
    ],
    ...[
      'Court',
      'flr',
      '2nd',
      'ground',
      'Apt',
      'opp',
      'next',
      'to',
      'in',
      'front',
      'of',
      'Umoja',
      'PH5',
      'Phase',
      'II',
      '4',
      '14B',
    ],
    ...[
      'A104',
      'B',
      'Est',
      'Rd',
      'St',
      'NBO',
      'buru',
      'BURU',
      'Saba',
      'SABA',
      'Kilimani',
      'KILIMANI',
      "Lang'ata",
      'T-Mall',
      'TRM',
    ],
    ...[
      'Gĩthũrai',
      'É',
      'ﬁ',
      'ŉ',
      '①',
      '📍',
      '🏳️‍🌈',
      '2️⃣',
      '№',
      '٣',
      '漢字',
      '\u200b',
      '\u0301',
      '\ufffd',
      '=',
      '+',
      '#',
      '´',
      '%',
      '\\',
    ],
  );
  const separator = fc.constantFrom('_', ' ', ' ', '-', "'", '/', ',', '', '\n', '.');
  const name = fc.array(fc.tuple(fragment, separator), { maxLength: 9 }).map((parts) => parts.flat().join(''));
  const wild = fc.string({ unit: 'binary', maxLength: 40 }).map((text) => text.replaceAll('\0', ''));
  const texts = () => [
    ...fc.sample(name, { numRuns: 4000, seed: 1 }),
    ...fc.sample(wild, { numRuns: 2000, seed: 2 }).map((text) => text.toWellFormed()),
    ...[
      'Ngong '.repeat(2000),
      'x'.repeat(1e6),
      '7'.repeat(1000),
      'FDT12_'.repeat(300),
      'é'.repeat(600),
      'ﷺ'.repeat(600),
      'St '.repeat(150),
    ],
  ];

  test('the key and the query are bounded, and keys of themselves', async () => {
    const found = await normalise(texts());
    for (const { raw, key, query } of found) {
      assert.equal(key === null, query === null, raw);
      if (key === null) continue;
      assert.ok(key.length > 0 && [...key].length <= 200, raw);
      assert.equal(key, key.normalize('NFC'));
      assert.doesNotMatch(key, /^ | $| {2}|[_'=-]|[A-Z]/, raw);
    }
    const settled = found.filter(({ key }) => key !== null);
    const keysOfKeys = await keys(settled.map(({ key }) => key));
    const keysOfQueries = await keys(settled.map(({ query }) => query));
    for (const [i, { raw, key, query }] of settled.entries()) {
      assert.equal(keysOfKeys[i], key, JSON.stringify({ raw, key }));
      assert.equal(keysOfQueries[i], key, JSON.stringify({ raw, key, query }));
    }
  });
});

test('fit for a generated column: immutable, parallel safe, and nothing in the search path matters', async () => {
  const { rows } = await env.pool.query(`
    select proname from pg_proc
    where pronamespace = 'tickets'::regnamespace
      and proname in ('location_key', 'location_query', 'location_words', 'location_walk', 'plain_name', 'location_vocabulary')
      and provolatile = 'i' and proparallel = 's' and obj_description(oid, 'pg_proc') is not null
    order by proname`);
  assert.equal(rows.length, 6);
  const client = await env.pool.connect();
  try {
    await client.query(`begin`);
    await client.query(`set local search_path = ''`);
    const { rows: pinned } = await client.query(`select tickets.location_query('NW_Lang’ata Rd_FDT 3📍') as query`);
    assert.equal(pinned[0].query, "Lang'ata Road");
  } finally {
    await client.query('rollback');
    client.release();
  }
});
