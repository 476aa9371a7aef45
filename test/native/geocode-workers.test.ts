/**
 * Several worker processes on one provider: the rate over all of them, and what a killed one costs.
 * Needs a real Postgres: the embedded one has a single session, so nothing is concurrent there.
 */
import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { after, afterEach, before, beforeEach, describe, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import pg from 'pg';
import { pino } from 'pino';
import { withClient } from '../../src/database/client.ts';
import { RetentionSettings, readSettings } from '../../src/settings/settings.ts';
import { maintain } from '../../src/worker/maintenance.ts';
import { type Environment, native, startEnvironment, waitFor } from '../support/environment.ts';
import {
  locationiqPlace,
  type ScriptedProvider,
  startScriptedProvider,
  UNABLE_TO_GEOCODE,
} from '../support/scripted-provider.ts';
import { startWorkerProcess } from '../support/worker-process.ts';

const WORKER = fileURLToPath(new URL('../support/geocoding-worker.ts', import.meta.url));

describe('geocoding workers', { skip: !native && 'needs a native Postgres' }, () => {
  let env: Environment;
  let server: ScriptedProvider;
  const workers: ChildProcess[] = [];

  before(async () => {
    [env, server] = await Promise.all([startEnvironment(), startScriptedProvider()]);
    // Each reservation as the database makes it; next_at is its slot and one spacing.
    await env.pool.query(`
      create table slots (slot_at timestamptz not null);
      create function keep_slot() returns trigger language plpgsql as $$
      begin
        insert into public.slots values (new.next_at - make_interval(secs => tickets_ops.seconds_per_call(new.rate_per_second)));
        return null;
      end
      $$;
      create trigger keep_slot after update of next_at on tickets_ops.geocoding_providers
        for each row execute function keep_slot();`);
  });
  after(async () => {
    await Promise.all([env.close(), server.close()]);
  });
  beforeEach(async () => {
    await env.reset();
    await env.pool.query('truncate slots');
    server.calls.length = 0;
    await env.pool.query(
      `insert into tickets.geo_clusters (cluster, geom) values ('Kilimani', st_setsrid(st_makepoint(36.78, -1.29), 4326))`,
    );
  });
  afterEach(async () => {
    const running = workers.splice(0).filter(({ exitCode, signalCode }) => exitCode === null && signalCode === null);
    await Promise.all(
      running.map((worker) => {
        worker.kill('SIGTERM');
        return once(worker, 'exit');
      }),
    );
  });

  function startWorker(rate: number): ChildProcess {
    const worker = spawn(process.execPath, [WORKER], {
      stdio: ['ignore', 'ignore', 'inherit'],
      env: {
        ...process.env,
        GEOCODER_PROVIDER: 'locationiq',
        GEOCODER_API_KEY: 'pk.0123456789',
        GEOCODER_BASE_URL: server.baseUrl,
        GEOCODER_RATE_PER_SECOND: String(rate),
        GEOCODER_DAILY_BUDGET: '100000',
      },
    });
    workers.push(worker);
    return worker;
  }

  const register = (rate: number, budget = 100_000) =>
    env.pool.query(`select tickets_ops.register_geocoder('locationiq', $1, $2, 180, null)`, [rate, budget]);
  const ask = (places: string[]) =>
    env.pool.query(`select tickets.geocode_location(place, 'Kilimani') from unnest($1::text[]) as place`, [places]);
  const names = (count: number) =>
    Array.from(
      { length: count },
      (_, i) => `Rose ${String.fromCharCode(97 + (i % 26), 97 + (((i / 26) | 0) % 26), 97 + ((i / 676) | 0))}x Court`,
    );

  /** The most events in any window of that many milliseconds. */
  function mostWithin(times: readonly number[], windowMs: number): number {
    const sorted = [...times].sort((a, b) => a - b);
    let first = 0;
    let most = 0;
    sorted.forEach((time, last) => {
      while (time - (sorted[first] as number) >= windowMs) first++;
      most = Math.max(most, last - first + 1);
    });
    return most;
  }

  /** No window of a second or a minute holds more reservations than the rate, by the database's clock. @returns the slots */
  async function assertRateKept(rate: number): Promise<number[]> {
    const { rows } = await env.pool.query<{ slot_at: Date }>('select slot_at from slots');
    const slots = rows.map(({ slot_at }) => slot_at.getTime());
    assert.ok(mostWithin(slots, 1_000) <= rate, `${mostWithin(slots, 1_000)} in a second`);
    assert.ok(mostWithin(slots, 60_000) <= rate * 60, `${mostWithin(slots, 60_000)} in a minute`);
    return slots;
  }

  for (const rate of [1, 5, 20]) {
    test(`twelve connections reserve at ${rate}/s: no window of a second or a minute holds more`, async () => {
      await register(rate);
      await Promise.all(
        Array.from({ length: 12 }, async () => {
          const client = new pg.Client({ connectionString: env.databaseUrl });
          await client.connect();
          for (let i = 0; i < 120; i++) {
            await client.query(`select from tickets_ops.reserve_geocoding_call('locationiq')`);
          }
          await client.end();
        }),
      );
      const slots = await assertRateKept(rate);
      assert.equal(slots.length, 1440);
      const used = (slots.length - 1) / ((Math.max(...slots) - Math.min(...slots)) / 1000) / rate;
      assert.ok(used >= 0.95, `${used} of the rate`);
    });
  }

  describe('a centroid that is being written', () => {
    const HOUR_MS = 3_600_000;
    const WRITE = `insert into tickets.geo_clusters (cluster, geom) values ('Rongai', st_setsrid(st_makepoint(36.74, -1.4), 4326))`;
    const SNOOZE = `select tickets_ops.snooze_geocoding(id, 'geocode_location', ${HOUR_MS}, 'Rongai') from graphile_worker._private_jobs`;

    /** One transaction does its work, the other starts and maybe waits for it, both commit. */
    async function interleave(earlier: string, later: string): Promise<void> {
      const [one, other] = await Promise.all([env.pool.connect(), env.pool.connect()]);
      try {
        const { rows } = await other.query('select pg_backend_pid() as pid');
        await one.query('begin');
        await one.query(earlier);
        let over = false;
        const end = other.query(later).finally(() => {
          over = true;
        });
        await waitFor('the second to end or to wait for the first', async () => {
          const { rows: blockers } = await env.pool.query('select from unnest(pg_blocking_pids($1))', [rows[0].pid]);
          return over || blockers.length > 0;
        });
        await one.query('commit');
        await end;
      } finally {
        one.release();
        other.release();
      }
    }
    const waiting = async () => {
      const { rows } = await env.pool.query<{ ms: number }>(
        `select 1000 * extract(epoch from run_at - now())::float8 as ms from graphile_worker.jobs
         where task_identifier = 'geocode_location' and locked_at is null`,
      );
      assert.equal(rows.length, 1);
      return rows[0]?.ms ?? Number.NaN;
    };
    /** A job of a place in Rongai, in the hands of a worker. */
    const runningJob = async () => {
      await env.pool.query(`select tickets.geocode_location('NW_Rose Court', 'Rongai', true)`);
      await env.pool.query(
        `update graphile_worker._private_jobs set locked_at = now(), locked_by = 'test', attempts = 1`,
      );
    };
    const ticket = () =>
      env.pool.query(
        `insert into tickets.inc (ticket_id, raw) values ('T1', '{"cluster": "Rongai", "location_name": "NW_Rose Court", "is_actionable": "true"}')`,
      );
    beforeEach(() => register(100));

    test('wakes a place that goes to wait for it before', async () => {
      await runningJob();
      await interleave(SNOOZE, WRITE);
      assert.ok((await waiting()) <= 0);
    });

    test('is not waited for by a place that looks for it meanwhile: it looks again soon', async () => {
      await runningJob();
      await interleave(WRITE, SNOOZE);
      assert.ok((await waiting()) <= 2_000);
    });

    test('holds up no maintenance, which plans nothing that would miss it', async () => {
      await ticket();
      await meanwhile(WRITE);
      assert.ok((await waiting()) <= 0);
    });

    test('nor does a job that somebody adds in a transaction left open', async () => {
      await env.pool.query(WRITE);
      await env.pool.query('delete from graphile_worker._private_jobs');
      await ticket();
      const said = await meanwhile(`select tickets.geocode_location('NW_Rose Court', 'Rongai', true)`);
      assert.match(said, /places are planned in the next run/);
      await waiting();
    });

    /** Maintenance runs while a transaction that has done this is open. @returns what it logs */
    async function meanwhile(work: string): Promise<string> {
      const person = await env.pool.connect();
      const said: string[] = [];
      // Of the process that runs the maintenance: one without a provider would switch geocoding off, as no worker has one.
      Object.assign(process.env, { GEOCODER_PROVIDER: 'locationiq', GEOCODER_API_KEY: 'a key of a test' });
      try {
        await person.query('begin');
        await person.query(work);
        await withClient(env.databaseUrl, (client) =>
          maintain(
            client,
            'none',
            readSettings(RetentionSettings),
            pino({ level: 'warn' }, { write: (line) => void said.push(line) }),
          ),
        );
        await person.query('commit');
      } finally {
        person.release();
        delete process.env['GEOCODER_PROVIDER'];
        delete process.env['GEOCODER_API_KEY'];
      }
      return said.join('');
    }
  });

  for (const { processes, rate, calls, share } of [
    { processes: 2, rate: 1, calls: 8, share: 0.95 },
    // Longer than a minute: the window that binds on LocationIQ's free plan.
    { processes: 3, rate: 1, calls: 62, share: 0.95 },
    { processes: 2, rate: 5, calls: 30, share: 0.95 },
    { processes: 3, rate: 5, calls: 30, share: 0.95 },
    { processes: 2, rate: 20, calls: 100, share: 0.9 },
    { processes: 3, rate: 20, calls: 100, share: 0.9 },
  ]) {
    test(`${processes} workers at ${rate}/s use at least ${100 * share} % of it`, async (t) => {
      await register(rate);
      server.script(async ({ query }) => ({ json: [locationiqPlace(query.split(',')[0] ?? '', -1.295, 36.785)] }));
      await startWorkers(processes, rate);
      // The first calls of a process are late: it loads what it needs to make them.
      const first = processes + 2 * rate;
      await ask(names(first + calls + 30));
      await server.called(first + calls);
      const arrived = server.calls.slice(first, first + calls).map(({ arrived }) => arrived);
      const seconds = ((arrived.at(-1) as number) - (arrived[0] as number)) / 1000;
      const slots = (await assertRateKept(rate)).sort((a, b) => a - b).slice(first, first + calls);
      assert.equal(slots.length, calls);
      const slotSeconds = ((slots.at(-1) as number) - (slots[0] as number)) / 1000;
      const used = (calls - 1) / slotSeconds / rate;
      const jitter = Math.max(...arrived.map((time, i) => Math.abs(time - (arrived[0] as number) - (i * 1030) / rate)));
      t.diagnostic(
        `${(100 * used).toFixed(1)} % used; most in a second at the server ${mostWithin(arrived, 1_000)}, largest jitter ${jitter.toFixed(0)} ms`,
      );
      assert.ok(used >= share, `${used} of the rate`);
      // What was given away was used as well; a machine that stalls may cost two calls' time.
      assert.ok((calls + 1) / seconds / rate >= share, `${calls} calls in ${seconds} s`);
    });
  }

  async function startWorkers(count: number, rate: number): Promise<void> {
    for (let i = 0; i < count; i++) startWorker(rate);
    await waitFor('all workers', async () => {
      const { rows } = await env.pool.query(
        'select count(*)::int as started from tickets_ops.workers where stopped_at is null',
      );
      return rows[0].started === count;
    });
  }

  test('three workers on one small budget: so many calls and not one more; the other places wait', async () => {
    await register(20, 7);
    server.script(({ query }) => ({ json: [locationiqPlace(query.split(',')[0] ?? '', -1.295, 36.785)] }));
    await startWorkers(3, 20);
    await ask(names(30));
    await waitFor('all places to be found or to wait for midnight', async () => {
      const { rows } = await env.pool.query(
        `select count(*)::int as moving from graphile_worker.jobs
         where locked_at is not null or run_at < tickets_ops.next_utc_midnight() - interval '1 minute'`,
      );
      return rows[0].moving === 0;
    });
    assert.equal(server.calls.length, 7);
    const { rows: waiting } = await env.pool.query(
      'select attempts, last_error, count(*)::int as jobs from graphile_worker.jobs group by 1, 2',
    );
    assert.deepEqual(waiting, [{ attempts: 0, last_error: null, jobs: 23 }]);
    const { rows } = await env.pool.query('select state, used_today, left_today from tickets_ops.geocoding');
    assert.deepEqual(rows, [{ state: 'budget spent', used_today: 7, left_today: 0 }]);
  });

  test('kill -9 during a call: the place is asked once more, and its earlier answers are not asked again', async () => {
    await register(20);
    server.script(({ query }, number) => {
      if (number === 1) return UNABLE_TO_GEOCODE;
      if (number === 2) return { hang: true };
      return query.startsWith('Buruburu Phase 5,')
        ? UNABLE_TO_GEOCODE
        : { json: [locationiqPlace('Buruburu', -1.286, 36.88)] };
    });
    await ask(['NW_Buruburu PH5']);
    const victim = startWorker(20);
    await server.called(2);
    victim.kill('SIGKILL');
    await once(victim, 'exit');
    await env.pool.query('select graphile_worker.force_unlock_workers(array_agg(locked_by)) from graphile_worker.jobs');
    startWorker(20);
    await waitFor(
      'the place',
      async () => (await env.pool.query('select from tickets.geo_locations')).rows.length === 1,
    );
    assert.deepEqual(
      server.calls.map(({ query }) => query),
      [
        'Buruburu Phase 5, Kilimani, Kenya',
        'Buruburu Phase 5, Kenya',
        'Buruburu Phase 5, Kenya',
        'Buruburu, Kilimani, Kenya',
      ],
    );
    const { rows } = await env.pool.query('select status from tickets.geo_locations');
    assert.deepEqual(rows, [{ status: 'found' }]);
  });

  test('a verdict does not get in the way of a load: it waits, and no call is repeated', async () => {
    await register(20);
    server.script(() => ({ json: [locationiqPlace('Rose Court', -1.295, 36.785)] }));
    const load = await env.pool.connect();
    try {
      await load.query('begin');
      await load.query('select pg_advisory_xact_lock_shared(tickets.gazetteer_lock())');
      await ask(['NW_Rose Court']);
      startWorker(20);
      await waitFor('the job to put itself back', async () => {
        const { rows } = await env.pool.query(
          `select from graphile_worker._private_jobs where (payload ->> 'snoozes')::int >= 1 and locked_at is null`,
        );
        return rows.length === 1;
      });
      const { rows } = await env.pool.query(
        `select count(*)::int as waiting from pg_locks where locktype = 'advisory' and not granted and database = (select oid from pg_database where datname = current_database())`,
      );
      assert.deepEqual(rows, [{ waiting: 0 }], 'nobody queues for the gazetteers');
      await load.query('commit');
    } finally {
      load.release();
    }
    await waitFor(
      'the verdict',
      async () => (await env.pool.query('select from tickets.geo_locations')).rows.length === 1,
    );
    assert.equal(server.calls.length, 1);
  });

  test('a centroid that moves between the judging and the lock: the verdict is by the new one', async () => {
    await register(20);
    await env.pool.query(
      `insert into tickets_ops.geocoding_answers (cluster, location_key, query, provider, candidates) values
         ('Kilimani', 'rose court', 'q', 'locationiq', $1)`,
      [JSON.stringify([{ lat: -1.295, lng: 36.785, level: 'point', country: 'ke', label: 'Rose Court' }])],
    );
    // A session that is about to take the lock waits for the one that holds this one, who does not.
    const {
      rows: [original],
    } = await env.pool.query(`select pg_get_functiondef('tickets.gazetteer_lock()'::regprocedure) as definition`);
    const person = await env.pool.connect();
    try {
      await person.query(`
        create or replace function tickets.gazetteer_lock() returns bigint language plpgsql immutable parallel safe as $$
        begin
          perform pg_advisory_lock(42), pg_advisory_unlock(42);
          return 7405120260615;
        end
        $$`);
      await person.query('select pg_advisory_lock(42)');
      const verdict = env.pool.query(
        `select tickets_ops.resolve_location('Kilimani', 'rose court', 'Rose Court', 'locationiq', true) as status`,
      );
      await waitFor('the verdict to be about to take the lock', async () => {
        const { rows } = await person.query(
          `select from pg_locks where locktype = 'advisory' and objid = 42 and not granted`,
        );
        return rows.length === 1;
      });
      await person.query(`update tickets.geo_clusters set geom = st_setsrid(st_makepoint(39.6682, -4.0435), 4326)`);
      await person.query('select pg_advisory_unlock(42)');
      assert.equal((await verdict).rows[0].status, 'rejected');
      const { rows } = await env.pool.query('select status, round(distance_km)::int as km from tickets.geo_locations');
      assert.deepEqual(rows, [{ status: 'rejected', km: 442 }]);
    } finally {
      await person.query('select pg_advisory_unlock_all()');
      person.release();
      await env.pool.query(original.definition);
    }
  });

  test('a key that works again: the breaker closes by itself, for all workers', async () => {
    await register(20);
    server.script(() => ({ status: 401, json: { error: 'Invalid key' } }));
    await ask(names(8));
    startWorker(20);
    startWorker(20);
    const state = async () => (await env.pool.query('select state from tickets_ops.geocoding')).rows[0]?.state;
    const pending = async () => {
      const { rows } = await env.pool.query(
        'select count(*) filter (where run_at <= now() or locked_at is not null)::int as due, count(*)::int as jobs from graphile_worker.jobs',
      );
      return rows[0];
    };
    await waitFor('the breaker', async () => (await state()) === 'key refused' && (await pending()).due === 0);
    const refused = server.calls.length;
    server.script(({ query }) => ({ json: [locationiqPlace(query.split(',')[0] ?? '', -1.295, 36.785)] }));
    await env.pool.query('update tickets_ops.geocoding_providers set breaker_until = now()');
    await env.pool.query('update graphile_worker._private_jobs set run_at = now() where locked_at is null');
    await waitFor('the probe', async () => (await state()) === 'ready');
    await waitFor('all places', async () => (await pending()).jobs === 0);
    assert.equal(server.calls.length - refused, 8, 'each place was asked once');
    const { rows } = await env.pool.query('select max(attempts) as attempts from graphile_worker.jobs');
    assert.equal(rows[0].attempts, null);
  });

  test('a second process without a provider does not switch geocoding off, and leaves its jobs to the first', async () => {
    const provider = {
      GEOCODER_PROVIDER: 'locationiq',
      GEOCODER_API_KEY: 'pk.0123456789abcdef-secret',
      GEOCODER_BASE_URL: server.baseUrl,
      GEOCODER_RATE_PER_SECOND: '20',
    };
    const nothing = { GEOCODER_PROVIDER: '', GEOCODER_API_KEY: '', GEOCODER_BASE_URL: '' };
    const state = async () =>
      (await env.pool.query('select state from tickets_ops.geocoding where active')).rows[0]?.state as string;
    server.script(({ query }) => ({ json: [locationiqPlace(query.split(',')[0] ?? '', -1.295, 36.785)] }));
    await env.pool.query('truncate tickets_ops.geocoding_setup');
    const first = await startWorkerProcess(provider);
    await waitFor('the first to be registered', async () => {
      const { rowCount } = await env.pool.query(`select from tickets_ops.settings where name = 'GEOCODER_PROVIDER'`);
      return rowCount;
    });
    const second = await startWorkerProcess(nothing);
    assert.equal(await state(), 'ready');
    await env.pool.query(
      `insert into tickets.inc (ticket_id, raw)
       select 'WOT' || n, jsonb_build_object('cluster', 'Kilimani', 'location_name', 'Zor' || chr(96 + n) || 'a Estate', 'is_actionable', 'true')
       from generate_series(1, 20) n`,
    );
    await env.pool.query(`select tickets_ops.plan_geocoding()`);
    await waitFor('all to be asked', async () => {
      const { rows } = await env.pool.query('select count(*)::int as found from tickets.geo_locations');
      return rows[0].found === 20;
    });
    assert.equal(await state(), 'ready');
    first.kill('SIGTERM');
    await first.exited;
    await env.pool.query(`select graphile_worker.add_job('fleettickets_maintain', '{}')`);
    await waitFor('the second to see that nobody has a provider', async () => (await state()) === 'off');
    second.kill('SIGTERM');
    await second.exited;
  });
});
