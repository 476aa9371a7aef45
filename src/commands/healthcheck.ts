import { parseArgs } from 'node:util';
import { withClient } from '../database/client.ts';
import { requireCurrent } from '../database/schema.ts';
import { workersHere } from '../operations/health.ts';
import { messageOf } from '../settings/errors.ts';
import { hideSecrets } from '../settings/secrets.ts';
import { DatabaseSettings, readSettings } from '../settings/settings.ts';
import { print, printJson } from '../terminal/output.ts';
import { SILENCE_MS } from '../worker/heartbeat.ts';

/** After longer silence of the database a worker ends itself. */
const RECENT_SECONDS = SILENCE_MS / 1_000;

export const summary = 'for containers: does the worker of this host work?';
export const usage = `Usage: fleettickets healthcheck [--json]

Healthy when the worker in this container (on this host) reached the database in the last
${RECENT_SECONDS} seconds, and the schema is that of this release. It waits for no lock, and does not ask
for the feed, the bucket or the provider: trouble there must not keep a fix from being
deployed. See fleettickets status for that.

  --json   print one JSON object: healthy, and reason or error

Exit status: 0 healthy, 1 not. Settings: DATABASE_URL.
`;

const ANSWER_MS = 5_000;

type Verdict =
  | { readonly healthy: true; readonly reason: string }
  | { readonly healthy: false; readonly error: string };

export async function run(args: string[]): Promise<number> {
  const { values } = parseArgs({ args, options: { json: { type: 'boolean', default: false } } });
  const verdict = await judge(readSettings(DatabaseSettings).DATABASE_URL).catch(
    (error: Error): Verdict => ({ healthy: false, error: hideSecrets(messageOf(error)) }),
  );
  const text = verdict.healthy ? verdict.reason : verdict.error;
  if (values.json) printJson(verdict);
  else print(`${text}\n`);
  return verdict.healthy ? 0 : 1;
}

/** @throws when the database does not answer, and SchemaError */
function judge(databaseUrl: string): Promise<Verdict> {
  return withClient(databaseUrl, async (client) => {
    await client.query(`set statement_timeout = ${ANSWER_MS}`);
    await requireCurrent(client);
    const workers = await workersHere(client);
    const working = workers.find(
      ({ state, secondsAgo }) => ['alive', 'unsure'].includes(state) && secondsAgo <= RECENT_SECONDS,
    );
    if (working) return { healthy: true, reason: `The worker reached the database ${working.secondsAgo} s ago.` };
    const [latest] = workers;
    const was = latest
      ? `The last one is ${latest.state}, heard of ${latest.secondsAgo} s ago.`
      : 'There has been none.';
    return {
      healthy: false,
      error: `No worker of this host has reached the database in the last ${RECENT_SECONDS} s. ${was}`,
    };
  });
}
