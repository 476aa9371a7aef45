/** Several workers on the same work at once, on a real Postgres: nothing is done twice, nobody deadlocks. */
import assert from 'node:assert/strict';
import { after, before, beforeEach, describe, test } from 'node:test';
import { bigCsv, feed, type Snapshot } from '../../demo/feed.ts';
import { registerGeocoder } from '../../src/geocoding/registration.ts';
import { type Environment, native, startEnvironment, waitFor } from '../support/environment.ts';
import { addFetch, csvOf, keyOf, ledger, PREFIX, rawTickets } from '../support/pipeline.ts';

describe('several workers at once', { skip: !native && 'needs a native Postgres' }, () => {
  let env: Environment;
  before(async () => {
    env = await startEnvironment();
  });
  after(() => env.close());
  beforeEach(() => env.reset());

  const workers = (count: number) => Promise.all(Array.from({ length: count }, () => env.runJobs()));
  const eventsOf = async () => {
    const { rows } = await env.pool.query('select event, count(*)::int as n from tickets.inc_events group by event');
    return Object.fromEntries(rows.map(({ event, n }) => [event, n]));
  };

  test('one file asked for many times is loaded once', async () => {
    const [snapshot] = feed({ seed: 5, hours: 1, tickets: 11_000 }) as unknown as [Snapshot];
    await env.putObject(`${PREFIX}${snapshot.name}`, snapshot.csv);
    for (let request = 0; request < 6; request += 1) await addFetch(env);
    // Those that find it in flight come back for it later.
    assert.deepEqual(await workers(3), [[], [], []]);
    const entries = await ledger(env);
    assert.deepEqual(
      entries.map(({ status, rows_inserted }) => [status, rows_inserted]),
      [['done', snapshot.expected.rows_inserted]],
    );
    assert.deepEqual(
      await rawTickets(env),
      Object.fromEntries([...snapshot.tickets].sort(([a], [b]) => (a < b ? -1 : 1))),
    );
    const { opened, closed } = snapshot.expected.events;
    assert.deepEqual(await eventsOf(), { opened, closed });
    assert.deepEqual(await env.listKeys(), [`${PREFIX}processed/${snapshot.name}`]);
  });

  test('both datasets at once, with workers that plan the same places: each is loaded once, nobody deadlocks', async (t) => {
    // Places are planned, and nobody answers: their jobs wait.
    Object.assign(process.env, {
      CRQ_ENABLED: 'true',
      GEOCODER_PROVIDER: 'nominatim',
      GEOCODER_BASE_URL: 'http://127.0.0.1:9',
      GEOCODER_DAILY_BUDGET: '1',
    });
    t.after(() => {
      for (const name of ['CRQ_ENABLED', 'GEOCODER_PROVIDER', 'GEOCODER_BASE_URL', 'GEOCODER_DAILY_BUDGET'])
        delete process.env[name];
    });
    await registerGeocoder(env.pool);
    await env.runJobs();
    const tickets = 3_000;
    const open = (n: number) => ({
      ticket_id: `T${n}`,
      is_actionable: 'true',
      cluster: `Cluster ${n % 60}`,
      location_name: `Place ${n % 900}`,
    });
    const rows = Array.from({ length: tickets }, (_, n) => open(n));
    for (let hour = 7; hour < 12; hour += 1) {
      const at = `2026-06-15T${String(hour).padStart(2, '0')}-00-00.csv`;
      const changed = rows.map((row, n) => ({ ...row, location_name: `Place ${(n * hour) % 900}` }));
      await env.putObject(`automations/inc/${at}`, csvOf(changed));
      await env.putObject(`automations/crq/${at}`, csvOf(changed.toReversed()));
      for (const dataset of ['inc', 'crq']) await addFetch(env, { dataset });
      const failures = (await workers(3)).flat();
      assert.deepEqual(
        failures.filter(({ task }) => !task.startsWith('geocode')),
        [],
      );
    }
    const { rows: found } = await env.pool.query(
      `select dataset, count(*)::int as files, min(status) as status from tickets_ops.snapshots group by dataset order by dataset`,
    );
    assert.deepEqual(found, [
      { dataset: 'crq', files: 5, status: 'done' },
      { dataset: 'inc', files: 5, status: 'done' },
    ]);
    const { rows: counted } = await env.pool.query(
      `select (select count(*)::int from tickets.inc) as inc, (select count(*)::int from tickets.crq) as crq,
         (select count(*)::int from graphile_worker.jobs) as jobs, (select count(*)::int from tickets_ops.places_to_geocode()) as places`,
    );
    assert.deepEqual(counted, [{ inc: tickets, crq: tickets, jobs: counted[0]?.places, places: counted[0]?.places }]);
    assert.ok(counted[0]?.places > 60);
  });

  test('the same batch run by two workers is loaded once', async () => {
    await env.putObject(
      keyOf(7),
      csvOf(Array.from({ length: 3_000 }, (_, n) => ({ ticket_id: `WOT${n}`, is_actionable: 'true' }))),
    );
    await addFetch(env);
    const { rows } = await env.pool.query(
      `select graphile_worker.add_job('upsert_batch', '{"snapshot_id": 1, "batch": 1}', run_at := now()) from generate_series(1, 4)`,
    );
    assert.equal(rows.length, 4);
    // The additional ones come too early, at the same time, or too late.
    await workers(3);
    await env.pool.query(
      `select graphile_worker.add_job('upsert_batch', '{"snapshot_id": 1, "batch": 1}') from generate_series(1, 4)`,
    );
    await env.pool.query(
      `select graphile_worker.add_job('finalize_snapshot', '{"snapshot_id": 1}') from generate_series(1, 4)`,
    );
    await workers(3);
    assert.deepEqual(
      (await ledger(env)).map(({ status, rows_inserted }) => [status, rows_inserted]),
      [['done', 3_000]],
    );
    assert.deepEqual(await eventsOf(), { opened: 3_000 });
    assert.equal((await env.listKeys()).length, 1);
  });

  test('a database that is asked to take two snapshots in flight refuses', async () => {
    const insert = (dataset: string) =>
      env.pool.query(
        `insert into tickets_ops.snapshots (dataset, source_key, snapshot_at, status) values ($1, 'k', now(), 'staging')`,
        [dataset],
      );
    await insert('inc');
    await insert('crq');
    await assert.rejects(insert('inc'), /snapshots_one_in_flight/);
  });

  test('a ticket that came past the pipeline gets one baseline, no matter who is at it at once, and none after its first event', async () => {
    const role = `loader_${process.pid}`;
    await env.pool.query(
      `create role ${role}; grant tickets_reader to ${role}; grant insert, update on tickets.inc to ${role}`,
    );
    const [first, second] = [await env.pool.connect(), await env.pool.connect()];
    const waits = () =>
      waitFor('the second to wait for the first', async () => {
        const { rowCount } = await env.pool.query(
          `select from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock' and query ~ 'record_baselines'`,
        );
        return rowCount;
      });
    const history = async () =>
      (await env.pool.query('select ticket_id, event from tickets.inc_events order by event_id')).rows;
    const all = `select tickets_ops.record_baselines('inc', null, null)`;
    try {
      // A role that may write tickets needs no right beside it.
      await first.query(
        `begin; set local role ${role}; insert into tickets.inc (ticket_id, raw) values ('WOT1', '{"is_actionable": "true"}'); commit`,
      );
      await first.query('begin');
      await first.query(`select tickets_ops.record_baselines('inc', null, null, true)`);
      const sweep = second.query(all);
      await waits();
      await first.query('commit');
      await sweep;
      assert.deepEqual(await history(), [{ ticket_id: 'WOT1', event: 'baseline' }]);

      // A load closes one that was never told of.
      await env.reset();
      await env.pool.query(`insert into tickets.inc (ticket_id, raw) values ('WOT1', '{"is_actionable": "true"}')`);
      await first.query('begin');
      await first.query(
        `with ticket as (update tickets.inc set raw = '{"is_actionable": "false"}' returning ticket_id)
         insert into tickets.inc_events (ticket_id, event, old_value) select ticket_id, 'closed', '' from ticket`,
      );
      const late = second.query(all);
      await waits();
      await first.query('commit');
      await late;
      assert.deepEqual(await history(), [{ ticket_id: 'WOT1', event: 'closed' }]);
    } finally {
      first.release(true);
      second.release(true);
      await env.pool.query(`drop owned by ${role}; drop role ${role}`);
    }
  });

  test('what is staged of one snapshot is emptied at once where it stands alone, and never takes rows of another', async () => {
    const stage = (db: { query: (sql: string) => Promise<unknown> }, snapshot: number, rows: number) =>
      db.query(
        `insert into tickets_ops.snapshot_rows (snapshot_id, ticket_id, line, digest, figures)
         select ${snapshot}, 'WOT' || n, n, md5(n::text)::uuid, 0 from generate_series(1, ${rows}) as n`,
      );
    const staged = async () => {
      const { rows } = await env.pool.query<{ snapshot: number; rows: number }>(
        `select snapshot_id::int as snapshot, count(*)::int as rows from tickets_ops.snapshot_rows group by 1 order by 1`,
      );
      return rows.map(({ snapshot, rows: count }) => [snapshot, count]);
    };
    const bytes = async () =>
      (await env.pool.query(`select pg_relation_size('tickets_ops.snapshot_rows')::int as n`)).rows[0].n as number;
    const wipe = (snapshot: number) => env.pool.query(`select tickets_ops.empty_staging(${snapshot})`);

    await stage(env.pool, 1, 100_000);
    await wipe(1);
    assert.equal(await bytes(), 0, 'truncated');

    for (const [own, other] of [
      [1, 2],
      [2, 1],
    ] as const) {
      await stage(env.pool, own, 100_000);
      await stage(env.pool, other, 10);
      await wipe(own);
      assert.deepEqual(await staged(), [[other, 10]]);
      await wipe(other);
      assert.deepEqual(await staged(), []);
    }

    await stage(env.pool, 1, 100_000);
    const stager = await env.pool.connect();
    try {
      await stager.query('begin');
      await stage(stager, 2, 10);
      await wipe(1); // does not wait, and would end this test's time if it did
      await stager.query('commit');
    } finally {
      stager.release();
    }
    assert.deepEqual(await staged(), [[2, 10]]);
  });

  test('centroids and places that move beside the batches: no deadlock, and every ticket agrees with the gazetteers', async () => {
    const chunks: Buffer[] = [];
    for await (const chunk of bigCsv({ tickets: 12_000, openShare: 0.3 })) chunks.push(Buffer.from(chunk));
    await env.putObject(keyOf(7), Buffer.concat(chunks));
    await addFetch(env);
    let loading = true;
    const move = async (mover: number) => {
      let moves = 0;
      for (; loading; moves += 1) {
        const x = 36.5 + ((moves + mover) % 100) / 1_000;
        await env.pool.query(
          `insert into tickets.geo_clusters (cluster, geom)
           select cluster, st_setsrid(st_makepoint($1, -1.29), 4326) from (values ('Kilimani'), ('Westlands'), ('Nyali'), ('Milimani')) as c (cluster)
           on conflict (cluster) do update set geom = excluded.geom`,
          [x],
        );
        await env.pool.query(
          `insert into tickets.geo_locations (cluster, location_key, location_name, status, geom)
           select distinct on (cluster, location_key) cluster, location_key, location_name, 'found', st_setsrid(st_makepoint($1, -1.3), 4326)
           from tickets.inc where cluster <> '' and location_key <> '' order by cluster, location_key limit 20
           on conflict (cluster, location_key) do update set geom = excluded.geom`,
          [x],
        );
        if (moves % 10 === 9) await env.pool.query(`delete from tickets.geo_clusters where cluster = 'Nyali'`);
      }
      return moves;
    };
    const movers = [move(0), move(50)];
    const failures = await workers(2).finally(() => {
      loading = false;
    });
    const moves = await Promise.all(movers);
    assert.deepEqual(failures, [[], []]);
    assert.ok(
      moves.every((count) => count > 3),
      `${moves} moves`,
    );
    const { rows } = await env.pool.query(
      `select (select count(*)::int from tickets.inc where geo_source <> 'none') as placed, tickets.place_tickets('inc')::int as disagreeing`,
    );
    assert.ok(rows[0].placed > 500, `${rows[0].placed} placed`);
    assert.equal(rows[0].disagreeing, 0);
    const { rows: database } = await env.pool.query(
      'select deadlocks::int from pg_stat_database where datname = current_database()',
    );
    assert.deepEqual(database, [{ deadlocks: 0 }]);
  });
});
