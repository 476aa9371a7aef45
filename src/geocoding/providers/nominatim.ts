/**
 * Nominatim (https://nominatim.org/release-docs/latest/api/Search/) on a server of one's own: no key, no quota, and no
 * address leaves the house. The public server forbids bulk use, so there is no default address.
 */
import type { Outcome } from '../outcome.ts';
import { type Answer, boxAround, CANDIDATE_LIMIT, type Provider } from '../provider.ts';
import { readPlaces } from './osm.ts';

function refusal(status: number, retryAfter: number | null): Outcome {
  const reason = `Nominatim answered ${status}`;
  switch (status) {
    case 400:
      return { kind: 'bad_request', reason };
    case 401:
    case 403:
      return { kind: 'key_refused', reason: `${reason}: access to the server is refused` };
    case 429:
      return { kind: 'rate_limited', retrySeconds: retryAfter ?? 60, reason };
    case 200:
      return { kind: 'unreadable', reason: `${reason}: not a list of places` };
    default:
      return { kind: 'trouble', retrySeconds: retryAfter, reason };
  }
}

export const nominatim: Provider = {
  name: 'nominatim',
  needsKey: false,
  baseUrl: null,
  freeRate: 5,
  freeBudget: null,

  request({ text, near }) {
    const parameters = new URLSearchParams({
      q: text,
      format: 'jsonv2',
      countrycodes: 'ke',
      limit: String(CANDIDATE_LIMIT),
      addressdetails: '1',
      'accept-language': 'en',
    });
    if (near) parameters.set('viewbox', boxAround(near).join(','));
    return `/search?${parameters}`;
  },

  read({ status, json, retryAfter }: Answer): Outcome {
    const candidates = status === 200 ? readPlaces(json) : undefined;
    if (!candidates) return refusal(status, retryAfter);
    return candidates.length > 0 ? { kind: 'found', candidates } : { kind: 'not_found' };
  },
};
