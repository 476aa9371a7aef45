/**
 * Settings that SQL goes by as well, and CRQ's folder, are recorded in the database (tickets_ops.settings), so that what
 * operators call from psql and processes without the setting go by the same value.
 */
import type { Db } from '../database/client.ts';
import { GeocoderSettings, geocoderFrom } from '../geocoding/settings.ts';
import { DATASET_NAMES, type Dataset, type DatasetName, DEFAULT_DATASET, dataset } from './dataset.ts';
import { BucketSettings, FeedSettings, readSettings } from './settings.ts';

const CrqFolder = BucketSettings.pick({ CRQ_PREFIX: true });

/** Records what this process's environment gives; an unset variable leaves what others have recorded. */
export async function recordSettings(db: Db, poolId: string): Promise<void> {
  const settings = { ...readSettings(FeedSettings), ...readSettings(CrqFolder) };
  const given = Object.fromEntries(Object.entries(settings).map(([name, value]) => [name, String(value)]));
  const geocoder = geocoderFrom(readSettings(GeocoderSettings));
  if (!('off' in geocoder)) given['GEOCODER_PROVIDER'] = geocoder.provider.name;
  await db.query('select tickets_ops.record_settings($1, $2)', [poolId, JSON.stringify(given)]);
}

/**
 * The datasets that are on: those that this process's environment names, else those that others have recorded
 * (tickets.datasets).
 * @param db undefined where there is no database of ours to ask
 */
export async function datasetsOn(db: Db | undefined): Promise<DatasetName[]> {
  const { CRQ_ENABLED } = readSettings(FeedSettings);
  if (CRQ_ENABLED || !db) return DATASET_NAMES.filter((name) => name === DEFAULT_DATASET || CRQ_ENABLED === 'true');
  const { rows } = await db.query<{ name: DatasetName }>('select tickets.datasets() as name');
  return rows.map(({ name }) => name);
}

/** A dataset with its folder: that of CRQ as this process's environment says, else as others have recorded. @throws SettingsError */
export async function recordedDataset(db: Db, name: DatasetName): Promise<Dataset> {
  const { rows } = await db.query<{ folder: string | null }>(`select tickets_ops.setting('CRQ_PREFIX') as folder`);
  return dataset(name, rows[0]?.folder ?? undefined);
}
