/**
 * The image as a container, against a real Postgres and a real S3 server: what an operator's engine does to it. Loads
 * are held up by the lock that every batch takes first, so that «in the middle of a load» is a state and no accident of timing.
 */
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { after, afterEach, before, describe, test } from 'node:test';
import { DeleteBucketCommand, ListBucketsCommand } from '@aws-sdk/client-s3';
import pg from 'pg';
import { bigCsv, feed } from '../../demo/feed.ts';
import { type Environment, startEnvironment, waitFor } from '../support/environment.ts';
import { buildBase, buildImage, type Container, removeContainers, said, sizeOf, start } from './engine.ts';

const MAX_BYTES_ABOVE_BASE = 30_000_000;
/** What Coolify gives a container to stop. */
const GRACE_S = 30;
/** A container starts in one to two seconds; the machine may be busy. */
const PATIENCE_MS = 60_000;
/** Asks a container who it is, and lists what there should not be: files it may change, and what only developers need. */
const INSIDE = `
  tr '\\0' ' ' < /proc/1/cmdline; echo
  id -u
  touch /app/file 2> /dev/null || echo read-only
  find /app -not -type l '(' -not -user root -o -perm /022 ')'
  ls -d .env .git migrations/current node_modules/node node_modules/typescript test 2> /dev/null
  true`;
const TICKETS = 20_000;
const BATCHES = 4;

describe('the image', { timeout: 180_000 }, () => {
  const name = `fleettickets_container_${randomBytes(4).toString('hex')}`;
  let env: Environment;
  let pool: pg.Pool;
  let base: string;
  let image: string;
  const took: string[] = [];
  let settings: Record<string, string>;
  const run = (container: string, ...command: string[]) => start(container, image, settings, ...command);

  before(async () => {
    env = await startEnvironment();
    await env.pool.query(`create database ${name}`);
    const url = new URL(env.databaseUrl);
    url.pathname = `/${name}`;
    pool = new pg.Pool({ connectionString: url.href, max: 4 });
    settings = {
      DATABASE_URL: url.href,
      RUSTFS_ENDPOINT: env.s3.endpoint,
      RUSTFS_ACCESS_KEY: env.s3.accessKeyId,
      RUSTFS_SECRET_KEY: env.s3.secretAccessKey,
      RUSTFS_BUCKET: env.s3.bucket,
      WORKER_CONCURRENCY: '1',
      ON_SUSPECT_SNAPSHOT: 'load', // the big files close nearly all of the tickets before them
    };
    base = await timed('the stand-in base', buildBase());
    image = await timed('the image', buildImage(base));
  });
  afterEach(removeContainers);
  after(async () => {
    await pool?.end();
    await env?.pool.query(`drop database if exists ${name} with (force)`);
    await env?.close();
  });

  test('adds little to its base', async (t) => {
    const added = (await sizeOf(image)) - (await sizeOf(base));
    t.diagnostic(`${(added / 1e6).toFixed(1)} MB above the base; built: ${took.join(', ')}`);
    assert.ok(added < MAX_BYTES_ABOVE_BASE, `${added} bytes above the base`);
  });

  test('can be stopped while it waits to migrate', async () => {
    const holder = await pool.connect();
    try {
      // As another container that migrates holds it: LOCK in src/database/schema.ts.
      await holder.query('select pg_advisory_lock(7216406330421507)');
      const container = await run('waiting');
      await said(container, /another process is migrating/);
      assert.equal(await container.isHealthy(), false);
      assert.equal(await container.stop(GRACE_S), 0);
      const { rows } = await holder.query(`select to_regnamespace('tickets') as tickets`);
      assert.deepEqual(rows, [{ tickets: null }]);
    } finally {
      holder.release(true);
    }
  });

  test('migrates an empty database and becomes healthy, as PID 1 of a user who can write nothing', async () => {
    const container = await run('first');
    await healthy(container);
    const { rows } = await pool.query(`select to_regclass('tickets.inc') is not null as migrated`);
    assert.deepEqual(rows, [{ migrated: true }]);

    const inside = await container.exec('sh', '-c', INSIDE);
    const [program, ...others] = inside.split('\n');
    assert.equal(program, 'node /usr/local/bin/fleettickets worker --migrate ');
    assert.deepEqual(others, ['1000', 'read-only']);
    assert.match(await container.exec('fleettickets', '--help'), /\n {2}worker +/);
    assert.equal(await container.stop(GRACE_S), 0);
    assert.doesNotMatch(await container.logs(), new RegExp(env.s3.secretAccessKey));
  });

  test("loads a snapshot on its crontab's tick", async () => {
    const [snapshot] = feed({ hours: 1 });
    assert.ok(snapshot);
    await env.putObject(`automations/inc/${snapshot.name}`, snapshot.csv);
    // As if no worker had run for 13 h, in which a tick lies at any time of the day: the schedule makes up for it.
    const { rowCount } = await pool.query(
      `update graphile_worker._private_known_crontabs
       set known_since = now() - interval '1 day', last_execution = now() - interval '13 hours'
       where identifier = 'fetch_inc'`,
    );
    assert.equal(rowCount, 1);
    const container = await run('scheduled');
    await loaded(snapshot.name);
    assert.equal(await container.stop(GRACE_S), 0);
    const { rows } = await pool.query<{ ticket_id: string; raw: unknown }>('select ticket_id, raw from tickets.inc');
    assert.deepEqual(new Map(rows.map(({ ticket_id, raw }) => [ticket_id, raw])), new Map(snapshot.tickets));
    assert.deepEqual(await env.listKeys(), [`automations/inc/processed/${snapshot.name}`]);
  });

  test('stopped in the middle of a load, it finishes what it holds and leaves the rest to the next', async () => {
    const file = await ask('2026-06-16T07-00-00.csv', 0);
    const stopped = await holdingUpLoads(async (letGo) => {
      const container = await run('stopped');
      await inTheMiddle();
      const status = container.stop(GRACE_S);
      await said(container, /SIGTERM: stopping/);
      await letGo();
      assert.equal(await status, 0);
      return container;
    });
    assert.match(await stopped.logs(), /worker stopped/);
    const [work] = await workOn(file);
    assert.ok(work && work.batches_done >= 2 && work.batches_done < BATCHES, JSON.stringify(work));
    assert.deepEqual(work, {
      status: 'loading',
      batches_done: work.batches_done,
      waiting: BATCHES - work.batches_done,
      running: 0,
    });

    const next = await run('next');
    await loaded(file);
    assert.equal(await next.stop(GRACE_S), 0);
    const { rows } = await pool.query(
      `select rows_inserted + rows_updated as written, (select count(*) from tickets.inc) as tickets
       from tickets_ops.snapshots where source_key like '%' || $1`,
      [file],
    );
    assert.deepEqual(rows, [{ written: String(TICKETS), tickets: String(TICKETS) }]);
  });

  test('a deployment: the new container becomes healthy beside the old one, which then leaves in the middle of a load', async () => {
    const file = await ask('2026-06-16T08-00-00.csv', TICKETS);
    const now = await holdingUpLoads(async (letGo) => {
      const old = await run('old');
      await inTheMiddle();
      const replacement = await run('replacement');
      await healthy(replacement);
      assert.equal(await old.isHealthy(), true);
      const status = old.stop(GRACE_S);
      await said(old, /SIGTERM: stopping/);
      await letGo();
      assert.equal(await status, 0);
      return replacement;
    });
    await loaded(file);
    await assertEachLoadedOnce(file);
    assert.equal(await now.stop(GRACE_S), 0);
  });

  test('killed in the middle of a load, its work is done by the next, once', async () => {
    const file = await ask('2026-06-16T09-00-00.csv', 0);
    await holdingUpLoads(async () => {
      const container = await run('killed');
      await inTheMiddle();
      assert.equal(await container.kill(), 137);
    });
    const next = await run('rescuer');
    await loaded(file);
    await assertEachLoadedOnce(file);
    const { rows } = await pool.query(
      'select count(*)::int as failed from graphile_worker.jobs where last_error is not null',
    );
    assert.deepEqual(rows, [{ failed: 0 }]);
    assert.equal(await next.stop(GRACE_S), 0);
  });

  test("compose.yaml's bucket step makes the bucket, and lets one that is there be", async () => {
    const [, command = ''] = /^ {4}command: \[(node, \S+)\]$/m.exec(await readFile('compose.yaml', 'utf8')) ?? [];
    const bucket = `${env.s3.bucket}-compose`;
    for (const time of ['once', 'twice']) {
      const step = await start(`bucket-${time}`, image, { ...settings, RUSTFS_BUCKET: bucket }, ...command.split(', '));
      assert.equal(await step.exitStatus(), 0, await step.logs());
    }
    const { Buckets = [] } = await env.bucket.send(new ListBucketsCommand({}));
    assert.ok(Buckets.some(({ Name }) => Name === bucket));
    await env.bucket.send(new DeleteBucketCommand({ Bucket: bucket }));
  });

  async function timed<T>(what: string, doing: Promise<T>): Promise<T> {
    const start = performance.now();
    const result = await doing;
    took.push(`${what} in ${((performance.now() - start) / 1e3).toFixed(0)} s`);
    return result;
  }

  const healthy = (container: Container) =>
    waitFor(`${container.name} to be healthy`, () => container.isHealthy(), PATIENCE_MS);

  /** Puts a file of many tickets into the bucket and asks for it; so many differ from those of the same call with 0. */
  async function ask(file: string, changed: number): Promise<string> {
    const csv = Buffer.concat(await bigCsv({ seed: 2, tickets: TICKETS, changed }).toArray());
    await env.putObject(`automations/inc/${file}`, csv);
    await pool.query(`select graphile_worker.add_job('fetch_snapshot', '{}', max_attempts := 1)`);
    return file;
  }

  /** While `doing`, no batch gets further than its first statement, until it lets go. */
  async function holdingUpLoads<T>(doing: (letGo: () => Promise<unknown>) => Promise<T>): Promise<T> {
    const holder = await pool.connect();
    try {
      await holder.query('select pg_advisory_lock(tickets.gazetteer_lock())');
      return await doing(() => holder.query('select pg_advisory_unlock(tickets.gazetteer_lock())'));
    } finally {
      holder.release(true);
    }
  }

  /** Waits until some batches run and others wait. */
  const inTheMiddle = () =>
    waitFor(
      'a load to be in its middle',
      async () => {
        const { rows } = await pool.query(
          `select from graphile_worker.jobs where task_identifier = 'upsert_batch' having count(locked_at) >= 2 and count(*) > count(locked_at)`,
        );
        return rows.length > 0;
      },
      PATIENCE_MS,
    );

  const workOn = async (file: string) =>
    (
      await pool.query<{ status: string; batches_done: number; waiting: number; running: number }>(
        `select s.status, s.batches_done,
           (select count(*)::int from graphile_worker.jobs where task_identifier = 'upsert_batch' and locked_at is null) as waiting,
           (select count(*)::int from graphile_worker.jobs where locked_at is not null) as running
         from tickets_ops.snapshots s where s.source_key like '%' || $1`,
        [file],
      )
    ).rows;

  const loaded = (file: string) =>
    waitFor(
      `${file} to be loaded and archived`,
      async () => {
        const { rows } = await pool.query<{ status: string; error: string | null; archived: boolean }>(
          `select status, error, archived_at is not null as archived from tickets_ops.snapshots where source_key like '%' || $1`,
          [file],
        );
        assert.notEqual(rows[0]?.status, 'failed', rows[0]?.error ?? '');
        return rows[0]?.status === 'done' && rows[0].archived;
      },
      PATIENCE_MS,
    );

  /** Every ticket changed its team in this snapshot: once in the table, once in the history. */
  async function assertEachLoadedOnce(file: string): Promise<void> {
    const { rows } = await pool.query(
      `select s.rows_updated::int as updated, s.batches_done as batches,
         (select count(*)::int from tickets.inc_events e where e.snapshot_id = s.snapshot_id and e.event = 'team_changed') as events
       from tickets_ops.snapshots s where s.source_key like '%' || $1`,
      [file],
    );
    assert.deepEqual(rows, [{ updated: TICKETS, batches: BATCHES, events: TICKETS }]);
  }
});
