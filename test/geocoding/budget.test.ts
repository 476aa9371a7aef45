/** Rate, budget and breaker as the database keeps them for all workers. */
import assert from 'node:assert/strict';
import { after, before, beforeEach, test } from 'node:test';
import { costOf, type DuePlace } from '../../src/geocoding/on-demand.ts';
import { type Environment, startEnvironment } from '../support/environment.ts';
import { setBack } from '../support/rows.ts';

let env: Environment;
before(async () => {
  env = await startEnvironment();
});
after(() => env.close());
beforeEach(() => env.reset());

const register = (rate: number, budget: number | null) =>
  env.pool.query(`select tickets_ops.register_geocoder('locationiq', $1, $2, 180, null)`, [rate, budget]);

async function reserve() {
  const { rows } = await env.pool.query<{
    granted: boolean;
    wait_ms: number;
    reserved_at: Date;
    slot_at: Date | null;
    reason: string | null;
  }>(`select * from tickets_ops.reserve_geocoding_call('locationiq')`);
  return rows[0] ?? assert.fail();
}

async function record(
  outcome: string,
  { retry = null as number | null, slotAt = new Date(), reason = 'because', place = '' } = {},
) {
  const { rows } = await env.pool.query<{ seconds: number | null }>(
    `select extract(epoch from tickets_ops.record_geocoding_call(
       'locationiq', $1, $2, $3, $4, 'Kilimani', $5, 'q', null) - clock_timestamp())::float8 as seconds`,
    [slotAt, outcome, reason, retry, place],
  );
  return rows[0]?.seconds ?? null;
}

async function glance() {
  const { rows } = await env.pool.query('select * from tickets_ops.geocoding where active');
  return rows[0];
}

const jobsThatWait = (hours: number) =>
  env.pool.query(
    `select graphile_worker.add_job('geocode_cluster', '{"cluster": "Kilimani"}', job_key := 'geocode_cluster:Kilimani',
       run_at := now() + make_interval(hours => $1))`,
    [hours],
  );

async function jobsDue(): Promise<number> {
  const { rows } = await env.pool.query('select count(*)::int as due from graphile_worker.jobs where run_at <= now()');
  return rows[0].due;
}

async function problems(): Promise<string[]> {
  const { rows } = await env.pool.query('select problems from tickets_ops.health');
  return rows[0].problems.filter((problem: string) => problem.includes(': Geocoding'));
}

const about = (actual: number | null, expected: number) =>
  assert.ok(actual !== null && Math.abs(actual - expected) < 2, `${actual} is not about ${expected}`);
const secondsToMidnight = () => (new Date().setUTCHours(24, 0, 0, 0) - Date.now()) / 1000;

/** Up to an hour from now: then slots follow each other, however slow this test is. */
const slotsAreTaken = () =>
  env.pool.query(`update tickets_ops.geocoding_providers set next_at = now() + interval '1 hour'`);

test('slots are one spacing apart, and a caller learns how long to wait, not when', async () => {
  await register(5, null);
  assert.equal((await reserve()).wait_ms, 0);
  await slotsAreTaken();
  const slots = [await reserve(), await reserve(), await reserve(), await reserve()];
  assert.ok(slots.every(({ granted }) => granted));
  const times = slots.map(({ slot_at }) => slot_at?.getTime() ?? 0);
  for (let i = 1; i < times.length; i++) about((times[i] as number) - (times[i - 1] as number), 206);
  for (const { wait_ms, reserved_at, slot_at } of slots)
    about(wait_ms, (slot_at?.getTime() ?? 0) - reserved_at.getTime());
});

test('what a run is said to take is what the slots take', async () => {
  await register(5, null);
  await slotsAreTaken();
  const [first, second] = [await reserve(), await reserve()];
  const spacing = ((second.slot_at?.getTime() ?? 0) - (first.slot_at?.getTime() ?? 0)) / 1000;
  const place = { queries: ['one', 'two'] } as unknown as DuePlace;
  const { fewestSeconds, mostSeconds } = await costOf(env.pool, Array(1000).fill(place), 5);
  about(fewestSeconds ?? 0, 1000 * spacing);
  about(mostSeconds ?? 0, 2000 * spacing);
});

test('an idle provider owes no slots of the past', async () => {
  await register(1, null);
  await setBack(env.pool, 'tickets_ops.geocoding_providers', 'next_at', '1 hour');
  const first = await reserve();
  assert.equal(first.wait_ms, 0);
  assert.ok(((await reserve()).slot_at?.getTime() ?? 0) - (first.slot_at?.getTime() ?? 0) >= 1_029);
});

test('the budget ends at midnight UTC and not before', async () => {
  await register(100, 2);
  assert.deepEqual([(await reserve()).granted, (await reserve()).granted], [true, true]);
  const refused = await reserve();
  assert.equal(refused.granted, false);
  assert.match(refused.reason ?? '', /daily budget of 2 calls is spent/);
  about(refused.wait_ms / 1000, secondsToMidnight());
  const spent = await glance();
  assert.deepEqual([spent.state, spent.used_today, spent.left_today], ['budget spent', 2, 0]);

  await env.pool.query('update tickets_ops.geocoding_providers set used_on = used_on - 1'); // the day is over
  assert.deepEqual([(await glance()).state, (await glance()).left_today], ['ready', 2]);
  assert.equal((await reserve()).granted, true);
  assert.deepEqual([(await glance()).used_today, (await glance()).left_today], [1, 1]);
});

test('a spent budget is spent while the provider is probed, too', async () => {
  await register(100, 1);
  assert.equal((await reserve()).granted, true);
  await record('rate_limited', { retry: 60 });
  await env.pool.query('update tickets_ops.geocoding_providers set breaker_until = now()');
  const refused = await reserve();
  assert.match(refused.reason ?? '', /daily budget of 1 calls is spent/);
  about(refused.wait_ms / 1000, secondsToMidnight());
  const { state, reason, until } = await glance();
  assert.deepEqual([state, reason], ['budget spent', 'The daily budget is spent; it comes back at midnight UTC.']);
  about((until.getTime() - Date.now()) / 1000, secondsToMidnight());
  await jobsThatWait(10);
  assert.match((await problems())[0] ?? '', /stands still \(budget spent\)/);

  await env.pool.query(`update tickets_ops.geocoding_providers set breaker_until = now() + interval '2 days'`);
  about((await reserve()).wait_ms / 1000, 2 * 86_400);
});

test('a call that is given back goes to the budget of its own day', async () => {
  await register(100, 10);
  const { rows } = await env.pool.query('select now() as today, now() - $1::interval as yesterday', ['1 day']);
  const { today, yesterday } = rows[0];
  const used = async () => (await glance()).used_today;
  const giveBack = async (reservedAt: Date) => {
    await env.pool.query(`select tickets_ops.return_geocoding_call('locationiq', $1)`, [reservedAt]);
    return used();
  };
  const keep = async (reservedAt: Date) => {
    const answer = await env.pool.query(`select tickets_ops.keep_geocoding_call('locationiq', $1) as may`, [
      reservedAt,
    ]);
    return [answer.rows[0].may, await used()];
  };
  for (let i = 0; i < 3; i++) await reserve();
  assert.deepEqual([await giveBack(yesterday), await giveBack(today)], [3, 2]);
  await record('key_refused');
  assert.deepEqual(
    [await keep(yesterday), await keep(today)],
    [
      [false, 2],
      [false, 1],
    ],
  );
});

test('the quota comes back at the reset time the provider names, else at midnight UTC', async () => {
  await register(100, null);
  about(await record('quota_spent'), secondsToMidnight());
  await env.reset();
  await register(100, null);
  about(await record('quota_spent', { retry: 3600 }), 3600);
  assert.equal((await glance()).state, 'quota spent');
  assert.equal((await reserve()).granted, false);
  about(await record('trouble'), 3600);
  assert.equal((await glance()).state, 'quota spent', 'a late failure of another kind does not shorten it');
});

test('after its time one caller at a time probes; success closes the breaker, failure opens it again', async () => {
  await register(100, null);
  await record('key_refused', { reason: 'LocationIQ answered 401: Invalid key' });
  const shut = await glance();
  assert.deepEqual([shut.state, shut.reason], ['key refused', 'LocationIQ answered 401: Invalid key']);
  assert.match((await reserve()).reason ?? '', /key refused: LocationIQ answered 401/);

  const timeIsUp = () => env.pool.query('update tickets_ops.geocoding_providers set breaker_until = now()');
  await timeIsUp();
  assert.equal((await reserve()).granted, true, 'one probes');
  assert.equal((await reserve()).granted, false, 'the others wait for it');
  about(await record('key_refused'), 600);

  await timeIsUp();
  assert.equal((await reserve()).granted, true);
  assert.equal(await record('found'), null);
  assert.equal((await glance()).state, 'ready');
  assert.deepEqual([(await reserve()).granted, (await reserve()).granted], [true, true]);
});

test('an answer to a call made before the breaker opened does not close it', async () => {
  await register(100, null);
  const slotAt = new Date(Date.now() - 5_000);
  await record('rate_limited', { retry: 60 });
  assert.notEqual(await record('found', { slotAt }), null);
  assert.equal((await glance()).state, 'rate limited');
});

test('a worker that starts with a refused key tries it at once: it may be a new one', async () => {
  await register(100, null);
  await record('key_refused');
  assert.equal((await reserve()).granted, false);
  await register(100, null);
  assert.equal((await reserve()).granted, true);
});

test('a worker that starts with a spent quota, or a larger budget, asks at once, and so do the jobs that waited', async () => {
  await register(100, null);
  await record('quota_spent');
  await jobsThatWait(10);
  await register(100, null);
  assert.equal(await jobsDue(), 1);
  assert.equal((await reserve()).granted, true);
  await record('found');

  await register(100, 1);
  await jobsThatWait(10);
  assert.equal((await reserve()).granted, false);
  await register(100, 1);
  assert.equal(await jobsDue(), 0, 'nothing has changed');
  await register(100, 5);
  assert.equal(await jobsDue(), 1);
  assert.equal((await reserve()).granted, true);
});

test('health says that places wait for a budget or a quota', async () => {
  await register(100, 1);
  await reserve();
  assert.deepEqual(await problems(), [], 'spent, but nobody waits for it');
  await jobsThatWait(10);
  assert.deepEqual(await problems(), [
    'Warning: Geocoding stands still (budget spent): The daily budget is spent; it comes back at midnight UTC.',
  ]);
  await record('quota_spent', { reason: 'OpenCage answered 402: quota exceeded' });
  assert.deepEqual(await problems(), [
    'Warning: Geocoding stands still (quota spent): OpenCage answered 402: quota exceeded',
  ]);
});

test('one place that always fails stops nobody; bad requests of five places do', async () => {
  await register(100, null);
  for (let i = 0; i < 9; i++) assert.equal(await record('unreadable', { place: 'poisoned' }), null);
  assert.equal(await record('found', { place: 'other' }), null);
  for (let i = 0; i < 9; i++) assert.equal(await record('bad_request', { place: 'poisoned' }), null);
  for (let i = 0; i < 3; i++) assert.equal(await record('bad_request', { place: `place ${i}` }), null);
  about(await record('bad_request', { place: 'the fifth', reason: 'LocationIQ answered 400: Invalid Request' }), 60);
  assert.deepEqual(await problems(), [
    'Fault: Geocoding stands still (trouble): LocationIQ answered 400: Invalid Request',
  ]);
});

test('single failures do not stop the others; those of five places in a row do, for longer each time', async () => {
  await register(100, null);
  const fail = (i: number) => record(i % 2 ? 'unreadable' : 'trouble', { place: `place ${i}` });
  for (let i = 0; i < 4; i++) assert.equal(await fail(i), null);
  assert.equal(await record('found'), null, 'a success starts the count anew');
  for (let i = 0; i < 4; i++) assert.equal(await fail(i), null);
  about(await fail(4), 60);
  assert.equal((await glance()).state, 'trouble');
  const pauses: number[] = [];
  for (let i = 0; i < 8; i++) pauses.push(Math.round((await record('trouble')) ?? 0));
  assert.deepEqual(pauses, [60, 120, 240, 480, 900, 900, 900, 900]);
});

test('Retry-After opens the breaker for that long', async () => {
  await register(100, null);
  about(await record('trouble', { retry: 7 }), 7);
  assert.equal((await glance()).state, 'trouble');
});

test('calls are counted by outcome', async () => {
  await register(100, null);
  for (const outcome of ['found', 'found', 'not_found', 'bad_request']) await record(outcome);
  assert.deepEqual((await glance()).calls_today, { found: 2, not_found: 1, bad_request: 1 });
});

test('without a provider it says why', async () => {
  assert.match((await glance()).reason, /No worker has started yet/);
  await env.pool.query(`select tickets_ops.register_geocoder(null, null, null, null, 'GEOCODER_PROVIDER is not set')`);
  assert.deepEqual([(await glance()).state, (await glance()).reason], ['off', 'GEOCODER_PROVIDER is not set']);
  await assert.rejects(() => reserve(), /No geocoding provider locationiq is registered/);
});
