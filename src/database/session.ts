/**
 * What every session of ours pins, so that nothing depends on what a database, a role or a server sets by default
 * (`alter database … set`), and no name is looked up where others may create.
 */
import type { Db } from './client.ts';

/** Setting, value, and what goes wrong with another one. */
const PINNED: readonly (readonly [setting: string, value: string])[] = [
  ['DateStyle', 'ISO, MDY'], // times are read and written as text by pg, and by our own SQL
  ['TimeZone', 'UTC'], // a day of a timestamptz is another one elsewhere
  ['IntervalStyle', 'postgres'], // pg reads intervals in this form
  ['bytea_output', 'hex'],
  ['standard_conforming_strings', 'on'], // a backslash in a pattern is a backslash
  ['default_transaction_isolation', 'read committed'], // counting up under a row lock must see what others have committed
  ['default_transaction_read_only', 'off'],
  ['session_replication_role', 'origin'], // triggers keep history and places
  ['statement_timeout', '0'], // a batch or a sweep may take minutes; what a person waits for sets its own
  ['lock_timeout', '0'],
  ['idle_in_transaction_session_timeout', '0'],
];

/**
 * pg_catalog first, so that nobody's function or operator wins over Postgres's own; then our schemas, in which nobody else
 * may create; then PostGIS's, wherever the DBA put it. Not public as such, nor a schema named like the role.
 */
const SEARCH_PATH = `pg_catalog.concat_ws(', ', 'pg_catalog', 'tickets', 'tickets_ops', (
  select pg_catalog.quote_ident(n.nspname)
  from pg_catalog.pg_extension e join pg_catalog.pg_namespace n on n.oid = e.extnamespace
  where e.extname = 'postgis' and n.nspname <> 'pg_catalog'
), 'pg_temp')`;

/**
 * Pins the settings and the search path of this session. Only a setting that differs is touched, since one of them may
 * take a right that the role has not.
 */
export async function pinSession(db: Db): Promise<void> {
  await db.query(
    `select pg_catalog.set_config(setting, value, false)
     from rows from (pg_catalog.unnest($1::text[]), pg_catalog.unnest($2::text[])) as pinned (setting, value)
     where pg_catalog.current_setting(setting, true) is distinct from value
     union all
     select pg_catalog.set_config('search_path', ${SEARCH_PATH}, false)`,
    [PINNED.map(([setting]) => setting), PINNED.map(([, value]) => value)],
  );
}

/** The connection string for a library that opens its own connections: its sessions start under the pinned settings. */
export function pinnedUrl(databaseUrl: string, searchPath?: string): string {
  const options = [...PINNED, ...(searchPath ? [['search_path', searchPath] as const] : [])];
  const url = new URL(databaseUrl);
  // As libpq reads them: a backslash before a blank.
  url.searchParams.set(
    'options',
    options.map(([setting, value]) => `-c ${setting}=${value.replaceAll(' ', '\\ ')}`).join(' '),
  );
  return url.href;
}

/** The same, with the search path, only where a database's defaults are others: a pooler may refuse start-up options. */
export async function pinnedUrlIfNeeded(db: Db, databaseUrl: string): Promise<string> {
  const { rows } = await db.query<{ differs: boolean; path: string }>(
    `select ${SEARCH_PATH} as path, exists (
       select from pg_catalog.pg_settings s
       left join rows from (pg_catalog.unnest($1::text[]), pg_catalog.unnest($2::text[])) as pinned (setting, value)
         on pg_catalog.lower(s.name) = pg_catalog.lower(pinned.setting)
       where s.reset_val <> case s.name when 'search_path' then '"$user", public' else pinned.value end
         and not (s.name = 'TimeZone' and s.reset_val in ('UTC', 'Etc/UTC'))
     ) as differs`,
    [PINNED.map(([setting]) => setting), PINNED.map(([, value]) => value)],
  );
  return rows[0]?.differs ? pinnedUrl(databaseUrl, rows[0].path) : databaseUrl;
}
