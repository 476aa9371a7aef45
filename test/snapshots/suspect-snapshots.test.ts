/** A snapshot that is wrong as a whole: refused, held, or loaded with a warning; in the ledger, in health, and in the dry run. */
import assert from 'node:assert/strict';
import { after, afterEach, before, beforeEach, describe, test } from 'node:test';
import { gzipSync } from 'node:zlib';
import { openBucket } from '../../src/bucket/s3.ts';
import { withClient } from '../../src/database/client.ts';
import { dataset } from '../../src/settings/dataset.ts';
import { BucketSettings, readSettings } from '../../src/settings/settings.ts';
import { previewBucket } from '../../src/snapshots/preview.ts';
import { type Environment, startEnvironment } from '../support/environment.ts';
import {
  addFetch,
  csvOf,
  DATASET,
  fetchNow,
  importMeta,
  keyOf,
  ledger,
  PREFIX,
  rawTickets,
  runAgain,
  statuses,
  TICKETS,
} from '../support/pipeline.ts';
import { countRows } from '../support/rows.ts';

let env: Environment;
before(async () => {
  env = await startEnvironment();
});
after(() => env.close());
beforeEach(() => env.reset());
afterEach(() => {
  delete process.env.ON_SUSPECT_SNAPSHOT;
});

type Fields = Record<string, string>;
const record = (n: number, fields: Fields = {}): Fields => ({
  ticket_id: `WOT${String(n).padStart(7, '0')}`,
  normalized_status: 'open',
  is_actionable: 'true',
  is_alarm: 'false',
  cluster: 'Kilimani',
  created_at_service: '2026-06-15 10:00:00',
  closed_at: '',
  description: `d ${n}`,
  ...fields,
});
const CLOSED = { is_actionable: 'false', normalized_status: 'closed', closed_at: '2026-06-15 12:00:00' };
const records = (count: number, fields: (n: number) => Fields = () => ({})) =>
  Array.from({ length: count }, (_, n) => record(n, fields(n)));
const GOOD = csvOf(records(100));
/** Another row of no meaning, so that the bytes differ. */
const but = (csv: string, n = 900) => `${csv}${csvOf([record(n)]).split('\n')[1]}\n`;
/** Nine tenths of the open tickets close. */
const CLOSING = csvOf(records(100, (n) => (n < 90 ? CLOSED : {})));
const without = (column: string) => csvOf(records(100).map(({ [column]: _, ...others }) => others));
const lines = (csv: string, change: (line: string, n: number) => string) =>
  csv.trimEnd().split('\n').map(change).join('\n').concat('\n');

const put = (hour: number, body: string | Uint8Array) => env.putObject(keyOf(hour), body);
const load = async (hour: number, body: string | Uint8Array) => {
  await put(hour, body);
  assert.deepEqual(await fetchNow(env), []);
};
const one = async <T = Record<string, unknown>>(sql: string, values: unknown[] = []) =>
  (await env.pool.query(sql, values)).rows[0] as T;
const last = () =>
  one<{ snapshot_id: string; status: string; error: string | null; hold_reason: string | null; warnings: string[] }>(
    'select snapshot_id, status, error, hold_reason, warnings from tickets_ops.snapshots order by snapshot_id desc limit 1',
  );
/** What health says of snapshots, without what it says of the feed and the workers, of which there is none here. */
const problems = async () =>
  (
    await env.pool.query<{ severity: string; problem: string }>('select * from tickets_ops.snapshot_problems($1)', [
      DATASET,
    ])
  ).rows.map(({ severity, problem }) => `${severity}: ${problem}`);
const openTickets = () => countRows(env.pool, `${TICKETS} where is_actionable`);
const staged = () => countRows(env.pool, 'tickets_ops.snapshot_rows');
const call = async (name: string, id: string) =>
  String(Object.values(await one(`select tickets_ops.${name}($1)`, [id]))[0]);
const dryRun = async () => {
  const bucket = openBucket(readSettings(BucketSettings));
  try {
    return await withClient(env.databaseUrl, (client) => previewBucket(client, bucket, dataset(DATASET), 'newest'));
  } finally {
    bucket.client.destroy();
  }
};

describe('a snapshot of which nearly nothing can be loaded', () => {
  const cases: Record<string, [file: string, reason: RegExp]> = {
    'a comma at the end of each row': [
      lines(GOOD, (line, n) => (n === 0 ? line : `${line},`)),
      /None of its 100 rows can be loaded: 9 fields where the header has 8 \(100 times, first on line 2\)/,
    ],
    'a name dropped from the header': [
      GOOD.replace(',cluster,', ','),
      /None of its 100 rows can be loaded: 8 fields where the header has 7 \(100 times, first on line 2\)/,
    ],
    'over half of its rows ragged': [
      lines(GOOD, (line, n) => (n > 0 && n <= 51 ? `${line},` : line)),
      /51 of its 100 rows cannot be loaded: 9 fields where the header has 8 \(51 times, first on line 2\)/,
    ],
    'ids that say that there is none': [
      csvOf(records(100, (n) => ({ ticket_id: ['NULL', 'undefined', 'NaN', '#N/A'][n % 4] ?? '' }))),
      /None of its 100 rows can be loaded: no ticket_id \(100 times, first on line 2\)/,
    ],
    'a header only': [
      csvOf([]).replace('ticket_id', Object.keys(record(1)).join(',')),
      /It has a header and no rows, and the last load had 100/,
    ],
    'nothing but alarms and the sentinel': [
      `${csvOf(records(20, () => ({ is_alarm: 'true' })))}EXPORT STOPPED\n`,
      /It has a header and no rows, besides 20 alarms and 1 sentinel/,
    ],
    'a quote in its header that is never closed': [
      GOOD.replace('cluster', '"cluster'),
      /No ticket CSV: it has no readable header/,
    ],
    'a break before its first row': [
      `${GOOD.split('\n')[0]}\nWOT1,"open`,
      /Nothing of it can be loaded. The file breaks off/,
    ],
  };
  for (const [what, [file, reason]] of Object.entries(cases)) {
    test(`fails whole and stays where it is: ${what}`, async () => {
      await load(7, GOOD);
      const before = await rawTickets(env);
      await put(8, file);
      const planned = await dryRun();
      assert.match(planned.refused[0]?.reason ?? '', reason);
      assert.deepEqual(await fetchNow(env), []);
      const entry = await last();
      assert.equal(entry.status, 'failed');
      assert.match(entry.error ?? '', reason);
      assert.deepEqual(await rawTickets(env), before);
      assert.ok((await env.listKeys()).includes(keyOf(8)), 'it is not archived');
      assert.equal(await staged(), 0);
      assert.match((await problems()).join('\n'), new RegExp(`^fault: Snapshot 2 \\(.*\\) failed: .*${reason.source}`));
      assert.match(await call('dismiss_snapshot', '2'), /Health no longer speaks of snapshot 2/);
      assert.deepEqual(await problems(), []);
      await load(9, but(GOOD));
      assert.deepEqual((await statuses(env)).at(-1), [9, 'done'], 'and keeps no other from loading');
    });
  }

  test('is not failed for having no rows when the last load had none either', async () => {
    await load(7, GOOD);
    await env.pool.query(`update tickets_ops.snapshots set statistics = statistics || '{"rows": 0, "tickets": 0}'`);
    await load(8, `${GOOD.split('\n')[0]}\n`);
    assert.equal((await last()).status, 'done');
  });
});

describe('a snapshot that is odd', () => {
  const cases: Record<string, [file: string | Buffer, warning: RegExp]> = {
    'dates as serial numbers': [
      csvOf(records(100, () => ({ created_at_service: '46188.4166667', description: 'x' }))),
      /Of created_at_service 100 of 100 values do not read; in the last load 0 of 100 did not/,
    ],
    'cut off at the end of a line': [
      `${GOOD.split('\n').slice(0, 41).join('\n')}\n`,
      /It has 40 rows, 40 % of the 100 of the last load/,
    ],
    'a column that is gone': [without('cluster'), /1 column of the last load is gone: cluster/],
    'a column that is new': [csvOf(records(100, () => ({ shiny: 'x' }))), /1 column is new: shiny/],
    'a column that is empty now': [
      csvOf(records(100, () => ({ cluster: '' }))),
      /Of cluster 0 of 100 tickets have a value that reads; in the last load 100 of 100 had/,
    ],
    'ids that a spreadsheet has rounded': [
      csvOf(records(100, () => ({ ticket_id: '1.23E+12' }))),
      /Of its 1 ticket 0 were known, and the last load had 100. Have the ids changed\?/,
    ],
    'ids of another kind': [
      csvOf(records(100, (n) => ({ ticket_id: `wot${n}` }))),
      /Of its 100 tickets 0 were known, and the last load had 100. Have the ids changed\?/,
    ],
    'another encoding': [
      Buffer.from(csvOf(records(100, (n) => (n < 60 ? { description: 'Café' } : {}))), 'latin1'),
      /60 of 100 tickets have bytes that are no UTF-8.* in the last load 0 of 100 had/,
    ],
    'a few rows rejected': [
      lines(GOOD, (line, n) => (n > 97 ? `${line},` : line)),
      /3 of 100 rows are rejected \(3.0 %\)/,
    ],
  };
  for (const [what, [file, warning]] of Object.entries(cases)) {
    test(`loads, with a warning until a better one came: ${what}`, async () => {
      await load(7, GOOD);
      await put(8, file);
      assert.match((await dryRun()).changes?.verdict.warnings.join('\n') ?? '', warning);
      assert.deepEqual(await fetchNow(env), []);
      const { status, warnings } = await last();
      assert.equal(status, 'done');
      assert.equal(warnings.length, 1);
      assert.match(warnings[0] ?? '', warning);
      const [problem, ...others] = await problems();
      assert.deepEqual(others, []);
      assert.match(
        problem ?? '',
        new RegExp(`^warning: Snapshot 2 \\(.*\\) was loaded, and is odd: .*${warning.source}`),
      );
      await load(9, file);
      assert.equal((await problems()).length, 1, 'the same bytes are no better');
      await load(10, but(what === 'a few rows rejected' ? GOOD : file.toString('latin1')));
      assert.deepEqual(await problems(), [], 'compared with the load before, nothing is odd any more');
    });
  }

  test('in nothing does not warn: booleans as 1.0, many that close at once, the first file of all', async () => {
    await load(
      7,
      csvOf(records(100, (n) => ({ is_actionable: n < 40 ? '1.0' : '0.0', is_alarm: n === 99 ? '1.0' : '0.0' }))),
    );
    assert.deepEqual([await openTickets(), (await ledger(env))[0]?.rows_dropped_alarm], [40, 1]);
    await load(8, csvOf(records(99, (n) => (n < 8 ? {} : CLOSED))));
    assert.deepEqual([await openTickets(), await problems()], [8, []]);
  });
});

describe('a snapshot that would destroy the state', () => {
  const cases: Record<string, [file: string, reason: RegExp]> = {
    'is_actionable is gone': [
      without('is_actionable'),
      /The column is_actionable is gone; in the last load 100 % of its values read/,
    ],
    'is_actionable does not read': [
      csvOf(records(100, () => ({ is_actionable: 'ja' }))),
      /Of is_actionable 0 % of the values read; in the last load 100 % of its values read/,
    ],
    'normalized_status is empty': [
      csvOf(records(100, () => ({ normalized_status: '' }))),
      /Of normalized_status 0 % of the values read/,
    ],
    'normalized_status says that there is none': [
      csvOf(records(100, (n) => ({ normalized_status: n % 2 ? 'NULL' : '[object Object]' }))),
      /Of normalized_status 0 % of the values read/,
    ],
    'it closes nearly all open tickets': [CLOSING, /It closes 90 of 100 open tickets \(90 %\)/],
  };
  for (const [what, [file, reason]] of Object.entries(cases)) {
    test(`is held, says why, and waits for a person: ${what}`, async () => {
      await load(7, GOOD);
      const [before, meta] = [await rawTickets(env), await importMeta(env)];
      await put(8, file);
      const verdict = (await dryRun()).changes?.verdict;
      assert.equal(verdict?.verdict, 'hold');
      assert.match(verdict?.verdict === 'hold' ? verdict.reason : '', reason);
      assert.deepEqual(await fetchNow(env), []);
      const held = await last();
      assert.equal(held.status, 'held');
      assert.match(held.hold_reason ?? '', reason);
      assert.deepEqual(await rawTickets(env), before);
      assert.equal((await importMeta(env))?.source_key, meta?.source_key);
      assert.match(
        (await problems()).join('\n'),
        new RegExp(
          `^fault: Snapshot 2 \\(.*\\) is held: .*${reason.source}.*release_snapshot\\(2\\).*dismiss_snapshot\\(2\\)`,
        ),
      );
      assert.ok((await env.listKeys()).includes(keyOf(8)));
      assert.equal(await countRows(env.pool, 'tickets_ops.jobs'), 0, 'it is not in flight');
      assert.deepEqual(await fetchNow(env), [], 'and a further look leaves it alone');
      assert.equal((await ledger(env)).length, 2);

      assert.match(await call('release_snapshot', '2'), /Snapshot 2 is being loaded/);
      assert.deepEqual(await env.runJobs(), []);
      const released = await last();
      assert.equal(released.status, 'done');
      assert.match(released.warnings.join('\n'), new RegExp(`${reason.source}.*Released by `));
      assert.match((await problems()).join('\n'), /^warning: Snapshot 2 .* was loaded, and is odd: .*Released by /);
      assert.notDeepEqual(await rawTickets(env), before);
      assert.ok(!(await env.listKeys()).includes(keyOf(8)), 'now it is archived');
      assert.equal(await staged(), 0);
    });
  }

  test('is dropped by a person: it fails, its staging is gone, and health is quiet', async () => {
    await load(7, GOOD);
    await load(8, CLOSING);
    assert.match(await call('dismiss_snapshot', '2'), /Snapshot 2 is dropped; its file stays/);
    assert.deepEqual([(await last()).status, await staged(), await problems()], ['failed', 0, []]);
    assert.match((await last()).error ?? '', /^Dismissed by .* It closes 90 of 100/);
    assert.deepEqual(await fetchNow(env), [], 'and is not read again');
    assert.equal((await last()).status, 'failed');
    await load(9, but(GOOD));
    assert.equal((await last()).status, 'done');
  });

  test('is superseded by the next good file, and by one that brings the last load again', async () => {
    await load(7, GOOD);
    await load(8, CLOSING);
    await load(9, but(GOOD));
    assert.deepEqual(await statuses(env), [
      [7, 'done'],
      [8, 'superseded'],
      [9, 'done'],
    ]);
    await load(10, CLOSING);
    assert.equal((await last()).status, 'held');
    await load(11, but(GOOD));
    assert.deepEqual((await statuses(env)).slice(-2), [
      [10, 'superseded'],
      [11, 'unchanged'],
    ]);
    assert.deepEqual([await staged(), await openTickets(), await problems()], [0, 101, []]);
  });

  test('of the same bytes is not staged again within the hour, by ETag or by hash; an hour later it loads with a warning', async () => {
    await load(7, GOOD);
    await load(8, CLOSING);
    const key = keyOf(8).replace('08-00-00', '08-30-00');
    await env.putObject(key, CLOSING);
    assert.deepEqual(await fetchNow(env), []);
    assert.equal((await ledger(env)).length, 2, 'not even read');
    await env.putObject(`${key.replace('08-30', '08-40')}.gz`, gzipSync(CLOSING));
    assert.deepEqual(await fetchNow(env), []);
    assert.deepEqual((await statuses(env)).slice(1), [
      [8, 'held'],
      [8, 'superseded'],
      [8, 'superseded'],
    ]);
    await load(9, CLOSING);
    assert.deepEqual(
      (await statuses(env)).filter(([hour]) => hour === 9),
      [[9, 'done']],
    );
    assert.match(
      (await problems()).join('\n'),
      /^warning: .*It closes 90 of 100.*a file \d+ minutes before it showed the same/,
    );
    assert.equal(await openTickets(), 10);
  });

  test('is believed when another file, with changes of its own, shows the same closings an hour later, and not sooner', async () => {
    await load(7, GOOD);
    await load(8, CLOSING);
    await env.putObject(keyOf(8).replace('08-00-00', '08-45-00'), but(CLOSING, 901));
    assert.deepEqual(await fetchNow(env), []);
    const { rows } = await env.pool.query(
      'select status, to_char(held_since at time zone $1, $2) as since from tickets_ops.snapshots order by snapshot_id',
      ['Africa/Nairobi', 'HH24:MI'],
    );
    assert.deepEqual(rows, [
      { status: 'done', since: null },
      { status: 'failed', since: '08:00' },
      { status: 'held', since: '08:00' },
    ]);
    assert.equal((await problems()).length, 1, 'of the two only the second is spoken of');
    await load(9, but(CLOSING, 902));
    assert.deepEqual([(await last()).status, await openTickets()], ['done', 11]);
  });

  test('that closes others than the one before is held anew', async () => {
    await load(7, csvOf(records(200)));
    await load(8, csvOf(records(200, (n) => (n < 170 ? CLOSED : {}))));
    await load(9, csvOf(records(200, (n) => (n >= 30 ? CLOSED : {}))));
    assert.equal((await last()).status, 'held');
    assert.equal(await openTickets(), 200);
  });

  test('with a vital column gone stays held, however often it comes', async () => {
    await load(7, GOOD);
    for (const hour of [8, 9, 10]) {
      await load(hour, without('is_actionable'));
      const entries = await statuses(env);
      assert.deepEqual(
        entries.filter(([, status]) => status !== 'superseded'),
        [
          [7, 'done'],
          [8, 'held'],
        ],
        'the same bytes are left alone, and passed over for the next',
      );
    }
    await load(11, but(without('is_actionable')));
    assert.deepEqual([(await last()).status, (await problems()).length, await openTickets()], ['held', 1, 100]);
  });

  test('after an outage of a day closes what it closes, with a warning', async () => {
    await load(7, GOOD);
    await env.putObject(`${PREFIX}2026-06-16T09-00-00.csv`, CLOSING);
    assert.deepEqual(await fetchNow(env), []);
    assert.equal((await last()).status, 'done');
    assert.match((await problems()).join('\n'), /because the last load was 26 hours before it/);

    await env.reset();
    await load(7, GOOD);
    await env.pool.query(`update tickets_ops.snapshots set loaded_at = loaded_at - interval '25 hours'`);
    await load(8, CLOSING);
    assert.deepEqual([(await last()).status, await openTickets()], ['done', 10]);
  });

  test('is loaded, with the warning, where ON_SUSPECT_SNAPSHOT says so, in this process or recorded by another', async () => {
    process.env.ON_SUSPECT_SNAPSHOT = 'load';
    await load(7, GOOD);
    await load(8, without('is_actionable'));
    assert.equal((await last()).status, 'done');
    assert.match(
      (await problems()).join('\n'),
      /The column is_actionable is gone.*because ON_SUSPECT_SNAPSHOT says so/,
    );

    await env.reset();
    delete process.env.ON_SUSPECT_SNAPSHOT;
    await env.pool.query(
      `insert into tickets_ops.settings (name, pool_id, value) values ('ON_SUSPECT_SNAPSHOT', 'another', 'load')`,
    );
    await load(7, GOOD);
    await load(8, CLOSING);
    assert.equal((await last()).status, 'done');
  });

  test('does not stop a backfill, and force reads it again', async () => {
    await load(6, GOOD);
    await Promise.all([put(7, CLOSING), put(8, but(GOOD))]);
    assert.deepEqual(await fetchNow(env, { backfill: true }), []);
    assert.deepEqual(await statuses(env), [
      [6, 'done'],
      [7, 'superseded'],
      [8, 'done'],
    ]);
    await load(9, CLOSING);
    assert.deepEqual(await fetchNow(env, { force: true }), []);
    assert.deepEqual((await statuses(env)).slice(-2), [
      [9, 'failed'],
      [9, 'held'],
    ]);
  });

  test('cannot be released when it is not held, when something was loaded since, or when another is in flight', async () => {
    await assert.rejects(call('release_snapshot', '7'), /There is no snapshot 7/);
    await load(7, GOOD);
    await assert.rejects(call('release_snapshot', '1'), /Snapshot 1 is done, not held/);
    await assert.rejects(call('dismiss_snapshot', '1'), /Snapshot 1 is done: only one that is held or has failed/);
    await load(8, CLOSING);
    await put(9, but(GOOD));
    await env.pool.query(
      `insert into tickets_ops.snapshots (dataset, source_key, snapshot_at, status) values ('${DATASET}', 'other', now(), 'staging')`,
    );
    await assert.rejects(call('release_snapshot', '2'), /has to wait: another one is in flight/);
    await env.pool.query(
      `update tickets_ops.snapshots set status = 'loading', load_began_at = clock_timestamp() where source_key = 'other'`,
    );
    await assert.rejects(
      call('release_snapshot', '2'),
      /Snapshot 2 is not released: other was loaded after it was staged/,
    );
    assert.equal(await openTickets(), 100);
  });

  test('whose loading fails after its release is tried again like any other', async () => {
    await load(7, GOOD);
    await load(8, CLOSING);
    await env.pool.query(`
      create function public.break_it() returns trigger language plpgsql as $$ begin raise exception 'disk' using errcode = 'XX000'; end $$;
      create trigger break_it before update on ${TICKETS} for each row execute function public.break_it()`);
    try {
      await call('release_snapshot', '2');
      await env.runJobs();
      for (let attempt = 2; attempt <= 6; attempt += 1) await runAgain(env);
      assert.equal((await last()).status, 'failed');
    } finally {
      await env.pool.query('drop function public.break_it() cascade');
    }
    await env.pool.query('select tickets_ops.retry_failed()');
    assert.deepEqual(await env.runJobs(), []);
    assert.deepEqual([(await last()).status, await openTickets()], ['done', 10]);
  });
});

test('a .csv.gz loads like its CSV', async () => {
  await env.putObject(`${keyOf(7)}.gz`, gzipSync(GOOD));
  assert.deepEqual(await fetchNow(env), []);
  assert.equal((await last()).status, 'done');
  assert.equal(await openTickets(), 100);
  await addFetch(env);
  await env.putObject(`${keyOf(8)}.gz`, gzipSync(GOOD).subarray(0, 300));
  assert.deepEqual(await fetchNow(env), []);
  assert.match((await last()).error ?? '', /Its gzip data are damaged/);
});
