/** How the database learns whom this process asks, at what rate and budget; the key stays in the process. */
import type { Db } from '../database/client.ts';
import { readSettings } from '../settings/settings.ts';
import { type Geocoder, GeocoderSettings, geocoderFrom, type NoGeocoder } from './settings.ts';

/** This process's geocoder, as jobs need it: registered if no worker has done so yet. */
export async function geocoderInUse(db: Db): Promise<Geocoder | NoGeocoder> {
  const geocoder = geocoderFrom(readSettings(GeocoderSettings));
  if ('off' in geocoder) return geocoder;
  const { rows } = await db.query('select from tickets_ops.geocoding_setup where provider = $1', [
    geocoder.provider.name,
  ]);
  return rows.length > 0 ? geocoder : registerGeocoder(db);
}

/** Maintenance: registers it where the registration is another's by now, such as that of a worker that is gone. */
export async function keepRegistered(db: Db): Promise<void> {
  const geocoder = await geocoderInUse(db);
  if ('off' in geocoder) await registerGeocoder(db);
}

/** Whether a living worker has a provider: where this process has none, others ask. */
export async function isAskedByOthers(db: Db): Promise<boolean> {
  const { rows } = await db.query('select tickets_ops.has_geocoding_worker() as others');
  return rows[0].others;
}

/**
 * Registers this process's geocoder in tickets_ops.geocoding_setup, for planning, for status and for the rate that all
 * workers share. A worker does it when it starts; the last one to start decides. One without counts only while no living
 * worker has a provider; maintenance asks again.
 */
export async function registerGeocoder(db: Db): Promise<Geocoder | NoGeocoder> {
  const geocoder = geocoderFrom(readSettings(GeocoderSettings));
  const registration =
    'off' in geocoder
      ? [null, null, null, null, geocoder.off]
      : [geocoder.provider.name, geocoder.rate, geocoder.dailyBudget, geocoder.foundDays, null];
  await db.query('select tickets_ops.register_geocoder($1, $2, $3, $4, $5)', registration);
  return geocoder;
}
