/** tickets_ops.health: what it says of the feed, the schedule and the work. */
import assert from 'node:assert/strict';
import { after, before, beforeEach, describe, test } from 'node:test';
import { recordSchedule } from '../../src/worker/schedule.ts';
import { type Environment, startEnvironment } from '../support/environment.ts';
import { first, operations, second } from '../support/operations.ts';
import { PREFIX } from '../support/pipeline.ts';
import { setBack } from '../support/rows.ts';

let env: Environment;
before(async () => {
  env = await startEnvironment();
});
after(() => env.close());
beforeEach(() => env.reset());

const { one, health, put, load, broken, faultsOf, liveWorker } = operations(() => env);

describe('tickets_ops.health', () => {
  test('tells what was checked and loaded, and which open tickets the newest file lacks', async () => {
    await load(first);
    await load(second);
    const found = await health();
    assert.equal(found['loaded_key'], `${PREFIX}${second.name}`);
    assert.equal(found['checked_status'], 'done');
    assert.equal(found['open_missing'], String(second.expected.open_missing));
    assert.deepEqual((found['data_at'] as Date).toISOString(), second.at.toISOString());
    assert.deepEqual(faultsOf(found), ['Fault: No worker is alive: start one (fleettickets worker).']);
    assert.equal(found.ok, false);
  });

  test('is well when a worker lives, and an unchanged hour is a success', async () => {
    await load(first);
    await env.putObject(`${PREFIX}${second.name}`, first.csv);
    await one('select * from tickets_ops.fetch_now()');
    await env.runJobs();
    await liveWorker();
    const found = await health();
    assert.deepEqual(faultsOf(found), []);
    assert.deepEqual([found.ok, found['workers_alive'], found['checked_status']], [true, '1', 'unchanged']);
    assert.deepEqual((found['data_at'] as Date).toISOString(), second.at.toISOString());
  });

  test('a run that was missed is named; a look makes up for it', async () => {
    await recordSchedule(env.pool);
    await setBack(env.pool, 'tickets_ops.schedule', 'since', '3 days');
    const { tick } = await one<{ tick: Date }>(
      `select tickets_ops.last_scheduled_run(now() - interval '30 minutes') as tick`,
    );
    assert.deepEqual((await health())['missed_run_at'], tick);
    assert.match(
      (await health()).problems.join('\n'),
      /Fault: The run of .* EAT was missed: nothing has looked at the bucket since the pipeline began/,
    );
    await one('select * from tickets_ops.fetch_now()');
    await env.runJobs();
    assert.equal((await health())['missed_run_at'], null);
    await env.pool.query(`update tickets_ops.looks set looked_at = $1::timestamptz - interval '1 minute'`, [tick]);
    assert.deepEqual((await health())['missed_run_at'], tick);
  });

  test('a file that broke off is a problem until a whole one comes', async () => {
    await env.putObject(`${PREFIX}${first.name}`, 'ticket_id,cluster\nWOT0000001,Kilimani\nWOT0000002,"never closed\n');
    await one('select * from tickets_ops.fetch_now()');
    await env.runJobs();
    assert.match((await health()).problems.join('\n'), /loaded only in part\. The file breaks off: .*line 3/);
    await load(second);
    assert.doesNotMatch((await health()).problems.join('\n'), /in part/);
  });

  test('work that stands still, and jobs that nobody takes', async () => {
    const repair = await broken('tickets.inc');
    await put(first);
    await env.pool.query('select tickets_ops.fetch_now()');
    await env.runJobs().finally(repair);
    await setBack(env.pool, 'tickets_ops.snapshots', 'progress_at', '20 minutes');
    await setBack(env.pool, 'graphile_worker._private_jobs', 'run_at', '20 minutes');
    const { problems } = await health();
    assert.match(problems.join('\n'), /Snapshot 1 is loading and has not moved for 00:20:0/);
    assert.match(problems.join('\n'), /A job has waited for a worker since/);
  });
});
