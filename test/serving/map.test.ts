import assert from 'node:assert/strict';
import { after, before, beforeEach, describe, test } from 'node:test';
import { type Environment, startEnvironment } from '../support/environment.ts';

type Json = Record<string, unknown>;
type Feature = { type: string; id: string; geometry: { type: string; coordinates: number[] }; properties: Json };
type Summary = Record<string, Record<string, number>> & {
  total: number;
  mapped: number;
  unmapped: number;
  truncated: boolean;
  freshness: Json;
};
type Collection = { type: string; features: Feature[]; summary: Summary };

const SLA = ['sla_clock_start', 'sla_clock_source', 'hours_open', 'sla_state', 'at_risk'];

describe('the read side', () => {
  let env: Environment;
  before(async () => {
    env = await startEnvironment();
  });
  after(() => env.close());
  beforeEach(() => env.reset());

  const map = async (args = ''): Promise<Collection> => {
    const { rows } = await env.pool.query<{ map: Collection }>(`select reporting.fn_tickets_for_map(${args}) as map`);
    return rows[0]?.map as Collection;
  };
  const addTickets = (tickets: Json[]) =>
    env.pool.query('insert into tickets.inc (ticket_id, raw) select t ->> $2, t from jsonb_array_elements($1) as t', [
      JSON.stringify(tickets),
      'ticket_id',
    ]);
  const addCluster = (cluster: string, lng: number, lat: number) =>
    env.pool.query(
      'insert into tickets.geo_clusters (cluster, geom) values ($1, st_setsrid(st_makepoint($2, $3), 4326))',
      [cluster, lng, lat],
    );
  /** As the feed writes a time: EAT, to the second. */
  const hoursAgo = (hours: number, extraSeconds = 0) =>
    new Date(Date.now() + 3 * 3_600_000 - hours * 3_600_000 - extraSeconds * 1_000)
      .toISOString()
      .slice(0, 19)
      .replace('T', ' ');
  const open = (id: string, more: Json = {}): Json => ({
    ticket_id: id,
    is_actionable: 'true',
    normalized_status: 'Open',
    cluster: 'Kilimani',
    region: 'nairobi',
    assigned_team: 'Kilimani A',
    location_name: 'NW_Kilimani_FDT3',
    ...more,
  });
  const closed = (id: string, more: Json = {}) =>
    open(id, { is_actionable: 'false', normalized_status: 'Closed', closed_at: '2026-06-01 10:00:00', ...more });

  test('faults and requests have the same properties but for the SLA, and the bytes of all their texts are known', async () => {
    // Whatever columns there are: each that is a text of the feed says something.
    const { rows: columns } = await env.pool.query<{ name: string }>(
      `select attname as name from pg_attribute
       where attrelid = 'tickets.inc'::regclass and attnum > 0 and not attisdropped and atttypid = 'text'::regtype`,
    );
    const texts = columns.map(({ name }) => name);
    const raw = {
      ...Object.fromEntries(texts.map((name) => [name, `some ${name} é`])),
      ...open('x'),
      is_actionable: 'true',
    };
    await addCluster('Kilimani', 36.7833, -1.2907);
    const properties: Json[] = [];
    for (const [table, features] of [
      ['inc', 'map_features'],
      ['crq', 'crq_features'],
    ]) {
      await env.pool.query(`insert into tickets.${table} (ticket_id, raw) values ('x', $1)`, [JSON.stringify(raw)]);
      const { rows } = await env.pool.query<{ properties: Json; bytes: number }>(
        `select to_jsonb(feature) -> 'properties' as properties, bytes_of_text as bytes from tickets.${features}(true, null, null, null)`,
      );
      assert.equal(rows.length, 1, table);
      const [{ properties: shown, bytes } = assert.fail()] = rows;
      // geo_source is no text of the feed: four words, well within what the map allows for all the rest.
      const bytesShown = texts.flatMap((name) => (name in shown && name !== 'geo_source' ? [String(shown[name])] : []));
      assert.equal(
        bytes,
        Buffer.byteLength(bytesShown.join('')),
        `${table}: tickets.bytes_of_texts() lists every text`,
      );
      properties.push(shown);
    }
    const [inc = {}, crq = {}] = properties;
    assert.deepEqual(
      Object.keys(inc)
        .filter((name) => !SLA.includes(name))
        .sort(),
      Object.keys(crq)
        .filter((name) => !['clock_start', 'clock_source', 'hours_open'].includes(name))
        .sort(),
    );
  });

  test('empty tables give a valid empty collection', async () => {
    for (const args of ['', 'p_open_only := false', "p_cluster := 'Kilimani'"]) {
      assert.deepEqual(await map(args), {
        type: 'FeatureCollection',
        features: [],
        summary: {
          total: 0,
          mapped: 0,
          unmapped: 0,
          truncated: false,
          by_status: {},
          by_cluster: {},
          by_region: {},
          by_sla_state: {},
          by_geo_source: {},
          freshness: {
            snapshot_at: null,
            ingested_at: null,
            checked_at: null,
            age_minutes: null,
            content_through: null,
            source_key: null,
            problem: null,
          },
        },
      });
    }
  });

  test('a feature is RFC 7946, and its properties are the columns of tickets.inc and the SLA', async () => {
    await addCluster('Kilimani', 36.7833, -1.2921);
    await addTickets([
      open('WOT1', { created_at_service: hoursAgo(3), mttr: '1.5', latitude: '-1.3', longitude: '36.8' }),
    ]);
    const { features } = await map();
    const [feature] = features;
    assert.equal(features.length, 1);
    assert.equal(feature?.type, 'Feature');
    assert.equal(feature?.id, 'WOT1');
    assert.deepEqual(feature?.geometry, { type: 'Point', coordinates: [36.8, -1.3] });

    const { rows } = await env.pool.query<{ name: string; type: string }>(
      `select attname as name, format_type(atttypid, null) as type from pg_attribute
       where attrelid = 'tickets.inc'::regclass and attnum > 0 and attname not in ('raw', 'geom', 'geog')`,
    );
    assert.deepEqual(Object.keys(feature.properties).sort(), [...rows.map(({ name }) => name), ...SLA].sort());
    const { rows: stored } = await env.pool.query<{ row: Json }>('select to_jsonb(t) as row from tickets.inc t');
    for (const { name } of rows) assert.deepEqual(feature.properties[name], stored[0]?.row[name], name);
    assert.equal(feature.properties['mttr'], 90);
    assert.equal(feature.properties['geo_source'], 'feed');
    assert.match(String(feature.properties['created_at_service']), /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[+-]\d\d:\d\d$/);
  });

  test('only tickets with a place are features, and the summary counts all', async () => {
    await addCluster('Kilimani', 36.7833, -1.2921);
    await addTickets([
      open('WOT1', { created_at_service: hoursAgo(50) }),
      open('WOT2', { first_seen_at: hoursAgo(1), region: 'coast' }),
      open('WOT3', { cluster: 'Nowhere' }),
      open('WOT4', { cluster: '', region: '', normalized_status: '' }),
      closed('WOT5'),
      closed('WOT6', { is_actionable: 'perhaps', cluster: 'Nowhere' }),
    ]);
    const { features, summary } = await map();
    assert.deepEqual(features.map(({ id }) => id).sort(), ['WOT1', 'WOT2']);
    const { freshness: _, ...counts } = summary;
    assert.deepEqual(counts, {
      total: 4,
      mapped: 2,
      unmapped: 2,
      truncated: false,
      by_status: { Open: 3, '(none)': 1 },
      by_cluster: { Kilimani: 2, Nowhere: 1, '(none)': 1 },
      by_region: { nairobi: 2, coast: 1, '(none)': 1 },
      by_sla_state: { breached: 1, ok: 1, unknown: 2 },
      by_geo_source: { cluster: 2, none: 2 },
    });

    const all = await map('p_open_only := false');
    assert.deepEqual(all.features.map(({ id }) => id).sort(), ['WOT1', 'WOT2', 'WOT5']);
    assert.equal(all.summary.total, 6);
    assert.equal(all.summary.unmapped, 3);
    assert.deepEqual(all.summary['by_sla_state'], { breached: 1, ok: 1, unknown: 2 }, 'closed tickets have none');
    const shut = all.features.find(({ id }) => id === 'WOT5');
    assert.ok(SLA.every((name) => !(name in (shut?.properties ?? {}))));
    assert.equal(shut?.properties['is_actionable'], false);
  });

  test('filters by cluster, region in any case, and team, for features and counts alike', async () => {
    await addCluster('Kilimani', 36.7833, -1.2921);
    await addCluster('Nyali', 39.7, -4.02);
    await addTickets([
      open('WOT1'),
      open('WOT2', { assigned_team: 'Kilimani B' }),
      open('WOT3', { cluster: 'Nyali', region: 'coast', assigned_team: 'Nyali A' }),
      closed('WOT4', { cluster: 'Nyali', region: 'coast', assigned_team: 'Nyali A' }),
    ]);
    for (const [args, ids] of [
      ['', ['WOT1', 'WOT2', 'WOT3']],
      ["p_cluster := 'Kilimani'", ['WOT1', 'WOT2']],
      ["p_region := 'Coast'", ['WOT3']],
      ["p_team := 'Kilimani B'", ['WOT2']],
      ["p_team := ' kilimani b '", ['WOT2']],
      ["true, 'Kilimani', 'nairobi', 'Kilimani A'", ['WOT1']],
      ["p_cluster := 'Kilimani', p_region := 'coast'", []],
      ["false, p_cluster := 'Nyali'", ['WOT3', 'WOT4']],
    ] as const) {
      const { features, summary } = await map(args);
      assert.deepEqual(features.map(({ id }) => id).sort(), ids, args);
      assert.equal(summary.total, ids.length, args);
    }
  });

  test('freshness tells the snapshot and how far its content reaches', async () => {
    await addTickets([
      open('WOT1', { created_at_service: '2026-06-13 09:00:00' }),
      closed('WOT2', { closed_at: '2026-06-13 11:00:00' }),
      closed('WOT3', { closed_at: '2099-01-01 00:00:00' }),
    ]);
    await env.pool.query(
      `insert into tickets.import_meta values ('inc', jsonb_build_object(
         'source_key', 'automations/inc/x.csv', 'snapshot_at', now() - interval '90 minutes',
         'ingested_at', now() - interval '10 minutes', 'checked_at', now()))`,
    );
    const { freshness } = (await map("p_cluster := 'another'")).summary;
    assert.equal(freshness['age_minutes'], 90);
    assert.equal(freshness['source_key'], 'automations/inc/x.csv');
    assert.equal(new Date(String(freshness['content_through'])).toISOString(), '2026-06-13T08:00:00.000Z');
    for (const name of ['snapshot_at', 'ingested_at', 'checked_at']) {
      assert.ok(!Number.isNaN(Date.parse(String(freshness[name]))), name);
    }
  });

  test('the SLA: 48 hours from created_at_service, else from first_seen_at', async () => {
    const slack = 120; // seconds that this test may take
    await addTickets([
      open('breached', { created_at_service: hoursAgo(48), first_seen_at: hoursAgo(1) }),
      open('nearly', { created_at_service: hoursAgo(48, -slack) }),
      open('at risk', { first_seen_at: hoursAgo(40) }),
      open('safe', { first_seen_at: hoursAgo(40, -slack) }),
      open('tomorrow', { created_at_service: hoursAgo(-24) }),
      open('no clock', { created_at_service: 'soon', first_seen_at: '' }),
      closed('closed', { created_at_service: hoursAgo(100) }),
    ]);
    const { rows } = await env.pool.query(
      `select ticket_id, sla_state, at_risk, sla_clock_source as clock, floor(hours_open)::int as hours
       from tickets.inc_open_sla order by ticket_id collate "C"`,
    );
    assert.deepEqual(rows, [
      { ticket_id: 'at risk', sla_state: 'ok', at_risk: true, clock: 'first_seen_at', hours: 40 },
      { ticket_id: 'breached', sla_state: 'breached', at_risk: false, clock: 'created_at_service', hours: 48 },
      { ticket_id: 'nearly', sla_state: 'ok', at_risk: true, clock: 'created_at_service', hours: 47 },
      { ticket_id: 'no clock', sla_state: 'unknown', at_risk: false, clock: null, hours: null },
      { ticket_id: 'safe', sla_state: 'ok', at_risk: false, clock: 'first_seen_at', hours: 39 },
      { ticket_id: 'tomorrow', sla_state: 'ok', at_risk: false, clock: 'created_at_service', hours: -24 },
    ]);
  });

  test('as text it is the same document, with the same arguments', async () => {
    await addCluster('Kilimani', 36.7833, -1.2921);
    await addTickets([
      open('WOT1', { location_name: '"Rose" \\ Court 😡', mttr: '1.5' }),
      open('WOT2', { cluster: 'Nyali' }),
      closed('WOT3'),
      closed('WOT4', { cluster: 'Nyali' }),
    ]);
    for (const args of ['', 'false', 'p_open_only := false', `p_cluster := 'Kilimani'`, `false, p_region := 'coast'`]) {
      const { rows } = await env.pool.query<{ same: boolean; json: Collection }>(
        `select reporting.fn_tickets_for_map_json(${args})::jsonb = reporting.fn_tickets_for_map(${args}) as same,
           reporting.fn_tickets_for_map_json(${args}) as json`,
      );
      assert.ok(rows[0]?.same, args);
      assert.equal(rows[0].json.type, 'FeatureCollection');
      assert.deepEqual(Object.keys(rows[0].json), ['type', 'features', 'summary']);
    }
  });

  test('a caller needs EXECUTE and nothing else, and PUBLIC has it not', async () => {
    await addCluster('Kilimani', 36.7833, -1.2921);
    await addTickets([open('WOT1')]);
    const { rows: served } = await env.pool.query<{ signature: string; call: string }>(
      `select oid::regprocedure::text as signature, oid::regproc || case proname
           when 'ticket_places_mvt' then '(0, 0, 0)' when 'fn_inc_trends' then '(''2026-06-01'', ''2026-07-01'')' else '()'
         end as call
       from pg_proc where pronamespace = 'reporting'::regnamespace order by proname`,
    );
    assert.equal(served.length, 8);
    const client = await env.pool.connect();
    try {
      await client.query('begin');
      await client.query(
        'create role map_caller; grant usage on schema reporting to map_caller; set local role map_caller',
      );
      for (const { signature, call } of served) {
        await client.query('savepoint without');
        await assert.rejects(client.query(`select ${call}`), /permission denied for function/);
        await client.query('rollback to savepoint without');
        await client.query(
          `reset role; grant execute on function ${signature} to map_caller; set local role map_caller`,
        );
        // The embedded PostGIS has no vector tiles; it says so past the question of rights.
        if (env.native || !call.includes('mvt')) await client.query(`select ${call}`);
      }
      const { rows } = await client.query<{ map: Collection }>('select reporting.fn_tickets_for_map() as map');
      assert.equal(rows[0]?.map.features.length, 1);
    } finally {
      await client.query('rollback');
      client.release();
    }
  });

  test('the backlog follows from the events, whatever state a baseline found', async () => {
    await addTickets([open('still open'), closed('still closed')]);
    await env.pool.query(
      `insert into tickets.inc_events (ticket_id, event, snapshot_at) values
         ('still open', 'baseline', '2026-06-15 04:00+00'),
         ('still closed', 'baseline', '2026-06-15 04:00+00'),
         ('closes', 'baseline', '2026-06-15 04:00+00'),
         ('reopens', 'baseline', '2026-06-15 04:00+00'),
         ('new', 'opened', '2026-06-15 05:00+00'),
         ('born closed', 'closed', '2026-06-15 05:00+00'),
         ('closes', 'status_changed', '2026-06-15 05:00+00'),
         ('closes', 'closed', '2026-06-15 06:00+00'),
         ('reopens', 'reopened', '2026-06-15 06:00+00'),
         ('new', 'team_changed', '2026-06-15 06:00+00'),
         ('born closed', 'reopened', '2026-06-15 07:00+00'),
         ('new', 'closed', '2026-06-15 07:00+00'),
         ('reopens', 'closed', '2026-06-15 07:00+00')`,
    );
    const { rows } = await env.pool.query(
      `select to_char(snapshot_at at time zone 'UTC', 'HH24') as hour, opened::int, reopened::int, closed::int, open_tickets::int
       from tickets.inc_backlog order by snapshot_at`,
    );
    assert.deepEqual(rows, [
      { hour: '04', opened: 0, reopened: 0, closed: 0, open_tickets: 2 },
      { hour: '05', opened: 1, reopened: 0, closed: 0, open_tickets: 3 },
      { hour: '06', opened: 0, reopened: 1, closed: 1, open_tickets: 3 },
      { hour: '07', opened: 0, reopened: 1, closed: 2, open_tickets: 2 },
    ]);
  });
});
