/**
 * The database sessions of this process: their common name, by which another worker can end them, and whether each
 * connection has one of its own. Where they are shared (the embedded database, a pooler in transaction mode) advisory
 * locks say nothing about who lives.
 */
import { randomBytes } from 'node:crypto';
import type pg from 'pg';
import { type Db, withClient } from '../database/client.ts';

/** application_name of all connections of this process. */
export const SESSIONS = `fleettickets worker ${randomBytes(6).toString('hex')}`;

/** The connection string that a worker's pool must use: it marks the sessions as this process's. */
export function markSessions(databaseUrl: string): string {
  const url = new URL(databaseUrl);
  url.searchParams.set('application_name', SESSIONS);
  return url.href;
}

/** The backend that serves this connection's next statement. */
export async function backendOf(db: Db): Promise<number> {
  const { rows } = await db.query<{ pid: number }>('select pg_backend_pid() as pid');
  return rows[0]?.pid ?? 0;
}

/**
 * Does this connection share its session with others? A pooler in transaction mode gives a second connection the
 * session that this one used last, and this one another while the second holds it. A busy pooler may hide that from a
 * few looks; every heartbeat looks again.
 */
export async function sharesSessions(client: pg.Client, session: number, databaseUrl: string): Promise<boolean> {
  return withClient(markSessions(databaseUrl), async (other) => {
    // First without a transaction: the embedded database lets nobody in while another has one open.
    if ((await backendOf(other)) === session) return true;
    for (let look = 0; look < 3; look += 1) {
      await other.query('begin');
      const [theirs, ours] = [await backendOf(other), await backendOf(client)];
      await other.query('commit');
      if (theirs === session || ours !== session || (await backendOf(client)) !== session) return true;
    }
    return false;
  });
}
