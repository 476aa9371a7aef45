/** What others made in this database, or may make there, that would run with our rights. */
import type { ClientBase } from 'pg';

/** Who we are: the owner of what stands already, else who asks. */
export const US = `us as (
  select oid, rolsuper from pg_roles
  where oid = coalesce((select nspowner from pg_namespace where nspname = 'tickets_ops'), current_user::regrole)
)`;
/** Whether what that role owns is ours. A superuser could do anything with it, which does not make it his. */
export const ownedByUs = (role: string) =>
  `(${role} = us.oid or (not us.rolsuper and pg_has_role(us.oid, ${role}, 'usage')))`;

/**
 * What others made in these schemas, or may make: each would run as the role that writes the tables. Of schemas that are not ours
 * nothing is said, since they are refused as a whole.
 */
export async function foreignCode(client: ClientBase, schemas: readonly string[]): Promise<string[]> {
  const { rows } = await client.query<{ what: string }>(
    `with ${US},
     ours as (
       select n.* from pg_namespace n, us where n.nspname = any ($1) and ${ownedByUs('n.nspowner')}
     )
     select format('%s belongs to %s', pg_describe_object('pg_class'::regclass, c.oid, 0), pg_get_userbyid(c.relowner)) as what
     from us, pg_class c join ours on ours.oid = c.relnamespace where c.relkind <> 'i' and not ${ownedByUs('c.relowner')}
     union all
     select format('%s belongs to %s', pg_describe_object('pg_proc'::regclass, p.oid, 0), pg_get_userbyid(p.proowner))
     from us, pg_proc p join ours on ours.oid = p.pronamespace where not ${ownedByUs('p.proowner')}
     union all
     select format('%s calls %s', pg_describe_object('pg_trigger'::regclass, t.oid, 0), t.tgfoid::regprocedure)
     from pg_trigger t
     join pg_class c on c.oid = t.tgrelid
     join ours on ours.oid = c.relnamespace
     join pg_proc p on p.oid = t.tgfoid
     where not t.tgisinternal and p.pronamespace <> c.relnamespace
     union all
     select pg_describe_object('pg_rewrite'::regclass, r.oid, 0)
     from pg_rewrite r join pg_class c on c.oid = r.ev_class join ours on ours.oid = c.relnamespace where r.rulename <> '_RETURN'
     union all
     select format('%s may create in the schema %I', case a.grantee when 0 then 'everybody' else pg_get_userbyid(a.grantee) end, ours.nspname)
     from ours cross join aclexplode(ours.nspacl) a left join pg_roles g on g.oid = a.grantee
     -- A member of the owner, and a superuser, can act as us anyway.
     where a.privilege_type = 'CREATE' and (g.oid is null or not g.rolsuper and not pg_has_role(g.oid, ours.nspowner, 'member'))
     order by what`,
    [schemas],
  );
  return rows.map(({ what }) => what);
}

/** The schema of PostGIS as SQL names it; where it is not there yet, the one that it will be made in. */
export async function postgisSchema(client: ClientBase): Promise<string> {
  const { rows } = await client.query<{ schema: string }>(
    `select quote_ident(n.nspname) as schema
     from pg_extension e join pg_namespace n on n.oid = e.extnamespace where e.extname = 'postgis'`,
  );
  return rows[0]?.schema ?? 'public';
}

/**
 * Functions and operators of others in PostGIS's schema, which is in the path while a migration runs: one whose arguments
 * fit better would win over Postgres's own, wherever in the path it stands.
 */
export async function shadowsOfPostgres(client: ClientBase): Promise<string[]> {
  const { rows } = await client.query<{ what: string }>(
    `with ${US},
     made as (
       select 'pg_proc'::regclass as class, oid, proname as name, proowner as owner, pronamespace as schema from pg_proc
       union all
       select 'pg_operator'::regclass, oid, oprname, oprowner, oprnamespace from pg_operator
     ),
     others as (
       select m.* from us, made m join pg_roles o on o.oid = m.owner
       where m.schema = to_regnamespace($1) and not o.rolsuper and not ${ownedByUs('m.owner')}
     )
     select format('%s of %s', pg_describe_object(o.class, o.oid, 0), pg_get_userbyid(o.owner)) as what
     from others o
     where exists (
       select from made m left join pg_depend d on d.classid = m.class and d.objid = m.oid and d.deptype = 'e'
       where m.class = o.class and m.name = o.name and (m.schema = 'pg_catalog'::regnamespace or d.objid is not null)
     )
     order by 1`,
    [await postgisSchema(client)],
  );
  return rows.map(({ what }) => what);
}
