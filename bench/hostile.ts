/** What is made to be expensive: memory for hostile files, and time for rows that the database refuses. */
import { type Environment, waitFor } from '../test/support/environment.ts';
import { BODY_NAMES, HOSTILE_HEADERS, hostileFile } from '../test/support/hostile-files.ts';
import { csvFile, emptyTickets, load, withWorker } from './stand.ts';
import type { Line } from './table.ts';

const BYTES = 8_000_000;
const REFUSED = 5_000;
const RUNS = 3;
/** A file may take this long. */
const PATIENCE_MS = 600_000;

export async function measureHostile(env: Environment): Promise<Line[]> {
  return [await memoryForHostileFiles(env), await timeForRefusedRows(env)];
}

/** One worker meets all of them: what one leaves behind counts for the next. */
async function memoryForHostileFiles(env: Environment): Promise<Line> {
  await emptyTickets(env);
  const idle = await withWorker(env, async () => undefined);
  const files = [
    ...Object.values(HOSTILE_HEADERS).map((make) => make()),
    ...BODY_NAMES.flatMap((body) => [hostileFile('plain', body, BYTES), hostileFile('widest', body, BYTES)]),
  ];
  const { peakMb } = await withWorker(env, async () => {
    for (const [n, file] of files.entries()) {
      const key = `automations/inc/hostile-${n}.csv`;
      await env.putObject(key, file);
      await env.pool.query('select tickets_ops.fetch_now()');
      await waitFor(
        key,
        async () => {
          const { rowCount } = await env.pool.query(
            `select from tickets_ops.snapshots where source_key = $1 and status in ('done', 'partial', 'failed', 'held')
               and not exists (select from tickets_ops.jobs where state in ('running', 'ready') and task not like 'geocode%')`,
            [key],
          );
          return rowCount;
        },
        PATIENCE_MS,
      );
    }
  });
  await emptyTickets(env);
  return {
    what: `hostile files: peak memory of the worker over ${files.length} of ${BYTES / 1e6} MB`,
    ours: `${peakMb.toFixed(0)} MB`,
    reference: `${idle.peakMb.toFixed(0)} MB idle`,
    value: peakMb - idle.peakMb,
    limit: 100,
    unit: 'MB more',
  };
}

async function timeForRefusedRows(env: Environment): Promise<Line> {
  const csv = await csvFile(REFUSED);
  const times: number[] = [];
  const accepted: number[] = [];
  await withWorker(env, async () => {
    for (let n = 0; n < RUNS; n += 1) {
      for (const [check, into] of [
        [false, times],
        [true, accepted],
      ] as const) {
        await emptyTickets(env);
        await env.pool.query(
          `alter table tickets.inc add constraint bench_check check (${check} or raw ->> 'owner' is null)`,
        );
        into.push((await load(env, csv)).steps[2] as number);
        await env.pool.query('alter table tickets.inc drop constraint bench_check');
      }
    }
  });
  await emptyTickets(env);
  return {
    what: `refused rows: a batch of ${REFUSED} that a check refuses, staged to done`,
    ours: `${Math.min(...times)} ms`,
    reference: `${Math.min(...accepted)} ms accepted`,
    value: Math.min(...times),
    limit: 500,
    unit: 'ms',
  };
}
