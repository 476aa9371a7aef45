/**
 * A server with databases of the Python version (test/fixtures/legacy.sql), and taking them over as their owner, who is no
 * superuser. Each test has a copy of its own.
 */
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { after, before } from 'node:test';
import { promisify } from 'node:util';
import type pg from 'pg';
import { pino } from 'pino';
import { migrate } from '../../src/database/schema.ts';
import { asPerson, inJobSchema } from './environment.ts';
import { postgresPrograms } from './native.ts';

export const server = process.env.TEST_DATABASE_URL ?? '';
export const silent = pino({ level: 'silent' });
const LEGACY = new URL('../fixtures/legacy.sql', import.meta.url);

const suffix = randomBytes(4).toString('hex');
export const owner = `takeover_owner_${suffix}`;
export const dashboard = `takeover_dashboard_${suffix}`;
export const worker = `takeover_worker_${suffix}`;
export const large = `takeover_large_${suffix}`;
const small = `takeover_small_${suffix}`;
const made: string[] = [];

/** A connection string for a database on the server, as a role. */
export function url(database: string, role?: string): string {
  const at = new URL(server);
  at.pathname = `/${database}`;
  if (role) at.username = role;
  if (role) at.password = 'a-password';
  return at.href;
}

export const admin = <T>(use: (client: pg.Client) => Promise<T>, database?: string) =>
  asPerson(database ? url(database) : server, use);

async function makeTemplate(name: string, tickets: number): Promise<void> {
  await admin((client) => client.query(`create database ${name} owner ${owner}`));
  await admin((client) => client.query('create extension postgis schema public'), name);
  const sql = (await readFile(LEGACY, 'utf8')).replaceAll('DASHBOARD', dashboard).replaceAll('TICKETS)', `${tickets})`);
  await asPerson(url(name, owner), (client) => client.query(sql));
}

/** A copy of the legacy database, after `change` was applied to it as its owner. */
export async function legacy(change?: string, template = small): Promise<string> {
  const name = `takeover_${suffix}_${made.length}`;
  made.push(name);
  await admin((client) => client.query(`create database ${name} template ${template} owner ${owner}`));
  if (change) await asPerson(url(name, owner), (client) => client.query(change));
  return name;
}

export const takeOver = (database: string) => migrate(url(database, owner), silent);

export async function rows<T extends pg.QueryResultRow>(database: string, sql: string, role = owner): Promise<T[]> {
  return asPerson(url(database, role), async (client) => {
    await client.query(`set tickets_ops.client = 'a person'`); // a person who says so may write what was taken over
    return (await client.query<T>(sql)).rows;
  });
}

export async function row<T extends pg.QueryResultRow>(database: string, sql: string, role = owner): Promise<T> {
  const [first] = await rows<T>(database, sql, role);
  assert.ok(first, sql);
  return first;
}

/** The whole old system, definitions, grants and data, by object. */
export async function dump(database: string): Promise<string[]> {
  const schemas = ['tickets', 'reporting', 'bi'].map((schema) => `--schema=${schema}`);
  const program = `${await postgresPrograms()}/pg_dump`;
  const { stdout } = await promisify(execFile)(program, [...schemas, url(database)], { maxBuffer: 256 * 1024 * 1024 });
  const objects = stdout
    .replace(/^\\(un)?restrict .*\n/gm, '') // a random word
    .replace(/^GRANT .* TO tickets_(reader|curator|operator|dispatcher);\n/gm, '') // on the schema reporting, which both versions use
    .split(/\n+--\n-- (?=Name:|Data for)/);
  return objects.filter((object) => !object.startsWith('Name: SCHEMA reporting; Type: COMMENT')).sort();
}

/** The takeover of `database` fails with this reason, and the old system is as it was. */
export async function refuses(database: string, reason: RegExp): Promise<void> {
  const before = await dump(database);
  await assert.rejects(takeOver(database), reason);
  assert.deepEqual(await dump(database), before);
  assert.deepEqual(
    await rows(
      database,
      `select nspname from pg_namespace where nspname ~ '^(tickets|graphile)_' or nspname = '${inJobSchema('graphile_worker')}'`,
    ),
    [],
  );
}

export const notes = (database: string, about: string) =>
  rows<{ name: string; note: string }>(
    database,
    `select name, note from tickets_takeover.notes where about like '${about}%' order by name, note`,
  );

/**
 * To be called in a `describe`: makes the roles and the databases that are copied, and drops what its tests made.
 * @param withLarge also the one of 20 000 tickets
 */
export function pythonVersion(withLarge = false): void {
  before(async () => {
    for (const role of [owner, dashboard, worker])
      await admin((client) => client.query(`create role ${role} login password 'a-password'`));
    await makeTemplate(small, 1200);
    if (withLarge) await makeTemplate(large, 20_000);
  });
  after(async () => {
    for (const name of [...made, small, large]) {
      await admin((client) => client.query(`drop database if exists ${name} with (force)`));
    }
    await admin((client) => client.query(`drop role ${owner}, ${dashboard}, ${worker}`));
  });
}
