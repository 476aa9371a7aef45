/**
 * A migrated database and an empty bucket of one's own for a test file: embedded by default, on real servers when
 * TEST_DATABASE_URL, TEST_S3_ENDPOINT, TEST_S3_ACCESS_KEY and TEST_S3_SECRET_KEY are set. The same suite runs on both.
 *
 * Guarantees: no test file sees another's data, and `close()` leaves nothing on a real server.
 */
import { randomBytes } from 'node:crypto';
import {
  CreateBucketCommand,
  DeleteBucketCommand,
  DeleteObjectCommand,
  GetObjectCommand,
  PutObjectCommand,
  paginateListObjectsV2,
  S3Client,
} from '@aws-sdk/client-s3';
import pg from 'pg';
import { pino } from 'pino';
import { type EmbeddedBucket, startBucket } from '../../demo/embedded.ts';
import { JobSchemaSettings, readSettings } from '../../src/settings/settings.ts';
import { drain } from '../../src/worker/drain.ts';
import { embeddedDatabase, nativeDatabase } from './databases.ts';

/** How long a state may take to come before the test fails. */
const PATIENCE_MS = 30_000;
const POLL_MS = 20;

type Nothing = undefined | null | false | 0 | '';

/**
 * Statements of the tests say graphile_worker for the schema of the jobs. Where a run has another one (WORKER_SCHEMA, as it
 * must not matter to anything), this makes them say that.
 */
export const inJobSchema = (sql: string) =>
  sql.replaceAll('graphile_worker', readSettings(JobSchemaSettings).WORKER_SCHEMA);

/** A session as a person's psql has it: nothing in it is pinned, so names are looked up in public too, where PostGIS is. */
export async function connectAsPerson(url: string): Promise<pg.Client> {
  const client = new pg.Client({ connectionString: url });
  client.on('error', () => {}); // of a connection that a test broke: its query fails
  nameJobSchema(client);
  await client.connect();
  return client;
}

export async function asPerson<T>(url: string, use: (client: pg.Client) => Promise<T>): Promise<T> {
  const client = await connectAsPerson(url);
  try {
    return await use(client);
  } finally {
    await client.end();
  }
}

function nameJobSchema(client: pg.ClientBase): void {
  const query = client.query.bind(client) as (...args: unknown[]) => unknown;
  Object.assign(client, {
    query: (sql: unknown, ...rest: unknown[]) => query(typeof sql === 'string' ? inJobSchema(sql) : sql, ...rest),
  });
}

/** Whether the tests of this process run on real servers. */
export const native = process.env.TEST_DATABASE_URL !== undefined;

export type JobFailure = { task: string; attempts: number; error: string };

export type Environment = {
  databaseUrl: string;
  s3: { endpoint: string; region: string; accessKeyId: string; secretAccessKey: string; bucket: string };
  /** Connections for the test's own queries. */
  pool: pg.Pool;
  /** A client of the S3 server, for what the functions here do not offer. */
  bucket: S3Client;
  native: boolean;
  /** Writes an object and returns its ETag without quotes. */
  putObject(key: string, body: string | Uint8Array): Promise<string>;
  /** An object's bytes. */
  getObject(key: string): Promise<Buffer>;
  deleteObject(key: string): Promise<void>;
  /** All keys, sorted. */
  listKeys(prefix?: string): Promise<string[]>;
  /** Runs every job that is due, and the due jobs these add; returns the jobs that wait with an error afterwards. */
  runJobs(): Promise<JobFailure[]>;
  /** Empties the tables that the migrations leave empty, the queue and the bucket. */
  reset(): Promise<void>;
  close(): Promise<void>;
};

/**
 * Starts the environment and points this process's settings (DATABASE_URL, RUSTFS_*) to it.
 * To be called once per test file, and closed in `after()`.
 */
export async function startEnvironment(): Promise<Environment> {
  const database = await startDatabase();
  const server = await startServer();
  const { close: closeServer, ...access } = server;
  const s3 = { ...access, bucket: `test-${randomBytes(6).toString('hex')}` };
  const pool = new pg.Pool({ connectionString: database.url, max: 8 });
  pool.on('error', () => {}); // of an idle connection that a test broke: the next query gets a new one
  pool.on('connect', (client) => client.on('error', () => {})); // of one in use: its query fails
  pool.on('connect', nameJobSchema);
  const bucket = bucketClient(s3);
  await bucket.send(new CreateBucketCommand({ Bucket: s3.bucket }));
  const objects = objectsOf(bucket, s3.bucket);
  const emptied = await emptyTables(pool);

  Object.assign(process.env, {
    DATABASE_URL: database.url,
    RUSTFS_ENDPOINT: s3.endpoint,
    RUSTFS_REGION: s3.region,
    RUSTFS_ACCESS_KEY: s3.accessKeyId,
    RUSTFS_SECRET_KEY: s3.secretAccessKey,
    RUSTFS_BUCKET: s3.bucket,
  });

  const emptyBucket = async () => {
    await Promise.all((await objects.listKeys()).map(objects.deleteObject));
  };
  return {
    databaseUrl: database.url,
    s3,
    pool,
    bucket,
    native,
    ...objects,
    runJobs: () => runJobs(pool),
    async reset() {
      // History is emptied by what erases only. Several statements at once are one transaction.
      const empty = `set local tickets_ops.erasing = 'true'; truncate ${emptied.join(', ')} restart identity cascade`;
      await Promise.all([pool.query(empty), emptyBucket()]);
    },
    async close() {
      await pool.end();
      await emptyBucket();
      await bucket.send(new DeleteBucketCommand({ Bucket: s3.bucket }));
      bucket.destroy();
      await Promise.all([database.close(), closeServer()]);
    },
  };
}

/**
 * Asks again and again until the answer is something (not undefined, null, false, '' or a count of 0), and returns it.
 * @param what for the error: what did not come about
 */
export async function waitFor<T>(
  what: string,
  ask: () => Promise<T | Nothing> | T | Nothing,
  patienceMs = PATIENCE_MS,
): Promise<T> {
  const deadline = Date.now() + patienceMs;
  for (;;) {
    const answer = await ask();
    if (answer) return answer;
    if (Date.now() > deadline) throw new Error(`Waited ${patienceMs} ms in vain for ${what}`);
    await new Promise((resolve) => setTimeout(resolve, POLL_MS));
  }
}

/** The settings of a client that every S3-compatible server understands. */
function bucketClient({ endpoint, region, accessKeyId, secretAccessKey }: Environment['s3']): S3Client {
  return new S3Client({
    endpoint,
    region,
    credentials: { accessKeyId, secretAccessKey },
    forcePathStyle: true,
    requestChecksumCalculation: 'WHEN_REQUIRED',
    responseChecksumValidation: 'WHEN_REQUIRED',
  });
}

function startDatabase() {
  const { TEST_DATABASE_URL } = process.env;
  return TEST_DATABASE_URL ? nativeDatabase(TEST_DATABASE_URL) : embeddedDatabase();
}

async function startServer(): Promise<EmbeddedBucket> {
  if (!native) return startBucket();
  const { TEST_S3_ENDPOINT, TEST_S3_ACCESS_KEY, TEST_S3_SECRET_KEY } = process.env;
  if (!TEST_S3_ENDPOINT || !TEST_S3_ACCESS_KEY || !TEST_S3_SECRET_KEY) {
    throw new Error(
      'TEST_DATABASE_URL is set: TEST_S3_ENDPOINT, TEST_S3_ACCESS_KEY and TEST_S3_SECRET_KEY must be too.',
    );
  }
  return {
    endpoint: TEST_S3_ENDPOINT,
    region: 'us-east-1',
    accessKeyId: TEST_S3_ACCESS_KEY,
    secretAccessKey: TEST_S3_SECRET_KEY,
    close: async () => {},
  };
}

function objectsOf(client: S3Client, Bucket: string) {
  return {
    async putObject(Key: string, Body: string | Uint8Array) {
      const { ETag } = await client.send(new PutObjectCommand({ Bucket, Key, Body }));
      return ETag?.replaceAll('"', '') ?? '';
    },
    async getObject(Key: string) {
      const { Body } = await client.send(new GetObjectCommand({ Bucket, Key }));
      return Buffer.from((await Body?.transformToByteArray()) ?? []);
    },
    async deleteObject(Key: string) {
      await client.send(new DeleteObjectCommand({ Bucket, Key }));
    },
    async listKeys(Prefix?: string) {
      const keys: string[] = [];
      for await (const page of paginateListObjectsV2({ client }, { Bucket, ...(Prefix && { Prefix }) })) {
        for (const { Key } of page.Contents ?? []) if (Key) keys.push(Key);
      }
      return keys.sort();
    },
  };
}

/** Our tables without a row in a freshly migrated database, and the queue. */
async function emptyTables(pool: pg.Pool): Promise<string[]> {
  const { rows } = await pool.query<{ name: string }>(`
    select format('%I.%I', relnamespace::regnamespace, relname) as name
    from pg_class
    where relkind in ('r', 'p')
      and relnamespace::regnamespace::text in ('tickets', 'reporting', 'tickets_ops')
    order by name`);
  const emptiness = rows.map(({ name }) => `select '${name}' as name where not exists (select from ${name})`);
  const { rows: empty } = await pool.query<{ name: string }>(emptiness.join(' union all ') || `select where false`);
  const queue = ['_private_jobs', '_private_job_queues', '_private_known_crontabs'];
  return [...empty.map(({ name }) => name), ...queue.map((table) => `graphile_worker.${table}`)];
}

async function runJobs(pool: pg.Pool): Promise<JobFailure[]> {
  await drain(pino({ level: 'silent' })); // what a failing job says is returned
  const { rows } = await pool.query<JobFailure>(`
    select task_identifier as task, attempts, last_error as error
    from graphile_worker.jobs
    where last_error is not null
    order by id`);
  return rows;
}
