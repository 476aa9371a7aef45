/** Feeds of changes (INC_FEED=changes): each file is needed, in its order. */
import assert from 'node:assert/strict';
import { after, afterEach, before, beforeEach, describe, test } from 'node:test';
import { planChanges } from '../../src/bucket/changes.ts';
import { snapshotFiles, timeInName, versionOf } from '../../src/bucket/files.ts';
import type { Knowledge, LedgerStatus, Mode } from '../../src/bucket/plan.ts';
import { type Environment, startEnvironment } from '../support/environment.ts';
import { versionOfStatus } from '../support/ledger.ts';
import { csvOf, DATASET, fetchNow, keyOf, ledger, PREFIX, rawTickets, statuses, TICKETS } from '../support/pipeline.ts';

const FEED = `${DATASET.toUpperCase()}_FEED`;

const NOON = new Date('2026-06-15T12:00:00+03:00');
const at = (hour: number, etag = `etag-${hour}`) => {
  const key = keyOf(hour);
  return { key, etag, size: 100, lastModified: timeInName(key) ?? NOON };
};
const position = (hour: number) => ({ ...at(hour), snapshotAt: timeInName(keyOf(hour)) ?? NOON });

/** The plan in short, `load 9`, of files of these hours; a replaced one has another version. */
function planned(
  hours: readonly number[],
  {
    mark,
    blocker,
    mode = 'newest',
    replaced,
    ...known
  }: {
    mark?: number;
    blocker?: number;
    mode?: Mode;
    replaced?: number;
    statuses?: Record<number, LedgerStatus>;
    loadedEtag?: string;
  } = {},
): string[] {
  const knowledge: Knowledge = {
    now: NOON,
    feed: 'changes',
    unarchived: [],
    versions: new Map(
      Object.entries(known.statuses ?? {}).map(([hour, status]) => [
        versionOf(at(Number(hour))),
        versionOfStatus(status),
      ]),
    ),
    highWaterMark: mark === undefined ? null : position(mark),
    blocker: blocker === undefined ? null : position(blocker),
    loadedEtag: known.loadedEtag ?? null,
    held: null,
  };
  const listing = snapshotFiles(hours.map((hour) => at(hour, hour === replaced ? 'another' : undefined)));
  return planChanges(listing, knowledge, mode).map(
    ({ action, file }) => `${action} ${file.snapshotAt.getUTCHours() + 3}`,
  );
}

describe('the plan for changes', () => {
  test('takes the oldest, and passes nothing over', () => {
    assert.deepEqual(planned([]), []);
    assert.deepEqual(planned([8, 9, 10]), ['wait 9', 'wait 10', 'load 8']);
    assert.deepEqual(planned([8, 9, 10], { mark: 8, statuses: { 8: 'done' } }), ['archive 8', 'wait 10', 'load 9']);
  });

  test('has a file that came too late fail, and tells it from one that is only older than another', () => {
    assert.deepEqual(planned([8, 10], { mark: 9 }), ['refuse late 8', 'load 10']);
    assert.deepEqual(planned([8], { mark: 9, statuses: { 8: 'failed' } }), [], 'once');
  });

  test('stops behind a file that failed, until another version of it comes, or force', () => {
    for (const status of ['failed', 'held', 'partial'] as const) {
      const stopped = { mark: 8, blocker: 9, statuses: { 9: status } };
      assert.deepEqual(planned([9, 10, 11], stopped), ['wait 10', 'wait 11'], status);
      assert.deepEqual(planned([10, 11], stopped), ['wait 10', 'wait 11'], 'also when it is gone');
      assert.deepEqual(planned([9, 10], { ...stopped, replaced: 9 }), ['wait 10', 'load 9']);
      assert.deepEqual(planned([9, 10], { ...stopped, mode: 'force' }), ['wait 10', 'load 9']);
    }
    assert.deepEqual(
      planned([9, 10], { mark: 7, blocker: 10, statuses: { 10: 'failed' } }),
      ['load 9'],
      'not before it',
    );
    assert.deepEqual(
      planned([9, 10], { mark: 7, blocker: 10, mode: 'force', statuses: { 10: 'failed' } }),
      ['load 9'],
      'nor by force',
    );
    assert.deepEqual(
      planned([10, 11], { mark: 8, blocker: 9, mode: 'force', statuses: { 9: 'failed' } }),
      ['wait 10', 'wait 11'],
      'by force nothing is passed over for one that is gone',
    );
    assert.deepEqual(
      planned([9, 10, 11], { mark: 8, blocker: 10, mode: 'force', statuses: { 9: 'failed', 10: 'failed' } }),
      ['wait 11', 'load 10'],
      'by force one that was skipped is not read again',
    );
  });

  test('waits while one is in flight, and skips equal bytes', () => {
    assert.deepEqual(planned([8, 9], { statuses: { 8: 'loading' } }), ['wait 9']);
    assert.deepEqual(planned([9], { mark: 8, loadedEtag: 'etag-9' }), ['mark unchanged 9']);
  });

  test('by force loads the last one again when nothing waits', () => {
    assert.deepEqual(planned([9], { mark: 9, mode: 'force', statuses: { 9: 'done' } }), ['load 9']);
    assert.deepEqual(planned([9, 10, 11], { mark: 9, mode: 'force', statuses: { 9: 'done' } }), [
      'archive 9',
      'wait 11',
      'load 10',
    ]);
  });
});

describe('a feed of changes', () => {
  let env: Environment;
  before(async () => {
    env = await startEnvironment();
  });
  after(() => env.close());
  beforeEach(async () => {
    await env.reset();
    process.env[FEED] = 'changes';
  });
  afterEach(() => {
    delete process.env[FEED];
  });

  type Row = Record<string, string>;
  const ticket = (id: string, status: string): Row => ({
    ticket_id: id,
    is_actionable: String(status !== 'Closed'),
    normalized_status: status,
  });
  const put = (hour: number, ...rows: Row[]) => env.putObject(keyOf(hour), csvOf(rows));
  const BASELINE = Array.from({ length: 60 }, (_, n) => ticket(`WOT${n}`, 'Open'));
  const BROKEN = '<html>502 Bad Gateway</html>';
  const problems = async (): Promise<string[]> =>
    (
      await env.pool.query(
        `select problem from tickets_ops.list_problems() where subject = 'snapshots' and severity = 'fault'`,
      )
    ).rows.map(({ problem }) => problem);
  const statusOf = async (id: string) => (await rawTickets(env))[id]?.['normalized_status'];

  test('a baseline and three files of changes that lie there at once arrive in their order', async () => {
    await put(8, ...BASELINE);
    await put(9, ticket('WOT1', 'Assigned'), ticket('WOT100', 'Open'));
    await put(10, ticket('WOT1', 'Work in progress'));
    await put(11, ticket('WOT1', 'Closed'));
    assert.deepEqual(await fetchNow(env), []);
    assert.deepEqual(await statuses(env), [
      [8, 'done'],
      [9, 'done'],
      [10, 'done'],
      [11, 'done'],
    ]);
    const { rows } = await env.pool.query(
      `select array_agg(new_value order by event_id) as values from ${TICKETS}_events where ticket_id = 'WOT1' and event in ('opened', 'status_changed')`,
    );
    assert.deepEqual(rows[0].values, ['Open', 'Assigned', 'Work in progress', 'Closed']);
    assert.equal((await env.pool.query(`select from ${TICKETS}`)).rowCount, 61);
    assert.deepEqual([...new Set((await ledger(env)).map((entry) => entry.open_missing))], [null]);
    assert.deepEqual(
      (await env.listKeys(PREFIX)).filter((key) => !key.includes('processed/')),
      [],
    );
    assert.deepEqual(
      (await env.pool.query('select warnings from tickets_ops.snapshots')).rows,
      Array(4).fill({ warnings: [] }),
    );
  });

  test('an hour without changes, and one with the same bytes, are nothing to worry about', async () => {
    await put(8, ...BASELINE);
    await put(9, ticket('WOT1', 'Assigned'));
    await put(10, ticket('WOT1', 'Assigned'));
    await env.putObject(keyOf(11), 'ticket_id,is_actionable,normalized_status\n');
    assert.deepEqual(await fetchNow(env), []);
    assert.deepEqual(await statuses(env), [
      [8, 'done'],
      [9, 'done'],
      [10, 'unchanged'],
      [11, 'done'],
    ]);
    assert.deepEqual(await problems(), []);
  });

  test('a broken one stops those behind it, and health says so; a good one of its name goes on', async () => {
    await put(8, ...BASELINE);
    await env.putObject(keyOf(9), BROKEN);
    await put(10, ticket('WOT1', 'Closed'));
    await put(11, ticket('WOT2', 'Closed'));
    assert.deepEqual(await fetchNow(env), []);
    assert.deepEqual(await fetchNow(env), []);
    assert.deepEqual(await statuses(env), [
      [8, 'done'],
      [9, 'failed'],
    ]);
    const [problem = ''] = await problems();
    assert.match(problem, /T09-00-00\.csv failed, 2 later files wait: .*HTML.* Put a good file of that name/);
    assert.equal(
      (await env.pool.query(`select value from tickets_ops.metrics where name = 'fleettickets_files_waiting'`)).rows[0]
        .value,
      2,
    );
    await env.deleteObject(keyOf(9));
    await fetchNow(env);
    assert.equal(await statusOf('WOT1'), 'Open', 'its vanishing is no cure');
    await put(9, ticket('WOT1', 'Assigned'));
    assert.deepEqual(await fetchNow(env), []);
    assert.deepEqual((await statuses(env)).slice(2), [
      [9, 'done'],
      [10, 'done'],
      [11, 'done'],
    ]);
    assert.equal(await statusOf('WOT1'), 'Closed');
    assert.deepEqual(await problems(), []);
  });

  test('a person gives one up, and the ledger says who', async () => {
    await put(8, ...BASELINE);
    await env.putObject(keyOf(9), BROKEN);
    await put(10, ticket('WOT1', 'Closed'));
    await fetchNow(env);
    await assert.rejects(
      env.pool.query('select tickets_ops.skip_file($1)', [keyOf(10)]),
      /No file .*T10-00-00\.csv has failed/,
    );
    const { rows } = await env.pool.query('select tickets_ops.skip_file($1) as said', [keyOf(9)]);
    assert.match(rows[0].said, /T09-00-00\.csv is skipped: what it changes is lost/);
    assert.deepEqual(await env.runJobs(), []);
    assert.deepEqual(await statuses(env), [
      [8, 'done'],
      [9, 'failed'],
      [10, 'done'],
    ]);
    assert.match((await ledger(env))[1]?.error ?? '', /^Skipped by \w+, so what it changes is lost\. .*HTML/);
    assert.deepEqual(await problems(), []);
  });

  test('dismissed by its number it is given up as well, and the ledger says who', async () => {
    await put(8, ...BASELINE);
    await env.putObject(keyOf(9), BROKEN);
    await put(10, ticket('WOT1', 'Closed'));
    await fetchNow(env);
    for (let twice = 0; twice < 2; twice += 1)
      await env.pool.query(
        `select tickets_ops.dismiss_snapshot(snapshot_id) from tickets_ops.snapshots where status = 'failed'`,
      );
    assert.deepEqual(await fetchNow(env), []);
    assert.match((await ledger(env))[1]?.error ?? '', /^Dismissed by \w+\. (?!Dismissed).*HTML/);
    assert.deepEqual((await statuses(env)).at(-1), [10, 'done']);
  });

  test('one that was mended in vain is given up as a whole', async () => {
    await put(8, ...BASELINE);
    await env.putObject(keyOf(9), BROKEN);
    await put(10, ticket('WOT1', 'Closed'));
    await fetchNow(env);
    await env.putObject(keyOf(9), 'No such export\n');
    await fetchNow(env);
    assert.match((await problems()).join('\n'), /T09-00-00\.csv failed, 1 later file waits: (?!.*HTML)/);
    await env.pool.query('select tickets_ops.skip_file($1)', [keyOf(9)]);
    assert.deepEqual(await env.runJobs(), []);
    assert.deepEqual((await statuses(env)).at(-1), [10, 'done']);
    assert.deepEqual(await problems(), []);
  });

  test('one that failed and is gone from the folder stops those behind it all the same, by force too', async () => {
    await put(8, ...BASELINE);
    await env.putObject(keyOf(9), BROKEN);
    await put(10, ticket('WOT1', 'Assigned'));
    await put(11, ticket('WOT1', 'Closed'));
    await fetchNow(env);
    await env.deleteObject(keyOf(9));
    await fetchNow(env, { force: true });
    assert.deepEqual(await statuses(env), [
      [8, 'done'],
      [9, 'failed'],
    ]);
    await put(9, ticket('WOT1', 'In progress'));
    assert.deepEqual(await fetchNow(env), []);
    assert.deepEqual((await statuses(env)).slice(2), [
      [9, 'done'],
      [10, 'done'],
      [11, 'done'],
    ]);
  });

  test('an empty one is lost changes, and stops those behind it as well', async () => {
    await put(8, ...BASELINE);
    await env.putObject(keyOf(9), new Uint8Array());
    await put(10, ticket('WOT1', 'Closed'));
    await env.putObject(`${PREFIX}2026-06-15T07-00-00.csv.filepart`, 'WOT');
    await fetchNow(env);
    assert.match((await problems()).join('\n'), /^.*T09-00-00\.csv failed, 1 later file waits: The file is empty/);
    assert.equal(await statusOf('WOT1'), 'Open');
    await put(9, ticket('WOT1', 'Assigned'));
    assert.deepEqual(await fetchNow(env), []);
    assert.equal(await statusOf('WOT1'), 'Closed');
    assert.deepEqual(await problems(), []);
    // Neither one in the archive nor one whose time has not come is of the feed.
    await env.putObject(`${PREFIX}processed/2026-06-15T11-00-00.csv`, new Uint8Array());
    await env.putObject(`${PREFIX}2999-01-01T00-00-00.csv`, new Uint8Array());
    await put(12, ticket('WOT1', 'Open'));
    await fetchNow(env, { force: true });
    assert.equal(await statusOf('WOT1'), 'Open');
    assert.deepEqual(await problems(), []);
  });

  test('a held one stops those behind it until a person releases it, or dismisses it', async () => {
    const odd = BASELINE.map(({ ticket_id }) => ({ ticket_id: ticket_id as string, cluster: 'Nyali' })); // the flag is gone
    for (const decide of ['release', 'dismiss'] as const) {
      await env.reset();
      await put(8, ...BASELINE);
      await put(9, ...odd);
      await put(10, ticket('WOT1', 'Assigned'));
      assert.deepEqual(await fetchNow(env), []);
      assert.deepEqual(await fetchNow(env), []);
      assert.deepEqual(await statuses(env), [
        [8, 'done'],
        [9, 'held'],
      ]);
      assert.match((await problems()).join('\n'), /T09-00-00\.csv is held, 1 later file waits: /);
      await env.pool.query(
        `select tickets_ops.${decide}_snapshot(snapshot_id) from tickets_ops.snapshots where status = 'held'`,
      );
      assert.deepEqual(await env.runJobs(), []);
      assert.deepEqual(await fetchNow(env), []);
      assert.deepEqual(await statuses(env), [
        [8, 'done'],
        [9, decide === 'release' ? 'done' : 'failed'],
        [10, 'done'],
      ]);
      assert.equal(await statusOf('WOT1'), 'Assigned');
      assert.equal((await rawTickets(env))['WOT2']?.['cluster'], decide === 'release' ? 'Nyali' : undefined);
    }
  });

  test('by force the file that failed is read again, and nothing is passed over', async () => {
    await put(8, ...BASELINE);
    await put(9, ticket('WOT1', 'Assigned'));
    await put(10, ticket('WOT1', 'Closed'));
    await env.pool.query(
      `create function public.refuse() returns trigger language plpgsql as $$ begin raise 'The disk is on fire' using errcode = 'XX000'; end $$;
       create trigger refuse before update on ${TICKETS} for each row execute function public.refuse()`,
    );
    await fetchNow(env);
    await env.pool.query(
      'update graphile_worker._private_jobs set attempts = max_attempts - 1, run_at = now() where attempts > 0',
    );
    await env.runJobs();
    await env.pool.query('drop function public.refuse() cascade');
    assert.deepEqual(await statuses(env), [
      [8, 'done'],
      [9, 'failed'],
    ]);
    await fetchNow(env, { force: true });
    await fetchNow(env);
    assert.deepEqual((await statuses(env)).slice(2), [
      [9, 'done'],
      [10, 'done'],
    ]);
    assert.equal(await statusOf('WOT1'), 'Closed');
  });

  test('one that came too late is failed with that reason, not dropped, and stops nobody', async () => {
    await put(8, ...BASELINE);
    await put(10, ticket('WOT1', 'Closed'));
    await fetchNow(env);
    await put(9, ticket('WOT1', 'Assigned'));
    await put(11, ticket('WOT2', 'Closed'));
    assert.deepEqual(await fetchNow(env), []);
    assert.deepEqual(await statuses(env), [
      [8, 'done'],
      [10, 'done'],
      [9, 'failed'],
      [11, 'done'],
    ]);
    assert.match(
      (await problems()).join('\n'),
      /T09-00-00\.csv came too late: .*T10-00-00\.csv is loaded, and is newer/,
    );
    assert.equal(await statusOf('WOT1'), 'Closed');
    await env.pool.query('select tickets_ops.skip_file($1)', [keyOf(9)]);
    await env.runJobs();
    assert.deepEqual(await problems(), []);
  });

  test('one that breaks off stops those behind it, until a whole one of its name comes', async () => {
    await put(8, ...BASELINE);
    await env.putObject(
      keyOf(9),
      'ticket_id,is_actionable,normalized_status\nWOT1,true,Assigned\nWOT2,true,"never closed\n',
    );
    await put(10, ticket('WOT1', 'Closed'));
    await fetchNow(env);
    assert.deepEqual(await statuses(env), [
      [8, 'done'],
      [9, 'partial'],
    ]);
    assert.match((await problems()).join('\n'), /T09-00-00\.csv is loaded only in part, 1 later file waits: /);
    await put(9, ticket('WOT1', 'Assigned'), ticket('WOT2', 'Closed'));
    assert.deepEqual(await fetchNow(env), []);
    assert.deepEqual((await statuses(env)).slice(2), [
      [9, 'done'],
      [10, 'done'],
    ]);
  });

  test('a process without the setting goes by what is recorded, and supersedes nothing', async () => {
    await put(8, ...BASELINE);
    await fetchNow(env);
    delete process.env[FEED];
    await put(9, ticket('WOT1', 'Assigned'));
    await put(10, ticket('WOT2', 'Assigned'));
    assert.deepEqual(await fetchNow(env), []);
    assert.deepEqual(await statuses(env), [
      [8, 'done'],
      [9, 'done'],
      [10, 'done'],
    ]);
  });

  test('what a run by hand was told is forgotten when it ends, while a worker that runs says otherwise', async () => {
    await env.pool.query(
      `insert into tickets_ops.workers (pool_id, host, pid, sessions, stopped_at)
       values ('worker', 'here', 1, 'worker', null), ('by hand', 'here', 2, 'by hand', now())`,
    );
    const record = (pool: string, feed: string) =>
      env.pool.query('select tickets_ops.record_settings($1, $2)', [pool, JSON.stringify({ [FEED]: feed })]);
    const feed = async () => (await env.pool.query('select tickets_ops.feed($1)', [DATASET])).rows[0].feed;
    await record('worker', 'changes');
    await record('by hand', 'snapshots');
    assert.equal(await feed(), 'changes');
    // Nor does it count when no worker runs, or one that was not told: the worker was heard of last.
    await env.pool.query(
      `update tickets_ops.workers set stopped_at = now() + interval '1 hour', seen_at = now() + interval '1 hour' where pool_id = 'worker'`,
    );
    assert.equal(await feed(), 'changes');
  });

  test('a hundred files in one go', async () => {
    await put(1, ...BASELINE);
    for (let n = 0; n < 99; n += 1) {
      const minute = `${String(2 + Math.floor(n / 60)).padStart(2, '0')}-${String(n % 60).padStart(2, '0')}`;
      await env.putObject(`${PREFIX}2026-06-15T${minute}-00.csv`, csvOf([ticket('WOT1', `Status ${n}`)]));
    }
    assert.deepEqual(await fetchNow(env), []);
    const all = await ledger(env);
    assert.deepEqual([all.length, new Set(all.map(({ status }) => status))], [100, new Set(['done'])]);
    assert.deepEqual(
      all.map(({ file }) => file),
      all.map(({ file }) => file).toSorted(),
    );
    assert.equal(await statusOf('WOT1'), 'Status 98');
  });
});

describe('a feed of snapshots', () => {
  let env: Environment;
  before(async () => {
    env = await startEnvironment();
  });
  after(() => env.close());

  test('says of a file that has few rows what it may be', async () => {
    const rows = Array.from({ length: 60 }, (_, n) => ({
      ticket_id: `WOT${n}`,
      is_actionable: 'true',
      normalized_status: 'Open',
    }));
    await env.putObject(keyOf(8), csvOf(rows));
    await fetchNow(env);
    await env.putObject(keyOf(9), csvOf(rows.slice(0, 3).map((row) => ({ ...row, normalized_status: 'Assigned' }))));
    await fetchNow(env);
    const { rows: found } = await env.pool.query(
      `select warnings from tickets_ops.snapshots order by snapshot_id desc limit 1`,
    );
    assert.match(
      found[0].warnings.join('\n'),
      /It has 3 rows, 5\.0 % of the 60 of the last load\. It looks like a file of changes: (INC|CRQ)_FEED\?/,
    );
  });
});
