import { parseArgs } from 'node:util';
import { migrate } from '../database/schema.ts';
import { createLog } from '../settings/log.ts';
import { DatabaseSettings, readSettings } from '../settings/settings.ts';

/** What it says goes to the log: so does the reason when it fails. */
export const logs = true;
export const summary = 'bring the database to the current schema';
export const usage = `Usage: fleettickets migrate

Brings the database to the schema of this release: graphile-worker's tables, then the
committed migrations, then the grants; says what it did, and what the DBA has to do. Does
nothing where it is there already; safe to start twice at once. A failing migration is
rolled back whole. It looks first: where another application's jobs or migrations are in
the way, it changes nothing and says what to choose.

Settings: DATABASE_URL, WORKER_SCHEMA, WORKER_SCHEMA_SHARED.
`;

export async function run(args: string[]): Promise<number> {
  parseArgs({ args, options: {} });
  await migrate(readSettings(DatabaseSettings).DATABASE_URL, await createLog());
  return 0;
}
