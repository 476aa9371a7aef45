/**
 * Telling people how health turns, without Prometheus: a message to a webhook when health.ok turns, and a ping while it is
 * ok, whose absence alarms. The database decides that there is something to tell (tickets_ops.announce_health), a job
 * tells it and is tried again; nothing else waits for it. A worker that is killed between the webhook's answer and its own
 * commit tells the same once more; no message is lost.
 */
import type { Db } from '../database/client.ts';
import '../settings/handshake.ts';
import { ExpectedError } from '../settings/errors.ts';
import type { Log } from '../settings/log.ts';
import type { AlertSettings } from '../settings/settings.ts';
import { printable } from '../text/printable.ts';
import { andMore, duration, shortened } from '../text/wording.ts';

/** A turn of health.ok, as tickets_ops.announce_health puts it into a job. */
interface Turn {
  readonly ok: boolean;
  /** As tickets_ops.health has them, each marked as Fault or Warning. */
  readonly problems: readonly string[];
  /** When it turned, as people in Nairobi read it. */
  readonly at: string;
  /** How long it had been the other way; null where nothing was announced before. */
  readonly lasted_seconds: number | null;
  readonly database: string;
}

const ANSWER_MS = 5_000;
const MAX_PROBLEMS = 10;
const MAX_PROBLEM_LENGTH = 500;

/** Notes a turn of health, with the job that tells it, and pings while all is well. Where neither is set, nothing. */
export async function watchHealth(db: Db, settings: AlertSettings, log: Log): Promise<void> {
  const { ALERT_WEBHOOK_URL, ALERT_PING_URL } = settings;
  if (!ALERT_WEBHOOK_URL && !ALERT_PING_URL) return;
  const { rows } = await db.query<{ ok: boolean }>(
    ALERT_WEBHOOK_URL ? 'select tickets_ops.announce_health() as ok' : 'select ok from tickets_ops.health',
  );
  if (!ALERT_PING_URL || !rows[0]?.ok) return;
  // The next run pings again; and that none comes is what the receiver watches for.
  await send(ALERT_PING_URL, { method: 'GET' }).catch((error: Error) => log.warn(`ALERT_PING_URL: ${error.message}`));
}

/** Posts a message as Slack, Mattermost and their like take it. @throws ExpectedError unless it was taken */
export async function post(url: string, text: string, signal: AbortSignal): Promise<void> {
  const body = JSON.stringify({ text });
  await send(url, { method: 'POST', headers: { 'content-type': 'application/json' }, body }, signal);
}

/** The text of a message, with Slack's three escapes, and none of what steers or turns around (text/printable.ts). */
export function messageOf({ ok, problems, at, lasted_seconds: lasted, database }: Turn): string {
  const name = `fleettickets (${database})`;
  // A line end in what a file or a provider brought must not begin a line of ours.
  const shown = problems
    .slice(0, MAX_PROBLEMS)
    .map((problem) => `• ${shortened(problem, MAX_PROBLEM_LENGTH).replaceAll('\n', '\n  ')}`);
  const more = andMore(problems.length, MAX_PROBLEMS).map((line) => `${line}: select problems from tickets_ops.health`);
  const lastedFor = lasted === null ? '' : duration(lasted);
  const text = [
    ok
      ? `${name} is well ${lastedFor && 'again '}since ${at}${lastedFor && `, after ${lastedFor}`}.`
      : `${name} needs a person since ${at}${lastedFor && `, after ${lastedFor} in which it was well`}.`,
    ...(ok && shown.length > 0 ? ['Worth knowing:'] : []),
    ...shown,
    ...more,
  ].join('\n');
  return printable(text).replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('>', '&gt;');
}

/** The URL is a secret: no error says more of it than what answered. */
async function send(url: string, request: RequestInit, signal?: AbortSignal): Promise<void> {
  const timeout = AbortSignal.timeout(ANSWER_MS);
  let status: number;
  try {
    const response = await fetch(url, {
      ...request,
      redirect: 'manual', // it would be asked elsewhere, and a POST become a GET
      signal: signal ? AbortSignal.any([signal, timeout]) : timeout,
    });
    await response.body?.cancel();
    status = response.status;
  } catch (error) {
    if (timeout.aborted) throw new ExpectedError(`no answer within ${ANSWER_MS / 1_000} s.`);
    const { code, message } = ((error as Error).cause ?? error) as { code?: string; message: string };
    throw new ExpectedError(`it cannot be reached: ${code ?? message}.`);
  }
  if (status >= 300 && status < 400)
    throw new ExpectedError(`it answered ${status}: set the address that it leads to.`);
  if (status >= 400) throw new ExpectedError(`it answered ${status}.`);
}
