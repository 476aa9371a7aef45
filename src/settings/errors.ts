/**
 * Errors that are expected: their message is all that a person needs (what, where, what to do), so they are shown without
 * a stack trace, on a terminal, in the log and in a job's `last_error`.
 */
export class ExpectedError extends Error {
  override name = 'ExpectedError';
}
