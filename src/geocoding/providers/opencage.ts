/** OpenCage (https://opencagedata.com/api): one format over several sources; the status stands in the body too. */
import { z } from 'zod';
import type { Candidate, Level, Outcome } from '../outcome.ts';
import { type Answer, CANDIDATE_LIMIT, COUNTRY, type Provider, refusalOf } from '../provider.ts';
import { Degrees, NEIGHBOURHOODS } from './osm.ts';

const text = z.string().optional().catch(undefined);

const Result = z.looseObject({
  geometry: z.looseObject({ lat: Degrees, lng: Degrees }).catch({ lat: null, lng: null }),
  confidence: z.number().optional().catch(undefined),
  components: z
    .looseObject({ _type: text, country_code: text, town: text })
    .catch({ _type: undefined, country_code: undefined, town: undefined }),
  formatted: z.string().catch(''),
});

const Body = z.looseObject({
  results: z.array(Result),
  status: z.looseObject({ code: z.number() }),
});

const Trouble = z.looseObject({
  status: z.looseObject({ code: z.number().optional(), message: z.string().optional() }).optional().catch(undefined),
  rate: z.looseObject({ reset: z.number().optional() }).optional().catch(undefined),
});

const LEVEL_OF_TYPE: Record<string, Level> = {
  ...Object.fromEntries(['road', 'street', 'footway', 'path'].map((type) => [type, 'street'])),
  ...Object.fromEntries([...NEIGHBOURHOODS, 'place'].map((type) => [type, 'neighbourhood'])),
  ...Object.fromEntries(
    [
      'city',
      'city_district',
      'municipality',
      'district',
      'county',
      'state_district',
      'state',
      'region',
      'province',
    ].map((type) => [type, 'city']),
  ),
  ...Object.fromEntries(['postcode', 'country', 'continent', 'body_of_water', 'unknown'].map((type) => [type, 'city'])),
};

/** `confidence` is the size of the bounding box, not correctness: 6 and less is wider than 5 km, whatever its type says. */
const WIDE = 6;

function levelOf({ components, confidence = 0 }: z.infer<typeof Result>): Level {
  const type = components._type ?? 'unknown';
  if (type === 'city' && components.town !== undefined) return 'town';
  if (confidence <= WIDE) return 'city';
  return LEVEL_OF_TYPE[type] ?? 'point';
}

function candidateOf(result: z.infer<typeof Result>, original: unknown): Candidate {
  return {
    lat: result.geometry.lat,
    lng: result.geometry.lng,
    level: levelOf(result),
    country: result.components.country_code?.toLowerCase() ?? null,
    label: result.formatted,
    original,
  };
}

/** Status to outcome. The body's own status stands for the HTTP status when that is 200. */
function refusal({ status, json, retryAfter }: Answer): Outcome {
  const body = Trouble.safeParse(json).data;
  const code = status === 200 ? (body?.status?.code ?? 200) : status;
  const message = body?.status?.message?.slice(0, 200);
  const reason = `OpenCage answered ${code}${message ? `: ${message}` : ''}`;
  switch (code) {
    case 410:
      return { kind: 'bad_request', reason };
    case 402: {
      const reset = body?.rate?.reset;
      const untilReset = reset === undefined ? null : reset - Date.now() / 1000;
      return { kind: 'quota_spent', retrySeconds: retryAfter ?? untilReset, reason };
    }
    case 429:
      return { kind: 'rate_limited', retrySeconds: retryAfter ?? 2, reason };
    case 200:
      return { kind: 'unreadable', reason: `${reason}: not a list of results` };
    default:
      return refusalOf(code, reason, retryAfter);
  }
}

export const opencage: Provider = {
  name: 'opencage',
  needsKey: true,
  baseUrl: 'https://api.opencagedata.com/geocode/v1',
  freeRate: 1,
  freeBudget: 2500,

  request({ text: q, near }, key) {
    const parameters = new URLSearchParams({
      q,
      key,
      countrycode: COUNTRY.code,
      limit: String(CANDIDATE_LIMIT),
      no_annotations: '1',
      // OpenCage must not keep what was asked: tickets name customers' buildings.
      no_record: '1',
      language: 'en',
    });
    // A bias only, latitude first. `bounds` would restrict, and then a wrong city looks like an unknown place.
    if (near) parameters.set('proximity', `${near.lat},${near.lng}`);
    return `/json?${parameters}`;
  },

  read(answer: Answer): Outcome {
    const body = answer.status === 200 ? Body.safeParse(answer.json).data : undefined;
    if (body?.status.code !== 200) return refusal(answer);
    const originals = (answer.json as { results: unknown[] }).results;
    const candidates = body.results.map((result, index) => candidateOf(result, originals[index]));
    return candidates.length > 0 ? { kind: 'found', candidates } : { kind: 'not_found' };
  },
};
