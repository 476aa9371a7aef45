/** `fleettickets geocode`, through the public command line. */
import assert from 'node:assert/strict';
import { after, before, beforeEach, test } from 'node:test';
import { fleettickets } from '../support/command.ts';
import { type Environment, startEnvironment } from '../support/environment.ts';
import {
  locationiqPlace,
  type ScriptedProvider,
  startScriptedProvider,
  UNABLE_TO_GEOCODE,
} from '../support/scripted-provider.ts';

const KEY = 'pk.0123456789abcdef-secret';

let env: Environment;
let server: ScriptedProvider;
before(async () => {
  [env, server] = await Promise.all([startEnvironment(), startScriptedProvider()]);
});
after(async () => {
  await Promise.all([env.close(), server.close()]);
});
beforeEach(async () => {
  await env.reset();
  server.calls.length = 0;
  const places: [string, string][] = [
    ['Kilimani', 'NW_Rose Court'],
    ['Kilimani', 'NW_Buruburu PH5'],
    ['Nyali', 'NW_Palm Court'],
  ];
  for (const [index, [cluster, location_name]] of places.entries()) {
    await env.pool.query('insert into tickets.inc (ticket_id, raw) values ($1, $2)', [
      `T${index}`,
      JSON.stringify({ cluster, location_name, is_actionable: 'true' }),
    ]);
  }
  await env.pool.query(
    `insert into tickets.geo_clusters (cluster, geom) values ('Kilimani', st_setsrid(st_makepoint(36.78, -1.29), 4326))`,
  );
});

async function geocode(args: string[], settings: Record<string, string> = {}) {
  const ended = await fleettickets(
    {
      GEOCODER_PROVIDER: 'locationiq',
      GEOCODER_API_KEY: KEY,
      GEOCODER_BASE_URL: server.baseUrl,
      GEOCODER_RATE_PER_SECOND: '20',
      GEOCODER_DAILY_BUDGET: '100',
      ...settings,
    },
    'geocode',
    ...args,
  );
  const { out, err } = ended;
  assert.ok(!`${out}${err}`.includes(KEY), 'the key is not shown');
  return ended;
}

test('dry run: what would be asked, how many calls, how long; nothing is asked or written', async () => {
  const { out, status } = await geocode(['locations']);
  assert.equal(status, 0);
  assert.match(out, /^3 locations would be asked of locationiq:$/m);
  assert.match(out, /^ {2}Buruburu Phase 5, Kilimani, Kenya {2}\(1 open, never asked\)$/m);
  assert.match(out, /^ {2}Palm Court, Nyali, Kenya {2}\(1 open, never asked; waits for its cluster\)$/m);
  assert.match(out, /^Cost: 3 to 7 calls, 1 s to 1 s at 20 a second; 100 calls left today\.$/m);
  assert.match(out, /^This was a dry run: nothing was changed\. Add --apply to do it\.$/m);
  const slow = await geocode(['locations'], { GEOCODER_RATE_PER_SECOND: '0.02', GEOCODER_DAILY_BUDGET: '3' });
  assert.match(
    slow.out,
    /3 to 7 calls, 3 min to 6 min at 0\.02 a second; 3 calls left today\. At 3 calls a day that is up to 3 days\./,
  );
  const clusters = JSON.parse((await geocode(['clusters', '--json'])).out);
  assert.deepEqual([clusters.places.length, clusters.fewestCalls, clusters.mostCalls], [1, 1, 1]);
  assert.deepEqual([clusters.places[0].cluster, clusters.places[0].queries], ['Nyali', ['Nyali, Kenya']]);
  assert.deepEqual(server.calls, []);
  const { rows } = await env.pool.query(
    'select (select count(*) from graphile_worker.jobs)::int as jobs, (select count(*) from tickets_ops.geocoding_setup)::int as setups',
  );
  assert.deepEqual(rows, [{ jobs: 0, setups: 0 }]);
});

test('--cluster narrows; --apply asks, and says what came of it', async () => {
  server.script(({ query }) =>
    query.startsWith('Rose Court') ? { json: [locationiqPlace('Rose Court', -1.295, 36.785)] } : UNABLE_TO_GEOCODE,
  );
  const { out, err, status } = await geocode(['locations', '--cluster', 'Kilimani', '--apply']);
  assert.equal(status, 0, err);
  assert.match(out, /^2 asked\./m);
  assert.match(err, /locations 100 % \(2 of 2\)/);
  assert.equal(server.calls.length, 4);
  const { rows } = await env.pool.query('select location_key, status from tickets.geo_locations order by 1');
  assert.deepEqual(rows, [
    { location_key: 'buruburu phase 5', status: 'not_found' },
    { location_key: 'rose court', status: 'found' },
  ]);
  assert.match((await geocode(['locations', '--cluster', 'Kilimani'])).out, /^No locations are due/);
});

test('a place whose cluster is unknown: the cluster is asked too', async () => {
  server.script(({ query }) => ({
    json: [locationiqPlace(query.split(',')[0] ?? '', -4.03, 39.72, { area: 'Mombasa' })],
  }));
  const { err, status } = await geocode(['locations', '--cluster', 'Nyali', '--apply']);
  assert.equal(status, 0, err);
  assert.deepEqual(
    server.calls.map(({ query }) => query),
    ['Nyali, Kenya', 'Palm Court, Nyali, Kenya'],
  );
});

test('what cannot be asked now is left to a worker, with the reason', async () => {
  server.script(() => ({ status: 401, json: { error: 'Invalid key' } }));
  const { out, status } = await geocode(['locations', '--cluster', 'Kilimani', '--apply']);
  assert.equal(status, 1);
  assert.match(out, /^0 of 2 asked, 0 failed .*, 2 wait \(key refused: LocationIQ answered 401: Invalid key\)/);
  const dry = await geocode(['locations', '--cluster', 'Kilimani']);
  assert.match(dry.out, /^At present nothing is asked: key refused\. LocationIQ answered 401: Invalid key$/m);
});

test('without a provider the dry run shows places and calls all the same, and --apply says why it cannot', async () => {
  for (const [settings, reason] of [
    [{ GEOCODER_PROVIDER: '' }, /GEOCODER_PROVIDER is not set/],
    [{ GEOCODER_API_KEY: '' }, /GEOCODER_API_KEY is not set, and locationiq needs one/],
  ] as const) {
    const { out, err, status } = await geocode(['locations'], settings);
    assert.equal(status, 0, err);
    assert.match(out, /^3 locations would be asked:$/m);
    assert.match(out, /^ {2}Buruburu Phase 5, Kilimani, Kenya {2}\(1 open, never asked\)$/m);
    assert.match(out, /^Cost: 3 to 7 calls\.$/m);
    assert.match(out, reason);
    const plan = JSON.parse((await geocode(['locations', '--json'], settings)).out);
    assert.deepEqual(
      [plan.provider, plan.ratePerSecond, plan.fewestCalls, plan.mostCalls, plan.fewestSeconds, plan.places.length],
      [null, null, 3, 7, null, 3],
    );
    const applied = await geocode(['locations', '--apply'], settings);
    assert.equal(applied.status, 1);
    assert.match(applied.err, reason);
    assert.equal(applied.err.trim().split('\n').length, 1, 'one line, no stack');
  }
  const { rows } = await env.pool.query('select from graphile_worker.jobs');
  assert.deepEqual(rows, []);
});

test('without a kind it is wrong usage', async () => {
  for (const args of [[], ['towns'], ['clusters', 'locations'], ['clusters', '--aply']]) {
    const wrong = await geocode(args);
    assert.equal(wrong.status, 2, args.join(' '));
    assert.match(wrong.err, /Usage: fleettickets geocode/);
  }
});
