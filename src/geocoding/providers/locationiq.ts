/** LocationIQ (https://docs.locationiq.com/reference/search): hosted OpenStreetMap search, errors as `{"error": …}`. */
import { z } from 'zod';
import type { Outcome } from '../outcome.ts';
import { type Answer, type Provider, refusalOf } from '../provider.ts';
import { readPlaces, searchPath } from './osm.ts';

const ErrorBody = z.looseObject({ error: z.string() });

/** Status and error text to outcome. `says` is null where the body is no error of LocationIQ's. */
function refusal(status: number, says: string | null, retryAfter: number | null): Outcome {
  const reason = `LocationIQ answered ${status}${says ? `: ${says.slice(0, 200)}` : ''}`;
  switch (status) {
    case 404:
      // Any other 404 is a wrong address or a proxy's page: remembering it would empty the map.
      return says === 'Unable to geocode' ? { kind: 'not_found' } : refusalOf(status, reason, retryAfter);
    case 402:
      return { kind: 'quota_spent', retrySeconds: retryAfter, reason };
    case 429:
      if (/day/i.test(says ?? '')) return { kind: 'quota_spent', retrySeconds: retryAfter, reason };
      return { kind: 'rate_limited', retrySeconds: retryAfter ?? (/second/i.test(says ?? '') ? 2 : 60), reason };
    case 200:
      return { kind: 'unreadable', reason: `${reason}${says ? '' : ': not a list of places'}` };
    default:
      return refusalOf(status, reason, retryAfter);
  }
}

export const locationiq: Provider = {
  name: 'locationiq',
  needsKey: true,
  baseUrl: 'https://us1.locationiq.com/v1',
  // 2 a second, but only 60 a minute.
  freeRate: 1,
  freeBudget: 5000,

  request(question, key) {
    return searchPath(question, { key, format: 'json', matchquality: '1' });
  },

  read({ status, json, retryAfter }: Answer): Outcome {
    const candidates = status === 200 ? readPlaces(json) : undefined;
    // An empty list is not how LocationIQ says "not found", so it is not remembered as such.
    if (candidates && candidates.length > 0) return { kind: 'found', candidates };
    const error = ErrorBody.safeParse(json);
    return refusal(status, error.success ? error.data.error : null, retryAfter);
  },
};
