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

/** What is not the answer, on stderr. */
export function printError(text: string): void {
  process.stderr.write(printable(text));
}

/** `fleettickets status | head -1`: whoever closes the pipe wants no more. */
export function endWithReader(): void {
  for (const stream of [process.stdout, process.stderr]) {
    stream.on('error', (error: NodeJS.ErrnoException) => {
      if (error.code !== 'EPIPE') throw error;
      process.exit();
    });
  }
}
