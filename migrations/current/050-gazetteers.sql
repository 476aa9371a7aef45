-- The gazetteers: where a cluster (coarse) and a place within a cluster (precise) are.

create table tickets.geo_clusters (
  cluster text primary key check (cluster = btrim(cluster) and length(cluster) between 1 and 200),
  geom geometry(Point, 4326),
  provider text,
  query text,
  verified boolean not null default false,
  verified_by text,
  verified_at timestamptz,
  guard_km numeric not null check (guard_km between 0.1 and 1000), -- Kenya is 1 030 km long; NaN and Infinity are beyond
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
comment on column tickets.geo_clusters.cluster is 'The cluster in one spelling, the first that came: later rows of either gazetteer get it too. Tickets belong to it in any case and with any blanks (tickets.cluster_key).';
comment on column tickets.geo_clusters.geom is 'Centroid, WGS 84 longitude/latitude. NULL: asked, but nothing usable is known.';
comment on column tickets.geo_clusters.provider is 'Who said so: locationiq, opencage, nominatim, or manual for a coordinate set by a person.';
comment on column tickets.geo_clusters.query is 'The text that was sent to the provider.';
comment on column tickets.geo_clusters.verified is 'A person checked this coordinate: it is never overwritten, not even by force.';
comment on column tickets.geo_clusters.verified_by is 'The role of the person who verified it, written by a trigger. NULL: nobody did, or the Python version''s data does not say.';
comment on column tickets.geo_clusters.verified_at is 'When that was. NULL where verified_by is.';
comment on column tickets.geo_clusters.guard_km is 'A location farther than this from the centroid (geodesic km, 0.1 to 1000) is rejected as the wrong city. Widen it for a large cluster.';
comment on column tickets.geo_clusters.suspicious is 'Many results of this cluster were rejected but agree among themselves: the centroid is probably the wrong one. Check it.';
comment on column tickets.geo_clusters.candidates is 'Every candidate the provider returned, in its order: what tickets_ops.score_candidates reads of it, and `original` as returned.';
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
  verified_by text,
  verified_at timestamptz,
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
comment on column tickets.geo_locations.candidates is 'Every candidate the provider returned, in its order: what tickets_ops.score_candidates reads of it, and `original` as returned. Judged again, without a call, when the centroid or the guard changes.';
comment on column tickets.geo_locations.verified is 'A person checked this row: it is never overwritten and never expires, not even by force.';
comment on column tickets.geo_locations.verified_by is 'The role of the person who verified it, written by a trigger. NULL: nobody did, or the Python version''s data does not say.';
comment on column tickets.geo_locations.verified_at is 'When that was. NULL where verified_by is.';
comment on column tickets.geo_locations.note is 'Free text: why a candidate was rejected, or a person''s remark.';
comment on column tickets.geo_locations.attempts is 'How many times in a row the provider did not know the place: 1 waits 7 days, later ones 30.';
comment on column tickets.geo_locations.fetched_at is 'When a provider last answered for this place.';
comment on column tickets.geo_locations.expires_at is 'When the place may be asked again. NULL: never.';
comment on column tickets.geo_locations.created_at is 'When the row was made.';
comment on column tickets.geo_locations.updated_at is 'When the row last changed.';

create table tickets.geo_decisions (
  decision_id bigint generated always as identity primary key,
  decided_at timestamptz not null default now(),
  decided_by text not null,
  kind text not null check (kind in ('cluster', 'location')),
  cluster text not null,
  location_key text,
  decision text not null
    check (decision in ('added', 'accepted', 'moved', 'rejected', 'guard', 'handed back', 'changed', 'removed', 'undone')),
  before jsonb,
  after jsonb,
  tickets_moved bigint not null,
  undoes bigint references tickets.geo_decisions,
  constraint geo_decisions_names_its_place check ((kind = 'location') = (location_key is not null)),
  constraint geo_decisions_has_a_row check (before is not null or after is not null)
);
comment on table tickets.geo_decisions is 'What people decided about places: one row for each gazetteer row that a person''s statement wrote, whatever tool it came from. Written by triggers and never changed. Take one back: select * from tickets.undo_decision(decision_id). The pipeline''s own verdicts are not among them.';
comment on column tickets.geo_decisions.decision_id is 'Number of the decision, in the order in which they were made, for tickets.undo_decision.';
comment on column tickets.geo_decisions.decided_at is 'Start of the transaction.';
comment on column tickets.geo_decisions.decided_by is 'The role of the person, also when a function with its owner''s rights wrote the row.';
comment on column tickets.geo_decisions.kind is 'cluster (tickets.geo_clusters) or location (tickets.geo_locations).';
comment on column tickets.geo_decisions.cluster is 'The cluster.';
comment on column tickets.geo_decisions.location_key is 'The place in it. NULL: the decision is about the cluster itself.';
comment on column tickets.geo_decisions.decision is 'added, accepted (as proposed), moved (another coordinate), rejected (no place on earth, or none of the candidates), guard (guard_km), handed back (to the pipeline), changed (a note, say), removed, undone (see undoes).';
comment on column tickets.geo_decisions.before is 'The row as it was; NULL for one that was added. geom is hexadecimal EWKB (cast it to geometry); candidates are left out unless they changed.';
comment on column tickets.geo_decisions.after is 'The row as the decision left it; NULL for one that was removed. In the form of before.';
comment on column tickets.geo_decisions.tickets_moved is 'Tickets whose place on the map changed with it, open and closed; for a cluster also those whose location was judged anew.';
comment on column tickets.geo_decisions.undoes is 'The decision that this one took back. NULL: none.';
-- The history of one place, the newest first.
create index geo_decisions_place on tickets.geo_decisions (cluster, location_key, decision_id);

--!include gazetteers.sql
--!include decisions.sql

alter table tickets.geo_clusters alter column guard_km set default tickets.default_guard_km();

-- One row for a cluster and for a place of it, whatever the spelling; what tickets are joined by.
create unique index geo_clusters_key on tickets.geo_clusters (tickets.cluster_key(cluster));
create unique index geo_locations_place on tickets.geo_locations (tickets.cluster_key(cluster), location_key);

create trigger _040_spelling before insert or update of cluster on tickets.geo_clusters
  for each row execute function tickets.keep_spelling();
create trigger _040_spelling before insert or update of cluster on tickets.geo_locations
  for each row execute function tickets.keep_spelling();

create trigger _050_verified before insert or update on tickets.geo_clusters
  for each row execute function tickets_ops.keep_cluster_verified();
create trigger _050_verified before insert or update on tickets.geo_locations
  for each row execute function tickets_ops.keep_location_verified();
-- After _050, whose verdict is signed.
create trigger _060_signed before insert or update on tickets.geo_clusters
  for each row execute function tickets_ops.sign_verdict();
create trigger _060_signed before insert or update on tickets.geo_locations
  for each row execute function tickets_ops.sign_verdict();
create trigger _100_touch before update on tickets.geo_clusters for each row execute function tickets.touch_updated_at();
create trigger _100_touch before update on tickets.geo_locations for each row execute function tickets.touch_updated_at();
create trigger _100_append_only before update or delete on tickets.geo_decisions
  for each statement execute function tickets_ops.refuse_rewriting();
