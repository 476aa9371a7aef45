/** The database sessions of this process: their common name, by which another worker can end them. */
import { randomBytes } from 'node:crypto';

/** application_name of all connections of this process. */
export const SESSIONS = `fleettickets worker ${randomBytes(6).toString('hex')}`;

/** The connection string that a worker's pool must use: it marks the sessions as this process's. */
export function markSessions(databaseUrl: string): string {
  const url = new URL(databaseUrl);
  url.searchParams.set('application_name', SESSIONS);
  return url.href;
}
