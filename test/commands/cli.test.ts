/** The command line as its users type it: what it prints, what it writes, and its exit status. */
import assert from 'node:assert/strict';
import { mkdtemp, rm, utimes, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, beforeEach, describe, test } from 'node:test';
import { gzipSync } from 'node:zlib';
import { feed } from '../../demo/feed.ts';
import { fleettickets as runFleettickets } from '../support/command.ts';
import { type Environment, startEnvironment } from '../support/environment.ts';
import { countRows } from '../support/rows.ts';

const PREFIX = 'automations/inc/';

const fleettickets = (...args: string[]) => runFleettickets({}, ...args);

let env: Environment;
let folder: string;
const [first, second] = [...feed({ seed: 7, hours: 2, tickets: 120 })];

before(async () => {
  env = await startEnvironment();
  folder = await mkdtemp(join(tmpdir(), 'fleettickets-cli-'));
});
after(async () => {
  await env.close();
  await rm(folder, { recursive: true });
});
beforeEach(() => env.reset());

const ticketCount = () => countRows(env.pool, 'tickets.inc');

describe('usage', () => {
  test('without a command it lists them, with status 2', async () => {
    const { status, out } = await fleettickets();
    assert.equal(status, 2);
    for (const name of ['migrate', 'worker', 'ingest', 'geocode', 'status', 'demo'])
      assert.match(out, new RegExp(`^  ${name} `, 'm'));
  });

  for (const [what, args, message] of [
    ['an unknown command', ['ingets'], /There is no command ingets/],
    ['an unknown option', ['ingest', '--from-bukcet'], /--from-bukcet/],
    ['no source', ['ingest'], /Give one of --from-bucket, --inc-csv FILE and --crq-csv FILE/],
    ['two sources', ['ingest', '--from-bucket', '--inc-csv', 'x.csv'], /Give one of/],
    ['two modes', ['ingest', '--from-bucket', '--force', '--backfill'], /exclude each other/],
    ['a mode that a file has not', ['ingest', '--inc-csv', 'x.csv', '--force'], /go with --from-bucket/],
    ['a folder in place of a file', ['ingest', '--inc-csv', '/tmp'], /\/tmp is a folder/],
    ['a file that is not there', ['ingest', '--inc-csv', '/nowhere/x.csv'], /\/nowhere\/x\.csv cannot be read/],
  ] as const) {
    test(`${what} is wrong usage`, async () => {
      const { status, err } = await fleettickets(...args);
      assert.equal(status, 2, err);
      assert.match(err, message);
      assert.match(err, /Usage: fleettickets/);
    });
  }

  test('a missing setting is named, with its remedy', async () => {
    const { err } = await runFleettickets({ RUSTFS_SECRET_KEY: '' }, 'ingest', '--from-bucket');
    assert.match(err, /RUSTFS_SECRET_KEY: is not set\. S3 secret key\./);
  });
});

describe('ingest --from-bucket', () => {
  test('is a dry run by default: it says what would change, and writes nothing', async () => {
    assert.ok(first);
    await env.putObject(`${PREFIX}${first.name}`, first.csv);
    const { status, out } = await fleettickets('ingest', '--from-bucket');
    assert.equal(status, 0);
    assert.match(out, /^This was a dry run: nothing was changed\./m);
    assert.match(out, new RegExp(`^Rows +${first.expected.rows_read}$`, 'm'));
    assert.match(out, new RegExp(`^Insert +${first.expected.rows_inserted}$`, 'm'));
    assert.match(out, new RegExp(`^Duplicates +${first.expected.rows_duplicate}$`, 'm'));
    for (const { line } of first.expected.rejects) assert.match(out, new RegExp(`^  line ${line}: `, 'm'));
    assert.equal(await ticketCount(), 0);
    assert.deepEqual(await env.listKeys(), [`${PREFIX}${first.name}`]);
    assert.equal((await env.pool.query('select from tickets_ops.snapshots')).rowCount, 0);
  });

  test('the dry run counts as the load does, and names the fields that change', async () => {
    assert.ok(first && second);
    await env.putObject(`${PREFIX}${first.name}`, first.csv);
    assert.equal((await fleettickets('ingest', '--from-bucket', '--apply')).status, 0);
    await env.putObject(`${PREFIX}${second.name}`, second.csv);
    const plan = JSON.parse((await fleettickets('ingest', '--from-bucket', '--json')).out);
    const done = JSON.parse((await fleettickets('ingest', '--from-bucket', '--apply', '--json')).out);
    const [snapshot] = done.snapshots;
    assert.equal(snapshot.status, 'done');
    assert.deepEqual(
      [plan.changes.inserts, plan.changes.updates, plan.changes.unchanged, plan.changes.counts.duplicates],
      [snapshot.rows_inserted, snapshot.rows_updated, snapshot.rows_unchanged, snapshot.rows_duplicate].map(Number),
    );
    assert.ok(plan.changes.updates > 0);
    assert.ok(plan.changes.changedFields.length > 0);
  });

  test('--apply loads through the jobs, archives, and leaves no job behind', async () => {
    assert.ok(first);
    await env.putObject(`${PREFIX}${first.name}`, first.csv);
    const { status, out, err } = await fleettickets('ingest', '--from-bucket', '--apply');
    assert.equal(status, 0, err);
    assert.match(out, new RegExp(`^Snapshot 1  ${PREFIX}${first.name}  done\n  ${first.expected.rows_read} rows`));
    assert.equal(await ticketCount(), first.tickets.size);
    assert.deepEqual(await env.listKeys(), [`${PREFIX}processed/${first.name}`]);
    assert.equal((await env.pool.query('select from graphile_worker.jobs')).rowCount, 0);
  });

  test('an empty folder is nothing to do', async () => {
    const { status, out } = await fleettickets('ingest', '--from-bucket', '--apply');
    assert.equal(status, 0);
    assert.equal(out, 'Nothing new in the bucket.\n');
  });

  test('--force loads an archived file again', async () => {
    assert.ok(first);
    await env.putObject(`${PREFIX}${first.name}`, first.csv);
    await fleettickets('ingest', '--from-bucket', '--apply');
    const { status, out } = await fleettickets('ingest', '--from-bucket', '--apply', '--force');
    assert.equal(status, 0);
    assert.match(out, /^Snapshot 2 .* done$/m);
    assert.match(out, new RegExp(`0 inserted, 0 updated, ${first.tickets.size} unchanged`));
  });

  test('a file that is no ticket CSV fails, with the reason and status 1', async () => {
    await env.putObject(`${PREFIX}2026-06-15T07-00-00.csv`, '<html><body>502 Bad Gateway</body></html>');
    const dry = await fleettickets('ingest', '--from-bucket');
    assert.equal(dry.status, 1);
    assert.match(dry.out, /No ticket CSV: it is HTML/);
    const { status, out } = await fleettickets('ingest', '--from-bucket', '--apply');
    assert.equal(status, 1);
    assert.match(out, /failed\n {2}No ticket CSV: it is HTML/);
  });

  test('a bucket that does not answer is explained without a secret', async () => {
    const before = process.env.RUSTFS_BUCKET;
    process.env.RUSTFS_BUCKET = 'no-such-bucket';
    const { status, err } = await fleettickets('ingest', '--from-bucket');
    process.env.RUSTFS_BUCKET = before;
    assert.equal(status, 1);
    assert.match(err, /no such bucket: check RUSTFS_BUCKET/);
    assert.doesNotMatch(err, new RegExp(env.s3.secretAccessKey));
  });
});

describe('ingest --inc-csv', () => {
  test('loads a local file under the time in its name, and forgets the remembered ETag', async () => {
    assert.ok(first && second);
    await env.putObject(`${PREFIX}${first.name}`, first.csv);
    await fleettickets('ingest', '--from-bucket', '--apply');
    const path = join(folder, second.name);
    await writeFile(path, second.csv);
    const { status, out, err } = await fleettickets('ingest', '--inc-csv', path, '--apply');
    assert.equal(status, 0, err);
    assert.match(out, new RegExp(`${second.name}  done`));
    assert.equal(await ticketCount(), second.tickets.size);
    const { rows } = await env.pool.query('select metadata from tickets.import_meta');
    assert.equal(rows[0].metadata.source_etag, null);
    assert.equal(new Date(rows[0].metadata.snapshot_at).getTime(), second.at.getTime());
    // The same bytes from the bucket are loaded, not skipped as unchanged.
    await env.putObject(`${PREFIX}2026-06-15T20-00-00.csv`, second.csv);
    assert.match((await fleettickets('ingest', '--from-bucket', '--apply')).out, /2026-06-15T20-00-00\.csv {2}done/);
  });

  test('refuses a file that is older than what is loaded', async () => {
    assert.ok(first && second);
    await env.putObject(`${PREFIX}${second.name}`, second.csv);
    await fleettickets('ingest', '--from-bucket', '--apply');
    const loaded = await ticketCount();
    const path = join(folder, first.name);
    await writeFile(path, first.csv);
    const { status, out } = await fleettickets('ingest', '--inc-csv', path, '--apply');
    assert.equal(status, 1);
    assert.match(out, /is older than what is loaded/);
    assert.equal(await ticketCount(), loaded);
  });

  test('takes the time of the file where its name has none', async () => {
    const path = join(folder, 'export.csv');
    await writeFile(path, 'ticket_id,cluster\nWOT1,Kilimani\n');
    await utimes(path, 0, new Date('2026-06-15T05:00:00Z').getTime() / 1000);
    assert.equal((await fleettickets('ingest', '--inc-csv', path, '--apply')).status, 0);
    const { rows } = await env.pool.query('select snapshot_at, origin, archived_at from tickets_ops.snapshots');
    assert.equal(rows[0].snapshot_at.toISOString(), '2026-06-15T05:00:00.000Z');
    assert.equal(rows[0].origin, 'file');
  });

  test('says of a suspect file what it says in the dry run, and holds it, with status 1', async () => {
    const csv = (open: string, rows = 60) =>
      `ticket_id,is_actionable,normalized_status\n${Array.from({ length: rows }, (_, n) => `WOT${n},${open},open\n`).join('')}`;
    const [good, closing, odd] = ['07', '08', '09'].map((hour) => join(folder, `2026-06-15T${hour}-00-00.csv`)) as [
      string,
      string,
      string,
    ];
    await writeFile(good, csv('true'));
    await writeFile(closing, csv('false'));
    await writeFile(`${odd}.gz`, gzipSync(csv('1.0', 30)));
    assert.equal((await fleettickets('ingest', '--inc-csv', good, '--apply')).status, 0);

    const planned = await fleettickets('ingest', '--inc-csv', closing);
    assert.equal(planned.status, 0);
    assert.match(planned.out, /It would be held for a person to decide: It closes 60 of 60 open tickets \(100 %\)/);
    const held = await fleettickets('ingest', '--inc-csv', closing, '--apply');
    assert.equal(held.status, 1);
    assert.match(held.out, /2026-06-15T08-00-00\.csv {2}held\n {2}It closes 60 of 60 open tickets \(100 %\)/);

    const warned = await fleettickets('ingest', '--inc-csv', `${odd}.gz`);
    assert.match(warned.out, /Warning: It has 30 rows, 50 % of the 60 of the last load/);
    const loaded = await fleettickets('ingest', '--inc-csv', `${odd}.gz`, '--apply');
    assert.equal(loaded.status, 0);
    assert.match(loaded.out, /done\n {2}30 rows: .*\n {2}Warning: It has 30 rows/);
    assert.match((await fleettickets('status')).out, /Warning: Snapshot 3 .* was loaded, and is odd: It has 30 rows/);
  });
});

test('an attempt of a job that fails is one line of the log, with its reason and without a stack', async () => {
  const failing: [task: string, payload: string, reason: RegExp][] = [
    ['geocode_cluster', '{"name": "Kilimani"}', /^Wrong payload:/],
    ['upsert_batch', '{"snapshot_id": 999, "batch": 1}', /^Snapshot 999 is unknown/],
    ['fetch_snapshot', '{"dataset": "inc"}', /^Listing automations\/inc\/ in bucket nowhere-at-all/],
  ];
  for (const [task, payload, reason] of failing) {
    await env.reset();
    await env.pool.query('select graphile_worker.add_job($1, $2::json, max_attempts := 1)', [task, payload]);
    const settings = { LOG_LEVEL: 'debug', RUSTFS_BUCKET: 'nowhere-at-all' };
    const { out } = await runFleettickets(settings, 'worker', '--once');
    const lines = out.trim().split('\n');
    const told = lines.map((line) => JSON.parse(line) as { level: string; msg: string; task?: string });
    const errors = told.filter(({ level }) => ['error', 'fatal'].includes(level));
    assert.deepEqual(
      errors.map((line) => [line.level, line.task, reason.test(line.msg)]),
      [['error', task, true]],
      lines.join('\n'),
    );
    const [first = ''] = (errors[0]?.msg ?? '').split('\n');
    assert.equal(told.filter(({ msg }) => msg.includes(first)).length, 1, lines.join('\n'));
    assert.doesNotMatch(lines.join('\n'), /\\n {4}at /);
  }
});
