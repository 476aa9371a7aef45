-- Enter migration here

-- Nothing read them.
alter table tickets_ops.geocoding_providers drop column registered_at;
alter table tickets_ops.geocoding_setup drop column registered_at;
comment on column tickets.geo_locations.candidates is 'Every candidate the provider returned, in its order: what tickets_ops.score_candidates reads of it, and `original` as returned. Rescored, without a call, when the centroid or the guard changes.';

-- places_beyond_guard says in a further column what review_place asks; the other two have other names.
drop function tickets_ops.review_place(text, text, text);
drop function tickets_ops.places_beyond_guard(text);
drop function tickets_ops.check_by_hand(text, geometry);
drop function tickets_ops.refusal_by_hand(geometry);

--!include tickets/kenya.sql
--!include geocoding/cluster-names.sql
--!include tickets/datasets.sql
--!include geocoding/expiry.sql
--!include geocoding/snooze.sql
--!include geocoding/planning.sql
--!include geocoding/questions.sql
--!include geocoding/judge.sql
--!include geocoding/suspicious-clusters.sql
--!include geocoding/rescoring.sql
--!include geocoding/placing.sql
--!include geocoding/budget.sql
--!include review/verified-places.sql
--!include review/queue.sql
--!include review/place-details.sql
--!include snapshots/loading.sql
--!include operations/health.sql
