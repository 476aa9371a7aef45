import assert from 'node:assert/strict';
import { after, before, beforeEach, describe, test } from 'node:test';
import { type Environment, startEnvironment } from '../support/environment.ts';

type Json = Record<string, unknown>;
type Place = { type: string; id: string; geometry: { type: string; coordinates: number[] }; properties: Json };

describe('places', () => {
  let env: Environment;
  before(async () => {
    env = await startEnvironment();
  });
  after(() => env.close());
  beforeEach(() => env.reset());

  const places = async (args = ''): Promise<Place[]> => {
    const { rows } = await env.pool.query<{ places: { type: string; features: Place[] } }>(
      `select reporting.fn_ticket_places(${args}) as places`,
    );
    assert.equal(rows[0]?.places.type, 'FeatureCollection');
    return rows[0].places.features;
  };
  const addTickets = (tickets: Json[]) =>
    env.pool.query(
      `insert into tickets.inc (ticket_id, raw) select t ->> 'ticket_id', t from jsonb_array_elements($1) as t`,
      [JSON.stringify(tickets)],
    );
  const addCluster = (cluster: string, lng: number, lat: number) =>
    env.pool.query(
      'insert into tickets.geo_clusters (cluster, geom) values ($1, st_setsrid(st_makepoint($2, $3), 4326))',
      [cluster, lng, lat],
    );
  const addLocation = (cluster: string, name: string, lng: number, lat: number) =>
    env.pool.query(
      `insert into tickets.geo_locations (cluster, location_key, location_name, status, geom)
       values ($1, tickets.location_key($2), $2, 'found', st_setsrid(st_makepoint($3, $4), 4326))`,
      [cluster, name, lng, lat],
    );
  /** As the feed writes a time: EAT, to the second. */
  const hoursAgo = (hours: number) =>
    new Date(Date.now() + (3 - hours) * 3_600_000).toISOString().slice(0, 19).replace('T', ' ');
  const open = (id: string, more: Json = {}): Json => ({
    ticket_id: id,
    is_actionable: 'true',
    normalized_status: 'Open',
    cluster: 'Kilimani',
    region: 'nairobi',
    assigned_team: 'Kilimani A',
    location_name: 'NW_Rose Court_FDT3',
    ...more,
  });
  const closed = (id: string, more: Json = {}) =>
    open(id, { is_actionable: 'false', normalized_status: 'Closed', closed_at: '2026-06-01 10:00:00', ...more });
  const sum = (features: Place[], name: string) =>
    features.reduce((total, { properties }) => total + Number(properties[name]), 0);

  test('empty tables give a valid empty collection, and another state an error that says which there are', async () => {
    for (const args of ['', `'closed'`, `'all', now() - interval '1 day', now()`]) {
      assert.deepEqual(await places(args), []);
    }
    for (const [state, shown] of [
      [`'shut'`, `'shut'`],
      ['null', 'NULL'],
    ]) {
      await assert.rejects(places(state), { code: '22023', message: `p_state is ${shown}, not open, closed or all` });
    }
    await assert.rejects(places(`'closed', '2026-02-01', '2026-01-01'`), {
      code: '22023',
      message: /p_from \(2026-02-01 .*\) is after p_to \(2026-01-01 /,
    });
  });

  test('a place of the gazetteer counts its tickets, by state, SLA and repair time', async () => {
    await addCluster('Kilimani', 36.7833, -1.2921);
    await addLocation('Kilimani', 'Rose Court', 36.79, -1.3);
    await addTickets([
      open('WOT1', { created_at_service: hoursAgo(50.01) }),
      open('WOT2', { created_at_service: hoursAgo(41), location_name: 'NW_Rose Court_FDT4' }),
      open('WOT3', { created_at_service: hoursAgo(1) }),
      open('WOT4'),
      closed('WOT5', { mttr: '1' }),
      closed('WOT6', { mttr: '2' }),
      closed('WOT7', { mttr: '40' }),
      closed('WOT8', { mttr: '', closed_at: '' }),
    ]);
    const [place, ...others] = await places(`'all'`);
    assert.deepEqual(others, []);
    assert.deepEqual(place, {
      type: 'Feature',
      id: 'Kilimani/rose court',
      geometry: { type: 'Point', coordinates: [36.79, -1.3] },
      properties: {
        cluster: 'Kilimani',
        location_key: 'rose court',
        location_name: 'NW_Rose Court_FDT3',
        geo_source: 'location',
        tickets: 8,
        open: 4,
        breached: 1,
        at_risk: 1,
        oldest_hours: 50.01,
        closed: 4,
        mttr_median: 120,
        ticket_ids: ['WOT1', 'WOT2', 'WOT3', 'WOT4', 'WOT5', 'WOT6', 'WOT7', 'WOT8'],
        more: 0,
      },
    });
    assert.deepEqual((await places())[0]?.properties['ticket_ids'], ['WOT1', 'WOT2', 'WOT3', 'WOT4']);
    assert.deepEqual((await places(`'closed'`))[0]?.properties['open'], 0);
  });

  test('tickets count whatever the length of their names, in a tile too', async () => {
    await addCluster('Kilimani', 36.79, -1.3);
    const long = 'x'.repeat(3_000);
    await addTickets([open('WOT1', { location_name: long }), open('WOT2', { assigned_team: long }), open('WOT3')]);
    assert.equal(sum(await places(), 'open'), 3);
    assert.equal(sum(await places('p_team => $$Kilimani A$$'), 'open'), 2);
    await addTickets([open('WOT4', { cluster: long, longitude: '36.79', latitude: '-1.3' })]);
    assert.equal(sum(await places(), 'open'), 4);
    assert.equal(sum(await places(`'closed'`), 'tickets'), 0);
    const { rows } = await env.pool.query<{ open: number }>(
      `select open::int from tickets.places('open', null, null, null, null, null, st_makeenvelope(36.79, -1.4, 36.8, -1.3, 4326)::geography, 0)`,
    );
    assert.deepEqual(rows, [{ open: 4 }], 'on the edge of the box');
  });

  test('repair times have a median, those that are none of this world aside', async () => {
    await addCluster('Kilimani', 36.79, -1.3);
    const median = async () => (await places(`'closed'`))[0]?.properties['mttr_median'];
    await addTickets([closed('WOT1', { mttr: '9'.repeat(40) }), closed('WOT2', { mttr: `-${'9'.repeat(39)}` })]);
    assert.equal(await median(), null);
    await addTickets([closed('WOT3', { mttr: '1.5' }), closed('WOT4', { mttr: '1.05' }), closed('WOT5')]);
    assert.equal(await median(), (90 + 63) / 2);
  });

  test('tickets that share a coordinate are one place, whatever put them there', async () => {
    await addCluster('Kilimani', 36.79, -1.3);
    await addLocation('Kilimani', 'Rose Court', 36.79, -1.3);
    await addTickets([
      open('by location'),
      open('by cluster', { location_name: 'elsewhere' }),
      open('by feed', { cluster: 'Nyali', location_name: '', longitude: '36.79', latitude: '-1.3' }),
      open('apart', { longitude: '36.7901', latitude: '-1.3' }),
      open('nowhere', { cluster: 'Nowhere' }),
    ]);
    const features = await places();
    assert.equal(features.length, 2);
    const [shared, apart] = features;
    assert.match(String(shared?.id), /^kzf0[0-9a-z]{16}$/);
    assert.equal(shared?.properties['tickets'], 3);
    assert.equal(shared?.properties['cluster'], null);
    assert.equal(shared?.properties['location_key'], null);
    assert.equal(shared?.properties['location_name'], null);
    assert.equal(shared?.properties['geo_source'], 'cluster');
    assert.notEqual(apart?.id, shared?.id);
    assert.equal(apart?.properties['geo_source'], 'feed');
    assert.equal(apart?.properties['location_key'], 'rose court');
  });

  test('a place lists twenty of its tickets: open before closed, and of too many the longest open, then the last closed', async () => {
    await addCluster('Kilimani', 36.79, -1.3);
    const two = (n: number) => String(n).padStart(2, '0');
    const listed = async () => {
      const [place] = await places(`'all'`);
      return { ids: place?.properties['ticket_ids'] as string[], more: place?.properties['more'] };
    };
    const openFor = (hours: number) => open(`open ${two(hours)}`, { created_at_service: hoursAgo(hours) });
    const closedOn = (day: number) => closed(`closed ${two(day)}`, { closed_at: `2026-06-${two(day)} 10:00:00` });
    await addTickets(Array.from({ length: 30 }, (_, n) => closedOn(n + 1)));
    await addTickets(Array.from({ length: 12 }, (_, n) => openFor(n + 1)));
    const { ids, more } = await listed();
    assert.deepEqual(
      ids.slice(0, 12).sort(),
      Array.from({ length: 12 }, (_, n) => `open ${two(n + 1)}`),
    );
    assert.deepEqual(
      ids.slice(12),
      Array.from({ length: 8 }, (_, n) => `closed ${two(30 - n)}`),
    );
    assert.equal(more, 22);

    await addTickets(Array.from({ length: 12 }, (_, n) => openFor(n + 13)));
    assert.deepEqual(await listed(), { ids: Array.from({ length: 20 }, (_, n) => `open ${two(24 - n)}`), more: 34 });
  });

  test('the window takes closed tickets from its begin to before its end, and no open one away', async () => {
    await addCluster('Kilimani', 36.79, -1.3);
    await addTickets([
      closed('before', { closed_at: '2026-05-31 23:59:59' }),
      closed('first', { closed_at: '2026-06-01 00:00:00' }),
      closed('last', { closed_at: '2026-06-07 23:59:59' }),
      closed('after', { closed_at: '2026-06-08 00:00:00' }),
      closed('some day', { closed_at: '' }),
      open('open'),
    ]);
    const week = `p_from := '2026-06-01 00:00+03', p_to := '2026-06-08 00:00+03'`;
    const listed = async (args: string) => (await places(args))[0]?.properties['ticket_ids'];
    assert.deepEqual(await listed(`'closed', ${week}`), ['last', 'first']);
    assert.deepEqual(await listed(`'all', ${week}`), ['open', 'last', 'first']);
    assert.deepEqual(await listed(`'open', ${week}`), ['open']);
    assert.deepEqual(await listed(`'closed', p_from := '2026-06-08 00:00+03'`), ['after']);
  });

  test('their tickets add up to those that the map calls mapped, with any filter', async () => {
    await addCluster('Kilimani', 36.79, -1.3);
    await addCluster('Nyali', 39.7, -4.02);
    await addLocation('Nyali', 'Rose Court', 39.71, -4.03);
    await addTickets([
      open('WOT1'),
      open('WOT2', { assigned_team: 'Kilimani B' }),
      open('WOT3', { cluster: 'Nyali', region: 'coast', assigned_team: 'Nyali A' }),
      closed('WOT4', { cluster: 'Nyali', region: 'coast', assigned_team: 'Nyali A', location_name: 'x' }),
      closed('WOT5', { is_actionable: 'perhaps' }),
      closed('WOT6', { cluster: 'Nowhere' }),
      open('WOT7', { cluster: '' }),
    ]);
    for (const filter of [
      '',
      `p_cluster := 'Kilimani'`,
      `p_region := 'COAST'`,
      `p_team := 'Kilimani B'`,
      `p_cluster := 'x'`,
    ]) {
      for (const [state, openOnly] of [
        ['open', true],
        ['all', false],
      ] as const) {
        const { rows } = await env.pool.query<{ mapped: number }>(
          `select (reporting.fn_tickets_for_map(${openOnly} ${filter && `, ${filter}`}) -> 'summary' -> 'mapped')::int as mapped`,
        );
        const features = await places(`'${state}' ${filter && `, ${filter}`}`);
        assert.equal(sum(features, 'tickets'), rows[0]?.mapped, `${state} ${filter}`);
        assert.equal(sum(features, 'open') + sum(features, 'closed'), sum(features, 'tickets'));
        assert.equal(new Set(features.map(({ id }) => id)).size, features.length);
      }
    }
  });
});
