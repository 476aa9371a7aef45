import { parseArgs } from 'node:util';
import geocode_cluster from '../../tasks/geocode_cluster.ts';
import geocode_location from '../../tasks/geocode_location.ts';
import { withCurrentDatabase } from '../database/current.ts';
import {
  askNow,
  type Budget,
  budgetOf,
  type Cost,
  costOf,
  type DuePlace,
  duePlaces,
  type PlaceKind,
  type Progress,
} from '../geocoding/on-demand.ts';
import { geocoderInUse } from '../geocoding/registration.ts';
import { type Geocoder, GeocoderSettings, geocoderFrom, type NoGeocoder } from '../geocoding/settings.ts';
import { ExpectedError } from '../settings/errors.ts';
import { createLog } from '../settings/log.ts';
import { readSettings } from '../settings/settings.ts';
import { APPLY, DRY_RUN, printAnswer } from '../terminal/output.ts';
import { showProgress } from '../terminal/progress.ts';
import { UsageError } from '../terminal/usage.ts';
import { printableLine } from '../text/printable.ts';
import { andMore, duration } from '../text/wording.ts';

export const summary = 'ask where clusters or locations are';
export const usage = `Usage: fleettickets geocode clusters|locations [--apply] [--cluster NAME]... [--json]

Lists the clusters, or the locations, of open tickets whose place is unknown or expired,
and what asking for them would cost: calls, and with a provider time and budget. With --apply
they are asked now, ahead of what is planned, whether or not a worker runs elsewhere.

  --apply          ask; without it nothing is asked and nothing is written
  --cluster NAME   only this cluster; may be repeated
  --json           print one JSON object

Settings: DATABASE_URL, WORKER_SCHEMA, GEOCODER_*.
`;

const SHOWN = 20;

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
  return withCurrentDatabase(async (client) => {
    const places = await duePlaces(client, kind, values.cluster);
    if (!values.apply) {
      const geocoder = geocoderFrom(readSettings(GeocoderSettings));
      const budget = await budgetOf(client, geocoder);
      const cost = await costOf(client, places, 'off' in geocoder ? null : geocoder.rate);
      printAnswer(values.json, { ...plan(kind, geocoder, budget, cost), places }, () =>
        listed(kind, places, geocoder, budget, cost),
      );
      return 0;
    }
    const geocoder = await geocoderInUse(client);
    if ('off' in geocoder) throw new ExpectedError(geocoder.off);
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
    const { state, reason } = await budgetOf(client, geocoder);
    printAnswer(values.json, { ...progress, state, reason }, () => outcome(progress, state, reason));
    return progress.done === progress.total ? 0 : 1;
  });
}

function plan(kind: PlaceKind, geocoder: Geocoder | NoGeocoder, budget: Budget, cost: Cost) {
  const isOff = 'off' in geocoder;
  return {
    what: kind,
    provider: isOff ? null : geocoder.provider.name,
    ratePerSecond: isOff ? null : geocoder.rate,
    budgetLeftToday: budget.left_today,
    state: budget.state,
    reason: budget.reason,
    ...cost,
  };
}

function listed(
  kind: PlaceKind,
  places: readonly DuePlace[],
  geocoder: Geocoder | NoGeocoder,
  { left_today, state, reason }: Budget,
  { fewestCalls, mostCalls, fewestSeconds, mostSeconds }: Cost,
): string {
  if (places.length === 0)
    return `No ${kind} are due: every one of open tickets is known, was asked lately, or lies in a cluster that nobody knows (tickets_ops.review_queue).\n`;
  const rows = places.slice(0, SHOWN).map((place) => {
    const waits = kind === 'locations' && !place.has_centroid ? '; waits for its cluster' : '';
    return `  ${printableLine(place.queries[0] ?? '')}  (${place.tickets} open, ${place.reason}${waits})\n`;
  });
  rows.push(...andMore(places.length, SHOWN).map((line) => `  … ${line}\n`));
  const calls = `Cost: ${fewestCalls} to ${mostCalls} calls`;
  if ('off' in geocoder)
    return `${places.length} ${kind} would be asked:\n${rows.join('')}${calls}.\n${DRY_RUN} There is nobody to ask: ${geocoder.off}\n`;
  const { provider, rate, dailyBudget } = geocoder;
  const left = left_today === null ? 'no daily limit' : `${left_today} calls left today`;
  const days =
    dailyBudget && mostCalls > dailyBudget
      ? ` At ${dailyBudget} calls a day that is up to ${Math.ceil(mostCalls / dailyBudget)} days.`
      : '';
  return (
    `${places.length} ${kind} would be asked of ${provider.name}:\n${rows.join('')}` +
    `${calls}, ${duration(fewestSeconds ?? 0)} to ${duration(mostSeconds ?? 0)} at ${rate} a second; ${left}.${days}\n` +
    (state === 'ready'
      ? `${APPLY}\n`
      : `At present nothing is asked: ${state}. ${reason ?? ''}\n${DRY_RUN} With --apply they wait until ${provider.name} may be asked.\n`)
  );
}

function outcome({ done, total, failed, waiting }: Progress, state: string, reason: string | null): string {
  if (done === total) return `${done} asked. See tickets_ops.review_queue for the doubtful ones.\n`;
  const why = state === 'ready' ? '' : ` (${state}: ${reason ?? ''})`;
  return `${done} of ${total} asked, ${failed} failed (tickets_ops.failed_jobs), ${waiting} wait${why}; a worker asks them when it may.\n`;
}
