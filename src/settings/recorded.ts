/**
 * Settings that SQL goes by as well are recorded in the database (tickets_ops.settings), so that what operators call from
 * psql and processes without the setting go by the same value.
 */
import type { Db } from '../database/client.ts';
import { GeocoderSettings, geocoderFrom } from '../geocoding/settings.ts';
import { type DatasetName, DEFAULT_DATASET } from './dataset.ts';
import { FeedSettings, readSettings } from './settings.ts';

/** Records what this process's environment gives; an unset variable leaves what others have recorded. */
export async function recordSettings(db: Db, poolId: string): Promise<void> {
  const given = Object.fromEntries(
    Object.entries(readSettings(FeedSettings)).map(([name, value]) => [name, String(value)]),
  );
  const geocoder = geocoderFrom(readSettings(GeocoderSettings));
  if (!('off' in geocoder)) given['GEOCODER_PROVIDER'] = geocoder.provider.name;
  await db.query('select tickets_ops.record_settings($1, $2)', [poolId, JSON.stringify(given)]);
}

/** Whether a dataset is on: what this process's environment says, else what others have recorded (tickets.datasets). */
export async function isOn(db: Db, name: DatasetName): Promise<boolean> {
  const { CRQ_ENABLED } = readSettings(FeedSettings);
  if (name === DEFAULT_DATASET) return true;
  if (CRQ_ENABLED) return CRQ_ENABLED === 'true';
  const { rows } = await db.query<{ is_on: boolean }>('select $1 in (select tickets.datasets()) as is_on', [name]);
  return rows[0]?.is_on === true;
}
