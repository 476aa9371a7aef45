/** `fleettickets report`: the page, its JSON, and what it refuses. */
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { feed } from '../../demo/feed.ts';
import { sparkline } from '../../src/terminal/sparkline.ts';
import { fleettickets } from '../support/command.ts';
import { type Environment, startEnvironment } from '../support/environment.ts';
import { fetchNow, PREFIX } from '../support/pipeline.ts';
import { countRows } from '../support/rows.ts';

const report = (...args: string[]) => fleettickets({}, 'report', ...args);

test('a sparkline has a bar a value: the largest is full, 0 is the lowest, what is not known is blank', () => {
  assert.equal(sparkline([0, 1, 4, 8, null, 7]), '▁▂▅█ █');
  assert.equal(sparkline([0, 0]), '▁▁');
  assert.equal(sparkline([]), '');
});

describe('fleettickets report', () => {
  let env: Environment;
  before(async () => {
    env = await startEnvironment();
  });
  after(() => env.close());

  test('before the first snapshot there is a page all the same', async () => {
    const { status, out, err } = await report();
    assert.equal(err, '');
    assert.equal(status, 0);
    assert.match(out, /No snapshot has been loaded yet\./);
    assert.match(out, /Backlog: no day of these has been looked at\./);
    assert.match(out, /Teams: none has closed, moved or open tickets\./);
    assert.match(out, /^Repair times: nothing was closed\.\n\nTime to close: nothing was opened\.$/m);
    assert.match((await report('--by', 'team')).out, /^By team: nothing came in or went out\.$/m);
  });

  test('it fits 100 columns, and a page, however long names are and however many teams there are', async () => {
    await env.pool.query(
      `insert into tickets.inc_events (ticket_id, event, new_value, snapshot_id, snapshot_at, assigned_team, created_at_service, closed_at, mttr)
       select 'WOT' || n, 'closed', 'Closed', 1, now(), left('Team ' || n % 30 || ' of ' || repeat('a long name ', 9), 100),
         now() - interval '20 days', now() - interval '1 hour', 123456
       from generate_series(1, 750) as n`,
    );
    await env.pool.query(
      `insert into tickets.inc (ticket_id, raw)
       select ticket_id, jsonb_build_object('ticket_id', ticket_id, 'is_actionable', 'false', 'created_at_service', created_at_service::text)
       from tickets.inc_events`,
    );
    const { out } = await report('--since', '52w', '--by', 'team');
    const lines = out.split('\n');
    assert.deepEqual(
      lines.filter((line) => [...line].length > 100),
      [],
    );
    assert.match(out, /^ Team 1 of a long na… +\| +25 \|/m);
    assert.equal(lines.filter((line) => line === 'and 10 more: --json').length, 2);
    await env.reset();
  });

  test('it tells flow, backlog, repair times and teams of the days asked for', async () => {
    const start = new Date(Math.floor(Date.now() / 3_600_000) * 3_600_000 - 3_600_000);
    for (const { name, csv } of feed({ seed: 5, hours: 2, tickets: 400, start })) {
      await env.putObject(PREFIX + name, csv);
      assert.deepEqual(await fetchNow(env), []);
    }
    const { out, status } = await report('--since', '4w', '--by', 'region');
    assert.equal(status, 0);
    assert.match(out, /^ {2}created {3}[▁-█]{28} {2}\d+$/m);
    assert.match(out, /^ {2}open .*\d+ on \d{4}-\d\d-\d\d/m);
    assert.match(out, /^Time to close of the \d+ that were opened, \d+ of them still open/m);
    assert.match(
      out,
      /^As of the snapshot of \w+ \d+ \w+ \d\d:\d\d EAT\.\nWhat happened after \w+ \d+ \w+ \d\d:\d\d EAT is/m,
    );
    assert.match(out, /^By region: /m);
    assert.match(out, /^ Athi River A \* {2,}\|/m, 'few closings are marked');

    const whole = JSON.parse((await report('--since', '28d', '--json')).out);
    assert.deepEqual([whole.by, whole.values, whole.flow.length, whole.backlog.length], [null, null, 28, 28]);
    const created = whole.flow.reduce((sum: number, day: { created: number }) => sum + day.created, 0);
    assert.match(out, new RegExp(`^  created .* ${created}$`, 'm'));
    assert.equal(whole.backlog.at(-1).open, await countRows(env.pool, 'tickets.inc where is_actionable'));

    const year = (await report('--since', '52w')).out;
    assert.match(year, /^Flow, 7 days a bar$/m);
    assert.match(year, /^ {2}created {3}[▁-█]{52} {2}\d+$/m);
    assert.match(year, /^40 earlier weeks: --json$|^39 earlier weeks: --json$/m);

    const [day] = (await env.pool.query('select tickets.eat_day(now())::text as day')).rows.map((row) => row.day);
    const fromToday = JSON.parse((await report('--since', day, '--json')).out);
    assert.deepEqual([fromToday.from, fromToday.flow.length], [day, 1]);
  });

  for (const [args, message] of [
    [['--since', 'yesterday'], /--since yesterday is neither days/],
    [['--since', '0d'], /is neither/],
    [['--since', '2026-13-01'], /is neither/],
    [['--since', '2026-02-30'], /is neither/],
    [['--since', '2099-01-01'], /is neither/],
    [['--since', '2010-01-01'], /of the last ten years/],
    [['--by', 'vehicle'], /--by vehicle: choose team, cluster, region, owner, status/],
  ] as const) {
    test(`${args.join(' ')} is refused`, async () => {
      const { status, err } = await report(...args);
      assert.equal(status, 2);
      assert.match(err, message);
      assert.match(err, /Usage: fleettickets report/);
    });
  }
});
