/** What stands between us and the servers: certificates that nobody signed, hosts of two addresses, limits of connections. */
import assert from 'node:assert/strict';
import dns from 'node:dns';
import { once } from 'node:events';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { createServer as createHttpServer } from 'node:http';
import { createServer as createHttpsServer } from 'node:https';
import { type AddressInfo, connect as connectSocket, createServer, type Server } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, type TestContext, test } from 'node:test';
import { listFolder, openBucket } from '../../src/bucket/s3.ts';
import { withClient } from '../../src/database/client.ts';
import { BucketSettings, DatabaseSettings, readSettings } from '../../src/settings/settings.ts';
import { fleettickets } from '../support/command.ts';
import { asPerson, native } from '../support/environment.ts';
import { startNativePostgres } from '../support/native.ts';

const EMPTY =
  '<?xml version="1.0"?><ListBucketResult><Name>tickets</Name><IsTruncated>false</IsTruncated></ListBucketResult>';

describe('a connection', { skip: !native && 'needs a native Postgres' }, () => {
  let postgres: Awaited<ReturnType<typeof startNativePostgres>>;
  let folder: string;
  let certificate: string;
  let tls: { cert: string; key: string };
  const servers: Server[] = [];

  before(async () => {
    folder = await mkdtemp(join(tmpdir(), 'fleettickets-tls-'));
    postgres = await startNativePostgres();
    await asPerson(postgres.url, async (client) => {
      await client.query(
        `copy (select) to program 'openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost
        -addext subjectAltName=DNS:localhost,IP:127.0.0.1 -out server.crt -keyout server.key 2> /dev/null'`.replaceAll(
          '\n',
          ' ',
        ),
      );
      const { rows } = await client.query(
        `select pg_read_file('server.crt') as cert, pg_read_file('server.key') as key`,
      );
      tls = rows[0];
    });
    certificate = join(folder, 'ca.crt');
    await writeFile(certificate, tls.cert);
  });
  after(async () => {
    for (const server of servers) server.close();
    await postgres.close();
    await rm(folder, { recursive: true });
  });

  const listening = async (server: Server, host: string) => {
    servers.push(server.listen(0, host));
    await once(server, 'listening');
    return (server.address() as AddressInfo).port;
  };
  /** Whether the session is encrypted, over the address with these parameters. */
  const encrypted = (parameters: string, url = postgres.url) =>
    withClient(readSettings(DatabaseSettings, { DATABASE_URL: url + parameters }).DATABASE_URL, async (client) => {
      const { rows } = await client.query('select ssl from pg_stat_ssl where pid = pg_backend_pid()');
      return rows[0].ssl as boolean;
    });
  const bucketAt = (endpoint: string) =>
    openBucket(
      readSettings(BucketSettings, { RUSTFS_ENDPOINT: endpoint, RUSTFS_ACCESS_KEY: 'a', RUSTFS_SECRET_KEY: 'b' }),
    );

  /** What the resolver tells of every name, as of localhost on most machines. */
  const hasBothAddresses = (t: TestContext) =>
    t.mock.method(dns, 'lookup', (_host: string, _options: object, callback: (...found: unknown[]) => void) =>
      callback(null, [
        { address: '::1', family: 6 },
        { address: '127.0.0.1', family: 4 },
      ]),
    );

  test('to a Postgres without TLS says so where TLS is asked for', async () => {
    await assert.rejects(
      encrypted('?sslmode=require'),
      /Cannot connect to Postgres at .*does not support SSL connections: leave sslmode out, or set sslmode=disable/,
    );
  });

  test('to a Postgres whose certificate nobody signed is encrypted by require, and checked where its CA is named', async () => {
    await asPerson(postgres.url, async (client) => {
      await client.query('alter system set ssl = on');
      await client.query('select pg_reload_conf()');
    });
    assert.deepEqual(
      [await encrypted('?sslmode=require'), await encrypted('?sslmode=no-verify'), await encrypted('?sslmode=disable')],
      [true, true, false],
    );
    const untrusted =
      /: self-signed certificate.*: no CA that this machine trusts has signed it\. Name the file .*sslrootcert=.* or encrypt without checking it \(sslmode=require/;
    await assert.rejects(encrypted('?sslmode=verify-full'), untrusted);
    for (const mode of ['require', 'verify-ca', 'verify-full'])
      assert.equal(await encrypted(`?sslmode=${mode}&sslrootcert=${certificate}`), true, mode);
    await assert.rejects(
      encrypted(`?sslmode=verify-full&sslrootcert=${certificate}`, postgres.url.replace('127.0.0.1', '127.0.0.2')),
      /ECONNREFUSED|altnames.*: name the host as its certificate does/,
    );
    await assert.rejects(
      encrypted(`?sslmode=verify-full&sslrootcert=${folder}/none.crt`),
      /a file that cannot be read/,
    );
  });

  test('to a Postgres that takes encrypted ones only says what to add', async () => {
    await asPerson(postgres.url, async (client) => {
      const { rows } = await client.query(`select current_setting('hba_file') as file`);
      await client.query(`copy (select 'hostssl all all 127.0.0.1/32 trust') to '${rows[0].file}'`);
      await client.query('select pg_reload_conf()');
    });
    await assert.rejects(encrypted(''), /no encryption: it may want TLS: add \?sslmode=require/);
    assert.equal(await encrypted('?sslmode=require'), true);
  });

  test('that is one too many says what limits them', async () => {
    const url = `${postgres.url}?sslmode=require`;
    await withClient(readSettings(DatabaseSettings, { DATABASE_URL: url }).DATABASE_URL, (client) =>
      client.query('create role few login connection limit 0'),
    );
    await assert.rejects(
      encrypted('?sslmode=require', postgres.url.replace('postgres@', 'few@')),
      /too many connections for role "few": Raise the limit of the role, the database or the server/,
    );
  });

  test('that is refused says what to check', async () => {
    const as = (user: string) => postgres.url.replace('postgres@', `${user}@`);
    await asPerson(`${postgres.url}?sslmode=no-verify`, (client) => client.query('create role gone nologin'));
    for (const [url, told] of [
      [as('gone'), /role "gone" is not permitted to log in: Check the user in DATABASE_URL/],
      [as('nobody'), /role "nobody" does not exist: Check the user in DATABASE_URL/],
      [
        postgres.url.replace(/postgres$/, 'nowhere'),
        /database "nowhere" does not exist: Check the name of the database/,
      ],
    ] as const)
      await assert.rejects(encrypted('?sslmode=require', url), told);
  });

  test('to an S3 server whose certificate nobody signed says what to set, and works once it is set', async () => {
    const port = await listening(
      createHttpsServer(tls, (_, response) => response.end(EMPTY)),
      '127.0.0.1',
    );
    const endpoint = `https://localhost:${port}`;
    await assert.rejects(
      listFolder(bucketAt(endpoint), 'automations/inc/'),
      /signed by nobody whom this machine trusts: name the file .* in NODE_EXTRA_CA_CERTS/,
    );
    const settings = {
      DATABASE_URL: postgres.url,
      RUSTFS_ENDPOINT: endpoint,
      RUSTFS_ACCESS_KEY: 'a',
      RUSTFS_SECRET_KEY: 'b',
      NODE_EXTRA_CA_CERTS: certificate,
    };
    const { out } = await fleettickets(settings, 'doctor', '--json');
    const findings: { check: string; state: string }[] = JSON.parse(out);
    assert.equal(findings.find(({ check }) => check === 'bucket')?.state, 'ok', JSON.stringify(findings));
  });

  test('to an S3 server that does not speak TLS says so', async () => {
    const port = await listening(
      createHttpServer((_, response) => response.end(EMPTY)),
      '127.0.0.1',
    );
    await assert.rejects(
      listFolder(bucketAt(`https://127.0.0.1:${port}`), 'automations/inc/'),
      /it does not speak TLS there: check whether RUSTFS_ENDPOINT must begin with http:\/\//,
    );
  });

  for (const [address, other] of [
    ['127.0.0.1', '::1'],
    ['::1', '127.0.0.1'],
  ] as const) {
    test(`to a host of two addresses reaches a server that listens on ${address} only, not on ${other}`, async (t) => {
      hasBothAddresses(t);
      const s3 = await listening(
        createHttpServer((_, response) => response.end(EMPTY)),
        address,
      );
      assert.deepEqual(await listFolder(bucketAt(`http://both.example:${s3}`), 'automations/inc/'), []);
      const target = new URL(postgres.url);
      const port = Number(target.port);
      const forward = createServer((socket) => {
        const upstream = connectSocket(port, '127.0.0.1');
        socket.pipe(upstream).pipe(socket);
        for (const end of [socket, upstream]) end.on('error', () => undefined);
      });
      target.port = String(await listening(forward, address));
      target.hostname = 'both.example';
      assert.equal(await encrypted('?sslmode=require', target.href), true);
    });
  }

  test('to a host of two addresses that nobody takes is told with both', async (t) => {
    hasBothAddresses(t);
    const probe = createServer();
    const port = await listening(probe, '127.0.0.1');
    await new Promise((closed) => probe.close(closed));
    await assert.rejects(
      encrypted('', `postgres://someone@both.example:${port}/nowhere`),
      /Cannot connect to Postgres at someone@both\.example:\d+\/nowhere: .*ECONNREFUSED ::1.*; .*ECONNREFUSED 127\.0\.0\.1/,
    );
    await assert.rejects(listFolder(bucketAt(`http://both.example:${port}`), 'x/'), /nothing listens there/);
  });
});
