/** Telling people that health has turned: once a turn, by a job, to a webhook; and the ping while all is well. */
import assert from 'node:assert/strict';
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { text } from 'node:stream/consumers';
import { after, afterEach, before, beforeEach, describe, test } from 'node:test';
import { messageOf } from '../../src/operations/health-alert.ts';
import { type Environment, startEnvironment } from '../support/environment.ts';
import { freePort } from '../support/native.ts';
import { fetchNow, runAgain } from '../support/pipeline.ts';

interface Request {
  readonly method: string;
  readonly path: string;
  readonly body: string;
}

let env: Environment;
let server: Server;
let requests: Request[] = [];
/** What the receiver answers. */
let status = 200;
before(async () => {
  env = await startEnvironment();
  server = createServer(async (request, response) => {
    requests.push({ method: request.method ?? '', path: request.url ?? '', body: await text(request) });
    response.writeHead(status, { location: 'http://127.0.0.1:1/' }).end('no_service: T0/B0/a-secret-token');
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
});
after(async () => {
  server.close();
  await env.close();
});
const url = (path: string) => `http://127.0.0.1:${(server.address() as AddressInfo).port}${path}`;
const WEBHOOK = '/services/T0/B0/a-secret-token';
beforeEach(async () => {
  await env.reset();
  requests = [];
  status = 200;
  process.env['ALERT_WEBHOOK_URL'] = url(WEBHOOK);
});
afterEach(() => {
  delete process.env['ALERT_WEBHOOK_URL'];
  delete process.env['ALERT_PING_URL'];
});

const messages = () =>
  requests.filter(({ method }) => method === 'POST').map(({ body }) => JSON.parse(body).text as string);
const problems = async (): Promise<string[]> =>
  (await env.pool.query('select problems from tickets_ops.health')).rows[0].problems;
/** A worker's maintenance, and what follows from it. */
async function maintain() {
  await env.pool.query(`select tickets_ops.enqueue('fleettickets_maintain', '{}')`);
  return env.runJobs();
}
/** Health turns: the feed has never brought a file. */
const turnBad = async () => assert.deepEqual(await fetchNow(env), []);
const turnWell = () => env.pool.query('truncate tickets_ops.looks');

describe('the webhook', () => {
  test('is told how it is at first, then each turn once, and nothing in between', async () => {
    await maintain();
    assert.equal(messages().length, 1);
    assert.match(messages()[0] ?? '', /^fleettickets \(\w+\) is well since \d{4}-\d\d-\d\d \d\d:\d\d EAT\.$/);
    await turnBad();
    for (let n = 0; n < 3; n += 1) assert.deepEqual(await maintain(), []);
    assert.equal(messages().length, 2);
    assert.match(
      messages()[1] ?? '',
      /^fleettickets \(\w+\) needs a person since .* EAT, after \d+ s in which it was well\.\n• Fault: The feed stands still: no look has ever found a file/,
    );
    await turnWell();
    for (let n = 0; n < 2; n += 1) await maintain();
    assert.equal(messages().length, 3);
    assert.match(messages()[2] ?? '', /is well again since .*, after \d+ s\.$/);
    assert.deepEqual(
      requests.map(({ method, path }) => [method, path]),
      Array(3).fill(['POST', WEBHOOK]),
    );
  });

  test('that takes nothing is tried again, is a warning and no turn, and its address stands nowhere', async () => {
    status = 404;
    const failures = await maintain();
    assert.deepEqual(
      failures.map(({ task, error }) => [task, error]),
      [['fleettickets_alert', 'ALERT_WEBHOOK_URL: it answered 404.']],
    );
    assert.match(
      (await problems()).join('\n'),
      /Warning: 1 message\(s\) about health could not be delivered yet: ALERT_WEBHOOK_URL: it answered 404\. Check/,
    );
    const { rows } = await env.pool.query(
      `select (select json_agg(j) from graphile_worker._private_jobs j)::text || (select json_agg(s) from tickets_ops.settings s)::text || array_to_string(problems, ' ') as everything from tickets_ops.health`,
    );
    assert.doesNotMatch(rows[0].everything ?? '', /a-secret-token/);
    status = 503;
    assert.match((await runAgain(env))[0]?.error ?? '', /it answered 503/);
    assert.deepEqual(await maintain().then((all) => all.length), 1, 'no message about the message');
    status = 200;
    assert.deepEqual(await runAgain(env), []);
    assert.match(messages().at(-1) ?? '', /is well/);
    assert.doesNotMatch((await problems()).join('\n'), /message/);
  });

  test('that leads elsewhere, or cannot be reached, is named without its address', async () => {
    status = 301;
    assert.match((await maintain())[0]?.error ?? '', /it answered 301: set the address that it leads to/);
    process.env['ALERT_WEBHOOK_URL'] = `http://127.0.0.1:${await freePort()}/a-secret-token`;
    assert.equal((await runAgain(env))[0]?.error, 'ALERT_WEBHOOK_URL: it cannot be reached: ECONNREFUSED.');
    delete process.env['ALERT_WEBHOOK_URL'];
    assert.equal((await runAgain(env))[0]?.error, 'ALERT_WEBHOOK_URL is not set in this worker.');
  });

  test('is asked for nothing where it is not set', async () => {
    delete process.env['ALERT_WEBHOOK_URL'];
    await turnBad();
    assert.deepEqual(await maintain(), []);
    assert.deepEqual(requests, []);
    assert.deepEqual((await env.pool.query('select from tickets_ops.announced_health')).rows, []);
  });
});

describe('the ping', () => {
  test('comes with each maintenance while health is ok, and ends when it is not', async () => {
    delete process.env['ALERT_WEBHOOK_URL'];
    process.env['ALERT_PING_URL'] = url('/api/push/abc?status=up');
    await maintain();
    await maintain();
    assert.deepEqual(requests, Array(2).fill({ method: 'GET', path: '/api/push/abc?status=up', body: '' }));
    await turnBad();
    await maintain();
    assert.equal(requests.length, 2);
  });

  test('that goes wrong is no failure of maintenance', async () => {
    process.env['ALERT_PING_URL'] = url('/gone');
    status = 500;
    delete process.env['ALERT_WEBHOOK_URL'];
    assert.deepEqual(await maintain(), []);
    process.env['ALERT_PING_URL'] = 'http://127.0.0.1:1/';
    assert.deepEqual(await maintain(), []);
  });
});

describe('a message', () => {
  const turn = { ok: false, problems: [], at: '2026-11-26 09:48 EAT', lasted_seconds: null, database: 'tickets' };

  test('says since when, and how long it had been otherwise', () => {
    assert.equal(messageOf(turn), 'fleettickets (tickets) needs a person since 2026-11-26 09:48 EAT.');
    for (const [seconds, said] of [
      [90, '2 min'],
      [7_500, '2 h 5 min'],
      [3 * 86_400, '3 days'],
    ] as const)
      assert.match(
        messageOf({ ...turn, ok: true, lasted_seconds: seconds }),
        new RegExp(`is well again since .*, after ${said}\\.$`),
      );
  });

  test('lists problems, not all of a hundred nor the whole of a long one, in Slack’s escapes', () => {
    const lines = messageOf({
      ...turn,
      problems: ['Fault: <html> & more', 'x'.repeat(9_000), ...Array(10).fill('y')],
    }).split('\n');
    assert.equal(lines[1], '• Fault: &lt;html&gt; &amp; more');
    assert.equal(lines[2]?.length, 502);
    assert.equal(lines.length, 12);
    assert.match(lines.at(-1) ?? '', /^and 2 more: select problems/);
  });

  test('holds nothing that turns text around or begins a line that is not ours', () => {
    const said = messageOf({
      ...turn,
      problems: ['Fault: a\u202egnp.csv\u001b[2J failed:\n• All is well'],
      database: 'db\u2066',
    });
    assert.equal(
      said,
      'fleettickets (db\\u2066) needs a person since 2026-11-26 09:48 EAT.\n• Fault: a\\u202egnp.csv\\u001b[2J failed:\n  • All is well',
    );
  });

  test('that all is well tells what is worth knowing', () => {
    assert.match(
      messageOf({ ...turn, ok: true, problems: ['Warning: odd'] }),
      /EAT\.\nWorth knowing:\n• Warning: odd$/,
    );
  });
});
