/**
 * What the first migration needs and the role of DATABASE_URL lacks, each with the SQL that a superuser has to run. The
 * takeover of a Python version's database needs most: it renames and re-points what others own.
 * Read from the catalog alone; nothing is tried. What else may stop a takeover, the migration says itself (docs/taking-over.md).
 */
import type { Db } from '../database/client.ts';

interface MissingRight {
  /** What the role may not do, in words that follow its name. */
  readonly what: string;
  /** Statements, each ended. */
  readonly remedy: string;
}

export async function missingForFirstMigration(db: Db): Promise<MissingRight[]> {
  const { rows } = await db.query<MissingRight>(
    `with recursive old as (
       -- Not by to_regclass, which a role that may not use the schema may not ask.
       select n.* from pg_namespace n
       where n.nspname = 'tickets' and exists (select from pg_class c where c.relnamespace = n.oid and c.relname = 'inc')
     ),
     reading as (
       -- The tables and views of the old schema, and every view that reads them, wherever it is.
       select c.oid from pg_class c join old on c.relnamespace = old.oid
       union
       select r.ev_class
       from reading join pg_depend d on d.refclassid = 'pg_class'::regclass and d.refobjid = reading.oid
       join pg_rewrite r on d.classid = 'pg_rewrite'::regclass and r.oid = d.objid
     ),
     object as (
       select nspowner as owner, oid as namespace, format('schema %I', nspname) as name, null::oid as relation from old
       union all
       select c.relowner, c.relnamespace, format('%s %s',
         case c.relkind when 'v' then 'view' when 'm' then 'materialized view' when 'S' then 'sequence' when 'f' then 'foreign table' else 'table' end,
         format('%I.%I', n.nspname, c.relname)), c.oid
       from pg_class c join pg_namespace n on n.oid = c.relnamespace
       where (
           c.oid in (select oid from reading)
           or c.oid in (select conrelid from pg_constraint where contype = 'f' and confrelid in (select oid from reading))
         )
       -- An index, and the sequence of a column, goes with its table.
         and c.relkind in ('r', 'p', 'v', 'm', 'S', 'f')
         and not exists (select from pg_depend d where d.classid = 'pg_class'::regclass and d.objid = c.oid and c.relkind = 'S' and d.deptype in ('a', 'i'))
       union all
       select p.proowner, p.pronamespace, format('routine %I.%I(%s)', n.nspname, p.proname, pg_get_function_identity_arguments(p.oid)), null
       from pg_proc p join pg_namespace n on n.oid = p.pronamespace, old
       where p.pronamespace = old.oid
         or p.pronamespace = to_regnamespace('reporting') and p.proname = 'fn_tickets_for_map'
         or p.oid in (
           -- By its body, or by a row of the table as argument or result.
           select d.objid from pg_depend d, pg_class c join reading using (oid)
           where d.classid = 'pg_proc'::regclass
             and (d.refclassid = 'pg_class'::regclass and d.refobjid = c.oid or d.refclassid = 'pg_type'::regclass and d.refobjid = c.reltype)
         )
     ),
     missing as (
       select 1 as nth, 'may not create schemas in this database' as what,
         format('grant create on database %I to %I;', current_database(), current_user) as remedy
       where not has_database_privilege(current_database(), 'create')
       union all
       select 2, format('may not create in the schema %s', nspname), format('grant usage, create on schema %I to %I;', nspname, current_user)
       from pg_namespace
       where (nspname in ('tickets', 'reporting') or oid in (select namespace from object)) and oid not in (select oid from old)
         and not (has_schema_privilege(oid, 'create') and has_schema_privilege(oid, 'usage'))
         -- A role that becomes a member of its owner may.
         and nspowner not in (select o.owner from object o join pg_roles r on r.oid = o.owner where not r.rolsuper)
       union all
       select 3, format('does not own what %s has made for the Python version', r.rolname),
         case
           -- Nobody should become a member of a superuser.
           when r.rolsuper then string_agg(format('%salter %s owner to %I;%s', borrowed.grants, o.name, current_user, borrowed.back), E'\\n' order by o.name)
           else format('grant %1$I to %2$I; -- after the migration: revoke %1$I from %2$I;', r.rolname, current_user)
         end
       from object o
       join pg_roles r on r.oid = o.owner
       -- A view of others is ours for the migration only, and reads with its owner's rights meanwhile.
       cross join lateral (
         select
           coalesce(string_agg(distinct format(E'grant usage on schema %1$I to %3$I; grant select on %1$I.%2$I to %3$I;\\n', n.nspname, c.relname, current_user), ''), '') as grants,
           case when o.namespace in (select oid from old) then ''
             else format(' -- after the migration: alter %s owner to %I;', o.name, r.rolname) end as back
         from pg_rewrite w
         join pg_depend d on d.classid = 'pg_rewrite'::regclass and d.objid = w.oid and d.refclassid = 'pg_class'::regclass and d.refobjid <> w.ev_class
         join pg_class c on c.oid = d.refobjid
         join pg_namespace n on n.oid = c.relnamespace
         where w.ev_class = o.relation and o.namespace not in (select oid from old) and c.oid not in (select oid from reading)
           and not (has_schema_privilege(n.oid, 'usage') and has_table_privilege(c.oid, 'select'))
       ) as borrowed
       where not pg_has_role(o.owner, 'usage')
       group by r.rolname, r.rolsuper
     )
     select what, remedy from missing order by nth, what`,
  );
  return rows;
}
