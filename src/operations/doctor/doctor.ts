/**
 * The doctor: looks at everything that the pipeline needs, from outside, and names a remedy for what is wrong.
 * It leaves nothing behind: the object that it moves through the bucket to try the rights is no CSV, and is deleted.
 */
import type pg from 'pg';
import { connect, PooledError } from '../../database/client.ts';
import { POOLED } from '../../database/pooler.ts';
import { boundedWaits } from '../../database/waits.ts';
import { hideSecrets } from '../../settings/secrets.ts';
import { DatabaseSettings, readSettings, requireSettings } from '../../settings/settings.ts';
import { examineBucket } from './bucket.ts';
import { DATABASE_CHECKS, server } from './database.ts';
import { attempt, check, type Finding, failed, ok, skipped, type Verdict } from './finding.ts';
import { provider } from './provider.ts';

/** Runs every check; yields each finding as it is made. Throws for none of them. */
export async function* examine(): AsyncGenerator<Finding> {
  yield await check('settings', settings);
  const database = await open();
  yield {
    check: 'database',
    ...(await attempt(() => (database instanceof Error ? refused(database) : server(database)))),
  };
  for (const [name, look] of DATABASE_CHECKS) {
    yield await check(name, async () =>
      database instanceof Error ? skipped('needs the database') : boundedWaits(database, () => look(database)),
    );
  }
  yield* examineBucket(database instanceof Error ? undefined : database);
  yield await check('provider', () => provider(database instanceof Error ? undefined : database));
  if (!(database instanceof Error)) await database.end();
}

function settings(): Verdict {
  try {
    requireSettings();
  } catch (error) {
    return failed(
      hideSecrets((error as Error).message),
      'set them right, where this process gets its environment or in .env',
    );
  }
  return ok('complete and valid');
}

async function open(): Promise<pg.Client | Error> {
  try {
    const client = await connect(readSettings(DatabaseSettings).DATABASE_URL);
    client.on('error', () => undefined); // the query that is under way fails with it
    return client;
  } catch (error) {
    return error as Error;
  }
}

const refused = (error: Error) =>
  error instanceof PooledError
    ? failed(POOLED.what, POOLED.remedy)
    : failed(hideSecrets(error.message), 'check DATABASE_URL, and that Postgres runs and lets this host in');
