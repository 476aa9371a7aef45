/** docs/growth.md: the migration to a history by month, carried out on a database with a history. */
import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { after, before, describe, test } from 'node:test';
import { feed } from '../../demo/feed.ts';
import { type Environment, native, startEnvironment } from '../support/environment.ts';
import { fetchNow, PREFIX } from '../support/pipeline.ts';

const file = (name: string) => readFile(new URL(`../../${name}`, import.meta.url), 'utf8');

/** The SQL of the guide, as graphile-migrate would compile it. */
async function steps(): Promise<string[]> {
  const guide = await file('docs/growth.md');
  const blocks = [...guide.matchAll(/```sql norun\n([\s\S]*?)```/g)].map(([, sql = '']) => sql);
  return Promise.all(
    blocks.map(async (sql) => {
      let compiled = sql;
      for (const [line, name] of sql.matchAll(/^--!include (.*)$/gm))
        compiled = compiled.replace(line, await file(`migrations/fixtures/${name}`));
      return compiled;
    }),
  );
}

describe('a history by month', { skip: !native && 'needs a native Postgres' }, () => {
  let env: Environment;
  before(async () => {
    env = await startEnvironment();
  });
  after(() => env.close());

  const hours = [...feed({ seed: 11, hours: 8, tickets: 400 })];
  const load = async (from: number, to: number) => {
    for (const { name, csv } of hours.slice(from, to)) {
      await env.putObject(`${PREFIX}${name}`, csv);
      assert.deepEqual(await fetchNow(env), []);
    }
  };
  const answers = async () => {
    const { rows } = await env.pool.query(
      `select
         (select json_agg(c order by c.ticket_id, c.closure_no) from tickets.inc_closures c) as closures,
         (select json_agg(e order by e.event_id) from tickets.inc_events e) as events,
         (select json_agg(f) from tickets.inc_flow('2020-01-01', '2030-01-01', 'month', 'team') f) as flow,
         (select json_agg(f) from tickets.inc_repair_times('2020-01-01', '2030-01-01', 'month', 'team') f) as repair_times,
         (select json_agg(b) from tickets.inc_backlog_daily('2026-01-01', '2026-12-31', 'team') b) as backlog`,
    );
    return rows[0];
  };

  test('keeps every event and answer, takes what comes, and a look at a ticket stays on indexes', async () => {
    await load(0, 5);
    const known = await answers();
    assert.ok(known.events.length > 400);
    const [before = '', migration = ''] = await steps();
    await env.pool.query(before);
    await env.pool.query(`begin; ${migration}; commit`);
    await env.pool.query(await file('migrations/grants.sql'));
    assert.deepEqual(await answers(), known);

    await load(5, 8);
    const { rows } = await env.pool.query(
      `select count(*)::int as events, count(distinct event_id)::int as ids, min(event_id)::int as first from tickets.inc_events where event_id > $1`,
      [known.events.length],
    );
    assert.ok(rows[0]?.events > 0);
    assert.deepEqual([rows[0]?.ids, rows[0]?.first], [rows[0]?.events, known.events.length + 1]);
    const { rows: next } = await env.pool.query(
      `insert into tickets.inc_events (ticket_id, event, recorded_at)
       values ('WOT1', 'opened', now() + interval '40 days'), ('WOT1', 'opened', now() + interval '9 years')
       returning tableoid::regclass::text as partition`,
    );
    assert.match(next[0]?.partition, /^tickets\.inc_events_\d{4}_\d\d$/);
    assert.equal(next[1]?.partition, 'tickets.inc_events_later');
    const { rows: indexes } = await env.pool.query(
      `select count(*)::int as n from pg_index where indrelid in ('tickets.inc_events'::regclass, 'tickets.inc_events_before'::regclass) group by indrelid order by 1`,
    );
    assert.deepEqual(indexes, [{ n: 8 }, { n: 9 }], 'the partition keeps the indexes that it had, and gets no other');
    const { rows: plan } = await env.pool.query(
      `explain select * from tickets.inc_events where ticket_id = 'WOT1' order by event_id`,
    );
    assert.doesNotMatch(plan.map((line) => line['QUERY PLAN']).join('\n'), /Seq Scan/);
  });
});
