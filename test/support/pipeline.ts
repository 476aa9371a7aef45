/**
 * The pipeline as tests drive it: a file is put into the bucket, jobs are asked for and run, the ledger is read. Of INC, or of
 * the dataset that TEST_DATASET names: crq-pipeline.test.ts runs the same tests once more.
 */
import { csvLine } from '../../demo/ticket.ts';
import type { Environment, JobFailure } from './environment.ts';

export const DATASET = process.env.TEST_DATASET === 'crq' ? 'crq' : 'inc';
/** Its tickets, and its folder. */
export const TICKETS = `tickets.${DATASET}`;
export const PREFIX = `automations/${DATASET}/`;

// What the tasks log is of no interest here.
process.env.LOG_LEVEL ??= 'fatal';

/** A row of tickets_ops.snapshots: what a test compares. */
type Entry = {
  snapshot_id: number;
  file: string;
  status: string;
  error: string | null;
  broken_off: string | null;
  archived_key: string | null;
  rows_read: number;
  rows_inserted: number;
  rows_updated: number;
  rows_unchanged: number;
  rows_dropped_alarm: number;
  rows_dropped_sentinel: number;
  rows_duplicate: number;
  rows_rejected: number;
  rows_repaired: number;
  open_missing: number | null;
};

/** A CSV of these records; the header is the union of their fields, with ticket_id first. */
export function csvOf(records: readonly Record<string, string>[]): string {
  const columns = [...new Set(['ticket_id', ...records.flatMap((record) => Object.keys(record))])];
  return [columns, ...records.map((record) => columns.map((column) => record[column] ?? ''))]
    .map((fields) => `${csvLine(fields)}\n`)
    .join('');
}

/** The key of the file of that hour on 2026-06-15. */
export const keyOf = (hour: number) => `${PREFIX}2026-06-15T${String(hour).padStart(2, '0')}-00-00.csv`;

/** Asks for fetch_snapshot and runs all jobs that follow. @returns the jobs that wait or gave up with an error */
export async function fetchNow(env: Environment, payload: object = {}): Promise<JobFailure[]> {
  await addFetch(env, payload);
  return env.runJobs();
}

export async function addFetch(env: Environment, payload: object = {}): Promise<void> {
  await env.pool.query(`select tickets_ops.enqueue('fetch_snapshot', $1::json)`, [
    JSON.stringify({ dataset: DATASET, ...payload }),
  ]);
}

/** Runs the jobs that wait for their next attempt, now. @returns those that still fail */
export async function runAgain(env: Environment): Promise<JobFailure[]> {
  await env.pool.query(
    'select graphile_worker.reschedule_jobs(array(select id from graphile_worker.jobs where attempts < max_attempts), run_at := now())',
  );
  return env.runJobs();
}

/** The ledger, in the order in which files were looked at. */
export async function ledger(env: Environment): Promise<Entry[]> {
  const { rows } = await env.pool.query<Entry>(
    `select snapshot_id::int, replace(source_key, '${PREFIX}', '') as file, status, error, broken_off, archived_key, rows_read::int,
       rows_inserted::int, rows_updated::int, rows_unchanged::int, rows_dropped_alarm::int, rows_dropped_sentinel::int,
       rows_duplicate::int, rows_rejected::int, rows_repaired::int, open_missing::int
     from tickets_ops.snapshots order by snapshot_id`,
  );
  return rows;
}

/** The ledger in short: hour and status. */
export async function statuses(env: Environment): Promise<[hour: number, status: string][]> {
  return (await ledger(env)).map(({ file, status }) => [Number(/T(\d\d)-/.exec(file)?.[1]), status]);
}

/** `raw` by ticket_id. */
export async function rawTickets(env: Environment, table = TICKETS): Promise<Record<string, Record<string, string>>> {
  const { rows } = await env.pool.query(`select ticket_id, raw from ${table} order by ticket_id collate "C"`);
  return Object.fromEntries(rows.map(({ ticket_id, raw }) => [ticket_id, raw]));
}

/** Where each row physically lies and which transaction wrote it: unchanged means that it was not touched. */
export async function rowVersions(env: Environment): Promise<Record<string, string>> {
  const { rows } = await env.pool.query(`select ticket_id, format('%s %s', xmin, ctid) as version from ${TICKETS}`);
  return Object.fromEntries(rows.map(({ ticket_id, version }) => [ticket_id, version]));
}

export async function importMeta(env: Environment): Promise<Record<string, unknown> | undefined> {
  const { rows } = await env.pool.query(`select metadata from tickets.import_meta where dataset = $1`, [DATASET]);
  return rows[0]?.metadata;
}
