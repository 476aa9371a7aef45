--! Previous: -
--! Hash: sha1:d17fa6c5d105c82ef26e0d3cb226bfe0e7f3185e
--! Message: tickets

--! split: 010-takeover.sql
-- Taking over from the Python version, first half: docs/taking-over.md. Does nothing in a database without its tables.
-- The second half is part 990, when all of ours exists. All in the migration's one transaction: it happens whole or not at all.

drop schema if exists tickets_takeover cascade; -- of a takeover that was taken back
create schema tickets_takeover;
comment on schema tickets_takeover is 'The takeover from the Python version, whose tables are in tickets_legacy as they were: what a person may want to know of it (notes), who was re-pointed (readers), and the way back: select tickets_takeover.go_back(). When you are sure that you stay: select tickets_takeover.clean_up();';

create table tickets_takeover.notes (
  about text not null,
  name text,
  note text
);
comment on table tickets_takeover.notes is 'What a person may want to know about the takeover. Each kind is also counted in a notice of the migration.';
comment on column tickets_takeover.notes.about is 'The kind of note, in words.';
comment on column tickets_takeover.notes.name is 'Which ticket, place or object, by its name in tickets_legacy.';
comment on column tickets_takeover.notes.note is 'What was done, or what was not.';

create table tickets_takeover.stops (
  what text not null,
  remedy text not null
);
comment on table tickets_takeover.stops is 'Why the takeover, or the way back, cannot be: all that was found, raised as one list when everything has been looked at. Empty once it has happened.';
comment on column tickets_takeover.stops.what is 'What is in the way, and where.';
comment on column tickets_takeover.stops.remedy is 'What a person does about it.';

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

create table tickets_takeover.first_readers (name text primary key, object_id oid not null, definition text not null);
comment on table tickets_takeover.first_readers is 'The readers as they were before the takeover. On our tables a definition can read otherwise (a cast to text goes where the column is a text), and fail on the old ones.';
comment on column tickets_takeover.first_readers.name is 'As in readers.';
comment on column tickets_takeover.first_readers.object_id is 'As in readers, then: of a materialized view, part of the name under which it is filled.';
comment on column tickets_takeover.first_readers.definition is 'The statement that makes it.';

create table tickets_takeover.old_map_interface (part text not null, name text not null, value jsonb);
comment on table tickets_takeover.old_map_interface is 'tickets_takeover.map_interface() before the takeover.';
comment on column tickets_takeover.old_map_interface.part is 'parameter, property, summary key or freshness key.';
comment on column tickets_takeover.old_map_interface.name is 'Its name.';
comment on column tickets_takeover.old_map_interface.value is 'Position of a parameter; ticket_id to value of a property.';

create table tickets_takeover.carried_over (kind text not null check (kind in ('table', 'type', 'sequence', 'routine', 'view')), name text not null, primary key (kind, name));
comment on table tickets_takeover.carried_over is 'What people made in the old schema and that is in ours now.';
comment on column tickets_takeover.carried_over.kind is 'table, type, sequence or routine: moved, with all that hangs on it; view: made again.';
comment on column tickets_takeover.carried_over.name is 'Its name in the schema; of a routine, with the types of its arguments.';

create table tickets_takeover.old_maps (function_id oid primary key, definition text not null);
comment on table tickets_takeover.old_maps is 'The overloads of reporting.fn_tickets_for_map before the takeover.';
comment on column tickets_takeover.old_maps.function_id is 'In pg_proc, wherever it stands.';
comment on column tickets_takeover.old_maps.definition is 'The statement that makes it in the schema reporting.';

--! Included takeover/readers.sql
-- Who reads the tables that a takeover exchanges, and how they are pointed at the other ones.
--
-- Views and functions are bound to a table's OID, not to its name: they follow a renamed schema, and would read frozen
-- rows. So what each of them means is written down while the schema has its name: the text says tickets.inc. Run again
-- when the name belongs to other tables, it means those. No text is ever edited. The way back is the same, from ours.

create or replace function tickets_takeover.schema_of(p_class oid, p_object oid) returns text
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

create or replace view tickets_takeover.uses as
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

create or replace function tickets_takeover.map_functions(p_schema text) returns setof oid
  language sql stable set search_path = pg_catalog, pg_temp
as $$
  select oid from pg_proc
  where pronamespace = to_regnamespace(p_schema)
    and proname in ('fn_tickets_for_map', 'fn_tickets_for_map_v2', 'fn_tickets_for_map_json', 'fn_ticket_places', 'ticket_places_mvt', 'fn_tickets_version')
$$;
comment on function tickets_takeover.map_functions(text) is 'The map functions that stand in a schema: what of the Python version or of ours belongs to the schema reporting.';

create or replace view tickets_takeover.taken_over as
select 'pg_class'::regclass::oid as class_id, oid as object_id from pg_class where relnamespace = to_regnamespace('tickets')
union all
select 'pg_type'::regclass, oid from pg_type where typnamespace = to_regnamespace('tickets')
union all
select 'pg_proc'::regclass, oid from pg_proc where pronamespace = to_regnamespace('tickets')
union all
select 'pg_proc'::regclass, oid from tickets_takeover.map_functions('reporting') as oid;
comment on view tickets_takeover.taken_over is 'What is exchanged: relations, types and functions of the schema tickets, and the map functions.';

create or replace view tickets_takeover.taken_over_uses as
select u.* from tickets_takeover.uses u join tickets_takeover.taken_over o on (o.class_id, o.object_id) = (u.used_class, u.used_id)
offset 0; -- is_foreign() is asked of these few, not of all that is in pg_depend
comment on view tickets_takeover.taken_over_uses is 'Which object uses which of those that are exchanged.';

create or replace function tickets_takeover.is_foreign(p_class oid, p_object oid) returns boolean
  language sql stable set search_path = pg_catalog, pg_temp
as $$
  select not exists (select from tickets_takeover.taken_over t where (t.class_id, t.object_id) = (p_class, p_object))
    and tickets_takeover.schema_of(p_class, p_object) not in (
      'tickets', 'tickets_ops', 'tickets_legacy', 'tickets_takeover', 'tickets_set_aside', 'tickets_ops_set_aside',
      'pg_temp' -- nobody can touch another session's, and they end with it
    )
$$;
comment on function tickets_takeover.is_foreign(oid, oid) is 'Whether an object stands in a schema that is neither ours nor the Python version''s. NULL for what stands in no schema.';

create or replace function tickets_takeover.grants(p_acl aclitem[], p_on text, p_column name default null, p_only text[] default null)
returns setof text
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
  where p_only is null or a.privilege_type = any (p_only)
$$;
comment on function tickets_takeover.grants(aclitem[], text, name, text[]) is 'The GRANT statements of an ACL, for the object p_on as GRANT names it (`function f(int)`) or a column of it. p_only: of these privileges only.';

-- A materialized view is filled as its owner, as his own REFRESH would: what its query calls must not run as us.
create or replace function tickets_takeover.trimmings_of_view(p_view oid, p_is_filled boolean) returns text[]
  language sql stable set search_path = pg_catalog, pg_temp
as $$
  select
    array[format('alter %s owner to %I', v.name, pg_get_userbyid(c.relowner))]
    || array(select format('refresh %s', v.name) where c.relkind = 'm' and c.relispopulated and not p_is_filled)
    || array(select pg_get_indexdef(i.indexrelid) from pg_index i where i.indrelid = c.oid order by i.indexrelid)
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
comment on function tickets_takeover.trimmings_of_view(oid, boolean) is 'Statements that give a view or materialized view, made anew, its owner, rows (unless p_is_filled: it has them), indexes, grants and comments back.';

create or replace function tickets_takeover.trimmings_of_function(p_function oid) returns text[]
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

-- Over 100 lines: first what stops the takeover, then one insert for each kind of object that can read a table. The kinds share
-- nothing but the table that they fill.
create or replace function tickets_takeover.write_down_readers() returns void
  language plpgsql set search_path = pg_catalog, pg_temp
as $$
begin
  truncate tickets_takeover.readers;

  -- What is bound to the tables in a way that nobody can move without knowing what it is for.
  insert into tickets_takeover.stops
  select distinct
    stopping || ' is bound to the tables of the schema tickets, and a migration cannot know what it is for',
    'Agree with its owner, who takes it off before, and puts it on the new tables afterwards.'
  from (
    select pg_describe_object(u.user_class, u.user_id, 0) as stopping
    from tickets_takeover.taken_over_uses u
    where u.user_class in ('pg_rewrite'::regclass, 'pg_policy'::regclass)
      and u.used_class = 'pg_class'::regclass and u.used_id not in (select oid from tickets_takeover.peoples_tables)
      -- Of a takeover (fill.sql), on the way back.
      and not exists (select from pg_policy p where u.user_class = 'pg_policy'::regclass and p.oid = u.user_id and p.polname = 'former_owner')
    union all
    select i.inhrelid::regclass || ' inherits from ' || i.inhparent::regclass
    from pg_inherits i
    where tickets_takeover.is_foreign('pg_class'::regclass, i.inhrelid) and not tickets_takeover.is_foreign('pg_class'::regclass, i.inhparent)
      or tickets_takeover.is_foreign('pg_class'::regclass, i.inhparent) and not tickets_takeover.is_foreign('pg_class'::regclass, i.inhrelid)
    union all
    select format('publication %I of table %I.%I', t.pubname, t.schemaname, t.tablename)
    from pg_publication_tables t join pg_publication p using (pubname)
    where t.schemaname = 'tickets' and not p.puballtables
      and format('%I.%I', t.schemaname, t.tablename)::regclass not in (select oid from tickets_takeover.peoples_tables)
    union all
    select format('row security that is forced on the owner of %s too', c.oid::regclass)
    from pg_class c
    where c.relnamespace = 'tickets'::regnamespace and c.relforcerowsecurity and c.relrowsecurity
      and c.oid not in (select oid from tickets_takeover.peoples_tables)
  ) as found;

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
      case when c.relkind = 'm' then ' with no data' else '' end
    ),
    case when d.dropped then tickets_takeover.trimmings_of_view(c.oid, d.early and not d.own) else '{}' end
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
    format('alter table %s add constraint %I %s', k.conrelid::regclass, k.conname, pg_get_constraintdef(k.oid)),
    array(
      select format('comment on constraint %I on %s is %L', k.conname, k.conrelid::regclass, comment) from obj_description(k.oid, 'pg_constraint') comment
      where comment is not null
    )
  from pg_constraint k
  where k.contype = 'f' and k.conparentid = 0
    and (tickets_takeover.is_foreign('pg_class'::regclass, k.conrelid) or k.conrelid in (select oid from tickets_takeover.peoples_tables))
    and tickets_takeover.schema_of('pg_class'::regclass, k.confrelid) = 'tickets'
    and k.confrelid not in (select oid from tickets_takeover.peoples_tables)
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
      union all
      select format('comment on trigger %I on %s is %L', t.tgname, t.tgrelid::regclass, comment) from obj_description(t.oid, 'pg_trigger') comment
      where comment is not null
    )
  from pg_trigger t
  where not t.tgisinternal and tickets_takeover.schema_of('pg_class'::regclass, t.tgrelid) = 'tickets'
    and t.tgrelid not in (select oid from tickets_takeover.peoples_tables)
    and tickets_takeover.is_foreign('pg_proc'::regclass, t.tgfoid);

  insert into tickets_takeover.notes
  select distinct
    'objects that still use the old schema and must be changed before it is dropped', pg_describe_object(u.user_class, u.user_id, 0),
    'uses ' || pg_describe_object(u.used_class, u.used_id, 0)
  from tickets_takeover.taken_over_uses u
  where tickets_takeover.is_foreign(u.user_class, u.user_id)
    and u.user_class <> 'pg_trigger'::regclass
    -- A partition's foreign key goes with that of the whole table.
    and not exists (select from pg_constraint k where u.user_class = 'pg_constraint'::regclass and k.oid = u.user_id and k.conparentid <> 0)
    and not exists (select from tickets_takeover.readers r where (r.class_id, r.object_id) = (u.user_class, u.user_id));
end
$$;
comment on function tickets_takeover.write_down_readers() is 'Fills tickets_takeover.readers with all that is bound by OID to the present objects of the schema tickets and to the map function. Definitions name every object with its schema. Rules, policies, inheritance and publications that are bound to the tables are stops.';

create or replace function tickets_takeover.let_go(p_reader tickets_takeover.readers) returns text
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

create or replace function tickets_takeover.with_old_types(p_reader tickets_takeover.readers) returns text
  language sql stable set search_path = pg_catalog, pg_temp
as $$
  select regexp_replace(
    p_reader.definition, '^(create or replace view .*? as )(.*)$',
    format('\1select %s from (\2) as old', (
      select string_agg(format('old.%1$I::%2$s as %1$I', a.attname, format_type(a.atttypid, a.atttypmod)), ', ' order by a.attnum)
      from pg_attribute a where a.attrelid = p_reader.object_id and a.attnum > 0 and not a.attisdropped
    ))
  )
$$;
comment on function tickets_takeover.with_old_types(tickets_takeover.readers) is 'The statement that makes a view with the column types that it had, where our tables have others: its query, with casts.';

create or replace function tickets_takeover.first_definition(p_name text, p_definition text) returns text
  language sql stable set search_path = pg_catalog, pg_temp
as $$
  select replace(f.definition, 'tickets_takeover.new_' || f.object_id, 'tickets_takeover.new_' || r.object_id)
  from tickets_takeover.readers r join tickets_takeover.first_readers f on f.name = r.name
  where r.name = p_name and r.definition = p_definition
$$;
comment on function tickets_takeover.first_definition(text, text) is 'On the way back: the statement that made a reader on the old tables, for one whose present definition fails there. NULL: it was not there then.';

create or replace function tickets_takeover.relations_of_readers() returns oid[]
  language sql stable set search_path = pg_catalog, pg_temp
as $$
  select array(
    select r.object_id from tickets_takeover.readers r where r.class_id = 'pg_class'::regclass
    union
    select unnest(array[k.conrelid, k.confrelid]) from tickets_takeover.readers r join pg_constraint k on r.class_id = 'pg_constraint'::regclass and k.oid = r.object_id
    union
    select c.oid from pg_class c where c.relnamespace in (to_regnamespace('tickets_legacy'), to_regnamespace('tickets'))
  )
$$;
comment on function tickets_takeover.relations_of_readers() is 'The relations for which pointing the readers at other tables may have to wait.';

create or replace function tickets_takeover.make(p_name text, p_statement text) returns void
  language plpgsql set check_function_bodies = off
as $$
declare
  v_other text;
begin
  execute p_statement;
exception
  when invalid_table_definition then
    -- A column has another type with us: the view keeps its own, which others rely on.
    select tickets_takeover.with_old_types(r) into strict v_other
    from tickets_takeover.readers r where r.name = p_name and r.kind = 'view' and r.replaced and r.definition = p_statement;
    execute v_other;
  when undefined_function or undefined_column or datatype_mismatch then
    v_other := tickets_takeover.first_definition(p_name, p_statement);
    if v_other is null then
      raise;
    end if;
    execute v_other;
end
$$;
comment on function tickets_takeover.make(text, text) is 'Runs a statement that makes a reader, or changes it; where a definition fails for the types of our columns, another one of the same meaning.';

create or replace function tickets_takeover.repoint_readers(p_own boolean) returns void
  language plpgsql set check_function_bodies = off
as $$
declare
  v_step record;
  v_statement text;
  v_stopping text[] := '{}';
begin
  for v_step in
    with readers as (
      select r.*, c.relname, c.relispopulated, pg_get_userbyid(c.relowner) as owner, n.nspname from tickets_takeover.readers r
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
        -- Nor did the foreign key of a table that could not be carried over.
        and not (r.kind = 'foreign key' and tickets_takeover.schema_of(r.class_id, r.object_id) in ('tickets_legacy', 'tickets_set_aside'))
    ),
    steps (phase, position, name, statements) as (
      -- What takes long, while nobody waits for it: filling materialized views, validating foreign keys.
      select 1, rank, name,
        case
          when kind = 'foreign key' then array[
            (select format('alter table %s rename constraint %I to %I', conrelid::regclass, conname, 'old_' || oid) from pg_constraint where oid = object_id),
            definition
          ] || afterwards
          when kind = 'materialized view' and not own then array[
            definition,
            format('grant usage, create on schema tickets_takeover to %I', owner), -- to own something there; taken back below
            format('alter materialized view tickets_takeover.%I owner to %I', 'new_' || object_id, owner),
            case when relispopulated then format('refresh materialized view tickets_takeover.%I', 'new_' || object_id) end
          ]
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
          format('alter materialized view %I.%I rename to %I', nspname, 'new_' || object_id, relname),
          case when owner <> current_user then format('revoke all on schema tickets_takeover from %I', owner) end
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
        perform tickets_takeover.make(v_step.name, v_statement);
      end loop;
    exception
      when lock_not_available or deadlock_detected then
        perform set_config('lock_timeout', '10ms', true); -- once is enough
        v_stopping := v_stopping || v_step.name;
        insert into tickets_takeover.stops values (
          format('%s is in use: %s', v_step.name, tickets_takeover.holders(tickets_takeover.relations_of_readers(), '{}')),
          'Let that end, and run it again.'
        );
      when others then
        -- What follows from a step that failed is not told as well.
        if v_step.name <> all (v_stopping) then
          v_stopping := v_stopping || v_step.name;
          insert into tickets_takeover.stops values (
            format('%s cannot be pointed at the other tables: %s', v_step.name, sqlerrm),
            'Its owner, or the DBA, changes it first; or takes it away before, and makes it again afterwards.'
          );
        end if;
    end;
  end loop;
end
$$;
comment on function tickets_takeover.repoint_readers(boolean) is 'Points everything in tickets_takeover.readers at the tables that the schema tickets holds now, with owner and grants. p_own: also makes the views that somebody made in the schema itself. Those that cannot be are stops.';
--! EndIncluded takeover/readers.sql
--! Included takeover/map-interface.sql
-- What callers of the old map function rely on: ours must have it too.

-- Not pinned to a search_path: it calls the map function as its callers do. It is called as its owner, and only where that is
-- the migrating role or one whose rights that has: what somebody else wrote must not run as us.
create or replace function tickets_takeover.map_interface() returns table (part text, name text, value jsonb) language plpgsql as $$
declare
  v_self constant text := current_setting('role');
  v_function record;
  v_open_only text;
  v_map jsonb;
begin
  for v_function in
    select
      p.oid::regprocedure as signature,
      pg_get_userbyid(p.proowner) as owner,
      p.proowner = current_user::regrole or (pg_has_role(p.proowner, 'usage') and not (select rolsuper from pg_roles where rolname = current_user)) as is_ours,
      array(
        select a.name from unnest(p.proargnames, p.proargmodes) with ordinality as a (name, mode, n)
        where coalesce(a.mode, 'i') in ('i', 'b', 'v') order by a.n
      ) as parameters,
      array(
        select format('(%s)::%s', coalesce(pg_get_function_arg_default(p.oid, a.n::integer), 'null'), format_type(a.type, null))
        from unnest(string_to_array(p.proargtypes::text, ' ')::oid[]) with ordinality as a (type, n) order by a.n
      ) as defaults
    from pg_proc p
    where p.pronamespace = to_regnamespace('reporting') and p.proname = 'fn_tickets_for_map'
  loop
    return query select 'parameter', p, to_jsonb(n) from unnest(v_function.parameters) with ordinality as u (p, n) where p <> '';
    if not v_function.is_ours then
      insert into tickets_takeover.notes
      values ('map functions of somebody else, which were not called, so only their parameters were compared', v_function.signature::text, v_function.owner);
      continue;
    end if;
    -- The open tickets only, as dashboards ask for them: all of them may be more than a jsonb value can hold. Where none
    -- is open, the closed ones show the properties. Every argument is given, so that no other overload can be meant.
    foreach v_open_only in array array['default', 'false'] loop
      begin
        execute format('set local role %I', v_function.owner);
        execute format('select (reporting.fn_tickets_for_map(%s))::jsonb', (
          select string_agg(
            case when v_function.parameters[d.n] = 'p_open_only' and v_open_only = 'false' then v_open_only else d.value end,
            ', ' order by d.n
          )
          from unnest(v_function.defaults) with ordinality as d (value, n)
        )) into v_map;
        perform set_config('role', v_self, true);
      exception when others then
        insert into tickets_takeover.notes
        values ('map functions that could not be called, so only their parameters were compared', v_function.signature::text, sqlerrm);
        exit;
      end;
      return query select 'summary key', k, null::jsonb from jsonb_object_keys(v_map -> 'summary') k;
      return query
        select 'freshness key', k, null::jsonb from jsonb_object_keys(
          case when jsonb_typeof(v_map #> '{summary,freshness}') = 'object' then v_map #> '{summary,freshness}' else '{}' end
        ) k;
      return query
        select 'property', p.key, jsonb_object_agg(coalesce(f #>> '{properties,ticket_id}', f ->> 'id', f #>> '{properties,id}', ''), p.value)
        from (select f from jsonb_array_elements(v_map -> 'features') f limit 2000) as sample, jsonb_each(f -> 'properties') p
        group by p.key;
      exit when jsonb_array_length(v_map -> 'features') > 0
        or (select count(*) from (select from tickets.inc where geom is not null limit 50001) as mapped) > 50000;
    end loop;
  end loop;
end
$$;
comment on function tickets_takeover.map_interface() is 'What callers of the overloads of reporting.fn_tickets_for_map can rely on: parameters (value: the position), and, as they come out on the present data, summary keys, keys of its freshness, and properties (value: ticket_id to value, of 2000 features). One that fails when called is noted.';

-- What callers of the old map function rely on must be there, and mean the same.
create or replace function tickets_takeover.require_map_interface() returns void language plpgsql as $$
declare
  v_missing text;
  v_other text;
begin
  create table tickets_takeover.new_map_interface as select * from tickets_takeover.map_interface();
  select string_agg(format('%s %s', part, name), ', ' order by part, name) into v_missing
  from (
    select part, name from tickets_takeover.old_map_interface except select part, name from tickets_takeover.new_map_interface
  ) as missing;
  select string_agg(what, ', ' order by what) into v_other
  from (
    select format('parameter %s is at place %s and was at %s', old.name, min(new.value::text), old.value) as what
    from tickets_takeover.old_map_interface old join tickets_takeover.new_map_interface new using (part, name)
    where part = 'parameter' group by old.name, old.value having bool_and(new.value <> old.value)
    union all
    -- For the same ticket; an empty text and NULL are one.
    select distinct on (old.name) format('property %s of %s is %s and was %s', old.name, o.key, coalesce(n.value, 'null'), o.value)
    from tickets_takeover.old_map_interface old
    join tickets_takeover.new_map_interface new using (part, name)
    cross join jsonb_each(old.value) o
    join jsonb_each(new.value) n on n.key = o.key and n.key <> ''
    where part = 'property' and nullif(o.value, '""') is distinct from nullif(n.value, '""')
      and not (coalesce(nullif(o.value, '""'), 'null') = 'null' and coalesce(nullif(n.value, '""'), 'null') = 'null')
    order by 1
  ) as other;
  drop table tickets_takeover.new_map_interface;
  if v_missing is not null or v_other is not null then
    insert into tickets_takeover.stops values (
      concat_ws(
        '; ', 'reporting.fn_tickets_for_map has no longer: ' || v_missing, 'reporting.fn_tickets_for_map differs: ' || v_other,
        (
          select 'where it was called, ' || string_agg(format('%s said: %s', n.name, n.note), '; ' order by n.name)
          from tickets_takeover.notes n where n.about like 'map functions that could not be called%'
        )
      ),
      case current_setting('tickets_takeover.keep_old_map', true)
        when '1' then 'The old function cannot be kept: on the new tables it does not do what it did. Let its owner make it do without what it reads there and ours lacks; or, where its callers can do with ours, give it another name, and migrate without MIGRATE_KEEP_OLD_MAP.'
        else 'With MIGRATE_KEEP_OLD_MAP=1 the old function stays under its name, on the new tables, and ours is reporting.fn_tickets_for_map_v2.'
      end
    );
  end if;
end
$$;
comment on function tickets_takeover.require_map_interface() is 'What the old map functions had and the present one lacks, or shows otherwise for the same ticket, is a stop.';

create or replace function tickets_takeover.move_map_functions(p_from text, p_to text, p_but oid[] default '{}') returns void
language plpgsql as $$
declare
  v_function regprocedure;
begin
  for v_function in
    select oid from tickets_takeover.map_functions(p_from) as oid where oid <> all (p_but)
  loop
    execute format('alter function %s set schema %I', v_function, p_to);
  end loop;
end
$$;
comment on function tickets_takeover.move_map_functions(text, text, oid[]) is 'Moves the map functions but p_but from one schema to another, with their grants.';

create or replace function tickets_takeover.bind_old_maps() returns void
language plpgsql set check_function_bodies = off as $$
declare
  v_definition text;
begin
  for v_definition in
    select m.definition from tickets_takeover.old_maps m join pg_proc p on p.oid = m.function_id and p.pronamespace = 'reporting'::regnamespace
  loop
    execute v_definition;
  end loop;
end
$$;
comment on function tickets_takeover.bind_old_maps() is 'Makes the old map functions that stand in reporting read what the names mean now, each with its owner and grants.';

-- The map shows how fresh the tickets are, and so reads columns of import_meta, of which ours has two.
create or replace function tickets_takeover.keep_import_meta() returns void
  language plpgsql set search_path = pg_catalog, pg_temp
as $$
declare
  v_column record;
  v_ingested_at constant text := 'tickets.eat_ts(metadata ->> ''ingested_at'')';
begin
  for v_column in
    select a.attname, format_type(a.atttypid, a.atttypmod) as type, case a.atttypid
      when 'timestamptz'::regtype then v_ingested_at
      when 'timestamp'::regtype then format('(%s at time zone ''Africa/Nairobi'')', v_ingested_at)
      when 'text'::regtype then format('metadata ->> %L', a.attname)
    end as expression
    from pg_attribute a
    where a.attrelid = to_regclass('tickets_legacy.import_meta') and a.attnum > 0 and not a.attisdropped
      and not exists (select from pg_attribute n where n.attrelid = 'tickets.import_meta'::regclass and n.attname = a.attname and not n.attisdropped)
    order by a.attnum
  loop
    execute format('alter table tickets.import_meta add column %I %s', v_column.attname, v_column.type)
      || coalesce(' generated always as (' || v_column.expression || ') stored', '');
    execute format('comment on column tickets.import_meta.%I is %L', v_column.attname, case
      when v_column.expression is null then 'For the map of the Python version, which was kept. Always NULL.'
      else 'For the map of the Python version, which was kept: from metadata.'
    end);
  end loop;
end
$$;
comment on function tickets_takeover.keep_import_meta() is 'Gives tickets.import_meta the columns of the old one, for a map function that reads them: times are that of the last load, texts the value of that name in metadata.';

create or replace function tickets_takeover.keep_old_map() returns void language plpgsql as $$
declare
  v_function regprocedure;
begin
  if coalesce(current_setting('tickets_takeover.keep_old_map', true), '') <> '1' then
    return;
  end if;
  perform tickets_takeover.keep_import_meta();
  alter function reporting.fn_tickets_for_map(boolean, text, text, text) rename to fn_tickets_for_map_v2;
  for v_function in
    select function_id from tickets_takeover.old_maps
  loop
    execute format('alter function %s set schema reporting', v_function);
  end loop;
  perform tickets_takeover.bind_old_maps();
end
$$;
comment on function tickets_takeover.keep_old_map() is 'With MIGRATE_KEEP_OLD_MAP=1: the old map functions keep their names, on our tables, and ours is reporting.fn_tickets_for_map_v2.';
--! EndIncluded takeover/map-interface.sql
--! Included takeover/head.sql
-- Before any table of ours exists: lock the Python writer out, write down who reads the old tables, set the old schema
-- aside as tickets_legacy. Renaming a schema takes no table lock, so readers go on until the commit; with ALTER in place
-- they would wait for the copy.

create or replace function tickets_takeover.holders(p_relations oid[], p_harmless text[]) returns text
  language sql stable set search_path = pg_catalog, pg_temp
as $$
  select coalesce(
    string_agg(
      format('pid %s of user %s, %s, %s, transaction since %s: %s', a.pid, a.usename, a.application_name, a.state, a.xact_start, left(a.query, 200)),
      '; ' order by a.xact_start
    ),
    'by a session that has ended meanwhile'
  )
  from pg_stat_activity a
  where a.pid <> pg_backend_pid() and exists (
    select from pg_locks l
    where l.pid = a.pid and l.locktype = 'relation' and l.relation = any (p_relations) and l.granted and l.mode <> all (p_harmless)
      and l.database = (select oid from pg_database where datname = current_database())
  )
$$;
comment on function tickets_takeover.holders(oid[], text[]) is 'The sessions that hold locks on these relations, other than of the modes that are harmless: pid, user, application, state and query, as far as this role may see them.';

create or replace function tickets_takeover.lock_tickets() returns void language plpgsql as $$
declare
  v_table regclass;
begin
  perform set_config('lock_timeout', '5s', true);
  -- share row exclusive: readers go on, writers wait. The tickets first, as a load does.
  for v_table in
    select c.oid from pg_class c
    where c.relnamespace = 'tickets'::regnamespace and c.relkind in ('r', 'p') and pg_has_role(c.relowner, 'usage')
    order by c.relname <> 'inc', c.relname
  loop
    begin
      execute format('lock table %s in share row exclusive mode', v_table);
    exception when lock_not_available or deadlock_detected then
      perform set_config('lock_timeout', '10ms', true); -- what else stops it is looked for, but waited once is enough
      insert into tickets_takeover.stops values (
        format('Somebody is writing to %s: %s', v_table, tickets_takeover.holders(array[v_table::oid], array['AccessShareLock', 'RowShareLock'])),
        'Stop the schedule of import_tickets.py, let what is running end, and run it again.'
      );
    end;
  end loop;
end
$$;
comment on function tickets_takeover.lock_tickets() is 'Locks writers out of all tables of the schema tickets until the end of the transaction, and lets this transaction wait 5 s at most for any lock, and after one that it did not get for none. Who writes is a stop.';

create or replace function tickets_takeover.require_no_stops() returns void language plpgsql as $$
declare
  v_list text;
begin
  select string_agg(format(E'- %s.\n  %s', what, remedy), E'\n' order by what) into v_list from tickets_takeover.stops;
  if v_list is not null then
    raise exception E'Nothing was changed, because of:\n%', v_list;
  end if;
end
$$;
comment on function tickets_takeover.require_no_stops() is 'Raises, with all that stops the takeover or the way back as one list.';

create or replace function tickets_takeover.set_aside() returns void language plpgsql as $$
declare
  v_statement text;
begin
  if to_regnamespace('tickets_legacy') is not null then
    raise exception 'There is a schema tickets_legacy already: this database was taken over before.'
      using hint = 'To take it over again, drop or rename tickets_legacy. See docs/taking-over.md.';
  end if;

  perform tickets_takeover.lock_tickets();
  perform tickets_takeover.write_down_readers();
  insert into tickets_takeover.old_map_interface select distinct * from tickets_takeover.map_interface();
  insert into tickets_takeover.old_maps
  select p.oid, pg_get_functiondef(p.oid) from pg_proc p where p.pronamespace = to_regnamespace('reporting') and p.proname = 'fn_tickets_for_map';

  alter schema tickets rename to tickets_legacy;
  create schema tickets;
  perform tickets_takeover.move_map_functions('reporting', 'tickets_legacy');

  insert into tickets_takeover.notes
  select distinct 'roles whose default privileges in the schema now hold for what the migrating role makes', pg_get_userbyid(defaclrole)::text
  from pg_default_acl where defaclnamespace = 'tickets_legacy'::regnamespace and not pg_has_role(defaclrole, 'usage');

  -- Default privileges come first: they are for what is made from here on. Those of a role that this one may not act for (a
  -- superuser that made the old schema) would be lost: what it made, this one makes now.
  for v_statement in
    select format(
      'alter default privileges for role %I in schema tickets %s',
      case when pg_has_role(d.defaclrole, 'usage') then pg_get_userbyid(d.defaclrole) else current_user end, g
    )
    from pg_default_acl d
    cross join lateral tickets_takeover.grants(
      d.defaclacl, case d.defaclobjtype when 'r' then 'tables' when 'S' then 'sequences' when 'f' then 'functions' else 'types' end
    ) g
    where d.defaclnamespace = 'tickets_legacy'::regnamespace
    union all
    select tickets_takeover.grants(coalesce(nspacl, acldefault('n', nspowner)), 'schema tickets') from pg_namespace where nspname = 'tickets_legacy'
  loop
    execute v_statement;
  end loop;
end
$$;
comment on function tickets_takeover.set_aside() is 'The first half of a takeover: the old schema becomes tickets_legacy, and an empty schema tickets stands in its place, with its grants and default privileges. Raises where a tickets_legacy is there already.';
--! EndIncluded takeover/head.sql
--! Included takeover/history.sql
-- History that the old system kept, if it did: its README proposed closings (`closure_events`) or daily snapshots. It is imported
-- before our baselines, for nothing else tells of it. The tables themselves are people's own: carry_over() moves them.

create or replace function tickets_takeover.history_table(variadic p_names text[]) returns regclass
  language sql stable set search_path = pg_catalog, pg_temp
as $$
  select to_regclass('tickets_legacy.' || name)
  from unnest(p_names) with ordinality as n (name, position)
  where to_regclass('tickets_legacy.' || name) is not null
  order by position limit 1
$$;
comment on function tickets_takeover.history_table(text[]) is 'The first of these tables that the old schema had. NULL: none.';

-- snapshot_id 0 marks what no snapshot of ours told. A closing that another one follows was followed by a reopening, of which nobody noted the time: it is told with the later one.
create or replace function tickets_takeover.import_closures() returns void language plpgsql as $$
declare
  v_old regclass := tickets_takeover.history_table('closure_events', 'inc_closure_events');
  v_at timestamptz := (select tickets.eat_ts(m.metadata ->> 'snapshot_at') from tickets.import_meta m where m.dataset = 'inc');
  v_closed_at text := tickets_takeover.column_of(v_old, 'closed_at', 'closed');
  v_imported bigint;
begin
  if v_old is null then
    return;
  end if;
  if 'null' in (v_closed_at, tickets_takeover.column_of(v_old, 'ticket_id')) then
    insert into tickets_takeover.notes values ('history of the old system that cannot be read: carried over as it is', v_old::text, 'no columns ticket_id and closed_at');
    return;
  end if;
  execute format($sql$
    create table tickets_takeover.old_closures as
    select distinct on (ticket_id, closed_at)
      t.ticket_id, c.closed_at, coalesce(c.told_at, c.closed_at) as told_at, c.assigned_team, c.owner, c.cluster, c.region, c.mttr, c.sla_status, c.status
    from (
      select
        btrim(%2$s::text) as ticket_id, tickets.eat_ts(%3$s::text) as closed_at, tickets.eat_ts(%4$s::text) as told_at, %5$s::text as assigned_team,
        %6$s::text as owner, %7$s::text as cluster, lower(%8$s::text) as region,
        case when %9$s::text ~ '^[0-9]{1,9}(\.[0-9]+)?$' then round(%9$s::text::numeric) end as mttr, %10$s::text as sla_status, %11$s::text as status
      from %1$s o
    ) as c
    join tickets.inc t using (ticket_id)
    where c.closed_at is not null
    order by ticket_id, closed_at, told_at
  $sql$,
    v_old, tickets_takeover.column_of(v_old, 'ticket_id'), v_closed_at,
    tickets_takeover.column_of(v_old, 'snapshot_at', 'observed_at', 'recorded_at', 'detected_at', 'created_at', 'inserted_at'),
    tickets_takeover.column_of(v_old, 'assigned_team', 'closing_team', 'team'), tickets_takeover.column_of(v_old, 'owner'),
    tickets_takeover.column_of(v_old, 'cluster'), tickets_takeover.column_of(v_old, 'region'),
    tickets_takeover.column_of(v_old, 'mttr', 'mttr_minutes'), tickets_takeover.column_of(v_old, 'sla_status'),
    tickets_takeover.column_of(v_old, 'normalized_status', 'status')
  );

  with closings as (
    select c.*, row_number() over history as nth, lead(c.closed_at) over history is null as is_last
    from tickets_takeover.old_closures c
    window history as (partition by c.ticket_id order by c.closed_at)
  ),
  told as (
    select ticket_id, nth, 1 as step, 'reopened' as event, told_at, assigned_team, owner, cluster, region, null::timestamptz as closed_at, null::numeric as mttr, null as sla_status, null as status
    from closings where nth > 1
    union all
    select ticket_id, nth, 2, 'closed', told_at, assigned_team, owner, cluster, region, closed_at, mttr, sla_status, status from closings
    union all
    -- The old loader noted no reopening, nor a closing after the last one that is here: the ticket as it is says so.
    select ticket_id, c.nth, 3, 'reopened', v_at, t.assigned_team, t.owner, t.cluster, t.region, null, null, null, t.normalized_status
    from closings c join tickets.inc t using (ticket_id) where c.is_last and t.is_actionable
    union all
    select ticket_id, c.nth, 3, 'closure_corrected', v_at, null, null, null, null, t.closed_at, t.mttr, t.sla_status, t.normalized_status
    from closings c join tickets.inc t using (ticket_id)
    where c.is_last and t.is_actionable is not true and (t.closed_at, t.mttr) is distinct from (c.closed_at, c.mttr)
  )
  insert into tickets.inc_events (
    ticket_id, event, old_value, new_value, snapshot_id, snapshot_at, assigned_team, owner, cluster, region, created_at_service, closed_at, mttr, sla_status
  )
  select
    o.ticket_id, o.event, case when (o.nth, o.step) <> (1, 2) then '' end, coalesce(o.status, ''), case when o.step < 3 then 0 end, o.told_at,
    left(o.assigned_team, 100), o.owner, left(o.cluster, 100), left(o.region, 100), case when o.event <> 'closure_corrected' then t.created_at_service end,
    o.closed_at, o.mttr, o.sla_status
  from told o join tickets.inc t using (ticket_id)
  order by o.ticket_id, o.nth, o.step;

  select count(*) into v_imported from tickets_takeover.old_closures;
  insert into tickets_takeover.notes values ('history of the old system that was imported', v_old::text, format('%s closings', v_imported));
  execute format($sql$
    insert into tickets_takeover.notes
    select 'closings of the old history without a time, or of a ticket that is not there: not imported', left(%2$s::text, 300), %3$s::text
    from %1$s o
    where tickets.eat_ts(%3$s::text) is null or not exists (select from tickets.inc t where t.ticket_id = btrim(%2$s::text))
  $sql$, v_old, tickets_takeover.column_of(v_old, 'ticket_id'), v_closed_at);
  drop table tickets_takeover.old_closures;
end
$$;
comment on function tickets_takeover.import_closures() is 'Imports the closings that the old system noted into tickets.inc_events, in order, before the baselines: what a ticket is now is told after them. Notes how many, and those that could not be.';

create or replace function tickets_takeover.import_days() returns void language plpgsql as $$
declare
  v_old regclass := tickets_takeover.history_table('daily_snapshots', 'inc_daily_snapshots', 'ticket_snapshots');
  v_day text := tickets_takeover.column_of(v_old, 'day', 'snapshot_date', 'snapshot_day', 'date', 'as_of');
  v_open text := tickets_takeover.column_of(v_old, 'open', 'open_tickets', 'open_count', 'backlog');
  v_days bigint;
begin
  if v_old is null then
    return;
  end if;
  if v_open = 'null' and 'null' not in (tickets_takeover.column_of(v_old, 'ticket_id'), tickets_takeover.column_of(v_old, 'is_actionable')) then
    v_open := 'tickets.to_boolean(o.is_actionable::text)::integer'; -- a row per ticket
  end if;
  if 'null' in (v_day, v_open) then
    insert into tickets_takeover.notes values ('history of the old system that cannot be read: carried over as it is', v_old::text, 'no column for the day, or none for what was open');
    return;
  end if;
  execute format($sql$
    insert into tickets.inc_daily (day, cluster, region, assigned_team, open, snapshot_at, source)
    select day, cluster, region, assigned_team, open, tickets.eat_midnight(day + 1) - interval '1 second', 'imported'
    from (
      select %2$s::date as day, coalesce(left(%4$s::text, 100), '') as cluster, coalesce(lower(left(%5$s::text, 100)), '') as region,
        coalesce(left(%6$s::text, 100), '') as assigned_team, coalesce(sum(%3$s), 0) as open
      from %1$s o group by 1, 2, 3, 4
    ) as d
    where day < coalesce((select min(i.day) from tickets.inc_daily i), tickets.eat_day(now()))
  $sql$,
    v_old, v_day, v_open, tickets_takeover.column_of(v_old, 'cluster'), tickets_takeover.column_of(v_old, 'region'),
    tickets_takeover.column_of(v_old, 'assigned_team', 'team')
  );
  select count(distinct day) into v_days from tickets.inc_daily where source = 'imported';
  insert into tickets_takeover.notes values ('history of the old system that was imported', v_old::text, format('%s days of backlog', v_days));
end
$$;
comment on function tickets_takeover.import_days() is 'Imports the days of backlog that the old system noted into tickets.inc_daily: those before the first one that is there. Either counts, or a row per ticket and day. Notes how many.';
--! EndIncluded takeover/history.sql
--! Included takeover/comments.sql
-- What people wrote about constraints and indexes of the old tables, and indexes of theirs. Comments on tables and columns are ours;
-- those on views, functions, foreign keys and triggers of others come along with them (readers.sql).

create or replace function tickets_takeover.replay_comments() returns void
  language plpgsql set search_path = pg_catalog, pg_temp
as $$
declare
  v_part record;
begin
  for v_part in
    with parts as (
      select 'constraint' as kind, k.conrelid as old_table, k.conname as name, obj_description(k.oid, 'pg_constraint') as comment, null as definition
      from pg_constraint k
      where not exists (select from pg_depend d where d.classid = 'pg_constraint'::regclass and d.objid = k.oid and d.deptype = 'P')
      union all
      select 'index', i.indrelid, c.relname, obj_description(i.indexrelid, 'pg_class'),
        case when not exists (select from pg_constraint k where k.conindid = i.indexrelid) then pg_get_indexdef(i.indexrelid) end
      from pg_index i join pg_class c on c.oid = i.indexrelid
    )
    select p.kind, p.name, p.comment, p.definition, new.oid::regclass as new_table,
      case p.kind
        when 'constraint' then exists (select from pg_constraint n where n.conrelid = new.oid and n.conname = p.name)
        else exists (select from pg_index n join pg_class c on c.oid = n.indexrelid where n.indrelid = new.oid and c.relname = p.name)
      end as is_there,
      exists (
        select from pg_index n
        where n.indrelid = new.oid and split_part(pg_get_indexdef(n.indexrelid), ' USING ', 2) = split_part(p.definition, ' USING ', 2)
      ) as is_covered
    from parts p
    join pg_class old on old.oid = p.old_table and old.relnamespace = 'tickets_legacy'::regnamespace
    join tickets_takeover.main_relations m on m.name = old.relname
    join pg_class new on new.relname = old.relname and new.relnamespace = 'tickets'::regnamespace and new.relkind in ('r', 'p')
    order by p.kind, p.name
  loop
    if v_part.comment is not null and v_part.is_there then
      execute case v_part.kind
        when 'constraint' then format('comment on constraint %I on %s is %L', v_part.name, v_part.new_table, v_part.comment)
        else format('comment on index tickets.%I is %L', v_part.name, v_part.comment)
      end;
    elsif v_part.comment is not null then
      insert into tickets_takeover.notes values (case v_part.kind when 'constraint' then 'comments on constraints that are no longer there' else 'comments on indexes that are no longer there' end, v_part.name, v_part.comment);
    end if;
    if v_part.definition is not null and not v_part.is_covered then
      insert into tickets_takeover.notes values ('indexes of the old tables that ours lack', v_part.name, v_part.definition);
    end if;
  end loop;
end
$$;
comment on function tickets_takeover.replay_comments() is 'Comments on constraints and indexes of the old tables go to those of the same name on ours; the others, and indexes that ours lack, are noted.';
--! EndIncluded takeover/comments.sql
--! Included takeover/rights.sql
-- Who may do what on our tables: what he could on the old ones, but for loading tickets and for what would run as the worker.

create or replace function tickets_takeover.note_rights(p_kept text[]) returns void language plpgsql as $$
begin
  insert into tickets_takeover.notes
  select 'rights to write that are not given again: the pipeline alone loads tickets', acl.role, string_agg(acl.statement || ';', ' ' order by acl.statement)
  from (
    select pg_get_userbyid(a.grantee)::text as role, format('grant %s on %s to %I', lower(a.privilege_type), r.new::regclass, pg_get_userbyid(a.grantee)) as statement
    from tickets_takeover.exchanged r
    join pg_class c on c.oid = r.old
    cross join aclexplode(coalesce(c.relacl, acldefault('r', c.relowner))) a
    where r.is_loaded and a.grantee <> 0 and pg_get_userbyid(a.grantee) <> current_user and a.privilege_type <> all (p_kept)
  ) as acl
  group by acl.role;
  insert into tickets_takeover.notes
  select 'rights on single columns that are not given again: ours lacks the column, or the pipeline alone writes it',
    case a.grantee when 0 then 'public' else pg_get_userbyid(a.grantee)::text end, format('%s (%I) on %s', lower(a.privilege_type), old.attname, r.new::regclass)
  from tickets_takeover.exchanged r
  join pg_attribute old on old.attrelid = r.old and not old.attisdropped
  cross join aclexplode(old.attacl) a
  where (r.is_loaded and a.privilege_type <> all (p_kept))
    or not exists (select from pg_attribute new where new.attrelid = r.new and new.attname = old.attname and not new.attisdropped);
  insert into tickets_takeover.notes
  select 'tables with row security and no policy, as before: of these others see no row', r.new::regclass::text, null
  from tickets_takeover.exchanged r join pg_class c on c.oid = r.old
  where c.relrowsecurity;
  insert into tickets_takeover.notes
  select distinct 'roles that could call the map function because everyone could, and may not now', role.name, format('grant execute on function %s to %s;', f.new::regprocedure, role.name)
  from tickets_takeover.exchanged_functions f
  join pg_proc p on p.oid = f.old and p.proname = 'fn_tickets_for_map'
  join aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) a on a.grantee = 0
  join pg_namespace n on n.nspname = 'reporting'
  cross join aclexplode(coalesce(n.nspacl, acldefault('n', n.nspowner))) u
  cross join lateral (select case u.grantee when 0 then 'public' else quote_ident(pg_get_userbyid(u.grantee)) end) as role (name)
  where u.privilege_type = 'USAGE' and f.as_owner
    and (u.grantee = 0 or not has_function_privilege(u.grantee, f.new, 'execute'));
end
$$;
comment on function tickets_takeover.note_rights(text[]) is 'Notes the rights that replay_grants(), which calls it, did not give again. p_kept: those that it does on the tables that are loaded.';

-- Who could read the old objects can read ours. What he may not do any more is noted, with the statement that gives it back.
create or replace function tickets_takeover.replay_grants() returns void language plpgsql as $$
declare
  v_statement text;
  -- The old loader must not write past the ledger, and a trigger there would run as the worker.
  c_kept constant text[] := array['SELECT', 'REFERENCES'];
begin
  create table tickets_takeover.exchanged as
  select old.oid as old, new.oid as new, new.relname in ('inc', 'crq', 'import_meta') as is_loaded
  from pg_class old
  join tickets_takeover.main_relations m on m.name = old.relname -- another one of a name of ours has nothing to do with it
  join pg_class new on new.relname = old.relname and new.relnamespace = 'tickets'::regnamespace
  where old.relnamespace = 'tickets_legacy'::regnamespace and old.relkind in ('r', 'p', 'v', 'm') and new.relkind in ('r', 'p', 'v', 'm');
  create table tickets_takeover.exchanged_functions as
  select old.oid as old, new.oid as new, new.prosecdef as as_owner
  from pg_proc old
  join pg_proc new on new.proname = old.proname and (
    new.pronamespace = 'tickets'::regnamespace and oidvectortypes(new.proargtypes) = oidvectortypes(old.proargtypes) and not new.prosecdef
    -- One function instead of all overloads.
    or new.pronamespace = 'reporting'::regnamespace and new.proname = 'fn_tickets_for_map'
  )
  where old.pronamespace = 'tickets_legacy'::regnamespace;

  for v_statement in
    select tickets_takeover.grants(
      coalesce(c.relacl, acldefault('r', c.relowner)), r.new::regclass::text, p_only := case when r.is_loaded then c_kept end
    )
    from tickets_takeover.exchanged r join pg_class c on c.oid = r.old
    union all
    select tickets_takeover.grants(a.attacl, r.new::regclass::text, a.attname, case when r.is_loaded then c_kept end)
    from tickets_takeover.exchanged r
    join pg_attribute a on a.attrelid = r.old and not a.attisdropped
    join pg_attribute b on b.attrelid = r.new and b.attname = a.attname and not b.attisdropped
    union all
    -- Rows that nobody but the owner saw stay so.
    select format('alter table %s enable row level security', r.new::regclass)
    from tickets_takeover.exchanged r join pg_class c on c.oid = r.old
    where c.relrowsecurity
    union all
    -- But their owner did.
    select format('create policy former_owner on %s for select to %I using (true)', r.new::regclass, o.rolname)
    from tickets_takeover.exchanged r join pg_class c on c.oid = r.old join pg_roles o on o.oid = c.relowner
    where c.relrowsecurity and o.rolname <> current_user and not o.rolsuper
    union all
    -- A view that read with its reader's rights does so again, or whoever could not read the tickets could now.
    select unnest(array['alter view tickets.inc_open_sla set (security_invoker = true)'] || array(
      select tickets_takeover.grants(c.relacl, 'tickets.sla_rules', p_only := array['SELECT']) -- which it reads, too
    ))
    from pg_class c
    where c.oid = to_regclass('tickets_legacy.inc_open_sla')
      and exists (select from pg_options_to_table(c.reloptions) o where o.option_name = 'security_invoker' and o.option_value::boolean)
    union all
    select g
    from tickets_takeover.exchanged_functions f
    join pg_proc p on p.oid = f.old
    cross join lateral tickets_takeover.grants(p.proacl, 'function ' || f.new::regprocedure) as g
    -- What runs with its owner's rights is not for everyone.
    where not (f.as_owner and g ~ ' to public$')
    union all
    -- Everyone could call the old map function: those who could read the tickets can call ours, each by name.
    select format('grant execute on function %s to %I', f.new::regprocedure, pg_get_userbyid(r.grantee))
    from tickets_takeover.exchanged_functions f
    join pg_proc p on p.oid = f.old and p.proname = 'fn_tickets_for_map'
    join aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) a on a.grantee = 0
    join lateral (
      select acl.grantee from pg_class c cross join aclexplode(coalesce(c.relacl, acldefault('r', c.relowner))) acl
      where c.oid = 'tickets_legacy.inc'::regclass and acl.privilege_type = 'SELECT' and acl.grantee <> 0
    ) as r on true
  loop
    execute v_statement;
  end loop;

  perform tickets_takeover.note_rights(c_kept);
  drop table tickets_takeover.exchanged, tickets_takeover.exchanged_functions;
end
$$;
comment on function tickets_takeover.replay_grants() is 'Who could read the old objects, or call the map function, can do so with ours. Rights to write inc, crq and import_meta, and what only everyone had, are noted instead.';

-- A function of theirs that fits better than one of ours, and stands beside it, would be called in its place.
create or replace function tickets_takeover.keep_others_out() returns void language plpgsql as $$
declare
  v_role text;
begin
  for v_role in
    select case a.grantee when 0 then 'public' else quote_ident(pg_get_userbyid(a.grantee)) end
    from pg_namespace n cross join aclexplode(n.nspacl) a
    where n.nspname = 'tickets' and a.privilege_type = 'CREATE' and a.grantee <> n.nspowner
  loop
    execute format('revoke create on schema tickets from %s', v_role);
    insert into tickets_takeover.notes
    values ('roles that could create in the schema tickets, and may not now: what stands there runs with the worker''s rights', v_role, null);
  end loop;
end
$$;
comment on function tickets_takeover.keep_others_out() is 'Takes the right to create in our schema back from whoever had it in the old one, and notes who.';
--! EndIncluded takeover/rights.sql
--! Included takeover/fill.sql
-- When all of ours exists, empty, and tickets_legacy holds the old tables: fill, check, replay the grants, re-point the
-- readers. Not all columns of the old tables are known: those that are taken if they are there are named here.

create or replace function tickets_takeover.column_of(p_table regclass, variadic p_names text[]) returns text
  language sql stable set search_path = pg_catalog, pg_temp
as $$
  select coalesce((
    select format('o.%I', attname) from pg_attribute
    where attrelid = p_table and attname = any (p_names) and not attisdropped
    order by array_position(p_names, attname::text) limit 1
  ), 'null')
$$;
comment on function tickets_takeover.column_of(regclass, text[]) is 'The first of these columns that the table has, as SQL (`o.geom`), or `null`.';

-- Freshness first: it says how old the baseline of the history is. The envelope is one jsonb, or columns.
create or replace function tickets_takeover.fill_import_meta() returns void language plpgsql as $$
declare
  v_old regclass := to_regclass('tickets_legacy.import_meta');
  v_dataset text := tickets_takeover.column_of(v_old, 'dataset', 'name', 'key', 'source');
  v_metadata text := tickets_takeover.column_of(v_old, 'metadata', 'meta', 'envelope', 'value', 'data');
  v_written_at text := tickets_takeover.column_of(v_old, 'imported_at', 'ingested_at', 'loaded_at', 'checked_at', 'updated_at', 'created_at', 'id');
begin
  if v_old is null then
    return;
  end if;
  if v_dataset = 'null' then
    insert into tickets_takeover.notes values ('import_meta in which no column names the dataset: the next file is loaded as one that was never seen', v_old::text, null);
    return;
  end if;
  execute format($sql$
    create table tickets_takeover.old_import_meta as
    select
      lower(btrim(m.dataset)) as dataset, m.dataset as name, case when jsonb_typeof(m.metadata) = 'object' then m.metadata else '{}' end as metadata,
      row_number() over (order by m.written_at nulls first) as nth
    from (select %2$s::text as dataset, (%3$s)::jsonb as metadata, %4$s as written_at from %1$s o) as m
  $sql$, v_old, v_dataset, case v_metadata when 'null' then 'to_jsonb(o)' else v_metadata end, v_written_at);

  insert into tickets.import_meta (dataset, metadata)
  select
    m.dataset,
    m.metadata - array['source_etag', 'etag', 'source_last_modified', 'last_modified', 'snapshot_at', 'ingested_at', 'checked_at']
      || jsonb_strip_nulls(jsonb_build_object(
        -- As the bucket's listing is read, so that an unchanged file is recognised.
        'source_etag', nullif(btrim(regexp_replace(coalesce(m.metadata ->> 'source_etag', m.metadata ->> 'etag'), '^\s*W/', ''), E'" \t'), ''),
        'source_last_modified', tickets.eat_ts(coalesce(m.metadata ->> 'source_last_modified', m.metadata ->> 'last_modified')),
        'snapshot_at', coalesce(file.exported_at, tickets.eat_ts(m.metadata ->> 'snapshot_at')),
        'ingested_at', tickets.eat_ts(m.metadata ->> 'ingested_at'),
        'checked_at', tickets.eat_ts(coalesce(m.metadata ->> 'checked_at', m.metadata ->> 'ingested_at'))
      ))
  from (
    select distinct on (dataset) * from tickets_takeover.old_import_meta where dataset in ('inc', 'crq')
    order by dataset, name desc, nth desc -- `inc` before `INC`; where every load left a row, the newest
  ) as m
  -- The file's name holds its time, in EAT, whatever the value that holds the name is called.
  cross join lateral (
    select max(tickets.eat_ts(parts[1] || ' ' || replace(parts[2], '-', ':'))) as exported_at
    from jsonb_each_text(m.metadata) as e (key, value)
    cross join regexp_match(e.value, '([0-9]{4}-[0-9]{2}-[0-9]{2})T([0-9]{2}-[0-9]{2}-[0-9]{2})[^/]*\.csv$', 'i') as parts
  ) as file;

  insert into tickets_takeover.notes
  select 'rows of import_meta of no known dataset, left in tickets_legacy', name
  from tickets_takeover.old_import_meta where dataset in ('inc', 'crq') is not true;
  drop table tickets_takeover.old_import_meta;
end
$$;
comment on function tickets_takeover.fill_import_meta() is 'Fills tickets.import_meta from tickets_legacy.';

create or replace function tickets_takeover.fill_tickets() returns void language plpgsql as $$
declare
  v_dataset text;
  v_old regclass;
  v_indexes text[];
  v_statement text;
begin
  foreach v_dataset in array array['inc', 'crq'] loop
    v_old := to_regclass('tickets_legacy.' || v_dataset);
    continue when v_old is null;
    -- A ticket stands where it stood, even where our rules would place it elsewhere: the first snapshot does that.
    execute format('alter table tickets.%I disable trigger user', v_dataset);
    -- Indexes are built afterwards: thousands of tickets at one centroid make a GiST index slow to grow.
    select array_agg(pg_get_indexdef(indexrelid)) into v_indexes
    from pg_index where indrelid = to_regclass('tickets.' || v_dataset) and not indisprimary;
    execute (
      select 'drop index ' || string_agg(indexrelid::regclass::text, ', ')
      from pg_index where indrelid = to_regclass('tickets.' || v_dataset) and not indisprimary
    );
    execute format($sql$
      -- Ids that our CHECK refuses, and those with blanks around them, which no file will ever bring again.
      with odd as materialized (
        select ticket_id, btrim(ticket_id) as id, row_number() over (partition by btrim(ticket_id) order by ticket_id) as nth
        from %2$s where ticket_id <> btrim(ticket_id) or length(ticket_id) not between 1 and 200
      ),
      mended as materialized (
        select o.ticket_id,
          case
            when length(o.id) between 1 and 200 and o.nth = 1 and not exists (select from %2$s l where l.ticket_id = o.id) then o.id
            else left(o.id, 160) || '~' || md5(o.ticket_id)
          end as id
        from odd o
      ),
      old as not materialized (
        select o.ticket_id, o.raw, %3$s as geom, %4$s as geo_source, coalesce(%5$s, now()) as ingested_at from %2$s o
      ),
      noted as (
        insert into tickets_takeover.notes
        select 'tickets of %1$s with another id than before', left(ticket_id, 300), 'now ' || id from mended
        union all
        select 'tickets of %1$s whose coordinate or geo_source could not be kept', left(ticket_id, 300),
          concat_ws(' ', geo_source, st_astext(geom))
        from old
        where not tickets.is_lng_lat(geom) or case
          when geom is null then geo_source <> 'none' else coalesce(geo_source, '') not in ('feed', 'location', 'cluster') end
      )
      insert into tickets.%1$I (ticket_id, raw, geom, geo_source, ingested_at)
      select
        coalesce(m.id, o.ticket_id),
        coalesce(o.raw, '{}'),
        place.geom,
        case
          when place.geom is null then 'none'
          when o.geo_source in ('feed', 'location', 'cluster') then o.geo_source
          when place.geom = tickets.feed_point(o.raw) then 'feed'
          when o.raw ->> 'location_name' <> '' then 'location'
          else 'cluster'
        end,
        o.ingested_at
      from old o
      left join mended m on m.ticket_id = o.ticket_id
      cross join lateral (select case when tickets.is_lng_lat(o.geom) then o.geom end as geom offset 0) as place
    $sql$,
      v_dataset, v_old, tickets_takeover.column_of(v_old, 'geom') || '::geometry',
      tickets_takeover.column_of(v_old, 'geo_source') || '::text', tickets_takeover.column_of(v_old, 'ingested_at') || '::timestamptz'
    );
    foreach v_statement in array v_indexes loop
      execute v_statement;
    end loop;
    execute format('alter table tickets.%I enable trigger user', v_dataset);
    if v_dataset = 'inc' then
      perform tickets_takeover.import_closures();
    end if;
    perform tickets_ops.record_baselines(
      v_dataset, null, (select tickets.eat_ts(m.metadata ->> 'snapshot_at') from tickets.import_meta m where m.dataset = v_dataset)
    );
    execute format($sql$
      update tickets.import_meta m
      set metadata = m.metadata || jsonb_build_object('ingested_at', newest.ingested_at)
      from (select max(ingested_at) as ingested_at from tickets.%1$I) as newest
      where m.dataset = %1$L and not m.metadata ? 'ingested_at'
    $sql$, v_dataset);
    execute format('analyze tickets.%I, tickets.%I', v_dataset, v_dataset || '_events');
  end loop;
end
$$;
comment on function tickets_takeover.fill_tickets() is 'Fills the ticket tables from tickets_legacy, each ticket with the place that it had, and begins their history.';

-- The old gazetteers, as they are: a name, a coordinate in one of several forms, whether a person checked it.
create or replace function tickets_takeover.read_old_places() returns void language plpgsql as $$
declare
  v_kind text;
  v_old regclass;
  v_name text;
  v_geom text;
  c_points constant text := $re$(^|\.)geo(metry|graphy)\(Point\W$re$;
  v_lat text;
  v_lng text;
begin
  create table tickets_takeover.old_places (
    old_id bigint generated always as identity, kind text, name text, cluster text, geom geometry(Point, 4326), verified boolean, provider text, query text, note text, fetched_at timestamptz
  );
  foreach v_kind in array array['cluster', 'location'] loop
    v_old := to_regclass(format('tickets_legacy.geo_%ss', v_kind));
    continue when v_old is null;
    v_name := tickets_takeover.column_of(v_old, variadic case v_kind
      when 'cluster' then array['cluster', 'cluster_name', 'name'] else array['location_name', 'location', 'location_key', 'name'] end
      -- Else the text that is its key, whatever it is called.
      || array(
        select a.attname::text from pg_index i join pg_attribute a on a.attrelid = i.indrelid and a.attnum = any (i.indkey)
        where i.indrelid = v_old and i.indisprimary and a.atttypid in ('text'::regtype, 'varchar'::regtype)
          and a.attname not in ('cluster', 'cluster_name')
      ));
    v_geom := tickets_takeover.column_of(v_old, variadic array['geom', 'geog'] || array(
      select attname::text from pg_attribute where attrelid = v_old and format_type(atttypid, atttypmod) ~ c_points order by attnum
    ));
    v_lat := tickets_takeover.column_of(v_old, 'latitude', 'lat');
    v_lng := tickets_takeover.column_of(v_old, 'longitude', 'lng', 'lon', 'long');
    if v_name = 'null' or (v_geom = 'null' and 'null' in (v_lat, v_lng)) then
      insert into tickets_takeover.stops values (
        format(
          'No column of tickets.geo_%ss is known to hold %s', v_kind,
          case when v_name = 'null' then 'the name of the ' || v_kind else 'the coordinate' end
        ),
        format(
          'Rename it to %s, as the takeover expects it, and run the migration again.',
          case when v_name = 'null' then v_kind else 'geom (or latitude and longitude)' end
        )
      );
      continue;
    end if;
    execute format($sql$
      insert into tickets_takeover.old_places (kind, name, cluster, geom, verified, provider, query, note, fetched_at)
      select %1$L, o.name, nullif(btrim(o.cluster), ''),
        case when tickets.is_lng_lat(o.geom) and o.status is distinct from 'rejected' then o.geom end,
        coalesce(tickets.to_boolean(o.verified), false), o.provider, o.query, o.note, tickets.eat_ts(o.fetched_at)
      from (
        select
          %2$s::text as name,
          %3$s::text as cluster,
          coalesce(
            st_setsrid(%4$s::geometry, 4326),
            st_setsrid(st_makepoint(tickets.to_degrees(%5$s::text), tickets.to_degrees(%6$s::text)), 4326)
          ) as geom,
          %7$s::text as verified, %8$s::text as provider, %9$s::text as query, %10$s::text as note, %11$s::text as fetched_at,
          %12$s::text as status
        from %13$s o
      ) as o
    $sql$,
      v_kind, v_name, case v_kind when 'location' then tickets_takeover.column_of(v_old, 'cluster', 'cluster_name') else 'null' end,
      v_geom, v_lng, v_lat,
      tickets_takeover.column_of(v_old, 'verified', 'is_verified'), tickets_takeover.column_of(v_old, 'provider', 'source', 'geocoder'),
      tickets_takeover.column_of(v_old, 'query'), tickets_takeover.column_of(v_old, 'note', 'notes'),
      tickets_takeover.column_of(v_old, 'fetched_at', 'geocoded_at', 'updated_at', 'created_at'),
      tickets_takeover.column_of(v_old, 'status'), v_old
    );
  end loop;
end
$$;
comment on function tickets_takeover.read_old_places() is 'Reads the old gazetteers into tickets_takeover.old_places, a table of this transaction. A gazetteer of which no column is known is a stop.';

-- Ours. The old gazetteer of locations may have been keyed by the name alone: a name goes to every cluster whose tickets use it.
-- What a person verified goes, as verified, to one of them: his word was about one place.
-- A coordinate that tickets carry and no gazetteer has is taken from the tickets, or the next snapshot would take it away.
-- Over 100 lines: statements in one order. Each sees what those before it wrote, and the last note what none of them took.
create or replace function tickets_takeover.fill_gazetteers() returns void language plpgsql as $$
begin
  alter table tickets.geo_clusters disable trigger user;
  alter table tickets.geo_locations disable trigger user;

  create table tickets_takeover.used_places as
  select
    tickets.cluster_key(t.cluster) as cluster_key, t.location_key, t.geo_source, t.geom,
    mode() within group (order by left(btrim(t.cluster), 200)) as cluster, min(t.location_name) as location_name, count(*) as tickets
  from (
    select cluster, location_key, geo_source, geom, location_name from tickets.inc
    union all
    select cluster, location_key, geo_source, geom, location_name from tickets.crq
  ) as t
  where tickets.cluster_key(t.cluster) is not null
  group by 1, 2, 3, 4;
  analyze tickets_takeover.used_places;

  insert into tickets.geo_clusters (cluster, geom, provider, query, verified, note, fetched_at)
  select distinct on (cluster_key) cluster, geom, provider, query, verified, note, fetched_at
  from (
    select tickets.cluster_key(o.name) as cluster_key, left(btrim(o.name), 200) as cluster,
      o.geom, o.provider, o.query, o.verified, o.note, o.fetched_at, o.name, true as listed, 0 as tickets
    from tickets_takeover.old_places o where o.kind = 'cluster' and tickets.cluster_key(o.name) is not null
    union all
    select u.cluster_key, mode() within group (order by u.cluster), u.geom,
      null, null, false, 'Taken over from its tickets: the old gazetteer did not list it.', null, null, false, sum(u.tickets)
    from tickets_takeover.used_places u where u.geo_source = 'cluster' group by u.cluster_key, u.geom
  ) as offered
  order by cluster_key, verified desc, geom is not null desc, listed desc, tickets desc, name collate "C", geom;

  insert into tickets.geo_locations (
    cluster, location_key, location_name, status, geom, provider, query, distance_km, verified, note, attempts, fetched_at, expires_at
  )
  with clusters as (
    select cluster_key, coalesce(tickets.known_spelling(cluster_key), mode() within group (order by cluster)) as cluster
    from tickets_takeover.used_places group by cluster_key
  ),
  places as (
    select c.cluster_key, c.cluster, u.location_key, min(u.location_name) as location_name
    from tickets_takeover.used_places u join clusters c using (cluster_key)
    where u.location_key is not null group by 1, 2, 3
    union
    -- A place that is listed with its cluster, and that no ticket uses now.
    select tickets.cluster_key(o.cluster), coalesce(tickets.known_spelling(o.cluster), left(o.cluster, 200)), tickets.location_key(o.name), min(o.name)
    from tickets_takeover.old_places o
    where o.kind = 'location' and tickets.cluster_key(o.cluster) is not null and tickets.location_key(o.name) is not null
      and not exists (
        select from tickets_takeover.used_places u
        where u.cluster_key = tickets.cluster_key(o.cluster) and u.location_key = tickets.location_key(o.name)
      )
    group by 1, 2, 3
  ),
  -- The cluster in which a person checked it: its own; where none is written, the nearest that has it within its guard, else
  -- the only one that uses the name, else one without a centroid whose tickets stand there.
  homes as (
    select distinct on (o.old_id) o.old_id, p.cluster_key
    from tickets_takeover.old_places o
    join places p on p.location_key = tickets.location_key(o.name)
    left join tickets.geo_clusters c on tickets.cluster_key(c.cluster) = p.cluster_key
    left join tickets_takeover.used_places u
      on u.cluster_key = p.cluster_key and u.location_key = p.location_key and u.geo_source = 'location' and u.geom = o.geom
    cross join lateral (
      select tickets_ops.distance_km(c.geom, o.geom) as km,
        (select count(*) from places other where other.location_key = p.location_key) = 1 as is_only
    ) as lies
    where o.kind = 'location' and o.verified and case
      when tickets.cluster_key(o.cluster) is not null then tickets.cluster_key(o.cluster) = p.cluster_key
      else lies.km <= c.guard_km or lies.is_only or (c.geom is null and u.tickets > 0)
    end
    order by o.old_id, lies.km <= c.guard_km desc nulls last, lies.km, u.tickets desc nulls last, p.cluster_key
  ),
  offered as (
    select p.*, o.geom, o.provider, o.query, h.old_id is not null as verified, o.note, o.fetched_at, o.name, true as listed,
      tickets.cluster_key(o.cluster) is not distinct from p.cluster_key as own, coalesce(u.tickets, 0) as tickets
    from tickets_takeover.old_places o
    join places p on p.location_key = tickets.location_key(o.name)
    left join homes h on h.old_id = o.old_id and h.cluster_key = p.cluster_key
    left join tickets_takeover.used_places u
      on u.cluster_key = p.cluster_key and u.location_key = p.location_key and u.geo_source = 'location' and u.geom = o.geom
    where o.kind = 'location'
    union all
    select p.*, u.geom, null, null, false, 'Taken over from its tickets: the old gazetteer did not list it.', null, null, false, false, u.tickets
    from places p join tickets_takeover.used_places u on u.cluster_key = p.cluster_key and u.location_key = p.location_key
    where u.geo_source = 'location'
  ),
  chosen as (
    select distinct on (cluster, location_key) * from offered
    order by cluster, location_key, verified desc, geom is not null desc, listed desc, own desc, tickets desc, name collate "C", geom
  ),
  judged as (
    select l.*,
      verdict.distance_km,
      case
        when l.geom is null then case when l.verified then 'rejected' else 'not_found' end
        when l.verified then 'found'
        else verdict.status
      end as status,
      verdict.doubt
    from chosen l left join tickets.geo_clusters c on c.cluster = l.cluster
    cross join lateral tickets_ops.judge_inherited(l.geom, c.geom, c.guard_km) as verdict
  )
  select
    cluster, location_key, location_name, status, geom, provider, query, distance_km, verified,
    coalesce(note, case status when 'needs_review' then doubt end),
    case status when 'not_found' then 1 else 0 end,
    fetched_at,
    -- From today on: otherwise everything would be asked again at once.
    case when not verified then tickets_ops.answer_expires_at(status, 1, null, now()) end
  from judged;

  alter table tickets.geo_clusters enable trigger user;
  alter table tickets.geo_locations enable trigger user;
  analyze tickets.geo_clusters, tickets.geo_locations;

  insert into tickets_takeover.notes
  select format('places of the old gazetteer geo_%ss without a usable coordinate', kind), name, case when verified then 'verified' end
  from tickets_takeover.old_places where geom is null
  union all
  select 'locations of the old gazetteer that no ticket with a cluster uses, left in tickets_legacy', o.name, case when o.verified then 'verified' end
  from tickets_takeover.old_places o
  where o.kind = 'location' and not exists (select from tickets.geo_locations l where l.location_key = tickets.location_key(o.name))
  union all
  select 'locations that were verified without saying in which cluster, and lie in none: taken over as not verified', o.name, st_astext(o.geom)
  from tickets_takeover.old_places o
  where o.kind = 'location' and o.verified
    and exists (select from tickets.geo_locations l where l.location_key = tickets.location_key(o.name))
    and not exists (
      select from tickets.geo_locations l where l.location_key = tickets.location_key(o.name) and l.verified and l.geom is not distinct from o.geom
    )
  union all
  select 'clusters of the old gazetteer without a name, left in tickets_legacy', o.name, case when o.verified then 'verified' end
  from tickets_takeover.old_places o where o.kind = 'cluster' and tickets.cluster_key(o.name) is null
  union all
  select 'clusters of the old gazetteer outranked by another row for the same cluster, left in tickets_legacy', o.name,
    format('%s is at %s', c.cluster, st_astext(c.geom))
  from tickets_takeover.old_places o
  join tickets.geo_clusters c on tickets.cluster_key(c.cluster) = tickets.cluster_key(o.name)
  where o.kind = 'cluster' and o.geom is not null and o.geom is distinct from c.geom
  union all
  select 'locations of the old gazetteer outranked by another row for the same place, left in tickets_legacy', o.name,
    format('(%s, %s) is at %s', l.cluster, l.location_key, st_astext(l.geom))
  from tickets_takeover.old_places o
  join tickets.geo_locations l on l.location_key = tickets.location_key(o.name)
  where o.kind = 'location' and o.geom is not null and o.geom is distinct from l.geom
  union all
  select 'locations that need review: beyond the guard of their cluster', l.location_name, format('(%s, %s), %s km', l.cluster, l.location_key, l.distance_km)
  from tickets.geo_locations l where l.status = 'needs_review';
end
$$;
comment on function tickets_takeover.fill_gazetteers() is 'Fills the gazetteers from tickets_takeover.old_places and from what tickets carry.';

-- What the first snapshot will move, because our rules or the gazetteers say otherwise.
create or replace function tickets_takeover.note_moves() returns void language plpgsql as $$
declare
  v_dataset text;
begin
  foreach v_dataset in array array['inc', 'crq'] loop
    execute format($sql$
      insert into tickets_takeover.notes
      select 'tickets of %1$s that the next snapshot will place elsewhere', t.ticket_id,
        format('from %%s %%s to %%s %%s', t.geo_source, st_astext(t.geom), place.geo_source, st_astext(place.geom))
      from tickets.%1$I t %2$s
      cross join lateral tickets.place(t.raw, l.geom, c.geom) as place
      where t.geo_source <> place.geo_source or t.geom is distinct from place.geom
    $sql$, v_dataset, tickets.gazetteer_joins('t.cluster', 't.location_key'));
  end loop;
end
$$;
comment on function tickets_takeover.note_moves() is 'Notes the tickets that the next snapshot will place elsewhere.';

-- The readers last: while they are re-pointed, and until the commit, they wait. So all else is done before.
create or replace function tickets_takeover.complete() returns void language plpgsql as $$
declare
  v_note record;
  v_made_meanwhile text;
begin
  drop table tickets_takeover.old_places, tickets_takeover.used_places;
  insert into tickets_takeover.notes
  select 'objects of the old schema that have no counterpart, left in tickets_legacy', name, kind from tickets_takeover.left_behind;
  for v_note in select about, count(*) from tickets_takeover.notes group by about order by about loop
    raise notice '%: %', v_note.about, v_note.count;
  end loop;
  raise notice 'What was noted: select * from tickets_takeover.notes. The way back: docs/taking-over.md.';

  insert into tickets_takeover.notes
  select 'triggers of the old tables that ours lack', format('%s on %s', t.tgname, t.tgrelid::regclass), pg_get_triggerdef(t.oid)
  from pg_trigger t join pg_class c on c.oid = t.tgrelid
  where not t.tgisinternal and c.relnamespace = 'tickets_legacy'::regnamespace
    and tickets_takeover.schema_of('pg_proc'::regclass, t.tgfoid) in ('tickets', 'tickets_legacy');

  perform tickets_takeover.repoint_readers(p_own := true);
  insert into tickets_takeover.first_readers select distinct on (name) name, object_id, definition from tickets_takeover.readers order by name;
  with bound as materialized (
    select distinct u.user_class, u.user_id, pg_describe_object(u.user_class, u.user_id, 0) as name
    from tickets_takeover.uses u
    join pg_class c on u.used_class = 'pg_class'::regclass and c.oid = u.used_id and c.relnamespace = 'tickets_legacy'::regnamespace
    where u.user_class in ('pg_class'::regclass, 'pg_proc'::regclass)
  )
  select string_agg(name, ', ') into v_made_meanwhile
  from bound
  where tickets_takeover.is_foreign(user_class, user_id)
    and name not in (select n.name from tickets_takeover.notes n where n.about like 'objects that still use%')
    and not exists (select from tickets_takeover.stops s where starts_with(s.what, name));
  if v_made_meanwhile is not null then
    insert into tickets_takeover.stops
    values ('Made while the migration ran, and bound to the old tables: ' || v_made_meanwhile, 'Run the migration again.');
  end if;
  -- What was carried over meanwhile may still be used.
  delete from tickets_takeover.notes n
  where n.about like 'objects that still use%' and n.name not in (
    select pg_describe_object(u.user_class, u.user_id, 0) from tickets_takeover.uses u
    where tickets_takeover.schema_of(u.used_class, u.used_id) = 'tickets_legacy'
  );
  perform tickets_takeover.keep_others_out();
end
$$;
comment on function tickets_takeover.complete() is 'Tells what was noted, and points the readers at our tables. What was made meanwhile and reads the old ones is a stop.';

create or replace function tickets_takeover.fill() returns void language plpgsql as $$
begin
  perform tickets_takeover.fill_import_meta(); -- it says how old the baseline of the history is
  perform tickets_takeover.fill_tickets();
  perform tickets_ops.rebuild_days();
  perform tickets_ops.record_day('inc');
  perform tickets_takeover.import_days();
  perform tickets_takeover.read_old_places();
  perform tickets_takeover.fill_gazetteers();
  perform tickets_takeover.note_moves();
  perform tickets_takeover.carry_over();
  perform tickets_takeover.keep_old_map();
  perform tickets_takeover.replay_grants(); -- the map is called as its owner, who may have been that of the tables
  perform tickets_takeover.require_map_interface();
  perform tickets_takeover.replay_comments();
  perform tickets_takeover.fence_off();
  perform tickets_takeover.complete(); -- last: while the readers are re-pointed, and until the commit, they wait
  perform tickets_takeover.require_no_stops();
end
$$;
comment on function tickets_takeover.fill() is 'The second half of a takeover: our tables stand, empty; tickets_legacy holds the old ones.';
--! EndIncluded takeover/fill.sql
--! Included takeover/fence.sql
-- The old loader must not write past the ledger. It often logs in as the role that owns our tables, so rights are not enough.

create or replace function tickets_takeover.refuse_others() returns trigger language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
  -- Sessions of ours say who they are (src/database/session.ts). What a trigger writes, another statement was allowed to.
  if pg_trigger_depth() = 1 and coalesce(current_setting('tickets_ops.client', true), '') = '' then
    raise exception 'fleettickets has taken over %: this write is not of its pipeline, and nothing was written.', tg_relid::regclass
      using
        errcode = 'insufficient_privilege',
        hint = 'Stop the schedule of import_tickets.py. If you are a person and mean it, say so first: set tickets_ops.client = ''your name''.';
  end if;
  return null;
end
$$;
comment on function tickets_takeover.refuse_others() is 'Trigger before writing inc, crq and import_meta in a database that was taken over: refuses a session that has not said who it is.';

create or replace function tickets_takeover.fence_off() returns void language plpgsql as $$
declare
  v_table text;
begin
  foreach v_table in array array['inc', 'crq', 'import_meta'] loop
    execute format(
      'create trigger _000_taken_over before insert or update or delete or truncate on tickets.%I for each statement execute function tickets_takeover.refuse_others()',
      v_table
    );
    execute format('comment on trigger _000_taken_over on tickets.%I is %L', v_table, 'Keeps the old loader out, as long as there is a way back to it; goes with the schema tickets_takeover.');
  end loop;
end
$$;
comment on function tickets_takeover.fence_off() is 'Puts the trigger on the tables that the old loader wrote.';
--! EndIncluded takeover/fence.sql
--! Included takeover/carry-over.sql
-- What people made in the old schema itself comes along, unless ours has something of its name. It is moved, so that whatever is
-- bound to it by OID goes on; foreign keys to the tickets are made again (readers.sql), and so are views.

create or replace view tickets_takeover.main_relations (name) as
values ('inc'), ('crq'), ('geo_clusters'), ('geo_locations'), ('import_meta'), ('inc_open_sla'), ('schema_migrations');
comment on view tickets_takeover.main_relations is 'What the Python version itself has in the schema tickets. All but its ledger, schema_migrations, have a counterpart of ours.';

create or replace view tickets_takeover.peoples_tables as
select c.oid
from pg_class c
where c.relnamespace = to_regnamespace('tickets') and c.relkind in ('r', 'p', 'f') and case
  when to_regnamespace('tickets_legacy') is null then c.relname not in (select name from tickets_takeover.main_relations)
  else c.relname in (select name from tickets_takeover.carried_over where kind = 'table')
end;
comment on view tickets_takeover.peoples_tables is 'Tables in the schema tickets that are neither ours nor the Python version''s, before a takeover and after it. They keep their OID, and what hangs on them.';

create or replace function tickets_takeover.move_to_tickets(p_kind text, p_object text, p_name text) returns boolean language plpgsql as $$
begin
  execute format('alter %s %s set schema tickets', p_kind, p_object);
  insert into tickets_takeover.carried_over values (p_kind, p_name);
  return true;
exception when duplicate_table or duplicate_object then
  return false; -- also of its index, or of a sequence of its columns: it stays, and is noted
end
$$;
comment on function tickets_takeover.move_to_tickets(text, text, text) is 'Moves something that people made into our schema, and writes it down. False where ours has its name.';

-- Late: a table that is moved is locked, against readers too, until the commit.
create or replace function tickets_takeover.carry_over() returns void language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
  -- They are made again as soon as the readers are pointed at our tables.
  insert into tickets_takeover.carried_over
  select 'view', c.relname
  from pg_class c
  where c.relnamespace = 'tickets_legacy'::regnamespace and c.relkind in ('v', 'm')
    and not exists (select from pg_class n where n.relnamespace = 'tickets'::regnamespace and n.relname = c.relname);

  perform tickets_takeover.move_to_tickets(l.kind, l.name, c.relname)
  from tickets_takeover.left_behind l
  join pg_class c on c.oid = to_regclass(l.name)
  where l.kind in ('table', 'sequence') and pg_has_role(c.relowner, 'usage')
    -- What is one with the tickets stays with them.
    and not exists (
      select from pg_inherits i join pg_class m on m.oid in (i.inhrelid, i.inhparent) join tickets_takeover.main_relations r on r.name = m.relname
      where c.oid in (i.inhrelid, i.inhparent)
    )
    and not exists (
      select from pg_constraint k join pg_class m on m.oid = k.conrelid join tickets_takeover.main_relations r on r.name = m.relname
      where k.confrelid = c.oid and m.relnamespace = c.relnamespace
    );

  -- Columns of other people's views may be of it.
  perform tickets_takeover.move_to_tickets('type', l.name, t.typname)
  from tickets_takeover.left_behind l join pg_type t on t.oid = to_regtype(l.name)
  where l.kind = 'type' and pg_has_role(t.typowner, 'usage');

  -- Text that calls it by its name goes on. One that is bound to the old tables would go on reading them; and beside a function
  -- of ours of the same name, one whose arguments fit better would be called in its place.
  perform tickets_takeover.move_to_tickets('routine', l.name, format('%I(%s)', p.proname, pg_get_function_identity_arguments(p.oid)))
  from tickets_takeover.left_behind l join pg_proc p on p.oid = to_regprocedure(l.name)
  where l.kind = 'routine' and pg_has_role(p.proowner, 'usage')
    and not exists (select from pg_proc n where n.pronamespace = 'tickets'::regnamespace and n.proname = p.proname)
    and not exists (
      select from tickets_takeover.uses u
      where (u.user_class, u.user_id) = ('pg_proc'::regclass, p.oid) and tickets_takeover.schema_of(u.used_class, u.used_id) = 'tickets_legacy'
    );
end
$$;
comment on function tickets_takeover.carry_over() is 'Moves tables, sequences, types and routines that people made in the old schema into ours, and writes them down; views too, which are made again later.';

create or replace function tickets_takeover.carry_back() returns void language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
  v_object record;
begin
  for v_object in
    -- A routine is named by the types of its arguments, which then are back.
    select kind, case kind when 'routine' then name else quote_ident(name) end as name
    from tickets_takeover.carried_over where kind <> 'view' order by kind = 'routine'
  loop
    execute format('alter %s tickets_set_aside.%s set schema tickets', v_object.kind, v_object.name);
  end loop;
end
$$;
comment on function tickets_takeover.carry_back() is 'On the way back, when the schema tickets is the old one again: moves into it what was carried over.';
--! EndIncluded takeover/carry-over.sql
--! Included takeover/clean-up.sql
-- Giving the old tables up, when a person is sure to stay.

create or replace view tickets_takeover.left_behind as
select case c.relkind when 'S' then 'sequence' when 'v' then 'view' when 'm' then 'materialized view' else 'table' end as kind, c.oid::regclass::text as name
from pg_class c
where c.relnamespace = to_regnamespace('tickets_legacy') and c.relkind in ('r', 'p', 'f', 'S', 'v', 'm')
  and c.relname not in (select name from tickets_takeover.main_relations)
  and c.relname not in (select name from tickets_takeover.carried_over where kind = 'view')
  -- The sequence of a column goes with its table.
  and not exists (select from pg_depend d where d.classid = 'pg_class'::regclass and d.objid = c.oid and c.relkind = 'S' and d.deptype in ('a', 'i'))
union all
select 'column', format('%s.%I', c.oid::regclass, a.attname)
from pg_class c
join tickets_takeover.main_relations m on m.name = c.relname
join pg_class n on n.relnamespace = to_regnamespace('tickets') and n.relname = c.relname
join pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped and a.attgenerated = ''
where c.relnamespace = to_regnamespace('tickets_legacy') and c.relkind in ('r', 'p')
  and not exists (select from pg_attribute b where b.attrelid = n.oid and b.attname = a.attname and not b.attisdropped)
union all
select 'routine', p.oid::regprocedure::text
from pg_proc p
where p.pronamespace = to_regnamespace('tickets_legacy') and p.proname <> 'fn_tickets_for_map'
  and not exists (
    select from pg_proc n
    where n.pronamespace = to_regnamespace('tickets') and n.proname = p.proname and oidvectortypes(n.proargtypes) = oidvectortypes(p.proargtypes)
  )
  and not exists (select from pg_trigger t join pg_class c on c.oid = t.tgrelid where t.tgfoid = p.oid and c.relnamespace = p.pronamespace)
union all
select 'type', format_type(t.oid, null)
from pg_type t
where t.typnamespace = to_regnamespace('tickets_legacy') and t.typtype in ('e', 'd', 'r') or t.typtype = 'c'
  and exists (select from pg_class c where c.oid = t.typrelid and c.relkind = 'c' and c.relnamespace = to_regnamespace('tickets_legacy'));
comment on view tickets_takeover.left_behind is 'What the old schema holds and ours does not: tables, views, columns, routines, types and sequences that somebody may have made there, also those whose name ours has for something else. Generated columns and trigger functions of the old tables are not among them.';

create or replace function tickets_takeover.clean_up(variadic p_given_up text[] default '{}') returns text language plpgsql as $$
declare
  v_left text;
  v_reading text;
begin
  select string_agg(format('%s %s', kind, name), E'\n' order by kind, name) into v_left
  from tickets_takeover.left_behind where name <> all (p_given_up);
  if v_left is not null then
    raise exception E'tickets_legacy still holds what is nowhere else:\n%', v_left
      using hint = 'Move it to another schema, or give it up by its name: select tickets_takeover.clean_up(''tickets_legacy.…'', …);';
  end if;
  select string_agg(distinct pg_describe_object(u.user_class, u.user_id, 0), E'\n') into v_reading
  from tickets_takeover.uses u
  where tickets_takeover.schema_of(u.used_class, u.used_id) = 'tickets_legacy'
    and tickets_takeover.schema_of(u.user_class, u.user_id) not in ('tickets_legacy', 'tickets_takeover');
  if v_reading is not null then
    raise exception E'The old tables are still used by:\n%', v_reading using hint = 'Its owner has to change it first.';
  end if;
  perform set_config('client_min_messages', 'warning', true); -- no list of what goes with the schemas
  drop schema tickets_legacy cascade;
  drop schema tickets_takeover cascade;
  return 'The old tables are gone, and so is the way back.';
end
$$;
comment on function tickets_takeover.clean_up(text[]) is 'Drops the old tables, and with them the way back. Refuses, with a list, while the old schema holds something that ours has not and that is not given up by name, or while anything still uses it.';
--! EndIncluded takeover/clean-up.sql
--! Included takeover/way-back.sql
-- The way back to the Python version.

create or replace function tickets_takeover.go_back() returns void language plpgsql as $$
declare
  v_function regprocedure;
begin
  if to_regnamespace('tickets_legacy') is null then
    raise exception 'There is no schema tickets_legacy to go back to: this was done before, or the old tables were given up.';
  end if;
  if to_regnamespace('tickets_set_aside') is not null or to_regnamespace('tickets_ops_set_aside') is not null then
    raise exception 'There are schemas that an earlier way back set aside: tickets_set_aside, tickets_ops_set_aside.'
      using hint = 'Rename or drop them; what was verified then is in tickets_set_aside.geo_locations. See docs/taking-over.md.';
  end if;
  -- One that hangs may wake.
  if exists (
    select from tickets_ops.worker_states()
    where state in ('alive', 'hung') or (state = 'unsure' and seen_at > now() - interval '1 minute')
  ) then
    -- It would end, be started again by its container, and take over at once.
    raise exception 'A worker is alive: stop it first.' using hint = 'select * from tickets_ops.worker_states();';
  end if;
  perform tickets_takeover.lock_tickets();
  -- Whom nobody would know for ours any more.
  perform tickets_ops.free_dead_workers('');
  -- Another takeover counts its snapshots from 1 again: what waits to load snapshot 7 would load another one. Not by
  -- complete_jobs, which leaves those that a dead worker still holds.
  perform tickets_ops.delete_jobs_of(array['fetch_snapshot', 'upsert_batch', 'finalize_snapshot']);
  perform tickets_takeover.write_down_readers();
  alter schema tickets rename to tickets_set_aside;
  alter schema tickets_ops rename to tickets_ops_set_aside;
  perform tickets_takeover.move_map_functions('reporting', 'tickets_set_aside', array(select function_id from tickets_takeover.old_maps));
  -- Or another takeover would find them, and keep them as somebody else's.
  for v_function in
    select oid from pg_proc
    where pronamespace = 'reporting'::regnamespace and proname in ('fn_inc_trends', 'fn_inc_dashboard', 'fn_crq_for_map')
      and prosrc ~ 'tickets\.(inc_flow|dashboard_metrics|map_collection)\('
  loop
    execute format('alter function %s set schema tickets_set_aside', v_function);
  end loop;
  alter schema tickets_legacy rename to tickets;
  perform tickets_takeover.carry_back();
  perform tickets_takeover.move_map_functions('tickets', 'reporting');
  perform tickets_takeover.bind_old_maps(); -- those that were kept read ours until now
  perform tickets_takeover.repoint_readers(p_own := false);
  perform tickets_takeover.require_no_stops();
  -- So that migrating takes over again.
  delete from graphile_migrate.migrations;
end
$$;
comment on function tickets_takeover.go_back() is 'Back to the Python version, in one transaction: its tables, map functions and grants as they were at the takeover; views and functions outside read them again. Ours stay as tickets_set_aside and tickets_ops_set_aside. The jobs of loads go. Raises, and changes nothing, while a worker is alive, while somebody writes tickets, or when something that was made since cannot read the old tables.';
--! EndIncluded takeover/way-back.sql

do $$
begin
  if to_regclass('tickets.inc') is not null then
    perform tickets_takeover.set_aside();
    return;
  end if;
  perform set_config('client_min_messages', 'warning', true); -- no list of what goes with the schema
  drop schema tickets_takeover cascade;
  perform set_config('client_min_messages', (select reset_val from pg_settings where name = 'client_min_messages'), true);
end
$$;

--! split: 020-schemas.sql
-- Schemas: `tickets` holds data, `reporting` the map function, `tickets_ops` what operators and the pipeline use.
-- PostGIS may already be installed by the DBA, and the migrating role need not be allowed to install it.
do $$
begin
  if not exists (select from pg_extension where extname = 'postgis') then
    create extension postgis schema public; -- it need not be the first of the path
  end if;
end
$$;

create schema if not exists tickets;
-- Others keep functions in it too: it may be there, and belong to another role.
create schema if not exists reporting;
-- Fixtures say `create or replace`: a function that is there before ours would keep its owner, who could change it later.
do $$
declare
  v_function regprocedure;
begin
  select oid into v_function from pg_proc
  where pronamespace = 'tickets'::regnamespace or (pronamespace = 'reporting'::regnamespace and proname = 'fn_tickets_for_map')
  limit 1;
  if found then
    raise exception 'The function % is there already, and not of the Python version: there is no tickets.inc beside it.', v_function
      using hint = 'Drop it or move it to another schema, and run the migration again.';
  end if;
end
$$;

-- The right of its own to use it, where that came through its owner, from whom it may be taken after the first migration.
do $$
begin
  execute format('grant usage, create on schema reporting to %I', current_user);
exception
  when insufficient_privilege then null; -- it has what the DBA gave it
end
$$;
create schema tickets_ops;
comment on schema tickets is 'Field-ops tickets of the fibre operator: INC faults (and CRQ, kept but not ingested yet), the gazetteers that place them, and their history.';
comment on schema tickets_ops is 'The fleettickets pipeline: its ledger, its work in progress, and what operators look at and call.';

--! split: 030-values.sql
-- Reading what the feed wrote: what the generated columns and constraints of the tables below need.

--! Included values.sql
-- Values of the feed: text to typed values, for the generated columns of the ticket tables. Which texts read stands in
-- src/csv/values.ts as well, for the figures of a file; a test holds the two together.
-- Each function is total: what it cannot read is NULL, never an error. So the text's form is looked at, with bounded
-- digits, before anything is cast. Forms say [0-9]: \d also matches Arabic digits, which no cast reads. Collation "C"
-- because the answer must not depend on the database's (and it is faster).
-- Each is immutable in fact, not only in name: no cast from text to a time (DateStyle and TimeZone decide what it says).
-- Bodies written as `return …` are bound to PostGIS where it is at the time of creation: they need no search_path, so
-- they hold in pg_restore, under a pinned path, and with PostGIS in a schema of its own. Those with a text for a body run for every row
-- and pin no path, which would cost a tenth of a load: all that they call is Postgres's own by the exact types of its arguments.

-- plpgsql, not inlined SQL, where a text is looked at more than once: inlining repeats `raw ->> …` each time.
-- Cut up by position: a regular expression that captures the parts took 250 µs a call, and seven of these run per row.
create or replace function tickets.eat_ts(value text) returns timestamptz
  language plpgsql immutable strict parallel safe
as $$
declare
  head text := value;   -- to the second
  tail text := '';      -- fraction and zone
  rest text;
  fraction double precision := 0;
  n bigint;
  day integer;
  month integer;
  year integer;
  wall timestamp;
begin
  if value = '' then
    return null;
  end if;
  if not (head like '____-__-__ __:__:__' or head like '____-__-__T__:__:__') then
    if length(value) > 64 then
      return null;
    end if;
    value := btrim(value, E' \t\r\n');
    if value like '____-__-__' then
      head := value || ' 00:00:00';
    elsif not (value like '____-__-__ __:__%' or value like '____-__-__T__:__%') then
      return null;
    elsif substr(value, 17, 1) = ':' then
      head := left(value, 19);
      tail := substr(value, 20);
      if left(tail, 1) = '.' then
        rest := ltrim(substr(tail, 2), '0123456789');
        tail := left(tail, length(tail) - length(rest));
        if length(tail) not between 2 and 7 then
          return null;
        end if;
        fraction := tail::double precision;
        tail := rest;
      end if;
    else
      head := left(value, 16) || ':00';
      tail := substr(value, 17);
    end if;
    if tail <> '' and tail collate "C" !~ '^ ?(?:Z|[+-][0-9][0-9](?::?[0-9][0-9])?)$' then
      return null;
    end if;
  end if;

  head := translate(head, '- T:', '');
  if length(head) <> 14 or head collate "C" ~ '[^0-9]' then
    return null;
  end if;
  n := head::bigint;
  -- Both sides bigint, here and below: `bigint % integer` is found only by a cast, and an operator of others that needs none would win.
  year := n / 10000000000;
  month := n / 100000000 % 100::bigint;
  day := n / 1000000 % 100::bigint;
  -- make_timestamp raises on a day that does not exist, and takes 24:00 and :60, which are none.
  if year not between 1900 and 2100 or month not between 1 and 12 or day not between 1 and 31
    or n / 10000 % 100::bigint > 23 or n / 100 % 100::bigint > 59 or n % 100::bigint > 59
    or (day > 30 and month in (4, 6, 9, 11))
    or (day > 28 and month = 2 and (day > 29 or year % 4 <> 0 or year in (1900, 2100)))
  then
    return null;
  end if;
  wall := make_timestamp(
    year, month, day, (n / 10000 % 100::bigint)::integer, (n / 100 % 100::bigint)::integer, (n % 100::bigint)::double precision + fraction
  );
  if tail = '' then
    return wall at time zone 'Africa/Nairobi';
  end if;

  tail := rpad(translate(tail, 'Z: ', '+'), 5, '0');
  if substr(tail, 2, 2) > '15' or substr(tail, 4, 2) > '59' then
    return null;
  end if;
  -- `timestamptz - interval` is only stable: the offset comes off the wall time.
  return (wall - make_interval(mins => (left(tail, 1) || '1')::integer * (substr(tail, 2, 2)::integer * 60 + substr(tail, 4, 2)::integer)))
    at time zone 'UTC';
end
$$;
comment on function tickets.eat_ts(text) is 'A time of the feed: `YYYY-MM-DD[ T]HH:MM[:SS[.ffffff]]` or a bare date, blanks around it allowed, read as Africa/Nairobi unless it ends in Z or an offset (+03, +0300, +03:00, up to 15:59). NULL for anything else: a day or hour that does not exist (month 13, 30 February, 24:00, second 60), and years outside 1900 to 2100, which are markers (0001, 9999), not times.';

create or replace function tickets.to_boolean(value text) returns boolean
  language sql immutable parallel safe
  return case lower(btrim(value, E' \t\r\n') collate "C")
    when 'true' then true when 'false' then false
    when 't' then true when 'f' then false
    when 'yes' then true when 'no' then false
    when 'y' then true when 'n' then false
    when '1' then true when '0' then false
    -- What pandas makes of a column of booleans in which one is missing.
    when '1.0' then true when '0.0' then false
  end;
comment on function tickets.to_boolean(text) is 'true, t, yes, y, 1, 1.0 and false, f, no, n, 0, 0.0, in any case, blanks around them allowed; NULL for anything else.';

create or replace function tickets.hours_to_minutes(value text) returns numeric
  language plpgsql immutable strict parallel safe
as $$
begin
  if value = '' then
    return null;
  end if;
  value := btrim(value, E' \t\r\n');
  if length(value) > 40 or value collate "C" !~ '^[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)$' then
    return null;
  end if;
  return round(value::numeric * 60::numeric);
end
$$;
comment on function tickets.hours_to_minutes(text) is 'Decimal hours as whole minutes (halves away from zero). Plain decimals with an optional sign, at most 40 characters; NULL for anything else (NaN, inf, 1e3, 1,5). Numeric, so that no number of hours overflows and `mttr / 60` is not cut.';

create or replace function tickets.to_degrees(value text) returns double precision
  language plpgsql immutable strict parallel safe
as $$
begin
  if value = '' then
    return null;
  end if;
  value := btrim(value, E' \t\r\n');
  if length(value) > 40 or value collate "C" !~ '^[+-]?[0-9]{1,3}(?:\.[0-9]*)?$' then
    return null;
  end if;
  return value::double precision;
end
$$;
comment on function tickets.to_degrees(text) is 'A coordinate in plain decimal degrees, at most three digits before the point; NULL for anything else (NaN, 1e2, 1,29, 36°49''E). Whether it lies on earth is for the caller to ask.';

create or replace function tickets.is_lng_lat(place geometry) returns boolean
  language sql immutable parallel safe
  return case
    when place is null then true
    when geometrytype(place) <> 'POINT' or st_isempty(place) then false
    -- NaN is greater than every number, so it is not between.
    else st_x(place) between -180 and 180 and st_y(place) between -90 and 90
  end;
comment on function tickets.is_lng_lat(geometry) is 'For CHECK constraints: NULL, or a point with a longitude in -180 to 180 and a latitude in -90 to 90. The geography type would wrap others silently (200,95 becomes -160,85) and store NaN.';
--! EndIncluded values.sql
--! Included location-key.sql
-- The normaliser: which place a location_name means, without the network's codes. There is no other: the generated column,
-- the geometry, the geocoder and people all use these functions.
--   tickets.location_key('NW_ADR_MNT_Garden Est_FDT12')    'garden estate'   identifies the place within its cluster
--   tickets.location_query('NW_ADR_MNT_Garden Est_FDT12')  'Garden Estate'   says it to a provider
-- A new code is one more word in tickets.location_vocabulary(). But tickets.inc.location_key is STORED and the gazetteer
-- is keyed by it, so a change is a migration that replaces the function, rebuilds the column and re-keys the gazetteer.
-- The functions look at no table and at no setting. Letters without a decomposition (Ø, Greek) keep their case. Collation is "C"
-- throughout, so that letters, ranges and equality mean the same on every server. The database must be UTF8 (normalize() knows no
-- other encoding).

-- What a word means, by its first word here:
--   code        always goes, with the numbers joined to it or after it
--   soft        a code only before a number, or alone as the last `_` segment: Port Reitz and Ring Road are places
--   ticket      goes with its number
--   premise X   goes with its number or letter; without one it is the word X
--   numbered X  goes with its number; without one it is the word X
--   no          the word that leads in a number
--   floor       goes, with its number or with the ordinal before it
--   relation    goes, and a word that is `of` (of, to, from) after it; next to, close to and in front of go as well
--   kept X      is X, and its number belongs to the name; with `[1-3]`, only such a number does
--   city X, word X   is X
-- A word that is not here is a word of a place's name.
create or replace function tickets.location_vocabulary() returns jsonb
  language sql immutable parallel safe
  return '{
    "nw": "code", "adr": "code", "mnt": "code", "fdt": "code", "fat": "code", "olt": "code", "odf": "code",
    "sdu": "code", "sdus": "code", "mdu": "code", "mdus": "code",
    "pon": "code", "gpon": "code", "ont": "code", "onts": "code", "onu": "code", "onus": "code",
    "fdts": "code", "fats": "code", "olts": "code",

    "port": "soft", "ring": "soft", "pop": "soft", "node": "soft", "core": "soft", "cores": "soft",
    "splitter": "soft", "slot": "soft", "card": "soft", "pole": "soft", "splice": "soft",
    "cabinet": "soft", "cab": "soft", "closure": "soft", "manhole": "soft", "handhole": "soft",

    "inc": "ticket", "wot": "ticket", "crq": "ticket",

    "house": "premise house", "hse": "premise house", "hs": "premise house", "hno": "premise house",
    "door": "premise door", "block": "premise block", "blk": "premise block",
    "apartment": "premise apartment", "apartments": "premise apartments",
    "apt": "premise apartment", "appt": "premise apartment", "apts": "premise apartments",
    "flat": "premise flat", "unit": "premise unit", "suite": "premise suite", "room": "premise room", "rm": "premise room",
    "villa": "premise villa", "plot": "premise plot", "shop": "premise shop",

    "court": "numbered court", "crt": "numbered court", "ct": "numbered court",
    "no": "no", "num": "no", "number": "no",
    "floor": "floor", "flr": "floor", "fl": "floor",

    "opp": "relation", "opposite": "relation", "near": "relation", "nr": "relation", "behind": "relation",
    "beside": "relation", "adjacent": "relation", "adj": "relation", "along": "relation", "off": "relation",
    "past": "relation", "infront": "relation", "to": "of", "of": "of", "from": "of", "front": "front",

    "umoja": "kept umoja [1-3]", "githurai": "kept githurai 4[45]",
    "section": "kept section", "phase": "kept phase", "ph": "kept phase", "mile": "kept mile",

    "nbo": "city nairobi", "nrb": "city nairobi", "nairobi": "city nairobi",
    "msa": "city mombasa", "mombasa": "city mombasa", "ksm": "city kisumu", "kisumu": "city kisumu",
    "nku": "city nakuru", "nakuru": "city nakuru", "eld": "city eldoret", "eldoret": "city eldoret",

    "est": "word estate", "rd": "word road", "ave": "word avenue", "av": "word avenue", "hwy": "word highway",
    "ln": "word lane", "gdns": "word gardens", "bldg": "word building", "twr": "word tower", "twrs": "word towers",
    "center": "word centre", "ctr": "word centre", "mkt": "word market", "stn": "word station", "jct": "word junction",
    "hosp": "word hospital", "sch": "word school", "southb": "word south_b", "southc": "word south_c"
  }'::jsonb;
comment on function tickets.location_vocabulary() is 'The words that tickets.location_key() knows, each with what it means: network codes, sub-premises, relational words, abbreviations. The place to add a new code; see the comment in the migration for the procedure.';

create or replace function tickets.plain_name(name text) returns text
  language plpgsql immutable strict parallel safe
as $$
begin
  if octet_length(name) <> length(name) then
    -- Zero-width: soft hyphen, joiners, direction marks, variation selectors, tags, the keycap's frame. Nothing stands there.
    -- A character that asks for its emoji form (U+FE0F) is one, whatever it is (ℹ, ™, Ⓜ); a keycap's digit is a digit.
    name := regexp_replace(name collate "C", '[^0-9A-Za-z\s#*]\uFE0F', ' ', 'g');
    name := regexp_replace(
      name collate "C",
      '[\u00AD\u034F\u061C\u115F\u1160\u17B4\u17B5\u180B-\u180F\u200B-\u200F\u202A-\u202E\u2060-\u206F\u20D0-\u20FF\u3164\uFE00-\uFE0F\uFEFF\uFFA0\U000E0000-\U000E0FFF]+',
      '', 'g'
    );
    name := replace(name, '´', '''');  -- NFKD would make it a blank and an accent
    -- Emoji, before NFKD, which spells some out; squared Latin letters are left to it. Also letter-like symbols that only
    -- some of Postgres 15 (Unicode 14) to 18 (Unicode 16) can take apart.
    name := regexp_replace(
      name collate "C",
      '[\u2600-\u27BF\u2B00-\u2BFF\U0001CC00-\U0001CEFF\U0001E030-\U0001E08F\U0001F000-\U0001F10F\U0001F150-\U0001FAFF]+',
      ' ', 'g'
    );
    -- Compatibility forms, taken apart: a letter and its accent are two characters here, so the case of É is that of E.
    name := normalize(left(name, 500), NFKD);
    -- Typographic apostrophes and hyphens.
    name := translate(name, '’‘‛ʼ′‐‑‒–−', '''''''''''-----');
    -- Punctuation, symbols, private use, blanks, U+FFFD. Letters, marks and digits of every script stay.
    name := regexp_replace(
      left(name, 500) collate "C",
      '[\u0080-\u00BF\u00D7\u00F7\u02C2-\u02DF\u1680\u2000-\u206F\u20A0-\u2BFF\u2E00-\u2E7F\u3000-\u3004\u3008-\u3020\u3030\u30FB\uE000-\uF8FF\uFE10-\uFE1F\uFE30-\uFE6F\uFFF0-\uFFFF\U000F0000-\U0010FFFF]+',
      ' ', 'g'
    );
  end if;
  name := replace(replace(name, '#', ' no '), '`', '''');
  name := regexp_replace(name collate "C", '[^-_''0-9A-Za-z\u0080-\U0010FFFF]+', ' ', 'g');
  if strpos(name, '-') = 0 and strpos(name, '''') = 0 then
    return name;
  end if;
  -- A hyphen or apostrophe binds what stands on both its sides; at the edge of a word it is punctuation.
  name := regexp_replace(name collate "C", '(^|[ _])[-'']+', '\1 ', 'g');
  name := regexp_replace(name collate "C", '[-'']+($|[ _])', ' \1', 'g');
  return replace(replace(name, '-', ' -'), '''', ' ''');
end
$$;
comment on function tickets.plain_name(text) is 'A location name with nothing in it but letters, digits, blanks, `_`, and `-` and `''` within words: compatibility forms resolved (NFKD), zero-width characters and emoji out, other punctuation a blank. Errors: only if the database is not UTF8.';

-- Tokenise: the words, each with the `_`, `-`, `'` or `=` in front of it that binds it to the one before. Inlined.
create or replace function tickets.location_tokens(name text) returns text[]
  language sql immutable parallel safe
  return string_to_array(replace(name, '_', ' _'), ' ');
comment on function tickets.location_tokens(text) is 'The words of a plain name, each with the character that binds it to the one before, if it is not a blank; some are empty. The first step of tickets.location_walk().';

-- Classify: a word that is not in the vocabulary as it stands. A number stands alone or is joined to a word that takes one
-- (FDT12 is FDT 12). After Block or House a letter is a number, too, and after Phase a Roman one is.
create or replace function tickets.location_rule(word text, expects text) returns text
  language plpgsql immutable strict parallel safe
as $$
declare
  stem text;
  rule text;
begin
  if expects in ('id', 'premise') and word collate "C" ~ '^[a-z](?:[0-9]+[a-z]?)?$' then
    return '#' || word;
  elsif expects = 'kept' and word in ('i', 'ii', 'iii', 'iv', 'v') then
    return '#' || array_position(array['i', 'ii', 'iii', 'iv', 'v'], word);
  elsif word collate "C" !~ '[0-9]' then
    return 'plain';
  elsif word collate "C" ~ '^[0-9]+[a-z]?$' then
    return '#' || word;
  end if;
  stem := substring(word collate "C" from '^([a-z]+)[0-9]');
  rule := tickets.location_vocabulary() ->> stem;
  if split_part(rule, ' ', 1) in ('code', 'soft', 'ticket', 'premise', 'numbered', 'no', 'floor', 'kept') then
    return rule || '#' || substr(word, length(stem) + 1);
  end if;
  return case when word collate "C" ~ '^[a-z]{3}[0-9]{2,4}$' then 'site' else 'plain' end;
end
$$;
comment on function tickets.location_rule(text, text) is 'What a lower-case word is that tickets.location_vocabulary() does not hold as it stands: a rule in its form, `plain` or `site` (three letters and digits, which go); behind a `#` the number that it ends with, and nothing before the `#` where it is all number. `expects` is what tickets.location_expects() made of the words before: after id and premise a letter is a number, after kept a Roman one.';

-- Classify: what the rule of a word says. These are one expression each, neither strict nor pinned, so they are inlined and cost
-- no call.

create or replace function tickets.location_adds(kind text, rule text, word text, expects text) returns text
  language sql immutable parallel safe
  return case
    when kind in ('premise', 'numbered', 'kept', 'city', 'word') then split_part(rule, ' ', 2)
    when kind in ('code', 'site', 'floor', 'relation', '') or (kind = 'of' and expects = 'relation') then null
    else word
  end;
comment on function tickets.location_adds(text, text, text, text) is 'What a word with this rule of tickets.location_vocabulary(), whose first word is `kind`, adds to the name unless something takes it away; NULL: nothing. `expects` is what tickets.location_expects() made of the words before.';

create or replace function tickets.location_takes(kind text, word text, last text) returns boolean
  language sql immutable parallel safe
  return case kind
    when 'no' then last = 'h'
    when 'floor' then last collate "C" ~ '^(?:[0-9]+(?:st|nd|rd|th)?|ground|first|second|third|fourth|fifth|top)$'
    when 'of' then word = 'to' and last in ('next', 'close')
    when 'front' then last = 'in'
  end;
comment on function tickets.location_takes(text, text, text) is 'Whether a word of this kind takes the last word kept away with it: H No, 2nd Floor, next to, close to, in front. NULL: words of this kind take none.';

create or replace function tickets.location_expects(kind text, takes boolean) returns text
  language sql immutable parallel safe
  return case
    when kind = 'code' then 'numbers'
    when kind in ('premise', 'relation', 'kept') then kind
    when kind in ('soft', 'ticket', 'numbered') then 'numbered'
    when kind = 'no' then case when takes then 'id' else 'numbered' end
    when kind = 'floor' then 'id'
    when kind = 'front' and takes then 'relation'
    else ''
  end;
comment on function tickets.location_expects(text, boolean) is 'What a word of this kind makes of what follows it; `takes`: it has taken words before it away. numbers and id: a number goes; premise and numbered: it goes with the words since, which stay without one; kept: it belongs to the name; relation: an `of` goes; empty: nothing.';

create or replace function tickets.location_retyped(seen text, token text) returns boolean
  language sql immutable parallel safe
  return strpos(lower(replace(replace(translate(seen, '_', ' '), '-', ' -'), '''', ' ''') collate "C") || ' ', ' ' || lower(token collate "C") || ' ') > 0
    and strpos(replace(replace(translate(seen, '_', ' '), '-', ' -'), '''', ' ''') || ' ', ' ' || token || ' ') = 0;
comment on function tickets.location_retyped(text, text) is 'Whether a word stands among those seen (each with what binds it in front of it, as it was typed) in another case and not in this one; one bound by `-` or `''` is not the word alone.';

create or replace function tickets.location_repeats(
  kind text, word text, token text, added text, last text, seen text, binding text, gap boolean
) returns boolean
  language sql immutable parallel safe
  return (kind <> 'plain' and last = added)
    or (kind in ('plain', 'city') and length(word) > 2 and binding in (' ', '_') and word not in ('saba', 'sawa', 'lunga')
      and ((last = added and (gap or binding = '_')) or tickets.location_retyped(seen, token)));
comment on function tickets.location_repeats(text, text, text, text, text, text, text, boolean) is 'Whether a word of a name says another again: the last one, in the next segment or behind something that goes (Nairobi NBO anywhere), or one typed in another case. Saba Saba is a place.';

-- Render, word by word: `kept` grows, and loses what goes with a number or a floor. In front of each word stands what binds it to
-- the one before: a blank, `_`, `-`, `'`, or `=` for a number that belongs to the name. What goes from the middle makes new
-- neighbours, so then what is left is walked again: a key is its own key.
-- Longer than 100 lines: what a word means depends on those kept before it, so classifying and rendering share one state, which a
-- function of its own would have to be given and to return. And it runs for every row of a load: a call for each word that does not
-- take the short way costs 3 to 6 % of a key, and without the short way a key takes 1.4 to 1.9 times as long.
create or replace function tickets.location_walk(name text) returns text
  language plpgsql immutable strict parallel safe
as $$
declare
  mixed constant boolean := name collate "C" ~ '[0-9][^0-9 _]';  -- a digit stands before something else within a word
  kept text := '';
  last text := '';         -- the last word kept
  seen text := '';         -- the words of names, bound and as they were typed
  expects text := '';      -- what the words before make of the next: tickets.location_expects()
  limits text;             -- which numbers a `kept` word takes, a regular expression; empty: any
  from_at integer;         -- length of `kept` before the words that go with a number to come
  soft_at integer;         -- length of `kept` before the segments of nothing but soft codes that end at soft_end
  soft_end integer;
  gap boolean := false;    -- something went since the last word kept
  again boolean := false;  -- something went between two words kept
  token text;
  binding text := ' ';     -- what binds it to the word before
  word text;               -- in lower case, without its number
  stem text;               -- without the digits at its end
  rule text;
  kind text;               -- the first word of the rule; empty: a number
  number text;             -- the number that the token is or ends with
  added text;              -- what the token adds to `kept`; NULL: it goes
  cut integer;             -- the length that `kept` loses words down to
begin
  foreach token in array tickets.location_tokens(name) loop
    continue when token = '';
    if strpos('_-''=', left(token, 1)) > 0 then
      if binding = ' ' or left(token, 1) = '_' then
        binding := case when gap and left(token, 1) <> '_' then ' ' else left(token, 1) end;
      end if;
      token := substr(token, 2);
      continue when token = '';
    end if;

    -- The short way: most words are a code, a number after one, or a plain word.
    word := lower(token collate "C");
    stem := rtrim(word, '0123456789');
    rule := tickets.location_vocabulary() ->> stem;
    if rule = 'code' or (stem = '' and expects = 'numbers') then
      expects := 'numbers';
      gap := kept <> '';
      continue;
    elsif rule is null and length(stem) > 2 and expects <> 'kept' and stem = word and strpos(kept, word) = 0
      and (not mixed or word collate "C" !~ '[0-9]')
    then
      added := word;
      expects := '';
      seen := seen || binding || token;
    else
      -- The long way: classify, by the vocabulary, or with a number in it by tickets.location_rule().
      number := null;
      cut := null;
      if stem = '' or binding = '=' then
        rule := '';
        number := word;
      elsif rule is null or stem <> word then
        rule := tickets.location_rule(word, expects);
        number := nullif(split_part(rule, '#', 2), '');
        rule := split_part(rule, '#', 1);
        word := left(word, length(word) - coalesce(length(number), 0));
      end if;
      kind := split_part(rule, ' ', 1);
      added := tickets.location_adds(kind, rule, word, expects);

      -- A word of a name stays, unless it says again what is there already.
      if kind in ('plain', 'kept', 'city', 'word') then
        if word = 'buru' and last = 'buru' then
          kept := left(kept, -5);
          added := 'buruburu';
        elsif tickets.location_repeats(kind, word, token, added, last, seen, binding, gap) then
          added := null;
        end if;
        seen := seen || binding || token;
        if kind = 'city' and last = 'st' and length(kept) > 3 then
          kept := kept || 'reet';
        end if;
        expects := tickets.location_expects(kind, false);
        limits := split_part(rule, ' ', 3);
      -- Another may take words before it away, or go with all since from_at once its number comes.
      elsif kind <> '' then
        if kind = 'no' and expects in ('premise', 'numbered') then
          cut := from_at;
        elsif tickets.location_takes(kind, word, last) then
          cut := length(kept) - length(last) - 1;
        end if;
        expects := tickets.location_expects(kind, cut is not null);
        if expects in ('premise', 'numbered') then
          from_at := length(kept);
          if kind = 'soft' then
            if soft_at is null or soft_end <> from_at then
              soft_at := case when binding = '_' or kept = '' then from_at end;
            end if;
            soft_end := from_at + 1 + length(added);
          end if;
          if number is not null then
            binding := ' ';
          end if;
        end if;
      end if;

      -- A number goes, alone or with the words since from_at, or is a word of the name.
      if number is not null and expects in ('premise', 'numbered', 'numbers', 'id') then
        if expects in ('premise', 'numbered') then
          cut := from_at;
        end if;
        expects := 'numbers';
      elsif number is not null then
        if added is not null then
          kept := kept || binding || added;
          binding := ' ';
        end if;
        if expects = 'kept' and (limits = '' or number collate "C" ~ ('^' || limits || '$')) then
          binding := '=';
        elsif binding = '=' then
          binding := ' ';
        end if;
        added := number;
        expects := '';
      end if;

      if cut is not null then
        kept := left(kept, cut);
        soft_end := least(soft_end, cut);
        last := '';
        added := null;
      end if;
    end if;

    -- Render.
    if added is not null then
      kept := kept || binding || added;
      last := added;
      binding := ' ';
      if gap then
        again := true;
        gap := false;
      end if;
    else
      gap := kept <> '';
      if binding <> '_' then
        binding := ' ';
      end if;
    end if;
  end loop;

  -- The end of the name: soft codes, bare numbers and what is too long go, and St is a street.
  if soft_end = length(kept) and soft_at is not null then
    kept := left(kept, soft_at);
  end if;
  if right(kept, 1) collate "C" between '0' and '9' then
    kept := regexp_replace(kept collate "C", '(?:[ _''-][0-9]+)+$', '');
  end if;
  if length(kept) > 201 then
    kept := regexp_replace(left(kept, 201) collate "C", '[- _''=][^- _''=]*$', '');
    again := true;
  end if;
  if right(kept, 2) = 'st' and kept collate "C" ~ '.[- _'']st$' then
    kept := kept || 'reet';
  end if;
  if again then
    return tickets.location_walk(replace(replace(replace(kept, '-', ' -'), '''', ' '''), '=', ' ='));
  end if;
  return case when octet_length(kept) = length(kept) then kept else normalize(kept, NFC) end;
end
$$;
comment on function tickets.location_walk(text) is 'The place in what tickets.plain_name() gives, as tickets.location_words() has it.';

-- Tokenise, classify, render. Inlined: a call of its own costs 3 % of a short name.
create or replace function tickets.location_words(location_name text) returns text
  language sql immutable parallel safe
  return tickets.location_walk(case
    when location_name collate "C" ~ '[^A-Za-z0-9_ ]' then tickets.plain_name(left(location_name, 500))
    else left(location_name, 500)
  end);
comment on function tickets.location_words(text) is 'The place in a location name: lower-case words, each with a character in front of it that binds it to the one before (blank, `_`, `-`, `''`, or `=` before a number that belongs to the name); at most 201 characters, empty where nothing but codes is left, NULL where there is no name. What tickets.location_key() and tickets.location_query() are made from.';

create or replace function tickets.location_key(location_name text) returns text
  language sql immutable parallel safe
  return nullif(translate(substr(tickets.location_words(location_name), 2), '_-''=', '    '), '');
comment on function tickets.location_key(text) is 'The place that a location name means, without network codes, sub-premises and punctuation: with the cluster, the key of tickets.geo_locations. Several spellings of one place give one key. Lower case, at most 200 characters (of the name''s first 500); NULL where nothing but codes is left. No text makes it fail.';

create or replace function tickets.location_query(location_name text) returns text
  language plpgsql immutable strict parallel safe set search_path = pg_catalog, pg_temp
as $$
declare
  token text;
  capitals integer;
  query text := '';
begin
  foreach token in array string_to_array(
    replace(translate(normalize(substr(tickets.location_words(location_name), 2), NFD), '_=', '  '), '-', ' -'), ' '
  ) loop
    continue when token = '';
    if left(token, 1) = '-' then
      query := query || '-';
      token := substr(token, 2);
    else
      query := query || ' ';
    end if;
    capitals := 1;
    if token collate "C" ~ '^[b-df-hj-np-tv-xz]{3,}(?:''|$)' then
      capitals := length(split_part(token, '''', 1));  -- no vowel: an acronym (TRM, CBD)
    end if;
    query := query || upper(left(token, capitals) collate "C") || substr(token, capitals + 1);
  end loop;
  return nullif(normalize(substr(query, 2), NFC), '');
end
$$;
comment on function tickets.location_query(text) is 'tickets.location_key() as a text for people and geocoding providers: capitals, hyphens and apostrophes as in the name, abbreviations spelled out. NULL where the key is; tickets.location_key(tickets.location_query(x)) = tickets.location_key(x).';
--! EndIncluded location-key.sql

--! split: 040-kenya.sql
-- The country that tickets lie in.

create table tickets.geo_country (
  name text primary key,
  outline geometry(MultiPolygon, 4326) not null,
  reach geometry(MultiPolygon, 4326) not null
);
comment on table tickets.geo_country is 'The country that tickets lie in, one row: a coordinate outside it is a mistake, of the feed or of a provider.';
comment on column tickets.geo_country.name is 'Kenya.';
comment on column tickets.geo_country.outline is 'Border and coast, WGS 84, generalised to some 870 points.';
comment on column tickets.geo_country.reach is 'The outline with the tolerance that its generalisation needs: what tickets.in_kenya asks. Widen it by UPDATE.';

insert into tickets.geo_country (name, outline, reach)
select
  'Kenya',
  outline,
  -- The generalised outline cuts off true places. On land: Moyale by 0.33 km, Mandera by 0.01; but Moyale in Ethiopia
  -- begins 1.0 km beyond it, Busia in Uganda 1.6, Bula Hawa in Somalia 2.8: so 0.5 km. On the coast nothing foreign is
  -- near and creeks and islands are missing: Watamu 0.9 km, Diani 1.05, Funzi 1.2, Lamu 1.6, Shimoni 1.7,
  -- Mombasa 2.1, Wasini 2.9: so 3 km, within a box from Vanga to Kiunga. Degrees: on the equator 0.009 are 1 km.
  -- Where the outline itself lies too far out (Namanga, Malaba: up to 2 km), the cluster's guard_km has to do.
  st_multi(st_union(
    st_buffer(outline, 0.5 * 0.009, 2),
    st_intersection(st_buffer(outline, 3 * 0.009, 2), st_makeenvelope(39.2, -4.75, 41.6, -1.65, 4326))
  ))
from st_geomfromtext('MULTIPOLYGON(((
35.91936 4.61882,35.92296 4.60193,35.93736 4.57829,35.93736 4.55972,35.93376 4.53945,35.93376 4.52257,
35.94096 4.50737,35.95896 4.49724,35.99856 4.46347,36.02016 4.44996,36.04176 4.4432,36.04536 4.4432,36.19296 4.44489,
36.22536 4.44996,36.23616 4.44996,36.24696 4.44658,36.26496 4.43814,36.27576 4.43645,36.46296 4.43983,36.61777 4.4432,
36.62857 4.44152,36.64297 4.43307,36.65017 4.43138,36.84457 4.43307,36.90217 4.41619,36.97417 4.38073,37.01737 4.3706,
37.02457 4.36384,37.04257 4.33682,37.04977 4.33176,37.06777 4.33345,37.07497 4.33176,37.08217 4.32163,
37.08577 4.31318,37.09297 4.28954,37.09657 4.28448,37.10017 4.28448,37.10737 4.28448,37.11097 4.28279,
37.16497 4.24733,37.26217 4.18485,37.35937 4.12237,37.47457 4.04977,37.55738 3.99742,37.64738 3.93832,
37.75178 3.87078,37.84538 3.80999,37.94618 3.74582,37.97498 3.72725,37.99658 3.70867,38.02178 3.66646,
38.03618 3.64957,38.05058 3.64113,38.07938 3.63269,38.10098 3.61242,38.11538 3.61074,38.14418 3.61918,
38.17658 3.62087,38.28458 3.60905,38.38898 3.59723,38.44658 3.60229,38.49698 3.62424,38.49698 3.62931,
38.49698 3.63775,38.50059 3.6462,38.50779 3.65126,38.51499 3.64788,38.53299 3.63269,38.54019 3.62256,38.54379 3.6158,
38.54739 3.60905,38.56179 3.60567,38.57259 3.60398,38.57979 3.60567,38.59419 3.61074,38.59419 3.60736,
38.59779 3.60229,38.60139 3.59892,38.65899 3.59385,38.65899 3.6006,38.66259 3.6158,38.66259 3.62256,38.68779 3.5871,
38.70219 3.57021,38.72379 3.56008,38.82099 3.53306,38.89659 3.5128,38.92179 3.51449,38.96499 3.52293,38.97939 3.51955,
38.99379 3.51449,39.01179 3.51449,39.06939 3.52631,39.07659 3.52462,39.09099 3.51786,39.18099 3.47734,
39.22059 3.46889,39.25659 3.46889,39.29619 3.49253,39.30339 3.49591,39.31419 3.49422,39.32139 3.48409,
39.31059 3.46552,39.43659 3.46214,39.46539 3.45201,39.47619 3.44019,39.47979 3.42668,39.48699 3.41317,39.505 3.40304,
39.5374 3.40473,39.5518 3.43175,39.5734 3.4976,39.6022 3.52968,39.667 3.58878,39.7462 3.66139,39.7642 3.68503,
39.7822 3.71712,39.8074 3.78972,39.829 3.84207,39.847 3.8674,39.9334 3.90792,40.0198 3.95014,40.117 3.99742,
40.1638 4.01937,40.1674 4.02444,40.1674 4.03119,40.1674 4.03626,40.1782 4.03457,40.1782 4.03288,40.1818 4.03119,
40.1854 4.03288,40.2862 4.06665,40.3654 4.09536,40.3726 4.10042,40.3762 4.11562,40.3834 4.12069,40.51301 4.17134,
40.61741 4.21187,40.70021 4.24395,40.76501 4.28448,40.78661 4.25577,40.84781 4.21525,40.86941 4.18654,
40.88741 4.15615,40.89821 4.14601,40.91621 4.13588,40.96301 4.12069,40.98101 4.11055,41.00621 4.08691,
41.07101 3.99742,41.11421 3.96196,41.16461 3.94338,41.21501 3.93663,41.31581 3.9417,41.43101 3.94845,41.48141 3.96365,
41.50662 3.96365,41.58582 3.98391,41.60382 3.98222,41.62902 3.97209,41.64342 3.96871,41.65782 3.97209,
41.70102 3.99742,41.74782 3.98222,41.79102 3.95858,41.83422 3.95014,41.88462 3.97716,41.80182 3.85727,
41.71902 3.73738,41.63262 3.61749,41.54982 3.4976,41.49941 3.4233,41.44541 3.34901,41.39501 3.27471,41.34101 3.20041,
41.26181 3.11936,41.17901 3.03831,41.09621 2.95726,41.01341 2.8762,40.98101 2.84243,40.96661 2.81373,40.96661 2.76138,
40.96661 2.63136,40.97021 2.49627,40.97021 2.42367,40.97021 2.31729,40.97021 2.20922,40.97021 2.10284,
40.97021 1.99646,40.97021 1.8715,40.97021 1.74655,40.97021 1.62159,40.97021 1.49664,40.97021 1.37168,40.97021 1.24673,
40.97021 1.22984,40.97021 1.12177,40.97021 0.99682,40.97021 0.87186,40.97021 0.74691,40.97021 0.62195,40.97021 0.497,
40.97021 0.37204,40.97021 0.24709,40.97021 0.12213,40.97021 -0.00282,40.97021 -0.08387,40.97021 -0.15141,
40.97021 -0.21896,40.97381 -0.32872,40.97381 -0.43678,40.97381 -0.54485,40.97741 -0.65461,40.97741 -0.72384,
40.97741 -0.79476,40.98101 -0.87075,41.00621 -0.90452,41.03141 -0.9366,41.05661 -0.97037,41.08181 -1.00246,
41.13221 -1.06662,41.18261 -1.13248,41.23661 -1.2034,41.28341 -1.2625,41.33381 -1.32666,41.38421 -1.39252,
41.43461 -1.45837,41.48501 -1.52254,41.52462 -1.5732,41.53542 -1.59515,41.53902 -1.61372,41.53542 -1.6762,
41.53542 -1.69646,41.45981 -1.77414,41.42381 -1.82986,41.41661 -1.84675,41.39501 -1.86026,41.33741 -1.9126,
41.30501 -1.9565,41.28341 -1.96832,41.26901 -1.94975,41.24741 -1.9565,41.23301 -1.95482,41.21861 -1.94468,
41.21861 -1.92273,41.20061 -1.943,41.19341 -1.96664,41.18621 -1.99028,41.15741 -1.9869,41.11781 -1.97846,
41.11061 -1.97846,41.09621 -1.98521,41.07821 -2.00716,41.04941 -2.01898,41.03861 -2.03249,41.02781 -2.04262,
41.01341 -2.04262,40.99901 -2.03587,40.99181 -2.02911,40.98461 -2.01898,40.98101 -2.00547,40.98101 -1.99028,
40.99181 -1.96326,40.98821 -1.94975,40.98821 -1.93624,40.99181 -1.92442,41.00621 -1.90247,40.97021 -1.92949,
40.96661 -2.046,40.94501 -2.07302,40.92701 -2.05951,40.90901 -1.99703,40.89101 -1.98352,40.88021 -1.97846,
40.86941 -1.96664,40.86221 -1.96326,40.84781 -1.97846,40.85501 -1.99196,40.85861 -2.00547,40.85501 -2.01898,
40.87301 -2.01223,40.88381 -2.0156,40.89461 -2.02574,40.89821 -2.04262,40.89461 -2.04938,40.88381 -2.05444,
40.88381 -2.05951,40.88741 -2.06964,40.89461 -2.07133,40.90181 -2.07302,40.90541 -2.07977,40.90541 -2.15407,
40.91261 -2.19122,40.92341 -2.21654,40.93421 -2.21992,40.94501 -2.21823,40.95581 -2.21823,40.97021 -2.22836,
40.98101 -2.24187,40.98101 -2.25369,40.97021 -2.27902,40.94501 -2.30942,40.92341 -2.31448,40.91981 -2.30266,
40.95221 -2.28578,40.93421 -2.28071,40.91981 -2.27058,40.89821 -2.24525,40.89461 -2.23681,40.89461 -2.23174,
40.89461 -2.22836,40.88381 -2.2233,40.88381 -2.22668,40.87661 -2.22836,40.86221 -2.23174,40.83701 -2.24525,
40.81541 -2.27227,40.79381 -2.29084,40.77221 -2.27902,40.77581 -2.28747,40.77581 -2.2976,40.78301 -2.30435,
40.79021 -2.30773,40.79381 -2.30942,40.79381 -2.31617,40.78661 -2.32799,40.79381 -2.3415,40.82261 -2.36007,
40.82981 -2.37527,40.81541 -2.39722,40.79021 -2.42424,40.75781 -2.44788,40.71101 -2.46645,40.64981 -2.53906,
40.61741 -2.55257,40.58501 -2.54582,40.55621 -2.53231,40.52381 -2.52555,40.4914 -2.52893,40.3906 -2.56101,
40.3474 -2.58972,40.3222 -2.59816,40.2934 -2.61674,40.243 -2.65726,40.2322 -2.66908,40.225 -2.68259,40.2034 -2.72481,
40.1746 -2.76196,40.171 -2.77884,40.171 -2.78728,40.189 -2.80755,40.189 -2.8143,40.1854 -2.8295,40.1854 -2.83794,
40.1638 -2.90211,40.1638 -2.93419,40.1854 -2.95108,40.1782 -2.9764,40.189 -2.98822,40.2106 -2.98654,40.2322 -2.97134,
40.2322 -2.98147,40.225 -2.99329,40.189 -3.02706,40.1674 -3.05577,40.1638 -3.06759,40.1602 -3.11825,40.153 -3.13513,
40.1206 -3.1841,40.117 -3.19761,40.1278 -3.23307,40.1278 -3.25164,40.1242 -3.26684,40.1134 -3.28204,40.1026 -3.29386,
40.0882 -3.30399,40.0414 -3.32594,40.027 -3.33438,40.0018 -3.36309,39.9874 -3.37322,39.973 -3.3766,39.9802 -3.35971,
39.991 -3.32087,39.991 -3.30737,39.973 -3.31074,39.9658 -3.32087,39.9658 -3.33438,39.9658 -3.34789,39.9622 -3.35802,
39.9586 -3.38166,39.9586 -3.38842,39.9622 -3.39348,39.9658 -3.39855,39.9478 -3.42725,39.9262 -3.48129,39.901 -3.5235,
39.8902 -3.58092,39.8794 -3.60456,39.865 -3.61638,39.8578 -3.61806,39.8362 -3.60962,39.8326 -3.60624,39.8182 -3.59105,
39.8146 -3.58936,39.7858 -3.58767,39.7894 -3.57923,39.793 -3.57416,39.7822 -3.56741,39.7714 -3.58429,39.775 -3.59949,
39.7894 -3.60962,39.8074 -3.60962,39.7966 -3.62313,39.8002 -3.63495,39.8146 -3.64002,39.8506 -3.62482,
39.8614 -3.63326,39.865 -3.64846,39.8686 -3.66366,39.8686 -3.69574,39.7858 -3.91694,39.7606 -3.94227,39.7318 -3.94565,
39.7102 -3.93214,39.7138 -3.89668,39.6886 -3.91019,39.685 -3.91694,39.6886 -3.92707,39.6958 -3.93721,39.6958 -3.94734,
39.703 -3.95578,39.7138 -3.96422,39.7354 -3.96253,39.7462 -3.96929,39.7426 -3.98617,39.721 -4.00981,39.7174 -4.01657,
39.7138 -4.02501,39.7066 -4.03683,39.6994 -4.04865,39.6922 -4.05372,39.6814 -4.04865,39.6742 -4.02501,39.667 -4.01995,
39.6598 -4.00813,39.6634 -3.98449,39.6598 -3.97098,39.6418 -3.98617,39.6166 -3.97098,39.6058 -3.96929,39.595 -3.97942,
39.6058 -3.98786,39.6166 -3.99293,39.6418 -3.99968,39.6346 -4.01657,39.6274 -4.02501,39.595 -4.03345,39.5842 -4.03345,
39.5734 -4.03177,39.5626 -4.03345,39.559 -4.04021,39.5626 -4.06047,39.5626 -4.0706,39.5662 -4.08073,39.5806 -4.06216,
39.6166 -4.05878,39.649 -4.06891,39.6706 -4.08749,39.667 -4.11282,39.6166 -4.19725,39.5842 -4.27999,39.5518 -4.40156,
39.541 -4.43027,39.5302 -4.41676,39.523 -4.41845,39.5158 -4.42689,39.505 -4.43871,39.505 -4.44378,39.505 -4.4556,
39.5014 -4.46235,39.48699 -4.47417,39.48339 -4.47924,39.45099 -4.58224,39.44379 -4.56367,39.44739 -4.53496,
39.44379 -4.51976,39.42939 -4.5299,39.42219 -4.5434,39.41859 -4.56029,39.41139 -4.5738,39.40419 -4.5738,
39.39699 -4.57042,39.38979 -4.57042,39.38979 -4.58562,39.38979 -4.59406,39.40779 -4.61432,39.39699 -4.62952,
39.36099 -4.63459,39.32499 -4.62446,39.29979 -4.59575,39.29979 -4.60082,39.29259 -4.61601,39.26379 -4.60588,
39.24219 -4.62783,39.22419 -4.65654,39.20619 -4.67005,39.19899 -4.67174,39.19539 -4.67174,39.19539 -4.67342,
39.19179 -4.6768,39.10539 -4.61601,39.01899 -4.55522,38.93619 -4.49275,38.84979 -4.43196,38.76339 -4.37117,
38.68059 -4.30869,38.59419 -4.2479,38.50779 -4.18543,38.42138 -4.12464,38.41778 -4.11957,38.33858 -4.06385,
38.25218 -4.00137,38.16578 -3.94058,38.08298 -3.87979,37.99658 -3.81732,37.91018 -3.75653,37.82378 -3.69405,
37.76978 -3.65521,37.75898 -3.63664,37.74818 -3.61638,37.73018 -3.55559,37.72298 -3.54039,37.70858 -3.52688,
37.69058 -3.51844,37.66898 -3.51168,37.64738 -3.51,37.60058 -3.51337,37.59698 -3.49986,37.60418 -3.4796,
37.60778 -3.4644,37.60418 -3.45596,37.58618 -3.45427,37.57898 -3.44583,37.57898 -3.4357,37.57898 -3.42388,
37.58618 -3.41375,37.58978 -3.40361,37.60418 -3.38842,37.62578 -3.36984,37.65098 -3.35802,37.66898 -3.35633,
37.66898 -3.33776,37.67258 -3.32425,37.68338 -3.31581,37.70138 -3.31412,37.67978 -3.19254,37.67618 -3.17903,
37.66178 -3.07097,37.64378 -3.04564,37.56098 -3.00004,37.42417 -2.92237,37.34857 -2.88016,37.13257 -2.76027,
36.91657 -2.64038,36.70417 -2.52049,36.48816 -2.4006,36.27576 -2.28071,36.05976 -2.16082,35.84376 -2.04093,
35.63136 -1.92104,35.41535 -1.80115,35.24615 -1.70659,35.19935 -1.68127,34.98695 -1.56138,34.77095 -1.44149,
34.72055 -1.41278,34.55855 -1.3216,34.34254 -1.20171,34.12654 -1.08182,34.05094 -1.03961,34.01494 -1.03792,
34.00054 -1.02948,34.00054 -1.00246,33.98614 -1.00246,33.97894 -1.00246,33.90334 -1.00246,33.89974 -0.79983,
33.89614 -0.66305,33.91054 -0.51952,33.93574 -0.31352,33.95374 -0.15479,33.95374 -0.11595,33.92134 -0.01295,
33.88894 0.09005,33.89254 0.11031,33.95014 0.18799,33.96094 0.19812,34.04014 0.30619,34.07614 0.33321,
34.08694 0.34672,34.08694 0.36698,34.07614 0.40413,34.07614 0.4227,34.07974 0.43114,34.09774 0.45141,34.10494 0.46154,
34.10854 0.46998,34.13014 0.56961,34.13374 0.57298,34.14814 0.60338,34.18054 0.62364,34.22014 0.63884,
34.25254 0.65573,34.27774 0.68105,34.29214 0.72327,34.29574 0.74691,34.29934 0.75873,34.30654 0.76886,
34.37134 0.80094,34.38934 0.81614,34.40374 0.85667,34.43254 0.89381,34.45774 0.95798,34.46134 0.97824,
34.46494 1.02215,34.46854 1.0441,34.47574 1.06436,34.48654 1.08294,34.50815 1.1032,34.52255 1.09813,34.54055 1.08969,
34.55855 1.09307,34.56215 1.09307,34.56575 1.1032,34.57295 1.11164,34.57295 1.13359,34.58015 1.15217,34.63055 1.16399,
34.66295 1.19607,34.68455 1.20958,34.76735 1.21802,34.79615 1.23153,34.81055 1.27206,34.79975 1.31258,
34.78175 1.35311,34.78175 1.37168,34.77815 1.38857,34.83935 1.43754,34.86095 1.51859,34.88255 1.55236,
34.89335 1.55743,34.91495 1.5608,34.92215 1.56587,34.93295 1.576,34.94015 1.58782,34.97255 1.65367,34.97975 1.67563,
34.97975 1.86981,34.98335 1.88163,35.00135 1.90696,35.00495 1.91709,35.00135 1.92722,34.97615 1.94918,34.96895 1.961,
34.96175 1.97788,34.95815 1.99814,34.95815 2.01841,34.95815 2.03867,34.96895 2.08257,34.96895 2.10115,34.92215 2.2109,
34.90415 2.25481,34.86455 2.34768,34.85735 2.38652,34.86815 2.41185,34.88615 2.42535,34.90775 2.43717,
34.92215 2.45406,34.92215 2.4777,34.91495 2.49459,34.88615 2.5216,34.88255 2.54187,34.87535 2.59083,34.86455 2.60434,
34.85735 2.60265,34.85015 2.5959,34.84295 2.58746,34.82855 2.58915,34.81775 2.59759,34.77815 2.68539,34.76015 2.7732,
34.74215 2.83568,34.73855 2.84412,34.73135 2.85256,34.72415 2.85425,34.69535 2.86776,34.69535 2.87114,
34.69175 2.87283,34.69175 2.8762,34.68815 2.87958,34.68455 2.88127,34.68095 2.87958,34.67735 2.87114,34.67735 2.86945,
34.67015 2.86776,34.65935 2.85932,34.65575 2.85594,34.64135 2.85932,34.63055 2.86945,34.61615 2.89309,
34.58375 2.92855,34.57295 2.94544,34.54415 3.09741,34.53335 3.11767,34.51175 3.13287,34.46494 3.14638,
34.44334 3.15989,34.43254 3.18184,34.42534 3.3051,34.41094 3.34394,34.40374 3.35576,34.39294 3.36589,34.38574 3.37602,
34.38574 3.38784,34.38574 3.39966,34.39654 3.42499,34.40014 3.43343,34.39294 3.44525,34.38214 3.46552,
34.38214 3.47734,34.38574 3.48578,34.39654 3.48916,34.40734 3.49253,34.41454 3.4976,34.43614 3.52631,34.44334 3.56683,
34.44694 3.6462,34.43974 3.66815,34.42534 3.67659,34.40734 3.68334,34.38574 3.69348,34.35334 3.72725,34.33534 3.734,
34.31014 3.72725,34.29934 3.71712,34.29574 3.70698,34.29214 3.70361,34.27774 3.71036,34.26334 3.75089,34.24174 3.7779,
34.24174 3.78297,34.23094 3.78297,34.20934 3.7779,34.19134 3.77622,34.17334 3.77115,34.16614 3.77115,34.15174 3.77622,
34.15894 3.78297,34.18054 3.79648,34.16614 3.81168,34.15174 3.81674,34.14814 3.8235,34.19494 3.84714,34.20934 3.86064,
34.20574 3.87415,34.18414 3.88597,34.16254 3.88597,34.12294 3.87246,34.10854 3.86909,34.08334 3.87753,
34.08694 3.89442,34.09774 3.91806,34.10854 3.94338,34.10854 3.96027,34.09414 3.9704,34.07974 3.98053,34.06894 3.99235,
34.06174 4.00755,34.06174 4.01768,34.06534 4.02781,34.06894 4.04132,34.07254 4.06496,34.07254 4.07678,34.06894 4.0886,
34.06174 4.09873,34.05094 4.10887,34.04014 4.12069,34.04014 4.13419,34.04014 4.16459,34.02934 4.18823,
34.00774 4.20511,33.97534 4.22031,34.07974 4.31994,34.18054 4.41956,34.28134 4.52088,34.38214 4.6205,34.46134 4.66103,
34.52975 4.69649,34.59815 4.73026,34.66655 4.76572,34.76375 4.80118,34.84655 4.83158,34.92215 4.86028,
35.00135 4.89068,35.09495 4.92445,35.17775 4.95484,35.24615 4.98186,35.26415 4.94809,35.33255 4.98693,
35.41175 5.03083,35.43335 5.00381,35.39735 4.92614,35.49455 4.92614,35.57016 4.90419,35.52336 4.78092,
35.56296 4.70662,35.60976 4.6205,35.61336 4.61882,35.69976 4.58842,35.70696 4.61882,35.70696 4.6205,35.71056 4.66103,
35.73936 4.68129,35.77896 4.67792,35.78256 4.6205,35.85816 4.61882,35.91936 4.61882
)),((
41.05301 -2.04938,41.06741 -2.03587,41.09261 -2.03756,41.12141 -2.04769,41.14301 -2.05951,41.16101 -2.09159,
41.15381 -2.11185,41.13581 -2.11523,41.12501 -2.09328,41.12501 -2.1051,41.12141 -2.11523,41.11781 -2.12367,
41.11421 -2.12705,41.11061 -2.12874,41.10701 -2.13212,41.10341 -2.1338,41.09981 -2.13549,41.09261 -2.1338,
41.08541 -2.12874,41.08181 -2.12367,41.08181 -2.12198,41.06741 -2.12367,41.04941 -2.12874,41.01341 -2.149,
41.00261 -2.14225,40.99541 -2.14394,40.98821 -2.15238,40.98461 -2.16589,40.99181 -2.17433,41.00261 -2.1794,
41.00981 -2.18784,41.00621 -2.19797,40.99541 -2.19797,40.98461 -2.19122,40.98101 -2.18108,40.98101 -2.16926,
40.95581 -2.17433,40.95581 -2.15069,40.97021 -2.1203,40.98461 -2.09666,41.00261 -2.08652,41.02421 -2.07977,
41.04581 -2.06964,41.05301 -2.04938
)))', 4326) as outline;

--! Included kenya.sql
-- Kenya: what lies in it (tickets.geo_country), and the feed's own coordinates, taken only there.

-- A body of SQL standard form, as in values.sql: bound to PostGIS where it is.
create or replace function tickets.in_kenya(place geometry) returns boolean
  language sql stable parallel safe
begin atomic
  select place is not null and tickets.is_lng_lat(place) and exists (select from tickets.geo_country c where st_intersects(c.reach, place));
end;
comment on function tickets.in_kenya(geometry) is 'Whether a point (SRID 4326) lies in Kenya, with the tolerance of tickets.geo_country.reach. False for NULL, for what is no longitude/latitude, and so for 0,0 and for swapped axes.';

create or replace function tickets.country_outline() returns json
  language sql stable parallel safe
begin atomic
  select st_asgeojson(c.outline, 4)::json from tickets.geo_country c limit 1;
end;
comment on function tickets.country_outline() is 'tickets.geo_country.outline as a GeoJSON geometry with four decimals (11 m). NULL where there is no country.';

-- Inlined, and the feed's coordinates are empty so far: two look-ups in raw are all that a row costs.
create or replace function tickets.feed_point(raw jsonb) returns geometry
  language sql stable parallel safe
  return case
    when raw ->> 'latitude' <> '' and raw ->> 'longitude' <> '' and tickets.in_kenya(
      st_setsrid(st_makepoint(tickets.to_degrees(raw ->> 'longitude'), tickets.to_degrees(raw ->> 'latitude')), 4326)
    ) then
      st_setsrid(st_makepoint(tickets.to_degrees(raw ->> 'longitude'), tickets.to_degrees(raw ->> 'latitude')), 4326)
  end;
comment on function tickets.feed_point(jsonb) is 'The coordinates of a raw record (latitude, longitude) as a point (SRID 4326), if they read as numbers and lie in Kenya, else NULL. Swapped axes are not guessed at.';
--! EndIncluded kenya.sql

--! split: 050-gazetteers.sql
-- The gazetteers: where a cluster (coarse) and a place within a cluster (precise) are.

create table tickets.geo_clusters (
  cluster text primary key check (cluster = btrim(cluster) and length(cluster) between 1 and 200),
  geom geometry(Point, 4326),
  provider text,
  query text,
  verified boolean not null default false,
  verified_by text,
  verified_at timestamptz,
  guard_km numeric not null check (guard_km between 0.1 and 1000), -- Kenya is 1 030 km long; NaN and Infinity are beyond. The page has the same bounds (routes.ts, index.html)
  suspicious boolean not null default false,
  candidates jsonb not null default '[]',
  note text,
  attempts integer not null default 0,
  fetched_at timestamptz,
  expires_at timestamptz,
  created_at timestamptz not null default now(),
  updated_at timestamptz not null default now(),
  constraint geo_clusters_geom_is_lng_lat check (tickets.is_lng_lat(geom))
);
comment on table tickets.geo_clusters is 'One coordinate per cluster: the coarse place of its tickets, and the centre of the wrong-city guard of its locations.';
comment on column tickets.geo_clusters.cluster is 'The cluster in one spelling, the first that came: later rows of either gazetteer get it too. Tickets belong to it in any case and with any blanks (tickets.cluster_key).';
comment on column tickets.geo_clusters.geom is 'Centroid, WGS 84 longitude/latitude. NULL: asked, but nothing usable is known.';
comment on column tickets.geo_clusters.provider is 'Who said so: locationiq, opencage, nominatim, or manual for a coordinate set by a person.';
comment on column tickets.geo_clusters.query is 'The text that was sent to the provider.';
comment on column tickets.geo_clusters.verified is 'A person checked this coordinate: it is never overwritten, not even by force.';
comment on column tickets.geo_clusters.verified_by is 'The role of the person who verified it, written by a trigger. NULL: nobody did, or the Python version''s data does not say.';
comment on column tickets.geo_clusters.verified_at is 'When that was. NULL where verified_by is.';
comment on column tickets.geo_clusters.guard_km is 'A location farther than this from the centroid (geodesic km, 0.1 to 1000) is rejected as the wrong city. Widen it for a large cluster.';
comment on column tickets.geo_clusters.suspicious is 'Many results of this cluster were rejected but agree among themselves: the centroid is probably the wrong one. Check it.';
comment on column tickets.geo_clusters.candidates is 'Every candidate the provider returned, in its order: what tickets_ops.score_candidates reads of it, and `original` as returned.';
comment on column tickets.geo_clusters.note is 'Free text for people.';
comment on column tickets.geo_clusters.attempts is 'How many times in a row no usable centroid was found: 1 waits 7 days, later ones 30.';
comment on column tickets.geo_clusters.fetched_at is 'When a provider last answered for this cluster.';
comment on column tickets.geo_clusters.expires_at is 'When a cluster without a centroid may be asked again. NULL: never, or never asked. A centroid does not expire.';
comment on column tickets.geo_clusters.created_at is 'When the row was made.';
comment on column tickets.geo_clusters.updated_at is 'When the row last changed.';

create table tickets.geo_locations (
  cluster text not null check (cluster = btrim(cluster) and length(cluster) between 1 and 200),
  location_key text not null check (length(location_key) between 1 and 200),
  location_name text,
  status text not null check (status in ('found', 'not_found', 'rejected', 'needs_review')),
  geom geometry(Point, 4326),
  provider text,
  query text,
  precision text check (precision in ('point', 'street', 'neighbourhood', 'city')),
  confidence numeric,
  distance_km numeric,
  candidates jsonb not null default '[]',
  verified boolean not null default false,
  verified_by text,
  verified_at timestamptz,
  note text,
  attempts integer not null default 0,
  fetched_at timestamptz,
  expires_at timestamptz,
  created_at timestamptz not null default now(),
  updated_at timestamptz not null default now(),
  primary key (cluster, location_key),
  constraint geo_locations_geom_is_lng_lat check (tickets.is_lng_lat(geom)),
  constraint geo_locations_found_has_geom check (status <> 'found' or geom is not null)
);
comment on table tickets.geo_locations is 'Places within a cluster: what a provider or a person said about (cluster, location_key). Only rows with status found place tickets.';
comment on column tickets.geo_locations.cluster is 'The cluster the place lies in: there is a Milimani in Nairobi, in Nakuru and in Kisumu.';
comment on column tickets.geo_locations.location_key is 'tickets.location_key(location_name): the place without network codes.';
comment on column tickets.geo_locations.location_name is 'One raw spelling of the place, as a sample.';
comment on column tickets.geo_locations.status is 'found: geom places tickets. not_found: the provider knows no such place. rejected: every candidate failed the guard. needs_review: only a vague match (a city, a county); a person decides.';
comment on column tickets.geo_locations.geom is 'WGS 84 longitude/latitude. A person corrects it by UPDATE; the row then becomes verified and the tickets follow.';
comment on column tickets.geo_locations.provider is 'Who said so: locationiq, opencage, nominatim, or manual for a coordinate set by a person.';
comment on column tickets.geo_locations.query is 'The text that was sent to the provider.';
comment on column tickets.geo_locations.precision is 'What the coordinate stands for: point, street, neighbourhood, or city (too vague to place a ticket).';
comment on column tickets.geo_locations.confidence is 'Score of the chosen candidate, 0 to 1, by precision, name overlap and distance.';
comment on column tickets.geo_locations.distance_km is 'Geodesic kilometres from the cluster''s centroid.';
comment on column tickets.geo_locations.candidates is 'Every candidate the provider returned, in its order: what tickets_ops.score_candidates reads of it, and `original` as returned. Judged again, without a call, when the centroid or the guard changes.';
comment on column tickets.geo_locations.verified is 'A person checked this row: it is never overwritten and never expires, not even by force.';
comment on column tickets.geo_locations.verified_by is 'The role of the person who verified it, written by a trigger. NULL: nobody did, or the Python version''s data does not say.';
comment on column tickets.geo_locations.verified_at is 'When that was. NULL where verified_by is.';
comment on column tickets.geo_locations.note is 'Free text: why a candidate was rejected, or a person''s remark.';
comment on column tickets.geo_locations.attempts is 'How many times in a row the provider did not know the place: 1 waits 7 days, later ones 30.';
comment on column tickets.geo_locations.fetched_at is 'When a provider last answered for this place.';
comment on column tickets.geo_locations.expires_at is 'When the place may be asked again. NULL: never.';
comment on column tickets.geo_locations.created_at is 'When the row was made.';
comment on column tickets.geo_locations.updated_at is 'When the row last changed.';

create table tickets.geo_decisions (
  decision_id bigint generated always as identity primary key,
  decided_at timestamptz not null default now(),
  decided_by text not null,
  kind text not null check (kind in ('cluster', 'location')),
  cluster text not null,
  location_key text,
  decision text not null
    check (decision in ('added', 'accepted', 'moved', 'rejected', 'guard', 'handed back', 'changed', 'removed', 'undone')),
  before jsonb,
  after jsonb,
  tickets_moved bigint not null,
  undoes bigint references tickets.geo_decisions,
  constraint geo_decisions_names_its_place check ((kind = 'location') = (location_key is not null)),
  constraint geo_decisions_has_a_row check (before is not null or after is not null)
);
comment on table tickets.geo_decisions is 'What people decided about places: one row for each gazetteer row that a person''s statement wrote, whatever tool it came from. Written by triggers and never changed. Take one back: select * from tickets.undo_decision(decision_id). The pipeline''s own verdicts are not among them.';
comment on column tickets.geo_decisions.decision_id is 'Number of the decision, in the order in which they were made, for tickets.undo_decision.';
comment on column tickets.geo_decisions.decided_at is 'Start of the transaction.';
comment on column tickets.geo_decisions.decided_by is 'The role of the person, also when a function with its owner''s rights wrote the row.';
comment on column tickets.geo_decisions.kind is 'cluster (tickets.geo_clusters) or location (tickets.geo_locations).';
comment on column tickets.geo_decisions.cluster is 'The cluster.';
comment on column tickets.geo_decisions.location_key is 'The place in it. NULL: the decision is about the cluster itself.';
comment on column tickets.geo_decisions.decision is 'added, accepted (as proposed), moved (another coordinate), rejected (no place on earth, or none of the candidates), guard (guard_km), handed back (to the pipeline), changed (a note, say), removed, undone (see undoes).';
comment on column tickets.geo_decisions.before is 'The row as it was; NULL for one that was added. geom is hexadecimal EWKB (cast it to geometry); candidates are left out unless they changed.';
comment on column tickets.geo_decisions.after is 'The row as the decision left it; NULL for one that was removed. In the form of before.';
comment on column tickets.geo_decisions.tickets_moved is 'Tickets whose place on the map changed with it, open and closed; for a cluster also those whose location was judged anew.';
comment on column tickets.geo_decisions.undoes is 'The decision that this one took back. NULL: none.';
-- The history of one place, the newest first.
create index geo_decisions_place on tickets.geo_decisions (cluster, location_key, decision_id);

--! Included gazetteers.sql
-- Which cluster a name means, how far a place may be from its cluster, and who may write the gazetteers.
--
-- Clusters are compared by tickets.cluster_key, whatever the case. Within the gazetteers each has one spelling, the one that
-- came first, so that their rows can be joined by it; a ticket keeps what the feed wrote.

create or replace function tickets.default_guard_km() returns numeric language sql immutable parallel safe
return 25;
comment on function tickets.default_guard_km() is 'The guard of a cluster, unless it is given another (tickets.geo_clusters.guard_km): how far its places may be from its centroid, geodesic km. From central Nairobi, Kitengela is 26.1 km away and Thika 39.6.';

-- A coordinate that the pipeline did not write was set by a person: the row becomes verified, provider 'manual', and is
-- never overwritten again, not even by force. The pipeline's functions mark their writes by the setting below, for their own
-- duration (connections of the embedded database share settings, so it never outlives the function).

-- Inlined; translate() takes less than a pattern would, and the blanks of all Unicode (and what has no width) twice as long as
-- those of ASCII, which nearly every name is in.
create or replace function tickets.cluster_key(p_cluster text) returns text language sql immutable parallel safe
return nullif(
  left(
    lower(translate(
      p_cluster,
      case when octet_length(p_cluster) = length(p_cluster) then E' \t\r\n\v\f'
        else E' \t\r\n\v\f\u00a0\u2002\u2003\u2007\u2009\u200a\u200b\u200c\u200d\u200e\u200f\u202f\u2060\u3000\ufeff' end,
      ''
    )),
    200
  ),
  ''
);
comment on function tickets.cluster_key(text) is 'What identifies a cluster: its name in lower case without blanks, so that Kilimani, KILIMANI and " kilimani" are one. At most 200 characters, because a B-tree entry is limited to 2704 bytes. NULL for an empty one.';

create or replace function tickets.known_spelling(p_cluster text) returns text
language plpgsql stable set search_path = pg_catalog, pg_temp as $$
begin
  return coalesce(
    (select c.cluster from tickets.geo_clusters c where tickets.cluster_key(c.cluster) = tickets.cluster_key(p_cluster)),
    -- Relies on the index on (cluster_key(cluster), location_key).
    (select l.cluster from tickets.geo_locations l where tickets.cluster_key(l.cluster) = tickets.cluster_key(p_cluster) limit 1)
  );
end
$$;
comment on function tickets.known_spelling(text) is 'A cluster as the gazetteers write it. NULL where they do not have it.';

-- Security definer: whoever writes one gazetteer need not read the other.
create or replace function tickets.keep_spelling() returns trigger
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
begin
  new.cluster := coalesce(tickets.known_spelling(new.cluster), new.cluster);
  return new;
end
$$;
comment on function tickets.keep_spelling() is 'Trigger: a gazetteer row gets the spelling of its cluster that the gazetteers have already.';

create or replace function tickets.touch_updated_at() returns trigger language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
  new.updated_at := now();
  return new;
end
$$;
comment on function tickets.touch_updated_at() is 'Trigger: keeps updated_at true.';

create or replace function tickets_ops.is_pipeline() returns boolean language sql stable
return coalesce(current_setting('tickets_ops.writer', true) = 'pipeline', false);
comment on function tickets_ops.is_pipeline() is 'Whether the writes of gazetteers and tickets of this moment are the pipeline''s own; see tickets_ops.as_pipeline.';

create or replace function tickets_ops.is_erasing() returns boolean language sql stable
return coalesce(current_setting('tickets_ops.erasing', true) = 'true', false);
comment on function tickets_ops.is_erasing() is 'Whether tickets_ops.erase_place is at work: it alone may change a verified place without deciding about it, and history.';

create or replace function tickets_ops.as_pipeline(p_on boolean) returns boolean
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
  v_before boolean := tickets_ops.is_pipeline();
begin
  perform set_config('tickets_ops.writer', case when p_on then 'pipeline' else '' end, true);
  return v_before;
end
$$;
comment on function tickets_ops.as_pipeline(boolean) is 'Marks the writes of gazetteers and tickets that follow in this transaction as the pipeline''s own (true) or a person''s (false). Returns what it was before: hand that back at the end. A coordinate written without the mark is verified; a ticket gets a baseline.';

create or replace function tickets_ops.refusal_by_hand(p_geom geometry) returns text language sql stable parallel safe
begin atomic
  select case
    when p_geom is null or tickets.in_kenya(p_geom) then null
    when tickets.in_kenya(st_flipcoordinates(p_geom)) then
      format('It lies outside Kenya; longitude and latitude are probably swapped. Write st_setsrid(st_makepoint(%s, %s), 4326).', st_y(p_geom), st_x(p_geom))
    when abs(st_x(p_geom)) < 0.01 and abs(st_y(p_geom)) < 0.01 then
      'It is 0,0, which is what an empty coordinate becomes. Write st_setsrid(st_makepoint(longitude, latitude), 4326); Nairobi is st_makepoint(36.82, -1.29).'
    else 'It lies outside Kenya. Longitude comes first: Nairobi is st_setsrid(st_makepoint(36.82, -1.29), 4326).'
  end;
end;
comment on function tickets_ops.refusal_by_hand(geometry) is 'Why a person may not put a place there: outside Kenya, 0,0, or swapped axes, with the right order. NULL: they may.';

create or replace function tickets_ops.check_by_hand(p_name text, p_geom geometry) returns void language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
  v_refusal text := tickets_ops.refusal_by_hand(p_geom);
begin
  if v_refusal is not null then
    raise exception 'The coordinate % of % is refused. %', p_geom::point, p_name, v_refusal using errcode = 'check_violation';
  end if;
end
$$;
comment on function tickets_ops.check_by_hand(text, geometry) is 'Raises check_violation, with the reason, where a person puts a place of that name at a coordinate that cannot be meant (tickets_ops.refusal_by_hand).';

create or replace function tickets_ops.keep_cluster_verified() returns trigger
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
  v_decided boolean := tg_op = 'INSERT' or new.verified <> old.verified;
begin
  if tickets_ops.is_pipeline() then
    if tg_op = 'INSERT' or not old.verified then
      return new;
    end if;
    -- What a person checked stays as it is; that its places lie elsewhere is said all the same.
    if new.suspicious is not distinct from old.suspicious then
      return null; -- no row is written
    end if;
    old.suspicious := new.suspicious;
    return old;
  end if;
  -- Taken away is decided too: the pipeline would only find the same centroid again.
  if new.geom::bytea is distinct from (case when tg_op = 'UPDATE' then old.geom::bytea end) then
    perform tickets_ops.check_by_hand(new.cluster, new.geom);
    new.verified := true;
    new.provider := 'manual';
    v_decided := true;
  end if;
  if new.verified then
    new.suspicious := new.suspicious and not v_decided;
    new.expires_at := null;
  end if;
  return new;
end
$$;
comment on function tickets_ops.keep_cluster_verified() is 'Trigger: a centroid that a person sets or takes away is verified, and one outside Kenya is refused; the pipeline cannot overwrite a verified row, but for the flag suspicious.';

create or replace function tickets_ops.keep_location_verified() returns trigger
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
  v_guard_km numeric;
begin
  if tickets_ops.is_pipeline() then
    return case when tg_op = 'UPDATE' and old.verified and not tickets_ops.is_erasing() then null else new end;
  end if;
  -- Of a name where a key belongs too: no ticket has another key.
  new.location_key := coalesce(tickets.location_key(new.location_key), new.location_key, tickets.location_key(new.location_name));
  if new.location_key is null then
    raise exception 'Nothing but network codes is left of "%": no ticket has such a place.', new.location_name
      using errcode = 'not_null_violation', hint = 'See tickets.location_key().';
  end if;
  if tg_op = 'INSERT' then
    new.status := coalesce(new.status, case when new.geom is not null then 'found' end);
  end if;
  if new.geom is not null and (tg_op = 'INSERT' or new.geom::bytea is distinct from old.geom::bytea) then
    perform tickets_ops.check_by_hand(format('%s in %s', new.location_key, new.cluster), new.geom);
    new.verified := true;
    new.provider := 'manual';
    new.precision := case when tg_op = 'UPDATE' and new.precision is distinct from old.precision then new.precision else 'point' end;
    new.confidence := null;
    new.note := case when tg_op = 'UPDATE' and new.note is distinct from old.note then new.note end;
    if tg_op = 'UPDATE' and new.status = old.status then
      new.status := 'found';
    end if;
    select tickets_ops.distance_km(c.geom, new.geom), c.guard_km into new.distance_km, v_guard_km
    from tickets.geo_clusters c where c.cluster = new.cluster;
    if new.distance_km > v_guard_km then
      raise notice '% is % km from the centre of %, beyond its guard of % km. It is taken as you set it.',
        new.location_key, round(new.distance_km, 1), new.cluster, v_guard_km;
    end if;
  elsif tg_op = 'UPDATE' and (new.status <> old.status or new.geom::bytea is distinct from old.geom::bytea) then
    -- Accepted, rejected, or the coordinate taken away: a person decided.
    new.verified := true;
    if new.geom is null and new.status = 'found' then
      new.status := 'rejected';
    end if;
  elsif tg_op = 'UPDATE' and new.verified and not old.verified and new.geom is not null and new.status = 'needs_review' then
    new.status := 'found';
  elsif tg_op = 'UPDATE' and old.verified and not new.verified then
    -- Handed back to the pipeline, which asks again.
    new.expires_at := now();
  end if;
  if new.verified then
    new.expires_at := null;
  end if;
  return new;
end
$$;
comment on function tickets_ops.keep_location_verified() is
  'Trigger: a coordinate or status that a person sets is verified (verified = true on a needs_review row accepts its coordinate, verified = false hands the row back), refused outside Kenya and accepted with a notice beyond the guard; the pipeline cannot overwrite a verified row. Fills location_key from location_name, and a verified row never expires.';

create or replace function tickets_ops.answer_expires_at(p_status text, p_attempts integer, p_found_days numeric, p_from timestamptz)
returns timestamptz language sql immutable parallel safe
return p_from + make_interval(secs => 86400 * (
  case
    when p_status = 'found' then coalesce(p_found_days, 180)
    when p_status = 'not_found' and p_attempts <= 1 then 7
    else 30
  end
)::double precision);
comment on function tickets_ops.answer_expires_at(text, integer, numeric, timestamptz) is
  'When a place may be asked again: found after p_found_days (NULL: 180), not found after 7 days the first time and 30 then, rejected and needs_review after 30.';

create or replace function tickets.chosen_spellings(p_clusters text[], p_tickets bigint[]) returns table (cluster_key text, spelling text)
language sql stable parallel safe rows 100
set search_path = pg_catalog, pg_temp
as $$
  select distinct on (1) tickets.cluster_key(w.cluster), w.cluster
  from (
    select g.cluster, true as is_known, 0 as tickets from tickets.geo_clusters g
    union all
    select s.cluster, false, s.tickets from unnest(p_clusters, p_tickets) as s (cluster, tickets)
  ) as w
  where tickets.cluster_key(w.cluster) is not null
  order by 1, w.is_known desc, w.tickets desc, w.cluster collate "C"
$$;
comment on function tickets.chosen_spellings(text[], bigint[]) is 'The one spelling in which each cluster is shown, however the feed writes it (tickets.cluster_key): that of tickets.geo_clusters, else of p_clusters the one that most tickets have. p_tickets: how many have each of p_clusters, in their order.';
--! EndIncluded gazetteers.sql
--! Included decisions.sql
-- What people decide about places: signed, written down, and undone.
--
-- A person's statement is one that the pipeline did not mark as its own (tickets_ops.as_pipeline). Whatever tool it comes
-- from, triggers sign the row (verified_by) and append to tickets.geo_decisions. Undoing restores the row as the decision
-- found it; the tickets follow, as after any write.

create or replace function tickets_ops.person() returns text language sql stable
-- current_user would name the owner of the function that asks, for triggers run with their owner's rights.
return case current_setting('role') when 'none' then session_user::text else current_setting('role') end;
comment on function tickets_ops.person() is 'The role that the person at the other end of the connection acts as: what SET ROLE chose, else the one that logged in. The same inside functions that run with their owner''s rights.';

create or replace function tickets_ops.undoing() returns bigint language sql stable
return nullif(current_setting('tickets_ops.undoing', true), '')::bigint;
comment on function tickets_ops.undoing() is 'The decision that the gazetteer write of this moment takes back, set by tickets.undo_decision for its own duration. NULL: none. Whoever sets it by hand can restore that decision''s row, and write nothing else.';

create or replace function tickets_ops.refuse_rewriting() returns trigger
language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
  if tickets_ops.is_erasing() then
    return null;
  end if;
  raise exception 'tickets.geo_decisions is history: its rows are neither changed nor deleted.'
    using errcode = 'insufficient_privilege', hint = 'Take a decision back with: select * from tickets.undo_decision(decision_id);';
end
$$;
comment on function tickets_ops.refuse_rewriting() is 'Trigger: keeps tickets.geo_decisions append-only, for its owner and against TRUNCATE too; tickets_ops.erase_ticket alone passes.';

-- Not with its owner's rights: it asks for those of whoever writes. Of a function that runs with its owner's rights, the
-- pipeline's among them, these are its owner's; so undo_decision takes the mark away.
-- Before each row and after the statement: an expression of the statement itself can set the mark.
create or replace function tickets_ops.refuse_forged_mark() returns trigger
language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
  if (current_setting('tickets_ops.writer', true) <> '' or current_setting('tickets_ops.erasing', true) <> '')
    and not has_function_privilege('tickets_ops.as_pipeline(boolean)', 'execute')
  then
    raise exception 'What % decides about a place is signed and written down: it cannot be marked as the pipeline''s.', current_user
      using errcode = 'insufficient_privilege', hint = 'reset tickets_ops.writer; reset tickets_ops.erasing;';
  end if;
  return case tg_op when 'DELETE' then old else new end;
end
$$;
comment on function tickets_ops.refuse_forged_mark() is 'Trigger of each write of a gazetteer: refuses the mark of tickets_ops.as_pipeline, which is a setting and so anybody''s to set, to roles that may not call that function: verified_by and tickets.geo_decisions would say nothing, or something else.';

create or replace function tickets_ops.sign_verdict() returns trigger
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
  v_row jsonb := to_jsonb(new);
  v_before jsonb;
begin
  if tickets_ops.is_pipeline() then
    return new;
  end if;
  if tickets_ops.undoing() is not null then
    select d.before into v_before
    from tickets.geo_decisions d
    where d.decision_id = tickets_ops.undoing()
      and d.cluster = new.cluster and d.location_key is not distinct from v_row ->> 'location_key';
    if v_before is null then
      raise exception 'Decision % changed no such row.', tickets_ops.undoing();
    end if;
    -- Every column, whatever the statement and the triggers before this one made of the row.
    return jsonb_populate_record(new, v_before);
  end if;
  if not new.verified then
    new.verified_by := null;
    new.verified_at := null;
  elsif tg_op = 'INSERT' or not old.verified or new.geom::bytea is distinct from old.geom::bytea
    or v_row ->> 'status' is distinct from to_jsonb(old) ->> 'status' -- clusters have none
  then
    new.verified_by := tickets_ops.person();
    new.verified_at := now();
  else
    new.verified_by := old.verified_by;
    new.verified_at := old.verified_at;
  end if;
  return new;
end
$$;
comment on function tickets_ops.sign_verdict() is 'Trigger on a person''s write of a gazetteer row: says in verified_by and verified_at who verified it and when, whatever the statement wrote there; under tickets.undo_decision it restores the row instead.';

create or replace function tickets_ops.decision_of(p_before jsonb, p_after jsonb) returns text language sql stable
return case
  when tickets_ops.undoing() is not null then 'undone'
  when p_before is null then 'added'
  when p_after is null then 'removed'
  when p_before -> 'verified' = 'true' and p_after -> 'verified' = 'false' then 'handed back'
  when (p_before -> 'verified', p_before -> 'status', p_before -> 'geom')
    is distinct from (p_after -> 'verified', p_after -> 'status', p_after -> 'geom')
  then
    case
      when p_after ->> 'geom' is null or p_after ->> 'status' = 'rejected' then 'rejected'
      when p_after -> 'geom' <> p_before -> 'geom' then 'moved'
      else 'accepted'
    end
  when p_after -> 'guard_km' <> p_before -> 'guard_km' then 'guard'
  else 'changed'
end;
comment on function tickets_ops.decision_of(jsonb, jsonb) is 'What a person''s write of a gazetteer row decided, as a word of tickets.geo_decisions.decision. NULL for the row that is not there.';

-- Times are written in one time zone, so that undo_decision can compare the text.
create or replace function tickets_ops.record_decisions() returns trigger
language plpgsql security definer set search_path = pg_catalog, pg_temp set timezone = 'UTC' as $$
declare
  v_before jsonb[];
  v_after jsonb[];
begin
  if tickets_ops.is_pipeline() then
    return null;
  end if;
  -- An event names only the transition tables that it has. A geometry would become GeoJSON, which rounds.
  if tg_op <> 'INSERT' then
    v_before := array(select to_jsonb(b) || jsonb_build_object('geom', b.geom::text) from before b);
  end if;
  if tg_op <> 'DELETE' then
    v_after := array(select to_jsonb(a) || jsonb_build_object('geom', a.geom::text) from after a);
  end if;
  insert into tickets.geo_decisions (decided_by, kind, cluster, location_key, decision, before, after, tickets_moved, undoes)
  select
    tickets_ops.person(), case when place.location_key is null then 'cluster' else 'location' end, place.cluster, place.location_key,
    tickets_ops.decision_of(b.whole, a.whole), b.whole - place.left_out, a.whole - place.left_out,
    (
      select coalesce(sum(m.tickets), 0)
      from jsonb_to_recordset(tickets_ops.moves()) as m (cluster_key text, location_key text, tickets bigint)
      where m.cluster_key = tickets.cluster_key(place.cluster) and (place.location_key is null or m.location_key = place.location_key)
    ),
    tickets_ops.undoing()
  from unnest(v_before) as b (whole)
  full join unnest(v_after) as a (whole)
    on b.whole ->> 'cluster' = a.whole ->> 'cluster'
    and coalesce(b.whole ->> 'location_key', '') = coalesce(a.whole ->> 'location_key', '')
  cross join lateral (
    select
      coalesce(a.whole, b.whole) ->> 'cluster' as cluster,
      coalesce(a.whole, b.whole) ->> 'location_key' as location_key,
      case when a.whole -> 'candidates' = b.whole -> 'candidates' then 'candidates' else '' end as left_out
  ) as place
  where b.whole - 'updated_at' is distinct from a.whole - 'updated_at'
  order by place.cluster, place.location_key;
  return null;
end
$$;
comment on function tickets_ops.record_decisions() is 'Trigger after a person''s write of a gazetteer: appends what changed to tickets.geo_decisions, with the tickets that moved by it.';

create or replace function tickets.undo_decision(p_decision_id bigint) returns setof tickets.geo_decisions
language plpgsql security definer set search_path = pg_catalog, pg_temp set timezone = 'UTC' set lock_timeout = '10s' as $$
declare
  v_decision tickets.geo_decisions;
  v_row text; -- a FROM clause: the row as r
  v_now jsonb;
begin
  select * into v_decision from tickets.geo_decisions where decision_id = p_decision_id;
  if not found then
    raise exception 'There is no decision %.', p_decision_id using errcode = 'no_data_found', hint = 'See tickets.geo_decisions.';
  end if;
  -- What every write of a gazetteer takes first: the row cannot change between the look and the write.
  perform pg_advisory_xact_lock(tickets.gazetteer_lock());
  v_row := format(case v_decision.kind
    when 'cluster' then 'tickets.geo_clusters r where r.cluster = %1$L'
    else 'tickets.geo_locations r where r.cluster = %1$L and r.location_key = %2$L'
  end, v_decision.cluster, v_decision.location_key);
  execute 'select to_jsonb(r) || jsonb_build_object(''geom'', r.geom::text) from ' || v_row into v_now;
  if v_now - 'updated_at' - (case when v_decision.after ? 'candidates' then '' else 'candidates' end)
    is distinct from v_decision.after - 'updated_at'
  then
    raise exception 'Decision % cannot be undone: the place was changed since.', p_decision_id
      using errcode = 'object_not_in_prerequisite_state', hint = 'Look at it again, and decide anew.';
  end if;

  perform tickets_ops.as_pipeline(false);
  perform set_config('tickets_ops.undoing', p_decision_id::text, true);
  if v_decision.before is null then
    execute 'delete from ' || v_row;
  elsif v_decision.after is null then
    execute format(
      'insert into tickets.%1$I select (jsonb_populate_record(null::tickets.%1$I, $1)).*', 'geo_' || v_decision.kind || 's'
    ) using v_decision.before;
  else
    execute replace('update ' || v_row, ' r where', ' r set updated_at = now() where'); -- sign_verdict restores the rest
  end if;
  perform set_config('tickets_ops.undoing', '', true);
  return query
    select * from tickets.geo_decisions where undoes = p_decision_id and cluster = v_decision.cluster order by decision_id desc limit 1;
exception when lock_not_available then
  perform tickets_ops.raise_blocked();
end
$$;
comment on function tickets.undo_decision(bigint) is 'Takes a decision of a person back: restores every column of the gazetteer row but updated_at, verified included, and the tickets follow: select * from tickets.undo_decision(17). Returns the decision that this is, which can be undone in turn. Raises 55000 when the row is no longer as the decision left it, P0002 when there is no such decision, and when others keep the gazetteers locked for ten seconds. Runs with its owner''s rights, so it needs no right to delete what was added.';
--! EndIncluded decisions.sql

alter table tickets.geo_clusters alter column guard_km set default tickets.default_guard_km();

-- One row for a cluster and for a place of it, whatever the spelling; what tickets are joined by.
create unique index geo_clusters_key on tickets.geo_clusters (tickets.cluster_key(cluster));
create unique index geo_locations_place on tickets.geo_locations (tickets.cluster_key(cluster), location_key);

create trigger _000_forged before insert or update or delete on tickets.geo_clusters
  for each row execute function tickets_ops.refuse_forged_mark();
create trigger _000_forged_meanwhile after insert or update or delete on tickets.geo_clusters
  for each statement execute function tickets_ops.refuse_forged_mark();
create trigger _000_forged before insert or update or delete on tickets.geo_locations
  for each row execute function tickets_ops.refuse_forged_mark();
create trigger _000_forged_meanwhile after insert or update or delete on tickets.geo_locations
  for each statement execute function tickets_ops.refuse_forged_mark();
create trigger _040_spelling before insert or update of cluster on tickets.geo_clusters
  for each row execute function tickets.keep_spelling();
create trigger _040_spelling before insert or update of cluster on tickets.geo_locations
  for each row execute function tickets.keep_spelling();

create trigger _050_verified before insert or update on tickets.geo_clusters
  for each row execute function tickets_ops.keep_cluster_verified();
create trigger _050_verified before insert or update on tickets.geo_locations
  for each row execute function tickets_ops.keep_location_verified();
-- After _050, whose verdict is signed.
create trigger _060_signed before insert or update on tickets.geo_clusters
  for each row execute function tickets_ops.sign_verdict();
create trigger _060_signed before insert or update on tickets.geo_locations
  for each row execute function tickets_ops.sign_verdict();
create trigger _100_touch before update on tickets.geo_clusters for each row execute function tickets.touch_updated_at();
create trigger _100_touch before update on tickets.geo_locations for each row execute function tickets.touch_updated_at();
create trigger _100_append_only before update or delete or truncate on tickets.geo_decisions
  for each statement execute function tickets_ops.refuse_rewriting();

--! split: 060-tickets.sql
-- The tickets: raw-first tables. `raw` is the source of truth; every other column follows from it and from the gazetteers.
-- The typed columns are total: no text in `raw` may make a write fail; what does not parse is NULL.

create table tickets.inc (
  ticket_id text primary key check (length(ticket_id) between 1 and 200),
  raw jsonb not null,
  geom geometry(Point, 4326),
  geo_source text not null default 'none' check (geo_source in ('feed', 'location', 'cluster', 'none')),
  ingested_at timestamptz not null default now(),
  normalized_status text generated always as (nullif(raw ->> 'normalized_status', '')) stored,
  raw_status text generated always as (nullif(raw ->> 'raw_status', '')) stored,
  bucket text generated always as (nullif(raw ->> 'bucket', '')) stored,
  is_actionable boolean generated always as (tickets.to_boolean(raw ->> 'is_actionable')) stored,
  cluster text generated always as (nullif(raw ->> 'cluster', '')) stored,
  region text generated always as (nullif(raw ->> 'region', '')) stored,
  location_name text generated always as (nullif(raw ->> 'location_name', '')) stored,
  location_key text generated always as (tickets.location_key(raw ->> 'location_name')) stored,
  assigned_team text generated always as (nullif(raw ->> 'assigned_team', '')) stored,
  owner text generated always as (nullif(raw ->> 'owner', '')) stored,
  sla_status text generated always as (nullif(raw ->> 'sla_status', '')) stored,
  mttr numeric generated always as (tickets.hours_to_minutes(raw ->> 'mttr')) stored,
  created_at_service timestamptz generated always as (tickets.eat_ts(raw ->> 'created_at_service')) stored,
  scheduled_at timestamptz generated always as (tickets.eat_ts(raw ->> 'scheduled_at')) stored,
  closed_at timestamptz generated always as (tickets.eat_ts(raw ->> 'closed_at')) stored,
  first_seen_at timestamptz generated always as (tickets.eat_ts(raw ->> 'first_seen_at')) stored,
  last_seen_at timestamptz generated always as (tickets.eat_ts(raw ->> 'last_seen_at')) stored,
  source_created_at timestamptz generated always as (tickets.eat_ts(raw ->> 'source_created_at')) stored,
  source_updated_at timestamptz generated always as (tickets.eat_ts(raw ->> 'source_updated_at')) stored,
  latitude double precision generated always as (st_y(geom)) stored,
  longitude double precision generated always as (st_x(geom)) stored,
  geog geography(Point, 4326) generated always as (geom::geography) stored,
  constraint inc_geom_is_lng_lat check (tickets.is_lng_lat(geom)),
  constraint inc_placed_by_its_source check ((geom is null) = (geo_source = 'none'))
)
-- Room on each page for the next version of a row: nearly every update stays on its page and touches no index (HOT).
with (fillfactor = 80);
comment on table tickets.inc is 'INC fault tickets, current state: one row per ticket, upserted hourly, never deleted. History is in tickets.inc_events.';
comment on column tickets.inc.ticket_id is 'The ticket''s number, like WOT0715527.';
comment on column tickets.inc.raw is 'The source record as the feed gave it, cleaned: the source of truth for every typed column.';
comment on column tickets.inc.geom is 'Best known place, for display: feed coordinates, else the geocoded location, else the cluster''s centroid. Set by trigger.';
comment on column tickets.inc.geo_source is 'Where geom comes from, which is its precision: feed, location, cluster (a centroid: do not read it as an address) or none.';
comment on column tickets.inc.ingested_at is 'When a snapshot last wrote this row. An unchanged row is not written, so it does not move.';
comment on column tickets.inc.normalized_status is 'The canonical status: filter on this one.';
comment on column tickets.inc.raw_status is 'The source system''s own status, upper case. Filter on normalized_status instead.';
comment on column tickets.inc.bucket is 'Lifecycle flag of the export: closed or pending.';
comment on column tickets.inc.is_actionable is 'Open = true.';
comment on column tickets.inc.cluster is 'Network cluster as the feed wrote it; tickets.cluster_key(cluster) joins it to tickets.geo_clusters.';
comment on column tickets.inc.region is 'Region, lower case.';
comment on column tickets.inc.location_name is 'The place as field staff typed it, network codes included.';
comment on column tickets.inc.location_key is 'tickets.location_key(location_name): with the cluster it names the place in tickets.geo_locations.';
comment on column tickets.inc.assigned_team is 'Team the ticket is assigned to.';
comment on column tickets.inc.owner is 'Owner of the ticket: a dimension of closure attribution.';
comment on column tickets.inc.sla_status is 'Source Compliant/Breached. Means something only once the ticket is closed, and does not match a plain 48 h: for open tickets use tickets.inc_open_sla.';
comment on column tickets.inc.mttr is 'Whole minutes (the source has decimal hours). It is not closed_at - created_at_service. NULL until closed.';
comment on column tickets.inc.created_at_service is 'Lifecycle start. Missing on about 30 % of rows, most of them open.';
comment on column tickets.inc.scheduled_at is 'When the visit is scheduled.';
comment on column tickets.inc.closed_at is 'Lifecycle end.';
comment on column tickets.inc.first_seen_at is 'Bookkeeping of the export, not lifecycle: when the export first saw the ticket.';
comment on column tickets.inc.last_seen_at is 'Bookkeeping of the export, not lifecycle: when the export last saw the ticket.';
comment on column tickets.inc.source_created_at is 'Bookkeeping of the export, not lifecycle.';
comment on column tickets.inc.source_updated_at is 'Bookkeeping of the export, not lifecycle.';
comment on column tickets.inc.latitude is 'ST_Y(geom): never a coordinate that geom refused.';
comment on column tickets.inc.longitude is 'ST_X(geom): never a coordinate that geom refused.';
comment on column tickets.inc.geog is 'geom as geography: distances in metres, for routing and nearest-ticket queries.';

-- Nearest open tickets, and everything else that reads the open ones through tickets.inc_open_sla
-- (partial: the many closed tickets cost nothing, and the KNN scan does not wade through them).
create index inc_open_geog on tickets.inc using gist (geog) where is_actionable;
create index inc_open on tickets.inc (ticket_id) where is_actionable;
-- What counting them by SLA and precision takes: a monitor reads this, and not 20 000 rows all over the table (measured: 9 ms
-- of 500 000 tickets, otherwise 80). Apart from inc_open, which stays small for all others.
create index inc_open_counts on tickets.inc (ticket_id) include (region, created_at_service, first_seen_at, geo_source) where is_actionable;
-- Distances and radius searches over all tickets, closed ones included.
create index inc_geog on tickets.inc using gist (geog);
-- Closures per day.
create index inc_closed_at on tickets.inc (closed_at);
-- Tickets by the start of their clock (view inc_clock), without going to the table.
create index inc_created_at_service on tickets.inc (created_at_service) include (ticket_id);
create index inc_first_seen_at on tickets.inc (first_seen_at) include (ticket_id) where created_at_service is null;

create table tickets.crq (like tickets.inc including all);
comment on table tickets.crq is 'CRQ new-installation requests: the same raw-first table as tickets.inc, with its columns. Loaded where CRQ_ENABLED=true.';
-- By the names of INC's; crq_open is the view.
alter index tickets.crq_closed_at_idx rename to crq_closed_at;
alter index tickets.crq_created_at_service_ticket_id_idx rename to crq_created_at_service;
alter index tickets.crq_first_seen_at_ticket_id_idx rename to crq_first_seen_at;
alter index tickets.crq_geog_idx rename to crq_open_geog;
alter index tickets.crq_geog_idx1 rename to crq_geog;
alter index tickets.crq_ticket_id_idx rename to crq_open_ids;
alter index tickets.crq_ticket_id_region_created_at_service_first_seen_at_geo_s_idx rename to crq_open_counts;

create table tickets.inc_events (
  event_id bigint generated always as identity primary key,
  ticket_id text not null,
  event text not null check (
    event in ('baseline', 'opened', 'closed', 'reopened', 'closure_corrected', 'status_changed', 'team_changed', 'cluster_changed')
  ),
  old_value text,
  new_value text,
  snapshot_id bigint,
  snapshot_at timestamptz,
  recorded_at timestamptz not null default now(),
  assigned_team text,
  owner text,
  cluster text,
  region text,
  created_at_service timestamptz,
  closed_at timestamptz,
  mttr numeric,
  sla_status text,
  team_before text,
  constraint inc_events_context check (
    event in ('baseline', 'opened', 'closed', 'reopened')
    or num_nonnulls(assigned_team, owner, cluster, region, created_at_service, team_before) = 0
      and (event = 'closure_corrected' or num_nonnulls(closed_at, mttr, sla_status) = 0)
  )
);

comment on table tickets.inc_events is 'History of tickets, append-only, written in the transaction that changes the ticket. Closings are in tickets.inc_closures, the open backlog at a time in tickets.inc_backlog and tickets.inc_backlog_daily().';
comment on column tickets.inc_events.event_id is 'Order of writing.';
comment on column tickets.inc_events.ticket_id is 'tickets.inc.ticket_id.';
comment on column tickets.inc_events.event is 'opened: first seen open. closed: stopped being actionable, or first seen closed (old_value is then NULL). reopened. closure_corrected: closed_at or mttr changed while the ticket stayed closed. status_changed, team_changed, cluster_changed. baseline: existed when history began.';
comment on column tickets.inc_events.old_value is 'The value before: of assigned_team or cluster for team_changed and cluster_changed, else normalized_status. NULL at first sight (baseline, opened, and closed of a ticket that was never seen open); a closing or reopening of a ticket that had no status has an empty text.';
comment on column tickets.inc_events.new_value is 'The value after: assigned_team, cluster, else normalized_status.';
comment on column tickets.inc_events.snapshot_id is 'tickets_ops.snapshots.snapshot_id that brought the change. NULL for a baseline; 0 for what a takeover imported from the history of the Python version.';
comment on column tickets.inc_events.snapshot_at is 'The export''s own time of that snapshot: use this as the time axis of what was observed. It trails what happened by days: see tickets.reporting_lag().';
comment on column tickets.inc_events.recorded_at is 'When the event was written.';
comment on column tickets.inc_events.assigned_team is 'This and the columns that follow: the ticket as the snapshot left it, on baseline, opened, closed and reopened; NULL on the others. For a closing the team that is credited with it. Cut to 100 characters, as are cluster and region.';
comment on column tickets.inc_events.owner is 'As assigned_team: the ticket''s owner then.';
comment on column tickets.inc_events.cluster is 'As assigned_team: the ticket''s cluster then.';
comment on column tickets.inc_events.region is 'As assigned_team: the ticket''s region then.';
comment on column tickets.inc_events.created_at_service is 'As assigned_team: what was known of the ticket''s creation then. It is often told later: tickets.inc has what is known today.';
comment on column tickets.inc_events.closed_at is 'As assigned_team; also on closure_corrected, where it is the corrected time.';
comment on column tickets.inc_events.mttr is 'The source''s repair time in whole minutes, as in tickets.inc. As closed_at also on closure_corrected.';
comment on column tickets.inc_events.sla_status is 'The source''s own verdict, which means something on closings only. As closed_at also on closure_corrected.';
comment on column tickets.inc_events.team_before is 'As assigned_team: the team before this snapshot. NULL at first sight, and where there was none.';

create index inc_events_ticket on tickets.inc_events (ticket_id, event_id);
-- Written in the order of time, so a summary of its pages is enough.
create index inc_events_time on tickets.inc_events using brin (snapshot_at);
-- What follows is for analytics. Texts of unlimited length are no part of an index: the columns included are cut when they are
-- written. By period of the closing; a year of them is counted by team, cluster or region without going to the table.
create index inc_events_closed_at on tickets.inc_events (closed_at)
  include (ticket_id, event_id, snapshot_id, snapshot_at, assigned_team, cluster, region) where event = 'closed';
create index inc_events_baseline_closed_at on tickets.inc_events (closed_at) where event = 'baseline';
create index inc_events_corrected_at on tickets.inc_events (closed_at) include (ticket_id, event_id) where event = 'closure_corrected';
-- By ticket: what came after a closing.
create index inc_events_revisions on tickets.inc_events (ticket_id, event_id) include (event, snapshot_at, assigned_team, cluster, region)
  where event in ('reopened', 'closure_corrected');
-- By ticket: as it was first seen.
create index inc_events_first on tickets.inc_events (ticket_id) include (assigned_team, cluster, region)
  where event in ('baseline', 'opened') or (event = 'closed' and old_value is null);
-- By day of the snapshot: what entered and left the backlog.
create index inc_events_backlog on tickets.inc_events (snapshot_at)
  where event in ('opened', 'reopened') or (event = 'closed' and old_value is not null);

create table tickets.crq_events (like tickets.inc_events including all);
comment on table tickets.crq_events is 'History of tickets.crq, as tickets.inc_events.';

create table tickets.import_meta (
  dataset text primary key,
  metadata jsonb not null default '{}'
);
comment on table tickets.import_meta is 'Freshness of each dataset, one row each; reporting.fn_tickets_for_map() shows it as summary.freshness.';
comment on column tickets.import_meta.dataset is 'inc or crq.';
comment on column tickets.import_meta.metadata is 'source_key, source_etag, source_sha256, source_last_modified, ingested_at and counts of the last whole load; snapshot_at and checked_at also advance when the newest file is unchanged.';

--! split: 070-placing.sql
-- Where a ticket is, kept true by triggers.

--! Included placing.sql
-- Where a ticket is: feed coordinates, else its geocoded location, else its cluster's centroid, else nowhere.
--
-- Three writers keep tickets and gazetteers in agreement, all by tickets.gazetteer_joins() and tickets.place():
--   1. a load resolves its batch in its own statement (loading.sql), a join on the gazetteers;
--   2. statement triggers on the ticket tables correct every other write;
--   3. statement triggers on the gazetteers re-resolve exactly the tickets that a change concerns.
-- Under READ COMMITTED a batch and a gazetteer change could pass each other unseen (measured: 28 deadlocks in 27 s,
-- and tickets that kept the old place for good). So whoever writes tickets shares an advisory lock, and whoever writes a
-- gazetteer holds it alone. The sweep re-resolves what disagrees all the same (sweep.sql).
--
-- Here and in all that runs as security definer no text that is parsed when it runs names a function or operator of PostGIS: it may run
-- under a security definer's search_path, in which PostGIS is not. Casts (::bytea, ::point) are found without a path, and
-- bodies that are SQL, not text, are bound when they are made.

create or replace function tickets.gazetteer_lock() returns bigint language sql immutable parallel safe
return 7405120260615;
comment on function tickets.gazetteer_lock() is 'Key of the advisory lock: shared by transactions that write tickets, held alone by those that write a gazetteer.';

create or replace function tickets.gazetteer_joins(p_cluster text, p_location_key text) returns text language sql immutable parallel safe
return format($sql$
  left join tickets.geo_locations l
    on tickets.cluster_key(l.cluster) = tickets.cluster_key(%1$s) and l.location_key = %2$s and l.status = 'found' -- index geo_locations_place
  left join tickets.geo_clusters c on tickets.cluster_key(c.cluster) = tickets.cluster_key(%1$s) -- index geo_clusters_key
$sql$, p_cluster, p_location_key);
comment on function tickets.gazetteer_joins(text, text) is 'SQL that joins what the gazetteers know of a place, as l (its geocoded location) and c (its cluster), to the FROM clause before it. p_cluster, p_location_key: expressions of that clause. A text, because a statement over a whole table must be able to hash it.';

-- One SELECT: inlined wherever it stands in a FROM.
create or replace function tickets.place(p_raw jsonb, p_location geometry, p_cluster geometry)
returns table (geom geometry, geo_source text) language sql stable parallel safe
begin atomic
  select
    coalesce(feed.geom, p_location, p_cluster),
    case
      when feed.geom is not null then 'feed'
      when p_location is not null then 'location'
      when p_cluster is not null then 'cluster'
      else 'none'
    end
  from (select tickets.feed_point(p_raw) as geom offset 0) as feed; -- once, not wherever it is named
end;
comment on function tickets.place(jsonb, geometry, geometry) is 'Where a ticket is, one row: the feed''s own coordinates (of p_raw), else its geocoded location, else its cluster''s centroid, else nowhere; and which of them it is (feed, location, cluster, none).';

-- First what disagrees, which after a load is nothing: updating by a join with all of the rows would hash the table for
-- every batch.
create or replace function tickets.placing_statement(p_dataset text, p_rows text, p_locking text) returns text
language sql stable parallel safe set search_path = pg_catalog, pg_temp as $fn$
  select format($sql$
    with disagreeing as materialized (
      select t.ticket_id, place.*
      from %2$s %4$s
      cross join lateral tickets.place(t.raw, l.geom, c.geom) as place
      where t.geo_source <> place.geo_source or t.geom::bytea is distinct from place.geom::bytea
      %3$s
    )
    update tickets.%1$I t
    set geom = d.geom, geo_source = d.geo_source
    from disagreeing d
    where t.ticket_id = d.ticket_id
  $sql$, p_dataset, p_rows, p_locking, tickets.gazetteer_joins('t.cluster', 't.location_key'))
$fn$;
comment on function tickets.placing_statement(text, text, text) is 'The UPDATE that gives tickets of a dataset (inc, crq) the place that the feed and the gazetteers say, where they disagree. p_rows: SQL of a FROM clause with the tickets to look at as t; p_locking: what follows its WHERE. Only for tickets.place_tickets and tickets.place_written_tickets.';

create or replace function tickets_ops.moves() returns jsonb language sql stable
return coalesce(nullif(current_setting('tickets_ops.moves', true), '')::jsonb, '[]');
comment on function tickets_ops.moves() is 'The tickets that followed the gazetteer writes of this moment: [{cluster_key, location_key, tickets}, …], since a person''s statement began. Kept by tickets.place_tickets for tickets_ops.record_decisions.';

create or replace function tickets.place_tickets(p_dataset text, p_clusters text[] default null, p_location_keys text[] default null)
returns bigint language plpgsql
-- Compiling the sweep of a large table takes longer than the sweep.
set jit = off set search_path = pg_catalog, pg_temp
as $fn$
declare
  v_scope text := case
    when p_clusters is null then ''
    when p_location_keys is null then 'join unnest($1) as scope (cluster) on tickets.cluster_key(t.cluster) = tickets.cluster_key(scope.cluster)'
    else 'join unnest($1, $2) as scope (cluster, location_key)
      on tickets.cluster_key(t.cluster) = tickets.cluster_key(scope.cluster) and t.location_key = scope.location_key'
  end;
  v_placed bigint;
  v_moves jsonb;
begin
  -- Before the statement below takes its snapshot: the gazetteers that it reads are the committed ones.
  perform pg_advisory_xact_lock_shared(tickets.gazetteer_lock());
  -- Locks in ticket_id order, as a load does. Relies on the (cluster_key, location_key) index when a scope is given.
  execute format(
    $sql$
      with placed as (
        %s returning tickets.cluster_key(t.cluster) as cluster_key, t.location_key
      ),
      moves as (
        select cluster_key, location_key, count(*) as tickets from placed group by cluster_key, location_key
      )
      select coalesce(sum(tickets), 0), coalesce(jsonb_agg(moves), '[]') from moves
    $sql$,
    tickets.placing_statement(p_dataset, format('tickets.%I t %s', p_dataset, v_scope), 'order by t.ticket_id for update of t')
  )
  into v_placed, v_moves using p_clusters, p_location_keys;
  -- A sweep follows no decision.
  if p_clusters is not null and v_placed > 0 then
    perform set_config('tickets_ops.moves', (tickets_ops.moves() || v_moves)::text, true);
  end if;
  return v_placed;
end
$fn$;
comment on function tickets.place_tickets(text, text[], text[]) is 'Re-resolves geom and geo_source of the tickets of a dataset (inc, crq) that disagree with the gazetteers: all of them, those of the given clusters, or those of the given (cluster, location_key) pairs. One statement; returns how many tickets moved.';

create or replace function tickets.share_gazetteers() returns trigger language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
  perform pg_advisory_xact_lock_shared(tickets.gazetteer_lock());
  return null;
end
$$;
comment on function tickets.share_gazetteers() is 'Trigger before writing tickets: no gazetteer changes meanwhile.';

create or replace function tickets.claim_gazetteers() returns trigger
language plpgsql security definer set search_path = pg_catalog, pg_temp set lock_timeout = '30s' as $$
begin
  begin
    perform pg_advisory_xact_lock(tickets.gazetteer_lock());
  exception when lock_not_available then
    perform tickets_ops.raise_blocked();
  end;
  if not tickets_ops.is_pipeline() then
    perform set_config('tickets_ops.moves', '', true); -- a person's decision counts the tickets that move from here on
  end if;
  return null;
end
$$;
comment on function tickets.claim_gazetteers() is 'Trigger before writing a gazetteer: no ticket is written meanwhile.';

create or replace function tickets.place_written_tickets() returns trigger language plpgsql set search_path = pg_catalog, pg_temp as $fn$
begin
  -- An UPDATE of no rows fires this trigger too: without this, its own UPDATE below would never end.
  if not exists (select from written) then
    return null;
  end if;
  execute tickets.placing_statement(tg_table_name, 'written t', '');
  return null;
end
$fn$;
comment on function tickets.place_written_tickets() is 'Trigger after writing tickets: whoever writes a ticket, its place follows from the feed coordinates and the gazetteers.';

-- A gazetteer's statement triggers hand over the keys whose placing coordinate changed: the symmetric difference of the
-- rows before and after (an event names only the transition tables that it has).
-- Security definer, as the gazetteers' other triggers: whoever may write a gazetteer moves tickets by it, without a right
-- to write them.
create or replace function tickets.clusters_moved() returns trigger
language plpgsql security definer set search_path = pg_catalog, pg_temp set lock_timeout = '30s' as $$
declare
  v_clusters text[];
begin
  if tg_op = 'INSERT' then
    select array_agg(cluster) into v_clusters from after where geom is not null;
  elsif tg_op = 'DELETE' then
    select array_agg(cluster) into v_clusters from before where geom is not null;
  else
    select array_agg(distinct cluster) into v_clusters from (
      (select cluster, geom::bytea from before except select cluster, geom::bytea from after)
      union all
      (select cluster, geom::bytea from after except select cluster, geom::bytea from before)
    ) as moved;
  end if;
  if v_clusters is not null then
    perform tickets.place_tickets('inc', v_clusters), tickets.place_tickets('crq', v_clusters);
  end if;
  return null;
exception when lock_not_available then -- somebody holds such a ticket: whoever waits on keeps every load waiting behind it
  perform tickets_ops.raise_blocked();
  return null;
end
$$;
comment on function tickets.clusters_moved() is 'Trigger after writing tickets.geo_clusters: the tickets of the clusters whose centroid changed follow. Raises when others hold one of them for half a minute.';

create or replace function tickets.locations_moved() returns trigger
language plpgsql security definer set search_path = pg_catalog, pg_temp set lock_timeout = '30s' as $$
declare
  v_clusters text[];
  v_keys text[];
begin
  if tg_op = 'INSERT' then
    select array_agg(cluster), array_agg(location_key) into v_clusters, v_keys from after where status = 'found';
  elsif tg_op = 'DELETE' then
    select array_agg(cluster), array_agg(location_key) into v_clusters, v_keys from before where status = 'found';
  else
    select array_agg(cluster), array_agg(location_key) into v_clusters, v_keys from (
      select distinct cluster, location_key from (
        (
          select cluster, location_key, case when status = 'found' then geom::bytea end from before
          except select cluster, location_key, case when status = 'found' then geom::bytea end from after
        )
        union all
        (
          select cluster, location_key, case when status = 'found' then geom::bytea end from after
          except select cluster, location_key, case when status = 'found' then geom::bytea end from before
        )
      ) as difference
    ) as moved;
  end if;
  if v_clusters is not null then
    perform tickets.place_tickets('inc', v_clusters, v_keys), tickets.place_tickets('crq', v_clusters, v_keys);
  end if;
  return null;
exception when lock_not_available then
  perform tickets_ops.raise_blocked();
  return null;
end
$$;
comment on function tickets.locations_moved() is 'Trigger after writing tickets.geo_locations: the tickets of the places whose coordinate changed follow. Raises when others hold one of them for half a minute.';
--! EndIncluded placing.sql
--! Included rebuild-location-keys.sql
-- After a change of tickets.location_key: tickets.inc.location_key is STORED and the gazetteer is keyed by it, so both are
-- made anew by a migration that includes location-key.sql and then calls this function.

create or replace function tickets_ops.rebuild_location_keys()
returns table (tickets_changed bigint, places_changed bigint, places_merged bigint)
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
  v_before boolean;
  v_places tickets.geo_locations[];
  v_dataset text;
  v_rows bigint;
begin
  -- Alone: a batch that is being written would bring tickets with the old key, and a verdict a place with it.
  perform pg_advisory_xact_lock(tickets.gazetteer_lock());

  -- The places that get another key, and those that have that key already: of each such group one stays.
  with keyed as (
    select l as place, l.cluster, l.location_key,
      -- A name of which only codes are left now keeps its key: no ticket asks for it, and what a person verified is not lost.
      coalesce(tickets.location_key(coalesce(l.location_name, l.location_key)), l.location_key) as new_key
    from tickets.geo_locations l
  ),
  changing as (
    select cluster, new_key from keyed group by cluster, new_key having bool_or(location_key <> new_key)
  )
  select array_agg(k.place), count(*) filter (where k.location_key <> k.new_key)
  into v_places, places_changed
  from keyed k join changing using (cluster, new_key);

  -- As the pipeline: moving a row does not verify it.
  v_before := tickets_ops.as_pipeline(true);
  delete from tickets.geo_locations l
  using unnest(v_places) as p
  where l.cluster = p.cluster and l.location_key = p.location_key;
  insert into tickets.geo_locations
  select (jsonb_populate_record(
    chosen.place, jsonb_build_object('location_key', chosen.new_key, 'note', nullif(concat_ws(' ', (chosen.place).note, chosen.others), ''))
  )).*
  from (
    select distinct on (p.cluster, key.new_key) p as place, key.new_key,
      -- Of two that a person verified, the other stays readable.
      string_agg(
        case when p.verified then format('Verified under the key %s: %s.', p.location_key, coalesce((p.geom::point)::text, 'no coordinate')) end,
        ' '
      ) over (
        partition by p.cluster, key.new_key order by p.verified desc, p.status = 'found' desc, p.updated_at desc, p.location_key
        rows between 1 following and unbounded following
      ) as others
    from unnest(v_places) as p
    cross join lateral (
      select coalesce(tickets.location_key(coalesce(p.location_name, p.location_key)), p.location_key) as new_key
    ) as key
    order by p.cluster, key.new_key, p.verified desc, p.status = 'found' desc, p.updated_at desc, p.location_key
  ) as chosen;
  get diagnostics v_rows = row_count;
  places_merged := coalesce(cardinality(v_places), 0) - v_rows;
  perform tickets_ops.as_pipeline(v_before);

  -- Writing raw makes its generated columns anew, their indexes follow, and triggers place the tickets. No view that uses the
  -- column is in the way, as it would be of dropping it.
  tickets_changed := 0;
  foreach v_dataset in array array['inc', 'crq'] loop
    execute format(
      'update tickets.%I set raw = raw where location_key is distinct from tickets.location_key(raw ->> ''location_name'')', v_dataset
    );
    get diagnostics v_rows = row_count;
    tickets_changed := tickets_changed + v_rows;
  end loop;
  return next;
end
$$;
comment on function tickets_ops.rebuild_location_keys() is 'Makes tickets.inc.location_key, tickets.crq.location_key and the keys of tickets.geo_locations anew by the present tickets.location_key, and places the tickets again: select * from tickets_ops.rebuild_location_keys(). Where two places fall together a verified one stays, else a found one, else the one written last; the coordinate of another verified one goes to its note. Returns how many tickets and places got another key and how many places were merged into another. Blocks loads and geocoding until the transaction ends.';
--! EndIncluded rebuild-location-keys.sql

-- The tickets that a gazetteer row concerns.
create index inc_place on tickets.inc (tickets.cluster_key(cluster), location_key);
create index crq_place on tickets.crq (tickets.cluster_key(cluster), location_key);

do $$
declare
  v_table text;
begin
  foreach v_table in array array['inc', 'crq'] loop
    execute format('create trigger _100_share_gazetteers before insert or update on tickets.%I
      for each statement execute function tickets.share_gazetteers()', v_table);
    execute format('create trigger _500_place_inserted after insert on tickets.%I referencing new table as written
      for each statement execute function tickets.place_written_tickets()', v_table);
    execute format('create trigger _500_place_updated after update on tickets.%I referencing new table as written
      for each statement execute function tickets.place_written_tickets()', v_table);
  end loop;
end
$$;

do $$
declare
  v_table text;
  v_moved text;
begin
  foreach v_table in array array['geo_clusters', 'geo_locations'] loop
    v_moved := case v_table when 'geo_clusters' then 'clusters_moved' else 'locations_moved' end;
    execute format('create trigger _100_claim_gazetteers before insert or update or delete on tickets.%I
      for each statement execute function tickets.claim_gazetteers()', v_table);
    execute format('create trigger _500_moved_by_insert after insert on tickets.%I referencing new table as after
      for each statement execute function tickets.%I()', v_table, v_moved);
    execute format('create trigger _500_moved_by_update after update on tickets.%I
      referencing old table as before new table as after
      for each statement execute function tickets.%I()', v_table, v_moved);
    execute format('create trigger _500_moved_by_delete after delete on tickets.%I referencing old table as before
      for each statement execute function tickets.%I()', v_table, v_moved);
    -- Last: the tickets have moved.
    execute format('create trigger _900_decided_by_insert after insert on tickets.%I referencing new table as after
      for each statement execute function tickets_ops.record_decisions()', v_table);
    execute format('create trigger _900_decided_by_update after update on tickets.%I
      referencing old table as before new table as after
      for each statement execute function tickets_ops.record_decisions()', v_table);
    execute format('create trigger _900_decided_by_delete after delete on tickets.%I referencing old table as before
      for each statement execute function tickets_ops.record_decisions()', v_table);
  end loop;
end
$$;

--! split: 080-jobs.sql
-- Jobs: what they have from the start and are called, and what graphile-worker is asked.

--! Included job-policy.sql
-- Job policy: what every job of the pipeline has from the start, and what it is called. src/database/jobs.ts has the same for
-- the jobs that TypeScript adds, and the crontab can only repeat it; a test holds the three together (test/rules.test.ts).
--
-- Loads come before geocoding: a free worker takes the lowest priority first. Of geocoding, what a person asks for comes
-- before what is planned, and a cluster before the places in it, which wait for its centroid.

create or replace function tickets_ops.job_policy(p_task text default null)
returns table (task text, max_attempts integer, priority integer, on_demand_priority integer, flags text[])
language sql immutable parallel safe
begin atomic
  select policy.*
  from (values
    -- Six attempts: the last comes about 4 minutes after the first, so a load that fails never outlives its hour.
    ('fetch_snapshot', 6, -10, -10, '{}'::text[]),
    ('upsert_batch', 6, -10, null, '{}'),
    ('finalize_snapshot', 6, -10, null, '{}'),
    -- By their flag a worker that runs enough of them keeps further ones off (src/geocoding/concurrency.ts).
    ('geocode_cluster', 6, 20, 10, '{geocode}'),
    ('geocode_location', 6, 30, 11, '{geocode}'),
    -- Prefixed, because others may have a task of that name in the same schema, whose jobs it would take.
    ('fleettickets_maintain', 3, -20, null, '{}'),
    -- 25 attempts are four days: a message outlasts a weekend without its receiver.
    ('fleettickets_alert', 25, -20, null, '{}')
  ) as policy (task, max_attempts, priority, on_demand_priority, flags)
  where p_task is null or policy.task = p_task;
end;
comment on function tickets_ops.job_policy(text) is 'Attempts, priority (lower runs first; a planned location adds its age in days, 9 at most), priority when a person asked for it (NULL: nobody can) and flags of the jobs of a task; of every task where p_task is NULL. No row for a task that is not ours.';

create or replace function tickets_ops.fetch_job_key(p_dataset text, p_which text) returns text language sql immutable parallel safe
return format('fetch_snapshot:%s:%s', p_dataset, p_which);
comment on function tickets_ops.fetch_job_key(text, text) is 'Key of a fetch_snapshot job. p_which: newest, force or backfill.';

create or replace function tickets_ops.batch_job_key(p_snapshot_id bigint, p_batch bigint) returns text language sql immutable parallel safe
return format('upsert_batch:%s:%s', p_snapshot_id, p_batch);
comment on function tickets_ops.batch_job_key(bigint, bigint) is 'Key of the upsert_batch job of a batch.';

create or replace function tickets_ops.finalize_job_key(p_snapshot_id bigint) returns text language sql immutable parallel safe
return format('finalize_snapshot:%s', p_snapshot_id);
comment on function tickets_ops.finalize_job_key(bigint) is 'Key of the finalize_snapshot job of a snapshot.';

create or replace function tickets_ops.location_job_key(p_cluster text, p_location_key text) returns text language sql immutable
return 'geocode_location:' || tickets.cluster_key(p_cluster) || ':' || p_location_key;
comment on function tickets_ops.location_job_key(text, text) is 'Key of the geocode_location job of a place: at most one waits.';

create or replace function tickets_ops.cluster_job_key(p_cluster text) returns text language sql immutable
return 'geocode_cluster:' || tickets.cluster_key(p_cluster);
comment on function tickets_ops.cluster_job_key(text) is 'Key of the geocode_cluster job of a cluster: at most one waits.';

create or replace function tickets_ops.geocoding_job_key(p_task text, p_payload jsonb) returns text language sql stable
return case p_task
  when 'geocode_cluster' then tickets_ops.cluster_job_key(p_payload ->> 'cluster')
  else tickets_ops.location_job_key(p_payload ->> 'cluster', tickets.location_key(p_payload ->> 'location_name'))
end;
comment on function tickets_ops.geocoding_job_key(text, jsonb) is 'The key that a geocoding job added without one (by graphile-worker''s own add_job) gets when it has to come back later.';
--! EndIncluded job-policy.sql
--! Included worker-schema.sql
-- graphile-worker's schema, which no other SQL of ours names: what we ask of it and do to it goes through these functions.
-- :WORKER_SCHEMA is the setting of that name: graphile-migrate puts the schema's name in its place (.gmrc).
--
-- Where it has a function that does it, ours calls that. Of its private tables they touch what its functions do not: those
-- skip the row of a job that runs, and none changes a payload or an attempt's flag.
-- Each body is a text, which binds to nothing: a view or a bound body would keep that library's own migrations from changing
-- its tables. They run with the caller's rights, so all but the owner see nothing (its tables have row security).

create or replace function tickets_ops.worker_schema() returns text language sql immutable parallel safe
return ':WORKER_SCHEMA'::text;
comment on function tickets_ops.worker_schema() is 'The schema that holds the jobs (setting WORKER_SCHEMA), fixed by the first migration.';

create or replace function tickets_ops.worker_breaking_revision() returns integer
language sql stable set search_path = pg_catalog, pg_temp as $$
  select max(id) from :WORKER_SCHEMA.migrations where breaking
$$;
comment on function tickets_ops.worker_breaking_revision() is 'graphile-worker''s last revision of its tables that workers of before it must not go on with.';

create or replace function tickets_ops.readable_payload(p_payload json) returns jsonb
language plpgsql immutable set search_path = pg_catalog, pg_temp as $$
begin
  return p_payload::jsonb;
exception
  -- A \u0000, half of a surrogate pair or a number of a million digits is valid json, and no jsonb. One such job must not hide all others.
  when data_exception then return to_jsonb(p_payload::text);
end
$$;
comment on function tickets_ops.readable_payload(json) is 'A job''s payload as jsonb; as a text where jsonb cannot hold it.';

-- Inlined. A block that catches errors costs a subtransaction: it is for the few payloads that jsonb may not hold.
create or replace function tickets_ops.parsed_payload(p_payload json) returns jsonb language sql immutable
return case
  when length(p_payload::text) < 1000 and p_payload::text !~ (chr(92) || chr(92) || 'u(0000|[dD][89a-fA-F])|[0-9][eE][+-]?[0-9]{3}')
    then p_payload::jsonb
  else tickets_ops.readable_payload(p_payload)
end;
comment on function tickets_ops.parsed_payload(json) is 'As tickets_ops.readable_payload, for 200 000 of them.';

-- Inlined into the query that asks, so that a look-up by key uses the index on it.
create or replace function tickets_ops.queued_jobs(p_unknown_too boolean default false)
returns table (
  id bigint, task text, key text, payload json, queue text, priority integer, run_at timestamptz, attempts integer,
  max_attempts integer, last_error text, locked_at timestamptz, locked_by text, flags jsonb, created_at timestamptz,
  updated_at timestamptz
)
language sql stable as $$
  select
    j.id, t.identifier, j.key, j.payload, q.queue_name, j.priority::integer, j.run_at, j.attempts::integer,
    j.max_attempts::integer, j.last_error, j.locked_at, j.locked_by, j.flags, j.created_at, j.updated_at
  from :WORKER_SCHEMA._private_jobs j
  join :WORKER_SCHEMA._private_tasks t on t.id = j.task_id
  left join :WORKER_SCHEMA._private_job_queues q on q.id = j.job_queue_id
  where p_unknown_too or t.identifier in (select policy.task from tickets_ops.job_policy() policy)
$$;
comment on function tickets_ops.queued_jobs(boolean) is 'Every job of ours that waits, runs (locked_at is set) or has failed (no attempt is left, and it does not run). p_unknown_too: also those whose task is none of ours. For operators: tickets_ops.jobs.';

create or replace function tickets_ops.enqueue(
  p_task text, p_payload json, p_job_key text default null, p_run_at timestamptz default null, p_priority integer default null,
  p_max_attempts integer default null
)
returns bigint language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
  v_policy record;
begin
  select * into v_policy from tickets_ops.job_policy(p_task);
  if not found then
    raise exception 'There is no task %.', p_task using hint = 'See tickets_ops.job_policy().';
  end if;
  return (:WORKER_SCHEMA.add_job(
    p_task, p_payload, job_key := p_job_key, run_at := p_run_at, flags := v_policy.flags,
    max_attempts := coalesce(p_max_attempts, v_policy.max_attempts), priority := coalesce(p_priority, v_policy.priority)
  )).id;
end
$$;
comment on function tickets_ops.enqueue(text, json, text, timestamptz, integer, integer) is 'Adds a job, due at p_run_at (NULL: now), with the attempts and priority of its task (tickets_ops.job_policy) unless others are given. One with the same key that waits is replaced; one that runs loses the key and is not tried again. Returns its id, NULL when a worker takes the one it would replace at this moment. Raises for a task that is not ours.';

create or replace function tickets_ops.enqueue_all(
  p_tasks text[], p_payloads json[], p_job_keys text[], p_run_at timestamptz[], p_priorities integer[]
)
returns bigint language sql set search_path = pg_catalog, pg_temp as $$
  select count(*)
  from :WORKER_SCHEMA.add_jobs(array(
    select cast(row(job.task, job.payload, null, job.run_at, policy.max_attempts, job.key, job.priority, policy.flags) as :WORKER_SCHEMA.job_spec)
    from unnest(p_tasks, p_payloads, p_job_keys, p_run_at, p_priorities) with ordinality
      as job (task, payload, key, run_at, priority, no)
    join tickets_ops.job_policy() policy on policy.task = job.task
    order by job.no
  ))
$$;
comment on function tickets_ops.enqueue_all(text[], json[], text[], timestamptz[], integer[]) is 'tickets_ops.enqueue for many jobs at once (measured: 10 000 in 0.1 s, one by one in 6.6 s). The arrays are of one length; a task that is not ours is left out. Returns how many were added.';

create or replace function tickets_ops.run_jobs_now(p_ids bigint[], p_attempts integer default null, p_priority integer default null)
returns bigint language sql set search_path = pg_catalog, pg_temp as $$
  select count(*) from :WORKER_SCHEMA.reschedule_jobs(p_ids, run_at := now(), attempts := p_attempts, priority := p_priority)
$$;
comment on function tickets_ops.run_jobs_now(bigint[], integer, integer) is 'Makes jobs that do not run due now; with p_attempts and p_priority in place of theirs unless NULL. Returns how many.';

create or replace function tickets_ops.restart_jobs(p_ids bigint[], p_max_attempts integer, p_forget text[] default '{}') returns bigint
language sql set search_path = pg_catalog, pg_temp as $$
  with restarted as (
    update :WORKER_SCHEMA._private_jobs
    set attempts = 0, max_attempts = greatest(max_attempts, p_max_attempts), run_at = now(), last_error = null, updated_at = now(),
      flags = flags - 'given_up' - 'worker_died',
      payload = case
        when p_forget <> '{}' and jsonb_typeof(tickets_ops.readable_payload(payload)) = 'object' then (payload::jsonb - p_forget)::json
        else payload
      end
    where id = any (p_ids) and locked_at is null
    returning 1
  )
  select count(*) from restarted
$$;
comment on function tickets_ops.restart_jobs(bigint[], integer, text[]) is 'Makes jobs that do not run due now as if they had never run, with p_max_attempts or more; p_forget: keys to leave out of the payload. Returns how many.';

create or replace function tickets_ops.lock_job(p_id bigint) returns void language sql set search_path = pg_catalog, pg_temp as $$
  select from :WORKER_SCHEMA._private_jobs where id = p_id for update
$$;
comment on function tickets_ops.lock_job(bigint) is 'Holds a job''s row until the end of the transaction: no worker takes or ends it meanwhile, and nobody replaces it.';

create or replace function tickets_ops.advance_job(
  p_id bigint, p_run_at timestamptz default null, p_priority integer default null, p_add jsonb default '{}', p_remove text default ''
)
returns void language sql set search_path = pg_catalog, pg_temp as $$
  update :WORKER_SCHEMA._private_jobs
  set run_at = least(run_at, p_run_at), priority = least(priority, p_priority),
    payload = case when p_add = '{}' and p_remove = '' then payload else (payload::jsonb - p_remove || p_add)::json end
  where id = p_id
$$;
comment on function tickets_ops.advance_job(bigint, timestamptz, integer, jsonb, text) is 'Makes a job more urgent, also one that runs, for when it puts itself back: no later than p_run_at, with no higher priority than p_priority (NULL: as it is), with p_add in its payload and without the key p_remove.';

create or replace function tickets_ops.give_up(p_job_id bigint) returns void
language sql set search_path = pg_catalog, pg_temp as $$
  update :WORKER_SCHEMA._private_jobs
  set max_attempts = greatest(attempts, 1), flags = coalesce(flags, '{}') || '{"given_up": true}'
  where id = p_job_id;
$$;
comment on function tickets_ops.give_up(bigint) is 'Called by a running job that no further attempt can help (a wrong payload, say), before it throws: this attempt was its last. The flag given_up tells it from one that used up its attempts.';

create or replace function tickets_ops.remove_jobs(p_ids bigint[]) returns bigint
language sql set search_path = pg_catalog, pg_temp as $$
  select count(*) from :WORKER_SCHEMA.complete_jobs(p_ids)
$$;
comment on function tickets_ops.remove_jobs(bigint[]) is 'Removes jobs that do not run. Returns how many.';

create or replace function tickets_ops.erase_from_job_errors(p_text text, p_instead text) returns bigint
language sql set search_path = pg_catalog, pg_temp as $$
  with changed as (
    update :WORKER_SCHEMA._private_jobs j
    set last_error = replace(j.last_error, p_text, p_instead),
      payload = case when alert.problems is null then j.payload else jsonb_set(j.payload::jsonb, '{problems}', alert.problems)::json end
    from
      :WORKER_SCHEMA._private_jobs k
      join :WORKER_SCHEMA._private_tasks t on t.id = k.task_id
      -- A message about health quotes errors. Text by text: within JSON quotes and backslashes are written in another way.
      left join lateral (
        select jsonb_agg(replace(p.problem #>> '{}', p_text, p_instead) order by p.n) as problems
        from jsonb_path_query(k.payload::jsonb, '$.problems[*]') with ordinality as p (problem, n)
        having bool_or(position(p_text in p.problem #>> '{}') > 0)
      ) as alert on t.identifier = 'fleettickets_alert'
    where k.id = j.id and (position(p_text in j.last_error) > 0 or alert.problems is not null)
    returning 1
  )
  select count(*) from changed
$$;
comment on function tickets_ops.erase_from_job_errors(text, text) is 'Puts another text in the place of one in the errors of jobs, and in messages about health that are not delivered. Returns in how many.';

create or replace function tickets_ops.delete_jobs_of(p_tasks text[]) returns bigint
language sql set search_path = pg_catalog, pg_temp as $$
  with deleted as (
    delete from :WORKER_SCHEMA._private_jobs j
    using :WORKER_SCHEMA._private_tasks t
    where t.id = j.task_id and t.identifier = any (p_tasks)
    returning 1
  )
  select count(*) from deleted
$$;
comment on function tickets_ops.delete_jobs_of(text[]) is 'Deletes all jobs of these tasks, those included that a worker holds, dead or alive: only while no worker lives. Returns how many.';

create or replace function tickets_ops.pools_with_work() returns table (pool_id text, locked_at timestamptz)
language sql stable set search_path = pg_catalog, pg_temp as $$
  select locked_by, max(locked_at)
  from (
    select locked_by, locked_at from :WORKER_SCHEMA._private_jobs where locked_by is not null
    union all
    select locked_by, locked_at from :WORKER_SCHEMA._private_job_queues where locked_by is not null
  ) as locked
  group by locked_by
$$;
comment on function tickets_ops.pools_with_work() is 'Worker pools that hold a job or a queue; where the schema is shared, those of the other application too.';

create or replace function tickets_ops.unlock_pools(p_pools text[]) returns bigint[]
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
  -- A killed worker costs its jobs an attempt; it is given back, up to this many.
  c_most_attempts constant integer := 25;
  v_set_aside bigint[];
  v_over bigint[];
begin
  with died as (
    update :WORKER_SCHEMA._private_jobs
    set flags = coalesce(flags, '{}') || '{"worker_died": true}',
      max_attempts = case
        -- Twice: it may be what kills them, and the next worker would be the third.
        when flags ? 'worker_died' then greatest(attempts, 1)
        when flags ? 'given_up' then max_attempts
        else greatest(max_attempts, least(max_attempts + 1, c_most_attempts))
      end,
      last_error = case when flags ? 'worker_died' then 'Its worker died while it ran, twice, so it is set aside: it may be the cause. Try it again: select * from tickets_ops.retry_job(' || id || ');' else last_error end
    where locked_by = any (p_pools)
    returning id, attempts >= max_attempts as is_over, attempts >= max_attempts and last_error like 'Its worker died while it ran%' as is_set_aside
  )
  select coalesce(array_agg(id) filter (where is_set_aside), '{}'), array_agg(id) filter (where is_over) into v_set_aside, v_over from died;
  perform :WORKER_SCHEMA.force_unlock_workers(p_pools);
  -- As a failure does: tickets_ops.jobs reads from it when the job failed.
  update :WORKER_SCHEMA._private_jobs set run_at = now() + exp(least(attempts, 10)) * interval '1 second' where id = any (v_over);
  -- As adding a job does: workers look now, not at their next poll.
  perform pg_notify('jobs:insert', '{"r":0,"count":64}');
  return v_set_aside;
end
$$;
comment on function tickets_ops.unlock_pools(text[]) is 'Frees the jobs and queues of worker pools that are dead. A job under which a worker died for the second time is set aside: no attempt is left, and its last_error says why. Returns the ids of those.';
--! EndIncluded worker-schema.sql

--! split: 090-ledger.sql
-- The ledger of snapshots, and the work in progress of the one being loaded.

create table tickets_ops.snapshot_transitions (
  from_status text,
  to_status text not null,
  reason text not null,
  unique nulls not distinct (from_status, to_status)
);
-- Where somebody publishes all tables, migrations can change it all the same.
alter table tickets_ops.snapshot_transitions replica identity full;
comment on table tickets_ops.snapshot_transitions is 'Every change of a snapshot''s status that there is; a trigger refuses all others. The states are explained at tickets_ops.snapshots.status.';
comment on column tickets_ops.snapshot_transitions.from_status is 'NULL: a new row.';
comment on column tickets_ops.snapshot_transitions.to_status is 'The status after it.';
comment on column tickets_ops.snapshot_transitions.reason is 'What happens.';
insert into tickets_ops.snapshot_transitions (from_status, to_status, reason) values
  (null, 'staging', 'A file is claimed, and its rows are staged.'),
  (null, 'superseded', 'A file is passed over for a newer one.'),
  (null, 'unchanged', 'A file has the bytes of the last load.'),
  (null, 'failed', 'A file is refused without being read.'),
  ('superseded', 'staging', 'It is taken after all: by a backfill, or because the newer one failed.'),
  ('superseded', 'unchanged', 'It turns out to have the bytes of the last load.'),
  ('superseded', 'failed', 'It is refused without being read.'),
  ('staging', 'superseded', 'Reading it broke off: it is put back, to be read again.'),
  ('staging', 'loading', 'All rows are staged; its batches and their jobs come into being.'),
  ('staging', 'finalizing', 'All rows are staged, and none has changed.'),
  ('staging', 'held', 'All rows are staged, and it looks as if it would destroy the state: a person decides.'),
  ('staging', 'failed', 'It is no ticket CSV, nearly nothing of it can be loaded, or it cannot be read.'),
  ('held', 'loading', 'A person released it.'),
  ('held', 'finalizing', 'A person released it, and no row has changed.'),
  ('held', 'superseded', 'A newer file was loaded.'),
  ('held', 'failed', 'A person dismissed it, or a newer file is held in its place.'),
  ('loading', 'finalizing', 'The last batch is in.'),
  ('loading', 'failed', 'A batch used up its attempts, or a person cancelled it.'),
  ('finalizing', 'done', 'The whole file is in.'),
  ('finalizing', 'partial', 'The rows before the break are in.'),
  ('finalizing', 'failed', 'Completing it used up its attempts, or a person cancelled it.'),
  ('failed', 'loading', 'tickets_ops.retry_job reopened it.'),
  ('failed', 'finalizing', 'tickets_ops.retry_job reopened it, and only its end was missing.'),
  ('failed', 'superseded', 'tickets_ops.retry_job: reading it broke off, so it is put back.'),
  ('failed', 'staging', 'It was future-dated, and its time has come.'),
  ('failed', 'unchanged', 'It was future-dated, and has the bytes of the last load.');

create table tickets_ops.snapshots (
  snapshot_id bigint generated always as identity primary key,
  dataset text not null,
  source_key text not null,
  source_etag text,
  source_sha256 text,
  source_size bigint,
  source_last_modified timestamptz,
  snapshot_at timestamptz not null,
  status text not null check (status in ('staging', 'loading', 'finalizing', 'held', 'done', 'partial', 'unchanged', 'superseded', 'failed')),
  in_flight boolean not null generated always as (status in ('staging', 'loading', 'finalizing')) stored,
  error text,
  opens_at timestamptz,
  ignored boolean not null default false,
  is_late boolean not null default false,
  dismissed_at timestamptz,
  broken_off text,
  hold_reason text,
  held_since timestamptz,
  warnings text[] not null default '{}',
  statistics jsonb,
  cleaning_version integer,
  origin text not null default 'bucket' check (origin in ('bucket', 'file')),
  forced boolean not null default false,
  backfill boolean not null default false,
  job_id bigint,
  attempt integer not null default 1,
  listed_at timestamptz not null default now(),
  progress_at timestamptz not null default now(),
  staged_at timestamptz,
  load_began_at timestamptz,
  loaded_at timestamptz,
  archived_at timestamptz,
  archived_key text,
  batches_total integer,
  batches_done integer not null default 0,
  rows_read bigint not null default 0,
  rows_inserted bigint not null default 0,
  rows_updated bigint not null default 0,
  rows_unchanged bigint not null default 0,
  rows_dropped_alarm bigint not null default 0,
  rows_dropped_sentinel bigint not null default 0,
  rows_duplicate bigint not null default 0,
  rows_rejected bigint not null default 0,
  rejects_kept bigint not null default 0,
  rows_repaired bigint not null default 0,
  open_missing bigint,
  content_through timestamptz,
  constraint snapshots_counts_add_up check (
    status not in ('done', 'partial')
    or rows_read = rows_inserted + rows_updated + rows_unchanged + rows_dropped_alarm + rows_dropped_sentinel + rows_duplicate + rows_rejected
  ),
  constraint snapshots_failure_has_a_reason check (status <> 'failed' or error is not null),
  constraint snapshots_hold_has_a_reason check (status <> 'held' or hold_reason is not null)
);

-- Exactly one snapshot of a dataset is in flight.
create unique index snapshots_one_in_flight on tickets_ops.snapshots (dataset) where in_flight;
create index snapshots_by_file on tickets_ops.snapshots (dataset, source_key, source_etag, source_last_modified);
-- A version that was passed over has one row, however many looks at the bucket saw it at once.
create unique index snapshots_superseded_once on tickets_ops.snapshots (dataset, source_key, source_etag, source_last_modified)
  where status = 'superseded';
create index snapshots_by_time on tickets_ops.snapshots (dataset, snapshot_at);
-- Almost empty: what a look at the bucket has yet to move, or to write down as moved.
create index snapshots_unarchived on tickets_ops.snapshots (dataset)
  where archived_at is null and origin = 'bucket' and status in ('done', 'unchanged');
comment on table tickets_ops.snapshots is 'The ledger: one row for every file ever looked at (a forced replay is looked at again), with its times, its outcome and its counts. The counts of a loaded snapshot add up to rows_read.';
comment on column tickets_ops.snapshots.snapshot_id is 'Order in which files were looked at.';
comment on column tickets_ops.snapshots.dataset is 'inc or crq.';
comment on column tickets_ops.snapshots.source_key is 'Object key in the bucket, or the name of a local file.';
comment on column tickets_ops.snapshots.source_etag is 'ETag without quotes, empty where the server lists none; NULL for a local file.';
comment on column tickets_ops.snapshots.source_sha256 is 'SHA-256 of the bytes read: the same bytes sent as a multipart upload have another ETag.';
comment on column tickets_ops.snapshots.source_size is 'Bytes.';
comment on column tickets_ops.snapshots.source_last_modified is 'The bucket''s LastModified, to the millisecond; a file''s own for a local one. Part of a version''s identity: a name may be written again with the bytes that it had before. It orders files only where the times in their names are equal.';
comment on column tickets_ops.snapshots.snapshot_at is 'The export''s time, from the file''s name (EAT), else LastModified.';
comment on column tickets_ops.snapshots.status is 'staging, loading, finalizing: in flight. held: staged, and waits for a person (tickets_ops.release_snapshot, dismiss_snapshot). done: whole. partial: the file broke off, the rows before the break are loaded. unchanged: same bytes as the last load. superseded: not loaded because a newer one was. failed: refused, broken or cancelled, see error.';
comment on column tickets_ops.snapshots.in_flight is 'Work on it is under way (staging, loading, finalizing): until it ends no other snapshot of the dataset is loaded.';
comment on column tickets_ops.snapshots.error is 'Why it failed, in words for people.';
comment on column tickets_ops.snapshots.opens_at is 'Of a future-dated file, which counts as failed until then: when it may be loaded. NULL for every other.';
comment on column tickets_ops.snapshots.ignored is 'Failed without being read, since it is empty or no CSV by its name: no fault of the feed.';
comment on column tickets_ops.snapshots.is_late is 'Of a feed of changes: failed without being read, since a newer file was loaded when it came.';
comment on column tickets_ops.snapshots.dismissed_at is 'When a person took this failure out of health (tickets_ops.dismiss_snapshot), or gave the file up (tickets_ops.skip_file).';
comment on column tickets_ops.snapshots.broken_off is 'Where and why the rest of the file could not be read, which makes the snapshot partial; NULL for a whole file.';
comment on column tickets_ops.snapshots.hold_reason is 'Why it is held, with figures. Once it is loaded after all, the same stands in warnings.';
comment on column tickets_ops.snapshots.held_since is 'Of one that is held because it closes too many tickets: export time of the first file that showed the same closings. A file at least an hour later that shows them too is loaded. NULL where only a person can decide.';
comment on column tickets_ops.snapshots.warnings is 'What is odd about a file that was loaded, with figures; health shows those of the last load. It compares with the load before.';
comment on column tickets_ops.snapshots.statistics is 'Figures of the whole file, for judging the next one: rows (without alarms and sentinels), rejected, columns (their names), tickets, and for each typed column how many tickets have a value there (filled) and how many values read (read). NULL where it was not read to its end.';
comment on column tickets_ops.snapshots.cleaning_version is 'Version of the rules by which its records were cleaned. Bytes that were loaded under older rules are loaded again.';
comment on column tickets_ops.snapshots.origin is 'bucket, or file (ingest --inc-csv).';
comment on column tickets_ops.snapshots.forced is 'Asked for by force.';
comment on column tickets_ops.snapshots.backfill is 'Part of a backfill: finishing it asks for the next file left behind.';
comment on column tickets_ops.snapshots.job_id is 'The fetch_snapshot job that reads the file. NULL for a local file.';
comment on column tickets_ops.snapshots.attempt is 'Fencing token: a reader that lost its job to another attempt can write no more rows.';
comment on column tickets_ops.snapshots.listed_at is 'When the file was first looked at.';
comment on column tickets_ops.snapshots.progress_at is 'When work on the snapshot last committed something.';
comment on column tickets_ops.snapshots.staged_at is 'When all its rows were staged.';
comment on column tickets_ops.snapshots.load_began_at is 'When the jobs of its batches came into being: from then on it may have touched tickets. NULL while it is staged or held.';
comment on column tickets_ops.snapshots.loaded_at is 'When it was complete.';
comment on column tickets_ops.snapshots.archived_at is 'When its object was moved away.';
comment on column tickets_ops.snapshots.archived_key is 'Where its object was moved to.';
comment on column tickets_ops.snapshots.batches_total is 'Batches of changed rows; 0 when no row changed.';
comment on column tickets_ops.snapshots.batches_done is 'Batches committed; the one that completes the count asks for finalize_snapshot.';
comment on column tickets_ops.snapshots.rows_read is 'Records in the file, without header and blank lines.';
comment on column tickets_ops.snapshots.rows_inserted is 'New tickets.';
comment on column tickets_ops.snapshots.rows_updated is 'Tickets whose raw changed.';
comment on column tickets_ops.snapshots.rows_unchanged is 'Tickets that were not touched.';
comment on column tickets_ops.snapshots.rows_dropped_alarm is 'Rows with is_alarm true.';
comment on column tickets_ops.snapshots.rows_dropped_sentinel is 'EXPORT STOPPED rows.';
comment on column tickets_ops.snapshots.rows_duplicate is 'Earlier lines of a ticket that stands in the file more than once: the last line wins.';
comment on column tickets_ops.snapshots.rows_rejected is 'Rows that could not be loaded, all of them.';
comment on column tickets_ops.snapshots.rejects_kept is 'Of rows_rejected, those that stand in tickets_ops.snapshot_rejects with their text: at most 10 000.';
comment on column tickets_ops.snapshots.rows_repaired is 'Warning: rows that loaded with a NUL or an invalid UTF-8 byte replaced by U+FFFD.';
comment on column tickets_ops.snapshots.open_missing is 'Open tickets of the table that this snapshot does not list. NULL for a file of changes, which lists few.';
comment on column tickets_ops.snapshots.content_through is 'How far the content of the table went when this snapshot was loaded or found unchanged (tickets_ops.content_through).';

-- Rows of the snapshot in flight. An unchanged row leaves its id and no record (raw is NULL): it is recognised while staging,
-- so an hour in which nothing changed writes no ticket twice. The id still counts for open_missing.
create table tickets_ops.snapshot_rows (
  -- No foreign key: it costs a tenth of staging, and every statement that writes rows holds the snapshot's row anyway.
  snapshot_id bigint not null,
  ticket_id text not null,
  line bigint not null,
  digest uuid not null,
  figures integer not null,
  raw jsonb,
  primary key (snapshot_id, ticket_id)
);
-- Analyzed after each staging: how many rows there are matters, and how many of them changed (raw is NULL in the others);
-- what they hold does not, so a small sample does.
alter table tickets_ops.snapshot_rows
  alter column snapshot_id set statistics 10,
  alter column ticket_id set statistics 10,
  alter column line set statistics 0,
  alter column digest set statistics 0,
  alter column figures set statistics 0,
  alter column raw set statistics 1;
comment on table tickets_ops.snapshot_rows is 'Work in progress: the rows of the snapshot in flight, the last line of each ticket. Emptied when the snapshot is done; kept 7 days when it failed.';
comment on column tickets_ops.snapshot_rows.snapshot_id is 'The snapshot.';
comment on column tickets_ops.snapshot_rows.ticket_id is 'The ticket.';
comment on column tickets_ops.snapshot_rows.line is 'Line of the file on which the record begins.';
comment on column tickets_ops.snapshot_rows.digest is 'Of the record in the file: see tickets_ops.inc_digests.';
comment on column tickets_ops.snapshot_rows.figures is 'Of the record in the file: see tickets_ops.inc_digests.';
comment on column tickets_ops.snapshot_rows.raw is 'The cleaned record; NULL when the ticket already has exactly this raw.';

-- Records that made tickets, so that they need not be parsed when they come again. A digest is of one version of the ticket's
-- row (its place in the table and the transaction that wrote it): with any other write to the ticket, whoever does it and
-- however, it fits no more. So no trigger has to follow what is written past the load.
-- Ids in the order of their bytes: compared many times as fast as in a language's.
create table tickets_ops.inc_digests (
  ticket_id text collate "C" primary key,
  digest uuid not null,
  figures integer not null,
  row_ctid tid not null,
  row_xmin xid not null
)
with (fillfactor = 90);
comment on table tickets_ops.inc_digests is 'Of INC tickets: the digest of the record that made each. A record with the same digest is not parsed while the ticket''s row is the one that it made. Deleting rows, or all of them, is always safe, and costs time only; writing them by hand is not.';
comment on column tickets_ops.inc_digests.ticket_id is 'The ticket. Maintenance removes the digests of those that are gone.';
comment on column tickets_ops.inc_digests.digest is 'The first 128 bits of a SHA-256 of the record''s bytes without the fields that are dropped, of the header and the version of the cleaning rules by which it became the ticket, and of the file in which Postgres keeps tickets.inc: after TRUNCATE, VACUUM FULL or a restore that is another one, and no digest fits.';
comment on column tickets_ops.inc_digests.figures is 'What judging a whole file needs to know of the record, as digits in base 3: of each counted column whether it is filled and whether its value reads; whether bytes were replaced by U+FFFD (src/csv/values.ts).';
comment on column tickets_ops.inc_digests.row_ctid is 'Where the row of tickets.inc stands that this record made: its ctid.';
comment on column tickets_ops.inc_digests.row_xmin is 'The transaction that wrote that row: its xmin.';
create table tickets_ops.crq_digests (like tickets_ops.inc_digests including all);
comment on table tickets_ops.crq_digests is 'Digests of CRQ tickets, as tickets_ops.inc_digests.';

create table tickets_ops.snapshot_batches (
  snapshot_id bigint not null references tickets_ops.snapshots on delete cascade,
  batch integer not null,
  first_ticket_id text not null,
  last_ticket_id text not null,
  status text not null default 'pending' check (status in ('pending', 'done', 'failed')),
  error text,
  primary key (snapshot_id, batch)
);
comment on table tickets_ops.snapshot_batches is 'Work in progress: one row per upsert_batch job, a range of ticket ids of the snapshot''s changed rows.';
comment on column tickets_ops.snapshot_batches.snapshot_id is 'The snapshot.';
comment on column tickets_ops.snapshot_batches.batch is '1, 2, …';
comment on column tickets_ops.snapshot_batches.first_ticket_id is 'First ticket id of the range.';
comment on column tickets_ops.snapshot_batches.last_ticket_id is 'Last ticket id of the range, included.';
comment on column tickets_ops.snapshot_batches.status is 'pending, done, or failed when its job used up its attempts.';
comment on column tickets_ops.snapshot_batches.error is 'Why it failed.';

create table tickets_ops.snapshot_rejects (
  reject_id bigint generated always as identity primary key,
  snapshot_id bigint not null references tickets_ops.snapshots on delete cascade,
  line bigint not null,
  reason text not null,
  row_text text not null
);
create index snapshot_rejects_by_snapshot on tickets_ops.snapshot_rejects (snapshot_id, line);
comment on table tickets_ops.snapshot_rejects is 'Rows that could not be loaded: nothing that stood in a file is lost silently. Of one snapshot at most 10 000 are kept; tickets_ops.snapshots.rows_rejected counts all.';
comment on column tickets_ops.snapshot_rejects.reject_id is 'Order of writing.';
comment on column tickets_ops.snapshot_rejects.snapshot_id is 'The snapshot.';
comment on column tickets_ops.snapshot_rejects.line is 'Line of the file on which the record begins; the header is usually line 1.';
comment on column tickets_ops.snapshot_rejects.reason is 'Why, in words for people.';
comment on column tickets_ops.snapshot_rejects.row_text is 'The record as CSV (as JSON where the database refused it), control characters escaped, cut at 64 KiB.';

create table tickets_ops.looks (
  dataset text primary key,
  looked_at timestamptz not null,
  files bigint not null,
  others bigint not null,
  new_file_at timestamptz,
  future_dated text[] not null,
  waiting bigint not null default 0
);
comment on table tickets_ops.looks is 'What the last look at the bucket saw; one row a dataset. A look that failed leaves it as it was.';
comment on column tickets_ops.looks.dataset is 'inc or crq.';
comment on column tickets_ops.looks.looked_at is 'When.';
comment on column tickets_ops.looks.files is 'CSV files in the folder; those that were archived are not among them.';
comment on column tickets_ops.looks.others is 'Empty files, and objects that are no CSV by their name.';
comment on column tickets_ops.looks.new_file_at is 'When a look last saw a version of a file that none had seen before: a feed that stands still brings none. NULL before the first.';
comment on column tickets_ops.looks.future_dated is 'Keys of files whose time has not come: they lie in the folder and are not loaded.';
comment on column tickets_ops.looks.waiting is 'Of a feed of changes: files behind the one that is loaded, or that stops them. 0 for snapshots, of which the newest is enough.';

create table tickets_ops.unrecorded_tickets (
  dataset text,
  ticket_id text,
  primary key (dataset, ticket_id)
);
comment on table tickets_ops.unrecorded_tickets is 'Tickets that somebody inserted past the pipeline, until the next load or sweep gives them a baseline.';
comment on column tickets_ops.unrecorded_tickets.dataset is 'inc or crq.';
comment on column tickets_ops.unrecorded_tickets.ticket_id is 'The ticket.';

create table tickets_ops.sweeps (
  dataset text primary key,
  swept_at timestamptz,
  took interval
);
insert into tickets_ops.sweeps (dataset) values ('inc'), ('crq');
comment on table tickets_ops.sweeps is 'When all tickets of a dataset were last compared with the gazetteers and with their history (tickets_ops.sweep).';
comment on column tickets_ops.sweeps.dataset is 'inc or crq.';
comment on column tickets_ops.sweeps.swept_at is 'When that was done. NULL: never yet.';
comment on column tickets_ops.sweeps.took is 'How long it took; it is done again after a hundred times as long.';

--! Included high-water-mark.sql
-- What is loaded already, and the one order of versions of files: the time in the name, then LastModified, then the key.
-- src/bucket/files.ts has the same order, src/bucket/plan.ts the same tolerance for clocks; tests hold them together.

create or replace function tickets_ops.clock_tolerance() returns interval language sql immutable parallel safe
return interval '15 minutes';
comment on function tickets_ops.clock_tolerance() is 'The clocks of exporter and database may differ by this much. A file whose time is further ahead is future-dated: it is refused until its time has come.';

create or replace function tickets_ops.high_water_mark(
  p_dataset text, out snapshot_at timestamptz, out last_modified timestamptz, out key text
)
language sql stable set search_path = pg_catalog, pg_temp as $$
  select m.snapshot_at, m.last_modified, m.key
  from (
    (
      select s.snapshot_at, coalesce(s.source_last_modified, '-infinity') as last_modified, s.source_key as key
      from tickets_ops.snapshots s
      where s.dataset = p_dataset and (s.load_began_at is not null or s.status = 'unchanged')
        -- One that was loaded by a release that let it must not shut out every file until its time.
        and s.snapshot_at <= now() + tickets_ops.clock_tolerance()
      order by s.snapshot_at desc, s.source_last_modified desc nulls last, s.source_key collate "C" desc -- index snapshots_by_time
      limit 1
    )
    union all
    -- What a takeover inherited, and what the ledger has forgotten by age. Times of files are kept to the millisecond.
    select
      tickets.eat_ts(i.metadata ->> 'snapshot_at'),
      coalesce(date_trunc('milliseconds', tickets.eat_ts(i.metadata ->> 'source_last_modified')), '-infinity'),
      coalesce(i.metadata ->> 'source_key', '')
    from tickets.import_meta i
    where i.dataset = p_dataset
  ) as m
  where m.snapshot_at <= now() + tickets_ops.clock_tolerance()
  order by m.snapshot_at desc, m.last_modified desc, m.key collate "C" desc
  limit 1
$$;
comment on function tickets_ops.high_water_mark(text) is 'The newest version of a file of a dataset (inc, crq) that has touched tickets, or was found unchanged: its time, LastModified and key. Nothing below it is ever loaded. NULLs before the first load.';

create or replace function tickets_ops.is_below_mark(
  p_dataset text, p_snapshot_at timestamptz, p_last_modified timestamptz, p_key text
)
returns boolean language sql stable set search_path = pg_catalog, pg_temp
return (
  select coalesce(
    (p_snapshot_at, p_last_modified, p_key collate "C") < (m.snapshot_at, m.last_modified, m.key collate "C"), false
  )
  from tickets_ops.high_water_mark(p_dataset) m
);
comment on function tickets_ops.is_below_mark(text, timestamptz, timestamptz, text) is 'Whether a version of a file is older than what is loaded, so that loading it would overwrite newer tickets. False before the first load.';

create or replace function tickets_ops.known_versions(p_dataset text, p_keys text[])
returns table (key text, etag text, last_modified timestamptz, status text, opens_at timestamptz)
language sql stable set search_path = pg_catalog, pg_temp as $$
  select distinct on (s.source_key, s.source_etag, s.source_last_modified)
    s.source_key, s.source_etag, s.source_last_modified, s.status, s.opens_at
  from tickets_ops.snapshots s
  where s.dataset = p_dataset and s.source_key = any (p_keys) and s.origin = 'bucket' -- index snapshots_by_file
  -- Looked at again by force, and put back: that says nothing of what became of it before.
  order by s.source_key, s.source_etag, s.source_last_modified, s.status = 'superseded', s.snapshot_id desc
$$;
comment on function tickets_ops.known_versions(text, text[]) is 'What the ledger knows of the objects of these keys: a row for each version (key, ETag, LastModified), with the status of the last look that came to anything.';

create or replace function tickets_ops.last_load(p_dataset text, p_cleaning_version integer, out etag text, out sha256 text)
language sql stable set search_path = pg_catalog, pg_temp as $$
  select
    case
      when last.snapshot_id is not null then case when last.is_whole then last.source_etag end
      when coalesce((meta.metadata ->> 'cleaning_version')::integer >= p_cleaning_version, true) then btrim(meta.metadata ->> 'source_etag', '"')
    end,
    case when last.is_whole and last.origin = 'bucket' then last.source_sha256 end
  from (select) as one
  left join tickets.import_meta meta on meta.dataset = p_dataset
  left join lateral (
    select
      s.snapshot_id, s.origin, s.source_etag, s.source_sha256,
      -- Rules of a newer release are as good: two releases run beside each other during a deployment.
      s.status = 'done' and coalesce(s.cleaning_version >= p_cleaning_version, false) as is_whole
    from tickets_ops.snapshots s
    where s.dataset = p_dataset and s.load_began_at is not null
    order by s.load_began_at desc
    limit 1
  ) as last on true
$$;
comment on function tickets_ops.last_load(text, integer) is 'ETag and SHA-256 of the bytes that the tickets are at: a file with the same need not be loaded. NULL after a load that was partial or failed, or was cleaned by older rules than these, and of a local file, after which whatever the bucket holds next is loaded. Before the first load the ETag is what a takeover inherited.';
--! EndIncluded high-water-mark.sql
--! Included ledger.sql
-- The ledger's rules: what is loaded already, and how a snapshot comes back into flight.

create or replace function tickets_ops.check_transition() returns trigger
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
  v_from text;
begin
  if tg_op = 'UPDATE' then
    if new.status = old.status then
      return new;
    end if;
    v_from := old.status;
  end if;
  if not exists (
    select from tickets_ops.snapshot_transitions t where t.from_status is not distinct from v_from and t.to_status = new.status
  ) then
    raise exception 'Snapshot % cannot become % from %.', new.snapshot_id, new.status, coalesce(v_from, 'nothing')
      using hint = 'See tickets_ops.snapshot_transitions.';
  end if;
  return new;
end
$$;
comment on function tickets_ops.check_transition() is 'Trigger of the ledger: a status changes only as tickets_ops.snapshot_transitions lists.';

create or replace function tickets_ops.ledger_lock(p_dataset text) returns bigint language sql immutable parallel safe
return hashtextextended('fleettickets ledger ' || p_dataset, 0);
comment on function tickets_ops.ledger_lock(text) is 'Number of the advisory lock under which looks at a dataset take turns to change the ledger.';

create or replace function tickets_ops.fail_snapshot(p_snapshot_id bigint, p_reason text) returns boolean language plpgsql
set search_path = pg_catalog, pg_temp as $$
declare
  v_snapshot tickets_ops.snapshots;
begin
  -- Waits for batches that are being written: a newer snapshot must not be compared with tickets that one of them is about
  -- to change.
  perform from tickets_ops.snapshots where snapshot_id = p_snapshot_id for update;
  update tickets_ops.snapshots
  set status = 'failed', error = p_reason, progress_at = now()
  where snapshot_id = p_snapshot_id and in_flight
  returning * into v_snapshot;
  if not found then
    return false;
  end if;
  if v_snapshot.batches_done > 0 then
    perform tickets_ops.record_day(v_snapshot.dataset);
  end if;
  if v_snapshot.backfill then
    perform tickets_ops.continue_backfill(v_snapshot.dataset);
  end if;
  return true;
end
$$;
comment on function tickets_ops.fail_snapshot(bigint, text) is 'A snapshot in flight becomes failed, with a reason for people; its staging is kept for a retry. A backfill that it belongs to goes on with the next file, and the gap stands in the ledger. Returns whether it was in flight.';

create or replace function tickets_ops.continue_backfill(p_dataset text) returns bigint language sql
return tickets_ops.enqueue(
  'fetch_snapshot', json_build_object('dataset', p_dataset, 'backfill', true), tickets_ops.fetch_job_key(p_dataset, 'backfill')
);
comment on function tickets_ops.continue_backfill(text) is 'Asks for the next file of a backfill. Returns the job''s id.';

create or replace function tickets_ops.ask_for_missing_jobs() returns bigint
language sql set search_path = pg_catalog, pg_temp as $$
  with needed as (
    select 'upsert_batch' as task, tickets_ops.batch_job_key(b.snapshot_id, b.batch) as key,
      json_build_object('snapshot_id', b.snapshot_id, 'batch', b.batch) as payload
    from tickets_ops.snapshot_batches b join tickets_ops.snapshots s using (snapshot_id)
    where s.status = 'loading' and b.status <> 'done'
    union all
    select 'finalize_snapshot', tickets_ops.finalize_job_key(s.snapshot_id), json_build_object('snapshot_id', s.snapshot_id)
    from tickets_ops.snapshots s where s.status = 'finalizing'
  ),
  added as (
    select tickets_ops.enqueue(task, payload, key)
    from needed
    where not exists (select from tickets_ops.queued_jobs() j where j.key = needed.key)
  )
  select count(*) from added;
$$;
comment on function tickets_ops.ask_for_missing_jobs() is 'Adds the jobs that snapshots in flight need and that are not there: someone deleted them, or they ended while their snapshot counted as failed. Returns how many.';

create or replace function tickets_ops.reopen_snapshot(p_snapshot_id bigint) returns text
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
  v_snapshot tickets_ops.snapshots;
  v_newer bigint;
begin
  select * into v_snapshot from tickets_ops.snapshots where snapshot_id = p_snapshot_id for update;
  if not found then
    return format('Snapshot %s is no longer in the ledger.', p_snapshot_id);
  elsif v_snapshot.status in ('loading', 'finalizing') then
    return null;
  elsif v_snapshot.status <> 'failed' then
    return format('Snapshot %s is %s: there is nothing left to do.', p_snapshot_id, v_snapshot.status);
  end if;
  select min(snapshot_id) into v_newer
  from tickets_ops.snapshots
  where dataset = v_snapshot.dataset and snapshot_id <> p_snapshot_id
    and (in_flight or load_began_at > v_snapshot.load_began_at);
  if v_newer is not null then
    return format('Snapshot %s is superseded by snapshot %s: it stays failed.', p_snapshot_id, v_newer);
  elsif v_snapshot.load_began_at is null then
    return format('Snapshot %s was never read to its end. Read it again: select * from tickets_ops.fetch_now(%L, true);', p_snapshot_id, v_snapshot.dataset);
  elsif not exists (select from tickets_ops.snapshot_rows where snapshot_id = p_snapshot_id) then
    return format('The staged rows of snapshot %s have been pruned. Read it again: select * from tickets_ops.fetch_now(%L, true);', p_snapshot_id, v_snapshot.dataset);
  end if;
  update tickets_ops.snapshots
  set status = case when batches_done = batches_total then 'finalizing' else 'loading' end, error = null, progress_at = now()
  where snapshot_id = p_snapshot_id;
  update tickets_ops.snapshot_batches set status = 'pending', error = null where snapshot_id = p_snapshot_id and status = 'failed';
  perform tickets_ops.ask_for_missing_jobs();
  return null;
exception
  when unique_violation then
    return format('Snapshot %s has to wait: another one is in flight.', p_snapshot_id);
end
$$;
comment on function tickets_ops.reopen_snapshot(bigint) is 'Puts a failed snapshot back in flight, with the jobs that are gone; the caller revives those that failed. The only way back from failed. Returns why it cannot, NULL when it is in flight.';

create or replace function tickets_ops.put_back(p_snapshot_id bigint, p_from text) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
  update tickets_ops.snapshots s
  set status = 'superseded', error = 'Reading it broke off on attempt ' || attempt, attempt = attempt + 1,
    rows_read = 0, rows_duplicate = 0, rows_dropped_alarm = 0, rows_dropped_sentinel = 0, rows_rejected = 0, rejects_kept = 0, rows_repaired = 0
  where snapshot_id = p_snapshot_id and status = p_from
    -- A failed file may have been looked at once more and passed over (unique index snapshots_superseded_once).
    and not (p_from = 'failed' and exists (
      select from tickets_ops.snapshots o
      where o.dataset = s.dataset and o.source_key = s.source_key and o.source_etag = s.source_etag
        and o.source_last_modified = s.source_last_modified and o.status = 'superseded'
    ));
  if found then
    delete from tickets_ops.snapshot_rows where snapshot_id = p_snapshot_id;
    delete from tickets_ops.snapshot_rejects where snapshot_id = p_snapshot_id;
  end if;
end
$$;
comment on function tickets_ops.put_back(bigint, text) is 'A snapshot whose reading broke off is to be read again: from staging or failed (the state it must be in, else nothing happens) to superseded, which a look takes. The new attempt number shuts out the reader that was cut off; its last statement may still be running, so the rows are wiped by later statements, which see what that one wrote.';
--! EndIncluded ledger.sql
--! Included loading.sql
-- Loading: a range of staged rows becomes tickets and history, in one statement.

-- What happens to a lifecycle carries the ticket as it then was: of a ticket that is reopened, tickets.inc soon no longer knows
-- the first closing.
create or replace function tickets_ops.history_cte(p_dataset text) returns text language sql immutable parallel safe
return format($sql$
    happened as (
      select i.ticket_id, case when i.is_actionable then 'opened' else 'closed' end as event,
        null as old_value, i.normalized_status as new_value,
        left(i.assigned_team, 100) as assigned_team, i.owner, left(i.cluster, 100) as cluster, left(i.region, 100) as region,
        i.created_at_service, null as team_before, i.closed_at, i.mttr, i.sla_status
      from inserted i
      union all
      select u.ticket_id, e.event, e.old_value, e.new_value,
        ticket.assigned_team, ticket.owner, ticket.cluster, ticket.region, ticket.created_at_service, ticket.team_before,
        closing.closed_at, closing.mttr, closing.sla_status
      from updated u
      join changed c on c.ticket_id = u.ticket_id
      cross join lateral (values
        -- NULL is for first sight: a ticket that had no status had an empty one.
        ('closed', coalesce(c.normalized_status, ''), u.normalized_status, c.is_actionable is true and u.is_actionable is not true),
        ('reopened', coalesce(c.normalized_status, ''), u.normalized_status, c.is_actionable is not true and u.is_actionable is true),
        ('closure_corrected', c.normalized_status, u.normalized_status, c.is_actionable is not true and u.is_actionable is not true
          and (c.closed_at is distinct from u.closed_at or c.mttr is distinct from u.mttr)),
        ('status_changed', c.normalized_status, u.normalized_status, c.normalized_status is distinct from u.normalized_status),
        ('team_changed', c.assigned_team, u.assigned_team, c.assigned_team is distinct from u.assigned_team),
        ('cluster_changed', c.cluster, u.cluster, c.cluster is distinct from u.cluster)
      ) as e (event, old_value, new_value, happened)
      left join lateral (
        select left(u.assigned_team, 100) as assigned_team, u.owner, left(u.cluster, 100) as cluster, left(u.region, 100) as region,
          u.created_at_service, left(c.assigned_team, 100) as team_before
      ) as ticket on e.event in ('closed', 'reopened')
      left join lateral (select u.closed_at, u.mttr, u.sla_status) as closing on e.event in ('closed', 'reopened', 'closure_corrected')
      where e.happened
    ),
    events as (
      insert into tickets.%1$I (
        ticket_id, event, old_value, new_value, assigned_team, owner, cluster, region, created_at_service, team_before,
        closed_at, mttr, sla_status, snapshot_id, snapshot_at
      )
      select h.*, s.snapshot_id, s.snapshot_at from happened h, tickets_ops.snapshots s where s.snapshot_id = $1
    )
$sql$, p_dataset || '_events');
comment on function tickets_ops.history_cte(text) is 'SQL: the part of tickets_ops.load_rows that writes history, from its parts changed (tickets as they were), updated and inserted (as they are).';

-- Classify once, then UPDATE, INSERT and history as parts of one statement (measured: 0.2 s for 50 000 unchanged rows, where
-- ON CONFLICT … WHERE raw IS DISTINCT FROM computes every generated column first and takes 1.9 s). Changed tickets are locked
-- in ticket_id order. Places are resolved for each distinct place, not for each row. The digests of what is written are written
-- with it, bound to the very rows; not where somebody's trigger may have stored another row than was staged.
create or replace function tickets_ops.load_rows(
  p_dataset text, p_snapshot_id bigint, p_first text, p_last text, p_without text[],
  out inserted integer, out updated integer, out unchanged integer
)
language plpgsql set search_path = pg_catalog, pg_temp as $fn$
declare
  v_before boolean := tickets_ops.as_pipeline(true); -- their history is written with them
begin
  execute format($sql$
    with batch as materialized (
      select ticket_id, digest, figures, raw from tickets_ops.snapshot_rows
      where snapshot_id = $1 and ticket_id between $2 and $3 and raw is not null -- primary key
        and ticket_id <> all ($4) -- hashed
    ),
    changed as materialized (
      select b.ticket_id, b.raw, t.is_actionable, t.normalized_status, t.assigned_team, t.cluster, t.closed_at, t.mttr
      from batch b join tickets.%1$I t on t.ticket_id = b.ticket_id
      where t.raw <> b.raw
      order by t.ticket_id
      for update of t
    ),
    written as materialized (
      select ticket_id, raw, false as is_new from changed
      union all
      select ticket_id, raw, true from batch b
      where not exists (select from tickets.%1$I t where t.ticket_id = b.ticket_id)
    ),
    clusters as materialized (
      -- A name is normalised only where its cluster has a place to compare it with: that is a tenth of a load of new rows.
      select n.cluster, exists (
        select from tickets.geo_locations l
        where tickets.cluster_key(l.cluster) = tickets.cluster_key(n.cluster) and l.status = 'found' -- index geo_locations_place
      ) as has_places
      from (select distinct raw ->> 'cluster' as cluster from written) as n
    ),
    named as materialized (
      select n.cluster, n.location_name, case when c.has_places then tickets.location_key(n.location_name) end as location_key
      from (select distinct raw ->> 'cluster' as cluster, coalesce(raw ->> 'location_name', '') as location_name from written) as n
      join clusters c on c.cluster = n.cluster
    ),
    places as materialized (
      select n.cluster, n.location_name, l.geom as location_geom, c.geom as cluster_geom
      from named n %2$s
    ),
    placed as materialized (
      select w.ticket_id, w.raw, w.is_new, place.*
      from written w
      -- Not "is not distinct from", which cannot be hashed.
      left join places p on p.cluster = w.raw ->> 'cluster' and p.location_name = coalesce(w.raw ->> 'location_name', '')
      cross join lateral tickets.place(w.raw, p.location_geom, p.cluster_geom) as place
    ),
    updated as (
      update tickets.%1$I t
      set raw = p.raw, geom = p.geom, geo_source = p.geo_source, ingested_at = now()
      from placed p
      where not p.is_new and t.ticket_id = p.ticket_id
      returning t.ticket_id, t.is_actionable, t.normalized_status, t.assigned_team, t.owner, t.cluster, t.region,
        t.created_at_service, t.closed_at, t.mttr, t.sla_status, t.ctid as row_ctid, t.xmin as row_xmin
    ),
    inserted as (
      insert into tickets.%1$I (ticket_id, raw, geom, geo_source)
      select ticket_id, raw, geom, geo_source from placed where is_new
      returning ticket_id, is_actionable, normalized_status, assigned_team, owner, cluster, region,
        created_at_service, closed_at, mttr, sla_status, ctid as row_ctid, xmin as row_xmin
    ),
    digests as (
      insert into tickets_ops.%4$I (ticket_id, digest, figures, row_ctid, row_xmin)
      select b.ticket_id, b.digest, b.figures, w.row_ctid, w.row_xmin
      from (select ticket_id, row_ctid, row_xmin from inserted union all select ticket_id, row_ctid, row_xmin from updated) as w
      join batch b on b.ticket_id = w.ticket_id
      where not exists (
        select from pg_trigger where tgrelid = 'tickets.%1$I'::regclass and tgtype & 3 = 3 -- BEFORE, for each row: none is ours
      )
      on conflict (ticket_id) do update
        set digest = excluded.digest, figures = excluded.figures, row_ctid = excluded.row_ctid, row_xmin = excluded.row_xmin
    ),
    %3$s
    select
      (select count(*) from inserted), (select count(*) from updated),
      (select count(*) from batch) - (select count(*) from written)
  $sql$, p_dataset, tickets.gazetteer_joins('n.cluster', 'n.location_key'), tickets_ops.history_cte(p_dataset), p_dataset || '_digests')
  into inserted, updated, unchanged
  using p_snapshot_id, p_first, p_last, p_without;
  perform tickets_ops.as_pipeline(v_before);
end
$fn$;
comment on function tickets_ops.load_rows(text, bigint, text, text, text[]) is 'Writes the staged rows of a snapshot from one ticket id to another, without those in p_without, to the tickets of a dataset (inc, crq), to their history and to their digests. Only changes are written. Returns how many rows were inserted, updated and left as they are. To be called in a transaction that shares the gazetteer lock (tickets.gazetteer_lock). Raises what Postgres says of a row that it refuses.';
--! EndIncluded loading.sql
--! Included baselines.sql
-- Baselines: the history of tickets that came past the pipeline, those of a takeover and those that somebody inserted.
-- A trigger notes what is inserted, so that the end of a load need not look through all tickets; what no trigger saw (a restore
-- without triggers, say) is found by the sweep.

create or replace function tickets_ops.note_unrecorded() returns trigger
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
begin
  -- Asked here, and not in the trigger's WHEN, which whoever inserts would need a right for.
  if not tickets_ops.is_pipeline() then
    insert into tickets_ops.unrecorded_tickets (dataset, ticket_id)
    select tg_table_name, w.ticket_id from written w
    on conflict do nothing; -- deleted and inserted again
  end if;
  return null;
end
$$;
comment on function tickets_ops.note_unrecorded() is 'Trigger after an insert of tickets: notes those that are not the pipeline''s for tickets_ops.record_baselines.';

create or replace function tickets_ops.record_baselines(
  p_dataset text, p_snapshot_id bigint, p_snapshot_at timestamptz, p_only_noted boolean default false
) returns bigint
language plpgsql set search_path = pg_catalog, pg_temp as $fn$
declare
  v_ids text[];
  v_written bigint;
begin
  with noted as (
    delete from tickets_ops.unrecorded_tickets where dataset = p_dataset returning ticket_id -- primary key
  )
  select array_agg(ticket_id) into v_ids from noted;
  if not p_only_noted then
    -- An anti-join of two indexes: the primary key and *_events_ticket.
    execute format(
      'select array_agg(t.ticket_id) from tickets.%I t where not exists (select from tickets.%I e where e.ticket_id = t.ticket_id)',
      p_dataset, p_dataset || '_events'
    ) into v_ids;
  end if;
  if v_ids is null then
    return 0;
  end if;
  -- Loads and the sweep may be at the same tickets: who locks them, in ticket_id order as a load does, looks at their history
  -- in a statement of its own, which sees what the other has committed meanwhile.
  execute format('select from tickets.%I where ticket_id = any ($1) order by ticket_id for no key update', p_dataset) using v_ids;
  execute format($sql$
    insert into tickets.%1$I (
      ticket_id, event, new_value, snapshot_id, snapshot_at, assigned_team, owner, cluster, region, created_at_service, closed_at, mttr, sla_status
    )
    select
      t.ticket_id, 'baseline', t.normalized_status, $1, $2,
      left(t.assigned_team, 100), t.owner, left(t.cluster, 100), left(t.region, 100), t.created_at_service, t.closed_at, t.mttr, t.sla_status
    from tickets.%2$I t
    where t.ticket_id = any ($3) and not exists (select from tickets.%1$I e where e.ticket_id = t.ticket_id) -- index *_events_ticket
    order by t.ticket_id
  $sql$, p_dataset || '_events', p_dataset) using p_snapshot_id, p_snapshot_at, v_ids;
  get diagnostics v_written = row_count;
  return v_written;
end
$fn$;
comment on function tickets_ops.record_baselines(text, bigint, timestamptz, boolean) is 'Gives every ticket of a dataset that has no history a `baseline`: those of a takeover, and rows that somebody wrote past the pipeline. p_only_noted: only those whose insert was noted, without looking through the others. Returns how many.';
--! EndIncluded baselines.sql
--! Included sweep.sql
-- The sweep: what triggers keep true is compared over whole tables, in case somebody wrote without them.

create or replace function tickets_ops.remove_orphaned_digests(p_dataset text) returns bigint
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
  v_removed bigint;
begin
  execute format($sql$
    with orphaned as materialized ( -- once: as a subquery it may be run for each row of the table
      select d.ticket_id from tickets_ops.%1$I d
      where not exists (select from tickets.%2$I t where t.ticket_id = d.ticket_id) -- both primary keys
      for update of d skip locked
    )
    delete from tickets_ops.%1$I d using orphaned o where d.ticket_id = o.ticket_id
  $sql$, p_dataset || '_digests', p_dataset);
  get diagnostics v_removed = row_count;
  return v_removed;
end
$$;
comment on function tickets_ops.remove_orphaned_digests(text) is 'Removes the digests of tickets that were deleted; not those that a load is just giving to new tickets of their number. Returns how many.';

create or replace function tickets_ops.sweep() returns table (dataset text, placed bigint, baselines bigint, digests bigint)
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
  v_began timestamptz;
begin
  if not pg_try_advisory_xact_lock_shared(tickets.gazetteer_lock()) then
    return; -- somebody writes a gazetteer
  end if;
  for dataset in
    select s.dataset from tickets_ops.sweeps s
    where s.dataset in (select tickets.datasets()) and (s.swept_at is null or s.swept_at + 100 * s.took <= clock_timestamp())
    for update skip locked
  loop
    v_began := clock_timestamp();
    placed := tickets.place_tickets(dataset);
    -- As of what is loaded: history is in the order of the export's times.
    baselines := tickets_ops.record_baselines(dataset, null, (tickets_ops.high_water_mark(dataset)).snapshot_at);
    digests := tickets_ops.remove_orphaned_digests(dataset);
    update tickets_ops.sweeps s set swept_at = clock_timestamp(), took = clock_timestamp() - v_began where s.dataset = sweep.dataset;
    if placed + baselines + digests > 0 then
      return next;
    end if;
  end loop;
end
$$;
comment on function tickets_ops.sweep() is 'Places the tickets that disagree with the gazetteers, begins the history of those that have none, and removes digests of tickets that are gone. Reads all tickets of a dataset, so it rests a hundred times as long as it took: it costs a hundredth of a core at most. Maintenance calls it. Returns what it did for which dataset; no row where there was nothing to do.';
--! EndIncluded sweep.sql
--! Included refused-rows.sql
-- Rows that the database itself refuses, found without writing them.

create or replace function tickets_ops.violating_rows(
  p_dataset text, p_constraint text, p_snapshot_id bigint, p_first text, p_last text
)
returns setof text language plpgsql stable set search_path = pg_catalog, pg_temp as $$
declare
  v_table regclass := format('tickets.%I', p_dataset)::regclass;
  v_check text;
  v_plain text;
  v_generated text;
begin
  select pg_get_expr(c.conbin, c.conrelid) into v_check
  from pg_constraint c
  where c.conrelid = v_table and c.conname = p_constraint and c.contype = 'c';
  if v_check is null then
    return;
  end if;
  select
    string_agg(
      case a.attname
        when 'ticket_id' then 'r.ticket_id'
        when 'raw' then 'r.raw'
        else format('null::%s as %I', format_type(a.atttypid, a.atttypmod), a.attname)
      end, ', ') filter (where a.attgenerated = ''),
    string_agg(format(', (%s) as %I', pg_get_expr(d.adbin, d.adrelid), a.attname), '') filter (where a.attgenerated <> '')
  into v_plain, v_generated
  from pg_attribute a
  left join pg_attrdef d on d.adrelid = a.attrelid and d.adnum = a.attnum
  where a.attrelid = v_table and a.attnum > 0 and not a.attisdropped;
  -- Of the generated columns Postgres computes only those that the check names.
  return query execute format(
    'select ticket.ticket_id
     from (
       select staged.*%s
       from (
         select %s from tickets_ops.snapshot_rows r
         where r.snapshot_id = $1 and r.ticket_id between $2 and $3 and r.raw is not null -- primary key
       ) as staged
     ) as ticket
     where not (%s)', v_generated, v_plain, v_check)
  using p_snapshot_id, p_first, p_last;
end
$$;
comment on function tickets_ops.violating_rows(text, text, bigint, text, text) is 'Ids of the staged rows of a snapshot, in a range of ids, that a check constraint of tickets.inc or tickets.crq refuses, as far as it looks at what comes from raw; none for another kind of constraint. All of a batch in milliseconds, where writing them one by one costs as many errors.';
--! EndIncluded refused-rows.sql
--! Included held.sql
-- Snapshots that are held: what a person does about one, and what becomes of it when a newer file is loaded.

create or replace function tickets_ops.hold_time() returns interval language sql immutable parallel safe
return interval '1 hour';
comment on function tickets_ops.hold_time() is 'A file so much later that shows the same closings as a held one is believed: a feed never stands still for want of a person. src/snapshots/suspicion.ts judges by it.';

create or replace function tickets_ops.held(p_dataset text)
returns table (snapshot_id bigint, source_etag text, source_sha256 text, judged_again_at timestamptz)
language sql stable set search_path = pg_catalog, pg_temp as $$
  select s.snapshot_id, s.source_etag, s.source_sha256, s.held_since + tickets_ops.hold_time()
  from tickets_ops.snapshots s
  where s.dataset = p_dataset and s.status = 'held'
  order by s.snapshot_at desc limit 1 -- index snapshots_by_time
$$;
comment on function tickets_ops.held(text) is 'The snapshot of a dataset (inc, crq) that is held, if any. judged_again_at: a file of that time or later is loaded if it shows the same closings; NULL where only a person can decide.';

create or replace function tickets_ops.replace_held(p_dataset text, p_snapshot_at timestamptz, p_is_loaded boolean) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
  v_held tickets_ops.snapshots;
  v_is_superseded boolean;
begin
  for v_held in
    select * from tickets_ops.snapshots
    where dataset = p_dataset and status = 'held' and snapshot_at <= p_snapshot_at -- index snapshots_by_time
    order by snapshot_id for update
  loop
    v_is_superseded := p_is_loaded and not exists (
      -- Its version was looked at again by force, and put back (unique index snapshots_superseded_once).
      select from tickets_ops.snapshots o
      where o.dataset = v_held.dataset and o.source_key = v_held.source_key and o.source_etag = v_held.source_etag
        and o.source_last_modified = v_held.source_last_modified and o.status = 'superseded'
    );
    update tickets_ops.snapshots
    set progress_at = now(),
      -- A look takes what is superseded, while nothing newer is loaded.
      status = case when v_is_superseded then 'superseded' else 'failed' end,
      dismissed_at = case when v_is_superseded then null else now() end,
      error = 'It was held, and a newer file took its place. ' || hold_reason
    where snapshot_id = v_held.snapshot_id;
    perform tickets_ops.wipe_staging(v_held.snapshot_id);
  end loop;
end
$$;
comment on function tickets_ops.replace_held(text, timestamptz, boolean) is 'Held snapshots of a dataset whose files are no newer than this time are given up, because a newer one is loaded (then they are superseded) or held in their place (then they count as failed, and are not read again).';

create or replace function tickets_ops.wipe_staging(p_snapshot_id bigint) returns void
language sql set search_path = pg_catalog, pg_temp as $$
  delete from tickets_ops.snapshot_rows where snapshot_id = p_snapshot_id;
  delete from tickets_ops.snapshot_batches where snapshot_id = p_snapshot_id;
$$;
comment on function tickets_ops.wipe_staging(bigint) is 'Deletes what is staged of a snapshot. Its rejects stay.';

-- Asked twice: under the lock all rows of others are committed, and so seen by a session that is READ COMMITTED, as ours are.
create or replace function tickets_ops.empty_staging(p_snapshot_id bigint) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
  v_locked boolean;
begin
  if pg_relation_size('tickets_ops.snapshot_rows') > 4 * 1024 * 1024 and current_setting('transaction_isolation') = 'read committed' then
    foreach v_locked in array array[false, true] loop
      exit when exists (select from tickets_ops.snapshot_rows where snapshot_id < p_snapshot_id) -- primary key
        or exists (select from tickets_ops.snapshot_rows where snapshot_id > p_snapshot_id);
      if v_locked then
        truncate tickets_ops.snapshot_rows;
        exit;
      end if;
      begin
        lock table tickets_ops.snapshot_rows in access exclusive mode nowait;
      exception when lock_not_available then
        exit;
      end;
    end loop;
  end if;
  perform tickets_ops.wipe_staging(p_snapshot_id);
end
$$;
comment on function tickets_ops.empty_staging(bigint) is 'As tickets_ops.wipe_staging, at the end of a load: truncates the table where the snapshot''s rows stand alone in it and nobody uses it, since deleting half a million of them takes a quarter of a second, and a vacuum afterwards. Others wait for the table until the transaction ends.';

create or replace function tickets_ops.locked_snapshot(p_snapshot_id bigint) returns tickets_ops.snapshots language plpgsql
set search_path = pg_catalog, pg_temp as $$
declare
  v_snapshot tickets_ops.snapshots;
begin
  select * into v_snapshot from tickets_ops.snapshots where snapshot_id = p_snapshot_id;
  if not found then
    raise exception 'There is no snapshot %.', p_snapshot_id using hint = 'See tickets_ops.snapshots.';
  end if;
  -- In its turn with the looks, which decide by what is held.
  perform pg_advisory_xact_lock(tickets_ops.ledger_lock(v_snapshot.dataset));
  select * into v_snapshot from tickets_ops.snapshots where snapshot_id = p_snapshot_id for update;
  return v_snapshot;
end
$$;
comment on function tickets_ops.locked_snapshot(bigint) is 'A snapshot''s row, locked until the end of the transaction, in its turn with looks at the bucket. Raises when there is none.';

create or replace function tickets_ops.release_snapshot(p_snapshot_id bigint) returns text
language plpgsql security definer set search_path = pg_catalog, pg_temp set lock_timeout = '10s' as $$
declare
  v_snapshot tickets_ops.snapshots;
  v_later text;
begin
  v_snapshot := tickets_ops.locked_snapshot(p_snapshot_id);
  if v_snapshot.status <> 'held' then
    raise exception 'Snapshot % is %, not held.', p_snapshot_id, v_snapshot.status;
  end if;
  -- Judged anew: what it was compared with must still be what is loaded.
  select s.source_key into v_later
  from tickets_ops.snapshots s
  where s.dataset = v_snapshot.dataset
    and (s.load_began_at > v_snapshot.staged_at or (s.status = 'unchanged' and s.snapshot_at > v_snapshot.snapshot_at))
  order by s.snapshot_at desc limit 1;
  if v_later is not null then
    raise exception 'Snapshot % is not released: % was loaded after it was staged.', p_snapshot_id, v_later
      using hint = format('Drop it: select tickets_ops.dismiss_snapshot(%s);', p_snapshot_id);
  end if;
  if v_snapshot.batches_total > 0 and not exists (select from tickets_ops.snapshot_rows where snapshot_id = p_snapshot_id) then
    raise exception 'The staged rows of snapshot % have been pruned.', p_snapshot_id
      using hint = format('Read it again: select * from tickets_ops.fetch_now(%L, true);', v_snapshot.dataset);
  end if;
  begin
    update tickets_ops.snapshots
    set status = case when batches_total = 0 then 'finalizing' else 'loading' end,
      load_began_at = clock_timestamp(), progress_at = clock_timestamp(),
      warnings = format('%s Released by %s.', hold_reason, session_user) || warnings
    where snapshot_id = p_snapshot_id;
  exception when unique_violation then
    raise exception 'Snapshot % has to wait: another one is in flight.', p_snapshot_id using hint = 'Release it again in a minute.';
  end;
  perform tickets_ops.ask_for_missing_jobs();
  return format('Snapshot %s is being loaded.', p_snapshot_id);
exception when lock_not_available then
  perform tickets_ops.raise_blocked();
  return null;
end
$$;
comment on function tickets_ops.release_snapshot(bigint) is 'Loads a snapshot that is held, after all: select tickets_ops.release_snapshot(42). Raises when it is not held, when something was loaded since, when another one is in flight, and when others hold its rows for ten seconds.';

create or replace function tickets_ops.dismiss_snapshot(p_snapshot_id bigint) returns text
language plpgsql security definer set search_path = pg_catalog, pg_temp set lock_timeout = '10s' as $$
declare
  v_snapshot tickets_ops.snapshots;
begin
  v_snapshot := tickets_ops.locked_snapshot(p_snapshot_id);
  if v_snapshot.status = 'held' then
    update tickets_ops.snapshots
    set status = 'failed', error = format('Dismissed by %s. %s', session_user, hold_reason), dismissed_at = now(), progress_at = now()
    where snapshot_id = p_snapshot_id;
    perform tickets_ops.wipe_staging(p_snapshot_id);
    return format('Snapshot %s is dropped; its file stays where it is.', p_snapshot_id);
  elsif v_snapshot.status = 'failed' then
    update tickets_ops.snapshots
    set dismissed_at = now(), error = format('Dismissed by %s. %s', session_user, error)
    where snapshot_id = p_snapshot_id and dismissed_at is null;
    return format('Health no longer speaks of snapshot %s.', p_snapshot_id);
  end if;
  raise exception 'Snapshot % is %: only one that is held or has failed is dismissed.', p_snapshot_id, v_snapshot.status;
exception when lock_not_available then
  perform tickets_ops.raise_blocked();
  return null;
end
$$;
comment on function tickets_ops.dismiss_snapshot(bigint) is 'Drops a snapshot that is held, which becomes failed, or takes a failed one out of health: select tickets_ops.dismiss_snapshot(42). Its file stays where it is. Raises for any other, and when others hold its row for ten seconds.';
--! EndIncluded held.sql

do $$
declare
  v_table text;
begin
  foreach v_table in array array['inc', 'crq'] loop
    execute format('create trigger _600_unrecorded after insert on tickets.%I referencing new table as written
      for each statement execute function tickets_ops.note_unrecorded()', v_table);
  end loop;
end
$$;

create trigger _100_transition before insert or update of status on tickets_ops.snapshots
  for each row execute function tickets_ops.check_transition();

--! split: 100-read-side.sql
-- What dashboards and people read: the open tickets with their SLA, the backlog over time, the map, its places and tiles.

create table tickets.sla_rules (
  region text check (region = btrim(region) and region <> ''),
  hours numeric not null check (hours > 0 and hours <= 8760), -- NaN is greater than any number
  at_risk_hours numeric not null check (at_risk_hours > 0 and at_risk_hours <= hours)
);
create unique index sla_rules_one_per_region on tickets.sla_rules (lower(region)) nulls not distinct;
-- Where somebody publishes all tables, a rule can be changed all the same.
alter table tickets.sla_rules replica identity full;
comment on table tickets.sla_rules is 'What the contract promises, as data: a rule for a region, and the default for all others. Changing one is an UPDATE, and counts from the next query on: update tickets.sla_rules set hours = 24, at_risk_hours = 20 where region is null.';
comment on column tickets.sla_rules.region is 'The region as tickets.inc.region has it, in any case. NULL: the default, which cannot be deleted.';
comment on column tickets.sla_rules.hours is 'Hours after which an open ticket is breached.';
comment on column tickets.sla_rules.at_risk_hours is 'Hours after which it is at risk.';
insert into tickets.sla_rules (region, hours, at_risk_hours) values (null, 48, 40);
-- The view below reads it in the name of whoever reads the view.
grant select on tickets.sla_rules to public;

--! Included sla.sql
-- The SLA: what tickets.sla_rules promises, an open ticket against it, and the open tickets with theirs.

create or replace function tickets.require_default_rule() returns trigger language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
  if not exists (select from tickets.sla_rules where region is null) then
    raise exception 'tickets.sla_rules needs its default: the rule without a region.'
      using hint = 'Change it instead: update tickets.sla_rules set hours = 48, at_risk_hours = 40 where region is null;';
  end if;
  return null;
end
$$;
comment on function tickets.require_default_rule() is 'Trigger after taking rules away: without the default, tickets of regions without a rule of their own would be on no list.';

-- One SELECT, so wherever it stands in a FROM it is inlined; as is the one below.
create or replace function tickets.open_clock(
  p_created_at_service timestamptz, p_first_seen_at timestamptz, p_at timestamptz default now()
)
returns table (clock_start timestamptz, clock_source text, hours_open numeric)
language sql stable parallel safe
begin atomic
  select
    start,
    case
      when p_created_at_service is not null then 'created_at_service'
      when p_first_seen_at is not null then 'first_seen_at'
    end,
    -- Cut, not rounded: 47.999 h must not be shown as 48.00 beside `ok`.
    trunc(extract(epoch from p_at - start) / 3600, 2)
  from (select coalesce(p_created_at_service, p_first_seen_at) as start) as clock;
end;
comment on function tickets.open_clock(timestamptz, timestamptz, timestamptz) is 'How long a ticket has been open as of p_at, one row: when its clock started (created_at_service, else first_seen_at), which of the two that is, and hours since then, cut to two decimals. NULLs where neither is known.';

-- The rule is looked up once for each region, not for each ticket:
-- Postgres remembers it (Memoize; measured for 20 000 tickets: 35 ms, with 48 h as a constant 28 ms, without Memoize 120 ms).
-- Bound when it is made: callers who may read the view below need no right to look a name up here.
create or replace function tickets.sla(
  p_region text, p_created_at_service timestamptz, p_first_seen_at timestamptz, p_at timestamptz default now()
)
returns table (sla_clock_start timestamptz, sla_clock_source text, hours_open numeric, sla_state text, at_risk boolean)
language sql stable parallel safe
begin atomic
  select
    clock.clock_start,
    clock.clock_source,
    clock.hours_open,
    case
      when clock.clock_start is null then 'unknown'
      when clock.clock_start <= rule.breached_from then 'breached'
      else 'ok'
    end,
    coalesce(clock.clock_start <= rule.at_risk_from and clock.clock_start > rule.breached_from, false)
  from tickets.open_clock(p_created_at_service, p_first_seen_at, p_at) as clock
  cross join lateral (
    select p_at - r.hours * interval '1 hour' as breached_from, p_at - r.at_risk_hours * interval '1 hour' as at_risk_from
    from tickets.sla_rules r
    where lower(r.region) = lower(p_region) or r.region is null
    order by r.region -- the region's own before the default: NULL comes last
    limit 1
  ) as rule;
end;
comment on function tickets.sla(text, timestamptz, timestamptz, timestamptz) is 'The SLA of an open ticket as of p_at by the rule of its region (tickets.sla_rules), one row: the clock (created_at_service, else first_seen_at) and which it is, hours since then (cut to two decimals), breached from the rule''s hours on, ok before, unknown without a clock, and at risk from its at_risk_hours on until breached. The columns of tickets.inc_open_sla.';

-- A bare `where is_actionable`: `is_actionable is true` would not match the partial indexes inc_open_geog and inc_open.
-- Views read with their owner's rights, so whoever may select from this one needs nothing on tickets.inc; and no
-- security_barrier, which would keep `order by geog <-> point` from the index.
create or replace view tickets.inc_open_sla as
select
  t.ticket_id,
  t.normalized_status,
  sla.sla_clock_start,
  sla.sla_clock_source,
  sla.hours_open,
  sla.sla_state,
  sla.at_risk,
  t.assigned_team,
  t.cluster,
  t.region,
  t.owner,
  t.location_name,
  t.geo_source,
  t.geom,
  t.geog
from tickets.inc t
cross join lateral tickets.sla(t.region, t.created_at_service, t.first_seen_at) as sla
where t.is_actionable;
comment on view tickets.inc_open_sla is 'Open (actionable) tickets with their SLA by tickets.sla_rules, as of now(). For open tickets use sla_state here, not the feed''s sla_status. Nearest ones: order by geog <-> point limit n (index inc_open_geog).';
comment on column tickets.inc_open_sla.ticket_id is 'The ticket''s number, like WOT0715527.';
comment on column tickets.inc_open_sla.normalized_status is 'The canonical status: filter on this one.';
comment on column tickets.inc_open_sla.sla_clock_start is 'When the clock started: created_at_service, or where the feed lacks it (most open tickets) first_seen_at, which is when the export first saw the ticket and so up to days late.';
comment on column tickets.inc_open_sla.sla_clock_source is 'Which of the two sla_clock_start is: created_at_service or first_seen_at. NULL: neither is known.';
comment on column tickets.inc_open_sla.hours_open is 'Hours since sla_clock_start, cut to two decimals; negative when the feed''s time lies in the future. NULL: no clock.';
comment on column tickets.inc_open_sla.sla_state is 'breached: open for as long as the rule of its region in tickets.sla_rules says (48 h by default), or longer. ok: less. unknown: no clock.';
comment on column tickets.inc_open_sla.at_risk is 'Open for the at_risk_hours of its rule (40 by default) or longer, and not breached yet. false where the clock is unknown.';
comment on column tickets.inc_open_sla.assigned_team is 'Team the ticket is assigned to.';
comment on column tickets.inc_open_sla.cluster is 'Network cluster.';
comment on column tickets.inc_open_sla.region is 'Region, lower case.';
comment on column tickets.inc_open_sla.owner is 'Owner of the ticket.';
comment on column tickets.inc_open_sla.location_name is 'The place as field staff typed it.';
comment on column tickets.inc_open_sla.geo_source is 'Precision of geom: feed, location, cluster (a centroid, no address) or none.';
comment on column tickets.inc_open_sla.geom is 'Place, for display; NULL where none is known.';
comment on column tickets.inc_open_sla.geog is 'geom as geography: distances in metres.';
--! EndIncluded sla.sql
--! Included filters.sql
-- The filters that the map functions share.

-- Inlined: with NULL for what is not asked for, nothing is left of it.
create or replace function tickets.is_of(
  cluster text, region text, team text, p_cluster text, p_region text, p_team text
)
returns boolean language sql immutable parallel safe
return (p_cluster is null or tickets.cluster_key(cluster) = tickets.cluster_key(p_cluster))
  and (p_region is null or lower(btrim(region)) = lower(btrim(p_region)))
  and (p_team is null or lower(btrim(team)) = lower(btrim(p_team)));
comment on function tickets.is_of(text, text, text, text, text, text) is 'Whether a ticket with that cluster, region and team is of the cluster, region and team that are asked for, each in any case and whatever blanks are around it; NULL asks for any.';

-- Inlined wherever it stands in a FROM: with a constant for p_open the open tickets are read through the index inc_open. A
-- caller that wants none of them says NULL; and adds no condition then, because Postgres leaves a scan out only where FALSE is
-- all that is left of its conditions (else it starts parallel workers for nothing: 16 ms).
create or replace function tickets.filtered_tickets(
  p_open boolean, p_mapped boolean, p_cluster text, p_region text, p_team text
)
returns setof tickets.inc language sql stable parallel safe
as $$
  select t.*
  from tickets.inc t
  where case p_open when true then t.is_actionable when false then t.is_actionable is not true else false end
    and (not p_mapped or t.longitude is not null)
    and tickets.is_of(t.cluster, t.region, t.assigned_team, p_cluster, p_region, p_team)
$$;
comment on function tickets.filtered_tickets(boolean, boolean, text, text, text) is 'The tickets that a map function is asked for: the open ones (p_open true), all others (false) or none (NULL); p_mapped: only those with a place; of exactly that cluster, region and assigned_team, each in any case and whatever blanks are around it, where NULL means all.';
--! EndIncluded filters.sql
--! Included crq.sql
-- CRQ, requests for new installations: the open ones, and their features on the map. No SLA is known for them, so there is a clock and no state.

-- A bare `where is_actionable`, as in tickets.inc_open_sla, for the partial indexes crq_open_geog and crq_open_ids.
create or replace view tickets.crq_open as
select
  t.ticket_id,
  t.normalized_status,
  clock.clock_start,
  clock.clock_source,
  clock.hours_open,
  t.assigned_team,
  t.cluster,
  t.region,
  t.owner,
  t.location_name,
  t.geo_source,
  t.geom,
  t.geog
from tickets.crq t
cross join lateral tickets.open_clock(t.created_at_service, t.first_seen_at) as clock
where t.is_actionable;
comment on view tickets.crq_open is 'Open (actionable) requests for new installations with their clock, as of now(). There is no SLA: no contract is known. Nearest ones: order by geog <-> point limit n (index crq_open_geog). Loaded where CRQ_ENABLED=true; where that was turned off, as they were last.';
comment on column tickets.crq_open.ticket_id is 'The request''s number.';
comment on column tickets.crq_open.normalized_status is 'The canonical status: filter on this one.';
comment on column tickets.crq_open.clock_start is 'When the clock started: created_at_service, or where the feed lacks it first_seen_at, which is when the export first saw the request and so up to days late.';
comment on column tickets.crq_open.clock_source is 'Which of the two clock_start is: created_at_service or first_seen_at. NULL: neither is known.';
comment on column tickets.crq_open.hours_open is 'Hours since clock_start, cut to two decimals; negative when the feed''s time lies in the future. NULL: no clock.';
comment on column tickets.crq_open.assigned_team is 'Team the request is assigned to.';
comment on column tickets.crq_open.cluster is 'Network cluster.';
comment on column tickets.crq_open.region is 'Region, lower case.';
comment on column tickets.crq_open.owner is 'Owner of the request.';
comment on column tickets.crq_open.location_name is 'The place as field staff typed it.';
comment on column tickets.crq_open.geo_source is 'Precision of geom: feed, location, cluster (a centroid, no address) or none.';
comment on column tickets.crq_open.geom is 'Place, for display; NULL where none is known.';
comment on column tickets.crq_open.geog is 'geom as geography: distances in metres.';

-- As tickets.filtered_tickets; not one function for both, since of a union Postgres has no statistics, and the map is slower by a sixth.
create or replace function tickets.filtered_crq(
  p_open boolean, p_mapped boolean, p_cluster text, p_region text, p_team text
)
returns setof tickets.crq language sql stable parallel safe
as $$
  select t.*
  from tickets.crq t
  where case p_open when true then t.is_actionable when false then t.is_actionable is not true else false end
    and (not p_mapped or t.longitude is not null)
    and tickets.is_of(t.cluster, t.region, t.assigned_team, p_cluster, p_region, p_team)
$$;
comment on function tickets.filtered_crq(boolean, boolean, text, text, text) is 'As tickets.filtered_tickets, of tickets.crq.';

create or replace function tickets.crq_features(p_open boolean, p_cluster text, p_region text, p_team text)
returns table (feature record, bytes_of_text integer, closed_at timestamptz)
language sql stable parallel safe
as $$
  select
    feature,
    octet_length(concat(
      t.ticket_id, t.normalized_status, t.raw_status, t.bucket, t.cluster, t.region, t.location_name, t.location_key,
      t.assigned_team, t.owner, t.sla_status
    )),
    t.closed_at
  from tickets.filtered_crq(p_open, true, p_cluster, p_region, p_team) t
  cross join lateral tickets.open_clock(t.created_at_service, t.first_seen_at) as clock
  cross join lateral (
    select
      t.ticket_id, t.geo_source, t.ingested_at, t.normalized_status, t.raw_status, t.bucket, t.is_actionable, t.cluster,
      t.region, t.location_name, t.location_key, t.assigned_team, t.owner, t.sla_status, t.mttr, t.created_at_service,
      t.scheduled_at, t.closed_at, t.first_seen_at, t.last_seen_at, t.source_created_at, t.source_updated_at, t.latitude,
      t.longitude
  ) as of_all
  cross join lateral (select of_all.*, clock.*) as of_open
  cross join lateral (select case when p_open then of_open else of_all end as properties) as p
  cross join lateral (select 'Point' as type, array[t.longitude, t.latitude] as coordinates) as geometry
  cross join lateral (select 'Feature' as type, t.ticket_id as id, geometry, p.properties) as feature
$$;
comment on function tickets.crq_features(boolean, text, text, text) is 'The GeoJSON features of the open or the other requests that have a place, as tickets.map_features, with a clock and no SLA.';
--! EndIncluded crq.sql
--! Included backlog.sql
-- The open backlog over time.

-- The order of a ticket's events (index inc_events_ticket) tells what a single one does not: a `closed` that is its first
-- never was in the backlog, and what a baseline found open, the next event closes or nothing has closed since.
create or replace view tickets.inc_backlog as
with changes as (
  select
    coalesce(e.snapshot_at, e.recorded_at) as snapshot_at,
    e.event,
    e.snapshot_id is not distinct from 0 as is_imported,
    case e.event
      when 'closed' then case when lag(e.event) over history is null then 0 else -1 end
      when 'baseline' then
        case lead(e.event) over history
          when 'closed' then 1
          when 'reopened' then 0
          else (select coalesce(t.is_actionable, false)::integer from tickets.inc t where t.ticket_id = e.ticket_id)
        end
      else 1
    end as change
  from tickets.inc_events e
  where e.event in ('baseline', 'opened', 'closed', 'reopened')
  window history as (partition by e.ticket_id order by e.event_id)
)
select
  snapshot_at,
  count(*) filter (where event = 'opened') as opened,
  count(*) filter (where event = 'reopened') as reopened,
  count(*) filter (where change < 0) as closed,
  sum(sum(change)) over (order by snapshot_at)::bigint as open_tickets
from changes
group by snapshot_at
-- A takeover may have imported closings of before the baseline: they tell nothing of what else was open then.
having not bool_and(is_imported);
comment on view tickets.inc_backlog is 'Open backlog over time, one row per snapshot that opened, reopened or closed a ticket. It reads the whole history (measured: 2 s for 500 000 events). Per day (EAT): select distinct on (1) (snapshot_at at time zone ''Africa/Nairobi'')::date, open_tickets from tickets.inc_backlog order by 1, snapshot_at desc.';
comment on column tickets.inc_backlog.snapshot_at is 'The export''s own time of the snapshot; for a baseline, when history began.';
comment on column tickets.inc_backlog.opened is 'Tickets first seen open.';
comment on column tickets.inc_backlog.reopened is 'Tickets opened again.';
comment on column tickets.inc_backlog.closed is 'Tickets that were open and no longer are. Those first seen closed are not counted: closures per day are in tickets.inc.closed_at.';
comment on column tickets.inc_backlog.open_tickets is 'Open tickets once the snapshot was in.';
--! EndIncluded backlog.sql
--! Included freshness.sql
-- How fresh the tickets are: what the functions of the schema reporting say of it. Security definer, because a reader may know why
-- the feed does not count as alive, and not look into tickets_ops. The words of `problem` are in feed.sql.

create or replace function tickets.freshness(p_dataset text default 'inc')
returns table (
  snapshot_at timestamptz, ingested_at timestamptz, checked_at timestamptz, age_minutes numeric, content_through timestamptz, source_key text,
  problem text
)
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  if p_dataset is null or p_dataset not in ('inc', 'crq') then
    raise exception 'There is no dataset %: inc or crq.', coalesce(p_dataset, 'NULL') using errcode = 'invalid_parameter_value';
  end if;
  return query
    select
      meta.snapshot_at, meta.ingested_at, meta.checked_at,
      floor(extract(epoch from now() - meta.snapshot_at) / 60),
      tickets_ops.content_through(p_dataset),
      meta.source_key,
      -- The age alone does not tell: most hours nothing changes, and at night nobody looks.
      (select f.problem from tickets_ops.feed_problems(p_dataset) f where f.severity = 'fault' limit 1)
    from (select) as one
    left join lateral (
      select
        tickets.eat_ts(m.metadata ->> 'snapshot_at') as snapshot_at,
        tickets.eat_ts(m.metadata ->> 'ingested_at') as ingested_at,
        tickets.eat_ts(m.metadata ->> 'checked_at') as checked_at,
        m.metadata ->> 'source_key' as source_key
      from tickets.import_meta m
      where m.dataset = p_dataset
    ) as meta on true;
end
$$;
comment on function tickets.freshness(text) is 'Freshness of the tickets of a dataset (inc, crq), one row: snapshot_at (the export''s time), ingested_at (when its rows came in), checked_at (when the bucket was last looked at), age_minutes (since snapshot_at), content_through (newest created_at_service or closed_at of all tickets that is not in the future: the content trails the files by days), source_key, and problem: why the feed does not count as alive, in words (tickets_ops.feed_problems), NULL while it does. NULLs before the first load. Raises for another dataset.';
--! EndIncluded freshness.sql
--! Included map.sql
-- The map: what dashboard_api serves.

-- A feature's properties, once for all map functions. Inlined wherever it stands in a FROM; with a constant for p_open one of
-- the two lists of properties is left.
create or replace function tickets.map_features(p_open boolean, p_cluster text, p_region text, p_team text)
returns table (feature record, bytes_of_text integer, closed_at timestamptz, normalized_status text)
language sql stable parallel safe
as $$
  select
    feature,
    octet_length(concat(
      t.ticket_id, t.normalized_status, t.raw_status, t.bucket, t.cluster, t.region, t.location_name, t.location_key,
      t.assigned_team, t.owner, t.sla_status
    )),
    t.closed_at,
    t.normalized_status
  from tickets.filtered_tickets(p_open, true, p_cluster, p_region, p_team) t
  cross join lateral tickets.sla(t.region, t.created_at_service, t.first_seen_at) as sla
  cross join lateral (
    select
      t.ticket_id, t.geo_source, t.ingested_at, t.normalized_status, t.raw_status, t.bucket, t.is_actionable, t.cluster,
      t.region, t.location_name, t.location_key, t.assigned_team, t.owner, t.sla_status, t.mttr, t.created_at_service,
      t.scheduled_at, t.closed_at, t.first_seen_at, t.last_seen_at, t.source_created_at, t.source_updated_at, t.latitude,
      t.longitude
  ) as of_all
  cross join lateral (select of_all.*, sla.*) as of_open
  cross join lateral (select case when p_open then of_open else of_all end as properties) as p
  cross join lateral (select 'Point' as type, array[t.longitude, t.latitude] as coordinates) as geometry
  cross join lateral (select 'Feature' as type, t.ticket_id as id, geometry, p.properties) as feature
$$;
comment on function tickets.map_features(boolean, text, text, text) is 'The GeoJSON features of the open or the other tickets that have a place, as records, with the bytes of their texts, closed_at and normalized_status. Arguments as of tickets.filtered_tickets.';

-- Inlined, too. Records all the way: the map functions turn them into one jsonb or json at the end, which takes a third less
-- than jsonb_agg(jsonb_build_object(…)), which takes every feature apart again.
-- Open tickets (index inc_open) and all others are two branches everywhere: `is_actionable or not p_open_only` would read the
-- whole table for the open ones.
create or replace function tickets.map_collection(
  p_open_only boolean, p_cluster text, p_region text, p_team text, p_dataset text default 'inc'
)
returns table (type text, features record[], summary jsonb)
language sql stable parallel safe
as $$
  -- Of a dataset that is not asked for NULL leaves nothing.
  with listed as (
    select feature, bytes_of_text from tickets.map_features(case p_dataset when 'inc' then true end, p_cluster, p_region, p_team)
    union all
    select feature, bytes_of_text from tickets.crq_features(case p_dataset when 'crq' then true end, p_cluster, p_region, p_team)
    union all
    (
      select feature, bytes_of_text
      from tickets.map_features(case when p_dataset = 'inc' and not p_open_only then false end, p_cluster, p_region, p_team)
      order by closed_at desc -- index inc_closed_at, backwards
      limit 100000
    )
    union all
    (
      select feature, bytes_of_text
      from tickets.crq_features(case when p_dataset = 'crq' and not p_open_only then false end, p_cluster, p_region, p_team)
      order by closed_at desc -- index crq_closed_at, backwards
      limit 100000
    )
  ),
  counts as (
    select normalized_status, cluster, region, sla_state, geo_source, count(*) as tickets, count(longitude) as mapped
    from (
      select t.normalized_status, t.cluster, t.region, sla.sla_state, t.geo_source, t.longitude
      from tickets.filtered_tickets(case p_dataset when 'inc' then true end, false, p_cluster, p_region, p_team) t
      cross join lateral tickets.sla(t.region, t.created_at_service, t.first_seen_at) as sla
      union all
      select t.normalized_status, t.cluster, t.region, null, t.geo_source, t.longitude
      from tickets.filtered_tickets(case when p_dataset = 'inc' and not p_open_only then false end, false, p_cluster, p_region, p_team) t
      union all
      select t.normalized_status, t.cluster, t.region, null, t.geo_source, t.longitude
      from tickets.filtered_crq(case p_dataset when 'crq' then true end, false, p_cluster, p_region, p_team) t
      union all
      select t.normalized_status, t.cluster, t.region, null, t.geo_source, t.longitude
      from tickets.filtered_crq(case when p_dataset = 'crq' and not p_open_only then false end, false, p_cluster, p_region, p_team) t
    ) as t
    group by normalized_status, cluster, region, sla_state, geo_source
  ),
  spellings as (
    -- However it is spelled a cluster counts once, as p_cluster finds it.
    select chosen.cluster_key, chosen.spelling
    from (
      select array_agg(cluster) as clusters, array_agg(tickets) as tickets
      from (select cluster, sum(tickets)::bigint as tickets from counts group by cluster) as c
    ) as seen
    cross join lateral tickets.chosen_spellings(seen.clusters, seen.tickets) as chosen
  ),
  totals as (
    select coalesce(sum(tickets), 0) as total, coalesce(sum(mapped), 0) as mapped from counts
  ),
  features as (
    select coalesce(array_agg(feature), '{}') as list, count(*) as listed
    from (select * from listed limit 100000) as f
    -- jsonb holds no array over 268 435 455 bytes. A feature takes its texts, and less than 1 200 bytes for all the rest; so
    -- with its fair share for each, they fit. No real ticket comes near it: at least 1 300 bytes, with 20 000 tickets 11 300.
    where bytes_of_text <= (select 250000000 / greatest(least(mapped, 100000), 1) - 1200 from totals)
  ),
  dimensions as (
    select jsonb_object_agg(dimension, tickets) as counted
    from (
      select dimension, jsonb_object_agg(coalesce(value, '(none)'), tickets) as tickets
      from (
        select dimension, value, sum(c.tickets) as tickets
        from counts c
        left join spellings s on s.cluster_key = tickets.cluster_key(c.cluster)
        cross join lateral (values
          ('by_status', c.normalized_status), ('by_cluster', s.spelling), ('by_region', c.region),
          ('by_sla_state', c.sla_state), ('by_geo_source', c.geo_source)
        ) as d (dimension, value)
        -- Closed tickets have no state against the SLA, and those of CRQ none at all.
        where dimension <> 'by_sla_state' or value is not null
        group by dimension, value
      ) as d
      group by dimension
    ) as d
  ),
  freshness as (
    select * from tickets.freshness(p_dataset)
  )
  select
    'FeatureCollection',
    f.list,
    jsonb_build_object(
      'total', t.total, 'mapped', t.mapped, 'unmapped', t.total - t.mapped,
      'truncated', f.listed < t.mapped,
      'by_status', '{}'::jsonb, 'by_cluster', '{}'::jsonb, 'by_region', '{}'::jsonb, 'by_geo_source', '{}'::jsonb,
      'freshness', freshness
    ) || case p_dataset when 'inc' then '{"by_sla_state": {}}'::jsonb else '{}' end || coalesce(d.counted, '{}')
  from features f, totals t, dimensions d, freshness
$$;
comment on function tickets.map_collection(boolean, text, text, text, text) is 'The document of reporting.fn_tickets_for_map(), reporting.fn_tickets_for_map_json() and reporting.fn_crq_for_map(), with their arguments, as one row; p_dataset: inc or crq. Reads as its caller.';

-- Its callers need not be able to read the tables: whoever may call it sees the map with the rights of its owner. So PUBLIC
-- may not call it, and its names are looked up where no caller can put anything.
-- Planned anew in each call, with its arguments as constants: a filter that is not asked for vanishes, and the branch of the
-- closed tickets with it. No JIT: compiling takes longer than what it would speed up.
create or replace function reporting.fn_tickets_for_map(
  p_open_only boolean default true,
  p_cluster text default null,
  p_region text default null,
  p_team text default null
)
returns jsonb language plpgsql stable parallel safe security definer
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_custom_plan
set jit = off
as $$
begin
  return (select to_jsonb(collection) from tickets.map_collection(p_open_only, p_cluster, p_region, p_team) as collection);
end
$$;
comment on function reporting.fn_tickets_for_map(boolean, text, text, text) is
'The tickets map: a GeoJSON FeatureCollection (RFC 7946) with a foreign member `summary`. What dashboard_api serves.

Arguments: p_open_only (default true; false adds the closed tickets); p_cluster, p_region, p_team: only tickets with exactly that cluster, region, assigned_team, in any case; NULL, the default, means all.

features: the tickets with a place. id: ticket_id. properties: the columns of tickets.inc under their own names, without raw, geom and geog; on open tickets also sla_clock_start, sla_clock_source, hours_open, sla_state and at_risk as in tickets.inc_open_sla. Times are ISO 8601 with the session''s offset. geo_source says how exact a place is.

summary: total, mapped and unmapped tickets; by_status (normalized_status), by_cluster, by_region, by_geo_source: tickets per value, unmapped ones included, "(none)" where there is no value (a cluster once, however the feed spells it: as in tickets.geo_clusters, else as most of these tickets do; a feature has the feed''s own spelling); by_sla_state: open tickets only; truncated: true where not every mapped ticket is among the features; freshness: snapshot_at (the export''s time), ingested_at (when its rows came in), checked_at (when the bucket was last looked at), age_minutes (since snapshot_at), content_through (newest created_at_service or closed_at of all tickets that is not in the future: the content trails the files by days), source_key. Filters do not concern freshness.

Limit: jsonb holds no array over 256 MB. At most the 100 000 most recently closed tickets are among the features (those without closed_at first), and none whose texts are very long (over 1 300 bytes among 100 000 features, 11 300 among 20 000); the summary counts them all. For the others ask by cluster, region or team.

Rights: runs as its owner, so EXECUTE is all that a caller needs (and USAGE on schema reporting). Errors: none of its own. Read-only, also on a streaming replica.';

-- The same as text, for those who pass its bytes on: no jsonb is built, nor written out again.
create or replace function reporting.fn_tickets_for_map_json(
  p_open_only boolean default true,
  p_cluster text default null,
  p_region text default null,
  p_team text default null
)
returns json language plpgsql stable parallel safe security definer
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_custom_plan
set jit = off
as $$
begin
  return (select to_json(collection) from tickets.map_collection(p_open_only, p_cluster, p_region, p_team) as collection);
end
$$;
comment on function reporting.fn_tickets_for_map_json(boolean, text, text, text) is
'The document of reporting.fn_tickets_for_map(), with its arguments, limits, rights and errors, as json: for callers that pass the text on without looking into it. Measured at 20 000 features: half of the time until the text is there. Read-only, also on a streaming replica.';
--! EndIncluded map.sql
--! Included places.sql
-- Places: the tickets of a map counted by coordinate. Half a million tickets lie on a few thousand coordinates, so the counts say
-- what stacked points cannot, in a thirtieth of the bytes.

-- Bodies that are SQL, not text, are bound when they are made: so what follows finds PostGIS under a search_path without it.
create or replace function tickets.geohash(p_longitude double precision, p_latitude double precision) returns text
language sql immutable parallel safe
return st_geohash(st_setsrid(st_makepoint(p_longitude, p_latitude), 4326));
comment on function tickets.geohash(double precision, double precision) is 'The geohash of a WGS 84 coordinate in full length (20 characters, well below a millimetre).';

create or replace function tickets.may_lie_in(p_place geography, p_box geography) returns boolean
language sql immutable parallel safe
return p_place && p_box;
comment on function tickets.may_lie_in(geography, geography) is 'Whether a place lies in the box around another geography: what the GiST indexes on geog answer.';

create or replace function tickets.lies_between(p_longitude double precision, p_latitude double precision, p_box geography) returns boolean
language sql immutable parallel safe
return p_longitude between st_xmin(p_box::geometry) and st_xmax(p_box::geometry)
  and p_latitude between st_ymin(p_box::geometry) and st_ymax(p_box::geometry);
comment on function tickets.lies_between(double precision, double precision, geography) is 'Whether a coordinate lies between the corners of a box, its edges included: what an index on longitude answers.';

create or replace function tickets.bytes_of_names(ticket_id text, cluster text, region text, location_key text, location_name text) returns integer
language sql immutable parallel safe
return octet_length(ticket_id) + coalesce(octet_length(cluster), 0) + coalesce(octet_length(region), 0)
  + coalesce(octet_length(location_key), 0) + coalesce(octet_length(location_name), 0);
comment on function tickets.bytes_of_names(text, text, text, text, text) is 'Bytes of the texts by which tickets.places() counts a ticket. A B-tree refuses an entry of 2 704 bytes, so those of more than 2 000 are in another index.';

-- Postgres's own array_agg runs in parallel from version 16 on only; for half a million tickets that is a third of the time.
create or replace aggregate tickets.collect(anycompatible) (
  sfunc = array_append, stype = anycompatiblearray, combinefunc = array_cat, parallel = safe
);
comment on aggregate tickets.collect(anycompatible) is 'array_agg without an order, for parallel plans.';

create or replace aggregate tickets.concat(anycompatiblearray) (
  sfunc = array_cat, stype = anycompatiblearray, combinefunc = array_cat, parallel = safe
);
comment on aggregate tickets.concat(anycompatiblearray) is 'One array of all elements of several, which may differ in length.';

-- Counted by coordinate and cluster first: a coordinate has few clusters, and the key of each, which makes its spellings one, then
-- need not be worked out for every ticket (a third of the time). Open tickets are read from an index: they lie all over the
-- table, and to go there for each takes half of the time.
-- Over 100 lines, because it is one statement: only so are filters that are not asked for, and the tickets that p_state leaves out, gone
-- before anything is read, and the rest read in parallel.
-- Planned anew in each call, with its arguments as constants. No JIT: compiling takes longer than what it would speed up. With
-- memory for the closed tickets' repair times, which would go through files with the default 4 MB.
create or replace function tickets.places(
  p_state text, p_from timestamptz, p_to timestamptz, p_cluster text, p_region text, p_team text, p_box geography,
  p_listed integer
)
returns table (
  id text, longitude double precision, latitude double precision, cluster text, location_key text, location_name text,
  geo_source text, tickets bigint, open bigint, breached bigint, at_risk bigint, oldest_hours numeric, closed bigint,
  mttr_median double precision, ticket_ids text[], more bigint
)
language plpgsql stable parallel safe
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_custom_plan
set jit = off
set work_mem = '32MB'
as $$
#variable_conflict use_column
begin
  if p_state is null or p_state not in ('open', 'closed', 'all') then
    raise exception 'p_state is %, not open, closed or all', coalesce(quote_literal(p_state), 'NULL')
      using errcode = 'invalid_parameter_value';
  end if;
  perform tickets.check_window(p_from, p_to);
  -- Where first and last name of a coordinate are equal, all its tickets have that name. Compared byte by byte: in the order of
  -- a language this would take longer than reading the tickets.
  return query
    with open_tickets as (
      select
        t.longitude, t.latitude, t.cluster, t.ticket_id, t.location_key, t.location_name, t.geo_source,
        sla.sla_clock_start, sla.sla_state, sla.at_risk
      from tickets.filtered_tickets(case when p_state <> 'closed' then true end, true, p_cluster, p_region, p_team) t
      cross join lateral tickets.sla(t.region, t.created_at_service, t.first_seen_at) as sla
      where p_state = 'closed' or (
        tickets.bytes_of_names(t.ticket_id, t.cluster, t.region, t.location_key, t.location_name) <= 2000
        and (p_box is null or tickets.lies_between(t.longitude, t.latitude, p_box)) -- index inc_open_places
      )
      union all
      select
        t.longitude, t.latitude, t.cluster, t.ticket_id, t.location_key, t.location_name, t.geo_source,
        sla.sla_clock_start, sla.sla_state, sla.at_risk
      from tickets.filtered_tickets(case when p_state <> 'closed' then true end, true, p_cluster, p_region, p_team) t
      cross join lateral tickets.sla(t.region, t.created_at_service, t.first_seen_at) as sla
      where p_state = 'closed' or (
        tickets.bytes_of_names(t.ticket_id, t.cluster, t.region, t.location_key, t.location_name) > 2000 -- index inc_open_long_names
        and (p_box is null or tickets.lies_between(t.longitude, t.latitude, p_box))
      )
    ),
    open_clusters as (
      select
        longitude, latitude, cluster,
        min(location_key collate "C") as first_key, max(location_key collate "C") as last_key,
        min(location_name collate "C") as location_name, min(geo_source collate "C") as geo_source,
        count(*) as open,
        count(*) filter (where sla_state = 'breached') as breached,
        count(*) filter (where at_risk) as at_risk,
        min(sla_clock_start) as oldest,
        array_agg(ticket_id) as ticket_ids, array_agg(sla_clock_start) as clocks
      from open_tickets
      group by longitude, latitude, cluster
    ),
    open_places as (
      select
        longitude, latitude,
        min(cluster collate "C") as cluster,
        min(tickets.cluster_key(cluster) collate "C") as first_cluster, max(tickets.cluster_key(cluster) collate "C") as last_cluster,
        min(first_key) as first_key, max(last_key) as last_key, min(location_name) as location_name, min(geo_source) as geo_source,
        sum(open)::bigint as open, sum(breached)::bigint as breached, sum(at_risk)::bigint as at_risk, min(oldest) as oldest,
        tickets.concat(ticket_ids) as ticket_ids, tickets.concat(clocks) as clocks
      from open_clusters
      group by longitude, latitude
    ),
    closed_tickets as not materialized (
      select *
      from tickets.filtered_tickets(case when p_state <> 'open' then false end, true, p_cluster, p_region, p_team)
      -- Nothing is left of it where no closed tickets are asked for: see filtered_tickets.
      where p_state = 'open' or (
        (p_from is null or closed_at >= p_from) and (p_to is null or closed_at < p_to) -- index inc_closed_at
        and (p_box is null or tickets.may_lie_in(geog, p_box)) -- index inc_geog
      )
    ),
    closed_clusters as (
      select
        longitude, latitude, cluster,
        min(location_key collate "C") as first_key, max(location_key collate "C") as last_key,
        min(location_name collate "C") as location_name, min(geo_source collate "C") as geo_source,
        count(*) as closed,
        -- Whole minutes; 1e9 are 1 900 years, and no number that somebody typed may make the map fail.
        tickets.collect(mttr::integer) filter (where mttr between -1e9 and 1e9) as mttrs,
        tickets.collect(ticket_id) filter (where closed_at is null) as undated_ids
      from closed_tickets
      group by longitude, latitude, cluster
    ),
    closed_places as (
      select
        longitude, latitude,
        min(cluster collate "C") as cluster,
        min(tickets.cluster_key(cluster) collate "C") as first_cluster, max(tickets.cluster_key(cluster) collate "C") as last_cluster,
        min(first_key) as first_key, max(last_key) as last_key, min(location_name) as location_name, min(geo_source) as geo_source,
        sum(closed)::bigint as closed, tickets.concat(mttrs) as mttrs, tickets.concat(undated_ids) as undated_ids
      from closed_clusters
      group by longitude, latitude
    ),
    last_closed as (
      select longitude, latitude, (array_agg(ticket_id order by closed_at desc, ticket_id collate "C"))[:20] as ticket_ids
      from (
        select longitude, latitude, ticket_id, closed_at
        from closed_tickets
        where p_state = 'open' or closed_at is not null -- index inc_closed_at, backwards, without the open tickets at its end
        order by closed_at desc
        limit p_listed
      ) as t
      group by longitude, latitude
    )
    select
      case
        when p.geo_source = 'location' and one_cluster and one_key then coalesce(g.cluster, p.cluster) || '/' || p.location_key
        else tickets.geohash(longitude, latitude)
      end,
      longitude, latitude,
      case when one_cluster then coalesce(g.cluster, p.cluster) end,
      case when one_key then p.location_key end,
      case when one_key then least(o.location_name, c.location_name) end,
      p.geo_source, p.tickets,
      coalesce(o.open, 0), coalesce(o.breached, 0), coalesce(o.at_risk, 0), oldest.hours_open,
      coalesce(c.closed, 0),
      case when c.closed > 0 then
        (select percentile_cont(0.5) within group (order by mttr) from (select unnest(c.mttrs) as mttr) as repaired)
      end,
      p.ticket_ids, p.tickets - cardinality(p.ticket_ids)
    from open_places o
    full join closed_places c using (longitude, latitude)
    left join last_closed l using (longitude, latitude)
    cross join lateral (
      select
        least(o.cluster, c.cluster) as cluster,
        least(o.first_cluster, c.first_cluster) as cluster_key,
        least(o.first_key, c.first_key) as location_key,
        least(o.geo_source, c.geo_source) as geo_source,
        coalesce(o.open, 0) + coalesce(c.closed, 0) as tickets,
        (
          -- Sorted only where there is a choice: an order everywhere takes as long as reading the tickets.
          case
            when o.open > 20 then array(
              select ticket_id from unnest(o.ticket_ids, o.clocks) as t (ticket_id, clock)
              order by clock, ticket_id collate "C" limit 20
            )
            else coalesce(o.ticket_ids, '{}')
          end
          || coalesce(l.ticket_ids, '{}') || coalesce(c.undated_ids, '{}')
        )[:20] as ticket_ids
      offset 0 -- made once, not wherever it is named
    ) as p
    left join tickets.geo_clusters g on tickets.cluster_key(g.cluster) = p.cluster_key
    cross join lateral tickets.sla(null, o.oldest, null) as oldest -- hours are worked out by place, not by ticket
    cross join lateral (
      select
        p.cluster_key = greatest(o.last_cluster, c.last_cluster) as one_cluster,
        p.location_key = greatest(o.last_key, c.last_key) as one_key
    ) as same;
end
$$;
comment on function tickets.places(text, timestamptz, timestamptz, text, text, text, geography, integer) is 'The places of reporting.fn_ticket_places(), a row each, with its arguments and errors; p_box: only those in the box around it (and maybe some near it), NULL means all; p_listed: how many of the last closed tickets are looked at for ticket_ids. Reads as its caller.';

create or replace function reporting.fn_ticket_places(
  p_state text default 'open',
  p_from timestamptz default null,
  p_to timestamptz default null,
  p_cluster text default null,
  p_region text default null,
  p_team text default null
)
returns json language sql stable parallel safe security definer
set search_path = pg_catalog, pg_temp
as $$
  select row_to_json(collection)
  from (
    select 'FeatureCollection' as type, coalesce(array_agg(feature order by p.open desc, p.tickets desc, p.id collate "C"), '{}') as features
    from tickets.places(p_state, p_from, p_to, p_cluster, p_region, p_team, null, 5000) p
    cross join lateral (select 'Point' as type, array[p.longitude, p.latitude] as coordinates) as geometry
    cross join lateral (
      select
        p.cluster, p.location_key, p.location_name, p.geo_source, p.tickets, p.open, p.breached, p.at_risk, p.oldest_hours,
        p.closed, p.mttr_median, p.ticket_ids, p.more
    ) as properties
    cross join lateral (select 'Feature' as type, p.id, geometry, properties) as feature
  ) as collection
$$;
comment on function reporting.fn_ticket_places(text, timestamptz, timestamptz, text, text, text) is
'The tickets map by place: a GeoJSON FeatureCollection (RFC 7946) with one Point for each coordinate that tickets lie on, and counts instead of tickets. The places with most open tickets come first.

Arguments: p_state open (default), closed or all; p_from, p_to: only tickets closed in [p_from, p_to), NULL means no bound; open tickets are not concerned; p_cluster, p_region, p_team: only tickets with exactly that cluster, region, assigned_team, in any case, NULL means all.

Properties: cluster and location_key of its tickets, NULL where they differ (a centroid has the tickets of many places); location_name, one spelling of location_key; geo_source (cluster where one of the tickets is there for want of an address, else feed or location); tickets = open + closed; open, and of these breached and at_risk as in tickets.inc_open_sla; oldest_hours, the most hours_open; closed, and mttr_median of these in minutes; ticket_ids, at most 20: open ones before closed ones, and where there are more, those that are open longest, then those that were closed last; more, how many others there are. All of tickets with a place: they add up to `mapped` in the summary of fn_tickets_for_map().

id: the key of the place in tickets.geo_locations as `cluster/location_key` where all its tickets were placed by it, else the geohash of the coordinate. Only the 5 000 last closed tickets of the answer are listed in ticket_ids; all are counted.

Rights: runs as its owner, so EXECUTE is all that a caller needs (and USAGE on schema reporting). Errors: 22023 for another p_state and a p_from after p_to. Read-only, also on a streaming replica.';
--! EndIncluded places.sql

-- What counting the open tickets by coordinate takes, in the order of the coordinates: without going to the table, all over which
-- they lie (measured: 5 ms of 500 000 tickets, otherwise 40). Those whose names are too long for an entry are in the second.
create index inc_open_places on tickets.inc (longitude, latitude, cluster)
  include (ticket_id, region, location_key, location_name, geo_source, created_at_service, first_seen_at)
  where is_actionable and tickets.bytes_of_names(ticket_id, cluster, region, location_key, location_name) <= 2000;
create index inc_open_long_names on tickets.inc (ticket_id)
  where is_actionable and tickets.bytes_of_names(ticket_id, cluster, region, location_key, location_name) > 2000;
-- Without this, Postgres expects a third of the open tickets in the second one.
create statistics tickets.inc_bytes_of_names on (tickets.bytes_of_names(ticket_id, cluster, region, location_key, location_name)) from tickets.inc;
comment on statistics tickets.inc_bytes_of_names is 'That names are short, for the plan of tickets.places().';
--! Included tiles.sql
-- Places as vector tiles, with the signature that pg_tileserv and Martin publish by themselves.

-- A body that is SQL, not text, is bound when it is made: it finds PostGIS under a search_path without it.
create or replace function reporting.ticket_places_mvt(z integer, x integer, y integer, query json default '{}')
returns bytea language sql stable parallel safe security definer
set search_path = pg_catalog, pg_temp
begin atomic
  select coalesce(st_asmvt(tile, 'reporting.ticket_places_mvt', 4096, 'geom'), '')
  from (
    select
      st_asmvtgeom(st_transform(st_setsrid(st_makepoint(p.longitude, p.latitude), 4326), 3857), bounds, 4096, 64) as geom,
      p.id, p.cluster, p.location_key, p.location_name, p.geo_source, p.tickets, p.open, p.breached, p.at_risk,
      p.oldest_hours::double precision as oldest_hours, p.closed, p.mttr_median
    from (select st_tileenvelope(z, x, y) as bounds offset 0) as t -- evaluated once, places or not
    cross join lateral tickets.places(
      coalesce(nullif(query ->> 'state', ''), 'open'),
      nullif(query ->> 'from', '')::timestamptz,
      nullif(query ->> 'to', '')::timestamptz,
      nullif(query ->> 'cluster', ''),
      nullif(query ->> 'region', ''),
      nullif(query ->> 'team', ''),
      -- With the buffer, which is wider than what an arc between two corners of so small a tile leaves out. The sides of a
      -- larger one are no box on a sphere.
      case when z >= 6 then st_transform(st_tileenvelope(z, x, y, margin => 64 / 4096.0), 4326)::geography end,
      0
    ) as p
    where p.latitude between -85.06 and 85.06 -- beyond it the projection has no place
  ) as tile
  where geom is not null;
end;
comment on function reporting.ticket_places_mvt(integer, integer, integer, json) is
'The places of reporting.fn_ticket_places() as a Mapbox vector tile: one layer with the name of this function (reporting.ticket_places_mvt, as pg_tileserv announces it), extent 4096, with a buffer of 64, so a place near an edge is in the neighbour, too. Properties as there, without ticket_ids and more.

Arguments: z, x, y: the tile, XYZ numbering in Web Mercator. query: an object with any of state, from, to, cluster, region and team, as p_state, p_from, … there; other keys are ignored, an empty text is none.

Limit: below zoom 6 every ticket of the state is read, so a tile takes as long as fn_ticket_places() does: with closed tickets much longer than with open ones.

Rights: runs as its owner, so EXECUTE is all that a caller needs (and USAGE on schema reporting). Errors: 22023 for another state and a from after to, 22007 for a from or to that is no time, XX000 for a tile that does not exist. Read-only, also on a streaming replica.';
--! EndIncluded tiles.sql

-- Without this, Postgres takes longitude and latitude for independent of each other, expects twenty times the places that there
-- are, and sorts half a million tickets to count them.
create statistics tickets.inc_coordinates (ndistinct) on longitude, latitude from tickets.inc;
comment on statistics tickets.inc_coordinates is 'How many different coordinates tickets have: few thousand, for the plan of tickets.places().';

create table tickets.version_slots (
  slot bigint generated always as identity primary key,
  token bigint not null
);
comment on table tickets.version_slots is 'What reporting.fn_tickets_version() is made of: a row for each transaction that ever wrote tickets at the same time as others, so a handful. Not to be written by hand: deleting a row changes the version as well.';
comment on column tickets.version_slots.slot is 'Only tells the rows apart: a transaction takes one that no other holds.';
comment on column tickets.version_slots.token is 'Random; replaced by each transaction that takes the slot.';

--! Included version.sql
-- The version of what the map functions show: another one after each commit that wrote tickets, a gazetteer or the SLA rules
-- (the tables whose triggers in the migration call change_version).
--
-- It is made of the tokens in tickets.version_slots. A transaction that writes replaces the token of one slot by a random one, so
-- its commit, and nothing before it, shows another version to whoever reads: in whatever order transactions end, on a replica
-- too, and after a backup was restored, which a counter would not survive (it would count to the same numbers again).
-- A slot that another transaction holds is passed by, and where all are held one more is made: nobody waits for anybody.

create or replace function tickets.change_version() returns trigger
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
begin
  if tg_op <> 'TRUNCATE' then
    if not exists (select from written) then
      return null;
    end if;
  end if;
  -- Once in a transaction is enough. The setting goes with it, or with the savepoint that is rolled back together with the token.
  if current_setting('fleettickets.version_changed', true) = 'true' then
    return null;
  end if;
  perform set_config('fleettickets.version_changed', 'true', true);
  update tickets.version_slots
  set token = hashtextextended(gen_random_uuid()::text, 0)
  where slot = (select slot from tickets.version_slots limit 1 for update skip locked);
  if not found then
    insert into tickets.version_slots (token) values (hashtextextended(gen_random_uuid()::text, 0));
  end if;
  return null;
end
$$;
comment on function tickets.change_version() is 'Trigger after writing what the map functions show: another reporting.fn_tickets_version() with the commit. Not for a statement that wrote no row.';

create or replace function reporting.fn_tickets_version() returns text
language sql stable parallel safe security definer
set search_path = pg_catalog, pg_temp
as $$
  select coalesce(to_hex(bit_xor(token)), '0') from tickets.version_slots
$$;
comment on function reporting.fn_tickets_version() is
'The version of what the map functions show, up to 16 hexadecimal digits without an order: another one once a batch of a load, a change in a gazetteer or in tickets.sla_rules was committed, and only then (a load that found every ticket unchanged is none). Ages, SLA states and `freshness` also change with time: for an ETag add the minute.

Read it before the document, on the same server, or in the same statement: read after it, it may be the version of a newer document than the one at hand, which would then be kept for good.

Rights: runs as its owner, so EXECUTE is all that a caller needs (and USAGE on schema reporting). Errors: none of its own. Read-only, also on a streaming replica.';
--! EndIncluded version.sql

do $$
declare
  v_table text;
begin
  foreach v_table in array array['inc', 'crq', 'geo_clusters', 'geo_locations', 'sla_rules'] loop
    execute format('create trigger _900_version_by_insert after insert on tickets.%I referencing new table as written
      for each statement execute function tickets.change_version()', v_table);
    execute format('create trigger _900_version_by_update after update on tickets.%I referencing new table as written
      for each statement execute function tickets.change_version()', v_table);
    execute format('create trigger _900_version_by_delete after delete on tickets.%I referencing old table as written
      for each statement execute function tickets.change_version()', v_table);
    execute format('create trigger _900_version_by_truncate after truncate on tickets.%I
      for each statement execute function tickets.change_version()', v_table);
  end loop;
end
$$;

-- Who may call them, migrations/grants.sql says.
revoke execute on function
  reporting.fn_tickets_for_map(boolean, text, text, text),
  reporting.fn_tickets_for_map_json(boolean, text, text, text),
  reporting.fn_ticket_places(text, timestamptz, timestamptz, text, text, text),
  reporting.ticket_places_mvt(integer, integer, integer, json),
  reporting.fn_tickets_version()
  from public;

create trigger _100_default_stays after delete or update of region or truncate on tickets.sla_rules
  for each statement execute function tickets.require_default_rule();

--! split: 110-geocoding.sql
-- Geocoding: providers, their calls and answers.

create table tickets_ops.geocoding_providers (
  provider text primary key,
  rate_per_second numeric not null check (rate_per_second > 0),
  daily_budget integer check (daily_budget > 0),
  found_days numeric not null default 180 check (found_days > 0),
  next_at timestamptz not null default '-infinity',
  used_on date,
  used integer not null default 0,
  breaker text check (breaker in ('rate limited', 'quota spent', 'key refused', 'trouble', 'suspected')),
  breaker_reason text,
  breaker_since timestamptz,
  breaker_until timestamptz,
  probing_until timestamptz,
  consecutive_failures integer not null default 0,
  last_failed_place text,
  consecutive_nothing integer not null default 0,
  found_at timestamptz not null default now(),
  registered_at timestamptz not null default now(),
  constraint geocoding_providers_breaker_is_whole check (num_nulls(breaker, breaker_reason, breaker_since, breaker_until) in (0, 4))
);
comment on table tickets_ops.geocoding_providers is 'Geocoding providers that a worker was set up for: allowed rate, calls used, and the breaker. Shared by all workers. Holds no key.';
comment on column tickets_ops.geocoding_providers.provider is 'locationiq, opencage or nominatim.';
comment on column tickets_ops.geocoding_providers.rate_per_second is 'GEOCODER_RATE_PER_SECOND of the worker that registered last.';
comment on column tickets_ops.geocoding_providers.daily_budget is 'GEOCODER_DAILY_BUDGET: calls a UTC day. NULL: no limit.';
comment on column tickets_ops.geocoding_providers.found_days is 'GEOCODER_FOUND_DAYS: after so many days a found place may be asked again.';
comment on column tickets_ops.geocoding_providers.next_at is 'The next free slot for a call.';
comment on column tickets_ops.geocoding_providers.used_on is 'The UTC day that `used` counts.';
comment on column tickets_ops.geocoding_providers.used is 'Calls reserved on that day. One that was never made, because its worker died, counts too.';
comment on column tickets_ops.geocoding_providers.breaker is 'Why nobody calls at present; NULL: closed. Beyond breaker_until one caller at a time may probe.';
comment on column tickets_ops.geocoding_providers.breaker_reason is 'The provider''s answer in words, without the key.';
comment on column tickets_ops.geocoding_providers.breaker_since is 'When it opened.';
comment on column tickets_ops.geocoding_providers.breaker_until is 'When the next call may be tried.';
comment on column tickets_ops.geocoding_providers.probing_until is 'Somebody is finding out whether the provider works again; after this time the prober is taken for dead and another may try.';
comment on column tickets_ops.geocoding_providers.consecutive_failures is 'Failures in a row, of one place only the first.';
comment on column tickets_ops.geocoding_providers.last_failed_place is 'The place that failed last.';
comment on column tickets_ops.geocoding_providers.consecutive_nothing is 'Answers in a row that say the provider does not know the place.';
comment on column tickets_ops.geocoding_providers.found_at is 'When it last found anything, or was registered first: what it did not find since is in doubt while it is suspected.';
comment on column tickets_ops.geocoding_providers.registered_at is 'When a worker last registered this provider.';

create table tickets_ops.geocoding_calls (
  provider text not null,
  called_on date not null,
  outcome text not null check (
    outcome in ('found', 'not_found', 'rate_limited', 'quota_spent', 'key_refused', 'bad_request', 'trouble', 'unreadable')
  ),
  calls integer not null,
  primary key (provider, called_on, outcome)
);
comment on table tickets_ops.geocoding_calls is 'Answers of geocoding providers, counted by UTC day and outcome.';
comment on column tickets_ops.geocoding_calls.provider is 'The provider.';
comment on column tickets_ops.geocoding_calls.called_on is 'UTC day of the answer.';
comment on column tickets_ops.geocoding_calls.outcome is 'What the answer was taken for; see src/geocoding/outcome.ts.';
comment on column tickets_ops.geocoding_calls.calls is 'How many.';

create table tickets_ops.geocoding_setup (
  one boolean primary key default true check (one),
  provider text references tickets_ops.geocoding_providers,
  off_reason text,
  registered_at timestamptz not null default now(),
  constraint geocoding_setup_says_why_not check ((provider is null) = (off_reason is not null))
);
comment on table tickets_ops.geocoding_setup is 'One row: the provider that the workers ask, as the one that started last was told by its environment.';
comment on column tickets_ops.geocoding_setup.one is 'Makes it one row.';
comment on column tickets_ops.geocoding_setup.provider is 'The provider. NULL: nobody is asked.';
comment on column tickets_ops.geocoding_setup.off_reason is 'Why nobody is asked, and what to do.';
comment on column tickets_ops.geocoding_setup.registered_at is 'When a worker last registered a provider, or none.';

create table tickets_ops.geocoding_answers (
  cluster text not null,
  location_key text not null,
  query text not null,
  provider text not null,
  candidates jsonb not null,
  answered_at timestamptz not null default now(),
  primary key (cluster, location_key, query)
);
comment on table tickets_ops.geocoding_answers is 'Work in progress: answers to the queries of a place that is still being asked, so that a worker that dies costs one call and no more. Emptied when the place is resolved; those of yesterday or of another provider do not count, and maintain removes them.';
comment on column tickets_ops.geocoding_answers.cluster is 'The cluster.';
comment on column tickets_ops.geocoding_answers.location_key is 'The place; empty when the cluster itself is asked.';
comment on column tickets_ops.geocoding_answers.query is 'The text that was sent.';
comment on column tickets_ops.geocoding_answers.provider is 'Who answered.';
comment on column tickets_ops.geocoding_answers.candidates is 'What came back; [] when the provider does not know it.';
comment on column tickets_ops.geocoding_answers.answered_at is 'When.';

--! Included name-match.sql
-- Whether two names of places mean the same place: how a provider's label is compared with what was asked for.

create or replace function tickets_ops.name_words(p_name text) returns text[] language sql immutable parallel safe
return string_to_array(tickets.location_key(p_name), ' ');
comment on function tickets_ops.name_words(text) is 'The words of a name as tickets.location_key normalises it. NULL where nothing is left.';

-- Words that say what kind of thing a name names: they tell Rose Court from Rose Avenue, but do not name either.
create or replace function tickets_ops.kind_words() returns text[] language sql immutable parallel safe
return array[
  'academy', 'airport', 'airstrip', 'apartment', 'apartments', 'arcade', 'avenue', 'bakery', 'bank', 'bar', 'barracks', 'boulevard',
  'building', 'bungalows', 'butchery', 'bypass', 'cafe', 'camp', 'cathedral', 'cemetery', 'centre', 'chapel', 'chemist', 'church',
  'clinic', 'close', 'club', 'college', 'complex', 'condominiums', 'court', 'courts', 'crescent', 'dispensary', 'drive', 'embassy',
  'estate', 'factory', 'farm', 'flat', 'flats', 'garage', 'garden', 'gardens', 'grounds', 'grove', 'gym', 'hall', 'hardware', 'heights',
  'high', 'highway', 'homes', 'hospital', 'hostel', 'hostels', 'hotel', 'house', 'inn', 'institute', 'junction', 'kindergarten', 'lane',
  'library', 'lodge', 'lounge', 'maisonettes', 'mall', 'manor', 'mansions', 'market', 'mart', 'mews', 'mosque', 'museum', 'nursery',
  'office', 'offices', 'parade', 'parish', 'park', 'petrol', 'pharmacy', 'phase', 'place', 'plaza', 'police', 'polytechnic', 'post',
  'primary', 'residence', 'residences', 'residency', 'resort', 'restaurant', 'ridge', 'road', 'roundabout', 'school', 'secondary',
  'section', 'shop', 'shopping', 'shops', 'square', 'stadium', 'stage', 'station', 'store', 'stores', 'street', 'suites',
  'supermarket', 'temple', 'terminus', 'terrace', 'terraces', 'tower', 'towers', 'townhouses', 'university', 'view', 'villa', 'village',
  'villas', 'warehouse', 'way'
];
comment on function tickets_ops.kind_words() is 'Words that say what kind of place a name names (court, road, school), in the form that location_key gives them.';

-- plpgsql from here on: a SQL function is planned anew on each call, and these are called for each word of each candidate
-- (measured: 2.3 ms to compare two names; 0.2 ms so).
create or replace function tickets_ops.same_word(p_one text, p_other text) returns boolean
language plpgsql immutable parallel safe set search_path = pg_catalog, pg_temp as $$
declare
  v_long text := case when length(p_one) >= length(p_other) then p_one else p_other end;
  v_short text := case when length(p_one) >= length(p_other) then p_other else p_one end;
  v_same integer := 0;
begin
  if v_long = v_short then
    return true;
  end if;
  -- A number that differs in one digit is another number.
  if length(v_long) < 5 or length(v_long) - length(v_short) > 1 or v_long ~ '[0-9]' then
    return false;
  end if;
  -- All letters before the first difference are the same; behind the one letter that differs, all must be again.
  while substr(v_long, v_same + 1, 1) = substr(v_short, v_same + 1, 1) loop
    v_same := v_same + 1;
  end loop;
  return substr(v_long, v_same + 2) = substr(v_short, v_same + 1 + length(v_short) - length(v_long) + 1);
end
$$;
comment on function tickets_ops.same_word(text, text) is 'Whether two words are the same but for one letter left out, added or changed (words of five letters and more, without digits): tickets are typed in the field.';

create or replace function tickets_ops.has_word(p_words text[], p_word text) returns boolean
language plpgsql immutable parallel safe set search_path = pg_catalog, pg_temp as $$
declare
  v_word text;
begin
  if p_word = any (p_words) then
    return true;
  end if;
  foreach v_word in array p_words loop
    if tickets_ops.same_word(v_word, p_word) then
      return true;
    end if;
  end loop;
  return false;
end
$$;
comment on function tickets_ops.has_word(text[], text) is 'Whether a word is among others, but for a slip of one letter.';

-- Over 100 lines: one walk over the asked words counts what the label tells of each, and all of its answers are read off the same
-- dozen counts, which two functions would have to hand over as a record.
create or replace function tickets_ops.name_match(
  p_key text, p_cluster text, p_label text,
  out named boolean, out surrounded boolean, out exact boolean, out literal boolean, out same_kind boolean, out overlap numeric,
  out contradicted text[]
)
language plpgsql immutable parallel safe set search_path = pg_catalog, pg_temp as $$
declare
  -- Umoja 2, Section 58, South B, A104: what tells places of one name apart. Longer numbers are postal codes.
  c_number constant text := '^([0-9]{1,3}[a-z]?|[a-z][0-9]{0,3})$';
  c_roads constant text[] := array['road', 'street', 'avenue', 'lane', 'drive', 'highway', 'way', 'bypass', 'boulevard'];
  v_kinds text[] := tickets_ops.kind_words();
  v_asked text[] := string_to_array(p_key, ' ');
  -- Without a name before the first comma (a house number, say), the part behind it counts.
  v_own text[] := coalesce(
    tickets_ops.name_words(split_part(p_label, ',', 1)), tickets_ops.name_words(split_part(p_label, ',', 2)), '{}'
  );
  v_whole text[] := coalesce(tickets_ops.name_words(p_label), '{}');
  v_cluster text[] := coalesce(tickets_ops.name_words(p_cluster), '{}');
  v_word text;
  v_before text;
  v_is_kind boolean;
  v_is_own boolean;
  -- Words of the name; those of them that say a kind; the others, that tell which; and how many of each the candidate has.
  v_telling integer := 0;
  v_told integer := 0;
  v_weakly_telling integer := 0;
  v_weakly_told integer := 0;
  v_explained integer := 0;
  v_kinds_asked boolean := false;
  v_kinds_shared boolean := false;
  v_own_is_asked boolean := true;
  v_own_tells_more boolean := false;
  v_numbers text[] := '{}';
  v_own_numbers text[] := '{}';
  v_following text[];
  -- Another number, or the town that a road is named after: another place, however alike the names are.
  v_is_other boolean := false;
begin
  contradicted := '{}';
  foreach v_word in array v_asked loop
    v_is_kind := v_word = any (v_kinds);
    v_is_own := tickets_ops.has_word(v_own, v_word);
    if v_is_kind then
      v_kinds_asked := true;
      v_kinds_shared := v_kinds_shared or v_is_own;
    else
      v_weakly_telling := v_weakly_telling + 1;
      v_weakly_told := v_weakly_told + v_is_own::integer;
      -- The cluster's own name proves nothing: every candidate near it carries it.
      if v_word <> all (v_cluster) then
        v_telling := v_telling + 1;
        v_told := v_told + v_is_own::integer;
      end if;
    end if;
    -- Langata Road passes through places that are not Langata.
    v_is_other := v_is_other or (v_word = any (c_roads) and not v_is_own and tickets_ops.has_word(v_own, v_before));
    if v_word ~ c_number then
      -- Where the label numbers the same word, it is with this number: Phase 5 is not in Phase 2, South B is not South C.
      v_following := '{}';
      for i in 2 .. cardinality(v_whole) loop
        if v_whole[i - 1] = v_before and v_whole[i] ~ c_number then
          v_following := v_following || v_whole[i];
        end if;
      end loop;
      v_is_other := v_is_other or (cardinality(v_following) > 0 and v_word <> all (v_following));
      if v_word ~ '^[0-9]' then
        v_numbers := v_numbers || v_word;
      end if;
    end if;
    -- People write from the precise to the vague. Words before the name that was found are a detail that the map lacks
    -- (Naivas Ruaka: Ruaka); words behind it say where, and the label must not lack them (Rose Court Karen is not any Rose Court).
    if v_is_own then
      contradicted := '{}';
    end if;
    if tickets_ops.has_word(v_whole, v_word) then
      v_explained := v_explained + 1;
    elsif not v_is_kind and v_word !~ '^[0-9]+$' then
      contradicted := contradicted || v_word;
    end if;
    v_before := v_word;
  end loop;
  foreach v_word in array v_own loop
    if v_word ~ c_number and v_word ~ '^[0-9]' then
      v_own_numbers := v_own_numbers || v_word;
    end if;
    if not tickets_ops.has_word(v_asked, v_word) then
      v_own_is_asked := false;
      v_own_tells_more := v_own_tells_more or (v_word <> all (v_kinds) and v_word <> all (v_cluster));
    end if;
  end loop;
  v_is_other := v_is_other
    or (cardinality(v_numbers) > 0 and cardinality(v_own_numbers) > 0 and not v_numbers && v_own_numbers);
  if v_telling = 0 then
    -- A name of kinds only (Village Market) is told by nothing but the whole of it.
    v_telling := greatest(v_weakly_telling, 1);
    -- Nor does the cluster's own name tell its school from itself.
    v_told := case when v_kinds_asked and not v_kinds_shared then 0 else v_weakly_told end;
  end if;

  exact :=
    -- Spelling differs in blanks: Lang ata and Langata, Buru Buru and Buruburu.
    replace(p_key, ' ', '') = array_to_string(v_own, '')
    -- Rose Court Kilimani: Rose Court, in Kilimani.
    or (v_told > 0 and v_own_is_asked and v_explained = cardinality(v_asked) and not v_is_other);
  -- A slip is forgiven, but Mathare is rather Mathare than Mathari.
  literal := exact and (replace(p_key, ' ', '') = array_to_string(v_own, '') or (v_own <@ v_asked and v_asked <@ v_whole));
  same_kind := v_kinds_shared or not v_kinds_asked;
  -- Every telling word, and a kind in common: Rose Court, Rose Court Apartments, or a Rose without a kind. Of a name without a kind
  -- only kinds may follow: Naivas Supermarket is Naivas, Green Valley Academy is not Valley.
  named := exact or (
    not v_is_other and v_told = v_telling
    and (v_kinds_shared or v_own_is_asked or (not v_kinds_asked and not v_own_tells_more))
  );
  -- Naivas Ruaka lies in Ruaka, Umoja 2 in Umoja.
  surrounded := named or (
    not v_is_other and v_told * 2 >= v_telling and (v_told = v_telling or v_own_is_asked)
    and (v_kinds_shared or not (v_kinds_asked and v_own && v_kinds))
  );
  overlap := case when exact then 1 else 0.5 * v_told / v_telling + 0.2 * v_explained / cardinality(v_asked) end;
  if exact then
    contradicted := '{}';
  end if;
end
$$;
comment on function tickets_ops.name_match(text, text, text) is
  'How well a candidate''s label (p_label, most specific part first) names the place p_key (a location_key) of p_cluster. exact: the same name, but for blanks, slips of a letter and the area that it names. literal: exact, without a slip. same_kind: no kind of thing was asked for, or one of those asked. named: exact, or all telling words stand in its own name, with the same number and no other kind of thing (Avenue for Court, Langata for Langata Road). surrounded: named, or its name is a part of what was asked, with at least half of the telling words: good enough for an area. overlap: 0 to 1, for ranking. contradicted: words that say where the place is, and that the label lacks.';
--! EndIncluded name-match.sql
--! Included judge.sql
-- The judge: which of a provider's candidates, if any, is the place that was asked for.
--
-- The rules stand here only. A new answer and a stored one are judged by the same functions, so when a centroid or a
-- guard changes the stored candidates are rescored with no call to a provider.
--
-- A candidate is {lat, lng, level, country, label, original} (src/geocoding/outcome.ts). It is
--   refused  no number, 0,0, outside Kenya, swapped axes, or beyond the guard;
--   doubtful only a city or county, of another name or number, or in another area than the name says: a person decides;
--   good     otherwise; the best by name, precision and distance is the place.

create or replace function tickets_ops.candidate_point(p_candidate jsonb) returns geometry language sql immutable parallel safe
return case
  when jsonb_typeof(p_candidate -> 'lat') = 'number' and jsonb_typeof(p_candidate -> 'lng') = 'number'
    and (p_candidate ->> 'lat')::numeric between -90 and 90 and (p_candidate ->> 'lng')::numeric between -180 and 180
  then st_setsrid(
    st_makepoint(
      round((p_candidate ->> 'lng')::numeric, 7)::double precision, round((p_candidate ->> 'lat')::numeric, 7)::double precision
    ),
    4326
  )
end;
comment on function tickets_ops.candidate_point(jsonb) is 'A candidate''s point (SRID 4326), NULL unless lat and lng are JSON numbers in range. Seven digits: 1 cm.';

create or replace function tickets_ops.distance_km(p_one geometry, p_other geometry) returns numeric language sql immutable parallel safe
return round((st_distance(p_one::geography, p_other::geography) / 1000)::numeric, 3);
comment on function tickets_ops.distance_km(geometry, geometry) is 'Geodesic kilometres between two points. NULL if one is.';

create or replace function tickets_ops.score_candidates(
  p_candidates jsonb, p_key text, p_cluster text, p_centre geometry, p_guard_km numeric
)
returns table (
  candidate_no bigint, geom geometry, label text, "precision" text, named boolean, exact boolean, literal boolean, overlap numeric,
  distance_km numeric, refusal text, doubt text
)
language sql stable parallel safe
begin atomic
  select
    c.no,
    point.geom,
    left(c.candidate ->> 'label', 200),
    level.precision,
    verdict.named,
    name.exact,
    name.literal,
    name.overlap,
    point.km,
    case
      when point.geom is null then 'it has no coordinates'
      when abs(st_x(point.geom)) < 0.01 and abs(st_y(point.geom)) < 0.01 then 'its coordinates are 0,0'
      when c.candidate ->> 'country' <> 'ke' then 'it is not in Kenya'
      when not tickets.in_kenya(point.geom) then
        case
          when tickets.in_kenya(st_flipcoordinates(point.geom)) then 'its latitude and longitude are swapped'
          else 'it is not in Kenya'
        end
      when point.km > p_guard_km then
        format('it is %s km from the centre of the cluster, the guard is %s km', round(point.km, 1), p_guard_km)
    end,
    case
      when level.precision = 'city' then 'Only a city or county was found'
      when not verdict.named then 'What was found has another name'
      -- Near the centre of Ruaka everything is in Ruaka, whether the map says so or not.
      when cardinality(name.contradicted) > 0
        and (point.km > p_guard_km / 5 or not name.contradicted <@ coalesce(tickets_ops.name_words(p_cluster), '{}'))
      then format('What was found is not said to be in %s', initcap(array_to_string(name.contradicted, ' ')))
    end
  from jsonb_array_elements(case when jsonb_typeof(p_candidates) = 'array' then p_candidates else '[]' end)
    with ordinality as c (candidate, no)
  cross join lateral (
    select g.geom, tickets_ops.distance_km(p_centre, g.geom) as km from (select tickets_ops.candidate_point(c.candidate)) as g (geom)
  ) as point
  cross join lateral tickets_ops.name_match(p_key, p_cluster, c.candidate ->> 'label') as name
  cross join lateral (
    -- A town is a place when it was asked for; otherwise the provider fell back to it.
    select case
      when c.candidate ->> 'level' in ('point', 'street', 'neighbourhood') then c.candidate ->> 'level'
      when c.candidate ->> 'level' = 'town' and name.exact then 'neighbourhood'
      else 'city'
    end as precision
  ) as level
  cross join lateral (
    select case when level.precision in ('point', 'street') then name.named else name.surrounded end as named
  ) as verdict;
end;
comment on function tickets_ops.score_candidates(jsonb, text, text, geometry, numeric) is
  'Each candidate (a JSON array as stored in tickets.geo_locations.candidates) scored as the place p_key of p_cluster: its point, precision, name and distance from p_centre; in `refusal` why it cannot be the place, in `doubt` why a person should decide (NULL: no reason). p_centre NULL: without the guard.';

create or replace function tickets_ops.judge_location(
  p_candidates jsonb, p_key text, p_cluster text, p_centre geometry, p_guard_km numeric
)
returns table (status text, geom geometry, "precision" text, confidence numeric, distance_km numeric, note text)
language sql stable parallel safe
begin atomic
  with scored as (
    select
      s.*,
      case when s.refusal is not null then 3 when s.doubt is not null then 2 else 1 end as tier,
      0.6 * s.overlap
        + 0.25 * case s.precision when 'point' then 1 when 'street' then 0.8 when 'neighbourhood' then 0.7 else 0 end
        + 0.15 * greatest(0, 1 - coalesce(s.distance_km / p_guard_km, 1)) as score
    from tickets_ops.score_candidates(p_candidates, p_key, p_cluster, p_centre, p_guard_km) s
  ),
  best as (
    select s.* from scored s order by s.tier, s.literal desc, s.score desc, s.candidate_no limit 1
  )
  select
    case coalesce(b.tier, 4) when 1 then 'found' when 2 then 'needs_review' when 3 then 'rejected' else 'not_found' end,
    case when b.tier < 3 then b.geom end,
    case when b.tier < 3 then b.precision end,
    case when b.tier < 3 then round(b.score, 2) end,
    b.distance_km,
    case b.tier
      when 2 then concat_ws(': ', b.doubt, b.label)
      when 3 then format('%s: %s', coalesce(b.label, 'The best candidate'), b.refusal)
    end
  from (select 1) as always left join best b on true;
end;
comment on function tickets_ops.judge_location(jsonb, text, text, geometry, numeric) is
  'The verdict over all candidates for the place p_key of p_cluster: status found, needs_review, rejected or not_found, with the best candidate''s point, precision, score (0 to 1), distance and, unless found, the reason in words. Always one row.';

create or replace function tickets_ops.judge_cluster(p_candidates jsonb, p_key text, p_region text, p_guard_km numeric)
returns table (geom geometry, note text, ambiguous boolean)
language sql stable parallel safe
begin atomic
  with scored as (
    select
      s.*,
      -- What a place lies in does for the place, not for a cluster: Mombasa Road is not Mombasa, Nairobi West not Nairobi.
      coalesce(
        s.refusal,
        case when not s.exact and not (name.named and name.same_kind and s.precision <> 'city') then 'it has another name' end
      ) as reason,
      -- Regions of the network have names of their own (Nairobi Metro): one of the region's words is enough.
      words.label && array(
        select word from unnest(tickets_ops.name_words(p_region)) as word where word <> all (string_to_array(p_key, ' '))
      ) as in_region,
      words.label as words
    from tickets_ops.score_candidates(p_candidates, p_key, null, null, null) s
    cross join lateral tickets_ops.name_match(p_key, null, s.label) as name
    cross join lateral (select coalesce(tickets_ops.name_words(s.label), '{}') as label) as words
  ),
  -- A cluster is an area: a suburb, a town or a city is it, a shop of that name is the last resort.
  best as (
    select s.*
    from scored s
    order by
      s.reason is not null,
      s.exact desc,
      coalesce(s.in_region, false) desc,
      s.literal desc,
      case s.precision when 'neighbourhood' then 1 when 'city' then 1 when 'street' then 2 else 3 end,
      s.overlap desc,
      s.candidate_no
    limit 1
  ),
  -- As good by name and region, and so far away that no place could belong to both. Nakuru in Kenya is the county of
  -- Nakuru in Nakuru County, no namesake of it.
  namesakes as (
    select string_agg(s.label, '; ' order by s.candidate_no) as labels
    from best b
    join scored s on s.reason is null and s.exact and s.literal = b.literal and s.in_region is not distinct from b.in_region
      and tickets_ops.distance_km(s.geom, b.geom) > p_guard_km and not (s.words <@ b.words or b.words <@ s.words)
    where b.reason is null and b.exact
  )
  select
    case when b.reason is null then b.geom end,
    case
      when b.reason is not null then format('%s: %s', b.label, b.reason)
      when n.labels is not null then format('It may be another of this name: %s, or %s', b.label, n.labels)
    end,
    n.labels is not null
  from best b cross join namesakes n;
end;
comment on function tickets_ops.judge_cluster(jsonb, text, text, numeric) is
  'The verdict over all candidates for a cluster whose name has the location_key p_key: the centroid, or NULL and the reason in words. Of namesakes the one in p_region (of most of its tickets; NULL: unknown) is preferred; ambiguous: that does not tell it from one beyond p_guard_km, and the note names both. No row without candidates.';
--! EndIncluded judge.sql
--! Included waiting.sql
-- Geocoding jobs that have to wait, for their turn or for their cluster's centroid, and what wakes them.

create or replace function tickets_ops.is_unresolvable(p_cluster tickets.geo_clusters) returns boolean language sql stable
return p_cluster.geom is null and (p_cluster.verified or coalesce(p_cluster.expires_at > now(), false));
comment on function tickets_ops.is_unresolvable(tickets.geo_clusters) is 'Whether a cluster has no centroid and none is to be had: it was asked in vain lately, or a person took it away.';

create or replace function tickets_ops.request_centroid(p_cluster text, p_priority integer) returns boolean
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
  v_priority constant integer := least((select priority from tickets_ops.job_policy('geocode_cluster')), p_priority);
  v_waiting record;
begin
  if exists (select from tickets.geo_clusters c where c.cluster = p_cluster and tickets_ops.is_unresolvable(c)) then
    return true;
  end if;
  if exists (select from tickets.geo_clusters c where c.cluster = p_cluster and c.geom is not null) then
    return false;
  end if;
  select * into v_waiting
  from tickets_ops.queued_jobs() j
  where j.key = tickets_ops.cluster_job_key(p_cluster) and (j.attempts < j.max_attempts or j.locked_at is not null);
  if v_waiting.id is null then
    perform tickets_ops.enqueue(
      'geocode_cluster',
      json_strip_nulls(json_build_object(
        'cluster', p_cluster, 'planned', true,
        -- A place of a cluster that nobody knows comes this far by force only.
        'force', case when tickets_ops.is_unknown_cluster(p_cluster) then true end
      )),
      tickets_ops.cluster_job_key(p_cluster), p_priority := v_priority
    );
  elsif v_waiting.priority > v_priority then
    perform tickets_ops.run_jobs_now(array[v_waiting.id], p_priority := v_priority);
  end if;
  return false;
end
$$;
comment on function tickets_ops.request_centroid(text, integer) is 'A place waits for its cluster''s centroid: adds the cluster''s job, or lets the one that waits go as early as the place; neither when the centroid has come meanwhile. Returns true when none is to be had (tickets_ops.is_unresolvable), so that waiting is in vain until a person sets the centroid.';

create or replace function tickets_ops.snooze_geocoding(
  p_job_id bigint, p_task text, p_wait_ms double precision, p_until_resolved text default null
)
returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
  v_job record;
  v_job_id bigint;
  v_key text;
  v_waiting bigint;
  v_nobody_writes boolean;
begin
  -- Whoever asks for the same meanwhile waits for this row, and replaces what is added here.
  perform tickets_ops.lock_job(p_job_id);
  select * into v_job from tickets_ops.queued_jobs() where id = p_job_id;
  v_key := coalesce(v_job.key, tickets_ops.geocoding_job_key(p_task, v_job.payload::jsonb));
  perform tickets_ops.lock_job(j.id) from tickets_ops.queued_jobs() j where j.key = v_key and j.id <> p_job_id;
  select j.id into v_waiting
  from tickets_ops.queued_jobs() j
  where j.key = v_key and j.id <> p_job_id and (j.attempts < j.max_attempts or j.locked_at is not null);
  if v_waiting is not null then
    -- Asked for anew since: that job stays as it is, but for what this one was to force.
    if v_job.payload ->> 'force' = 'true' then
      perform tickets_ops.advance_job(v_waiting, p_add := '{"force": true}');
    end if;
    return;
  end if;
  v_job_id := tickets_ops.enqueue(
    p_task,
    (v_job.payload::jsonb || jsonb_build_object('snoozes', coalesce((v_job.payload ->> 'snoozes')::integer, 0) + 1))::json,
    v_key,
    now() + make_interval(secs => p_wait_ms / 1000),
    v_job.priority,
    -- The attempts that failed stay used up.
    p_max_attempts := v_job.max_attempts - v_job.attempts + 1
  );
  if p_until_resolved is not null then
    -- Whoever resolves a cluster holds this lock until it can be seen, and then wakes what waits: from here on this job too.
    -- Taken last, so that nobody is waited for with it.
    v_nobody_writes := pg_try_advisory_xact_lock_shared(tickets.gazetteer_lock());
    if not v_nobody_writes
      -- Resolved since it was looked at.
      or exists (
        select from tickets.geo_clusters c
        where c.cluster = p_until_resolved and (c.geom is not null or tickets_ops.is_unresolvable(c))
      )
    then
      perform tickets_ops.advance_job(v_job_id, now() + case when v_nobody_writes then interval '0' else interval '2 seconds' end);
    end if;
  end if;
end
$$;
comment on function tickets_ops.snooze_geocoding(bigint, text, double precision, text) is 'A running geocoding job comes back in so many milliseconds; at once when the cluster p_until_resolved has a centroid by now or none is to be had, and soon while somebody is writing a gazetteer; and this run uses up no attempt. Where the same was asked for anew meanwhile, that job stands.';

create or replace function tickets_ops.wake_locations(p_cluster text) returns void
language sql set search_path = pg_catalog, pg_temp as $$
  select tickets_ops.run_jobs_now(array_agg(j.id))
  from tickets_ops.queued_jobs() j
  where j.task = 'geocode_location'
    and starts_with(j.key, tickets_ops.location_job_key(p_cluster, ''))
    and j.run_at > now()
    and j.last_error is null;
$$;
comment on function tickets_ops.wake_locations(text) is 'The geocode_location jobs that wait for a cluster''s centroid may run now: it has one, or none is to be had.';

create or replace function tickets_ops.wake_geocoding() returns void language sql set search_path = pg_catalog, pg_temp as $$
  select tickets_ops.run_jobs_now(array_agg(j.id))
  from tickets_ops.queued_jobs() j
  where j.task in ('geocode_cluster', 'geocode_location') and j.run_at > now() and j.last_error is null;
$$;
comment on function tickets_ops.wake_geocoding() is 'Every geocoding job that waits, for whatever reason, may run now; it puts itself off again if it still has to wait.';
--! EndIncluded waiting.sql
--! Included budget.sql
-- Rate, budget and breaker of each geocoding provider: one row decides for all workers together.
--
-- A call is made in three statements, each its own transaction, so that no lock is held while the network is awaited:
-- reserve_geocoding_call (when may I?), keep_geocoding_call when that moment has come (may I still?), and after the call
-- record_geocoding_call (what came of it). src/geocoding/rate.ts asks them in turn.
--
-- Breaker: closed -> open (a reason, and until when) -> after that time one caller at a time may probe -> closed by the first
-- answer that shows the provider working, or open again. Nobody has to close it. It opens by failures of several places: one
-- place that always fails says nothing about the provider.
--
-- Suspected: many answers in a row say that there is no such place. Whether that is so, or the provider has lost its map, is
-- told by a control question, whose answer is known: it is asked instead of a place's while the breaker is open for this.

create or replace function tickets_ops.next_utc_midnight() returns timestamptz language sql volatile
return (date_trunc('day', clock_timestamp() at time zone 'UTC') + interval '1 day') at time zone 'UTC';
comment on function tickets_ops.next_utc_midnight() is 'When the daily quotas come back.';

create or replace function tickets_ops.seconds_per_call(p_rate numeric) returns double precision language sql immutable parallel safe
-- Slots of exactly 1/rate let a call too many into a second, as seen by a provider, which counts with jitter.
return 1.03 / p_rate;
comment on function tickets_ops.seconds_per_call(numeric) is 'Seconds between two slots at a rate of so many calls a second: 3 percent more than the rate says.';

create or replace function tickets_ops.has_geocoding_worker() returns boolean
language plpgsql stable set search_path = pg_catalog, pg_temp as $$
begin
  return exists (
    select
    from tickets_ops.worker_states() w join tickets_ops.settings s using (pool_id)
    where s.name = 'GEOCODER_PROVIDER' and (w.state = 'alive' or (w.state = 'unsure' and w.seen_at > now() - interval '1 minute'))
  );
end
$$;
comment on function tickets_ops.has_geocoding_worker() is 'Whether a living worker has a provider to ask.';

create or replace function tickets_ops.register_geocoder(p_provider text, p_rate numeric, p_daily_budget integer, p_found_days numeric, p_off_reason text)
returns void language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
  v_before text := (select state from tickets_ops.geocoding where provider = p_provider);
begin
  -- A process without the settings must not switch off what a worker beside it has.
  if p_provider is null and tickets_ops.has_geocoding_worker() then
    return;
  end if;
  if p_provider is not null then
    insert into tickets_ops.geocoding_providers as p (provider, rate_per_second, daily_budget, found_days)
    values (p_provider, p_rate, p_daily_budget, p_found_days)
    on conflict (provider) do update set
      rate_per_second = excluded.rate_per_second,
      daily_budget = excluded.daily_budget,
      found_days = excluded.found_days,
      -- The key, or its plan, may be a new one: the next call finds out.
      breaker_until = case when p.breaker in ('key refused', 'quota spent') then least(p.breaker_until, now()) else p.breaker_until end,
      registered_at = now();
  end if;
  insert into tickets_ops.geocoding_setup (provider, off_reason) values (p_provider, p_off_reason)
  on conflict (one) do update set provider = excluded.provider, off_reason = excluded.off_reason, registered_at = now();
  -- Jobs have put themselves off until the quota was to come back, or somebody was to be asked.
  if coalesce(v_before, 'off') in ('off', 'not in use', 'key refused', 'quota spent', 'budget spent')
    and (select state in ('ready', 'probing') from tickets_ops.geocoding where provider = p_provider)
  then
    perform tickets_ops.wake_geocoding();
  end if;
end
$$;
comment on function tickets_ops.register_geocoder(text, numeric, integer, numeric, text) is
  'A worker that starts says whom it asks: provider, calls a second, calls a day (NULL: no limit), days that a found place is kept; or no provider and the reason, which counts only while no living worker has one. A spent quota or a refused key is tried again, and the jobs that wait for it are woken.';

create or replace function tickets_ops.reserve_geocoding_call(p_provider text)
returns table (
  granted boolean, wait_ms double precision, reserved_at timestamptz, slot_at timestamptz, is_control boolean, reason text
)
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
  -- Longer than a call may take: a prober that dies must not keep the breaker open for ever.
  c_probe constant interval := '15 seconds';
  -- A probe is usually over by then.
  c_probe_ms constant double precision := 2000;
begin
  -- One statement on one row, in autocommit (measured: 0.3 ms). The expressions are evaluated once the row is locked, with the
  -- clock of that moment: now() would be the moment before the wait for the lock, and give slots of the past.
  return query
    update tickets_ops.geocoding_providers p
    set
      used = case when p.used_on = (clock_timestamp() at time zone 'UTC')::date then p.used else 0 end + 1,
      used_on = (clock_timestamp() at time zone 'UTC')::date,
      next_at = greatest(p.next_at, clock_timestamp()) + make_interval(secs => tickets_ops.seconds_per_call(p.rate_per_second)),
      probing_until = case when p.breaker is not null then clock_timestamp() + c_probe end
    where p.provider = p_provider
      and (p.daily_budget is null or p.used < p.daily_budget or p.used_on <> (clock_timestamp() at time zone 'UTC')::date)
      and (p.breaker is null or greatest(p.breaker_until, p.probing_until) <= clock_timestamp())
    returning
      true,
      greatest(0, 1000 * extract(epoch from p.next_at - make_interval(secs => tickets_ops.seconds_per_call(p.rate_per_second))
        - clock_timestamp()))::double precision,
      clock_timestamp(),
      p.next_at - make_interval(secs => tickets_ops.seconds_per_call(p.rate_per_second)),
      p.breaker is not distinct from 'suspected',
      null::text;
  if found then
    return;
  end if;
  return query
    select
      false,
      case
        -- First: a breaker whose time is over lets nobody probe on a spent budget.
        when budget.is_spent then
          1000 * extract(epoch from greatest(p.breaker_until, tickets_ops.next_utc_midnight()) - clock_timestamp())
        when p.breaker_until <= clock_timestamp() then c_probe_ms
        -- Without a breaker either: midnight has just passed.
        else 1000 * extract(epoch from coalesce(p.breaker_until, clock_timestamp()) - clock_timestamp())
      end::double precision,
      null::timestamptz,
      null::timestamptz,
      null::boolean,
      case
        when p.breaker is null or budget.is_spent then format('the daily budget of %s calls is spent', p.daily_budget)
        else format('%s: %s', p.breaker, p.breaker_reason)
      end
    from tickets_ops.geocoding_providers p
    cross join lateral (
      select p.used >= p.daily_budget and p.used_on = (clock_timestamp() at time zone 'UTC')::date as is_spent
    ) as budget
    where p.provider = p_provider;
  if not found then
    raise exception 'No geocoding provider % is registered: a worker registers it when it starts.', p_provider;
  end if;
end
$$;
comment on function tickets_ops.reserve_geocoding_call(text) is
  'Reserves the next slot for one call to a provider, over all workers; call it in a transaction of its own. granted: make the call in wait_ms milliseconds (a delta, so that clocks need not agree), and reserve again if you wake much later. is_control: the provider is suspected, so ask it the control question, whatever you came for. Not granted: the budget is spent or the breaker is open; ask again in wait_ms. reserved_at and slot_at are this moment and the slot by the database''s clock.';

create or replace function tickets_ops.keep_geocoding_call(p_provider text, p_reserved_at timestamptz) returns boolean
language sql volatile set search_path = pg_catalog, pg_temp as $$
  with given_back as (
    update tickets_ops.geocoding_providers
    -- `used` counts one day; a call of yesterday is not today's.
    set used = greatest(0, used - (used_on = (p_reserved_at at time zone 'UTC')::date)::integer)
    where provider = p_provider and breaker_since > p_reserved_at
    returning 1
  )
  select not exists (select from given_back);
$$;
comment on function tickets_ops.keep_geocoding_call(text, timestamptz) is
  'Asked when the slot of a reservation has come: may the call still be made? False when the breaker opened meanwhile; then the call goes back to the budget of its day.';

create or replace function tickets_ops.return_geocoding_call(p_provider text, p_reserved_at timestamptz) returns void
language sql volatile set search_path = pg_catalog, pg_temp as $$
  update tickets_ops.geocoding_providers
  set used = used - 1
  where provider = p_provider and used > 0 and used_on = (p_reserved_at at time zone 'UTC')::date;
$$;
comment on function tickets_ops.return_geocoding_call(text, timestamptz) is
  'Gives a reserved call back to the budget of its day: it is not made, because its slot went by or the worker stops.';

create or replace function tickets_ops.open_breaker(p_before tickets_ops.geocoding_providers, p_breaker text, p_reason text, p_until timestamptz)
returns timestamptz language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
  -- One that is open for longer stays.
  if p_before.breaker_until > p_until then
    return p_before.breaker_until;
  end if;
  update tickets_ops.geocoding_providers
  set
    breaker = p_breaker,
    breaker_reason = p_reason,
    breaker_since = coalesce(breaker_since, clock_timestamp()),
    breaker_until = p_until,
    probing_until = null
  where provider = p_before.provider;
  return p_until;
end
$$;
comment on function tickets_ops.open_breaker(tickets_ops.geocoding_providers, text, text, timestamptz) is 'Opens the breaker of a provider, or keeps it open, until p_until at least. Returns until when.';

create or replace function tickets_ops.record_answer(p_provider text, p_slot_at timestamptz, p_found boolean, p_is_control boolean)
returns timestamptz language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
  -- At most three questions a place: some four places in a row. The control question costs one call, so it may come early.
  c_suspected_after constant integer := 10;
  c_suspected constant interval := '10 minutes';
  v_provider tickets_ops.geocoding_providers;
begin
  update tickets_ops.geocoding_providers
  set
    consecutive_nothing = case when p_found then 0 else consecutive_nothing + 1 end,
    found_at = case when p_found then clock_timestamp() else found_at end
  where provider = p_provider
  returning * into v_provider;
  -- An answer to a call that was made before the breaker opened proves nothing.
  if v_provider.breaker_since > p_slot_at then
    return v_provider.breaker_until;
  elsif not p_found and p_is_control then
    return tickets_ops.open_breaker(
      v_provider, 'suspected',
      format('%s finds nothing any more, not even Nairobi. What it did not find is asked again.', p_provider),
      clock_timestamp() + c_suspected
    );
  elsif not p_found and v_provider.consecutive_nothing >= c_suspected_after then
    -- Open, and its time is over at once: the next call is the control question.
    return tickets_ops.open_breaker(
      v_provider, 'suspected', format('%s found nothing %s times in a row', p_provider, v_provider.consecutive_nothing), clock_timestamp()
    );
  elsif v_provider.breaker is not null or v_provider.consecutive_failures > 0 or p_is_control then
    update tickets_ops.geocoding_providers
    set breaker = null, breaker_reason = null, breaker_since = null, breaker_until = null, probing_until = null,
      consecutive_failures = 0, last_failed_place = null
    where provider = p_provider;
  end if;
  return null;
end
$$;
comment on function tickets_ops.record_answer(text, timestamptz, boolean, boolean) is 'An answer came, with a place or without: closes the breaker, or opens it for a provider that finds nothing any more. Only for tickets_ops.record_geocoding_call.';

create or replace function tickets_ops.record_failure(
  p_provider text, p_outcome text, p_reason text, p_retry_seconds double precision, p_place text
)
returns timestamptz language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
  c_refused constant interval := '10 minutes';
  c_pause constant double precision := 60;
  c_longest_pause constant double precision := 900;
  -- One failure may be chance, and calls in flight together fail together; so many places in a row are trouble.
  c_trouble_after constant integer := 5;
  v_provider tickets_ops.geocoding_providers;
  v_failures integer;
  v_breaker text;
begin
  select * into v_provider from tickets_ops.geocoding_providers where provider = p_provider for update;
  v_failures := v_provider.consecutive_failures
    + (v_provider.breaker is not null or v_provider.last_failed_place is distinct from p_place)::integer;
  update tickets_ops.geocoding_providers
  set consecutive_failures = v_failures, last_failed_place = p_place
  where provider = p_provider;
  -- A request that is refused as a bad one is the question's fault; a run of them is ours, or the provider has changed.
  v_breaker := case
    when p_outcome = 'quota_spent' then 'quota spent'
    when p_outcome = 'key_refused' then 'key refused'
    when p_outcome = 'rate_limited' then 'rate limited'
    when v_provider.breaker is not null or v_failures >= c_trouble_after or p_retry_seconds is not null then 'trouble'
  end;
  if v_breaker is null then
    return null;
  end if;
  return tickets_ops.open_breaker(v_provider, v_breaker, p_reason, case
    when p_outcome = 'quota_spent' and p_retry_seconds is null then tickets_ops.next_utc_midnight()
    when p_outcome = 'quota_spent' then clock_timestamp() + make_interval(secs => p_retry_seconds)
    when p_outcome = 'key_refused' then clock_timestamp() + c_refused
    else clock_timestamp() + make_interval(secs => greatest(
      coalesce(p_retry_seconds, c_pause),
      least(c_longest_pause, coalesce(p_retry_seconds, c_pause) * 2 ^ least(greatest(v_failures - 1 - c_trouble_after, 0), 20))
    ))
  end);
end
$$;
comment on function tickets_ops.record_failure(text, text, text, double precision, text) is 'A call came to no answer: counts it, of one place once, and opens the breaker where that says something about the provider. Only for tickets_ops.record_geocoding_call.';

create or replace function tickets_ops.record_geocoding_call(
  p_provider text, p_slot_at timestamptz, p_outcome text, p_reason text, p_retry_seconds double precision,
  p_cluster text, p_location_key text, p_query text, p_candidates jsonb
)
returns timestamptz language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
  v_is_answer constant boolean := p_outcome in ('found', 'not_found');
  v_is_control constant boolean := p_cluster is null;
begin
  insert into tickets_ops.geocoding_calls as c (provider, called_on, outcome, calls)
  values (p_provider, (clock_timestamp() at time zone 'UTC')::date, p_outcome, 1)
  on conflict (provider, called_on, outcome) do update set calls = c.calls + 1;

  if not v_is_answer then
    return tickets_ops.record_failure(p_provider, p_outcome, p_reason, p_retry_seconds, p_cluster || ':' || p_location_key);
  end if;
  if not v_is_control then
    insert into tickets_ops.geocoding_answers (cluster, location_key, query, provider, candidates)
    values (p_cluster, p_location_key, p_query, p_provider, coalesce(p_candidates, '[]'))
    on conflict (cluster, location_key, query)
    do update set provider = excluded.provider, candidates = excluded.candidates, answered_at = now();
  end if;
  return tickets_ops.record_answer(p_provider, p_slot_at, p_outcome = 'found', v_is_control);
end
$$;
comment on function tickets_ops.record_geocoding_call(text, timestamptz, text, text, double precision, text, text, text, jsonb) is
  'Writes down what a call came to: counts it, opens or closes the breaker, keeps the candidates of an answer. p_slot_at: of its reservation. p_retry_seconds: when the provider said it may be asked again. p_cluster NULL: it was the control question. Returns when the next call may be tried, NULL when the breaker is closed.';

create or replace view tickets_ops.geocoding as
select
  p.provider,
  s.provider is not null as active,
  case
    when s.provider is null then 'not in use'
    when budget.stops then 'budget spent'
    when p.breaker_until > now() then p.breaker
    when p.breaker is not null then 'probing'
    else 'ready'
  end as state,
  case when budget.stops then 'The daily budget is spent; it comes back at midnight UTC.' else p.breaker_reason end as reason,
  case when budget.stops then tickets_ops.next_utc_midnight() else p.breaker_until end as until,
  p.rate_per_second,
  p.daily_budget,
  today.used as used_today,
  p.daily_budget - today.used as left_today,
  coalesce(
    (
      select jsonb_object_agg(c.outcome, c.calls)
      from tickets_ops.geocoding_calls c
      where c.provider = p.provider and c.called_on = (now() at time zone 'UTC')::date
    ),
    '{}'
  ) as calls_today
from tickets_ops.geocoding_providers p
left join tickets_ops.geocoding_setup s on s.provider = p.provider
cross join lateral (
  select case when p.used_on = (now() at time zone 'UTC')::date then p.used else 0 end as used
) as today
cross join lateral (
  -- An open breaker says more. When its time is over, the budget decides: nobody can probe.
  select coalesce(today.used >= p.daily_budget, false) and coalesce(p.breaker_until <= now(), true) as stops
) as budget
union all
select
  null, true, 'off',
  coalesce(s.off_reason, 'No worker has started yet that says which provider to ask (GEOCODER_PROVIDER).'),
  null, null, null, 0, null, '{}'
from (select 1) as always
left join tickets_ops.geocoding_setup s on true
where s.provider is null;
comment on view tickets_ops.geocoding is 'Geocoding at a glance, one row per provider: state (ready, budget spent, rate limited, quota spent, key refused, trouble, suspected, probing, off, not in use) with reason and until when, rate, budget used and left today (UTC), calls by outcome today. A row without provider says why nobody is asked.';
comment on column tickets_ops.geocoding.provider is 'The provider; NULL when there is none.';
comment on column tickets_ops.geocoding.active is 'Whether it is the one that the workers ask.';
comment on column tickets_ops.geocoding.state is 'ready, budget spent, rate limited, quota spent, key refused, trouble, suspected (it finds nothing, not even the control question), probing (one call at a time finds out whether it works again), off, not in use.';
comment on column tickets_ops.geocoding.reason is 'Why it is not ready.';
comment on column tickets_ops.geocoding.until is 'When it is tried again.';
comment on column tickets_ops.geocoding.rate_per_second is 'Calls a second, over all workers.';
comment on column tickets_ops.geocoding.daily_budget is 'Calls a UTC day. NULL: no limit.';
comment on column tickets_ops.geocoding.used_today is 'Calls reserved today (UTC).';
comment on column tickets_ops.geocoding.left_today is 'What is left of the budget today. NULL: no limit.';
comment on column tickets_ops.geocoding.calls_today is 'Answers today (UTC) by outcome: {"found": 812, "not_found": 40}.';
--! EndIncluded budget.sql
--! Included questions.sql
-- What a geocoding job has to ask about one place. The job asks the provider then (src/geocoding/jobs.ts).

create or replace function tickets_ops.cluster_region(p_cluster text) returns text language sql stable
return (
  -- Relies on the indexes on cluster_key(cluster); a sample says it.
  select mode() within group (order by t.region)
  from (
    (select region from tickets.inc where tickets.cluster_key(cluster) = tickets.cluster_key(p_cluster) limit 1000)
    union all
    (select region from tickets.crq where tickets.cluster_key(cluster) = tickets.cluster_key(p_cluster) limit 1000)
  ) as t
);
comment on function tickets_ops.cluster_region(text) is 'The region that most of a cluster''s tickets name. NULL: none.';

create or replace function tickets_ops.cluster_name(p_cluster text) returns text language sql stable
return coalesce(
  tickets.known_spelling(p_cluster),
  (
    select mode() within group (order by t.name)
    from (
      (select left(btrim(cluster), 200) as name from tickets.inc where tickets.cluster_key(cluster) = tickets.cluster_key(p_cluster) limit 1000)
      union all
      (select left(btrim(cluster), 200) from tickets.crq where tickets.cluster_key(cluster) = tickets.cluster_key(p_cluster) limit 1000)
    ) as t
  ),
  case when tickets.cluster_key(p_cluster) is not null then left(btrim(p_cluster), 200) end
);
comment on function tickets_ops.cluster_name(text) is 'A cluster as the gazetteers write it, else as most of its tickets do, else as it is given. NULL for an empty name.';

create or replace function tickets_ops.has_tickets(p_cluster text) returns boolean language sql stable
-- Relies on the indexes on cluster_key(cluster).
return exists (select from tickets.inc t where tickets.cluster_key(t.cluster) = tickets.cluster_key(p_cluster))
  or exists (select from tickets.crq t where tickets.cluster_key(t.cluster) = tickets.cluster_key(p_cluster));
comment on function tickets_ops.has_tickets(text) is 'Whether any ticket, open or closed, names the cluster.';

create or replace function tickets_ops.is_unknown_cluster(p_cluster text) returns boolean language sql stable
return tickets.known_spelling(p_cluster) is null and not tickets_ops.has_tickets(p_cluster);
comment on function tickets_ops.is_unknown_cluster(text) is 'Whether neither a ticket nor the gazetteers have the cluster: probably a slip of the pen, asked for by force only.';

create or replace function tickets_ops.cluster_name_key(p_cluster text) returns text language sql immutable parallel safe
return coalesce(tickets.location_key(p_cluster), lower(p_cluster));
comment on function tickets_ops.cluster_name_key(text) is 'A cluster''s name as the judge compares it: its location_key, or itself where that leaves nothing.';

create or replace function tickets_ops.cluster_question(p_cluster text, p_force boolean, p_provider text default null)
returns table (state text, cluster text, name text, region text, answered text[])
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
  v_cluster text := tickets_ops.cluster_name(p_cluster);
begin
  return query
    select
      case
        when v_cluster is null then 'nothing to ask'
        when c.verified then 'verified'
        when not p_force and tickets_ops.is_unknown_cluster(v_cluster) then 'unknown cluster'
        when (c.geom is not null or c.expires_at > now()) and not p_force then 'known'
        else 'ask'
      end,
      v_cluster,
      coalesce(tickets.location_query(v_cluster), v_cluster),
      tickets_ops.cluster_region(v_cluster),
      (tickets_ops.answers(v_cluster, '', p_provider)).queries
    from (select 1) as always
    left join tickets.geo_clusters c on c.cluster = v_cluster;
end
$$;
comment on function tickets_ops.cluster_question(text, boolean, text) is
  'What a geocode_cluster job has to ask. state: ask, known (a centroid, or asked in vain lately), verified, unknown cluster, nothing to ask. name: the cluster as a provider may read it; region: of most of its tickets; answered: queries that p_provider has answered already. p_force asks although known.';

create or replace function tickets_ops.location_question(p_location_name text, p_cluster text, p_force boolean, p_provider text default null)
returns table (
  state text, cluster text, location_key text, name text, lat double precision, lng double precision, guard_km double precision,
  answered text[]
)
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
  v_cluster text := tickets_ops.cluster_name(p_cluster);
  v_key text := tickets.location_key(p_location_name);
begin
  return query
    select
      case
        when v_cluster is null or v_key is null then 'nothing to ask'
        when l.verified then 'verified'
        when not p_force and tickets_ops.is_unknown_cluster(v_cluster) then 'unknown cluster'
        when l.cluster is not null and (l.expires_at is null or l.expires_at > now()) and not p_force then 'known'
        when c.geom is null then 'no centroid'
        else 'ask'
      end,
      v_cluster,
      v_key,
      tickets.location_query(p_location_name),
      (c.geom::point)[1],
      (c.geom::point)[0],
      c.guard_km::double precision,
      (tickets_ops.answers(v_cluster, v_key, p_provider)).queries
    from (select 1) as always
    left join tickets.geo_locations l on l.cluster = v_cluster and l.location_key = v_key
    left join tickets.geo_clusters c on c.cluster = v_cluster;
end
$$;
comment on function tickets_ops.location_question(text, text, boolean, text) is
  'What a geocode_location job has to ask. state: ask, known (an answer that has not expired), verified, no centroid (the cluster comes first), unknown cluster, nothing to ask (no cluster, or a name of network codes only). name: what the provider reads; lat, lng, guard_km: of the cluster; answered: queries that p_provider has answered already. p_force asks although known.';
--! EndIncluded questions.sql
--! Included resolving.sql
-- What becomes of a place's answers. Both a question and its answers are idempotent: a job may ask again.
--
-- Writing a gazetteer excludes writing tickets (placing.sql). One that waits for the lock holds up every batch that
-- comes after it, so a verdict does not wait: while a load is writing, it is "busy" and the job comes back with its answers.

create or replace function tickets_ops.answers_count_since() returns timestamptz language sql stable
return now() - interval '1 day';
comment on function tickets_ops.answers_count_since() is 'Answers that came before are of an earlier job that never ended: they do not count, and fleettickets_maintain removes them.';

create or replace function tickets_ops.answers(
  p_cluster text, p_location_key text, p_provider text, out candidates jsonb, out queries text[]
)
language sql stable set search_path = pg_catalog, pg_temp as $$
  with fresh as (
    select * from tickets_ops.geocoding_answers
    where cluster = p_cluster and location_key = p_location_key and provider = p_provider
      and answered_at > tickets_ops.answers_count_since()
  )
  select
    (
      select coalesce(jsonb_agg(c.candidate order by f.answered_at, f.query, c.no), '[]')
      from fresh f cross join lateral jsonb_array_elements(f.candidates) with ordinality as c (candidate, no)
    ),
    (select coalesce(array_agg(f.query order by f.answered_at, f.query), '{}') from fresh f);
$$;
comment on function tickets_ops.answers(text, text, text) is 'All candidates of the place that is being asked, in the order they came, and the queries. p_location_key empty: of the cluster. Answers of another provider, or older than a day, are of an earlier job that never ended: they do not count.';

create or replace function tickets_ops.distrust_answers(p_provider text) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
  v_since constant timestamptz := (select found_at from tickets_ops.geocoding_providers where provider = p_provider);
  v_until constant timestamptz := now() + interval '1 hour';
  v_before boolean := tickets_ops.as_pipeline(true);
begin
  delete from tickets_ops.geocoding_answers where provider = p_provider and answered_at > v_since and candidates = '[]';
  update tickets.geo_locations
  set expires_at = v_until, attempts = greatest(attempts - 1, 0)
  where provider = p_provider and status = 'not_found' and not verified and fetched_at > v_since and expires_at > v_until;
  update tickets.geo_clusters
  set expires_at = v_until, attempts = greatest(attempts - 1, 0)
  where provider = p_provider and geom is null and not verified and fetched_at > v_since and expires_at > v_until;
  perform tickets_ops.as_pipeline(v_before);
end
$$;
comment on function tickets_ops.distrust_answers(text) is 'A provider is suspected: what it did not find since it last found anything expires in an hour, and does not count as an attempt.';

create or replace function tickets_ops.resolve_cluster(p_cluster text, p_provider text, p_last boolean) returns text
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
  v_answers record;
  v_verdict record;
  v_before boolean;
begin
  select * into v_answers from tickets_ops.answers(p_cluster, '', p_provider);
  select verdict.* into v_verdict
  from (select 1) as always
  left join tickets.geo_clusters c on c.cluster = p_cluster
  cross join lateral tickets_ops.judge_cluster(
    v_answers.candidates, tickets_ops.cluster_name_key(p_cluster), tickets_ops.cluster_region(p_cluster),
    coalesce(c.guard_km, tickets.default_guard_km()) -- it may have no row yet
  ) as verdict;
  if v_verdict.geom is null and not p_last then
    return null;
  end if;
  if not pg_try_advisory_xact_lock(tickets.gazetteer_lock()) then
    return 'busy';
  end if;
  v_before := tickets_ops.as_pipeline(true);
  insert into tickets.geo_clusters as c (cluster, geom, provider, query, candidates, note, attempts, fetched_at, expires_at)
  values (
    p_cluster, v_verdict.geom, p_provider, array_to_string(v_answers.queries, ' | '), v_answers.candidates, v_verdict.note,
    case when v_verdict.geom is null then 1 else 0 end, now(),
    case when v_verdict.geom is null then tickets_ops.answer_expires_at('not_found', 1, null, now()) end
  )
  on conflict (cluster) do update set
    -- Asked by force and not found: the old centroid is still the best there is.
    geom = coalesce(excluded.geom, c.geom),
    provider = excluded.provider, query = excluded.query, candidates = excluded.candidates, note = excluded.note,
    attempts = case when excluded.geom is null then c.attempts + 1 else 0 end,
    fetched_at = excluded.fetched_at,
    expires_at = case
      when excluded.geom is null and c.geom is null then tickets_ops.answer_expires_at('not_found', c.attempts + 1, null, now())
    end;
  perform tickets_ops.flag_suspicious(p_cluster);
  perform tickets_ops.as_pipeline(v_before);
  if v_verdict.geom is null then
    -- Its places wait in vain: they end.
    perform tickets_ops.wake_locations(p_cluster);
  end if;
  delete from tickets_ops.geocoding_answers where cluster = p_cluster and location_key = '';
  return case when v_verdict.geom is null then 'not_found' else 'found' end;
end
$$;
comment on function tickets_ops.resolve_cluster(text, text, boolean) is
  'Judges the answers for a cluster and writes its centroid, or that none was found. Returns found or not_found; busy, and nothing is written, while a load writes tickets; NULL, and nothing is written, when nothing was found and p_last is false: a simpler query may follow.';

create or replace function tickets_ops.resolve_location(
  p_cluster text, p_location_key text, p_location_name text, p_provider text, p_last boolean
)
returns text language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
  v_answers record;
  v_verdict record;
  v_locked boolean;
  v_found_days numeric := (select found_days from tickets_ops.geocoding_providers where provider = p_provider);
  v_before boolean;
begin
  select * into v_answers from tickets_ops.answers(p_cluster, p_location_key, p_provider);
  -- Twice: before the lock, which most verdicts that are not the last do not need, and under it, since until then a person
  -- may have moved the centroid or the guard.
  foreach v_locked in array array[false, true] loop
    select verdict.* into v_verdict
    from tickets.geo_clusters c
    cross join lateral tickets_ops.judge_location(v_answers.candidates, p_location_key, p_cluster, c.geom, c.guard_km) as verdict
    where c.cluster = p_cluster and c.geom is not null;
    if not found then
      raise exception 'The cluster % has no centroid any more: its places cannot be judged.', p_cluster;
    end if;
    if v_verdict.status <> 'found' and not p_last then
      return null;
    end if;
    if not v_locked and not pg_try_advisory_xact_lock(tickets.gazetteer_lock()) then
      return 'busy';
    end if;
  end loop;
  v_before := tickets_ops.as_pipeline(true);
  -- A place that was found, and is not any more: its coordinate is still the best there is.
  update tickets.geo_locations as l
  set attempts = l.attempts + 1, fetched_at = now(), expires_at = tickets_ops.answer_expires_at('not_found', l.attempts + 1, null, now())
  where v_verdict.status = 'not_found' and l.cluster = p_cluster and l.location_key = p_location_key and l.status = 'found';
  if found then
    perform tickets_ops.as_pipeline(v_before);
    delete from tickets_ops.geocoding_answers where cluster = p_cluster and location_key = p_location_key;
    return v_verdict.status;
  end if;
  insert into tickets.geo_locations as l (
    cluster, location_key, location_name, status, geom, provider, query, precision, confidence, distance_km, candidates, note,
    attempts, fetched_at, expires_at
  )
  values (
    p_cluster, p_location_key, p_location_name, v_verdict.status, v_verdict.geom, p_provider, array_to_string(v_answers.queries, ' | '),
    v_verdict.precision, v_verdict.confidence, v_verdict.distance_km, v_answers.candidates, v_verdict.note,
    case when v_verdict.status = 'not_found' then 1 else 0 end, now(),
    tickets_ops.answer_expires_at(v_verdict.status, 1, v_found_days, now())
  )
  on conflict (cluster, location_key) do update set
    location_name = excluded.location_name, status = excluded.status, geom = excluded.geom, provider = excluded.provider,
    query = excluded.query, precision = excluded.precision, confidence = excluded.confidence,
    distance_km = excluded.distance_km, candidates = excluded.candidates, note = excluded.note,
    attempts = case when excluded.status = 'not_found' then l.attempts + 1 else 0 end,
    fetched_at = excluded.fetched_at,
    expires_at = tickets_ops.answer_expires_at(excluded.status, l.attempts + 1, v_found_days, now());
  -- Once it is flagged any verdict may clear it: the order in which places are asked must not decide.
  if v_verdict.status = 'rejected' or exists (select from tickets.geo_clusters where cluster = p_cluster and suspicious) then
    perform tickets_ops.flag_suspicious(p_cluster);
  end if;
  perform tickets_ops.as_pipeline(v_before);
  delete from tickets_ops.geocoding_answers where cluster = p_cluster and location_key = p_location_key;
  return v_verdict.status;
end
$$;
comment on function tickets_ops.resolve_location(text, text, text, text, boolean) is
  'Judges the answers for a place and writes the verdict, unless a person verified the row meanwhile. Returns the status; busy, and nothing is written, while a load writes tickets; NULL, and nothing is written, when nothing good was found and p_last is false: a simpler query may follow. Raises when the cluster lost its centroid meanwhile.';
--! EndIncluded resolving.sql
--! Included rescoring.sql
-- What follows when a centroid or a guard changes: the stored candidates are rescored, with no call to a provider.
-- Places that a person verified are judged by nobody.

create or replace function tickets_ops.flag_suspicious(p_cluster text) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
  -- Two rejected places may be chance.
  c_agreeing constant integer := 3;
  -- Enough to see; scoring all of a large cluster on each answer would be slow.
  c_sample constant integer := 50;
  v_suspicious boolean;
begin
  -- A centroid is probably the wrong one if places that lie beyond the guard lie together, elsewhere, and outnumber those
  -- within it. Without the guard (no centre) the judge says where each of them would be.
  with rejected as materialized (
    select l.location_key, place.geom, c.guard_km
    from (
      select * from tickets.geo_locations
      where cluster = p_cluster and status = 'rejected' and not verified
      order by fetched_at desc limit c_sample
    ) as l
    join tickets.geo_clusters c on c.cluster = l.cluster
    cross join lateral tickets_ops.judge_location(l.candidates, l.location_key, l.cluster, null, null) as place
    where place.status = 'found'
  ),
  agreement as (
    select count(*) as places
    from rejected one join rejected other on tickets_ops.distance_km(one.geom, other.geom) <= one.guard_km
    group by one.location_key
  )
  select coalesce(max(a.places), 0) >= c_agreeing and coalesce(max(a.places), 0) > (
    -- With those that a person verified, unless they lie elsewhere too.
    select count(*)
    from tickets.geo_locations l join tickets.geo_clusters c on c.cluster = l.cluster
    where l.cluster = p_cluster and l.status = 'found' and tickets_ops.distance_km(c.geom, l.geom) <= c.guard_km
  )
  into v_suspicious
  from agreement a;

  v_suspicious := v_suspicious or coalesce(
    (
      select verdict.ambiguous
      from tickets.geo_clusters c
      cross join lateral tickets_ops.judge_cluster(
        c.candidates, tickets_ops.cluster_name_key(c.cluster), tickets_ops.cluster_region(c.cluster), c.guard_km
      ) as verdict
      where c.cluster = p_cluster and not c.verified
    ),
    false
  );

  update tickets.geo_clusters
  set suspicious = v_suspicious
  where cluster = p_cluster and suspicious <> v_suspicious;
end
$$;
comment on function tickets_ops.flag_suspicious(text) is 'Sets or clears tickets.geo_clusters.suspicious: three or more rejected places agree among themselves and outnumber the found ones, or a namesake of the cluster lies far away and its region does not tell which is meant (never of a verified centroid: a person knows which). Called under as_pipeline(true).';

create or replace function tickets_ops.judge_inherited(
  p_geom geometry, p_centre geometry, p_guard_km numeric, out status text, out distance_km numeric, out doubt text
)
language plpgsql immutable parallel safe set search_path = pg_catalog, pg_temp as $$
begin
  distance_km := tickets_ops.distance_km(p_centre, p_geom);
  status := case when distance_km > p_guard_km or not tickets.in_kenya(p_geom) then 'needs_review' else 'found' end;
  doubt := 'Taken over from the Python version: beyond the guard of this cluster, or outside Kenya.';
end
$$;
comment on function tickets_ops.judge_inherited(geometry, geometry, numeric) is
  'The verdict over a coordinate without candidates, which was taken over from the Python version: of the rules only the guard and the country can be applied to it. doubt: the note of one that needs review. p_centre NULL: without the guard.';

create or replace function tickets_ops.rescore_locations(p_cluster text) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
  v_before boolean := tickets_ops.as_pipeline(true);
begin
  -- Relies on the primary key (cluster, location_key). Nothing is known about a place without candidates and coordinate.
  update tickets.geo_locations l
  set
    status = judged.status, geom = judged.geom, precision = judged.precision, confidence = judged.confidence,
    distance_km = judged.distance_km, note = judged.note,
    expires_at = tickets_ops.answer_expires_at(judged.status, l.attempts, judged.found_days, l.fetched_at)
  from (
    select
      stored.location_key, verdict.*,
      (select p.found_days from tickets_ops.geocoding_providers p where p.provider = stored.provider) as found_days
    from tickets.geo_clusters c
    join tickets.geo_locations stored on stored.cluster = c.cluster
    cross join lateral tickets_ops.judge_location(
      stored.candidates, stored.location_key, stored.cluster, c.geom, c.guard_km
    ) as verdict
    where c.cluster = p_cluster and c.geom is not null and not stored.verified and stored.candidates <> '[]'
  ) as judged
  where l.cluster = p_cluster and l.location_key = judged.location_key
    and (l.status, l.geom::bytea, l.distance_km, l.note)
      is distinct from (judged.status, judged.geom::bytea, judged.distance_km, judged.note);

  update tickets.geo_locations l
  set
    status = judged.status,
    distance_km = judged.distance_km,
    -- What else the note says, of the takeover or by a person, stays.
    note = case judged.status when 'needs_review' then coalesce(l.note, judged.doubt) else nullif(l.note, judged.doubt) end,
    -- From today on, as when it was taken over: nobody knows how old the coordinate is.
    expires_at = case
      when judged.status = l.status then l.expires_at
      else tickets_ops.answer_expires_at(judged.status, 1, judged.found_days, now())
    end
  from (
    select
      stored.location_key, verdict.*,
      (select p.found_days from tickets_ops.geocoding_providers p where p.provider = stored.provider) as found_days
    from tickets.geo_clusters c
    join tickets.geo_locations stored on stored.cluster = c.cluster
    cross join lateral tickets_ops.judge_inherited(stored.geom, c.geom, c.guard_km) as verdict
    where c.cluster = p_cluster and c.geom is not null and not stored.verified and stored.candidates = '[]'
      and stored.geom is not null
  ) as judged
  where l.cluster = p_cluster and l.location_key = judged.location_key
    and (l.status, l.distance_km) is distinct from (judged.status, judged.distance_km);

  perform tickets_ops.flag_suspicious(p_cluster);
  perform tickets_ops.as_pipeline(v_before);
end
$$;
comment on function tickets_ops.rescore_locations(text) is 'Rescores a cluster''s places: judges their stored candidates against its present centroid and guard, without a call. Verified rows stay.';

create or replace function tickets_ops.places_of(p_cluster text, out within bigint, out beyond bigint, out rejected bigint)
language sql stable set search_path = pg_catalog, pg_temp as $$
  -- Relies on the primary key (cluster, location_key).
  select
    count(*) filter (where l.status = 'found' and km <= c.guard_km),
    count(*) filter (where l.status = 'found' and km > c.guard_km),
    count(*) filter (where l.status = 'rejected' and l.distance_km > c.guard_km)
  from tickets.geo_clusters c
  join tickets.geo_locations l on l.cluster = c.cluster
  cross join lateral tickets_ops.distance_km(c.geom, l.geom) as km
  where c.cluster = p_cluster
$$;
comment on function tickets_ops.places_of(text) is 'How the places of a cluster lie about its present centroid: found within its guard, found beyond it (a person put them there), and rejected because all that is known of them lies beyond it.';

create or replace function tickets_ops.is_far_from_its_places(p_cluster text) returns boolean
language sql stable security definer set search_path = pg_catalog, pg_temp
return (select p.beyond > p.within or (p.within = 0 and p.rejected > 0) from tickets_ops.places_of(p_cluster) as p);
comment on function tickets_ops.is_far_from_its_places(text) is 'Whether a cluster''s centroid is probably the wrong one: more of its places lie beyond its guard than within, or nothing but rejected ones is known.';

create or replace function tickets_ops.cluster_changed() returns trigger
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
begin
  if new.geom is not null then
    perform tickets_ops.rescore_locations(new.cluster);
    if tg_op = 'INSERT' or old.geom is null then
      perform tickets_ops.wake_locations(new.cluster);
      -- Places of a cluster that nobody knew have no job.
      perform tickets_ops.plan_geocoding(array[new.cluster]);
    end if;
    if not tickets_ops.is_pipeline() and tickets_ops.is_far_from_its_places(new.cluster) then
      raise notice 'Most known places of % lie beyond its guard of % km. It is taken as you set it; see tickets_ops.review_queue.',
        new.cluster, new.guard_km;
    end if;
  end if;
  return null;
end
$$;
comment on function tickets_ops.cluster_changed() is 'Trigger: a centroid came or moved, or a guard was widened or narrowed; the cluster''s places are rescored and those that waited for it are planned and asked. Security definer: whoever corrects a centroid need not be allowed to touch jobs.';
--! EndIncluded rescoring.sql
--! Included planning.sql
-- Which places are to be asked, and the jobs for them.

create or replace function tickets_ops.places_to_geocode(p_clusters text[] default null)
returns table (
  task text, cluster text, location_key text, location_name text, tickets bigint, newest_at timestamptz, reason text, has_centroid boolean
)
language plpgsql stable set search_path = pg_catalog, pg_temp as $$
#variable_conflict use_column
declare
  v_keys constant text[] := array(select tickets.cluster_key(name) from unnest(p_clusters) as name);
begin
  return query
    with places as materialized (
      select p.cluster_key, p.cluster, p.location_key, p.location_name, p.without_coordinates as tickets, least(p.newest_at, now()) as newest_at
      from tickets.open_places p
      where p.without_coordinates > 0 and (v_keys = '{}' or p.cluster_key = any (v_keys))
    ),
    clusters as (
      select
        p.cluster_key,
        -- As the gazetteers write it, else as its tickets do.
        coalesce(tickets.known_spelling(p.cluster_key), (array_agg(p.cluster order by p.tickets desc, p.cluster))[1]) as cluster,
        sum(p.tickets)::bigint as tickets, max(p.newest_at) as newest_at
      from places p group by p.cluster_key
    )
    select 'geocode_cluster', p.cluster, null::text, null::text, p.tickets, p.newest_at,
      case when c.fetched_at is null then 'never asked' else 'not found, due again' end,
      false
    from clusters p left join tickets.geo_clusters c on c.cluster = p.cluster
    where c.geom is null and coalesce(c.verified, false) = false and (c.expires_at is null or c.expires_at <= now())
    union all
    select 'geocode_location', n.cluster, p.location_key, p.location_name, p.tickets, p.newest_at,
      case when l.cluster is null then 'never asked' when l.status = 'found' then 'expired' else l.status || ', due again' end,
      c.geom is not null
    from places p
    join clusters n on n.cluster_key = p.cluster_key
    left join tickets.geo_clusters c on c.cluster = n.cluster
    left join tickets.geo_locations l on l.cluster = n.cluster and l.location_key = p.location_key
    where p.location_key is not null
      and (l.cluster is null or (not l.verified and l.expires_at <= now()))
      -- Nobody knows where its cluster is, so nothing that is found could be checked.
      and not coalesce(tickets_ops.is_unresolvable(c), false)
    order by 1, 6 desc, 5 desc, 2, 3;
end
$$;
comment on function tickets_ops.places_to_geocode(text[]) is
  'Clusters and places of the actionable tickets of all datasets that are on (tickets.open_places) that are unknown or whose answer has expired, clusters first, then by newest ticket and number of tickets. p_clusters: only those. A place without has_centroid waits for its cluster; where that was asked in vain lately, or a person took its centroid away, it is not listed. Tickets with coordinates of their own, or without a cluster, need none.';

create or replace function tickets_ops.planning_lock() returns bigint language sql immutable parallel safe
return 7405120260616;
comment on function tickets_ops.planning_lock() is 'Key of the advisory lock of transactions that plan geocoding: two at once would add jobs of the same places in two orders, and each wait for the other.';

create or replace function tickets_ops.plan_geocoding(p_clusters text[] default null) returns integer
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
  v_planned integer;
begin
  -- Without a provider there is nobody to ask: tickets stay at their clusters, and tickets_ops.geocoding says why.
  if not exists (select from tickets_ops.geocoding_setup where provider is not null) then
    return 0;
  end if;
  perform pg_advisory_xact_lock(tickets_ops.planning_lock()); -- always after the gazetteers'
  with wanted as materialized (
    select
      p.*,
      case p.task
        when 'geocode_cluster' then tickets_ops.cluster_job_key(p.cluster)
        else tickets_ops.location_job_key(p.cluster, p.location_key)
      end as key,
      row_number() over (order by p.task, p.newest_at desc, p.tickets desc, p.cluster, p.location_key) as rank
    from tickets_ops.places_to_geocode(p_clusters) p
  ),
  revived as (
    -- A job that failed keeps its place's key; the place gets another chance a day later. Not what was given up: it would
    -- only fail again, but for what a person asked for, since what stood in its way may be gone.
    select tickets_ops.run_jobs_now(array_agg(j.id), p_attempts := 0) as jobs
    from tickets_ops.queued_jobs() j join wanted w on w.key = j.key
    where j.attempts >= j.max_attempts and j.locked_at is null and j.updated_at < now() - interval '1 day'
      and not (coalesce(j.flags ? 'given_up', false) and coalesce(tickets_ops.readable_payload(j.payload) ->> 'planned', '') = 'true')
  ),
  new as (
    -- A job that waits already keeps its turn, and what a person asked for keeps its priority.
    select w.* from wanted w where not exists (select from tickets_ops.queued_jobs() j where j.key = w.key)
  ),
  added as (
    select tickets_ops.enqueue_all(
      array_agg(n.task order by n.rank),
      array_agg(
        json_strip_nulls(json_build_object('location_name', n.location_name, 'cluster', n.cluster, 'planned', true)) order by n.rank
      ),
      array_agg(n.key order by n.rank),
      -- Microseconds keep the order. A place without a centroid is woken by tickets_ops.wake_locations.
      array_agg(
        case when n.task = 'geocode_location' and not n.has_centroid then now() + interval '1 day' else now() end
          - interval '1 second' + n.rank * interval '1 microsecond'
        order by n.rank
      ),
      -- Among places those with the newest tickets first, by the day.
      array_agg(
        policy.priority + case n.task
          when 'geocode_location' then least(9, floor(extract(epoch from now() - n.newest_at) / 86400))::integer
          else 0
        end
        order by n.rank
      )
    ) as jobs
    from new n join tickets_ops.job_policy() policy on policy.task = n.task
    having count(*) > 0
  )
  select coalesce((select jobs from added), 0) + (select jobs from revived) into v_planned;
  return v_planned;
end
$$;
comment on function tickets_ops.plan_geocoding(text[]) is
  'Adds one job per unknown or expired cluster and place of actionable tickets, of all datasets that are on, unless one waits already, and tries those again that failed a day ago; finalize_snapshot and fleettickets_maintain call it, and a centroid that comes, for its cluster (p_clusters). Returns how many. Call it with the gazetteer lock (tickets.gazetteer_lock) shared: a place planned while its centroid is being written would wait for it in vain. Does nothing without a provider.';
--! EndIncluded planning.sql
--! Included on-demand.sql
-- What a person asks for, ahead of all that is planned: a look at the bucket, the place of a cluster or location.

create or replace function tickets_ops.fetch_now(dataset text default 'inc', force boolean default false)
returns table (job_id bigint, job_key text, already_waiting boolean, note text)
language plpgsql security definer set search_path = pg_catalog, pg_temp set lock_timeout = '10s' as $$
#variable_conflict use_column
declare
  v_force boolean := coalesce(fetch_now.force, false);
  v_key text := tickets_ops.fetch_job_key(fetch_now.dataset, case when v_force then 'force' else 'newest' end);
  v_waiting boolean;
  v_in_flight text;
  v_job_id bigint;
begin
  if fetch_now.dataset is null or fetch_now.dataset not in ('inc', 'crq') then
    raise exception 'There is no dataset %.', coalesce(quote_literal(fetch_now.dataset), 'NULL')
      using hint = 'inc or crq: select * from tickets_ops.fetch_now(''inc'');';
  end if;
  if fetch_now.dataset not in (select tickets.datasets()) then
    raise exception '% is off: nothing of it is loaded.', fetch_now.dataset using hint = 'Set CRQ_ENABLED=true on the workers.';
  end if;
  v_waiting := exists (
    select from tickets_ops.list_jobs() j where j.key = v_key and j.state in ('ready', 'scheduled', 'retrying')
  );
  select format('Snapshot %s is %s; it waits for that.', s.snapshot_id, s.status) into v_in_flight
  from tickets_ops.snapshots s
  where s.dataset = fetch_now.dataset and s.in_flight;
  v_job_id := tickets_ops.enqueue(
    'fetch_snapshot',
    jsonb_strip_nulls(jsonb_build_object('dataset', fetch_now.dataset, 'force', case when v_force then true end))::json,
    v_key, now()
  );
  if v_job_id is null then
    raise exception 'The job % is being taken by a worker at this moment.', v_key using hint = 'Ask again.';
  end if;
  return query select v_job_id, v_key, v_waiting, concat_ws(' ',
    case when v_waiting then 'It waited already, and is due now.' else 'The bucket is looked at now.' end,
    v_in_flight,
    case when not exists (select from tickets_ops.worker_states() w where w.state in ('alive', 'unsure')) then 'But no worker is alive.' end
  );
exception when lock_not_available then
  perform tickets_ops.raise_blocked();
end
$$;
comment on function tickets_ops.fetch_now(text, boolean) is 'Looks at the bucket now: select * from tickets_ops.fetch_now(). force: loads the newest file again, although it is unchanged, failed or archived; of a feed of changes the one that stops those behind it, where one does. Returns the job''s id and key, whether such a job waited already, and a note. Raises for a dataset other than inc and crq, and when others hold the job for ten seconds.';

create or replace function tickets_ops.enqueue_on_demand(p_task text, p_key text, p_payload jsonb, p_force boolean, p_known text)
returns table (job_id bigint, job_key text, already_waiting boolean, note text)
language plpgsql set search_path = pg_catalog, pg_temp set lock_timeout = '10s' as $$
#variable_conflict use_column
declare
  v_priority constant integer := (select on_demand_priority from tickets_ops.job_policy(p_task));
  v_warning constant text := case when not tickets_ops.has_tickets(p_payload ->> 'cluster') then
    format('No ticket has the cluster "%s".', p_payload ->> 'cluster') end;
  v_waiting record;
  v_job_id bigint;
  v_provider text := (
    select case when g.state <> 'ready' then format('It waits: %s. %s', g.state, g.reason) end
    from tickets_ops.geocoding g where g.active limit 1
  );
begin
  if p_known = 'unknown cluster' then
    return query select
      null::bigint, p_key, false, v_warning || ' Nothing is asked: check its spelling, or ask all the same with force => true.';
    return;
  end if;
  select j.id, j.locked_at is not null as running, coalesce(tickets_ops.readable_payload(j.payload) ->> 'force', '') = 'true' as force
  into v_waiting
  from tickets_ops.queued_jobs() j
  where j.key = p_key and (j.attempts < j.max_attempts or j.locked_at is not null);

  if v_waiting.running and not p_force then
    -- Should it put itself back, it is what this person asked for, and goes first.
    perform tickets_ops.advance_job(v_waiting.id, p_priority := v_priority, p_remove := 'planned');
    return query select v_waiting.id, p_key, true, 'It is being asked at this moment.';
    return;
  end if;
  v_job_id := tickets_ops.enqueue(
    p_task,
    (p_payload || case when p_force or coalesce(v_waiting.force, false) then '{"force": true}'::jsonb else '{}' end)::json,
    p_key, now(), v_priority
  );
  if v_job_id is null then
    raise exception 'The job % is being taken by a worker at this moment.', p_key using hint = 'Ask again.';
  end if;
  return query select
    v_job_id,
    p_key,
    v_waiting.id is not null,
    concat_ws(' ',
      v_warning,
      case when v_waiting.id is not null then 'A job for it waited already; it goes first now.' end,
      case when p_known = 'verified' then 'A person verified it: it will not be asked.'
        when p_known = 'known' and not p_force then 'An answer is known: it will not be asked again without force.'
        when p_known = 'no centroid' then 'Its cluster has no centroid yet and is asked first.' end,
      v_provider
    );
exception when lock_not_available then
  perform tickets_ops.raise_blocked();
end
$$;
comment on function tickets_ops.enqueue_on_demand(text, text, jsonb, boolean, text) is 'Adds or promotes the job that a person asked for, ahead of planned ones. p_known: the state of the question, for the note; for an unknown cluster there is no job. Raises when a worker takes the job in the same moment, and when others hold it for ten seconds.';

create or replace function tickets.geocode_cluster(cluster text, force boolean default false)
returns table (job_id bigint, job_key text, already_waiting boolean, note text)
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
#variable_conflict use_column
declare
  v_cluster text := tickets_ops.cluster_name(geocode_cluster.cluster);
  v_force boolean := coalesce(geocode_cluster.force, false);
begin
  if v_cluster is null then
    raise exception 'A cluster is needed.' using hint = 'select * from tickets.geocode_cluster(''Kilimani'');';
  end if;
  return query select * from tickets_ops.enqueue_on_demand(
    'geocode_cluster', tickets_ops.cluster_job_key(v_cluster), jsonb_build_object('cluster', v_cluster), v_force,
    (select q.state from tickets_ops.cluster_question(v_cluster, v_force) q)
  );
end
$$;
comment on function tickets.geocode_cluster(text, boolean) is
  'Asks the provider where a cluster is, ahead of all planned places. force: although its centroid is known; never when a person verified it; also a cluster that no ticket and no gazetteer has. Returns the job''s id (NULL: nothing is asked) and key (a job that waits gets a new id, the key stays; see tickets_ops.jobs), whether a job for it waited already, and a note. Raises without a cluster.';

create or replace function tickets.geocode_location(location_name text, cluster text, force boolean default false)
returns table (job_id bigint, job_key text, already_waiting boolean, note text)
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
#variable_conflict use_column
declare
  v_cluster text := tickets_ops.cluster_name(geocode_location.cluster);
  v_force boolean := coalesce(geocode_location.force, false);
  v_key text := tickets.location_key(geocode_location.location_name);
begin
  if v_cluster is null then
    raise exception 'A cluster is needed: the same place name stands in many towns.'
      using hint = 'select * from tickets.geocode_location(''NW_Kilimani_FDT3'', ''Kilimani'');';
  end if;
  if v_key is null then
    raise exception 'Nothing but network codes is left of "%": there is no place to ask for.', geocode_location.location_name
      using hint = 'Its tickets stay at the centroid of their cluster. See tickets.location_key().';
  end if;
  return query select * from tickets_ops.enqueue_on_demand(
    'geocode_location', tickets_ops.location_job_key(v_cluster, v_key),
    jsonb_build_object('location_name', geocode_location.location_name, 'cluster', v_cluster), v_force,
    (select q.state from tickets_ops.location_question(geocode_location.location_name, v_cluster, v_force) q)
  );
end
$$;
comment on function tickets.geocode_location(text, text, boolean) is
  'Asks the provider where a place of a cluster is, ahead of all planned ones: select * from tickets.geocode_location(''NW_Kilimani_FDT3'', ''Kilimani''). location_name as field staff typed it. force: although an answer is known, or no ticket and no gazetteer has the cluster; never when a person verified it. Returns the job''s id (NULL: nothing is asked) and key (a job that waits gets a new id, the key stays; see tickets_ops.jobs), whether a job for it waited already, and a note. Raises without a cluster, or when nothing but network codes is left of the name.';
--! EndIncluded on-demand.sql

create trigger _600_rescore_inserted after insert on tickets.geo_clusters
  for each row when (new.geom is not null) execute function tickets_ops.cluster_changed();
create trigger _600_rescore_updated after update on tickets.geo_clusters
  for each row when (new.geom::bytea is distinct from old.geom::bytea or new.guard_km <> old.guard_km)
  execute function tickets_ops.cluster_changed();

--! split: 115-dispatch.sql
-- Dispatch: which vehicle goes where. The vehicles are the operator's (vehicles.sql); ours are the rules and the assignments.

create table tickets.dispatch_settings (
  only_row boolean primary key default true check (only_row),
  live_minutes integer not null default 15 check (live_minutes between 1 and 1440),
  stale_hours integer not null default 24 check (stale_hours between 1 and 8760),
  radius_km double precision not null default 50 check (radius_km > 0 and radius_km <= 20000),
  detour double precision not null default 1.4 check (detour between 1 and 10),
  speed_kmh double precision not null default 25 check (speed_kmh between 1 and 200),
  at_risk_bonus_km double precision not null default 10 check (at_risk_bonus_km between 0 and 1000),
  breached_bonus_km double precision not null default 5 check (breached_bonus_km between 0 and 1000),
  area geometry(Geometry, 4326) not null
    check (geometrytype(area) in ('POLYGON', 'MULTIPOLYGON') and st_isvalid(area) and not st_isempty(area)),
  check (live_minutes <= stale_hours * 60)
);
comment on table tickets.dispatch_settings is 'The rules of dispatch, one row; change them by UPDATE, from the next query on they hold.';
comment on column tickets.dispatch_settings.only_row is 'There is one row.';
comment on column tickets.dispatch_settings.live_minutes is 'A vehicle located at most so many minutes ago is live.';
comment on column tickets.dispatch_settings.stale_hours is 'One located longer ago, but at most so many hours, is stale; after that it is lost.';
comment on column tickets.dispatch_settings.radius_km is 'The longest way to a ticket that a plan makes, straight-line km from where the vehicle then is, unless the plan is asked for another.';
comment on column tickets.dispatch_settings.detour is 'Road km by straight-line km, on average: 1.4 in Kenyan towns.';
comment on column tickets.dispatch_settings.speed_kmh is 'Road km an hour in traffic, for minutes_estimate.';
comment on column tickets.dispatch_settings.at_risk_bonus_km is 'A ticket that is at risk of a breach, and so can still be saved, counts as so many road km nearer.';
comment on column tickets.dispatch_settings.breached_bonus_km is 'A ticket that is breached already counts as so many road km nearer.';
comment on column tickets.dispatch_settings.area is 'The operating area, WGS 84: a position outside is a mistake of the tracker (freshness nowhere). East Africa, because vehicles cross borders.';
insert into tickets.dispatch_settings (area) values (st_makeenvelope(28, -12, 52, 15, 4326));

create table tickets.assignments (
  assignment_id bigint generated always as identity primary key,
  ticket_id text not null,
  vehicle_id text not null,
  position integer not null check (position > 0),
  state text not null default 'assigned' check (state in ('assigned', 'done', 'released')),
  assigned_at timestamptz not null default now(),
  assigned_by text not null default session_user,
  metres double precision check (metres >= 0),
  ended_at timestamptz,
  end_reason text,
  constraint assignments_end_together check ((state = 'assigned') = (ended_at is null) and (ended_at is null) = (end_reason is null))
);
comment on table tickets.assignments is 'Which vehicle was sent to which ticket: one row each time, kept. Written by tickets.assign, assign_plan and release, and by the load that closes the ticket. It refers to tickets.inc without a foreign key, which every load would pay for.';
comment on column tickets.assignments.assignment_id is 'Order of assigning.';
comment on column tickets.assignments.ticket_id is 'tickets.inc.ticket_id. One vehicle at a time.';
comment on column tickets.assignments.vehicle_id is 'tickets.vehicles.vehicle_id, which that view may no longer list.';
comment on column tickets.assignments.position is 'The vehicle''s first, second … ticket, each once. Gaps mean nothing.';
comment on column tickets.assignments.state is 'assigned: on its way. done: a load closed the ticket. released: taken back. A ticket that is opened again starts unassigned.';
comment on column tickets.assignments.assigned_at is 'When the vehicle was sent.';
comment on column tickets.assignments.assigned_by is 'The role with which the dispatcher logged in to the database.';
comment on column tickets.assignments.metres is 'Straight line at that time, from the vehicle or, in a plan, from its ticket before. NULL: one of the places was unknown.';
comment on column tickets.assignments.ended_at is 'When it was done or released.';
comment on column tickets.assignments.end_reason is 'closed in snapshot N, or why it was released.';

-- Nobody is sent twice: of two dispatchers the second fails.
create unique index assignments_one_vehicle on tickets.assignments (ticket_id) where state = 'assigned';
-- A vehicle's tickets have an order, whoever sends it to one at the same moment.
create unique index assignments_in_order on tickets.assignments (vehicle_id, position) where state = 'assigned';

create type tickets.planned_ticket as (
  vehicle_id text,
  position integer,
  ticket_id text,
  metres double precision,
  cost_km double precision,
  sla_state text,
  at_risk boolean,
  geo_source text,
  freshness text,
  note text
);
comment on type tickets.planned_ticket is 'A row of tickets.dispatch_plan, which explains it.';

--! Included vehicles.sql
-- Vehicles: the operator's view of the tracker's table, and what may be believed of each position.

-- The operator's, who replaces it by a SELECT from the tracker's table (fleettickets vehicles): made only where it is not
-- there, and never again.
do $$
begin
  if to_regclass('tickets.vehicles') is null then
    create view tickets.vehicles as
    select
      null::text as vehicle_id, null::text as label, null::text as team, null::double precision as lng,
      null::double precision as lat, null::timestamptz as located_at, null::timestamptz as seen_at, null::boolean as moving,
      null::double precision as speed_kmh, null::text as source
    where false;
    comment on view tickets.vehicles is 'The vehicles, one row each, from a tracker''s table in this database. Empty as shipped: point it there by `fleettickets vehicles --use schema.table --apply` or by create or replace view (Postgres refuses a missing or retyped column). No migration replaces it. A table, not a view of somebody else: functions in that would run with the rights of every reader. Read tickets.vehicles_now.';
    comment on column tickets.vehicles.vehicle_id is 'The tracker''s own number of the vehicle, which assignments keep: it must not change.';
    comment on column tickets.vehicles.label is 'What people call it: registration plate or name.';
    comment on column tickets.vehicles.team is 'Team that drives it, as tickets.inc.assigned_team says it. NULL: none; then it goes to no ticket where teams must match.';
    comment on column tickets.vehicles.lng is 'WGS 84 degrees.';
    comment on column tickets.vehicles.lat is 'WGS 84 degrees.';
    comment on column tickets.vehicles.located_at is 'When the position was taken. With its time zone: a local time read as UTC lies 3 hours ahead.';
    comment on column tickets.vehicles.seen_at is 'When the tracker last reported anything, position or not. A sleeping one reports on without positions.';
    comment on column tickets.vehicles.moving is 'Whether it moved when last seen. NULL: the tracker does not say; speed_kmh then decides.';
    comment on column tickets.vehicles.speed_kmh is 'Speed at the last position, km/h.';
    comment on column tickets.vehicles.source is 'Which tracker says so, where there are several.';
  end if;
end
$$;

-- The operator's view is read here only, by a text that is parsed when it runs: what depends on it would go with it when the
-- tracker's owner drops his table with CASCADE. With the caller's rights, so no function of others runs with ours.
create or replace function tickets.tracked_vehicles()
returns table (
  vehicle_id text, label text, team text, lng double precision, lat double precision, located_at timestamptz,
  seen_at timestamptz, moving boolean, speed_kmh double precision, source text
)
language plpgsql stable rows 200 set search_path = pg_catalog, pg_temp as $$
#variable_conflict use_column
begin
  return query
    select distinct on (v.vehicle_id)
      v.vehicle_id, v.label, v.team, v.lng, v.lat, finite.located_at, finite.seen_at, v.moving, v.speed_kmh, v.source
    from tickets.vehicles v
    -- No age can be taken of infinity: one such row would be an error for all vehicles.
    cross join lateral (
      select case when isfinite(v.located_at) then v.located_at end as located_at, case when isfinite(v.seen_at) then v.seen_at end as seen_at
    ) as finite
    where v.vehicle_id is not null
    order by v.vehicle_id, finite.located_at desc nulls last, finite.seen_at desc nulls last, v.lng, v.lat;
end
$$;
comment on function tickets.tracked_vehicles() is 'tickets.vehicles, with one row for each vehicle even where that view has several: the newest position. Times of infinity are NULL.';

create or replace function tickets.lng_lat(p_lng double precision, p_lat double precision) returns geography
language sql immutable parallel safe
return case
  -- geography would wrap what is out of range, and keep NaN.
  when p_lng between -180 and 180 and p_lat between -90 and 90 then st_setsrid(st_makepoint(p_lng, p_lat), 4326)::geography
end;
comment on function tickets.lng_lat(double precision, double precision) is 'The point at a longitude and latitude, WGS 84 degrees. NULL when one of them is missing, out of range or NaN.';

create or replace view tickets.vehicles_now as
select
  v.vehicle_id,
  v.label,
  v.team,
  v.lng,
  v.lat,
  v.located_at,
  v.seen_at,
  v.moving,
  v.speed_kmh,
  v.source,
  place.geog,
  now() - v.located_at as age,
  belief.freshness,
  belief.freshness in ('live', 'parked') as usable,
  coalesce(held.assignments, 0) as open_assignments
from tickets.tracked_vehicles() v
-- A table of one row is never analyzed, and without LIMIT planned as 740: so costly that Postgres compiles the query, for a second.
cross join (select * from tickets.dispatch_settings limit 1) as s
cross join lateral (
  select case when (v.lng <> 0 or v.lat <> 0) and st_covers(s.area, point.geog::geometry) then point.geog end as geog
  from (select tickets.lng_lat(v.lng, v.lat) as geog) as point
) as place
cross join lateral (
  select case
    when place.geog is null then 'nowhere'
    when v.located_at > now() + interval '2 minutes' then 'clock'
    when v.located_at >= now() - make_interval(mins => s.live_minutes) then 'live'
    when v.located_at is not null and v.seen_at between now() - interval '60 minutes' and now() + interval '2 minutes'
      and not coalesce(v.moving, v.speed_kmh > 0) then 'parked'
    when v.located_at >= now() - make_interval(hours => s.stale_hours) then 'stale'
    else 'lost'
  end as freshness
) as belief
left join (
  select a.vehicle_id, count(*)::integer as assignments from tickets.assignments a where a.state = 'assigned' group by 1
) as held on held.vehicle_id = v.vehicle_id;
comment on view tickets.vehicles_now is 'The vehicles as of now(), one row each, with what may be believed of each position.';
comment on column tickets.vehicles_now.vehicle_id is 'The tracker''s own number of the vehicle.';
comment on column tickets.vehicles_now.label is 'What people call it: registration plate or name.';
comment on column tickets.vehicles_now.team is 'Team that drives it.';
comment on column tickets.vehicles_now.lng is 'As the tracker says it, WGS 84 degrees, believed or not: see geog.';
comment on column tickets.vehicles_now.lat is 'As the tracker says it, WGS 84 degrees, believed or not: see geog.';
comment on column tickets.vehicles_now.located_at is 'When the position was taken.';
comment on column tickets.vehicles_now.seen_at is 'When the tracker last reported anything.';
comment on column tickets.vehicles_now.moving is 'Whether it moved when last seen.';
comment on column tickets.vehicles_now.speed_kmh is 'Speed at the last position, km/h.';
comment on column tickets.vehicles_now.source is 'Which tracker says so.';
comment on column tickets.vehicles_now.geog is 'The position, for distances in metres. NULL where freshness is nowhere.';
comment on column tickets.vehicles_now.age is 'Since the position was taken; negative when that lies in the future. NULL: the tracker gave no time.';
comment on column tickets.vehicles_now.freshness is 'live: located at most live_minutes (15) ago. parked: longer ago, but seen at most 60 minutes ago and not moving then (a sleeping tracker). stale: located at most stale_hours (24) ago. lost: longer ago, or nobody knows when. clock: located more than 2 minutes in the future. nowhere: no position, 0,0, or outside the operating area (tickets.dispatch_settings).';
comment on column tickets.vehicles_now.usable is 'live or parked: a plan may send it somewhere. A stale one goes only where that is asked for.';
comment on column tickets.vehicles_now.open_assignments is 'Tickets that it is assigned to (tickets.assignments).';

create or replace function tickets_ops.foreign_vehicle_code() returns text language sql stable set search_path = pg_catalog, pg_temp as $$
  select string_agg(distinct code.name, ', ')
  from pg_rewrite r
  join pg_depend d on d.classid = 'pg_rewrite'::regclass and d.objid = r.oid
  left join pg_proc p on d.refclassid = 'pg_proc'::regclass and p.oid = d.refobjid
  left join pg_class c on d.refclassid = 'pg_class'::regclass and c.oid = d.refobjid and c.oid <> r.ev_class
  cross join lateral (
    select case
      when p.oid is not null or c.relkind = 'v' then pg_describe_object(d.refclassid, d.refobjid, 0)
      when c.relrowsecurity then format('row security of %s', pg_describe_object(d.refclassid, d.refobjid, 0))
    end as name
  ) as code
  where r.ev_class = to_regclass('tickets.vehicles') and code.name is not null
    and coalesce(p.pronamespace, c.relnamespace) <> 'tickets'::regnamespace
    and not exists (select from pg_depend e where e.classid = d.refclassid and e.objid = d.refobjid and e.deptype = 'e')
$$;
comment on function tickets_ops.foreign_vehicle_code() is 'Functions, views and row security of others that reading tickets.vehicles runs, with the rights of whoever reads it. NULL: none, as it should be.';

-- For health and metrics, which anybody's monitor asks every few seconds: so it waits for no lock, and runs nothing of others.
create or replace function tickets_ops.count_vehicles()
returns table (freshness text, vehicles bigint, severity text, trouble text)
language plpgsql stable set search_path = pg_catalog, pg_temp set lock_timeout = '200ms' set row_security = off as $$
#variable_conflict use_column
declare
  v_foreign constant text := tickets_ops.foreign_vehicle_code();
begin
  if v_foreign is not null then
    return query select null, null::bigint, 'warning', format(
      'tickets.vehicles is not counted here: reading it runs %s, with the rights of the pipeline. Read the tracker''s table itself: fleettickets vehicles prints such a view.', v_foreign);
    return;
  end if;
  return query select v.freshness, count(*), null, null from tickets.vehicles_now v group by v.freshness;
exception
  when lock_not_available then
    return query select null, null::bigint, null, 'Somebody holds a lock on the tracker''s table.';
  when others then
    return query select null, null::bigint, 'fault', format(
      'tickets.vehicles cannot be read, so no vehicle can be planned or sent: %s. fleettickets vehicles prints the view and the grants that it needs.', sqlerrm);
end
$$;
comment on function tickets_ops.count_vehicles() is 'Vehicles by their freshness (tickets.vehicles_now); or one row that says why they cannot be counted: severity fault where a person must mend tickets.vehicles, warning where it would run what others made, NULL where it is a matter of a moment (a lock).';
--! EndIncluded vehicles.sql
--! Included nearest.sql
-- Nearest vehicles of a ticket, nearest tickets of a vehicle, tickets around a point. Metres are straight lines on the WGS 84
-- spheroid. Everything here reads with the caller's rights. Compiling these queries (jit) would take longer than they do.

create or replace function tickets.require_radius(p_radius_km double precision) returns void
language plpgsql immutable parallel safe set search_path = pg_catalog, pg_temp as $$
begin
  -- NaN is greater than any number.
  if not p_radius_km between 0 and 20100 then
    raise exception 'p_radius_km is %: give kilometres from 0 to 20100, which is half way round the earth, or leave it out.', p_radius_km
      using errcode = 'invalid_parameter_value';
  end if;
end
$$;
comment on function tickets.require_radius(double precision) is 'Raises, with the right words, for a radius that makes no sense: negative, infinite, NaN. NULL is none, and makes sense.';

create or replace function tickets.require_count(p_name text, p_count integer) returns void
language plpgsql immutable parallel safe set search_path = pg_catalog, pg_temp as $$
begin
  if p_count is null or p_count < 1 then
    raise exception '% is %: give a whole number, 1 or more.', p_name, coalesce(p_count::text, 'NULL') using errcode = 'invalid_parameter_value';
  end if;
end
$$;
comment on function tickets.require_count(text, integer) is 'Raises, with the right words, for an argument (its name, its value) that must be 1 or more.';

create or replace function tickets.metres(p_from geography, p_to geography) returns double precision
language sql immutable parallel safe
return st_distance(p_from, p_to);
comment on function tickets.metres(geography, geography) is 'Metres of the straight line between two points, on the WGS 84 spheroid.';

create or replace function tickets.road_estimate(
  p_metres double precision, out road_km_estimate numeric, out minutes_estimate numeric
)
language sql stable
begin atomic
  select
    round((p_metres * s.detour / 1000)::numeric, 2),
    round((p_metres * s.detour / 1000 / s.speed_kmh * 60)::numeric, 1)
  from tickets.dispatch_settings s;
end;
comment on function tickets.road_estimate(double precision) is 'What a straight line of so many metres may be on the road: kilometres (metres × detour / 1000) and minutes at the speed of tickets.dispatch_settings. An estimate, no routing.';

-- By the index (inc_open_geog) tickets come in the order of their distance on a sphere, which differs by up to 0.6 %: so
-- the first of them only say how far the answer reaches, and all within that distance are sorted. It also brings all the
-- tickets at the last one's place, of which the index gives any.
create or replace function tickets.open_tickets_near(
  p_point geography, p_limit integer, p_radius_km double precision, p_unassigned boolean
)
returns table (
  ticket_id text, metres double precision, road_km_estimate numeric, minutes_estimate numeric, sla_state text,
  at_risk boolean, hours_open numeric, assigned_team text, cluster text, location_name text, geo_source text, assigned_to text
)
language sql stable
begin atomic
  with nearest as materialized (
    select max(st_distance(k.geog, p_point)) as metres
    from (
      select t.geog
      from tickets.inc_open_sla t
      where t.geog is not null
        and not (p_unassigned and exists (select from tickets.assignments a where a.ticket_id = t.ticket_id and a.state = 'assigned'))
      order by t.geog <-> p_point
      limit p_limit
    ) as k
  )
  select
    t.ticket_id, st_distance(t.geog, p_point) as metres, e.road_km_estimate, e.minutes_estimate, t.sla_state, t.at_risk,
    t.hours_open, t.assigned_team, t.cluster, t.location_name, t.geo_source, held.vehicle_id
  from tickets.inc_open_sla t
  cross join lateral tickets.road_estimate(st_distance(t.geog, p_point)) as e
  left join tickets.assignments held on held.ticket_id = t.ticket_id and held.state = 'assigned'
  where st_dwithin(t.geog, p_point, (
      select least(
        -- st_distance rounds to 10 nm, st_dwithin does not.
        case when p_limit is not null then (select n.metres + 0.001 from nearest n) end,
        coalesce(p_radius_km, case when p_limit is null then s.radius_km end) * 1000
      )
      from tickets.dispatch_settings s
    ))
    and not (p_unassigned and held.vehicle_id is not null)
  -- Of two at one distance the real place comes before the centroid of a cluster.
  order by metres, t.geo_source = 'cluster', t.ticket_id
  limit p_limit;
end;
comment on function tickets.open_tickets_near(geography, integer, double precision, boolean) is 'The open tickets around a point, nearest first: at most p_limit of them (NULL: all) within p_radius_km (NULL: without p_limit the radius of tickets.dispatch_settings, else any distance). What tickets.nearest_tickets and tickets.tickets_within return; call those, which check the point.';

create or replace function tickets.nearest_tickets(
  p_vehicle_id text, p_limit integer default 10, p_radius_km double precision default null, p_unassigned boolean default true
)
returns table (
  ticket_id text, metres double precision, road_km_estimate numeric, minutes_estimate numeric, sla_state text,
  at_risk boolean, hours_open numeric, assigned_team text, cluster text, location_name text, geo_source text, assigned_to text
)
language plpgsql stable set search_path = pg_catalog, pg_temp set jit = off as $$
declare
  v_vehicle record;
begin
  perform tickets.require_count('p_limit', p_limit), tickets.require_radius(p_radius_km);
  select v.geog, v.freshness, v.age into v_vehicle from tickets.vehicles_now v where v.vehicle_id = p_vehicle_id;
  if not found then
    raise exception 'There is no vehicle % in tickets.vehicles.', p_vehicle_id using errcode = 'no_data_found';
  elsif v_vehicle.geog is null then
    -- Nearest to NULL would be any tickets, without an error.
    raise notice 'Nobody knows where vehicle % is: its position is missing, 0,0 or outside the operating area.', p_vehicle_id;
    return;
  elsif v_vehicle.freshness not in ('live', 'parked') then
    raise notice 'The position of vehicle % is %: %.', p_vehicle_id, v_vehicle.freshness, case
      when v_vehicle.age is null then 'nobody knows when it was taken'
      when v_vehicle.age < interval '0' then format('its time lies %s ahead', justify_interval(date_trunc('minute', -v_vehicle.age)))
      else format('taken %s ago', justify_interval(date_trunc('minute', v_vehicle.age)))
    end;
  end if;
  return query select * from tickets.open_tickets_near(v_vehicle.geog, p_limit, p_radius_km, p_unassigned);
end
$$;
comment on function tickets.nearest_tickets(text, integer, double precision, boolean) is 'The open tickets nearest to a vehicle, at most p_limit, within p_radius_km (default: any distance). p_unassigned (default true): only those that no vehicle is assigned to; assigned_to says which. metres are a straight line; road_km_estimate and minutes_estimate follow from it (tickets.dispatch_settings). geo_source cluster: the ticket lies somewhere in that cluster. Ties: real places first, then by id. Errors: there is no such vehicle; a limit or radius that makes no sense. A vehicle nowhere: no rows and a notice.';

create or replace function tickets.tickets_within(p_lng double precision, p_lat double precision, p_radius_km double precision)
returns table (
  ticket_id text, metres double precision, road_km_estimate numeric, minutes_estimate numeric, sla_state text,
  at_risk boolean, hours_open numeric, assigned_team text, cluster text, location_name text, geo_source text, assigned_to text
)
language plpgsql stable set search_path = pg_catalog, pg_temp set jit = off as $$
declare
  v_point record;
begin
  perform tickets.require_radius(p_radius_km);
  select tickets.lng_lat(p_lng, p_lat) as geog into v_point;
  if v_point.geog is null then
    raise exception 'Longitude % and latitude % are no place on earth.', p_lng, p_lat using errcode = 'invalid_parameter_value';
  end if;
  return query select * from tickets.open_tickets_near(v_point.geog, null, p_radius_km, false);
end
$$;
comment on function tickets.tickets_within(double precision, double precision, double precision) is 'All open tickets within p_radius_km (NULL: the radius of tickets.dispatch_settings) of a point in WGS 84 degrees, nearest first, assigned or not. Columns as in tickets.nearest_tickets. Errors: the point is missing or out of range; a radius that makes no sense.';

-- Over all vehicles: they are hundreds, in somebody else's table, which may have no index on the position.
create or replace function tickets.nearest_vehicles(
  p_ticket_id text, p_limit integer default 5, p_radius_km double precision default null, p_stale boolean default false
)
returns table (
  vehicle_id text, label text, team text, metres double precision, road_km_estimate numeric, minutes_estimate numeric,
  freshness text, located_at timestamptz, age interval, open_assignments integer
)
language plpgsql stable set search_path = pg_catalog, pg_temp set jit = off as $$
declare
  v_ticket record;
begin
  perform tickets.require_count('p_limit', p_limit), tickets.require_radius(p_radius_km);
  select t.geog into v_ticket from tickets.inc_open_sla t where t.ticket_id = p_ticket_id;
  if not found then
    raise exception 'There is no open ticket %.', p_ticket_id using errcode = 'no_data_found';
  elsif v_ticket.geog is null then
    raise notice 'Nobody knows where ticket % is: it has no place yet.', p_ticket_id;
    return;
  end if;
  return query
    select
      n.vehicle_id, n.label, n.team, n.metres, e.road_km_estimate, e.minutes_estimate, n.freshness, n.located_at, n.age,
      n.open_assignments
    from (
      select v.*, tickets.metres(v.geog, v_ticket.geog) as metres
      from tickets.vehicles_now v
      where v.usable or (p_stale and v.freshness = 'stale')
    ) as n
    cross join lateral tickets.road_estimate(n.metres) as e
    where p_radius_km is null or n.metres <= p_radius_km * 1000
    order by n.metres, n.vehicle_id
    limit p_limit;
end
$$;
comment on function tickets.nearest_vehicles(text, integer, double precision, boolean) is 'The usable vehicles nearest to an open ticket, at most p_limit, within p_radius_km (default: any distance). p_stale: also those located up to stale_hours ago. metres are a straight line; road_km_estimate and minutes_estimate follow from it (tickets.dispatch_settings). Ties by id. Errors: there is no such open ticket; a limit or radius that makes no sense. A ticket without a place: no rows and a notice.';
--! EndIncluded nearest.sql
--! Included matching.sql
-- The assignment problem: rows to columns, each at most once, as many as possible, then at the least total cost. Exact, and
-- pure: nothing here knows vehicles or tickets.

-- Shortest augmenting paths (Jonker and Volgenant, 1987). The rows come in one by one. A new one looks for the shortest path
-- to a free column over the pairs' reduced costs (cost less both potentials, never negative), and every row on that path
-- changes its column. A path may also end by leaving a row unmatched, which costs more than any matching can save.
-- A free column's potential is 0 and no column's is positive. So of a row's pairs, in the order of their cost, only those need
-- a look whose cost alone is less than the best path so far.
-- Their column and augmenting row reductions, which settle most rows elsewhere, are left out: of 151 tickets that 150 vehicles in a
-- depot compete for they left 92 to be searched for, and 4 883 of 5 252 looks at a row.
-- Over 100 lines: one loop of one algorithm, whose arrays would have to be handed to and fro.
create or replace function tickets_ops.shortest_augmenting_paths(
  p_last integer[], p_column integer[], p_cost double precision[], p_columns integer, p_unmatched double precision,
  out column_of integer[], out row_potential double precision[]
)
language plpgsql immutable parallel safe set search_path = pg_catalog, pg_temp as $$
declare
  c_rows constant integer := cardinality(p_last);
  c_first constant integer[] := array_prepend(1, (select array_agg(l + 1 order by nth) from unnest(p_last) with ordinality as o (l, nth)));
  v_column_potential double precision[] := array_fill(0::double precision, array[p_columns]);
  v_row_of integer[] := array_fill(0, array[p_columns]);  -- 0: free
  v_matched integer := 0;
  v_cheapest_free integer[] := c_first;                   -- of each row, its first pair with a free column
  -- Of one search:
  v_distance double precision[] := array_fill('Infinity'::double precision, array[p_columns]);  -- -Infinity: final
  v_from integer[] := array_fill(0, array[p_columns]);    -- the row from which a column was reached
  v_reached integer[];                                    -- columns whose distance is not final
  v_final integer[];
  v_final_distance double precision[];
  v_so_far double precision;
  v_limit double precision;
  v_best double precision;
  v_end integer;                                          -- the best path's last column, 0: its last row is left unmatched
  v_end_row integer;
  v_next integer;
  v_slack double precision;
  i integer;
  j integer;
begin
  column_of := array_fill(0, array[c_rows]);
  row_potential := array_fill(0::double precision, array[c_rows]);
  for v_new in 1..c_rows loop
    i := v_new;
    v_so_far := 0;
    v_best := 'Infinity';
    v_reached := '{}';
    v_final := '{}';
    v_final_distance := '{}';
    loop
      v_so_far := v_so_far - row_potential[i];
      if v_so_far + p_unmatched < v_best then
        v_best := v_so_far + p_unmatched;
        v_end := 0;
        v_end_row := i;
      end if;
      while v_cheapest_free[i] <= p_last[i] and v_row_of[p_column[v_cheapest_free[i]]] > 0 loop
        v_cheapest_free[i] := v_cheapest_free[i] + 1;
      end loop;
      if v_cheapest_free[i] <= p_last[i] and v_so_far + p_cost[v_cheapest_free[i]] < v_best then
        v_best := v_so_far + p_cost[v_cheapest_free[i]];
        v_end := p_column[v_cheapest_free[i]];
        v_end_row := i;
      end if;
      v_limit := v_best - v_so_far;
      for pair in c_first[i]..p_last[i] loop
        exit when p_cost[pair] >= v_limit; -- so are the row's later pairs
        if v_so_far + p_cost[pair] - v_column_potential[p_column[pair]] < least(v_distance[p_column[pair]], v_best) then
          j := p_column[pair];
          if v_distance[j] = 'Infinity' then
            v_reached := v_reached || j;
          end if;
          v_distance[j] := v_so_far + p_cost[pair] - v_column_potential[j];
          v_from[j] := i;
        end if;
      end loop;
      v_so_far := v_best;
      v_next := 0;
      foreach j in array v_reached loop
        if v_distance[j] < v_so_far then
          v_so_far := v_distance[j];
          v_next := j;
        end if;
      end loop;
      exit when v_next = 0;
      v_reached := array_remove(v_reached, v_next);
      v_final := v_final || v_next;
      v_final_distance := v_final_distance || v_so_far;
      v_distance[v_next] := '-Infinity';
      i := v_row_of[v_next];
    end loop;

    row_potential[v_new] := row_potential[v_new] + v_best;
    for n in 1..cardinality(v_final) loop
      j := v_final[n];
      i := v_row_of[j];
      row_potential[i] := row_potential[i] + v_best - v_final_distance[n];
      v_column_potential[j] := v_column_potential[j] - v_best + v_final_distance[n];
    end loop;
    foreach j in array v_reached || v_final loop
      v_distance[j] := 'Infinity';
    end loop;

    if v_end > 0 then
      v_matched := v_matched + 1;
    end if;
    i := v_end_row;
    j := v_end;
    loop
      v_next := column_of[i];
      column_of[i] := j;
      if j > 0 then
        v_row_of[j] := i;
      end if;
      exit when i = v_new;
      j := v_next;
      i := v_from[j];
    end loop;

    -- Rows that compete for the same columns (all vehicles in one depot): raise what all of them pay together until the next
    -- free column is as good for one of them. It halves the searches to come.
    continue when v_matched = p_columns;
    v_slack := 'Infinity';
    for r in 1..v_new loop
      continue when column_of[r] = 0;
      while v_cheapest_free[r] <= p_last[r] and v_row_of[p_column[v_cheapest_free[r]]] > 0 loop
        v_cheapest_free[r] := v_cheapest_free[r] + 1;
      end loop;
      v_slack := least(v_slack, case when v_cheapest_free[r] <= p_last[r] then p_cost[v_cheapest_free[r]] else p_unmatched end - row_potential[r]);
    end loop;
    if v_slack > 0 and v_slack < 'Infinity' then
      for r in 1..v_new loop
        continue when column_of[r] = 0;
        row_potential[r] := row_potential[r] + v_slack;
        v_column_potential[column_of[r]] := v_column_potential[column_of[r]] - v_slack;
      end loop;
    end if;
  end loop;
end
$$;
comment on function tickets_ops.shortest_augmenting_paths(integer[], integer[], double precision[], integer, double precision) is 'For each row its column, 0 for none, and its potential: no row pays more than that, and a column to which it lists no pair, costing more, would not better the matching. The pairs of row i are those up to p_last[i], after those of row i - 1, sorted by cost; p_unmatched: what leaving a row unmatched costs, more than any matching can save. Time is spent where rows compete: prefer as rows what comes cheapest first. Called by tickets_ops.min_cost_matching.';

-- Each node of the smaller side needs only its n cheapest pairs (n: its size), because the others take n - 1 columns at most: a
-- costlier pair of a best matching can always be exchanged for a free one of the n. True with forbidden pairs too.
-- Which side comes in row by row changes the time only: the smaller one, unless most of it wants the same columns (its n
-- cheapest pairs reach fewer than 2 n). Then the columns, cheapest first (measured at 200 × 2 000: 0.02 against 0.15 s with
-- vehicles spread out, 0.5 against 0.2 s with all in one depot).
create or replace function tickets_ops.min_cost_matching(p_row integer[], p_column integer[], p_cost double precision[])
returns table (row_no integer, column_no integer)
language plpgsql immutable parallel safe set search_path = pg_catalog, pg_temp as $$
declare
  n record;
  v record;
begin
  select max(r) > max(c) as more_rows, least(max(r), max(c)) as smaller, cardinality(p_row) > least(max(r), max(c)) ^ 2 as prunes
  into n
  from unnest(p_row, p_column) as p (r, c);
  if n.smaller is null then
    return;
  end if;
  with pair as (
    select case when n.more_rows then c else r end as small, case when n.more_rows then r else c end as large, cost
    from unnest(p_row, p_column, p_cost) as p (r, c, cost)
  ),
  ranked as (
    select small, large, cost, row_number() over (partition by small order by cost, large) as nth from pair
  ),
  kept as materialized (
    select small, large, cost from ranked where n.prunes and nth <= n.smaller
    union all
    select small, large, cost from pair where not n.prunes
  ),
  contest as materialized (
    select count(*) < 2 * n.smaller as contested from (select from kept group by large) as reached
  ),
  turned as materialized (
    select case when contested then large else small end as here, case when contested then small else large end as there, cost
    from kept, contest
  ),
  node as materialized (
    select here, count(*) as pairs, row_number() over (order by min(cost), here) as no from turned group by here
  ),
  sorted as (
    select t.there, t.cost from turned t join node using (here) order by node.no, t.cost, t.there
  )
  select
    (select contested from contest) as contested,
    (select array_agg(here order by no) from node) as here,
    (select array_agg(last order by no) from (select no, (sum(pairs) over (order by no))::integer as last from node) as bounds) as last,
    array_agg(there) as there, array_agg(cost) as cost, max(there) as columns,
    max(cost) + n.smaller * (max(cost) - min(cost)) + abs(max(cost)) + 1 as unmatched
  into v
  from sorted;
  return query
    select case when v.contested = n.more_rows then v.here[m.no] else m.there end, case when v.contested = n.more_rows then m.there else v.here[m.no] end
    from tickets_ops.shortest_augmenting_paths(v.last, v.there, v.cost, v.columns, v.unmatched) as found
    cross join lateral unnest(found.column_of) with ordinality as m (there, no)
    where m.there > 0;
end
$$;
comment on function tickets_ops.min_cost_matching(integer[], integer[], double precision[]) is 'The matching of rows and columns with as many pairs as possible, and of these the one with the least total cost. The arguments list the allowed pairs, each once: row and column by number, from 1, and its cost, which is finite. Equal input gives equal output.';

create or replace function tickets_ops.min_cost_assignment(p_costs double precision[], p_rows integer, p_columns integer)
returns integer[] language plpgsql immutable parallel safe set search_path = pg_catalog, pg_temp as $$
begin
  if p_rows is null or p_columns is null or p_rows < 0 or p_columns < 0 or cardinality(p_costs) is distinct from p_rows::bigint * p_columns then
    raise exception 'p_costs must hold p_rows × p_columns costs: % × %, not %.', p_rows, p_columns, cardinality(p_costs)
      using errcode = 'invalid_parameter_value';
  elsif exists (select from unnest(p_costs) as c where abs(c) > 1e100 and c < 'Infinity') then
    raise exception 'A cost must lie between -1e100 and 1e100, or be Infinity where the pair is forbidden.' using errcode = 'invalid_parameter_value';
  end if;
  return array(
    select coalesce(m.column_no, 0)
    from generate_series(1, p_rows) as r (row_no)
    left join (
      select m.*
      from (
        select array_agg((nth - 1) / p_columns + 1) as row, array_agg((nth - 1) % p_columns + 1) as column, array_agg(cost) as cost
        from (select cost, nth::integer from unnest(p_costs) with ordinality as c (cost, nth)) as c
        where cost < 'Infinity' -- not true of NaN and NULL either
      ) as pairs
      cross join lateral tickets_ops.min_cost_matching(pairs.row, pairs.column, pairs.cost) as m
    ) as m using (row_no)
    order by r.row_no
  );
end
$$;
comment on function tickets_ops.min_cost_assignment(double precision[], integer, integer) is 'The assignment problem for a whole matrix: costs row by row, Infinity (or NULL, NaN) for a pair that is forbidden. The result has p_rows elements: the column of each row, from 1, or 0 for none. As many rows as possible get one, then the total cost is the least possible. Errors: the number of costs is not p_rows × p_columns; a cost beyond 1e100.';
--! EndIncluded matching.sql
--! Included dispatch-plan.sql
-- The plan: which vehicle goes to which tickets. It writes nothing. Everything here reads with the caller's rights.
-- A ticket costs a vehicle the kilometres of the way (the straight line times detour) less a bonus for its SLA. Detour, bonuses and
-- the radius are the row of tickets.dispatch_settings: to weigh them otherwise is an UPDATE (docs/dispatch.md).

-- What a plan is about --

create or replace function tickets_ops.dispatch_vehicles(p_capacity integer, p_vehicles text[], p_stale boolean)
returns table (
  no integer, vehicle_id text, team text, geog geography, freshness text, age interval, room integer, last_position integer
)
language sql stable
begin atomic
  select
    (row_number() over (order by v.vehicle_id))::integer, v.vehicle_id, lower(btrim(v.team)),
    coalesce(held.last_place, v.geog), v.freshness, v.age, p_capacity - v.open_assignments, coalesce(held.last_position, 0)
  from tickets.vehicles_now v
  left join lateral (
    select
      max(a.position) as last_position,
      (array_agg(t.geog order by a.position desc) filter (where t.geog is not null))[1] as last_place
    from tickets.assignments a left join tickets.inc t on t.ticket_id = a.ticket_id
    where a.vehicle_id = v.vehicle_id and a.state = 'assigned' -- index assignments_in_order
  ) as held on v.open_assignments > 0
  where (v.usable or (p_stale and v.freshness = 'stale'))
    and v.open_assignments < p_capacity
    and (p_vehicles is null or v.vehicle_id = any (p_vehicles));
end;
comment on function tickets_ops.dispatch_vehicles(integer, text[], boolean) is 'The vehicles that a plan may send somewhere, numbered by id: usable ones (p_stale: stale ones too) with fewer assignments than p_capacity. geog: where it starts, which is at the last ticket that it is assigned to. team: in lower case, to be compared. room: tickets that it may still take. last_position: of its tickets, 0 for none.';

create or replace function tickets_ops.dispatch_tickets(p_region text, p_cluster text, p_tickets text[])
returns table (
  no integer, ticket_id text, team text, geog geography, bonus_km double precision, sla_state text, at_risk boolean, geo_source text
)
language sql stable
begin atomic
  select
    (row_number() over (order by t.ticket_id))::integer, t.ticket_id, lower(btrim(t.assigned_team)), t.geog,
    case when t.at_risk then s.at_risk_bonus_km when t.sla_state = 'breached' then s.breached_bonus_km else 0 end,
    t.sla_state, t.at_risk, t.geo_source
  from tickets.inc_open_sla t
  cross join tickets.dispatch_settings s
  where tickets.is_of(t.cluster, t.region, t.assigned_team, p_cluster, p_region, null)
    and (p_tickets is null or t.ticket_id = any (p_tickets))
    and not exists (select from tickets.assignments a where a.ticket_id = t.ticket_id and a.state = 'assigned');
end;
comment on function tickets_ops.dispatch_tickets(text, text, text[]) is 'The open tickets that no vehicle is assigned to, numbered by id, those without a place too. team: in lower case, to be compared. bonus_km: by how much it counts as nearer: one that can still be saved from a breach more than one that is breached (tickets.dispatch_settings).';

-- What tickets cost a vehicle --

create or replace function tickets_ops.sphere_metres(p_from geography, p_to geography) returns double precision
language sql immutable parallel safe
return p_from <-> p_to;
comment on function tickets_ops.sphere_metres(geography, geography) is 'Metres between two points on a sphere: a quarter of the time that tickets.metres takes, and at most 0.57 % from it.';

create or replace function tickets_ops.within_reach(p_from geography, p_to geography, p_radius double precision) returns boolean
language sql immutable parallel safe
return (p_from <-> p_to) <= p_radius * 0.994 or ((p_from <-> p_to) <= p_radius * 1.006 and st_distance(p_from, p_to) <= p_radius);
comment on function tickets_ops.within_reach(geography, geography, double precision) is 'Whether two points are at most p_radius metres apart, in a straight line on the WGS 84 spheroid. Looks on a sphere first, which mostly says so.';

-- No index: of the tickets that it holds a plan is about few. In plpgsql, as is what follows, because a function in SQL is
-- planned anew in each of the hundreds of calls, which takes longer than it runs.
create or replace function tickets_ops.cheapest_tickets(
  p_from geography, p_team text, p_limit integer, p_km_per_metre double precision, p_radius double precision, p_bonus double precision,
  p_places geography[], p_teams text[], p_bonuses double precision[], p_taken boolean[],
  out tickets integer[], out metres double precision[], out costs double precision[], out beyond double precision
)
language plpgsql stable set search_path = pg_catalog, pg_temp set plan_cache_mode = force_generic_plan as $$
begin
  select
    coalesce(array_agg(c.ticket), '{}'), coalesce(array_agg(c.metres), '{}'), coalesce(array_agg(c.cost), '{}'),
    case when count(*) < p_limit then 'Infinity' else max(c.sphere_cost) - 0.006 * (max(c.sphere_cost) + p_bonus) end
  into tickets, metres, costs, beyond
  from (
    select near.ticket, line.metres, p_km_per_metre * line.metres - near.bonus_km as cost, near.sphere_cost
    from (
      select p.ticket, p.place, p.bonus_km, p_km_per_metre * p.sphere - p.bonus_km as sphere_cost
      from (
        select t.ticket, t.place, t.bonus_km, tickets_ops.sphere_metres(p_from, t.place) as sphere
        from unnest(p_places, p_bonuses, p_teams) with ordinality as t (place, bonus_km, team, ticket)
        where (p_taken is null or not p_taken[t.ticket]) and (p_team is null or t.team = p_team)
        offset 0 -- the distance once, not wherever it is named
      ) as p
      where p.sphere <= p_radius * 0.994 or (p.sphere <= p_radius * 1.006 and tickets.metres(p_from, p.place) <= p_radius)
      order by sphere_cost, p.ticket
      limit p_limit
    ) as near
    cross join lateral (select tickets.metres(p_from, near.place) as metres offset 0) as line
    order by cost, near.ticket
  ) as c;
end
$$;
comment on function tickets_ops.cheapest_tickets(geography, text, integer, double precision, double precision, double precision, geography[], text[], double precision[], boolean[]) is 'Tickets that cost least from a place, cheapest first: p_limit of them, found by distances on a sphere, with true metres and costs. Any other costs at least beyond (Infinity: there is no other), which may be less than the list''s last. The tickets are those in the arrays that are not taken (p_taken NULL: all), by number, within p_radius metres. p_team: only those of that team; NULL: of any. p_bonus: the largest of p_bonuses, km.';

create or replace function tickets_ops.costs_from(
  p_from geography, p_tickets integer[], p_km_per_metre double precision, p_radius double precision, p_places geography[],
  p_bonuses double precision[], p_taken boolean[], out tickets integer[], out metres double precision[], out costs double precision[]
)
language plpgsql stable set search_path = pg_catalog, pg_temp set plan_cache_mode = force_generic_plan as $$
begin
  select coalesce(array_agg(c.ticket), '{}'), coalesce(array_agg(c.metres), '{}'), coalesce(array_agg(c.cost), '{}') into tickets, metres, costs
  from (
    select t.ticket, line.metres, p_km_per_metre * line.metres - p_bonuses[t.ticket] as cost
    from unnest(p_tickets) as t (ticket)
    cross join lateral (select tickets.metres(p_from, p_places[t.ticket]) as metres offset 0) as line
    where not p_taken[t.ticket] and line.metres <= p_radius
    order by cost, t.ticket
  ) as c;
end
$$;
comment on function tickets_ops.costs_from(geography, integer[], double precision, double precision, geography[], double precision[], boolean[]) is 'What these tickets (numbers in the arrays p_places, p_bonuses and p_taken) cost from a place, cheapest first; those that are taken or beyond p_radius metres are left out.';

-- One ticket for each vehicle: the exact optimum --

-- Where vehicles are spread out, each goes to one of its cheapest few tickets. The potentials of the matching prove it: what a
-- vehicle pays in it is less than what any ticket costs that is not in its list. Nothing is returned where they do not.
create or replace function tickets_ops.plan_of_few(
  p_few integer, p_starts geography[], p_vehicle_teams text[], p_places geography[], p_bonuses double precision[], p_teams text[],
  p_km_per_metre double precision, p_radius double precision
)
returns table (vehicle integer, ticket integer)
language plpgsql stable set search_path = pg_catalog, pg_temp set jit = off as $$
declare
  c_bonus constant double precision := (select max(b) from unnest(p_bonuses) as b);
begin
  return query
    with list as materialized (
      select v.no, c.*
      from unnest(p_starts, p_vehicle_teams) with ordinality as v (start, team, no)
      cross join lateral tickets_ops.cheapest_tickets(
        v.start, v.team, p_few, p_km_per_metre, p_radius, c_bonus, p_places, p_teams, p_bonuses, null
      ) as c
    ),
    pair as (
      select
        array_agg(p.ticket order by l.no, p.nth) as tickets, array_agg(p.cost order by l.no, p.nth) as costs,
        max(p.cost) + count(distinct l.no) * (max(p.cost) - min(p.cost)) + abs(max(p.cost)) + 1 as unmatched
      from list l
      cross join lateral unnest(l.tickets, l.costs) with ordinality as p (ticket, cost, nth)
    ),
    bound as (
      select array_agg(b.last order by b.no) as lasts
      from (select l.no, (sum(cardinality(l.tickets)) over (order by l.no))::integer as last from list l) as b
    ),
    matched as materialized (
      select m.*
      from pair, bound
      cross join lateral tickets_ops.shortest_augmenting_paths(bound.lasts, pair.tickets, pair.costs, cardinality(p_places), pair.unmatched) as m
      where pair.tickets is not null
    )
    select v.no::integer, v.ticket
    from matched m
    cross join lateral unnest(m.column_of) with ordinality as v (ticket, no)
    where v.ticket > 0
      and not exists (select from list l where m.row_potential[l.no] > l.beyond);
end
$$;
comment on function tickets_ops.plan_of_few(integer, geography[], text[], geography[], double precision[], text[], double precision, double precision) is 'The plan of tickets_ops.plan_optimum, whose arguments it has, from each vehicle''s p_few cheapest tickets; no rows where one from more of them may be better.';

-- Only each vehicle's n cheapest tickets matter (n: the smaller of the two numbers; see tickets_ops.min_cost_matching).
create or replace function tickets_ops.plan_of_many(
  p_starts geography[], p_vehicle_teams text[], p_places geography[], p_bonuses double precision[], p_teams text[],
  p_km_per_metre double precision, p_radius double precision
)
returns table (vehicle integer, ticket integer)
language plpgsql stable set search_path = pg_catalog, pg_temp set jit = off as $$
declare
  c_smaller constant integer := least(cardinality(p_starts), cardinality(p_places));
  c_bonus constant double precision := (select max(b) from unnest(p_bonuses) as b);
  v_listed integer := c_smaller + c_smaller / 8 + 16; -- by distances on a sphere some behind the n-th may be among the n cheapest
  c_apart constant double precision := (select max(tickets.metres(p_starts[1], start)) from unnest(p_starts) as start);
  v_far boolean[];
  v_pairs record;
begin
  -- Where vehicles stand together (in a depot) they want the same tickets. From the first one's place to theirs it is c_apart at
  -- most; so n tickets that all of them reach bound what any of them pays, and a ticket that is dearer than that is too far.
  with ticket as materialized (
    select t.no, line.metres, p_km_per_metre * line.metres - t.bonus_km as cost
    from unnest(p_places, p_bonuses) with ordinality as t (place, bonus_km, no)
    cross join lateral (select tickets.metres(p_starts[1], t.place) as metres offset 0) as line
  ),
  nth as (
    select t.cost from ticket t where p_teams is null and t.metres <= p_radius - c_apart order by t.cost offset greatest(c_smaller, 1) - 1 limit 1
  )
  select array_agg(coalesce(t.cost > nth.cost + 2 * p_km_per_metre * c_apart + 1e-6, false) order by t.no) into v_far
  from ticket t left join nth on true;
  loop
    select
      array_agg(v.no::integer) as vehicles, array_agg(p.ticket) as tickets, array_agg(p.cost) as costs,
      bool_and(p.cost <= c.beyond) as is_complete
    into v_pairs
    from unnest(p_starts, p_vehicle_teams) with ordinality as v (start, team, no)
    cross join lateral tickets_ops.cheapest_tickets(
      v.start, v.team, v_listed, p_km_per_metre, p_radius, c_bonus, p_places, p_teams, p_bonuses, v_far
    ) as c
    cross join lateral unnest(c.tickets, c.costs) with ordinality as p (ticket, cost, nth)
    where p.nth <= c_smaller;
    exit when v_pairs.is_complete is not false;
    v_listed := cardinality(p_places) + 1;
  end loop;
  return query
    select m.row_no, m.column_no from tickets_ops.min_cost_matching(v_pairs.vehicles, v_pairs.tickets, v_pairs.costs) as m;
end
$$;
comment on function tickets_ops.plan_of_many(geography[], text[], geography[], double precision[], text[], double precision, double precision) is 'The plan of tickets_ops.plan_optimum, whose arguments it has, from all tickets that may be in it.';

create or replace function tickets_ops.plan_optimum(
  p_starts geography[], p_vehicle_teams text[], p_places geography[], p_bonuses double precision[], p_teams text[],
  p_km_per_metre double precision, p_radius double precision
)
returns table (vehicle integer, "position" integer, ticket integer, metres double precision, cost_km double precision)
language plpgsql stable set search_path = pg_catalog, pg_temp set jit = off as $$
declare
  c_few constant integer := 16;
  c_sample constant integer := 12;
  -- A few of the vehicles tell whether they are spread out: all in one depot want the same tickets.
  c_spread_out constant boolean := (
    select count(distinct wanted.no) >= 2 * c_sample
    from unnest(p_starts, p_vehicle_teams) with ordinality as v (start, team, no)
    cross join lateral tickets_ops.cheapest_tickets(
      v.start, v.team, c_few, p_km_per_metre, p_radius, 0, p_places, p_teams, p_bonuses, null
    ) as near
    cross join lateral unnest(near.tickets) as wanted (no)
    where v.no % (1 + cardinality(p_starts) / c_sample) = 0
  );
begin
  return query
    with few as materialized (
      select * from tickets_ops.plan_of_few(c_few, p_starts, p_vehicle_teams, p_places, p_bonuses, p_teams, p_km_per_metre, p_radius)
      where c_spread_out
    )
    select p.vehicle, 1, p.ticket, line.metres, p_km_per_metre * line.metres - p_bonuses[p.ticket]
    from (
      select * from few
      union all
      select * from tickets_ops.plan_of_many(p_starts, p_vehicle_teams, p_places, p_bonuses, p_teams, p_km_per_metre, p_radius)
      where not exists (select from few)
    ) as p
    cross join lateral (select tickets.metres(p_starts[p.vehicle], p_places[p.ticket]) as metres offset 0) as line;
end
$$;
comment on function tickets_ops.plan_optimum(geography[], text[], geography[], double precision[], text[], double precision, double precision) is 'The plan for one ticket each, vehicles and tickets by their number in the arrays: as many tickets as possible, then the least total cost_km. p_vehicle_teams, p_teams: NULL where teams do not matter. p_radius: metres, the longest way. Called by tickets.dispatch_plan.';

-- Several tickets for each vehicle: the globally nearest pair, again and again --

-- Each vehicle has a list of the tickets that are cheapest from where it is, and a bound: what is not in the list costs at
-- least that. The cheapest head of all lists is the next pair; a list is read anew only when its bound would be the cheapest.
-- When a vehicle has moved, its list is sorted anew, and the bound is less by the way it made.
-- (Rounds of the optimum instead made tours 68 to 99 % longer than a good reference; this, 7 to 23 %.)
create or replace function tickets_ops.greedy_tours(
  p_rooms integer[], p_starts geography[], p_vehicle_teams text[], p_places geography[], p_bonuses double precision[],
  p_teams text[], p_km_per_metre double precision, p_radius double precision
)
returns table (vehicle integer, "position" integer, ticket integer, metres double precision, cost_km double precision)
language plpgsql stable set search_path = pg_catalog, pg_temp set jit = off set plan_cache_mode = force_generic_plan as $$
declare
  c_list constant integer := 150; -- long enough to last for some moves, short enough to be sorted anew at each
  c_vehicles constant integer := cardinality(p_rooms);
  c_bonus constant double precision := (select max(b) from unnest(p_bonuses) as b);
  v_tours integer[] := array_fill(0, array[c_vehicles]); -- how many tickets each has so far
  v_taken boolean[] := array_fill(false, array[cardinality(p_places)]);
  v_at integer[] := array_fill(0, array[c_vehicles]); -- the ticket where a vehicle is, 0: where it started
  -- The lists, c_list places for each vehicle:
  v_ticket integer[] := array_fill(0, array[c_vehicles * c_list]);
  v_metres double precision[] := array_fill(0::double precision, array[c_vehicles * c_list]);
  v_cost double precision[] := v_metres;
  v_head integer[] := array_fill(1, array[c_vehicles]);
  v_last integer[] := array_fill(0, array[c_vehicles]);
  v_bound double precision[] := array_fill('-Infinity'::double precision, array[c_vehicles]);
  v_offer double precision[] := v_bound; -- what its next ticket costs at least
  v_list record;
  v_next integer;
  v_least double precision;
  i integer;
begin
  loop
    v_least := 'Infinity';
    for v in 1..c_vehicles loop
      continue when v_offer[v] >= v_least; -- it has only become dearer since
      i := v_head[v];
      while i <= v_last[v] and v_taken[v_ticket[i]] loop
        i := i + 1;
      end loop;
      v_head[v] := i;
      v_offer[v] := v_bound[v];
      if i <= v_last[v] and v_cost[i] <= v_bound[v] then
        v_offer[v] := v_cost[i];
      end if;
      if v_offer[v] < v_least then
        v_least := v_offer[v];
        v_next := v;
      end if;
    end loop;
    exit when v_least = 'Infinity';

    i := v_head[v_next];
    v_offer[v_next] := '-Infinity';
    if i <= v_last[v_next] and v_cost[i] <= v_bound[v_next] then
      v_tours[v_next] := v_tours[v_next] + 1;
      vehicle := v_next;
      "position" := v_tours[v_next];
      ticket := v_ticket[i];
      metres := v_metres[i];
      cost_km := v_cost[i];
      return next;
      v_taken[ticket] := true;
      p_rooms[v_next] := p_rooms[v_next] - 1;
      if p_rooms[v_next] = 0 then
        v_offer[v_next] := 'Infinity';
        continue;
      end if;
      v_at[v_next] := ticket;
      select * into v_list
      from tickets_ops.costs_from(p_places[ticket], v_ticket[i + 1 : v_last[v_next]], p_km_per_metre, p_radius, p_places, p_bonuses, v_taken);
      -- Out of reach so far was what costs more than the second.
      v_bound[v_next] := least(v_bound[v_next], p_km_per_metre * p_radius - c_bonus) - p_km_per_metre * metres;
    else
      select * into v_list
      from tickets_ops.cheapest_tickets(
        case v_at[v_next] when 0 then p_starts[v_next] else p_places[v_at[v_next]] end, p_vehicle_teams[v_next], c_list,
        p_km_per_metre, p_radius, c_bonus, p_places, p_teams, p_bonuses, v_taken
      );
      -- Never less than its head, or it would be read for ever where a hundred tickets lie at one place.
      v_bound[v_next] := greatest(v_list.costs[1], v_list.beyond);
    end if;
    i := (v_next - 1) * c_list;
    v_head[v_next] := i + 1;
    v_last[v_next] := i + cardinality(v_list.tickets);
    for n in 1..v_last[v_next] - i loop
      v_ticket[i + n] := v_list.tickets[n];
      v_metres[i + n] := v_list.metres[n];
      v_cost[i + n] := v_list.costs[n];
    end loop;
  end loop;
end
$$;
comment on function tickets_ops.greedy_tours(integer[], geography[], text[], geography[], double precision[], text[], double precision, double precision) is 'Tickets for vehicles, both by their number in the arrays, in the order in which they are given away: always the pair that costs least next, the vehicle then being where that ticket is. p_rooms: how many a vehicle takes. p_vehicle_teams, p_teams: NULL where teams do not matter. p_radius: metres, the longest way. Called by tickets.dispatch_plan.';

-- The plan as people ask for it --

create or replace function tickets_ops.check_plan(p_capacity integer, p_radius_km double precision, p_same_team boolean) returns void
language plpgsql immutable set search_path = pg_catalog, pg_temp as $$
begin
  perform tickets.require_count('p_capacity', p_capacity), tickets.require_radius(p_radius_km);
  if p_same_team is null then
    raise exception 'p_same_team is NULL: give true or false.' using errcode = 'invalid_parameter_value';
  end if;
end
$$;
comment on function tickets_ops.check_plan(integer, double precision, boolean) is 'Raises, with the right words, for arguments of tickets.dispatch_plan that make no sense.';

create or replace function tickets.dispatch_plan(
  p_capacity integer default 1, p_radius_km double precision default null, p_region text default null,
  p_cluster text default null, p_same_team boolean default false, p_tickets text[] default null,
  p_vehicles text[] default null, p_stale boolean default false
)
returns setof tickets.planned_ticket language plpgsql stable set search_path = pg_catalog, pg_temp set jit = off as $$
declare
  c_radius_km constant double precision := coalesce(p_radius_km, (select s.radius_km from tickets.dispatch_settings s));
begin
  perform tickets_ops.check_plan(p_capacity, p_radius_km, p_same_team);
  return query
    with vehicle as materialized (
      select * from tickets_ops.dispatch_vehicles(p_capacity, p_vehicles, p_stale)
    ),
    ticket as materialized (
      select * from tickets_ops.dispatch_tickets(p_region, p_cluster, p_tickets)
    ),
    planned as materialized (
      select v.ids[p.vehicle] as vehicle_id, v.last_positions[p.vehicle] + p.position as position, t.ids[p.ticket] as ticket_id, p.metres, p.cost_km
      from tickets.dispatch_settings s
      cross join (
        select
          array_agg(d.vehicle_id order by d.no) as ids, array_agg(d.geog order by d.no) as starts, array_agg(d.room order by d.no) as rooms,
          array_agg(d.last_position order by d.no) as last_positions, case when p_same_team then array_agg(d.team order by d.no) end as teams
        from vehicle d
        where not p_same_team or d.team is not null
      ) as v
      cross join (
        select
          array_agg(d.ticket_id order by d.no) as ids, array_agg(d.geog order by d.no) as places, array_agg(d.bonus_km order by d.no) as bonuses,
          case when p_same_team then array_agg(d.team order by d.no) end as teams
        from ticket d
        where d.geog is not null
      ) as t
      cross join lateral (
        select * from tickets_ops.plan_optimum(v.starts, v.teams, t.places, t.bonuses, t.teams, s.detour / 1000, c_radius_km * 1000)
        where p_capacity = 1
        union all
        select * from tickets_ops.greedy_tours(v.rooms, v.starts, v.teams, t.places, t.bonuses, t.teams, s.detour / 1000, c_radius_km * 1000)
        where p_capacity > 1
      ) as p
      where v.ids is not null and t.ids is not null
    )
    select
      p.vehicle_id, p.position, t.ticket_id, p.metres, p.cost_km, t.sla_state, t.at_risk, t.geo_source, v.freshness,
      case
        when p.vehicle_id is not null then nullif(concat_ws('; ',
          case when t.geo_source = 'cluster' then 'lies somewhere in its cluster' end,
          case when v.freshness = 'stale' then format('the vehicle was located %s ago', justify_interval(date_trunc('minute', v.age))) end
        ), '')
        when t.geog is null then 'no place is known'
        when not exists (select from vehicle) then 'no vehicle is free'
        when p_same_team and not exists (select from vehicle f where f.team = t.team) then 'no vehicle of its team is free'
        when not exists (
          select from vehicle f
          where (not p_same_team or f.team = t.team) and tickets_ops.within_reach(f.geog, t.geog, c_radius_km * 1000)
        ) then format('no free vehicle within %s km', c_radius_km)
        else 'every vehicle within reach goes elsewhere'
      end
    from ticket t
    left join planned p on p.ticket_id = t.ticket_id
    left join vehicle v on v.vehicle_id = p.vehicle_id
    union all
    -- Asked for by number, and not to be planned.
    select
      null, null, asked.ticket_id, null, null, null, null, null, null,
      case
        when held.vehicle_id is not null then 'assigned already, to ' || held.vehicle_id
        when o.ticket_id is null then 'no open ticket has this number'
        else 'not in the region or cluster asked for'
      end
    from (select distinct a.ticket_id from unnest(p_tickets) as a (ticket_id) where a.ticket_id is not null) as asked
    left join tickets.inc_open_sla o on o.ticket_id = asked.ticket_id
    left join tickets.assignments held on held.ticket_id = asked.ticket_id and held.state = 'assigned'
    where not exists (select from ticket t where t.ticket_id = asked.ticket_id)
    order by 1 nulls last, 2, 3;
end
$$;
comment on function tickets.dispatch_plan(integer, double precision, text, text, boolean, text[], text[], boolean) is
'Which vehicle should go to which open ticket. It writes nothing: tickets.assign_plan carries it out. Equal data give an equal plan.

Arguments: p_capacity (default 1): tickets that a vehicle may be assigned to at once, those that it has already included. p_radius_km (default: tickets.dispatch_settings): the longest way to a ticket. p_region, p_cluster (both in any case), p_tickets: only these tickets. p_vehicles: only these vehicles. p_same_team: only tickets whose assigned_team is the vehicle''s team, in any case. p_stale: also vehicles located up to stale_hours ago.

Rows: one for each open ticket that no vehicle is assigned to (and for each of p_tickets). vehicle_id NULL: left out, and note says why. position: the vehicle''s first, second … ticket. metres: a straight line from where the vehicle then is. cost_km: metres × detour / 1000, less the bonus of a ticket that can still be saved from a breach (10 km) or is breached (5 km).

With p_capacity 1 it is the exact optimum: as many tickets as possible, then the least total cost. Above 1 the pair of vehicle and ticket that costs least comes next, again and again, the vehicle then being where that ticket is. A vehicle with an assignment starts from that ticket.

Errors: 22023 for a capacity, radius or p_same_team that makes no sense.';

-- The same problem for somebody else''s solver --

create or replace function tickets.dispatch_problem(
  p_capacity integer default 1, p_radius_km double precision default null, p_region text default null,
  p_cluster text default null, p_same_team boolean default false, p_tickets text[] default null,
  p_vehicles text[] default null, p_stale boolean default false
)
returns jsonb language sql stable set jit = off
begin atomic
  select tickets_ops.check_plan(p_capacity, p_radius_km, p_same_team);
  with vehicle as materialized (
    select v.*, dense_rank() over (order by v.team) as skill from tickets_ops.dispatch_vehicles(p_capacity, p_vehicles, p_stale) v
  ),
  ticket as materialized (
    select t.*, (select v.skill from vehicle v where v.team = t.team limit 1) as skill
    from tickets_ops.dispatch_tickets(p_region, p_cluster, p_tickets) t
    cross join tickets.dispatch_settings s
    where exists (
      select from vehicle v
      where (not p_same_team or v.team = t.team) and tickets_ops.within_reach(v.geog, t.geog, coalesce(p_radius_km, s.radius_km) * 1000)
    )
  )
  select jsonb_build_object(
    'vehicles', (
      select coalesce(jsonb_agg(
        jsonb_build_object(
          'id', v.no, 'description', v.vehicle_id, 'start', jsonb_build_array(st_x(v.geog::geometry), st_y(v.geog::geometry)),
          'capacity', jsonb_build_array(v.room)
        ) || case when p_same_team and v.team is not null then jsonb_build_object('skills', jsonb_build_array(v.skill)) else '{}' end
        order by v.no
      ), '[]')
      from vehicle v
    ),
    'jobs', (
      select coalesce(jsonb_agg(
        jsonb_build_object(
          'id', t.no, 'description', t.ticket_id, 'location', jsonb_build_array(st_x(t.geog::geometry), st_y(t.geog::geometry)),
          'delivery', jsonb_build_array(1), 'priority', least(round(t.bonus_km), 100)
        ) || case when p_same_team then jsonb_build_object('skills', jsonb_build_array(t.skill)) else '{}' end
        order by t.no
      ), '[]')
      from ticket t
    )
  );
end;
comment on function tickets.dispatch_problem(integer, double precision, text, text, boolean, text[], text[], boolean) is 'The problem of tickets.dispatch_plan as the input of VROOM (vroom-project.org), for planning on roads: vehicles and jobs by number, with our ids as description, start and location as [longitude, latitude], capacity and delivery in tickets, priority from the bonus in km, with p_same_team the teams as skills. Arguments as there; p_radius_km leaves out the tickets that are farther from where every vehicle starts, and one without a place is left out too. The answer''s steps give the numbers back. VROOM takes the routing profile car unless each vehicle names another: openrouteservice calls it driving-car.';
--! EndIncluded dispatch-plan.sql
--! Included assignments.sql
-- Assignments: who has been sent where. A ticket has one vehicle at most: the unique index assignments_one_vehicle decides, so
-- of two dispatchers one loses, and is told who has it. A vehicle's tickets are in order: the unique index assignments_in_order.

-- With its owner's rights, because it locks the ticket and writes the assignment. It does not look at the vehicles, which are
-- read by a view of others: tickets.assign does, with the caller's rights.
create or replace function tickets_ops.take_ticket(
  p_ticket_id text, p_vehicle_id text, p_position integer, p_metres double precision, p_take_over boolean
)
returns tickets.assignments language plpgsql security definer set search_path = pg_catalog, pg_temp set lock_timeout = '10s' as $$
declare
  v_mine tickets.assignments;
  v_held tickets.assignments;
begin
  -- Waits for a load that is writing the ticket; and until this commits, none closes it unseen.
  perform from tickets.inc t where t.ticket_id = p_ticket_id and t.is_actionable for share;
  if not found then
    raise exception 'There is no open ticket %.', p_ticket_id using errcode = 'no_data_found';
  end if;
  loop
    insert into tickets.assignments (ticket_id, vehicle_id, position, metres)
    select p_ticket_id, p_vehicle_id, coalesce(p_position, max(a.position) + 1, 1), p_metres
    from tickets.assignments a where a.vehicle_id = p_vehicle_id and a.state = 'assigned'
    on conflict do nothing
    returning * into v_mine;
    if found then
      return v_mine;
    end if;
    -- Another vehicle has the ticket; or this one was sent somewhere else at the same moment, and the position is taken.
    p_position := null;
    select a.* into v_held from tickets.assignments a where a.ticket_id = p_ticket_id and a.state = 'assigned' for update;
    continue when not found; -- the position, or the ticket has been given back meanwhile
    if v_held.vehicle_id = p_vehicle_id then
      return v_held;
    elsif not p_take_over then
      raise exception 'Ticket % is assigned to vehicle % already (by %, %).', p_ticket_id, v_held.vehicle_id, v_held.assigned_by,
        to_char(v_held.assigned_at at time zone 'Africa/Nairobi', 'YYYY-MM-DD HH24:MI')
        using errcode = 'object_in_use', hint = 'Take it over by p_take_over => true, or release it first.';
    end if;
    update tickets.assignments
    set state = 'released', ended_at = now(), end_reason = format('taken over by vehicle %s', p_vehicle_id)
    where assignment_id = v_held.assignment_id;
  end loop;
exception when lock_not_available then
  perform tickets_ops.raise_blocked();
  return null;
end
$$;
comment on function tickets_ops.take_ticket(text, text, integer, double precision, boolean) is 'Assigns an open ticket to a vehicle, whether or not tickets.vehicles lists that. p_position NULL, or taken by now: as its last. Called by tickets.assign and tickets.assign_plan.';

create or replace function tickets.assign(p_ticket_id text, p_vehicle_id text, p_take_over boolean default false)
returns tickets.assignments language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
  v_metres double precision;
begin
  select tickets.metres(v.geog, t.geog) into v_metres
  from tickets.vehicles_now v left join tickets.inc_open_sla t on t.ticket_id = p_ticket_id
  where v.vehicle_id = p_vehicle_id;
  if not found then
    raise exception 'There is no vehicle % in tickets.vehicles.', p_vehicle_id using errcode = 'no_data_found';
  end if;
  return tickets_ops.take_ticket(p_ticket_id, p_vehicle_id, null, v_metres, coalesce(p_take_over, false));
end
$$;
comment on function tickets.assign(text, text, boolean) is 'Sends a vehicle to an open ticket: select * from tickets.assign(''WOT0715527'', ''KDA 123A''). Returns the assignment; one that the vehicle has already is returned as it is. p_take_over: takes the ticket from the vehicle that has it. Errors: there is no such open ticket or vehicle; another vehicle has the ticket (the message says which, and who sent it); others keep the ticket locked for ten seconds.';

create or replace function tickets_ops.dispatch_lock() returns bigint language sql immutable parallel safe
return 7405120260616;
comment on function tickets_ops.dispatch_lock() is 'Key of the advisory lock that is held while a plan is made and carried out: two at once would each fill the same vehicles.';

create or replace function tickets_ops.claim_dispatch() returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp set lock_timeout = '10s' as $$
begin
  perform pg_advisory_xact_lock(tickets_ops.dispatch_lock());
exception when lock_not_available then
  perform tickets_ops.raise_blocked();
end
$$;
comment on function tickets_ops.claim_dispatch() is 'Takes tickets_ops.dispatch_lock until the end of the transaction. Raises when somebody else keeps it for ten seconds, and names the process.';

create or replace function tickets.assign_plan(
  p_capacity integer default 1, p_radius_km double precision default null, p_region text default null,
  p_cluster text default null, p_same_team boolean default false, p_tickets text[] default null,
  p_vehicles text[] default null, p_stale boolean default false
)
returns setof tickets.planned_ticket language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
  v_plan tickets.planned_ticket[];
  v_reason text;
begin
  perform tickets_ops.claim_dispatch();
  select array_agg(p order by p.ticket_id, p.position) into v_plan
  from tickets.dispatch_plan(p_capacity, p_radius_km, p_region, p_cluster, p_same_team, p_tickets, p_vehicles, p_stale) p;
  -- In the order of the tickets, as a load locks them.
  for i in 1..coalesce(cardinality(v_plan), 0) loop
    continue when v_plan[i].vehicle_id is null;
    begin
      perform tickets_ops.take_ticket(v_plan[i].ticket_id, v_plan[i].vehicle_id, v_plan[i].position, v_plan[i].metres, false);
    exception when object_in_use or no_data_found then
      get stacked diagnostics v_reason = message_text;
      v_plan[i].vehicle_id := null;
      v_plan[i].position := null;
      v_plan[i].metres := null;
      v_plan[i].cost_km := null;
      v_plan[i].freshness := null;
      v_plan[i].note := v_reason;
    end;
  end loop;
  return query select * from unnest(v_plan) as p order by p.vehicle_id nulls last, p.position, p.ticket_id;
end
$$;
comment on function tickets.assign_plan(integer, double precision, text, text, boolean, text[], text[], boolean) is 'Makes tickets.dispatch_plan and assigns it, in one transaction; arguments and rows as there. A ticket that somebody else assigned, or a load closed, meanwhile is left out, and its note says so. Plans that are carried out at the same time take turns, so that none fills a vehicle beyond p_capacity.';

create or replace function tickets.release(p_ticket_id text, p_reason text)
returns tickets.assignments language plpgsql security definer set search_path = pg_catalog, pg_temp set lock_timeout = '10s' as $$
declare
  v_released tickets.assignments;
begin
  if coalesce(btrim(p_reason), '') = '' then
    raise exception 'Say why ticket % is released.', p_ticket_id using errcode = 'invalid_parameter_value';
  end if;
  update tickets.assignments set state = 'released', ended_at = now(), end_reason = p_reason
  where ticket_id = p_ticket_id and state = 'assigned' -- index assignments_one_vehicle
  returning * into v_released;
  if not found then
    raise exception 'No vehicle is assigned to ticket %.', p_ticket_id using errcode = 'no_data_found';
  end if;
  return v_released;
exception when lock_not_available then
  perform tickets_ops.raise_blocked();
  return null;
end
$$;
comment on function tickets.release(text, text) is 'Takes a ticket back from the vehicle that it is assigned to, for a reason that is kept: select * from tickets.release(''WOT0715527'', ''flat tyre''). Errors: no reason; no vehicle has the ticket; others keep it locked for ten seconds.';

create or replace function tickets_ops.end_assignments(p_snapshot_id bigint, p_first_ticket_id text, p_last_ticket_id text) returns void
language sql set search_path = pg_catalog, pg_temp as $$
  update tickets.assignments a
  set state = 'done', ended_at = now(), end_reason = format('closed in snapshot %s', p_snapshot_id)
  from tickets.inc t
  where a.state = 'assigned' and a.ticket_id between p_first_ticket_id and p_last_ticket_id -- index assignments_one_vehicle
    and t.ticket_id = a.ticket_id and t.is_actionable is not true
$$;
comment on function tickets_ops.end_assignments(bigint, text, text) is 'Ends the assignments of the tickets of a range of ids that are no longer open. A load calls it in the transaction that writes them, as a statement of its own: it then sees what a dispatcher committed while the load waited for the ticket.';

create or replace view tickets.assignments_in_doubt as
select
  a.assignment_id, a.ticket_id, a.vehicle_id, a.position, a.assigned_at, a.assigned_by, v.freshness, v.located_at, v.seen_at,
  case
    when v.vehicle_id is null then 'tickets.vehicles no longer lists the vehicle'
    else coalesce('nothing was heard of the vehicle for ' || justify_interval(date_trunc('minute', now() - heard.at)), 'nothing was ever heard of the vehicle')
  end as doubt
from tickets.assignments a
left join tickets.vehicles_now v on v.vehicle_id = a.vehicle_id
-- A clock that is years ahead says nothing; one in another time zone does.
cross join lateral (
  select max(t.at) as at from (values (v.located_at), (v.seen_at)) as t (at) where t.at <= now() + interval '12 hours'
) as heard
where a.state = 'assigned'
  and coalesce(heard.at, '-infinity') < now() - interval '12 hours';
comment on view tickets.assignments_in_doubt is 'Assignments of vehicles of which nothing was heard for 12 hours. None is released by itself: a person does it (tickets.release), or assigns the ticket anew (tickets.assign, p_take_over).';
comment on column tickets.assignments_in_doubt.assignment_id is 'tickets.assignments.assignment_id.';
comment on column tickets.assignments_in_doubt.ticket_id is 'The ticket.';
comment on column tickets.assignments_in_doubt.vehicle_id is 'The vehicle.';
comment on column tickets.assignments_in_doubt.position is 'The vehicle''s first, second … ticket.';
comment on column tickets.assignments_in_doubt.assigned_at is 'When it was sent.';
comment on column tickets.assignments_in_doubt.assigned_by is 'The database role that sent it.';
comment on column tickets.assignments_in_doubt.freshness is 'As in tickets.vehicles_now. NULL: the vehicle is gone.';
comment on column tickets.assignments_in_doubt.located_at is 'When its last position was taken.';
comment on column tickets.assignments_in_doubt.seen_at is 'When its tracker last reported anything.';
comment on column tickets.assignments_in_doubt.doubt is 'Why, in words.';
--! EndIncluded assignments.sql

--! split: 120-operations.sql
-- Operating the pipeline from SQL: who works, which jobs there are, what to do with one, how healthy all of it is.

create table tickets_ops.workers (
  pool_id text primary key,
  started_at timestamptz not null default now(),
  seen_at timestamptz not null default now(),
  host text not null,
  pid integer not null,
  sessions text not null,
  shares_sessions boolean not null default false,
  stopped_at timestamptz,
  declared_dead_at timestamptz
);
comment on table tickets_ops.workers is 'Worker processes. A live one holds the advisory lock of its pool id on a connection of its own, and registers only once it holds it: a registered pool whose lock is free is dead. Read tickets_ops.worker_states().';
comment on column tickets_ops.workers.pool_id is 'graphile-worker''s pool id: what locked_by says of its jobs.';
comment on column tickets_ops.workers.started_at is 'When the pool registered.';
comment on column tickets_ops.workers.seen_at is 'Heartbeat, every 5 s.';
comment on column tickets_ops.workers.host is 'Host or container name: `fleettickets healthcheck` asks for the one it runs on.';
comment on column tickets_ops.workers.pid is 'Process id on that host.';
comment on column tickets_ops.workers.sessions is 'application_name of all its connections, so that those of a worker that hangs can be ended.';
comment on column tickets_ops.workers.shares_sessions is 'Its connections are not sessions of their own (the embedded database): its lock says nothing, and nobody can tell whether it lives.';
comment on column tickets_ops.workers.stopped_at is 'When it shut down in good order.';
comment on column tickets_ops.workers.declared_dead_at is 'When another worker took its jobs away: if it still lives, it ends itself at its next heartbeat.';

create table tickets_ops.settings (
  name text not null,
  pool_id text not null,
  value text not null,
  recorded_at timestamptz not null default now(),
  primary key (name, pool_id)
);
comment on table tickets_ops.settings is 'Settings that SQL goes by, as each process was given them by its environment. Which of several stands says tickets_ops.setting(name).';
comment on column tickets_ops.settings.name is 'The environment''s variable.';
comment on column tickets_ops.settings.pool_id is 'The worker pool of the process (tickets_ops.workers), or `migrate`.';
comment on column tickets_ops.settings.value is 'Its value as text.';
comment on column tickets_ops.settings.recorded_at is 'When the process started.';

create table tickets_ops.schedule (
  identifier text primary key,
  task text not null,
  dataset text,
  minutes integer[] not null,
  hours integer[] not null,
  dates integer[] not null,
  months integer[] not null,
  weekdays integer[] not null,
  since timestamptz not null default now()
);
comment on table tickets_ops.schedule is 'The entries of the file crontab, as the worker that started last has them. To change the schedule, change that file: this table only tells when health should expect a look.';
comment on column tickets_ops.schedule.identifier is 'Its `id`.';
comment on column tickets_ops.schedule.task is 'What it asks for.';
comment on column tickets_ops.schedule.dataset is 'Of fetch_snapshot: whose folder is looked at. NULL for other tasks.';
comment on column tickets_ops.schedule.minutes is 'Minutes of the hour, UTC, at which it fires.';
comment on column tickets_ops.schedule.hours is 'Hours of the day, UTC: three less than in Nairobi.';
comment on column tickets_ops.schedule.dates is 'Days of the month, UTC: it fires when the date or the weekday is listed. Empty where the pattern names weekdays only.';
comment on column tickets_ops.schedule.months is 'Months, 1 to 12.';
comment on column tickets_ops.schedule.weekdays is 'Days of the week, 0 (Sunday) to 6. Empty where the pattern names dates only.';
comment on column tickets_ops.schedule.since is 'When it became what it is: a run before that was never missed.';

--! Included workers.sql
-- Which workers are alive, and by what that is known: each holds an advisory lock (src/worker/heartbeat.ts).

create or replace function tickets_ops.worker_lock(p_pool_id text, out space integer, out number integer) language sql immutable
return row(740512, hashtext(p_pool_id));
comment on function tickets_ops.worker_lock(text) is 'The two numbers of the advisory lock that a live worker pool holds.';

create or replace function tickets_ops.hung_after() returns interval language sql immutable
-- A worker that cannot reach the database ends itself after 30 s (src/worker/heartbeat.ts); a hung one does not even do that.
return interval '2 minutes';
comment on function tickets_ops.hung_after() is 'A worker that holds its lock and has not been heard of for so long is hung, and treated as dead.';

create or replace function tickets_ops.worker_states()
returns table (
  pool_id text, state text, host text, pid integer, sessions text, started_at timestamptz, seen_at timestamptz
)
language sql stable set search_path = pg_catalog, pg_temp as $$
  select
    w.pool_id,
    case
      when w.stopped_at is not null then 'stopped'
      when w.declared_dead_at is not null then 'dead'
      when w.shares_sessions then 'unsure'
      -- Looked at, not tried: a session can always take a lock that it holds itself.
      when not exists (
        select
        from pg_locks l, tickets_ops.worker_lock(w.pool_id) k
        where l.locktype = 'advisory' and l.granted and l.objsubid = 2
          and l.database = (select oid from pg_database where datname = current_database())
          and l.classid::bigint = k.space and l.objid::bigint = k.number::bigint & 4294967295
      ) then 'dead'
      when w.seen_at < now() - tickets_ops.hung_after() then 'hung'
      else 'alive'
    end,
    w.host, w.pid, w.sessions, w.started_at, w.seen_at
  from tickets_ops.workers w
$$;
comment on function tickets_ops.worker_states() is 'Registered worker pools, each with its state: alive; stopped (in good order); dead (its lock is free, or it was declared dead); hung (it holds its lock and has not been heard of for tickets_ops.hung_after()); unsure (its connections share sessions, so nobody can tell).';

create or replace function tickets_ops.free_dead_workers(p_own_pool text) returns text[]
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
  v_dead text[];
  v_set_aside bigint[];
begin
  select coalesce(array_agg(h.pool_id), '{}') into v_dead
  from tickets_ops.pools_with_work() h
  -- Only pools that registered, which ours do before they take a job: another may be another application's.
  join tickets_ops.worker_states() w using (pool_id)
  where h.pool_id <> p_own_pool and w.state in ('dead', 'hung', 'stopped');
  if v_dead = '{}' then
    return v_dead;
  end if;
  -- What it left open would keep its rows locked, and must not commit once others have its jobs.
  perform pg_terminate_backend(a.pid)
  from pg_stat_activity a
  where a.application_name in (select w.sessions from tickets_ops.worker_states() w where w.pool_id = any (v_dead) and w.state <> 'stopped')
    and a.application_name <> current_setting('application_name')
    and a.datname = current_database() and a.usename = session_user;
  update tickets_ops.workers set declared_dead_at = now() where pool_id = any (v_dead) and declared_dead_at is null;
  v_set_aside := tickets_ops.unlock_pools(v_dead);
  -- The file that it was reading when its worker died twice is not to be taken by the next look.
  perform tickets_ops.fail_snapshot(s.snapshot_id, 'Its worker died while it ran, twice: reading this file may be the cause. Load it again: select * from tickets_ops.fetch_now(force => true);')
  from tickets_ops.snapshots s
  where s.status = 'staging' and s.job_id = any (v_set_aside);
  return v_dead;
end
$$;
comment on function tickets_ops.free_dead_workers(text) is 'Frees the jobs and queues that dead worker pools of ours hold, and ends the sessions of those that hang; a job under which a worker died twice is set aside. p_own_pool: of the worker that asks. Returns the dead pools. Only where sessions are not shared (tickets_ops.workers.shares_sessions).';
--! EndIncluded workers.sql
--! Included settings.sql
-- Settings of the processes that SQL goes by as well. A process records those that its environment gives it; one without
-- goes by what is recorded.

create or replace function tickets_ops.record_settings(p_pool_id text, p_settings jsonb) returns void
language sql set search_path = pg_catalog, pg_temp as $$
  -- Of a process that is forgotten only what still stands is kept.
  delete from tickets_ops.settings s
  where s.pool_id not in (select w.pool_id from tickets_ops.workers w)
    and exists (select from tickets_ops.settings n where n.name = s.name and n.recorded_at > s.recorded_at);
  insert into tickets_ops.settings (name, pool_id, value)
  select key, p_pool_id, value from jsonb_each_text(p_settings)
  on conflict (name, pool_id) do update set value = excluded.value, recorded_at = now();
$$;
comment on function tickets_ops.record_settings(text, jsonb) is 'A worker pool that has just registered records the settings that its environment gives it, as an object of texts.';

create or replace function tickets_ops.setting(p_name text) returns text language sql stable set search_path = pg_catalog, pg_temp
return (
  select s.value
  from tickets_ops.settings s
  left join tickets_ops.workers w using (pool_id)
  cross join lateral (
    select coalesce(w.stopped_at is null and w.declared_dead_at is null and w.seen_at > now() - tickets_ops.hung_after(), false) as runs
  ) as process
  where s.name = p_name -- primary key
  -- A run by hand that was told otherwise leaves nothing behind, as the worker ran longer.
  order by process.runs desc, case when not process.runs then coalesce(w.seen_at, s.recorded_at) end desc, s.recorded_at desc
  limit 1
);
comment on function tickets_ops.setting(text) is 'The value of a setting as recorded by the process that started last of those that run and have it; where none of these runs, by the one that was heard of last. NULL: no process ever had one, and the default stands.';

create or replace function tickets_ops.setting_problems() returns table (severity text, problem text)
language sql stable set search_path = pg_catalog, pg_temp as $$
  with living as (
    select w.pool_id, w.host, w.started_at from tickets_ops.worker_states() w where w.state in ('alive', 'unsure')
  ),
  -- Processes that run, and those that ran beside them.
  beside as (
    select pool_id, host from living
    union
    select w.pool_id, w.host from tickets_ops.workers w
    where w.stopped_at > now() - interval '1 day' and w.started_at >= (select min(started_at) from living)
  )
  select 'fault', format('%s differs between processes: %s. Give all of them the same.', s.name, string_agg(distinct format('%s on %s', s.value, b.host), ', '))
  from tickets_ops.settings s join beside b using (pool_id)
  group by s.name
  having count(distinct s.value) > 1
$$;
comment on function tickets_ops.setting_problems() is 'Settings that processes which run at the same time have with different values.';
--! EndIncluded settings.sql
--! Included datasets.sql
-- The datasets: INC, faults, is always on; CRQ, requests for new installations, where CRQ_ENABLED says so. One that is off is
-- named nowhere: not in health, status, metrics, planning or on the page.

-- Security definer, because views that readers use ask it, and a setting is none of theirs.
create or replace function tickets.datasets() returns setof text language sql stable security definer rows 2
set search_path = pg_catalog, pg_temp as $$
  select 'inc'
  union all
  select 'crq' where tickets_ops.setting('CRQ_ENABLED') = 'true'
$$;
comment on function tickets.datasets() is 'The datasets that are on, by their names in the ledger: inc, and crq where CRQ_ENABLED=true, as its processes were told (tickets_ops.setting).';

-- Planning reads it for every load, so each table is read through its partial index: *_open.
create or replace view tickets.open_places as
select
  cluster_key, location_key,
  mode() within group (order by cluster) as cluster,
  min(location_name) as location_name,
  count(*) as tickets,
  count(*) filter (where dataset = 'inc') as inc_tickets,
  count(*) filter (where dataset = 'crq') as crq_tickets,
  count(*) filter (where geo_source <> 'feed') as without_coordinates,
  max(seen_at) as newest_at
from (
  select
    'inc' as dataset, tickets.cluster_key(cluster) as cluster_key, left(btrim(cluster), 200) as cluster, location_key, location_name,
    geo_source, coalesce(created_at_service, first_seen_at, ingested_at) as seen_at
  from tickets.inc
  where is_actionable
  union all
  select
    'crq', tickets.cluster_key(cluster), left(btrim(cluster), 200), location_key, location_name,
    geo_source, coalesce(created_at_service, first_seen_at, ingested_at)
  from tickets.crq
  where is_actionable and 'crq' in (select tickets.datasets())
) as t
where cluster_key is not null
group by cluster_key, location_key;
comment on view tickets.open_places is 'Where the open (actionable) tickets of all datasets that are on lie by their names: one row for each location of a cluster. What geocoding is planned from. Not in it: tickets without a cluster.';
comment on column tickets.open_places.cluster_key is 'The cluster as it is compared: without case and blanks (tickets.cluster_key).';
comment on column tickets.open_places.location_key is 'The location as it is compared (tickets.location_key). NULL: the name holds network codes only, or nothing.';
comment on column tickets.open_places.cluster is 'The cluster as most of these tickets write it.';
comment on column tickets.open_places.location_name is 'One of the spellings of the location.';
comment on column tickets.open_places.tickets is 'Open tickets there, of all datasets that are on.';
comment on column tickets.open_places.inc_tickets is 'Of these, faults.';
comment on column tickets.open_places.crq_tickets is 'Of these, requests for new installations.';
comment on column tickets.open_places.without_coordinates is 'Of tickets, those to which the feed gives no coordinates of their own: where the place lies decides where they lie.';
comment on column tickets.open_places.newest_at is 'When the newest of them began: created_at_service, else first_seen_at, else when its row was written. May lie in the future, where the feed is wrong.';
--! EndIncluded datasets.sql
--! Included review.sql
-- What people should look at, and what they need to know to decide about one place of it.
--
-- The judge is the pipeline's own, so what asks it runs with its owner's rights; the rest reads with the caller's.

create or replace view tickets_ops.review_queue as
with open_tickets as (
  select p.cluster_key, p.location_key, p.tickets from tickets.open_places p
),
per_cluster as (
  select o.cluster_key, sum(o.tickets)::bigint as tickets, count(o.location_key) as places from open_tickets o group by o.cluster_key
),
rows_in_doubt as (
  select
    'cluster' as kind, c.cluster, null as location_key, null as location_name,
    case
      when c.suspicious or p.is_far then 'suspicious'
      when c.geom is not null then 'found'
      when c.verified then 'rejected'
      else 'not_found'
    end as status,
    case when c.suspicious or p.is_far then 1 when c.geom is not null then 0.3 when c.verified then 0.1 else 0.95 end as doubt,
    null as precision, null::numeric as confidence, null::numeric as distance_km,
    nullif(concat_ws(' ',
      c.note,
      case when c.suspicious and (c.note is null or c.verified) then 'Many of its places lie together elsewhere: its centroid is probably the wrong one.' end,
      case when p.is_far and not c.suspicious then 'Most of its known places lie beyond its guard: its centroid is probably the wrong one, or its guard too narrow.' end,
      case when c.geom is null and t.places > 0 then
        format('Without a centroid none of its %s place(s) is asked or checked: set one.', t.places) end
    ), '') as note,
    c.query, c.geom, jsonb_array_length(c.candidates) as candidates, c.fetched_at,
    coalesce(t.tickets, 0) as open_tickets
  from tickets.geo_clusters c
  left join per_cluster t on t.cluster_key = tickets.cluster_key(c.cluster)
  cross join lateral (select c.geom is not null and coalesce(tickets_ops.is_far_from_its_places(c.cluster), false) as is_far) as p
  -- One whose centroid a person took away stays in sight: its tickets are on no map. So does one that its places contradict.
  where not c.verified or c.geom is null or c.suspicious or p.is_far
  union all
  select
    'location', l.cluster, l.location_key, l.location_name, l.status,
    case l.status when 'needs_review' then 0.8 when 'rejected' then 0.7 when 'not_found' then 0.6
      else 0.5 * (1 - coalesce(l.confidence, 0)) end,
    l.precision, l.confidence, l.distance_km, l.note, l.query, l.geom, jsonb_array_length(l.candidates), l.fetched_at,
    coalesce(t.tickets, 0)
  from tickets.geo_locations l
  left join open_tickets t on t.cluster_key = tickets.cluster_key(l.cluster) and t.location_key = l.location_key
  where not l.verified
)
select
  kind, cluster, location_key, location_name, status, round(doubt, 2) as doubt, open_tickets, note, precision, confidence, distance_km,
  st_y(geom) as latitude, st_x(geom) as longitude, candidates, query, fetched_at
from rows_in_doubt
order by doubt desc, open_tickets desc, cluster, location_key;
comment on view tickets_ops.review_queue is
  'Gazetteer rows that no person verified; and clusters, verified or not, whose centroid is far from their places (suspicious) or was taken away by a person (rejected). The most doubtful first. Accept: update tickets.geo_locations set verified = true. Move: set geom = st_setsrid(st_makepoint(lng, lat), 4326), which verifies the row and takes the tickets along. Reject: set status = ''rejected''. The same for tickets.geo_clusters (verified, geom); a cluster that is too large for its guard: set guard_km.';
comment on column tickets_ops.review_queue.kind is 'cluster (tickets.geo_clusters) or location (tickets.geo_locations).';
comment on column tickets_ops.review_queue.cluster is 'The cluster.';
comment on column tickets_ops.review_queue.location_key is 'The place; NULL for a cluster.';
comment on column tickets_ops.review_queue.location_name is 'One raw spelling of the place.';
comment on column tickets_ops.review_queue.status is 'For a cluster suspicious, not_found, rejected (a person took its centroid away) or found; else the row''s status.';
comment on column tickets_ops.review_queue.doubt is '0 to 1: a suspicious cluster 1, one without a centroid 0.95, needs_review 0.8, rejected 0.7, not_found 0.6, found less, by its confidence; a cluster whose centroid a person took away 0.1.';
comment on column tickets_ops.review_queue.open_tickets is 'Actionable tickets there.';
comment on column tickets_ops.review_queue.note is 'Why it is doubtful.';
comment on column tickets_ops.review_queue.precision is 'What the coordinate stands for.';
comment on column tickets_ops.review_queue.confidence is 'The judge''s score, 0 to 1.';
comment on column tickets_ops.review_queue.distance_km is 'Geodesic kilometres from the cluster''s centroid.';
comment on column tickets_ops.review_queue.latitude is 'Of the proposed coordinate; only a found one places tickets.';
comment on column tickets_ops.review_queue.longitude is 'Of the proposed coordinate.';
comment on column tickets_ops.review_queue.candidates is 'How many candidates are stored.';
comment on column tickets_ops.review_queue.query is 'What was sent to the provider.';
comment on column tickets_ops.review_queue.fetched_at is 'When it was answered.';

create or replace function tickets_ops.place_candidates(p_cluster text, p_location_key text default null)
returns table (
  candidate_no bigint, label text, "level" text, lng double precision, lat double precision, distance_km numeric, verdict text
)
language sql stable security definer set search_path = pg_catalog, pg_temp set jit = off
begin atomic
  select
    w.candidate_no, w.label, w.precision, st_x(w.geom), st_y(w.geom), w.distance_km,
    case when w.refusal is not null then 'refused: ' || w.refusal when w.doubt is not null then 'doubtful: ' || w.doubt else 'fits' end
  from tickets.geo_locations l
  left join tickets.geo_clusters c on c.cluster = l.cluster
  cross join lateral tickets_ops.score_candidates(l.candidates, l.location_key, l.cluster, c.geom, c.guard_km) as w
  where l.cluster = p_cluster and l.location_key = p_location_key
  union all
  select
    w.candidate_no, w.label, w.precision, st_x(w.geom), st_y(w.geom), tickets_ops.distance_km(c.geom, w.geom),
    case
      when w.refusal is not null then 'refused: ' || w.refusal
      when not (w.exact or w.named) then 'doubtful: it has another name'
      else 'fits'
    end
  from tickets.geo_clusters c
  cross join lateral tickets_ops.score_candidates(
    c.candidates, tickets_ops.cluster_name_key(c.cluster), null, null, null
  ) as w
  where c.cluster = p_cluster and p_location_key is null
  order by 1;
end;
comment on function tickets_ops.place_candidates(text, text) is 'What the provider returned for a place, or with one argument for a cluster, in its order: the number, label, level (point, street, neighbourhood, city), coordinate, kilometres from the cluster''s centroid, and what the judge says of it today: fits, doubtful: …, or refused: …. No rows for a place that is not in the gazetteer.';

create or replace function tickets_ops.places_beyond_guard(p_cluster text)
returns table (
  location_key text, location_name text, lng double precision, lat double precision, distance_km numeric, needs_km numeric
)
language sql stable security definer set search_path = pg_catalog, pg_temp set jit = off
begin atomic
  select
    l.location_key, l.location_name, st_x(place.geom), st_y(place.geom), tickets_ops.distance_km(c.geom, place.geom), nearest.km
  from tickets.geo_clusters c
  cross join lateral (
    -- Each takes the judge some milliseconds.
    select * from tickets.geo_locations r
    where r.cluster = c.cluster and r.status = 'rejected' and not r.verified
    order by r.fetched_at desc nulls last limit 100
  ) as l
  cross join lateral tickets_ops.judge_location(l.candidates, l.location_key, l.cluster, null, null) as place
  cross join lateral (
    select min(w.distance_km) as km
    from tickets_ops.score_candidates(l.candidates, l.location_key, l.cluster, c.geom, null) as w
    where w.refusal is null
  ) as nearest
  where c.cluster = p_cluster and place.geom is not null
  order by nearest.km, l.location_key;
end;
comment on function tickets_ops.places_beyond_guard(text) is 'Where the rejected places of a cluster would be without its guard (at most 100, the last asked): the coordinate that the judge would take and its kilometres from the centroid, and in needs_km from which guard_km on one of its candidates is let in. Where many lie together, the centroid is probably the wrong one.';

create or replace function tickets_ops.review_place(p_kind text, p_cluster text, p_location_key text default null) returns json
-- Compiling so many subqueries takes longer than running them (measured: 0.7 s for one place, 40 ms so).
language sql stable set jit = off
begin atomic
  with beyond as materialized (select * from tickets_ops.places_beyond_guard(p_cluster) where p_kind = 'cluster')
  select json_build_object(
    -- updated_at as text: a caller that writes compares it, and must not lose its microseconds.
    'place', (
      select to_json(r) from (
        select
          'location' as kind, l.cluster, l.location_key, l.location_name, l.status, l.verified, l.verified_by, l.note, l.precision,
          l.confidence, l.distance_km, l.provider, l.query, st_x(l.geom) as lng, st_y(l.geom) as lat, l.updated_at::text
        from tickets.geo_locations l
        where p_kind = 'location' and l.cluster = p_cluster and l.location_key = p_location_key
        union all
        select
          'cluster', c.cluster, null, null, coalesce(q.status, 'found'), c.verified, c.verified_by, coalesce(q.note, c.note),
          null, null, null, c.provider, c.query, st_x(c.geom), st_y(c.geom), c.updated_at::text
        from tickets.geo_clusters c
        -- Why a cluster is in doubt depends on its places, and is said there.
        left join tickets_ops.review_queue q on q.kind = 'cluster' and q.cluster = c.cluster
        where p_kind = 'cluster' and c.cluster = p_cluster
      ) as r
    ),
    'centre', (
      select to_json(r) from (
        select c.guard_km, c.suspicious, st_x(c.geom) as lng, st_y(c.geom) as lat, c.updated_at::text
        from tickets.geo_clusters c where c.cluster = p_cluster
      ) as r
    ),
    'candidates', (
      select coalesce(json_agg(k), '[]') from tickets_ops.place_candidates(p_cluster, case p_kind when 'location' then p_location_key end) as k
    ),
    'beyond', (
      select coalesce(json_agg(b), '[]') from beyond b
    ),
    -- As flag_suspicious asks it: the most that lie within one guard of each other, where that are three or more.
    'together', (
      select to_json(r) from (
        select
          count(*) as places, (select count(*) from beyond) as of_all, avg(other.lng) as lng, avg(other.lat) as lat,
          round(avg(other.distance_km)) as km
        from tickets.geo_clusters c
        cross join beyond one
        join beyond other on st_distance(
          st_makepoint(one.lng, one.lat)::geography, st_makepoint(other.lng, other.lat)::geography
        ) <= 1000 * c.guard_km
        where c.cluster = p_cluster
        group by one.location_key
        having count(*) >= 3
        order by 1 desc, one.location_key limit 1
      ) as r
    ),
    'names', (
      -- Relies on the indexes on (cluster_key(cluster), location_key).
      select coalesce(json_agg(n), '[]') from (
        select t.location_name as name, count(*) as tickets, count(*) filter (where t.is_actionable) as open
        from (
          select location_name, is_actionable, cluster, location_key from tickets.inc
          union all
          select location_name, is_actionable, cluster, location_key from tickets.crq where 'crq' in (select tickets.datasets())
        ) as t
        where tickets.cluster_key(t.cluster) = tickets.cluster_key(p_cluster) and (p_kind = 'cluster' or t.location_key = p_location_key)
        group by t.location_name order by 3 desc, 2 desc, 1 limit 12
      ) as n
    ),
    'found', (
      select coalesce(json_agg(json_build_array(f.lng, f.lat, f.location_key)), '[]') from (
        select st_x(l.geom) as lng, st_y(l.geom) as lat, l.location_key
        from tickets.geo_locations l
        where l.cluster = p_cluster and l.status = 'found' and l.location_key is distinct from p_location_key
        limit 500
      ) as f
    ),
    'history', (
      select coalesce(json_agg(h), '[]') from (
        select d.decision_id, d.decided_at, d.decided_by, d.decision, d.tickets_moved
        from tickets.geo_decisions d
        where d.cluster = p_cluster and d.location_key is not distinct from case p_kind when 'location' then p_location_key end
        order by d.decision_id desc limit 5
      ) as h
    )
  );
end;
comment on function tickets_ops.review_place(text, text, text) is 'Everything a person looks at to decide about one place, as the page shows it: p_kind location or cluster. place (NULL: there is none), centre (of its cluster, with the guard), candidates, beyond (for a cluster: tickets_ops.places_beyond_guard), together (where three or more of these lie), names (as field staff typed them, at most 12), found ([lng, lat, key] of the cluster''s placed places, at most 500), history (the last 5 decisions). Reads with the caller''s rights.';
--! EndIncluded review.sql
--! Included feed-of-changes.sql
-- Feeds of changes (settings INC_FEED, CRQ_FEED): a baseline, then files that hold changed rows only. Each is needed, in its order: one
-- that cannot be loaded stops those behind it, until it is mended or a person gives it up.

create or replace function tickets_ops.feed(p_dataset text) returns text language sql stable set search_path = pg_catalog, pg_temp
return coalesce(tickets_ops.setting(upper(p_dataset) || '_FEED'), 'snapshots');
comment on function tickets_ops.feed(text) is 'What the files of a dataset (inc, crq) are: snapshots, of which the newest is enough, or changes, of which each is needed. As its processes were told (INC_FEED, CRQ_FEED; tickets_ops.setting); snapshots where none ever was.';

create or replace function tickets_ops.blocking_file(p_dataset text) returns setof tickets_ops.snapshots
language sql stable set search_path = pg_catalog, pg_temp as $$
  select s.*
  from tickets_ops.snapshots s
  where tickets_ops.feed(p_dataset) = 'changes'
    and s.dataset = p_dataset and s.origin = 'bucket' and s.dismissed_at is null
    and (s.status in ('held', 'partial') or (s.status = 'failed' and s.opens_at is null and not s.ignored and not s.is_late))
    and not tickets_ops.is_below_mark(p_dataset, s.snapshot_at, s.source_last_modified, s.source_key)
    -- What became of it when it was read again, by force or as another version of its name, is what counts.
    and not exists (
      select from tickets_ops.snapshots g
      where g.dataset = s.dataset and g.source_key = s.source_key and g.snapshot_id > s.snapshot_id -- index snapshots_by_file
        and g.status in ('done', 'unchanged', 'failed', 'held', 'partial') and g.opens_at is null and not g.ignored and not g.is_late
    )
  order by s.snapshot_at, s.source_last_modified, s.source_key collate "C" -- index snapshots_by_time
  limit 1
$$;
comment on function tickets_ops.blocking_file(text) is 'Of a feed of changes: the file that failed, is held, or was loaded only in part, and that nobody has given up: no later one is loaded. No row where none does, and for a feed of snapshots.';

create or replace function tickets_ops.is_blocked(p_dataset text, p_snapshot_at timestamptz, p_last_modified timestamptz, p_key text)
returns boolean language sql stable set search_path = pg_catalog, pg_temp
return exists (
  select from tickets_ops.blocking_file(p_dataset) b
  where b.source_key <> p_key
    and (b.snapshot_at, b.source_last_modified, b.source_key collate "C") < (p_snapshot_at, p_last_modified, p_key collate "C")
);
comment on function tickets_ops.is_blocked(text, timestamptz, timestamptz, text) is 'Whether a version of a file has to wait for one before it (tickets_ops.blocking_file). Another version of that one does not: it is its cure.';

create or replace function tickets_ops.skip_file(p_key text) returns text
language plpgsql security definer set search_path = pg_catalog, pg_temp set lock_timeout = '10s' as $$
declare
  v_snapshot tickets_ops.snapshots;
begin
  select s.* into v_snapshot
  from tickets_ops.snapshots s
  where s.dataset in (select tickets.datasets()) and s.source_key = p_key and s.dismissed_at is null
    and s.status in ('failed', 'held', 'partial') -- index snapshots_by_file
  order by s.snapshot_id desc limit 1;
  if not found then
    raise exception 'No file % has failed, is held, or is loaded only in part.', p_key
      using hint = 'Give its whole key, as tickets_ops.health names it: automations/inc/2026-06-15T09-00-00.csv.';
  end if;
  v_snapshot := tickets_ops.locked_snapshot(v_snapshot.snapshot_id);
  if v_snapshot.status = 'held' then
    perform tickets_ops.dismiss_snapshot(v_snapshot.snapshot_id);
  elsif v_snapshot.status not in ('failed', 'partial') then
    raise exception '% is %: it need not be skipped any more.', p_key, v_snapshot.status;
  end if;
  update tickets_ops.snapshots
  set dismissed_at = now(), progress_at = now(),
    error = format('Skipped by %s, so what it changes is lost. %s', session_user, coalesce(error, broken_off))
  where snapshot_id = v_snapshot.snapshot_id;
  if tickets_ops.feed(v_snapshot.dataset) = 'snapshots' then
    return format('%s is skipped: the next file holds what it holds.', p_key);
  end if;
  perform tickets_ops.continue_backfill(v_snapshot.dataset);
  return format('%s is skipped: what it changes is lost. The files behind it are loaded now.', p_key);
exception when lock_not_available then
  perform tickets_ops.raise_blocked();
  return null;
end
$$;
comment on function tickets_ops.skip_file(text) is 'Gives up a file of a feed of changes that failed, is held, or was loaded only in part, so that those behind it are loaded: select tickets_ops.skip_file(''automations/inc/2026-06-15T09-00-00.csv''). What it changes is lost, and the ledger says who decided so. Raises when there is no such file, and when others hold its row for ten seconds.';

create or replace function tickets_ops.changes_problems(p_dataset text) returns table (severity text, problem text)
language sql stable set search_path = pg_catalog, pg_temp as $$
  select 'fault', format('%s %s, %s: %s. Put a good file of that name into the folder%s, or lose what it changes: select tickets_ops.skip_file(%L);',
    b.source_key, case b.status when 'failed' then 'failed' when 'held' then 'is held' else 'is loaded only in part' end,
    (
      select case max(l.waiting) when 1 then '1 later file waits' else format('%s later files wait', coalesce(max(l.waiting), 0)) end
      from tickets_ops.looks l where l.dataset = p_dataset
    ),
    rtrim(coalesce(b.error, b.broken_off, b.hold_reason), '.'),
    case b.status
      when 'held' then format(', load it as it is: select tickets_ops.release_snapshot(%s)', b.snapshot_id)
      else format(', read it again: select * from tickets_ops.fetch_now(%L, true)', p_dataset)
    end, b.source_key)
  from tickets_ops.blocking_file(p_dataset) b
  union all
  (
    select 'fault', format('%s came too late: %s', s.source_key, s.error)
    from tickets_ops.snapshots s
    where s.dataset = p_dataset and s.is_late and s.status = 'failed' and s.dismissed_at is null
    order by s.snapshot_at limit 1 -- index snapshots_by_time
  )
$$;
comment on function tickets_ops.changes_problems(text) is 'What is wrong with a feed of changes, as faults in words: the file that stops it, with how many wait behind it, and one that came too late to be loaded in its order.';
--! EndIncluded feed-of-changes.sql
--! Included schedule.sql
-- When the schedule looks at the bucket: the entries of the crontab, which a worker records when it starts
-- (src/worker/schedule.ts). No SQL knows an hour of its own.

create or replace function tickets_ops.record_schedule(p_entries jsonb) returns void language sql set search_path = pg_catalog, pg_temp as $$
  delete from tickets_ops.schedule
  where identifier not in (select entry ->> 'identifier' from jsonb_array_elements(p_entries) as entry);
  insert into tickets_ops.schedule as known (identifier, task, dataset, minutes, hours, dates, months, weekdays)
  select identifier, task, dataset, minutes, hours, dates, months, weekdays
  from jsonb_populate_recordset(null::tickets_ops.schedule, p_entries)
  on conflict (identifier) do update set
    task = excluded.task, dataset = excluded.dataset, minutes = excluded.minutes, hours = excluded.hours, dates = excluded.dates,
    months = excluded.months, weekdays = excluded.weekdays, since = now()
  where (known.task, known.dataset, known.minutes, known.hours, known.dates, known.months, known.weekdays)
    is distinct from
    (excluded.task, excluded.dataset, excluded.minutes, excluded.hours, excluded.dates, excluded.months, excluded.weekdays);
$$;
comment on function tickets_ops.record_schedule(jsonb) is 'A worker that starts records the entries of its crontab: an array of objects with the columns of tickets_ops.schedule but `since`. Entries that are not among them are forgotten.';

create or replace function tickets_ops.fires_on(p_entry tickets_ops.schedule, p_day date) returns boolean language sql immutable parallel safe
return extract(month from p_day)::integer = any (p_entry.months)
  and (extract(day from p_day)::integer = any (p_entry.dates) or extract(dow from p_day)::integer = any (p_entry.weekdays));
comment on function tickets_ops.fires_on(tickets_ops.schedule, date) is 'Whether an entry of the crontab fires on a day (UTC).';

create or replace function tickets_ops.scheduled_runs(p_dataset text, p_from timestamptz, p_to timestamptz) returns setof timestamptz
language sql stable set search_path = pg_catalog, pg_temp as $$
  select distinct run.at
  from tickets_ops.schedule s
  -- The days first: otherwise an entry of one day a year is tried at each of its minutes on all of them.
  cross join lateral (
    select first.day + n as day
    from (select (p_from at time zone 'UTC')::date as day, (p_to at time zone 'UTC')::date as last) as first
    cross join generate_series(0, first.last - first.day) as n
    where tickets_ops.fires_on(s, first.day + n)
    offset 0
  ) as d
  cross join unnest(s.hours) as hour
  cross join unnest(s.minutes) as minute
  cross join lateral (select (d.day + make_time(hour, minute, 0)) at time zone 'UTC' as at) as run
  where s.dataset = p_dataset and run.at between p_from and p_to
$$;
comment on function tickets_ops.scheduled_runs(text, timestamptz, timestamptz) is 'The times from p_from to p_to, both included, at which the schedule looks at a dataset''s folder. None before a worker has started.';

create or replace function tickets_ops.nearest_scheduled_run(p_dataset text, p_at timestamptz, p_ahead boolean) returns timestamptz
language plpgsql stable set search_path = pg_catalog, pg_temp as $$
declare
  v_days integer;
  v_run timestamptz;
begin
  -- Nearly always it is within a day; 29 February may be eight years away.
  foreach v_days in array array[1, 8, 64, 512, 4096] loop
    if p_ahead then
      select min(run) into v_run from tickets_ops.scheduled_runs(p_dataset, p_at, p_at + make_interval(hours => 24 * v_days)) as run
      where run > p_at;
    else
      select max(run) into v_run from tickets_ops.scheduled_runs(p_dataset, p_at - make_interval(hours => 24 * v_days), p_at) as run;
    end if;
    exit when v_run is not null;
  end loop;
  return v_run;
end
$$;
comment on function tickets_ops.nearest_scheduled_run(text, timestamptz, boolean) is 'What tickets_ops.next_scheduled_run (p_ahead) and tickets_ops.last_scheduled_run return.';

create or replace function tickets_ops.last_scheduled_run(p_at timestamptz, p_dataset text default 'inc') returns timestamptz
language sql stable set search_path = pg_catalog, pg_temp
return tickets_ops.nearest_scheduled_run(p_dataset, p_at, false);
comment on function tickets_ops.last_scheduled_run(timestamptz, text) is 'The last time at or before p_at at which the schedule looks at a dataset''s folder. NULL: it never does, or no worker has started yet.';

create or replace function tickets_ops.next_scheduled_run(p_at timestamptz, p_dataset text default 'inc') returns timestamptz
language sql stable set search_path = pg_catalog, pg_temp
return tickets_ops.nearest_scheduled_run(p_dataset, p_at, true);
comment on function tickets_ops.next_scheduled_run(timestamptz, text) is 'The next time after p_at at which the schedule looks at a dataset''s folder. NULL: it never does, or no worker has started yet.';

create or replace function tickets_ops.scheduled_since(p_dataset text) returns timestamptz language sql stable set search_path = pg_catalog, pg_temp
return (select max(s.since) from tickets_ops.schedule s where s.dataset = p_dataset);
comment on function tickets_ops.scheduled_since(text) is 'Since when the schedule of a dataset is what it is: no run before that can have been missed. NULL: it has none.';
--! EndIncluded schedule.sql
--! Included feed.sql
-- Whether the feed is alive, and what is said where it is not: by health, and by the map in summary.freshness.problem. A look at the
-- bucket that finds nothing new is no proof that it is.

create or replace function tickets_ops.wall_clock(p_at timestamptz) returns text language sql immutable parallel safe
return to_char(p_at at time zone 'Africa/Nairobi', 'YYYY-MM-DD HH24:MI "EAT"');
comment on function tickets_ops.wall_clock(timestamptz) is 'A time as people in Nairobi read it, with its zone.';

create or replace function tickets_ops.content_through(p_dataset text) returns timestamptz language plpgsql stable
set search_path = pg_catalog, pg_temp as $$
declare
  v_through timestamptz;
begin
  -- Indexes *_created_at_service and *_closed_at.
  execute format(
    'select greatest(
       (select max(created_at_service) from tickets.%1$I where created_at_service <= now()),
       (select max(closed_at) from tickets.%1$I where closed_at <= now())
     )', p_dataset
  ) into v_through;
  return v_through;
end
$$;
comment on function tickets_ops.content_through(text) is 'The newest created_at_service or closed_at of a dataset (inc, crq) that is not in the future: how far its content goes. It trails the files by days.';

create or replace function tickets_ops.scheduled_time(p_dataset text, p_from timestamptz, p_to timestamptz) returns interval
language sql stable set search_path = pg_catalog, pg_temp as $$
  select coalesce(sum(least(run - before, interval '1 hour')), '0')
  -- A week is enough to tell any number of hours that is worth a setting.
  from (select greatest(p_from, p_to - interval '7 days') as from_at) as since
  cross join lateral (
    select run, lag(run) over (order by run) as before
    from tickets_ops.scheduled_runs(p_dataset, coalesce(tickets_ops.last_scheduled_run(since.from_at, p_dataset), since.from_at), p_to) as run
  ) as runs
  where run > since.from_at
$$;
comment on function tickets_ops.scheduled_time(text, timestamptz, timestamptz) is 'How much of the time between two moments the schedule of a dataset covers, in hours between its runs (of a longer break, such as the night, one hour counts). At most that of a week.';

create or replace function tickets_ops.missed_run(p_dataset text) returns timestamptz language sql stable
set search_path = pg_catalog, pg_temp
return (
  -- Half an hour is what a look may take that waits for the load before it.
  select tick
  from tickets_ops.last_scheduled_run(now() - interval '30 minutes', p_dataset) as tick
  where tick > tickets_ops.scheduled_since(p_dataset)
    and tick > coalesce((select l.looked_at from tickets_ops.looks l where l.dataset = p_dataset), '-infinity')
);
comment on function tickets_ops.missed_run(text) is 'The last scheduled run of a dataset, when half an hour later no look at the bucket had succeeded. NULL: none was missed.';

create or replace function tickets_ops.content_lag(p_dataset text, out lag interval, out usual interval) language sql stable
set search_path = pg_catalog, pg_temp as $$
  with looked as (
    select s.snapshot_at, s.content_through, s.snapshot_at - s.content_through as lag
    from tickets_ops.snapshots s
    where s.dataset = p_dataset and s.status in ('done', 'unchanged') and s.content_through is not null
      and s.snapshot_at > now() - interval '14 days' -- index snapshots_by_time
  ),
  newest as (
    select * from looked order by snapshot_at desc limit 1
  )
  select n.lag, (
    select make_interval(secs => percentile_cont(0.95) within group (order by extract(epoch from l.lag)))
    from looked l
    -- While the content stands still its lag grows with each file: that is what is judged, not what it is judged by.
    where l.content_through < n.content_through
    having min(l.snapshot_at) < now() - interval '7 days'
  )
  from newest n
$$;
comment on function tickets_ops.content_lag(text) is 'How far the content of the newest file trails the file''s own time, and what is usual: the 95th percentile of the files of 14 days whose content was older. usual is NULL before seven days of history. Both NULL before the first load.';

create or replace function tickets_ops.feed_problems(p_dataset text) returns table (severity text, problem text)
language sql stable set search_path = pg_catalog, pg_temp as $$
  with look as (
    select l.*, tickets_ops.scheduled_time(p_dataset, l.new_file_at, l.looked_at) as idle,
      make_interval(hours => coalesce(tickets_ops.setting('FEED_STALE_HOURS')::integer, 3)) as allowed
    from tickets_ops.looks l where l.dataset = p_dataset
  ),
  data as (
    select tickets.eat_ts(i.metadata ->> 'snapshot_at') as data_at, tickets.eat_ts(i.metadata ->> 'checked_at') as checked_at
    from tickets.import_meta i where i.dataset = p_dataset
  )
  select 'fault', format('The run of %s was missed: nothing has looked at the bucket since %s.', tickets_ops.wall_clock(missed),
    coalesce((select tickets_ops.wall_clock(looked_at) from look), 'the pipeline began'))
  from tickets_ops.missed_run(p_dataset) as missed where missed is not null
  union all
  select 'fault', format('The feed stands still: no look has ever found a file, the last one on %s. See that the export runs, and check %s%s.',
    tickets_ops.wall_clock(looked_at), case p_dataset when 'inc' then 'RUSTFS_PREFIX' else upper(p_dataset) || '_PREFIX' end, case when others > 0 then format(' (there are %s objects that are no CSV)', others) else '' end)
  from look where new_file_at is null
  union all
  select 'fault', format('The feed stands still: no new file since %s, for %s hours of scheduled time. See that the export runs.',
    tickets_ops.wall_clock(new_file_at), extract(epoch from idle)::integer / 3600)
  from look
  -- Where nothing has changed no file of changes has to come.
  where idle >= allowed and tickets_ops.feed(p_dataset) = 'snapshots'
  union all
  select 'fault', format('The feed stands still: the tickets are as of %s, %s hours ago.', tickets_ops.wall_clock(data_at), extract(epoch from now() - data_at)::integer / 3600)
  from data where data_at < now() - interval '26 hours'
  union all
  select 'fault', format('The feed stands still: files come, but their content ends on %s, %s hours before the newest file; %s are usual.',
    tickets_ops.wall_clock(tickets_ops.content_through(p_dataset)), extract(epoch from lag)::integer / 3600, extract(epoch from usual)::integer / 3600)
  from tickets_ops.content_lag(p_dataset) where lag > usual + interval '1 day'
  union all
  select 'fault', format('A clock is wrong: %s is ahead of the database''s clock. Check the clocks of the database, the workers and the export.', tickets_ops.wall_clock(greatest(data_at, checked_at)))
  from data where greatest(data_at, checked_at) > now() + tickets_ops.clock_tolerance()
  union all
  select 'warning', format('%s is future-dated: it is not loaded before its time has come. If its name is wrong, rename it.', key)
  from look, unnest(future_dated) as key
$$;
comment on function tickets_ops.feed_problems(text) is 'What is wrong with the feed of a dataset (inc, crq), as faults and warnings in words: a missed run, no new file for FEED_STALE_HOURS (3) of scheduled time, data older than 26 hours, content that stands still, a clock, future-dated files.';
--! EndIncluded feed.sql
--! Included jobs.sql
-- Which jobs there are, for operators.
--
-- graphile-worker's tables are private: they have row security and no grants, so a role that does not own them sees nothing.
-- What operators use is therefore built on security definer functions with a pinned search_path. And on functions, not on
-- views of its tables: a view would keep that library's own migrations from changing them. For the same reason the
-- functions' bodies are texts, which bind to nothing.

create or replace function tickets_ops.worker_schema_is_shared() returns boolean language sql stable
return coalesce(tickets_ops.setting('WORKER_SCHEMA_SHARED') = 'true', false);
comment on function tickets_ops.worker_schema_is_shared() is 'Whether another application has jobs in the same schema (setting WORKER_SCHEMA_SHARED): then jobs of tasks that are not ours are nobody''s business here.';

-- Inlined into the query that asks, so that one job is found by index among 200 000.
create or replace function tickets_ops.described_jobs()
returns table (
  id bigint, task text, key text, payload jsonb, queue text, priority integer, state text, run_at timestamptz, attempts integer,
  max_attempts integer, last_error text, locked_by text, age interval, failed_at timestamptz, superseded text
)
language sql stable
begin atomic
  select
    j.id, j.task, j.key, r.payload, j.queue, j.priority, s.state, j.run_at, j.attempts, j.max_attempts,
    case when p.task is not null then j.last_error end, j.locked_by, date_trunc('second', now() - j.created_at), f.failed_at,
    case when s.state = 'failed' then
      case
        when j.task = 'fetch_snapshot' and r.request ->> 'dataset' = 'crq' and 'crq' not in (select tickets.datasets()) then
          format('%s is off.', r.request ->> 'dataset')
        -- But of snapshots a look that is no backfill passes over what the backfill was to load.
        when j.task = 'fetch_snapshot' and m.checked_at > f.failed_at
          and (r.request ->> 'backfill' is distinct from 'true' or tickets_ops.feed(coalesce(r.request ->> 'dataset', 'inc')) = 'changes') then
          format('The bucket was looked at again on %s.', tickets_ops.wall_clock(m.checked_at))
        when l.newer is not null then format('Snapshot %s came after it.', l.newer)
        when l.status <> 'failed' and not l.in_flight then format('Snapshot %s is %s.', l.snapshot_id, l.status)
      end
    end
  from tickets_ops.queued_jobs(p_unknown_too := true) j
  left join tickets_ops.job_policy() p on p.task = j.task
  -- Each computed once, and not at all where nobody asks for it.
  cross join lateral (
    select
      -- Another application's, perhaps: what it tells its workers is not for our operators.
      case when p.task is not null then tickets_ops.parsed_payload(j.payload) end as payload,
      case when j.task in ('fetch_snapshot', 'upsert_batch', 'finalize_snapshot') then tickets_ops.parsed_payload(j.payload) end as request
    offset 0
  ) as r
  cross join lateral (
    select case
      when p.task is null then 'unknown task'
      when j.locked_at is not null then 'running'
      when j.attempts >= j.max_attempts then 'failed'
      when j.attempts > 0 then 'retrying'
      when j.run_at > now() then 'scheduled'
      else 'ready'
    end as state
  ) as s
  -- graphile-worker keeps no time of failure, but puts run_at that far beyond it, and so does unlock_pools. updated_at moves
  -- whenever the key goes to a new job.
  cross join lateral (
    select case when s.state = 'failed' then
      greatest(j.created_at, j.run_at - exp(least(j.attempts, 10)) * interval '1 second')
    end as failed_at
  ) as f
  left join lateral (
    select tickets.eat_ts(i.metadata ->> 'checked_at') as checked_at
    from tickets.import_meta i where i.dataset = coalesce(r.request ->> 'dataset', 'inc')
  ) as m on s.state = 'failed' and j.task = 'fetch_snapshot'
  left join lateral (
    select
      n.snapshot_id, n.status, n.in_flight,
      (select min(x.snapshot_id) from tickets_ops.snapshots x where x.dataset = n.dataset and x.load_began_at > n.load_began_at) as newer
    from tickets_ops.snapshots n
    where n.snapshot_id = case when r.request ->> 'snapshot_id' ~ '^[0-9]{1,18}$' then (r.request ->> 'snapshot_id')::bigint end
  ) as l on s.state = 'failed' and j.task in ('upsert_batch', 'finalize_snapshot')
  where p.task is not null or not (select tickets_ops.worker_schema_is_shared());
end;
comment on function tickets_ops.described_jobs() is 'The jobs of the pipeline in the words of tickets_ops.jobs and tickets_ops.failed_jobs; where no other application shares their schema, also those of tasks that no worker of ours has. With the caller''s rights: only the owner sees any.';

create or replace function tickets_ops.list_jobs()
returns table (
  id bigint, task text, key text, payload jsonb, queue text, priority integer, state text, run_at timestamptz, attempts integer,
  max_attempts integer, last_error text, locked_by text, age interval, failed_at timestamptz, superseded text
)
language sql stable security definer set search_path = pg_catalog, pg_temp as $$
  select * from tickets_ops.described_jobs()
$$;
comment on function tickets_ops.list_jobs() is 'tickets_ops.described_jobs with the owner''s rights, for tickets_ops.jobs and tickets_ops.failed_jobs.';

create or replace view tickets_ops.jobs as
select id, task, key, payload, queue, priority, state, run_at, attempts, max_attempts, last_error, locked_by, age
from tickets_ops.list_jobs();
comment on view tickets_ops.jobs is 'Every job that waits, runs or has failed; one that succeeded is gone (tickets_ops.snapshots remembers the loads).';
comment on column tickets_ops.jobs.id is 'Number of the job, for tickets_ops.retry_job and tickets_ops.cancel_job. A geocoding job that puts itself back gets a new one.';
comment on column tickets_ops.jobs.task is 'fetch_snapshot, upsert_batch, finalize_snapshot, geocode_cluster, geocode_location, fleettickets_maintain or fleettickets_alert. Another one is misspelt, or another application''s (setting WORKER_SCHEMA_SHARED).';
comment on column tickets_ops.jobs.key is 'What the job is for; of the jobs that wait, only one has it. It survives the job''s putting itself back, the id does not.';
comment on column tickets_ops.jobs.payload is 'What the task was asked to do. NULL for an unknown task: it may be another application''s.';
comment on column tickets_ops.jobs.queue is 'Named queue, whose jobs run one by one. NULL: none.';
comment on column tickets_ops.jobs.priority is 'Lower runs first: loads -10, what a person asked to geocode 10, planned places 20 and up.';
comment on column tickets_ops.jobs.state is 'ready: waits for a free worker. scheduled: waits for run_at. running. retrying: an attempt failed, the next is at run_at. failed: no attempt is left. unknown task: no worker of ours will ever run it.';
comment on column tickets_ops.jobs.run_at is 'Not before this time.';
comment on column tickets_ops.jobs.attempts is 'Attempts so far, the running one included.';
comment on column tickets_ops.jobs.max_attempts is 'Attempts allowed. One more for each worker that died over the job.';
comment on column tickets_ops.jobs.last_error is 'Why the last attempt failed. NULL for an unknown task.';
comment on column tickets_ops.jobs.locked_by is 'tickets_ops.workers.pool_id of the worker that runs it.';
comment on column tickets_ops.jobs.age is 'Since it was asked for.';

create or replace view tickets_ops.failed_jobs as
select id, task, key, payload, failed_at, attempts, last_error, superseded
from tickets_ops.list_jobs()
where state = 'failed'
order by failed_at desc;
comment on view tickets_ops.failed_jobs is 'Jobs without an attempt left, the latest first. Try one again: select * from tickets_ops.retry_job(id). Removed by age (KEEP_FAILED_JOBS_DAYS).';
comment on column tickets_ops.failed_jobs.id is 'Number of the job.';
comment on column tickets_ops.failed_jobs.task is 'The task.';
comment on column tickets_ops.failed_jobs.key is 'What the job was for. NULL when it has been asked for anew since.';
comment on column tickets_ops.failed_jobs.payload is 'What the task was asked to do.';
comment on column tickets_ops.failed_jobs.failed_at is 'When its last attempt failed.';
comment on column tickets_ops.failed_jobs.attempts is 'Attempts made.';
comment on column tickets_ops.failed_jobs.last_error is 'Why the last one failed.';
comment on column tickets_ops.failed_jobs.superseded is 'Why it no longer matters; tickets_ops.health does not count it. NULL: it does.';
--! EndIncluded jobs.sql
--! Included retry.sql
-- What an operator does with a job: try it again, or cancel it.

create or replace function tickets_ops.revive_job(p_id bigint) returns text
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
  v_job record;
  v_obstacle text;
  v_ids bigint[] := array[p_id];
  v_restarted bigint;
begin
  select task, state, payload into v_job from tickets_ops.described_jobs() where id = p_id;
  if v_job.state = 'running' then
    return 'It is running at this moment. If its worker has died, it is freed by itself within seconds.';
  end if;
  if v_job.task in ('upsert_batch', 'finalize_snapshot') and v_job.state = 'failed' and v_job.payload ->> 'snapshot_id' ~ '^[0-9]{1,18}$' then
    v_obstacle := tickets_ops.reopen_snapshot((v_job.payload ->> 'snapshot_id')::bigint);
    if v_obstacle is not null then
      return v_obstacle;
    end if;
    -- All of them, or the snapshot would fail again by the next. Its end only if it is due: the last batch asks for it.
    v_ids := array(
      select j.id
      from tickets_ops.described_jobs() j
      join tickets_ops.snapshots s on s.snapshot_id = (v_job.payload ->> 'snapshot_id')::bigint
      where j.id = any (tickets_ops.jobs_of_snapshot(s.snapshot_id) || p_id) and j.state = 'failed'
        and j.task = case s.status when 'loading' then 'upsert_batch' else 'finalize_snapshot' end
    );
    if p_id <> all (v_ids) then
      perform tickets_ops.remove_jobs(array[p_id]);
      if v_ids = '{}' then
        return null;
      end if;
    end if;
  elsif v_job.task = 'fetch_snapshot' and v_job.state = 'failed' then
    -- What it was reading when it gave up: a further look would pass over a file that failed.
    perform tickets_ops.put_back(snapshot_id, 'failed')
    from tickets_ops.snapshots where job_id = p_id and status = 'failed' and load_began_at is null and opens_at is null and not ignored;
  end if;
  v_restarted := tickets_ops.restart_jobs(
    v_ids,
    -- As many as from the start: one that gave up has no more than it made.
    (select max_attempts from tickets_ops.job_policy(v_job.task)),
    -- A request that gave up waiting, or looking, begins anew.
    p_forget := case v_job.task when 'fetch_snapshot' then array['waits', 'looks'] else '{}' end
  );
  return case when v_restarted = 0 then 'A worker has just taken it, or it is gone.' end;
end
$$;
comment on function tickets_ops.revive_job(bigint) is 'Makes a waiting or failed job due now, with all its attempts; a failed load job together with those of its snapshot that failed, a failed fetch_snapshot with the file that it could not read. Returns why it cannot, else NULL.';

create or replace function tickets_ops.retry_job(p_id bigint)
returns table (job_id bigint, task text, job_key text, note text)
language plpgsql security definer set search_path = pg_catalog, pg_temp set lock_timeout = '10s' as $$
#variable_conflict use_column
declare
  v_job record;
  v_obstacle text;
begin
  select j.id, j.task, j.key, j.state, j.payload into v_job from tickets_ops.described_jobs() j where j.id = p_id;
  if not found then
    raise exception 'There is no job %.', p_id using hint = 'A job that succeeded is gone. See tickets_ops.jobs.';
  end if;
  if v_job.state = 'unknown task' then
    raise exception 'Job % is not tried again. There is no task %.', p_id, v_job.task
      using hint = format('Remove it (select tickets_ops.cancel_job(%s);) and add it with the right name. See tickets_ops.job_policy().', p_id);
  end if;
  v_obstacle := tickets_ops.revive_job(p_id);
  if v_obstacle is not null then
    raise exception 'Job % is not tried again. %', p_id, v_obstacle;
  end if;
  return query select v_job.id, v_job.task, v_job.key, case
    when v_job.state = 'failed' and v_job.task in ('upsert_batch', 'finalize_snapshot')
      then format('It is due now, and with it all that is left of snapshot %s.', v_job.payload ->> 'snapshot_id')
    else 'It is due now.'
  end;
exception when lock_not_available then
  perform tickets_ops.raise_blocked();
end
$$;
comment on function tickets_ops.retry_job(bigint) is 'Tries a failed job again now, or a waiting one at once, with all its attempts: select * from tickets_ops.retry_job(17). A load job reopens its snapshot, with all its jobs. Raises when there is no such job, when it is running, when its snapshot cannot be reopened (a newer one superseded it), and when others hold its rows for ten seconds.';

create or replace function tickets_ops.request_of(p_payload jsonb) returns jsonb language sql immutable parallel safe
return case jsonb_typeof(p_payload) when 'object' then p_payload - array['waits', 'looks', '_cron'] else p_payload end;
comment on function tickets_ops.request_of(jsonb) is 'What a payload asks for, without what the schedule and waiting add to it.';

create or replace function tickets_ops.require_task(p_task text) returns void
language plpgsql stable set search_path = pg_catalog, pg_temp as $$
begin
  if p_task is not null and not exists (select from tickets_ops.job_policy(p_task)) then
    raise exception 'There is no task %.', quote_literal(p_task)
      using errcode = 'invalid_parameter_value', hint = 'Choose ' || (select string_agg(task, ', ' order by task) from tickets_ops.job_policy()) || '.';
  end if;
end
$$;
comment on function tickets_ops.require_task(text) is 'Raises, and names the tasks that there are, where p_task is none of them. NULL passes.';

create or replace function tickets_ops.retry_failed(p_task text default null)
returns table (job_id bigint, task text, job_key text, note text)
language plpgsql security definer set search_path = pg_catalog, pg_temp set lock_timeout = '10s' as $$
#variable_conflict use_column
begin
  perform tickets_ops.require_task(p_task);
  return query
    with failed as materialized (
      select j.id, j.task, j.key, j.superseded,
        -- The newest of those that ask for the same: a job that failed again every hour is tried once.
        row_number() over (partition by j.task, tickets_ops.request_of(j.payload) order by j.id desc) = 1 as is_newest
      from tickets_ops.described_jobs() j
      where j.state = 'failed' and (p_task is null or j.task = p_task)
    ),
    -- Loads come with their snapshots, one by one; there are few. All others at once.
    together as materialized (
      select f.task, tickets_ops.restart_jobs(array_agg(f.id), max(p.max_attempts))
      from failed f left join tickets_ops.job_policy() p on p.task = f.task
      where f.superseded is null and f.is_newest and f.task not in ('fetch_snapshot', 'upsert_batch', 'finalize_snapshot')
      group by f.task
    )
    select f.id, f.task, f.key, case
      when f.superseded is not null then 'Left alone. ' || f.superseded
      when not f.is_newest then 'Left alone. A later job asks for the same.'
      when f.task in ('fetch_snapshot', 'upsert_batch', 'finalize_snapshot') then coalesce(tickets_ops.revive_job(f.id), 'It is due now.')
      else 'It is due now.'
    end
    from failed f left join together t on t.task = f.task
    order by f.id;
exception when lock_not_available then
  perform tickets_ops.raise_blocked();
end
$$;
comment on function tickets_ops.retry_failed(text) is 'Tries every failed job again, or those of one task: select * from tickets_ops.retry_failed(''geocode_location''). Returns each with what became of it; those that no longer matter, or that a later job repeats, are left alone. Raises when others hold their rows for ten seconds.';

create or replace function tickets_ops.jobs_of_snapshot(p_snapshot_id bigint) returns bigint[]
language sql stable set search_path = pg_catalog, pg_temp as $$
  select array(
    select j.id
    from tickets_ops.queued_jobs() j
    -- graphile-worker's unique index on key.
    where j.key = any (
      array(select tickets_ops.batch_job_key(b.snapshot_id, b.batch) from tickets_ops.snapshot_batches b where b.snapshot_id = p_snapshot_id)
      || tickets_ops.finalize_job_key(p_snapshot_id)
    )
  )
$$;
comment on function tickets_ops.jobs_of_snapshot(bigint) is 'The ids of the load jobs of a snapshot that are there, by their keys. Empty for NULL.';

create or replace function tickets_ops.cancel_job(p_id bigint) returns text
language plpgsql security definer set search_path = pg_catalog, pg_temp set lock_timeout = '10s' as $$
declare
  v_job record;
  v_snapshot bigint;
  v_removed bigint;
begin
  select j.id, j.task, j.state, j.payload into v_job from tickets_ops.described_jobs() j where j.id = p_id;
  if not found then
    raise exception 'There is no job %.', p_id using hint = 'A job that succeeded is gone. See tickets_ops.jobs.';
  end if;
  if v_job.task in ('upsert_batch', 'finalize_snapshot') and v_job.payload ->> 'snapshot_id' ~ '^[0-9]{1,18}$' then
    -- A snapshot in flight would only ask for the job again.
    v_snapshot := (v_job.payload ->> 'snapshot_id')::bigint;
    if not tickets_ops.fail_snapshot(v_snapshot, format('Cancelled by %s', session_user)) then
      v_snapshot := null;
    end if;
  end if;
  if v_job.state = 'running' then
    perform tickets_ops.give_up(p_id);
    perform tickets_ops.remove_jobs(tickets_ops.jobs_of_snapshot(v_snapshot));
    return format('Job %s is running and cannot be stopped, but if it fails it is not tried again.', p_id)
      || case when v_snapshot is null then '' else format(' Snapshot %s is cancelled.', v_snapshot) end;
  end if;
  v_removed := tickets_ops.remove_jobs(tickets_ops.jobs_of_snapshot(v_snapshot) || p_id);
  if v_removed = 0 then
    return format('A worker has just taken job %s.', p_id);
  end if;
  return case when v_snapshot is null then format('Job %s is cancelled.', p_id)
    else format('Snapshot %s is cancelled, with %s of its jobs. What its batches had loaded stays. Load it after all: select * from tickets_ops.fetch_now(force => true);', v_snapshot, v_removed) end;
exception when lock_not_available then
  perform tickets_ops.raise_blocked();
  return null;
end
$$;
comment on function tickets_ops.cancel_job(bigint) is 'Removes a waiting or failed job, and says so. A running one cannot be stopped, but is not tried again. A job of a snapshot in flight takes the snapshot with it, which becomes failed. Raises when there is no such job, and when others hold its rows for ten seconds.';
--! EndIncluded retry.sql
--! Included erasure.sql
-- Erasure: nothing in this database tells of a ticket any more, nor of a place that only that ticket named. What stays is the
-- owner's to remove (docs/keeping.md): files in the bucket, backups, and notes in which a person wrote about it.

create or replace function tickets_ops.mentions(p_text text, p_ticket_id text) returns boolean language sql immutable parallel safe
return position(p_ticket_id in p_text) > 0
  and p_text ~ ('(^|[^[:alnum:]])' || regexp_replace(p_ticket_id, '([^[:alnum:]])', '\\\1', 'g') || '([^[:alnum:]]|$)');
comment on function tickets_ops.mentions(text, text) is 'Whether a text contains a ticket''s number, and not only as a part of a longer one.';

-- The counts of a snapshot must add up when it is loaded after all: the record is taken out of them too.
create or replace function tickets_ops.erase_staged(p_dataset text, p_ticket_id text) returns bigint
language sql set search_path = pg_catalog, pg_temp as $$
  with erased as (
    delete from tickets_ops.snapshot_rows r using tickets_ops.snapshots s
    where s.dataset = p_dataset and r.snapshot_id = s.snapshot_id and r.ticket_id = p_ticket_id -- primary key
    returning r.snapshot_id, r.raw is null as is_unchanged,
      r.raw is not null and exists (
        select from tickets_ops.snapshot_batches b
        where b.snapshot_id = r.snapshot_id and r.ticket_id between b.first_ticket_id and b.last_ticket_id and b.status = 'done'
      ) as is_loaded
  ), counted as (
    update tickets_ops.snapshots s
    set rows_read = s.rows_read - 1, rows_unchanged = s.rows_unchanged - e.is_unchanged::integer
    from erased e
    where s.snapshot_id = e.snapshot_id and s.staged_at is not null and not e.is_loaded
  )
  select count(*) from erased
$$;
comment on function tickets_ops.erase_staged(text, text) is 'Part of tickets_ops.erase_ticket: deletes what is staged of a ticket in snapshots that are held or have failed. Returns how many rows.';

-- A range may begin or end with the ticket: then it shrinks to what is left in it, or holds none.
create or replace function tickets_ops.erase_from_ranges(p_dataset text, p_ticket_id text) returns void
language sql set search_path = pg_catalog, pg_temp as $$
  update tickets_ops.snapshot_batches b
  set (first_ticket_id, last_ticket_id) = (
    select coalesce(min(r.ticket_id), ''), coalesce(max(r.ticket_id), '')
    from tickets_ops.snapshot_rows r -- primary key
    where r.snapshot_id = b.snapshot_id and r.ticket_id between b.first_ticket_id and b.last_ticket_id
  )
  from tickets_ops.snapshots s
  where s.dataset = p_dataset and b.snapshot_id = s.snapshot_id and p_ticket_id in (b.first_ticket_id, b.last_ticket_id)
$$;
comment on function tickets_ops.erase_from_ranges(text, text) is 'Part of tickets_ops.erase_ticket, after erase_staged: takes the ticket''s number out of the ranges of the batches that wait.';

create or replace function tickets_ops.erase_place(p_cluster text, p_location_key text, p_location_name text, out places bigint, out decisions bigint)
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
  v_before boolean := tickets_ops.as_pipeline(true); -- it is no decision about the place
  v_other text;
begin
  select o.location_name into v_other
  from (
    select t.cluster, t.location_key, t.location_name from tickets.inc t
    union all
    select t.cluster, t.location_key, t.location_name from tickets.crq t
  ) as o
  where tickets.cluster_key(o.cluster) = tickets.cluster_key(p_cluster) and o.location_key = p_location_key -- indexes inc_place and crq's
  order by o.location_name = p_location_name desc limit 1;
  perform set_config('tickets_ops.erasing', 'true', true); -- tickets_ops.is_erasing
  if v_other is null then
    delete from tickets.geo_decisions d
    where d.kind = 'location' and tickets.cluster_key(d.cluster) = tickets.cluster_key(p_cluster) and d.location_key = p_location_key;
    get diagnostics decisions = row_count;
    delete from tickets.geo_locations l
    where tickets.cluster_key(l.cluster) = tickets.cluster_key(p_cluster) and l.location_key = p_location_key; -- index geo_locations_place
    get diagnostics places = row_count;
    delete from tickets_ops.geocoding_answers a
    where tickets.cluster_key(a.cluster) = tickets.cluster_key(p_cluster) and a.location_key = p_location_key;
  else
    -- Others name the place too: it stays, in their spelling.
    update tickets.geo_decisions d
    set before = case when d.before ->> 'location_name' = p_location_name then d.before || jsonb_build_object('location_name', v_other) else d.before end,
      after = case when d.after ->> 'location_name' = p_location_name then d.after || jsonb_build_object('location_name', v_other) else d.after end
    where d.kind = 'location' and tickets.cluster_key(d.cluster) = tickets.cluster_key(p_cluster) and d.location_key = p_location_key
      and v_other <> p_location_name and p_location_name in (d.before ->> 'location_name', d.after ->> 'location_name');
    get diagnostics decisions = row_count;
    update tickets.geo_locations l set location_name = v_other
    where tickets.cluster_key(l.cluster) = tickets.cluster_key(p_cluster) and l.location_key = p_location_key -- index geo_locations_place
      and l.location_name = p_location_name and v_other <> p_location_name;
    get diagnostics places = row_count;
  end if;
  perform set_config('tickets_ops.erasing', '', true);
  perform tickets_ops.as_pipeline(v_before);
end
$$;
comment on function tickets_ops.erase_place(text, text, text) is 'Part of tickets_ops.erase_ticket, once the ticket is gone: a place that no other ticket names goes, with what people decided about it; where others name it, their spelling takes the place of the ticket''s. Returns how many gazetteer rows and decisions were deleted or changed.';

create or replace function tickets_ops.erase_from_errors(p_text text, p_instead text) returns bigint
language sql set search_path = pg_catalog, pg_temp as $$
  with snapshots as (
    update tickets_ops.snapshots set error = replace(error, p_text, p_instead) where position(p_text in error) > 0
    returning 1
  ), batches as (
    update tickets_ops.snapshot_batches set error = replace(error, p_text, p_instead) where position(p_text in error) > 0
    returning 1
  )
  select (select count(*) from snapshots) + (select count(*) from batches) + tickets_ops.erase_from_job_errors(p_text, p_instead)
$$;
comment on function tickets_ops.erase_from_errors(text, text) is 'Part of tickets_ops.erase_ticket: puts another text in the place of one in the errors of snapshots, batches and jobs, where Postgres may have quoted a row. Returns in how many.';

-- 100 lines: one deletion for each place where something of a ticket may stand, in the order in which they depend on each other.
create or replace function tickets_ops.erase_ticket(p_ticket_id text, p_dataset text default 'inc')
returns table (what text, erased bigint, note text)
language plpgsql set search_path = pg_catalog, pg_temp set lock_timeout = '10s' as $$
declare
  c_erased constant text := '(erased)';
  v_cluster text;
  v_location_key text;
  v_location_name text;
  v_since timestamptz;
  v_job text;
  v_decisions bigint;
begin
  if p_dataset is null or p_dataset not in ('inc', 'crq') then
    raise exception 'There is no dataset %: inc or crq.', coalesce(p_dataset, 'NULL');
  end if;
  -- Nothing named would be found in every text.
  if coalesce(btrim(p_ticket_id), '') = '' then
    raise exception 'Say which ticket is to be erased.' using errcode = 'invalid_parameter_value';
  end if;
  -- As a write of a gazetteer and a look at the bucket do, in this order.
  perform pg_advisory_xact_lock(tickets.gazetteer_lock());
  perform pg_advisory_xact_lock(tickets_ops.ledger_lock(p_dataset));
  if exists (select from tickets_ops.snapshots s where s.dataset = p_dataset and s.in_flight) then
    raise exception 'A snapshot is being loaded, and may bring ticket % again: nothing was erased.', p_ticket_id
      using errcode = 'object_in_use', hint = 'Erase it again when it is loaded: tickets_ops.health.';
  end if;
  execute format('select t.cluster, t.location_key, t.location_name from tickets.%I t where t.ticket_id = $1', p_dataset)
    into v_cluster, v_location_key, v_location_name using p_ticket_id;
  execute format('select min(e.snapshot_at) from tickets.%I e where e.ticket_id = $1', p_dataset || '_events')
    into v_since using p_ticket_id;
  select j.key into v_job
  from tickets_ops.queued_jobs() j
  where j.key = tickets_ops.location_job_key(v_cluster, v_location_key) and j.locked_at is not null;
  if found then
    raise exception 'The place of ticket % is being looked up: nothing was erased.', p_ticket_id
      using errcode = 'object_in_use', hint = 'Erase it again in a minute.';
  end if;

  -- For tickets_takeover.refuse_others: this write is meant.
  perform set_config('tickets_ops.client', coalesce(nullif(current_setting('tickets_ops.client', true), ''), 'erase_ticket'), true);
  delete from tickets_ops.unrecorded_tickets u where u.dataset = p_dataset and u.ticket_id = p_ticket_id;
  foreach what in array array[p_dataset, p_dataset || '_events'] loop
    execute format('delete from tickets.%I where ticket_id = $1', what) using p_ticket_id;
    get diagnostics erased = row_count;
    what := 'tickets.' || what;
    return next;
  end loop;
  what := format('tickets_ops.%s_digests', p_dataset);
  execute format('delete from tickets_ops.%I where ticket_id = $1', p_dataset || '_digests') using p_ticket_id;
  get diagnostics erased = row_count;
  return next;
  what := 'tickets_legacy.' || p_dataset; -- what a takeover put aside
  if to_regclass(what) is not null then
    execute format('delete from tickets_legacy.%I where ticket_id = $1', p_dataset) using p_ticket_id;
    get diagnostics erased = row_count;
    return next;
  end if;
  what := 'tickets.assignments';
  delete from tickets.assignments a where p_dataset = 'inc' and a.ticket_id = p_ticket_id;
  get diagnostics erased = row_count;
  return next;
  what := 'tickets_ops.snapshot_rows';
  erased := tickets_ops.erase_staged(p_dataset, p_ticket_id);
  perform tickets_ops.erase_from_ranges(p_dataset, p_ticket_id);
  return next;
  what := 'tickets_ops.snapshot_rejects';
  update tickets_ops.snapshot_rejects r set row_text = c_erased
  from tickets_ops.snapshots s
  where s.dataset = p_dataset and r.snapshot_id = s.snapshot_id and tickets_ops.mentions(r.row_text, p_ticket_id);
  get diagnostics erased = row_count;
  note := 'Line and reason stay.';
  return next;

  note := null;
  if v_location_key is not null then
    select p.places, p.decisions into erased, v_decisions
    from tickets_ops.erase_place(v_cluster, v_location_key, v_location_name) p;
    what := 'tickets.geo_locations';
    return next;
    what := 'tickets.geo_decisions';
    erased := v_decisions;
    return next;
  end if;
  what := 'jobs';
  erased := tickets_ops.remove_jobs(array(
    select j.id from tickets_ops.queued_jobs() j
    where j.task = 'geocode_location' and j.locked_at is null and tickets_ops.readable_payload(j.payload) ->> 'location_name' = v_location_name
  ));
  return next;
  what := 'errors that named it';
  erased := tickets_ops.erase_from_errors(p_ticket_id, c_erased);
  return next;
  what := 'files in the bucket';
  select count(*), 'NOT erased: ' || min(coalesce(s.archived_key, s.source_key)) || ' and later may hold it.' into erased, note
  from tickets_ops.snapshots s
  where s.dataset = p_dataset and s.origin = 'bucket' and s.snapshot_at >= v_since;
  return next;
exception when lock_not_available then
  perform tickets_ops.raise_blocked();
end
$$;
comment on function tickets_ops.erase_ticket(text, text) is 'Erases everything that this database holds of one ticket of a dataset (inc, crq): select * from tickets_ops.erase_ticket(''WOT0715527''). Only the owner may. Returns a row for each table with how much was erased, and the files in the bucket that are not. Trap: a later file that still has the ticket brings it as a new one, so have it removed at the source first. Raises while a snapshot is being loaded, and when others lock what it erases for ten seconds.';
--! EndIncluded erasure.sql
--! Included problems.sql
-- What needs a person, in words. A fault makes health not ok; a warning is worth knowing.

create or replace function tickets_ops.worker_problems() returns table (severity text, problem text)
language sql stable set search_path = pg_catalog, pg_temp as $$
  select 'fault', 'No worker is alive: start one (fleettickets worker).'
  where not exists (
    select from tickets_ops.worker_states() w
    where w.state = 'alive' or (w.state = 'unsure' and w.seen_at > now() - interval '1 minute')
  )
  union all
  select 'fault', format(
    '%s worker(s) hang: they hold their lock but have not been heard of for %s minutes.',
    count(*), extract(epoch from tickets_ops.hung_after())::integer / 60
  )
  from tickets_ops.worker_states() w where w.state = 'hung' having count(*) > 0
$$;
comment on function tickets_ops.worker_problems() is 'What is wrong with the workers, as faults and warnings in words.';

create or replace function tickets_ops.last_loaded(p_dataset text) returns setof tickets_ops.snapshots
language sql stable set search_path = pg_catalog, pg_temp as $$
  select s.* from tickets_ops.snapshots s
  where s.dataset = p_dataset and s.status in ('done', 'partial')
  order by s.loaded_at desc limit 1
$$;
comment on function tickets_ops.last_loaded(text) is 'The snapshot of a dataset (inc, crq) that was loaded last, whole or in part.';

create or replace function tickets_ops.snapshot_problems(p_dataset text) returns table (severity text, problem text)
language sql stable set search_path = pg_catalog, pg_temp as $$
  -- Of changes each file is needed: tickets_ops.changes_problems. Of snapshots, what was loaded, or found unchanged, at the file's own place or above makes up for a failure. A future-dated file says
  -- nothing before its time has come.
  (
    select 'fault', format('Snapshot %s (%s) failed: %s', s.snapshot_id, s.source_key, s.error)
    from tickets_ops.snapshots s
    where s.dataset = p_dataset and s.status = 'failed' and s.dismissed_at is null and s.opens_at is null and not s.ignored and not s.is_late
      and tickets_ops.feed(p_dataset) = 'snapshots'
      and s.snapshot_at <= now() + tickets_ops.clock_tolerance()
      and not exists (
        select from tickets_ops.snapshots g
        where g.dataset = s.dataset and g.status in ('done', 'partial', 'unchanged')
          and (g.snapshot_at, g.source_last_modified, g.source_key) >= (s.snapshot_at, s.source_last_modified, s.source_key) -- index snapshots_by_time
      )
    order by s.snapshot_at desc, s.snapshot_id desc -- index snapshots_by_time
    limit 1
  )
  union all
  select 'fault', format('Snapshot %s (%s) is held: %s Load it: select tickets_ops.release_snapshot(%s); drop it: select tickets_ops.dismiss_snapshot(%s);%s',
    s.snapshot_id, s.source_key, s.hold_reason, s.snapshot_id, s.snapshot_id,
    case when s.held_since is not null then
      format(' Or wait: a file of %s or later that shows the same is loaded.', tickets_ops.wall_clock(s.held_since + tickets_ops.hold_time()))
    end)
  from tickets_ops.snapshots s
  where s.dataset = p_dataset and s.status = 'held' and tickets_ops.feed(p_dataset) = 'snapshots'
  union all
  select 'fault', format('Snapshot %s (%s) is loaded only in part. %s', s.snapshot_id, s.source_key, s.broken_off)
  from tickets_ops.last_loaded(p_dataset) s
  where s.status = 'partial' and tickets_ops.feed(p_dataset) = 'snapshots'
  union all
  -- Until a better one comes.
  select 'warning', format('Snapshot %s (%s) was loaded, and is odd: %s', s.snapshot_id, s.source_key, warning)
  from tickets_ops.last_loaded(p_dataset) s, unnest(s.warnings) as warning
  union all
  select 'fault', format('Snapshot %s is %s and has not moved for %s.', s.snapshot_id, s.status, date_trunc('second', now() - s.progress_at))
  from tickets_ops.snapshots s
  where s.dataset = p_dataset and s.in_flight -- index snapshots_one_in_flight
    and s.progress_at < now() - interval '15 minutes'
  union all
  select 'warning', format('Snapshot %s (%s), part of a backfill, failed, and the backfill went on without it: %s', s.snapshot_id, s.source_key, s.error)
  from tickets_ops.snapshots s
  where s.dataset = p_dataset and s.status = 'failed' and s.backfill and not s.is_late and tickets_ops.feed(p_dataset) = 'snapshots' and s.dismissed_at is null and s.progress_at > now() - interval '7 days'
  union all
  select 'warning', format('%s lies in the folder and is not loaded: %s', s.source_key, s.error)
  from tickets_ops.snapshots s
  where s.dataset = p_dataset and s.ignored and s.dismissed_at is null and s.listed_at > now() - interval '1 day'
  union all
  -- The look of an hour later has tried again.
  select 'warning', format('%s loaded file(s) could not be archived, the oldest of them %s, which was loaded on %s. fleettickets doctor tries the rights in the bucket.',
    count(*), (array_agg(s.source_key order by s.loaded_at))[1], tickets_ops.wall_clock(min(s.loaded_at)))
  from tickets_ops.snapshots s
  where s.dataset = p_dataset and s.origin = 'bucket' and s.status in ('done', 'unchanged') and s.archived_at is null -- index snapshots_unarchived
    and s.loaded_at < now() - interval '90 minutes'
  having count(*) > 0
$$;
comment on function tickets_ops.snapshot_problems(text) is 'What is wrong with the snapshots of a dataset (inc, crq), as faults and warnings in words.';

create or replace function tickets_ops.job_problems() returns table (severity text, problem text)
language sql stable set search_path = pg_catalog, pg_temp as $$
  -- Geocoding waits for its rate as a matter of course. What the webhook does not take is a warning (tickets_ops.alert_problems).
  select 'fault', format('A job has waited for a worker since %s.', tickets_ops.wall_clock(min(j.run_at)))
  from tickets_ops.queued_jobs() j
  where j.locked_at is null and j.attempts < j.max_attempts and j.task not like 'geocode%' and j.task <> 'fleettickets_alert'
  having min(j.run_at) < now() - interval '10 minutes'
  union all
  select 'fault', format('%s job(s) failed, the last of them %s: %s See tickets_ops.failed_jobs, then select * from tickets_ops.retry_failed();',
    count(*), (array_agg(j.task order by j.failed_at desc))[1], left((array_agg(j.last_error order by j.failed_at desc))[1], 300))
  from tickets_ops.described_jobs() j
  where j.state = 'failed' and j.superseded is null and j.task <> 'fleettickets_alert'
  having count(*) > 0
  union all
  select 'warning', format('%s job(s) have a task that no worker of ours has: %s. Misspelt? See tickets_ops.jobs, and remove one with tickets_ops.cancel_job(id).',
    count(*), string_agg(distinct j.task, ', '))
  from tickets_ops.queued_jobs(p_unknown_too := true) j
  where j.task not in (select p.task from tickets_ops.job_policy() p) and not (select tickets_ops.worker_schema_is_shared())
  having count(*) > 0
$$;
comment on function tickets_ops.job_problems() is 'What is wrong with the jobs, as faults and warnings in words.';

create or replace function tickets_ops.raise_blocked() returns void language plpgsql stable security definer set search_path = pg_catalog, pg_temp as $$
declare
  v_blockers text := (
    select string_agg(distinct format('process %s of user %s, %s since %s: %s', a.pid, a.usename, a.state, tickets_ops.wall_clock(a.state_change), left(a.query, 200)), '; ')
    from pg_locks l
    join pg_stat_activity a using (pid)
    left join pg_class c on c.oid = l.relation and l.locktype = 'relation'
    where l.granted and a.pid <> pg_backend_pid() and a.datname = current_database()
      and (
        (c.relnamespace in ('tickets'::regnamespace, 'tickets_ops'::regnamespace, to_regnamespace('graphile_migrate')) or c.relname = '_private_jobs')
          and l.mode in ('RowShareLock', 'RowExclusiveLock', 'ShareRowExclusiveLock', 'ExclusiveLock', 'AccessExclusiveLock')
        or l.locktype = 'advisory' and l.objsubid = 1
          and (l.classid::bigint << 32) + l.objid::bigint in (tickets.gazetteer_lock(), tickets_ops.dispatch_lock())
      )
  );
begin
  if v_blockers is null then
    raise exception 'Others kept this waiting, so it was given up. They have ended meanwhile.'
      using errcode = 'lock_not_available', hint = 'Try again.';
  end if;
  raise exception 'Others keep this waiting, so it was given up: %.', v_blockers
    using errcode = 'lock_not_available', hint = 'Let them end their transaction, or end it: select pg_terminate_backend(process). Then try again.';
end
$$;
comment on function tickets_ops.raise_blocked() is 'Raises lock_not_available, and names the sessions that hold locks on what is ours: for whoever waited for one too long.';

create or replace function tickets_ops.blocking_problems() returns table (severity text, problem text)
language sql stable set search_path = pg_catalog, pg_temp as $$
  with waiting as (
    select unnest(pg_blocking_pids(a.pid)) as blocker, min(l.waitstart) as since
    from pg_stat_activity a join pg_locks l on l.pid = a.pid and not l.granted
    where a.datname = current_database() and a.application_name like 'fleettickets%'
    group by 1
  ),
  -- An open transaction that has written a gazetteer keeps every load waiting, also when none is due at this moment.
  holding as (
    select l.pid as blocker, a.xact_start as since
    from pg_locks l join pg_stat_activity a using (pid)
    where l.locktype = 'advisory' and l.mode = 'ExclusiveLock' and l.granted and l.objsubid = 1
      and l.database = (select oid from pg_database where datname = current_database())
      and (l.classid::bigint << 32) + l.objid::bigint = tickets.gazetteer_lock()
  ),
  blocking as (
    select blocker, min(since) as since from (select * from waiting union all select * from holding) as found group by blocker
  )
  select 'fault', format(
    'Process %s of user %s has kept loads waiting since %s: %s. End its transaction, or it: select pg_terminate_backend(%s);',
    b.blocker, coalesce(a.usename, 'unknown'), tickets_ops.wall_clock(b.since),
    coalesce(format('%s, its query of %s ago: %s', a.state, date_trunc('second', now() - a.query_start), left(a.query, 200)), 'what it does only its role can see'),
    b.blocker)
  from blocking b left join pg_stat_activity a on a.pid = b.blocker
  where b.since < now() - interval '1 minute'
    -- Anybody can call a session of his so.
    and not (coalesce(a.application_name, '') like 'fleettickets worker%' and a.usename = current_user)
$$;
comment on function tickets_ops.blocking_problems() is 'Sessions of others that have kept ours waiting for more than a minute, as faults in words, with process, user and query.';

create or replace function tickets_ops.geocoding_problems() returns table (severity text, problem text)
language sql stable set search_path = pg_catalog, pg_temp as $$
  select case when g.state in ('key refused', 'trouble', 'suspected') then 'fault' else 'warning' end,
    format('Geocoding stands still (%s): %s', g.state, g.reason)
  from tickets_ops.geocoding g
  where g.active
    and (
      g.state in ('key refused', 'trouble', 'suspected')
      or g.state in ('quota spent', 'budget spent') and exists (
        select from tickets_ops.queued_jobs() j
        where j.task like 'geocode%' and (j.locked_at is not null or j.attempts < j.max_attempts)
      )
    )
  limit 1
$$;
comment on function tickets_ops.geocoding_problems() is 'Why geocoding stands still, in words: a refused key, a provider in trouble or one that finds nothing any more is a fault; a spent quota or budget, which comes back by itself, a warning while places wait.';

create or replace function tickets_ops.vehicle_problems() returns table (severity text, problem text)
language sql stable set search_path = pg_catalog, pg_temp as $$
  select v.severity, v.trouble from tickets_ops.count_vehicles() v where v.severity is not null
$$;
comment on function tickets_ops.vehicle_problems() is 'Why tickets.vehicles cannot be read, in words. Tickets and their places do not depend on it.';

create or replace function tickets_ops.alert_problems() returns table (severity text, problem text)
language sql stable set search_path = pg_catalog, pg_temp as $$
  select 'warning', format('%s message(s) about health could not be delivered yet: %s Check ALERT_WEBHOOK_URL; drop one: select tickets_ops.cancel_job(id), its id stands in tickets_ops.jobs.',
    count(*), left((array_agg(j.last_error order by j.id desc))[1], 300))
  from tickets_ops.queued_jobs() j
  where j.task = 'fleettickets_alert' and j.last_error is not null
  having count(*) > 0
$$;
comment on function tickets_ops.alert_problems() is 'Messages that the webhook does not take, in words. A warning: as a fault it would be a turn of health, and so one message more.';

create or replace function tickets_ops.problem_subjects() returns setof text
language sql immutable parallel safe rows 9 set search_path = pg_catalog, pg_temp as $$
  select unnest(array['workers', 'feed', 'snapshots', 'jobs', 'locks', 'geocoding', 'settings', 'vehicles', 'alerts'])
$$;
comment on function tickets_ops.problem_subjects() is 'What a problem can be about, the most urgent first.';

create or replace function tickets_ops.list_problems() returns table (severity text, subject text, problem text)
language sql stable set search_path = pg_catalog, pg_temp as $$
  select p.severity, p.subject, p.problem
  from (
    select 'workers' as subject, * from tickets_ops.worker_problems()
    union all
    select f.subject, f.severity, case d.dataset when 'inc' then f.problem else format('%s: %s', upper(d.dataset), f.problem) end
    from tickets.datasets() as d (dataset)
    cross join lateral (
      select 'feed' as subject, * from tickets_ops.feed_problems(d.dataset)
      union all select 'snapshots', * from tickets_ops.snapshot_problems(d.dataset)
      union all select 'snapshots', * from tickets_ops.changes_problems(d.dataset)
    ) as f
    union all select 'jobs', * from tickets_ops.job_problems()
    union all select 'locks', * from tickets_ops.blocking_problems()
    union all select 'geocoding', * from tickets_ops.geocoding_problems()
    union all select 'settings', * from tickets_ops.setting_problems()
    union all select 'vehicles', * from tickets_ops.vehicle_problems()
    union all select 'alerts', * from tickets_ops.alert_problems()
  ) as p
  join tickets_ops.problem_subjects() with ordinality as s (subject, urgency) using (subject)
  order by p.severity = 'warning', s.urgency
$$;
comment on function tickets_ops.list_problems() is 'What needs a person: severity fault or warning, what it is about (tickets_ops.problem_subjects), and the problem in words; faults first, the most urgent of each first.';
--! EndIncluded problems.sql
--! Included health.sql
-- Health: the figures of tickets_ops.health, and those of each dataset. What of them needs a person is decided in problems.sql.

create or replace function tickets_ops.read_dataset_health(p_dataset text)
returns table (
  checked_at timestamptz, checked_age interval, checked_key text, checked_status text,
  loaded_snapshot_id bigint, loaded_key text, loaded_at timestamptz, loaded_age interval, loaded_status text,
  data_at timestamptz, data_age interval, open_missing bigint,
  in_flight_snapshot_id bigint, in_flight_status text, in_flight_idle interval,
  missed_run_at timestamptz, next_run_at timestamptz
)
language sql stable set search_path = pg_catalog, pg_temp as $$
  with clock as (
    select date_trunc('second', now()) as now
  ),
  meta as (
    select
      max(tickets.eat_ts(metadata ->> 'checked_at')) as checked_at,
      max(tickets.eat_ts(metadata ->> 'snapshot_at')) as data_at
    from tickets.import_meta where dataset = p_dataset
  ),
  looked as (
    select source_key, status from tickets_ops.snapshots where dataset = p_dataset order by progress_at desc, snapshot_id desc limit 1
  ),
  in_flight as (
    select snapshot_id, status, progress_at
    from tickets_ops.snapshots where dataset = p_dataset and in_flight -- index snapshots_one_in_flight
  )
  select
    meta.checked_at, clock.now - date_trunc('second', meta.checked_at), looked.source_key, looked.status,
    loaded.snapshot_id, loaded.source_key, loaded.loaded_at, clock.now - date_trunc('second', loaded.loaded_at), loaded.status,
    meta.data_at, clock.now - meta.data_at, loaded.open_missing,
    in_flight.snapshot_id, in_flight.status, clock.now - date_trunc('second', in_flight.progress_at),
    tickets_ops.missed_run(p_dataset), tickets_ops.next_scheduled_run(clock.now, p_dataset)
  from clock, meta
  left join looked on true left join tickets_ops.last_loaded(p_dataset) as loaded on true left join in_flight on true
$$;
comment on function tickets_ops.read_dataset_health(text) is 'What tickets_ops.health says of the files of a dataset (inc, crq), one row.';

create or replace function tickets_ops.read_datasets()
returns table (
  dataset text, feed text, open_tickets bigint, checked_at timestamptz, checked_key text, checked_status text,
  loaded_snapshot_id bigint, loaded_key text, loaded_at timestamptz, loaded_status text, data_at timestamptz, data_age interval,
  open_missing bigint, in_flight_snapshot_id bigint, in_flight_status text, in_flight_idle interval,
  missed_run_at timestamptz, next_run_at timestamptz
)
language sql stable security definer set search_path = pg_catalog, pg_temp as $$
  select
    d.dataset, tickets_ops.feed(d.dataset),
    case d.dataset -- partial indexes *_open
      when 'inc' then (select count(*) from tickets.inc where is_actionable)
      else (select count(*) from tickets.crq where is_actionable)
    end,
    h.checked_at, h.checked_key, h.checked_status, h.loaded_snapshot_id, h.loaded_key, h.loaded_at, h.loaded_status, h.data_at, h.data_age,
    h.open_missing, h.in_flight_snapshot_id, h.in_flight_status, h.in_flight_idle, h.missed_run_at, h.next_run_at
  from tickets.datasets() as d (dataset) cross join lateral tickets_ops.read_dataset_health(d.dataset) as h
$$;
comment on function tickets_ops.read_datasets() is 'The rows of tickets_ops.datasets, read with the owner''s rights.';

create or replace view tickets_ops.datasets as select * from tickets_ops.read_datasets();
comment on view tickets_ops.datasets is 'The datasets that are on, a row each: inc, and crq where CRQ_ENABLED=true. The columns that tickets_ops.health has too say the same of each.';
comment on column tickets_ops.datasets.dataset is 'inc (faults) or crq (requests for new installations).';
comment on column tickets_ops.datasets.feed is 'What its files are: snapshots or changes.';
comment on column tickets_ops.datasets.open_tickets is 'Its open (actionable) tickets.';
comment on column tickets_ops.datasets.checked_at is 'When its folder was last looked at with success.';
comment on column tickets_ops.datasets.checked_key is 'The file that was looked at last.';
comment on column tickets_ops.datasets.checked_status is 'Its status.';
comment on column tickets_ops.datasets.loaded_snapshot_id is 'The last snapshot that was loaded, whole or in part.';
comment on column tickets_ops.datasets.loaded_key is 'Its file.';
comment on column tickets_ops.datasets.loaded_at is 'When it was finished.';
comment on column tickets_ops.datasets.loaded_status is 'done or partial.';
comment on column tickets_ops.datasets.data_at is 'Export time of the newest file that is loaded or was found unchanged.';
comment on column tickets_ops.datasets.data_age is 'Since then: how old the tickets are.';
comment on column tickets_ops.datasets.open_missing is 'Open tickets that the last loaded snapshot no longer lists. NULL for a file of changes.';
comment on column tickets_ops.datasets.in_flight_snapshot_id is 'The snapshot that is being loaded.';
comment on column tickets_ops.datasets.in_flight_status is 'staging, loading or finalizing.';
comment on column tickets_ops.datasets.in_flight_idle is 'Since work on it last committed something.';
comment on column tickets_ops.datasets.missed_run_at is 'The last scheduled run, when half an hour later nothing had looked at its folder. NULL: none was missed.';
comment on column tickets_ops.datasets.next_run_at is 'The next scheduled run. NULL: no worker has started yet, so the schedule is not known.';

create or replace function tickets_ops.read_health()
returns table (
  ok boolean, problems text[],
  checked_at timestamptz, checked_age interval, checked_key text, checked_status text,
  loaded_snapshot_id bigint, loaded_key text, loaded_at timestamptz, loaded_age interval, loaded_status text,
  data_at timestamptz, data_age interval, open_missing bigint,
  in_flight_snapshot_id bigint, in_flight_status text, in_flight_idle interval,
  missed_run_at timestamptz, next_run_at timestamptz,
  jobs_waiting bigint, oldest_waiting_age interval, jobs_running bigint, jobs_failed bigint,
  workers_alive bigint, workers_unsure bigint,
  geocoding_state text, geocoding_budget_left integer, geocoding_jobs bigint, places_for_review bigint
)
language sql stable security definer set search_path = pg_catalog, pg_temp as $$
  with clock as (
    select date_trunc('second', now()) as now
  ),
  problem as (
    select coalesce(bool_and(severity = 'warning'), true) as ok, coalesce(array_agg(initcap(severity) || ': ' || problem), '{}') as problems
    from tickets_ops.list_problems()
  ),
  jobs as (
    select
      count(*) filter (where locked_at is null and attempts < max_attempts and run_at <= clock.now) as waiting,
      min(run_at) filter (where locked_at is null and attempts < max_attempts and run_at <= clock.now) as oldest,
      count(*) filter (where locked_at is not null) as running,
      count(*) filter (where (locked_at is not null or attempts < max_attempts) and task like 'geocode%') as geocoding
    from clock, tickets_ops.queued_jobs()
  ),
  failed as (
    select count(*) as jobs from tickets_ops.described_jobs() where state = 'failed' and superseded is null
  ),
  workers as (
    select
      count(*) filter (where state = 'alive' or (state = 'unsure' and seen_at > clock.now - interval '1 minute')) as alive,
      count(*) filter (where state = 'unsure' and seen_at > clock.now - interval '1 minute') as unsure
    from clock, tickets_ops.worker_states()
  ),
  geocoding as (
    select state, left_today from tickets_ops.geocoding where active limit 1
  ),
  review as (
    select
      (select count(*) from tickets.geo_locations where status = 'needs_review' and not verified)
      + (select count(*) from tickets.geo_clusters where suspicious) as places
  )
  select
    problem.ok, problem.problems,
    inc.checked_at, inc.checked_age, inc.checked_key, inc.checked_status,
    inc.loaded_snapshot_id, inc.loaded_key, inc.loaded_at, inc.loaded_age, inc.loaded_status,
    inc.data_at, inc.data_age, inc.open_missing,
    inc.in_flight_snapshot_id, inc.in_flight_status, inc.in_flight_idle,
    inc.missed_run_at, inc.next_run_at,
    jobs.waiting, clock.now - date_trunc('second', jobs.oldest), jobs.running, failed.jobs,
    workers.alive, workers.unsure,
    geocoding.state, geocoding.left_today::integer, jobs.geocoding, review.places
  from clock, problem, tickets_ops.read_dataset_health('inc') as inc, jobs, failed, workers, review left join geocoding on true
$$;
comment on function tickets_ops.read_health() is 'The row of tickets_ops.health, read with the owner''s rights.';

create or replace view tickets_ops.health as select * from tickets_ops.read_health();
comment on view tickets_ops.health is 'One row that a monitor can alert on: select ok, problems from tickets_ops.health. ok and problems are of all datasets that are on, the files and times are those of INC; tickets_ops.datasets has those of each. It tells progress as the database sees it. An unchanged hour is a success, and the time between two runs of the schedule, such as the night, is no lateness.';
comment on column tickets_ops.health.ok is 'Nothing needs a person: there is no fault among the problems. Warnings alone leave it true.';
comment on column tickets_ops.health.problems is 'What needs a person, in words, each marked as Fault or Warning, the most urgent first.';
comment on column tickets_ops.health.checked_at is 'When the bucket was last looked at with success.';
comment on column tickets_ops.health.checked_age is 'Since then.';
comment on column tickets_ops.health.checked_key is 'The file that was looked at last.';
comment on column tickets_ops.health.checked_status is 'Its status.';
comment on column tickets_ops.health.loaded_snapshot_id is 'The last snapshot that was loaded, whole or in part.';
comment on column tickets_ops.health.loaded_key is 'Its file.';
comment on column tickets_ops.health.loaded_at is 'When it was finished.';
comment on column tickets_ops.health.loaded_age is 'Since then. Most hours nothing changes, so age alone is no alarm: see data_age.';
comment on column tickets_ops.health.loaded_status is 'done or partial.';
comment on column tickets_ops.health.data_at is 'Export time of the newest file that is loaded or was found unchanged.';
comment on column tickets_ops.health.data_age is 'Since then: how old the tickets are.';
comment on column tickets_ops.health.open_missing is 'Open tickets that the last loaded snapshot no longer lists. NULL for a file of changes, which lists few.';
comment on column tickets_ops.health.in_flight_snapshot_id is 'The snapshot that is being loaded.';
comment on column tickets_ops.health.in_flight_status is 'staging, loading or finalizing.';
comment on column tickets_ops.health.in_flight_idle is 'Since work on it last committed something.';
comment on column tickets_ops.health.missed_run_at is 'The last scheduled run, when half an hour later nothing had looked at the bucket. NULL: none was missed.';
comment on column tickets_ops.health.next_run_at is 'The next scheduled run. NULL: no worker has started yet, so the schedule is not known.';
comment on column tickets_ops.health.jobs_waiting is 'Jobs that are due and wait for a worker.';
comment on column tickets_ops.health.oldest_waiting_age is 'How long the oldest of them has been due. Geocoding jobs wait for their rate.';
comment on column tickets_ops.health.jobs_running is 'Jobs that run.';
comment on column tickets_ops.health.jobs_failed is 'Failed jobs that still matter; see tickets_ops.failed_jobs.';
comment on column tickets_ops.health.workers_alive is 'Workers that live.';
comment on column tickets_ops.health.workers_unsure is 'Of these, workers on the embedded database, where all connections share one session: should one die, its jobs are free again only after 4 hours.';
comment on column tickets_ops.health.geocoding_state is 'See tickets_ops.geocoding.';
comment on column tickets_ops.health.geocoding_budget_left is 'Calls left today (UTC). NULL: no limit, or nobody to ask.';
comment on column tickets_ops.health.geocoding_jobs is 'Places that wait to be asked.';
comment on column tickets_ops.health.places_for_review is 'Places and clusters that a person should look at first: needs_review and suspicious ones of tickets_ops.review_queue.';
--! EndIncluded health.sql

--! split: 130-analytics.sql
-- What happened: closings, flow, repair times, backlog, teams.

create table tickets.inc_daily (
  day date not null,
  cluster text not null default '',
  region text not null default '',
  assigned_team text not null default '',
  open integer not null default 0,
  open_breached integer,
  open_at_risk integer,
  open_unknown integer,
  aged_0_24h integer,
  aged_24_48h integer,
  aged_2_7d integer,
  aged_7_30d integer,
  aged_over_30d integer,
  opened integer not null default 0,
  reopened integer not null default 0,
  closed integer not null default 0,
  snapshot_at timestamptz not null,
  source text not null check (source in ('state', 'events', 'imported')),
  primary key (day, cluster, region, assigned_team)
);
comment on table tickets.inc_daily is 'What was open when a day ended, one row per day, cluster, region and team that had something open, opened, reopened or closed: the tickets as they stood after the day''s last look at the bucket. It cannot be recovered: no event tells that an SLA clock ran out. Days without a look have no row; a look that found nothing open has one of zeros. Read it through tickets.inc_backlog_daily().';
comment on column tickets.inc_daily.day is 'Day in Nairobi of the snapshot''s own time.';
comment on column tickets.inc_daily.cluster is 'Network cluster then, in the spelling that most of that day''s tickets had; '''' for none. Cut to 100 characters, as region and assigned_team. Over several days group by tickets.cluster_key(cluster).';
comment on column tickets.inc_daily.region is 'Region then, lower case; '''' for none.';
comment on column tickets.inc_daily.assigned_team is 'Team then; '''' for none.';
comment on column tickets.inc_daily.open is 'Open tickets.';
comment on column tickets.inc_daily.open_breached is 'Of these, beyond the SLA (tickets.sla_rules) as of snapshot_at. NULL, as all that depends on a clock, where source is events.';
comment on column tickets.inc_daily.open_at_risk is 'Of these, not breached yet but soon.';
comment on column tickets.inc_daily.open_unknown is 'Of these, without a clock: in no ageing bucket.';
comment on column tickets.inc_daily.aged_0_24h is 'Of these, open for under 24 h as of snapshot_at (or with a clock that starts in the future).';
comment on column tickets.inc_daily.aged_24_48h is 'Of these, open for 24 h to under 48 h.';
comment on column tickets.inc_daily.aged_2_7d is 'Of these, open for 48 h to under 7 days.';
comment on column tickets.inc_daily.aged_7_30d is 'Of these, open for 7 to under 30 days.';
comment on column tickets.inc_daily.aged_over_30d is 'Of these, open for 30 days or more.';
comment on column tickets.inc_daily.opened is 'Tickets first seen open since the last day that has rows.';
comment on column tickets.inc_daily.reopened is 'Tickets seen open again since then.';
comment on column tickets.inc_daily.closed is 'Tickets that left the backlog since then, at the values that they closed with. Those first seen closed are not among them.';
comment on column tickets.inc_daily.snapshot_at is 'The export''s own time of the day''s last look.';
comment on column tickets.inc_daily.source is 'state: counted when the snapshot was in. events: rebuilt from the history. imported: what the Python version had noted; opened, reopened and closed of such a day are not known, and 0.';

--! Included calendar.sql
-- Days, weeks and months of Nairobi, cut in SQL: dashboards cut at UTC, three hours late.

create or replace function tickets.eat_day(p_at timestamptz) returns date
  language sql immutable parallel safe
  return (p_at at time zone 'Africa/Nairobi')::date;
comment on function tickets.eat_day(timestamptz) is 'The day in Nairobi (UTC+3 all year): 20:59:59Z is the same day, 21:00:00Z the next.';

create or replace function tickets.eat_midnight(p_day date) returns timestamptz
  language sql immutable parallel safe
  return p_day::timestamp at time zone 'Africa/Nairobi';
comment on function tickets.eat_midnight(date) is 'The instant at which a day begins in Nairobi: 21:00Z of the day before. A range of days is >= eat_midnight(first) and < eat_midnight(last + 1), which an index on the time can answer.';

create or replace function tickets.periods(p_from date, p_to date, p_step text)
returns table (n integer, period date, starts_at timestamptz, counted_from timestamptz, counted_to timestamptz)
language sql stable parallel safe
begin atomic
  select
    (row_number() over (order by first))::integer,
    first::date,
    tickets.eat_midnight(first::date),
    tickets.eat_midnight(greatest(first::date, p_from)),
    tickets.eat_midnight(least((first + ('1 ' || p_step)::interval)::date, p_to))
  from generate_series(date_trunc(p_step, p_from::timestamp), p_to - interval '1 day', ('1 ' || p_step)::interval) as first
  where p_from < p_to; -- of an empty range not even the week that it lies in
end;
comment on function tickets.periods(date, date, text) is 'The days, weeks (ISO, from Monday) or months (p_step) of Nairobi that [p_from, p_to) touches, numbered from 1. period and starts_at are those of the whole period; counted_from and counted_to are cut to the range, so the first and the last period may be in part only.';

create or replace function tickets.check_question(p_from date, p_to date, p_step text, p_by text, p_dimensions text[]) returns void
  language plpgsql immutable parallel safe set search_path = pg_catalog, pg_temp
as $$
begin
  if p_from is null or p_to is null or not isfinite(p_from) or not isfinite(p_to) then
    raise exception 'p_from and p_to are the first day and the day after the last: both are needed, and both must be finite.'
      using errcode = 'invalid_parameter_value';
  end if;
  if p_from > p_to then
    raise exception 'p_from (%) is after p_to (%): they are the first day and the day after the last.', p_from, p_to
      using errcode = 'invalid_parameter_value';
  end if;
  if p_to - p_from > 36525 then
    raise exception 'p_from (%) and p_to (%) are more than 100 years apart: ask for less.', p_from, p_to
      using errcode = 'invalid_parameter_value';
  end if;
  if p_step is null or p_step not in ('day', 'week', 'month') then
    raise exception 'p_step is %: choose day, week or month.', coalesce(quote_literal(p_step), 'NULL')
      using errcode = 'invalid_parameter_value';
  end if;
  if p_by <> all (p_dimensions) then
    raise exception 'p_by is %: choose %, or NULL for all together.', quote_literal(p_by), array_to_string(p_dimensions, ', ')
      using errcode = 'invalid_parameter_value';
  end if;
end
$$;
comment on function tickets.check_question(date, date, text, text, text[]) is 'Raises, with the right words, when a range of days, a step or a dimension makes no sense. For the analytic functions.';

create or replace function tickets.check_window(p_from timestamptz, p_to timestamptz) returns void
  language plpgsql immutable parallel safe set search_path = pg_catalog, pg_temp
as $$
begin
  if p_from > p_to then
    raise exception 'p_from (%) is after p_to (%): they are the first moment and the one after the last.', p_from, p_to
      using errcode = 'invalid_parameter_value';
  end if;
end
$$;
comment on function tickets.check_window(timestamptz, timestamptz) is 'Raises, with the right words, when a window of closing times is reversed. NULL is no bound.';

create or replace function tickets.dimension(p_by text, p_team text, p_cluster text, p_region text, p_owner text, p_status text) returns text
  language sql immutable parallel safe
  return case p_by when 'team' then p_team when 'cluster' then p_cluster when 'region' then p_region when 'owner' then p_owner when 'status' then p_status end;
comment on function tickets.dimension(text, text, text, text, text, text) is 'The value of the dimension that p_by names. Inlined: with a constant p_by nothing is left of it but the column.';

-- Not inlined, so that it is read once in a query; where nothing is asked by cluster, it reads nothing.
create or replace function tickets.cluster_spellings(p_by text default 'cluster') returns table (cluster_key text, spelling text)
language sql stable parallel safe rows 100
set search_path = pg_catalog, pg_temp
as $$
  select chosen.cluster_key, chosen.spelling
  from (
    select array_agg(w.cluster) as clusters, array_agg(w.tickets) as tickets
    from (
      select e.cluster, count(*) as tickets
      from tickets.inc_events e -- index inc_events_first
      where e.event in ('baseline', 'opened') or (e.event = 'closed' and e.old_value is null)
      group by e.cluster
      union all
      -- Clusters that tickets only moved to.
      select d.cluster, 0 from tickets.inc_daily d group by d.cluster
    ) as w
  ) as seen
  cross join lateral tickets.chosen_spellings(seen.clusters, seen.tickets) as chosen
  where p_by = 'cluster'
$$;
comment on function tickets.cluster_spellings(text) is 'The one spelling in which analytics show a cluster (tickets.chosen_spellings), by how many tickets were first seen with each. No row unless p_by is cluster, the default.';

create or replace function tickets.shown_value(p_by text, p_value text, p_spelling text) returns text
  language sql immutable parallel safe
  return coalesce(p_spelling, case when p_by = 'cluster' then tickets.cluster_key(p_value) else nullif(p_value, '') end, '(none)');
comment on function tickets.shown_value(text, text, text) is 'How analytics show a value of the dimension p_by: a cluster in its one spelling (tickets.cluster_spellings, else its key), (none) for none.';
--! EndIncluded calendar.sql
--! Included settled.sql
-- Until when the past is settled: the content of the feed trails its files by days.

create or replace function tickets.snapshot_through() returns timestamptz
  language sql stable
  set search_path = pg_catalog, pg_temp
as $$
  select greatest(
    -- An unchanged file moves this only.
    (select tickets.eat_ts(m.metadata ->> 'snapshot_at') from tickets.import_meta m where m.dataset = 'inc'),
    (select e.snapshot_at from tickets.inc_events e order by e.event_id desc limit 1)
  )
$$;
comment on function tickets.snapshot_through() is 'Export time of the newest INC snapshot that was loaded or found unchanged: what is later, nobody has told yet. NULL before the first.';

-- Closings of the first snapshot ever loaded are of all times: they are no lag. (After a takeover history begins with a
-- baseline, and the first snapshot brings news only.) Nor is one that comes over a month late, which is an accident; so the
-- index inc_events_closed_at answers alone.
create or replace function tickets.reporting_lag() returns interval
  language sql stable
  set search_path = pg_catalog, pg_temp
as $$
  select case
    when count(*) >= 100 then percentile_disc(0.95) within group (order by greatest(e.snapshot_at - e.closed_at, interval '0'))
    else interval '48 hours'
  end
  from tickets.inc_events e
  -- Subqueries, so that each is asked once.
  where e.event = 'closed'
    and e.closed_at > (select tickets.snapshot_through() - interval '60 days')
    and e.snapshot_at > (select tickets.snapshot_through() - interval '30 days')
    and e.snapshot_id is distinct from 0 -- nor those that a takeover imported
    and (e.snapshot_id = (select f.snapshot_id from tickets.inc_events f order by f.event_id limit 1)) is not true
$$;
comment on function tickets.reporting_lag() is 'How late a closing is told: the 95th percentile of snapshot_at - closed_at over the closings that the snapshots of the last 30 days brought (those of the very first snapshot apart, which tells of all times). 48 hours until there are 100. Trap: it says nothing of a closing that has not come at all.';

create or replace function tickets.settled_through() returns timestamptz
  language sql stable
  set search_path = pg_catalog, pg_temp
as $$
  select tickets.snapshot_through() - tickets.reporting_lag()
$$;
comment on function tickets.settled_through() is 'Lifecycle times (created_at_service, closed_at) before this instant are told with few exceptions: the newest snapshot less tickets.reporting_lag(). A period that ends after it is provisional: its counts still grow. NULL before the first snapshot.';
--! EndIncluded settled.sql
--! Included closures.sql
-- Closings, each with the team, the times and the figures that it was told with: tickets.inc knows a ticket's last one only.

-- Over 100 lines: one view, so that a question is planned together with it and reads only what it asks for. The inner query says
-- what was told of each closing, the joins what came after it.
create or replace view tickets.inc_closures as
select
  c.ticket_id,
  1 + coalesce(width_bucket(c.event_id, r.reopened), 0) as closure_no,
  c.closed_at,
  c.observed_at,
  c.observed,
  c.assigned_team,
  c.team_before,
  c.team_before is not null and c.team_before is distinct from c.assigned_team as handover_at_close,
  c.owner,
  c.cluster,
  c.region,
  clock.started_at as clock_start,
  clock.source as clock_source,
  round(extract(epoch from clock.lasted) / 3600, 2) as hours_to_close,
  c.mttr as mttr_minutes,
  c.sla_status as source_sla_status,
  clock.lasted <= interval '24 hours' as within_24h,
  clock.lasted <= interval '48 hours' as within_48h,
  (
    -- A change that comes with the closing is written after it, in the same snapshot; one that comes with the opening is none.
    select count(*)
    from (
      select o.event_id, o.snapshot_id from tickets.inc_events o
      where o.ticket_id = c.ticket_id and o.event_id < c.event_id and o.event in ('baseline', 'opened', 'reopened')
      order by o.event_id desc limit 1
    ) as opening
    join tickets.inc_events m on m.event_id > opening.event_id and m.snapshot_id is distinct from opening.snapshot_id
    where m.ticket_id = c.ticket_id and m.event = 'team_changed' and m.old_value is not null
      and (m.event_id < c.event_id or m.snapshot_id = c.snapshot_id)
  )::integer as reassignments,
  next.reopened_at,
  case when next.reopened_at >= c.closed_at then round(extract(epoch from next.reopened_at - c.closed_at) / 3600, 2) end as hours_to_reopen,
  next.reopened is null as is_final,
  c.normalized_status
from (
  -- A range of closed_at is one of an index in each branch: inc_events_closed_at, …_baseline_closed_at, …_corrected_at. The
  -- first, which has nearly all, has no `where`: so Postgres reads the table in its place, with the columns that are asked for
  -- only (a tenth less). `event = wanted` below is its condition.
  select
    true as observed, e.event_id, e.ticket_id, e.snapshot_id, e.snapshot_at as observed_at, e.assigned_team, e.team_before, e.owner, e.cluster,
    e.region, e.new_value as normalized_status, e.created_at_service, e.event_id as told_by, e.closed_at, e.mttr, e.sla_status,
    e.event, 'closed' as wanted
  from tickets.inc_events e
  union all
  -- Closed when history began: still closed, and no event says that it was closed since.
  select
    false, e.event_id, e.ticket_id, e.snapshot_id, coalesce(e.snapshot_at, e.recorded_at), e.assigned_team, e.team_before, e.owner, e.cluster,
    e.region, e.new_value, e.created_at_service, e.event_id, e.closed_at, e.mttr, e.sla_status, e.event, 'baseline'
  from tickets.inc_events e
  where e.event = 'baseline'
    and not exists (select from tickets.inc_events l where l.ticket_id = e.ticket_id and l.event = 'closed')
    and not exists (select from tickets.inc t where t.ticket_id = e.ticket_id and t.is_actionable) -- index inc_open
  union all
  -- A closing as it was corrected.
  select
    e.event = 'closed', e.event_id, e.ticket_id, e.snapshot_id, coalesce(e.snapshot_at, e.recorded_at), e.assigned_team, e.team_before, e.owner, e.cluster,
    e.region, e.new_value, e.created_at_service, k.event_id, k.closed_at, k.mttr, k.sla_status, k.event, 'closure_corrected'
  from tickets.inc_events k
  join tickets.inc_events e -- index inc_events_ticket
    on e.ticket_id = k.ticket_id and e.event_id < k.event_id and e.event in ('closed', 'baseline')
  where k.event = 'closure_corrected'
    -- Its last one before. Not `order by … limit 1`, with which no plan is parallel.
    and not exists (
      select from tickets.inc_events b
      where b.ticket_id = k.ticket_id and b.event in ('closed', 'baseline') and b.event_id > e.event_id and b.event_id < k.event_id
    )
) as c
-- What came after. Few tickets have anything of it, so a hash tells; a subquery per closing would keep plans from being parallel.
left join (
  select
    ticket_id,
    array_agg(event_id) filter (where event = 'reopened') as reopened,
    array_agg(snapshot_at) filter (where event = 'reopened') as reopened_at,
    array_agg(event_id) filter (where event = 'closure_corrected') as corrected
  from (
    -- Sorted here, so that the arrays are: sorting in each takes twice as long.
    select * from tickets.inc_events where event in ('reopened', 'closure_corrected') order by ticket_id, event_id -- index inc_events_revisions
  ) as e
  group by ticket_id
) as r on r.ticket_id = c.ticket_id
-- width_bucket() says how many of the array come no later than this closing was told: the next one is one further on.
cross join lateral (
  select
    r.reopened[width_bucket(c.told_by, r.reopened) + 1] as reopened,
    r.reopened_at[width_bucket(c.told_by, r.reopened) + 1] as reopened_at,
    r.corrected[width_bucket(c.told_by, r.corrected) + 1] as corrected
) as next
left join tickets.inc t on t.ticket_id = c.ticket_id
cross join lateral (
  select
    coalesce(c.created_at_service, t.created_at_service, t.first_seen_at) as started_at,
    case
      when coalesce(c.created_at_service, t.created_at_service) is not null then 'created_at_service'
      when t.first_seen_at is not null then 'first_seen_at'
    end as source,
    case
      when c.closed_at >= coalesce(c.created_at_service, t.created_at_service, t.first_seen_at)
        then c.closed_at - coalesce(c.created_at_service, t.created_at_service, t.first_seen_at)
    end as lasted
) as clock
where
  c.event = c.wanted
  -- Closed when history began: only where no event says that it was opened since.
  and (c.observed or next.reopened is null)
  -- Each closing once: as it was last told. A correction after a reopening is one of the next closing.
  and (next.corrected is null or next.corrected > next.reopened);
comment on view tickets.inc_closures is 'Closings, one row each: a ticket that was reopened has several. Population: every time that a ticket was seen to be closed, a first sight included, and the tickets that were closed when history began and were never reopened since. count(*) where is_final = tickets that are not open. Trap: it also holds closings that were undone; filter is_final, or say which you count.';
comment on column tickets.inc_closures.ticket_id is 'The ticket''s number.';
comment on column tickets.inc_closures.closure_no is '1 for the ticket''s first closing, 2 for the next, …. One before history that was undone counts, and has no row.';
comment on column tickets.inc_closures.closed_at is 'When it was closed, as the source last told of this closing. NULL: it has not told. Lifecycle time: told days late, and corrected at times.';
comment on column tickets.inc_closures.observed_at is 'The export''s own time of the snapshot that first showed it closed; for closings before history the time at which history began. It never changes.';
comment on column tickets.inc_closures.observed is 'false: closed before history began, so nobody saw it happen.';
comment on column tickets.inc_closures.assigned_team is 'The closing team, which is credited: that of the snapshot that first showed it closed. What the ticket''s team became later does not matter. NULL: none.';
comment on column tickets.inc_closures.team_before is 'The team before that snapshot. NULL: none, or the ticket was first seen closed.';
comment on column tickets.inc_closures.handover_at_close is 'The team changed in the very snapshot that shows the closing: team_before may have done the work.';
comment on column tickets.inc_closures.owner is 'The ticket''s owner then.';
comment on column tickets.inc_closures.cluster is 'The ticket''s cluster then, as the feed wrote it: group by tickets.cluster_key(cluster), as the functions do.';
comment on column tickets.inc_closures.region is 'The ticket''s region then, lower case.';
comment on column tickets.inc_closures.clock_start is 'When the ticket''s clock started: created_at_service, else first_seen_at. It starts once, also for later closings of a ticket that was reopened.';
comment on column tickets.inc_closures.clock_source is 'created_at_service, or first_seen_at (about 30 %), which is when the export first saw the ticket and so up to days late. NULL: neither is known.';
comment on column tickets.inc_closures.hours_to_close is 'Hours by the wall clock from clock_start to closed_at. NULL: one of them is unknown, or the closing comes first, as it does where a late first_seen_at is the clock. Pauses of the SLA are in it: the feed has none.';
comment on column tickets.inc_closures.mttr_minutes is 'The source''s own repair time in whole minutes, as last told of this closing. It is not hours_to_close: the source takes waiting off that it does not tell.';
comment on column tickets.inc_closures.source_sla_status is 'The source''s own verdict: Compliant or Breached. It is not reconciled with any clock here.';
comment on column tickets.inc_closures.within_24h is 'Closed at most 24 h after clock_start. NULL where hours_to_close is.';
comment on column tickets.inc_closures.within_48h is 'Closed at most 48 h after clock_start. NULL where hours_to_close is.';
comment on column tickets.inc_closures.reassignments is 'How often the ticket left a team between being opened (or reopened) and this closing, as the snapshots saw it; a handover at the close is one. A first assignment is none.';
comment on column tickets.inc_closures.reopened_at is 'The export''s own time of the snapshot that showed it open again: the source tells no time of its own. NULL: it was not reopened.';
comment on column tickets.inc_closures.hours_to_reopen is 'Hours from closed_at to reopened_at.';
comment on column tickets.inc_closures.is_final is 'It still stands: the ticket was not reopened since.';
comment on column tickets.inc_closures.normalized_status is 'The status that it was closed with.';
--! EndIncluded closures.sql
--! Included flow.sql
-- Flow: what came in and went out, by the days on which it happened, not on which it was told.

create or replace view tickets.inc_clock as
select ticket_id, created_at_service as started_at, 'created_at_service' as source from tickets.inc where created_at_service is not null
union all
select ticket_id, first_seen_at, 'first_seen_at' from tickets.inc where created_at_service is null and first_seen_at is not null;
comment on view tickets.inc_clock is 'When each ticket''s clock started, as it is known today: created_at_service, else first_seen_at, as for the SLA. Tickets with neither are not in it.';
comment on column tickets.inc_clock.ticket_id is 'The ticket''s number.';
comment on column tickets.inc_clock.started_at is 'When the clock started.';
comment on column tickets.inc_clock.source is 'created_at_service; or first_seen_at, which is when the export first saw the ticket and so up to days late.';

-- Not parallel safe, so that its own query may be parallel. Planned anew in each call, with its arguments as constants: the
-- dimension becomes a column. No JIT: compiling takes longer than what it would speed up. Pages are nearly as cheap in any
-- order, as they are in memory; and a worker, which repeats some of what the others do, is started for a year, not for a month
-- (measured for a month: half of the processor's time), and one only (a second one made a year slower on two cores).
create or replace function tickets.inc_flow(p_from date, p_to date, p_step text default 'day', p_by text default null)
returns table (
  period date, starts_at timestamptz, value text, created bigint, closed bigint, closed_final bigint, reopened bigint, net bigint,
  undated bigint, clock_known_pct numeric, provisional boolean
)
language plpgsql stable
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_custom_plan
set jit = off
set random_page_cost = 1.1
set parallel_setup_cost = 20000
set max_parallel_workers_per_gather = 1
as $$
#variable_conflict use_column
declare
  v_from timestamptz := tickets.eat_midnight(p_from);
  v_to timestamptz := tickets.eat_midnight(p_to);
  v_settled timestamptz := tickets.settled_through();
  v_starts timestamptz[];
begin
  perform tickets.check_question(p_from, p_to, p_step, p_by, array['team', 'cluster', 'region', 'owner', 'status']);
  v_starts := array(select p.counted_from from tickets.periods(p_from, p_to, p_step) p order by p.n);
  return query
  with counted as (
    -- In one pass, which a year's question shares out among workers as a whole.
    select
      width_bucket(h.at, v_starts) as n, tickets.dimension(p_by, h.assigned_team, h.cluster, h.region, h.owner, h.status) as value,
      count(*) filter (where h.what = 1) as created, count(*) filter (where h.clock_known) as known,
      count(*) filter (where h.what = 2) as closed, count(*) filter (where h.is_final) as closed_final,
      count(*) filter (where h.what = 3) as undated, count(*) filter (where h.what = 4) as reopened
    from (
      select
        1 as what, c.started_at as at, e.assigned_team, e.cluster, e.region, e.owner, e.new_value as status, -- as it was first seen
        c.source = 'created_at_service' as clock_known, false as is_final
      from tickets.inc_clock c -- indexes inc_created_at_service, inc_first_seen_at
      left join tickets.inc_events e -- index inc_events_first
        on e.ticket_id = c.ticket_id and (e.event in ('baseline', 'opened') or (e.event = 'closed' and e.old_value is null)) and p_by is not null
      where c.started_at >= v_from and c.started_at < v_to
      union all
      select 2, c.closed_at, c.assigned_team, c.cluster, c.region, c.owner, c.normalized_status, false, c.is_final
      from tickets.inc_closures c
      where c.closed_at >= v_from and c.closed_at < v_to
      union all
      select 3, c.observed_at, c.assigned_team, c.cluster, c.region, c.owner, c.normalized_status, false, false
      from tickets.inc_closures c
      where c.closed_at is null and c.observed and c.observed_at >= v_from and c.observed_at < v_to
      union all
      select 4, e.snapshot_at, e.assigned_team, e.cluster, e.region, e.owner, e.new_value, false, false
      from tickets.inc_events e -- index inc_events_revisions
      where e.event = 'reopened' and e.snapshot_at >= v_from and e.snapshot_at < v_to
    ) as h
    group by 1, 2
  ),
  summed as (
    select
      c.n, tickets.shown_value(p_by, c.value, s.spelling) as value,
      sum(c.created)::bigint as created, sum(c.known)::bigint as known, sum(c.closed)::bigint as closed,
      sum(c.closed_final)::bigint as closed_final, sum(c.undated)::bigint as undated, sum(c.reopened)::bigint as reopened
    from counted c left join tickets.cluster_spellings(p_by) s on p_by = 'cluster' and s.cluster_key = tickets.cluster_key(c.value)
    group by 1, 2
  ),
  filled as (
    -- Every value of the range in every period; all together also where there is none.
    select
      p.n, p.period, p.starts_at, p.counted_to, v.value, coalesce(s.created, 0) as created, coalesce(s.closed, 0) as closed,
      coalesce(s.closed_final, 0) as closed_final, coalesce(s.reopened, 0) as reopened, coalesce(s.undated, 0) as undated, s.known
    from tickets.periods(p_from, p_to, p_step) p
    cross join (select value from summed union select '(none)' where p_by is null) as v
    left join summed s on s.n = p.n and s.value = v.value
  )
  select
    f.period, f.starts_at, case when p_by is not null then f.value end, f.created, f.closed, f.closed_final, f.reopened,
    f.created + f.reopened - f.closed, f.undated, round(100.0 * f.known / nullif(f.created, 0), 1),
    (f.counted_to <= v_settled) is not true
  from filled f
  order by f.n, f.value;
end
$$;
comment on function tickets.inc_flow(date, date, text, text) is
'Inflow and outflow by period, in lifecycle time: counted when it happened, not when it was told. So a period grows for days after its end: see provisional. A row for each period, and for each value of p_by in the range, zeros included.

Arguments: [p_from, p_to), days in Nairobi; p_step: day, week (ISO, from Monday) or month; p_by: team, cluster, region, owner, status, or NULL for all together. A range that begins or ends within a period counts what is in the range.

period: first day of the period. starts_at: its midnight in Nairobi, for charts. value: of p_by (clusters as in tickets.cluster_spellings), "(none)" where there is none, NULL without p_by. created: tickets whose clock started (created_at_service, else first_seen_at), at the values that they were first seen with. closed: closings by closed_at, those included that were undone since, at the values of the snapshot that first showed them. closed_final: of these, those that still stand. reopened: tickets seen open again, by the time of the snapshot, as the source tells none. net: created + reopened - closed; of what was told with a time. undated: closings seen in the period whose closed_at the source does not tell: not in closed. clock_known_pct: of created, the share with created_at_service; the others are counted when the export first saw them, up to days late. provisional: the period ends after tickets.settled_through().

Trap: this is not the backlog''s change by day, for which see tickets.inc_backlog_daily(); do not mix the two.';
--! EndIncluded flow.sql
--! Included repair-times.sql
-- Repair times of what was closed, by the period of the closing. The 30 days for a reopening are named by a panel of
-- ops/grafana/tickets.json as well.

create or replace function tickets.inc_repair_times(p_from date, p_to date, p_step text default 'week', p_by text default null)
returns table (
  period date, starts_at timestamptz, value text, n bigint,
  mttr_known_pct numeric, mttr_mean numeric, mttr_median numeric, mttr_p80 numeric, mttr_p95 numeric,
  hours_known_pct numeric, clock_known_pct numeric, hours_mean numeric, hours_median numeric, hours_p80 numeric, hours_p95 numeric,
  within_24h_pct numeric, within_48h_pct numeric, source_compliant_pct numeric, reopened_pct numeric, reopened_mature boolean,
  provisional boolean
)
language plpgsql stable
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_custom_plan
set jit = off
set random_page_cost = 1.1
as $$
#variable_conflict use_column
declare
  v_starts timestamptz[];
  v_settled timestamptz := tickets.settled_through();
begin
  perform tickets.check_question(p_from, p_to, p_step, p_by, array['team', 'cluster', 'region', 'owner', 'status']);
  v_starts := array(select p.counted_from from tickets.periods(p_from, p_to, p_step) p order by p.n);
  return query
  with closings as (
    select
      width_bucket(c.closed_at, v_starts) as bucket,
      tickets.shown_value(
        p_by, tickets.dimension(p_by, c.assigned_team, c.cluster, c.region, c.owner, c.normalized_status), s.spelling
      ) as value,
      c.mttr_minutes, c.hours_to_close, c.clock_source, c.within_24h, c.within_48h, c.source_sla_status,
      c.reopened_at <= c.closed_at + interval '30 days' as reopened
    from tickets.inc_closures c
    left join tickets.cluster_spellings(p_by) s on p_by = 'cluster' and s.cluster_key = tickets.cluster_key(c.cluster)
    where c.closed_at >= tickets.eat_midnight(p_from) and c.closed_at < tickets.eat_midnight(p_to)
  ),
  measured as (
    select
      c.bucket, c.value, count(*) as n,
      count(c.mttr_minutes) as mttr_known, avg(c.mttr_minutes) as mttr_mean,
      percentile_disc(array[0.5, 0.8, 0.95]) within group (order by c.mttr_minutes) as mttr,
      count(c.hours_to_close) as hours_known, avg(c.hours_to_close) as hours_mean,
      percentile_disc(array[0.5, 0.8, 0.95]) within group (order by c.hours_to_close) as hours,
      count(*) filter (where c.clock_source = 'created_at_service') as clock_known,
      count(*) filter (where c.within_24h) as within_24h, count(*) filter (where c.within_48h) as within_48h,
      count(*) filter (where c.source_sla_status = 'Compliant') as compliant, count(c.source_sla_status) as told,
      count(*) filter (where c.reopened) as reopened
    from closings c group by c.bucket, c.value
  )
  select
    p.period, p.starts_at, case when p_by is not null then v.value end, coalesce(m.n, 0),
    round(100.0 * m.mttr_known / m.n, 1), round(m.mttr_mean, 1),
    case when m.mttr_known >= 5 then m.mttr[1] end, case when m.mttr_known >= 5 then m.mttr[2] end, case when m.mttr_known >= 5 then m.mttr[3] end,
    round(100.0 * m.hours_known / m.n, 1), round(100.0 * m.clock_known / m.n, 1), round(m.hours_mean, 2),
    case when m.hours_known >= 5 then m.hours[1] end, case when m.hours_known >= 5 then m.hours[2] end, case when m.hours_known >= 5 then m.hours[3] end,
    round(100.0 * m.within_24h / nullif(m.hours_known, 0), 1), round(100.0 * m.within_48h / nullif(m.hours_known, 0), 1),
    round(100.0 * m.compliant / nullif(m.told, 0), 1), round(100.0 * m.reopened / m.n, 1),
    coalesce(p.counted_to + interval '30 days' <= v_settled, false),
    (p.counted_to <= v_settled) is not true
  from tickets.periods(p_from, p_to, p_step) p
  cross join (select m.value from measured m union select '(none)' where p_by is null) as v
  left join measured m on m.bucket = p.n and m.value = v.value
  order by p.n, v.value;
end
$$;
comment on function tickets.inc_repair_times(date, date, text, text) is
'How long repairs took, by the period of the closing (closed_at, lifecycle time). Population: the closings of tickets.inc_closures in the period, those that were undone since included. A row for each period, and for each value of p_by in the range.

Arguments: as tickets.inc_flow().

period, starts_at, value: as there. n: closings. mttr_…: the source''s own figure in minutes; mttr_known_pct: share of n that has one. hours_…: hours by the wall clock from the ticket''s clock to closed_at; hours_known_pct: share of n for which it is known and not negative; clock_known_pct: share whose clock is created_at_service, not first_seen_at. …_mean: the average, which a few long ones move. …_median, …_p80, …_p95: the time within which the fastest half, 80 %, 95 % were done (fault repair time of ETSI EG 202 057): a time that occurred, not one between two; NULL under 5 known values. within_24h_pct, within_48h_pct: of those with known hours, at most so long. source_compliant_pct: of those with a verdict of the source, Compliant: its verdict is shown, not checked. reopened_pct: share of n that was reopened within 30 days; reopened_mature: these 30 days are over for the whole period, so the share is final. provisional: the period ends after tickets.settled_through().

Traps: it says nothing of tickets that are still open: for that see tickets.inc_time_to_close(). The feed has no pauses of the SLA. Two figures differ because mttr leaves waiting out.';
--! EndIncluded repair-times.sql
--! Included time-to-close.sql
-- Time to close of what was opened, with those that are still open: the quick ones close first, so an average of the closed
-- ones is too short for every cohort that is not wholly closed.

-- Kaplan-Meier: at each time at which a ticket closed, the share that stays open is multiplied by 1 - closed / still open and
-- watched just before. The product as a sum of logarithms; it reaches 0 where all that were watched close.
-- No nested loops: until the tables are analyzed, as after a first load, the planner takes a whole year for a handful of
-- tickets, and compares each ticket with each closing (measured: 30 000 tickets, 40 s against 0.2).
-- 100 lines: one statement whose steps each read the one before. As functions they would be planned apart, without its arguments.
create or replace function tickets.inc_time_to_close(p_from date, p_to date, p_by text default null)
returns table (
  value text, opened bigint, closed bigint, still_open bigint, clock_known_pct numeric, within_24h_pct numeric, within_48h_pct numeric,
  median_hours numeric, p80_hours numeric, p95_hours numeric, naive_mean_hours numeric, naive_median_hours numeric, through timestamptz
)
language plpgsql stable
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_custom_plan
set jit = off
set random_page_cost = 1.1
set enable_nestloop = off
as $$
#variable_conflict use_column
declare
  v_from timestamptz := tickets.eat_midnight(p_from);
  v_through timestamptz := tickets.settled_through();
begin
  perform tickets.check_question(p_from, p_to, 'day', p_by, array['team', 'cluster', 'region', 'owner', 'status']);
  return query
  with first_closings as (
    -- Those of the cohort are in this range, if their time is known (index inc_events_closed_at).
    select c.ticket_id, c.closed_at from tickets.inc_closures c where c.closure_no = 1 and c.is_final and c.closed_at >= v_from
  ),
  reopened as (
    select ticket_id, min(event_id) as event_id from tickets.inc_events where event = 'reopened' group by ticket_id -- index inc_events_revisions
  ),
  cohort as (
    select
      tickets.shown_value(p_by, tickets.dimension(p_by, e.assigned_team, e.cluster, e.region, e.owner, e.new_value), s.spelling) as value,
      c.source = 'created_at_service' as clock_known, c.started_at, r.ticket_id is not null or o.ticket_id is null as closed,
      case when ended.at >= c.started_at then date_part('epoch', ended.at - c.started_at) / 3600 end as hours, ended.at as ended_at
    from tickets.inc_clock c -- indexes inc_created_at_service, inc_first_seen_at
    left join tickets.inc_events e -- index inc_events_first
      on e.ticket_id = c.ticket_id and (e.event in ('baseline', 'opened') or (e.event = 'closed' and e.old_value is null)) and p_by is not null
    left join tickets.cluster_spellings(p_by) s on p_by = 'cluster' and s.cluster_key = tickets.cluster_key(e.cluster)
    left join first_closings f on f.ticket_id = c.ticket_id
    left join reopened r on r.ticket_id = c.ticket_id
    left join (select ticket_id from tickets.inc where is_actionable) as o on o.ticket_id = c.ticket_id -- index inc_open
    cross join lateral (
      select coalesce(f.closed_at, (
        -- Of one that was reopened, as it was last told before; one of before history is not in inc_closures.
        select l.closed_at from tickets.inc_events l -- index inc_events_ticket
        where l.ticket_id = r.ticket_id and l.event_id < r.event_id and l.event in ('baseline', 'closed', 'closure_corrected')
        order by l.event_id desc limit 1
      )) as at
    ) as ended
    where c.started_at >= v_from and c.started_at < tickets.eat_midnight(p_to)
  ),
  moments as (
    -- Of the closings after v_through only some have been told: counted beside open tickets that may have closed as soon, they
    -- would make all look quick. So a ticket that was open then is watched until then, whether it closed since or not; unless
    -- none of its value is open now, for then every closing has been told.
    -- Integers: their sums are no numerics, which take twice as long.
    select
      c.value, case when seen.ended then c.hours else date_part('epoch', v_through - c.started_at) / 3600 end as hours,
      count(*)::integer as tickets, (count(*) filter (where seen.ended))::integer as ended
    from cohort c
    left join (select distinct value from cohort where not closed) as unfinished on unfinished.value = c.value
    cross join lateral (select c.closed and (unfinished.value is null or c.ended_at <= v_through) as ended) as seen
    where c.hours is not null or not c.closed
    group by 1, 2
  ),
  -- Watched for a known time: not those that were closed before their clock started, or nobody knows when.
  watched as (
    select value, hours, ended, sum(tickets) over (partition by value order by hours desc) as at_risk
    from moments where hours >= 0
  ),
  curve as (
    select
      w.*,
      exp(sum(case when ended < at_risk then ln(1 - ended / at_risk::float8) else '-infinity' end) over (partition by value order by hours)) as still_open
    from watched w
  ),
  -- 1e-9: the logarithms' error must not move a quantile that the curve reaches exactly.
  quantiles as (
    select
      value, max(at_risk) as tickets,
      min(hours) filter (where still_open <= 0.5 + 1e-9) as median, min(hours) filter (where still_open <= 0.2 + 1e-9) as p80,
      min(hours) filter (where still_open <= 0.05 + 1e-9) as p95,
      case when max(hours) >= 24 or min(still_open) = 0 then 1 - coalesce(min(still_open) filter (where hours <= 24), 1) end as within_24h,
      case when max(hours) >= 48 or min(still_open) = 0 then 1 - coalesce(min(still_open) filter (where hours <= 48), 1) end as within_48h
    from curve group by value
  ),
  counted as (
    select
      value, count(*) as opened, count(*) filter (where closed) as closed, count(*) filter (where clock_known) as clock_known,
      count(hours) as hours_known, avg(hours) as naive_mean, percentile_disc(0.5) within group (order by hours) as naive_median
    from cohort group by value
  )
  select
    case when p_by is not null then v.value end, coalesce(c.opened, 0), coalesce(c.closed, 0), coalesce(c.opened - c.closed, 0),
    round(100.0 * c.clock_known / c.opened, 1), round(100 * q.within_24h::numeric, 1), round(100 * q.within_48h::numeric, 1),
    case when q.tickets >= 5 then round(q.median::numeric, 2) end, case when q.tickets >= 5 then round(q.p80::numeric, 2) end,
    case when q.tickets >= 5 then round(q.p95::numeric, 2) end,
    round(c.naive_mean::numeric, 2), case when c.hours_known >= 5 then round(c.naive_median::numeric, 2) end, v_through
  from (select c.value from counted c union select '(none)' where p_by is null) as v
  left join counted c on c.value = v.value
  left join quantiles q on q.value = v.value
  order by v.value;
end
$$;
comment on function tickets.inc_time_to_close(date, date, text) is
'How long it takes until a ticket is closed for the first time, for the tickets whose clock started in [p_from, p_to), the still open ones included: an estimate by Kaplan-Meier. What was open at through is censored then (known to take longer than so far), whether it closed since or not: of the closings since then only some have been told. Where nothing is open any more, every closing counts. The naive figures leave the open ones out and are too short, the more so the younger the cohort. One row for each value of p_by.

Arguments: [p_from, p_to), days in Nairobi; p_by: team, cluster, region, owner, status, as first seen, or NULL for all together.

value: of p_by (clusters as in tickets.cluster_spellings), "(none)" where there is none. opened: tickets of the cohort. closed: of these, closed at least once. still_open: the others. clock_known_pct: share with created_at_service as the clock; the others count from first_seen_at, up to days late. within_24h_pct, within_48h_pct: estimated share closed at most so long after; NULL: none of the cohort was watched for so long. median_hours, p80_hours, p95_hours: estimated hours until half, 80 %, 95 % are closed; NULL: not so many are closed yet, or under 5 tickets were watched. naive_mean_hours, naive_median_hours (NULL under 5): of the closed ones alone, for comparison. through: tickets.settled_through().

Traps: tickets whose closing time is unknown or lies before their clock are counted in closed and left out of the estimate. A cohort of the last days is watched for hours only: most of it is NULL.';
--! EndIncluded time-to-close.sql
--! Included daily.sql
-- The backlog by day: what was open after each day's last look at the bucket. No hour is set for it: the end of every look writes its
-- day anew, and a day ends at midnight in Nairobi (calendar.sql).

create or replace function tickets_ops.record_day(p_dataset text default 'inc') returns void
  language plpgsql
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_at timestamptz := (tickets_ops.high_water_mark(p_dataset)).snapshot_at;
  v_day date := tickets.eat_day(v_at);
  v_since timestamptz;
begin
  if p_dataset <> 'inc' or v_at is null then
    return;
  end if;
  -- Two looks at once take turns: what follows sees what the one before it wrote.
  perform pg_advisory_xact_lock(hashtextextended('fleettickets day', 0));
  select coalesce(tickets.eat_midnight(max(d.day) + 1), '-infinity') into v_since from tickets.inc_daily d where d.day < v_day;
  delete from tickets.inc_daily d where d.day = v_day;
  with told as (
    select w.*, tickets.cluster_key(w.cluster) as cluster_key
    from (
      select
        left(t.cluster, 100) as cluster, left(t.region, 100) as region, left(t.assigned_team, 100) as assigned_team,
        'open' as what, sla.sla_state, sla.at_risk, v_at - sla.sla_clock_start as age
      from tickets.inc t -- index inc_open
      cross join lateral tickets.sla(t.region, t.created_at_service, t.first_seen_at, v_at) as sla
      where t.is_actionable
      union all
      -- Since the last day that has rows: what a snapshot wrote that was never completed belongs to the next look.
      select e.cluster, e.region, e.assigned_team, e.event, null, null, null
      from tickets.inc_events e -- index inc_events_backlog
      where e.snapshot_at >= v_since and e.snapshot_at < tickets.eat_midnight(v_day + 1)
        and (e.event in ('opened', 'reopened') or (e.event = 'closed' and e.old_value is not null))
      union all
      select null, null, null, 'look', null, null, null
    ) as w
  ),
  clusters as (
    select cluster_key, mode() within group (order by cluster) as spelling from told group by 1
  )
  insert into tickets.inc_daily (
    day, cluster, region, assigned_team, open, open_breached, open_at_risk, open_unknown,
    aged_0_24h, aged_24_48h, aged_2_7d, aged_7_30d, aged_over_30d, opened, reopened, closed, snapshot_at, source
  )
  select
    v_day, coalesce(k.spelling, ''), coalesce(c.region, ''), coalesce(c.assigned_team, ''),
    count(*) filter (where c.what = 'open'),
    count(*) filter (where c.sla_state = 'breached'), count(*) filter (where c.at_risk), count(*) filter (where c.sla_state = 'unknown'),
    count(*) filter (where c.age < interval '24 hours'),
    count(*) filter (where c.age >= interval '24 hours' and c.age < interval '48 hours'),
    count(*) filter (where c.age >= interval '48 hours' and c.age < interval '168 hours'),
    count(*) filter (where c.age >= interval '168 hours' and c.age < interval '720 hours'),
    count(*) filter (where c.age >= interval '720 hours'),
    count(*) filter (where c.what = 'opened'), count(*) filter (where c.what = 'reopened'), count(*) filter (where c.what = 'closed'),
    v_at, 'state'
  from told c
  left join clusters k on k.cluster_key = c.cluster_key
  group by 2, 3, 4;
end
$$;
comment on function tickets_ops.record_day(text) is 'Writes the day of the newest snapshot to tickets.inc_daily: what is open now, with its SLA and age as of the snapshot''s own time, and what entered and left the backlog. Called in the transaction that ends a look at the bucket: a snapshot completed, failed half-way, or found unchanged. Twice is as good as once; days before it are never touched. INC only: does nothing for another dataset, or before the first load.';

-- A spell is the time for which a ticket was open; its team and cluster on a day are those of its last change before the
-- next midnight. The region, whose changes are no events, is that of the spell's beginning.
create or replace function tickets_ops.rebuild_days() returns integer
  language plpgsql
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_rows integer;
begin
  with looks as (
    select tickets.eat_day(s.snapshot_at) as day, max(s.snapshot_at) as snapshot_at
    from (
      -- Closings that a takeover imported tell nothing of what else was open then.
      select e.snapshot_at from tickets.inc_events e where e.snapshot_at is not null and e.snapshot_id is distinct from 0
      union all
      select l.snapshot_at from tickets_ops.snapshots l where l.dataset = 'inc' and l.status in ('done', 'partial', 'unchanged')
    ) as s
    where tickets.eat_day(s.snapshot_at) < coalesce((select min(d.day) from tickets.inc_daily d), 'infinity')
    group by 1
  ),
  lifecycle as (
    select
      e.ticket_id, e.event, e.event_id, e.old_value, e.cluster, e.region, e.assigned_team,
      tickets.eat_day(coalesce(e.snapshot_at, e.recorded_at)) as day,
      lead(e.event) over history as next_event, lead(tickets.eat_day(e.snapshot_at)) over history as next_day
    from tickets.inc_events e
    where e.event in ('baseline', 'opened', 'closed', 'reopened')
    window history as (partition by e.ticket_id order by e.event_id)
  ),
  spells as (
    select l.*, coalesce(l.next_day, (select max(k.day) + 1 from looks k)) - l.day as days
    from lifecycle l
    where l.event in ('opened', 'reopened') or (l.event = 'baseline' and case
      when l.next_event is null then exists (select from tickets.inc t where t.ticket_id = l.ticket_id and t.is_actionable)
      else l.next_event = 'closed'
    end)
  ),
  told as (
    select k.day, coalesce(cluster.name, s.cluster) as cluster, s.region, coalesce(team.name, s.assigned_team) as assigned_team, 'open' as what
    from spells s
    cross join generate_series(0, s.days - 1) as nth
    join looks k on k.day = s.day + nth
    left join lateral (
      select coalesce(e.new_value, '') as name from tickets.inc_events e -- index inc_events_ticket
      where e.ticket_id = s.ticket_id and e.event_id > s.event_id and e.event = 'team_changed' and tickets.eat_day(e.snapshot_at) <= k.day
      order by e.event_id desc limit 1
    ) as team on true
    left join lateral (
      select coalesce(e.new_value, '') as name from tickets.inc_events e -- index inc_events_ticket
      where e.ticket_id = s.ticket_id and e.event_id > s.event_id and e.event = 'cluster_changed' and tickets.eat_day(e.snapshot_at) <= k.day
      order by e.event_id desc limit 1
    ) as cluster on true
    union all
    select l.day, l.cluster, l.region, l.assigned_team, l.event
    from lifecycle l where l.event in ('opened', 'reopened') or (l.event = 'closed' and l.old_value is not null)
    union all
    select k.day, null, null, null, 'look' from looks k
  ),
  clusters as (
    select t.day, tickets.cluster_key(left(t.cluster, 100)) as cluster_key, mode() within group (order by left(t.cluster, 100)) as spelling
    from told t group by 1, 2
  )
  insert into tickets.inc_daily (day, cluster, region, assigned_team, open, opened, reopened, closed, snapshot_at, source)
  select
    k.day, coalesce(c.spelling, ''), coalesce(t.region, ''), coalesce(left(t.assigned_team, 100), ''),
    count(*) filter (where t.what = 'open'), count(*) filter (where t.what = 'opened'),
    count(*) filter (where t.what = 'reopened'), count(*) filter (where t.what = 'closed'), k.snapshot_at, 'events'
  from told t join looks k on k.day = t.day
  left join clusters c on c.day = t.day and c.cluster_key = tickets.cluster_key(left(t.cluster, 100))
  group by 1, 2, 3, 4, k.snapshot_at;
  get diagnostics v_rows = row_count;
  return v_rows;
end
$$;
comment on function tickets_ops.rebuild_days() is 'Writes the days before the first one of tickets.inc_daily, as history tells them: without SLA states and ages, which it does not tell. For an upgrade and for an imported history, before the next look at the bucket. Returns how many rows it wrote.';

-- With memory for a year by team, 60 000 rows: hashed, sorted and given back without a file.
create or replace function tickets.inc_backlog_daily(p_from date, p_to date, p_by text default null)
returns table (
  day date, starts_at timestamptz, value text, open bigint, open_breached bigint, open_at_risk bigint, open_unknown bigint,
  aged_0_24h bigint, aged_24_48h bigint, aged_2_7d bigint, aged_7_30d bigint, aged_over_30d bigint,
  opened bigint, reopened bigint, closed bigint, net bigint, observed boolean
)
language plpgsql stable
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_custom_plan
set jit = off
set work_mem = '64MB'
as $$
#variable_conflict use_column
begin
  perform tickets.check_question(p_from, p_to, 'day', p_by, array['team', 'cluster', 'region']);
  return query
  with days as (
    select d.day, tickets.eat_midnight(d.day) as starts_at, look.day as seen -- the last day with a look
    from (select p_from + n as day from generate_series(0, p_to - p_from - 1) as n) as d
    left join lateral (
      select i.day from tickets.inc_daily i where i.day <= d.day order by i.day desc limit 1 -- primary key
    ) as look on d.day <= greatest(look.day, tickets.eat_day(now()))
  ),
  listed as (
    -- The values of the range, as they were recorded and as they are shown. Numbered in their order, because numbers are sorted
    -- in a third of the time that texts take.
    select w.recorded, v.shown, dense_rank() over (order by v.shown) as rank
    from (
      select distinct coalesce(tickets.dimension(p_by, i.assigned_team, i.cluster, i.region, null, null), '') as recorded
      from tickets.inc_daily i -- primary key
      where i.day >= (select min(d.seen) from days d) and i.day < p_to
        -- What came and went on the day that is carried into the range is not of the range.
        and (i.open > 0 or (i.day >= p_from and i.opened + i.reopened + i.closed > 0))
      union
      select '' where p_by is null
    ) as w
    left join tickets.cluster_spellings(p_by) s on p_by = 'cluster' and s.cluster_key = tickets.cluster_key(w.recorded)
    cross join lateral (select tickets.shown_value(p_by, w.recorded, s.spelling) as shown) as v
  )
  select
    c.day, c.starts_at, case when p_by is not null then c.shown end,
    -- Nothing of this value was open: 0. Nobody has looked yet: NULL.
    coalesce(c.open, c.zero), case when c.open is null then c.zero else c.open_breached end,
    case when c.open is null then c.zero else c.open_at_risk end, case when c.open is null then c.zero else c.open_unknown end,
    case when c.open is null then c.zero else c.aged_0_24h end, case when c.open is null then c.zero else c.aged_24_48h end,
    case when c.open is null then c.zero else c.aged_2_7d end, case when c.open is null then c.zero else c.aged_7_30d end,
    case when c.open is null then c.zero else c.aged_over_30d end,
    -- A day that is carried forward brought nothing.
    case when c.observed then coalesce(c.opened, 0) else 0 end, case when c.observed then coalesce(c.reopened, 0) else 0 end,
    case when c.observed then coalesce(c.closed, 0) else 0 end,
    case when c.observed then coalesce(c.opened + c.reopened - c.closed, 0) else 0 end,
    c.observed
  from (
    -- Sorted in here, before the columns above are made: rows are copied for it.
    select d.day, d.starts_at, d.seen is not distinct from d.day as observed, case when d.seen is not null then 0::bigint end as zero, sums.*
    from days d
    -- Day by day, so that what is summed and sorted at a time is small: half of the time that it takes for all days at once.
    cross join lateral (
      select
        v.rank, v.shown,
        sum(i.open) as open, sum(i.open_breached) as open_breached, sum(i.open_at_risk) as open_at_risk, sum(i.open_unknown) as open_unknown,
        sum(i.aged_0_24h) as aged_0_24h, sum(i.aged_24_48h) as aged_24_48h, sum(i.aged_2_7d) as aged_2_7d,
        sum(i.aged_7_30d) as aged_7_30d, sum(i.aged_over_30d) as aged_over_30d,
        sum(i.opened) as opened, sum(i.reopened) as reopened, sum(i.closed) as closed
      from listed v
      left join tickets.inc_daily i -- primary key
        on i.day = d.seen and coalesce(tickets.dimension(p_by, i.assigned_team, i.cluster, i.region, null, null), '') = v.recorded
      group by v.shown, v.rank
      order by v.rank
    ) as sums
    order by d.day, sums.rank
  ) as c;
end
$$;
comment on function tickets.inc_backlog_daily(date, date, text) is
'The open backlog at the end of each day, and what changed it, in observed time (the snapshots'' own): these figures are never revised. A row for each day, and for each value of p_by in the range.

Arguments: [p_from, p_to), days in Nairobi; p_by: team, cluster, region, or NULL for all together.

day; starts_at: its midnight in Nairobi, for charts. value: of p_by on that day (clusters as in tickets.cluster_spellings), "(none)" where there is none. open: tickets open after the day''s last look at the bucket. open_breached, open_at_risk, open_unknown: of these by the SLA as of that look (unknown: no clock). aged_0_24h … aged_over_30d: of these by their age as of that look; they add up to open - open_unknown. All of these are NULL where the day was rebuilt from the history, which tells no clocks. opened: tickets first seen open. reopened. closed: tickets that left the backlog, at the values that they closed with; those first seen closed never were in it. net: opened + reopened - closed. observed: the bucket was looked at on that day; else the day before is carried forward, and what changed is told on the next observed day. open is NULL before the first look and after today.

Without p_by open is that of the day before plus net. With p_by it need not be: tickets move between teams. Trap: closed here is not tickets.inc_flow''s, which counts all closings, when they happened.';
--! EndIncluded daily.sql
--! Included ageing.sql
-- How old the open tickets are, now.

create or replace view tickets.inc_ageing as
select
  t.assigned_team,
  c.shown as cluster,
  count(*) as open,
  count(*) filter (where t.hours_open < 4) as aged_0_4h,
  count(*) filter (where t.hours_open >= 4 and t.hours_open < 24) as aged_4_24h,
  count(*) filter (where t.hours_open >= 24 and t.hours_open < 48) as aged_24_48h,
  count(*) filter (where t.hours_open >= 48 and t.hours_open < 168) as aged_2_7d,
  count(*) filter (where t.hours_open >= 168 and t.hours_open < 720) as aged_7_30d,
  count(*) filter (where t.hours_open >= 720) as aged_over_30d,
  count(*) filter (where t.hours_open is null) as aged_unknown
from tickets.inc_open_sla t
left join tickets.cluster_spellings() s on s.cluster_key = tickets.cluster_key(t.cluster)
cross join lateral (select coalesce(s.spelling, tickets.cluster_key(t.cluster)) as shown) as c
group by t.assigned_team, c.shown;
comment on view tickets.inc_ageing is 'The open tickets now by age, one row per team and cluster: hours since created_at_service, else first_seen_at, as in tickets.inc_open_sla. The buckets add up to open.';
comment on column tickets.inc_ageing.assigned_team is 'Team; NULL: none.';
comment on column tickets.inc_ageing.cluster is 'Network cluster, in one spelling (tickets.cluster_spellings); NULL: none.';
comment on column tickets.inc_ageing.open is 'Open tickets.';
comment on column tickets.inc_ageing.aged_0_4h is 'Open for under 4 h, or with a clock that starts in the future.';
comment on column tickets.inc_ageing.aged_4_24h is 'Open for 4 h to under 24 h.';
comment on column tickets.inc_ageing.aged_24_48h is 'Open for 24 h to under 48 h.';
comment on column tickets.inc_ageing.aged_2_7d is 'Open for 48 h to under 7 days.';
comment on column tickets.inc_ageing.aged_7_30d is 'Open for 7 to under 30 days.';
comment on column tickets.inc_ageing.aged_over_30d is 'Open for 30 days or more.';
comment on column tickets.inc_ageing.aged_unknown is 'Without a clock.';
--! EndIncluded ageing.sql
--! Included scorecard.sql
-- Teams: what each closed, how fast, how lastingly, and what it has on its hands.

create or replace function tickets.inc_team_scorecard(p_from date, p_to date)
returns table (
  assigned_team text, closed bigint, closed_final bigint, share_pct numeric, reopened_pct numeric, mttr_median numeric, hours_p80 numeric,
  within_48h_pct numeric, received bigint, handed_over bigint, open_now bigint, breached_now bigint, oldest_hours numeric, low_n boolean
)
language plpgsql stable
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_custom_plan
set jit = off
set random_page_cost = 1.1
as $$
#variable_conflict use_column
declare
  v_from timestamptz := tickets.eat_midnight(p_from);
  v_to timestamptz := tickets.eat_midnight(p_to);
begin
  perform tickets.check_question(p_from, p_to, 'day', null, null);
  return query
  with closings as (
    select
      coalesce(c.assigned_team, '(none)') as team, count(*) as closed, count(*) filter (where c.is_final) as closed_final,
      count(*) filter (where c.reopened_at <= c.closed_at + interval '30 days') as reopened,
      count(c.mttr_minutes) as mttr_known, percentile_disc(0.5) within group (order by c.mttr_minutes) as mttr_median,
      count(c.hours_to_close) as hours_known, percentile_disc(0.8) within group (order by c.hours_to_close) as hours_p80,
      count(*) filter (where c.within_48h) as within_48h
    from tickets.inc_closures c
    where c.closed_at >= v_from and c.closed_at < v_to -- index inc_events_closed_at
    group by 1
  ),
  moves as (
    select coalesce(left(e.old_value, 100), '(none)') as from_team, coalesce(left(e.new_value, 100), '(none)') as to_team
    from tickets.inc_events e -- index inc_events_time
    where e.event = 'team_changed' and e.snapshot_at >= v_from and e.snapshot_at < v_to
      -- Of open tickets, or such as closed or opened in the same snapshot: what happens next tells which it was.
      and coalesce((
        select n.event = 'closed' or n.snapshot_id = e.snapshot_id
        from tickets.inc_events n -- index inc_events_ticket
        where n.ticket_id = e.ticket_id and n.event in ('closed', 'reopened') and (n.event_id > e.event_id or n.snapshot_id = e.snapshot_id)
        order by n.event_id limit 1
      ), exists (select from tickets.inc t where t.ticket_id = e.ticket_id and t.is_actionable))
  ),
  moved as (
    select m.team, count(*) filter (where m.how = 'received') as received, count(*) filter (where m.how = 'handed over') as handed_over
    from (select to_team as team, 'received' as how from moves union all select from_team, 'handed over' from moves) as m
    group by m.team
  ),
  waiting as (
    select
      coalesce(left(o.assigned_team, 100), '(none)') as team, count(*) as open, count(*) filter (where o.sla_state = 'breached') as breached,
      max(o.hours_open) as oldest
    from tickets.inc_open_sla o
    group by 1
  )
  select
    team, coalesce(c.closed, 0), coalesce(c.closed_final, 0), round(100.0 * coalesce(c.closed, 0) / nullif(sum(c.closed) over (), 0), 1),
    round(100.0 * c.reopened / c.closed, 1), case when c.mttr_known >= 5 then c.mttr_median end,
    case when c.hours_known >= 5 then c.hours_p80 end, round(100.0 * c.within_48h / nullif(c.hours_known, 0), 1),
    coalesce(m.received, 0), coalesce(m.handed_over, 0), coalesce(w.open, 0), coalesce(w.breached, 0), w.oldest,
    coalesce(c.closed, 0) < 20
  from closings c
  full join moved m using (team)
  full join waiting w using (team)
  -- The many closings first; the others by name, so that they are not ranked.
  order by coalesce(c.closed, 0) < 20, case when c.closed >= 20 then c.closed end desc, team;
end
$$;
comment on function tickets.inc_team_scorecard(date, date) is
'What each team did in [p_from, p_to), days in Nairobi, and what it has on its hands now. One row for each team that closed, moved or has something; "(none)" for tickets without a team.

closed: closings by closed_at, credited to the team of the snapshot that first showed them. closed_final: of these, those that still stand. share_pct: share of all closings. reopened_pct: of closed, reopened within 30 days (for a young range still growing). mttr_median: the source''s minutes; hours_p80: hours by the wall clock within which the fastest 80 % were closed; NULL under 5 known values. within_48h_pct: of those with known hours. received, handed_over: moves of open tickets to and from the team, by the snapshots'' own time. open_now, breached_now, oldest_hours: as in tickets.inc_open_sla, now, whatever the range is. low_n: under 20 closings: too few for a comparison. Those rows come last, by name: no ranking should be made of them.

Traps: a team that closes what others worked on gets the credit: see handed_over, and handover_at_close in tickets.inc_closures. Teams differ in what they are given: a share is no quality.';
--! EndIncluded scorecard.sql

-- The schema reporting is shared: a function of such a name that is there already is somebody else's. It is kept, and ours
-- is not made.
do $made$
declare
  v_kept text[] := array(
    select p.proname from pg_proc p where p.pronamespace = 'reporting'::regnamespace and p.proname in ('fn_inc_trends', 'fn_inc_dashboard', 'fn_crq_for_map')
  );
  v_name text;
begin
  if not 'fn_inc_trends' = any (v_kept) then
    execute $ours$
--! Included trends.sql
-- Trends for charts: what dashboard_api serves beside the map.

-- It runs as its owner, as the map function does: so PUBLIC may not call it (grants.sql says who may), and its names are looked
-- up where no caller can put anything. A function of that name that somebody else made is kept, and this one is not made.
create or replace function reporting.fn_inc_trends(p_from date, p_to date, p_step text default 'day', p_by text default null)
returns jsonb language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  perform tickets.check_question(p_from, p_to, p_step, p_by, array['team', 'cluster', 'region', 'owner', 'status']);
  return jsonb_build_object(
    'from', p_from, 'to', p_to, 'step', p_step, 'by', p_by,
    'settled_through', tickets.settled_through(),
    'flow', (select coalesce(jsonb_agg(f), '[]') from tickets.inc_flow(p_from, p_to, p_step, p_by) f),
    'repair_times', (select coalesce(jsonb_agg(r), '[]') from tickets.inc_repair_times(p_from, p_to, p_step, p_by) r),
    -- Of owners and statuses no day is kept.
    'backlog', case when p_by is null or p_by in ('team', 'cluster', 'region') then (
      select coalesce(jsonb_agg(b), '[]') from tickets.inc_backlog_daily(p_from, p_to, p_by) b
    ) end,
    'freshness', (select to_jsonb(f) from tickets.freshness() f)
  );
end
$$;
comment on function reporting.fn_inc_trends(date, date, text, text) is
'Trends of the INC tickets for charts, as JSON.

Arguments: p_from and p_to, days in Nairobi, [p_from, p_to); p_step: day (default), week (ISO) or month; p_by: team, cluster, region, owner, status, or NULL (default) for all together.

flow, repair_times: the rows of tickets.inc_flow and tickets.inc_repair_times; backlog: those of tickets.inc_backlog_daily, by day whatever p_step is, null for owner and status; settled_through: periods that end later are provisional; freshness: as in reporting.fn_tickets_for_map. The comments of those functions say units, populations and traps. starts_at is the instant of midnight in Nairobi: use it as a chart''s time.

Rights: runs as its owner, so EXECUTE is all that a caller needs (and USAGE on schema reporting). Errors: an argument that makes no sense, with the words that do.';
--! EndIncluded trends.sql
    $ours$;
    revoke execute on function reporting.fn_inc_trends(date, date, text, text) from public;
  end if;
  if not 'fn_inc_dashboard' = any (v_kept) then
    execute $ours$
--! Included dashboard.sql
-- A dashboard of what is open and what was closed in a window: what dashboard_api serves beside the map.

create or replace function tickets.dashboard_features(p_open boolean, p_cluster text, p_status text, p_from timestamptz, p_to timestamptz)
returns jsonb language plpgsql stable
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_custom_plan
set jit = off
as $$
begin
  return (
    select to_jsonb(collection)
    from (
      select 'FeatureCollection' as type, coalesce(array_agg(listed.feature), '{}') as features
      from (
        select f.feature
        from tickets.map_features(p_open, p_cluster, null, null) f -- indexes inc_open, inc_closed_at
        where (p_status is null or f.normalized_status = p_status)
          and (p_open or (f.closed_at >= p_from and f.closed_at < p_to))
          and f.bytes_of_text <= 4000 -- jsonb holds no array over 256 MB: no real ticket comes near it
        order by f.closed_at desc nulls last
        limit 50000
      ) as listed
    ) as collection
  );
end
$$;
comment on function tickets.dashboard_features(boolean, text, text, timestamptz, timestamptz) is 'A GeoJSON FeatureCollection for reporting.fn_inc_dashboard(): the open tickets (p_open), or those closed in [p_from, p_to), that have a place.';

create or replace function tickets.dashboard_metrics(p_cluster text, p_status text, p_from timestamptz, p_to timestamptz)
returns jsonb language sql stable
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_custom_plan
set jit = off
as $$
  select to_jsonb(open_now) || to_jsonb(closed_then)
  from (
    select
      count(*) as open, count(t.geog) as open_mapped,
      count(*) filter (where t.sla_state = 'breached') as open_breached, count(*) filter (where t.at_risk) as open_at_risk,
      count(*) filter (where t.sla_state = 'unknown') as open_unknown, max(t.hours_open) as open_oldest_hours
    from tickets.inc_open_sla t
    where (p_cluster is null or tickets.cluster_key(t.cluster) = tickets.cluster_key(p_cluster)) and (p_status is null or t.normalized_status = p_status)
  ) as open_now
  cross join (
    select
      count(*) as closed, count(t.geog) as closed_mapped,
      case when count(t.mttr) >= 5 then percentile_disc(0.5) within group (order by t.mttr) end as closed_mttr_median,
      round(100.0 * count(*) filter (where clock.lasted <= interval '48 hours') / nullif(count(clock.lasted), 0), 1) as closed_within_48h_pct,
      round(100.0 * count(*) filter (where t.sla_status = 'Compliant') / nullif(count(t.sla_status), 0), 1) as closed_source_compliant_pct
    from tickets.inc t -- index inc_closed_at
    cross join lateral (
      select case
        when t.closed_at >= coalesce(t.created_at_service, t.first_seen_at) then t.closed_at - coalesce(t.created_at_service, t.first_seen_at)
      end as lasted
    ) as clock
    where t.is_actionable is not true and t.closed_at >= p_from and t.closed_at < p_to
      and (p_cluster is null or tickets.cluster_key(t.cluster) = tickets.cluster_key(p_cluster)) and (p_status is null or t.normalized_status = p_status)
  ) as closed_then
$$;
comment on function tickets.dashboard_metrics(text, text, timestamptz, timestamptz) is 'The figures of reporting.fn_inc_dashboard(): of the open tickets now, and of the tickets that are closed and were so in [p_from, p_to). closed_mttr_median: the source''s minutes, NULL under 5 tickets. closed_within_48h_pct: of those with a known time from clock to closing.';

-- It runs as its owner, as the map function does: so PUBLIC may not call it (grants.sql says who may), and its names are looked
-- up where no caller can put anything. A function of that name that somebody else made is kept, and this one is not made.
create or replace function reporting.fn_inc_dashboard(
  p_cluster text default null,
  p_status text default null,
  p_window text default 'today',
  p_from timestamptz default null,
  p_to timestamptz default null
)
returns jsonb language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_window text := case when p_from is not null or p_to is not null then 'custom' else p_window end;
  v_today date := tickets.eat_day(now());
  v_first date;
  v_from timestamptz := p_from;
  v_to timestamptz := p_to;
begin
  if v_window in ('today', 'week', 'month') then
    v_first := date_trunc(case v_window when 'today' then 'day' else v_window end, v_today::timestamp);
    v_from := tickets.eat_midnight(v_first);
    v_to := tickets.eat_midnight((v_first + ('1 ' || case v_window when 'today' then 'day' else v_window end)::interval)::date);
  elsif v_window is distinct from 'custom' then
    raise exception 'p_window is %: choose today, week, month or custom.', coalesce(quote_literal(v_window), 'NULL')
      using errcode = 'invalid_parameter_value';
  elsif p_from is null and p_to is null then
    raise exception 'A custom window needs p_from, p_to or both.' using errcode = 'invalid_parameter_value';
  end if;
  perform tickets.check_window(v_from, v_to);
  return jsonb_build_object(
    'window', jsonb_build_object('name', v_window, 'from', v_from, 'to', v_to),
    'open', tickets.dashboard_features(true, p_cluster, p_status, null, null),
    'closed', tickets.dashboard_features(false, p_cluster, p_status, coalesce(v_from, '-infinity'), coalesce(v_to, 'infinity')),
    'metrics', tickets.dashboard_metrics(p_cluster, p_status, coalesce(v_from, '-infinity'), coalesce(v_to, 'infinity')),
    'freshness', (select to_jsonb(f) from tickets.freshness() f)
  );
end
$$;
comment on function reporting.fn_inc_dashboard(text, text, text, timestamptz, timestamptz) is
'A dashboard of the INC tickets, as JSON: what is open now, and what was closed in a window.

Arguments: p_cluster (in any case, with any blanks), p_status (normalized_status): only tickets with exactly that value; NULL, the default, means all. p_window: today (default), week (ISO, from Monday), month, in Nairobi''s days, or custom. p_from, p_to: [p_from, p_to); either of them makes the window custom, one that is missing leaves that side open. They are instants: with no zone in a text the session''s counts; tickets.eat_midnight(day) is a day''s begin in Nairobi.

window: name, from, to. open: the open tickets with a place, a GeoJSON FeatureCollection, live whatever the window is. closed: those that are closed and whose closed_at lies in the window, likewise. Features as in reporting.fn_tickets_for_map. metrics: see tickets.dashboard_metrics(); they count tickets without a place too. freshness: as in reporting.fn_tickets_for_map. Trap: content trails the files by days, so little of today has been told yet: see tickets.reporting_lag(). A ticket that was reopened counts as open only; closings are in tickets.inc_closures.

Limit: at most the 50 000 most recently closed tickets are among the features, and none whose texts are over 4 000 bytes.

Rights: runs as its owner, so EXECUTE is all that a caller needs (and USAGE on schema reporting). Errors: a p_window that there is not, or a custom one without a bound or with p_from after p_to.';
--! EndIncluded dashboard.sql
    $ours$;
    revoke execute on function reporting.fn_inc_dashboard(text, text, text, timestamptz, timestamptz) from public;
  end if;
  if not 'fn_crq_for_map' = any (v_kept) then
    execute $ours$
--! Included crq-map.sql
-- The map of CRQ, requests for new installations.

-- Rights, plans and JIT as of reporting.fn_tickets_for_map.
create or replace function reporting.fn_crq_for_map(
  p_open_only boolean default true,
  p_cluster text default null,
  p_region text default null,
  p_team text default null
)
returns jsonb language plpgsql stable parallel safe security definer
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_custom_plan
set jit = off
as $$
begin
  return (select to_jsonb(collection) from tickets.map_collection(p_open_only, p_cluster, p_region, p_team, 'crq') as collection);
end
$$;
comment on function reporting.fn_crq_for_map(boolean, text, text, text) is
'The map of requests for new installations (CRQ): the document of reporting.fn_tickets_for_map(), with its arguments, limits, rights and errors, of tickets.crq. There is no SLA: open requests have clock_start, clock_source and hours_open as in tickets.crq_open, no sla_state and no at_risk, and the summary has no by_sla_state. Loaded where CRQ_ENABLED=true; where that was turned off, as they were last. Read-only, also on a streaming replica.';

-- Reads the partial index crq_open_ids through its bare `where is_actionable`.
create or replace function tickets.crq_places(p_cluster text, p_team text)
returns json language sql stable parallel safe set search_path = pg_catalog, pg_temp
as $$
  select coalesce(json_agg(place), '[]')
  from (
    select
      json_build_object('type', 'Point', 'coordinates', array[longitude, latitude]) as geometry,
      json_build_object(
        'cluster', case when min(tickets.cluster_key(cluster)) = max(tickets.cluster_key(cluster)) then min(cluster) end,
        'location_key', case when min(location_key) = max(location_key) then min(location_key) end,
        'location_name', min(location_name), 'geo_source', min(geo_source), 'open', count(*), 'breached', 0, 'at_risk', 0
      ) as properties
    from tickets.filtered_crq(true, true, p_cluster, null, p_team)
    group by longitude, latitude
  ) as place
$$;
comment on function tickets.crq_places(text, text) is 'The places of open requests (CRQ) for the page, as the features of reporting.fn_ticket_places(), of which none is late: no SLA is known. Reads as its caller.';
--! EndIncluded crq-map.sql
    $ours$;
    revoke execute on function reporting.fn_crq_for_map(boolean, text, text, text) from public;
  end if;
  foreach v_name in array v_kept loop
    raise notice 'There is a function reporting.% already: it is kept, and ours is not made.', v_name;
    if to_regclass('tickets_takeover.notes') is not null then
      insert into tickets_takeover.notes values ('functions that are kept, in place of which ours are not made', 'reporting.' || v_name, null);
    end if;
  end loop;
end
$made$;

--! split: 140-monitoring.sql
-- Monitoring: the figures, and telling people.

create table tickets_ops.announced_health (
  one boolean primary key default true check (one),
  ok boolean,
  since timestamptz
);
comment on table tickets_ops.announced_health is 'What people were told last of health.ok (ALERT_WEBHOOK_URL): one row, none before the first maintenance with that setting.';
comment on column tickets_ops.announced_health.one is 'Makes it one row.';
comment on column tickets_ops.announced_health.ok is 'health.ok, as it was announced. NULL: nothing was.';
comment on column tickets_ops.announced_health.since is 'When it turned.';

--! Included alerts.sql
-- Telling people when health turns: decided here, in one row, so that any number of workers tell each turn once.

create or replace function tickets_ops.announce_health() returns boolean
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
  v_before tickets_ops.announced_health;
  v_health record;
begin
  insert into tickets_ops.announced_health default values on conflict do nothing;
  -- Who comes second compares with what the first has announced.
  select * into v_before from tickets_ops.announced_health for update;
  select ok, problems, workers_alive into v_health from tickets_ops.health;
  -- A worker asks: where none lives, it was killed while it did, and has nothing to tell.
  if v_health.workers_alive = 0 then
    return null;
  end if;
  if v_health.ok is distinct from v_before.ok then
    update tickets_ops.announced_health set ok = v_health.ok, since = clock_timestamp();
    -- Without a key: a message that waits is not replaced by the next.
    perform tickets_ops.enqueue('fleettickets_alert', json_build_object(
      'ok', v_health.ok, 'problems', v_health.problems, 'at', tickets_ops.wall_clock(clock_timestamp()),
      'lasted_seconds', extract(epoch from clock_timestamp() - v_before.since)::integer, 'database', current_database()
    ));
  end if;
  return v_health.ok;
end
$$;
comment on function tickets_ops.announce_health() is 'Adds a job that posts to ALERT_WEBHOOK_URL, in the transaction that notes the turn, if health.ok is not what was announced last. Returns health.ok; NULL, and announces nothing, while no worker is alive. Called by maintenance where that setting is.';
--! EndIncluded alerts.sql
--! Included storage.sql
-- What is kept, for how long and why, and how large it is. A table without a line here fails a test: nothing grows unseen.

create or replace function tickets_ops.kept_tables() returns table (table_name text, part text, kept text)
language sql immutable parallel safe set search_path = pg_catalog, pg_temp as $$
  values
    ('tickets.inc', 'tickets', 'For ever: the map and every figure come from it.'),
    ('tickets.crq', 'tickets', 'For ever: the map and every figure come from it.'),
    ('tickets.inc_events', 'history', 'For ever: no later file tells it again.'),
    ('tickets.crq_events', 'history', 'For ever: no later file tells it again.'),
    ('tickets_ops.inc_digests', 'tickets', 'As long as the ticket.'),
    ('tickets_ops.crq_digests', 'tickets', 'As long as the ticket.'),
    ('tickets.inc_daily', 'history', 'For ever: no event tells it. A row a day for each cluster and team.'),
    ('tickets.import_meta', 'history', 'A row for each dataset.'),
    ('tickets.assignments', 'decisions', 'For ever: who was sent where. A row for each time.'),
    ('tickets.geo_decisions', 'decisions', 'For ever: a person may take one back. Some kilobytes each.'),
    ('tickets.geo_clusters', 'gazetteers', 'For ever; what a provider said is asked again when it expires.'),
    ('tickets.geo_locations', 'gazetteers', 'For ever; what a provider said is asked again when it expires.'),
    ('tickets.geo_country', 'gazetteers', 'One row.'),
    ('tickets_ops.geocoding_answers', 'gazetteers', 'Until the place is resolved, a day at most.'),
    ('tickets_ops.geocoding_calls', 'gazetteers', 'For ever: a row for each day and outcome.'),
    ('tickets_ops.geocoding_providers', 'gazetteers', 'A row for each provider.'),
    ('tickets_ops.geocoding_setup', 'gazetteers', 'One row.'),
    ('tickets_ops.snapshots', 'ledger', 'KEEP_LEDGER_DAYS (730).'),
    ('tickets_ops.looks', 'ledger', 'A row for each dataset.'),
    ('tickets_ops.sweeps', 'ledger', 'A row for each dataset.'),
    ('tickets_ops.unrecorded_tickets', 'ledger', 'Until the next load or sweep of the dataset.'),
    ('tickets_ops.snapshot_transitions', 'ledger', 'Written by migrations only.'),
    ('tickets_ops.snapshot_rejects', 'rejects', 'KEEP_REJECTS_DAYS (90); 10 000 of each file.'),
    ('tickets_ops.snapshot_rows', 'staging', 'Until the file is loaded; of one that failed or is held KEEP_FAILED_STAGING_DAYS (7).'),
    ('tickets_ops.snapshot_batches', 'staging', 'Until the file is loaded; of one that failed or is held KEEP_FAILED_STAGING_DAYS (7).'),
    ('tickets_ops.workers', 'jobs', 'Until 7 days after it was last heard of.'),
    ('tickets_ops.settings', 'jobs', 'With its worker; the latest of each setting for ever.'),
    ('tickets_ops.schedule', 'jobs', 'A row for each line of the crontab.'),
    ('tickets_ops.announced_health', 'jobs', 'One row.'),
    ('tickets.sla_rules', 'gazetteers', 'What people set.'),
    ('tickets.dispatch_settings', 'gazetteers', 'One row.'),
    ('tickets.version_slots', 'tickets', 'A handful of rows.')
$$;
comment on function tickets_ops.kept_tables() is 'Each table of ours: the part of the storage that it counts to, and how long its rows are kept, or why for ever. Settings are named with their defaults.';

create or replace view tickets_ops.storage as
select
  format('%s.%s', n.nspname, c.relname) as table_name,
  case
    when n.nspname = tickets_ops.worker_schema() then 'jobs'
    when n.nspname in ('tickets_legacy', 'tickets_takeover') then 'takeover'
    else k.part
  end as part,
  pg_total_relation_size(c.oid) as bytes,
  greatest(c.reltuples, 0)::bigint as rows_about,
  case
    when n.nspname = tickets_ops.worker_schema() then 'A job until it is done; one that failed KEEP_FAILED_JOBS_DAYS (30).'
    when n.nspname in ('tickets_legacy', 'tickets_takeover') then 'Until tickets_takeover.clean_up().'
    else k.kept
  end as kept
from pg_class c
join pg_namespace n on n.oid = c.relnamespace
left join tickets_ops.kept_tables() k on k.table_name = format('%s.%s', n.nspname, c.relname)
where c.relkind in ('r', 'p', 'm')
  and n.nspname in ('tickets', 'tickets_ops', 'tickets_legacy', 'tickets_takeover', tickets_ops.worker_schema());
comment on view tickets_ops.storage is 'The tables of ours: how large each is, and how long its rows are kept: select * from tickets_ops.storage order by bytes desc. The schema of the jobs may be shared with another application, whose jobs count too.';
comment on column tickets_ops.storage.table_name is 'Schema and table.';
comment on column tickets_ops.storage.part is 'tickets, history, decisions, gazetteers, ledger, rejects, staging, jobs or takeover. NULL: others made it there.';
comment on column tickets_ops.storage.bytes is 'With its indexes and what is stored out of line.';
comment on column tickets_ops.storage.rows_about is 'As counted by the last vacuum or analyze; 0 before the first.';
comment on column tickets_ops.storage.kept is 'How long, or why for ever. NULL: others made it there.';

create or replace function tickets_ops.storage_metrics() returns table (name text, labels jsonb, value double precision)
language sql stable set search_path = pg_catalog, pg_temp as $$
  select 'storage_bytes', jsonb_build_object('part', p.part), coalesce(sum(s.bytes), 0)
  from unnest(array['tickets', 'history', 'decisions', 'gazetteers', 'ledger', 'rejects', 'staging', 'jobs', 'takeover']) as p (part)
  left join tickets_ops.storage s on s.part = p.part
  group by p.part
$$;
comment on function tickets_ops.storage_metrics() is 'Metrics of what the tables take.';
--! EndIncluded storage.sql
--! Included metrics.sql
-- The figures that a monitor keeps: one view, tickets_ops.metrics. It comes out three ways: SQL, ops/sql_exporter.yml, and
-- `fleettickets metrics`.
--
-- Gauges only: the ledger is pruned, so a counter of it would run backwards. Base units (seconds). Every name and every
-- known label has a row, also in an empty database: a count is 0, an age that is unknown NaN. Labels have a dozen values at
-- most, and none is the number of a ticket, a place or a vehicle: each would be a series for ever.

create or replace function tickets_ops.metric_help() returns table (place integer, name text, help text)
language sql immutable parallel safe set search_path = pg_catalog, pg_temp as $$
  select *
  from (values
    (1, 'health_ok', '1 when nothing needs a person, 0 when tickets_ops.health has a fault.'),
    (2, 'problems', 'Problems in tickets_ops.health; severity fault or warning, subject as the problem is about.'),
    (3, 'checked_age_seconds', 'Since the bucket was last looked at with success. NaN before the first look.'),
    (4, 'data_age_seconds', 'Since the export of the newest file that is loaded or was found unchanged: how old the tickets are. NaN before the first load.'),
    (5, 'content_lag_seconds', 'How far the newest created_at_service or closed_at trails the newest file. About two days, in daily lumps, is normal. NaN before the first load.'),
    (6, 'missed_run', '1 when nothing looked at the bucket within half an hour after the last scheduled run.'),
    (7, 'snapshot_rows', 'Rows of the snapshot that was loaded last, by what became of them; together what was read.'),
    (8, 'snapshot_load_seconds', 'How long that snapshot took from the first row that was written to its end. NaN before the first load.'),
    (9, 'open_missing', 'Open tickets that it does not list. NaN before the first load, and where files hold changes only.'),
    (10, 'files_waiting', 'Files that were seen in the folder and are not dealt with yet: in flight, held for a person, or behind another file.'),
    (11, 'jobs', 'Jobs by task and state; failed ones only while they matter (tickets_ops.failed_jobs.superseded).'),
    (12, 'oldest_job_age_seconds', 'How long the oldest job that is due has waited for a worker; 0 when none waits.'),
    (13, 'workers', 'Worker processes of the last 7 days by state; alive, unsure (sessions are shared, heard of in the last minute), hung, dead, stopped.'),
    (14, 'geocoding_calls_today', 'Answers of the provider in use today (UTC), by outcome.'),
    (15, 'geocoding_budget_left', 'Calls left today (UTC). NaN without a limit or a provider.'),
    (16, 'geocoding_stopped', '1 when a provider is set and is not asked: budget or quota spent, key refused, rate limited, in trouble.'),
    (17, 'places_for_review', 'Doubtful places and clusters that no person has decided about (tickets_ops.review_queue).'),
    (18, 'tickets_open', 'Open tickets by SLA state; at_risk ones are not counted as ok. Those of CRQ, where it is on, have no SLA, and a label dataset instead.'),
    (19, 'tickets_placed', 'Open tickets by the precision of their position; none is on no map. Those of CRQ, where it is on, have a label dataset besides.'),
    (20, 'vehicles', 'Vehicles by what may be believed of their position (tickets.vehicles_now). NaN while tickets.vehicles cannot be read.'),
    (21, 'assignments_open', 'Tickets that a vehicle is assigned to.'),
    (22, 'storage_bytes', 'What the tables take on disk, with their indexes, by part (tickets_ops.storage).')
  ) as described (place, name, help)
$$;
comment on function tickets_ops.metric_help() is 'The metrics in their order: each name without its prefix fleettickets_, and what it tells.';

create or replace function tickets_ops.health_metrics() returns table (name text, labels jsonb, value double precision)
language sql stable set search_path = pg_catalog, pg_temp as $$
  with problem as materialized (
    select severity, subject from tickets_ops.list_problems()
  )
  select 'health_ok', '{}'::jsonb, (not exists (select from problem where severity = 'fault'))::integer
  union all
  select 'problems', jsonb_build_object('severity', s.severity, 'subject', s.subject), count(p.subject)
  from (select * from unnest(array['fault', 'warning']) as severity, tickets_ops.problem_subjects() as subject) as s
  left join problem p using (severity, subject)
  group by s.severity, s.subject
$$;
comment on function tickets_ops.health_metrics() is 'Metrics of what needs a person.';

create or replace function tickets_ops.dataset_metrics(p_dataset text) returns table (name text, labels jsonb, value double precision)
language sql stable set search_path = pg_catalog, pg_temp as $$
  with meta as (
    select tickets.eat_ts(i.metadata ->> 'checked_at') as checked_at, tickets.eat_ts(i.metadata ->> 'snapshot_at') as data_at
    from tickets.import_meta i where i.dataset = p_dataset
  ),
  figures (name, labels, value) as (
    select 'checked_age_seconds', '{}'::jsonb, extract(epoch from now() - checked_at) from meta
    union all select 'data_age_seconds', '{}', extract(epoch from now() - data_at) from meta
    union all select 'content_lag_seconds', '{}', extract(epoch from lag) from tickets_ops.content_lag(p_dataset)
    union all select 'missed_run', '{}', (tickets_ops.missed_run(p_dataset) is not null)::integer
    union all select 'snapshot_load_seconds', '{}', extract(epoch from loaded_at - load_began_at) from tickets_ops.last_loaded(p_dataset)
    union all select 'open_missing', '{}', open_missing from tickets_ops.last_loaded(p_dataset)
    union all
    select 'files_waiting', '{}', (
      select count(*) from tickets_ops.snapshots s where s.dataset = p_dataset and (s.in_flight or s.status = 'held')
    ) + coalesce((select l.waiting from tickets_ops.looks l where l.dataset = p_dataset), 0)
    union all
    select 'snapshot_rows', jsonb_build_object('outcome', o.outcome), coalesce(o.rows, 0)
    from (select) as one
    left join tickets_ops.last_loaded(p_dataset) s on true
    cross join lateral (values
      ('inserted', s.rows_inserted), ('updated', s.rows_updated), ('unchanged', s.rows_unchanged), ('duplicate', s.rows_duplicate),
      ('dropped_alarm', s.rows_dropped_alarm), ('dropped_sentinel', s.rows_dropped_sentinel), ('rejected', s.rows_rejected)
    ) as o (outcome, rows)
  ),
  -- Before the first load the table of the last ones has no row.
  ages (name) as (
    values ('checked_age_seconds'), ('data_age_seconds'), ('content_lag_seconds'), ('snapshot_load_seconds'), ('open_missing')
  )
  select coalesce(f.name, a.name), jsonb_build_object('dataset', p_dataset) || coalesce(f.labels, '{}'), coalesce(f.value, 'NaN')
  from figures f full join ages a using (name)
$$;
comment on function tickets_ops.dataset_metrics(text) is 'Metrics of the files of a dataset (inc, crq).';

create or replace function tickets_ops.job_metrics() returns table (name text, labels jsonb, value double precision)
language sql stable set search_path = pg_catalog, pg_temp as $$
  with queued as materialized (
    select
      j.task,
      case
        when j.locked_at is not null then 'running'
        when j.attempts >= j.max_attempts then 'failed'
        when j.attempts > 0 then 'retrying'
        when j.run_at > now() then 'scheduled'
        else 'ready'
      end as state,
      count(*) as jobs, min(j.run_at) as run_at
    from tickets_ops.queued_jobs() j
    group by 1, 2
  ),
  -- Only these few have to be described, which takes a look at the payload of each.
  failed as materialized (
    select j.task, count(*) as jobs
    from tickets_ops.described_jobs() j
    where j.state = 'failed' and j.superseded is null and exists (select from queued q where q.state = 'failed')
    group by 1
  )
  select 'jobs', jsonb_build_object('task', p.task, 'state', s.state), coalesce(case s.state when 'failed' then f.jobs else q.jobs end, 0)
  from tickets_ops.job_policy() p
  cross join unnest(array['ready', 'scheduled', 'running', 'retrying', 'failed']) as s (state)
  left join queued q on q.task = p.task and q.state = s.state
  left join failed f on f.task = p.task
  union all
  select 'oldest_job_age_seconds', jsonb_build_object('task', p.task),
    coalesce(extract(epoch from greatest(now() - min(q.run_at) filter (where q.state in ('ready', 'retrying')), '0')), 0)
  from tickets_ops.job_policy() p left join queued q on q.task = p.task
  group by p.task
  union all
  select 'workers', jsonb_build_object('state', s.state),
    count(w.pool_id) filter (where w.state <> 'unsure' or w.seen_at > now() - interval '1 minute')
  from unnest(array['alive', 'unsure', 'hung', 'dead', 'stopped']) as s (state)
  left join tickets_ops.worker_states() w on w.state = s.state
  group by s.state
$$;
comment on function tickets_ops.job_metrics() is 'Metrics of jobs and workers.';

create or replace function tickets_ops.geocoding_metrics() returns table (name text, labels jsonb, value double precision)
language sql stable set search_path = pg_catalog, pg_temp as $$
  with provider as (
    select * from tickets_ops.geocoding where active limit 1
  )
  select 'geocoding_calls_today', jsonb_build_object('outcome', o.outcome),
    coalesce((select (p.calls_today ->> o.outcome)::integer from provider p), 0)
  from unnest(
    array['found', 'not_found', 'rate_limited', 'quota_spent', 'key_refused', 'bad_request', 'trouble', 'unreadable']
  ) as o (outcome)
  union all
  select 'geocoding_budget_left', '{}', coalesce(left_today::double precision, 'NaN') from provider
  union all
  select 'geocoding_stopped', '{}', (state not in ('ready', 'probing', 'off'))::integer from provider
  union all
  select 'places_for_review', jsonb_build_object('kind', s.kind, 'status', s.status), count(q.status)
  from (values
    ('cluster', 'suspicious'), ('cluster', 'not_found'), ('cluster', 'rejected'),
    ('location', 'needs_review'), ('location', 'rejected'), ('location', 'not_found')
  ) as s (kind, status)
  left join tickets_ops.review_queue q using (kind, status)
  group by s.kind, s.status
$$;
comment on function tickets_ops.geocoding_metrics() is 'Metrics of the provider and of the gazetteers.';

create or replace function tickets_ops.ticket_metrics() returns table (name text, labels jsonb, value double precision)
language sql stable set search_path = pg_catalog, pg_temp as $$
  with open as materialized (
    select case when at_risk then 'at_risk' else sla_state end as sla_state, geo_source, count(*) as tickets
    from tickets.inc_open_sla
    group by 1, 2
  ),
  open_crq as materialized (
    select geo_source, count(*) as tickets from tickets.crq_open group by 1
  )
  select 'tickets_open', jsonb_build_object('sla_state', s.state), coalesce(sum(o.tickets), 0)
  from unnest(array['ok', 'at_risk', 'breached', 'unknown']) as s (state) left join open o on o.sla_state = s.state
  group by s.state
  union all
  select 'tickets_placed', jsonb_build_object('geo_source', s.source), coalesce(sum(o.tickets), 0)
  from unnest(array['feed', 'location', 'cluster', 'none']) as s (source) left join open o on o.geo_source = s.source
  group by s.source
  union all
  select 'tickets_open', '{"dataset": "crq"}', coalesce((select sum(tickets) from open_crq), 0)
  where 'crq' in (select tickets.datasets())
  union all
  select 'tickets_placed', jsonb_build_object('dataset', 'crq', 'geo_source', s.source), coalesce(o.tickets, 0)
  from unnest(array['feed', 'location', 'cluster', 'none']) as s (source) left join open_crq o on o.geo_source = s.source
  where 'crq' in (select tickets.datasets())
  union all
  select 'assignments_open', '{}', count(*) from tickets.assignments where state = 'assigned'
$$;
comment on function tickets_ops.ticket_metrics() is 'Metrics of open tickets.';

create or replace function tickets_ops.vehicle_metrics() returns table (name text, labels jsonb, value double precision)
language sql stable set search_path = pg_catalog, pg_temp as $$
  with seen as materialized (
    select * from tickets_ops.count_vehicles()
  )
  select 'vehicles', jsonb_build_object('freshness', f.freshness),
    case when exists (select from seen where trouble is not null) then 'NaN' else coalesce(s.vehicles, 0)::double precision end
  from unnest(array['live', 'parked', 'stale', 'lost', 'clock', 'nowhere']) as f (freshness)
  left join seen s on s.freshness = f.freshness
$$;
comment on function tickets_ops.vehicle_metrics() is 'Metrics of the vehicles; what is wrong with tickets.vehicles stays here.';

create or replace function tickets_ops.read_metrics()
returns table (name text, labels jsonb, value double precision, kind text, help text)
language sql stable security definer set search_path = pg_catalog, pg_temp set jit = off as $$
  select 'fleettickets_' || h.name, m.labels, m.value, 'gauge', h.help
  from (
    select * from tickets_ops.health_metrics()
    union all select m.* from tickets.datasets() as d (dataset) cross join lateral tickets_ops.dataset_metrics(d.dataset) as m
    union all select * from tickets_ops.job_metrics()
    union all select * from tickets_ops.geocoding_metrics()
    union all select * from tickets_ops.ticket_metrics()
    union all select * from tickets_ops.vehicle_metrics()
    union all select * from tickets_ops.storage_metrics()
  ) as m
  join tickets_ops.metric_help() h on h.name = m.name
  order by h.place, m.labels
$$;
comment on function tickets_ops.read_metrics() is 'The rows of tickets_ops.metrics, read with the owner''s rights.';

create or replace view tickets_ops.metrics as select * from tickets_ops.read_metrics();
comment on view tickets_ops.metrics is 'Figures for monitors, as of now(): one row for each series, the rows of a name together. Every name has rows also in an empty database. For a role that is a member of tickets_monitor.';
comment on column tickets_ops.metrics.name is 'Prometheus''s name of the metric, with its unit.';
comment on column tickets_ops.metrics.labels is 'Labels as an object of texts; at most a dozen values each.';
comment on column tickets_ops.metrics.value is 'Seconds, a count, or 1 and 0. NaN: unknown.';
comment on column tickets_ops.metrics.kind is 'gauge: it goes up and down.';
comment on column tickets_ops.metrics.help is 'What it tells.';
--! EndIncluded metrics.sql

--! split: 990-takeover.sql
-- Taking over from the Python version, second half.
do $$
begin
  if to_regnamespace('tickets_takeover') is not null then
    perform tickets_takeover.fill();
  end if;
end
$$;
