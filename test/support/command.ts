/** Our command line as a process of its own. */
import { spawn } from 'node:child_process';
import { tmpdir } from 'node:os';
import { text } from 'node:stream/consumers';
import { fileURLToPath } from 'node:url';

export const CLI = fileURLToPath(new URL('../../src/cli.ts', import.meta.url));

interface Outcome {
  readonly status: number | null;
  readonly out: string;
  readonly err: string;
}

/** Runs a command of ours to its end, in a folder without .env. @param settings go on top of the environment; an empty one is unset */
export const fleettickets = (settings: Record<string, string>, ...args: string[]): Promise<Outcome> =>
  runCommand(tmpdir(), settings, args);

/** The same in a folder of the test's own. */
export async function runCommand(cwd: string, settings: Record<string, string>, args: string[]): Promise<Outcome> {
  const child = spawn(process.execPath, [CLI, ...args], {
    cwd,
    env: { ...process.env, ...settings },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  const closed = new Promise<number | null>((resolve) => child.once('close', resolve));
  const [out, err] = await Promise.all([text(child.stdout), text(child.stderr)]);
  return { status: await closed, out, err };
}
