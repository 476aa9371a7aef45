-- Geocoding: providers, their calls and answers.

create table tickets_ops.geocoding_providers (
  provider text primary key,
  rate_per_second numeric not null check (rate_per_second > 0),
  daily_budget integer check (daily_budget > 0),
  found_days numeric not null default 180 check (found_days > 0),
  next_at timestamptz not null default '-infinity',
  used_on date,
  used integer not null default 0,
  breaker text check (breaker in ('rate limited', 'quota spent', 'key refused', 'trouble', 'suspected')),
  breaker_reason text,
  breaker_since timestamptz,
  breaker_until timestamptz,
  probing_until timestamptz,
  consecutive_failures integer not null default 0,
  last_failed_place text,
  consecutive_nothing integer not null default 0,
  found_at timestamptz not null default now(),
  registered_at timestamptz not null default now(),
  constraint geocoding_providers_breaker_is_whole check (num_nulls(breaker, breaker_reason, breaker_since, breaker_until) in (0, 4))
);
comment on table tickets_ops.geocoding_providers is 'Geocoding providers that a worker was set up for: allowed rate, calls used, and the breaker. Shared by all workers. Holds no key.';
comment on column tickets_ops.geocoding_providers.provider is 'locationiq, opencage or nominatim.';
comment on column tickets_ops.geocoding_providers.rate_per_second is 'GEOCODER_RATE_PER_SECOND of the worker that registered last.';
comment on column tickets_ops.geocoding_providers.daily_budget is 'GEOCODER_DAILY_BUDGET: calls a UTC day. NULL: no limit.';
comment on column tickets_ops.geocoding_providers.found_days is 'GEOCODER_FOUND_DAYS: after so many days a found place may be asked again.';
comment on column tickets_ops.geocoding_providers.next_at is 'The next free slot for a call.';
comment on column tickets_ops.geocoding_providers.used_on is 'The UTC day that `used` counts.';
comment on column tickets_ops.geocoding_providers.used is 'Calls reserved on that day. One that was never made, because its worker died, counts too.';
comment on column tickets_ops.geocoding_providers.breaker is 'Why nobody calls at present; NULL: closed. Beyond breaker_until one caller at a time may probe.';
comment on column tickets_ops.geocoding_providers.breaker_reason is 'The provider''s answer in words, without the key.';
comment on column tickets_ops.geocoding_providers.breaker_since is 'When it opened.';
comment on column tickets_ops.geocoding_providers.breaker_until is 'When the next call may be tried.';
comment on column tickets_ops.geocoding_providers.probing_until is 'Somebody is finding out whether the provider works again; after this time the prober is taken for dead and another may try.';
comment on column tickets_ops.geocoding_providers.consecutive_failures is 'Failures in a row, of one place only the first.';
comment on column tickets_ops.geocoding_providers.last_failed_place is 'The place that failed last.';
comment on column tickets_ops.geocoding_providers.consecutive_nothing is 'Answers in a row that say the provider does not know the place.';
comment on column tickets_ops.geocoding_providers.found_at is 'When it last found anything, or was registered first: what it did not find since is in doubt while it is suspected.';
comment on column tickets_ops.geocoding_providers.registered_at is 'When a worker last registered this provider.';

create table tickets_ops.geocoding_calls (
  provider text not null,
  called_on date not null,
  outcome text not null check (
    outcome in ('found', 'not_found', 'rate_limited', 'quota_spent', 'key_refused', 'bad_request', 'trouble', 'unreadable')
  ),
  calls integer not null,
  primary key (provider, called_on, outcome)
);
comment on table tickets_ops.geocoding_calls is 'Answers of geocoding providers, counted by UTC day and outcome.';
comment on column tickets_ops.geocoding_calls.provider is 'The provider.';
comment on column tickets_ops.geocoding_calls.called_on is 'UTC day of the answer.';
comment on column tickets_ops.geocoding_calls.outcome is 'What the answer was taken for; see src/geocoding/outcome.ts.';
comment on column tickets_ops.geocoding_calls.calls is 'How many.';

create table tickets_ops.geocoding_setup (
  one boolean primary key default true check (one),
  provider text references tickets_ops.geocoding_providers,
  off_reason text,
  registered_at timestamptz not null default now(),
  constraint geocoding_setup_says_why_not check ((provider is null) = (off_reason is not null))
);
comment on table tickets_ops.geocoding_setup is 'One row: the provider that the workers ask, as the one that started last was told by its environment.';
comment on column tickets_ops.geocoding_setup.one is 'Makes it one row.';
comment on column tickets_ops.geocoding_setup.provider is 'The provider. NULL: nobody is asked.';
comment on column tickets_ops.geocoding_setup.off_reason is 'Why nobody is asked, and what to do.';
comment on column tickets_ops.geocoding_setup.registered_at is 'When a worker last registered a provider, or none.';

create table tickets_ops.geocoding_answers (
  cluster text not null,
  location_key text not null,
  query text not null,
  provider text not null,
  candidates jsonb not null,
  answered_at timestamptz not null default now(),
  primary key (cluster, location_key, query)
);
comment on table tickets_ops.geocoding_answers is 'Work in progress: answers to the queries of a place that is still being asked, so that a worker that dies costs one call and no more. Emptied when the place is resolved; those of yesterday or of another provider do not count, and maintain removes them.';
comment on column tickets_ops.geocoding_answers.cluster is 'The cluster.';
comment on column tickets_ops.geocoding_answers.location_key is 'The place; empty when the cluster itself is asked.';
comment on column tickets_ops.geocoding_answers.query is 'The text that was sent.';
comment on column tickets_ops.geocoding_answers.provider is 'Who answered.';
comment on column tickets_ops.geocoding_answers.candidates is 'What came back; [] when the provider does not know it.';
comment on column tickets_ops.geocoding_answers.answered_at is 'When.';

--!include name-match.sql
--!include judge.sql
--!include waiting.sql
--!include budget.sql
--!include questions.sql
--!include resolving.sql
--!include rescoring.sql
--!include planning.sql
--!include on-demand.sql

create trigger _600_rescore_inserted after insert on tickets.geo_clusters
  for each row when (new.geom is not null) execute function tickets_ops.cluster_changed();
create trigger _600_rescore_updated after update on tickets.geo_clusters
  for each row when (new.geom::bytea is distinct from old.geom::bytea or new.guard_km <> old.guard_km)
  execute function tickets_ops.cluster_changed();
