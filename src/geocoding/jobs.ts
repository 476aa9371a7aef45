/**
 * The geocoding jobs: one cluster or one place, from question to verdict.
 *
 * A place is asked by a few queries, the most specific first, until the judge (in SQL) is content or they are used up.
 * Guarantees: each answer is kept when it comes, so a worker that is killed costs one repeated call; what a person
 * verified is not asked; errors are never cached. While the budget is spent or the breaker is open a job makes no call and
 * uses up no attempt: it puts itself back for later (a "snooze"). A call that fails uses one up, whatever the breaker says, so
 * that a place which always fails is given up.
 */

import pg from 'pg';
import type { Db } from '../database/client.ts';
import type { TaskName } from '../database/jobs.ts';
import { PermanentError, type TaskContext } from '../worker/task.ts';
import { inGeocodingSlot, leaveToOthers } from './concurrency.ts';
import type { Outcome } from './outcome.ts';
import type { Question } from './provider.ts';
import { clusterQueries, locationQueries } from './query.ts';
import { callAtSlot } from './rate.ts';
import { geocoderInUse, isAskedByOthers } from './registration.ts';
import type { Geocoder } from './settings.ts';

const MINUTE_MS = 60_000;
/** A place whose cluster has no centroid is woken when it gets one; this is for a wake-up that was missed. */
const CENTROID_WAIT_MS = 60 * MINUTE_MS;
/** Nobody to ask: the operator took the provider away while jobs were waiting. */
const NO_PROVIDER_WAIT_MS = 60 * MINUTE_MS;
/** More geocoding jobs were fetched than this worker may run at once. */
const SLOT_WAIT_MS = 2_000;

/** A load is writing tickets; a batch takes half a second. */
const BUSY_WAIT_MS = 2_000;
/** A place that failed lets others find out first whether the provider works again; longer than a probe may take. */
export const GIVE_WAY_MS = 20_000;

/** What the planner and the jobs themselves add to what people type. */
type Bookkeeping = { planned: boolean; snoozes: number };
type ClusterPayload = { cluster: string; force: boolean } & Bookkeeping;
type LocationPayload = { location_name: string; cluster: string; force: boolean } & Bookkeeping;

/** A place that is to be asked. */
type Asked = {
  cluster: string;
  /** Empty: the cluster itself. */
  key: string;
  near: Question['near'];
  queries: string[];
  answered: string[];
  /** Judges the answers so far. @returns null while a simpler query may still find it; busy when a load is in the way */
  resolve(last: boolean): Promise<string | null>;
};

/** Come back later: not an error, and no attempt is used up. */
type Snooze = {
  readonly ms: number;
  readonly reason: string;
  /** A cluster: at once if it was resolved meanwhile. */
  readonly untilResolved?: string;
};

/** The job geocode_cluster. @throws PermanentError when no further attempt can help */
export async function geocodeCluster(payload: ClusterPayload, context: TaskContext): Promise<void> {
  await runJob('geocode_cluster', payload, context, async (geocoder) => {
    const { rows } = await context.query('select * from tickets_ops.cluster_question($1, $2, $3)', [
      payload.cluster,
      payload.force,
      geocoder.provider.name,
    ]);
    const { state, cluster, name, region, answered } = rows[0] as {
      state: 'ask' | 'known' | 'verified' | 'unknown cluster' | 'nothing to ask';
      cluster: string;
      name: string;
      region: string | null;
      answered: string[];
    };
    if (state === 'nothing to ask') throw new PermanentError('A cluster is needed: its name is empty.');
    if (state === 'unknown cluster') return unknownCluster(context, cluster, payload.planned);
    if (state !== 'ask') return nothingAsked(context, cluster, state);
    return askUntilResolved(context, geocoder, {
      cluster,
      key: '',
      near: null,
      queries: clusterQueries(name, region),
      answered,
      resolve: (last) =>
        one(context, 'select tickets_ops.resolve_cluster($1, $2, $3)', [cluster, geocoder.provider.name, last]),
    });
  });
}

/** The job geocode_location. @throws PermanentError when no further attempt can help */
export async function geocodeLocation(payload: LocationPayload, context: TaskContext): Promise<void> {
  await runJob('geocode_location', payload, context, async (geocoder) => {
    const { rows } = await context.query('select * from tickets_ops.location_question($1, $2, $3, $4)', [
      payload.location_name,
      payload.cluster,
      payload.force,
      geocoder.provider.name,
    ]);
    const { state, cluster, location_key, name, lat, lng, guard_km, answered } = rows[0] as {
      state: 'ask' | 'known' | 'verified' | 'no centroid' | 'unknown cluster' | 'nothing to ask';
      cluster: string;
      location_key: string;
      name: string;
      lat: number;
      lng: number;
      guard_km: number;
      answered: string[];
    };
    if (state === 'nothing to ask') {
      const text = `Nothing but network codes is left of "${payload.location_name}", or the cluster is empty`;
      throw new PermanentError(`${text}: there is no place to ask for. See tickets.location_key().`);
    }
    if (state === 'unknown cluster') return unknownCluster(context, cluster, payload.planned);
    if (state === 'no centroid') return awaitCentroid(context, cluster, payload.planned);
    if (state !== 'ask') return nothingAsked(context, `${location_key} in ${cluster}`, state);
    return askUntilResolved(context, geocoder, {
      cluster,
      key: location_key,
      near: { lat, lng, km: guard_km },
      queries: locationQueries(name, cluster),
      answered,
      resolve: (last) =>
        one(context, 'select tickets_ops.resolve_location($1, $2, $3, $4, $5)', [
          cluster,
          location_key,
          payload.location_name,
          geocoder.provider.name,
          last,
        ]),
    });
  });
}

/** What both jobs share: the provider, a geocoding slot, and coming back later. */
async function runJob(
  task: Extract<TaskName, 'geocode_cluster' | 'geocode_location'>,
  payload: ClusterPayload | LocationPayload,
  context: TaskContext,
  ask: (geocoder: Geocoder) => Promise<Snooze | undefined>,
): Promise<void> {
  let snooze: Snooze | undefined = { ms: SLOT_WAIT_MS, reason: 'this worker runs its share of geocoding jobs already' };
  await inGeocodingSlot(async () => {
    const geocoder = await geocoderInUse(context);
    if ('off' in geocoder && (await isAskedByOthers(context))) {
      leaveToOthers();
      snooze = { ms: SLOT_WAIT_MS, reason: 'another worker has the provider' };
      return;
    }
    // What a person asked for fails where they can see it; what was planned waits for the operator.
    if ('off' in geocoder && !payload.planned) throw new PermanentError(geocoder.off);
    snooze = 'off' in geocoder ? { ms: NO_PROVIDER_WAIT_MS, reason: geocoder.off } : await ask(geocoder);
  });
  if (!snooze) return;
  const { job, log } = context;
  log.info({ snoozes: payload.snoozes, ms: Math.round(snooze.ms) }, `later: ${snooze.reason}`);
  await context.query('select tickets_ops.snooze_geocoding($1, $2, $3, $4)', [
    job.id,
    task,
    snooze.ms,
    snooze.untilResolved ?? null,
  ]);
}

/** Asks query by query. @returns a snooze when nobody may call now */
async function askUntilResolved(context: TaskContext, geocoder: Geocoder, asked: Asked): Promise<Snooze | undefined> {
  const { cluster, key, queries, answered } = asked;
  const unasked = queries.filter((query) => !answered.includes(query));
  let status = unasked.length < queries.length ? await asked.resolve(unasked.length === 0) : null;
  for (const [index, text] of unasked.entries()) {
    if (status) break;
    const result = await callAtSlot(context, geocoder, { text, near: asked.near }, context.abortSignal);
    if (!result.outcome) {
      const hasFailed = context.job.attempts > 1;
      return { ms: result.retryMs + (hasFailed ? GIVE_WAY_MS : 0), reason: result.reason };
    }
    const closedUntil = await record(context, geocoder, result.isControl ? null : asked, text, result);
    if (result.isControl) return afterControl(context, geocoder, result.outcome, closedUntil);
    const snooze = refusalOf(result.outcome, closedUntil);
    if (snooze) return snooze;
    status = await asked.resolve(index === unasked.length - 1);
  }
  if (status === 'busy') return { ms: BUSY_WAIT_MS, reason: 'a load is writing tickets' };
  context.log.info({ cluster, ...(key && { place: key }), status }, `${key || cluster}: ${status}`);
  return undefined;
}

function nothingAsked(context: TaskContext, what: string, state: string): undefined {
  context.log.info(`${what} is ${state}: nothing is asked`);
}

/** Probably a slip of the pen: its author finds it among the failed jobs. */
function unknownCluster(context: TaskContext, cluster: string, planned: boolean): undefined {
  // Planned for a ticket that has another cluster by now.
  if (planned) return nothingAsked(context, cluster, 'no longer the cluster of any ticket');
  throw new PermanentError(
    `No ticket has the cluster "${cluster}", so nothing is asked: check its spelling, or ask all the same with "force": true.`,
  );
}

/** The provider is suspected, and was asked what it must know. The place comes back, at once if it did. */
async function afterControl(
  db: Db,
  { provider }: Geocoder,
  outcome: Outcome,
  closedUntil: number | null,
): Promise<Snooze> {
  if (outcome.kind === 'not_found') await db.query('select tickets_ops.distrust_answers($1)', [provider.name]);
  return { ms: Math.max(0, closedUntil ?? 0), reason: `${provider.name} is suspected: ${outcome.kind}` };
}

/**
 * @param asked null: it was the control question
 * @returns milliseconds until the next call may be tried; null while the breaker is closed
 */
async function record(
  db: Db,
  geocoder: Geocoder,
  asked: Asked | null,
  query: string,
  { outcome, slotAt }: { outcome: Outcome; slotAt: Date },
): Promise<number | null> {
  return one<number>(
    db,
    `select 1000 * extract(epoch from
       tickets_ops.record_geocoding_call($1, $2, $3, $4, $5, $6, $7, $8, $9) - clock_timestamp())::float8`,
    [
      geocoder.provider.name,
      slotAt,
      outcome.kind,
      'reason' in outcome ? outcome.reason : null,
      'retrySeconds' in outcome ? outcome.retrySeconds : null,
      asked?.cluster ?? null,
      asked?.key ?? null,
      query,
      outcome.kind === 'found' ? JSON.stringify(outcome.candidates) : null,
    ],
  );
}

/** An outcome that is no answer: a snooze where the key has to wait, an error where the call failed. Undefined for an answer. */
function refusalOf(outcome: Outcome, closedUntilMs: number | null): Snooze | undefined {
  switch (outcome.kind) {
    case 'found':
    case 'not_found':
      return undefined;
    case 'bad_request':
      throw new PermanentError(`${outcome.reason}. The question is the fault; see its query.`);
    case 'trouble':
    case 'unreadable':
      throw new Error(outcome.reason);
    default:
      return { ms: Math.max(0, closedUntilMs ?? 0), reason: outcome.reason };
  }
}

/** The cluster first. Its centroid wakes the job (tickets_ops.wake_locations). */
async function awaitCentroid(context: TaskContext, cluster: string, planned: boolean): Promise<Snooze | undefined> {
  const unresolvable = await one<boolean>(context, 'select tickets_ops.request_centroid($1, $2)', [
    cluster,
    context.job.priority,
  ]);
  // It is planned again when the cluster gets a centroid.
  if (unresolvable && planned)
    return nothingAsked(context, `a place of ${cluster}`, 'without a centroid to check it by');
  if (unresolvable) {
    throw new PermanentError(
      `The cluster ${cluster} has no centroid, and none is to be had (asked in vain, or taken away by a person), so no place of it can be checked. ` +
        `Set one: update tickets.geo_clusters set geom = st_setsrid(st_makepoint(lng, lat), 4326) where cluster = ${pg.escapeLiteral(cluster)};`,
    );
  }
  return { ms: CENTROID_WAIT_MS, reason: `the cluster ${cluster} has no centroid yet`, untilResolved: cluster };
}

/** The only column of the only row. */
async function one<T = string>(db: Db, text: string, values: unknown[]): Promise<T | null> {
  const { rows } = await db.query(text, values);
  return (Object.values(rows[0] ?? {})[0] as T | undefined) ?? null;
}
