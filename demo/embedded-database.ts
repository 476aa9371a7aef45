/**
 * The thread of the embedded database: PGlite with PostGIS behind the Postgres wire protocol.
 * Says its port once it serves, and answers `dump` with a copy of itself; ends when it is terminated.
 */
import { parentPort, workerData } from 'node:worker_threads';
import { PGlite } from '@electric-sql/pglite';
import { postgis } from '@electric-sql/pglite-postgis';
import { PGLiteSocketServer } from '@electric-sql/pglite-socket';

/** Enough for a worker's pool, the command line and a few psql. */
const MAX_CONNECTIONS = 40;

const { image } = workerData as { image?: Uint8Array<ArrayBuffer> };
const db = await PGlite.create({
  extensions: { postgis },
  ...(image && { loadDataDir: new Blob([image], { type: 'application/gzip' }) }),
});
const server = new PGLiteSocketServer({ db, host: '127.0.0.1', port: 0, maxConnections: MAX_CONNECTIONS });
tellClientsApart(server);
await server.start();
parentPort?.on('message', async () => {
  await db.exec('checkpoint');
  const dump = await db.dumpDataDir('gzip');
  parentPort?.postMessage(new Uint8Array(await dump.arrayBuffer()));
});
parentPort?.postMessage(Number(server.getServerConn().split(':').at(-1)));

/**
 * All clients share one session, and the socket server takes turns between them message by message: the Parse of one
 * client is followed by the Bind of another, and both fail (measured: a quarter of the queries of 20 clients;
 * https://github.com/electric-sql/pglite/issues/1046, without which its private queue need not be touched); and a
 * notification reaches only the client that asks next. Here a client's messages wait for its Sync (or Flush) and then run as
 * one, and notifications go to the clients that listen.
 */
function tellClientsApart(server: PGLiteSocketServer): void {
  const queue = server['queryQueue'];
  const enqueue = queue.enqueue.bind(queue);
  const waiting = new Map<number, Uint8Array[]>();
  const listening = new Map<number, Send>();
  queue.enqueue = async (client: number, message: Uint8Array, send: Send) => {
    const group = [...(waiting.get(client) ?? []), message];
    if (hasType(message, 'PBDEC')) {
      waiting.set(client, group);
      return 0;
    }
    waiting.delete(client);
    if (hasType(message, 'Q') && /^\s*listen\s/i.test(textOf(message))) listening.set(client, send);
    const answer: Uint8Array[] = [];
    const length = await enqueue(client, Buffer.concat(group), (data: Uint8Array) => answer.push(data.slice()));
    const messages = splitMessages(Buffer.concat(answer));
    send(Buffer.concat(messages.filter((part) => !hasType(part, 'A'))));
    for (const notification of messages.filter((part) => hasType(part, 'A'))) {
      for (const notify of listening.values()) notify(notification);
    }
    return length;
  };
}

type Send = (data: Uint8Array) => void;

/** Whether a message of the wire protocol is of one of these types: Parse, Bind, Describe, Execute, Close, Query; A is a notification. */
function hasType(message: Uint8Array, types: string): boolean {
  return message.length > 0 && types.includes(String.fromCharCode(message[0] ?? 0));
}

function textOf(message: Uint8Array): string {
  return Buffer.from(message).toString('utf8', 5, message.length - 1);
}

/** One byte of type, four of length (which count themselves), then the body. */
function splitMessages(stream: Buffer): Buffer[] {
  const messages: Buffer[] = [];
  for (let start = 0; start < stream.length; ) {
    const end = start + 1 + stream.readInt32BE(start + 1);
    messages.push(stream.subarray(start, end));
    start = end;
  }
  return messages;
}
