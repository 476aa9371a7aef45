-- The ledger of snapshots, and the work in progress of the one being loaded.

create table tickets_ops.snapshot_transitions (
  from_status text,
  to_status text not null,
  reason text not null,
  unique nulls not distinct (from_status, to_status)
);
-- Where somebody publishes all tables, migrations can change it all the same.
alter table tickets_ops.snapshot_transitions replica identity full;
comment on table tickets_ops.snapshot_transitions is 'Every change of a snapshot''s status that there is; a trigger refuses all others. The states are explained at tickets_ops.snapshots.status.';
comment on column tickets_ops.snapshot_transitions.from_status is 'NULL: a new row.';
comment on column tickets_ops.snapshot_transitions.to_status is 'The status after it.';
comment on column tickets_ops.snapshot_transitions.reason is 'What happens.';
insert into tickets_ops.snapshot_transitions (from_status, to_status, reason) values
  (null, 'staging', 'A file is claimed, and its rows are staged.'),
  (null, 'superseded', 'A file is passed over for a newer one.'),
  (null, 'unchanged', 'A file has the bytes of the last load.'),
  (null, 'failed', 'A file is refused without being read.'),
  ('superseded', 'staging', 'It is taken after all: by a backfill, or because the newer one failed.'),
  ('superseded', 'unchanged', 'It turns out to have the bytes of the last load.'),
  ('superseded', 'failed', 'It is refused without being read.'),
  ('staging', 'superseded', 'Reading it broke off: it is put back, to be read again.'),
  ('staging', 'loading', 'All rows are staged; its batches and their jobs come into being.'),
  ('staging', 'finalizing', 'All rows are staged, and none has changed.'),
  ('staging', 'held', 'All rows are staged, and it looks as if it would destroy the state: a person decides.'),
  ('staging', 'failed', 'It is no ticket CSV, nearly nothing of it can be loaded, or it cannot be read.'),
  ('held', 'loading', 'A person released it.'),
  ('held', 'finalizing', 'A person released it, and no row has changed.'),
  ('held', 'superseded', 'A newer file was loaded.'),
  ('held', 'failed', 'A person dismissed it, or a newer file is held in its place.'),
  ('loading', 'finalizing', 'The last batch is in.'),
  ('loading', 'failed', 'A batch used up its attempts, or a person cancelled it.'),
  ('finalizing', 'done', 'The whole file is in.'),
  ('finalizing', 'partial', 'The rows before the break are in.'),
  ('finalizing', 'failed', 'Completing it used up its attempts, or a person cancelled it.'),
  ('failed', 'loading', 'tickets_ops.retry_job reopened it.'),
  ('failed', 'finalizing', 'tickets_ops.retry_job reopened it, and only its end was missing.'),
  ('failed', 'superseded', 'tickets_ops.retry_job: reading it broke off, so it is put back.'),
  ('failed', 'staging', 'It was future-dated, and its time has come.'),
  ('failed', 'unchanged', 'It was future-dated, and has the bytes of the last load.');

create table tickets_ops.snapshots (
  snapshot_id bigint generated always as identity primary key,
  dataset text not null,
  source_key text not null,
  source_etag text,
  source_sha256 text,
  source_size bigint,
  source_last_modified timestamptz,
  snapshot_at timestamptz not null,
  status text not null check (status in ('staging', 'loading', 'finalizing', 'held', 'done', 'partial', 'unchanged', 'superseded', 'failed')),
  in_flight boolean not null generated always as (status in ('staging', 'loading', 'finalizing')) stored,
  error text,
  opens_at timestamptz,
  ignored boolean not null default false,
  is_late boolean not null default false,
  dismissed_at timestamptz,
  broken_off text,
  hold_reason text,
  held_since timestamptz,
  warnings text[] not null default '{}',
  statistics jsonb,
  cleaning_version integer,
  origin text not null default 'bucket' check (origin in ('bucket', 'file')),
  forced boolean not null default false,
  backfill boolean not null default false,
  job_id bigint,
  attempt integer not null default 1,
  listed_at timestamptz not null default now(),
  progress_at timestamptz not null default now(),
  staged_at timestamptz,
  load_began_at timestamptz,
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
  rejects_kept bigint not null default 0,
  rows_repaired bigint not null default 0,
  open_missing bigint,
  content_through timestamptz,
  constraint snapshots_counts_add_up check (
    status not in ('done', 'partial')
    or rows_read = rows_inserted + rows_updated + rows_unchanged + rows_dropped_alarm + rows_dropped_sentinel + rows_duplicate + rows_rejected
  ),
  constraint snapshots_failure_has_a_reason check (status <> 'failed' or error is not null),
  constraint snapshots_hold_has_a_reason check (status <> 'held' or hold_reason is not null)
);

-- Exactly one snapshot of a dataset is in flight.
create unique index snapshots_one_in_flight on tickets_ops.snapshots (dataset) where in_flight;
create index snapshots_by_file on tickets_ops.snapshots (dataset, source_key, source_etag, source_last_modified);
-- A version that was passed over has one row, however many looks at the bucket saw it at once.
create unique index snapshots_superseded_once on tickets_ops.snapshots (dataset, source_key, source_etag, source_last_modified)
  where status = 'superseded';
create index snapshots_by_time on tickets_ops.snapshots (dataset, snapshot_at);
-- Almost empty: what a look at the bucket has yet to move, or to write down as moved.
create index snapshots_unarchived on tickets_ops.snapshots (dataset)
  where archived_at is null and origin = 'bucket' and status in ('done', 'unchanged');
comment on table tickets_ops.snapshots is 'The ledger: one row for every file ever looked at (a forced replay is looked at again), with its times, its outcome and its counts. The counts of a loaded snapshot add up to rows_read.';
comment on column tickets_ops.snapshots.snapshot_id is 'Order in which files were looked at.';
comment on column tickets_ops.snapshots.dataset is 'inc or crq.';
comment on column tickets_ops.snapshots.source_key is 'Object key in the bucket, or the name of a local file.';
comment on column tickets_ops.snapshots.source_etag is 'ETag without quotes, empty where the server lists none; NULL for a local file.';
comment on column tickets_ops.snapshots.source_sha256 is 'SHA-256 of the bytes read: the same bytes sent as a multipart upload have another ETag.';
comment on column tickets_ops.snapshots.source_size is 'Bytes.';
comment on column tickets_ops.snapshots.source_last_modified is 'The bucket''s LastModified, to the millisecond; a file''s own for a local one. Part of a version''s identity: a name may be written again with the bytes that it had before. It orders files only where the times in their names are equal.';
comment on column tickets_ops.snapshots.snapshot_at is 'The export''s time, from the file''s name (EAT), else LastModified.';
comment on column tickets_ops.snapshots.status is 'staging, loading, finalizing: in flight. held: staged, and waits for a person (tickets_ops.release_snapshot, dismiss_snapshot). done: whole. partial: the file broke off, the rows before the break are loaded. unchanged: same bytes as the last load. superseded: not loaded because a newer one was. failed: refused, broken or cancelled, see error.';
comment on column tickets_ops.snapshots.in_flight is 'Work on it is under way (staging, loading, finalizing): until it ends no other snapshot of the dataset is loaded.';
comment on column tickets_ops.snapshots.error is 'Why it failed, in words for people.';
comment on column tickets_ops.snapshots.opens_at is 'Of a future-dated file, which counts as failed until then: when it may be loaded. NULL for every other.';
comment on column tickets_ops.snapshots.ignored is 'Failed without being read, since it is empty or no CSV by its name: no fault of the feed.';
comment on column tickets_ops.snapshots.is_late is 'Of a feed of changes: failed without being read, since a newer file was loaded when it came.';
comment on column tickets_ops.snapshots.dismissed_at is 'When a person took this failure out of health (tickets_ops.dismiss_snapshot), or gave the file up (tickets_ops.skip_file).';
comment on column tickets_ops.snapshots.broken_off is 'Where and why the rest of the file could not be read, which makes the snapshot partial; NULL for a whole file.';
comment on column tickets_ops.snapshots.hold_reason is 'Why it is held, with figures. Once it is loaded after all, the same stands in warnings.';
comment on column tickets_ops.snapshots.held_since is 'Of one that is held because it closes too many tickets: export time of the first file that showed the same closings. A file at least an hour later that shows them too is loaded. NULL where only a person can decide.';
comment on column tickets_ops.snapshots.warnings is 'What is odd about a file that was loaded, with figures; health shows those of the last load. It compares with the load before.';
comment on column tickets_ops.snapshots.statistics is 'Figures of the whole file, for judging the next one: rows (without alarms and sentinels), rejected, columns (their names), tickets, and for each typed column how many tickets have a value there (filled) and how many values read (read). NULL where it was not read to its end.';
comment on column tickets_ops.snapshots.cleaning_version is 'Version of the rules by which its records were cleaned. Bytes that were loaded under older rules are loaded again.';
comment on column tickets_ops.snapshots.origin is 'bucket, or file (ingest --inc-csv).';
comment on column tickets_ops.snapshots.forced is 'Asked for by force.';
comment on column tickets_ops.snapshots.backfill is 'Part of a backfill: finishing it asks for the next file left behind.';
comment on column tickets_ops.snapshots.job_id is 'The fetch_snapshot job that reads the file. NULL for a local file.';
comment on column tickets_ops.snapshots.attempt is 'Fencing token: a reader that lost its job to another attempt can write no more rows.';
comment on column tickets_ops.snapshots.listed_at is 'When the file was first looked at.';
comment on column tickets_ops.snapshots.progress_at is 'When work on the snapshot last committed something.';
comment on column tickets_ops.snapshots.staged_at is 'When all its rows were staged.';
comment on column tickets_ops.snapshots.load_began_at is 'When the jobs of its batches came into being: from then on it may have touched tickets. NULL while it is staged or held.';
comment on column tickets_ops.snapshots.loaded_at is 'When it was complete.';
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
comment on column tickets_ops.snapshots.rows_rejected is 'Rows that could not be loaded, all of them.';
comment on column tickets_ops.snapshots.rejects_kept is 'Of rows_rejected, those that stand in tickets_ops.snapshot_rejects with their text: at most 10 000.';
comment on column tickets_ops.snapshots.rows_repaired is 'Warning: rows that loaded with a NUL or an invalid UTF-8 byte replaced by U+FFFD.';
comment on column tickets_ops.snapshots.open_missing is 'Open tickets of the table that this snapshot does not list. NULL for a file of changes, which lists few.';
comment on column tickets_ops.snapshots.content_through is 'How far the content of the table went when this snapshot was loaded or found unchanged (tickets_ops.content_through).';

-- Rows of the snapshot in flight. An unchanged row leaves its id and no record (raw is NULL): it is recognised while staging,
-- so an hour in which nothing changed writes no ticket twice. The id still counts for open_missing.
create table tickets_ops.snapshot_rows (
  -- No foreign key: it costs a tenth of staging, and every statement that writes rows holds the snapshot's row anyway.
  snapshot_id bigint not null,
  ticket_id text not null,
  line bigint not null,
  digest uuid not null,
  figures integer not null,
  raw jsonb,
  primary key (snapshot_id, ticket_id)
);
-- Analyzed after each staging: how many rows there are matters, and how many of them changed (raw is NULL in the others);
-- what they hold does not, so a small sample does.
alter table tickets_ops.snapshot_rows
  alter column snapshot_id set statistics 10,
  alter column ticket_id set statistics 10,
  alter column line set statistics 0,
  alter column digest set statistics 0,
  alter column figures set statistics 0,
  alter column raw set statistics 1;
comment on table tickets_ops.snapshot_rows is 'Work in progress: the rows of the snapshot in flight, the last line of each ticket. Emptied when the snapshot is done; kept 7 days when it failed.';
comment on column tickets_ops.snapshot_rows.snapshot_id is 'The snapshot.';
comment on column tickets_ops.snapshot_rows.ticket_id is 'The ticket.';
comment on column tickets_ops.snapshot_rows.line is 'Line of the file on which the record begins.';
comment on column tickets_ops.snapshot_rows.digest is 'Of the record in the file: see tickets_ops.inc_digests.';
comment on column tickets_ops.snapshot_rows.figures is 'Of the record in the file: see tickets_ops.inc_digests.';
comment on column tickets_ops.snapshot_rows.raw is 'The cleaned record; NULL when the ticket already has exactly this raw.';

-- Records that made tickets, so that they need not be parsed when they come again. A digest is of one version of the ticket's
-- row (its place in the table and the transaction that wrote it): with any other write to the ticket, whoever does it and
-- however, it fits no more. So no trigger has to follow what is written past the load.
-- Ids in the order of their bytes: compared many times as fast as in a language's.
create table tickets_ops.inc_digests (
  ticket_id text collate "C" primary key,
  digest uuid not null,
  figures integer not null,
  row_ctid tid not null,
  row_xmin xid not null
)
with (fillfactor = 90);
comment on table tickets_ops.inc_digests is 'Of INC tickets: the digest of the record that made each. A record with the same digest is not parsed while the ticket''s row is the one that it made. Deleting rows, or all of them, is always safe, and costs time only; writing them by hand is not.';
comment on column tickets_ops.inc_digests.ticket_id is 'The ticket. Maintenance removes the digests of those that are gone.';
comment on column tickets_ops.inc_digests.digest is 'The first 128 bits of a SHA-256 of the record''s bytes without the fields that are dropped, of the header and the version of the cleaning rules by which it became the ticket, and of the file in which Postgres keeps tickets.inc: after TRUNCATE, VACUUM FULL or a restore that is another one, and no digest fits.';
comment on column tickets_ops.inc_digests.figures is 'What judging a whole file needs to know of the record, as digits in base 3: of each counted column whether it is filled and whether its value reads; whether bytes were replaced by U+FFFD (src/csv/values.ts).';
comment on column tickets_ops.inc_digests.row_ctid is 'Where the row of tickets.inc stands that this record made: its ctid.';
comment on column tickets_ops.inc_digests.row_xmin is 'The transaction that wrote that row: its xmin.';
create table tickets_ops.crq_digests (like tickets_ops.inc_digests including all);
comment on table tickets_ops.crq_digests is 'Digests of CRQ tickets, as tickets_ops.inc_digests.';

create table tickets_ops.snapshot_batches (
  snapshot_id bigint not null references tickets_ops.snapshots on delete cascade,
  batch integer not null,
  first_ticket_id text not null,
  last_ticket_id text not null,
  status text not null default 'pending' check (status in ('pending', 'done', 'failed')),
  error text,
  primary key (snapshot_id, batch)
);
comment on table tickets_ops.snapshot_batches is 'Work in progress: one row per upsert_batch job, a range of ticket ids of the snapshot''s changed rows.';
comment on column tickets_ops.snapshot_batches.snapshot_id is 'The snapshot.';
comment on column tickets_ops.snapshot_batches.batch is '1, 2, …';
comment on column tickets_ops.snapshot_batches.first_ticket_id is 'First ticket id of the range.';
comment on column tickets_ops.snapshot_batches.last_ticket_id is 'Last ticket id of the range, included.';
comment on column tickets_ops.snapshot_batches.status is 'pending, done, or failed when its job used up its attempts.';
comment on column tickets_ops.snapshot_batches.error is 'Why it failed.';

create table tickets_ops.snapshot_rejects (
  reject_id bigint generated always as identity primary key,
  snapshot_id bigint not null references tickets_ops.snapshots on delete cascade,
  line bigint not null,
  reason text not null,
  row_text text not null
);
create index snapshot_rejects_by_snapshot on tickets_ops.snapshot_rejects (snapshot_id, line);
comment on table tickets_ops.snapshot_rejects is 'Rows that could not be loaded: nothing that stood in a file is lost silently. Of one snapshot at most 10 000 are kept; tickets_ops.snapshots.rows_rejected counts all.';
comment on column tickets_ops.snapshot_rejects.reject_id is 'Order of writing.';
comment on column tickets_ops.snapshot_rejects.snapshot_id is 'The snapshot.';
comment on column tickets_ops.snapshot_rejects.line is 'Line of the file on which the record begins; the header is usually line 1.';
comment on column tickets_ops.snapshot_rejects.reason is 'Why, in words for people.';
comment on column tickets_ops.snapshot_rejects.row_text is 'The record as CSV (as JSON where the database refused it), control characters escaped, cut at 64 KiB.';

create table tickets_ops.looks (
  dataset text primary key,
  looked_at timestamptz not null,
  files bigint not null,
  others bigint not null,
  new_file_at timestamptz,
  future_dated text[] not null,
  waiting bigint not null default 0
);
comment on table tickets_ops.looks is 'What the last look at the bucket saw; one row a dataset. A look that failed leaves it as it was.';
comment on column tickets_ops.looks.dataset is 'inc or crq.';
comment on column tickets_ops.looks.looked_at is 'When.';
comment on column tickets_ops.looks.files is 'CSV files in the folder; those that were archived are not among them.';
comment on column tickets_ops.looks.others is 'Empty files, and objects that are no CSV by their name.';
comment on column tickets_ops.looks.new_file_at is 'When a look last saw a version of a file that none had seen before: a feed that stands still brings none. NULL before the first.';
comment on column tickets_ops.looks.future_dated is 'Keys of files whose time has not come: they lie in the folder and are not loaded.';
comment on column tickets_ops.looks.waiting is 'Of a feed of changes: files behind the one that is loaded, or that stops them. 0 for snapshots, of which the newest is enough.';

create table tickets_ops.unrecorded_tickets (
  dataset text,
  ticket_id text,
  primary key (dataset, ticket_id)
);
comment on table tickets_ops.unrecorded_tickets is 'Tickets that somebody inserted past the pipeline, until the next load or sweep gives them a baseline.';
comment on column tickets_ops.unrecorded_tickets.dataset is 'inc or crq.';
comment on column tickets_ops.unrecorded_tickets.ticket_id is 'The ticket.';

create table tickets_ops.sweeps (
  dataset text primary key,
  swept_at timestamptz,
  took interval
);
insert into tickets_ops.sweeps (dataset) values ('inc'), ('crq');
comment on table tickets_ops.sweeps is 'When all tickets of a dataset were last compared with the gazetteers and with their history (tickets_ops.sweep).';
comment on column tickets_ops.sweeps.dataset is 'inc or crq.';
comment on column tickets_ops.sweeps.swept_at is 'When that was done. NULL: never yet.';
comment on column tickets_ops.sweeps.took is 'How long it took; it is done again after a hundred times as long.';

--!include high-water-mark.sql
--!include ledger.sql
--!include loading.sql
--!include baselines.sql
--!include sweep.sql
--!include refused-rows.sql
--!include held.sql

do $$
declare
  v_table text;
begin
  foreach v_table in array array['inc', 'crq'] loop
    execute format('create trigger _600_unrecorded after insert on tickets.%I referencing new table as written
      for each statement execute function tickets_ops.note_unrecorded()', v_table);
  end loop;
end
$$;

create trigger _100_transition before insert or update of status on tickets_ops.snapshots
  for each row execute function tickets_ops.check_transition();
