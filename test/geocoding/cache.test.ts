/** What is kept of answers, for how long, and what is asked again. */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import {
  ask,
  centroid,
  dueNow,
  env,
  failed,
  geocoding,
  location,
  plan,
  queries,
  ROSE_COURT,
  server,
  sql,
  ticket,
} from '../support/geocoding.ts';
import { setBack } from '../support/rows.ts';
import { locationiqPlace, UNABLE_TO_GEOCODE } from '../support/scripted-provider.ts';

geocoding();

describe('cache', () => {
  const days = async () => {
    const [row] = await sql(
      `select round(extract(epoch from expires_at - now()) / 86400)::int as days from tickets.geo_locations`,
    );
    return row?.days;
  };
  const expire = () => setBack(env.pool, 'tickets.geo_locations', 'expires_at', '1 minute');

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

  test('what is due is planned and asked; of what is not, neither', async () => {
    const point = 'st_setsrid(st_makepoint(36.78, -1.29), 4326)';
    await centroid('Home');
    // The pipeline's own rows: verified by nobody, unless it is said.
    await sql(`
      with marked as materialized (select tickets_ops.as_pipeline(true)),
      states as (
        select row_number() over () as no, is_known, verified, expires_at
        from marked, unnest(array[true, false]) is_known, unnest(array[true, false]) verified,
          unnest(array[null, now() - interval '1 day', now() + interval '1 day']) expires_at
      ),
      clusters as (
        insert into tickets.geo_clusters (cluster, geom, verified, expires_at)
        select 'Cluster ' || no, case when is_known then ${point} end, verified, expires_at from states
      )
      insert into tickets.geo_locations (cluster, location_key, location_name, status, geom, verified, expires_at)
      select 'Home', 'place ' || chr(96 + no::integer), 'Place ' || chr(96 + no::integer), case when is_known then 'found' else 'not_found' end,
        case when is_known then ${point} end, verified, expires_at
      from states`);
    for (const { cluster } of await sql(`select cluster from tickets.geo_clusters where cluster <> 'Home'`))
      await ticket(cluster, null, cluster);
    for (const { name } of await sql('select location_name as name from tickets.geo_locations'))
      await ticket(name, name, 'Home');
    await ticket('never asked', 'Palm Court', 'Nyali');

    const planned = (await sql('select cluster, location_name from tickets_ops.places_to_geocode()'))
      .map(({ cluster, location_name }) => location_name ?? cluster)
      .sort();
    const asked = await sql(`
      select o.cluster from tickets.open_places o cross join lateral tickets_ops.cluster_question(o.cluster, false) q
      where o.location_key is null and q.state = 'ask'
      union all
      select o.location_name from tickets.open_places o
      cross join lateral tickets_ops.location_question(o.location_name, o.cluster, false) q
      where q.state in ('ask', 'no centroid')
      union all
      select 'Nyali' where (select state from tickets_ops.cluster_question('Nyali', false)) = 'ask'`);
    assert.deepEqual(planned, asked.map(({ cluster }) => cluster).sort());
    // A cluster that is not known and never asked or expired; a place, known or not, that expired; and what has no row.
    assert.equal(planned.length, 2 + 2 + 2, planned.join(', '));
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
  await setBack(env.pool, 'graphile_worker._private_jobs', 'updated_at', '25 hours');
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
