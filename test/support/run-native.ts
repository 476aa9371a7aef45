/**
 * `npm run test:native`: the whole suite on real servers, which it starts unless TEST_DATABASE_URL names some.
 * Fails when a test fails, and when one is skipped: natively there is no reason to.
 * Arguments are passed to `node --test` in place of all test files.
 */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { startNativeServers } from './native.ts';

const ALL = ['test/!(native|container)/*.test.ts', 'test/native/*.test.ts'];

const servers = process.env.TEST_DATABASE_URL ? undefined : await startNativeServers();
try {
  const given = process.argv.slice(2);
  process.exitCode = await runTests(given.length > 0 ? given : ALL, servers?.environment ?? {});
} finally {
  await servers?.close();
}

async function runTests(files: string[], environment: Record<string, string>): Promise<number> {
  const tests = spawn(process.execPath, ['--test', '--test-concurrency=2', '--test-reporter=spec', ...files], {
    env: { ...process.env, ...environment },
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  for (const signal of ['SIGINT', 'SIGTERM'] as const) process.on(signal, () => tests.kill(signal));
  let skipped: number | undefined;
  let tail = '';
  tests.stdout.setEncoding('utf8').on('data', (text: string) => {
    process.stdout.write(text);
    tail = (tail + text).slice(-10_000);
    const count = /^ℹ skipped (\d+)$/m.exec(tail)?.[1];
    if (count !== undefined) skipped = Number(count);
  });
  const [code] = (await once(tests, 'close')) as [number | null];
  if (skipped === 0) return code ?? 1;
  console.error(skipped === undefined ? 'The test run ended without a summary.' : `${skipped} tests were skipped.`);
  return 1;
}
