/** Rescoring: when a guard or a centroid changes, stored answers mean something else, without a call. */
import assert from 'node:assert/strict';
import { after, before, beforeEach, test } from 'node:test';
import { at } from '../support/candidates.ts';
import { type Environment, startEnvironment } from '../support/environment.ts';
import { geoSources, point, store, ticket } from '../support/gazetteer.ts';

let env: Environment;
before(async () => {
  env = await startEnvironment();
});
after(() => env.close());
beforeEach(() => env.reset());

const statuses = async () => {
  const { rows } = await env.pool.query('select location_name, status from tickets.geo_locations order by 1');
  return Object.fromEntries(rows.map(({ location_name, status }) => [location_name, status]));
};

test('when a guard is widened or a centroid moves, stored places are rescored and tickets follow in the same statement', async () => {
  await env.pool.query(
    `insert into tickets.geo_clusters (cluster, geom) values ('Nairobi', ${point(36.8219, -1.2921)})`,
  );
  await ticket(env.pool, 'T1', 'Nairobi', 'NW_Kitengela_FDT1');
  await ticket(env.pool, 'T2', 'Nairobi', 'NW_Kilimani');
  await store(env.pool, 'Nairobi', 'NW_Kitengela_FDT1', [at('Kitengela, Kajiado', -1.4731, 36.9575)]);
  await store(env.pool, 'Nairobi', 'NW_Kilimani', [
    at('Kilimani, Mombasa', -4.05, 39.66),
    at('Kilimani, Nairobi', -1.29, 36.79),
  ]);
  assert.deepEqual(
    await statuses(),
    { NW_Kilimani: 'found', NW_Kitengela_FDT1: 'rejected' },
    '25.1 km and more is too far',
  );
  assert.deepEqual(await geoSources(env.pool), ['cluster', 'location']);

  await env.pool.query(`update tickets.geo_clusters set guard_km = 30 where cluster = 'Nairobi'`);
  assert.deepEqual(await statuses(), { NW_Kilimani: 'found', NW_Kitengela_FDT1: 'found' });
  assert.deepEqual(await geoSources(env.pool), ['location', 'location']);

  await env.pool.query(`update tickets.geo_clusters set geom = ${point(39.6682, -4.0435)} where cluster = 'Nairobi'`);
  assert.deepEqual(await statuses(), { NW_Kilimani: 'found', NW_Kitengela_FDT1: 'rejected' });
  const { rows } = await env.pool.query(`select longitude from tickets.inc where ticket_id = 'T2'`);
  assert.equal(rows[0].longitude, 39.66, 'the other candidate is the right one now');
  assert.deepEqual(await geoSources(env.pool), ['cluster', 'location']);
});

test('a coordinate of the Python version follows the guard too, with its note and its time', async () => {
  await env.pool.query(
    `insert into tickets.geo_clusters (cluster, geom) values ('Nairobi', ${point(36.8219, -1.2921)})`,
  );
  await ticket(env.pool, 'T1', 'Nairobi', 'Karen');
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
  assert.deepEqual(await geoSources(env.pool), ['cluster']);
  assert.deepEqual(await guard(400), { status: 'found', note: null, days: 180 });
  assert.deepEqual(await geoSources(env.pool), ['location']);
  assert.equal((await statuses()).Namanga, 'needs_review', 'within the guard, but not in Kenya');
});
