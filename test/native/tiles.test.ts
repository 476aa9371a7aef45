/** Only on a real server: the embedded PostGIS is built without the library that writes vector tiles. */
import assert from 'node:assert/strict';
import { after, before, beforeEach, describe, test } from 'node:test';
import { VectorTile, type VectorTileLayer } from '@mapbox/vector-tile';
import { PbfReader } from 'pbf';
import { type Environment, native, startEnvironment } from '../support/environment.ts';

const EXTENT = 4096;

type Place = { id: string; geometry: { coordinates: [number, number] }; properties: Record<string, unknown> };

describe('places as vector tiles', { skip: !native && 'needs a native Postgres' }, () => {
  let env: Environment;
  before(async () => {
    env = await startEnvironment();
  });
  after(() => env?.close());
  beforeEach(() => env.reset());

  const tile = async (z: number, x: number, y: number, query?: object): Promise<VectorTileLayer | undefined> => {
    const { rows } = await env.pool.query<{ tile: Buffer }>(
      query
        ? 'select reporting.ticket_places_mvt($1, $2, $3, $4) as tile'
        : 'select reporting.ticket_places_mvt($1, $2, $3) as tile',
      [z, x, y, ...(query ? [query] : [])],
    );
    const { layers } = new VectorTile(new PbfReader(rows[0]?.tile ?? assert.fail('no tile')));
    const [[name, layer] = []] = Object.entries(layers);
    // A client of pg_tileserv takes it for the id of the source.
    assert.equal(name ?? 'reporting.ticket_places_mvt', 'reporting.ticket_places_mvt');
    return layer;
  };
  /** The properties of the features that lie in the tile, not only in its buffer. */
  const within = (layer: VectorTileLayer | undefined) =>
    Array.from({ length: layer?.length ?? 0 }, (_, n) => layer?.feature(n)).flatMap((feature) => {
      const [[point] = []] = feature?.loadGeometry() ?? [];
      const inside = point && point.x >= 0 && point.x < EXTENT && point.y >= 0 && point.y < EXTENT;
      return feature && inside ? [feature.properties] : [];
    });
  const places = async (args = ''): Promise<Place[]> =>
    (await env.pool.query(`select reporting.fn_ticket_places(${args}) -> 'features' as list`)).rows[0].list;
  /** So many tickets on coordinates all over Kenya and, as feeds are, beyond; every third closed. */
  const scatter = (count: number) =>
    env.pool.query(
      `insert into tickets.inc (ticket_id, raw)
       select 'WOT' || i, jsonb_build_object(
         'ticket_id', 'WOT' || i, 'is_actionable', (i % 3 <> 0)::text, 'cluster', 'Cluster ' || i % 7, 'location_name', 'Place ' || i % 11,
         'longitude', round((34.2 + (i * 7919 % 1000) * 0.0071)::numeric, 5)::text,
         'latitude', round((-4.4 + (i * 104729 % 500) * 0.0178)::numeric, 5)::text, 'mttr', '1.5',
         'closed_at', case when i % 3 = 0 then '2026-06-01 10:00:00' else '' end)
       from generate_series(1, $1) as i`,
      [count],
    );

  test('a tile without places is empty, and one that does not exist is an error', async () => {
    assert.equal(await tile(3, 4, 4), undefined);
    await assert.rejects(tile(2, 4, 0), /[Ii]nvalid tile/);
    await assert.rejects(tile(3, 4, 4, { state: 'shut' }), { code: '22023' });
    await assert.rejects(tile(3, 4, 4, { from: 'last week' }), { code: '22007' });
  });

  test('a place has its properties, and lies where it should', async () => {
    await scatter(1);
    const [place] = await places();
    const layer = await tile(0, 0, 0);
    const { ticket_ids, more, ...properties } = place?.properties ?? {};
    assert.equal(layer?.extent, EXTENT);
    assert.equal(layer?.length, 1);
    assert.deepEqual(
      { ...layer?.feature(0).properties },
      Object.fromEntries(Object.entries({ id: place?.id, ...properties }).filter(([, value]) => value !== null)),
    );
    // At zoom 14 a pixel of the extent is half a metre.
    const [lng, lat] = place?.geometry.coordinates ?? assert.fail('no place');
    const column = ((lng + 180) / 360) * 2 ** 14;
    const row = ((1 - Math.asinh(Math.tan((lat * Math.PI) / 180)) / Math.PI) / 2) * 2 ** 14;
    const [x, y] = [Math.floor(column), Math.floor(row)];
    const geometry = (await tile(14, x, y))?.feature(0).toGeoJSON(x, y, 14).geometry;
    assert.ok(geometry?.type === 'Point');
    const [longitude = 0, latitude = 0] = geometry.coordinates;
    assert.ok(Math.abs(longitude - lng) < 1e-5 && Math.abs(latitude - lat) < 1e-5);
  });

  for (const [zoom, state] of [
    [0, 'open'],
    [5, 'all'],
    [6, 'open'],
    [7, 'closed'],
    [9, 'all'],
  ] as const) {
    test(`the tiles of zoom ${zoom} hold every ${state} place once, and its tickets`, async () => {
      await scatter(600);
      const expected = await places(`'${state}'`);
      const size = 360 / 2 ** zoom;
      const [west, east] = [Math.floor((34 + 180) / size), Math.floor((42 + 180) / size)];
      // Around the equator a degree is a degree.
      const [north, south] = [Math.floor((180 - 6) / size), Math.floor((180 + 6) / size)];
      const found: Record<string, unknown>[] = [];
      for (let x = west; x <= east; x += 1) {
        for (let y = north; y <= south; y += 1) found.push(...within(await tile(zoom, x, y, { state })));
      }
      assert.deepEqual(
        found.map(({ id, tickets }) => [id, tickets]).sort(),
        expected.map(({ id, properties }) => [id, properties['tickets']]).sort(),
      );
    });
  }

  test('the query filters as the arguments of the places do, and other keys do not matter', async () => {
    await scatter(60);
    for (const [query, args] of [
      [{}, ''],
      [{ state: '', cluster: '', token: 'x' }, ''],
      [{ state: 'all', cluster: 'Cluster 3' }, `'all', p_cluster := 'Cluster 3'`],
      [{ state: 'closed', from: '2026-06-01T10:00+03', to: '2026-06-01T10:01+03' }, `'closed'`],
      [{ state: 'closed', to: '2026-06-01T10:00+03' }, `'closed', p_to := '2026-06-01 10:00+03'`],
      [{ region: 'coast' }, `p_region := 'coast'`],
      [{ team: 'x' }, `p_team := 'x'`],
    ] as const) {
      assert.equal(within(await tile(0, 0, 0, query)).length, (await places(args)).length, JSON.stringify(query));
    }
  });

  test('a place at a pole, which the projection does not have, leaves the others on the map', async () => {
    await scatter(2);
    // A person's would be refused.
    await env.pool.query(
      `select tickets_ops.as_pipeline(true);
       insert into tickets.geo_clusters (cluster, geom) values ('Pole', st_setsrid(st_makepoint(36, 90), 4326))`,
    );
    await env.pool.query(
      `insert into tickets.inc (ticket_id, raw) values ('pole', '{"is_actionable": "true", "cluster": "Pole"}')`,
    );
    assert.equal((await places()).length, 3);
    assert.equal(within(await tile(0, 0, 0)).length, 2);
  });
});
