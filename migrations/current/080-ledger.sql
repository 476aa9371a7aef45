-- The ledger of snapshots, and the work in progress of the one being loaded.
--
-- A snapshot's states:
--   staging -> loading -> finalizing -> done | partial      a file that was read
--   unchanged | superseded                                   a file that was looked at, not read
--   failed                                                   with the reason in error; retrying its job reopens it
--   superseded -> staging                                    taken after all: by a backfill, or because the newer one failed

create table tickets_ops.snapshots (
  snapshot_id bigint generated always as identity primary key,
  dataset text not null,
  source_key text not null,
  source_etag text,
  source_sha256 text,
  source_size bigint,
  source_last_modified timestamptz,
  snapshot_at timestamptz not null,
  status text not null check (status in ('staging', 'loading', 'finalizing', 'done', 'partial', 'unchanged', 'superseded', 'failed')),
  error text,
  broken_off text,
  origin text not null default 'bucket' check (origin in ('bucket', 'file')),
  forced boolean not null default false,
  backfill boolean not null default false,
  job_id bigint,
  attempt integer not null default 1,
  listed_at timestamptz not null default now(),
  progress_at timestamptz not null default now(),
  staged_at timestamptz,
  loaded_at timestamptz,
  archived_at timestamptz,
  archived_key text,
  batches_total integer,
  batches_done integer not null default 0,
  rows_read bigint not null default 0,
  rows_inserted bigint not null default 0,
  rows_updated bigint not null default 0,
  rows_unchanged bigint not null default 0,
  rows_dropped_alarm bigint not null default 0,
  rows_dropped_sentinel bigint not null default 0,
  rows_duplicate bigint not null default 0,
  rows_rejected bigint not null default 0,
  rows_repaired bigint not null default 0,
  open_missing bigint,
  constraint snapshots_counts_add_up check (
    status not in ('done', 'partial')
    or rows_read = rows_inserted + rows_updated + rows_unchanged + rows_dropped_alarm + rows_dropped_sentinel + rows_duplicate + rows_rejected
  ),
  constraint snapshots_failure_has_a_reason check (status <> 'failed' or error is not null)
);

-- Exactly one snapshot of a dataset is in flight.
create unique index snapshots_one_in_flight on tickets_ops.snapshots (dataset) where status in ('staging', 'loading', 'finalizing');
create index snapshots_by_file on tickets_ops.snapshots (dataset, source_key, source_etag);
-- A version that was passed over has one row, however many looks at the bucket saw it at once.
create unique index snapshots_superseded_once on tickets_ops.snapshots (dataset, source_key, source_etag) where status = 'superseded';
create index snapshots_by_time on tickets_ops.snapshots (dataset, snapshot_at);

comment on table tickets_ops.snapshots is 'The ledger: one row for every file ever looked at (a forced replay is looked at again), with its times, its outcome and its counts. The counts of a loaded snapshot add up to rows_read.';
comment on column tickets_ops.snapshots.snapshot_id is 'Order in which files were looked at.';
comment on column tickets_ops.snapshots.dataset is 'inc or crq.';
comment on column tickets_ops.snapshots.source_key is 'Object key in the bucket, or the name of a local file.';
comment on column tickets_ops.snapshots.source_etag is 'ETag without quotes; NULL for a local file.';
comment on column tickets_ops.snapshots.source_sha256 is 'SHA-256 of the bytes read: the same bytes sent as a multipart upload have another ETag.';
comment on column tickets_ops.snapshots.source_size is 'Bytes.';
comment on column tickets_ops.snapshots.source_last_modified is 'The bucket''s LastModified. It moves when a file is copied or restored, so the time in the name decides.';
comment on column tickets_ops.snapshots.snapshot_at is 'The export''s time, from the file''s name (EAT), else LastModified.';
comment on column tickets_ops.snapshots.status is 'staging, loading, finalizing: in flight. done: whole. partial: the file broke off, the rows before the break are loaded. unchanged: same bytes as the last load. superseded: not loaded because a newer one was. failed: see error.';
comment on column tickets_ops.snapshots.error is 'Why it failed, in words for people.';
comment on column tickets_ops.snapshots.broken_off is 'Where and why the rest of the file could not be read, which makes the snapshot partial; NULL for a whole file.';
comment on column tickets_ops.snapshots.origin is 'bucket, or file (ingest --inc-csv).';
comment on column tickets_ops.snapshots.forced is 'Asked for by force.';
comment on column tickets_ops.snapshots.backfill is 'Part of a backfill: finishing it asks for the next file left behind.';
comment on column tickets_ops.snapshots.job_id is 'The fetch_snapshot job that reads the file. NULL for a local file.';
comment on column tickets_ops.snapshots.attempt is 'Fencing token: a reader that lost its job to another attempt can write no more rows.';
comment on column tickets_ops.snapshots.listed_at is 'When the file was first looked at.';
comment on column tickets_ops.snapshots.progress_at is 'When work on the snapshot last committed something.';
comment on column tickets_ops.snapshots.staged_at is 'When all its rows were staged and its batches were created.';
comment on column tickets_ops.snapshots.loaded_at is 'When it was finished.';
comment on column tickets_ops.snapshots.archived_at is 'When its object was moved away.';
comment on column tickets_ops.snapshots.archived_key is 'Where its object was moved to.';
comment on column tickets_ops.snapshots.batches_total is 'Batches of changed rows; 0 when no row changed.';
comment on column tickets_ops.snapshots.batches_done is 'Batches committed; the one that completes the count asks for finalize_snapshot.';
comment on column tickets_ops.snapshots.rows_read is 'Records in the file, without header and blank lines.';
comment on column tickets_ops.snapshots.rows_inserted is 'New tickets.';
comment on column tickets_ops.snapshots.rows_updated is 'Tickets whose raw changed.';
comment on column tickets_ops.snapshots.rows_unchanged is 'Tickets that were not touched.';
comment on column tickets_ops.snapshots.rows_dropped_alarm is 'Rows with is_alarm true.';
comment on column tickets_ops.snapshots.rows_dropped_sentinel is 'EXPORT STOPPED rows.';
comment on column tickets_ops.snapshots.rows_duplicate is 'Earlier lines of a ticket that stands in the file more than once: the last line wins.';
comment on column tickets_ops.snapshots.rows_rejected is 'Rows in tickets_ops.snapshot_rejects.';
comment on column tickets_ops.snapshots.rows_repaired is 'Warning: rows that loaded with a NUL or an invalid UTF-8 byte replaced by U+FFFD.';
comment on column tickets_ops.snapshots.open_missing is 'Open tickets of the table that this snapshot does not list.';

create function tickets_ops.loaded_through(p_dataset text) returns timestamptz language sql stable
return greatest(
  -- What a takeover inherited, and unchanged files.
  (select tickets.eat_ts(metadata ->> 'snapshot_at') from tickets.import_meta where dataset = p_dataset),
  (
    select max(snapshot_at) from tickets_ops.snapshots
    where dataset = p_dataset and (status in ('loading', 'finalizing', 'done', 'partial', 'unchanged') or batches_done > 0)
  )
);
comment on function tickets_ops.loaded_through(text) is 'Export time of the newest snapshot of a dataset (inc, crq) that has touched tickets: nothing older is ever loaded. NULL before the first load.';

-- Rows of the snapshot in flight. An unchanged row leaves its id only (raw is NULL): it is recognised while staging,
-- so an hour in which nothing changed writes no ticket twice. The id still counts for open_missing.
create table tickets_ops.snapshot_rows (
  -- No foreign key: it costs a tenth of staging, and every statement that writes rows holds the snapshot's row anyway.
  snapshot_id bigint not null,
  ticket_id text not null,
  line bigint not null,
  raw jsonb,
  primary key (snapshot_id, ticket_id)
);
-- Analyzed after each staging: how many rows there are matters, what their JSON holds does not.
alter table tickets_ops.snapshot_rows alter column raw set statistics 0;
comment on table tickets_ops.snapshot_rows is 'Work in progress: the rows of the snapshot in flight, the last line of each ticket. Emptied when the snapshot is done; kept 7 days when it failed.';
comment on column tickets_ops.snapshot_rows.snapshot_id is 'The snapshot.';
comment on column tickets_ops.snapshot_rows.ticket_id is 'The ticket.';
comment on column tickets_ops.snapshot_rows.line is 'Line of the file on which the record begins.';
comment on column tickets_ops.snapshot_rows.raw is 'The cleaned record; NULL when the ticket already has exactly this raw.';

create table tickets_ops.snapshot_batches (
  snapshot_id bigint not null references tickets_ops.snapshots on delete cascade,
  batch integer not null,
  first_ticket_id text not null,
  last_ticket_id text not null,
  status text not null default 'pending' check (status in ('pending', 'done', 'failed')),
  error text,
  done_at timestamptz,
  primary key (snapshot_id, batch)
);
comment on table tickets_ops.snapshot_batches is 'Work in progress: one row per upsert_batch job, a range of ticket ids of the snapshot''s changed rows.';
comment on column tickets_ops.snapshot_batches.snapshot_id is 'The snapshot.';
comment on column tickets_ops.snapshot_batches.batch is '1, 2, …';
comment on column tickets_ops.snapshot_batches.first_ticket_id is 'First ticket id of the range.';
comment on column tickets_ops.snapshot_batches.last_ticket_id is 'Last ticket id of the range, included.';
comment on column tickets_ops.snapshot_batches.status is 'pending, done, or failed when its job used up its attempts.';
comment on column tickets_ops.snapshot_batches.error is 'Why it failed.';
comment on column tickets_ops.snapshot_batches.done_at is 'When it committed.';

create table tickets_ops.snapshot_rejects (
  reject_id bigint generated always as identity primary key,
  snapshot_id bigint not null references tickets_ops.snapshots on delete cascade,
  line bigint not null,
  reason text not null,
  row_text text not null
);
create index snapshot_rejects_by_snapshot on tickets_ops.snapshot_rejects (snapshot_id, line);
comment on table tickets_ops.snapshot_rejects is 'Rows that could not be loaded: nothing that stood in a file is lost silently.';
comment on column tickets_ops.snapshot_rejects.reject_id is 'Order of writing.';
comment on column tickets_ops.snapshot_rejects.snapshot_id is 'The snapshot.';
comment on column tickets_ops.snapshot_rejects.line is 'Line of the file on which the record begins; the header is usually line 1.';
comment on column tickets_ops.snapshot_rejects.reason is 'Why, in words for people.';
comment on column tickets_ops.snapshot_rejects.row_text is 'The record as CSV (as JSON where the database refused it), control characters escaped, cut at 64 KiB.';
