/** Imports go one way: entry points (commands, tasks, the command line) import the core, the core none of them. */
import assert from 'node:assert/strict';
import { readdir, readFile } from 'node:fs/promises';
import { dirname, join, normalize } from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';

const ROOT = fileURLToPath(new URL('../..', import.meta.url));

/** Each import of a file of ours by one of these folders, as `src/a.ts imports src/b.ts`. */
async function imports(...folders: string[]): Promise<[importer: string, imported: string][]> {
  const found: [string, string][] = [];
  for (const folder of folders) {
    for (const file of await readdir(join(ROOT, folder), { recursive: true })) {
      if (!file.endsWith('.ts')) continue;
      const importer = join(folder, file);
      for (const [, path = ''] of (await readFile(join(ROOT, importer), 'utf8')).matchAll(
        /(?:from |import |import\()'(\.[^']+)'/g,
      ))
        found.push([importer, normalize(join(dirname(importer), path))]);
    }
  }
  return found;
}

const isRim = (file: string) => /^(src\/(cli\.ts|commands\/|terminal\/)|tasks\/|demo\/|bench\/|test\/)/.test(file);

test('the core imports no task, no command, nothing of a terminal, and no demo', async () => {
  const wrong = (await imports('src')).filter(([importer, imported]) => !isRim(importer) && isRim(imported));
  assert.deepEqual(wrong, []);
});

test('nothing that is installed imports the demo, the benchmarks or the tests', async () => {
  const wrong = (await imports('src', 'tasks')).filter(([, imported]) => /^(demo|bench|test)\//.test(imported));
  assert.deepEqual(wrong, []);
});

test('a takeover is the matter of the first migration, and of the doctor before it', async () => {
  const importers = (await imports('src', 'tasks')).filter(([, imported]) => imported.startsWith('src/takeover/'));
  assert.deepEqual(importers.map(([importer]) => importer).sort(), [
    'src/database/schema.ts',
    'src/operations/doctor/database.ts',
  ]);
});
