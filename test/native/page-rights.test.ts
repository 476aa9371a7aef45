/** The page acts with the role of the person who starts it: what that role may not do is answered with the GRANT, and not done. */
import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { after, before, describe, test } from 'node:test';
import { type Page, startPage } from '../../src/page/server.ts';
import { startBrowser, visit } from '../support/browser.ts';
import { type Environment, native, startEnvironment } from '../support/environment.ts';
import { makePlaces, ticketsAt } from '../support/places.ts';

const PEOPLE = { reader: 'page_reader', curator: 'page_curator', operator: 'page_operator', nobody: 'page "nobody"' };

describe('the page’s rights', { skip: !native && 'needs a native Postgres', timeout: 60_000 }, () => {
  let env: Environment;
  const open: Page[] = [];
  before(async () => {
    env = await startEnvironment();
    await dropPeople(env);
    for (const [kind, name] of Object.entries(PEOPLE)) {
      const quoted = `"${name.replaceAll('"', '""')}"`;
      await env.pool.query(`create role ${quoted} login ${kind === 'nobody' ? '' : `in role tickets_${kind}`}`);
    }
    await makePlaces(env.pool, {
      clusters: { Kilimani: [-1.29, 36.78] },
      places: [
        {
          cluster: 'Kilimani',
          name: 'NW_Rose Court',
          candidates: [{ label: 'Rose Gardens, Kilimani, Nairobi', lat: -1.2912, lng: 36.7851 }],
          tickets: 4,
        },
      ],
    });
  });
  after(async () => {
    for (const page of open) await page.close();
    await dropPeople(env);
    await env.close();
  });

  async function pageOf(person: keyof typeof PEOPLE): Promise<Page> {
    const url = new URL(env.databaseUrl);
    url.username = encodeURIComponent(PEOPLE[person]);
    const page = await startPage(url.href, 0, { MAP_TILES_ATTRIBUTION: '' });
    open.push(page);
    return page;
  }

  /** Asks as the page would. */
  async function asker(person: keyof typeof PEOPLE) {
    const page = await pageOf(person);
    const { origin } = new URL(page.url);
    const { headers } = await fetch(page.url, { redirect: 'manual' });
    const cookie = headers.get('set-cookie')?.split(';')[0] ?? '';
    return async (path: string, body?: object) => {
      const post = body && { method: 'POST', body: JSON.stringify(body) };
      const response = await fetch(origin + path, {
        ...post,
        headers: { cookie, origin, 'content-type': 'application/json' },
      });
      // biome-ignore lint/suspicious/noExplicitAny: whatever the page would get
      return { status: response.status, answer: (await response.json()) as any };
    };
  }

  const place = async () =>
    (await env.pool.query(`select updated_at::text, verified, verified_by from tickets.geo_locations`)).rows[0];
  const accept = async () => ({
    ...{ kind: 'location', cluster: 'Kilimani', location_key: 'rose court', decision: 'accept' },
    updated_at: (await place()).updated_at,
  });

  test('a reader sees the map, and for all else the GRANT; nothing is written', async () => {
    const ask = await asker('reader');
    assert.equal((await ask('/api/places')).answer.places.length, 1);
    assert.equal((await ask('/api/tickets?lng=36.78&lat=-1.29')).answer.length, 4);
    assert.deepEqual((await ask('/api/vehicles')).answer, []);
    for (const [path, body, role] of [
      ['/api/queue', undefined, 'tickets_curator'],
      ['/api/place?kind=cluster&cluster=Kilimani', undefined, 'tickets_curator'],
      ['/api/decide', await accept(), 'tickets_curator'],
      ['/api/undo', { decision_id: 1 }, 'tickets_curator'],
      ['/api/jobs', undefined, 'tickets_operator'],
      ['/api/jobs', { action: 'fetch' }, 'tickets_operator'],
    ] as const) {
      const { status, answer } = await ask(path, body);
      assert.deepEqual([path, status, answer.grant], [path, 403, `grant ${role} to ${PEOPLE.reader};`]);
      assert.match(answer.error, /^Your role page_reader may not do this: permission denied/);
    }
    assert.equal((await place()).verified, false);
    assert.equal((await env.pool.query('select from tickets.geo_decisions')).rows.length, 0);
  });

  test('a tracker’s table that may not be read leaves the map as it is, and is no reason for a GRANT of ours', async () => {
    const shipped = (await env.pool.query(`select pg_get_viewdef('tickets.vehicles'::regclass) as sql`)).rows[0].sql;
    await env.pool.query(
      `create schema tracker;
       create function tracker.position() returns double precision language plpgsql stable as $$ begin return 36.8; end $$;
       revoke execute on function tracker.position() from public;
       create or replace view tickets.vehicles as
       select 'v1'::text as vehicle_id, null::text as label, null::text as team, tracker.position() as lng, null::double precision as lat,
         null::timestamptz as located_at, null::timestamptz as seen_at, null::boolean as moving, null::double precision as speed_kmh, null::text as source`,
    );
    try {
      const ask = await asker('reader');
      const { status, answer } = await ask('/api/vehicles');
      assert.deepEqual([status, answer.grant], [403, undefined]);
      assert.match(answer.error, /permission denied for function position/);
      assert.equal((await ask('/api/places')).status, 200);
    } finally {
      await env.pool.query(`create or replace view tickets.vehicles as ${shipped}`);
      await env.pool.query('drop schema tracker cascade');
    }
  });

  test('the GRANT that is answered is all that is missing', async () => {
    const ask = await asker('reader');
    const { answer } = await ask('/api/queue');
    await env.pool.query(answer.grant);
    assert.equal((await ask('/api/decide', await accept())).status, 200);
    assert.equal((await ask('/api/undo', { decision_id: 1 })).status, 200);
    await env.pool.query(`revoke tickets_curator from ${PEOPLE.reader}`);
    assert.equal((await ask('/api/queue')).status, 403);
  });

  test('a curator decides and undoes, is named in the history, and cannot delete or rewrite it', async () => {
    const ask = await asker('curator');
    const { status, answer } = await ask('/api/decide', await accept());
    assert.deepEqual([status, answer.tickets_moved, answer.notices], [200, 4, []]);
    assert.equal((await place()).verified_by, PEOPLE.curator);
    assert.equal(await ticketsAt(env.pool, 'rose court'), 'location -1.2912 36.7851 × 4');
    assert.equal((await ask('/api/undo', { decision_id: answer.decision_id })).answer.tickets_moved, 4);
    const { rows } = await env.pool.query(
      'select distinct decided_by from tickets.geo_decisions where decision_id >= $1',
      [answer.decision_id],
    );
    assert.deepEqual(rows, [{ decided_by: PEOPLE.curator }]);
    assert.equal((await ask('/api/jobs')).answer.grant, `grant tickets_operator to ${PEOPLE.curator};`);
    const client = await env.pool.connect();
    try {
      await client.query(`set role ${PEOPLE.curator}`);
      for (const sql of [
        'delete from tickets.geo_locations',
        'delete from tickets.geo_decisions',
        'update tickets.inc set raw = raw',
        `insert into tickets.geo_decisions (decided_by, kind, cluster, decision, before, tickets_moved) values ('x', 'cluster', 'x', 'moved', '{}', 0)`,
      ]) {
        await assert.rejects(client.query(sql), { code: '42501' }, sql);
      }
    } finally {
      await client.query('reset role');
      client.release();
    }
  });

  const FORGED = { code: '42501', message: /^What page_curator decides about a place is signed/ };

  test('a curator cannot write as if it were the pipeline: the mark is a setting, which anybody can set', async () => {
    const client = await env.pool.connect();
    try {
      for (const mark of [`tickets_ops.writer = 'pipeline'`, `tickets_ops.erasing = 'true'`]) {
        await client.query(`begin; set local role ${PEOPLE.curator}; set local ${mark}`);
        await assert.rejects(
          client.query(`update tickets.geo_locations set verified = true, verified_by = 'somebody else'`),
          FORGED,
        );
        await client.query('rollback');
      }
      // Set by the statement itself: before a row is written, and after.
      const mark = `set_config('tickets_ops.writer', 'pipeline', false)`;
      const centroid = `select 'Forged', st_setsrid(st_makepoint(36.8, -1.3), 4326)`;
      for (const statement of [
        `insert into tickets.geo_clusters (cluster, geom, verified_by) ${centroid}, ${mark}`,
        `insert into tickets.geo_clusters (cluster, geom) ${centroid} returning ${mark}`,
      ]) {
        await client.query(`begin; set local role ${PEOPLE.curator}`);
        await assert.rejects(client.query(statement), FORGED);
        await client.query('rollback');
      }
      // To take a decision back is one as well, whatever is set: it is written down.
      await client.query(
        `begin; set local role ${PEOPLE.curator}; insert into tickets.geo_clusters (cluster, geom) ${centroid}`,
      );
      const { rows } = await client.query(
        `select max(decision_id) as id from tickets.geo_decisions where cluster = 'Forged'`,
      );
      await client.query(`set local tickets_ops.writer = 'pipeline'`);
      const undone = await client.query(`select undoes from tickets.undo_decision($1)`, [rows[0].id]);
      assert.deepEqual(undone.rows, [{ undoes: rows[0].id }]);
      await client.query('rollback');
    } finally {
      client.release();
    }
  });

  test('a curator has the rights that docs/privileges.md names, and no others', async () => {
    const { rows: relations } = await env.pool.query(
      `select c.oid::regclass::text as name, string_agg(kind, ', ' order by kind) as may
       from pg_class c cross join unnest(array['select', 'insert', 'update', 'delete', 'truncate', 'references', 'trigger']) as kind
       where c.relkind in ('r', 'v', 'm', 'p', 'f')
         and c.relnamespace::regnamespace::text in ('tickets', 'tickets_ops', 'reporting', 'graphile_worker', 'graphile_migrate')
         and has_schema_privilege($1, c.relnamespace, 'usage') and has_table_privilege($1, c.oid, kind)
         and (kind <> 'select' or c.relnamespace <> 'tickets'::regnamespace)
       group by 1 order by 1`,
      [PEOPLE.curator],
    );
    assert.deepEqual(relations, [
      { name: 'graphile_migrate.migrations', may: 'select' },
      { name: 'tickets.geo_clusters', may: 'insert, update' },
      { name: 'tickets.geo_locations', may: 'insert, update' },
      { name: 'tickets_ops.review_queue', may: 'select' },
    ]);
    const { rows: functions } = await env.pool.query(
      `select p.oid::regprocedure::text as name from pg_proc p
       where (p.prosecdef or p.pronamespace = 'tickets_ops'::regnamespace)
         and p.pronamespace::regnamespace::text in ('tickets', 'tickets_ops') and has_function_privilege($1, p.oid, 'execute')
       order by 1`,
      [PEOPLE.curator],
    );
    assert.deepEqual(
      functions.map(({ name }) => name),
      [
        'tickets.datasets()',
        'tickets.freshness(text)',
        'tickets.undo_decision(bigint)',
        'tickets_ops.is_far_from_its_places(text)', // review_queue asks it with the reader's rights
        'tickets_ops.place_candidates(text,text)',
        'tickets_ops.places_beyond_guard(text)',
        'tickets_ops.places_together(geometry[],geometry,numeric)', // review_place asks it with the reader's rights
        'tickets_ops.rejected_places(text)',
        'tickets_ops.review_place(text,text,text)',
      ],
    );
  });

  test('an operator reads of tickets_ops what docs/privileges.md names, and calls it, and a monitor reads its two views', async () => {
    const page = await readFile(new URL('../../docs/privileges.md', import.meta.url), 'utf8');
    const [read = '', call = ''] = page
      .split('\n')
      .filter((line) => /^\| `tickets_ops\..*\| (read|call) \| \|$/.test(line));
    const named = (row: string) => [...row.matchAll(/`(?:tickets_ops\.)?([a-z_]+)`/g)].map(([, name]) => name);
    const { rows: readable } = await env.pool.query(
      `select array_agg(relname::text order by relname) filter (where has_table_privilege('tickets_operator', oid, 'select')) as operator,
         array_agg(relname::text order by relname) filter (where has_table_privilege('tickets_monitor', oid, 'select')) as monitor
       from pg_class where relnamespace = 'tickets_ops'::regnamespace and relkind in ('r', 'v', 'm')`,
    );
    assert.deepEqual(readable, [{ operator: [...named(read), 'review_queue'].sort(), monitor: ['health', 'metrics'] }]);
    const { rows: callable } = await env.pool.query(
      `select proname::text as name from pg_proc
       where pronamespace = 'tickets_ops'::regnamespace and proname = any ($1) and has_function_privilege('tickets_operator', oid, 'execute')
       order by 1`,
      [named(call)],
    );
    assert.deepEqual(
      callable.map(({ name }) => name),
      named(call).sort(),
    );
  });

  test('an operator sees to jobs, and may not decide', async () => {
    const ask = await asker('operator');
    assert.equal((await ask('/api/jobs')).status, 200);
    assert.match((await ask('/api/jobs', { action: 'fetch' })).answer.notes[0], /^The bucket is looked at now/);
    assert.equal(
      (await ask('/api/decide', await accept())).answer.grant,
      `grant tickets_curator to ${PEOPLE.operator};`,
    );
  });

  test('two people who decide about one place at once: one is told that the other was first', async () => {
    const [one, other] = [await asker('curator'), await asker('curator')];
    const decision = await accept();
    const answers = await Promise.all([
      one('/api/decide', decision),
      other('/api/decide', { ...decision, decision: 'reject' }),
    ]);
    assert.deepEqual(answers.map(({ status }) => status).sort(), [200, 409]);
    const done = answers.find(({ status }) => status === 200);
    assert.equal((await one('/api/undo', { decision_id: done?.answer.decision_id })).status, 200);
  });

  test('a role that may not even read is told before the page is served, with the GRANT', async () => {
    await assert.rejects(pageOf('nobody'), { message: /grant tickets_reader to "page ""nobody""";/ });
  });

  test('the browser shows the GRANT where the view would be', async (t) => {
    const browser = await startBrowser();
    t.after(() => browser.close());
    const { tab } = await visit(browser, (await pageOf('reader')).url);
    await tab.locator('#map .summary').getByText('1 place, 4 open tickets').waitFor();
    await tab.getByRole('link', { name: 'Review' }).click();
    await tab.locator('#review').getByText('grant tickets_curator to page_reader;').waitFor();
    await tab.getByRole('link', { name: 'Jobs' }).click();
    await tab.locator('#jobs').getByText('grant tickets_operator to page_reader;').waitFor();
  });
});

/** Roles belong to the server, and outlive a run that was cut off. */
async function dropPeople(env: Environment): Promise<void> {
  for (const name of Object.values(PEOPLE)) await env.pool.query(`drop role if exists "${name.replaceAll('"', '""')}"`);
}
