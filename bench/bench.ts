/**
 * `npm run bench`: speed and memory against the limits that the project has set itself, on a native Postgres and a real
 * S3 server, which it starts unless TEST_DATABASE_URL and TEST_S3_* name some. Prints a table; a ratio beyond its limit is
 * marked, and no reason to fail: only what cannot be measured, or is wrong, is.
 * All figures are the minimum of a few paired runs: the two ways take turns, so that both meet the same machine.
 */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { startNativeServers } from '../test/support/native.ts';

const { values } = parseArgs({
  options: {
    rows: { type: 'string', default: '50000' },
    'many-rows': { type: 'string', default: '500000' },
    runs: { type: 'string', default: '3' },
    only: {
      type: 'string',
      default: 'loads,triggers,geocoding,command,memory,map,jobs,hostile,dispatch,analytics,page',
    },
  },
});

const servers = process.env.TEST_DATABASE_URL ? undefined : await startNativeServers();
Object.assign(process.env, servers?.environment);
const folder = await mkdtemp(join(tmpdir(), 'fleettickets-bench-'));
try {
  // The environment reads on import where the servers are.
  const { measure } = await import('./measure.ts');
  await measure({
    folder,
    rows: Number(values.rows),
    manyRows: Number(values['many-rows']),
    runs: Number(values.runs),
    only: values.only.split(','),
  });
} finally {
  await rm(folder, { recursive: true });
  await servers?.close();
}
