/** Places for tests of reviewing: clusters, what a provider said of their places, judged as the pipeline does, and tickets there. */
import type pg from 'pg';
import { transaction } from '../../src/database/client.ts';

export type Candidate = { label: string; lat: number; lng: number; level?: string };

type World = {
  /** Centroids, latitude first; null: none is known. */
  clusters?: Record<string, readonly [lat: number, lng: number] | null>;
  /** `name` as field staff type it. */
  places?: readonly { cluster: string; name: string; candidates?: readonly Candidate[]; tickets?: number }[];
};

/** Writes them as the pipeline does: nothing is verified, and nothing was decided. */
export async function makePlaces(pool: pg.Pool, { clusters = {}, places = [] }: World): Promise<void> {
  const client = await pool.connect();
  try {
    await transaction(client, async () => {
      await client.query('select tickets_ops.as_pipeline(true)');
      for (const [cluster, centre] of Object.entries(clusters)) {
        await client.query(
          `insert into tickets.geo_clusters (cluster, geom, provider, fetched_at)
           values ($1, st_setsrid(st_makepoint($3, $2), 4326), 'locationiq', now())`,
          [cluster, centre?.[0] ?? null, centre?.[1] ?? null],
        );
      }
      await client.query(
        `insert into tickets.geo_locations
           (cluster, location_key, location_name, provider, query, candidates, status, geom, precision, confidence, distance_km, note, fetched_at, expires_at)
         select place.cluster, tickets.location_key(place.name), place.name, 'locationiq', tickets.location_query(place.name) || ', Kenya',
           place.candidates, verdict.*, now(), tickets_ops.answer_expires_at(verdict.status, 0, null, now())
         from jsonb_to_recordset($1) as place (cluster text, name text, candidates jsonb)
         join tickets.geo_clusters c on c.cluster = place.cluster
         cross join lateral tickets_ops.judge_location(
           place.candidates, tickets.location_key(place.name), place.cluster, c.geom, c.guard_km
         ) as verdict`,
        [
          JSON.stringify(
            places.map(({ candidates = [], ...place }) => ({
              ...place,
              candidates: candidates.map((candidate) => ({ level: 'point', country: 'ke', ...candidate })),
            })),
          ),
        ],
      );
      await client.query('select tickets_ops.as_pipeline(false)');
      await client.query(
        `insert into tickets.inc (ticket_id, raw)
         select format('WOT%s', lpad(((select count(*) from tickets.inc) + row_number() over ())::text, 7, '0')),
           jsonb_build_object('cluster', place.cluster, 'location_name', place.name, 'is_actionable', 'true', 'assigned_team', place.cluster || ' A',
             'normalized_status', 'Open', 'created_at_service', to_char(now() at time zone 'Africa/Nairobi' - n * interval '7 hours', 'YYYY-MM-DD HH24:MI:SS'))
         from jsonb_to_recordset($1) as place (cluster text, name text, tickets integer), generate_series(1, place.tickets) as n`,
        [JSON.stringify(places.map(({ cluster, name, tickets = 1 }) => ({ cluster, name, tickets })))],
      );
      await client.query('select tickets_ops.flag_suspicious(cluster) from tickets.geo_clusters');
    });
  } finally {
    client.release();
  }
}

/** Where a place's tickets are on the map, as text; one line per coordinate. */
export async function ticketsAt(pool: pg.Pool, key: string): Promise<string> {
  const { rows } = await pool.query<{ line: string }>(
    `select format('%s %s %s × %s', geo_source, round(latitude::numeric, 4), round(longitude::numeric, 4), count(*)) as line
     from tickets.inc where location_key = $1 group by geo_source, latitude, longitude order by 1`,
    [key],
  );
  return rows.map(({ line }) => line).join('\n');
}
