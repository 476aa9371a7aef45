/**
 * `npm run test:container`: builds the image and runs it, on real servers that it starts.
 * Where containers cannot be run it says why, aloud, and fails when CI is set: there the image is to be tried.
 *
 * The tests run in namespaces of their own: whatever they start and mount ends with them, even when they are killed.
 */
import { execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { startNativeServers } from '../support/native.ts';

const run = promisify(execFile);
const PROGRAMS = ['buildah', 'crun', 'mmdebstrap', 'podman'];
const NAMESPACES = ['--mount', '--pid', '--fork', '--kill-child', '--mount-proc'];
/** With cgroup v1 and v2 mounted side by side, crun takes the wrong one. The shell reaps orphans: it is PID 1 there. */
const INSIDE = 'umount /sys/fs/cgroup/unified 2> /dev/null; "$@"; exit $?';

const obstacle = await whyNot();
if (obstacle) {
  const frame = '!'.repeat(100);
  console.error(`${frame}\nTHE IMAGE WAS NOT TESTED: this machine cannot run containers.\n${obstacle}\n${frame}`);
  process.exitCode = process.env.CI ? 1 : 0;
} else {
  process.exitCode = await runTests();
}

async function whyNot(): Promise<string | undefined> {
  if (process.getuid?.() !== 0) return 'Root is needed to build and run them.';
  const missing: string[] = [];
  for (const program of PROGRAMS) await run(program, ['--version']).catch(() => missing.push(program));
  if (missing.length > 0) return `Missing: apt-get install --no-install-recommends ${missing.join(' ')}`;
  return run('unshare', [...NAMESPACES, 'true']).then(
    () => undefined,
    (error: Error) => `Namespaces are not to be had: ${error.message}`,
  );
}

async function runTests(): Promise<number> {
  const servers = await startNativeServers();
  const storage = await mkdtemp(join(tmpdir(), 'fleettickets-container-'));
  try {
    const command = [process.execPath, '--test', '--test-reporter=spec', 'test/container/*.test.ts'];
    const tests = spawn('unshare', [...NAMESPACES, 'sh', '-c', INSIDE, 'sh', ...command], {
      env: { ...process.env, ...servers.environment, CONTAINER_STORAGE: storage },
      stdio: ['ignore', 'inherit', 'inherit'],
    });
    for (const signal of ['SIGINT', 'SIGTERM'] as const) process.on(signal, () => tests.kill('SIGKILL'));
    const [code] = (await once(tests, 'close')) as [number | null];
    return code ?? 1;
  } finally {
    await servers.close();
    await rm(storage, { recursive: true, force: true });
  }
}
