/**
 * The stand: the two ways to load a file, each timed, into the same tables of the same database.
 * Ours goes from the bucket to `done` through a worker process that is already up; the baseline is what a good engineer
 * would type otherwise: psql, a temporary table, one INSERT … ON CONFLICT. Starting a process counts for neither.
 */
import { execFile } from 'node:child_process';
import { writeFile } from 'node:fs/promises';
import { setTimeout } from 'node:timers/promises';
import { promisify } from 'node:util';
import { bigCsv } from '../demo/feed.ts';
import { clusters } from '../demo/places.ts';
import { columns } from '../demo/ticket.ts';
import { fleettickets } from '../test/support/command.ts';
import { type Environment, waitFor } from '../test/support/environment.ts';
import { peakMemoryMb } from '../test/support/peak-memory.ts';
import { startWorkerProcess } from '../test/support/worker-process.ts';

const run = promisify(execFile);

/** Between two looks at whether a load is done: looking all the time would take of the two cores that are measured. */
const LOOK_MS = 25;
/** A load may take this long. */
const PATIENCE_MS = 1_200_000;
const DROPPED = /^(week_start|week_end|source_s3_.*|source_snapshot_id|department|source_type)$/;

export interface Loaded {
  /** From the job's coming into being to the snapshot's being `done`. */
  readonly ms: number;
  readonly status: string;
  /** Milliseconds: until the file was listed, until its rows were staged, until they were tickets. */
  readonly steps: readonly number[];
  readonly inserted: number;
  readonly updated: number;
  readonly unchanged: number;
}

/** A file of so many tickets of which exactly so many differ from the file with 0; each record holds the number of the snapshot besides. */
export async function csvFile(tickets: number, changed = 0, snapshot = 0): Promise<Buffer> {
  const parts: Buffer[] = [];
  for await (const part of bigCsv({ tickets, changed, snapshot })) parts.push(Buffer.from(part));
  return Buffer.concat(parts);
}

let files = 0;

/** Puts a file into the bucket, an hour newer than the last one. @returns its key */
async function put(env: Environment, csv: Buffer): Promise<string> {
  files += 1;
  const hour = new Date(Date.UTC(2020, 0, 1, files)).toISOString().slice(0, 19).replaceAll(':', '-');
  const key = `automations/inc/${hour}.csv`;
  await env.putObject(key, csv);
  await env.pool.query('checkpoint');
  return key;
}

/** Puts a file into the bucket and loads it with the command, while no worker runs. @returns milliseconds from its start to its end */
export async function ingest(env: Environment, csv: Buffer): Promise<number> {
  await put(env, csv);
  const from = performance.now();
  const { status, err } = await fleettickets({}, 'ingest', '--from-bucket', '--apply');
  if (status !== 0) throw new Error(`ingest ended with ${status}: ${err}`);
  return performance.now() - from;
}

/** Puts a file into the bucket and lets the worker load it. */
export async function load(env: Environment, csv: Buffer): Promise<Loaded> {
  const key = await put(env, csv);
  const from = performance.now();
  const { rows } = await env.pool.query<{ at: Date }>(
    `select clock_timestamp() as at, graphile_worker.add_job('fetch_snapshot', '{"dataset":"inc"}', max_attempts := 1)`,
  );
  const snapshot = await waitFor(
    `${key} to be loaded`,
    async () => {
      await setTimeout(LOOK_MS);
      const found = await env.pool.query<Omit<Loaded, 'ms'> & { error: string | null }>(
        `select status, error, rows_inserted::int as inserted, rows_updated::int as updated, rows_unchanged::int as unchanged,
           array[
             extract(epoch from listed_at - $2), extract(epoch from staged_at - listed_at), extract(epoch from loaded_at - staged_at)
           ]::float8[] as steps
         from tickets_ops.snapshots
         where source_key = $1 and status in ('done', 'partial', 'unchanged', 'superseded', 'failed')
         union all
         select 'failed', task_identifier || ': ' || last_error, 0, 0, 0, null
         from graphile_worker.jobs where last_error is not null and task_identifier not like 'geocode%'`,
        [key, rows[0]?.at],
      );
      return found.rows[0];
    },
    PATIENCE_MS,
  );
  const ms = performance.now() - from;
  if (snapshot.status === 'failed') throw new Error(`${key} failed: ${snapshot.error}`);
  await waitFor('the load to be over', async () => {
    const { rowCount } = await env.pool.query(
      `select from graphile_worker.jobs where locked_at is not null and task_identifier not like 'geocode%' limit 1`,
    );
    return rowCount === 0;
  });
  return { ...snapshot, ms, steps: snapshot.steps.map((seconds) => Math.round(seconds * 1000)) };
}

/**
 * Loads a file with psql. `\copy`, the cleaning and the upsert are timed, not psql's start.
 * @returns milliseconds
 */
export async function baseline(env: Environment, folder: string, csv: Buffer): Promise<number> {
  await writeFile(`${folder}/feed.csv`, csv);
  await writeFile(`${folder}/load.sql`, baselineScript(`${folder}/feed.csv`));
  await env.pool.query('checkpoint');
  const { stdout } = await run('psql', [
    env.databaseUrl,
    '-X',
    '-qAt',
    '-v',
    'ON_ERROR_STOP=1',
    '-f',
    `${folder}/load.sql`,
  ]);
  const [begun, ended] = stdout.trim().split('\n').map(Number);
  if (!begun || !ended) throw new Error(`psql said ${JSON.stringify(stdout)}`);
  return ended - begun;
}

function baselineScript(file: string): string {
  const clean = columns
    .filter((column) => !DROPPED.test(column))
    .map((column) => {
      if (column === 'region') return 'lower(region) as region';
      if (column === 'raw_status') return 'upper(raw_status) as raw_status';
      if (column === 'ticket_id') return 'btrim(ticket_id) as ticket_id';
      return column;
    });
  const clock = `select extract(epoch from clock_timestamp()) * 1000;\n`;
  // An unquoted empty field stays '', as it does in ours.
  return `${clock}begin;
create temporary table feed (${columns.map((column) => `${column} text`).join(', ')}) on commit drop;
\\copy feed from '${file}' with (format csv, header, null '\\N')
insert into tickets.inc (ticket_id, raw)
select f.ticket_id, to_jsonb(f) from (select ${clean.join(', ')} from feed where lower(is_alarm) <> 'true') as f
on conflict (ticket_id) do update set raw = excluded.raw, ingested_at = now() where tickets.inc.raw is distinct from excluded.raw;
commit;
${clock}`;
}

const DEADLOCK = '40P01';

/** No tickets, no history, no snapshots; the gazetteers stay. */
export async function emptyTickets(env: Environment): Promise<void> {
  for (;;) {
    try {
      await env.pool.query(
        'truncate tickets.inc, tickets.inc_events, tickets.inc_daily, tickets.import_meta, tickets_ops.snapshots, tickets_ops.inc_digests cascade',
      );
      return;
    } catch (error) {
      // The worker's own upkeep may be reading just then; it is over in a moment.
      if ((error as { code?: string }).code !== DEADLOCK) throw error;
    }
  }
}

/** @returns milliseconds that a statement takes */
export async function timed(env: Environment, sql: string): Promise<number> {
  const from = performance.now();
  await env.pool.query(sql);
  return performance.now() - from;
}

/** Every cluster gets its centroid, so every ticket with a cluster a place. */
export async function placeClusters(env: Environment): Promise<void> {
  const placed = clusters.flatMap(({ name, centre }) => (centre ? [{ name, lng: centre.lng, lat: centre.lat }] : []));
  await env.pool.query(
    `insert into tickets.geo_clusters (cluster, geom)
     select name, st_setsrid(st_makepoint(lng, lat), 4326)
     from jsonb_to_recordset($1) as c (name text, lng float8, lat float8)
     on conflict (cluster) do nothing`,
    [JSON.stringify(placed)],
  );
}

/** Remembers which version of each ticket stands in the table; returns a function that counts those written since. */
export async function watchRows(env: Environment): Promise<() => Promise<number>> {
  await env.pool.query(
    `drop table if exists bench_rows;
     create unlogged table bench_rows as select ticket_id, xmin::text as version, ctid::text as place from tickets.inc`,
  );
  return async () => {
    const { rows } = await env.pool.query<{ written: number }>(
      `select count(*)::int as written
       from tickets.inc t full join bench_rows b using (ticket_id)
       where t.xmin::text is distinct from b.version or t.ctid::text is distinct from b.place`,
    );
    return rows[0]?.written ?? 0;
  };
}

/** Runs `use` beside a worker process of its own; returns the process's peak memory in MB as well. */
export async function withWorker<T>(env: Environment, use: () => Promise<T>): Promise<{ result: T; peakMb: number }> {
  const worker = await startWorkerProcess({ LOG_LEVEL: 'info' });
  const pid = await waitFor('the worker to register', async () => {
    const { rows } = await env.pool.query<{ pid: number }>('select pid from tickets_ops.workers where pool_id = $1', [
      worker.pool,
    ]);
    return rows[0]?.pid;
  });
  try {
    const result = await use();
    return { result, peakMb: await peakMemoryMb(pid) };
  } finally {
    worker.kill('SIGTERM');
    await worker.exited;
  }
}
