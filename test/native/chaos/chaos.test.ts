/**
 * Two workers load one snapshot after another while everything breaks at random: they are killed, frozen and stopped,
 * Postgres restarts, the bucket and the provider fail, hang and crawl. Then the breaking ends, and checker.ts looks at
 * what has come of it. The order of mishaps is that of CHAOS_SEED (printed); CHAOS_SECONDS bounds it.
 */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { after, before, describe, test } from 'node:test';
import { Dice } from '../../../demo/chance.ts';
import { feed } from '../../../demo/feed.ts';
import { type Environment, native, startEnvironment, waitFor } from '../../support/environment.ts';
import { cutAfter, type Fault, type FaultProxy, hang, startFaultProxy, status } from '../../support/fault-proxy.ts';
import { type NativeServers, startNativeServers } from '../../support/native.ts';
import { DATASET, PREFIX } from '../../support/pipeline.ts';
import { killWorkers, startWorkerProcess, type WorkerProcess } from '../../support/worker-process.ts';
import { checkFiles, checkQueue, checkRate, checkTickets } from './checker.ts';
import { type ChaosProvider, startChaosProvider } from './provider.ts';

const SECONDS = Number(process.env['CHAOS_SECONDS'] ?? 120);
const SEED = Number(process.env['CHAOS_SEED'] ?? 1);
const RATE = 4;
const STATES = ['staging', 'loading', 'finalizing', 'done'] as const;

/** The answer comes in pieces with pauses between them. */
const crawl: Fault = async (response, upstream) => {
  const answer = await upstream();
  response.writeHead(answer.statusCode ?? 502, answer.headers);
  for await (const chunk of answer as AsyncIterable<Buffer>) {
    for (let at = 0; at < chunk.length; at += 16_384) {
      await new Promise((resolve) => setTimeout(resolve, 10));
      if (!response.write(chunk.subarray(at, at + 16_384))) await once(response, 'drain');
    }
  }
  response.end();
};

/** A worker that is started again whenever it ends, as its container would be. */
class Slot {
  worker: WorkerProcess | undefined;
  ends = 0;
  #settings: Record<string, string>;
  #ending = false;
  #running: Promise<void>;

  constructor(settings: Record<string, string>) {
    this.#settings = settings;
    this.#running = this.#run();
  }

  async #run(): Promise<void> {
    while (!this.#ending) {
      // While Postgres is away a worker ends before it has started.
      this.worker = await startWorkerProcess(this.#settings).catch(() => undefined);
      if (this.#ending) this.worker?.kill('SIGTERM');
      await this.worker?.exited;
      this.ends += 1;
    }
  }

  /** In good order. */
  async end(): Promise<void> {
    this.#ending = true;
    this.worker?.kill('SIGTERM');
    await this.#running;
  }
}

describe('chaos', { skip: !native && 'needs a native Postgres' }, () => {
  let servers: NativeServers;
  let env: Environment;
  let bucketProxy: FaultProxy;
  let provider: ChaosProvider;
  let shared: Record<string, string | undefined>;

  before(async () => {
    servers = await startNativeServers();
    shared = Object.fromEntries(Object.keys(servers.environment).map((name) => [name, process.env[name]]));
    Object.assign(process.env, servers.environment);
    env = await startEnvironment();
    bucketProxy = await startFaultProxy(env.s3.endpoint);
    provider = await startChaosProvider(RATE + 3); // as checkRate
    // When the database gave away each call: next_at is its slot and one spacing. Committed with it, so a crash of Postgres
    // keeps both or none.
    await env.pool.query(`
      create table public.slots (at timestamptz);
      create function public.note_slot() returns trigger language plpgsql as $$
      begin
        insert into public.slots values (new.next_at - make_interval(secs => tickets_ops.seconds_per_call(new.rate_per_second)));
        return null;
      end $$;
      create trigger note_slot after update of next_at on tickets_ops.geocoding_providers
        for each row when (new.next_at <> old.next_at) execute function public.note_slot()`);
  });
  after(async () => {
    await killWorkers();
    provider?.close();
    await bucketProxy?.close();
    await env?.close();
    Object.assign(process.env, shared);
    await servers?.close();
  });

  test('whatever breaks, nothing is lost, doubled or stuck', { timeout: (SECONDS + 240) * 1_000 }, async (t) => {
    // Made beforehand: it would keep this process from its mishaps.
    const files = Array.from(
      feed({ seed: SEED, hours: 2 + SECONDS, tickets: 6_000, changeShare: 0.01 }),
      ({ name, csv }) => ({ name, csv }),
    );
    const dice = new Dice(SEED);
    const injected: Record<string, number> = {};
    const count = (kind: string) => {
      injected[kind] = (injected[kind] ?? 0) + 1;
    };
    const slots = [1, 2].map(
      () =>
        new Slot({
          RUSTFS_ENDPOINT: bucketProxy.endpoint,
          GEOCODER_PROVIDER: 'locationiq',
          GEOCODER_API_KEY: provider.key,
          GEOCODER_BASE_URL: `${provider.endpoint}/v1`,
          GEOCODER_RATE_PER_SECOND: String(RATE),
        }),
    );
    t.after(() => Promise.all(slots.map((slot) => slot.end())));
    /** A query that may find Postgres away: then there is no answer. */
    const ask = async (sql: string, values: unknown[] = []) =>
      (await env.pool.query(sql, values).catch(() => undefined))?.rows;
    /** What killed two workers is set aside for an operator, which is this test. */
    const retrySetAside = () =>
      ask(
        `select tickets_ops.retry_job(id) from tickets_ops.failed_jobs where last_error like 'Its worker died%' and superseded is null`,
      );
    const isSettled = async (key: string) =>
      ((
        await ask(
          `select from tickets_ops.snapshots where source_key = $1 and (status = 'failed' or archived_at is not null or status = 'superseded' and error is null)`,
          [key],
        )
      )?.length ?? 0) > 0;
    const reached = (key: string, state: string) => async () => {
      const [found] = (await ask('select status from tickets_ops.snapshots where source_key = $1', [key])) ?? [];
      return found && STATES.indexOf(found.status) >= STATES.indexOf(state as never)
        ? true
        : ['unchanged', 'superseded', 'failed'].includes(found?.status);
    };
    const living = () => slots.flatMap(({ worker }) => (worker ? [worker] : []));
    const frozen = new Set<WorkerProcess>();
    const thaws: number[] = [];

    const mishaps: Record<string, () => Promise<unknown> | unknown> = {
      'worker killed (kill -9)': () => dice.pick(living())?.kill('SIGKILL'),
      'worker stopped (SIGTERM)': () => dice.pick(living())?.kill('SIGTERM'),
      'worker frozen (SIGSTOP)': () => {
        const worker = dice.pick(living());
        if (!worker) return;
        worker.kill('SIGSTOP');
        frozen.add(worker);
      },
      'all workers killed': () => {
        for (const worker of living()) worker.kill('SIGKILL');
      },
      'Postgres restarted': () => servers.restartPostgres('fast'),
      'Postgres crashed': () => servers.restartPostgres('immediate'),
      'bucket: listing fails': () => bucketProxy.inject(/^GET .*list-type=2/, status(503), 1 + dice.below(5)),
      'bucket: reading breaks off': () =>
        bucketProxy.inject(/^GET .*\.csv/, cutAfter(1 + dice.below(100_000)), 1 + dice.below(2)),
      'bucket: reading fails': () => bucketProxy.inject(/^GET .*\.csv/, status(500), 1 + dice.below(5)),
      'bucket: slow link': () => bucketProxy.inject(/^GET .*\.csv/, crawl, 1),
      'bucket: copied, unseen': () => bucketProxy.inject(/^PUT .*processed/, cutAfter(0), 1 + dice.below(2)),
      'bucket: deleted, unseen': () => bucketProxy.inject(/^DELETE /, cutAfter(0), 1 + dice.below(2)),
      'bucket: hangs': () => bucketProxy.inject(/^(HEAD|PUT|DELETE) /, hang(), 1),
      'provider: fails': () => provider.inject('fails', 1 + dice.below(6)),
      'provider: too many requests': () => provider.inject('too many requests', 1),
      'provider: breaks off': () => provider.inject('breaks off', 2),
      'provider: hangs': () => provider.inject('hangs', 2),
    };
    const kinds = Object.keys(mishaps);
    const healAll = () => {
      bucketProxy.heal();
      provider.heal();
      if (frozen.size > 0) thaws.push(Date.now());
      for (const worker of frozen) worker.kill('SIGCONT');
      frozen.clear();
    };

    const put = new Map<string, Buffer>();
    const deadline = performance.now() + SECONDS * 1_000;
    const putNext = async () => {
      const { name, csv } = files.shift() as { name: string; csv: Buffer };
      await env.putObject(PREFIX + name, csv);
      put.set(PREFIX + name, csv);
      await waitFor('Postgres to take the request', () => ask(`select tickets_ops.fetch_now('${DATASET}')`));
      return PREFIX + name;
    };

    for (let round = 0; performance.now() < deadline; round += 1) {
      const key = await putNext();
      // Every kind once, in turn, then by chance; one or two at a time.
      const chosen = [kinds[round % kinds.length] ?? dice.pick(kinds), ...(dice.chance(0.4) ? [dice.pick(kinds)] : [])];
      for (const kind of chosen) {
        if (!/^(bucket|provider)/.test(kind))
          await waitFor('the moment to come', reached(key, dice.pick(STATES)), 15_000).catch(() => undefined);
        await mishaps[kind]?.();
        count(kind);
      }
      if (dice.chance(0.2)) continue; // the next file comes before this one is in
      await waitFor('the snapshot to settle, or not', () => isSettled(key), 8_000).catch(() => undefined);
      healAll();
      await waitFor(`${key} to settle`, () => isSettled(key), 100_000);
    }
    healAll();

    // The end of it: one more file, which must go through.
    const last = await putNext();
    await waitFor(
      'the last snapshot to be loaded',
      async () => {
        await retrySetAside();
        const rows = await ask(`select from tickets_ops.snapshots where source_key = $1 and archived_at is not null`, [
          last,
        ]);
        return (rows?.length ?? 0) > 0;
      },
      100_000,
    );
    await waitFor(
      'the bucket to be looked at, and the queue to come to rest',
      async () => {
        await retrySetAside();
        const rows = await ask(
          `select from tickets_ops.jobs where task not like 'geocode%' and task <> 'fleettickets_maintain' and state <> 'failed'`,
        );
        return rows?.length === 0;
      },
      100_000,
    );
    // What was loaded and not archived is archived by the next look.
    await ask(`select tickets_ops.fetch_now('${DATASET}')`);
    await waitFor(
      'the last look',
      async () =>
        (await ask(`select from tickets_ops.jobs where task = 'fetch_snapshot' and state <> 'failed'`))?.length === 0,
      60_000,
    );
    await ask(`select graphile_worker.add_job('fleettickets_maintain', job_key := 'fleettickets_maintain')`);
    await waitFor(
      'the last maintenance',
      async () => (await ask(`select from tickets_ops.jobs where task = 'fleettickets_maintain'`))?.length === 0,
      60_000,
    );

    const bucket = new Map<string, Buffer>();
    for (const key of await env.listKeys()) bucket.set(key, await env.getObject(key));
    const ledger = await checkFiles(env.pool, put, bucket);
    const { tickets, events } = await checkTickets(env.pool, put, ledger);
    await checkQueue(env.pool);
    const outcomes = Object.entries(Object.groupBy(ledger, ({ status: outcome }) => outcome)).map(
      ([outcome, rows]) => `${rows?.length} ${outcome}`,
    );
    t.diagnostic(
      `seed ${SEED}: ${put.size} files (${outcomes.join(', ')}), ${tickets} tickets, ${events} events, ${slots.reduce((sum, { ends }) => sum + ends, 0)} workers ended`,
    );
    // In this order: geocoding goes on, and a slot without its call does no harm.
    const { arrivals, refused } = await provider.report();
    const { rows: given } = await env.pool.query<{ at: Date }>('select at from public.slots order by at');
    const most = checkRate(
      given.map(({ at }) => at.getTime()),
      arrivals,
      thaws,
      RATE,
    );
    t.diagnostic(
      `provider: ${arrivals.length} calls of ${given.length} that were given away, at most ${most} in a second at ${RATE} allowed`,
    );
    for (const [kind, times] of Object.entries(injected).sort()) t.diagnostic(`${String(times).padStart(3)} × ${kind}`);
    assert.equal(refused, 0, 'calls that the provider refused as too many');
    await Promise.all(slots.map((slot) => slot.end()));
    const { rows: left } = await env.pool.query(`select from tickets_ops.jobs where state = 'running'`);
    assert.equal(left.length, 0, 'SIGTERM leaves nothing locked');
  });
});

test('the checker of the rate finds a crowded second, a call that nobody gave away, and one that came too late', () => {
  const slots = [0, 260, 520, 780, 1_040];
  assert.equal(checkRate(slots, [10, 270, 700, 1_020, 1_100], [], 4), 4);
  assert.equal(checkRate(slots, [499, 500, 600, 800, 1_040], [], 4), 5, 'late, all of them, but allowed');
  assert.throws(() => checkRate([0, 249, 498, 747, 996], [], [], 4), /gave away 5 calls within 996 ms/);
  assert.throws(() => checkRate(slots, [0, 100], [], 4), /no time of its own/);
  assert.throws(() => checkRate([0], [751], [], 4), /no time of its own/);
  assert.equal(checkRate([0], [9_001], [9_000], 4), 1, 'it was frozen as it called');
  assert.throws(() => checkRate([0], [9_001, 9_002], [9_000], 4), /no time of its own/);
});
