/** The geocoding jobs, from tickets to pins, against a scripted provider over HTTP. */
import assert from 'node:assert/strict';
import { after, before, beforeEach, describe, test } from 'node:test';
import { geocodeLocation } from '../src/geocoding/jobs.ts';
import { callAtSlot } from '../src/geocoding/rate.ts';
import { geocoderInUse } from '../src/geocoding/registration.ts';
import { type Environment, startEnvironment, waitFor } from './support/environment.ts';
import {
  locationiqPlace,
  type Reply,
  type ScriptedProvider,
  startScriptedProvider,
  UNABLE_TO_GEOCODE,
} from './support/scripted-provider.ts';

const KEY = 'pk.0123456789abcdef-secret';
const KILIMANI = locationiqPlace('Kilimani', -1.29, 36.78);
const ROSE_COURT = locationiqPlace('Rose Court', -1.295, 36.785, {
  level: 'building',
  type: 'residential',
  kind: 'building',
});

let env: Environment;
let server: ScriptedProvider;
let written = '';

before(async () => {
  [env, server] = await Promise.all([startEnvironment(), startScriptedProvider()]);
  const write = process.stdout.write.bind(process.stdout);
  // The log goes to stdout; what the test runner itself writes passes.
  process.stdout.write = ((chunk: string | Uint8Array, ...rest: []) => {
    const text = chunk.toString();
    if (!text.startsWith('{"level"')) return write(chunk, ...rest);
    written += text;
    for (const done of rest as unknown[]) if (typeof done === 'function') done();
    return true;
  }) as typeof process.stdout.write;
});
after(async () => {
  await Promise.all([env.close(), server.close()]);
});

beforeEach(async () => {
  await env.reset();
  server.calls.length = 0;
  Object.assign(process.env, {
    GEOCODER_PROVIDER: 'locationiq',
    GEOCODER_API_KEY: KEY,
    GEOCODER_BASE_URL: server.baseUrl,
    GEOCODER_RATE_PER_SECOND: '100',
    GEOCODER_DAILY_BUDGET: '1000',
  });
  await register();
});

const sql = async (text: string, values: unknown[] = []) => (await env.pool.query(text, values)).rows;
const register = (budget = 1000) =>
  sql(`select tickets_ops.register_geocoder('locationiq', 100, $1, 180, null)`, [budget]);
const queries = () => server.calls.map(({ query }) => query);
const plan = async () => (await sql(`select tickets_ops.plan_geocoding() as jobs`))[0]?.jobs;
const jobs = () =>
  sql(
    'select key, attempts, last_error, run_at > now() as later, priority from graphile_worker.jobs order by priority, run_at, id',
  );
const location = async () => (await sql('select * from tickets.geo_locations'))[0];
const dueNow = () => sql('update graphile_worker._private_jobs set run_at = now()');
const breakerTimeIsUp = () =>
  sql('update tickets_ops.geocoding_providers set breaker_until = now() where breaker is not null');

const ticket = (id: string, place: string | null, cluster: string | null = 'Kilimani', more = {}) =>
  sql('insert into tickets.inc (ticket_id, raw) values ($1, $2)', [
    id,
    JSON.stringify({ cluster, location_name: place, region: 'nairobi', is_actionable: 'true', ...more }),
  ]);
const centroid = (cluster = 'Kilimani', lng = 36.78, lat = -1.29) =>
  sql('insert into tickets.geo_clusters (cluster, geom) values ($1, st_setsrid(st_makepoint($2, $3), 4326))', [
    cluster,
    lng,
    lat,
  ]);
const failed = () => sql('select last_error from tickets_ops.failed_jobs');
const ask = (place: string, cluster = 'Kilimani', force = false) =>
  sql('select * from tickets.geocode_location($1, $2, $3)', [place, cluster, force]).then(([row]) => row);

test('from tickets to pins: the cluster first, then its places; tickets follow', async () => {
  await ticket('T1', 'NW_Rose Court_FDT3');
  await ticket('T2', 'ADR_MNT_Rose Court');
  await ticket('T3', null);
  await ticket('T4', 'NW_Nowhere Anyone Knows');
  await ticket('T5', 'NW_Rose Court', null);
  await ticket('T6', 'NW_Closed', 'Kilimani', { is_actionable: 'false' });
  await ticket('T7', 'NW_Has Coordinates', 'Kilimani', { latitude: '-1.3', longitude: '36.8' });
  assert.equal(
    await plan(),
    3,
    'one cluster, two places: not the closed, the one with coordinates, the one without cluster',
  );
  assert.equal(await plan(), 0, 'planned already');
  server.script(({ query }) => {
    if (query === 'Kilimani, nairobi, Kenya')
      return { json: [locationiqPlace('Nairobi', -1.28, 36.82, { type: 'city' })] };
    if (query === 'Kilimani, Kenya') return { json: [KILIMANI] };
    if (query === 'Rose Court, Kilimani, Kenya')
      return { json: [locationiqPlace('Rose Court', -4.05, 39.66), ROSE_COURT] };
    return UNABLE_TO_GEOCODE;
  });
  assert.deepEqual(await env.runJobs(), []);

  assert.deepEqual(queries().slice(0, 2), ['Kilimani, nairobi, Kenya', 'Kilimani, Kenya']);
  assert.deepEqual(
    new Set(queries().slice(2)),
    new Set([
      'Rose Court, Kilimani, Kenya',
      'Nowhere Anyone Knows, Kilimani, Kenya',
      'Nowhere Anyone Knows, Kenya',
      'Anyone Knows, Kilimani, Kenya',
    ]),
  );
  const sources = await sql('select ticket_id, geo_source from tickets.inc order by 1');
  assert.deepEqual(
    sources.map(({ geo_source }) => geo_source),
    ['location', 'location', 'cluster', 'cluster', 'none', 'cluster', 'feed'],
  );
  const rows = await sql(
    'select location_key, status, precision, verified, provider, round(distance_km, 1)::text as km from tickets.geo_locations order by 1',
  );
  assert.deepEqual(rows, [
    {
      location_key: 'nowhere anyone knows',
      status: 'not_found',
      precision: null,
      verified: false,
      provider: 'locationiq',
      km: null,
    },
    {
      location_key: 'rose court',
      status: 'found',
      precision: 'point',
      verified: false,
      provider: 'locationiq',
      km: '0.8',
    },
  ]);
  const [glance] = await sql('select used_today, left_today, calls_today from tickets_ops.geocoding');
  assert.deepEqual(glance, { used_today: 6, left_today: 994, calls_today: { found: 3, not_found: 3 } });
  assert.deepEqual(await sql('select * from tickets_ops.geocoding_answers'), [], 'nothing is left of the work');
  assert.equal(await plan(), 0, 'all is known');
});

test('places: the newest tickets first, then the most; by hand before all', async () => {
  await centroid();
  const day = (days: number) => ({ first_seen_at: new Date(Date.now() - days * 86_400_000).toISOString() });
  await ticket('T1', 'Old Place', 'Kilimani', day(5));
  await ticket('T2', 'Quiet Place', 'Kilimani', day(1));
  await ticket('T3', 'Busy Place', 'Kilimani', day(1));
  await ticket('T4', 'Busy Place', 'Kilimani', day(3));
  await ticket('T5', null, 'Nyali', day(9));
  await plan();
  await ask('NW_Asked Place');
  const order = (await jobs()).map(({ key }) => key.split(':').at(-1));
  assert.deepEqual([order[0], order[1], order.at(-1)], ['asked place', 'nyali', 'old place']);
  assert.deepEqual(new Set(order.slice(2, 4)), new Set(['busy place', 'quiet place']));
});

test('a job by hand: id and key, and whether one waited already', async () => {
  await centroid();
  await ticket('T1', 'NW_Rose Court');
  await plan();
  const [planned] = await jobs();
  const first = await ask('ADR_Rose Court_FDT7');
  assert.equal(first?.job_key, 'geocode_location:kilimani:rose court');
  assert.equal(first?.already_waiting, true);
  assert.match(first?.note, /goes first now/);
  const [promoted] = await jobs();
  assert.ok(promoted?.priority < planned?.priority);
  assert.equal(await plan(), 0, 'planning does not take the priority away');
  assert.equal((await jobs())[0]?.priority, promoted?.priority);
  const other = await ask('NW_Other');
  assert.equal(other?.already_waiting, false);
  await assert.rejects(() => ask('NW_ADR_MNT'), /Nothing but network codes is left of "NW_ADR_MNT"/);
  await assert.rejects(() => ask('NW_Kilimani', ' '), /A cluster is needed/);
});

test('a plain add_job works; a wrong payload fails at once with a message for people', async () => {
  await centroid();
  server.script(() => ({ json: [KILIMANI] }));
  await sql(
    `select graphile_worker.add_job('geocode_location', '{"location_name": "NW_Kilimani_FDT3", "cluster": "Kilimani"}')`,
  );
  assert.deepEqual(await env.runJobs(), []);
  assert.equal((await location())?.status, 'found');

  for (const wrong of [
    '{"location": "NW_Kilimani"}',
    '{"location_name": "x", "cluster": "y", "forced": true}',
    '[]',
    '{"location_name": 7, "cluster": "y"}',
  ]) {
    await env.reset();
    await sql(`select graphile_worker.add_job('geocode_location', $1)`, [wrong]);
    const [failure] = await env.runJobs();
    assert.match(
      failure?.error ?? '',
      /Wrong payload[\s\S]*[a-z_]+\.add_job\('geocode_location', '\{"location_name":"NW_Kilimani_FDT3","cluster":"Kilimani"\}'\)/,
      wrong,
    );
    const [job] = await sql('select attempts, max_attempts from graphile_worker.jobs');
    assert.deepEqual(job, { attempts: 1, max_attempts: 1 }, 'it is not tried again');
  }
});

describe('what is no answer is never cached', () => {
  const troubles: [what: string, reply: Reply, error: RegExp][] = [
    ['500', { status: 500, text: 'Internal Server Error' }, /answered 500/],
    ['404 with HTML', { status: 404, text: '<html>Unable to geocode</html>' }, /answered 404/],
    ['truncated JSON', { text: '[{"lat": "-1.29", ' }, /not a list of places/],
    ['a connection that breaks off', { truncated: '[{"lat"' }, /no connection/],
    ['200 with an error body', { json: { error: 'Rate Limited Second' } }, /Rate Limited Second/],
    ['10 MB of answer', { bytes: 10 * 1024 * 1024 }, /more than 2097152 bytes/],
    ['a redirect', { status: 301, text: '', headers: { location: '/elsewhere' } }, /redirects \(301\)/],
  ];
  for (const [what, reply, error] of troubles) {
    test(`${what}, then success`, async () => {
      await centroid();
      await ask('NW_Rose Court');
      server.script((_call, number) => (number === 1 ? reply : { json: [ROSE_COURT] }));
      const [failure] = await env.runJobs();
      assert.match(failure?.error ?? '', error);
      assert.equal(failure?.attempts, 1);
      assert.equal(await location(), undefined);
      assert.deepEqual(await sql('select * from tickets_ops.geocoding_answers'), []);
      await dueNow();
      assert.deepEqual(await env.runJobs(), []);
      assert.equal((await location())?.status, 'found');
      assert.equal(server.calls.length, 2, 'asked once more');
    });
  }

  test('400: our mistake, not tried again', async () => {
    await centroid();
    await ask('NW_Rose Court');
    server.script(() => ({ status: 400, json: { error: 'Invalid Request' } }));
    const [failure] = await env.runJobs();
    assert.match(failure?.error ?? '', /answered 400: Invalid Request/);
    assert.deepEqual(await sql('select attempts, max_attempts from graphile_worker.jobs'), [
      { attempts: 1, max_attempts: 1 },
    ]);
    assert.equal(await location(), undefined);
  });
});

describe('while nobody may call, jobs wait without calls and without using up attempts', () => {
  const closings: [what: string, reply: Reply, state: string, seconds: [number, number]][] = [
    [
      '429 with Retry-After',
      { status: 429, json: { error: 'Rate Limited Second' }, headers: { 'retry-after': '40' } },
      'rate limited',
      [30, 40],
    ],
    ['429 minute', { status: 429, json: { error: 'Rate Limited Minute' } }, 'rate limited', [50, 60]],
    ['429 day', { status: 429, json: { error: 'Rate Limited Day' } }, 'quota spent', [0, 86_400]],
    ['401', { status: 401, json: { error: 'Invalid key' } }, 'key refused', [500, 600]],
    ['403', { status: 403, json: { error: 'Access restricted' } }, 'key refused', [500, 600]],
  ];
  for (const [what, reply, state, [least, most]] of closings) {
    test(what, async () => {
      await centroid();
      for (const place of ['NW_Rose Court', 'NW_Palm Court', 'NW_Kilimani']) await ask(place);
      server.script(() => reply);
      assert.deepEqual(await env.runJobs(), [], 'no job has failed');
      const calls = server.calls.length;
      await dueNow();
      assert.deepEqual(await env.runJobs(), []);
      assert.equal(server.calls.length, calls, 'nobody calls any more');
      const waiting = await jobs();
      assert.equal(waiting.length, 3);
      assert.ok(waiting.every((job) => job.attempts === 0 && job.later && job.last_error === null));
      const [glance] = await sql(
        'select state, extract(epoch from until - now())::float8 as seconds from tickets_ops.geocoding',
      );
      assert.equal(glance?.state, state);
      assert.ok(glance?.seconds >= least && glance?.seconds <= most, `${glance?.seconds} s`);
      assert.equal(await location(), undefined, 'nothing is cached');

      server.script(() => ({ json: [KILIMANI, ROSE_COURT, locationiqPlace('Palm Court', -1.28, 36.77)] }));
      await breakerTimeIsUp();
      await dueNow();
      await env.runJobs();
      assert.equal((await sql('select state from tickets_ops.geocoding'))[0]?.state, 'ready', 'it closed by itself');
      // Verdicts that fall together come back later: each round resolves at least one.
      for (let round = 0; round < 3; round += 1) {
        await dueNow();
        await env.runJobs();
      }
      assert.equal(
        (await sql(`select count(*)::int as found from tickets.geo_locations where status = 'found'`))[0]?.found,
        3,
      );
    });
  }

  test('503 with Retry-After: the call that failed uses up its attempt, the others wait', async () => {
    await centroid();
    for (const place of ['NW_Rose Court', 'NW_Palm Court', 'NW_Kilimani']) await ask(place);
    server.script(() => ({ status: 503, text: '', headers: { 'retry-after': '90' } }));
    const failures = await env.runJobs();
    assert.equal(failures.length, server.calls.length);
    const waiting = await jobs();
    assert.ok(waiting.every((job) => job.later && job.attempts === (job.last_error ? 1 : 0)));
    const [glance] = await sql(
      'select state, extract(epoch from until - now())::float8 as seconds from tickets_ops.geocoding',
    );
    assert.equal(glance?.state, 'trouble');
    assert.ok(glance?.seconds > 80 && glance?.seconds <= 90, `${glance?.seconds} s`);
  });

  test('a place that always fails is given up, and keeps nobody else waiting', async () => {
    await centroid();
    const places = ['NW_Acacia Court', 'NW_Palm Court', 'NW_Uhuru Court', 'NW_Olive Court', 'NW_Rose Court'];
    const isPoisoned = (query: string) => query.startsWith('Poison');
    server.script(({ query }) =>
      isPoisoned(query)
        ? { status: 503, text: '', headers: { 'retry-after': '90' } }
        : { json: [locationiqPlace(query.split(',')[0] ?? '', -1.295, 36.785)] },
    );
    await ask('NW_Poison Court');
    // Each round the breaker may be probed, and a further place is asked for.
    for (let round = 0; round < 20 && (await failed()).length === 0; round++) {
      await env.runJobs();
      const place = places.pop();
      if (place) await ask(place);
      await dueNow();
      await breakerTimeIsUp();
    }
    // Who meets another one's probe waits for its end.
    const found = async () => (await sql('select from tickets.geo_locations')).length;
    for (let round = 0; round < 20 && (await found()) < 5; round++) {
      await dueNow();
      await breakerTimeIsUp();
      await env.runJobs();
    }
    assert.equal(queries().filter(isPoisoned).length, 6, 'six attempts, whatever the breaker said between them');
    assert.match((await failed())[0]?.last_error, /answered 503/);
    assert.equal(await found(), 5);
  });

  test('a place that failed lets others find out first whether the provider works again', async () => {
    await centroid();
    await ask('NW_Poison Court');
    server.script(() => ({ status: 503, text: '', headers: { 'retry-after': '90' } }));
    await env.runJobs();
    await ask('NW_Rose Court');
    await dueNow();
    await env.runJobs();
    const order = await sql('select key from graphile_worker.jobs order by run_at');
    assert.deepEqual(
      order.map(({ key }) => key.split(':').at(-1)),
      ['rose court', 'poison court'],
    );
  });

  test('a request by hand that comes while the job runs is not lost when that puts itself back', async () => {
    await centroid();
    await ticket('T1', 'NW_Rose Court');
    await plan();
    server.script(async () => {
      await ask('NW_Rose Court', 'Kilimani', true);
      await sql(`update graphile_worker._private_jobs set run_at = now() + interval '1 hour' where locked_at is null`);
      return { status: 429, json: { error: 'Rate Limited Minute' } };
    });
    await env.runJobs();
    const waiting = await sql('select key, payload, priority from tickets_ops.jobs');
    assert.deepEqual(waiting, [
      {
        key: 'geocode_location:kilimani:rose court',
        payload: { force: true, cluster: 'Kilimani', location_name: 'NW_Rose Court' },
        priority: 11,
      },
    ]);
  });

  test('asked for by hand while it runs, a planned job that puts itself back goes first', async () => {
    await centroid();
    await ticket('T1', 'NW_Rose Court');
    await plan();
    server.script(async () => {
      assert.match((await ask('NW_Rose Court'))?.note, /at this moment/);
      return { status: 429, json: { error: 'Rate Limited Minute' } };
    });
    await env.runJobs();
    const [job] = await sql('select payload, priority from tickets_ops.jobs');
    assert.deepEqual(job, {
      payload: { cluster: 'Kilimani', location_name: 'NW_Rose Court', snoozes: 1 },
      priority: 11,
    });
  });

  test('a call that had its slot when the breaker opened is not made', async () => {
    process.env.GEOCODER_RATE_PER_SECOND = '0.5';
    await sql(`select tickets_ops.register_geocoder('locationiq', 0.5, 1000, 180, null)`);
    await centroid();
    for (const place of ['NW_Rose Court', 'NW_Palm Court']) await ask(place);
    server.script(async () => {
      await waitFor(
        'the second reservation',
        async () => (await sql('select used from tickets_ops.geocoding_providers'))[0]?.used === 2,
      );
      return { status: 401, json: { error: 'Invalid key' } };
    });
    assert.deepEqual(await env.runJobs(), []);
    assert.equal(server.calls.length, 1);
    assert.equal(
      (await sql('select used_today from tickets_ops.geocoding'))[0]?.used_today,
      1,
      'and it is not charged',
    );
  });

  test('a worker that is told to stop while it waits for its slot makes no call, and pays for none', async () => {
    await sql(`update tickets_ops.geocoding_providers set next_at = now() + interval '1 hour'`);
    const geocoder = await geocoderInUse(env.pool);
    assert.ok('provider' in geocoder);
    const stop = new AbortController();
    const used = async () => (await sql('select used_today from tickets_ops.geocoding'))[0]?.used_today;
    const call = callAtSlot(env.pool, geocoder, { text: 'Rose Court, Kenya', near: null }, stop.signal);
    await waitFor('the reservation', async () => (await used()) === 1);
    stop.abort();
    assert.deepEqual(await call, { outcome: null, retryMs: 0, reason: 'the worker stops' });
    assert.deepEqual([await used(), server.calls.length], [0, 0]);
  });

  test('a call that a stopping worker cuts off is paid for, but is no failure of the provider or the place', async () => {
    await centroid();
    await ask('NW_Rose Court');
    const [job] = await sql(`
      update graphile_worker._private_jobs set locked_at = now(), locked_by = 'test', attempts = 1 returning *`);
    server.script(() => ({ hang: true }));
    const stop = new AbortController();
    const asked = geocodeLocation(
      { location_name: 'NW_Rose Court', cluster: 'Kilimani', force: false, planned: false, snoozes: 0 },
      { job, log: { info: () => {} }, query: env.pool.query.bind(env.pool), abortSignal: stop.signal } as never,
    );
    await server.called(1);
    stop.abort();
    await asked;
    assert.deepEqual(
      await sql('select used, consecutive_failures, last_failed_place, breaker from tickets_ops.geocoding_providers'),
      [{ used: 1, consecutive_failures: 0, last_failed_place: null, breaker: null }],
    );
    assert.deepEqual(
      await sql(
        `select attempts, last_error, run_at <= now() as due, payload -> 'snoozes' as snoozes
         from graphile_worker._private_jobs where locked_at is null`,
      ),
      [{ attempts: 0, last_error: null, due: true, snoozes: 1 }],
    );
  });

  test('402 with and without a reset time (OpenCage)', async () => {
    await centroid();
    const reset = Math.floor(Date.now() / 1000) + 1800;
    process.env.GEOCODER_PROVIDER = 'opencage';
    for (const [rate, least, most] of [
      [{ reset }, 1790, 1800],
      [undefined, 0, 86_400],
    ] as const) {
      await sql('truncate tickets_ops.geocoding_providers, tickets_ops.geocoding_setup');
      await ask('NW_Rose Court');
      server.script(() => ({
        status: 402,
        json: { results: [], status: { code: 402, message: 'quota exceeded' }, rate },
      }));
      assert.deepEqual(await env.runJobs(), []);
      const [glance] = await sql(
        'select state, reason, extract(epoch from until - now())::float8 as seconds from tickets_ops.geocoding where active',
      );
      assert.deepEqual([glance?.state, glance?.reason], ['quota spent', 'OpenCage answered 402: quota exceeded']);
      assert.ok(glance?.seconds > least - 5 && glance?.seconds <= most, `${glance?.seconds} s`);
    }
  });

  test('a spent budget', async () => {
    await register(1);
    await centroid();
    for (const place of ['NW_Rose Court', 'NW_Kilimani']) await ask(place);
    server.script(() => ({ json: [KILIMANI, ROSE_COURT] }));
    assert.deepEqual(await env.runJobs(), []);
    assert.equal(server.calls.length, 1);
    const [left] = await jobs();
    assert.deepEqual([left?.attempts, left?.later], [0, true]);
    await sql('update tickets_ops.geocoding_providers set used_on = used_on - 1'); // midnight UTC
    await dueNow();
    await env.runJobs();
    assert.equal(server.calls.length, 2);
    assert.deepEqual(await jobs(), []);
  });

  test('without a provider what was planned waits, and what a person asks for says why', async () => {
    await centroid();
    await ticket('T1', 'NW_Rose Court');
    await plan();
    delete process.env.GEOCODER_PROVIDER;
    await sql('update graphile_worker._private_jobs set run_at = now()');
    assert.deepEqual(await env.runJobs(), []);
    assert.equal((await jobs())[0]?.later, true);
    await ask('NW_Palm Court');
    const failures = await env.runJobs();
    assert.match(failures[0]?.error ?? '', /GEOCODER_PROVIDER is not set/);
    await sql(`select tickets_ops.register_geocoder(null, null, null, null, 'GEOCODER_PROVIDER is not set')`);
    await ticket('T2', 'NW_Uhuru Court');
    assert.equal(await plan(), 0, 'nothing is planned without a provider');
    assert.equal((await sql('select geo_source from tickets.inc limit 1'))[0]?.geo_source, 'cluster');
  });
});

describe('cache', () => {
  const days = async () => {
    const [row] = await sql(
      `select round(extract(epoch from expires_at - now()) / 86400)::int as days from tickets.geo_locations`,
    );
    return row?.days;
  };
  const expire = () => sql(`update tickets.geo_locations set expires_at = now() - interval '1 minute'`);

  test('not found is asked again after 7 days, then 30; found after 180', async () => {
    await centroid();
    await ticket('T1', 'NW_Rose Court');
    server.script(() => UNABLE_TO_GEOCODE);
    for (const expected of [7, 30, 30]) {
      await plan();
      await env.runJobs();
      assert.equal((await location())?.status, 'not_found');
      assert.equal(await days(), expected);
      assert.equal(await plan(), 0, 'cached');
      await expire();
    }
    server.script(() => ({ json: [ROSE_COURT] }));
    assert.equal(await plan(), 1, 'expired');
    await env.runJobs();
    assert.deepEqual([(await location())?.status, await days()], ['found', 180]);
    await expire();
    assert.equal(await plan(), 1);
    assert.equal(
      (await sql('select verified from tickets.geo_locations'))[0]?.verified,
      false,
      'touching expires_at verifies nothing',
    );
  });

  test('a known place is asked by force only, a verified one not even so', async () => {
    await centroid();
    server.script(() => ({ json: [ROSE_COURT] }));
    await ask('NW_Rose Court');
    await env.runJobs();
    assert.match((await ask('NW_Rose Court'))?.note, /without force/);
    await env.runJobs();
    assert.equal(server.calls.length, 1);
    await ask('NW_Rose Court', 'Kilimani', true);
    await env.runJobs();
    assert.equal(server.calls.length, 2);
    await sql('update tickets.geo_locations set geom = st_setsrid(st_makepoint(36.79, -1.3), 4326)');
    assert.match((await ask('NW_Rose Court', 'Kilimani', true))?.note, /verified/);
    await env.runJobs();
    await sql(`select tickets.geocode_cluster('Kilimani', true)`);
    await env.runJobs();
    assert.equal(server.calls.length, 2, 'neither place nor cluster was asked');
    const [row] = await sql('select provider, verified, st_x(geom) as lng from tickets.geo_locations');
    assert.deepEqual(row, { provider: 'manual', verified: true, lng: 36.79 });
  });

  test('a person verifies while the provider is asked: the person wins', async () => {
    await centroid();
    await ask('NW_Rose Court');
    server.script(async () => {
      await sql(
        `insert into tickets.geo_locations (cluster, location_name, geom) values ('Kilimani', 'Rose Court', st_setsrid(st_makepoint(36.79, -1.3), 4326))`,
      );
      return { json: [ROSE_COURT] };
    });
    await env.runJobs();
    const [row] = await sql('select provider, verified, st_x(geom) as lng from tickets.geo_locations');
    assert.deepEqual(row, { provider: 'manual', verified: true, lng: 36.79 });
  });
});

test('an answer is kept when a later query fails: nothing is asked twice', async () => {
  await centroid();
  await ask('NW_Buruburu PH5');
  server.script((_call, number) => (number === 2 ? { status: 500, text: 'no' } : UNABLE_TO_GEOCODE));
  const [failure] = await env.runJobs();
  assert.match(failure?.error ?? '', /500/);
  await dueNow();
  await env.runJobs();
  assert.deepEqual(queries(), [
    'Buruburu Phase 5, Kilimani, Kenya',
    'Buruburu Phase 5, Kenya',
    'Buruburu Phase 5, Kenya',
    'Buruburu, Kilimani, Kenya',
  ]);
  assert.equal((await location())?.status, 'not_found');
});

test('the best of all queries counts, and every candidate is kept as returned', async () => {
  await centroid();
  await ask('NW_Rose Court');
  const city = locationiqPlace('Nairobi', -1.28, 36.82, { type: 'city', level: 'city' });
  server.script((_call, number) => (number === 1 ? { json: [city] } : UNABLE_TO_GEOCODE));
  await env.runJobs();
  const row = await location();
  assert.deepEqual([row?.status, row?.precision], ['needs_review', 'city']);
  assert.equal(row?.query, 'Rose Court, Kilimani, Kenya | Rose Court, Kenya');
  assert.deepEqual(
    row?.candidates.map(({ original }: { original: unknown }) => original),
    [city],
  );
  const [review] = await sql(`select status, note, latitude from tickets_ops.review_queue where kind = 'location'`);
  assert.deepEqual(review, {
    status: 'needs_review',
    note: 'Only a city or county was found: Nairobi, Nairobi, Kenya',
    latitude: -1.28,
  });
});

test('a place whose cluster gets its centroid while the place is about to wait does not wait', async () => {
  const log = { info: () => {} };
  // The centroid comes between the question, which finds none, and the statement that adds the cluster's job or the snooze.
  for (const late of ['tickets_ops.request_centroid', 'tickets_ops.snooze_geocoding']) {
    await env.reset();
    await register();
    await ticket('T1', 'NW_Rose Court');
    await ask('NW_Rose Court');
    const [job] = await sql(`
      update graphile_worker._private_jobs set locked_at = now(), locked_by = 'test', attempts = 1 returning *`);
    const query = async (text: string, values: unknown[]) => {
      if (text.includes(late)) await centroid();
      return env.pool.query(text, values);
    };
    await geocodeLocation(
      { location_name: 'NW_Rose Court', cluster: 'Kilimani', force: false, planned: false, snoozes: 0 },
      { job, log, query } as never,
    );
    const waiting = await sql(
      `select task_identifier as task, run_at <= now() as due from graphile_worker.jobs where locked_at is null order by 1`,
    );
    const place = { task: 'geocode_location', due: true };
    const cluster = { task: 'geocode_cluster', due: true };
    assert.deepEqual(waiting, late.endsWith('request_centroid') ? [place] : [cluster, place], late);
  }
});

test('a day later a failed place is tried again if its tickets are still open, but not what was given up', async () => {
  await centroid();
  for (const [id, place] of [
    ['T1', 'NW_Rose Court'],
    ['T2', 'NW_Palm Court'],
    ['T3', 'NW_Bad Court'],
  ] as const)
    await ticket(id, place);
  await plan();
  server.script(({ query }) => (query.startsWith('Bad') ? { status: 400, json: {} } : { status: 500, text: 'no' }));
  await sql('update graphile_worker._private_jobs set max_attempts = 1');
  await env.runJobs();
  assert.equal((await failed()).length, 3);
  await sql(`update graphile_worker._private_jobs set updated_at = now() - interval '25 hours'`);
  await ticket('T4', 'NW_Uhuru Court');
  await sql(`update tickets.inc set raw = raw || '{"is_actionable": "false"}' where ticket_id = 'T2'`);
  assert.equal(await plan(), 2, 'the new one and the one that is open');
  const left = await sql('select key from graphile_worker.jobs where attempts >= max_attempts order by 1');
  assert.deepEqual(
    left.map(({ key }) => key.split(':').at(-1)),
    ['bad court', 'palm court'],
  );
  await sql(`select tickets_ops.retry_failed()`);
  assert.deepEqual(await failed(), [], 'a person may try them all');
});

test('a place by hand takes its cluster’s waiting job along', async () => {
  await ticket('T1', 'NW_Rose Court');
  await plan();
  await sql(`update graphile_worker._private_jobs set run_at = now() + interval '1 hour'`);
  await ask('NW_Palm Court');
  server.script(({ query }) => ({
    json: [query.startsWith('Palm') ? locationiqPlace('Palm Court', -1.28, 36.77) : KILIMANI],
  }));
  await env.runJobs();
  assert.deepEqual(queries().slice(0, 2), ['Kilimani, nairobi, Kenya', 'Palm Court, Kilimani, Kenya']);
});

test('answers of yesterday, or of another provider, do not count, and maintain removes them', async () => {
  await centroid();
  const remember = () =>
    sql(`
      insert into tickets_ops.geocoding_answers (cluster, location_key, query, provider, candidates, answered_at)
      select 'Kilimani', key, 'Rose Court, Kilimani, Kenya', provider, '[]', now() - age
      from (values ('rose court', 'locationiq', interval '25 hours'), ('palm court', 'opencage', '1 minute'),
        ('uhuru court', 'locationiq', '1 minute')) as answer (key, provider, age)`);
  await remember();
  await ask('NW_Rose Court');
  server.script(() => ({ json: [ROSE_COURT] }));
  await env.runJobs();
  assert.deepEqual(queries(), ['Rose Court, Kilimani, Kenya']);
  assert.deepEqual([(await location())?.status, (await location())?.candidates.length], ['found', 1]);

  await sql(`truncate tickets_ops.geocoding_answers`);
  await remember();
  await sql(`select graphile_worker.add_job('fleettickets_maintain')`);
  await env.runJobs();
  assert.deepEqual(await sql('select location_key from tickets_ops.geocoding_answers'), [
    { location_key: 'uhuru court' },
  ]);
});

test('a centroid that a person took away is not asked for again, and its places say so', async () => {
  await ticket('T1', 'NW_Rose Court');
  server.script(({ query }) => ({ json: [query.startsWith('Rose') ? ROSE_COURT : KILIMANI] }));
  await plan();
  await env.runJobs();
  await sql('update tickets.geo_clusters set geom = null');
  await ticket('T2', 'NW_Palm Court');
  assert.equal(await plan(), 0);
  await sql(`select tickets.geocode_cluster('Kilimani', true)`);
  const calls = server.calls.length;
  await env.runJobs();
  assert.equal(server.calls.length, calls);
  const [cluster] = await sql('select geom, verified, provider from tickets.geo_clusters');
  assert.deepEqual(cluster, { geom: null, verified: true, provider: 'manual' });
  const [review] = await sql(`select status, open_tickets, note from tickets_ops.review_queue where kind = 'cluster'`);
  assert.deepEqual(review, {
    status: 'rejected',
    open_tickets: '2',
    note: 'Without a centroid none of its 2 place(s) is asked or checked: set one.',
  });
  await ask('NW_Palm Court');
  assert.match((await env.runJobs())[0]?.error ?? '', /Kilimani has no centroid, and none is to be had/);
});

test('a cluster that nobody knows: its places end, and start with its centroid; a person who asks is told what to do', async () => {
  await ticket('T1', 'NW_Rose Court', 'Backbone East');
  await plan();
  server.script(() => UNABLE_TO_GEOCODE);
  await env.runJobs();
  assert.deepEqual(queries(), ['Backbone East, nairobi, Kenya', 'Backbone East, Kenya']);
  const [cluster] = await sql('select geom, attempts, expires_at > now() as cached from tickets.geo_clusters');
  assert.deepEqual(cluster, { geom: null, attempts: 1, cached: true });
  assert.deepEqual(await jobs(), [], 'nothing waits for what is not to be had');
  assert.equal(await plan(), 0);
  await ask('NW_Palm Court', 'Backbone East');
  const [failure] = await env.runJobs();
  assert.match(
    failure?.error ?? '',
    /Backbone East has no centroid, and none is to be had[\s\S]*update tickets\.geo_clusters set geom/,
  );

  server.script(() => ({ json: [ROSE_COURT] }));
  await sql(
    `update tickets.geo_clusters set geom = st_setsrid(st_makepoint(36.78, -1.29), 4326) where cluster = 'Backbone East'`,
  );
  await env.runJobs();
  assert.equal((await location())?.status, 'found', 'its centroid planned the place');
});

test('the key is in no table, no job, no error and no log', async () => {
  await centroid();
  await ask('NW_Rose Court');
  const echo = `<html>GET /v1/search?key=${KEY}&q=x failed for ${KEY}</html>`;
  server.script(({ path, parameters }, number) => {
    if (number === 1) return { status: 500, text: echo };
    if (number === 2) return { status: 401, json: { error: `Invalid key ${KEY}` } };
    return { json: [{ ...ROSE_COURT, url: `http://x${path}?key=${parameters.get('key')}` }] };
  });
  for (let i = 0; i < 4; i++) {
    await env.runJobs();
    await breakerTimeIsUp();
    await dueNow();
  }
  await ask('NW_Rose Court', 'Kilimani', true);
  process.env.GEOCODER_BASE_URL = 'http://127.0.0.1:9/v1';
  await env.runJobs();
  assert.equal((await location())?.status, 'found');
  assert.equal((await jobs()).length, 1, 'and one that failed');

  const tables = await sql(`
    select format('%I.%I', relnamespace::regnamespace, relname) as name from pg_class
    where relkind = 'r' and relnamespace::regnamespace::text in ('tickets', 'tickets_ops', 'reporting', 'graphile_worker')`);
  for (const { name } of tables) {
    const [hit] = await sql(`select t::text as row from ${name} t where position($1 in t::text) > 0 limit 1`, [KEY]);
    assert.equal(hit, undefined, `${name} holds the key`);
  }
  assert.ok(written.includes('answered 500'), 'the log was written');
  assert.ok(!written.includes(KEY), 'the log holds the key');
});
