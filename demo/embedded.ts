/**
 * A database and a bucket with nothing installed but Node, for the demo and the tests: Postgres with PostGIS (PGlite)
 * behind the wire protocol, and an S3 server (fauxqs). Both listen on loopback only, on a free port, keep everything
 * in memory and let anyone in. They are no stand-in for a real server where concurrency, crashes, privileges or plans
 * matter: all connections share one session.
 */
import type { AddressInfo } from 'node:net';
import { Worker } from 'node:worker_threads';
import { buildApp } from 'fauxqs';

type EmbeddedDatabase = {
  url: string;
  /** A copy of the whole database as a gzipped tar, to start another from. */
  dump(): Promise<Uint8Array>;
  close(): Promise<void>;
};

export type EmbeddedBucket = {
  endpoint: string;
  region: string;
  accessKeyId: string;
  secretAccessKey: string;
  close(): Promise<void>;
};

/**
 * Starts the database in a thread of its own, so that neither it nor the caller starves the other.
 * @param image a `dump()` to start from; without it the database is empty and has no extension installed
 */
export async function startDatabase(image?: Uint8Array): Promise<EmbeddedDatabase> {
  const thread = new Worker(new URL('./embedded-database.ts', import.meta.url), { workerData: { image } });
  const died = new Promise<never>((_, reject) => {
    thread.once('error', reject);
    thread.once('exit', (code) => reject(new Error(`The embedded database ended with status ${code}`)));
  });
  died.catch(() => undefined); // once started, its clients see the broken connections
  const answer = <T>() => Promise.race([died, new Promise<T>((resolve) => thread.once('message', resolve))]);
  const port = await answer<number>();
  return {
    url: `postgres://postgres@127.0.0.1:${port}/postgres`,
    dump() {
      thread.postMessage('dump');
      return answer<Uint8Array>();
    },
    async close() {
      await thread.terminate();
    },
  };
}

/** Starts the S3 server in this process; it accepts any key. Buckets are created through the S3 protocol. */
export async function startBucket(): Promise<EmbeddedBucket> {
  const app = buildApp({ logger: false });
  await app.listen({ host: '127.0.0.1', port: 0 });
  const { port } = app.server.address() as AddressInfo;
  return {
    endpoint: `http://127.0.0.1:${port}`,
    region: 'us-east-1',
    accessKeyId: 'embedded',
    secretAccessKey: 'embedded',
    close: () => app.close(),
  };
}
