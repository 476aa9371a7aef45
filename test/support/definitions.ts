/** The SQL sources in migrations/fixtures/, and what a database holds of them. */
import { readdir, readFile } from 'node:fs/promises';
import { fileURLToPath } from 'node:url';
import type { ClientBase } from 'pg';
import { JobSchemaSettings, readSettings } from '../../src/settings/settings.ts';

const FIXTURES = fileURLToPath(new URL('../../migrations/fixtures', import.meta.url));

/** The text of every fixture by its path in the folder, `takeover/readers.sql`, with the schema of the jobs in its place. */
export async function fixtures(): Promise<Map<string, string>> {
  const { WORKER_SCHEMA } = readSettings(JobSchemaSettings);
  const files = (await readdir(FIXTURES, { recursive: true })).filter((file) => file.endsWith('.sql')).sort();
  return new Map(
    await Promise.all(
      files.map(
        async (file) =>
          [file, (await readFile(`${FIXTURES}/${file}`, 'utf8')).replaceAll(':WORKER_SCHEMA', WORKER_SCHEMA)] as const,
      ),
    ),
  );
}

/** Each function, aggregate and view of the schemas by its name with its schema: definitions, settings and comments. */
export async function definitions(client: ClientBase, schemas: string[]): Promise<Map<string, string[]>> {
  const { rows } = await client.query<{ name: string; definition: string }>(
    `select format('%s.%s', n.nspname, p.proname) as name,
       pg_get_functiondef(p.oid) || coalesce(obj_description(p.oid, 'pg_proc'), '') as definition
     from pg_proc p join pg_namespace n on n.oid = p.pronamespace where n.nspname = any ($1) and p.prokind <> 'a'
     union all
     -- pg_get_functiondef refuses an aggregate.
     select format('%s.%s', n.nspname, p.proname),
       format('%s %s %s %s', p.oid::regprocedure, p.proparallel, row_to_json(a), obj_description(p.oid, 'pg_proc'))
     from pg_aggregate a join pg_proc p on p.oid = a.aggfnoid join pg_namespace n on n.oid = p.pronamespace where n.nspname = any ($1)
     union all
     select format('%s.%s', n.nspname, c.relname),
       pg_get_viewdef(c.oid) || array_to_string(c.reloptions, ',') || (
         select string_agg(format('%s %s', objsubid, description), E'\\n' order by objsubid)
         from pg_description where classoid = 'pg_class'::regclass and objoid = c.oid
       )
     from pg_class c join pg_namespace n on n.oid = c.relnamespace where n.nspname = any ($1) and c.relkind in ('v', 'm')
     order by 1, 2`,
    [schemas],
  );
  const byName = new Map<string, string[]>();
  for (const { name, definition } of rows) byName.set(name, [...(byName.get(name) ?? []), definition]);
  return byName;
}
