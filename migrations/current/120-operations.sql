-- Operating the pipeline from SQL: who works, which jobs there are, what to do with one, how healthy all of it is.
--
-- graphile-worker's tables are private: they have row security and no grants, so a role that does not own them sees nothing.
-- What operators use is therefore built on security definer functions with a pinned search_path. And on functions, not on
-- views of its tables: a view would keep that library's own migrations from changing them. For the same reason the
-- functions' bodies are texts, which bind to nothing.

-- Workers -------------------------------------------------------------------------------------------------------------

create table tickets_ops.workers (
  pool_id text primary key,
  started_at timestamptz not null default now(),
  seen_at timestamptz not null default now(),
  host text not null,
  pid integer not null,
  sessions text not null,
  shares_sessions boolean not null default false,
  stopped_at timestamptz,
  declared_dead_at timestamptz
);
comment on table tickets_ops.workers is 'Worker processes. A live one holds the advisory lock of its pool id on a connection of its own, and registers only once it holds it: a registered pool whose lock is free is dead. Read tickets_ops.worker_states().';
comment on column tickets_ops.workers.pool_id is 'graphile-worker''s pool id: what locked_by says of its jobs.';
comment on column tickets_ops.workers.started_at is 'When the pool registered.';
comment on column tickets_ops.workers.seen_at is 'Heartbeat, every 5 s.';
comment on column tickets_ops.workers.host is 'Host or container name: `fleettickets healthcheck` asks for the one it runs on.';
comment on column tickets_ops.workers.pid is 'Process id on that host.';
comment on column tickets_ops.workers.sessions is 'application_name of all its connections, so that those of a worker that hangs can be ended.';
comment on column tickets_ops.workers.shares_sessions is 'Its connections are not sessions of their own (a pooler in transaction mode, the embedded database): its lock says nothing, and nobody can tell whether it lives.';
comment on column tickets_ops.workers.stopped_at is 'When it shut down in good order.';
comment on column tickets_ops.workers.declared_dead_at is 'When another worker took its jobs away: if it still lives, it ends itself at its next heartbeat.';

create function tickets_ops.worker_lock(p_pool_id text, out space integer, out number integer) language sql immutable
return row(740512, hashtext(p_pool_id));
comment on function tickets_ops.worker_lock(text) is 'The two numbers of the advisory lock that a live worker pool holds.';

create function tickets_ops.worker_states()
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
      -- A worker that cannot reach the database ends itself after 30 s (src/lifeline.ts); this one does not even do that.
      when w.seen_at < now() - interval '2 minutes' then 'hung'
      else 'alive'
    end,
    w.host, w.pid, w.sessions, w.started_at, w.seen_at
  from tickets_ops.workers w
$$;
comment on function tickets_ops.worker_states() is 'Registered worker pools, each with its state: alive; stopped (in good order); dead (its lock is free, or it was declared dead); hung (it holds its lock and has not been heard of for 2 minutes); unsure (its connections share sessions, so nobody can tell).';

-- The schedule --------------------------------------------------------------------------------------------------------

create function tickets_ops.last_scheduled_run(p_at timestamptz) returns timestamptz language sql stable
return (
  -- A quarter of an hour earlier the runs are on the hour, and those of the evening are of the same day.
  select (
    case
      when extract(hour from t.wall) < 7 then date_trunc('day', t.wall) - interval '5 hours'
      else date_trunc('day', t.wall) + make_interval(hours => least(extract(hour from t.wall), 19)::integer)
    end + interval '15 minutes'
  ) at time zone 'Africa/Nairobi'
  from (select (p_at at time zone 'Africa/Nairobi') - interval '15 minutes' as wall) as t
);
comment on function tickets_ops.last_scheduled_run(timestamptz) is 'The last time at or before p_at when the schedule (07:15 to 19:15 in Nairobi, hourly) looks at the bucket. The schedule itself is the file crontab; a test holds the two together.';

create function tickets_ops.next_scheduled_run(p_at timestamptz) returns timestamptz language sql stable
return (
  select case when extract(hour from last at time zone 'Africa/Nairobi') = 19 then last + interval '12 hours' else last + interval '1 hour' end
  from tickets_ops.last_scheduled_run(p_at) as last
);
comment on function tickets_ops.next_scheduled_run(timestamptz) is 'The next time after p_at when the schedule looks at the bucket.';

-- Jobs ----------------------------------------------------------------------------------------------------------------

create function tickets_ops.list_jobs()
returns table (
  id bigint, task text, key text, payload jsonb, queue text, priority integer, state text, run_at timestamptz, attempts integer,
  max_attempts integer, last_error text, locked_by text, age interval, failed_at timestamptz, superseded text
)
language sql stable security definer set search_path = pg_catalog, pg_temp as $$
  select
    j.id, t.identifier, j.key, j.payload::jsonb, q.queue_name, j.priority, s.state, j.run_at, j.attempts, j.max_attempts,
    j.last_error, j.locked_by, date_trunc('second', now() - j.created_at), f.failed_at,
    case when s.state = 'failed' then
      case
        when t.identifier = 'fetch_snapshot' and m.checked_at > f.failed_at then
          format('The bucket was looked at again on %s.', to_char(m.checked_at, 'YYYY-MM-DD HH24:MI'))
        when l.newer is not null then format('Snapshot %s came after it.', l.newer)
        when l.status not in ('failed', 'staging', 'loading', 'finalizing') then format('Snapshot %s is %s.', l.snapshot_id, l.status)
      end
    end
  from graphile_worker._private_jobs j
  join graphile_worker._private_tasks t on t.id = j.task_id
  left join graphile_worker._private_job_queues q on q.id = j.job_queue_id
  cross join lateral (
    select case
      when j.locked_at is not null then 'running'
      when j.attempts >= j.max_attempts then 'failed'
      when j.attempts > 0 then 'retrying'
      when j.run_at > now() then 'scheduled'
      else 'ready'
    end as state
  ) as s
  -- graphile-worker keeps no time of failure, but puts run_at that far beyond it.
  cross join lateral (
    select case when s.state = 'failed' then
      greatest(j.updated_at, j.run_at - exp(least(j.attempts, 10)) * interval '1 second')
    end as failed_at
  ) as f
  left join lateral (
    select tickets.eat_ts(i.metadata ->> 'checked_at') as checked_at
    from tickets.import_meta i where i.dataset = coalesce(j.payload ->> 'dataset', 'inc')
  ) as m on s.state = 'failed'
  left join lateral (
    select
      n.snapshot_id, n.status,
      (select min(x.snapshot_id) from tickets_ops.snapshots x where x.dataset = n.dataset and x.staged_at > n.staged_at) as newer
    from tickets_ops.snapshots n
    where t.identifier in ('upsert_batch', 'finalize_snapshot')
      and n.snapshot_id = case when j.payload ->> 'snapshot_id' ~ '^[0-9]{1,18}$' then (j.payload ->> 'snapshot_id')::bigint end
  ) as l on s.state = 'failed'
$$;
comment on function tickets_ops.list_jobs() is 'The jobs of the pipeline, for tickets_ops.jobs and tickets_ops.failed_jobs. Reads graphile-worker''s private tables with their owner''s rights.';

create view tickets_ops.jobs as
select id, task, key, payload, queue, priority, state, run_at, attempts, max_attempts, last_error, locked_by, age
from tickets_ops.list_jobs();
comment on view tickets_ops.jobs is 'Every job that waits, runs or has failed; one that succeeded is gone (tickets_ops.snapshots remembers the loads).';
comment on column tickets_ops.jobs.id is 'Number of the job, for tickets_ops.retry_job and tickets_ops.cancel_job. A geocoding job that puts itself back gets a new one.';
comment on column tickets_ops.jobs.task is 'fetch_snapshot, upsert_batch, finalize_snapshot, geocode_cluster, geocode_location or maintain.';
comment on column tickets_ops.jobs.key is 'What the job is for; of the jobs that wait, only one has it. It survives the job''s putting itself back, the id does not.';
comment on column tickets_ops.jobs.payload is 'What the task was asked to do.';
comment on column tickets_ops.jobs.queue is 'Named queue, whose jobs run one by one. NULL: none.';
comment on column tickets_ops.jobs.priority is 'Lower runs first: loads -10, what a person asked to geocode 10, planned places 20 and up.';
comment on column tickets_ops.jobs.state is 'ready: waits for a free worker. scheduled: waits for run_at. running. retrying: an attempt failed, the next is at run_at. failed: no attempt is left.';
comment on column tickets_ops.jobs.run_at is 'Not before this time.';
comment on column tickets_ops.jobs.attempts is 'Attempts so far, the running one included.';
comment on column tickets_ops.jobs.max_attempts is 'Attempts allowed. One more for each worker that died over the job.';
comment on column tickets_ops.jobs.last_error is 'Why the last attempt failed.';
comment on column tickets_ops.jobs.locked_by is 'tickets_ops.workers.pool_id of the worker that runs it.';
comment on column tickets_ops.jobs.age is 'Since it was asked for.';

create view tickets_ops.failed_jobs as
select id, task, key, payload, failed_at, attempts, last_error, superseded
from tickets_ops.list_jobs()
where state = 'failed'
order by failed_at desc;
comment on view tickets_ops.failed_jobs is 'Jobs without an attempt left, the latest first. Try one again: select * from tickets_ops.retry_job(id). Removed by age (KEEP_FAILED_JOBS_DAYS).';
comment on column tickets_ops.failed_jobs.id is 'Number of the job.';
comment on column tickets_ops.failed_jobs.task is 'The task.';
comment on column tickets_ops.failed_jobs.key is 'What the job was for. NULL when it has been asked for anew since.';
comment on column tickets_ops.failed_jobs.payload is 'What the task was asked to do.';
comment on column tickets_ops.failed_jobs.failed_at is 'When its last attempt failed.';
comment on column tickets_ops.failed_jobs.attempts is 'Attempts made.';
comment on column tickets_ops.failed_jobs.last_error is 'Why the last one failed.';
comment on column tickets_ops.failed_jobs.superseded is 'Why it no longer matters; tickets_ops.health does not count it. NULL: it does.';

create function tickets_ops.reopen_snapshot(p_snapshot_id bigint) returns text language plpgsql as $$
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
    and (status in ('staging', 'loading', 'finalizing') or staged_at > v_snapshot.staged_at);
  if v_newer is not null then
    return format('Snapshot %s is superseded by snapshot %s: it stays failed.', p_snapshot_id, v_newer);
  elsif v_snapshot.batches_total is null then
    return format('Snapshot %s was never read to its end. Read it again: select * from tickets_ops.fetch_now(%L, true);', p_snapshot_id, v_snapshot.dataset);
  elsif not exists (select from tickets_ops.snapshot_rows where snapshot_id = p_snapshot_id) then
    return format('The staged rows of snapshot %s have been pruned. Read it again: select * from tickets_ops.fetch_now(%L, true);', p_snapshot_id, v_snapshot.dataset);
  end if;
  update tickets_ops.snapshots
  set status = case when batches_done = batches_total then 'finalizing' else 'loading' end, error = null, progress_at = now()
  where snapshot_id = p_snapshot_id;
  update tickets_ops.snapshot_batches set status = 'pending', error = null where snapshot_id = p_snapshot_id and status = 'failed';
  return null;
exception
  when unique_violation then
    return format('Snapshot %s has to wait: another one is in flight.', p_snapshot_id);
end
$$;
comment on function tickets_ops.reopen_snapshot(bigint) is 'Puts a failed snapshot back in flight, so that its jobs can go on; the caller revives the jobs. Returns why it cannot, NULL when it is in flight.';

create function tickets_ops.revive_job(p_id bigint) returns text language plpgsql as $$
declare
  -- As many as a job of the pipeline has from the start: one that gave up has no more than it made.
  c_attempts constant integer := 6;
  v_job record;
  v_obstacle text;
begin
  select task, state, payload into v_job from tickets_ops.list_jobs() where id = p_id;
  if v_job.state = 'running' then
    return 'It is running at this moment. If its worker has died, it is freed by itself within seconds.';
  end if;
  if v_job.task in ('upsert_batch', 'finalize_snapshot') and v_job.state = 'failed' and v_job.payload ->> 'snapshot_id' ~ '^[0-9]{1,18}$' then
    v_obstacle := tickets_ops.reopen_snapshot((v_job.payload ->> 'snapshot_id')::bigint);
    if v_obstacle is not null then
      return v_obstacle;
    end if;
  end if;
  update graphile_worker._private_jobs
  set attempts = 0, max_attempts = greatest(max_attempts, c_attempts), run_at = now(), last_error = null, updated_at = now(),
    -- A request that gave up waiting waits anew.
    payload = case when v_job.task = 'fetch_snapshot' and json_typeof(payload) = 'object' then (payload::jsonb - 'waits')::json else payload end
  where id = p_id and locked_at is null;
  return case when not found then 'A worker has just taken it, or it is gone.' end;
end
$$;
comment on function tickets_ops.revive_job(bigint) is 'Makes a waiting or failed job due now, with all its attempts. Returns why it cannot, else NULL.';

create function tickets_ops.retry_job(p_id bigint)
returns table (job_id bigint, task text, job_key text, note text)
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
#variable_conflict use_column
declare
  v_job record;
  v_obstacle text;
  v_others bigint;
begin
  select j.id, j.task, j.key, j.payload into v_job from tickets_ops.list_jobs() j where j.id = p_id;
  if not found then
    raise exception 'There is no job %.', p_id using hint = 'A job that succeeded is gone. See tickets_ops.jobs.';
  end if;
  v_obstacle := tickets_ops.revive_job(p_id);
  if v_obstacle is not null then
    raise exception 'Job % is not tried again. %', p_id, v_obstacle;
  end if;
  select count(*) into v_others
  from tickets_ops.list_jobs() j
  where j.state = 'failed' and j.task = v_job.task and j.payload -> 'snapshot_id' = v_job.payload -> 'snapshot_id';
  return query select v_job.id, v_job.task, v_job.key, concat_ws(' ',
    'It is due now.',
    case when v_others > 0 then format('%s more of snapshot %s failed: select * from tickets_ops.retry_failed(%L);', v_others, v_job.payload ->> 'snapshot_id', v_job.task) end
  );
end
$$;
comment on function tickets_ops.retry_job(bigint) is 'Tries a failed job again now, or a waiting one at once, with all its attempts: select * from tickets_ops.retry_job(17). A load job reopens its snapshot. Raises when there is no such job, when it is running, or when its snapshot cannot be reopened (a newer one superseded it).';

create function tickets_ops.retry_failed(p_task text default null)
returns table (job_id bigint, task text, job_key text, note text)
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
#variable_conflict use_column
begin
  return query
    select j.id, j.task, j.key, coalesce(case when j.superseded is not null then 'Left alone. ' || j.superseded end, r.obstacle, 'It is due now.')
    from (
      select * from tickets_ops.list_jobs() l where l.state = 'failed' and (p_task is null or l.task = p_task) order by l.id
    ) as j
    -- The newest of those that ask for the same: a job that failed again every hour is tried once.
    cross join lateral (
      select case
        when j.superseded is not null then null
        when exists (
          select from tickets_ops.list_jobs() n
          where n.task = j.task and n.payload - 'waits' - '_cron' = j.payload - 'waits' - '_cron' and n.id > j.id
        ) then 'Left alone. A later job asks for the same.'
        else tickets_ops.revive_job(j.id)
      end as obstacle
    ) as r;
end
$$;
comment on function tickets_ops.retry_failed(text) is 'Tries every failed job again, or those of one task: select * from tickets_ops.retry_failed(''geocode_location''). Returns each with what became of it; those that no longer matter, or that a later job repeats, are left alone.';

create function tickets_ops.cancel_job(p_id bigint) returns text
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
  v_job record;
  v_snapshot bigint;
  v_removed bigint;
begin
  select j.id, j.task, j.state, j.payload into v_job from tickets_ops.list_jobs() j where j.id = p_id;
  if not found then
    raise exception 'There is no job %.', p_id using hint = 'A job that succeeded is gone. See tickets_ops.jobs.';
  end if;
  if v_job.task in ('upsert_batch', 'finalize_snapshot') and v_job.payload ->> 'snapshot_id' ~ '^[0-9]{1,18}$' then
    -- A snapshot in flight would only ask for the job again. Waits for batches that are being written: a newer snapshot
    -- must not be compared with tickets that one of them is about to change.
    perform from tickets_ops.snapshots where snapshot_id = (v_job.payload ->> 'snapshot_id')::bigint for update;
    update tickets_ops.snapshots
    set status = 'failed', error = format('Cancelled by %s', session_user), progress_at = now()
    where snapshot_id = (v_job.payload ->> 'snapshot_id')::bigint and status in ('loading', 'finalizing')
    returning snapshot_id into v_snapshot;
  end if;
  if v_job.state = 'running' then
    perform tickets_ops.give_up(p_id);
    return format('Job %s is running and cannot be stopped, but if it fails it is not tried again.', p_id);
  end if;
  select count(*) into v_removed
  from graphile_worker.complete_jobs(array(
    select j.id from tickets_ops.list_jobs() j
    where j.id = p_id
      or (v_snapshot is not null and j.task in ('upsert_batch', 'finalize_snapshot') and j.payload ->> 'snapshot_id' = v_snapshot::text)
  ));
  if v_removed = 0 then
    return format('A worker has just taken job %s.', p_id);
  end if;
  return case when v_snapshot is null then format('Job %s is cancelled.', p_id)
    else format('Snapshot %s is cancelled, with %s of its jobs. What its batches had loaded stays. Load it after all: select * from tickets_ops.fetch_now(force => true);', v_snapshot, v_removed) end;
end
$$;
comment on function tickets_ops.cancel_job(bigint) is 'Removes a waiting or failed job, and says so. A running one cannot be stopped, but is not tried again. A job of a snapshot in flight takes the snapshot with it, which becomes failed. Raises when there is no such job.';

create function tickets_ops.fetch_now(dataset text default 'inc', force boolean default false)
returns table (job_id bigint, job_key text, already_waiting boolean, note text)
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
#variable_conflict use_column
declare
  v_force boolean := coalesce(fetch_now.force, false);
  v_key text := format('fetch_snapshot:%s:%s', fetch_now.dataset, case when v_force then 'force' else 'newest' end);
  v_waiting boolean;
  v_in_flight text;
  v_job graphile_worker._private_jobs;
begin
  if fetch_now.dataset is null or fetch_now.dataset not in ('inc', 'crq') then
    raise exception 'There is no dataset %.', coalesce(quote_literal(fetch_now.dataset), 'NULL')
      using hint = 'inc or crq: select * from tickets_ops.fetch_now(''inc'');';
  end if;
  v_waiting := exists (
    select from tickets_ops.list_jobs() j where j.key = v_key and j.state in ('ready', 'scheduled', 'retrying')
  );
  select format('Snapshot %s is %s; it waits for that.', s.snapshot_id, s.status) into v_in_flight
  from tickets_ops.snapshots s
  where s.dataset = fetch_now.dataset and s.status in ('staging', 'loading', 'finalizing');
  v_job := graphile_worker.add_job(
    'fetch_snapshot',
    jsonb_strip_nulls(jsonb_build_object('dataset', fetch_now.dataset, 'force', case when v_force then true end))::json,
    job_key := v_key, run_at := now(), max_attempts := 6, priority := -10
  );
  if v_job.id is null then
    raise exception 'The job % is being taken by a worker at this moment.', v_key using hint = 'Ask again.';
  end if;
  return query select v_job.id, v_key, v_waiting, concat_ws(' ',
    case when v_waiting then 'It waited already, and is due now.' else 'The bucket is looked at now.' end,
    v_in_flight,
    case when not exists (select from tickets_ops.worker_states() w where w.state in ('alive', 'unsure')) then 'But no worker is alive.' end
  );
end
$$;
comment on function tickets_ops.fetch_now(text, boolean) is 'Looks at the bucket now: select * from tickets_ops.fetch_now(). force: loads the newest file again, although it is unchanged, failed or archived. Returns the job''s id and key, whether such a job waited already, and a note. Raises for a dataset other than inc and crq.';

-- Health --------------------------------------------------------------------------------------------------------------

create function tickets_ops.read_health()
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
  meta as (
    select
      max(tickets.eat_ts(metadata ->> 'checked_at')) as checked_at,
      max(tickets.eat_ts(metadata ->> 'snapshot_at')) as data_at
    from tickets.import_meta where dataset = 'inc'
  ),
  looked as (
    select source_key, status from tickets_ops.snapshots where dataset = 'inc' order by snapshot_at desc, snapshot_id desc limit 1
  ),
  loaded as (
    select snapshot_id, source_key, loaded_at, status, broken_off, open_missing
    from tickets_ops.snapshots where dataset = 'inc' and status in ('done', 'partial')
    order by loaded_at desc limit 1
  ),
  in_flight as (
    select snapshot_id, status, progress_at
    from tickets_ops.snapshots where dataset = 'inc' and status in ('staging', 'loading', 'finalizing')
  ),
  failed as (
    -- The newest file that was read decides: a failure before it has been made up for.
    select snapshot_id, source_key, error
    from tickets_ops.snapshots
    where dataset = 'inc' and status in ('failed', 'done', 'partial', 'unchanged')
    order by snapshot_at desc, snapshot_id desc limit 1
  ),
  schedule as (
    -- Half an hour is what a look may take that waits for the load before it.
    select case
      when tick > coalesce(meta.checked_at, '-infinity') and tick > known.known_since then tick
    end as missed
    from clock, meta,
      tickets_ops.last_scheduled_run(clock.now - interval '30 minutes') as tick
      left join graphile_worker._private_known_crontabs known on known.identifier = 'fetch_inc'
  ),
  jobs as (
    select
      count(*) filter (where state in ('ready', 'retrying') and run_at <= clock.now) as waiting,
      min(run_at) filter (where state in ('ready', 'retrying') and run_at <= clock.now) as oldest,
      -- Geocoding waits for its rate as a matter of course.
      min(run_at) filter (where state in ('ready', 'retrying') and run_at <= clock.now and task not like 'geocode%') as oldest_load,
      count(*) filter (where state = 'running') as running,
      count(*) filter (where state = 'failed' and superseded is null) as failed,
      count(*) filter (where state <> 'failed' and task like 'geocode%') as geocoding
    from clock, tickets_ops.list_jobs()
  ),
  workers as (
    select
      count(*) filter (where state = 'alive' or (state = 'unsure' and seen_at > clock.now - interval '1 minute')) as alive,
      count(*) filter (where state = 'unsure' and seen_at > clock.now - interval '1 minute') as unsure,
      count(*) filter (where state = 'hung') as hung
    from clock, tickets_ops.worker_states()
  ),
  geocoding as (
    select state, left_today, reason from tickets_ops.geocoding where active limit 1
  ),
  review as (
    select
      (select count(*) from tickets.geo_locations where status = 'needs_review' and not verified)
      + (select count(*) from tickets.geo_clusters where suspicious and not verified) as places
  ),
  problem as (
    select array_remove(array[
      case when workers.alive = 0 then 'No worker is alive: start one (fleettickets worker).' end,
      case when workers.hung > 0 then format('%s worker(s) hang: they hold their lock but have not been heard of for 2 minutes.', workers.hung) end,
      case when schedule.missed is not null then
        format('The run of %s Nairobi time was missed: nothing has looked at the bucket since %s.',
          to_char(schedule.missed at time zone 'Africa/Nairobi', 'YYYY-MM-DD HH24:MI'),
          coalesce(to_char(meta.checked_at at time zone 'Africa/Nairobi', 'YYYY-MM-DD HH24:MI'), 'the pipeline began')) end,
      case when failed.error is not null then format('Snapshot %s (%s) failed: %s', failed.snapshot_id, failed.source_key, failed.error) end,
      case when loaded.status = 'partial' then format('Snapshot %s (%s) is loaded only in part. %s', loaded.snapshot_id, loaded.source_key, loaded.broken_off) end,
      case when in_flight.progress_at < clock.now - interval '15 minutes' then
        format('Snapshot %s is %s and has not moved for %s.', in_flight.snapshot_id, in_flight.status, clock.now - date_trunc('second', in_flight.progress_at)) end,
      case when jobs.oldest_load < clock.now - interval '10 minutes' then
        format('A job has waited for a worker since %s.', to_char(jobs.oldest_load, 'YYYY-MM-DD HH24:MI TZ')) end,
      case when jobs.failed > 0 then format('%s job(s) failed: see tickets_ops.failed_jobs, then select * from tickets_ops.retry_failed();', jobs.failed) end,
      case when geocoding.state in ('key refused', 'trouble') then format('Geocoding stands still (%s): %s', geocoding.state, geocoding.reason) end
    ], null) as problems
    from clock, meta, schedule, jobs, workers
    left join failed on true left join loaded on true left join in_flight on true left join geocoding on true
  )
  select
    cardinality(problem.problems) = 0, problem.problems,
    meta.checked_at, clock.now - date_trunc('second', meta.checked_at), looked.source_key, looked.status,
    loaded.snapshot_id, loaded.source_key, loaded.loaded_at, clock.now - date_trunc('second', loaded.loaded_at), loaded.status,
    meta.data_at, clock.now - meta.data_at, loaded.open_missing,
    in_flight.snapshot_id, in_flight.status, clock.now - date_trunc('second', in_flight.progress_at),
    schedule.missed, tickets_ops.next_scheduled_run(clock.now),
    jobs.waiting, clock.now - date_trunc('second', jobs.oldest), jobs.running, jobs.failed,
    workers.alive, workers.unsure,
    geocoding.state, geocoding.left_today::integer, jobs.geocoding, review.places
  from clock, meta, schedule, jobs, workers, review, problem
  left join looked on true left join loaded on true left join in_flight on true left join geocoding on true
$$;
comment on function tickets_ops.read_health() is 'The row of tickets_ops.health, read with the owner''s rights.';

create view tickets_ops.health as select * from tickets_ops.read_health();
comment on view tickets_ops.health is 'One row that a monitor can alert on: select ok, problems from tickets_ops.health. It tells progress as the database sees it. An unchanged hour is a success, and the night between 19:15 and 07:15 in Nairobi is no lateness.';
comment on column tickets_ops.health.ok is 'Nothing needs a person: problems is empty.';
comment on column tickets_ops.health.problems is 'What needs a person, in words, the most urgent first.';
comment on column tickets_ops.health.checked_at is 'When the bucket was last looked at with success.';
comment on column tickets_ops.health.checked_age is 'Since then.';
comment on column tickets_ops.health.checked_key is 'The newest file of the ledger.';
comment on column tickets_ops.health.checked_status is 'Its status.';
comment on column tickets_ops.health.loaded_snapshot_id is 'The last snapshot that was loaded, whole or in part.';
comment on column tickets_ops.health.loaded_key is 'Its file.';
comment on column tickets_ops.health.loaded_at is 'When it was finished.';
comment on column tickets_ops.health.loaded_age is 'Since then. Most hours nothing changes, so age alone is no alarm: see data_age.';
comment on column tickets_ops.health.loaded_status is 'done or partial.';
comment on column tickets_ops.health.data_at is 'Export time of the newest file that is loaded or was found unchanged.';
comment on column tickets_ops.health.data_age is 'Since then: how old the tickets are.';
comment on column tickets_ops.health.open_missing is 'Open tickets that the last loaded snapshot no longer lists.';
comment on column tickets_ops.health.in_flight_snapshot_id is 'The snapshot that is being loaded.';
comment on column tickets_ops.health.in_flight_status is 'staging, loading or finalizing.';
comment on column tickets_ops.health.in_flight_idle is 'Since work on it last committed something.';
comment on column tickets_ops.health.missed_run_at is 'The last scheduled run, when half an hour later nothing had looked at the bucket. NULL: none was missed.';
comment on column tickets_ops.health.next_run_at is 'The next scheduled run.';
comment on column tickets_ops.health.jobs_waiting is 'Jobs that are due and wait for a worker.';
comment on column tickets_ops.health.oldest_waiting_age is 'How long the oldest of them has been due. Geocoding jobs wait for their rate.';
comment on column tickets_ops.health.jobs_running is 'Jobs that run.';
comment on column tickets_ops.health.jobs_failed is 'Failed jobs that still matter; see tickets_ops.failed_jobs.';
comment on column tickets_ops.health.workers_alive is 'Workers that live.';
comment on column tickets_ops.health.workers_unsure is 'Of these, workers whose connections share sessions (a pooler in transaction mode): should one die, its jobs are free again only after 4 hours.';
comment on column tickets_ops.health.geocoding_state is 'See tickets_ops.geocoding.';
comment on column tickets_ops.health.geocoding_budget_left is 'Calls left today (UTC). NULL: no limit, or nobody to ask.';
comment on column tickets_ops.health.geocoding_jobs is 'Places that wait to be asked.';
comment on column tickets_ops.health.places_for_review is 'Places and clusters that a person should look at first: needs_review and suspicious ones of tickets_ops.review_queue.';
