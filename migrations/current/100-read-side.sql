-- What dashboards and people read: the open tickets with their SLA, the backlog over time, the map.

-- The contract's 48 h, once. One SELECT without tables, so wherever it stands in a FROM it is inlined and costs no call.
create function tickets.sla(p_created_at_service timestamptz, p_first_seen_at timestamptz)
returns table (sla_clock_start timestamptz, sla_clock_source text, hours_open numeric, sla_state text, at_risk boolean)
language sql stable parallel safe
as $$
  select
    coalesce(p_created_at_service, p_first_seen_at),
    case
      when p_created_at_service is not null then 'created_at_service'
      when p_first_seen_at is not null then 'first_seen_at'
    end,
    -- Cut, not rounded: 47.999 h must not be shown as 48.00 beside `ok`.
    trunc(extract(epoch from now() - coalesce(p_created_at_service, p_first_seen_at)) / 3600, 2),
    case
      when coalesce(p_created_at_service, p_first_seen_at) is null then 'unknown'
      when coalesce(p_created_at_service, p_first_seen_at) <= now() - interval '48 hours' then 'breached'
      else 'ok'
    end,
    coalesce(
      coalesce(p_created_at_service, p_first_seen_at) <= now() - interval '40 hours'
        and coalesce(p_created_at_service, p_first_seen_at) > now() - interval '48 hours',
      false
    )
$$;
comment on function tickets.sla(timestamptz, timestamptz) is 'The SLA of an open ticket as of now(), one row: the clock (created_at_service, else first_seen_at) and which it is, hours since then (cut to two decimals), breached from 48 h on, ok before, unknown without a clock, and at risk from 40 h on until breached. The columns of tickets.inc_open_sla.';

-- A bare `where is_actionable`: `is_actionable is true` would not match the partial indexes inc_open_geog and inc_open.
-- Views read with their owner's rights, so whoever may select from this one needs nothing on tickets.inc; and no
-- security_barrier, which would keep `order by geog <-> point` from the index.
create view tickets.inc_open_sla as
select
  t.ticket_id,
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
from tickets.inc t
cross join lateral tickets.sla(t.created_at_service, t.first_seen_at) as sla
where t.is_actionable;

comment on view tickets.inc_open_sla is 'Open (actionable) tickets with their SLA against the contract''s 48 h, as of now(). For open tickets use sla_state here, not the feed''s sla_status. Nearest ones: order by geog <-> point limit n (index inc_open_geog).';
comment on column tickets.inc_open_sla.ticket_id is 'The ticket''s number, like WOT0715527.';
comment on column tickets.inc_open_sla.normalized_status is 'The canonical status: filter on this one.';
comment on column tickets.inc_open_sla.sla_clock_start is 'When the clock started: created_at_service, or where the feed lacks it (most open tickets) first_seen_at, which is when the export first saw the ticket and so up to days late.';
comment on column tickets.inc_open_sla.sla_clock_source is 'Which of the two sla_clock_start is: created_at_service or first_seen_at. NULL: neither is known.';
comment on column tickets.inc_open_sla.hours_open is 'Hours since sla_clock_start, cut to two decimals; negative when the feed''s time lies in the future. NULL: no clock.';
comment on column tickets.inc_open_sla.sla_state is 'breached: open for 48 h or more. ok: less. unknown: no clock.';
comment on column tickets.inc_open_sla.at_risk is 'Open for 40 h or more and not breached yet. false where the clock is unknown.';
comment on column tickets.inc_open_sla.assigned_team is 'Team the ticket is assigned to.';
comment on column tickets.inc_open_sla.cluster is 'Network cluster.';
comment on column tickets.inc_open_sla.region is 'Region, lower case.';
comment on column tickets.inc_open_sla.owner is 'Owner of the ticket.';
comment on column tickets.inc_open_sla.location_name is 'The place as field staff typed it.';
comment on column tickets.inc_open_sla.geo_source is 'Precision of geom: feed, location, cluster (a centroid, no address) or none.';
comment on column tickets.inc_open_sla.geom is 'Place, for display; NULL where none is known.';
comment on column tickets.inc_open_sla.geog is 'geom as geography: distances in metres.';

-- The order of a ticket's events (index inc_events_ticket) tells what a single one does not: a `closed` that is its first
-- never was in the backlog, and what a baseline found open, the next event closes or nothing has closed since.
create view tickets.inc_backlog as
with changes as (
  select
    coalesce(e.snapshot_at, e.recorded_at) as snapshot_at,
    e.event,
    case e.event
      when 'closed' then case when lag(e.event) over history is null then 0 else -1 end
      when 'baseline' then
        case lead(e.event) over history
          when 'closed' then 1
          when 'reopened' then 0
          else (select coalesce(t.is_actionable, false)::integer from tickets.inc t where t.ticket_id = e.ticket_id)
        end
      else 1
    end as change
  from tickets.inc_events e
  where e.event in ('baseline', 'opened', 'closed', 'reopened')
  window history as (partition by e.ticket_id order by e.event_id)
)
select
  snapshot_at,
  count(*) filter (where event = 'opened') as opened,
  count(*) filter (where event = 'reopened') as reopened,
  count(*) filter (where change < 0) as closed,
  sum(sum(change)) over (order by snapshot_at)::bigint as open_tickets
from changes
group by snapshot_at;

comment on view tickets.inc_backlog is 'Open backlog over time, one row per snapshot that opened, reopened or closed a ticket. It reads the whole history (measured: 2 s for 500 000 events). Per day (EAT): select distinct on (1) (snapshot_at at time zone ''Africa/Nairobi'')::date, open_tickets from tickets.inc_backlog order by 1, snapshot_at desc.';
comment on column tickets.inc_backlog.snapshot_at is 'The export''s own time of the snapshot; for a baseline, when history began.';
comment on column tickets.inc_backlog.opened is 'Tickets first seen open.';
comment on column tickets.inc_backlog.reopened is 'Tickets opened again.';
comment on column tickets.inc_backlog.closed is 'Tickets that were open and no longer are. Those first seen closed are not counted: closures per day are in tickets.inc.closed_at.';
comment on column tickets.inc_backlog.open_tickets is 'Open tickets once the snapshot was in.';

-- Its callers need not be able to read the tables: whoever may call it sees the map with the rights of its owner. So PUBLIC
-- may not call it (below), and its names are looked up where no caller can put anything.
-- Records all the way, and one to_jsonb() at the end: a third less than jsonb_agg(jsonb_build_object(…)), which takes every
-- feature apart again.
-- Planned anew in each call, with its arguments as constants: a filter that is not asked for vanishes, and the branch of the
-- closed tickets with it. No JIT: compiling takes longer than what it would speed up.
create function reporting.fn_tickets_for_map(
  p_open_only boolean default true,
  p_cluster text default null,
  p_region text default null,
  p_team text default null
)
returns jsonb language plpgsql stable parallel safe security definer
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_custom_plan
set jit = off
as $$
begin
  -- Open tickets (index inc_open) and all others are two branches everywhere: `is_actionable or not p_open_only` would read
  -- the whole table for the open ones.
  return (
    with mapped as (
      select
        t.ticket_id, t.longitude, t.latitude, properties,
        octet_length(concat(
          t.ticket_id, t.normalized_status, t.raw_status, t.bucket, t.cluster, t.region, t.location_name, t.location_key,
          t.assigned_team, t.owner, t.sla_status
        )) as bytes_of_text
      from tickets.inc t
      cross join lateral tickets.sla(t.created_at_service, t.first_seen_at) as sla
      cross join lateral (
        select
          t.ticket_id, t.geo_source, t.ingested_at, t.normalized_status, t.raw_status, t.bucket, t.is_actionable, t.cluster,
          t.region, t.location_name, t.location_key, t.assigned_team, t.owner, t.sla_status, t.mttr, t.created_at_service,
          t.scheduled_at, t.closed_at, t.first_seen_at, t.last_seen_at, t.source_created_at, t.source_updated_at, t.latitude,
          t.longitude, sla.*
      ) as properties
      where t.is_actionable and t.longitude is not null
        and (p_cluster is null or t.cluster = p_cluster)
        and (p_region is null or t.region = lower(p_region))
        and (p_team is null or t.assigned_team = p_team)
      union all
      (
        select
          t.ticket_id, t.longitude, t.latitude, properties,
          octet_length(concat(
            t.ticket_id, t.normalized_status, t.raw_status, t.bucket, t.cluster, t.region, t.location_name, t.location_key,
            t.assigned_team, t.owner, t.sla_status
          ))
        from tickets.inc t
        cross join lateral (
          select
            t.ticket_id, t.geo_source, t.ingested_at, t.normalized_status, t.raw_status, t.bucket, t.is_actionable, t.cluster,
            t.region, t.location_name, t.location_key, t.assigned_team, t.owner, t.sla_status, t.mttr, t.created_at_service,
            t.scheduled_at, t.closed_at, t.first_seen_at, t.last_seen_at, t.source_created_at, t.source_updated_at, t.latitude,
            t.longitude
        ) as properties
        where not p_open_only and t.is_actionable is not true and t.longitude is not null
          and (p_cluster is null or t.cluster = p_cluster)
          and (p_region is null or t.region = lower(p_region))
          and (p_team is null or t.assigned_team = p_team)
        order by t.closed_at desc -- index inc_closed_at, backwards
        limit 100000
      )
    ),
    counts as (
      select normalized_status, cluster, region, sla_state, geo_source, count(*) as tickets, count(longitude) as mapped
      from (
        select t.normalized_status, t.cluster, t.region, sla.sla_state, t.geo_source, t.longitude
        from tickets.inc t
        cross join lateral tickets.sla(t.created_at_service, t.first_seen_at) as sla
        where t.is_actionable
          and (p_cluster is null or t.cluster = p_cluster)
          and (p_region is null or t.region = lower(p_region))
          and (p_team is null or t.assigned_team = p_team)
        union all
        select t.normalized_status, t.cluster, t.region, null, t.geo_source, t.longitude
        from tickets.inc t
        where not p_open_only and t.is_actionable is not true
          and (p_cluster is null or t.cluster = p_cluster)
          and (p_region is null or t.region = lower(p_region))
          and (p_team is null or t.assigned_team = p_team)
      ) as t
      group by normalized_status, cluster, region, sla_state, geo_source
    ),
    totals as (
      select coalesce(sum(tickets), 0) as total, coalesce(sum(mapped), 0) as mapped from counts
    ),
    features as (
      select coalesce(array_agg(feature), '{}') as list, count(*) as listed
      from (select * from mapped limit 100000) as m
      cross join lateral (select 'Point' as type, array[m.longitude, m.latitude] as coordinates) as geometry
      cross join lateral (select 'Feature' as type, m.ticket_id as id, geometry, m.properties) as feature
      -- jsonb holds no array over 268 435 455 bytes. A feature takes its texts, and less than 1 200 bytes for all the rest; so
      -- with its fair share for each, they fit. No real ticket comes near it: at least 1 300 bytes, with 20 000 tickets 11 300.
      where m.bytes_of_text <= (select 250000000 / greatest(least(mapped, 100000), 1) - 1200 from totals)
    ),
    dimensions as (
      select jsonb_object_agg(dimension, tickets) as counted
      from (
        select dimension, jsonb_object_agg(coalesce(value, '(none)'), tickets) as tickets
        from (
          select dimension, value, sum(c.tickets) as tickets
          from counts c
          cross join lateral (values
            ('by_status', c.normalized_status), ('by_cluster', c.cluster), ('by_region', c.region),
            ('by_sla_state', c.sla_state), ('by_geo_source', c.geo_source)
          ) as d (dimension, value)
          -- Closed tickets have no state against the SLA.
          where dimension <> 'by_sla_state' or value is not null
          group by dimension, value
        ) as d
        group by dimension
      ) as d
    ),
    freshness as (
      select
        meta.snapshot_at, meta.ingested_at, meta.checked_at,
        floor(extract(epoch from now() - meta.snapshot_at) / 60) as age_minutes,
        greatest(
          (select max(t.created_at_service) from tickets.inc t where t.created_at_service <= now()), -- index inc_created_at_service
          (select max(t.closed_at) from tickets.inc t where t.closed_at <= now()) -- index inc_closed_at
        ) as content_through,
        meta.source_key
      from (select) as one
      left join lateral (
        select
          tickets.eat_ts(m.metadata ->> 'snapshot_at') as snapshot_at,
          tickets.eat_ts(m.metadata ->> 'ingested_at') as ingested_at,
          tickets.eat_ts(m.metadata ->> 'checked_at') as checked_at,
          m.metadata ->> 'source_key' as source_key
        from tickets.import_meta m
        where m.dataset = 'inc'
      ) as meta on true
    )
    select to_jsonb(collection)
    from (
      select
        'FeatureCollection' as type,
        f.list as features,
        jsonb_build_object(
          'total', t.total, 'mapped', t.mapped, 'unmapped', t.total - t.mapped,
          'truncated', f.listed < t.mapped,
          'by_status', '{}'::jsonb, 'by_cluster', '{}'::jsonb, 'by_region', '{}'::jsonb, 'by_sla_state', '{}'::jsonb,
          'by_geo_source', '{}'::jsonb, 'freshness', freshness
        ) || coalesce(d.counted, '{}') as summary
      from features f, totals t, dimensions d, freshness
    ) as collection
  );
end
$$;

comment on function reporting.fn_tickets_for_map(boolean, text, text, text) is
'The tickets map: a GeoJSON FeatureCollection (RFC 7946) with a foreign member `summary`. What dashboard_api serves.

Arguments: p_open_only (default true; false adds the closed tickets); p_cluster, p_region (in any case), p_team: only tickets with exactly that cluster, region, assigned_team; NULL, the default, means all.

features: the tickets with a place. id: ticket_id. properties: the columns of tickets.inc under their own names, without raw, geom and geog; on open tickets also sla_clock_start, sla_clock_source, hours_open, sla_state and at_risk as in tickets.inc_open_sla. Times are ISO 8601 with the session''s offset. geo_source says how exact a place is.

summary: total, mapped and unmapped tickets; by_status (normalized_status), by_cluster, by_region, by_geo_source: tickets per value, unmapped ones included, "(none)" where there is no value; by_sla_state: open tickets only; truncated: true where not every mapped ticket is among the features; freshness: snapshot_at (the export''s time), ingested_at (when its rows came in), checked_at (when the bucket was last looked at), age_minutes (since snapshot_at), content_through (newest created_at_service or closed_at of all tickets that is not in the future: the content trails the files by days), source_key. Filters do not concern freshness.

Limit: jsonb holds no array over 256 MB. At most the 100 000 most recently closed tickets are among the features (those without closed_at first), and none whose texts are very long (over 1 300 bytes among 100 000 features, 11 300 among 20 000); the summary counts them all. For the others ask by cluster, region or team.

Rights: runs as its owner, so EXECUTE is all that a caller needs (and USAGE on schema reporting). Errors: none of its own.';

revoke execute on function reporting.fn_tickets_for_map(boolean, text, text, text) from public;
