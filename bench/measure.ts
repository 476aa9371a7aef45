/** What is measured, in order, and the table that comes out. */
import assert from 'node:assert/strict';
import { clusters } from '../demo/places.ts';
import { startProvider } from '../demo/provider.ts';
import { type Environment, startEnvironment } from '../test/support/environment.ts';
import { measureAnalytics } from './analytics.ts';
import { measureDispatch } from './dispatch.ts';
import { measureOneGeocode } from './geocode.ts';
import { measureGrowth } from './growth.ts';
import { measureHostile } from './hostile.ts';
import { measureJobs } from './jobs.ts';
import { measureMap } from './map.ts';
import { measurePage } from './page.ts';
import { measureServing } from './serving.ts';
import {
  baseline,
  csvFile,
  emptyTickets,
  ingest,
  type Loaded,
  load,
  placeClusters,
  watchRows,
  withWorker,
} from './stand.ts';
import { heading, type Line, printLine, printTable } from './table.ts';

interface Options {
  /** For the baseline's files. */
  folder: string;
  rows: number;
  manyRows: number;
  runs: number;
  /** loads, triggers, geocoding, command, memory, map and what else is served (they look at the many rows that memory loads), jobs, hostile,
   *  dispatch (half a million tickets of its own), page, growth (of as many rows as one says). */
  only: string[];
}

export async function measure(options: Options): Promise<void> {
  const env = await startEnvironment();
  const lines: Line[] = [];
  const note = (line: Line) => {
    lines.push(line);
    printLine(line);
  };
  try {
    await heading(env, options.rows);
    if (options.only.includes('loads')) for (const line of await measureLoads(env, options)) note(line);
    await placeClusters(env);
    if (options.only.includes('triggers')) for (const line of await measureTriggers(env, options)) note(line);
    if (options.only.includes('geocoding')) for (const line of await measureGeocoding(env, options)) note(line);
    if (options.only.includes('command')) note(await measureCommand(env, options));
    if (options.only.includes('memory')) for (const line of await measureMemory(env, options)) note(line);
    if (options.only.includes('map')) {
      for (const line of await measureMap(env, options.manyRows)) note(line);
      for (const line of await measureServing(env)) note(line);
      for (const line of await measureOneGeocode(env)) note(line);
    }
    if (options.only.includes('jobs')) for (const line of await measureJobs(env)) note(line);
    if (options.only.includes('hostile')) for (const line of await measureHostile(env)) note(line);
    if (options.only.includes('dispatch')) for (const line of await measureDispatch(env)) note(line);
    if (options.only.includes('page')) for (const line of await measurePage(env)) note(line);
    if (options.only.includes('analytics'))
      for (const line of await measureAnalytics(env, options.manyRows)) note(line);
    if (options.only.includes('growth')) for (const line of await measureGrowth(env, options.manyRows)) note(line);
    printTable(lines);
  } finally {
    await env.close();
  }
}

/** New rows, the same again, 1 % changed, and an equal ETag: ours and the baseline by turns. */
async function measureLoads(env: Environment, { folder, rows, runs }: Options): Promise<Line[]> {
  const changed = Math.round(rows / 100);
  const first = await csvFile(rows);
  const again = await csvFile(rows, 0, 1);
  const altered = await csvFile(rows, changed, 2);
  const theirs: number[][] = [];
  const ours: Loaded[][] = [];
  for (let n = 0; n < runs; n += 1) {
    await emptyTickets(env);
    const times = [];
    for (const csv of [first, first, altered]) {
      times.push(await baseline(env, folder, csv));
      await env.pool.query('vacuum analyze tickets.inc');
    }
    theirs.push(times);
    // Both ways must arrive at the same tickets, or the comparison means nothing.
    const { result } = await withWorker(env, async () => {
      const onTop = await load(env, altered);
      assert.equal(onTop.unchanged, rows, 'the baseline and the pipeline store different records');
      await emptyTickets(env);
      return loadThrice(env, [first, again, altered], rows, changed);
    });
    ours.push(result);
  }
  const ratio = (what: string, n: number, limit: number): Line => {
    const best = ours.map((run) => run[n] as Loaded).reduce((a, b) => (b.ms < a.ms ? b : a));
    const reference = Math.min(...theirs.map((run) => run[n] as number));
    return {
      what,
      ours: `${Math.round(best.ms)} ms (${best.steps.join(' + ')})`,
      reference: `${Math.round(reference)} ms`,
      value: best.ms / reference,
      limit,
    };
  };
  const sameEtag = Math.min(...ours.map((run) => (run[3] as Loaded).ms));
  return [
    ratio('new rows', 0, 1),
    ratio('the same rows, new ETag and source_snapshot_id: none written', 1, 0.3),
    ratio(`1 % changed: ${changed} rows written`, 2, 0.35),
    { what: 'equal ETag: nothing staged or written', ours: `${Math.round(sameEtag)} ms`, reference: '' },
  ];
}

async function loadThrice(env: Environment, csvs: Buffer[], rows: number, changed: number): Promise<Loaded[]> {
  const loads: Loaded[] = [];
  for (const [n, csv] of [...csvs, csvs.at(-1) as Buffer].entries()) {
    const written = await watchRows(env);
    const loaded = await load(env, csv);
    const expected = [rows, 0, changed, 0][n];
    assert.equal(await written(), expected, 'rows written');
    assert.equal(loaded.status, n === 3 ? 'unchanged' : 'done');
    if (n < 3) assert.equal(loaded.inserted + loaded.updated, expected);
    const { rowCount } = await env.pool.query('select from tickets_ops.snapshot_rows limit 1');
    assert.equal(rowCount, 0, 'rows left in the staging');
    loads.push(loaded);
    await env.pool.query('vacuum analyze tickets.inc');
  }
  return loads;
}

/** What the triggers on tickets.inc cost when every ticket gets a place: with them against without. */
async function measureTriggers(env: Environment, { folder, rows, runs }: Options): Promise<Line[]> {
  const csv = await csvFile(rows);
  const best = { ours: [Infinity, Infinity], baseline: [Infinity, Infinity] };
  await withWorker(env, async () => {
    for (let n = 0; n < runs; n += 1) {
      for (const [which, state] of ['enable', 'disable'].entries()) {
        await env.pool.query(`alter table tickets.inc ${state} trigger user`);
        await emptyTickets(env);
        best.ours[which] = Math.min(best.ours[which] as number, (await load(env, csv)).ms);
        await emptyTickets(env);
        best.baseline[which] = Math.min(best.baseline[which] as number, await baseline(env, folder, csv));
      }
    }
  });
  await env.pool.query('alter table tickets.inc enable trigger user');
  await emptyTickets(env);
  const line = (what: string, [with_ = 0, without = 0]: number[]): Line => ({
    what,
    ours: `${Math.round(with_)} ms`,
    reference: `${Math.round(without)} ms without`,
    value: with_ / without,
  });
  return [
    line('geometry triggers, our load of new rows', best.ours),
    line('geometry triggers, the baseline (they place the tickets)', best.baseline),
    {
      what: 'new rows, all of them placed',
      ours: `${Math.round(best.ours[0] as number)} ms`,
      reference: `${Math.round(best.baseline[0] as number)} ms`,
      value: (best.ours[0] as number) / (best.baseline[0] as number),
      limit: 1,
    },
  ];
}

/** Calls a second: that of the free plans, and that of a server of one's own. */
const GEOCODING_RATES = [1, 20];
/** More than are asked while a file is loaded. */
const PLACES_WAITING = 3_000;

/** Loads of new rows while geocoding runs beside them, against loads without. */
async function measureGeocoding(env: Environment, { rows, runs }: Options): Promise<Line[]> {
  const csv = await csvFile(rows);
  const provider = await startProvider({ rate: 2 * Math.max(...GEOCODING_RATES), perDay: 1_000_000, key: 'bench-key' });
  const best = new Map<number, number>();
  for (let n = 0; n < runs; n += 1) {
    for (const rate of [0, ...GEOCODING_RATES]) {
      await emptyTickets(env);
      await env.pool.query('truncate tickets.geo_locations, tickets_ops.geocoding_answers');
      Object.assign(process.env, {
        GEOCODER_PROVIDER: rate > 0 ? 'locationiq' : '',
        GEOCODER_BASE_URL: `${provider.url}/v1`,
        GEOCODER_API_KEY: provider.key,
        GEOCODER_RATE_PER_SECOND: String(rate || 1),
        GEOCODER_DAILY_BUDGET: '1000000',
      });
      if (rate > 0) await askForPlaces(env);
      const asked = provider.calls.length;
      const { result } = await withWorker(env, () => load(env, csv));
      assert.equal(provider.calls.length > asked, rate > 0, 'calls while the file was loaded');
      best.set(rate, Math.min(best.get(rate) ?? Infinity, result.ms));
      await env.pool.query(
        `select graphile_worker.complete_jobs(array_agg(id)) from graphile_worker.jobs where task_identifier like 'geocode%'`,
      );
    }
  }
  for (const name of ['PROVIDER', 'BASE_URL', 'API_KEY', 'RATE_PER_SECOND', 'DAILY_BUDGET'])
    delete process.env[`GEOCODER_${name}`];
  await provider.close();
  const without = best.get(0) as number;
  return GEOCODING_RATES.map((rate) => ({
    what: `new rows, with ${rate} geocoding calls a second beside them`,
    ours: `${Math.round(best.get(rate) as number)} ms`,
    reference: `${Math.round(without)} ms without`,
    value: (best.get(rate) as number) / without,
  }));
}

async function askForPlaces(env: Environment): Promise<void> {
  const known = clusters.flatMap(({ name, centre, places }) =>
    centre ? places.map((place) => ({ cluster: name, place: place.name })) : [],
  );
  await env.pool.query(
    `select graphile_worker.add_job('geocode_location', json_build_object('cluster', cluster, 'location_name', place), priority := 10,
       flags := array['geocode'])
     from jsonb_to_recordset($1) as p (cluster text, place text) limit $2`,
    [JSON.stringify(known), PLACES_WAITING],
  );
}

/** The command that a plain host's cron calls, from its start to its end, against psql. */
async function measureCommand(env: Environment, { folder, rows, runs }: Options): Promise<Line> {
  const csv = await csvFile(rows);
  const ours: number[] = [];
  const theirs: number[] = [];
  for (let n = 0; n < runs; n += 1) {
    await emptyTickets(env);
    theirs.push(await baseline(env, folder, csv));
    await emptyTickets(env);
    ours.push(await ingest(env, csv));
    const { rows: found } = await env.pool.query<{ n: number }>('select count(*)::int as n from tickets.inc');
    assert.equal(found[0]?.n, rows);
  }
  return {
    what: 'whole command: ingest --from-bucket --apply, new rows',
    ours: `${Math.round(Math.min(...ours))} ms`,
    reference: `${Math.round(Math.min(...theirs))} ms`,
    value: Math.min(...ours) / Math.min(...theirs),
    limit: 1.2,
  };
}

/** Peak memory of a worker process that loads many rows, above that of one that loads few, and the end of a load that changes as many. Leaves the many rows there. */
async function measureMemory(env: Environment, { rows, manyRows }: Options): Promise<Line[]> {
  const changed = Math.round(rows / 100);
  const peaks: number[] = [];
  const ends: number[] = [];
  for (const count of [rows, manyRows]) {
    await emptyTickets(env);
    const csv = await csvFile(count);
    const { result, peakMb } = await withWorker(env, () => load(env, csv));
    assert.equal(result.inserted, count);
    peaks.push(peakMb);
    await env.pool.query('vacuum analyze tickets.inc, tickets.inc_events');
    const altered = await csvFile(count, changed, 1);
    const { result: again } = await withWorker(env, () => load(env, altered));
    assert.equal(again.updated, changed);
    ends.push(again.steps[2] as number);
  }
  const [few = 0, many = 0] = peaks;
  const [inFew = 0, inMany = 0] = ends;
  return [
    {
      what: `peak memory of the worker, ${manyRows} rows against ${rows}`,
      ours: `${many.toFixed(0)} MB`,
      reference: `${few.toFixed(0)} MB`,
      value: many - few,
      limit: 30,
      unit: 'MB more',
    },
    {
      what: `end of a load: staged to done, ${changed} changed of ${manyRows} against ${changed} of ${rows}`,
      ours: `${inMany} ms`,
      reference: `${inFew} ms`,
      value: inMany / inFew,
    },
  ];
}
