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
