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

--!include vehicles.sql
--!include nearest.sql
--!include matching.sql
--!include dispatch-plan.sql
--!include assignments.sql
