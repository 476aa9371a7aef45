/** Any file is survivable: whatever it is, it costs a worker little memory, and SIGTERM is heard while it is read. */
import assert from 'node:assert/strict';
import { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { after, afterEach, before, beforeEach, test } from 'node:test';
import { gzipSync } from 'node:zlib';
import fc from 'fast-check';
import { type Environment, startEnvironment, waitFor } from '../support/environment.ts';
import { type Fault, startFaultProxy } from '../support/fault-proxy.ts';
import { BODY_NAMES, HEADER_NAMES, HOSTILE_HEADERS, hostileFile } from '../support/hostile-files.ts';
import { peakMemoryMb } from '../support/peak-memory.ts';
import { keyOf, PREFIX } from '../support/pipeline.ts';
import { killWorkers, startWorkerProcess } from '../support/worker-process.ts';

/** Above a worker that has nothing to do. */
const MAX_MB = 100;

let env: Environment;
before(async () => {
  env = await startEnvironment();
});
after(() => env.close());
beforeEach(() => env.reset());
afterEach(killWorkers);

async function startMeasured() {
  const worker = await startWorkerProcess({ LOG_LEVEL: 'info' });
  const pid = await waitFor('the worker to register', async () => {
    const { rows } = await env.pool.query<{ pid: number }>('select pid from tickets_ops.workers where pool_id = $1', [
      worker.pool,
    ]);
    return rows[0]?.pid;
  });
  const idle = await peakMemoryMb(pid);
  return { worker, above: async () => (await peakMemoryMb(pid)) - idle };
}

/** Fields of a record that is nearly as large as one may be. */
const LARGE_FIELDS = {
  'of letters': 'x'.repeat(4_900_000),
  'of quotes': '""'.repeat(2_450_000),
  'of wide characters': 'ж'.repeat(2_450_000),
  'of line ends': '\n'.repeat(4_900_000),
};

let files = 0;

/** Puts the file into the bucket, an hour newer than the last, and waits until the worker is done with it. */
async function process(file: Buffer, end = ''): Promise<string> {
  files += 1;
  const hour = new Date(Date.UTC(2020, 0, 1, files)).toISOString().slice(0, 19).replaceAll(':', '-');
  const key = `${PREFIX}${hour}.csv${end}`;
  await env.putObject(key, file);
  await env.pool.query('select tickets_ops.fetch_now()');
  return waitFor(
    `${key} to be dealt with`,
    async () => {
      const { rows } = await env.pool.query<{ status: string }>(
        `select status from tickets_ops.snapshots s
         where source_key = $1 and status in ('done', 'partial', 'failed', 'held')
           and not exists (select from tickets_ops.jobs where state in ('running', 'ready') and task not like 'geocode%')`,
        [key],
      );
      return rows[0]?.status;
    },
    180_000,
  );
}

test('whatever a file is, a worker needs at most 100 MB more for it than when it has nothing to do', async (t) => {
  const { above } = await startMeasured();
  const assertSurvived = async (what: string) => {
    const mb = await above();
    t.diagnostic(`${Math.round(mb)} MB more at most, after ${what}`);
    assert.ok(mb <= MAX_MB, `${what}: ${Math.round(mb)} MB more than an idle worker`);
  };
  for (const [what, make] of Object.entries(HOSTILE_HEADERS)) {
    assert.match(await process(make()), /failed|done/);
    await assertSurvived(what);
  }
  for (const [what, text] of Object.entries(LARGE_FIELDS)) {
    const record = (n: number) => `WOT000000${n},Kilimani,"${text}"\n`;
    await process(
      Buffer.from(`ticket_id,cluster,description\n${Array.from({ length: 9 }, (_, n) => record(n)).join('')}`),
    );
    await assertSurvived(`nine records of nearly 5 MiB, ${what}`);
  }
  await fc.assert(
    fc.asyncProperty(
      fc.constantFrom(...HEADER_NAMES),
      fc.constantFrom(...BODY_NAMES),
      fc.integer({ min: 300_000, max: 6_000_000 }),
      fc.boolean(),
      async (header, body, bytes, isPacked) => {
        const file = hostileFile(header, body, bytes);
        await process(isPacked ? gzipSync(file) : file, isPacked ? '.gz' : '');
        await assertSurvived(`${bytes} bytes of ${body} under a ${header} header`);
      },
    ),
    { numRuns: 24, seed: 20260615, endOnFailure: true },
  );
});

test('SIGTERM is heard while such a file is read', async () => {
  const endless: Fault = async (response) => {
    response.writeHead(200, { 'content-type': 'text/csv', 'content-length': String(2 ** 31) });
    function* bytes() {
      yield Buffer.from('ticket_id,is_alarm\n');
      const block = Buffer.alloc(64 * 1024, ',x\n'.repeat(7));
      for (let sent = 0; sent < 2 ** 31; sent += block.length) yield block;
    }
    await pipeline(Readable.from(bytes()), response); // fails when the reader hangs up
  };
  const proxy = await startFaultProxy(env.s3.endpoint);
  try {
    proxy.inject(/^GET .*\.csv/, endless, 1);
    await env.putObject(keyOf(7), 'ticket_id\n');
    const worker = await startWorkerProcess({ RUSTFS_ENDPOINT: proxy.endpoint, LOG_LEVEL: 'info' });
    await env.pool.query('select tickets_ops.fetch_now()');
    await waitFor('rows to be read', async () => {
      const { rows } = await env.pool.query(
        `select from tickets_ops.snapshots where status = 'staging' and rows_rejected > 100`,
      );
      return rows.length;
    });
    const told = performance.now();
    worker.kill('SIGTERM');
    assert.equal(await worker.exited, 0);
    assert.ok(performance.now() - told < 25_000, `${performance.now() - told} ms`);
  } finally {
    await proxy.close();
  }
});
