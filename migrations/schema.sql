-- Made by npm run schema:dump from the committed migrations; do not edit.

CREATE SCHEMA reporting;

CREATE SCHEMA tickets;

COMMENT ON SCHEMA tickets IS 'Field-ops tickets of the fibre operator: INC faults and CRQ, requests for new installations, the gazetteers that place them, and their history.';

CREATE SCHEMA tickets_ops;

COMMENT ON SCHEMA tickets_ops IS 'The fleettickets pipeline: its ledger, its work in progress, and what operators look at and call.';

CREATE TYPE tickets.planned_ticket AS (
	vehicle_id text,
	"position" integer,
	ticket_id text,
	metres double precision,
	cost_km double precision,
	sla_state text,
	at_risk boolean,
	geo_source text,
	freshness text,
	note text
);

COMMENT ON TYPE tickets.planned_ticket IS 'A row of tickets.dispatch_plan, which explains it.';

CREATE FUNCTION reporting.fn_crq_for_map(p_open_only boolean DEFAULT true, p_cluster text DEFAULT NULL::text, p_region text DEFAULT NULL::text, p_team text DEFAULT NULL::text) RETURNS jsonb
    LANGUAGE plpgsql STABLE SECURITY DEFINER PARALLEL SAFE
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET plan_cache_mode TO 'force_custom_plan'
    SET jit TO 'off'
    AS $$
begin
  return (select to_jsonb(collection) from tickets.map_collection(p_open_only, p_cluster, p_region, p_team, 'crq') as collection);
end
$$;

COMMENT ON FUNCTION reporting.fn_crq_for_map(p_open_only boolean, p_cluster text, p_region text, p_team text) IS 'The map of requests for new installations (CRQ): the document of reporting.fn_tickets_for_map(), with its arguments, limits, rights and errors, of tickets.crq. There is no SLA: open requests have clock_start, clock_source and hours_open as in tickets.crq_open, no sla_state and no at_risk, and the summary has no by_sla_state. Loaded where CRQ_ENABLED=true; where that was turned off, as they were last. Read-only, also on a streaming replica.';

CREATE FUNCTION reporting.fn_inc_dashboard(p_cluster text DEFAULT NULL::text, p_status text DEFAULT NULL::text, p_window text DEFAULT 'today'::text, p_from timestamp with time zone DEFAULT NULL::timestamp with time zone, p_to timestamp with time zone DEFAULT NULL::timestamp with time zone) RETURNS jsonb
    LANGUAGE plpgsql STABLE SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
declare
  v_window text := case when p_from is not null or p_to is not null then 'custom' else p_window end;
  v_today date := tickets.eat_day(now());
  v_first date;
  v_from timestamptz := p_from;
  v_to timestamptz := p_to;
begin
  if v_window in ('today', 'week', 'month') then
    v_first := date_trunc(case v_window when 'today' then 'day' else v_window end, v_today::timestamp);
    v_from := tickets.eat_midnight(v_first);
    v_to := tickets.eat_midnight((v_first + ('1 ' || case v_window when 'today' then 'day' else v_window end)::interval)::date);
  elsif v_window is distinct from 'custom' then
    raise exception 'p_window is %: choose today, week, month or custom.', coalesce(quote_literal(v_window), 'NULL')
      using errcode = 'invalid_parameter_value';
  elsif p_from is null and p_to is null then
    raise exception 'A custom window needs p_from, p_to or both.' using errcode = 'invalid_parameter_value';
  end if;
  perform tickets.check_window(v_from, v_to);
  return jsonb_build_object(
    'window', jsonb_build_object('name', v_window, 'from', v_from, 'to', v_to),
    'open', tickets.dashboard_features(true, p_cluster, p_status, null, null),
    'closed', tickets.dashboard_features(false, p_cluster, p_status, coalesce(v_from, '-infinity'), coalesce(v_to, 'infinity')),
    'metrics', tickets.dashboard_metrics(p_cluster, p_status, coalesce(v_from, '-infinity'), coalesce(v_to, 'infinity')),
    'freshness', (select to_jsonb(f) from tickets.freshness() f)
  );
end
$$;

COMMENT ON FUNCTION reporting.fn_inc_dashboard(p_cluster text, p_status text, p_window text, p_from timestamp with time zone, p_to timestamp with time zone) IS 'A dashboard of the INC tickets, as JSON: what is open now, and what was closed in a window.

Arguments: p_cluster (in any case, with any blanks), p_status (normalized_status): only tickets with exactly that value; NULL, the default, means all. p_window: today (default), week (ISO, from Monday), month, in Nairobi''s days, or custom. p_from, p_to: [p_from, p_to); either of them makes the window custom, one that is missing leaves that side open. They are instants: with no zone in a text the session''s counts; tickets.eat_midnight(day) is a day''s begin in Nairobi.

window: name, from, to. open: the open tickets with a place, a GeoJSON FeatureCollection, live whatever the window is. closed: those that are closed and whose closed_at lies in the window, likewise. Features as in reporting.fn_tickets_for_map. metrics: see tickets.dashboard_metrics(); they count tickets without a place too. freshness: as in reporting.fn_tickets_for_map. Trap: content trails the files by days, so little of today has been told yet: see tickets.reporting_lag(). A ticket that was reopened counts as open only; closings are in tickets.inc_closures.

Limit: at most the 50 000 most recently closed tickets are among the features, and none whose texts are over 4 000 bytes.

Rights: runs as its owner, so EXECUTE is all that a caller needs (and USAGE on schema reporting). Errors: a p_window that there is not, or a custom one without a bound or with p_from after p_to.';

CREATE FUNCTION reporting.fn_inc_trends(p_from date, p_to date, p_step text DEFAULT 'day'::text, p_by text DEFAULT NULL::text) RETURNS jsonb
    LANGUAGE plpgsql STABLE SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
begin
  perform tickets.check_question(p_from, p_to, p_step, p_by, array['team', 'cluster', 'region', 'owner', 'status']);
  return jsonb_build_object(
    'from', p_from, 'to', p_to, 'step', p_step, 'by', p_by,
    'settled_through', tickets.settled_through(),
    'flow', (select coalesce(jsonb_agg(f), '[]') from tickets.inc_flow(p_from, p_to, p_step, p_by) f),
    'repair_times', (select coalesce(jsonb_agg(r), '[]') from tickets.inc_repair_times(p_from, p_to, p_step, p_by) r),
    -- Of owners and statuses no day is kept.
    'backlog', case when p_by is null or p_by in ('team', 'cluster', 'region') then (
      select coalesce(jsonb_agg(b), '[]') from tickets.inc_backlog_daily(p_from, p_to, p_by) b
    ) end,
    'freshness', (select to_jsonb(f) from tickets.freshness() f)
  );
end
$$;

COMMENT ON FUNCTION reporting.fn_inc_trends(p_from date, p_to date, p_step text, p_by text) IS 'Trends of the INC tickets for charts, as JSON.

Arguments: p_from and p_to, days in Nairobi, [p_from, p_to); p_step: day (default), week (ISO) or month; p_by: team, cluster, region, owner, status, or NULL (default) for all together.

flow, repair_times: the rows of tickets.inc_flow and tickets.inc_repair_times; backlog: those of tickets.inc_backlog_daily, by day whatever p_step is, null for owner and status; settled_through: periods that end later are provisional; freshness: as in reporting.fn_tickets_for_map. The comments of those functions say units, populations and traps. starts_at is the instant of midnight in Nairobi: use it as a chart''s time.

Rights: runs as its owner, so EXECUTE is all that a caller needs (and USAGE on schema reporting). Errors: an argument that makes no sense, with the words that do.';

CREATE FUNCTION reporting.fn_ticket_places(p_state text DEFAULT 'open'::text, p_from timestamp with time zone DEFAULT NULL::timestamp with time zone, p_to timestamp with time zone DEFAULT NULL::timestamp with time zone, p_cluster text DEFAULT NULL::text, p_region text DEFAULT NULL::text, p_team text DEFAULT NULL::text) RETURNS json
    LANGUAGE sql STABLE SECURITY DEFINER PARALLEL SAFE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
  select row_to_json(collection)
  from (
    select 'FeatureCollection' as type, coalesce(array_agg(feature order by p.open desc, p.tickets desc, p.id collate "C"), '{}') as features
    from tickets.places(p_state, p_from, p_to, p_cluster, p_region, p_team, null, 5000) p
    cross join lateral (select 'Point' as type, array[p.longitude, p.latitude] as coordinates) as geometry
    cross join lateral (
      select
        p.cluster, p.location_key, p.location_name, p.geo_source, p.tickets, p.open, p.breached, p.at_risk, p.oldest_hours,
        p.closed, p.mttr_median, p.ticket_ids, p.more
    ) as properties
    cross join lateral (select 'Feature' as type, p.id, geometry, properties) as feature
  ) as collection
$$;

COMMENT ON FUNCTION reporting.fn_ticket_places(p_state text, p_from timestamp with time zone, p_to timestamp with time zone, p_cluster text, p_region text, p_team text) IS 'The tickets map by place: a GeoJSON FeatureCollection (RFC 7946) with one Point for each coordinate that tickets lie on, and counts instead of tickets. The places with most open tickets come first.

Arguments: p_state open (default), closed or all; p_from, p_to: only tickets closed in [p_from, p_to), NULL means no bound; open tickets are not concerned; p_cluster, p_region, p_team: only tickets with exactly that cluster, region, assigned_team, in any case, NULL means all.

Properties: cluster and location_key of its tickets, NULL where they differ (a centroid has the tickets of many places); location_name, one spelling of location_key; geo_source (cluster where one of the tickets is there for want of an address, else feed or location); tickets = open + closed; open, and of these breached and at_risk as in tickets.inc_open_sla; oldest_hours, the most hours_open; closed, and mttr_median of these in minutes; ticket_ids, at most 20: open ones before closed ones, and where there are more, those that are open longest, then those that were closed last; more, how many others there are. All of tickets with a place: they add up to `mapped` in the summary of fn_tickets_for_map().

id: the key of the place in tickets.geo_locations as `cluster/location_key` where all its tickets were placed by it, else the geohash of the coordinate. Only the 5 000 last closed tickets of the answer are listed in ticket_ids; all are counted.

Rights: runs as its owner, so EXECUTE is all that a caller needs (and USAGE on schema reporting). Errors: 22023 for another p_state and a p_from after p_to. Read-only, also on a streaming replica.';

CREATE FUNCTION reporting.fn_tickets_for_map(p_open_only boolean DEFAULT true, p_cluster text DEFAULT NULL::text, p_region text DEFAULT NULL::text, p_team text DEFAULT NULL::text) RETURNS jsonb
    LANGUAGE plpgsql STABLE SECURITY DEFINER PARALLEL SAFE
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET plan_cache_mode TO 'force_custom_plan'
    SET jit TO 'off'
    AS $$
begin
  return (select to_jsonb(collection) from tickets.map_collection(p_open_only, p_cluster, p_region, p_team) as collection);
end
$$;

COMMENT ON FUNCTION reporting.fn_tickets_for_map(p_open_only boolean, p_cluster text, p_region text, p_team text) IS 'The tickets map: a GeoJSON FeatureCollection (RFC 7946) with a foreign member `summary`. What dashboard_api serves.

Arguments: p_open_only (default true; false adds the closed tickets); p_cluster, p_region, p_team: only tickets with exactly that cluster, region, assigned_team, in any case; NULL, the default, means all.

features: the tickets with a place. id: ticket_id. properties: the columns of tickets.inc under their own names, without raw, geom and geog; on open tickets also sla_clock_start, sla_clock_source, hours_open, sla_state and at_risk as in tickets.inc_open_sla. Times are ISO 8601 with the session''s offset. geo_source says how exact a place is.

summary: total, mapped and unmapped tickets; by_status (normalized_status), by_cluster, by_region, by_geo_source: tickets per value, unmapped ones included, "(none)" where there is no value (a cluster once, however the feed spells it: as in tickets.geo_clusters, else as most of these tickets do; a feature has the feed''s own spelling); by_sla_state: open tickets only; truncated: true where not every mapped ticket is among the features; freshness: snapshot_at (the export''s time), ingested_at (when its rows came in), checked_at (when the bucket was last looked at), age_minutes (since snapshot_at), content_through (newest created_at_service or closed_at of all tickets that is not in the future: the content trails the files by days), source_key. Filters do not concern freshness.

Limit: jsonb holds no array over 256 MB. At most the 100 000 most recently closed tickets are among the features (those without closed_at first), and none whose texts are very long (over 1 300 bytes among 100 000 features, 11 300 among 20 000); the summary counts them all. For the others ask by cluster, region or team.

Rights: runs as its owner, so EXECUTE is all that a caller needs (and USAGE on schema reporting). Errors: none of its own. Read-only, also on a streaming replica.';

CREATE FUNCTION reporting.fn_tickets_for_map_json(p_open_only boolean DEFAULT true, p_cluster text DEFAULT NULL::text, p_region text DEFAULT NULL::text, p_team text DEFAULT NULL::text) RETURNS json
    LANGUAGE plpgsql STABLE SECURITY DEFINER PARALLEL SAFE
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET plan_cache_mode TO 'force_custom_plan'
    SET jit TO 'off'
    AS $$
begin
  return (select to_json(collection) from tickets.map_collection(p_open_only, p_cluster, p_region, p_team) as collection);
end
$$;

COMMENT ON FUNCTION reporting.fn_tickets_for_map_json(p_open_only boolean, p_cluster text, p_region text, p_team text) IS 'The document of reporting.fn_tickets_for_map(), with its arguments, limits, rights and errors, as json: for callers that pass the text on without looking into it. Measured at 20 000 features: half of the time until the text is there. Read-only, also on a streaming replica.';

CREATE FUNCTION reporting.fn_tickets_version() RETURNS text
    LANGUAGE sql STABLE SECURITY DEFINER PARALLEL SAFE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
  select coalesce(to_hex(bit_xor(token)), '0') from tickets.version_slots
$$;

COMMENT ON FUNCTION reporting.fn_tickets_version() IS 'The version of what the map functions show, up to 16 hexadecimal digits without an order: another one once a batch of a load, a change in a gazetteer or in tickets.sla_rules was committed, and only then (a load that found every ticket unchanged is none). Ages, SLA states and `freshness` also change with time: for an ETag add the minute.

Read it before the document, on the same server, or in the same statement: read after it, it may be the version of a newer document than the one at hand, which would then be kept for good.

Rights: runs as its owner, so EXECUTE is all that a caller needs (and USAGE on schema reporting). Errors: none of its own. Read-only, also on a streaming replica.';

CREATE FUNCTION tickets.places(p_state text, p_from timestamp with time zone, p_to timestamp with time zone, p_cluster text, p_region text, p_team text, p_box public.geography, p_listed integer) RETURNS TABLE(id text, longitude double precision, latitude double precision, cluster text, location_key text, location_name text, geo_source text, tickets bigint, open bigint, breached bigint, at_risk bigint, oldest_hours numeric, closed bigint, mttr_median double precision, ticket_ids text[], more bigint)
    LANGUAGE plpgsql STABLE PARALLEL SAFE
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET plan_cache_mode TO 'force_custom_plan'
    SET jit TO 'off'
    SET work_mem TO '32MB'
    AS $$
#variable_conflict use_column
begin
  if p_state is null or p_state not in ('open', 'closed', 'all') then
    raise exception 'p_state is %, not open, closed or all', coalesce(quote_literal(p_state), 'NULL')
      using errcode = 'invalid_parameter_value';
  end if;
  perform tickets.check_window(p_from, p_to);
  -- Where first and last name of a coordinate are equal, all its tickets have that name. Compared byte by byte: in the order of
  -- a language this would take longer than reading the tickets.
  return query
    with open_tickets as (
      -- Two branches, for two indexes. Their columns stand twice: over a union of tickets Postgres knows nothing of their regions, and looks
      -- the rule of the SLA up for each ticket, not for each region (half as long again).
      select
        t.longitude, t.latitude, t.cluster, t.ticket_id, t.location_key, t.location_name, t.geo_source,
        sla.sla_clock_start, sla.sla_state, sla.at_risk
      from tickets.filtered_tickets(case when p_state <> 'closed' then true end, true, p_cluster, p_region, p_team) t
      cross join lateral tickets.sla(t.region, t.created_at_service, t.first_seen_at) as sla
      where p_state = 'closed' or (
        tickets.has_short_names(t.ticket_id, t.cluster, t.region, t.location_key, t.location_name)
        and (p_box is null or tickets.lies_between(t.longitude, t.latitude, p_box)) -- index inc_open_places
      )
      union all
      select
        t.longitude, t.latitude, t.cluster, t.ticket_id, t.location_key, t.location_name, t.geo_source,
        sla.sla_clock_start, sla.sla_state, sla.at_risk
      from tickets.filtered_tickets(case when p_state <> 'closed' then true end, true, p_cluster, p_region, p_team) t
      cross join lateral tickets.sla(t.region, t.created_at_service, t.first_seen_at) as sla
      where p_state = 'closed' or (
        not tickets.has_short_names(t.ticket_id, t.cluster, t.region, t.location_key, t.location_name) -- index inc_open_long_names
        and (p_box is null or tickets.lies_between(t.longitude, t.latitude, p_box))
      )
    ),
    open_clusters as (
      select
        longitude, latitude, cluster,
        min(location_key collate "C") as first_key, max(location_key collate "C") as last_key,
        min(location_name collate "C") as location_name, min(geo_source collate "C") as geo_source,
        count(*) as open,
        count(*) filter (where sla_state = 'breached') as breached,
        count(*) filter (where at_risk) as at_risk,
        min(sla_clock_start) as oldest,
        array_agg(ticket_id) as ticket_ids, array_agg(sla_clock_start) as clocks
      from open_tickets
      group by longitude, latitude, cluster
    ),
    open_places as (
      select
        longitude, latitude,
        min(cluster collate "C") as cluster,
        min(tickets.cluster_key(cluster) collate "C") as first_cluster, max(tickets.cluster_key(cluster) collate "C") as last_cluster,
        min(first_key) as first_key, max(last_key) as last_key, min(location_name) as location_name, min(geo_source) as geo_source,
        sum(open)::bigint as open, sum(breached)::bigint as breached, sum(at_risk)::bigint as at_risk, min(oldest) as oldest,
        tickets.concat(ticket_ids) as ticket_ids, tickets.concat(clocks) as clocks
      from open_clusters
      group by longitude, latitude
    ),
    closed_tickets as not materialized (
      select *
      from tickets.filtered_tickets(case when p_state <> 'open' then false end, true, p_cluster, p_region, p_team)
      -- Nothing is left of it where no closed tickets are asked for: see filtered_tickets.
      where p_state = 'open' or (
        (p_from is null or closed_at >= p_from) and (p_to is null or closed_at < p_to) -- index inc_closed_at
        and (p_box is null or tickets.may_lie_in(geog, p_box)) -- index inc_geog
      )
    ),
    closed_clusters as (
      select
        longitude, latitude, cluster,
        min(location_key collate "C") as first_key, max(location_key collate "C") as last_key,
        min(location_name collate "C") as location_name, min(geo_source collate "C") as geo_source,
        count(*) as closed,
        -- Whole minutes; 1e9 are 1 900 years, and no number that somebody typed may make the map fail.
        tickets.collect(mttr::integer) filter (where mttr between -1e9 and 1e9) as mttrs,
        tickets.collect(ticket_id) filter (where closed_at is null) as undated_ids
      from closed_tickets
      group by longitude, latitude, cluster
    ),
    closed_places as (
      select
        longitude, latitude,
        min(cluster collate "C") as cluster,
        min(tickets.cluster_key(cluster) collate "C") as first_cluster, max(tickets.cluster_key(cluster) collate "C") as last_cluster,
        min(first_key) as first_key, max(last_key) as last_key, min(location_name) as location_name, min(geo_source) as geo_source,
        sum(closed)::bigint as closed, tickets.concat(mttrs) as mttrs, tickets.concat(undated_ids) as undated_ids
      from closed_clusters
      group by longitude, latitude
    ),
    last_closed as (
      select longitude, latitude, (array_agg(ticket_id order by closed_at desc, ticket_id collate "C"))[:20] as ticket_ids
      from (
        select longitude, latitude, ticket_id, closed_at
        from closed_tickets
        where p_state = 'open' or closed_at is not null -- index inc_closed_at, backwards, without the open tickets at its end
        order by closed_at desc
        limit p_listed
      ) as t
      group by longitude, latitude
    )
    select
      case
        when p.geo_source = 'location' and one_cluster and one_key then coalesce(g.cluster, p.cluster) || '/' || p.location_key
        else tickets.geohash(longitude, latitude)
      end,
      longitude, latitude,
      case when one_cluster then coalesce(g.cluster, p.cluster) end,
      case when one_key then p.location_key end,
      case when one_key then least(o.location_name, c.location_name) end,
      p.geo_source, p.tickets,
      coalesce(o.open, 0), coalesce(o.breached, 0), coalesce(o.at_risk, 0), oldest.hours_open,
      coalesce(c.closed, 0),
      -- Of however few: no figure to compare places by, but what the tickets of this one took, told beside their number.
      case when c.closed > 0 then
        (select percentile_cont(0.5) within group (order by mttr) from (select unnest(c.mttrs) as mttr) as repaired)
      end,
      p.ticket_ids, p.tickets - cardinality(p.ticket_ids)
    from open_places o
    full join closed_places c using (longitude, latitude)
    left join last_closed l using (longitude, latitude)
    cross join lateral (
      select
        least(o.cluster, c.cluster) as cluster,
        least(o.first_cluster, c.first_cluster) as cluster_key,
        least(o.first_key, c.first_key) as location_key,
        least(o.geo_source, c.geo_source) as geo_source,
        coalesce(o.open, 0) + coalesce(c.closed, 0) as tickets,
        (
          -- Sorted only where there is a choice: an order everywhere takes as long as reading the tickets.
          case
            when o.open > 20 then array(
              select ticket_id from unnest(o.ticket_ids, o.clocks) as t (ticket_id, clock)
              order by clock, ticket_id collate "C" limit 20
            )
            else coalesce(o.ticket_ids, '{}')
          end
          || coalesce(l.ticket_ids, '{}') || coalesce(c.undated_ids, '{}')
        )[:20] as ticket_ids
      offset 0 -- made once, not wherever it is named
    ) as p
    left join tickets.geo_clusters g on tickets.cluster_key(g.cluster) = p.cluster_key
    cross join lateral tickets.sla(null, o.oldest, null) as oldest -- hours are worked out by place, not by ticket
    cross join lateral (
      select
        p.cluster_key = greatest(o.last_cluster, c.last_cluster) as one_cluster,
        p.location_key = greatest(o.last_key, c.last_key) as one_key
    ) as same;
end
$$;

COMMENT ON FUNCTION tickets.places(p_state text, p_from timestamp with time zone, p_to timestamp with time zone, p_cluster text, p_region text, p_team text, p_box public.geography, p_listed integer) IS 'The places of reporting.fn_ticket_places(), a row each, with its arguments and errors; p_box: only those in the box around it (and maybe some near it), NULL means all; p_listed: how many of the last closed tickets are looked at for ticket_ids. Reads as its caller.';

CREATE FUNCTION reporting.ticket_places_mvt(z integer, x integer, y integer, query json DEFAULT '{}'::json) RETURNS bytea
    LANGUAGE sql STABLE SECURITY DEFINER PARALLEL SAFE
    SET search_path TO 'pg_catalog', 'pg_temp'
    BEGIN ATOMIC
 SELECT COALESCE(public.st_asmvt(tile.*, 'reporting.ticket_places_mvt'::text, 4096, 'geom'::text), '\x'::bytea) AS "coalesce"
    FROM ( SELECT public.st_asmvtgeom(public.st_transform(public.st_setsrid(public.st_makepoint(p.longitude, p.latitude), 4326), 3857), (t.bounds)::public.box2d, 4096, 64) AS geom,
             p.id,
             p.cluster,
             p.location_key,
             p.location_name,
             p.geo_source,
             p.tickets,
             p.open,
             p.breached,
             p.at_risk,
             (p.oldest_hours)::double precision AS oldest_hours,
             p.closed,
             p.mttr_median
            FROM (( SELECT public.st_tileenvelope(ticket_places_mvt.z, ticket_places_mvt.x, ticket_places_mvt.y) AS bounds
                  OFFSET 0) t
              CROSS JOIN LATERAL tickets.places(COALESCE(NULLIF((ticket_places_mvt.query ->> 'state'::text), ''::text), 'open'::text), (NULLIF((ticket_places_mvt.query ->> 'from'::text), ''::text))::timestamp with time zone, (NULLIF((ticket_places_mvt.query ->> 'to'::text), ''::text))::timestamp with time zone, NULLIF((ticket_places_mvt.query ->> 'cluster'::text), ''::text), NULLIF((ticket_places_mvt.query ->> 'region'::text), ''::text), NULLIF((ticket_places_mvt.query ->> 'team'::text), ''::text),
                 CASE
                     WHEN (ticket_places_mvt.z >= 6) THEN (public.st_transform(public.st_tileenvelope(ticket_places_mvt.z, ticket_places_mvt.x, ticket_places_mvt.y, margin => (((64)::numeric / 4096.0))::double precision), 4326))::public.geography
                     ELSE NULL::public.geography
                 END, 0) p(id, longitude, latitude, cluster, location_key, location_name, geo_source, tickets, open, breached, at_risk, oldest_hours, closed, mttr_median, ticket_ids, more))
           WHERE ((p.latitude >= ('-85.06'::numeric)::double precision) AND (p.latitude <= (85.06)::double precision))) tile
   WHERE (tile.geom IS NOT NULL);
END;

COMMENT ON FUNCTION reporting.ticket_places_mvt(z integer, x integer, y integer, query json) IS 'The places of reporting.fn_ticket_places() as a Mapbox vector tile: one layer with the name of this function (reporting.ticket_places_mvt, as pg_tileserv announces it), extent 4096, with a buffer of 64, so a place near an edge is in the neighbour, too. Properties as there, without ticket_ids and more.

Arguments: z, x, y: the tile, XYZ numbering in Web Mercator. query: an object with any of state, from, to, cluster, region and team, as p_state, p_from, … there; other keys are ignored, an empty text is none.

Limit: below zoom 6 every ticket of the state is read, so a tile takes as long as fn_ticket_places() does: with closed tickets much longer than with open ones.

Rights: runs as its owner, so EXECUTE is all that a caller needs (and USAGE on schema reporting). Errors: 22023 for another state and a from after to, 22007 for a from or to that is no time, XX000 for a tile that does not exist. Read-only, also on a streaming replica.';

CREATE FUNCTION tickets.age_bucket(p_hours_open numeric) RETURNS integer
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN width_bucket(p_hours_open, ARRAY[(4)::numeric, (24)::numeric, (48)::numeric, (168)::numeric, (720)::numeric]);

COMMENT ON FUNCTION tickets.age_bucket(p_hours_open numeric) IS 'The age of an open ticket, from its hours: 0 under 4 h (or negative), 1 under 24 h, 2 under 48 h, 3 under 7 days, 4 under 30 days, 5 older. NULL without a clock. tickets.inc_daily keeps 0 and 1 as one.';

CREATE TABLE tickets.assignments (
    assignment_id bigint NOT NULL,
    ticket_id text NOT NULL,
    vehicle_id text NOT NULL,
    "position" integer NOT NULL,
    state text DEFAULT 'assigned'::text NOT NULL,
    assigned_at timestamp with time zone DEFAULT now() NOT NULL,
    assigned_by text DEFAULT SESSION_USER NOT NULL,
    metres double precision,
    ended_at timestamp with time zone,
    end_reason text,
    CONSTRAINT assignments_end_together CHECK ((((state = 'assigned'::text) = (ended_at IS NULL)) AND ((ended_at IS NULL) = (end_reason IS NULL)))),
    CONSTRAINT assignments_metres_check CHECK ((metres >= (0)::double precision)),
    CONSTRAINT assignments_position_check CHECK (("position" > 0)),
    CONSTRAINT assignments_state_check CHECK ((state = ANY (ARRAY['assigned'::text, 'done'::text, 'released'::text])))
);

COMMENT ON TABLE tickets.assignments IS 'Which vehicle was sent to which ticket: one row each time, kept. Written by tickets.assign, assign_plan and release, and by the load that closes the ticket. It refers to tickets.inc without a foreign key, which every load would pay for.';

COMMENT ON COLUMN tickets.assignments.assignment_id IS 'Order of assigning.';

COMMENT ON COLUMN tickets.assignments.ticket_id IS 'tickets.inc.ticket_id. One vehicle at a time.';

COMMENT ON COLUMN tickets.assignments.vehicle_id IS 'tickets.vehicles.vehicle_id, which that view may no longer list.';

COMMENT ON COLUMN tickets.assignments."position" IS 'The vehicle''s first, second … ticket, each once. Gaps mean nothing.';

COMMENT ON COLUMN tickets.assignments.state IS 'assigned: on its way. done: a load closed the ticket. released: taken back. A ticket that is opened again starts unassigned.';

COMMENT ON COLUMN tickets.assignments.assigned_at IS 'When the vehicle was sent.';

COMMENT ON COLUMN tickets.assignments.assigned_by IS 'The role with which the dispatcher logged in to the database.';

COMMENT ON COLUMN tickets.assignments.metres IS 'Straight line at that time, from the vehicle or, in a plan, from its ticket before. NULL: one of the places was unknown.';

COMMENT ON COLUMN tickets.assignments.ended_at IS 'When it was done or released.';

COMMENT ON COLUMN tickets.assignments.end_reason IS 'closed in snapshot N, or why it was released.';

CREATE FUNCTION tickets.assign(p_ticket_id text, p_vehicle_id text, p_take_over boolean DEFAULT false) RETURNS tickets.assignments
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
declare
  v_metres double precision;
begin
  select tickets.metres(v.geog, t.geog) into v_metres
  from tickets.vehicles_now v left join tickets.inc_open_sla t on t.ticket_id = p_ticket_id
  where v.vehicle_id = p_vehicle_id;
  if not found then
    raise exception 'There is no vehicle % in tickets.vehicles.', p_vehicle_id using errcode = 'no_data_found';
  end if;
  return tickets_ops.take_ticket(p_ticket_id, p_vehicle_id, null, v_metres, coalesce(p_take_over, false));
end
$$;

COMMENT ON FUNCTION tickets.assign(p_ticket_id text, p_vehicle_id text, p_take_over boolean) IS 'Sends a vehicle to an open ticket: select * from tickets.assign(''WOT0715527'', ''KDA 123A''). Returns the assignment; one that the vehicle has already is returned as it is. p_take_over: takes the ticket from the vehicle that has it. Errors: there is no such open ticket or vehicle; another vehicle has the ticket (the message says which, and who sent it); others keep the ticket locked for ten seconds.';

CREATE FUNCTION tickets.assign_plan(p_capacity integer DEFAULT 1, p_radius_km double precision DEFAULT NULL::double precision, p_region text DEFAULT NULL::text, p_cluster text DEFAULT NULL::text, p_same_team boolean DEFAULT false, p_tickets text[] DEFAULT NULL::text[], p_vehicles text[] DEFAULT NULL::text[], p_stale boolean DEFAULT false) RETURNS SETOF tickets.planned_ticket
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
declare
  v_plan tickets.planned_ticket[];
  v_reason text;
begin
  perform tickets_ops.claim_dispatch();
  select array_agg(p order by p.ticket_id, p.position) into v_plan
  from tickets.dispatch_plan(p_capacity, p_radius_km, p_region, p_cluster, p_same_team, p_tickets, p_vehicles, p_stale) p;
  -- In the order of the tickets, as a load locks them.
  for i in 1..coalesce(cardinality(v_plan), 0) loop
    continue when v_plan[i].vehicle_id is null;
    begin
      perform tickets_ops.take_ticket(v_plan[i].ticket_id, v_plan[i].vehicle_id, v_plan[i].position, v_plan[i].metres, false);
    exception when object_in_use or no_data_found then
      get stacked diagnostics v_reason = message_text;
      v_plan[i].vehicle_id := null;
      v_plan[i].position := null;
      v_plan[i].metres := null;
      v_plan[i].cost_km := null;
      v_plan[i].freshness := null;
      v_plan[i].note := v_reason;
    end;
  end loop;
  return query select * from unnest(v_plan) as p order by p.vehicle_id nulls last, p.position, p.ticket_id;
end
$$;

COMMENT ON FUNCTION tickets.assign_plan(p_capacity integer, p_radius_km double precision, p_region text, p_cluster text, p_same_team boolean, p_tickets text[], p_vehicles text[], p_stale boolean) IS 'Makes tickets.dispatch_plan and assigns it, in one transaction; arguments and rows as there. A ticket that somebody else assigned, or a load closed, meanwhile is left out, and its note says so. Plans that are carried out at the same time take turns, so that none fills a vehicle beyond p_capacity.';

CREATE FUNCTION tickets.baseline_was_open(p_next_event text, p_is_open_now boolean) RETURNS boolean
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN CASE p_next_event WHEN 'closed'::text THEN true WHEN 'reopened'::text THEN false ELSE COALESCE(p_is_open_now, false) END;

COMMENT ON FUNCTION tickets.baseline_was_open(p_next_event text, p_is_open_now boolean) IS 'Whether a ticket was open when history began, of which its baseline says nothing: the next event of its lifecycle closes what was open and reopens what was not; where there is none, the ticket is still what it was.';

CREATE FUNCTION tickets.bytes_of_names(ticket_id text, cluster text, region text, location_key text, location_name text) RETURNS integer
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN ((((octet_length(ticket_id) + COALESCE(octet_length(cluster), 0)) + COALESCE(octet_length(region), 0)) + COALESCE(octet_length(location_key), 0)) + COALESCE(octet_length(location_name), 0));

COMMENT ON FUNCTION tickets.bytes_of_names(ticket_id text, cluster text, region text, location_key text, location_name text) IS 'Bytes of the texts by which tickets.places() counts a ticket.';

CREATE FUNCTION tickets.eat_ts(value text) RETURNS timestamp with time zone
    LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE
    AS $_$
declare
  head text := value;   -- to the second
  tail text := '';      -- fraction and zone
  rest text;
  fraction double precision := 0;
  n bigint;
  day integer;
  month integer;
  year integer;
  wall timestamp;
begin
  if value = '' then
    return null;
  end if;
  if not (head like '____-__-__ __:__:__' or head like '____-__-__T__:__:__') then
    if length(value) > 64 then
      return null;
    end if;
    value := btrim(value, E' \t\r\n');
    if value like '____-__-__' then
      head := value || ' 00:00:00';
    elsif not (value like '____-__-__ __:__%' or value like '____-__-__T__:__%') then
      return null;
    elsif substr(value, 17, 1) = ':' then
      head := left(value, 19);
      tail := substr(value, 20);
      if left(tail, 1) = '.' then
        rest := ltrim(substr(tail, 2), '0123456789');
        tail := left(tail, length(tail) - length(rest));
        if length(tail) not between 2 and 7 then
          return null;
        end if;
        fraction := tail::double precision;
        tail := rest;
      end if;
    else
      head := left(value, 16) || ':00';
      tail := substr(value, 17);
    end if;
    if tail <> '' and tail collate "C" !~ '^ ?(?:Z|[+-][0-9][0-9](?::?[0-9][0-9])?)$' then
      return null;
    end if;
  end if;

  head := translate(head, '- T:', '');
  if length(head) <> 14 or head collate "C" ~ '[^0-9]' then
    return null;
  end if;
  n := head::bigint;
  -- Both sides bigint, here and below: `bigint % integer` is found only by a cast, and an operator of others that needs none would win.
  year := n / 10000000000;
  month := n / 100000000 % 100::bigint;
  day := n / 1000000 % 100::bigint;
  -- make_timestamp raises on a day that does not exist, and takes 24:00 and :60, which are none.
  if year not between 1900 and 2100 or month not between 1 and 12 or day not between 1 and 31
    or n / 10000 % 100::bigint > 23 or n / 100 % 100::bigint > 59 or n % 100::bigint > 59
    or (day > 30 and month in (4, 6, 9, 11))
    or (day > 28 and month = 2 and (day > 29 or year % 4 <> 0 or year in (1900, 2100)))
  then
    return null;
  end if;
  wall := make_timestamp(
    year, month, day, (n / 10000 % 100::bigint)::integer, (n / 100 % 100::bigint)::integer, (n % 100::bigint)::double precision + fraction
  );
  if tail = '' then
    return wall at time zone 'Africa/Nairobi';
  end if;

  tail := rpad(translate(tail, 'Z: ', '+'), 5, '0');
  if substr(tail, 2, 2) > '15' or substr(tail, 4, 2) > '59' then
    return null;
  end if;
  -- `timestamptz - interval` is only stable: the offset comes off the wall time.
  return (wall - make_interval(mins => (left(tail, 1) || '1')::integer * (substr(tail, 2, 2)::integer * 60 + substr(tail, 4, 2)::integer)))
    at time zone 'UTC';
end
$_$;

COMMENT ON FUNCTION tickets.eat_ts(value text) IS 'A time of the feed: `YYYY-MM-DD[ T]HH:MM[:SS[.ffffff]]` or a bare date, blanks around it allowed, read as Africa/Nairobi unless it ends in Z or an offset (+03, +0300, +03:00, up to 15:59). NULL for anything else: a day or hour that does not exist (month 13, 30 February, 24:00, second 60), and years outside 1900 to 2100, which are markers (0001, 9999), not times.';

CREATE FUNCTION tickets.hours_to_minutes(value text) RETURNS numeric
    LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE
    AS $_$
begin
  if value = '' then
    return null;
  end if;
  value := btrim(value, E' \t\r\n');
  if length(value) > 40 or value collate "C" !~ '^[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)$' then
    return null;
  end if;
  return round(value::numeric * 60::numeric);
end
$_$;

COMMENT ON FUNCTION tickets.hours_to_minutes(value text) IS 'Decimal hours as whole minutes (halves away from zero). Plain decimals with an optional sign, at most 40 characters; NULL for anything else (NaN, inf, 1e3, 1,5). Numeric, so that no number of hours overflows and `mttr / 60` is not cut.';

CREATE FUNCTION tickets.is_lng_lat(place public.geometry) RETURNS boolean
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN CASE WHEN (place IS NULL) THEN true WHEN ((public.geometrytype(place) <> 'POINT'::text) OR public.st_isempty(place)) THEN false ELSE (((public.st_x(place) >= ('-180'::integer)::double precision) AND (public.st_x(place) <= (180)::double precision)) AND ((public.st_y(place) >= ('-90'::integer)::double precision) AND (public.st_y(place) <= (90)::double precision))) END;

COMMENT ON FUNCTION tickets.is_lng_lat(place public.geometry) IS 'For CHECK constraints: NULL, or a point with a longitude in -180 to 180 and a latitude in -90 to 90. The geography type would wrap others silently (200,95 becomes -160,85) and store NaN.';

CREATE FUNCTION tickets.location_walk(name text) RETURNS text
    LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE
    AS $_$
declare
  mixed constant boolean := name collate "C" ~ '[0-9][^0-9 _]';  -- a digit stands before something else within a word
  kept text := '';
  last text := '';         -- the last word kept
  seen text := '';         -- the words of names, bound and as they were typed
  expects text := '';      -- what the words before make of the next: tickets.location_expects()
  limits text;             -- which numbers a `kept` word takes, a regular expression; empty: any
  from_at integer;         -- length of `kept` before the words that go with a number to come
  soft_at integer;         -- length of `kept` before the segments of nothing but soft codes that end at soft_end
  soft_end integer;
  gap boolean := false;    -- something went since the last word kept
  again boolean := false;  -- something went between two words kept
  token text;
  binding text := ' ';     -- what binds it to the word before
  word text;               -- in lower case, without its number
  stem text;               -- without the digits at its end
  rule text;
  kind text;               -- the first word of the rule; empty: a number
  number text;             -- the number that the token is or ends with
  added text;              -- what the token adds to `kept`; NULL: it goes
  cut integer;             -- the length that `kept` loses words down to
begin
  foreach token in array tickets.location_tokens(name) loop
    continue when token = '';
    if strpos('_-''=', left(token, 1)) > 0 then
      if binding = ' ' or left(token, 1) = '_' then
        binding := case when gap and left(token, 1) <> '_' then ' ' else left(token, 1) end;
      end if;
      token := substr(token, 2);
      continue when token = '';
    end if;

    -- The short way: most words are a code, a number after one, or a plain word.
    word := lower(token collate "C");
    stem := rtrim(word, '0123456789');
    rule := tickets.location_vocabulary() ->> stem;
    if rule = 'code' or (stem = '' and expects = 'numbers') then
      expects := 'numbers';
      gap := kept <> '';
      continue;
    elsif rule is null and length(stem) > 2 and expects <> 'kept' and stem = word and strpos(kept, word) = 0
      and (not mixed or word collate "C" !~ '[0-9]')
    then
      added := word;
      expects := '';
      seen := seen || binding || token;
    else
      -- The long way: classify, by the vocabulary, or with a number in it by tickets.location_rule().
      number := null;
      cut := null;
      if stem = '' or binding = '=' then
        rule := '';
        number := word;
      elsif rule is null or stem <> word then
        rule := tickets.location_rule(word, expects);
        number := nullif(split_part(rule, '#', 2), '');
        rule := split_part(rule, '#', 1);
        word := left(word, length(word) - coalesce(length(number), 0));
      end if;
      kind := split_part(rule, ' ', 1);
      added := tickets.location_adds(kind, rule, word, expects);

      -- A word of a name stays, unless it says again what is there already.
      if kind in ('plain', 'kept', 'city', 'word') then
        if word = 'buru' and last = 'buru' then
          kept := left(kept, -5);
          added := 'buruburu';
        elsif tickets.location_repeats(kind, word, token, added, last, seen, binding, gap) then
          added := null;
        end if;
        seen := seen || binding || token;
        if kind = 'city' and last = 'st' and length(kept) > 3 then
          kept := kept || 'reet';
        end if;
        expects := tickets.location_expects(kind, false);
        limits := split_part(rule, ' ', 3);
      -- Another may take words before it away, or go with all since from_at once its number comes.
      elsif kind <> '' then
        if kind = 'no' and expects in ('premise', 'numbered') then
          cut := from_at;
        elsif tickets.location_takes(kind, word, last) then
          cut := length(kept) - length(last) - 1;
        end if;
        expects := tickets.location_expects(kind, cut is not null);
        if expects in ('premise', 'numbered') then
          from_at := length(kept);
          if kind = 'soft' then
            if soft_at is null or soft_end <> from_at then
              soft_at := case when binding = '_' or kept = '' then from_at end;
            end if;
            soft_end := from_at + 1 + length(added);
          end if;
          if number is not null then
            binding := ' ';
          end if;
        end if;
      end if;

      -- A number goes, alone or with the words since from_at, or is a word of the name.
      if number is not null and expects in ('premise', 'numbered', 'numbers', 'id') then
        if expects in ('premise', 'numbered') then
          cut := from_at;
        end if;
        expects := 'numbers';
      elsif number is not null then
        if added is not null then
          kept := kept || binding || added;
          binding := ' ';
        end if;
        if expects = 'kept' and (limits = '' or number collate "C" ~ ('^' || limits || '$')) then
          binding := '=';
        elsif binding = '=' then
          binding := ' ';
        end if;
        added := number;
        expects := '';
      end if;

      if cut is not null then
        kept := left(kept, cut);
        soft_end := least(soft_end, cut);
        last := '';
        added := null;
      end if;
    end if;

    -- Render.
    if added is not null then
      kept := kept || binding || added;
      last := added;
      binding := ' ';
      if gap then
        again := true;
        gap := false;
      end if;
    else
      gap := kept <> '';
      if binding <> '_' then
        binding := ' ';
      end if;
    end if;
  end loop;

  -- The end of the name: soft codes, bare numbers and what is too long go, and St is a street.
  if soft_end = length(kept) and soft_at is not null then
    kept := left(kept, soft_at);
  end if;
  if right(kept, 1) collate "C" between '0' and '9' then
    kept := regexp_replace(kept collate "C", '(?:[ _''-][0-9]+)+$', '');
  end if;
  if length(kept) > 201 then
    kept := regexp_replace(left(kept, 201) collate "C", '[- _''=][^- _''=]*$', '');
    again := true;
  end if;
  if right(kept, 2) = 'st' and kept collate "C" ~ '.[- _'']st$' then
    kept := kept || 'reet';
  end if;
  if again then
    return tickets.location_walk(replace(replace(replace(kept, '-', ' -'), '''', ' '''), '=', ' ='));
  end if;
  return case when octet_length(kept) = length(kept) then kept else normalize(kept, NFC) end;
end
$_$;

COMMENT ON FUNCTION tickets.location_walk(name text) IS 'The place in what tickets.plain_name() gives, as tickets.location_words() has it.';

CREATE FUNCTION tickets.plain_name(name text) RETURNS text
    LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE
    AS $_$
begin
  if octet_length(name) <> length(name) then
    -- Zero-width: soft hyphen, joiners, direction marks, variation selectors, tags, the keycap's frame. Nothing stands there.
    -- A character that asks for its emoji form (U+FE0F) is one, whatever it is (ℹ, ™, Ⓜ); a keycap's digit is a digit.
    name := regexp_replace(name collate "C", '[^0-9A-Za-z\s#*]\uFE0F', ' ', 'g');
    name := regexp_replace(
      name collate "C",
      '[\u00AD\u034F\u061C\u115F\u1160\u17B4\u17B5\u180B-\u180F\u200B-\u200F\u202A-\u202E\u2060-\u206F\u20D0-\u20FF\u3164\uFE00-\uFE0F\uFEFF\uFFA0\U000E0000-\U000E0FFF]+',
      '', 'g'
    );
    name := replace(name, '´', '''');  -- NFKD would make it a blank and an accent
    -- Emoji, before NFKD, which spells some out; squared Latin letters are left to it. Also letter-like symbols that only
    -- some of Postgres 15 (Unicode 14) to 18 (Unicode 16) can take apart.
    name := regexp_replace(
      name collate "C",
      '[\u2600-\u27BF\u2B00-\u2BFF\U0001CC00-\U0001CEFF\U0001E030-\U0001E08F\U0001F000-\U0001F10F\U0001F150-\U0001FAFF]+',
      ' ', 'g'
    );
    -- Compatibility forms, taken apart: a letter and its accent are two characters here, so the case of É is that of E.
    name := normalize(left(name, 500), NFKD);
    -- Typographic apostrophes and hyphens.
    name := translate(name, '’‘‛ʼ′‐‑‒–−', '''''''''''-----');
    -- Punctuation, symbols, private use, blanks, U+FFFD. Letters, marks and digits of every script stay.
    name := regexp_replace(
      left(name, 500) collate "C",
      '[\u0080-\u00BF\u00D7\u00F7\u02C2-\u02DF\u1680\u2000-\u206F\u20A0-\u2BFF\u2E00-\u2E7F\u3000-\u3004\u3008-\u3020\u3030\u30FB\uE000-\uF8FF\uFE10-\uFE1F\uFE30-\uFE6F\uFFF0-\uFFFF\U000F0000-\U0010FFFF]+',
      ' ', 'g'
    );
  end if;
  name := replace(replace(name, '#', ' no '), '`', '''');
  name := regexp_replace(name collate "C", '[^-_''0-9A-Za-z\u0080-\U0010FFFF]+', ' ', 'g');
  if strpos(name, '-') = 0 and strpos(name, '''') = 0 then
    return name;
  end if;
  -- A hyphen or apostrophe binds what stands on both its sides; at the edge of a word it is punctuation.
  name := regexp_replace(name collate "C", '(^|[ _])[-'']+', '\1 ', 'g');
  name := regexp_replace(name collate "C", '[-'']+($|[ _])', ' \1', 'g');
  return replace(replace(name, '-', ' -'), '''', ' ''');
end
$_$;

COMMENT ON FUNCTION tickets.plain_name(name text) IS 'A location name with nothing in it but letters, digits, blanks, `_`, and `-` and `''` within words: compatibility forms resolved (NFKD), zero-width characters and emoji out, other punctuation a blank. Errors: only if the database is not UTF8.';

CREATE FUNCTION tickets.location_words(location_name text) RETURNS text
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN tickets.location_walk(CASE WHEN ((location_name COLLATE "C") ~ '[^A-Za-z0-9_ ]'::text) THEN tickets.plain_name("left"(location_name, 500)) ELSE "left"(location_name, 500) END);

COMMENT ON FUNCTION tickets.location_words(location_name text) IS 'The place in a location name: lower-case words, each with a character in front of it that binds it to the one before (blank, `_`, `-`, `''`, or `=` before a number that belongs to the name); at most 201 characters, empty where nothing but codes is left, NULL where there is no name. What tickets.location_key() and tickets.location_query() are made from.';

CREATE FUNCTION tickets.location_key(location_name text) RETURNS text
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN NULLIF(translate(substr(tickets.location_words(location_name), 2), '_-''='::text, '    '::text), ''::text);

COMMENT ON FUNCTION tickets.location_key(location_name text) IS 'The place that a location name means, without network codes, sub-premises and punctuation: with the cluster, the key of tickets.geo_locations. Several spellings of one place give one key. Lower case, at most 200 characters (of the name''s first 500); NULL where nothing but codes is left. No text makes it fail.';

CREATE FUNCTION tickets.to_boolean(value text) RETURNS boolean
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN CASE lower((btrim(value, ' 	
'::text) COLLATE "C")) WHEN 'true'::text THEN true WHEN 'false'::text THEN false WHEN 't'::text THEN true WHEN 'f'::text THEN false WHEN 'yes'::text THEN true WHEN 'no'::text THEN false WHEN 'y'::text THEN true WHEN 'n'::text THEN false WHEN '1'::text THEN true WHEN '0'::text THEN false WHEN '1.0'::text THEN true WHEN '0.0'::text THEN false ELSE NULL::boolean END;

COMMENT ON FUNCTION tickets.to_boolean(value text) IS 'true, t, yes, y, 1, 1.0 and false, f, no, n, 0, 0.0, in any case, blanks around them allowed; NULL for anything else.';

CREATE TABLE tickets.inc (
    ticket_id text NOT NULL,
    raw jsonb NOT NULL,
    geom public.geometry(Point,4326),
    geo_source text DEFAULT 'none'::text NOT NULL,
    ingested_at timestamp with time zone DEFAULT now() NOT NULL,
    normalized_status text GENERATED ALWAYS AS (NULLIF((raw ->> 'normalized_status'::text), ''::text)) STORED,
    raw_status text GENERATED ALWAYS AS (NULLIF((raw ->> 'raw_status'::text), ''::text)) STORED,
    bucket text GENERATED ALWAYS AS (NULLIF((raw ->> 'bucket'::text), ''::text)) STORED,
    is_actionable boolean GENERATED ALWAYS AS (tickets.to_boolean((raw ->> 'is_actionable'::text))) STORED,
    cluster text GENERATED ALWAYS AS (NULLIF((raw ->> 'cluster'::text), ''::text)) STORED,
    region text GENERATED ALWAYS AS (NULLIF((raw ->> 'region'::text), ''::text)) STORED,
    location_name text GENERATED ALWAYS AS (NULLIF((raw ->> 'location_name'::text), ''::text)) STORED,
    location_key text GENERATED ALWAYS AS (tickets.location_key((raw ->> 'location_name'::text))) STORED,
    assigned_team text GENERATED ALWAYS AS (NULLIF((raw ->> 'assigned_team'::text), ''::text)) STORED,
    owner text GENERATED ALWAYS AS (NULLIF((raw ->> 'owner'::text), ''::text)) STORED,
    sla_status text GENERATED ALWAYS AS (NULLIF((raw ->> 'sla_status'::text), ''::text)) STORED,
    mttr numeric GENERATED ALWAYS AS (tickets.hours_to_minutes((raw ->> 'mttr'::text))) STORED,
    created_at_service timestamp with time zone GENERATED ALWAYS AS (tickets.eat_ts((raw ->> 'created_at_service'::text))) STORED,
    scheduled_at timestamp with time zone GENERATED ALWAYS AS (tickets.eat_ts((raw ->> 'scheduled_at'::text))) STORED,
    closed_at timestamp with time zone GENERATED ALWAYS AS (tickets.eat_ts((raw ->> 'closed_at'::text))) STORED,
    first_seen_at timestamp with time zone GENERATED ALWAYS AS (tickets.eat_ts((raw ->> 'first_seen_at'::text))) STORED,
    last_seen_at timestamp with time zone GENERATED ALWAYS AS (tickets.eat_ts((raw ->> 'last_seen_at'::text))) STORED,
    source_created_at timestamp with time zone GENERATED ALWAYS AS (tickets.eat_ts((raw ->> 'source_created_at'::text))) STORED,
    source_updated_at timestamp with time zone GENERATED ALWAYS AS (tickets.eat_ts((raw ->> 'source_updated_at'::text))) STORED,
    latitude double precision GENERATED ALWAYS AS (public.st_y(geom)) STORED,
    longitude double precision GENERATED ALWAYS AS (public.st_x(geom)) STORED,
    geog public.geography(Point,4326) GENERATED ALWAYS AS ((geom)::public.geography) STORED,
    CONSTRAINT inc_geo_source_check CHECK ((geo_source = ANY (ARRAY['feed'::text, 'location'::text, 'cluster'::text, 'none'::text]))),
    CONSTRAINT inc_geom_is_lng_lat CHECK (tickets.is_lng_lat(geom)),
    CONSTRAINT inc_placed_by_its_source CHECK (((geom IS NULL) = (geo_source = 'none'::text))),
    CONSTRAINT inc_ticket_id_check CHECK (((length(ticket_id) >= 1) AND (length(ticket_id) <= 200)))
)
WITH (fillfactor='80');

COMMENT ON TABLE tickets.inc IS 'INC fault tickets, current state: one row per ticket, upserted hourly, never deleted. History is in tickets.inc_events.';

COMMENT ON COLUMN tickets.inc.ticket_id IS 'The ticket''s number, like WOT0715527.';

COMMENT ON COLUMN tickets.inc.raw IS 'The source record as the feed gave it, cleaned: the source of truth for every typed column.';

COMMENT ON COLUMN tickets.inc.geom IS 'Best known place, for display: feed coordinates, else the geocoded location, else the cluster''s centroid. Set by trigger.';

COMMENT ON COLUMN tickets.inc.geo_source IS 'Where geom comes from, which is its precision: feed, location, cluster (a centroid: do not read it as an address) or none.';

COMMENT ON COLUMN tickets.inc.ingested_at IS 'When a snapshot last wrote this row. An unchanged row is not written, so it does not move.';

COMMENT ON COLUMN tickets.inc.normalized_status IS 'The canonical status: filter on this one.';

COMMENT ON COLUMN tickets.inc.raw_status IS 'The source system''s own status, upper case. Filter on normalized_status instead.';

COMMENT ON COLUMN tickets.inc.bucket IS 'Lifecycle flag of the export: closed or pending.';

COMMENT ON COLUMN tickets.inc.is_actionable IS 'Open = true.';

COMMENT ON COLUMN tickets.inc.cluster IS 'Network cluster as the feed wrote it; tickets.cluster_key(cluster) joins it to tickets.geo_clusters.';

COMMENT ON COLUMN tickets.inc.region IS 'Region, lower case.';

COMMENT ON COLUMN tickets.inc.location_name IS 'The place as field staff typed it, network codes included.';

COMMENT ON COLUMN tickets.inc.location_key IS 'tickets.location_key(location_name): with the cluster it names the place in tickets.geo_locations.';

COMMENT ON COLUMN tickets.inc.assigned_team IS 'Team the ticket is assigned to.';

COMMENT ON COLUMN tickets.inc.owner IS 'Owner of the ticket: a dimension of closure attribution.';

COMMENT ON COLUMN tickets.inc.sla_status IS 'Source Compliant/Breached. Means something only once the ticket is closed, and does not match a plain 48 h: for open tickets use tickets.inc_open_sla.';

COMMENT ON COLUMN tickets.inc.mttr IS 'Whole minutes (the source has decimal hours). It is not closed_at - created_at_service. NULL until closed.';

COMMENT ON COLUMN tickets.inc.created_at_service IS 'Lifecycle start. Missing on about 30 % of rows, most of them open.';

COMMENT ON COLUMN tickets.inc.scheduled_at IS 'When the visit is scheduled.';

COMMENT ON COLUMN tickets.inc.closed_at IS 'Lifecycle end.';

COMMENT ON COLUMN tickets.inc.first_seen_at IS 'Bookkeeping of the export, not lifecycle: when the export first saw the ticket.';

COMMENT ON COLUMN tickets.inc.last_seen_at IS 'Bookkeeping of the export, not lifecycle: when the export last saw the ticket.';

COMMENT ON COLUMN tickets.inc.source_created_at IS 'Bookkeeping of the export, not lifecycle.';

COMMENT ON COLUMN tickets.inc.source_updated_at IS 'Bookkeeping of the export, not lifecycle.';

COMMENT ON COLUMN tickets.inc.latitude IS 'ST_Y(geom): never a coordinate that geom refused.';

COMMENT ON COLUMN tickets.inc.longitude IS 'ST_X(geom): never a coordinate that geom refused.';

COMMENT ON COLUMN tickets.inc.geog IS 'geom as geography: distances in metres, for routing and nearest-ticket queries.';

CREATE FUNCTION tickets.bytes_of_texts(p_ticket tickets.inc) RETURNS integer
    LANGUAGE sql STABLE PARALLEL SAFE
    AS $$
  select octet_length(concat(
    p_ticket.ticket_id, p_ticket.normalized_status, p_ticket.raw_status, p_ticket.bucket, p_ticket.cluster, p_ticket.region,
    p_ticket.location_name, p_ticket.location_key, p_ticket.assigned_team, p_ticket.owner, p_ticket.sla_status
  ))
$$;

COMMENT ON FUNCTION tickets.bytes_of_texts(p_ticket tickets.inc) IS 'Bytes of the texts among the properties of a ticket''s feature, by which the map keeps within the 256 MB that jsonb holds.';

CREATE FUNCTION tickets.change_version() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
begin
  if tg_op <> 'TRUNCATE' then
    if not exists (select from written) then
      return null;
    end if;
  end if;
  -- Once in a transaction is enough. The setting goes with it, or with the savepoint that is rolled back together with the token.
  if current_setting('fleettickets.version_changed', true) = 'true' then
    return null;
  end if;
  perform set_config('fleettickets.version_changed', 'true', true);
  update tickets.version_slots
  set token = hashtextextended(gen_random_uuid()::text, 0)
  where slot = (select slot from tickets.version_slots limit 1 for update skip locked);
  if not found then
    insert into tickets.version_slots (token) values (hashtextextended(gen_random_uuid()::text, 0));
  end if;
  return null;
end
$$;

COMMENT ON FUNCTION tickets.change_version() IS 'Trigger after writing what the map functions show: another reporting.fn_tickets_version() with the commit. Not for a statement that wrote no row.';

CREATE FUNCTION tickets.left_backlog(p_event text, p_old_value text) RETURNS boolean
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN ((p_event = 'closed'::text) AND (p_old_value IS NOT NULL));

COMMENT ON FUNCTION tickets.left_backlog(p_event text, p_old_value text) IS 'Whether an event is the closing of a ticket that was open: one that was first seen closed never was in the backlog.';

CREATE FUNCTION tickets.changed_backlog(p_event text, p_old_value text) RETURNS boolean
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN ((p_event = ANY (ARRAY['opened'::text, 'reopened'::text])) OR tickets.left_backlog(p_event, p_old_value));

COMMENT ON FUNCTION tickets.changed_backlog(p_event text, p_old_value text) IS 'Whether a ticket entered or left the backlog by an event. The condition of the index inc_events_backlog.';

CREATE FUNCTION tickets.check_question(p_from date, p_to date, p_step text, p_by text, p_dimensions text[]) RETURNS void
    LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
begin
  if p_from is null or p_to is null or not isfinite(p_from) or not isfinite(p_to) then
    raise exception 'p_from and p_to are the first day and the day after the last: both are needed, and both must be finite.'
      using errcode = 'invalid_parameter_value';
  end if;
  if p_from > p_to then
    raise exception 'p_from (%) is after p_to (%): they are the first day and the day after the last.', p_from, p_to
      using errcode = 'invalid_parameter_value';
  end if;
  if p_to - p_from > 36525 then
    raise exception 'p_from (%) and p_to (%) are more than 100 years apart: ask for less.', p_from, p_to
      using errcode = 'invalid_parameter_value';
  end if;
  if p_step is null or p_step not in ('day', 'week', 'month') then
    raise exception 'p_step is %: choose day, week or month.', coalesce(quote_literal(p_step), 'NULL')
      using errcode = 'invalid_parameter_value';
  end if;
  if p_by <> all (p_dimensions) then
    raise exception 'p_by is %: choose %, or NULL for all together.', quote_literal(p_by), array_to_string(p_dimensions, ', ')
      using errcode = 'invalid_parameter_value';
  end if;
end
$$;

COMMENT ON FUNCTION tickets.check_question(p_from date, p_to date, p_step text, p_by text, p_dimensions text[]) IS 'Raises, with the right words, when a range of days, a step or a dimension makes no sense. For the analytic functions.';

CREATE FUNCTION tickets.check_window(p_from timestamp with time zone, p_to timestamp with time zone) RETURNS void
    LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
begin
  if p_from > p_to then
    raise exception 'p_from (%) is after p_to (%): they are the first moment and the one after the last.', p_from, p_to
      using errcode = 'invalid_parameter_value';
  end if;
end
$$;

COMMENT ON FUNCTION tickets.check_window(p_from timestamp with time zone, p_to timestamp with time zone) IS 'Raises, with the right words, when a window of closing times is reversed. NULL is no bound.';

CREATE FUNCTION tickets.chosen_spellings(p_clusters text[], p_tickets bigint[]) RETURNS TABLE(cluster_key text, spelling text)
    LANGUAGE sql STABLE ROWS 100 PARALLEL SAFE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
  select distinct on (1) tickets.cluster_key(w.cluster), w.cluster
  from (
    select g.cluster, true as is_known, 0 as tickets from tickets.geo_clusters g
    union all
    select s.cluster, false, s.tickets from unnest(p_clusters, p_tickets) as s (cluster, tickets)
  ) as w
  where tickets.cluster_key(w.cluster) is not null
  order by 1, w.is_known desc, w.tickets desc, w.cluster collate "C"
$$;

COMMENT ON FUNCTION tickets.chosen_spellings(p_clusters text[], p_tickets bigint[]) IS 'The one spelling in which each cluster is shown, however the feed writes it (tickets.cluster_key): that of tickets.geo_clusters, else of p_clusters the one that most tickets have. p_tickets: how many have each of p_clusters, in their order.';

CREATE FUNCTION tickets.claim_gazetteers() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET lock_timeout TO '30s'
    AS $$
begin
  begin
    perform pg_advisory_xact_lock(tickets.gazetteer_lock());
  exception when lock_not_available then
    perform tickets_ops.raise_blocked();
  end;
  if not tickets_ops.is_pipeline() then
    perform set_config('tickets_ops.moves', '', true); -- a person's decision counts the tickets that move from here on
  end if;
  return null;
end
$$;

COMMENT ON FUNCTION tickets.claim_gazetteers() IS 'Trigger before writing a gazetteer: no ticket is written meanwhile.';

CREATE FUNCTION tickets.clock_source(p_created_at_service timestamp with time zone, p_first_seen_at timestamp with time zone) RETURNS text
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN CASE WHEN (p_created_at_service IS NOT NULL) THEN 'created_at_service'::text WHEN (p_first_seen_at IS NOT NULL) THEN 'first_seen_at'::text ELSE NULL::text END;

COMMENT ON FUNCTION tickets.clock_source(p_created_at_service timestamp with time zone, p_first_seen_at timestamp with time zone) IS 'Which of the two tickets.clock_start() is: created_at_service or first_seen_at. NULL where neither is known.';

CREATE FUNCTION tickets.clock_start(p_created_at_service timestamp with time zone, p_first_seen_at timestamp with time zone) RETURNS timestamp with time zone
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN COALESCE(p_created_at_service, p_first_seen_at);

COMMENT ON FUNCTION tickets.clock_start(p_created_at_service timestamp with time zone, p_first_seen_at timestamp with time zone) IS 'When a ticket''s clock started: created_at_service, else first_seen_at, which is when the export first saw the ticket and so up to days late. NULL where neither is known.';

CREATE FUNCTION tickets.cluster_key(p_cluster text) RETURNS text
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN NULLIF("left"(lower(translate(p_cluster, CASE WHEN (octet_length(p_cluster) = length(p_cluster)) THEN ' 	
v'::text ELSE ' 	
v      ​‌‍‎‏ ⁠　﻿'::text END, ''::text)), 200), ''::text);

COMMENT ON FUNCTION tickets.cluster_key(p_cluster text) IS 'What identifies a cluster: its name in lower case without blanks, so that Kilimani, KILIMANI and " kilimani" are one. At most 200 characters, because a B-tree entry is limited to 2704 bytes. NULL for an empty one.';

CREATE FUNCTION tickets.cluster_spelling(p_cluster text) RETURNS text
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN rtrim("left"(btrim(p_cluster), 200));

COMMENT ON FUNCTION tickets.cluster_spelling(p_cluster text) IS 'A cluster''s name as a gazetteer may write it: without blanks around it, at most 200 characters.';

CREATE FUNCTION tickets.cluster_spellings(p_by text DEFAULT 'cluster'::text) RETURNS TABLE(cluster_key text, spelling text)
    LANGUAGE sql STABLE ROWS 100 PARALLEL SAFE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
  select chosen.cluster_key, chosen.spelling
  from (
    select array_agg(w.cluster) as clusters, array_agg(w.tickets) as tickets
    from (
      select e.cluster, count(*) as tickets
      from tickets.inc_events e -- index inc_events_first
      where tickets.is_first_sight(e.event, e.old_value)
      group by e.cluster
      union all
      -- Clusters that tickets only moved to.
      select d.cluster, 0 from tickets.inc_daily d group by d.cluster
    ) as w
  ) as seen
  cross join lateral tickets.chosen_spellings(seen.clusters, seen.tickets) as chosen
  where p_by = 'cluster'
$$;

COMMENT ON FUNCTION tickets.cluster_spellings(p_by text) IS 'The one spelling in which analytics show a cluster (tickets.chosen_spellings), by how many tickets were first seen with each. No row unless p_by is cluster, the default.';

CREATE FUNCTION tickets.clusters_moved() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET lock_timeout TO '30s'
    AS $$
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
exception when lock_not_available then -- somebody holds such a ticket: a writer that waits on keeps every load waiting behind it
  perform tickets_ops.raise_blocked();
  return null;
end
$$;

COMMENT ON FUNCTION tickets.clusters_moved() IS 'Trigger after writing tickets.geo_clusters: the tickets of the clusters whose centroid changed follow. Raises when others hold one of them for half a minute.';

CREATE TABLE tickets.geo_country (
    name text NOT NULL,
    outline public.geometry(MultiPolygon,4326) NOT NULL,
    reach public.geometry(MultiPolygon,4326) NOT NULL
);

COMMENT ON TABLE tickets.geo_country IS 'The country that tickets lie in, one row: a coordinate outside it is a mistake, of the feed or of a provider.';

COMMENT ON COLUMN tickets.geo_country.name IS 'Name of the country in English; the only row is Kenya.';

COMMENT ON COLUMN tickets.geo_country.outline IS 'Border and coast, WGS 84, generalised to some 870 points.';

COMMENT ON COLUMN tickets.geo_country.reach IS 'The outline with the tolerance that its generalisation needs: what tickets.in_kenya asks. Widen it by UPDATE.';

CREATE FUNCTION tickets.country_outline() RETURNS json
    LANGUAGE sql STABLE PARALLEL SAFE
    BEGIN ATOMIC
 SELECT (public.st_asgeojson(c.outline, 4))::json AS st_asgeojson
    FROM tickets.geo_country c
  LIMIT 1;
END;

COMMENT ON FUNCTION tickets.country_outline() IS 'tickets.geo_country.outline as a GeoJSON geometry with four decimals (11 m). NULL where there is no country.';

CREATE FUNCTION tickets.crq_features(p_open boolean, p_cluster text, p_region text, p_team text) RETURNS TABLE(feature record, bytes_of_text integer, closed_at timestamp with time zone)
    LANGUAGE sql STABLE PARALLEL SAFE
    AS $$
  select
    feature,
    tickets.bytes_of_texts(row(t.*)::tickets.inc),
    t.closed_at
  from tickets.filtered_crq(p_open, true, p_cluster, p_region, p_team) t
  cross join lateral tickets.open_clock(t.created_at_service, t.first_seen_at) as clock
  cross join lateral (
    select
      t.ticket_id, t.geo_source, t.ingested_at, t.normalized_status, t.raw_status, t.bucket, t.is_actionable, t.cluster,
      t.region, t.location_name, t.location_key, t.assigned_team, t.owner, t.sla_status, t.mttr, t.created_at_service,
      t.scheduled_at, t.closed_at, t.first_seen_at, t.last_seen_at, t.source_created_at, t.source_updated_at, t.latitude,
      t.longitude
  ) as of_all
  cross join lateral (select of_all.*, clock.*) as of_open
  cross join lateral (select case when p_open then of_open else of_all end as properties) as p
  cross join lateral (select 'Point' as type, array[t.longitude, t.latitude] as coordinates) as geometry
  cross join lateral (select 'Feature' as type, t.ticket_id as id, geometry, p.properties) as feature
$$;

COMMENT ON FUNCTION tickets.crq_features(p_open boolean, p_cluster text, p_region text, p_team text) IS 'The GeoJSON features of the open or the other requests that have a place, as tickets.map_features, with a clock and no SLA.';

CREATE FUNCTION tickets.crq_places(p_cluster text, p_team text) RETURNS json
    LANGUAGE sql STABLE PARALLEL SAFE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
  select coalesce(json_agg(place), '[]')
  from (
    select
      json_build_object('type', 'Point', 'coordinates', array[longitude, latitude]) as geometry,
      json_build_object(
        'cluster', case when min(tickets.cluster_key(cluster)) = max(tickets.cluster_key(cluster)) then min(cluster) end,
        'location_key', case when min(location_key) = max(location_key) then min(location_key) end,
        'location_name', min(location_name), 'geo_source', min(geo_source), 'open', count(*), 'breached', 0, 'at_risk', 0
      ) as properties
    from tickets.filtered_crq(true, true, p_cluster, null, p_team)
    group by longitude, latitude
  ) as place
$$;

COMMENT ON FUNCTION tickets.crq_places(p_cluster text, p_team text) IS 'The places of open requests (CRQ) for the page, as the features of reporting.fn_ticket_places(), of which none is late: no SLA is known. Reads as its caller.';

CREATE FUNCTION tickets.daily_dimensions() RETURNS text[]
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN ARRAY['team'::text, 'cluster'::text, 'region'::text];

COMMENT ON FUNCTION tickets.daily_dimensions() IS 'Of tickets.dimensions(), those by which the backlog of each day is kept (tickets.inc_daily): of owners and statuses there is none.';

CREATE FUNCTION tickets.dashboard_features(p_open boolean, p_cluster text, p_status text, p_from timestamp with time zone, p_to timestamp with time zone) RETURNS jsonb
    LANGUAGE plpgsql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET plan_cache_mode TO 'force_custom_plan'
    SET jit TO 'off'
    AS $$
begin
  return (
    select to_jsonb(collection)
    from (
      select 'FeatureCollection' as type, coalesce(array_agg(listed.feature), '{}') as features
      from (
        select f.feature
        from tickets.map_features(p_open, p_cluster, null, null) f -- indexes inc_open, inc_closed_at
        where (p_status is null or f.normalized_status = p_status)
          and (p_open or (f.closed_at >= p_from and f.closed_at < p_to))
          and f.bytes_of_text <= 4000 -- jsonb holds no array over 256 MB: no real ticket comes near it
        order by f.closed_at desc nulls last
        limit 50000
      ) as listed
    ) as collection
  );
end
$$;

COMMENT ON FUNCTION tickets.dashboard_features(p_open boolean, p_cluster text, p_status text, p_from timestamp with time zone, p_to timestamp with time zone) IS 'A GeoJSON FeatureCollection for reporting.fn_inc_dashboard(): the open tickets (p_open), or those closed in [p_from, p_to), that have a place.';

CREATE FUNCTION tickets.dashboard_metrics(p_cluster text, p_status text, p_from timestamp with time zone, p_to timestamp with time zone) RETURNS jsonb
    LANGUAGE sql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET plan_cache_mode TO 'force_custom_plan'
    SET jit TO 'off'
    AS $$
  select to_jsonb(open_now) || to_jsonb(closed_then)
  from (
    select
      count(*) as open, count(t.geog) as open_mapped,
      count(*) filter (where t.sla_state = 'breached') as open_breached, count(*) filter (where t.at_risk) as open_at_risk,
      count(*) filter (where t.sla_state = 'unknown') as open_unknown, max(t.hours_open) as open_oldest_hours
    from tickets.inc_open_sla t
    where tickets.is_of(t.cluster, t.region, t.assigned_team, p_cluster, null, null) and (p_status is null or t.normalized_status = p_status)
  ) as open_now
  cross join (
    select
      count(*) as closed, count(t.geog) as closed_mapped,
      case when count(t.mttr) >= tickets.fewest_for_percentile() then percentile_disc(0.5) within group (order by t.mttr) end as closed_mttr_median,
      round(100.0 * count(*) filter (where tickets.within_two_days(clock.lasted)) / nullif(count(clock.lasted), 0), 1) as closed_within_48h_pct,
      round(100.0 * count(*) filter (where tickets.kept_by_source(t.sla_status)) / nullif(count(t.sla_status), 0), 1) as closed_source_compliant_pct
    from tickets.inc t -- index inc_closed_at
    cross join lateral (
      select tickets.time_to_close(tickets.clock_start(t.created_at_service, t.first_seen_at), t.closed_at) as lasted
    ) as clock
    where t.is_actionable is not true and t.closed_at >= p_from and t.closed_at < p_to
      and tickets.is_of(t.cluster, t.region, t.assigned_team, p_cluster, null, null) and (p_status is null or t.normalized_status = p_status)
  ) as closed_then
$$;

COMMENT ON FUNCTION tickets.dashboard_metrics(p_cluster text, p_status text, p_from timestamp with time zone, p_to timestamp with time zone) IS 'The figures of reporting.fn_inc_dashboard(): of the open tickets now, and of the tickets that are closed and were so in [p_from, p_to). closed_mttr_median: the source''s minutes, NULL under 5 tickets. closed_within_48h_pct: of those with a known time from clock to closing.';

CREATE FUNCTION tickets.datasets() RETURNS SETOF text
    LANGUAGE sql STABLE SECURITY DEFINER ROWS 2
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
  select 'inc'
  union all
  select 'crq' where tickets_ops.setting('CRQ_ENABLED') = 'true'
$$;

COMMENT ON FUNCTION tickets.datasets() IS 'The datasets that are on, by their names in the ledger: inc, and crq where CRQ_ENABLED=true, as its processes were told (tickets_ops.setting).';

CREATE FUNCTION tickets.default_guard_km() RETURNS numeric
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN 25;

COMMENT ON FUNCTION tickets.default_guard_km() IS 'The guard of a cluster, unless it is given another (tickets.geo_clusters.guard_km): how far its places may be from its centroid, geodesic km. From central Nairobi, Kitengela is 26.1 km away and Thika 39.6.';

CREATE FUNCTION tickets.dimension(p_by text, p_team text, p_cluster text, p_region text, p_owner text, p_status text) RETURNS text
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN CASE p_by WHEN 'team'::text THEN p_team WHEN 'cluster'::text THEN p_cluster WHEN 'region'::text THEN p_region WHEN 'owner'::text THEN p_owner WHEN 'status'::text THEN p_status ELSE NULL::text END;

COMMENT ON FUNCTION tickets.dimension(p_by text, p_team text, p_cluster text, p_region text, p_owner text, p_status text) IS 'The value of the dimension that p_by names. Inlined: with a constant p_by nothing is left of it but the column.';

CREATE FUNCTION tickets.dimensions() RETURNS text[]
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN ARRAY['team'::text, 'cluster'::text, 'region'::text, 'owner'::text, 'status'::text];

COMMENT ON FUNCTION tickets.dimensions() IS 'What the analytic functions take for p_by.';

CREATE FUNCTION tickets.dispatch_plan(p_capacity integer DEFAULT 1, p_radius_km double precision DEFAULT NULL::double precision, p_region text DEFAULT NULL::text, p_cluster text DEFAULT NULL::text, p_same_team boolean DEFAULT false, p_tickets text[] DEFAULT NULL::text[], p_vehicles text[] DEFAULT NULL::text[], p_stale boolean DEFAULT false) RETURNS SETOF tickets.planned_ticket
    LANGUAGE plpgsql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET jit TO 'off'
    AS $$
declare
  c_radius_km constant double precision := coalesce(p_radius_km, (select s.radius_km from tickets.dispatch_settings s));
begin
  perform tickets_ops.check_plan(p_capacity, p_radius_km, p_same_team);
  return query
    with vehicle as materialized (
      select * from tickets_ops.dispatch_vehicles(p_capacity, p_vehicles, p_stale)
    ),
    ticket as materialized (
      select * from tickets_ops.dispatch_tickets(p_region, p_cluster, p_tickets)
    ),
    planned as materialized (
      select v.ids[p.vehicle] as vehicle_id, v.last_positions[p.vehicle] + p.position as position, t.ids[p.ticket] as ticket_id, p.metres, p.cost_km
      from tickets.dispatch_settings s
      cross join (
        select
          array_agg(d.vehicle_id order by d.no) as ids, array_agg(d.geog order by d.no) as starts, array_agg(d.room order by d.no) as rooms,
          array_agg(d.last_position order by d.no) as last_positions, case when p_same_team then array_agg(d.team order by d.no) end as teams
        from vehicle d
        where not p_same_team or d.team is not null
      ) as v
      cross join (
        select
          array_agg(d.ticket_id order by d.no) as ids, array_agg(d.geog order by d.no) as places, array_agg(d.bonus_km order by d.no) as bonuses,
          case when p_same_team then array_agg(d.team order by d.no) end as teams
        from ticket d
        where d.geog is not null
      ) as t
      cross join lateral (
        select * from tickets_ops.plan_optimum(v.starts, v.teams, t.places, t.bonuses, t.teams, s.detour / 1000, c_radius_km * 1000)
        where p_capacity = 1
        union all
        select * from tickets_ops.greedy_tours(v.rooms, v.starts, v.teams, t.places, t.bonuses, t.teams, s.detour / 1000, c_radius_km * 1000)
        where p_capacity > 1
      ) as p
      where v.ids is not null and t.ids is not null
    )
    select
      p.vehicle_id, p.position, t.ticket_id, p.metres, p.cost_km, t.sla_state, t.at_risk, t.geo_source, v.freshness,
      case
        when p.vehicle_id is not null then nullif(concat_ws('; ',
          case when t.geo_source = 'cluster' then 'lies somewhere in its cluster' end,
          case when v.freshness = 'stale' then format('the vehicle was located %s ago', justify_interval(date_trunc('minute', v.age))) end
        ), '')
        when t.geog is null then 'no place is known'
        when not exists (select from vehicle) then 'no vehicle is free'
        when p_same_team and not exists (select from vehicle f where f.team = t.team) then 'no vehicle of its team is free'
        when not exists (
          select from vehicle f
          where (not p_same_team or f.team = t.team) and tickets_ops.within_reach(f.geog, t.geog, c_radius_km * 1000)
        ) then format('no free vehicle within %s km', c_radius_km)
        else 'every vehicle within reach goes elsewhere'
      end
    from ticket t
    left join planned p on p.ticket_id = t.ticket_id
    left join vehicle v on v.vehicle_id = p.vehicle_id
    union all
    -- Asked for by number, and not to be planned.
    select
      null, null, asked.ticket_id, null, null, null, null, null, null,
      case
        when held.vehicle_id is not null then 'assigned already, to ' || held.vehicle_id
        when o.ticket_id is null then 'no open ticket has this number'
        else 'not in the region or cluster asked for'
      end
    from (select distinct a.ticket_id from unnest(p_tickets) as a (ticket_id) where a.ticket_id is not null) as asked
    left join tickets.inc_open_sla o on o.ticket_id = asked.ticket_id
    left join tickets.assignments held on held.ticket_id = asked.ticket_id and held.state = 'assigned'
    where not exists (select from ticket t where t.ticket_id = asked.ticket_id)
    order by 1 nulls last, 2, 3;
end
$$;

COMMENT ON FUNCTION tickets.dispatch_plan(p_capacity integer, p_radius_km double precision, p_region text, p_cluster text, p_same_team boolean, p_tickets text[], p_vehicles text[], p_stale boolean) IS 'Which vehicle should go to which open ticket. It writes nothing: tickets.assign_plan carries it out. Equal data give an equal plan.

Arguments: p_capacity (default 1): tickets that a vehicle may be assigned to at once, those that it has already included. p_radius_km (default: tickets.dispatch_settings): the longest way to a ticket. p_region, p_cluster (both in any case), p_tickets: only these tickets. p_vehicles: only these vehicles. p_same_team: only tickets whose assigned_team is the vehicle''s team, in any case. p_stale: also vehicles located up to stale_hours ago.

Rows: one for each open ticket that no vehicle is assigned to (and for each of p_tickets). vehicle_id NULL: left out, and note says why. position: the vehicle''s first, second … ticket. metres: a straight line from where the vehicle then is. cost_km: metres × detour / 1000, less the bonus of a ticket that can still be saved from a breach (10 km) or is breached (5 km).

With p_capacity 1 it is the exact optimum: as many tickets as possible, then the least total cost. Above 1 the pair of vehicle and ticket that costs least comes next, again and again, the vehicle then being where that ticket is. A vehicle with an assignment starts from that ticket.

Errors: 22023 for a capacity, radius or p_same_team that makes no sense.';

CREATE FUNCTION tickets.region_key(p_region text) RETURNS text
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN lower(btrim(p_region));

COMMENT ON FUNCTION tickets.region_key(p_region text) IS 'What identifies a region: its name in lower case without the blanks around it. By this a filter finds its tickets, a ticket its rule in tickets.sla_rules, and no region has two rules (index sla_rules_one_per_region).';

CREATE FUNCTION tickets.team_key(p_team text) RETURNS text
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN lower(btrim(p_team));

COMMENT ON FUNCTION tickets.team_key(p_team text) IS 'What identifies a team: its name in lower case without the blanks around it. By this a filter finds its tickets, and a vehicle those of its own team.';

CREATE FUNCTION tickets.is_of(cluster text, region text, team text, p_cluster text, p_region text, p_team text) RETURNS boolean
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN (((p_cluster IS NULL) OR (tickets.cluster_key(cluster) = tickets.cluster_key(p_cluster))) AND ((p_region IS NULL) OR (tickets.region_key(region) = tickets.region_key(p_region))) AND ((p_team IS NULL) OR (tickets.team_key(team) = tickets.team_key(p_team))));

COMMENT ON FUNCTION tickets.is_of(cluster text, region text, team text, p_cluster text, p_region text, p_team text) IS 'Whether a ticket with that cluster, region and team is of the cluster, region and team that are asked for, each in any case and whatever blanks are around it; NULL asks for any.';

CREATE FUNCTION tickets.is_usable(p_freshness text, p_stale boolean DEFAULT false) RETURNS boolean
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN (p_freshness = ANY (CASE WHEN p_stale THEN ARRAY['live'::text, 'parked'::text, 'stale'::text] ELSE ARRAY['live'::text, 'parked'::text] END));

COMMENT ON FUNCTION tickets.is_usable(p_freshness text, p_stale boolean) IS 'Whether a plan may send a vehicle of that freshness somewhere: live and parked ones, and stale ones where that is asked for (p_stale).';

CREATE FUNCTION tickets.lng_lat(p_lng double precision, p_lat double precision) RETURNS public.geography
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN CASE WHEN (((p_lng >= ('-180'::integer)::double precision) AND (p_lng <= (180)::double precision)) AND ((p_lat >= ('-90'::integer)::double precision) AND (p_lat <= (90)::double precision))) THEN (public.st_setsrid(public.st_makepoint(p_lng, p_lat), 4326))::public.geography ELSE NULL::public.geography END;

COMMENT ON FUNCTION tickets.lng_lat(p_lng double precision, p_lat double precision) IS 'The point at a longitude and latitude, WGS 84 degrees. NULL when one of them is missing, out of range or NaN.';

CREATE FUNCTION tickets.open_clock(p_created_at_service timestamp with time zone, p_first_seen_at timestamp with time zone, p_at timestamp with time zone DEFAULT now()) RETURNS TABLE(clock_start timestamp with time zone, clock_source text, hours_open numeric)
    LANGUAGE sql STABLE PARALLEL SAFE
    BEGIN ATOMIC
 SELECT clock.start,
     tickets.clock_source(open_clock.p_created_at_service, open_clock.p_first_seen_at) AS clock_source,
     trunc((EXTRACT(epoch FROM (open_clock.p_at - clock.start)) / (3600)::numeric), 2) AS trunc
    FROM ( SELECT tickets.clock_start(open_clock.p_created_at_service, open_clock.p_first_seen_at) AS start) clock;
END;

COMMENT ON FUNCTION tickets.open_clock(p_created_at_service timestamp with time zone, p_first_seen_at timestamp with time zone, p_at timestamp with time zone) IS 'How long a ticket has been open as of p_at, one row: when its clock started (tickets.clock_start), from which of the two times (tickets.clock_source), and hours since then, cut to two decimals. NULLs where neither is known.';

CREATE TABLE tickets.sla_rules (
    region text,
    hours numeric NOT NULL,
    at_risk_hours numeric NOT NULL,
    CONSTRAINT sla_rules_check CHECK (((at_risk_hours > (0)::numeric) AND (at_risk_hours <= hours))),
    CONSTRAINT sla_rules_hours_check CHECK (((hours > (0)::numeric) AND (hours <= (8760)::numeric))),
    CONSTRAINT sla_rules_region_check CHECK (((region = btrim(region)) AND (region <> ''::text)))
);

ALTER TABLE ONLY tickets.sla_rules REPLICA IDENTITY FULL;

COMMENT ON TABLE tickets.sla_rules IS 'What the contract promises, as data: a rule for a region, and the default for all others. Changing one is an UPDATE, and counts from the next query on: update tickets.sla_rules set hours = 24, at_risk_hours = 20 where region is null.';

COMMENT ON COLUMN tickets.sla_rules.region IS 'The region as tickets.inc.region has it, in any case (tickets.region_key). NULL: the default, which cannot be deleted.';

COMMENT ON COLUMN tickets.sla_rules.hours IS 'Hours after which an open ticket is breached.';

COMMENT ON COLUMN tickets.sla_rules.at_risk_hours IS 'Hours after which it is at risk.';

CREATE FUNCTION tickets.sla(p_region text, p_created_at_service timestamp with time zone, p_first_seen_at timestamp with time zone, p_at timestamp with time zone DEFAULT now()) RETURNS TABLE(sla_clock_start timestamp with time zone, sla_clock_source text, hours_open numeric, sla_state text, at_risk boolean)
    LANGUAGE sql STABLE PARALLEL SAFE
    BEGIN ATOMIC
 SELECT clock.clock_start,
     clock.clock_source,
     clock.hours_open,
         CASE
             WHEN (clock.clock_start IS NULL) THEN 'unknown'::text
             WHEN (clock.clock_start <= rule.breached_from) THEN 'breached'::text
             ELSE 'ok'::text
         END AS "case",
     COALESCE(((clock.clock_start <= rule.at_risk_from) AND (clock.clock_start > rule.breached_from)), false) AS "coalesce"
    FROM (tickets.open_clock(sla.p_created_at_service, sla.p_first_seen_at, sla.p_at) clock(clock_start, clock_source, hours_open)
      CROSS JOIN LATERAL ( SELECT (sla.p_at - ((r.hours)::double precision * '01:00:00'::interval)) AS breached_from,
             (sla.p_at - ((r.at_risk_hours)::double precision * '01:00:00'::interval)) AS at_risk_from
            FROM tickets.sla_rules r
           WHERE ((tickets.region_key(r.region) = tickets.region_key(sla.p_region)) OR (r.region IS NULL))
           ORDER BY r.region
          LIMIT 1) rule);
END;

COMMENT ON FUNCTION tickets.sla(p_region text, p_created_at_service timestamp with time zone, p_first_seen_at timestamp with time zone, p_at timestamp with time zone) IS 'The SLA of an open ticket as of p_at by the rule of its region (tickets.sla_rules), one row: the clock, which it is and hours since then (tickets.open_clock), breached from the rule''s hours on, ok before, unknown without a clock, and at risk from its at_risk_hours on until breached. The columns of tickets.inc_open_sla.';

CREATE FUNCTION tickets.tracked_vehicles() RETURNS TABLE(vehicle_id text, label text, team text, lng double precision, lat double precision, located_at timestamp with time zone, seen_at timestamp with time zone, moving boolean, speed_kmh double precision, source text)
    LANGUAGE plpgsql STABLE ROWS 200
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
#variable_conflict use_column
begin
  return query
    select distinct on (v.vehicle_id)
      v.vehicle_id, v.label, v.team, v.lng, v.lat, finite.located_at, finite.seen_at, v.moving, v.speed_kmh, v.source
    from tickets.vehicles v
    -- No age can be taken of infinity: one such row would be an error for all vehicles.
    cross join lateral (
      select case when isfinite(v.located_at) then v.located_at end as located_at, case when isfinite(v.seen_at) then v.seen_at end as seen_at
    ) as finite
    where v.vehicle_id is not null
    order by v.vehicle_id, finite.located_at desc nulls last, finite.seen_at desc nulls last, v.lng, v.lat;
end
$$;

COMMENT ON FUNCTION tickets.tracked_vehicles() IS 'tickets.vehicles, with one row for each vehicle even where that view has several: the newest position. Times of infinity are NULL.';

CREATE FUNCTION tickets_ops.check_plan(p_capacity integer, p_radius_km double precision, p_same_team boolean) RETURNS void
    LANGUAGE plpgsql IMMUTABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
begin
  perform tickets.require_count('p_capacity', p_capacity), tickets.require_radius(p_radius_km);
  if p_same_team is null then
    raise exception 'p_same_team is NULL: give true or false.' using errcode = 'invalid_parameter_value';
  end if;
end
$$;

COMMENT ON FUNCTION tickets_ops.check_plan(p_capacity integer, p_radius_km double precision, p_same_team boolean) IS 'Raises, with the right words, for arguments of tickets.dispatch_plan that make no sense.';

CREATE TABLE tickets.dispatch_settings (
    only_row boolean DEFAULT true NOT NULL,
    live_minutes integer DEFAULT 15 NOT NULL,
    stale_hours integer DEFAULT 24 NOT NULL,
    radius_km double precision DEFAULT 50 NOT NULL,
    detour double precision DEFAULT 1.4 NOT NULL,
    speed_kmh double precision DEFAULT 25 NOT NULL,
    at_risk_bonus_km double precision DEFAULT 10 NOT NULL,
    breached_bonus_km double precision DEFAULT 5 NOT NULL,
    area public.geometry(Geometry,4326) NOT NULL,
    CONSTRAINT dispatch_settings_area_check CHECK (((public.geometrytype(area) = ANY (ARRAY['POLYGON'::text, 'MULTIPOLYGON'::text])) AND public.st_isvalid(area) AND (NOT public.st_isempty(area)))),
    CONSTRAINT dispatch_settings_at_risk_bonus_km_check CHECK (((at_risk_bonus_km >= (0)::double precision) AND (at_risk_bonus_km <= (1000)::double precision))),
    CONSTRAINT dispatch_settings_breached_bonus_km_check CHECK (((breached_bonus_km >= (0)::double precision) AND (breached_bonus_km <= (1000)::double precision))),
    CONSTRAINT dispatch_settings_check CHECK ((live_minutes <= (stale_hours * 60))),
    CONSTRAINT dispatch_settings_detour_check CHECK (((detour >= (1)::double precision) AND (detour <= (10)::double precision))),
    CONSTRAINT dispatch_settings_live_minutes_check CHECK (((live_minutes >= 1) AND (live_minutes <= 1440))),
    CONSTRAINT dispatch_settings_only_row_check CHECK (only_row),
    CONSTRAINT dispatch_settings_radius_km_check CHECK (((radius_km > (0)::double precision) AND (radius_km <= (20000)::double precision))),
    CONSTRAINT dispatch_settings_speed_kmh_check CHECK (((speed_kmh >= (1)::double precision) AND (speed_kmh <= (200)::double precision))),
    CONSTRAINT dispatch_settings_stale_hours_check CHECK (((stale_hours >= 1) AND (stale_hours <= 8760)))
);

COMMENT ON TABLE tickets.dispatch_settings IS 'The rules of dispatch, one row; change them by UPDATE, from the next query on they hold.';

COMMENT ON COLUMN tickets.dispatch_settings.only_row IS 'There is one row.';

COMMENT ON COLUMN tickets.dispatch_settings.live_minutes IS 'A vehicle located at most so many minutes ago is live.';

COMMENT ON COLUMN tickets.dispatch_settings.stale_hours IS 'One located longer ago, but at most so many hours, is stale; after that it is lost.';

COMMENT ON COLUMN tickets.dispatch_settings.radius_km IS 'The longest way to a ticket that a plan makes, straight-line km from where the vehicle then is, unless the plan is asked for another.';

COMMENT ON COLUMN tickets.dispatch_settings.detour IS 'Road km by straight-line km, on average: 1.4 in Kenyan towns.';

COMMENT ON COLUMN tickets.dispatch_settings.speed_kmh IS 'Road km an hour in traffic, for minutes_estimate.';

COMMENT ON COLUMN tickets.dispatch_settings.at_risk_bonus_km IS 'A ticket that is at risk of a breach, and so can still be saved, counts as so many road km nearer.';

COMMENT ON COLUMN tickets.dispatch_settings.breached_bonus_km IS 'A ticket that is breached already counts as so many road km nearer.';

COMMENT ON COLUMN tickets.dispatch_settings.area IS 'The operating area, WGS 84: a position outside is a mistake of the tracker (freshness nowhere). East Africa, because vehicles cross borders.';

CREATE VIEW tickets.inc_open_sla AS
 SELECT t.ticket_id,
    t.normalized_status,
    sla.sla_clock_start,
    sla.sla_clock_source,
    sla.hours_open,
    sla.sla_state,
    sla.at_risk,
    t.assigned_team,
    t.cluster,
    t.region,
    t.owner,
    t.location_name,
    t.geo_source,
    t.geom,
    t.geog
   FROM (tickets.inc t
     CROSS JOIN LATERAL tickets.sla(t.region, t.created_at_service, t.first_seen_at) sla(sla_clock_start, sla_clock_source, hours_open, sla_state, at_risk))
  WHERE t.is_actionable;

COMMENT ON VIEW tickets.inc_open_sla IS 'Open (actionable) tickets with their SLA by tickets.sla_rules, as of now(). For open tickets use sla_state here, not the feed''s sla_status. Nearest ones: order by geog <-> point limit n (index inc_open_geog).';

COMMENT ON COLUMN tickets.inc_open_sla.ticket_id IS 'The ticket''s number, like WOT0715527.';

COMMENT ON COLUMN tickets.inc_open_sla.normalized_status IS 'The canonical status: filter on this one.';

COMMENT ON COLUMN tickets.inc_open_sla.sla_clock_start IS 'When the clock started: created_at_service, or where the feed lacks it (most open tickets) first_seen_at, which is when the export first saw the ticket and so up to days late.';

COMMENT ON COLUMN tickets.inc_open_sla.sla_clock_source IS 'Which of the two sla_clock_start is: created_at_service or first_seen_at. NULL: neither is known.';

COMMENT ON COLUMN tickets.inc_open_sla.hours_open IS 'Hours since sla_clock_start, cut to two decimals; negative when the feed''s time lies in the future. NULL: no clock.';

COMMENT ON COLUMN tickets.inc_open_sla.sla_state IS 'breached: open for as long as the rule of its region in tickets.sla_rules says (48 h by default), or longer. ok: less. unknown: no clock.';

COMMENT ON COLUMN tickets.inc_open_sla.at_risk IS 'Open for the at_risk_hours of its rule (40 by default) or longer, and not breached yet. false where the clock is unknown.';

COMMENT ON COLUMN tickets.inc_open_sla.assigned_team IS 'Team the ticket is assigned to.';

COMMENT ON COLUMN tickets.inc_open_sla.cluster IS 'Network cluster.';

COMMENT ON COLUMN tickets.inc_open_sla.region IS 'Region, lower case.';

COMMENT ON COLUMN tickets.inc_open_sla.owner IS 'Owner of the ticket.';

COMMENT ON COLUMN tickets.inc_open_sla.location_name IS 'The place as field staff typed it.';

COMMENT ON COLUMN tickets.inc_open_sla.geo_source IS 'Precision of geom: feed, location, cluster (a centroid, no address) or none.';

COMMENT ON COLUMN tickets.inc_open_sla.geom IS 'Place, for display; NULL where none is known.';

COMMENT ON COLUMN tickets.inc_open_sla.geog IS 'geom as geography: distances in metres.';

CREATE FUNCTION tickets_ops.dispatch_tickets(p_region text, p_cluster text, p_tickets text[]) RETURNS TABLE(no integer, ticket_id text, team text, geog public.geography, bonus_km double precision, sla_state text, at_risk boolean, geo_source text)
    LANGUAGE sql STABLE
    BEGIN ATOMIC
 SELECT (row_number() OVER (ORDER BY t.ticket_id))::integer AS row_number,
     t.ticket_id,
     tickets.team_key(t.assigned_team) AS team_key,
     t.geog,
         CASE
             WHEN t.at_risk THEN s.at_risk_bonus_km
             WHEN (t.sla_state = 'breached'::text) THEN s.breached_bonus_km
             ELSE (0)::double precision
         END AS "case",
     t.sla_state,
     t.at_risk,
     t.geo_source
    FROM (tickets.inc_open_sla t
      CROSS JOIN tickets.dispatch_settings s)
   WHERE (tickets.is_of(t.cluster, t.region, t.assigned_team, dispatch_tickets.p_cluster, dispatch_tickets.p_region, NULL::text) AND ((dispatch_tickets.p_tickets IS NULL) OR (t.ticket_id = ANY (dispatch_tickets.p_tickets))) AND (NOT (EXISTS ( SELECT
            FROM tickets.assignments a
           WHERE ((a.ticket_id = t.ticket_id) AND (a.state = 'assigned'::text))))));
END;

COMMENT ON FUNCTION tickets_ops.dispatch_tickets(p_region text, p_cluster text, p_tickets text[]) IS 'The open tickets that no vehicle is assigned to, numbered by id, those without a place too. team: its tickets.team_key. bonus_km: by how much it counts as nearer: one that can still be saved from a breach more than one that is breached (tickets.dispatch_settings).';

CREATE VIEW tickets.vehicles_now AS
 SELECT v.vehicle_id,
    v.label,
    v.team,
    v.lng,
    v.lat,
    v.located_at,
    v.seen_at,
    v.moving,
    v.speed_kmh,
    v.source,
    place.geog,
    (now() - v.located_at) AS age,
    belief.freshness,
    tickets.is_usable(belief.freshness) AS usable,
    COALESCE(held.assignments, 0) AS open_assignments
   FROM ((((tickets.tracked_vehicles() v(vehicle_id, label, team, lng, lat, located_at, seen_at, moving, speed_kmh, source)
     CROSS JOIN ( SELECT dispatch_settings.only_row,
            dispatch_settings.live_minutes,
            dispatch_settings.stale_hours,
            dispatch_settings.radius_km,
            dispatch_settings.detour,
            dispatch_settings.speed_kmh,
            dispatch_settings.at_risk_bonus_km,
            dispatch_settings.breached_bonus_km,
            dispatch_settings.area
           FROM tickets.dispatch_settings
         LIMIT 1) s)
     CROSS JOIN LATERAL ( SELECT
                CASE
                    WHEN (((v.lng <> (0)::double precision) OR (v.lat <> (0)::double precision)) AND public.st_covers(s.area, (point.geog)::public.geometry)) THEN point.geog
                    ELSE NULL::public.geography
                END AS geog
           FROM ( SELECT tickets.lng_lat(v.lng, v.lat) AS geog) point) place)
     CROSS JOIN LATERAL ( SELECT
                CASE
                    WHEN (place.geog IS NULL) THEN 'nowhere'::text
                    WHEN (v.located_at > (now() + '00:02:00'::interval)) THEN 'clock'::text
                    WHEN (v.located_at >= (now() - make_interval(mins => s.live_minutes))) THEN 'live'::text
                    WHEN ((v.located_at IS NOT NULL) AND ((v.seen_at >= (now() - '01:00:00'::interval)) AND (v.seen_at <= (now() + '00:02:00'::interval))) AND (NOT COALESCE(v.moving, (v.speed_kmh > (0)::double precision)))) THEN 'parked'::text
                    WHEN (v.located_at >= (now() - make_interval(hours => s.stale_hours))) THEN 'stale'::text
                    ELSE 'lost'::text
                END AS freshness) belief)
     LEFT JOIN ( SELECT a.vehicle_id,
            (count(*))::integer AS assignments
           FROM tickets.assignments a
          WHERE (a.state = 'assigned'::text)
          GROUP BY a.vehicle_id) held ON ((held.vehicle_id = v.vehicle_id)));

COMMENT ON VIEW tickets.vehicles_now IS 'The vehicles as of now(), one row each, with what may be believed of each position.';

COMMENT ON COLUMN tickets.vehicles_now.vehicle_id IS 'The tracker''s own number of the vehicle.';

COMMENT ON COLUMN tickets.vehicles_now.label IS 'What people call it: registration plate or name.';

COMMENT ON COLUMN tickets.vehicles_now.team IS 'Team that drives it.';

COMMENT ON COLUMN tickets.vehicles_now.lng IS 'As the tracker says it, WGS 84 degrees, believed or not: see geog.';

COMMENT ON COLUMN tickets.vehicles_now.lat IS 'As the tracker says it, WGS 84 degrees, believed or not: see geog.';

COMMENT ON COLUMN tickets.vehicles_now.located_at IS 'When the position was taken.';

COMMENT ON COLUMN tickets.vehicles_now.seen_at IS 'When the tracker last reported anything.';

COMMENT ON COLUMN tickets.vehicles_now.moving IS 'Whether it moved when last seen.';

COMMENT ON COLUMN tickets.vehicles_now.speed_kmh IS 'Speed at the last position, km/h.';

COMMENT ON COLUMN tickets.vehicles_now.source IS 'Which tracker says so.';

COMMENT ON COLUMN tickets.vehicles_now.geog IS 'The position, for distances in metres. NULL where freshness is nowhere.';

COMMENT ON COLUMN tickets.vehicles_now.age IS 'Since the position was taken; negative when that lies in the future. NULL: the tracker gave no time.';

COMMENT ON COLUMN tickets.vehicles_now.freshness IS 'live: located at most live_minutes (15) ago. parked: longer ago, but seen at most 60 minutes ago and not moving then (a sleeping tracker). stale: located at most stale_hours (24) ago. lost: longer ago, or nobody knows when. clock: located more than 2 minutes in the future. nowhere: no position, 0,0, or outside the operating area (tickets.dispatch_settings).';

COMMENT ON COLUMN tickets.vehicles_now.usable IS 'live or parked: a plan may send it somewhere. A stale one goes only where that is asked for.';

COMMENT ON COLUMN tickets.vehicles_now.open_assignments IS 'Tickets that it is assigned to (tickets.assignments).';

CREATE FUNCTION tickets_ops.dispatch_vehicles(p_capacity integer, p_vehicles text[], p_stale boolean) RETURNS TABLE(no integer, vehicle_id text, team text, geog public.geography, freshness text, age interval, room integer, last_position integer)
    LANGUAGE sql STABLE
    BEGIN ATOMIC
 SELECT (row_number() OVER (ORDER BY v.vehicle_id))::integer AS row_number,
     v.vehicle_id,
     tickets.team_key(v.team) AS team_key,
     COALESCE(held.last_place, v.geog) AS "coalesce",
     v.freshness,
     v.age,
     (dispatch_vehicles.p_capacity - v.open_assignments),
     COALESCE(held.last_position, 0) AS "coalesce"
    FROM (tickets.vehicles_now v
      LEFT JOIN LATERAL ( SELECT max(a."position") AS last_position,
             (array_agg(t.geog ORDER BY a."position" DESC) FILTER (WHERE (t.geog IS NOT NULL)))[1] AS last_place
            FROM (tickets.assignments a
              LEFT JOIN tickets.inc t ON ((t.ticket_id = a.ticket_id)))
           WHERE ((a.vehicle_id = v.vehicle_id) AND (a.state = 'assigned'::text))) held ON ((v.open_assignments > 0)))
   WHERE (tickets.is_usable(v.freshness, dispatch_vehicles.p_stale) AND (v.open_assignments < dispatch_vehicles.p_capacity) AND ((dispatch_vehicles.p_vehicles IS NULL) OR (v.vehicle_id = ANY (dispatch_vehicles.p_vehicles))));
END;

COMMENT ON FUNCTION tickets_ops.dispatch_vehicles(p_capacity integer, p_vehicles text[], p_stale boolean) IS 'The vehicles that a plan may send somewhere, numbered by id: usable ones (p_stale: stale ones too) with fewer assignments than p_capacity. geog: where it starts, which is at the last ticket that it is assigned to. team: its tickets.team_key. room: tickets that it may still take. last_position: of its tickets, 0 for none.';

CREATE FUNCTION tickets_ops.sphere_error() RETURNS double precision
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN 0.006;

COMMENT ON FUNCTION tickets_ops.sphere_error() IS 'By what share the distance of two points on a sphere may differ from that on the WGS 84 spheroid: 0.57 % at most, and a little for rounding.';

CREATE FUNCTION tickets_ops.within_reach(p_from public.geography, p_to public.geography, p_radius double precision) RETURNS boolean
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN (((p_from OPERATOR(public.<->) p_to) <= (p_radius * ((1)::double precision - tickets_ops.sphere_error()))) OR (((p_from OPERATOR(public.<->) p_to) <= (p_radius * ((1)::double precision + tickets_ops.sphere_error()))) AND (public.st_distance(p_from, p_to) <= p_radius)));

COMMENT ON FUNCTION tickets_ops.within_reach(p_from public.geography, p_to public.geography, p_radius double precision) IS 'Whether two points are at most p_radius metres apart, in a straight line on the WGS 84 spheroid. Looks on a sphere first, which mostly says so.';

CREATE FUNCTION tickets.dispatch_problem(p_capacity integer DEFAULT 1, p_radius_km double precision DEFAULT NULL::double precision, p_region text DEFAULT NULL::text, p_cluster text DEFAULT NULL::text, p_same_team boolean DEFAULT false, p_tickets text[] DEFAULT NULL::text[], p_vehicles text[] DEFAULT NULL::text[], p_stale boolean DEFAULT false) RETURNS jsonb
    LANGUAGE sql STABLE
    SET jit TO 'off'
    BEGIN ATOMIC
 SELECT tickets_ops.check_plan(p_capacity, p_radius_km, p_same_team) AS check_plan;
 WITH vehicle AS MATERIALIZED (
          SELECT v.no,
             v.vehicle_id,
             v.team,
             v.geog,
             v.freshness,
             v.age,
             v.room,
             v.last_position,
             dense_rank() OVER (ORDER BY v.team) AS skill
            FROM tickets_ops.dispatch_vehicles(dispatch_problem.p_capacity, dispatch_problem.p_vehicles, dispatch_problem.p_stale) v(no, vehicle_id, team, geog, freshness, age, room, last_position)
         ), ticket AS MATERIALIZED (
          SELECT t.no,
             t.ticket_id,
             t.team,
             t.geog,
             t.bonus_km,
             t.sla_state,
             t.at_risk,
             t.geo_source,
             ( SELECT v.skill
                    FROM vehicle v
                   WHERE (v.team = t.team)
                  LIMIT 1) AS skill
            FROM (tickets_ops.dispatch_tickets(dispatch_problem.p_region, dispatch_problem.p_cluster, dispatch_problem.p_tickets) t(no, ticket_id, team, geog, bonus_km, sla_state, at_risk, geo_source)
              CROSS JOIN tickets.dispatch_settings s)
           WHERE (EXISTS ( SELECT
                    FROM vehicle v
                   WHERE (((NOT dispatch_problem.p_same_team) OR (v.team = t.team)) AND tickets_ops.within_reach(v.geog, t.geog, (COALESCE(dispatch_problem.p_radius_km, s.radius_km) * (1000)::double precision)))))
         )
  SELECT jsonb_build_object('vehicles', ( SELECT COALESCE(jsonb_agg((jsonb_build_object('id', v.no, 'description', v.vehicle_id, 'start', jsonb_build_array(public.st_x((v.geog)::public.geometry), public.st_y((v.geog)::public.geometry)), 'capacity', jsonb_build_array(v.room)) ||
                 CASE
                     WHEN (dispatch_problem.p_same_team AND (v.team IS NOT NULL)) THEN jsonb_build_object('skills', jsonb_build_array(v.skill))
                     ELSE '{}'::jsonb
                 END) ORDER BY v.no), '[]'::jsonb) AS "coalesce"
            FROM vehicle v), 'jobs', ( SELECT COALESCE(jsonb_agg((jsonb_build_object('id', t.no, 'description', t.ticket_id, 'location', jsonb_build_array(public.st_x((t.geog)::public.geometry), public.st_y((t.geog)::public.geometry)), 'delivery', jsonb_build_array(1), 'priority', LEAST(round(t.bonus_km), (100)::double precision)) ||
                 CASE
                     WHEN dispatch_problem.p_same_team THEN jsonb_build_object('skills', jsonb_build_array(t.skill))
                     ELSE '{}'::jsonb
                 END) ORDER BY t.no), '[]'::jsonb) AS "coalesce"
            FROM ticket t)) AS jsonb_build_object;
END;

COMMENT ON FUNCTION tickets.dispatch_problem(p_capacity integer, p_radius_km double precision, p_region text, p_cluster text, p_same_team boolean, p_tickets text[], p_vehicles text[], p_stale boolean) IS 'The problem of tickets.dispatch_plan as the input of VROOM (vroom-project.org), for planning on roads: vehicles and jobs by number, with our ids as description, start and location as [longitude, latitude], capacity and delivery in tickets, priority from the bonus in km, with p_same_team the teams as skills. Arguments as there; p_radius_km leaves out the tickets that are farther from where every vehicle starts, and one without a place is left out too. The answer''s steps give the numbers back. VROOM takes the routing profile car unless each vehicle names another: openrouteservice calls it driving-car.';

CREATE FUNCTION tickets.eat_day(p_at timestamp with time zone) RETURNS date
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN ((p_at AT TIME ZONE 'Africa/Nairobi'::text))::date;

COMMENT ON FUNCTION tickets.eat_day(p_at timestamp with time zone) IS 'The day in Nairobi (UTC+3 all year): 20:59:59Z is the same day, 21:00:00Z the next.';

CREATE FUNCTION tickets.eat_midnight(p_day date) RETURNS timestamp with time zone
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN ((p_day)::timestamp without time zone AT TIME ZONE 'Africa/Nairobi'::text);

COMMENT ON FUNCTION tickets.eat_midnight(p_day date) IS 'The instant at which a day begins in Nairobi: 21:00Z of the day before. A range of days is >= eat_midnight(first) and < eat_midnight(last + 1), which an index on the time can answer.';

CREATE FUNCTION tickets.in_kenya(place public.geometry) RETURNS boolean
    LANGUAGE sql STABLE PARALLEL SAFE
    BEGIN ATOMIC
 SELECT ((place IS NOT NULL) AND tickets.is_lng_lat(place) AND (EXISTS ( SELECT
            FROM tickets.geo_country c
           WHERE public.st_intersects(c.reach, in_kenya.place))));
END;

COMMENT ON FUNCTION tickets.in_kenya(place public.geometry) IS 'Whether a point (SRID 4326) lies in Kenya, with the tolerance of tickets.geo_country.reach. False for NULL, for what is no longitude/latitude, and so for 0,0 and for swapped axes.';

CREATE FUNCTION tickets.to_degrees(value text) RETURNS double precision
    LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE
    AS $_$
begin
  if value = '' then
    return null;
  end if;
  value := btrim(value, E' \t\r\n');
  if length(value) > 40 or value collate "C" !~ '^[+-]?[0-9]{1,3}(?:\.[0-9]*)?$' then
    return null;
  end if;
  return value::double precision;
end
$_$;

COMMENT ON FUNCTION tickets.to_degrees(value text) IS 'A coordinate in plain decimal degrees, at most three digits before the point; NULL for anything else (NaN, 1e2, 1,29, 36°49''E). Whether it lies on earth is for the caller to ask.';

CREATE FUNCTION tickets.feed_point(raw jsonb) RETURNS public.geometry
    LANGUAGE sql STABLE PARALLEL SAFE
    RETURN CASE WHEN (((raw ->> 'latitude'::text) <> ''::text) AND ((raw ->> 'longitude'::text) <> ''::text) AND tickets.in_kenya(public.st_setsrid(public.st_makepoint(tickets.to_degrees((raw ->> 'longitude'::text)), tickets.to_degrees((raw ->> 'latitude'::text))), 4326))) THEN public.st_setsrid(public.st_makepoint(tickets.to_degrees((raw ->> 'longitude'::text)), tickets.to_degrees((raw ->> 'latitude'::text))), 4326) ELSE NULL::public.geometry END;

COMMENT ON FUNCTION tickets.feed_point(raw jsonb) IS 'The coordinates of a raw record (latitude, longitude) as a point (SRID 4326), if they read as numbers and lie in Kenya, else NULL. Swapped axes are not guessed at.';

CREATE FUNCTION tickets.fewest_for_comparison() RETURNS integer
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN 20;

COMMENT ON FUNCTION tickets.fewest_for_comparison() IS 'How many closings a team has at least where it is compared with others: with fewer a row is marked low_n and not ranked.';

CREATE FUNCTION tickets.fewest_for_percentile() RETURNS integer
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN 5;

COMMENT ON FUNCTION tickets.fewest_for_percentile() IS 'How many values a percentile is made of at least: of fewer it is NULL, since it would be a single ticket''s time.';

CREATE TABLE tickets.crq (
    ticket_id text NOT NULL,
    raw jsonb NOT NULL,
    geom public.geometry(Point,4326),
    geo_source text DEFAULT 'none'::text NOT NULL,
    ingested_at timestamp with time zone DEFAULT now() NOT NULL,
    normalized_status text GENERATED ALWAYS AS (NULLIF((raw ->> 'normalized_status'::text), ''::text)) STORED,
    raw_status text GENERATED ALWAYS AS (NULLIF((raw ->> 'raw_status'::text), ''::text)) STORED,
    bucket text GENERATED ALWAYS AS (NULLIF((raw ->> 'bucket'::text), ''::text)) STORED,
    is_actionable boolean GENERATED ALWAYS AS (tickets.to_boolean((raw ->> 'is_actionable'::text))) STORED,
    cluster text GENERATED ALWAYS AS (NULLIF((raw ->> 'cluster'::text), ''::text)) STORED,
    region text GENERATED ALWAYS AS (NULLIF((raw ->> 'region'::text), ''::text)) STORED,
    location_name text GENERATED ALWAYS AS (NULLIF((raw ->> 'location_name'::text), ''::text)) STORED,
    location_key text GENERATED ALWAYS AS (tickets.location_key((raw ->> 'location_name'::text))) STORED,
    assigned_team text GENERATED ALWAYS AS (NULLIF((raw ->> 'assigned_team'::text), ''::text)) STORED,
    owner text GENERATED ALWAYS AS (NULLIF((raw ->> 'owner'::text), ''::text)) STORED,
    sla_status text GENERATED ALWAYS AS (NULLIF((raw ->> 'sla_status'::text), ''::text)) STORED,
    mttr numeric GENERATED ALWAYS AS (tickets.hours_to_minutes((raw ->> 'mttr'::text))) STORED,
    created_at_service timestamp with time zone GENERATED ALWAYS AS (tickets.eat_ts((raw ->> 'created_at_service'::text))) STORED,
    scheduled_at timestamp with time zone GENERATED ALWAYS AS (tickets.eat_ts((raw ->> 'scheduled_at'::text))) STORED,
    closed_at timestamp with time zone GENERATED ALWAYS AS (tickets.eat_ts((raw ->> 'closed_at'::text))) STORED,
    first_seen_at timestamp with time zone GENERATED ALWAYS AS (tickets.eat_ts((raw ->> 'first_seen_at'::text))) STORED,
    last_seen_at timestamp with time zone GENERATED ALWAYS AS (tickets.eat_ts((raw ->> 'last_seen_at'::text))) STORED,
    source_created_at timestamp with time zone GENERATED ALWAYS AS (tickets.eat_ts((raw ->> 'source_created_at'::text))) STORED,
    source_updated_at timestamp with time zone GENERATED ALWAYS AS (tickets.eat_ts((raw ->> 'source_updated_at'::text))) STORED,
    latitude double precision GENERATED ALWAYS AS (public.st_y(geom)) STORED,
    longitude double precision GENERATED ALWAYS AS (public.st_x(geom)) STORED,
    geog public.geography(Point,4326) GENERATED ALWAYS AS ((geom)::public.geography) STORED,
    CONSTRAINT inc_geo_source_check CHECK ((geo_source = ANY (ARRAY['feed'::text, 'location'::text, 'cluster'::text, 'none'::text]))),
    CONSTRAINT inc_geom_is_lng_lat CHECK (tickets.is_lng_lat(geom)),
    CONSTRAINT inc_placed_by_its_source CHECK (((geom IS NULL) = (geo_source = 'none'::text))),
    CONSTRAINT inc_ticket_id_check CHECK (((length(ticket_id) >= 1) AND (length(ticket_id) <= 200)))
);

COMMENT ON TABLE tickets.crq IS 'CRQ new-installation requests: the same raw-first table as tickets.inc, with its columns. Loaded where CRQ_ENABLED=true.';

COMMENT ON COLUMN tickets.crq.ticket_id IS 'The ticket''s number, like WOT0715527.';

COMMENT ON COLUMN tickets.crq.raw IS 'The source record as the feed gave it, cleaned: the source of truth for every typed column.';

COMMENT ON COLUMN tickets.crq.geom IS 'Best known place, for display: feed coordinates, else the geocoded location, else the cluster''s centroid. Set by trigger.';

COMMENT ON COLUMN tickets.crq.geo_source IS 'Where geom comes from, which is its precision: feed, location, cluster (a centroid: do not read it as an address) or none.';

COMMENT ON COLUMN tickets.crq.ingested_at IS 'When a snapshot last wrote this row. An unchanged row is not written, so it does not move.';

COMMENT ON COLUMN tickets.crq.normalized_status IS 'The canonical status: filter on this one.';

COMMENT ON COLUMN tickets.crq.raw_status IS 'The source system''s own status, upper case. Filter on normalized_status instead.';

COMMENT ON COLUMN tickets.crq.bucket IS 'Lifecycle flag of the export: closed or pending.';

COMMENT ON COLUMN tickets.crq.is_actionable IS 'Open = true.';

COMMENT ON COLUMN tickets.crq.cluster IS 'Network cluster as the feed wrote it; tickets.cluster_key(cluster) joins it to tickets.geo_clusters.';

COMMENT ON COLUMN tickets.crq.region IS 'Region, lower case.';

COMMENT ON COLUMN tickets.crq.location_name IS 'The place as field staff typed it, network codes included.';

COMMENT ON COLUMN tickets.crq.location_key IS 'tickets.location_key(location_name): with the cluster it names the place in tickets.geo_locations.';

COMMENT ON COLUMN tickets.crq.assigned_team IS 'Team the ticket is assigned to.';

COMMENT ON COLUMN tickets.crq.owner IS 'Owner of the ticket: a dimension of closure attribution.';

COMMENT ON COLUMN tickets.crq.sla_status IS 'Source Compliant/Breached. Means something only once the ticket is closed, and does not match a plain 48 h: for open tickets use tickets.inc_open_sla.';

COMMENT ON COLUMN tickets.crq.mttr IS 'Whole minutes (the source has decimal hours). It is not closed_at - created_at_service. NULL until closed.';

COMMENT ON COLUMN tickets.crq.created_at_service IS 'Lifecycle start. Missing on about 30 % of rows, most of them open.';

COMMENT ON COLUMN tickets.crq.scheduled_at IS 'When the visit is scheduled.';

COMMENT ON COLUMN tickets.crq.closed_at IS 'Lifecycle end.';

COMMENT ON COLUMN tickets.crq.first_seen_at IS 'Bookkeeping of the export, not lifecycle: when the export first saw the ticket.';

COMMENT ON COLUMN tickets.crq.last_seen_at IS 'Bookkeeping of the export, not lifecycle: when the export last saw the ticket.';

COMMENT ON COLUMN tickets.crq.source_created_at IS 'Bookkeeping of the export, not lifecycle.';

COMMENT ON COLUMN tickets.crq.source_updated_at IS 'Bookkeeping of the export, not lifecycle.';

COMMENT ON COLUMN tickets.crq.latitude IS 'ST_Y(geom): never a coordinate that geom refused.';

COMMENT ON COLUMN tickets.crq.longitude IS 'ST_X(geom): never a coordinate that geom refused.';

COMMENT ON COLUMN tickets.crq.geog IS 'geom as geography: distances in metres, for routing and nearest-ticket queries.';

CREATE FUNCTION tickets.filtered_crq(p_open boolean, p_mapped boolean, p_cluster text, p_region text, p_team text) RETURNS SETOF tickets.crq
    LANGUAGE sql STABLE PARALLEL SAFE
    AS $$
  select t.*
  from tickets.crq t
  where case p_open when true then t.is_actionable when false then t.is_actionable is not true else false end
    and (not p_mapped or t.longitude is not null)
    and tickets.is_of(t.cluster, t.region, t.assigned_team, p_cluster, p_region, p_team)
$$;

COMMENT ON FUNCTION tickets.filtered_crq(p_open boolean, p_mapped boolean, p_cluster text, p_region text, p_team text) IS 'As tickets.filtered_tickets, of tickets.crq.';

CREATE FUNCTION tickets.filtered_tickets(p_open boolean, p_mapped boolean, p_cluster text, p_region text, p_team text) RETURNS SETOF tickets.inc
    LANGUAGE sql STABLE PARALLEL SAFE
    AS $$
  select t.*
  from tickets.inc t
  where case p_open when true then t.is_actionable when false then t.is_actionable is not true else false end
    and (not p_mapped or t.longitude is not null)
    and tickets.is_of(t.cluster, t.region, t.assigned_team, p_cluster, p_region, p_team)
$$;

COMMENT ON FUNCTION tickets.filtered_tickets(p_open boolean, p_mapped boolean, p_cluster text, p_region text, p_team text) IS 'The tickets that a map function is asked for: the open ones (p_open true), all others (false) or none (NULL); p_mapped: only those with a place; of exactly that cluster, region and assigned_team, each in any case and whatever blanks are around it, where NULL means all.';

CREATE FUNCTION tickets.freshness(p_dataset text DEFAULT 'inc'::text) RETURNS TABLE(snapshot_at timestamp with time zone, ingested_at timestamp with time zone, checked_at timestamp with time zone, age_minutes numeric, content_through timestamp with time zone, source_key text, problem text)
    LANGUAGE plpgsql STABLE SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
begin
  if p_dataset is null or p_dataset not in ('inc', 'crq') then
    raise exception 'There is no dataset %: inc or crq.', coalesce(p_dataset, 'NULL') using errcode = 'invalid_parameter_value';
  end if;
  return query
    select
      meta.snapshot_at, meta.ingested_at, meta.checked_at,
      floor(extract(epoch from now() - meta.snapshot_at) / 60),
      tickets_ops.content_through(p_dataset),
      meta.source_key,
      -- The age alone does not tell: most hours nothing changes, and at night nobody looks.
      (select f.problem from tickets_ops.feed_problems(p_dataset) f where f.severity = 'fault' limit 1)
    from (select) as one
    left join lateral (
      select
        tickets.eat_ts(m.metadata ->> 'snapshot_at') as snapshot_at,
        tickets.eat_ts(m.metadata ->> 'ingested_at') as ingested_at,
        tickets.eat_ts(m.metadata ->> 'checked_at') as checked_at,
        m.metadata ->> 'source_key' as source_key
      from tickets.import_meta m
      where m.dataset = p_dataset
    ) as meta on true;
end
$$;

COMMENT ON FUNCTION tickets.freshness(p_dataset text) IS 'Freshness of the tickets of a dataset (inc, crq), one row: snapshot_at (the export''s time), ingested_at (when its rows came in), checked_at (when the bucket was last looked at), age_minutes (since snapshot_at), content_through (newest created_at_service or closed_at of all tickets that is not in the future: the content trails the files by days), source_key, and problem: why the feed does not count as alive, in words (tickets_ops.feed_problems), NULL while it does. NULLs before the first load. Raises for another dataset.';

CREATE FUNCTION tickets.freshnesses() RETURNS text[]
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN ARRAY['live'::text, 'parked'::text, 'stale'::text, 'lost'::text, 'clock'::text, 'nowhere'::text];

COMMENT ON FUNCTION tickets.freshnesses() IS 'What tickets.vehicles_now.freshness may be, the most trustworthy first.';

CREATE FUNCTION tickets.gazetteer_joins(p_cluster text, p_location_key text) RETURNS text
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN format('
  left join tickets.geo_locations l
    on tickets.cluster_key(l.cluster) = tickets.cluster_key(%1$s) and l.location_key = %2$s and tickets.places_tickets(l.status) -- index geo_locations_place
  left join tickets.geo_clusters c on tickets.cluster_key(c.cluster) = tickets.cluster_key(%1$s) -- index geo_clusters_key
'::text, p_cluster, p_location_key);

COMMENT ON FUNCTION tickets.gazetteer_joins(p_cluster text, p_location_key text) IS 'SQL that joins what the gazetteers know of a place, as l (its geocoded location) and c (its cluster), to the FROM clause before it. p_cluster, p_location_key: expressions of that clause. A text, because a statement over a whole table must be able to hash it.';

CREATE FUNCTION tickets.gazetteer_lock() RETURNS bigint
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN '7405120260615'::bigint;

COMMENT ON FUNCTION tickets.gazetteer_lock() IS 'Key of the advisory lock: shared by transactions that write tickets, held alone by those that write a gazetteer.';

CREATE FUNCTION tickets.geocode_cluster(cluster text, force boolean DEFAULT false) RETURNS TABLE(job_id bigint, job_key text, already_waiting boolean, note text)
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
#variable_conflict use_column
declare
  v_cluster text := tickets_ops.cluster_name(geocode_cluster.cluster);
  v_force boolean := coalesce(geocode_cluster.force, false);
begin
  if v_cluster is null then
    raise exception 'A cluster is needed.' using hint = 'select * from tickets.geocode_cluster(''Kilimani'');';
  end if;
  return query select * from tickets_ops.enqueue_on_demand(
    'geocode_cluster', tickets_ops.cluster_job_key(v_cluster), jsonb_build_object('cluster', v_cluster), v_force,
    (select q.state from tickets_ops.cluster_question(v_cluster, v_force) q)
  );
end
$$;

COMMENT ON FUNCTION tickets.geocode_cluster(cluster text, force boolean) IS 'Asks the provider where a cluster is, ahead of all planned places. force: although its centroid is known; never when a person verified it; also a cluster that no ticket and no gazetteer has. Returns the job''s id (NULL: nothing is asked) and key (a job that waits gets a new id, the key stays; see tickets_ops.jobs), whether a job for it waited already, and a note. Raises without a cluster.';

CREATE FUNCTION tickets.geocode_location(location_name text, cluster text, force boolean DEFAULT false) RETURNS TABLE(job_id bigint, job_key text, already_waiting boolean, note text)
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
#variable_conflict use_column
declare
  v_cluster text := tickets_ops.cluster_name(geocode_location.cluster);
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
  return query select * from tickets_ops.enqueue_on_demand(
    'geocode_location', tickets_ops.location_job_key(v_cluster, v_key),
    jsonb_build_object('location_name', geocode_location.location_name, 'cluster', v_cluster), v_force,
    (select q.state from tickets_ops.location_question(geocode_location.location_name, v_cluster, v_force) q)
  );
end
$$;

COMMENT ON FUNCTION tickets.geocode_location(location_name text, cluster text, force boolean) IS 'Asks the provider where a place of a cluster is, ahead of all planned ones: select * from tickets.geocode_location(''NW_Kilimani_FDT3'', ''Kilimani''). location_name as field staff typed it. force: although an answer is known, or no ticket and no gazetteer has the cluster; never when a person verified it. Returns the job''s id (NULL: nothing is asked) and key (a job that waits gets a new id, the key stays; see tickets_ops.jobs), whether a job for it waited already, and a note. Raises without a cluster, or when nothing but network codes is left of the name.';

CREATE FUNCTION tickets.geohash(p_longitude double precision, p_latitude double precision) RETURNS text
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN public.st_geohash(public.st_setsrid(public.st_makepoint(p_longitude, p_latitude), 4326));

COMMENT ON FUNCTION tickets.geohash(p_longitude double precision, p_latitude double precision) IS 'The geohash of a WGS 84 coordinate in full length (20 characters, well below a millimetre).';

CREATE FUNCTION tickets.has_short_names(ticket_id text, cluster text, region text, location_key text, location_name text) RETURNS boolean
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN (tickets.bytes_of_names(ticket_id, cluster, region, location_key, location_name) <= 2000);

COMMENT ON FUNCTION tickets.has_short_names(ticket_id text, cluster text, region text, location_key text, location_name text) IS 'Whether the texts by which tickets.places() counts a ticket may be part of an index: a B-tree refuses an entry of 2 704 bytes.';

CREATE FUNCTION tickets.inc_backlog_daily(p_from date, p_to date, p_by text DEFAULT NULL::text) RETURNS TABLE(day date, starts_at timestamp with time zone, value text, open bigint, open_breached bigint, open_at_risk bigint, open_unknown bigint, aged_0_24h bigint, aged_24_48h bigint, aged_2_7d bigint, aged_7_30d bigint, aged_over_30d bigint, opened bigint, reopened bigint, closed bigint, net bigint, observed boolean)
    LANGUAGE plpgsql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET plan_cache_mode TO 'force_custom_plan'
    SET jit TO 'off'
    SET work_mem TO '64MB'
    AS $$
#variable_conflict use_column
begin
  perform tickets.check_question(p_from, p_to, 'day', p_by, tickets.daily_dimensions());
  return query
  with days as (
    select d.day, tickets.eat_midnight(d.day) as starts_at, look.day as seen -- the last day with a look
    from (select p_from + n as day from generate_series(0, p_to - p_from - 1) as n) as d
    left join lateral (
      select i.day from tickets.inc_daily i where i.day <= d.day order by i.day desc limit 1 -- primary key
    ) as look on d.day <= greatest(look.day, tickets.eat_day(now()))
  ),
  listed as (
    -- The values of the range, as they were recorded and as they are shown. Numbered in their order, because numbers are sorted
    -- in a third of the time that texts take.
    select w.recorded, v.shown, dense_rank() over (order by v.shown) as rank
    from (
      select distinct coalesce(tickets.dimension(p_by, i.assigned_team, i.cluster, i.region, null, null), '') as recorded
      from tickets.inc_daily i -- primary key
      where i.day >= (select min(d.seen) from days d) and i.day < p_to
        -- What came and went on the day that is carried into the range is not of the range.
        and (i.open > 0 or (i.day >= p_from and i.opened + i.reopened + i.closed > 0))
      union
      select '' where p_by is null
    ) as w
    left join tickets.cluster_spellings(p_by) s on p_by = 'cluster' and s.cluster_key = tickets.cluster_key(w.recorded)
    cross join lateral (select tickets.shown_value(p_by, w.recorded, s.spelling) as shown) as v
  )
  select
    c.day, c.starts_at, case when p_by is not null then c.shown end,
    -- Nothing of this value was open: 0. Nobody has looked yet: NULL.
    coalesce(c.open, c.zero), case when c.open is null then c.zero else c.open_breached end,
    case when c.open is null then c.zero else c.open_at_risk end, case when c.open is null then c.zero else c.open_unknown end,
    case when c.open is null then c.zero else c.aged_0_24h end, case when c.open is null then c.zero else c.aged_24_48h end,
    case when c.open is null then c.zero else c.aged_2_7d end, case when c.open is null then c.zero else c.aged_7_30d end,
    case when c.open is null then c.zero else c.aged_over_30d end,
    -- A day that is carried forward brought nothing.
    case when c.observed then coalesce(c.opened, 0) else 0 end, case when c.observed then coalesce(c.reopened, 0) else 0 end,
    case when c.observed then coalesce(c.closed, 0) else 0 end,
    case when c.observed then coalesce(c.opened + c.reopened - c.closed, 0) else 0 end,
    c.observed
  from (
    -- Sorted in here, before the columns above are made: rows are copied for it.
    select d.day, d.starts_at, d.seen is not distinct from d.day as observed, case when d.seen is not null then 0::bigint end as zero, sums.*
    from days d
    -- Day by day, so that what is summed and sorted at a time is small: half of the time that it takes for all days at once.
    cross join lateral (
      select
        v.rank, v.shown,
        sum(i.open) as open, sum(i.open_breached) as open_breached, sum(i.open_at_risk) as open_at_risk, sum(i.open_unknown) as open_unknown,
        sum(i.aged_0_24h) as aged_0_24h, sum(i.aged_24_48h) as aged_24_48h, sum(i.aged_2_7d) as aged_2_7d,
        sum(i.aged_7_30d) as aged_7_30d, sum(i.aged_over_30d) as aged_over_30d,
        sum(i.opened) as opened, sum(i.reopened) as reopened, sum(i.closed) as closed
      from listed v
      left join tickets.inc_daily i -- primary key
        on i.day = d.seen and coalesce(tickets.dimension(p_by, i.assigned_team, i.cluster, i.region, null, null), '') = v.recorded
      group by v.shown, v.rank
      order by v.rank
    ) as sums
    order by d.day, sums.rank
  ) as c;
end
$$;

COMMENT ON FUNCTION tickets.inc_backlog_daily(p_from date, p_to date, p_by text) IS 'The open backlog at the end of each day, and what changed it, in observed time (the snapshots'' own): these figures are never revised. A row for each day, and for each value of p_by in the range.

Arguments: [p_from, p_to), days in Nairobi; p_by: team, cluster, region, or NULL for all together.

day; starts_at: its midnight in Nairobi, for charts. value: of p_by on that day (clusters as in tickets.cluster_spellings), "(none)" where there is none. open: tickets open after the day''s last look at the bucket. open_breached, open_at_risk, open_unknown: of these by the SLA as of that look (unknown: no clock). aged_0_24h … aged_over_30d: of these by their age as of that look; they add up to open - open_unknown. All of these are NULL where the day was rebuilt from the history, which tells no clocks. opened: tickets first seen open. reopened. closed: tickets that left the backlog, at the values that they closed with; those first seen closed never were in it. net: opened + reopened - closed. observed: the bucket was looked at on that day; else the day before is carried forward, and what changed is told on the next observed day. open is NULL before the first look and after today.

Without p_by open is that of the day before plus net. With p_by it need not be: tickets move between teams. Trap: closed here is not tickets.inc_flow''s, which counts all closings, when they happened.';

CREATE FUNCTION tickets.inc_flow(p_from date, p_to date, p_step text DEFAULT 'day'::text, p_by text DEFAULT NULL::text) RETURNS TABLE(period date, starts_at timestamp with time zone, value text, created bigint, closed bigint, closed_final bigint, reopened bigint, net bigint, undated bigint, clock_known_pct numeric, provisional boolean)
    LANGUAGE plpgsql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET plan_cache_mode TO 'force_custom_plan'
    SET jit TO 'off'
    SET random_page_cost TO '1.1'
    SET parallel_setup_cost TO '20000'
    SET max_parallel_workers_per_gather TO '1'
    AS $$
#variable_conflict use_column
declare
  v_from timestamptz := tickets.eat_midnight(p_from);
  v_to timestamptz := tickets.eat_midnight(p_to);
  v_settled timestamptz := tickets.settled_through();
  v_starts timestamptz[];
begin
  perform tickets.check_question(p_from, p_to, p_step, p_by, tickets.dimensions());
  v_starts := array(select p.counted_from from tickets.periods(p_from, p_to, p_step) p order by p.n);
  return query
  with counted as (
    -- In one pass, which a year's question shares out among workers as a whole.
    select
      width_bucket(h.at, v_starts) as n, tickets.dimension(p_by, h.assigned_team, h.cluster, h.region, h.owner, h.status) as value,
      count(*) filter (where h.what = 1) as created, count(*) filter (where h.clock_known) as known,
      count(*) filter (where h.what = 2) as closed, count(*) filter (where h.is_final) as closed_final,
      count(*) filter (where h.what = 3) as undated, count(*) filter (where h.what = 4) as reopened
    from (
      select
        1 as what, c.started_at as at, e.assigned_team, e.cluster, e.region, e.owner, e.new_value as status, -- as it was first seen
        c.source = 'created_at_service' as clock_known, false as is_final
      from tickets.inc_clock c -- indexes inc_created_at_service, inc_first_seen_at
      left join tickets.inc_events e -- index inc_events_first
        on e.ticket_id = c.ticket_id and tickets.is_first_sight(e.event, e.old_value) and p_by is not null
      where c.started_at >= v_from and c.started_at < v_to
      union all
      select 2, c.closed_at, c.assigned_team, c.cluster, c.region, c.owner, c.normalized_status, false, c.is_final
      from tickets.inc_closures c
      where c.closed_at >= v_from and c.closed_at < v_to
      union all
      select 3, c.observed_at, c.assigned_team, c.cluster, c.region, c.owner, c.normalized_status, false, false
      from tickets.inc_closures c
      where c.closed_at is null and c.observed and c.observed_at >= v_from and c.observed_at < v_to
      union all
      select 4, e.snapshot_at, e.assigned_team, e.cluster, e.region, e.owner, e.new_value, false, false
      from tickets.inc_events e -- index inc_events_revisions
      where e.event = 'reopened' and e.snapshot_at >= v_from and e.snapshot_at < v_to
    ) as h
    group by 1, 2
  ),
  summed as (
    select
      c.n, tickets.shown_value(p_by, c.value, s.spelling) as value,
      sum(c.created)::bigint as created, sum(c.known)::bigint as known, sum(c.closed)::bigint as closed,
      sum(c.closed_final)::bigint as closed_final, sum(c.undated)::bigint as undated, sum(c.reopened)::bigint as reopened
    from counted c left join tickets.cluster_spellings(p_by) s on p_by = 'cluster' and s.cluster_key = tickets.cluster_key(c.value)
    group by 1, 2
  ),
  filled as (
    -- Every value of the range in every period; all together also where there is none.
    select
      p.n, p.period, p.starts_at, p.counted_to, v.value, coalesce(s.created, 0) as created, coalesce(s.closed, 0) as closed,
      coalesce(s.closed_final, 0) as closed_final, coalesce(s.reopened, 0) as reopened, coalesce(s.undated, 0) as undated, s.known
    from tickets.periods(p_from, p_to, p_step) p
    cross join (select value from summed union select '(none)' where p_by is null) as v
    left join summed s on s.n = p.n and s.value = v.value
  )
  select
    f.period, f.starts_at, case when p_by is not null then f.value end, f.created, f.closed, f.closed_final, f.reopened,
    f.created + f.reopened - f.closed, f.undated, round(100.0 * f.known / nullif(f.created, 0), 1),
    (f.counted_to <= v_settled) is not true
  from filled f
  order by f.n, f.value;
end
$$;

COMMENT ON FUNCTION tickets.inc_flow(p_from date, p_to date, p_step text, p_by text) IS 'Inflow and outflow by period, in lifecycle time: counted when it happened, not when it was told. So a period grows for days after its end: see provisional. A row for each period, and for each value of p_by in the range, zeros included.

Arguments: [p_from, p_to), days in Nairobi; p_step: day, week (ISO, from Monday) or month; p_by: team, cluster, region, owner, status, or NULL for all together. A range that begins or ends within a period counts what is in the range.

period: first day of the period. starts_at: its midnight in Nairobi, for charts. value: of p_by (clusters as in tickets.cluster_spellings), "(none)" where there is none, NULL without p_by. created: tickets whose clock started (created_at_service, else first_seen_at), at the values that they were first seen with. closed: closings by closed_at, those included that were undone since, at the values of the snapshot that first showed them. closed_final: of these, those that still stand. reopened: tickets seen open again, by the time of the snapshot, as the source tells none. net: created + reopened - closed; of what was told with a time. undated: closings seen in the period whose closed_at the source does not tell: not in closed. clock_known_pct: of created, the share with created_at_service; the others are counted when the export first saw them, up to days late. provisional: the period ends after tickets.settled_through().

Trap: this is not the backlog''s change by day, for which see tickets.inc_backlog_daily(); do not mix the two.';

CREATE FUNCTION tickets.inc_repair_times(p_from date, p_to date, p_step text DEFAULT 'week'::text, p_by text DEFAULT NULL::text) RETURNS TABLE(period date, starts_at timestamp with time zone, value text, n bigint, mttr_known_pct numeric, mttr_mean numeric, mttr_median numeric, mttr_p80 numeric, mttr_p95 numeric, hours_known_pct numeric, clock_known_pct numeric, hours_mean numeric, hours_median numeric, hours_p80 numeric, hours_p95 numeric, within_24h_pct numeric, within_48h_pct numeric, source_compliant_pct numeric, reopened_pct numeric, reopened_mature boolean, provisional boolean)
    LANGUAGE plpgsql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET plan_cache_mode TO 'force_custom_plan'
    SET jit TO 'off'
    SET random_page_cost TO '1.1'
    AS $$
#variable_conflict use_column
declare
  v_starts timestamptz[];
  v_settled timestamptz := tickets.settled_through();
begin
  perform tickets.check_question(p_from, p_to, p_step, p_by, tickets.dimensions());
  v_starts := array(select p.counted_from from tickets.periods(p_from, p_to, p_step) p order by p.n);
  return query
  with closings as (
    select
      width_bucket(c.closed_at, v_starts) as bucket,
      tickets.shown_value(
        p_by, tickets.dimension(p_by, c.assigned_team, c.cluster, c.region, c.owner, c.normalized_status), s.spelling
      ) as value,
      c.mttr_minutes, c.hours_to_close, c.clock_source, c.within_24h, c.within_48h, c.source_sla_status,
      c.reopened_at <= c.closed_at + tickets.reopening_window() as reopened
    from tickets.inc_closures c
    left join tickets.cluster_spellings(p_by) s on p_by = 'cluster' and s.cluster_key = tickets.cluster_key(c.cluster)
    where c.closed_at >= tickets.eat_midnight(p_from) and c.closed_at < tickets.eat_midnight(p_to)
  ),
  measured as (
    select
      c.bucket, c.value, count(*) as n,
      count(c.mttr_minutes) as mttr_known, avg(c.mttr_minutes) as mttr_mean,
      case when count(c.mttr_minutes) >= tickets.fewest_for_percentile() then
        percentile_disc(array[0.5, 0.8, 0.95]) within group (order by c.mttr_minutes)
      end as mttr,
      count(c.hours_to_close) as hours_known, avg(c.hours_to_close) as hours_mean,
      case when count(c.hours_to_close) >= tickets.fewest_for_percentile() then
        percentile_disc(array[0.5, 0.8, 0.95]) within group (order by c.hours_to_close)
      end as hours,
      count(*) filter (where c.clock_source = 'created_at_service') as clock_known,
      count(*) filter (where c.within_24h) as within_24h, count(*) filter (where c.within_48h) as within_48h,
      count(*) filter (where tickets.kept_by_source(c.source_sla_status)) as compliant, count(c.source_sla_status) as told,
      count(*) filter (where c.reopened) as reopened
    from closings c group by c.bucket, c.value
  )
  select
    p.period, p.starts_at, case when p_by is not null then v.value end, coalesce(m.n, 0),
    round(100.0 * m.mttr_known / m.n, 1), round(m.mttr_mean, 1),
    m.mttr[1], m.mttr[2], m.mttr[3],
    round(100.0 * m.hours_known / m.n, 1), round(100.0 * m.clock_known / m.n, 1), round(m.hours_mean, 2),
    m.hours[1], m.hours[2], m.hours[3],
    round(100.0 * m.within_24h / nullif(m.hours_known, 0), 1), round(100.0 * m.within_48h / nullif(m.hours_known, 0), 1),
    round(100.0 * m.compliant / nullif(m.told, 0), 1), round(100.0 * m.reopened / m.n, 1),
    coalesce(p.counted_to + tickets.reopening_window() <= v_settled, false),
    (p.counted_to <= v_settled) is not true
  from tickets.periods(p_from, p_to, p_step) p
  cross join (select m.value from measured m union select '(none)' where p_by is null) as v
  left join measured m on m.bucket = p.n and m.value = v.value
  order by p.n, v.value;
end
$$;

COMMENT ON FUNCTION tickets.inc_repair_times(p_from date, p_to date, p_step text, p_by text) IS 'How long repairs took, by the period of the closing (closed_at, lifecycle time). Population: the closings of tickets.inc_closures in the period, those that were undone since included. A row for each period, and for each value of p_by in the range.

Arguments: as tickets.inc_flow().

period, starts_at, value: as there. n: closings. mttr_…: the source''s own figure in minutes; mttr_known_pct: share of n that has one. hours_…: hours by the wall clock from the ticket''s clock to closed_at; hours_known_pct: share of n for which it is known and not negative; clock_known_pct: share whose clock is created_at_service, not first_seen_at. …_mean: the average, which a few long ones move. …_median, …_p80, …_p95: the time within which the fastest half, 80 %, 95 % were done (fault repair time of ETSI EG 202 057): a time that occurred, not one between two; NULL under 5 known values. within_24h_pct, within_48h_pct: of those with known hours, at most so long. source_compliant_pct: of those with a verdict of the source, Compliant: its verdict is shown, not checked. reopened_pct: share of n that was reopened within 30 days; reopened_mature: these 30 days are over for the whole period, so the share is final. provisional: the period ends after tickets.settled_through().

Traps: it says nothing of tickets that are still open: for that see tickets.inc_time_to_close(). The feed has no pauses of the SLA. Two figures differ because mttr leaves waiting out.';

CREATE FUNCTION tickets.inc_team_scorecard(p_from date, p_to date) RETURNS TABLE(assigned_team text, closed bigint, closed_final bigint, share_pct numeric, reopened_pct numeric, mttr_median numeric, hours_p80 numeric, within_48h_pct numeric, received bigint, handed_over bigint, open_now bigint, breached_now bigint, oldest_hours numeric, low_n boolean)
    LANGUAGE plpgsql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET plan_cache_mode TO 'force_custom_plan'
    SET jit TO 'off'
    SET random_page_cost TO '1.1'
    AS $$
#variable_conflict use_column
declare
  v_from timestamptz := tickets.eat_midnight(p_from);
  v_to timestamptz := tickets.eat_midnight(p_to);
begin
  perform tickets.check_question(p_from, p_to, 'day', null, null);
  return query
  with closings as (
    select
      coalesce(c.assigned_team, '(none)') as team, count(*) as closed, count(*) filter (where c.is_final) as closed_final,
      count(*) filter (where c.reopened_at <= c.closed_at + tickets.reopening_window()) as reopened,
      count(c.mttr_minutes) as mttr_known, percentile_disc(0.5) within group (order by c.mttr_minutes) as mttr_median,
      count(c.hours_to_close) as hours_known, percentile_disc(0.8) within group (order by c.hours_to_close) as hours_p80,
      count(*) filter (where c.within_48h) as within_48h
    from tickets.inc_closures c
    where c.closed_at >= v_from and c.closed_at < v_to -- index inc_events_closed_at
    group by 1
  ),
  moves as (
    select coalesce(tickets.name_in_history(e.old_value), '(none)') as from_team, coalesce(tickets.name_in_history(e.new_value), '(none)') as to_team
    from tickets.inc_events e -- index inc_events_time
    where e.event = 'team_changed' and e.snapshot_at >= v_from and e.snapshot_at < v_to
      -- Of open tickets, or such as closed or opened in the same snapshot: what happens next tells which it was.
      and coalesce((
        select n.event = 'closed' or n.snapshot_id = e.snapshot_id
        from tickets.inc_events n -- index inc_events_ticket
        where n.ticket_id = e.ticket_id and n.event in ('closed', 'reopened') and (n.event_id > e.event_id or n.snapshot_id = e.snapshot_id)
        order by n.event_id limit 1
      ), exists (select from tickets.inc t where t.ticket_id = e.ticket_id and t.is_actionable))
  ),
  moved as (
    select m.team, count(*) filter (where m.how = 'received') as received, count(*) filter (where m.how = 'handed over') as handed_over
    from (select to_team as team, 'received' as how from moves union all select from_team, 'handed over' from moves) as m
    group by m.team
  ),
  waiting as (
    select
      coalesce(tickets.name_in_history(o.assigned_team), '(none)') as team, count(*) as open, count(*) filter (where o.sla_state = 'breached') as breached,
      max(o.hours_open) as oldest
    from tickets.inc_open_sla o
    group by 1
  )
  select
    team, coalesce(c.closed, 0), coalesce(c.closed_final, 0), round(100.0 * coalesce(c.closed, 0) / nullif(sum(c.closed) over (), 0), 1),
    round(100.0 * c.reopened / c.closed, 1), case when c.mttr_known >= tickets.fewest_for_percentile() then c.mttr_median end,
    case when c.hours_known >= tickets.fewest_for_percentile() then c.hours_p80 end, round(100.0 * c.within_48h / nullif(c.hours_known, 0), 1),
    coalesce(m.received, 0), coalesce(m.handed_over, 0), coalesce(w.open, 0), coalesce(w.breached, 0), w.oldest,
    low_n
  from closings c
  full join moved m using (team)
  full join waiting w using (team)
  cross join lateral (select coalesce(c.closed, 0) < tickets.fewest_for_comparison() as low_n) as comparison
  -- The many closings first; the others by name, so that they are not ranked.
  order by low_n, case when not low_n then c.closed end desc, team;
end
$$;

COMMENT ON FUNCTION tickets.inc_team_scorecard(p_from date, p_to date) IS 'What each team did in [p_from, p_to), days in Nairobi, and what it has on its hands now. One row for each team that closed, moved or has something; "(none)" for tickets without a team.

closed: closings by closed_at, credited to the team of the snapshot that first showed them. closed_final: of these, those that still stand. share_pct: share of all closings. reopened_pct: of closed, reopened within 30 days (for a young range still growing). mttr_median: the source''s minutes; hours_p80: hours by the wall clock within which the fastest 80 % were closed; NULL under 5 known values. within_48h_pct: of those with known hours. received, handed_over: moves of open tickets to and from the team, by the snapshots'' own time. open_now, breached_now, oldest_hours: as in tickets.inc_open_sla, now, whatever the range is. low_n: under 20 closings: too few for a comparison. Those rows come last, by name: no ranking should be made of them.

Traps: a team that closes what others worked on gets the credit: see handed_over, and handover_at_close in tickets.inc_closures. Teams differ in what they are given: a share is no quality.';

CREATE FUNCTION tickets.inc_time_to_close(p_from date, p_to date, p_by text DEFAULT NULL::text) RETURNS TABLE(value text, opened bigint, closed bigint, still_open bigint, clock_known_pct numeric, within_24h_pct numeric, within_48h_pct numeric, median_hours numeric, p80_hours numeric, p95_hours numeric, naive_mean_hours numeric, naive_median_hours numeric, through timestamp with time zone)
    LANGUAGE plpgsql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET plan_cache_mode TO 'force_custom_plan'
    SET jit TO 'off'
    SET random_page_cost TO '1.1'
    SET enable_nestloop TO 'off'
    AS $$
#variable_conflict use_column
declare
  v_from timestamptz := tickets.eat_midnight(p_from);
  v_through timestamptz := tickets.settled_through();
begin
  perform tickets.check_question(p_from, p_to, 'day', p_by, tickets.dimensions());
  return query
  with first_closings as (
    -- Those of the cohort are in this range, if their time is known (index inc_events_closed_at).
    select c.ticket_id, c.closed_at from tickets.inc_closures c where c.closure_no = 1 and c.is_final and c.closed_at >= v_from
  ),
  reopened as (
    select ticket_id, min(event_id) as event_id from tickets.inc_events where event = 'reopened' group by ticket_id -- index inc_events_revisions
  ),
  cohort as (
    select
      tickets.shown_value(p_by, tickets.dimension(p_by, e.assigned_team, e.cluster, e.region, e.owner, e.new_value), s.spelling) as value,
      c.source = 'created_at_service' as clock_known, c.started_at, r.ticket_id is not null or o.ticket_id is null as closed,
      -- tickets.time_to_close() written out: of a subquery it is not inlined (a tenth slower). A test holds them equal.
      case when ended.at >= c.started_at then date_part('epoch', ended.at - c.started_at) / 3600 end as hours, ended.at as ended_at
    from tickets.inc_clock c -- indexes inc_created_at_service, inc_first_seen_at
    left join tickets.inc_events e -- index inc_events_first
      on e.ticket_id = c.ticket_id and tickets.is_first_sight(e.event, e.old_value) and p_by is not null
    left join tickets.cluster_spellings(p_by) s on p_by = 'cluster' and s.cluster_key = tickets.cluster_key(e.cluster)
    left join first_closings f on f.ticket_id = c.ticket_id
    left join reopened r on r.ticket_id = c.ticket_id
    left join (select ticket_id from tickets.inc where is_actionable) as o on o.ticket_id = c.ticket_id -- index inc_open
    cross join lateral (
      select coalesce(f.closed_at, (
        -- Of one that was reopened, as it was last told before; one of before history is not in inc_closures.
        select l.closed_at from tickets.inc_events l -- index inc_events_ticket
        where l.ticket_id = r.ticket_id and l.event_id < r.event_id and l.event in ('baseline', 'closed', 'closure_corrected')
        order by l.event_id desc limit 1
      )) as at
    ) as ended
    where c.started_at >= v_from and c.started_at < tickets.eat_midnight(p_to)
  ),
  moments as (
    -- Of the closings after v_through only some have been told: counted beside open tickets that may have closed as soon, they
    -- would make all look quick. So a ticket that was open then is watched until then, whether it closed since or not; unless
    -- none of its value is open now, for then every closing has been told.
    -- Integers: their sums are no numerics, which take twice as long.
    select
      c.value, case when seen.ended then c.hours else date_part('epoch', v_through - c.started_at) / 3600 end as hours,
      count(*)::integer as tickets, (count(*) filter (where seen.ended))::integer as ended
    from cohort c
    left join (select distinct value from cohort where not closed) as unfinished on unfinished.value = c.value
    cross join lateral (select c.closed and (unfinished.value is null or c.ended_at <= v_through) as ended) as seen
    where c.hours is not null or not c.closed
    group by 1, 2
  ),
  -- Watched for a known time: not those that were closed before their clock started, or nobody knows when.
  watched as (
    select value, hours, ended, sum(tickets) over (partition by value order by hours desc) as at_risk
    from moments where hours >= 0
  ),
  curve as (
    select
      w.*,
      exp(sum(case when ended < at_risk then ln(1 - ended / at_risk::float8) else '-infinity' end) over (partition by value order by hours)) as still_open
    from watched w
  ),
  -- 1e-9: the logarithms' error must not move a quantile that the curve reaches exactly.
  quantiles as (
    select
      value, max(at_risk) as tickets,
      min(hours) filter (where still_open <= 0.5 + 1e-9) as median, min(hours) filter (where still_open <= 0.2 + 1e-9) as p80,
      min(hours) filter (where still_open <= 0.05 + 1e-9) as p95,
      case when max(hours) >= 24 or min(still_open) = 0 then 1 - coalesce(min(still_open) filter (where hours <= 24), 1) end as within_24h,
      case when max(hours) >= 48 or min(still_open) = 0 then 1 - coalesce(min(still_open) filter (where hours <= 48), 1) end as within_48h
    from curve group by value
  ),
  counted as (
    select
      value, count(*) as opened, count(*) filter (where closed) as closed, count(*) filter (where clock_known) as clock_known,
      count(hours) as hours_known, avg(hours) as naive_mean, percentile_disc(0.5) within group (order by hours) as naive_median
    from cohort group by value
  )
  select
    case when p_by is not null then v.value end, coalesce(c.opened, 0), coalesce(c.closed, 0), coalesce(c.opened - c.closed, 0),
    round(100.0 * c.clock_known / c.opened, 1), round(100 * q.within_24h::numeric, 1), round(100 * q.within_48h::numeric, 1),
    case when q.tickets >= tickets.fewest_for_percentile() then round(q.median::numeric, 2) end, case when q.tickets >= tickets.fewest_for_percentile() then round(q.p80::numeric, 2) end,
    case when q.tickets >= tickets.fewest_for_percentile() then round(q.p95::numeric, 2) end,
    round(c.naive_mean::numeric, 2), case when c.hours_known >= tickets.fewest_for_percentile() then round(c.naive_median::numeric, 2) end, v_through
  from (select c.value from counted c union select '(none)' where p_by is null) as v
  left join counted c on c.value = v.value
  left join quantiles q on q.value = v.value
  order by v.value;
end
$$;

COMMENT ON FUNCTION tickets.inc_time_to_close(p_from date, p_to date, p_by text) IS 'How long it takes until a ticket is closed for the first time, for the tickets whose clock started in [p_from, p_to), the still open ones included: an estimate by Kaplan-Meier. What was open at through is censored then (known to take longer than so far), whether it closed since or not: of the closings since then only some have been told. Where nothing is open any more, every closing counts. The naive figures leave the open ones out and are too short, the more so the younger the cohort. One row for each value of p_by.

Arguments: [p_from, p_to), days in Nairobi; p_by: team, cluster, region, owner, status, as first seen, or NULL for all together.

value: of p_by (clusters as in tickets.cluster_spellings), "(none)" where there is none. opened: tickets of the cohort. closed: of these, closed at least once. still_open: the others. clock_known_pct: share with created_at_service as the clock; the others count from first_seen_at, up to days late. within_24h_pct, within_48h_pct: estimated share closed at most so long after; NULL: none of the cohort was watched for so long. median_hours, p80_hours, p95_hours: estimated hours until half, 80 %, 95 % are closed; NULL: not so many are closed yet, or under 5 tickets were watched. naive_mean_hours, naive_median_hours (NULL under 5): of the closed ones alone, for comparison. through: tickets.settled_through().

Traps: tickets whose closing time is unknown or lies before their clock are counted in closed and left out of the estimate. A cohort of the last days is watched for hours only: most of it is NULL.';

CREATE FUNCTION tickets.is_first_sight(p_event text, p_old_value text) RETURNS boolean
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN ((p_event = ANY (ARRAY['baseline'::text, 'opened'::text])) OR ((p_event = 'closed'::text) AND (p_old_value IS NULL)));

COMMENT ON FUNCTION tickets.is_first_sight(p_event text, p_old_value text) IS 'Whether an event tells of a ticket for the first time: a baseline, first seen open, or first seen closed (whose old_value is NULL). The condition of the index inc_events_first.';

CREATE FUNCTION tickets.keep_spelling() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
begin
  new.cluster := coalesce(tickets.known_spelling(new.cluster), new.cluster);
  return new;
end
$$;

COMMENT ON FUNCTION tickets.keep_spelling() IS 'Trigger: a gazetteer row gets the spelling of its cluster that the gazetteers have already.';

CREATE FUNCTION tickets.kept_by_source(p_verdict text) RETURNS boolean
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN (p_verdict = 'Compliant'::text);

COMMENT ON FUNCTION tickets.kept_by_source(p_verdict text) IS 'Whether the source''s own verdict (sla_status) says that the SLA was kept. NULL: it said nothing. Not our SLA: that is tickets.sla().';

CREATE FUNCTION tickets.known_spelling(p_cluster text) RETURNS text
    LANGUAGE plpgsql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
begin
  return coalesce(
    (select c.cluster from tickets.geo_clusters c where tickets.cluster_key(c.cluster) = tickets.cluster_key(p_cluster)),
    -- Relies on the index on (cluster_key(cluster), location_key).
    (select l.cluster from tickets.geo_locations l where tickets.cluster_key(l.cluster) = tickets.cluster_key(p_cluster) limit 1)
  );
end
$$;

COMMENT ON FUNCTION tickets.known_spelling(p_cluster text) IS 'A cluster as the gazetteers write it. NULL where they do not have it.';

CREATE FUNCTION tickets.lies_between(p_longitude double precision, p_latitude double precision, p_box public.geography) RETURNS boolean
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN (((p_longitude >= public.st_xmin(((p_box)::public.geometry)::public.box3d)) AND (p_longitude <= public.st_xmax(((p_box)::public.geometry)::public.box3d))) AND ((p_latitude >= public.st_ymin(((p_box)::public.geometry)::public.box3d)) AND (p_latitude <= public.st_ymax(((p_box)::public.geometry)::public.box3d))));

COMMENT ON FUNCTION tickets.lies_between(p_longitude double precision, p_latitude double precision, p_box public.geography) IS 'Whether a coordinate lies between the corners of a box, its edges included: what an index on longitude answers.';

CREATE FUNCTION tickets.location_adds(kind text, rule text, word text, expects text) RETURNS text
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN CASE WHEN (kind = ANY (ARRAY['premise'::text, 'numbered'::text, 'kept'::text, 'city'::text, 'word'::text])) THEN split_part(rule, ' '::text, 2) WHEN ((kind = ANY (ARRAY['code'::text, 'site'::text, 'floor'::text, 'relation'::text, ''::text])) OR ((kind = 'of'::text) AND (expects = 'relation'::text))) THEN NULL::text ELSE word END;

COMMENT ON FUNCTION tickets.location_adds(kind text, rule text, word text, expects text) IS 'What a word with this rule of tickets.location_vocabulary(), whose first word is `kind`, adds to the name unless something takes it away; NULL: nothing. `expects` is what tickets.location_expects() made of the words before.';

CREATE FUNCTION tickets.location_expects(kind text, takes boolean) RETURNS text
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN CASE WHEN (kind = 'code'::text) THEN 'numbers'::text WHEN (kind = ANY (ARRAY['premise'::text, 'relation'::text, 'kept'::text])) THEN kind WHEN (kind = ANY (ARRAY['soft'::text, 'ticket'::text, 'numbered'::text])) THEN 'numbered'::text WHEN (kind = 'no'::text) THEN CASE WHEN takes THEN 'id'::text ELSE 'numbered'::text END WHEN (kind = 'floor'::text) THEN 'id'::text WHEN ((kind = 'front'::text) AND takes) THEN 'relation'::text ELSE ''::text END;

COMMENT ON FUNCTION tickets.location_expects(kind text, takes boolean) IS 'What a word of this kind makes of what follows it; `takes`: it has taken words before it away. numbers and id: a number goes; premise and numbered: it goes with the words since, which stay without one; kept: it belongs to the name; relation: an `of` goes; empty: nothing.';

CREATE FUNCTION tickets.location_query(location_name text) RETURNS text
    LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $_$
declare
  token text;
  capitals integer;
  query text := '';
begin
  foreach token in array string_to_array(
    replace(translate(normalize(substr(tickets.location_words(location_name), 2), NFD), '_=', '  '), '-', ' -'), ' '
  ) loop
    continue when token = '';
    if left(token, 1) = '-' then
      query := query || '-';
      token := substr(token, 2);
    else
      query := query || ' ';
    end if;
    capitals := 1;
    if token collate "C" ~ '^[b-df-hj-np-tv-xz]{3,}(?:''|$)' then
      capitals := length(split_part(token, '''', 1));  -- no vowel: an acronym (TRM, CBD)
    end if;
    query := query || upper(left(token, capitals) collate "C") || substr(token, capitals + 1);
  end loop;
  return nullif(normalize(substr(query, 2), NFC), '');
end
$_$;

COMMENT ON FUNCTION tickets.location_query(location_name text) IS 'tickets.location_key() as a text for people and geocoding providers: capitals, hyphens and apostrophes as in the name, abbreviations spelled out. NULL where the key is; tickets.location_key(tickets.location_query(x)) = tickets.location_key(x).';

CREATE FUNCTION tickets.location_retyped(seen text, token text) RETURNS boolean
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN ((strpos((lower((replace(replace(translate(seen, '_'::text, ' '::text), '-'::text, ' -'::text), ''''::text, ' '''::text) COLLATE "C")) || ' '::text), ((' '::text || lower((token COLLATE "C"))) || ' '::text)) > 0) AND (strpos((replace(replace(translate(seen, '_'::text, ' '::text), '-'::text, ' -'::text), ''''::text, ' '''::text) || ' '::text), ((' '::text || token) || ' '::text)) = 0));

COMMENT ON FUNCTION tickets.location_retyped(seen text, token text) IS 'Whether a word stands among those seen (each with what binds it in front of it, as it was typed) in another case and not in this one; one bound by `-` or `''` is not the word alone.';

CREATE FUNCTION tickets.location_repeats(kind text, word text, token text, added text, last text, seen text, binding text, gap boolean) RETURNS boolean
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN (((kind <> 'plain'::text) AND (last = added)) OR ((kind = ANY (ARRAY['plain'::text, 'city'::text])) AND (length(word) > 2) AND (binding = ANY (ARRAY[' '::text, '_'::text])) AND (word <> ALL (ARRAY['saba'::text, 'sawa'::text, 'lunga'::text])) AND (((last = added) AND (gap OR (binding = '_'::text))) OR tickets.location_retyped(seen, token))));

COMMENT ON FUNCTION tickets.location_repeats(kind text, word text, token text, added text, last text, seen text, binding text, gap boolean) IS 'Whether a word of a name says another again: the last one, in the next segment or behind something that goes (Nairobi NBO anywhere), or one typed in another case. Saba Saba is a place.';

CREATE FUNCTION tickets.location_rule(word text, expects text) RETURNS text
    LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE
    AS $_$
declare
  stem text;
  rule text;
begin
  if expects in ('id', 'premise') and word collate "C" ~ '^[a-z](?:[0-9]+[a-z]?)?$' then
    return '#' || word;
  elsif expects = 'kept' and word in ('i', 'ii', 'iii', 'iv', 'v') then
    return '#' || array_position(array['i', 'ii', 'iii', 'iv', 'v'], word);
  elsif word collate "C" !~ '[0-9]' then
    return 'plain';
  elsif word collate "C" ~ '^[0-9]+[a-z]?$' then
    return '#' || word;
  end if;
  stem := substring(word collate "C" from '^([a-z]+)[0-9]');
  rule := tickets.location_vocabulary() ->> stem;
  if split_part(rule, ' ', 1) in ('code', 'soft', 'ticket', 'premise', 'numbered', 'no', 'floor', 'kept') then
    return rule || '#' || substr(word, length(stem) + 1);
  end if;
  return case when word collate "C" ~ '^[a-z]{3}[0-9]{2,4}$' then 'site' else 'plain' end;
end
$_$;

COMMENT ON FUNCTION tickets.location_rule(word text, expects text) IS 'What a lower-case word is that tickets.location_vocabulary() does not hold as it stands: a rule in its form, `plain` or `site` (three letters and digits, which go); behind a `#` the number that it ends with, and nothing before the `#` where it is all number. `expects` is what tickets.location_expects() made of the words before: after id and premise a letter is a number, after kept a Roman one.';

CREATE FUNCTION tickets.location_takes(kind text, word text, last text) RETURNS boolean
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN CASE kind WHEN 'no'::text THEN (last = 'h'::text) WHEN 'floor'::text THEN ((last COLLATE "C") ~ '^(?:[0-9]+(?:st|nd|rd|th)?|ground|first|second|third|fourth|fifth|top)$'::text) WHEN 'of'::text THEN ((word = 'to'::text) AND (last = ANY (ARRAY['next'::text, 'close'::text]))) WHEN 'front'::text THEN (last = 'in'::text) ELSE NULL::boolean END;

COMMENT ON FUNCTION tickets.location_takes(kind text, word text, last text) IS 'Whether a word of this kind takes the last word kept away with it: H No, 2nd Floor, next to, close to, in front. NULL: words of this kind take none.';

CREATE FUNCTION tickets.location_tokens(name text) RETURNS text[]
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN string_to_array(replace(name, '_'::text, ' _'::text), ' '::text);

COMMENT ON FUNCTION tickets.location_tokens(name text) IS 'The words of a plain name, each with the character that binds it to the one before, if it is not a blank; some are empty. The first step of tickets.location_walk().';

CREATE FUNCTION tickets.location_vocabulary() RETURNS jsonb
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN '{"av": "word avenue", "ct": "numbered court", "fl": "floor", "hs": "premise house", "ln": "word lane", "no": "no", "nr": "relation", "nw": "code", "of": "of", "ph": "kept phase", "rd": "word road", "rm": "premise room", "to": "of", "adj": "relation", "adr": "code", "apt": "premise apartment", "ave": "word avenue", "blk": "premise block", "cab": "soft", "crq": "ticket", "crt": "numbered court", "ctr": "word centre", "eld": "city eldoret", "est": "word estate", "fat": "code", "fdt": "code", "flr": "floor", "hno": "premise house", "hse": "premise house", "hwy": "word highway", "inc": "ticket", "jct": "word junction", "ksm": "city kisumu", "mdu": "code", "mkt": "word market", "mnt": "code", "msa": "city mombasa", "nbo": "city nairobi", "nku": "city nakuru", "nrb": "city nairobi", "num": "no", "odf": "code", "off": "relation", "olt": "code", "ont": "code", "onu": "code", "opp": "relation", "pon": "code", "pop": "soft", "sch": "word school", "sdu": "code", "stn": "word station", "twr": "word tower", "wot": "ticket", "appt": "premise apartment", "apts": "premise apartments", "bldg": "word building", "card": "soft", "core": "soft", "door": "premise door", "fats": "code", "fdts": "code", "flat": "premise flat", "from": "of", "gdns": "word gardens", "gpon": "code", "hosp": "word hospital", "mdus": "code", "mile": "kept mile", "near": "relation", "node": "soft", "olts": "code", "onts": "code", "onus": "code", "past": "relation", "plot": "premise plot", "pole": "soft", "port": "soft", "ring": "soft", "room": "premise room", "sdus": "code", "shop": "premise shop", "slot": "soft", "twrs": "word towers", "unit": "premise unit", "along": "relation", "block": "premise block", "cores": "soft", "court": "numbered court", "floor": "floor", "front": "front", "house": "premise house", "phase": "kept phase", "suite": "premise suite", "umoja": "kept umoja [1-3]", "villa": "premise villa", "behind": "relation", "beside": "relation", "center": "word centre", "kisumu": "city kisumu", "nakuru": "city nakuru", "number": "no", "southb": "word south_b", "southc": "word south_c", "splice": "soft", "cabinet": "soft", "closure": "soft", "eldoret": "city eldoret", "infront": "relation", "manhole": "soft", "mombasa": "city mombasa", "nairobi": "city nairobi", "section": "kept section", "adjacent": "relation", "githurai": "kept githurai 4[45]", "handhole": "soft", "opposite": "relation", "splitter": "soft", "apartment": "premise apartment", "apartments": "premise apartments"}'::jsonb;

COMMENT ON FUNCTION tickets.location_vocabulary() IS 'The words that tickets.location_key() knows, each with what it means: network codes, sub-premises, relational words, abbreviations. The place to add a new code; see the comment in the migration for the procedure.';

CREATE FUNCTION tickets.locations_moved() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET lock_timeout TO '30s'
    AS $$
declare
  v_clusters text[];
  v_keys text[];
begin
  if tg_op = 'INSERT' then
    select array_agg(cluster), array_agg(location_key) into v_clusters, v_keys from after where tickets.places_tickets(status);
  elsif tg_op = 'DELETE' then
    select array_agg(cluster), array_agg(location_key) into v_clusters, v_keys from before where tickets.places_tickets(status);
  else
    select array_agg(cluster), array_agg(location_key) into v_clusters, v_keys from (
      select distinct cluster, location_key from (
        (
          select cluster, location_key, case when tickets.places_tickets(status) then geom::bytea end from before
          except select cluster, location_key, case when tickets.places_tickets(status) then geom::bytea end from after
        )
        union all
        (
          select cluster, location_key, case when tickets.places_tickets(status) then geom::bytea end from after
          except select cluster, location_key, case when tickets.places_tickets(status) then geom::bytea end from before
        )
      ) as difference
    ) as moved;
  end if;
  if v_clusters is not null then
    perform tickets.place_tickets('inc', v_clusters, v_keys), tickets.place_tickets('crq', v_clusters, v_keys);
  end if;
  return null;
exception when lock_not_available then
  perform tickets_ops.raise_blocked();
  return null;
end
$$;

COMMENT ON FUNCTION tickets.locations_moved() IS 'Trigger after writing tickets.geo_locations: the tickets of the places whose coordinate changed follow. Raises when others hold one of them for half a minute.';

CREATE FUNCTION tickets.map_collection(p_open_only boolean, p_cluster text, p_region text, p_team text, p_dataset text DEFAULT 'inc'::text) RETURNS TABLE(type text, features record[], summary jsonb)
    LANGUAGE sql STABLE PARALLEL SAFE
    AS $$
  -- Of a dataset that is not asked for NULL leaves nothing.
  with listed as (
    select feature, bytes_of_text from tickets.map_features(case p_dataset when 'inc' then true end, p_cluster, p_region, p_team)
    union all
    select feature, bytes_of_text from tickets.crq_features(case p_dataset when 'crq' then true end, p_cluster, p_region, p_team)
    union all
    (
      select feature, bytes_of_text
      from tickets.map_features(case when p_dataset = 'inc' and not p_open_only then false end, p_cluster, p_region, p_team)
      order by closed_at desc -- index inc_closed_at, backwards
      limit 100000
    )
    union all
    (
      select feature, bytes_of_text
      from tickets.crq_features(case when p_dataset = 'crq' and not p_open_only then false end, p_cluster, p_region, p_team)
      order by closed_at desc -- index crq_closed_at, backwards
      limit 100000
    )
  ),
  counts as (
    select normalized_status, cluster, region, sla_state, geo_source, count(*) as tickets, count(longitude) as mapped
    from (
      select t.normalized_status, t.cluster, t.region, sla.sla_state, t.geo_source, t.longitude
      from tickets.filtered_tickets(case p_dataset when 'inc' then true end, false, p_cluster, p_region, p_team) t
      cross join lateral tickets.sla(t.region, t.created_at_service, t.first_seen_at) as sla
      union all
      select t.normalized_status, t.cluster, t.region, null, t.geo_source, t.longitude
      from tickets.filtered_tickets(case when p_dataset = 'inc' and not p_open_only then false end, false, p_cluster, p_region, p_team) t
      union all
      select t.normalized_status, t.cluster, t.region, null, t.geo_source, t.longitude
      from tickets.filtered_crq(case p_dataset when 'crq' then true end, false, p_cluster, p_region, p_team) t
      union all
      select t.normalized_status, t.cluster, t.region, null, t.geo_source, t.longitude
      from tickets.filtered_crq(case when p_dataset = 'crq' and not p_open_only then false end, false, p_cluster, p_region, p_team) t
    ) as t
    group by normalized_status, cluster, region, sla_state, geo_source
  ),
  spellings as (
    -- However it is spelled a cluster counts once, as p_cluster finds it.
    select chosen.cluster_key, chosen.spelling
    from (
      select array_agg(cluster) as clusters, array_agg(tickets) as tickets
      from (select cluster, sum(tickets)::bigint as tickets from counts group by cluster) as c
    ) as seen
    cross join lateral tickets.chosen_spellings(seen.clusters, seen.tickets) as chosen
  ),
  totals as (
    select coalesce(sum(tickets), 0) as total, coalesce(sum(mapped), 0) as mapped from counts
  ),
  features as (
    select coalesce(array_agg(feature), '{}') as list, count(*) as listed
    from (select * from listed limit 100000) as f
    -- jsonb holds no array over 268 435 455 bytes. A feature takes its texts, and less than 1 200 bytes for all the rest; so
    -- with its fair share for each, they fit. No real ticket comes near it: at least 1 300 bytes, with 20 000 tickets 11 300.
    where bytes_of_text <= (select 250000000 / greatest(least(mapped, 100000), 1) - 1200 from totals)
  ),
  dimensions as (
    select jsonb_object_agg(dimension, tickets) as counted
    from (
      select dimension, jsonb_object_agg(coalesce(value, '(none)'), tickets) as tickets
      from (
        select dimension, value, sum(c.tickets) as tickets
        from counts c
        left join spellings s on s.cluster_key = tickets.cluster_key(c.cluster)
        cross join lateral (values
          ('by_status', c.normalized_status), ('by_cluster', s.spelling), ('by_region', c.region),
          ('by_sla_state', c.sla_state), ('by_geo_source', c.geo_source)
        ) as d (dimension, value)
        -- Closed tickets have no state against the SLA, and those of CRQ none at all.
        where dimension <> 'by_sla_state' or value is not null
        group by dimension, value
      ) as d
      group by dimension
    ) as d
  ),
  freshness as (
    select * from tickets.freshness(p_dataset)
  )
  select
    'FeatureCollection',
    f.list,
    jsonb_build_object(
      'total', t.total, 'mapped', t.mapped, 'unmapped', t.total - t.mapped,
      'truncated', f.listed < t.mapped,
      'by_status', '{}'::jsonb, 'by_cluster', '{}'::jsonb, 'by_region', '{}'::jsonb, 'by_geo_source', '{}'::jsonb,
      'freshness', freshness
    ) || case p_dataset when 'inc' then '{"by_sla_state": {}}'::jsonb else '{}' end || coalesce(d.counted, '{}')
  from features f, totals t, dimensions d, freshness
$$;

COMMENT ON FUNCTION tickets.map_collection(p_open_only boolean, p_cluster text, p_region text, p_team text, p_dataset text) IS 'The document of reporting.fn_tickets_for_map(), reporting.fn_tickets_for_map_json() and reporting.fn_crq_for_map(), with their arguments, as one row; p_dataset: inc or crq. Reads as its caller.';

CREATE FUNCTION tickets.map_features(p_open boolean, p_cluster text, p_region text, p_team text) RETURNS TABLE(feature record, bytes_of_text integer, closed_at timestamp with time zone, normalized_status text)
    LANGUAGE sql STABLE PARALLEL SAFE
    AS $$
  select
    feature,
    tickets.bytes_of_texts(t),
    t.closed_at,
    t.normalized_status
  from tickets.filtered_tickets(p_open, true, p_cluster, p_region, p_team) t
  cross join lateral tickets.sla(t.region, t.created_at_service, t.first_seen_at) as sla
  cross join lateral (
    select
      t.ticket_id, t.geo_source, t.ingested_at, t.normalized_status, t.raw_status, t.bucket, t.is_actionable, t.cluster,
      t.region, t.location_name, t.location_key, t.assigned_team, t.owner, t.sla_status, t.mttr, t.created_at_service,
      t.scheduled_at, t.closed_at, t.first_seen_at, t.last_seen_at, t.source_created_at, t.source_updated_at, t.latitude,
      t.longitude
  ) as of_all
  cross join lateral (select of_all.*, sla.*) as of_open
  cross join lateral (select case when p_open then of_open else of_all end as properties) as p
  cross join lateral (select 'Point' as type, array[t.longitude, t.latitude] as coordinates) as geometry
  cross join lateral (select 'Feature' as type, t.ticket_id as id, geometry, p.properties) as feature
$$;

COMMENT ON FUNCTION tickets.map_features(p_open boolean, p_cluster text, p_region text, p_team text) IS 'The GeoJSON features of the open or the other tickets that have a place, as records, with the bytes of their texts, closed_at and normalized_status. Arguments as of tickets.filtered_tickets.';

CREATE FUNCTION tickets.may_lie_in(p_place public.geography, p_box public.geography) RETURNS boolean
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN (p_place OPERATOR(public.&&) p_box);

COMMENT ON FUNCTION tickets.may_lie_in(p_place public.geography, p_box public.geography) IS 'Whether a place lies in the box around another geography: what the GiST indexes on geog answer.';

CREATE FUNCTION tickets.metres(p_from public.geography, p_to public.geography) RETURNS double precision
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN public.st_distance(p_from, p_to);

COMMENT ON FUNCTION tickets.metres(p_from public.geography, p_to public.geography) IS 'Metres of the straight line between two points, on the WGS 84 spheroid.';

CREATE FUNCTION tickets.name_in_history(p_name text) RETURNS text
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN "left"(p_name, 100);

COMMENT ON FUNCTION tickets.name_in_history(p_name text) IS 'A cluster, region or team as history has it (tickets.inc_events, tickets.inc_daily): its first 100 characters, because indexes include them.';

CREATE FUNCTION tickets.nearest_tickets(p_vehicle_id text, p_limit integer DEFAULT 10, p_radius_km double precision DEFAULT NULL::double precision, p_unassigned boolean DEFAULT true) RETURNS TABLE(ticket_id text, metres double precision, road_km_estimate numeric, minutes_estimate numeric, sla_state text, at_risk boolean, hours_open numeric, assigned_team text, cluster text, location_name text, geo_source text, assigned_to text)
    LANGUAGE plpgsql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET jit TO 'off'
    AS $$
declare
  v_vehicle record;
begin
  perform tickets.require_count('p_limit', p_limit), tickets.require_radius(p_radius_km);
  select v.geog, v.freshness, v.usable, v.age into v_vehicle from tickets.vehicles_now v where v.vehicle_id = p_vehicle_id;
  if not found then
    raise exception 'There is no vehicle % in tickets.vehicles.', p_vehicle_id using errcode = 'no_data_found';
  elsif v_vehicle.geog is null then
    -- Nearest to NULL would be any tickets, without an error.
    raise notice 'Nobody knows where vehicle % is: its position is missing, 0,0 or outside the operating area.', p_vehicle_id;
    return;
  elsif not v_vehicle.usable then
    raise notice 'The position of vehicle % is %: %.', p_vehicle_id, v_vehicle.freshness, case
      when v_vehicle.age is null then 'nobody knows when it was taken'
      when v_vehicle.age < interval '0' then format('its time lies %s ahead', justify_interval(date_trunc('minute', -v_vehicle.age)))
      else format('taken %s ago', justify_interval(date_trunc('minute', v_vehicle.age)))
    end;
  end if;
  return query select * from tickets.open_tickets_near(v_vehicle.geog, p_limit, p_radius_km, p_unassigned);
end
$$;

COMMENT ON FUNCTION tickets.nearest_tickets(p_vehicle_id text, p_limit integer, p_radius_km double precision, p_unassigned boolean) IS 'The open tickets nearest to a vehicle, at most p_limit, within p_radius_km (default: any distance). p_unassigned (default true): only those that no vehicle is assigned to; assigned_to says which. metres are a straight line; road_km_estimate and minutes_estimate follow from it (tickets.dispatch_settings). geo_source cluster: the ticket lies somewhere in that cluster. Ties: real places first, then by id. Errors: there is no such vehicle; a limit or radius that makes no sense. A vehicle nowhere: no rows and a notice.';

CREATE FUNCTION tickets.nearest_vehicles(p_ticket_id text, p_limit integer DEFAULT 5, p_radius_km double precision DEFAULT NULL::double precision, p_stale boolean DEFAULT false) RETURNS TABLE(vehicle_id text, label text, team text, metres double precision, road_km_estimate numeric, minutes_estimate numeric, freshness text, located_at timestamp with time zone, age interval, open_assignments integer)
    LANGUAGE plpgsql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET jit TO 'off'
    AS $$
declare
  v_ticket record;
begin
  perform tickets.require_count('p_limit', p_limit), tickets.require_radius(p_radius_km);
  select t.geog into v_ticket from tickets.inc_open_sla t where t.ticket_id = p_ticket_id;
  if not found then
    raise exception 'There is no open ticket %.', p_ticket_id using errcode = 'no_data_found';
  elsif v_ticket.geog is null then
    raise notice 'Nobody knows where ticket % is: it has no place yet.', p_ticket_id;
    return;
  end if;
  return query
    select
      n.vehicle_id, n.label, n.team, n.metres, e.road_km_estimate, e.minutes_estimate, n.freshness, n.located_at, n.age,
      n.open_assignments
    from (
      select v.*, tickets.metres(v.geog, v_ticket.geog) as metres
      from tickets.vehicles_now v
      where tickets.is_usable(v.freshness, p_stale)
    ) as n
    cross join lateral tickets.road_estimate(n.metres) as e
    where p_radius_km is null or n.metres <= p_radius_km * 1000
    order by n.metres, n.vehicle_id
    limit p_limit;
end
$$;

COMMENT ON FUNCTION tickets.nearest_vehicles(p_ticket_id text, p_limit integer, p_radius_km double precision, p_stale boolean) IS 'The usable vehicles nearest to an open ticket, at most p_limit, within p_radius_km (default: any distance). p_stale: also those located up to stale_hours ago. metres are a straight line; road_km_estimate and minutes_estimate follow from it (tickets.dispatch_settings). Ties by id. Errors: there is no such open ticket; a limit or radius that makes no sense. A ticket without a place: no rows and a notice.';

CREATE FUNCTION tickets.road_estimate(p_metres double precision, OUT road_km_estimate numeric, OUT minutes_estimate numeric) RETURNS record
    LANGUAGE sql STABLE
    BEGIN ATOMIC
 SELECT round((((road_estimate.p_metres * s.detour) / (1000)::double precision))::numeric, 2) AS round,
     round((((((road_estimate.p_metres * s.detour) / (1000)::double precision) / s.speed_kmh) * (60)::double precision))::numeric, 1) AS round
    FROM tickets.dispatch_settings s;
END;

COMMENT ON FUNCTION tickets.road_estimate(p_metres double precision, OUT road_km_estimate numeric, OUT minutes_estimate numeric) IS 'What a straight line of so many metres may be on the road: kilometres (metres × detour / 1000) and minutes at the speed of tickets.dispatch_settings. An estimate, no routing.';

CREATE FUNCTION tickets.open_tickets_near(p_point public.geography, p_limit integer, p_radius_km double precision, p_unassigned boolean) RETURNS TABLE(ticket_id text, metres double precision, road_km_estimate numeric, minutes_estimate numeric, sla_state text, at_risk boolean, hours_open numeric, assigned_team text, cluster text, location_name text, geo_source text, assigned_to text)
    LANGUAGE sql STABLE
    BEGIN ATOMIC
 WITH nearest AS MATERIALIZED (
          SELECT max(public.st_distance(k.geog, open_tickets_near.p_point)) AS metres
            FROM ( SELECT t_1.geog
                    FROM tickets.inc_open_sla t_1
                   WHERE ((t_1.geog IS NOT NULL) AND (NOT (open_tickets_near.p_unassigned AND (EXISTS ( SELECT
                            FROM tickets.assignments a
                           WHERE ((a.ticket_id = t_1.ticket_id) AND (a.state = 'assigned'::text)))))))
                   ORDER BY (t_1.geog OPERATOR(public.<->) open_tickets_near.p_point)
                  LIMIT open_tickets_near.p_limit) k
         )
  SELECT t.ticket_id,
     public.st_distance(t.geog, open_tickets_near.p_point) AS metres,
     e.road_km_estimate,
     e.minutes_estimate,
     t.sla_state,
     t.at_risk,
     t.hours_open,
     t.assigned_team,
     t.cluster,
     t.location_name,
     t.geo_source,
     held.vehicle_id
    FROM ((tickets.inc_open_sla t
      CROSS JOIN LATERAL tickets.road_estimate(public.st_distance(t.geog, open_tickets_near.p_point)) e(road_km_estimate, minutes_estimate))
      LEFT JOIN tickets.assignments held ON (((held.ticket_id = t.ticket_id) AND (held.state = 'assigned'::text))))
   WHERE (public.st_dwithin(t.geog, open_tickets_near.p_point, ( SELECT LEAST(
                 CASE
                     WHEN (open_tickets_near.p_limit IS NOT NULL) THEN ( SELECT (n.metres + (0.001)::double precision)
                        FROM nearest n)
                     ELSE NULL::double precision
                 END, (COALESCE(open_tickets_near.p_radius_km,
                 CASE
                     WHEN (open_tickets_near.p_limit IS NULL) THEN s.radius_km
                     ELSE NULL::double precision
                 END) * (1000)::double precision)) AS "least"
            FROM tickets.dispatch_settings s)) AND (NOT (open_tickets_near.p_unassigned AND (held.vehicle_id IS NOT NULL))))
   ORDER BY (public.st_distance(t.geog, open_tickets_near.p_point)), (t.geo_source = 'cluster'::text), t.ticket_id
  LIMIT open_tickets_near.p_limit;
END;

COMMENT ON FUNCTION tickets.open_tickets_near(p_point public.geography, p_limit integer, p_radius_km double precision, p_unassigned boolean) IS 'The open tickets around a point, nearest first: at most p_limit of them (NULL: all) within p_radius_km (NULL: without p_limit the radius of tickets.dispatch_settings, else any distance). What tickets.nearest_tickets and tickets.tickets_within return; call those, which check the point.';

CREATE FUNCTION tickets.outside_kenya(place public.geometry) RETURNS text
    LANGUAGE sql STABLE PARALLEL SAFE
    BEGIN ATOMIC
 SELECT
         CASE
             WHEN ((place IS NULL) OR tickets.in_kenya(place)) THEN NULL::text
             WHEN ((abs(public.st_x(place)) < (0.01)::double precision) AND (abs(public.st_y(place)) < (0.01)::double precision)) THEN 'null island'::text
             WHEN tickets.in_kenya(public.st_flipcoordinates(place)) THEN 'swapped'::text
             ELSE 'outside'::text
         END AS "case";
END;

COMMENT ON FUNCTION tickets.outside_kenya(place public.geometry) IS 'How a point (SRID 4326) misses Kenya: null island (0,0, which is what an empty coordinate becomes; to 0.01 degrees), swapped (latitude first: it would lie there with its axes the other way round), outside. NULL: it lies in Kenya, or there is no point.';

CREATE FUNCTION tickets.periods(p_from date, p_to date, p_step text) RETURNS TABLE(n integer, period date, starts_at timestamp with time zone, counted_from timestamp with time zone, counted_to timestamp with time zone)
    LANGUAGE sql STABLE PARALLEL SAFE
    BEGIN ATOMIC
 SELECT (row_number() OVER (ORDER BY first.first))::integer AS row_number,
     (first.first)::date AS first,
     tickets.eat_midnight((first.first)::date) AS eat_midnight,
     tickets.eat_midnight(GREATEST((first.first)::date, periods.p_from)) AS eat_midnight,
     tickets.eat_midnight(LEAST(((first.first + (('1 '::text || periods.p_step))::interval))::date, periods.p_to)) AS eat_midnight
    FROM generate_series(date_trunc(periods.p_step, (periods.p_from)::timestamp without time zone), (periods.p_to - '1 day'::interval), (('1 '::text || periods.p_step))::interval) first(first)
   WHERE (periods.p_from < periods.p_to);
END;

COMMENT ON FUNCTION tickets.periods(p_from date, p_to date, p_step text) IS 'The days, weeks (ISO, from Monday) or months (p_step) of Nairobi that [p_from, p_to) touches, numbered from 1. period and starts_at are those of the whole period; counted_from and counted_to are cut to the range, so the first and the last period may be in part only.';

CREATE FUNCTION tickets.place(p_raw jsonb, p_location public.geometry, p_cluster public.geometry) RETURNS TABLE(geom public.geometry, geo_source text)
    LANGUAGE sql STABLE PARALLEL SAFE
    BEGIN ATOMIC
 SELECT COALESCE(feed.geom, place.p_location, place.p_cluster) AS "coalesce",
         CASE
             WHEN (feed.geom IS NOT NULL) THEN 'feed'::text
             WHEN (place.p_location IS NOT NULL) THEN 'location'::text
             WHEN (place.p_cluster IS NOT NULL) THEN 'cluster'::text
             ELSE 'none'::text
         END AS "case"
    FROM ( SELECT tickets.feed_point(place.p_raw) AS geom
          OFFSET 0) feed;
END;

COMMENT ON FUNCTION tickets.place(p_raw jsonb, p_location public.geometry, p_cluster public.geometry) IS 'Where a ticket is, one row: the feed''s own coordinates (of p_raw), else its geocoded location, else its cluster''s centroid, else nowhere; and which of them it is (feed, location, cluster, none).';

CREATE FUNCTION tickets.place_tickets(p_dataset text, p_clusters text[] DEFAULT NULL::text[], p_location_keys text[] DEFAULT NULL::text[]) RETURNS bigint
    LANGUAGE plpgsql
    SET jit TO 'off'
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $_$
declare
  v_scope text := case
    when p_clusters is null then ''
    when p_location_keys is null then 'join unnest($1) as scope (cluster) on tickets.cluster_key(t.cluster) = tickets.cluster_key(scope.cluster)'
    else 'join unnest($1, $2) as scope (cluster, location_key)
      on tickets.cluster_key(t.cluster) = tickets.cluster_key(scope.cluster) and t.location_key = scope.location_key'
  end;
  v_placed bigint;
  v_moves jsonb;
begin
  -- Before the statement below takes its snapshot: the gazetteers that it reads are the committed ones.
  perform pg_advisory_xact_lock_shared(tickets.gazetteer_lock());
  -- Locks in ticket_id order, as a load does. Relies on the (cluster_key, location_key) index when a scope is given.
  execute format(
    $sql$
      with placed as (
        %s returning tickets.cluster_key(t.cluster) as cluster_key, t.location_key
      ),
      moves as (
        select cluster_key, location_key, count(*) as tickets from placed group by cluster_key, location_key
      )
      select coalesce(sum(tickets), 0), coalesce(jsonb_agg(moves), '[]') from moves
    $sql$,
    tickets.placing_statement(p_dataset, format('tickets.%I t %s', p_dataset, v_scope), 'order by t.ticket_id for update of t')
  )
  into v_placed, v_moves using p_clusters, p_location_keys;
  -- A sweep follows no decision.
  if p_clusters is not null and v_placed > 0 then
    perform set_config('tickets_ops.moves', (tickets_ops.moves() || v_moves)::text, true);
  end if;
  return v_placed;
end
$_$;

COMMENT ON FUNCTION tickets.place_tickets(p_dataset text, p_clusters text[], p_location_keys text[]) IS 'Re-resolves geom and geo_source of the tickets of a dataset (inc, crq) that disagree with the gazetteers: all of them, those of the given clusters, or those of the given (cluster, location_key) pairs. One statement; returns how many tickets moved.';

CREATE FUNCTION tickets.place_written_tickets() RETURNS trigger
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
begin
  -- An UPDATE of no rows fires this trigger too: without this, its own UPDATE below would never end.
  if not exists (select from written) then
    return null;
  end if;
  execute tickets.placing_statement(tg_table_name, 'written t', '');
  return null;
end
$$;

COMMENT ON FUNCTION tickets.place_written_tickets() IS 'Trigger after writing tickets: by any writer, a ticket''s place follows from the feed coordinates and the gazetteers.';

CREATE FUNCTION tickets.places_tickets(p_status text) RETURNS boolean
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN (p_status = 'found'::text);

COMMENT ON FUNCTION tickets.places_tickets(p_status text) IS 'Whether a row of tickets.geo_locations with this status places tickets.';

CREATE FUNCTION tickets.placing_statement(p_dataset text, p_rows text, p_locking text) RETURNS text
    LANGUAGE sql STABLE PARALLEL SAFE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $_$
  select format($sql$
    with disagreeing as materialized (
      select t.ticket_id, place.*
      from %2$s %4$s
      cross join lateral tickets.place(t.raw, l.geom, c.geom) as place
      where t.geo_source <> place.geo_source or t.geom::bytea is distinct from place.geom::bytea
      %3$s
    )
    update tickets.%1$I t
    set geom = d.geom, geo_source = d.geo_source
    from disagreeing d
    where t.ticket_id = d.ticket_id
  $sql$, p_dataset, p_rows, p_locking, tickets.gazetteer_joins('t.cluster', 't.location_key'))
$_$;

COMMENT ON FUNCTION tickets.placing_statement(p_dataset text, p_rows text, p_locking text) IS 'The UPDATE that gives tickets of a dataset (inc, crq) the place that the feed and the gazetteers say, where they disagree. p_rows: SQL of a FROM clause with the tickets to look at as t; p_locking: what follows its WHERE. Only for tickets.place_tickets and tickets.place_written_tickets.';

CREATE FUNCTION tickets.release(p_ticket_id text, p_reason text) RETURNS tickets.assignments
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET lock_timeout TO '10s'
    AS $$
declare
  v_released tickets.assignments;
begin
  if coalesce(btrim(p_reason), '') = '' then
    raise exception 'Say why ticket % is released.', p_ticket_id using errcode = 'invalid_parameter_value';
  end if;
  update tickets.assignments set state = 'released', ended_at = now(), end_reason = p_reason
  where ticket_id = p_ticket_id and state = 'assigned' -- index assignments_one_vehicle
  returning * into v_released;
  if not found then
    raise exception 'No vehicle is assigned to ticket %.', p_ticket_id using errcode = 'no_data_found';
  end if;
  return v_released;
exception when lock_not_available then
  perform tickets_ops.raise_blocked();
  return null;
end
$$;

COMMENT ON FUNCTION tickets.release(p_ticket_id text, p_reason text) IS 'Takes a ticket back from the vehicle that it is assigned to, for a reason that is kept: select * from tickets.release(''WOT0715527'', ''flat tyre''). Errors: no reason; no vehicle has the ticket; others keep it locked for ten seconds.';

CREATE FUNCTION tickets.reopening_window() RETURNS interval
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN '30 days'::interval;

COMMENT ON FUNCTION tickets.reopening_window() IS 'How long after its closing a reopening counts against it: a later one is a new fault.';

CREATE FUNCTION tickets.reporting_lag() RETURNS interval
    LANGUAGE sql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
  select case
    when count(*) >= 100 then percentile_disc(0.95) within group (order by greatest(e.snapshot_at - e.closed_at, interval '0'))
    else interval '48 hours'
  end
  from tickets.inc_events e
  -- Subqueries, so that each is asked once.
  where e.event = 'closed'
    and e.closed_at > (select tickets.snapshot_through() - interval '60 days')
    and e.snapshot_at > (select tickets.snapshot_through() - interval '30 days')
    and e.snapshot_id is distinct from 0 -- nor those that a takeover imported
    and (e.snapshot_id = (select f.snapshot_id from tickets.inc_events f order by f.event_id limit 1)) is not true
$$;

COMMENT ON FUNCTION tickets.reporting_lag() IS 'How late a closing is told: the 95th percentile of snapshot_at - closed_at over the closings that the snapshots of the last 30 days brought (those of the very first snapshot apart, which tells of all times). 48 hours until there are 100. Trap: it says nothing of a closing that has not come at all.';

CREATE FUNCTION tickets.require_count(p_name text, p_count integer) RETURNS void
    LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
begin
  if p_count is null or p_count < 1 then
    raise exception '% is %: give a whole number, 1 or more.', p_name, coalesce(p_count::text, 'NULL') using errcode = 'invalid_parameter_value';
  end if;
end
$$;

COMMENT ON FUNCTION tickets.require_count(p_name text, p_count integer) IS 'Raises, with the right words, for an argument (its name, its value) that must be 1 or more.';

CREATE FUNCTION tickets.require_default_rule() RETURNS trigger
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
begin
  if not exists (select from tickets.sla_rules where region is null) then
    raise exception 'tickets.sla_rules needs its default: the rule without a region.'
      using hint = 'Change it instead: update tickets.sla_rules set hours = 48, at_risk_hours = 40 where region is null;';
  end if;
  return null;
end
$$;

COMMENT ON FUNCTION tickets.require_default_rule() IS 'Trigger after taking rules away: without the default, tickets of regions without a rule of their own would be on no list.';

CREATE FUNCTION tickets.require_radius(p_radius_km double precision) RETURNS void
    LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
begin
  -- NaN is greater than any number.
  if not p_radius_km between 0 and 20100 then
    raise exception 'p_radius_km is %: give kilometres from 0 to 20100, which is half way round the earth, or leave it out.', p_radius_km
      using errcode = 'invalid_parameter_value';
  end if;
end
$$;

COMMENT ON FUNCTION tickets.require_radius(p_radius_km double precision) IS 'Raises, with the right words, for a radius that makes no sense: negative, infinite, NaN. NULL is none, and makes sense.';

CREATE FUNCTION tickets.settled_through() RETURNS timestamp with time zone
    LANGUAGE sql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
  select tickets.snapshot_through() - tickets.reporting_lag()
$$;

COMMENT ON FUNCTION tickets.settled_through() IS 'Lifecycle times (created_at_service, closed_at) before this instant are told with few exceptions: the newest snapshot less tickets.reporting_lag(). A period that ends after it is provisional: its counts still grow. NULL before the first snapshot.';

CREATE FUNCTION tickets.share_gazetteers() RETURNS trigger
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
begin
  perform pg_advisory_xact_lock_shared(tickets.gazetteer_lock());
  return null;
end
$$;

COMMENT ON FUNCTION tickets.share_gazetteers() IS 'Trigger before writing tickets: no gazetteer changes meanwhile.';

CREATE FUNCTION tickets.shown_value(p_by text, p_value text, p_spelling text) RETURNS text
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN COALESCE(p_spelling, CASE WHEN (p_by = 'cluster'::text) THEN tickets.cluster_key(p_value) ELSE NULLIF(p_value, ''::text) END, '(none)'::text);

COMMENT ON FUNCTION tickets.shown_value(p_by text, p_value text, p_spelling text) IS 'How analytics show a value of the dimension p_by: a cluster in its one spelling (tickets.cluster_spellings, else its key), (none) for none.';

CREATE FUNCTION tickets.snapshot_through() RETURNS timestamp with time zone
    LANGUAGE sql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
  select greatest(
    -- An unchanged file moves this only.
    (select tickets.eat_ts(m.metadata ->> 'snapshot_at') from tickets.import_meta m where m.dataset = 'inc'),
    (select e.snapshot_at from tickets.inc_events e order by e.event_id desc limit 1)
  )
$$;

COMMENT ON FUNCTION tickets.snapshot_through() IS 'Export time of the newest INC snapshot that was loaded or found unchanged: what is later, nobody has told yet. NULL before the first.';

CREATE FUNCTION tickets.tickets_within(p_lng double precision, p_lat double precision, p_radius_km double precision) RETURNS TABLE(ticket_id text, metres double precision, road_km_estimate numeric, minutes_estimate numeric, sla_state text, at_risk boolean, hours_open numeric, assigned_team text, cluster text, location_name text, geo_source text, assigned_to text)
    LANGUAGE plpgsql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET jit TO 'off'
    AS $$
declare
  v_point record;
begin
  perform tickets.require_radius(p_radius_km);
  select tickets.lng_lat(p_lng, p_lat) as geog into v_point;
  if v_point.geog is null then
    raise exception 'Longitude % and latitude % are no place on earth.', p_lng, p_lat using errcode = 'invalid_parameter_value';
  end if;
  return query select * from tickets.open_tickets_near(v_point.geog, null, p_radius_km, false);
end
$$;

COMMENT ON FUNCTION tickets.tickets_within(p_lng double precision, p_lat double precision, p_radius_km double precision) IS 'All open tickets within p_radius_km (NULL: the radius of tickets.dispatch_settings) of a point in WGS 84 degrees, nearest first, assigned or not. Columns as in tickets.nearest_tickets. Errors: the point is missing or out of range; a radius that makes no sense.';

CREATE FUNCTION tickets.time_to_close(p_clock_start timestamp with time zone, p_closed_at timestamp with time zone) RETURNS interval
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN CASE WHEN (p_closed_at >= p_clock_start) THEN (p_closed_at - p_clock_start) ELSE NULL::interval END;

COMMENT ON FUNCTION tickets.time_to_close(p_clock_start timestamp with time zone, p_closed_at timestamp with time zone) IS 'How long a ticket was open by the wall clock. NULL: one of the times is unknown, or the closing comes first, as it does where a late first_seen_at is the clock.';

CREATE FUNCTION tickets.touch_updated_at() RETURNS trigger
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
begin
  new.updated_at := now();
  return new;
end
$$;

COMMENT ON FUNCTION tickets.touch_updated_at() IS 'Trigger: keeps updated_at true.';

CREATE TABLE tickets.geo_decisions (
    decision_id bigint NOT NULL,
    decided_at timestamp with time zone DEFAULT now() NOT NULL,
    decided_by text NOT NULL,
    kind text NOT NULL,
    cluster text NOT NULL,
    location_key text,
    decision text NOT NULL,
    before jsonb,
    after jsonb,
    tickets_moved bigint NOT NULL,
    undoes bigint,
    CONSTRAINT geo_decisions_decision_check CHECK ((decision = ANY (ARRAY['added'::text, 'accepted'::text, 'moved'::text, 'rejected'::text, 'guard'::text, 'handed back'::text, 'changed'::text, 'removed'::text, 'undone'::text]))),
    CONSTRAINT geo_decisions_has_a_row CHECK (((before IS NOT NULL) OR (after IS NOT NULL))),
    CONSTRAINT geo_decisions_kind_check CHECK ((kind = ANY (ARRAY['cluster'::text, 'location'::text]))),
    CONSTRAINT geo_decisions_names_its_place CHECK (((kind = 'location'::text) = (location_key IS NOT NULL)))
);

COMMENT ON TABLE tickets.geo_decisions IS 'What people decided about places: one row for each gazetteer row that a person''s statement wrote, whatever tool it came from. Written by triggers and never changed. Take one back: select * from tickets.undo_decision(decision_id). The pipeline''s own verdicts are not among them.';

COMMENT ON COLUMN tickets.geo_decisions.decision_id IS 'Number of the decision, in the order in which they were made, for tickets.undo_decision.';

COMMENT ON COLUMN tickets.geo_decisions.decided_at IS 'Start of the transaction.';

COMMENT ON COLUMN tickets.geo_decisions.decided_by IS 'The role of the person, also when a function with its owner''s rights wrote the row.';

COMMENT ON COLUMN tickets.geo_decisions.kind IS 'cluster (tickets.geo_clusters) or location (tickets.geo_locations).';

COMMENT ON COLUMN tickets.geo_decisions.cluster IS 'The cluster.';

COMMENT ON COLUMN tickets.geo_decisions.location_key IS 'The place in it. NULL: the decision is about the cluster itself.';

COMMENT ON COLUMN tickets.geo_decisions.decision IS 'added, accepted (as proposed), moved (another coordinate), rejected (no place on earth, or none of the candidates), guard (guard_km), handed back (to the pipeline), changed (a note, say), removed, undone (see undoes).';

COMMENT ON COLUMN tickets.geo_decisions.before IS 'The row as it was; NULL for one that was added. geom is hexadecimal EWKB (cast it to geometry); candidates are left out unless they changed.';

COMMENT ON COLUMN tickets.geo_decisions.after IS 'The row as the decision left it; NULL for one that was removed. In the form of before.';

COMMENT ON COLUMN tickets.geo_decisions.tickets_moved IS 'Tickets whose place on the map changed with it, open and closed; for a cluster also those whose location was judged anew.';

COMMENT ON COLUMN tickets.geo_decisions.undoes IS 'The decision that this one took back. NULL: none.';

CREATE FUNCTION tickets.undo_decision(p_decision_id bigint) RETURNS SETOF tickets.geo_decisions
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET "TimeZone" TO 'UTC'
    SET lock_timeout TO '10s'
    AS $_$
declare
  v_decision tickets.geo_decisions;
  v_row text; -- a FROM clause: the row as r
  v_now jsonb;
begin
  select * into v_decision from tickets.geo_decisions where decision_id = p_decision_id;
  if not found then
    raise exception 'There is no decision %.', p_decision_id using errcode = 'no_data_found', hint = 'See tickets.geo_decisions.';
  end if;
  -- What every write of a gazetteer takes first: the row cannot change between the look and the write.
  perform pg_advisory_xact_lock(tickets.gazetteer_lock());
  v_row := format(case v_decision.kind
    when 'cluster' then 'tickets.geo_clusters r where r.cluster = %1$L'
    else 'tickets.geo_locations r where r.cluster = %1$L and r.location_key = %2$L'
  end, v_decision.cluster, v_decision.location_key);
  execute 'select to_jsonb(r) || jsonb_build_object(''geom'', r.geom::text) from ' || v_row into v_now;
  if v_now - 'updated_at' - (case when v_decision.after ? 'candidates' then '' else 'candidates' end)
    is distinct from v_decision.after - 'updated_at'
  then
    raise exception 'Decision % cannot be undone: the place was changed since.', p_decision_id
      using errcode = 'object_not_in_prerequisite_state', hint = 'Look at it again, and decide anew.';
  end if;

  perform tickets_ops.as_pipeline(false);
  perform set_config('tickets_ops.undoing', p_decision_id::text, true);
  if v_decision.before is null then
    execute 'delete from ' || v_row;
  elsif v_decision.after is null then
    execute format(
      'insert into tickets.%1$I select (jsonb_populate_record(null::tickets.%1$I, $1)).*', 'geo_' || v_decision.kind || 's'
    ) using v_decision.before;
  else
    execute replace('update ' || v_row, ' r where', ' r set updated_at = now() where'); -- sign_verdict restores the rest
  end if;
  perform set_config('tickets_ops.undoing', '', true);
  return query
    select * from tickets.geo_decisions where undoes = p_decision_id and cluster = v_decision.cluster order by decision_id desc limit 1;
exception when lock_not_available then
  perform tickets_ops.raise_blocked();
end
$_$;

COMMENT ON FUNCTION tickets.undo_decision(p_decision_id bigint) IS 'Takes a decision of a person back: restores every column of the gazetteer row but updated_at, verified included, and the tickets follow: select * from tickets.undo_decision(17). Returns the decision that this is, which can be undone in turn. Raises 55000 when the row is no longer as the decision left it, P0002 when there is no such decision, and when others keep the gazetteers locked for ten seconds. Runs with its owner''s rights, so it needs no right to delete what was added.';

CREATE FUNCTION tickets.vehicle_name(p_label text, p_vehicle_id text) RETURNS text
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN COALESCE(NULLIF(p_label, ''::text), p_vehicle_id);

COMMENT ON FUNCTION tickets.vehicle_name(p_label text, p_vehicle_id text) IS 'What people call a vehicle: its label, else its id.';

CREATE FUNCTION tickets.within_a_day(p_lasted interval) RETURNS boolean
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN (p_lasted <= '24:00:00'::interval);

COMMENT ON FUNCTION tickets.within_a_day(p_lasted interval) IS 'Whether something lasted 24 h at most. A fixed mark, whatever tickets.sla_rules says.';

CREATE FUNCTION tickets.within_two_days(p_lasted interval) RETURNS boolean
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN (p_lasted <= '48:00:00'::interval);

COMMENT ON FUNCTION tickets.within_two_days(p_lasted interval) IS 'Whether something lasted 48 h at most. A fixed mark, whatever tickets.sla_rules says.';

CREATE FUNCTION tickets_ops.advance_job(p_id bigint, p_run_at timestamp with time zone DEFAULT NULL::timestamp with time zone, p_priority integer DEFAULT NULL::integer, p_add jsonb DEFAULT '{}'::jsonb, p_remove text DEFAULT ''::text) RETURNS void
    LANGUAGE sql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
  update graphile_worker._private_jobs
  set run_at = least(run_at, p_run_at), priority = least(priority, p_priority),
    payload = case when p_add = '{}' and p_remove = '' then payload else (payload::jsonb - p_remove || p_add)::json end
  where id = p_id
$$;

COMMENT ON FUNCTION tickets_ops.advance_job(p_id bigint, p_run_at timestamp with time zone, p_priority integer, p_add jsonb, p_remove text) IS 'Makes a job more urgent, also one that runs, for when it puts itself back: no later than p_run_at, with no higher priority than p_priority (NULL: as it is), with p_add in its payload and without the key p_remove.';

CREATE FUNCTION tickets_ops.alert_problems() RETURNS TABLE(severity text, problem text)
    LANGUAGE sql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
  select 'warning', format('%s message(s) about health could not be delivered yet: %s Check ALERT_WEBHOOK_URL; drop one: select tickets_ops.cancel_job(id), its id stands in tickets_ops.jobs.',
    count(*), left((array_agg(j.last_error order by j.id desc))[1], 300))
  from tickets_ops.queued_jobs() j
  where j.task = 'fleettickets_alert' and j.last_error is not null
  having count(*) > 0
$$;

COMMENT ON FUNCTION tickets_ops.alert_problems() IS 'Messages that the webhook does not take, in words. A warning: as a fault it would be a turn of health, and so one message more.';

CREATE FUNCTION tickets_ops.announce_health() RETURNS boolean
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
declare
  v_before tickets_ops.announced_health;
  v_health record;
begin
  insert into tickets_ops.announced_health default values on conflict do nothing;
  -- Who comes second compares with what the first has announced.
  select * into v_before from tickets_ops.announced_health for update;
  select ok, problems, workers_alive into v_health from tickets_ops.health;
  -- A worker asks: where none lives, it was killed while it did, and has nothing to tell.
  if v_health.workers_alive = 0 then
    return null;
  end if;
  if v_health.ok is distinct from v_before.ok then
    update tickets_ops.announced_health set ok = v_health.ok, since = clock_timestamp();
    -- Without a key: a message that waits is not replaced by the next.
    perform tickets_ops.enqueue('fleettickets_alert', json_build_object(
      'ok', v_health.ok, 'problems', v_health.problems, 'at', tickets_ops.wall_clock(clock_timestamp()),
      'lasted_seconds', extract(epoch from clock_timestamp() - v_before.since)::integer, 'database', current_database()
    ));
  end if;
  return v_health.ok;
end
$$;

COMMENT ON FUNCTION tickets_ops.announce_health() IS 'Adds a job that posts to ALERT_WEBHOOK_URL, in the transaction that notes the turn, if health.ok is not what was announced last. Returns health.ok; NULL, and announces nothing, while no worker is alive. Called by maintenance where that setting is.';

CREATE FUNCTION tickets_ops.answer_expires_at(p_status text, p_attempts integer, p_found_days numeric, p_from timestamp with time zone) RETURNS timestamp with time zone
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN (p_from + make_interval(secs => ((86400)::double precision * (CASE WHEN (p_status = 'found'::text) THEN COALESCE(p_found_days, (180)::numeric) WHEN ((p_status = 'not_found'::text) AND (p_attempts <= 1)) THEN (7)::numeric ELSE (30)::numeric END)::double precision)));

COMMENT ON FUNCTION tickets_ops.answer_expires_at(p_status text, p_attempts integer, p_found_days numeric, p_from timestamp with time zone) IS 'When a place may be asked again: found after p_found_days (NULL: 180), not found after 7 days the first time and 30 then, rejected and needs_review after 30.';

CREATE FUNCTION tickets_ops.answers(p_cluster text, p_location_key text, p_provider text, OUT candidates jsonb, OUT queries text[]) RETURNS record
    LANGUAGE sql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
  with fresh as (
    select * from tickets_ops.geocoding_answers
    where cluster = p_cluster and location_key = p_location_key and provider = p_provider
      and answered_at > tickets_ops.answers_count_since()
  )
  select
    (
      select coalesce(jsonb_agg(c.candidate order by f.answered_at, f.query, c.no), '[]')
      from fresh f cross join lateral jsonb_array_elements(f.candidates) with ordinality as c (candidate, no)
    ),
    (select coalesce(array_agg(f.query order by f.answered_at, f.query), '{}') from fresh f);
$$;

COMMENT ON FUNCTION tickets_ops.answers(p_cluster text, p_location_key text, p_provider text, OUT candidates jsonb, OUT queries text[]) IS 'All candidates of the place that is being asked, in the order they came, and the queries. p_location_key empty: of the cluster. Answers of another provider, or older than a day, are of an earlier job that never ended: they do not count.';

CREATE FUNCTION tickets_ops.answers_count_since() RETURNS timestamp with time zone
    LANGUAGE sql STABLE
    RETURN (now() - '1 day'::interval);

COMMENT ON FUNCTION tickets_ops.answers_count_since() IS 'Answers that came before are of an earlier job that never ended: they do not count, and fleettickets_maintain removes them.';

CREATE FUNCTION tickets_ops.as_pipeline(p_on boolean) RETURNS boolean
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
declare
  v_before boolean := tickets_ops.is_pipeline();
begin
  perform set_config('tickets_ops.writer', case when p_on then 'pipeline' else '' end, true);
  return v_before;
end
$$;

COMMENT ON FUNCTION tickets_ops.as_pipeline(p_on boolean) IS 'Marks the writes of gazetteers and tickets that follow in this transaction as the pipeline''s own (true) or a person''s (false). Returns what it was before: hand that back at the end. A coordinate written without the mark is verified; a ticket gets a baseline.';

CREATE FUNCTION tickets_ops.ask_for_missing_jobs() RETURNS bigint
    LANGUAGE sql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
  with needed as (
    select 'upsert_batch' as task, tickets_ops.batch_job_key(b.snapshot_id, b.batch) as key,
      json_build_object('snapshot_id', b.snapshot_id, 'batch', b.batch) as payload
    from tickets_ops.snapshot_batches b join tickets_ops.snapshots s using (snapshot_id)
    where s.status = 'loading' and b.status <> 'done'
    union all
    select 'finalize_snapshot', tickets_ops.finalize_job_key(s.snapshot_id), json_build_object('snapshot_id', s.snapshot_id)
    from tickets_ops.snapshots s where s.status = 'finalizing'
  ),
  added as (
    select tickets_ops.enqueue(task, payload, key)
    from needed
    where not exists (select from tickets_ops.queued_jobs() j where j.key = needed.key)
  )
  select count(*) from added;
$$;

COMMENT ON FUNCTION tickets_ops.ask_for_missing_jobs() IS 'Adds the jobs that snapshots in flight need and that are not there: someone deleted them, or they ended while their snapshot counted as failed. Returns how many.';

CREATE FUNCTION tickets_ops.batch_job_key(p_snapshot_id bigint, p_batch bigint) RETURNS text
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN format('upsert_batch:%s:%s'::text, p_snapshot_id, p_batch);

COMMENT ON FUNCTION tickets_ops.batch_job_key(p_snapshot_id bigint, p_batch bigint) IS 'Key of the upsert_batch job of a batch.';

CREATE TABLE tickets_ops.snapshots (
    snapshot_id bigint NOT NULL,
    dataset text NOT NULL,
    source_key text NOT NULL,
    source_etag text,
    source_sha256 text,
    source_size bigint,
    source_last_modified timestamp with time zone,
    snapshot_at timestamp with time zone NOT NULL,
    status text NOT NULL,
    in_flight boolean GENERATED ALWAYS AS ((status = ANY (ARRAY['staging'::text, 'loading'::text, 'finalizing'::text]))) STORED NOT NULL,
    error text,
    opens_at timestamp with time zone,
    ignored boolean DEFAULT false NOT NULL,
    is_late boolean DEFAULT false NOT NULL,
    dismissed_at timestamp with time zone,
    broken_off text,
    hold_reason text,
    held_since timestamp with time zone,
    warnings text[] DEFAULT '{}'::text[] NOT NULL,
    statistics jsonb,
    cleaning_version integer,
    origin text DEFAULT 'bucket'::text NOT NULL,
    forced boolean DEFAULT false NOT NULL,
    backfill boolean DEFAULT false NOT NULL,
    job_id bigint,
    attempt integer DEFAULT 1 NOT NULL,
    listed_at timestamp with time zone DEFAULT now() NOT NULL,
    progress_at timestamp with time zone DEFAULT now() NOT NULL,
    staged_at timestamp with time zone,
    load_began_at timestamp with time zone,
    loaded_at timestamp with time zone,
    archived_at timestamp with time zone,
    archived_key text,
    batches_total integer,
    batches_done integer DEFAULT 0 NOT NULL,
    rows_read bigint DEFAULT 0 NOT NULL,
    rows_inserted bigint DEFAULT 0 NOT NULL,
    rows_updated bigint DEFAULT 0 NOT NULL,
    rows_unchanged bigint DEFAULT 0 NOT NULL,
    rows_dropped_alarm bigint DEFAULT 0 NOT NULL,
    rows_dropped_sentinel bigint DEFAULT 0 NOT NULL,
    rows_duplicate bigint DEFAULT 0 NOT NULL,
    rows_rejected bigint DEFAULT 0 NOT NULL,
    rejects_kept bigint DEFAULT 0 NOT NULL,
    rows_repaired bigint DEFAULT 0 NOT NULL,
    open_missing bigint,
    content_through timestamp with time zone,
    CONSTRAINT snapshots_counts_add_up CHECK (((status <> ALL (ARRAY['done'::text, 'partial'::text])) OR (rows_read = ((((((rows_inserted + rows_updated) + rows_unchanged) + rows_dropped_alarm) + rows_dropped_sentinel) + rows_duplicate) + rows_rejected)))),
    CONSTRAINT snapshots_failure_has_a_reason CHECK (((status <> 'failed'::text) OR (error IS NOT NULL))),
    CONSTRAINT snapshots_hold_has_a_reason CHECK (((status <> 'held'::text) OR (hold_reason IS NOT NULL))),
    CONSTRAINT snapshots_origin_check CHECK ((origin = ANY (ARRAY['bucket'::text, 'file'::text]))),
    CONSTRAINT snapshots_status_check CHECK ((status = ANY (ARRAY['staging'::text, 'loading'::text, 'finalizing'::text, 'held'::text, 'done'::text, 'partial'::text, 'unchanged'::text, 'superseded'::text, 'failed'::text])))
);

COMMENT ON TABLE tickets_ops.snapshots IS 'The ledger: one row for every file ever looked at (a forced replay is looked at again), with its times, its outcome and its counts. The counts of a loaded snapshot add up to rows_read.';

COMMENT ON COLUMN tickets_ops.snapshots.snapshot_id IS 'Order in which files were looked at.';

COMMENT ON COLUMN tickets_ops.snapshots.dataset IS 'inc or crq.';

COMMENT ON COLUMN tickets_ops.snapshots.source_key IS 'Object key in the bucket, or the name of a local file.';

COMMENT ON COLUMN tickets_ops.snapshots.source_etag IS 'ETag without quotes, empty where the server lists none; NULL for a local file.';

COMMENT ON COLUMN tickets_ops.snapshots.source_sha256 IS 'SHA-256 of the bytes read: the same bytes sent as a multipart upload have another ETag.';

COMMENT ON COLUMN tickets_ops.snapshots.source_size IS 'Bytes.';

COMMENT ON COLUMN tickets_ops.snapshots.source_last_modified IS 'The bucket''s LastModified, to the millisecond; a file''s own for a local one. Part of a version''s identity: a name may be written again with the bytes that it had before. It orders files only where the times in their names are equal.';

COMMENT ON COLUMN tickets_ops.snapshots.snapshot_at IS 'The export''s time, from the file''s name (EAT), else LastModified.';

COMMENT ON COLUMN tickets_ops.snapshots.status IS 'staging, loading, finalizing: in flight. held: staged, and waits for a person (tickets_ops.release_snapshot, dismiss_snapshot). done: whole. partial: the file broke off, the rows before the break are loaded. unchanged: same bytes as the last load. superseded: not loaded because a newer one was. failed: refused, broken or cancelled, see error.';

COMMENT ON COLUMN tickets_ops.snapshots.in_flight IS 'Work on it is under way (staging, loading, finalizing): until it ends no other snapshot of the dataset is loaded.';

COMMENT ON COLUMN tickets_ops.snapshots.error IS 'Why it failed, in words for people.';

COMMENT ON COLUMN tickets_ops.snapshots.opens_at IS 'Of a future-dated file, which counts as failed until then: when it may be loaded. NULL for every other.';

COMMENT ON COLUMN tickets_ops.snapshots.ignored IS 'Failed without being read, since it is empty or no CSV by its name: no fault of the feed.';

COMMENT ON COLUMN tickets_ops.snapshots.is_late IS 'Of a feed of changes: failed without being read, since a newer file was loaded when it came.';

COMMENT ON COLUMN tickets_ops.snapshots.dismissed_at IS 'When a person took this failure out of health (tickets_ops.dismiss_snapshot), or gave the file up (tickets_ops.skip_file).';

COMMENT ON COLUMN tickets_ops.snapshots.broken_off IS 'Where and why the rest of the file could not be read, which makes the snapshot partial; NULL for a whole file.';

COMMENT ON COLUMN tickets_ops.snapshots.hold_reason IS 'Why it is held, with figures. Once it is loaded after all, the same stands in warnings.';

COMMENT ON COLUMN tickets_ops.snapshots.held_since IS 'Of one that is held because it closes too many tickets: export time of the first file that showed the same closings. A file at least an hour later that shows them too is loaded. NULL where only a person can decide.';

COMMENT ON COLUMN tickets_ops.snapshots.warnings IS 'What is odd about a file that was loaded, with figures; health shows those of the last load. It compares with the load before.';

COMMENT ON COLUMN tickets_ops.snapshots.statistics IS 'Figures of the whole file, for judging the next one: rows (without alarms and sentinels), rejected, columns (their names), tickets, and for each typed column how many tickets have a value there (filled) and how many values read (read). NULL where it was not read to its end.';

COMMENT ON COLUMN tickets_ops.snapshots.cleaning_version IS 'Version of the rules by which its records were cleaned. Bytes that were loaded under older rules are loaded again.';

COMMENT ON COLUMN tickets_ops.snapshots.origin IS 'bucket, or file (ingest --inc-csv).';

COMMENT ON COLUMN tickets_ops.snapshots.forced IS 'Asked for by force.';

COMMENT ON COLUMN tickets_ops.snapshots.backfill IS 'Part of a backfill: finishing it asks for the next file left behind.';

COMMENT ON COLUMN tickets_ops.snapshots.job_id IS 'The fetch_snapshot job that reads the file. NULL for a local file.';

COMMENT ON COLUMN tickets_ops.snapshots.attempt IS 'Fencing token: a reader that lost its job to another attempt can write no more rows.';

COMMENT ON COLUMN tickets_ops.snapshots.listed_at IS 'When the file was first looked at.';

COMMENT ON COLUMN tickets_ops.snapshots.progress_at IS 'When work on the snapshot last committed something.';

COMMENT ON COLUMN tickets_ops.snapshots.staged_at IS 'When all its rows were staged.';

COMMENT ON COLUMN tickets_ops.snapshots.load_began_at IS 'When the jobs of its batches came into being: from then on it may have touched tickets. NULL while it is staged or held.';

COMMENT ON COLUMN tickets_ops.snapshots.loaded_at IS 'When it was complete.';

COMMENT ON COLUMN tickets_ops.snapshots.archived_at IS 'When its object was moved away.';

COMMENT ON COLUMN tickets_ops.snapshots.archived_key IS 'Where its object was moved to.';

COMMENT ON COLUMN tickets_ops.snapshots.batches_total IS 'Batches of changed rows; 0 when no row changed.';

COMMENT ON COLUMN tickets_ops.snapshots.batches_done IS 'Batches committed; the one that completes the count asks for finalize_snapshot.';

COMMENT ON COLUMN tickets_ops.snapshots.rows_read IS 'Records in the file, without header and blank lines.';

COMMENT ON COLUMN tickets_ops.snapshots.rows_inserted IS 'New tickets.';

COMMENT ON COLUMN tickets_ops.snapshots.rows_updated IS 'Tickets whose raw changed.';

COMMENT ON COLUMN tickets_ops.snapshots.rows_unchanged IS 'Tickets that were not touched.';

COMMENT ON COLUMN tickets_ops.snapshots.rows_dropped_alarm IS 'Rows with is_alarm true.';

COMMENT ON COLUMN tickets_ops.snapshots.rows_dropped_sentinel IS 'EXPORT STOPPED rows.';

COMMENT ON COLUMN tickets_ops.snapshots.rows_duplicate IS 'Earlier lines of a ticket that stands in the file more than once: the last line wins.';

COMMENT ON COLUMN tickets_ops.snapshots.rows_rejected IS 'Rows that could not be loaded, all of them.';

COMMENT ON COLUMN tickets_ops.snapshots.rejects_kept IS 'Of rows_rejected, those that stand in tickets_ops.snapshot_rejects with their text: at most 10 000.';

COMMENT ON COLUMN tickets_ops.snapshots.rows_repaired IS 'Warning: rows that loaded with a NUL or an invalid UTF-8 byte replaced by U+FFFD.';

COMMENT ON COLUMN tickets_ops.snapshots.open_missing IS 'Open tickets of the table that this snapshot does not list. NULL for a file of changes, which lists few.';

COMMENT ON COLUMN tickets_ops.snapshots.content_through IS 'How far the content of the table went when this snapshot was loaded or found unchanged (tickets_ops.content_through).';

CREATE FUNCTION tickets_ops.blocking_file(p_dataset text) RETURNS SETOF tickets_ops.snapshots
    LANGUAGE sql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
  select s.*
  from tickets_ops.snapshots s
  where tickets_ops.feed(p_dataset) = 'changes'
    and s.dataset = p_dataset and s.origin = 'bucket' and s.dismissed_at is null
    and tickets_ops.needs_person(s)
    and not tickets_ops.is_below_mark(p_dataset, s.snapshot_at, s.source_last_modified, s.source_key)
    -- What became of it when it was read again, by force or as another version of its name, is what counts.
    and not exists (
      select from tickets_ops.snapshots g
      where g.dataset = s.dataset and g.source_key = s.source_key and g.snapshot_id > s.snapshot_id -- index snapshots_by_file
        and (tickets_ops.counts_as_loaded(g.status) or g.status = 'held' or tickets_ops.is_failure(g))
    )
  order by s.snapshot_at, s.source_last_modified, s.source_key collate "C" -- index snapshots_by_time
  limit 1
$$;

COMMENT ON FUNCTION tickets_ops.blocking_file(p_dataset text) IS 'Of a feed of changes: the file that failed, is held, or was loaded only in part, and that nobody has given up: no later one is loaded. No row where none does, and for a feed of snapshots.';

CREATE FUNCTION tickets_ops.blocking_problems() RETURNS TABLE(severity text, problem text)
    LANGUAGE sql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
  with waiting as (
    select unnest(pg_blocking_pids(a.pid)) as blocker, min(l.waitstart) as since
    from pg_stat_activity a join pg_locks l on l.pid = a.pid and not l.granted
    where a.datname = current_database() and a.application_name like 'fleettickets%'
    group by 1
  ),
  -- An open transaction that has written a gazetteer keeps every load waiting, also when none is due at this moment.
  holding as (
    select l.pid as blocker, a.xact_start as since
    from pg_locks l join pg_stat_activity a using (pid)
    where l.locktype = 'advisory' and l.mode = 'ExclusiveLock' and l.granted and l.objsubid = 1
      and l.database = (select oid from pg_database where datname = current_database())
      and (l.classid::bigint << 32) + l.objid::bigint = tickets.gazetteer_lock()
  ),
  blocking as (
    select blocker, min(since) as since from (select * from waiting union all select * from holding) as found group by blocker
  )
  select 'fault', format(
    'Process %s of user %s has kept loads waiting since %s: %s. End its transaction, or it: select pg_terminate_backend(%s);',
    b.blocker, coalesce(a.usename, 'unknown'), tickets_ops.wall_clock(b.since),
    coalesce(format('%s, its query of %s ago: %s', a.state, date_trunc('second', now() - a.query_start), left(a.query, 200)), 'what it does only its role can see'),
    b.blocker)
  from blocking b left join pg_stat_activity a on a.pid = b.blocker
  where b.since < now() - interval '1 minute'
    -- Anybody can call a session of his so.
    and not (coalesce(a.application_name, '') like 'fleettickets worker%' and a.usename = current_user)
$$;

COMMENT ON FUNCTION tickets_ops.blocking_problems() IS 'Sessions of others that have kept ours waiting for more than a minute, as faults in words, with process, user and query.';

CREATE FUNCTION tickets_ops.cancel_job(p_id bigint) RETURNS text
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET lock_timeout TO '10s'
    AS $_$
declare
  v_job record;
  v_snapshot bigint;
  v_removed bigint;
begin
  select j.id, j.task, j.state, j.payload into v_job from tickets_ops.described_jobs() j where j.id = p_id;
  if not found then
    raise exception 'There is no job %.', p_id using hint = 'A job that succeeded is gone. See tickets_ops.jobs.';
  end if;
  if v_job.task in ('upsert_batch', 'finalize_snapshot') and v_job.payload ->> 'snapshot_id' ~ '^[0-9]{1,18}$' then
    -- A snapshot in flight would only ask for the job again.
    v_snapshot := (v_job.payload ->> 'snapshot_id')::bigint;
    if not tickets_ops.fail_snapshot(v_snapshot, format('Cancelled by %s', session_user)) then
      v_snapshot := null;
    end if;
  end if;
  if v_job.state = 'running' then
    perform tickets_ops.give_up(p_id);
    perform tickets_ops.remove_jobs(tickets_ops.jobs_of_snapshot(v_snapshot));
    return format('Job %s is running and cannot be stopped, but if it fails it is not tried again.', p_id)
      || case when v_snapshot is null then '' else format(' Snapshot %s is cancelled.', v_snapshot) end;
  end if;
  v_removed := tickets_ops.remove_jobs(tickets_ops.jobs_of_snapshot(v_snapshot) || p_id);
  if v_removed = 0 then
    return format('A worker has just taken job %s.', p_id);
  end if;
  return case when v_snapshot is null then format('Job %s is cancelled.', p_id)
    else format('Snapshot %s is cancelled, with %s of its jobs. What its batches had loaded stays. Load it after all: select * from tickets_ops.fetch_now(force => true);', v_snapshot, v_removed) end;
exception when lock_not_available then
  perform tickets_ops.raise_blocked();
  return null;
end
$_$;

COMMENT ON FUNCTION tickets_ops.cancel_job(p_id bigint) IS 'Removes a waiting or failed job, and says so. A running one cannot be stopped, but is not tried again. A job of a snapshot in flight takes the snapshot with it, which becomes failed. Raises when there is no such job, and when others hold its rows for ten seconds.';

CREATE FUNCTION tickets_ops.candidate_point(p_candidate jsonb) RETURNS public.geometry
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN CASE WHEN ((jsonb_typeof((p_candidate -> 'lat'::text)) = 'number'::text) AND (jsonb_typeof((p_candidate -> 'lng'::text)) = 'number'::text) AND ((((p_candidate ->> 'lat'::text))::numeric >= ('-90'::integer)::numeric) AND (((p_candidate ->> 'lat'::text))::numeric <= (90)::numeric)) AND ((((p_candidate ->> 'lng'::text))::numeric >= ('-180'::integer)::numeric) AND (((p_candidate ->> 'lng'::text))::numeric <= (180)::numeric))) THEN public.st_setsrid(public.st_makepoint((round(((p_candidate ->> 'lng'::text))::numeric, 7))::double precision, (round(((p_candidate ->> 'lat'::text))::numeric, 7))::double precision), 4326) ELSE NULL::public.geometry END;

COMMENT ON FUNCTION tickets_ops.candidate_point(p_candidate jsonb) IS 'A candidate''s point (SRID 4326), NULL unless lat and lng are JSON numbers in range. Seven digits: 1 cm.';

CREATE FUNCTION tickets_ops.changes_problems(p_dataset text) RETURNS TABLE(severity text, problem text)
    LANGUAGE sql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
  select 'fault', format('%s %s, %s: %s. Put a good file of that name into the folder%s, or lose what it changes: select tickets_ops.skip_file(%L);',
    b.source_key, case b.status when 'failed' then 'failed' when 'held' then 'is held' else 'is loaded only in part' end,
    (
      select case max(l.waiting) when 1 then '1 later file waits' else format('%s later files wait', coalesce(max(l.waiting), 0)) end
      from tickets_ops.looks l where l.dataset = p_dataset
    ),
    rtrim(tickets_ops.reason(b), '.'),
    case b.status
      when 'held' then format(', load it as it is: select tickets_ops.release_snapshot(%s)', b.snapshot_id)
      else format(', read it again: select * from tickets_ops.fetch_now(%L, true)', p_dataset)
    end, b.source_key)
  from tickets_ops.blocking_file(p_dataset) b
  union all
  (
    select 'fault', format('%s came too late: %s', s.source_key, s.error)
    from tickets_ops.snapshots s
    where s.dataset = p_dataset and s.is_late and s.status = 'failed' and s.dismissed_at is null
    order by s.snapshot_at limit 1 -- index snapshots_by_time
  )
$$;

COMMENT ON FUNCTION tickets_ops.changes_problems(p_dataset text) IS 'What is wrong with a feed of changes, as faults in words: the file that stops it, with how many wait behind it, and one that came too late to be loaded in its order.';

CREATE FUNCTION tickets_ops.cheapest_tickets(p_from public.geography, p_team text, p_limit integer, p_km_per_metre double precision, p_radius double precision, p_bonus double precision, p_places public.geography[], p_teams text[], p_bonuses double precision[], p_taken boolean[], OUT tickets integer[], OUT metres double precision[], OUT costs double precision[], OUT beyond double precision) RETURNS record
    LANGUAGE plpgsql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET plan_cache_mode TO 'force_generic_plan'
    AS $$
begin
  select
    coalesce(array_agg(c.ticket), '{}'), coalesce(array_agg(c.metres), '{}'), coalesce(array_agg(c.cost), '{}'),
    case when count(*) < p_limit then 'Infinity' else max(c.sphere_cost) - tickets_ops.sphere_error() * (max(c.sphere_cost) + p_bonus) end
  into tickets, metres, costs, beyond
  from (
    select near.ticket, line.metres, p_km_per_metre * line.metres - near.bonus_km as cost, near.sphere_cost
    from (
      select p.ticket, p.place, p.bonus_km, p_km_per_metre * p.sphere - p.bonus_km as sphere_cost
      from (
        select t.ticket, t.place, t.bonus_km, tickets_ops.sphere_metres(p_from, t.place) as sphere
        from unnest(p_places, p_bonuses, p_teams) with ordinality as t (place, bonus_km, team, ticket)
        where (p_taken is null or not p_taken[t.ticket]) and (p_team is null or t.team = p_team)
        offset 0 -- the distance once, not wherever it is named
      ) as p
      where p.sphere <= p_radius * (1 - tickets_ops.sphere_error())
        or (p.sphere <= p_radius * (1 + tickets_ops.sphere_error()) and tickets.metres(p_from, p.place) <= p_radius)
      order by sphere_cost, p.ticket
      limit p_limit
    ) as near
    cross join lateral (select tickets.metres(p_from, near.place) as metres offset 0) as line
    order by cost, near.ticket
  ) as c;
end
$$;

COMMENT ON FUNCTION tickets_ops.cheapest_tickets(p_from public.geography, p_team text, p_limit integer, p_km_per_metre double precision, p_radius double precision, p_bonus double precision, p_places public.geography[], p_teams text[], p_bonuses double precision[], p_taken boolean[], OUT tickets integer[], OUT metres double precision[], OUT costs double precision[], OUT beyond double precision) IS 'Tickets that cost least from a place, cheapest first: p_limit of them, found by distances on a sphere, with true metres and costs. Any other costs at least beyond (Infinity: there is no other), which may be less than the list''s last. The tickets are those in the arrays that are not taken (p_taken NULL: all), by number, within p_radius metres. p_team: only those of that team; NULL: of any. p_bonus: the largest of p_bonuses, km.';

CREATE FUNCTION tickets_ops.check_coordinate(p_name text, p_geom public.geometry) RETURNS void
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
declare
  v_refusal text := tickets_ops.coordinate_refusal(p_geom);
begin
  if v_refusal is not null then
    raise exception 'The coordinate % of % is refused. %', p_geom::point, p_name, v_refusal using errcode = 'check_violation';
  end if;
end
$$;

COMMENT ON FUNCTION tickets_ops.check_coordinate(p_name text, p_geom public.geometry) IS 'Raises check_violation, with the reason, where a person puts a place of that name at a coordinate that cannot be meant (tickets_ops.coordinate_refusal).';

CREATE FUNCTION tickets_ops.check_transition() RETURNS trigger
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
declare
  v_from text;
begin
  if tg_op = 'UPDATE' then
    if new.status = old.status then
      return new;
    end if;
    v_from := old.status;
  end if;
  if not exists (
    select from tickets_ops.snapshot_transitions t where t.from_status is not distinct from v_from and t.to_status = new.status
  ) then
    raise exception 'Snapshot % cannot become % from %.', new.snapshot_id, new.status, coalesce(v_from, 'nothing')
      using hint = 'See tickets_ops.snapshot_transitions.';
  end if;
  return new;
end
$$;

COMMENT ON FUNCTION tickets_ops.check_transition() IS 'Trigger of the ledger: a status changes only as tickets_ops.snapshot_transitions lists.';

CREATE FUNCTION tickets_ops.claim_dispatch() RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET lock_timeout TO '10s'
    AS $$
begin
  perform pg_advisory_xact_lock(tickets_ops.dispatch_lock());
exception when lock_not_available then
  perform tickets_ops.raise_blocked();
end
$$;

COMMENT ON FUNCTION tickets_ops.claim_dispatch() IS 'Takes tickets_ops.dispatch_lock until the end of the transaction. Raises when somebody else keeps it for ten seconds, and names the process.';

CREATE FUNCTION tickets_ops.clock_tolerance() RETURNS interval
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN '00:15:00'::interval;

COMMENT ON FUNCTION tickets_ops.clock_tolerance() IS 'The clocks of exporter and database may differ by this much. A file whose time is further ahead is future-dated: it is refused until its time has come.';

CREATE FUNCTION tickets_ops.cluster_changed() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
begin
  if new.geom is not null then
    perform tickets_ops.rescore_locations(new.cluster);
    if tg_op = 'INSERT' or old.geom is null then
      perform tickets_ops.wake_locations(new.cluster);
      -- Places of a cluster that nobody knew have no job.
      perform tickets_ops.plan_geocoding(array[new.cluster]);
    end if;
    if not tickets_ops.is_pipeline() and tickets_ops.is_far_from_its_places(new.cluster) then
      raise notice 'Most known places of % lie beyond its guard of % km. It is taken as you set it; see tickets_ops.review_queue.',
        new.cluster, new.guard_km;
    end if;
  end if;
  return null;
end
$$;

COMMENT ON FUNCTION tickets_ops.cluster_changed() IS 'Trigger: a centroid came or moved, or a guard was widened or narrowed; the cluster''s places are rescored and those that waited for it are planned and asked. Security definer: the one who corrects a centroid need not be allowed to touch jobs.';

CREATE FUNCTION tickets_ops.cluster_job_key(p_cluster text) RETURNS text
    LANGUAGE sql IMMUTABLE
    RETURN ('geocode_cluster:'::text || tickets.cluster_key(p_cluster));

COMMENT ON FUNCTION tickets_ops.cluster_job_key(p_cluster text) IS 'Key of the geocode_cluster job of a cluster: at most one waits.';

CREATE FUNCTION tickets_ops.cluster_name(p_cluster text) RETURNS text
    LANGUAGE sql STABLE
    RETURN COALESCE(tickets.known_spelling(p_cluster), (SELECT mode() WITHIN GROUP (ORDER BY t.name) AS mode FROM ((SELECT tickets.cluster_spelling(inc.cluster) AS name FROM tickets.inc WHERE (tickets.cluster_key(inc.cluster) = tickets.cluster_key(cluster_name.p_cluster)) LIMIT 1000) UNION ALL (SELECT tickets.cluster_spelling(crq.cluster) AS cluster_spelling FROM tickets.crq WHERE (tickets.cluster_key(crq.cluster) = tickets.cluster_key(cluster_name.p_cluster)) LIMIT 1000)) t), CASE WHEN (tickets.cluster_key(p_cluster) IS NOT NULL) THEN tickets.cluster_spelling(p_cluster) ELSE NULL::text END);

COMMENT ON FUNCTION tickets_ops.cluster_name(p_cluster text) IS 'A cluster as the gazetteers write it, else as most of its tickets do, else as it is given. NULL for an empty name.';

CREATE FUNCTION tickets_ops.cluster_name_key(p_cluster text) RETURNS text
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN COALESCE(tickets.location_key(p_cluster), lower(p_cluster));

COMMENT ON FUNCTION tickets_ops.cluster_name_key(p_cluster text) IS 'A cluster''s name as the judge compares it: its location_key, or itself where that leaves nothing.';

CREATE FUNCTION tickets_ops.cluster_question(p_cluster text, p_force boolean, p_provider text DEFAULT NULL::text) RETURNS TABLE(state text, cluster text, name text, region text, answered text[])
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
declare
  v_cluster text := tickets_ops.cluster_name(p_cluster);
begin
  return query
    select
      case
        when v_cluster is null then 'nothing to ask'
        when c.verified then 'verified'
        when not p_force and tickets_ops.is_unknown_cluster(v_cluster) then 'unknown cluster'
        when not tickets_ops.is_due(c) and not p_force then 'known'
        else 'ask'
      end,
      v_cluster,
      coalesce(tickets.location_query(v_cluster), v_cluster),
      tickets_ops.cluster_region(v_cluster),
      (tickets_ops.answers(v_cluster, '', p_provider)).queries
    from (select 1) as always
    left join tickets.geo_clusters c on c.cluster = v_cluster;
end
$$;

COMMENT ON FUNCTION tickets_ops.cluster_question(p_cluster text, p_force boolean, p_provider text) IS 'What a geocode_cluster job has to ask. state: ask, known (a centroid, or asked in vain lately), verified, unknown cluster, nothing to ask. name: the cluster as a provider may read it; region: of most of its tickets; answered: queries that p_provider has answered already. p_force asks although known.';

CREATE FUNCTION tickets_ops.cluster_region(p_cluster text) RETURNS text
    LANGUAGE sql STABLE
    RETURN (SELECT mode() WITHIN GROUP (ORDER BY t.region) AS mode FROM ((SELECT inc.region FROM tickets.inc WHERE (tickets.cluster_key(inc.cluster) = tickets.cluster_key(cluster_region.p_cluster)) LIMIT 1000) UNION ALL (SELECT crq.region FROM tickets.crq WHERE (tickets.cluster_key(crq.cluster) = tickets.cluster_key(cluster_region.p_cluster)) LIMIT 1000)) t);

COMMENT ON FUNCTION tickets_ops.cluster_region(p_cluster text) IS 'The region that most of a cluster''s tickets name. NULL: none.';

CREATE FUNCTION tickets_ops.content_lag(p_dataset text, OUT lag interval, OUT usual interval) RETURNS record
    LANGUAGE sql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
  with looked as (
    select s.snapshot_at, s.content_through, s.snapshot_at - s.content_through as lag
    from tickets_ops.snapshots s
    where s.dataset = p_dataset and tickets_ops.is_whole(s.status) and s.content_through is not null
      and s.snapshot_at > now() - interval '14 days' -- index snapshots_by_time
  ),
  newest as (
    select * from looked order by snapshot_at desc limit 1
  )
  select n.lag, (
    select make_interval(secs => percentile_cont(0.95) within group (order by extract(epoch from l.lag)))
    from looked l
    -- While the content stands still its lag grows with each file: that is what is judged, not what it is judged by.
    where l.content_through < n.content_through
    having min(l.snapshot_at) < now() - interval '7 days'
  )
  from newest n
$$;

COMMENT ON FUNCTION tickets_ops.content_lag(p_dataset text, OUT lag interval, OUT usual interval) IS 'How far the content of the newest file trails the file''s own time, and what is usual: the 95th percentile of the files of 14 days whose content was older. usual is NULL before seven days of history. Both NULL before the first load.';

CREATE FUNCTION tickets_ops.content_through(p_dataset text) RETURNS timestamp with time zone
    LANGUAGE plpgsql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $_$
declare
  v_through timestamptz;
begin
  -- Indexes *_created_at_service and *_closed_at.
  execute format(
    'select greatest(
       (select max(created_at_service) from tickets.%1$I where created_at_service <= now()),
       (select max(closed_at) from tickets.%1$I where closed_at <= now())
     )', p_dataset
  ) into v_through;
  return v_through;
end
$_$;

COMMENT ON FUNCTION tickets_ops.content_through(p_dataset text) IS 'The newest created_at_service or closed_at of a dataset (inc, crq) that is not in the future: how far its content goes. It trails the files by days.';

CREATE FUNCTION tickets_ops.enqueue(p_task text, p_payload json, p_job_key text DEFAULT NULL::text, p_run_at timestamp with time zone DEFAULT NULL::timestamp with time zone, p_priority integer DEFAULT NULL::integer, p_max_attempts integer DEFAULT NULL::integer) RETURNS bigint
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
declare
  v_policy record;
begin
  select * into v_policy from tickets_ops.job_policy(p_task);
  if not found then
    raise exception 'There is no task %.', p_task using hint = 'See tickets_ops.job_policy().';
  end if;
  return (graphile_worker.add_job(
    p_task, p_payload, job_key := p_job_key, run_at := p_run_at, flags := v_policy.flags,
    max_attempts := coalesce(p_max_attempts, v_policy.max_attempts), priority := coalesce(p_priority, v_policy.priority)
  )).id;
end
$$;

COMMENT ON FUNCTION tickets_ops.enqueue(p_task text, p_payload json, p_job_key text, p_run_at timestamp with time zone, p_priority integer, p_max_attempts integer) IS 'Adds a job, due at p_run_at (NULL: now), with the attempts and priority of its task (tickets_ops.job_policy) unless others are given. One with the same key that waits is replaced; one that runs loses the key and is not tried again. Returns its id, NULL when a worker takes the one it would replace at this moment. Raises for a task that is not ours.';

CREATE FUNCTION tickets_ops.fetch_job_key(p_dataset text, p_which text) RETURNS text
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN format('fetch_snapshot:%s:%s'::text, p_dataset, p_which);

COMMENT ON FUNCTION tickets_ops.fetch_job_key(p_dataset text, p_which text) IS 'Key of a fetch_snapshot job. p_which: newest, force or backfill.';

CREATE FUNCTION tickets_ops.continue_backfill(p_dataset text) RETURNS bigint
    LANGUAGE sql
    RETURN tickets_ops.enqueue('fetch_snapshot'::text, json_build_object('dataset', p_dataset, 'backfill', true), tickets_ops.fetch_job_key(p_dataset, 'backfill'::text));

COMMENT ON FUNCTION tickets_ops.continue_backfill(p_dataset text) IS 'Asks for the next file of a backfill. Returns the job''s id.';

CREATE FUNCTION tickets_ops.coordinate_refusal(p_geom public.geometry) RETURNS text
    LANGUAGE sql STABLE PARALLEL SAFE
    BEGIN ATOMIC
 SELECT
         CASE tickets.outside_kenya(p_geom)
             WHEN 'swapped'::text THEN format('It lies outside Kenya; longitude and latitude are probably swapped. Write st_setsrid(st_makepoint(%s, %s), 4326).'::text, public.st_y(p_geom), public.st_x(p_geom))
             WHEN 'null island'::text THEN 'It is 0,0, which is what an empty coordinate becomes. Write st_setsrid(st_makepoint(longitude, latitude), 4326); Nairobi is st_makepoint(36.82, -1.29).'::text
             WHEN 'outside'::text THEN 'It lies outside Kenya. Longitude comes first: Nairobi is st_setsrid(st_makepoint(36.82, -1.29), 4326).'::text
             ELSE NULL::text
         END AS "case";
END;

COMMENT ON FUNCTION tickets_ops.coordinate_refusal(p_geom public.geometry) IS 'Why a person may not put a place there: outside Kenya, 0,0, or swapped axes, with the right order. NULL: they may.';

CREATE FUNCTION tickets_ops.costs_from(p_from public.geography, p_tickets integer[], p_km_per_metre double precision, p_radius double precision, p_places public.geography[], p_bonuses double precision[], p_taken boolean[], OUT tickets integer[], OUT metres double precision[], OUT costs double precision[]) RETURNS record
    LANGUAGE plpgsql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET plan_cache_mode TO 'force_generic_plan'
    AS $$
begin
  select coalesce(array_agg(c.ticket), '{}'), coalesce(array_agg(c.metres), '{}'), coalesce(array_agg(c.cost), '{}') into tickets, metres, costs
  from (
    select t.ticket, line.metres, p_km_per_metre * line.metres - p_bonuses[t.ticket] as cost
    from unnest(p_tickets) as t (ticket)
    cross join lateral (select tickets.metres(p_from, p_places[t.ticket]) as metres offset 0) as line
    where not p_taken[t.ticket] and line.metres <= p_radius
    order by cost, t.ticket
  ) as c;
end
$$;

COMMENT ON FUNCTION tickets_ops.costs_from(p_from public.geography, p_tickets integer[], p_km_per_metre double precision, p_radius double precision, p_places public.geography[], p_bonuses double precision[], p_taken boolean[], OUT tickets integer[], OUT metres double precision[], OUT costs double precision[]) IS 'What these tickets (numbers in the arrays p_places, p_bonuses and p_taken) cost from a place, cheapest first; those that are taken or beyond p_radius metres are left out.';

CREATE FUNCTION tickets_ops.count_vehicles() RETURNS TABLE(freshness text, vehicles bigint, severity text, trouble text)
    LANGUAGE plpgsql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET lock_timeout TO '200ms'
    SET row_security TO 'off'
    AS $$
#variable_conflict use_column
declare
  v_foreign constant text := tickets_ops.foreign_vehicle_code();
begin
  if v_foreign is not null then
    return query select null, null::bigint, 'warning', format(
      'tickets.vehicles is not counted here: reading it runs %s, with the rights of the pipeline. Read the tracker''s table itself: fleettickets vehicles prints such a view.', v_foreign);
    return;
  end if;
  return query select v.freshness, count(*), null, null from tickets.vehicles_now v group by v.freshness;
exception
  when lock_not_available then
    return query select null, null::bigint, null, 'Somebody holds a lock on the tracker''s table.';
  when others then
    return query select null, null::bigint, 'fault', format(
      'tickets.vehicles cannot be read, so no vehicle can be planned or sent: %s. fleettickets vehicles prints the view and the grants that it needs.', sqlerrm);
end
$$;

COMMENT ON FUNCTION tickets_ops.count_vehicles() IS 'Vehicles by their freshness (tickets.vehicles_now); or one row that says why they cannot be counted: severity fault where a person must mend tickets.vehicles, warning where it would run what others made, NULL where it is a matter of a moment (a lock).';

CREATE FUNCTION tickets_ops.counts_as_loaded(p_status text) RETURNS boolean
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN (p_status = ANY (ARRAY['done'::text, 'partial'::text, 'unchanged'::text]));

COMMENT ON FUNCTION tickets_ops.counts_as_loaded(p_status text) IS 'Whether the tickets were brought to a file''s time, by its status in the ledger: it was loaded, whole or in part, or found unchanged.';

CREATE FUNCTION tickets_ops.dataset_metrics(p_dataset text) RETURNS TABLE(name text, labels jsonb, value double precision)
    LANGUAGE sql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
  with meta as (
    select tickets.eat_ts(i.metadata ->> 'checked_at') as checked_at, tickets.eat_ts(i.metadata ->> 'snapshot_at') as data_at
    from tickets.import_meta i where i.dataset = p_dataset
  ),
  figures (name, labels, value) as (
    select 'checked_age_seconds', '{}'::jsonb, extract(epoch from now() - checked_at) from meta
    union all select 'data_age_seconds', '{}', extract(epoch from now() - data_at) from meta
    union all select 'content_lag_seconds', '{}', extract(epoch from lag) from tickets_ops.content_lag(p_dataset)
    union all select 'missed_run', '{}', (tickets_ops.missed_run(p_dataset) is not null)::integer
    union all select 'snapshot_load_seconds', '{}', extract(epoch from loaded_at - load_began_at) from tickets_ops.last_loaded(p_dataset)
    union all select 'open_missing', '{}', open_missing from tickets_ops.last_loaded(p_dataset)
    union all
    select 'files_waiting', '{}', (
      select count(*) from tickets_ops.snapshots s where s.dataset = p_dataset and (s.in_flight or s.status = 'held')
    ) + coalesce((select l.waiting from tickets_ops.looks l where l.dataset = p_dataset), 0)
    union all
    select 'snapshot_rows', jsonb_build_object('outcome', o.outcome), coalesce(o.rows, 0)
    from (select) as one
    left join tickets_ops.last_loaded(p_dataset) s on true
    cross join lateral (values
      ('inserted', s.rows_inserted), ('updated', s.rows_updated), ('unchanged', s.rows_unchanged), ('duplicate', s.rows_duplicate),
      ('dropped_alarm', s.rows_dropped_alarm), ('dropped_sentinel', s.rows_dropped_sentinel), ('rejected', s.rows_rejected)
    ) as o (outcome, rows)
  ),
  -- Before the first load the table of the last ones has no row.
  ages (name) as (
    values ('checked_age_seconds'), ('data_age_seconds'), ('content_lag_seconds'), ('snapshot_load_seconds'), ('open_missing')
  )
  select coalesce(f.name, a.name), jsonb_build_object('dataset', p_dataset) || coalesce(f.labels, '{}'), coalesce(f.value, 'NaN')
  from figures f full join ages a using (name)
$$;

COMMENT ON FUNCTION tickets_ops.dataset_metrics(p_dataset text) IS 'Metrics of the files of a dataset (inc, crq).';

CREATE FUNCTION tickets_ops.day_lock() RETURNS bigint
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN hashtextextended('fleettickets day'::text, (0)::bigint);

COMMENT ON FUNCTION tickets_ops.day_lock() IS 'Key of the advisory lock under which the ends of looks take turns to write their day.';

CREATE FUNCTION tickets_ops.undoing() RETURNS bigint
    LANGUAGE sql STABLE
    RETURN (NULLIF(current_setting('tickets_ops.undoing'::text, true), ''::text))::bigint;

COMMENT ON FUNCTION tickets_ops.undoing() IS 'The decision that the gazetteer write of this moment takes back, set by tickets.undo_decision for its own duration. NULL: none. A role that sets it by hand can restore that decision''s row, and write nothing else.';

CREATE FUNCTION tickets_ops.decision_of(p_before jsonb, p_after jsonb) RETURNS text
    LANGUAGE sql STABLE
    RETURN CASE WHEN (tickets_ops.undoing() IS NOT NULL) THEN 'undone'::text WHEN (p_before IS NULL) THEN 'added'::text WHEN (p_after IS NULL) THEN 'removed'::text WHEN (((p_before -> 'verified'::text) = 'true'::jsonb) AND ((p_after -> 'verified'::text) = 'false'::jsonb)) THEN 'handed back'::text WHEN ((((p_before -> 'verified'::text) IS DISTINCT FROM (p_after -> 'verified'::text)) OR ((p_before -> 'status'::text) IS DISTINCT FROM (p_after -> 'status'::text))) OR ((p_before -> 'geom'::text) IS DISTINCT FROM (p_after -> 'geom'::text))) THEN CASE WHEN (((p_after ->> 'geom'::text) IS NULL) OR ((p_after ->> 'status'::text) = 'rejected'::text)) THEN 'rejected'::text WHEN ((p_after -> 'geom'::text) <> (p_before -> 'geom'::text)) THEN 'moved'::text ELSE 'accepted'::text END WHEN ((p_after -> 'guard_km'::text) <> (p_before -> 'guard_km'::text)) THEN 'guard'::text ELSE 'changed'::text END;

COMMENT ON FUNCTION tickets_ops.decision_of(p_before jsonb, p_after jsonb) IS 'What a person''s write of a gazetteer row decided, as a word of tickets.geo_decisions.decision. NULL for the row that is not there.';

CREATE FUNCTION tickets_ops.delete_jobs_of(p_tasks text[]) RETURNS bigint
    LANGUAGE sql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
  with deleted as (
    delete from graphile_worker._private_jobs j
    using graphile_worker._private_tasks t
    where t.id = j.task_id and t.identifier = any (p_tasks)
    returning 1
  )
  select count(*) from deleted
$$;

COMMENT ON FUNCTION tickets_ops.delete_jobs_of(p_tasks text[]) IS 'Deletes all jobs of these tasks, those included that a worker holds, dead or alive: only while no worker lives. Returns how many.';

CREATE FUNCTION tickets_ops.hung_after() RETURNS interval
    LANGUAGE sql IMMUTABLE
    RETURN '00:02:00'::interval;

COMMENT ON FUNCTION tickets_ops.hung_after() IS 'A worker that holds its lock and has not been heard of for so long is hung, and treated as dead.';

CREATE TABLE tickets_ops.settings (
    name text NOT NULL,
    pool_id text NOT NULL,
    value text NOT NULL,
    recorded_at timestamp with time zone DEFAULT now() NOT NULL
);

COMMENT ON TABLE tickets_ops.settings IS 'Settings that SQL goes by, as each process was given them by its environment. Which of several stands says tickets_ops.setting(name).';

COMMENT ON COLUMN tickets_ops.settings.name IS 'The environment''s variable.';

COMMENT ON COLUMN tickets_ops.settings.pool_id IS 'The worker pool of the process (tickets_ops.workers), or `migrate`.';

COMMENT ON COLUMN tickets_ops.settings.value IS 'Its value as text.';

COMMENT ON COLUMN tickets_ops.settings.recorded_at IS 'When the process started.';

CREATE TABLE tickets_ops.workers (
    pool_id text NOT NULL,
    started_at timestamp with time zone DEFAULT now() NOT NULL,
    seen_at timestamp with time zone DEFAULT now() NOT NULL,
    host text NOT NULL,
    pid integer NOT NULL,
    sessions text NOT NULL,
    shares_sessions boolean DEFAULT false NOT NULL,
    stopped_at timestamp with time zone,
    declared_dead_at timestamp with time zone
);

COMMENT ON TABLE tickets_ops.workers IS 'Worker processes. A live one holds the advisory lock of its pool id on a connection of its own, and registers only once it holds it: a registered pool whose lock is free is dead. Read tickets_ops.worker_states().';

COMMENT ON COLUMN tickets_ops.workers.pool_id IS 'graphile-worker''s pool id: what locked_by says of its jobs.';

COMMENT ON COLUMN tickets_ops.workers.started_at IS 'When the pool registered.';

COMMENT ON COLUMN tickets_ops.workers.seen_at IS 'Heartbeat, every 5 s.';

COMMENT ON COLUMN tickets_ops.workers.host IS 'Host or container name: `fleettickets healthcheck` asks for the one it runs on.';

COMMENT ON COLUMN tickets_ops.workers.pid IS 'Process id on that host.';

COMMENT ON COLUMN tickets_ops.workers.sessions IS 'application_name of all its connections, so that those of a worker that hangs can be ended.';

COMMENT ON COLUMN tickets_ops.workers.shares_sessions IS 'Its connections are not sessions of their own (the embedded database): its lock says nothing, and nobody can tell whether it lives.';

COMMENT ON COLUMN tickets_ops.workers.stopped_at IS 'When it shut down in good order.';

COMMENT ON COLUMN tickets_ops.workers.declared_dead_at IS 'When another worker took its jobs away: if it still lives, it ends itself at its next heartbeat.';

CREATE FUNCTION tickets_ops.setting(p_name text) RETURNS text
    LANGUAGE sql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    RETURN (SELECT s.value FROM ((tickets_ops.settings s LEFT JOIN tickets_ops.workers w USING (pool_id)) CROSS JOIN LATERAL (SELECT COALESCE(((w.stopped_at IS NULL) AND (w.declared_dead_at IS NULL) AND (w.seen_at > (now() - tickets_ops.hung_after()))), false) AS runs) process) WHERE (s.name = setting.p_name) ORDER BY process.runs DESC, CASE WHEN (NOT process.runs) THEN COALESCE(w.seen_at, s.recorded_at) ELSE NULL::timestamp with time zone END DESC, s.recorded_at DESC LIMIT 1);

COMMENT ON FUNCTION tickets_ops.setting(p_name text) IS 'The value of a setting as recorded by the process that started last of those that run and have it; where none of these runs, by the one that was heard of last. NULL: no process ever had one, and the default stands.';

CREATE FUNCTION tickets_ops.feed(p_dataset text) RETURNS text
    LANGUAGE sql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    RETURN COALESCE(tickets_ops.setting((upper(p_dataset) || '_FEED'::text)), 'snapshots'::text);

COMMENT ON FUNCTION tickets_ops.feed(p_dataset text) IS 'What the files of a dataset (inc, crq) are: snapshots, of which the newest is enough, or changes, of which each is needed. As its processes were told (INC_FEED, CRQ_FEED; tickets_ops.setting); snapshots where none ever was.';

CREATE FUNCTION tickets_ops.job_policy(p_task text DEFAULT NULL::text) RETURNS TABLE(task text, max_attempts integer, priority integer, on_demand_priority integer, flags text[])
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    BEGIN ATOMIC
 SELECT policy.task,
     policy.max_attempts,
     policy.priority,
     policy.on_demand_priority,
     policy.flags
    FROM ( VALUES ('fetch_snapshot'::text,6,'-10'::integer,'-10'::integer,'{}'::text[]), ('upsert_batch'::text,6,'-10'::integer,NULL::integer,'{}'::text[]), ('finalize_snapshot'::text,6,'-10'::integer,NULL::integer,'{}'::text[]), ('geocode_cluster'::text,6,20,10,'{geocode}'::text[]), ('geocode_location'::text,6,30,11,'{geocode}'::text[]), ('fleettickets_maintain'::text,3,'-20'::integer,NULL::integer,'{}'::text[]), ('fleettickets_alert'::text,25,'-20'::integer,NULL::integer,'{}'::text[])) policy(task, max_attempts, priority, on_demand_priority, flags)
   WHERE ((job_policy.p_task IS NULL) OR (policy.task = job_policy.p_task));
END;

COMMENT ON FUNCTION tickets_ops.job_policy(p_task text) IS 'Attempts, priority (lower runs first; a planned location adds its age in days, 9 at most), priority when a person asked for it (NULL: nobody can) and flags of the jobs of a task; of every task where p_task is NULL. No row for a task that is not ours.';

CREATE FUNCTION tickets_ops.readable_payload(p_payload json) RETURNS jsonb
    LANGUAGE plpgsql IMMUTABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
begin
  return p_payload::jsonb;
exception
  -- A \u0000, half of a surrogate pair or a number of a million digits is valid json, and no jsonb. One such job must not hide all others.
  when data_exception then return to_jsonb(p_payload::text);
end
$$;

COMMENT ON FUNCTION tickets_ops.readable_payload(p_payload json) IS 'A job''s payload as jsonb; as a text where jsonb cannot hold it.';

CREATE FUNCTION tickets_ops.parsed_payload(p_payload json) RETURNS jsonb
    LANGUAGE sql IMMUTABLE
    RETURN CASE WHEN ((length((p_payload)::text) < 1000) AND ((p_payload)::text !~ ((chr(92) || chr(92)) || 'u(0000|[dD][89a-fA-F])|[0-9][eE][+-]?[0-9]{3}'::text))) THEN (p_payload)::jsonb ELSE tickets_ops.readable_payload(p_payload) END;

COMMENT ON FUNCTION tickets_ops.parsed_payload(p_payload json) IS 'As tickets_ops.readable_payload, for 200 000 of them.';

CREATE FUNCTION tickets_ops.queued_jobs(p_unknown_too boolean DEFAULT false) RETURNS TABLE(id bigint, task text, key text, payload json, queue text, priority integer, state text, run_at timestamp with time zone, attempts integer, max_attempts integer, last_error text, locked_at timestamp with time zone, locked_by text, flags jsonb, created_at timestamp with time zone, updated_at timestamp with time zone)
    LANGUAGE sql STABLE
    AS $$
  select
    j.id, t.identifier, j.key, j.payload, q.queue_name, j.priority::integer,
    case
      when j.locked_at is not null then 'running'
      when j.attempts >= j.max_attempts then 'failed'
      when j.attempts > 0 then 'retrying'
      when j.run_at > now() then 'scheduled'
      else 'ready'
    end,
    j.run_at, j.attempts::integer, j.max_attempts::integer, j.last_error, j.locked_at, j.locked_by, j.flags, j.created_at, j.updated_at
  from graphile_worker._private_jobs j
  join graphile_worker._private_tasks t on t.id = j.task_id
  left join graphile_worker._private_job_queues q on q.id = j.job_queue_id
  where p_unknown_too or t.identifier in (select policy.task from tickets_ops.job_policy() policy)
$$;

COMMENT ON FUNCTION tickets_ops.queued_jobs(p_unknown_too boolean) IS 'Every job of ours. state: ready (due, or due when a worker is free), scheduled (waits for run_at), running, retrying (waits after an attempt that failed), failed (no attempt is left, and it does not run). p_unknown_too: also those whose task is none of ours. For operators: tickets_ops.jobs.';

CREATE FUNCTION tickets_ops.wall_clock(p_at timestamp with time zone) RETURNS text
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN to_char((p_at AT TIME ZONE 'Africa/Nairobi'::text), 'YYYY-MM-DD HH24:MI "EAT"'::text);

COMMENT ON FUNCTION tickets_ops.wall_clock(p_at timestamp with time zone) IS 'A time as people in Nairobi read it, with its zone.';

CREATE FUNCTION tickets_ops.worker_schema_is_shared() RETURNS boolean
    LANGUAGE sql STABLE
    RETURN COALESCE((tickets_ops.setting('WORKER_SCHEMA_SHARED'::text) = 'true'::text), false);

COMMENT ON FUNCTION tickets_ops.worker_schema_is_shared() IS 'Whether another application has jobs in the same schema (setting WORKER_SCHEMA_SHARED): then jobs of tasks that are not ours are nobody''s business here.';

CREATE TABLE tickets.import_meta (
    dataset text NOT NULL,
    metadata jsonb DEFAULT '{}'::jsonb NOT NULL
);

COMMENT ON TABLE tickets.import_meta IS 'Freshness of each dataset, one row each; reporting.fn_tickets_for_map() shows it as summary.freshness.';

COMMENT ON COLUMN tickets.import_meta.dataset IS 'inc or crq.';

COMMENT ON COLUMN tickets.import_meta.metadata IS 'source_key, source_etag, source_sha256, source_last_modified, ingested_at and counts of the last whole load; snapshot_at and checked_at also advance when the newest file is unchanged.';

CREATE FUNCTION tickets_ops.described_jobs() RETURNS TABLE(id bigint, task text, key text, payload jsonb, queue text, priority integer, state text, run_at timestamp with time zone, attempts integer, max_attempts integer, last_error text, locked_by text, age interval, failed_at timestamp with time zone, superseded text)
    LANGUAGE sql STABLE
    BEGIN ATOMIC
 SELECT j.id,
     j.task,
     j.key,
     r.payload,
     j.queue,
     j.priority,
     s.state,
     j.run_at,
     j.attempts,
     j.max_attempts,
         CASE
             WHEN (p.task IS NOT NULL) THEN j.last_error
             ELSE NULL::text
         END AS "case",
     j.locked_by,
     date_trunc('second'::text, (now() - j.created_at)) AS date_trunc,
     f.failed_at,
         CASE
             WHEN (s.state = 'failed'::text) THEN
             CASE
                 WHEN ((j.task = 'fetch_snapshot'::text) AND ((r.request ->> 'dataset'::text) = 'crq'::text) AND (NOT ('crq'::text IN ( SELECT tickets.datasets() AS datasets)))) THEN format('%s is off.'::text, (r.request ->> 'dataset'::text))
                 WHEN ((j.task = 'fetch_snapshot'::text) AND (m.checked_at > f.failed_at) AND (((r.request ->> 'backfill'::text) IS DISTINCT FROM 'true'::text) OR (tickets_ops.feed(COALESCE((r.request ->> 'dataset'::text), 'inc'::text)) = 'changes'::text))) THEN format('The bucket was looked at again on %s.'::text, tickets_ops.wall_clock(m.checked_at))
                 WHEN (l.newer IS NOT NULL) THEN format('Snapshot %s came after it.'::text, l.newer)
                 WHEN ((l.status <> 'failed'::text) AND (NOT l.in_flight)) THEN format('Snapshot %s is %s.'::text, l.snapshot_id, l.status)
                 ELSE NULL::text
             END
             ELSE NULL::text
         END AS "case"
    FROM ((((((tickets_ops.queued_jobs(p_unknown_too => true) j(id, task, key, payload, queue, priority, state, run_at, attempts, max_attempts, last_error, locked_at, locked_by, flags, created_at, updated_at)
      LEFT JOIN tickets_ops.job_policy() p(task, max_attempts, priority, on_demand_priority, flags) ON ((p.task = j.task)))
      CROSS JOIN LATERAL ( SELECT
                 CASE
                     WHEN (p.task IS NOT NULL) THEN tickets_ops.parsed_payload(j.payload)
                     ELSE NULL::jsonb
                 END AS payload,
                 CASE
                     WHEN (j.task = ANY (ARRAY['fetch_snapshot'::text, 'upsert_batch'::text, 'finalize_snapshot'::text])) THEN tickets_ops.parsed_payload(j.payload)
                     ELSE NULL::jsonb
                 END AS request
          OFFSET 0) r)
      CROSS JOIN LATERAL ( SELECT
                 CASE
                     WHEN (p.task IS NULL) THEN 'unknown task'::text
                     ELSE j.state
                 END AS state) s)
      CROSS JOIN LATERAL ( SELECT
                 CASE
                     WHEN (s.state = 'failed'::text) THEN GREATEST(j.created_at, (j.run_at - (exp((LEAST(j.attempts, 10))::double precision) * '00:00:01'::interval)))
                     ELSE NULL::timestamp with time zone
                 END AS failed_at) f)
      LEFT JOIN LATERAL ( SELECT tickets.eat_ts((i.metadata ->> 'checked_at'::text)) AS checked_at
            FROM tickets.import_meta i
           WHERE (i.dataset = COALESCE((r.request ->> 'dataset'::text), 'inc'::text))) m ON (((s.state = 'failed'::text) AND (j.task = 'fetch_snapshot'::text))))
      LEFT JOIN LATERAL ( SELECT n.snapshot_id,
             n.status,
             n.in_flight,
             ( SELECT min(x.snapshot_id) AS min
                    FROM tickets_ops.snapshots x
                   WHERE ((x.dataset = n.dataset) AND (x.load_began_at > n.load_began_at))) AS newer
            FROM tickets_ops.snapshots n
           WHERE (n.snapshot_id =
                 CASE
                     WHEN ((r.request ->> 'snapshot_id'::text) ~ '^[0-9]{1,18}$'::text) THEN ((r.request ->> 'snapshot_id'::text))::bigint
                     ELSE NULL::bigint
                 END)) l ON (((s.state = 'failed'::text) AND (j.task = ANY (ARRAY['upsert_batch'::text, 'finalize_snapshot'::text])))))
   WHERE ((p.task IS NOT NULL) OR (NOT ( SELECT tickets_ops.worker_schema_is_shared() AS worker_schema_is_shared)));
END;

COMMENT ON FUNCTION tickets_ops.described_jobs() IS 'The jobs of the pipeline in the words of tickets_ops.jobs and tickets_ops.failed_jobs; where no other application shares their schema, also those of tasks that no worker of ours has. With the caller''s rights: only the owner sees any.';

CREATE FUNCTION tickets_ops.dismiss_snapshot(p_snapshot_id bigint) RETURNS text
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET lock_timeout TO '10s'
    AS $$
declare
  v_snapshot tickets_ops.snapshots;
begin
  v_snapshot := tickets_ops.locked_snapshot(p_snapshot_id);
  if v_snapshot.status = 'held' then
    update tickets_ops.snapshots
    set status = 'failed', error = format('Dismissed by %s. %s', session_user, hold_reason), dismissed_at = now(), progress_at = now()
    where snapshot_id = p_snapshot_id;
    perform tickets_ops.wipe_staging(p_snapshot_id);
    return format('Snapshot %s is dropped; its file stays where it is.', p_snapshot_id);
  elsif v_snapshot.status = 'failed' then
    update tickets_ops.snapshots
    set dismissed_at = now(), error = format('Dismissed by %s. %s', session_user, error)
    where snapshot_id = p_snapshot_id and dismissed_at is null;
    return format('Health no longer speaks of snapshot %s.', p_snapshot_id);
  end if;
  raise exception 'Snapshot % is %: only one that is held or has failed is dismissed.', p_snapshot_id, v_snapshot.status;
exception when lock_not_available then
  perform tickets_ops.raise_blocked();
  return null;
end
$$;

COMMENT ON FUNCTION tickets_ops.dismiss_snapshot(p_snapshot_id bigint) IS 'Drops a snapshot that is held, which becomes failed, or takes a failed one out of health: select tickets_ops.dismiss_snapshot(42). Its file stays where it is. Raises for any other, and when others hold its row for ten seconds.';

CREATE FUNCTION tickets_ops.dispatch_lock() RETURNS bigint
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN '7405120260617'::bigint;

COMMENT ON FUNCTION tickets_ops.dispatch_lock() IS 'Key of the advisory lock that is held while a plan is made and carried out: two at once would each fill the same vehicles.';

CREATE FUNCTION tickets_ops.distance_km(p_one public.geometry, p_other public.geometry) RETURNS numeric
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN round(((public.st_distance((p_one)::public.geography, (p_other)::public.geography) / (1000)::double precision))::numeric, 3);

COMMENT ON FUNCTION tickets_ops.distance_km(p_one public.geometry, p_other public.geometry) IS 'Geodesic kilometres between two points. NULL if one is.';

CREATE FUNCTION tickets_ops.distrust_answers(p_provider text) RETURNS void
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
declare
  v_since constant timestamptz := (select found_at from tickets_ops.geocoding_providers where provider = p_provider);
  v_until constant timestamptz := now() + interval '1 hour';
  v_before boolean := tickets_ops.as_pipeline(true);
begin
  delete from tickets_ops.geocoding_answers where provider = p_provider and answered_at > v_since and candidates = '[]';
  update tickets.geo_locations
  set expires_at = v_until, attempts = greatest(attempts - 1, 0)
  where provider = p_provider and status = 'not_found' and not verified and fetched_at > v_since and expires_at > v_until;
  update tickets.geo_clusters
  set expires_at = v_until, attempts = greatest(attempts - 1, 0)
  where provider = p_provider and geom is null and not verified and fetched_at > v_since and expires_at > v_until;
  perform tickets_ops.as_pipeline(v_before);
end
$$;

COMMENT ON FUNCTION tickets_ops.distrust_answers(p_provider text) IS 'A provider is suspected: what it did not find since it last found anything expires in an hour, and does not count as an attempt.';

CREATE FUNCTION tickets_ops.empty_staging(p_snapshot_id bigint) RETURNS void
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
declare
  v_locked boolean;
begin
  if pg_relation_size('tickets_ops.snapshot_rows') > 4 * 1024 * 1024 and current_setting('transaction_isolation') = 'read committed' then
    foreach v_locked in array array[false, true] loop
      exit when exists (select from tickets_ops.snapshot_rows where snapshot_id < p_snapshot_id) -- primary key
        or exists (select from tickets_ops.snapshot_rows where snapshot_id > p_snapshot_id);
      if v_locked then
        truncate tickets_ops.snapshot_rows;
        exit;
      end if;
      begin
        lock table tickets_ops.snapshot_rows in access exclusive mode nowait;
      exception when lock_not_available then
        exit;
      end;
    end loop;
  end if;
  perform tickets_ops.wipe_staging(p_snapshot_id);
end
$$;

COMMENT ON FUNCTION tickets_ops.empty_staging(p_snapshot_id bigint) IS 'As tickets_ops.wipe_staging, at the end of a load: truncates the table where the snapshot''s rows stand alone in it and nobody uses it, since deleting half a million of them takes a quarter of a second, and a vacuum afterwards. Others wait for the table until the transaction ends.';

CREATE FUNCTION tickets_ops.end_assignments(p_snapshot_id bigint, p_first_ticket_id text, p_last_ticket_id text) RETURNS void
    LANGUAGE sql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
  update tickets.assignments a
  set state = 'done', ended_at = now(), end_reason = format('closed in snapshot %s', p_snapshot_id)
  from tickets.inc t
  where a.state = 'assigned' and a.ticket_id between p_first_ticket_id and p_last_ticket_id -- index assignments_one_vehicle
    and t.ticket_id = a.ticket_id and t.is_actionable is not true
$$;

COMMENT ON FUNCTION tickets_ops.end_assignments(p_snapshot_id bigint, p_first_ticket_id text, p_last_ticket_id text) IS 'Ends the assignments of the tickets of a range of ids that are no longer open. A load calls it in the transaction that writes them, as a statement of its own: it then sees what a dispatcher committed while the load waited for the ticket.';

CREATE FUNCTION tickets_ops.enqueue_all(p_tasks text[], p_payloads json[], p_job_keys text[], p_run_at timestamp with time zone[], p_priorities integer[]) RETURNS bigint
    LANGUAGE sql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
  select count(*)
  from graphile_worker.add_jobs(array(
    select cast(row(job.task, job.payload, null, job.run_at, policy.max_attempts, job.key, job.priority, policy.flags) as graphile_worker.job_spec)
    from unnest(p_tasks, p_payloads, p_job_keys, p_run_at, p_priorities) with ordinality
      as job (task, payload, key, run_at, priority, no)
    join tickets_ops.job_policy() policy on policy.task = job.task
    order by job.no
  ))
$$;

COMMENT ON FUNCTION tickets_ops.enqueue_all(p_tasks text[], p_payloads json[], p_job_keys text[], p_run_at timestamp with time zone[], p_priorities integer[]) IS 'tickets_ops.enqueue for many jobs at once (measured: 10 000 in 0.1 s, one by one in 6.6 s). The arrays are of one length; a task that is not ours is left out. Returns how many were added.';

CREATE FUNCTION tickets_ops.enqueue_on_demand(p_task text, p_key text, p_payload jsonb, p_force boolean, p_known text) RETURNS TABLE(job_id bigint, job_key text, already_waiting boolean, note text)
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET lock_timeout TO '10s'
    AS $$
#variable_conflict use_column
declare
  v_priority constant integer := (select on_demand_priority from tickets_ops.job_policy(p_task));
  v_warning constant text := case when not tickets_ops.has_tickets(p_payload ->> 'cluster') then
    format('No ticket has the cluster "%s".', p_payload ->> 'cluster') end;
  v_waiting record;
  v_job_id bigint;
  v_provider text := (
    select case when g.state <> 'ready' then format('It waits: %s. %s', g.state, g.reason) end
    from tickets_ops.geocoding g where g.active limit 1
  );
begin
  if p_known = 'unknown cluster' then
    return query select
      null::bigint, p_key, false, v_warning || ' Nothing is asked: check its spelling, or ask all the same with force => true.';
    return;
  end if;
  select j.id, j.state = 'running' as running, coalesce(tickets_ops.readable_payload(j.payload) ->> 'force', '') = 'true' as force
  into v_waiting
  from tickets_ops.queued_jobs() j
  where j.key = p_key and j.state <> 'failed';

  if v_waiting.running and not p_force then
    -- Should it put itself back, it is what this person asked for, and goes first.
    perform tickets_ops.advance_job(v_waiting.id, p_priority := v_priority, p_remove := 'planned');
    return query select v_waiting.id, p_key, true, 'It is being asked at this moment.';
    return;
  end if;
  v_job_id := tickets_ops.enqueue(
    p_task,
    (p_payload || case when p_force or coalesce(v_waiting.force, false) then '{"force": true}'::jsonb else '{}' end)::json,
    p_key, now(), v_priority
  );
  if v_job_id is null then
    raise exception 'The job % is being taken by a worker at this moment.', p_key using hint = 'Ask again.';
  end if;
  return query select
    v_job_id,
    p_key,
    v_waiting.id is not null,
    concat_ws(' ',
      v_warning,
      case when v_waiting.id is not null then 'A job for it waited already; it goes first now.' end,
      case when p_known = 'verified' then 'A person verified it: it will not be asked.'
        when p_known = 'known' and not p_force then 'An answer is known: it will not be asked again without force.'
        when p_known = 'no centroid' then 'Its cluster has no centroid yet and is asked first.' end,
      v_provider
    );
exception when lock_not_available then
  perform tickets_ops.raise_blocked();
end
$$;

COMMENT ON FUNCTION tickets_ops.enqueue_on_demand(p_task text, p_key text, p_payload jsonb, p_force boolean, p_known text) IS 'Adds or promotes the job that a person asked for, ahead of planned ones. p_known: the state of the question, for the note; for an unknown cluster there is no job. Raises when a worker takes the job in the same moment, and when others hold it for ten seconds.';

CREATE FUNCTION tickets_ops.erase_from_errors(p_text text, p_instead text) RETURNS bigint
    LANGUAGE sql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
  with snapshots as (
    update tickets_ops.snapshots set error = replace(error, p_text, p_instead) where position(p_text in error) > 0
    returning 1
  ), batches as (
    update tickets_ops.snapshot_batches set error = replace(error, p_text, p_instead) where position(p_text in error) > 0
    returning 1
  )
  select (select count(*) from snapshots) + (select count(*) from batches) + tickets_ops.erase_from_job_errors(p_text, p_instead)
$$;

COMMENT ON FUNCTION tickets_ops.erase_from_errors(p_text text, p_instead text) IS 'Part of tickets_ops.erase_ticket: puts another text in the place of one in the errors of snapshots, batches and jobs, where Postgres may have quoted a row. Returns in how many.';

CREATE FUNCTION tickets_ops.erase_from_job_errors(p_text text, p_instead text) RETURNS bigint
    LANGUAGE sql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $_$
  with changed as (
    update graphile_worker._private_jobs j
    set last_error = replace(j.last_error, p_text, p_instead),
      payload = case when alert.problems is null then j.payload else jsonb_set(j.payload::jsonb, '{problems}', alert.problems)::json end
    from
      graphile_worker._private_jobs k
      join graphile_worker._private_tasks t on t.id = k.task_id
      -- A message about health quotes errors. Text by text: within JSON quotes and backslashes are written in another way.
      left join lateral (
        select jsonb_agg(replace(p.problem #>> '{}', p_text, p_instead) order by p.n) as problems
        from jsonb_path_query(k.payload::jsonb, '$.problems[*]') with ordinality as p (problem, n)
        having bool_or(position(p_text in p.problem #>> '{}') > 0)
      ) as alert on t.identifier = 'fleettickets_alert'
    where k.id = j.id and (position(p_text in j.last_error) > 0 or alert.problems is not null)
    returning 1
  )
  select count(*) from changed
$_$;

COMMENT ON FUNCTION tickets_ops.erase_from_job_errors(p_text text, p_instead text) IS 'Puts another text in the place of one in the errors of jobs, and in messages about health that are not delivered. Returns in how many.';

CREATE FUNCTION tickets_ops.erase_from_ranges(p_dataset text, p_ticket_id text) RETURNS void
    LANGUAGE sql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
  update tickets_ops.snapshot_batches b
  set (first_ticket_id, last_ticket_id) = (
    select coalesce(min(r.ticket_id), ''), coalesce(max(r.ticket_id), '')
    from tickets_ops.snapshot_rows r -- primary key
    where r.snapshot_id = b.snapshot_id and r.ticket_id between b.first_ticket_id and b.last_ticket_id
  )
  from tickets_ops.snapshots s
  where s.dataset = p_dataset and b.snapshot_id = s.snapshot_id and p_ticket_id in (b.first_ticket_id, b.last_ticket_id)
$$;

COMMENT ON FUNCTION tickets_ops.erase_from_ranges(p_dataset text, p_ticket_id text) IS 'Part of tickets_ops.erase_ticket, after erase_staged: takes the ticket''s number out of the ranges of the batches that wait.';

CREATE FUNCTION tickets_ops.erase_place(p_cluster text, p_location_key text, p_location_name text, OUT places bigint, OUT decisions bigint) RETURNS record
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
declare
  v_before boolean := tickets_ops.as_pipeline(true); -- it is no decision about the place
  v_other text;
begin
  select o.location_name into v_other
  from (
    select t.cluster, t.location_key, t.location_name from tickets.inc t
    union all
    select t.cluster, t.location_key, t.location_name from tickets.crq t
  ) as o
  where tickets.cluster_key(o.cluster) = tickets.cluster_key(p_cluster) and o.location_key = p_location_key -- indexes inc_place and crq's
  order by o.location_name = p_location_name desc limit 1;
  perform set_config('tickets_ops.erasing', 'true', true); -- tickets_ops.is_erasing
  if v_other is null then
    delete from tickets.geo_decisions d
    where d.kind = 'location' and tickets.cluster_key(d.cluster) = tickets.cluster_key(p_cluster) and d.location_key = p_location_key;
    get diagnostics decisions = row_count;
    delete from tickets.geo_locations l
    where tickets.cluster_key(l.cluster) = tickets.cluster_key(p_cluster) and l.location_key = p_location_key; -- index geo_locations_place
    get diagnostics places = row_count;
    delete from tickets_ops.geocoding_answers a
    where tickets.cluster_key(a.cluster) = tickets.cluster_key(p_cluster) and a.location_key = p_location_key;
  else
    -- Others name the place too: it stays, in their spelling.
    update tickets.geo_decisions d
    set before = case when d.before ->> 'location_name' = p_location_name then d.before || jsonb_build_object('location_name', v_other) else d.before end,
      after = case when d.after ->> 'location_name' = p_location_name then d.after || jsonb_build_object('location_name', v_other) else d.after end
    where d.kind = 'location' and tickets.cluster_key(d.cluster) = tickets.cluster_key(p_cluster) and d.location_key = p_location_key
      and v_other <> p_location_name and p_location_name in (d.before ->> 'location_name', d.after ->> 'location_name');
    get diagnostics decisions = row_count;
    update tickets.geo_locations l set location_name = v_other
    where tickets.cluster_key(l.cluster) = tickets.cluster_key(p_cluster) and l.location_key = p_location_key -- index geo_locations_place
      and l.location_name = p_location_name and v_other <> p_location_name;
    get diagnostics places = row_count;
  end if;
  perform set_config('tickets_ops.erasing', '', true);
  perform tickets_ops.as_pipeline(v_before);
end
$$;

COMMENT ON FUNCTION tickets_ops.erase_place(p_cluster text, p_location_key text, p_location_name text, OUT places bigint, OUT decisions bigint) IS 'Part of tickets_ops.erase_ticket, once the ticket is gone: a place that no other ticket names goes, with what people decided about it; where others name it, their spelling takes the place of the ticket''s. Returns how many gazetteer rows and decisions were deleted or changed.';

CREATE FUNCTION tickets_ops.erase_staged(p_dataset text, p_ticket_id text) RETURNS bigint
    LANGUAGE sql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
  with erased as (
    delete from tickets_ops.snapshot_rows r using tickets_ops.snapshots s
    where s.dataset = p_dataset and r.snapshot_id = s.snapshot_id and r.ticket_id = p_ticket_id -- primary key
    returning r.snapshot_id, r.raw is null as is_unchanged,
      r.raw is not null and exists (
        select from tickets_ops.snapshot_batches b
        where b.snapshot_id = r.snapshot_id and r.ticket_id between b.first_ticket_id and b.last_ticket_id and b.status = 'done'
      ) as is_loaded
  ), counted as (
    update tickets_ops.snapshots s
    set rows_read = s.rows_read - 1, rows_unchanged = s.rows_unchanged - e.is_unchanged::integer
    from erased e
    where s.snapshot_id = e.snapshot_id and s.staged_at is not null and not e.is_loaded
  )
  select count(*) from erased
$$;

COMMENT ON FUNCTION tickets_ops.erase_staged(p_dataset text, p_ticket_id text) IS 'Part of tickets_ops.erase_ticket: deletes what is staged of a ticket in snapshots that are held or have failed. Returns how many rows.';

CREATE FUNCTION tickets_ops.erase_ticket(p_ticket_id text, p_dataset text DEFAULT 'inc'::text) RETURNS TABLE(what text, erased bigint, note text)
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET lock_timeout TO '10s'
    AS $_$
declare
  c_erased constant text := '(erased)';
  v_cluster text;
  v_location_key text;
  v_location_name text;
  v_since timestamptz;
  v_job text;
  v_decisions bigint;
begin
  if p_dataset is null or p_dataset not in ('inc', 'crq') then
    raise exception 'There is no dataset %: inc or crq.', coalesce(p_dataset, 'NULL');
  end if;
  -- Nothing named would be found in every text.
  if coalesce(btrim(p_ticket_id), '') = '' then
    raise exception 'Say which ticket is to be erased.' using errcode = 'invalid_parameter_value';
  end if;
  -- As a write of a gazetteer and a look at the bucket do, in this order.
  perform pg_advisory_xact_lock(tickets.gazetteer_lock());
  perform pg_advisory_xact_lock(tickets_ops.ledger_lock(p_dataset));
  if exists (select from tickets_ops.snapshots s where s.dataset = p_dataset and s.in_flight) then
    raise exception 'A snapshot is being loaded, and may bring ticket % again: nothing was erased.', p_ticket_id
      using errcode = 'object_in_use', hint = 'Erase it again when it is loaded: tickets_ops.health.';
  end if;
  execute format('select t.cluster, t.location_key, t.location_name from tickets.%I t where t.ticket_id = $1', p_dataset)
    into v_cluster, v_location_key, v_location_name using p_ticket_id;
  execute format('select min(e.snapshot_at) from tickets.%I e where e.ticket_id = $1', p_dataset || '_events')
    into v_since using p_ticket_id;
  select j.key into v_job
  from tickets_ops.queued_jobs() j
  where j.key = tickets_ops.location_job_key(v_cluster, v_location_key) and j.state = 'running';
  if found then
    raise exception 'The place of ticket % is being looked up: nothing was erased.', p_ticket_id
      using errcode = 'object_in_use', hint = 'Erase it again in a minute.';
  end if;

  -- For tickets_takeover.refuse_others: this write is meant.
  perform set_config('tickets_ops.client', coalesce(nullif(current_setting('tickets_ops.client', true), ''), 'erase_ticket'), true);
  delete from tickets_ops.unrecorded_tickets u where u.dataset = p_dataset and u.ticket_id = p_ticket_id;
  foreach what in array array[p_dataset, p_dataset || '_events'] loop
    execute format('delete from tickets.%I where ticket_id = $1', what) using p_ticket_id;
    get diagnostics erased = row_count;
    what := 'tickets.' || what;
    return next;
  end loop;
  what := format('tickets_ops.%s_digests', p_dataset);
  execute format('delete from tickets_ops.%I where ticket_id = $1', p_dataset || '_digests') using p_ticket_id;
  get diagnostics erased = row_count;
  return next;
  what := 'tickets_legacy.' || p_dataset; -- what a takeover put aside
  if to_regclass(what) is not null then
    execute format('delete from tickets_legacy.%I where ticket_id = $1', p_dataset) using p_ticket_id;
    get diagnostics erased = row_count;
    return next;
  end if;
  what := 'tickets.assignments';
  delete from tickets.assignments a where p_dataset = 'inc' and a.ticket_id = p_ticket_id;
  get diagnostics erased = row_count;
  return next;
  what := 'tickets_ops.snapshot_rows';
  erased := tickets_ops.erase_staged(p_dataset, p_ticket_id);
  perform tickets_ops.erase_from_ranges(p_dataset, p_ticket_id);
  return next;
  what := 'tickets_ops.snapshot_rejects';
  update tickets_ops.snapshot_rejects r set row_text = c_erased
  from tickets_ops.snapshots s
  where s.dataset = p_dataset and r.snapshot_id = s.snapshot_id and tickets_ops.mentions(r.row_text, p_ticket_id);
  get diagnostics erased = row_count;
  note := 'Line and reason stay.';
  return next;

  note := null;
  if v_location_key is not null then
    select p.places, p.decisions into erased, v_decisions
    from tickets_ops.erase_place(v_cluster, v_location_key, v_location_name) p;
    what := 'tickets.geo_locations';
    return next;
    what := 'tickets.geo_decisions';
    erased := v_decisions;
    return next;
  end if;
  what := 'jobs';
  erased := tickets_ops.remove_jobs(array(
    select j.id from tickets_ops.queued_jobs() j
    where j.task = 'geocode_location' and j.state <> 'running' and tickets_ops.readable_payload(j.payload) ->> 'location_name' = v_location_name
  ));
  return next;
  what := 'errors that named it';
  erased := tickets_ops.erase_from_errors(p_ticket_id, c_erased);
  return next;
  what := 'files in the bucket';
  select count(*), 'NOT erased: ' || min(coalesce(s.archived_key, s.source_key)) || ' and later may hold it.' into erased, note
  from tickets_ops.snapshots s
  where s.dataset = p_dataset and s.origin = 'bucket' and s.snapshot_at >= v_since;
  return next;
exception when lock_not_available then
  perform tickets_ops.raise_blocked();
end
$_$;

COMMENT ON FUNCTION tickets_ops.erase_ticket(p_ticket_id text, p_dataset text) IS 'Erases everything that this database holds of one ticket of a dataset (inc, crq): select * from tickets_ops.erase_ticket(''WOT0715527''). Only the owner may. Returns a row for each table with how much was erased, and the files in the bucket that are not. Trap: a later file that still has the ticket brings it as a new one, so have it removed at the source first. Raises while a snapshot is being loaded, and when others lock what it erases for ten seconds.';

CREATE FUNCTION tickets_ops.fail_snapshot(p_snapshot_id bigint, p_reason text) RETURNS boolean
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
declare
  v_snapshot tickets_ops.snapshots;
begin
  -- Waits for batches that are being written: a newer snapshot must not be compared with tickets that one of them is about
  -- to change.
  perform from tickets_ops.snapshots where snapshot_id = p_snapshot_id for update;
  update tickets_ops.snapshots
  set status = 'failed', error = p_reason, progress_at = now()
  where snapshot_id = p_snapshot_id and in_flight
  returning * into v_snapshot;
  if not found then
    return false;
  end if;
  if v_snapshot.batches_done > 0 then
    perform tickets_ops.record_day(v_snapshot.dataset);
  end if;
  if v_snapshot.backfill then
    perform tickets_ops.continue_backfill(v_snapshot.dataset);
  end if;
  return true;
end
$$;

COMMENT ON FUNCTION tickets_ops.fail_snapshot(p_snapshot_id bigint, p_reason text) IS 'A snapshot in flight becomes failed, with a reason for people; its staging is kept for a retry. A backfill that it belongs to goes on with the next file, and the gap stands in the ledger. Returns whether it was in flight.';

CREATE FUNCTION tickets_ops.feed_problems(p_dataset text) RETURNS TABLE(severity text, problem text)
    LANGUAGE sql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
  with look as (
    select l.*, tickets_ops.scheduled_time(p_dataset, l.new_file_at, l.looked_at) as idle,
      make_interval(hours => coalesce(tickets_ops.setting('FEED_STALE_HOURS')::integer, 3)) as allowed
    from tickets_ops.looks l where l.dataset = p_dataset
  ),
  data as (
    select tickets.eat_ts(i.metadata ->> 'snapshot_at') as data_at, tickets.eat_ts(i.metadata ->> 'checked_at') as checked_at
    from tickets.import_meta i where i.dataset = p_dataset
  )
  select 'fault', format('The run of %s was missed: nothing has looked at the bucket since %s.', tickets_ops.wall_clock(missed),
    coalesce((select tickets_ops.wall_clock(looked_at) from look), 'the pipeline began'))
  from tickets_ops.missed_run(p_dataset) as missed where missed is not null
  union all
  select 'fault', format('The feed stands still: no look has ever found a file, the last one on %s. See that the export runs, and check %s%s.',
    tickets_ops.wall_clock(looked_at), case p_dataset when 'inc' then 'RUSTFS_PREFIX' else upper(p_dataset) || '_PREFIX' end, case when others > 0 then format(' (there are %s objects that are no CSV)', others) else '' end)
  from look where new_file_at is null
  union all
  select 'fault', format('The feed stands still: no new file since %s, for %s hours of scheduled time. See that the export runs.',
    tickets_ops.wall_clock(new_file_at), extract(epoch from idle)::integer / 3600)
  from look
  -- Where nothing has changed no file of changes has to come.
  where idle >= allowed and tickets_ops.feed(p_dataset) = 'snapshots'
  union all
  select 'fault', format('The feed stands still: the tickets are as of %s, %s hours ago.', tickets_ops.wall_clock(data_at), extract(epoch from now() - data_at)::integer / 3600)
  from data where data_at < now() - interval '26 hours'
  union all
  select 'fault', format('The feed stands still: files come, but their content ends on %s, %s hours before the newest file; %s are usual.',
    tickets_ops.wall_clock(tickets_ops.content_through(p_dataset)), extract(epoch from lag)::integer / 3600, extract(epoch from usual)::integer / 3600)
  from tickets_ops.content_lag(p_dataset) where lag > usual + interval '1 day'
  union all
  select 'fault', format('A clock is wrong: %s is ahead of the database''s clock. Check the clocks of the database, the workers and the export.', tickets_ops.wall_clock(greatest(data_at, checked_at)))
  from data where greatest(data_at, checked_at) > now() + tickets_ops.clock_tolerance()
  union all
  select 'warning', format('%s is future-dated: it is not loaded before its time has come. If its name is wrong, rename it.', key)
  from look, unnest(future_dated) as key
$$;

COMMENT ON FUNCTION tickets_ops.feed_problems(p_dataset text) IS 'What is wrong with the feed of a dataset (inc, crq), as faults and warnings in words: a missed run, no new file for FEED_STALE_HOURS (3) of scheduled time, data older than 26 hours, content that stands still, a clock, future-dated files.';

CREATE FUNCTION tickets_ops.fetch_now(dataset text DEFAULT 'inc'::text, force boolean DEFAULT false) RETURNS TABLE(job_id bigint, job_key text, already_waiting boolean, note text)
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET lock_timeout TO '10s'
    AS $$
#variable_conflict use_column
declare
  v_force boolean := coalesce(fetch_now.force, false);
  v_key text := tickets_ops.fetch_job_key(fetch_now.dataset, case when v_force then 'force' else 'newest' end);
  v_waiting boolean;
  v_in_flight text;
  v_job_id bigint;
begin
  if fetch_now.dataset is null or fetch_now.dataset not in ('inc', 'crq') then
    raise exception 'There is no dataset %.', coalesce(quote_literal(fetch_now.dataset), 'NULL')
      using hint = 'inc or crq: select * from tickets_ops.fetch_now(''inc'');';
  end if;
  if fetch_now.dataset not in (select tickets.datasets()) then
    raise exception '% is off: nothing of it is loaded.', fetch_now.dataset using hint = 'Set CRQ_ENABLED=true on the workers.';
  end if;
  v_waiting := exists (
    select from tickets_ops.list_jobs() j where j.key = v_key and j.state in ('ready', 'scheduled', 'retrying')
  );
  select format('Snapshot %s is %s; it waits for that.', s.snapshot_id, s.status) into v_in_flight
  from tickets_ops.snapshots s
  where s.dataset = fetch_now.dataset and s.in_flight;
  v_job_id := tickets_ops.enqueue(
    'fetch_snapshot',
    jsonb_strip_nulls(jsonb_build_object('dataset', fetch_now.dataset, 'force', case when v_force then true end))::json,
    v_key, now()
  );
  if v_job_id is null then
    raise exception 'The job % is being taken by a worker at this moment.', v_key using hint = 'Ask again.';
  end if;
  return query select v_job_id, v_key, v_waiting, concat_ws(' ',
    case when v_waiting then 'It waited already, and is due now.' else 'The bucket is looked at now.' end,
    v_in_flight,
    case when not exists (select from tickets_ops.worker_states() w where tickets_ops.is_living(w.state, w.seen_at)) then 'But no worker is alive.' end
  );
exception when lock_not_available then
  perform tickets_ops.raise_blocked();
end
$$;

COMMENT ON FUNCTION tickets_ops.fetch_now(dataset text, force boolean) IS 'Looks at the bucket now: select * from tickets_ops.fetch_now(). force: loads the newest file again, although it is unchanged, failed or archived; of a feed of changes the one that stops those behind it, where one does. Returns the job''s id and key, whether such a job waited already, and a note. Raises for a dataset other than inc and crq, and when others hold the job for ten seconds.';

CREATE FUNCTION tickets_ops.finalize_job_key(p_snapshot_id bigint) RETURNS text
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN format('finalize_snapshot:%s'::text, p_snapshot_id);

COMMENT ON FUNCTION tickets_ops.finalize_job_key(p_snapshot_id bigint) IS 'Key of the finalize_snapshot job of a snapshot.';

CREATE TABLE tickets_ops.schedule (
    identifier text NOT NULL,
    task text NOT NULL,
    dataset text,
    minutes integer[] NOT NULL,
    hours integer[] NOT NULL,
    dates integer[] NOT NULL,
    months integer[] NOT NULL,
    weekdays integer[] NOT NULL,
    since timestamp with time zone DEFAULT now() NOT NULL
);

COMMENT ON TABLE tickets_ops.schedule IS 'The entries of the file crontab, as the worker that started last has them. To change the schedule, change that file: this table only tells when health should expect a look.';

COMMENT ON COLUMN tickets_ops.schedule.identifier IS 'Its `id`.';

COMMENT ON COLUMN tickets_ops.schedule.task IS 'What it asks for.';

COMMENT ON COLUMN tickets_ops.schedule.dataset IS 'Of fetch_snapshot: whose folder is looked at. NULL for other tasks.';

COMMENT ON COLUMN tickets_ops.schedule.minutes IS 'Minutes of the hour, UTC, at which it fires.';

COMMENT ON COLUMN tickets_ops.schedule.hours IS 'Hours of the day, UTC: three less than in Nairobi.';

COMMENT ON COLUMN tickets_ops.schedule.dates IS 'Days of the month, UTC: it fires when the date or the weekday is listed. Empty where the pattern names weekdays only.';

COMMENT ON COLUMN tickets_ops.schedule.months IS 'Months, 1 to 12.';

COMMENT ON COLUMN tickets_ops.schedule.weekdays IS 'Days of the week, 0 (Sunday) to 6. Empty where the pattern names dates only.';

COMMENT ON COLUMN tickets_ops.schedule.since IS 'When it became what it is: a run before that was never missed.';

CREATE FUNCTION tickets_ops.fires_on(p_entry tickets_ops.schedule, p_day date) RETURNS boolean
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    AS $$
  select extract(month from p_day)::integer = any (p_entry.months)
    and (extract(day from p_day)::integer = any (p_entry.dates) or extract(dow from p_day)::integer = any (p_entry.weekdays))
$$;

COMMENT ON FUNCTION tickets_ops.fires_on(p_entry tickets_ops.schedule, p_day date) IS 'Whether an entry of the crontab fires on a day (UTC).';

CREATE FUNCTION tickets_ops.flag_suspicious(p_cluster text) RETURNS void
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
declare
  v_suspicious boolean;
begin
  select
    -- Those found within the guard count with those that a person verified, unless they lie elsewhere too.
    coalesce(together.places > (tickets_ops.places_of(c.cluster)).within, false)
    or (not c.verified and coalesce(verdict.ambiguous, false))
  into v_suspicious
  from tickets.geo_clusters c
  left join lateral tickets_ops.places_together(
    array(select w.geom from tickets_ops.places_without_guard(c.cluster) w where w.fits order by w.location_key), c.geom, c.guard_km
  ) as together on true
  left join lateral tickets_ops.judge_cluster(
    c.candidates, tickets_ops.cluster_name_key(c.cluster), tickets_ops.cluster_region(c.cluster), c.guard_km
  ) as verdict on not c.verified
  where c.cluster = p_cluster;

  update tickets.geo_clusters
  set suspicious = v_suspicious
  where cluster = p_cluster and suspicious <> v_suspicious;
end
$$;

COMMENT ON FUNCTION tickets_ops.flag_suspicious(p_cluster text) IS 'Sets or clears tickets.geo_clusters.suspicious: three or more rejected places agree among themselves and outnumber the found ones, or a namesake of the cluster lies far away and its region does not tell which is meant (never of a verified centroid: a person knows which). Called under as_pipeline(true).';

CREATE FUNCTION tickets_ops.foreign_vehicle_code() RETURNS text
    LANGUAGE sql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
  select string_agg(distinct code.name, ', ')
  from pg_rewrite r
  join pg_depend d on d.classid = 'pg_rewrite'::regclass and d.objid = r.oid
  left join pg_proc p on d.refclassid = 'pg_proc'::regclass and p.oid = d.refobjid
  left join pg_class c on d.refclassid = 'pg_class'::regclass and c.oid = d.refobjid and c.oid <> r.ev_class
  cross join lateral (
    select case
      when p.oid is not null or c.relkind = 'v' then pg_describe_object(d.refclassid, d.refobjid, 0)
      when c.relrowsecurity then format('row security of %s', pg_describe_object(d.refclassid, d.refobjid, 0))
    end as name
  ) as code
  where r.ev_class = to_regclass('tickets.vehicles') and code.name is not null
    and coalesce(p.pronamespace, c.relnamespace) <> 'tickets'::regnamespace
    and not exists (select from pg_depend e where e.classid = d.refclassid and e.objid = d.refobjid and e.deptype = 'e')
$$;

COMMENT ON FUNCTION tickets_ops.foreign_vehicle_code() IS 'Functions, views and row security of others that reading tickets.vehicles runs, with the rights of the role that reads it. NULL: none, as it should be.';

CREATE FUNCTION tickets_ops.free_dead_workers(p_own_pool text) RETURNS text[]
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
declare
  v_dead text[];
  v_set_aside bigint[];
begin
  select coalesce(array_agg(h.pool_id), '{}') into v_dead
  from tickets_ops.pools_with_work() h
  -- Only pools that registered, which ours do before they take a job: another may be another application's.
  join tickets_ops.worker_states() w using (pool_id)
  where h.pool_id <> p_own_pool and w.state in ('dead', 'hung', 'stopped');
  if v_dead = '{}' then
    return v_dead;
  end if;
  -- What it left open would keep its rows locked, and must not commit once others have its jobs.
  perform pg_terminate_backend(a.pid)
  from pg_stat_activity a
  where a.application_name in (select w.sessions from tickets_ops.worker_states() w where w.pool_id = any (v_dead) and w.state <> 'stopped')
    and a.application_name <> current_setting('application_name')
    and a.datname = current_database() and a.usename = session_user;
  update tickets_ops.workers set declared_dead_at = now() where pool_id = any (v_dead) and declared_dead_at is null;
  v_set_aside := tickets_ops.unlock_pools(v_dead);
  -- The file that it was reading when its worker died twice is not to be taken by the next look.
  perform tickets_ops.fail_snapshot(s.snapshot_id, 'Its worker died while it ran, twice: reading this file may be the cause. Load it again: select * from tickets_ops.fetch_now(force => true);')
  from tickets_ops.snapshots s
  where s.status = 'staging' and s.job_id = any (v_set_aside);
  return v_dead;
end
$$;

COMMENT ON FUNCTION tickets_ops.free_dead_workers(p_own_pool text) IS 'Frees the jobs and queues that dead worker pools of ours hold, and ends the sessions of those that hang; a job under which a worker died twice is set aside. p_own_pool: of the worker that asks. Returns the dead pools. Only where sessions are not shared (tickets_ops.workers.shares_sessions).';

CREATE FUNCTION tickets_ops.location_job_key(p_cluster text, p_location_key text) RETURNS text
    LANGUAGE sql IMMUTABLE
    RETURN ((('geocode_location:'::text || tickets.cluster_key(p_cluster)) || ':'::text) || p_location_key);

COMMENT ON FUNCTION tickets_ops.location_job_key(p_cluster text, p_location_key text) IS 'Key of the geocode_location job of a place: at most one waits.';

CREATE FUNCTION tickets_ops.geocoding_job_key(p_task text, p_payload jsonb) RETURNS text
    LANGUAGE sql STABLE
    RETURN CASE p_task WHEN 'geocode_cluster'::text THEN tickets_ops.cluster_job_key((p_payload ->> 'cluster'::text)) ELSE tickets_ops.location_job_key((p_payload ->> 'cluster'::text), tickets.location_key((p_payload ->> 'location_name'::text))) END;

COMMENT ON FUNCTION tickets_ops.geocoding_job_key(p_task text, p_payload jsonb) IS 'The key that a geocoding job added without one (by graphile-worker''s own add_job) gets when it has to come back later.';

CREATE FUNCTION tickets_ops.geocoding_metrics() RETURNS TABLE(name text, labels jsonb, value double precision)
    LANGUAGE sql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
  with provider as (
    select * from tickets_ops.geocoding where active limit 1
  )
  select 'geocoding_calls_today', jsonb_build_object('outcome', o.outcome),
    coalesce((select (p.calls_today ->> o.outcome)::integer from provider p), 0)
  from unnest(
    array['found', 'not_found', 'rate_limited', 'quota_spent', 'key_refused', 'bad_request', 'trouble', 'unreadable']
  ) as o (outcome)
  union all
  select 'geocoding_budget_left', '{}', coalesce(left_today::double precision, 'NaN') from provider
  union all
  select 'geocoding_stopped', '{}', (state not in ('ready', 'probing', 'off'))::integer from provider
  union all
  select 'places_for_review', jsonb_build_object('kind', s.kind, 'status', s.status), count(q.status)
  from (values
    ('cluster', 'suspicious'), ('cluster', 'not_found'), ('cluster', 'rejected'),
    ('location', 'needs_review'), ('location', 'rejected'), ('location', 'not_found')
  ) as s (kind, status)
  left join tickets_ops.review_queue q using (kind, status)
  group by s.kind, s.status
$$;

COMMENT ON FUNCTION tickets_ops.geocoding_metrics() IS 'Metrics of the provider and of the gazetteers.';

CREATE FUNCTION tickets_ops.geocoding_problems() RETURNS TABLE(severity text, problem text)
    LANGUAGE sql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
  select case when g.state in ('key refused', 'trouble', 'suspected') then 'fault' else 'warning' end,
    format('Geocoding stands still (%s): %s', g.state, g.reason)
  from tickets_ops.geocoding g
  where g.active
    and (
      g.state in ('key refused', 'trouble', 'suspected')
      or g.state in ('quota spent', 'budget spent') and exists (
        select from tickets_ops.queued_jobs() j
        where tickets_ops.is_geocoding(j.task) and j.state <> 'failed'
      )
    )
  limit 1
$$;

COMMENT ON FUNCTION tickets_ops.geocoding_problems() IS 'Why geocoding stands still, in words: a refused key, a provider in trouble or one that finds nothing any more is a fault; a spent quota or budget, which comes back by itself, a warning while places wait.';

CREATE FUNCTION tickets_ops.give_up(p_job_id bigint) RETURNS void
    LANGUAGE sql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
  update graphile_worker._private_jobs
  set max_attempts = greatest(attempts, 1), flags = coalesce(flags, '{}') || '{"given_up": true}'
  where id = p_job_id;
$$;

COMMENT ON FUNCTION tickets_ops.give_up(p_job_id bigint) IS 'Called by a running job that no further attempt can help (a wrong payload, say), before it throws: this attempt was its last. The flag given_up tells it from one that used up its attempts.';

CREATE FUNCTION tickets_ops.greedy_tours(p_rooms integer[], p_starts public.geography[], p_vehicle_teams text[], p_places public.geography[], p_bonuses double precision[], p_teams text[], p_km_per_metre double precision, p_radius double precision) RETURNS TABLE(vehicle integer, "position" integer, ticket integer, metres double precision, cost_km double precision)
    LANGUAGE plpgsql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET jit TO 'off'
    SET plan_cache_mode TO 'force_generic_plan'
    AS $$
declare
  c_list constant integer := 150; -- long enough to last for some moves, short enough to be sorted anew at each
  c_vehicles constant integer := cardinality(p_rooms);
  c_bonus constant double precision := (select max(b) from unnest(p_bonuses) as b);
  v_tours integer[] := array_fill(0, array[c_vehicles]); -- how many tickets each has so far
  v_taken boolean[] := array_fill(false, array[cardinality(p_places)]);
  v_at integer[] := array_fill(0, array[c_vehicles]); -- the ticket where a vehicle is, 0: where it started
  -- The lists, c_list places for each vehicle:
  v_ticket integer[] := array_fill(0, array[c_vehicles * c_list]);
  v_metres double precision[] := array_fill(0::double precision, array[c_vehicles * c_list]);
  v_cost double precision[] := v_metres;
  v_head integer[] := array_fill(1, array[c_vehicles]);
  v_last integer[] := array_fill(0, array[c_vehicles]);
  v_bound double precision[] := array_fill('-Infinity'::double precision, array[c_vehicles]);
  v_offer double precision[] := v_bound; -- what its next ticket costs at least
  v_list record;
  v_next integer;
  v_least double precision;
  i integer;
begin
  loop
    v_least := 'Infinity';
    for v in 1..c_vehicles loop
      continue when v_offer[v] >= v_least; -- it has only become dearer since
      i := v_head[v];
      while i <= v_last[v] and v_taken[v_ticket[i]] loop
        i := i + 1;
      end loop;
      v_head[v] := i;
      v_offer[v] := v_bound[v];
      if i <= v_last[v] and v_cost[i] <= v_bound[v] then
        v_offer[v] := v_cost[i];
      end if;
      if v_offer[v] < v_least then
        v_least := v_offer[v];
        v_next := v;
      end if;
    end loop;
    exit when v_least = 'Infinity';

    i := v_head[v_next];
    v_offer[v_next] := '-Infinity';
    if i <= v_last[v_next] and v_cost[i] <= v_bound[v_next] then
      v_tours[v_next] := v_tours[v_next] + 1;
      vehicle := v_next;
      "position" := v_tours[v_next];
      ticket := v_ticket[i];
      metres := v_metres[i];
      cost_km := v_cost[i];
      return next;
      v_taken[ticket] := true;
      p_rooms[v_next] := p_rooms[v_next] - 1;
      if p_rooms[v_next] = 0 then
        v_offer[v_next] := 'Infinity';
        continue;
      end if;
      v_at[v_next] := ticket;
      select * into v_list
      from tickets_ops.costs_from(p_places[ticket], v_ticket[i + 1 : v_last[v_next]], p_km_per_metre, p_radius, p_places, p_bonuses, v_taken);
      -- Out of reach so far was what costs more than the second.
      v_bound[v_next] := least(v_bound[v_next], p_km_per_metre * p_radius - c_bonus) - p_km_per_metre * metres;
    else
      select * into v_list
      from tickets_ops.cheapest_tickets(
        case v_at[v_next] when 0 then p_starts[v_next] else p_places[v_at[v_next]] end, p_vehicle_teams[v_next], c_list,
        p_km_per_metre, p_radius, c_bonus, p_places, p_teams, p_bonuses, v_taken
      );
      -- Never less than its head, or it would be read for ever where a hundred tickets lie at one place.
      v_bound[v_next] := greatest(v_list.costs[1], v_list.beyond);
    end if;
    i := (v_next - 1) * c_list;
    v_head[v_next] := i + 1;
    v_last[v_next] := i + cardinality(v_list.tickets);
    for n in 1..v_last[v_next] - i loop
      v_ticket[i + n] := v_list.tickets[n];
      v_metres[i + n] := v_list.metres[n];
      v_cost[i + n] := v_list.costs[n];
    end loop;
  end loop;
end
$$;

COMMENT ON FUNCTION tickets_ops.greedy_tours(p_rooms integer[], p_starts public.geography[], p_vehicle_teams text[], p_places public.geography[], p_bonuses double precision[], p_teams text[], p_km_per_metre double precision, p_radius double precision) IS 'Tickets for vehicles, both by their number in the arrays, in the order in which they are given away: always the pair that costs least next, the vehicle then being where that ticket is. p_rooms: how many a vehicle takes. p_vehicle_teams, p_teams: NULL where teams do not matter. p_radius: metres, the longest way. Called by tickets.dispatch_plan.';

CREATE FUNCTION tickets_ops.has_geocoding_worker() RETURNS boolean
    LANGUAGE plpgsql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
begin
  return exists (
    select
    from tickets_ops.worker_states() w join tickets_ops.settings s using (pool_id)
    where s.name = 'GEOCODER_PROVIDER' and tickets_ops.is_living(w.state, w.seen_at)
  );
end
$$;

COMMENT ON FUNCTION tickets_ops.has_geocoding_worker() IS 'Whether a living worker has a provider to ask.';

CREATE FUNCTION tickets_ops.has_tickets(p_cluster text) RETURNS boolean
    LANGUAGE sql STABLE
    RETURN ((EXISTS (SELECT FROM tickets.inc t WHERE (tickets.cluster_key(t.cluster) = tickets.cluster_key(has_tickets.p_cluster)))) OR (EXISTS (SELECT FROM tickets.crq t WHERE (tickets.cluster_key(t.cluster) = tickets.cluster_key(has_tickets.p_cluster)))));

COMMENT ON FUNCTION tickets_ops.has_tickets(p_cluster text) IS 'Whether any ticket, open or closed, names the cluster.';

CREATE FUNCTION tickets_ops.has_word(p_words text[], p_word text) RETURNS boolean
    LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
declare
  v_word text;
begin
  if p_word = any (p_words) then
    return true;
  end if;
  foreach v_word in array p_words loop
    if tickets_ops.same_word(v_word, p_word) then
      return true;
    end if;
  end loop;
  return false;
end
$$;

COMMENT ON FUNCTION tickets_ops.has_word(p_words text[], p_word text) IS 'Whether a word is among others, but for a slip of one letter.';

CREATE FUNCTION tickets_ops.health_metrics() RETURNS TABLE(name text, labels jsonb, value double precision)
    LANGUAGE sql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
  with problem as materialized (
    select severity, subject from tickets_ops.list_problems()
  )
  select 'health_ok', '{}'::jsonb, (not exists (select from problem where severity = 'fault'))::integer
  union all
  select 'problems', jsonb_build_object('severity', s.severity, 'subject', s.subject), count(p.subject)
  from (select * from unnest(array['fault', 'warning']) as severity, tickets_ops.problem_subjects() as subject) as s
  left join problem p using (severity, subject)
  group by s.severity, s.subject
$$;

COMMENT ON FUNCTION tickets_ops.health_metrics() IS 'Metrics of what needs a person.';

CREATE FUNCTION tickets_ops.held(p_dataset text) RETURNS TABLE(snapshot_id bigint, source_etag text, source_sha256 text, judged_again_at timestamp with time zone)
    LANGUAGE sql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
  select s.snapshot_id, s.source_etag, s.source_sha256, s.held_since + tickets_ops.hold_time()
  from tickets_ops.snapshots s
  where s.dataset = p_dataset and s.status = 'held'
  order by s.snapshot_at desc limit 1 -- index snapshots_by_time
$$;

COMMENT ON FUNCTION tickets_ops.held(p_dataset text) IS 'The snapshot of a dataset (inc, crq) that is held, if any. judged_again_at: a file of that time or later is loaded if it shows the same closings; NULL where only a person can decide.';

CREATE FUNCTION tickets_ops.high_water_mark(p_dataset text, OUT snapshot_at timestamp with time zone, OUT last_modified timestamp with time zone, OUT key text) RETURNS record
    LANGUAGE sql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
  select m.snapshot_at, m.last_modified, m.key
  from (
    (
      select s.snapshot_at, coalesce(s.source_last_modified, '-infinity') as last_modified, s.source_key as key
      from tickets_ops.snapshots s
      where s.dataset = p_dataset and (s.load_began_at is not null or s.status = 'unchanged')
        -- One that was loaded by a release that let it must not shut out every file until its time.
        and s.snapshot_at <= now() + tickets_ops.clock_tolerance()
      order by s.snapshot_at desc, s.source_last_modified desc nulls last, s.source_key collate "C" desc -- index snapshots_by_time
      limit 1
    )
    union all
    -- What a takeover inherited, and what the ledger has forgotten by age. Times of files are kept to the millisecond.
    select
      tickets.eat_ts(i.metadata ->> 'snapshot_at'),
      coalesce(date_trunc('milliseconds', tickets.eat_ts(i.metadata ->> 'source_last_modified')), '-infinity'),
      coalesce(i.metadata ->> 'source_key', '')
    from tickets.import_meta i
    where i.dataset = p_dataset
  ) as m
  where m.snapshot_at <= now() + tickets_ops.clock_tolerance()
  order by m.snapshot_at desc, m.last_modified desc, m.key collate "C" desc
  limit 1
$$;

COMMENT ON FUNCTION tickets_ops.high_water_mark(p_dataset text, OUT snapshot_at timestamp with time zone, OUT last_modified timestamp with time zone, OUT key text) IS 'The newest version of a file of a dataset (inc, crq) that has touched tickets, or was found unchanged: its time, LastModified and key. Nothing below it is ever loaded. NULLs before the first load.';

CREATE FUNCTION tickets_ops.history_cte(p_dataset text) RETURNS text
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN format('
    happened as (
      select i.ticket_id, case when i.is_actionable then ''opened'' else ''closed'' end as event,
        null as old_value, i.normalized_status as new_value,
        tickets.name_in_history(i.assigned_team) as assigned_team, i.owner, tickets.name_in_history(i.cluster) as cluster,
        tickets.name_in_history(i.region) as region, i.created_at_service, null as team_before, i.closed_at, i.mttr, i.sla_status
      from inserted i
      union all
      select u.ticket_id, e.event, e.old_value, e.new_value,
        ticket.assigned_team, ticket.owner, ticket.cluster, ticket.region, ticket.created_at_service, ticket.team_before,
        closing.closed_at, closing.mttr, closing.sla_status
      from updated u
      join changed c on c.ticket_id = u.ticket_id
      cross join lateral (values
        -- NULL is for first sight: a ticket that had no status had an empty one.
        (''closed'', coalesce(c.normalized_status, ''''), u.normalized_status, c.is_actionable is true and u.is_actionable is not true),
        (''reopened'', coalesce(c.normalized_status, ''''), u.normalized_status, c.is_actionable is not true and u.is_actionable is true),
        (''closure_corrected'', c.normalized_status, u.normalized_status, c.is_actionable is not true and u.is_actionable is not true
          and (c.closed_at is distinct from u.closed_at or c.mttr is distinct from u.mttr)),
        (''status_changed'', c.normalized_status, u.normalized_status, c.normalized_status is distinct from u.normalized_status),
        (''team_changed'', c.assigned_team, u.assigned_team, c.assigned_team is distinct from u.assigned_team),
        (''cluster_changed'', c.cluster, u.cluster, c.cluster is distinct from u.cluster)
      ) as e (event, old_value, new_value, happened)
      left join lateral (
        select tickets.name_in_history(u.assigned_team) as assigned_team, u.owner, tickets.name_in_history(u.cluster) as cluster,
          tickets.name_in_history(u.region) as region, u.created_at_service, tickets.name_in_history(c.assigned_team) as team_before
      ) as ticket on e.event in (''closed'', ''reopened'')
      left join lateral (select u.closed_at, u.mttr, u.sla_status) as closing on e.event in (''closed'', ''reopened'', ''closure_corrected'')
      where e.happened
    ),
    events as (
      insert into tickets.%1$I (
        ticket_id, event, old_value, new_value, assigned_team, owner, cluster, region, created_at_service, team_before,
        closed_at, mttr, sla_status, snapshot_id, snapshot_at
      )
      select h.*, s.snapshot_id, s.snapshot_at from happened h, tickets_ops.snapshots s where s.snapshot_id = $1
    )
'::text, (p_dataset || '_events'::text));

COMMENT ON FUNCTION tickets_ops.history_cte(p_dataset text) IS 'SQL: the part of tickets_ops.load_rows that writes history, from its parts changed (tickets as they were), updated and inserted (as they are).';

CREATE FUNCTION tickets_ops.hold_time() RETURNS interval
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN '01:00:00'::interval;

COMMENT ON FUNCTION tickets_ops.hold_time() IS 'A file so much later that shows the same closings as a held one is believed: a feed never stands still for want of a person. src/snapshots/suspicion.ts is given it with what it compares.';

CREATE FUNCTION tickets_ops.is_older(p_snapshot_at timestamp with time zone, p_last_modified timestamp with time zone, p_key text, p_than_snapshot_at timestamp with time zone, p_than_last_modified timestamp with time zone, p_than_key text) RETURNS boolean
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN (ROW(p_snapshot_at, p_last_modified, (p_key COLLATE "C")) < ROW(p_than_snapshot_at, p_than_last_modified, (p_than_key COLLATE "C")));

COMMENT ON FUNCTION tickets_ops.is_older(p_snapshot_at timestamp with time zone, p_last_modified timestamp with time zone, p_key text, p_than_snapshot_at timestamp with time zone, p_than_last_modified timestamp with time zone, p_than_key text) IS 'Whether a version of a file comes before another one: by time, LastModified, and the bytes of the key, whatever the collation of the database. Where rows are sorted so, the key is sorted under "C".';

CREATE FUNCTION tickets_ops.is_below_mark(p_dataset text, p_snapshot_at timestamp with time zone, p_last_modified timestamp with time zone, p_key text) RETURNS boolean
    LANGUAGE sql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    RETURN (SELECT COALESCE(tickets_ops.is_older(is_below_mark.p_snapshot_at, is_below_mark.p_last_modified, is_below_mark.p_key, m.snapshot_at, m.last_modified, m.key), false) AS "coalesce" FROM tickets_ops.high_water_mark(is_below_mark.p_dataset) m(snapshot_at, last_modified, key));

COMMENT ON FUNCTION tickets_ops.is_below_mark(p_dataset text, p_snapshot_at timestamp with time zone, p_last_modified timestamp with time zone, p_key text) IS 'Whether a version of a file is older than what is loaded, so that loading it would overwrite newer tickets. False before the first load.';

CREATE FUNCTION tickets_ops.is_blocked(p_dataset text, p_snapshot_at timestamp with time zone, p_last_modified timestamp with time zone, p_key text) RETURNS boolean
    LANGUAGE sql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    RETURN (EXISTS (SELECT FROM tickets_ops.blocking_file(is_blocked.p_dataset) b(snapshot_id, dataset, source_key, source_etag, source_sha256, source_size, source_last_modified, snapshot_at, status, in_flight, error, opens_at, ignored, is_late, dismissed_at, broken_off, hold_reason, held_since, warnings, statistics, cleaning_version, origin, forced, backfill, job_id, attempt, listed_at, progress_at, staged_at, load_began_at, loaded_at, archived_at, archived_key, batches_total, batches_done, rows_read, rows_inserted, rows_updated, rows_unchanged, rows_dropped_alarm, rows_dropped_sentinel, rows_duplicate, rows_rejected, rejects_kept, rows_repaired, open_missing, content_through) WHERE ((b.source_key <> is_blocked.p_key) AND tickets_ops.is_older(b.snapshot_at, b.source_last_modified, b.source_key, is_blocked.p_snapshot_at, is_blocked.p_last_modified, is_blocked.p_key))));

COMMENT ON FUNCTION tickets_ops.is_blocked(p_dataset text, p_snapshot_at timestamp with time zone, p_last_modified timestamp with time zone, p_key text) IS 'Whether a version of a file has to wait for one before it (tickets_ops.blocking_file). Another version of that one does not: it is its cure.';

CREATE TABLE tickets.geo_clusters (
    cluster text NOT NULL,
    geom public.geometry(Point,4326),
    provider text,
    query text,
    verified boolean DEFAULT false NOT NULL,
    verified_by text,
    verified_at timestamp with time zone,
    guard_km numeric DEFAULT tickets.default_guard_km() NOT NULL,
    suspicious boolean DEFAULT false NOT NULL,
    candidates jsonb DEFAULT '[]'::jsonb NOT NULL,
    note text,
    attempts integer DEFAULT 0 NOT NULL,
    fetched_at timestamp with time zone,
    expires_at timestamp with time zone,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    updated_at timestamp with time zone DEFAULT now() NOT NULL,
    CONSTRAINT geo_clusters_cluster_check CHECK (((cluster = btrim(cluster)) AND ((length(cluster) >= 1) AND (length(cluster) <= 200)))),
    CONSTRAINT geo_clusters_geom_is_lng_lat CHECK (tickets.is_lng_lat(geom)),
    CONSTRAINT geo_clusters_guard_km_check CHECK (((guard_km >= 0.1) AND (guard_km <= (1000)::numeric)))
);

COMMENT ON TABLE tickets.geo_clusters IS 'One coordinate per cluster: the coarse place of its tickets, and the centre of the wrong-city guard of its locations.';

COMMENT ON COLUMN tickets.geo_clusters.cluster IS 'The cluster in one spelling, the first that came: later rows of either gazetteer get it too. Tickets belong to it in any case and with any blanks (tickets.cluster_key).';

COMMENT ON COLUMN tickets.geo_clusters.geom IS 'Centroid, WGS 84 longitude/latitude. NULL: asked, but nothing usable is known.';

COMMENT ON COLUMN tickets.geo_clusters.provider IS 'Who said so: locationiq, opencage, nominatim, or manual for a coordinate set by a person.';

COMMENT ON COLUMN tickets.geo_clusters.query IS 'The text that was sent to the provider.';

COMMENT ON COLUMN tickets.geo_clusters.verified IS 'A person checked this coordinate: it is never overwritten, not even by force.';

COMMENT ON COLUMN tickets.geo_clusters.verified_by IS 'The role of the person who verified it, written by a trigger. NULL: nobody did, or the Python version''s data does not say.';

COMMENT ON COLUMN tickets.geo_clusters.verified_at IS 'When that was. NULL where verified_by is.';

COMMENT ON COLUMN tickets.geo_clusters.guard_km IS 'A location farther than this from the centroid (geodesic km, 0.1 to 1000) is rejected as the wrong city. Widen it for a large cluster.';

COMMENT ON COLUMN tickets.geo_clusters.suspicious IS 'Many results of this cluster were rejected but agree among themselves: the centroid is probably the wrong one. Check it.';

COMMENT ON COLUMN tickets.geo_clusters.candidates IS 'Every candidate the provider returned, in its order: what tickets_ops.score_candidates reads of it, and `original` as returned.';

COMMENT ON COLUMN tickets.geo_clusters.note IS 'Free text for people.';

COMMENT ON COLUMN tickets.geo_clusters.attempts IS 'How many times in a row no usable centroid was found: 1 waits 7 days, later ones 30.';

COMMENT ON COLUMN tickets.geo_clusters.fetched_at IS 'When a provider last answered for this cluster.';

COMMENT ON COLUMN tickets.geo_clusters.expires_at IS 'When a cluster without a centroid may be asked again. NULL: never, or never asked. A centroid does not expire.';

COMMENT ON COLUMN tickets.geo_clusters.created_at IS 'When the row was made.';

COMMENT ON COLUMN tickets.geo_clusters.updated_at IS 'When the row last changed.';

CREATE FUNCTION tickets_ops.is_due(p_cluster tickets.geo_clusters) RETURNS boolean
    LANGUAGE sql STABLE PARALLEL SAFE
    AS $$
  select p_cluster.geom is null and p_cluster.verified is not true and coalesce(p_cluster.expires_at <= now(), true)
$$;

COMMENT ON FUNCTION tickets_ops.is_due(p_cluster tickets.geo_clusters) IS 'Whether a cluster may be asked: it is not known, or was found nowhere and that has expired. A centroid does not expire. True of the row that a left join did not find.';

CREATE TABLE tickets.geo_locations (
    cluster text NOT NULL,
    location_key text NOT NULL,
    location_name text,
    status text NOT NULL,
    geom public.geometry(Point,4326),
    provider text,
    query text,
    "precision" text,
    confidence numeric,
    distance_km numeric,
    candidates jsonb DEFAULT '[]'::jsonb NOT NULL,
    verified boolean DEFAULT false NOT NULL,
    verified_by text,
    verified_at timestamp with time zone,
    note text,
    attempts integer DEFAULT 0 NOT NULL,
    fetched_at timestamp with time zone,
    expires_at timestamp with time zone,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    updated_at timestamp with time zone DEFAULT now() NOT NULL,
    CONSTRAINT geo_locations_cluster_check CHECK (((cluster = btrim(cluster)) AND ((length(cluster) >= 1) AND (length(cluster) <= 200)))),
    CONSTRAINT geo_locations_found_has_geom CHECK (((status <> 'found'::text) OR (geom IS NOT NULL))),
    CONSTRAINT geo_locations_geom_is_lng_lat CHECK (tickets.is_lng_lat(geom)),
    CONSTRAINT geo_locations_location_key_check CHECK (((length(location_key) >= 1) AND (length(location_key) <= 200))),
    CONSTRAINT geo_locations_precision_check CHECK (("precision" = ANY (ARRAY['point'::text, 'street'::text, 'neighbourhood'::text, 'city'::text]))),
    CONSTRAINT geo_locations_status_check CHECK ((status = ANY (ARRAY['found'::text, 'not_found'::text, 'rejected'::text, 'needs_review'::text])))
);

COMMENT ON TABLE tickets.geo_locations IS 'Places within a cluster: what a provider or a person said about (cluster, location_key). Only rows with status found place tickets.';

COMMENT ON COLUMN tickets.geo_locations.cluster IS 'The cluster the place lies in: there is a Milimani in Nairobi, in Nakuru and in Kisumu.';

COMMENT ON COLUMN tickets.geo_locations.location_key IS 'tickets.location_key(location_name): the place without network codes.';

COMMENT ON COLUMN tickets.geo_locations.location_name IS 'One raw spelling of the place, as a sample.';

COMMENT ON COLUMN tickets.geo_locations.status IS 'found: geom places tickets. not_found: the provider knows no such place. rejected: every candidate failed the guard. needs_review: only a vague match (a city, a county); a person decides.';

COMMENT ON COLUMN tickets.geo_locations.geom IS 'WGS 84 longitude/latitude. A person corrects it by UPDATE; the row then becomes verified and the tickets follow.';

COMMENT ON COLUMN tickets.geo_locations.provider IS 'Who said so: locationiq, opencage, nominatim, or manual for a coordinate set by a person.';

COMMENT ON COLUMN tickets.geo_locations.query IS 'The text that was sent to the provider.';

COMMENT ON COLUMN tickets.geo_locations."precision" IS 'What the coordinate stands for: point, street, neighbourhood, or city (too vague to place a ticket).';

COMMENT ON COLUMN tickets.geo_locations.confidence IS 'Score of the chosen candidate, 0 to 1, by precision, name overlap and distance.';

COMMENT ON COLUMN tickets.geo_locations.distance_km IS 'Geodesic kilometres from the cluster''s centroid.';

COMMENT ON COLUMN tickets.geo_locations.candidates IS 'Every candidate the provider returned, in its order: what tickets_ops.score_candidates reads of it, and `original` as returned. Rescored, without a call, when the centroid or the guard changes.';

COMMENT ON COLUMN tickets.geo_locations.verified IS 'A person checked this row: it is never overwritten and never expires, not even by force.';

COMMENT ON COLUMN tickets.geo_locations.verified_by IS 'The role of the person who verified it, written by a trigger. NULL: nobody did, or the Python version''s data does not say.';

COMMENT ON COLUMN tickets.geo_locations.verified_at IS 'When that was. NULL where verified_by is.';

COMMENT ON COLUMN tickets.geo_locations.note IS 'Free text: why a candidate was rejected, or a person''s remark.';

COMMENT ON COLUMN tickets.geo_locations.attempts IS 'How many times in a row the provider did not know the place: 1 waits 7 days, later ones 30.';

COMMENT ON COLUMN tickets.geo_locations.fetched_at IS 'When a provider last answered for this place.';

COMMENT ON COLUMN tickets.geo_locations.expires_at IS 'When the place may be asked again. NULL: never.';

COMMENT ON COLUMN tickets.geo_locations.created_at IS 'When the row was made.';

COMMENT ON COLUMN tickets.geo_locations.updated_at IS 'When the row last changed.';

CREATE FUNCTION tickets_ops.is_due(p_location tickets.geo_locations) RETURNS boolean
    LANGUAGE sql STABLE PARALLEL SAFE
    AS $$
  select p_location.cluster is null or (not p_location.verified and coalesce(p_location.expires_at <= now(), false))
$$;

COMMENT ON FUNCTION tickets_ops.is_due(p_location tickets.geo_locations) IS 'Whether a place may be asked: it is not known, or what was said of it has expired (never, where expires_at is NULL). True of the row that a left join did not find.';

CREATE FUNCTION tickets_ops.is_erasing() RETURNS boolean
    LANGUAGE sql STABLE
    RETURN COALESCE((current_setting('tickets_ops.erasing'::text, true) = 'true'::text), false);

COMMENT ON FUNCTION tickets_ops.is_erasing() IS 'Whether tickets_ops.erase_place is at work: it alone may change a verified place without deciding about it, and history.';

CREATE FUNCTION tickets_ops.is_failure(p_snapshot tickets_ops.snapshots) RETURNS boolean
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    AS $$
  select p_snapshot.status = 'failed' and p_snapshot.opens_at is null and not p_snapshot.ignored and not p_snapshot.is_late
$$;

COMMENT ON FUNCTION tickets_ops.is_failure(p_snapshot tickets_ops.snapshots) IS 'Whether loading a file failed. A future-dated file, one that is no CSV and one that came too late have the status failed as well, but were refused without being read, and health speaks of them in other words.';

CREATE FUNCTION tickets_ops.places_of(p_cluster text, OUT within bigint, OUT beyond bigint, OUT rejected bigint) RETURNS record
    LANGUAGE sql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
  -- Relies on the primary key (cluster, location_key).
  select
    count(*) filter (where l.status = 'found' and km <= c.guard_km),
    count(*) filter (where l.status = 'found' and km > c.guard_km),
    count(*) filter (where l.status = 'rejected' and l.distance_km > c.guard_km)
  from tickets.geo_clusters c
  join tickets.geo_locations l on l.cluster = c.cluster
  cross join lateral tickets_ops.distance_km(c.geom, l.geom) as km
  where c.cluster = p_cluster and c.geom is not null
$$;

COMMENT ON FUNCTION tickets_ops.places_of(p_cluster text, OUT within bigint, OUT beyond bigint, OUT rejected bigint) IS 'How the places of a cluster lie about its present centroid: found within its guard, found beyond it (a person put them there), and rejected because all that is known of them lies beyond it. Of a cluster without a centroid none.';

CREATE FUNCTION tickets_ops.is_far_from_its_places(p_cluster text) RETURNS boolean
    LANGUAGE sql STABLE SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    RETURN (SELECT ((p.beyond > p.within) OR ((p.within = 0) AND (p.rejected > 0))) FROM tickets_ops.places_of(is_far_from_its_places.p_cluster) p(within, beyond, rejected));

COMMENT ON FUNCTION tickets_ops.is_far_from_its_places(p_cluster text) IS 'Whether a cluster''s centroid is probably the wrong one: more of its places lie beyond its guard than within, or nothing but rejected ones is known. False without a centroid.';

CREATE FUNCTION tickets_ops.is_geocoding(p_task text) RETURNS boolean
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN (p_task = ANY (ARRAY['geocode_cluster'::text, 'geocode_location'::text]));

COMMENT ON FUNCTION tickets_ops.is_geocoding(p_task text) IS 'Whether the jobs of a task ask a provider, and so wait for its rate as a matter of course: those with the flag geocode.';

CREATE FUNCTION tickets_ops.is_living(p_state text, p_seen_at timestamp with time zone) RETURNS boolean
    LANGUAGE sql STABLE PARALLEL SAFE
    RETURN ((p_state = 'alive'::text) OR ((p_state = 'unsure'::text) AND (p_seen_at > (now() - '00:01:00'::interval))));

COMMENT ON FUNCTION tickets_ops.is_living(p_state text, p_seen_at timestamp with time zone) IS 'Whether a worker of tickets_ops.worker_states() counts as living: it is alive, or nobody can tell and it was heard of in the last minute.';

CREATE FUNCTION tickets_ops.is_loaded(p_status text) RETURNS boolean
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN (p_status = ANY (ARRAY['done'::text, 'partial'::text]));

COMMENT ON FUNCTION tickets_ops.is_loaded(p_status text) IS 'Whether a file was loaded, whole or in part, by its status in the ledger.';

CREATE FUNCTION tickets_ops.is_open(p_status text, p_opens_at timestamp with time zone) RETURNS boolean
    LANGUAGE sql STABLE PARALLEL SAFE
    RETURN ((p_status = 'superseded'::text) OR ((p_status = 'failed'::text) AND COALESCE((p_opens_at <= now()), false)));

COMMENT ON FUNCTION tickets_ops.is_open(p_status text, p_opens_at timestamp with time zone) IS 'Whether a version of a file that the ledger knows may be loaded all the same, without force: it was passed over, or refused as future-dated, and its time has come.';

CREATE FUNCTION tickets_ops.is_passed_over_elsewhere(p_snapshot tickets_ops.snapshots) RETURNS boolean
    LANGUAGE sql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
  select exists (
    select from tickets_ops.snapshots o -- unique index snapshots_superseded_once
    where o.dataset = p_snapshot.dataset and o.source_key = p_snapshot.source_key and o.source_etag = p_snapshot.source_etag
      and o.source_last_modified = p_snapshot.source_last_modified and o.status = 'superseded'
  )
$$;

COMMENT ON FUNCTION tickets_ops.is_passed_over_elsewhere(p_snapshot tickets_ops.snapshots) IS 'Whether another row of the ledger says of the same version of a file that it was passed over (superseded). Only one may: this one cannot become superseded too.';

CREATE FUNCTION tickets_ops.is_pipeline() RETURNS boolean
    LANGUAGE sql STABLE
    RETURN COALESCE((current_setting('tickets_ops.writer'::text, true) = 'pipeline'::text), false);

COMMENT ON FUNCTION tickets_ops.is_pipeline() IS 'Whether the writes of gazetteers and tickets of this moment are the pipeline''s own; see tickets_ops.as_pipeline.';

CREATE FUNCTION tickets_ops.is_unknown_cluster(p_cluster text) RETURNS boolean
    LANGUAGE sql STABLE
    RETURN ((tickets.known_spelling(p_cluster) IS NULL) AND (NOT tickets_ops.has_tickets(p_cluster)));

COMMENT ON FUNCTION tickets_ops.is_unknown_cluster(p_cluster text) IS 'Whether neither a ticket nor the gazetteers have the cluster: probably a slip of the pen, asked for by force only.';

CREATE FUNCTION tickets_ops.is_unresolvable(p_cluster tickets.geo_clusters) RETURNS boolean
    LANGUAGE sql STABLE
    AS $$
  select p_cluster.geom is null and not tickets_ops.is_due(p_cluster)
$$;

COMMENT ON FUNCTION tickets_ops.is_unresolvable(p_cluster tickets.geo_clusters) IS 'Whether a cluster has no centroid and none is to be had: it was asked in vain lately, or a person took it away.';

CREATE FUNCTION tickets_ops.is_whole(p_status text) RETURNS boolean
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN (p_status = ANY (ARRAY['done'::text, 'unchanged'::text]));

COMMENT ON FUNCTION tickets_ops.is_whole(p_status text) IS 'Whether all that a file holds is in the tickets, by its status in the ledger: it was loaded to its end or found unchanged, and so is archived.';

CREATE FUNCTION tickets_ops.job_metrics() RETURNS TABLE(name text, labels jsonb, value double precision)
    LANGUAGE sql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
  with queued as materialized (
    select j.task, j.state, count(*) as jobs, min(j.run_at) as run_at
    from tickets_ops.queued_jobs() j
    group by 1, 2
  ),
  -- Only these few have to be described, which takes a look at the payload of each.
  failed as materialized (
    select j.task, count(*) as jobs
    from tickets_ops.described_jobs() j
    where j.state = 'failed' and j.superseded is null and exists (select from queued q where q.state = 'failed')
    group by 1
  )
  select 'jobs', jsonb_build_object('task', p.task, 'state', s.state), coalesce(case s.state when 'failed' then f.jobs else q.jobs end, 0)
  from tickets_ops.job_policy() p
  cross join unnest(array['ready', 'scheduled', 'running', 'retrying', 'failed']) as s (state)
  left join queued q on q.task = p.task and q.state = s.state
  left join failed f on f.task = p.task
  union all
  select 'oldest_job_age_seconds', jsonb_build_object('task', p.task),
    coalesce(extract(epoch from greatest(now() - min(q.run_at) filter (where q.state in ('ready', 'retrying')), '0')), 0)
  from tickets_ops.job_policy() p left join queued q on q.task = p.task
  group by p.task
  union all
  select 'workers', jsonb_build_object('state', s.state),
    count(w.pool_id) filter (where w.state <> 'unsure' or tickets_ops.is_living(w.state, w.seen_at))
  from unnest(array['alive', 'unsure', 'hung', 'dead', 'stopped']) as s (state)
  left join tickets_ops.worker_states() w on w.state = s.state
  group by s.state
$$;

COMMENT ON FUNCTION tickets_ops.job_metrics() IS 'Metrics of jobs and workers.';

CREATE FUNCTION tickets_ops.job_problems() RETURNS TABLE(severity text, problem text)
    LANGUAGE sql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
  -- Geocoding waits for its rate as a matter of course. What the webhook does not take is a warning (tickets_ops.alert_problems).
  select 'fault', format('A job has waited for a worker since %s.', tickets_ops.wall_clock(min(j.run_at)))
  from tickets_ops.queued_jobs() j
  where j.state in ('ready', 'retrying') and not tickets_ops.is_geocoding(j.task) and j.task <> 'fleettickets_alert'
  having min(j.run_at) < now() - interval '10 minutes'
  union all
  select 'fault', format('%s job(s) failed, the last of them %s: %s See tickets_ops.failed_jobs, then select * from tickets_ops.retry_failed();',
    count(*), (array_agg(j.task order by j.failed_at desc))[1], left((array_agg(j.last_error order by j.failed_at desc))[1], 300))
  from tickets_ops.described_jobs() j
  where j.state = 'failed' and j.superseded is null and j.task <> 'fleettickets_alert'
  having count(*) > 0
  union all
  select 'warning', format('%s job(s) have a task that no worker of ours has: %s. Misspelt? See tickets_ops.jobs, and remove one with tickets_ops.cancel_job(id).',
    count(*), string_agg(distinct j.task, ', '))
  from tickets_ops.queued_jobs(p_unknown_too := true) j
  where j.task not in (select p.task from tickets_ops.job_policy() p) and not (select tickets_ops.worker_schema_is_shared())
  having count(*) > 0
$$;

COMMENT ON FUNCTION tickets_ops.job_problems() IS 'What is wrong with the jobs, as faults and warnings in words.';

CREATE FUNCTION tickets_ops.jobs_of_snapshot(p_snapshot_id bigint) RETURNS bigint[]
    LANGUAGE sql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
  select array(
    select j.id
    from tickets_ops.queued_jobs() j
    -- graphile-worker's unique index on key.
    where j.key = any (
      array(select tickets_ops.batch_job_key(b.snapshot_id, b.batch) from tickets_ops.snapshot_batches b where b.snapshot_id = p_snapshot_id)
      || tickets_ops.finalize_job_key(p_snapshot_id)
    )
  )
$$;

COMMENT ON FUNCTION tickets_ops.jobs_of_snapshot(p_snapshot_id bigint) IS 'The ids of the load jobs of a snapshot that are there, by their keys. Empty for NULL.';

CREATE FUNCTION tickets_ops.name_match(p_key text, p_cluster text, p_label text, OUT named boolean, OUT surrounded boolean, OUT exact boolean, OUT literal boolean, OUT same_kind boolean, OUT overlap numeric, OUT contradicted text[]) RETURNS record
    LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $_$
declare
  -- Umoja 2, Section 58, South B, A104: what tells places of one name apart. Longer numbers are postal codes.
  c_number constant text := '^([0-9]{1,3}[a-z]?|[a-z][0-9]{0,3})$';
  c_roads constant text[] := array['road', 'street', 'avenue', 'lane', 'drive', 'highway', 'way', 'bypass', 'boulevard'];
  v_kinds text[] := tickets_ops.kind_words();
  v_asked text[] := string_to_array(p_key, ' ');
  -- Without a name before the first comma (a house number, say), the part behind it counts.
  v_own text[] := coalesce(
    tickets_ops.name_words(split_part(p_label, ',', 1)), tickets_ops.name_words(split_part(p_label, ',', 2)), '{}'
  );
  v_whole text[] := coalesce(tickets_ops.name_words(p_label), '{}');
  v_cluster text[] := coalesce(tickets_ops.name_words(p_cluster), '{}');
  v_word text;
  v_before text;
  v_is_kind boolean;
  v_is_own boolean;
  -- Words of the name; those of them that say a kind; the others, that tell which; and how many of each the candidate has.
  v_telling integer := 0;
  v_told integer := 0;
  v_weakly_telling integer := 0;
  v_weakly_told integer := 0;
  v_explained integer := 0;
  v_kinds_asked boolean := false;
  v_kinds_shared boolean := false;
  v_own_is_asked boolean := true;
  v_own_tells_more boolean := false;
  v_numbers text[] := '{}';
  v_own_numbers text[] := '{}';
  v_following text[];
  -- Another number, or the town that a road is named after: another place, however alike the names are.
  v_is_other boolean := false;
begin
  contradicted := '{}';
  foreach v_word in array v_asked loop
    v_is_kind := v_word = any (v_kinds);
    v_is_own := tickets_ops.has_word(v_own, v_word);
    if v_is_kind then
      v_kinds_asked := true;
      v_kinds_shared := v_kinds_shared or v_is_own;
    else
      v_weakly_telling := v_weakly_telling + 1;
      v_weakly_told := v_weakly_told + v_is_own::integer;
      -- The cluster's own name proves nothing: every candidate near it carries it.
      if v_word <> all (v_cluster) then
        v_telling := v_telling + 1;
        v_told := v_told + v_is_own::integer;
      end if;
    end if;
    -- Langata Road passes through places that are not Langata.
    v_is_other := v_is_other or (v_word = any (c_roads) and not v_is_own and tickets_ops.has_word(v_own, v_before));
    if v_word ~ c_number then
      -- Where the label numbers the same word, it is with this number: Phase 5 is not in Phase 2, South B is not South C.
      v_following := '{}';
      for i in 2 .. cardinality(v_whole) loop
        if v_whole[i - 1] = v_before and v_whole[i] ~ c_number then
          v_following := v_following || v_whole[i];
        end if;
      end loop;
      v_is_other := v_is_other or (cardinality(v_following) > 0 and v_word <> all (v_following));
      if v_word ~ '^[0-9]' then
        v_numbers := v_numbers || v_word;
      end if;
    end if;
    -- People write from the precise to the vague. Words before the name that was found are a detail that the map lacks
    -- (Naivas Ruaka: Ruaka); words behind it say where, and the label must not lack them (Rose Court Karen is not any Rose Court).
    if v_is_own then
      contradicted := '{}';
    end if;
    if tickets_ops.has_word(v_whole, v_word) then
      v_explained := v_explained + 1;
    elsif not v_is_kind and v_word !~ '^[0-9]+$' then
      contradicted := contradicted || v_word;
    end if;
    v_before := v_word;
  end loop;
  foreach v_word in array v_own loop
    if v_word ~ c_number and v_word ~ '^[0-9]' then
      v_own_numbers := v_own_numbers || v_word;
    end if;
    if not tickets_ops.has_word(v_asked, v_word) then
      v_own_is_asked := false;
      v_own_tells_more := v_own_tells_more or (v_word <> all (v_kinds) and v_word <> all (v_cluster));
    end if;
  end loop;
  v_is_other := v_is_other
    or (cardinality(v_numbers) > 0 and cardinality(v_own_numbers) > 0 and not v_numbers && v_own_numbers);
  if v_telling = 0 then
    -- A name of kinds only (Village Market) is told by nothing but the whole of it.
    v_telling := greatest(v_weakly_telling, 1);
    -- Nor does the cluster's own name tell its school from itself.
    v_told := case when v_kinds_asked and not v_kinds_shared then 0 else v_weakly_told end;
  end if;

  exact :=
    -- Spelling differs in blanks: Lang ata and Langata, Buru Buru and Buruburu.
    replace(p_key, ' ', '') = array_to_string(v_own, '')
    -- Rose Court Kilimani: Rose Court, in Kilimani.
    or (v_told > 0 and v_own_is_asked and v_explained = cardinality(v_asked) and not v_is_other);
  -- A slip is forgiven, but Mathare is rather Mathare than Mathari.
  literal := exact and (replace(p_key, ' ', '') = array_to_string(v_own, '') or (v_own <@ v_asked and v_asked <@ v_whole));
  same_kind := v_kinds_shared or not v_kinds_asked;
  -- Every telling word, and a kind in common: Rose Court, Rose Court Apartments, or a Rose without a kind. Of a name without a kind
  -- only kinds may follow: Naivas Supermarket is Naivas, Green Valley Academy is not Valley.
  named := exact or (
    not v_is_other and v_told = v_telling
    and (v_kinds_shared or v_own_is_asked or (not v_kinds_asked and not v_own_tells_more))
  );
  -- Naivas Ruaka lies in Ruaka, Umoja 2 in Umoja.
  surrounded := named or (
    not v_is_other and v_told * 2 >= v_telling and (v_told = v_telling or v_own_is_asked)
    and (v_kinds_shared or not (v_kinds_asked and v_own && v_kinds))
  );
  overlap := case when exact then 1 else 0.5 * v_told / v_telling + 0.2 * v_explained / cardinality(v_asked) end;
  if exact then
    contradicted := '{}';
  end if;
end
$_$;

COMMENT ON FUNCTION tickets_ops.name_match(p_key text, p_cluster text, p_label text, OUT named boolean, OUT surrounded boolean, OUT exact boolean, OUT literal boolean, OUT same_kind boolean, OUT overlap numeric, OUT contradicted text[]) IS 'How well a candidate''s label (p_label, most specific part first) names the place p_key (a location_key) of p_cluster. exact: the same name, but for blanks, slips of a letter and the area that it names. literal: exact, without a slip. same_kind: no kind of thing was asked for, or one of those asked. named: exact, or all telling words stand in its own name, with the same number and no other kind of thing (Avenue for Court, Langata for Langata Road). surrounded: named, or its name is a part of what was asked, with at least half of the telling words: good enough for an area. overlap: 0 to 1, for ranking. contradicted: words that say where the place is, and that the label lacks.';

CREATE FUNCTION tickets_ops.name_words(p_name text) RETURNS text[]
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN string_to_array(tickets.location_key(p_name), ' '::text);

COMMENT ON FUNCTION tickets_ops.name_words(p_name text) IS 'The words of a name as tickets.location_key normalises it. NULL where nothing is left.';

CREATE FUNCTION tickets_ops.score_candidates(p_candidates jsonb, p_key text, p_cluster text, p_centre public.geometry, p_guard_km numeric) RETURNS TABLE(candidate_no bigint, geom public.geometry, label text, "precision" text, named boolean, exact boolean, literal boolean, overlap numeric, distance_km numeric, refusal text, doubt text)
    LANGUAGE sql STABLE PARALLEL SAFE
    BEGIN ATOMIC
 SELECT c.no,
     point.geom,
     "left"((c.candidate ->> 'label'::text), 200) AS "left",
     level."precision",
     verdict.named,
     name.exact,
     name.literal,
     name.overlap,
     point.km,
         CASE
             WHEN (point.geom IS NULL) THEN 'it has no coordinates'::text
             WHEN (point.outside = 'null island'::text) THEN 'its coordinates are 0,0'::text
             WHEN ((c.candidate ->> 'country'::text) <> 'ke'::text) THEN 'it is not in Kenya'::text
             WHEN (point.outside = 'swapped'::text) THEN 'its latitude and longitude are swapped'::text
             WHEN (point.outside = 'outside'::text) THEN 'it is not in Kenya'::text
             WHEN (point.km > score_candidates.p_guard_km) THEN format('it is %s km from the centre of the cluster, the guard is %s km'::text, round(point.km, 1), score_candidates.p_guard_km)
             ELSE NULL::text
         END AS "case",
         CASE
             WHEN (level."precision" = 'city'::text) THEN 'Only a city or county was found'::text
             WHEN (NOT verdict.named) THEN 'What was found has another name'::text
             WHEN ((cardinality(name.contradicted) > 0) AND ((point.km > (score_candidates.p_guard_km / (5)::numeric)) OR (NOT (name.contradicted <@ COALESCE(tickets_ops.name_words(score_candidates.p_cluster), '{}'::text[]))))) THEN format('What was found is not said to be in %s'::text, initcap(array_to_string(name.contradicted, ' '::text)))
             ELSE NULL::text
         END AS "case"
    FROM ((((jsonb_array_elements(
         CASE
             WHEN (jsonb_typeof(score_candidates.p_candidates) = 'array'::text) THEN score_candidates.p_candidates
             ELSE '[]'::jsonb
         END) WITH ORDINALITY c(candidate, no)
      CROSS JOIN LATERAL ( SELECT g.geom,
             tickets_ops.distance_km(score_candidates.p_centre, g.geom) AS km,
             tickets.outside_kenya(g.geom) AS outside
            FROM ( SELECT tickets_ops.candidate_point(c.candidate) AS candidate_point
                  OFFSET 0) g(geom)
          OFFSET 0) point)
      CROSS JOIN LATERAL tickets_ops.name_match(score_candidates.p_key, score_candidates.p_cluster, (c.candidate ->> 'label'::text)) name(named, surrounded, exact, literal, same_kind, overlap, contradicted))
      CROSS JOIN LATERAL ( SELECT
                 CASE
                     WHEN ((c.candidate ->> 'level'::text) = ANY (ARRAY['point'::text, 'street'::text, 'neighbourhood'::text])) THEN (c.candidate ->> 'level'::text)
                     WHEN (((c.candidate ->> 'level'::text) = 'town'::text) AND name.exact) THEN 'neighbourhood'::text
                     ELSE 'city'::text
                 END AS "precision") level)
      CROSS JOIN LATERAL ( SELECT
                 CASE
                     WHEN (level."precision" = ANY (ARRAY['point'::text, 'street'::text])) THEN name.named
                     ELSE name.surrounded
                 END AS named) verdict);
END;

COMMENT ON FUNCTION tickets_ops.score_candidates(p_candidates jsonb, p_key text, p_cluster text, p_centre public.geometry, p_guard_km numeric) IS 'Each candidate (a JSON array as stored in tickets.geo_locations.candidates) scored as the place p_key of p_cluster: its point, precision, name and distance from p_centre; in `refusal` why it cannot be the place, in `doubt` why a person should decide (NULL: no reason). p_centre NULL: without the guard.';

CREATE FUNCTION tickets_ops.score_cluster_candidates(p_candidates jsonb, p_key text) RETURNS TABLE(candidate_no bigint, geom public.geometry, label text, "precision" text, exact boolean, literal boolean, overlap numeric, refusal text)
    LANGUAGE sql STABLE PARALLEL SAFE
    BEGIN ATOMIC
 SELECT s.candidate_no,
     s.geom,
     s.label,
     s."precision",
     s.exact,
     s.literal,
     s.overlap,
     COALESCE(s.refusal,
         CASE
             WHEN ((NOT s.exact) AND (NOT (name.named AND name.same_kind AND (s."precision" <> 'city'::text)))) THEN 'it has another name'::text
             ELSE NULL::text
         END) AS "coalesce"
    FROM (tickets_ops.score_candidates(score_cluster_candidates.p_candidates, score_cluster_candidates.p_key, NULL::text, NULL::public.geometry, NULL::numeric) s(candidate_no, geom, label, "precision", named, exact, literal, overlap, distance_km, refusal, doubt)
      CROSS JOIN LATERAL tickets_ops.name_match(score_cluster_candidates.p_key, NULL::text, s.label) name(named, surrounded, exact, literal, same_kind, overlap, contradicted));
END;

COMMENT ON FUNCTION tickets_ops.score_cluster_candidates(p_candidates jsonb, p_key text) IS 'Each candidate (a JSON array as stored in tickets.geo_clusters.candidates) scored as the cluster whose name has the location_key p_key: its point, precision and name; in `refusal` why it cannot be the cluster (NULL: no reason).';

CREATE FUNCTION tickets_ops.judge_cluster(p_candidates jsonb, p_key text, p_region text, p_guard_km numeric) RETURNS TABLE(geom public.geometry, note text, ambiguous boolean)
    LANGUAGE sql STABLE PARALLEL SAFE
    BEGIN ATOMIC
 WITH scored AS (
          SELECT s.candidate_no,
             s.geom,
             s.label,
             s."precision",
             s.exact,
             s.literal,
             s.overlap,
             s.refusal,
             (words.label && ARRAY( SELECT word.word
                    FROM unnest(tickets_ops.name_words(judge_cluster.p_region)) word(word)
                   WHERE (word.word <> ALL (string_to_array(judge_cluster.p_key, ' '::text))))) AS in_region,
             words.label AS words
            FROM (tickets_ops.score_cluster_candidates(judge_cluster.p_candidates, judge_cluster.p_key) s(candidate_no, geom, label, "precision", exact, literal, overlap, refusal)
              CROSS JOIN LATERAL ( SELECT COALESCE(tickets_ops.name_words(s.label), '{}'::text[]) AS label) words)
         ), best AS (
          SELECT s.candidate_no,
             s.geom,
             s.label,
             s."precision",
             s.exact,
             s.literal,
             s.overlap,
             s.refusal,
             s.in_region,
             s.words
            FROM scored s
           ORDER BY (s.refusal IS NOT NULL), s.exact DESC, COALESCE(s.in_region, false) DESC, s.literal DESC,
                 CASE s."precision"
                     WHEN 'neighbourhood'::text THEN 1
                     WHEN 'city'::text THEN 1
                     WHEN 'street'::text THEN 2
                     ELSE 3
                 END, s.overlap DESC, s.candidate_no
          LIMIT 1
         ), namesakes AS (
          SELECT string_agg(s.label, '; '::text ORDER BY s.candidate_no) AS labels
            FROM (best b_1
              JOIN scored s ON (((s.refusal IS NULL) AND s.exact AND (s.literal = b_1.literal) AND (NOT (s.in_region IS DISTINCT FROM b_1.in_region)) AND (tickets_ops.distance_km(s.geom, b_1.geom) > judge_cluster.p_guard_km) AND (NOT ((s.words <@ b_1.words) OR (b_1.words <@ s.words))))))
           WHERE ((b_1.refusal IS NULL) AND b_1.exact)
         )
  SELECT
         CASE
             WHEN (b.refusal IS NULL) THEN b.geom
             ELSE NULL::public.geometry
         END AS "case",
         CASE
             WHEN (b.refusal IS NOT NULL) THEN format('%s: %s'::text, b.label, b.refusal)
             WHEN (n.labels IS NOT NULL) THEN format('It may be another of this name: %s, or %s'::text, b.label, n.labels)
             ELSE NULL::text
         END AS "case",
     (n.labels IS NOT NULL)
    FROM (best b
      CROSS JOIN namesakes n);
END;

COMMENT ON FUNCTION tickets_ops.judge_cluster(p_candidates jsonb, p_key text, p_region text, p_guard_km numeric) IS 'The verdict over all candidates for a cluster whose name has the location_key p_key: the centroid, or NULL and the reason in words. Of namesakes the one in p_region (of most of its tickets; NULL: unknown) is preferred; ambiguous: that does not tell it from one beyond p_guard_km, and the note names both. No row without candidates.';

CREATE FUNCTION tickets_ops.judge_inherited(p_geom public.geometry, p_centre public.geometry, p_guard_km numeric, OUT status text, OUT distance_km numeric, OUT doubt text) RETURNS record
    LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
begin
  distance_km := tickets_ops.distance_km(p_centre, p_geom);
  status := case when distance_km > p_guard_km or not tickets.in_kenya(p_geom) then 'needs_review' else 'found' end;
  doubt := 'Taken over from the Python version: beyond the guard of this cluster, or outside Kenya.';
end
$$;

COMMENT ON FUNCTION tickets_ops.judge_inherited(p_geom public.geometry, p_centre public.geometry, p_guard_km numeric, OUT status text, OUT distance_km numeric, OUT doubt text) IS 'The verdict over a coordinate without candidates, which was taken over from the Python version: of the rules only the guard and the country can be applied to it. doubt: the note of one that needs review. p_centre NULL: without the guard.';

CREATE FUNCTION tickets_ops.judge_location(p_candidates jsonb, p_key text, p_cluster text, p_centre public.geometry, p_guard_km numeric) RETURNS TABLE(status text, geom public.geometry, "precision" text, confidence numeric, distance_km numeric, note text)
    LANGUAGE sql STABLE PARALLEL SAFE
    BEGIN ATOMIC
 WITH scored AS (
          SELECT s.candidate_no,
             s.geom,
             s.label,
             s."precision",
             s.named,
             s.exact,
             s.literal,
             s.overlap,
             s.distance_km,
             s.refusal,
             s.doubt,
                 CASE
                     WHEN (s.refusal IS NOT NULL) THEN 3
                     WHEN (s.doubt IS NOT NULL) THEN 2
                     ELSE 1
                 END AS tier,
             (((0.6 * s.overlap) + (0.25 *
                 CASE s."precision"
                     WHEN 'point'::text THEN (1)::numeric
                     WHEN 'street'::text THEN 0.8
                     WHEN 'neighbourhood'::text THEN 0.7
                     ELSE (0)::numeric
                 END)) + (0.15 * GREATEST((0)::numeric, ((1)::numeric - COALESCE((s.distance_km / judge_location.p_guard_km), (1)::numeric))))) AS score
            FROM tickets_ops.score_candidates(judge_location.p_candidates, judge_location.p_key, judge_location.p_cluster, judge_location.p_centre, judge_location.p_guard_km) s(candidate_no, geom, label, "precision", named, exact, literal, overlap, distance_km, refusal, doubt)
         ), best AS (
          SELECT s.candidate_no,
             s.geom,
             s.label,
             s."precision",
             s.named,
             s.exact,
             s.literal,
             s.overlap,
             s.distance_km,
             s.refusal,
             s.doubt,
             s.tier,
             s.score
            FROM scored s
           ORDER BY s.tier, s.literal DESC, s.score DESC, s.candidate_no
          LIMIT 1
         )
  SELECT
         CASE COALESCE(b.tier, 4)
             WHEN 1 THEN 'found'::text
             WHEN 2 THEN 'needs_review'::text
             WHEN 3 THEN 'rejected'::text
             ELSE 'not_found'::text
         END AS "case",
         CASE
             WHEN (b.tier < 3) THEN b.geom
             ELSE NULL::public.geometry
         END AS "case",
         CASE
             WHEN (b.tier < 3) THEN b."precision"
             ELSE NULL::text
         END AS "case",
         CASE
             WHEN (b.tier < 3) THEN round(b.score, 2)
             ELSE NULL::numeric
         END AS "case",
     b.distance_km,
         CASE b.tier
             WHEN 2 THEN concat_ws(': '::text, b.doubt, b.label)
             WHEN 3 THEN format('%s: %s'::text, COALESCE(b.label, 'The best candidate'::text), b.refusal)
             ELSE NULL::text
         END AS "case"
    FROM (( SELECT 1 AS "?column?") always
      LEFT JOIN best b ON (true));
END;

COMMENT ON FUNCTION tickets_ops.judge_location(p_candidates jsonb, p_key text, p_cluster text, p_centre public.geometry, p_guard_km numeric) IS 'The verdict over all candidates for the place p_key of p_cluster: status found, needs_review, rejected or not_found, with the best candidate''s point, precision, score (0 to 1), distance and, unless found, the reason in words. Always one row.';

CREATE FUNCTION tickets_ops.keep_cluster_verified() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
declare
  v_decided boolean := tg_op = 'INSERT' or new.verified <> old.verified;
begin
  if tickets_ops.is_pipeline() then
    if tg_op = 'INSERT' or not old.verified then
      return new;
    end if;
    -- What a person checked stays as it is; that its places lie elsewhere is said all the same.
    if new.suspicious is not distinct from old.suspicious then
      return null; -- no row is written
    end if;
    old.suspicious := new.suspicious;
    return old;
  end if;
  -- Taken away is decided too: the pipeline would only find the same centroid again.
  if new.geom::bytea is distinct from (case when tg_op = 'UPDATE' then old.geom::bytea end) then
    perform tickets_ops.check_coordinate(new.cluster, new.geom);
    new.verified := true;
    new.provider := 'manual';
    v_decided := true;
  end if;
  if new.verified then
    new.suspicious := new.suspicious and not v_decided;
    new.expires_at := null;
  end if;
  return new;
end
$$;

COMMENT ON FUNCTION tickets_ops.keep_cluster_verified() IS 'Trigger: a centroid that a person sets or takes away is verified, and one outside Kenya is refused; the pipeline cannot overwrite a verified row, but for the flag suspicious.';

CREATE FUNCTION tickets_ops.keep_geocoding_call(p_provider text, p_reserved_at timestamp with time zone) RETURNS boolean
    LANGUAGE sql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
  with given_back as (
    update tickets_ops.geocoding_providers
    -- `used` counts one day; a call of yesterday is not today's.
    set used = greatest(0, used - (used_on = (p_reserved_at at time zone 'UTC')::date)::integer)
    where provider = p_provider and breaker_since > p_reserved_at
    returning 1
  )
  select not exists (select from given_back);
$$;

COMMENT ON FUNCTION tickets_ops.keep_geocoding_call(p_provider text, p_reserved_at timestamp with time zone) IS 'Asked when the slot of a reservation has come: may the call still be made? False when the breaker opened meanwhile; then the call goes back to the budget of its day.';

CREATE FUNCTION tickets_ops.keep_location_verified() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
declare
  v_guard_km numeric;
begin
  if tickets_ops.is_pipeline() then
    return case when tg_op = 'UPDATE' and old.verified and not tickets_ops.is_erasing() then null else new end;
  end if;
  -- Of a name where a key belongs too: no ticket has another key.
  new.location_key := coalesce(tickets.location_key(new.location_key), new.location_key, tickets.location_key(new.location_name));
  if new.location_key is null then
    raise exception 'Nothing but network codes is left of "%": no ticket has such a place.', new.location_name
      using errcode = 'not_null_violation', hint = 'See tickets.location_key().';
  end if;
  if tg_op = 'INSERT' then
    new.status := coalesce(new.status, case when new.geom is not null then 'found' end);
  end if;
  if new.geom is not null and (tg_op = 'INSERT' or new.geom::bytea is distinct from old.geom::bytea) then
    perform tickets_ops.check_coordinate(format('%s in %s', new.location_key, new.cluster), new.geom);
    new.verified := true;
    new.provider := 'manual';
    new.precision := case when tg_op = 'UPDATE' and new.precision is distinct from old.precision then new.precision else 'point' end;
    new.confidence := null;
    new.note := case when tg_op = 'UPDATE' and new.note is distinct from old.note then new.note end;
    if tg_op = 'UPDATE' and new.status = old.status then
      new.status := 'found';
    end if;
    select tickets_ops.distance_km(c.geom, new.geom), c.guard_km into new.distance_km, v_guard_km
    from tickets.geo_clusters c where c.cluster = new.cluster;
    if new.distance_km > v_guard_km then
      raise notice '% is % km from the centre of %, beyond its guard of % km. It is taken as you set it.',
        new.location_key, round(new.distance_km, 1), new.cluster, v_guard_km;
    end if;
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

COMMENT ON FUNCTION tickets_ops.keep_location_verified() IS 'Trigger: a coordinate or status that a person sets is verified (verified = true on a needs_review row accepts its coordinate, verified = false hands the row back), refused outside Kenya and accepted with a notice beyond the guard; the pipeline cannot overwrite a verified row. Fills location_key from location_name, and a verified row never expires.';

CREATE FUNCTION tickets_ops.kept_tables() RETURNS TABLE(table_name text, part text, kept text)
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
  values
    ('tickets.inc', 'tickets', 'For ever: the map and every figure come from it.'),
    ('tickets.crq', 'tickets', 'For ever: the map and every figure come from it.'),
    ('tickets.inc_events', 'history', 'For ever: no later file tells it again.'),
    ('tickets.crq_events', 'history', 'For ever: no later file tells it again.'),
    ('tickets_ops.inc_digests', 'tickets', 'As long as the ticket.'),
    ('tickets_ops.crq_digests', 'tickets', 'As long as the ticket.'),
    ('tickets.inc_daily', 'history', 'For ever: no event tells it. A row a day for each cluster and team.'),
    ('tickets.import_meta', 'history', 'A row for each dataset.'),
    ('tickets.assignments', 'decisions', 'For ever: who was sent where. A row for each time.'),
    ('tickets.geo_decisions', 'decisions', 'For ever: a person may take one back. Some kilobytes each.'),
    ('tickets.geo_clusters', 'gazetteers', 'For ever; what a provider said is asked again when it expires.'),
    ('tickets.geo_locations', 'gazetteers', 'For ever; what a provider said is asked again when it expires.'),
    ('tickets.geo_country', 'gazetteers', 'One row.'),
    ('tickets_ops.geocoding_answers', 'gazetteers', 'Until the place is resolved, a day at most.'),
    ('tickets_ops.geocoding_calls', 'gazetteers', 'For ever: a row for each day and outcome.'),
    ('tickets_ops.geocoding_providers', 'gazetteers', 'A row for each provider.'),
    ('tickets_ops.geocoding_setup', 'gazetteers', 'One row.'),
    ('tickets_ops.snapshots', 'ledger', 'KEEP_LEDGER_DAYS (730).'),
    ('tickets_ops.looks', 'ledger', 'A row for each dataset.'),
    ('tickets_ops.sweeps', 'ledger', 'A row for each dataset.'),
    ('tickets_ops.unrecorded_tickets', 'ledger', 'Until the next load or sweep of the dataset.'),
    ('tickets_ops.snapshot_transitions', 'ledger', 'Written by migrations only.'),
    ('tickets_ops.snapshot_rejects', 'rejects', 'KEEP_REJECTS_DAYS (90); 10 000 of each file.'),
    ('tickets_ops.snapshot_rows', 'staging', 'Until the file is loaded; of one that failed or is held KEEP_FAILED_STAGING_DAYS (7).'),
    ('tickets_ops.snapshot_batches', 'staging', 'Until the file is loaded; of one that failed or is held KEEP_FAILED_STAGING_DAYS (7).'),
    ('tickets_ops.workers', 'jobs', 'Until 7 days after it was last heard of.'),
    ('tickets_ops.settings', 'jobs', 'With its worker; the latest of each setting for ever.'),
    ('tickets_ops.schedule', 'jobs', 'A row for each line of the crontab.'),
    ('tickets_ops.announced_health', 'jobs', 'One row.'),
    ('tickets.sla_rules', 'gazetteers', 'What people set.'),
    ('tickets.dispatch_settings', 'gazetteers', 'One row.'),
    ('tickets.version_slots', 'tickets', 'A handful of rows.')
$$;

COMMENT ON FUNCTION tickets_ops.kept_tables() IS 'Each table of ours: the part of the storage that it counts to, and how long its rows are kept, or why for ever. Settings are named with their defaults.';

CREATE FUNCTION tickets_ops.kind_words() RETURNS text[]
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN ARRAY['academy'::text, 'airport'::text, 'airstrip'::text, 'apartment'::text, 'apartments'::text, 'arcade'::text, 'avenue'::text, 'bakery'::text, 'bank'::text, 'bar'::text, 'barracks'::text, 'boulevard'::text, 'building'::text, 'bungalows'::text, 'butchery'::text, 'bypass'::text, 'cafe'::text, 'camp'::text, 'cathedral'::text, 'cemetery'::text, 'centre'::text, 'chapel'::text, 'chemist'::text, 'church'::text, 'clinic'::text, 'close'::text, 'club'::text, 'college'::text, 'complex'::text, 'condominiums'::text, 'court'::text, 'courts'::text, 'crescent'::text, 'dispensary'::text, 'drive'::text, 'embassy'::text, 'estate'::text, 'factory'::text, 'farm'::text, 'flat'::text, 'flats'::text, 'garage'::text, 'garden'::text, 'gardens'::text, 'grounds'::text, 'grove'::text, 'gym'::text, 'hall'::text, 'hardware'::text, 'heights'::text, 'high'::text, 'highway'::text, 'homes'::text, 'hospital'::text, 'hostel'::text, 'hostels'::text, 'hotel'::text, 'house'::text, 'inn'::text, 'institute'::text, 'junction'::text, 'kindergarten'::text, 'lane'::text, 'library'::text, 'lodge'::text, 'lounge'::text, 'maisonettes'::text, 'mall'::text, 'manor'::text, 'mansions'::text, 'market'::text, 'mart'::text, 'mews'::text, 'mosque'::text, 'museum'::text, 'nursery'::text, 'office'::text, 'offices'::text, 'parade'::text, 'parish'::text, 'park'::text, 'petrol'::text, 'pharmacy'::text, 'phase'::text, 'place'::text, 'plaza'::text, 'police'::text, 'polytechnic'::text, 'post'::text, 'primary'::text, 'residence'::text, 'residences'::text, 'residency'::text, 'resort'::text, 'restaurant'::text, 'ridge'::text, 'road'::text, 'roundabout'::text, 'school'::text, 'secondary'::text, 'section'::text, 'shop'::text, 'shopping'::text, 'shops'::text, 'square'::text, 'stadium'::text, 'stage'::text, 'station'::text, 'store'::text, 'stores'::text, 'street'::text, 'suites'::text, 'supermarket'::text, 'temple'::text, 'terminus'::text, 'terrace'::text, 'terraces'::text, 'tower'::text, 'towers'::text, 'townhouses'::text, 'university'::text, 'view'::text, 'villa'::text, 'village'::text, 'villas'::text, 'warehouse'::text, 'way'::text];

COMMENT ON FUNCTION tickets_ops.kind_words() IS 'Words that say what kind of place a name names (court, road, school), in the form that location_key gives them.';

CREATE FUNCTION tickets_ops.known_versions(p_dataset text, p_keys text[]) RETURNS TABLE(key text, etag text, last_modified timestamp with time zone, status text, opens_at timestamp with time zone, in_flight boolean)
    LANGUAGE sql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
  select distinct on (s.source_key, s.source_etag, s.source_last_modified)
    s.source_key, s.source_etag, s.source_last_modified, s.status, s.opens_at, s.in_flight
  from tickets_ops.snapshots s
  where s.dataset = p_dataset and s.source_key = any (p_keys) and s.origin = 'bucket' -- index snapshots_by_file
  -- Looked at again by force, and put back: that says nothing of what became of it before.
  order by s.source_key, s.source_etag, s.source_last_modified, s.status = 'superseded', s.snapshot_id desc
$$;

COMMENT ON FUNCTION tickets_ops.known_versions(p_dataset text, p_keys text[]) IS 'What the ledger knows of the objects of these keys: a row for each version (key, ETag, LastModified), with the status of the last look that came to anything.';

CREATE FUNCTION tickets_ops.last_load(p_dataset text, p_cleaning_version integer, OUT etag text, OUT sha256 text) RETURNS record
    LANGUAGE sql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
  select
    case
      when last.snapshot_id is not null then case when last.is_whole then last.source_etag end
      when coalesce((meta.metadata ->> 'cleaning_version')::integer >= p_cleaning_version, true) then btrim(meta.metadata ->> 'source_etag', '"')
    end,
    case when last.is_whole and last.origin = 'bucket' then last.source_sha256 end
  from (select) as one
  left join tickets.import_meta meta on meta.dataset = p_dataset
  left join lateral (
    select
      s.snapshot_id, s.origin, s.source_etag, s.source_sha256,
      -- Rules of a newer release are as good: two releases run beside each other during a deployment.
      s.status = 'done' and coalesce(s.cleaning_version >= p_cleaning_version, false) as is_whole
    from tickets_ops.snapshots s
    where s.dataset = p_dataset and s.load_began_at is not null
    order by s.load_began_at desc
    limit 1
  ) as last on true
$$;

COMMENT ON FUNCTION tickets_ops.last_load(p_dataset text, p_cleaning_version integer, OUT etag text, OUT sha256 text) IS 'ETag and SHA-256 of the bytes that the tickets are at: a file with the same need not be loaded. NULL after a load that was partial or failed, or was cleaned by older rules than these, and of a local file, after which whatever the bucket holds next is loaded. Before the first load the ETag is what a takeover inherited.';

CREATE FUNCTION tickets_ops.last_loaded(p_dataset text) RETURNS SETOF tickets_ops.snapshots
    LANGUAGE sql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
  select s.* from tickets_ops.snapshots s
  where s.dataset = p_dataset and tickets_ops.is_loaded(s.status)
  order by s.loaded_at desc limit 1
$$;

COMMENT ON FUNCTION tickets_ops.last_loaded(p_dataset text) IS 'The snapshot of a dataset (inc, crq) that was loaded last, whole or in part.';

CREATE FUNCTION tickets_ops.nearest_scheduled_run(p_dataset text, p_at timestamp with time zone, p_ahead boolean) RETURNS timestamp with time zone
    LANGUAGE plpgsql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
declare
  v_days integer;
  v_run timestamptz;
begin
  -- Nearly always it is within a day; 29 February may be eight years away.
  foreach v_days in array array[1, 8, 64, 512, 4096] loop
    if p_ahead then
      select min(run) into v_run from tickets_ops.scheduled_runs(p_dataset, p_at, p_at + make_interval(hours => 24 * v_days)) as run
      where run > p_at;
    else
      select max(run) into v_run from tickets_ops.scheduled_runs(p_dataset, p_at - make_interval(hours => 24 * v_days), p_at) as run;
    end if;
    exit when v_run is not null;
  end loop;
  return v_run;
end
$$;

COMMENT ON FUNCTION tickets_ops.nearest_scheduled_run(p_dataset text, p_at timestamp with time zone, p_ahead boolean) IS 'What tickets_ops.next_scheduled_run (p_ahead) and tickets_ops.last_scheduled_run return.';

CREATE FUNCTION tickets_ops.last_scheduled_run(p_at timestamp with time zone, p_dataset text DEFAULT 'inc'::text) RETURNS timestamp with time zone
    LANGUAGE sql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    RETURN tickets_ops.nearest_scheduled_run(p_dataset, p_at, false);

COMMENT ON FUNCTION tickets_ops.last_scheduled_run(p_at timestamp with time zone, p_dataset text) IS 'The last time at or before p_at at which the schedule looks at a dataset''s folder. NULL: it never does, or no worker has started yet.';

CREATE FUNCTION tickets_ops.ledger_lock(p_dataset text) RETURNS bigint
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN hashtextextended(('fleettickets ledger '::text || p_dataset), (0)::bigint);

COMMENT ON FUNCTION tickets_ops.ledger_lock(p_dataset text) IS 'Number of the advisory lock under which looks at a dataset take turns to change the ledger.';

CREATE FUNCTION tickets_ops.list_jobs() RETURNS TABLE(id bigint, task text, key text, payload jsonb, queue text, priority integer, state text, run_at timestamp with time zone, attempts integer, max_attempts integer, last_error text, locked_by text, age interval, failed_at timestamp with time zone, superseded text)
    LANGUAGE sql STABLE SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
  select * from tickets_ops.described_jobs()
$$;

COMMENT ON FUNCTION tickets_ops.list_jobs() IS 'tickets_ops.described_jobs with the owner''s rights, for tickets_ops.jobs and tickets_ops.failed_jobs.';

CREATE FUNCTION tickets_ops.list_problems() RETURNS TABLE(severity text, subject text, problem text)
    LANGUAGE sql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
  select p.severity, p.subject, p.problem
  from (
    select 'workers' as subject, * from tickets_ops.worker_problems()
    union all
    select f.subject, f.severity, case d.dataset when 'inc' then f.problem else format('%s: %s', upper(d.dataset), f.problem) end
    from tickets.datasets() as d (dataset)
    cross join lateral (
      select 'feed' as subject, * from tickets_ops.feed_problems(d.dataset)
      union all select 'snapshots', * from tickets_ops.snapshot_problems(d.dataset)
      union all select 'snapshots', * from tickets_ops.changes_problems(d.dataset)
    ) as f
    union all select 'jobs', * from tickets_ops.job_problems()
    union all select 'locks', * from tickets_ops.blocking_problems()
    union all select 'geocoding', * from tickets_ops.geocoding_problems()
    union all select 'settings', * from tickets_ops.setting_problems()
    union all select 'vehicles', * from tickets_ops.vehicle_problems()
    union all select 'alerts', * from tickets_ops.alert_problems()
  ) as p
  left join tickets_ops.problem_subjects() with ordinality as s (subject, urgency) using (subject)
  order by p.severity = 'warning', s.urgency
$$;

COMMENT ON FUNCTION tickets_ops.list_problems() IS 'What needs a person: severity fault or warning, what it is about (tickets_ops.problem_subjects), and the problem in words; faults first, the most urgent of each first.';

CREATE FUNCTION tickets_ops.load_rows(p_dataset text, p_snapshot_id bigint, p_first text, p_last text, p_without text[], OUT inserted integer, OUT updated integer, OUT unchanged integer) RETURNS record
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $_$
declare
  v_before boolean := tickets_ops.as_pipeline(true); -- their history is written with them
begin
  execute format($sql$
    with batch as materialized (
      select ticket_id, digest, figures, raw from tickets_ops.snapshot_rows
      where snapshot_id = $1 and ticket_id between $2 and $3 and raw is not null -- primary key
        and ticket_id <> all ($4) -- hashed
    ),
    changed as materialized (
      select b.ticket_id, b.raw, t.is_actionable, t.normalized_status, t.assigned_team, t.cluster, t.closed_at, t.mttr
      from batch b join tickets.%1$I t on t.ticket_id = b.ticket_id
      where t.raw <> b.raw
      order by t.ticket_id
      for update of t
    ),
    written as materialized (
      select ticket_id, raw, false as is_new from changed
      union all
      select ticket_id, raw, true from batch b
      where not exists (select from tickets.%1$I t where t.ticket_id = b.ticket_id)
    ),
    clusters as materialized (
      -- A name is normalised only where its cluster has a place to compare it with: that is a tenth of a load of new rows.
      select n.cluster, exists (
        select from tickets.geo_locations l
        where tickets.cluster_key(l.cluster) = tickets.cluster_key(n.cluster) and tickets.places_tickets(l.status) -- index geo_locations_place
      ) as has_places
      from (select distinct raw ->> 'cluster' as cluster from written) as n
    ),
    named as materialized (
      select n.cluster, n.location_name, case when c.has_places then tickets.location_key(n.location_name) end as location_key
      from (select distinct raw ->> 'cluster' as cluster, coalesce(raw ->> 'location_name', '') as location_name from written) as n
      join clusters c on c.cluster = n.cluster
    ),
    places as materialized (
      select n.cluster, n.location_name, l.geom as location_geom, c.geom as cluster_geom
      from named n %2$s
    ),
    placed as materialized (
      select w.ticket_id, w.raw, w.is_new, place.*
      from written w
      -- Not "is not distinct from", which cannot be hashed.
      left join places p on p.cluster = w.raw ->> 'cluster' and p.location_name = coalesce(w.raw ->> 'location_name', '')
      cross join lateral tickets.place(w.raw, p.location_geom, p.cluster_geom) as place
    ),
    updated as (
      update tickets.%1$I t
      set raw = p.raw, geom = p.geom, geo_source = p.geo_source, ingested_at = now()
      from placed p
      where not p.is_new and t.ticket_id = p.ticket_id
      returning t.ticket_id, t.is_actionable, t.normalized_status, t.assigned_team, t.owner, t.cluster, t.region,
        t.created_at_service, t.closed_at, t.mttr, t.sla_status, t.ctid as row_ctid, t.xmin as row_xmin
    ),
    inserted as (
      insert into tickets.%1$I (ticket_id, raw, geom, geo_source)
      select ticket_id, raw, geom, geo_source from placed where is_new
      returning ticket_id, is_actionable, normalized_status, assigned_team, owner, cluster, region,
        created_at_service, closed_at, mttr, sla_status, ctid as row_ctid, xmin as row_xmin
    ),
    digests as (
      insert into tickets_ops.%4$I (ticket_id, digest, figures, row_ctid, row_xmin)
      select b.ticket_id, b.digest, b.figures, w.row_ctid, w.row_xmin
      from (select ticket_id, row_ctid, row_xmin from inserted union all select ticket_id, row_ctid, row_xmin from updated) as w
      join batch b on b.ticket_id = w.ticket_id
      where not exists (
        select from pg_trigger where tgrelid = 'tickets.%1$I'::regclass and tgtype & 3 = 3 -- BEFORE, for each row: none is ours
      )
      on conflict (ticket_id) do update
        set digest = excluded.digest, figures = excluded.figures, row_ctid = excluded.row_ctid, row_xmin = excluded.row_xmin
    ),
    %3$s
    select
      (select count(*) from inserted), (select count(*) from updated),
      (select count(*) from batch) - (select count(*) from written)
  $sql$, p_dataset, tickets.gazetteer_joins('n.cluster', 'n.location_key'), tickets_ops.history_cte(p_dataset), p_dataset || '_digests')
  into inserted, updated, unchanged
  using p_snapshot_id, p_first, p_last, p_without;
  perform tickets_ops.as_pipeline(v_before);
end
$_$;

COMMENT ON FUNCTION tickets_ops.load_rows(p_dataset text, p_snapshot_id bigint, p_first text, p_last text, p_without text[], OUT inserted integer, OUT updated integer, OUT unchanged integer) IS 'Writes the staged rows of a snapshot from one ticket id to another, without those in p_without, to the tickets of a dataset (inc, crq), to their history and to their digests. Only changes are written. Returns how many rows were inserted, updated and left as they are. To be called in a transaction that shares the gazetteer lock (tickets.gazetteer_lock). Raises what Postgres says of a row that it refuses.';

CREATE FUNCTION tickets_ops.location_question(p_location_name text, p_cluster text, p_force boolean, p_provider text DEFAULT NULL::text) RETURNS TABLE(state text, cluster text, location_key text, name text, lat double precision, lng double precision, guard_km double precision, answered text[])
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
declare
  v_cluster text := tickets_ops.cluster_name(p_cluster);
  v_key text := tickets.location_key(p_location_name);
begin
  return query
    select
      case
        when v_cluster is null or v_key is null then 'nothing to ask'
        when l.verified then 'verified'
        when not p_force and tickets_ops.is_unknown_cluster(v_cluster) then 'unknown cluster'
        when not tickets_ops.is_due(l) and not p_force then 'known'
        when c.geom is null then 'no centroid'
        else 'ask'
      end,
      v_cluster,
      v_key,
      tickets.location_query(p_location_name),
      (c.geom::point)[1],
      (c.geom::point)[0],
      c.guard_km::double precision,
      (tickets_ops.answers(v_cluster, v_key, p_provider)).queries
    from (select 1) as always
    left join tickets.geo_locations l on l.cluster = v_cluster and l.location_key = v_key
    left join tickets.geo_clusters c on c.cluster = v_cluster;
end
$$;

COMMENT ON FUNCTION tickets_ops.location_question(p_location_name text, p_cluster text, p_force boolean, p_provider text) IS 'What a geocode_location job has to ask. state: ask, known (an answer that has not expired), verified, no centroid (the cluster comes first), unknown cluster, nothing to ask (no cluster, or a name of network codes only). name: what the provider reads; lat, lng, guard_km: of the cluster; answered: queries that p_provider has answered already. p_force asks although known.';

CREATE FUNCTION tickets_ops.lock_job(p_id bigint) RETURNS void
    LANGUAGE sql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
  select from graphile_worker._private_jobs where id = p_id for update
$$;

COMMENT ON FUNCTION tickets_ops.lock_job(p_id bigint) IS 'Holds a job''s row until the end of the transaction: no worker takes or ends it meanwhile, and nobody replaces it.';

CREATE FUNCTION tickets_ops.locked_snapshot(p_snapshot_id bigint) RETURNS tickets_ops.snapshots
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
declare
  v_snapshot tickets_ops.snapshots;
begin
  select * into v_snapshot from tickets_ops.snapshots where snapshot_id = p_snapshot_id;
  if not found then
    raise exception 'There is no snapshot %.', p_snapshot_id using hint = 'See tickets_ops.snapshots.';
  end if;
  -- In its turn with the looks, which decide by what is held.
  perform pg_advisory_xact_lock(tickets_ops.ledger_lock(v_snapshot.dataset));
  select * into v_snapshot from tickets_ops.snapshots where snapshot_id = p_snapshot_id for update;
  return v_snapshot;
end
$$;

COMMENT ON FUNCTION tickets_ops.locked_snapshot(p_snapshot_id bigint) IS 'A snapshot''s row, locked until the end of the transaction, in its turn with looks at the bucket. Raises when there is none.';

CREATE FUNCTION tickets_ops.mentions(p_text text, p_ticket_id text) RETURNS boolean
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN ((POSITION((p_ticket_id) IN (p_text)) > 0) AND (p_text ~ (('(^|[^[:alnum:]])'::text || regexp_replace(p_ticket_id, '([^[:alnum:]])'::text, '\\\1'::text, 'g'::text)) || '([^[:alnum:]]|$)'::text)));

COMMENT ON FUNCTION tickets_ops.mentions(p_text text, p_ticket_id text) IS 'Whether a text contains a ticket''s number, and not only as a part of a longer one.';

CREATE FUNCTION tickets_ops.metric_help() RETURNS TABLE(place integer, name text, help text)
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
  select *
  from (values
    (1, 'health_ok', '1 when nothing needs a person, 0 when tickets_ops.health has a fault.'),
    (2, 'problems', 'Problems in tickets_ops.health; severity fault or warning, subject as the problem is about.'),
    (3, 'checked_age_seconds', 'Since the bucket was last looked at with success. NaN before the first look.'),
    (4, 'data_age_seconds', 'Since the export of the newest file that is loaded or was found unchanged: how old the tickets are. NaN before the first load.'),
    (5, 'content_lag_seconds', 'How far the newest created_at_service or closed_at trails the newest file. About two days, in daily lumps, is normal. NaN before the first load.'),
    (6, 'missed_run', '1 when nothing looked at the bucket within half an hour after the last scheduled run.'),
    (7, 'snapshot_rows', 'Rows of the snapshot that was loaded last, by what became of them; together what was read.'),
    (8, 'snapshot_load_seconds', 'How long that snapshot took from the first row that was written to its end. NaN before the first load.'),
    (9, 'open_missing', 'Open tickets that it does not list. NaN before the first load, and where files hold changes only.'),
    (10, 'files_waiting', 'Files that were seen in the folder and are not dealt with yet: in flight, held for a person, or behind another file.'),
    (11, 'jobs', 'Jobs by task and state; failed ones only while they matter (tickets_ops.failed_jobs.superseded).'),
    (12, 'oldest_job_age_seconds', 'How long the oldest job that is due has waited for a worker; 0 when none waits.'),
    (13, 'workers', 'Worker processes of the last 7 days by state; alive, unsure (sessions are shared, heard of in the last minute), hung, dead, stopped.'),
    (14, 'geocoding_calls_today', 'Answers of the provider in use today (UTC), by outcome.'),
    (15, 'geocoding_budget_left', 'Calls left today (UTC). NaN without a limit or a provider.'),
    (16, 'geocoding_stopped', '1 when a provider is set and is not asked: budget or quota spent, key refused, rate limited, in trouble.'),
    (17, 'places_for_review', 'Doubtful places and clusters that no person has decided about (tickets_ops.review_queue).'),
    (18, 'tickets_open', 'Open tickets by SLA state; at_risk ones are not counted as ok. Those of CRQ, where it is on, have no SLA, and a label dataset instead.'),
    (19, 'tickets_placed', 'Open tickets by the precision of their position; none is on no map. Those of CRQ, where it is on, have a label dataset besides.'),
    (20, 'vehicles', 'Vehicles by what may be believed of their position (tickets.vehicles_now). NaN while tickets.vehicles cannot be read.'),
    (21, 'assignments_open', 'Tickets that a vehicle is assigned to.'),
    (22, 'storage_bytes', 'What the tables take on disk, with their indexes, by part (tickets_ops.storage).')
  ) as described (place, name, help)
$$;

COMMENT ON FUNCTION tickets_ops.metric_help() IS 'The metrics in their order: each name without its prefix fleettickets_, and what it tells.';

CREATE FUNCTION tickets_ops.min_cost_assignment(p_costs double precision[], p_rows integer, p_columns integer) RETURNS integer[]
    LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
begin
  if p_rows is null or p_columns is null or p_rows < 0 or p_columns < 0 or cardinality(p_costs) is distinct from p_rows::bigint * p_columns then
    raise exception 'p_costs must hold p_rows × p_columns costs: % × %, not %.', p_rows, p_columns, cardinality(p_costs)
      using errcode = 'invalid_parameter_value';
  elsif exists (select from unnest(p_costs) as c where abs(c) > 1e100 and c < 'Infinity') then
    raise exception 'A cost must lie between -1e100 and 1e100, or be Infinity where the pair is forbidden.' using errcode = 'invalid_parameter_value';
  end if;
  return array(
    select coalesce(m.column_no, 0)
    from generate_series(1, p_rows) as r (row_no)
    left join (
      select m.*
      from (
        select array_agg((nth - 1) / p_columns + 1) as row, array_agg((nth - 1) % p_columns + 1) as column, array_agg(cost) as cost
        from (select cost, nth::integer from unnest(p_costs) with ordinality as c (cost, nth)) as c
        where cost < 'Infinity' -- not true of NaN and NULL either
      ) as pairs
      cross join lateral tickets_ops.min_cost_matching(pairs.row, pairs.column, pairs.cost) as m
    ) as m using (row_no)
    order by r.row_no
  );
end
$$;

COMMENT ON FUNCTION tickets_ops.min_cost_assignment(p_costs double precision[], p_rows integer, p_columns integer) IS 'The assignment problem for a whole matrix: costs row by row, Infinity (or NULL, NaN) for a pair that is forbidden. The result has p_rows elements: the column of each row, from 1, or 0 for none. As many rows as possible get one, then the total cost is the least possible. Errors: the number of costs is not p_rows × p_columns; a cost beyond 1e100.';

CREATE FUNCTION tickets_ops.min_cost_matching(p_row integer[], p_column integer[], p_cost double precision[]) RETURNS TABLE(row_no integer, column_no integer)
    LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
declare
  n record;
  v record;
begin
  select max(r) > max(c) as more_rows, least(max(r), max(c)) as smaller, cardinality(p_row) > least(max(r), max(c)) ^ 2 as prunes
  into n
  from unnest(p_row, p_column) as p (r, c);
  if n.smaller is null then
    return;
  end if;
  with pair as (
    select case when n.more_rows then c else r end as small, case when n.more_rows then r else c end as large, cost
    from unnest(p_row, p_column, p_cost) as p (r, c, cost)
  ),
  ranked as (
    select small, large, cost, row_number() over (partition by small order by cost, large) as nth from pair
  ),
  kept as materialized (
    select small, large, cost from ranked where n.prunes and nth <= n.smaller
    union all
    select small, large, cost from pair where not n.prunes
  ),
  contest as materialized (
    select count(*) < 2 * n.smaller as contested from (select from kept group by large) as reached
  ),
  turned as materialized (
    select case when contested then large else small end as here, case when contested then small else large end as there, cost
    from kept, contest
  ),
  node as materialized (
    select here, count(*) as pairs, row_number() over (order by min(cost), here) as no from turned group by here
  ),
  sorted as (
    select t.there, t.cost from turned t join node using (here) order by node.no, t.cost, t.there
  )
  select
    (select contested from contest) as contested,
    (select array_agg(here order by no) from node) as here,
    (select array_agg(last order by no) from (select no, (sum(pairs) over (order by no))::integer as last from node) as bounds) as last,
    array_agg(there) as there, array_agg(cost) as cost, max(there) as columns,
    tickets_ops.unmatched_cost(n.smaller, min(cost), max(cost)) as unmatched
  into v
  from sorted;
  return query
    select case when v.contested = n.more_rows then v.here[m.no] else m.there end, case when v.contested = n.more_rows then m.there else v.here[m.no] end
    from tickets_ops.shortest_augmenting_paths(v.last, v.there, v.cost, v.columns, v.unmatched) as found
    cross join lateral unnest(found.column_of) with ordinality as m (there, no)
    where m.there > 0;
end
$$;

COMMENT ON FUNCTION tickets_ops.min_cost_matching(p_row integer[], p_column integer[], p_cost double precision[]) IS 'The matching of rows and columns with as many pairs as possible, and of these the one with the least total cost. The arguments list the allowed pairs, each once: row and column by number, from 1, and its cost, which is finite. Equal input gives equal output.';

CREATE FUNCTION tickets_ops.scheduled_since(p_dataset text) RETURNS timestamp with time zone
    LANGUAGE sql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    RETURN (SELECT max(s.since) AS max FROM tickets_ops.schedule s WHERE (s.dataset = scheduled_since.p_dataset));

COMMENT ON FUNCTION tickets_ops.scheduled_since(p_dataset text) IS 'Since when the schedule of a dataset is what it is: no run before that can have been missed. NULL: it has none.';

CREATE TABLE tickets_ops.looks (
    dataset text NOT NULL,
    looked_at timestamp with time zone NOT NULL,
    files bigint NOT NULL,
    others bigint NOT NULL,
    new_file_at timestamp with time zone,
    future_dated text[] NOT NULL,
    waiting bigint DEFAULT 0 NOT NULL
);

COMMENT ON TABLE tickets_ops.looks IS 'What the last look at the bucket saw; one row a dataset. A look that failed leaves it as it was.';

COMMENT ON COLUMN tickets_ops.looks.dataset IS 'inc or crq.';

COMMENT ON COLUMN tickets_ops.looks.looked_at IS 'When the look began, by the database''s clock.';

COMMENT ON COLUMN tickets_ops.looks.files IS 'CSV files in the folder; those that were archived are not among them.';

COMMENT ON COLUMN tickets_ops.looks.others IS 'Empty files, and objects that are no CSV by their name.';

COMMENT ON COLUMN tickets_ops.looks.new_file_at IS 'When a look last saw a version of a file that none had seen before: a feed that stands still brings none. NULL before the first.';

COMMENT ON COLUMN tickets_ops.looks.future_dated IS 'Keys of files whose time has not come: they lie in the folder and are not loaded.';

COMMENT ON COLUMN tickets_ops.looks.waiting IS 'Of a feed of changes: files behind the one that is loaded, or that stops them. 0 for snapshots, of which the newest is enough.';

CREATE FUNCTION tickets_ops.missed_run(p_dataset text) RETURNS timestamp with time zone
    LANGUAGE sql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    RETURN (SELECT tick.tick FROM tickets_ops.last_scheduled_run((now() - '00:30:00'::interval), missed_run.p_dataset) tick(tick) WHERE ((tick.tick > tickets_ops.scheduled_since(missed_run.p_dataset)) AND (tick.tick > COALESCE((SELECT l.looked_at FROM tickets_ops.looks l WHERE (l.dataset = missed_run.p_dataset)), '-infinity'::timestamp with time zone))));

COMMENT ON FUNCTION tickets_ops.missed_run(p_dataset text) IS 'The last scheduled run of a dataset, when half an hour later no look at the bucket had succeeded. NULL: none was missed.';

CREATE FUNCTION tickets_ops.moves() RETURNS jsonb
    LANGUAGE sql STABLE
    RETURN COALESCE((NULLIF(current_setting('tickets_ops.moves'::text, true), ''::text))::jsonb, '[]'::jsonb);

COMMENT ON FUNCTION tickets_ops.moves() IS 'The tickets that followed the gazetteer writes of this moment: [{cluster_key, location_key, tickets}, …], since a person''s statement began. Kept by tickets.place_tickets for tickets_ops.record_decisions.';

CREATE FUNCTION tickets_ops.needs_person(p_snapshot tickets_ops.snapshots) RETURNS boolean
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    AS $$
  select p_snapshot.status in ('held', 'partial') or tickets_ops.is_failure(p_snapshot)
$$;

COMMENT ON FUNCTION tickets_ops.needs_person(p_snapshot tickets_ops.snapshots) IS 'Whether a file failed, is held, or was loaded only in part: of snapshots a later file makes up for it, of changes a person must.';

CREATE FUNCTION tickets_ops.next_scheduled_run(p_at timestamp with time zone, p_dataset text DEFAULT 'inc'::text) RETURNS timestamp with time zone
    LANGUAGE sql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    RETURN tickets_ops.nearest_scheduled_run(p_dataset, p_at, true);

COMMENT ON FUNCTION tickets_ops.next_scheduled_run(p_at timestamp with time zone, p_dataset text) IS 'The next time after p_at at which the schedule looks at a dataset''s folder. NULL: it never does, or no worker has started yet.';

CREATE FUNCTION tickets_ops.next_utc_midnight() RETURNS timestamp with time zone
    LANGUAGE sql
    RETURN ((date_trunc('day'::text, (clock_timestamp() AT TIME ZONE 'UTC'::text)) + '1 day'::interval) AT TIME ZONE 'UTC'::text);

COMMENT ON FUNCTION tickets_ops.next_utc_midnight() IS 'When the daily quotas come back.';

CREATE FUNCTION tickets_ops.note_unrecorded() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
begin
  -- Asked here, and not in the trigger's WHEN, which the role that inserts would need a right for.
  if not tickets_ops.is_pipeline() then
    insert into tickets_ops.unrecorded_tickets (dataset, ticket_id)
    select tg_table_name, w.ticket_id from written w
    on conflict do nothing; -- deleted and inserted again
  end if;
  return null;
end
$$;

COMMENT ON FUNCTION tickets_ops.note_unrecorded() IS 'Trigger after an insert of tickets: notes those that are not the pipeline''s for tickets_ops.record_baselines.';

CREATE TABLE tickets_ops.geocoding_providers (
    provider text NOT NULL,
    rate_per_second numeric NOT NULL,
    daily_budget integer,
    found_days numeric DEFAULT 180 NOT NULL,
    next_at timestamp with time zone DEFAULT '-infinity'::timestamp with time zone NOT NULL,
    used_on date,
    used integer DEFAULT 0 NOT NULL,
    breaker text,
    breaker_reason text,
    breaker_since timestamp with time zone,
    breaker_until timestamp with time zone,
    probing_until timestamp with time zone,
    consecutive_failures integer DEFAULT 0 NOT NULL,
    last_failed_place text,
    consecutive_nothing integer DEFAULT 0 NOT NULL,
    found_at timestamp with time zone DEFAULT now() NOT NULL,
    registered_at timestamp with time zone DEFAULT now() NOT NULL,
    CONSTRAINT geocoding_providers_breaker_check CHECK ((breaker = ANY (ARRAY['rate limited'::text, 'quota spent'::text, 'key refused'::text, 'trouble'::text, 'suspected'::text]))),
    CONSTRAINT geocoding_providers_breaker_is_whole CHECK ((num_nulls(breaker, breaker_reason, breaker_since, breaker_until) = ANY (ARRAY[0, 4]))),
    CONSTRAINT geocoding_providers_daily_budget_check CHECK ((daily_budget > 0)),
    CONSTRAINT geocoding_providers_found_days_check CHECK ((found_days > (0)::numeric)),
    CONSTRAINT geocoding_providers_rate_per_second_check CHECK ((rate_per_second > (0)::numeric))
);

COMMENT ON TABLE tickets_ops.geocoding_providers IS 'Geocoding providers that a worker was set up for: allowed rate, calls used, and the breaker. Shared by all workers. Holds no key.';

COMMENT ON COLUMN tickets_ops.geocoding_providers.provider IS 'locationiq, opencage or nominatim.';

COMMENT ON COLUMN tickets_ops.geocoding_providers.rate_per_second IS 'GEOCODER_RATE_PER_SECOND of the worker that registered last.';

COMMENT ON COLUMN tickets_ops.geocoding_providers.daily_budget IS 'GEOCODER_DAILY_BUDGET: calls a UTC day. NULL: no limit.';

COMMENT ON COLUMN tickets_ops.geocoding_providers.found_days IS 'GEOCODER_FOUND_DAYS: after so many days a found place may be asked again.';

COMMENT ON COLUMN tickets_ops.geocoding_providers.next_at IS 'The next free slot for a call.';

COMMENT ON COLUMN tickets_ops.geocoding_providers.used_on IS 'The UTC day that `used` counts.';

COMMENT ON COLUMN tickets_ops.geocoding_providers.used IS 'Calls reserved on that day. One that was never made, because its worker died, counts too.';

COMMENT ON COLUMN tickets_ops.geocoding_providers.breaker IS 'Why nobody calls at present; NULL: closed. Beyond breaker_until one caller at a time may probe.';

COMMENT ON COLUMN tickets_ops.geocoding_providers.breaker_reason IS 'The provider''s answer in words, without the key.';

COMMENT ON COLUMN tickets_ops.geocoding_providers.breaker_since IS 'When it opened.';

COMMENT ON COLUMN tickets_ops.geocoding_providers.breaker_until IS 'When the next call may be tried.';

COMMENT ON COLUMN tickets_ops.geocoding_providers.probing_until IS 'Somebody is finding out whether the provider works again; after this time the prober is taken for dead and another may try.';

COMMENT ON COLUMN tickets_ops.geocoding_providers.consecutive_failures IS 'Failures in a row, of one place only the first.';

COMMENT ON COLUMN tickets_ops.geocoding_providers.last_failed_place IS 'The place that failed last.';

COMMENT ON COLUMN tickets_ops.geocoding_providers.consecutive_nothing IS 'Answers in a row that say the provider does not know the place.';

COMMENT ON COLUMN tickets_ops.geocoding_providers.found_at IS 'When it last found anything, or was registered first: what it did not find since is in doubt while it is suspected.';

COMMENT ON COLUMN tickets_ops.geocoding_providers.registered_at IS 'Not written since 1.0.1.';

CREATE FUNCTION tickets_ops.open_breaker(p_before tickets_ops.geocoding_providers, p_breaker text, p_reason text, p_until timestamp with time zone) RETURNS timestamp with time zone
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
begin
  -- One that is open for longer stays.
  if p_before.breaker_until > p_until then
    return p_before.breaker_until;
  end if;
  update tickets_ops.geocoding_providers
  set
    breaker = p_breaker,
    breaker_reason = p_reason,
    breaker_since = coalesce(breaker_since, clock_timestamp()),
    breaker_until = p_until,
    probing_until = null
  where provider = p_before.provider;
  return p_until;
end
$$;

COMMENT ON FUNCTION tickets_ops.open_breaker(p_before tickets_ops.geocoding_providers, p_breaker text, p_reason text, p_until timestamp with time zone) IS 'Opens the breaker of a provider, or keeps it open, until p_until at least. Returns until when.';

CREATE FUNCTION tickets_ops.person() RETURNS text
    LANGUAGE sql STABLE
    RETURN CASE current_setting('role'::text) WHEN 'none'::text THEN (SESSION_USER)::text ELSE current_setting('role'::text) END;

COMMENT ON FUNCTION tickets_ops.person() IS 'The role that the person at the other end of the connection acts as: what SET ROLE chose, else the one that logged in. The same inside functions that run with their owner''s rights.';

CREATE FUNCTION tickets_ops.place_candidates(p_cluster text, p_location_key text DEFAULT NULL::text) RETURNS TABLE(candidate_no bigint, label text, level text, lng double precision, lat double precision, distance_km numeric, verdict text)
    LANGUAGE sql STABLE SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET jit TO 'off'
    BEGIN ATOMIC
 SELECT w.candidate_no,
     w.label,
     w."precision",
     public.st_x(w.geom) AS st_x,
     public.st_y(w.geom) AS st_y,
     w.distance_km,
         CASE
             WHEN (w.refusal IS NOT NULL) THEN ('refused: '::text || w.refusal)
             WHEN (w.doubt IS NOT NULL) THEN ('doubtful: '::text || w.doubt)
             ELSE 'fits'::text
         END AS "case"
    FROM ((tickets.geo_locations l
      LEFT JOIN tickets.geo_clusters c ON ((c.cluster = l.cluster)))
      CROSS JOIN LATERAL tickets_ops.score_candidates(l.candidates, l.location_key, l.cluster, c.geom, c.guard_km) w(candidate_no, geom, label, "precision", named, exact, literal, overlap, distance_km, refusal, doubt))
   WHERE ((l.cluster = place_candidates.p_cluster) AND (l.location_key = place_candidates.p_location_key))
 UNION ALL
  SELECT w.candidate_no,
     w.label,
     w."precision",
     public.st_x(w.geom) AS st_x,
     public.st_y(w.geom) AS st_y,
     tickets_ops.distance_km(c.geom, w.geom) AS distance_km,
         CASE
             WHEN (w.refusal IS NOT NULL) THEN ('refused: '::text || w.refusal)
             ELSE 'fits'::text
         END AS "case"
    FROM (tickets.geo_clusters c
      CROSS JOIN LATERAL tickets_ops.score_cluster_candidates(c.candidates, tickets_ops.cluster_name_key(c.cluster)) w(candidate_no, geom, label, "precision", exact, literal, overlap, refusal))
   WHERE ((c.cluster = place_candidates.p_cluster) AND (place_candidates.p_location_key IS NULL))
  ORDER BY 1;
END;

COMMENT ON FUNCTION tickets_ops.place_candidates(p_cluster text, p_location_key text) IS 'What the provider returned for a place, or with one argument for a cluster, in its order: the number, label, level (point, street, neighbourhood, city), coordinate, kilometres from the cluster''s centroid, and what the judge says of it today: fits, doubtful: …, or refused: …. No rows for a place that is not in the gazetteer.';

CREATE FUNCTION tickets_ops.places_without_guard(p_cluster text) RETURNS TABLE(location_key text, location_name text, candidates jsonb, geom public.geometry, fits boolean)
    LANGUAGE sql STABLE
    BEGIN ATOMIC
 SELECT l.location_key,
     l.location_name,
     l.candidates,
     place.geom,
     (place.status = 'found'::text)
    FROM (( SELECT r.cluster,
             r.location_key,
             r.location_name,
             r.status,
             r.geom,
             r.provider,
             r.query,
             r."precision",
             r.confidence,
             r.distance_km,
             r.candidates,
             r.verified,
             r.verified_by,
             r.verified_at,
             r.note,
             r.attempts,
             r.fetched_at,
             r.expires_at,
             r.created_at,
             r.updated_at
            FROM tickets.geo_locations r
           WHERE ((r.cluster = places_without_guard.p_cluster) AND (r.status = 'rejected'::text) AND (NOT r.verified))
           ORDER BY r.fetched_at DESC NULLS LAST, r.location_key
          LIMIT 50) l
      CROSS JOIN LATERAL tickets_ops.judge_location(l.candidates, l.location_key, l.cluster, NULL::public.geometry, NULL::numeric) place(status, geom, "precision", confidence, distance_km, note))
   WHERE (place.geom IS NOT NULL);
END;

COMMENT ON FUNCTION tickets_ops.places_without_guard(p_cluster text) IS 'Where the judge would put the rejected places of a cluster if it had no guard (at most 50, the last asked); fits: without a doubt. Not those for which it would take no candidate at all.';

CREATE FUNCTION tickets_ops.rejected_places(p_cluster text) RETURNS TABLE(location_key text, location_name text, lng double precision, lat double precision, distance_km numeric, needs_km numeric, fits boolean)
    LANGUAGE sql STABLE SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET jit TO 'off'
    BEGIN ATOMIC
 SELECT l.location_key,
     l.location_name,
     public.st_x(l.geom) AS st_x,
     public.st_y(l.geom) AS st_y,
     tickets_ops.distance_km(c.geom, l.geom) AS distance_km,
     nearest.km,
     l.fits
    FROM ((tickets.geo_clusters c
      CROSS JOIN LATERAL tickets_ops.places_without_guard(c.cluster) l(location_key, location_name, candidates, geom, fits))
      CROSS JOIN LATERAL ( SELECT min(w.distance_km) AS km
            FROM tickets_ops.score_candidates(l.candidates, l.location_key, c.cluster, c.geom, NULL::numeric) w(candidate_no, geom, label, "precision", named, exact, literal, overlap, distance_km, refusal, doubt)
           WHERE (w.refusal IS NULL)) nearest)
   WHERE (c.cluster = rejected_places.p_cluster)
   ORDER BY nearest.km, l.location_key;
END;

COMMENT ON FUNCTION tickets_ops.rejected_places(p_cluster text) IS 'The rows of tickets_ops.places_beyond_guard; fits: the judge would take the place without a doubt.';

CREATE FUNCTION tickets_ops.places_beyond_guard(p_cluster text) RETURNS TABLE(location_key text, location_name text, lng double precision, lat double precision, distance_km numeric, needs_km numeric)
    LANGUAGE sql STABLE SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    BEGIN ATOMIC
 SELECT r.location_key,
     r.location_name,
     r.lng,
     r.lat,
     r.distance_km,
     r.needs_km
    FROM tickets_ops.rejected_places(places_beyond_guard.p_cluster) r(location_key, location_name, lng, lat, distance_km, needs_km, fits);
END;

COMMENT ON FUNCTION tickets_ops.places_beyond_guard(p_cluster text) IS 'Where the rejected places of a cluster would be without its guard (at most 50, the last asked): the coordinate that the judge would take and its kilometres from the centroid, and in needs_km from which guard_km on one of its candidates is let in. Where many lie together, the centroid is probably the wrong one.';

CREATE FUNCTION tickets_ops.places_to_geocode(p_clusters text[] DEFAULT NULL::text[]) RETURNS TABLE(task text, cluster text, location_key text, location_name text, tickets bigint, newest_at timestamp with time zone, reason text, has_centroid boolean)
    LANGUAGE plpgsql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
#variable_conflict use_column
declare
  v_keys constant text[] := array(select tickets.cluster_key(name) from unnest(p_clusters) as name);
begin
  return query
    with places as materialized (
      select p.cluster_key, p.cluster, p.location_key, p.location_name, p.without_coordinates as tickets, least(p.newest_at, now()) as newest_at
      from tickets.open_places p
      where p.without_coordinates > 0 and (v_keys = '{}' or p.cluster_key = any (v_keys))
    ),
    clusters as (
      select
        p.cluster_key,
        -- As the gazetteers write it, else as its tickets do.
        coalesce(tickets.known_spelling(p.cluster_key), (array_agg(p.cluster order by p.tickets desc, p.cluster))[1]) as cluster,
        sum(p.tickets)::bigint as tickets, max(p.newest_at) as newest_at
      from places p group by p.cluster_key
    )
    select 'geocode_cluster', p.cluster, null::text, null::text, p.tickets, p.newest_at,
      case when c.fetched_at is null then 'never asked' else 'not found, due again' end,
      false
    from clusters p left join tickets.geo_clusters c on c.cluster = p.cluster
    where tickets_ops.is_due(c)
    union all
    select 'geocode_location', n.cluster, p.location_key, p.location_name, p.tickets, p.newest_at,
      case when l.cluster is null then 'never asked' when l.status = 'found' then 'expired' else l.status || ', due again' end,
      c.geom is not null
    from places p
    join clusters n on n.cluster_key = p.cluster_key
    left join tickets.geo_clusters c on c.cluster = n.cluster
    left join tickets.geo_locations l on l.cluster = n.cluster and l.location_key = p.location_key
    where p.location_key is not null
      and tickets_ops.is_due(l)
      -- Nobody knows where its cluster is, so nothing that is found could be checked.
      and not coalesce(tickets_ops.is_unresolvable(c), false)
    order by 1, 6 desc, 5 desc, 2, 3;
end
$$;

COMMENT ON FUNCTION tickets_ops.places_to_geocode(p_clusters text[]) IS 'Clusters and places of the actionable tickets of all datasets that are on (tickets.open_places) that are unknown or whose answer has expired, clusters first, then by newest ticket and number of tickets. p_clusters: only those. A place without has_centroid waits for its cluster; where that was asked in vain lately, or a person took its centroid away, it is not listed. Tickets with coordinates of their own, or without a cluster, need none.';

CREATE FUNCTION tickets_ops.places_together(p_points public.geometry[], p_centre public.geometry, p_guard_km numeric) RETURNS TABLE(places bigint, lng double precision, lat double precision, km numeric)
    LANGUAGE sql IMMUTABLE SECURITY DEFINER PARALLEL SAFE
    SET search_path TO 'pg_catalog', 'pg_temp'
    BEGIN ATOMIC
 SELECT count(*) AS count,
     avg(public.st_x(other.geom)) AS avg,
     avg(public.st_y(other.geom)) AS avg,
     round(avg(tickets_ops.distance_km(places_together.p_centre, other.geom))) AS round
    FROM (unnest(places_together.p_points) WITH ORDINALITY one(geom, no)
      JOIN unnest(places_together.p_points) other(geom) ON ((tickets_ops.distance_km(one.geom, other.geom) <= places_together.p_guard_km)))
   GROUP BY one.no
  HAVING (count(*) >= 3)
   ORDER BY (count(*)) DESC, one.no
  LIMIT 1;
END;

COMMENT ON FUNCTION tickets_ops.places_together(p_points public.geometry[], p_centre public.geometry, p_guard_km numeric) IS 'Of some points the most that lie within one guard of one of them, where that are three or more, else no row: how many, their mean coordinate, and their mean distance from p_centre in whole km.';

CREATE FUNCTION tickets_ops.plan_geocoding(p_clusters text[] DEFAULT NULL::text[]) RETURNS integer
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
declare
  v_planned integer;
begin
  -- Without a provider there is nobody to ask: tickets stay at their clusters, and tickets_ops.geocoding says why.
  if not exists (select from tickets_ops.geocoding_setup where provider is not null) then
    return 0;
  end if;
  perform pg_advisory_xact_lock(tickets_ops.planning_lock()); -- always after the gazetteers'
  with wanted as materialized (
    select
      p.*,
      case p.task
        when 'geocode_cluster' then tickets_ops.cluster_job_key(p.cluster)
        else tickets_ops.location_job_key(p.cluster, p.location_key)
      end as key,
      row_number() over (order by p.task, p.newest_at desc, p.tickets desc, p.cluster, p.location_key) as rank
    from tickets_ops.places_to_geocode(p_clusters) p
  ),
  revived as (
    -- A job that failed keeps its place's key; the place gets another chance a day later. Not what was given up: it would
    -- only fail again, but for what a person asked for, since what stood in its way may be gone.
    select tickets_ops.run_jobs_now(array_agg(j.id), p_attempts := 0) as jobs
    from tickets_ops.queued_jobs() j join wanted w on w.key = j.key
    where j.state = 'failed' and j.updated_at < now() - interval '1 day'
      and not (coalesce(j.flags ? 'given_up', false) and coalesce(tickets_ops.readable_payload(j.payload) ->> 'planned', '') = 'true')
  ),
  new as (
    -- A job that waits already keeps its turn, and what a person asked for keeps its priority.
    select w.* from wanted w where not exists (select from tickets_ops.queued_jobs() j where j.key = w.key)
  ),
  added as (
    select tickets_ops.enqueue_all(
      array_agg(n.task order by n.rank),
      array_agg(
        json_strip_nulls(json_build_object('location_name', n.location_name, 'cluster', n.cluster, 'planned', true)) order by n.rank
      ),
      array_agg(n.key order by n.rank),
      -- Microseconds keep the order. A place without a centroid is woken by tickets_ops.wake_locations.
      array_agg(
        case when n.task = 'geocode_location' and not n.has_centroid then now() + interval '1 day' else now() end
          - interval '1 second' + n.rank * interval '1 microsecond'
        order by n.rank
      ),
      -- Among places those with the newest tickets first, by the day.
      array_agg(
        policy.priority + case n.task
          when 'geocode_location' then least(9, floor(extract(epoch from now() - n.newest_at) / 86400))::integer
          else 0
        end
        order by n.rank
      )
    ) as jobs
    from new n join tickets_ops.job_policy() policy on policy.task = n.task
    having count(*) > 0
  )
  select coalesce((select jobs from added), 0) + (select jobs from revived) into v_planned;
  return v_planned;
end
$$;

COMMENT ON FUNCTION tickets_ops.plan_geocoding(p_clusters text[]) IS 'Adds one job per unknown or expired cluster and place of actionable tickets, of all datasets that are on, unless one waits already, and tries those again that failed a day ago; finalize_snapshot and fleettickets_maintain call it, and a centroid that comes, for its cluster (p_clusters). Returns how many. Call it with the gazetteer lock (tickets.gazetteer_lock) shared: a place planned while its centroid is being written would wait for it in vain. Does nothing without a provider.';

CREATE FUNCTION tickets_ops.plan_of_few(p_few integer, p_starts public.geography[], p_vehicle_teams text[], p_places public.geography[], p_bonuses double precision[], p_teams text[], p_km_per_metre double precision, p_radius double precision) RETURNS TABLE(vehicle integer, ticket integer)
    LANGUAGE plpgsql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET jit TO 'off'
    AS $$
declare
  c_bonus constant double precision := (select max(b) from unnest(p_bonuses) as b);
begin
  return query
    with list as materialized (
      select v.no, c.*
      from unnest(p_starts, p_vehicle_teams) with ordinality as v (start, team, no)
      cross join lateral tickets_ops.cheapest_tickets(
        v.start, v.team, p_few, p_km_per_metre, p_radius, c_bonus, p_places, p_teams, p_bonuses, null
      ) as c
    ),
    pair as (
      select
        array_agg(p.ticket order by l.no, p.nth) as tickets, array_agg(p.cost order by l.no, p.nth) as costs,
        tickets_ops.unmatched_cost(count(distinct l.no), min(p.cost), max(p.cost)) as unmatched
      from list l
      cross join lateral unnest(l.tickets, l.costs) with ordinality as p (ticket, cost, nth)
    ),
    bound as (
      select array_agg(b.last order by b.no) as lasts
      from (select l.no, (sum(cardinality(l.tickets)) over (order by l.no))::integer as last from list l) as b
    ),
    matched as materialized (
      select m.*
      from pair, bound
      cross join lateral tickets_ops.shortest_augmenting_paths(bound.lasts, pair.tickets, pair.costs, cardinality(p_places), pair.unmatched) as m
      where pair.tickets is not null
    )
    select v.no::integer, v.ticket
    from matched m
    cross join lateral unnest(m.column_of) with ordinality as v (ticket, no)
    where v.ticket > 0
      and not exists (select from list l where m.row_potential[l.no] > l.beyond);
end
$$;

COMMENT ON FUNCTION tickets_ops.plan_of_few(p_few integer, p_starts public.geography[], p_vehicle_teams text[], p_places public.geography[], p_bonuses double precision[], p_teams text[], p_km_per_metre double precision, p_radius double precision) IS 'The plan of tickets_ops.plan_optimum, whose arguments it has, from each vehicle''s p_few cheapest tickets; no rows where one from more of them may be better.';

CREATE FUNCTION tickets_ops.plan_of_many(p_starts public.geography[], p_vehicle_teams text[], p_places public.geography[], p_bonuses double precision[], p_teams text[], p_km_per_metre double precision, p_radius double precision) RETURNS TABLE(vehicle integer, ticket integer)
    LANGUAGE plpgsql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET jit TO 'off'
    AS $$
declare
  c_smaller constant integer := least(cardinality(p_starts), cardinality(p_places));
  c_bonus constant double precision := (select max(b) from unnest(p_bonuses) as b);
  v_listed integer := c_smaller + c_smaller / 8 + 16; -- by distances on a sphere some behind the n-th may be among the n cheapest
  c_apart constant double precision := (select max(tickets.metres(p_starts[1], start)) from unnest(p_starts) as start);
  v_far boolean[];
  v_pairs record;
begin
  -- Where vehicles stand together (in a depot) they want the same tickets. From the first one's place to theirs it is c_apart at
  -- most; so n tickets that all of them reach bound what any of them pays, and a ticket that is dearer than that is too far.
  with ticket as materialized (
    select t.no, line.metres, p_km_per_metre * line.metres - t.bonus_km as cost
    from unnest(p_places, p_bonuses) with ordinality as t (place, bonus_km, no)
    cross join lateral (select tickets.metres(p_starts[1], t.place) as metres offset 0) as line
  ),
  nth as (
    select t.cost from ticket t where p_teams is null and t.metres <= p_radius - c_apart order by t.cost offset greatest(c_smaller, 1) - 1 limit 1
  )
  select array_agg(coalesce(t.cost > nth.cost + 2 * p_km_per_metre * c_apart + 1e-6, false) order by t.no) into v_far
  from ticket t left join nth on true;
  loop
    select
      array_agg(v.no::integer) as vehicles, array_agg(p.ticket) as tickets, array_agg(p.cost) as costs,
      bool_and(p.cost <= c.beyond) as is_complete
    into v_pairs
    from unnest(p_starts, p_vehicle_teams) with ordinality as v (start, team, no)
    cross join lateral tickets_ops.cheapest_tickets(
      v.start, v.team, v_listed, p_km_per_metre, p_radius, c_bonus, p_places, p_teams, p_bonuses, v_far
    ) as c
    cross join lateral unnest(c.tickets, c.costs) with ordinality as p (ticket, cost, nth)
    where p.nth <= c_smaller;
    exit when v_pairs.is_complete is not false;
    v_listed := cardinality(p_places) + 1;
  end loop;
  return query
    select m.row_no, m.column_no from tickets_ops.min_cost_matching(v_pairs.vehicles, v_pairs.tickets, v_pairs.costs) as m;
end
$$;

COMMENT ON FUNCTION tickets_ops.plan_of_many(p_starts public.geography[], p_vehicle_teams text[], p_places public.geography[], p_bonuses double precision[], p_teams text[], p_km_per_metre double precision, p_radius double precision) IS 'The plan of tickets_ops.plan_optimum, whose arguments it has, from all tickets that may be in it.';

CREATE FUNCTION tickets_ops.plan_optimum(p_starts public.geography[], p_vehicle_teams text[], p_places public.geography[], p_bonuses double precision[], p_teams text[], p_km_per_metre double precision, p_radius double precision) RETURNS TABLE(vehicle integer, "position" integer, ticket integer, metres double precision, cost_km double precision)
    LANGUAGE plpgsql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET jit TO 'off'
    AS $$
declare
  c_few constant integer := 16;
  c_sample constant integer := 12;
  -- A few of the vehicles tell whether they are spread out: all in one depot want the same tickets.
  c_spread_out constant boolean := (
    select count(distinct wanted.no) >= 2 * c_sample
    from unnest(p_starts, p_vehicle_teams) with ordinality as v (start, team, no)
    cross join lateral tickets_ops.cheapest_tickets(
      v.start, v.team, c_few, p_km_per_metre, p_radius, 0, p_places, p_teams, p_bonuses, null
    ) as near
    cross join lateral unnest(near.tickets) as wanted (no)
    where v.no % (1 + cardinality(p_starts) / c_sample) = 0
  );
begin
  return query
    with few as materialized (
      select * from tickets_ops.plan_of_few(c_few, p_starts, p_vehicle_teams, p_places, p_bonuses, p_teams, p_km_per_metre, p_radius)
      where c_spread_out
    )
    select p.vehicle, 1, p.ticket, line.metres, p_km_per_metre * line.metres - p_bonuses[p.ticket]
    from (
      select * from few
      union all
      select * from tickets_ops.plan_of_many(p_starts, p_vehicle_teams, p_places, p_bonuses, p_teams, p_km_per_metre, p_radius)
      where not exists (select from few)
    ) as p
    cross join lateral (select tickets.metres(p_starts[p.vehicle], p_places[p.ticket]) as metres offset 0) as line;
end
$$;

COMMENT ON FUNCTION tickets_ops.plan_optimum(p_starts public.geography[], p_vehicle_teams text[], p_places public.geography[], p_bonuses double precision[], p_teams text[], p_km_per_metre double precision, p_radius double precision) IS 'The plan for one ticket each, vehicles and tickets by their number in the arrays: as many tickets as possible, then the least total cost_km. p_vehicle_teams, p_teams: NULL where teams do not matter. p_radius: metres, the longest way. Called by tickets.dispatch_plan.';

CREATE FUNCTION tickets_ops.planning_lock() RETURNS bigint
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN '7405120260616'::bigint;

COMMENT ON FUNCTION tickets_ops.planning_lock() IS 'Key of the advisory lock of transactions that plan geocoding: two at once would add jobs of the same places in two orders, and each wait for the other.';

CREATE FUNCTION tickets_ops.pools_with_work() RETURNS TABLE(pool_id text, locked_at timestamp with time zone)
    LANGUAGE sql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
  select locked_by, max(locked_at)
  from (
    select locked_by, locked_at from graphile_worker._private_jobs where locked_by is not null
    union all
    select locked_by, locked_at from graphile_worker._private_job_queues where locked_by is not null
  ) as locked
  group by locked_by
$$;

COMMENT ON FUNCTION tickets_ops.pools_with_work() IS 'Worker pools that hold a job or a queue; where the schema is shared, those of the other application too.';

CREATE FUNCTION tickets_ops.problem_subjects() RETURNS SETOF text
    LANGUAGE sql IMMUTABLE ROWS 9 PARALLEL SAFE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
  select unnest(array['workers', 'feed', 'snapshots', 'jobs', 'locks', 'geocoding', 'settings', 'vehicles', 'alerts'])
$$;

COMMENT ON FUNCTION tickets_ops.problem_subjects() IS 'What a problem can be about, the most urgent first.';

CREATE FUNCTION tickets_ops.put_back(p_snapshot_id bigint, p_from text) RETURNS void
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
begin
  update tickets_ops.snapshots s
  set status = 'superseded', error = 'Reading it broke off on attempt ' || attempt, attempt = attempt + 1,
    rows_read = 0, rows_duplicate = 0, rows_dropped_alarm = 0, rows_dropped_sentinel = 0, rows_rejected = 0, rejects_kept = 0, rows_repaired = 0
  where snapshot_id = p_snapshot_id and status = p_from
    -- A failed file may have been looked at once more and passed over.
    and not (p_from = 'failed' and tickets_ops.is_passed_over_elsewhere(s));
  if found then
    delete from tickets_ops.snapshot_rows where snapshot_id = p_snapshot_id;
    delete from tickets_ops.snapshot_rejects where snapshot_id = p_snapshot_id;
  end if;
end
$$;

COMMENT ON FUNCTION tickets_ops.put_back(p_snapshot_id bigint, p_from text) IS 'A snapshot whose reading broke off is to be read again: from staging or failed (the state it must be in, else nothing happens) to superseded, which a look takes. The new attempt number shuts out the reader that was cut off; its last statement may still be running, so the rows are wiped by later statements, which see what that one wrote.';

CREATE FUNCTION tickets_ops.raise_blocked() RETURNS void
    LANGUAGE plpgsql STABLE SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
declare
  v_blockers text := (
    select string_agg(distinct format('process %s of user %s, %s since %s: %s', a.pid, a.usename, a.state, tickets_ops.wall_clock(a.state_change), left(a.query, 200)), '; ')
    from pg_locks l
    join pg_stat_activity a using (pid)
    left join pg_class c on c.oid = l.relation and l.locktype = 'relation'
    where l.granted and a.pid <> pg_backend_pid() and a.datname = current_database()
      and (
        (c.relnamespace in ('tickets'::regnamespace, 'tickets_ops'::regnamespace, to_regnamespace('graphile_migrate')) or c.relname = '_private_jobs')
          and l.mode in ('RowShareLock', 'RowExclusiveLock', 'ShareRowExclusiveLock', 'ExclusiveLock', 'AccessExclusiveLock')
        or l.locktype = 'advisory' and l.objsubid = 1
          and (l.classid::bigint << 32) + l.objid::bigint in (tickets.gazetteer_lock(), tickets_ops.dispatch_lock())
      )
  );
begin
  if v_blockers is null then
    raise exception 'Others kept this waiting, so it was given up. They have ended meanwhile.'
      using errcode = 'lock_not_available', hint = 'Try again.';
  end if;
  raise exception 'Others keep this waiting, so it was given up: %.', v_blockers
    using errcode = 'lock_not_available', hint = 'Let them end their transaction, or end it: select pg_terminate_backend(process). Then try again.';
end
$$;

COMMENT ON FUNCTION tickets_ops.raise_blocked() IS 'Raises lock_not_available, and names the sessions that hold locks on what is ours: for a person who waited for one too long.';

CREATE FUNCTION tickets_ops.read_dataset_health(p_dataset text) RETURNS TABLE(checked_at timestamp with time zone, checked_age interval, checked_key text, checked_status text, loaded_snapshot_id bigint, loaded_key text, loaded_at timestamp with time zone, loaded_age interval, loaded_status text, data_at timestamp with time zone, data_age interval, open_missing bigint, in_flight_snapshot_id bigint, in_flight_status text, in_flight_idle interval, missed_run_at timestamp with time zone, next_run_at timestamp with time zone)
    LANGUAGE sql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
  with clock as (
    select date_trunc('second', now()) as now
  ),
  meta as (
    select
      max(tickets.eat_ts(metadata ->> 'checked_at')) as checked_at,
      max(tickets.eat_ts(metadata ->> 'snapshot_at')) as data_at
    from tickets.import_meta where dataset = p_dataset
  ),
  looked as (
    select source_key, status from tickets_ops.snapshots where dataset = p_dataset order by progress_at desc, snapshot_id desc limit 1
  ),
  in_flight as (
    select snapshot_id, status, progress_at
    from tickets_ops.snapshots where dataset = p_dataset and in_flight -- index snapshots_one_in_flight
  )
  select
    meta.checked_at, clock.now - date_trunc('second', meta.checked_at), looked.source_key, looked.status,
    loaded.snapshot_id, loaded.source_key, loaded.loaded_at, clock.now - date_trunc('second', loaded.loaded_at), loaded.status,
    meta.data_at, clock.now - meta.data_at, loaded.open_missing,
    in_flight.snapshot_id, in_flight.status, clock.now - date_trunc('second', in_flight.progress_at),
    tickets_ops.missed_run(p_dataset), tickets_ops.next_scheduled_run(clock.now, p_dataset)
  from clock, meta
  left join looked on true left join tickets_ops.last_loaded(p_dataset) as loaded on true left join in_flight on true
$$;

COMMENT ON FUNCTION tickets_ops.read_dataset_health(p_dataset text) IS 'What tickets_ops.health says of the files of a dataset (inc, crq), one row.';

CREATE FUNCTION tickets_ops.read_datasets() RETURNS TABLE(dataset text, feed text, open_tickets bigint, checked_at timestamp with time zone, checked_key text, checked_status text, loaded_snapshot_id bigint, loaded_key text, loaded_at timestamp with time zone, loaded_status text, data_at timestamp with time zone, data_age interval, open_missing bigint, in_flight_snapshot_id bigint, in_flight_status text, in_flight_idle interval, missed_run_at timestamp with time zone, next_run_at timestamp with time zone)
    LANGUAGE sql STABLE SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
  select
    d.dataset, tickets_ops.feed(d.dataset),
    case d.dataset -- partial indexes *_open
      when 'inc' then (select count(*) from tickets.inc where is_actionable)
      else (select count(*) from tickets.crq where is_actionable)
    end,
    h.checked_at, h.checked_key, h.checked_status, h.loaded_snapshot_id, h.loaded_key, h.loaded_at, h.loaded_status, h.data_at, h.data_age,
    h.open_missing, h.in_flight_snapshot_id, h.in_flight_status, h.in_flight_idle, h.missed_run_at, h.next_run_at
  from tickets.datasets() as d (dataset) cross join lateral tickets_ops.read_dataset_health(d.dataset) as h
$$;

COMMENT ON FUNCTION tickets_ops.read_datasets() IS 'The rows of tickets_ops.datasets, read with the owner''s rights.';

CREATE FUNCTION tickets_ops.read_health() RETURNS TABLE(ok boolean, problems text[], checked_at timestamp with time zone, checked_age interval, checked_key text, checked_status text, loaded_snapshot_id bigint, loaded_key text, loaded_at timestamp with time zone, loaded_age interval, loaded_status text, data_at timestamp with time zone, data_age interval, open_missing bigint, in_flight_snapshot_id bigint, in_flight_status text, in_flight_idle interval, missed_run_at timestamp with time zone, next_run_at timestamp with time zone, jobs_waiting bigint, oldest_waiting_age interval, jobs_running bigint, jobs_failed bigint, workers_alive bigint, workers_unsure bigint, geocoding_state text, geocoding_budget_left integer, geocoding_jobs bigint, places_for_review bigint)
    LANGUAGE sql STABLE SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
  with clock as (
    select date_trunc('second', now()) as now
  ),
  problem as (
    select coalesce(bool_and(severity = 'warning'), true) as ok, coalesce(array_agg(initcap(severity) || ': ' || problem), '{}') as problems
    from tickets_ops.list_problems()
  ),
  jobs as (
    select
      count(*) filter (where state in ('ready', 'retrying') and run_at <= clock.now) as waiting,
      min(run_at) filter (where state in ('ready', 'retrying') and run_at <= clock.now) as oldest,
      count(*) filter (where state = 'running') as running,
      count(*) filter (where state <> 'failed' and tickets_ops.is_geocoding(task)) as geocoding
    from clock, tickets_ops.queued_jobs()
  ),
  failed as (
    select count(*) as jobs from tickets_ops.described_jobs() where state = 'failed' and superseded is null
  ),
  workers as (
    select
      count(*) as alive,
      count(*) filter (where w.state = 'unsure') as unsure
    from tickets_ops.worker_states() w
    where tickets_ops.is_living(w.state, w.seen_at)
  ),
  geocoding as (
    select state, left_today from tickets_ops.geocoding where active limit 1
  ),
  -- As tickets_ops.review_queue has them (a test holds the two equal). Not read from it: it counts tickets, and health answers
  -- while somebody holds their table.
  review as (
    select (
      select count(*) from tickets.geo_clusters c where c.suspicious or tickets_ops.is_far_from_its_places(c.cluster)
    ) + (select count(*) from tickets.geo_locations l where l.status = 'needs_review' and not l.verified) as places
  )
  select
    problem.ok, problem.problems,
    inc.checked_at, inc.checked_age, inc.checked_key, inc.checked_status,
    inc.loaded_snapshot_id, inc.loaded_key, inc.loaded_at, inc.loaded_age, inc.loaded_status,
    inc.data_at, inc.data_age, inc.open_missing,
    inc.in_flight_snapshot_id, inc.in_flight_status, inc.in_flight_idle,
    inc.missed_run_at, inc.next_run_at,
    jobs.waiting, clock.now - date_trunc('second', jobs.oldest), jobs.running, failed.jobs,
    workers.alive, workers.unsure,
    geocoding.state, geocoding.left_today::integer, jobs.geocoding, review.places
  from clock, problem, tickets_ops.read_dataset_health('inc') as inc, jobs, failed, workers, review left join geocoding on true
$$;

COMMENT ON FUNCTION tickets_ops.read_health() IS 'The row of tickets_ops.health, read with the owner''s rights.';

CREATE FUNCTION tickets_ops.read_metrics() RETURNS TABLE(name text, labels jsonb, value double precision, kind text, help text)
    LANGUAGE sql STABLE SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET jit TO 'off'
    AS $$
  select 'fleettickets_' || h.name, m.labels, m.value, 'gauge', h.help
  from (
    select * from tickets_ops.health_metrics()
    union all select m.* from tickets.datasets() as d (dataset) cross join lateral tickets_ops.dataset_metrics(d.dataset) as m
    union all select * from tickets_ops.job_metrics()
    union all select * from tickets_ops.geocoding_metrics()
    union all select * from tickets_ops.ticket_metrics()
    union all select * from tickets_ops.vehicle_metrics()
    union all select * from tickets_ops.storage_metrics()
  ) as m
  join tickets_ops.metric_help() h on h.name = m.name
  order by h.place, m.labels
$$;

COMMENT ON FUNCTION tickets_ops.read_metrics() IS 'The rows of tickets_ops.metrics, read with the owner''s rights.';

CREATE FUNCTION tickets_ops.reason(p_snapshot tickets_ops.snapshots) RETURNS text
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
  select coalesce(p_snapshot.error, p_snapshot.broken_off, case when p_snapshot.status = 'held' then p_snapshot.hold_reason end)
$$;

COMMENT ON FUNCTION tickets_ops.reason(p_snapshot tickets_ops.snapshots) IS 'Why a snapshot failed, is partial, held or was passed over, in words. NULL where all is well.';

CREATE FUNCTION tickets_ops.rebuild_days() RETURNS integer
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
declare
  v_rows integer;
begin
  with looks as (
    select tickets.eat_day(s.snapshot_at) as day, max(s.snapshot_at) as snapshot_at
    from (
      -- Closings that a takeover imported tell nothing of what else was open then.
      select e.snapshot_at from tickets.inc_events e where e.snapshot_at is not null and e.snapshot_id is distinct from 0
      union all
      select l.snapshot_at from tickets_ops.snapshots l where l.dataset = 'inc' and tickets_ops.counts_as_loaded(l.status)
    ) as s
    where tickets.eat_day(s.snapshot_at) < coalesce((select min(d.day) from tickets.inc_daily d), 'infinity')
    group by 1
  ),
  lifecycle as (
    select
      e.ticket_id, e.event, e.event_id, e.old_value, e.cluster, e.region, e.assigned_team,
      tickets.eat_day(coalesce(e.snapshot_at, e.recorded_at)) as day,
      lead(e.event) over history as next_event, lead(tickets.eat_day(e.snapshot_at)) over history as next_day
    from tickets.inc_events e
    where e.event in ('baseline', 'opened', 'closed', 'reopened')
    window history as (partition by e.ticket_id order by e.event_id)
  ),
  spells as (
    select l.*, coalesce(l.next_day, (select max(k.day) + 1 from looks k)) - l.day as days
    from lifecycle l
    where l.event in ('opened', 'reopened') or (l.event = 'baseline' and tickets.baseline_was_open(
      l.next_event, (select t.is_actionable from tickets.inc t where t.ticket_id = l.ticket_id)
    ))
  ),
  told as (
    select k.day, coalesce(cluster.name, s.cluster) as cluster, s.region, coalesce(team.name, s.assigned_team) as assigned_team, 'open' as what
    from spells s
    cross join generate_series(0, s.days - 1) as nth
    join looks k on k.day = s.day + nth
    left join lateral (
      select coalesce(tickets.name_in_history(e.new_value), '') as name from tickets.inc_events e -- index inc_events_ticket
      where e.ticket_id = s.ticket_id and e.event_id > s.event_id and e.event = 'team_changed' and tickets.eat_day(e.snapshot_at) <= k.day
      order by e.event_id desc limit 1
    ) as team on true
    left join lateral (
      select coalesce(tickets.name_in_history(e.new_value), '') as name from tickets.inc_events e -- index inc_events_ticket
      where e.ticket_id = s.ticket_id and e.event_id > s.event_id and e.event = 'cluster_changed' and tickets.eat_day(e.snapshot_at) <= k.day
      order by e.event_id desc limit 1
    ) as cluster on true
    union all
    select l.day, l.cluster, l.region, l.assigned_team, l.event
    from lifecycle l where tickets.changed_backlog(l.event, l.old_value)
    union all
    select k.day, null, null, null, 'look' from looks k
  ),
  clusters as (
    select t.day, tickets.cluster_key(t.cluster) as cluster_key, mode() within group (order by t.cluster) as spelling
    from told t group by 1, 2
  )
  insert into tickets.inc_daily (day, cluster, region, assigned_team, open, opened, reopened, closed, snapshot_at, source)
  select
    k.day, coalesce(c.spelling, ''), coalesce(t.region, ''), coalesce(t.assigned_team, ''),
    count(*) filter (where t.what = 'open'), count(*) filter (where t.what = 'opened'),
    count(*) filter (where t.what = 'reopened'), count(*) filter (where t.what = 'closed'), k.snapshot_at, 'events'
  from told t join looks k on k.day = t.day
  left join clusters c on c.day = t.day and c.cluster_key = tickets.cluster_key(t.cluster)
  group by 1, 2, 3, 4, k.snapshot_at;
  get diagnostics v_rows = row_count;
  return v_rows;
end
$$;

COMMENT ON FUNCTION tickets_ops.rebuild_days() IS 'Writes the days before the first one of tickets.inc_daily, as history tells them: without SLA states and ages, which it does not tell. For an upgrade and for an imported history, before the next look at the bucket. Returns how many rows it wrote.';

CREATE FUNCTION tickets_ops.rebuild_location_keys() RETURNS TABLE(tickets_changed bigint, places_changed bigint, places_merged bigint)
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
declare
  v_before boolean;
  v_places tickets.geo_locations[];
  v_dataset text;
  v_rows bigint;
begin
  -- Alone: a batch that is being written would bring tickets with the old key, and a verdict a place with it.
  perform pg_advisory_xact_lock(tickets.gazetteer_lock());

  -- The places that get another key, and those that have that key already: of each such group one stays.
  with keyed as (
    select l as place, l.cluster, l.location_key,
      -- A name of which only codes are left now keeps its key: no ticket asks for it, and what a person verified is not lost.
      coalesce(tickets.location_key(coalesce(l.location_name, l.location_key)), l.location_key) as new_key
    from tickets.geo_locations l
  ),
  changing as (
    select cluster, new_key from keyed group by cluster, new_key having bool_or(location_key <> new_key)
  )
  select array_agg(k.place), count(*) filter (where k.location_key <> k.new_key)
  into v_places, places_changed
  from keyed k join changing using (cluster, new_key);

  -- As the pipeline: moving a row does not verify it.
  v_before := tickets_ops.as_pipeline(true);
  delete from tickets.geo_locations l
  using unnest(v_places) as p
  where l.cluster = p.cluster and l.location_key = p.location_key;
  insert into tickets.geo_locations
  select (jsonb_populate_record(
    chosen.place, jsonb_build_object('location_key', chosen.new_key, 'note', nullif(concat_ws(' ', (chosen.place).note, chosen.others), ''))
  )).*
  from (
    select distinct on (p.cluster, key.new_key) p as place, key.new_key,
      -- Of two that a person verified, the other stays readable.
      string_agg(
        case when p.verified then format('Verified under the key %s: %s.', p.location_key, coalesce((p.geom::point)::text, 'no coordinate')) end,
        ' '
      ) over (
        partition by p.cluster, key.new_key order by p.verified desc, p.status = 'found' desc, p.updated_at desc, p.location_key
        rows between 1 following and unbounded following
      ) as others
    from unnest(v_places) as p
    cross join lateral (
      select coalesce(tickets.location_key(coalesce(p.location_name, p.location_key)), p.location_key) as new_key
    ) as key
    order by p.cluster, key.new_key, p.verified desc, p.status = 'found' desc, p.updated_at desc, p.location_key
  ) as chosen;
  get diagnostics v_rows = row_count;
  places_merged := coalesce(cardinality(v_places), 0) - v_rows;
  perform tickets_ops.as_pipeline(v_before);

  -- Writing raw makes its generated columns anew, their indexes follow, and triggers place the tickets. No view that uses the
  -- column is in the way, as it would be of dropping it.
  tickets_changed := 0;
  foreach v_dataset in array array['inc', 'crq'] loop
    execute format(
      'update tickets.%I set raw = raw where location_key is distinct from tickets.location_key(raw ->> ''location_name'')', v_dataset
    );
    get diagnostics v_rows = row_count;
    tickets_changed := tickets_changed + v_rows;
  end loop;
  return next;
end
$$;

COMMENT ON FUNCTION tickets_ops.rebuild_location_keys() IS 'Makes tickets.inc.location_key, tickets.crq.location_key and the keys of tickets.geo_locations anew by the present tickets.location_key, and places the tickets again: select * from tickets_ops.rebuild_location_keys(). Where two places fall together a verified one stays, else a found one, else the one written last; the coordinate of another verified one goes to its note. Returns how many tickets and places got another key and how many places were merged into another. Blocks loads and geocoding until the transaction ends.';

CREATE FUNCTION tickets_ops.record_answer(p_provider text, p_slot_at timestamp with time zone, p_found boolean, p_is_control boolean) RETURNS timestamp with time zone
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
declare
  -- At most three questions a place: some four places in a row. The control question costs one call, so it may come early.
  c_suspected_after constant integer := 10;
  c_suspected constant interval := '10 minutes';
  v_provider tickets_ops.geocoding_providers;
begin
  update tickets_ops.geocoding_providers
  set
    consecutive_nothing = case when p_found then 0 else consecutive_nothing + 1 end,
    found_at = case when p_found then clock_timestamp() else found_at end
  where provider = p_provider
  returning * into v_provider;
  -- An answer to a call that was made before the breaker opened proves nothing.
  if v_provider.breaker_since > p_slot_at then
    return v_provider.breaker_until;
  elsif not p_found and p_is_control then
    return tickets_ops.open_breaker(
      v_provider, 'suspected',
      format('%s finds nothing any more, not even Nairobi. What it did not find is asked again.', p_provider),
      clock_timestamp() + c_suspected
    );
  elsif not p_found and v_provider.consecutive_nothing >= c_suspected_after then
    -- Open, and its time is over at once: the next call is the control question.
    return tickets_ops.open_breaker(
      v_provider, 'suspected', format('%s found nothing %s times in a row', p_provider, v_provider.consecutive_nothing), clock_timestamp()
    );
  elsif v_provider.breaker is not null or v_provider.consecutive_failures > 0 or p_is_control then
    update tickets_ops.geocoding_providers
    set breaker = null, breaker_reason = null, breaker_since = null, breaker_until = null, probing_until = null,
      consecutive_failures = 0, last_failed_place = null
    where provider = p_provider;
  end if;
  return null;
end
$$;

COMMENT ON FUNCTION tickets_ops.record_answer(p_provider text, p_slot_at timestamp with time zone, p_found boolean, p_is_control boolean) IS 'An answer came, with a place or without: closes the breaker, or opens it for a provider that finds nothing any more. Only for tickets_ops.record_geocoding_call.';

CREATE FUNCTION tickets_ops.record_baselines(p_dataset text, p_snapshot_id bigint, p_snapshot_at timestamp with time zone, p_only_noted boolean DEFAULT false) RETURNS bigint
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $_$
declare
  v_ids text[];
  v_written bigint;
begin
  with noted as (
    delete from tickets_ops.unrecorded_tickets where dataset = p_dataset returning ticket_id -- primary key
  )
  select array_agg(ticket_id) into v_ids from noted;
  if not p_only_noted then
    -- An anti-join of two indexes: the primary key and *_events_ticket.
    execute format(
      'select array_agg(t.ticket_id) from tickets.%I t where not exists (select from tickets.%I e where e.ticket_id = t.ticket_id)',
      p_dataset, p_dataset || '_events'
    ) into v_ids;
  end if;
  if v_ids is null then
    return 0;
  end if;
  -- Loads and the sweep may be at the same tickets: who locks them, in ticket_id order as a load does, looks at their history
  -- in a statement of its own, which sees what the other has committed meanwhile.
  execute format('select from tickets.%I where ticket_id = any ($1) order by ticket_id for no key update', p_dataset) using v_ids;
  execute format($sql$
    insert into tickets.%1$I (
      ticket_id, event, new_value, snapshot_id, snapshot_at, assigned_team, owner, cluster, region, created_at_service, closed_at, mttr, sla_status
    )
    select
      t.ticket_id, 'baseline', t.normalized_status, $1, $2,
      tickets.name_in_history(t.assigned_team), t.owner, tickets.name_in_history(t.cluster), tickets.name_in_history(t.region),
      t.created_at_service, t.closed_at, t.mttr, t.sla_status
    from tickets.%2$I t
    where t.ticket_id = any ($3) and not exists (select from tickets.%1$I e where e.ticket_id = t.ticket_id) -- index *_events_ticket
    order by t.ticket_id
  $sql$, p_dataset || '_events', p_dataset) using p_snapshot_id, p_snapshot_at, v_ids;
  get diagnostics v_written = row_count;
  return v_written;
end
$_$;

COMMENT ON FUNCTION tickets_ops.record_baselines(p_dataset text, p_snapshot_id bigint, p_snapshot_at timestamp with time zone, p_only_noted boolean) IS 'Gives every ticket of a dataset that has no history a `baseline`: those of a takeover, and rows that somebody wrote past the pipeline. p_only_noted: only those whose insert was noted, without looking through the others. Returns how many.';

CREATE FUNCTION tickets_ops.record_day(p_dataset text DEFAULT 'inc'::text) RETURNS void
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
declare
  v_at timestamptz := (tickets_ops.high_water_mark(p_dataset)).snapshot_at;
  v_day date := tickets.eat_day(v_at);
  v_since timestamptz;
begin
  if p_dataset <> 'inc' or v_at is null then
    return;
  end if;
  -- Two looks at once take turns: what follows sees what the one before it wrote.
  perform pg_advisory_xact_lock(tickets_ops.day_lock());
  select coalesce(tickets.eat_midnight(max(d.day) + 1), '-infinity') into v_since from tickets.inc_daily d where d.day < v_day;
  delete from tickets.inc_daily d where d.day = v_day;
  with told as (
    select w.*, tickets.cluster_key(w.cluster) as cluster_key
    from (
      select
        tickets.name_in_history(t.cluster) as cluster, tickets.name_in_history(t.region) as region,
        tickets.name_in_history(t.assigned_team) as assigned_team, 'open' as what, sla.sla_state, sla.at_risk, tickets.age_bucket(sla.hours_open) as age
      from tickets.inc t -- index inc_open
      cross join lateral tickets.sla(t.region, t.created_at_service, t.first_seen_at, v_at) as sla
      where t.is_actionable
      union all
      -- Since the last day that has rows: what a snapshot wrote that was never completed belongs to the next look.
      select e.cluster, e.region, e.assigned_team, e.event, null, null, null
      from tickets.inc_events e -- index inc_events_backlog
      where e.snapshot_at >= v_since and e.snapshot_at < tickets.eat_midnight(v_day + 1)
        and tickets.changed_backlog(e.event, e.old_value)
      union all
      select null, null, null, 'look', null, null, null
    ) as w
  ),
  clusters as (
    select cluster_key, mode() within group (order by cluster) as spelling from told group by 1
  )
  insert into tickets.inc_daily (
    day, cluster, region, assigned_team, open, open_breached, open_at_risk, open_unknown,
    aged_0_24h, aged_24_48h, aged_2_7d, aged_7_30d, aged_over_30d, opened, reopened, closed, snapshot_at, source
  )
  select
    v_day, coalesce(k.spelling, ''), coalesce(c.region, ''), coalesce(c.assigned_team, ''),
    count(*) filter (where c.what = 'open'),
    count(*) filter (where c.sla_state = 'breached'), count(*) filter (where c.at_risk), count(*) filter (where c.sla_state = 'unknown'),
    count(*) filter (where c.age in (0, 1)), count(*) filter (where c.age = 2), count(*) filter (where c.age = 3),
    count(*) filter (where c.age = 4), count(*) filter (where c.age = 5),
    count(*) filter (where c.what = 'opened'), count(*) filter (where c.what = 'reopened'), count(*) filter (where c.what = 'closed'),
    v_at, 'state'
  from told c
  left join clusters k on k.cluster_key = c.cluster_key
  group by 2, 3, 4;
end
$$;

COMMENT ON FUNCTION tickets_ops.record_day(p_dataset text) IS 'Writes the day of the newest snapshot to tickets.inc_daily: what is open now, with its SLA and age as of the snapshot''s own time, and what entered and left the backlog. Called in the transaction that ends a look at the bucket: a snapshot completed, failed half-way, or found unchanged. Twice is as good as once; days before it are never touched. INC only: does nothing for another dataset, or before the first load.';

CREATE FUNCTION tickets_ops.record_decisions() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET "TimeZone" TO 'UTC'
    AS $$
declare
  v_before jsonb[];
  v_after jsonb[];
begin
  if tickets_ops.is_pipeline() then
    return null;
  end if;
  -- An event names only the transition tables that it has. A geometry would become GeoJSON, which rounds.
  if tg_op <> 'INSERT' then
    v_before := array(select to_jsonb(b) || jsonb_build_object('geom', b.geom::text) from before b);
  end if;
  if tg_op <> 'DELETE' then
    v_after := array(select to_jsonb(a) || jsonb_build_object('geom', a.geom::text) from after a);
  end if;
  insert into tickets.geo_decisions (decided_by, kind, cluster, location_key, decision, before, after, tickets_moved, undoes)
  select
    tickets_ops.person(), case when place.location_key is null then 'cluster' else 'location' end, place.cluster, place.location_key,
    tickets_ops.decision_of(b.whole, a.whole), b.whole - place.left_out, a.whole - place.left_out,
    (
      select coalesce(sum(m.tickets), 0)
      from jsonb_to_recordset(tickets_ops.moves()) as m (cluster_key text, location_key text, tickets bigint)
      where m.cluster_key = tickets.cluster_key(place.cluster) and (place.location_key is null or m.location_key = place.location_key)
    ),
    tickets_ops.undoing()
  from unnest(v_before) as b (whole)
  full join unnest(v_after) as a (whole)
    on b.whole ->> 'cluster' = a.whole ->> 'cluster'
    and coalesce(b.whole ->> 'location_key', '') = coalesce(a.whole ->> 'location_key', '')
  cross join lateral (
    select
      coalesce(a.whole, b.whole) ->> 'cluster' as cluster,
      coalesce(a.whole, b.whole) ->> 'location_key' as location_key,
      case when a.whole -> 'candidates' = b.whole -> 'candidates' then 'candidates' else '' end as left_out
  ) as place
  where b.whole - 'updated_at' is distinct from a.whole - 'updated_at'
  order by place.cluster, place.location_key;
  return null;
end
$$;

COMMENT ON FUNCTION tickets_ops.record_decisions() IS 'Trigger after a person''s write of a gazetteer: appends what changed to tickets.geo_decisions, with the tickets that moved by it.';

CREATE FUNCTION tickets_ops.record_failure(p_provider text, p_outcome text, p_reason text, p_retry_seconds double precision, p_place text) RETURNS timestamp with time zone
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
declare
  c_refused constant interval := '10 minutes';
  c_pause constant double precision := 60;
  c_longest_pause constant double precision := 900;
  -- One failure may be chance, and calls in flight together fail together; so many places in a row are trouble.
  c_trouble_after constant integer := 5;
  v_provider tickets_ops.geocoding_providers;
  v_failures integer;
  v_breaker text;
begin
  select * into v_provider from tickets_ops.geocoding_providers where provider = p_provider for update;
  v_failures := v_provider.consecutive_failures
    + (v_provider.breaker is not null or v_provider.last_failed_place is distinct from p_place)::integer;
  update tickets_ops.geocoding_providers
  set consecutive_failures = v_failures, last_failed_place = p_place
  where provider = p_provider;
  -- A request that is refused as a bad one is the question's fault; a run of them is ours, or the provider has changed.
  v_breaker := case
    when p_outcome = 'quota_spent' then 'quota spent'
    when p_outcome = 'key_refused' then 'key refused'
    when p_outcome = 'rate_limited' then 'rate limited'
    when v_provider.breaker is not null or v_failures >= c_trouble_after or p_retry_seconds is not null then 'trouble'
  end;
  if v_breaker is null then
    return null;
  end if;
  return tickets_ops.open_breaker(v_provider, v_breaker, p_reason, case
    when p_outcome = 'quota_spent' and p_retry_seconds is null then tickets_ops.next_utc_midnight()
    when p_outcome = 'quota_spent' then clock_timestamp() + make_interval(secs => p_retry_seconds)
    when p_outcome = 'key_refused' then clock_timestamp() + c_refused
    else clock_timestamp() + make_interval(secs => greatest(
      coalesce(p_retry_seconds, c_pause),
      least(c_longest_pause, coalesce(p_retry_seconds, c_pause) * 2 ^ least(greatest(v_failures - 1 - c_trouble_after, 0), 20))
    ))
  end);
end
$$;

COMMENT ON FUNCTION tickets_ops.record_failure(p_provider text, p_outcome text, p_reason text, p_retry_seconds double precision, p_place text) IS 'A call came to no answer: counts it, of one place once, and opens the breaker where that says something about the provider. Only for tickets_ops.record_geocoding_call.';

CREATE FUNCTION tickets_ops.record_geocoding_call(p_provider text, p_slot_at timestamp with time zone, p_outcome text, p_reason text, p_retry_seconds double precision, p_cluster text, p_location_key text, p_query text, p_candidates jsonb) RETURNS timestamp with time zone
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
declare
  v_is_answer constant boolean := p_outcome in ('found', 'not_found');
  v_is_control constant boolean := p_cluster is null;
begin
  insert into tickets_ops.geocoding_calls as c (provider, called_on, outcome, calls)
  values (p_provider, (clock_timestamp() at time zone 'UTC')::date, p_outcome, 1)
  on conflict (provider, called_on, outcome) do update set calls = c.calls + 1;

  if not v_is_answer then
    return tickets_ops.record_failure(p_provider, p_outcome, p_reason, p_retry_seconds, p_cluster || ':' || p_location_key);
  end if;
  if not v_is_control then
    insert into tickets_ops.geocoding_answers (cluster, location_key, query, provider, candidates)
    values (p_cluster, p_location_key, p_query, p_provider, coalesce(p_candidates, '[]'))
    on conflict (cluster, location_key, query)
    do update set provider = excluded.provider, candidates = excluded.candidates, answered_at = now();
  end if;
  return tickets_ops.record_answer(p_provider, p_slot_at, p_outcome = 'found', v_is_control);
end
$$;

COMMENT ON FUNCTION tickets_ops.record_geocoding_call(p_provider text, p_slot_at timestamp with time zone, p_outcome text, p_reason text, p_retry_seconds double precision, p_cluster text, p_location_key text, p_query text, p_candidates jsonb) IS 'Writes down what a call came to: counts it, opens or closes the breaker, keeps the candidates of an answer. p_slot_at: of its reservation. p_retry_seconds: when the provider said it may be asked again. p_cluster NULL: it was the control question. Returns when the next call may be tried, NULL when the breaker is closed.';

CREATE FUNCTION tickets_ops.record_schedule(p_entries jsonb) RETURNS void
    LANGUAGE sql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
  delete from tickets_ops.schedule
  where identifier not in (select entry ->> 'identifier' from jsonb_array_elements(p_entries) as entry);
  insert into tickets_ops.schedule as known (identifier, task, dataset, minutes, hours, dates, months, weekdays)
  select identifier, task, dataset, minutes, hours, dates, months, weekdays
  from jsonb_populate_recordset(null::tickets_ops.schedule, p_entries)
  on conflict (identifier) do update set
    task = excluded.task, dataset = excluded.dataset, minutes = excluded.minutes, hours = excluded.hours, dates = excluded.dates,
    months = excluded.months, weekdays = excluded.weekdays, since = now()
  where (known.task, known.dataset, known.minutes, known.hours, known.dates, known.months, known.weekdays)
    is distinct from
    (excluded.task, excluded.dataset, excluded.minutes, excluded.hours, excluded.dates, excluded.months, excluded.weekdays);
$$;

COMMENT ON FUNCTION tickets_ops.record_schedule(p_entries jsonb) IS 'A worker that starts records the entries of its crontab: an array of objects with the columns of tickets_ops.schedule but `since`. Entries that are not among them are forgotten.';

CREATE FUNCTION tickets_ops.record_settings(p_pool_id text, p_settings jsonb) RETURNS void
    LANGUAGE sql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
  -- Of a process that is forgotten only what still stands is kept.
  delete from tickets_ops.settings s
  where s.pool_id not in (select w.pool_id from tickets_ops.workers w)
    and exists (select from tickets_ops.settings n where n.name = s.name and n.recorded_at > s.recorded_at);
  insert into tickets_ops.settings (name, pool_id, value)
  select key, p_pool_id, value from jsonb_each_text(p_settings)
  on conflict (name, pool_id) do update set value = excluded.value, recorded_at = now();
$$;

COMMENT ON FUNCTION tickets_ops.record_settings(p_pool_id text, p_settings jsonb) IS 'A worker pool that has just registered records the settings that its environment gives it, as an object of texts.';

CREATE FUNCTION tickets_ops.refuse_forged_mark() RETURNS trigger
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
begin
  if (current_setting('tickets_ops.writer', true) <> '' or current_setting('tickets_ops.erasing', true) <> '')
    and not has_function_privilege('tickets_ops.as_pipeline(boolean)', 'execute')
  then
    raise exception 'What % decides about a place is signed and written down: it cannot be marked as the pipeline''s.', current_user
      using errcode = 'insufficient_privilege', hint = 'reset tickets_ops.writer; reset tickets_ops.erasing;';
  end if;
  return case tg_op when 'DELETE' then old else new end;
end
$$;

COMMENT ON FUNCTION tickets_ops.refuse_forged_mark() IS 'Trigger of each write of a gazetteer: refuses the mark of tickets_ops.as_pipeline, which is a setting and so anybody''s to set, to roles that may not call that function: verified_by and tickets.geo_decisions would say nothing, or something else.';

CREATE FUNCTION tickets_ops.refuse_rewriting() RETURNS trigger
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
begin
  if tickets_ops.is_erasing() then
    return null;
  end if;
  raise exception 'tickets.geo_decisions is history: its rows are neither changed nor deleted.'
    using errcode = 'insufficient_privilege', hint = 'Take a decision back with: select * from tickets.undo_decision(decision_id);';
end
$$;

COMMENT ON FUNCTION tickets_ops.refuse_rewriting() IS 'Trigger: keeps tickets.geo_decisions append-only, for its owner and against TRUNCATE too; tickets_ops.erase_ticket alone passes.';

CREATE FUNCTION tickets_ops.register_geocoder(p_provider text, p_rate numeric, p_daily_budget integer, p_found_days numeric, p_off_reason text) RETURNS void
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
declare
  v_before text := (select state from tickets_ops.geocoding where provider = p_provider);
begin
  -- A process without the settings must not switch off what a worker beside it has.
  if p_provider is null and tickets_ops.has_geocoding_worker() then
    return;
  end if;
  if p_provider is not null then
    insert into tickets_ops.geocoding_providers as p (provider, rate_per_second, daily_budget, found_days)
    values (p_provider, p_rate, p_daily_budget, p_found_days)
    on conflict (provider) do update set
      rate_per_second = excluded.rate_per_second,
      daily_budget = excluded.daily_budget,
      found_days = excluded.found_days,
      -- The key, or its plan, may be a new one: the next call finds out.
      breaker_until = case when p.breaker in ('key refused', 'quota spent') then least(p.breaker_until, now()) else p.breaker_until end;
  end if;
  insert into tickets_ops.geocoding_setup (provider, off_reason) values (p_provider, p_off_reason)
  on conflict (one) do update set provider = excluded.provider, off_reason = excluded.off_reason;
  -- Jobs have put themselves off until the quota was to come back, or somebody was to be asked.
  if coalesce(v_before, 'off') in ('off', 'not in use', 'key refused', 'quota spent', 'budget spent')
    and (select state in ('ready', 'probing') from tickets_ops.geocoding where provider = p_provider)
  then
    perform tickets_ops.wake_geocoding();
  end if;
end
$$;

COMMENT ON FUNCTION tickets_ops.register_geocoder(p_provider text, p_rate numeric, p_daily_budget integer, p_found_days numeric, p_off_reason text) IS 'A worker that starts says whom it asks: provider, calls a second, calls a day (NULL: no limit), days that a found place is kept; or no provider and the reason, which counts only while no living worker has one. A spent quota or a refused key is tried again, and the jobs that wait for it are woken.';

CREATE FUNCTION tickets_ops.release_snapshot(p_snapshot_id bigint) RETURNS text
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET lock_timeout TO '10s'
    AS $$
declare
  v_snapshot tickets_ops.snapshots;
  v_later text;
begin
  v_snapshot := tickets_ops.locked_snapshot(p_snapshot_id);
  if v_snapshot.status <> 'held' then
    raise exception 'Snapshot % is %, not held.', p_snapshot_id, v_snapshot.status;
  end if;
  -- Judged anew: what it was compared with must still be what is loaded.
  select s.source_key into v_later
  from tickets_ops.snapshots s
  where s.dataset = v_snapshot.dataset
    and (s.load_began_at > v_snapshot.staged_at or (s.status = 'unchanged' and s.snapshot_at > v_snapshot.snapshot_at))
  order by s.snapshot_at desc limit 1;
  if v_later is not null then
    raise exception 'Snapshot % is not released: % was loaded after it was staged.', p_snapshot_id, v_later
      using hint = format('Drop it: select tickets_ops.dismiss_snapshot(%s);', p_snapshot_id);
  end if;
  if v_snapshot.batches_total > 0 and not exists (select from tickets_ops.snapshot_rows where snapshot_id = p_snapshot_id) then
    raise exception 'The staged rows of snapshot % have been pruned.', p_snapshot_id
      using hint = format('Read it again: select * from tickets_ops.fetch_now(%L, true);', v_snapshot.dataset);
  end if;
  begin
    update tickets_ops.snapshots
    set status = case when batches_total = 0 then 'finalizing' else 'loading' end,
      load_began_at = clock_timestamp(), progress_at = clock_timestamp(),
      warnings = format('%s Released by %s.', hold_reason, session_user) || warnings
    where snapshot_id = p_snapshot_id;
  exception when unique_violation then
    raise exception 'Snapshot % has to wait: another one is in flight.', p_snapshot_id using hint = 'Release it again in a minute.';
  end;
  perform tickets_ops.ask_for_missing_jobs();
  return format('Snapshot %s is being loaded.', p_snapshot_id);
exception when lock_not_available then
  perform tickets_ops.raise_blocked();
  return null;
end
$$;

COMMENT ON FUNCTION tickets_ops.release_snapshot(p_snapshot_id bigint) IS 'Loads a snapshot that is held, after all: select tickets_ops.release_snapshot(42). Raises when it is not held, when something was loaded since, when another one is in flight, and when others hold its rows for ten seconds.';

CREATE FUNCTION tickets_ops.remove_jobs(p_ids bigint[]) RETURNS bigint
    LANGUAGE sql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
  select count(*) from graphile_worker.complete_jobs(p_ids)
$$;

COMMENT ON FUNCTION tickets_ops.remove_jobs(p_ids bigint[]) IS 'Removes jobs that do not run. Returns how many.';

CREATE FUNCTION tickets_ops.remove_orphaned_digests(p_dataset text) RETURNS bigint
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $_$
declare
  v_removed bigint;
begin
  execute format($sql$
    with orphaned as materialized ( -- once: as a subquery it may be run for each row of the table
      select d.ticket_id from tickets_ops.%1$I d
      where not exists (select from tickets.%2$I t where t.ticket_id = d.ticket_id) -- both primary keys
      for update of d skip locked
    )
    delete from tickets_ops.%1$I d using orphaned o where d.ticket_id = o.ticket_id
  $sql$, p_dataset || '_digests', p_dataset);
  get diagnostics v_removed = row_count;
  return v_removed;
end
$_$;

COMMENT ON FUNCTION tickets_ops.remove_orphaned_digests(p_dataset text) IS 'Removes the digests of tickets that were deleted; not those that a load is just giving to new tickets of their number. Returns how many.';

CREATE FUNCTION tickets_ops.reopen_snapshot(p_snapshot_id bigint) RETURNS text
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
declare
  v_snapshot tickets_ops.snapshots;
  v_newer bigint;
begin
  select * into v_snapshot from tickets_ops.snapshots where snapshot_id = p_snapshot_id for update;
  if not found then
    return format('Snapshot %s is no longer in the ledger.', p_snapshot_id);
  elsif v_snapshot.status in ('loading', 'finalizing') then
    return null;
  elsif v_snapshot.status <> 'failed' then
    return format('Snapshot %s is %s: there is nothing left to do.', p_snapshot_id, v_snapshot.status);
  end if;
  select min(snapshot_id) into v_newer
  from tickets_ops.snapshots
  where dataset = v_snapshot.dataset and snapshot_id <> p_snapshot_id
    and (in_flight or load_began_at > v_snapshot.load_began_at);
  if v_newer is not null then
    return format('Snapshot %s is superseded by snapshot %s: it stays failed.', p_snapshot_id, v_newer);
  elsif v_snapshot.load_began_at is null then
    return format('Snapshot %s was never read to its end. Read it again: select * from tickets_ops.fetch_now(%L, true);', p_snapshot_id, v_snapshot.dataset);
  elsif not exists (select from tickets_ops.snapshot_rows where snapshot_id = p_snapshot_id) then
    return format('The staged rows of snapshot %s have been pruned. Read it again: select * from tickets_ops.fetch_now(%L, true);', p_snapshot_id, v_snapshot.dataset);
  end if;
  update tickets_ops.snapshots
  set status = case when batches_done = batches_total then 'finalizing' else 'loading' end, error = null, progress_at = now()
  where snapshot_id = p_snapshot_id;
  update tickets_ops.snapshot_batches set status = 'pending', error = null where snapshot_id = p_snapshot_id and status = 'failed';
  perform tickets_ops.ask_for_missing_jobs();
  return null;
exception
  when unique_violation then
    return format('Snapshot %s has to wait: another one is in flight.', p_snapshot_id);
end
$$;

COMMENT ON FUNCTION tickets_ops.reopen_snapshot(p_snapshot_id bigint) IS 'Puts a failed snapshot back in flight, with the jobs that are gone; the caller revives those that failed. The only way back from failed. Returns why it cannot, NULL when it is in flight.';

CREATE FUNCTION tickets_ops.replace_held(p_dataset text, p_snapshot_at timestamp with time zone, p_is_loaded boolean) RETURNS void
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
declare
  v_held tickets_ops.snapshots;
  v_is_superseded boolean;
begin
  for v_held in
    select * from tickets_ops.snapshots
    where dataset = p_dataset and status = 'held' and snapshot_at <= p_snapshot_at -- index snapshots_by_time
    order by snapshot_id for update
  loop
    -- Its version may have been looked at again by force, and put back.
    v_is_superseded := p_is_loaded and not tickets_ops.is_passed_over_elsewhere(v_held);
    update tickets_ops.snapshots
    set progress_at = now(),
      -- A look takes what is superseded, while nothing newer is loaded.
      status = case when v_is_superseded then 'superseded' else 'failed' end,
      dismissed_at = case when v_is_superseded then null else now() end,
      error = 'It was held, and a newer file took its place. ' || hold_reason
    where snapshot_id = v_held.snapshot_id;
    perform tickets_ops.wipe_staging(v_held.snapshot_id);
  end loop;
end
$$;

COMMENT ON FUNCTION tickets_ops.replace_held(p_dataset text, p_snapshot_at timestamp with time zone, p_is_loaded boolean) IS 'Held snapshots of a dataset whose files are no newer than this time are given up, because a newer one is loaded (then they are superseded) or held in their place (then they count as failed, and are not read again).';

CREATE FUNCTION tickets_ops.request_centroid(p_cluster text, p_priority integer) RETURNS boolean
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
declare
  v_priority constant integer := least((select priority from tickets_ops.job_policy('geocode_cluster')), p_priority);
  v_waiting record;
begin
  if exists (select from tickets.geo_clusters c where c.cluster = p_cluster and tickets_ops.is_unresolvable(c)) then
    return true;
  end if;
  if exists (select from tickets.geo_clusters c where c.cluster = p_cluster and c.geom is not null) then
    return false;
  end if;
  select * into v_waiting
  from tickets_ops.queued_jobs() j
  where j.key = tickets_ops.cluster_job_key(p_cluster) and j.state <> 'failed';
  if v_waiting.id is null then
    perform tickets_ops.enqueue(
      'geocode_cluster',
      json_strip_nulls(json_build_object(
        'cluster', p_cluster, 'planned', true,
        -- A place of a cluster that nobody knows comes this far by force only.
        'force', case when tickets_ops.is_unknown_cluster(p_cluster) then true end
      )),
      tickets_ops.cluster_job_key(p_cluster), p_priority := v_priority
    );
  elsif v_waiting.priority > v_priority then
    perform tickets_ops.run_jobs_now(array[v_waiting.id], p_priority := v_priority);
  end if;
  return false;
end
$$;

COMMENT ON FUNCTION tickets_ops.request_centroid(p_cluster text, p_priority integer) IS 'A place waits for its cluster''s centroid: adds the cluster''s job, or lets the one that waits go as early as the place; neither when the centroid has come meanwhile. Returns true when none is to be had (tickets_ops.is_unresolvable), so that waiting is in vain until a person sets the centroid.';

CREATE FUNCTION tickets_ops.request_of(p_payload jsonb) RETURNS jsonb
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN CASE jsonb_typeof(p_payload) WHEN 'object'::text THEN (p_payload - ARRAY['waits'::text, 'looks'::text, '_cron'::text]) ELSE p_payload END;

COMMENT ON FUNCTION tickets_ops.request_of(p_payload jsonb) IS 'What a payload asks for, without what the schedule and waiting add to it.';

CREATE FUNCTION tickets_ops.require_task(p_task text) RETURNS void
    LANGUAGE plpgsql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
begin
  if p_task is not null and not exists (select from tickets_ops.job_policy(p_task)) then
    raise exception 'There is no task %.', quote_literal(p_task)
      using errcode = 'invalid_parameter_value', hint = 'Choose ' || (select string_agg(task, ', ' order by task) from tickets_ops.job_policy()) || '.';
  end if;
end
$$;

COMMENT ON FUNCTION tickets_ops.require_task(p_task text) IS 'Raises, and names the tasks that there are, where p_task is none of them. NULL passes.';

CREATE FUNCTION tickets_ops.rescore_locations(p_cluster text) RETURNS void
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
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

  update tickets.geo_locations l
  set
    status = judged.status,
    distance_km = judged.distance_km,
    -- What else the note says, of the takeover or by a person, stays.
    note = case judged.status when 'needs_review' then coalesce(l.note, judged.doubt) else nullif(l.note, judged.doubt) end,
    -- From today on, as when it was taken over: nobody knows how old the coordinate is.
    expires_at = case
      when judged.status = l.status then l.expires_at
      else tickets_ops.answer_expires_at(judged.status, 1, judged.found_days, now())
    end
  from (
    select
      stored.location_key, verdict.*,
      (select p.found_days from tickets_ops.geocoding_providers p where p.provider = stored.provider) as found_days
    from tickets.geo_clusters c
    join tickets.geo_locations stored on stored.cluster = c.cluster
    cross join lateral tickets_ops.judge_inherited(stored.geom, c.geom, c.guard_km) as verdict
    where c.cluster = p_cluster and c.geom is not null and not stored.verified and stored.candidates = '[]'
      and stored.geom is not null
  ) as judged
  where l.cluster = p_cluster and l.location_key = judged.location_key
    and (l.status, l.distance_km) is distinct from (judged.status, judged.distance_km);

  perform tickets_ops.flag_suspicious(p_cluster);
  perform tickets_ops.as_pipeline(v_before);
end
$$;

COMMENT ON FUNCTION tickets_ops.rescore_locations(p_cluster text) IS 'Rescores a cluster''s places: judges their stored candidates against its present centroid and guard, without a call. Verified rows stay.';

CREATE FUNCTION tickets_ops.reserve_geocoding_call(p_provider text) RETURNS TABLE(granted boolean, wait_ms double precision, reserved_at timestamp with time zone, slot_at timestamp with time zone, is_control boolean, reason text)
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
declare
  -- Longer than a call may take: a prober that dies must not keep the breaker open for ever.
  c_probe constant interval := '15 seconds';
  -- A probe is usually over by then.
  c_probe_ms constant double precision := 2000;
begin
  -- One statement on one row, in autocommit (measured: 0.3 ms). The expressions are evaluated once the row is locked, with the
  -- clock of that moment: now() would be the moment before the wait for the lock, and give slots of the past.
  return query
    update tickets_ops.geocoding_providers p
    set
      used = case when p.used_on = (clock_timestamp() at time zone 'UTC')::date then p.used else 0 end + 1,
      used_on = (clock_timestamp() at time zone 'UTC')::date,
      next_at = greatest(p.next_at, clock_timestamp()) + make_interval(secs => tickets_ops.seconds_per_call(p.rate_per_second)),
      probing_until = case when p.breaker is not null then clock_timestamp() + c_probe end
    where p.provider = p_provider
      and (p.daily_budget is null or p.used < p.daily_budget or p.used_on <> (clock_timestamp() at time zone 'UTC')::date)
      and (p.breaker is null or greatest(p.breaker_until, p.probing_until) <= clock_timestamp())
    returning
      true,
      greatest(0, 1000 * extract(epoch from p.next_at - make_interval(secs => tickets_ops.seconds_per_call(p.rate_per_second))
        - clock_timestamp()))::double precision,
      clock_timestamp(),
      p.next_at - make_interval(secs => tickets_ops.seconds_per_call(p.rate_per_second)),
      p.breaker is not distinct from 'suspected',
      null::text;
  if found then
    return;
  end if;
  return query
    select
      false,
      case
        -- First: a breaker whose time is over lets nobody probe on a spent budget.
        when budget.is_spent then
          1000 * extract(epoch from greatest(p.breaker_until, tickets_ops.next_utc_midnight()) - clock_timestamp())
        when p.breaker_until <= clock_timestamp() then c_probe_ms
        -- Without a breaker either: midnight has just passed.
        else 1000 * extract(epoch from coalesce(p.breaker_until, clock_timestamp()) - clock_timestamp())
      end::double precision,
      null::timestamptz,
      null::timestamptz,
      null::boolean,
      case
        when p.breaker is null or budget.is_spent then format('the daily budget of %s calls is spent', p.daily_budget)
        else format('%s: %s', p.breaker, p.breaker_reason)
      end
    from tickets_ops.geocoding_providers p
    cross join lateral (
      select p.used >= p.daily_budget and p.used_on = (clock_timestamp() at time zone 'UTC')::date as is_spent
    ) as budget
    where p.provider = p_provider;
  if not found then
    raise exception 'No geocoding provider % is registered: a worker registers it when it starts.', p_provider;
  end if;
end
$$;

COMMENT ON FUNCTION tickets_ops.reserve_geocoding_call(p_provider text) IS 'Reserves the next slot for one call to a provider, over all workers; call it in a transaction of its own. granted: make the call in wait_ms milliseconds (a delta, so that clocks need not agree), and reserve again if you wake much later. is_control: the provider is suspected, so ask it the control question, whatever you came for. Not granted: the budget is spent or the breaker is open; ask again in wait_ms. reserved_at and slot_at are this moment and the slot by the database''s clock.';

CREATE FUNCTION tickets_ops.resolve_cluster(p_cluster text, p_provider text, p_last boolean) RETURNS text
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
declare
  v_answers record;
  v_verdict record;
  v_before boolean;
begin
  select * into v_answers from tickets_ops.answers(p_cluster, '', p_provider);
  select verdict.* into v_verdict
  from (select 1) as always
  left join tickets.geo_clusters c on c.cluster = p_cluster
  cross join lateral tickets_ops.judge_cluster(
    v_answers.candidates, tickets_ops.cluster_name_key(p_cluster), tickets_ops.cluster_region(p_cluster),
    coalesce(c.guard_km, tickets.default_guard_km()) -- it may have no row yet
  ) as verdict;
  if v_verdict.geom is null and not p_last then
    return null;
  end if;
  if not pg_try_advisory_xact_lock(tickets.gazetteer_lock()) then
    return 'busy';
  end if;
  v_before := tickets_ops.as_pipeline(true);
  insert into tickets.geo_clusters as c (cluster, geom, provider, query, candidates, note, attempts, fetched_at, expires_at)
  values (
    p_cluster, v_verdict.geom, p_provider, array_to_string(v_answers.queries, ' | '), v_answers.candidates, v_verdict.note,
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
  perform tickets_ops.flag_suspicious(p_cluster);
  perform tickets_ops.as_pipeline(v_before);
  if v_verdict.geom is null then
    -- Its places wait in vain: they end.
    perform tickets_ops.wake_locations(p_cluster);
  end if;
  delete from tickets_ops.geocoding_answers where cluster = p_cluster and location_key = '';
  return case when v_verdict.geom is null then 'not_found' else 'found' end;
end
$$;

COMMENT ON FUNCTION tickets_ops.resolve_cluster(p_cluster text, p_provider text, p_last boolean) IS 'Judges the answers for a cluster and writes its centroid, or that none was found. Returns found or not_found; busy, and nothing is written, while a load writes tickets; NULL, and nothing is written, when nothing was found and p_last is false: a simpler query may follow.';

CREATE FUNCTION tickets_ops.resolve_location(p_cluster text, p_location_key text, p_location_name text, p_provider text, p_last boolean) RETURNS text
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
declare
  v_answers record;
  v_verdict record;
  v_locked boolean;
  v_found_days numeric := (select found_days from tickets_ops.geocoding_providers where provider = p_provider);
  v_before boolean;
begin
  select * into v_answers from tickets_ops.answers(p_cluster, p_location_key, p_provider);
  -- Twice: before the lock, which most verdicts that are not the last do not need, and under it, since until then a person
  -- may have moved the centroid or the guard.
  foreach v_locked in array array[false, true] loop
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
    if not v_locked and not pg_try_advisory_xact_lock(tickets.gazetteer_lock()) then
      return 'busy';
    end if;
  end loop;
  v_before := tickets_ops.as_pipeline(true);
  -- A place that was found, and is not any more: its coordinate is still the best there is.
  update tickets.geo_locations as l
  set attempts = l.attempts + 1, fetched_at = now(), expires_at = tickets_ops.answer_expires_at('not_found', l.attempts + 1, null, now())
  where v_verdict.status = 'not_found' and l.cluster = p_cluster and l.location_key = p_location_key and l.status = 'found';
  if found then
    perform tickets_ops.as_pipeline(v_before);
    delete from tickets_ops.geocoding_answers where cluster = p_cluster and location_key = p_location_key;
    return v_verdict.status;
  end if;
  insert into tickets.geo_locations as l (
    cluster, location_key, location_name, status, geom, provider, query, precision, confidence, distance_km, candidates, note,
    attempts, fetched_at, expires_at
  )
  values (
    p_cluster, p_location_key, p_location_name, v_verdict.status, v_verdict.geom, p_provider, array_to_string(v_answers.queries, ' | '),
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
  -- Once it is flagged any verdict may clear it: the order in which places are asked must not decide.
  if v_verdict.status = 'rejected' or exists (select from tickets.geo_clusters where cluster = p_cluster and suspicious) then
    perform tickets_ops.flag_suspicious(p_cluster);
  end if;
  perform tickets_ops.as_pipeline(v_before);
  delete from tickets_ops.geocoding_answers where cluster = p_cluster and location_key = p_location_key;
  return v_verdict.status;
end
$$;

COMMENT ON FUNCTION tickets_ops.resolve_location(p_cluster text, p_location_key text, p_location_name text, p_provider text, p_last boolean) IS 'Judges the answers for a place and writes the verdict, unless a person verified the row meanwhile. Returns the status; busy, and nothing is written, while a load writes tickets; NULL, and nothing is written, when nothing good was found and p_last is false: a simpler query may follow. Raises when the cluster lost its centroid meanwhile.';

CREATE FUNCTION tickets_ops.restart_jobs(p_ids bigint[], p_max_attempts integer, p_forget text[] DEFAULT '{}'::text[]) RETURNS bigint
    LANGUAGE sql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
  with restarted as (
    update graphile_worker._private_jobs
    set attempts = 0, max_attempts = greatest(max_attempts, p_max_attempts), run_at = now(), last_error = null, updated_at = now(),
      flags = flags - 'given_up' - 'worker_died',
      payload = case
        when p_forget <> '{}' and jsonb_typeof(tickets_ops.readable_payload(payload)) = 'object' then (payload::jsonb - p_forget)::json
        else payload
      end
    where id = any (p_ids) and locked_at is null
    returning 1
  )
  select count(*) from restarted
$$;

COMMENT ON FUNCTION tickets_ops.restart_jobs(p_ids bigint[], p_max_attempts integer, p_forget text[]) IS 'Makes jobs that do not run due now as if they had never run, with p_max_attempts or more; p_forget: keys to leave out of the payload. Returns how many.';

CREATE FUNCTION tickets_ops.retry_failed(p_task text DEFAULT NULL::text) RETURNS TABLE(job_id bigint, task text, job_key text, note text)
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET lock_timeout TO '10s'
    AS $$
#variable_conflict use_column
begin
  perform tickets_ops.require_task(p_task);
  return query
    with failed as materialized (
      select j.id, j.task, j.key, j.superseded,
        -- The newest of those that ask for the same: a job that failed again every hour is tried once.
        row_number() over (partition by j.task, tickets_ops.request_of(j.payload) order by j.id desc) = 1 as is_newest
      from tickets_ops.described_jobs() j
      where j.state = 'failed' and (p_task is null or j.task = p_task)
    ),
    -- Loads come with their snapshots, one by one; there are few. All others at once.
    together as materialized (
      select f.task, tickets_ops.restart_jobs(array_agg(f.id), max(p.max_attempts))
      from failed f left join tickets_ops.job_policy() p on p.task = f.task
      where f.superseded is null and f.is_newest and f.task not in ('fetch_snapshot', 'upsert_batch', 'finalize_snapshot')
      group by f.task
    )
    select f.id, f.task, f.key, case
      when f.superseded is not null then 'Left alone. ' || f.superseded
      when not f.is_newest then 'Left alone. A later job asks for the same.'
      when f.task in ('fetch_snapshot', 'upsert_batch', 'finalize_snapshot') then coalesce(tickets_ops.revive_job(f.id), 'It is due now.')
      else 'It is due now.'
    end
    from failed f left join together t on t.task = f.task
    order by f.id;
exception when lock_not_available then
  perform tickets_ops.raise_blocked();
end
$$;

COMMENT ON FUNCTION tickets_ops.retry_failed(p_task text) IS 'Tries every failed job again, or those of one task: select * from tickets_ops.retry_failed(''geocode_location''). Returns each with what became of it; those that no longer matter, or that a later job repeats, are left alone. Raises when others hold their rows for ten seconds.';

CREATE FUNCTION tickets_ops.retry_job(p_id bigint) RETURNS TABLE(job_id bigint, task text, job_key text, note text)
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET lock_timeout TO '10s'
    AS $$
#variable_conflict use_column
declare
  v_job record;
  v_obstacle text;
begin
  select j.id, j.task, j.key, j.state, j.payload into v_job from tickets_ops.described_jobs() j where j.id = p_id;
  if not found then
    raise exception 'There is no job %.', p_id using hint = 'A job that succeeded is gone. See tickets_ops.jobs.';
  end if;
  if v_job.state = 'unknown task' then
    raise exception 'Job % is not tried again. There is no task %.', p_id, v_job.task
      using hint = format('Remove it (select tickets_ops.cancel_job(%s);) and add it with the right name. See tickets_ops.job_policy().', p_id);
  end if;
  v_obstacle := tickets_ops.revive_job(p_id);
  if v_obstacle is not null then
    raise exception 'Job % is not tried again. %', p_id, v_obstacle;
  end if;
  return query select v_job.id, v_job.task, v_job.key, case
    when v_job.state = 'failed' and v_job.task in ('upsert_batch', 'finalize_snapshot')
      then format('It is due now, and with it all that is left of snapshot %s.', v_job.payload ->> 'snapshot_id')
    else 'It is due now.'
  end;
exception when lock_not_available then
  perform tickets_ops.raise_blocked();
end
$$;

COMMENT ON FUNCTION tickets_ops.retry_job(p_id bigint) IS 'Tries a failed job again now, or a waiting one at once, with all its attempts: select * from tickets_ops.retry_job(17). A load job reopens its snapshot, with all its jobs. Raises when there is no such job, when it is running, when its snapshot cannot be reopened (a newer one superseded it), and when others hold its rows for ten seconds.';

CREATE FUNCTION tickets_ops.return_geocoding_call(p_provider text, p_reserved_at timestamp with time zone) RETURNS void
    LANGUAGE sql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
  update tickets_ops.geocoding_providers
  set used = used - 1
  where provider = p_provider and used > 0 and used_on = (p_reserved_at at time zone 'UTC')::date;
$$;

COMMENT ON FUNCTION tickets_ops.return_geocoding_call(p_provider text, p_reserved_at timestamp with time zone) IS 'Gives a reserved call back to the budget of its day: it is not made, because its slot went by or the worker stops.';

CREATE VIEW tickets.open_places AS
 SELECT t.cluster_key,
    t.location_key,
    mode() WITHIN GROUP (ORDER BY t.cluster) AS cluster,
    min(t.location_name) AS location_name,
    count(*) AS tickets,
    count(*) FILTER (WHERE (t.dataset = 'inc'::text)) AS inc_tickets,
    count(*) FILTER (WHERE (t.dataset = 'crq'::text)) AS crq_tickets,
    count(*) FILTER (WHERE (t.geo_source <> 'feed'::text)) AS without_coordinates,
    max(t.seen_at) AS newest_at
   FROM ( SELECT 'inc'::text AS dataset,
            tickets.cluster_key(inc.cluster) AS cluster_key,
            tickets.cluster_spelling(inc.cluster) AS cluster,
            inc.location_key,
            inc.location_name,
            inc.geo_source,
            COALESCE(inc.created_at_service, inc.first_seen_at, inc.ingested_at) AS seen_at
           FROM tickets.inc
          WHERE inc.is_actionable
        UNION ALL
         SELECT 'crq'::text,
            tickets.cluster_key(crq.cluster) AS cluster_key,
            tickets.cluster_spelling(crq.cluster) AS cluster_spelling,
            crq.location_key,
            crq.location_name,
            crq.geo_source,
            COALESCE(crq.created_at_service, crq.first_seen_at, crq.ingested_at) AS "coalesce"
           FROM tickets.crq
          WHERE (crq.is_actionable AND ('crq'::text IN ( SELECT tickets.datasets() AS datasets)))) t
  WHERE (t.cluster_key IS NOT NULL)
  GROUP BY t.cluster_key, t.location_key;

COMMENT ON VIEW tickets.open_places IS 'Where the open (actionable) tickets of all datasets that are on lie by their names: one row for each location of a cluster. What geocoding is planned from. Not in it: tickets without a cluster.';

COMMENT ON COLUMN tickets.open_places.cluster_key IS 'The cluster as it is compared: without case and blanks (tickets.cluster_key).';

COMMENT ON COLUMN tickets.open_places.location_key IS 'The location as it is compared (tickets.location_key). NULL: the name holds network codes only, or nothing.';

COMMENT ON COLUMN tickets.open_places.cluster IS 'The cluster as most of these tickets write it.';

COMMENT ON COLUMN tickets.open_places.location_name IS 'One of the spellings of the location.';

COMMENT ON COLUMN tickets.open_places.tickets IS 'Open tickets there, of all datasets that are on.';

COMMENT ON COLUMN tickets.open_places.inc_tickets IS 'Of these, faults.';

COMMENT ON COLUMN tickets.open_places.crq_tickets IS 'Of these, requests for new installations.';

COMMENT ON COLUMN tickets.open_places.without_coordinates IS 'Of tickets, those to which the feed gives no coordinates of their own: where the place lies decides where they lie.';

COMMENT ON COLUMN tickets.open_places.newest_at IS 'When the newest of them began: created_at_service, else first_seen_at, else when its row was written. May lie in the future, where the feed is wrong.';

CREATE VIEW tickets_ops.review_queue AS
 WITH open_tickets AS (
         SELECT p.cluster_key,
            p.location_key,
            p.tickets
           FROM tickets.open_places p
        ), per_cluster AS (
         SELECT o.cluster_key,
            (sum(o.tickets))::bigint AS tickets,
            count(o.location_key) AS places
           FROM open_tickets o
          GROUP BY o.cluster_key
        ), rows_in_doubt AS (
         SELECT 'cluster'::text AS kind,
            c.cluster,
            NULL::text AS location_key,
            NULL::text AS location_name,
                CASE
                    WHEN (c.suspicious OR p.is_far) THEN 'suspicious'::text
                    WHEN (c.geom IS NOT NULL) THEN 'found'::text
                    WHEN c.verified THEN 'rejected'::text
                    ELSE 'not_found'::text
                END AS status,
                CASE
                    WHEN (c.suspicious OR p.is_far) THEN (1)::numeric
                    WHEN (c.geom IS NOT NULL) THEN 0.3
                    WHEN c.verified THEN 0.1
                    ELSE 0.95
                END AS doubt,
            NULL::text AS "precision",
            NULL::numeric AS confidence,
            NULL::numeric AS distance_km,
            NULLIF(concat_ws(' '::text, c.note,
                CASE
                    WHEN (c.suspicious AND ((c.note IS NULL) OR c.verified)) THEN 'Many of its places lie together elsewhere: its centroid is probably the wrong one.'::text
                    ELSE NULL::text
                END,
                CASE
                    WHEN (p.is_far AND (NOT c.suspicious)) THEN 'Most of its known places lie beyond its guard: its centroid is probably the wrong one, or its guard too narrow.'::text
                    ELSE NULL::text
                END,
                CASE
                    WHEN ((c.geom IS NULL) AND (t.places > 0)) THEN format('Without a centroid none of its %s place(s) is asked or checked: set one.'::text, t.places)
                    ELSE NULL::text
                END), ''::text) AS note,
            c.query,
            c.geom,
            jsonb_array_length(c.candidates) AS candidates,
            c.fetched_at,
            COALESCE(t.tickets, (0)::bigint) AS open_tickets
           FROM ((tickets.geo_clusters c
             LEFT JOIN per_cluster t ON ((t.cluster_key = tickets.cluster_key(c.cluster))))
             CROSS JOIN LATERAL ( SELECT ((c.geom IS NOT NULL) AND COALESCE(tickets_ops.is_far_from_its_places(c.cluster), false)) AS is_far) p)
          WHERE ((NOT c.verified) OR (c.geom IS NULL) OR c.suspicious OR p.is_far)
        UNION ALL
         SELECT 'location'::text,
            l.cluster,
            l.location_key,
            l.location_name,
            l.status,
                CASE l.status
                    WHEN 'needs_review'::text THEN 0.8
                    WHEN 'rejected'::text THEN 0.7
                    WHEN 'not_found'::text THEN 0.6
                    ELSE (0.5 * ((1)::numeric - COALESCE(l.confidence, (0)::numeric)))
                END AS "case",
            l."precision",
            l.confidence,
            l.distance_km,
            l.note,
            l.query,
            l.geom,
            jsonb_array_length(l.candidates) AS jsonb_array_length,
            l.fetched_at,
            COALESCE(t.tickets, (0)::bigint) AS "coalesce"
           FROM (tickets.geo_locations l
             LEFT JOIN open_tickets t ON (((t.cluster_key = tickets.cluster_key(l.cluster)) AND (t.location_key = l.location_key))))
          WHERE (NOT l.verified)
        )
 SELECT rows_in_doubt.kind,
    rows_in_doubt.cluster,
    rows_in_doubt.location_key,
    rows_in_doubt.location_name,
    rows_in_doubt.status,
    round(rows_in_doubt.doubt, 2) AS doubt,
    rows_in_doubt.open_tickets,
    rows_in_doubt.note,
    rows_in_doubt."precision",
    rows_in_doubt.confidence,
    rows_in_doubt.distance_km,
    public.st_y(rows_in_doubt.geom) AS latitude,
    public.st_x(rows_in_doubt.geom) AS longitude,
    rows_in_doubt.candidates,
    rows_in_doubt.query,
    rows_in_doubt.fetched_at
   FROM rows_in_doubt
  ORDER BY (round(rows_in_doubt.doubt, 2)) DESC, rows_in_doubt.open_tickets DESC, rows_in_doubt.cluster, rows_in_doubt.location_key;

COMMENT ON VIEW tickets_ops.review_queue IS 'Gazetteer rows that no person verified; and clusters, verified or not, whose centroid is far from their places (suspicious) or was taken away by a person (rejected). The most doubtful first. Accept: update tickets.geo_locations set verified = true. Move: set geom = st_setsrid(st_makepoint(lng, lat), 4326), which verifies the row and takes the tickets along. Reject: set status = ''rejected''. The same for tickets.geo_clusters (verified, geom); a cluster that is too large for its guard: set guard_km.';

COMMENT ON COLUMN tickets_ops.review_queue.kind IS 'cluster (tickets.geo_clusters) or location (tickets.geo_locations).';

COMMENT ON COLUMN tickets_ops.review_queue.cluster IS 'The cluster.';

COMMENT ON COLUMN tickets_ops.review_queue.location_key IS 'The place; NULL for a cluster.';

COMMENT ON COLUMN tickets_ops.review_queue.location_name IS 'One raw spelling of the place.';

COMMENT ON COLUMN tickets_ops.review_queue.status IS 'For a cluster suspicious, not_found, rejected (a person took its centroid away) or found; else the row''s status.';

COMMENT ON COLUMN tickets_ops.review_queue.doubt IS '0 to 1: a suspicious cluster 1, one without a centroid 0.95, needs_review 0.8, rejected 0.7, not_found 0.6, found less, by its confidence; a cluster whose centroid a person took away 0.1.';

COMMENT ON COLUMN tickets_ops.review_queue.open_tickets IS 'Actionable tickets there.';

COMMENT ON COLUMN tickets_ops.review_queue.note IS 'Why it is doubtful.';

COMMENT ON COLUMN tickets_ops.review_queue."precision" IS 'What the coordinate stands for.';

COMMENT ON COLUMN tickets_ops.review_queue.confidence IS 'The judge''s score, 0 to 1.';

COMMENT ON COLUMN tickets_ops.review_queue.distance_km IS 'Geodesic kilometres from the cluster''s centroid.';

COMMENT ON COLUMN tickets_ops.review_queue.latitude IS 'Of the proposed coordinate; only a found one places tickets.';

COMMENT ON COLUMN tickets_ops.review_queue.longitude IS 'Of the proposed coordinate.';

COMMENT ON COLUMN tickets_ops.review_queue.candidates IS 'How many candidates are stored.';

COMMENT ON COLUMN tickets_ops.review_queue.query IS 'What was sent to the provider.';

COMMENT ON COLUMN tickets_ops.review_queue.fetched_at IS 'When it was answered.';

CREATE FUNCTION tickets_ops.review_place(p_kind text, p_cluster text, p_location_key text DEFAULT NULL::text) RETURNS json
    LANGUAGE sql STABLE
    SET jit TO 'off'
    BEGIN ATOMIC
 WITH beyond AS MATERIALIZED (
          SELECT rejected_places.location_key,
             rejected_places.location_name,
             rejected_places.lng,
             rejected_places.lat,
             rejected_places.distance_km,
             rejected_places.needs_km,
             rejected_places.fits
            FROM tickets_ops.rejected_places(review_place.p_cluster) rejected_places(location_key, location_name, lng, lat, distance_km, needs_km, fits)
           WHERE (review_place.p_kind = 'cluster'::text)
         )
  SELECT json_build_object('place', ( SELECT to_json(r.*) AS to_json
            FROM ( SELECT 'location'::text AS kind,
                     l.cluster,
                     l.location_key,
                     l.location_name,
                     l.status,
                     l.verified,
                     l.verified_by,
                     l.note,
                     l."precision",
                     l.confidence,
                     l.distance_km,
                     l.provider,
                     l.query,
                     public.st_x(l.geom) AS lng,
                     public.st_y(l.geom) AS lat,
                     (l.updated_at)::text AS updated_at
                    FROM tickets.geo_locations l
                   WHERE ((review_place.p_kind = 'location'::text) AND (l.cluster = review_place.p_cluster) AND (l.location_key = review_place.p_location_key))
                 UNION ALL
                  SELECT 'cluster'::text,
                     c.cluster,
                     NULL::text,
                     NULL::text,
                     COALESCE(q.status, 'found'::text) AS "coalesce",
                     c.verified,
                     c.verified_by,
                     COALESCE(q.note, c.note) AS "coalesce",
                     NULL::text,
                     NULL::numeric,
                     NULL::numeric,
                     c.provider,
                     c.query,
                     public.st_x(c.geom) AS st_x,
                     public.st_y(c.geom) AS st_y,
                     (c.updated_at)::text AS updated_at
                    FROM (tickets.geo_clusters c
                      LEFT JOIN tickets_ops.review_queue q ON (((q.kind = 'cluster'::text) AND (q.cluster = c.cluster))))
                   WHERE ((review_place.p_kind = 'cluster'::text) AND (c.cluster = review_place.p_cluster))) r), 'centre', ( SELECT to_json(r.*) AS to_json
            FROM ( SELECT c.guard_km,
                     c.suspicious,
                     public.st_x(c.geom) AS lng,
                     public.st_y(c.geom) AS lat,
                     (c.updated_at)::text AS updated_at
                    FROM tickets.geo_clusters c
                   WHERE (c.cluster = review_place.p_cluster)) r), 'candidates', ( SELECT COALESCE(json_agg(k.*), '[]'::json) AS "coalesce"
            FROM tickets_ops.place_candidates(review_place.p_cluster,
                 CASE review_place.p_kind
                     WHEN 'location'::text THEN review_place.p_location_key
                     ELSE NULL::text
                 END) k(candidate_no, label, level, lng, lat, distance_km, verdict)), 'beyond', ( SELECT COALESCE(json_agg(b.*), '[]'::json) AS "coalesce"
            FROM beyond b), 'together', ( SELECT to_json(r.*) AS to_json
            FROM ( SELECT t.places,
                     ( SELECT count(*) AS count
                            FROM beyond) AS of_all,
                     t.lng,
                     t.lat,
                     t.km
                    FROM (tickets.geo_clusters c
                      CROSS JOIN LATERAL tickets_ops.places_together(ARRAY( SELECT public.st_setsrid(public.st_makepoint(b.lng, b.lat), 4326) AS st_setsrid
                            FROM beyond b
                           WHERE b.fits
                           ORDER BY b.location_key), c.geom, c.guard_km) t(places, lng, lat, km))
                   WHERE (c.cluster = review_place.p_cluster)) r), 'names', ( SELECT COALESCE(json_agg(n.*), '[]'::json) AS "coalesce"
            FROM ( SELECT t.location_name AS name,
                     count(*) AS tickets,
                     count(*) FILTER (WHERE t.is_actionable) AS open
                    FROM ( SELECT inc.location_name,
                             inc.is_actionable,
                             inc.cluster,
                             inc.location_key
                            FROM tickets.inc
                         UNION ALL
                          SELECT crq.location_name,
                             crq.is_actionable,
                             crq.cluster,
                             crq.location_key
                            FROM tickets.crq
                           WHERE ('crq'::text IN ( SELECT tickets.datasets() AS datasets))) t
                   WHERE ((tickets.cluster_key(t.cluster) = tickets.cluster_key(review_place.p_cluster)) AND ((review_place.p_kind = 'cluster'::text) OR (t.location_key = review_place.p_location_key)))
                   GROUP BY t.location_name
                   ORDER BY (count(*) FILTER (WHERE t.is_actionable)) DESC, (count(*)) DESC, t.location_name
                  LIMIT 12) n), 'found', ( SELECT COALESCE(json_agg(json_build_array(f.lng, f.lat, f.location_key)), '[]'::json) AS "coalesce"
            FROM ( SELECT public.st_x(l.geom) AS lng,
                     public.st_y(l.geom) AS lat,
                     l.location_key
                    FROM tickets.geo_locations l
                   WHERE ((l.cluster = review_place.p_cluster) AND tickets.places_tickets(l.status) AND (l.location_key IS DISTINCT FROM review_place.p_location_key))
                  LIMIT 500) f), 'history', ( SELECT COALESCE(json_agg(h.*), '[]'::json) AS "coalesce"
            FROM ( SELECT d.decision_id,
                     d.decided_at,
                     d.decided_by,
                     d.decision,
                     d.tickets_moved
                    FROM tickets.geo_decisions d
                   WHERE ((d.cluster = review_place.p_cluster) AND (NOT (d.location_key IS DISTINCT FROM
                         CASE review_place.p_kind
                             WHEN 'location'::text THEN review_place.p_location_key
                             ELSE NULL::text
                         END)))
                   ORDER BY d.decision_id DESC
                  LIMIT 5) h)) AS json_build_object;
END;

COMMENT ON FUNCTION tickets_ops.review_place(p_kind text, p_cluster text, p_location_key text) IS 'Everything a person looks at to decide about one place, as the page shows it: p_kind location or cluster. place (NULL: there is none), centre (of its cluster, with the guard), candidates, beyond (for a cluster: tickets_ops.places_beyond_guard), together (where three or more of these lie), names (as field staff typed them, at most 12), found ([lng, lat, key] of the cluster''s placed places, at most 500), history (the last 5 decisions). Reads with the caller''s rights.';

CREATE FUNCTION tickets_ops.revive_job(p_id bigint) RETURNS text
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $_$
declare
  v_job record;
  v_obstacle text;
  v_ids bigint[] := array[p_id];
  v_restarted bigint;
begin
  select task, state, payload into v_job from tickets_ops.described_jobs() where id = p_id;
  if v_job.state = 'running' then
    return 'It is running at this moment. If its worker has died, it is freed by itself within seconds.';
  end if;
  if v_job.task in ('upsert_batch', 'finalize_snapshot') and v_job.state = 'failed' and v_job.payload ->> 'snapshot_id' ~ '^[0-9]{1,18}$' then
    v_obstacle := tickets_ops.reopen_snapshot((v_job.payload ->> 'snapshot_id')::bigint);
    if v_obstacle is not null then
      return v_obstacle;
    end if;
    -- All of them, or the snapshot would fail again by the next. Its end only if it is due: the last batch asks for it.
    v_ids := array(
      select j.id
      from tickets_ops.described_jobs() j
      join tickets_ops.snapshots s on s.snapshot_id = (v_job.payload ->> 'snapshot_id')::bigint
      where j.id = any (tickets_ops.jobs_of_snapshot(s.snapshot_id) || p_id) and j.state = 'failed'
        and j.task = case s.status when 'loading' then 'upsert_batch' else 'finalize_snapshot' end
    );
    if p_id <> all (v_ids) then
      perform tickets_ops.remove_jobs(array[p_id]);
      if v_ids = '{}' then
        return null;
      end if;
    end if;
  elsif v_job.task = 'fetch_snapshot' and v_job.state = 'failed' then
    -- What it was reading when it gave up: a further look would pass over a file that failed.
    perform tickets_ops.put_back(s.snapshot_id, 'failed')
    from tickets_ops.snapshots s where s.job_id = p_id and s.load_began_at is null and tickets_ops.is_failure(s);
  end if;
  v_restarted := tickets_ops.restart_jobs(
    v_ids,
    -- As many as from the start: one that gave up has no more than it made.
    (select max_attempts from tickets_ops.job_policy(v_job.task)),
    -- A request that gave up waiting, or looking, begins anew.
    p_forget := case v_job.task when 'fetch_snapshot' then array['waits', 'looks'] else '{}' end
  );
  return case when v_restarted = 0 then 'A worker has just taken it, or it is gone.' end;
end
$_$;

COMMENT ON FUNCTION tickets_ops.revive_job(p_id bigint) IS 'Makes a waiting or failed job due now, with all its attempts; a failed load job together with those of its snapshot that failed, a failed fetch_snapshot with the file that it could not read. Returns why it cannot, else NULL.';

CREATE FUNCTION tickets_ops.run_jobs_now(p_ids bigint[], p_attempts integer DEFAULT NULL::integer, p_priority integer DEFAULT NULL::integer) RETURNS bigint
    LANGUAGE sql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
  select count(*) from graphile_worker.reschedule_jobs(p_ids, run_at := now(), attempts := p_attempts, priority := p_priority)
$$;

COMMENT ON FUNCTION tickets_ops.run_jobs_now(p_ids bigint[], p_attempts integer, p_priority integer) IS 'Makes jobs that do not run due now; with p_attempts and p_priority in place of theirs unless NULL. Returns how many.';

CREATE FUNCTION tickets_ops.same_word(p_one text, p_other text) RETURNS boolean
    LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
declare
  v_long text := case when length(p_one) >= length(p_other) then p_one else p_other end;
  v_short text := case when length(p_one) >= length(p_other) then p_other else p_one end;
  v_same integer := 0;
begin
  if v_long = v_short then
    return true;
  end if;
  -- A number that differs in one digit is another number.
  if length(v_long) < 5 or length(v_long) - length(v_short) > 1 or v_long ~ '[0-9]' then
    return false;
  end if;
  -- All letters before the first difference are the same; behind the one letter that differs, all must be again.
  while substr(v_long, v_same + 1, 1) = substr(v_short, v_same + 1, 1) loop
    v_same := v_same + 1;
  end loop;
  return substr(v_long, v_same + 2) = substr(v_short, v_same + 1 + length(v_short) - length(v_long) + 1);
end
$$;

COMMENT ON FUNCTION tickets_ops.same_word(p_one text, p_other text) IS 'Whether two words are the same but for one letter left out, added or changed (words of five letters and more, without digits): tickets are typed in the field.';

CREATE FUNCTION tickets_ops.scheduled_runs(p_dataset text, p_from timestamp with time zone, p_to timestamp with time zone) RETURNS SETOF timestamp with time zone
    LANGUAGE sql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
  select distinct run.at
  from tickets_ops.schedule s
  -- The days first: otherwise an entry of one day a year is tried at each of its minutes on all of them.
  cross join lateral (
    select first.day + n as day
    from (select (p_from at time zone 'UTC')::date as day, (p_to at time zone 'UTC')::date as last) as first
    cross join generate_series(0, first.last - first.day) as n
    where tickets_ops.fires_on(s, first.day + n)
    offset 0
  ) as d
  cross join unnest(s.hours) as hour
  cross join unnest(s.minutes) as minute
  cross join lateral (select (d.day + make_time(hour, minute, 0)) at time zone 'UTC' as at) as run
  where s.dataset = p_dataset and run.at between p_from and p_to
$$;

COMMENT ON FUNCTION tickets_ops.scheduled_runs(p_dataset text, p_from timestamp with time zone, p_to timestamp with time zone) IS 'The times from p_from to p_to, both included, at which the schedule looks at a dataset''s folder. None before a worker has started.';

CREATE FUNCTION tickets_ops.scheduled_time(p_dataset text, p_from timestamp with time zone, p_to timestamp with time zone) RETURNS interval
    LANGUAGE sql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
  select coalesce(sum(least(run - before, interval '1 hour')), '0')
  -- A week is enough to tell any number of hours that is worth a setting.
  from (select greatest(p_from, p_to - interval '7 days') as from_at) as since
  cross join lateral (
    select run, lag(run) over (order by run) as before
    from tickets_ops.scheduled_runs(p_dataset, coalesce(tickets_ops.last_scheduled_run(since.from_at, p_dataset), since.from_at), p_to) as run
  ) as runs
  where run > since.from_at
$$;

COMMENT ON FUNCTION tickets_ops.scheduled_time(p_dataset text, p_from timestamp with time zone, p_to timestamp with time zone) IS 'How much of the time between two moments the schedule of a dataset covers, in hours between its runs (of a longer break, such as the night, one hour counts). At most that of a week.';

CREATE FUNCTION tickets_ops.seconds_per_call(p_rate numeric) RETURNS double precision
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN (1.03 / p_rate);

COMMENT ON FUNCTION tickets_ops.seconds_per_call(p_rate numeric) IS 'Seconds between two slots at a rate of so many calls a second: 3 percent more than the rate says.';

CREATE FUNCTION tickets_ops.setting_problems() RETURNS TABLE(severity text, problem text)
    LANGUAGE sql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
  with living as (
    select w.pool_id, w.host, w.started_at from tickets_ops.worker_states() w where tickets_ops.is_living(w.state, w.seen_at)
  ),
  -- Processes that run, and those that ran beside them.
  beside as (
    select pool_id, host from living
    union
    select w.pool_id, w.host from tickets_ops.workers w
    where w.stopped_at > now() - interval '1 day' and w.started_at >= (select min(started_at) from living)
  )
  select 'fault', format('%s differs between processes: %s. Give all of them the same.', s.name, string_agg(distinct format('%s on %s', s.value, b.host), ', '))
  from tickets_ops.settings s join beside b using (pool_id)
  group by s.name
  having count(distinct s.value) > 1
$$;

COMMENT ON FUNCTION tickets_ops.setting_problems() IS 'Settings that processes which run at the same time have with different values.';

CREATE FUNCTION tickets_ops.shortest_augmenting_paths(p_last integer[], p_column integer[], p_cost double precision[], p_columns integer, p_unmatched double precision, OUT column_of integer[], OUT row_potential double precision[]) RETURNS record
    LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
declare
  c_rows constant integer := cardinality(p_last);
  c_first constant integer[] := array_prepend(1, (select array_agg(l + 1 order by nth) from unnest(p_last) with ordinality as o (l, nth)));
  v_column_potential double precision[] := array_fill(0::double precision, array[p_columns]);
  v_row_of integer[] := array_fill(0, array[p_columns]);  -- 0: free
  v_matched integer := 0;
  v_cheapest_free integer[] := c_first;                   -- of each row, its first pair with a free column
  -- Of one search:
  v_distance double precision[] := array_fill('Infinity'::double precision, array[p_columns]);  -- -Infinity: final
  v_from integer[] := array_fill(0, array[p_columns]);    -- the row from which a column was reached
  v_reached integer[];                                    -- columns whose distance is not final
  v_final integer[];
  v_final_distance double precision[];
  v_so_far double precision;
  v_limit double precision;
  v_best double precision;
  v_end integer;                                          -- the best path's last column, 0: its last row is left unmatched
  v_end_row integer;
  v_next integer;
  v_slack double precision;
  i integer;
  j integer;
begin
  column_of := array_fill(0, array[c_rows]);
  row_potential := array_fill(0::double precision, array[c_rows]);
  for v_new in 1..c_rows loop
    i := v_new;
    v_so_far := 0;
    v_best := 'Infinity';
    v_reached := '{}';
    v_final := '{}';
    v_final_distance := '{}';
    loop
      v_so_far := v_so_far - row_potential[i];
      if v_so_far + p_unmatched < v_best then
        v_best := v_so_far + p_unmatched;
        v_end := 0;
        v_end_row := i;
      end if;
      while v_cheapest_free[i] <= p_last[i] and v_row_of[p_column[v_cheapest_free[i]]] > 0 loop
        v_cheapest_free[i] := v_cheapest_free[i] + 1;
      end loop;
      if v_cheapest_free[i] <= p_last[i] and v_so_far + p_cost[v_cheapest_free[i]] < v_best then
        v_best := v_so_far + p_cost[v_cheapest_free[i]];
        v_end := p_column[v_cheapest_free[i]];
        v_end_row := i;
      end if;
      v_limit := v_best - v_so_far;
      for pair in c_first[i]..p_last[i] loop
        exit when p_cost[pair] >= v_limit; -- so are the row's later pairs
        if v_so_far + p_cost[pair] - v_column_potential[p_column[pair]] < least(v_distance[p_column[pair]], v_best) then
          j := p_column[pair];
          if v_distance[j] = 'Infinity' then
            v_reached := v_reached || j;
          end if;
          v_distance[j] := v_so_far + p_cost[pair] - v_column_potential[j];
          v_from[j] := i;
        end if;
      end loop;
      v_so_far := v_best;
      v_next := 0;
      foreach j in array v_reached loop
        if v_distance[j] < v_so_far then
          v_so_far := v_distance[j];
          v_next := j;
        end if;
      end loop;
      exit when v_next = 0;
      v_reached := array_remove(v_reached, v_next);
      v_final := v_final || v_next;
      v_final_distance := v_final_distance || v_so_far;
      v_distance[v_next] := '-Infinity';
      i := v_row_of[v_next];
    end loop;

    row_potential[v_new] := row_potential[v_new] + v_best;
    for n in 1..cardinality(v_final) loop
      j := v_final[n];
      i := v_row_of[j];
      row_potential[i] := row_potential[i] + v_best - v_final_distance[n];
      v_column_potential[j] := v_column_potential[j] - v_best + v_final_distance[n];
    end loop;
    foreach j in array v_reached || v_final loop
      v_distance[j] := 'Infinity';
    end loop;

    if v_end > 0 then
      v_matched := v_matched + 1;
    end if;
    i := v_end_row;
    j := v_end;
    loop
      v_next := column_of[i];
      column_of[i] := j;
      if j > 0 then
        v_row_of[j] := i;
      end if;
      exit when i = v_new;
      j := v_next;
      i := v_from[j];
    end loop;

    -- Rows that compete for the same columns (all vehicles in one depot): raise what all of them pay together until the next
    -- free column is as good for one of them. It halves the searches to come.
    continue when v_matched = p_columns;
    v_slack := 'Infinity';
    for r in 1..v_new loop
      continue when column_of[r] = 0;
      while v_cheapest_free[r] <= p_last[r] and v_row_of[p_column[v_cheapest_free[r]]] > 0 loop
        v_cheapest_free[r] := v_cheapest_free[r] + 1;
      end loop;
      v_slack := least(v_slack, case when v_cheapest_free[r] <= p_last[r] then p_cost[v_cheapest_free[r]] else p_unmatched end - row_potential[r]);
    end loop;
    if v_slack > 0 and v_slack < 'Infinity' then
      for r in 1..v_new loop
        continue when column_of[r] = 0;
        row_potential[r] := row_potential[r] + v_slack;
        v_column_potential[column_of[r]] := v_column_potential[column_of[r]] - v_slack;
      end loop;
    end if;
  end loop;
end
$$;

COMMENT ON FUNCTION tickets_ops.shortest_augmenting_paths(p_last integer[], p_column integer[], p_cost double precision[], p_columns integer, p_unmatched double precision, OUT column_of integer[], OUT row_potential double precision[]) IS 'For each row its column, 0 for none, and its potential: no row pays more than that, and a column to which it lists no pair, costing more, would not better the matching. The pairs of row i are those up to p_last[i], after those of row i - 1, sorted by cost; p_unmatched: what leaving a row unmatched costs, more than any matching can save. Time is spent where rows compete: prefer as rows what comes cheapest first. Called by tickets_ops.min_cost_matching.';

CREATE FUNCTION tickets_ops.sign_verdict() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
declare
  v_row jsonb := to_jsonb(new);
  v_before jsonb;
begin
  if tickets_ops.is_pipeline() then
    return new;
  end if;
  if tickets_ops.undoing() is not null then
    select d.before into v_before
    from tickets.geo_decisions d
    where d.decision_id = tickets_ops.undoing()
      and d.cluster = new.cluster and d.location_key is not distinct from v_row ->> 'location_key';
    if v_before is null then
      raise exception 'Decision % changed no such row.', tickets_ops.undoing();
    end if;
    -- Every column, whatever the statement and the triggers before this one made of the row.
    return jsonb_populate_record(new, v_before);
  end if;
  if not new.verified then
    new.verified_by := null;
    new.verified_at := null;
  elsif tg_op = 'INSERT' or not old.verified or new.geom::bytea is distinct from old.geom::bytea
    or v_row ->> 'status' is distinct from to_jsonb(old) ->> 'status' -- clusters have none
  then
    new.verified_by := tickets_ops.person();
    new.verified_at := now();
  else
    new.verified_by := old.verified_by;
    new.verified_at := old.verified_at;
  end if;
  return new;
end
$$;

COMMENT ON FUNCTION tickets_ops.sign_verdict() IS 'Trigger on a person''s write of a gazetteer row: says in verified_by and verified_at who verified it and when, whatever the statement wrote there; under tickets.undo_decision it restores the row instead.';

CREATE FUNCTION tickets_ops.skip_file(p_key text) RETURNS text
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET lock_timeout TO '10s'
    AS $$
declare
  v_snapshot tickets_ops.snapshots;
begin
  select s.* into v_snapshot
  from tickets_ops.snapshots s
  where s.dataset in (select tickets.datasets()) and s.source_key = p_key and s.dismissed_at is null
    and s.status in ('failed', 'held', 'partial') -- index snapshots_by_file
  order by s.snapshot_id desc limit 1;
  if not found then
    raise exception 'No file % has failed, is held, or is loaded only in part.', p_key
      using hint = 'Give its whole key, as tickets_ops.health names it: automations/inc/2026-06-15T09-00-00.csv.';
  end if;
  v_snapshot := tickets_ops.locked_snapshot(v_snapshot.snapshot_id);
  if v_snapshot.status = 'held' then
    perform tickets_ops.dismiss_snapshot(v_snapshot.snapshot_id);
  elsif v_snapshot.status not in ('failed', 'partial') then
    raise exception '% is %: it need not be skipped any more.', p_key, v_snapshot.status;
  end if;
  update tickets_ops.snapshots s
  set dismissed_at = now(), progress_at = now(),
    error = format('Skipped by %s, so what it changes is lost. %s', session_user, tickets_ops.reason(s))
  where s.snapshot_id = v_snapshot.snapshot_id;
  if tickets_ops.feed(v_snapshot.dataset) = 'snapshots' then
    return format('%s is skipped: the next file holds what it holds.', p_key);
  end if;
  perform tickets_ops.continue_backfill(v_snapshot.dataset);
  return format('%s is skipped: what it changes is lost. The files behind it are loaded now.', p_key);
exception when lock_not_available then
  perform tickets_ops.raise_blocked();
  return null;
end
$$;

COMMENT ON FUNCTION tickets_ops.skip_file(p_key text) IS 'Gives up a file of a feed of changes that failed, is held, or was loaded only in part, so that those behind it are loaded: select tickets_ops.skip_file(''automations/inc/2026-06-15T09-00-00.csv''). What it changes is lost, and the ledger says who decided so. Raises when there is no such file, and when others hold its row for ten seconds.';

CREATE FUNCTION tickets_ops.snapshot_problems(p_dataset text) RETURNS TABLE(severity text, problem text)
    LANGUAGE sql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
  -- Of changes each file is needed: tickets_ops.changes_problems. Of snapshots, what was loaded, or found unchanged, at the file's
  -- own place or above makes up for a failure. A future-dated file says nothing before its time has come.
  (
    select 'fault', format('Snapshot %s (%s) failed: %s', s.snapshot_id, s.source_key, s.error)
    from tickets_ops.snapshots s
    where s.dataset = p_dataset and tickets_ops.is_failure(s) and s.dismissed_at is null
      and tickets_ops.feed(p_dataset) = 'snapshots'
      and s.snapshot_at <= now() + tickets_ops.clock_tolerance()
      and not exists (
        select from tickets_ops.snapshots g
        where g.dataset = s.dataset and tickets_ops.counts_as_loaded(g.status) and g.snapshot_at >= s.snapshot_at -- index snapshots_by_time
          and not tickets_ops.is_older(g.snapshot_at, g.source_last_modified, g.source_key, s.snapshot_at, s.source_last_modified, s.source_key)
      )
    order by s.snapshot_at desc, s.snapshot_id desc -- index snapshots_by_time
    limit 1
  )
  union all
  select 'fault', format('Snapshot %s (%s) is held: %s Load it: select tickets_ops.release_snapshot(%s); drop it: select tickets_ops.dismiss_snapshot(%s);%s',
    s.snapshot_id, s.source_key, s.hold_reason, s.snapshot_id, s.snapshot_id,
    case when s.held_since is not null then
      format(' Or wait: a file of %s or later that shows the same is loaded.', tickets_ops.wall_clock(s.held_since + tickets_ops.hold_time()))
    end)
  from tickets_ops.snapshots s
  where s.dataset = p_dataset and s.status = 'held' and tickets_ops.feed(p_dataset) = 'snapshots'
  union all
  select 'fault', format('Snapshot %s (%s) is loaded only in part. %s', s.snapshot_id, s.source_key, s.broken_off)
  from tickets_ops.last_loaded(p_dataset) s
  where s.status = 'partial' and tickets_ops.feed(p_dataset) = 'snapshots'
  union all
  -- Until a better one comes.
  select 'warning', format('Snapshot %s (%s) was loaded, and is odd: %s', s.snapshot_id, s.source_key, warning)
  from tickets_ops.last_loaded(p_dataset) s, unnest(s.warnings) as warning
  union all
  select 'fault', format('Snapshot %s is %s and has not moved for %s.', s.snapshot_id, s.status, date_trunc('second', now() - s.progress_at))
  from tickets_ops.snapshots s
  where s.dataset = p_dataset and s.in_flight -- index snapshots_one_in_flight
    and s.progress_at < now() - interval '15 minutes'
  union all
  select 'warning', format('Snapshot %s (%s), part of a backfill, failed, and the backfill went on without it: %s', s.snapshot_id, s.source_key, s.error)
  from tickets_ops.snapshots s
  where s.dataset = p_dataset and tickets_ops.is_failure(s) and s.backfill and tickets_ops.feed(p_dataset) = 'snapshots'
    and s.dismissed_at is null and s.progress_at > now() - interval '7 days'
  union all
  select 'warning', format('%s lies in the folder and is not loaded: %s', s.source_key, s.error)
  from tickets_ops.snapshots s
  where s.dataset = p_dataset and s.ignored and s.dismissed_at is null and s.listed_at > now() - interval '1 day'
  union all
  -- The look of an hour later has tried again.
  select 'warning', format('%s loaded file(s) could not be archived, the oldest of them %s, which was loaded on %s. fleettickets doctor tries the rights in the bucket.',
    count(*), (array_agg(s.source_key order by s.loaded_at))[1], tickets_ops.wall_clock(min(s.loaded_at)))
  from tickets_ops.snapshots s
  where s.dataset = p_dataset and s.origin = 'bucket' and tickets_ops.is_whole(s.status) and s.archived_at is null -- index snapshots_unarchived
    and s.loaded_at < now() - interval '90 minutes'
  having count(*) > 0
$$;

COMMENT ON FUNCTION tickets_ops.snapshot_problems(p_dataset text) IS 'What is wrong with the snapshots of a dataset (inc, crq), as faults and warnings in words.';

CREATE FUNCTION tickets_ops.snooze_geocoding(p_job_id bigint, p_task text, p_wait_ms double precision, p_until_resolved text DEFAULT NULL::text) RETURNS void
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
declare
  v_job record;
  v_job_id bigint;
  v_key text;
  v_waiting bigint;
  v_nobody_writes boolean;
begin
  -- A job that asks for the same meanwhile waits for this row, and replaces what is added here.
  perform tickets_ops.lock_job(p_job_id);
  select * into v_job from tickets_ops.queued_jobs() where id = p_job_id;
  v_key := coalesce(v_job.key, tickets_ops.geocoding_job_key(p_task, v_job.payload::jsonb));
  perform tickets_ops.lock_job(j.id) from tickets_ops.queued_jobs() j where j.key = v_key and j.id <> p_job_id;
  select j.id into v_waiting
  from tickets_ops.queued_jobs() j
  where j.key = v_key and j.id <> p_job_id and j.state <> 'failed';
  if v_waiting is not null then
    -- Asked for anew since: that job stays as it is, but for what this one was to force.
    if v_job.payload ->> 'force' = 'true' then
      perform tickets_ops.advance_job(v_waiting, p_add := '{"force": true}');
    end if;
    return;
  end if;
  v_job_id := tickets_ops.enqueue(
    p_task,
    (v_job.payload::jsonb || jsonb_build_object('snoozes', coalesce((v_job.payload ->> 'snoozes')::integer, 0) + 1))::json,
    v_key,
    now() + make_interval(secs => p_wait_ms / 1000),
    v_job.priority,
    -- The attempts that failed stay used up.
    p_max_attempts := v_job.max_attempts - v_job.attempts + 1
  );
  if p_until_resolved is not null then
    -- The job that resolves a cluster holds this lock until it can be seen, and then wakes what waits: from here on this job too.
    -- Taken last, so that nobody is waited for with it.
    v_nobody_writes := pg_try_advisory_xact_lock_shared(tickets.gazetteer_lock());
    if not v_nobody_writes
      -- Resolved since it was looked at.
      or exists (
        select from tickets.geo_clusters c
        where c.cluster = p_until_resolved and (c.geom is not null or tickets_ops.is_unresolvable(c))
      )
    then
      perform tickets_ops.advance_job(v_job_id, now() + case when v_nobody_writes then interval '0' else interval '2 seconds' end);
    end if;
  end if;
end
$$;

COMMENT ON FUNCTION tickets_ops.snooze_geocoding(p_job_id bigint, p_task text, p_wait_ms double precision, p_until_resolved text) IS 'A running geocoding job comes back in so many milliseconds; at once when the cluster p_until_resolved has a centroid by now or none is to be had, and soon while somebody is writing a gazetteer; and this run uses up no attempt. Where the same was asked for anew meanwhile, that job stands.';

CREATE FUNCTION tickets_ops.sphere_metres(p_from public.geography, p_to public.geography) RETURNS double precision
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN (p_from OPERATOR(public.<->) p_to);

COMMENT ON FUNCTION tickets_ops.sphere_metres(p_from public.geography, p_to public.geography) IS 'Metres between two points on a sphere: a quarter of the time that tickets.metres takes, and near it (tickets_ops.sphere_error).';

CREATE FUNCTION tickets_ops.storage_metrics() RETURNS TABLE(name text, labels jsonb, value double precision)
    LANGUAGE sql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
  select 'storage_bytes', jsonb_build_object('part', p.part), coalesce(sum(s.bytes), 0)
  from (select k.part from tickets_ops.kept_tables() k union select 'takeover') as p
  left join tickets_ops.storage s on s.part = p.part
  group by p.part
$$;

COMMENT ON FUNCTION tickets_ops.storage_metrics() IS 'Metrics of what the tables take.';

CREATE FUNCTION tickets_ops.sweep() RETURNS TABLE(dataset text, placed bigint, baselines bigint, digests bigint)
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
declare
  v_began timestamptz;
begin
  if not pg_try_advisory_xact_lock_shared(tickets.gazetteer_lock()) then
    return; -- somebody writes a gazetteer
  end if;
  for dataset in
    select s.dataset from tickets_ops.sweeps s
    where s.dataset in (select tickets.datasets()) and (s.swept_at is null or s.swept_at + 100 * s.took <= clock_timestamp())
    for update skip locked
  loop
    v_began := clock_timestamp();
    placed := tickets.place_tickets(dataset);
    -- As of what is loaded: history is in the order of the export's times.
    baselines := tickets_ops.record_baselines(dataset, null, (tickets_ops.high_water_mark(dataset)).snapshot_at);
    digests := tickets_ops.remove_orphaned_digests(dataset);
    update tickets_ops.sweeps s set swept_at = clock_timestamp(), took = clock_timestamp() - v_began where s.dataset = sweep.dataset;
    if placed + baselines + digests > 0 then
      return next;
    end if;
  end loop;
end
$$;

COMMENT ON FUNCTION tickets_ops.sweep() IS 'Places the tickets that disagree with the gazetteers, begins the history of those that have none, and removes digests of tickets that are gone. Reads all tickets of a dataset, so it rests a hundred times as long as it took: it costs a hundredth of a core at most. Maintenance calls it. Returns what it did for which dataset; no row where there was nothing to do.';

CREATE FUNCTION tickets_ops.take_ticket(p_ticket_id text, p_vehicle_id text, p_position integer, p_metres double precision, p_take_over boolean) RETURNS tickets.assignments
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET lock_timeout TO '10s'
    AS $$
declare
  v_mine tickets.assignments;
  v_held tickets.assignments;
begin
  -- Waits for a load that is writing the ticket; and until this commits, none closes it unseen.
  perform from tickets.inc t where t.ticket_id = p_ticket_id and t.is_actionable for share;
  if not found then
    raise exception 'There is no open ticket %.', p_ticket_id using errcode = 'no_data_found';
  end if;
  loop
    insert into tickets.assignments (ticket_id, vehicle_id, position, metres)
    select p_ticket_id, p_vehicle_id, coalesce(p_position, max(a.position) + 1, 1), p_metres
    from tickets.assignments a where a.vehicle_id = p_vehicle_id and a.state = 'assigned'
    on conflict do nothing
    returning * into v_mine;
    if found then
      return v_mine;
    end if;
    -- Another vehicle has the ticket; or this one was sent somewhere else at the same moment, and the position is taken.
    p_position := null;
    select a.* into v_held from tickets.assignments a where a.ticket_id = p_ticket_id and a.state = 'assigned' for update;
    continue when not found; -- the position, or the ticket has been given back meanwhile
    if v_held.vehicle_id = p_vehicle_id then
      return v_held;
    elsif not p_take_over then
      raise exception 'Ticket % is assigned to vehicle % already (by %, %).', p_ticket_id, v_held.vehicle_id, v_held.assigned_by,
        to_char(v_held.assigned_at at time zone 'Africa/Nairobi', 'YYYY-MM-DD HH24:MI')
        using errcode = 'object_in_use', hint = 'Take it over by p_take_over => true, or release it first.';
    end if;
    update tickets.assignments
    set state = 'released', ended_at = now(), end_reason = format('taken over by vehicle %s', p_vehicle_id)
    where assignment_id = v_held.assignment_id;
  end loop;
exception when lock_not_available then
  perform tickets_ops.raise_blocked();
  return null;
end
$$;

COMMENT ON FUNCTION tickets_ops.take_ticket(p_ticket_id text, p_vehicle_id text, p_position integer, p_metres double precision, p_take_over boolean) IS 'Assigns an open ticket to a vehicle, whether or not tickets.vehicles lists that. p_position NULL, or taken by now: as its last. Called by tickets.assign and tickets.assign_plan.';

CREATE FUNCTION tickets_ops.ticket_metrics() RETURNS TABLE(name text, labels jsonb, value double precision)
    LANGUAGE sql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
  with open as materialized (
    select case when at_risk then 'at_risk' else sla_state end as sla_state, geo_source, count(*) as tickets
    from tickets.inc_open_sla
    group by 1, 2
  ),
  open_crq as materialized (
    select geo_source, count(*) as tickets from tickets.crq_open group by 1
  )
  select 'tickets_open', jsonb_build_object('sla_state', s.state), coalesce(sum(o.tickets), 0)
  from unnest(array['ok', 'at_risk', 'breached', 'unknown']) as s (state) left join open o on o.sla_state = s.state
  group by s.state
  union all
  select 'tickets_placed', jsonb_build_object('geo_source', s.source), coalesce(sum(o.tickets), 0)
  from unnest(array['feed', 'location', 'cluster', 'none']) as s (source) left join open o on o.geo_source = s.source
  group by s.source
  union all
  select 'tickets_open', '{"dataset": "crq"}', coalesce((select sum(tickets) from open_crq), 0)
  where 'crq' in (select tickets.datasets())
  union all
  select 'tickets_placed', jsonb_build_object('dataset', 'crq', 'geo_source', s.source), coalesce(o.tickets, 0)
  from unnest(array['feed', 'location', 'cluster', 'none']) as s (source) left join open_crq o on o.geo_source = s.source
  where 'crq' in (select tickets.datasets())
  union all
  select 'assignments_open', '{}', count(*) from tickets.assignments where state = 'assigned'
$$;

COMMENT ON FUNCTION tickets_ops.ticket_metrics() IS 'Metrics of open tickets.';

CREATE FUNCTION tickets_ops.unlock_pools(p_pools text[]) RETURNS bigint[]
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
declare
  -- A killed worker costs its jobs an attempt; it is given back, up to this many.
  c_most_attempts constant integer := 25;
  v_set_aside bigint[];
  v_over bigint[];
begin
  with died as (
    update graphile_worker._private_jobs
    set flags = coalesce(flags, '{}') || '{"worker_died": true}',
      max_attempts = case
        -- Twice: it may be what kills them, and the next worker would be the third.
        when flags ? 'worker_died' then greatest(attempts, 1)
        when flags ? 'given_up' then max_attempts
        else greatest(max_attempts, least(max_attempts + 1, c_most_attempts))
      end,
      last_error = case when flags ? 'worker_died' then 'Its worker died while it ran, twice, so it is set aside: it may be the cause. Try it again: select * from tickets_ops.retry_job(' || id || ');' else last_error end
    where locked_by = any (p_pools)
    returning id, attempts >= max_attempts as is_over, attempts >= max_attempts and last_error like 'Its worker died while it ran%' as is_set_aside
  )
  select coalesce(array_agg(id) filter (where is_set_aside), '{}'), array_agg(id) filter (where is_over) into v_set_aside, v_over from died;
  perform graphile_worker.force_unlock_workers(p_pools);
  -- As a failure does: tickets_ops.jobs reads from it when the job failed.
  update graphile_worker._private_jobs set run_at = now() + exp(least(attempts, 10)) * interval '1 second' where id = any (v_over);
  -- As adding a job does: workers look now, not at their next poll.
  perform pg_notify('jobs:insert', '{"r":0,"count":64}');
  return v_set_aside;
end
$$;

COMMENT ON FUNCTION tickets_ops.unlock_pools(p_pools text[]) IS 'Frees the jobs and queues of worker pools that are dead. A job under which a worker died for the second time is set aside: no attempt is left, and its last_error says why. Returns the ids of those.';

CREATE FUNCTION tickets_ops.unmatched_cost(p_rows bigint, p_least double precision, p_most double precision) RETURNS double precision
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN (((p_most + ((p_rows)::double precision * (p_most - p_least))) + abs(p_most)) + (1)::double precision);

COMMENT ON FUNCTION tickets_ops.unmatched_cost(p_rows bigint, p_least double precision, p_most double precision) IS 'What leaving a row unmatched costs (p_unmatched of tickets_ops.shortest_augmenting_paths): more than any matching of p_rows rows can save whose pairs cost from p_least to p_most.';

CREATE FUNCTION tickets_ops.vehicle_metrics() RETURNS TABLE(name text, labels jsonb, value double precision)
    LANGUAGE sql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
  with seen as materialized (
    select * from tickets_ops.count_vehicles()
  )
  select 'vehicles', jsonb_build_object('freshness', f.freshness),
    case when exists (select from seen where trouble is not null) then 'NaN' else coalesce(s.vehicles, 0)::double precision end
  from unnest(array['live', 'parked', 'stale', 'lost', 'clock', 'nowhere']) as f (freshness)
  left join seen s on s.freshness = f.freshness
$$;

COMMENT ON FUNCTION tickets_ops.vehicle_metrics() IS 'Metrics of the vehicles; what is wrong with tickets.vehicles stays here.';

CREATE FUNCTION tickets_ops.vehicle_problems() RETURNS TABLE(severity text, problem text)
    LANGUAGE sql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
  select v.severity, v.trouble from tickets_ops.count_vehicles() v where v.severity is not null
$$;

COMMENT ON FUNCTION tickets_ops.vehicle_problems() IS 'Why tickets.vehicles cannot be read, in words. Tickets and their places do not depend on it.';

CREATE FUNCTION tickets_ops.violating_rows(p_dataset text, p_constraint text, p_snapshot_id bigint, p_first text, p_last text) RETURNS SETOF text
    LANGUAGE plpgsql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $_$
declare
  v_table regclass := format('tickets.%I', p_dataset)::regclass;
  v_check text;
  v_plain text;
  v_generated text;
begin
  select pg_get_expr(c.conbin, c.conrelid) into v_check
  from pg_constraint c
  where c.conrelid = v_table and c.conname = p_constraint and c.contype = 'c';
  if v_check is null then
    return;
  end if;
  select
    string_agg(
      case a.attname
        when 'ticket_id' then 'r.ticket_id'
        when 'raw' then 'r.raw'
        else format('null::%s as %I', format_type(a.atttypid, a.atttypmod), a.attname)
      end, ', ') filter (where a.attgenerated = ''),
    string_agg(format(', (%s) as %I', pg_get_expr(d.adbin, d.adrelid), a.attname), '') filter (where a.attgenerated <> '')
  into v_plain, v_generated
  from pg_attribute a
  left join pg_attrdef d on d.adrelid = a.attrelid and d.adnum = a.attnum
  where a.attrelid = v_table and a.attnum > 0 and not a.attisdropped;
  -- Of the generated columns Postgres computes only those that the check names.
  return query execute format(
    'select ticket.ticket_id
     from (
       select staged.*%s
       from (
         select %s from tickets_ops.snapshot_rows r
         where r.snapshot_id = $1 and r.ticket_id between $2 and $3 and r.raw is not null -- primary key
       ) as staged
     ) as ticket
     where not (%s)', v_generated, v_plain, v_check)
  using p_snapshot_id, p_first, p_last;
end
$_$;

COMMENT ON FUNCTION tickets_ops.violating_rows(p_dataset text, p_constraint text, p_snapshot_id bigint, p_first text, p_last text) IS 'Ids of the staged rows of a snapshot, in a range of ids, that a check constraint of tickets.inc or tickets.crq refuses, as far as it looks at what comes from raw; none for another kind of constraint. All of a batch in milliseconds, where writing them one by one costs as many errors.';

CREATE FUNCTION tickets_ops.wake_geocoding() RETURNS void
    LANGUAGE sql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
  select tickets_ops.run_jobs_now(array_agg(j.id))
  from tickets_ops.queued_jobs() j
  where tickets_ops.is_geocoding(j.task) and j.run_at > now() and j.last_error is null;
$$;

COMMENT ON FUNCTION tickets_ops.wake_geocoding() IS 'Every geocoding job that waits, for whatever reason, may run now; it puts itself off again if it still has to wait.';

CREATE FUNCTION tickets_ops.wake_locations(p_cluster text) RETURNS void
    LANGUAGE sql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
  select tickets_ops.run_jobs_now(array_agg(j.id))
  from tickets_ops.queued_jobs() j
  where j.task = 'geocode_location'
    and starts_with(j.key, tickets_ops.location_job_key(p_cluster, ''))
    and j.run_at > now()
    and j.last_error is null;
$$;

COMMENT ON FUNCTION tickets_ops.wake_locations(p_cluster text) IS 'The geocode_location jobs that wait for a cluster''s centroid may run now: it has one, or none is to be had.';

CREATE FUNCTION tickets_ops.wipe_staging(p_snapshot_id bigint) RETURNS void
    LANGUAGE sql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
  delete from tickets_ops.snapshot_rows where snapshot_id = p_snapshot_id;
  delete from tickets_ops.snapshot_batches where snapshot_id = p_snapshot_id;
$$;

COMMENT ON FUNCTION tickets_ops.wipe_staging(p_snapshot_id bigint) IS 'Deletes what is staged of a snapshot. Its rejects stay.';

CREATE FUNCTION tickets_ops.worker_breaking_revision() RETURNS integer
    LANGUAGE sql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
  select max(id) from graphile_worker.migrations where breaking
$$;

COMMENT ON FUNCTION tickets_ops.worker_breaking_revision() IS 'graphile-worker''s last revision of its tables that workers of before it must not go on with.';

CREATE FUNCTION tickets_ops.worker_lock(p_pool_id text, OUT space integer, OUT number integer) RETURNS record
    LANGUAGE sql IMMUTABLE
    RETURN ROW(740512, hashtext(p_pool_id));

COMMENT ON FUNCTION tickets_ops.worker_lock(p_pool_id text, OUT space integer, OUT number integer) IS 'The two numbers of the advisory lock that a live worker pool holds.';

CREATE FUNCTION tickets_ops.worker_problems() RETURNS TABLE(severity text, problem text)
    LANGUAGE sql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
  select 'fault', 'No worker is alive: start one (fleettickets worker).'
  where not exists (
    select from tickets_ops.worker_states() w
    where tickets_ops.is_living(w.state, w.seen_at)
  )
  union all
  select 'fault', format(
    '%s worker(s) hang: they hold their lock but have not been heard of for %s minutes.',
    count(*), extract(epoch from tickets_ops.hung_after())::integer / 60
  )
  from tickets_ops.worker_states() w where w.state = 'hung' having count(*) > 0
$$;

COMMENT ON FUNCTION tickets_ops.worker_problems() IS 'What is wrong with the workers, as faults and warnings in words.';

CREATE FUNCTION tickets_ops.worker_schema() RETURNS text
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN 'graphile_worker'::text;

COMMENT ON FUNCTION tickets_ops.worker_schema() IS 'The schema that holds the jobs (setting WORKER_SCHEMA), fixed by the first migration.';

CREATE FUNCTION tickets_ops.worker_states() RETURNS TABLE(pool_id text, state text, host text, pid integer, sessions text, started_at timestamp with time zone, seen_at timestamp with time zone)
    LANGUAGE sql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
  select
    w.pool_id,
    case
      when w.stopped_at is not null then 'stopped'
      when w.declared_dead_at is not null then 'dead'
      when w.shares_sessions then 'unsure'
      -- Looked at, not tried: a session can always take a lock that it holds itself.
      when not exists (
        select
        from pg_locks l, tickets_ops.worker_lock(w.pool_id) k
        where l.locktype = 'advisory' and l.granted and l.objsubid = 2
          and l.database = (select oid from pg_database where datname = current_database())
          and l.classid::bigint = k.space and l.objid::bigint = k.number::bigint & 4294967295
      ) then 'dead'
      when w.seen_at < now() - tickets_ops.hung_after() then 'hung'
      else 'alive'
    end,
    w.host, w.pid, w.sessions, w.started_at, w.seen_at
  from tickets_ops.workers w
$$;

COMMENT ON FUNCTION tickets_ops.worker_states() IS 'Registered worker pools, each with its state: alive; stopped (in good order); dead (its lock is free, or it was declared dead); hung (it holds its lock and has not been heard of for tickets_ops.hung_after()); unsure (its connections share sessions, so nobody can tell).';

CREATE AGGREGATE tickets.collect(anycompatible) (
    SFUNC = array_append,
    STYPE = anycompatiblearray,
    COMBINEFUNC = array_cat,
    PARALLEL = safe
);

COMMENT ON AGGREGATE tickets.collect(anycompatible) IS 'array_agg without an order, for parallel plans.';

CREATE AGGREGATE tickets.concat(anycompatiblearray) (
    SFUNC = array_cat,
    STYPE = anycompatiblearray,
    COMBINEFUNC = array_cat,
    PARALLEL = safe
);

COMMENT ON AGGREGATE tickets.concat(anycompatiblearray) IS 'One array of all elements of several, which may differ in length.';

ALTER TABLE tickets.assignments ALTER COLUMN assignment_id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME tickets.assignments_assignment_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE VIEW tickets.assignments_in_doubt AS
 SELECT a.assignment_id,
    a.ticket_id,
    a.vehicle_id,
    a."position",
    a.assigned_at,
    a.assigned_by,
    v.freshness,
    v.located_at,
    v.seen_at,
        CASE
            WHEN (v.vehicle_id IS NULL) THEN 'tickets.vehicles no longer lists the vehicle'::text
            ELSE COALESCE(('nothing was heard of the vehicle for '::text || justify_interval(date_trunc('minute'::text, (now() - heard.at)))), 'nothing was ever heard of the vehicle'::text)
        END AS doubt
   FROM ((tickets.assignments a
     LEFT JOIN tickets.vehicles_now v ON ((v.vehicle_id = a.vehicle_id)))
     CROSS JOIN LATERAL ( SELECT max(t.at) AS at
           FROM ( VALUES (v.located_at), (v.seen_at)) t(at)
          WHERE (t.at <= (now() + '12:00:00'::interval))) heard)
  WHERE ((a.state = 'assigned'::text) AND (COALESCE(heard.at, '-infinity'::timestamp with time zone) < (now() - '12:00:00'::interval)));

COMMENT ON VIEW tickets.assignments_in_doubt IS 'Assignments of vehicles of which nothing was heard for 12 hours. None is released by itself: a person does it (tickets.release), or assigns the ticket anew (tickets.assign, p_take_over).';

COMMENT ON COLUMN tickets.assignments_in_doubt.assignment_id IS 'tickets.assignments.assignment_id.';

COMMENT ON COLUMN tickets.assignments_in_doubt.ticket_id IS 'The ticket.';

COMMENT ON COLUMN tickets.assignments_in_doubt.vehicle_id IS 'The vehicle.';

COMMENT ON COLUMN tickets.assignments_in_doubt."position" IS 'The vehicle''s first, second … ticket.';

COMMENT ON COLUMN tickets.assignments_in_doubt.assigned_at IS 'When it was sent.';

COMMENT ON COLUMN tickets.assignments_in_doubt.assigned_by IS 'The database role that sent it.';

COMMENT ON COLUMN tickets.assignments_in_doubt.freshness IS 'As in tickets.vehicles_now. NULL: the vehicle is gone.';

COMMENT ON COLUMN tickets.assignments_in_doubt.located_at IS 'When its last position was taken.';

COMMENT ON COLUMN tickets.assignments_in_doubt.seen_at IS 'When its tracker last reported anything.';

COMMENT ON COLUMN tickets.assignments_in_doubt.doubt IS 'Why, in words.';

CREATE TABLE tickets.crq_events (
    event_id bigint NOT NULL,
    ticket_id text NOT NULL,
    event text NOT NULL,
    old_value text,
    new_value text,
    snapshot_id bigint,
    snapshot_at timestamp with time zone,
    recorded_at timestamp with time zone DEFAULT now() NOT NULL,
    assigned_team text,
    owner text,
    cluster text,
    region text,
    created_at_service timestamp with time zone,
    closed_at timestamp with time zone,
    mttr numeric,
    sla_status text,
    team_before text,
    CONSTRAINT inc_events_context CHECK (((event = ANY (ARRAY['baseline'::text, 'opened'::text, 'closed'::text, 'reopened'::text])) OR ((num_nonnulls(assigned_team, owner, cluster, region, created_at_service, team_before) = 0) AND ((event = 'closure_corrected'::text) OR (num_nonnulls(closed_at, mttr, sla_status) = 0))))),
    CONSTRAINT inc_events_event_check CHECK ((event = ANY (ARRAY['baseline'::text, 'opened'::text, 'closed'::text, 'reopened'::text, 'closure_corrected'::text, 'status_changed'::text, 'team_changed'::text, 'cluster_changed'::text])))
);

COMMENT ON TABLE tickets.crq_events IS 'History of tickets.crq, as tickets.inc_events.';

COMMENT ON COLUMN tickets.crq_events.event_id IS 'Order of writing.';

COMMENT ON COLUMN tickets.crq_events.ticket_id IS 'tickets.inc.ticket_id.';

COMMENT ON COLUMN tickets.crq_events.event IS 'opened: first seen open. closed: stopped being actionable, or first seen closed (old_value is then NULL). reopened. closure_corrected: closed_at or mttr changed while the ticket stayed closed. status_changed, team_changed, cluster_changed. baseline: existed when history began.';

COMMENT ON COLUMN tickets.crq_events.old_value IS 'The value before: of assigned_team or cluster for team_changed and cluster_changed, else normalized_status. NULL at first sight (baseline, opened, and closed of a ticket that was never seen open); a closing or reopening of a ticket that had no status has an empty text.';

COMMENT ON COLUMN tickets.crq_events.new_value IS 'The value after: assigned_team, cluster, else normalized_status.';

COMMENT ON COLUMN tickets.crq_events.snapshot_id IS 'tickets_ops.snapshots.snapshot_id that brought the change. NULL for a baseline; 0 for what a takeover imported from the history of the Python version.';

COMMENT ON COLUMN tickets.crq_events.snapshot_at IS 'The export''s own time of that snapshot: use this as the time axis of what was observed. It trails what happened by days: see tickets.reporting_lag().';

COMMENT ON COLUMN tickets.crq_events.recorded_at IS 'When the event was written.';

COMMENT ON COLUMN tickets.crq_events.assigned_team IS 'This and the columns that follow: the ticket as the snapshot left it, on baseline, opened, closed and reopened; NULL on the others. For a closing the team that is credited with it. Cut to 100 characters, as are cluster and region.';

COMMENT ON COLUMN tickets.crq_events.owner IS 'As assigned_team: the ticket''s owner then.';

COMMENT ON COLUMN tickets.crq_events.cluster IS 'As assigned_team: the ticket''s cluster then.';

COMMENT ON COLUMN tickets.crq_events.region IS 'As assigned_team: the ticket''s region then.';

COMMENT ON COLUMN tickets.crq_events.created_at_service IS 'As assigned_team: what was known of the ticket''s creation then. It is often told later: tickets.inc has what is known today.';

COMMENT ON COLUMN tickets.crq_events.closed_at IS 'As assigned_team; also on closure_corrected, where it is the corrected time.';

COMMENT ON COLUMN tickets.crq_events.mttr IS 'The source''s repair time in whole minutes, as in tickets.inc. As closed_at also on closure_corrected.';

COMMENT ON COLUMN tickets.crq_events.sla_status IS 'The source''s own verdict, which means something on closings only. As closed_at also on closure_corrected.';

COMMENT ON COLUMN tickets.crq_events.team_before IS 'As assigned_team: the team before this snapshot. NULL at first sight, and where there was none.';

ALTER TABLE tickets.crq_events ALTER COLUMN event_id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME tickets.crq_events_event_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE VIEW tickets.crq_open AS
 SELECT t.ticket_id,
    t.normalized_status,
    clock.clock_start,
    clock.clock_source,
    clock.hours_open,
    t.assigned_team,
    t.cluster,
    t.region,
    t.owner,
    t.location_name,
    t.geo_source,
    t.geom,
    t.geog
   FROM (tickets.crq t
     CROSS JOIN LATERAL tickets.open_clock(t.created_at_service, t.first_seen_at) clock(clock_start, clock_source, hours_open))
  WHERE t.is_actionable;

COMMENT ON VIEW tickets.crq_open IS 'Open (actionable) requests for new installations with their clock, as of now(). There is no SLA: no contract is known. Nearest ones: order by geog <-> point limit n (index crq_open_geog). Loaded where CRQ_ENABLED=true; where that was turned off, as they were last.';

COMMENT ON COLUMN tickets.crq_open.ticket_id IS 'The request''s number.';

COMMENT ON COLUMN tickets.crq_open.normalized_status IS 'The canonical status: filter on this one.';

COMMENT ON COLUMN tickets.crq_open.clock_start IS 'When the clock started: created_at_service, or where the feed lacks it first_seen_at, which is when the export first saw the request and so up to days late.';

COMMENT ON COLUMN tickets.crq_open.clock_source IS 'Which of the two clock_start is: created_at_service or first_seen_at. NULL: neither is known.';

COMMENT ON COLUMN tickets.crq_open.hours_open IS 'Hours since clock_start, cut to two decimals; negative when the feed''s time lies in the future. NULL: no clock.';

COMMENT ON COLUMN tickets.crq_open.assigned_team IS 'Team the request is assigned to.';

COMMENT ON COLUMN tickets.crq_open.cluster IS 'Network cluster.';

COMMENT ON COLUMN tickets.crq_open.region IS 'Region, lower case.';

COMMENT ON COLUMN tickets.crq_open.owner IS 'Owner of the request.';

COMMENT ON COLUMN tickets.crq_open.location_name IS 'The place as field staff typed it.';

COMMENT ON COLUMN tickets.crq_open.geo_source IS 'Precision of geom: feed, location, cluster (a centroid, no address) or none.';

COMMENT ON COLUMN tickets.crq_open.geom IS 'Place, for display; NULL where none is known.';

COMMENT ON COLUMN tickets.crq_open.geog IS 'geom as geography: distances in metres.';

ALTER TABLE tickets.geo_decisions ALTER COLUMN decision_id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME tickets.geo_decisions_decision_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE VIEW tickets.inc_ageing AS
 SELECT t.assigned_team,
    c.shown AS cluster,
    count(*) AS open,
    count(*) FILTER (WHERE (age.bucket = 0)) AS aged_0_4h,
    count(*) FILTER (WHERE (age.bucket = 1)) AS aged_4_24h,
    count(*) FILTER (WHERE (age.bucket = 2)) AS aged_24_48h,
    count(*) FILTER (WHERE (age.bucket = 3)) AS aged_2_7d,
    count(*) FILTER (WHERE (age.bucket = 4)) AS aged_7_30d,
    count(*) FILTER (WHERE (age.bucket = 5)) AS aged_over_30d,
    count(*) FILTER (WHERE (age.bucket IS NULL)) AS aged_unknown
   FROM (((tickets.inc_open_sla t
     LEFT JOIN tickets.cluster_spellings() s(cluster_key, spelling) ON ((s.cluster_key = tickets.cluster_key(t.cluster))))
     CROSS JOIN LATERAL ( SELECT COALESCE(s.spelling, tickets.cluster_key(t.cluster)) AS shown) c)
     CROSS JOIN LATERAL ( SELECT tickets.age_bucket(t.hours_open) AS bucket) age)
  GROUP BY t.assigned_team, c.shown;

COMMENT ON VIEW tickets.inc_ageing IS 'The open tickets now by age, one row per team and cluster: hours since created_at_service, else first_seen_at, as in tickets.inc_open_sla. The buckets add up to open.';

COMMENT ON COLUMN tickets.inc_ageing.assigned_team IS 'Team; NULL: none.';

COMMENT ON COLUMN tickets.inc_ageing.cluster IS 'Network cluster, in one spelling (tickets.cluster_spellings); NULL: none.';

COMMENT ON COLUMN tickets.inc_ageing.open IS 'Open tickets.';

COMMENT ON COLUMN tickets.inc_ageing.aged_0_4h IS 'Open for under 4 h, or with a clock that starts in the future.';

COMMENT ON COLUMN tickets.inc_ageing.aged_4_24h IS 'Open for 4 h to under 24 h.';

COMMENT ON COLUMN tickets.inc_ageing.aged_24_48h IS 'Open for 24 h to under 48 h.';

COMMENT ON COLUMN tickets.inc_ageing.aged_2_7d IS 'Open for 48 h to under 7 days.';

COMMENT ON COLUMN tickets.inc_ageing.aged_7_30d IS 'Open for 7 to under 30 days.';

COMMENT ON COLUMN tickets.inc_ageing.aged_over_30d IS 'Open for 30 days or more.';

COMMENT ON COLUMN tickets.inc_ageing.aged_unknown IS 'Without a clock.';

CREATE TABLE tickets.inc_events (
    event_id bigint NOT NULL,
    ticket_id text NOT NULL,
    event text NOT NULL,
    old_value text,
    new_value text,
    snapshot_id bigint,
    snapshot_at timestamp with time zone,
    recorded_at timestamp with time zone DEFAULT now() NOT NULL,
    assigned_team text,
    owner text,
    cluster text,
    region text,
    created_at_service timestamp with time zone,
    closed_at timestamp with time zone,
    mttr numeric,
    sla_status text,
    team_before text,
    CONSTRAINT inc_events_context CHECK (((event = ANY (ARRAY['baseline'::text, 'opened'::text, 'closed'::text, 'reopened'::text])) OR ((num_nonnulls(assigned_team, owner, cluster, region, created_at_service, team_before) = 0) AND ((event = 'closure_corrected'::text) OR (num_nonnulls(closed_at, mttr, sla_status) = 0))))),
    CONSTRAINT inc_events_event_check CHECK ((event = ANY (ARRAY['baseline'::text, 'opened'::text, 'closed'::text, 'reopened'::text, 'closure_corrected'::text, 'status_changed'::text, 'team_changed'::text, 'cluster_changed'::text])))
);

COMMENT ON TABLE tickets.inc_events IS 'History of tickets, append-only, written in the transaction that changes the ticket. Closings are in tickets.inc_closures, the open backlog at a time in tickets.inc_backlog and tickets.inc_backlog_daily().';

COMMENT ON COLUMN tickets.inc_events.event_id IS 'Order of writing.';

COMMENT ON COLUMN tickets.inc_events.ticket_id IS 'tickets.inc.ticket_id.';

COMMENT ON COLUMN tickets.inc_events.event IS 'opened: first seen open. closed: stopped being actionable, or first seen closed (old_value is then NULL). reopened. closure_corrected: closed_at or mttr changed while the ticket stayed closed. status_changed, team_changed, cluster_changed. baseline: existed when history began.';

COMMENT ON COLUMN tickets.inc_events.old_value IS 'The value before: of assigned_team or cluster for team_changed and cluster_changed, else normalized_status. NULL at first sight (baseline, opened, and closed of a ticket that was never seen open); a closing or reopening of a ticket that had no status has an empty text.';

COMMENT ON COLUMN tickets.inc_events.new_value IS 'The value after: assigned_team, cluster, else normalized_status.';

COMMENT ON COLUMN tickets.inc_events.snapshot_id IS 'tickets_ops.snapshots.snapshot_id that brought the change. NULL for a baseline; 0 for what a takeover imported from the history of the Python version.';

COMMENT ON COLUMN tickets.inc_events.snapshot_at IS 'The export''s own time of that snapshot: use this as the time axis of what was observed. It trails what happened by days: see tickets.reporting_lag().';

COMMENT ON COLUMN tickets.inc_events.recorded_at IS 'When the event was written.';

COMMENT ON COLUMN tickets.inc_events.assigned_team IS 'This and the columns that follow: the ticket as the snapshot left it, on baseline, opened, closed and reopened; NULL on the others. For a closing the team that is credited with it. Cut to 100 characters, as are cluster and region.';

COMMENT ON COLUMN tickets.inc_events.owner IS 'As assigned_team: the ticket''s owner then.';

COMMENT ON COLUMN tickets.inc_events.cluster IS 'As assigned_team: the ticket''s cluster then.';

COMMENT ON COLUMN tickets.inc_events.region IS 'As assigned_team: the ticket''s region then.';

COMMENT ON COLUMN tickets.inc_events.created_at_service IS 'As assigned_team: what was known of the ticket''s creation then. It is often told later: tickets.inc has what is known today.';

COMMENT ON COLUMN tickets.inc_events.closed_at IS 'As assigned_team; also on closure_corrected, where it is the corrected time.';

COMMENT ON COLUMN tickets.inc_events.mttr IS 'The source''s repair time in whole minutes, as in tickets.inc. As closed_at also on closure_corrected.';

COMMENT ON COLUMN tickets.inc_events.sla_status IS 'The source''s own verdict, which means something on closings only. As closed_at also on closure_corrected.';

COMMENT ON COLUMN tickets.inc_events.team_before IS 'As assigned_team: the team before this snapshot. NULL at first sight, and where there was none.';

CREATE VIEW tickets.inc_backlog AS
 WITH changes AS (
         SELECT COALESCE(e.snapshot_at, e.recorded_at) AS snapshot_at,
            e.event,
            (NOT (e.snapshot_id IS DISTINCT FROM 0)) AS is_imported,
                CASE e.event
                    WHEN 'closed'::text THEN
                    CASE
                        WHEN (lag(e.event) OVER history IS NULL) THEN 0
                        ELSE '-1'::integer
                    END
                    WHEN 'baseline'::text THEN (tickets.baseline_was_open(lead(e.event) OVER history, ( SELECT t.is_actionable
                       FROM tickets.inc t
                      WHERE (t.ticket_id = e.ticket_id))))::integer
                    ELSE 1
                END AS change
           FROM tickets.inc_events e
          WHERE (e.event = ANY (ARRAY['baseline'::text, 'opened'::text, 'closed'::text, 'reopened'::text]))
          WINDOW history AS (PARTITION BY e.ticket_id ORDER BY e.event_id)
        )
 SELECT changes.snapshot_at,
    count(*) FILTER (WHERE (changes.event = 'opened'::text)) AS opened,
    count(*) FILTER (WHERE (changes.event = 'reopened'::text)) AS reopened,
    count(*) FILTER (WHERE (changes.change < 0)) AS closed,
    (sum(sum(changes.change)) OVER (ORDER BY changes.snapshot_at))::bigint AS open_tickets
   FROM changes
  GROUP BY changes.snapshot_at
 HAVING (NOT bool_and(changes.is_imported));

COMMENT ON VIEW tickets.inc_backlog IS 'Open backlog over time, one row per snapshot that opened, reopened or closed a ticket. It reads the whole history (measured: 2 s for 500 000 events). Per day (EAT): select distinct on (1) (snapshot_at at time zone ''Africa/Nairobi'')::date, open_tickets from tickets.inc_backlog order by 1, snapshot_at desc.';

COMMENT ON COLUMN tickets.inc_backlog.snapshot_at IS 'The export''s own time of the snapshot; for a baseline, when history began.';

COMMENT ON COLUMN tickets.inc_backlog.opened IS 'Tickets first seen open.';

COMMENT ON COLUMN tickets.inc_backlog.reopened IS 'Tickets opened again.';

COMMENT ON COLUMN tickets.inc_backlog.closed IS 'Tickets that were open and no longer are. Those first seen closed are not counted: closures per day are in tickets.inc.closed_at.';

COMMENT ON COLUMN tickets.inc_backlog.open_tickets IS 'Open tickets once the snapshot was in.';

CREATE VIEW tickets.inc_clock AS
 SELECT inc.ticket_id,
    inc.created_at_service AS started_at,
    'created_at_service'::text AS source
   FROM tickets.inc
  WHERE (inc.created_at_service IS NOT NULL)
UNION ALL
 SELECT inc.ticket_id,
    inc.first_seen_at AS started_at,
    'first_seen_at'::text AS source
   FROM tickets.inc
  WHERE ((inc.created_at_service IS NULL) AND (inc.first_seen_at IS NOT NULL));

COMMENT ON VIEW tickets.inc_clock IS 'When each ticket''s clock started, as it is known today: created_at_service, else first_seen_at, as for the SLA. Tickets with neither are not in it.';

COMMENT ON COLUMN tickets.inc_clock.ticket_id IS 'The ticket''s number.';

COMMENT ON COLUMN tickets.inc_clock.started_at IS 'When the clock started.';

COMMENT ON COLUMN tickets.inc_clock.source IS 'created_at_service; or first_seen_at, which is when the export first saw the ticket and so up to days late.';

CREATE VIEW tickets.inc_closures AS
 SELECT c.ticket_id,
    (1 + COALESCE(width_bucket(c.event_id, r.reopened), 0)) AS closure_no,
    c.closed_at,
    c.observed_at,
    c.observed,
    c.assigned_team,
    c.team_before,
    ((c.team_before IS NOT NULL) AND (c.team_before IS DISTINCT FROM c.assigned_team)) AS handover_at_close,
    c.owner,
    c.cluster,
    c.region,
    clock.started_at AS clock_start,
    clock.source AS clock_source,
    round((EXTRACT(epoch FROM clock.lasted) / (3600)::numeric), 2) AS hours_to_close,
    c.mttr AS mttr_minutes,
    c.sla_status AS source_sla_status,
    tickets.within_a_day(clock.lasted) AS within_24h,
    tickets.within_two_days(clock.lasted) AS within_48h,
    (( SELECT count(*) AS count
           FROM (( SELECT o.event_id,
                    o.snapshot_id
                   FROM tickets.inc_events o
                  WHERE ((o.ticket_id = c.ticket_id) AND (o.event_id < c.event_id) AND (o.event = ANY (ARRAY['baseline'::text, 'opened'::text, 'reopened'::text])))
                  ORDER BY o.event_id DESC
                 LIMIT 1) opening
             JOIN tickets.inc_events m ON (((m.event_id > opening.event_id) AND (m.snapshot_id IS DISTINCT FROM opening.snapshot_id))))
          WHERE ((m.ticket_id = c.ticket_id) AND (m.event = 'team_changed'::text) AND (m.old_value IS NOT NULL) AND ((m.event_id < c.event_id) OR (m.snapshot_id = c.snapshot_id)))))::integer AS reassignments,
    next.reopened_at,
        CASE
            WHEN (next.reopened_at >= c.closed_at) THEN round((EXTRACT(epoch FROM (next.reopened_at - c.closed_at)) / (3600)::numeric), 2)
            ELSE NULL::numeric
        END AS hours_to_reopen,
    (next.reopened IS NULL) AS is_final,
    c.normalized_status
   FROM ((((( SELECT true AS observed,
            e.event_id,
            e.ticket_id,
            e.snapshot_id,
            e.snapshot_at AS observed_at,
            e.assigned_team,
            e.team_before,
            e.owner,
            e.cluster,
            e.region,
            e.new_value AS normalized_status,
            e.created_at_service,
            e.event_id AS told_by,
            e.closed_at,
            e.mttr,
            e.sla_status,
            e.event,
            'closed'::text AS wanted
           FROM tickets.inc_events e
        UNION ALL
         SELECT false,
            e.event_id,
            e.ticket_id,
            e.snapshot_id,
            COALESCE(e.snapshot_at, e.recorded_at) AS "coalesce",
            e.assigned_team,
            e.team_before,
            e.owner,
            e.cluster,
            e.region,
            e.new_value,
            e.created_at_service,
            e.event_id,
            e.closed_at,
            e.mttr,
            e.sla_status,
            e.event,
            'baseline'::text
           FROM tickets.inc_events e
          WHERE ((e.event = 'baseline'::text) AND (NOT (EXISTS ( SELECT
                   FROM tickets.inc_events l
                  WHERE ((l.ticket_id = e.ticket_id) AND (l.event = 'closed'::text))))) AND (NOT (EXISTS ( SELECT
                   FROM tickets.inc t_1
                  WHERE ((t_1.ticket_id = e.ticket_id) AND t_1.is_actionable)))))
        UNION ALL
         SELECT (e.event = 'closed'::text),
            e.event_id,
            e.ticket_id,
            e.snapshot_id,
            COALESCE(e.snapshot_at, e.recorded_at) AS "coalesce",
            e.assigned_team,
            e.team_before,
            e.owner,
            e.cluster,
            e.region,
            e.new_value,
            e.created_at_service,
            k.event_id,
            k.closed_at,
            k.mttr,
            k.sla_status,
            k.event,
            'closure_corrected'::text
           FROM (tickets.inc_events k
             JOIN tickets.inc_events e ON (((e.ticket_id = k.ticket_id) AND (e.event_id < k.event_id) AND (e.event = ANY (ARRAY['closed'::text, 'baseline'::text])))))
          WHERE ((k.event = 'closure_corrected'::text) AND (NOT (EXISTS ( SELECT
                   FROM tickets.inc_events b
                  WHERE ((b.ticket_id = k.ticket_id) AND (b.event = ANY (ARRAY['closed'::text, 'baseline'::text])) AND (b.event_id > e.event_id) AND (b.event_id < k.event_id))))))) c
     LEFT JOIN ( SELECT e.ticket_id,
            array_agg(e.event_id) FILTER (WHERE (e.event = 'reopened'::text)) AS reopened,
            array_agg(e.snapshot_at) FILTER (WHERE (e.event = 'reopened'::text)) AS reopened_at,
            array_agg(e.event_id) FILTER (WHERE (e.event = 'closure_corrected'::text)) AS corrected
           FROM ( SELECT inc_events.event_id,
                    inc_events.ticket_id,
                    inc_events.event,
                    inc_events.old_value,
                    inc_events.new_value,
                    inc_events.snapshot_id,
                    inc_events.snapshot_at,
                    inc_events.recorded_at,
                    inc_events.assigned_team,
                    inc_events.owner,
                    inc_events.cluster,
                    inc_events.region,
                    inc_events.created_at_service,
                    inc_events.closed_at,
                    inc_events.mttr,
                    inc_events.sla_status,
                    inc_events.team_before
                   FROM tickets.inc_events
                  WHERE (inc_events.event = ANY (ARRAY['reopened'::text, 'closure_corrected'::text]))
                  ORDER BY inc_events.ticket_id, inc_events.event_id) e
          GROUP BY e.ticket_id) r ON ((r.ticket_id = c.ticket_id)))
     CROSS JOIN LATERAL ( SELECT r.reopened[(width_bucket(c.told_by, r.reopened) + 1)] AS reopened,
            r.reopened_at[(width_bucket(c.told_by, r.reopened) + 1)] AS reopened_at,
            r.corrected[(width_bucket(c.told_by, r.corrected) + 1)] AS corrected) next)
     LEFT JOIN tickets.inc t ON ((t.ticket_id = c.ticket_id)))
     CROSS JOIN LATERAL ( SELECT tickets.clock_start(told.created_at_service, t.first_seen_at) AS started_at,
            tickets.clock_source(told.created_at_service, t.first_seen_at) AS source,
            tickets.time_to_close(tickets.clock_start(told.created_at_service, t.first_seen_at), c.closed_at) AS lasted
           FROM ( SELECT COALESCE(c.created_at_service, t.created_at_service) AS created_at_service) told) clock)
  WHERE ((c.event = c.wanted) AND (c.observed OR (next.reopened IS NULL)) AND ((next.corrected IS NULL) OR (next.corrected > next.reopened)));

COMMENT ON VIEW tickets.inc_closures IS 'Closings, one row each: a ticket that was reopened has several. Population: every time that a ticket was seen to be closed, a first sight included, and the tickets that were closed when history began and were never reopened since. count(*) where is_final = tickets that are not open. Trap: it also holds closings that were undone; filter is_final, or say which you count.';

COMMENT ON COLUMN tickets.inc_closures.ticket_id IS 'The ticket''s number.';

COMMENT ON COLUMN tickets.inc_closures.closure_no IS '1 for the ticket''s first closing, 2 for the next, …. One before history that was undone counts, and has no row.';

COMMENT ON COLUMN tickets.inc_closures.closed_at IS 'When it was closed, as the source last told of this closing. NULL: it has not told. Lifecycle time: told days late, and corrected at times.';

COMMENT ON COLUMN tickets.inc_closures.observed_at IS 'The export''s own time of the snapshot that first showed it closed; for closings before history the time at which history began. It never changes.';

COMMENT ON COLUMN tickets.inc_closures.observed IS 'false: closed before history began, so nobody saw it happen.';

COMMENT ON COLUMN tickets.inc_closures.assigned_team IS 'The closing team, which is credited: that of the snapshot that first showed it closed. What the ticket''s team became later does not matter. NULL: none.';

COMMENT ON COLUMN tickets.inc_closures.team_before IS 'The team before that snapshot. NULL: none, or the ticket was first seen closed.';

COMMENT ON COLUMN tickets.inc_closures.handover_at_close IS 'The team changed in the very snapshot that shows the closing: team_before may have done the work.';

COMMENT ON COLUMN tickets.inc_closures.owner IS 'The ticket''s owner then.';

COMMENT ON COLUMN tickets.inc_closures.cluster IS 'The ticket''s cluster then, as the feed wrote it: group by tickets.cluster_key(cluster), as the functions do.';

COMMENT ON COLUMN tickets.inc_closures.region IS 'The ticket''s region then, lower case.';

COMMENT ON COLUMN tickets.inc_closures.clock_start IS 'When the ticket''s clock started: created_at_service, else first_seen_at. It starts once, also for later closings of a ticket that was reopened.';

COMMENT ON COLUMN tickets.inc_closures.clock_source IS 'created_at_service, or first_seen_at (about 30 %), which is when the export first saw the ticket and so up to days late. NULL: neither is known.';

COMMENT ON COLUMN tickets.inc_closures.hours_to_close IS 'Hours by the wall clock from clock_start to closed_at. NULL: one of them is unknown, or the closing comes first, as it does where a late first_seen_at is the clock. Pauses of the SLA are in it: the feed has none.';

COMMENT ON COLUMN tickets.inc_closures.mttr_minutes IS 'The source''s own repair time in whole minutes, as last told of this closing. It is not hours_to_close: the source takes waiting off that it does not tell.';

COMMENT ON COLUMN tickets.inc_closures.source_sla_status IS 'The source''s own verdict: Compliant or Breached. It is not reconciled with any clock here.';

COMMENT ON COLUMN tickets.inc_closures.within_24h IS 'Closed at most 24 h after clock_start. NULL where hours_to_close is.';

COMMENT ON COLUMN tickets.inc_closures.within_48h IS 'Closed at most 48 h after clock_start. NULL where hours_to_close is.';

COMMENT ON COLUMN tickets.inc_closures.reassignments IS 'How often the ticket left a team between being opened (or reopened) and this closing, as the snapshots saw it; a handover at the close is one. A first assignment is none.';

COMMENT ON COLUMN tickets.inc_closures.reopened_at IS 'The export''s own time of the snapshot that showed it open again: the source tells no time of its own. NULL: it was not reopened.';

COMMENT ON COLUMN tickets.inc_closures.hours_to_reopen IS 'Hours from closed_at to reopened_at.';

COMMENT ON COLUMN tickets.inc_closures.is_final IS 'It still stands: the ticket was not reopened since.';

COMMENT ON COLUMN tickets.inc_closures.normalized_status IS 'The status that it was closed with.';

CREATE TABLE tickets.inc_daily (
    day date NOT NULL,
    cluster text DEFAULT ''::text NOT NULL,
    region text DEFAULT ''::text NOT NULL,
    assigned_team text DEFAULT ''::text NOT NULL,
    open integer DEFAULT 0 NOT NULL,
    open_breached integer,
    open_at_risk integer,
    open_unknown integer,
    aged_0_24h integer,
    aged_24_48h integer,
    aged_2_7d integer,
    aged_7_30d integer,
    aged_over_30d integer,
    opened integer DEFAULT 0 NOT NULL,
    reopened integer DEFAULT 0 NOT NULL,
    closed integer DEFAULT 0 NOT NULL,
    snapshot_at timestamp with time zone NOT NULL,
    source text NOT NULL,
    CONSTRAINT inc_daily_source_check CHECK ((source = ANY (ARRAY['state'::text, 'events'::text, 'imported'::text])))
);

COMMENT ON TABLE tickets.inc_daily IS 'What was open when a day ended, one row per day, cluster, region and team that had something open, opened, reopened or closed: the tickets as they stood after the day''s last look at the bucket. It cannot be recovered: no event tells that an SLA clock ran out. Days without a look have no row; a look that found nothing open has one of zeros. Read it through tickets.inc_backlog_daily().';

COMMENT ON COLUMN tickets.inc_daily.day IS 'Day in Nairobi of the snapshot''s own time.';

COMMENT ON COLUMN tickets.inc_daily.cluster IS 'Network cluster then, in the spelling that most of that day''s tickets had; '''' for none. Cut to 100 characters, as region and assigned_team. Over several days group by tickets.cluster_key(cluster).';

COMMENT ON COLUMN tickets.inc_daily.region IS 'Region then, lower case; '''' for none.';

COMMENT ON COLUMN tickets.inc_daily.assigned_team IS 'Team then; '''' for none.';

COMMENT ON COLUMN tickets.inc_daily.open IS 'Open tickets.';

COMMENT ON COLUMN tickets.inc_daily.open_breached IS 'Of these, beyond the SLA (tickets.sla_rules) as of snapshot_at. NULL, as all that depends on a clock, where source is events.';

COMMENT ON COLUMN tickets.inc_daily.open_at_risk IS 'Of these, not breached yet but soon.';

COMMENT ON COLUMN tickets.inc_daily.open_unknown IS 'Of these, without a clock: in no ageing bucket.';

COMMENT ON COLUMN tickets.inc_daily.aged_0_24h IS 'Of these, open for under 24 h as of snapshot_at (or with a clock that starts in the future).';

COMMENT ON COLUMN tickets.inc_daily.aged_24_48h IS 'Of these, open for 24 h to under 48 h.';

COMMENT ON COLUMN tickets.inc_daily.aged_2_7d IS 'Of these, open for 48 h to under 7 days.';

COMMENT ON COLUMN tickets.inc_daily.aged_7_30d IS 'Of these, open for 7 to under 30 days.';

COMMENT ON COLUMN tickets.inc_daily.aged_over_30d IS 'Of these, open for 30 days or more.';

COMMENT ON COLUMN tickets.inc_daily.opened IS 'Tickets first seen open since the last day that has rows.';

COMMENT ON COLUMN tickets.inc_daily.reopened IS 'Tickets seen open again since then.';

COMMENT ON COLUMN tickets.inc_daily.closed IS 'Tickets that left the backlog since then, at the values that they closed with. Those first seen closed are not among them.';

COMMENT ON COLUMN tickets.inc_daily.snapshot_at IS 'The export''s own time of the day''s last look.';

COMMENT ON COLUMN tickets.inc_daily.source IS 'state: counted when the snapshot was in. events: rebuilt from the history. imported: what the Python version had noted; opened, reopened and closed of such a day are not known, and 0.';

ALTER TABLE tickets.inc_events ALTER COLUMN event_id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME tickets.inc_events_event_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE VIEW tickets.vehicles AS
 SELECT NULL::text AS vehicle_id,
    NULL::text AS label,
    NULL::text AS team,
    NULL::double precision AS lng,
    NULL::double precision AS lat,
    NULL::timestamp with time zone AS located_at,
    NULL::timestamp with time zone AS seen_at,
    NULL::boolean AS moving,
    NULL::double precision AS speed_kmh,
    NULL::text AS source
  WHERE false;

COMMENT ON VIEW tickets.vehicles IS 'The vehicles, one row each, from a tracker''s table in this database. Empty as shipped: point it there by `fleettickets vehicles --use schema.table --apply` or by create or replace view (Postgres refuses a missing or retyped column). No migration replaces it. A table, not a view of somebody else: functions in that would run with the rights of every reader. Read tickets.vehicles_now.';

COMMENT ON COLUMN tickets.vehicles.vehicle_id IS 'The tracker''s own number of the vehicle, which assignments keep: it must not change.';

COMMENT ON COLUMN tickets.vehicles.label IS 'What people call it: registration plate or name.';

COMMENT ON COLUMN tickets.vehicles.team IS 'Team that drives it, as tickets.inc.assigned_team says it. NULL: none; then it goes to no ticket where teams must match.';

COMMENT ON COLUMN tickets.vehicles.lng IS 'WGS 84 degrees.';

COMMENT ON COLUMN tickets.vehicles.lat IS 'WGS 84 degrees.';

COMMENT ON COLUMN tickets.vehicles.located_at IS 'When the position was taken. With its time zone: a local time read as UTC lies 3 hours ahead.';

COMMENT ON COLUMN tickets.vehicles.seen_at IS 'When the tracker last reported anything, position or not. A sleeping one reports on without positions.';

COMMENT ON COLUMN tickets.vehicles.moving IS 'Whether it moved when last seen. NULL: the tracker does not say; speed_kmh then decides.';

COMMENT ON COLUMN tickets.vehicles.speed_kmh IS 'Speed at the last position, km/h.';

COMMENT ON COLUMN tickets.vehicles.source IS 'Which tracker says so, where there are several.';

CREATE TABLE tickets.version_slots (
    slot bigint NOT NULL,
    token bigint NOT NULL
);

COMMENT ON TABLE tickets.version_slots IS 'What reporting.fn_tickets_version() is made of: a row for each transaction that ever wrote tickets at the same time as others, so a handful. Not to be written by hand: deleting a row changes the version as well.';

COMMENT ON COLUMN tickets.version_slots.slot IS 'Only tells the rows apart: a transaction takes one that no other holds.';

COMMENT ON COLUMN tickets.version_slots.token IS 'Random; replaced by each transaction that takes the slot.';

ALTER TABLE tickets.version_slots ALTER COLUMN slot ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME tickets.version_slots_slot_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE tickets_ops.announced_health (
    one boolean DEFAULT true NOT NULL,
    ok boolean,
    since timestamp with time zone,
    CONSTRAINT announced_health_one_check CHECK (one)
);

COMMENT ON TABLE tickets_ops.announced_health IS 'What people were told last of health.ok (ALERT_WEBHOOK_URL): one row, none before the first maintenance with that setting.';

COMMENT ON COLUMN tickets_ops.announced_health.one IS 'Makes it one row.';

COMMENT ON COLUMN tickets_ops.announced_health.ok IS 'health.ok, as it was announced. NULL: nothing was.';

COMMENT ON COLUMN tickets_ops.announced_health.since IS 'When health turned to that: the start of the trouble, or its end.';

CREATE TABLE tickets_ops.crq_digests (
    ticket_id text NOT NULL COLLATE pg_catalog."C",
    digest uuid NOT NULL,
    figures integer NOT NULL,
    row_ctid tid NOT NULL,
    row_xmin xid NOT NULL
);

COMMENT ON TABLE tickets_ops.crq_digests IS 'Digests of CRQ tickets, as tickets_ops.inc_digests.';

COMMENT ON COLUMN tickets_ops.crq_digests.ticket_id IS 'The ticket. Maintenance removes the digests of those that are gone.';

COMMENT ON COLUMN tickets_ops.crq_digests.digest IS 'The first 128 bits of a SHA-256 of the record''s bytes without the fields that are dropped, of the header and the version of the cleaning rules by which it became the ticket, and of the file in which Postgres keeps tickets.inc: after TRUNCATE, VACUUM FULL or a restore that is another one, and no digest fits.';

COMMENT ON COLUMN tickets_ops.crq_digests.figures IS 'What judging a whole file needs to know of the record, as digits in base 3: of each counted column whether it is filled and whether its value reads; whether bytes were replaced by U+FFFD (src/csv/values.ts).';

COMMENT ON COLUMN tickets_ops.crq_digests.row_ctid IS 'Where the row of tickets.inc stands that this record made: its ctid.';

COMMENT ON COLUMN tickets_ops.crq_digests.row_xmin IS 'The transaction that wrote that row: its xmin.';

CREATE VIEW tickets_ops.datasets AS
 SELECT read_datasets.dataset,
    read_datasets.feed,
    read_datasets.open_tickets,
    read_datasets.checked_at,
    read_datasets.checked_key,
    read_datasets.checked_status,
    read_datasets.loaded_snapshot_id,
    read_datasets.loaded_key,
    read_datasets.loaded_at,
    read_datasets.loaded_status,
    read_datasets.data_at,
    read_datasets.data_age,
    read_datasets.open_missing,
    read_datasets.in_flight_snapshot_id,
    read_datasets.in_flight_status,
    read_datasets.in_flight_idle,
    read_datasets.missed_run_at,
    read_datasets.next_run_at
   FROM tickets_ops.read_datasets() read_datasets(dataset, feed, open_tickets, checked_at, checked_key, checked_status, loaded_snapshot_id, loaded_key, loaded_at, loaded_status, data_at, data_age, open_missing, in_flight_snapshot_id, in_flight_status, in_flight_idle, missed_run_at, next_run_at);

COMMENT ON VIEW tickets_ops.datasets IS 'The datasets that are on, a row each: inc, and crq where CRQ_ENABLED=true. The columns that tickets_ops.health has too say the same of each.';

COMMENT ON COLUMN tickets_ops.datasets.dataset IS 'inc (faults) or crq (requests for new installations).';

COMMENT ON COLUMN tickets_ops.datasets.feed IS 'What its files are: snapshots or changes.';

COMMENT ON COLUMN tickets_ops.datasets.open_tickets IS 'Its open (actionable) tickets.';

COMMENT ON COLUMN tickets_ops.datasets.checked_at IS 'When its folder was last looked at with success.';

COMMENT ON COLUMN tickets_ops.datasets.checked_key IS 'The file that was looked at last.';

COMMENT ON COLUMN tickets_ops.datasets.checked_status IS 'Its status.';

COMMENT ON COLUMN tickets_ops.datasets.loaded_snapshot_id IS 'The last snapshot that was loaded, whole or in part.';

COMMENT ON COLUMN tickets_ops.datasets.loaded_key IS 'Its file.';

COMMENT ON COLUMN tickets_ops.datasets.loaded_at IS 'When it was finished.';

COMMENT ON COLUMN tickets_ops.datasets.loaded_status IS 'done or partial.';

COMMENT ON COLUMN tickets_ops.datasets.data_at IS 'Export time of the newest file that is loaded or was found unchanged.';

COMMENT ON COLUMN tickets_ops.datasets.data_age IS 'Since then: how old the tickets are.';

COMMENT ON COLUMN tickets_ops.datasets.open_missing IS 'Open tickets that the last loaded snapshot no longer lists. NULL for a file of changes.';

COMMENT ON COLUMN tickets_ops.datasets.in_flight_snapshot_id IS 'The snapshot that is being loaded.';

COMMENT ON COLUMN tickets_ops.datasets.in_flight_status IS 'staging, loading or finalizing.';

COMMENT ON COLUMN tickets_ops.datasets.in_flight_idle IS 'Since work on it last committed something.';

COMMENT ON COLUMN tickets_ops.datasets.missed_run_at IS 'The last scheduled run, when half an hour later nothing had looked at its folder. NULL: none was missed.';

COMMENT ON COLUMN tickets_ops.datasets.next_run_at IS 'The next scheduled run. NULL: no worker has started yet, so the schedule is not known.';

CREATE VIEW tickets_ops.failed_jobs AS
 SELECT list_jobs.id,
    list_jobs.task,
    list_jobs.key,
    list_jobs.payload,
    list_jobs.failed_at,
    list_jobs.attempts,
    list_jobs.last_error,
    list_jobs.superseded
   FROM tickets_ops.list_jobs() list_jobs(id, task, key, payload, queue, priority, state, run_at, attempts, max_attempts, last_error, locked_by, age, failed_at, superseded)
  WHERE (list_jobs.state = 'failed'::text)
  ORDER BY list_jobs.failed_at DESC;

COMMENT ON VIEW tickets_ops.failed_jobs IS 'Jobs without an attempt left, the latest first. Try one again: select * from tickets_ops.retry_job(id). Removed by age (KEEP_FAILED_JOBS_DAYS).';

COMMENT ON COLUMN tickets_ops.failed_jobs.id IS 'Number of the job.';

COMMENT ON COLUMN tickets_ops.failed_jobs.task IS 'The task.';

COMMENT ON COLUMN tickets_ops.failed_jobs.key IS 'What the job was for. NULL when it has been asked for anew since.';

COMMENT ON COLUMN tickets_ops.failed_jobs.payload IS 'What the task was asked to do.';

COMMENT ON COLUMN tickets_ops.failed_jobs.failed_at IS 'When its last attempt failed.';

COMMENT ON COLUMN tickets_ops.failed_jobs.attempts IS 'Attempts made.';

COMMENT ON COLUMN tickets_ops.failed_jobs.last_error IS 'Why the last one failed.';

COMMENT ON COLUMN tickets_ops.failed_jobs.superseded IS 'Why it no longer matters; tickets_ops.health does not count it. NULL: it does.';

CREATE TABLE tickets_ops.geocoding_calls (
    provider text NOT NULL,
    called_on date NOT NULL,
    outcome text NOT NULL,
    calls integer NOT NULL,
    CONSTRAINT geocoding_calls_outcome_check CHECK ((outcome = ANY (ARRAY['found'::text, 'not_found'::text, 'rate_limited'::text, 'quota_spent'::text, 'key_refused'::text, 'bad_request'::text, 'trouble'::text, 'unreadable'::text])))
);

COMMENT ON TABLE tickets_ops.geocoding_calls IS 'Answers of geocoding providers, counted by UTC day and outcome.';

COMMENT ON COLUMN tickets_ops.geocoding_calls.provider IS 'Name of the provider, as in GEOCODER_PROVIDER.';

COMMENT ON COLUMN tickets_ops.geocoding_calls.called_on IS 'UTC day of the answer.';

COMMENT ON COLUMN tickets_ops.geocoding_calls.outcome IS 'What the answer was taken for; see src/geocoding/outcome.ts.';

COMMENT ON COLUMN tickets_ops.geocoding_calls.calls IS 'Answers of that outcome on that day.';

CREATE TABLE tickets_ops.geocoding_setup (
    one boolean DEFAULT true NOT NULL,
    provider text,
    off_reason text,
    registered_at timestamp with time zone DEFAULT now() NOT NULL,
    CONSTRAINT geocoding_setup_one_check CHECK (one),
    CONSTRAINT geocoding_setup_says_why_not CHECK (((provider IS NULL) = (off_reason IS NOT NULL)))
);

COMMENT ON TABLE tickets_ops.geocoding_setup IS 'One row: the provider that the workers ask, as the one that started last was told by its environment.';

COMMENT ON COLUMN tickets_ops.geocoding_setup.one IS 'Makes it one row.';

COMMENT ON COLUMN tickets_ops.geocoding_setup.provider IS 'The provider. NULL: nobody is asked.';

COMMENT ON COLUMN tickets_ops.geocoding_setup.off_reason IS 'Why nobody is asked, and what to do.';

COMMENT ON COLUMN tickets_ops.geocoding_setup.registered_at IS 'Not written since 1.0.1.';

CREATE VIEW tickets_ops.geocoding AS
 SELECT p.provider,
    (s.provider IS NOT NULL) AS active,
        CASE
            WHEN (s.provider IS NULL) THEN 'not in use'::text
            WHEN budget.stops THEN 'budget spent'::text
            WHEN (p.breaker_until > now()) THEN p.breaker
            WHEN (p.breaker IS NOT NULL) THEN 'probing'::text
            ELSE 'ready'::text
        END AS state,
        CASE
            WHEN budget.stops THEN 'The daily budget is spent; it comes back at midnight UTC.'::text
            ELSE p.breaker_reason
        END AS reason,
        CASE
            WHEN budget.stops THEN tickets_ops.next_utc_midnight()
            ELSE p.breaker_until
        END AS until,
    p.rate_per_second,
    p.daily_budget,
    today.used AS used_today,
    (p.daily_budget - today.used) AS left_today,
    COALESCE(( SELECT jsonb_object_agg(c.outcome, c.calls) AS jsonb_object_agg
           FROM tickets_ops.geocoding_calls c
          WHERE ((c.provider = p.provider) AND (c.called_on = ((now() AT TIME ZONE 'UTC'::text))::date))), '{}'::jsonb) AS calls_today
   FROM (((tickets_ops.geocoding_providers p
     LEFT JOIN tickets_ops.geocoding_setup s ON ((s.provider = p.provider)))
     CROSS JOIN LATERAL ( SELECT
                CASE
                    WHEN (p.used_on = ((now() AT TIME ZONE 'UTC'::text))::date) THEN p.used
                    ELSE 0
                END AS used) today)
     CROSS JOIN LATERAL ( SELECT (COALESCE((today.used >= p.daily_budget), false) AND COALESCE((p.breaker_until <= now()), true)) AS stops) budget)
UNION ALL
 SELECT NULL::text AS provider,
    true AS active,
    'off'::text AS state,
    COALESCE(s.off_reason, 'No worker has started yet that says which provider to ask (GEOCODER_PROVIDER).'::text) AS reason,
    NULL::timestamp with time zone AS until,
    NULL::numeric AS rate_per_second,
    NULL::integer AS daily_budget,
    0 AS used_today,
    NULL::integer AS left_today,
    '{}'::jsonb AS calls_today
   FROM (( SELECT 1 AS "?column?") always
     LEFT JOIN tickets_ops.geocoding_setup s ON (true))
  WHERE (s.provider IS NULL);

COMMENT ON VIEW tickets_ops.geocoding IS 'Geocoding at a glance, one row per provider: state (ready, budget spent, rate limited, quota spent, key refused, trouble, suspected, probing, off, not in use) with reason and until when, rate, budget used and left today (UTC), calls by outcome today. A row without provider says why nobody is asked.';

COMMENT ON COLUMN tickets_ops.geocoding.provider IS 'The provider; NULL when there is none.';

COMMENT ON COLUMN tickets_ops.geocoding.active IS 'Whether it is the one that the workers ask.';

COMMENT ON COLUMN tickets_ops.geocoding.state IS 'ready, budget spent, rate limited, quota spent, key refused, trouble, suspected (it finds nothing, not even the control question), probing (one call at a time finds out whether it works again), off, not in use.';

COMMENT ON COLUMN tickets_ops.geocoding.reason IS 'Why it is not ready.';

COMMENT ON COLUMN tickets_ops.geocoding.until IS 'When it is tried again.';

COMMENT ON COLUMN tickets_ops.geocoding.rate_per_second IS 'Calls a second, over all workers.';

COMMENT ON COLUMN tickets_ops.geocoding.daily_budget IS 'Calls a UTC day. NULL: no limit.';

COMMENT ON COLUMN tickets_ops.geocoding.used_today IS 'Calls reserved today (UTC).';

COMMENT ON COLUMN tickets_ops.geocoding.left_today IS 'What is left of the budget today. NULL: no limit.';

COMMENT ON COLUMN tickets_ops.geocoding.calls_today IS 'Answers today (UTC) by outcome: {"found": 812, "not_found": 40}.';

CREATE TABLE tickets_ops.geocoding_answers (
    cluster text NOT NULL,
    location_key text NOT NULL,
    query text NOT NULL,
    provider text NOT NULL,
    candidates jsonb NOT NULL,
    answered_at timestamp with time zone DEFAULT now() NOT NULL
);

COMMENT ON TABLE tickets_ops.geocoding_answers IS 'Work in progress: answers to the queries of a place that is still being asked, so that a worker that dies costs one call and no more. Emptied when the place is resolved; those of yesterday or of another provider do not count, and maintain removes them.';

COMMENT ON COLUMN tickets_ops.geocoding_answers.cluster IS 'The cluster, as the job that asked spells it.';

COMMENT ON COLUMN tickets_ops.geocoding_answers.location_key IS 'The place; empty when the cluster itself is asked.';

COMMENT ON COLUMN tickets_ops.geocoding_answers.query IS 'The text that was sent.';

COMMENT ON COLUMN tickets_ops.geocoding_answers.provider IS 'Who answered.';

COMMENT ON COLUMN tickets_ops.geocoding_answers.candidates IS 'What came back; [] when the provider does not know it.';

COMMENT ON COLUMN tickets_ops.geocoding_answers.answered_at IS 'When the answer was stored: those of yesterday do not count any more.';

CREATE VIEW tickets_ops.health AS
 SELECT read_health.ok,
    read_health.problems,
    read_health.checked_at,
    read_health.checked_age,
    read_health.checked_key,
    read_health.checked_status,
    read_health.loaded_snapshot_id,
    read_health.loaded_key,
    read_health.loaded_at,
    read_health.loaded_age,
    read_health.loaded_status,
    read_health.data_at,
    read_health.data_age,
    read_health.open_missing,
    read_health.in_flight_snapshot_id,
    read_health.in_flight_status,
    read_health.in_flight_idle,
    read_health.missed_run_at,
    read_health.next_run_at,
    read_health.jobs_waiting,
    read_health.oldest_waiting_age,
    read_health.jobs_running,
    read_health.jobs_failed,
    read_health.workers_alive,
    read_health.workers_unsure,
    read_health.geocoding_state,
    read_health.geocoding_budget_left,
    read_health.geocoding_jobs,
    read_health.places_for_review
   FROM tickets_ops.read_health() read_health(ok, problems, checked_at, checked_age, checked_key, checked_status, loaded_snapshot_id, loaded_key, loaded_at, loaded_age, loaded_status, data_at, data_age, open_missing, in_flight_snapshot_id, in_flight_status, in_flight_idle, missed_run_at, next_run_at, jobs_waiting, oldest_waiting_age, jobs_running, jobs_failed, workers_alive, workers_unsure, geocoding_state, geocoding_budget_left, geocoding_jobs, places_for_review);

COMMENT ON VIEW tickets_ops.health IS 'One row that a monitor can alert on: select ok, problems from tickets_ops.health. ok and problems are of all datasets that are on, the files and times are those of INC; tickets_ops.datasets has those of each. It tells progress as the database sees it. An unchanged hour is a success, and the time between two runs of the schedule, such as the night, is no lateness.';

COMMENT ON COLUMN tickets_ops.health.ok IS 'Nothing needs a person: there is no fault among the problems. Warnings alone leave it true.';

COMMENT ON COLUMN tickets_ops.health.problems IS 'What needs a person, in words, each marked as Fault or Warning, the most urgent first.';

COMMENT ON COLUMN tickets_ops.health.checked_at IS 'When the bucket was last looked at with success.';

COMMENT ON COLUMN tickets_ops.health.checked_age IS 'Since then.';

COMMENT ON COLUMN tickets_ops.health.checked_key IS 'The file that was looked at last.';

COMMENT ON COLUMN tickets_ops.health.checked_status IS 'Its status.';

COMMENT ON COLUMN tickets_ops.health.loaded_snapshot_id IS 'The last snapshot that was loaded, whole or in part.';

COMMENT ON COLUMN tickets_ops.health.loaded_key IS 'Its file.';

COMMENT ON COLUMN tickets_ops.health.loaded_at IS 'When it was finished.';

COMMENT ON COLUMN tickets_ops.health.loaded_age IS 'Since then. Most hours nothing changes, so age alone is no alarm: see data_age.';

COMMENT ON COLUMN tickets_ops.health.loaded_status IS 'done or partial.';

COMMENT ON COLUMN tickets_ops.health.data_at IS 'Export time of the newest file that is loaded or was found unchanged.';

COMMENT ON COLUMN tickets_ops.health.data_age IS 'Since then: how old the tickets are.';

COMMENT ON COLUMN tickets_ops.health.open_missing IS 'Open tickets that the last loaded snapshot no longer lists. NULL for a file of changes, which lists few.';

COMMENT ON COLUMN tickets_ops.health.in_flight_snapshot_id IS 'The snapshot that is being loaded.';

COMMENT ON COLUMN tickets_ops.health.in_flight_status IS 'staging, loading or finalizing.';

COMMENT ON COLUMN tickets_ops.health.in_flight_idle IS 'Since work on it last committed something.';

COMMENT ON COLUMN tickets_ops.health.missed_run_at IS 'The last scheduled run, when half an hour later nothing had looked at the bucket. NULL: none was missed.';

COMMENT ON COLUMN tickets_ops.health.next_run_at IS 'The next scheduled run. NULL: no worker has started yet, so the schedule is not known.';

COMMENT ON COLUMN tickets_ops.health.jobs_waiting IS 'Jobs that are due and wait for a worker.';

COMMENT ON COLUMN tickets_ops.health.oldest_waiting_age IS 'How long the oldest of them has been due. Geocoding jobs wait for their rate.';

COMMENT ON COLUMN tickets_ops.health.jobs_running IS 'Jobs that run.';

COMMENT ON COLUMN tickets_ops.health.jobs_failed IS 'Failed jobs that still matter; see tickets_ops.failed_jobs.';

COMMENT ON COLUMN tickets_ops.health.workers_alive IS 'Workers that live.';

COMMENT ON COLUMN tickets_ops.health.workers_unsure IS 'Of these, workers on the embedded database, where all connections share one session: should one die, its jobs are free again only after 4 hours.';

COMMENT ON COLUMN tickets_ops.health.geocoding_state IS 'See tickets_ops.geocoding.';

COMMENT ON COLUMN tickets_ops.health.geocoding_budget_left IS 'Calls left today (UTC). NULL: no limit, or nobody to ask.';

COMMENT ON COLUMN tickets_ops.health.geocoding_jobs IS 'Places that wait to be asked.';

COMMENT ON COLUMN tickets_ops.health.places_for_review IS 'Places and clusters that a person should look at first: needs_review and suspicious ones of tickets_ops.review_queue.';

CREATE TABLE tickets_ops.inc_digests (
    ticket_id text NOT NULL COLLATE pg_catalog."C",
    digest uuid NOT NULL,
    figures integer NOT NULL,
    row_ctid tid NOT NULL,
    row_xmin xid NOT NULL
)
WITH (fillfactor='90');

COMMENT ON TABLE tickets_ops.inc_digests IS 'Of INC tickets: the digest of the record that made each. A record with the same digest is not parsed while the ticket''s row is the one that it made. Deleting rows, or all of them, is always safe, and costs time only; writing them by hand is not.';

COMMENT ON COLUMN tickets_ops.inc_digests.ticket_id IS 'The ticket. Maintenance removes the digests of those that are gone.';

COMMENT ON COLUMN tickets_ops.inc_digests.digest IS 'The first 128 bits of a SHA-256 of the record''s bytes without the fields that are dropped, of the header and the version of the cleaning rules by which it became the ticket, and of the file in which Postgres keeps tickets.inc: after TRUNCATE, VACUUM FULL or a restore that is another one, and no digest fits.';

COMMENT ON COLUMN tickets_ops.inc_digests.figures IS 'What judging a whole file needs to know of the record, as digits in base 3: of each counted column whether it is filled and whether its value reads; whether bytes were replaced by U+FFFD (src/csv/values.ts).';

COMMENT ON COLUMN tickets_ops.inc_digests.row_ctid IS 'Where the row of tickets.inc stands that this record made: its ctid.';

COMMENT ON COLUMN tickets_ops.inc_digests.row_xmin IS 'The transaction that wrote that row: its xmin.';

CREATE VIEW tickets_ops.jobs AS
 SELECT list_jobs.id,
    list_jobs.task,
    list_jobs.key,
    list_jobs.payload,
    list_jobs.queue,
    list_jobs.priority,
    list_jobs.state,
    list_jobs.run_at,
    list_jobs.attempts,
    list_jobs.max_attempts,
    list_jobs.last_error,
    list_jobs.locked_by,
    list_jobs.age
   FROM tickets_ops.list_jobs() list_jobs(id, task, key, payload, queue, priority, state, run_at, attempts, max_attempts, last_error, locked_by, age, failed_at, superseded);

COMMENT ON VIEW tickets_ops.jobs IS 'Every job that waits, runs or has failed; one that succeeded is gone (tickets_ops.snapshots remembers the loads).';

COMMENT ON COLUMN tickets_ops.jobs.id IS 'Number of the job, for tickets_ops.retry_job and tickets_ops.cancel_job. A geocoding job that puts itself back gets a new one.';

COMMENT ON COLUMN tickets_ops.jobs.task IS 'fetch_snapshot, upsert_batch, finalize_snapshot, geocode_cluster, geocode_location, fleettickets_maintain or fleettickets_alert. Another one is misspelt, or another application''s (setting WORKER_SCHEMA_SHARED).';

COMMENT ON COLUMN tickets_ops.jobs.key IS 'What the job is for; of the jobs that wait, only one has it. It survives the job''s putting itself back, the id does not.';

COMMENT ON COLUMN tickets_ops.jobs.payload IS 'What the task was asked to do. NULL for an unknown task: it may be another application''s.';

COMMENT ON COLUMN tickets_ops.jobs.queue IS 'Named queue, whose jobs run one by one. NULL: none.';

COMMENT ON COLUMN tickets_ops.jobs.priority IS 'Lower runs first: loads -10, what a person asked to geocode 10, planned places 20 and up.';

COMMENT ON COLUMN tickets_ops.jobs.state IS 'ready: waits for a free worker. scheduled: waits for run_at. running. retrying: an attempt failed, the next is at run_at. failed: no attempt is left. unknown task: no worker of ours will ever run it.';

COMMENT ON COLUMN tickets_ops.jobs.run_at IS 'Not before this time.';

COMMENT ON COLUMN tickets_ops.jobs.attempts IS 'Attempts so far, the running one included.';

COMMENT ON COLUMN tickets_ops.jobs.max_attempts IS 'Attempts allowed. One more for each worker that died over the job.';

COMMENT ON COLUMN tickets_ops.jobs.last_error IS 'Why the last attempt failed. NULL for an unknown task.';

COMMENT ON COLUMN tickets_ops.jobs.locked_by IS 'tickets_ops.workers.pool_id of the worker that runs it.';

COMMENT ON COLUMN tickets_ops.jobs.age IS 'Since it was asked for.';

CREATE VIEW tickets_ops.metrics AS
 SELECT read_metrics.name,
    read_metrics.labels,
    read_metrics.value,
    read_metrics.kind,
    read_metrics.help
   FROM tickets_ops.read_metrics() read_metrics(name, labels, value, kind, help);

COMMENT ON VIEW tickets_ops.metrics IS 'Figures for monitors, as of now(): one row for each series, the rows of a name together. Every name has rows also in an empty database. For a role that is a member of tickets_monitor.';

COMMENT ON COLUMN tickets_ops.metrics.name IS 'Prometheus''s name of the metric, with its unit.';

COMMENT ON COLUMN tickets_ops.metrics.labels IS 'Labels as an object of texts; at most a dozen values each.';

COMMENT ON COLUMN tickets_ops.metrics.value IS 'Seconds, a count, or 1 and 0. NaN: unknown.';

COMMENT ON COLUMN tickets_ops.metrics.kind IS 'gauge: it goes up and down.';

COMMENT ON COLUMN tickets_ops.metrics.help IS 'What it tells.';

CREATE TABLE tickets_ops.snapshot_batches (
    snapshot_id bigint NOT NULL,
    batch integer NOT NULL,
    first_ticket_id text NOT NULL,
    last_ticket_id text NOT NULL,
    status text DEFAULT 'pending'::text NOT NULL,
    error text,
    CONSTRAINT snapshot_batches_status_check CHECK ((status = ANY (ARRAY['pending'::text, 'done'::text, 'failed'::text])))
);

COMMENT ON TABLE tickets_ops.snapshot_batches IS 'Work in progress: one row per upsert_batch job, a range of ticket ids of the snapshot''s changed rows.';

COMMENT ON COLUMN tickets_ops.snapshot_batches.snapshot_id IS 'The snapshot of which it loads a part.';

COMMENT ON COLUMN tickets_ops.snapshot_batches.batch IS 'Number of the batch in its snapshot, from 1.';

COMMENT ON COLUMN tickets_ops.snapshot_batches.first_ticket_id IS 'First ticket id of the range.';

COMMENT ON COLUMN tickets_ops.snapshot_batches.last_ticket_id IS 'Last ticket id of the range, included.';

COMMENT ON COLUMN tickets_ops.snapshot_batches.status IS 'pending, done, or failed when its job used up its attempts.';

COMMENT ON COLUMN tickets_ops.snapshot_batches.error IS 'Why its job failed last; NULL unless status is failed.';

CREATE TABLE tickets_ops.snapshot_rejects (
    reject_id bigint NOT NULL,
    snapshot_id bigint NOT NULL,
    line bigint NOT NULL,
    reason text NOT NULL,
    row_text text NOT NULL
);

COMMENT ON TABLE tickets_ops.snapshot_rejects IS 'Rows that could not be loaded: nothing that stood in a file is lost silently. Of one snapshot at most 10 000 are kept; tickets_ops.snapshots.rows_rejected counts all.';

COMMENT ON COLUMN tickets_ops.snapshot_rejects.reject_id IS 'Order of writing.';

COMMENT ON COLUMN tickets_ops.snapshot_rejects.snapshot_id IS 'The snapshot whose file has the row.';

COMMENT ON COLUMN tickets_ops.snapshot_rejects.line IS 'Line of the file on which the record begins; the header is usually line 1.';

COMMENT ON COLUMN tickets_ops.snapshot_rejects.reason IS 'Why, in words for people.';

COMMENT ON COLUMN tickets_ops.snapshot_rejects.row_text IS 'The record as CSV (as JSON where the database refused it), control characters escaped, cut at 64 KiB.';

ALTER TABLE tickets_ops.snapshot_rejects ALTER COLUMN reject_id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME tickets_ops.snapshot_rejects_reject_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE tickets_ops.snapshot_rows (
    snapshot_id bigint NOT NULL,
    ticket_id text NOT NULL,
    line bigint NOT NULL,
    digest uuid NOT NULL,
    figures integer NOT NULL,
    raw jsonb
);
ALTER TABLE ONLY tickets_ops.snapshot_rows ALTER COLUMN snapshot_id SET STATISTICS 10;
ALTER TABLE ONLY tickets_ops.snapshot_rows ALTER COLUMN ticket_id SET STATISTICS 10;
ALTER TABLE ONLY tickets_ops.snapshot_rows ALTER COLUMN line SET STATISTICS 0;
ALTER TABLE ONLY tickets_ops.snapshot_rows ALTER COLUMN digest SET STATISTICS 0;
ALTER TABLE ONLY tickets_ops.snapshot_rows ALTER COLUMN figures SET STATISTICS 0;
ALTER TABLE ONLY tickets_ops.snapshot_rows ALTER COLUMN raw SET STATISTICS 1;

COMMENT ON TABLE tickets_ops.snapshot_rows IS 'Work in progress: the rows of the snapshot in flight, the last line of each ticket. Emptied when the snapshot is done; kept 7 days when it failed.';

COMMENT ON COLUMN tickets_ops.snapshot_rows.snapshot_id IS 'The snapshot that is being staged or loaded; its row in tickets_ops.snapshots.';

COMMENT ON COLUMN tickets_ops.snapshot_rows.ticket_id IS 'Id of the ticket, as the file has it without blanks around it.';

COMMENT ON COLUMN tickets_ops.snapshot_rows.line IS 'Line of the file on which the record begins.';

COMMENT ON COLUMN tickets_ops.snapshot_rows.digest IS 'Of the record in the file: see tickets_ops.inc_digests.';

COMMENT ON COLUMN tickets_ops.snapshot_rows.figures IS 'Of the record in the file: see tickets_ops.inc_digests.';

COMMENT ON COLUMN tickets_ops.snapshot_rows.raw IS 'The cleaned record; NULL when the ticket already has exactly this raw.';

CREATE TABLE tickets_ops.snapshot_transitions (
    from_status text,
    to_status text NOT NULL,
    reason text NOT NULL
);

ALTER TABLE ONLY tickets_ops.snapshot_transitions REPLICA IDENTITY FULL;

COMMENT ON TABLE tickets_ops.snapshot_transitions IS 'Every change of a snapshot''s status that there is; a trigger refuses all others. The states are explained at tickets_ops.snapshots.status.';

COMMENT ON COLUMN tickets_ops.snapshot_transitions.from_status IS 'NULL: a new row.';

COMMENT ON COLUMN tickets_ops.snapshot_transitions.to_status IS 'The status after it.';

COMMENT ON COLUMN tickets_ops.snapshot_transitions.reason IS 'What happens.';

ALTER TABLE tickets_ops.snapshots ALTER COLUMN snapshot_id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME tickets_ops.snapshots_snapshot_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE VIEW tickets_ops.storage AS
 SELECT format('%s.%s'::text, n.nspname, c.relname) AS table_name,
        CASE
            WHEN (n.nspname = tickets_ops.worker_schema()) THEN 'jobs'::text
            WHEN (n.nspname = ANY (ARRAY['tickets_legacy'::name, 'tickets_takeover'::name])) THEN 'takeover'::text
            ELSE k.part
        END AS part,
    pg_total_relation_size((c.oid)::regclass) AS bytes,
    (GREATEST(c.reltuples, (0)::real))::bigint AS rows_about,
        CASE
            WHEN (n.nspname = tickets_ops.worker_schema()) THEN 'A job until it is done; one that failed KEEP_FAILED_JOBS_DAYS (30).'::text
            WHEN (n.nspname = ANY (ARRAY['tickets_legacy'::name, 'tickets_takeover'::name])) THEN 'Until tickets_takeover.clean_up().'::text
            ELSE k.kept
        END AS kept
   FROM ((pg_class c
     JOIN pg_namespace n ON ((n.oid = c.relnamespace)))
     LEFT JOIN tickets_ops.kept_tables() k(table_name, part, kept) ON ((k.table_name = format('%s.%s'::text, n.nspname, c.relname))))
  WHERE ((c.relkind = ANY (ARRAY['r'::"char", 'p'::"char", 'm'::"char"])) AND (n.nspname = ANY (ARRAY['tickets'::name, 'tickets_ops'::name, 'tickets_legacy'::name, 'tickets_takeover'::name, (tickets_ops.worker_schema())::name])));

COMMENT ON VIEW tickets_ops.storage IS 'The tables of ours: how large each is, and how long its rows are kept: select * from tickets_ops.storage order by bytes desc. The schema of the jobs may be shared with another application, whose jobs count too.';

COMMENT ON COLUMN tickets_ops.storage.table_name IS 'Schema and table.';

COMMENT ON COLUMN tickets_ops.storage.part IS 'tickets, history, decisions, gazetteers, ledger, rejects, staging, jobs or takeover. NULL: others made it there.';

COMMENT ON COLUMN tickets_ops.storage.bytes IS 'With its indexes and what is stored out of line.';

COMMENT ON COLUMN tickets_ops.storage.rows_about IS 'As counted by the last vacuum or analyze; 0 before the first.';

COMMENT ON COLUMN tickets_ops.storage.kept IS 'How long, or why for ever. NULL: others made it there.';

CREATE TABLE tickets_ops.sweeps (
    dataset text NOT NULL,
    swept_at timestamp with time zone,
    took interval
);

COMMENT ON TABLE tickets_ops.sweeps IS 'When all tickets of a dataset were last compared with the gazetteers and with their history (tickets_ops.sweep).';

COMMENT ON COLUMN tickets_ops.sweeps.dataset IS 'inc or crq.';

COMMENT ON COLUMN tickets_ops.sweeps.swept_at IS 'When that was done. NULL: never yet.';

COMMENT ON COLUMN tickets_ops.sweeps.took IS 'How long it took; it is done again after a hundred times as long.';

CREATE TABLE tickets_ops.unrecorded_tickets (
    dataset text NOT NULL,
    ticket_id text NOT NULL
);

COMMENT ON TABLE tickets_ops.unrecorded_tickets IS 'Tickets that somebody inserted past the pipeline, until the next load or sweep gives them a baseline.';

COMMENT ON COLUMN tickets_ops.unrecorded_tickets.dataset IS 'inc or crq.';

COMMENT ON COLUMN tickets_ops.unrecorded_tickets.ticket_id IS 'Id of the ticket, in the table of its dataset.';

ALTER TABLE ONLY tickets.assignments
    ADD CONSTRAINT assignments_pkey PRIMARY KEY (assignment_id);

ALTER TABLE ONLY tickets.crq_events
    ADD CONSTRAINT crq_events_pkey PRIMARY KEY (event_id);

ALTER TABLE ONLY tickets.crq
    ADD CONSTRAINT crq_pkey PRIMARY KEY (ticket_id);

ALTER TABLE ONLY tickets.dispatch_settings
    ADD CONSTRAINT dispatch_settings_pkey PRIMARY KEY (only_row);

ALTER TABLE ONLY tickets.geo_clusters
    ADD CONSTRAINT geo_clusters_pkey PRIMARY KEY (cluster);

ALTER TABLE ONLY tickets.geo_country
    ADD CONSTRAINT geo_country_pkey PRIMARY KEY (name);

ALTER TABLE ONLY tickets.geo_decisions
    ADD CONSTRAINT geo_decisions_pkey PRIMARY KEY (decision_id);

ALTER TABLE ONLY tickets.geo_locations
    ADD CONSTRAINT geo_locations_pkey PRIMARY KEY (cluster, location_key);

ALTER TABLE ONLY tickets.import_meta
    ADD CONSTRAINT import_meta_pkey PRIMARY KEY (dataset);

ALTER TABLE ONLY tickets.inc_daily
    ADD CONSTRAINT inc_daily_pkey PRIMARY KEY (day, cluster, region, assigned_team);

ALTER TABLE ONLY tickets.inc_events
    ADD CONSTRAINT inc_events_pkey PRIMARY KEY (event_id);

ALTER TABLE ONLY tickets.inc
    ADD CONSTRAINT inc_pkey PRIMARY KEY (ticket_id);

ALTER TABLE ONLY tickets.version_slots
    ADD CONSTRAINT version_slots_pkey PRIMARY KEY (slot);

ALTER TABLE ONLY tickets_ops.announced_health
    ADD CONSTRAINT announced_health_pkey PRIMARY KEY (one);

ALTER TABLE ONLY tickets_ops.crq_digests
    ADD CONSTRAINT crq_digests_pkey PRIMARY KEY (ticket_id);

ALTER TABLE ONLY tickets_ops.geocoding_answers
    ADD CONSTRAINT geocoding_answers_pkey PRIMARY KEY (cluster, location_key, query);

ALTER TABLE ONLY tickets_ops.geocoding_calls
    ADD CONSTRAINT geocoding_calls_pkey PRIMARY KEY (provider, called_on, outcome);

ALTER TABLE ONLY tickets_ops.geocoding_providers
    ADD CONSTRAINT geocoding_providers_pkey PRIMARY KEY (provider);

ALTER TABLE ONLY tickets_ops.geocoding_setup
    ADD CONSTRAINT geocoding_setup_pkey PRIMARY KEY (one);

ALTER TABLE ONLY tickets_ops.inc_digests
    ADD CONSTRAINT inc_digests_pkey PRIMARY KEY (ticket_id);

ALTER TABLE ONLY tickets_ops.looks
    ADD CONSTRAINT looks_pkey PRIMARY KEY (dataset);

ALTER TABLE ONLY tickets_ops.schedule
    ADD CONSTRAINT schedule_pkey PRIMARY KEY (identifier);

ALTER TABLE ONLY tickets_ops.settings
    ADD CONSTRAINT settings_pkey PRIMARY KEY (name, pool_id);

ALTER TABLE ONLY tickets_ops.snapshot_batches
    ADD CONSTRAINT snapshot_batches_pkey PRIMARY KEY (snapshot_id, batch);

ALTER TABLE ONLY tickets_ops.snapshot_rejects
    ADD CONSTRAINT snapshot_rejects_pkey PRIMARY KEY (reject_id);

ALTER TABLE ONLY tickets_ops.snapshot_rows
    ADD CONSTRAINT snapshot_rows_pkey PRIMARY KEY (snapshot_id, ticket_id);

ALTER TABLE ONLY tickets_ops.snapshot_transitions
    ADD CONSTRAINT snapshot_transitions_from_status_to_status_key UNIQUE NULLS NOT DISTINCT (from_status, to_status);

ALTER TABLE ONLY tickets_ops.snapshots
    ADD CONSTRAINT snapshots_pkey PRIMARY KEY (snapshot_id);

ALTER TABLE ONLY tickets_ops.sweeps
    ADD CONSTRAINT sweeps_pkey PRIMARY KEY (dataset);

ALTER TABLE ONLY tickets_ops.unrecorded_tickets
    ADD CONSTRAINT unrecorded_tickets_pkey PRIMARY KEY (dataset, ticket_id);

ALTER TABLE ONLY tickets_ops.workers
    ADD CONSTRAINT workers_pkey PRIMARY KEY (pool_id);

CREATE UNIQUE INDEX assignments_in_order ON tickets.assignments USING btree (vehicle_id, "position") WHERE (state = 'assigned'::text);

CREATE UNIQUE INDEX assignments_one_vehicle ON tickets.assignments USING btree (ticket_id) WHERE (state = 'assigned'::text);

CREATE INDEX crq_closed_at ON tickets.crq USING btree (closed_at);

CREATE INDEX crq_created_at_service ON tickets.crq USING btree (created_at_service) INCLUDE (ticket_id);

CREATE INDEX crq_events_closed_at_idx ON tickets.crq_events USING btree (closed_at) WHERE (event = 'baseline'::text);

CREATE INDEX crq_events_closed_at_ticket_id_event_id_idx ON tickets.crq_events USING btree (closed_at) INCLUDE (ticket_id, event_id) WHERE (event = 'closure_corrected'::text);

CREATE INDEX crq_events_closed_at_ticket_id_event_id_snapshot_id_snapsho_idx ON tickets.crq_events USING btree (closed_at) INCLUDE (ticket_id, event_id, snapshot_id, snapshot_at, assigned_team, cluster, region) WHERE (event = 'closed'::text);

CREATE INDEX crq_events_snapshot_at_idx ON tickets.crq_events USING brin (snapshot_at);

CREATE INDEX crq_events_snapshot_at_idx1 ON tickets.crq_events USING btree (snapshot_at) WHERE ((event = ANY (ARRAY['opened'::text, 'reopened'::text])) OR ((event = 'closed'::text) AND (old_value IS NOT NULL)));

CREATE INDEX crq_events_ticket_id_assigned_team_cluster_region_idx ON tickets.crq_events USING btree (ticket_id) INCLUDE (assigned_team, cluster, region) WHERE ((event = ANY (ARRAY['baseline'::text, 'opened'::text])) OR ((event = 'closed'::text) AND (old_value IS NULL)));

CREATE INDEX crq_events_ticket_id_event_id_event_snapshot_at_assigned_te_idx ON tickets.crq_events USING btree (ticket_id, event_id) INCLUDE (event, snapshot_at, assigned_team, cluster, region) WHERE (event = ANY (ARRAY['reopened'::text, 'closure_corrected'::text]));

CREATE INDEX crq_events_ticket_id_event_id_idx ON tickets.crq_events USING btree (ticket_id, event_id);

CREATE INDEX crq_first_seen_at ON tickets.crq USING btree (first_seen_at) INCLUDE (ticket_id) WHERE (created_at_service IS NULL);

CREATE INDEX crq_geog ON tickets.crq USING gist (geog);

CREATE INDEX crq_open_counts ON tickets.crq USING btree (ticket_id) INCLUDE (region, created_at_service, first_seen_at, geo_source) WHERE is_actionable;

CREATE INDEX crq_open_geog ON tickets.crq USING gist (geog) WHERE is_actionable;

CREATE INDEX crq_open_ids ON tickets.crq USING btree (ticket_id) WHERE is_actionable;

CREATE INDEX crq_place ON tickets.crq USING btree (tickets.cluster_key(cluster), location_key);

CREATE UNIQUE INDEX geo_clusters_key ON tickets.geo_clusters USING btree (tickets.cluster_key(cluster));

CREATE INDEX geo_decisions_place ON tickets.geo_decisions USING btree (cluster, location_key, decision_id);

CREATE UNIQUE INDEX geo_locations_place ON tickets.geo_locations USING btree (tickets.cluster_key(cluster), location_key);

CREATE INDEX inc_closed_at ON tickets.inc USING btree (closed_at);

CREATE INDEX inc_created_at_service ON tickets.inc USING btree (created_at_service) INCLUDE (ticket_id);

CREATE INDEX inc_events_backlog ON tickets.inc_events USING btree (snapshot_at) WHERE ((event = ANY (ARRAY['opened'::text, 'reopened'::text])) OR ((event = 'closed'::text) AND (old_value IS NOT NULL)));

CREATE INDEX inc_events_baseline_closed_at ON tickets.inc_events USING btree (closed_at) WHERE (event = 'baseline'::text);

CREATE INDEX inc_events_closed_at ON tickets.inc_events USING btree (closed_at) INCLUDE (ticket_id, event_id, snapshot_id, snapshot_at, assigned_team, cluster, region) WHERE (event = 'closed'::text);

CREATE INDEX inc_events_corrected_at ON tickets.inc_events USING btree (closed_at) INCLUDE (ticket_id, event_id) WHERE (event = 'closure_corrected'::text);

CREATE INDEX inc_events_first ON tickets.inc_events USING btree (ticket_id) INCLUDE (assigned_team, cluster, region) WHERE ((event = ANY (ARRAY['baseline'::text, 'opened'::text])) OR ((event = 'closed'::text) AND (old_value IS NULL)));

CREATE INDEX inc_events_revisions ON tickets.inc_events USING btree (ticket_id, event_id) INCLUDE (event, snapshot_at, assigned_team, cluster, region) WHERE (event = ANY (ARRAY['reopened'::text, 'closure_corrected'::text]));

CREATE INDEX inc_events_ticket ON tickets.inc_events USING btree (ticket_id, event_id);

CREATE INDEX inc_events_time ON tickets.inc_events USING brin (snapshot_at);

CREATE INDEX inc_first_seen_at ON tickets.inc USING btree (first_seen_at) INCLUDE (ticket_id) WHERE (created_at_service IS NULL);

CREATE INDEX inc_geog ON tickets.inc USING gist (geog);

CREATE INDEX inc_open ON tickets.inc USING btree (ticket_id) WHERE is_actionable;

CREATE INDEX inc_open_counts ON tickets.inc USING btree (ticket_id) INCLUDE (region, created_at_service, first_seen_at, geo_source) WHERE is_actionable;

CREATE INDEX inc_open_geog ON tickets.inc USING gist (geog) WHERE is_actionable;

CREATE INDEX inc_open_long_names ON tickets.inc USING btree (ticket_id) WHERE (is_actionable AND (tickets.bytes_of_names(ticket_id, cluster, region, location_key, location_name) > 2000));

CREATE INDEX inc_open_places ON tickets.inc USING btree (longitude, latitude, cluster) INCLUDE (ticket_id, region, location_key, location_name, geo_source, created_at_service, first_seen_at) WHERE (is_actionable AND (tickets.bytes_of_names(ticket_id, cluster, region, location_key, location_name) <= 2000));

CREATE INDEX inc_place ON tickets.inc USING btree (tickets.cluster_key(cluster), location_key);

CREATE UNIQUE INDEX sla_rules_one_per_region ON tickets.sla_rules USING btree (lower(region)) NULLS NOT DISTINCT;

CREATE INDEX snapshot_rejects_by_snapshot ON tickets_ops.snapshot_rejects USING btree (snapshot_id, line);

CREATE INDEX snapshots_by_file ON tickets_ops.snapshots USING btree (dataset, source_key, source_etag, source_last_modified);

CREATE INDEX snapshots_by_time ON tickets_ops.snapshots USING btree (dataset, snapshot_at);

CREATE UNIQUE INDEX snapshots_one_in_flight ON tickets_ops.snapshots USING btree (dataset) WHERE in_flight;

CREATE UNIQUE INDEX snapshots_superseded_once ON tickets_ops.snapshots USING btree (dataset, source_key, source_etag, source_last_modified) WHERE (status = 'superseded'::text);

CREATE INDEX snapshots_unarchived ON tickets_ops.snapshots USING btree (dataset) WHERE ((archived_at IS NULL) AND (origin = 'bucket'::text) AND (status = ANY (ARRAY['done'::text, 'unchanged'::text])));

CREATE STATISTICS tickets.inc_bytes_of_names ON tickets.bytes_of_names(ticket_id, cluster, region, location_key, location_name) FROM tickets.inc;

COMMENT ON STATISTICS tickets.inc_bytes_of_names IS 'That names are short, for the plan of tickets.places().';

CREATE STATISTICS tickets.inc_coordinates (ndistinct) ON latitude, longitude FROM tickets.inc;

COMMENT ON STATISTICS tickets.inc_coordinates IS 'How many different coordinates tickets have: few thousand, for the plan of tickets.places().';

CREATE TRIGGER _000_forged BEFORE INSERT OR DELETE OR UPDATE ON tickets.geo_clusters FOR EACH ROW EXECUTE FUNCTION tickets_ops.refuse_forged_mark();

CREATE TRIGGER _000_forged BEFORE INSERT OR DELETE OR UPDATE ON tickets.geo_locations FOR EACH ROW EXECUTE FUNCTION tickets_ops.refuse_forged_mark();

CREATE TRIGGER _000_forged_meanwhile AFTER INSERT OR DELETE OR UPDATE ON tickets.geo_clusters FOR EACH STATEMENT EXECUTE FUNCTION tickets_ops.refuse_forged_mark();

CREATE TRIGGER _000_forged_meanwhile AFTER INSERT OR DELETE OR UPDATE ON tickets.geo_locations FOR EACH STATEMENT EXECUTE FUNCTION tickets_ops.refuse_forged_mark();

CREATE TRIGGER _040_spelling BEFORE INSERT OR UPDATE OF cluster ON tickets.geo_clusters FOR EACH ROW EXECUTE FUNCTION tickets.keep_spelling();

CREATE TRIGGER _040_spelling BEFORE INSERT OR UPDATE OF cluster ON tickets.geo_locations FOR EACH ROW EXECUTE FUNCTION tickets.keep_spelling();

CREATE TRIGGER _050_verified BEFORE INSERT OR UPDATE ON tickets.geo_clusters FOR EACH ROW EXECUTE FUNCTION tickets_ops.keep_cluster_verified();

CREATE TRIGGER _050_verified BEFORE INSERT OR UPDATE ON tickets.geo_locations FOR EACH ROW EXECUTE FUNCTION tickets_ops.keep_location_verified();

CREATE TRIGGER _060_signed BEFORE INSERT OR UPDATE ON tickets.geo_clusters FOR EACH ROW EXECUTE FUNCTION tickets_ops.sign_verdict();

CREATE TRIGGER _060_signed BEFORE INSERT OR UPDATE ON tickets.geo_locations FOR EACH ROW EXECUTE FUNCTION tickets_ops.sign_verdict();

CREATE TRIGGER _100_append_only BEFORE DELETE OR UPDATE OR TRUNCATE ON tickets.geo_decisions FOR EACH STATEMENT EXECUTE FUNCTION tickets_ops.refuse_rewriting();

CREATE TRIGGER _100_claim_gazetteers BEFORE INSERT OR DELETE OR UPDATE ON tickets.geo_clusters FOR EACH STATEMENT EXECUTE FUNCTION tickets.claim_gazetteers();

CREATE TRIGGER _100_claim_gazetteers BEFORE INSERT OR DELETE OR UPDATE ON tickets.geo_locations FOR EACH STATEMENT EXECUTE FUNCTION tickets.claim_gazetteers();

CREATE TRIGGER _100_default_stays AFTER DELETE OR UPDATE OF region OR TRUNCATE ON tickets.sla_rules FOR EACH STATEMENT EXECUTE FUNCTION tickets.require_default_rule();

CREATE TRIGGER _100_share_gazetteers BEFORE INSERT OR UPDATE ON tickets.crq FOR EACH STATEMENT EXECUTE FUNCTION tickets.share_gazetteers();

CREATE TRIGGER _100_share_gazetteers BEFORE INSERT OR UPDATE ON tickets.inc FOR EACH STATEMENT EXECUTE FUNCTION tickets.share_gazetteers();

CREATE TRIGGER _100_touch BEFORE UPDATE ON tickets.geo_clusters FOR EACH ROW EXECUTE FUNCTION tickets.touch_updated_at();

CREATE TRIGGER _100_touch BEFORE UPDATE ON tickets.geo_locations FOR EACH ROW EXECUTE FUNCTION tickets.touch_updated_at();

CREATE TRIGGER _500_moved_by_delete AFTER DELETE ON tickets.geo_clusters REFERENCING OLD TABLE AS before FOR EACH STATEMENT EXECUTE FUNCTION tickets.clusters_moved();

CREATE TRIGGER _500_moved_by_delete AFTER DELETE ON tickets.geo_locations REFERENCING OLD TABLE AS before FOR EACH STATEMENT EXECUTE FUNCTION tickets.locations_moved();

CREATE TRIGGER _500_moved_by_insert AFTER INSERT ON tickets.geo_clusters REFERENCING NEW TABLE AS after FOR EACH STATEMENT EXECUTE FUNCTION tickets.clusters_moved();

CREATE TRIGGER _500_moved_by_insert AFTER INSERT ON tickets.geo_locations REFERENCING NEW TABLE AS after FOR EACH STATEMENT EXECUTE FUNCTION tickets.locations_moved();

CREATE TRIGGER _500_moved_by_update AFTER UPDATE ON tickets.geo_clusters REFERENCING OLD TABLE AS before NEW TABLE AS after FOR EACH STATEMENT EXECUTE FUNCTION tickets.clusters_moved();

CREATE TRIGGER _500_moved_by_update AFTER UPDATE ON tickets.geo_locations REFERENCING OLD TABLE AS before NEW TABLE AS after FOR EACH STATEMENT EXECUTE FUNCTION tickets.locations_moved();

CREATE TRIGGER _500_place_inserted AFTER INSERT ON tickets.crq REFERENCING NEW TABLE AS written FOR EACH STATEMENT EXECUTE FUNCTION tickets.place_written_tickets();

CREATE TRIGGER _500_place_inserted AFTER INSERT ON tickets.inc REFERENCING NEW TABLE AS written FOR EACH STATEMENT EXECUTE FUNCTION tickets.place_written_tickets();

CREATE TRIGGER _500_place_updated AFTER UPDATE ON tickets.crq REFERENCING NEW TABLE AS written FOR EACH STATEMENT EXECUTE FUNCTION tickets.place_written_tickets();

CREATE TRIGGER _500_place_updated AFTER UPDATE ON tickets.inc REFERENCING NEW TABLE AS written FOR EACH STATEMENT EXECUTE FUNCTION tickets.place_written_tickets();

CREATE TRIGGER _600_rescore_inserted AFTER INSERT ON tickets.geo_clusters FOR EACH ROW WHEN ((new.geom IS NOT NULL)) EXECUTE FUNCTION tickets_ops.cluster_changed();

CREATE TRIGGER _600_rescore_updated AFTER UPDATE ON tickets.geo_clusters FOR EACH ROW WHEN ((((new.geom)::bytea IS DISTINCT FROM (old.geom)::bytea) OR (new.guard_km <> old.guard_km))) EXECUTE FUNCTION tickets_ops.cluster_changed();

CREATE TRIGGER _600_unrecorded AFTER INSERT ON tickets.crq REFERENCING NEW TABLE AS written FOR EACH STATEMENT EXECUTE FUNCTION tickets_ops.note_unrecorded();

CREATE TRIGGER _600_unrecorded AFTER INSERT ON tickets.inc REFERENCING NEW TABLE AS written FOR EACH STATEMENT EXECUTE FUNCTION tickets_ops.note_unrecorded();

CREATE TRIGGER _900_decided_by_delete AFTER DELETE ON tickets.geo_clusters REFERENCING OLD TABLE AS before FOR EACH STATEMENT EXECUTE FUNCTION tickets_ops.record_decisions();

CREATE TRIGGER _900_decided_by_delete AFTER DELETE ON tickets.geo_locations REFERENCING OLD TABLE AS before FOR EACH STATEMENT EXECUTE FUNCTION tickets_ops.record_decisions();

CREATE TRIGGER _900_decided_by_insert AFTER INSERT ON tickets.geo_clusters REFERENCING NEW TABLE AS after FOR EACH STATEMENT EXECUTE FUNCTION tickets_ops.record_decisions();

CREATE TRIGGER _900_decided_by_insert AFTER INSERT ON tickets.geo_locations REFERENCING NEW TABLE AS after FOR EACH STATEMENT EXECUTE FUNCTION tickets_ops.record_decisions();

CREATE TRIGGER _900_decided_by_update AFTER UPDATE ON tickets.geo_clusters REFERENCING OLD TABLE AS before NEW TABLE AS after FOR EACH STATEMENT EXECUTE FUNCTION tickets_ops.record_decisions();

CREATE TRIGGER _900_decided_by_update AFTER UPDATE ON tickets.geo_locations REFERENCING OLD TABLE AS before NEW TABLE AS after FOR EACH STATEMENT EXECUTE FUNCTION tickets_ops.record_decisions();

CREATE TRIGGER _900_version_by_delete AFTER DELETE ON tickets.crq REFERENCING OLD TABLE AS written FOR EACH STATEMENT EXECUTE FUNCTION tickets.change_version();

CREATE TRIGGER _900_version_by_delete AFTER DELETE ON tickets.geo_clusters REFERENCING OLD TABLE AS written FOR EACH STATEMENT EXECUTE FUNCTION tickets.change_version();

CREATE TRIGGER _900_version_by_delete AFTER DELETE ON tickets.geo_locations REFERENCING OLD TABLE AS written FOR EACH STATEMENT EXECUTE FUNCTION tickets.change_version();

CREATE TRIGGER _900_version_by_delete AFTER DELETE ON tickets.inc REFERENCING OLD TABLE AS written FOR EACH STATEMENT EXECUTE FUNCTION tickets.change_version();

CREATE TRIGGER _900_version_by_delete AFTER DELETE ON tickets.sla_rules REFERENCING OLD TABLE AS written FOR EACH STATEMENT EXECUTE FUNCTION tickets.change_version();

CREATE TRIGGER _900_version_by_insert AFTER INSERT ON tickets.crq REFERENCING NEW TABLE AS written FOR EACH STATEMENT EXECUTE FUNCTION tickets.change_version();

CREATE TRIGGER _900_version_by_insert AFTER INSERT ON tickets.geo_clusters REFERENCING NEW TABLE AS written FOR EACH STATEMENT EXECUTE FUNCTION tickets.change_version();

CREATE TRIGGER _900_version_by_insert AFTER INSERT ON tickets.geo_locations REFERENCING NEW TABLE AS written FOR EACH STATEMENT EXECUTE FUNCTION tickets.change_version();

CREATE TRIGGER _900_version_by_insert AFTER INSERT ON tickets.inc REFERENCING NEW TABLE AS written FOR EACH STATEMENT EXECUTE FUNCTION tickets.change_version();

CREATE TRIGGER _900_version_by_insert AFTER INSERT ON tickets.sla_rules REFERENCING NEW TABLE AS written FOR EACH STATEMENT EXECUTE FUNCTION tickets.change_version();

CREATE TRIGGER _900_version_by_truncate AFTER TRUNCATE ON tickets.crq FOR EACH STATEMENT EXECUTE FUNCTION tickets.change_version();

CREATE TRIGGER _900_version_by_truncate AFTER TRUNCATE ON tickets.geo_clusters FOR EACH STATEMENT EXECUTE FUNCTION tickets.change_version();

CREATE TRIGGER _900_version_by_truncate AFTER TRUNCATE ON tickets.geo_locations FOR EACH STATEMENT EXECUTE FUNCTION tickets.change_version();

CREATE TRIGGER _900_version_by_truncate AFTER TRUNCATE ON tickets.inc FOR EACH STATEMENT EXECUTE FUNCTION tickets.change_version();

CREATE TRIGGER _900_version_by_truncate AFTER TRUNCATE ON tickets.sla_rules FOR EACH STATEMENT EXECUTE FUNCTION tickets.change_version();

CREATE TRIGGER _900_version_by_update AFTER UPDATE ON tickets.crq REFERENCING NEW TABLE AS written FOR EACH STATEMENT EXECUTE FUNCTION tickets.change_version();

CREATE TRIGGER _900_version_by_update AFTER UPDATE ON tickets.geo_clusters REFERENCING NEW TABLE AS written FOR EACH STATEMENT EXECUTE FUNCTION tickets.change_version();

CREATE TRIGGER _900_version_by_update AFTER UPDATE ON tickets.geo_locations REFERENCING NEW TABLE AS written FOR EACH STATEMENT EXECUTE FUNCTION tickets.change_version();

CREATE TRIGGER _900_version_by_update AFTER UPDATE ON tickets.inc REFERENCING NEW TABLE AS written FOR EACH STATEMENT EXECUTE FUNCTION tickets.change_version();

CREATE TRIGGER _900_version_by_update AFTER UPDATE ON tickets.sla_rules REFERENCING NEW TABLE AS written FOR EACH STATEMENT EXECUTE FUNCTION tickets.change_version();

CREATE TRIGGER _100_transition BEFORE INSERT OR UPDATE OF status ON tickets_ops.snapshots FOR EACH ROW EXECUTE FUNCTION tickets_ops.check_transition();

ALTER TABLE ONLY tickets.geo_decisions
    ADD CONSTRAINT geo_decisions_undoes_fkey FOREIGN KEY (undoes) REFERENCES tickets.geo_decisions(decision_id);

ALTER TABLE ONLY tickets_ops.geocoding_setup
    ADD CONSTRAINT geocoding_setup_provider_fkey FOREIGN KEY (provider) REFERENCES tickets_ops.geocoding_providers(provider);

ALTER TABLE ONLY tickets_ops.snapshot_batches
    ADD CONSTRAINT snapshot_batches_snapshot_id_fkey FOREIGN KEY (snapshot_id) REFERENCES tickets_ops.snapshots(snapshot_id) ON DELETE CASCADE;

ALTER TABLE ONLY tickets_ops.snapshot_rejects
    ADD CONSTRAINT snapshot_rejects_snapshot_id_fkey FOREIGN KEY (snapshot_id) REFERENCES tickets_ops.snapshots(snapshot_id) ON DELETE CASCADE;

GRANT USAGE ON SCHEMA reporting TO tickets_reader;
GRANT USAGE ON SCHEMA reporting TO tickets_curator;
GRANT USAGE ON SCHEMA reporting TO tickets_operator;
GRANT USAGE ON SCHEMA reporting TO tickets_dispatcher;

GRANT USAGE ON SCHEMA tickets TO tickets_reader;
GRANT USAGE ON SCHEMA tickets TO tickets_curator;
GRANT USAGE ON SCHEMA tickets TO tickets_operator;
GRANT USAGE ON SCHEMA tickets TO tickets_dispatcher;

GRANT USAGE ON SCHEMA tickets_ops TO tickets_curator;
GRANT USAGE ON SCHEMA tickets_ops TO tickets_operator;
GRANT USAGE ON SCHEMA tickets_ops TO tickets_dispatcher;
GRANT USAGE ON SCHEMA tickets_ops TO tickets_monitor;

REVOKE ALL ON FUNCTION reporting.fn_crq_for_map(p_open_only boolean, p_cluster text, p_region text, p_team text) FROM PUBLIC;
GRANT ALL ON FUNCTION reporting.fn_crq_for_map(p_open_only boolean, p_cluster text, p_region text, p_team text) TO tickets_reader;
GRANT ALL ON FUNCTION reporting.fn_crq_for_map(p_open_only boolean, p_cluster text, p_region text, p_team text) TO tickets_curator;
GRANT ALL ON FUNCTION reporting.fn_crq_for_map(p_open_only boolean, p_cluster text, p_region text, p_team text) TO tickets_operator;
GRANT ALL ON FUNCTION reporting.fn_crq_for_map(p_open_only boolean, p_cluster text, p_region text, p_team text) TO tickets_dispatcher;

REVOKE ALL ON FUNCTION reporting.fn_inc_dashboard(p_cluster text, p_status text, p_window text, p_from timestamp with time zone, p_to timestamp with time zone) FROM PUBLIC;
GRANT ALL ON FUNCTION reporting.fn_inc_dashboard(p_cluster text, p_status text, p_window text, p_from timestamp with time zone, p_to timestamp with time zone) TO tickets_reader;
GRANT ALL ON FUNCTION reporting.fn_inc_dashboard(p_cluster text, p_status text, p_window text, p_from timestamp with time zone, p_to timestamp with time zone) TO tickets_curator;
GRANT ALL ON FUNCTION reporting.fn_inc_dashboard(p_cluster text, p_status text, p_window text, p_from timestamp with time zone, p_to timestamp with time zone) TO tickets_operator;
GRANT ALL ON FUNCTION reporting.fn_inc_dashboard(p_cluster text, p_status text, p_window text, p_from timestamp with time zone, p_to timestamp with time zone) TO tickets_dispatcher;

REVOKE ALL ON FUNCTION reporting.fn_inc_trends(p_from date, p_to date, p_step text, p_by text) FROM PUBLIC;
GRANT ALL ON FUNCTION reporting.fn_inc_trends(p_from date, p_to date, p_step text, p_by text) TO tickets_reader;
GRANT ALL ON FUNCTION reporting.fn_inc_trends(p_from date, p_to date, p_step text, p_by text) TO tickets_curator;
GRANT ALL ON FUNCTION reporting.fn_inc_trends(p_from date, p_to date, p_step text, p_by text) TO tickets_operator;
GRANT ALL ON FUNCTION reporting.fn_inc_trends(p_from date, p_to date, p_step text, p_by text) TO tickets_dispatcher;

REVOKE ALL ON FUNCTION reporting.fn_ticket_places(p_state text, p_from timestamp with time zone, p_to timestamp with time zone, p_cluster text, p_region text, p_team text) FROM PUBLIC;
GRANT ALL ON FUNCTION reporting.fn_ticket_places(p_state text, p_from timestamp with time zone, p_to timestamp with time zone, p_cluster text, p_region text, p_team text) TO tickets_reader;
GRANT ALL ON FUNCTION reporting.fn_ticket_places(p_state text, p_from timestamp with time zone, p_to timestamp with time zone, p_cluster text, p_region text, p_team text) TO tickets_curator;
GRANT ALL ON FUNCTION reporting.fn_ticket_places(p_state text, p_from timestamp with time zone, p_to timestamp with time zone, p_cluster text, p_region text, p_team text) TO tickets_operator;
GRANT ALL ON FUNCTION reporting.fn_ticket_places(p_state text, p_from timestamp with time zone, p_to timestamp with time zone, p_cluster text, p_region text, p_team text) TO tickets_dispatcher;

REVOKE ALL ON FUNCTION reporting.fn_tickets_for_map(p_open_only boolean, p_cluster text, p_region text, p_team text) FROM PUBLIC;
GRANT ALL ON FUNCTION reporting.fn_tickets_for_map(p_open_only boolean, p_cluster text, p_region text, p_team text) TO tickets_reader;
GRANT ALL ON FUNCTION reporting.fn_tickets_for_map(p_open_only boolean, p_cluster text, p_region text, p_team text) TO tickets_curator;
GRANT ALL ON FUNCTION reporting.fn_tickets_for_map(p_open_only boolean, p_cluster text, p_region text, p_team text) TO tickets_operator;
GRANT ALL ON FUNCTION reporting.fn_tickets_for_map(p_open_only boolean, p_cluster text, p_region text, p_team text) TO tickets_dispatcher;

REVOKE ALL ON FUNCTION reporting.fn_tickets_for_map_json(p_open_only boolean, p_cluster text, p_region text, p_team text) FROM PUBLIC;
GRANT ALL ON FUNCTION reporting.fn_tickets_for_map_json(p_open_only boolean, p_cluster text, p_region text, p_team text) TO tickets_reader;
GRANT ALL ON FUNCTION reporting.fn_tickets_for_map_json(p_open_only boolean, p_cluster text, p_region text, p_team text) TO tickets_curator;
GRANT ALL ON FUNCTION reporting.fn_tickets_for_map_json(p_open_only boolean, p_cluster text, p_region text, p_team text) TO tickets_operator;
GRANT ALL ON FUNCTION reporting.fn_tickets_for_map_json(p_open_only boolean, p_cluster text, p_region text, p_team text) TO tickets_dispatcher;

REVOKE ALL ON FUNCTION reporting.fn_tickets_version() FROM PUBLIC;
GRANT ALL ON FUNCTION reporting.fn_tickets_version() TO tickets_reader;
GRANT ALL ON FUNCTION reporting.fn_tickets_version() TO tickets_curator;
GRANT ALL ON FUNCTION reporting.fn_tickets_version() TO tickets_operator;
GRANT ALL ON FUNCTION reporting.fn_tickets_version() TO tickets_dispatcher;

REVOKE ALL ON FUNCTION reporting.ticket_places_mvt(z integer, x integer, y integer, query json) FROM PUBLIC;
GRANT ALL ON FUNCTION reporting.ticket_places_mvt(z integer, x integer, y integer, query json) TO tickets_reader;
GRANT ALL ON FUNCTION reporting.ticket_places_mvt(z integer, x integer, y integer, query json) TO tickets_curator;
GRANT ALL ON FUNCTION reporting.ticket_places_mvt(z integer, x integer, y integer, query json) TO tickets_operator;
GRANT ALL ON FUNCTION reporting.ticket_places_mvt(z integer, x integer, y integer, query json) TO tickets_dispatcher;

GRANT SELECT ON TABLE tickets.assignments TO tickets_reader;
GRANT SELECT ON TABLE tickets.assignments TO tickets_curator;
GRANT SELECT ON TABLE tickets.assignments TO tickets_operator;
GRANT SELECT ON TABLE tickets.assignments TO tickets_dispatcher;

REVOKE ALL ON FUNCTION tickets.assign(p_ticket_id text, p_vehicle_id text, p_take_over boolean) FROM PUBLIC;
GRANT ALL ON FUNCTION tickets.assign(p_ticket_id text, p_vehicle_id text, p_take_over boolean) TO tickets_dispatcher;

REVOKE ALL ON FUNCTION tickets.assign_plan(p_capacity integer, p_radius_km double precision, p_region text, p_cluster text, p_same_team boolean, p_tickets text[], p_vehicles text[], p_stale boolean) FROM PUBLIC;
GRANT ALL ON FUNCTION tickets.assign_plan(p_capacity integer, p_radius_km double precision, p_region text, p_cluster text, p_same_team boolean, p_tickets text[], p_vehicles text[], p_stale boolean) TO tickets_dispatcher;

GRANT SELECT ON TABLE tickets.inc TO tickets_reader;
GRANT SELECT ON TABLE tickets.inc TO tickets_curator;
GRANT SELECT ON TABLE tickets.inc TO tickets_operator;
GRANT SELECT ON TABLE tickets.inc TO tickets_dispatcher;

REVOKE ALL ON FUNCTION tickets.change_version() FROM PUBLIC;

REVOKE ALL ON FUNCTION tickets.claim_gazetteers() FROM PUBLIC;

REVOKE ALL ON FUNCTION tickets.clusters_moved() FROM PUBLIC;

GRANT SELECT ON TABLE tickets.geo_country TO tickets_reader;
GRANT SELECT ON TABLE tickets.geo_country TO tickets_curator;
GRANT SELECT ON TABLE tickets.geo_country TO tickets_operator;
GRANT SELECT ON TABLE tickets.geo_country TO tickets_dispatcher;

GRANT ALL ON FUNCTION tickets.crq_places(p_cluster text, p_team text) TO tickets_reader;
GRANT ALL ON FUNCTION tickets.crq_places(p_cluster text, p_team text) TO tickets_curator;
GRANT ALL ON FUNCTION tickets.crq_places(p_cluster text, p_team text) TO tickets_operator;
GRANT ALL ON FUNCTION tickets.crq_places(p_cluster text, p_team text) TO tickets_dispatcher;

REVOKE ALL ON FUNCTION tickets.datasets() FROM PUBLIC;
GRANT ALL ON FUNCTION tickets.datasets() TO tickets_reader;
GRANT ALL ON FUNCTION tickets.datasets() TO tickets_curator;
GRANT ALL ON FUNCTION tickets.datasets() TO tickets_operator;
GRANT ALL ON FUNCTION tickets.datasets() TO tickets_dispatcher;

REVOKE ALL ON FUNCTION tickets.dispatch_plan(p_capacity integer, p_radius_km double precision, p_region text, p_cluster text, p_same_team boolean, p_tickets text[], p_vehicles text[], p_stale boolean) FROM PUBLIC;
GRANT ALL ON FUNCTION tickets.dispatch_plan(p_capacity integer, p_radius_km double precision, p_region text, p_cluster text, p_same_team boolean, p_tickets text[], p_vehicles text[], p_stale boolean) TO tickets_dispatcher;

GRANT SELECT ON TABLE tickets.sla_rules TO PUBLIC;
GRANT SELECT ON TABLE tickets.sla_rules TO tickets_reader;
GRANT SELECT ON TABLE tickets.sla_rules TO tickets_curator;
GRANT SELECT ON TABLE tickets.sla_rules TO tickets_operator;
GRANT SELECT ON TABLE tickets.sla_rules TO tickets_dispatcher;

REVOKE ALL ON FUNCTION tickets_ops.check_plan(p_capacity integer, p_radius_km double precision, p_same_team boolean) FROM PUBLIC;
GRANT ALL ON FUNCTION tickets_ops.check_plan(p_capacity integer, p_radius_km double precision, p_same_team boolean) TO tickets_dispatcher;

GRANT SELECT ON TABLE tickets.dispatch_settings TO tickets_reader;
GRANT SELECT ON TABLE tickets.dispatch_settings TO tickets_curator;
GRANT SELECT ON TABLE tickets.dispatch_settings TO tickets_operator;
GRANT SELECT ON TABLE tickets.dispatch_settings TO tickets_dispatcher;

GRANT SELECT ON TABLE tickets.inc_open_sla TO tickets_reader;
GRANT SELECT ON TABLE tickets.inc_open_sla TO tickets_curator;
GRANT SELECT ON TABLE tickets.inc_open_sla TO tickets_operator;
GRANT SELECT ON TABLE tickets.inc_open_sla TO tickets_dispatcher;

REVOKE ALL ON FUNCTION tickets_ops.dispatch_tickets(p_region text, p_cluster text, p_tickets text[]) FROM PUBLIC;
GRANT ALL ON FUNCTION tickets_ops.dispatch_tickets(p_region text, p_cluster text, p_tickets text[]) TO tickets_dispatcher;

GRANT SELECT ON TABLE tickets.vehicles_now TO tickets_reader;
GRANT SELECT ON TABLE tickets.vehicles_now TO tickets_curator;
GRANT SELECT ON TABLE tickets.vehicles_now TO tickets_operator;
GRANT SELECT ON TABLE tickets.vehicles_now TO tickets_dispatcher;

REVOKE ALL ON FUNCTION tickets_ops.dispatch_vehicles(p_capacity integer, p_vehicles text[], p_stale boolean) FROM PUBLIC;
GRANT ALL ON FUNCTION tickets_ops.dispatch_vehicles(p_capacity integer, p_vehicles text[], p_stale boolean) TO tickets_dispatcher;

REVOKE ALL ON FUNCTION tickets_ops.sphere_error() FROM PUBLIC;
GRANT ALL ON FUNCTION tickets_ops.sphere_error() TO tickets_dispatcher;

REVOKE ALL ON FUNCTION tickets_ops.within_reach(p_from public.geography, p_to public.geography, p_radius double precision) FROM PUBLIC;
GRANT ALL ON FUNCTION tickets_ops.within_reach(p_from public.geography, p_to public.geography, p_radius double precision) TO tickets_dispatcher;

REVOKE ALL ON FUNCTION tickets.dispatch_problem(p_capacity integer, p_radius_km double precision, p_region text, p_cluster text, p_same_team boolean, p_tickets text[], p_vehicles text[], p_stale boolean) FROM PUBLIC;
GRANT ALL ON FUNCTION tickets.dispatch_problem(p_capacity integer, p_radius_km double precision, p_region text, p_cluster text, p_same_team boolean, p_tickets text[], p_vehicles text[], p_stale boolean) TO tickets_dispatcher;

GRANT SELECT ON TABLE tickets.crq TO tickets_reader;
GRANT SELECT ON TABLE tickets.crq TO tickets_curator;
GRANT SELECT ON TABLE tickets.crq TO tickets_operator;
GRANT SELECT ON TABLE tickets.crq TO tickets_dispatcher;

REVOKE ALL ON FUNCTION tickets.freshness(p_dataset text) FROM PUBLIC;
GRANT ALL ON FUNCTION tickets.freshness(p_dataset text) TO tickets_reader;
GRANT ALL ON FUNCTION tickets.freshness(p_dataset text) TO tickets_curator;
GRANT ALL ON FUNCTION tickets.freshness(p_dataset text) TO tickets_operator;
GRANT ALL ON FUNCTION tickets.freshness(p_dataset text) TO tickets_dispatcher;

REVOKE ALL ON FUNCTION tickets.geocode_cluster(cluster text, force boolean) FROM PUBLIC;
GRANT ALL ON FUNCTION tickets.geocode_cluster(cluster text, force boolean) TO tickets_operator;

REVOKE ALL ON FUNCTION tickets.geocode_location(location_name text, cluster text, force boolean) FROM PUBLIC;
GRANT ALL ON FUNCTION tickets.geocode_location(location_name text, cluster text, force boolean) TO tickets_operator;

REVOKE ALL ON FUNCTION tickets.keep_spelling() FROM PUBLIC;

REVOKE ALL ON FUNCTION tickets.locations_moved() FROM PUBLIC;

REVOKE ALL ON FUNCTION tickets.release(p_ticket_id text, p_reason text) FROM PUBLIC;
GRANT ALL ON FUNCTION tickets.release(p_ticket_id text, p_reason text) TO tickets_dispatcher;

GRANT SELECT ON TABLE tickets.geo_decisions TO tickets_reader;
GRANT SELECT ON TABLE tickets.geo_decisions TO tickets_curator;
GRANT SELECT ON TABLE tickets.geo_decisions TO tickets_operator;
GRANT SELECT ON TABLE tickets.geo_decisions TO tickets_dispatcher;

REVOKE ALL ON FUNCTION tickets.undo_decision(p_decision_id bigint) FROM PUBLIC;
GRANT ALL ON FUNCTION tickets.undo_decision(p_decision_id bigint) TO tickets_curator;

REVOKE ALL ON FUNCTION tickets_ops.advance_job(p_id bigint, p_run_at timestamp with time zone, p_priority integer, p_add jsonb, p_remove text) FROM PUBLIC;

REVOKE ALL ON FUNCTION tickets_ops.alert_problems() FROM PUBLIC;

REVOKE ALL ON FUNCTION tickets_ops.announce_health() FROM PUBLIC;

REVOKE ALL ON FUNCTION tickets_ops.answer_expires_at(p_status text, p_attempts integer, p_found_days numeric, p_from timestamp with time zone) FROM PUBLIC;

REVOKE ALL ON FUNCTION tickets_ops.answers(p_cluster text, p_location_key text, p_provider text, OUT candidates jsonb, OUT queries text[]) FROM PUBLIC;

REVOKE ALL ON FUNCTION tickets_ops.answers_count_since() FROM PUBLIC;

REVOKE ALL ON FUNCTION tickets_ops.as_pipeline(p_on boolean) FROM PUBLIC;

REVOKE ALL ON FUNCTION tickets_ops.ask_for_missing_jobs() FROM PUBLIC;

REVOKE ALL ON FUNCTION tickets_ops.batch_job_key(p_snapshot_id bigint, p_batch bigint) FROM PUBLIC;

GRANT SELECT ON TABLE tickets_ops.snapshots TO tickets_operator;

REVOKE ALL ON FUNCTION tickets_ops.blocking_file(p_dataset text) FROM PUBLIC;

REVOKE ALL ON FUNCTION tickets_ops.blocking_problems() FROM PUBLIC;

REVOKE ALL ON FUNCTION tickets_ops.cancel_job(p_id bigint) FROM PUBLIC;
GRANT ALL ON FUNCTION tickets_ops.cancel_job(p_id bigint) TO tickets_operator;

REVOKE ALL ON FUNCTION tickets_ops.candidate_point(p_candidate jsonb) FROM PUBLIC;

REVOKE ALL ON FUNCTION tickets_ops.changes_problems(p_dataset text) FROM PUBLIC;

REVOKE ALL ON FUNCTION tickets_ops.cheapest_tickets(p_from public.geography, p_team text, p_limit integer, p_km_per_metre double precision, p_radius double precision, p_bonus double precision, p_places public.geography[], p_teams text[], p_bonuses double precision[], p_taken boolean[], OUT tickets integer[], OUT metres double precision[], OUT costs double precision[], OUT beyond double precision) FROM PUBLIC;
GRANT ALL ON FUNCTION tickets_ops.cheapest_tickets(p_from public.geography, p_team text, p_limit integer, p_km_per_metre double precision, p_radius double precision, p_bonus double precision, p_places public.geography[], p_teams text[], p_bonuses double precision[], p_taken boolean[], OUT tickets integer[], OUT metres double precision[], OUT costs double precision[], OUT beyond double precision) TO tickets_dispatcher;

REVOKE ALL ON FUNCTION tickets_ops.check_coordinate(p_name text, p_geom public.geometry) FROM PUBLIC;

REVOKE ALL ON FUNCTION tickets_ops.check_transition() FROM PUBLIC;

REVOKE ALL ON FUNCTION tickets_ops.claim_dispatch() FROM PUBLIC;
GRANT ALL ON FUNCTION tickets_ops.claim_dispatch() TO tickets_dispatcher;

REVOKE ALL ON FUNCTION tickets_ops.clock_tolerance() FROM PUBLIC;

REVOKE ALL ON FUNCTION tickets_ops.cluster_changed() FROM PUBLIC;

REVOKE ALL ON FUNCTION tickets_ops.cluster_job_key(p_cluster text) FROM PUBLIC;

REVOKE ALL ON FUNCTION tickets_ops.cluster_name(p_cluster text) FROM PUBLIC;

REVOKE ALL ON FUNCTION tickets_ops.cluster_name_key(p_cluster text) FROM PUBLIC;

REVOKE ALL ON FUNCTION tickets_ops.cluster_question(p_cluster text, p_force boolean, p_provider text) FROM PUBLIC;

REVOKE ALL ON FUNCTION tickets_ops.cluster_region(p_cluster text) FROM PUBLIC;

REVOKE ALL ON FUNCTION tickets_ops.content_lag(p_dataset text, OUT lag interval, OUT usual interval) FROM PUBLIC;

REVOKE ALL ON FUNCTION tickets_ops.content_through(p_dataset text) FROM PUBLIC;

REVOKE ALL ON FUNCTION tickets_ops.enqueue(p_task text, p_payload json, p_job_key text, p_run_at timestamp with time zone, p_priority integer, p_max_attempts integer) FROM PUBLIC;

REVOKE ALL ON FUNCTION tickets_ops.fetch_job_key(p_dataset text, p_which text) FROM PUBLIC;

REVOKE ALL ON FUNCTION tickets_ops.continue_backfill(p_dataset text) FROM PUBLIC;

REVOKE ALL ON FUNCTION tickets_ops.coordinate_refusal(p_geom public.geometry) FROM PUBLIC;

REVOKE ALL ON FUNCTION tickets_ops.costs_from(p_from public.geography, p_tickets integer[], p_km_per_metre double precision, p_radius double precision, p_places public.geography[], p_bonuses double precision[], p_taken boolean[], OUT tickets integer[], OUT metres double precision[], OUT costs double precision[]) FROM PUBLIC;
GRANT ALL ON FUNCTION tickets_ops.costs_from(p_from public.geography, p_tickets integer[], p_km_per_metre double precision, p_radius double precision, p_places public.geography[], p_bonuses double precision[], p_taken boolean[], OUT tickets integer[], OUT metres double precision[], OUT costs double precision[]) TO tickets_dispatcher;

REVOKE ALL ON FUNCTION tickets_ops.count_vehicles() FROM PUBLIC;

REVOKE ALL ON FUNCTION tickets_ops.counts_as_loaded(p_status text) FROM PUBLIC;

REVOKE ALL ON FUNCTION tickets_ops.dataset_metrics(p_dataset text) FROM PUBLIC;

REVOKE ALL ON FUNCTION tickets_ops.day_lock() FROM PUBLIC;

REVOKE ALL ON FUNCTION tickets_ops.undoing() FROM PUBLIC;

REVOKE ALL ON FUNCTION tickets_ops.decision_of(p_before jsonb, p_after jsonb) FROM PUBLIC;

REVOKE ALL ON FUNCTION tickets_ops.delete_jobs_of(p_tasks text[]) FROM PUBLIC;

REVOKE ALL ON FUNCTION tickets_ops.hung_after() FROM PUBLIC;
GRANT ALL ON FUNCTION tickets_ops.hung_after() TO tickets_operator;

GRANT SELECT ON TABLE tickets_ops.workers TO tickets_operator;

REVOKE ALL ON FUNCTION tickets_ops.setting(p_name text) FROM PUBLIC;

REVOKE ALL ON FUNCTION tickets_ops.feed(p_dataset text) FROM PUBLIC;

REVOKE ALL ON FUNCTION tickets_ops.job_policy(p_task text) FROM PUBLIC;

REVOKE ALL ON FUNCTION tickets_ops.readable_payload(p_payload json) FROM PUBLIC;

REVOKE ALL ON FUNCTION tickets_ops.parsed_payload(p_payload json) FROM PUBLIC;

REVOKE ALL ON FUNCTION tickets_ops.queued_jobs(p_unknown_too boolean) FROM PUBLIC;

REVOKE ALL ON FUNCTION tickets_ops.wall_clock(p_at timestamp with time zone) FROM PUBLIC;

REVOKE ALL ON FUNCTION tickets_ops.worker_schema_is_shared() FROM PUBLIC;

GRANT SELECT ON TABLE tickets.import_meta TO tickets_reader;
GRANT SELECT ON TABLE tickets.import_meta TO tickets_curator;
GRANT SELECT ON TABLE tickets.import_meta TO tickets_operator;
GRANT SELECT ON TABLE tickets.import_meta TO tickets_dispatcher;

REVOKE ALL ON FUNCTION tickets_ops.described_jobs() FROM PUBLIC;

REVOKE ALL ON FUNCTION tickets_ops.dismiss_snapshot(p_snapshot_id bigint) FROM PUBLIC;
GRANT ALL ON FUNCTION tickets_ops.dismiss_snapshot(p_snapshot_id bigint) TO tickets_operator;

REVOKE ALL ON FUNCTION tickets_ops.dispatch_lock() FROM PUBLIC;

REVOKE ALL ON FUNCTION tickets_ops.distance_km(p_one public.geometry, p_other public.geometry) FROM PUBLIC;

REVOKE ALL ON FUNCTION tickets_ops.distrust_answers(p_provider text) FROM PUBLIC;

REVOKE ALL ON FUNCTION tickets_ops.empty_staging(p_snapshot_id bigint) FROM PUBLIC;

REVOKE ALL ON FUNCTION tickets_ops.end_assignments(p_snapshot_id bigint, p_first_ticket_id text, p_last_ticket_id text) FROM PUBLIC;

REVOKE ALL ON FUNCTION tickets_ops.enqueue_all(p_tasks text[], p_payloads json[], p_job_keys text[], p_run_at timestamp with time zone[], p_priorities integer[]) FROM PUBLIC;

REVOKE ALL ON FUNCTION tickets_ops.enqueue_on_demand(p_task text, p_key text, p_payload jsonb, p_force boolean, p_known text) FROM PUBLIC;

REVOKE ALL ON FUNCTION tickets_ops.erase_from_errors(p_text text, p_instead text) FROM PUBLIC;

REVOKE ALL ON FUNCTION tickets_ops.erase_from_job_errors(p_text text, p_instead text) FROM PUBLIC;

REVOKE ALL ON FUNCTION tickets_ops.erase_from_ranges(p_dataset text, p_ticket_id text) FROM PUBLIC;

REVOKE ALL ON FUNCTION tickets_ops.erase_place(p_cluster text, p_location_key text, p_location_name text, OUT places bigint, OUT decisions bigint) FROM PUBLIC;

REVOKE ALL ON FUNCTION tickets_ops.erase_staged(p_dataset text, p_ticket_id text) FROM PUBLIC;

REVOKE ALL ON FUNCTION tickets_ops.erase_ticket(p_ticket_id text, p_dataset text) FROM PUBLIC;

REVOKE ALL ON FUNCTION tickets_ops.fail_snapshot(p_snapshot_id bigint, p_reason text) FROM PUBLIC;

REVOKE ALL ON FUNCTION tickets_ops.feed_problems(p_dataset text) FROM PUBLIC;

REVOKE ALL ON FUNCTION tickets_ops.fetch_now(dataset text, force boolean) FROM PUBLIC;
GRANT ALL ON FUNCTION tickets_ops.fetch_now(dataset text, force boolean) TO tickets_operator;

REVOKE ALL ON FUNCTION tickets_ops.finalize_job_key(p_snapshot_id bigint) FROM PUBLIC;

GRANT SELECT ON TABLE tickets_ops.schedule TO tickets_operator;

REVOKE ALL ON FUNCTION tickets_ops.fires_on(p_entry tickets_ops.schedule, p_day date) FROM PUBLIC;

REVOKE ALL ON FUNCTION tickets_ops.flag_suspicious(p_cluster text) FROM PUBLIC;

REVOKE ALL ON FUNCTION tickets_ops.foreign_vehicle_code() FROM PUBLIC;

REVOKE ALL ON FUNCTION tickets_ops.free_dead_workers(p_own_pool text) FROM PUBLIC;

REVOKE ALL ON FUNCTION tickets_ops.location_job_key(p_cluster text, p_location_key text) FROM PUBLIC;

REVOKE ALL ON FUNCTION tickets_ops.geocoding_job_key(p_task text, p_payload jsonb) FROM PUBLIC;

REVOKE ALL ON FUNCTION tickets_ops.geocoding_metrics() FROM PUBLIC;

REVOKE ALL ON FUNCTION tickets_ops.geocoding_problems() FROM PUBLIC;

REVOKE ALL ON FUNCTION tickets_ops.give_up(p_job_id bigint) FROM PUBLIC;

REVOKE ALL ON FUNCTION tickets_ops.greedy_tours(p_rooms integer[], p_starts public.geography[], p_vehicle_teams text[], p_places public.geography[], p_bonuses double precision[], p_teams text[], p_km_per_metre double precision, p_radius double precision) FROM PUBLIC;
GRANT ALL ON FUNCTION tickets_ops.greedy_tours(p_rooms integer[], p_starts public.geography[], p_vehicle_teams text[], p_places public.geography[], p_bonuses double precision[], p_teams text[], p_km_per_metre double precision, p_radius double precision) TO tickets_dispatcher;

REVOKE ALL ON FUNCTION tickets_ops.has_geocoding_worker() FROM PUBLIC;

REVOKE ALL ON FUNCTION tickets_ops.has_tickets(p_cluster text) FROM PUBLIC;

REVOKE ALL ON FUNCTION tickets_ops.has_word(p_words text[], p_word text) FROM PUBLIC;

REVOKE ALL ON FUNCTION tickets_ops.health_metrics() FROM PUBLIC;

REVOKE ALL ON FUNCTION tickets_ops.held(p_dataset text) FROM PUBLIC;

REVOKE ALL ON FUNCTION tickets_ops.high_water_mark(p_dataset text, OUT snapshot_at timestamp with time zone, OUT last_modified timestamp with time zone, OUT key text) FROM PUBLIC;

REVOKE ALL ON FUNCTION tickets_ops.history_cte(p_dataset text) FROM PUBLIC;

REVOKE ALL ON FUNCTION tickets_ops.hold_time() FROM PUBLIC;

REVOKE ALL ON FUNCTION tickets_ops.is_older(p_snapshot_at timestamp with time zone, p_last_modified timestamp with time zone, p_key text, p_than_snapshot_at timestamp with time zone, p_than_last_modified timestamp with time zone, p_than_key text) FROM PUBLIC;

REVOKE ALL ON FUNCTION tickets_ops.is_below_mark(p_dataset text, p_snapshot_at timestamp with time zone, p_last_modified timestamp with time zone, p_key text) FROM PUBLIC;

REVOKE ALL ON FUNCTION tickets_ops.is_blocked(p_dataset text, p_snapshot_at timestamp with time zone, p_last_modified timestamp with time zone, p_key text) FROM PUBLIC;

GRANT SELECT ON TABLE tickets.geo_clusters TO tickets_reader;
GRANT SELECT,INSERT,UPDATE ON TABLE tickets.geo_clusters TO tickets_curator;
GRANT SELECT ON TABLE tickets.geo_clusters TO tickets_operator;
GRANT SELECT ON TABLE tickets.geo_clusters TO tickets_dispatcher;

REVOKE ALL ON FUNCTION tickets_ops.is_due(p_cluster tickets.geo_clusters) FROM PUBLIC;

GRANT SELECT ON TABLE tickets.geo_locations TO tickets_reader;
GRANT SELECT,INSERT,UPDATE ON TABLE tickets.geo_locations TO tickets_curator;
GRANT SELECT ON TABLE tickets.geo_locations TO tickets_operator;
GRANT SELECT ON TABLE tickets.geo_locations TO tickets_dispatcher;

REVOKE ALL ON FUNCTION tickets_ops.is_due(p_location tickets.geo_locations) FROM PUBLIC;

REVOKE ALL ON FUNCTION tickets_ops.is_erasing() FROM PUBLIC;

REVOKE ALL ON FUNCTION tickets_ops.is_failure(p_snapshot tickets_ops.snapshots) FROM PUBLIC;

REVOKE ALL ON FUNCTION tickets_ops.places_of(p_cluster text, OUT within bigint, OUT beyond bigint, OUT rejected bigint) FROM PUBLIC;

REVOKE ALL ON FUNCTION tickets_ops.is_far_from_its_places(p_cluster text) FROM PUBLIC;
GRANT ALL ON FUNCTION tickets_ops.is_far_from_its_places(p_cluster text) TO tickets_curator;
GRANT ALL ON FUNCTION tickets_ops.is_far_from_its_places(p_cluster text) TO tickets_operator;

REVOKE ALL ON FUNCTION tickets_ops.is_geocoding(p_task text) FROM PUBLIC;

REVOKE ALL ON FUNCTION tickets_ops.is_living(p_state text, p_seen_at timestamp with time zone) FROM PUBLIC;

REVOKE ALL ON FUNCTION tickets_ops.is_loaded(p_status text) FROM PUBLIC;

REVOKE ALL ON FUNCTION tickets_ops.is_open(p_status text, p_opens_at timestamp with time zone) FROM PUBLIC;

REVOKE ALL ON FUNCTION tickets_ops.is_passed_over_elsewhere(p_snapshot tickets_ops.snapshots) FROM PUBLIC;

REVOKE ALL ON FUNCTION tickets_ops.is_pipeline() FROM PUBLIC;

REVOKE ALL ON FUNCTION tickets_ops.is_unknown_cluster(p_cluster text) FROM PUBLIC;

REVOKE ALL ON FUNCTION tickets_ops.is_unresolvable(p_cluster tickets.geo_clusters) FROM PUBLIC;

REVOKE ALL ON FUNCTION tickets_ops.is_whole(p_status text) FROM PUBLIC;

REVOKE ALL ON FUNCTION tickets_ops.job_metrics() FROM PUBLIC;

REVOKE ALL ON FUNCTION tickets_ops.job_problems() FROM PUBLIC;

REVOKE ALL ON FUNCTION tickets_ops.jobs_of_snapshot(p_snapshot_id bigint) FROM PUBLIC;

REVOKE ALL ON FUNCTION tickets_ops.name_match(p_key text, p_cluster text, p_label text, OUT named boolean, OUT surrounded boolean, OUT exact boolean, OUT literal boolean, OUT same_kind boolean, OUT overlap numeric, OUT contradicted text[]) FROM PUBLIC;

REVOKE ALL ON FUNCTION tickets_ops.name_words(p_name text) FROM PUBLIC;

REVOKE ALL ON FUNCTION tickets_ops.score_candidates(p_candidates jsonb, p_key text, p_cluster text, p_centre public.geometry, p_guard_km numeric) FROM PUBLIC;

REVOKE ALL ON FUNCTION tickets_ops.score_cluster_candidates(p_candidates jsonb, p_key text) FROM PUBLIC;

REVOKE ALL ON FUNCTION tickets_ops.judge_cluster(p_candidates jsonb, p_key text, p_region text, p_guard_km numeric) FROM PUBLIC;

REVOKE ALL ON FUNCTION tickets_ops.judge_inherited(p_geom public.geometry, p_centre public.geometry, p_guard_km numeric, OUT status text, OUT distance_km numeric, OUT doubt text) FROM PUBLIC;

REVOKE ALL ON FUNCTION tickets_ops.judge_location(p_candidates jsonb, p_key text, p_cluster text, p_centre public.geometry, p_guard_km numeric) FROM PUBLIC;

REVOKE ALL ON FUNCTION tickets_ops.keep_cluster_verified() FROM PUBLIC;

REVOKE ALL ON FUNCTION tickets_ops.keep_geocoding_call(p_provider text, p_reserved_at timestamp with time zone) FROM PUBLIC;

REVOKE ALL ON FUNCTION tickets_ops.keep_location_verified() FROM PUBLIC;

REVOKE ALL ON FUNCTION tickets_ops.kept_tables() FROM PUBLIC;
GRANT ALL ON FUNCTION tickets_ops.kept_tables() TO tickets_operator;

REVOKE ALL ON FUNCTION tickets_ops.kind_words() FROM PUBLIC;

REVOKE ALL ON FUNCTION tickets_ops.known_versions(p_dataset text, p_keys text[]) FROM PUBLIC;

REVOKE ALL ON FUNCTION tickets_ops.last_load(p_dataset text, p_cleaning_version integer, OUT etag text, OUT sha256 text) FROM PUBLIC;

REVOKE ALL ON FUNCTION tickets_ops.last_loaded(p_dataset text) FROM PUBLIC;

REVOKE ALL ON FUNCTION tickets_ops.nearest_scheduled_run(p_dataset text, p_at timestamp with time zone, p_ahead boolean) FROM PUBLIC;

REVOKE ALL ON FUNCTION tickets_ops.last_scheduled_run(p_at timestamp with time zone, p_dataset text) FROM PUBLIC;

REVOKE ALL ON FUNCTION tickets_ops.ledger_lock(p_dataset text) FROM PUBLIC;

REVOKE ALL ON FUNCTION tickets_ops.list_jobs() FROM PUBLIC;
GRANT ALL ON FUNCTION tickets_ops.list_jobs() TO tickets_operator;

REVOKE ALL ON FUNCTION tickets_ops.list_problems() FROM PUBLIC;

REVOKE ALL ON FUNCTION tickets_ops.load_rows(p_dataset text, p_snapshot_id bigint, p_first text, p_last text, p_without text[], OUT inserted integer, OUT updated integer, OUT unchanged integer) FROM PUBLIC;

REVOKE ALL ON FUNCTION tickets_ops.location_question(p_location_name text, p_cluster text, p_force boolean, p_provider text) FROM PUBLIC;

REVOKE ALL ON FUNCTION tickets_ops.lock_job(p_id bigint) FROM PUBLIC;

REVOKE ALL ON FUNCTION tickets_ops.locked_snapshot(p_snapshot_id bigint) FROM PUBLIC;

REVOKE ALL ON FUNCTION tickets_ops.mentions(p_text text, p_ticket_id text) FROM PUBLIC;

REVOKE ALL ON FUNCTION tickets_ops.metric_help() FROM PUBLIC;

REVOKE ALL ON FUNCTION tickets_ops.min_cost_assignment(p_costs double precision[], p_rows integer, p_columns integer) FROM PUBLIC;
GRANT ALL ON FUNCTION tickets_ops.min_cost_assignment(p_costs double precision[], p_rows integer, p_columns integer) TO tickets_dispatcher;

REVOKE ALL ON FUNCTION tickets_ops.min_cost_matching(p_row integer[], p_column integer[], p_cost double precision[]) FROM PUBLIC;
GRANT ALL ON FUNCTION tickets_ops.min_cost_matching(p_row integer[], p_column integer[], p_cost double precision[]) TO tickets_dispatcher;

REVOKE ALL ON FUNCTION tickets_ops.scheduled_since(p_dataset text) FROM PUBLIC;

REVOKE ALL ON FUNCTION tickets_ops.missed_run(p_dataset text) FROM PUBLIC;

REVOKE ALL ON FUNCTION tickets_ops.moves() FROM PUBLIC;

REVOKE ALL ON FUNCTION tickets_ops.needs_person(p_snapshot tickets_ops.snapshots) FROM PUBLIC;

REVOKE ALL ON FUNCTION tickets_ops.next_scheduled_run(p_at timestamp with time zone, p_dataset text) FROM PUBLIC;

REVOKE ALL ON FUNCTION tickets_ops.next_utc_midnight() FROM PUBLIC;
GRANT ALL ON FUNCTION tickets_ops.next_utc_midnight() TO tickets_operator;

REVOKE ALL ON FUNCTION tickets_ops.note_unrecorded() FROM PUBLIC;

REVOKE ALL ON FUNCTION tickets_ops.open_breaker(p_before tickets_ops.geocoding_providers, p_breaker text, p_reason text, p_until timestamp with time zone) FROM PUBLIC;

REVOKE ALL ON FUNCTION tickets_ops.person() FROM PUBLIC;

REVOKE ALL ON FUNCTION tickets_ops.place_candidates(p_cluster text, p_location_key text) FROM PUBLIC;
GRANT ALL ON FUNCTION tickets_ops.place_candidates(p_cluster text, p_location_key text) TO tickets_curator;

REVOKE ALL ON FUNCTION tickets_ops.places_without_guard(p_cluster text) FROM PUBLIC;

REVOKE ALL ON FUNCTION tickets_ops.rejected_places(p_cluster text) FROM PUBLIC;
GRANT ALL ON FUNCTION tickets_ops.rejected_places(p_cluster text) TO tickets_curator;

REVOKE ALL ON FUNCTION tickets_ops.places_beyond_guard(p_cluster text) FROM PUBLIC;
GRANT ALL ON FUNCTION tickets_ops.places_beyond_guard(p_cluster text) TO tickets_curator;

REVOKE ALL ON FUNCTION tickets_ops.places_to_geocode(p_clusters text[]) FROM PUBLIC;

REVOKE ALL ON FUNCTION tickets_ops.places_together(p_points public.geometry[], p_centre public.geometry, p_guard_km numeric) FROM PUBLIC;
GRANT ALL ON FUNCTION tickets_ops.places_together(p_points public.geometry[], p_centre public.geometry, p_guard_km numeric) TO tickets_curator;

REVOKE ALL ON FUNCTION tickets_ops.plan_geocoding(p_clusters text[]) FROM PUBLIC;

REVOKE ALL ON FUNCTION tickets_ops.plan_of_few(p_few integer, p_starts public.geography[], p_vehicle_teams text[], p_places public.geography[], p_bonuses double precision[], p_teams text[], p_km_per_metre double precision, p_radius double precision) FROM PUBLIC;
GRANT ALL ON FUNCTION tickets_ops.plan_of_few(p_few integer, p_starts public.geography[], p_vehicle_teams text[], p_places public.geography[], p_bonuses double precision[], p_teams text[], p_km_per_metre double precision, p_radius double precision) TO tickets_dispatcher;

REVOKE ALL ON FUNCTION tickets_ops.plan_of_many(p_starts public.geography[], p_vehicle_teams text[], p_places public.geography[], p_bonuses double precision[], p_teams text[], p_km_per_metre double precision, p_radius double precision) FROM PUBLIC;
GRANT ALL ON FUNCTION tickets_ops.plan_of_many(p_starts public.geography[], p_vehicle_teams text[], p_places public.geography[], p_bonuses double precision[], p_teams text[], p_km_per_metre double precision, p_radius double precision) TO tickets_dispatcher;

REVOKE ALL ON FUNCTION tickets_ops.plan_optimum(p_starts public.geography[], p_vehicle_teams text[], p_places public.geography[], p_bonuses double precision[], p_teams text[], p_km_per_metre double precision, p_radius double precision) FROM PUBLIC;
GRANT ALL ON FUNCTION tickets_ops.plan_optimum(p_starts public.geography[], p_vehicle_teams text[], p_places public.geography[], p_bonuses double precision[], p_teams text[], p_km_per_metre double precision, p_radius double precision) TO tickets_dispatcher;

REVOKE ALL ON FUNCTION tickets_ops.planning_lock() FROM PUBLIC;

REVOKE ALL ON FUNCTION tickets_ops.pools_with_work() FROM PUBLIC;

REVOKE ALL ON FUNCTION tickets_ops.problem_subjects() FROM PUBLIC;

REVOKE ALL ON FUNCTION tickets_ops.put_back(p_snapshot_id bigint, p_from text) FROM PUBLIC;

REVOKE ALL ON FUNCTION tickets_ops.raise_blocked() FROM PUBLIC;

REVOKE ALL ON FUNCTION tickets_ops.read_dataset_health(p_dataset text) FROM PUBLIC;

REVOKE ALL ON FUNCTION tickets_ops.read_datasets() FROM PUBLIC;
GRANT ALL ON FUNCTION tickets_ops.read_datasets() TO tickets_operator;

REVOKE ALL ON FUNCTION tickets_ops.read_health() FROM PUBLIC;
GRANT ALL ON FUNCTION tickets_ops.read_health() TO tickets_operator;
GRANT ALL ON FUNCTION tickets_ops.read_health() TO tickets_monitor;

REVOKE ALL ON FUNCTION tickets_ops.read_metrics() FROM PUBLIC;
GRANT ALL ON FUNCTION tickets_ops.read_metrics() TO tickets_operator;
GRANT ALL ON FUNCTION tickets_ops.read_metrics() TO tickets_monitor;

REVOKE ALL ON FUNCTION tickets_ops.reason(p_snapshot tickets_ops.snapshots) FROM PUBLIC;
GRANT ALL ON FUNCTION tickets_ops.reason(p_snapshot tickets_ops.snapshots) TO tickets_operator;

REVOKE ALL ON FUNCTION tickets_ops.rebuild_days() FROM PUBLIC;

REVOKE ALL ON FUNCTION tickets_ops.rebuild_location_keys() FROM PUBLIC;

REVOKE ALL ON FUNCTION tickets_ops.record_answer(p_provider text, p_slot_at timestamp with time zone, p_found boolean, p_is_control boolean) FROM PUBLIC;

REVOKE ALL ON FUNCTION tickets_ops.record_baselines(p_dataset text, p_snapshot_id bigint, p_snapshot_at timestamp with time zone, p_only_noted boolean) FROM PUBLIC;

REVOKE ALL ON FUNCTION tickets_ops.record_day(p_dataset text) FROM PUBLIC;

REVOKE ALL ON FUNCTION tickets_ops.record_decisions() FROM PUBLIC;

REVOKE ALL ON FUNCTION tickets_ops.record_failure(p_provider text, p_outcome text, p_reason text, p_retry_seconds double precision, p_place text) FROM PUBLIC;

REVOKE ALL ON FUNCTION tickets_ops.record_geocoding_call(p_provider text, p_slot_at timestamp with time zone, p_outcome text, p_reason text, p_retry_seconds double precision, p_cluster text, p_location_key text, p_query text, p_candidates jsonb) FROM PUBLIC;

REVOKE ALL ON FUNCTION tickets_ops.record_schedule(p_entries jsonb) FROM PUBLIC;

REVOKE ALL ON FUNCTION tickets_ops.record_settings(p_pool_id text, p_settings jsonb) FROM PUBLIC;

REVOKE ALL ON FUNCTION tickets_ops.refuse_forged_mark() FROM PUBLIC;

REVOKE ALL ON FUNCTION tickets_ops.refuse_rewriting() FROM PUBLIC;

REVOKE ALL ON FUNCTION tickets_ops.register_geocoder(p_provider text, p_rate numeric, p_daily_budget integer, p_found_days numeric, p_off_reason text) FROM PUBLIC;

REVOKE ALL ON FUNCTION tickets_ops.release_snapshot(p_snapshot_id bigint) FROM PUBLIC;
GRANT ALL ON FUNCTION tickets_ops.release_snapshot(p_snapshot_id bigint) TO tickets_operator;

REVOKE ALL ON FUNCTION tickets_ops.remove_jobs(p_ids bigint[]) FROM PUBLIC;

REVOKE ALL ON FUNCTION tickets_ops.remove_orphaned_digests(p_dataset text) FROM PUBLIC;

REVOKE ALL ON FUNCTION tickets_ops.reopen_snapshot(p_snapshot_id bigint) FROM PUBLIC;

REVOKE ALL ON FUNCTION tickets_ops.replace_held(p_dataset text, p_snapshot_at timestamp with time zone, p_is_loaded boolean) FROM PUBLIC;

REVOKE ALL ON FUNCTION tickets_ops.request_centroid(p_cluster text, p_priority integer) FROM PUBLIC;

REVOKE ALL ON FUNCTION tickets_ops.request_of(p_payload jsonb) FROM PUBLIC;

REVOKE ALL ON FUNCTION tickets_ops.require_task(p_task text) FROM PUBLIC;

REVOKE ALL ON FUNCTION tickets_ops.rescore_locations(p_cluster text) FROM PUBLIC;

REVOKE ALL ON FUNCTION tickets_ops.reserve_geocoding_call(p_provider text) FROM PUBLIC;

REVOKE ALL ON FUNCTION tickets_ops.resolve_cluster(p_cluster text, p_provider text, p_last boolean) FROM PUBLIC;

REVOKE ALL ON FUNCTION tickets_ops.resolve_location(p_cluster text, p_location_key text, p_location_name text, p_provider text, p_last boolean) FROM PUBLIC;

REVOKE ALL ON FUNCTION tickets_ops.restart_jobs(p_ids bigint[], p_max_attempts integer, p_forget text[]) FROM PUBLIC;

REVOKE ALL ON FUNCTION tickets_ops.retry_failed(p_task text) FROM PUBLIC;
GRANT ALL ON FUNCTION tickets_ops.retry_failed(p_task text) TO tickets_operator;

REVOKE ALL ON FUNCTION tickets_ops.retry_job(p_id bigint) FROM PUBLIC;
GRANT ALL ON FUNCTION tickets_ops.retry_job(p_id bigint) TO tickets_operator;

REVOKE ALL ON FUNCTION tickets_ops.return_geocoding_call(p_provider text, p_reserved_at timestamp with time zone) FROM PUBLIC;

GRANT SELECT ON TABLE tickets.open_places TO tickets_reader;
GRANT SELECT ON TABLE tickets.open_places TO tickets_curator;
GRANT SELECT ON TABLE tickets.open_places TO tickets_operator;
GRANT SELECT ON TABLE tickets.open_places TO tickets_dispatcher;

GRANT SELECT ON TABLE tickets_ops.review_queue TO tickets_curator;
GRANT SELECT ON TABLE tickets_ops.review_queue TO tickets_operator;

REVOKE ALL ON FUNCTION tickets_ops.review_place(p_kind text, p_cluster text, p_location_key text) FROM PUBLIC;
GRANT ALL ON FUNCTION tickets_ops.review_place(p_kind text, p_cluster text, p_location_key text) TO tickets_curator;

REVOKE ALL ON FUNCTION tickets_ops.revive_job(p_id bigint) FROM PUBLIC;

REVOKE ALL ON FUNCTION tickets_ops.run_jobs_now(p_ids bigint[], p_attempts integer, p_priority integer) FROM PUBLIC;

REVOKE ALL ON FUNCTION tickets_ops.same_word(p_one text, p_other text) FROM PUBLIC;

REVOKE ALL ON FUNCTION tickets_ops.scheduled_runs(p_dataset text, p_from timestamp with time zone, p_to timestamp with time zone) FROM PUBLIC;

REVOKE ALL ON FUNCTION tickets_ops.scheduled_time(p_dataset text, p_from timestamp with time zone, p_to timestamp with time zone) FROM PUBLIC;

REVOKE ALL ON FUNCTION tickets_ops.seconds_per_call(p_rate numeric) FROM PUBLIC;

REVOKE ALL ON FUNCTION tickets_ops.setting_problems() FROM PUBLIC;

REVOKE ALL ON FUNCTION tickets_ops.shortest_augmenting_paths(p_last integer[], p_column integer[], p_cost double precision[], p_columns integer, p_unmatched double precision, OUT column_of integer[], OUT row_potential double precision[]) FROM PUBLIC;
GRANT ALL ON FUNCTION tickets_ops.shortest_augmenting_paths(p_last integer[], p_column integer[], p_cost double precision[], p_columns integer, p_unmatched double precision, OUT column_of integer[], OUT row_potential double precision[]) TO tickets_dispatcher;

REVOKE ALL ON FUNCTION tickets_ops.sign_verdict() FROM PUBLIC;

REVOKE ALL ON FUNCTION tickets_ops.skip_file(p_key text) FROM PUBLIC;
GRANT ALL ON FUNCTION tickets_ops.skip_file(p_key text) TO tickets_operator;

REVOKE ALL ON FUNCTION tickets_ops.snapshot_problems(p_dataset text) FROM PUBLIC;

REVOKE ALL ON FUNCTION tickets_ops.snooze_geocoding(p_job_id bigint, p_task text, p_wait_ms double precision, p_until_resolved text) FROM PUBLIC;

REVOKE ALL ON FUNCTION tickets_ops.sphere_metres(p_from public.geography, p_to public.geography) FROM PUBLIC;
GRANT ALL ON FUNCTION tickets_ops.sphere_metres(p_from public.geography, p_to public.geography) TO tickets_dispatcher;

REVOKE ALL ON FUNCTION tickets_ops.storage_metrics() FROM PUBLIC;

REVOKE ALL ON FUNCTION tickets_ops.sweep() FROM PUBLIC;

REVOKE ALL ON FUNCTION tickets_ops.take_ticket(p_ticket_id text, p_vehicle_id text, p_position integer, p_metres double precision, p_take_over boolean) FROM PUBLIC;
GRANT ALL ON FUNCTION tickets_ops.take_ticket(p_ticket_id text, p_vehicle_id text, p_position integer, p_metres double precision, p_take_over boolean) TO tickets_dispatcher;

REVOKE ALL ON FUNCTION tickets_ops.ticket_metrics() FROM PUBLIC;

REVOKE ALL ON FUNCTION tickets_ops.unlock_pools(p_pools text[]) FROM PUBLIC;

REVOKE ALL ON FUNCTION tickets_ops.unmatched_cost(p_rows bigint, p_least double precision, p_most double precision) FROM PUBLIC;
GRANT ALL ON FUNCTION tickets_ops.unmatched_cost(p_rows bigint, p_least double precision, p_most double precision) TO tickets_dispatcher;

REVOKE ALL ON FUNCTION tickets_ops.vehicle_metrics() FROM PUBLIC;

REVOKE ALL ON FUNCTION tickets_ops.vehicle_problems() FROM PUBLIC;

REVOKE ALL ON FUNCTION tickets_ops.violating_rows(p_dataset text, p_constraint text, p_snapshot_id bigint, p_first text, p_last text) FROM PUBLIC;

REVOKE ALL ON FUNCTION tickets_ops.wake_geocoding() FROM PUBLIC;

REVOKE ALL ON FUNCTION tickets_ops.wake_locations(p_cluster text) FROM PUBLIC;

REVOKE ALL ON FUNCTION tickets_ops.wipe_staging(p_snapshot_id bigint) FROM PUBLIC;

REVOKE ALL ON FUNCTION tickets_ops.worker_breaking_revision() FROM PUBLIC;

REVOKE ALL ON FUNCTION tickets_ops.worker_lock(p_pool_id text, OUT space integer, OUT number integer) FROM PUBLIC;
GRANT ALL ON FUNCTION tickets_ops.worker_lock(p_pool_id text, OUT space integer, OUT number integer) TO tickets_operator;

REVOKE ALL ON FUNCTION tickets_ops.worker_problems() FROM PUBLIC;

REVOKE ALL ON FUNCTION tickets_ops.worker_schema() FROM PUBLIC;
GRANT ALL ON FUNCTION tickets_ops.worker_schema() TO tickets_operator;

REVOKE ALL ON FUNCTION tickets_ops.worker_states() FROM PUBLIC;
GRANT ALL ON FUNCTION tickets_ops.worker_states() TO tickets_operator;

GRANT SELECT ON TABLE tickets.assignments_in_doubt TO tickets_reader;
GRANT SELECT ON TABLE tickets.assignments_in_doubt TO tickets_curator;
GRANT SELECT ON TABLE tickets.assignments_in_doubt TO tickets_operator;
GRANT SELECT ON TABLE tickets.assignments_in_doubt TO tickets_dispatcher;

GRANT SELECT ON TABLE tickets.crq_events TO tickets_reader;
GRANT SELECT ON TABLE tickets.crq_events TO tickets_curator;
GRANT SELECT ON TABLE tickets.crq_events TO tickets_operator;
GRANT SELECT ON TABLE tickets.crq_events TO tickets_dispatcher;

GRANT SELECT ON TABLE tickets.crq_open TO tickets_reader;
GRANT SELECT ON TABLE tickets.crq_open TO tickets_curator;
GRANT SELECT ON TABLE tickets.crq_open TO tickets_operator;
GRANT SELECT ON TABLE tickets.crq_open TO tickets_dispatcher;

GRANT SELECT ON TABLE tickets.inc_ageing TO tickets_reader;
GRANT SELECT ON TABLE tickets.inc_ageing TO tickets_curator;
GRANT SELECT ON TABLE tickets.inc_ageing TO tickets_operator;
GRANT SELECT ON TABLE tickets.inc_ageing TO tickets_dispatcher;

GRANT SELECT ON TABLE tickets.inc_events TO tickets_reader;
GRANT SELECT ON TABLE tickets.inc_events TO tickets_curator;
GRANT SELECT ON TABLE tickets.inc_events TO tickets_operator;
GRANT SELECT ON TABLE tickets.inc_events TO tickets_dispatcher;

GRANT SELECT ON TABLE tickets.inc_backlog TO tickets_reader;
GRANT SELECT ON TABLE tickets.inc_backlog TO tickets_curator;
GRANT SELECT ON TABLE tickets.inc_backlog TO tickets_operator;
GRANT SELECT ON TABLE tickets.inc_backlog TO tickets_dispatcher;

GRANT SELECT ON TABLE tickets.inc_clock TO tickets_reader;
GRANT SELECT ON TABLE tickets.inc_clock TO tickets_curator;
GRANT SELECT ON TABLE tickets.inc_clock TO tickets_operator;
GRANT SELECT ON TABLE tickets.inc_clock TO tickets_dispatcher;

GRANT SELECT ON TABLE tickets.inc_closures TO tickets_reader;
GRANT SELECT ON TABLE tickets.inc_closures TO tickets_curator;
GRANT SELECT ON TABLE tickets.inc_closures TO tickets_operator;
GRANT SELECT ON TABLE tickets.inc_closures TO tickets_dispatcher;

GRANT SELECT ON TABLE tickets.inc_daily TO tickets_reader;
GRANT SELECT ON TABLE tickets.inc_daily TO tickets_curator;
GRANT SELECT ON TABLE tickets.inc_daily TO tickets_operator;
GRANT SELECT ON TABLE tickets.inc_daily TO tickets_dispatcher;

GRANT SELECT ON TABLE tickets.vehicles TO tickets_reader;
GRANT SELECT ON TABLE tickets.vehicles TO tickets_curator;
GRANT SELECT ON TABLE tickets.vehicles TO tickets_operator;
GRANT SELECT ON TABLE tickets.vehicles TO tickets_dispatcher;

GRANT SELECT ON TABLE tickets.version_slots TO tickets_reader;
GRANT SELECT ON TABLE tickets.version_slots TO tickets_curator;
GRANT SELECT ON TABLE tickets.version_slots TO tickets_operator;
GRANT SELECT ON TABLE tickets.version_slots TO tickets_dispatcher;

GRANT SELECT ON TABLE tickets_ops.datasets TO tickets_operator;

GRANT SELECT ON TABLE tickets_ops.failed_jobs TO tickets_operator;

GRANT SELECT ON TABLE tickets_ops.geocoding_calls TO tickets_operator;

GRANT SELECT ON TABLE tickets_ops.geocoding TO tickets_operator;

GRANT SELECT ON TABLE tickets_ops.health TO tickets_operator;
GRANT SELECT ON TABLE tickets_ops.health TO tickets_monitor;

GRANT SELECT ON TABLE tickets_ops.jobs TO tickets_operator;

GRANT SELECT ON TABLE tickets_ops.metrics TO tickets_operator;
GRANT SELECT ON TABLE tickets_ops.metrics TO tickets_monitor;

GRANT SELECT ON TABLE tickets_ops.snapshot_batches TO tickets_operator;

GRANT SELECT ON TABLE tickets_ops.snapshot_rejects TO tickets_operator;

GRANT SELECT ON TABLE tickets_ops.storage TO tickets_operator;
