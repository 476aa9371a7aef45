/** The judge: which candidate, if any, is the place. Rules and ranking live in SQL, so they are tested there. */
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import fc from 'fast-check';
import { at, type Candidate } from '../support/candidates.ts';
import { type Environment, startEnvironment } from '../support/environment.ts';

const NAIROBI = { lat: -1.2921, lng: 36.8219 };

let env: Environment;
before(async () => {
  env = await startEnvironment();
});
after(() => env.close());

async function judge(candidates: unknown, { place = 'Kilimani', cluster = 'Nairobi Central', guard = 25 } = {}) {
  const { rows } = await env.pool.query(
    `select status, round(st_y(geom)::numeric, 4)::float8 as lat, precision, confidence::float8, distance_km::float8, note
     from tickets_ops.judge_location($1, tickets.location_key($2), $3, st_setsrid(st_makepoint($4, $5), 4326), $6)`,
    [JSON.stringify(candidates), place, cluster, NAIROBI.lng, NAIROBI.lat, guard],
  );
  assert.equal(rows.length, 1, 'there is always one verdict');
  return rows[0];
}

describe('a candidate that cannot be the place', () => {
  const refused: [what: string, candidate: Candidate, why: RegExp][] = [
    [
      'beyond the guard',
      at('Kilimani, Mombasa', -4.0435, 39.6682),
      /km from the centre of the cluster, the guard is 25 km/,
    ],
    ['a dropped minus sign', at('Kilimani', 1.2921, 36.8219), /285\.\d km from the centre/],
    ['swapped axes', at('Kilimani', 36.79, -1.29), /swapped/],
    ['0,0', at('Kilimani', 0, 0), /0,0/],
    ['nearly 0,0', at('Kilimani', 0.001, -0.001), /0,0/],
    ['no latitude', at('Kilimani', null, 36.79), /no coordinates/],
    ['text for a latitude', at('Kilimani', '', 36.79), /no coordinates/],
    ['out of range', at('Kilimani', -91, 36.79), /no coordinates/],
    ['a number beyond all bounds', at('Kilimani', 1e300, 36.79), /no coordinates/],
    ['across the border, inside the bounding box', at('Kilimani, Namanga', -3.3869, 36.683), /not in Kenya/],
    ['of another country by the provider', at('Kilimani', -1.29, 36.79, 'neighbourhood', 'tz'), /not in Kenya/],
  ];
  for (const [what, candidate, why] of refused) {
    test(what, async () => {
      const verdict = await judge([candidate]);
      assert.equal(verdict.status, 'rejected');
      assert.match(verdict.note, why);
      assert.equal(verdict.lat, null);
      assert.equal(
        (await judge([candidate, at('Kilimani, Nairobi', -1.29, 36.79)])).status,
        'found',
        'the right one behind it',
      );
    });
  }
});

test('the border town and its neighbour: the guard may be wide, the country is not', async () => {
  const guard = 400;
  assert.equal((await judge([at('Kilimani, Arusha', -3.3869, 36.683)], { guard })).status, 'rejected');
  assert.equal((await judge([at('Kilimani, Mombasa', -4.0435, 39.6682)], { guard: 500 })).status, 'found');
});

test('a homonym first and the right place second', async () => {
  const verdict = await judge([at('Milimani, Kisumu', -0.11, 34.76), at('Milimani, Nairobi', -1.2905, 36.81)], {
    place: 'NW_Milimani_FDT3',
  });
  assert.deepEqual([verdict.status, verdict.lat, verdict.precision], ['found', -1.2905, 'neighbourhood']);
});

test('only a city or county: a person decides', async () => {
  const verdict = await judge([at('Nairobi, Kenya', -1.2833, 36.8167, 'city')], { place: 'Rose Court' });
  assert.deepEqual([verdict.status, verdict.precision], ['needs_review', 'city']);
  assert.match(verdict.note, /Only a city or county/);
});

test('a town is a place when it was asked for, a fallback when not', async () => {
  const town = at('Juja, Kiambu', -1.102, 37.0144, 'town');
  assert.equal((await judge([town], { place: 'Juja', guard: 40 })).precision, 'neighbourhood');
  assert.equal((await judge([town], { place: 'Juja Farm', guard: 40 })).status, 'needs_review');
});

test('another name: a person decides', async () => {
  const verdict = await judge([at('Donholm Estate, Nairobi', -1.295, 36.89)], { place: 'Nyayo Estate' });
  assert.equal(verdict.status, 'needs_review');
  assert.match(verdict.note, /another name: Donholm Estate/);
  const avenue = await judge([at('Rose Avenue, Nairobi', -1.295, 36.79, 'street')], { place: 'Rose Court' });
  assert.equal(avenue.status, 'needs_review', 'an avenue is no court');
});

test('another number is another place; a name without one is only its surroundings', async () => {
  const verdict = async (place: string, label: string, level = 'neighbourhood') => {
    const { status, precision } = await judge([at(label, -1.29, 36.8, level)], { place });
    return `${status} ${precision}`;
  };
  assert.equal(await verdict('Umoja 2', 'Umoja 1, Nairobi'), 'needs_review neighbourhood');
  assert.equal(await verdict('Umoja II', 'Umoja Phase 1, Nairobi'), 'needs_review neighbourhood');
  assert.equal(await verdict('South B', 'South C, Nairobi'), 'needs_review neighbourhood');
  assert.equal(await verdict('Section 58', 'Section 5, Nakuru'), 'needs_review neighbourhood');
  assert.equal(await verdict('Mombasa Road A104', 'Mombasa Road A109', 'street'), 'needs_review street');
  assert.equal(
    await verdict('Rose Court Buruburu PH5', 'Rose Court, Buruburu Phase 2, Nairobi', 'point'),
    'needs_review point',
  );
  assert.equal(await verdict('Umoja 2', 'Umoja 2, Nairobi'), 'found neighbourhood');
  assert.equal(await verdict('Umoja 2', 'Umoja, Nairobi, 00515'), 'found neighbourhood');
  assert.equal(await verdict('Umoja 2', 'Umoja Road, Nairobi', 'street'), 'needs_review street');
  assert.equal(await verdict('Umoja 2', 'Umoja, Nairobi', 'point'), 'needs_review point');
  assert.equal(await verdict('Rose Court Umoja 2', 'Rose Court, Umoja 2, Nairobi', 'point'), 'found point');
});

test('a point or a street has every telling word, and is the same kind of thing', async () => {
  const status = async (place: string, label: string, level = 'point') =>
    (await judge([at(label, -1.29, 36.8, level)], { place })).status;
  for (const [place, label] of [
    ['Sunrise Apartments', 'Sunrise Academy, Nairobi'],
    ['Valley Plaza', 'Green Valley Academy, Nairobi'],
    ['Valley Plaza', 'Green Valley Kindergarten, Nairobi'],
    ['Valley', 'Green Valley Academy, Nairobi'],
    ['Rose Acacia Court', 'Rose Court, Nairobi'],
    ['Village Market', 'Toi Market, Nairobi'],
    ['School', 'Kilimani School, Nairobi'],
    ['Green Valley', 'Valley Arcade, Nairobi'],
  ] as const) {
    assert.equal(await status(place, label), 'needs_review', `${place}: ${label}`);
  }
  for (const [place, label] of [
    ['Rose Court', 'Rose Court Apartments, Nairobi'],
    ['Naivas', 'Naivas Supermarket, Nairobi'],
    ['Village Market', 'Village Market, Nairobi'],
    ['Valley Plaza', 'Green Valley Plaza, Nairobi'],
  ] as const) {
    assert.equal(await status(place, label), 'found', `${place}: ${label}`);
  }
  assert.equal(await status('Naivas Ruaka', 'Ruaka, Kiambu', 'neighbourhood'), 'found');
  assert.equal(await status('Green Valley', 'Valley Arcade, Nairobi', 'neighbourhood'), 'needs_review');
});

test('words behind the name say where; the label must not lack them', async () => {
  const verdict = async (label: string, place: string, cluster: string, lng = 36.8, level = 'point') =>
    (await judge([at(label, -1.29, lng, level)], { place, cluster })).status;
  assert.equal(await verdict('Rose Court, Karen, Nairobi', 'Rose Court Karen', 'Nairobi West'), 'found');
  assert.equal(await verdict('Rose Court, Dandora, Nairobi', 'Rose Court Karen', 'Nairobi West'), 'needs_review');
  assert.equal(await verdict('Rose Court, Buruburu Phase 5', 'Rose Court Buruburu PH5', 'Donholm'), 'found');
  assert.equal(
    await verdict('Rose Court, Nairobi', 'Rose Court Ruaka', 'Ruaka'),
    'found',
    'near its centre all is in Ruaka',
  );
  assert.equal(await verdict('Rose Court, Nairobi', 'Rose Court Ruaka', 'Ruaka', 36.95), 'needs_review');
  const area = await verdict('Ruaka, Kiambu', 'Naivas Ruaka', 'Kiambu', 36.8, 'neighbourhood');
  assert.equal(area, 'found', 'a detail that the map lacks');
});

test('a slip of one letter is forgiven, two are not', async () => {
  const status = async (place: string) =>
    (await judge([at('Ushirika Gardens, Nairobi', -1.29, 36.8)], { place })).status;
  assert.deepEqual(
    await Promise.all(['Usirika Gadens', 'Ushirika Gardens', 'Ushirikka Gardens'].map(status)),
    Array(3).fill('found'),
  );
  assert.deepEqual(await Promise.all(['Usrika Gardens', 'Tumaini Gardens'].map(status)), Array(2).fill('needs_review'));
});

test('the cluster’s own name proves nothing', async () => {
  const fallback = at('Kilimani, Nairobi', -1.29, 36.79);
  const verdict = await judge([fallback], { place: 'Rose Court Kilimani', cluster: 'Kilimani' });
  assert.equal(verdict.status, 'needs_review');
  assert.equal((await judge([fallback], { place: 'Kilimani', cluster: 'Kilimani' })).status, 'found');
});

test('what a place is named after is not the place', async () => {
  const status = async (place: string, label: string, cluster: string, level = 'neighbourhood') =>
    (await judge([at(label, -1.29, 36.79, level)], { place, cluster })).status;
  assert.equal(await status('Kilimani Primary School', 'Kilimani, Nairobi', 'Kilimani'), 'needs_review');
  assert.equal(
    await status('Kilimani Primary School', 'Kilimani Primary School, Nairobi', 'Kilimani', 'point'),
    'found',
  );
  assert.equal(await status('Westlands Square', 'Westlands, Nairobi', 'Westlands'), 'needs_review');
  assert.equal(await status('Langata Road', 'Langata, Nairobi', 'Kilimani'), 'needs_review');
  assert.equal(await status('Langata Rd', 'Langata, Langata Road, Nairobi', 'Kilimani', 'point'), 'needs_review');
  assert.equal(await status('Langata Road', 'Langata Road, Nairobi', 'Kilimani', 'street'), 'found');
  assert.equal(await status('Ring Road Kilimani', 'Kilimani, Nairobi', 'Nairobi West'), 'found', 'that road is in it');
});

test('a name is rather itself than one that is a letter off', async () => {
  const mathari = at('Mathari, Nairobi, Kenya', -1.2921, 36.8219);
  const mathare = at('Mathare, Nairobi, Kenya', -1.26, 36.86);
  assert.equal((await judge([mathari, mathare], { place: 'Mathare' })).lat, -1.26, 'although the other is nearer');
  assert.equal((await judge([mathari], { place: 'Mathare' })).status, 'found', 'there is no better');
  const nyeri = at('Mathari, Nyeri, Kenya', -0.42, 36.95);
  const verdict = await centroid([nyeri, mathari, mathare], 'mathare');
  assert.deepEqual(verdict, { lat: -1.26, note: null, ambiguous: false }, 'nor is it a namesake');
});

test('spelling differs in blanks and apostrophes', async () => {
  assert.equal((await judge([at('Langata, Nairobi', -1.36, 36.75)], { place: 'Lang’ata' })).status, 'found');
  assert.equal((await judge([at('Buru Buru Phase 5', -1.286, 36.88)], { place: 'Buruburu PH5' })).status, 'found');
});

test('the best, not the first: name, then precision, then distance', async () => {
  const suburb = at('Kilimani, Nairobi', -1.29, 36.79);
  const shop = at('Kilimani Pharmacy, Kilimani, Nairobi', -1.291, 36.8, 'point');
  assert.equal((await judge([shop, suburb])).lat, -1.29, 'a shop named after the suburb is not the suburb');
  const [street, house] = [at('Rose Court', -1.3, 36.79, 'street'), at('Rose Court', -1.31, 36.79, 'point')];
  assert.equal((await judge([street, house], { place: 'Rose Court' })).lat, -1.31, 'the more precise');
  const [far, near] = [at('Rose Court', -1.45, 36.9, 'point'), at('Rose Court', -1.3, 36.82, 'point')];
  assert.equal((await judge([far, near], { place: 'Rose Court' })).lat, -1.3, 'the nearer');
});

test('no candidate: not found', async () => {
  const unknown = { status: 'not_found', lat: null, precision: null, confidence: null, distance_km: null, note: null };
  assert.deepEqual(await judge([]), unknown);
  assert.deepEqual(await judge({ not: 'a list' }), unknown);
});

test('whatever a provider sends, there is one verdict, and only a point in Kenya within the guard is found', async () => {
  const coordinate = fc.oneof(
    fc.double({ min: -200, max: 200, noNaN: true }),
    fc.double({ min: -5, max: 5, noNaN: true }),
    fc.double({ min: 33, max: 42, noNaN: true }),
    fc.constantFrom(null, '', 'x', [], {}, true),
  );
  const candidate = fc.record(
    {
      lat: coordinate,
      lng: coordinate,
      level: fc.constantFrom('point', 'street', 'neighbourhood', 'town', 'city', 'planet', null),
      country: fc.constantFrom('ke', 'tz', null),
      label: fc.oneof(fc.string({ unit: 'grapheme' }), fc.constantFrom('Kilimani', ',,,', 'Kilimani, Nairobi', null)),
    },
    { requiredKeys: [] },
  );
  const anything = fc.array(fc.oneof(candidate, fc.jsonValue({ maxDepth: 1 })), { maxLength: 4 });
  await fc.assert(
    fc.asyncProperty(anything, async (candidates) => {
      const json = JSON.stringify(candidates).replaceAll('\\u0000', '');
      const { rows } = await env.pool.query(
        `select v.status, tickets.in_kenya(v.geom) and v.distance_km <= 25 as fits
         from tickets_ops.judge_location($1, 'kilimani', 'Nairobi', st_setsrid(st_makepoint(36.82, -1.29), 4326), 25) v`,
        [json],
      );
      assert.equal(rows.length, 1);
      if (rows[0].status === 'found' || rows[0].status === 'needs_review') assert.equal(rows[0].fits, true, json);
    }),
    { numRuns: 150, seed: 20260615 },
  );
});

async function centroid(candidates: Candidate[], key: string, region: string | null = null) {
  const { rows } = await env.pool.query(
    'select round(st_y(geom)::numeric, 4)::float8 as lat, note, ambiguous from tickets_ops.judge_cluster($1, $2, $3, 25)',
    [JSON.stringify(candidates), key, region],
  );
  return rows[0];
}

test('a cluster is an area: the suburb or town of its name, not a shop, not elsewhere', async () => {
  const shop = at('Nakuru Stores', -1.2, 36.8, 'point');
  const town = at('Nakuru, Kenya', -0.2833, 36.0667, 'city');
  assert.equal((await centroid([shop, town], 'nakuru')).lat, -0.2833);
  assert.match((await centroid([at('Nairobi, Kenya', -1.28, 36.82, 'city')], 'backbone east')).note, /another name/);
  assert.match((await centroid([at('Kilimani', 36.79, -1.29)], 'kilimani')).note, /swapped/);
  assert.equal(await centroid([], 'kilimani'), undefined);
});

test('a cluster is not the city that it is named after', async () => {
  for (const [key, label, region] of [
    ['mombasa road', 'Mombasa, Mombasa County, Kenya', 'Nairobi'],
    ['thika road', 'Thika, Kiambu County, Kenya', 'Nairobi'],
    ['nairobi west', 'Nairobi, Kenya', 'Nairobi'],
    ['kisumu east', 'Kisumu, Kisumu County, Kenya', 'Kisumu'],
    ['westlands square', 'Westlands, Nairobi, Kenya', 'Nairobi'],
  ] as const) {
    for (const level of ['city', 'town', 'neighbourhood']) {
      const { lat, note } = await centroid([at(label, -1.1, 36.9, level)], key, region);
      assert.equal(lat, null, key);
      assert.match(note, /has another name/);
    }
  }
  assert.equal((await centroid([at('Nairobi West, Nairobi', -1.31, 36.82)], 'nairobi west')).lat, -1.31);
  assert.equal((await centroid([at('Mombasa Road, Nairobi', -1.32, 36.85, 'street')], 'mombasa road')).lat, -1.32);
});

test('of namesakes the one in the region is the cluster; without a region that tells, a person is asked', async () => {
  const nairobi = at('Milimani, Nairobi, Nairobi County, Kenya', -1.2905, 36.81);
  const nakuru = at('Milimani, Nakuru, Nakuru County, Kenya', -0.29, 36.06);
  const kisumu = at('Milimani, Kisumu, Kisumu County, Kenya', -0.11, 34.76);
  const milimani = (region: string | null, ...more: Candidate[]) =>
    centroid([nairobi, nakuru, kisumu, ...more], 'milimani', region);
  assert.deepEqual(await milimani('NAKURU'), { lat: -0.29, note: null, ambiguous: false });
  assert.deepEqual(await milimani('Nairobi Metro'), { lat: -1.2905, note: null, ambiguous: false });
  for (const region of [null, 'western']) {
    const { lat, note, ambiguous } = await milimani(region);
    assert.deepEqual([lat, ambiguous], [-1.2905, true]);
    assert.match(note, /another of this name: Milimani, Nairobi.*, or Milimani, Nakuru.*; Milimani, Kisumu/);
  }
  const town = at('Nakuru, Nakuru County, Kenya', -0.2833, 36.0667, 'city');
  const county = at('Nakuru, Kenya', -0.6, 36.3, 'city');
  assert.equal((await centroid([town, county], 'nakuru')).ambiguous, false, 'its county is no namesake');
  const near = at('Milimani, Nairobi, Kenya', -1.3, 36.8);
  assert.equal((await centroid([nairobi, near], 'milimani')).ambiguous, false, 'nor is a neighbour');
});
