/** promtool, of Debian's package prometheus: where it is missing its tests are skipped, but never in CI. */
import { spawn, spawnSync } from 'node:child_process';
import { text } from 'node:stream/consumers';
import { fileURLToPath } from 'node:url';

const ROOT = fileURLToPath(new URL('../..', import.meta.url));
const isThere = spawnSync('promtool', ['--version']).error === undefined;

/** For node:test. */
export const skipWithoutPromtool = {
  skip: !isThere && process.env['CI'] === undefined && 'needs promtool (Debian: prometheus)',
};

/** @throws with what it says, where it finds anything wrong or worth a remark */
export async function promtool(args: readonly string[], input = ''): Promise<void> {
  const child = spawn('promtool', args, { cwd: ROOT, stdio: ['pipe', 'pipe', 'pipe'] });
  child.stdin.end(input);
  const closed = new Promise<number | null>((resolve, reject) => child.once('close', resolve).once('error', reject));
  const [out, err, status] = await Promise.all([text(child.stdout), text(child.stderr), closed]);
  if (status !== 0) throw new Error(`promtool ${args.join(' ')} ended with ${status}\n${out}${err}`);
}
