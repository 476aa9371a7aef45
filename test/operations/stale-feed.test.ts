/** Health is honest about the feed: a look that finds nothing is no proof of a living one. */
import assert from 'node:assert/strict';
import { after, before, beforeEach, describe, test } from 'node:test';
import { recordSchedule } from '../../src/worker/schedule.ts';
import { type Environment, startEnvironment } from '../support/environment.ts';
import { csvOf, fetchNow, PREFIX } from '../support/pipeline.ts';

const HOUR_MS = 3_600_000;

let env: Environment;
before(async () => {
  env = await startEnvironment();
});
after(() => env.close());
beforeEach(async () => {
  await env.reset();
  await recordSchedule(env.pool);
});

const sql = (text: string, values: unknown[] = []) => env.pool.query(text, values);
/** What health says of the feed. */
const problems = async (): Promise<string[]> => {
  const { rows } = await sql('select problems from tickets_ops.health');
  return rows[0].problems.filter((problem: string) => !problem.includes('No worker is alive'));
};
/** The name of a file so many hours ago, in Nairobi time. */
const nameOf = (hoursAgo: number) =>
  `${new Date(Date.now() + (3 - hoursAgo) * HOUR_MS).toISOString().slice(0, 19).replaceAll(':', '-')}.csv`;
const put = (
  hoursAgo: number,
  body = csvOf([{ ticket_id: 'WOT1', is_actionable: 'true', normalized_status: 'Open' }]),
) => env.putObject(PREFIX + nameOf(hoursAgo), body);
describe('the feed', () => {
  test('is alive after a fresh file', async () => {
    await put(0);
    assert.deepEqual(await fetchNow(env), []);
    assert.deepEqual(await problems(), []);
  });

  test('that stands still is named by the map too, and none that lives', async () => {
    const told = async () => {
      const { rows } = await sql(
        `select reporting.fn_tickets_for_map() -> 'summary' -> 'freshness' ->> 'problem' as map,
           reporting.fn_inc_dashboard() -> 'freshness' ->> 'problem' as dashboard`,
      );
      assert.equal(rows[0].map, rows[0].dashboard);
      return rows[0].map as string | null;
    };
    await fetchNow(env);
    assert.match((await told()) ?? '', /^The feed stands still: no look has ever found a file/);
    await put(0);
    await fetchNow(env);
    assert.equal(await told(), null);
    const age = (hours: number) =>
      sql(
        `update tickets.import_meta set metadata = metadata || jsonb_build_object('snapshot_at', now() - $1 * interval '1 hour')`,
        [hours],
      );
    await age(9 * 24);
    assert.match((await told()) ?? '', /^The feed stands still: the tickets are as of .* EAT, 216 hours ago/);
    await age(-2);
    assert.match((await told()) ?? '', /^A clock is wrong: /);
  });

  test('stands still when no new file came for three hours of scheduled time, and as long as the setting says', async () => {
    await put(0);
    await fetchNow(env);
    const { rows } = await sql(
      `select tick from generate_series(0, 47) h, tickets_ops.last_scheduled_run(now() - h * interval '1 hour') tick
       where extract(hour from tick at time zone 'Africa/Nairobi') = 12 order by tick desc limit 1`,
    );
    const noon: Date = rows[0].tick;
    for (const [newAt, lookedAt, still] of [
      [-3, 0, true], // 09:15 to 12:15
      [-1.9, 0, false],
      [-15, -5, false], // 21:15 of the evening before to 07:15: one run
      [-15, -3, true],
    ] as const) {
      await sql(
        `update tickets_ops.looks set new_file_at = $1::timestamptz + $2 * interval '1 hour', looked_at = $1::timestamptz + $3 * interval '1 hour'`,
        [noon, newAt, lookedAt],
      );
      const found = (await sql(`select problem from tickets_ops.feed_problems('inc')`)).rows.filter(({ problem }) =>
        problem.includes('no new file since'),
      );
      assert.equal(found.length > 0, still, `${newAt} to ${lookedAt}`);
    }
    await sql(`insert into tickets_ops.settings (name, pool_id, value) values ('FEED_STALE_HOURS', 'some pool', '1')`);
    await sql(`update tickets_ops.looks set new_file_at = $1::timestamptz - interval '2 hours', looked_at = $1`, [
      noon,
    ]);
    assert.match((await problems()).join('\n'), /Fault: The feed stands still: no new file since .* EAT, for 2 hours/);
  });

  test('stands still when its newest file is nine days old, although that was loaded just now', async () => {
    await put(9 * 24);
    assert.deepEqual(await fetchNow(env), []);
    assert.match(
      (await problems()).join('\n'),
      /Fault: The feed stands still: the tickets are as of .* EAT, 216 hours ago/,
    );
  });

  test('stands still when no look ever found a file: an empty folder, a wrong prefix', async () => {
    await env.putObject('automations/other/2026-06-15T07-00-00.csv', 'ticket_id\n');
    assert.deepEqual(await fetchNow(env), []);
    assert.match((await problems()).join('\n'), /no look has ever found a file.*check RUSTFS_PREFIX/);
    await env.putObject(`${PREFIX}export.xlsx`, 'PK');
    await fetchNow(env);
    assert.match((await problems()).join('\n'), /there are 1 objects that are no CSV/);
    assert.match(
      (await problems()).join('\n'),
      /Warning: .*export\.xlsx lies in the folder and is not loaded: It is no \.csv/,
    );
  });

  test('stands still when its files come and their content does not move, once a week of history says what is usual', async () => {
    const history = (days: number) =>
      sql(
        `insert into tickets_ops.snapshots (dataset, source_key, snapshot_at, status, load_began_at, content_through)
         select 'inc', 'old ' || h, now() - h * interval '1 hour', 'superseded', null, null from generate_series(1, $1 * 24) h`,
        [days],
      ).then(() =>
        sql(`alter table tickets_ops.snapshots disable trigger user;
             update tickets_ops.snapshots set status = 'done', content_through = date_trunc('day', snapshot_at - interval '30 hours')
             where source_key like 'old %';
             alter table tickets_ops.snapshots enable trigger user`),
      );
    const stand = async (hours: number) =>
      sql(
        `update tickets_ops.snapshots set content_through = snapshot_at - $1 * interval '1 hour' where source_key not like 'old %'`,
        [hours],
      );
    await put(0);
    await fetchNow(env);
    await history(5);
    await stand(200);
    assert.doesNotMatch((await problems()).join('\n'), /content/, 'five days are too few to judge by');
    await history(12);
    await stand(70);
    assert.doesNotMatch((await problems()).join('\n'), /content/, 'daily lumps are normal: 30 to 54 hours, and a day');
    await stand(80);
    assert.match(
      (await problems()).join('\n'),
      /Fault: The feed stands still: files come, but their content ends on .* 80 hours before the newest file; 5\d are usual/,
    );
  });

  test('a clock that is wrong is named instead of a negative age', async () => {
    await put(0);
    await fetchNow(env);
    await sql(
      `update tickets.import_meta set metadata = metadata || jsonb_build_object('snapshot_at', now() + interval '3 hours')`,
    );
    assert.match((await problems()).join('\n'), /Fault: A clock is wrong: .* EAT is ahead of the database's clock/);
  });

  test('a future-dated file is named while it lies there, keeps nothing red, and hides no failure', async () => {
    await put(0);
    await env.putObject(`${PREFIX}2062-06-15T09-00-00.csv`, 'ticket_id\n');
    await fetchNow(env);
    const { rows } = await sql('select checked_key, problems from tickets_ops.health');
    assert.match(rows[0].problems.join('\n'), /Warning: .*2062-06-15T09-00-00\.csv is future-dated/);
    assert.deepEqual(
      (await problems()).filter((problem) => problem.startsWith('Fault')),
      [],
    );
    await put(-0.1, '<html>502 Bad Gateway</html>');
    await fetchNow(env);
    assert.match((await problems()).join('\n'), /Fault: Snapshot \d+ .* failed: .*HTML/);
    await env.deleteObject(`${PREFIX}2062-06-15T09-00-00.csv`);
    await fetchNow(env);
    assert.doesNotMatch((await problems()).join('\n'), /2062/);
  });

  test('a failure is made up for by a file at its place or above, and by none below', async () => {
    await put(2);
    await fetchNow(env);
    await put(1, '<html>502 Bad Gateway</html>');
    await fetchNow(env);
    assert.match((await problems()).join('\n'), /Fault: Snapshot 2 .* failed/);
    await put(1.5);
    await fetchNow(env);
    assert.match((await problems()).join('\n'), /Fault: Snapshot 2 .* failed/, 'an older file is no cure');
    await put(0, csvOf([{ ticket_id: 'WOT2', is_actionable: 'true', normalized_status: 'Open' }]));
    await fetchNow(env);
    assert.deepEqual(await problems(), []);
  });

  test('a backfill goes on without a file that failed, and says which', async () => {
    await put(3);
    await fetchNow(env);
    await put(2, '<html>502 Bad Gateway</html>');
    await put(1, csvOf([{ ticket_id: 'WOT2', is_actionable: 'true', normalized_status: 'Open' }]));
    await put(0, csvOf([{ ticket_id: 'WOT3', is_actionable: 'true', normalized_status: 'Open' }]));
    assert.deepEqual(await fetchNow(env, { backfill: true }), []);
    const { rows } = await sql(`select status from tickets_ops.snapshots order by snapshot_id`);
    assert.deepEqual(
      rows.map(({ status }) => status),
      ['done', 'failed', 'done', 'done'],
    );
    assert.match(
      (await problems()).join('\n'),
      /Warning: Snapshot 2 .* part of a backfill, failed, and the backfill went on without it/,
    );
  });
});

/** Two files of one time, of which the ledger says that one failed and that the other was found unchanged. */
const ofOneTime = (failed: string, unchanged: string) =>
  sql(
    `insert into tickets_ops.snapshots (dataset, source_key, source_etag, source_last_modified, snapshot_at, status, error)
     select 'inc', f.key, f.key, t.at, t.at, f.status, f.error
     from (values ($1, 'failed', 'It is broken.'), ($2, 'unchanged', null)) as f (key, status, error),
       (select now() - interval '1 hour' as at) as t`,
    [failed, unchanged],
  );

describe('health and the ledger', () => {
  test('of two files of one time the later by the bytes of its key makes up for the other, whatever the collation', async () => {
    await ofOneTime('automations/inc/a.csv', 'automations/inc/B.csv');
    assert.match((await problems()).join('\n'), /a\.csv\) failed: It is broken/);
    await sql('truncate tickets_ops.snapshots cascade');
    await ofOneTime('automations/inc/B.csv', 'automations/inc/a.csv');
    assert.doesNotMatch((await problems()).join('\n'), /failed/);
  });

  test('a file that is no CSV, or future-dated, is no failure of the backfill that saw it', async () => {
    await put(1);
    await env.putObject(`${PREFIX}notes.txt`, 'to do');
    await env.putObject(`${PREFIX}2062-06-15T09-00-00.csv`, 'ticket_id\n');
    await fetchNow(env, { backfill: true });
    assert.match((await problems()).join('\n'), /notes\.txt lies in the folder and is not loaded/);
    assert.doesNotMatch((await problems()).join('\n'), /part of a backfill/);
  });
});

describe('settings that SQL goes by', () => {
  test('that differ between processes which run at the same time are a fault that names both', async () => {
    const worker = (pool: string, host: string, value: string) =>
      sql(
        `with w as (insert into tickets_ops.workers (pool_id, host, pid, sessions, shares_sessions) values ($1, $2, 1, 's', true))
         select tickets_ops.record_settings($1, jsonb_build_object('FEED_STALE_HOURS', $3::text))`,
        [pool, host, value],
      );
    await worker('one', 'host-a', '3');
    await worker('two', 'host-b', '3');
    assert.doesNotMatch((await problems()).join('\n'), /FEED_STALE_HOURS/);
    await worker('three', 'host-c', '5');
    assert.match(
      (await problems()).join('\n'),
      /Fault: FEED_STALE_HOURS differs between processes: 3 on host-a, 3 on host-b, 5 on host-c/,
    );
    const { rows } = await sql(`select tickets_ops.setting('FEED_STALE_HOURS') as value`);
    assert.equal(rows[0].value, '5');
  });
});
