/**
 * The geocoding settings. None is required: without a provider the pipeline runs, and tickets stay at their clusters.
 * What one process is told here it registers in the database (tickets_ops.geocoding_providers), where rate and budget are kept.
 */
import { z } from 'zod';
import { endpointUrl } from '../settings/http-url.ts';
import type { Provider } from './provider.ts';
import { locationiq } from './providers/locationiq.ts';
import { nominatim } from './providers/nominatim.ts';
import { opencage } from './providers/opencage.ts';

const PROVIDERS = { locationiq, opencage, nominatim } satisfies Record<string, Provider>;
const NAMES = Object.keys(PROVIDERS) as (keyof typeof PROVIDERS)[];
const namesOf = (kind: (provider: Provider) => boolean) => NAMES.filter((name) => kind(PROVIDERS[name]));
const LISTS = {
  and: new Intl.ListFormat('en-GB', { type: 'conjunction' }),
  or: new Intl.ListFormat('en-GB', { type: 'disjunction' }),
};

export const GeocoderSettings = z.object({
  GEOCODER_PROVIDER: z
    .enum(NAMES, `must be one of ${NAMES.join(', ')}`)
    .optional()
    .describe(`Who is asked where places are: ${LISTS.or.format(NAMES)}. Unset: nobody is asked`),
  GEOCODER_API_KEY: z
    .string()
    .min(8, 'is too short to be a key')
    .optional()
    .describe(`The provider's key; needed by ${LISTS.and.format(namesOf(({ needsKey }) => needsKey))}`)
    .meta({ secret: true }),
  GEOCODER_BASE_URL: endpointUrl
    .optional()
    .describe(
      `Address of the provider's API, e.g. http://nominatim:8080; needed by ${LISTS.and.format(
        namesOf(({ baseUrl }) => baseUrl === null),
      )}, whose server is your own`,
    ),
  GEOCODER_RATE_PER_SECOND: z.coerce
    .number('must be a number')
    .min(1 / 60, 'must be at least one call a minute (0.0167)')
    .max(100, 'must be at most 100')
    .optional()
    .describe('Calls a second for the key, over all workers. Unset: what the provider’s free plan sustains'),
  GEOCODER_DAILY_BUDGET: z.coerce
    .number('must be a whole number of calls')
    .int('must be a whole number of calls')
    .min(1, 'must be at least 1')
    .max(1_000_000_000, 'must be at most 1000000000')
    .optional()
    .describe('Calls a day (UTC) for the key. Unset: what the provider’s free plan allows'),
  GEOCODER_FOUND_DAYS: z.coerce
    .number('must be a number of days')
    .min(1, 'must be at least 1')
    .max(36_500, 'must be at most 36500')
    .default(180)
    .describe('Days after which a found place may be asked again; places that a person verified never are'),
});
export type GeocoderSettings = z.infer<typeof GeocoderSettings>;

/** A provider with everything it takes to ask it. */
export type Geocoder = {
  readonly provider: Provider;
  /** Empty for a provider that has none. */
  readonly key: string;
  /** Without a closing slash. */
  readonly baseUrl: string;
  /** Calls a second over all workers. */
  readonly rate: number;
  /** Calls a UTC day; null: no limit. */
  readonly dailyBudget: number | null;
  readonly foundDays: number;
};

/** Nobody can be asked; `off` says why and what to do. */
export type NoGeocoder = { readonly off: string };

/** The geocoder that the settings describe, or why there is none. */
export function geocoderFrom(settings: GeocoderSettings): Geocoder | NoGeocoder {
  if (!settings.GEOCODER_PROVIDER) {
    return {
      off: `GEOCODER_PROVIDER is not set, so no place is looked up. Set it to ${LISTS.or.format(NAMES)}.`,
    };
  }
  const provider: Provider = PROVIDERS[settings.GEOCODER_PROVIDER];
  const key = settings.GEOCODER_API_KEY ?? '';
  const baseUrl = settings.GEOCODER_BASE_URL ?? provider.baseUrl;
  if (provider.needsKey && !key) {
    return { off: `GEOCODER_API_KEY is not set, and ${provider.name} needs one. Set it to the key of your account.` };
  }
  if (!baseUrl) {
    return {
      off: `GEOCODER_BASE_URL is not set, and ${provider.name} needs one. Set it to the address of your server.`,
    };
  }
  return {
    provider,
    key,
    baseUrl: baseUrl.replace(/\/+$/, ''),
    rate: settings.GEOCODER_RATE_PER_SECOND ?? provider.freeRate,
    dailyBudget: settings.GEOCODER_DAILY_BUDGET ?? provider.freeBudget,
    foundDays: settings.GEOCODER_FOUND_DAYS,
  };
}
