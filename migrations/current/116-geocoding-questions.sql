-- One place from question to answer: what is to be asked, and what becomes of the answers.
-- The job asks the provider in between (src/geocode/geocode.ts); both ends are idempotent.
--
-- Writing a gazetteer excludes writing tickets (070-geometry.sql). One that waits for the lock holds up every batch that
-- comes after it, so a verdict does not wait: while a load is writing, it is "busy" and the job comes back with its answers.

create function tickets_ops.cluster_question(p_cluster text, p_force boolean, p_afresh boolean)
returns table (state text, cluster text, name text, region text, answered text[])
language plpgsql as $$
declare
  v_cluster text := tickets.cluster_key(p_cluster);
begin
  if p_afresh then
    delete from tickets_ops.geocoding_answers a where a.cluster = v_cluster and a.location_key = '';
  end if;
  return query
    select
      case
        when v_cluster is null then 'nothing to ask'
        when c.verified then 'verified'
        when (c.geom is not null or c.expires_at > now()) and not p_force then 'known'
        else 'ask'
      end,
      v_cluster,
      coalesce(tickets.location_query(v_cluster), v_cluster),
      -- Relies on the index on cluster_key(cluster).
      (select mode() within group (order by t.region) from tickets.inc t where tickets.cluster_key(t.cluster) = v_cluster),
      array(select a.query from tickets_ops.geocoding_answers a where a.cluster = v_cluster and a.location_key = '')
    from (select 1) as always
    left join tickets.geo_clusters c on c.cluster = v_cluster;
end
$$;
comment on function tickets_ops.cluster_question(text, boolean, boolean) is
  'What a geocode_cluster job has to ask. state: ask, known (a centroid, or asked in vain lately), verified, nothing to ask. name: the cluster as a provider may read it; region: of most of its tickets; answered: queries answered already. p_force asks although known; p_afresh forgets answers of an earlier job that never ended.';

create function tickets_ops.location_question(p_location_name text, p_cluster text, p_force boolean, p_afresh boolean)
returns table (
  state text, cluster text, location_key text, name text, lat double precision, lng double precision, guard_km double precision,
  answered text[]
)
language plpgsql as $$
declare
  v_cluster text := tickets.cluster_key(p_cluster);
  v_key text := tickets.location_key(p_location_name);
begin
  if p_afresh then
    delete from tickets_ops.geocoding_answers a where a.cluster = v_cluster and a.location_key = v_key;
  end if;
  return query
    select
      case
        when v_cluster is null or v_key is null then 'nothing to ask'
        when l.verified then 'verified'
        when l.cluster is not null and (l.expires_at is null or l.expires_at > now()) and not p_force then 'known'
        when c.geom is null then 'no centroid'
        else 'ask'
      end,
      v_cluster,
      v_key,
      tickets.location_query(p_location_name),
      st_y(c.geom),
      st_x(c.geom),
      c.guard_km::double precision,
      array(select a.query from tickets_ops.geocoding_answers a where a.cluster = v_cluster and a.location_key = v_key)
    from (select 1) as always
    left join tickets.geo_locations l on l.cluster = v_cluster and l.location_key = v_key
    left join tickets.geo_clusters c on c.cluster = v_cluster;
end
$$;
comment on function tickets_ops.location_question(text, text, boolean, boolean) is
  'What a geocode_location job has to ask. state: ask, known (an answer that has not expired), verified, no centroid (the cluster comes first), nothing to ask (no cluster, or a name of network codes only). name: what the provider reads; lat, lng, guard_km: of the cluster; answered: queries answered already. p_force asks although known; p_afresh forgets answers of an earlier job that never ended.';

create function tickets_ops.answers(p_cluster text, p_location_key text, out candidates jsonb, out query text)
language sql stable as $$
  select
    coalesce(
      jsonb_agg(c.candidate order by a.answered_at, a.query, c.no) filter (where c.candidate is not null),
      '[]'
    ),
    (
      select string_agg(asked.query, ' | ' order by asked.answered_at, asked.query)
      from tickets_ops.geocoding_answers asked
      where asked.cluster = p_cluster and asked.location_key = p_location_key
    )
  from tickets_ops.geocoding_answers a
  cross join lateral jsonb_array_elements(a.candidates) with ordinality as c (candidate, no)
  where a.cluster = p_cluster and a.location_key = p_location_key;
$$;
comment on function tickets_ops.answers(text, text) is 'All candidates of the place that is being asked, in the order they came, and the queries. p_location_key empty: of the cluster.';

create function tickets_ops.settle_cluster(p_cluster text, p_provider text, p_last boolean) returns text language plpgsql as $$
declare
  v_answers record;
  v_verdict record;
  v_before boolean;
begin
  select * into v_answers from tickets_ops.answers(p_cluster, '');
  select * into v_verdict from tickets_ops.judge_cluster(
    v_answers.candidates, coalesce(tickets.location_key(p_cluster), lower(p_cluster))
  );
  if v_verdict.geom is null and not p_last then
    return null;
  end if;
  if not pg_try_advisory_xact_lock(tickets.gazetteer_lock()) then
    return 'busy';
  end if;
  v_before := tickets_ops.as_pipeline(true);
  insert into tickets.geo_clusters as c (cluster, geom, provider, query, candidates, note, attempts, fetched_at, expires_at)
  values (
    p_cluster, v_verdict.geom, p_provider, v_answers.query, v_answers.candidates, v_verdict.note,
    case when v_verdict.geom is null then 1 else 0 end, now(),
    case when v_verdict.geom is null then tickets_ops.answer_expires_at('not_found', 1, null, now()) end
  )
  on conflict (cluster) do update set
    -- Asked by force and not found: the old centroid is still the best there is.
    geom = coalesce(excluded.geom, c.geom),
    provider = excluded.provider, query = excluded.query, candidates = excluded.candidates, note = excluded.note,
    attempts = case when excluded.geom is null then c.attempts + 1 else 0 end,
    fetched_at = excluded.fetched_at,
    expires_at = case
      when excluded.geom is null and c.geom is null then tickets_ops.answer_expires_at('not_found', c.attempts + 1, null, now())
    end;
  perform tickets_ops.as_pipeline(v_before);
  delete from tickets_ops.geocoding_answers where cluster = p_cluster and location_key = '';
  return case when v_verdict.geom is null then 'not_found' else 'found' end;
end
$$;
comment on function tickets_ops.settle_cluster(text, text, boolean) is
  'Judges the answers for a cluster and writes its centroid, or that none was found. Returns found or not_found; busy, and nothing is written, while a load writes tickets; NULL, and nothing is written, when nothing was found and p_last is false: a simpler query may follow.';

create function tickets_ops.settle_location(
  p_cluster text, p_location_key text, p_location_name text, p_provider text, p_last boolean
)
returns text language plpgsql as $$
declare
  v_answers record;
  v_verdict record;
  v_found_days numeric := (select found_days from tickets_ops.geocoding_providers where provider = p_provider);
  v_before boolean;
begin
  select * into v_answers from tickets_ops.answers(p_cluster, p_location_key);
  select verdict.* into v_verdict
  from tickets.geo_clusters c
  cross join lateral tickets_ops.judge_location(v_answers.candidates, p_location_key, p_cluster, c.geom, c.guard_km) as verdict
  where c.cluster = p_cluster and c.geom is not null;
  if not found then
    raise exception 'The cluster % has no centroid any more: its places cannot be judged.', p_cluster;
  end if;
  if v_verdict.status <> 'found' and not p_last then
    return null;
  end if;
  if not pg_try_advisory_xact_lock(tickets.gazetteer_lock()) then
    return 'busy';
  end if;
  v_before := tickets_ops.as_pipeline(true);
  insert into tickets.geo_locations as l (
    cluster, location_key, location_name, status, geom, provider, query, precision, confidence, distance_km, candidates, note,
    attempts, fetched_at, expires_at
  )
  values (
    p_cluster, p_location_key, p_location_name, v_verdict.status, v_verdict.geom, p_provider, v_answers.query,
    v_verdict.precision, v_verdict.confidence, v_verdict.distance_km, v_answers.candidates, v_verdict.note,
    case when v_verdict.status = 'not_found' then 1 else 0 end, now(),
    tickets_ops.answer_expires_at(v_verdict.status, 1, v_found_days, now())
  )
  on conflict (cluster, location_key) do update set
    location_name = excluded.location_name, status = excluded.status, geom = excluded.geom, provider = excluded.provider,
    query = excluded.query, precision = excluded.precision, confidence = excluded.confidence,
    distance_km = excluded.distance_km, candidates = excluded.candidates, note = excluded.note,
    attempts = case when excluded.status = 'not_found' then l.attempts + 1 else 0 end,
    fetched_at = excluded.fetched_at,
    expires_at = tickets_ops.answer_expires_at(excluded.status, l.attempts + 1, v_found_days, now());
  if v_verdict.status = 'rejected' then
    perform tickets_ops.flag_suspicious(p_cluster);
  end if;
  perform tickets_ops.as_pipeline(v_before);
  delete from tickets_ops.geocoding_answers where cluster = p_cluster and location_key = p_location_key;
  return v_verdict.status;
end
$$;
comment on function tickets_ops.settle_location(text, text, text, text, boolean) is
  'Judges the answers for a place and writes the verdict, unless a person verified the row meanwhile. Returns the status; busy, and nothing is written, while a load writes tickets; NULL, and nothing is written, when nothing good was found and p_last is false: a simpler query may follow. Raises when the cluster lost its centroid meanwhile.';
