/**
 * Whether a connection has a session of the database to itself.
 *
 * A pooler in transaction or statement mode gives a client another session for each transaction, and a session to many
 * clients. Advisory locks, LISTEN, and settings (what session.ts pins) do not hold there, and reach the pool's other
 * clients: so such a connection is refused before anything is set on it. One in session mode is like none at all.
 */
import type pg from 'pg';
import type { Db } from './client.ts';

/** What is wrong, and what to do about it. */
export const POOLED = {
  what:
    'DATABASE_URL goes through a connection pooler in transaction or statement mode: each transaction gets another ' +
    'session of the database, so locks, LISTEN and settings do not hold',
  remedy: 'connect to Postgres directly, or through a pooler in session mode (PgBouncer: pool_mode = session)',
} as const;

/** A busy pooler may hide it from one look. */
const LOOKS = 20;
/** A session of one's own answers at once; behind a pooler whose sessions are all taken a client waits for minutes. */
const ANSWER_MS = 5_000;

/** The session that serves this connection's next statement. Runs before the search path is pinned. */
export async function backendOf(db: Db): Promise<number> {
  const { rows } = await db.query<{ pid: number }>('select pg_catalog.pg_backend_pid() as pid');
  return rows[0]?.pid ?? 0;
}

/** The embedded database (PGlite) has one session for all its clients, so locks exclude nobody there. */
export async function isEmbedded(db: Db): Promise<boolean> {
  const { rows } = await db.query<{ embedded: boolean }>(
    `select pg_catalog.version() operator(pg_catalog.~~) '%PGlite%' as embedded`,
  );
  return rows[0]?.embedded ?? false;
}

/**
 * Is there a pooler that gives this connection another session for each transaction?
 * Straight to Postgres it costs one question: the server told its process when the connection was made, a pooler tells a
 * number of its own. (pg keeps it in a field that it does not document: https://github.com/brianc/node-postgres/issues/2665.) Behind a pooler a second connection, of which `open` makes one, tries whether it can get the first
 * one's session, and whether the first one gets another while it holds its own.
 * @throws when the pooler gives no second connection in time
 */
export async function isPooled(client: pg.Client, open: () => Promise<pg.Client>): Promise<boolean> {
  const session = await backendOf(client);
  if ((client as pg.Client & { processID: number | null }).processID === session) return false;
  if (await isEmbedded(client)) return false;
  const other = await open();
  try {
    if ((await soonBackendOf(other)) === session) return true;
    for (let look = 0; look < LOOKS; look += 1) {
      if (!(await begins(other))) return true;
      const theirs = await soonBackendOf(other);
      const ours = await soonBackendOf(client).catch(() => undefined); // in session mode it waits for nobody
      if (theirs === session || ours !== session) return true;
      await other.query('commit');
    }
    return false;
  } finally {
    await other.end().catch(() => undefined); // the pooler may have hung up on it
  }
}

/** Statement mode allows no transactions, and hangs up. */
const begins = (client: pg.Client) =>
  client.query('begin').then(
    () => true,
    () => false,
  );

async function soonBackendOf(client: pg.Client): Promise<number | undefined> {
  const question = { text: 'select pg_catalog.pg_backend_pid() as pid', query_timeout: ANSWER_MS };
  const { rows } = await client.query<{ pid: number }>(question);
  return rows[0]?.pid;
}
