-- Enter migration here

-- Their columns change. Whoever calls them does so from a text, by name; workers of 1.0.0 find all columns that they know.
drop function tickets_ops.described_jobs();
drop function tickets_ops.queued_jobs(boolean);
drop function tickets_ops.known_versions(text, text[]);

--!include jobs/job-policy.sql
--!include jobs/worker-schema.sql
--!include jobs/live-workers.sql
--!include snapshots/ledger.sql
--!include snapshots/high-water-mark.sql
--!include snapshots/held.sql
--!include snapshots/feed-of-changes.sql
--!include jobs/job-views.sql
--!include jobs/retry.sql
--!include jobs/on-demand.sql
--!include geocoding/budget.sql
--!include geocoding/planning.sql
--!include geocoding/snooze.sql
--!include operations/recorded-settings.sql
--!include operations/stale-feed.sql
--!include operations/problems.sql
--!include operations/health.sql
--!include operations/storage.sql
--!include operations/metrics.sql
--!include operations/erasure.sql
--!include analytics/backlog-by-day.sql
