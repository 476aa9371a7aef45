-- Taking over from the Python version, second half: our tables stand, empty; tickets_legacy holds the old ones.
-- Each block is one step, and does nothing where part 005 found nothing to take over.
-- Not all columns of the old tables are known: those that are taken if they are there are named here.

-- Freshness first: it says how old the baseline of the history is.
do $$
begin
  if to_regnamespace('tickets_takeover') is null or to_regclass('tickets_legacy.import_meta') is null then
    return;
  end if;
  insert into tickets.import_meta (dataset, metadata)
  select
    lower(m.dataset),
    m.metadata - array['source_etag', 'source_last_modified', 'snapshot_at', 'ingested_at', 'checked_at']
      || jsonb_strip_nulls(jsonb_build_object(
        -- As the bucket's listing is read, so that an unchanged file is recognised.
        'source_etag', nullif(btrim(regexp_replace(m.metadata ->> 'source_etag', '^\s*W/', ''), E'" \t'), ''),
        'source_last_modified', tickets.eat_ts(m.metadata ->> 'source_last_modified'),
        'snapshot_at', coalesce(file.exported_at, tickets.eat_ts(m.metadata ->> 'snapshot_at')),
        'ingested_at', tickets.eat_ts(m.metadata ->> 'ingested_at'),
        'checked_at', tickets.eat_ts(coalesce(m.metadata ->> 'checked_at', m.metadata ->> 'ingested_at'))
      ))
  from (
    select distinct on (lower(dataset)) dataset, case when jsonb_typeof(metadata::jsonb) = 'object' then metadata::jsonb else '{}' end as metadata
    from tickets_legacy.import_meta where lower(dataset) in ('inc', 'crq')
    order by lower(dataset), dataset desc -- `inc` before `INC`
  ) as m
  -- The file's name holds its time, in EAT, whatever the value that holds the name is called.
  cross join lateral (
    select max(tickets.eat_ts(parts[1] || ' ' || replace(parts[2], '-', ':'))) as exported_at
    from jsonb_each_text(m.metadata) as e (key, value)
    cross join regexp_match(e.value, '([0-9]{4}-[0-9]{2}-[0-9]{2})T([0-9]{2}-[0-9]{2}-[0-9]{2})[^/]*\.csv$', 'i') as parts
  ) as file;

  insert into tickets_takeover.notes
  select 'rows of import_meta of no known dataset, left in tickets_legacy', dataset
  from tickets_legacy.import_meta where lower(dataset) not in ('inc', 'crq');
end
$$;

do $$
declare
  v_dataset text;
  v_old regclass;
  v_indexes text[];
  v_statement text;
begin
  foreach v_dataset in array array['inc', 'crq'] loop
    v_old := to_regclass('tickets_legacy.' || v_dataset);
    continue when v_old is null or to_regnamespace('tickets_takeover') is null;
    -- A ticket stands where it stood, even where our rules would place it elsewhere: the first snapshot does that.
    execute format('alter table tickets.%I disable trigger user', v_dataset);
    -- Indexes are built afterwards: thousands of tickets at one centroid make a GiST index slow to grow.
    select array_agg(pg_get_indexdef(indexrelid)) into v_indexes
    from pg_index where indrelid = to_regclass('tickets.' || v_dataset) and not indisprimary;
    execute (
      select 'drop index ' || string_agg(indexrelid::regclass::text, ', ')
      from pg_index where indrelid = to_regclass('tickets.' || v_dataset) and not indisprimary
    );
    execute format($sql$
      -- Ids that our CHECK refuses, and those with blanks around them, which no file will ever bring again.
      with odd as materialized (
        select ticket_id, btrim(ticket_id) as id, row_number() over (partition by btrim(ticket_id) order by ticket_id) as nth
        from %2$s where ticket_id <> btrim(ticket_id) or length(ticket_id) not between 1 and 200
      ),
      mended as materialized (
        select o.ticket_id,
          case
            when length(o.id) between 1 and 200 and o.nth = 1 and not exists (select from %2$s l where l.ticket_id = o.id) then o.id
            else left(o.id, 160) || '~' || md5(o.ticket_id)
          end as id
        from odd o
      ),
      old as not materialized (
        select o.ticket_id, o.raw, %3$s as geom, %4$s as geo_source, coalesce(%5$s, now()) as ingested_at from %2$s o
      ),
      noted as (
        insert into tickets_takeover.notes
        select 'tickets of %1$s with another id than before', left(ticket_id, 300), 'now ' || id from mended
        union all
        select 'tickets of %1$s whose coordinate or geo_source could not be kept', left(ticket_id, 300),
          concat_ws(' ', geo_source, st_astext(geom))
        from old
        where not tickets.is_lng_lat(geom) or case
          when geom is null then geo_source <> 'none' else coalesce(geo_source, '') not in ('feed', 'location', 'cluster') end
      )
      insert into tickets.%1$I (ticket_id, raw, geom, geo_source, ingested_at)
      select
        coalesce(m.id, o.ticket_id),
        coalesce(o.raw, '{}'),
        place.geom,
        case
          when place.geom is null then 'none'
          when o.geo_source in ('feed', 'location', 'cluster') then o.geo_source
          when place.geom = tickets.feed_point(o.raw) then 'feed'
          when o.raw ->> 'location_name' <> '' then 'location'
          else 'cluster'
        end,
        o.ingested_at
      from old o
      left join mended m on m.ticket_id = o.ticket_id
      cross join lateral (select case when tickets.is_lng_lat(o.geom) then o.geom end as geom offset 0) as place
    $sql$,
      v_dataset, v_old, tickets_takeover.column_of(v_old, 'geom') || '::geometry',
      tickets_takeover.column_of(v_old, 'geo_source') || '::text', tickets_takeover.column_of(v_old, 'ingested_at') || '::timestamptz'
    );
    foreach v_statement in array v_indexes loop
      execute v_statement;
    end loop;
    execute format('alter table tickets.%I enable trigger user', v_dataset);
    execute format($sql$
      insert into tickets.%1$I (ticket_id, event, new_value, snapshot_at)
      select t.ticket_id, 'baseline', t.normalized_status, tickets.eat_ts(m.metadata ->> 'snapshot_at')
      from tickets.%2$I t left join tickets.import_meta m on m.dataset = %2$L
      order by t.ticket_id
    $sql$, v_dataset || '_events', v_dataset);
    execute format($sql$
      update tickets.import_meta m
      set metadata = m.metadata || jsonb_build_object('ingested_at', newest.ingested_at)
      from (select max(ingested_at) as ingested_at from tickets.%1$I) as newest
      where m.dataset = %1$L and not m.metadata ? 'ingested_at'
    $sql$, v_dataset);
    execute format('analyze tickets.%I, tickets.%I', v_dataset, v_dataset || '_events');
  end loop;
end
$$;

-- The old gazetteers, as they are: a name, a coordinate in one of several forms, whether a person checked it.
do $$
declare
  v_kind text;
  v_old regclass;
  v_name text;
  v_geom text;
  v_lat text;
  v_lng text;
begin
  if to_regnamespace('tickets_takeover') is null then
    return;
  end if;
  create table tickets_takeover.old_places (
    kind text, name text, cluster text, geom geometry(Point, 4326), verified boolean, provider text, query text, note text, fetched_at timestamptz
  );
  foreach v_kind in array array['cluster', 'location'] loop
    v_old := to_regclass(format('tickets_legacy.geo_%ss', v_kind));
    continue when v_old is null;
    v_name := tickets_takeover.column_of(v_old, variadic case v_kind
      when 'cluster' then array['cluster', 'cluster_name', 'name'] else array['location_name', 'location', 'location_key', 'name'] end);
    v_geom := tickets_takeover.column_of(v_old, 'geom', 'geog');
    v_lat := tickets_takeover.column_of(v_old, 'latitude', 'lat');
    v_lng := tickets_takeover.column_of(v_old, 'longitude', 'lng', 'lon', 'long');
    if v_name = 'null' or (v_geom = 'null' and 'null' in (v_lat, v_lng)) then
      raise exception 'No column of % is known to hold %.', v_old, case when v_name = 'null' then 'the name of the ' || v_kind else 'the coordinate' end
        using hint = 'Rename it to ' || case when v_name = 'null' then v_kind else 'geom (or latitude and longitude)' end
          || ', as part 990 of the migration expects it, and run the migration again.';
    end if;
    execute format($sql$
      insert into tickets_takeover.old_places
      select %1$L, o.name, o.cluster, case when tickets.is_lng_lat(o.geom) then o.geom end,
        coalesce(tickets.to_boolean(o.verified), false), o.provider, o.query, o.note, tickets.eat_ts(o.fetched_at)
      from (
        select
          %2$s::text as name,
          %3$s::text as cluster,
          coalesce(
            st_setsrid(%4$s::geometry, 4326),
            st_setsrid(st_makepoint(tickets.to_degrees(%5$s::text), tickets.to_degrees(%6$s::text)), 4326)
          ) as geom,
          %7$s::text as verified, %8$s::text as provider, %9$s::text as query, %10$s::text as note, %11$s::text as fetched_at
        from %12$s o
      ) as o
    $sql$,
      v_kind, v_name, case v_kind when 'location' then tickets_takeover.column_of(v_old, 'cluster', 'cluster_name') else 'null' end,
      v_geom, v_lng, v_lat,
      tickets_takeover.column_of(v_old, 'verified'), tickets_takeover.column_of(v_old, 'provider', 'source', 'geocoder'),
      tickets_takeover.column_of(v_old, 'query'), tickets_takeover.column_of(v_old, 'note', 'notes'),
      tickets_takeover.column_of(v_old, 'fetched_at', 'geocoded_at', 'updated_at', 'created_at'), v_old
    );
  end loop;
end
$$;

-- Ours. The old gazetteer of locations was keyed by the name alone: a name goes to every cluster whose tickets use it.
-- A coordinate that tickets carry and no gazetteer has is taken from the tickets, or the next snapshot would take it away.
do $$
begin
  if to_regnamespace('tickets_takeover') is null then
    return;
  end if;
  alter table tickets.geo_clusters disable trigger user;
  alter table tickets.geo_locations disable trigger user;

  create table tickets_takeover.used_places as
  select
    tickets.cluster_key(t.cluster) as cluster, t.location_key, t.geo_source, t.geom, min(t.location_name) as location_name, count(*) as tickets
  from (
    select cluster, location_key, geo_source, geom, location_name from tickets.inc
    union all
    select cluster, location_key, geo_source, geom, location_name from tickets.crq
  ) as t
  where tickets.cluster_key(t.cluster) is not null
  group by 1, 2, 3, 4;
  analyze tickets_takeover.used_places;

  insert into tickets.geo_clusters (cluster, geom, provider, query, verified, note, fetched_at)
  select distinct on (cluster) cluster, geom, provider, query, verified, note, fetched_at
  from (
    select tickets.cluster_key(o.name) as cluster, o.geom, o.provider, o.query, o.verified, o.note, o.fetched_at, o.name, true as listed, 0 as tickets
    from tickets_takeover.old_places o where o.kind = 'cluster' and tickets.cluster_key(o.name) is not null
    union all
    select u.cluster, u.geom, null, null, false, 'Taken over from its tickets: the old gazetteer did not list it.', null, null, false, sum(u.tickets)
    from tickets_takeover.used_places u where u.geo_source = 'cluster' group by u.cluster, u.geom
  ) as offered
  order by cluster, verified desc, geom is not null desc, listed desc, tickets desc, name collate "C", geom;

  insert into tickets.geo_locations (
    cluster, location_key, location_name, status, geom, provider, query, distance_km, verified, note, attempts, fetched_at, expires_at
  )
  with places as (
    select cluster, location_key, min(location_name) as location_name
    from tickets_takeover.used_places where location_key is not null group by 1, 2
  ),
  offered as (
    select p.*, o.geom, o.provider, o.query, o.verified, o.note, o.fetched_at, o.name, true as listed,
      tickets.cluster_key(o.cluster) is not distinct from p.cluster as own, coalesce(u.tickets, 0) as tickets
    from tickets_takeover.old_places o
    join places p on p.location_key = tickets.location_key(o.name)
    left join tickets_takeover.used_places u
      on u.cluster = p.cluster and u.location_key = p.location_key and u.geo_source = 'location' and u.geom = o.geom
    where o.kind = 'location'
    union all
    select p.*, u.geom, null, null, false, 'Taken over from its tickets: the old gazetteer did not list it.', null, null, false, false, u.tickets
    from places p join tickets_takeover.used_places u using (cluster, location_key) where u.geo_source = 'location'
  ),
  chosen as (
    select distinct on (cluster, location_key) * from offered
    order by cluster, location_key, verified desc, geom is not null desc, listed desc, own desc, tickets desc, name collate "C", geom
  ),
  judged as (
    select l.*,
      tickets_ops.distance_km(c.geom, l.geom) as distance_km,
      case
        when l.geom is null then case when l.verified then 'rejected' else 'not_found' end
        when l.verified then 'found'
        when tickets_ops.distance_km(c.geom, l.geom) > c.guard_km or not tickets.in_kenya(l.geom) then 'needs_review'
        else 'found'
      end as status
    from chosen l left join tickets.geo_clusters c on c.cluster = l.cluster
  )
  select
    cluster, location_key, location_name, status, geom, provider, query, distance_km, verified,
    coalesce(note, case status when 'needs_review' then 'Taken over from the Python version: beyond the guard of this cluster, or outside Kenya.' end),
    case status when 'not_found' then 1 else 0 end,
    fetched_at,
    -- From today on: otherwise everything would be asked again at once.
    case when not verified then tickets_ops.answer_expires_at(status, 1, null, now()) end
  from judged;

  alter table tickets.geo_clusters enable trigger user;
  alter table tickets.geo_locations enable trigger user;
  analyze tickets.geo_clusters, tickets.geo_locations;

  insert into tickets_takeover.notes
  select format('places of the old gazetteer geo_%ss without a usable coordinate', kind), name, case when verified then 'verified' end
  from tickets_takeover.old_places where geom is null
  union all
  select 'locations of the old gazetteer that no ticket with a cluster uses, left in tickets_legacy', o.name, case when o.verified then 'verified' end
  from tickets_takeover.old_places o
  where o.kind = 'location' and not exists (select from tickets.geo_locations l where l.location_key = tickets.location_key(o.name))
  union all
  select 'clusters of the old gazetteer without a name, left in tickets_legacy', o.name, case when o.verified then 'verified' end
  from tickets_takeover.old_places o where o.kind = 'cluster' and tickets.cluster_key(o.name) is null
  union all
  select 'locations of the old gazetteer outranked by another row for the same place, left in tickets_legacy', o.name,
    format('(%s, %s) is at %s', l.cluster, l.location_key, st_astext(l.geom))
  from tickets_takeover.old_places o
  join tickets.geo_locations l on l.location_key = tickets.location_key(o.name)
  where o.kind = 'location' and o.geom is not null and o.geom is distinct from l.geom
  union all
  select 'locations that need review: beyond the guard of their cluster', l.location_name, format('(%s, %s), %s km', l.cluster, l.location_key, l.distance_km)
  from tickets.geo_locations l where l.status = 'needs_review';
end
$$;

-- What the first snapshot will move, because our rules or the gazetteers say otherwise (the statement of place_tickets).
do $$
declare
  v_dataset text;
begin
  if to_regnamespace('tickets_takeover') is null then
    return;
  end if;
  foreach v_dataset in array array['inc', 'crq'] loop
    execute format($sql$
      insert into tickets_takeover.notes
      select 'tickets of %1$s that the next snapshot will place elsewhere', t.ticket_id,
        format('from %%s %%s to %%s %%s', t.geo_source, st_astext(t.geom), place.geo_source, st_astext(place.geom))
      from tickets.%1$I t
      left join tickets.geo_locations l
        on l.cluster = tickets.cluster_key(t.cluster) and l.location_key = t.location_key and l.status = 'found'
      left join tickets.geo_clusters c on c.cluster = tickets.cluster_key(t.cluster)
      cross join lateral (select tickets.feed_point(t.raw) as geom offset 0) as feed
      cross join lateral (
        select coalesce(feed.geom, l.geom, c.geom) as geom, tickets.geo_source(feed.geom, l.geom, c.geom) as geo_source
      ) as place
      where t.geo_source <> place.geo_source or t.geom is distinct from place.geom
    $sql$, v_dataset);
  end loop;
end
$$;

-- What callers of the old map function rely on must be there.
do $$
declare
  v_missing text;
begin
  if to_regnamespace('tickets_takeover') is null then
    return;
  end if;
  select string_agg(format('%s %s', part, name), ', ' order by part, name) into v_missing
  from (select part, name from tickets_takeover.old_map_interface except select part, name from tickets_takeover.map_interface()) as missing;
  if v_missing is not null then
    raise exception 'reporting.fn_tickets_for_map has no longer: %', v_missing
      using hint = 'Whoever calls the map function may use these. Add them to it, or drop the old overload that has them if nobody does.';
  end if;
end
$$;

-- Who could use the old objects can use ours.
do $$
declare
  v_statement text;
begin
  if to_regnamespace('tickets_takeover') is null then
    return;
  end if;
  for v_statement in
    with relations as (
      select old.oid as old, new.oid::regclass as new
      from pg_class old join pg_class new on new.relname = old.relname and new.relnamespace = 'tickets'::regnamespace
      where old.relnamespace = 'tickets_legacy'::regnamespace and old.relkind in ('r', 'p', 'v', 'm') and new.relkind in ('r', 'p', 'v', 'm')
    ),
    functions as (
      select old.oid as old, new.oid::regprocedure as new
      from pg_proc old
      join pg_proc new on new.proname = old.proname and (
        new.pronamespace = 'tickets'::regnamespace and oidvectortypes(new.proargtypes) = oidvectortypes(old.proargtypes)
        -- One function instead of all overloads.
        or new.pronamespace = 'reporting'::regnamespace and new.proname = 'fn_tickets_for_map'
      )
      where old.pronamespace = 'tickets_legacy'::regnamespace
    )
    select tickets_takeover.grants(coalesce(c.relacl, acldefault('r', c.relowner)), r.new::text)
    from relations r join pg_class c on c.oid = r.old
    union all
    select tickets_takeover.grants(a.attacl, r.new::text, a.attname)
    from relations r
    join pg_attribute a on a.attrelid = r.old and not a.attisdropped
    join pg_attribute b on b.attrelid = r.new and b.attname = a.attname and not b.attisdropped
    union all
    select tickets_takeover.grants(p.proacl, 'function ' || f.new) from functions f join pg_proc p on p.oid = f.old
    union all
    -- Everyone could call the old map function, but it read with the caller's rights: ours, which reads with its owner's, is
    -- for those who could read the tickets.
    select format('grant execute on function %s to %s', f.new, case r.grantee when 0 then 'public' else quote_ident(pg_get_userbyid(r.grantee)) end)
    from functions f
    join pg_proc p on p.oid = f.old and p.proname = 'fn_tickets_for_map'
    join aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) a on a.grantee = 0
    join lateral (
      select acl.grantee from pg_class c cross join aclexplode(coalesce(c.relacl, acldefault('r', c.relowner))) acl
      where c.oid = 'tickets_legacy.inc'::regclass and acl.privilege_type = 'SELECT' and not p.prosecdef
      union
      select 0 where p.prosecdef
    ) as r on true
  loop
    execute v_statement;
  end loop;
end
$$;

-- The readers last: while they are re-pointed, and until the commit, they wait. So all else is done before.
do $$
declare
  v_note record;
  v_made_meanwhile text;
begin
  if to_regnamespace('tickets_takeover') is null then
    return;
  end if;
  drop table tickets_takeover.old_places, tickets_takeover.used_places;
  drop function tickets_takeover.column_of(regclass, text[]);
  insert into tickets_takeover.notes
  select 'tables of the old schema that have no counterpart, left in tickets_legacy', old.oid::regclass::text
  from pg_class old
  where old.relnamespace = 'tickets_legacy'::regnamespace and old.relkind in ('r', 'p', 'f') and old.relname <> 'schema_migrations'
    and not exists (select from pg_class new where new.relnamespace = 'tickets'::regnamespace and new.relname = old.relname);
  for v_note in select about, count(*) from tickets_takeover.notes group by about order by about loop
    raise notice '%: %', v_note.about, v_note.count;
  end loop;
  raise notice 'What was noted: select * from tickets_takeover.notes. The way back: docs/taking-over.md.';

  perform tickets_takeover.repoint_readers(p_own := true);
  with bound as materialized (
    select distinct u.user_class, u.user_id, pg_describe_object(u.user_class, u.user_id, 0) as name
    from tickets_takeover.uses u
    join pg_class c on u.used_class = 'pg_class'::regclass and c.oid = u.used_id and c.relnamespace = 'tickets_legacy'::regnamespace
    where u.user_class in ('pg_class'::regclass, 'pg_proc'::regclass)
  )
  select string_agg(name, ', ') into v_made_meanwhile
  from bound
  where tickets_takeover.is_foreign(user_class, user_id)
    and name not in (select n.name from tickets_takeover.notes n where n.about like 'objects that still use%');
  if v_made_meanwhile is not null then
    raise exception 'Made while the migration ran, and bound to the old tables: %', v_made_meanwhile using hint = 'Run the migration again.';
  end if;
end
$$;
