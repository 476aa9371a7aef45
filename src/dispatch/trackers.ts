/**
 * Trackers: tables of other software in this database that look like positions of vehicles, and pointing the view
 * tickets.vehicles at one of them. Columns are recognised by their names and types; what is not recognised, a person
 * writes by hand (docs/dispatch.md).
 * Only tables are offered, not views of others: functions in those would run with the rights of every reader of ours.
 */
import { type ClientBase, DatabaseError } from 'pg';
import { type Db, transaction } from '../database/client.ts';
import { postgisSchema } from '../database/foreign-code.ts';
import { ALL_OURS } from '../database/schemas.ts';
import { ExpectedError } from '../settings/errors.ts';
import { NAIROBI_AHEAD_MS, NAIROBI_ZONE } from '../text/nairobi.ts';

/** A table that looks like positions. */
export interface Tracker {
  /** As it is typed: `tracker.positions`, quoted where it must be. */
  readonly table: string;
  /** NULL where the table may not be read, is too large to be counted, or is an error to read (of a foreign server). */
  readonly rows: number | null;
  /** Time of its newest position; NULL as rows. */
  readonly newest: Date | null;
  /** What its owner must grant to the owner of tickets.vehicles, each a statement with its end. */
  readonly grants: readonly string[];
  /** CREATE OR REPLACE VIEW, with its end. */
  readonly statement: string;
}

/** What a column of a tracker's table may mean, by the name it then has, without case and underscores; the best first. */
const MEANINGS = {
  vehicle_id: [
    'vehicleid',
    'imei',
    'deviceid',
    'trackerid',
    'unitid',
    'assetid',
    'unit',
    'device',
    'registration',
    'plate',
  ],
  label: [
    'label',
    'plate',
    'licenseplate',
    'licenceplate',
    'numberplate',
    'registration',
    'regno',
    'vehiclenumber',
    'vehiclename',
    'devicename',
    'name',
  ],
  team: ['team', 'teamname', 'crew', 'group', 'groupname'],
  lng: ['lng', 'longitude', 'lon', 'long'],
  lat: ['lat', 'latitude'],
  place: ['geog', 'geom', 'position', 'location', 'point', 'thegeom'],
  located_at: [
    'locatedat',
    'gpstime',
    'fixtime',
    'positiontime',
    'devicetime',
    'recordedat',
    'timestamp',
    'ts',
    'time',
    'updatedat',
  ],
  seen_at: [
    'seenat',
    'lastseenat',
    'lastseen',
    'hbtime',
    'heartbeattime',
    'heartbeat',
    'servertime',
    'receivedat',
    'updatedat',
  ],
  moving: ['moving', 'ismoving', 'inmotion', 'motion', 'ignition', 'accon'],
  speed_kmh: ['speedkmh', 'speedkph', 'speed'],
} as const;
type Meaning = keyof typeof MEANINGS;

const NUMBER = /^(double precision|real|numeric|integer|bigint|smallint)/;
const TIME = /^timestamp/;
const TYPES: Record<Meaning, RegExp> = {
  vehicle_id: /^(text|character|integer|bigint|numeric|uuid)/,
  label: /^(text|character)/,
  team: /^(text|character)/,
  lng: NUMBER,
  lat: NUMBER,
  place: /(^|\.)(geometry|geography)\(Point/,
  located_at: TIME,
  seen_at: TIME,
  moving: /^boolean/,
  speed_kmh: NUMBER,
};

/** Longer than this nobody waits for a count. */
const COUNT_TIMEOUT = '5s';
/** A table that keeps every position is read no farther back: a vehicle that has been silent for longer is gone. */
const HISTORY = '30 days';

interface Column {
  readonly name: string;
  readonly quoted: string;
  readonly type: string;
  /** It alone is unique: one row for each value. */
  readonly unique: boolean;
}

interface Table {
  readonly table: string;
  readonly readable: boolean;
  readonly grants: readonly string[];
  readonly columns: readonly Column[];
}

type Found = Partial<Record<Meaning, Column>>;

/** The tables outside our schemas that look like positions, by name. */
export async function listTrackers(client: ClientBase): Promise<Tracker[]> {
  const trackers: Tracker[] = [];
  for (const table of await tables(client)) {
    const found = recognise(table.columns);
    if (isTracker(found)) trackers.push(await describe(client, table, found));
  }
  return trackers;
}

/**
 * One of them by its name, as `schema.table`.
 * @throws ExpectedError when there is no such table, or its columns are not recognised
 */
export async function findTracker(client: ClientBase, name: string): Promise<Tracker> {
  const table = (await tables(client)).find(
    (candidate) => candidate.table === name || candidate.table.replaceAll('"', '') === name,
  );
  if (!table) throw new ExpectedError(`There is no table ${name} in this database (schema.table, not a view).`);
  const found = recognise(table.columns);
  if (isTracker(found)) return describe(client, table, found);
  const missing = [
    !found.vehicle_id && 'the vehicle',
    !(found.place || (found.lng && found.lat)) && 'the position',
    !found.located_at && 'the time',
  ].filter(Boolean);
  throw new ExpectedError(
    `No column of ${name} is recognised as ${missing.join(', nor as ')}. Write the view yourself: docs/dispatch.md shows how.`,
  );
}

/**
 * Points tickets.vehicles at a tracker: grants what can be granted, and makes the view, in one transaction.
 * @throws ExpectedError when the view cannot be made or read; nothing is changed then
 */
export async function pointVehiclesAt(client: ClientBase, tracker: Tracker): Promise<void> {
  await transaction(client, async () => {
    for (const statement of [...tracker.grants, tracker.statement]) await client.query(statement);
    // A view that was gone has lost its readers: those of ours that is made of it.
    const { rows } = await client.query<{ grant: string }>(
      `select format('grant select on tickets.vehicles to %I', pg_get_userbyid(a.grantee)) as grant
       from pg_class c cross join lateral aclexplode(c.relacl) a
       where c.oid = 'tickets.vehicles_now'::regclass and a.privilege_type = 'SELECT' and a.grantee not in (0, c.relowner)`,
    );
    for (const { grant } of rows) await client.query(grant);
    await client.query('select from tickets.vehicles_now limit 1');
  }).catch((error: Error & { code?: string }) => {
    if (error.code !== INSUFFICIENT_PRIVILEGE) throw error;
    throw new ExpectedError(
      `${error.message}. Nothing was changed. Let the owner of ${tracker.table} run:\n  ${tracker.grants.join('\n  ')}\nand the owner of tickets.vehicles this command.`,
    );
  });
}
const INSUFFICIENT_PRIVILEGE = '42501';

interface Counted {
  readonly freshness: string;
  /** Whether a plan may send them somewhere. */
  readonly usable: boolean;
  readonly vehicles: number;
}

/** Vehicles by freshness, as tickets.vehicles_now sees them, the most trustworthy first. */
export async function countVehicles(db: Db): Promise<Counted[]> {
  const { rows } = await db.query<Counted>(
    `select freshness, usable, count(*)::integer as vehicles from tickets.vehicles_now group by 1, 2
     order by array_position(tickets.freshnesses(), freshness)`,
  );
  return rows;
}

/** Every table that is not ours or Postgres's, with its columns. */
async function tables(db: Db): Promise<Table[]> {
  const { rows } = await db.query<Table>(
    `select
       format('%I.%I', n.nspname, c.relname) as "table",
       has_schema_privilege(n.oid, 'usage') and has_table_privilege(c.oid, 'select') as readable,
       array_remove(array[
         case when not has_schema_privilege(owner.role, n.oid, 'usage') then format('grant usage on schema %I to %I;', n.nspname, owner.role) end,
         case when not has_table_privilege(owner.role, c.oid, 'select') then format('grant select on %I.%I to %I;', n.nspname, c.relname, owner.role) end
       ], null) as grants,
       json_agg(json_build_object(
         'name', a.attname, 'quoted', quote_ident(a.attname), 'type', format_type(a.atttypid, a.atttypmod),
         'unique', exists (
           select from pg_index i
           where i.indrelid = c.oid and i.indisunique and i.indisvalid and i.indpred is null and i.indnkeyatts = 1 and i.indkey[0] = a.attnum
         )
       ) order by a.attnum) as columns
     from pg_class c
     join pg_namespace n on n.oid = c.relnamespace
     join pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
     cross join lateral (
       -- The view reads with its owner's rights.
       select coalesce((select pg_get_userbyid(relowner) from pg_class where oid = to_regclass('tickets.vehicles')), current_user) as role
     ) as owner
     where c.relkind in ('r', 'p', 'm', 'f') and not c.relispartition and c.relpersistence <> 't'
       and n.nspname !~ '^(pg_|information_schema$|reporting$|graphile_)' and n.nspname <> all ($1)
       and not exists (select from pg_depend d where d.classid = 'pg_class'::regclass and d.objid = c.oid and d.deptype = 'e')
     group by n.oid, n.nspname, c.oid, c.relname, owner.role
     order by 1`,
    [ALL_OURS],
  );
  return rows;
}

function recognise(columns: readonly Column[]): Found {
  const found: Found = {};
  for (const meaning of Object.keys(MEANINGS) as Meaning[]) {
    for (const name of MEANINGS[meaning]) {
      const column = columns.find(
        (candidate) => candidate.name.replaceAll('_', '').toLowerCase() === name && TYPES[meaning].test(candidate.type),
      );
      if (!column) continue;
      found[meaning] = column;
      break;
    }
  }
  return found;
}

type Recognised = Found & { readonly vehicle_id: Column; readonly located_at: Column };

const isTracker = (found: Found): found is Recognised =>
  Boolean(found.vehicle_id && found.located_at && ((found.lng && found.lat) || found.place));

async function describe(client: ClientBase, { table, readable, grants }: Table, found: Recognised): Promise<Tracker> {
  const counted = readable ? await count(client, table, found.located_at) : undefined;
  return {
    table,
    grants,
    rows: counted?.rows ?? null,
    newest: counted?.newest ?? null,
    statement: viewOver(table, found, counted?.isNairobi ?? false, await postgisSchema(client)),
  };
}

/** How many rows, and the newest time; a time without zone is Nairobi's when as UTC it would lie ahead. */
async function count(client: ClientBase, table: string, { quoted, type }: Column) {
  const time = type.includes('with time zone') ? quoted : `${quoted} at time zone 'UTC'`;
  const newest = `max(${time}) filter (where isfinite(${quoted}))`;
  try {
    return await transaction(client, async () => {
      await client.query(`set local statement_timeout = '${COUNT_TIMEOUT}'`);
      const { rows } = await client.query<{ rows: number; newest: Date | null; ahead: boolean | null }>(
        `select count(*)::float8 as rows, ${newest} as newest, ${newest} > now() + interval '10 minutes' as ahead from ${table}`,
      );
      const [found] = rows as [(typeof rows)[number]];
      const isNairobi = Boolean(found.ahead) && !type.includes('with time zone');
      const shift = isNairobi && found.newest ? new Date(found.newest.getTime() - NAIROBI_AHEAD_MS) : found.newest;
      return { rows: found.rows, newest: shift, isNairobi };
    });
  } catch (error) {
    if (error instanceof DatabaseError) return undefined;
    throw error;
  }
}

/** Names PostGIS's schema, which is in no path of ours. */
function viewOver(table: string, found: Recognised, isNairobi: boolean, postgis: string): string {
  const { vehicle_id, located_at, seen_at = located_at, moving, place, lng, lat } = found;
  const zone = isNairobi ? NAIROBI_ZONE : 'UTC';
  const hasZone = ({ type }: Column) => type.includes('with time zone');
  const time = (column: Column) =>
    `(p.${column.quoted}${hasZone(column) ? '' : ` at time zone '${zone}'`})::timestamptz`;
  const as = (column: Column | undefined, type: string) => (column ? `p.${column.quoted}::${type}` : `null::${type}`);
  const geometry = `p.${place?.quoted}::${postgis}.geometry`;
  // Points that are not of WGS 84 are metres of some projection.
  const isProjected = /,(?!4326\))\d+\)$/.test(place?.type ?? '');
  const point = isProjected ? `${postgis}.st_transform(${geometry}, 4326)` : geometry;
  const degrees =
    lng && lat
      ? [as(lng, 'double precision'), as(lat, 'double precision')]
      : [`${postgis}.st_x(${point})`, `${postgis}.st_y(${point})`];
  const newestOnly = `
where p.${located_at.quoted} > ${hasZone(located_at) ? 'now()' : `(now() at time zone '${zone}')`} - interval '${HISTORY}'
order by p.${vehicle_id.quoted}, p.${located_at.quoted} desc`;
  return `create or replace view tickets.vehicles as
select${vehicle_id.unique ? '' : ` distinct on (p.${vehicle_id.quoted})`}
  ${as(vehicle_id, 'text')} as vehicle_id,
  ${as(found.label, 'text')} as label,
  ${as(found.team, 'text')} as team,
  ${degrees[0]} as lng,
  ${degrees[1]} as lat,
  ${time(located_at)} as located_at,
  ${time(seen_at)} as seen_at,
  ${as(moving, 'boolean')} as moving,
  ${as(found.speed_kmh, 'double precision')} as speed_kmh,
  '${table.replaceAll("'", "''")}'::text as source
from ${table} p${vehicle_id.unique ? '' : newestOnly};`;
}
