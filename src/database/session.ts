/**
 * What every session of ours pins, so that nothing depends on what a database, a role or a server sets by default
 * (`alter database … set`), and nothing that others may create runs as us.
 */
import type { Db } from './client.ts';

/** Setting, value, and what goes wrong with another one. */
const PINNED: readonly (readonly [setting: string, value: string])[] = [
  // Functions and operators are looked up by how well their arguments fit before it is asked where they stand: in any other
  // schema of the path, somebody's format(text, bigint) would win over Postgres's own. So ours and PostGIS's are always named.
  ['search_path', 'pg_catalog, pg_temp'],
  ['DateStyle', 'ISO, MDY'], // times are read and written as text by pg, and by our own SQL
  ['TimeZone', 'UTC'], // a day of a timestamptz is another one elsewhere
  ['IntervalStyle', 'postgres'], // pg reads intervals in this form
  ['bytea_output', 'hex'], // pg reads digests in this form
  ['standard_conforming_strings', 'on'], // with off, Postgres takes \\ in a plain '…' for one backslash, and our patterns have them
  ['default_transaction_isolation', 'read committed'], // counting up under a row lock must see what others have committed
  ['default_transaction_read_only', 'off'], // with on, no job could be fetched
  ['session_replication_role', 'origin'], // triggers keep history and places
  ['statement_timeout', '0'], // a batch or a sweep may take minutes; what a person waits for sets its own
  ['lock_timeout', '0'], // a load may wait for another's batch; what a person waits for sets its own
  ['idle_in_transaction_session_timeout', '0'], // a busy process takes its time between two statements
  ['idle_session_timeout', '0'], // the heartbeat's session and the one that listens for new jobs are idle nearly always
  ['transaction_timeout', '0'], // as statement_timeout
  ['extra_float_digits', '1'], // coordinates are read to their last digit
  ['tickets_ops.client', 'fleettickets'], // in a database that was taken over, others are refused (takeover/fence.sql)
];

/** Settings that Postgres 15 and 16 do not know. */
const NEWER = ['transaction_timeout'];

const SETTINGS = PINNED.map(([setting]) => setting);
const VALUES = PINNED.map(([, value]) => value);

/**
 * All but the search path on the embedded database (PGlite): that is one process with one session for all its clients, and a
 * person's psql would no longer find PostGIS. It is this machine's own, and nobody else makes anything in it.
 */
const AS_ROWS = `(
  select * from rows from (pg_catalog.unnest($1::text[]), pg_catalog.unnest($2::text[])) as pinned (setting, value)
  where setting operator(pg_catalog.<>) 'search_path' or pg_catalog.version() operator(pg_catalog.!~~) '%PGlite%'
) as pinned`;

/**
 * Pins the settings of this session. Only one that differs is touched, since some of them may take a right that the role has
 * not. This statement itself runs before the path is pinned: it names the schema of all that it calls.
 */
export async function pinSession(db: Db): Promise<void> {
  await db.query(
    `select pg_catalog.set_config(setting, value, false) from ${AS_ROWS}
     where coalesce(pg_catalog.current_setting(setting, true) operator(pg_catalog.<>) value, setting operator(pg_catalog.=) 'tickets_ops.client')`,
    [SETTINGS, VALUES],
  );
}

/** The connection string for a library that opens its own connections: its sessions start under the pinned settings. */
export function pinnedUrl(databaseUrl: string): string {
  const url = new URL(databaseUrl);
  // As libpq reads them: a backslash before a blank.
  url.searchParams.set(
    'options',
    PINNED.filter(([setting]) => !NEWER.includes(setting))
      .map(([setting, value]) => `-c ${setting}=${value.replaceAll(' ', '\\ ')}`)
      .join(' '),
  );
  return url.href;
}

/** The pinned settings that a new session does not have by itself, for a library that sets them: value by name. */
export async function settingsToPin(db: Db): Promise<Record<string, string>> {
  const { rows } = await db.query<{ setting: string; value: string }>(
    `select pinned.setting, pinned.value from ${AS_ROWS} left join pg_settings s on lower(s.name) = lower(pinned.setting)
     where coalesce(s.reset_val <> pinned.value, pinned.setting = 'tickets_ops.client')`,
    [SETTINGS, VALUES],
  );
  return Object.fromEntries(rows.map(({ setting, value }) => [setting, value]));
}
