import assert from 'node:assert/strict';
import { mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, test } from 'node:test';
import type { z } from 'zod';
import { dataset } from '../../src/settings/dataset.ts';
import { loadDotEnv } from '../../src/settings/dot-env.ts';
import {
  BucketSettings,
  DatabaseSettings,
  JobSchemaSettings,
  readSettings,
  requireSettings,
  SETTINGS,
  SettingsError,
  WorkerSettings,
} from '../../src/settings/settings.ts';

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

  test('blanks around a value are no part of it, nothing but blanks is none, and quotes are refused', () => {
    const env = {
      RUSTFS_ENDPOINT: ' http://rustfs:9000\n',
      RUSTFS_ACCESS_KEY: '\ta ',
      RUSTFS_SECRET_KEY: 'b\r',
      RUSTFS_BUCKET: '  ',
    };
    const { RUSTFS_ENDPOINT, RUSTFS_ACCESS_KEY, RUSTFS_SECRET_KEY, RUSTFS_BUCKET } = readSettings(BucketSettings, env);
    assert.deepEqual(
      [RUSTFS_ENDPOINT, RUSTFS_ACCESS_KEY, RUSTFS_SECRET_KEY, RUSTFS_BUCKET],
      ['http://rustfs:9000', 'a', 'b', 'tickets'],
    );
    const message = refused(BucketSettings, {
      RUSTFS_ENDPOINT: '"http://rustfs:9000"',
      RUSTFS_ACCESS_KEY: 'a',
      RUSTFS_SECRET_KEY: "'topsecret'",
    });
    assert.match(message, /RUSTFS_ENDPOINT: stands in quotes, which are taken as a part of it: leave them out\./);
    assert.match(message, /RUSTFS_SECRET_KEY: stands in quotes/);
    assert.doesNotMatch(message, /topsecret|must be an http/);
    const quotedUrl = { DATABASE_URL: '"postgres://u:topsecret@h/db"' };
    assert.match(refused(DatabaseSettings, quotedUrl), /DATABASE_URL: stands in quotes/);
  });

  test('what cannot be right is refused before any work begins, each by its name', () => {
    const right = {
      DATABASE_URL: 'postgres://u@h/db',
      RUSTFS_ENDPOINT: 'http://rustfs:9000',
      RUSTFS_ACCESS_KEY: 'a',
      RUSTFS_SECRET_KEY: 'b',
    };
    assert.doesNotThrow(() => requireSettings(right));
    for (const [wrong, reason] of [
      [{ RUSTFS_ENDPOINT: 'http://u:p@rustfs:9000' }, /RUSTFS_ENDPOINT: must not hold a user/],
      [{ RUSTFS_ENDPOINT: 'http://rustfs:9000/?a=b' }, /RUSTFS_ENDPOINT: must not hold/],
      [{ GEOCODER_BASE_URL: 'http://nominatim?key=x' }, /GEOCODER_BASE_URL: must not hold/],
      [{ GEOCODER_DAILY_BUDGET: '3000000000' }, /GEOCODER_DAILY_BUDGET: must be at most/],
      [{ GEOCODER_RATE_PER_SECOND: '0,5' }, /GEOCODER_RATE_PER_SECOND: must be a number/],
      [{ GEOCODER_FOUND_DAYS: 'ever' }, /GEOCODER_FOUND_DAYS: must be a number of days/],
      [{ CRQ_PREFIX: 'automations/inc/' }, /CRQ_PREFIX.*RUSTFS_PREFIX.* are one/],
      [{ CRQ_PREFIX: 'automations/inc/processed/' }, /Each dataset needs a folder of its own/],
      [{ CRQ_PREFIX: 'automations/', RUSTFS_PREFIX: 'automations/processed/' }, /a folder of its own/],
      [{ CRQ_ENABLED: 'true', RUSTFS_PREFIX: 'crq/' }, /a folder of its own/],
    ] as const)
      assert.throws(() => requireSettings({ ...right, ...wrong }), reason, JSON.stringify(wrong));
    assert.doesNotThrow(() => requireSettings({ ...right, RUSTFS_PREFIX: 'crq/' }), 'CRQ is off');
  });

  test('every one stands in .env.example, with its default', async () => {
    const example = await readFile(new URL('../../.env.example', import.meta.url), 'utf8');
    const values = new Map([...example.matchAll(/^(?:# )?([A-Z_]+)=(.*)$/gm)].map(([, name, value]) => [name, value]));
    for (const group of Object.values(SETTINGS)) {
      for (const [name, type] of Object.entries<z.ZodType>(group.shape)) {
        assert.ok(values.has(name), name);
        const standard = type.safeParse(undefined).data;
        if (standard !== undefined) assert.equal(values.get(name), String(standard), name);
      }
    }
  });

  test('.gmrc names the schema that jobs are in by default', async () => {
    const { afterReset, placeholders } = JSON.parse(await readFile(new URL('../../.gmrc', import.meta.url), 'utf8'));
    const { WORKER_SCHEMA } = readSettings(JobSchemaSettings, {});
    assert.equal(placeholders[':WORKER_SCHEMA'], WORKER_SCHEMA);
    assert.ok(afterReset[1].command.includes(`--schema ${WORKER_SCHEMA} `));
  });

  test("a dataset's folder is a setting, and CRQ's lies beside INC's", (t) => {
    t.after(() => delete process.env.RUSTFS_PREFIX);
    assert.deepEqual([dataset('inc').prefix, dataset('crq').prefix], ['automations/inc/', 'automations/crq/']);
    process.env.RUSTFS_PREFIX = 'exports/tickets/';
    assert.deepEqual([dataset('inc').prefix, dataset('crq').prefix], ['exports/tickets/', 'exports/crq/']);
  });
});

describe('.env', () => {
  const home = process.cwd();
  let folder: string;
  beforeEach(async () => {
    folder = await mkdtemp(join(tmpdir(), 'fleettickets-dotenv-'));
    process.chdir(folder);
  });
  afterEach(async () => {
    process.chdir(home);
    for (const name of Object.keys(process.env)) if (name.startsWith('ZZ_')) delete process.env[name];
    await rm(folder, { recursive: true });
  });
  /** Loads what was written; returns what was warned of. */
  function load(): string[] {
    const warnings: string[] = [];
    loadDotEnv((warning) => warnings.push(warning));
    return warnings;
  }

  test('a value that ends before an unquoted # is warned about, and one that a comment follows is not', async () => {
    await writeFile(
      '.env',
      [
        'ZZ_A=pass#word',
        'export ZZ_B = x#y',
        'ZZ_C="pass#word"',
        "ZZ_D='a#b'",
        'ZZ_E=plain # a comment#',
        '# ZZ_F=a#b',
        'ZZ_G=#word',
        'ZZ_H="two',
        'ZZ_I=lines#" # a comment',
        '',
      ].join('\n'),
    );
    const warnings = load();
    assert.deepEqual(
      warnings.map((warning) => /the value of (\w+) ends/.exec(warning)?.[1]),
      ['ZZ_A', 'ZZ_B', 'ZZ_G'],
    );
    assert.ok(warnings.every((warning) => !warning.includes('word')));
    assert.equal(process.env['ZZ_C'], 'pass#word');
  });

  test('is read as its writer sees it: byte-order mark, CRLF, export, blanks, no line end; what is set already stays', async () => {
    process.env['ZZ_SET'] = 'set';
    await writeFile('.env', '\ufeffZZ_A=1\r\nexport ZZ_B = "2 3" \r\n  ZZ_C=4\r\nZZ_SET=file\r\nZZ_D=5');
    assert.deepEqual(load(), []);
    const { ZZ_A, ZZ_B, ZZ_C, ZZ_D, ZZ_SET } = process.env;
    assert.deepEqual([ZZ_A, ZZ_B, ZZ_C, ZZ_D, ZZ_SET], ['1', '2 3', '4', '5', 'set']);
  });

  test('a line that is no assignment, and a quote that nothing closes, are warned about', async () => {
    await writeFile('.env', 'ZZ_A: secret\nset ZZ_B=secret\n\nZZ_C="secret\nZZ_D=1\nZZ_E="x" secret\n');
    const warnings = load();
    assert.deepEqual(
      warnings.map((warning) => /line \d|value of \w+/.exec(warning)?.[0]),
      ['line 1', 'line 2', 'line 6'],
      'ZZ_C ends where ZZ_E begins its quote',
    );
    await writeFile('.env', 'ZZ_F="secret\n');
    assert.match(load().join(), /^\.env: the value of ZZ_F begins with a quote that nothing closes\.$/);
    assert.ok(warnings.every((warning) => !warning.includes('secret')));
  });

  test('what is no text is told in one line', async () => {
    assert.deepEqual(load(), [], 'none is needed');
    await writeFile('.env', Buffer.from('\ufeffZZ_A=1\n', 'utf16le'));
    assert.throws(load, { name: 'SettingsError', message: '.env is not in UTF-8: save it in that.' });
    await rm('.env');
    await mkdir('.env');
    assert.throws(load, { name: 'SettingsError', message: /^\.env is a folder/ });
  });
});
