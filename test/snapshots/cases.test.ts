/** The files of test/data/cases, each an hour after a good one: what becomes of it, and what health says. */
import assert from 'node:assert/strict';
import { readdir, readFile } from 'node:fs/promises';
import { after, before, test } from 'node:test';
import { type Environment, startEnvironment } from '../support/environment.ts';
import { fetchNow, keyOf } from '../support/pipeline.ts';

const FOLDER = new URL('../data/cases/', import.meta.url);

/** By file: the status; a line of health, or of the ledger's error; and by how many the open tickets grow. */
const EXPECTED: Record<string, [status: string, said: RegExp | null, opened: number]> = {
  'crcrlf.csv': ['done', null, 0],
  'dates-excel.csv': ['done', /^Warning: .*is odd: .*created_at_service/, 0],
  'good.csv': ['unchanged', null, 0],
  'gzip.csv': ['failed', /gzip/i, 0],
  'header-only.csv': ['failed', /It has a header and no rows/, 0],
  'json-200.csv': ['failed', /JSON/, 0],
  'no-is-actionable.csv': ['held', /^Fault: .*is held: .*is_actionable/, 0],
  'trailing-comma.csv': ['failed', /None of its \d+ rows can be loaded: \d+ fields where the header has \d+/, 0],
  'unclosed-dashed.csv': ['done', /rejected/, 9],
  'utf16le.csv': ['failed', /UTF-16/, 0],
  'zero-width-id.csv': ['done', null, 1],
};

let env: Environment;
before(async () => {
  env = await startEnvironment();
});
after(() => env.close());

test('each file of the folder has its expectation', async () => {
  assert.deepEqual((await readdir(FOLDER)).sort(), Object.keys(EXPECTED).sort());
});

for (const [file, [status, said, opened]] of Object.entries(EXPECTED)) {
  test(`${file} is ${status}`, async () => {
    await env.reset();
    await env.putObject(keyOf(7), await readFile(new URL('good.csv', FOLDER)));
    assert.deepEqual(await fetchNow(env), []);
    const open = async () =>
      (await env.pool.query('select count(*)::int as open from tickets.inc where is_actionable')).rows[0]
        .open as number;
    const before = await open();
    assert.ok(before > 0);
    await env.putObject(keyOf(8), await readFile(new URL(file, FOLDER)));
    await fetchNow(env);
    const { rows } = await env.pool.query(
      'select status, error, rows_read, rows_rejected from tickets_ops.snapshots where source_key = $1',
      [keyOf(8)],
    );
    const { rows: health } = await env.pool.query('select problems from tickets_ops.health');
    assert.equal(rows[0]?.status, status);
    const words: string[] = [...health[0].problems, rows[0]?.error ?? ''];
    if (said)
      assert.ok(
        words.some((line) => said.test(line)),
        JSON.stringify(words),
      );
    assert.equal((await open()) - before, opened);
  });
}
