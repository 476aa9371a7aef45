-- What happened: the indexes that analytics read history by, and the days that history alone cannot tell.

-- By period of the closing: a year of them is counted by team, cluster or region without going to the table.
create index inc_events_closed_at on tickets.inc_events (closed_at)
  include (ticket_id, event_id, snapshot_id, snapshot_at, assigned_team, cluster, region) where event = 'closed';
create index inc_events_baseline_closed_at on tickets.inc_events (closed_at) where event = 'baseline';
create index inc_events_corrected_at on tickets.inc_events (closed_at) where event = 'closure_corrected';
-- By ticket: what came after a closing.
create index inc_events_revisions on tickets.inc_events (ticket_id, event_id) include (event, snapshot_at, assigned_team, cluster, region)
  where event in ('reopened', 'closure_corrected');
-- By ticket: as it was first seen.
create index inc_events_first on tickets.inc_events (ticket_id) include (assigned_team, cluster, region)
  where event in ('baseline', 'opened') or (event = 'closed' and old_value is null);
-- By day of the snapshot: what entered and left the backlog.
create index inc_events_backlog on tickets.inc_events (snapshot_at)
  where event in ('opened', 'reopened') or (event = 'closed' and old_value is not null);
