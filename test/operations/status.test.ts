/** fleettickets status: health as a page, as JSON and as an exit code. */
import assert from 'node:assert/strict';
import { after, before, beforeEach, describe, test } from 'node:test';
import { page } from '../../src/commands/status.ts';
import type { Status } from '../../src/operations/status.ts';
import { fleettickets } from '../support/command.ts';
import { type Environment, startEnvironment } from '../support/environment.ts';
import { first, operations } from '../support/operations.ts';
import { PREFIX } from '../support/pipeline.ts';

let env: Environment;
before(async () => {
  env = await startEnvironment();
});
after(() => env.close());
beforeEach(() => env.reset());

const { load, liveWorker } = operations(() => env);

describe('status', () => {
  test('is a page that a person can read', () => {
    const status: Status = {
      health: {
        ok: false,
        problems: ['Fault: Snapshot 8 (automations/inc/2026-06-15T10-00-00.csv) failed: No ticket CSV: it is empty'],
        checked_at: '2026-06-15T07:15:03+00:00',
        checked_key: 'automations/inc/2026-06-15T10-00-00.csv',
        checked_status: 'failed',
        loaded_snapshot_id: 7,
        loaded_key: 'automations/inc/2026-06-15T09-00-00.csv',
        loaded_at: '2026-06-15T06:15:10+00:00',
        loaded_status: 'done',
        data_at: '2026-06-15T06:00:00+00:00',
        open_missing: 3,
        in_flight_snapshot_id: 9,
        in_flight_status: 'loading',
        in_flight_idle: '00:00:02',
        missed_run_at: null,
        next_run_at: '2026-06-15T08:15:00+00:00',
        jobs_waiting: 4,
        oldest_waiting_age: '00:01:05',
        jobs_running: 2,
        jobs_failed: 1,
        workers_alive: 2,
        workers_unsure: 0,
        geocoding_state: 'ready',
        geocoding_budget_left: 4832,
        geocoding_jobs: 12,
        places_for_review: 5,
      },
      datasets: [],
      snapshots: [
        {
          snapshot_id: 8,
          dataset: 'inc',
          file: 'automations/inc/2026-06-15T10-00-00.csv',
          status: 'failed',
          at: '2026-06-15T07:15:03+00:00',
          read: 0,
          inserted: 0,
          updated: 0,
          rejected: 0,
          reason: 'No ticket CSV: it is empty',
        },
      ],
      failing: [
        {
          id: 17,
          task: 'geocode_cluster',
          state: 'retrying',
          attempts: '2 of 6',
          next_at: '2026-06-15T07:21:00+00:00',
          error: 'locationiq: no\nanswer',
        },
      ],
    };
    assert.equal(
      page(status, new Date('2026-06-15T07:20:00Z')),
      `Needs attention:
  - Fault: Snapshot 8 (automations/inc/2026-06-15T10-00-00.csv) failed: No ticket CSV: it is empty

Tickets    as of Mon 15 Jun 09:00 EAT, 80 min ago; 3 open tickets are not in the newest file
Last look  Mon 15 Jun 10:15 EAT, 5 min ago: automations/inc/2026-06-15T10-00-00.csv failed
Last load  Mon 15 Jun 09:15 EAT, 65 min ago: snapshot 7, automations/inc/2026-06-15T09-00-00.csv done
In flight  snapshot 9 is loading, moved 2 s ago
Next run   Mon 15 Jun 11:15 EAT
Jobs       4 due (the oldest for 00:01:05), 2 running, 1 failed
Workers    2 alive
Geocoding  ready, 4832 calls left today; 12 places wait, 5 are to be reviewed

Last snapshots
 id | file                    | when                 | status | read | inserted | updated | rejected | reason
----+-------------------------+----------------------+--------+------+----------+---------+----------+----------------------------
  8 | 2026-06-15T10-00-00.csv | Mon 15 Jun 10:15 EAT | failed |    0 |        0 |       0 |        0 | No ticket CSV: it is empty

Failing jobs: select * from tickets_ops.retry_job(id) tries one again
 id | task            | state    | attempts | next                 | error
----+-----------------+----------+----------+----------------------+-----------------------
 17 | geocode_cluster | retrying | 2 of 6   | Mon 15 Jun 10:21 EAT | locationiq: no answer
`,
    );
  });

  test('exits with 1 when something needs a person, and with 0 when not; as JSON it is the health row', async () => {
    await load(first);
    const bad = await fleettickets({}, 'status');
    assert.equal(bad.status, 1);
    assert.match(bad.out, /^Needs attention:\n {2}- Fault: No worker is alive/);
    await liveWorker();
    const good = await fleettickets({}, 'status', '--json');
    assert.equal(good.status, 0, good.err);
    const { health: shown, snapshots: listed, failing } = JSON.parse(good.out) as Status;
    assert.deepEqual([shown.ok, shown.loaded_key, listed.length, failing], [true, `${PREFIX}${first.name}`, 1, []]);
  });
});
