/**
 * An HTTP proxy in front of the S3 server that does wrong on demand. Signatures stay valid: it passes the Host header
 * on as it came. Requests without a fault go through unchanged.
 */

import { once } from 'node:events';
import { createServer, request as httpRequest, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { pipeline } from 'node:stream/promises';
import { promisify } from 'node:util';

/** The S3 server's answer to a request, not yet passed on. */
type Upstream = () => Promise<IncomingMessage>;

/** What is done to one request: it may ask the server, and answers the client or does not. */
export type Fault = (response: ServerResponse, upstream: Upstream) => Promise<void>;

export type FaultProxy = {
  /** How many connections of clients are open. */
  connections(): Promise<number>;
  /** To be used in place of the server's. */
  endpoint: string;
  /** Every request that came, as `GET /bucket/key?list-type=2`. */
  requests: string[];
  /** When each came, in milliseconds. */
  arrivals: number[];
  /**
   * Lets the next `times` requests of this kind fail. Faults are taken in the order they were injected.
   * @param request what `METHOD /path?query` must look like
   */
  inject(request: RegExp, fault: Fault, times?: number): void;
  /** Takes all faults back, lets hanging requests go and forgets the requests, but not when they came. */
  heal(): void;
  close(): Promise<void>;
};

/** An answer of the proxy's own, e.g. 503; the server never sees the request. */
export function status(code: number, body = `<Error><Code>Injected${code}</Code></Error>`): Fault {
  return async (response) => {
    response.writeHead(code, { 'content-type': 'application/xml' }).end(body);
  };
}

/** The connection breaks after so many bytes of the answer's body; with 0 before its head: the server has done its work, unseen. */
export function cutAfter(bytes: number): Fault {
  return async (response, upstream) => {
    const answer = await upstream();
    if (bytes > 0) response.writeHead(answer.statusCode ?? 502, answer.headers);
    let left = bytes;
    for await (const chunk of answer as AsyncIterable<Buffer>) {
      if (left > 0) await new Promise((written) => response.write(chunk.subarray(0, left), written));
      left -= chunk.length;
      if (left <= 0) break;
    }
    response.destroy();
  };
}

/** No answer, until the client gives up or `heal()`. */
export function hang(): Fault {
  return async (response) => {
    await once(response, 'close');
  };
}

/** The server's answer with another text. */
export function rewritten(change: (body: string) => string): Fault {
  return async (response, upstream) => {
    const answer = await upstream();
    const chunks: Buffer[] = [];
    for await (const chunk of answer as AsyncIterable<Buffer>) chunks.push(chunk);
    const body = change(Buffer.concat(chunks).toString());
    const { 'content-length': _, ...headers } = answer.headers;
    response.writeHead(answer.statusCode ?? 502, headers).end(body);
  };
}

/** Something happens between the client's asking and the server's doing: an object is replaced, say. */
export function meanwhile(happens: () => Promise<unknown>): Fault {
  return async (response, upstream) => {
    await happens();
    await passOn(response, upstream);
  };
}

/** @param target the S3 server's endpoint */
export async function startFaultProxy(target: string): Promise<FaultProxy> {
  const requests: string[] = [];
  const arrivals: number[] = [];
  let faults: { request: RegExp; fault: Fault; left: number }[] = [];
  const server = createServer((request, response) => {
    arrivals.push(Date.now());
    const line = `${request.method} ${request.url}`;
    requests.push(line);
    const found = faults.find((candidate) => candidate.left > 0 && candidate.request.test(line));
    if (found) found.left -= 1;
    const fault = found?.fault ?? passOn;
    fault(response, () => ask(target, request)).catch(() => response.destroy()); // either side hung up: so does the proxy
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  return {
    endpoint: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    connections: () => promisify(server.getConnections.bind(server))(),
    requests,
    arrivals,
    inject(request, fault, times = 1) {
      faults.push({ request, fault, left: times });
    },
    heal() {
      faults = [];
      requests.length = 0;
      server.closeAllConnections();
    },
    async close() {
      server.close();
      server.closeAllConnections();
      await once(server, 'close');
    },
  };
}

async function passOn(response: ServerResponse, upstream: Upstream): Promise<void> {
  const answer = await upstream();
  response.writeHead(answer.statusCode ?? 502, answer.headers);
  await pipeline(answer, response);
}

async function ask(target: string, request: IncomingMessage): Promise<IncomingMessage> {
  const { expect, ...headers } = request.headers; // Node has answered 100-continue already
  const { hostname, port } = new URL(target);
  const outgoing = httpRequest({ hostname, port, method: request.method, path: request.url, headers, agent: false });
  const answer = once(outgoing, 'response');
  await Promise.all([pipeline(request, outgoing), answer]);
  return (await answer)[0] as IncomingMessage;
}
