-- Reading what the feed wrote: text to typed values, for the generated columns of the ticket tables.
-- Each function is total: what it cannot read is NULL, never an error. So the text's form is looked at, with bounded
-- digits, before anything is cast. Forms say [0-9]: \d also matches Arabic digits, which no cast reads. Collation "C"
-- because the answer must not depend on the database's (and it is faster).
-- Each is immutable in fact, not only in name: no cast from text to a time (DateStyle and TimeZone decide what it says).
-- Bodies written as `return …` are bound to PostGIS where it is at the time of creation: they need no search_path, so
-- they hold in pg_restore, under a pinned path, and with PostGIS in a schema of its own.

-- plpgsql, not inlined SQL, where a text is looked at more than once: inlining repeats `raw ->> …` each time.
-- Cut up by position: a regular expression that captures the parts took 250 µs a call, and seven of these run per row.
create function tickets.eat_ts(value text) returns timestamptz
  language plpgsql immutable strict parallel safe
as $$
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
  year := n / 10000000000;
  month := n / 100000000 % 100;
  day := n / 1000000 % 100;
  -- make_timestamp raises on a day that does not exist, and takes 24:00 and :60, which are none.
  if year not between 1900 and 2100 or month not between 1 and 12 or day not between 1 and 31
    or n / 10000 % 100 > 23 or n / 100 % 100 > 59 or n % 100 > 59
    or (day > 30 and month in (4, 6, 9, 11))
    or (day > 28 and month = 2 and (day > 29 or year % 4 <> 0 or year in (1900, 2100)))
  then
    return null;
  end if;
  wall := make_timestamp(year, month, day, (n / 10000 % 100)::integer, (n / 100 % 100)::integer, n % 100 + fraction);
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
$$;
comment on function tickets.eat_ts(text) is 'A time of the feed: `YYYY-MM-DD[ T]HH:MM[:SS[.ffffff]]` or a bare date, blanks around it allowed, read as Africa/Nairobi unless it ends in Z or an offset (+03, +0300, +03:00, up to 15:59). NULL for anything else: a day or hour that does not exist (month 13, 30 February, 24:00, second 60), and years outside 1900 to 2100, which are markers (0001, 9999), not times.';

create function tickets.to_boolean(value text) returns boolean
  language sql immutable parallel safe
  return case lower(btrim(value, E' \t\r\n') collate "C")
    when 'true' then true when 'false' then false
    when 't' then true when 'f' then false
    when 'yes' then true when 'no' then false
    when 'y' then true when 'n' then false
    when '1' then true when '0' then false
  end;
comment on function tickets.to_boolean(text) is 'true, t, yes, y, 1 and false, f, no, n, 0, in any case, blanks around them allowed; NULL for anything else.';

create function tickets.hours_to_minutes(value text) returns numeric
  language plpgsql immutable strict parallel safe
as $$
begin
  if value = '' then
    return null;
  end if;
  value := btrim(value, E' \t\r\n');
  if length(value) > 40 or value collate "C" !~ '^[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)$' then
    return null;
  end if;
  return round(value::numeric * 60);
end
$$;
comment on function tickets.hours_to_minutes(text) is 'Decimal hours as whole minutes (halves away from zero). Plain decimals with an optional sign, at most 40 characters; NULL for anything else (NaN, inf, 1e3, 1,5). Numeric, so that no number of hours overflows and `mttr / 60` is not cut.';

create function tickets.to_degrees(value text) returns double precision
  language plpgsql immutable strict parallel safe
as $$
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
$$;
comment on function tickets.to_degrees(text) is 'A coordinate in plain decimal degrees, at most three digits before the point; NULL for anything else (NaN, 1e2, 1,29, 36°49''E). Whether it lies on earth is for the caller to ask.';

create function tickets.is_lng_lat(place geometry) returns boolean
  language sql immutable parallel safe
  return case
    when place is null then true
    when geometrytype(place) <> 'POINT' or st_isempty(place) then false
    -- NaN is greater than every number, so it is not between.
    else st_x(place) between -180 and 180 and st_y(place) between -90 and 90
  end;
comment on function tickets.is_lng_lat(geometry) is 'For CHECK constraints: NULL, or a point with a longitude in -180 to 180 and a latitude in -90 to 90. The geography type would wrap others silently (200,95 becomes -160,85) and store NaN.';
