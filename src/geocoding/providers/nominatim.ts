/**
 * Nominatim (https://nominatim.org/release-docs/latest/api/Search/) on a server of one's own: no key, no quota, and no
 * address leaves the house. The public server forbids bulk use, so there is no default address.
 */
import type { Outcome } from '../outcome.ts';
import { type Answer, type Provider, refusalOf } from '../provider.ts';
import { readPlaces, searchPath } from './osm.ts';

function refusal(status: number, retryAfter: number | null): Outcome {
  const reason = `Nominatim answered ${status}`;
  switch (status) {
    case 401:
    case 403:
      // There is no key.
      return refusalOf(status, `${reason}: access to the server is refused`, retryAfter);
    case 429:
      return { kind: 'rate_limited', retrySeconds: retryAfter ?? 60, reason };
    case 200:
      return { kind: 'unreadable', reason: `${reason}: not a list of places` };
    default:
      return refusalOf(status, reason, retryAfter);
  }
}

export const nominatim: Provider = {
  name: 'nominatim',
  needsKey: false,
  baseUrl: null,
  freeRate: 5,
  freeBudget: null,

  request(question) {
    return searchPath(question, { format: 'jsonv2' });
  },

  read({ status, json, retryAfter }: Answer): Outcome {
    const candidates = status === 200 ? readPlaces(json) : undefined;
    if (!candidates) return refusal(status, retryAfter);
    return candidates.length > 0 ? { kind: 'found', candidates } : { kind: 'not_found' };
  },
};
