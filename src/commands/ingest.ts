import { createReadStream } from 'node:fs';
import { stat } from 'node:fs/promises';
import { basename } from 'node:path';
import { parseArgs } from 'node:util';
import type { ClientBase } from 'pg';
import fetch_snapshot from '../../tasks/fetch_snapshot.ts';
import finalize_snapshot from '../../tasks/finalize_snapshot.ts';
import fleettickets_alert from '../../tasks/fleettickets_alert.ts';
import fleettickets_maintain from '../../tasks/fleettickets_maintain.ts';
import upsert_batch from '../../tasks/upsert_batch.ts';
import { timeInName } from '../bucket/files.ts';
import type { Action, Mode } from '../bucket/plan.ts';
import { openBucket } from '../bucket/s3.ts';
import { csvBytes } from '../csv/gunzip.ts';
import { Refusal } from '../csv/refused.ts';
import { withClient } from '../database/client.ts';
import { requireCurrent } from '../database/schema.ts';
import { boundedWaits } from '../database/waits.ts';
import { DATASET_NAMES, type Dataset, DEFAULT_DATASET } from '../settings/dataset.ts';
import { ExpectedError } from '../settings/errors.ts';
import { createLog } from '../settings/log.ts';
import { datasetInUse, datasetsOn } from '../settings/recorded.ts';
import { BucketSettings, DatabaseSettings, readSettings } from '../settings/settings.ts';
import type { Claimable } from '../snapshots/ledger.ts';
import { type DryRun, type Preview, preview, previewBucket } from '../snapshots/preview.ts';
import { type LoadResult, loadFile, loadFromBucket, refusalOf } from '../snapshots/run-inline.ts';
import { APPLY, DRY_RUN, printAnswer } from '../terminal/output.ts';
import { showProgress } from '../terminal/progress.ts';
import { choose, UsageError } from '../terminal/usage.ts';
import { printableLine } from '../text/printable.ts';
import { andMore, shortened } from '../text/wording.ts';

export const summary = 'load the newest snapshot, or a local file; a dry run unless --apply';
export const usage = `Usage: fleettickets ingest --from-bucket [--dataset crq] [--apply] [--backfill | --force] [--json]
       fleettickets ingest --inc-csv FILE | --crq-csv FILE [--apply] [--json]

Without --apply it is a dry run: it says what would change and writes nothing.
With --apply it goes through the same jobs as the worker's, and works whether or not a
worker runs elsewhere. It runs load tasks only: no schedule, no geocoding.

  --from-bucket   the newest snapshot in the bucket, skipped when it is unchanged; of a feed
                  of changes (INC_FEED) each file that is not loaded, in their order
  --dataset crq   requests for new installations instead of faults (inc)
  --inc-csv FILE  a local CSV; its time is that in its name (EAT), else the file's own
  --crq-csv FILE  the same, of CRQ
  --apply         do it
  --backfill      files that an outage left behind, oldest first, up to the newest
  --force         load the newest again, even if it is unchanged, failed or archived; of a
                  feed of changes the one that stops the others, where one does
  --json          print the result as JSON

Exit status: 0 loaded or nothing to do, 1 failed, held or only partly loaded, 2 wrong usage.
Settings: DATABASE_URL, WORKER_SCHEMA, INC_FEED, CRQ_*, and RUSTFS_* for --from-bucket.
`;

const SWITCH = 'Set CRQ_ENABLED=true here and on the workers.';

/** What --apply runs in this process. */
const TASKS = { fetch_snapshot, upsert_batch, finalize_snapshot, fleettickets_maintain, fleettickets_alert };

const OPTIONS = {
  'from-bucket': { type: 'boolean', default: false },
  dataset: { type: 'string' },
  'inc-csv': { type: 'string' },
  'crq-csv': { type: 'string' },
  apply: { type: 'boolean', default: false },
  backfill: { type: 'boolean', default: false },
  force: { type: 'boolean', default: false },
  json: { type: 'boolean', default: false },
} as const;

export async function run(args: string[]): Promise<number> {
  const { values } = parseArgs({ args, options: OPTIONS });
  const file = values['inc-csv'] ?? values['crq-csv'];
  if (
    [values['from-bucket'] || undefined, values['inc-csv'], values['crq-csv']].filter((one) => one !== undefined)
      .length !== 1
  )
    throw new UsageError('Give one of --from-bucket, --inc-csv FILE and --crq-csv FILE.');
  if (values.backfill && values.force) throw new UsageError('--backfill and --force exclude each other.');
  if (file !== undefined && (values.backfill || values.force || values.dataset !== undefined)) {
    throw new UsageError('--backfill, --force and --dataset go with --from-bucket.');
  }
  const mode: Mode = values.force ? 'force' : values.backfill ? 'backfill' : 'newest';
  const name =
    values['crq-csv'] === undefined ? choose('--dataset', DATASET_NAMES, values.dataset ?? DEFAULT_DATASET) : 'crq';
  const { DATABASE_URL } = readSettings(DatabaseSettings);
  const local = file === undefined ? undefined : await localFile(file);

  return withClient(DATABASE_URL, async (client) => {
    await requireCurrent(client);
    if (!(await boundedWaits(client, () => datasetsOn(client))).includes(name))
      throw new ExpectedError(`${name} is off: nothing of it is loaded. ${SWITCH}`);
    const from = await boundedWaits(client, () => datasetInUse(client, name));
    if (!values.apply && local) {
      const plan = await boundedWaits(client, () => planFile(client, from, local));
      printAnswer(values.json, plan, describeFilePlan);
      return plan.refusal === null ? 0 : 1;
    }
    if (!values.apply) {
      const bucket = openBucket(readSettings(BucketSettings));
      const dryRun = await boundedWaits(client, () => previewBucket(client, bucket, from, mode));
      printAnswer(values.json, dryRun, describeDryRun);
      return dryRun.refused.length === 0 ? 0 : 1;
    }
    const log = await createLog({ to: process.stderr, level: 'warn' });
    const progress = showProgress();
    const result = await (local
      ? loadFile(client, TASKS, from, local, createReadStream(local.path), log, progress.update)
      : loadFromBucket(client, TASKS, from, mode, log, progress.update)
    ).finally(progress.stop);
    printAnswer(values.json, result, describeResult);
    return result.ok ? 0 : 1;
  });
}

interface LocalFile extends Claimable {
  readonly etag: null;
  readonly path: string;
}

async function localFile(path: string): Promise<LocalFile> {
  const found = await stat(path).catch((error: Error) => {
    throw new UsageError(`${path} cannot be read: ${error.message}.`);
  });
  if (found.isDirectory()) throw new UsageError(`${path} is a folder, not a file.`);
  const { size, mtime } = found;
  const key = basename(path);
  return { path, key, size, etag: null, lastModified: mtime, snapshotAt: timeInName(key) ?? mtime };
}

/** What --inc-csv would do. */
interface FilePlan {
  readonly file: string;
  readonly snapshotAt: Date;
  /** Why it would not be loaded. */
  readonly refusal: string | null;
  readonly changes: Preview | null;
}

async function planFile(client: ClientBase, from: Dataset, file: LocalFile): Promise<FilePlan> {
  const plan = { file: file.key, snapshotAt: file.snapshotAt, refusal: null, changes: null };
  const refusal = await refusalOf(client, from, file);
  if (refusal !== undefined) return { ...plan, refusal };
  const changes = await preview(client, from, csvBytes(file.key, createReadStream(file.path)), file.snapshotAt);
  return changes instanceof Refusal ? { ...plan, refusal: changes.reason } : { ...plan, changes };
}

const REJECTS_SHOWN = 20;
const FIELDS_SHOWN = 10;
const LINE_SHOWN = 80;

function describeFilePlan({ file, snapshotAt, refusal, changes }: FilePlan): string {
  const lines = [`File       ${printableLine(file)}  (${snapshotAt.toISOString()})`];
  if (refusal) lines.push(`It would be refused: ${refusal}`);
  if (changes) lines.push(...describeChanges(changes));
  lines.push('', changes ? APPLY : DRY_RUN);
  return `${lines.join('\n')}\n`;
}

const WOULD: Record<Action, string> = {
  archive: 'Would be archived',
  'write off': 'Would count as gone',
  postpone: 'Would be refused until its time has come',
  ignore: 'Would be ignored',
  supersede: 'Would be passed over',
  refuse: 'Would fail',
  'refuse late': 'Would fail',
  wait: 'Would wait',
  'mark unchanged': 'Would be marked as unchanged and archived',
  'leave held': 'Would be left alone',
  load: 'Would be loaded',
};

function describeDryRun({ steps, refused, changes }: DryRun): string {
  const lines: string[] = [];
  if (!['load', 'mark unchanged'].includes(steps.at(-1)?.action ?? '')) lines.push('No file would be loaded.');
  for (const { key, reason } of refused) lines.push(`Would fail: ${printableLine(key)}: ${reason}`);
  const isHeld = changes?.verdict.verdict === 'hold';
  for (const { action, file, reason } of steps) {
    const would = action === 'load' && isHeld ? 'Would be staged' : WOULD[action];
    lines.push(`${would}: ${printableLine(file.key)}: ${reason}`);
  }
  if (changes) lines.push(...describeChanges(changes));
  const isDone = steps.every(({ action }) => ['leave held', 'wait'].includes(action));
  lines.push('', isDone ? DRY_RUN : APPLY);
  return `${lines.join('\n')}\n`;
}

function describeChanges({ counts, rejects, changedFields, verdict, ...changes }: Preview): string[] {
  const row = (name: string, count: number) => `${name.padEnd(11)}${String(count).padStart(9)}`;
  const lines = [
    row('Rows', counts.read),
    row('Insert', changes.inserts),
    row('Update', changes.updates),
    row('Unchanged', changes.unchanged),
    row('Alarms', counts.alarms),
    row('Sentinels', counts.sentinels),
    row('Duplicates', counts.duplicates),
    row('Rejects', counts.rejected),
  ];
  if (counts.repaired > 0)
    lines.push(`${row('Repaired', counts.repaired)}   a NUL or an invalid UTF-8 byte became U+FFFD`);
  if (changes.brokenOff) lines.push(changes.brokenOff);
  const [most, ...others] = changedFields
    .slice(0, FIELDS_SHOWN)
    .map(([field, tickets]) => `${printableLine(field)} ${tickets}`);
  if (most) lines.push(`Fields that change most: ${[most, ...others].join(', ')}`);
  for (const { line, reason, text } of rejects.slice(0, REJECTS_SHOWN)) {
    lines.push(`  line ${line}: ${reason}: ${printableLine(shortened(text, LINE_SHOWN))}`);
  }
  lines.push(...andMore(counts.rejected, REJECTS_SHOWN).map((line) => `  … ${line}`));
  if (verdict.verdict === 'hold') lines.push(`It would be held for a person to decide: ${verdict.reason}`);
  for (const warning of verdict.warnings) lines.push(`Warning: ${warning}`);
  return lines;
}

function describeResult(result: LoadResult): string {
  if (result.error) return `${result.error}\n`;
  if (result.snapshots.length === 0) return 'Nothing new in the bucket.\n';
  return result.snapshots
    .map((s) => {
      const counts = `${s.rows_read} rows: ${s.rows_inserted} inserted, ${s.rows_updated} updated, ${s.rows_unchanged} unchanged, ${s.rows_dropped_alarm} alarms, ${s.rows_dropped_sentinel} sentinels, ${s.rows_duplicate} duplicates, ${s.rows_rejected} rejected`;
      const detail = s.loaded ? `  ${counts}\n` : '';
      const reason = s.reason ? `  ${s.reason}\n` : '';
      const warnings = s.warnings.map((warning) => `  Warning: ${warning}\n`).join('');
      return `Snapshot ${s.snapshot_id}  ${printableLine(s.source_key)}  ${s.status}\n${detail}${reason}${warnings}`;
    })
    .join('');
}
