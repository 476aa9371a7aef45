/** The version under concurrency: no transaction waits for another because of it, and none is missed. */
import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { after, before, beforeEach, describe, test } from 'node:test';
import type pg from 'pg';
import { type Environment, native, startEnvironment } from '../support/environment.ts';

describe('the version of the map, with several writers', { skip: !native && 'needs a native Postgres' }, () => {
  let env: Environment;
  before(async () => {
    env = await startEnvironment();
  });
  after(() => env?.close());
  beforeEach(() => env.reset());

  const version = async () =>
    (await env.pool.query<{ version: string }>('select reporting.fn_tickets_version() as version')).rows[0]?.version;
  const insert = (client: pg.PoolClient, id: string) =>
    client.query(`insert into tickets.inc (ticket_id, raw) values ($1, '{"is_actionable": "true"}')`, [id]);
  const clients = (count: number) => Promise.all(Array.from({ length: count }, () => env.pool.connect()));

  test('transactions that commit in the other order than they began change it at each commit, and wait for nobody', async () => {
    const open = await clients(5);
    try {
      for (const [n, client] of open.entries()) {
        // One that waits for another would wait for ever: none has committed yet.
        await client.query(`begin; set local lock_timeout = '2s'`);
        await insert(client, `WOT${n}`);
      }
      const seen = [await version()];
      for (const client of open.reverse()) {
        await client.query('commit');
        seen.push(await version());
      }
      assert.equal(new Set(seen).size, open.length + 1);
    } finally {
      for (const client of open) client.release(true);
    }
  });

  test('its table grows with the writers at the same time, not with their number', async () => {
    const open = await clients(4);
    try {
      for (let round = 0; round < 50; round += 1) {
        await Promise.all(
          open.map(async (client, n) => {
            await client.query('begin');
            await insert(client, `WOT${round}-${n}`);
            await client.query(round % 5 === 0 ? 'rollback' : 'commit');
          }),
        );
      }
    } finally {
      for (const client of open) client.release();
    }
    const { rows } = await env.pool.query('select count(*)::int as slots from tickets.version_slots');
    assert.ok(rows[0].slots <= 5, `${rows[0].slots} slots`); // the four, and what emptied the tables
  });

  test('a version stands for one content, no matter who writes and commits meanwhile', async () => {
    const writers = await clients(5);
    const reader = await env.pool.connect();
    const contents = new Map<string, string>();
    let writing = true;
    const read = async () => {
      while (writing) {
        const { rows } = await reader.query<{ version: string; content: string }>(
          `select reporting.fn_tickets_version() as version,
             concat_ws(' | ',
               (select string_agg(ticket_id || raw::text || xmin::text, ' ' order by ticket_id) from tickets.inc),
               (select string_agg(cluster || xmin::text, ' ' order by cluster) from tickets.geo_clusters)) as content`,
        );
        for (const { version: seen, content } of rows) {
          const hash = createHash('sha256').update(content).digest('hex');
          assert.equal(contents.get(seen) ?? hash, hash, `version ${seen} stands for two contents`);
          contents.set(seen, hash);
        }
      }
    };
    const write = async (client: pg.PoolClient, n: number) => {
      for (let round = 0; round < 60; round += 1) {
        await client.query('begin');
        await client.query(
          (n + round) % 4 === 0
            ? `insert into tickets.geo_clusters (cluster) values ('Cluster ${n}') on conflict (cluster) do update set attempts = geo_clusters.attempts + 1`
            : `insert into tickets.inc (ticket_id, raw) values ('WOT${n}', '{}') on conflict (ticket_id) do update set raw = jsonb_build_object('n', ${round})`,
        );
        await client.query(round % 7 === 0 ? 'rollback' : 'commit');
      }
    };
    try {
      const reading = read();
      await Promise.all(writers.map(write)).finally(() => {
        writing = false;
      });
      await reading;
    } finally {
      for (const client of [...writers, reader]) client.release();
    }
    assert.equal(new Set(contents.values()).size, contents.size, 'two versions stand for one content');
    assert.ok(contents.size > 20, `only ${contents.size} versions were seen`);
  });
});
