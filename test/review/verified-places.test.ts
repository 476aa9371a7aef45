/** What a person writes into the gazetteers: slips are refused or named, decisions stand, and the pipeline overwrites none. */
import assert from 'node:assert/strict';
import { after, before, beforeEach, describe, test } from 'node:test';
import { at } from '../support/candidates.ts';
import { type Environment, startEnvironment } from '../support/environment.ts';
import { geoSources, noticesOf, point, store, ticket } from '../support/gazetteer.ts';

let env: Environment;
before(async () => {
  env = await startEnvironment();
});
after(() => env.close());
beforeEach(() => env.reset());

const sql = async (text: string, values: unknown[] = []) => (await env.pool.query(text, values)).rows;
const KILIMANI = point(36.78, -1.29);
const MOMBASA = point(39.66, -4.05);

describe('a coordinate that a person sets', () => {
  const refused: [what: string, geom: string, reason: RegExp][] = [
    ['0,0', point(0, 0), /\(0,0\) of .* is refused\. It is 0,0, which is what an empty coordinate becomes/],
    ['swapped', point(-1.29, 36.78), /swapped\. Write st_setsrid\(st_makepoint\(36\.78, -1\.29\), 4326\)/],
    ['in Tanzania', point(36.68, -3.38), /outside Kenya\. Longitude comes first/],
    ['in the Indian Ocean', point(45, -2), /outside Kenya/],
    ['no number', point('NaN', 'NaN'), /outside Kenya/],
    ['beyond the poles', point(36.78, 129), /outside Kenya/],
    ['empty', `st_setsrid('POINT EMPTY'::geometry, 4326)`, /outside Kenya/],
  ];
  for (const [what, geom, reason] of refused) {
    test(`is refused where it is ${what}, with the right order, and nothing is written`, async () => {
      await sql(`insert into tickets.geo_clusters (cluster, geom) values ('Kilimani', ${KILIMANI})`);
      await sql(
        `insert into tickets.geo_locations (cluster, location_name, geom) values ('Kilimani', 'Yaya', ${KILIMANI})`,
      );
      const before = await sql('select * from tickets.geo_clusters, tickets.geo_locations');
      for (const statement of [
        `insert into tickets.geo_clusters (cluster, geom) values ('Nyali', ${geom})`,
        `update tickets.geo_clusters set geom = ${geom}`,
        `insert into tickets.geo_locations (cluster, location_name, geom) values ('Kilimani', 'Rose Court', ${geom})`,
        `update tickets.geo_locations set geom = ${geom}`,
      ]) {
        await assert.rejects(sql(statement), (error: Error & { code?: string }) => {
          assert.equal(error.code, '23514', `${statement}: ${error.message}`);
          assert.match(error.message, reason, statement);
          return true;
        });
      }
      assert.deepEqual(await sql('select * from tickets.geo_clusters, tickets.geo_locations'), before);
    });
  }

  test('beyond the guard it is taken, with a notice', async () => {
    await sql(`insert into tickets.geo_clusters (cluster, geom) values ('Kilimani', ${KILIMANI})`);
    const said = await noticesOf(
      env.pool,
      `insert into tickets.geo_locations (cluster, location_name, geom) values ('Kilimani', 'Rose Court', ${MOMBASA})`,
    );
    assert.equal(said.length, 1);
    assert.match(said[0] ?? '', /^rose court is 44\d\.\d km from the centre of Kilimani, beyond its guard of 25 km\./);
    const [row] = await sql('select status, verified from tickets.geo_locations');
    assert.deepEqual(row, { status: 'found', verified: true });
    assert.deepEqual(
      await noticesOf(env.pool, `update tickets.geo_locations set geom = ${point(36.79, -1.28)}`),
      [],
      'within it, nothing is to be said',
    );
  });
});

describe('a place that a person adds', () => {
  test('has the key that tickets have, whichever column it was written into', async () => {
    await sql(
      `insert into tickets.geo_locations (cluster, location_key, geom) values ('Kilimani', 'NW_Yaya Centre_FDT1', ${KILIMANI})`,
    );
    await assert.rejects(
      sql(
        `insert into tickets.geo_locations (cluster, location_name, geom) values ('kilimani', 'Yaya  CENTRE', ${KILIMANI})`,
      ),
      { code: '23505' },
      'the same place',
    );
    assert.deepEqual(await sql('select location_key from tickets.geo_locations'), [{ location_key: 'yaya centre' }]);
  });

  test('is refused where nothing but network codes is left of its name', async () => {
    await assert.rejects(
      sql(`insert into tickets.geo_locations (cluster, location_name, geom) values ('Kilimani', 'FDT1', ${KILIMANI})`),
      /Nothing but network codes is left of "FDT1"/,
    );
  });

  test('is of one cluster however that is written, and of no endless guard', async () => {
    await sql(`insert into tickets.geo_clusters (cluster, geom) values ('Kilimani', ${KILIMANI})`);
    for (const name of ['KILIMANI', ' kili mani ', 'Kilimani\u2003', 'Kili\u200bmani', '\ufeffKilimani'])
      await assert.rejects(
        sql(`insert into tickets.geo_clusters (cluster, geom) values ($1, ${KILIMANI})`, [name]),
        { code: '23505' },
        JSON.stringify(name),
      );
    for (const guard of ['infinity', '-infinity', 'nan', '-1', '0', '1e9'])
      await assert.rejects(sql(`update tickets.geo_clusters set guard_km = '${guard}'`), /guard_km/, guard);
  });
});

describe('the verdict of a person', () => {
  test('what a person sets is verified; accepting, rejecting and handing back are plain updates', async () => {
    await env.pool.query(
      `insert into tickets.geo_clusters (cluster, geom) values ('Nairobi', ${point(36.8219, -1.2921)})`,
    );
    await ticket(env.pool, 'T1', 'Nairobi', 'NW_Rose Court');
    const row = async () => {
      const { rows } = await env.pool.query(
        'select status, verified, provider, precision, expires_at is null as for_ever from tickets.geo_locations',
      );
      return rows[0];
    };
    await store(env.pool, 'Nairobi', 'NW_Rose Court', [at('Nairobi', -1.28, 36.81, 'city')]);
    const pipeline = { verified: false, provider: 'locationiq', for_ever: false };
    assert.deepEqual(await row(), { ...pipeline, status: 'needs_review', precision: 'city' });
    assert.deepEqual(await geoSources(env.pool), ['cluster']);

    await env.pool.query('update tickets.geo_locations set verified = true');
    assert.deepEqual(await row(), {
      status: 'found',
      verified: true,
      provider: 'locationiq',
      precision: 'city',
      for_ever: true,
    });
    assert.deepEqual(await geoSources(env.pool), ['location']);

    await env.pool.query(`update tickets.geo_locations set geom = ${point(36.79, -1.29)}`);
    assert.deepEqual(await row(), {
      status: 'found',
      verified: true,
      provider: 'manual',
      precision: 'point',
      for_ever: true,
    });

    await env.pool.query(`update tickets.geo_locations set status = 'rejected'`);
    assert.equal((await row()).verified, true);
    assert.deepEqual(await geoSources(env.pool), ['cluster']);

    await store(env.pool, 'Nairobi', 'NW_Rose Court', [at('Rose Court', -1.3, 36.8, 'point')]);
    assert.equal((await row()).status, 'rejected', 'the pipeline cannot overwrite it');
    await env.pool.query('update tickets.geo_locations set verified = false');
    assert.equal((await row()).for_ever, false, 'handed back: due at once');

    await env.pool.query('delete from tickets.geo_locations');
    assert.deepEqual(await geoSources(env.pool), ['cluster']);
    await env.pool.query(
      `insert into tickets.geo_locations (cluster, location_name, geom) values ('Nairobi', 'ADR_Rose Court_FDT9', ${point(36.79, -1.29)})`,
    );
    assert.deepEqual(await row(), {
      status: 'found',
      verified: true,
      provider: 'manual',
      precision: 'point',
      for_ever: true,
    });
    assert.deepEqual(await geoSources(env.pool), ['location']);
    await env.pool.query('delete from tickets.geo_clusters');
    assert.deepEqual(await geoSources(env.pool), ['location']);
  });

  test('a curator who may only write the gazetteers accepts, moves and takes away; the tickets follow', async () => {
    const curator = `curator_${process.pid}`;
    await env.pool.query(
      `create role ${curator};
       grant usage on schema tickets to ${curator};
       grant select, insert, update on tickets.geo_clusters, tickets.geo_locations to ${curator}`,
    );
    await env.pool.query(
      `insert into tickets.geo_clusters (cluster, geom) values ('Nairobi', ${point(36.8219, -1.2921)})`,
    );
    await ticket(env.pool, 'T1', 'Nairobi', 'NW_Rose Court');
    await store(env.pool, 'Nairobi', 'NW_Rose Court', [at('Nairobi', -1.28, 36.81, 'city')]);
    const client = await env.pool.connect();
    const asCurator = async (statement: string) => {
      await client.query('begin');
      await client.query(`set local role ${curator}`);
      await client.query(statement);
      await client.query('commit');
    };
    try {
      await asCurator('update tickets.geo_locations set verified = true');
      assert.deepEqual(await geoSources(env.pool), ['location']);
      await asCurator(`update tickets.geo_locations set geom = ${point(36.79, -1.29)}`);
      await asCurator(`update tickets.geo_clusters set geom = ${point(36.8, -1.3)}, guard_km = 30`);
      await asCurator(`update tickets.geo_locations set status = 'rejected'`);
      const { rows } = await env.pool.query('select geo_source, longitude from tickets.inc');
      assert.deepEqual(rows, [{ geo_source: 'cluster', longitude: 36.8 }]);
      await asCurator('update tickets.geo_clusters set geom = null');
      assert.deepEqual(await geoSources(env.pool), ['none']);
    } finally {
      await client.query('rollback');
      client.release();
      await env.pool.query(`drop owned by ${curator}; drop role ${curator}`);
    }
  });

  test('the pipeline’s mark does not outlive its function', async () => {
    await env.pool.query(
      `insert into tickets.geo_clusters (cluster, geom) values ('Nairobi', ${point(36.8219, -1.2921)})`,
    );
    const client = await env.pool.connect();
    try {
      await client.query('begin');
      await client.query(
        `insert into tickets_ops.geocoding_answers values ('Nairobi', 'kilimani', 'q', 'locationiq', '[]')`,
      );
      await client.query(`select tickets_ops.resolve_location('Nairobi', 'kilimani', 'Kilimani', 'locationiq', true)`);
      await client.query(`update tickets.geo_locations set geom = ${point(36.79, -1.29)}`);
      await client.query('commit');
    } finally {
      client.release();
    }
    const { rows } = await env.pool.query('select verified, provider from tickets.geo_locations');
    assert.deepEqual(rows, [{ verified: true, provider: 'manual' }]);
  });
});
