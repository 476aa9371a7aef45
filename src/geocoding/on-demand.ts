/**
 * Geocoding that a person starts: which places are due and what asking them costs, and asking them now.
 * The asking goes through the same jobs as ever, run here; whatever is left when this process ends, a worker does.
 */
import { run, type TaskList } from 'graphile-worker';
import type { Db } from '../database/client.ts';
import type { Log } from '../settings/log.ts';
import { openPool, workerEnded } from '../worker/pool.ts';
import { workerPreset } from '../worker/worker.ts';
import { geocodingSlots } from './concurrency.ts';
import { clusterQueries, locationQueries } from './query.ts';
import type { Geocoder, NoGeocoder } from './settings.ts';

export type PlaceKind = 'clusters' | 'locations';

export type DuePlace = {
  cluster: string;
  location_key: string | null;
  location_name: string | null;
  /** Actionable tickets there. */
  tickets: number;
  /** never asked; expired; not_found, due again … */
  reason: string;
  /** A place without it waits for its cluster. */
  has_centroid: boolean;
  /** What would be sent, in this order, until something fits. */
  queries: string[];
};

/** The places that are due, the most urgent first. @param clusters only those; empty: all */
export async function duePlaces(db: Db, kind: PlaceKind, clusters: readonly string[]): Promise<DuePlace[]> {
  const { rows } = await db.query(
    `select p.cluster, p.location_key, p.location_name, p.tickets::integer, p.reason, p.has_centroid,
       tickets.location_query(coalesce(p.location_name, p.cluster)) as name,
       tickets_ops.cluster_region(p.cluster) as region
     from tickets_ops.places_to_geocode($2) as p
     where p.task = $1`,
    [kind === 'clusters' ? 'geocode_cluster' : 'geocode_location', clusters.length > 0 ? clusters : null],
  );
  return rows.map(({ name, region, ...place }) => ({
    ...place,
    queries:
      kind === 'clusters' ? clusterQueries(name ?? place.cluster, region) : locationQueries(name ?? '', place.cluster),
  }));
}

/** A place costs as many calls as it takes until one of its queries fits. The seconds are NULL where there is nobody to ask. */
export type Cost = {
  places: number;
  fewestCalls: number;
  mostCalls: number;
  fewestSeconds: number | null;
  mostSeconds: number | null;
};

/** Calls that are left today, NULL without a limit; and whether the provider may be asked now, with the reason where not. */
export type Budget = { left_today: number | null; state: string; reason: string | null };

/** What may be asked today, as the workers know it; a provider that none has registered yet has all of its budget. */
export async function budgetOf(db: Db, geocoder: Geocoder | NoGeocoder): Promise<Budget> {
  if ('off' in geocoder) return { left_today: null, state: 'off', reason: geocoder.off };
  const { provider, dailyBudget } = geocoder;
  const { rows } = await db.query<Budget>(
    'select left_today, state, reason from tickets_ops.geocoding where provider = $1',
    [provider.name],
  );
  return rows[0] ?? { left_today: dailyBudget, state: 'ready', reason: null };
}

/** What asking them costs; the database spaces the calls. @param rate calls a second, NULL without a provider */
export async function costOf(db: Db, places: readonly DuePlace[], rate: number | null): Promise<Cost> {
  const fewestCalls = places.length;
  const mostCalls = places.reduce((calls, { queries }) => calls + queries.length, 0);
  const { rows } = await db.query<{ fewest: number | null; most: number | null }>(
    `select ceil($2 * s.per_call) as fewest, ceil($3 * s.per_call) as most
     from tickets_ops.seconds_per_call($1) as s (per_call)`,
    [rate, fewestCalls, mostCalls],
  );
  return {
    places: places.length,
    fewestCalls,
    mostCalls,
    fewestSeconds: rows[0]?.fewest ?? null,
    mostSeconds: rows[0]?.most ?? null,
  };
}

export type Progress = { done: number; total: number; failed: number; waiting: number };

/**
 * Asks the places now, ahead of planned ones, and returns when each is resolved, has failed, or waits for something that
 * takes longer than a minute (budget, breaker, a cluster without a centroid).
 * @param tasks the two geocoding tasks
 */
export async function askNow(
  db: Db,
  tasks: TaskList,
  geocoder: Geocoder,
  places: readonly DuePlace[],
  log: Log,
  report: (progress: Progress) => void,
): Promise<Progress> {
  const keys = await addJobs(db, places);
  const clusters = [...new Set(places.map(({ cluster }) => cluster))];
  const preset = workerPreset(log);
  preset.worker.concurrentJobs = geocodingSlots(geocoder.rate);
  const runner = await run({ preset, pgPool: openPool(preset.worker.events) }, tasks, []);
  try {
    for (;;) {
      const progress = await progressOf(db, keys, clusters);
      report(progress);
      if (progress.done + progress.failed + progress.waiting === progress.total) return progress;
      await new Promise((resolve) => setTimeout(resolve, 250));
    }
  } finally {
    await runner.stop().catch(() => undefined); // it rejects when the runner has stopped by itself
    await workerEnded(runner.events);
  }
}

async function addJobs(db: Db, places: readonly DuePlace[]): Promise<string[]> {
  const { rows } = await db.query(
    `select job.job_key
     from unnest($1::text[], $2::text[]) with ordinality as place (cluster, location_name, no)
     cross join lateral (
       select job_key from tickets.geocode_location(place.location_name, place.cluster) where place.location_name is not null
       union all
       select job_key from tickets.geocode_cluster(place.cluster) where place.location_name is null
     ) as job
     order by place.no`,
    [places.map(({ cluster }) => cluster), places.map(({ location_name }) => location_name)],
  );
  return rows.map(({ job_key }) => job_key);
}

/** A place does not wait in vain while its cluster is being asked. */
async function progressOf(db: Db, keys: readonly string[], clusters: readonly string[]): Promise<Progress> {
  const { rows } = await db.query(
    `with jobs as (
       select key, state = 'failed' as failed,
         state in ('scheduled', 'retrying') and run_at > now() + interval '1 minute' as waiting
       from tickets_ops.queued_jobs()
     ),
     asked as (
       select cluster from unnest($2::text[]) as cluster
       join jobs on key = tickets_ops.cluster_job_key(cluster) and not failed and not waiting
     )
     select
       count(*) filter (where failed)::integer as failed,
       count(*) filter (where waiting and not exists (
         select from asked where starts_with(key, tickets_ops.location_job_key(cluster, ''))
       ))::integer as waiting,
       count(*)::integer as left
     from jobs where key = any ($1)`,
    [keys, clusters],
  );
  const { failed, waiting, left } = rows[0];
  return { done: keys.length - left, total: keys.length, failed, waiting };
}
