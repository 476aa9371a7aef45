--! Previous: -
--! Hash: sha1:90fb491c479743f8c714240955628aa9a7e2277b
--! Message: tickets

--! split: 010-schemas.sql
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
create schema if not exists reporting;
create schema tickets_ops;

comment on schema tickets is 'Field-ops tickets of the fibre operator: INC faults (and CRQ, kept but not ingested yet), the gazetteers that place them, and their history.';
comment on schema reporting is 'Read functions that the dashboards call.';
comment on schema tickets_ops is 'The fleettickets pipeline: its ledger, its work in progress, and what operators look at and call.';

--! split: 050-gazetteers.sql
-- The gazetteers: where a cluster (coarse) and a place within a cluster (precise) are.

create table tickets.geo_clusters (
  cluster text primary key check (cluster = btrim(cluster) and length(cluster) between 1 and 200),
  geom geometry(Point, 4326),
  provider text,
  query text,
  verified boolean not null default false,
  guard_km numeric not null default 25 check (guard_km > 0),
  suspicious boolean not null default false,
  candidates jsonb not null default '[]',
  note text,
  fetched_at timestamptz,
  created_at timestamptz not null default now(),
  updated_at timestamptz not null default now(),
  constraint geo_clusters_geom_is_lng_lat check (tickets.is_lng_lat(geom))
);

comment on table tickets.geo_clusters is 'One coordinate per cluster: the coarse place of its tickets, and the centre of the wrong-city guard of its locations.';
comment on column tickets.geo_clusters.cluster is 'The cluster as the feed writes it (tickets.inc.cluster).';
comment on column tickets.geo_clusters.geom is 'Centroid, WGS 84 longitude/latitude. NULL: asked, but nothing usable is known.';
comment on column tickets.geo_clusters.provider is 'Who said so: locationiq, opencage, nominatim, or manual for a coordinate set by a person.';
comment on column tickets.geo_clusters.query is 'The text that was sent to the provider.';
comment on column tickets.geo_clusters.verified is 'A person checked this coordinate: it is never overwritten, not even by force.';
comment on column tickets.geo_clusters.guard_km is 'A location farther than this from the centroid (geodesic km) is rejected as the wrong city. Widen it for a large cluster.';
comment on column tickets.geo_clusters.suspicious is 'Many results of this cluster were rejected but agree among themselves: the centroid is probably the wrong one. Check it.';
comment on column tickets.geo_clusters.candidates is 'Every candidate the provider returned, in its order, as returned.';
comment on column tickets.geo_clusters.note is 'Free text for people.';
comment on column tickets.geo_clusters.fetched_at is 'When a provider last answered for this cluster.';
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
comment on column tickets.geo_locations.candidates is 'Every candidate the provider returned, in its order, as returned: judged again, without a call, when the centroid or the guard changes.';
comment on column tickets.geo_locations.verified is 'A person checked this row: it is never overwritten and never expires, not even by force.';
comment on column tickets.geo_locations.note is 'Free text: why a candidate was rejected, or a person''s remark.';
comment on column tickets.geo_locations.attempts is 'How many times in a row the provider did not know the place: 1 waits 7 days, later ones 30.';
comment on column tickets.geo_locations.fetched_at is 'When a provider last answered for this place.';
comment on column tickets.geo_locations.expires_at is 'When the place may be asked again. NULL: never.';
comment on column tickets.geo_locations.created_at is 'When the row was made.';
comment on column tickets.geo_locations.updated_at is 'When the row last changed.';

create function tickets.touch_updated_at() returns trigger language plpgsql as $$
begin
  new.updated_at := now();
  return new;
end
$$;
comment on function tickets.touch_updated_at() is 'Trigger: keeps updated_at true.';

create trigger _100_touch before update on tickets.geo_clusters for each row execute function tickets.touch_updated_at();
create trigger _100_touch before update on tickets.geo_locations for each row execute function tickets.touch_updated_at();

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
comment on column tickets.inc.cluster is 'Network cluster; key of tickets.geo_clusters.';
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
-- Distances and radius searches over all tickets, closed ones included.
create index inc_geog on tickets.inc using gist (geog);
-- Closures per day.
create index inc_closed_at on tickets.inc (closed_at);
create index inc_created_at_service on tickets.inc (created_at_service);

create table tickets.crq (like tickets.inc including all);
comment on table tickets.crq is 'CRQ new-installation requests: the same raw-first table as tickets.inc. Kept, not ingested yet.';

create table tickets.inc_events (
  event_id bigint generated always as identity primary key,
  ticket_id text not null,
  event text not null check (event in ('baseline', 'opened', 'closed', 'reopened', 'status_changed', 'team_changed', 'cluster_changed')),
  old_value text,
  new_value text,
  snapshot_id bigint,
  snapshot_at timestamptz,
  recorded_at timestamptz not null default now()
);

comment on table tickets.inc_events is 'History of tickets, append-only, written in the transaction that changes the ticket. Open backlog at a time = tickets whose last opened, closed, reopened or baseline event before it leaves them open (view tickets.inc_backlog).';
comment on column tickets.inc_events.event_id is 'Order of writing.';
comment on column tickets.inc_events.ticket_id is 'tickets.inc.ticket_id.';
comment on column tickets.inc_events.event is 'opened: first seen open. closed: stopped being actionable, or first seen closed (old_value is then NULL). reopened. status_changed, team_changed, cluster_changed. baseline: existed when history began.';
comment on column tickets.inc_events.old_value is 'For opened, closed, reopened and baseline the normalized_status before; else the column''s value before.';
comment on column tickets.inc_events.new_value is 'The value after: normalized_status, assigned_team or cluster.';
comment on column tickets.inc_events.snapshot_id is 'tickets_ops.snapshots.snapshot_id that brought the change. NULL for a baseline.';
comment on column tickets.inc_events.snapshot_at is 'The export''s own time of that snapshot: use this as the time axis.';
comment on column tickets.inc_events.recorded_at is 'When the event was written.';

create index inc_events_ticket on tickets.inc_events (ticket_id, event_id);
create index inc_events_time on tickets.inc_events (snapshot_at);

create table tickets.crq_events (like tickets.inc_events including all);
comment on table tickets.crq_events is 'History of tickets.crq, as tickets.inc_events.';

create table tickets.import_meta (
  dataset text primary key,
  metadata jsonb not null default '{}'
);
comment on table tickets.import_meta is 'Freshness of each dataset, one row each; reporting.fn_tickets_for_map() shows it as summary.freshness.';
comment on column tickets.import_meta.dataset is 'inc or crq.';
comment on column tickets.import_meta.metadata is 'source_key, source_etag, source_sha256, source_last_modified, ingested_at and counts of the last whole load; snapshot_at and checked_at also advance when the newest file is unchanged.';

--! split: 070-geometry.sql
-- Where a ticket is: feed coordinates, else its geocoded location, else its cluster's centroid, else nowhere.
--
-- Three writers keep tickets and gazetteers in agreement:
--   1. a load resolves its batch in its own statement (src/load.ts), a join on the gazetteers;
--   2. statement triggers on the ticket tables correct every other write;
--   3. statement triggers on the gazetteers re-resolve exactly the tickets that a change concerns.
-- Under READ COMMITTED a batch and a gazetteer change could pass each other unseen (measured: 28 deadlocks in 27 s,
-- and tickets that kept the old place for good). So whoever writes tickets shares an advisory lock, and whoever writes a
-- gazetteer holds it alone. finalize_snapshot re-resolves what disagrees all the same.

create function tickets.gazetteer_lock() returns bigint language sql immutable parallel safe
return 7405120260615;
comment on function tickets.gazetteer_lock() is 'Key of the advisory lock: shared by transactions that write tickets, held alone by those that write a gazetteer.';

create function tickets.cluster_key(p_cluster text) returns text language sql immutable parallel safe
return nullif(btrim(left(p_cluster, 200)), '');
comment on function tickets.cluster_key(text) is 'The cluster as a key of the gazetteers: blanks around it do not count, and it is cut at 200 characters because a B-tree entry is limited to 2704 bytes. NULL for an empty one.';

-- The tickets that a gazetteer row concerns.
create index inc_place on tickets.inc (tickets.cluster_key(cluster), location_key);
create index crq_place on tickets.crq (tickets.cluster_key(cluster), location_key);

create function tickets.geo_source(p_feed geometry, p_location geometry, p_cluster geometry) returns text
language sql immutable parallel safe
return case
  when p_feed is not null then 'feed'
  when p_location is not null then 'location'
  when p_cluster is not null then 'cluster'
  else 'none'
end;
comment on function tickets.geo_source(geometry, geometry, geometry) is 'The order of precedence of places, by name: feed coordinates, else location, else cluster centroid, else none. Goes with coalesce(feed, location, cluster).';

create function tickets.place_tickets(p_dataset text, p_clusters text[] default null, p_location_keys text[] default null)
returns bigint language plpgsql as $fn$
declare
  v_scope text := case
    when p_clusters is null then ''
    when p_location_keys is null then 'join unnest($1) as scope (cluster) on tickets.cluster_key(t.cluster) = scope.cluster'
    else 'join unnest($1, $2) as scope (cluster, location_key)
      on tickets.cluster_key(t.cluster) = scope.cluster and t.location_key = scope.location_key'
  end;
  v_placed bigint;
begin
  -- Locks in ticket_id order, as a load does. Relies on the (cluster_key, location_key) index when a scope is given.
  execute format($sql$
    with disagreeing as materialized (
      select t.ticket_id, place.*
      from tickets.%1$I t %2$s
      left join tickets.geo_locations l
        on l.cluster = tickets.cluster_key(t.cluster) and l.location_key = t.location_key and l.status = 'found'
      left join tickets.geo_clusters c on c.cluster = tickets.cluster_key(t.cluster)
      cross join lateral (select tickets.feed_point(t.raw) as geom offset 0) as feed
      cross join lateral (
        select coalesce(feed.geom, l.geom, c.geom) as geom, tickets.geo_source(feed.geom, l.geom, c.geom) as geo_source
      ) as place
      where t.geo_source <> place.geo_source or t.geom is distinct from place.geom
      order by t.ticket_id
      for update of t
    )
    update tickets.%1$I t
    set geom = d.geom, geo_source = d.geo_source
    from disagreeing d
    where t.ticket_id = d.ticket_id
  $sql$, p_dataset, v_scope)
  using p_clusters, p_location_keys;
  get diagnostics v_placed = row_count;
  return v_placed;
end
$fn$;

comment on function tickets.place_tickets(text, text[], text[]) is 'Re-resolves geom and geo_source of the tickets of a dataset (inc, crq) that disagree with the gazetteers: all of them, those of the given clusters, or those of the given (cluster, location_key) pairs. One statement; returns how many tickets moved.';

create function tickets.share_gazetteers() returns trigger language plpgsql as $$
begin
  perform pg_advisory_xact_lock_shared(tickets.gazetteer_lock());
  return null;
end
$$;
comment on function tickets.share_gazetteers() is 'Trigger before writing tickets: no gazetteer changes meanwhile.';

create function tickets.claim_gazetteers() returns trigger language plpgsql as $$
begin
  perform pg_advisory_xact_lock(tickets.gazetteer_lock());
  return null;
end
$$;
comment on function tickets.claim_gazetteers() is 'Trigger before writing a gazetteer: no ticket is written meanwhile.';

create function tickets.place_written_tickets() returns trigger language plpgsql as $fn$
begin
  -- Corrects what the writer did not resolve itself. Its own UPDATE fires the trigger once more, finds nothing, and ends.
  execute format($sql$
    update tickets.%1$I t
    set geom = place.geom, geo_source = place.geo_source
    from written w
    left join tickets.geo_locations l
      on l.cluster = tickets.cluster_key(w.cluster) and l.location_key = w.location_key and l.status = 'found'
    left join tickets.geo_clusters c on c.cluster = tickets.cluster_key(w.cluster)
    cross join lateral (select tickets.feed_point(w.raw) as geom offset 0) as feed
    cross join lateral (
      select coalesce(feed.geom, l.geom, c.geom) as geom, tickets.geo_source(feed.geom, l.geom, c.geom) as geo_source
    ) as place
    where t.ticket_id = w.ticket_id and (w.geo_source <> place.geo_source or w.geom is distinct from place.geom)
  $sql$, tg_table_name);
  return null;
end
$fn$;
comment on function tickets.place_written_tickets() is 'Trigger after writing tickets: whoever writes a ticket, its place follows from the feed coordinates and the gazetteers.';

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

-- A gazetteer's statement triggers hand over the keys whose placing coordinate changed: the symmetric difference of the
-- rows before and after (an event names only the transition tables that it has).
create function tickets.clusters_moved() returns trigger language plpgsql as $$
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
end
$$;
comment on function tickets.clusters_moved() is 'Trigger after writing tickets.geo_clusters: the tickets of the clusters whose centroid changed follow.';

create function tickets.locations_moved() returns trigger language plpgsql as $$
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
end
$$;
comment on function tickets.locations_moved() is 'Trigger after writing tickets.geo_locations: the tickets of the places whose coordinate changed follow.';

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
  end loop;
end
$$;

--! split: 080-ledger.sql
-- The ledger of snapshots, and the work in progress of the one being loaded.
--
-- A snapshot's states:
--   staging -> loading -> finalizing -> done | partial      a file that was read
--   unchanged | superseded                                   a file that was looked at, not read
--   failed                                                   with the reason in error; retrying its job reopens it
--   superseded -> staging                                    taken later by a backfill

create table tickets_ops.snapshots (
  snapshot_id bigint generated always as identity primary key,
  dataset text not null,
  source_key text not null,
  source_etag text,
  source_sha256 text,
  source_size bigint,
  source_last_modified timestamptz,
  snapshot_at timestamptz not null,
  status text not null check (status in ('staging', 'loading', 'finalizing', 'done', 'partial', 'unchanged', 'superseded', 'failed')),
  error text,
  origin text not null default 'bucket' check (origin in ('bucket', 'file')),
  forced boolean not null default false,
  backfill boolean not null default false,
  job_id bigint,
  attempt integer not null default 1,
  listed_at timestamptz not null default now(),
  progress_at timestamptz not null default now(),
  staged_at timestamptz,
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
  rows_repaired bigint not null default 0,
  open_missing bigint,
  constraint snapshots_counts_add_up check (
    status not in ('done', 'partial')
    or rows_read = rows_inserted + rows_updated + rows_unchanged + rows_dropped_alarm + rows_dropped_sentinel + rows_duplicate + rows_rejected
  ),
  constraint snapshots_failure_has_a_reason check (status <> 'failed' or error is not null)
);

-- Exactly one snapshot of a dataset is in flight.
create unique index snapshots_one_in_flight on tickets_ops.snapshots (dataset) where status in ('staging', 'loading', 'finalizing');
create index snapshots_by_file on tickets_ops.snapshots (dataset, source_key, source_etag);
create index snapshots_by_time on tickets_ops.snapshots (dataset, snapshot_at);

comment on table tickets_ops.snapshots is 'The ledger: one row for every file ever looked at (a forced replay is looked at again), with its times, its outcome and its counts. The counts of a loaded snapshot add up to rows_read.';
comment on column tickets_ops.snapshots.snapshot_id is 'Order in which files were looked at.';
comment on column tickets_ops.snapshots.dataset is 'inc or crq.';
comment on column tickets_ops.snapshots.source_key is 'Object key in the bucket, or the name of a local file.';
comment on column tickets_ops.snapshots.source_etag is 'ETag without quotes; NULL for a local file.';
comment on column tickets_ops.snapshots.source_sha256 is 'SHA-256 of the bytes read: the same bytes sent as a multipart upload have another ETag.';
comment on column tickets_ops.snapshots.source_size is 'Bytes.';
comment on column tickets_ops.snapshots.source_last_modified is 'The bucket''s LastModified. It moves when a file is copied or restored, so the time in the name decides.';
comment on column tickets_ops.snapshots.snapshot_at is 'The export''s time, from the file''s name (EAT), else LastModified.';
comment on column tickets_ops.snapshots.status is 'staging, loading, finalizing: in flight. done: whole. partial: the file broke off, the rows before the break are loaded. unchanged: same bytes as the last load. superseded: not loaded because a newer one was. failed: see error.';
comment on column tickets_ops.snapshots.error is 'Why it failed or is partial, in words for people.';
comment on column tickets_ops.snapshots.origin is 'bucket, or file (ingest --inc-csv).';
comment on column tickets_ops.snapshots.forced is 'Asked for by force.';
comment on column tickets_ops.snapshots.backfill is 'Part of a backfill: finishing it asks for the next older file left behind.';
comment on column tickets_ops.snapshots.job_id is 'The fetch_snapshot job that reads the file. NULL for a local file.';
comment on column tickets_ops.snapshots.attempt is 'Fencing token: a reader that lost its job to another attempt can write no more rows.';
comment on column tickets_ops.snapshots.listed_at is 'When the file was first looked at.';
comment on column tickets_ops.snapshots.progress_at is 'When work on the snapshot last committed something.';
comment on column tickets_ops.snapshots.staged_at is 'When all its rows were staged and its batches were created.';
comment on column tickets_ops.snapshots.loaded_at is 'When it was finished.';
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
comment on column tickets_ops.snapshots.rows_rejected is 'Rows in tickets_ops.snapshot_rejects.';
comment on column tickets_ops.snapshots.rows_repaired is 'Warning: rows that loaded with a NUL or an invalid UTF-8 byte replaced by U+FFFD.';
comment on column tickets_ops.snapshots.open_missing is 'Open tickets of the table that this snapshot does not list.';

-- Rows of the snapshot in flight. An unchanged row leaves its id only (raw is NULL): it is recognised while staging,
-- so an hour in which nothing changed writes no ticket twice. The id still counts for open_missing.
create table tickets_ops.snapshot_rows (
  snapshot_id bigint not null references tickets_ops.snapshots on delete cascade,
  ticket_id text not null,
  line bigint not null,
  raw jsonb,
  primary key (snapshot_id, ticket_id)
);
comment on table tickets_ops.snapshot_rows is 'Work in progress: the rows of the snapshot in flight, the last line of each ticket. Emptied when the snapshot is done; kept 7 days when it failed.';
comment on column tickets_ops.snapshot_rows.snapshot_id is 'The snapshot.';
comment on column tickets_ops.snapshot_rows.ticket_id is 'The ticket.';
comment on column tickets_ops.snapshot_rows.line is 'Line of the file on which the record begins.';
comment on column tickets_ops.snapshot_rows.raw is 'The cleaned record; NULL when the ticket already has exactly this raw.';

create table tickets_ops.snapshot_batches (
  snapshot_id bigint not null references tickets_ops.snapshots on delete cascade,
  batch integer not null,
  first_ticket_id text not null,
  last_ticket_id text not null,
  status text not null default 'pending' check (status in ('pending', 'done', 'failed')),
  error text,
  done_at timestamptz,
  primary key (snapshot_id, batch)
);
comment on table tickets_ops.snapshot_batches is 'Work in progress: one row per upsert_batch job, a range of ticket ids of the snapshot''s changed rows.';
comment on column tickets_ops.snapshot_batches.snapshot_id is 'The snapshot.';
comment on column tickets_ops.snapshot_batches.batch is '1, 2, …';
comment on column tickets_ops.snapshot_batches.first_ticket_id is 'First ticket id of the range.';
comment on column tickets_ops.snapshot_batches.last_ticket_id is 'Last ticket id of the range, included.';
comment on column tickets_ops.snapshot_batches.status is 'pending, done, or failed when its job used up its attempts.';
comment on column tickets_ops.snapshot_batches.error is 'Why it failed.';
comment on column tickets_ops.snapshot_batches.done_at is 'When it committed.';

create table tickets_ops.snapshot_rejects (
  reject_id bigint generated always as identity primary key,
  snapshot_id bigint not null references tickets_ops.snapshots on delete cascade,
  line bigint not null,
  reason text not null,
  row_text text not null
);
create index snapshot_rejects_by_snapshot on tickets_ops.snapshot_rejects (snapshot_id, line);
comment on table tickets_ops.snapshot_rejects is 'Rows that could not be loaded: nothing that stood in a file is lost silently.';
comment on column tickets_ops.snapshot_rejects.reject_id is 'Order of writing.';
comment on column tickets_ops.snapshot_rejects.snapshot_id is 'The snapshot.';
comment on column tickets_ops.snapshot_rejects.line is 'Line of the file on which the record begins; the header is usually line 1.';
comment on column tickets_ops.snapshot_rejects.reason is 'Why, in words for people.';
comment on column tickets_ops.snapshot_rejects.row_text is 'The record as CSV, control characters escaped, cut at 64 KiB.';

create table tickets_ops.workers (
  pool_id text primary key,
  started_at timestamptz not null default now(),
  seen_at timestamptz not null default now(),
  host text not null,
  pid integer not null,
  stopped_at timestamptz
);
comment on table tickets_ops.workers is 'Worker processes. A live one holds the advisory lock of its pool id on a connection of its own; once registered, a pool whose lock is free is dead.';
comment on column tickets_ops.workers.pool_id is 'graphile-worker''s pool id: what locked_by says of its jobs.';
comment on column tickets_ops.workers.started_at is 'When the pool registered.';
comment on column tickets_ops.workers.seen_at is 'Heartbeat, every 10 s.';
comment on column tickets_ops.workers.host is 'Host or container name.';
comment on column tickets_ops.workers.pid is 'Process id on that host.';
comment on column tickets_ops.workers.stopped_at is 'When it shut down in good order.';
