/**
 * Security: least privilege, hostile names and files, secrets.
 * The worker's role has exactly the rights that docs/privileges.md gives it: its SQL is what the test runs.
 */
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { after, afterEach, before, beforeEach, describe, test } from 'node:test';
import type pg from 'pg';
import { pino } from 'pino';
import { feed, type Snapshot } from '../../demo/feed.ts';
import { startProvider } from '../../demo/provider.ts';
import { withClient } from '../../src/database/client.ts';
import { migrate } from '../../src/database/schema.ts';
import { examine } from '../../src/operations/doctor/doctor.ts';
import type { Finding } from '../../src/operations/doctor/finding.ts';
import {
  asPerson,
  connectAsPerson,
  type Environment,
  native,
  startEnvironment,
  waitFor,
} from '../support/environment.ts';
import { type Fault, startFaultProxy } from '../support/fault-proxy.ts';
import { LICENCES_FILE, listLicences } from '../support/licences.ts';
import { type NativeServers, startNativeServers } from '../support/native.ts';
import { killWorkers, startWorkerProcess } from '../support/worker-process.ts';

const silent = pino({ level: 'silent' });
const PREFIX = 'automations/inc/';
const skip = !native && 'needs a native Postgres';

async function sqlOf(page: string): Promise<string[]> {
  const text = await readFile(new URL(`../../docs/${page}`, import.meta.url), 'utf8');
  return [...text.matchAll(/^```sql norun\n([\s\S]*?)^```/gm)].map(([, sql]) => sql ?? '');
}

/** Every row of every table, as text. */
async function everything(client: pg.Client): Promise<string> {
  const { rows: tables } = await client.query<{ name: string }>(
    `select oid::regclass::text as name from pg_class
     where relkind = 'r' and relnamespace::regnamespace::text in ('tickets', 'tickets_ops', 'graphile_worker', 'graphile_migrate')`,
  );
  const texts: string[] = [];
  for (const { name } of tables) {
    const { rows } = await client.query<{ text: string | null }>(
      `select string_agg(t::text, E'\\n') as text from ${name} t`,
    );
    texts.push(rows[0]?.text ?? '');
  }
  return texts.join('\n');
}

describe('least privilege', { skip }, () => {
  let servers: NativeServers;
  let admin: pg.Client;
  let worker: string;
  let env: Environment;
  const password = `secret-${randomBytes(6).toString('hex')}`;

  before(async () => {
    env = await startEnvironment(); // for its bucket
    servers = await startNativeServers(); // without our roles, which belong to the server
    const { TEST_DATABASE_URL = '' } = servers.environment;
    await withClient(TEST_DATABASE_URL, (client) => client.query('create database tracksolid_db'));
    const url = new URL(TEST_DATABASE_URL);
    url.pathname = '/tracksolid_db';
    admin = await connectAsPerson(url.href);
    url.username = 'fleettickets';
    url.password = password;
    worker = url.href;
  });
  after(async () => {
    await admin?.end();
    await env?.close();
    await servers?.close();
  });
  afterEach(killWorkers);

  const diagnose = async () => {
    const { DATABASE_URL } = process.env;
    process.env.DATABASE_URL = worker;
    const findings: Finding[] = [];
    for await (const finding of examine()) findings.push(finding);
    process.env.DATABASE_URL = DATABASE_URL;
    return findings;
  };

  test('the worker’s role, with no right but the documented ones, migrates and runs the whole pipeline', async (t) => {
    const [grants = '', , roles = '', monitor = ''] = await sqlOf('privileges.md');
    await admin.query(grants);
    await admin.query(
      `alter role fleettickets password '${password}'; create schema other; create table other.secret (x int)`,
    );
    await migrate(worker, silent);
    const { rows: ours } = await admin.query(
      `select from pg_roles where rolname in ('tickets_reader', 'tickets_operator')`,
    );
    assert.equal(ours.length, 0, 'it may not create roles, and goes on without');

    const provider = await startProvider({ rate: 100, key: 'secret-provider-key' });
    t.after(() => provider.close());
    const settings = {
      DATABASE_URL: worker,
      GEOCODER_PROVIDER: 'locationiq',
      GEOCODER_API_KEY: provider.key,
      GEOCODER_BASE_URL: `${provider.url}/v1`,
      GEOCODER_RATE_PER_SECOND: '50',
    };
    const process1 = await startWorkerProcess({ ...settings, LOG_LEVEL: 'trace' });
    const snapshots = [...feed({ hours: 2, tickets: 60 })];
    for (const snapshot of snapshots) {
      await env.putObject(PREFIX + snapshot.name, snapshot.csv);
      await admin.query('select tickets_ops.fetch_now()');
      await waitFor(`${snapshot.name} to be loaded`, async () => {
        const { rows } = await admin.query(
          `select from tickets_ops.snapshots where source_key = $1 and archived_at is not null`,
          [PREFIX + snapshot.name],
        );
        return rows.length === 1;
      });
    }
    await admin.query(
      `select graphile_worker.add_job('geocode_location', '{"location_name": "", "cluster": "Kilimani"}', max_attempts := 1)`,
    );
    await waitFor(
      'places to be found',
      async () => (await admin.query(`select from tickets.geo_locations where status = 'found'`)).rows.length > 0,
    );
    const { rows: tickets } = await admin.query<{ ticket_id: string; raw: object }>(
      'select ticket_id, raw from tickets.inc',
    );
    assert.deepEqual(
      new Map(tickets.map(({ ticket_id, raw }) => [ticket_id, raw])),
      new Map(snapshots.at(-1)?.tickets),
    );

    await withClient(worker, async (client) => {
      await assert.rejects(client.query('select * from other.secret'), /permission denied/);
      await assert.rejects(client.query('create role another'), /permission denied/);
      await assert.rejects(client.query('create extension dblink'), /permission denied|not available/);
    });

    // The DBA makes the roles, and the next migration grants.
    await admin.query(roles);
    await migrate(worker, silent);
    await admin.query(monitor);
    for (const [role, sql] of [
      ['tickets_reader', 'select * from tickets.inc_open_sla'],
      ['tickets_operator', 'select * from tickets_ops.fetch_now()'],
      ['tickets_monitoring', 'select ok, problems from tickets_ops.health'],
    ]) {
      await admin.query(`set role ${role}`);
      await admin.query(sql ?? '');
      await admin.query('reset role');
    }
    await admin.query('set role tickets_monitoring');
    await assert.rejects(admin.query('select * from tickets_ops.jobs'), /permission denied/);
    await admin.query('reset role');

    const output = [...process1.log.map((line) => JSON.stringify(line)), ...process1.noise].join('\n');
    const stored = await everything(admin);
    assert.ok(output.length > 10_000 && stored.length > 10_000);
    for (const secret of [password, 'secret-provider-key', env.s3.secretAccessKey]) {
      assert.ok(!output.includes(secret), 'a secret in the log');
      assert.ok(!stored.includes(secret), 'a secret in the database');
    }
    process1.kill('SIGTERM');
    assert.equal(await process1.exited, 0);
  });

  test('the doctor, as that role, finds its rights sufficient', async () => {
    const findings = await diagnose();
    assert.deepEqual(
      // The test's files are of last June.
      findings.filter(({ check, state }) => state === 'failed' && check !== 'feed'),
      [],
    );
    assert.equal(findings.find(({ check }) => check === 'rights')?.detail, 'fleettickets owns the tables');
  });

  test('where everybody may create functions, the doctor warns, and the documented remedy is one', async () => {
    const searchPath = async () => (await diagnose()).find(({ check }) => check === 'search path');
    await admin.query('grant create on schema public to public'); // as before Postgres 15
    const found = await searchPath();
    assert.equal(found?.state, 'warning');
    assert.equal(found?.remedy, 'let the DBA run: revoke create on schema public from public');
    const [, revoke = ''] = await sqlOf('privileges.md');
    await admin.query(revoke);
    assert.equal((await searchPath())?.state, 'ok');
  });
});

describe('hostile input', { skip }, () => {
  let env: Environment;
  before(async () => {
    env = await startEnvironment();
  });
  after(() => env.close());
  beforeEach(() => env.reset());

  const fetchNow = async () => {
    await env.pool.query('select tickets_ops.fetch_now()');
    return env.runJobs();
  };
  const ledger = async () =>
    (
      await env.pool.query<{ status: string; error: string | null; broken_off: string | null; source_key: string }>(
        'select * from tickets_ops.snapshots order by snapshot_id',
      )
    ).rows;

  const HOSTILE = [
    `'; drop table tickets.inc; --`,
    `"; drop table tickets.inc; --`,
    `$$; drop table tickets.inc; --`,
    `\\'; drop table tickets.inc; --`,
    `%I %s %L %% $1 :x {"a":1}`,
    `=cmd|' /C calc'!A0`,
    '@SUM(1+1)*cmd|',
    '+1-1',
    '<script>alert(1)</script>',
    'a\u202eb\u0007',
  ];

  test('SQL in a file’s name, its header and its fields is data, and so are formula cells', async () => {
    const quote = (text: string) => `"${text.replaceAll('"', '""')}"`;
    // Ids and the names of columns are kept without what nobody can see in them.
    const shown = (text: string) => text.replace(/[\p{Cc}\p{Cf}]/gu, '');
    const columns = [
      'ticket_id',
      'is_actionable',
      'cluster',
      'location_name',
      'normalized_status',
      'assigned_team',
      'created_at_service',
      'latitude',
      ...HOSTILE,
    ];
    const row = (text: string, i: number) => [
      `${text} ${i}`,
      'true',
      text,
      text,
      text,
      text,
      text,
      text,
      ...HOSTILE.map(() => text),
    ];
    const csv = [columns, ...HOSTILE.map(row)].map((fields) => fields.map(quote).join(',')).join('\n');
    const key = `${PREFIX}2026-06-15T07-00-00'; drop table tickets.inc; --"%.csv`;
    await env.putObject(key, csv);
    assert.deepEqual(await fetchNow(), []);
    assert.deepEqual(
      (await ledger()).map(({ status, source_key }) => [status, source_key]),
      [['done', key]],
    );
    assert.equal((await env.listKeys()).length, 1, 'archived');
    const { rows } = await env.pool.query<{ ticket_id: string; raw: Record<string, string>; cluster: string }>(
      'select ticket_id, raw, cluster from tickets.inc',
    );
    assert.equal(rows.length, HOSTILE.length);
    for (const [i, text] of HOSTILE.entries()) {
      const found = rows.find(({ ticket_id }) => ticket_id === `${shown(text)} ${i}`);
      assert.equal(found?.cluster, text);
      for (const name of HOSTILE) assert.equal(found?.raw[shown(name)], text);
    }
    for (const text of HOSTILE) {
      await env.pool.query('select reporting.fn_tickets_for_map(true, $1, $1, $1)', [text]);
      await env.pool.query('select tickets.location_key($1), tickets.location_query($1)', [text]);
      await env.pool.query('select * from tickets.geocode_cluster($1)', [text]);
      await env.pool.query('select * from tickets.geocode_location($1, $1)', [`x ${text}`]);
    }
  });

  test('a hostile payload fails at once, says why, and does nothing', async () => {
    const payloads: [string, object][] = [
      ['fetch_snapshot', { dataset: `inc'; drop table tickets.inc; --` }],
      ['upsert_batch', { snapshot_id: '1; drop table tickets.inc', batch: 1 }],
      ['finalize_snapshot', { snapshot_id: `1' or '1'='1` }],
      ['fleettickets_maintain', { prune: 'everything' }],
      ['geocode_cluster', { cluster: { $ne: '' } }],
    ];
    for (const [task, payload] of payloads) {
      await env.pool.query('select graphile_worker.add_job($1, $2)', [task, JSON.stringify(payload)]);
    }
    const failures = await env.runJobs();
    assert.deepEqual(
      failures.map(({ task, attempts }) => [task, attempts]).sort(),
      payloads.map(([task]) => [task, 1]).sort(),
    );
    for (const { error } of failures) assert.match(error, /^Wrong payload:[\s\S]*A right one: select [a-z_]+\.add_job/);
    // A number may come as text, from a person who builds JSON by hand; the functions read it as a number or not at all.
    await env.pool.query('select id, superseded from tickets_ops.failed_jobs');
    await env.pool.query('select * from tickets_ops.retry_failed()');
  });

  test('no function that builds SQL from a name lets the name out of its quotes', async () => {
    for (const name of [...HOSTILE, `inc (ticket_id, raw) values ('x', '{}'); --`]) {
      for (const sql of [
        'select tickets_ops.plan_geocoding(array[$1])',
        'select * from tickets_ops.places_to_geocode(array[$1])',
        'select tickets.place_tickets($1)',
      ]) {
        await env.pool
          .query(sql, [name])
          .catch((error: Error) => assert.match(error.message, /does not exist|too long|no dataset/i));
      }
    }
    await env.pool.query('select from tickets.inc');
  });

  test('hostile settings are values: prefix, bucket, database', async () => {
    const { RUSTFS_PREFIX } = process.env;
    process.env.RUSTFS_PREFIX = `it's "quoted"; drop table tickets.inc; --/%I/`;
    try {
      const [snapshot] = feed({ hours: 1, tickets: 60 }) as unknown as [Snapshot];
      await env.putObject(`${process.env.RUSTFS_PREFIX}${snapshot.name}`, snapshot.csv);
      assert.deepEqual(await fetchNow(), []);
      assert.deepEqual(
        (await ledger()).map(({ status }) => status),
        ['done'],
      );
    } finally {
      if (RUSTFS_PREFIX === undefined) delete process.env.RUSTFS_PREFIX;
      else process.env.RUSTFS_PREFIX = RUSTFS_PREFIX;
    }
  });

  test('a database and a schema of PostGIS with hostile names', async () => {
    const database = `it's "a" test -- ${randomBytes(4).toString('hex')}`;
    const schema = 'Gis; drop schema tickets cascade';
    const quoted = (name: string) => `"${name.replaceAll('"', '""')}"`;
    await env.pool.query(`create database ${quoted(database)}`);
    try {
      const url = new URL(env.databaseUrl);
      url.pathname = `/${encodeURIComponent(database)}`;
      await withClient(url.href, async (client) => {
        await client.query(`create schema ${quoted(schema)}; create extension postgis schema ${quoted(schema)}`);
        await client.query(`alter database ${quoted(database)} set search_path = public, ${quoted(schema)}`);
      });
      await migrate(url.href, silent);
      await asPerson(url.href, async (client) => {
        await client.query(
          `insert into tickets.inc (ticket_id, raw) values ('WOT1', '{"cluster": "Kilimani", "is_actionable": "true"}')`,
        );
        await client.query(
          `insert into tickets.geo_clusters (cluster, geom) values ('Kilimani', st_setsrid(st_makepoint(36.78, -1.29), 4326))`,
        );
        const { rows } = await client.query('select geo_source from tickets.inc');
        assert.deepEqual(rows, [{ geo_source: 'cluster' }]);
        // Under the security definers' search_path, in which PostGIS is not: a centroid that moves takes its places along.
        await client.query(
          `insert into tickets.geo_locations (cluster, location_name, geom, status, verified, candidates)
           values ('Kilimani', 'Yaya Centre', st_setsrid(st_makepoint(36.79, -1.29), 4326), 'found', false, '[]');
           update tickets.geo_locations set verified = false;
           update tickets.geo_clusters set geom = st_setsrid(st_makepoint(39.66, -4.05), 4326)`,
        );
        const { rows: places } = await client.query(
          'select status, round(distance_km) as km from tickets.geo_locations',
        );
        assert.deepEqual(places, [{ status: 'needs_review', km: '442' }]);
        const { rows: asked } = await client.query(
          `select job_key from tickets.geocode_location('Yaya Centre', 'Kilimani', true)`,
        );
        assert.deepEqual(asked, [{ job_key: 'geocode_location:kilimani:yaya centre' }]);
        await client.query('select * from tickets_ops.health');
        const { rows: tiles } = await client.query(
          `select octet_length(reporting.ticket_places_mvt(8, 156, 130)) > 0 as drawn, json_array_length(reporting.fn_ticket_places() -> 'features') as places`,
        );
        assert.deepEqual(tiles, [{ drawn: true, places: 1 }]);
      });
    } finally {
      await env.pool.query(`drop database ${quoted(database)} with (force)`);
    }
  });

  const GIGABYTE = 2 ** 30;
  for (const [what, head, expected] of [
    ['a line', 'ticket_id,cluster\nWOT1,Kilimani\nWOT2,', /record that begins on line 3 is larger than 5 MiB/],
    ['a quoted field', 'ticket_id,cluster\nWOT1,Kilimani\nWOT2,"', /record that begins on line 3 is larger than 5 MiB/],
    ['a header', 'ticket_id,', /No ticket CSV: it has no readable header/],
  ] as const) {
    test(`${what} of 2 GB is refused with flat memory`, async (t) => {
      let sent = 0;
      const endless: Fault = async (response) => {
        response.writeHead(200, { 'content-type': 'text/csv', 'content-length': String(2 * GIGABYTE) });
        function* bytes() {
          yield Buffer.from(head);
          const block = Buffer.alloc(64 * 1024, 'x');
          for (sent = 0; sent < 2 * GIGABYTE; sent += block.length) yield block;
        }
        await pipeline(Readable.from(bytes()), response); // fails, and that is the proxy's to handle, when the reader hangs up
      };
      const proxy = await startFaultProxy(env.s3.endpoint);
      const { RUSTFS_ENDPOINT = '' } = process.env;
      process.env.RUSTFS_ENDPOINT = proxy.endpoint;
      let highest = 0;
      const before = process.memoryUsage().rss;
      const timer = setInterval(() => {
        highest = Math.max(highest, process.memoryUsage().rss - before);
      }, 20);
      try {
        await env.putObject(`${PREFIX}2026-06-15T07-00-00.csv`, 'ticket_id,cluster\n');
        proxy.inject(/^GET .*\.csv/, endless, 1);
        assert.deepEqual(await fetchNow(), []);
        const [snapshot] = await ledger();
        assert.match(`${snapshot?.broken_off}${snapshot?.error}`, expected);
        assert.equal(snapshot?.status, what === 'a header' ? 'failed' : 'partial');
        const { rows } = await env.pool.query('select ticket_id from tickets.inc');
        assert.deepEqual(rows, what === 'a header' ? [] : [{ ticket_id: 'WOT1' }]);
        t.diagnostic(`${Math.round(sent / 2 ** 20)} MiB read, ${Math.round(highest / 2 ** 20)} MiB more memory`);
        assert.ok(sent < 64 * 2 ** 20, `${sent} bytes were read`);
        assert.ok(highest < 200 * 2 ** 20, `${highest} bytes of memory`);
      } finally {
        clearInterval(timer);
        process.env.RUSTFS_ENDPOINT = RUSTFS_ENDPOINT;
        await proxy.close();
      }
    });
  }
});

test('docs/licences.md lists what a production install has (npm run licences)', async () => {
  assert.equal(await readFile(LICENCES_FILE, 'utf8'), await listLicences());
});
