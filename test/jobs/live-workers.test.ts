/** Which workers count as living where their locks say nothing: all who ask are told the same. */
import assert from 'node:assert/strict';
import { after, before, beforeEach, describe, test } from 'node:test';
import { type Environment, startEnvironment } from '../support/environment.ts';
import { operations } from '../support/operations.ts';

let env: Environment;
before(async () => {
  env = await startEnvironment();
});
after(() => env.close());
beforeEach(() => env.reset());

const { one, rows, health } = operations(() => env);

/** Two workers of one session, with different settings, that were heard of so long ago. */
const workers = (age: string) =>
  env.pool.query(
    `with w as (
       insert into tickets_ops.workers (pool_id, host, pid, sessions, shares_sessions, started_at, seen_at)
       select pool, pool, 1, 's', true, now() - interval '1 hour', now() - $1::interval from unnest(array['one', 'other']) as pool
       returning pool_id
     )
     insert into tickets_ops.settings (name, pool_id, value)
     select s.name, w.pool_id, s.value from w, lateral (values ('GEOCODER_PROVIDER', 'opencage'), ('FEED_STALE_HOURS', case w.pool_id when 'one' then '3' else '4' end)) as s (name, value)`,
    [age],
  );

async function whatAllSay() {
  const { workers_alive, workers_unsure, problems } = await health();
  const text = problems.join('\n');
  return {
    alive: Number(workers_alive),
    unsure: Number(workers_unsure),
    metric: Number(
      (
        await one<{ value: string }>(
          `select sum(value) as value from tickets_ops.metrics where name = 'fleettickets_workers' and labels ->> 'state' in ('alive', 'unsure')`,
        )
      ).value,
    ),
    health: !/No worker is alive/.test(text),
    fetchNow: !/no worker is alive/.test(
      (await one<{ note: string }>('select note from tickets_ops.fetch_now()')).note,
    ),
    geocoding: (await one<{ has: boolean }>('select tickets_ops.has_geocoding_worker() as has')).has,
    settings: (await rows('select from tickets_ops.setting_problems()')).length > 0,
  };
}

describe('a worker on shared sessions, of which nobody can tell whether it lives', () => {
  test('counts as living while it was heard of in the last minute, for everybody who asks', async () => {
    await workers('50 seconds');
    const alive = { alive: 2, unsure: 2, metric: 2, health: true, fetchNow: true, geocoding: true, settings: true };
    assert.deepEqual(await whatAllSay(), alive);
  });

  test('counts as gone afterwards, for everybody who asks', async () => {
    await workers('70 seconds');
    const gone = { alive: 0, unsure: 0, metric: 0, health: false, fetchNow: false, geocoding: false, settings: false };
    assert.deepEqual(await whatAllSay(), gone);
  });
});
