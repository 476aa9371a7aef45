/**
 * Errors that are expected: their message is all that a person needs (what, where, what to do), so they are shown without
 * a stack trace, on a terminal, in the log and in a job's `last_error`.
 */
export class ExpectedError extends Error {
  override name = 'ExpectedError';
}

interface Coded {
  readonly code?: unknown;
  readonly severity?: unknown;
  readonly detail?: unknown;
  readonly hint?: unknown;
  readonly syscall?: unknown;
}

/** Whether Node refuses a certificate because it knows nobody who signed it. */
export const isUntrusted = (code: string | undefined) =>
  /^(DEPTH_ZERO_SELF_SIGNED_CERT|SELF_SIGNED_CERT_IN_CHAIN|UNABLE_TO_\w+)$/.test(code ?? '');

/** What to do, by SQLSTATE, where Postgres itself gives no hint. */
export const REMEDIES: Record<string, string> = {
  '42501':
    'The role of DATABASE_URL lacks that right. The pipeline, and most commands, need the role that owns the tables; what others may do, docs/privileges.md says.',
  '25006': 'It takes no writes: a standby, perhaps after a failover. Name the server that does in DATABASE_URL.',
  '28000': 'Check the user in DATABASE_URL, and whom pg_hba.conf lets in.',
  '28P01': 'Check the user and the password in DATABASE_URL.',
  '3D000': 'Check the name of the database in DATABASE_URL, or let the DBA create it.',
  '53100': 'The disk of the database is full: make room on it.',
  '57P03': 'It is starting, or going down: try again in a minute.',
  '53300': 'Raise the limit of the role, the database or the server, or end sessions that nobody needs.',
};

/** pg's own words for a connection that went away; they have no code. */
const CONNECTION_LOST = /^(Connection terminated|Client has encountered a connection error)/;

const isOfPostgres = (error: Error) => (error as Coded).severity !== undefined;

const isExpected = (error: Error) =>
  error instanceof ExpectedError ||
  isOfPostgres(error) ||
  (error as Coded).syscall !== undefined ||
  CONNECTION_LOST.test(error.message);

/** What to tell a person about an error, without a stack, whatever it is. */
export function messageOf(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  const { code, detail, hint } = error as Coded;
  if (isOfPostgres(error))
    return [`Postgres refuses: ${error.message} (SQLSTATE ${code})`, detail, hint ?? REMEDIES[String(code)]]
      .filter(Boolean)
      .join('\n');
  return CONNECTION_LOST.test(error.message) ? `The connection to Postgres was lost: ${error.message}` : error.message;
}

/** The same with the stack where the error is a mistake of the program, not what can be expected (ours, Postgres's, the system's). */
export const reasonOf = (error: unknown): string =>
  error instanceof Error && !isExpected(error) ? (error.stack ?? error.message) : messageOf(error);
