import { parseArgs } from 'node:util';
import { databaseName, withClient } from '../database/client.ts';
import { requireCurrent } from '../database/schema.ts';
import { isPort } from '../http/listen.ts';
import { startPage } from '../page/server.ts';
import { DatabaseSettings, PageSettings, readSettings } from '../settings/settings.ts';
import { print } from '../terminal/output.ts';
import { untilStopped } from '../terminal/until-stopped.ts';
import { UsageError } from '../terminal/usage.ts';

export const summary = 'the map, the review of places and the jobs, in a browser on this machine';
export const usage = `Usage: fleettickets page [--port N]

Prints an address for the browser on this machine: the map of open tickets, the review of
doubtful places by keyboard and pin, and the jobs. Runs until Ctrl-C, acts with the database
role of DATABASE_URL, and listens on 127.0.0.1 only: for a database elsewhere, through a
tunnel. Anybody who has the address acts as you, so keep it to yourself.

  --port N   listen there (default: any that is free)

Settings: DATABASE_URL; MAP_TILES_URL and MAP_TILES_ATTRIBUTION for a street map below.
`;

export async function run(args: string[]): Promise<number> {
  const { values } = parseArgs({ args, options: { port: { type: 'string', default: '0' } } });
  if (!isPort(values.port)) throw new UsageError(`There is no port ${values.port}.`);
  const { DATABASE_URL } = readSettings(DatabaseSettings);
  await withClient(DATABASE_URL, requireCurrent);
  const page = await startPage(DATABASE_URL, Number(values.port), readSettings(PageSettings));
  print(`${page.url}\n\nOn ${databaseName(DATABASE_URL)}, until Ctrl-C.\n`);
  await untilStopped();
  await page.close();
  return 0;
}
