-- The judge: which of a provider's candidates, if any, is the place that was asked for.
--
-- The rules stand here only. A new answer and a stored one are judged by the same functions, so when a centroid or a
-- guard changes the stored candidates are judged again with no call to a provider.
--
-- A candidate is {lat, lng, level, country, label, original} (src/geocode/outcome.ts). It is
--   refused  no number, 0,0, outside Kenya, swapped axes, or beyond the guard;
--   doubtful only a city or county, of another name, or in another area than the name says: a person decides;
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

-- plpgsql from here on: a SQL function is planned anew on each call, and these are called for each word of each candidate
-- (measured: 2.3 ms to compare two names; 0.2 ms so).
create function tickets_ops.same_word(p_one text, p_other text) returns boolean language plpgsql immutable parallel safe as $$
declare
  v_long text := case when length(p_one) >= length(p_other) then p_one else p_other end;
  v_short text := case when length(p_one) >= length(p_other) then p_other else p_one end;
  v_same integer := 0;
begin
  if v_long = v_short then
    return true;
  end if;
  if length(v_long) < 5 or length(v_long) - length(v_short) > 1 then
    return false;
  end if;
  -- All letters before the first difference are the same; behind the one letter that differs, all must be again.
  while substr(v_long, v_same + 1, 1) = substr(v_short, v_same + 1, 1) loop
    v_same := v_same + 1;
  end loop;
  return substr(v_long, v_same + 2) = substr(v_short, v_same + 1 + length(v_short) - length(v_long) + 1);
end
$$;
comment on function tickets_ops.same_word(text, text) is 'Whether two words are the same but for one letter left out, added or changed (words of five letters and more): tickets are typed in the field.';

create function tickets_ops.has_word(p_words text[], p_word text) returns boolean language plpgsql immutable parallel safe as $$
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
comment on function tickets_ops.has_word(text[], text) is 'Whether a word is among others, but for a slip of one letter.';

create function tickets_ops.name_match(
  p_key text, p_cluster text, p_label text,
  out named boolean, out exact boolean, out overlap numeric, out contradicted text[]
)
language plpgsql immutable parallel safe as $$
declare
  v_kinds text[] := tickets_ops.kind_words();
  v_asked text[] := string_to_array(p_key, ' ');
  -- Without a name before the first comma (a house number, say), the part behind it counts.
  v_own text[] := coalesce(
    tickets_ops.name_words(split_part(p_label, ',', 1)), tickets_ops.name_words(split_part(p_label, ',', 2)), '{}'
  );
  v_whole text[] := coalesce(tickets_ops.name_words(p_label), '{}');
  v_cluster text[] := coalesce(tickets_ops.name_words(p_cluster), '{}');
  v_word text;
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
  end loop;
  foreach v_word in array v_own loop
    v_own_is_asked := v_own_is_asked and tickets_ops.has_word(v_asked, v_word);
  end loop;
  if v_telling = 0 then
    v_telling := greatest(v_weakly_telling, 1);
    v_told := case when v_weakly_telling > 0 then v_weakly_told else v_kinds_shared::integer end;
  end if;

  exact :=
    -- Spelling differs in blanks: Lang ata and Langata, Buru Buru and Buruburu.
    replace(p_key, ' ', '') = array_to_string(v_own, '')
    -- Rose Court Kilimani: Rose Court, in Kilimani.
    or (v_told > 0 and v_own_is_asked and v_explained = cardinality(v_asked));
  named := exact or (v_told * 2 >= v_telling and (v_kinds_shared or not (v_kinds_asked and v_own && v_kinds)));
  overlap := case when exact then 1 else 0.5 * v_told / v_telling + 0.2 * v_explained / cardinality(v_asked) end;
  if exact then
    contradicted := '{}';
  end if;
end
$$;
comment on function tickets_ops.name_match(text, text, text) is
  'How well a candidate''s label (p_label, most specific part first) names the place p_key (a location_key) of p_cluster. exact: the same name, but for blanks, slips of a letter and the area that it names. named: exact, or at least half of the telling words stand in its own name, and it is not another kind of thing (Avenue for Court). overlap: 0 to 1, for ranking. contradicted: words that say where the place is, and that the label lacks.';

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
  refusal text, doubt text
)
language sql stable parallel safe
begin atomic
  select
    c.no,
    point.geom,
    left(c.candidate ->> 'label', 200),
    level.precision,
    name.named,
    name.exact,
    name.overlap,
    point.km,
    case
      when point.geom is null then 'it has no coordinates'
      when abs(st_x(point.geom)) < 0.01 and abs(st_y(point.geom)) < 0.01 then 'its coordinates are 0,0'
      when c.candidate ->> 'country' <> 'ke' then 'it is not in Kenya'
      when not tickets.in_kenya(point.geom) then
        case
          when tickets.in_kenya(st_flipcoordinates(point.geom)) then 'its latitude and longitude are swapped'
          else 'it is not in Kenya'
        end
      when point.km > p_guard_km then
        format('it is %s km from the centre of the cluster, the guard is %s km', round(point.km, 1), p_guard_km)
    end,
    case
      when level.precision = 'city' then 'Only a city or county was found'
      when not name.named then 'What was found has another name'
      -- Near the centre of Ruaka everything is in Ruaka, whether the map says so or not.
      when cardinality(name.contradicted) > 0
        and (point.km > p_guard_km / 5 or not name.contradicted <@ coalesce(tickets_ops.name_words(p_cluster), '{}'))
      then format('What was found is not said to be in %s', initcap(array_to_string(name.contradicted, ' ')))
    end
  from jsonb_array_elements(case when jsonb_typeof(p_candidates) = 'array' then p_candidates else '[]' end)
    with ordinality as c (candidate, no)
  cross join lateral (
    select g.geom, tickets_ops.distance_km(p_centre, g.geom) as km from (select tickets_ops.candidate_point(c.candidate)) as g (geom)
  ) as point
  cross join lateral tickets_ops.name_match(p_key, p_cluster, c.candidate ->> 'label') as name
  cross join lateral (
    -- A town is a place when it was asked for; otherwise the provider fell back to it.
    select case
      when c.candidate ->> 'level' in ('point', 'street', 'neighbourhood') then c.candidate ->> 'level'
      when c.candidate ->> 'level' = 'town' and name.exact then 'neighbourhood'
      else 'city'
    end as precision
  ) as level;
end;
comment on function tickets_ops.weigh_candidates(jsonb, text, text, geometry, numeric) is
  'Each candidate (a JSON array as stored in tickets.geo_locations.candidates) weighed as the place p_key of p_cluster: its point, precision, name and distance from p_centre; in `refusal` why it cannot be the place, in `doubt` why a person should decide (NULL: no reason). p_centre NULL: without the guard.';

create function tickets_ops.judge_location(
  p_candidates jsonb, p_key text, p_cluster text, p_centre geometry, p_guard_km numeric
)
returns table (status text, geom geometry, "precision" text, confidence numeric, distance_km numeric, note text)
language sql stable parallel safe
begin atomic
  with weighed as (
    select
      w.*,
      case when w.refusal is not null then 3 when w.doubt is not null then 2 else 1 end as tier,
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
    case b.tier
      when 2 then concat_ws(': ', b.doubt, b.label)
      when 3 then format('%s: %s', coalesce(b.label, 'The best candidate'), b.refusal)
    end
  from (select 1) as always left join best b on true;
end;
comment on function tickets_ops.judge_location(jsonb, text, text, geometry, numeric) is
  'The verdict over all candidates for the place p_key of p_cluster: status found, needs_review, rejected or not_found, with the best candidate''s point, precision, score (0 to 1), distance and, unless found, the reason in words. Always one row.';

create function tickets_ops.judge_cluster(p_candidates jsonb, p_key text)
returns table (geom geometry, note text)
language sql stable parallel safe
begin atomic
  -- A cluster is an area: a suburb, a town or a city is it, a shop of that name is the last resort.
  select
    case when reason.refusal is null then w.geom end,
    case when reason.refusal is not null then format('%s: %s', w.label, reason.refusal) end
  from tickets_ops.weigh_candidates(p_candidates, p_key, null, null, null) w
  cross join lateral (
    select coalesce(w.refusal, case when not w.named then 'it has another name' end) as refusal
  ) as reason
  order by
    reason.refusal is not null,
    w.exact desc,
    case w.precision when 'neighbourhood' then 1 when 'city' then 1 when 'street' then 2 else 3 end,
    w.overlap desc,
    w.candidate_no
  limit 1;
end;
comment on function tickets_ops.judge_cluster(jsonb, text) is
  'The verdict over all candidates for a cluster whose name has the location_key p_key: the centroid, or NULL and the reason in words. No row without candidates.';
