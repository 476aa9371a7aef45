--! Message: tickets

-- Taking over from the Python version, first half: docs/taking-over.md. Does nothing in a database without its tables.
-- The second half is part 990, when all of ours exists. All in the migration's one transaction: it happens whole or not at all.

drop schema if exists tickets_takeover cascade; -- of a takeover that was taken back
create schema tickets_takeover;
comment on schema tickets_takeover is 'The takeover from the Python version, whose tables are in tickets_legacy as they were: what a person may want to know of it (notes), who was re-pointed (readers), and the way back: select tickets_takeover.go_back(). When you are sure that you stay: select tickets_takeover.clean_up();';

create table tickets_takeover.notes (
  about text not null,
  name text,
  note text
);
comment on table tickets_takeover.notes is 'What a person may want to know about the takeover. Each kind is also counted in a notice of the migration.';
comment on column tickets_takeover.notes.about is 'The kind of note, in words.';
comment on column tickets_takeover.notes.name is 'Which ticket, place or object, by its name in tickets_legacy.';
comment on column tickets_takeover.notes.note is 'What was done, or what was not.';

create table tickets_takeover.stops (
  what text not null,
  remedy text not null
);
comment on table tickets_takeover.stops is 'Why the takeover, or the way back, cannot be: all that was found, raised as one list when everything has been looked at. Empty once it has happened.';
comment on column tickets_takeover.stops.what is 'What is in the way, and where.';
comment on column tickets_takeover.stops.remedy is 'What a person does about it.';

create table tickets_takeover.readers (
  class_id oid not null,
  object_id oid not null,
  kind text not null check (kind in ('view', 'materialized view', 'function', 'foreign key', 'trigger')),
  name text not null,
  own boolean not null,
  replaced boolean not null,
  early boolean not null,
  rank integer not null,
  definition text not null,
  afterwards text[] not null default '{}'
);
comment on table tickets_takeover.readers is 'Objects outside the schema tickets that are bound to its objects (or to the map function) by OID, not by name: they follow a renamed schema and must be made again.';
comment on column tickets_takeover.readers.class_id is 'Catalog of object_id: pg_class, pg_proc, pg_constraint or pg_trigger.';
comment on column tickets_takeover.readers.object_id is 'The object as it was when it was written down.';
comment on column tickets_takeover.readers.kind is 'What it is.';
comment on column tickets_takeover.readers.name is 'The object in words, as pg_describe_object gives them.';
comment on column tickets_takeover.readers.own is 'A view that somebody made in the schema tickets itself.';
comment on column tickets_takeover.readers.replaced is 'It keeps its OID (create or replace), and so its owner, grants, comments and triggers. Otherwise it is dropped, made anew, and afterwards restores them.';
comment on column tickets_takeover.readers.early is 'It can be made, elsewhere, before the readers have to wait: it uses nothing that is dropped.';
comment on column tickets_takeover.readers.rank is 'Each is made after those of a lower rank, and lets go before them.';
comment on column tickets_takeover.readers.definition is 'The statement that makes it.';
comment on column tickets_takeover.readers.afterwards is 'Statements that give it its owner, grants, comments and indexes back.';

create table tickets_takeover.first_readers (name text primary key, object_id oid not null, definition text not null);
comment on table tickets_takeover.first_readers is 'The readers as they were before the takeover. On our tables a definition can read otherwise (a cast to text goes where the column is a text), and fail on the old ones.';
comment on column tickets_takeover.first_readers.name is 'As in readers.';
comment on column tickets_takeover.first_readers.object_id is 'As in readers, then: of a materialized view, part of the name under which it is filled.';
comment on column tickets_takeover.first_readers.definition is 'The statement that makes it.';

create table tickets_takeover.old_map_interface (part text not null, name text not null, value jsonb);
comment on table tickets_takeover.old_map_interface is 'tickets_takeover.map_interface() before the takeover.';
comment on column tickets_takeover.old_map_interface.part is 'parameter, property, summary key or freshness key.';
comment on column tickets_takeover.old_map_interface.name is 'Its name.';
comment on column tickets_takeover.old_map_interface.value is 'Position of a parameter; ticket_id to value of a property.';

create table tickets_takeover.carried_over (kind text not null check (kind in ('table', 'type', 'sequence', 'routine', 'view')), name text not null, primary key (kind, name));
comment on table tickets_takeover.carried_over is 'What people made in the old schema and that is in ours now.';
comment on column tickets_takeover.carried_over.kind is 'table, type, sequence or routine: moved, with all that hangs on it; view: made again.';
comment on column tickets_takeover.carried_over.name is 'Its name in the schema; of a routine, with the types of its arguments.';

create table tickets_takeover.old_maps (function_id oid primary key, definition text not null);
comment on table tickets_takeover.old_maps is 'The overloads of reporting.fn_tickets_for_map before the takeover.';
comment on column tickets_takeover.old_maps.function_id is 'In pg_proc, wherever it stands.';
comment on column tickets_takeover.old_maps.definition is 'The statement that makes it in the schema reporting.';

--!include takeover/readers.sql
--!include takeover/map-interface.sql
--!include takeover/head.sql
--!include takeover/history.sql
--!include takeover/comments.sql
--!include takeover/rights.sql
--!include takeover/fill.sql
--!include takeover/fence.sql
--!include takeover/carry-over.sql
--!include takeover/clean-up.sql
--!include takeover/way-back.sql

do $$
begin
  if to_regclass('tickets.inc') is not null then
    perform tickets_takeover.set_aside();
    return;
  end if;
  perform set_config('client_min_messages', 'warning', true); -- no list of what goes with the schema
  drop schema tickets_takeover cascade;
  perform set_config('client_min_messages', (select reset_val from pg_settings where name = 'client_min_messages'), true);
end
$$;
