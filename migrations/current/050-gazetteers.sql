-- The gazetteers: where a cluster (coarse) and a place within a cluster (precise) are.

create table tickets.geo_clusters (
  cluster text primary key check (cluster = btrim(cluster) and length(cluster) between 1 and 200),
  geom geometry(Point, 4326),
  provider text,
  query text,
  verified boolean not null default false,
  guard_km numeric not null default 25 check (guard_km > 0),
  suspicious boolean not null default false,
  candidates jsonb not null default '[]',
  note text,
  attempts integer not null default 0,
  fetched_at timestamptz,
  expires_at timestamptz,
  created_at timestamptz not null default now(),
  updated_at timestamptz not null default now(),
  constraint geo_clusters_geom_is_lng_lat check (tickets.is_lng_lat(geom))
);

comment on table tickets.geo_clusters is 'One coordinate per cluster: the coarse place of its tickets, and the centre of the wrong-city guard of its locations.';
comment on column tickets.geo_clusters.cluster is 'The cluster as the feed writes it (tickets.inc.cluster).';
comment on column tickets.geo_clusters.geom is 'Centroid, WGS 84 longitude/latitude. NULL: asked, but nothing usable is known.';
comment on column tickets.geo_clusters.provider is 'Who said so: locationiq, opencage, nominatim, or manual for a coordinate set by a person.';
comment on column tickets.geo_clusters.query is 'The text that was sent to the provider.';
comment on column tickets.geo_clusters.verified is 'A person checked this coordinate: it is never overwritten, not even by force.';
comment on column tickets.geo_clusters.guard_km is 'A location farther than this from the centroid (geodesic km) is rejected as the wrong city. Widen it for a large cluster.';
comment on column tickets.geo_clusters.suspicious is 'Many results of this cluster were rejected but agree among themselves: the centroid is probably the wrong one. Check it.';
comment on column tickets.geo_clusters.candidates is 'Every candidate the provider returned, in its order: what tickets_ops.weigh_candidates reads of it, and `original` as returned.';
comment on column tickets.geo_clusters.note is 'Free text for people.';
comment on column tickets.geo_clusters.attempts is 'How many times in a row no usable centroid was found: 1 waits 7 days, later ones 30.';
comment on column tickets.geo_clusters.fetched_at is 'When a provider last answered for this cluster.';
comment on column tickets.geo_clusters.expires_at is 'When a cluster without a centroid may be asked again. NULL: never, or never asked. A centroid does not expire.';
comment on column tickets.geo_clusters.created_at is 'When the row was made.';
comment on column tickets.geo_clusters.updated_at is 'When the row last changed.';

create table tickets.geo_locations (
  cluster text not null check (cluster = btrim(cluster) and length(cluster) between 1 and 200),
  location_key text not null check (length(location_key) between 1 and 200),
  location_name text,
  status text not null check (status in ('found', 'not_found', 'rejected', 'needs_review')),
  geom geometry(Point, 4326),
  provider text,
  query text,
  precision text check (precision in ('point', 'street', 'neighbourhood', 'city')),
  confidence numeric,
  distance_km numeric,
  candidates jsonb not null default '[]',
  verified boolean not null default false,
  note text,
  attempts integer not null default 0,
  fetched_at timestamptz,
  expires_at timestamptz,
  created_at timestamptz not null default now(),
  updated_at timestamptz not null default now(),
  primary key (cluster, location_key),
  constraint geo_locations_geom_is_lng_lat check (tickets.is_lng_lat(geom)),
  constraint geo_locations_found_has_geom check (status <> 'found' or geom is not null)
);

comment on table tickets.geo_locations is 'Places within a cluster: what a provider or a person said about (cluster, location_key). Only rows with status found place tickets.';
comment on column tickets.geo_locations.cluster is 'The cluster the place lies in: there is a Milimani in Nairobi, in Nakuru and in Kisumu.';
comment on column tickets.geo_locations.location_key is 'tickets.location_key(location_name): the place without network codes.';
comment on column tickets.geo_locations.location_name is 'One raw spelling of the place, as a sample.';
comment on column tickets.geo_locations.status is 'found: geom places tickets. not_found: the provider knows no such place. rejected: every candidate failed the guard. needs_review: only a vague match (a city, a county); a person decides.';
comment on column tickets.geo_locations.geom is 'WGS 84 longitude/latitude. A person corrects it by UPDATE; the row then becomes verified and the tickets follow.';
comment on column tickets.geo_locations.provider is 'Who said so: locationiq, opencage, nominatim, or manual for a coordinate set by a person.';
comment on column tickets.geo_locations.query is 'The text that was sent to the provider.';
comment on column tickets.geo_locations.precision is 'What the coordinate stands for: point, street, neighbourhood, or city (too vague to place a ticket).';
comment on column tickets.geo_locations.confidence is 'Score of the chosen candidate, 0 to 1, by precision, name overlap and distance.';
comment on column tickets.geo_locations.distance_km is 'Geodesic kilometres from the cluster''s centroid.';
comment on column tickets.geo_locations.candidates is 'Every candidate the provider returned, in its order: what tickets_ops.weigh_candidates reads of it, and `original` as returned. Judged again, without a call, when the centroid or the guard changes.';
comment on column tickets.geo_locations.verified is 'A person checked this row: it is never overwritten and never expires, not even by force.';
comment on column tickets.geo_locations.note is 'Free text: why a candidate was rejected, or a person''s remark.';
comment on column tickets.geo_locations.attempts is 'How many times in a row the provider did not know the place: 1 waits 7 days, later ones 30.';
comment on column tickets.geo_locations.fetched_at is 'When a provider last answered for this place.';
comment on column tickets.geo_locations.expires_at is 'When the place may be asked again. NULL: never.';
comment on column tickets.geo_locations.created_at is 'When the row was made.';
comment on column tickets.geo_locations.updated_at is 'When the row last changed.';

create function tickets.touch_updated_at() returns trigger language plpgsql as $$
begin
  new.updated_at := now();
  return new;
end
$$;
comment on function tickets.touch_updated_at() is 'Trigger: keeps updated_at true.';

create trigger _100_touch before update on tickets.geo_clusters for each row execute function tickets.touch_updated_at();
create trigger _100_touch before update on tickets.geo_locations for each row execute function tickets.touch_updated_at();
