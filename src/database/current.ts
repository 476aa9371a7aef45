/** The database of DATABASE_URL, where it has the schema of this release. */
import type pg from 'pg';
import { DatabaseSettings, readSettings } from '../settings/settings.ts';
import { requireCurrent } from './schema.ts';
import { withBoundedWaits } from './waits.ts';

/** What a command that a person waits for asks of it. @throws ConnectionError, SchemaError, and as boundedWaits */
export const withCurrentDatabase = <T>(use: (client: pg.Client) => Promise<T>): Promise<T> =>
  withBoundedWaits(readSettings(DatabaseSettings).DATABASE_URL, async (client) => {
    await requireCurrent(client);
    return use(client);
  });
