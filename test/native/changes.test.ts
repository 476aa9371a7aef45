/** A feed of changes under workers that are killed between and within its files. */
import assert from 'node:assert/strict';
import { after, afterEach, before, describe, test } from 'node:test';
import { type Environment, native, startEnvironment, waitFor } from '../support/environment.ts';
import { csvOf, PREFIX } from '../support/pipeline.ts';
import { countRows } from '../support/rows.ts';
import { killWorkers, startWorkerProcess } from '../support/worker-process.ts';

const FILES = 24;
const KILLS = 8;

describe('a feed of changes', { skip: !native && 'needs a native Postgres' }, () => {
  let env: Environment;
  before(async () => {
    env = await startEnvironment();
  });
  afterEach(killWorkers);
  after(() => env.close());

  test('arrives whole and in its order, whenever its two workers are killed', async () => {
    const name = (n: number) => `${PREFIX}2026-06-15T01-${String(n).padStart(2, '0')}-00.csv`;
    const others = Array.from({ length: 200 }, (_, n) => ({
      ticket_id: `WOT${n}`,
      normalized_status: 'Open',
      is_actionable: 'true',
    }));
    await env.putObject(name(0), csvOf(others));
    for (let n = 1; n < FILES; n += 1)
      await env.putObject(
        name(n),
        csvOf([{ ticket_id: 'WOT1', normalized_status: `Status ${n}`, is_actionable: 'true' }]),
      );
    const start = () => startWorkerProcess({ INC_FEED: 'changes', LOG_LEVEL: 'info' });
    let workers = await Promise.all([start(), start()]);
    await env.pool.query('select tickets_ops.fetch_now()');
    const done = () => countRows(env.pool, `tickets_ops.snapshots where status = 'done'`);
    for (let kill = 1; kill <= KILLS; kill += 1) {
      // Each time a few files later, wherever they are then.
      await waitFor('a few more files', async () => (await done()) >= kill * 2, 60_000);
      for (const worker of workers) worker.kill('SIGKILL');
      await Promise.all(workers.map(({ exited }) => exited));
      workers = await Promise.all([start(), start()]);
    }
    await waitFor('all files', async () => (await done()) === FILES, 120_000);
    const { rows: ledger } = await env.pool.query(
      'select source_key, status from tickets_ops.snapshots order by load_began_at',
    );
    assert.deepEqual(
      ledger,
      Array.from({ length: FILES }, (_, n) => ({ source_key: name(n), status: 'done' })),
    );
    const { rows } = await env.pool.query(
      `select array_agg(new_value order by event_id) as values from tickets.inc_events where ticket_id = 'WOT1' and event <> 'opened'`,
    );
    assert.deepEqual(
      rows[0].values,
      Array.from({ length: FILES - 1 }, (_, n) => `Status ${n + 1}`),
    );
  });
});
