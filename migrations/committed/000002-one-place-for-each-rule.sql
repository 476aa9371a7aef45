--! Previous: sha1:d17fa6c5d105c82ef26e0d3cb226bfe0e7f3185e
--! Hash: sha1:d203a4f9f7214ccd66aebf826ac9ec05225b3d2e
--! Message: one-place-for-each-rule

--! split: 1-current.sql
-- Enter migration here
-- One place for each rule: functions that said the same thing twice. Tables keep their rows.

-- Comments that said nothing, or what was true once.
comment on schema tickets is 'Field-ops tickets of the fibre operator: INC faults and CRQ, requests for new installations, the gazetteers that place them, and their history.';
comment on column tickets.geo_country.name is 'Name of the country in English; the only row is Kenya.';
comment on column tickets_ops.looks.looked_at is 'When the look began, by the database''s clock.';
comment on column tickets_ops.geocoding_answers.cluster is 'The cluster, as the job that asked spells it.';
comment on column tickets_ops.geocoding_answers.answered_at is 'When the answer was stored: those of yesterday do not count any more.';
comment on column tickets_ops.geocoding_calls.provider is 'Name of the provider, as in GEOCODER_PROVIDER.';
comment on column tickets_ops.geocoding_calls.calls is 'Answers of that outcome on that day.';
comment on column tickets_ops.snapshot_rows.snapshot_id is 'The snapshot that is being staged or loaded; its row in tickets_ops.snapshots.';
comment on column tickets_ops.snapshot_rows.ticket_id is 'Id of the ticket, as the file has it without blanks around it.';
comment on column tickets_ops.snapshot_batches.snapshot_id is 'The snapshot of which it loads a part.';
comment on column tickets_ops.snapshot_batches.batch is 'Number of the batch in its snapshot, from 1.';
comment on column tickets_ops.snapshot_batches.error is 'Why its job failed last; NULL unless status is failed.';
comment on column tickets_ops.snapshot_rejects.snapshot_id is 'The snapshot whose file has the row.';
comment on column tickets_ops.unrecorded_tickets.ticket_id is 'Id of the ticket, in the table of its dataset.';
comment on column tickets_ops.announced_health.since is 'When health turned to that: the start of the trouble, or its end.';

-- Nothing reads them, and nothing writes them any more. To drop them would lock their tables behind the views below.
comment on column tickets_ops.geocoding_providers.registered_at is 'Not written since 1.0.1.';
comment on column tickets_ops.geocoding_setup.registered_at is 'Not written since 1.0.1.';

-- Their columns or names change. They are called from texts, by name; workers of 1.0.0 find all columns that they know.
drop function tickets_ops.described_jobs();
drop function tickets_ops.queued_jobs(boolean);
drop function tickets_ops.known_versions(text, text[]);
drop function tickets_ops.check_by_hand(text, geometry);
drop function tickets_ops.refusal_by_hand(geometry);

-- A region finds its rule whatever blanks are around it. Its index stays, on lower(region): a check lets no rule with blanks in.
--! Included tickets/name-keys.sql
-- What identifies a region and a team, however the feed, a rule or a question spells it. (A cluster: geocoding/cluster-names.sql.)
-- Inlined, both: they stand in filters that are asked of every ticket.

create or replace function tickets.region_key(p_region text) returns text
language sql immutable parallel safe
return lower(btrim(p_region));
comment on function tickets.region_key(text) is 'What identifies a region: its name in lower case without the blanks around it. By this a filter finds its tickets, a ticket its rule in tickets.sla_rules, and no region has two rules (index sla_rules_one_per_region).';

create or replace function tickets.team_key(p_team text) returns text
language sql immutable parallel safe
return lower(btrim(p_team));
comment on function tickets.team_key(text) is 'What identifies a team: its name in lower case without the blanks around it. By this a filter finds its tickets, and a vehicle those of its own team.';
--! EndIncluded tickets/name-keys.sql
comment on column tickets.sla_rules.region is 'The region as tickets.inc.region has it, in any case (tickets.region_key). NULL: the default, which cannot be deleted.';
comment on column tickets.geo_locations.candidates is 'Every candidate the provider returned, in its order: what tickets_ops.score_candidates reads of it, and `original` as returned. Rescored, without a call, when the centroid or the guard changes.';

--! Included tickets/kenya.sql
-- Kenya: what lies in it (tickets.geo_country), and the feed's own coordinates, taken only there.

-- A body of SQL standard form, as in values.sql: bound to PostGIS where it is.
create or replace function tickets.in_kenya(place geometry) returns boolean
  language sql stable parallel safe
begin atomic
  select place is not null and tickets.is_lng_lat(place) and exists (select from tickets.geo_country c where st_intersects(c.reach, place));
end;
comment on function tickets.in_kenya(geometry) is 'Whether a point (SRID 4326) lies in Kenya, with the tolerance of tickets.geo_country.reach. False for NULL, for what is no longitude/latitude, and so for 0,0 and for swapped axes.';

create or replace function tickets.outside_kenya(place geometry) returns text
  language sql stable parallel safe
begin atomic
  select case
    when place is null or tickets.in_kenya(place) then null
    when abs(st_x(place)) < 0.01 and abs(st_y(place)) < 0.01 then 'null island'
    when tickets.in_kenya(st_flipcoordinates(place)) then 'swapped'
    else 'outside'
  end;
end;
comment on function tickets.outside_kenya(geometry) is 'How a point (SRID 4326) misses Kenya: null island (0,0, which is what an empty coordinate becomes; to 0.01 degrees), swapped (latitude first: it would lie there with its axes the other way round), outside. NULL: it lies in Kenya, or there is no point.';

create or replace function tickets.country_outline() returns json
  language sql stable parallel safe
begin atomic
  select st_asgeojson(c.outline, 4)::json from tickets.geo_country c limit 1;
end;
comment on function tickets.country_outline() is 'tickets.geo_country.outline as a GeoJSON geometry with four decimals (11 m). NULL where there is no country.';

-- Inlined, and the feed's coordinates are empty so far: two look-ups in raw are all that a row costs.
create or replace function tickets.feed_point(raw jsonb) returns geometry
  language sql stable parallel safe
  return case
    when raw ->> 'latitude' <> '' and raw ->> 'longitude' <> '' and tickets.in_kenya(
      st_setsrid(st_makepoint(tickets.to_degrees(raw ->> 'longitude'), tickets.to_degrees(raw ->> 'latitude')), 4326)
    ) then
      st_setsrid(st_makepoint(tickets.to_degrees(raw ->> 'longitude'), tickets.to_degrees(raw ->> 'latitude')), 4326)
  end;
comment on function tickets.feed_point(jsonb) is 'The coordinates of a raw record (latitude, longitude) as a point (SRID 4326), if they read as numbers and lie in Kenya, else NULL. Swapped axes are not guessed at.';
--! EndIncluded tickets/kenya.sql
--! Included geocoding/cluster-names.sql
-- Which cluster a name means, and how it is spelt: clusters are compared by tickets.cluster_key, whatever the case. Within the
-- gazetteers each has one spelling, the one that came first, so that their rows can be joined by it; a ticket keeps what the feed wrote.

-- Inlined; translate() takes less than a pattern would, and the blanks of all Unicode (and what has no width) twice as long as
-- those of ASCII, which nearly every name is in.
create or replace function tickets.cluster_key(p_cluster text) returns text language sql immutable parallel safe
return nullif(
  left(
    lower(translate(
      p_cluster,
      case when octet_length(p_cluster) = length(p_cluster) then E' \t\r\n\v\f'
        else E' \t\r\n\v\f\u00a0\u2002\u2003\u2007\u2009\u200a\u200b\u200c\u200d\u200e\u200f\u202f\u2060\u3000\ufeff' end,
      ''
    )),
    200
  ),
  ''
);
comment on function tickets.cluster_key(text) is 'What identifies a cluster: its name in lower case without blanks, so that Kilimani, KILIMANI and " kilimani" are one. At most 200 characters, because a B-tree entry is limited to 2704 bytes. NULL for an empty one.';

create or replace function tickets.cluster_spelling(p_cluster text) returns text language sql immutable parallel safe
return rtrim(left(btrim(p_cluster), 200));
comment on function tickets.cluster_spelling(text) is 'A cluster''s name as a gazetteer may write it: without blanks around it, at most 200 characters.';

create or replace function tickets.known_spelling(p_cluster text) returns text
language plpgsql stable set search_path = pg_catalog, pg_temp as $$
begin
  return coalesce(
    (select c.cluster from tickets.geo_clusters c where tickets.cluster_key(c.cluster) = tickets.cluster_key(p_cluster)),
    -- Relies on the index on (cluster_key(cluster), location_key).
    (select l.cluster from tickets.geo_locations l where tickets.cluster_key(l.cluster) = tickets.cluster_key(p_cluster) limit 1)
  );
end
$$;
comment on function tickets.known_spelling(text) is 'A cluster as the gazetteers write it. NULL where they do not have it.';

-- Security definer: a role that writes one gazetteer need not read the other.
create or replace function tickets.keep_spelling() returns trigger
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
begin
  new.cluster := coalesce(tickets.known_spelling(new.cluster), new.cluster);
  return new;
end
$$;
comment on function tickets.keep_spelling() is 'Trigger: a gazetteer row gets the spelling of its cluster that the gazetteers have already.';

create or replace function tickets.chosen_spellings(p_clusters text[], p_tickets bigint[]) returns table (cluster_key text, spelling text)
language sql stable parallel safe rows 100
set search_path = pg_catalog, pg_temp
as $$
  select distinct on (1) tickets.cluster_key(w.cluster), w.cluster
  from (
    select g.cluster, true as is_known, 0 as tickets from tickets.geo_clusters g
    union all
    select s.cluster, false, s.tickets from unnest(p_clusters, p_tickets) as s (cluster, tickets)
  ) as w
  where tickets.cluster_key(w.cluster) is not null
  order by 1, w.is_known desc, w.tickets desc, w.cluster collate "C"
$$;
comment on function tickets.chosen_spellings(text[], bigint[]) is 'The one spelling in which each cluster is shown, however the feed writes it (tickets.cluster_key): that of tickets.geo_clusters, else of p_clusters the one that most tickets have. p_tickets: how many have each of p_clusters, in their order.';
--! EndIncluded geocoding/cluster-names.sql
--! Included tickets/clock.sql
-- The clock of a ticket: when it started, and for how long it has run.

-- Inlined, both: they are asked of every ticket.
create or replace function tickets.clock_start(p_created_at_service timestamptz, p_first_seen_at timestamptz) returns timestamptz
language sql immutable parallel safe
return coalesce(p_created_at_service, p_first_seen_at);
comment on function tickets.clock_start(timestamptz, timestamptz) is 'When a ticket''s clock started: created_at_service, else first_seen_at, which is when the export first saw the ticket and so up to days late. NULL where neither is known.';

create or replace function tickets.clock_source(p_created_at_service timestamptz, p_first_seen_at timestamptz) returns text
language sql immutable parallel safe
return case
  when p_created_at_service is not null then 'created_at_service'
  when p_first_seen_at is not null then 'first_seen_at'
end;
comment on function tickets.clock_source(timestamptz, timestamptz) is 'Which of the two tickets.clock_start() is: created_at_service or first_seen_at. NULL where neither is known.';

-- One SELECT, so wherever it stands in a FROM it is inlined.
create or replace function tickets.open_clock(
  p_created_at_service timestamptz, p_first_seen_at timestamptz, p_at timestamptz default now()
)
returns table (clock_start timestamptz, clock_source text, hours_open numeric)
language sql stable parallel safe
begin atomic
  select
    start,
    tickets.clock_source(p_created_at_service, p_first_seen_at),
    -- Cut, not rounded: 47.999 h must not be shown as 48.00 beside `ok`.
    trunc(extract(epoch from p_at - start) / 3600, 2)
  from (select tickets.clock_start(p_created_at_service, p_first_seen_at) as start) as clock;
end;
comment on function tickets.open_clock(timestamptz, timestamptz, timestamptz) is 'How long a ticket has been open as of p_at, one row: when its clock started (tickets.clock_start), from which of the two times (tickets.clock_source), and hours since then, cut to two decimals. NULLs where neither is known.';
--! EndIncluded tickets/clock.sql
--! Included tickets/datasets.sql
-- The datasets: INC, faults, is always on; CRQ, requests for new installations, where CRQ_ENABLED says so. One that is off is
-- named nowhere: not in health, status, metrics, planning or on the page.

-- Security definer, because views that readers use ask it, and a setting is none of theirs.
create or replace function tickets.datasets() returns setof text language sql stable security definer rows 2
set search_path = pg_catalog, pg_temp as $$
  select 'inc'
  union all
  select 'crq' where tickets_ops.setting('CRQ_ENABLED') = 'true'
$$;
comment on function tickets.datasets() is 'The datasets that are on, by their names in the ledger: inc, and crq where CRQ_ENABLED=true, as its processes were told (tickets_ops.setting).';
--! EndIncluded tickets/datasets.sql
--! Included geocoding/expiry.sql
-- How long what a provider said of a place stands, and whether it may be asked again.

create or replace function tickets_ops.answer_expires_at(p_status text, p_attempts integer, p_found_days numeric, p_from timestamptz)
returns timestamptz language sql immutable parallel safe
return p_from + make_interval(secs => 86400 * (
  case
    when p_status = 'found' then coalesce(p_found_days, 180)
    when p_status = 'not_found' and p_attempts <= 1 then 7
    else 30
  end
)::double precision);
comment on function tickets_ops.answer_expires_at(text, integer, numeric, timestamptz) is
  'When a place may be asked again: found after p_found_days (NULL: 180), not found after 7 days the first time and 30 then, rejected and needs_review after 30.';

-- Both are inlined.
-- A text, as of all that take a whole row: a bound body would keep typed columns from being added to the table.
create or replace function tickets_ops.is_due(p_cluster tickets.geo_clusters) returns boolean language sql stable parallel safe as $$
  select p_cluster.geom is null and p_cluster.verified is not true and coalesce(p_cluster.expires_at <= now(), true)
$$;
comment on function tickets_ops.is_due(tickets.geo_clusters) is 'Whether a cluster may be asked: it is not known, or was found nowhere and that has expired. A centroid does not expire. True of the row that a left join did not find.';

create or replace function tickets_ops.is_due(p_location tickets.geo_locations) returns boolean language sql stable parallel safe as $$
  select p_location.cluster is null or (not p_location.verified and coalesce(p_location.expires_at <= now(), false))
$$;
comment on function tickets_ops.is_due(tickets.geo_locations) is 'Whether a place may be asked: it is not known, or what was said of it has expired (never, where expires_at is NULL). True of the row that a left join did not find.';
--! EndIncluded geocoding/expiry.sql
--! Included jobs/job-policy.sql
-- Job policy: what every job of the pipeline has from the start, and what it is called. src/database/jobs.ts has the same for
-- the jobs that TypeScript adds, and the crontab can only repeat it; a test holds the three together (test/repository/rules.test.ts).
--
-- Loads come before geocoding: a free worker takes the lowest priority first. Of geocoding, what a person asks for comes
-- before what is planned, and a cluster before the places in it, which wait for its centroid.

create or replace function tickets_ops.job_policy(p_task text default null)
returns table (task text, max_attempts integer, priority integer, on_demand_priority integer, flags text[])
language sql immutable parallel safe
begin atomic
  select policy.*
  from (values
    -- Six attempts: the last comes about 4 minutes after the first, so a load that fails never outlives its hour.
    ('fetch_snapshot', 6, -10, -10, '{}'::text[]),
    ('upsert_batch', 6, -10, null, '{}'),
    ('finalize_snapshot', 6, -10, null, '{}'),
    -- By their flag a worker that runs enough of them keeps further ones off (src/geocoding/concurrency.ts).
    ('geocode_cluster', 6, 20, 10, '{geocode}'),
    ('geocode_location', 6, 30, 11, '{geocode}'),
    -- Prefixed, because others may have a task of that name in the same schema, whose jobs it would take.
    ('fleettickets_maintain', 3, -20, null, '{}'),
    -- 25 attempts are four days: a message outlasts a weekend without its receiver.
    ('fleettickets_alert', 25, -20, null, '{}')
  ) as policy (task, max_attempts, priority, on_demand_priority, flags)
  where p_task is null or policy.task = p_task;
end;
comment on function tickets_ops.job_policy(text) is 'Attempts, priority (lower runs first; a planned location adds its age in days, 9 at most), priority when a person asked for it (NULL: nobody can) and flags of the jobs of a task; of every task where p_task is NULL. No row for a task that is not ours.';

create or replace function tickets_ops.is_geocoding(p_task text) returns boolean language sql immutable parallel safe
return p_task in ('geocode_cluster', 'geocode_location');
comment on function tickets_ops.is_geocoding(text) is 'Whether the jobs of a task ask a provider, and so wait for its rate as a matter of course: those with the flag geocode.';

create or replace function tickets_ops.fetch_job_key(p_dataset text, p_which text) returns text language sql immutable parallel safe
return format('fetch_snapshot:%s:%s', p_dataset, p_which);
comment on function tickets_ops.fetch_job_key(text, text) is 'Key of a fetch_snapshot job. p_which: newest, force or backfill.';

create or replace function tickets_ops.batch_job_key(p_snapshot_id bigint, p_batch bigint) returns text language sql immutable parallel safe
return format('upsert_batch:%s:%s', p_snapshot_id, p_batch);
comment on function tickets_ops.batch_job_key(bigint, bigint) is 'Key of the upsert_batch job of a batch.';

create or replace function tickets_ops.finalize_job_key(p_snapshot_id bigint) returns text language sql immutable parallel safe
return format('finalize_snapshot:%s', p_snapshot_id);
comment on function tickets_ops.finalize_job_key(bigint) is 'Key of the finalize_snapshot job of a snapshot.';

create or replace function tickets_ops.location_job_key(p_cluster text, p_location_key text) returns text language sql immutable
return 'geocode_location:' || tickets.cluster_key(p_cluster) || ':' || p_location_key;
comment on function tickets_ops.location_job_key(text, text) is 'Key of the geocode_location job of a place: at most one waits.';

create or replace function tickets_ops.cluster_job_key(p_cluster text) returns text language sql immutable
return 'geocode_cluster:' || tickets.cluster_key(p_cluster);
comment on function tickets_ops.cluster_job_key(text) is 'Key of the geocode_cluster job of a cluster: at most one waits.';

create or replace function tickets_ops.geocoding_job_key(p_task text, p_payload jsonb) returns text language sql stable
return case p_task
  when 'geocode_cluster' then tickets_ops.cluster_job_key(p_payload ->> 'cluster')
  else tickets_ops.location_job_key(p_payload ->> 'cluster', tickets.location_key(p_payload ->> 'location_name'))
end;
comment on function tickets_ops.geocoding_job_key(text, jsonb) is 'The key that a geocoding job added without one (by graphile-worker''s own add_job) gets when it has to come back later.';
--! EndIncluded jobs/job-policy.sql
--! Included jobs/worker-schema.sql
-- graphile-worker's schema, which no other SQL of ours names: what we ask of it and do to it goes through these functions.
-- :WORKER_SCHEMA is the setting of that name: graphile-migrate puts the schema's name in its place (.gmrc).
--
-- Where it has a function that does it, ours calls that. Of its private tables they touch what its functions do not: those
-- skip the row of a job that runs, and none changes a payload or an attempt's flag.
-- Each body is a text, which binds to nothing: a view or a bound body would keep that library's own migrations from changing
-- its tables. They run with the caller's rights, so all but the owner see nothing (its tables have row security).

create or replace function tickets_ops.worker_schema() returns text language sql immutable parallel safe
return ':WORKER_SCHEMA'::text;
comment on function tickets_ops.worker_schema() is 'The schema that holds the jobs (setting WORKER_SCHEMA), fixed by the first migration.';

create or replace function tickets_ops.worker_breaking_revision() returns integer
language sql stable set search_path = pg_catalog, pg_temp as $$
  select max(id) from :WORKER_SCHEMA.migrations where breaking
$$;
comment on function tickets_ops.worker_breaking_revision() is 'graphile-worker''s last revision of its tables that workers of before it must not go on with.';

create or replace function tickets_ops.readable_payload(p_payload json) returns jsonb
language plpgsql immutable set search_path = pg_catalog, pg_temp as $$
begin
  return p_payload::jsonb;
exception
  -- A \u0000, half of a surrogate pair or a number of a million digits is valid json, and no jsonb. One such job must not hide all others.
  when data_exception then return to_jsonb(p_payload::text);
end
$$;
comment on function tickets_ops.readable_payload(json) is 'A job''s payload as jsonb; as a text where jsonb cannot hold it.';

-- Inlined. A block that catches errors costs a subtransaction: it is for the few payloads that jsonb may not hold.
create or replace function tickets_ops.parsed_payload(p_payload json) returns jsonb language sql immutable
return case
  when length(p_payload::text) < 1000 and p_payload::text !~ (chr(92) || chr(92) || 'u(0000|[dD][89a-fA-F])|[0-9][eE][+-]?[0-9]{3}')
    then p_payload::jsonb
  else tickets_ops.readable_payload(p_payload)
end;
comment on function tickets_ops.parsed_payload(json) is 'As tickets_ops.readable_payload, for 200 000 of them.';

-- Inlined into the query that asks, so that a look-up by key uses the index on it. Nowhere else is a job's state read from its columns.
create or replace function tickets_ops.queued_jobs(p_unknown_too boolean default false)
returns table (
  id bigint, task text, key text, payload json, queue text, priority integer, state text, run_at timestamptz, attempts integer,
  max_attempts integer, last_error text, locked_at timestamptz, locked_by text, flags jsonb, created_at timestamptz,
  updated_at timestamptz
)
language sql stable as $$
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
  from :WORKER_SCHEMA._private_jobs j
  join :WORKER_SCHEMA._private_tasks t on t.id = j.task_id
  left join :WORKER_SCHEMA._private_job_queues q on q.id = j.job_queue_id
  where p_unknown_too or t.identifier in (select policy.task from tickets_ops.job_policy() policy)
$$;
comment on function tickets_ops.queued_jobs(boolean) is 'Every job of ours. state: ready (due, or due when a worker is free), scheduled (waits for run_at), running, retrying (waits after an attempt that failed), failed (no attempt is left, and it does not run). p_unknown_too: also those whose task is none of ours. For operators: tickets_ops.jobs.';

create or replace function tickets_ops.enqueue(
  p_task text, p_payload json, p_job_key text default null, p_run_at timestamptz default null, p_priority integer default null,
  p_max_attempts integer default null
)
returns bigint language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
  v_policy record;
begin
  select * into v_policy from tickets_ops.job_policy(p_task);
  if not found then
    raise exception 'There is no task %.', p_task using hint = 'See tickets_ops.job_policy().';
  end if;
  return (:WORKER_SCHEMA.add_job(
    p_task, p_payload, job_key := p_job_key, run_at := p_run_at, flags := v_policy.flags,
    max_attempts := coalesce(p_max_attempts, v_policy.max_attempts), priority := coalesce(p_priority, v_policy.priority)
  )).id;
end
$$;
comment on function tickets_ops.enqueue(text, json, text, timestamptz, integer, integer) is 'Adds a job, due at p_run_at (NULL: now), with the attempts and priority of its task (tickets_ops.job_policy) unless others are given. One with the same key that waits is replaced; one that runs loses the key and is not tried again. Returns its id, NULL when a worker takes the one it would replace at this moment. Raises for a task that is not ours.';

create or replace function tickets_ops.enqueue_all(
  p_tasks text[], p_payloads json[], p_job_keys text[], p_run_at timestamptz[], p_priorities integer[]
)
returns bigint language sql set search_path = pg_catalog, pg_temp as $$
  select count(*)
  from :WORKER_SCHEMA.add_jobs(array(
    select cast(row(job.task, job.payload, null, job.run_at, policy.max_attempts, job.key, job.priority, policy.flags) as :WORKER_SCHEMA.job_spec)
    from unnest(p_tasks, p_payloads, p_job_keys, p_run_at, p_priorities) with ordinality
      as job (task, payload, key, run_at, priority, no)
    join tickets_ops.job_policy() policy on policy.task = job.task
    order by job.no
  ))
$$;
comment on function tickets_ops.enqueue_all(text[], json[], text[], timestamptz[], integer[]) is 'tickets_ops.enqueue for many jobs at once (measured: 10 000 in 0.1 s, one by one in 6.6 s). The arrays are of one length; a task that is not ours is left out. Returns how many were added.';

create or replace function tickets_ops.run_jobs_now(p_ids bigint[], p_attempts integer default null, p_priority integer default null)
returns bigint language sql set search_path = pg_catalog, pg_temp as $$
  select count(*) from :WORKER_SCHEMA.reschedule_jobs(p_ids, run_at := now(), attempts := p_attempts, priority := p_priority)
$$;
comment on function tickets_ops.run_jobs_now(bigint[], integer, integer) is 'Makes jobs that do not run due now; with p_attempts and p_priority in place of theirs unless NULL. Returns how many.';

create or replace function tickets_ops.restart_jobs(p_ids bigint[], p_max_attempts integer, p_forget text[] default '{}') returns bigint
language sql set search_path = pg_catalog, pg_temp as $$
  with restarted as (
    update :WORKER_SCHEMA._private_jobs
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
comment on function tickets_ops.restart_jobs(bigint[], integer, text[]) is 'Makes jobs that do not run due now as if they had never run, with p_max_attempts or more; p_forget: keys to leave out of the payload. Returns how many.';

create or replace function tickets_ops.lock_job(p_id bigint) returns void language sql set search_path = pg_catalog, pg_temp as $$
  select from :WORKER_SCHEMA._private_jobs where id = p_id for update
$$;
comment on function tickets_ops.lock_job(bigint) is 'Holds a job''s row until the end of the transaction: no worker takes or ends it meanwhile, and nobody replaces it.';

create or replace function tickets_ops.advance_job(
  p_id bigint, p_run_at timestamptz default null, p_priority integer default null, p_add jsonb default '{}', p_remove text default ''
)
returns void language sql set search_path = pg_catalog, pg_temp as $$
  update :WORKER_SCHEMA._private_jobs
  set run_at = least(run_at, p_run_at), priority = least(priority, p_priority),
    payload = case when p_add = '{}' and p_remove = '' then payload else (payload::jsonb - p_remove || p_add)::json end
  where id = p_id
$$;
comment on function tickets_ops.advance_job(bigint, timestamptz, integer, jsonb, text) is 'Makes a job more urgent, also one that runs, for when it puts itself back: no later than p_run_at, with no higher priority than p_priority (NULL: as it is), with p_add in its payload and without the key p_remove.';

create or replace function tickets_ops.give_up(p_job_id bigint) returns void
language sql set search_path = pg_catalog, pg_temp as $$
  update :WORKER_SCHEMA._private_jobs
  set max_attempts = greatest(attempts, 1), flags = coalesce(flags, '{}') || '{"given_up": true}'
  where id = p_job_id;
$$;
comment on function tickets_ops.give_up(bigint) is 'Called by a running job that no further attempt can help (a wrong payload, say), before it throws: this attempt was its last. The flag given_up tells it from one that used up its attempts.';

create or replace function tickets_ops.remove_jobs(p_ids bigint[]) returns bigint
language sql set search_path = pg_catalog, pg_temp as $$
  select count(*) from :WORKER_SCHEMA.complete_jobs(p_ids)
$$;
comment on function tickets_ops.remove_jobs(bigint[]) is 'Removes jobs that do not run. Returns how many.';

create or replace function tickets_ops.erase_from_job_errors(p_text text, p_instead text) returns bigint
language sql set search_path = pg_catalog, pg_temp as $$
  with changed as (
    update :WORKER_SCHEMA._private_jobs j
    set last_error = replace(j.last_error, p_text, p_instead),
      payload = case when alert.problems is null then j.payload else jsonb_set(j.payload::jsonb, '{problems}', alert.problems)::json end
    from
      :WORKER_SCHEMA._private_jobs k
      join :WORKER_SCHEMA._private_tasks t on t.id = k.task_id
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
$$;
comment on function tickets_ops.erase_from_job_errors(text, text) is 'Puts another text in the place of one in the errors of jobs, and in messages about health that are not delivered. Returns in how many.';

create or replace function tickets_ops.delete_jobs_of(p_tasks text[]) returns bigint
language sql set search_path = pg_catalog, pg_temp as $$
  with deleted as (
    delete from :WORKER_SCHEMA._private_jobs j
    using :WORKER_SCHEMA._private_tasks t
    where t.id = j.task_id and t.identifier = any (p_tasks)
    returning 1
  )
  select count(*) from deleted
$$;
comment on function tickets_ops.delete_jobs_of(text[]) is 'Deletes all jobs of these tasks, those included that a worker holds, dead or alive: only while no worker lives. Returns how many.';

create or replace function tickets_ops.pools_with_work() returns table (pool_id text, locked_at timestamptz)
language sql stable set search_path = pg_catalog, pg_temp as $$
  select locked_by, max(locked_at)
  from (
    select locked_by, locked_at from :WORKER_SCHEMA._private_jobs where locked_by is not null
    union all
    select locked_by, locked_at from :WORKER_SCHEMA._private_job_queues where locked_by is not null
  ) as locked
  group by locked_by
$$;
comment on function tickets_ops.pools_with_work() is 'Worker pools that hold a job or a queue; where the schema is shared, those of the other application too.';

create or replace function tickets_ops.unlock_pools(p_pools text[]) returns bigint[]
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
  -- A killed worker costs its jobs an attempt; it is given back, up to this many.
  c_most_attempts constant integer := 25;
  v_set_aside bigint[];
  v_over bigint[];
begin
  with died as (
    update :WORKER_SCHEMA._private_jobs
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
  perform :WORKER_SCHEMA.force_unlock_workers(p_pools);
  -- As a failure does: tickets_ops.jobs reads from it when the job failed.
  update :WORKER_SCHEMA._private_jobs set run_at = now() + exp(least(attempts, 10)) * interval '1 second' where id = any (v_over);
  -- As adding a job does: workers look now, not at their next poll.
  perform pg_notify('jobs:insert', '{"r":0,"count":64}');
  return v_set_aside;
end
$$;
comment on function tickets_ops.unlock_pools(text[]) is 'Frees the jobs and queues of worker pools that are dead. A job under which a worker died for the second time is set aside: no attempt is left, and its last_error says why. Returns the ids of those.';
--! EndIncluded jobs/worker-schema.sql
--! Included jobs/live-workers.sql
-- Which workers are alive, and by what that is known: each holds an advisory lock (src/worker/heartbeat.ts).

create or replace function tickets_ops.worker_lock(p_pool_id text, out space integer, out number integer) language sql immutable
return row(740512, hashtext(p_pool_id));
comment on function tickets_ops.worker_lock(text) is 'The two numbers of the advisory lock that a live worker pool holds.';

create or replace function tickets_ops.hung_after() returns interval language sql immutable
-- A worker that cannot reach the database ends itself after 30 s (src/worker/heartbeat.ts); a hung one does not even do that.
return interval '2 minutes';
comment on function tickets_ops.hung_after() is 'A worker that holds its lock and has not been heard of for so long is hung, and treated as dead.';

create or replace function tickets_ops.worker_states()
returns table (
  pool_id text, state text, host text, pid integer, sessions text, started_at timestamptz, seen_at timestamptz
)
language sql stable set search_path = pg_catalog, pg_temp as $$
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
comment on function tickets_ops.worker_states() is 'Registered worker pools, each with its state: alive; stopped (in good order); dead (its lock is free, or it was declared dead); hung (it holds its lock and has not been heard of for tickets_ops.hung_after()); unsure (its connections share sessions, so nobody can tell).';

create or replace function tickets_ops.is_living(p_state text, p_seen_at timestamptz) returns boolean language sql stable parallel safe
return p_state = 'alive' or (p_state = 'unsure' and p_seen_at > now() - interval '1 minute');
comment on function tickets_ops.is_living(text, timestamptz) is 'Whether a worker of tickets_ops.worker_states() counts as living: it is alive, or nobody can tell and it was heard of in the last minute.';

create or replace function tickets_ops.free_dead_workers(p_own_pool text) returns text[]
language plpgsql set search_path = pg_catalog, pg_temp as $$
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
comment on function tickets_ops.free_dead_workers(text) is 'Frees the jobs and queues that dead worker pools of ours hold, and ends the sessions of those that hang; a job under which a worker died twice is set aside. p_own_pool: of the worker that asks. Returns the dead pools. Only where sessions are not shared (tickets_ops.workers.shares_sessions).';
--! EndIncluded jobs/live-workers.sql
--! Included geocoding/placing.sql
-- Where a ticket is: feed coordinates, else its geocoded location, else its cluster's centroid, else nowhere.
--
-- Three writers keep tickets and gazetteers in agreement, all by tickets.gazetteer_joins() and tickets.place():
--   1. a load resolves its batch in its own statement (snapshots/loading.sql), a join on the gazetteers;
--   2. statement triggers on the ticket tables correct every other write;
--   3. statement triggers on the gazetteers re-resolve exactly the tickets that a change concerns.
-- Under READ COMMITTED a batch and a gazetteer change could pass each other unseen (measured: 28 deadlocks in 27 s,
-- and tickets that kept the old place for good). So a writer of tickets shares an advisory lock, and a writer of a
-- gazetteer holds it alone. The sweep re-resolves what disagrees all the same (operations/sweep.sql).
--
-- Here and in all that runs as security definer no text that is parsed when it runs names a function or operator of PostGIS: it may run
-- under a security definer's search_path, in which PostGIS is not. Casts (::bytea, ::point) are found without a path, and
-- bodies that are SQL, not text, are bound when they are made.

create or replace function tickets.gazetteer_lock() returns bigint language sql immutable parallel safe
return 7405120260615;
comment on function tickets.gazetteer_lock() is 'Key of the advisory lock: shared by transactions that write tickets, held alone by those that write a gazetteer.';

-- Inlined: it stands in the joins of whole tables.
create or replace function tickets.places_tickets(p_status text) returns boolean language sql immutable parallel safe
return p_status = 'found';
comment on function tickets.places_tickets(text) is 'Whether a row of tickets.geo_locations with this status places tickets.';

create or replace function tickets.gazetteer_joins(p_cluster text, p_location_key text) returns text language sql immutable parallel safe
return format($sql$
  left join tickets.geo_locations l
    on tickets.cluster_key(l.cluster) = tickets.cluster_key(%1$s) and l.location_key = %2$s and tickets.places_tickets(l.status) -- index geo_locations_place
  left join tickets.geo_clusters c on tickets.cluster_key(c.cluster) = tickets.cluster_key(%1$s) -- index geo_clusters_key
$sql$, p_cluster, p_location_key);
comment on function tickets.gazetteer_joins(text, text) is 'SQL that joins what the gazetteers know of a place, as l (its geocoded location) and c (its cluster), to the FROM clause before it. p_cluster, p_location_key: expressions of that clause. A text, because a statement over a whole table must be able to hash it.';

-- One SELECT: inlined wherever it stands in a FROM.
create or replace function tickets.place(p_raw jsonb, p_location geometry, p_cluster geometry)
returns table (geom geometry, geo_source text) language sql stable parallel safe
begin atomic
  select
    coalesce(feed.geom, p_location, p_cluster),
    case
      when feed.geom is not null then 'feed'
      when p_location is not null then 'location'
      when p_cluster is not null then 'cluster'
      else 'none'
    end
  from (select tickets.feed_point(p_raw) as geom offset 0) as feed; -- once, not wherever it is named
end;
comment on function tickets.place(jsonb, geometry, geometry) is 'Where a ticket is, one row: the feed''s own coordinates (of p_raw), else its geocoded location, else its cluster''s centroid, else nowhere; and which of them it is (feed, location, cluster, none).';

-- First what disagrees, which after a load is nothing: updating by a join with all of the rows would hash the table for
-- every batch.
create or replace function tickets.placing_statement(p_dataset text, p_rows text, p_locking text) returns text
language sql stable parallel safe set search_path = pg_catalog, pg_temp as $fn$
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
$fn$;
comment on function tickets.placing_statement(text, text, text) is 'The UPDATE that gives tickets of a dataset (inc, crq) the place that the feed and the gazetteers say, where they disagree. p_rows: SQL of a FROM clause with the tickets to look at as t; p_locking: what follows its WHERE. Only for tickets.place_tickets and tickets.place_written_tickets.';

create or replace function tickets_ops.moves() returns jsonb language sql stable
return coalesce(nullif(current_setting('tickets_ops.moves', true), '')::jsonb, '[]');
comment on function tickets_ops.moves() is 'The tickets that followed the gazetteer writes of this moment: [{cluster_key, location_key, tickets}, …], since a person''s statement began. Kept by tickets.place_tickets for tickets_ops.record_decisions.';

create or replace function tickets.place_tickets(p_dataset text, p_clusters text[] default null, p_location_keys text[] default null)
returns bigint language plpgsql
-- Compiling the sweep of a large table takes longer than the sweep.
set jit = off set search_path = pg_catalog, pg_temp
as $fn$
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
$fn$;
comment on function tickets.place_tickets(text, text[], text[]) is 'Re-resolves geom and geo_source of the tickets of a dataset (inc, crq) that disagree with the gazetteers: all of them, those of the given clusters, or those of the given (cluster, location_key) pairs. One statement; returns how many tickets moved.';

create or replace function tickets.share_gazetteers() returns trigger language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
  perform pg_advisory_xact_lock_shared(tickets.gazetteer_lock());
  return null;
end
$$;
comment on function tickets.share_gazetteers() is 'Trigger before writing tickets: no gazetteer changes meanwhile.';

create or replace function tickets.claim_gazetteers() returns trigger
language plpgsql security definer set search_path = pg_catalog, pg_temp set lock_timeout = '30s' as $$
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
comment on function tickets.claim_gazetteers() is 'Trigger before writing a gazetteer: no ticket is written meanwhile.';

create or replace function tickets.place_written_tickets() returns trigger language plpgsql set search_path = pg_catalog, pg_temp as $fn$
begin
  -- An UPDATE of no rows fires this trigger too: without this, its own UPDATE below would never end.
  if not exists (select from written) then
    return null;
  end if;
  execute tickets.placing_statement(tg_table_name, 'written t', '');
  return null;
end
$fn$;
comment on function tickets.place_written_tickets() is 'Trigger after writing tickets: by any writer, a ticket''s place follows from the feed coordinates and the gazetteers.';

-- A gazetteer's statement triggers hand over the keys whose placing coordinate changed: the symmetric difference of the
-- rows before and after (an event names only the transition tables that it has).
-- Security definer, as the gazetteers' other triggers: a role that may write a gazetteer moves tickets by it, without a right
-- to write them.
create or replace function tickets.clusters_moved() returns trigger
language plpgsql security definer set search_path = pg_catalog, pg_temp set lock_timeout = '30s' as $$
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
comment on function tickets.clusters_moved() is 'Trigger after writing tickets.geo_clusters: the tickets of the clusters whose centroid changed follow. Raises when others hold one of them for half a minute.';

create or replace function tickets.locations_moved() returns trigger
language plpgsql security definer set search_path = pg_catalog, pg_temp set lock_timeout = '30s' as $$
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
comment on function tickets.locations_moved() is 'Trigger after writing tickets.geo_locations: the tickets of the places whose coordinate changed follow. Raises when others hold one of them for half a minute.';
--! EndIncluded geocoding/placing.sql
--! Included snapshots/ledger.sql
-- The ledger's rules: what its statuses say of a file, which of them follow each other, and how a snapshot comes back into flight.

-- What a row says of its file (the column in_flight is such a rule too). All but the last are inlined, so that a query goes by the
-- columns and their indexes.

create or replace function tickets_ops.is_whole(p_status text) returns boolean language sql immutable parallel safe
return p_status in ('done', 'unchanged'); -- as index snapshots_unarchived has it
comment on function tickets_ops.is_whole(text) is 'Whether all that a file holds is in the tickets, by its status in the ledger: it was loaded to its end or found unchanged, and so is archived.';

create or replace function tickets_ops.is_loaded(p_status text) returns boolean language sql immutable parallel safe
return p_status in ('done', 'partial');
comment on function tickets_ops.is_loaded(text) is 'Whether a file was loaded, whole or in part, by its status in the ledger.';

create or replace function tickets_ops.counts_as_loaded(p_status text) returns boolean language sql immutable parallel safe
return p_status in ('done', 'partial', 'unchanged');
comment on function tickets_ops.counts_as_loaded(text) is 'Whether the tickets were brought to a file''s time, by its status in the ledger: it was loaded, whole or in part, or found unchanged.';

create or replace function tickets_ops.is_open(p_status text, p_opens_at timestamptz) returns boolean language sql stable parallel safe
return p_status = 'superseded' or (p_status = 'failed' and coalesce(p_opens_at <= now(), false));
comment on function tickets_ops.is_open(text, timestamptz) is 'Whether a version of a file that the ledger knows may be loaded all the same, without force: it was passed over, or refused as future-dated, and its time has come.';

-- A text, as of all that take a whole row: a bound body would keep typed columns from being added to the table.
create or replace function tickets_ops.is_failure(p_snapshot tickets_ops.snapshots) returns boolean language sql immutable parallel safe as $$
  select p_snapshot.status = 'failed' and p_snapshot.opens_at is null and not p_snapshot.ignored and not p_snapshot.is_late
$$;
comment on function tickets_ops.is_failure(tickets_ops.snapshots) is 'Whether loading a file failed. A future-dated file, one that is no CSV and one that came too late have the status failed as well, but were refused without being read, and health speaks of them in other words.';

create or replace function tickets_ops.needs_person(p_snapshot tickets_ops.snapshots) returns boolean language sql immutable parallel safe as $$
  select p_snapshot.status in ('held', 'partial') or tickets_ops.is_failure(p_snapshot)
$$;
comment on function tickets_ops.needs_person(tickets_ops.snapshots) is 'Whether a file failed, is held, or was loaded only in part: of snapshots a later file makes up for it, of changes a person must.';

create or replace function tickets_ops.reason(p_snapshot tickets_ops.snapshots) returns text language sql immutable parallel safe
set search_path = pg_catalog, pg_temp as $$
  select coalesce(p_snapshot.error, p_snapshot.broken_off, case when p_snapshot.status = 'held' then p_snapshot.hold_reason end)
$$;
comment on function tickets_ops.reason(tickets_ops.snapshots) is 'Why a snapshot failed, is partial, held or was passed over, in words. NULL where all is well.';

create or replace function tickets_ops.is_passed_over_elsewhere(p_snapshot tickets_ops.snapshots) returns boolean language sql stable
set search_path = pg_catalog, pg_temp as $$
  select exists (
    select from tickets_ops.snapshots o -- unique index snapshots_superseded_once
    where o.dataset = p_snapshot.dataset and o.source_key = p_snapshot.source_key and o.source_etag = p_snapshot.source_etag
      and o.source_last_modified = p_snapshot.source_last_modified and o.status = 'superseded'
  )
$$;
comment on function tickets_ops.is_passed_over_elsewhere(tickets_ops.snapshots) is 'Whether another row of the ledger says of the same version of a file that it was passed over (superseded). Only one may: this one cannot become superseded too.';

create or replace function tickets_ops.check_transition() returns trigger
language plpgsql set search_path = pg_catalog, pg_temp as $$
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
comment on function tickets_ops.check_transition() is 'Trigger of the ledger: a status changes only as tickets_ops.snapshot_transitions lists.';

create or replace function tickets_ops.ledger_lock(p_dataset text) returns bigint language sql immutable parallel safe
return hashtextextended('fleettickets ledger ' || p_dataset, 0);
comment on function tickets_ops.ledger_lock(text) is 'Number of the advisory lock under which looks at a dataset take turns to change the ledger.';

create or replace function tickets_ops.fail_snapshot(p_snapshot_id bigint, p_reason text) returns boolean language plpgsql
set search_path = pg_catalog, pg_temp as $$
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
comment on function tickets_ops.fail_snapshot(bigint, text) is 'A snapshot in flight becomes failed, with a reason for people; its staging is kept for a retry. A backfill that it belongs to goes on with the next file, and the gap stands in the ledger. Returns whether it was in flight.';

create or replace function tickets_ops.continue_backfill(p_dataset text) returns bigint language sql
return tickets_ops.enqueue(
  'fetch_snapshot', json_build_object('dataset', p_dataset, 'backfill', true), tickets_ops.fetch_job_key(p_dataset, 'backfill')
);
comment on function tickets_ops.continue_backfill(text) is 'Asks for the next file of a backfill. Returns the job''s id.';

create or replace function tickets_ops.ask_for_missing_jobs() returns bigint
language sql set search_path = pg_catalog, pg_temp as $$
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
comment on function tickets_ops.ask_for_missing_jobs() is 'Adds the jobs that snapshots in flight need and that are not there: someone deleted them, or they ended while their snapshot counted as failed. Returns how many.';

create or replace function tickets_ops.reopen_snapshot(p_snapshot_id bigint) returns text
language plpgsql set search_path = pg_catalog, pg_temp as $$
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
comment on function tickets_ops.reopen_snapshot(bigint) is 'Puts a failed snapshot back in flight, with the jobs that are gone; the caller revives those that failed. The only way back from failed. Returns why it cannot, NULL when it is in flight.';

create or replace function tickets_ops.put_back(p_snapshot_id bigint, p_from text) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
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
comment on function tickets_ops.put_back(bigint, text) is 'A snapshot whose reading broke off is to be read again: from staging or failed (the state it must be in, else nothing happens) to superseded, which a look takes. The new attempt number shuts out the reader that was cut off; its last statement may still be running, so the rows are wiped by later statements, which see what that one wrote.';
--! EndIncluded snapshots/ledger.sql
--! Included snapshots/high-water-mark.sql
-- What is loaded already, and the one order of versions of files: the time in the name, then LastModified, then the key.
-- src/bucket/files.ts has the same order, src/bucket/plan.ts the same tolerance for clocks; tests hold them together.

create or replace function tickets_ops.clock_tolerance() returns interval language sql immutable parallel safe
return interval '15 minutes';
comment on function tickets_ops.clock_tolerance() is 'The clocks of exporter and database may differ by this much. A file whose time is further ahead is future-dated: it is refused until its time has come.';

-- Inlined.
create or replace function tickets_ops.is_older(
  p_snapshot_at timestamptz, p_last_modified timestamptz, p_key text,
  p_than_snapshot_at timestamptz, p_than_last_modified timestamptz, p_than_key text
)
returns boolean language sql immutable parallel safe
return (p_snapshot_at, p_last_modified, p_key collate "C") < (p_than_snapshot_at, p_than_last_modified, p_than_key collate "C");
comment on function tickets_ops.is_older(timestamptz, timestamptz, text, timestamptz, timestamptz, text) is 'Whether a version of a file comes before another one: by time, LastModified, and the bytes of the key, whatever the collation of the database. Where rows are sorted so, the key is sorted under "C".';

create or replace function tickets_ops.high_water_mark(
  p_dataset text, out snapshot_at timestamptz, out last_modified timestamptz, out key text
)
language sql stable set search_path = pg_catalog, pg_temp as $$
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
comment on function tickets_ops.high_water_mark(text) is 'The newest version of a file of a dataset (inc, crq) that has touched tickets, or was found unchanged: its time, LastModified and key. Nothing below it is ever loaded. NULLs before the first load.';

create or replace function tickets_ops.is_below_mark(
  p_dataset text, p_snapshot_at timestamptz, p_last_modified timestamptz, p_key text
)
returns boolean language sql stable set search_path = pg_catalog, pg_temp
return (
  select coalesce(tickets_ops.is_older(p_snapshot_at, p_last_modified, p_key, m.snapshot_at, m.last_modified, m.key), false)
  from tickets_ops.high_water_mark(p_dataset) m
);
comment on function tickets_ops.is_below_mark(text, timestamptz, timestamptz, text) is 'Whether a version of a file is older than what is loaded, so that loading it would overwrite newer tickets. False before the first load.';

create or replace function tickets_ops.known_versions(p_dataset text, p_keys text[])
returns table (key text, etag text, last_modified timestamptz, status text, opens_at timestamptz, in_flight boolean)
language sql stable set search_path = pg_catalog, pg_temp as $$
  select distinct on (s.source_key, s.source_etag, s.source_last_modified)
    s.source_key, s.source_etag, s.source_last_modified, s.status, s.opens_at, s.in_flight
  from tickets_ops.snapshots s
  where s.dataset = p_dataset and s.source_key = any (p_keys) and s.origin = 'bucket' -- index snapshots_by_file
  -- Looked at again by force, and put back: that says nothing of what became of it before.
  order by s.source_key, s.source_etag, s.source_last_modified, s.status = 'superseded', s.snapshot_id desc
$$;
comment on function tickets_ops.known_versions(text, text[]) is 'What the ledger knows of the objects of these keys: a row for each version (key, ETag, LastModified), with the status of the last look that came to anything.';

create or replace function tickets_ops.last_loaded(p_dataset text) returns setof tickets_ops.snapshots
language sql stable set search_path = pg_catalog, pg_temp as $$
  select s.* from tickets_ops.snapshots s
  where s.dataset = p_dataset and tickets_ops.is_loaded(s.status)
  order by s.loaded_at desc limit 1
$$;
comment on function tickets_ops.last_loaded(text) is 'The snapshot of a dataset (inc, crq) that was loaded last, whole or in part.';

create or replace function tickets_ops.last_load(p_dataset text, p_cleaning_version integer, out etag text, out sha256 text)
language sql stable set search_path = pg_catalog, pg_temp as $$
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
comment on function tickets_ops.last_load(text, integer) is 'ETag and SHA-256 of the bytes that the tickets are at: a file with the same need not be loaded. NULL after a load that was partial or failed, or was cleaned by older rules than these, and of a local file, after which whatever the bucket holds next is loaded. Before the first load the ETag is what a takeover inherited.';
--! EndIncluded snapshots/high-water-mark.sql
--! Included analytics/history.sql
-- How the history of tickets (tickets.inc_events) is read: what an event says of the backlog, and how names stand in it.
-- Inlined, all of them: only so do the indexes inc_events_first and inc_events_backlog answer, whose conditions are written out.

create or replace function tickets.is_first_sight(p_event text, p_old_value text) returns boolean
language sql immutable parallel safe
return p_event in ('baseline', 'opened') or (p_event = 'closed' and p_old_value is null);
comment on function tickets.is_first_sight(text, text) is 'Whether an event tells of a ticket for the first time: a baseline, first seen open, or first seen closed (whose old_value is NULL). The condition of the index inc_events_first.';

create or replace function tickets.left_backlog(p_event text, p_old_value text) returns boolean
language sql immutable parallel safe
return p_event = 'closed' and p_old_value is not null;
comment on function tickets.left_backlog(text, text) is 'Whether an event is the closing of a ticket that was open: one that was first seen closed never was in the backlog.';

create or replace function tickets.changed_backlog(p_event text, p_old_value text) returns boolean
language sql immutable parallel safe
return p_event in ('opened', 'reopened') or tickets.left_backlog(p_event, p_old_value);
comment on function tickets.changed_backlog(text, text) is 'Whether a ticket entered or left the backlog by an event. The condition of the index inc_events_backlog.';

-- The last argument is looked up only where it decides.
create or replace function tickets.baseline_was_open(p_next_event text, p_is_open_now boolean) returns boolean
language sql immutable parallel safe
return case p_next_event when 'closed' then true when 'reopened' then false else coalesce(p_is_open_now, false) end;
comment on function tickets.baseline_was_open(text, boolean) is 'Whether a ticket was open when history began, of which its baseline says nothing: the next event of its lifecycle closes what was open and reopens what was not; where there is none, the ticket is still what it was.';

create or replace function tickets.name_in_history(p_name text) returns text
language sql immutable parallel safe
return left(p_name, 100);
comment on function tickets.name_in_history(text) is 'A cluster, region or team as history has it (tickets.inc_events, tickets.inc_daily): its first 100 characters, because indexes include them.';
--! EndIncluded analytics/history.sql
--! Included snapshots/loading.sql
-- Loading: a range of staged rows becomes tickets and history, in one statement.

-- What happens to a lifecycle carries the ticket as it then was: of a ticket that is reopened, tickets.inc soon no longer knows
-- the first closing.
create or replace function tickets_ops.history_cte(p_dataset text) returns text language sql immutable parallel safe
return format($sql$
    happened as (
      select i.ticket_id, case when i.is_actionable then 'opened' else 'closed' end as event,
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
        ('closed', coalesce(c.normalized_status, ''), u.normalized_status, c.is_actionable is true and u.is_actionable is not true),
        ('reopened', coalesce(c.normalized_status, ''), u.normalized_status, c.is_actionable is not true and u.is_actionable is true),
        ('closure_corrected', c.normalized_status, u.normalized_status, c.is_actionable is not true and u.is_actionable is not true
          and (c.closed_at is distinct from u.closed_at or c.mttr is distinct from u.mttr)),
        ('status_changed', c.normalized_status, u.normalized_status, c.normalized_status is distinct from u.normalized_status),
        ('team_changed', c.assigned_team, u.assigned_team, c.assigned_team is distinct from u.assigned_team),
        ('cluster_changed', c.cluster, u.cluster, c.cluster is distinct from u.cluster)
      ) as e (event, old_value, new_value, happened)
      left join lateral (
        select tickets.name_in_history(u.assigned_team) as assigned_team, u.owner, tickets.name_in_history(u.cluster) as cluster,
          tickets.name_in_history(u.region) as region, u.created_at_service, tickets.name_in_history(c.assigned_team) as team_before
      ) as ticket on e.event in ('closed', 'reopened')
      left join lateral (select u.closed_at, u.mttr, u.sla_status) as closing on e.event in ('closed', 'reopened', 'closure_corrected')
      where e.happened
    ),
    events as (
      insert into tickets.%1$I (
        ticket_id, event, old_value, new_value, assigned_team, owner, cluster, region, created_at_service, team_before,
        closed_at, mttr, sla_status, snapshot_id, snapshot_at
      )
      select h.*, s.snapshot_id, s.snapshot_at from happened h, tickets_ops.snapshots s where s.snapshot_id = $1
    )
$sql$, p_dataset || '_events');
comment on function tickets_ops.history_cte(text) is 'SQL: the part of tickets_ops.load_rows that writes history, from its parts changed (tickets as they were), updated and inserted (as they are).';

-- Classify once, then UPDATE, INSERT and history as parts of one statement (measured: 0.2 s for 50 000 unchanged rows, where
-- ON CONFLICT … WHERE raw IS DISTINCT FROM computes every generated column first and takes 1.9 s). Changed tickets are locked
-- in ticket_id order. Places are resolved for each distinct place, not for each row. The digests of what is written are written
-- with it, bound to the very rows; not where somebody's trigger may have stored another row than was staged.
create or replace function tickets_ops.load_rows(
  p_dataset text, p_snapshot_id bigint, p_first text, p_last text, p_without text[],
  out inserted integer, out updated integer, out unchanged integer
)
language plpgsql set search_path = pg_catalog, pg_temp as $fn$
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
$fn$;
comment on function tickets_ops.load_rows(text, bigint, text, text, text[]) is 'Writes the staged rows of a snapshot from one ticket id to another, without those in p_without, to the tickets of a dataset (inc, crq), to their history and to their digests. Only changes are written. Returns how many rows were inserted, updated and left as they are. To be called in a transaction that shares the gazetteer lock (tickets.gazetteer_lock). Raises what Postgres says of a row that it refuses.';
--! EndIncluded snapshots/loading.sql
--! Included snapshots/baselines.sql
-- Baselines: the history of tickets that came past the pipeline, those of a takeover and those that somebody inserted.
-- A trigger notes what is inserted, so that the end of a load need not look through all tickets; what no trigger saw (a restore
-- without triggers, say) is found by the sweep.

create or replace function tickets_ops.note_unrecorded() returns trigger
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
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
comment on function tickets_ops.note_unrecorded() is 'Trigger after an insert of tickets: notes those that are not the pipeline''s for tickets_ops.record_baselines.';

create or replace function tickets_ops.record_baselines(
  p_dataset text, p_snapshot_id bigint, p_snapshot_at timestamptz, p_only_noted boolean default false
) returns bigint
language plpgsql set search_path = pg_catalog, pg_temp as $fn$
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
$fn$;
comment on function tickets_ops.record_baselines(text, bigint, timestamptz, boolean) is 'Gives every ticket of a dataset that has no history a `baseline`: those of a takeover, and rows that somebody wrote past the pipeline. p_only_noted: only those whose insert was noted, without looking through the others. Returns how many.';
--! EndIncluded snapshots/baselines.sql
--! Included snapshots/held.sql
-- Snapshots that are held: what a person does about one, and what becomes of it when a newer file is loaded.

create or replace function tickets_ops.hold_time() returns interval language sql immutable parallel safe
return interval '1 hour';
comment on function tickets_ops.hold_time() is 'A file so much later that shows the same closings as a held one is believed: a feed never stands still for want of a person. src/snapshots/suspicion.ts is given it with what it compares.';

create or replace function tickets_ops.held(p_dataset text)
returns table (snapshot_id bigint, source_etag text, source_sha256 text, judged_again_at timestamptz)
language sql stable set search_path = pg_catalog, pg_temp as $$
  select s.snapshot_id, s.source_etag, s.source_sha256, s.held_since + tickets_ops.hold_time()
  from tickets_ops.snapshots s
  where s.dataset = p_dataset and s.status = 'held'
  order by s.snapshot_at desc limit 1 -- index snapshots_by_time
$$;
comment on function tickets_ops.held(text) is 'The snapshot of a dataset (inc, crq) that is held, if any. judged_again_at: a file of that time or later is loaded if it shows the same closings; NULL where only a person can decide.';

create or replace function tickets_ops.replace_held(p_dataset text, p_snapshot_at timestamptz, p_is_loaded boolean) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
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
comment on function tickets_ops.replace_held(text, timestamptz, boolean) is 'Held snapshots of a dataset whose files are no newer than this time are given up, because a newer one is loaded (then they are superseded) or held in their place (then they count as failed, and are not read again).';

create or replace function tickets_ops.locked_snapshot(p_snapshot_id bigint) returns tickets_ops.snapshots language plpgsql
set search_path = pg_catalog, pg_temp as $$
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
comment on function tickets_ops.locked_snapshot(bigint) is 'A snapshot''s row, locked until the end of the transaction, in its turn with looks at the bucket. Raises when there is none.';

create or replace function tickets_ops.release_snapshot(p_snapshot_id bigint) returns text
language plpgsql security definer set search_path = pg_catalog, pg_temp set lock_timeout = '10s' as $$
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
comment on function tickets_ops.release_snapshot(bigint) is 'Loads a snapshot that is held, after all: select tickets_ops.release_snapshot(42). Raises when it is not held, when something was loaded since, when another one is in flight, and when others hold its rows for ten seconds.';

create or replace function tickets_ops.dismiss_snapshot(p_snapshot_id bigint) returns text
language plpgsql security definer set search_path = pg_catalog, pg_temp set lock_timeout = '10s' as $$
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
comment on function tickets_ops.dismiss_snapshot(bigint) is 'Drops a snapshot that is held, which becomes failed, or takes a failed one out of health: select tickets_ops.dismiss_snapshot(42). Its file stays where it is. Raises for any other, and when others hold its row for ten seconds.';
--! EndIncluded snapshots/held.sql
--! Included snapshots/feed-of-changes.sql
-- Feeds of changes (settings INC_FEED, CRQ_FEED): a baseline, then files that hold changed rows only. Each is needed, in its order: one
-- that cannot be loaded stops those behind it, until it is mended or a person gives it up.

create or replace function tickets_ops.feed(p_dataset text) returns text language sql stable set search_path = pg_catalog, pg_temp
return coalesce(tickets_ops.setting(upper(p_dataset) || '_FEED'), 'snapshots');
comment on function tickets_ops.feed(text) is 'What the files of a dataset (inc, crq) are: snapshots, of which the newest is enough, or changes, of which each is needed. As its processes were told (INC_FEED, CRQ_FEED; tickets_ops.setting); snapshots where none ever was.';

create or replace function tickets_ops.blocking_file(p_dataset text) returns setof tickets_ops.snapshots
language sql stable set search_path = pg_catalog, pg_temp as $$
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
comment on function tickets_ops.blocking_file(text) is 'Of a feed of changes: the file that failed, is held, or was loaded only in part, and that nobody has given up: no later one is loaded. No row where none does, and for a feed of snapshots.';

create or replace function tickets_ops.is_blocked(p_dataset text, p_snapshot_at timestamptz, p_last_modified timestamptz, p_key text)
returns boolean language sql stable set search_path = pg_catalog, pg_temp
return exists (
  select from tickets_ops.blocking_file(p_dataset) b
  where b.source_key <> p_key
    and tickets_ops.is_older(b.snapshot_at, b.source_last_modified, b.source_key, p_snapshot_at, p_last_modified, p_key)
);
comment on function tickets_ops.is_blocked(text, timestamptz, timestamptz, text) is 'Whether a version of a file has to wait for one before it (tickets_ops.blocking_file). Another version of that one does not: it is its cure.';

create or replace function tickets_ops.skip_file(p_key text) returns text
language plpgsql security definer set search_path = pg_catalog, pg_temp set lock_timeout = '10s' as $$
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
comment on function tickets_ops.skip_file(text) is 'Gives up a file of a feed of changes that failed, is held, or was loaded only in part, so that those behind it are loaded: select tickets_ops.skip_file(''automations/inc/2026-06-15T09-00-00.csv''). What it changes is lost, and the ledger says who decided so. Raises when there is no such file, and when others hold its row for ten seconds.';

create or replace function tickets_ops.changes_problems(p_dataset text) returns table (severity text, problem text)
language sql stable set search_path = pg_catalog, pg_temp as $$
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
comment on function tickets_ops.changes_problems(text) is 'What is wrong with a feed of changes, as faults in words: the file that stops it, with how many wait behind it, and one that came too late to be loaded in its order.';
--! EndIncluded snapshots/feed-of-changes.sql
--! Included tickets/sla.sql
-- The SLA: what tickets.sla_rules promises, and an open ticket against it.

create or replace function tickets.require_default_rule() returns trigger language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
  if not exists (select from tickets.sla_rules where region is null) then
    raise exception 'tickets.sla_rules needs its default: the rule without a region.'
      using hint = 'Change it instead: update tickets.sla_rules set hours = 48, at_risk_hours = 40 where region is null;';
  end if;
  return null;
end
$$;
comment on function tickets.require_default_rule() is 'Trigger after taking rules away: without the default, tickets of regions without a rule of their own would be on no list.';

-- One SELECT, so wherever it stands in a FROM it is inlined.
-- The rule is looked up once for each region, not for each ticket:
-- Postgres remembers it (Memoize; measured for 20 000 tickets: 35 ms, with 48 h as a constant 28 ms, without Memoize 120 ms).
-- Bound when it is made: callers who may read the view below need no right to look a name up here.
create or replace function tickets.sla(
  p_region text, p_created_at_service timestamptz, p_first_seen_at timestamptz, p_at timestamptz default now()
)
returns table (sla_clock_start timestamptz, sla_clock_source text, hours_open numeric, sla_state text, at_risk boolean)
language sql stable parallel safe
begin atomic
  select
    clock.clock_start,
    clock.clock_source,
    clock.hours_open,
    case
      when clock.clock_start is null then 'unknown'
      when clock.clock_start <= rule.breached_from then 'breached'
      else 'ok'
    end,
    coalesce(clock.clock_start <= rule.at_risk_from and clock.clock_start > rule.breached_from, false)
  from tickets.open_clock(p_created_at_service, p_first_seen_at, p_at) as clock
  cross join lateral (
    select p_at - r.hours * interval '1 hour' as breached_from, p_at - r.at_risk_hours * interval '1 hour' as at_risk_from
    from tickets.sla_rules r
    where tickets.region_key(r.region) = tickets.region_key(p_region) or r.region is null
    order by r.region -- the region's own before the default: NULL comes last
    limit 1
  ) as rule;
end;
comment on function tickets.sla(text, timestamptz, timestamptz, timestamptz) is 'The SLA of an open ticket as of p_at by the rule of its region (tickets.sla_rules), one row: the clock, which it is and hours since then (tickets.open_clock), breached from the rule''s hours on, ok before, unknown without a clock, and at risk from its at_risk_hours on until breached. The columns of tickets.inc_open_sla.';
--! EndIncluded tickets/sla.sql
--! Included serving/filters.sql
-- The filters that the map functions share.

-- Inlined: with NULL for what is not asked for, nothing is left of it.
create or replace function tickets.is_of(
  cluster text, region text, team text, p_cluster text, p_region text, p_team text
)
returns boolean language sql immutable parallel safe
return (p_cluster is null or tickets.cluster_key(cluster) = tickets.cluster_key(p_cluster))
  and (p_region is null or tickets.region_key(region) = tickets.region_key(p_region))
  and (p_team is null or tickets.team_key(team) = tickets.team_key(p_team));
comment on function tickets.is_of(text, text, text, text, text, text) is 'Whether a ticket with that cluster, region and team is of the cluster, region and team that are asked for, each in any case and whatever blanks are around it; NULL asks for any.';

-- Inlined wherever it stands in a FROM: with a constant for p_open the open tickets are read through the index inc_open. A
-- caller that wants none of them says NULL; and adds no condition then, because Postgres leaves a scan out only where FALSE is
-- all that is left of its conditions (else it starts parallel workers for nothing: 16 ms).
create or replace function tickets.filtered_tickets(
  p_open boolean, p_mapped boolean, p_cluster text, p_region text, p_team text
)
returns setof tickets.inc language sql stable parallel safe
as $$
  select t.*
  from tickets.inc t
  where case p_open when true then t.is_actionable when false then t.is_actionable is not true else false end
    and (not p_mapped or t.longitude is not null)
    and tickets.is_of(t.cluster, t.region, t.assigned_team, p_cluster, p_region, p_team)
$$;
comment on function tickets.filtered_tickets(boolean, boolean, text, text, text) is 'The tickets that a map function is asked for: the open ones (p_open true), all others (false) or none (NULL); p_mapped: only those with a place; of exactly that cluster, region and assigned_team, each in any case and whatever blanks are around it, where NULL means all.';
--! EndIncluded serving/filters.sql
--! Included serving/map.sql
-- The map: its features, and the document that they make. dashboard_api calls it by map-api.sql.

-- Inlined; so not immutable, because concat() is not. The body is a text: one that is bound would keep columns from being added to the table.
create or replace function tickets.bytes_of_texts(p_ticket tickets.inc) returns integer
language sql stable parallel safe
as $$
  select octet_length(concat(
    p_ticket.ticket_id, p_ticket.normalized_status, p_ticket.raw_status, p_ticket.bucket, p_ticket.cluster, p_ticket.region,
    p_ticket.location_name, p_ticket.location_key, p_ticket.assigned_team, p_ticket.owner, p_ticket.sla_status
  ))
$$;
comment on function tickets.bytes_of_texts(tickets.inc) is 'Bytes of the texts among the properties of a ticket''s feature, by which the map keeps within the 256 MB that jsonb holds.';

-- A feature's properties, once for all map functions of INC. Inlined wherever it stands in a FROM; with a constant for p_open one of
-- the two lists of properties is left.
create or replace function tickets.map_features(p_open boolean, p_cluster text, p_region text, p_team text)
returns table (feature record, bytes_of_text integer, closed_at timestamptz, normalized_status text)
language sql stable parallel safe
as $$
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
comment on function tickets.map_features(boolean, text, text, text) is 'The GeoJSON features of the open or the other tickets that have a place, as records, with the bytes of their texts, closed_at and normalized_status. Arguments as of tickets.filtered_tickets.';

-- Inlined, too. Records all the way: the map functions turn them into one jsonb or json at the end, which takes a third less
-- than jsonb_agg(jsonb_build_object(…)), which takes every feature apart again.
-- Open tickets (index inc_open) and all others are two branches everywhere: `is_actionable or not p_open_only` would read the
-- whole table for the open ones.
create or replace function tickets.map_collection(
  p_open_only boolean, p_cluster text, p_region text, p_team text, p_dataset text default 'inc'
)
returns table (type text, features record[], summary jsonb)
language sql stable parallel safe
as $$
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
comment on function tickets.map_collection(boolean, text, text, text, text) is 'The document of reporting.fn_tickets_for_map(), reporting.fn_tickets_for_map_json() and reporting.fn_crq_for_map(), with their arguments, as one row; p_dataset: inc or crq. Reads as its caller.';
--! EndIncluded serving/map.sql
--! Included tickets/crq.sql
-- CRQ, requests for new installations: their features on the map. No SLA is known for them, so there is a clock and no state.

-- As tickets.filtered_tickets; not one function for both, since of a union Postgres has no statistics, and the map is slower by a sixth.
create or replace function tickets.filtered_crq(
  p_open boolean, p_mapped boolean, p_cluster text, p_region text, p_team text
)
returns setof tickets.crq language sql stable parallel safe
as $$
  select t.*
  from tickets.crq t
  where case p_open when true then t.is_actionable when false then t.is_actionable is not true else false end
    and (not p_mapped or t.longitude is not null)
    and tickets.is_of(t.cluster, t.region, t.assigned_team, p_cluster, p_region, p_team)
$$;
comment on function tickets.filtered_crq(boolean, boolean, text, text, text) is 'As tickets.filtered_tickets, of tickets.crq.';

-- The properties of tickets.map_features(), written out once more as tickets.filtered_crq() is; tests hold them equal. Of the ticket as a
-- row of tickets.inc, whose columns crq has in the same order, nothing is made where the function is inlined.
create or replace function tickets.crq_features(p_open boolean, p_cluster text, p_region text, p_team text)
returns table (feature record, bytes_of_text integer, closed_at timestamptz)
language sql stable parallel safe
as $$
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
comment on function tickets.crq_features(boolean, text, text, text) is 'The GeoJSON features of the open or the other requests that have a place, as tickets.map_features, with a clock and no SLA.';
--! EndIncluded tickets/crq.sql
--! Included serving/places.sql
-- Places: the tickets of a map counted by coordinate. Half a million tickets lie on a few thousand coordinates, so the counts say
-- what stacked points cannot, in a thirtieth of the bytes.

-- Bodies that are SQL, not text, are bound when they are made: so what follows finds PostGIS under a search_path without it.
create or replace function tickets.geohash(p_longitude double precision, p_latitude double precision) returns text
language sql immutable parallel safe
return st_geohash(st_setsrid(st_makepoint(p_longitude, p_latitude), 4326));
comment on function tickets.geohash(double precision, double precision) is 'The geohash of a WGS 84 coordinate in full length (20 characters, well below a millimetre).';

create or replace function tickets.may_lie_in(p_place geography, p_box geography) returns boolean
language sql immutable parallel safe
return p_place && p_box;
comment on function tickets.may_lie_in(geography, geography) is 'Whether a place lies in the box around another geography: what the GiST indexes on geog answer.';

create or replace function tickets.lies_between(p_longitude double precision, p_latitude double precision, p_box geography) returns boolean
language sql immutable parallel safe
return p_longitude between st_xmin(p_box::geometry) and st_xmax(p_box::geometry)
  and p_latitude between st_ymin(p_box::geometry) and st_ymax(p_box::geometry);
comment on function tickets.lies_between(double precision, double precision, geography) is 'Whether a coordinate lies between the corners of a box, its edges included: what an index on longitude answers.';

create or replace function tickets.bytes_of_names(ticket_id text, cluster text, region text, location_key text, location_name text) returns integer
language sql immutable parallel safe
return octet_length(ticket_id) + coalesce(octet_length(cluster), 0) + coalesce(octet_length(region), 0)
  + coalesce(octet_length(location_key), 0) + coalesce(octet_length(location_name), 0);
comment on function tickets.bytes_of_names(text, text, text, text, text) is 'Bytes of the texts by which tickets.places() counts a ticket.';

-- Inlined, or the indexes do not answer. Their conditions have it written out: inc_open_places, and for the others inc_open_long_names.
create or replace function tickets.has_short_names(ticket_id text, cluster text, region text, location_key text, location_name text) returns boolean
language sql immutable parallel safe
return tickets.bytes_of_names(ticket_id, cluster, region, location_key, location_name) <= 2000;
comment on function tickets.has_short_names(text, text, text, text, text) is 'Whether the texts by which tickets.places() counts a ticket may be part of an index: a B-tree refuses an entry of 2 704 bytes.';

-- Postgres's own array_agg runs in parallel from version 16 on only; for half a million tickets that is a third of the time.
create or replace aggregate tickets.collect(anycompatible) (
  sfunc = array_append, stype = anycompatiblearray, combinefunc = array_cat, parallel = safe
);
comment on aggregate tickets.collect(anycompatible) is 'array_agg without an order, for parallel plans.';

create or replace aggregate tickets.concat(anycompatiblearray) (
  sfunc = array_cat, stype = anycompatiblearray, combinefunc = array_cat, parallel = safe
);
comment on aggregate tickets.concat(anycompatiblearray) is 'One array of all elements of several, which may differ in length.';

-- Counted by coordinate and cluster first: a coordinate has few clusters, and the key of each, which makes its spellings one, then
-- need not be worked out for every ticket (a third of the time). Open tickets are read from an index: they lie all over the
-- table, and to go there for each takes half of the time.
-- Over 100 lines, because it is one statement: only so are filters that are not asked for, and the tickets that p_state leaves out, gone
-- before anything is read, and the rest read in parallel.
-- Planned anew in each call, with its arguments as constants. No JIT: compiling takes longer than what it would speed up. With
-- memory for the closed tickets' repair times, which would go through files with the default 4 MB.
create or replace function tickets.places(
  p_state text, p_from timestamptz, p_to timestamptz, p_cluster text, p_region text, p_team text, p_box geography,
  p_listed integer
)
returns table (
  id text, longitude double precision, latitude double precision, cluster text, location_key text, location_name text,
  geo_source text, tickets bigint, open bigint, breached bigint, at_risk bigint, oldest_hours numeric, closed bigint,
  mttr_median double precision, ticket_ids text[], more bigint
)
language plpgsql stable parallel safe
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_custom_plan
set jit = off
set work_mem = '32MB'
as $$
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
comment on function tickets.places(text, timestamptz, timestamptz, text, text, text, geography, integer) is 'The places of reporting.fn_ticket_places(), a row each, with its arguments and errors; p_box: only those in the box around it (and maybe some near it), NULL means all; p_listed: how many of the last closed tickets are looked at for ticket_ids. Reads as its caller.';
--! EndIncluded serving/places.sql
--! Included geocoding/judge.sql
-- The judge: which of a provider's candidates, if any, is the place that was asked for.
--
-- The rules stand here only. A new answer and a stored one are judged by the same functions, so when a centroid or a
-- guard changes the stored candidates are rescored with no call to a provider.
--
-- A candidate is {lat, lng, level, country, label, original} (src/geocoding/outcome.ts). It is
--   refused  no number, 0,0, outside Kenya, swapped axes, or beyond the guard;
--   doubtful only a city or county, of another name or number, or in another area than the name says: a person decides;
--   good     otherwise; the best by name, precision and distance is the place.

create or replace function tickets_ops.candidate_point(p_candidate jsonb) returns geometry language sql immutable parallel safe
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

create or replace function tickets_ops.distance_km(p_one geometry, p_other geometry) returns numeric language sql immutable parallel safe
return round((st_distance(p_one::geography, p_other::geography) / 1000)::numeric, 3);
comment on function tickets_ops.distance_km(geometry, geometry) is 'Geodesic kilometres between two points. NULL if one is.';

create or replace function tickets_ops.score_candidates(
  p_candidates jsonb, p_key text, p_cluster text, p_centre geometry, p_guard_km numeric
)
returns table (
  candidate_no bigint, geom geometry, label text, "precision" text, named boolean, exact boolean, literal boolean, overlap numeric,
  distance_km numeric, refusal text, doubt text
)
language sql stable parallel safe
begin atomic
  select
    c.no,
    point.geom,
    left(c.candidate ->> 'label', 200),
    level.precision,
    verdict.named,
    name.exact,
    name.literal,
    name.overlap,
    point.km,
    case
      when point.geom is null then 'it has no coordinates'
      when point.outside = 'null island' then 'its coordinates are 0,0'
      when c.candidate ->> 'country' <> 'ke' then 'it is not in Kenya'
      when point.outside = 'swapped' then 'its latitude and longitude are swapped'
      when point.outside = 'outside' then 'it is not in Kenya'
      when point.km > p_guard_km then
        format('it is %s km from the centre of the cluster, the guard is %s km', round(point.km, 1), p_guard_km)
    end,
    case
      when level.precision = 'city' then 'Only a city or county was found'
      when not verdict.named then 'What was found has another name'
      -- Near the centre of Ruaka everything is in Ruaka, whether the map says so or not.
      when cardinality(name.contradicted) > 0
        and (point.km > p_guard_km / 5 or not name.contradicted <@ coalesce(tickets_ops.name_words(p_cluster), '{}'))
      then format('What was found is not said to be in %s', initcap(array_to_string(name.contradicted, ' ')))
    end
  from jsonb_array_elements(case when jsonb_typeof(p_candidates) = 'array' then p_candidates else '[]' end)
    with ordinality as c (candidate, no)
  cross join lateral (
    select g.geom, tickets_ops.distance_km(p_centre, g.geom) as km, tickets.outside_kenya(g.geom) as outside
    from (select tickets_ops.candidate_point(c.candidate) offset 0) as g (geom) offset 0 -- each once, not wherever it is named
  ) as point
  cross join lateral tickets_ops.name_match(p_key, p_cluster, c.candidate ->> 'label') as name
  cross join lateral (
    -- A town is a place when it was asked for; otherwise the provider fell back to it.
    select case
      when c.candidate ->> 'level' in ('point', 'street', 'neighbourhood') then c.candidate ->> 'level'
      when c.candidate ->> 'level' = 'town' and name.exact then 'neighbourhood'
      else 'city'
    end as precision
  ) as level
  cross join lateral (
    select case when level.precision in ('point', 'street') then name.named else name.surrounded end as named
  ) as verdict;
end;
comment on function tickets_ops.score_candidates(jsonb, text, text, geometry, numeric) is
  'Each candidate (a JSON array as stored in tickets.geo_locations.candidates) scored as the place p_key of p_cluster: its point, precision, name and distance from p_centre; in `refusal` why it cannot be the place, in `doubt` why a person should decide (NULL: no reason). p_centre NULL: without the guard.';

create or replace function tickets_ops.judge_location(
  p_candidates jsonb, p_key text, p_cluster text, p_centre geometry, p_guard_km numeric
)
returns table (status text, geom geometry, "precision" text, confidence numeric, distance_km numeric, note text)
language sql stable parallel safe
begin atomic
  with scored as (
    select
      s.*,
      case when s.refusal is not null then 3 when s.doubt is not null then 2 else 1 end as tier,
      0.6 * s.overlap
        + 0.25 * case s.precision when 'point' then 1 when 'street' then 0.8 when 'neighbourhood' then 0.7 else 0 end
        + 0.15 * greatest(0, 1 - coalesce(s.distance_km / p_guard_km, 1)) as score
    from tickets_ops.score_candidates(p_candidates, p_key, p_cluster, p_centre, p_guard_km) s
  ),
  best as (
    select s.* from scored s order by s.tier, s.literal desc, s.score desc, s.candidate_no limit 1
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

create or replace function tickets_ops.score_cluster_candidates(p_candidates jsonb, p_key text)
returns table (
  candidate_no bigint, geom geometry, label text, "precision" text, exact boolean, literal boolean, overlap numeric, refusal text
)
language sql stable parallel safe
begin atomic
  select
    s.candidate_no, s.geom, s.label, s.precision, s.exact, s.literal, s.overlap,
    -- What a place lies in does for the place, not for a cluster: Mombasa Road is not Mombasa, Nairobi West not Nairobi.
    coalesce(
      s.refusal,
      case when not s.exact and not (name.named and name.same_kind and s.precision <> 'city') then 'it has another name' end
    )
  from tickets_ops.score_candidates(p_candidates, p_key, null, null, null) s
  cross join lateral tickets_ops.name_match(p_key, null, s.label) as name;
end;
comment on function tickets_ops.score_cluster_candidates(jsonb, text) is
  'Each candidate (a JSON array as stored in tickets.geo_clusters.candidates) scored as the cluster whose name has the location_key p_key: its point, precision and name; in `refusal` why it cannot be the cluster (NULL: no reason).';

create or replace function tickets_ops.judge_cluster(p_candidates jsonb, p_key text, p_region text, p_guard_km numeric)
returns table (geom geometry, note text, ambiguous boolean)
language sql stable parallel safe
begin atomic
  with scored as (
    select
      s.*,
      -- Regions of the network have names of their own (Nairobi Metro): one of the region's words is enough.
      words.label && array(
        select word from unnest(tickets_ops.name_words(p_region)) as word where word <> all (string_to_array(p_key, ' '))
      ) as in_region,
      words.label as words
    from tickets_ops.score_cluster_candidates(p_candidates, p_key) s
    cross join lateral (select coalesce(tickets_ops.name_words(s.label), '{}') as label) as words
  ),
  -- A cluster is an area: a suburb, a town or a city is it, a shop of that name is the last resort.
  best as (
    select s.*
    from scored s
    order by
      s.refusal is not null,
      s.exact desc,
      coalesce(s.in_region, false) desc,
      s.literal desc,
      case s.precision when 'neighbourhood' then 1 when 'city' then 1 when 'street' then 2 else 3 end,
      s.overlap desc,
      s.candidate_no
    limit 1
  ),
  -- As good by name and region, and so far away that no place could belong to both. Nakuru in Kenya is the county of
  -- Nakuru in Nakuru County, no namesake of it.
  namesakes as (
    select string_agg(s.label, '; ' order by s.candidate_no) as labels
    from best b
    join scored s on s.refusal is null and s.exact and s.literal = b.literal and s.in_region is not distinct from b.in_region
      and tickets_ops.distance_km(s.geom, b.geom) > p_guard_km and not (s.words <@ b.words or b.words <@ s.words)
    where b.refusal is null and b.exact
  )
  select
    case when b.refusal is null then b.geom end,
    case
      when b.refusal is not null then format('%s: %s', b.label, b.refusal)
      when n.labels is not null then format('It may be another of this name: %s, or %s', b.label, n.labels)
    end,
    n.labels is not null
  from best b cross join namesakes n;
end;
comment on function tickets_ops.judge_cluster(jsonb, text, text, numeric) is
  'The verdict over all candidates for a cluster whose name has the location_key p_key: the centroid, or NULL and the reason in words. Of namesakes the one in p_region (of most of its tickets; NULL: unknown) is preferred; ambiguous: that does not tell it from one beyond p_guard_km, and the note names both. No row without candidates.';
--! EndIncluded geocoding/judge.sql
--! Included geocoding/suspicious-clusters.sql
-- Whether the centroid of a cluster is probably the wrong one: its places lie together elsewhere, most of them lie beyond its guard,
-- or a namesake of the cluster lies far away.

create or replace function tickets_ops.places_without_guard(p_cluster text)
returns table (location_key text, location_name text, candidates jsonb, geom geometry, fits boolean)
language sql stable
begin atomic
  select l.location_key, l.location_name, l.candidates, place.geom, place.status = 'found'
  from (
    -- Enough to see. Each takes the judge some milliseconds, and each answer that is rejected asks for all of them.
    select * from tickets.geo_locations r
    where r.cluster = p_cluster and r.status = 'rejected' and not r.verified
    order by r.fetched_at desc nulls last, r.location_key limit 50
  ) as l
  cross join lateral tickets_ops.judge_location(l.candidates, l.location_key, l.cluster, null, null) as place
  where place.geom is not null;
end;
comment on function tickets_ops.places_without_guard(text) is 'Where the judge would put the rejected places of a cluster if it had no guard (at most 50, the last asked); fits: without a doubt. Not those for which it would take no candidate at all.';

-- Security definer: the page asks it with its reader's rights.
create or replace function tickets_ops.places_together(p_points geometry[], p_centre geometry, p_guard_km numeric)
returns table (places bigint, lng double precision, lat double precision, km numeric)
language sql immutable parallel safe security definer set search_path = pg_catalog, pg_temp
begin atomic
  select
    count(*), avg(st_x(other.geom)), avg(st_y(other.geom)), round(avg(tickets_ops.distance_km(p_centre, other.geom)))
  from unnest(p_points) with ordinality as one (geom, no)
  join unnest(p_points) as other (geom) on tickets_ops.distance_km(one.geom, other.geom) <= p_guard_km
  group by one.no
  having count(*) >= 3 -- two may be chance
  order by 1 desc, one.no limit 1;
end;
comment on function tickets_ops.places_together(geometry[], geometry, numeric) is 'Of some points the most that lie within one guard of one of them, where that are three or more, else no row: how many, their mean coordinate, and their mean distance from p_centre in whole km.';

create or replace function tickets_ops.places_of(p_cluster text, out within bigint, out beyond bigint, out rejected bigint)
language sql stable set search_path = pg_catalog, pg_temp as $$
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
comment on function tickets_ops.places_of(text) is 'How the places of a cluster lie about its present centroid: found within its guard, found beyond it (a person put them there), and rejected because all that is known of them lies beyond it. Of a cluster without a centroid none.';

create or replace function tickets_ops.is_far_from_its_places(p_cluster text) returns boolean
language sql stable security definer set search_path = pg_catalog, pg_temp
return (select p.beyond > p.within or (p.within = 0 and p.rejected > 0) from tickets_ops.places_of(p_cluster) as p);
comment on function tickets_ops.is_far_from_its_places(text) is 'Whether a cluster''s centroid is probably the wrong one: more of its places lie beyond its guard than within, or nothing but rejected ones is known. False without a centroid.';

create or replace function tickets_ops.flag_suspicious(p_cluster text) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
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
comment on function tickets_ops.flag_suspicious(text) is 'Sets or clears tickets.geo_clusters.suspicious: three or more rejected places agree among themselves and outnumber the found ones, or a namesake of the cluster lies far away and its region does not tell which is meant (never of a verified centroid: a person knows which). Called under as_pipeline(true).';
--! EndIncluded geocoding/suspicious-clusters.sql
--! Included geocoding/snooze.sql
-- Geocoding jobs that have to wait, for their turn or for their cluster's centroid, and what wakes them.

create or replace function tickets_ops.is_unresolvable(p_cluster tickets.geo_clusters) returns boolean language sql stable as $$
  select p_cluster.geom is null and not tickets_ops.is_due(p_cluster)
$$;
comment on function tickets_ops.is_unresolvable(tickets.geo_clusters) is 'Whether a cluster has no centroid and none is to be had: it was asked in vain lately, or a person took it away.';

create or replace function tickets_ops.request_centroid(p_cluster text, p_priority integer) returns boolean
language plpgsql set search_path = pg_catalog, pg_temp as $$
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
comment on function tickets_ops.request_centroid(text, integer) is 'A place waits for its cluster''s centroid: adds the cluster''s job, or lets the one that waits go as early as the place; neither when the centroid has come meanwhile. Returns true when none is to be had (tickets_ops.is_unresolvable), so that waiting is in vain until a person sets the centroid.';

create or replace function tickets_ops.snooze_geocoding(
  p_job_id bigint, p_task text, p_wait_ms double precision, p_until_resolved text default null
)
returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
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
comment on function tickets_ops.snooze_geocoding(bigint, text, double precision, text) is 'A running geocoding job comes back in so many milliseconds; at once when the cluster p_until_resolved has a centroid by now or none is to be had, and soon while somebody is writing a gazetteer; and this run uses up no attempt. Where the same was asked for anew meanwhile, that job stands.';

create or replace function tickets_ops.wake_locations(p_cluster text) returns void
language sql set search_path = pg_catalog, pg_temp as $$
  select tickets_ops.run_jobs_now(array_agg(j.id))
  from tickets_ops.queued_jobs() j
  where j.task = 'geocode_location'
    and starts_with(j.key, tickets_ops.location_job_key(p_cluster, ''))
    and j.run_at > now()
    and j.last_error is null;
$$;
comment on function tickets_ops.wake_locations(text) is 'The geocode_location jobs that wait for a cluster''s centroid may run now: it has one, or none is to be had.';

create or replace function tickets_ops.wake_geocoding() returns void language sql set search_path = pg_catalog, pg_temp as $$
  select tickets_ops.run_jobs_now(array_agg(j.id))
  from tickets_ops.queued_jobs() j
  where tickets_ops.is_geocoding(j.task) and j.run_at > now() and j.last_error is null;
$$;
comment on function tickets_ops.wake_geocoding() is 'Every geocoding job that waits, for whatever reason, may run now; it puts itself off again if it still has to wait.';
--! EndIncluded geocoding/snooze.sql
--! Included geocoding/budget.sql
-- When a provider may be asked: its rate and the budget of its day. One row decides for all workers together.
--
-- A call is made in three statements, each its own transaction, so that no lock is held while the network is awaited:
-- reserve_geocoding_call (when may I?), keep_geocoding_call when that moment has come (may I still?), and after the call
-- record_geocoding_call (what came of it: breaker.sql). src/geocoding/rate.ts asks them in turn.

create or replace function tickets_ops.next_utc_midnight() returns timestamptz language sql volatile
return (date_trunc('day', clock_timestamp() at time zone 'UTC') + interval '1 day') at time zone 'UTC';
comment on function tickets_ops.next_utc_midnight() is 'When the daily quotas come back.';

create or replace function tickets_ops.seconds_per_call(p_rate numeric) returns double precision language sql immutable parallel safe
-- Slots of exactly 1/rate let a call too many into a second, as seen by a provider, which counts with jitter.
return 1.03 / p_rate;
comment on function tickets_ops.seconds_per_call(numeric) is 'Seconds between two slots at a rate of so many calls a second: 3 percent more than the rate says.';

create or replace function tickets_ops.has_geocoding_worker() returns boolean
language plpgsql stable set search_path = pg_catalog, pg_temp as $$
begin
  return exists (
    select
    from tickets_ops.worker_states() w join tickets_ops.settings s using (pool_id)
    where s.name = 'GEOCODER_PROVIDER' and tickets_ops.is_living(w.state, w.seen_at)
  );
end
$$;
comment on function tickets_ops.has_geocoding_worker() is 'Whether a living worker has a provider to ask.';

create or replace function tickets_ops.register_geocoder(p_provider text, p_rate numeric, p_daily_budget integer, p_found_days numeric, p_off_reason text)
returns void language plpgsql set search_path = pg_catalog, pg_temp as $$
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
comment on function tickets_ops.register_geocoder(text, numeric, integer, numeric, text) is
  'A worker that starts says whom it asks: provider, calls a second, calls a day (NULL: no limit), days that a found place is kept; or no provider and the reason, which counts only while no living worker has one. A spent quota or a refused key is tried again, and the jobs that wait for it are woken.';

create or replace function tickets_ops.reserve_geocoding_call(p_provider text)
returns table (
  granted boolean, wait_ms double precision, reserved_at timestamptz, slot_at timestamptz, is_control boolean, reason text
)
language plpgsql set search_path = pg_catalog, pg_temp as $$
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
comment on function tickets_ops.reserve_geocoding_call(text) is
  'Reserves the next slot for one call to a provider, over all workers; call it in a transaction of its own. granted: make the call in wait_ms milliseconds (a delta, so that clocks need not agree), and reserve again if you wake much later. is_control: the provider is suspected, so ask it the control question, whatever you came for. Not granted: the budget is spent or the breaker is open; ask again in wait_ms. reserved_at and slot_at are this moment and the slot by the database''s clock.';

create or replace function tickets_ops.keep_geocoding_call(p_provider text, p_reserved_at timestamptz) returns boolean
language sql volatile set search_path = pg_catalog, pg_temp as $$
  with given_back as (
    update tickets_ops.geocoding_providers
    -- `used` counts one day; a call of yesterday is not today's.
    set used = greatest(0, used - (used_on = (p_reserved_at at time zone 'UTC')::date)::integer)
    where provider = p_provider and breaker_since > p_reserved_at
    returning 1
  )
  select not exists (select from given_back);
$$;
comment on function tickets_ops.keep_geocoding_call(text, timestamptz) is
  'Asked when the slot of a reservation has come: may the call still be made? False when the breaker opened meanwhile; then the call goes back to the budget of its day.';

create or replace function tickets_ops.return_geocoding_call(p_provider text, p_reserved_at timestamptz) returns void
language sql volatile set search_path = pg_catalog, pg_temp as $$
  update tickets_ops.geocoding_providers
  set used = used - 1
  where provider = p_provider and used > 0 and used_on = (p_reserved_at at time zone 'UTC')::date;
$$;
comment on function tickets_ops.return_geocoding_call(text, timestamptz) is
  'Gives a reserved call back to the budget of its day: it is not made, because its slot went by or the worker stops.';
--! EndIncluded geocoding/budget.sql
--! Included geocoding/questions.sql
-- What a geocoding job has to ask about one place. The job asks the provider then (src/geocoding/jobs.ts).

create or replace function tickets_ops.cluster_region(p_cluster text) returns text language sql stable
return (
  -- Relies on the indexes on cluster_key(cluster); a sample says it.
  select mode() within group (order by t.region)
  from (
    (select region from tickets.inc where tickets.cluster_key(cluster) = tickets.cluster_key(p_cluster) limit 1000)
    union all
    (select region from tickets.crq where tickets.cluster_key(cluster) = tickets.cluster_key(p_cluster) limit 1000)
  ) as t
);
comment on function tickets_ops.cluster_region(text) is 'The region that most of a cluster''s tickets name. NULL: none.';

create or replace function tickets_ops.cluster_name(p_cluster text) returns text language sql stable
return coalesce(
  tickets.known_spelling(p_cluster),
  (
    select mode() within group (order by t.name)
    from (
      (select tickets.cluster_spelling(cluster) as name from tickets.inc where tickets.cluster_key(cluster) = tickets.cluster_key(p_cluster) limit 1000)
      union all
      (select tickets.cluster_spelling(cluster) from tickets.crq where tickets.cluster_key(cluster) = tickets.cluster_key(p_cluster) limit 1000)
    ) as t
  ),
  case when tickets.cluster_key(p_cluster) is not null then tickets.cluster_spelling(p_cluster) end
);
comment on function tickets_ops.cluster_name(text) is 'A cluster as the gazetteers write it, else as most of its tickets do, else as it is given. NULL for an empty name.';

create or replace function tickets_ops.has_tickets(p_cluster text) returns boolean language sql stable
-- Relies on the indexes on cluster_key(cluster).
return exists (select from tickets.inc t where tickets.cluster_key(t.cluster) = tickets.cluster_key(p_cluster))
  or exists (select from tickets.crq t where tickets.cluster_key(t.cluster) = tickets.cluster_key(p_cluster));
comment on function tickets_ops.has_tickets(text) is 'Whether any ticket, open or closed, names the cluster.';

create or replace function tickets_ops.is_unknown_cluster(p_cluster text) returns boolean language sql stable
return tickets.known_spelling(p_cluster) is null and not tickets_ops.has_tickets(p_cluster);
comment on function tickets_ops.is_unknown_cluster(text) is 'Whether neither a ticket nor the gazetteers have the cluster: probably a slip of the pen, asked for by force only.';

create or replace function tickets_ops.cluster_name_key(p_cluster text) returns text language sql immutable parallel safe
return coalesce(tickets.location_key(p_cluster), lower(p_cluster));
comment on function tickets_ops.cluster_name_key(text) is 'A cluster''s name as the judge compares it: its location_key, or itself where that leaves nothing.';

create or replace function tickets_ops.cluster_question(p_cluster text, p_force boolean, p_provider text default null)
returns table (state text, cluster text, name text, region text, answered text[])
language plpgsql set search_path = pg_catalog, pg_temp as $$
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
comment on function tickets_ops.cluster_question(text, boolean, text) is
  'What a geocode_cluster job has to ask. state: ask, known (a centroid, or asked in vain lately), verified, unknown cluster, nothing to ask. name: the cluster as a provider may read it; region: of most of its tickets; answered: queries that p_provider has answered already. p_force asks although known.';

create or replace function tickets_ops.location_question(p_location_name text, p_cluster text, p_force boolean, p_provider text default null)
returns table (
  state text, cluster text, location_key text, name text, lat double precision, lng double precision, guard_km double precision,
  answered text[]
)
language plpgsql set search_path = pg_catalog, pg_temp as $$
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
comment on function tickets_ops.location_question(text, text, boolean, text) is
  'What a geocode_location job has to ask. state: ask, known (an answer that has not expired), verified, no centroid (the cluster comes first), unknown cluster, nothing to ask (no cluster, or a name of network codes only). name: what the provider reads; lat, lng, guard_km: of the cluster; answered: queries that p_provider has answered already. p_force asks although known.';
--! EndIncluded geocoding/questions.sql
--! Included geocoding/rescoring.sql
-- What follows when a centroid or a guard changes: the stored candidates are rescored, with no call to a provider.
-- Places that a person verified are judged by nobody.

create or replace function tickets_ops.judge_inherited(
  p_geom geometry, p_centre geometry, p_guard_km numeric, out status text, out distance_km numeric, out doubt text
)
language plpgsql immutable parallel safe set search_path = pg_catalog, pg_temp as $$
begin
  distance_km := tickets_ops.distance_km(p_centre, p_geom);
  status := case when distance_km > p_guard_km or not tickets.in_kenya(p_geom) then 'needs_review' else 'found' end;
  doubt := 'Taken over from the Python version: beyond the guard of this cluster, or outside Kenya.';
end
$$;
comment on function tickets_ops.judge_inherited(geometry, geometry, numeric) is
  'The verdict over a coordinate without candidates, which was taken over from the Python version: of the rules only the guard and the country can be applied to it. doubt: the note of one that needs review. p_centre NULL: without the guard.';

create or replace function tickets_ops.rescore_locations(p_cluster text) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
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
comment on function tickets_ops.rescore_locations(text) is 'Rescores a cluster''s places: judges their stored candidates against its present centroid and guard, without a call. Verified rows stay.';

create or replace function tickets_ops.cluster_changed() returns trigger
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
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
comment on function tickets_ops.cluster_changed() is 'Trigger: a centroid came or moved, or a guard was widened or narrowed; the cluster''s places are rescored and those that waited for it are planned and asked. Security definer: the one who corrects a centroid need not be allowed to touch jobs.';
--! EndIncluded geocoding/rescoring.sql
--! Included geocoding/planning.sql
-- Which places are to be asked, and the jobs for them.

create or replace function tickets_ops.places_to_geocode(p_clusters text[] default null)
returns table (
  task text, cluster text, location_key text, location_name text, tickets bigint, newest_at timestamptz, reason text, has_centroid boolean
)
language plpgsql stable set search_path = pg_catalog, pg_temp as $$
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
comment on function tickets_ops.places_to_geocode(text[]) is
  'Clusters and places of the actionable tickets of all datasets that are on (tickets.open_places) that are unknown or whose answer has expired, clusters first, then by newest ticket and number of tickets. p_clusters: only those. A place without has_centroid waits for its cluster; where that was asked in vain lately, or a person took its centroid away, it is not listed. Tickets with coordinates of their own, or without a cluster, need none.';

create or replace function tickets_ops.planning_lock() returns bigint language sql immutable parallel safe
return 7405120260616;
comment on function tickets_ops.planning_lock() is 'Key of the advisory lock of transactions that plan geocoding: two at once would add jobs of the same places in two orders, and each wait for the other.';

create or replace function tickets_ops.plan_geocoding(p_clusters text[] default null) returns integer
language plpgsql set search_path = pg_catalog, pg_temp as $$
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
comment on function tickets_ops.plan_geocoding(text[]) is
  'Adds one job per unknown or expired cluster and place of actionable tickets, of all datasets that are on, unless one waits already, and tries those again that failed a day ago; finalize_snapshot and fleettickets_maintain call it, and a centroid that comes, for its cluster (p_clusters). Returns how many. Call it with the gazetteer lock (tickets.gazetteer_lock) shared: a place planned while its centroid is being written would wait for it in vain. Does nothing without a provider.';
--! EndIncluded geocoding/planning.sql
--! Included jobs/job-list.sql
-- Which jobs there are, for operators.
--
-- graphile-worker's tables are private: they have row security and no grants, so a role that does not own them sees nothing.
-- What operators use is therefore built on security definer functions with a pinned search_path. And on functions, not on
-- views of its tables: a view would keep that library's own migrations from changing them. For the same reason the
-- functions' bodies are texts, which bind to nothing.

create or replace function tickets_ops.worker_schema_is_shared() returns boolean language sql stable
return coalesce(tickets_ops.setting('WORKER_SCHEMA_SHARED') = 'true', false);
comment on function tickets_ops.worker_schema_is_shared() is 'Whether another application has jobs in the same schema (setting WORKER_SCHEMA_SHARED): then jobs of tasks that are not ours are nobody''s business here.';

-- Inlined into the query that asks, so that one job is found by index among 200 000.
create or replace function tickets_ops.described_jobs()
returns table (
  id bigint, task text, key text, payload jsonb, queue text, priority integer, state text, run_at timestamptz, attempts integer,
  max_attempts integer, last_error text, locked_by text, age interval, failed_at timestamptz, superseded text
)
language sql stable
begin atomic
  select
    j.id, j.task, j.key, r.payload, j.queue, j.priority, s.state, j.run_at, j.attempts, j.max_attempts,
    case when p.task is not null then j.last_error end, j.locked_by, date_trunc('second', now() - j.created_at), f.failed_at,
    case when s.state = 'failed' then
      case
        when j.task = 'fetch_snapshot' and r.request ->> 'dataset' = 'crq' and 'crq' not in (select tickets.datasets()) then
          format('%s is off.', r.request ->> 'dataset')
        -- But of snapshots a look that is no backfill passes over what the backfill was to load.
        when j.task = 'fetch_snapshot' and m.checked_at > f.failed_at
          and (r.request ->> 'backfill' is distinct from 'true' or tickets_ops.feed(coalesce(r.request ->> 'dataset', 'inc')) = 'changes') then
          format('The bucket was looked at again on %s.', tickets_ops.wall_clock(m.checked_at))
        when l.newer is not null then format('Snapshot %s came after it.', l.newer)
        when l.status <> 'failed' and not l.in_flight then format('Snapshot %s is %s.', l.snapshot_id, l.status)
      end
    end
  from tickets_ops.queued_jobs(p_unknown_too := true) j
  left join tickets_ops.job_policy() p on p.task = j.task
  -- Each computed once, and not at all where nobody asks for it.
  cross join lateral (
    select
      -- Another application's, perhaps: what it tells its workers is not for our operators.
      case when p.task is not null then tickets_ops.parsed_payload(j.payload) end as payload,
      case when j.task in ('fetch_snapshot', 'upsert_batch', 'finalize_snapshot') then tickets_ops.parsed_payload(j.payload) end as request
    offset 0
  ) as r
  cross join lateral (
    select case when p.task is null then 'unknown task' else j.state end as state
  ) as s
  -- graphile-worker keeps no time of failure, but puts run_at that far beyond it, and so does unlock_pools. updated_at moves
  -- whenever the key goes to a new job.
  cross join lateral (
    select case when s.state = 'failed' then
      greatest(j.created_at, j.run_at - exp(least(j.attempts, 10)) * interval '1 second')
    end as failed_at
  ) as f
  left join lateral (
    select tickets.eat_ts(i.metadata ->> 'checked_at') as checked_at
    from tickets.import_meta i where i.dataset = coalesce(r.request ->> 'dataset', 'inc')
  ) as m on s.state = 'failed' and j.task = 'fetch_snapshot'
  left join lateral (
    select
      n.snapshot_id, n.status, n.in_flight,
      (select min(x.snapshot_id) from tickets_ops.snapshots x where x.dataset = n.dataset and x.load_began_at > n.load_began_at) as newer
    from tickets_ops.snapshots n
    where n.snapshot_id = case when r.request ->> 'snapshot_id' ~ '^[0-9]{1,18}$' then (r.request ->> 'snapshot_id')::bigint end
  ) as l on s.state = 'failed' and j.task in ('upsert_batch', 'finalize_snapshot')
  where p.task is not null or not (select tickets_ops.worker_schema_is_shared());
end;
comment on function tickets_ops.described_jobs() is 'The jobs of the pipeline in the words of tickets_ops.jobs and tickets_ops.failed_jobs; where no other application shares their schema, also those of tasks that no worker of ours has. With the caller''s rights: only the owner sees any.';

create or replace function tickets_ops.list_jobs()
returns table (
  id bigint, task text, key text, payload jsonb, queue text, priority integer, state text, run_at timestamptz, attempts integer,
  max_attempts integer, last_error text, locked_by text, age interval, failed_at timestamptz, superseded text
)
language sql stable security definer set search_path = pg_catalog, pg_temp as $$
  select * from tickets_ops.described_jobs()
$$;
comment on function tickets_ops.list_jobs() is 'tickets_ops.described_jobs with the owner''s rights, for tickets_ops.jobs and tickets_ops.failed_jobs.';
--! EndIncluded jobs/job-list.sql
--! Included jobs/retry.sql
-- What an operator does with a job: try it again, or cancel it.

create or replace function tickets_ops.revive_job(p_id bigint) returns text
language plpgsql set search_path = pg_catalog, pg_temp as $$
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
$$;
comment on function tickets_ops.revive_job(bigint) is 'Makes a waiting or failed job due now, with all its attempts; a failed load job together with those of its snapshot that failed, a failed fetch_snapshot with the file that it could not read. Returns why it cannot, else NULL.';

create or replace function tickets_ops.retry_job(p_id bigint)
returns table (job_id bigint, task text, job_key text, note text)
language plpgsql security definer set search_path = pg_catalog, pg_temp set lock_timeout = '10s' as $$
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
comment on function tickets_ops.retry_job(bigint) is 'Tries a failed job again now, or a waiting one at once, with all its attempts: select * from tickets_ops.retry_job(17). A load job reopens its snapshot, with all its jobs. Raises when there is no such job, when it is running, when its snapshot cannot be reopened (a newer one superseded it), and when others hold its rows for ten seconds.';

create or replace function tickets_ops.request_of(p_payload jsonb) returns jsonb language sql immutable parallel safe
return case jsonb_typeof(p_payload) when 'object' then p_payload - array['waits', 'looks', '_cron'] else p_payload end;
comment on function tickets_ops.request_of(jsonb) is 'What a payload asks for, without what the schedule and waiting add to it.';

create or replace function tickets_ops.require_task(p_task text) returns void
language plpgsql stable set search_path = pg_catalog, pg_temp as $$
begin
  if p_task is not null and not exists (select from tickets_ops.job_policy(p_task)) then
    raise exception 'There is no task %.', quote_literal(p_task)
      using errcode = 'invalid_parameter_value', hint = 'Choose ' || (select string_agg(task, ', ' order by task) from tickets_ops.job_policy()) || '.';
  end if;
end
$$;
comment on function tickets_ops.require_task(text) is 'Raises, and names the tasks that there are, where p_task is none of them. NULL passes.';

create or replace function tickets_ops.retry_failed(p_task text default null)
returns table (job_id bigint, task text, job_key text, note text)
language plpgsql security definer set search_path = pg_catalog, pg_temp set lock_timeout = '10s' as $$
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
comment on function tickets_ops.retry_failed(text) is 'Tries every failed job again, or those of one task: select * from tickets_ops.retry_failed(''geocode_location''). Returns each with what became of it; those that no longer matter, or that a later job repeats, are left alone. Raises when others hold their rows for ten seconds.';

create or replace function tickets_ops.jobs_of_snapshot(p_snapshot_id bigint) returns bigint[]
language sql stable set search_path = pg_catalog, pg_temp as $$
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
comment on function tickets_ops.jobs_of_snapshot(bigint) is 'The ids of the load jobs of a snapshot that are there, by their keys. Empty for NULL.';

create or replace function tickets_ops.cancel_job(p_id bigint) returns text
language plpgsql security definer set search_path = pg_catalog, pg_temp set lock_timeout = '10s' as $$
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
$$;
comment on function tickets_ops.cancel_job(bigint) is 'Removes a waiting or failed job, and says so. A running one cannot be stopped, but is not tried again. A job of a snapshot in flight takes the snapshot with it, which becomes failed. Raises when there is no such job, and when others hold its rows for ten seconds.';
--! EndIncluded jobs/retry.sql
--! Included jobs/on-demand.sql
-- What a person asks for, ahead of all that is planned: a look at the bucket, the place of a cluster or location.

create or replace function tickets_ops.fetch_now(dataset text default 'inc', force boolean default false)
returns table (job_id bigint, job_key text, already_waiting boolean, note text)
language plpgsql security definer set search_path = pg_catalog, pg_temp set lock_timeout = '10s' as $$
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
comment on function tickets_ops.fetch_now(text, boolean) is 'Looks at the bucket now: select * from tickets_ops.fetch_now(). force: loads the newest file again, although it is unchanged, failed or archived; of a feed of changes the one that stops those behind it, where one does. Returns the job''s id and key, whether such a job waited already, and a note. Raises for a dataset other than inc and crq, and when others hold the job for ten seconds.';

create or replace function tickets_ops.enqueue_on_demand(p_task text, p_key text, p_payload jsonb, p_force boolean, p_known text)
returns table (job_id bigint, job_key text, already_waiting boolean, note text)
language plpgsql set search_path = pg_catalog, pg_temp set lock_timeout = '10s' as $$
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
comment on function tickets_ops.enqueue_on_demand(text, text, jsonb, boolean, text) is 'Adds or promotes the job that a person asked for, ahead of planned ones. p_known: the state of the question, for the note; for an unknown cluster there is no job. Raises when a worker takes the job in the same moment, and when others hold it for ten seconds.';

create or replace function tickets.geocode_cluster(cluster text, force boolean default false)
returns table (job_id bigint, job_key text, already_waiting boolean, note text)
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
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
comment on function tickets.geocode_cluster(text, boolean) is
  'Asks the provider where a cluster is, ahead of all planned places. force: although its centroid is known; never when a person verified it; also a cluster that no ticket and no gazetteer has. Returns the job''s id (NULL: nothing is asked) and key (a job that waits gets a new id, the key stays; see tickets_ops.jobs), whether a job for it waited already, and a note. Raises without a cluster.';

create or replace function tickets.geocode_location(location_name text, cluster text, force boolean default false)
returns table (job_id bigint, job_key text, already_waiting boolean, note text)
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
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
comment on function tickets.geocode_location(text, text, boolean) is
  'Asks the provider where a place of a cluster is, ahead of all planned ones: select * from tickets.geocode_location(''NW_Kilimani_FDT3'', ''Kilimani''). location_name as field staff typed it. force: although an answer is known, or no ticket and no gazetteer has the cluster; never when a person verified it. Returns the job''s id (NULL: nothing is asked) and key (a job that waits gets a new id, the key stays; see tickets_ops.jobs), whether a job for it waited already, and a note. Raises without a cluster, or when nothing but network codes is left of the name.';
--! EndIncluded jobs/on-demand.sql
--! Included operations/recorded-settings.sql
-- Settings of the processes that SQL goes by as well. A process records those that its environment gives it; one without
-- goes by what is recorded.

create or replace function tickets_ops.record_settings(p_pool_id text, p_settings jsonb) returns void
language sql set search_path = pg_catalog, pg_temp as $$
  -- Of a process that is forgotten only what still stands is kept.
  delete from tickets_ops.settings s
  where s.pool_id not in (select w.pool_id from tickets_ops.workers w)
    and exists (select from tickets_ops.settings n where n.name = s.name and n.recorded_at > s.recorded_at);
  insert into tickets_ops.settings (name, pool_id, value)
  select key, p_pool_id, value from jsonb_each_text(p_settings)
  on conflict (name, pool_id) do update set value = excluded.value, recorded_at = now();
$$;
comment on function tickets_ops.record_settings(text, jsonb) is 'A worker pool that has just registered records the settings that its environment gives it, as an object of texts.';

create or replace function tickets_ops.setting(p_name text) returns text language sql stable set search_path = pg_catalog, pg_temp
return (
  select s.value
  from tickets_ops.settings s
  left join tickets_ops.workers w using (pool_id)
  -- Not tickets_ops.is_living: nearly every statement asks for a setting, and worker_states() reads all locks of the server.
  cross join lateral (
    select coalesce(w.stopped_at is null and w.declared_dead_at is null and w.seen_at > now() - tickets_ops.hung_after(), false) as runs
  ) as process
  where s.name = p_name -- primary key
  -- A run by hand that was told otherwise leaves nothing behind, as the worker ran longer.
  order by process.runs desc, case when not process.runs then coalesce(w.seen_at, s.recorded_at) end desc, s.recorded_at desc
  limit 1
);
comment on function tickets_ops.setting(text) is 'The value of a setting as recorded by the process that started last of those that run and have it; where none of these runs, by the one that was heard of last. NULL: no process ever had one, and the default stands.';

create or replace function tickets_ops.setting_problems() returns table (severity text, problem text)
language sql stable set search_path = pg_catalog, pg_temp as $$
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
comment on function tickets_ops.setting_problems() is 'Settings that processes which run at the same time have with different values.';
--! EndIncluded operations/recorded-settings.sql
--! Included dispatch/vehicles.sql
-- Vehicles: the tracker's table as the operator's view shows it, the words for how far a position may be believed, and their counts.

-- The operator's view is read here only, by a text that is parsed when it runs: what depends on it would go with it when the
-- tracker's owner drops his table with CASCADE. With the caller's rights, so no function of others runs with ours.
create or replace function tickets.tracked_vehicles()
returns table (
  vehicle_id text, label text, team text, lng double precision, lat double precision, located_at timestamptz,
  seen_at timestamptz, moving boolean, speed_kmh double precision, source text
)
language plpgsql stable rows 200 set search_path = pg_catalog, pg_temp as $$
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
comment on function tickets.tracked_vehicles() is 'tickets.vehicles, with one row for each vehicle even where that view has several: the newest position. Times of infinity are NULL.';

create or replace function tickets.lng_lat(p_lng double precision, p_lat double precision) returns geography
language sql immutable parallel safe
return case
  -- geography would wrap what is out of range, and keep NaN.
  when p_lng between -180 and 180 and p_lat between -90 and 90 then st_setsrid(st_makepoint(p_lng, p_lat), 4326)::geography
end;
comment on function tickets.lng_lat(double precision, double precision) is 'The point at a longitude and latitude, WGS 84 degrees. NULL when one of them is missing, out of range or NaN.';

create or replace function tickets.freshnesses() returns text[]
language sql immutable parallel safe
return array['live', 'parked', 'stale', 'lost', 'clock', 'nowhere'];
comment on function tickets.freshnesses() is 'What tickets.vehicles_now.freshness may be, the most trustworthy first.';

create or replace function tickets.is_usable(p_freshness text, p_stale boolean default false) returns boolean
language sql immutable parallel safe
return p_freshness = any (case when p_stale then array['live', 'parked', 'stale'] else array['live', 'parked'] end);
comment on function tickets.is_usable(text, boolean) is 'Whether a plan may send a vehicle of that freshness somewhere: live and parked ones, and stale ones where that is asked for (p_stale).';

create or replace function tickets.vehicle_name(p_label text, p_vehicle_id text) returns text
language sql immutable parallel safe
return coalesce(nullif(p_label, ''), p_vehicle_id);
comment on function tickets.vehicle_name(text, text) is 'What people call a vehicle: its label, else its id.';

create or replace function tickets_ops.foreign_vehicle_code() returns text language sql stable set search_path = pg_catalog, pg_temp as $$
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
comment on function tickets_ops.foreign_vehicle_code() is 'Functions, views and row security of others that reading tickets.vehicles runs, with the rights of the role that reads it. NULL: none, as it should be.';

-- For health and metrics, which anybody's monitor asks every few seconds: so it waits for no lock, and runs nothing of others.
create or replace function tickets_ops.count_vehicles()
returns table (freshness text, vehicles bigint, severity text, trouble text)
language plpgsql stable set search_path = pg_catalog, pg_temp set lock_timeout = '200ms' set row_security = off as $$
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
comment on function tickets_ops.count_vehicles() is 'Vehicles by their freshness (tickets.vehicles_now); or one row that says why they cannot be counted: severity fault where a person must mend tickets.vehicles, warning where it would run what others made, NULL where it is a matter of a moment (a lock).';
--! EndIncluded dispatch/vehicles.sql
--! Included dispatch/distances.sql
-- Distances: straight lines on the WGS 84 spheroid, on a sphere, which is quicker, and what a line may be on the road.

create or replace function tickets.metres(p_from geography, p_to geography) returns double precision
language sql immutable parallel safe
return st_distance(p_from, p_to);
comment on function tickets.metres(geography, geography) is 'Metres of the straight line between two points, on the WGS 84 spheroid.';

-- Inlined, all of them: a plan asks them for each pair of vehicle and ticket.
create or replace function tickets_ops.sphere_error() returns double precision
language sql immutable parallel safe
return 0.006;
comment on function tickets_ops.sphere_error() is 'By what share the distance of two points on a sphere may differ from that on the WGS 84 spheroid: 0.57 % at most, and a little for rounding.';

create or replace function tickets_ops.sphere_metres(p_from geography, p_to geography) returns double precision
language sql immutable parallel safe
return p_from <-> p_to;
comment on function tickets_ops.sphere_metres(geography, geography) is 'Metres between two points on a sphere: a quarter of the time that tickets.metres takes, and near it (tickets_ops.sphere_error).';

create or replace function tickets_ops.within_reach(p_from geography, p_to geography, p_radius double precision) returns boolean
language sql immutable parallel safe
return (p_from <-> p_to) <= p_radius * (1 - tickets_ops.sphere_error())
  or ((p_from <-> p_to) <= p_radius * (1 + tickets_ops.sphere_error()) and st_distance(p_from, p_to) <= p_radius);
comment on function tickets_ops.within_reach(geography, geography, double precision) is 'Whether two points are at most p_radius metres apart, in a straight line on the WGS 84 spheroid. Looks on a sphere first, which mostly says so.';

create or replace function tickets.road_estimate(
  p_metres double precision, out road_km_estimate numeric, out minutes_estimate numeric
)
language sql stable
begin atomic
  select
    round((p_metres * s.detour / 1000)::numeric, 2),
    round((p_metres * s.detour / 1000 / s.speed_kmh * 60)::numeric, 1)
  from tickets.dispatch_settings s;
end;
comment on function tickets.road_estimate(double precision) is 'What a straight line of so many metres may be on the road: kilometres (metres × detour / 1000) and minutes at the speed of tickets.dispatch_settings. An estimate, no routing.';
--! EndIncluded dispatch/distances.sql
--! Included dispatch/costs.sql
-- What a way costs: the kilometres (the straight line times detour) less a bonus for the ticket's SLA. Detour, bonuses and
-- the radius are the row of tickets.dispatch_settings: to weigh them otherwise is an UPDATE (docs/dispatch.md).

-- No index: of the tickets that it holds a plan is about few. In plpgsql, as is what follows, because a function in SQL is
-- planned anew in each of the hundreds of calls, which takes longer than it runs.
create or replace function tickets_ops.cheapest_tickets(
  p_from geography, p_team text, p_limit integer, p_km_per_metre double precision, p_radius double precision, p_bonus double precision,
  p_places geography[], p_teams text[], p_bonuses double precision[], p_taken boolean[],
  out tickets integer[], out metres double precision[], out costs double precision[], out beyond double precision
)
language plpgsql stable set search_path = pg_catalog, pg_temp set plan_cache_mode = force_generic_plan as $$
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
comment on function tickets_ops.cheapest_tickets(geography, text, integer, double precision, double precision, double precision, geography[], text[], double precision[], boolean[]) is 'Tickets that cost least from a place, cheapest first: p_limit of them, found by distances on a sphere, with true metres and costs. Any other costs at least beyond (Infinity: there is no other), which may be less than the list''s last. The tickets are those in the arrays that are not taken (p_taken NULL: all), by number, within p_radius metres. p_team: only those of that team; NULL: of any. p_bonus: the largest of p_bonuses, km.';

create or replace function tickets_ops.costs_from(
  p_from geography, p_tickets integer[], p_km_per_metre double precision, p_radius double precision, p_places geography[],
  p_bonuses double precision[], p_taken boolean[], out tickets integer[], out metres double precision[], out costs double precision[]
)
language plpgsql stable set search_path = pg_catalog, pg_temp set plan_cache_mode = force_generic_plan as $$
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
comment on function tickets_ops.costs_from(geography, integer[], double precision, double precision, geography[], double precision[], boolean[]) is 'What these tickets (numbers in the arrays p_places, p_bonuses and p_taken) cost from a place, cheapest first; those that are taken or beyond p_radius metres are left out.';
--! EndIncluded dispatch/costs.sql
--! Included dispatch/matching.sql
-- The assignment problem: rows to columns, each at most once, as many as possible, then at the least total cost. Exact, and
-- pure: nothing here knows vehicles or tickets.

-- Shortest augmenting paths (Jonker and Volgenant, 1987). The rows come in one by one. A new one looks for the shortest path
-- to a free column over the pairs' reduced costs (cost less both potentials, never negative), and every row on that path
-- changes its column. A path may also end by leaving a row unmatched, which costs more than any matching can save.
-- A free column's potential is 0 and no column's is positive. So of a row's pairs, in the order of their cost, only those need
-- a look whose cost alone is less than the best path so far.
-- Their column and augmenting row reductions, which settle most rows elsewhere, are left out: of 151 tickets that 150 vehicles in a
-- depot compete for they left 92 to be searched for, and 4 883 of 5 252 looks at a row.
-- Over 100 lines: one loop of one algorithm, whose arrays would have to be handed to and fro.
create or replace function tickets_ops.shortest_augmenting_paths(
  p_last integer[], p_column integer[], p_cost double precision[], p_columns integer, p_unmatched double precision,
  out column_of integer[], out row_potential double precision[]
)
language plpgsql immutable parallel safe set search_path = pg_catalog, pg_temp as $$
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
comment on function tickets_ops.shortest_augmenting_paths(integer[], integer[], double precision[], integer, double precision) is 'For each row its column, 0 for none, and its potential: no row pays more than that, and a column to which it lists no pair, costing more, would not better the matching. The pairs of row i are those up to p_last[i], after those of row i - 1, sorted by cost; p_unmatched: what leaving a row unmatched costs, more than any matching can save. Time is spent where rows compete: prefer as rows what comes cheapest first. Called by tickets_ops.min_cost_matching.';

create or replace function tickets_ops.unmatched_cost(p_rows bigint, p_least double precision, p_most double precision) returns double precision
language sql immutable parallel safe
return p_most + p_rows * (p_most - p_least) + abs(p_most) + 1;
comment on function tickets_ops.unmatched_cost(bigint, double precision, double precision) is 'What leaving a row unmatched costs (p_unmatched of tickets_ops.shortest_augmenting_paths): more than any matching of p_rows rows can save whose pairs cost from p_least to p_most.';

-- Each node of the smaller side needs only its n cheapest pairs (n: its size), because the others take n - 1 columns at most: a
-- costlier pair of a best matching can always be exchanged for a free one of the n. True with forbidden pairs too.
-- Which side comes in row by row changes the time only: the smaller one, unless most of it wants the same columns (its n
-- cheapest pairs reach fewer than 2 n). Then the columns, cheapest first (measured at 200 × 2 000: 0.02 against 0.15 s with
-- vehicles spread out, 0.5 against 0.2 s with all in one depot).
create or replace function tickets_ops.min_cost_matching(p_row integer[], p_column integer[], p_cost double precision[])
returns table (row_no integer, column_no integer)
language plpgsql immutable parallel safe set search_path = pg_catalog, pg_temp as $$
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
comment on function tickets_ops.min_cost_matching(integer[], integer[], double precision[]) is 'The matching of rows and columns with as many pairs as possible, and of these the one with the least total cost. The arguments list the allowed pairs, each once: row and column by number, from 1, and its cost, which is finite. Equal input gives equal output.';

create or replace function tickets_ops.min_cost_assignment(p_costs double precision[], p_rows integer, p_columns integer)
returns integer[] language plpgsql immutable parallel safe set search_path = pg_catalog, pg_temp as $$
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
comment on function tickets_ops.min_cost_assignment(double precision[], integer, integer) is 'The assignment problem for a whole matrix: costs row by row, Infinity (or NULL, NaN) for a pair that is forbidden. The result has p_rows elements: the column of each row, from 1, or 0 for none. As many rows as possible get one, then the total cost is the least possible. Errors: the number of costs is not p_rows × p_columns; a cost beyond 1e100.';
--! EndIncluded dispatch/matching.sql
--! Included dispatch/one-ticket-each.sql
-- One ticket for each vehicle: the exact optimum, by the assignment problem of matching.sql.

-- Where vehicles are spread out, each goes to one of its cheapest few tickets. The potentials of the matching prove it: what a
-- vehicle pays in it is less than what any ticket costs that is not in its list. Nothing is returned where they do not.
create or replace function tickets_ops.plan_of_few(
  p_few integer, p_starts geography[], p_vehicle_teams text[], p_places geography[], p_bonuses double precision[], p_teams text[],
  p_km_per_metre double precision, p_radius double precision
)
returns table (vehicle integer, ticket integer)
language plpgsql stable set search_path = pg_catalog, pg_temp set jit = off as $$
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
comment on function tickets_ops.plan_of_few(integer, geography[], text[], geography[], double precision[], text[], double precision, double precision) is 'The plan of tickets_ops.plan_optimum, whose arguments it has, from each vehicle''s p_few cheapest tickets; no rows where one from more of them may be better.';

-- Only each vehicle's n cheapest tickets matter (n: the smaller of the two numbers; see tickets_ops.min_cost_matching).
create or replace function tickets_ops.plan_of_many(
  p_starts geography[], p_vehicle_teams text[], p_places geography[], p_bonuses double precision[], p_teams text[],
  p_km_per_metre double precision, p_radius double precision
)
returns table (vehicle integer, ticket integer)
language plpgsql stable set search_path = pg_catalog, pg_temp set jit = off as $$
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
comment on function tickets_ops.plan_of_many(geography[], text[], geography[], double precision[], text[], double precision, double precision) is 'The plan of tickets_ops.plan_optimum, whose arguments it has, from all tickets that may be in it.';

create or replace function tickets_ops.plan_optimum(
  p_starts geography[], p_vehicle_teams text[], p_places geography[], p_bonuses double precision[], p_teams text[],
  p_km_per_metre double precision, p_radius double precision
)
returns table (vehicle integer, "position" integer, ticket integer, metres double precision, cost_km double precision)
language plpgsql stable set search_path = pg_catalog, pg_temp set jit = off as $$
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
comment on function tickets_ops.plan_optimum(geography[], text[], geography[], double precision[], text[], double precision, double precision) is 'The plan for one ticket each, vehicles and tickets by their number in the arrays: as many tickets as possible, then the least total cost_km. p_vehicle_teams, p_teams: NULL where teams do not matter. p_radius: metres, the longest way. Called by tickets.dispatch_plan.';
--! EndIncluded dispatch/one-ticket-each.sql
--! Included dispatch/plan-input.sql
-- What a plan is about: which vehicles, with how much room, and which tickets, with what their SLA is worth.

create or replace function tickets_ops.dispatch_vehicles(p_capacity integer, p_vehicles text[], p_stale boolean)
returns table (
  no integer, vehicle_id text, team text, geog geography, freshness text, age interval, room integer, last_position integer
)
language sql stable
begin atomic
  select
    (row_number() over (order by v.vehicle_id))::integer, v.vehicle_id, tickets.team_key(v.team),
    coalesce(held.last_place, v.geog), v.freshness, v.age, p_capacity - v.open_assignments, coalesce(held.last_position, 0)
  from tickets.vehicles_now v
  left join lateral (
    select
      max(a.position) as last_position,
      (array_agg(t.geog order by a.position desc) filter (where t.geog is not null))[1] as last_place
    from tickets.assignments a left join tickets.inc t on t.ticket_id = a.ticket_id
    where a.vehicle_id = v.vehicle_id and a.state = 'assigned' -- index assignments_in_order
  ) as held on v.open_assignments > 0
  where tickets.is_usable(v.freshness, p_stale)
    and v.open_assignments < p_capacity
    and (p_vehicles is null or v.vehicle_id = any (p_vehicles));
end;
comment on function tickets_ops.dispatch_vehicles(integer, text[], boolean) is 'The vehicles that a plan may send somewhere, numbered by id: usable ones (p_stale: stale ones too) with fewer assignments than p_capacity. geog: where it starts, which is at the last ticket that it is assigned to. team: its tickets.team_key. room: tickets that it may still take. last_position: of its tickets, 0 for none.';

create or replace function tickets_ops.dispatch_tickets(p_region text, p_cluster text, p_tickets text[])
returns table (
  no integer, ticket_id text, team text, geog geography, bonus_km double precision, sla_state text, at_risk boolean, geo_source text
)
language sql stable
begin atomic
  select
    (row_number() over (order by t.ticket_id))::integer, t.ticket_id, tickets.team_key(t.assigned_team), t.geog,
    case when t.at_risk then s.at_risk_bonus_km when t.sla_state = 'breached' then s.breached_bonus_km else 0 end,
    t.sla_state, t.at_risk, t.geo_source
  from tickets.inc_open_sla t
  cross join tickets.dispatch_settings s
  where tickets.is_of(t.cluster, t.region, t.assigned_team, p_cluster, p_region, null)
    and (p_tickets is null or t.ticket_id = any (p_tickets))
    and not exists (select from tickets.assignments a where a.ticket_id = t.ticket_id and a.state = 'assigned');
end;
comment on function tickets_ops.dispatch_tickets(text, text, text[]) is 'The open tickets that no vehicle is assigned to, numbered by id, those without a place too. team: its tickets.team_key. bonus_km: by how much it counts as nearer: one that can still be saved from a breach more than one that is breached (tickets.dispatch_settings).';
--! EndIncluded dispatch/plan-input.sql
--! Included dispatch/nearest.sql
-- Nearest vehicles of a ticket, nearest tickets of a vehicle, tickets around a point. Metres are straight lines on the WGS 84
-- spheroid. Everything here reads with the caller's rights. Compiling these queries (jit) would take longer than they do.

-- By the index (inc_open_geog) tickets come in the order of their distance on a sphere, which differs a little (tickets_ops.sphere_error): so
-- the first of them only say how far the answer reaches, and all within that distance are sorted. It also brings all the
-- tickets at the last one's place, of which the index gives any.
create or replace function tickets.open_tickets_near(
  p_point geography, p_limit integer, p_radius_km double precision, p_unassigned boolean
)
returns table (
  ticket_id text, metres double precision, road_km_estimate numeric, minutes_estimate numeric, sla_state text,
  at_risk boolean, hours_open numeric, assigned_team text, cluster text, location_name text, geo_source text, assigned_to text
)
language sql stable
begin atomic
  with nearest as materialized (
    select max(st_distance(k.geog, p_point)) as metres
    from (
      select t.geog
      from tickets.inc_open_sla t
      where t.geog is not null
        and not (p_unassigned and exists (select from tickets.assignments a where a.ticket_id = t.ticket_id and a.state = 'assigned'))
      order by t.geog <-> p_point
      limit p_limit
    ) as k
  )
  select
    t.ticket_id, st_distance(t.geog, p_point) as metres, e.road_km_estimate, e.minutes_estimate, t.sla_state, t.at_risk,
    t.hours_open, t.assigned_team, t.cluster, t.location_name, t.geo_source, held.vehicle_id
  from tickets.inc_open_sla t
  cross join lateral tickets.road_estimate(st_distance(t.geog, p_point)) as e
  left join tickets.assignments held on held.ticket_id = t.ticket_id and held.state = 'assigned'
  where st_dwithin(t.geog, p_point, (
      select least(
        -- st_distance rounds to 10 nm, st_dwithin does not.
        case when p_limit is not null then (select n.metres + 0.001 from nearest n) end,
        coalesce(p_radius_km, case when p_limit is null then s.radius_km end) * 1000
      )
      from tickets.dispatch_settings s
    ))
    and not (p_unassigned and held.vehicle_id is not null)
  -- Of two at one distance the real place comes before the centroid of a cluster.
  order by metres, t.geo_source = 'cluster', t.ticket_id
  limit p_limit;
end;
comment on function tickets.open_tickets_near(geography, integer, double precision, boolean) is 'The open tickets around a point, nearest first: at most p_limit of them (NULL: all) within p_radius_km (NULL: without p_limit the radius of tickets.dispatch_settings, else any distance). What tickets.nearest_tickets and tickets.tickets_within return; call those, which check the point.';

create or replace function tickets.nearest_tickets(
  p_vehicle_id text, p_limit integer default 10, p_radius_km double precision default null, p_unassigned boolean default true
)
returns table (
  ticket_id text, metres double precision, road_km_estimate numeric, minutes_estimate numeric, sla_state text,
  at_risk boolean, hours_open numeric, assigned_team text, cluster text, location_name text, geo_source text, assigned_to text
)
language plpgsql stable set search_path = pg_catalog, pg_temp set jit = off as $$
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
comment on function tickets.nearest_tickets(text, integer, double precision, boolean) is 'The open tickets nearest to a vehicle, at most p_limit, within p_radius_km (default: any distance). p_unassigned (default true): only those that no vehicle is assigned to; assigned_to says which. metres are a straight line; road_km_estimate and minutes_estimate follow from it (tickets.dispatch_settings). geo_source cluster: the ticket lies somewhere in that cluster. Ties: real places first, then by id. Errors: there is no such vehicle; a limit or radius that makes no sense. A vehicle nowhere: no rows and a notice.';

create or replace function tickets.tickets_within(p_lng double precision, p_lat double precision, p_radius_km double precision)
returns table (
  ticket_id text, metres double precision, road_km_estimate numeric, minutes_estimate numeric, sla_state text,
  at_risk boolean, hours_open numeric, assigned_team text, cluster text, location_name text, geo_source text, assigned_to text
)
language plpgsql stable set search_path = pg_catalog, pg_temp set jit = off as $$
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
comment on function tickets.tickets_within(double precision, double precision, double precision) is 'All open tickets within p_radius_km (NULL: the radius of tickets.dispatch_settings) of a point in WGS 84 degrees, nearest first, assigned or not. Columns as in tickets.nearest_tickets. Errors: the point is missing or out of range; a radius that makes no sense.';

-- Over all vehicles: they are hundreds, in somebody else's table, which may have no index on the position.
create or replace function tickets.nearest_vehicles(
  p_ticket_id text, p_limit integer default 5, p_radius_km double precision default null, p_stale boolean default false
)
returns table (
  vehicle_id text, label text, team text, metres double precision, road_km_estimate numeric, minutes_estimate numeric,
  freshness text, located_at timestamptz, age interval, open_assignments integer
)
language plpgsql stable set search_path = pg_catalog, pg_temp set jit = off as $$
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
comment on function tickets.nearest_vehicles(text, integer, double precision, boolean) is 'The usable vehicles nearest to an open ticket, at most p_limit, within p_radius_km (default: any distance). p_stale: also those located up to stale_hours ago. metres are a straight line; road_km_estimate and minutes_estimate follow from it (tickets.dispatch_settings). Ties by id. Errors: there is no such open ticket; a limit or radius that makes no sense. A ticket without a place: no rows and a notice.';
--! EndIncluded dispatch/nearest.sql
--! Included dispatch/assignments.sql
-- Assignments: who has been sent where. A ticket has one vehicle at most: the unique index assignments_one_vehicle decides, so
-- of two dispatchers one loses, and is told who has it. A vehicle's tickets are in order: the unique index assignments_in_order.

-- With its owner's rights, because it locks the ticket and writes the assignment. It does not look at the vehicles, which are
-- read by a view of others: tickets.assign does, with the caller's rights.
create or replace function tickets_ops.take_ticket(
  p_ticket_id text, p_vehicle_id text, p_position integer, p_metres double precision, p_take_over boolean
)
returns tickets.assignments language plpgsql security definer set search_path = pg_catalog, pg_temp set lock_timeout = '10s' as $$
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
comment on function tickets_ops.take_ticket(text, text, integer, double precision, boolean) is 'Assigns an open ticket to a vehicle, whether or not tickets.vehicles lists that. p_position NULL, or taken by now: as its last. Called by tickets.assign and tickets.assign_plan.';

create or replace function tickets.assign(p_ticket_id text, p_vehicle_id text, p_take_over boolean default false)
returns tickets.assignments language plpgsql set search_path = pg_catalog, pg_temp as $$
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
comment on function tickets.assign(text, text, boolean) is 'Sends a vehicle to an open ticket: select * from tickets.assign(''WOT0715527'', ''KDA 123A''). Returns the assignment; one that the vehicle has already is returned as it is. p_take_over: takes the ticket from the vehicle that has it. Errors: there is no such open ticket or vehicle; another vehicle has the ticket (the message says which, and who sent it); others keep the ticket locked for ten seconds.';

create or replace function tickets_ops.dispatch_lock() returns bigint language sql immutable parallel safe
return 7405120260617;
comment on function tickets_ops.dispatch_lock() is 'Key of the advisory lock that is held while a plan is made and carried out: two at once would each fill the same vehicles.';

create or replace function tickets_ops.claim_dispatch() returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp set lock_timeout = '10s' as $$
begin
  perform pg_advisory_xact_lock(tickets_ops.dispatch_lock());
exception when lock_not_available then
  perform tickets_ops.raise_blocked();
end
$$;
comment on function tickets_ops.claim_dispatch() is 'Takes tickets_ops.dispatch_lock until the end of the transaction. Raises when somebody else keeps it for ten seconds, and names the process.';

create or replace function tickets.assign_plan(
  p_capacity integer default 1, p_radius_km double precision default null, p_region text default null,
  p_cluster text default null, p_same_team boolean default false, p_tickets text[] default null,
  p_vehicles text[] default null, p_stale boolean default false
)
returns setof tickets.planned_ticket language plpgsql set search_path = pg_catalog, pg_temp as $$
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
comment on function tickets.assign_plan(integer, double precision, text, text, boolean, text[], text[], boolean) is 'Makes tickets.dispatch_plan and assigns it, in one transaction; arguments and rows as there. A ticket that somebody else assigned, or a load closed, meanwhile is left out, and its note says so. Plans that are carried out at the same time take turns, so that none fills a vehicle beyond p_capacity.';

create or replace function tickets.release(p_ticket_id text, p_reason text)
returns tickets.assignments language plpgsql security definer set search_path = pg_catalog, pg_temp set lock_timeout = '10s' as $$
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
comment on function tickets.release(text, text) is 'Takes a ticket back from the vehicle that it is assigned to, for a reason that is kept: select * from tickets.release(''WOT0715527'', ''flat tyre''). Errors: no reason; no vehicle has the ticket; others keep it locked for ten seconds.';

create or replace function tickets_ops.end_assignments(p_snapshot_id bigint, p_first_ticket_id text, p_last_ticket_id text) returns void
language sql set search_path = pg_catalog, pg_temp as $$
  update tickets.assignments a
  set state = 'done', ended_at = now(), end_reason = format('closed in snapshot %s', p_snapshot_id)
  from tickets.inc t
  where a.state = 'assigned' and a.ticket_id between p_first_ticket_id and p_last_ticket_id -- index assignments_one_vehicle
    and t.ticket_id = a.ticket_id and t.is_actionable is not true
$$;
comment on function tickets_ops.end_assignments(bigint, text, text) is 'Ends the assignments of the tickets of a range of ids that are no longer open. A load calls it in the transaction that writes them, as a statement of its own: it then sees what a dispatcher committed while the load waited for the ticket.';
--! EndIncluded dispatch/assignments.sql
--! Included review/decisions.sql
-- What people decide about places: signed, written down, and undone.
--
-- A person's statement is one that the pipeline did not mark as its own (tickets_ops.as_pipeline). Whatever tool it comes
-- from, triggers sign the row (verified_by) and append to tickets.geo_decisions. Undoing restores the row as the decision
-- found it; the tickets follow, as after any write.

create or replace function tickets_ops.person() returns text language sql stable
-- current_user would name the owner of the function that asks, for triggers run with their owner's rights.
return case current_setting('role') when 'none' then session_user::text else current_setting('role') end;
comment on function tickets_ops.person() is 'The role that the person at the other end of the connection acts as: what SET ROLE chose, else the one that logged in. The same inside functions that run with their owner''s rights.';

create or replace function tickets_ops.undoing() returns bigint language sql stable
return nullif(current_setting('tickets_ops.undoing', true), '')::bigint;
comment on function tickets_ops.undoing() is 'The decision that the gazetteer write of this moment takes back, set by tickets.undo_decision for its own duration. NULL: none. A role that sets it by hand can restore that decision''s row, and write nothing else.';

create or replace function tickets_ops.refuse_rewriting() returns trigger
language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
  if tickets_ops.is_erasing() then
    return null;
  end if;
  raise exception 'tickets.geo_decisions is history: its rows are neither changed nor deleted.'
    using errcode = 'insufficient_privilege', hint = 'Take a decision back with: select * from tickets.undo_decision(decision_id);';
end
$$;
comment on function tickets_ops.refuse_rewriting() is 'Trigger: keeps tickets.geo_decisions append-only, for its owner and against TRUNCATE too; tickets_ops.erase_ticket alone passes.';

-- Not with its owner's rights: it asks for those of the role that writes. Of a function that runs with its owner's rights, the
-- pipeline's among them, these are its owner's; so undo_decision takes the mark away.
-- Before each row and after the statement: an expression of the statement itself can set the mark.
create or replace function tickets_ops.refuse_forged_mark() returns trigger
language plpgsql set search_path = pg_catalog, pg_temp as $$
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
comment on function tickets_ops.refuse_forged_mark() is 'Trigger of each write of a gazetteer: refuses the mark of tickets_ops.as_pipeline, which is a setting and so anybody''s to set, to roles that may not call that function: verified_by and tickets.geo_decisions would say nothing, or something else.';

create or replace function tickets_ops.sign_verdict() returns trigger
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
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
comment on function tickets_ops.sign_verdict() is 'Trigger on a person''s write of a gazetteer row: says in verified_by and verified_at who verified it and when, whatever the statement wrote there; under tickets.undo_decision it restores the row instead.';

create or replace function tickets_ops.decision_of(p_before jsonb, p_after jsonb) returns text language sql stable
return case
  when tickets_ops.undoing() is not null then 'undone'
  when p_before is null then 'added'
  when p_after is null then 'removed'
  when p_before -> 'verified' = 'true' and p_after -> 'verified' = 'false' then 'handed back'
  when (p_before -> 'verified', p_before -> 'status', p_before -> 'geom')
    is distinct from (p_after -> 'verified', p_after -> 'status', p_after -> 'geom')
  then
    case
      when p_after ->> 'geom' is null or p_after ->> 'status' = 'rejected' then 'rejected'
      when p_after -> 'geom' <> p_before -> 'geom' then 'moved'
      else 'accepted'
    end
  when p_after -> 'guard_km' <> p_before -> 'guard_km' then 'guard'
  else 'changed'
end;
comment on function tickets_ops.decision_of(jsonb, jsonb) is 'What a person''s write of a gazetteer row decided, as a word of tickets.geo_decisions.decision. NULL for the row that is not there.';

-- Times are written in one time zone, so that undo_decision can compare the text.
create or replace function tickets_ops.record_decisions() returns trigger
language plpgsql security definer set search_path = pg_catalog, pg_temp set timezone = 'UTC' as $$
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
comment on function tickets_ops.record_decisions() is 'Trigger after a person''s write of a gazetteer: appends what changed to tickets.geo_decisions, with the tickets that moved by it.';

create or replace function tickets.undo_decision(p_decision_id bigint) returns setof tickets.geo_decisions
language plpgsql security definer set search_path = pg_catalog, pg_temp set timezone = 'UTC' set lock_timeout = '10s' as $$
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
$$;
comment on function tickets.undo_decision(bigint) is 'Takes a decision of a person back: restores every column of the gazetteer row but updated_at, verified included, and the tickets follow: select * from tickets.undo_decision(17). Returns the decision that this is, which can be undone in turn. Raises 55000 when the row is no longer as the decision left it, P0002 when there is no such decision, and when others keep the gazetteers locked for ten seconds. Runs with its owner''s rights, so it needs no right to delete what was added.';
--! EndIncluded review/decisions.sql
--! Included review/verified-places.sql
-- Places that a person set or checked are verified, and nothing overwrites them.
--
-- A coordinate that the pipeline did not write was set by a person: the row becomes verified, provider 'manual', and is
-- never overwritten again, not even by force. The pipeline's functions mark their writes by a setting (as_pipeline), for their own
-- duration (connections of the embedded database share settings, so it never outlives the function).

create or replace function tickets.touch_updated_at() returns trigger language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
  new.updated_at := now();
  return new;
end
$$;
comment on function tickets.touch_updated_at() is 'Trigger: keeps updated_at true.';

create or replace function tickets_ops.is_pipeline() returns boolean language sql stable
return coalesce(current_setting('tickets_ops.writer', true) = 'pipeline', false);
comment on function tickets_ops.is_pipeline() is 'Whether the writes of gazetteers and tickets of this moment are the pipeline''s own; see tickets_ops.as_pipeline.';

create or replace function tickets_ops.is_erasing() returns boolean language sql stable
return coalesce(current_setting('tickets_ops.erasing', true) = 'true', false);
comment on function tickets_ops.is_erasing() is 'Whether tickets_ops.erase_place is at work: it alone may change a verified place without deciding about it, and history.';

create or replace function tickets_ops.as_pipeline(p_on boolean) returns boolean
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
  v_before boolean := tickets_ops.is_pipeline();
begin
  perform set_config('tickets_ops.writer', case when p_on then 'pipeline' else '' end, true);
  return v_before;
end
$$;
comment on function tickets_ops.as_pipeline(boolean) is 'Marks the writes of gazetteers and tickets that follow in this transaction as the pipeline''s own (true) or a person''s (false). Returns what it was before: hand that back at the end. A coordinate written without the mark is verified; a ticket gets a baseline.';

create or replace function tickets_ops.coordinate_refusal(p_geom geometry) returns text language sql stable parallel safe
begin atomic
  select case tickets.outside_kenya(p_geom)
    when 'swapped' then
      format('It lies outside Kenya; longitude and latitude are probably swapped. Write st_setsrid(st_makepoint(%s, %s), 4326).', st_y(p_geom), st_x(p_geom))
    when 'null island' then
      'It is 0,0, which is what an empty coordinate becomes. Write st_setsrid(st_makepoint(longitude, latitude), 4326); Nairobi is st_makepoint(36.82, -1.29).'
    when 'outside' then 'It lies outside Kenya. Longitude comes first: Nairobi is st_setsrid(st_makepoint(36.82, -1.29), 4326).'
  end;
end;
comment on function tickets_ops.coordinate_refusal(geometry) is 'Why a person may not put a place there: outside Kenya, 0,0, or swapped axes, with the right order. NULL: they may.';

create or replace function tickets_ops.check_coordinate(p_name text, p_geom geometry) returns void language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
  v_refusal text := tickets_ops.coordinate_refusal(p_geom);
begin
  if v_refusal is not null then
    raise exception 'The coordinate % of % is refused. %', p_geom::point, p_name, v_refusal using errcode = 'check_violation';
  end if;
end
$$;
comment on function tickets_ops.check_coordinate(text, geometry) is 'Raises check_violation, with the reason, where a person puts a place of that name at a coordinate that cannot be meant (tickets_ops.coordinate_refusal).';

create or replace function tickets_ops.keep_cluster_verified() returns trigger
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
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
comment on function tickets_ops.keep_cluster_verified() is 'Trigger: a centroid that a person sets or takes away is verified, and one outside Kenya is refused; the pipeline cannot overwrite a verified row, but for the flag suspicious.';

create or replace function tickets_ops.keep_location_verified() returns trigger
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
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
comment on function tickets_ops.keep_location_verified() is
  'Trigger: a coordinate or status that a person sets is verified (verified = true on a needs_review row accepts its coordinate, verified = false hands the row back), refused outside Kenya and accepted with a notice beyond the guard; the pipeline cannot overwrite a verified row. Fills location_key from location_name, and a verified row never expires.';
--! EndIncluded review/verified-places.sql
--! Included review/place-details.sql
-- What a person needs to know to decide about one place: its candidates, and what lies around it.
--
-- The judge is the pipeline's own, so what asks it runs with its owner's rights; the rest reads with the caller's.

create or replace function tickets_ops.place_candidates(p_cluster text, p_location_key text default null)
returns table (
  candidate_no bigint, label text, "level" text, lng double precision, lat double precision, distance_km numeric, verdict text
)
language sql stable security definer set search_path = pg_catalog, pg_temp set jit = off
begin atomic
  select
    w.candidate_no, w.label, w.precision, st_x(w.geom), st_y(w.geom), w.distance_km,
    case when w.refusal is not null then 'refused: ' || w.refusal when w.doubt is not null then 'doubtful: ' || w.doubt else 'fits' end
  from tickets.geo_locations l
  left join tickets.geo_clusters c on c.cluster = l.cluster
  cross join lateral tickets_ops.score_candidates(l.candidates, l.location_key, l.cluster, c.geom, c.guard_km) as w
  where l.cluster = p_cluster and l.location_key = p_location_key
  union all
  select
    w.candidate_no, w.label, w.precision, st_x(w.geom), st_y(w.geom), tickets_ops.distance_km(c.geom, w.geom),
    case when w.refusal is not null then 'refused: ' || w.refusal else 'fits' end
  from tickets.geo_clusters c
  cross join lateral tickets_ops.score_cluster_candidates(c.candidates, tickets_ops.cluster_name_key(c.cluster)) as w
  where c.cluster = p_cluster and p_location_key is null
  order by 1;
end;
comment on function tickets_ops.place_candidates(text, text) is 'What the provider returned for a place, or with one argument for a cluster, in its order: the number, label, level (point, street, neighbourhood, city), coordinate, kilometres from the cluster''s centroid, and what the judge says of it today: fits, doubtful: …, or refused: …. No rows for a place that is not in the gazetteer.';

create or replace function tickets_ops.rejected_places(p_cluster text)
returns table (
  location_key text, location_name text, lng double precision, lat double precision, distance_km numeric, needs_km numeric, fits boolean
)
language sql stable security definer set search_path = pg_catalog, pg_temp set jit = off
begin atomic
  select
    l.location_key, l.location_name, st_x(l.geom), st_y(l.geom), tickets_ops.distance_km(c.geom, l.geom), nearest.km, l.fits
  from tickets.geo_clusters c
  cross join lateral tickets_ops.places_without_guard(c.cluster) as l
  cross join lateral (
    select min(w.distance_km) as km
    from tickets_ops.score_candidates(l.candidates, l.location_key, c.cluster, c.geom, null) as w
    where w.refusal is null
  ) as nearest
  where c.cluster = p_cluster
  order by nearest.km, l.location_key;
end;
comment on function tickets_ops.rejected_places(text) is 'The rows of tickets_ops.places_beyond_guard; fits: the judge would take the place without a doubt.';

create or replace function tickets_ops.places_beyond_guard(p_cluster text)
returns table (
  location_key text, location_name text, lng double precision, lat double precision, distance_km numeric, needs_km numeric
)
language sql stable security definer set search_path = pg_catalog, pg_temp
begin atomic
  select r.location_key, r.location_name, r.lng, r.lat, r.distance_km, r.needs_km from tickets_ops.rejected_places(p_cluster) r;
end;
comment on function tickets_ops.places_beyond_guard(text) is 'Where the rejected places of a cluster would be without its guard (at most 50, the last asked): the coordinate that the judge would take and its kilometres from the centroid, and in needs_km from which guard_km on one of its candidates is let in. Where many lie together, the centroid is probably the wrong one.';

create or replace function tickets_ops.review_place(p_kind text, p_cluster text, p_location_key text default null) returns json
-- Compiling so many subqueries takes longer than running them (measured: 0.7 s for one place, 40 ms so).
language sql stable set jit = off
begin atomic
  with beyond as materialized (select * from tickets_ops.rejected_places(p_cluster) where p_kind = 'cluster')
  select json_build_object(
    -- updated_at as text: a caller that writes compares it, and must not lose its microseconds.
    'place', (
      select to_json(r) from (
        select
          'location' as kind, l.cluster, l.location_key, l.location_name, l.status, l.verified, l.verified_by, l.note, l.precision,
          l.confidence, l.distance_km, l.provider, l.query, st_x(l.geom) as lng, st_y(l.geom) as lat, l.updated_at::text
        from tickets.geo_locations l
        where p_kind = 'location' and l.cluster = p_cluster and l.location_key = p_location_key
        union all
        select
          'cluster', c.cluster, null, null, coalesce(q.status, 'found'), c.verified, c.verified_by, coalesce(q.note, c.note),
          null, null, null, c.provider, c.query, st_x(c.geom), st_y(c.geom), c.updated_at::text
        from tickets.geo_clusters c
        -- Why a cluster is in doubt depends on its places, and is said there.
        left join tickets_ops.review_queue q on q.kind = 'cluster' and q.cluster = c.cluster
        where p_kind = 'cluster' and c.cluster = p_cluster
      ) as r
    ),
    'centre', (
      select to_json(r) from (
        select c.guard_km, c.suspicious, st_x(c.geom) as lng, st_y(c.geom) as lat, c.updated_at::text
        from tickets.geo_clusters c where c.cluster = p_cluster
      ) as r
    ),
    'candidates', (
      select coalesce(json_agg(k), '[]') from tickets_ops.place_candidates(p_cluster, case p_kind when 'location' then p_location_key end) as k
    ),
    'beyond', (
      select coalesce(json_agg(b), '[]') from beyond b
    ),
    'together', (
      select to_json(r) from (
        select t.places, (select count(*) from beyond) as of_all, t.lng, t.lat, t.km
        from tickets.geo_clusters c
        cross join lateral tickets_ops.places_together(
          array(select st_setsrid(st_makepoint(b.lng, b.lat), 4326) from beyond b where b.fits order by b.location_key), c.geom, c.guard_km
        ) as t
        where c.cluster = p_cluster
      ) as r
    ),
    'names', (
      -- Relies on the indexes on (cluster_key(cluster), location_key).
      select coalesce(json_agg(n), '[]') from (
        select t.location_name as name, count(*) as tickets, count(*) filter (where t.is_actionable) as open
        from (
          select location_name, is_actionable, cluster, location_key from tickets.inc
          union all
          select location_name, is_actionable, cluster, location_key from tickets.crq where 'crq' in (select tickets.datasets())
        ) as t
        where tickets.cluster_key(t.cluster) = tickets.cluster_key(p_cluster) and (p_kind = 'cluster' or t.location_key = p_location_key)
        group by t.location_name order by 3 desc, 2 desc, 1 limit 12
      ) as n
    ),
    'found', (
      select coalesce(json_agg(json_build_array(f.lng, f.lat, f.location_key)), '[]') from (
        select st_x(l.geom) as lng, st_y(l.geom) as lat, l.location_key
        from tickets.geo_locations l
        where l.cluster = p_cluster and tickets.places_tickets(l.status) and l.location_key is distinct from p_location_key
        limit 500
      ) as f
    ),
    'history', (
      select coalesce(json_agg(h), '[]') from (
        select d.decision_id, d.decided_at, d.decided_by, d.decision, d.tickets_moved
        from tickets.geo_decisions d
        where d.cluster = p_cluster and d.location_key is not distinct from case p_kind when 'location' then p_location_key end
        order by d.decision_id desc limit 5
      ) as h
    )
  );
end;
comment on function tickets_ops.review_place(text, text, text) is 'Everything a person looks at to decide about one place, as the page shows it: p_kind location or cluster. place (NULL: there is none), centre (of its cluster, with the guard), candidates, beyond (for a cluster: tickets_ops.places_beyond_guard), together (where three or more of these lie), names (as field staff typed them, at most 12), found ([lng, lat, key] of the cluster''s placed places, at most 500), history (the last 5 decisions). Reads with the caller''s rights.';
--! EndIncluded review/place-details.sql
--! Included operations/schedule.sql
-- When the schedule looks at the bucket: the entries of the crontab, which a worker records when it starts
-- (src/worker/schedule.ts). No SQL knows an hour of its own.

create or replace function tickets_ops.record_schedule(p_entries jsonb) returns void language sql set search_path = pg_catalog, pg_temp as $$
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
comment on function tickets_ops.record_schedule(jsonb) is 'A worker that starts records the entries of its crontab: an array of objects with the columns of tickets_ops.schedule but `since`. Entries that are not among them are forgotten.';

create or replace function tickets_ops.fires_on(p_entry tickets_ops.schedule, p_day date) returns boolean language sql immutable parallel safe as $$
  select extract(month from p_day)::integer = any (p_entry.months)
    and (extract(day from p_day)::integer = any (p_entry.dates) or extract(dow from p_day)::integer = any (p_entry.weekdays))
$$;
comment on function tickets_ops.fires_on(tickets_ops.schedule, date) is 'Whether an entry of the crontab fires on a day (UTC).';

create or replace function tickets_ops.scheduled_runs(p_dataset text, p_from timestamptz, p_to timestamptz) returns setof timestamptz
language sql stable set search_path = pg_catalog, pg_temp as $$
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
comment on function tickets_ops.scheduled_runs(text, timestamptz, timestamptz) is 'The times from p_from to p_to, both included, at which the schedule looks at a dataset''s folder. None before a worker has started.';

create or replace function tickets_ops.nearest_scheduled_run(p_dataset text, p_at timestamptz, p_ahead boolean) returns timestamptz
language plpgsql stable set search_path = pg_catalog, pg_temp as $$
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
comment on function tickets_ops.nearest_scheduled_run(text, timestamptz, boolean) is 'What tickets_ops.next_scheduled_run (p_ahead) and tickets_ops.last_scheduled_run return.';

create or replace function tickets_ops.last_scheduled_run(p_at timestamptz, p_dataset text default 'inc') returns timestamptz
language sql stable set search_path = pg_catalog, pg_temp
return tickets_ops.nearest_scheduled_run(p_dataset, p_at, false);
comment on function tickets_ops.last_scheduled_run(timestamptz, text) is 'The last time at or before p_at at which the schedule looks at a dataset''s folder. NULL: it never does, or no worker has started yet.';

create or replace function tickets_ops.next_scheduled_run(p_at timestamptz, p_dataset text default 'inc') returns timestamptz
language sql stable set search_path = pg_catalog, pg_temp
return tickets_ops.nearest_scheduled_run(p_dataset, p_at, true);
comment on function tickets_ops.next_scheduled_run(timestamptz, text) is 'The next time after p_at at which the schedule looks at a dataset''s folder. NULL: it never does, or no worker has started yet.';

create or replace function tickets_ops.scheduled_since(p_dataset text) returns timestamptz language sql stable set search_path = pg_catalog, pg_temp
return (select max(s.since) from tickets_ops.schedule s where s.dataset = p_dataset);
comment on function tickets_ops.scheduled_since(text) is 'Since when the schedule of a dataset is what it is: no run before that can have been missed. NULL: it has none.';
--! EndIncluded operations/schedule.sql
--! Included operations/blockers.sql
-- Sessions of others that keep ours waiting for a lock: named to a person who waited too long, and to health.

create or replace function tickets_ops.raise_blocked() returns void language plpgsql stable security definer set search_path = pg_catalog, pg_temp as $$
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
comment on function tickets_ops.raise_blocked() is 'Raises lock_not_available, and names the sessions that hold locks on what is ours: for a person who waited for one too long.';

create or replace function tickets_ops.blocking_problems() returns table (severity text, problem text)
language sql stable set search_path = pg_catalog, pg_temp as $$
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
comment on function tickets_ops.blocking_problems() is 'Sessions of others that have kept ours waiting for more than a minute, as faults in words, with process, user and query.';
--! EndIncluded operations/blockers.sql
--! Included operations/stale-feed.sql
-- Whether the feed is alive, and what is said where it is not: by health, and by the map in summary.freshness.problem. A look at the
-- bucket that finds nothing new is no proof that it is.

create or replace function tickets_ops.content_through(p_dataset text) returns timestamptz language plpgsql stable
set search_path = pg_catalog, pg_temp as $$
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
$$;
comment on function tickets_ops.content_through(text) is 'The newest created_at_service or closed_at of a dataset (inc, crq) that is not in the future: how far its content goes. It trails the files by days.';

create or replace function tickets_ops.scheduled_time(p_dataset text, p_from timestamptz, p_to timestamptz) returns interval
language sql stable set search_path = pg_catalog, pg_temp as $$
  select coalesce(sum(least(run - before, interval '1 hour')), '0')
  -- A week is enough to tell any number of hours that is worth a setting.
  from (select greatest(p_from, p_to - interval '7 days') as from_at) as since
  cross join lateral (
    select run, lag(run) over (order by run) as before
    from tickets_ops.scheduled_runs(p_dataset, coalesce(tickets_ops.last_scheduled_run(since.from_at, p_dataset), since.from_at), p_to) as run
  ) as runs
  where run > since.from_at
$$;
comment on function tickets_ops.scheduled_time(text, timestamptz, timestamptz) is 'How much of the time between two moments the schedule of a dataset covers, in hours between its runs (of a longer break, such as the night, one hour counts). At most that of a week.';

create or replace function tickets_ops.missed_run(p_dataset text) returns timestamptz language sql stable
set search_path = pg_catalog, pg_temp
return (
  -- Half an hour is what a look may take that waits for the load before it.
  select tick
  from tickets_ops.last_scheduled_run(now() - interval '30 minutes', p_dataset) as tick
  where tick > tickets_ops.scheduled_since(p_dataset)
    and tick > coalesce((select l.looked_at from tickets_ops.looks l where l.dataset = p_dataset), '-infinity')
);
comment on function tickets_ops.missed_run(text) is 'The last scheduled run of a dataset, when half an hour later no look at the bucket had succeeded. NULL: none was missed.';

create or replace function tickets_ops.content_lag(p_dataset text, out lag interval, out usual interval) language sql stable
set search_path = pg_catalog, pg_temp as $$
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
comment on function tickets_ops.content_lag(text) is 'How far the content of the newest file trails the file''s own time, and what is usual: the 95th percentile of the files of 14 days whose content was older. usual is NULL before seven days of history. Both NULL before the first load.';

create or replace function tickets_ops.feed_problems(p_dataset text) returns table (severity text, problem text)
language sql stable set search_path = pg_catalog, pg_temp as $$
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
comment on function tickets_ops.feed_problems(text) is 'What is wrong with the feed of a dataset (inc, crq), as faults and warnings in words: a missed run, no new file for FEED_STALE_HOURS (3) of scheduled time, data older than 26 hours, content that stands still, a clock, future-dated files.';
--! EndIncluded operations/stale-feed.sql
--! Included operations/problems.sql
-- What needs a person, in words. A fault makes health not ok; a warning is worth knowing.

create or replace function tickets_ops.worker_problems() returns table (severity text, problem text)
language sql stable set search_path = pg_catalog, pg_temp as $$
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
comment on function tickets_ops.worker_problems() is 'What is wrong with the workers, as faults and warnings in words.';

create or replace function tickets_ops.snapshot_problems(p_dataset text) returns table (severity text, problem text)
language sql stable set search_path = pg_catalog, pg_temp as $$
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
comment on function tickets_ops.snapshot_problems(text) is 'What is wrong with the snapshots of a dataset (inc, crq), as faults and warnings in words.';

create or replace function tickets_ops.job_problems() returns table (severity text, problem text)
language sql stable set search_path = pg_catalog, pg_temp as $$
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
comment on function tickets_ops.job_problems() is 'What is wrong with the jobs, as faults and warnings in words.';

create or replace function tickets_ops.geocoding_problems() returns table (severity text, problem text)
language sql stable set search_path = pg_catalog, pg_temp as $$
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
comment on function tickets_ops.geocoding_problems() is 'Why geocoding stands still, in words: a refused key, a provider in trouble or one that finds nothing any more is a fault; a spent quota or budget, which comes back by itself, a warning while places wait.';

create or replace function tickets_ops.vehicle_problems() returns table (severity text, problem text)
language sql stable set search_path = pg_catalog, pg_temp as $$
  select v.severity, v.trouble from tickets_ops.count_vehicles() v where v.severity is not null
$$;
comment on function tickets_ops.vehicle_problems() is 'Why tickets.vehicles cannot be read, in words. Tickets and their places do not depend on it.';

create or replace function tickets_ops.alert_problems() returns table (severity text, problem text)
language sql stable set search_path = pg_catalog, pg_temp as $$
  select 'warning', format('%s message(s) about health could not be delivered yet: %s Check ALERT_WEBHOOK_URL; drop one: select tickets_ops.cancel_job(id), its id stands in tickets_ops.jobs.',
    count(*), left((array_agg(j.last_error order by j.id desc))[1], 300))
  from tickets_ops.queued_jobs() j
  where j.task = 'fleettickets_alert' and j.last_error is not null
  having count(*) > 0
$$;
comment on function tickets_ops.alert_problems() is 'Messages that the webhook does not take, in words. A warning: as a fault it would be a turn of health, and so one message more.';

create or replace function tickets_ops.problem_subjects() returns setof text
language sql immutable parallel safe rows 9 set search_path = pg_catalog, pg_temp as $$
  select unnest(array['workers', 'feed', 'snapshots', 'jobs', 'locks', 'geocoding', 'settings', 'vehicles', 'alerts'])
$$;
comment on function tickets_ops.problem_subjects() is 'What a problem can be about, the most urgent first.';

create or replace function tickets_ops.list_problems() returns table (severity text, subject text, problem text)
language sql stable set search_path = pg_catalog, pg_temp as $$
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
comment on function tickets_ops.list_problems() is 'What needs a person: severity fault or warning, what it is about (tickets_ops.problem_subjects), and the problem in words; faults first, the most urgent of each first.';
--! EndIncluded operations/problems.sql
--! Included operations/health.sql
-- Health: the figures of tickets_ops.health, and those of each dataset. What of them needs a person is decided in problems.sql.

create or replace function tickets_ops.read_dataset_health(p_dataset text)
returns table (
  checked_at timestamptz, checked_age interval, checked_key text, checked_status text,
  loaded_snapshot_id bigint, loaded_key text, loaded_at timestamptz, loaded_age interval, loaded_status text,
  data_at timestamptz, data_age interval, open_missing bigint,
  in_flight_snapshot_id bigint, in_flight_status text, in_flight_idle interval,
  missed_run_at timestamptz, next_run_at timestamptz
)
language sql stable set search_path = pg_catalog, pg_temp as $$
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
comment on function tickets_ops.read_dataset_health(text) is 'What tickets_ops.health says of the files of a dataset (inc, crq), one row.';

create or replace function tickets_ops.read_datasets()
returns table (
  dataset text, feed text, open_tickets bigint, checked_at timestamptz, checked_key text, checked_status text,
  loaded_snapshot_id bigint, loaded_key text, loaded_at timestamptz, loaded_status text, data_at timestamptz, data_age interval,
  open_missing bigint, in_flight_snapshot_id bigint, in_flight_status text, in_flight_idle interval,
  missed_run_at timestamptz, next_run_at timestamptz
)
language sql stable security definer set search_path = pg_catalog, pg_temp as $$
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
comment on function tickets_ops.read_datasets() is 'The rows of tickets_ops.datasets, read with the owner''s rights.';

create or replace function tickets_ops.read_health()
returns table (
  ok boolean, problems text[],
  checked_at timestamptz, checked_age interval, checked_key text, checked_status text,
  loaded_snapshot_id bigint, loaded_key text, loaded_at timestamptz, loaded_age interval, loaded_status text,
  data_at timestamptz, data_age interval, open_missing bigint,
  in_flight_snapshot_id bigint, in_flight_status text, in_flight_idle interval,
  missed_run_at timestamptz, next_run_at timestamptz,
  jobs_waiting bigint, oldest_waiting_age interval, jobs_running bigint, jobs_failed bigint,
  workers_alive bigint, workers_unsure bigint,
  geocoding_state text, geocoding_budget_left integer, geocoding_jobs bigint, places_for_review bigint
)
language sql stable security definer set search_path = pg_catalog, pg_temp as $$
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
comment on function tickets_ops.read_health() is 'The row of tickets_ops.health, read with the owner''s rights.';
--! EndIncluded operations/health.sql
--! Included operations/metrics.sql
-- The figures that a monitor keeps: one view, tickets_ops.metrics. It comes out three ways: SQL, ops/sql_exporter.yml, and
-- `fleettickets metrics`.
--
-- Gauges only: the ledger is pruned, so a counter of it would run backwards. Base units (seconds). Every name and every
-- known label has a row, also in an empty database: a count is 0, an age that is unknown NaN. Labels have a dozen values at
-- most, and none is the number of a ticket, a place or a vehicle: each would be a series for ever.

create or replace function tickets_ops.metric_help() returns table (place integer, name text, help text)
language sql immutable parallel safe set search_path = pg_catalog, pg_temp as $$
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
comment on function tickets_ops.metric_help() is 'The metrics in their order: each name without its prefix fleettickets_, and what it tells.';

create or replace function tickets_ops.health_metrics() returns table (name text, labels jsonb, value double precision)
language sql stable set search_path = pg_catalog, pg_temp as $$
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
comment on function tickets_ops.health_metrics() is 'Metrics of what needs a person.';

create or replace function tickets_ops.dataset_metrics(p_dataset text) returns table (name text, labels jsonb, value double precision)
language sql stable set search_path = pg_catalog, pg_temp as $$
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
comment on function tickets_ops.dataset_metrics(text) is 'Metrics of the files of a dataset (inc, crq).';

create or replace function tickets_ops.job_metrics() returns table (name text, labels jsonb, value double precision)
language sql stable set search_path = pg_catalog, pg_temp as $$
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
comment on function tickets_ops.job_metrics() is 'Metrics of jobs and workers.';

create or replace function tickets_ops.geocoding_metrics() returns table (name text, labels jsonb, value double precision)
language sql stable set search_path = pg_catalog, pg_temp as $$
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
comment on function tickets_ops.geocoding_metrics() is 'Metrics of the provider and of the gazetteers.';

create or replace function tickets_ops.ticket_metrics() returns table (name text, labels jsonb, value double precision)
language sql stable set search_path = pg_catalog, pg_temp as $$
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
comment on function tickets_ops.ticket_metrics() is 'Metrics of open tickets.';

create or replace function tickets_ops.vehicle_metrics() returns table (name text, labels jsonb, value double precision)
language sql stable set search_path = pg_catalog, pg_temp as $$
  with seen as materialized (
    select * from tickets_ops.count_vehicles()
  )
  select 'vehicles', jsonb_build_object('freshness', f.freshness),
    case when exists (select from seen where trouble is not null) then 'NaN' else coalesce(s.vehicles, 0)::double precision end
  from unnest(array['live', 'parked', 'stale', 'lost', 'clock', 'nowhere']) as f (freshness)
  left join seen s on s.freshness = f.freshness
$$;
comment on function tickets_ops.vehicle_metrics() is 'Metrics of the vehicles; what is wrong with tickets.vehicles stays here.';

create or replace function tickets_ops.storage_metrics() returns table (name text, labels jsonb, value double precision)
language sql stable set search_path = pg_catalog, pg_temp as $$
  select 'storage_bytes', jsonb_build_object('part', p.part), coalesce(sum(s.bytes), 0)
  from (select k.part from tickets_ops.kept_tables() k union select 'takeover') as p
  left join tickets_ops.storage s on s.part = p.part
  group by p.part
$$;
comment on function tickets_ops.storage_metrics() is 'Metrics of what the tables take.';

create or replace function tickets_ops.read_metrics()
returns table (name text, labels jsonb, value double precision, kind text, help text)
language sql stable security definer set search_path = pg_catalog, pg_temp set jit = off as $$
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
comment on function tickets_ops.read_metrics() is 'The rows of tickets_ops.metrics, read with the owner''s rights.';
--! EndIncluded operations/metrics.sql
--! Included operations/erasure.sql
-- Erasure: nothing in this database tells of a ticket any more, nor of a place that only that ticket named. What stays is the
-- owner's to remove (docs/keeping.md): files in the bucket, backups, and notes in which a person wrote about it.

create or replace function tickets_ops.mentions(p_text text, p_ticket_id text) returns boolean language sql immutable parallel safe
return position(p_ticket_id in p_text) > 0
  and p_text ~ ('(^|[^[:alnum:]])' || regexp_replace(p_ticket_id, '([^[:alnum:]])', '\\\1', 'g') || '([^[:alnum:]]|$)');
comment on function tickets_ops.mentions(text, text) is 'Whether a text contains a ticket''s number, and not only as a part of a longer one.';

-- The counts of a snapshot must add up when it is loaded after all: the record is taken out of them too.
create or replace function tickets_ops.erase_staged(p_dataset text, p_ticket_id text) returns bigint
language sql set search_path = pg_catalog, pg_temp as $$
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
comment on function tickets_ops.erase_staged(text, text) is 'Part of tickets_ops.erase_ticket: deletes what is staged of a ticket in snapshots that are held or have failed. Returns how many rows.';

-- A range may begin or end with the ticket: then it shrinks to what is left in it, or holds none.
create or replace function tickets_ops.erase_from_ranges(p_dataset text, p_ticket_id text) returns void
language sql set search_path = pg_catalog, pg_temp as $$
  update tickets_ops.snapshot_batches b
  set (first_ticket_id, last_ticket_id) = (
    select coalesce(min(r.ticket_id), ''), coalesce(max(r.ticket_id), '')
    from tickets_ops.snapshot_rows r -- primary key
    where r.snapshot_id = b.snapshot_id and r.ticket_id between b.first_ticket_id and b.last_ticket_id
  )
  from tickets_ops.snapshots s
  where s.dataset = p_dataset and b.snapshot_id = s.snapshot_id and p_ticket_id in (b.first_ticket_id, b.last_ticket_id)
$$;
comment on function tickets_ops.erase_from_ranges(text, text) is 'Part of tickets_ops.erase_ticket, after erase_staged: takes the ticket''s number out of the ranges of the batches that wait.';

create or replace function tickets_ops.erase_place(p_cluster text, p_location_key text, p_location_name text, out places bigint, out decisions bigint)
language plpgsql set search_path = pg_catalog, pg_temp as $$
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
comment on function tickets_ops.erase_place(text, text, text) is 'Part of tickets_ops.erase_ticket, once the ticket is gone: a place that no other ticket names goes, with what people decided about it; where others name it, their spelling takes the place of the ticket''s. Returns how many gazetteer rows and decisions were deleted or changed.';

create or replace function tickets_ops.erase_from_errors(p_text text, p_instead text) returns bigint
language sql set search_path = pg_catalog, pg_temp as $$
  with snapshots as (
    update tickets_ops.snapshots set error = replace(error, p_text, p_instead) where position(p_text in error) > 0
    returning 1
  ), batches as (
    update tickets_ops.snapshot_batches set error = replace(error, p_text, p_instead) where position(p_text in error) > 0
    returning 1
  )
  select (select count(*) from snapshots) + (select count(*) from batches) + tickets_ops.erase_from_job_errors(p_text, p_instead)
$$;
comment on function tickets_ops.erase_from_errors(text, text) is 'Part of tickets_ops.erase_ticket: puts another text in the place of one in the errors of snapshots, batches and jobs, where Postgres may have quoted a row. Returns in how many.';

-- 100 lines: one deletion for each place where something of a ticket may stand, in the order in which they depend on each other.
create or replace function tickets_ops.erase_ticket(p_ticket_id text, p_dataset text default 'inc')
returns table (what text, erased bigint, note text)
language plpgsql set search_path = pg_catalog, pg_temp set lock_timeout = '10s' as $$
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
$$;
comment on function tickets_ops.erase_ticket(text, text) is 'Erases everything that this database holds of one ticket of a dataset (inc, crq): select * from tickets_ops.erase_ticket(''WOT0715527''). Only the owner may. Returns a row for each table with how much was erased, and the files in the bucket that are not. Trap: a later file that still has the ticket brings it as a new one, so have it removed at the source first. Raises while a snapshot is being loaded, and when others lock what it erases for ten seconds.';
--! EndIncluded operations/erasure.sql
--! Included analytics/measures.sql
-- What the analytic functions measure alike: times, shares, and how many values a figure needs. Inlined, all of them.

create or replace function tickets.time_to_close(p_clock_start timestamptz, p_closed_at timestamptz) returns interval
language sql immutable parallel safe
return case when p_closed_at >= p_clock_start then p_closed_at - p_clock_start end;
comment on function tickets.time_to_close(timestamptz, timestamptz) is 'How long a ticket was open by the wall clock. NULL: one of the times is unknown, or the closing comes first, as it does where a late first_seen_at is the clock.';

-- 24 and 48 hours are marks on a scale, by which years can be compared: not what was promised, which is in tickets.sla_rules and
-- changes. So they stand in the names of columns, too.
create or replace function tickets.within_a_day(p_lasted interval) returns boolean
language sql immutable parallel safe
return p_lasted <= interval '24 hours';
comment on function tickets.within_a_day(interval) is 'Whether something lasted 24 h at most. A fixed mark, whatever tickets.sla_rules says.';

create or replace function tickets.within_two_days(p_lasted interval) returns boolean
language sql immutable parallel safe
return p_lasted <= interval '48 hours';
comment on function tickets.within_two_days(interval) is 'Whether something lasted 48 h at most. A fixed mark, whatever tickets.sla_rules says.';

create or replace function tickets.kept_by_source(p_verdict text) returns boolean
language sql immutable parallel safe
return p_verdict = 'Compliant';
comment on function tickets.kept_by_source(text) is 'Whether the source''s own verdict (sla_status) says that the SLA was kept. NULL: it said nothing. Not our SLA: that is tickets.sla().';

create or replace function tickets.reopening_window() returns interval
language sql immutable parallel safe
return interval '30 days';
comment on function tickets.reopening_window() is 'How long after its closing a reopening counts against it: a later one is a new fault.';

-- The source's times (mttr) and times by the wall clock alike. A place on the map is no such figure: see tickets.places().
create or replace function tickets.fewest_for_percentile() returns integer
language sql immutable parallel safe
return 5;
comment on function tickets.fewest_for_percentile() is 'How many values a percentile is made of at least: of fewer it is NULL, since it would be a single ticket''s time.';

create or replace function tickets.fewest_for_comparison() returns integer
language sql immutable parallel safe
return 20;
comment on function tickets.fewest_for_comparison() is 'How many closings a team has at least where it is compared with others: with fewer a row is marked low_n and not ranked.';

create or replace function tickets.age_bucket(p_hours_open numeric) returns integer
language sql immutable parallel safe
return width_bucket(p_hours_open, array[4, 24, 48, 168, 720]::numeric[]);
comment on function tickets.age_bucket(numeric) is 'The age of an open ticket, from its hours: 0 under 4 h (or negative), 1 under 24 h, 2 under 48 h, 3 under 7 days, 4 under 30 days, 5 older. NULL without a clock. tickets.inc_daily keeps 0 and 1 as one.';
--! EndIncluded analytics/measures.sql
--! Included analytics/dimensions.sql
-- The dimensions by which a question can be asked (p_by), and how a value of one is shown.

create or replace function tickets.dimensions() returns text[]
  language sql immutable parallel safe
  return array['team', 'cluster', 'region', 'owner', 'status'];
comment on function tickets.dimensions() is 'What the analytic functions take for p_by.';

create or replace function tickets.daily_dimensions() returns text[]
  language sql immutable parallel safe
  return array['team', 'cluster', 'region'];
comment on function tickets.daily_dimensions() is 'Of tickets.dimensions(), those by which the backlog of each day is kept (tickets.inc_daily): of owners and statuses there is none.';

create or replace function tickets.dimension(p_by text, p_team text, p_cluster text, p_region text, p_owner text, p_status text) returns text
  language sql immutable parallel safe
  return case p_by when 'team' then p_team when 'cluster' then p_cluster when 'region' then p_region when 'owner' then p_owner when 'status' then p_status end;
comment on function tickets.dimension(text, text, text, text, text, text) is 'The value of the dimension that p_by names. Inlined: with a constant p_by nothing is left of it but the column.';

-- Not inlined, so that it is read once in a query; where nothing is asked by cluster, it reads nothing.
create or replace function tickets.cluster_spellings(p_by text default 'cluster') returns table (cluster_key text, spelling text)
language sql stable parallel safe rows 100
set search_path = pg_catalog, pg_temp
as $$
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
comment on function tickets.cluster_spellings(text) is 'The one spelling in which analytics show a cluster (tickets.chosen_spellings), by how many tickets were first seen with each. No row unless p_by is cluster, the default.';

create or replace function tickets.shown_value(p_by text, p_value text, p_spelling text) returns text
  language sql immutable parallel safe
  return coalesce(p_spelling, case when p_by = 'cluster' then tickets.cluster_key(p_value) else nullif(p_value, '') end, '(none)');
comment on function tickets.shown_value(text, text, text) is 'How analytics show a value of the dimension p_by: a cluster in its one spelling (tickets.cluster_spellings, else its key), (none) for none.';
--! EndIncluded analytics/dimensions.sql
--! Included analytics/flow.sql
-- Flow: what came in and went out, by the days on which it happened, not on which it was told.

-- Not parallel safe, so that its own query may be parallel. Planned anew in each call, with its arguments as constants: the
-- dimension becomes a column. No JIT: compiling takes longer than what it would speed up. Pages are nearly as cheap in any
-- order, as they are in memory; and a worker, which repeats some of what the others do, is started for a year, not for a month
-- (measured for a month: half of the processor's time), and one only (a second one made a year slower on two cores).
create or replace function tickets.inc_flow(p_from date, p_to date, p_step text default 'day', p_by text default null)
returns table (
  period date, starts_at timestamptz, value text, created bigint, closed bigint, closed_final bigint, reopened bigint, net bigint,
  undated bigint, clock_known_pct numeric, provisional boolean
)
language plpgsql stable
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_custom_plan
set jit = off
set random_page_cost = 1.1
set parallel_setup_cost = 20000
set max_parallel_workers_per_gather = 1
as $$
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
comment on function tickets.inc_flow(date, date, text, text) is
'Inflow and outflow by period, in lifecycle time: counted when it happened, not when it was told. So a period grows for days after its end: see provisional. A row for each period, and for each value of p_by in the range, zeros included.

Arguments: [p_from, p_to), days in Nairobi; p_step: day, week (ISO, from Monday) or month; p_by: team, cluster, region, owner, status, or NULL for all together. A range that begins or ends within a period counts what is in the range.

period: first day of the period. starts_at: its midnight in Nairobi, for charts. value: of p_by (clusters as in tickets.cluster_spellings), "(none)" where there is none, NULL without p_by. created: tickets whose clock started (created_at_service, else first_seen_at), at the values that they were first seen with. closed: closings by closed_at, those included that were undone since, at the values of the snapshot that first showed them. closed_final: of these, those that still stand. reopened: tickets seen open again, by the time of the snapshot, as the source tells none. net: created + reopened - closed; of what was told with a time. undated: closings seen in the period whose closed_at the source does not tell: not in closed. clock_known_pct: of created, the share with created_at_service; the others are counted when the export first saw them, up to days late. provisional: the period ends after tickets.settled_through().

Trap: this is not the backlog''s change by day, for which see tickets.inc_backlog_daily(); do not mix the two.';
--! EndIncluded analytics/flow.sql
--! Included analytics/repair-times.sql
-- Repair times of what was closed, by the period of the closing.

create or replace function tickets.inc_repair_times(p_from date, p_to date, p_step text default 'week', p_by text default null)
returns table (
  period date, starts_at timestamptz, value text, n bigint,
  mttr_known_pct numeric, mttr_mean numeric, mttr_median numeric, mttr_p80 numeric, mttr_p95 numeric,
  hours_known_pct numeric, clock_known_pct numeric, hours_mean numeric, hours_median numeric, hours_p80 numeric, hours_p95 numeric,
  within_24h_pct numeric, within_48h_pct numeric, source_compliant_pct numeric, reopened_pct numeric, reopened_mature boolean,
  provisional boolean
)
language plpgsql stable
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_custom_plan
set jit = off
set random_page_cost = 1.1
as $$
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
comment on function tickets.inc_repair_times(date, date, text, text) is
'How long repairs took, by the period of the closing (closed_at, lifecycle time). Population: the closings of tickets.inc_closures in the period, those that were undone since included. A row for each period, and for each value of p_by in the range.

Arguments: as tickets.inc_flow().

period, starts_at, value: as there. n: closings. mttr_…: the source''s own figure in minutes; mttr_known_pct: share of n that has one. hours_…: hours by the wall clock from the ticket''s clock to closed_at; hours_known_pct: share of n for which it is known and not negative; clock_known_pct: share whose clock is created_at_service, not first_seen_at. …_mean: the average, which a few long ones move. …_median, …_p80, …_p95: the time within which the fastest half, 80 %, 95 % were done (fault repair time of ETSI EG 202 057): a time that occurred, not one between two; NULL under 5 known values. within_24h_pct, within_48h_pct: of those with known hours, at most so long. source_compliant_pct: of those with a verdict of the source, Compliant: its verdict is shown, not checked. reopened_pct: share of n that was reopened within 30 days; reopened_mature: these 30 days are over for the whole period, so the share is final. provisional: the period ends after tickets.settled_through().

Traps: it says nothing of tickets that are still open: for that see tickets.inc_time_to_close(). The feed has no pauses of the SLA. Two figures differ because mttr leaves waiting out.';
--! EndIncluded analytics/repair-times.sql
--! Included analytics/team-scorecard.sql
-- Teams: what each closed, how fast, how lastingly, and what it has on its hands.

create or replace function tickets.inc_team_scorecard(p_from date, p_to date)
returns table (
  assigned_team text, closed bigint, closed_final bigint, share_pct numeric, reopened_pct numeric, mttr_median numeric, hours_p80 numeric,
  within_48h_pct numeric, received bigint, handed_over bigint, open_now bigint, breached_now bigint, oldest_hours numeric, low_n boolean
)
language plpgsql stable
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_custom_plan
set jit = off
set random_page_cost = 1.1
as $$
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
comment on function tickets.inc_team_scorecard(date, date) is
'What each team did in [p_from, p_to), days in Nairobi, and what it has on its hands now. One row for each team that closed, moved or has something; "(none)" for tickets without a team.

closed: closings by closed_at, credited to the team of the snapshot that first showed them. closed_final: of these, those that still stand. share_pct: share of all closings. reopened_pct: of closed, reopened within 30 days (for a young range still growing). mttr_median: the source''s minutes; hours_p80: hours by the wall clock within which the fastest 80 % were closed; NULL under 5 known values. within_48h_pct: of those with known hours. received, handed_over: moves of open tickets to and from the team, by the snapshots'' own time. open_now, breached_now, oldest_hours: as in tickets.inc_open_sla, now, whatever the range is. low_n: under 20 closings: too few for a comparison. Those rows come last, by name: no ranking should be made of them.

Traps: a team that closes what others worked on gets the credit: see handed_over, and handover_at_close in tickets.inc_closures. Teams differ in what they are given: a share is no quality.';
--! EndIncluded analytics/team-scorecard.sql
--! Included analytics/time-to-close.sql
-- Time to close of what was opened, with those that are still open: the quick ones close first, so an average of the closed
-- ones is too short for every cohort that is not wholly closed.

-- Kaplan-Meier: at each time at which a ticket closed, the share that stays open is multiplied by 1 - closed / still open and
-- watched just before. The product as a sum of logarithms; it reaches 0 where all that were watched close.
-- No nested loops: until the tables are analyzed, as after a first load, the planner takes a whole year for a handful of
-- tickets, and compares each ticket with each closing (measured: 30 000 tickets, 40 s against 0.2).
-- 100 lines: one statement whose steps each read the one before. As functions they would be planned apart, without its arguments.
create or replace function tickets.inc_time_to_close(p_from date, p_to date, p_by text default null)
returns table (
  value text, opened bigint, closed bigint, still_open bigint, clock_known_pct numeric, within_24h_pct numeric, within_48h_pct numeric,
  median_hours numeric, p80_hours numeric, p95_hours numeric, naive_mean_hours numeric, naive_median_hours numeric, through timestamptz
)
language plpgsql stable
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_custom_plan
set jit = off
set random_page_cost = 1.1
set enable_nestloop = off
as $$
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
comment on function tickets.inc_time_to_close(date, date, text) is
'How long it takes until a ticket is closed for the first time, for the tickets whose clock started in [p_from, p_to), the still open ones included: an estimate by Kaplan-Meier. What was open at through is censored then (known to take longer than so far), whether it closed since or not: of the closings since then only some have been told. Where nothing is open any more, every closing counts. The naive figures leave the open ones out and are too short, the more so the younger the cohort. One row for each value of p_by.

Arguments: [p_from, p_to), days in Nairobi; p_by: team, cluster, region, owner, status, as first seen, or NULL for all together.

value: of p_by (clusters as in tickets.cluster_spellings), "(none)" where there is none. opened: tickets of the cohort. closed: of these, closed at least once. still_open: the others. clock_known_pct: share with created_at_service as the clock; the others count from first_seen_at, up to days late. within_24h_pct, within_48h_pct: estimated share closed at most so long after; NULL: none of the cohort was watched for so long. median_hours, p80_hours, p95_hours: estimated hours until half, 80 %, 95 % are closed; NULL: not so many are closed yet, or under 5 tickets were watched. naive_mean_hours, naive_median_hours (NULL under 5): of the closed ones alone, for comparison. through: tickets.settled_through().

Traps: tickets whose closing time is unknown or lies before their clock are counted in closed and left out of the estimate. A cohort of the last days is watched for hours only: most of it is NULL.';
--! EndIncluded analytics/time-to-close.sql
--! Included analytics/backlog-by-day.sql
-- The backlog by day: what was open after each day's last look at the bucket. No hour is set for it: the end of every look writes its
-- day anew, and a day ends at midnight in Nairobi (calendar.sql).

create or replace function tickets_ops.day_lock() returns bigint
  language sql immutable parallel safe
  return hashtextextended('fleettickets day', 0);
comment on function tickets_ops.day_lock() is 'Key of the advisory lock under which the ends of looks take turns to write their day.';

create or replace function tickets_ops.record_day(p_dataset text default 'inc') returns void
  language plpgsql
  set search_path = pg_catalog, pg_temp
as $$
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
comment on function tickets_ops.record_day(text) is 'Writes the day of the newest snapshot to tickets.inc_daily: what is open now, with its SLA and age as of the snapshot''s own time, and what entered and left the backlog. Called in the transaction that ends a look at the bucket: a snapshot completed, failed half-way, or found unchanged. Twice is as good as once; days before it are never touched. INC only: does nothing for another dataset, or before the first load.';

-- A spell is the time for which a ticket was open; its team and cluster on a day are those of its last change before the
-- next midnight. The region, whose changes are no events, is that of the spell's beginning.
create or replace function tickets_ops.rebuild_days() returns integer
  language plpgsql
  set search_path = pg_catalog, pg_temp
as $$
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
comment on function tickets_ops.rebuild_days() is 'Writes the days before the first one of tickets.inc_daily, as history tells them: without SLA states and ages, which it does not tell. For an upgrade and for an imported history, before the next look at the bucket. Returns how many rows it wrote.';

-- With memory for a year by team, 60 000 rows: hashed, sorted and given back without a file.
create or replace function tickets.inc_backlog_daily(p_from date, p_to date, p_by text default null)
returns table (
  day date, starts_at timestamptz, value text, open bigint, open_breached bigint, open_at_risk bigint, open_unknown bigint,
  aged_0_24h bigint, aged_24_48h bigint, aged_2_7d bigint, aged_7_30d bigint, aged_over_30d bigint,
  opened bigint, reopened bigint, closed bigint, net bigint, observed boolean
)
language plpgsql stable
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_custom_plan
set jit = off
set work_mem = '64MB'
as $$
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
comment on function tickets.inc_backlog_daily(date, date, text) is
'The open backlog at the end of each day, and what changed it, in observed time (the snapshots'' own): these figures are never revised. A row for each day, and for each value of p_by in the range.

Arguments: [p_from, p_to), days in Nairobi; p_by: team, cluster, region, or NULL for all together.

day; starts_at: its midnight in Nairobi, for charts. value: of p_by on that day (clusters as in tickets.cluster_spellings), "(none)" where there is none. open: tickets open after the day''s last look at the bucket. open_breached, open_at_risk, open_unknown: of these by the SLA as of that look (unknown: no clock). aged_0_24h … aged_over_30d: of these by their age as of that look; they add up to open - open_unknown. All of these are NULL where the day was rebuilt from the history, which tells no clocks. opened: tickets first seen open. reopened. closed: tickets that left the backlog, at the values that they closed with; those first seen closed never were in it. net: opened + reopened - closed. observed: the bucket was looked at on that day; else the day before is carried forward, and what changed is told on the next observed day. open is NULL before the first look and after today.

Without p_by open is that of the day before plus net. With p_by it need not be: tickets move between teams. Trap: closed here is not tickets.inc_flow''s, which counts all closings, when they happened.';
--! EndIncluded analytics/backlog-by-day.sql
--! Included serving/dashboard.sql
-- A dashboard of what is open and what was closed in a window: what dashboard_api serves beside the map.

create or replace function tickets.dashboard_features(p_open boolean, p_cluster text, p_status text, p_from timestamptz, p_to timestamptz)
returns jsonb language plpgsql stable
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_custom_plan
set jit = off
as $$
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
comment on function tickets.dashboard_features(boolean, text, text, timestamptz, timestamptz) is 'A GeoJSON FeatureCollection for reporting.fn_inc_dashboard(): the open tickets (p_open), or those closed in [p_from, p_to), that have a place.';

create or replace function tickets.dashboard_metrics(p_cluster text, p_status text, p_from timestamptz, p_to timestamptz)
returns jsonb language sql stable
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_custom_plan
set jit = off
as $$
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
comment on function tickets.dashboard_metrics(text, text, timestamptz, timestamptz) is 'The figures of reporting.fn_inc_dashboard(): of the open tickets now, and of the tickets that are closed and were so in [p_from, p_to). closed_mttr_median: the source''s minutes, NULL under 5 tickets. closed_within_48h_pct: of those with a known time from clock to closing.';
--! EndIncluded serving/dashboard.sql

-- The views last, and none waits for a lock for as long as Postgres takes to look for a deadlock (deadlock_timeout, 1 s): a reader of
-- two of them would be its victim. A view that is made anew loses its options; what a takeover found or the owner set is put back.
set local lock_timeout = '800ms';
select set_config('tickets_ops.view_options', jsonb_object_agg(relname, array_to_string(reloptions, ', '))::text, true)
from pg_class
where relnamespace = 'tickets'::regnamespace and reloptions is not null
  and relname in ('inc_closures', 'inc_ageing', 'inc_backlog', 'vehicles_now', 'open_places');

--! Included analytics/closures.sql
-- Closings, each with the team, the times and the figures that it was told with: tickets.inc knows a ticket's last one only.

-- Over 100 lines: one view, so that a question is planned together with it and reads only what it asks for. The inner query says
-- what was told of each closing, the joins what came after it.
create or replace view tickets.inc_closures as
select
  c.ticket_id,
  1 + coalesce(width_bucket(c.event_id, r.reopened), 0) as closure_no,
  c.closed_at,
  c.observed_at,
  c.observed,
  c.assigned_team,
  c.team_before,
  c.team_before is not null and c.team_before is distinct from c.assigned_team as handover_at_close,
  c.owner,
  c.cluster,
  c.region,
  clock.started_at as clock_start,
  clock.source as clock_source,
  round(extract(epoch from clock.lasted) / 3600, 2) as hours_to_close,
  c.mttr as mttr_minutes,
  c.sla_status as source_sla_status,
  tickets.within_a_day(clock.lasted) as within_24h,
  tickets.within_two_days(clock.lasted) as within_48h,
  (
    -- A change that comes with the closing is written after it, in the same snapshot; one that comes with the opening is none.
    select count(*)
    from (
      select o.event_id, o.snapshot_id from tickets.inc_events o
      where o.ticket_id = c.ticket_id and o.event_id < c.event_id and o.event in ('baseline', 'opened', 'reopened')
      order by o.event_id desc limit 1
    ) as opening
    join tickets.inc_events m on m.event_id > opening.event_id and m.snapshot_id is distinct from opening.snapshot_id
    where m.ticket_id = c.ticket_id and m.event = 'team_changed' and m.old_value is not null
      and (m.event_id < c.event_id or m.snapshot_id = c.snapshot_id)
  )::integer as reassignments,
  next.reopened_at,
  case when next.reopened_at >= c.closed_at then round(extract(epoch from next.reopened_at - c.closed_at) / 3600, 2) end as hours_to_reopen,
  next.reopened is null as is_final,
  c.normalized_status
from (
  -- A range of closed_at is one of an index in each branch: inc_events_closed_at, …_baseline_closed_at, …_corrected_at. The
  -- first, which has nearly all, has no `where`: so Postgres reads the table in its place, with the columns that are asked for
  -- only (a tenth less). `event = wanted` below is its condition.
  select
    true as observed, e.event_id, e.ticket_id, e.snapshot_id, e.snapshot_at as observed_at, e.assigned_team, e.team_before, e.owner, e.cluster,
    e.region, e.new_value as normalized_status, e.created_at_service, e.event_id as told_by, e.closed_at, e.mttr, e.sla_status,
    e.event, 'closed' as wanted
  from tickets.inc_events e
  union all
  -- Closed when history began: still closed, and no event says that it was closed since.
  select
    false, e.event_id, e.ticket_id, e.snapshot_id, coalesce(e.snapshot_at, e.recorded_at), e.assigned_team, e.team_before, e.owner, e.cluster,
    e.region, e.new_value, e.created_at_service, e.event_id, e.closed_at, e.mttr, e.sla_status, e.event, 'baseline'
  from tickets.inc_events e
  where e.event = 'baseline'
    and not exists (select from tickets.inc_events l where l.ticket_id = e.ticket_id and l.event = 'closed')
    and not exists (select from tickets.inc t where t.ticket_id = e.ticket_id and t.is_actionable) -- index inc_open
  union all
  -- A closing as it was corrected.
  select
    e.event = 'closed', e.event_id, e.ticket_id, e.snapshot_id, coalesce(e.snapshot_at, e.recorded_at), e.assigned_team, e.team_before, e.owner, e.cluster,
    e.region, e.new_value, e.created_at_service, k.event_id, k.closed_at, k.mttr, k.sla_status, k.event, 'closure_corrected'
  from tickets.inc_events k
  join tickets.inc_events e -- index inc_events_ticket
    on e.ticket_id = k.ticket_id and e.event_id < k.event_id and e.event in ('closed', 'baseline')
  where k.event = 'closure_corrected'
    -- Its last one before. Not `order by … limit 1`, with which no plan is parallel.
    and not exists (
      select from tickets.inc_events b
      where b.ticket_id = k.ticket_id and b.event in ('closed', 'baseline') and b.event_id > e.event_id and b.event_id < k.event_id
    )
) as c
-- What came after. Few tickets have anything of it, so a hash tells; a subquery per closing would keep plans from being parallel.
left join (
  select
    ticket_id,
    array_agg(event_id) filter (where event = 'reopened') as reopened,
    array_agg(snapshot_at) filter (where event = 'reopened') as reopened_at,
    array_agg(event_id) filter (where event = 'closure_corrected') as corrected
  from (
    -- Sorted here, so that the arrays are: sorting in each takes twice as long.
    select * from tickets.inc_events where event in ('reopened', 'closure_corrected') order by ticket_id, event_id -- index inc_events_revisions
  ) as e
  group by ticket_id
) as r on r.ticket_id = c.ticket_id
-- width_bucket() says how many of the array come no later than this closing was told: the next one is one further on.
cross join lateral (
  select
    r.reopened[width_bucket(c.told_by, r.reopened) + 1] as reopened,
    r.reopened_at[width_bucket(c.told_by, r.reopened) + 1] as reopened_at,
    r.corrected[width_bucket(c.told_by, r.corrected) + 1] as corrected
) as next
left join tickets.inc t on t.ticket_id = c.ticket_id
cross join lateral (
  -- As it was told with the closing, else as it is known today.
  select
    tickets.clock_start(told.created_at_service, t.first_seen_at) as started_at, tickets.clock_source(told.created_at_service, t.first_seen_at) as source,
    tickets.time_to_close(tickets.clock_start(told.created_at_service, t.first_seen_at), c.closed_at) as lasted
  from (select coalesce(c.created_at_service, t.created_at_service) as created_at_service) as told
) as clock
where
  c.event = c.wanted
  -- Closed when history began: only where no event says that it was opened since.
  and (c.observed or next.reopened is null)
  -- Each closing once: as it was last told. A correction after a reopening is one of the next closing.
  and (next.corrected is null or next.corrected > next.reopened);
comment on view tickets.inc_closures is 'Closings, one row each: a ticket that was reopened has several. Population: every time that a ticket was seen to be closed, a first sight included, and the tickets that were closed when history began and were never reopened since. count(*) where is_final = tickets that are not open. Trap: it also holds closings that were undone; filter is_final, or say which you count.';
comment on column tickets.inc_closures.ticket_id is 'The ticket''s number.';
comment on column tickets.inc_closures.closure_no is '1 for the ticket''s first closing, 2 for the next, …. One before history that was undone counts, and has no row.';
comment on column tickets.inc_closures.closed_at is 'When it was closed, as the source last told of this closing. NULL: it has not told. Lifecycle time: told days late, and corrected at times.';
comment on column tickets.inc_closures.observed_at is 'The export''s own time of the snapshot that first showed it closed; for closings before history the time at which history began. It never changes.';
comment on column tickets.inc_closures.observed is 'false: closed before history began, so nobody saw it happen.';
comment on column tickets.inc_closures.assigned_team is 'The closing team, which is credited: that of the snapshot that first showed it closed. What the ticket''s team became later does not matter. NULL: none.';
comment on column tickets.inc_closures.team_before is 'The team before that snapshot. NULL: none, or the ticket was first seen closed.';
comment on column tickets.inc_closures.handover_at_close is 'The team changed in the very snapshot that shows the closing: team_before may have done the work.';
comment on column tickets.inc_closures.owner is 'The ticket''s owner then.';
comment on column tickets.inc_closures.cluster is 'The ticket''s cluster then, as the feed wrote it: group by tickets.cluster_key(cluster), as the functions do.';
comment on column tickets.inc_closures.region is 'The ticket''s region then, lower case.';
comment on column tickets.inc_closures.clock_start is 'When the ticket''s clock started: created_at_service, else first_seen_at. It starts once, also for later closings of a ticket that was reopened.';
comment on column tickets.inc_closures.clock_source is 'created_at_service, or first_seen_at (about 30 %), which is when the export first saw the ticket and so up to days late. NULL: neither is known.';
comment on column tickets.inc_closures.hours_to_close is 'Hours by the wall clock from clock_start to closed_at. NULL: one of them is unknown, or the closing comes first, as it does where a late first_seen_at is the clock. Pauses of the SLA are in it: the feed has none.';
comment on column tickets.inc_closures.mttr_minutes is 'The source''s own repair time in whole minutes, as last told of this closing. It is not hours_to_close: the source takes waiting off that it does not tell.';
comment on column tickets.inc_closures.source_sla_status is 'The source''s own verdict: Compliant or Breached. It is not reconciled with any clock here.';
comment on column tickets.inc_closures.within_24h is 'Closed at most 24 h after clock_start. NULL where hours_to_close is.';
comment on column tickets.inc_closures.within_48h is 'Closed at most 48 h after clock_start. NULL where hours_to_close is.';
comment on column tickets.inc_closures.reassignments is 'How often the ticket left a team between being opened (or reopened) and this closing, as the snapshots saw it; a handover at the close is one. A first assignment is none.';
comment on column tickets.inc_closures.reopened_at is 'The export''s own time of the snapshot that showed it open again: the source tells no time of its own. NULL: it was not reopened.';
comment on column tickets.inc_closures.hours_to_reopen is 'Hours from closed_at to reopened_at.';
comment on column tickets.inc_closures.is_final is 'It still stands: the ticket was not reopened since.';
comment on column tickets.inc_closures.normalized_status is 'The status that it was closed with.';
--! EndIncluded analytics/closures.sql
--! Included analytics/ageing.sql
-- How old the open tickets are, now.

create or replace view tickets.inc_ageing as
select
  t.assigned_team,
  c.shown as cluster,
  count(*) as open,
  count(*) filter (where age.bucket = 0) as aged_0_4h,
  count(*) filter (where age.bucket = 1) as aged_4_24h,
  count(*) filter (where age.bucket = 2) as aged_24_48h,
  count(*) filter (where age.bucket = 3) as aged_2_7d,
  count(*) filter (where age.bucket = 4) as aged_7_30d,
  count(*) filter (where age.bucket = 5) as aged_over_30d,
  count(*) filter (where age.bucket is null) as aged_unknown
from tickets.inc_open_sla t
left join tickets.cluster_spellings() s on s.cluster_key = tickets.cluster_key(t.cluster)
cross join lateral (select coalesce(s.spelling, tickets.cluster_key(t.cluster)) as shown) as c
cross join lateral (select tickets.age_bucket(t.hours_open) as bucket) as age
group by t.assigned_team, c.shown;
comment on view tickets.inc_ageing is 'The open tickets now by age, one row per team and cluster: hours since created_at_service, else first_seen_at, as in tickets.inc_open_sla. The buckets add up to open.';
comment on column tickets.inc_ageing.assigned_team is 'Team; NULL: none.';
comment on column tickets.inc_ageing.cluster is 'Network cluster, in one spelling (tickets.cluster_spellings); NULL: none.';
comment on column tickets.inc_ageing.open is 'Open tickets.';
comment on column tickets.inc_ageing.aged_0_4h is 'Open for under 4 h, or with a clock that starts in the future.';
comment on column tickets.inc_ageing.aged_4_24h is 'Open for 4 h to under 24 h.';
comment on column tickets.inc_ageing.aged_24_48h is 'Open for 24 h to under 48 h.';
comment on column tickets.inc_ageing.aged_2_7d is 'Open for 48 h to under 7 days.';
comment on column tickets.inc_ageing.aged_7_30d is 'Open for 7 to under 30 days.';
comment on column tickets.inc_ageing.aged_over_30d is 'Open for 30 days or more.';
comment on column tickets.inc_ageing.aged_unknown is 'Without a clock.';
--! EndIncluded analytics/ageing.sql
--! Included analytics/backlog-by-snapshot.sql
-- The open backlog over time.

-- The order of a ticket's events (index inc_events_ticket) tells what a single one does not: whether a baseline was open, and that
-- a `closed` that is its first never was in the backlog. The latter is tickets.left_backlog() by another way, which also holds for
-- events that others wrote without an old_value; of those that the pipeline writes tests find the two equal, day by day.
create or replace view tickets.inc_backlog as
with changes as (
  select
    coalesce(e.snapshot_at, e.recorded_at) as snapshot_at,
    e.event,
    e.snapshot_id is not distinct from 0 as is_imported,
    case e.event
      when 'closed' then case when lag(e.event) over history is null then 0 else -1 end
      when 'baseline' then tickets.baseline_was_open(
        lead(e.event) over history, (select t.is_actionable from tickets.inc t where t.ticket_id = e.ticket_id)
      )::integer
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
group by snapshot_at
-- A takeover may have imported closings of before the baseline: they tell nothing of what else was open then.
having not bool_and(is_imported);
comment on view tickets.inc_backlog is 'Open backlog over time, one row per snapshot that opened, reopened or closed a ticket. It reads the whole history (measured: 2 s for 500 000 events). Per day (EAT): select distinct on (1) (snapshot_at at time zone ''Africa/Nairobi'')::date, open_tickets from tickets.inc_backlog order by 1, snapshot_at desc.';
comment on column tickets.inc_backlog.snapshot_at is 'The export''s own time of the snapshot; for a baseline, when history began.';
comment on column tickets.inc_backlog.opened is 'Tickets first seen open.';
comment on column tickets.inc_backlog.reopened is 'Tickets opened again.';
comment on column tickets.inc_backlog.closed is 'Tickets that were open and no longer are. Those first seen closed are not counted: closures per day are in tickets.inc.closed_at.';
comment on column tickets.inc_backlog.open_tickets is 'Open tickets once the snapshot was in.';
--! EndIncluded analytics/backlog-by-snapshot.sql
--! Included dispatch/vehicles-now.sql
-- The vehicles, and what may be believed of each position. How old one may be is a matter of the operator (live_minutes and stale_hours in
-- tickets.dispatch_settings); how far clocks may differ (2 minutes) and for how long a tracker may sleep (60 minutes) are trackers'
-- ways, and constants here.

create or replace view tickets.vehicles_now as
select
  v.vehicle_id,
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
  now() - v.located_at as age,
  belief.freshness,
  tickets.is_usable(belief.freshness) as usable,
  coalesce(held.assignments, 0) as open_assignments
from tickets.tracked_vehicles() v
-- A table of one row is never analyzed, and without LIMIT planned as 740: so costly that Postgres compiles the query, for a second.
cross join (select * from tickets.dispatch_settings limit 1) as s
cross join lateral (
  select case when (v.lng <> 0 or v.lat <> 0) and st_covers(s.area, point.geog::geometry) then point.geog end as geog
  from (select tickets.lng_lat(v.lng, v.lat) as geog) as point
) as place
cross join lateral (
  select case
    when place.geog is null then 'nowhere'
    when v.located_at > now() + interval '2 minutes' then 'clock'
    when v.located_at >= now() - make_interval(mins => s.live_minutes) then 'live'
    when v.located_at is not null and v.seen_at between now() - interval '60 minutes' and now() + interval '2 minutes'
      and not coalesce(v.moving, v.speed_kmh > 0) then 'parked'
    when v.located_at >= now() - make_interval(hours => s.stale_hours) then 'stale'
    else 'lost'
  end as freshness
) as belief
left join (
  select a.vehicle_id, count(*)::integer as assignments from tickets.assignments a where a.state = 'assigned' group by 1
) as held on held.vehicle_id = v.vehicle_id;
comment on view tickets.vehicles_now is 'The vehicles as of now(), one row each, with what may be believed of each position.';
comment on column tickets.vehicles_now.vehicle_id is 'The tracker''s own number of the vehicle.';
comment on column tickets.vehicles_now.label is 'What people call it: registration plate or name.';
comment on column tickets.vehicles_now.team is 'Team that drives it.';
comment on column tickets.vehicles_now.lng is 'As the tracker says it, WGS 84 degrees, believed or not: see geog.';
comment on column tickets.vehicles_now.lat is 'As the tracker says it, WGS 84 degrees, believed or not: see geog.';
comment on column tickets.vehicles_now.located_at is 'When the position was taken.';
comment on column tickets.vehicles_now.seen_at is 'When the tracker last reported anything.';
comment on column tickets.vehicles_now.moving is 'Whether it moved when last seen.';
comment on column tickets.vehicles_now.speed_kmh is 'Speed at the last position, km/h.';
comment on column tickets.vehicles_now.source is 'Which tracker says so.';
comment on column tickets.vehicles_now.geog is 'The position, for distances in metres. NULL where freshness is nowhere.';
comment on column tickets.vehicles_now.age is 'Since the position was taken; negative when that lies in the future. NULL: the tracker gave no time.';
comment on column tickets.vehicles_now.freshness is 'live: located at most live_minutes (15) ago. parked: longer ago, but seen at most 60 minutes ago and not moving then (a sleeping tracker). stale: located at most stale_hours (24) ago. lost: longer ago, or nobody knows when. clock: located more than 2 minutes in the future. nowhere: no position, 0,0, or outside the operating area (tickets.dispatch_settings).';
comment on column tickets.vehicles_now.usable is 'live or parked: a plan may send it somewhere. A stale one goes only where that is asked for.';
comment on column tickets.vehicles_now.open_assignments is 'Tickets that it is assigned to (tickets.assignments).';
--! EndIncluded dispatch/vehicles-now.sql
--! Included tickets/open-places.sql
-- The places of open tickets, of all datasets that are on: what is to be asked, and what a doubt is worth.

-- Planning reads it for every load, so each table is read through its partial index: *_open.
create or replace view tickets.open_places as
select
  cluster_key, location_key,
  mode() within group (order by cluster) as cluster,
  min(location_name) as location_name,
  count(*) as tickets,
  count(*) filter (where dataset = 'inc') as inc_tickets,
  count(*) filter (where dataset = 'crq') as crq_tickets,
  count(*) filter (where geo_source <> 'feed') as without_coordinates,
  max(seen_at) as newest_at
from (
  select
    'inc' as dataset, tickets.cluster_key(cluster) as cluster_key, tickets.cluster_spelling(cluster) as cluster, location_key, location_name,
    geo_source, coalesce(created_at_service, first_seen_at, ingested_at) as seen_at
  from tickets.inc
  where is_actionable
  union all
  select
    'crq', tickets.cluster_key(cluster), tickets.cluster_spelling(cluster), location_key, location_name,
    geo_source, coalesce(created_at_service, first_seen_at, ingested_at)
  from tickets.crq
  where is_actionable and 'crq' in (select tickets.datasets())
) as t
where cluster_key is not null
group by cluster_key, location_key;
comment on view tickets.open_places is 'Where the open (actionable) tickets of all datasets that are on lie by their names: one row for each location of a cluster. What geocoding is planned from. Not in it: tickets without a cluster.';
comment on column tickets.open_places.cluster_key is 'The cluster as it is compared: without case and blanks (tickets.cluster_key).';
comment on column tickets.open_places.location_key is 'The location as it is compared (tickets.location_key). NULL: the name holds network codes only, or nothing.';
comment on column tickets.open_places.cluster is 'The cluster as most of these tickets write it.';
comment on column tickets.open_places.location_name is 'One of the spellings of the location.';
comment on column tickets.open_places.tickets is 'Open tickets there, of all datasets that are on.';
comment on column tickets.open_places.inc_tickets is 'Of these, faults.';
comment on column tickets.open_places.crq_tickets is 'Of these, requests for new installations.';
comment on column tickets.open_places.without_coordinates is 'Of tickets, those to which the feed gives no coordinates of their own: where the place lies decides where they lie.';
comment on column tickets.open_places.newest_at is 'When the newest of them began: created_at_service, else first_seen_at, else when its row was written. May lie in the future, where the feed is wrong.';
--! EndIncluded tickets/open-places.sql

do $$
declare
  v_view text;
  v_options text;
begin
  for v_view, v_options in
    select key, value from jsonb_each_text(nullif(current_setting('tickets_ops.view_options', true), '')::jsonb)
  loop
    execute format('alter view tickets.%I set (%s)', v_view, v_options);
  end loop;
end
$$;
