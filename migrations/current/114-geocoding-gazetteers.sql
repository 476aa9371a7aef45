-- Who may write the gazetteers, and what follows when a centroid or a guard changes.
--
-- A coordinate that the pipeline did not write was set by a person: the row becomes verified, provider 'manual', and is
-- never overwritten again, not even by force. The pipeline's functions mark their writes by the setting below, for their own
-- duration (connections of the embedded database share settings, so it never outlives the function).
-- Places that a person verified are judged by nobody.

create function tickets_ops.is_pipeline() returns boolean language sql stable
return coalesce(current_setting('tickets_ops.writer', true) = 'pipeline', false);
comment on function tickets_ops.is_pipeline() is 'Whether the gazetteer writes of this moment are the pipeline''s own; see tickets_ops.as_pipeline.';

create function tickets_ops.as_pipeline(p_on boolean) returns boolean language plpgsql as $$
declare
  v_before boolean := tickets_ops.is_pipeline();
begin
  perform set_config('tickets_ops.writer', case when p_on then 'pipeline' else '' end, true);
  return v_before;
end
$$;
comment on function tickets_ops.as_pipeline(boolean) is 'Marks the gazetteer writes that follow in this transaction as the pipeline''s own (true) or a person''s (false). Returns what it was before: hand that back at the end. A coordinate written without the mark is verified.';

create function tickets_ops.keep_cluster_verified() returns trigger language plpgsql as $$
begin
  if tickets_ops.is_pipeline() then
    -- No row is written: what a person checked stays as it is.
    return case when tg_op = 'UPDATE' and old.verified then null else new end;
  end if;
  if new.geom is not null and (tg_op = 'INSERT' or new.geom::bytea is distinct from old.geom::bytea) then
    new.verified := true;
    new.provider := 'manual';
  end if;
  if new.verified then
    new.suspicious := false;
    new.expires_at := null;
  end if;
  return new;
end
$$;
comment on function tickets_ops.keep_cluster_verified() is 'Trigger: a centroid that a person sets is verified; the pipeline cannot overwrite a verified row.';

create function tickets_ops.keep_location_verified() returns trigger language plpgsql as $$
begin
  if tickets_ops.is_pipeline() then
    return case when tg_op = 'UPDATE' and old.verified then null else new end;
  end if;
  new.location_key := coalesce(new.location_key, tickets.location_key(new.location_name));
  if tg_op = 'INSERT' then
    new.status := coalesce(new.status, case when new.geom is not null then 'found' end);
  end if;
  if new.geom is not null and (tg_op = 'INSERT' or new.geom::bytea is distinct from old.geom::bytea) then
    new.verified := true;
    new.provider := 'manual';
    new.precision := case when tg_op = 'UPDATE' and new.precision is distinct from old.precision then new.precision else 'point' end;
    new.confidence := null;
    new.note := case when tg_op = 'UPDATE' and new.note is distinct from old.note then new.note end;
    if tg_op = 'UPDATE' and new.status = old.status then
      new.status := 'found';
    end if;
    new.distance_km := (
      select tickets_ops.distance_km(c.geom, new.geom) from tickets.geo_clusters c where c.cluster = new.cluster
    );
  elsif tg_op = 'UPDATE' and (new.status <> old.status or new.geom::bytea is distinct from old.geom::bytea) then
    -- Accepted, rejected, or the coordinate taken away: a person decided.
    new.verified := true;
    if new.geom is null and new.status = 'found' then
      new.status := 'rejected';
    end if;
  elsif tg_op = 'UPDATE' and new.verified and not old.verified and new.geom is not null and new.status = 'needs_review' then
    new.status := 'found';
  elsif tg_op = 'UPDATE' and old.verified and not new.verified then
    -- Handed back to the pipeline, which asks again.
    new.expires_at := now();
  end if;
  if new.verified then
    new.expires_at := null;
  end if;
  return new;
end
$$;
comment on function tickets_ops.keep_location_verified() is
  'Trigger: a coordinate or status that a person sets is verified (verified = true on a needs_review row accepts its coordinate, verified = false hands the row back); the pipeline cannot overwrite a verified row. Fills location_key from location_name, and a verified row never expires.';

create trigger _050_verified before insert or update on tickets.geo_clusters
  for each row execute function tickets_ops.keep_cluster_verified();
create trigger _050_verified before insert or update on tickets.geo_locations
  for each row execute function tickets_ops.keep_location_verified();

create function tickets_ops.answer_expires_at(p_status text, p_attempts integer, p_found_days numeric, p_from timestamptz)
returns timestamptz language sql immutable parallel safe
return p_from + make_interval(secs => 86400 * (
  case
    when p_status = 'found' then coalesce(p_found_days, 180)
    when p_status = 'not_found' and p_attempts <= 1 then 7
    else 30
  end
)::double precision);
comment on function tickets_ops.answer_expires_at(text, integer, numeric, timestamptz) is
  'When a place may be asked again: found after p_found_days (NULL: 180), not found after 7 days the first time and 30 then, rejected and needs_review after 30.';

create function tickets_ops.flag_suspicious(p_cluster text) returns void language plpgsql as $$
declare
  -- Two rejected places may be chance.
  c_agreeing constant integer := 3;
  -- Enough to see; weighing all of a large cluster on each answer would be slow.
  c_sample constant integer := 50;
  v_suspicious boolean;
begin
  -- A centroid is probably the wrong one if places that lie beyond the guard lie together, elsewhere, and outnumber those
  -- within it. Without the guard (no centre) the judge says where each of them would be.
  with rejected as materialized (
    select l.location_key, place.geom, c.guard_km
    from (
      select * from tickets.geo_locations
      where cluster = p_cluster and status = 'rejected' and not verified
      order by fetched_at desc limit c_sample
    ) as l
    join tickets.geo_clusters c on c.cluster = l.cluster
    cross join lateral tickets_ops.judge_location(l.candidates, l.location_key, l.cluster, null, null) as place
    where place.status = 'found'
  ),
  agreement as (
    select count(*) as places
    from rejected one join rejected other on tickets_ops.distance_km(one.geom, other.geom) <= one.guard_km
    group by one.location_key
  )
  select coalesce(max(a.places), 0) >= c_agreeing and coalesce(max(a.places), 0) > (
    select count(*) from tickets.geo_locations where cluster = p_cluster and status = 'found' and not verified
  )
  into v_suspicious
  from agreement a;

  update tickets.geo_clusters
  set suspicious = v_suspicious
  where cluster = p_cluster and not verified and suspicious <> v_suspicious;
end
$$;
comment on function tickets_ops.flag_suspicious(text) is 'Sets or clears tickets.geo_clusters.suspicious: three or more rejected places agree among themselves and outnumber the found ones. A verified centroid is never flagged. Called under as_pipeline(true).';

create function tickets_ops.judge_again(p_cluster text) returns void language plpgsql as $$
declare
  v_before boolean := tickets_ops.as_pipeline(true);
begin
  -- Relies on the primary key (cluster, location_key). Nothing is known about a place without candidates and coordinate.
  update tickets.geo_locations l
  set
    status = judged.status, geom = judged.geom, precision = judged.precision, confidence = judged.confidence,
    distance_km = judged.distance_km, note = judged.note,
    expires_at = tickets_ops.answer_expires_at(judged.status, l.attempts, judged.found_days, l.fetched_at)
  from (
    select
      stored.location_key, verdict.*,
      (select p.found_days from tickets_ops.geocoding_providers p where p.provider = stored.provider) as found_days
    from tickets.geo_clusters c
    join tickets.geo_locations stored on stored.cluster = c.cluster
    cross join lateral tickets_ops.judge_location(
      stored.candidates, stored.location_key, stored.cluster, c.geom, c.guard_km
    ) as verdict
    where c.cluster = p_cluster and c.geom is not null and not stored.verified and stored.candidates <> '[]'
  ) as judged
  where l.cluster = p_cluster and l.location_key = judged.location_key
    and (l.status, l.geom::bytea, l.distance_km, l.note)
      is distinct from (judged.status, judged.geom::bytea, judged.distance_km, judged.note);

  -- A coordinate without candidates was inherited from the Python version: of the rules only the guard can be applied to it.
  update tickets.geo_locations l
  set
    distance_km = tickets_ops.distance_km(c.geom, l.geom),
    status = case when tickets_ops.distance_km(c.geom, l.geom) <= c.guard_km then 'found' else 'needs_review' end
  from tickets.geo_clusters c
  where c.cluster = p_cluster and c.geom is not null and l.cluster = p_cluster and not l.verified
    and l.candidates = '[]' and l.geom is not null
    and l.distance_km is distinct from tickets_ops.distance_km(c.geom, l.geom);

  perform tickets_ops.flag_suspicious(p_cluster);
  perform tickets_ops.as_pipeline(v_before);
end
$$;
comment on function tickets_ops.judge_again(text) is 'Judges the stored candidates of a cluster''s places again, against its present centroid and guard, without a call. Verified rows stay.';

create function tickets_ops.wake_locations(p_cluster text) returns void language sql as $$
  select graphile_worker.reschedule_jobs(array_agg(j.id), run_at := now())
  from graphile_worker.jobs j
  where j.task_identifier = 'geocode_location'
    and starts_with(j.key, 'geocode_location:' || p_cluster || ':')
    and j.run_at > now()
    and j.last_error is null
  having count(*) > 0;
$$;
comment on function tickets_ops.wake_locations(text) is 'The geocode_location jobs that wait for a cluster''s centroid may run now.';

create function tickets_ops.cluster_changed() returns trigger language plpgsql security definer as $$
begin
  if new.geom is not null then
    perform tickets_ops.judge_again(new.cluster);
    if tg_op = 'INSERT' or old.geom is null then
      perform tickets_ops.wake_locations(new.cluster);
    end if;
  end if;
  return null;
end
$$;
comment on function tickets_ops.cluster_changed() is 'Trigger: a centroid came or moved, or a guard was widened or narrowed; the cluster''s places are judged again and those that waited for it are asked. Security definer: whoever corrects a centroid need not be allowed to touch jobs.';

create trigger _600_judge_inserted after insert on tickets.geo_clusters
  for each row when (new.geom is not null) execute function tickets_ops.cluster_changed();
create trigger _600_judge_updated after update on tickets.geo_clusters
  for each row when (new.geom::bytea is distinct from old.geom::bytea or new.guard_km <> old.guard_km)
  execute function tickets_ops.cluster_changed();
