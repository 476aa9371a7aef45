/** Whether the worker of this host works, as its container asks: from the database, which it reaches or not. */
import { withClient } from '../database/client.ts';
import { requireCurrent } from '../database/schema.ts';
import { SILENCE_MS } from '../worker/heartbeat.ts';
import { workersHere } from './health.ts';

/** After longer silence of the database a worker ends itself. */
export const RECENT_SECONDS = SILENCE_MS / 1_000;
const ANSWER_MS = 5_000;

export type Verdict =
  | { readonly healthy: true; readonly reason: string }
  | { readonly healthy: false; readonly error: string };

/** @throws when the database does not answer, and SchemaError */
export function judgeWorker(databaseUrl: string): Promise<Verdict> {
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
