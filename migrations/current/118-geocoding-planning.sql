-- Which places are to be asked, and the jobs for them.

create function tickets_ops.location_job_key(p_cluster text, p_location_key text) returns text language sql immutable
return 'geocode_location:' || p_cluster || ':' || p_location_key;
comment on function tickets_ops.location_job_key(text, text) is 'Key of the geocode_location job of a place: at most one waits.';

create function tickets_ops.cluster_job_key(p_cluster text) returns text language sql immutable
return 'geocode_cluster:' || p_cluster;
comment on function tickets_ops.cluster_job_key(text) is 'Key of the geocode_cluster job of a cluster: at most one waits.';

create function tickets_ops.geocoding_job_key(p_task text, p_payload jsonb) returns text language sql stable
return case p_task
  when 'geocode_cluster' then tickets_ops.cluster_job_key(tickets.cluster_key(p_payload ->> 'cluster'))
  else tickets_ops.location_job_key(
    tickets.cluster_key(p_payload ->> 'cluster'), tickets.location_key(p_payload ->> 'location_name')
  )
end;
comment on function tickets_ops.geocoding_job_key(text, jsonb) is 'The key that a job added without one (a plain graphile_worker.add_job) gets when it has to come back later.';

create function tickets_ops.places_to_geocode(p_dataset text, p_clusters text[] default null)
returns table (
  task text, cluster text, location_key text, location_name text, tickets bigint, newest_at timestamptz, reason text, has_centroid boolean
)
language plpgsql stable as $fn$
begin
  -- Relies on the partial index *_open_geog or *_open: only actionable tickets are looked at.
  return query execute format($sql$
    with open_tickets as materialized (
      select
        tickets.cluster_key(t.cluster) as cluster, t.location_key, t.location_name,
        least(coalesce(t.created_at_service, t.first_seen_at, t.ingested_at), now()) as seen_at
      from tickets.%I t
      where t.is_actionable and t.geo_source <> 'feed' and tickets.cluster_key(t.cluster) is not null
        and ($1 is null or tickets.cluster_key(t.cluster) = any ($1))
    ),
    clusters as (
      select t.cluster, count(*) as tickets, max(t.seen_at) as newest_at from open_tickets t group by t.cluster
    ),
    places as (
      select
        t.cluster, t.location_key, min(t.location_name) as location_name, count(*) as tickets, max(t.seen_at) as newest_at
      from open_tickets t where t.location_key is not null group by t.cluster, t.location_key
    )
    select 'geocode_cluster', p.cluster, null, null, p.tickets, p.newest_at,
      case when c.fetched_at is null then 'never asked' else 'not found, due again' end,
      false
    from clusters p left join tickets.geo_clusters c on c.cluster = p.cluster
    where c.geom is null and coalesce(c.verified, false) = false and (c.expires_at is null or c.expires_at <= now())
    union all
    select 'geocode_location', p.cluster, p.location_key, p.location_name, p.tickets, p.newest_at,
      case when l.cluster is null then 'never asked' when l.status = 'found' then 'expired' else l.status || ', due again' end,
      c.geom is not null
    from places p
    left join tickets.geo_clusters c on c.cluster = p.cluster
    left join tickets.geo_locations l on l.cluster = p.cluster and l.location_key = p.location_key
    where l.cluster is null or (not l.verified and l.expires_at <= now())
    order by 1, 6 desc, 5 desc, 2, 3
  $sql$, p_dataset)
  using p_clusters;
end
$fn$;
comment on function tickets_ops.places_to_geocode(text, text[]) is
  'Clusters and places of actionable tickets of a dataset (inc, crq) that are unknown or whose answer has expired, clusters first, then by newest ticket and number of tickets. p_clusters: only those. A place without has_centroid waits for its cluster. Tickets with coordinates of their own, or without a cluster, need none.';

create function tickets_ops.plan_geocoding(p_dataset text) returns integer language plpgsql as $$
declare
  v_planned integer;
begin
  -- Without a provider there is nobody to ask: tickets stay at their clusters, and tickets_ops.geocoding says why.
  if not exists (select from tickets_ops.geocoding_setup where provider is not null) then
    return 0;
  end if;
  -- A job that failed for good keeps its place's key; the place gets another chance a day later.
  perform graphile_worker.reschedule_jobs(array_agg(j.id), run_at := now(), attempts := 0)
  from graphile_worker.jobs j
  where j.task_identifier in ('geocode_cluster', 'geocode_location') and j.attempts >= j.max_attempts
    and j.key is not null and j.locked_at is null and j.updated_at < now() - interval '1 day'
  having count(*) > 0;

  with wanted as materialized (
    select
      p.*,
      case p.task
        when 'geocode_cluster' then tickets_ops.cluster_job_key(p.cluster)
        else tickets_ops.location_job_key(p.cluster, p.location_key)
      end as key,
      row_number() over (order by p.task, p.newest_at desc, p.tickets desc, p.cluster, p.location_key) as rank
    from tickets_ops.places_to_geocode(p_dataset) p
  ),
  new as (
    -- A job that waits already keeps its turn, and what a person asked for keeps its priority.
    select w.* from wanted w where not exists (select from graphile_worker.jobs j where j.key = w.key)
  ),
  added as (
    select graphile_worker.add_jobs(array_agg(
      (
        n.task,
        json_strip_nulls(json_build_object('location_name', n.location_name, 'cluster', n.cluster, 'planned', true)),
        null,
        -- Microseconds keep the order. A place without a centroid is woken by tickets_ops.wake_locations.
        case when n.task = 'geocode_location' and not n.has_centroid then now() + interval '1 day' else now() end
          - interval '1 second' + n.rank * interval '1 microsecond',
        6,
        n.key,
        -- Clusters before places; among places those with the newest tickets first, by the day.
        case
          when n.task = 'geocode_cluster' then 20
          else 30 + least(9, floor(extract(epoch from now() - n.newest_at) / 86400))::integer
        end,
        array['geocode']
      )::graphile_worker.job_spec order by n.rank
    ))
    from new n
    having count(*) > 0
  )
  select count(*) into v_planned from added;
  return v_planned;
end
$$;
comment on function tickets_ops.plan_geocoding(text) is
  'Adds one job per unknown or expired cluster and place of a dataset''s actionable tickets, unless one waits already; finalize_snapshot and maintain call it. Returns how many. Does nothing without a provider.';

create function tickets_ops.want_cluster(p_cluster text, p_priority integer) returns boolean language plpgsql as $$
begin
  if exists (select from tickets.geo_clusters where cluster = p_cluster and geom is null and expires_at > now()) then
    return true;
  end if;
  if not exists (
    select from graphile_worker.jobs j
    where j.key = tickets_ops.cluster_job_key(p_cluster) and (j.attempts < j.max_attempts or j.locked_at is not null)
  ) then
    perform graphile_worker.add_job(
      'geocode_cluster', json_build_object('cluster', p_cluster, 'planned', true),
      job_key := tickets_ops.cluster_job_key(p_cluster), max_attempts := 6, priority := least(20, p_priority),
      flags := array['geocode']
    );
  end if;
  return false;
end
$$;
comment on function tickets_ops.want_cluster(text, integer) is 'A place waits for its cluster''s centroid: adds the cluster''s job unless one waits. Returns true when the cluster was asked in vain lately, so that waiting is hopeless until a person sets its centroid.';

create function tickets_ops.ask_by_hand(p_task text, p_key text, p_payload jsonb, p_force boolean, p_priority integer, p_known text)
returns table (job_id bigint, job_key text, already_waiting boolean, note text)
language plpgsql as $$
#variable_conflict use_column
declare
  v_waiting record;
  v_job graphile_worker._private_jobs;
  v_provider text := (
    select case when g.state <> 'ready' then format('It waits: %s. %s', g.state, g.reason) end
    from tickets_ops.geocoding g where g.active limit 1
  );
begin
  select j.id, j.locked_at is not null as running, coalesce(j.payload ->> 'force', '') = 'true' as force
  into v_waiting
  from graphile_worker._private_jobs j
  where j.key = p_key and (j.attempts < j.max_attempts or j.locked_at is not null);

  if v_waiting.running and not p_force then
    return query select v_waiting.id, p_key, true, 'It is being asked at this moment.';
    return;
  end if;
  v_job := graphile_worker.add_job(
    p_task,
    (p_payload || case when p_force or coalesce(v_waiting.force, false) then '{"force": true}'::jsonb else '{}' end)::json,
    job_key := p_key, run_at := now(), max_attempts := 6, priority := p_priority, flags := array['geocode']
  );
  if v_job.id is null then
    raise exception 'The job % is being taken by a worker at this moment.', p_key using hint = 'Ask again.';
  end if;
  return query select
    v_job.id,
    p_key,
    v_waiting.id is not null,
    concat_ws(' ',
      case when v_waiting.id is not null then 'A job for it waited already; it goes first now.' end,
      case when p_known = 'verified' then 'A person verified it: it will not be asked.'
        when p_known = 'known' and not p_force then 'An answer is known: it will not be asked again without force.'
        when p_known = 'no centroid' then 'Its cluster has no centroid yet and is asked first.' end,
      v_provider
    );
end
$$;
comment on function tickets_ops.ask_by_hand(text, text, jsonb, boolean, integer, text) is 'Adds or promotes the job that a person asked for, ahead of planned ones. p_known: the state of the question, for the note. Raises when a worker takes the job in the same moment.';

create function tickets.geocode_cluster(cluster text, force boolean default false)
returns table (job_id bigint, job_key text, already_waiting boolean, note text)
language plpgsql security definer as $$
#variable_conflict use_column
declare
  v_cluster text := tickets.cluster_key(geocode_cluster.cluster);
  v_force boolean := coalesce(geocode_cluster.force, false);
begin
  if v_cluster is null then
    raise exception 'A cluster is needed.' using hint = 'select * from tickets.geocode_cluster(''Kilimani'');';
  end if;
  return query select * from tickets_ops.ask_by_hand(
    'geocode_cluster', tickets_ops.cluster_job_key(v_cluster), jsonb_build_object('cluster', v_cluster), v_force, 10,
    (select q.state from tickets_ops.cluster_question(v_cluster, v_force, false) q)
  );
end
$$;

comment on function tickets.geocode_cluster(text, boolean) is
  'Asks the provider where a cluster is, ahead of all planned places. force: although its centroid is known; never when a person verified it. Returns the job''s id and key (a job that waits gets a new id, the key stays; see tickets_ops.jobs), whether a job for it waited already, and a note. Raises without a cluster.';

create function tickets.geocode_location(location_name text, cluster text, force boolean default false)
returns table (job_id bigint, job_key text, already_waiting boolean, note text)
language plpgsql security definer as $$
#variable_conflict use_column
declare
  v_cluster text := tickets.cluster_key(geocode_location.cluster);
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
  return query select * from tickets_ops.ask_by_hand(
    'geocode_location', tickets_ops.location_job_key(v_cluster, v_key),
    jsonb_build_object('location_name', geocode_location.location_name, 'cluster', v_cluster), v_force, 11,
    (select q.state from tickets_ops.location_question(geocode_location.location_name, v_cluster, v_force, false) q)
  );
end
$$;
comment on function tickets.geocode_location(text, text, boolean) is
  'Asks the provider where a place of a cluster is, ahead of all planned ones: select * from tickets.geocode_location(''NW_Kilimani_FDT3'', ''Kilimani''). location_name as field staff typed it. force: although an answer is known; never when a person verified it. Returns the job''s id and key (a job that waits gets a new id, the key stays; see tickets_ops.jobs), whether a job for it waited already, and a note. Raises without a cluster, or when nothing but network codes is left of the name.';
