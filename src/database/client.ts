/**
 * Connections to Postgres for the command line and the tests; tasks use graphile-worker's own pool.
 *
 * Guarantees: no message or error that leaves this file holds the connection's password; a connection has a session of
 * its own (pooler.ts); a transaction is committed or rolled back, never left open. It does not retry: the caller knows
 * whether that is safe.
 */

import pg, { type ClientBase, type QueryResult, type QueryResultRow } from 'pg';
import '../settings/handshake.ts';
import { ExpectedError, isUntrusted, REMEDIES } from '../settings/errors.ts';
import { isPooled, POOLED } from './pooler.ts';
import { pinSession } from './session.ts';

const CONNECT_TIMEOUT_MS = 10_000;

/** A database cannot be reached or does not let us in; the message names host, database and user, never the password. */
export class ConnectionError extends ExpectedError {
  override name = 'ConnectionError';
}

/** A pooler stands before the database that gives a connection no session of its own: nothing was done. */
export class PooledError extends ConnectionError {
  override name = 'PooledError';
}

/** Anything that runs one statement: a client, a pool, a job's helpers. */
export interface Db {
  // biome-ignore lint/suspicious/noExplicitAny: rows are whatever the statement selects
  query<R extends QueryResultRow = any>(text: string, values?: unknown[]): Promise<QueryResult<R>>;
}

/** One connection for several who use it at once: a statement waits for those before it, since pg itself will not queue them. */
export class Turns implements Db {
  readonly #db: Db;
  #last: Promise<unknown> = Promise.resolve();

  constructor(db: Db) {
    this.#db = db;
  }

  // biome-ignore lint/suspicious/noExplicitAny: as in Db
  query<R extends QueryResultRow = any>(text: string, values?: unknown[]): Promise<QueryResult<R>> {
    const result = this.#last.then(() => this.#db.query<R>(text, values));
    this.#last = result.catch(() => undefined);
    return result;
  }

  /** Resolves when no statement runs, nor waits. */
  async idle(): Promise<void> {
    await this.#last;
  }
}

/** The database has not the schema of this release; the message says what to do. */
export class SchemaError extends ExpectedError {
  override name = 'SchemaError';
}

/**
 * What a connection string points to, fit to be shown: `user@host:port/database`.
 * @throws ConnectionError when it is no connection string (Node's own error would carry it whole, with its password)
 */
export function databaseName(url: string): string {
  const { user, host, port, database } = unconnected(url);
  return `${user ? `${user}@` : ''}${host}:${port}/${database ?? ''}`;
}

/**
 * Opens one connection with a session of its own, which is pinned (session.ts); the caller ends it.
 * @throws ConnectionError, PooledError
 */
export async function connect(url: string): Promise<pg.Client> {
  const client = unconnected(url);
  try {
    await client.connect();
    if (await isPooled(client, () => connected(url)))
      throw new PooledError(`${POOLED.what}. Nothing was done: ${POOLED.remedy}.`);
    await pinSession(client);
    return client;
  } catch (error) {
    await client.end().catch(() => undefined); // often it never connected: there is nothing to end but a half-open socket
    if (error instanceof PooledError) throw error;
    throw new ConnectionError(`Cannot connect to Postgres at ${databaseName(url)}: ${reasonOf(error)}`);
  }
}

/** Runs `use` with a connection that is closed afterwards, whatever happens. */
export async function withClient<T>(url: string, use: (client: pg.Client) => Promise<T>): Promise<T> {
  const client = await connect(url);
  try {
    return await use(client);
  } finally {
    await client.end();
  }
}

/**
 * Runs `work` in one transaction: committed when it resolves, rolled back when it throws.
 * Not for a client that is already in a transaction.
 */
export async function transaction<C extends ClientBase, T>(client: C, work: (client: C) => Promise<T>): Promise<T> {
  await client.query('begin');
  try {
    const result = await work(client);
    await client.query('commit');
    return result;
  } catch (error) {
    await client.query('rollback').catch(() => undefined); // the connection is gone, and the transaction with it: the first error says why
    throw error;
  }
}

/** A connection of which nothing is known yet. */
async function connected(url: string): Promise<pg.Client> {
  const client = unconnected(url);
  client.on('error', () => undefined); // a pooler that hangs up: the query fails with it
  await client.connect();
  return client;
}

function unconnected(url: string): pg.Client {
  try {
    return new pg.Client({
      connectionString: url,
      connectionTimeoutMillis: CONNECT_TIMEOUT_MS,
      application_name: 'fleettickets',
    });
  } catch (error) {
    // A file of sslrootcert, sslcert or sslkey.
    if ((error as NodeJS.ErrnoException).syscall)
      throw new ConnectionError(`DATABASE_URL names a file that cannot be read: ${(error as Error).message}`);
    throw new ConnectionError(
      'DATABASE_URL is not a connection string. It must look like postgres://user:password@host:5432/database, ' +
        'with special characters percent-encoded.',
    );
  }
}

const UNTRUSTED =
  'no CA that this machine trusts has signed it. Name the file with the certificate of its CA (sslrootcert=…), or encrypt ' +
  'without checking it (sslmode=require without sslrootcert)';

/** What to do about TLS, in words of DATABASE_URL, and about limits. */
function remedyOf(error: Error): string | undefined {
  const { code } = error as NodeJS.ErrnoException;
  if (isUntrusted(code)) return UNTRUSTED;
  if (code === 'CERT_HAS_EXPIRED')
    return 'renew it, or encrypt without checking it: sslmode=require without sslrootcert';
  if (code === 'ERR_TLS_CERT_ALTNAME_INVALID')
    return 'name the host as its certificate does, or check the CA only: sslmode=verify-ca';
  if (/does not support SSL/.test(error.message)) return 'leave sslmode out, or set sslmode=disable';
  if (/no encryption$/.test(error.message)) return 'it may want TLS: add ?sslmode=require';
  return REMEDIES[code ?? ''];
}

/** Node reports a host that refuses on both IPv4 and IPv6 as an AggregateError without a message. */
function reasonOf(error: unknown): string {
  if (error instanceof AggregateError) return error.errors.map(reasonOf).join('; ');
  if (!(error instanceof Error)) return String(error);
  const remedy = remedyOf(error);
  return remedy === undefined ? error.message : `${error.message}: ${remedy}`;
}
