import assert from 'node:assert/strict';
import { after, before, beforeEach, describe, test } from 'node:test';
import { feed } from '../../demo/feed.ts';
import { type Environment, startEnvironment } from '../support/environment.ts';
import { csvOf, fetchNow, keyOf, ledger, PREFIX, rawTickets, rowVersions, TICKETS } from '../support/pipeline.ts';

/** What the feed says of its files as the ledger does. */
const COUNTS = [
  'rows_read',
  'rows_inserted',
  'rows_updated',
  'rows_unchanged',
  'rows_dropped_alarm',
  'rows_dropped_sentinel',
  'rows_duplicate',
  'rows_rejected',
  'rows_repaired',
  'open_missing',
] as const;

describe('the history of tickets', () => {
  let env: Environment;
  before(async () => {
    env = await startEnvironment();
  });
  after(() => env.close());
  beforeEach(() => env.reset());

  test('a generated feed becomes exactly the tickets, counts, rejects and events that its author expects, hour by hour', async () => {
    for (const { name, csv, expected, tickets, at } of feed({ seed: 11, hours: 6, tickets: 1_200 })) {
      const before = await rowVersions(env);
      await env.putObject(`${PREFIX}${name}`, csv);
      assert.deepEqual(await fetchNow(env), [], name);
      const entry = (await ledger(env)).at(-1) ?? assert.fail();
      assert.equal(entry.file, name);
      assert.deepEqual(
        await rawTickets(env),
        Object.fromEntries([...tickets].sort(([a], [b]) => (a < b ? -1 : 1))),
        name,
      );
      const after = await rowVersions(env);
      const touched = Object.keys(after).filter((id) => after[id] !== before[id]);
      if (expected.identical) {
        assert.equal(entry.status, 'unchanged', name);
        assert.deepEqual(touched, []);
        continue;
      }
      const counts = Object.fromEntries(COUNTS.map((count) => [count, expected[count]]));
      assert.deepEqual({ ...entry, status: 'done', ...counts }, entry, name);
      assert.equal(touched.length, expected.rows_inserted + expected.rows_updated, 'only what changed was written');
      const { rows: rejects } = await env.pool.query(
        'select line::int, reason from tickets_ops.snapshot_rejects where snapshot_id = $1 order by line',
        [entry.snapshot_id],
      );
      assert.deepEqual(
        rejects.map(({ line, reason }) => ({ line, reason: reason === 'no ticket_id' ? reason : 'field count' })),
        expected.rejects,
        name,
      );
      const { rows: events } = await env.pool.query(
        `select event, count(*)::int as n, min(snapshot_at) as first, max(snapshot_at) as last from ${TICKETS}_events where snapshot_id = $1 group by event`,
        [entry.snapshot_id],
      );
      const nothing = { opened: 0, closed: 0, reopened: 0, status_changed: 0, team_changed: 0, cluster_changed: 0 };
      assert.deepEqual(
        { ...nothing, ...Object.fromEntries(events.map(({ event, n }) => [event, n])) },
        expected.events,
        name,
      );
      for (const { first, last } of events) assert.deepEqual([first, last], [at, at]);
    }
  });

  test('says what changed from what to what, and nothing of what did not', async () => {
    const id = 'WOT0000001';
    const states: Record<string, string>[] = [
      { is_actionable: 'true', normalized_status: 'Open', assigned_team: 'A', cluster: 'Kilimani' },
      { is_actionable: 'true', normalized_status: 'Open', assigned_team: 'B', cluster: 'Kilimani', mttr: '1' },
      { is_actionable: 'true', normalized_status: 'On Hold', assigned_team: '', cluster: 'Milimani' },
      { is_actionable: 'false', normalized_status: 'Closed', assigned_team: '', cluster: 'Milimani' },
      { is_actionable: 'false', normalized_status: 'Closed', assigned_team: '', cluster: 'Milimani', mttr: '2' },
      { is_actionable: 'true', normalized_status: 'Closed', assigned_team: '', cluster: 'Milimani' },
      { is_actionable: 'perhaps', normalized_status: 'Closed', assigned_team: '', cluster: 'Milimani' },
    ];
    for (const [n, state] of states.entries()) {
      await env.putObject(keyOf(n + 7), csvOf([{ ticket_id: id, ...state }]));
      assert.deepEqual(await fetchNow(env), []);
    }
    const { rows } = await env.pool.query(
      `select extract(hour from snapshot_at at time zone 'Africa/Nairobi')::int as hour, event, old_value, new_value from ${TICKETS}_events order by snapshot_at, event`,
    );
    assert.deepEqual(
      rows.map(({ hour, event, old_value, new_value }) => [hour, event, old_value, new_value]),
      [
        [7, 'opened', null, 'Open'],
        [8, 'team_changed', 'A', 'B'],
        [9, 'cluster_changed', 'Kilimani', 'Milimani'],
        [9, 'status_changed', 'Open', 'On Hold'],
        [9, 'team_changed', 'B', null],
        [10, 'closed', 'On Hold', 'Closed'],
        [10, 'status_changed', 'On Hold', 'Closed'],
        [11, 'closure_corrected', 'Closed', 'Closed'],
        [12, 'reopened', 'Closed', 'Closed'],
        [13, 'closed', 'Closed', 'Closed'],
      ],
    );
  });

  test('openings, closings and reopenings carry the ticket as it then was; other events carry nothing of it', async () => {
    const id = 'WOT0000001';
    const ticket = { ticket_id: id, cluster: 'Kilimani', region: 'Nairobi', owner: 'NOC', normalized_status: '' };
    const closed = { is_actionable: 'false', closed_at: '2026-06-15 08:30:00', mttr: '1.5', sla_status: 'Breached' };
    for (const [n, state] of [
      { is_actionable: 'true', assigned_team: 'A' },
      { ...closed, assigned_team: 'B', created_at_service: '2026-06-15 01:00:00' },
      { ...closed, assigned_team: 'C', mttr: '2' },
      { is_actionable: 'true', assigned_team: 'C' },
      { ...closed, assigned_team: 'C', closed_at: '' },
      { ...closed, assigned_team: 'C', sla_status: 'Compliant' },
    ].entries()) {
      await env.putObject(keyOf(n + 7), csvOf([{ ...ticket, ...state }]));
      assert.deepEqual(await fetchNow(env), []);
    }
    const { rows } = await env.pool.query(
      `select event, old_value, assigned_team, team_before, owner, cluster, region, created_at_service is not null as created,
         to_char(closed_at at time zone 'Africa/Nairobi', 'HH24:MI') as closed, mttr::int, sla_status
       from ${TICKETS}_events where event <> 'team_changed' order by event_id`,
    );
    const place = { owner: 'NOC', cluster: 'Kilimani', region: 'nairobi' };
    const nothing = {
      assigned_team: null,
      team_before: null,
      owner: null,
      cluster: null,
      region: null,
      created: false,
    };
    const told = { closed: '08:30', mttr: 90, sla_status: 'Breached' };
    const untold = { closed: null, mttr: null, sla_status: null };
    assert.deepEqual(rows, [
      { event: 'opened', old_value: null, assigned_team: 'A', team_before: null, ...place, created: false, ...untold },
      // NULL would say that it was first seen closed.
      { event: 'closed', old_value: '', assigned_team: 'B', team_before: 'A', ...place, created: true, ...told },
      { event: 'closure_corrected', old_value: null, ...nothing, ...told, mttr: 120 },
      { event: 'reopened', old_value: '', assigned_team: 'C', team_before: 'C', ...place, created: false, ...untold },
      {
        event: 'closed',
        old_value: '',
        assigned_team: 'C',
        team_before: 'C',
        ...place,
        created: false,
        ...told,
        closed: null,
      },
      { event: 'closure_corrected', old_value: null, ...nothing, ...told, sla_status: 'Compliant' },
    ]);
    await assert.rejects(
      env.pool.query(
        `insert into ${TICKETS}_events (ticket_id, event, assigned_team) values ('${id}', 'team_changed', 'A')`,
      ),
      /_events_context/,
    );
    await assert.rejects(
      env.pool.query(
        `insert into ${TICKETS}_events (ticket_id, event, cluster) values ('${id}', 'closure_corrected', 'Nyali')`,
      ),
      /_events_context/,
    );
  });

  test('a ticket that is first seen closed is closed; one that a file no longer lists has no event', async () => {
    await env.putObject(
      keyOf(7),
      csvOf([
        { ticket_id: 'WOT0000001', is_actionable: 'false', normalized_status: 'Resolved' },
        { ticket_id: 'WOT0000002', is_actionable: 'true' },
      ]),
    );
    await fetchNow(env);
    await env.putObject(
      keyOf(8),
      csvOf([{ ticket_id: 'WOT0000001', is_actionable: 'false', normalized_status: 'Resolved' }]),
    );
    await fetchNow(env);
    const { rows } = await env.pool.query(
      `select ticket_id, event, old_value, new_value from ${TICKETS}_events order by ticket_id`,
    );
    assert.deepEqual(rows, [
      { ticket_id: 'WOT0000001', event: 'closed', old_value: null, new_value: 'Resolved' },
      { ticket_id: 'WOT0000002', event: 'opened', old_value: null, new_value: null },
    ]);
    assert.equal((await ledger(env)).at(-1)?.open_missing, 1);
  });

  test('a ticket that somebody wrote past the pipeline gets a baseline at the end of the next load', async () => {
    const event = async () =>
      (await env.pool.query(`select ticket_id, event, new_value, snapshot_id from ${TICKETS}_events order by event_id`))
        .rows;
    await env.pool.query(
      `insert into ${TICKETS} (ticket_id, raw) values ('WOT7', '{"normalized_status": "Open"}'), ('WOT8', '{"normalized_status": "Open"}')`,
    );
    await env.pool.query(`delete from ${TICKETS} where ticket_id = 'WOT8'`);
    assert.deepEqual(await event(), []);
    await env.putObject(keyOf(7), csvOf([{ ticket_id: 'WOT9', is_actionable: 'true', normalized_status: 'Open' }]));
    assert.deepEqual(await fetchNow(env), []);
    const [{ snapshot_id: snapshot } = {}] = (await env.pool.query('select snapshot_id from tickets_ops.snapshots'))
      .rows;
    const expected = ['opened', 'baseline'].map((kind, n) => ({
      ticket_id: n === 0 ? 'WOT9' : 'WOT7',
      event: kind,
      new_value: 'Open',
      snapshot_id: snapshot,
    }));
    assert.deepEqual(await event(), expected);
    await env.putObject(
      keyOf(8),
      csvOf([{ ticket_id: 'WOT9', is_actionable: 'true', normalized_status: 'Open' }, { ticket_id: 'WOT10' }]),
    );
    assert.deepEqual(await fetchNow(env), []);
    assert.deepEqual((await event()).length, 3, 'nobody gets two');
    const { rowCount } = await env.pool.query('select from tickets_ops.unrecorded_tickets');
    assert.equal(rowCount, 0);
  });
});
