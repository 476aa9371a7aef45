/** The way out of every command: what it prints is safe to show, and a reader that has seen enough is no error. */
import { printable } from '../text/printable.ts';

/** The answer, on stdout. */
export function print(text: string): void {
  process.stdout.write(printable(text));
}

/** The answer as JSON. */
export function printJson(value: unknown): void {
  print(`${JSON.stringify(value, null, 2)}\n`);
}

/** The answer as JSON, or as a person reads it. */
export function printAnswer<T>(json: boolean, answer: T, describe: (answer: T) => string): void {
  if (json) printJson(answer);
  else print(describe(answer));
}

/** What stands below what a command without --apply would do. */
export const DRY_RUN = 'This was a dry run: nothing was changed.';
export const APPLY = `${DRY_RUN} Add --apply to do it.`;

/** What is not the answer, on stderr. */
export function printError(text: string): void {
  process.stderr.write(printable(text));
}

/** `fleettickets status | head -1`: the reader that closes the pipe wants no more. */
export function endWithReader(): void {
  for (const stream of [process.stdout, process.stderr]) {
    stream.on('error', (error: NodeJS.ErrnoException) => {
      if (error.code !== 'EPIPE') throw error;
      process.exit();
    });
  }
}
