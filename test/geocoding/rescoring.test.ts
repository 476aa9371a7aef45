/** Judging again, without a call: guards, centroids and people's words change what stored answers mean. */
import assert from 'node:assert/strict';
import { after, before, beforeEach, describe, test } from 'node:test';
import { at, type Candidate } from '../support/candidates.ts';
import { type Environment, startEnvironment } from '../support/environment.ts';

let env: Environment;
before(async () => {
  env = await startEnvironment();
});
after(() => env.close());

describe('judging again, without a call', () => {
  beforeEach(() => env.reset());

  const point = (lng: number, lat: number) => `st_setsrid(st_makepoint(${lng}, ${lat}), 4326)`;
  const store = async (cluster: string, name: string, candidates: Candidate[]) => {
    await env.pool.query(
      `insert into tickets_ops.geocoding_answers (cluster, location_key, query, provider, candidates)
       values ($1, tickets.location_key($2), 'q', 'locationiq', $3)`,
      [cluster, name, JSON.stringify(candidates)],
    );
    const { rows } = await env.pool.query(
      `select tickets_ops.resolve_location($1, tickets.location_key($2), $2, 'locationiq', true) as status`,
      [cluster, name],
    );
    return rows[0].status;
  };
  const statuses = async () => {
    const { rows } = await env.pool.query('select location_name, status from tickets.geo_locations order by 1');
    return Object.fromEntries(rows.map(({ location_name, status }) => [location_name, status]));
  };
  const geoSources = async () => {
    const { rows } = await env.pool.query('select ticket_id, geo_source from tickets.inc order by 1');
    return rows.map(({ geo_source }) => geo_source);
  };
  const ticket = (id: string, cluster: string, location_name: string) =>
    env.pool.query('insert into tickets.inc (ticket_id, raw) values ($1, $2)', [
      id,
      JSON.stringify({ cluster, location_name, is_actionable: 'true' }),
    ]);

  test('a widened guard, a moved centroid; tickets follow in the same statement', async () => {
    await env.pool.query(
      `insert into tickets.geo_clusters (cluster, geom) values ('Nairobi', ${point(36.8219, -1.2921)})`,
    );
    await ticket('T1', 'Nairobi', 'NW_Kitengela_FDT1');
    await ticket('T2', 'Nairobi', 'NW_Kilimani');
    await store('Nairobi', 'NW_Kitengela_FDT1', [at('Kitengela, Kajiado', -1.4731, 36.9575)]);
    await store('Nairobi', 'NW_Kilimani', [
      at('Kilimani, Mombasa', -4.05, 39.66),
      at('Kilimani, Nairobi', -1.29, 36.79),
    ]);
    assert.deepEqual(
      await statuses(),
      { NW_Kilimani: 'found', NW_Kitengela_FDT1: 'rejected' },
      '25.1 km and more is too far',
    );
    assert.deepEqual(await geoSources(), ['cluster', 'location']);

    await env.pool.query(`update tickets.geo_clusters set guard_km = 30 where cluster = 'Nairobi'`);
    assert.deepEqual(await statuses(), { NW_Kilimani: 'found', NW_Kitengela_FDT1: 'found' });
    assert.deepEqual(await geoSources(), ['location', 'location']);

    await env.pool.query(`update tickets.geo_clusters set geom = ${point(39.6682, -4.0435)} where cluster = 'Nairobi'`);
    assert.deepEqual(await statuses(), { NW_Kilimani: 'found', NW_Kitengela_FDT1: 'rejected' });
    const { rows } = await env.pool.query(`select longitude from tickets.inc where ticket_id = 'T2'`);
    assert.equal(rows[0].longitude, 39.66, 'the other candidate is the right one now');
    assert.deepEqual(await geoSources(), ['cluster', 'location']);
  });

  test('places that are rejected but agree flag their cluster, and its correction clears the flag', async () => {
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
      await store('Milimani', name, [at(`${name}, Kisumu`, -0.1 - index / 100, 34.75)]);
    }
    const { rows } = await env.pool.query('select cluster, status from tickets_ops.review_queue limit 1');
    assert.deepEqual(rows, [{ cluster: 'Milimani', status: 'suspicious' }], 'it is the first to review');
    await env.pool.query(`update tickets.geo_clusters set geom = ${point(34.75, -0.1)}`);
    assert.equal(await suspicious(), false);
    assert.deepEqual(Object.values(await statuses()), Array(4).fill('found'));
  });

  test('a cluster that may be its namesake is flagged, the tickets’ region decides, and a person’s word ends the doubt', async () => {
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

  test('a coordinate of the Python version follows the guard too, with its note and its time', async () => {
    await env.pool.query(
      `insert into tickets.geo_clusters (cluster, geom) values ('Nairobi', ${point(36.8219, -1.2921)})`,
    );
    await ticket('T1', 'Nairobi', 'Karen');
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
    assert.deepEqual(await geoSources(), ['cluster']);
    assert.deepEqual(await guard(400), { status: 'found', note: null, days: 180 });
    assert.deepEqual(await geoSources(), ['location']);
    assert.equal((await statuses()).Namanga, 'needs_review', 'within the guard, but not in Kenya');
  });

  test('the order in which places are asked does not decide whether their cluster is flagged', async () => {
    const all = async (names: string[], lat: number, lng: number) => {
      for (const name of names) await store('Milimani', name, [at(name, lat, lng)]);
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

  test('rejected places that do not agree say nothing about the centroid', async () => {
    await env.pool.query(
      `insert into tickets.geo_clusters (cluster, geom) values ('Milimani', ${point(36.81, -1.2905)})`,
    );
    await env.pool.query('update tickets.geo_clusters set verified = false');
    await store('Milimani', 'Tom Mboya', [at('Tom Mboya', -0.1, 34.75)]);
    await store('Milimani', 'Aga Khan', [at('Aga Khan', -4.05, 39.66)]);
    await store('Milimani', 'Oginga', [at('Oginga', 0.51, 35.27)]);
    const { rows } = await env.pool.query('select suspicious from tickets.geo_clusters');
    assert.equal(rows[0].suspicious, false);
  });

  test('what a person sets is verified; accepting, rejecting and handing back are plain updates', async () => {
    await env.pool.query(
      `insert into tickets.geo_clusters (cluster, geom) values ('Nairobi', ${point(36.8219, -1.2921)})`,
    );
    await ticket('T1', 'Nairobi', 'NW_Rose Court');
    const row = async () => {
      const { rows } = await env.pool.query(
        'select status, verified, provider, precision, expires_at is null as for_ever from tickets.geo_locations',
      );
      return rows[0];
    };
    await store('Nairobi', 'NW_Rose Court', [at('Nairobi', -1.28, 36.81, 'city')]);
    const pipeline = { verified: false, provider: 'locationiq', for_ever: false };
    assert.deepEqual(await row(), { ...pipeline, status: 'needs_review', precision: 'city' });
    assert.deepEqual(await geoSources(), ['cluster']);

    await env.pool.query('update tickets.geo_locations set verified = true');
    assert.deepEqual(await row(), {
      status: 'found',
      verified: true,
      provider: 'locationiq',
      precision: 'city',
      for_ever: true,
    });
    assert.deepEqual(await geoSources(), ['location']);

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
    assert.deepEqual(await geoSources(), ['cluster']);

    await store('Nairobi', 'NW_Rose Court', [at('Rose Court', -1.3, 36.8, 'point')]);
    assert.equal((await row()).status, 'rejected', 'the pipeline cannot overwrite it');
    await env.pool.query('update tickets.geo_locations set verified = false');
    assert.equal((await row()).for_ever, false, 'handed back: due at once');

    await env.pool.query('delete from tickets.geo_locations');
    assert.deepEqual(await geoSources(), ['cluster']);
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
    assert.deepEqual(await geoSources(), ['location']);
    await env.pool.query('delete from tickets.geo_clusters');
    assert.deepEqual(await geoSources(), ['location']);
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
    await ticket('T1', 'Nairobi', 'NW_Rose Court');
    await store('Nairobi', 'NW_Rose Court', [at('Nairobi', -1.28, 36.81, 'city')]);
    const client = await env.pool.connect();
    const asCurator = async (statement: string) => {
      await client.query('begin');
      await client.query(`set local role ${curator}`);
      await client.query(statement);
      await client.query('commit');
    };
    try {
      await asCurator('update tickets.geo_locations set verified = true');
      assert.deepEqual(await geoSources(), ['location']);
      await asCurator(`update tickets.geo_locations set geom = ${point(36.79, -1.29)}`);
      await asCurator(`update tickets.geo_clusters set geom = ${point(36.8, -1.3)}, guard_km = 30`);
      await asCurator(`update tickets.geo_locations set status = 'rejected'`);
      const { rows } = await env.pool.query('select geo_source, longitude from tickets.inc');
      assert.deepEqual(rows, [{ geo_source: 'cluster', longitude: 36.8 }]);
      await asCurator('update tickets.geo_clusters set geom = null');
      assert.deepEqual(await geoSources(), ['none']);
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
