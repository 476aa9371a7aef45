/**
 * The schema of graphile-worker's tables (setting WORKER_SCHEMA), and who may change it: `fleettickets migrate`, which has
 * looked first (preflight.ts), and nobody else.
 *
 * graphile-worker tells every worker of a database about a migration, in whichever schema it was, and those of other
 * applications would shut down (https://github.com/graphile/worker/pull/361). It has no setting to leave that out, nor to leave
 * out the migration (https://github.com/graphile/worker/issues/524). So ours tells nobody, by a client that drops that one
 * notice, and our workers ask for the revision with each heartbeat.
 */
import { runMigrations } from 'graphile-worker';
import { graphileLogger, type Log } from '../settings/log.ts';
import { type Db, SchemaError } from './client.ts';
import { openPinnedPool } from './pool.ts';

/** The revision of its tables that the graphile-worker of this release makes and knows. */
export const REVISION = 20;

/** Makes graphile-worker's tables, or brings them to this release's revision. */
export async function migrateWorkerSchema(client: Db, databaseUrl: string, schema: string, log: Log): Promise<void> {
  const before = await revisionOf(client, schema);
  const pgPool = openPinnedPool(databaseUrl);
  try {
    const worker = { schema, logger: graphileLogger(log) };
    await runMigrations({ preset: { worker, plugins: [TELLS_NOBODY] }, pgPool });
  } finally {
    await pgPool.end();
  }
  const after = await revisionOf(client, schema);
  if (before === undefined) log.info(`installed graphile-worker's tables in the schema ${schema}, revision ${after}`);
  else if (after !== before) log.info(`brought graphile-worker's tables from revision ${before} to ${after}`);
}

const TELLS_NOBODY: GraphileConfig.Plugin = {
  name: 'fleettickets-tells-nobody',
  worker: {
    hooks: {
      premigrate(_, event) {
        const { client } = event;
        const query = (text: string, values?: unknown[]) =>
          values?.[0] === 'worker:migrate' ? Promise.resolve() : client.query(text, values);
        event.client = Object.create(client, { query: { value: query } });
      },
    },
  },
};

/** Keeps a worker, also a plain `npx graphile-worker`, from another schema than the database's and from migrating it. */
export const NEVER_MIGRATES: GraphileConfig.Plugin = {
  name: 'fleettickets-never-migrates',
  worker: {
    hooks: {
      prebootstrap: ({ workerSchema }, { client }) => requireRecorded(client, workerSchema),
      async premigrate({ workerSchema, maxMigrationNumber }, { client }) {
        await requireRecorded(client, workerSchema);
        const revision = await revisionOf(client, workerSchema);
        if (revision !== undefined && revision < maxMigrationNumber)
          throw new SchemaError(
            `The jobs' tables in the schema ${workerSchema} are at revision ${revision}, this release needs ${maxMigrationNumber}. Run: fleettickets migrate`,
          );
      },
    },
  },
};

async function requireRecorded(db: Db, schema: string): Promise<void> {
  const recorded = await recordedSchema(db);
  if (recorded !== undefined && recorded !== schema) throw new SchemaError(otherSchema(recorded, schema));
}

export const otherSchema = (recorded: string, schema: string) =>
  `The jobs of this database are in the schema ${recorded}, not in ${schema}: set WORKER_SCHEMA=${recorded}.`;

/** The schema that the first migration was given; undefined before it. */
export async function recordedSchema(db: Db): Promise<string | undefined> {
  // Not by to_regprocedure, which a role that may not use the schema may not ask.
  const { rows: found } = await db.query(
    `select from pg_proc p join pg_namespace n on n.oid = p.pronamespace
     where n.nspname = 'tickets_ops' and p.proname = 'worker_schema'`,
  );
  if (found.length === 0) return undefined;
  const { rows } = await db.query<{ schema: string }>('select tickets_ops.worker_schema() as schema');
  return rows[0]?.schema;
}

/** The revision of graphile-worker's tables in a schema; undefined where it has none. */
export async function revisionOf(db: Db, schema: string): Promise<number | undefined> {
  const { rows: found } = await db.query(
    `select from pg_class c join pg_namespace n on n.oid = c.relnamespace where n.nspname = $1 and c.relname = 'migrations'`,
    [schema],
  );
  if (found.length === 0) return undefined;
  const { rows } = await db.query<{ revision: number | null }>(`select max(id) as revision from ${schema}.migrations`);
  return rows[0]?.revision ?? undefined;
}
