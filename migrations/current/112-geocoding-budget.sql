-- Rate, budget and breaker of each geocoding provider: one row decides for all workers together.
--
-- A call is made in three statements, each its own transaction, so that no lock is held while the network is awaited:
-- reserve_geocoding_call (when may I?), keep_geocoding_call when that moment has come (may I still?), and after the call
-- record_geocoding_call (what came of it).
--
-- Breaker: closed -> open (a reason, and until when) -> after that time one caller at a time may probe -> closed by the first
-- answer that shows the provider working, or open again. Nobody has to close it.

create table tickets_ops.geocoding_providers (
  provider text primary key,
  rate_per_second numeric not null check (rate_per_second > 0),
  daily_budget integer check (daily_budget > 0),
  found_days numeric not null default 180 check (found_days > 0),
  next_at timestamptz not null default '-infinity',
  used_on date,
  used integer not null default 0,
  breaker text check (breaker in ('rate limited', 'quota spent', 'key refused', 'trouble')),
  breaker_reason text,
  breaker_since timestamptz,
  breaker_until timestamptz,
  probing_until timestamptz,
  strikes integer not null default 0,
  declared_at timestamptz not null default now(),
  constraint geocoding_providers_breaker_is_whole check (num_nulls(breaker, breaker_reason, breaker_since, breaker_until) in (0, 4))
);
comment on table tickets_ops.geocoding_providers is 'Geocoding providers that a worker was set up for: allowed rate, calls used, and the breaker. Shared by all workers. Holds no key.';
comment on column tickets_ops.geocoding_providers.provider is 'locationiq, opencage or nominatim.';
comment on column tickets_ops.geocoding_providers.rate_per_second is 'GEOCODER_RATE_PER_SECOND of the worker that declared itself last.';
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
comment on column tickets_ops.geocoding_providers.strikes is 'Failures in a row.';
comment on column tickets_ops.geocoding_providers.declared_at is 'When a worker last declared this provider.';

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
comment on column tickets_ops.geocoding_calls.outcome is 'What the answer was taken for; see src/geocode/outcome.ts.';
comment on column tickets_ops.geocoding_calls.calls is 'How many.';

create table tickets_ops.geocoding_setup (
  one boolean primary key default true check (one),
  provider text references tickets_ops.geocoding_providers,
  off_reason text,
  declared_at timestamptz not null default now(),
  constraint geocoding_setup_says_why_not check ((provider is null) = (off_reason is not null))
);
comment on table tickets_ops.geocoding_setup is 'One row: the provider that the workers ask, as the one that started last was told by its environment.';
comment on column tickets_ops.geocoding_setup.one is 'Makes it one row.';
comment on column tickets_ops.geocoding_setup.provider is 'The provider. NULL: nobody is asked.';
comment on column tickets_ops.geocoding_setup.off_reason is 'Why nobody is asked, and what to do.';
comment on column tickets_ops.geocoding_setup.declared_at is 'When a worker last declared itself.';

create table tickets_ops.geocoding_answers (
  cluster text not null,
  location_key text not null,
  query text not null,
  candidates jsonb not null,
  answered_at timestamptz not null default now(),
  primary key (cluster, location_key, query)
);
comment on table tickets_ops.geocoding_answers is 'Work in progress: answers to the queries of a place that is still being asked, so that a worker that dies costs one call and no more. Emptied when the place is settled.';
comment on column tickets_ops.geocoding_answers.cluster is 'The cluster.';
comment on column tickets_ops.geocoding_answers.location_key is 'The place; empty when the cluster itself is asked.';
comment on column tickets_ops.geocoding_answers.query is 'The text that was sent.';
comment on column tickets_ops.geocoding_answers.candidates is 'What came back; [] when the provider does not know it.';
comment on column tickets_ops.geocoding_answers.answered_at is 'When.';

create function tickets_ops.next_utc_midnight() returns timestamptz language sql volatile
return (date_trunc('day', clock_timestamp() at time zone 'UTC') + interval '1 day') at time zone 'UTC';
comment on function tickets_ops.next_utc_midnight() is 'When the daily quotas come back.';

create function tickets_ops.declare_geocoder(p_provider text, p_rate numeric, p_daily_budget integer, p_found_days numeric, p_off_reason text)
returns void language plpgsql as $$
begin
  if p_provider is not null then
    insert into tickets_ops.geocoding_providers as p (provider, rate_per_second, daily_budget, found_days)
    values (p_provider, p_rate, p_daily_budget, p_found_days)
    on conflict (provider) do update set
      rate_per_second = excluded.rate_per_second,
      daily_budget = excluded.daily_budget,
      found_days = excluded.found_days,
      -- The key may be a new one: the next call finds out.
      breaker_until = case when p.breaker = 'key refused' then least(p.breaker_until, now()) else p.breaker_until end,
      declared_at = now();
  end if;
  insert into tickets_ops.geocoding_setup (provider, off_reason) values (p_provider, p_off_reason)
  on conflict (one) do update set provider = excluded.provider, off_reason = excluded.off_reason, declared_at = now();
end
$$;
comment on function tickets_ops.declare_geocoder(text, numeric, integer, numeric, text) is
  'A worker that starts says whom it asks: provider, calls a second, calls a day (NULL: no limit), days that a found place is kept; or no provider and the reason.';

create function tickets_ops.reserve_geocoding_call(p_provider text)
returns table (granted boolean, wait_ms double precision, reserved_at timestamptz, slot_at timestamptz, reason text)
language plpgsql as $$
declare
  -- Slots of exactly 1/rate let a call too many into a second, as seen by a provider, which counts with jitter.
  c_stretch constant double precision := 1.03;
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
      next_at = greatest(p.next_at, clock_timestamp()) + make_interval(secs => c_stretch / p.rate_per_second::double precision),
      probing_until = case when p.breaker is not null then clock_timestamp() + c_probe end
    where p.provider = p_provider
      and (p.daily_budget is null or p.used < p.daily_budget or p.used_on <> (clock_timestamp() at time zone 'UTC')::date)
      and (p.breaker is null or greatest(p.breaker_until, p.probing_until) <= clock_timestamp())
    returning
      true,
      greatest(0, 1000 * extract(epoch from p.next_at - make_interval(secs => c_stretch / p.rate_per_second::double precision)
        - clock_timestamp()))::double precision,
      clock_timestamp(),
      p.next_at - make_interval(secs => c_stretch / p.rate_per_second::double precision),
      null::text;
  if found then
    return;
  end if;
  return query
    select
      false,
      case
        when p.breaker_until <= clock_timestamp() then c_probe_ms
        else 1000 * extract(epoch from coalesce(p.breaker_until, tickets_ops.next_utc_midnight()) - clock_timestamp())
      end::double precision,
      null::timestamptz,
      null::timestamptz,
      case
        when p.breaker is not null then format('%s: %s', p.breaker, p.breaker_reason)
        else format('the daily budget of %s calls is spent', p.daily_budget)
      end
    from tickets_ops.geocoding_providers p
    where p.provider = p_provider;
  if not found then
    raise exception 'No geocoding provider % is declared: a worker declares it when it starts.', p_provider;
  end if;
end
$$;
comment on function tickets_ops.reserve_geocoding_call(text) is
  'Reserves the next slot for one call to a provider, over all workers; call it in a transaction of its own. granted: make the call in wait_ms milliseconds (a delta, so that clocks need not agree), and reserve again if you wake much later. Not granted: the budget is spent or the breaker is open; ask again in wait_ms. reserved_at and slot_at are this moment and the slot by the database''s clock.';

create function tickets_ops.keep_geocoding_call(p_provider text, p_reserved_at timestamptz) returns boolean
language sql volatile as $$
  with given_back as (
    update tickets_ops.geocoding_providers
    set used = used - 1
    where provider = p_provider and breaker_since > p_reserved_at and used > 0
    returning 1
  )
  select not exists (select from given_back);
$$;
comment on function tickets_ops.keep_geocoding_call(text, timestamptz) is
  'Asked when the slot of a reservation has come: may the call still be made? False when the breaker opened meanwhile; then the call goes back to the budget.';

create function tickets_ops.return_geocoding_call(p_provider text) returns void
language sql volatile as $$
  update tickets_ops.geocoding_providers
  set used = used - 1
  where provider = p_provider and used > 0 and used_on = (clock_timestamp() at time zone 'UTC')::date;
$$;
comment on function tickets_ops.return_geocoding_call(text) is
  'Gives a reserved call back to the budget of the day: its slot went by before the call could be made.';

create function tickets_ops.record_geocoding_call(
  p_provider text, p_slot_at timestamptz, p_outcome text, p_reason text, p_retry_seconds double precision,
  p_cluster text, p_location_key text, p_query text, p_candidates jsonb
)
returns timestamptz language plpgsql as $$
declare
  c_refused constant interval := '10 minutes';
  c_pause constant double precision := 60;
  c_longest_pause constant double precision := 900;
  -- One failure may be chance, and calls in flight together fail together; so many in a row are trouble.
  c_strikes constant integer := 5;
  v_provider tickets_ops.geocoding_providers;
  v_breaker text;
  v_until timestamptz;
begin
  insert into tickets_ops.geocoding_calls as c (provider, called_on, outcome, calls)
  values (p_provider, (clock_timestamp() at time zone 'UTC')::date, p_outcome, 1)
  on conflict (provider, called_on, outcome) do update set calls = c.calls + 1;

  if p_outcome in ('found', 'not_found') then
    insert into tickets_ops.geocoding_answers (cluster, location_key, query, candidates)
    values (p_cluster, p_location_key, p_query, coalesce(p_candidates, '[]'))
    on conflict (cluster, location_key, query) do update set candidates = excluded.candidates, answered_at = now();
  end if;

  select * into v_provider from tickets_ops.geocoding_providers where provider = p_provider for update;

  if p_outcome in ('found', 'not_found', 'bad_request') then
    -- An answer to a call that was made before the breaker opened proves nothing.
    if v_provider.strikes > 0 and coalesce(v_provider.breaker_since <= p_slot_at, true) then
      update tickets_ops.geocoding_providers
      set breaker = null, breaker_reason = null, breaker_since = null, breaker_until = null, probing_until = null, strikes = 0
      where provider = p_provider;
      return null;
    end if;
    return v_provider.breaker_until;
  end if;

  v_breaker := case
    when p_outcome = 'quota_spent' then 'quota spent'
    when p_outcome = 'key_refused' then 'key refused'
    when p_outcome = 'rate_limited' then 'rate limited'
    when v_provider.breaker is not null or v_provider.strikes + 1 >= c_strikes or p_retry_seconds is not null then 'trouble'
  end;
  v_until := case
    when p_outcome = 'quota_spent' and p_retry_seconds is null then tickets_ops.next_utc_midnight()
    when p_outcome = 'quota_spent' then clock_timestamp() + make_interval(secs => p_retry_seconds)
    when p_outcome = 'key_refused' then clock_timestamp() + c_refused
    else clock_timestamp() + make_interval(secs => greatest(
      coalesce(p_retry_seconds, c_pause),
      least(c_longest_pause, coalesce(p_retry_seconds, c_pause) * 2 ^ least(greatest(v_provider.strikes - c_strikes, 0), 20))
    ))
  end;
  -- A breaker that is open for longer stays.
  if v_breaker is null or v_provider.breaker_until > v_until then
    update tickets_ops.geocoding_providers set strikes = strikes + 1 where provider = p_provider;
    return v_provider.breaker_until;
  end if;
  update tickets_ops.geocoding_providers
  set
    strikes = strikes + 1,
    breaker = v_breaker,
    breaker_reason = p_reason,
    breaker_since = coalesce(breaker_since, clock_timestamp()),
    breaker_until = v_until,
    probing_until = null
  where provider = p_provider;
  return v_until;
end
$$;
comment on function tickets_ops.record_geocoding_call(text, timestamptz, text, text, double precision, text, text, text, jsonb) is
  'Writes down what a call came to: counts it, opens or closes the breaker, keeps the candidates of an answer. p_slot_at: of its reservation. p_retry_seconds: when the provider said it may be asked again. Returns when the next call may be tried, NULL when the breaker is closed.';

create view tickets_ops.geocoding as
select
  p.provider,
  s.provider is not null as active,
  case
    when s.provider is null then 'not in use'
    when p.breaker is not null and p.breaker_until > now() then p.breaker
    when p.breaker is not null then 'probing'
    when today.used >= p.daily_budget then 'budget spent'
    else 'ready'
  end as state,
  case
    when p.breaker is not null then p.breaker_reason
    when today.used >= p.daily_budget then 'The daily budget is spent; it comes back at midnight UTC.'
  end as reason,
  case
    when p.breaker is not null then p.breaker_until
    when today.used >= p.daily_budget then tickets_ops.next_utc_midnight()
  end as until,
  p.rate_per_second,
  p.daily_budget,
  today.used as used_today,
  p.daily_budget - today.used as left_today,
  coalesce(
    (
      select jsonb_object_agg(c.outcome, c.calls)
      from tickets_ops.geocoding_calls c
      where c.provider = p.provider and c.called_on = (now() at time zone 'UTC')::date
    ),
    '{}'
  ) as calls_today
from tickets_ops.geocoding_providers p
left join tickets_ops.geocoding_setup s on s.provider = p.provider
cross join lateral (
  select case when p.used_on = (now() at time zone 'UTC')::date then p.used else 0 end as used
) as today
union all
select
  null, true, 'off',
  coalesce(s.off_reason, 'No worker has started yet that says which provider to ask (GEOCODER_PROVIDER).'),
  null, null, null, 0, null, '{}'
from (select 1) as always
left join tickets_ops.geocoding_setup s on true
where s.provider is null;
comment on view tickets_ops.geocoding is 'Geocoding at a glance, one row per provider: state (ready, budget spent, rate limited, quota spent, key refused, trouble, probing, off, not in use) with reason and until when, rate, budget used and left today (UTC), calls by outcome today. A row without provider says why nobody is asked.';
comment on column tickets_ops.geocoding.provider is 'The provider; NULL when there is none.';
comment on column tickets_ops.geocoding.active is 'Whether it is the one that the workers ask.';
comment on column tickets_ops.geocoding.state is 'ready, budget spent, rate limited, quota spent, key refused, trouble, probing (one call at a time finds out whether it works again), off, not in use.';
comment on column tickets_ops.geocoding.reason is 'Why it is not ready.';
comment on column tickets_ops.geocoding.until is 'When it is tried again.';
comment on column tickets_ops.geocoding.rate_per_second is 'Calls a second, over all workers.';
comment on column tickets_ops.geocoding.daily_budget is 'Calls a UTC day. NULL: no limit.';
comment on column tickets_ops.geocoding.used_today is 'Calls reserved today (UTC).';
comment on column tickets_ops.geocoding.left_today is 'What is left of the budget today. NULL: no limit.';
comment on column tickets_ops.geocoding.calls_today is 'Answers today (UTC) by outcome: {"found": 812, "not_found": 40}.';
