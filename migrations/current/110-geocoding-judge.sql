-- The judge: which of a provider's candidates, if any, is the place that was asked for.
--
-- The rules stand here only. A new answer and a stored one are judged by the same functions, so when a centroid or a
-- guard changes the stored candidates are judged again with no call to a provider.
--
-- A candidate is {lat, lng, level, country, label, original} (src/geocode/outcome.ts). It is
--   refused  no number, 0,0, outside Kenya, swapped axes, or beyond the guard;
--   doubtful only a city or county, or of another name: a person decides, the ticket stays at its cluster;
--   good     otherwise; the best by name, precision and distance is the place.

create function tickets_ops.name_words(p_name text) returns text[] language sql immutable parallel safe
return string_to_array(tickets.location_key(p_name), ' ');
comment on function tickets_ops.name_words(text) is 'The words of a name as tickets.location_key normalises it. NULL where nothing is left.';

-- Words that say what kind of thing a name names: they tell Rose Court from Rose Avenue, but do not name either.
create function tickets_ops.kind_words() returns text[] language sql immutable parallel safe
return array[
  'apartment', 'apartments', 'avenue', 'centre', 'center', 'church', 'close', 'court', 'courts', 'crescent', 'drive', 'estate',
  'flats', 'gardens', 'grove', 'heights', 'highway', 'hospital', 'hotel', 'house', 'lane', 'mall', 'market', 'park', 'phase',
  'place', 'plaza', 'residences', 'road', 'school', 'section', 'street', 'tower', 'towers', 'view', 'villas', 'way'
];
comment on function tickets_ops.kind_words() is 'Words that say what kind of place a name names (court, road, school), in the form that location_key gives them.';

create function tickets_ops.name_match(p_key text, p_cluster text, p_label text)
returns table (named boolean, exact boolean, overlap numeric)
language sql immutable parallel safe
begin atomic
  with names as (
    select
      string_to_array(p_key, ' ') as asked,
      -- Without a name before the first comma (a house number, say), the part behind it counts.
      coalesce(
        tickets_ops.name_words(split_part(p_label, ',', 1)),
        tickets_ops.name_words(split_part(p_label, ',', 2)),
        '{}'
      ) as own,
      coalesce(tickets_ops.name_words(p_label), '{}') as whole,
      tickets_ops.kind_words() as kinds,
      coalesce(tickets_ops.name_words(p_cluster), '{}') as cluster
  ),
  words as (
    select
      n.*,
      -- The cluster's own name proves nothing: every candidate near it carries it.
      coalesce(
        (select array_agg(word) from unnest(n.asked) as word where word <> all (n.kinds) and word <> all (n.cluster)),
        (select array_agg(word) from unnest(n.asked) as word where word <> all (n.kinds)),
        n.asked
      ) as telling
    from names n
  ),
  shares as (
    select
      w.*,
      -- Spelling differs in blanks: Lang ata and Langata, Buru Buru and Buruburu.
      replace(p_key, ' ', '') = array_to_string(w.own, '') as same,
      (select count(*) from unnest(w.telling) as word where word = any (w.own))::numeric / cardinality(w.telling) as own_share,
      (select count(*) from unnest(w.asked) as word where word = any (w.whole))::numeric / cardinality(w.asked) as whole_share,
      w.asked && w.kinds and w.own && w.kinds
        and not exists (select from unnest(w.asked) as word where word = any (w.kinds) and word = any (w.own)) as other_kind
    from words w
  )
  select
    s.same or (s.own_share >= 0.5 and not s.other_kind),
    s.same,
    case when s.same then 1 else 0.5 * s.own_share + 0.2 * s.whole_share end
  from shares s;
end;
comment on function tickets_ops.name_match(text, text, text) is
  'How well a candidate''s label (p_label, most specific part first) names the place p_key (a location_key) of p_cluster. named: at least half of the telling words stand in its own name, and it is not another kind of thing (Avenue for Court). exact: the same name but for blanks. overlap: 0 to 1, for ranking. Always one row.';

create function tickets_ops.candidate_point(p_candidate jsonb) returns geometry language sql immutable parallel safe
return case
  when jsonb_typeof(p_candidate -> 'lat') = 'number' and jsonb_typeof(p_candidate -> 'lng') = 'number'
    and (p_candidate ->> 'lat')::numeric between -90 and 90 and (p_candidate ->> 'lng')::numeric between -180 and 180
  then st_setsrid(
    st_makepoint(
      round((p_candidate ->> 'lng')::numeric, 7)::double precision, round((p_candidate ->> 'lat')::numeric, 7)::double precision
    ),
    4326
  )
end;
comment on function tickets_ops.candidate_point(jsonb) is 'A candidate''s point (SRID 4326), NULL unless lat and lng are JSON numbers in range. Seven digits: 1 cm.';

create function tickets_ops.distance_km(p_one geometry, p_other geometry) returns numeric language sql immutable parallel safe
return round((st_distance(p_one::geography, p_other::geography) / 1000)::numeric, 3);
comment on function tickets_ops.distance_km(geometry, geometry) is 'Geodesic kilometres between two points. NULL if one is.';

create function tickets_ops.weigh_candidates(
  p_candidates jsonb, p_key text, p_cluster text, p_centre geometry, p_guard_km numeric
)
returns table (
  candidate_no bigint, geom geometry, label text, "precision" text, named boolean, exact boolean, overlap numeric, distance_km numeric,
  refusal text
)
language sql stable parallel safe
begin atomic
  select
    c.no,
    point.geom,
    c.candidate ->> 'label',
    -- A town is a place when it is what was asked for; otherwise the provider fell back to it.
    case
      when c.candidate ->> 'level' in ('point', 'street', 'neighbourhood') then c.candidate ->> 'level'
      when c.candidate ->> 'level' = 'town' and name.exact then 'neighbourhood'
      else 'city'
    end,
    name.named,
    name.exact,
    name.overlap,
    point.km,
    case
      when point.geom is null then 'it has no coordinates'
      when abs(st_x(point.geom)) < 0.01 and abs(st_y(point.geom)) < 0.01 then 'its coordinates are 0,0'
      when tickets.in_kenya(st_flipcoordinates(point.geom)) then 'its latitude and longitude are swapped'
      when c.candidate ->> 'country' <> 'ke' or not tickets.in_kenya(point.geom) then 'it is not in Kenya'
      when point.km > p_guard_km then
        format('it is %s km from the centre of the cluster, the guard is %s km', round(point.km, 1), p_guard_km)
    end
  from jsonb_array_elements(case when jsonb_typeof(p_candidates) = 'array' then p_candidates else '[]' end)
    with ordinality as c (candidate, no)
  cross join lateral (
    select g.geom, tickets_ops.distance_km(p_centre, g.geom) as km from (select tickets_ops.candidate_point(c.candidate)) as g (geom)
  ) as point
  cross join lateral tickets_ops.name_match(p_key, p_cluster, c.candidate ->> 'label') as name;
end;
comment on function tickets_ops.weigh_candidates(jsonb, text, text, geometry, numeric) is
  'Each candidate (a JSON array as stored in tickets.geo_locations.candidates) weighed as the place p_key of p_cluster: its point, precision, name and distance from p_centre, and in `refusal` why it cannot be the place (NULL: it can). p_centre NULL: without the guard.';

create function tickets_ops.judge_location(
  p_candidates jsonb, p_key text, p_cluster text, p_centre geometry, p_guard_km numeric
)
returns table (status text, geom geometry, "precision" text, confidence numeric, distance_km numeric, note text)
language sql stable parallel safe
begin atomic
  with weighed as (
    select
      w.*,
      case
        when w.refusal is not null then 3
        when not w.named or w.precision = 'city' then 2
        else 1
      end as tier,
      0.6 * w.overlap
        + 0.25 * case w.precision when 'point' then 1 when 'street' then 0.8 when 'neighbourhood' then 0.7 else 0 end
        + 0.15 * greatest(0, 1 - coalesce(w.distance_km / p_guard_km, 1)) as score
    from tickets_ops.weigh_candidates(p_candidates, p_key, p_cluster, p_centre, p_guard_km) w
  ),
  best as (
    select w.* from weighed w order by w.tier, w.score desc, w.candidate_no limit 1
  )
  select
    case coalesce(b.tier, 4) when 1 then 'found' when 2 then 'needs_review' when 3 then 'rejected' else 'not_found' end,
    case when b.tier < 3 then b.geom end,
    case when b.tier < 3 then b.precision end,
    case when b.tier < 3 then round(b.score, 2) end,
    b.distance_km,
    case
      when b.tier = 2 and b.precision = 'city' then format('Only a city or county was found: %s', left(b.label, 200))
      when b.tier = 2 then format('What was found has another name: %s', left(b.label, 200))
      when b.tier = 3 then format('%s: %s', coalesce(left(b.label, 200), 'The best candidate'), b.refusal)
    end
  from (select 1) as always left join best b on true;
end;
comment on function tickets_ops.judge_location(jsonb, text, text, geometry, numeric) is
  'The verdict over all candidates for the place p_key of p_cluster: status found, needs_review, rejected or not_found, with the best candidate''s point, precision, score (0 to 1), distance and, unless found, the reason in words. Always one row.';

create function tickets_ops.judge_cluster(p_candidates jsonb, p_key text)
returns table (geom geometry, note text)
language sql stable parallel safe
begin atomic
  -- A cluster is an area: a suburb or a town is it, a shop of that name is the last resort.
  select w.geom, case when w.refusal is not null then format('%s: %s', left(w.label, 200), w.refusal) end
  from (
    select
      w.candidate_no, w.label,
      case when reason.refusal is null then w.geom end as geom,
      reason.refusal,
      case w.precision when 'neighbourhood' then 1 when 'city' then 1 when 'street' then 2 else 3 end as coarse,
      w.exact,
      w.overlap
    from tickets_ops.weigh_candidates(p_candidates, p_key, null, null, null) w
    cross join lateral (select coalesce(w.refusal, case when not w.named then 'it has another name' end) as refusal) as reason
  ) as w
  order by w.refusal is not null, w.exact desc, w.coarse, w.overlap desc, w.candidate_no
  limit 1;
end;
comment on function tickets_ops.judge_cluster(jsonb, text) is
  'The verdict over all candidates for a cluster whose name has the location_key p_key: the centroid, or NULL and the reason in words. No row without candidates.';
