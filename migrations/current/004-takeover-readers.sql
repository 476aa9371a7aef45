-- Taking over from the Python version: who reads the tables that are exchanged.
--
-- Views and functions are bound to a table's OID, not to its name: they follow a renamed schema, and would read frozen
-- rows. So what each of them means is written down while the schema has its name: the text says tickets.inc. Run again
-- when the name belongs to other tables, it means those. No text is ever edited. The way back is the same, from ours.
-- In a database without tables of the Python version the next part drops all this again.

drop schema if exists tickets_takeover cascade; -- of a takeover that was taken back
create schema tickets_takeover;
comment on schema tickets_takeover is 'The takeover from the Python version, whose tables are in tickets_legacy as they were: what a person may want to know of it (notes), who was re-pointed (readers), and the way back: select tickets_takeover.go_back(). When you are sure that you stay: drop schema tickets_takeover, tickets_legacy cascade.';

create table tickets_takeover.notes (
  about text not null,
  name text,
  note text
);
comment on table tickets_takeover.notes is 'What a person may want to know about the takeover. Each kind is also counted in a notice of the migration.';
comment on column tickets_takeover.notes.about is 'The kind of note, in words.';
comment on column tickets_takeover.notes.name is 'Which ticket, place or object, by its name in tickets_legacy.';
comment on column tickets_takeover.notes.note is 'What was done, or what was not.';

create table tickets_takeover.readers (
  class_id oid not null,
  object_id oid not null,
  kind text not null check (kind in ('view', 'materialized view', 'function', 'foreign key', 'trigger')),
  name text not null,
  own boolean not null,
  replaced boolean not null,
  early boolean not null,
  rank integer not null,
  definition text not null,
  afterwards text[] not null default '{}'
);
comment on table tickets_takeover.readers is 'Objects outside the schema tickets that are bound to its objects (or to the map function) by OID, not by name: they follow a renamed schema and must be made again.';
comment on column tickets_takeover.readers.class_id is 'Catalog of object_id: pg_class, pg_proc, pg_constraint or pg_trigger.';
comment on column tickets_takeover.readers.object_id is 'The object as it was when it was written down.';
comment on column tickets_takeover.readers.kind is 'What it is.';
comment on column tickets_takeover.readers.name is 'The object in words, as pg_describe_object gives them.';
comment on column tickets_takeover.readers.own is 'A view that somebody made in the schema tickets itself.';
comment on column tickets_takeover.readers.replaced is 'It keeps its OID (create or replace), and so its owner, grants, comments and triggers. Otherwise it is dropped, made anew, and afterwards restores them.';
comment on column tickets_takeover.readers.early is 'It can be made, elsewhere, before the readers have to wait: it uses nothing that is dropped.';
comment on column tickets_takeover.readers.rank is 'Each is made after those of a lower rank, and lets go before them.';
comment on column tickets_takeover.readers.definition is 'The statement that makes it.';
comment on column tickets_takeover.readers.afterwards is 'Statements that give it its owner, grants, comments and indexes back.';

create function tickets_takeover.schema_of(p_class oid, p_object oid) returns text
  language sql stable set search_path = pg_catalog, pg_temp
as $$
  select regexp_replace(nspname, '^pg_temp_.*', 'pg_temp') from pg_namespace where oid = case p_class
    when 'pg_class'::regclass then (select relnamespace from pg_class where oid = p_object)
    when 'pg_proc'::regclass then (select pronamespace from pg_proc where oid = p_object)
    when 'pg_type'::regclass then (select typnamespace from pg_type where oid = p_object)
    when 'pg_statistic_ext'::regclass then (select stxnamespace from pg_statistic_ext where oid = p_object)
    else (
      select relnamespace from pg_class where oid = case p_class
        when 'pg_rewrite'::regclass then (select ev_class from pg_rewrite where oid = p_object)
        when 'pg_constraint'::regclass then (select conrelid from pg_constraint where oid = p_object)
        when 'pg_trigger'::regclass then (select tgrelid from pg_trigger where oid = p_object)
        when 'pg_attrdef'::regclass then (select adrelid from pg_attrdef where oid = p_object)
        when 'pg_policy'::regclass then (select polrelid from pg_policy where oid = p_object)
      end
    )
  end
$$;
comment on function tickets_takeover.schema_of(oid, oid) is 'Name of the schema in which an object, or the table that it belongs to, stands. NULL for what stands in none.';

create view tickets_takeover.uses as
select
  case when r.oid is null then d.classid else 'pg_class'::regclass end as user_class,
  coalesce(r.ev_class, d.objid) as user_id,
  case when row_type.typrelid is null then d.refclassid else 'pg_class'::regclass end as used_class,
  coalesce(row_type.typrelid, d.refobjid) as used_id,
  row_type.typrelid is not null as as_type
from pg_depend d
left join pg_rewrite r on d.classid = 'pg_rewrite'::regclass and r.oid = d.objid and r.rulename = '_RETURN'
left join lateral (
  select e.typrelid from pg_type t join pg_type e on e.oid in (t.oid, t.typelem)
  where d.refclassid = 'pg_type'::regclass and t.oid = d.refobjid and e.typrelid <> 0
) as row_type on true
where d.deptype in ('n', 'a') and (r.oid is null or r.ev_class <> d.refobjid);
comment on view tickets_takeover.uses is 'Which object uses which, from pg_depend: a view stands for the rule that holds its query, a table for its row type (then as_type).';

create view tickets_takeover.taken_over as
select 'pg_class'::regclass::oid as class_id, oid as object_id from pg_class where relnamespace = to_regnamespace('tickets')
union all
select 'pg_type'::regclass, oid from pg_type where typnamespace = to_regnamespace('tickets')
union all
select 'pg_proc'::regclass, oid from pg_proc
where pronamespace = to_regnamespace('tickets') or (pronamespace = to_regnamespace('reporting') and proname = 'fn_tickets_for_map');
comment on view tickets_takeover.taken_over is 'What is exchanged: relations, types and functions of the schema tickets, and the overloads of the map function.';

create view tickets_takeover.taken_over_uses as
select u.* from tickets_takeover.uses u join tickets_takeover.taken_over o on (o.class_id, o.object_id) = (u.used_class, u.used_id)
offset 0; -- is_foreign() is asked of these few, not of all that is in pg_depend
comment on view tickets_takeover.taken_over_uses is 'Which object uses which of those that are exchanged.';

create function tickets_takeover.is_foreign(p_class oid, p_object oid) returns boolean
  language sql stable set search_path = pg_catalog, pg_temp
as $$
  select not exists (select from tickets_takeover.taken_over t where (t.class_id, t.object_id) = (p_class, p_object))
    and tickets_takeover.schema_of(p_class, p_object) not in (
      'tickets', 'tickets_ops', 'tickets_legacy', 'tickets_takeover', 'tickets_set_aside', 'tickets_ops_set_aside',
      'pg_temp' -- nobody can touch another session's, and they end with it
    )
$$;
comment on function tickets_takeover.is_foreign(oid, oid) is 'Whether an object stands in a schema that is neither ours nor the Python version''s. NULL for what stands in no schema.';

create function tickets_takeover.grants(p_acl aclitem[], p_on text, p_column name default null) returns setof text
  language sql stable set search_path = pg_catalog, pg_temp
as $$
  select format(
    'grant %s%s on %s to %s%s',
    a.privilege_type,
    ' (' || quote_ident(p_column) || ')',
    p_on,
    case a.grantee when 0 then 'public' else quote_ident(pg_get_userbyid(a.grantee)) end,
    case when a.is_grantable then ' with grant option' end
  )
  from aclexplode(p_acl) a
$$;
comment on function tickets_takeover.grants(aclitem[], text, name) is 'The GRANT statements of an ACL, for the object p_on as GRANT names it (`function f(int)`) or a column of it.';

create function tickets_takeover.trimmings_of_view(p_view oid) returns text[]
  language sql stable set search_path = pg_catalog, pg_temp
as $$
  select
    array(select pg_get_indexdef(i.indexrelid) from pg_index i where i.indrelid = c.oid order by i.indexrelid)
    || format('alter %s owner to %I', v.name, pg_get_userbyid(c.relowner))
    || array(select tickets_takeover.grants(c.relacl, c.oid::regclass::text))
    || array(
      select tickets_takeover.grants(a.attacl, c.oid::regclass::text, a.attname)
      from pg_attribute a where a.attrelid = c.oid and not a.attisdropped
    )
    || array(
      select format('comment on %s is %L', case when a.attname is null then v.name else format('column %s.%I', c.oid::regclass, a.attname) end, d.description)
      from pg_description d left join pg_attribute a on a.attrelid = d.objoid and a.attnum = nullif(d.objsubid, 0)
      where d.classoid = 'pg_class'::regclass and d.objoid = c.oid
    )
  from pg_class c
  cross join lateral (select format('%s %s', case c.relkind when 'm' then 'materialized view' else 'view' end, c.oid::regclass)) as v (name)
  where c.oid = p_view
$$;
comment on function tickets_takeover.trimmings_of_view(oid) is 'Statements that give a view or materialized view, made anew, its indexes, owner, grants and comments back.';

create function tickets_takeover.trimmings_of_function(p_function oid) returns text[]
  language sql stable set search_path = pg_catalog, pg_temp
as $$
  select
    array[format('alter routine %s owner to %I', p.oid::regprocedure, pg_get_userbyid(p.proowner))]
    || array(select format('revoke all on routine %s from public', p.oid::regprocedure) where p.proacl is not null)
    || array(select tickets_takeover.grants(p.proacl, 'routine ' || p.oid::regprocedure))
    || array(
      select format('comment on routine %s is %L', p.oid::regprocedure, comment) from obj_description(p.oid, 'pg_proc') comment
      where comment is not null
    )
  from pg_proc p where p.oid = p_function
$$;
comment on function tickets_takeover.trimmings_of_function(oid) is 'Statements that give a function, made anew, its owner, grants and comment back.';

create function tickets_takeover.write_down_readers() returns void
  language plpgsql set search_path = pg_catalog, pg_temp
as $$
declare
  v_stopping text;
begin
  truncate tickets_takeover.readers;

  -- What is bound to the tables in a way that nobody can move without knowing what it is for.
  select string_agg(distinct stopping, E'\n') into v_stopping
  from (
    select pg_describe_object(u.user_class, u.user_id, 0) as stopping
    from tickets_takeover.taken_over_uses u
    where u.user_class in ('pg_rewrite'::regclass, 'pg_policy'::regclass)
    union all
    select i.inhrelid::regclass || ' inherits from ' || i.inhparent::regclass
    from pg_inherits i
    where tickets_takeover.is_foreign('pg_class'::regclass, i.inhrelid) and not tickets_takeover.is_foreign('pg_class'::regclass, i.inhparent)
      or tickets_takeover.is_foreign('pg_class'::regclass, i.inhparent) and not tickets_takeover.is_foreign('pg_class'::regclass, i.inhrelid)
    union all
    select format('publication %I of table %I.%I', t.pubname, t.schemaname, t.tablename)
    from pg_publication_tables t join pg_publication p using (pubname)
    where t.schemaname = 'tickets' and not p.puballtables
  ) as found;
  if v_stopping is not null then
    raise exception 'Bound to the tables of the schema tickets, and not to be moved by a migration: %', v_stopping
      using hint = 'Drop them, run the migration again, and make them again on the new tables.';
  end if;

  insert into tickets_takeover.readers (class_id, object_id, kind, name, own, replaced, early, rank, definition, afterwards)
  with recursive uses as materialized (select * from tickets_takeover.uses),
  readers (class_id, object_id, dropped) as (
    -- A materialized view, and a function with a row type of these tables in its signature, cannot be replaced: it is
    -- dropped, so whoever uses it has to let go of it.
    select u.user_class::oid, u.user_id, coalesce(c.relkind = 'm', u.as_type)
    from tickets_takeover.taken_over_uses u
    left join pg_class c on u.user_class = 'pg_class'::regclass and c.oid = u.user_id
    where (u.user_class = 'pg_proc'::regclass or c.relkind in ('v', 'm')) and tickets_takeover.is_foreign(u.user_class, u.user_id)
      and not exists (select from pg_aggregate a where u.user_class = 'pg_proc'::regclass and a.aggfnoid = u.user_id)
    union
    select u.user_class::oid, u.user_id, coalesce(c.relkind = 'm', true)
    from readers r
    join uses u on (r.class_id, r.object_id) = (u.used_class, u.used_id)
    left join pg_class c on u.user_class = 'pg_class'::regclass and c.oid = u.user_id
    where r.dropped and (u.user_class = 'pg_proc'::regclass or c.relkind in ('v', 'm'))
  ),
  listed as (
    select class_id, object_id, bool_or(dropped) as dropped, false as own from readers group by 1, 2
    union all
    select 'pg_class'::regclass, oid, true, true from pg_class where relnamespace = 'tickets'::regnamespace and relkind in ('v', 'm')
  ),
  ranked (class_id, object_id, rank) as (
    select class_id, object_id, 0 from listed
    union
    select l.class_id, l.object_id, r.rank + 1
    from ranked r
    join uses u on (r.class_id, r.object_id) = (u.used_class, u.used_id)
    join listed l on (l.class_id, l.object_id) = (u.user_class, u.user_id)
    where r.rank < 100 -- functions can be made to use each other in a circle
  ),
  described as (
    select
      l.*, pg_describe_object(l.class_id, l.object_id, 0) as name, r.rank,
      (c.relkind = 'm' or l.own) and not exists (
        select from uses u join listed used on (used.class_id, used.object_id) = (u.used_class, u.used_id)
        where (u.user_class, u.user_id) = (l.class_id, l.object_id) and used.dropped and not used.own
      ) as early
    from listed l
    left join pg_class c on l.class_id = 'pg_class'::regclass and c.oid = l.object_id
    join (select class_id, object_id, max(rank) as rank from ranked group by 1, 2) as r using (class_id, object_id)
  )
  select
    d.class_id, d.object_id, case c.relkind when 'm' then 'materialized view' else 'view' end, d.name,
    d.own, not d.dropped, d.early, d.rank,
    format(
      case c.relkind when 'm' then 'create materialized view %s%s as %s%s' else 'create or replace view %s%s as %s' end,
      case when c.relkind = 'm' and d.early and not d.own then 'tickets_takeover.new_' || c.oid else c.oid::regclass::text end,
      ' with (' || array_to_string(c.reloptions, ', ') || ')', rtrim(pg_get_viewdef(c.oid), ';'),
      case when c.relispopulated then '' else ' with no data' end
    ),
    case when d.dropped then tickets_takeover.trimmings_of_view(c.oid) else '{}' end
  from described d join pg_class c on c.oid = d.object_id
  where d.class_id = 'pg_class'::regclass
  union all
  select
    d.class_id, d.object_id, 'function', d.name, false, not d.dropped, false, d.rank, pg_get_functiondef(d.object_id),
    case when d.dropped then tickets_takeover.trimmings_of_function(d.object_id) else '{}' end
  from described d
  where d.class_id = 'pg_proc'::regclass
  union all
  select
    'pg_constraint'::regclass, k.oid, 'foreign key', pg_describe_object('pg_constraint'::regclass, k.oid, 0), false, false, true, 101,
    format('alter table %s add constraint %I %s', k.conrelid::regclass, k.conname, pg_get_constraintdef(k.oid)), '{}'
  from pg_constraint k
  where k.contype = 'f' and k.conparentid = 0 and tickets_takeover.is_foreign('pg_class'::regclass, k.conrelid)
    and tickets_takeover.schema_of('pg_class'::regclass, k.confrelid) = 'tickets'
  union all
  -- Somebody's trigger on one of the tables; the one set aside keeps it too.
  select
    'pg_trigger'::regclass, t.oid, 'trigger', pg_describe_object('pg_trigger'::regclass, t.oid, 0), false, true, true, 102,
    pg_get_triggerdef(t.oid),
    array(
      select format(
        'alter table %s %s trigger %I', t.tgrelid::regclass,
        case t.tgenabled when 'D' then 'disable' when 'A' then 'enable always' else 'enable replica' end, t.tgname
      )
      where t.tgenabled <> 'O'
    )
  from pg_trigger t
  where not t.tgisinternal and tickets_takeover.schema_of('pg_class'::regclass, t.tgrelid) = 'tickets'
    and tickets_takeover.is_foreign('pg_proc'::regclass, t.tgfoid);

  insert into tickets_takeover.notes
  select distinct
    'objects that still use the old schema and must be changed before it is dropped', pg_describe_object(u.user_class, u.user_id, 0),
    'uses ' || pg_describe_object(u.used_class, u.used_id, 0)
  from tickets_takeover.taken_over_uses u
  where tickets_takeover.is_foreign(u.user_class, u.user_id)
    and u.user_class <> 'pg_trigger'::regclass
    and not exists (select from tickets_takeover.readers r where (r.class_id, r.object_id) = (u.user_class, u.user_id));
end
$$;
comment on function tickets_takeover.write_down_readers() is 'Fills tickets_takeover.readers with all that is bound by OID to the present objects of the schema tickets and to the map function. Definitions name every object with its schema. Raises, naming them, where rules, policies, inheritance or publications are bound to the tables.';

create function tickets_takeover.let_go(p_reader tickets_takeover.readers) returns text
  language sql stable set search_path = pg_catalog, pg_temp
as $$
  select case
    when p_reader.own or p_reader.kind = 'trigger' then null
    when p_reader.kind = 'view' then (
      select format(
        'create or replace view %s as select %s', p_reader.object_id::regclass,
        string_agg(format(
          'null::%s%s as %I', format_type(a.atttypid, a.atttypmod),
          case when a.attcollation <> 0 then ' collate ' || a.attcollation::regcollation end, a.attname
        ), ', ' order by a.attnum)
      )
      from pg_attribute a where a.attrelid = p_reader.object_id and a.attnum > 0 and not a.attisdropped
    )
    when p_reader.kind = 'materialized view' then format('drop materialized view %s', p_reader.object_id::regclass)
    when p_reader.kind = 'foreign key' then (
      select format('alter table %s drop constraint %I', k.conrelid::regclass, k.conname) from pg_constraint k where k.oid = p_reader.object_id
    )
    when not p_reader.replaced then format('drop routine %s', p_reader.object_id::regprocedure)
  end
$$;
comment on function tickets_takeover.let_go(tickets_takeover.readers) is 'The statement by which a reader lets go of what it uses: a view becomes a row of NULLs and keeps its OID, what cannot be replaced is dropped. NULL where there is nothing to do.';

create function tickets_takeover.repoint_readers(p_own boolean) returns void
  language plpgsql set check_function_bodies = off
as $$
declare
  v_step record;
  v_statement text;
  v_stopping text[] := '{}';
begin
  for v_step in
    with readers as (
      select r.*, c.relname, n.nspname from tickets_takeover.readers r
      left join pg_class c on r.class_id = 'pg_class'::regclass and c.oid = r.object_id
      left join pg_namespace n on n.oid = c.relnamespace
      -- A view of ours stands where there was one of the same name; a trigger never left the tables that were set aside.
      where (not r.own or (p_own and to_regclass(format('tickets.%I', c.relname)) is null))
        and not exists (
          select from pg_trigger t
          join pg_class old on old.oid = t.tgrelid
          join pg_class new on new.relname = old.relname and new.relnamespace = 'tickets'::regnamespace
          join pg_trigger there on there.tgrelid = new.oid and there.tgname = t.tgname
          where r.kind = 'trigger' and t.oid = r.object_id
        )
    ),
    steps (phase, position, name, statements) as (
      -- What takes long, while nobody waits for it: filling materialized views, validating foreign keys.
      select 1, rank, name,
        case
          when kind = 'foreign key' then array[
            (select format('alter table %s rename constraint %I to %I', conrelid::regclass, conname, 'old_' || oid) from pg_constraint where oid = object_id),
            definition
          ]
          when kind = 'materialized view' and not own then array[definition]
          else definition || afterwards
        end
      from readers where early
      union all
      -- From here to the commit the readers wait. From the top down, each lets go; that is also the order in which a query
      -- takes its locks.
      select 2, -r.rank, r.name, array[tickets_takeover.let_go(t)]
      from readers r join tickets_takeover.readers t using (class_id, object_id) where r.kind <> 'foreign key'
      union all
      -- From the bottom up, each is made again. By now the names mean the other tables.
      select 3, rank, name,
        case when early then array[
          format('alter materialized view tickets_takeover.%I set schema %I', 'new_' || object_id, nspname),
          format('alter materialized view %I.%I rename to %I', nspname, 'new_' || object_id, relname)
        ] else array[definition] end || afterwards
      from readers where not early or (kind = 'materialized view' and not own)
      union all
      -- Last, because it locks the table that is referenced, against readers too.
      select 4, rank, name, array[(select format('alter table %s drop constraint %I', conrelid::regclass, 'old_' || oid) from pg_constraint where oid = object_id)]
      from readers where kind = 'foreign key'
    )
    select * from steps order by phase, position, name
  loop
    begin
      foreach v_statement in array array_remove(v_step.statements, null) loop
        execute v_statement;
      end loop;
    exception when others then
      v_stopping := v_stopping || format('%s (%s)', v_step.name, sqlerrm);
    end;
  end loop;
  if v_stopping <> '{}' then
    raise exception 'Cannot be pointed at the other tables: %', array_to_string(v_stopping, '; ')
      using hint = 'Change or drop them, run this again, and make them again afterwards. Nothing was changed.';
  end if;
end
$$;
comment on function tickets_takeover.repoint_readers(boolean) is 'Points everything in tickets_takeover.readers at the tables that the schema tickets holds now, with owner and grants. p_own: also makes the views that somebody made in the schema itself. Raises with a list of those that cannot be, and why.';
