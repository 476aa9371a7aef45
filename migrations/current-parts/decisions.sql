-- Who verified a place, and the history of what people decided.

alter table tickets.geo_clusters add column verified_by text, add column verified_at timestamptz;
alter table tickets.geo_locations add column verified_by text, add column verified_at timestamptz;
comment on column tickets.geo_clusters.verified_by is 'The role of the person who verified it, written by a trigger. NULL: nobody did, or the Python version''s data does not say.';
comment on column tickets.geo_clusters.verified_at is 'When that was. NULL where verified_by is.';
comment on column tickets.geo_locations.verified_by is 'The role of the person who verified it, written by a trigger. NULL: nobody did, or the Python version''s data does not say.';
comment on column tickets.geo_locations.verified_at is 'When that was. NULL where verified_by is.';

create table tickets.geo_decisions (
  decision_id bigint generated always as identity primary key,
  decided_at timestamptz not null default now(),
  decided_by text not null,
  kind text not null check (kind in ('cluster', 'location')),
  cluster text not null,
  location_key text,
  decision text not null
    check (decision in ('added', 'accepted', 'moved', 'rejected', 'guard', 'handed back', 'changed', 'removed', 'undone')),
  before jsonb,
  after jsonb,
  tickets_moved bigint not null,
  undoes bigint references tickets.geo_decisions,
  constraint geo_decisions_names_its_place check ((kind = 'location') = (location_key is not null)),
  constraint geo_decisions_has_a_row check (before is not null or after is not null)
);
comment on table tickets.geo_decisions is 'What people decided about places: one row for each gazetteer row that a person''s statement wrote, whatever tool it came from. Written by triggers and never changed. Take one back: select * from tickets.undo_decision(decision_id). The pipeline''s own verdicts are not among them.';
comment on column tickets.geo_decisions.decision_id is 'Number of the decision, in the order in which they were made, for tickets.undo_decision.';
comment on column tickets.geo_decisions.decided_at is 'Start of the transaction.';
comment on column tickets.geo_decisions.decided_by is 'The role of the person, also when a function with its owner''s rights wrote the row.';
comment on column tickets.geo_decisions.kind is 'cluster (tickets.geo_clusters) or location (tickets.geo_locations).';
comment on column tickets.geo_decisions.cluster is 'The cluster.';
comment on column tickets.geo_decisions.location_key is 'The place in it. NULL: the decision is about the cluster itself.';
comment on column tickets.geo_decisions.decision is 'added, accepted (as proposed), moved (another coordinate), rejected (no place on earth, or none of the candidates), guard (guard_km), handed back (to the pipeline), changed (a note, say), removed, undone (see undoes).';
comment on column tickets.geo_decisions.before is 'The row as it was; NULL for one that was added. geom is hexadecimal EWKB (cast it to geometry); candidates are left out unless they changed.';
comment on column tickets.geo_decisions.after is 'The row as the decision left it; NULL for one that was removed. In the form of before.';
comment on column tickets.geo_decisions.tickets_moved is 'Tickets whose place on the map changed with it, open and closed; for a cluster also those whose location was judged anew.';
comment on column tickets.geo_decisions.undoes is 'The decision that this one took back. NULL: none.';
-- The history of one place, the newest first.
create index geo_decisions_place on tickets.geo_decisions (cluster, location_key, decision_id);

--!include decisions.sql
--!include review-place.sql

create trigger _900_append_only before update or delete on tickets.geo_decisions
  for each statement execute function tickets_ops.refuse_rewriting();

do $$
declare
  v_table text;
begin
  foreach v_table in array array['geo_clusters', 'geo_locations'] loop
    -- After _050_verified, whose verdict is signed, and before _100_touch.
    execute format('create trigger _060_signed before insert or update on tickets.%I
      for each row execute function tickets_ops.sign_verdict()', v_table);
    -- Last: the tickets have moved.
    execute format('create trigger _900_added after insert on tickets.%I referencing new table as after
      for each statement execute function tickets_ops.record_decisions()', v_table);
    execute format('create trigger _900_decided after update on tickets.%I referencing old table as before new table as after
      for each statement execute function tickets_ops.record_decisions()', v_table);
    execute format('create trigger _900_removed after delete on tickets.%I referencing old table as before
      for each statement execute function tickets_ops.record_decisions()', v_table);
  end loop;
end
$$;
