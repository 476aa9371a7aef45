/**
 * The schedule, as the database is told of it: a worker that starts records the entries of its crontab in
 * tickets_ops.schedule, from which health knows when a look was due. The crontab stays the only place that holds an hour.
 */
import type { CronMatcher, ParsedCronItem } from 'graphile-worker';
import type { Db } from '../database/client.ts';
import { readCrontab } from '../database/crontab.ts';
import type { TaskName } from '../database/jobs.ts';
import { DEFAULT_DATASET } from '../settings/dataset.ts';
import { datasetsOn } from '../settings/recorded.ts';

/**
 * When an entry fires, in UTC: at a listed minute of a listed hour in a listed month, if the date *or* the weekday (0 is
 * Sunday) is listed.
 */
interface Times {
  readonly minutes: readonly number[];
  readonly hours: readonly number[];
  readonly dates: readonly number[];
  readonly months: readonly number[];
  readonly weekdays: readonly number[];
}

/**
 * Records the crontab without the looks at datasets that are off; entries that it no longer has are forgotten.
 * @returns what it recorded, for graphile-worker
 * @throws what graphile-worker's parser says
 */
export async function recordSchedule(db: Db): Promise<ParsedCronItem[]> {
  const on: string[] = await datasetsOn(db);
  const items = (await readCrontab()).filter((item) => {
    const dataset = datasetOf(item);
    return dataset === null || on.includes(dataset);
  });
  await db.query('select tickets_ops.record_schedule($1)', [JSON.stringify(items.map(entryOf))]);
  return items;
}

/** An entry of the crontab, as tickets_ops.record_schedule takes it. */
export function entryOf(item: ParsedCronItem) {
  return { identifier: item.identifier, task: item.task, dataset: datasetOf(item), ...timesOf(item.match) };
}

/** The dataset whose folder an entry looks at; null where it is no look at the bucket. */
function datasetOf({ task, payload }: ParsedCronItem): string | null {
  const look: TaskName = 'fetch_snapshot';
  return task === look ? String(payload?.['dataset'] ?? DEFAULT_DATASET) : null;
}

const MINUTES = range(0, 59);
const HOURS = range(0, 23);
const MONTHS = range(1, 12);
const DATES = range(1, 31);
const WEEKDAYS = range(0, 6);

function range(from: number, to: number): number[] {
  return Array.from({ length: to - from + 1 }, (_, n) => from + n);
}

/**
 * What graphile-worker's parser has understood of a pattern, asked of its matcher: it does not show it otherwise.
 * Minute, hour and month each have to match, so with one match at hand each is found by trying. Where a pattern names dates
 * and weekdays, either will do: a date counts that fires on every weekday, and a weekday that fires on every date.
 */
export function timesOf(match: CronMatcher): Times {
  const one = anyMatch(match);
  if (!one) return { minutes: [], hours: [], dates: [], months: [], weekdays: [] };
  return {
    minutes: MINUTES.filter((min) => match({ ...one, min })),
    hours: HOURS.filter((hour) => match({ ...one, hour })),
    dates: DATES.filter((date) => WEEKDAYS.every((dow) => match({ ...one, date, dow }))),
    months: MONTHS.filter((month) => match({ ...one, month })),
    weekdays: WEEKDAYS.filter((dow) => DATES.every((date) => match({ ...one, date, dow }))),
  };
}

/** Either a date or a weekday suffices, so all dates of one weekday and all weekdays of one date are tried. */
function anyMatch(match: CronMatcher): Parameters<CronMatcher>[0] | undefined {
  const days = [...DATES.map((date) => ({ date, dow: 0 })), ...WEEKDAYS.map((dow) => ({ date: 1, dow }))];
  for (const month of MONTHS)
    for (const day of days)
      for (const hour of HOURS)
        for (const min of MINUTES) {
          const digest = { min, hour, month, ...day };
          if (match(digest)) return digest;
        }
  return undefined;
}
