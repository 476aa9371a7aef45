/** Whatever stands in a file name, a cell, a cluster or a provider's answer: no output of ours lets it steer a terminal. */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import { after, before, beforeEach, describe, test } from 'node:test';
import { table } from '../../src/terminal/table.ts';
import { printable, printableLine } from '../../src/text/printable.ts';
import { CLI, runCommand } from '../support/command.ts';
import { type Environment, startEnvironment, waitFor } from '../support/environment.ts';
import { csvOf } from '../support/pipeline.ts';
import { startScriptedProvider } from '../support/scripted-provider.ts';
import { killWorkers, startWorkerProcess } from '../support/worker-process.ts';

/** Clears the screen, sets the window's title, turns text around, hides, and pretends to be a line of ours. */
const HOSTILE = '\u001b[2J\u001b]0;owned\u0007\u202egnp.exe\u2066\u200b\u009b31m\rAll is well.';
/** What may steer a terminal; of line ends and tabs only ours are left. */
const STEERING = /(?![\t\n])[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/u;

describe('printable', () => {
  test('shows control, format and bidi characters as escapes, and leaves all other text alone', () => {
    assert.equal(printable('\u001b[31m\u202eabc\u2066'), '\\u001b[31m\\u202eabc\\u2066');
    assert.equal(printable('\u{e0041}\ud800'), '\\udb40\\udc41\\ud800', 'by UTF-16 unit, as JSON does');
    const harmless = 'Kisumu – Ōsaka 北京 مرحبا 🚒 é, "quoted" \\n\ttab\nnew line';
    assert.equal(printable(harmless), harmless);
    assert.doesNotMatch(printable(HOSTILE), STEERING);
    assert.equal(printable(printable(HOSTILE)), printable(HOSTILE));
  });

  test('in JSON it still means the same', () => {
    const value = { name: HOSTILE, [HOSTILE]: ['\u{e0041}'] };
    assert.deepEqual(JSON.parse(printable(JSON.stringify(value))), value);
  });

  test('a value of others stays on its line, in tables too', () => {
    assert.equal(printableLine('a\nb\tc'), 'a\\nb\\tc');
    assert.equal(
      table([{ 'file\n': `x\n${HOSTILE}` }])
        .trim()
        .split('\n').length,
      3,
    );
  });
});

describe('every way out', () => {
  let env: Environment;
  let folder: string;
  before(async () => {
    env = await startEnvironment();
    folder = await mkdtemp(join(tmpdir(), 'fleettickets-printable-'));
  });
  after(async () => {
    await killWorkers();
    await env.close();
    await rm(folder, { recursive: true });
  });
  beforeEach(() => env.reset());

  /** Runs a command, and checks what it wrote. */
  async function fleettickets(args: string[], settings: Record<string, string> = {}) {
    const ended = await runCommand(folder, settings, args);
    const { out, err } = ended;
    for (const written of [out, err])
      assert.doesNotMatch(written, STEERING, `${args.join(' ')}: ${JSON.stringify(written)}`);
    assert.doesNotMatch(out, /^All is well\.$/m, 'a line that somebody else wrote');
    return ended;
  }
  // What XML can carry, in which S3 lists: no control character.
  const key = 'automations/inc/2026-06-15T07-00-00\u202egnp\u2066.csv';
  const csv = csvOf([
    {
      ticket_id: 'WOT1',
      cluster: HOSTILE,
      location_name: `NW_Rose ${HOSTILE}`,
      is_actionable: 'true',
      [HOSTILE.replace('\r', '')]: 'x',
    },
    { ticket_id: '', cluster: `rejected ${HOSTILE}` },
  ]);

  test('dry runs, loads, status, doctor and health of a hostile file', async () => {
    const file = '2026-06-15T06-00-00\u001b[2J\u202e.csv';
    await writeFile(join(folder, file), csv);
    for (const json of [[], ['--json']]) {
      const { out } = await fleettickets(['ingest', '--inc-csv', file, ...json]);
      assert.match(out, /\\u001b\[2J/);
    }
    await env.putObject(key, csv);
    assert.match(
      (await fleettickets(['ingest', '--from-bucket'])).out,
      /Would be loaded: .*07-00-00\\u202egnp\\u2066\.csv/,
    );
    assert.match((await fleettickets(['ingest', '--from-bucket', '--apply'])).out, /\\u202egnp\\u2066\.csv {2}done$/m);
    await env.pool.query('update tickets_ops.snapshots set broken_off = $1', [HOSTILE]);
    await env.pool.query(
      `select graphile_worker.add_job('geocode_cluster', '{}', max_attempts := 1);
       update graphile_worker._private_jobs set attempts = 1, last_error = ${`'${HOSTILE}'`}`,
    );
    for (const json of [[], ['--json']]) {
      assert.match((await fleettickets(['status', ...json])).out, /\\u001b\[2J/);
      await fleettickets(['doctor', ...json]);
      await fleettickets(['healthcheck', ...json]);
    }
    for (const args of [['geocode', 'locations'], ['report', '--by', 'cluster'], ['dispatch'], ['vehicles']]) {
      for (const json of [[], ['--json']]) await fleettickets([...args, ...json]);
    }
  });

  test('wrong usage and wrong files named by an argument', async () => {
    assert.match((await fleettickets(['ingest', '--inc-csv', HOSTILE])).err, /\\u001b\[2J.* cannot be read/);
    await fleettickets([HOSTILE]);
    await fleettickets(['ingest', `--${HOSTILE}`]);
  });

  test('the log of a worker, the jobs and the places: what a provider says', async () => {
    const server = await startScriptedProvider();
    server.script(() => ({ status: 401, json: { error: `Invalid key ${HOSTILE}` } }));
    await env.pool.query(`insert into tickets.inc (ticket_id, raw) values ('WOT1', $1)`, [
      JSON.stringify({ cluster: `Kilimani ${HOSTILE}`, location_name: 'Rose Court', is_actionable: 'true' }),
    ]);
    const settings = {
      GEOCODER_PROVIDER: 'locationiq',
      GEOCODER_API_KEY: 'pk.0123456789abcdef-secret',
      GEOCODER_BASE_URL: server.baseUrl,
    };
    const worker = await startWorkerProcess(settings);
    await env.pool.query(`select tickets.geocode_cluster(cluster) from tickets.inc`);
    const state = await waitFor('the breaker to open', async () => {
      const { rows } = await env.pool.query(`select reason from tickets_ops.geocoding where state = 'key refused'`);
      return rows[0] as { reason: string } | undefined;
    });
    assert.match(state.reason, /^LocationIQ answered 401: Invalid key \\u001b\[2J/);
    assert.doesNotMatch(state.reason, STEERING);
    for (const args of [['geocode', 'clusters'], ['geocode', 'clusters', '--json'], ['status']])
      assert.match((await fleettickets(args, settings)).out, /\\u001b\[2J/, args.join(' '));
    worker.kill('SIGTERM');
    await worker.exited;
    assert.deepEqual(worker.noise, []);
    await server.close();
  });

  test('a reader that closes the pipe ends the command without a word', async () => {
    for (const args of [['status'], ['--help'], ['geocode', 'locations', '--json']]) {
      const child = spawn(process.execPath, [CLI, ...args], { cwd: folder });
      child.stdout.destroy();
      assert.equal(await text(child.stderr), '', args.join(' '));
    }
  });
});
