-- Who may do what: read, decide about places, operate, dispatch, monitor. Applied after every migration (.gmrc), so that what a migration adds is granted too. Idempotent.
-- A right that the migrating role cannot give is a notice, not a failure: the DBA makes the roles, and the next `fleettickets migrate`
-- grants them the rest. See docs/privileges.md.
-- Over 100 lines: one block for all roles, so that there is one place that says who may do what.

do $$
declare
  -- By name, for the schema may hold what others have made there: that is theirs to grant. A test asks that none of ours is missing.
  c_tables constant text[] := array[
    'assignments', 'assignments_in_doubt', 'crq', 'crq_events', 'crq_open', 'dispatch_settings', 'geo_clusters', 'geo_country', 'geo_decisions',
    'geo_locations', 'import_meta', 'inc', 'inc_ageing', 'inc_backlog', 'inc_clock', 'inc_closures', 'inc_daily', 'inc_events', 'inc_open_sla',
    'open_places', 'sla_rules', 'vehicles', 'vehicles_now', 'version_slots'
  ];
  c_dispatch constant text[] := array[
    'tickets.dispatch_plan(integer, double precision, text, text, boolean, text[], text[], boolean)',
    'tickets.dispatch_problem(integer, double precision, text, text, boolean, text[], text[], boolean)',
    'tickets.assign_plan(integer, double precision, text, text, boolean, text[], text[], boolean)',
    'tickets.assign(text, text, boolean)', 'tickets.release(text, text)'
  ];
  -- Functions of schemas that are shared, which not everyone may call.
  c_not_public constant text[] := c_dispatch || array[
    'tickets.geocode_cluster(text, boolean)', 'tickets.geocode_location(text, text, boolean)', 'tickets.undo_decision(bigint)',
    'tickets.freshness(text)', 'tickets.datasets()',
    -- Fired without this right; but with it anyone could hang them on a table of his own, whose rows they would believe.
    'tickets.claim_gazetteers()', 'tickets.keep_spelling()', 'tickets.clusters_moved()', 'tickets.locations_moved()', 'tickets.change_version()'
  ];
  -- What readers call that everyone may not, and what roles have beside it: a function by its arguments, a table or view without, and a
  -- function of tickets_ops without where it takes types of PostGIS, wherever that is, or many.
  -- What is not there is left out: while a migration is being written, graphile-migrate grants before it is committed.
  c_readers constant text[] := array[
    'reporting.fn_tickets_for_map_json(boolean, text, text, text)',
    'reporting.fn_ticket_places(text, timestamptz, timestamptz, text, text, text)',
    'reporting.ticket_places_mvt(integer, integer, integer, json)',
    'reporting.fn_tickets_version()', 'tickets.freshness(text)', 'tickets.datasets()', 'tickets.crq_places(text, text)'
  ];
  c_curators constant text[] := array[
    'tickets_ops.review_queue', 'tickets_ops.review_place(text, text, text)', 'tickets_ops.place_candidates(text, text)',
    'tickets_ops.rejected_places(text)', 'tickets_ops.places_beyond_guard(text)', 'tickets_ops.is_far_from_its_places(text)',
    'tickets_ops.places_together', 'tickets.undo_decision(bigint)'
  ];
  -- The functions of dispatch, and what a plan is made of: that reads with its caller's rights.
  c_dispatchers constant text[] := c_dispatch || array[
    'tickets_ops.dispatch_vehicles', 'tickets_ops.dispatch_tickets', 'tickets_ops.plan_optimum', 'tickets_ops.plan_of_few',
    'tickets_ops.plan_of_many', 'tickets_ops.greedy_tours', 'tickets_ops.cheapest_tickets', 'tickets_ops.costs_from',
    'tickets_ops.sphere_error', 'tickets_ops.sphere_metres', 'tickets_ops.within_reach', 'tickets_ops.check_plan',
    'tickets_ops.min_cost_assignment', 'tickets_ops.min_cost_matching', 'tickets_ops.unmatched_cost',
    'tickets_ops.shortest_augmenting_paths', 'tickets_ops.claim_dispatch', 'tickets_ops.take_ticket'
  ];
  c_monitors constant text[] := array[
    'tickets_ops.metrics', 'tickets_ops.health', 'tickets_ops.read_metrics()', 'tickets_ops.read_health()'
  ];
  c_operators constant text[] := array[
    'tickets_ops.jobs', 'tickets_ops.failed_jobs', 'tickets_ops.health', 'tickets_ops.datasets', 'tickets_ops.metrics', 'tickets_ops.storage',
    'tickets_ops.geocoding', 'tickets_ops.review_queue', 'tickets_ops.snapshots', 'tickets_ops.snapshot_batches', 'tickets_ops.snapshot_rejects',
    'tickets_ops.workers', 'tickets_ops.schedule', 'tickets_ops.geocoding_calls',
    'tickets_ops.list_jobs()', 'tickets_ops.read_health()', 'tickets_ops.read_datasets()', 'tickets_ops.read_metrics()',
    'tickets_ops.kept_tables()', 'tickets_ops.worker_schema()', 'tickets_ops.next_utc_midnight()',
    'tickets_ops.retry_job(bigint)', 'tickets_ops.retry_failed(text)', 'tickets_ops.cancel_job(bigint)', 'tickets_ops.fetch_now(text, boolean)',
    'tickets_ops.release_snapshot(bigint)', 'tickets_ops.dismiss_snapshot(bigint)', 'tickets_ops.skip_file(text)',
    'tickets_ops.reason(tickets_ops.snapshots)', -- fleettickets status
    'tickets_ops.worker_states()', 'tickets_ops.worker_lock(text)', 'tickets_ops.hung_after()', 'tickets_ops.is_far_from_its_places(text)',
    'tickets.geocode_cluster(text, boolean)', 'tickets.geocode_location(text, text, boolean)'
  ];
  v_role text;
  v_table regclass;
  v_function regprocedure;
  v_right text;
begin
  if to_regnamespace('tickets_ops') is null then
    return; -- after graphile-migrate has uncommitted the first migration
  end if;

  perform set_config('search_path', 'pg_catalog, pg_temp', true); -- so that notices name tables with their schema

  -- Security definer functions are for those who are named below, not for everyone.
  revoke all on all functions in schema tickets_ops from public;
  for v_function in select to_regprocedure(f) from unnest(c_not_public) as f where to_regprocedure(f) is not null loop
    execute format('revoke all on function %s from public', v_function);
  end loop;

  foreach v_role in array array['tickets_reader', 'tickets_curator', 'tickets_operator', 'tickets_dispatcher', 'tickets_monitor'] loop
    if not exists (select from pg_roles where rolname = v_role) then
      begin
        execute format('create role %I nologin', v_role);
        execute format('comment on role %I is %L', v_role, case v_role
          when 'tickets_reader' then 'fleettickets: reads tickets and the map'
          when 'tickets_curator' then 'fleettickets: reads, and decides where places are'
          when 'tickets_operator' then 'fleettickets: reads, and operates the pipeline'
          when 'tickets_dispatcher' then 'fleettickets: reads, plans, and assigns vehicles to tickets'
          else 'fleettickets: reads health and metrics, and no ticket'
        end);
      exception
        -- Roles belong to the server: another of its databases may be migrated at the same moment.
        when duplicate_object or unique_violation then null;
        when insufficient_privilege then
          raise notice 'The role % is not there, and % may not create it. Let the DBA run: create role %; then migrate again.', v_role, current_user, v_role;
          continue;
      end;
    end if;
    continue when v_role = 'tickets_monitor'; -- its rights stand below

    execute format('grant usage on schema tickets to %I', v_role);
    -- Every command first asks whether the schema is current.
    execute format('grant usage on schema graphile_migrate to %I', v_role);
    execute format('grant select on graphile_migrate.migrations to %I', v_role);
    for v_table in
      select oid from pg_class where relnamespace = 'tickets'::regnamespace and relname = any (c_tables) order by oid
    loop
      begin
        execute format('grant select on %s to %I', v_table, v_role);
      exception when insufficient_privilege then -- a view that somebody else has made anew
        raise notice 'Let the owner of % run: grant select on % to %;', v_table, v_table, v_role;
      end;
    end loop;
    for v_function in
      -- One of such a name may be somebody else's: ours call what only we have.
      select p.oid from pg_proc p
      where p.pronamespace = 'reporting'::regnamespace and p.proname in (
        'fn_tickets_for_map', 'fn_tickets_for_map_v2', 'fn_crq_for_map', 'fn_inc_trends', 'fn_inc_dashboard')
        and p.prosrc ~ 'tickets\.(map_collection|inc_flow|dashboard_metrics)\('
    loop
      execute format('grant execute on function %s to %I', v_function, v_role);
    end loop;
    -- The schema is shared with others, and may be another role's to give. (Without the right to, GRANT only warns.)
    begin
      execute format('grant usage on schema reporting to %I', v_role);
    exception when insufficient_privilege then
      raise notice 'Let the owner of the schema reporting run: grant usage on schema reporting to %;', v_role;
    end;
  end loop;

  for v_role, v_right in
    select r.rolname, format('%s %s', case when g like '%(%' or to_regclass(g) is null then 'execute on function' else 'select on' end, g)
    from (
      values
        ('tickets_reader', c_readers), ('tickets_curator', c_readers || c_curators), ('tickets_operator', c_readers || c_operators),
        ('tickets_dispatcher', c_readers || c_dispatchers), ('tickets_monitor', c_monitors)
    ) as rights (role, granted)
    join pg_roles r on r.rolname = rights.role
    cross join unnest(rights.granted) as g
    where case when g like '%(%' then to_regprocedure(g)::oid else coalesce(to_regclass(g)::oid, to_regproc(g)) end is not null
  loop
    execute format('grant %s to %I', v_right, v_role);
  end loop;
  for v_role in
    select rolname from pg_roles where rolname in ('tickets_curator', 'tickets_dispatcher', 'tickets_monitor', 'tickets_operator')
  loop
    execute format('grant usage on schema tickets_ops to %I', v_role);
  end loop;

  if exists (select from pg_roles where rolname = 'tickets_curator') then
    -- To delete is the owner's; undo_decision deletes what a person added.
    grant insert, update on tickets.geo_clusters, tickets.geo_locations to tickets_curator;
  end if;
end
$$;
