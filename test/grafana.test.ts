/** ops/grafana/tickets.json: every panel's query runs, as Grafana would send it, and gives what its kind of panel needs. */
import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { after, before, describe, test } from 'node:test';
import { feed } from '../demo/feed.ts';
import { type Environment, startEnvironment } from './support/environment.ts';
import { fetchNow, PREFIX } from './support/pipeline.ts';

interface Panel {
  readonly title: string;
  readonly type: string;
  readonly description: string;
  readonly targets: readonly { readonly rawSql: string; readonly format: 'time_series' | 'table' }[];
}

const { panels } = JSON.parse(await readFile(new URL('../ops/grafana/tickets.json', import.meta.url), 'utf8')) as {
  panels: Panel[];
};

describe('the Grafana dashboard', () => {
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

  for (const { title, description, targets } of panels) {
    test(title, async () => {
      assert.ok(description.length > 0);
      for (const { rawSql, format } of targets) {
        const sql = rawSql
          .replaceAll('$__timeFrom()', `'${new Date(Date.now() - 60 * 86_400_000).toISOString()}'`)
          .replaceAll('$__timeTo()', `'${new Date().toISOString()}'`);
        assert.doesNotMatch(sql, /\$/, 'a macro that is not replaced');
        const { rows, fields } = await env.pool.query(sql);
        assert.ok(rows.length > 0);
        if (format === 'time_series') {
          assert.equal(fields[0]?.name, 'time');
          assert.ok(rows.every(({ time }) => time instanceof Date));
          assert.ok(
            rows.some((row) => fields.slice(1).some(({ name }) => row[name] !== null)),
            'nothing but NULL',
          );
        }
      }
    });
  }
});
