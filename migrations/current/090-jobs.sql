-- What the running tasks need of graphile-worker's private tables, and has no API for.

create function tickets_ops.give_up(p_job_id bigint) returns void language sql as $$
  -- complete_jobs, permanently_fail_jobs and reschedule_jobs skip locked rows; a running job is one.
  update graphile_worker._private_jobs set max_attempts = greatest(attempts, 1) where id = p_job_id;
$$;
comment on function tickets_ops.give_up(bigint) is 'Called by a running job that no further attempt can help (a wrong payload, say), before it throws: this attempt was its last.';
