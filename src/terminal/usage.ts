/** The arguments make no sense; the message says which. The command line prints the usage text below it. */
export class UsageError extends Error {
  override name = 'UsageError';
}
