import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { clusters, kilometres, type Place } from '../../demo/places.ts';
import { type Provider, type ProviderOptions, startProvider } from '../../demo/provider.ts';

type Found = Record<string, string> & {
  boundingbox: string[];
  matchquality: Record<string, string>;
  address: Record<string, string>;
};
type Reply = { status: number; body: Found[] & { error?: string; status?: string; balance?: object } };

async function get(provider: Provider, path: string, parameters: Record<string, string>): Promise<Reply> {
  const response = await fetch(`${provider.url}${path}?${new URLSearchParams(parameters)}`);
  assert.match(response.headers.get('content-type') ?? '', /^application\/json/);
  return { status: response.status, body: (await response.json()) as Reply['body'] };
}

const search = (provider: Provider, q: string, more: Record<string, string> = {}) =>
  get(provider, '/v1/search', { key: provider.key, q, format: 'json', countrycodes: 'ke', matchquality: '1', ...more });

const point = ({ lat, lon }: Found) => ({ lat: Number(lat), lng: Number(lon) });

describe('LocationIQ, as the stand-in speaks it', () => {
  let provider: Provider;
  before(async () => {
    provider = await startProvider({ rate: 1_000_000, perDay: 1_000_000 });
  });
  after(() => provider.close());

  test('a result has the documented fields, numbers as text', async () => {
    const { status, body } = await search(provider, 'Kilimani, Nairobi, Kenya', { addressdetails: '1' });
    assert.equal(status, 200);
    const { place_id, osm_id, importance, display_name, ...rest } = body[0] as Found;
    assert.match(`${place_id} ${osm_id}`, /^\d+ \d+$/);
    assert.equal(typeof importance, 'number');
    assert.equal(display_name, 'Kilimani, Nairobi, Nairobi County, Kenya');
    assert.deepEqual(rest, {
      licence: 'Demo data: GeoNames (CC BY 4.0) and invented premises',
      osm_type: 'node',
      boundingbox: ['-1.302000', '-1.282000', '36.775000', '36.795000'],
      lat: '-1.292000',
      lon: '36.785000',
      class: 'place',
      type: 'suburb',
      address: { suburb: 'Kilimani', city: 'Nairobi', county: 'Nairobi', country: 'Kenya', country_code: 'ke' },
      matchquality: { matchcode: 'exact', matchtype: 'centroid', matchlevel: 'neighbourhood' },
    });
  });

  test('address and match quality come only when asked for', async () => {
    const { body } = await get(provider, '/v1/search', { key: provider.key, q: 'Kilimani', format: 'json' });
    assert.deepEqual([body[0]?.address, body[0]?.matchquality], [undefined, undefined]);
  });

  test('of namesakes the most important comes first, wherever one asked from', async () => {
    const kisumu = { viewbox: '34.5,-0.35,35.0,0.15' };
    const { body } = await search(provider, 'Milimani, Kisumu, Kenya', kisumu);
    assert.match(body[0]?.display_name ?? '', /^Milimani, Nairobi/);
    assert.match(body[1]?.display_name ?? '', /^Milimani, Kisumu/);
    const only = await search(provider, 'Milimani, Kisumu, Kenya', { ...kisumu, bounded: '1' });
    assert.deepEqual(
      only.body.map((found) => found.display_name),
      ['Milimani, Kisumu, Kisumu County, Kenya'],
    );
    const one = await search(provider, 'Milimani, Kisumu, Kenya', { ...kisumu, limit: '1' });
    assert.equal(one.body.length, 1);
  });

  test('words that it does not know: the town as a fallback, or nothing', async () => {
    const replies = await Promise.all(
      ['Zq', 'Zr', 'Zs', 'Zt', 'Zu', 'Zv', 'Zw', 'Zx'].map((word) => search(provider, `${word} Flats, Nakuru, Kenya`)),
    );
    const fallback = replies.filter(({ status }) => status === 200);
    assert.ok(fallback.length > 0 && fallback.length < replies.length);
    for (const { body } of fallback) {
      assert.equal(body.length, 1);
      assert.deepEqual(body[0]?.matchquality, { matchcode: 'fallback', matchtype: 'centroid', matchlevel: 'city' });
    }
    const nothing = replies.find(({ status }) => status !== 200);
    assert.equal(nothing?.status, 404);
    assert.deepEqual(nothing?.body, { error: 'Unable to geocode' });
  });

  test('a cluster that is no place, and another country, are not found', async () => {
    assert.equal((await search(provider, 'Backbone East, Kenya')).status, 404);
    assert.equal((await search(provider, 'Kilimani', { countrycodes: 'tz,ug' })).status, 404);
  });

  test('one name in several spellings, with a lost letter too', async () => {
    for (const spelling of ["Lang'ata", 'lang ata', 'LANGATA', 'Lang’ata']) {
      const { body } = await search(provider, `${spelling}, Kenya`);
      assert.match(body[0]?.display_name ?? '', /^Lang'ata/);
    }
    const { body } = await search(provider, 'Kilmani, Kenya');
    assert.match(body[0]?.display_name ?? '', /^Kilimani/);
    assert.equal(body[0]?.matchquality.matchcode, 'approximate');
  });

  test('it finds nearly all places of the feed where they are, and has enough of each trouble', async () => {
    const seen = { first: 0, later: 0, wrongCity: 0, vague: 0, unknown: 0 };
    const all = clusters.flatMap((cluster) => cluster.places.map((place) => ({ cluster, place })));
    for (const { cluster, place } of all.filter((_, i) => i % 4 === 0)) {
      const centre = cluster.centre as Place;
      const viewbox = [centre.lng - 0.25, centre.lat - 0.25, centre.lng + 0.25, centre.lat + 0.25].join(',');
      const { body } = await search(provider, `${place.name} ${place.area ?? ''}, ${cluster.name}, Kenya`, { viewbox });
      const points = body.error ? [] : body.map(point);
      const right = points.findIndex((at) => kilometres(at, place) < 0.05);
      if (right >= 0) seen[right === 0 ? 'first' : 'later']++;
      else if (points.length === 0) seen.unknown++;
      else seen[points.some((at) => kilometres(at, centre) <= 25) ? 'vague' : 'wrongCity']++;
    }
    const total = Object.values(seen).reduce((a, b) => a + b);
    assert.ok(seen.first / total > 0.7, JSON.stringify(seen));
    assert.ok(Math.min(...Object.values(seen)) / total > 0.002, JSON.stringify(seen));
  });

  test('the same question has the same answer', async () => {
    const q = 'Baraka Court, Nakuru, Kenya';
    assert.deepEqual(await search(provider, q), await search(provider, q));
  });

  test('no key, a wrong key, no question, another path, another method', async () => {
    assert.deepEqual(await get(provider, '/v1/search', { q: 'Kilimani' }), {
      status: 401,
      body: { error: 'Invalid key' },
    });
    assert.equal((await get(provider, '/v1/search', { q: 'Kilimani', key: 'other' })).status, 401);
    assert.equal((await get(provider, '/v1/balance', { key: 'other' })).status, 401);
    assert.deepEqual(await get(provider, '/v1/search', { q: ' ', key: provider.key }), {
      status: 400,
      body: { error: 'Invalid Request' },
    });
    assert.equal((await get(provider, '/v1/reverse', { key: provider.key })).status, 404);
    assert.equal(
      (await fetch(`${provider.url}/v1/search?key=${provider.key}&q=Kilimani`, { method: 'POST' })).status,
      405,
    );
  });
});

describe('Nominatim, as the stand-in speaks it', () => {
  test('needs no key, answers [] where it finds nothing, and calls the class category in jsonv2', async (t) => {
    const provider = await startProvider();
    t.after(provider.close);
    const nothing = await get(provider, '/search', { q: 'Backbone East', format: 'jsonv2' });
    assert.deepEqual(nothing, { status: 200, body: [] });
    const { body } = await get(provider, '/search', { q: 'Nakuru, Kenya', format: 'jsonv2', countrycodes: 'ke' });
    assert.equal(body[0]?.category, 'place');
    assert.equal(typeof body[0]?.place_id, 'number');
    assert.equal(body[0]?.class, undefined);
  });
});

describe('limits, by a clock of the test', () => {
  async function limited(options: ProviderOptions) {
    const clock = { time: Date.parse('2026-06-15T23:59:00Z') };
    const provider = await startProvider({ ...options, now: () => clock.time });
    const ask = async () => {
      const { status, body } = await search(provider, 'Kilimani');
      return status === 200 ? 200 : `${status} ${body.error}`;
    };
    return { provider, clock, ask };
  }

  test('more calls than the rate in any second are refused', async (t) => {
    const { provider, clock, ask } = await limited({ rate: 2 });
    t.after(provider.close);
    assert.deepEqual([await ask(), await ask(), await ask()], [200, 200, '429 Rate Limited Second']);
    clock.time += 999;
    assert.equal(await ask(), '429 Rate Limited Second');
    clock.time += 1;
    assert.equal(await ask(), 200);
  });

  test('the balance goes down with each answer, and is whole again at midnight UTC', async (t) => {
    const { provider, clock, ask } = await limited({ rate: 10, perDay: 2 });
    t.after(provider.close);
    const balance = async () => (await get(provider, '/v1/balance', { key: provider.key })).body;
    assert.deepEqual(await balance(), { status: 'ok', balance: { day: 2, bonus: 0 } });
    assert.deepEqual([await ask(), await ask(), await ask()], [200, 200, '429 Rate Limited Day']);
    assert.deepEqual(await balance(), { status: 'ok', balance: { day: 0, bonus: 0 } });
    clock.time += 59_999;
    assert.equal(await ask(), '429 Rate Limited Day');
    clock.time += 1;
    assert.deepEqual(await balance(), { status: 'ok', balance: { day: 2, bonus: 0 } });
    assert.equal(await ask(), 200);
  });

  test('its calls are on record, without the key', async (t) => {
    const { provider, clock, ask } = await limited({ rate: 1, key: 'sesame' });
    t.after(provider.close);
    await ask();
    await ask();
    const at = new Date(clock.time);
    assert.deepEqual(provider.calls, [
      { at, path: '/v1/search', query: 'Kilimani', status: 200, results: 1 },
      { at, path: '/v1/search', query: 'Kilimani', status: 429, results: 0 },
    ]);
    assert.ok(!JSON.stringify(provider.calls).includes('sesame'));
  });
});
