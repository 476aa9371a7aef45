/** Maintenance: jobs that vanished are asked for again, what stalled fails, what is old goes. */
import assert from 'node:assert/strict';
import { after, before, beforeEach, describe, test } from 'node:test';
import { RetentionSettings, readSettings } from '../../src/settings/settings.ts';
import { type Environment, startEnvironment } from '../support/environment.ts';
import { first, operations, second } from '../support/operations.ts';
import { DATASET, PREFIX, TICKETS } from '../support/pipeline.ts';

let env: Environment;
before(async () => {
  env = await startEnvironment();
});
after(() => env.close());
beforeEach(async () => {
  await env.reset();
  await env.runJobs(); // a worker that starts records which datasets are on
});

const { one, rows, snapshots, put, load, broken, addJob, maintain } = operations(() => env);

describe('maintain', () => {
  test('asks again for jobs that vanished', async () => {
    const repair = await broken(TICKETS);
    await put(first);
    await env.pool.query(`select tickets_ops.fetch_now('${DATASET}')`);
    await env.runJobs().finally(repair);
    await env.pool.query('delete from graphile_worker._private_jobs');
    await maintain();
    await env.runJobs();
    assert.deepEqual(
      (await snapshots()).map(({ status }) => status),
      ['done'],
    );
  });

  test('fails what has stalled, so that the next snapshot is not blocked', async () => {
    const repair = await broken(TICKETS);
    await put(first);
    await env.pool.query(`select tickets_ops.fetch_now('${DATASET}')`);
    await env.runJobs().finally(repair);
    // As if the last attempt had died with its worker.
    await env.pool.query(
      `update graphile_worker._private_jobs set attempts = max_attempts, last_error = null where key like 'upsert%'`,
    );
    await maintain();
    const [failed] = await snapshots();
    assert.deepEqual(
      [failed?.status, failed?.error],
      ['failed', 'upsert_batch:1:1 used up its attempts: its worker died'],
    );
    await load(second).catch(() => undefined);
    assert.deepEqual(
      (await snapshots()).map(({ status }) => status),
      ['failed', 'done'],
    );
  });

  test('sweeps: places what disagrees with the gazetteers, begins the history of what has none, and forgets what is gone', async () => {
    await env.pool.query(
      `insert into tickets.geo_clusters (cluster, geom) values ('Kilimani', st_setsrid(st_makepoint(36.78, -1.29), 4326))`,
    );
    await env.pool.query(
      `begin; set local session_replication_role = replica;
       insert into ${TICKETS} (ticket_id, raw) values ('WOT1', '{"cluster": "Kilimani", "normalized_status": "Open"}'); commit`,
    );
    await env.pool.query(
      `insert into tickets_ops.${DATASET}_digests (ticket_id, digest, figures, row_ctid, row_xmin)
       select id, md5(id)::uuid, 0, '(0,1)', '1' from unnest(array['WOT1', 'deleted']) as id`,
    );
    await env.pool.query('update tickets_ops.sweeps set swept_at = null');
    await maintain();
    assert.deepEqual(await rows(`select ticket_id from tickets_ops.${DATASET}_digests`), [{ ticket_id: 'WOT1' }]);
    assert.deepEqual(await rows(`select geo_source, st_x(geom) as lng from ${TICKETS}`), [
      { geo_source: 'cluster', lng: 36.78 },
    ]);
    const history = `select ticket_id, event, new_value from ${TICKETS}_events`;
    assert.deepEqual(await rows(history), [{ ticket_id: 'WOT1', event: 'baseline', new_value: 'Open' }]);

    // It rests a hundred times as long as it took.
    await env.pool.query(
      `begin; set local session_replication_role = replica; update ${TICKETS} set geom = null, geo_source = 'none'; commit`,
    );
    const sweptAgo = (interval: string) =>
      rows(`update tickets_ops.sweeps set took = interval '1 s', swept_at = now() - interval '${interval}'`);
    const sources = async () => (await rows(`select geo_source from ${TICKETS}`)).map(({ geo_source }) => geo_source);
    await sweptAgo('90 s');
    await maintain();
    assert.deepEqual(await sources(), ['none']);
    await sweptAgo('110 s');
    await maintain();
    assert.deepEqual(await sources(), ['cluster']);
    assert.equal((await rows(history)).length, 1);
  });

  test('prunes by age, as set, and keeps what the next file is compared with', async () => {
    await load(first);
    await load(second);
    await addJob('geocode_cluster', { cluster: 'Kilimani' }, `, job_key := 'old'`);
    const age = `interval '20 days'`;
    await env.pool.query(`
      update tickets_ops.snapshots set progress_at = now() - ${age};
      update graphile_worker._private_jobs set attempts = max_attempts, run_at = now() - ${age}, created_at = now() - ${age};
      insert into tickets_ops.workers (pool_id, host, pid, sessions, seen_at) values ('gone', 'h', 1, 's', now() - ${age})`);
    const counts = () =>
      one(`select (select count(*)::int from tickets_ops.snapshots) as snapshots, (select count(*)::int from tickets_ops.snapshot_rejects) as rejects,
        (select count(*)::int from tickets_ops.failed_jobs) as failed, (select count(*)::int from tickets_ops.workers where pool_id = 'gone') as workers`);
    const rejects = first.expected.rows_rejected + second.expected.rows_rejected;
    await maintain();
    assert.deepEqual(await counts(), { snapshots: 2, rejects, failed: 1, workers: 0 });
    await maintain({ KEEP_REJECTS_DAYS: '19', KEEP_FAILED_JOBS_DAYS: '21' });
    assert.deepEqual(await counts(), { snapshots: 2, rejects: 0, failed: 1, workers: 0 });
    await maintain({ KEEP_FAILED_JOBS_DAYS: '19', KEEP_LEDGER_DAYS: '19' });
    assert.deepEqual(await counts(), { snapshots: 1, rejects: 0, failed: 0, workers: 0 });
    assert.deepEqual(
      (await snapshots()).map(({ status }) => status),
      ['done'],
    );
    await env.putObject(`${PREFIX}${second.name.replace('-00-00.csv', '-10-00.csv')}`, second.csv);
    await one(`select * from tickets_ops.fetch_now('${DATASET}')`);
    await env.runJobs();
    assert.deepEqual(
      (await snapshots()).map(({ status }) => status),
      ['done', 'unchanged'],
    );
  });
});

describe('tickets_ops.storage', () => {
  test('says of every table how large it is, and how long its rows are kept or why for ever', async () => {
    const tables = await rows<{ table_name: string; part: string | null; kept: string | null; bytes: string }>(
      'select * from tickets_ops.storage',
    );
    assert.ok(tables.length > 25);
    assert.deepEqual(
      tables.filter(({ kept, part }) => kept === null || part === null).map(({ table_name }) => table_name),
      [],
      'a line in tickets_ops.kept_tables() for each',
    );
    for (const { table_name, kept, bytes } of tables) {
      assert.match(kept ?? '', /^[A-Z].*\.$/, table_name);
      assert.ok(Number(bytes) >= 0);
    }
  });

  test('names each setting of the retention with its default', async () => {
    const kept = (await rows<{ kept: string }>('select distinct kept from tickets_ops.storage'))
      .map(({ kept }) => kept)
      .join('\n');
    for (const [name, days] of Object.entries(readSettings(RetentionSettings, {})))
      assert.ok(kept.includes(`${name} (${days})`), name);
  });
});
