import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { after, before, beforeEach, describe, test } from 'node:test';
import { DeleteObjectCommand, GetObjectCommand, PutObjectCommand, S3Client } from '@aws-sdk/client-s3';
import pg from 'pg';
import { pino } from 'pino';
import { pending } from '../../src/database/committed.ts';
import { migrate } from '../../src/database/schema.ts';
import { type Environment, startEnvironment, waitFor } from '../support/environment.ts';
import { cutAfter, type FaultProxy, hang, meanwhile, startFaultProxy, status } from '../support/fault-proxy.ts';

describe('test environment', () => {
  let env: Environment;
  before(async () => {
    env = await startEnvironment();
  });
  after(() => env.close());
  beforeEach(() => env.reset());

  test('the database is migrated, with the queue', async () => {
    const client = await env.pool.connect();
    try {
      assert.deepEqual(await pending(client), []);
    } finally {
      client.release();
    }
    const { rows } = await env.pool.query(
      `select to_regclass('tickets.inc') is not null as tickets, to_regclass('graphile_worker._private_jobs') is not null as queue`,
    );
    assert.deepEqual(rows, [{ tickets: true, queue: true }]);
  });

  test('migrating again changes nothing', async () => {
    await migrate(env.databaseUrl, pino({ level: 'silent' }));
    const { rows } = await env.pool.query('select count(*)::int as applied from graphile_migrate.migrations');
    assert.ok(rows[0].applied >= 1);
  });

  test('objects are written, listed, read and gone after a reset', async () => {
    const etag = await env.putObject('automations/inc/a ü.csv', 'id\n1\n');
    assert.equal(etag, createHash('md5').update('id\n1\n').digest('hex'));
    await env.putObject('other', new Uint8Array([1, 2]));
    assert.deepEqual(await env.listKeys(), ['automations/inc/a ü.csv', 'other']);
    assert.deepEqual(await env.listKeys('automations/'), ['automations/inc/a ü.csv']);
    assert.equal((await env.getObject('automations/inc/a ü.csv')).toString(), 'id\n1\n');
    await env.reset();
    assert.deepEqual(await env.listKeys(), []);
  });

  test('a reset empties tables and queue', async () => {
    await env.pool.query(`select graphile_worker.add_job('nothing_knows_this_task')`);
    assert.deepEqual(await env.runJobs(), []);
    await env.reset();
    const { rows } = await env.pool.query('select count(*)::int as jobs from graphile_worker.jobs');
    assert.deepEqual(rows, [{ jobs: 0 }]);
  });

  test('many clients at once get their own answers', async () => {
    const clients = await Promise.all(
      Array.from({ length: 20 }, async () => {
        const client = new pg.Client(env.databaseUrl);
        await client.connect();
        return client;
      }),
    );
    try {
      await Promise.all(
        clients.map(async (client, index) => {
          for (let round = 0; round < 20; round++) {
            const sent = Array.from({ length: index + 1 }, (_, n) => `${index}.${round}.${n}`);
            const inTransaction = round % 4 === 0;
            if (inTransaction) await client.query('begin');
            const columns = sent.map((_, n) => `$${n + 1}::text as c${n}`).join(', ');
            const { rows } = await client.query(`select ${columns}`, sent);
            if (inTransaction) await client.query(round % 8 === 0 ? 'commit' : 'rollback');
            assert.deepEqual(Object.values(rows[0]), sent);
          }
        }),
      );
    } finally {
      await Promise.all(clients.map((client) => client.end()));
    }
  });

  test('a notification reaches the client that listens, at once, and no other', async () => {
    const heard: string[] = [];
    const [listener, deaf] = [new pg.Client(env.databaseUrl), new pg.Client(env.databaseUrl)];
    try {
      await Promise.all([listener.connect(), deaf.connect()]);
      listener.on('notification', ({ payload }) => heard.push(`listener ${payload}`));
      deaf.on('notification', ({ payload }) => heard.push(`deaf ${payload}`));
      await listener.query('listen news');
      await deaf.query(`select pg_notify('news', $1)`, ['came']);
      await waitFor('the notification', () => heard.length > 0);
      await deaf.query('select 1');
      assert.deepEqual(heard, ['listener came']);
    } finally {
      await Promise.all([listener.end(), deaf.end()]);
    }
  });

  test('a client that dies in a transaction blocks no one', async () => {
    const dying = new pg.Client(env.databaseUrl);
    dying.on('error', () => {});
    await dying.connect();
    await dying.query('begin');
    await dying.query('create table tickets_ops.half_done ()');
    dying.connection.stream.destroy();
    const { rows } = await env.pool.query(`select to_regclass('tickets_ops.half_done') as half_done`);
    assert.deepEqual(rows, [{ half_done: null }]);
  });

  test('waitFor fails with what it waited for', async () => {
    await assert.rejects(
      waitFor('the impossible', () => false, 50),
      /Waited 50 ms in vain for the impossible/,
    );
    const counts = [0, 1];
    assert.equal(await waitFor('a count', () => counts.shift()), 1);
  });

  describe('fault proxy', () => {
    const KEY = 'automations/inc/faults.csv';
    const BODY = 'x'.repeat(300_000);
    let proxy: FaultProxy;
    let client: S3Client;
    const get = async () => {
      const { Body } = await client.send(new GetObjectCommand({ Bucket: env.s3.bucket, Key: KEY }));
      return Body?.transformToString();
    };

    before(async () => {
      proxy = await startFaultProxy(env.s3.endpoint);
      client = new S3Client({
        endpoint: proxy.endpoint,
        region: env.s3.region,
        credentials: env.s3,
        forcePathStyle: true,
        maxAttempts: 1,
        requestChecksumCalculation: 'WHEN_REQUIRED',
        responseChecksumValidation: 'WHEN_REQUIRED',
      });
    });
    after(async () => {
      client.destroy();
      await proxy.close();
    });
    beforeEach(async () => {
      proxy.heal();
      await env.putObject(KEY, BODY);
    });

    test('passes on what no fault concerns, and remembers it', async () => {
      await client.send(new PutObjectCommand({ Bucket: env.s3.bucket, Key: 'other', Body: BODY }));
      proxy.inject(/^DELETE /, status(503));
      assert.equal(await get(), BODY);
      assert.equal(proxy.requests.length, 2);
      assert.match(proxy.requests[1] ?? '', /^GET \/test-[0-9a-f]+\/automations\/inc\/faults\.csv/);
    });

    test('answers with a status as often as asked', async () => {
      proxy.inject(/^GET /, status(503), 2);
      for (let attempt = 1; attempt <= 2; attempt++) {
        await assert.rejects(get(), (error: { $metadata?: { httpStatusCode?: number } }) => {
          assert.equal(error.$metadata?.httpStatusCode, 503);
          return true;
        });
      }
      assert.equal(await get(), BODY);
    });

    test('cuts a download, and an answer whose work is done', async () => {
      proxy.inject(/^GET /, cutAfter(1000));
      await assert.rejects(get());
      proxy.inject(/^DELETE /, cutAfter(0));
      await assert.rejects(client.send(new DeleteObjectCommand({ Bucket: env.s3.bucket, Key: KEY })));
      assert.deepEqual(await env.listKeys(KEY), []);
    });

    test('hangs until healed', async () => {
      proxy.inject(/^GET /, hang());
      const failed = assert.rejects(get());
      await waitFor('the request', () => proxy.requests.length === 1);
      proxy.heal();
      await failed;
    });

    test('lets something happen in between', async () => {
      proxy.inject(
        /^GET /,
        meanwhile(() => env.putObject(KEY, 'replaced')),
      );
      assert.equal(await get(), 'replaced');
    });
  });
});
