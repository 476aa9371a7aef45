import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { type Environment, startEnvironment } from '../support/environment.ts';

let env: Environment;
before(async () => {
  env = await startEnvironment();
});
after(() => env.close());

const one = async <T>(sql: string) => (await env.pool.query(sql)).rows[0] as T;
const point = (lng: number, lat: number) => `st_setsrid(st_makepoint(${lng}, ${lat}), 4326)`;

test('a new network code: columns, gazetteer and places of both datasets follow, verified rows first', async () => {
  await env.pool.query(`
    insert into tickets.geo_clusters (cluster, geom) values ('Kilimani', ${point(36.78, -1.29)});
    insert into tickets.geo_locations (cluster, location_key, location_name, geom)
    values
      ('Kilimani', 'rose court qzx', 'Rose Court QZX', ${point(36.79, -1.28)}),
      ('Kilimani', 'qzx yaya', 'QZX_Yaya', ${point(36.785, -1.295)}),
      ('Kilimani', 'qzx', 'QZX', ${point(36.786, -1.296)}),
      ('Kilimani', 'adams arcade', 'Adams Arcade', ${point(36.775, -1.3)});
    begin;
    select tickets_ops.as_pipeline(true);
    insert into tickets.geo_locations (cluster, location_key, location_name, status, geom, fetched_at)
    values
      ('Kilimani', 'rose court', 'Rose Court', 'found', ${point(36.7, -1.2)}, now()),
      ('Kilimani', 'green qzx mews', 'Green QZX Mews', 'not_found', null, now());
    commit;
    insert into tickets.inc (ticket_id, raw)
    select id, jsonb_build_object('cluster', 'Kilimani', 'location_name', name, 'is_actionable', 'true')
    from (values ('1', 'NW_Rose Court QZX_FDT1'), ('2', 'Rose Court'), ('3', 'QZX_Yaya'), ('4', 'Adams Arcade'), ('5', 'QZX')) as t (id, name);
    insert into tickets.crq (ticket_id, raw) values ('9', '{"cluster": "Kilimani", "location_name": "QZX Yaya"}')`);
  await env.pool.query(`insert into tickets.geo_locations (cluster, location_key, location_name, geom)
    values ('Kilimani', 'mews qzx', 'Mews QZX', ${point(36.771, -1.271)})`);
  await env.pool.query(`insert into tickets.geo_locations (cluster, location_key, location_name, geom)
    values ('Kilimani', 'mews', 'Mews', ${point(36.772, -1.272)})`);
  const before = await one<{ ingested_at: Date }>(`select ingested_at from tickets.inc where ticket_id = '1'`);

  const { definition } = await one<{ definition: string }>(
    `select pg_get_functiondef('tickets.location_vocabulary'::regproc) as definition`,
  );
  await env.pool.query(definition.replace('"nw": "code"', '"nw": "code", "qzx": "code"'));
  assert.deepEqual(await one('select * from tickets_ops.rebuild_location_keys()'), {
    tickets_changed: '4',
    places_changed: '4',
    places_merged: '2',
  });

  const { rows: places } = await env.pool.query(
    `select location_key, verified, status, st_astext(geom) as at, note from tickets.geo_locations order by 1`,
  );
  const found = { verified: true, status: 'found', note: null };
  assert.deepEqual(places, [
    { location_key: 'adams arcade', ...found, at: 'POINT(36.775 -1.3)' },
    { location_key: 'green mews', verified: false, status: 'not_found', at: null, note: null },
    {
      location_key: 'mews',
      ...found,
      at: 'POINT(36.772 -1.272)',
      note: 'Verified under the key mews qzx: (36.771,-1.271).',
    },
    { location_key: 'qzx', ...found, at: 'POINT(36.786 -1.296)' },
    { location_key: 'rose court', ...found, at: 'POINT(36.79 -1.28)' },
    { location_key: 'yaya', ...found, at: 'POINT(36.785 -1.295)' },
  ]);
  const { rows: tickets } = await env.pool.query(
    `select ticket_id, location_key, geo_source, st_astext(geom) as at from tickets.inc union all
     select ticket_id, location_key, geo_source, st_astext(geom) from tickets.crq order by 1`,
  );
  assert.deepEqual(tickets, [
    { ticket_id: '1', location_key: 'rose court', geo_source: 'location', at: 'POINT(36.79 -1.28)' },
    { ticket_id: '2', location_key: 'rose court', geo_source: 'location', at: 'POINT(36.79 -1.28)' },
    { ticket_id: '3', location_key: 'yaya', geo_source: 'location', at: 'POINT(36.785 -1.295)' },
    { ticket_id: '4', location_key: 'adams arcade', geo_source: 'location', at: 'POINT(36.775 -1.3)' },
    { ticket_id: '5', location_key: null, geo_source: 'cluster', at: 'POINT(36.78 -1.29)' },
    { ticket_id: '9', location_key: 'yaya', geo_source: 'location', at: 'POINT(36.785 -1.295)' },
  ]);
  assert.deepEqual(
    await one(`select ingested_at from tickets.inc where ticket_id = '1'`),
    before,
    'no snapshot wrote it',
  );
  const map = await one<{ keys: string[] }>(
    `select array_agg(f -> 'properties' ->> 'location_key' order by f ->> 'id') as keys
     from jsonb_array_elements(reporting.fn_tickets_for_map() -> 'features') f`,
  );
  assert.deepEqual(map.keys, ['rose court', 'rose court', 'yaya', 'adams arcade', null]);

  assert.deepEqual(await one('select * from tickets_ops.rebuild_location_keys()'), {
    tickets_changed: '0',
    places_changed: '0',
    places_merged: '0',
  });
});
