/** A look at the bucket that a person asks for. */
import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { after, before, beforeEach, describe, test } from 'node:test';
import { type Environment, startEnvironment } from '../support/environment.ts';
import { first, operations } from '../support/operations.ts';

let env: Environment;
before(async () => {
  env = await startEnvironment();
});
after(() => env.close());
beforeEach(() => env.reset());

const { one, jobs, snapshots, load } = operations(() => env);

describe('fetch_now', () => {
  test('looks at the bucket; by force it loads again what is archived', async () => {
    await load(first);
    assert.deepEqual(
      (await snapshots()).map(({ status }) => status),
      ['done'],
    );
    await one('select * from tickets_ops.fetch_now()');
    await env.runJobs();
    assert.equal((await snapshots()).length, 1);
    await one(`select * from tickets_ops.fetch_now('inc', true)`);
    await env.runJobs();
    assert.deepEqual(
      (await snapshots()).map(({ status }) => status),
      ['done', 'done'],
    );
  });

  test('asked twice it says so, and is one job: the one of the schedule', async () => {
    const asked = await one('select job_key, already_waiting from tickets_ops.fetch_now()');
    assert.deepEqual(asked, { job_key: 'fetch_snapshot:inc:newest', already_waiting: false });
    assert.match(
      await readFile(new URL('../../crontab', import.meta.url), 'utf8'),
      /fetch_snapshot \?id=fetch_inc.*jobKey=fetch_snapshot:inc:newest /,
    );
    const again = await one<{ note: string }>('select already_waiting, note from tickets_ops.fetch_now()');
    assert.deepEqual(again, {
      already_waiting: true,
      note: 'It waited already, and is due now. But no worker is alive.',
    });
    assert.equal((await jobs()).length, 1);
  });

  test('another dataset is refused, whatever its name holds', async () => {
    for (const name of ['INC', '', null, `inc'; drop table tickets.inc; --`]) {
      await assert.rejects(one('select * from tickets_ops.fetch_now($1)', [name]), /There is no dataset/);
    }
    assert.deepEqual(await jobs(), []);
  });
});
