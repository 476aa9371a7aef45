import { parseArgs } from 'node:util';
import { PutObjectCommand } from '@aws-sdk/client-s3';
import type { ClientBase } from 'pg';
import { createBucket } from '../src/bucket/create.ts';
import { type Bucket, openBucket } from '../src/bucket/s3.ts';
import { withClient } from '../src/database/client.ts';
import { migrate } from '../src/database/schema.ts';
import { startPage } from '../src/page/server.ts';
import { dataset } from '../src/settings/dataset.ts';
import { ExpectedError } from '../src/settings/errors.ts';
import { createLog } from '../src/settings/log.ts';
import { BucketSettings, readSettings } from '../src/settings/settings.ts';
import { print } from '../src/terminal/output.ts';
import { showProgress } from '../src/terminal/progress.ts';
import { table } from '../src/terminal/table.ts';
import { untilStopped } from '../src/terminal/until-stopped.ts';
import { workerEnded } from '../src/worker/pool.ts';
import { startWorker } from '../src/worker/worker.ts';
import { feed } from './feed.ts';
import { startProvider } from './provider.ts';
import { startTracker } from './vehicles.ts';

export const summary = 'the whole thing on a laptop, with made-up tickets at real places';
export const usage = `Usage: fleettickets demo [--exit]

Starts a database with PostGIS, an S3 server and a stand-in for a geocoding provider, all
in this process; feeds several hours of made-up tickets at real Kenyan places through the
real migrations and the real worker; drives twelve vehicles; shows what came out. Then it
keeps serving, so that you can look with psql, until Ctrl-C. Needs the development packages
(npm install).

  --exit   end when all is shown
`;

const HOURS = 6;
const TICKETS = 3_000;
const SEED = 2026;
/** Calls a second to the stand-in: a real free plan has 1, and nobody wants to watch that for a quarter of an hour. */
const RATE = 60;
const HOUR_MS = 3_600_000;

/** Values for :lng and :lat: a vehicle at the Westlands roundabout, Nairobi. */
const VEHICLE = 'ST_SetSRID(ST_MakePoint(36.8025, -1.2676), 4326)::geography';

const EXAMPLES: readonly (readonly [question: string, sql: string])[] = [
  [
    'How fresh is the map?',
    "select key, value from jsonb_each_text(reporting.fn_tickets_for_map() -> 'summary' -> 'freshness')",
  ],
  [
    'How precisely are the open tickets placed?',
    'select geo_source, count(*) from tickets.inc where is_actionable group by 1 order by 2 desc',
  ],
  ['Open tickets by SLA', 'select sla_state, count(*) from tickets.inc_open_sla group by 1 order by 2 desc'],
  [
    'Open tickets by cluster',
    'select cluster, count(*), round(avg(hours_open), 1) as avg_hrs from tickets.inc_open_sla group by 1 order by 2 desc limit 5',
  ],
  [
    'The nearest open tickets to a vehicle in Westlands',
    `select ticket_id, location_name, geo_source, assigned_team, sla_state, round(ST_Distance(geog, ${VEHICLE}))::int as metres from tickets.inc_open_sla order by geog <-> ${VEHICLE} limit 5`,
  ],
  [
    'What came in and went out in the last weeks (provisional: not all told yet)',
    "select period, created, closed, closed_final, reopened, net, provisional from tickets.inc_flow(tickets.eat_day(now()) - 21, tickets.eat_day(now()) + 1, 'week')",
  ],
  [
    'The vehicles, and what may be believed of their positions',
    "select label, team, freshness, justify_interval(date_trunc('minute', age)) as age from tickets.vehicles_now order by label",
  ],
  [
    'The vehicles nearest to a ticket in Nairobi that can still be saved from a breach',
    `select t.ticket_id, v.label, round(v.metres) as metres, v.road_km_estimate as road_km, v.minutes_estimate as minutes, v.freshness
  from (select ticket_id from tickets.inc_open_sla where at_risk and region = 'nairobi' and geog is not null order by 1 limit 1) t,
    tickets.nearest_vehicles(t.ticket_id) v`,
  ],
  [
    'Which vehicle goes where (npm run fleettickets -- dispatch)',
    `select v.label, p.ticket_id, round(p.metres) as metres, round(p.cost_km::numeric, 1) as cost_km, p.sla_state, p.at_risk, p.geo_source
  from tickets.dispatch_plan() p join tickets.vehicles_now v using (vehicle_id) order by v.label`,
  ],
  ['What happened to tickets', 'select event, count(*) from tickets.inc_events group by 1 order by 2 desc'],
  [
    'Rows that could not be loaded',
    'select snapshot_id, line, reason, left(row_text, 40) as row_text from tickets_ops.snapshot_rejects order by 1, 2 limit 5',
  ],
  [
    'Places that a person should look at',
    'select cluster, location_name, status, doubt, open_tickets, note from tickets_ops.review_queue limit 5',
  ],
];

export async function run(args: string[]): Promise<number> {
  const { values } = parseArgs({ args, options: { exit: { type: 'boolean', default: false } } });
  const { startBucket, startDatabase } = await embedded();
  say('Starting PostGIS, an S3 server and a stand-in provider, on this machine only …');
  const [database, server, provider] = await Promise.all([
    startDatabase(),
    startBucket(),
    startProvider({ rate: RATE * 2 }),
  ]);
  Object.assign(process.env, {
    DATABASE_URL: database.url,
    RUSTFS_ENDPOINT: server.endpoint,
    RUSTFS_REGION: server.region,
    RUSTFS_ACCESS_KEY: server.accessKeyId,
    RUSTFS_SECRET_KEY: server.secretAccessKey,
    GEOCODER_PROVIDER: 'locationiq',
    GEOCODER_BASE_URL: `${provider.url}/v1`,
    GEOCODER_API_KEY: provider.key,
    GEOCODER_RATE_PER_SECOND: String(RATE),
  });
  const log = await createLog({ to: process.stderr, level: 'error' });
  await migrate(database.url, log);
  const bucket = openBucket(readSettings(BucketSettings));
  await createBucket(bucket);
  const runner = await startWorker(log);
  let tracker: Awaited<ReturnType<typeof startTracker>> | undefined;

  await withClient(database.url, async (client) => {
    say(`\n${HOURS} hours of an export, loaded by the worker:\n`);
    const start = new Date(Math.floor(Date.now() / HOUR_MS) * HOUR_MS - (HOURS - 1) * HOUR_MS);
    for (const snapshot of feed({ seed: SEED, hours: HOURS, tickets: TICKETS, start })) {
      await put(bucket, snapshot.name, snapshot.csv);
      await loadAndTell(client, snapshot.name);
    }
    await watchGeocoding(client);
    tracker = await startTracker(database.url);
    say(`The provider was asked ${provider.calls.length} times.\n`);
    for (const [question, sql] of EXAMPLES) say(`${question}\n\n  ${sql};\n\n${table(await shown(client, sql))}`);
    const [health = {}] = await shown(client, 'select * from tickets_ops.health');
    say(`Health (select * from tickets_ops.health)\n\n${vertical(health)}`);
  });

  if (!values.exit) {
    const page = await startPage(database.url, 0, { MAP_TILES_ATTRIBUTION: '' });
    say(`Look around, until Ctrl-C: the map, the review of places and the jobs, in a browser; or with psql\n`);
    say(`  ${page.url}\n  psql '${database.url}'\n`);
    await untilStopped();
    await page.close();
  }
  await tracker?.stop();
  await runner.stop().catch(() => undefined); // it rejects when the runner has stopped by itself
  await workerEnded(runner.events);
  bucket.client.destroy();
  await Promise.all([database.close(), server.close(), provider.close()]);
  return 0;
}

/** The embedded servers are development packages: the list of commands must work without them. */
async function embedded() {
  try {
    return await import('./embedded.ts');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ERR_MODULE_NOT_FOUND') throw error;
    throw new ExpectedError('The demo needs the development packages: run npm install (without --omit=dev).');
  }
}

const say = (text: string) => print(`${text}\n`);

async function put(bucket: Bucket, name: string, body: Uint8Array): Promise<void> {
  await bucket.client.send(
    new PutObjectCommand({ Bucket: bucket.name, Key: `${dataset('inc').prefix}${name}`, Body: body }),
  );
}

interface Line {
  status: string;
  counts: string;
  milliseconds: number;
}

/** Asks for a fetch as an operator would, waits until its snapshot has come to an end, and tells how. */
async function loadAndTell(client: ClientBase, name: string): Promise<void> {
  await client.query('select tickets_ops.fetch_now()');
  for (;;) {
    const { rows } = await client.query<Line>(
      `select status,
         format('%s new, %s changed, %s unchanged, %s alarms, %s duplicates, %s rejected',
           rows_inserted, rows_updated, rows_unchanged, rows_dropped_alarm, rows_duplicate, rows_rejected) as counts,
         round(extract(epoch from loaded_at - listed_at) * 1000)::int as milliseconds
       from tickets_ops.snapshots
       where source_key like '%' || $1 and (archived_at is not null or status in ('failed', 'partial'))`,
      [name],
    );
    const line = rows[0];
    if (line) {
      const counts =
        line.status === 'unchanged' ? 'the same bytes as the hour before' : `${line.counts} (${line.milliseconds} ms)`;
      say(`  ${name}  ${line.status.padEnd(10)} ${counts}`);
      return;
    }
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

/** Shows how the map fills up, until no geocoding job is left. */
async function watchGeocoding(client: ClientBase): Promise<void> {
  say('\nThe map fills up:\n');
  const progress = showProgress();
  for (;;) {
    const { rows } = await client.query<{ placed: number; open: number; left: number }>(
      `select count(*) filter (where geo_source = 'location')::int as placed, count(*)::int as open,
         (select count(*)::int from tickets_ops.queued_jobs() where tickets_ops.is_geocoding(task) and state <> 'failed') as left
       from tickets.inc where is_actionable`,
    );
    const { placed = 0, open = 0, left = 0 } = rows[0] ?? {};
    if (left === 0) break;
    progress.update('open tickets at their own place', placed, open);
    await new Promise((resolve) => setTimeout(resolve, 500));
  }
  progress.stop();
}

/** Rows with their values as psql shows them. */
async function shown(client: ClientBase, text: string): Promise<Record<string, string>[]> {
  const { rows } = await client.query({ text, types: { getTypeParser: () => (value: string) => value } });
  return rows;
}

/** One row with its columns below each other, as psql's \x. */
function vertical(row: Record<string, unknown>): string {
  return table(Object.entries(row).map(([column, value]) => ({ column, value })));
}
