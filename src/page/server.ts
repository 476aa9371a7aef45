/**
 * The page's HTTP server: for one person on one machine, with the database role of the person who starts it.
 *
 * Guarantees: only loopback is listened on; nothing is answered without the cookie that the process's own token was
 * exchanged for, nor under another name than 127.0.0.1 or localhost (a name rebound to this machine is 421); a write is
 * JSON from the page itself; files and routes are fixed lists; the page may load nothing from elsewhere, but map tiles
 * where they are set. Each of these is a test (test/page/page-server.test.ts).
 */
import { randomBytes, timingSafeEqual } from 'node:crypto';
import { createServer, type IncomingMessage } from 'node:http';
import { json } from 'node:stream/consumers';
import type pg from 'pg';
import { withClient } from '../database/client.ts';
import { openPinnedPool } from '../database/pool.ts';
import { listen } from '../http/listen.ts';
import type { PageSettings } from '../settings/settings.ts';
import { type PageFile, pageFiles } from './files.ts';
import { Refused, refusalOf } from './refused.ts';
import { answerOf, ROUTES } from './routes.ts';

/** A decision is some 300 bytes. */
const MAX_BODY_BYTES = 16_384;

export interface Page {
  /** With the token: anybody who has it acts as the person who started the page. */
  readonly url: string;
  close(): Promise<void>;
}

/**
 * @param port 0: any that is free
 * @throws ConnectionError, ExpectedError where the role may not read, or the port is taken
 */
export async function startPage(databaseUrl: string, port: number, tiles: PageSettings): Promise<Page> {
  const files = await withClient(databaseUrl, (client) => pageFiles(client, tiles));
  const pool = openPinnedPool(databaseUrl, { max: 4, application_name: 'fleettickets page' });
  const server = createServer();
  const { port: bound, close } = await listen(server, '127.0.0.1', port, pool);
  const secret = () => randomBytes(24).toString('base64url');
  // Cookies do not tell ports apart, so the cookie's name does.
  const door = { port: bound, token: secret(), cookie: `fleettickets_${bound}=${secret()}` };
  const headers = headersOf(tiles.MAP_TILES_URL);
  server.on('request', async (request, response) => {
    const answer = await serve(request, door, files, pool).catch((error): Answer => {
      const { status, message, grant } = refusalOf(error);
      return { status, body: JSON.stringify({ error: message, grant }) };
    });
    const { status = 200, type = 'application/json', body, ...more } = answer;
    response.writeHead(status, { ...headers, 'content-type': type, ...more.headers }).end(body);
  });
  return { url: `http://127.0.0.1:${bound}/?token=${door.token}`, close };
}

type Door = { readonly port: number; readonly token: string; readonly cookie: string };
type Answer = { status?: number; type?: string; body: string | Buffer; headers?: Record<string, string> };
type Files = ReadonlyMap<string, PageFile>;

async function serve(request: IncomingMessage, door: Door, files: Files, pool: pg.Pool): Promise<Answer> {
  const { host = '', cookie = '', origin, 'sec-fetch-site': site = 'none', ...headers } = request.headers;
  if (![`127.0.0.1:${door.port}`, `localhost:${door.port}`].includes(host))
    throw new Refused(421, 'This page is served as 127.0.0.1 and localhost only.');
  const [path = '', query] = (request.url ?? '').split('?', 2);
  const asked = new URLSearchParams(query);
  if (path === '/' && isSame(asked.get('token') ?? '', door.token)) {
    const set = { location: '/', 'set-cookie': `${door.cookie}; HttpOnly; SameSite=Strict; Path=/` };
    return { status: 303, body: '', headers: set };
  }
  if (asked.has('token') || !cookie.split('; ').some((one) => isSame(one, door.cookie)))
    throw new Refused(403, 'Open the address that `fleettickets page` printed: paste it into the address bar.');
  const isWrite = request.method !== 'GET';
  if (!['none', 'same-origin'].includes(`${site}`) || (isWrite && origin !== `http://${host}`))
    throw new Refused(403, 'Another site asked for this.');

  const file = isWrite ? undefined : files.get(path);
  if (file) return file;
  const route = ROUTES[`${request.method} ${path}`];
  if (!route) throw new Refused(404, `There is no ${request.method} ${path}.`);
  if (!isWrite) return { body: await answerOf(pool, route, Object.fromEntries(asked)) };
  if (headers['content-type']?.split(';')[0] !== 'application/json')
    throw new Refused(415, 'Writes are application/json.');
  if (!(Number(headers['content-length']) <= MAX_BODY_BYTES)) throw new Refused(413, 'That is too much.');
  const input = await json(request).catch(() => Promise.reject(new Refused(400, 'This is no JSON.')));
  return { body: await answerOf(pool, route, input) };
}

function isSame(one: string, other: string): boolean {
  const [a, b] = [Buffer.from(one), Buffer.from(other)];
  return a.length === b.length && timingSafeEqual(a, b);
}

/** What the browser may do with an answer. Leaflet sets styles through the DOM, which needs no 'unsafe-inline'. */
function headersOf(tilesUrl: string | undefined): Record<string, string> {
  const images = tilesUrl ? `'self' ${new URL(tilesUrl).origin}` : "'self'";
  return {
    'content-security-policy': `default-src 'none'; script-src 'self'; style-src 'self'; img-src ${images}; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'`,
    'cache-control': 'no-store',
    'cross-origin-opener-policy': 'same-origin',
    'cross-origin-resource-policy': 'same-origin',
    'referrer-policy': tilesUrl ? 'strict-origin' : 'no-referrer', // tile servers want to know who asks
    'x-content-type-options': 'nosniff',
  };
}
