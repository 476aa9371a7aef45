import { parseArgs } from 'node:util';
import geocode_cluster from '../../tasks/geocode_cluster.ts';
import geocode_location from '../../tasks/geocode_location.ts';
import { type Db, withClient } from '../database/client.ts';
import { askNow, costOf, type DuePlace, duePlaces, type PlaceKind, type Progress } from '../geocoding/on-demand.ts';
import { geocoderInUse } from '../geocoding/registration.ts';
import { type Geocoder, GeocoderSettings, geocoderFrom } from '../geocoding/settings.ts';
import { createLog } from '../settings/log.ts';
import { DatabaseSettings, readSettings } from '../settings/settings.ts';
import { showProgress } from '../terminal/progress.ts';
import { UsageError } from '../terminal/usage.ts';

export const summary = 'ask where clusters or locations are';
export const usage = `Usage: fleettickets geocode clusters|locations [--apply] [--cluster NAME]... [--json]

Lists the clusters, or the locations, of open tickets whose place is unknown or expired,
and what asking for them would cost: calls, time at the allowed rate, budget. With --apply
they are asked now, ahead of what is planned, whether or not a worker runs elsewhere.

  --apply          ask; without it nothing is asked and nothing is written
  --cluster NAME   only this cluster; may be repeated
  --json           print one JSON object

Settings: DATABASE_URL, GEOCODER_*.
`;

const SHOWN = 20;

type Budget = { left_today: number | null; state: string; reason: string | null };

export async function run(args: string[]): Promise<number> {
  const { values, positionals } = parseArgs({
    args,
    allowPositionals: true,
    options: {
      apply: { type: 'boolean', default: false },
      cluster: { type: 'string', multiple: true, default: [] },
      json: { type: 'boolean', default: false },
    },
  });
  const kind = positionals[0];
  if (positionals.length !== 1 || (kind !== 'clusters' && kind !== 'locations')) {
    throw new UsageError('Say what to ask for: clusters or locations.');
  }
  return withClient(readSettings(DatabaseSettings).DATABASE_URL, async (client) => {
    // Registered only if no worker has done so: a shell without the settings must not switch geocoding off for everyone.
    const geocoder = values.apply ? await geocoderInUse(client) : geocoderFrom(readSettings(GeocoderSettings));
    if ('off' in geocoder) {
      process.stderr.write(`${geocoder.off}\n`);
      return 1;
    }
    const places = await duePlaces(client, kind, values.cluster);
    const budget = () => budgetOf(client, geocoder);
    if (!values.apply) {
      const left = await budget();
      const text = () => listed(kind, places, geocoder, left);
      print(values.json, { ...plan(kind, places, geocoder, left), places }, text);
      return 0;
    }
    const log = await createLog({ to: process.stderr, level: 'warn' });
    const bar = showProgress();
    const progress = await askNow(
      client,
      { geocode_cluster, geocode_location },
      geocoder,
      places,
      log,
      ({ done, failed, waiting, total }) => bar.update(kind, done + failed + waiting, total),
    ).finally(() => bar.stop());
    const { state, reason } = await budget();
    print(values.json, { ...progress, state, reason }, () => outcome(progress, state, reason));
    return progress.done === progress.total ? 0 : 1;
  });
}

/** As the workers know it; a provider that none has registered yet has all of its budget. */
async function budgetOf(client: Db, { provider, dailyBudget }: Geocoder): Promise<Budget> {
  const { rows } = await client.query('select * from tickets_ops.geocoding where provider = $1', [provider.name]);
  return rows[0] ?? { left_today: dailyBudget, state: 'ready', reason: null };
}

function print(json: boolean, object: object, text: () => string): void {
  process.stdout.write(json ? `${JSON.stringify(object, null, 2)}\n` : text());
}

function plan(kind: PlaceKind, places: readonly DuePlace[], geocoder: Geocoder, budget: Budget) {
  return {
    what: kind,
    provider: geocoder.provider.name,
    ratePerSecond: geocoder.rate,
    budgetLeftToday: budget.left_today,
    ...costOf(places, geocoder.rate),
  };
}

function listed(kind: PlaceKind, places: readonly DuePlace[], geocoder: Geocoder, budget: Budget): string {
  if (places.length === 0)
    return `No ${kind} are due: every one of open tickets is known, was asked lately, or lies in a cluster that nobody knows (tickets_ops.review_queue).\n`;
  const rows = places.slice(0, SHOWN).map((place) => {
    const waits = kind === 'locations' && !place.has_centroid ? '; waits for its cluster' : '';
    return `  ${place.queries[0]}  (${place.tickets} open, ${place.reason}${waits})\n`;
  });
  if (places.length > SHOWN) rows.push(`  … and ${places.length - SHOWN} more\n`);
  const { fewestCalls, mostCalls, fewestSeconds, mostSeconds } = costOf(places, geocoder.rate);
  const left = budget.left_today === null ? 'no daily limit' : `${budget.left_today} calls left today`;
  const days =
    geocoder.dailyBudget && mostCalls > geocoder.dailyBudget
      ? ` At ${geocoder.dailyBudget} calls a day that is up to ${Math.ceil(mostCalls / geocoder.dailyBudget)} days.`
      : '';
  return (
    `${places.length} ${kind} would be asked of ${geocoder.provider.name}:\n${rows.join('')}` +
    `Cost: ${fewestCalls} to ${mostCalls} calls, ${duration(fewestSeconds)} to ${duration(mostSeconds)} at ${geocoder.rate} a second; ${left}.${days}\n` +
    (budget.state === 'ready' ? '' : `At present nothing is asked: ${budget.state}. ${budget.reason ?? ''}\n`) +
    'Nothing was asked: this was a dry run. Add --apply to ask.\n'
  );
}

function outcome({ done, total, failed, waiting }: Progress, state: string, reason: string | null): string {
  if (done === total) return `${done} asked. See tickets_ops.review_queue for the doubtful ones.\n`;
  const why = state === 'ready' ? '' : ` (${state}: ${reason ?? ''})`;
  return `${done} of ${total} asked, ${failed} failed (tickets_ops.failed_jobs), ${waiting} wait${why}; a worker asks them when it may.\n`;
}

function duration(seconds: number): string {
  if (seconds < 90) return `${seconds} s`;
  if (seconds < 5400) return `${Math.round(seconds / 60)} min`;
  return `${(seconds / 3600).toFixed(1)} h`;
}
