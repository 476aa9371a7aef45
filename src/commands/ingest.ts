import { createReadStream } from 'node:fs';
import { stat } from 'node:fs/promises';
import { basename } from 'node:path';
import { parseArgs } from 'node:util';
import type { ClientBase } from 'pg';
import fetch_snapshot from '../../tasks/fetch_snapshot.ts';
import finalize_snapshot from '../../tasks/finalize_snapshot.ts';
import maintain from '../../tasks/maintain.ts';
import upsert_batch from '../../tasks/upsert_batch.ts';
import { type Candidate, choose, type Mode, timeInName } from '../bucket/choose.ts';
import { openBucket, readObject } from '../bucket/s3.ts';
import { RefusedFileError } from '../csv/refused.ts';
import { withClient } from '../database/client.ts';
import { type Dataset, dataset } from '../settings/dataset.ts';
import { createLog } from '../settings/log.ts';
import { BucketSettings, DatabaseSettings, readSettings } from '../settings/settings.ts';
import { isSame, listSnapshots } from '../snapshots/fetch.ts';
import { knowledge } from '../snapshots/ledger.ts';
import { type Preview, preview } from '../snapshots/preview.ts';
import { type LoadResult, loadFile, loadFromBucket } from '../snapshots/run-inline.ts';
import { showProgress } from '../terminal/progress.ts';
import { UsageError } from '../terminal/usage.ts';

export const summary = 'load the newest snapshot, or a local file; a dry run unless --apply';
export const usage = `Usage: fleettickets ingest --from-bucket [--apply] [--backfill | --force] [--json]
       fleettickets ingest --inc-csv FILE [--apply] [--json]

Without --apply it is a dry run: it says what would change and writes nothing.
With --apply it goes through the same jobs as the worker's, and works whether or not a
worker runs elsewhere. It runs load tasks only: no schedule, no geocoding.

  --from-bucket   the newest snapshot in the bucket; skipped when it is unchanged
  --inc-csv FILE  a local CSV; its time is that in its name (EAT), else the file's own
  --apply         do it
  --backfill      files that an outage left behind, oldest first, up to the newest
  --force         load the newest again, even if it is unchanged, failed or archived
  --json          print the result as JSON

Exit status: 0 loaded or nothing to do, 1 failed or only partly loaded, 2 wrong usage.
Settings: DATABASE_URL, and RUSTFS_* for --from-bucket.
`;

/** What --apply runs in this process. */
const TASKS = { fetch_snapshot, upsert_batch, finalize_snapshot, maintain };

const OPTIONS = {
  'from-bucket': { type: 'boolean', default: false },
  'inc-csv': { type: 'string' },
  apply: { type: 'boolean', default: false },
  backfill: { type: 'boolean', default: false },
  force: { type: 'boolean', default: false },
  json: { type: 'boolean', default: false },
} as const;

export async function run(args: string[]): Promise<number> {
  const { values } = parseArgs({ args, options: OPTIONS });
  const file = values['inc-csv'];
  if (values['from-bucket'] === (file !== undefined))
    throw new UsageError('Give either --from-bucket or --inc-csv FILE.');
  if (values.backfill && values.force) throw new UsageError('--backfill and --force exclude each other.');
  if (file !== undefined && (values.backfill || values.force)) {
    throw new UsageError('--backfill and --force go with --from-bucket.');
  }
  const mode: Mode = values.force ? 'force' : values.backfill ? 'backfill' : 'newest';
  const inc = dataset('inc');
  const { DATABASE_URL } = readSettings(DatabaseSettings);
  const local = file === undefined ? undefined : await localFile(file);

  return withClient(DATABASE_URL, async (client) => {
    if (!values.apply) {
      const plan = local ? await planFile(client, inc, local) : await planBucket(client, inc, mode);
      process.stdout.write(values.json ? `${JSON.stringify(plan, null, 2)}\n` : describePlan(plan));
      return plan.refused ? 1 : 0;
    }
    const log = await createLog({ to: process.stderr, level: 'warn' });
    const progress = showProgress();
    const result = local
      ? await loadFile(client, TASKS, inc, local, createReadStream(local.path), log, progress)
      : await loadFromBucket(client, TASKS, inc, mode, log, progress);
    process.stdout.write(values.json ? `${JSON.stringify(result, null, 2)}\n` : describeResult(result));
    return result.ok ? 0 : 1;
  });
}

interface LocalFile extends Omit<Candidate, 'etag'> {
  readonly etag: null;
  readonly path: string;
}

async function localFile(path: string): Promise<LocalFile> {
  const { size, mtime } = await stat(path).catch((error: Error) => {
    throw new UsageError(`${path} cannot be read: ${error.message}.`);
  });
  const key = basename(path);
  return { path, key, size, etag: null, lastModified: mtime, snapshotAt: timeInName(key) ?? mtime };
}

interface Plan {
  /** The file that would be loaded. */
  readonly file: string | null;
  readonly snapshotAt: Date | null;
  readonly note: string;
  /** It would not be loaded although it was asked for, and the note says why. */
  readonly refused: boolean;
  readonly superseded: readonly string[];
  readonly toArchive: readonly string[];
  /** Files that would fail, with the reason. */
  readonly failing: readonly string[];
  readonly changes: Preview | null;
}

const NOTHING = { refused: false, superseded: [], toArchive: [], failing: [], note: '', changes: null } as const;

async function planFile(client: ClientBase, inc: Dataset, file: LocalFile): Promise<Plan> {
  const { loadedThrough } = await knowledge(client, inc.name, []);
  const isOlder = loadedThrough !== null && file.snapshotAt < loadedThrough;
  const note = isOlder ? `It is older than what is loaded (${loadedThrough.toISOString()}): it would be refused.` : '';
  const plan = { ...NOTHING, file: file.key, snapshotAt: file.snapshotAt, note, refused: isOlder };
  try {
    return { ...plan, changes: await preview(client, inc, createReadStream(file.path)) };
  } catch (error) {
    if (!(error instanceof RefusedFileError)) throw error;
    return { ...plan, refused: true, failing: [`${file.key}: ${error.message}`] };
  }
}

/** What a fetch would do: a file that is no ticket CSV fails, and the next one is chosen. */
async function planBucket(client: ClientBase, inc: Dataset, mode: Mode): Promise<Plan> {
  const bucket = openBucket(readSettings(BucketSettings));
  let found = await listSnapshots(bucket, inc, mode);
  const failing: string[] = [];
  for (;;) {
    const known = await knowledge(client, inc.name, found);
    const choice = choose(found, known, mode);
    const file = choice.take;
    const passedOver = {
      superseded: choice.superseded.map(({ key }) => key),
      toArchive: choice.unarchived.map(({ key }) => key),
      failing,
      refused: failing.length > 0,
    };
    const plan: Plan = { ...NOTHING, ...passedOver, file: file?.key ?? null, snapshotAt: file?.snapshotAt ?? null };
    if (!file) return { ...plan, note: `Nothing to load: no file in ${inc.prefix} is newer than what is loaded.` };
    if (isSame(file, known.rememberedEtag) && mode !== 'force') {
      return { ...plan, note: 'It is unchanged (same ETag as the last load): it would only be archived.' };
    }
    try {
      return { ...plan, changes: await preview(client, inc, readObject(bucket, file)) };
    } catch (error) {
      if (!(error instanceof RefusedFileError)) throw error;
      failing.push(`${file.key}: ${error.message}`);
      found = found.filter((other) => other !== file);
    }
  }
}

const REJECTS_SHOWN = 20;
const FIELDS_SHOWN = 10;

function describePlan(plan: Plan): string {
  const lines = ['Dry run: nothing is written.'];
  if (plan.file) lines.push(`File       ${plan.file}  (${plan.snapshotAt?.toISOString()})`);
  if (plan.note) lines.push(plan.note);
  for (const reason of plan.failing) lines.push(`Would fail: ${reason}`);
  for (const key of plan.superseded) lines.push(`Passed over for a newer file: ${key}`);
  for (const key of plan.toArchive) lines.push(`To be archived: ${key}`);
  if (plan.changes) lines.push(...describeChanges(plan.changes));
  if (plan.changes) lines.push('', 'Run it again with --apply to do this.');
  return `${lines.join('\n')}\n`;
}

function describeChanges({ counts, rejects, changedFields, ...changes }: Preview): string[] {
  const row = (name: string, count: number) => `${name.padEnd(11)}${String(count).padStart(9)}`;
  const lines = [
    row('Rows', counts.read),
    row('Insert', changes.inserts),
    row('Update', changes.updates),
    row('Unchanged', changes.unchanged),
    row('Alarms', counts.alarms),
    row('Sentinels', counts.sentinels),
    row('Duplicates', counts.duplicates),
    row('Rejects', rejects.length),
  ];
  if (counts.repaired > 0)
    lines.push(`${row('Repaired', counts.repaired)}   a NUL or an invalid UTF-8 byte became U+FFFD`);
  if (changes.brokenOff) lines.push(changes.brokenOff);
  const [most, ...others] = changedFields.slice(0, FIELDS_SHOWN).map(([field, tickets]) => `${field} ${tickets}`);
  if (most) lines.push(`Fields that change most: ${[most, ...others].join(', ')}`);
  for (const { line, reason, text } of rejects.slice(0, REJECTS_SHOWN)) {
    lines.push(`  line ${line}: ${reason}: ${text.length > 80 ? `${text.slice(0, 80)}…` : text}`);
  }
  if (rejects.length > REJECTS_SHOWN) lines.push(`  … and ${rejects.length - REJECTS_SHOWN} more`);
  return lines;
}

function describeResult(result: LoadResult): string {
  if (result.error) return `${result.error}\n`;
  if (result.snapshots.length === 0) return 'Nothing new in the bucket.\n';
  return result.snapshots
    .map((s) => {
      const counts = `${s.rows_read} rows: ${s.rows_inserted} inserted, ${s.rows_updated} updated, ${s.rows_unchanged} unchanged, ${s.rows_dropped_alarm} alarms, ${s.rows_dropped_sentinel} sentinels, ${s.rows_duplicate} duplicates, ${s.rows_rejected} rejected`;
      const detail = ['done', 'partial'].includes(s.status) ? `  ${counts}\n` : '';
      const reason = s.reason ? `  ${s.reason}\n` : '';
      return `Snapshot ${s.snapshot_id}  ${s.source_key}  ${s.status}\n${detail}${reason}`;
    })
    .join('');
}
