-- What people should look at, and the search path of what runs with its owner's rights.

create view tickets_ops.review_queue as
with open_tickets as (
  select tickets.cluster_key(t.cluster) as cluster, t.location_key, count(*) as tickets
  from tickets.inc t
  where t.is_actionable
  group by 1, 2
),
per_cluster as (
  select o.cluster, sum(o.tickets)::bigint as tickets from open_tickets o group by o.cluster
),
rows_in_doubt as (
  select
    'cluster' as kind, c.cluster, null as location_key, null as location_name,
    case when c.geom is null then 'not_found' when c.suspicious then 'suspicious' else 'found' end as status,
    case when c.suspicious then 1 when c.geom is null then 0.95 else 0.3 end as doubt,
    null as precision, null::numeric as confidence, null::numeric as distance_km,
    case when c.suspicious then 'Many of its places lie together elsewhere: its centroid is probably the wrong one.' else c.note end as note,
    c.query, c.geom, jsonb_array_length(c.candidates) as candidates, c.fetched_at,
    coalesce(t.tickets, 0) as open_tickets
  from tickets.geo_clusters c
  left join per_cluster t on t.cluster = c.cluster
  where not c.verified
  union all
  select
    'location', l.cluster, l.location_key, l.location_name, l.status,
    case l.status when 'needs_review' then 0.8 when 'rejected' then 0.7 when 'not_found' then 0.6
      else 0.5 * (1 - coalesce(l.confidence, 0)) end,
    l.precision, l.confidence, l.distance_km, l.note, l.query, l.geom, jsonb_array_length(l.candidates), l.fetched_at,
    coalesce(t.tickets, 0)
  from tickets.geo_locations l
  left join open_tickets t on t.cluster = l.cluster and t.location_key = l.location_key
  where not l.verified
)
select
  kind, cluster, location_key, location_name, status, round(doubt, 2) as doubt, open_tickets, note, precision, confidence, distance_km,
  st_y(geom) as latitude, st_x(geom) as longitude, candidates, query, fetched_at
from rows_in_doubt
order by doubt desc, open_tickets desc, cluster, location_key;

comment on view tickets_ops.review_queue is
  'Gazetteer rows that no person verified, the most doubtful first. Accept: update tickets.geo_locations set verified = true. Move: set geom = st_setsrid(st_makepoint(lng, lat), 4326), which verifies the row and takes the tickets along. Reject: set status = ''rejected''. The same for tickets.geo_clusters (verified, geom); a cluster that is too large for its guard: set guard_km.';
comment on column tickets_ops.review_queue.kind is 'cluster (tickets.geo_clusters) or location (tickets.geo_locations).';
comment on column tickets_ops.review_queue.cluster is 'The cluster.';
comment on column tickets_ops.review_queue.location_key is 'The place; NULL for a cluster.';
comment on column tickets_ops.review_queue.location_name is 'One raw spelling of the place.';
comment on column tickets_ops.review_queue.status is 'suspicious or not_found for a cluster; else the row''s status.';
comment on column tickets_ops.review_queue.doubt is '0 to 1: a suspicious cluster 1, one without a centroid 0.95, needs_review 0.8, rejected 0.7, not_found 0.6, found less, by its confidence.';
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

-- Security definer functions resolve names in a path that no caller can change. PostGIS's operators are looked up by the
-- ticket triggers that they fire, and PostGIS is wherever the DBA put it.
do $$
declare
  v_postgis text := (
    select n.nspname from pg_extension e join pg_namespace n on n.oid = e.extnamespace where e.extname = 'postgis'
  );
  v_function regprocedure;
begin
  foreach v_function in array array[
    'tickets_ops.cluster_changed()', 'tickets.geocode_cluster(text, boolean)', 'tickets.geocode_location(text, text, boolean)'
  ]::regprocedure[] loop
    execute format('alter function %s set search_path = pg_catalog, %I, pg_temp', v_function, v_postgis);
  end loop;
end
$$;
