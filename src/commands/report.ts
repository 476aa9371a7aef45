import { parseArgs } from 'node:util';
import { DIMENSIONS, type Dimension, type Report, readReport, type Since } from '../analytics/report.ts';
import { requireCurrent } from '../database/schema.ts';
import { withBoundedWaits } from '../database/waits.ts';
import { DatabaseSettings, readSettings } from '../settings/settings.ts';
import { print, printJson } from '../terminal/output.ts';
import { sparkline } from '../terminal/sparkline.ts';
import { table } from '../terminal/table.ts';
import { UsageError } from '../terminal/usage.ts';

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
  const by = values.by === undefined ? null : readDimension(values.by);
  return withBoundedWaits(readSettings(DatabaseSettings).DATABASE_URL, async (client) => {
    await requireCurrent(client);
    const report = await readReport(client, since, by);
    if (values.json) printJson(report);
    else print(page(report));
    return 0;
  });
}

/** More than ten years of days would only be slow. */
const LONGEST_DAYS = 3660;
const DAY_MS = 86_400_000;
/** UTC+3, all year. */
const NAIROBI_AHEAD_MS = 3 * 3_600_000;

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

function readDimension(text: string): Dimension {
  const found = DIMENSIONS.find((dimension) => dimension === text);
  if (!found) throw new UsageError(`--by ${text}: choose ${DIMENSIONS.join(', ')}.`);
  return found;
}

/** The page, for a person. */
export function page(report: Report): string {
  const { from, to, by, settled_through: settled, values } = report;
  const last = isoDay(Date.parse(to) - DAY_MS);
  const told =
    settled === null
      ? 'No snapshot has been loaded yet.'
      : `As of the snapshot of ${wallClock(report.snapshot_through ?? '')}. What happened after ${wallClock(settled)} is not all told yet: ~`;
  return [
    `${from} to ${last}, in days of Nairobi.\n${told}\n`,
    flowPart(report),
    backlogPart(report),
    repairPart(report),
    values === null
      ? ''
      : `By ${by}: flow of the whole range, and the time to close of what was opened\n${table(values)}`,
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
    ['closed', series('closed'), `${sum('closed')}, of which ${sum('closed_final')} still stand${undated}`],
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

function repairPart({ repair_times, time_to_close: curve }: Report): string {
  const rows = repair_times.slice(-WEEKS_SHOWN).map(({ period, n, provisional, ...row }) => ({
    week: `${period}${provisional ? ' ~' : ''}`,
    closed: n,
    mttr_min: row.mttr_median,
    hours_p80: row.hours_p80,
    hours_p95: row.hours_p95,
    '24h_pct': row.within_24h_pct,
    '48h_pct': row.within_48h_pct,
    reopened_pct: row.reopened_pct,
  }));
  const more = repair_times.length > WEEKS_SHOWN ? `${repair_times.length - WEEKS_SHOWN} earlier weeks: --json\n` : '';
  const hours = (value: number | null) => (value === null ? 'not reached' : `${value} h`);
  return `Repair times of what was closed (mttr_min: the source's median in minutes; hours by the wall clock)\n${table(rows)}${more}
Time to close of the ${curve.opened} that were opened, the ${curve.still_open} still open ones included (Kaplan-Meier):
  half ${hours(curve.median_hours)}, 80 % ${hours(curve.p80_hours)}, 95 % ${hours(curve.p95_hours)}; half of the closed ones alone ${hours(curve.naive_median_hours)}\n`;
}

const TEAMS_SHOWN = 20;

function teamsPart({ teams }: Report): string {
  if (teams.length === 0) return 'Teams: none has closed, moved or open tickets.\n';
  const rows = teams.slice(0, TEAMS_SHOWN).map((row) => ({
    team: row['assigned_team'],
    closed: row['closed'],
    final: row['closed_final'],
    reopened_pct: row['reopened_pct'],
    mttr_min: row['mttr_median'],
    hours_p80: row['hours_p80'],
    '48h_pct': row['within_48h_pct'],
    received: row['received'],
    handed_over: row['handed_over'],
    open_now: row['open_now'],
    breached: row['breached_now'],
    few: row['low_n'] ? 'few' : '',
  }));
  const more = teams.length > TEAMS_SHOWN ? `${teams.length - TEAMS_SHOWN} more: --json\n` : '';
  return `Teams (few: under 20 closings, too few for a comparison)\n${table(rows)}${more}`;
}

const lines = (heading: string, rows: readonly (readonly [name: string, series: string, text: string])[]) =>
  `${heading}\n${rows.map(([name, series, text]) => `  ${name.padEnd(9)} ${series}${series && '  '}${text}\n`).join('')}`;

const NAIROBI = new Intl.DateTimeFormat('en-GB', {
  timeZone: 'Africa/Nairobi',
  day: 'numeric',
  month: 'short',
  hour: '2-digit',
  minute: '2-digit',
});

const wallClock = (time: string) => `${NAIROBI.format(new Date(time)).replace(' at ', ' ').replace(',', '')} EAT`;
