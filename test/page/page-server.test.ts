/** The page's server: what it answers to whom. Each line of the security table is a test. */
import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { type IncomingHttpHeaders, request } from 'node:http';
import { type AddressInfo, connect, createServer, type Socket } from 'node:net';
import { networkInterfaces } from 'node:os';
import { text } from 'node:stream/consumers';
import { after, before, describe, test } from 'node:test';
import { type Page, startPage } from '../../src/page/server.ts';
import { PageSettings, readSettings, SettingsError } from '../../src/settings/settings.ts';
import { CLI } from '../support/command.ts';
import { type Environment, startEnvironment, waitFor } from '../support/environment.ts';
import { makePlaces } from '../support/places.ts';

let env: Environment;
let page: Page;
let port: number;
let cookie: string;
before(async () => {
  env = await startEnvironment();
  await makePlaces(env.pool, {
    clusters: { Kilimani: [-1.29, 36.78] },
    places: [
      {
        cluster: 'Kilimani',
        name: 'NW_Rose Court',
        candidates: [{ label: 'Rose Court, Thika', lat: -1.03, lng: 37.07 }],
      },
    ],
  });
  page = await startPage(env.databaseUrl, 0, { MAP_TILES_ATTRIBUTION: '' });
  port = Number(new URL(page.url).port);
  const { headers } = await get(new URL(page.url).pathname + new URL(page.url).search, { cookie: '' });
  cookie = headers['set-cookie']?.[0]?.split(';')[0] ?? '';
});
after(async () => {
  await page?.close();
  await env?.close();
});

type Answer = { status: number; headers: IncomingHttpHeaders; body: string };

/** A request as any program could send it, with the cookie unless `headers` has another. */
async function send(
  method: string,
  path: string,
  headers: Record<string, string> = {},
  body?: string,
): Promise<Answer> {
  const asked = request({
    host: '127.0.0.1',
    port,
    method,
    path,
    headers: { host: `127.0.0.1:${port}`, cookie, ...lengthOf(headers, body), ...headers },
  });
  asked.end(body);
  const [response] = await once(asked, 'response');
  return { status: response.statusCode, headers: response.headers, body: await text(response) };
}
/** Node would send a body in chunks with some methods. */
const lengthOf = (headers: Record<string, string>, body = '') =>
  headers['transfer-encoding'] ? {} : { 'content-length': String(Buffer.byteLength(body)) };

const get = (path: string, headers?: Record<string, string>) => send('GET', path, headers);
const OWN = () => ({ origin: `http://127.0.0.1:${port}`, 'content-type': 'application/json' });
const post = (path: string, body: unknown, headers: Record<string, string> = {}) =>
  send('POST', path, { ...OWN(), ...headers }, typeof body === 'string' ? body : JSON.stringify(body));

const FORBIDDEN = /Open the address that `fleettickets page` printed/;

describe('who is let in', () => {
  test('nobody without the cookie: 403, for the page, its files and its data', async () => {
    for (const path of ['/', '/page.js', '/context.json', '/api/queue', '/nothing']) {
      const { status, body } = await get(path, { cookie: '' });
      assert.deepEqual([path, status], [path, 403]);
      assert.match(body, FORBIDDEN);
    }
    assert.equal((await post('/api/undo', { decision_id: 1 }, { cookie: '' })).status, 403);
    assert.equal((await get('/', { cookie: `${cookie}x` })).status, 403);
  });

  test('nobody with a wrong token: 403, also with the cookie', async () => {
    for (const token of ['', 'wrong', 'x'.repeat(32)]) assert.equal((await get(`/?token=${token}`)).status, 403);
  });

  test('the token is exchanged for a cookie that scripts cannot read and other sites cannot send, and leaves the address', async () => {
    const { pathname, search } = new URL(page.url);
    const { status, headers } = await get(pathname + search, { cookie: '' });
    assert.deepEqual([status, headers.location], [303, '/']);
    assert.match(
      headers['set-cookie']?.[0] ?? '',
      new RegExp(`^fleettickets_${port}=[\\w-]{32}; HttpOnly; SameSite=Strict; Path=/$`),
    );
    assert.ok(!headers['set-cookie']?.[0]?.includes(new URL(page.url).searchParams.get('token') ?? ''));
  });

  test('no name but 127.0.0.1 and localhost with the port: 421, a name that was rebound to this machine among them', async () => {
    for (const host of [
      'evil.example',
      `evil.example:${port}`,
      '127.0.0.1',
      'localhost',
      `127.0.0.1:${port + 1}`,
      `127.0.0.1.evil.example:${port}`,
    ]) {
      assert.deepEqual([host, (await get('/', { host })).status], [host, 421]);
    }
    assert.equal((await get('/', { host: `localhost:${port}` })).status, 200);
  });

  test('no other machine: it listens on loopback only', async () => {
    const addresses = Object.values(networkInterfaces()).flatMap((list) => list ?? []);
    const outside = addresses.filter(({ internal, family }) => !internal && family === 'IPv4');
    for (const { address } of outside) {
      const socket = connect(port, address);
      await assert.rejects(once(socket, 'connect'), { code: 'ECONNREFUSED' });
    }
  });
});

describe('what may be written', () => {
  test('nothing from another site: 403', async () => {
    const other: Record<string, string>[] = [
      { origin: 'http://evil.example' },
      { origin: `http://127.0.0.1:${port + 1}` },
      { origin: 'null' },
      { 'sec-fetch-site': 'cross-site' },
      { 'sec-fetch-site': 'same-site' },
    ];
    for (const headers of other) assert.equal((await post('/api/undo', { decision_id: 1 }, headers)).status, 403);
    assert.equal(
      (await send('POST', '/api/undo', { 'content-type': 'application/json' }, '{}')).status,
      403,
      'without an origin',
    );
    assert.equal((await get('/api/queue', { 'sec-fetch-site': 'cross-site' })).status, 403);
  });

  test('no form: 415', async () => {
    for (const type of [
      'application/x-www-form-urlencoded',
      'multipart/form-data; boundary=x',
      'text/plain',
      'application/jsonx',
      '',
    ]) {
      assert.equal((await post('/api/undo', 'decision_id=1', { 'content-type': type })).status, 415);
    }
  });

  test('nothing that is no JSON, has other fields than it must, or is very long', async () => {
    assert.equal((await post('/api/undo', '{')).status, 400);
    const { status, body } = await post('/api/undo', { decision_id: 'one' });
    assert.equal(status, 400);
    assert.match(JSON.parse(body).error, /decision_id/);
    for (const decision_id of [true, [1], null, 1.5, ' ', '1; drop table'])
      assert.deepEqual([decision_id, (await post('/api/undo', { decision_id })).status], [decision_id, 400]);
    assert.equal((await get('/api/tickets?lng=&lat=')).status, 400);
    assert.equal((await post('/api/undo', ' '.repeat(20_000))).status, 413);
    assert.equal(
      (await post('/api/undo', '{"decision_id":1}', { 'transfer-encoding': 'chunked' })).status,
      413,
      'without its length',
    );
  });

  test('a cluster and a team are listed once, and found however the feed spells them', async () => {
    const spellings = [
      ['Kilimani', 'Team A'],
      [' KILIMANI', 'team a '],
      ['kili mani', ' TEAM A'],
      ['Kilimani', 'Team A'],
      ['Ngong', 'Team B'],
    ];
    await env.pool.query(
      `insert into tickets.inc (ticket_id, raw, geom, geo_source)
       select 'SPELLED' || nth, jsonb_build_object(
         'is_actionable', 'true', 'cluster', s ->> 0, 'assigned_team', s ->> 1, 'latitude', '-1.29', 'longitude', '36.78'), null, 'none'
       from jsonb_array_elements($1) with ordinality as t (s, nth)`,
      [JSON.stringify(spellings)],
    );
    const answer = async (path: string) => JSON.parse((await get(path)).body);
    const { clusters, teams, places } = await answer('/api/places?cluster=KILIMANI&team=Team%20A');
    assert.deepEqual(
      [clusters, teams],
      [
        ['Kilimani', 'Ngong'],
        ['Kilimani A', 'Team A', 'Team B'],
      ],
    );
    assert.deepEqual(
      places.map(({ properties }: { properties: { open: number } }) => properties.open),
      [4],
    );
    const listed = await answer('/api/tickets?lng=36.78&lat=-1.29&cluster=KILIMANI&team=Team%20A');
    assert.equal(listed.length, 4);
    const { rows } = await env.pool.query(
      `select cluster from jsonb_object_keys(reporting.fn_tickets_for_map() #> '{summary,by_cluster}') as c (cluster) order by cluster`,
    );
    assert.deepEqual(
      clusters,
      rows.map(({ cluster }) => cluster),
      'as the map spells them',
    );
    await env.pool.query(`delete from tickets.inc where ticket_id like 'SPELLED%'`);
  });

  test('nothing that the statements do not offer: unknown decisions, kinds and actions', async () => {
    const place = { kind: 'location', cluster: 'Kilimani', location_key: 'rose court', updated_at: 'now' };
    assert.equal((await post('/api/decide', { ...place, decision: 'drop' })).status, 400);
    assert.equal((await post('/api/decide', { ...place, decision: 'guard', guard_km: 30 })).status, 400);
    assert.equal((await post('/api/decide', { ...place, decision: 'pin' })).status, 400);
    assert.equal(
      (await post('/api/decide', { ...place, kind: 'geo_clusters; drop table', decision: 'accept' })).status,
      400,
    );
    assert.equal((await post('/api/jobs', { action: 'truncate' })).status, 400);
  });
});

describe('what is served', () => {
  test('a fixed list: what leads out of it, and what is not on it, is 404', async () => {
    for (const path of [
      '/../package.json',
      '/..%2f..%2fpackage.json',
      '/static/page.js',
      '/server.ts',
      '/leaflet.js/../../package.json',
      '//etc/passwd',
      '/index.html',
      '/__proto__',
      '/api/../context.json',
    ]) {
      assert.deepEqual([path, (await get(path)).status], [path, 404]);
    }
    for (const [method, path] of [
      ['PUT', '/api/decide'],
      ['DELETE', '/'],
      ['POST', '/'],
      ['POST', '/api/queue'],
    ] as const) {
      assert.deepEqual([method, path, (await send(method, path, OWN(), '{}')).status], [method, path, 404]);
    }
    assert.equal((await get('/api/decide')).status, 404);
  });

  test('with a policy that allows nothing from elsewhere, and without a trace in caches', async () => {
    for (const path of ['/', '/page.js', '/api/queue', '/nothing']) {
      const { headers } = await get(path);
      assert.equal(
        headers['content-security-policy'],
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
      );
      assert.deepEqual(
        [headers['x-content-type-options'], headers['cache-control'], headers['referrer-policy']],
        ['nosniff', 'no-store', 'no-referrer'],
      );
    }
  });

  test('with tiles set, only their origin is added to the policy', async (t) => {
    const tiles = readSettings(PageSettings, {
      MAP_TILES_URL: 'https://tiles.example:8443/{z}/{x}/{y}.png?key=k',
      MAP_TILES_ATTRIBUTION: 'Tiles',
    });
    const other = await startPage(env.databaseUrl, 0, tiles);
    t.after(() => other.close());
    const { headers } = await fetch(other.url, { redirect: 'manual' });
    assert.match(
      headers.get('content-security-policy') ?? '',
      /; img-src 'self' https:\/\/tiles\.example:8443; connect-src 'self';/,
    );
    for (const MAP_TILES_URL of [
      'tiles.example/{z}/{x}/{y}',
      'https://{s}.example/{z}/{x}/{y}',
      'https://tiles.example/tile',
      "https://a.example; script-src 'unsafe-inline'/{z}/{x}/{y}",
    ]) {
      assert.throws(() => readSettings(PageSettings, { MAP_TILES_URL }), SettingsError);
    }
  });

  test('what Postgres refuses, in its words; what is not there is 404', async () => {
    assert.equal((await post('/api/undo', { decision_id: 99 })).status, 404);
    const gone = await get('/api/place?kind=location&cluster=Kilimani&location_key=nowhere');
    assert.deepEqual([gone.status, JSON.parse(gone.body).error], [404, 'nowhere is no longer in the gazetteer.']);
    const job = await post('/api/jobs', { action: 'retry', id: 99 });
    assert.deepEqual(
      [job.status, JSON.parse(job.body).error],
      [422, 'There is no job 99. A job that succeeded is gone. See tickets_ops.jobs.'],
    );
  });

  test('a database that has gone is a 503 in words, without its password; when it is back, so is the page', async (t) => {
    const url = new URL(env.databaseUrl);
    const { port: databasePort } = url;
    const sockets = new Set<Socket>();
    const relay = createServer((socket) => {
      const upstream = connect(Number(databasePort), '127.0.0.1');
      for (const end of [socket, upstream]) sockets.add(end.on('error', () => {}));
      socket.pipe(upstream).pipe(socket);
    });
    await once(relay.listen(0, '127.0.0.1'), 'listening');
    const relayPort = (relay.address() as AddressInfo).port;
    Object.assign(url, { port: String(relayPort), password: 'a-long-password' });
    const other = await startPage(url.href, 0, { MAP_TILES_ATTRIBUTION: '' });
    t.after(async () => {
      await other.close();
      relay.close();
    });
    const { headers } = await fetch(other.url, { redirect: 'manual' });
    const own = { cookie: headers.get('set-cookie')?.split(';')[0] ?? '' };
    const ask = () => fetch(new URL('/api/queue', other.url), { headers: own });
    assert.equal((await ask()).status, 200);
    relay.close();
    for (const socket of sockets) socket.destroy();
    await once(relay, 'close');
    const refused = await ask();
    const said = await refused.text();
    assert.equal(refused.status, 503, said);
    assert.match(said, /The database cannot be reached/);
    assert.ok(!said.includes('a-long-password'));
    await once(relay.listen(relayPort, '127.0.0.1'), 'listening');
    assert.equal((await ask()).status, 200);
  });
});

describe('the command', () => {
  const children: ChildProcess[] = [];
  after(() => {
    for (const child of children) child.kill('SIGKILL');
  });
  function start(args: string[], environment: Record<string, string> = {}) {
    // DATABASE_URL is all that it needs.
    const child = spawn(process.execPath, [CLI, 'page', ...args], {
      cwd: '/',
      env: { PATH: process.env.PATH, DATABASE_URL: env.databaseUrl, ...environment },
    });
    children.push(child);
    const said = { out: '', err: '' };
    child.stdout.on('data', (data) => {
      said.out += data;
    });
    child.stderr.on('data', (data) => {
      said.err += data;
    });
    return { child, said, ended: once(child, 'close') };
  }

  test('prints the address, needs DATABASE_URL only, and ends with status 0 when it is told to', async () => {
    const { child, said, ended } = start([]);
    const url = await waitFor('the address', () => /^http:\/\/127\.0\.0\.1:\d+\/\?token=\S+$/m.exec(said.out)?.[0]);
    assert.equal((await fetch(url, { redirect: 'manual' })).status, 303);
    child.kill('SIGINT');
    assert.deepEqual(await ended, [0, null]);
    assert.equal(said.err, '');
  });

  test('a port that is taken, no port at all, and a database without our schema are said', async () => {
    const taken = start(['--port', String(port)]);
    assert.deepEqual(await taken.ended, [1, null]);
    assert.match(taken.said.err, /^Port \d+ is in use: choose another\.\n$/);
    for (const args of [
      ['--port', 'http'],
      ['--port', '70000'],
      ['--host', '0.0.0.0'],
    ]) {
      const wrong = start(args);
      assert.deepEqual(await wrong.ended, [2, null]);
      assert.match(wrong.said.err, /Usage: fleettickets page/);
    }
    const nowhere = start([], { DATABASE_URL: 'postgres://nobody:secret-password@127.0.0.1:1/none' });
    assert.deepEqual(await nowhere.ended, [1, null]);
    assert.match(nowhere.said.err, /^Cannot connect to Postgres at nobody@127\.0\.0\.1:1\/none/);
    assert.ok(!nowhere.said.err.includes('secret-password'));
  });
});
