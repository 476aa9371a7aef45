import assert from 'node:assert/strict';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import { dataset } from '../src/settings/dataset.ts';
import {
  BucketSettings,
  DatabaseSettings,
  loadDotEnv,
  readSettings,
  SETTINGS,
  SettingsError,
  WorkerSettings,
} from '../src/settings/settings.ts';

const refused = (group: (typeof SETTINGS)[keyof typeof SETTINGS], env: NodeJS.ProcessEnv): string => {
  try {
    readSettings(group, env);
  } catch (error) {
    assert.ok(error instanceof SettingsError);
    return error.message;
  }
  return assert.fail('accepted');
};

describe('settings', () => {
  test('have defaults where a default can be right', () => {
    const env = {
      RUSTFS_ENDPOINT: 'http://rustfs:9000',
      RUSTFS_ACCESS_KEY: 'a',
      RUSTFS_SECRET_KEY: 'b',
      RUSTFS_BUCKET: '',
    };
    assert.deepEqual(readSettings(BucketSettings, env), {
      RUSTFS_ENDPOINT: 'http://rustfs:9000',
      RUSTFS_REGION: 'us-east-1',
      RUSTFS_ACCESS_KEY: 'a',
      RUSTFS_SECRET_KEY: 'b',
      RUSTFS_BUCKET: 'tickets',
      RUSTFS_PREFIX: 'automations/inc/',
    });
    assert.deepEqual(readSettings(WorkerSettings, {}), { WORKER_CONCURRENCY: 2, LOG_LEVEL: 'info' });
  });

  test('an error names every variable that is missing, empty or wrong, with what it means, and no value', () => {
    const message = refused(BucketSettings, {
      RUSTFS_ENDPOINT: 'rustfs-9000',
      RUSTFS_SECRET_KEY: '',
      RUSTFS_PREFIX: '/automations/secret',
    });
    for (const part of [
      /RUSTFS_ENDPOINT: .*URL of the S3 server/,
      /RUSTFS_ACCESS_KEY: is not set\. S3 access key/,
      /RUSTFS_SECRET_KEY: is not set/,
      /RUSTFS_PREFIX: must end with a slash/,
      /\.env\.example/,
    ]) {
      assert.match(message, part);
    }
    assert.doesNotMatch(message, /rustfs-9000|automations\/secret/);
    assert.match(refused(DatabaseSettings, {}), /DATABASE_URL: is not set\. Postgres connection string/);
    assert.match(refused(DatabaseSettings, { DATABASE_URL: 'mysql://u:topsecret@h/db' }), /DATABASE_URL/);
    assert.doesNotMatch(refused(DatabaseSettings, { DATABASE_URL: 'mysql://u:topsecret@h/db' }), /topsecret/);
    assert.match(
      refused(WorkerSettings, { WORKER_CONCURRENCY: 'many', LOG_LEVEL: 'loud' }),
      /WORKER_CONCURRENCY(.|\n)*LOG_LEVEL/,
    );
  });

  test('every one stands in .env.example, with its default', async () => {
    const example = await readFile(new URL('../.env.example', import.meta.url), 'utf8');
    for (const group of Object.values(SETTINGS)) {
      for (const name of Object.keys(group.shape)) assert.match(example, new RegExp(`^#? ?${name}=`, 'm'), name);
    }
  });

  test("a dataset's folder is a setting, and CRQ's lies beside INC's", (t) => {
    t.after(() => delete process.env.RUSTFS_PREFIX);
    assert.deepEqual([dataset('inc').prefix, dataset('crq').prefix], ['automations/inc/', 'automations/crq/']);
    process.env.RUSTFS_PREFIX = 'exports/tickets/';
    assert.deepEqual([dataset('inc').prefix, dataset('crq').prefix], ['exports/tickets/', 'exports/crq/']);
  });
});

test('.env: a value that ends before an unquoted # is warned about, and one that a comment follows is not', async () => {
  const folder = await mkdtemp(join(tmpdir(), 'fleettickets-dotenv-'));
  const before = process.cwd();
  try {
    await writeFile(
      join(folder, '.env'),
      [
        'ZZ_A=pass#word',
        'export ZZ_B = x#y',
        'ZZ_C="pass#word"',
        "ZZ_D='a#b'",
        'ZZ_E=plain # a comment',
        '# ZZ_F=a#b',
        '',
      ].join('\n'),
    );
    process.chdir(folder);
    const warnings: string[] = [];
    loadDotEnv((warning) => warnings.push(warning));
    assert.deepEqual(
      warnings.map((warning) => /the value of (\w+) ends/.exec(warning)?.[1]),
      ['ZZ_A', 'ZZ_B'],
    );
    assert.ok(warnings.every((warning) => !warning.includes('word')));
    assert.equal(process.env['ZZ_C'], 'pass#word');
  } finally {
    process.chdir(before);
    for (const name of Object.keys(process.env)) if (name.startsWith('ZZ_')) delete process.env[name];
    await rm(folder, { recursive: true });
  }
});
