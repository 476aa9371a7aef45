/** Columns that the tables of a Python version had under other names, or in another form. */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { native } from '../support/environment.ts';
import { legacy, notes, pythonVersion, refuses, row, rows, takeOver } from '../support/python-version.ts';

describe('a takeover reads', { skip: !native && 'needs a native Postgres' }, () => {
  pythonVersion();

  describe('the columns of import_meta', () => {
    const known = (database: string) =>
      row(
        database,
        `select metadata ->> 'source_etag' as etag, tickets.eat_ts(metadata ->> 'snapshot_at') as at from tickets.import_meta where dataset = 'inc'`,
      );
    for (const [name, change] of [
      ['of other names', `rename dataset to name; alter table tickets.import_meta rename metadata to envelope`],
      [
        'instead of an envelope',
        `add source_key text, add etag text, add last_modified timestamptz;
         update tickets.import_meta set source_key = metadata ->> 'source_key', etag = metadata ->> 'source_etag';
         alter table tickets.import_meta drop metadata cascade`,
      ],
    ] as const)
      test(`${name} are read`, async () => {
        const ordinary = await legacy();
        await takeOver(ordinary);
        const database = await legacy(`alter table tickets.import_meta ${change}`);
        await takeOver(database);
        assert.deepEqual(await known(database), await known(ordinary));
      });

    test('of a row for every load say what the newest says', async () => {
      const database = await legacy(`
        alter table tickets.import_meta drop constraint import_meta_pkey;
        insert into tickets.import_meta values
          ('inc', '{"source_etag": "newest"}', now() + interval '1 hour'), ('inc', '{"source_etag": "older"}', now() - interval '1 day')`);
      await takeOver(database);
      assert.equal((await known(database))?.etag, 'newest');
    });

    test('of which none names the dataset are noted', async () => {
      const database = await legacy('alter table tickets.import_meta rename dataset to which');
      await takeOver(database);
      assert.equal((await notes(database, 'import_meta in which no column names the dataset')).length, 1);
      assert.deepEqual(await rows(database, 'select from tickets.import_meta'), []);
    });
  });

  describe('the columns of the gazetteers', () => {
    const variants: Record<string, [verified: number, change: string]> = {
      'latitude and longitude': [
        1,
        `
        alter table tickets.geo_clusters add latitude double precision, add longitude double precision;
        update tickets.geo_clusters set latitude = st_y(geom), longitude = st_x(geom);
        alter table tickets.geo_clusters drop geom;
        alter table tickets.geo_locations add latitude double precision, add longitude double precision;
        update tickets.geo_locations set latitude = st_y(geom), longitude = st_x(geom);
        alter table tickets.geo_locations drop geom, drop source, drop query;`,
      ],
      'lat and lng as numeric, verified as text, the cluster beside the name': [
        2, // in that cluster alone, used by a ticket or not
        `
        alter table tickets.geo_clusters add lat numeric, add lng numeric;
        update tickets.geo_clusters set lat = st_y(geom)::numeric, lng = st_x(geom)::numeric;
        alter table tickets.geo_clusters drop geom, alter verified drop default, alter verified type text using case when verified then 'yes' else 'no' end;
        alter table tickets.geo_locations add lat text, add lng text, add cluster text, alter verified drop default, alter verified type text;
        update tickets.geo_locations set lat = st_y(geom), lng = st_x(geom), cluster = 'Kilimani';
        alter table tickets.geo_locations drop geom;`,
      ],
      'a key and a point of any name': [
        1,
        `alter table tickets.geo_clusters rename cluster to town; alter table tickets.geo_clusters rename geom to centroid;
         alter table tickets.geo_locations rename location_name to place_key; alter table tickets.geo_locations rename geom to point;`,
      ],
      'geography, and no verified': [
        0,
        `alter table tickets.geo_locations alter geom type geography(Point, 4326) using geom::geography, drop verified;`,
      ],
    };
    for (const [name, [verified, change]] of Object.entries(variants)) {
      test(name, async () => {
        const database = await legacy(`alter table tickets.inc disable trigger user; ${change}`);
        await takeOver(database);
        assert.deepEqual(
          await row(
            database,
            `select count(*)::int as clusters, (select count(*) filter (where verified)::int from tickets.geo_locations where location_key <> 'yaya centre') as verified,
               (select count(*)::int from tickets.geo_locations where geom is null) as lost,
               (select st_astext(geom) from tickets.geo_locations where cluster = 'Kilimani' and location_key = 'milimani') as place
             from tickets.geo_clusters where geom is not null`,
          ),
          { clusters: 4, verified, lost: 0, place: 'POINT(36.0712345 -0.2801)' },
        );
      });
    }

    test('a gazetteer that cannot be read stops the takeover', async () => {
      await refuses(
        await legacy(
          'alter table tickets.geo_locations drop constraint geo_locations_pkey; alter table tickets.geo_locations rename location_name to what',
        ),
        /No column of tickets\.geo_locations is known to hold the name of the location/,
      );
    });

    test('a coordinate that only tickets carry goes into the gazetteer', async () => {
      const database = await legacy(`
        alter table tickets.inc disable trigger user;
        delete from tickets.geo_locations where location_name = 'Cinemax Court';
        delete from tickets.geo_clusters where cluster = 'Kisumu Central'`);
      await takeOver(database);
      assert.deepEqual(
        await rows(
          database,
          `select 'cluster' as kind, st_astext(geom) as place, verified from tickets.geo_clusters where cluster = 'Kisumu Central'
           union all
           select status, st_astext(geom), verified from tickets.geo_locations where cluster = 'Nyali' and location_key = 'cinemax court'
           order by 1`,
        ),
        [
          { kind: 'cluster', place: 'POINT(34.7617 -0.0917)', verified: false },
          { kind: 'found', place: 'POINT(39.7155 -4.0301)', verified: false },
        ],
      );
    });
  });
});
