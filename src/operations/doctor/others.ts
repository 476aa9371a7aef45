/** The doctor's checks of the others in a shared database: their applications, and what of theirs could run as us. */
import type pg from 'pg';
import { ownedByUs, US } from '../../database/foreign-code.ts';
import { obstacles, unknownTasks } from '../../database/preflight.ts';
import { OUR_SCHEMAS } from '../../database/schemas.ts';
import { JobSchemaSettings, readSettings } from '../../settings/settings.ts';
import { failed, ok, type Verdict, warning } from './finding.ts';

/** Those whose graphile-worker or graphile-migrate is in this database too, and all else that keeps `migrate` from it. */
export async function otherApplications(client: pg.Client): Promise<Verdict> {
  const settings = readSettings(JobSchemaSettings);
  const found = await obstacles(client, settings);
  const lines = (texts: string[]) => [...new Set(texts)].join('\n');
  if (found.length > 0) return failed(lines(found.map(({ what }) => what)), lines(found.map(({ remedy }) => remedy)));
  const tasks = await unknownTasks(client, settings.WORKER_SCHEMA);
  const seen = tasks.length > 0 ? `; its tasks ${tasks.join(', ')} are not ours` : '';
  return ok(`our jobs are in the schema ${settings.WORKER_SCHEMA}${seen}`);
}

type Right = { is_ours: boolean; schema: string; role: string; is_owner: boolean };

/**
 * Who else may create where names of ours are looked up. Our own sessions look in pg_catalog only, and name every schema;
 * but a function that fits better could be put beside ours, and what a person types in psql as our role looks further.
 */
export async function othersRights(client: pg.Client): Promise<Verdict> {
  const rights = await createRights(client);
  const triggers = await foreignTriggers(client);
  if (rights.length + triggers.length === 0) return ok('nobody else can put anything where it would run as us');
  const ours = rights.filter(({ is_ours }) => is_ours);
  const details = [
    ...ours.map(({ role, schema }) => `${role} may create in the schema ${schema}, beside what runs as the worker`),
    ...rights
      .filter(({ is_ours }) => !is_ours)
      .map(({ role, schema, is_owner: isOwner }) =>
        isOwner
          ? `the schema ${schema} belongs to ${role}, and psql as this role looks up names there`
          : `${role} may create in the schema ${schema}, where psql as this role looks up names`,
      ),
    ...triggers.map(({ what }) => `${what} runs as the role that writes tickets, the worker included`),
  ];
  const revokes = rights
    .filter(({ is_owner: isOwner }) => !isOwner)
    .map(({ schema, role }) => `revoke create on schema ${schema} from ${role === 'everybody' ? 'public' : role}`);
  const remedies = [
    ...(revokes.length > 0 ? [`let the DBA run: ${revokes.join('; ')}`] : []),
    ...(rights.some(({ is_owner: isOwner }) => isOwner)
      ? ['in psql as this role, name the schema of what you call']
      : []),
    ...(triggers.length > 0
      ? ['let the owner of such a function make it security definer, so that it runs as its owner']
      : []),
  ];
  return (ours.length > 0 ? failed : warning)(details.join('\n'), remedies.join('\n'));
}

/** In our schemas, and in those of the path that a session of this role has by itself: by grant, to all or by name, or as owner. */
async function createRights(client: pg.Client): Promise<Right[]> {
  const { rows } = await client.query<Right>(
    `with ${US},
     -- As Postgres reads the setting: names in quotes or folded, $user for the role.
     path as (
       select case btrim(entry) when '"$user"' then us_name.rolname::text else btrim(btrim(entry), '"') end as schema
       from pg_settings s, regexp_split_to_table(s.reset_val, ',') as entry, pg_roles us_name
       where s.name = 'search_path' and us_name.rolname = current_user
     ),
     looked_at as (
       select n.*, n.nspname = any ($1) as is_ours from pg_namespace n
       where n.nspname = any ($1) or n.nspname in (select schema from path) and n.nspname <> 'pg_catalog'
     )
     select l.is_ours, quote_ident(l.nspname) as schema,
       case a.grantee when 0 then 'everybody' else quote_ident(pg_get_userbyid(a.grantee)) end as role,
       a.grantee = l.nspowner as is_owner
     from us, looked_at l
     cross join aclexplode(coalesce(l.nspacl, acldefault('n', l.nspowner))) a
     left join pg_roles g on g.oid = a.grantee
     where a.privilege_type = 'CREATE' and not (a.grantee = l.nspowner and ${ownedByUs('l.nspowner')})
       -- A superuser, and a member of our role, can act as us anyway; the owner of the database made it.
       and (g.oid is null or not g.rolsuper and g.rolname <> 'pg_database_owner' and not pg_has_role(g.oid, us.oid, 'member'))
       -- Before the first migration the schema tickets is the old system's.
       and (not l.is_ours or exists (select from pg_namespace where nspname = 'tickets_ops'))
     order by 1 desc, 2, 3`,
    [OUR_SCHEMAS],
  );
  return rows;
}

async function foreignTriggers(client: pg.Client): Promise<{ what: string }[]> {
  const { rows } = await client.query<{ what: string }>(
    `with ${US}
     select format('%s, which calls %s of %s,', pg_describe_object('pg_trigger'::regclass, t.oid, 0), p.oid::regprocedure, o.rolname) as what
     from us, pg_trigger t
     join pg_class c on c.oid = t.tgrelid
     join pg_namespace n on n.oid = c.relnamespace
     join pg_proc p on p.oid = t.tgfoid
     join pg_roles o on o.oid = p.proowner
     where not t.tgisinternal and t.tgenabled <> 'D' and n.nspname = any ($1)
       and exists (select from pg_namespace where nspname = 'tickets_ops')
       and not p.prosecdef and not o.rolsuper and not ${ownedByUs('p.proowner')}
     order by 1`,
    [OUR_SCHEMAS],
  );
  return rows;
}
