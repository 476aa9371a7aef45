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
