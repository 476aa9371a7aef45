/** ops/grafana/*.json: every panel's query runs, as Grafana would send it and with the rights that the docs give it, and gives what its panel needs. */
import assert from 'node:assert/strict';
import { readdir, readFile } from 'node:fs/promises';
import { after, before, describe, test } from 'node:test';
import { feed } from '../../demo/feed.ts';
import { type Environment, startEnvironment } from '../support/environment.ts';
import { fetchNow, PREFIX } from '../support/pipeline.ts';

interface Panel {
  readonly title: string;
  readonly type: string;
  readonly description: string;
  readonly targets: readonly { readonly rawSql: string; readonly format: 'time_series' | 'table' }[];
}

/** What the user of each dashboard's data source may do: docs/analytics.md, docs/monitoring.md. */
const GRANTS: Record<string, string> = {
  'tickets.json': 'grant tickets_reader to grafana',
  'operations.json': 'grant tickets_monitor to grafana; grant select on tickets_ops.snapshots to grafana',
};
const FOLDER = new URL('../../ops/grafana/', import.meta.url);
const dashboards = await Promise.all(
  (await readdir(FOLDER)).map(async (name) => {
    const { uid, panels } = JSON.parse(await readFile(new URL(name, FOLDER), 'utf8')) as {
      uid: string;
      panels: Panel[];
    };
    return { name, uid, panels };
  }),
);

describe('the Grafana dashboards', () => {
  let env: Environment;
  before(async () => {
    env = await startEnvironment();
    const start = new Date(Math.floor(Date.now() / 3_600_000) * 3_600_000 - 2 * 3_600_000);
    for (const { name, csv } of feed({ seed: 5, hours: 3, tickets: 400, start })) {
      await env.putObject(PREFIX + name, csv);
      assert.deepEqual(await fetchNow(env), []);
    }
  });
  after(() => env.close());

  /** As the data source's user, who is gone afterwards. */
  async function ask(grants: string, sql: string) {
    const client = await env.pool.connect();
    try {
      await client.query(`begin; create role grafana; ${grants}; set local role grafana`);
      return await client.query(sql);
    } finally {
      await client.query('rollback');
      client.release();
    }
  }

  test('have names of their own', () => {
    assert.equal(new Set(dashboards.map(({ uid }) => uid)).size, dashboards.length);
  });

  for (const { name, panels } of dashboards) {
    for (const { title, description, targets } of panels) {
      test(`${name}: ${title}`, async () => {
        assert.ok(description.length > 0);
        for (const { rawSql, format } of targets) {
          const sql = rawSql
            .replaceAll('$__timeFrom()', `'${new Date(Date.now() - 60 * 86_400_000).toISOString()}'`)
            .replaceAll('$__timeTo()', `'${new Date().toISOString()}'`);
          assert.doesNotMatch(sql, /\$/, 'a macro that is not replaced');
          const { rows, fields } = await ask(GRANTS[name] ?? '', sql);
          assert.ok(rows.length > 0);
          if (format === 'time_series') {
            assert.equal(fields[0]?.name, 'time');
            assert.ok(rows.every(({ time }) => time instanceof Date));
            assert.ok(
              rows.some((row) => fields.slice(1).some(({ name: column }) => row[column] !== null)),
              'nothing but NULL',
            );
          }
        }
      });
    }
  }
});
