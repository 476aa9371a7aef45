/** A dataset is a table of tickets and a folder of snapshots: everything that differs between INC and CRQ. */
import { BucketSettings, crqFolder, readSettings } from './settings.ts';

export const DATASET_NAMES = ['inc', 'crq'] as const;

export type DatasetName = (typeof DATASET_NAMES)[number];

/** The one that is looked at where a payload names none. It is always on; the others are by `<NAME>_ENABLED`. */
export const DEFAULT_DATASET = 'inc';

export interface Dataset {
  /** Name in the ledger, and of its table in schema `tickets`; its history is in `<name>_events`. */
  readonly name: DatasetName;
  /** Folder of its snapshots in the bucket, with the closing slash. */
  readonly prefix: string;
}

/**
 * The dataset of that name, on or off.
 * @param crqPrefix CRQ_PREFIX: what this process's environment says, or what is in use (recorded.ts)
 * @throws SettingsError where CRQ has no folder of its own
 */
export function dataset(
  name: DatasetName,
  crqPrefix = readSettings(BucketSettings.pick({ CRQ_PREFIX: true })).CRQ_PREFIX,
): Dataset {
  const { RUSTFS_PREFIX } = readSettings(BucketSettings.pick({ RUSTFS_PREFIX: true }));
  return { name, prefix: name === 'inc' ? RUSTFS_PREFIX : crqFolder({ RUSTFS_PREFIX, CRQ_PREFIX: crqPrefix }) };
}
