/**
 * What the tests of the geocoding jobs share: a scripted provider over HTTP, registered anew before each test, tickets that
 * have places, and short questions about what came of them. `env`, `server` and `written` are those of the suite that runs.
 */
import { after, before, beforeEach } from 'node:test';
import { type Environment, startEnvironment } from './environment.ts';
import { asking } from './rows.ts';
import { locationiqPlace, type ScriptedProvider, startScriptedProvider } from './scripted-provider.ts';

export const KEY = 'pk.0123456789abcdef-secret';
export const KILIMANI = locationiqPlace('Kilimani', -1.29, 36.78);
export const ROSE_COURT = locationiqPlace('Rose Court', -1.295, 36.785, {
  level: 'building',
  type: 'residential',
  kind: 'building',
});

export let env: Environment;
export let server: ScriptedProvider;
/** What was logged. */
export let written = '';

/** To be called once per test file: starts and ends what its tests use, and empties it before each. */
export function geocoding(): void {
  before(async () => {
    [env, server] = await Promise.all([startEnvironment(), startScriptedProvider()]);
    const write = process.stdout.write.bind(process.stdout);
    // The log goes to stdout; what the test runner itself writes passes.
    process.stdout.write = ((chunk: string | Uint8Array, ...rest: []) => {
      const text = chunk.toString();
      if (!text.startsWith('{"level"')) return write(chunk, ...rest);
      written += text;
      for (const done of rest as unknown[]) if (typeof done === 'function') done();
      return true;
    }) as typeof process.stdout.write;
  });
  after(async () => {
    await Promise.all([env.close(), server.close()]);
  });

  beforeEach(async () => {
    await env.reset();
    server.calls.length = 0;
    Object.assign(process.env, {
      GEOCODER_PROVIDER: 'locationiq',
      GEOCODER_API_KEY: KEY,
      GEOCODER_BASE_URL: server.baseUrl,
      GEOCODER_RATE_PER_SECOND: '100',
      GEOCODER_DAILY_BUDGET: '1000',
    });
    await register();
  });
}

export const sql = asking(() => env.pool);
export const register = (budget = 1000) =>
  sql(`select tickets_ops.register_geocoder('locationiq', 100, $1, 180, null)`, [budget]);
export const queries = () => server.calls.map(({ query }) => query);
export const plan = async () => (await sql(`select tickets_ops.plan_geocoding() as jobs`))[0]?.jobs;
export const jobs = () =>
  sql(
    'select key, attempts, last_error, run_at > now() as later, priority from graphile_worker.jobs order by priority, run_at, id',
  );
export const location = async () => (await sql('select * from tickets.geo_locations'))[0];
export const dueNow = () => sql('update graphile_worker._private_jobs set run_at = now()');
export const breakerTimeIsUp = () =>
  sql('update tickets_ops.geocoding_providers set breaker_until = now() where breaker is not null');

export const ticket = (id: string, place: string | null, cluster: string | null = 'Kilimani', more = {}) =>
  sql('insert into tickets.inc (ticket_id, raw) values ($1, $2)', [
    id,
    JSON.stringify({ cluster, location_name: place, region: 'nairobi', is_actionable: 'true', ...more }),
  ]);
export const centroid = (cluster = 'Kilimani', lng = 36.78, lat = -1.29) =>
  sql('insert into tickets.geo_clusters (cluster, geom) values ($1, st_setsrid(st_makepoint($2, $3), 4326))', [
    cluster,
    lng,
    lat,
  ]);
export const failed = () => sql('select last_error from tickets_ops.failed_jobs');
export const ask = (place: string, cluster = 'Kilimani', force = false) =>
  sql('select * from tickets.geocode_location($1, $2, $3)', [place, cluster, force]).then(([row]) => row);
