-- Operating the pipeline from SQL: who works, which jobs there are, what to do with one, how healthy all of it is.

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
comment on column tickets_ops.workers.shares_sessions is 'Its connections are not sessions of their own (the embedded database): its lock says nothing, and nobody can tell whether it lives.';
comment on column tickets_ops.workers.stopped_at is 'When it shut down in good order.';
comment on column tickets_ops.workers.declared_dead_at is 'When another worker took its jobs away: if it still lives, it ends itself at its next heartbeat.';

create table tickets_ops.settings (
  name text not null,
  pool_id text not null,
  value text not null,
  recorded_at timestamptz not null default now(),
  primary key (name, pool_id)
);
comment on table tickets_ops.settings is 'Settings that SQL goes by, as each process was given them by its environment. The latest stands: tickets_ops.setting(name).';
comment on column tickets_ops.settings.name is 'The environment''s variable.';
comment on column tickets_ops.settings.pool_id is 'The worker pool of the process (tickets_ops.workers), or `migrate`.';
comment on column tickets_ops.settings.value is 'Its value as text.';
comment on column tickets_ops.settings.recorded_at is 'When the process started.';

create table tickets_ops.schedule (
  identifier text primary key,
  task text not null,
  dataset text,
  minutes integer[] not null,
  hours integer[] not null,
  dates integer[] not null,
  months integer[] not null,
  weekdays integer[] not null,
  since timestamptz not null default now()
);
comment on table tickets_ops.schedule is 'The entries of the file crontab, as the worker that started last has them. To change the schedule, change that file: this table only tells when health should expect a look.';
comment on column tickets_ops.schedule.identifier is 'Its `id`.';
comment on column tickets_ops.schedule.task is 'What it asks for.';
comment on column tickets_ops.schedule.dataset is 'Of fetch_snapshot: whose folder is looked at. NULL for other tasks.';
comment on column tickets_ops.schedule.minutes is 'Minutes of the hour, UTC, at which it fires.';
comment on column tickets_ops.schedule.hours is 'Hours of the day, UTC: three less than in Nairobi.';
comment on column tickets_ops.schedule.dates is 'Days of the month, UTC: it fires when the date or the weekday is listed. Empty where the pattern names weekdays only.';
comment on column tickets_ops.schedule.months is 'Months, 1 to 12.';
comment on column tickets_ops.schedule.weekdays is 'Days of the week, 0 (Sunday) to 6. Empty where the pattern names dates only.';
comment on column tickets_ops.schedule.since is 'When it became what it is: a run before that was never missed.';

--!include workers.sql
--!include settings.sql
--!include datasets.sql
--!include review.sql
--!include feed-of-changes.sql
--!include schedule.sql
--!include feed.sql
--!include jobs.sql
--!include retry.sql
--!include erasure.sql
--!include problems.sql
--!include health.sql
