/** What the page answers when it does not do what it was asked: a status, words for a person, and the GRANT that is missing. */
import { hideSecrets } from '../settings/secrets.ts';
import type { Answer } from './routes.ts';

export class Refused extends Error {
  override name = 'Refused';
  readonly status: number;
  /** A statement for the database's owner. */
  readonly grant: string | undefined;

  constructor(status: number, message: string, grant?: string) {
    super(message);
    this.status = status;
    this.grant = grant;
  }
}

/** By SQLSTATE, or by its class. */
const STATUSES: Record<string, number> = {
  '55000': 409, // tickets.undo_decision: the place was changed since
  P0002: 404,
  P0001: 422,
  '22': 422,
  '23': 422,
  '08': 503,
  '57': 503,
};

/** Any error as an answer. What Postgres says is said on, with its hint; what it does not know is a 500. */
export function refusalOf(error: unknown): Answer {
  if (error instanceof Refused) {
    return { status: error.status, body: { error: error.message, grant: error.grant } };
  }
  const { code = '', message, hint } = error as { code?: string; message: string; hint?: string };
  const unreachable = /^E[A-Z]+$/.test(code) || message.startsWith('Connection terminated');
  const status = STATUSES[code] ?? STATUSES[code.slice(0, 2)] ?? (unreachable ? 503 : 500);
  const words = status === 503 ? `The database cannot be reached: ${message}` : [message, hint].filter(Boolean).join(' ');
  return { status, body: { error: hideSecrets(words) } };
}
