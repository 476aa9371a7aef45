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

--!include sla.sql
--!include filters.sql
--!include crq.sql
--!include backlog.sql
--!include freshness.sql
--!include map.sql
--!include places.sql
--!include tiles.sql

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

--!include version.sql

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
