import { parseArgs } from 'node:util';
import { migrate } from '../database/schema.ts';
import { createLog } from '../settings/log.ts';
import { DatabaseSettings, readSettings } from '../settings/settings.ts';

export const summary = 'bring the database to the current schema';
export const usage = `Usage: fleettickets migrate

Brings the database to the schema of this release: graphile-worker's tables, then the
committed migrations, then the grants. Does nothing where it is there already; safe to
start twice at once. A failing migration is rolled back whole.

Settings: DATABASE_URL.
`;

export async function run(args: string[]): Promise<number> {
  parseArgs({ args, options: {} });
  const log = await createLog();
  await migrate(readSettings(DatabaseSettings).DATABASE_URL, log);
  log.info('the schema is current');
  return 0;
}
