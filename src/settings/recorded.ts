/**
 * Settings that SQL goes by as well, and CRQ's folder, are recorded in the database (tickets_ops.settings), so that what
 * operators call from psql and processes without the setting go by the same value.
 */
import { z } from 'zod';
import type { Db } from '../database/client.ts';
import { GeocoderSettings, geocoderFrom } from '../geocoding/settings.ts';
import { DATASET_NAMES, type Dataset, type DatasetName, DEFAULT_DATASET, dataset } from './dataset.ts';
import { BucketSettings, FeedSettings, JobSchemaSettings, readSettings } from './settings.ts';

/** Each worker records these of its own environment. */
const OfWorkers = z.object({ ...FeedSettings.shape, CRQ_PREFIX: BucketSettings.shape.CRQ_PREFIX });
/** And `migrate` this one. */
const Recorded = OfWorkers.extend({ WORKER_SCHEMA_SHARED: JobSchemaSettings.shape.WORKER_SCHEMA_SHARED });
type Recorded = z.infer<typeof Recorded>;

/**
 * A setting as it is in use: what this process's environment says, else what others have recorded (tickets_ops.setting).
 * @param db undefined where there is no database of ours to ask
 * @returns undefined where it never was set: then its default stands
 * @throws SettingsError where it is wrong
 */
export async function settingInUse<Name extends keyof Recorded>(
  db: Db | undefined,
  name: Name,
): Promise<Recorded[Name] | undefined> {
  const only = z.object({ [name]: Recorded.shape[name] }); // another one that is wrong is not this reader's
  const own = readSettings(only)[name] as Recorded[Name] | undefined;
  if (own !== undefined || !db) return own;
  const { rows } = await db.query<{ value: string | null }>('select tickets_ops.setting($1) as value', [name]);
  // What another release took for right may be nothing that this one knows.
  return only.safeParse({ [name]: rows[0]?.value ?? undefined }).data?.[name] as Recorded[Name] | undefined;
}

/** Records what this process's environment gives; an unset variable leaves what others have recorded. */
export async function recordSettings(db: Db, poolId: string): Promise<void> {
  const given = Object.fromEntries(
    Object.entries(readSettings(OfWorkers)).map(([name, value]) => [name, String(value)]),
  );
  const geocoder = geocoderFrom(readSettings(GeocoderSettings));
  if (!('off' in geocoder)) given['GEOCODER_PROVIDER'] = geocoder.provider.name;
  await db.query('select tickets_ops.record_settings($1, $2)', [poolId, JSON.stringify(given)]);
}

/** The datasets that are on. @param db as of settingInUse */
export async function datasetsOn(db: Db | undefined): Promise<DatasetName[]> {
  const crq = await settingInUse(db, 'CRQ_ENABLED');
  return DATASET_NAMES.filter((name) => name === DEFAULT_DATASET || crq === 'true');
}

/** A dataset with the folder that is in use. @throws SettingsError */
export const datasetInUse = async (db: Db, name: DatasetName): Promise<Dataset> =>
  dataset(name, await settingInUse(db, 'CRQ_PREFIX'));
