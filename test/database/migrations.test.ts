import assert from 'node:assert/strict';
import { readdir, readFile } from 'node:fs/promises';
import { basename } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { transaction } from '../../src/database/client.ts';
import { definitions, fixtures } from '../support/definitions.ts';
import { type Environment, startEnvironment } from '../support/environment.ts';

const COMMITTED = fileURLToPath(new URL('../../migrations/committed', import.meta.url));
const SCHEMAS = ['tickets', 'tickets_ops', 'reporting'];
const NOT_INCLUDED = 'a fixture was changed and no migration includes it: see "Changing the schema" in CONTRIBUTING.md';

const files = await fixtures();
const committed = await Promise.all(
  (await readdir(COMMITTED)).sort().map((file) => readFile(`${COMMITTED}/${file}`, 'utf8')),
);

describe('the SQL sources in migrations/fixtures', () => {
  let env: Environment;
  before(async () => {
    env = await startEnvironment();
  });
  after(() => env.close());

  test('are what the migrated database holds: applied again, they change no function, aggregate, view or comment', async () => {
    const client = await env.pool.connect();
    try {
      const held = await definitions(client, SCHEMAS);
      await transaction(client, async () => {
        for (const [file, sql] of files) if (!file.startsWith('takeover/')) await client.query(sql);
      });
      const applied = await definitions(client, SCHEMAS);
      assert.deepEqual([...applied.keys()], [...held.keys()], NOT_INCLUDED);
      for (const [name, definition] of applied)
        assert.deepEqual(definition, held.get(name), `${name}: ${NOT_INCLUDED}`);
    } finally {
      client.release();
    }
  });

  test('hold every function, aggregate and view of our schemas in exactly one place', async () => {
    const made = [...files].flatMap(([, sql]) =>
      [...sql.matchAll(/^ *create (?:or replace )?(?:function|aggregate|view) ([a-z0-9_.]+)/gm)].map(
        ([, name]) => name ?? '',
      ),
    );
    const ours = made.filter((name) => !name.startsWith('tickets_takeover.')).sort();
    const held = [...(await definitions(env.pool as never, SCHEMAS))].flatMap(([name, found]) => found.map(() => name));
    assert.deepEqual(ours, held.sort());
  });

  test('alone make functions, aggregates and views: what a migration has beside them makes none', () => {
    const between = committed.join('\n').replace(/^--! Included (\S+)$[\s\S]*?^--! EndIncluded \1$/gm, '');
    assert.doesNotMatch(between, /^\s*create (or replace )?(function|aggregate|view|procedure)/m);
  });

  test('keep no typed column from being added to a table of ours', async () => {
    const { rows } = await env.pool.query<{ name: string }>(
      `select format('%I.%I', nspname, relname) as name from pg_class c join pg_namespace n on n.oid = c.relnamespace
       where relkind = 'r' and nspname in ('tickets', 'tickets_ops')`,
    );
    assert.ok(rows.length > 30);
    const client = await env.pool.connect();
    try {
      for (const { name } of rows) {
        await client.query('begin');
        await client.query(`alter table ${name} add column one_more_column text generated always as ('') stored`);
        await client.query('rollback');
      }
    } finally {
      client.release();
    }
  });

  test('name the schema of graphile-worker in one file only', () => {
    const parts = [...committed.join('\n').matchAll(/^--! Included (\S+)$[\s\S]*?^--! EndIncluded \1$/gm)];
    const naming = parts.filter(([part]) => part.includes(':WORKER_SCHEMA')).map(([, file]) => basename(file ?? ''));
    assert.deepEqual([...new Set(naming)], ['worker-schema.sql']);
    assert.doesNotMatch(committed.join('\n').replaceAll(/^--.*$/gm, ''), /graphile_worker/);
  });
});
