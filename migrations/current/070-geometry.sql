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
returns bigint language plpgsql
-- Compiling the sweep of a large table takes longer than the sweep.
set jit = off
as $fn$
declare
  v_scope text := case
    when p_clusters is null then ''
    when p_location_keys is null then 'join unnest($1) as scope (cluster) on tickets.cluster_key(t.cluster) = scope.cluster'
    else 'join unnest($1, $2) as scope (cluster, location_key)
      on tickets.cluster_key(t.cluster) = scope.cluster and t.location_key = scope.location_key'
  end;
  v_placed bigint;
begin
  -- Before the statement below takes its snapshot: the gazetteers that it reads are the committed ones.
  perform pg_advisory_xact_lock_shared(tickets.gazetteer_lock());
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
  -- An UPDATE of no rows fires this trigger too: without this, its own UPDATE below would never end.
  if not exists (select from written) then
    return null;
  end if;
  -- First what disagrees, which after a load is nothing: joining the table at once would hash all of it for every batch.
  execute format($sql$
    with disagreeing as materialized (
      select w.ticket_id, place.*
      from written w
      left join tickets.geo_locations l
        on l.cluster = tickets.cluster_key(w.cluster) and l.location_key = w.location_key and l.status = 'found'
      left join tickets.geo_clusters c on c.cluster = tickets.cluster_key(w.cluster)
      cross join lateral (select tickets.feed_point(w.raw) as geom offset 0) as feed
      cross join lateral (
        select coalesce(feed.geom, l.geom, c.geom) as geom, tickets.geo_source(feed.geom, l.geom, c.geom) as geo_source
      ) as place
      where w.geo_source <> place.geo_source or w.geom is distinct from place.geom
    )
    update tickets.%1$I t
    set geom = d.geom, geo_source = d.geo_source
    from disagreeing d
    where t.ticket_id = d.ticket_id
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
