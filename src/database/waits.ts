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
    throw await namingBlockers(db, error as Error);
  }
}

/** Of a wait for a lock that was given up: an error that names the sessions that hold locks on what is ours. */
export async function namingBlockers(db: Db, error: Error): Promise<Error> {
  // It raises; where the role may not call it, the first error says what there is to say.
  const named = await db.query('select tickets_ops.raise_blocked()').catch((told: Error) => told);
  return named instanceof Error && codeOf(named) === LOCK_NOT_AVAILABLE ? named : error;
}

/** As withClient, with boundedWaits. */
export const withBoundedWaits = <T>(url: string, use: (client: pg.Client) => Promise<T>): Promise<T> =>
  withClient(url, (client) => boundedWaits(client, () => use(client)));
