/** The documentation is true: its SQL runs, its links lead somewhere, and what is made from the code is fresh. */
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { access, readdir, readFile } from 'node:fs/promises';
import { after, before, describe, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { feed } from '../../demo/feed.ts';
import { COMMANDS } from '../../src/cli.ts';
import { NEWEST_POSTGRES, OLDEST_POSTGIS, OLDEST_POSTGRES } from '../../src/database/server.ts';
import { SETTINGS } from '../../src/settings/settings.ts';
import { commandsPage, ROOT, settingsPage } from '../support/docs.ts';
import { type Environment, startEnvironment } from '../support/environment.ts';

const page = (name: string) => readFile(new URL(name, ROOT), 'utf8');

const PAGES = [
  'README.md',
  'CONTRIBUTING.md',
  'CHANGELOG.md',
  ...(await readdir(new URL('docs/', ROOT))).filter((name) => name.endsWith('.md')).map((name) => `docs/${name}`),
];

const texts = new Map(await Promise.all(PAGES.map(async (name) => [name, await page(name)] as const)));

/** The ```sql blocks of a page; one that is marked ```sql norun is only shown. */
function sqlBlocks(text: string): { line: number; sql: string }[] {
  return [...text.matchAll(/^```sql\n([\s\S]*?)^```/gm)].map((match) => ({
    line: text.slice(0, match.index).split('\n').length + 1,
    sql: match[1] ?? '',
  }));
}

/** The commands of the ```sh run blocks of a page. */
function commands(text: string): string[] {
  return [...text.matchAll(/^```sh run\n([\s\S]*?)^```/gm)].flatMap((match) => (match[1] ?? '').trim().split('\n'));
}

test('docs/settings.md is made from the settings (npm run docs)', async () => {
  assert.equal(await page('docs/settings.md'), settingsPage());
});

test('docs/commands.md is what --help prints (npm run docs)', async () => {
  assert.equal(await page('docs/commands.md'), await commandsPage());
});

test('every page that names the servers which this release is for names the same', async () => {
  const said = `Postgres ${OLDEST_POSTGRES} to ${NEWEST_POSTGRES} with PostGIS ${OLDEST_POSTGIS} or newer`;
  for (const name of ['.env.example', 'docs/coolify.md', ...PAGES.filter((name) => name !== 'CHANGELOG.md')]) {
    const text = await page(name);
    const named = text.match(/Postgres \d+ to \d+( with PostGIS \d\.\d or newer)?/g) ?? [];
    assert.deepEqual(
      named.filter((one) => !said.startsWith(one)),
      [],
      name,
    );
    if (['.env.example', 'docs/coolify.md'].includes(name)) assert.ok(text.includes(said), name);
  }
});

test('docs/privileges.md names every role that a migration makes', async () => {
  const made =
    /array\['(tickets_reader'[^\]]+)'\]/.exec(await page('migrations/grants.sql'))?.[1]?.split(/', *'|'/) ?? [];
  const named = [...(await page('docs/privileges.md')).matchAll(/^create role (tickets_\w+);/gm)].map(
    ([, role]) => role,
  );
  assert.ok(made.length > 3);
  assert.deepEqual(named, made.filter(Boolean));
});

test('docs/coolify.md names settings and commands that there are, and tells of the image what its Dockerfile says', async () => {
  const guide = await page('docs/coolify.md');
  const settings = Object.values(SETTINGS).flatMap((group) => Object.keys(group.shape));
  for (const [, name = ''] of guide.matchAll(/`([A-Z][A-Z0-9]*_[A-Z0-9_]+)`/g))
    assert.ok(['NODE_ENV', ...settings].includes(name), name);
  for (const [, name = ''] of guide.matchAll(/fleettickets ([a-z]+)/g))
    assert.ok(name in COMMANDS || name === 'login', name);
  assert.match(guide, /Literal.*`\$`/, 'a value that holds a $');
  const dockerfile = await page('Dockerfile');
  assert.doesNotMatch(dockerfile, /^(EXPOSE|VOLUME)/m, 'it serves no port, keeps no file');
  const [, start, interval, retries] = /--start-period=(\d+)s --interval=(\d+)s --retries=(\d+)/.exec(dockerfile) ?? [];
  assert.deepEqual(
    [`waits ${start} s`, `every ${interval} s`, retries].map((told) => guide.includes(told ?? '') || told),
    [true, true, '10'],
    'it asks ten times',
  );
  assert.match(dockerfile, /^CMD \["fleettickets", "worker", "--migrate"\]$/m, 'the container migrates when it starts');
  assert.match(await page('crontab'), /^15 4-16 \* \* \* fetch_snapshot/m, 'hourly, 07:15–19:15 in Nairobi');
  for (const [, anchor = ''] of guide.matchAll(/\]\(#([a-z-]+)\)/g))
    assert.ok(
      [...guide.matchAll(/^## (.*)$/gm)].some(([, title = '']) => title.toLowerCase().replaceAll(' ', '-') === anchor),
      anchor,
    );
});

for (const name of PAGES) {
  test(`the links of ${name} lead somewhere`, async () => {
    const base = new URL(name, ROOT);
    for (const [, target = ''] of (await page(name)).matchAll(/\]\(([^)#:]+)(?:#[^)]*)?\)/g))
      await access(new URL(target, base));
  });
}

test('the files that the documentation names exist', async () => {
  const fixtures = await readdir(new URL('migrations/fixtures/', ROOT), { recursive: true });
  for (const [name, text] of texts) {
    if (name === 'CHANGELOG.md') continue; // tells of files that are gone
    const prose = text.replace(/^```[\s\S]*?^```/gm, '');
    for (const [, file = ''] of prose.matchAll(/`((?:src|tasks|test|demo|bench|migrations|docs|ops)\/[\w./-]+)`/g))
      await access(new URL(file, ROOT)).catch(() => assert.fail(`${name} names ${file}`));
    for (const [, file = ''] of prose.matchAll(/`((?!migrations\/)[\w-]+(?:\/[\w-]+)?\.sql)`/g))
      assert.ok(fixtures.includes(file), `${name} names ${file}`);
  }
});

describe('the SQL and the commands shown run on a loaded database', () => {
  let env: Environment;
  before(async () => {
    env = await startEnvironment();
    for (const snapshot of feed({ seed: 3, hours: 1, tickets: 60 })) {
      await env.putObject(`automations/inc/${snapshot.name}`, snapshot.csv);
    }
    await env.pool.query(`select graphile_worker.add_job('fetch_snapshot', '{}')`);
    assert.deepEqual(await env.runJobs(), []);
  });
  after(() => env.close());

  for (const name of PAGES) {
    for (const command of commands(texts.get(name) ?? '')) {
      test(`${name}: ${command}`, async () => {
        const { stdout } = await promisify(execFile)('sh', ['-c', command], { cwd: fileURLToPath(ROOT) });
        assert.ok(stdout.length > 0);
      });
    }
  }

  for (const name of PAGES) {
    test(name, async () => {
      for (const { line, sql } of sqlBlocks(await page(name))) {
        const client = await env.pool.connect();
        try {
          await client.query('begin');
          await client.query(sql).catch((error: Error) => assert.fail(`${name}:${line}: ${error.message}\n${sql}`));
        } finally {
          // Statements that change something are shown too: each block leaves the database as it was.
          await client.query('rollback');
          client.release();
        }
      }
    });
  }
});
