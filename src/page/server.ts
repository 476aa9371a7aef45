/**
 * The page's HTTP server: for one person on one machine, with the database role of whoever starts it.
 *
 * Guarantees: only loopback is listened on; nothing is answered without the cookie that the process's own token was
 * exchanged for, nor under another name than 127.0.0.1 or localhost (a name that was rebound to this machine is 421);
 * a write is JSON from the page itself; files and routes are fixed lists; the page may load nothing from elsewhere, but
 * map tiles where they are set. Each is a test (test/page-server.test.ts).
 */
import { randomBytes, timingSafeEqual } from 'node:crypto';
import { once } from 'node:events';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import pg from 'pg';
import { withClient } from '../database/client.ts';
import type { PageSettings } from '../settings/settings.ts';
import { refusalOf, Refused } from './errors.ts';
import { type PageFile, pageFiles } from './files.ts';
import { type Answer, ROUTES } from './routes.ts';

/** A decision is some 300 bytes. */
const MAX_BODY_BYTES = 16_384;

export interface Page {
  /** With the token: whoever has it acts as the person who started the page. */
  readonly url: string;
  close(): Promise<void>;
}

/**
 * @param port 0: any that is free
 * @throws ConnectionError, SchemaError, and EADDRINUSE where the port is taken
 */
export async function startPage(databaseUrl: string, port: number, tiles: PageSettings): Promise<Page> {
  const files = await withClient(databaseUrl, (client) => pageFiles(client, tiles));
  const pool = new pg.Pool({ connectionString: databaseUrl, max: 4, application_name: 'fleettickets page' });
  pool.on('error', () => undefined); // of an idle connection: the next request opens another, or is told why not
  const token = randomBytes(24).toString('base64url');
  const server = createServer();
  server.listen(port, '127.0.0.1');
  await once(server, 'listening');
  const bound = (server.address() as AddressInfo).port;
  const guard = guardOf(bound, token);
  const headers = headersOf(tiles.MAP_TILES_URL);
  server.on('request', (request, response) => {
    response.setHeaders(headers);
    answer(request, guard, files, pool)
      .catch(refusalOf)
      .then((result) => send(response, result));
  });
  return {
    url: `http://127.0.0.1:${bound}/?token=${token}`,
    async close() {
      server.closeAllConnections();
      server.close();
      await once(server, 'close');
      await pool.end();
    },
  };
}

interface Guard {
  readonly hosts: readonly string[];
  readonly token: string;
  /** Name and value: cookies do not tell ports apart, so the name does. */
  readonly cookie: string;
}

function guardOf(port: number, token: string): Guard {
  const hosts = [`127.0.0.1:${port}`, `localhost:${port}`];
  return { hosts, token, cookie: `fleettickets_${port}=${randomBytes(24).toString('base64url')}` };
}

async function answer(
  request: IncomingMessage,
  guard: Guard,
  files: ReadonlyMap<string, PageFile>,
  pool: pg.Pool,
): Promise<Answer> {
  const host = request.headers.host ?? '';
  if (!guard.hosts.includes(host)) throw new Refused(421, 'This page is served as 127.0.0.1 and localhost only.');
  const [path = '', query] = (request.url ?? '').split('?', 2);
  const search = new URLSearchParams(query);
  const token = search.get('token');
  if (path === '/' && token !== null && isSame(token, guard.token)) {
    return {
      status: 303,
      headers: { location: '/', 'set-cookie': `${guard.cookie}; HttpOnly; SameSite=Strict; Path=/` },
    };
  }
  const cookies = (request.headers.cookie ?? '').split('; ');
  if (token !== null || !cookies.some((cookie) => isSame(cookie, guard.cookie))) {
    throw new Refused(403, 'Open the address that `fleettickets page` printed: type or paste it into the address bar.');
  }
  const site = request.headers['sec-fetch-site'] ?? 'none';
  if (!['none', 'same-origin'].includes(site)) throw new Refused(403, 'Another site asked for this.');

  const file = files.get(path);
  const route = ROUTES[`${request.method} ${path}`];
  if (file && request.method === 'GET') return { headers: { 'content-type': file.type }, body: file.content };
  if (!route) throw new Refused(file ? 405 : 404, `There is no ${request.method} ${path}.`);
  if (request.method === 'GET') return route(pool, Object.fromEntries(search));
  if (request.headers.origin !== `http://${host}`) throw new Refused(403, 'Another site asked for this.');
  if (!/^application\/json(;|$)/.test(request.headers['content-type'] ?? '')) {
    throw new Refused(415, 'Writes are application/json.');
  }
  return route(pool, await bodyOf(request));
}

function isSame(one: string, other: string): boolean {
  const [a, b] = [Buffer.from(one), Buffer.from(other)];
  return a.length === b.length && timingSafeEqual(a, b);
}

async function bodyOf(request: IncomingMessage): Promise<unknown> {
  const parts: Buffer[] = [];
  let bytes = 0;
  for await (const part of request as AsyncIterable<Buffer>) {
    bytes += part.length;
    if (bytes > MAX_BODY_BYTES) throw new Refused(413, `At most ${MAX_BODY_BYTES} bytes.`);
    parts.push(part);
  }
  try {
    return JSON.parse(Buffer.concat(parts).toString('utf8'));
  } catch {
    throw new Refused(400, 'The body is no JSON.');
  }
}

/** On every answer: what the browser may do with it. Leaflet sets styles through the DOM, which needs no 'unsafe-inline'. */
function headersOf(tilesUrl: string | undefined): Map<string, string> {
  const images = tilesUrl ? `'self' ${new URL(tilesUrl).origin}` : "'self'";
  const policy = `default-src 'none'; script-src 'self'; style-src 'self'; img-src ${images}; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'`;
  return new Map([
    ['content-security-policy', policy],
    ['cache-control', 'no-store'],
    ['cross-origin-opener-policy', 'same-origin'],
    ['cross-origin-resource-policy', 'same-origin'],
    ['referrer-policy', tilesUrl ? 'strict-origin' : 'no-referrer'], // tile servers want to know who asks
    ['x-content-type-options', 'nosniff'],
  ]);
}

function send(response: ServerResponse, { status = 200, headers, body }: Answer): void {
  const isText = typeof body === 'string' || Buffer.isBuffer(body);
  response.writeHead(status, { 'content-type': 'application/json', ...headers });
  response.end(isText || body === undefined ? body : JSON.stringify(body));
}
