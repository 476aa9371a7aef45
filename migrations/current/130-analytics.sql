-- What happened: closings, flow, repair times, backlog, teams.

create table tickets.inc_daily (
  day date not null,
  cluster text not null default '',
  region text not null default '',
  assigned_team text not null default '',
  open integer not null default 0,
  open_breached integer,
  open_at_risk integer,
  open_unknown integer,
  aged_0_24h integer,
  aged_24_48h integer,
  aged_2_7d integer,
  aged_7_30d integer,
  aged_over_30d integer,
  opened integer not null default 0,
  reopened integer not null default 0,
  closed integer not null default 0,
  snapshot_at timestamptz not null,
  source text not null check (source in ('state', 'events', 'imported')),
  primary key (day, cluster, region, assigned_team)
);
comment on table tickets.inc_daily is 'What was open when a day ended, one row per day, cluster, region and team that had something open, opened, reopened or closed: the tickets as they stood after the day''s last look at the bucket. It cannot be recovered: no event tells that an SLA clock ran out. Days without a look have no row; a look that found nothing open has one of zeros. Read it through tickets.inc_backlog_daily().';
comment on column tickets.inc_daily.day is 'Day in Nairobi of the snapshot''s own time.';
comment on column tickets.inc_daily.cluster is 'Network cluster then, in the spelling that most of that day''s tickets had; '''' for none. Cut to 100 characters, as region and assigned_team. Over several days group by tickets.cluster_key(cluster).';
comment on column tickets.inc_daily.region is 'Region then, lower case; '''' for none.';
comment on column tickets.inc_daily.assigned_team is 'Team then; '''' for none.';
comment on column tickets.inc_daily.open is 'Open tickets.';
comment on column tickets.inc_daily.open_breached is 'Of these, beyond the SLA (tickets.sla_rules) as of snapshot_at. NULL, as all that depends on a clock, where source is events.';
comment on column tickets.inc_daily.open_at_risk is 'Of these, not breached yet but soon.';
comment on column tickets.inc_daily.open_unknown is 'Of these, without a clock: in no ageing bucket.';
comment on column tickets.inc_daily.aged_0_24h is 'Of these, open for under 24 h as of snapshot_at (or with a clock that starts in the future).';
comment on column tickets.inc_daily.aged_24_48h is 'Of these, open for 24 h to under 48 h.';
comment on column tickets.inc_daily.aged_2_7d is 'Of these, open for 48 h to under 7 days.';
comment on column tickets.inc_daily.aged_7_30d is 'Of these, open for 7 to under 30 days.';
comment on column tickets.inc_daily.aged_over_30d is 'Of these, open for 30 days or more.';
comment on column tickets.inc_daily.opened is 'Tickets first seen open since the last day that has rows.';
comment on column tickets.inc_daily.reopened is 'Tickets seen open again since then.';
comment on column tickets.inc_daily.closed is 'Tickets that left the backlog since then, at the values that they closed with. Those first seen closed are not among them.';
comment on column tickets.inc_daily.snapshot_at is 'The export''s own time of the day''s last look.';
comment on column tickets.inc_daily.source is 'state: counted when the snapshot was in. events: rebuilt from the history. imported: what the Python version had noted; opened, reopened and closed of such a day are not known, and 0.';

--!include calendar.sql
--!include settled.sql
--!include closures.sql
--!include flow.sql
--!include repair-times.sql
--!include time-to-close.sql
--!include daily.sql
--!include ageing.sql
--!include scorecard.sql

-- The schema reporting is shared: a function of such a name that is there already is somebody else's. It is kept, and ours
-- is not made.
do $made$
declare
  v_kept text[] := array(
    select p.proname from pg_proc p where p.pronamespace = 'reporting'::regnamespace and p.proname in ('fn_inc_trends', 'fn_inc_dashboard', 'fn_crq_for_map')
  );
  v_name text;
begin
  if not 'fn_inc_trends' = any (v_kept) then
    execute $ours$
--!include trends.sql
    $ours$;
    revoke execute on function reporting.fn_inc_trends(date, date, text, text) from public;
  end if;
  if not 'fn_inc_dashboard' = any (v_kept) then
    execute $ours$
--!include dashboard.sql
    $ours$;
    revoke execute on function reporting.fn_inc_dashboard(text, text, text, timestamptz, timestamptz) from public;
  end if;
  if not 'fn_crq_for_map' = any (v_kept) then
    execute $ours$
--!include crq-map.sql
    $ours$;
    revoke execute on function reporting.fn_crq_for_map(boolean, text, text, text) from public;
  end if;
  foreach v_name in array v_kept loop
    raise notice 'There is a function reporting.% already: it is kept, and ours is not made.', v_name;
    if to_regclass('tickets_takeover.notes') is not null then
      insert into tickets_takeover.notes values ('functions that are kept, in place of which ours are not made', 'reporting.' || v_name, null);
    end if;
  end loop;
end
$made$;
