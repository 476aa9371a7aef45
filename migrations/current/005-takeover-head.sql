-- Taking over from the Python version, first half: docs/taking-over.md. Does nothing in a database without its tables.
--
-- Here, before any table of ours exists: lock the Python writer out, write down who reads the old tables, set the old
-- schema aside as tickets_legacy. In part 990, when all of ours exists: fill, check, re-point the readers, replay the
-- grants. All in the migration's one transaction: it happens whole or not at all.
-- Renaming a schema takes no table lock, so readers go on until the commit; with ALTER in place they would wait for the copy.

-- Not pinned to a search_path: it calls the map function as its callers do.
create function tickets_takeover.map_interface() returns table (part text, name text) language plpgsql as $$
declare
  v_function record;
  v_open_only text;
  v_map jsonb;
begin
  for v_function in
    select
      p.oid::regprocedure as signature,
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
    return query select 'parameter', p from unnest(v_function.parameters) as p where p <> '';
    -- The open tickets only, as dashboards ask for them: all of them may be more than a jsonb value can hold. Where none
    -- is open, the closed ones show the properties. Every argument is given, so that no other overload can be meant.
    foreach v_open_only in array array['default', 'false'] loop
      begin
        execute format('select (reporting.fn_tickets_for_map(%s))::jsonb', (
          select string_agg(
            case when v_function.parameters[d.n] = 'p_open_only' and v_open_only = 'false' then v_open_only else d.value end,
            ', ' order by d.n
          )
          from unnest(v_function.defaults) with ordinality as d (value, n)
        )) into v_map;
      exception when others then
        insert into tickets_takeover.notes
        values ('map functions that could not be called, so only their parameters were compared', v_function.signature::text, sqlerrm);
        exit;
      end;
      return query select 'summary key', k from jsonb_object_keys(v_map -> 'summary') k;
      return query
        select distinct 'property', k
        from jsonb_array_elements(v_map -> 'features') f, jsonb_object_keys(f -> 'properties') k;
      exit when jsonb_array_length(v_map -> 'features') > 0
        or (select count(*) from (select from tickets.inc where geom is not null limit 50001) as mapped) > 50000;
    end loop;
  end loop;
end
$$;
comment on function tickets_takeover.map_interface() is 'What callers of the overloads of reporting.fn_tickets_for_map can rely on: the names of its parameters, and of the properties and summary keys as they come out on the present data. One that fails when called is noted.';

create table tickets_takeover.old_map_interface (part text not null, name text not null, primary key (part, name));
comment on table tickets_takeover.old_map_interface is 'tickets_takeover.map_interface() before the takeover.';
comment on column tickets_takeover.old_map_interface.part is 'parameter, property or summary key.';
comment on column tickets_takeover.old_map_interface.name is 'Its name.';

create function tickets_takeover.lock_tickets() returns void language plpgsql as $$
declare
  v_table regclass;
begin
  perform set_config('lock_timeout', '5s', true);
  -- share row exclusive: readers go on, writers wait. The tickets first, as a load does.
  for v_table in
    select c.oid from pg_class c
    where c.relnamespace = 'tickets'::regnamespace and c.relkind in ('r', 'p')
    order by c.relname <> 'inc', c.relname
  loop
    execute format('lock table %s in share row exclusive mode', v_table);
  end loop;
exception when lock_not_available or deadlock_detected then
  raise exception 'Somebody is writing to %: waited 5 s, changed nothing.', v_table
    using
      errcode = 'lock_not_available',
      detail = (
        select string_agg(format('pid %s, %s, %s, transaction since %s', a.pid, a.application_name, a.state, a.xact_start), '; ')
        from pg_locks l join pg_stat_activity a on a.pid = l.pid
        where l.relation = v_table and l.granted and l.pid <> pg_backend_pid()
          and l.mode not in ('AccessShareLock', 'RowShareLock')
      ),
      hint = 'Stop the schedule of import_tickets.py, let what is running end, and run the migration again.';
end
$$;
comment on function tickets_takeover.lock_tickets() is 'Locks writers out of all tables of the schema tickets until the end of the transaction, and lets this transaction wait 5 s at most for any lock. Raises, naming who writes.';

create function tickets_takeover.move_map_functions(p_from text, p_to text) returns void language plpgsql as $$
declare
  v_function regprocedure;
begin
  for v_function in
    select oid from pg_proc where pronamespace = to_regnamespace(p_from) and proname = 'fn_tickets_for_map'
  loop
    execute format('alter function %s set schema %I', v_function, p_to);
  end loop;
end
$$;
comment on function tickets_takeover.move_map_functions(text, text) is 'Moves all overloads of fn_tickets_for_map from one schema to another, with their grants.';

create function tickets_takeover.column_of(p_table regclass, variadic p_names text[]) returns text
  language sql stable set search_path = pg_catalog, pg_temp
as $$
  select coalesce((
    select format('o.%I', attname) from pg_attribute
    where attrelid = p_table and attname = any (p_names) and not attisdropped
    order by array_position(p_names, attname::text) limit 1
  ), 'null')
$$;
comment on function tickets_takeover.column_of(regclass, text[]) is 'The first of these columns that the table has, as SQL (`o.geom`), or `null`.';

create function tickets_takeover.go_back() returns void language plpgsql as $$
begin
  perform tickets_takeover.lock_tickets();
  perform tickets_takeover.write_down_readers();
  alter schema tickets rename to tickets_set_aside;
  alter schema tickets_ops rename to tickets_ops_set_aside;
  perform tickets_takeover.move_map_functions('reporting', 'tickets_set_aside');
  alter schema tickets_legacy rename to tickets;
  perform tickets_takeover.move_map_functions('tickets', 'reporting');
  perform tickets_takeover.repoint_readers(p_own := false);
  -- So that migrating takes over again.
  delete from graphile_migrate.migrations;
end
$$;
comment on function tickets_takeover.go_back() is 'Back to the Python version, in one transaction: its tables, map functions and grants as they were at the takeover; views and functions outside read them again. Ours stay as tickets_set_aside and tickets_ops_set_aside. Stop the worker first. Raises, and changes nothing, while somebody writes tickets or when something that was made since cannot read the old tables.';

do $$
declare
  v_statement text;
begin
  if to_regclass('tickets.inc') is null then
    perform set_config('client_min_messages', 'warning', true); -- no list of what goes with the schema
    drop schema tickets_takeover cascade;
    perform set_config('client_min_messages', (select reset_val from pg_settings where name = 'client_min_messages'), true);
    return;
  end if;
  if to_regnamespace('tickets_legacy') is not null then
    raise exception 'There is a schema tickets_legacy already: this database was taken over before.'
      using hint = 'To take it over again, drop or rename tickets_legacy. See docs/taking-over.md.';
  end if;

  perform tickets_takeover.lock_tickets();
  perform tickets_takeover.write_down_readers();
  insert into tickets_takeover.old_map_interface select distinct * from tickets_takeover.map_interface();

  alter schema tickets rename to tickets_legacy;
  create schema tickets;
  perform tickets_takeover.move_map_functions('reporting', 'tickets_legacy');

  -- Default privileges come first: they are for what is made from here on.
  for v_statement in
    select format('alter default privileges for role %I in schema tickets %s', pg_get_userbyid(d.defaclrole), g)
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
