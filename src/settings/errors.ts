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
  '25006': 'It takes no writes: a standby, perhaps after a failover. Name the server that does in DATABASE_URL.',
  '53300': 'Raise the limit of the role, the database or the server, or end sessions that nobody needs.',
};

/** pg's own words for a connection that went away; they have no code. */
const CONNECTION_LOST = /^(Connection terminated|Client has encountered a connection error)/;

/**
 * What to tell a person about an error: the message where it is expected (ours, Postgres's, the operating system's), with
 * the stack where it is a mistake of the program.
 */
export function reasonOf(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  const { code, severity, detail, hint, syscall } = error as Coded;
  if (severity !== undefined)
    return [`Postgres refuses: ${error.message} (SQLSTATE ${code})`, detail, hint ?? REMEDIES[String(code)]]
      .filter(Boolean)
      .join('\n');
  if (CONNECTION_LOST.test(error.message)) return `The connection to Postgres was lost: ${error.message}`;
  if (error instanceof ExpectedError || syscall !== undefined) return error.message;
  return error.stack ?? error.message;
}
