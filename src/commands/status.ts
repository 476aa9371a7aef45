import { parseArgs } from 'node:util';
import { withCurrentDatabase } from '../database/current.ts';
import type { DatasetHealth, Health } from '../operations/health.ts';
import { readStatus, type Status } from '../operations/status.ts';
import { DEFAULT_DATASET } from '../settings/dataset.ts';
import { printAnswer } from '../terminal/output.ts';
import { table } from '../terminal/table.ts';
import { wallClock } from '../text/nairobi.ts';
import { printableLine } from '../text/printable.ts';
import { duration, shortened } from '../text/wording.ts';

export const summary = 'how the pipeline is doing';
export const usage = `Usage: fleettickets status [--json]

The health of the pipeline as the database sees it, the last snapshots, and the jobs that
fail. Times are those of Nairobi. The same row as select * from tickets_ops.health.

  --json   print one JSON object; where there is no answer, it has one field: error

Exit status: 0 all is well, 1 something needs a person. Settings: DATABASE_URL.
`;

export async function run(args: string[]): Promise<number> {
  const { values } = parseArgs({ args, options: { json: { type: 'boolean', default: false } } });
  const status = await withCurrentDatabase(readStatus);
  printAnswer(values.json, status, () => page(status, new Date()));
  return status.health.ok ? 0 : 1;
}

/** The page, for a person; `now` is the reader's. */
export function page({ health, datasets, snapshots, failing }: Status, now: Date): string {
  const problems = health.problems.map((problem) => `  - ${problem.replaceAll('\n', '\n    ')}\n`).join('');
  const verdict = health.ok
    ? health.problems.length === 0
      ? 'All is well.\n'
      : `All is well. Worth knowing:\n${problems}`
    : `Needs attention:\n${problems}`;
  const others = datasets.filter(({ dataset }) => dataset !== DEFAULT_DATASET);
  const summary = [...lines(health, now), ...others.map((other) => lineOf(other, now))]
    .map(([name, text]) => `${name.padEnd(11)}${text}\n`)
    .join('');
  const files = snapshots.map(({ snapshot_id, dataset, file, at, reason, ...rest }) => ({
    id: snapshot_id,
    ...(others.length > 0 && { dataset }),
    file: file.slice(file.lastIndexOf('/') + 1),
    when: wallClock(at),
    ...rest,
    reason: short(reason),
  }));
  const jobs = failing.map(({ next_at, error, ...job }) => ({
    ...job,
    next: next_at ? wallClock(next_at) : '',
    error: short(error),
  }));
  return [
    verdict,
    summary,
    files.length > 0 ? `Last snapshots\n${table(files)}` : 'No snapshot has been looked at yet.\n',
    jobs.length > 0
      ? `Failing jobs: select * from tickets_ops.retry_job(id) tries one again\n${table(jobs)}`
      : 'No job fails.\n',
  ].join('\n');
}

const whenOf = (time: string | null, now: Date) => (time === null ? 'never' : `${wallClock(time)}, ${ago(time, now)}`);

const missingOf = (tickets: number | null) => (tickets ? `; ${tickets} open tickets are not in the newest file` : '');

/** Of a dataset beside INC. */
function lineOf(other: DatasetHealth, now: Date): [string, string] {
  const data =
    other.data_at === null ? 'none yet' : `as of ${whenOf(other.data_at, now)}${missingOf(other.open_missing)}`;
  const loaded = other.loaded_key === null ? '' : `, ${printableLine(other.loaded_key)} ${other.loaded_status}`;
  const next = other.next_run_at === null ? 'unknown' : wallClock(other.next_run_at);
  return [
    other.dataset.toUpperCase(),
    `${other.open_tickets} open, ${data}; last look ${whenOf(other.checked_at, now)}${loaded}; next run ${next}`,
  ];
}

function lines(health: Health, now: Date): [string, string][] {
  const when = (time: string | null) => whenOf(time, now);
  const missing = missingOf(health.open_missing);
  const fileOf = (key: string | null, status: string | null) =>
    key === null ? '' : `: ${printableLine(key)} ${status}`;
  const loaded =
    health.loaded_snapshot_id === null
      ? ''
      : `: snapshot ${health.loaded_snapshot_id}, ${printableLine(health.loaded_key ?? '')} ${health.loaded_status}`;
  const waiting = health.oldest_waiting_age === null ? '' : ` (the oldest for ${clock(health.oldest_waiting_age)})`;
  const budget = health.geocoding_budget_left === null ? '' : `, ${health.geocoding_budget_left} calls left today`;
  const unsure = health.workers_unsure > 0 ? '; their connections share sessions, so a dead one is not noticed' : '';
  return [
    ['Tickets', health.data_at === null ? 'none yet' : `as of ${when(health.data_at)}${missing}`],
    ['Last look', `${when(health.checked_at)}${fileOf(health.checked_key, health.checked_status)}`],
    ['Last load', `${when(health.loaded_at)}${loaded}`],
    ...(health.in_flight_snapshot_id === null
      ? []
      : [
          [
            'In flight',
            `snapshot ${health.in_flight_snapshot_id} is ${health.in_flight_status}, moved ${clock(health.in_flight_idle ?? '')} ago`,
          ] as [string, string],
        ]),
    ['Next run', health.next_run_at === null ? 'unknown: no worker has started yet' : wallClock(health.next_run_at)],
    ['Jobs', `${health.jobs_waiting} due${waiting}, ${health.jobs_running} running, ${health.jobs_failed} failed`],
    ['Workers', `${health.workers_alive} alive${unsure}`],
    [
      'Geocoding',
      `${health.geocoding_state ?? 'off'}${budget}; ${health.geocoding_jobs} places wait, ${health.places_for_review} are to be reviewed`,
    ],
  ];
}

function ago(time: string, now: Date): string {
  const seconds = (now.getTime() - new Date(time).getTime()) / 1_000;
  return seconds < 60 ? 'just now' : `${duration(seconds)} ago`;
}

/** Postgres's `3 days 04:05:06` without the seconds of long times. */
const clock = (interval: string) => (/^00:00:\d\d$/.test(interval) ? `${Number(interval.slice(-2))} s` : interval);

const LONGEST = 90;
const short = (text: string | null) => shortened((text ?? '').replace(/\s+/g, ' '), LONGEST);
