/** Erasure of one ticket: afterwards no table has it, what else was loaded stands, and a held file can still be loaded. */
import assert from 'node:assert/strict';
import { after, before, beforeEach, describe, test } from 'node:test';
import { JobSchemaSettings, readSettings } from '../../src/settings/settings.ts';
import { type Environment, startEnvironment } from '../support/environment.ts';
import { operations } from '../support/operations.ts';
import { addFetch, csvOf, fetchNow, keyOf, ledger } from '../support/pipeline.ts';
import { countRows } from '../support/rows.ts';

let env: Environment;
before(async () => {
  env = await startEnvironment();
});
after(() => env.close());
beforeEach(() => env.reset());

const { one, rows } = operations(() => env);

const ID = 'WOT0700001';
const CUSTOMER = 'Wanjiku Otieno';
/** A customer's name where staff type it. */
const theTicket = {
  ticket_id: ID,
  cluster: 'Kilimani',
  is_actionable: 'true',
  location_name: `NW_${CUSTOMER} House`,
  description: `${CUSTOMER} called`,
};
const others = Array.from({ length: 80 }, (_, n) => ({
  ticket_id: `WOT0700${100 + n}`,
  cluster: 'Kilimani',
  is_actionable: 'true',
  location_name: 'NW_Yaya Centre_FDT1',
}));

/** Where a text stands: every table of ours, and the jobs. A table that is made later is looked at too. */
async function tablesWith(text: string): Promise<string[]> {
  const tables = await rows<{ name: string }>(
    `select oid::regclass::text as name from pg_class
     where relkind in ('r', 'p') and relnamespace::regnamespace::text in ('tickets', 'tickets_ops', 'reporting', $1) order by 1`,
    [readSettings(JobSchemaSettings).WORKER_SCHEMA],
  );
  const found: string[] = [];
  for (const { name } of tables) {
    const { hit } = await one<{ hit: boolean }>(`select exists (select from ${name} t where t::text ilike $1) as hit`, [
      `%${text}%`,
    ]);
    if (hit) found.push(name);
  }
  return found;
}

const erase = (id = ID) =>
  rows<{ what: string; erased: string; note: string | null }>('select * from tickets_ops.erase_ticket($1)', [id]);

describe('a ticket that is erased', () => {
  async function loaded(): Promise<void> {
    await env.putObject(keyOf(7), csvOf([theTicket, ...others]));
    assert.deepEqual(await fetchNow(env), []);
  }

  test('is in no table any more, nor is the place that only it named, with what people decided about that', async () => {
    await loaded();
    // A broken record of it, too; and a longer number, which is another ticket's.
    await env.putObject(
      keyOf(8),
      `${csvOf([{ ...theTicket, description: `${CUSTOMER} called again` }, ...others])}${ID},x,${CUSTOMER}\n${ID}9,x\n`,
    );
    assert.deepEqual(await fetchNow(env), []);
    await one(
      `insert into tickets.geo_clusters (cluster, geom) values ('Kilimani', st_setsrid(st_makepoint(36.78, -1.29), 4326))`,
    );
    await one(
      `insert into tickets.geo_locations (cluster, location_key, location_name, status, geom)
       values ('Kilimani', tickets.location_key($1), $1, 'found', st_setsrid(st_makepoint(36.79, -1.29), 4326))`,
      [theTicket.location_name],
    );
    await one(`select * from tickets.geocode_location($1, 'Kilimani', true)`, [theTicket.location_name]);
    await one(`select tickets_ops.take_ticket($1, 'KDA 123A', null, null, false)`, [ID]);
    assert.deepEqual(
      await tablesWith(CUSTOMER),
      [
        'tickets.geo_decisions',
        'tickets.geo_locations',
        'tickets.inc',
        'tickets_ops.snapshot_rejects',
        `${readSettings(JobSchemaSettings).WORKER_SCHEMA}._private_jobs`,
      ].sort(),
    );

    const erased = Object.fromEntries((await erase()).map(({ what, erased, note }) => [what, [Number(erased), note]]));
    assert.deepEqual(erased, {
      'tickets.inc': [1, null],
      'tickets.inc_events': [1, null],
      'tickets_ops.inc_digests': [1, null],
      'tickets.assignments': [1, null],
      'tickets_ops.snapshot_rows': [0, null],
      'tickets_ops.snapshot_rejects': [1, 'Line and reason stay.'],
      'tickets.geo_locations': [1, null],
      'tickets.geo_decisions': [1, null],
      jobs: [1, null],
      'errors that named it': [0, null],
      'files in the bucket': [
        2,
        'NOT erased: automations/inc/processed/2026-06-15T07-00-00.csv and later may hold it.',
      ],
    });
    assert.deepEqual(await tablesWith(CUSTOMER), []);
    assert.deepEqual(await tablesWith('Wanjiku'), []);
    assert.deepEqual(await tablesWith(`${ID}9`), ['tickets_ops.snapshot_rejects']);
    await one(`update tickets_ops.snapshot_rejects set row_text = '' where row_text like '${ID}9%'`);
    assert.deepEqual(await tablesWith(ID), []);
    assert.equal(await countRows(env.pool, 'tickets.inc'), others.length);
    await assert.rejects(env.pool.query('delete from tickets.geo_decisions'), /is history/);
  });

  test('is taken out of errors that quote it, and of messages about them that wait', async () => {
    await loaded();
    const error = `Batch 1 failed 6 times: Key (ticket_id)=(${ID}) "is" odd.`;
    await one(`update tickets_ops.snapshots set error = $1`, [error]);
    await one(
      `select tickets_ops.enqueue('fleettickets_alert', json_build_object('ok', false, 'problems', array[$1::text]))`,
      [error],
    );
    await one(`select tickets_ops.enqueue('fetch_snapshot', '{"dataset":"inc"}')`);
    await one(
      `update ${readSettings(JobSchemaSettings).WORKER_SCHEMA}._private_jobs set last_error = $1 where payload ->> 'dataset' = 'inc'`,
      [error],
    );
    assert.equal((await erase()).find(({ what }) => what === 'errors that named it')?.erased, '3');
    assert.deepEqual(await tablesWith(ID), []);
    const { payload } = await one<{ payload: unknown }>(
      `select payload from ${readSettings(JobSchemaSettings).WORKER_SCHEMA}._private_jobs where payload ->> 'ok' = 'false'`,
    );
    assert.deepEqual(payload, {
      ok: false,
      problems: ['Batch 1 failed 6 times: Key (ticket_id)=((erased)) "is" odd.'],
    });
  });

  test('is taken out of the words of a message only, whatever its id: a number, a key, characters that JSON escapes', async () => {
    for (const id of ['4711', 'problems', 'INC\\1 "a"']) {
      await env.reset();
      const message = { ok: false, problems: [`Row ${id} failed.`, 'Another.'], lasted_seconds: 14711 };
      await one(`select tickets_ops.enqueue('fleettickets_alert', $1)`, [JSON.stringify(message)]);
      await one(`select from tickets_ops.erase_ticket($1)`, [id]);
      const { payload } = await one<{ payload: unknown }>(
        `select payload from ${readSettings(JobSchemaSettings).WORKER_SCHEMA}._private_jobs where payload ->> 'ok' = 'false'`,
      );
      assert.deepEqual(payload, { ...message, problems: ['Row (erased) failed.', 'Another.'] }, id);
    }
  });

  test('comes back as a new one with the next file that has it', async () => {
    await loaded();
    await erase();
    await env.putObject(keyOf(8), csvOf([theTicket, ...others.slice(1)]));
    assert.deepEqual(await fetchNow(env), []);
    assert.deepEqual(await rows('select event, snapshot_id::int from tickets.inc_events where ticket_id = $1', [ID]), [
      { event: 'opened', snapshot_id: 2 },
    ]);
  });

  test('leaves a place that others name, in their spelling', async () => {
    const spelling = 'NW_YAYA CENTRE_FDT9';
    await env.putObject(keyOf(7), csvOf([{ ...theTicket, location_name: spelling }, ...others]));
    assert.deepEqual(await fetchNow(env), []);
    await one(
      `insert into tickets.geo_locations (cluster, location_key, location_name, status, geom)
       values ('Kilimani', tickets.location_key($1), $1, 'found', st_setsrid(st_makepoint(36.79, -1.29), 4326))`,
      [spelling],
    );
    await erase();
    assert.deepEqual(await rows('select location_name, verified from tickets.geo_locations'), [
      { location_name: 'NW_Yaya Centre_FDT1', verified: true },
    ]);
    assert.deepEqual(await rows(`select decision, after ->> 'location_name' as name from tickets.geo_decisions`), [
      { decision: 'added', name: 'NW_Yaya Centre_FDT1' },
    ]);
    const { placed } = await one<{ placed: number }>(
      `select count(*)::int as placed from tickets.inc where geo_source = 'location'`,
    );
    assert.equal(placed, others.length);
  });

  test('is taken out of a held file, which can be released all the same', async () => {
    await loaded();
    // Nearly all others close: held.
    await env.putObject(
      keyOf(8),
      csvOf([
        theTicket,
        { ...theTicket, ticket_id: 'WOT2' },
        ...others.map((ticket) => ({ ...ticket, is_actionable: 'false' })),
      ]),
    );
    assert.deepEqual(await fetchNow(env), []);
    assert.equal((await ledger(env)).at(-1)?.status, 'held');
    const staged = (await erase()).find(({ what }) => what === 'tickets_ops.snapshot_rows');
    assert.equal(Number(staged?.erased), 1);
    await erase('WOT2');
    for (const id of [ID, 'WOT2']) assert.deepEqual(await tablesWith(id), [], id);
    await one('select tickets_ops.release_snapshot(2)');
    assert.deepEqual(await env.runJobs(), []);
    const entry = (await ledger(env)).at(-1);
    assert.deepEqual([entry?.status, entry?.rows_read, entry?.rows_updated], ['done', 80, 80]);
    assert.deepEqual(await tablesWith(ID), []);
  });

  test('is not erased while a file is being loaded, which may bring it', async () => {
    await loaded();
    const { broken } = operations(() => env);
    const repair = await broken('tickets.inc');
    await env.putObject(keyOf(8), csvOf([{ ...theTicket, description: 'again' }, ...others]));
    await addFetch(env);
    await env.runJobs().finally(repair);
    await assert.rejects(
      erase(),
      /A snapshot is being loaded, and may bring ticket WOT0700001 again: nothing was erased/,
    );
  });

  test('may be erased by the owner only', async () => {
    for (const role of ['tickets_operator', 'tickets_curator', 'tickets_dispatcher', 'tickets_reader'])
      assert.deepEqual(
        await one(`select has_function_privilege($1, 'tickets_ops.erase_ticket(text, text)', 'execute') as may`, [
          role,
        ]),
        { may: false },
      );
  });

  test('of no name is refused: it would be found in every text', async () => {
    for (const id of [null, '', ' '])
      await assert.rejects(env.pool.query('select tickets_ops.erase_ticket($1)', [id]), /Say which ticket/);
  });

  test('of an unknown dataset is refused', async () => {
    for (const dataset of ['INC', null])
      await assert.rejects(
        env.pool.query('select * from tickets.freshness($1)', [dataset]),
        /no dataset .*: inc or crq/,
      );
    await assert.rejects(
      env.pool.query(`select tickets_ops.erase_ticket('WOT1', 'abc')`),
      /no dataset abc: inc or crq/,
    );
  });
});
