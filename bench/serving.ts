/** Serving: the map as text against the map as jsonb, places, tiles and the version, each as its caller gets it. */
import type { Environment } from '../test/support/environment.ts';
import type { Line } from './table.ts';

const RUNS = 7;

/** What is asked for, and the milliseconds that it may take. The tiles: the world, Kenya, Nairobi, a part of it. */
const LIMITS: readonly (readonly [what: string, query: string, limit: number])[] = [
  ['places open: fn_ticket_places()', 'select octet_length(reporting.fn_ticket_places()::text)', 50],
  [`places all: fn_ticket_places('all')`, `select octet_length(reporting.fn_ticket_places('all')::text)`, 400],
  ['version: fn_tickets_version()', 'select reporting.fn_tickets_version()', 1],
  ...['0, 0, 0', '6, 38, 32', '10, 616, 515', '13, 4932, 4125'].map(
    (tile) =>
      [`tile: ticket_places_mvt(${tile})`, `select octet_length(reporting.ticket_places_mvt(${tile}))`, 60] as const,
  ),
];

/** Expects the tickets that measureMap left; some of them move to places of the gazetteer. */
export async function measureServing(env: Environment): Promise<Line[]> {
  await placeLocations(env);
  // As text either way: who passes the document on gets its bytes, not a jsonb.
  const [jsonb, json] = await fastest(env, [
    'select octet_length(reporting.fn_tickets_for_map()::text)',
    'select octet_length(reporting.fn_tickets_for_map_json()::text)',
  ]);
  const lines: Line[] = [
    {
      what: 'map as text: fn_tickets_for_map_json() against fn_tickets_for_map()',
      ours: milliseconds(json),
      reference: milliseconds(jsonb),
      value: json / jsonb,
      limit: 0.6,
    },
  ];
  for (const [what, query, limit] of LIMITS) {
    const [value] = await fastest(env, [query]);
    lines.push({ what, ours: milliseconds(value), reference: '', value, limit, unit: 'ms' });
  }
  return lines;
}

const milliseconds = (value: number) => `${value.toFixed(value < 10 ? 1 : 0)} ms`;

/** The least milliseconds that each query takes; they take turns. */
async function fastest<Queries extends readonly string[]>(
  { pool }: Environment,
  queries: readonly [...Queries],
): Promise<{ [query in keyof Queries]: number }> {
  const best = queries.map(() => Number.POSITIVE_INFINITY);
  for (let n = 0; n < RUNS; n += 1) {
    for (const [i, query] of queries.entries()) {
      const from = performance.now();
      await pool.query(query);
      best[i] = Math.min(best[i] ?? 0, performance.now() - from);
    }
  }
  return best as { [query in keyof Queries]: number };
}

/** As in the real gazetteer: a few thousand places in the clusters' surroundings, so that tickets lie on as many coordinates. */
async function placeLocations({ pool }: Environment): Promise<void> {
  await pool.query(
    `insert into tickets.geo_locations (cluster, location_key, status, geom)
     select c.cluster, t.location_key, 'found', place.geom
     from tickets.inc t
     join tickets.geo_clusters c on tickets.cluster_key(c.cluster) = tickets.cluster_key(t.cluster)
     cross join lateral (
       select st_setsrid(st_makepoint(
         st_x(c.geom) + hashtext(t.location_key) % 1000 / 20000.0, st_y(c.geom) + hashtext(t.location_key || '.') % 1000 / 20000.0), 4326) as geom
     ) as place
     where t.location_key is not null and tickets.in_kenya(place.geom)
     group by c.cluster, t.location_key, place.geom
     order by count(*) desc, c.cluster, t.location_key limit 2600
     on conflict do nothing`,
  );
  await pool.query('vacuum full tickets.inc'); // the versions before the move are no part of what is measured
  await pool.query('vacuum analyze tickets.inc'); // as autovacuum does; VACUUM FULL leaves no visibility map
}
