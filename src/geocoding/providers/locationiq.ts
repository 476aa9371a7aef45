/** LocationIQ (https://docs.locationiq.com/reference/search): hosted OpenStreetMap search, errors as `{"error": …}`. */
import { z } from 'zod';
import type { Outcome } from '../outcome.ts';
import { type Answer, boxAround, CANDIDATE_LIMIT, type Provider } from '../provider.ts';
import { readPlaces } from './osm.ts';

const ErrorBody = z.looseObject({ error: z.string() });

/** Status and error text to outcome. `says` is null where the body is no error of LocationIQ's. */
function refusal(status: number, says: string | null, retryAfter: number | null): Outcome {
  const reason = `LocationIQ answered ${status}${says ? `: ${says.slice(0, 200)}` : ''}`;
  switch (status) {
    case 400:
      return { kind: 'bad_request', reason };
    case 401:
    case 403:
      return { kind: 'key_refused', reason };
    case 404:
      // Any other 404 is a wrong address or a proxy's page: remembering it would empty the map.
      return says === 'Unable to geocode'
        ? { kind: 'not_found' }
        : { kind: 'trouble', retrySeconds: retryAfter, reason };
    case 402:
      return { kind: 'quota_spent', retrySeconds: retryAfter, reason };
    case 429:
      if (/day/i.test(says ?? '')) return { kind: 'quota_spent', retrySeconds: retryAfter, reason };
      return { kind: 'rate_limited', retrySeconds: retryAfter ?? (/second/i.test(says ?? '') ? 2 : 60), reason };
    case 200:
      return { kind: 'unreadable', reason: `${reason}${says ? '' : ': not a list of places'}` };
    default:
      return { kind: 'trouble', retrySeconds: retryAfter, reason };
  }
}

export const locationiq: Provider = {
  name: 'locationiq',
  needsKey: true,
  baseUrl: 'https://us1.locationiq.com/v1',
  // 2 a second, but only 60 a minute.
  freeRate: 1,
  freeBudget: 5000,

  request({ text, near }, key) {
    const parameters = new URLSearchParams({
      key,
      q: text,
      format: 'json',
      countrycodes: 'ke',
      limit: String(CANDIDATE_LIMIT),
      addressdetails: '1',
      matchquality: '1',
      'accept-language': 'en',
    });
    if (near) parameters.set('viewbox', boxAround(near).join(','));
    return `/search?${parameters}`;
  },

  read({ status, json, retryAfter }: Answer): Outcome {
    const candidates = status === 200 ? readPlaces(json) : undefined;
    // An empty list is not how LocationIQ says "not found", so it is not remembered as such.
    if (candidates && candidates.length > 0) return { kind: 'found', candidates };
    const error = ErrorBody.safeParse(json);
    return refusal(status, error.success ? error.data.error : null, retryAfter);
  },
};
