/** Decisions about places: who made them, what they moved, and how they are taken back. */
import assert from 'node:assert/strict';
import { after, before, beforeEach, describe, test } from 'node:test';
import type pg from 'pg';
import { type Environment, startEnvironment } from '../support/environment.ts';
import { makePlaces, ticketsAt } from '../support/places.ts';

const KILIMANI = [-1.29, 36.78] as const;
const ROSE_COURT = { label: 'Rose Gardens, Kilimani, Nairobi', lat: -1.2912345678, lng: 36.7851234567 };

let env: Environment;
before(async () => {
  env = await startEnvironment();
});
after(() => env.close());
beforeEach(async () => {
  await env.reset();
  await makePlaces(env.pool, {
    clusters: { Kilimani: KILIMANI, Nyali: null },
    places: [
      { cluster: 'Kilimani', name: 'NW_Rose Court', candidates: [ROSE_COURT], tickets: 12 },
      {
        cluster: 'Kilimani',
        name: 'NW_Palm Court',
        candidates: [
          { label: 'Palm Court, Ruiru', lat: -1.15, lng: 36.96 },
          { label: 'Palm Court, Thika', lat: -1.03, lng: 37.07 },
        ],
        tickets: 3,
      },
      {
        cluster: 'Kilimani',
        name: 'NW_Acacia Road',
        candidates: [{ label: 'Acacia Road, Thika', lat: -1.04, lng: 37.08 }],
        tickets: 4,
      },
    ],
  });
});

const ROSE = `cluster = 'Kilimani' and location_key = 'rose court'`;

async function decisions() {
  const { rows } = await env.pool.query(
    `select decision_id::integer as id, decided_by as by, coalesce(location_key, cluster) as place, decision, tickets_moved::integer as moved, undoes::integer
     from tickets.geo_decisions order by decision_id`,
  );
  return rows;
}

/** A row with its geometry to the last bit, without the time of its last change. */
async function rowOf(table: string, where: string): Promise<unknown> {
  const { rows } = await env.pool.query(
    `select to_jsonb(t) - 'updated_at' || jsonb_build_object('geom', geom::text) as row from tickets.${table} t where ${where}`,
  );
  return rows[0]?.row;
}

const undo = async (id: number, db: pg.Pool | pg.PoolClient = env.pool) =>
  (await db.query('select tickets_moved::integer as moved, decision from tickets.undo_decision($1)', [id])).rows[0];

describe('what is written down', () => {
  test('a person’s UPDATE is signed with the role that made it, whatever it writes there, and appended with the tickets that moved', async () => {
    const { rows } = await env.pool.query(
      `update tickets.geo_locations set verified = true, verified_by = 'somebody else', verified_at = '2020-01-01' where ${ROSE}
       returning verified_by = current_user as signed, verified_at > now() - interval '1 minute' as now`,
    );
    assert.deepEqual(rows, [{ signed: true, now: true }]);
    const [{ by, ...decision }] = await decisions();
    assert.deepEqual(decision, { id: 1, place: 'rose court', decision: 'accepted', moved: 12, undoes: null });
    assert.ok(by);
    assert.equal(await ticketsAt(env.pool, 'rose court'), 'location -1.2912 36.7851 × 12');
  });

  test('the role is the person’s, also where a function with its owner’s rights writes', async () => {
    await env.pool.query(`do $$ begin create role amina; exception when duplicate_object then null; end $$`);
    const client = await env.pool.connect();
    try {
      await client.query('begin');
      await client.query(
        `create function tickets.accept() returns void language sql security definer set search_path = pg_catalog, pg_temp
         as $$ update tickets.geo_locations set verified = true where ${ROSE} $$;
         grant usage on schema tickets to amina`,
      );
      await client.query('set local role amina');
      await client.query('select tickets.accept()');
      await client.query('reset role');
      const { rows } = await client.query(`select verified_by from tickets.geo_locations where ${ROSE}`);
      assert.deepEqual(rows, [{ verified_by: 'amina' }]);
    } finally {
      await client.query('rollback');
      client.release();
    }
  });

  test('each kind of decision has its word, each place of one statement its own count', async () => {
    const run = (sql: string) => env.pool.query(sql);
    await run(`update tickets.geo_locations set geom = st_setsrid(st_makepoint(36.79, -1.3), 4326) where ${ROSE}`);
    await run(`update tickets.geo_locations set status = 'rejected' where ${ROSE}`);
    await run(`update tickets.geo_locations set note = 'the gate is behind the school' where ${ROSE}`);
    await run(`update tickets.geo_locations set verified = false where ${ROSE}`);
    await run(`update tickets.geo_clusters set guard_km = 30 where cluster = 'Kilimani'`);
    await run(`update tickets.geo_clusters set geom = null where cluster = 'Kilimani'`);
    await run(
      `insert into tickets.geo_locations (cluster, location_name, geom) values ('Nyali', 'NW_Palm Court', st_setsrid(st_makepoint(39.72, -4.03), 4326))`,
    );
    await run(`delete from tickets.geo_locations where cluster = 'Nyali'`);
    await run(
      `update tickets.geo_locations set geom = st_setsrid(st_makepoint(36.8, -1.3), 4326) where location_key in ('palm court', 'acacia road')`,
    );
    assert.deepEqual(
      (await decisions()).map(({ place, decision, moved }) => `${place}: ${decision}, ${moved}`),
      [
        'rose court: moved, 12',
        'rose court: rejected, 12',
        'rose court: changed, 0',
        'rose court: handed back, 0',
        'Kilimani: guard, 3',
        'Kilimani: rejected, 16',
        'palm court: added, 0',
        'palm court: removed, 0',
        'acacia road: moved, 4',
        'palm court: moved, 3',
      ],
    );
  });

  test('neither the pipeline’s verdicts nor a write that changes nothing are decisions', async () => {
    await env.pool.query(`update tickets.geo_locations set status = status`);
    assert.deepEqual(await decisions(), []);
  });

  test('history is not rewritten, by its owner neither', async () => {
    await env.pool.query(`update tickets.geo_locations set verified = true where ${ROSE}`);
    for (const sql of [
      `update tickets.geo_decisions set decided_by = 'nobody'`,
      'delete from tickets.geo_decisions',
      'truncate tickets.geo_decisions',
    ]) {
      await assert.rejects(env.pool.query(sql), /is history/);
    }
  });
});

describe('undo', () => {
  test('restores every column, verified included, and the tickets', async () => {
    const before = [await rowOf('geo_locations', ROSE), await ticketsAt(env.pool, 'rose court')];
    await env.pool.query(
      `update tickets.geo_locations set geom = st_setsrid(st_makepoint(36.79, -1.3), 4326), note = 'seen' where ${ROSE}`,
    );
    assert.deepEqual(await undo(1), { moved: 12, decision: 'undone' });
    assert.deepEqual([await rowOf('geo_locations', ROSE), await ticketsAt(env.pool, 'rose court')], before);
  });

  test('of a verified place that was moved restores who had verified it', async () => {
    await env.pool.query(`update tickets.geo_locations set verified = true where ${ROSE}`);
    const before = await rowOf('geo_locations', ROSE);
    await env.pool.query(`update tickets.geo_locations set status = 'rejected' where ${ROSE}`);
    await undo(2);
    assert.deepEqual(await rowOf('geo_locations', ROSE), before);
  });

  test('of a centroid, and of a guard, takes the verdicts on its places back with it', async () => {
    const state = async () => [
      await rowOf('geo_clusters', `cluster = 'Kilimani'`),
      await rowOf('geo_locations', `location_key = 'palm court'`),
      await ticketsAt(env.pool, 'palm court'),
    ];
    const before = await state();
    await env.pool.query(`update tickets.geo_clusters set guard_km = 45 where cluster = 'Kilimani'`);
    assert.equal(await ticketsAt(env.pool, 'palm court'), 'location -1.1500 36.9600 × 3');
    await undo(1);
    assert.deepEqual(await state(), before);
    await env.pool.query(
      `update tickets.geo_clusters set geom = st_setsrid(st_makepoint(37.07, -1.03), 4326) where cluster = 'Kilimani'`,
    );
    await undo(3);
    assert.deepEqual(await state(), before);
  });

  test('of what was added deletes it, of what was removed brings it back', async () => {
    await env.pool.query(
      `insert into tickets.geo_clusters (cluster, geom) values ('Karen', st_setsrid(st_makepoint(36.7, -1.32), 4326))`,
    );
    await undo(1);
    assert.equal(await rowOf('geo_clusters', `cluster = 'Karen'`), undefined);
    const before = await rowOf('geo_locations', ROSE);
    await env.pool.query(`delete from tickets.geo_locations where ${ROSE}`);
    await undo(3);
    assert.deepEqual(await rowOf('geo_locations', ROSE), before);
  });

  test('can be undone itself, and decisions one after the other, the last one first', async () => {
    const first = await rowOf('geo_locations', ROSE);
    await env.pool.query(`update tickets.geo_locations set verified = true where ${ROSE}`);
    const second = await rowOf('geo_locations', ROSE);
    await env.pool.query(`update tickets.geo_locations set status = 'rejected' where ${ROSE}`);
    await undo(2);
    await undo(1);
    assert.deepEqual(await rowOf('geo_locations', ROSE), first);
    await undo(4);
    assert.deepEqual(await rowOf('geo_locations', ROSE), second);
    assert.deepEqual(
      (await decisions()).map(({ undoes }) => undoes),
      [null, null, 2, 1, 4],
    );
  });

  test('is refused when the place was changed since, by a person or by the pipeline, and when there is no such decision', async () => {
    await env.pool.query(`update tickets.geo_locations set verified = true where ${ROSE}`);
    await env.pool.query(`update tickets.geo_locations set note = 'seen' where ${ROSE}`);
    await assert.rejects(undo(1), { code: '55000', message: /was changed since/ });
    await undo(2);
    await env.pool.query(`update tickets.geo_locations set verified = false where ${ROSE}`);
    await env.pool.query(
      `do $$ begin
         perform tickets_ops.as_pipeline(true);
         update tickets.geo_locations set status = 'not_found', geom = null where ${ROSE};
         perform tickets_ops.as_pipeline(false);
       end $$`,
    );
    await assert.rejects(undo(4), { code: '55000' });
    await assert.rejects(undo(99), { code: 'P0002', message: 'There is no decision 99.' });
  });

  test('is compared to the microsecond and to the last digit of a coordinate, whatever time zone a session is in', async () => {
    await env.pool.query(`update tickets.geo_locations set verified = true where ${ROSE}`);
    const client = await env.pool.connect();
    try {
      await client.query('begin');
      await client.query(`set local timezone = 'Africa/Nairobi'`);
      assert.equal((await undo(1, client)).moved, 12);
      await client.query('commit');
    } finally {
      client.release();
    }
  });

  test('the mark that it sets restores that decision’s row only', async () => {
    await env.pool.query(`update tickets.geo_locations set verified = true where ${ROSE}`);
    const client = await env.pool.connect();
    try {
      await client.query('begin');
      await client.query(`select set_config('tickets_ops.undoing', '1', true)`);
      await assert.rejects(
        client.query(`update tickets.geo_locations set status = 'rejected' where location_key = 'palm court'`),
        /changed no such row/,
      );
    } finally {
      await client.query('rollback');
      client.release();
    }
  });
});

describe('what a reviewer is told', () => {
  test('the candidates with the judge’s words, and where rejected places would be without the guard', async () => {
    const { rows } = await env.pool.query(
      `select label, distance_km::float8, verdict from tickets_ops.place_candidates('Kilimani', 'palm court')`,
    );
    assert.deepEqual(
      rows.map(({ label }) => label),
      ['Palm Court, Ruiru', 'Palm Court, Thika'],
    );
    assert.match(rows[1].verdict, /^refused: it is 43\.\d km from the centre of the cluster, the guard is 25 km$/);
    const { rows: beyond } = await env.pool.query(
      `select location_key, distance_km::float8 as km from tickets_ops.places_beyond_guard('Kilimani')`,
    );
    assert.deepEqual(
      beyond.map(({ location_key, km }) => [location_key, Math.round(km)]),
      [
        ['palm court', 25],
        ['acacia road', 43],
      ],
    );
  });

  test('a candidate of a cluster fits where the judge would take it for the centroid, and nowhere else', async () => {
    const candidates = [
      // What a place lies in is good enough for a place.
      { label: 'Kisumu, Kisumu County, Kenya', lat: -0.1, lng: 34.75, level: 'neighbourhood', country: 'ke' },
      { label: 'Kisumu East, Kisumu, Kenya', lat: -0.11, lng: 34.78, level: 'neighbourhood', country: 'ke' },
      { label: 'Kisumu East', lat: 34.78, lng: -0.11, level: 'neighbourhood', country: 'ke' },
    ];
    await env.pool.query(`insert into tickets.geo_clusters (cluster, candidates) values ('Kisumu East', $1)`, [
      JSON.stringify(candidates),
    ]);
    const { rows } = await env.pool.query(`select verdict from tickets_ops.place_candidates('Kisumu East')`);
    assert.deepEqual(
      rows.map(({ verdict }) => verdict),
      ['refused: it has another name', 'fits', 'refused: its latitude and longitude are swapped'],
    );
    for (const [index, candidate] of candidates.entries()) {
      const { rows: judged } = await env.pool.query(
        `select geom is not null as taken from tickets_ops.judge_cluster($1, 'kisumu east', null, 25)`,
        [JSON.stringify([candidate])],
      );
      assert.equal(judged[0].taken, rows[index].verdict === 'fits', candidate.label);
    }
  });

  test('a cluster without a centroid, and a place that is not there', async () => {
    const { rows } = await env.pool.query(
      `select tickets_ops.review_place('cluster', 'Nyali') as nyali, tickets_ops.review_place('location', 'Nyali', 'nowhere') as nowhere`,
    );
    assert.deepEqual([rows[0].nyali.place.lng, rows[0].nyali.candidates, rows[0].nowhere.place], [null, [], null]);
  });
});
