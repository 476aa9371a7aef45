-- Schemas: `tickets` holds data, `reporting` the map function, `tickets_ops` what operators and the pipeline use.
-- PostGIS may already be installed by the DBA, and the migrating role need not be allowed to install it.
do $$
begin
  if not exists (select from pg_extension where extname = 'postgis') then
    create extension postgis;
  end if;
end
$$;

create schema if not exists tickets;
-- Others keep functions in it too: it may be there, and belong to another role.
create schema if not exists reporting;
create schema tickets_ops;

comment on schema tickets is 'Field-ops tickets of the fibre operator: INC faults (and CRQ, kept but not ingested yet), the gazetteers that place them, and their history.';
comment on schema tickets_ops is 'The fleettickets pipeline: its ledger, its work in progress, and what operators look at and call.';
