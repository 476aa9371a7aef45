/** What the tests of the gazetteers share: answers that are stored, tickets that have places, and what comes of them. */
import type pg from 'pg';
import type { Candidate } from './candidates.ts';

const json = JSON.stringify;

/** Gives the answer to the pipeline, which judges and writes it. @returns the status that the place got */
export async function store(pool: pg.Pool, cluster: string, name: string, candidates: Candidate[]): Promise<string> {
  await pool.query(
    `insert into tickets_ops.geocoding_answers (cluster, location_key, query, provider, candidates)
     values ($1, tickets.location_key($2), 'q', 'locationiq', $3)`,
    [cluster, name, json(candidates)],
  );
  const { rows } = await pool.query(
    `select tickets_ops.resolve_location($1, tickets.location_key($2), $2, 'locationiq', true) as status`,
    [cluster, name],
  );
  return rows[0].status;
}

/** An open ticket there. */
export const ticket = (pool: pg.Pool, id: string, cluster: string, location_name: string) =>
  pool.query('insert into tickets.inc (ticket_id, raw) values ($1, $2)', [
    id,
    json({ cluster, location_name, is_actionable: 'true' }),
  ]);

/** What places the tickets, in the order of their numbers. */
export async function geoSources(pool: pg.Pool): Promise<string[]> {
  const { rows } = await pool.query('select geo_source from tickets.inc order by ticket_id');
  return rows.map(({ geo_source }) => geo_source);
}

/** SQL of a point, longitude first. */
export const point = (lng: number | string, lat: number | string) =>
  `st_setsrid(st_makepoint('${lng}'::float8, '${lat}'::float8), 4326)`;

/** Runs a statement. @returns what it said in notices */
export async function noticesOf(pool: pg.Pool, statement: string): Promise<string[]> {
  const client = await pool.connect();
  const notices: string[] = [];
  const listen = ({ message }: { message?: string | undefined }) => notices.push(message ?? '');
  client.on('notice', listen);
  try {
    await client.query(statement);
    return notices;
  } finally {
    client.off('notice', listen);
    client.release();
  }
}
