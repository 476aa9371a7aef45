/**
 * One HTTP call to a provider. Whatever the provider or the network does, the result is an outcome, never an exception.
 *
 * Guarantees: at most CALL_TIMEOUT_MS and BODY_LIMIT_BYTES; no redirect is followed (it would carry the key to another host);
 * neither the key nor the URL is in the outcome, and every string in it can be stored as jsonb. It does not retry.
 */
import type { Outcome } from './outcome.ts';
import type { Answer, Question } from './provider.ts';
import type { Geocoder } from './settings.ts';

export const CALL_TIMEOUT_MS = 10_000;
export const BODY_LIMIT_BYTES = 2 * 1024 * 1024;

/** Ten places are a few kilobytes; a reset later than this is a mistake, and would stop geocoding for weeks. */
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
    return geocoder.provider.read({
      status: response.status,
      retryAfter: retryAfter(response.headers.get('retry-after')),
      json: parse(withoutKey(body, geocoder.key)),
    });
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

/** Error pages like to quote the request. */
function withoutKey(body: string, key: string): string {
  if (key === '') return body;
  return body.replaceAll(key, '[key]').replaceAll(encodeURIComponent(key), '[key]');
}

function parse(body: string): Answer['json'] {
  try {
    return JSON.parse(body, (_name, value) => storable(value));
  } catch {
    return undefined; // the provider's table says what an answer that is no JSON means under its status
  }
}

/** jsonb refuses NUL and half surrogates, in names and in values: one such answer must not fail the job for ever. */
function storable(value: unknown): unknown {
  const clean = (text: string) => text.toWellFormed().replaceAll('\0', '\uFFFD');
  if (typeof value === 'string') return clean(value);
  if (value === null || typeof value !== 'object' || Array.isArray(value)) return value;
  return Object.fromEntries(Object.entries(value).map(([name, member]) => [clean(name), member]));
}

/** Retry-After as seconds from now; it is a number of seconds or an HTTP date. */
function retryAfter(header: string | null): number | null {
  if (header === null) return null;
  const seconds = /^[0-9]+$/.test(header.trim()) ? Number(header) : (Date.parse(header) - Date.now()) / 1000;
  return Number.isFinite(seconds) && seconds >= 0 ? Math.min(Math.max(1, seconds), LONGEST_WAIT_SECONDS) : null;
}

/** fetch hides the reason in `cause`. Only its code is shown: messages may quote the URL. */
function networkReason(error: unknown): string {
  const cause = error instanceof Error ? (error.cause as { code?: unknown } | undefined) : undefined;
  return `no connection (${typeof cause?.code === 'string' ? cause.code : 'unknown reason'})`;
}
