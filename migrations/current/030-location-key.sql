-- The normaliser: which place a location_name means, without the network's codes. There is no other: the generated column,
-- the geometry, the geocoder and people all use these functions.
--   tickets.location_key('NW_ADR_MNT_Garden Est_FDT12')    'garden estate'   identifies the place within its cluster
--   tickets.location_query('NW_ADR_MNT_Garden Est_FDT12')  'Garden Estate'   says it to a provider
-- A new code is one more word in tickets.location_vocabulary(). But tickets.inc.location_key is STORED and the gazetteer
-- is keyed by it, so a change is a migration that replaces the function, rebuilds the column and re-keys the gazetteer.
-- The functions look at no table and at no setting. Letters without a decomposition (Ø, Greek) keep their case. Collation is "C" throughout, so that letters, ranges and equality
-- mean the same on every server. The database must be UTF8 (normalize() knows no other encoding).

-- What a word means, by its first word here:
--   code        always goes, with the numbers joined to it or after it
--   soft        a code only before a number, or alone as the last `_` segment: Port Reitz and Ring Road are places
--   ticket      goes with its number
--   premise X   goes with its number or letter; without one it is the word X
--   numbered X  goes with its number; without one it is the word X
--   no          the word that leads in a number
--   floor       goes, with its number or with the ordinal before it
--   relation    goes, and a word that is `of` (of, to, from) after it; next to, close to and in front of go as well
--   kept X      is X, and its number belongs to the name; with `[1-3]`, only such a number does
--   city X, word X   is X
-- A word that is not here is a word of a place's name.
create function tickets.location_vocabulary() returns jsonb
  language sql immutable parallel safe
  return '{
    "nw": "code", "adr": "code", "mnt": "code", "fdt": "code", "fat": "code", "olt": "code", "odf": "code",
    "sdu": "code", "sdus": "code", "mdu": "code", "mdus": "code",
    "pon": "code", "gpon": "code", "ont": "code", "onts": "code", "onu": "code", "onus": "code",
    "fdts": "code", "fats": "code", "olts": "code",

    "port": "soft", "ring": "soft", "pop": "soft", "node": "soft", "core": "soft", "cores": "soft",
    "splitter": "soft", "slot": "soft", "card": "soft", "pole": "soft", "splice": "soft",
    "cabinet": "soft", "cab": "soft", "closure": "soft", "manhole": "soft", "handhole": "soft",

    "inc": "ticket", "wot": "ticket", "crq": "ticket",

    "house": "premise house", "hse": "premise house", "hs": "premise house", "hno": "premise house",
    "door": "premise door", "block": "premise block", "blk": "premise block",
    "apartment": "premise apartment", "apartments": "premise apartments",
    "apt": "premise apartment", "appt": "premise apartment", "apts": "premise apartments",
    "flat": "premise flat", "unit": "premise unit", "suite": "premise suite", "room": "premise room", "rm": "premise room",
    "villa": "premise villa", "plot": "premise plot", "shop": "premise shop",

    "court": "numbered court", "crt": "numbered court", "ct": "numbered court",
    "no": "no", "num": "no", "number": "no",
    "floor": "floor", "flr": "floor", "fl": "floor",

    "opp": "relation", "opposite": "relation", "near": "relation", "nr": "relation", "behind": "relation",
    "beside": "relation", "adjacent": "relation", "adj": "relation", "along": "relation", "off": "relation",
    "past": "relation", "infront": "relation", "to": "of", "of": "of", "from": "of", "front": "front",

    "umoja": "kept umoja [1-3]", "githurai": "kept githurai 4[45]",
    "section": "kept section", "phase": "kept phase", "ph": "kept phase", "mile": "kept mile",

    "nbo": "city nairobi", "nrb": "city nairobi", "nairobi": "city nairobi",
    "msa": "city mombasa", "mombasa": "city mombasa", "ksm": "city kisumu", "kisumu": "city kisumu",
    "nku": "city nakuru", "nakuru": "city nakuru", "eld": "city eldoret", "eldoret": "city eldoret",

    "est": "word estate", "rd": "word road", "ave": "word avenue", "av": "word avenue", "hwy": "word highway",
    "ln": "word lane", "gdns": "word gardens", "bldg": "word building", "twr": "word tower", "twrs": "word towers",
    "center": "word centre", "ctr": "word centre", "mkt": "word market", "stn": "word station", "jct": "word junction",
    "hosp": "word hospital", "sch": "word school", "southb": "word south_b", "southc": "word south_c"
  }'::jsonb;
comment on function tickets.location_vocabulary() is 'The words that tickets.location_key() knows, each with what it means: network codes, sub-premises, relational words, abbreviations. The place to add a new code; see the comment in the migration for the procedure.';

create function tickets.plain_name(name text) returns text
  language plpgsql immutable strict parallel safe
as $$
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
$$;
comment on function tickets.plain_name(text) is 'A location name with nothing in it but letters, digits, blanks, `_`, and `-` and `''` within words: compatibility forms resolved (NFKD), zero-width characters and emoji out, other punctuation a blank. Errors: only if the database is not UTF8.';

-- A walk over the words: what the vocabulary says of a word decides whether it is kept and what becomes of a number after it.
-- Each word in `kept` has in front of it what binds it to the one before: a blank, `_`, `-`, `'`, or `=` for a number that
-- belongs to the name. What goes from the middle makes new neighbours, so then the walk is repeated: a key is its own key.
-- Few statements for a plain word and for a code, texts rather than arrays, hardly a regular expression: this runs for
-- every row of a load.
create function tickets.location_words(location_name text) returns text
  language plpgsql immutable strict parallel safe
as $$
declare
  name text := left(location_name, 500);
  kept text;
  seen text;         -- the words of names, bound and as they were typed
  typed text;
  token text;
  word text;
  stem text;         -- the word without the digits at its end
  number text;
  rule text;
  kind text;
  added text;        -- what the token adds to `kept`; NULL: it goes
  last text;         -- the last word kept
  binding text;
  expects text;      -- what the words before make of a number: numbers, id, premise, numbered, kept; or relation
  limits text;       -- which numbers a `kept` word takes, a regular expression
  from_at integer;   -- length of `kept` before the words that go with a number to come
  soft_at integer;   -- length of `kept` before the segments of nothing but soft codes that end at soft_end
  soft_end integer;
  gap boolean;       -- something went since the last word kept
  again boolean;
begin
  if name collate "C" ~ '[^A-Za-z0-9_ ]' then
    name := tickets.plain_name(name);
  end if;

  loop
    kept := '';
    seen := '';
    binding := ' ';
    expects := '';
    last := '';
    soft_at := null;
    soft_end := null;
    gap := false;
    again := false;

    foreach token in array string_to_array(replace(name, '_', ' _'), ' ') loop
      continue when token = '';
      if strpos('_-''=', left(token, 1)) > 0 then
        if binding = ' ' or left(token, 1) = '_' then
          binding := case when gap and left(token, 1) <> '_' then ' ' else left(token, 1) end;
        end if;
        token := substr(token, 2);
        continue when token = '';
      end if;
      word := lower(token collate "C");
      stem := rtrim(word, '0123456789');
      rule := tickets.location_vocabulary() ->> stem;

      -- Most words are a code, a number after one, or a plain word.
      if rule = 'code' or (stem = '' and expects = 'numbers') then
        expects := 'numbers';
        gap := kept <> '';
        continue;
      elsif rule is null and length(stem) > 2 and expects <> 'kept' and strpos(kept, word) = 0 and word collate "C" !~ '[0-9]' then
        kept := kept || binding || word;
        seen := seen || binding || token || ' ';
        last := word;
        binding := ' ';
        expects := '';
        if gap then
          again := true;
          gap := false;
        end if;
        continue;
      end if;

      -- A number, alone or joined to a word that takes one (FDT12 is FDT 12). After Block or House a letter is one, too.
      number := null;
      added := null;
      if word collate "C" ~ '^[0-9]+[a-z]?$' or binding = '='
        or (expects in ('id', 'premise') and word collate "C" ~ '^[a-z](?:[0-9]+[a-z]?)?$')
      then
        number := word;
        rule := null;
      elsif expects = 'kept' and word in ('i', 'ii', 'iii', 'iv', 'v') then
        number := array_position(array['i', 'ii', 'iii', 'iv', 'v'], word);
      elsif word collate "C" ~ '^[a-z]+[0-9]' then
        stem := substring(word collate "C" from '^[a-z]+');
        rule := tickets.location_vocabulary() ->> stem;
        if split_part(rule, ' ', 1) in ('code', 'soft', 'ticket', 'premise', 'numbered', 'no', 'floor', 'kept') then
          number := substr(word, length(stem) + 1);
          word := stem;
          token := left(token, length(stem));
        elsif word collate "C" ~ '^[a-z]{3}[0-9]{2,4}$' then
          rule := 'site';
        else
          rule := null;
        end if;
      end if;

      if rule is not null then
        kind := split_part(rule, ' ', 1);
        case kind
          when 'code' then
            expects := 'numbers';
          when 'site' then
            expects := '';
          when 'ticket' then
            added := word;
            from_at := length(kept);
            expects := 'numbered';
          when 'soft' then
            added := word;
            from_at := length(kept);
            expects := 'numbered';
            if soft_at is null or soft_end <> from_at then
              soft_at := case when binding = '_' or kept = '' then from_at end;
            end if;
            soft_end := from_at + 1 + length(word);
          when 'numbered', 'premise' then
            added := split_part(rule, ' ', 2);
            from_at := length(kept);
            expects := kind;
          when 'no' then
            if expects in ('premise', 'numbered') then
              kept := left(kept, from_at);
              soft_end := least(soft_end, from_at);
              last := '';
              expects := 'id';
            elsif last = 'h' then
              kept := left(kept, -2);
              last := '';
              expects := 'id';
            else
              added := word;
              from_at := length(kept);
              expects := 'numbered';
            end if;
          when 'floor' then
            if last collate "C" ~ '^(?:[0-9]+(?:st|nd|rd|th)?|ground|first|second|third|fourth|fifth|top)$' then
              kept := left(kept, -length(last) - 1);
              last := '';
            end if;
            expects := 'id';
          when 'relation' then
            expects := 'relation';
          when 'of' then
            if word = 'to' and last in ('next', 'close') then
              kept := left(kept, -length(last) - 1);
              last := '';
            elsif expects <> 'relation' then
              added := word;
            end if;
            expects := '';
          when 'front' then
            if last = 'in' then
              kept := left(kept, -3);
              last := '';
              expects := 'relation';
            else
              added := word;
              expects := '';
            end if;
          when 'kept' then
            added := split_part(rule, ' ', 2);
            limits := split_part(rule, ' ', 3);
            expects := kind;
          else  -- city, word
            added := split_part(rule, ' ', 2);
            expects := '';
            if kind = 'city' and last = 'st' and length(kept) > 3 then
              kept := kept || 'reet';
            end if;
        end case;
      elsif number is null then
        kind := 'plain';
        added := word;
        expects := '';
      end if;

      -- A word repeated in another case or in the next segment is one word, as is Nairobi NBO; but Saba Saba is a place.
      if added is not null and kind in ('plain', 'kept', 'city', 'word') then
        if word = 'buru' and last = 'buru' then
          kept := left(kept, -5);
          added := 'buruburu';
        elsif kind <> 'plain' and last = added then
          added := null;
        elsif kind in ('plain', 'city') and length(word) > 2 and binding in (' ', '_')
          and strpos(' saba sawa lunga ', ' ' || word || ' ') = 0
        then
          typed := translate(seen, '_', ' ');
          if (last = added and (gap or binding = '_'))
            or (strpos(lower(typed collate "C"), ' ' || word || ' ') > 0 and strpos(typed, ' ' || token || ' ') = 0)
          then
            added := null;
          end if;
        end if;
        seen := seen || binding || token || ' ';
      end if;

      if number is not null then
        if added is not null then
          kept := kept || binding || added;
          binding := '=';
        end if;
        if expects in ('premise', 'numbered') then
          kept := left(kept, from_at);
          soft_end := least(soft_end, from_at);
          last := '';
          added := null;
          expects := 'numbers';
        elsif expects in ('numbers', 'id') then
          added := null;
          expects := 'numbers';
        else
          if expects <> 'kept' or (limits <> '' and number collate "C" !~ ('^' || limits || '$')) then
            binding := case when binding = '=' then ' ' else binding end;
          else
            binding := '=';
          end if;
          added := number;
          expects := '';
        end if;
      end if;

      if added is null then
        gap := kept <> '';
      else
        kept := kept || binding || added;
        last := added;
        if gap then
          again := true;
          gap := false;
        end if;
      end if;
      if added is not null or binding <> '_' then
        binding := ' ';
      end if;
    end loop;

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
    exit when not again;
    name := replace(replace(replace(kept, '-', ' -'), '''', ' '''), '=', ' =');
  end loop;
  return case when octet_length(kept) = length(kept) then kept else normalize(kept, NFC) end;
end
$$;
comment on function tickets.location_words(text) is 'The place in a location name: lower-case words, each with a character in front of it that binds it to the one before (blank, `_`, `-`, `''`, or `=` before a number that belongs to the name); at most 201 characters, empty where nothing but codes is left. What tickets.location_key() and tickets.location_query() are made from.';

create function tickets.location_key(location_name text) returns text
  language sql immutable parallel safe
  return nullif(translate(substr(tickets.location_words(location_name), 2), '_-''=', '    '), '');
comment on function tickets.location_key(text) is 'The place that a location name means, without network codes, sub-premises and punctuation: with the cluster, the key of tickets.geo_locations. Several spellings of one place give one key. Lower case, at most 200 characters (of the name''s first 500); NULL where nothing but codes is left. No text makes it fail.';

create function tickets.location_query(location_name text) returns text
  language plpgsql immutable strict parallel safe
as $$
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
$$;
comment on function tickets.location_query(text) is 'tickets.location_key() as a text for people and geocoding providers: capitals, hyphens and apostrophes as in the name, abbreviations spelled out. NULL where the key is; tickets.location_key(tickets.location_query(x)) = tickets.location_key(x).';
