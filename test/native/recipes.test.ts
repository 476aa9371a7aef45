/**
 * The recipes of CONTRIBUTING.md, carried out: in a copy of the repository each diff shown is applied and each command run,
 * on scratch databases. Native, because a recipe that changes the schema makes databases.
 */
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { cp, mkdtemp, readFile, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { withClient } from '../../src/database/client.ts';

const PROJECT = fileURLToPath(new URL('../..', import.meta.url));
const NOT_COPIED = new Set(['node_modules', '.git']);

const server = process.env.TEST_DATABASE_URL ?? '';

/** A recipe is a heading of the third level with blocks of ```diff and ```sh. */
type Recipe = { readonly name: string; readonly diffs: string[]; readonly commands: string[] };

const [, section = ''] = (await readFile(join(PROJECT, 'CONTRIBUTING.md'), 'utf8')).split(/^## Recipes\n/m);
const recipes: Recipe[] = (section.split(/^## /m)[0] ?? '')
  .split(/^### /m)
  .slice(1)
  .map((text) => ({
    name: text.slice(0, text.indexOf('\n')),
    diffs: [...text.matchAll(/^```diff\n([\s\S]*?)^```/gm)].map((match) => match[1] ?? ''),
    commands: [...text.matchAll(/^```sh\n([\s\S]*?)^```/gm)].flatMap((match) => (match[1] ?? '').trim().split('\n')),
  }));

/** Applies a diff as a reader would: finds the lines that it shows, which must stand once in the file, and changes them. */
async function apply(diff: string, folder: string): Promise<void> {
  for (const [, name = '', body = ''] of diff.matchAll(/^\+\+\+ (\S+)\n((?:(?!\+\+\+ ).*\n)*)/gm)) {
    const file = join(folder, name);
    let text = await readFile(file, 'utf8').catch((error: NodeJS.ErrnoException) => {
      if (error.code !== 'ENOENT') throw error;
      return '';
    });
    for (const hunk of body.split(/^@@.*\n/m).filter(Boolean)) {
      const lines = hunk.replace(/\n$/, '').split('\n');
      const side = (sign: string) =>
        lines
          .filter((line) => line[0] !== sign)
          .map((line) => `${line.slice(1)}\n`)
          .join('');
      const found = side('+');
      assert.equal(text.split(found || '\0').length, found ? 2 : 1, `${name}: these lines stand once:\n${found}`);
      text = found ? text.replace(found, () => side('-')) : side('-');
    }
    await writeFile(file, text);
  }
}

describe('the recipes of CONTRIBUTING.md', { skip: !server && 'needs a native Postgres' }, () => {
  const databases = ['scratch', 'shadow'].map((kind) => `fleettickets_${kind}_${randomBytes(4).toString('hex')}`);
  const [scratchUrl, shadowUrl] = databases.map(
    (name) => Object.assign(new URL(server || 'postgres://nowhere'), { pathname: `/${name}` }).href,
  );
  let folder: string;

  before(async () => {
    folder = await mkdtemp(join(tmpdir(), 'fleettickets-recipes-'));
  });
  after(async () => {
    await rm(folder, { recursive: true });
    await withClient(server, async (client) => {
      for (const name of databases) await client.query(`drop database if exists ${name} with (force)`);
    });
  });

  test('are these', () => {
    assert.deepEqual(
      recipes.map(({ name }) => name),
      [
        'A network code',
        'A typed column on the map',
        'A cleaning rule',
        'A geocoding provider',
        'A health column',
        'Another hour in the schedule',
      ],
    );
  });

  for (const { name, diffs, commands } of recipes) {
    test(name, async () => {
      const copy = join(folder, name.replaceAll(' ', '-'));
      await cp(PROJECT, copy, { recursive: true, filter: (path) => !NOT_COPIED.has(basename(path)) });
      await symlink(join(PROJECT, 'node_modules'), join(copy, 'node_modules'));
      await promisify(execFile)('git', ['init', '--quiet'], { cwd: copy }); // biome reads .gitignore
      const environment = {
        ...process.env,
        DATABASE_URL: scratchUrl,
        SHADOW_DATABASE_URL: shadowUrl,
        ROOT_DATABASE_URL: server,
        NODE_TEST_CONTEXT: undefined, // what a recipe runs are tests of their own
      };
      assert.ok(diffs.length > 0 && commands.at(-1)?.startsWith('npm run check'), 'a recipe ends with the gate');
      for (const diff of diffs) await apply(diff, copy);
      for (const command of commands) {
        const run = promisify(execFile)('sh', ['-c', command], { cwd: copy, env: environment });
        await run.catch(({ stdout, stderr }) => assert.fail(`${command}\n${stdout}\n${stderr}`));
      }
    });
  }
});
