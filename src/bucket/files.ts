/**
 * Files of snapshots: which objects of a folder are one, the export's time in a name, and the one order of versions of
 * files, which SQL has as tickets_ops.is_older. Pure.
 */
import { NAIROBI_AHEAD_MS } from '../text/nairobi.ts';
import type { BucketObject } from './s3.ts';

/** Folder of the archive, within the folder of the snapshots. A forced look (fetch.ts) lists it too, without folders in it. */
export const ARCHIVE_FOLDER = 'processed/';

/** A version of a file. The same name may be written again, with other bytes or with the same: each is another version. */
export interface SnapshotFile extends BucketObject {
  /** The export's time: from the name, by the clock of Nairobi, else LastModified. */
  readonly snapshotAt: Date;
}

/** Where a version stands in the order of all versions. */
export type Position = Pick<SnapshotFile, 'snapshotAt' | 'lastModified' | 'key'>;

/** Identifies a version among all that a ledger remembers. */
export const versionOf = ({ key, etag, lastModified }: Pick<BucketObject, 'key' | 'etag' | 'lastModified'>) =>
  `${key}\n${etag}\n${lastModified.getTime()}`;

/**
 * The time in a file name `YYYY-MM-DDTHH-MM-SS.csv`, which is East Africa Time; a fraction of a second may follow
 * (`…-05.12.csv`, `…-05-120Z.csv`), of which milliseconds are kept.
 * @returns undefined when the name holds no valid time
 */
export function timeInName(key: string): Date | undefined {
  const match =
    /(?:^|\/)(\d{4}-\d\d-\d\d)T(\d\d)-(\d\d)-(\d\d)(?:(?:[.,](\d{1,9})|-(\d{3,9}))(?!\d))?[^/]*\.csv(?:\.gz)?$/i.exec(
      key,
    );
  if (!match) return undefined;
  const [, day, hour, minute, second, fraction = match[6] ?? ''] = match;
  const local = `${day}T${hour}:${minute}:${second}.${fraction.slice(0, 3).padEnd(3, '0')}`;
  const time = new Date(Date.parse(`${local}Z`) - NAIROBI_AHEAD_MS);
  // JavaScript turns 31 February into March; a name that does not survive the round trip holds no time.
  const roundTrip = Number.isNaN(time.getTime()) ? '' : new Date(time.getTime() + NAIROBI_AHEAD_MS).toISOString();
  return roundTrip.startsWith(local) ? time : undefined;
}

/**
 * The order of versions: time in the name, then LastModified, then key (by its bytes, as Postgres orders under "C").
 * @returns negative when `a` comes before `b`
 */
export function comparePositions(a: Position, b: Position): number {
  return (
    a.snapshotAt.getTime() - b.snapshotAt.getTime() ||
    a.lastModified.getTime() - b.lastModified.getTime() ||
    Buffer.compare(Buffer.from(a.key), Buffer.from(b.key))
  );
}

/**
 * What people and programs drop beside a CSV that was meant as one: packed, half uploaded, saved by a spreadsheet, in
 * another format, or with a snapshot's time and no ending at all.
 */
const NEARLY_CSV =
  /\.(csv[^/]{1,12}|cvs|tsv|txt|(nd)?json|jsonl|xml|html?|xlsx?|ods|parquet|avro|zip|gz)$|(^|\/)\d{4}-\d\d-\d\d[T ]\d\d[-:]\d\d[^/]*$/i;

/** Whether a file is one to load, by its name. */
export const isCsv = ({ key }: BucketObject) => /\.csv(\.gz)?$/i.test(key);

export interface Listing {
  /** CSV files (also packed as `.csv.gz`), in their order. */
  readonly files: readonly SnapshotFile[];
  /** Files that a person may take for snapshots and that are none, each with the reason. */
  readonly ignored: readonly { readonly file: SnapshotFile; readonly reason: string }[];
}

/** Sorts the objects of a folder out; what is neither a file nor nearly one (a folder's own marker, say) is left out. */
export function snapshotFiles(objects: readonly BucketObject[]): Listing {
  const all = objects
    .filter(({ key }) => !key.endsWith('/'))
    .map((object): SnapshotFile => ({ ...object, snapshotAt: timeInName(object.key) ?? object.lastModified }))
    .sort(comparePositions);
  return {
    files: all.filter((file) => isCsv(file) && file.size > 0),
    ignored: [
      ...all
        .filter((file) => isCsv(file) && file.size === 0)
        .map((file) => ({ file, reason: 'The file is empty (0 bytes): nothing to load. Export it again.' })),
      ...all
        .filter((file) => !isCsv(file) && NEARLY_CSV.test(file.key))
        .map((file) => ({
          file,
          reason: 'It is no .csv or .csv.gz by its name, so it is not read. Export it as CSV.',
        })),
    ],
  };
}
