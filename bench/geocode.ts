/** One geocode: what it costs the database to judge the answers for a place and to move its tickets, in a table of many. */
import assert from 'node:assert/strict';
import type { Environment } from '../test/support/environment.ts';
import type { Line } from './table.ts';

const RUNS = 7;
const PROVIDER = 'nominatim';

/** Expects the tickets and places that measureServing left, and leaves them as they are. */
export async function measureOneGeocode({ pool }: Environment): Promise<Line[]> {
  const { rows } = await pool.query<{
    cluster: string;
    key: string;
    name: string;
    lng: number;
    lat: number;
    tickets: number;
  }>(
    // Of the places that tickets have, the one in the middle by their number, and the one with most.
    `select g.* from (
       select l.cluster, l.location_key as key, min(t.location_name) as name, st_x(c.geom) as lng, st_y(c.geom) as lat, count(*)::int as tickets,
         row_number() over (order by count(*)) as n, count(*) over () as places
       from tickets.geo_locations l
       join tickets.geo_clusters c using (cluster)
       join tickets.inc t on tickets.cluster_key(t.cluster) = tickets.cluster_key(l.cluster) and t.location_key = l.location_key
       group by l.cluster, l.location_key, c.geom
     ) as g
     where n in ((places + 1) / 2, places) order by n`,
  );
  const lines: Line[] = [];
  for (const { cluster, key, name, lng, lat, tickets } of rows) {
    const candidate = {
      lat: Number((lat + 0.001).toFixed(6)),
      lng: Number((lng + 0.001).toFixed(6)),
      level: 'neighbourhood',
      country: 'ke',
      label: `${name}, ${cluster}`,
    };
    let best = Number.POSITIVE_INFINITY;
    const client = await pool.connect();
    try {
      for (let run = 0; run < RUNS; run += 1) {
        await client.query('begin');
        await client.query(
          'insert into tickets_ops.geocoding_answers (cluster, location_key, query, provider, candidates) values ($1, $2, $3, $4, $5)',
          [cluster, key, name, PROVIDER, JSON.stringify([candidate])],
        );
        // It was written by hand, and what a person wrote stays.
        await client.query(
          'update tickets.geo_locations set verified = false where cluster = $1 and location_key = $2',
          [cluster, key],
        );
        const from = performance.now();
        const { rows: resolved } = await client.query<{ status: string }>(
          'select tickets_ops.resolve_location($1, $2, $3, $4, true) as status',
          [cluster, key, name, PROVIDER],
        );
        best = Math.min(best, performance.now() - from);
        assert.equal(resolved[0]?.status, 'found');
        const { rowCount: moved } = await client.query(
          `select from tickets.inc where location_key = $1 and geo_source = 'location' and st_x(geom) = $2 and st_y(geom) = $3`,
          [key, candidate.lng, candidate.lat],
        );
        assert.equal(moved, tickets, 'tickets that moved');
        await client.query('rollback');
      }
    } finally {
      client.release();
    }
    lines.push({
      what: `one geocode: a place is found, and its ${tickets} tickets move`,
      ours: `${best.toFixed(1)} ms`,
      reference: '',
      value: best,
      limit: 20,
      unit: 'ms',
    });
  }
  return lines;
}
