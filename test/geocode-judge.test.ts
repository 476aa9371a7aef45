/** The judge: which candidate, if any, is the place. Rules and ranking live in SQL, so they are tested there. */
import assert from 'node:assert/strict';
import { after, before, beforeEach, describe, test } from 'node:test';
import fc from 'fast-check';
import { type Environment, startEnvironment } from './support/environment.ts';

const NAIROBI = { lat: -1.2921, lng: 36.8219 };

type Candidate = { lat: unknown; lng: unknown; level?: string; country?: string | null; label?: string | null };

let env: Environment;
before(async () => {
  env = await startEnvironment();
});
after(() => env.close());

const at = (label: string, lat: unknown, lng: unknown, level = 'neighbourhood', country = 'ke'): Candidate => ({
  lat,
  lng,
  level,
  country,
  label,
});

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

describe('judging again, without a call', () => {
  beforeEach(() => env.reset());

  const point = (lng: number, lat: number) => `st_setsrid(st_makepoint(${lng}, ${lat}), 4326)`;
  const store = async (cluster: string, name: string, candidates: Candidate[]) => {
    await env.pool.query(
      `insert into tickets_ops.geocoding_answers (cluster, location_key, query, provider, candidates)
       values ($1, tickets.location_key($2), 'q', 'locationiq', $3)`,
      [cluster, name, JSON.stringify(candidates)],
    );
    const { rows } = await env.pool.query(
      `select tickets_ops.resolve_location($1, tickets.location_key($2), $2, 'locationiq', true) as status`,
      [cluster, name],
    );
    return rows[0].status;
  };
  const statuses = async () => {
    const { rows } = await env.pool.query('select location_name, status from tickets.geo_locations order by 1');
    return Object.fromEntries(rows.map(({ location_name, status }) => [location_name, status]));
  };
  const geoSources = async () => {
    const { rows } = await env.pool.query('select ticket_id, geo_source from tickets.inc order by 1');
    return rows.map(({ geo_source }) => geo_source);
  };
  const ticket = (id: string, cluster: string, location_name: string) =>
    env.pool.query('insert into tickets.inc (ticket_id, raw) values ($1, $2)', [
      id,
      JSON.stringify({ cluster, location_name, is_actionable: 'true' }),
    ]);

  test('a widened guard, a moved centroid; tickets follow in the same statement', async () => {
    await env.pool.query(
      `insert into tickets.geo_clusters (cluster, geom) values ('Nairobi', ${point(36.8219, -1.2921)})`,
    );
    await ticket('T1', 'Nairobi', 'NW_Kitengela_FDT1');
    await ticket('T2', 'Nairobi', 'NW_Kilimani');
    await store('Nairobi', 'NW_Kitengela_FDT1', [at('Kitengela, Kajiado', -1.4731, 36.9575)]);
    await store('Nairobi', 'NW_Kilimani', [
      at('Kilimani, Mombasa', -4.05, 39.66),
      at('Kilimani, Nairobi', -1.29, 36.79),
    ]);
    assert.deepEqual(
      await statuses(),
      { NW_Kilimani: 'found', NW_Kitengela_FDT1: 'rejected' },
      '25.1 km and more is too far',
    );
    assert.deepEqual(await geoSources(), ['cluster', 'location']);

    await env.pool.query(`update tickets.geo_clusters set guard_km = 30 where cluster = 'Nairobi'`);
    assert.deepEqual(await statuses(), { NW_Kilimani: 'found', NW_Kitengela_FDT1: 'found' });
    assert.deepEqual(await geoSources(), ['location', 'location']);

    await env.pool.query(`update tickets.geo_clusters set geom = ${point(39.6682, -4.0435)} where cluster = 'Nairobi'`);
    assert.deepEqual(await statuses(), { NW_Kilimani: 'found', NW_Kitengela_FDT1: 'rejected' });
    const { rows } = await env.pool.query(`select longitude from tickets.inc where ticket_id = 'T2'`);
    assert.equal(rows[0].longitude, 39.66, 'the other candidate is the right one now');
    assert.deepEqual(await geoSources(), ['cluster', 'location']);
  });

  test('places that are rejected but agree flag their cluster, and its correction clears the flag', async () => {
    await env.pool.query(
      `insert into tickets.geo_clusters (cluster, geom) values ('Milimani', ${point(36.81, -1.2905)})`,
    );
    await env.pool.query('update tickets.geo_clusters set verified = false');
    const suspicious = async () => {
      const { rows } = await env.pool.query('select suspicious from tickets.geo_clusters');
      return rows[0].suspicious;
    };
    for (const [index, name] of ['Tom Mboya', 'Aga Khan', 'Ring Road', 'Oginga'].entries()) {
      assert.equal(await suspicious(), index >= 3, `after ${index} rejected places`);
      await store('Milimani', name, [at(`${name}, Kisumu`, -0.1 - index / 100, 34.75)]);
    }
    const { rows } = await env.pool.query('select cluster, status from tickets_ops.review_queue limit 1');
    assert.deepEqual(rows, [{ cluster: 'Milimani', status: 'suspicious' }], 'it is the first to review');
    await env.pool.query(`update tickets.geo_clusters set geom = ${point(34.75, -0.1)}`);
    assert.equal(await suspicious(), false);
    assert.deepEqual(Object.values(await statuses()), Array(4).fill('found'));
  });

  test('a cluster that may be its namesake is flagged, the tickets’ region decides, and a person’s word ends the doubt', async () => {
    const ask = async () => {
      await env.pool.query(
        `insert into tickets_ops.geocoding_answers (cluster, location_key, query, provider, candidates)
         values ('Milimani', '', 'q', 'locationiq', $1)`,
        [JSON.stringify([at('Milimani, Nairobi', -1.2905, 36.81), at('Milimani, Nakuru', -0.29, 36.06)])],
      );
      await env.pool.query(`select tickets_ops.resolve_cluster('Milimani', 'locationiq', true)`);
      const { rows } = await env.pool.query(
        'select suspicious, round(st_y(geom)::numeric, 2)::float8 as lat from tickets.geo_clusters',
      );
      return rows[0];
    };
    assert.deepEqual(await ask(), { suspicious: true, lat: -1.29 });
    const { rows } = await env.pool.query('select status, note from tickets_ops.review_queue');
    assert.equal(rows[0].status, 'suspicious');
    assert.match(rows[0].note, /may be another of this name: Milimani, Nairobi, or Milimani, Nakuru/);
    await env.pool.query(`insert into tickets.inc (ticket_id, raw) values ('T1', $1)`, [
      JSON.stringify({ cluster: 'Milimani', region: 'Nakuru', is_actionable: 'true' }),
    ]);
    assert.deepEqual(await ask(), { suspicious: false, lat: -0.29 });
    await env.pool.query('update tickets.inc set raw = raw || \'{"region": "Coast"}\'');
    assert.equal((await ask()).suspicious, true);
    await env.pool.query('update tickets.geo_clusters set verified = true');
    assert.deepEqual(await ask(), { suspicious: false, lat: -1.29 });
  });

  test('a coordinate of the Python version follows the guard too, with its note and its time', async () => {
    await env.pool.query(
      `insert into tickets.geo_clusters (cluster, geom) values ('Nairobi', ${point(36.8219, -1.2921)})`,
    );
    await ticket('T1', 'Nairobi', 'Karen');
    // As the takeover writes them: past the triggers, which refuse a person's coordinate outside Kenya.
    await env.pool.query(`
      alter table tickets.geo_locations disable trigger _050_verified;
      insert into tickets.geo_locations (cluster, location_key, location_name, status, geom) values
        ('Nairobi', 'karen', 'Karen', 'found', ${point(36.71, -1.32)}),
        ('Nairobi', 'namanga', 'Namanga', 'found', ${point(36.683, -3.3869)});
      alter table tickets.geo_locations enable trigger _050_verified`);
    const guard = async (km: number) => {
      await env.pool.query('update tickets.geo_clusters set guard_km = $1', [km]);
      const { rows } = await env.pool.query(
        `select status, note, round(extract(epoch from expires_at - now()) / 86400)::int as days
         from tickets.geo_locations where location_name = 'Karen'`,
      );
      return rows[0];
    };
    const note = 'Taken over from the Python version: beyond the guard of this cluster, or outside Kenya.';
    assert.deepEqual(await guard(5), { status: 'needs_review', note, days: 30 });
    assert.deepEqual(await geoSources(), ['cluster']);
    assert.deepEqual(await guard(400), { status: 'found', note: null, days: 180 });
    assert.deepEqual(await geoSources(), ['location']);
    assert.equal((await statuses()).Namanga, 'needs_review', 'within the guard, but not in Kenya');
  });

  test('the order in which places are asked does not decide whether their cluster is flagged', async () => {
    const all = async (names: string[], lat: number, lng: number) => {
      for (const name of names) await store('Milimani', name, [at(name, lat, lng)]);
    };
    const ask = {
      rejected: () => all(['Tom Mboya', 'Aga Khan', 'Ring Road'], -0.1, 34.75),
      found: () => all(['Olive Court', 'Palm Court', 'Rose Court', 'Uhuru Court'], -1.29, 36.81),
      verified: () =>
        env.pool.query(`
          insert into tickets.geo_locations (cluster, location_name, geom)
          select 'Milimani', 'Place ' || chr(64 + n), ${point(36.81, -1.29)} from generate_series(1, 4) n`),
    };
    for (const order of [
      ['rejected', 'found'],
      ['found', 'rejected'],
      ['verified', 'rejected'],
    ] as const) {
      await env.reset();
      await env.pool.query(
        `insert into tickets.geo_clusters (cluster, geom) values ('Milimani', ${point(36.81, -1.2905)})`,
      );
      await env.pool.query('update tickets.geo_clusters set verified = false');
      for (const what of order) await ask[what]();
      const { rows } = await env.pool.query('select suspicious from tickets.geo_clusters');
      assert.equal(rows[0].suspicious, false, order.join(', '));
    }
  });

  test('rejected places that do not agree say nothing about the centroid', async () => {
    await env.pool.query(
      `insert into tickets.geo_clusters (cluster, geom) values ('Milimani', ${point(36.81, -1.2905)})`,
    );
    await env.pool.query('update tickets.geo_clusters set verified = false');
    await store('Milimani', 'Tom Mboya', [at('Tom Mboya', -0.1, 34.75)]);
    await store('Milimani', 'Aga Khan', [at('Aga Khan', -4.05, 39.66)]);
    await store('Milimani', 'Oginga', [at('Oginga', 0.51, 35.27)]);
    const { rows } = await env.pool.query('select suspicious from tickets.geo_clusters');
    assert.equal(rows[0].suspicious, false);
  });

  test('what a person sets is verified; accepting, rejecting and handing back are plain updates', async () => {
    await env.pool.query(
      `insert into tickets.geo_clusters (cluster, geom) values ('Nairobi', ${point(36.8219, -1.2921)})`,
    );
    await ticket('T1', 'Nairobi', 'NW_Rose Court');
    const row = async () => {
      const { rows } = await env.pool.query(
        'select status, verified, provider, precision, expires_at is null as for_ever from tickets.geo_locations',
      );
      return rows[0];
    };
    await store('Nairobi', 'NW_Rose Court', [at('Nairobi', -1.28, 36.81, 'city')]);
    const pipeline = { verified: false, provider: 'locationiq', for_ever: false };
    assert.deepEqual(await row(), { ...pipeline, status: 'needs_review', precision: 'city' });
    assert.deepEqual(await geoSources(), ['cluster']);

    await env.pool.query('update tickets.geo_locations set verified = true');
    assert.deepEqual(await row(), {
      status: 'found',
      verified: true,
      provider: 'locationiq',
      precision: 'city',
      for_ever: true,
    });
    assert.deepEqual(await geoSources(), ['location']);

    await env.pool.query(`update tickets.geo_locations set geom = ${point(36.79, -1.29)}`);
    assert.deepEqual(await row(), {
      status: 'found',
      verified: true,
      provider: 'manual',
      precision: 'point',
      for_ever: true,
    });

    await env.pool.query(`update tickets.geo_locations set status = 'rejected'`);
    assert.equal((await row()).verified, true);
    assert.deepEqual(await geoSources(), ['cluster']);

    await store('Nairobi', 'NW_Rose Court', [at('Rose Court', -1.3, 36.8, 'point')]);
    assert.equal((await row()).status, 'rejected', 'the pipeline cannot overwrite it');
    await env.pool.query('update tickets.geo_locations set verified = false');
    assert.equal((await row()).for_ever, false, 'handed back: due at once');

    await env.pool.query('delete from tickets.geo_locations');
    assert.deepEqual(await geoSources(), ['cluster']);
    await env.pool.query(
      `insert into tickets.geo_locations (cluster, location_name, geom) values ('Nairobi', 'ADR_Rose Court_FDT9', ${point(36.79, -1.29)})`,
    );
    assert.deepEqual(await row(), {
      status: 'found',
      verified: true,
      provider: 'manual',
      precision: 'point',
      for_ever: true,
    });
    assert.deepEqual(await geoSources(), ['location']);
    await env.pool.query('delete from tickets.geo_clusters');
    assert.deepEqual(await geoSources(), ['location']);
  });

  test('a curator who may only write the gazetteers accepts, moves and takes away; the tickets follow', async () => {
    const curator = `curator_${process.pid}`;
    await env.pool.query(
      `create role ${curator};
       grant usage on schema tickets to ${curator};
       grant select, insert, update on tickets.geo_clusters, tickets.geo_locations to ${curator}`,
    );
    await env.pool.query(
      `insert into tickets.geo_clusters (cluster, geom) values ('Nairobi', ${point(36.8219, -1.2921)})`,
    );
    await ticket('T1', 'Nairobi', 'NW_Rose Court');
    await store('Nairobi', 'NW_Rose Court', [at('Nairobi', -1.28, 36.81, 'city')]);
    const client = await env.pool.connect();
    const asCurator = async (statement: string) => {
      await client.query('begin');
      await client.query(`set local role ${curator}`);
      await client.query(statement);
      await client.query('commit');
    };
    try {
      await asCurator('update tickets.geo_locations set verified = true');
      assert.deepEqual(await geoSources(), ['location']);
      await asCurator(`update tickets.geo_locations set geom = ${point(36.79, -1.29)}`);
      await asCurator(`update tickets.geo_clusters set geom = ${point(36.8, -1.3)}, guard_km = 30`);
      await asCurator(`update tickets.geo_locations set status = 'rejected'`);
      const { rows } = await env.pool.query('select geo_source, longitude from tickets.inc');
      assert.deepEqual(rows, [{ geo_source: 'cluster', longitude: 36.8 }]);
      await asCurator('update tickets.geo_clusters set geom = null');
      assert.deepEqual(await geoSources(), ['none']);
    } finally {
      await client.query('rollback');
      client.release();
      await env.pool.query(`drop owned by ${curator}; drop role ${curator}`);
    }
  });

  test('the pipeline’s mark does not outlive its function', async () => {
    await env.pool.query(
      `insert into tickets.geo_clusters (cluster, geom) values ('Nairobi', ${point(36.8219, -1.2921)})`,
    );
    const client = await env.pool.connect();
    try {
      await client.query('begin');
      await client.query(
        `insert into tickets_ops.geocoding_answers values ('Nairobi', 'kilimani', 'q', 'locationiq', '[]')`,
      );
      await client.query(`select tickets_ops.resolve_location('Nairobi', 'kilimani', 'Kilimani', 'locationiq', true)`);
      await client.query(`update tickets.geo_locations set geom = ${point(36.79, -1.29)}`);
      await client.query('commit');
    } finally {
      client.release();
    }
    const { rows } = await env.pool.query('select verified, provider from tickets.geo_locations');
    assert.deepEqual(rows, [{ verified: true, provider: 'manual' }]);
  });
});
