/** fleettickets doctor: what is wrong with the settings, the database, the bucket and the provider. */
import assert from 'node:assert/strict';
import { after, before, beforeEach, describe, test } from 'node:test';
import { startDatabase } from '../../demo/embedded.ts';
import { withClient } from '../../src/database/client.ts';
import type { Finding } from '../../src/operations/doctor/finding.ts';
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

const { put, liveWorker } = operations(() => env);

describe('doctor', () => {
  const examined = async (settings: Record<string, string>) => {
    const { status, out, err } = await fleettickets(settings, 'doctor', '--json');
    const findings = JSON.parse(out) as Finding[];
    return { status, err, of: (name: string) => findings.find(({ check }) => check === name), findings };
  };

  test('finds nothing wrong where nothing is, and leaves the bucket as it was', async () => {
    await put(first);
    await liveWorker();
    const { status, findings } = await examined({});
    assert.deepEqual(
      findings.filter(({ state }) => state === 'failed'),
      [],
    );
    assert.equal(status, 0);
    assert.deepEqual(await env.listKeys(), [`${PREFIX}${first.name}`]);
    const text = await fleettickets({}, 'doctor');
    assert.match(text.out, /^ok {4}settings {7}complete and valid$/m);
  });

  test('names a remedy for each thing that is wrong, and shows no secret', async () => {
    const { status, of, findings } = await examined({
      DATABASE_URL: 'postgres://someone:a-secret-password@127.0.0.1:1/nowhere',
      RUSTFS_ENDPOINT: 'http://127.0.0.1:1',
      RUSTFS_SECRET_KEY: 'a-secret-bucket-key',
      GEOCODER_PROVIDER: 'locationiq',
      GEOCODER_API_KEY: 'a-secret-provider-key',
      GEOCODER_BASE_URL: 'http://127.0.0.1:1',
    });
    assert.equal(status, 1);
    assert.match(of('database')?.remedy ?? '', /check DATABASE_URL/);
    assert.equal(of('schema')?.state, 'skipped');
    assert.match(of('bucket')?.detail ?? '', /nothing listens there/);
    assert.match(of('provider')?.detail ?? '', /locationiq: no connection/);
    for (const { state, remedy } of findings)
      assert.equal(remedy !== undefined, state === 'failed' || state === 'warning');
    assert.doesNotMatch(JSON.stringify(findings), /a-secret/);
  });

  test('before the first deployment says what is there, what is missing and what cannot be told yet, and makes nothing', async () => {
    const database = await startDatabase();
    await withClient(database.url, (client) => client.query('create extension postgis'));
    const { status, findings } = await examined({
      DATABASE_URL: database.url,
      GEOCODER_PROVIDER: 'nominatim',
      GEOCODER_BASE_URL: 'http://127.0.0.1:1',
    });
    const made = await withClient(database.url, (client) =>
      client.query(`select nspname from pg_namespace where nspname ~ '^(tickets|graphile|reporting)'`),
    ).finally(database.close);
    assert.equal(status, 1, 'the schema is missing');
    const told = Object.fromEntries(findings.map(({ check, state, detail }) => [check, `${state}: ${detail}`]));
    for (const name of [
      'settings',
      'database',
      'postgis',
      'other applications',
      'rights',
      'search path',
      'clock',
      'bucket',
    ])
      assert.match(told[name] ?? '', /^(ok|warning): /, name);
    for (const name of ['schedule', 'feed', 'vehicles']) assert.equal(told[name], 'skipped: needs the schema');
    assert.match(told.schema ?? '', /^failed: 000001-tickets\.sql is missing(, \S+ is missing)*$/);
    assert.equal(findings.find(({ check }) => check === 'schema')?.remedy, 'fleettickets migrate');
    assert.match(told.provider ?? '', /^failed: nominatim: no connection/);
    assert.doesNotMatch(JSON.stringify(findings), /does not exist|SQLSTATE/);
    assert.deepEqual(made.rows, []);
  });

  test('a setting that is wrong is named', async () => {
    const { status, of } = await examined({ RUSTFS_PREFIX: '/no/slash/at/the/end', KEEP_LEDGER_DAYS: '0' });
    assert.equal(status, 1);
    assert.match(of('settings')?.detail ?? '', /RUSTFS_PREFIX: must end with a slash[\s\S]*KEEP_LEDGER_DAYS/);
  });

  test('a provider that lacks its key or its address is a failure; none at all is none', async () => {
    for (const [settings, what] of [
      [{ GEOCODER_PROVIDER: 'opencage' }, /GEOCODER_API_KEY is not set, and opencage needs one/],
      [{ GEOCODER_PROVIDER: 'nominatim' }, /GEOCODER_BASE_URL is not set, and nominatim needs one/],
    ] as const) {
      const { status, of } = await examined(settings);
      assert.deepEqual([status, of('provider')?.state], [1, 'failed']);
      assert.match(of('provider')?.detail ?? '', what);
      assert.match(of('provider')?.remedy ?? '', /take GEOCODER_PROVIDER away/);
    }
    assert.equal((await examined({ GEOCODER_PROVIDER: '' })).of('provider')?.state, 'skipped');
  });
});
