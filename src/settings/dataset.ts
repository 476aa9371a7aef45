/** A dataset is a table of tickets and a folder of snapshots: everything that differs between INC and CRQ. */
import { BucketSettings, readSettings } from './settings.ts';

export const DATASET_NAMES = ['inc', 'crq'] as const;

/** The one that is looked at where a payload names none. */
export const DEFAULT_DATASET = 'inc';

export interface Dataset {
  /** Name in the ledger, and of its table in schema `tickets`; its history is in `<name>_events`. */
  readonly name: (typeof DATASET_NAMES)[number];
  /** Folder of its snapshots in the bucket, with the closing slash. */
  readonly prefix: string;
}

/**
 * The dataset of that name. INC's folder is a setting; CRQ's is the folder beside it.
 * CRQ is not scheduled: nothing enqueues it until the crontab does.
 */
export function dataset(name: Dataset['name']): Dataset {
  const { RUSTFS_PREFIX } = readSettings(BucketSettings.pick({ RUSTFS_PREFIX: true }));
  return { name, prefix: name === 'inc' ? RUSTFS_PREFIX : RUSTFS_PREFIX.replace(/[^/]*\/$/, `${name}/`) };
}
