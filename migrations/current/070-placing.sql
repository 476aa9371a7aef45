-- Where a ticket is, kept true by triggers.

--!include placing.sql
--!include rebuild-location-keys.sql

-- The tickets that a gazetteer row concerns.
create index inc_place on tickets.inc (tickets.cluster_key(cluster), location_key);
create index crq_place on tickets.crq (tickets.cluster_key(cluster), location_key);

do $$
declare
  v_table text;
begin
  foreach v_table in array array['inc', 'crq'] loop
    execute format('create trigger _100_share_gazetteers before insert or update on tickets.%I
      for each statement execute function tickets.share_gazetteers()', v_table);
    execute format('create trigger _500_place_inserted after insert on tickets.%I referencing new table as written
      for each statement execute function tickets.place_written_tickets()', v_table);
    execute format('create trigger _500_place_updated after update on tickets.%I referencing new table as written
      for each statement execute function tickets.place_written_tickets()', v_table);
  end loop;
end
$$;

do $$
declare
  v_table text;
  v_moved text;
begin
  foreach v_table in array array['geo_clusters', 'geo_locations'] loop
    v_moved := case v_table when 'geo_clusters' then 'clusters_moved' else 'locations_moved' end;
    execute format('create trigger _100_claim_gazetteers before insert or update or delete on tickets.%I
      for each statement execute function tickets.claim_gazetteers()', v_table);
    execute format('create trigger _500_moved_by_insert after insert on tickets.%I referencing new table as after
      for each statement execute function tickets.%I()', v_table, v_moved);
    execute format('create trigger _500_moved_by_update after update on tickets.%I
      referencing old table as before new table as after
      for each statement execute function tickets.%I()', v_table, v_moved);
    execute format('create trigger _500_moved_by_delete after delete on tickets.%I referencing old table as before
      for each statement execute function tickets.%I()', v_table, v_moved);
    -- Last: the tickets have moved.
    execute format('create trigger _900_decided_by_insert after insert on tickets.%I referencing new table as after
      for each statement execute function tickets_ops.record_decisions()', v_table);
    execute format('create trigger _900_decided_by_update after update on tickets.%I
      referencing old table as before new table as after
      for each statement execute function tickets_ops.record_decisions()', v_table);
    execute format('create trigger _900_decided_by_delete after delete on tickets.%I referencing old table as before
      for each statement execute function tickets_ops.record_decisions()', v_table);
  end loop;
end
$$;
