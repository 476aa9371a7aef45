/** What a person writes into the gazetteers and asks for: slips are refused or named, decisions stand. */
import assert from 'node:assert/strict';
import { after, before, beforeEach, describe, test } from 'node:test';
import { type Environment, startEnvironment } from '../support/environment.ts';
import { asking } from '../support/rows.ts';
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

const sql = asking(() => env.pool);
const at = (lng: number | string, lat: number | string) =>
  `st_setsrid(st_makepoint('${lng}'::float8, '${lat}'::float8), 4326)`;
const KILIMANI = at(36.78, -1.29);
const MOMBASA = at(39.66, -4.05);

/** Runs a statement; returns what it said in notices. */
async function noticesOf(statement: string): Promise<string[]> {
  const client = await env.pool.connect();
  const notices: string[] = [];
  const listen = ({ message }: { message?: string | undefined }) => notices.push(message ?? '');
  client.on('notice', listen);
  try {
    await client.query(statement);
    return notices;
  } finally {
    client.off('notice', listen);
    client.release();
  }
}
const reviewed = async (kind: string) =>
  sql(`select cluster, status, doubt::float8, note from tickets_ops.review_queue where kind = $1`, [kind]);

describe('a coordinate by hand', () => {
  const refused: [what: string, geom: string, reason: RegExp][] = [
    ['0,0', at(0, 0), /\(0,0\) of .* is refused\. It is 0,0, which is what an empty coordinate becomes/],
    ['swapped', at(-1.29, 36.78), /swapped\. Write st_setsrid\(st_makepoint\(36\.78, -1\.29\), 4326\)/],
    ['in Tanzania', at(36.68, -3.38), /outside Kenya\. Longitude comes first/],
    ['in the Indian Ocean', at(45, -2), /outside Kenya/],
    ['no number', at('NaN', 'NaN'), /outside Kenya/],
    ['beyond the poles', at(36.78, 129), /outside Kenya/],
    ['empty', `st_setsrid('POINT EMPTY'::geometry, 4326)`, /outside Kenya/],
  ];
  for (const [what, geom, reason] of refused) {
    test(`is refused where it is ${what}, with the right order, and nothing is written`, async () => {
      await sql(`insert into tickets.geo_clusters (cluster, geom) values ('Kilimani', ${KILIMANI})`);
      await sql(
        `insert into tickets.geo_locations (cluster, location_name, geom) values ('Kilimani', 'Yaya', ${KILIMANI})`,
      );
      const before = await sql('select * from tickets.geo_clusters, tickets.geo_locations');
      for (const statement of [
        `insert into tickets.geo_clusters (cluster, geom) values ('Nyali', ${geom})`,
        `update tickets.geo_clusters set geom = ${geom}`,
        `insert into tickets.geo_locations (cluster, location_name, geom) values ('Kilimani', 'Rose Court', ${geom})`,
        `update tickets.geo_locations set geom = ${geom}`,
      ]) {
        await assert.rejects(sql(statement), (error: Error & { code?: string }) => {
          assert.equal(error.code, '23514', `${statement}: ${error.message}`);
          assert.match(error.message, reason, statement);
          return true;
        });
      }
      assert.deepEqual(await sql('select * from tickets.geo_clusters, tickets.geo_locations'), before);
    });
  }

  test('beyond the guard it is taken, with a notice', async () => {
    await sql(`insert into tickets.geo_clusters (cluster, geom) values ('Kilimani', ${KILIMANI})`);
    const said = await noticesOf(
      `insert into tickets.geo_locations (cluster, location_name, geom) values ('Kilimani', 'Rose Court', ${MOMBASA})`,
    );
    assert.equal(said.length, 1);
    assert.match(said[0] ?? '', /^rose court is 44\d\.\d km from the centre of Kilimani, beyond its guard of 25 km\./);
    const [row] = await sql('select status, verified from tickets.geo_locations');
    assert.deepEqual(row, { status: 'found', verified: true });
    assert.deepEqual(
      await noticesOf(`update tickets.geo_locations set geom = ${at(36.79, -1.28)}`),
      [],
      'within it, nothing is to be said',
    );
  });
});

describe('a place by hand', () => {
  test('has the key that tickets have, whichever column it was written into', async () => {
    await sql(
      `insert into tickets.geo_locations (cluster, location_key, geom) values ('Kilimani', 'NW_Yaya Centre_FDT1', ${KILIMANI})`,
    );
    await assert.rejects(
      sql(
        `insert into tickets.geo_locations (cluster, location_name, geom) values ('kilimani', 'Yaya  CENTRE', ${KILIMANI})`,
      ),
      { code: '23505' },
      'the same place',
    );
    assert.deepEqual(await sql('select location_key from tickets.geo_locations'), [{ location_key: 'yaya centre' }]);
  });

  test('is refused where nothing but network codes is left of its name', async () => {
    await assert.rejects(
      sql(`insert into tickets.geo_locations (cluster, location_name, geom) values ('Kilimani', 'FDT1', ${KILIMANI})`),
      /Nothing but network codes is left of "FDT1"/,
    );
  });

  test('is of one cluster however that is written, and of no endless guard', async () => {
    await sql(`insert into tickets.geo_clusters (cluster, geom) values ('Kilimani', ${KILIMANI})`);
    for (const name of ['KILIMANI', ' kili mani ', 'Kilimani\u2003', 'Kili\u200bmani', '\ufeffKilimani'])
      await assert.rejects(
        sql(`insert into tickets.geo_clusters (cluster, geom) values ($1, ${KILIMANI})`, [name]),
        { code: '23505' },
        JSON.stringify(name),
      );
    for (const guard of ['infinity', '-infinity', 'nan', '-1', '0', '1e9'])
      await assert.rejects(sql(`update tickets.geo_clusters set guard_km = '${guard}'`), /guard_km/, guard);
  });
});

describe('a centroid far from its places', () => {
  beforeEach(async () => {
    await sql(`insert into tickets.geo_clusters (cluster, geom) values ('Kilimani', ${KILIMANI})`);
  });

  test('is named at once, and stays in the review queue although it is verified', async () => {
    await sql(
      `insert into tickets.geo_locations (cluster, location_name, geom) values ('Kilimani', 'Yaya', ${KILIMANI})`,
    );
    assert.deepEqual(await reviewed('cluster'), [], 'a verified one that fits is nobody’s business');
    const said = await noticesOf(`update tickets.geo_clusters set geom = ${MOMBASA}`);
    assert.match(said.join(), /Most known places of Kilimani lie beyond its guard of 25 km/);
    const [row] = await reviewed('cluster');
    assert.deepEqual([row?.cluster, row?.status, row?.doubt], ['Kilimani', 'suspicious', 1]);
    assert.match(row?.note, /Most of its known places lie beyond its guard/);
    await sql(`update tickets.geo_clusters set geom = ${KILIMANI}`);
    assert.deepEqual(await reviewed('cluster'), [], 'its correction ends it');
  });

  test('is flagged where its rejected places agree, verified or not', async () => {
    for (const name of ['Tom Mboya', 'Aga Khan', 'Ring Road', 'Oginga'])
      await sql(
        `with marked as materialized (select tickets_ops.as_pipeline(true))
         insert into tickets.geo_locations (cluster, location_key, location_name, status, candidates, distance_km)
         select 'Kilimani', tickets.location_key($1), $1, 'rejected', $2, 270 from marked`,
        [name, JSON.stringify([{ lat: -0.1, lng: 34.75, level: 'point', country: 'ke', label: `${name}, Kisumu` }])],
      );
    await sql(`update tickets.geo_clusters set geom = ${at(36.79, -1.3)}`);
    const [row] = await sql('select verified, suspicious from tickets.geo_clusters');
    assert.deepEqual(row, { verified: true, suspicious: true });
    const [queued] = await reviewed('cluster');
    assert.deepEqual([queued?.status, queued?.doubt], ['suspicious', 1]);
    const [health] = await sql('select places_for_review::int as places from tickets_ops.health');
    assert.equal(health?.places, 1);
  });

  test('is not assumed of one whose places mostly lie within', async () => {
    for (const [name, geom] of [
      ['Yaya', KILIMANI],
      ['Rose Court', at(36.79, -1.28)],
      ['Namesake', MOMBASA],
    ])
      await sql(`insert into tickets.geo_locations (cluster, location_name, geom) values ('Kilimani', $1, ${geom})`, [
        name,
      ]);
    assert.deepEqual(await reviewed('cluster'), []);
  });
});

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
    await sql(`insert into tickets.geo_clusters (cluster, geom) values ('Nyali', ${at(39.7, -4.03)})`);
    const [closed] = await sql(`select * from tickets.geocode_cluster('Kilimani')`);
    assert.ok(closed?.job_id);
    assert.doesNotMatch(closed?.note ?? '', /No ticket/);
    const [known] = await sql(`select * from tickets.geocode_location('Palm Court', 'nyali')`);
    assert.ok(known?.job_id);
    assert.match(known?.note, /^No ticket has the cluster "Nyali"\./, 'asked, but said');
  });
});
