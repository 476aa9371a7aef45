/**
 * One HTTP call to a provider. Whatever the provider or the network does, the result is an outcome, never an exception.
 *
 * Guarantees: at most CALL_TIMEOUT_MS and BODY_LIMIT_BYTES; no redirect is followed (it would carry the key to another host);
 * neither the key nor the URL is in the outcome, and every string in it can be stored as jsonb. It does not retry.
 */
import '../settings/handshake.ts';
import { storable } from '../database/storable.ts';
import { printableLine } from '../text/printable.ts';
import type { Outcome } from './outcome.ts';
import type { Answer, Question } from './provider.ts';
import type { Geocoder } from './settings.ts';

export const CALL_TIMEOUT_MS = 10_000;
/** Ten places are a few kilobytes. */
const BODY_LIMIT_BYTES = 2 * 1024 * 1024;

/** A provider that asks for a longer wait is mistaken (milliseconds, say), and would stop geocoding for weeks. */
const LONGEST_WAIT_SECONDS = 24 * 3600;

/**
 * Asks the provider one question.
 * @param signal ends the call early (a worker that shuts down)
 * @returns undefined when it was ended early: that says nothing about the provider
 */
export async function call(
  geocoder: Geocoder,
  question: Question,
  { signal, timeoutMs = CALL_TIMEOUT_MS }: { signal?: AbortSignal; timeoutMs?: number } = {},
): Promise<Outcome | undefined> {
  const name = geocoder.provider.name;
  const timeout = AbortSignal.timeout(timeoutMs);
  try {
    const response = await fetch(geocoder.baseUrl + geocoder.provider.request(question, geocoder.key), {
      redirect: 'manual',
      signal: signal ? AbortSignal.any([signal, timeout]) : timeout,
      headers: { accept: 'application/json', 'user-agent': 'fleettickets' },
    });
    if (response.status >= 300 && response.status < 400) {
      await response.body?.cancel();
      const reason = `${name} redirects (${response.status}), which is not followed. Check GEOCODER_BASE_URL`;
      return { kind: 'trouble', retrySeconds: null, reason };
    }
    const body = await readBody(response);
    if (body === undefined)
      return { kind: 'unreadable', reason: `${name} answered more than ${BODY_LIMIT_BYTES} bytes` };
    const outcome = geocoder.provider.read({
      status: response.status,
      retryAfter: retryAfter(response.headers.get('retry-after')),
      json: parse(body, geocoder.key),
    });
    return withinBounds(outcome);
  } catch (error) {
    if (signal?.aborted) return undefined;
    const reason = timeout.aborted ? `no answer in ${timeoutMs / 1000} s` : networkReason(error);
    return { kind: 'trouble', retrySeconds: null, reason: `${name}: ${reason}` };
  }
}

/** The body as text, undefined if it is longer than allowed. Counted after decompression: a small body may unpack to gigabytes. */
async function readBody(response: Response): Promise<string | undefined> {
  const chunks: Uint8Array[] = [];
  let size = 0;
  for await (const chunk of response.body ?? []) {
    size += chunk.length;
    if (size > BODY_LIMIT_BYTES) return undefined; // leaving the loop cancels the stream and closes the connection
    chunks.push(chunk);
  }
  return Buffer.concat(chunks).toString('utf8');
}

/**
 * Without the key, which answers like to quote: once the JSON is parsed, however it was escaped there. Storable: one answer that
 * jsonb refuses must not fail the job for ever.
 */
function parse(body: string, key: string): Answer['json'] {
  const clean = (text: string) => withoutKey(storable(text), key);
  try {
    return JSON.parse(body, (_name, value) => eachText(value, clean));
  } catch {
    return undefined; // the provider's table says what an answer that is no JSON means under its status
  }
}

/** The key as it stands and as URLs encode it, whatever the case of their digits. */
function withoutKey(text: string, key: string): string {
  if (key === '') return text;
  const inUrl = encodeURIComponent(key).replaceAll(/[.*+?^${}()|[\]\\]/g, '\\$&');
  return text.replaceAll(key, '[key]').replaceAll(new RegExp(inUrl, 'gi'), '[key]');
}

/** A value of JSON with its text, or the names of its members, changed; what lies deeper has been visited before. */
function eachText(value: unknown, clean: (text: string) => string): unknown {
  if (typeof value === 'string') return clean(value);
  if (value === null || typeof value !== 'object' || Array.isArray(value)) return value;
  return Object.fromEntries(Object.entries(value).map(([name, member]) => [clean(name), member]));
}

/** The reason in one line that can be shown, the wait between a second and LONGEST_WAIT_SECONDS. */
function withinBounds(outcome: Outcome): Outcome {
  if (!('reason' in outcome)) return outcome;
  const bounded = { ...outcome, reason: printableLine(outcome.reason) };
  if ('retrySeconds' in bounded && bounded.retrySeconds !== null)
    bounded.retrySeconds = Math.min(Math.max(1, bounded.retrySeconds), LONGEST_WAIT_SECONDS);
  return bounded;
}

/** Retry-After as seconds from now; it is a number of seconds or an HTTP date. */
function retryAfter(header: string | null): number | null {
  if (header === null) return null;
  const seconds = /^[0-9]+$/.test(header.trim()) ? Number(header) : (Date.parse(header) - Date.now()) / 1000;
  return Number.isFinite(seconds) && seconds >= 0 ? seconds : null;
}

/** fetch hides the reason in `cause`. Only its code is shown: messages may quote the URL. */
function networkReason(error: unknown): string {
  const cause = error instanceof Error ? (error.cause as { code?: unknown } | undefined) : undefined;
  return `no connection (${typeof cause?.code === 'string' ? cause.code : 'unknown reason'})`;
}
