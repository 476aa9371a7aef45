import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { createServer } from 'node:net';
import { after, before, beforeEach, describe, test } from 'node:test';
import { CompleteMultipartUploadCommand, CreateMultipartUploadCommand, UploadPartCommand } from '@aws-sdk/client-s3';
import { archiveObject } from '../../src/bucket/archive.ts';
import {
  type Bucket,
  BucketError,
  type BucketObject,
  listFolder,
  ObjectChangedError,
  openBucket,
  readObject,
} from '../../src/bucket/s3.ts';
import { BucketSettings, readSettings } from '../../src/settings/settings.ts';
import { type Environment, native, startEnvironment } from '../support/environment.ts';
import { cutAfter, type FaultProxy, meanwhile, startFaultProxy, status } from '../support/fault-proxy.ts';

const FOLDER = 'automations/inc/';
const KEY = `${FOLDER}2026-06-15T07-00-00.csv`;
const ARCHIVED = `${FOLDER}processed/2026-06-15T07-00-00.csv`;
const BODY = `ticket_id\n${'WOT0000001\n'.repeat(30_000)}`;

describe('the bucket', () => {
  let env: Environment;
  let proxy: FaultProxy;
  let bucket: Bucket;
  const opened: Bucket[] = [];
  const open = (changes: Record<string, string> = {}) => {
    const one = openBucket(
      readSettings(BucketSettings, { ...process.env, RUSTFS_ENDPOINT: proxy.endpoint, ...changes }),
    );
    opened.push(one);
    return one;
  };
  /** The one object in the folder. */
  const listed = async () => (await listFolder(bucket, FOLDER))[0] ?? assert.fail('nothing is listed');
  const bytesOf = async (object: BucketObject) => {
    const chunks: Buffer[] = [];
    for await (const chunk of readObject(bucket, object)) chunks.push(chunk);
    return Buffer.concat(chunks).toString();
  };

  before(async () => {
    env = await startEnvironment();
    proxy = await startFaultProxy(env.s3.endpoint);
    bucket = open();
  });
  after(async () => {
    for (const { client } of opened) client.destroy();
    await proxy.close();
    await env.close();
  });
  beforeEach(async () => {
    proxy.heal();
    await env.reset();
  });

  describe('listing', () => {
    const page = (truncated: string, ...keys: string[]) =>
      `<?xml version="1.0" encoding="UTF-8"?><ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><Name>b</Name>${truncated}${keys
        .map(
          (key) =>
            `<Contents><Key>${key}</Key><LastModified>2026-06-15T04:00:00.000Z</LastModified><ETag>&quot;e&quot;</ETag><Size>1</Size></Contents>`,
        )
        .join('')}</ListBucketResult>`;
    const more = '<IsTruncated>true</IsTruncated>';

    test('an empty folder is a list of nothing', async () => {
      assert.deepEqual(await listFolder(bucket, FOLDER), []);
    });

    test('gives the objects directly in the folder', async () => {
      const etag = await env.putObject(KEY, 'x');
      await env.putObject(ARCHIVED, 'x');
      await env.putObject('automations/inc-old/2026-06-15T07-00-00.csv', 'x');
      assert.deepEqual(
        (await listFolder(bucket, FOLDER)).map((object) => [object.key, object.etag]),
        [[KEY, etag]],
      );
    });

    test('asks for page after page', async () => {
      const keys = Array.from({ length: 2_500 }, (_, n) => `${FOLDER}${String(n).padStart(5, '0')}.csv`);
      const next = (token: string) => `${more}<NextContinuationToken>${token}</NextContinuationToken>`;
      proxy.inject(/list-type=2/, status(200, page(next('t/1+='), ...keys.slice(0, 1_000))));
      proxy.inject(/continuation-token=t%2F1%2B%3D/, status(200, page(next('t2'), ...keys.slice(1_000, 2_000))));
      proxy.inject(
        /continuation-token=t2/,
        status(200, page('<IsTruncated>false</IsTruncated>', ...keys.slice(2_000))),
      );
      assert.deepEqual(
        (await listFolder(bucket, FOLDER)).map(({ key }) => key),
        keys,
      );
      assert.equal(proxy.requests.length, 3);
      for (const request of proxy.requests) assert.match(request, /max-keys=1000/);
    });

    // Writing so many takes Swift half a minute.
    if (!native)
      test('gives all of more than 1000 objects', async () => {
        const keys = Array.from({ length: 1_003 }, (_, n) => `${FOLDER}${String(n).padStart(5, '0')}.csv`);
        for (let from = 0; from < keys.length; from += 40) {
          await Promise.all(keys.slice(from, from + 40).map((key) => env.putObject(key, 'x')));
        }
        const objects = await listFolder(bucket, FOLDER);
        assert.deepEqual(objects.map(({ key }) => key).sort(), keys);
      });

    test('gives key, bare ETag, size and time', async () => {
      const etag = await env.putObject(`${FOLDER}a b+ü&c.csv`, 'four');
      const [object] = await listFolder(bucket, FOLDER);
      assert.deepEqual(
        { ...object, lastModified: undefined },
        { key: `${FOLDER}a b+ü&c.csv`, etag, size: 4, lastModified: undefined },
      );
      assert.ok(Math.abs((object?.lastModified.getTime() ?? 0) - Date.now()) < 3_600_000);
    });

    test('gives keys as they are, whatever characters they hold', async () => {
      const names = [
        'a b',
        'a+b',
        'a%20b',
        'a%2Bb',
        'a&lt;b',
        `"it's" <b> # ?`,
        'عربي 😀',
        'e\u0301',
        '\u202e',
        'a\u001b[31m',
        'a\nb',
      ];
      const keys = names.map((name) => `${FOLDER}${name}.csv`).sort();
      for (const key of keys) await env.putObject(key, 'ticket_id\n');
      const listed = await listFolder(bucket, FOLDER);
      assert.deepEqual(listed.map(({ key }) => key).sort(), keys);
      for (const object of listed) {
        assert.equal((await archiveObject(bucket, object)).outcome, 'archived', object.key);
        await env.deleteObject(object.key.replace(FOLDER, `${FOLDER}processed/`)); // what empties the bucket cannot list them all
      }
    });

    test('a list that says truncated and gives no token, or the same again, is an error and no endless loop', async () => {
      proxy.inject(/list-type=2/, status(200, page(more, 'a.csv')));
      await assert.rejects(listFolder(bucket, FOLDER), /says there is more but gives no continuation token/);
      proxy.inject(
        /list-type=2/,
        status(200, page(`${more}<NextContinuationToken>t</NextContinuationToken>`, 'a.csv')),
        5,
      );
      await assert.rejects(listFolder(bucket, FOLDER), /repeats its continuation token/);
    });

    test('an answer that is no list is an error and no empty folder: a console, a login page, JSON, nothing', async () => {
      for (const body of ['', '<html><body>Sign in</body></html>', '{"error": "no"}', '<ListBucketResult><Contents>']) {
        proxy.inject(/list-type=2/, status(200, body));
        await assert.rejects(listFolder(bucket, FOLDER), /what answers is no S3 server: check RUSTFS_ENDPOINT/, body);
      }
    });

    test('a key that is listed without its time or its size is an error, and never passed over', async () => {
      const whole = page('<IsTruncated>false</IsTruncated>', KEY, `${FOLDER}`);
      proxy.inject(/list-type=2/, status(200, whole));
      assert.equal((await listFolder(bucket, FOLDER)).length, 1);
      for (const part of [/<LastModified>.*?<\/LastModified>/, /<Size>1<\/Size>/]) {
        for (const other of ['', '<Size>-1</Size>', '<Size>many</Size>']) {
          proxy.inject(/list-type=2/, status(200, whole.replace(part, part.source.includes('Size') ? other : '')));
          await assert.rejects(listFolder(bucket, FOLDER), /lists automations.*\.csv without its time or its size/);
        }
      }
    });

    test('a key that is listed twice is one object', async () => {
      const end = '<IsTruncated>false</IsTruncated>';
      proxy.inject(
        /list-type=2/,
        status(200, page(`${more}<NextContinuationToken>t</NextContinuationToken>`, 'a.csv', 'b.csv')),
      );
      proxy.inject(/list-type=2/, status(200, page(end, 'b.csv', 'c.csv')));
      assert.deepEqual(
        (await listFolder(bucket, FOLDER)).map(({ key }) => key),
        ['a.csv', 'b.csv', 'c.csv'],
      );
    });
  });

  describe('errors say what to do', () => {
    test('a missing bucket', async () => {
      await assert.rejects(listFolder(open({ RUSTFS_BUCKET: 'no-such-bucket' }), FOLDER), (error: Error) => {
        assert.ok(error instanceof BucketError);
        assert.match(
          error.message,
          /^Listing automations\/inc\/ in bucket no-such-bucket at http:.*check RUSTFS_BUCKET/,
        );
        return true;
      });
    });

    test('wrong credentials', async () => {
      // The embedded server takes any key: there its refusal is played.
      const refusal = (code: string) => {
        if (!native)
          proxy.inject(/list-type=2/, status(403, `<Error><Code>${code}</Code><Message>no</Message></Error>`));
      };
      const secret = randomBytes(8).toString('hex');
      refusal('SignatureDoesNotMatch');
      await assert.rejects(listFolder(open({ RUSTFS_SECRET_KEY: secret }), FOLDER), (error: Error) => {
        assert.match(error.message, /check RUSTFS_SECRET_KEY/);
        assert.ok(!error.message.includes(secret));
        return true;
      });
      refusal('InvalidAccessKeyId');
      await assert.rejects(
        listFolder(open({ RUSTFS_ACCESS_KEY: 'nobody:nobody' }), FOLDER),
        /check RUSTFS_(ACCESS|SECRET)_KEY|needs list, read, write and delete/,
      );
      proxy.inject(/list-type=2/, status(403, '<Error><Code>AccessDenied</Code></Error>'));
      await assert.rejects(listFolder(bucket, FOLDER), /needs list, read, write and delete/);
    });

    test('a wrong clock or region, a proxy in trouble, and a refusal of any other name, which is told as it is', async () => {
      const refusals: [code: number, body: string, said: RegExp][] = [
        [
          403,
          '<Error><Code>RequestTimeTooSkewed</Code></Error>',
          /the clocks of this machine and of the server differ/,
        ],
        [400, '<Error><Code>AuthorizationHeaderMalformed</Code></Error>', /check RUSTFS_REGION/],
        [
          403,
          '<Error><Code>AccountProblem</Code><Message>It is not paid</Message></Error>',
          /AccountProblem \(HTTP 403\): It is not paid/,
        ],
        [400, '<Error><Code>ExpiredToken</Code></Error>', /set RUSTFS_ACCESS_KEY and RUSTFS_SECRET_KEY anew/],
        [400, '<Error><Code>InvalidBucketName</Code></Error>', /check RUSTFS_BUCKET/],
        [301, '<Error><Code>PermanentRedirect</Code></Error>', /check RUSTFS_ENDPOINT and RUSTFS_REGION/],
        [507, '<Error><Code>XMinioStorageFull</Code></Error>', /make room on it/],
        [404, '<html>404 page not found</html>', /HTTP 404: what answers is no S3 server/],
        [403, '<html>no</html>', /needs list, read, write and delete/],
        [502, '<html>Bad gateway</html>', /HTTP 502: the server, or a proxy before it, is in trouble/],
        [301, '', /HTTP 301: what answers is no S3 server/],
      ];
      for (const [code, body, said] of refusals) {
        proxy.inject(/list-type=2/, status(code, body), 4);
        await assert.rejects(listFolder(bucket, FOLDER), said);
        proxy.heal();
      }
    });

    test('nobody listens', async () => {
      const probe = createServer().listen(0, '127.0.0.1');
      await once(probe, 'listening');
      const { port } = probe.address() as { port: number };
      await new Promise((closed) => probe.close(closed));
      await assert.rejects(
        listFolder(open({ RUSTFS_ENDPOINT: `http://127.0.0.1:${port}` }), FOLDER),
        /nothing listens there: check RUSTFS_ENDPOINT/,
      );
    });
  });

  describe('reading', () => {
    test('gives the bytes, also past a few 503s', async () => {
      await env.putObject(KEY, BODY);
      const object = await listed();
      proxy.inject(/^GET .*T07/, status(503), 2);
      assert.equal(await bytesOf(object), BODY);
    });

    test('a server that only answers 503 is an error', async () => {
      await env.putObject(KEY, BODY);
      const object = await listed();
      proxy.inject(/^GET .*T07/, status(503), 99);
      await assert.rejects(bytesOf(object), /^BucketError: Reading .*T07-00-00\.csv in bucket .*HTTP 503/);
    });

    test('an object that was replaced after it was listed gives not one byte', async () => {
      await env.putObject(KEY, BODY);
      const object = await listed();
      proxy.inject(
        /^GET .*T07/,
        meanwhile(() => env.putObject(KEY, 'ticket_id\nother\n')),
      );
      const reader = readObject(bucket, object);
      await assert.rejects(reader.next(), ObjectChangedError);
    });

    test('one that vanished has changed, too', async () => {
      await env.putObject(KEY, BODY);
      const object = await listed();
      await env.deleteObject(KEY);
      await assert.rejects(bytesOf(object), ObjectChangedError);
    });

    test('a connection cut halfway is an error, not an end', async () => {
      await env.putObject(KEY, BODY);
      const object = await listed();
      proxy.inject(/^GET .*T07/, cutAfter(100_000));
      await assert.rejects(
        bytesOf(object),
        (error: Error) => error instanceof BucketError && !(error instanceof ObjectChangedError),
      );
      assert.equal(await bytesOf(object), BODY);
    });

    test('fewer bytes than listed, or others, are an error', async () => {
      await env.putObject(KEY, 'ticket_id\nWOT0000001\n');
      const object = await listed();
      proxy.inject(/^GET .*T07/, status(200, 'ticket_id\n'));
      await assert.rejects(bytesOf(object), /10 of 21 bytes arrived/);
      proxy.inject(/^GET .*T07/, status(200, 'ticket_id\nWOT0000002\n'));
      await assert.rejects(bytesOf(object), /do not have the MD5/);
    });
  });

  describe('archiving', () => {
    const written = async (key: string, body: string): Promise<BucketObject> => {
      await env.putObject(key, body);
      const [file] = (await listFolder(bucket, key)).filter((object) => object.key === key);
      assert.ok(file);
      return file;
    };
    const content = async (key: string) => (await env.getObject(key)).toString();

    test('moves the object to processed/, once', async () => {
      const file = await written(KEY, BODY);
      assert.deepEqual(await archiveObject(bucket, file), { outcome: 'archived', key: ARCHIVED });
      assert.deepEqual(await env.listKeys(), [ARCHIVED]);
      assert.equal(await content(ARCHIVED), BODY);
      assert.deepEqual(await archiveObject(bucket, file), { outcome: 'archived', key: ARCHIVED });
    });

    test('copes with a name that must be encoded', async () => {
      await archiveObject(bucket, await written(`${FOLDER}a b+ü&c%20.csv`, 'x'));
      assert.deepEqual(await env.listKeys(), [`${FOLDER}processed/a b+ü&c%20.csv`]);
    });

    test('cut off at any step, it is completed by the next that tries', async () => {
      for (const [step, fault] of [
        [/^PUT .*processed/, status(500)],
        [/^PUT .*processed/, cutAfter(0)], // the copy was made, unseen
        [/^HEAD .*processed/, status(500)],
        [/^DELETE /, status(500)],
        [/^DELETE /, cutAfter(0)], // deleted, unseen
      ] as const) {
        await env.reset();
        const file = await written(KEY, BODY);
        proxy.inject(step, fault, 99);
        await assert.rejects(archiveObject(bucket, file), BucketError);
        proxy.heal();
        assert.deepEqual(await archiveObject(bucket, file), { outcome: 'archived', key: ARCHIVED }, String(step));
        assert.deepEqual(await env.listKeys(), [ARCHIVED]);
        assert.equal(await content(ARCHIVED), BODY);
      }
    });

    test('another file of the same name in processed/ is kept', async () => {
      await env.putObject(ARCHIVED, 'ticket_id\nearlier\n');
      const file = await written(KEY, BODY);
      const suffixed = ARCHIVED.replace('.csv', `-${file.etag}.csv`);
      proxy.inject(/^DELETE /, status(500), 99);
      await assert.rejects(archiveObject(bucket, file));
      proxy.heal();
      assert.deepEqual(await archiveObject(bucket, file), { outcome: 'archived', key: suffixed });
      assert.deepEqual(await env.listKeys(), [suffixed, ARCHIVED].sort());
      assert.equal(await content(ARCHIVED), 'ticket_id\nearlier\n');
    });

    test('an object that was replaced, or is gone, is left alone', async () => {
      const file = await written(KEY, BODY);
      await env.putObject(KEY, 'ticket_id\nnewer\n');
      assert.deepEqual(await archiveObject(bucket, file), { outcome: 'replaced' });
      assert.equal(await content(KEY), 'ticket_id\nnewer\n');
      await env.deleteObject(KEY);
      assert.deepEqual(await archiveObject(bucket, file), { outcome: 'gone' });
    });

    const ifMatch = { skip: !native && 'the embedded server ignores If-Match on a deletion, as RustFS does' };
    test('one that is replaced between copy and deletion survives', ifMatch, async () => {
      const file = await written(KEY, BODY);
      proxy.inject(
        /^DELETE /,
        meanwhile(() => env.putObject(KEY, 'ticket_id\nnewer\n')),
      );
      assert.deepEqual(await archiveObject(bucket, file), { outcome: 'replaced' });
      assert.equal(await content(KEY), 'ticket_id\nnewer\n');
    });

    test('two at once move it once', async () => {
      for (let round = 0; round < 5; round += 1) {
        const file = await written(KEY, BODY);
        const outcomes = await Promise.all([1, 2, 3].map(() => archiveObject(bucket, file)));
        for (const outcome of outcomes) assert.deepEqual(outcome, { outcome: 'archived', key: ARCHIVED });
        assert.deepEqual(await env.listKeys(), [ARCHIVED]);
        await env.deleteObject(ARCHIVED);
      }
    });

    test('a multipart upload, whose ETag is no MD5, is read and moved like any other', async () => {
      const upload = { Bucket: env.s3.bucket, Key: KEY };
      const { UploadId } = await env.bucket.send(new CreateMultipartUploadCommand(upload));
      const { ETag } = await env.bucket.send(new UploadPartCommand({ ...upload, UploadId, PartNumber: 1, Body: BODY }));
      await env.bucket.send(
        new CompleteMultipartUploadCommand({
          ...upload,
          UploadId,
          MultipartUpload: { Parts: [{ PartNumber: 1, ETag }] },
        }),
      );
      const object = await listed();
      assert.match(object.etag, /-1$/);
      assert.equal(await bytesOf(object), BODY);
      assert.deepEqual(await archiveObject(bucket, object), { outcome: 'archived', key: ARCHIVED });
      assert.deepEqual(await env.listKeys(), [ARCHIVED]);
      assert.deepEqual(await archiveObject(bucket, object), { outcome: 'archived', key: ARCHIVED });
    });

    test('where lists and answers have no ETag, goes by length and time', async () => {
      const file = { ...(await written(KEY, BODY)), etag: '' };
      assert.deepEqual(await archiveObject(bucket, file), { outcome: 'archived', key: ARCHIVED });
      assert.deepEqual(await env.listKeys(), [ARCHIVED]);
      assert.deepEqual(await archiveObject(bucket, file), { outcome: 'archived', key: ARCHIVED });
      const other = { ...(await written(KEY, `${BODY}WOT0000002\n`)), etag: '' };
      await env.putObject(KEY, 'ticket_id\nnewer\n');
      assert.deepEqual(await archiveObject(bucket, other), { outcome: 'replaced' });
      assert.equal(await content(KEY), 'ticket_id\nnewer\n');
    });

    test('where the server answers 403 for a key that does not exist, a list tells that it does not', async () => {
      const file = await written(KEY, BODY);
      proxy.inject(/^HEAD .*processed/, status(403), 99);
      assert.deepEqual(await archiveObject(bucket, file), { outcome: 'archived', key: ARCHIVED });
      assert.deepEqual(await env.listKeys(), [ARCHIVED]);
      assert.equal(await content(ARCHIVED), BODY);
    });
  });
});
