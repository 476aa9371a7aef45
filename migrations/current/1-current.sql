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
