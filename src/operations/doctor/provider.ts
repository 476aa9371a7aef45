/** The doctor's check of the geocoding provider: one question, at a slot of the shared rate where a worker has registered it. */
import type pg from 'pg';
import { call } from '../../geocoding/call.ts';
import { CONTROL } from '../../geocoding/provider.ts';
import { callAtSlot } from '../../geocoding/rate.ts';
import { type Geocoder, GeocoderSettings, geocoderFrom } from '../../geocoding/settings.ts';
import { hideSecrets } from '../../settings/secrets.ts';
import { readSettings } from '../../settings/settings.ts';
import { failed, ok, skipped, type Verdict, warning } from './finding.ts';

export async function provider(client: pg.Client | undefined): Promise<Verdict> {
  const settings = readSettings(GeocoderSettings);
  const geocoder = geocoderFrom(settings);
  if ('off' in geocoder)
    return settings.GEOCODER_PROVIDER
      ? failed(geocoder.off, 'set it, or take GEOCODER_PROVIDER away: then tickets stay at their clusters')
      : skipped(geocoder.off);
  const asked = await ask(geocoder, client);
  if (!asked.outcome)
    return warning(`${geocoder.provider.name} is not asked now: ${asked.reason}`, 'wait, or see tickets_ops.geocoding');
  const { outcome } = asked;
  if (outcome.kind === 'found') return ok(`${geocoder.provider.name} answers`);
  if (outcome.kind === 'not_found')
    return warning(
      `${geocoder.provider.name} answers, but does not find ${CONTROL.text}`,
      'check GEOCODER_BASE_URL, and what map that server has',
    );
  const remedy =
    outcome.kind === 'key_refused'
      ? 'check GEOCODER_API_KEY'
      : 'check GEOCODER_BASE_URL and the account; the pipeline waits and tries again by itself';
  return failed(hideSecrets(outcome.reason), remedy);
}

async function ask(geocoder: Geocoder, client: pg.Client | undefined) {
  const registered = await client
    ?.query('select from tickets_ops.geocoding_providers where provider = $1', [geocoder.provider.name])
    .catch(() => undefined); // no schema yet: then nobody else calls either
  if (client && registered?.rowCount) return callAtSlot(client, geocoder, CONTROL);
  return { outcome: await call(geocoder, CONTROL), reason: '' };
}
