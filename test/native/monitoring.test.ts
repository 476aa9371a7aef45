/** Monitoring as it is run: the monitor's role, Debian's exporter and Prometheus, and the webhook under two workers. */
import assert from 'node:assert/strict';
import { type ChildProcess, execFile, spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { json } from 'node:stream/consumers';
import { after, afterEach, before, describe, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { pino } from 'pino';
import { connect, withClient } from '../../src/database/client.ts';
import { readMetrics } from '../../src/operations/metrics.ts';
import { serveMetrics } from '../../src/operations/metrics-server.ts';
import { type Environment, native, startEnvironment, waitFor } from '../support/environment.ts';
import { freePort } from '../support/native.ts';
import { skipWithoutPromtool } from '../support/promtool.ts';
import { killWorkers, startWorkerProcess } from '../support/worker-process.ts';

const run = promisify(execFile);
const ROOT = fileURLToPath(new URL('../..', import.meta.url));

describe('monitoring', { skip: !native && 'needs a native Postgres' }, () => {
  const monitor = `monitor_${randomBytes(4).toString('hex')}`;
  let env: Environment;
  before(async () => {
    env = await startEnvironment();
    await env.pool.query(`create role ${monitor} login in role tickets_monitor`);
  });
  after(async () => {
    await env.pool.query(`drop role ${monitor}`);
    await env.close();
  });
  const as = (role: string) => Object.assign(new URL(env.databaseUrl), { username: role }).href;

  describe('the role tickets_monitor', () => {
    test('reads metrics and health, and nothing else of ours', async () => {
      const client = await connect(as(monitor));
      const { rows: readable } = await client.query(
        `select format('%I.%I', n.nspname, c.relname) as name
         from pg_class c join pg_namespace n on n.oid = c.relnamespace
         where n.nspname in ('tickets', 'tickets_ops', 'reporting', 'graphile_worker') and c.relkind in ('r', 'p', 'v', 'm')
           and has_schema_privilege(n.oid, 'usage') and has_table_privilege(c.oid, 'select, insert, update, delete, truncate')
         order by 1`,
      );
      assert.deepEqual(
        readable.map(({ name }) => name),
        ['tickets_ops.health', 'tickets_ops.metrics'],
      );
      const { rows: callable } = await client.query(
        `select format('%I.%s', n.nspname, p.proname) as name
         from pg_proc p join pg_namespace n on n.oid = p.pronamespace
         where n.nspname in ('tickets', 'tickets_ops', 'reporting', 'graphile_worker')
           and has_schema_privilege(n.oid, 'usage') and has_function_privilege(p.oid, 'execute')
         order by 1`,
      );
      assert.deepEqual(
        callable.map(({ name }) => name),
        ['tickets_ops.read_health', 'tickets_ops.read_metrics'],
      );
      assert.ok((await client.query('select ok from tickets_ops.health')).rows.length === 1);
      assert.ok((await readMetrics(client)).length > 100);
      await client.end();
    });

    test('is all that fleettickets metrics needs, and who lacks it is told which grant to ask for', async () => {
      const metrics = (role: string) =>
        run(process.execPath, ['src/cli.ts', 'metrics'], {
          cwd: ROOT,
          env: { ...process.env, DATABASE_URL: as(role) },
        });
      assert.match((await metrics(monitor)).stdout, /^# HELP fleettickets_health_ok/);
      const stranger = `${monitor}_not`;
      await env.pool.query(`create role ${stranger} login`);
      const error = await metrics(stranger).then(
        () => assert.fail('it may read'),
        ({ stderr }: { stderr: string }) => stderr,
      );
      await env.pool.query(`drop role ${stranger}`);
      assert.equal(
        error,
        `The role ${stranger} may not read tickets_ops.metrics. Its owner can allow it: grant tickets_monitor to ${stranger};\n`,
      );
    });

    test('an empty database is told to be migrated', async () => {
      const name = `fleettickets_empty_${randomBytes(4).toString('hex')}`;
      await env.pool.query(`create database ${name}`);
      const url = Object.assign(new URL(env.databaseUrl), { pathname: `/${name}` }).href;
      const failure = run(process.execPath, ['src/cli.ts', 'metrics'], {
        cwd: ROOT,
        env: { ...process.env, DATABASE_URL: url },
      });
      await assert.rejects(failure, ({ stderr }: { stderr: string }) => /Run: fleettickets migrate\n$/.test(stderr));
      await env.pool.query(`drop database ${name} with (force)`);
    });
  });

  describe('Debian’s exporter, scraped by Prometheus with the settings of ops/', skipWithoutPromtool, () => {
    const started: ChildProcess[] = [];
    const closing: (() => Promise<unknown>)[] = [];
    let folder: string;
    let prometheus: string;

    const start = (program: string, args: string[]) => {
      const child = spawn(program, args, { cwd: folder, stdio: ['ignore', 'ignore', 'pipe'] });
      const said: string[] = [];
      child.stderr.setEncoding('utf8').on('data', (text: string) => said.push(text));
      child.once('error', (error) => said.push(error.message));
      started.push(child);
      return said;
    };

    before(async () => {
      folder = await mkdtemp(join(tmpdir(), 'fleettickets-monitoring-'));
      const [exporterPort, prometheusPort] = [await freePort(), await freePort()];
      const server = await serveMetrics(as(monitor), '127.0.0.1', 0, pino({ level: 'silent' }));
      closing.push(() => server.close());
      const exporter = (await readFile(join(ROOT, 'ops/sql_exporter.yml'), 'utf8'))
        .replace(/- postgres:\S+/, `- ${as(monitor)}?sslmode=disable`)
        .replace('interval: 1m', 'interval: 1s');
      await writeFile(join(folder, 'exporter.yml'), exporter);
      const settings = (await readFile(join(ROOT, 'ops/prometheus.yml'), 'utf8'))
        .replace('alerts.yml', join(ROOT, 'ops/alerts.yml'))
        .replace('127.0.0.1:9237', `127.0.0.1:${exporterPort}`)
        .replaceAll('127.0.0.1:9464', new URL(server.url).host);
      await writeFile(
        join(folder, 'prometheus.yml'),
        `global: { scrape_interval: 2s, scrape_timeout: 2s, evaluation_interval: 1s }\n${settings}`,
      );
      start('prometheus-sql-exporter', [
        '-config.file',
        'exporter.yml',
        '-web.listen-address',
        `127.0.0.1:${exporterPort}`,
      ]);
      prometheus = `http://127.0.0.1:${prometheusPort}/api/v1`;
      const said = start('prometheus', [
        '--config.file=prometheus.yml',
        `--web.listen-address=127.0.0.1:${prometheusPort}`,
        `--storage.tsdb.path=${folder}/data`,
      ]);
      await waitFor('Prometheus to answer', () =>
        fetch(`${prometheus}/status/runtimeinfo`).then(
          ({ ok }) => ok,
          () => false,
        ),
      ).catch((error) => assert.fail(`${error.message}\n${said.join('')}`));
    });
    after(async () => {
      for (const child of started) {
        const exited = once(child, 'exit');
        child.kill('SIGTERM');
        await exited;
      }
      for (const close of closing) await close();
      await rm(folder, { recursive: true });
    });

    type Series = { metric: Record<string, string>; value: [number, string] };
    const query = async (text: string): Promise<Series[]> => {
      const answer = await fetch(`${prometheus}/query?query=${encodeURIComponent(text)}`);
      const { data } = (await answer.json()) as { data: { result: Series[] } };
      return data.result;
    };
    /** A series without what Prometheus adds to it. */
    const known = ({ metric: { instance, job, database, ...metric } }: Series) =>
      JSON.stringify(Object.entries(metric).sort());

    test('both ways show the same series under the same names', async () => {
      const expected = (await readMetrics(env.pool))
        .map(({ name, labels }) => JSON.stringify(Object.entries({ __name__: name, ...labels }).sort()))
        .sort();
      for (const job of ['fleettickets-sql', 'fleettickets']) {
        const series = await waitFor(`series of ${job}`, async () => {
          const found = await query(`{__name__=~"fleettickets_.+", job="${job}"}`);
          return found.length >= expected.length && found;
        }).catch(async (error) =>
          assert.fail(`${error.message}\n${await (await fetch(`${prometheus}/targets`)).text()}`),
        );
        assert.deepEqual(series.map(known).sort(), expected, job);
      }
      const [health] = await query('fleettickets_health_ok{job="fleettickets-sql"}');
      assert.equal(health?.value[1], '0');
      assert.equal(health?.metric['database'], new URL(env.databaseUrl).pathname.slice(1));
    });

    test('the rules run on them', async () => {
      const pending = await waitFor('an alert to be pending', async () => {
        const answer = await fetch(`${prometheus}/alerts`);
        const { data } = (await answer.json()) as {
          data: { alerts: { labels: Record<string, string>; annotations: Record<string, string> }[] };
        };
        return data.alerts.find(({ labels }) => labels['alertname'] === 'TicketsNoWorker');
      });
      assert.match(pending.annotations['summary'] ?? '', /^No worker is alive: .* workers \(1 fault\)/);
    });

    test('a database that does not answer is seen: the exporter’s query fails, and so does the other’s scrape', async () => {
      await env.pool.query(`revoke tickets_monitor from ${monitor}`);
      await waitFor('both to fail', async () => {
        const failed = await query('sql_exporter_last_scrape_failed{query="fleettickets"} == 1');
        const down = await query('up{job="fleettickets"} == 0');
        return failed.length === 1 && down.length === 1;
      });
      await env.pool.query(`grant tickets_monitor to ${monitor}`);
      await waitFor('both to work again', async () => (await query('up{job="fleettickets"} == 1')).length === 1);
    });
  });

  describe('the webhook, under two workers', () => {
    let receiver: Server;
    let texts: string[] = [];
    /** Of a request that is being answered: what it waits for. */
    let answer: Promise<void> = Promise.resolve();
    before(async () => {
      receiver = createServer(async (request, response) => {
        texts.push(((await json(request)) as { text: string }).text);
        await answer;
        response.end('ok');
      });
      await new Promise<void>((resolve) => receiver.listen(0, '127.0.0.1', resolve));
    });
    after(() => {
      receiver.closeAllConnections();
      receiver.close();
    });
    afterEach(killWorkers);

    const settings = () => ({
      ALERT_WEBHOOK_URL: `http://127.0.0.1:${(receiver.address() as AddressInfo).port}/services/a-secret-token`,
    });
    /** Turns health, by a file that no look has ever found, and has it looked at by both workers at once. */
    const turn = async (well: boolean) => {
      await env.pool.query('delete from tickets_ops.looks');
      if (!well)
        await env.pool.query(
          `insert into tickets_ops.looks (dataset, looked_at, files, others, future_dated) values ('inc', now(), 0, 0, '{}')`,
        );
      await env.pool.query(`select tickets_ops.enqueue('fleettickets_maintain', '{}') from generate_series(1, 6)`);
      return well ? / is well / : / needs a person since .*no look has ever found a file/s;
    };
    const idle = () =>
      waitFor('the queue to be empty', async () => {
        const { rows } = await env.pool.query(`select from tickets_ops.jobs where state <> 'scheduled'`);
        return rows.length === 0;
      });

    test('each turn is told once', async () => {
      await Promise.all([startWorkerProcess(settings()), startWorkerProcess(settings())]);
      await waitFor('the first message', () => texts.length === 1);
      assert.match(texts[0] ?? '', / is well since /);
      for (const [n, well] of [false, true, false, true, false, true].entries()) {
        const expected = await turn(well);
        await waitFor(`turn ${n}`, () => texts.length >= n + 2);
        await idle();
        assert.equal(texts.length, n + 2, texts.join('\n'));
        assert.match(texts.at(-1) ?? '', expected);
      }
    });

    test('no turn is lost when every worker is killed while it is told', async () => {
      texts = [];
      let workers = await Promise.all([startWorkerProcess(settings()), startWorkerProcess(settings())]);
      await idle();
      let well = true;
      for (let n = 0; n < 3; n += 1) {
        well = !well;
        const before = texts.length;
        let release = () => {};
        answer = new Promise((resolve) => {
          release = resolve;
        });
        const expected = await turn(well);
        await waitFor('the receiver to be asked', () => texts.length > before);
        for (const worker of workers) worker.kill('SIGKILL');
        await Promise.all(workers.map(({ exited }) => exited));
        release();
        workers = await Promise.all([startWorkerProcess(settings()), startWorkerProcess(settings())]);
        // The one that was cut off is told again, and nothing besides: not by a dead worker's last statement either.
        await waitFor('it to be told again', () => texts.length >= before + 2);
        await idle();
        assert.equal(texts.length, before + 2, texts.slice(before).join('\n'));
        for (const text of texts.slice(before)) assert.match(text, expected);
      }
      const { rows } = await withClient(env.databaseUrl, (client) =>
        client.query('select ok from tickets_ops.announced_health'),
      );
      assert.deepEqual(rows, [{ ok: well }]);
    });
  });
});
