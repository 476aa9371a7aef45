/** The geocoding jobs, from tickets to pins, against a scripted provider over HTTP. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { geocodeLocation } from '../../src/geocoding/jobs.ts';
import {
  ask,
  breakerTimeIsUp,
  centroid,
  dueNow,
  env,
  geocoding,
  jobs,
  KEY,
  KILIMANI,
  location,
  plan,
  queries,
  ROSE_COURT,
  register,
  server,
  sql,
  ticket,
  written,
} from '../support/geocoding.ts';
import { locationiqPlace, UNABLE_TO_GEOCODE } from '../support/scripted-provider.ts';

geocoding();

test('tickets become pins: the cluster is asked first, then its places, and tickets follow', async () => {
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

test('places with the newest tickets go first, then those with the most; what a person asks for goes before all', async () => {
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

test('a person who asks is told the job’s id and key, and whether one waited already', async () => {
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

test('a place that a person asks for takes its cluster’s waiting job along', async () => {
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
