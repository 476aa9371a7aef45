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

-- Nothing read them.
alter table tickets_ops.geocoding_providers drop column registered_at;
alter table tickets_ops.geocoding_setup drop column registered_at;

-- Their columns or names change. Who calls them does so from a text, by name; workers of 1.0.0 find all columns that they know.
drop function tickets_ops.described_jobs();
drop function tickets_ops.queued_jobs(boolean);
drop function tickets_ops.known_versions(text, text[]);
drop function tickets_ops.review_place(text, text, text);
drop function tickets_ops.places_beyond_guard(text);
drop function tickets_ops.check_by_hand(text, geometry);
drop function tickets_ops.refusal_by_hand(geometry);

-- A region finds its rule whatever blanks are around it. No rules can collide: a check lets none with blanks in.
--!include tickets/name-keys.sql
drop index tickets.sla_rules_one_per_region;
create unique index sla_rules_one_per_region on tickets.sla_rules (tickets.region_key(region)) nulls not distinct;
comment on column tickets.sla_rules.region is 'The region as tickets.inc.region has it, in any case (tickets.region_key). NULL: the default, which cannot be deleted.';
comment on column tickets.geo_locations.candidates is 'Every candidate the provider returned, in its order: what tickets_ops.score_candidates reads of it, and `original` as returned. Rescored, without a call, when the centroid or the guard changes.';

--!include tickets/kenya.sql
--!include geocoding/cluster-names.sql
--!include tickets/clock.sql
--!include tickets/datasets.sql
--!include geocoding/expiry.sql
--!include jobs/job-policy.sql
--!include jobs/worker-schema.sql
--!include jobs/live-workers.sql
--!include geocoding/placing.sql
--!include snapshots/ledger.sql
--!include snapshots/high-water-mark.sql
--!include analytics/history.sql
--!include snapshots/loading.sql
--!include snapshots/baselines.sql
--!include snapshots/held.sql
--!include snapshots/feed-of-changes.sql
--!include tickets/sla.sql
--!include serving/filters.sql
--!include serving/map.sql
--!include tickets/crq.sql
--!include serving/places.sql
--!include geocoding/judge.sql
--!include geocoding/suspicious-clusters.sql
--!include geocoding/snooze.sql
--!include geocoding/budget.sql
--!include geocoding/questions.sql
--!include geocoding/rescoring.sql
--!include geocoding/planning.sql
--!include jobs/job-views.sql
--!include jobs/retry.sql
--!include jobs/on-demand.sql
--!include operations/recorded-settings.sql
--!include dispatch/vehicles.sql
--!include dispatch/distances.sql
--!include dispatch/costs.sql
--!include dispatch/matching.sql
--!include dispatch/one-ticket-each.sql
--!include dispatch/plan-input.sql
--!include dispatch/nearest.sql
--!include dispatch/assignments.sql
--!include review/decisions.sql
--!include review/verified-places.sql
--!include review/queue.sql
--!include review/place-details.sql
--!include operations/blockers.sql
--!include operations/stale-feed.sql
--!include operations/problems.sql
--!include operations/health.sql
--!include operations/storage.sql
--!include operations/metrics.sql
--!include operations/erasure.sql
--!include analytics/measures.sql
--!include analytics/dimensions.sql
--!include analytics/ageing.sql
--!include analytics/closures.sql
--!include analytics/flow.sql
--!include analytics/repair-times.sql
--!include analytics/team-scorecard.sql
--!include analytics/time-to-close.sql
--!include analytics/backlog-by-snapshot.sql
--!include analytics/backlog-by-day.sql
--!include serving/dashboard.sql
--!include serving/trends.sql
