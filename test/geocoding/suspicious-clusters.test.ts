/** Clusters whose centroid is probably the wrong one: flagged, named to the person who sets it, first in the review queue. */
import assert from 'node:assert/strict';
import { after, before, beforeEach, describe, test } from 'node:test';
import { at } from '../support/candidates.ts';
import { type Environment, startEnvironment } from '../support/environment.ts';
import { noticesOf, point, store } from '../support/gazetteer.ts';

let env: Environment;
before(async () => {
  env = await startEnvironment();
});
after(() => env.close());
beforeEach(() => env.reset());

const sql = async (text: string, values: unknown[] = []) => (await env.pool.query(text, values)).rows;
const KILIMANI = point(36.78, -1.29);
const MOMBASA = point(39.66, -4.05);

const reviewed = async (kind: string) =>
  sql(`select cluster, status, doubt::float8, note from tickets_ops.review_queue where kind = $1`, [kind]);
const placesForReview = async () =>
  (await sql('select places_for_review::int as places from tickets_ops.health'))[0]?.places;

const statuses = async () => {
  const { rows } = await env.pool.query('select location_name, status from tickets.geo_locations order by 1');
  return Object.fromEntries(rows.map(({ location_name, status }) => [location_name, status]));
};

describe('a cluster is flagged', () => {
  test('where its rejected places agree, and its correction clears the flag', async () => {
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
      await store(env.pool, 'Milimani', name, [at(`${name}, Kisumu`, -0.1 - index / 100, 34.75)]);
    }
    const { rows } = await env.pool.query('select cluster, status from tickets_ops.review_queue limit 1');
    assert.deepEqual(rows, [{ cluster: 'Milimani', status: 'suspicious' }], 'it is the first to review');
    await env.pool.query(`update tickets.geo_clusters set geom = ${point(34.75, -0.1)}`);
    assert.equal(await suspicious(), false);
    assert.deepEqual(Object.values(await statuses()), Array(4).fill('found'));
  });

  test('where it may be its namesake; the tickets’ region decides, and a person’s word ends the doubt', async () => {
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

  test('by all of its places, in whatever order they are asked', async () => {
    const all = async (names: string[], lat: number, lng: number) => {
      for (const name of names) await store(env.pool, 'Milimani', name, [at(name, lat, lng)]);
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

  test('not where its rejected places do not agree', async () => {
    await env.pool.query(
      `insert into tickets.geo_clusters (cluster, geom) values ('Milimani', ${point(36.81, -1.2905)})`,
    );
    await env.pool.query('update tickets.geo_clusters set verified = false');
    await store(env.pool, 'Milimani', 'Tom Mboya', [at('Tom Mboya', -0.1, 34.75)]);
    await store(env.pool, 'Milimani', 'Aga Khan', [at('Aga Khan', -4.05, 39.66)]);
    await store(env.pool, 'Milimani', 'Oginga', [at('Oginga', 0.51, 35.27)]);
    const { rows } = await env.pool.query('select suspicious from tickets.geo_clusters');
    assert.equal(rows[0].suspicious, false);
  });
});

describe('a centroid far from its places', () => {
  beforeEach(async () => {
    await sql(`insert into tickets.geo_clusters (cluster, geom) values ('Kilimani', ${KILIMANI})`);
  });

  test('is named at once, and stays in the review queue although it is verified', async () => {
    await sql(
      `insert into tickets.geo_locations (cluster, location_name, geom) values ('Kilimani', 'Yaya', ${KILIMANI})`,
    );
    assert.deepEqual(await reviewed('cluster'), [], 'a verified one that fits is nobody’s business');
    const said = await noticesOf(env.pool, `update tickets.geo_clusters set geom = ${MOMBASA}`);
    assert.match(said.join(), /Most known places of Kilimani lie beyond its guard of 25 km/);
    const [row] = await reviewed('cluster');
    assert.deepEqual([row?.cluster, row?.status, row?.doubt], ['Kilimani', 'suspicious', 1]);
    assert.match(row?.note, /Most of its known places lie beyond its guard/);
    assert.equal(await placesForReview(), 1, 'health counts what the queue calls suspicious, flagged or not');
    await sql(`update tickets.geo_clusters set geom = ${KILIMANI}`);
    assert.deepEqual(await reviewed('cluster'), [], 'its correction ends it');
  });

  test('is flagged where its rejected places agree, verified or not', async () => {
    for (const name of ['Tom Mboya', 'Aga Khan', 'Ring Road', 'Oginga'])
      await sql(
        `with marked as materialized (select tickets_ops.as_pipeline(true))
         insert into tickets.geo_locations (cluster, location_key, location_name, status, candidates, distance_km)
         select 'Kilimani', tickets.location_key($1), $1, 'rejected', $2, 270 from marked`,
        [name, JSON.stringify([{ lat: -0.1, lng: 34.75, level: 'point', country: 'ke', label: `${name}, Kisumu` }])],
      );
    await sql(`update tickets.geo_clusters set geom = ${point(36.79, -1.3)}`);
    const [row] = await sql('select verified, suspicious from tickets.geo_clusters');
    assert.deepEqual(row, { verified: true, suspicious: true });
    const [queued] = await reviewed('cluster');
    assert.deepEqual([queued?.status, queued?.doubt], ['suspicious', 1]);
    assert.equal(await placesForReview(), 1);
  });

  test('is not assumed of one whose places mostly lie within', async () => {
    for (const [name, geom] of [
      ['Yaya', KILIMANI],
      ['Rose Court', point(36.79, -1.28)],
      ['Namesake', MOMBASA],
    ])
      await sql(`insert into tickets.geo_locations (cluster, location_name, geom) values ('Kilimani', $1, ${geom})`, [
        name,
      ]);
    assert.deepEqual(await reviewed('cluster'), []);
  });
});
