/** Pools of connections for what runs for long: workers and servers. */
import pg from 'pg';
import { pinSession } from './session.ts';

/** A pool whose every session is pinned (session.ts) before its first use. It opens connections only when they are needed. */
export function openPinnedPool(connectionString: string, { onConnect, ...options }: pg.PoolConfig = {}): pg.Pool {
  const pool = new pg.Pool({
    connectionString,
    ...options,
    onConnect: async (client) => {
      await pinSession(client);
      await onConnect?.(client);
    },
  });
  // Of an idle connection that broke: the pool drops it, and whatever asks next gets another or the reason.
  pool.on('error', () => undefined);
  // Of one in use: its query fails with it.
  pool.on('connect', (client) => client.on('error', () => undefined));
  return pool;
}
