/** What a command says to a person who lacks a right that it needs. */
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { after, before, describe, test } from 'node:test';
import { fleettickets } from '../support/command.ts';
import { type Environment, native, startEnvironment } from '../support/environment.ts';

describe('a command', { skip: !native && 'needs a native Postgres' }, () => {
  const suffix = randomBytes(4).toString('hex');
  const reader = `reader_${suffix}`;
  let env: Environment;
  before(async () => {
    env = await startEnvironment();
    await env.pool.query(`create role ${reader} login in role tickets_reader`);
  });
  after(async () => {
    await env.pool.query(`drop role ${reader}`);
    await env.close();
  });
  const as = (login: string) => Object.assign(new URL(env.databaseUrl), { username: login }).href;

  test('of a role that may not says what to do, also as JSON, and SQL in it can be run whatever the role is called', async () => {
    const person = `Field "Ops" ${suffix}`;
    const quoted = `"${person.replaceAll('"', '""')}"`;
    await env.pool.query(`create role ${quoted} login`);
    const run = async (args: string[], login: string) => {
      const { out, err } = await fleettickets({ DATABASE_URL: as(login) }, ...args);
      return out + err;
    };
    try {
      for (const args of [
        ['status'],
        ['status', '--json'],
        ['healthcheck'],
        ['worker', '--once'],
        ['dispatch', '--apply'],
      ]) {
        const said = await run(args, reader);
        assert.match(said, /permission denied for [\s\S]*lacks that right/, args.join(' '));
        assert.doesNotMatch(said, /\n {4}at /);
      }
      const [, grant] = /Its owner can allow it: (grant .*;)/.exec(await run(['metrics'], person)) ?? [];
      assert.equal(grant, `grant tickets_monitor to ${quoted};`);
      const doctor = await run(['doctor', '--json'], person);
      assert.ok(
        JSON.parse(doctor).some(({ remedy = '' }) => remedy.endsWith(` to ${quoted}`)),
        doctor,
      );
    } finally {
      await env.pool.query(`drop role ${quoted}`);
    }
  });
});
