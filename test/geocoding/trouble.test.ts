/** What is no answer, and waiting while nobody may call: breaker, budget, and attempts that are not used up. */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { geocodeLocation } from '../../src/geocoding/jobs.ts';
import { callAtSlot } from '../../src/geocoding/rate.ts';
import { geocoderInUse } from '../../src/geocoding/registration.ts';
import { waitFor } from '../support/environment.ts';
import {
  ask,
  breakerTimeIsUp,
  centroid,
  dueNow,
  env,
  failed,
  geocoding,
  jobs,
  KILIMANI,
  location,
  plan,
  queries,
  ROSE_COURT,
  register,
  server,
  sql,
  ticket,
} from '../support/geocoding.ts';
import { locationiqPlace, type Reply } from '../support/scripted-provider.ts';

geocoding();

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

  test('what a person asks for while the job runs is not lost when that puts itself back', async () => {
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

  test('a planned job that puts itself back goes first when a person asked for it while it ran', async () => {
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
