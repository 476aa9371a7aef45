/** The arguments make no sense; the message says which. The command line prints the usage text below it. */
export class UsageError extends Error {
  override name = 'UsageError';
}

/** One of the values that an option may have. @throws UsageError */
export function choose<Choice extends string>(option: string, choices: readonly Choice[], given: string): Choice {
  const chosen = choices.find((choice) => choice === given);
  if (chosen === undefined) throw new UsageError(`${option} ${given}: choose ${choices.join(', ')}.`);
  return chosen;
}
