/**
 * The interface that every provider fills: how a question becomes a URL, and how an answer becomes an outcome.
 * Both are pure; call.ts does the calling. A provider is a file in providers/ and its name in settings.ts beside it.
 */
import type { Outcome } from './outcome.ts';

/** One query, biased to the surroundings of a cluster's centroid when there is one. */
export type Question = {
  readonly text: string;
  readonly near: { readonly lat: number; readonly lng: number; readonly km: number } | null;
};

/** Where all places are: the name for queries, the ISO 3166 code that providers filter by and the judge (judge.sql) asks for. */
export const COUNTRY = { name: 'Kenya', code: 'ke' } as const;

/** Every provider that knows the country finds this. */
export const CONTROL: Question = { text: `Nairobi, ${COUNTRY.name}`, near: null };

/** An HTTP answer, its body parsed if it was JSON. */
export type Answer = {
  readonly status: number;
  /** The provider's Retry-After in seconds, as it said it. */
  readonly retryAfter: number | null;
  /** The parsed body; undefined if it is no JSON. */
  readonly json: unknown;
};

export type Provider = {
  readonly name: string;
  readonly needsKey: boolean;
  /** Where its API is, if that is the same for everyone. */
  readonly baseUrl: string | null;
  /** Calls a second that the free plan sustains. */
  readonly freeRate: number;
  /** Calls a UTC day of the free plan; null: no limit. */
  readonly freeBudget: number | null;
  /** Path and parameters below the base URL; the key is among them, so the result is a secret. */
  request(question: Question, key: string): string;
  read(answer: Answer): Outcome;
};

/** How many candidates to ask for: a homonym may come first, so one is never enough. */
export const CANDIDATE_LIMIT = 10;

/**
 * What an HTTP status that is no answer means with every provider. Each has its own list of those that mean something else
 * with it, which comes first.
 * @param reason the answer in words
 */
export function refusalOf(status: number, reason: string, retryAfter: number | null): Outcome {
  switch (status) {
    case 400:
      return { kind: 'bad_request', reason };
    case 401:
    case 403:
      return { kind: 'key_refused', reason };
    default:
      return { kind: 'trouble', retrySeconds: retryAfter, reason };
  }
}

/** The box around a point that reaches `km` to each side: west, south, east, north in degrees. */
export function boxAround(near: NonNullable<Question['near']>): [number, number, number, number] {
  const KM_PER_DEGREE = 111.2;
  const north = near.km / KM_PER_DEGREE;
  const east = north / Math.max(0.1, Math.cos((near.lat * Math.PI) / 180));
  const round = (degrees: number) => Math.round(degrees * 1e5) / 1e5;
  return [round(near.lng - east), round(near.lat - north), round(near.lng + east), round(near.lat + north)];
}
