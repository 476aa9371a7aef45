/** What a release promises: one version everywhere, migrations that never change again, and these files and no others. */
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { createHash } from 'node:crypto';
import { mkdtemp, readdir, readFile, rm, symlink } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';

const PROJECT = fileURLToPath(new URL('../..', import.meta.url));
const read = (file: string) => readFile(join(PROJECT, file), 'utf8');
const run = promisify(execFile);

/** SHA-256 of every committed migration of a release. A release adds lines; a line never changes, for databases have it. */
const RELEASED: Record<string, string> = {
  '000001-tickets.sql': '7e2441a4390dc479600d571aafeba8dbab6a656b8101ff28ede5a9109e4b0c4d', // 1.0.0
  '000002-one-place-for-each-rule.sql': '3beed20b1cff9c63acea1fbad22e14d7c00303a3753b91145bdf6750910bb8d2', // 1.0.1
};

test('the version is the same in package.json, the lock file, the image, the changelog and the command', async () => {
  const { version } = JSON.parse(await read('package.json'));
  const lock = JSON.parse(await read('package-lock.json'));
  assert.deepEqual([lock.version, lock.packages[''].version], [version, version]);
  assert.match(await read('Dockerfile'), new RegExp(`org\\.opencontainers\\.image\\.version="${version}"`));
  assert.equal(/^## (\d+\.\d+\.\d+)/m.exec(await read('CHANGELOG.md'))?.[1], version);
  assert.equal((await run(process.execPath, [join(PROJECT, 'src/cli.ts'), '--version'])).stdout, `${version}\n`);
});

test('a migration of a release never changes: write another one', async () => {
  for (const [file, hash] of Object.entries(RELEASED))
    assert.equal(
      createHash('sha256')
        .update(await read(`migrations/committed/${file}`))
        .digest('hex'),
      hash,
      file,
    );
});

test('a release knows all of its migrations', async () => {
  const isReleased = !/^## Unreleased/m.test(await read('CHANGELOG.md'));
  const committed = (await readdir(join(PROJECT, 'migrations/committed')))
    .filter((file) => file.endsWith('.sql'))
    .sort();
  const known = Object.keys(RELEASED).sort();
  assert.deepEqual(committed.slice(0, known.length), known);
  if (isReleased) assert.deepEqual(committed, known);
});

test('the package holds what the worker needs, and works', async () => {
  const folder = await mkdtemp(join(tmpdir(), 'fleettickets-package-'));
  try {
    const { stdout } = await run('npm', ['pack', '--json', '--pack-destination', folder], { cwd: PROJECT });
    const [packed] = JSON.parse(stdout) as [{ filename: string; files: { path: string }[] }];
    const tops = [
      ...new Set(packed.files.map(({ path }) => path.replace(/(?<=^(src|tasks|migrations\/committed)\/).*/, ''))),
    ];
    assert.deepEqual(tops.sort(), [
      '.gmrc',
      'LICENSE',
      'README.md',
      'crontab',
      'graphile.config.ts',
      'migrations/committed/',
      'migrations/grants.sql',
      'migrations/postgis.sql',
      'package.json',
      'src/',
      'tasks/',
    ]);
    await run('tar', ['-xzf', join(folder, packed.filename), '-C', folder]);
    await symlink(join(PROJECT, 'node_modules'), join(folder, 'package/node_modules'));
    const { stdout: help } = await run(process.execPath, [join(folder, 'package/src/cli.ts'), '--help']);
    assert.match(help, /^ {2}worker /m);
    assert.doesNotMatch(help, /^ {2}demo /m);
    await assert.rejects(run(process.execPath, [join(folder, 'package/src/cli.ts'), 'demo']), {
      code: 1,
      stderr: 'The demo is not installed here. In a checkout of the repository: npm install && npm run demo\n',
    });
  } finally {
    await rm(folder, { recursive: true });
  }
});
