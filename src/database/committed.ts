/** The committed migrations, and which of them a database has. */
import { readdir, readFile } from 'node:fs/promises';
import { fileURLToPath } from 'node:url';
import type { ClientBase } from 'pg';
import { ExpectedError } from '../settings/errors.ts';

export const MIGRATIONS = fileURLToPath(new URL('../../migrations', import.meta.url));

/** For a database whose first migration is one of before the release, when it could still be made anew. */
export const FORMER_REMEDY =
  'name an empty database in DATABASE_URL, which the next file fills, or, where this one took over the Python version, ' +
  'go back first (select tickets_takeover.go_back();). Then run: fleettickets migrate';

/**
 * A committed migration that the database has not (missing), or has in another version: the first one as it was before the
 * release (former) or as another application has it (foreign), or a later one, which must never change (changed).
 */
export type Pending = { migration: string; state: 'missing' | 'changed' | 'former' | 'foreign' };

/** Committed migrations that the database lacks, oldest first; empty when the schema is current or newer. */
export async function pending(client: ClientBase): Promise<Pending[]> {
  const applied = await appliedMigrations(client);
  const found = (await committedMigrations()).flatMap(({ migration, number, hash }, index): Pending[] => {
    const appliedHash = applied.get(number);
    if (appliedHash === hash) return [];
    if (appliedHash === undefined) return [{ migration, state: 'missing' }];
    return [{ migration, state: index > 0 ? 'changed' : 'former' }];
  });
  const [first, ...later] = found;
  if (first?.state !== 'former' || (await holdsOurs(client))) return found;
  return [{ ...first, state: 'foreign' }, ...later];
}

async function holdsOurs(client: ClientBase): Promise<boolean> {
  const { rows } = await client.query(
    `select from pg_class c join pg_namespace n on n.oid = c.relnamespace where n.nspname = 'tickets_ops' and c.relname = 'snapshots'`,
  );
  return rows.length > 0;
}

/**
 * What graphile-migrate applied, hash by number (`000001.sql`); its table does not exist before the first migration.
 * @throws ExpectedError when a table of that name lacks graphile-migrate's columns
 */
export async function appliedMigrations(client: ClientBase): Promise<Map<string, string>> {
  const { rows: found } = await client.query<{ columns: number }>(
    `select (
       select count(*)::integer from pg_attribute where attrelid = records and attname in ('filename', 'hash') and not attisdropped
     ) as columns
     from to_regclass('graphile_migrate.migrations') as records where records is not null`,
  );
  if (!found[0]) return new Map();
  if (found[0].columns < 2)
    throw new ExpectedError(
      'The table graphile_migrate.migrations is not that of graphile-migrate: it lacks filename or hash. Name another database in DATABASE_URL, or see who made that table.',
    );
  const { rows } = await client.query<{ filename: string; hash: string }>(
    'select filename, hash from graphile_migrate.migrations',
  );
  return new Map(rows.map(({ filename, hash }) => [filename, hash]));
}

async function committedMigrations(): Promise<{ migration: string; number: string; hash: string }[]> {
  const files = (await readdir(`${MIGRATIONS}/committed`)).filter((file) => /^\d{6}.*\.sql$/.test(file)).sort();
  return Promise.all(
    files.map(async (migration) => {
      const text = await readFile(`${MIGRATIONS}/committed/${migration}`, 'utf8');
      const hash = /^--! Hash: (\S+)$/m.exec(text)?.[1];
      if (!hash)
        throw new Error(`migrations/committed/${migration} has no "--! Hash" line: commit it with graphile-migrate.`);
      return { migration, number: `${migration.slice(0, 6)}.sql`, hash };
    }),
  );
}
