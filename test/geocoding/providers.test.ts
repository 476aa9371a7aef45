/** Every kind of answer of every provider, over HTTP: what it is taken for, and that nothing secret or harmful gets through. */
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { call } from '../../src/geocoding/call.ts';
import type { Outcome } from '../../src/geocoding/outcome.ts';
import type { Question } from '../../src/geocoding/provider.ts';
import { clusterQueries, locationQueries } from '../../src/geocoding/query.ts';
import { type Geocoder, GeocoderSettings, geocoderFrom } from '../../src/geocoding/settings.ts';
import {
  locationiqPlace,
  type Reply,
  type ScriptedProvider,
  startScriptedProvider,
} from '../support/scripted-provider.ts';

const KEY = 'pk.secret/+key 0123456789';
const QUESTION: Question = { text: 'Rose Court, Kilimani, Kenya', near: { lat: -1.29, lng: 36.78, km: 25 } };

let server: ScriptedProvider;
before(async () => {
  server = await startScriptedProvider();
});
after(() => server.close());

function geocoder(GEOCODER_PROVIDER: string): Geocoder {
  const settings = { GEOCODER_PROVIDER, GEOCODER_API_KEY: KEY, GEOCODER_BASE_URL: server.baseUrl };
  const made = geocoderFrom(GeocoderSettings.parse(settings));
  assert.ok(!('off' in made));
  return made;
}

async function ask(provider: string, reply: Reply, timeoutMs = 10_000): Promise<Outcome> {
  server.script(() => reply);
  const outcome = await call(geocoder(provider), QUESTION, { timeoutMs });
  assert.ok(outcome, 'nothing ended it early');
  assert.ok(!JSON.stringify(outcome).includes('secret'), 'the key is in no outcome');
  return outcome;
}

const error = (status: number, text: string, headers?: Record<string, string>): Reply => ({
  status,
  json: { error: text },
  ...(headers && { headers }),
});
const opencageError = (code: number, status = code, extra = {}): Reply => ({
  status,
  json: { results: [], status: { code, message: 'no' }, ...extra },
});

/** An answer and the outcome it must be taken for: the kind, and after how many seconds it may be tried again. */
type Row = [what: string, reply: Reply, kind: Outcome['kind'], retrySeconds?: number | null];

const trouble: Row[] = [
  ['500', { status: 500, text: 'Internal Server Error' }, 'trouble', null],
  ['503 with Retry-After', { status: 503, text: '', headers: { 'retry-after': '7' } }, 'trouble', 7],
  ['404 with HTML', { status: 404, text: '<html>Unable to geocode</html>' }, 'trouble', null],
  ['a redirect', { status: 302, text: '', headers: { location: 'http://127.0.0.1:1/elsewhere' } }, 'trouble', null],
  ['200 with HTML', { text: '<html>Welcome</html>' }, 'unreadable'],
  ['truncated JSON', { text: '[{"lat": "-1.29", "lon": ' }, 'unreadable'],
  ['a connection that breaks off', { truncated: '[{"lat": "-1.29"' }, 'trouble', null],
  ['10 MB', { bytes: 10 * 1024 * 1024 }, 'unreadable'],
  ['200 with null', { json: null }, 'unreadable'],
];

const tables: Record<string, Row[]> = {
  locationiq: [
    ...trouble,
    ['404 that does not know the place', error(404, 'Unable to geocode'), 'not_found'],
    ['404 with another error', error(404, 'Not Found'), 'trouble', null],
    ['400', error(400, 'Invalid Request'), 'bad_request'],
    ['401', error(401, 'Invalid key'), 'key_refused'],
    ['403', error(403, 'Service not enabled'), 'key_refused'],
    ['429 second', error(429, 'Rate Limited Second'), 'rate_limited', 2],
    ['429 minute', error(429, 'Rate Limited Minute'), 'rate_limited', 60],
    ['429 day', error(429, 'Rate Limited Day'), 'quota_spent', null],
    ['429 with Retry-After', error(429, 'Rate Limited Second', { 'retry-after': '5' }), 'rate_limited', 5],
    ['200 with an error body', { json: { error: 'Rate Limited Second' } }, 'unreadable'],
    ['200 with an empty list', { json: [] }, 'unreadable'],
    ['200 with a list of other things', { json: ['a', 1] }, 'unreadable'],
    ['places', { json: [locationiqPlace('Rose Court', -1.29, 36.78)] }, 'found'],
  ],
  opencage: [
    ...trouble,
    ['no results', opencageError(200), 'not_found'],
    ['400', opencageError(400), 'bad_request'],
    ['410', opencageError(410), 'bad_request'],
    ['401', opencageError(401), 'key_refused'],
    ['403', opencageError(403), 'key_refused'],
    ['402 without a reset time', opencageError(402), 'quota_spent', null],
    ['408', opencageError(408), 'trouble', null],
    ['429', opencageError(429), 'rate_limited', 2],
    ['200 with an error body', opencageError(402, 200), 'quota_spent', null],
    ['200 with an error body without a status', { json: { error: 'no' } }, 'unreadable'],
  ],
  nominatim: [
    ...trouble,
    ['an empty list', { json: [] }, 'not_found'],
    ['400', error(400, 'q missing'), 'bad_request'],
    ['401', { status: 401, text: 'no' }, 'key_refused'],
    ['429', { status: 429, text: 'slow down' }, 'rate_limited', 60],
    ['200 with an error body', { json: { error: 'no' } }, 'unreadable'],
  ],
};

for (const [provider, rows] of Object.entries(tables)) {
  describe(provider, () => {
    for (const [what, reply, kind, retrySeconds] of rows) {
      test(`${what}: ${kind}`, async () => {
        const outcome = await ask(provider, reply);
        assert.equal(outcome.kind, kind, JSON.stringify(outcome));
        if (retrySeconds !== undefined) assert.equal('retrySeconds' in outcome && outcome.retrySeconds, retrySeconds);
      });
    }
  });
}

test('a provider that asks for a wait of weeks is asked again after a day, and after a second at the earliest', async () => {
  const reset = (at: number) => opencageError(402, 402, { rate: { limit: 2500, remaining: 0, reset: at } });
  for (const [provider, reply, seconds] of [
    ['opencage', reset(Date.now()), 86_400], // milliseconds
    ['opencage', reset(Date.now() / 1000 - 60), 1],
    ['opencage', { status: 429, text: '', headers: { 'retry-after': '1209600' } }, 86_400],
    ['locationiq', { status: 503, text: '', headers: { 'retry-after': '0' } }, 1],
  ] as const) {
    const outcome = await ask(provider, reply);
    assert.equal('retrySeconds' in outcome && outcome.retrySeconds, seconds, provider);
  }
});

test('OpenCage says when a spent quota comes back', async () => {
  const reset = Math.floor(Date.now() / 1000) + 3600;
  const outcome = await ask('opencage', opencageError(402, 402, { rate: { limit: 2500, remaining: 0, reset } }));
  assert.ok(outcome.kind === 'quota_spent' && outcome.retrySeconds !== null);
  assert.ok(outcome.retrySeconds > 3590 && outcome.retrySeconds <= 3600, String(outcome.retrySeconds));
});

test('a hang ends at the time limit, a closed port at once', async () => {
  const outcome = await ask('locationiq', { hang: true }, 50);
  assert.deepEqual(outcome, { kind: 'trouble', retrySeconds: null, reason: 'locationiq: no answer in 0.05 s' });
  const closed = await startScriptedProvider();
  await closed.close();
  const nowhere = await call({ ...geocoder('locationiq'), baseUrl: closed.baseUrl }, QUESTION);
  assert.deepEqual(nowhere, {
    kind: 'trouble',
    retrySeconds: null,
    reason: 'locationiq: no connection (ECONNREFUSED)',
  });
});

test('a shutdown ends the call, and says nothing about the provider', async () => {
  server.script(() => ({ hang: true }));
  const shutdown = new AbortController();
  const outcome = call(geocoder('locationiq'), QUESTION, { signal: shutdown.signal });
  await server.called(server.calls.length + 1);
  shutdown.abort();
  assert.equal(await outcome, undefined);
});

test('coordinates that are no numbers are null, never 0', async () => {
  const lats = ['-1.29', -1.29, '', ' ', null, undefined, 'abc', '1e2', [], {}, true, '0x10', 'NaN'];
  const json = lats.map((lat) => ({ ...locationiqPlace('Kilimani', 0, '36.78'), lat }));
  const outcome = await ask('locationiq', { json });
  assert.ok(outcome.kind === 'found');
  const read = outcome.candidates.map(({ lat }) => lat);
  assert.deepEqual(read, [-1.29, -1.29, ...Array(11).fill(null)]);
  assert.ok(outcome.candidates.every(({ lng }) => lng === 36.78));
});

test('a key quoted in an answer is cut out, and text that jsonb refuses is made fit', async () => {
  const original = {
    ...locationiqPlace('Kilimani', -1.29, 36.78),
    url: `https://x/?key=${encodeURIComponent(KEY)}&k=${KEY}`,
  };
  const outcome = await ask('locationiq', { text: JSON.stringify([{ ...original, 'bad\0name': 'a\0b\ud800c' }]) });
  assert.ok(outcome.kind === 'found');
  const kept = outcome.candidates[0]?.original as Record<string, unknown>;
  assert.equal(kept.url, 'https://x/?key=[key]&k=[key]');
  assert.equal(kept['bad\uFFFDname'], 'a\uFFFDb\uFFFDc');
});

test('each provider is asked for several candidates in Kenya, biased to the cluster but not bounded', async () => {
  const asked = async (provider: string) => {
    await ask(provider, { json: [] });
    const { path, parameters } = server.calls.at(-1) ?? assert.fail();
    return { path, ...Object.fromEntries(parameters) };
  };
  const box = '36.55512,-1.51482,37.00488,-1.06518';
  assert.deepEqual(await asked('locationiq'), {
    path: '/v1/search',
    key: KEY,
    q: QUESTION.text,
    format: 'json',
    countrycodes: 'ke',
    limit: '10',
    addressdetails: '1',
    matchquality: '1',
    'accept-language': 'en',
    viewbox: box,
  });
  assert.deepEqual(await asked('nominatim'), {
    path: '/v1/search',
    q: QUESTION.text,
    format: 'jsonv2',
    countrycodes: 'ke',
    limit: '10',
    addressdetails: '1',
    'accept-language': 'en',
    viewbox: box,
  });
  assert.deepEqual(await asked('opencage'), {
    path: '/v1/json',
    key: KEY,
    q: QUESTION.text,
    countrycode: 'ke',
    limit: '10',
    no_annotations: '1',
    no_record: '1',
    language: 'en',
    proximity: '-1.29,36.78',
  });
});

test('what a candidate stands for', async () => {
  const osm = async (place: Record<string, unknown>) => {
    const outcome = await ask('nominatim', { json: [{ lat: '-1.29', lon: '36.78', display_name: 'x', ...place }] });
    return outcome.kind === 'found' && outcome.candidates[0]?.level;
  };
  assert.equal(await osm({ category: 'amenity', type: 'school' }), 'point');
  assert.equal(await osm({ category: 'building', type: 'yes', addresstype: 'building' }), 'point');
  assert.equal(await osm({ category: 'highway', type: 'residential', addresstype: 'road' }), 'street');
  assert.equal(await osm({ category: 'place', type: 'suburb' }), 'neighbourhood');
  assert.equal(await osm({ category: 'place', type: 'town' }), 'town');
  assert.equal(await osm({ category: 'place', type: 'city' }), 'city');
  assert.equal(await osm({ category: 'boundary', type: 'administrative', addresstype: 'suburb' }), 'neighbourhood');
  assert.equal(await osm({ category: 'boundary', type: 'administrative', place_rank: 10 }), 'city');
  assert.equal(await osm({}), 'city');
  const stated = (matchlevel: string) =>
    osm({ class: 'boundary', type: 'administrative', matchquality: { matchlevel } });
  assert.equal(await stated('venue'), 'point');
  assert.equal(await stated('street'), 'street');
  assert.equal(await stated('county'), 'city');

  const opencage = async (components: object, confidence: number) => {
    const result = { geometry: { lat: -1.29, lng: 36.78 }, confidence, components, formatted: 'x' };
    const outcome = await ask('opencage', { json: { results: [result], status: { code: 200, message: 'OK' } } });
    return outcome.kind === 'found' && outcome.candidates[0]?.level;
  };
  assert.equal(await opencage({ _type: 'building' }, 10), 'point');
  assert.equal(await opencage({ _type: 'road' }, 9), 'street');
  assert.equal(await opencage({ _type: 'suburb' }, 7), 'neighbourhood');
  assert.equal(await opencage({ _type: 'suburb' }, 3), 'city');
  assert.equal(await opencage({ _type: 'city', town: 'Thika' }, 6), 'town');
  assert.equal(await opencage({ _type: 'county' }, 9), 'city');
});

test('queries: the readable place in its cluster, then at most two simpler ones', () => {
  assert.deepEqual(locationQueries('Rose Court', 'Kilimani'), ['Rose Court, Kilimani, Kenya', 'Rose Court, Kenya']);
  assert.deepEqual(locationQueries('Acacia Road Zimmerman', 'Kahawa West').at(-1), 'Zimmerman, Kahawa West, Kenya');
  assert.deepEqual(locationQueries('Rose Court Kilimani', 'Kilimani'), ['Rose Court Kilimani, Kenya']);
  assert.deepEqual(locationQueries('T-Mall Langata Road', 'Nairobi West'), [
    'T-Mall Langata Road, Nairobi West, Kenya',
    'T-Mall Langata Road, Kenya',
    'Langata Road, Nairobi West, Kenya',
  ]);
  assert.deepEqual(locationQueries('Buruburu Phase 5', 'Embakasi'), [
    'Buruburu Phase 5, Embakasi, Kenya',
    'Buruburu Phase 5, Kenya',
    'Buruburu, Embakasi, Kenya',
  ]);
  assert.deepEqual(locationQueries('Kilimani', 'Kilimani'), ['Kilimani, Kenya']);
  assert.deepEqual(locationQueries('Naivas Ruaka', 'Ruaka'), ['Naivas Ruaka, Kenya']);
  assert.deepEqual(locationQueries("Lang'ata", 'Nairobi West'), ["Lang'ata, Nairobi West, Kenya", "Lang'ata, Kenya"]);
  assert.deepEqual(clusterQueries('Milimani', 'nakuru'), ['Milimani, nakuru, Kenya', 'Milimani, Kenya']);
  assert.deepEqual(clusterQueries('Nairobi West', 'nairobi'), ['Nairobi West, Kenya']);
  assert.deepEqual(clusterQueries('Kilimani', null), ['Kilimani, Kenya']);
});

test('settings: the free plans are the defaults, and what is missing is said', () => {
  const made = (env: Record<string, string>) => geocoderFrom(GeocoderSettings.parse(env));
  const off = (env: Record<string, string>) => (made(env) as { off: string }).off;
  assert.match(off({}), /GEOCODER_PROVIDER is not set/);
  assert.match(off({ GEOCODER_PROVIDER: 'opencage' }), /GEOCODER_API_KEY is not set/);
  assert.match(off({ GEOCODER_PROVIDER: 'nominatim' }), /GEOCODER_BASE_URL is not set/);
  const plan = (env: Record<string, string>) => {
    const { rate, dailyBudget, foundDays, baseUrl } = made(env) as Geocoder;
    return { rate, dailyBudget, foundDays, baseUrl };
  };
  assert.deepEqual(plan({ GEOCODER_PROVIDER: 'locationiq', GEOCODER_API_KEY: KEY }), {
    rate: 1,
    dailyBudget: 5000,
    foundDays: 180,
    baseUrl: 'https://us1.locationiq.com/v1',
  });
  const budget = { GEOCODER_RATE_PER_SECOND: '0.5', GEOCODER_DAILY_BUDGET: '100', GEOCODER_FOUND_DAYS: '2' };
  assert.deepEqual(plan({ GEOCODER_PROVIDER: 'nominatim', GEOCODER_BASE_URL: 'http://nominatim:8080/', ...budget }), {
    rate: 0.5,
    dailyBudget: 100,
    foundDays: 2,
    baseUrl: 'http://nominatim:8080',
  });
  for (const wrong of [
    { GEOCODER_PROVIDER: 'google' },
    { GEOCODER_BASE_URL: 'http://user:password@nominatim' },
    { GEOCODER_BASE_URL: 'ftp://nominatim' },
    { GEOCODER_RATE_PER_SECOND: '0' },
    { GEOCODER_DAILY_BUDGET: '1.5' },
    { GEOCODER_API_KEY: 'short' },
  ]) {
    assert.equal(GeocoderSettings.safeParse(wrong).success, false, JSON.stringify(wrong));
  }
});
