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

/** Of a connection whose first statement must run under them already: `options` for libpq and pg. */
const OPTIONS = PINNED.map(([setting, value]) => `-c ${setting}=${value.replaceAll(' ', '\\ ')}`).join(' ');

/**
 * Pins the settings and the search path of this session. Only a setting that differs is touched, since one of them may
 * take a right that the role has not.
 *
 * The path: pg_catalog first, so that nobody's function or operator wins over Postgres's own; then our schemas, in which
 * nobody else may create; then PostGIS's, wherever the DBA put it. Not public as such, nor a schema named like the role.
 */
export async function pinSession(db: Db): Promise<void> {
  await db.query(
    `select pg_catalog.set_config(setting, value, false)
     from rows from (pg_catalog.unnest($1::text[]), pg_catalog.unnest($2::text[])) as pinned (setting, value)
     where pg_catalog.current_setting(setting, true) is distinct from value
     union all
     select pg_catalog.set_config('search_path', pg_catalog.concat_ws(', ', 'pg_catalog', 'tickets', 'tickets_ops', (
       select pg_catalog.quote_ident(n.nspname)
       from pg_catalog.pg_extension e join pg_catalog.pg_namespace n on n.oid = e.extnamespace
       where e.extname = 'postgis' and n.nspname <> 'pg_catalog'
     ), 'pg_temp'), false)`,
    [PINNED.map(([setting]) => setting), PINNED.map(([, value]) => value)],
  );
}

/** The connection string for a library that opens its own connections: its sessions start under the pinned settings. */
export function pinnedUrl(databaseUrl: string): string {
  const url = new URL(databaseUrl);
  url.searchParams.set('options', OPTIONS);
  return url.href;
}

/** The same, only where a database's defaults are others: a pooler may refuse start-up options. */
export async function pinnedUrlIfNeeded(db: Db, databaseUrl: string): Promise<string> {
  const { rows } = await db.query<{ differs: boolean }>(
    `select exists (
       select from pg_catalog.pg_settings s join rows from (pg_catalog.unnest($1::text[]), pg_catalog.unnest($2::text[])) as pinned (setting, value)
         on pg_catalog.lower(s.name) = pg_catalog.lower(pinned.setting)
       where s.reset_val <> pinned.value and not (s.name = 'TimeZone' and s.reset_val in ('UTC', 'Etc/UTC'))
     ) as differs`,
    [PINNED.map(([setting]) => setting), PINNED.map(([, value]) => value)],
  );
  return rows[0]?.differs ? pinnedUrl(databaseUrl) : databaseUrl;
}
