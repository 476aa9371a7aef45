/** A provider that suddenly answers "nothing" to everything is suspected, not believed; one that is right about it is. */
import assert from 'node:assert/strict';
import { after, before, beforeEach, test } from 'node:test';
import { type Environment, startEnvironment } from '../support/environment.ts';
import { asking } from '../support/rows.ts';
import {
  type Call,
  locationiqPlace,
  type Reply,
  type ScriptedProvider,
  startScriptedProvider,
  UNABLE_TO_GEOCODE,
} from '../support/scripted-provider.ts';

const PLACES = 30;
/** The provider's ways of saying nothing; the last two are of other providers. */
const NOTHING: [provider: string, reply: Reply][] = [
  ['locationiq', UNABLE_TO_GEOCODE],
  ['opencage', { json: { results: [], status: { code: 200, message: 'OK' }, total_results: 0 } }],
  ['nominatim', { json: [] }],
];

let env: Environment;
let server: ScriptedProvider;
before(async () => {
  [env, server] = await Promise.all([startEnvironment(), startScriptedProvider()]);
});
after(() => Promise.all([env.close(), server.close()]));
beforeEach(() => env.reset());

const sql = asking(() => env.pool);

/** Thirty places of one cluster, planned and asked. */
async function askAll(provider: string, found: (call: Call) => Reply): Promise<void> {
  server.calls.length = 0;
  Object.assign(process.env, {
    GEOCODER_PROVIDER: provider,
    GEOCODER_API_KEY: 'pk.0123456789abcdef-secret',
    GEOCODER_BASE_URL: server.baseUrl,
    GEOCODER_RATE_PER_SECOND: '100',
    GEOCODER_DAILY_BUDGET: '1000',
  });
  await sql('select tickets_ops.register_geocoder($1, 100, 1000, 180, null)', [provider]);
  await sql(
    `insert into tickets.geo_clusters (cluster, geom) values ('Kilimani', st_setsrid(st_makepoint(36.78, -1.29), 4326))`,
  );
  await sql(
    `insert into tickets.inc (ticket_id, raw)
     select 'WOT' || n, jsonb_build_object('cluster', 'Kilimani', 'location_name', 'Zor' || chr(97 + n / 6) || chr(97 + n % 6) || 'a Estate', 'is_actionable', 'true')
     from generate_series(1, $1) as n`,
    [PLACES],
  );
  server.script(found);
  await planAndRun();
}
/** Until every place has been asked, or nobody may be. */
const planAndRun = async () => {
  await sql(`select tickets_ops.plan_geocoding()`);
  do {
    await sql('update graphile_worker._private_jobs set run_at = now()');
    assert.deepEqual(await env.runJobs(), []);
  } while (
    ['ready', 'probing'].includes((await glance())?.state) &&
    (await sql('select from graphile_worker.jobs')).length > 0
  );
};
const glance = async () =>
  (await sql('select state, reason, until, calls_today from tickets_ops.geocoding where active'))[0];
const counts = async () =>
  (
    await sql(
      `select count(*)::int as asked, count(*) filter (where status = 'found')::int as found,
         coalesce(max(extract(epoch from expires_at - now())) filter (where status = 'not_found'), 0)::float8 as longest_seconds
       from tickets.geo_locations`,
    )
  )[0] as { asked: number; found: number; longest_seconds: number };

for (const [provider, nothing] of NOTHING) {
  test(`${provider}: calls end, health says so, and what it said expires in an hour`, async () => {
    await askAll(provider, () => nothing);
    const { state, reason, until } = await glance();
    assert.equal(state, 'suspected');
    assert.match(reason, /finds nothing any more, not even Nairobi/);
    assert.ok(until.getTime() > Date.now() + 300_000, 'asked again in ten minutes');
    assert.equal(server.calls.filter(({ query }) => query === 'Nairobi, Kenya').length, 1);
    assert.ok(server.calls.length < 40, `${server.calls.length} calls`);
    assert.ok((await counts()).longest_seconds <= 3600);
    const [health] = await sql('select ok, problems, geocoding_state from tickets_ops.health');
    assert.equal(health?.geocoding_state, 'suspected');
    assert.ok(health?.problems.some((problem: string) => /^Fault: Geocoding stands still \(suspected\)/.test(problem)));
  });
}

test('when it knows Nairobi again, all is asked again', async () => {
  await askAll('locationiq', () => UNABLE_TO_GEOCODE);
  server.script(({ query }) => ({ json: [locationiqPlace(query.split(',')[0] ?? '', -1.291, 36.781)] }));
  await sql('update tickets_ops.geocoding_providers set breaker_until = now()');
  await sql('update tickets.geo_locations set expires_at = now()');
  await planAndRun();
  assert.equal((await glance())?.state, 'ready');
  assert.deepEqual([(await counts()).asked, (await counts()).found], [PLACES, PLACES]);
});

test('it is suspected by its own answers, not by those that came before: a found place keeps its coordinate', async () => {
  await askAll('locationiq', ({ query }) => ({ json: [locationiqPlace(query.split(',')[0] ?? '', -1.291, 36.781)] }));
  assert.equal((await counts()).found, PLACES);
  await sql(`update tickets.geo_locations set expires_at = now()`);
  server.script(() => UNABLE_TO_GEOCODE);
  await planAndRun();
  assert.equal((await glance())?.state, 'suspected');
  assert.equal((await counts()).found, PLACES);
  const [tickets] = await sql(`select count(*)::int as placed from tickets.inc where geo_source = 'location'`);
  assert.equal(tickets?.placed, PLACES);
});

test('places that are really unknown cost a control question now and then, and are believed', async () => {
  await askAll('locationiq', ({ query }) =>
    query.startsWith('Nairobi')
      ? { json: [locationiqPlace('Nairobi', -1.286, 36.817, { type: 'city' })] }
      : UNABLE_TO_GEOCODE,
  );
  assert.match((await glance())?.state, /^(ready|probing)$/);
  const { asked, longest_seconds } = await counts();
  assert.equal(asked, PLACES);
  assert.ok(longest_seconds > 6 * 86_400, 'a week, as ever');
  const controls = server.calls.filter(({ query }) => query === 'Nairobi, Kenya').length;
  assert.ok(controls >= 3 && controls <= server.calls.length / 10 + 1, `${controls} of ${server.calls.length}`);
});

test('trouble while it is suspected is trouble; and nothing else is asked until the control question is answered', async () => {
  let calls = 0;
  await askAll('locationiq', ({ query }) => {
    if (query === 'Nairobi, Kenya') return { status: 503, text: 'no' };
    calls++;
    return UNABLE_TO_GEOCODE;
  });
  assert.equal((await glance())?.state, 'trouble');
  assert.ok(calls < 40, `${calls} calls`);
});
