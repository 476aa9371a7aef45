/**
 * What asking a provider can come to. Every answer, and every lack of one, is exactly one of these:
 * only `found` and `not_found` may be remembered, so an error can never poison the cache.
 */

/** What a coordinate stands for, from precise to vague. A town is a place when it was asked for, else a fallback. */
const LEVELS = ['point', 'street', 'neighbourhood', 'town', 'city'] as const;
export type Level = (typeof LEVELS)[number];

/** One place that a provider proposes, in the one shape that tickets_ops.score_candidates reads. */
export type Candidate = {
  /** Degrees as the provider named them; null where it gave no number. The judge, not the provider, refuses them. */
  readonly lat: number | null;
  readonly lng: number | null;
  readonly level: Level;
  /** ISO 3166 code in lower case, if the provider said one. */
  readonly country: string | null;
  /** The place in words, most specific part first. */
  readonly label: string;
  /** The candidate as it was returned. */
  readonly original: unknown;
};

export type Outcome =
  | { readonly kind: 'found'; readonly candidates: readonly Candidate[] }
  | { readonly kind: 'not_found' }
  /** Too fast: nobody may call before `retrySeconds` are over. */
  | { readonly kind: 'rate_limited'; readonly retrySeconds: number; readonly reason: string }
  /** No calls left. `retrySeconds` null: until the next midnight UTC. */
  | { readonly kind: 'quota_spent'; readonly retrySeconds: number | null; readonly reason: string }
  | { readonly kind: 'key_refused'; readonly reason: string }
  /** Our own mistake: the same question would get the same answer. */
  | { readonly kind: 'bad_request'; readonly reason: string }
  /** The provider or the network does not work; `retrySeconds` if the provider said when it will. */
  | { readonly kind: 'trouble'; readonly retrySeconds: number | null; readonly reason: string }
  | { readonly kind: 'unreadable'; readonly reason: string };
