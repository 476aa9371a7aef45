import assert from 'node:assert/strict';
import { after, afterEach, before, beforeEach, describe, test } from 'node:test';
import { type Environment, startEnvironment } from '../support/environment.ts';

describe('the SLA', () => {
  let env: Environment;
  before(async () => {
    env = await startEnvironment();
  });
  after(() => env.close());
  beforeEach(() => env.reset());
  afterEach(() =>
    env.pool.query(
      'delete from tickets.sla_rules where region is not null; update tickets.sla_rules set hours = 48, at_risk_hours = 40',
    ),
  );

  /** Adds open tickets of a region, each open for so many hours. */
  const addTickets = (region: string, ...hours: number[]) =>
    env.pool.query(
      `insert into tickets.inc (ticket_id, raw, geom, geo_source)
       select format('%s %s h', $1::text, h), jsonb_build_object('is_actionable', 'true', 'region', $1::text, 'latitude', '-1.29', 'longitude', '36.78',
         'created_at_service', to_char((now() - h * interval '1 hour') at time zone 'Africa/Nairobi', 'YYYY-MM-DD HH24:MI:SS')),
         null, 'none'
       from unnest($2::integer[]) as h`,
      [region, hours],
    );
  /** breached, at risk or ok by ticket, as the view says and the map. */
  const states = async (): Promise<Record<string, string>> => {
    const { rows: view } = await env.pool.query(
      `select ticket_id as id, sla_state, at_risk from tickets.inc_open_sla order by ticket_id`,
    );
    const { rows: map } = await env.pool.query(
      `select f ->> 'id' as id, f -> 'properties' ->> 'sla_state' as sla_state, (f -> 'properties' -> 'at_risk')::boolean as at_risk
       from jsonb_array_elements(reporting.fn_tickets_for_map() -> 'features') as f order by 1`,
    );
    assert.deepEqual(view, map);
    return Object.fromEntries(view.map(({ id, sla_state, at_risk }) => [id, at_risk ? 'at risk' : sla_state]));
  };

  test('is 48 hours, at risk from 40, in a database that was just migrated', async () => {
    const { rows } = await env.pool.query('select region, hours::float8, at_risk_hours::float8 from tickets.sla_rules');
    assert.deepEqual(rows, [{ region: null, hours: 48, at_risk_hours: 40 }]);
    await addTickets('coast', 39, 41, 49);
    assert.deepEqual(await states(), { 'coast 39 h': 'ok', 'coast 41 h': 'at risk', 'coast 49 h': 'breached' });
  });

  test('is a number of hours up to a year', async () => {
    for (const hours of ['0', '-1', `'NaN'`, '9000'])
      await assert.rejects(env.pool.query(`update tickets.sla_rules set hours = ${hours}, at_risk_hours = 1`), {
        code: '23514',
      });
  });

  test('changes by an UPDATE, for the view and the map at once', async () => {
    await addTickets('coast', 10, 13, 25);
    await env.pool.query('update tickets.sla_rules set hours = 24, at_risk_hours = 12.5 where region is null');
    assert.deepEqual(await states(), { 'coast 10 h': 'ok', 'coast 13 h': 'at risk', 'coast 25 h': 'breached' });
  });

  test('a region can have a rule of its own, written in any case; the others keep the default', async () => {
    await addTickets('nairobi metro', 25);
    await addTickets('Nairobi Metro', 3);
    await addTickets('coast', 25);
    await addTickets('', 49);
    await env.pool.query(`insert into tickets.sla_rules values ('Nairobi METRO', 24, 2)`);
    assert.deepEqual(await states(), {
      ' 49 h': 'breached',
      'coast 25 h': 'ok',
      'nairobi metro 25 h': 'breached',
      'Nairobi Metro 3 h': 'at risk',
    });
    await assert.rejects(
      env.pool.query(`insert into tickets.sla_rules values ('nairobi metro', 12, 10)`),
      /sla_rules_one_per_region/,
    );
  });

  test('blanks around a region make no other one of it: not for a filter, nor for its rule', async () => {
    await addTickets(' Coast ', 3);
    await addTickets('coast', 4);
    await env.pool.query(`insert into tickets.sla_rules values ('Coast', 4, 2)`);
    assert.deepEqual(await states(), { ' Coast  3 h': 'at risk', 'coast 4 h': 'breached' });
    const { rows } = await env.pool.query(
      `select reporting.fn_tickets_for_map(p_region => 'COAST') #>> '{summary,total}' as total`,
    );
    assert.deepEqual(rows, [{ total: '2' }]);
    await assert.rejects(
      env.pool.query(`insert into tickets.sla_rules values ('COAST', 12, 10)`),
      /sla_rules_one_per_region/,
    );
  });

  test('the default cannot be taken away, nor a second one added, and a rule makes sense', async () => {
    for (const statement of [
      'delete from tickets.sla_rules',
      `update tickets.sla_rules set region = 'coast'`,
      'truncate tickets.sla_rules',
    ])
      await assert.rejects(env.pool.query(statement), /tickets\.sla_rules needs its default/, statement);
    for (const rule of [
      `null, 24, 20`,
      `'coast', 0, 0`,
      `'coast', 24, 25`,
      `' coast', 24, 20`,
      `'coast', 'infinity', 20`,
      `'coast', 'nan', 20`,
      `'coast', 1e9, 20`,
    ])
      await assert.rejects(env.pool.query(`insert into tickets.sla_rules values (${rule})`), /sla_rules/, rule);
    await addTickets('coast', 49);
    assert.deepEqual(await states(), { 'coast 49 h': 'breached' });
  });

  test('a role that may read the view, and nothing else, reads it', async () => {
    await addTickets('coast', 49);
    const client = await env.pool.connect();
    try {
      await client.query('begin');
      await client.query(
        'create role sla_reader; grant usage on schema tickets to sla_reader; grant select on tickets.inc_open_sla to sla_reader; set local role sla_reader',
      );
      const { rows } = await client.query('select sla_state from tickets.inc_open_sla');
      assert.deepEqual(rows, [{ sla_state: 'breached' }]);
    } finally {
      await client.query('rollback');
      client.release();
    }
  });
});
