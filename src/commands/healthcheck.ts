import { parseArgs } from 'node:util';
import { judgeWorker, RECENT_SECONDS, type Verdict } from '../operations/healthcheck.ts';
import { messageOf } from '../settings/errors.ts';
import { hideSecrets } from '../settings/secrets.ts';
import { DatabaseSettings, readSettings } from '../settings/settings.ts';
import { print, printJson } from '../terminal/output.ts';

export const summary = 'for containers: does the worker of this host work?';
export const usage = `Usage: fleettickets healthcheck [--json]

Healthy when the worker in this container (on this host) reached the database in the last
${RECENT_SECONDS} seconds, and the schema is that of this release. It waits for no lock, and does not ask
for the feed, the bucket or the provider: trouble there must not keep a fix from being
deployed. See fleettickets status for that.

  --json   print one JSON object: healthy, and reason or error

Exit status: 0 healthy, 1 not. Settings: DATABASE_URL.
`;

export async function run(args: string[]): Promise<number> {
  const { values } = parseArgs({ args, options: { json: { type: 'boolean', default: false } } });
  const verdict = await judgeWorker(readSettings(DatabaseSettings).DATABASE_URL).catch(
    (error: Error): Verdict => ({ healthy: false, error: hideSecrets(messageOf(error)) }),
  );
  const text = verdict.healthy ? verdict.reason : verdict.error;
  if (values.json) printJson(verdict);
  else print(`${text}\n`);
  return verdict.healthy ? 0 : 1;
}
