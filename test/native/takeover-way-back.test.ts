/** The way back to the Python version, and over again. */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { withClient } from '../../src/database/client.ts';
import { pending } from '../../src/database/committed.ts';
import { asPerson, native } from '../support/environment.ts';
import { dump, legacy, owner, pythonVersion, row, rows, takeOver, url } from '../support/python-version.ts';

describe('after a takeover', { skip: !native && 'needs a native Postgres' }, () => {
  pythonVersion();

  test('the way back, and over again', async () => {
    const database = await legacy();
    const before = await dump(database);
    await takeOver(database);
    await rows(database, `update tickets.inc set raw = raw || '{"cluster": "Nyali"}'`);
    await withClient(url(database, owner), (client) => client.query('select tickets_takeover.go_back()'));
    assert.deepEqual(await dump(database), before);

    // What the Python version does next.
    await rows(
      database,
      `insert into tickets.inc (ticket_id, raw, ingested_at) values ('WOT0700001', '{"ticket_id": "WOT0700001", "cluster": "Nyali", "is_actionable": "true"}', now()), ('WOT0999999', '{"cluster": "Kilimani", "is_actionable": "true"}', now())
       on conflict (ticket_id) do update set raw = excluded.raw, ingested_at = excluded.ingested_at`,
    );
    assert.deepEqual(
      await row(
        database,
        `select (select geo_source from tickets.inc where ticket_id = 'WOT0999999') as source, bi.ticket_count()::int as counted,
           (select count(*)::int from tickets.schema_migrations) as ledger, (reporting.fn_tickets_for_map(true) -> 'summary' ->> 'total')::int as open,
           (select sum(open_tickets)::int from bi.open_by_cluster) as by_cluster`,
      ),
      { source: 'cluster', counted: 1201, ledger: 8, open: 242, by_cluster: 242 },
    );

    await withClient(url(database, owner), async (client) => assert.equal((await pending(client)).length > 0, true));
    await takeOver(database);
    assert.deepEqual(
      await row(database, 'select count(*)::int as tickets, bi.ticket_count()::int as counted from tickets.inc'),
      { tickets: 1201, counted: 1201 },
    );
  });

  test('the way back leaves no load of before to what is taken over again, and waits for no worker', async () => {
    const database = await legacy();
    await takeOver(database);
    await asPerson(url(database, owner), async (client) => {
      const add = (task: string, payload: object, key: string) =>
        client.query('select graphile_worker.add_job($1, $2, job_key := $3)', [task, JSON.stringify(payload), key]);
      await add('fetch_snapshot', { dataset: 'inc' }, 'fetch_snapshot:inc:newest');
      await add('upsert_batch', { snapshot_id: 1, batch: 1 }, 'upsert_batch:1:1');
      await add('finalize_snapshot', { snapshot_id: 1 }, 'held by a dead worker');
      await add('geocode_cluster', { cluster: 'Nyali' }, 'geocode_cluster:nyali');
      await client.query(
        `update graphile_worker._private_jobs set locked_at = now(), locked_by = 'killed' where key like 'held%'`,
      );
      await client.query(
        `insert into tickets_ops.workers (pool_id, host, pid, sessions, shares_sessions) values ('lives', 'h', 1, 's', true)`,
      );
      await assert.rejects(client.query('select tickets_takeover.go_back()'), /A worker is alive: stop it first/);
      await client.query('update tickets_ops.workers set stopped_at = now()');
      await client.query('select tickets_takeover.go_back()');
    });
    await takeOver(database);
    assert.deepEqual(await rows(database, 'select key from tickets_ops.jobs'), [{ key: 'geocode_cluster:nyali' }]);
  });
});
