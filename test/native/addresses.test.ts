/**
 * A host with several addresses, as a dual-stack one has: what it takes until one of them answers the handshake. The addresses
 * are loopback's own (127.0.0.0/8, on Linux); their slowness is the kernel's, which takes no more connections than the queue
 * of a listener holds.
 */
import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import dns from 'node:dns';
import { once } from 'node:events';
import { readFile } from 'node:fs/promises';
import { connect, createServer, type Socket } from 'node:net';
import { after, afterEach, before, describe, mock, test } from 'node:test';
import { listFolder, openBucket } from '../../src/bucket/s3.ts';
import { withClient } from '../../src/database/client.ts';
import { call } from '../../src/geocoding/call.ts';
import { CONTROL } from '../../src/geocoding/provider.ts';
import { locationiq } from '../../src/geocoding/providers/locationiq.ts';
import { BucketSettings, readSettings } from '../../src/settings/settings.ts';
import { type Environment, native, startEnvironment, waitFor } from '../support/environment.ts';
import { locationiqPlace, type ScriptedProvider, startScriptedProvider } from '../support/scripted-provider.ts';

const HOST = 'several-addresses.test';
/** Passes on what it gets to the port on 127.0.0.1 that it is told. */
const FORWARDER = `
  const { connect, createServer } = require('node:net');
  const [address, port, target] = process.argv.slice(1);
  createServer((socket) => {
    const onward = connect(target, '127.0.0.1');
    socket.pipe(onward).pipe(socket);
    for (const end of [socket, onward]) end.on('error', () => {});
  }).listen({ host: address, port, backlog: 1 }, () => console.log('listens'));`;

const closing: (() => unknown)[] = [];

/** The host has these addresses from now on. */
function addresses(...given: string[]): void {
  const lookup = mock.method(dns, 'lookup', ((_name: string, options: dns.LookupAllOptions, done: CallableFunction) => {
    const found = given.map((address) => ({ address, family: 4 }));
    if (options.all) done(null, found);
    else done(null, given[0], 4);
  }) as unknown as typeof dns.lookup);
  closing.push(() => lookup.mock.restore());
}

/** A listener that is suspended, with its queue full: it answers no handshake. */
async function suspended(address: string, port: number, target: number): Promise<ChildProcess> {
  const forwarder = spawn(process.execPath, ['-e', FORWARDER, address, String(port), String(target)], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  closing.push(() => forwarder.kill('SIGKILL'));
  await once(forwarder.stdout, 'data');
  forwarder.kill('SIGSTOP');
  await waitFor('the listener to be suspended', async () =>
    / T /.test(await readFile(`/proc/${forwarder.pid}/stat`, 'utf8')),
  );
  const queue: Socket[] = [];
  closing.push(() => {
    for (const socket of queue) socket.destroy();
  });
  // The kernel answers until the queue holds one more than the backlog.
  for (let length = 1; length <= 2; length += 1) {
    const socket = connect(port, address);
    socket.on('error', () => undefined);
    queue.push(socket);
    await waitFor('the connection to be queued', async () => (await queueOf(address, port)) === length);
  }
  return forwarder;
}

/** The kernel's sockets (proc(5), /proc/net/tcp): addresses and ports in hexadecimal, the former with their last byte first. */
async function sockets(): Promise<{ local: string; remote: string; state: string; received: number }[]> {
  const [, ...lines] = (await readFile('/proc/net/tcp', 'utf8')).trim().split('\n');
  return lines.map((line) => {
    const [, local = '', remote = '', state = '', queues = ''] = line.trim().split(/\s+/);
    return { local, remote, state, received: Number.parseInt(queues.split(':')[1] ?? '', 16) };
  });
}

const inKernel = (address: string, port: number) =>
  `${Buffer.from(address.split('.').map(Number).reverse()).toString('hex')}:${port.toString(16).padStart(4, '0')}`.toUpperCase();

const LISTEN = '0A';
const SYN_SENT = '02';

/** Connections that wait to be accepted. */
const queueOf = async (address: string, port: number) =>
  (await sockets()).find(({ local, state }) => state === LISTEN && local === inKernel(address, port))?.received;

/** Whether somebody waits for an answer to his handshake. */
const isAsked = async (address: string, port: number) =>
  (await sockets()).some(({ remote, state }) => state === SYN_SENT && remote === inKernel(address, port));

/** A port of 127.0.0.1 that passes on to another. */
async function forwarded(target: number): Promise<number> {
  const server = createServer((socket) => {
    const onward = connect(target, '127.0.0.1');
    socket.pipe(onward).pipe(socket);
    for (const end of [socket, onward]) {
      end.on('error', () => undefined);
      closing.push(() => end.destroy());
    }
  }).listen(0, '127.0.0.1');
  await once(server, 'listening');
  closing.push(() => server.close());
  return (server.address() as { port: number }).port;
}

describe('a host with several addresses', { skip: !native && 'needs a native Postgres' }, () => {
  let env: Environment;
  let provider: ScriptedProvider;
  before(async () => {
    env = await startEnvironment();
    provider = await startScriptedProvider();
    provider.script(() => ({ json: [locationiqPlace('Kilimani', -1.29, 36.78)] }));
  });
  after(() => Promise.all([env.close(), provider.close()]));
  afterEach(() => {
    for (const close of closing.splice(0).reverse()) close();
  });

  const portOf = (url: string) => Number(new URL(url).port);
  const at = (url: string, port: number) => {
    const moved = new URL(url);
    moved.hostname = HOST;
    moved.port = String(port);
    return moved.href.replace(/\/$/, '');
  };

  const reached: [what: string, url: () => string, reach: (url: string) => Promise<unknown>][] = [
    [
      'a provider',
      () => provider.baseUrl,
      async (baseUrl) => {
        const outcome = await call(
          { provider: locationiq, baseUrl, key: 'a-key' } as Parameters<typeof call>[0],
          CONTROL,
        );
        assert.equal(outcome?.kind, 'found', JSON.stringify(outcome));
      },
    ],
    [
      'the bucket',
      () => env.s3.endpoint,
      async (endpoint) => {
        const bucket = openBucket({ ...readSettings(BucketSettings), RUSTFS_ENDPOINT: endpoint });
        await listFolder(bucket, '').finally(() => bucket.client.destroy());
      },
    ],
    ['the database', () => env.databaseUrl, (url) => withClient(url, (client) => client.query('select'))],
  ];
  for (const [what, url, reach] of reached) {
    test(`${what} is reached although no packet ever comes back from its first address`, async () => {
      const port = await forwarded(portOf(url()));
      await suspended('127.0.0.2', port, portOf(url()));
      addresses('127.0.0.2', '127.0.0.1');
      await reach(at(url(), port));
    });

    test(`${what} is reached where the only address that works takes a second for the handshake`, async () => {
      const port = await forwarded(portOf(url()));
      const slow = await suspended('127.0.0.2', port, portOf(url()));
      addresses('127.0.0.2', '127.0.0.3'); // the other refuses
      // What was asked first is lost: TCP asks again after a second.
      const awake = waitFor('the handshake to begin', () => isAsked('127.0.0.2', port)).then(() =>
        slow.kill('SIGCONT'),
      );
      await Promise.all([awake, reach(at(url(), port))]);
    });
  }
});
