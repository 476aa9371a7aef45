/** Clusters that no ticket has, probably a slip of the pen: nobody is asked, unless by force. */
import assert from 'node:assert/strict';
import { after, before, beforeEach, describe, test } from 'node:test';
import { type Environment, startEnvironment } from '../support/environment.ts';
import { point } from '../support/gazetteer.ts';
import { locationiqPlace, type ScriptedProvider, startScriptedProvider } from '../support/scripted-provider.ts';

// What the tasks log is of no interest here.
process.env.LOG_LEVEL ??= 'fatal';

let env: Environment;
let server: ScriptedProvider;
before(async () => {
  [env, server] = await Promise.all([startEnvironment(), startScriptedProvider()]);
});
after(async () => {
  await Promise.all([env.close(), server.close()]);
});
beforeEach(() => env.reset());

const sql = async (text: string, values: unknown[] = []) => (await env.pool.query(text, values)).rows;

describe('asking for a cluster that no ticket has', () => {
  const calls = () => server.calls.map(({ query }) => query);
  beforeEach(async () => {
    server.calls.length = 0;
    server.script(() => ({ json: [locationiqPlace('Kilimani', -1.29, 36.78)] }));
    Object.assign(process.env, {
      GEOCODER_PROVIDER: 'locationiq',
      GEOCODER_API_KEY: 'pk.0123456789abcdef-secret',
      GEOCODER_BASE_URL: server.baseUrl,
      GEOCODER_RATE_PER_SECOND: '100',
    });
    await sql(`select tickets_ops.register_geocoder('locationiq', 100, null, 180, null)`);
  });

  for (const [what, question] of [
    ['location', `tickets.geocode_location('NW_Kilimani_FDT3', 'Kilimanii'`],
    ['cluster', `tickets.geocode_cluster('Kilimanii'`],
  ] as const) {
    test(`geocode_${what} warns and asks nobody, unless by force`, async () => {
      const [answer] = await sql(`select * from ${question})`);
      assert.equal(answer?.job_id, null);
      assert.equal(answer?.already_waiting, false);
      assert.match(answer?.note, /^No ticket has the cluster "Kilimanii"\. Nothing is asked: check its spelling/);
      assert.deepEqual(await env.runJobs(), []);
      assert.deepEqual(calls(), []);

      const [forced] = await sql(`select * from ${question}, force => true)`);
      assert.match(forced?.note, /^No ticket has the cluster "Kilimanii"\./);
      assert.ok(forced?.job_id);
      await env.runJobs();
      assert.equal(calls()[0], 'Kilimanii, Kenya');
    });
  }

  test('a plain add_job fails at once with the same reason', async () => {
    await sql(
      `select graphile_worker.add_job('geocode_location', '{"location_name": "NW_Yaya", "cluster": "Kilimanii"}')`,
    );
    const [failure] = await env.runJobs();
    assert.match(failure?.error ?? '', /No ticket has the cluster "Kilimanii".*"force": true/);
    assert.equal(failure?.attempts, 1);
    assert.deepEqual(calls(), []);
  });

  test('a cluster of closed tickets, or of the gazetteer, is no slip', async () => {
    await sql(
      `insert into tickets.inc (ticket_id, raw) values ('WOT1', '{"cluster": "KILIMANI", "is_actionable": "false"}')`,
    );
    await sql(`insert into tickets.geo_clusters (cluster, geom) values ('Nyali', ${point(39.7, -4.03)})`);
    const [closed] = await sql(`select * from tickets.geocode_cluster('Kilimani')`);
    assert.ok(closed?.job_id);
    assert.doesNotMatch(closed?.note ?? '', /No ticket/);
    const [known] = await sql(`select * from tickets.geocode_location('Palm Court', 'nyali')`);
    assert.ok(known?.job_id);
    assert.match(known?.note, /^No ticket has the cluster "Nyali"\./, 'asked, but said');
  });
});
