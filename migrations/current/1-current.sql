-- Enter migration here

-- A region finds its rule whatever blanks are around it. No rules can collide: a check lets none with blanks in.
--!include tickets/name-keys.sql
drop index tickets.sla_rules_one_per_region;
create unique index sla_rules_one_per_region on tickets.sla_rules (tickets.region_key(region)) nulls not distinct;
comment on column tickets.sla_rules.region is 'The region as tickets.inc.region has it, in any case (tickets.region_key). NULL: the default, which cannot be deleted.';

--!include tickets/clock.sql
--!include tickets/sla.sql
--!include serving/filters.sql

--!include analytics/history.sql
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
--!include snapshots/loading.sql
--!include snapshots/baselines.sql

--!include serving/map.sql
--!include tickets/crq.sql
--!include serving/places.sql
--!include serving/dashboard.sql
--!include serving/trends.sql

-- A plan and the planning of geocoding had the same advisory lock, and waited for each other: dispatch/assignments.sql.
--!include dispatch/vehicles.sql
--!include dispatch/distances.sql
--!include dispatch/costs.sql
--!include dispatch/matching.sql
--!include dispatch/one-ticket-each.sql
--!include dispatch/plan-input.sql
--!include dispatch/nearest.sql
--!include dispatch/assignments.sql
