import assert from 'node:assert/strict';
import { after, before, beforeEach, describe, test } from 'node:test';
import { type Environment, startEnvironment } from '../support/environment.ts';
import { csvOf, fetchNow, keyOf, rowVersions } from '../support/pipeline.ts';

type Place = [geo_source: string, x: number | null, y: number | null];

const NOWHERE: Place = ['none', null, null];
const KILIMANI = { cluster: 'Kilimani', x: 36.78, y: -1.29 };
const MILIMANI_NAKURU = { cluster: 'Milimani', x: 36.06, y: -0.28 };

describe('where a ticket is', () => {
  let env: Environment;
  before(async () => {
    env = await startEnvironment();
  });
  after(() => env.close());
  beforeEach(() => env.reset());

  /** Loads tickets 1, 2, … with these fields as the file of that hour. */
  const load = async (hour: number, ...records: Record<string, string>[]) => {
    await env.putObject(keyOf(hour), csvOf(records.map((record, n) => ({ ticket_id: `WOT${n + 1}`, ...record }))));
    assert.deepEqual(await fetchNow(env), []);
  };
  const places = async (): Promise<Place[]> => {
    const { rows } = await env.pool.query(
      `select geo_source, st_x(geom) as x, st_y(geom) as y, latitude, longitude, st_srid(geom) as srid, st_x(geog::geometry) as gx
       from tickets.inc order by ticket_id collate "C"`,
    );
    for (const row of rows) {
      assert.deepEqual([row.longitude, row.latitude, row.gx], [row.x, row.y, row.x], 'every column says the same');
      assert.ok(row.x === null || row.srid === 4326);
    }
    return rows.map(({ geo_source, x, y }) => [geo_source, x, y]);
  };
  const point = 'st_setsrid(st_makepoint($2, $3), 4326)';
  const setCluster = ({ cluster, x, y }: { cluster: string; x: number; y: number }) =>
    env.pool.query(
      `insert into tickets.geo_clusters (cluster, geom) values ($1, ${point}) on conflict (cluster) do update set geom = excluded.geom`,
      [cluster, x, y],
    );
  const setLocation = (cluster: string, name: string, x: number, y: number, status = 'found') =>
    env.pool.query(
      `insert into tickets.geo_locations (cluster, location_key, location_name, status, geom) values ($1, tickets.location_key($4), $4, $5, ${point})
       on conflict (cluster, location_key) do update set geom = excluded.geom, status = excluded.status`,
      [cluster, x, y, name, status],
    );

  test('feed coordinates win, then the location, then the cluster, then none', async () => {
    await setCluster(KILIMANI);
    await setLocation('Kilimani', 'Yaya Centre', 36.7876, -1.2927);
    const at = { latitude: '-1.3', longitude: '36.8' };
    await load(
      7,
      { cluster: 'Kilimani', location_name: 'NW_Yaya Centre_FDT3', ...at },
      { cluster: 'Kilimani', location_name: 'NW_Yaya Centre_FDT3' },
      { cluster: 'Kilimani', location_name: 'NW_Elsewhere' },
      { cluster: 'Kilimani', location_name: '' },
      { cluster: 'Unknown', location_name: 'NW_Yaya Centre_FDT3' },
      { cluster: '', location_name: 'NW_Yaya Centre_FDT3' },
      { cluster: '', location_name: '', ...at },
      { cluster: ' Kilimani  ', location_name: 'yaya centre' },
    );
    assert.deepEqual(await places(), [
      ['feed', 36.8, -1.3],
      ['location', 36.7876, -1.2927],
      ['cluster', 36.78, -1.29],
      ['cluster', 36.78, -1.29],
      NOWHERE,
      NOWHERE,
      ['feed', 36.8, -1.3],
      ['location', 36.7876, -1.2927],
    ]);
  });

  test('feed coordinates count only where they lie in Kenya', async () => {
    const good: [string, string][] = [
      ['-1.2921', '36.8219'],
      [' -1.2921 ', '36.8219'],
      ['-4.0435', '39.6682'],
      ['3.9366', '41.8569'],
      ['0', '37.1'],
      ['-0.0917', '34.768'],
    ];
    const bad: [string, string][] = [
      ['0', '0'],
      ['0.0', '0.0'],
      ['36.8219', '-1.2921'],
      ['999', '999'],
      ['-1.2921', '999'],
      ['91', '181'],
      ['-1.2921', ''],
      ['', '36.8219'],
      ['NaN', 'NaN'],
      ['-1,2921', '36,8219'],
      ['1e2', '36.8'],
      ['-6.7924', '39.2083'],
      ['0.3476', '32.5825'],
      ['51.5', '-0.12'],
      ["1°17'S", "36°49'E"],
      ['-1.2921', '∞'],
    ];
    await setCluster(KILIMANI);
    await load(7, ...[...good, ...bad].map(([latitude, longitude]) => ({ latitude, longitude, cluster: 'Kilimani' })));
    const { rows } = await env.pool.query(
      `select raw ->> 'latitude' as latitude, raw ->> 'longitude' as longitude, geo_source, st_x(geom) as x, st_y(geom) as y from tickets.inc order by substr(ticket_id, 4)::int`,
    );
    assert.deepEqual(rows, [
      ...good.map(([latitude, longitude]) => ({
        latitude,
        longitude,
        geo_source: 'feed',
        x: Number(longitude),
        y: Number(latitude),
      })),
      ...bad.map(([latitude, longitude]) => ({ latitude, longitude, geo_source: 'cluster', x: 36.78, y: -1.29 })),
    ]);
  });

  test('a place belongs to its cluster: namesakes elsewhere do not count', async () => {
    await setLocation('Milimani', 'Milimani Road', 36.06, -0.28);
    await load(
      7,
      { cluster: 'Milimani', location_name: 'Milimani Rd' },
      { cluster: 'Kilimani', location_name: 'Milimani Rd' },
    );
    assert.deepEqual(await places(), [['location', 36.06, -0.28], NOWHERE]);
  });

  test('only places that were found count', async () => {
    await setCluster(KILIMANI);
    for (const status of ['needs_review', 'rejected', 'not_found']) {
      await setLocation('Kilimani', 'Yaya', 36.7876, -1.2927, status);
      await load(7, { cluster: 'Kilimani', location_name: 'Yaya' });
      assert.deepEqual(await places(), [['cluster', 36.78, -1.29]], status);
    }
  });

  test('tickets follow a gazetteer: inserted, moved, withdrawn, deleted, in the same statement; others are not touched', async () => {
    await load(
      7,
      { cluster: 'Kilimani', location_name: 'NW_Yaya' },
      { cluster: 'Kilimani', location_name: 'NW_Other' },
      { cluster: 'Milimani', location_name: 'NW_Yaya' },
      { cluster: 'Kilimani', location_name: 'x', latitude: '-1.3', longitude: '36.8' },
    );
    const feed: Place = ['feed', 36.8, -1.3];
    let before = await rowVersions(env);
    const expect = async (what: string, first: Place, second: Place, third: Place, touched: number[]) => {
      assert.deepEqual(await places(), [first, second, third, feed], what);
      const now = await rowVersions(env);
      assert.deepEqual(
        Object.keys(now)
          .filter((id) => now[id] !== before[id])
          .map((id) => Number(id.slice(3)))
          .sort(),
        touched,
        what,
      );
      before = now;
    };
    await setCluster(KILIMANI);
    await expect('a cluster is known', ['cluster', 36.78, -1.29], ['cluster', 36.78, -1.29], NOWHERE, [1, 2]);
    await setLocation('Kilimani', 'Yaya', 36.79, -1.3);
    await expect('a place is known', ['location', 36.79, -1.3], ['cluster', 36.78, -1.29], NOWHERE, [1]);
    await setCluster({ ...KILIMANI, x: 36.77 });
    await expect('the cluster moves', ['location', 36.79, -1.3], ['cluster', 36.77, -1.29], NOWHERE, [2]);
    await setCluster({ ...KILIMANI, x: 36.77 });
    await expect('nothing changes', ['location', 36.79, -1.3], ['cluster', 36.77, -1.29], NOWHERE, []);
    await env.pool.query(`update tickets.geo_locations set geom = st_setsrid(st_makepoint(36.795, -1.305), 4326)`);
    await expect('a person corrects the place', ['location', 36.795, -1.305], ['cluster', 36.77, -1.29], NOWHERE, [1]);
    await env.pool.query(`update tickets.geo_locations set cluster = 'Milimani'`);
    await expect(
      'the place is given to another cluster',
      ['cluster', 36.77, -1.29],
      ['cluster', 36.77, -1.29],
      ['location', 36.795, -1.305],
      [1, 3],
    );
    await env.pool.query(`update tickets.geo_locations set status = 'needs_review'`);
    await expect('the place is doubted', ['cluster', 36.77, -1.29], ['cluster', 36.77, -1.29], NOWHERE, [3]);
    await env.pool.query(`update tickets.geo_locations set status = 'found'`);
    await env.pool.query('delete from tickets.geo_locations');
    await env.pool.query('delete from tickets.geo_clusters');
    await expect('all is forgotten', NOWHERE, NOWHERE, NOWHERE, [1, 2, 3]);
  });

  test('many rows of a gazetteer written at once move their tickets at once', async () => {
    await load(7, { cluster: 'Kilimani' }, { cluster: 'Milimani' }, { cluster: 'Kilimani' });
    await env.pool.query(
      `insert into tickets.geo_clusters (cluster, geom) values ('Kilimani', st_setsrid(st_makepoint(36.78, -1.29), 4326)), ('Milimani', st_setsrid(st_makepoint(36.06, -0.28), 4326))`,
    );
    assert.deepEqual(await places(), [
      ['cluster', 36.78, -1.29],
      ['cluster', 36.06, -0.28],
      ['cluster', 36.78, -1.29],
    ]);
  });

  test('a ticket that moves to another cluster, or whose coordinates come or go, is placed anew', async () => {
    await setCluster(KILIMANI);
    await setCluster(MILIMANI_NAKURU);
    await load(7, { cluster: 'Kilimani', latitude: '', longitude: '' });
    await load(8, { cluster: 'Milimani', latitude: '', longitude: '' });
    assert.deepEqual(await places(), [['cluster', 36.06, -0.28]]);
    await load(9, { cluster: 'Milimani', latitude: '-1.3', longitude: '36.8' });
    assert.deepEqual(await places(), [['feed', 36.8, -1.3]]);
    await load(10, { cluster: 'Milimani', latitude: '0', longitude: '0' });
    assert.deepEqual(await places(), [['cluster', 36.06, -0.28]]);
  });

  test('the place of a ticket that a person writes follows as well', async () => {
    await setCluster(KILIMANI);
    await env.pool.query(`insert into tickets.inc (ticket_id, raw) values ('WOT1', '{"cluster": "Kilimani"}')`);
    assert.deepEqual(await places(), [['cluster', 36.78, -1.29]]);
    await env.pool.query(`update tickets.inc set raw = '{"cluster": "Nowhere"}'`);
    assert.deepEqual(await places(), [NOWHERE]);
  });
});
