import { parseArgs } from 'node:util';
import { DIMENSIONS, type Report, readReport, type Since } from '../analytics/report.ts';
import { withCurrentDatabase } from '../database/current.ts';
import { printAnswer } from '../terminal/output.ts';
import { sparkline } from '../terminal/sparkline.ts';
import { table } from '../terminal/table.ts';
import { choose, UsageError } from '../terminal/usage.ts';
import { NAIROBI_AHEAD_MS, wallClock } from '../text/nairobi.ts';
import { andMore, shortened } from '../text/wording.ts';

export const summary = 'what came in and went out, how long it took, what is open';
export const usage = `Usage: fleettickets report [--since 30d] [--by team] [--json]

Flow, backlog, repair times and teams of the last days, in days of Nairobi. What each
figure counts, and what it does not tell: docs/analytics.md.

  --since 30d   so many days (30d) or weeks (4w) until today, or from a day on
                (2026-06-01); the default is 30d
  --by team     also by team, cluster, region, owner or status
  --json        print one JSON object

Exit status: 0. Settings: DATABASE_URL.
`;

export async function run(args: string[]): Promise<number> {
  const { values } = parseArgs({
    args,
    options: {
      since: { type: 'string', default: '30d' },
      by: { type: 'string' },
      json: { type: 'boolean', default: false },
    },
  });
  const since = readSince(values.since);
  const by = values.by === undefined ? null : choose('--by', DIMENSIONS, values.by);
  printAnswer(values.json, await withCurrentDatabase((client) => readReport(client, since, by)), page);
  return 0;
}

/** More than ten years of days would only be slow. */
const LONGEST_DAYS = 3660;
const DAY_MS = 86_400_000;

/** The day of a time in UTC; '' where it is none. */
const isoDay = (time: number): string => (Number.isNaN(time) ? '' : new Date(time).toISOString().slice(0, 10));

function readSince(text: string): Since {
  const [, count, unit] = /^(\d{1,4})([dw])$/.exec(text) ?? [];
  const days = Number(count) * (unit === 'w' ? 7 : 1);
  if (count !== undefined && days >= 1 && days <= LONGEST_DAYS) return { days };
  const isDay = /^\d{4}-\d\d-\d\d$/.test(text) && isoDay(Date.parse(text)) === text; // not 30 February
  const age = Date.now() + NAIROBI_AHEAD_MS - Date.parse(text);
  if (isDay && age >= 0 && age < LONGEST_DAYS * DAY_MS) return { day: text };
  throw new UsageError(
    `--since ${text} is neither days (30d), weeks (4w) nor a day (2026-06-01) of the last ten years.`,
  );
}

/** The page, for a person. */
export function page(report: Report): string {
  const { from, to, by, settled_through: settled, values } = report;
  const last = isoDay(Date.parse(to) - DAY_MS);
  const told =
    settled === null
      ? 'No snapshot has been loaded yet.'
      : `As of the snapshot of ${wallClock(report.snapshot_through ?? '')}.\nWhat happened after ${wallClock(settled)} is not all told yet: ~`;
  return [
    `${from} to ${last}, in days of Nairobi.\n${told}\n`,
    flowPart(report),
    backlogPart(report),
    repairPart(report),
    values === null ? '' : valuesPart(by, values),
    teamsPart(report),
  ]
    .filter((part) => part !== '')
    .join('\n');
}

/** Of a long range a bar is of several days, so that the line fits a terminal. */
const BARS_SHOWN = 60;

const daysABar = (days: readonly unknown[]): number => Math.ceil(days.length / BARS_SHOWN);

const title = (text: string, days: readonly unknown[]): string =>
  daysABar(days) > 1 ? `${text}, ${daysABar(days)} days a bar` : text;

/** @param countOf of the days of a bar, of which there is one at least */
function bars<Day>(days: readonly Day[], countOf: (days: readonly Day[]) => number | null): string {
  const size = daysABar(days);
  const count = Math.ceil(days.length / size);
  return sparkline(Array.from({ length: count }, (_, n) => countOf(days.slice(n * size, (n + 1) * size))));
}

function flowPart({ flow }: Report): string {
  type Count = 'created' | 'closed' | 'closed_final' | 'reopened' | 'undated';
  const sum = (of: Count, days = flow) => days.reduce((total, day) => total + day[of], 0);
  const series = (of: Count) => bars(flow, (days) => sum(of, days));
  const net = sum('created') + sum('reopened') - sum('closed');
  const undated = sum('undated') > 0 ? `; ${sum('undated')} more were closed nobody says when` : '';
  return lines(title('Flow', flow), [
    ['created', series('created'), String(sum('created'))],
    [
      'closed',
      series('closed'),
      `${sum('closed')}${sum('closed') > 0 ? `, of which ${sum('closed_final')} still stand` : ''}${undated}`,
    ],
    ['reopened', series('reopened'), String(sum('reopened'))],
    ['net', '', `${net > 0 ? '+' : ''}${net}: created + reopened - closed`],
  ]);
}

function backlogPart({ backlog }: Report): string {
  const known = backlog.filter((day) => day.open !== null);
  const [first, last] = [known[0], known.at(-1)];
  if (!first || !last) return 'Backlog: no day of these has been looked at.\n';
  const unseen = known.filter((day) => !day.observed).length;
  type Count = 'open' | 'open_breached' | 'open_at_risk' | 'open_unknown';
  const series = (of: Count) => bars(backlog, (days) => days.at(-1)?.[of] ?? null);
  const then = (of: Count) => String(last[of] ?? 'unknown');
  return lines(title('Backlog at the end of each day', backlog), [
    [
      'open',
      series('open'),
      `${first === last ? '' : `${first.open} on ${first.day}, `}${last.open} on ${last.day}${unseen > 0 ? `; ${unseen} days without a look are carried forward` : ''}`,
    ],
    ['breached', series('open_breached'), `${then('open_breached')} on ${last.day}`],
    ['at risk', series('open_at_risk'), then('open_at_risk')],
    ['no clock', '', then('open_unknown')],
  ]);
}

/** A quarter. */
const WEEKS_SHOWN = 13;

function repairPart({ from, repair_times, time_to_close: curve }: Report): string {
  const weeks = repair_times.slice(-WEEKS_SHOWN);
  const rows = weeks.map(({ period, n, provisional, ...row }) => ({
    week: `${period}${provisional ? ' ~' : ''}`,
    closed: n,
    mttr: row.mttr_median,
    p80_h: row.hours_p80,
    p95_h: row.hours_p95,
    '24h %': row.within_24h_pct,
    '48h %': row.within_48h_pct,
    'back %': row.reopened_pct,
  }));
  const more = repair_times.length > WEEKS_SHOWN ? `${repair_times.length - WEEKS_SHOWN} earlier weeks: --json\n` : '';
  const inPart = weeks.some(({ period }) => period < from) ? `; the first week: from ${from} on` : '';
  const repairs = repair_times.some(({ n }) => n > 0)
    ? `Repair times of what was closed
(mttr: the source's, median minutes; p80_h, p95_h: hours by the wall clock;
24h %, 48h %: within so long; back %: reopened${inPart})\n${table(rows)}${more}`
    : 'Repair times: nothing was closed.\n';
  const hours = (value: number | null, otherwise: string) => (value === null ? otherwise : `${value} h`);
  const [half, most, nearly] = [curve.median_hours, curve.p80_hours, curve.p95_hours].map((value) =>
    hours(value, 'not known yet'),
  );
  const toClose =
    curve.opened === 0
      ? 'Time to close: nothing was opened.\n'
      : `Time to close of the ${curve.opened} that were opened, ${curve.still_open} of them still open (Kaplan-Meier)
  half ${half}, 80 % ${most}, 95 % ${nearly}
  half of the closed ones alone ${hours(curve.naive_median_hours, 'not known')}\n`;
  return `${repairs}\n${toClose}`;
}

/** Of teams and other values; --json has all. */
const ROWS_SHOWN = 20;
/** So that a row fits into 100 columns. */
const LONGEST_NAME = 20;

const shown = (rows: readonly Record<string, unknown>[]): string =>
  `${table(rows.slice(0, ROWS_SHOWN))}${andMore(rows.length, ROWS_SHOWN)
    .map((line) => `${line}: --json\n`)
    .join('')}`;

function valuesPart(by: Report['by'], values: readonly Record<string, unknown>[]): string {
  if (values.length === 0) return `By ${by}: nothing came in or went out.\n`;
  const rows = values.map((row) => ({
    [String(by)]: shortened(String(row['value']), LONGEST_NAME),
    created: row['created'],
    closed: row['closed'],
    final: row['closed_final'],
    reopened: row['reopened'],
    net: row['net'],
    half_h: row['median_hours'],
    p95_h: row['p95_hours'],
    '48h %': row['within_48h_pct'],
  }));
  return `By ${by}: flow of the whole range, and the time to close of what was opened\n${shown(rows)}`;
}

function teamsPart({ teams }: Report): string {
  if (teams.length === 0) return 'Teams: none has closed, moved or open tickets.\n';
  const rows = teams.map((row) => ({
    team: row['low_n']
      ? `${shortened(String(row['assigned_team']), LONGEST_NAME - 2)} *`
      : shortened(String(row['assigned_team']), LONGEST_NAME),
    closed: row['closed'],
    final: row['closed_final'],
    'back %': row['reopened_pct'],
    mttr: row['mttr_median'],
    p80_h: row['hours_p80'],
    '48h %': row['within_48h_pct'],
    in: row['received'],
    out: row['handed_over'],
    open: row['open_now'],
    late: row['breached_now'],
  }));
  return `Teams (*: under 20 closings, too few for a comparison)
(back %: reopened; mttr: median minutes; in, out: open tickets moved to and from it;
open, late: open and breached now)\n${shown(rows)}`;
}

const lines = (heading: string, rows: readonly (readonly [name: string, series: string, text: string])[]) =>
  `${heading}\n${rows.map(([name, series, text]) => `  ${name.padEnd(9)} ${series}${series && '  '}${text}\n`).join('')}`;
