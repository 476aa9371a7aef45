/**
 * A geocoding provider that a test writes the script of: a real HTTP server on loopback, so that status, headers, slow,
 * broken and oversized bodies are what the code under test really meets.
 */
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';

/** What the server does with one request. */
export type Reply =
  | { status?: number; headers?: Record<string, string>; json: unknown }
  | { status?: number; headers?: Record<string, string>; text: string }
  /** Sends nothing, ever. */
  | { hang: true }
  /** Promises more bytes than it sends, then closes the connection. */
  | { truncated: string }
  /** Sends that many bytes of JSON. */
  | { bytes: number };

/** A request as the server saw it. */
export type Call = { query: string; path: string; parameters: URLSearchParams; arrived: number };

export type ScriptedProvider = {
  baseUrl: string;
  /** Every request so far, in order of arrival. */
  calls: Call[];
  /** How requests are answered from now on; the number counts the requests since. */
  script(answer: (call: Call, number: number) => Reply | Promise<Reply>): void;
  /** Resolves when so many requests have arrived. */
  called(times: number): Promise<void>;
  /** The most requests that were open at one time. */
  mostOpen(): number;
  close(): Promise<void>;
};

export async function startScriptedProvider(): Promise<ScriptedProvider> {
  const calls: Call[] = [];
  const waiting: { times: number; resolve: () => void }[] = [];
  let answer: (call: Call, number: number) => Reply | Promise<Reply> = () => ({ status: 500, text: 'no script' });
  let number = 0;
  let open = 0;
  let most = 0;

  const server = createServer(async (request, response) => {
    const call = callOf(request);
    calls.push(call);
    most = Math.max(most, ++open);
    response.on('close', () => open--);
    for (const { times, resolve } of waiting) if (calls.length >= times) resolve();
    send(response, await answer(call, ++number));
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address() as AddressInfo;

  return {
    baseUrl: `http://127.0.0.1:${port}/v1`,
    calls,
    script(next) {
      answer = next;
      number = 0;
    },
    called: (times) =>
      calls.length >= times ? Promise.resolve() : new Promise((resolve) => waiting.push({ times, resolve })),
    mostOpen: () => most,
    async close() {
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}

function callOf(request: IncomingMessage): Call {
  const url = new URL(request.url ?? '/', 'http://loopback');
  return {
    query: url.searchParams.get('q') ?? '',
    path: url.pathname,
    parameters: url.searchParams,
    arrived: performance.timeOrigin + performance.now(),
  };
}

function send(response: ServerResponse, reply: Reply): void {
  if ('hang' in reply) return;
  if ('truncated' in reply) {
    response.writeHead(200, { 'content-type': 'application/json', 'content-length': reply.truncated.length + 100 });
    response.write(reply.truncated, () => response.destroy());
  } else if ('bytes' in reply) {
    response.writeHead(200, { 'content-type': 'application/json' });
    response.end(`"${'x'.repeat(reply.bytes - 2)}"`);
  } else if ('text' in reply) {
    response.writeHead(reply.status ?? 200, { 'content-type': 'text/html', ...reply.headers });
    response.end(reply.text);
  } else {
    response.writeHead(reply.status ?? 200, { 'content-type': 'application/json', ...reply.headers });
    response.end(JSON.stringify(reply.json));
  }
}

/** A place as LocationIQ returns it. */
export function locationiqPlace(
  name: string,
  lat: number | string,
  lon: number | string,
  { level = 'neighbourhood', type = 'suburb', kind = 'place', country = 'ke', area = 'Nairobi' } = {},
) {
  return {
    place_id: '1',
    licence: 'https://locationiq.com/attribution',
    lat: String(lat),
    lon: String(lon),
    display_name: `${name}, ${area}, Kenya`,
    class: kind,
    type,
    importance: 0.4,
    address: { country_code: country },
    matchquality: { matchcode: 'exact', matchtype: 'point', matchlevel: level },
  };
}

/** LocationIQ's way of saying that it does not know the place. */
export const UNABLE_TO_GEOCODE: Reply = { status: 404, json: { error: 'Unable to geocode' } };
