/** Waits for locks, of commands that a person waits for: bounded, and the session that holds what they wait for is named. */
import type pg from 'pg';
import { type Db, withClient } from './client.ts';

/** SQLSTATE of a lock_timeout. */
export const LOCK_NOT_AVAILABLE = '55P03';

const codeOf = (error: unknown) => (error as { code?: string }).code;

/**
 * Runs `use`, whose statements wait ten seconds at most for the locks of others.
 * @throws what Postgres says of the wait that was given up, with the sessions that hold locks on what is ours
 */
export async function boundedWaits<T>(db: Db, use: () => Promise<T>): Promise<T> {
  const { rows } = await db.query<{ before: string }>(`select current_setting('lock_timeout') as before`);
  await db.query(`set lock_timeout = '10s'`);
  try {
    const result = await use();
    await db.query(`select set_config('lock_timeout', $1, false)`, [rows[0]?.before]);
    return result;
  } catch (error) {
    if (codeOf(error) !== LOCK_NOT_AVAILABLE) throw error;
    // It raises; where the role may not call it, the first error says what there is to say.
    const named: unknown = await db.query('select tickets_ops.raise_blocked()').catch((told: unknown) => told);
    throw codeOf(named) === LOCK_NOT_AVAILABLE ? named : error;
  }
}

/**
 * The sessions that use what is ours at this moment, the longest first. Readers too, which are in the way of a migration alone: so
 * tickets_ops.raise_blocked leaves them out.
 */
export async function sessionsInside(db: Db): Promise<string[]> {
  const { rows } = await db.query<{ told: string }>(
    // Of other users a role sees no more than that they are there, unless it has pg_read_all_stats.
    `select concat_ws(', ', format('process %s of user %s', pid, usename), state || ' since ' || tickets_ops.wall_clock(xact_start) || ': ' || left(query, 200)) as told
     from pg_stat_activity
     where pid <> pg_backend_pid() and pid in (
       select l.pid from pg_locks l join pg_class c on c.oid = l.relation and l.locktype = 'relation' and l.granted
       where c.relnamespace in (to_regnamespace('tickets'), to_regnamespace('tickets_ops')) and l.database = (
         select oid from pg_database where datname = current_database()
       )
     )
     order by xact_start`,
  );
  return rows.map(({ told }) => told);
}

/** As withClient, with boundedWaits. */
export const withBoundedWaits = <T>(url: string, use: (client: pg.Client) => Promise<T>): Promise<T> =>
  withClient(url, (client) => boundedWaits(client, () => use(client)));
