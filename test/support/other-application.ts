/**
 * Another application of the same database, which runs jobs of its own on some version of graphile-worker: as a module it
 * starts and watches it, as a program (`node other-application.ts PACKAGE SCHEMA`, DATABASE_URL) it is the application.
 *
 * Its schema `other` holds what it has to know of itself: other.runs, one row for each job that began, and other.gate, whose
 * row lets its long jobs end.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';
import type { TaskList } from 'graphile-worker';
import { waitFor } from './environment.ts';

/** Its packages: what it was written with, and what we are written with too. */
export type OtherPackage = 'graphile-worker-016' | 'graphile-worker';

export const OTHER_TABLES = `
  create schema other;
  create table other.runs (job_id text, task text, began_at timestamptz not null default clock_timestamp());
  create table other.gate (open boolean)`;

/** What no operator of ours may see. */
export const CARD_NUMBER = '4242-4242-4242-4242';

export type OtherApplication = {
  /** Its exit status or signal; undefined while it runs. */
  ended(): number | NodeJS.Signals | undefined;
  stop(): Promise<void>;
};

export async function startOtherApplication(
  databaseUrl: string,
  from: OtherPackage,
  schema: string,
): Promise<OtherApplication> {
  const child: ChildProcess = spawn(process.execPath, [fileURLToPath(import.meta.url), from, schema], {
    env: { ...process.env, DATABASE_URL: databaseUrl, NODE_OPTIONS: '' },
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  let ready = false;
  let ended: number | NodeJS.Signals | undefined;
  child.stdout?.on('data', (text: Buffer) => {
    ready ||= text.includes('ready');
  });
  const exited = once(child, 'exit').then(([code, signal]) => {
    ended = (code ?? signal) as number | NodeJS.Signals;
  });
  await waitFor('the other application to start', () => {
    if (ended !== undefined) throw new Error(`The other application ended with ${ended}`);
    return ready;
  });
  return {
    ended: () => ended,
    async stop() {
      child.kill('SIGKILL');
      await exited;
    },
  };
}

/** Its tasks. One has a name that another application may well have too. */
const TASKS: TaskList = {
  async charge_card(_payload, helpers) {
    await noteRun(helpers);
  },
  async maintain(_payload, helpers) {
    await noteRun(helpers);
  },
  async long_report(_payload, helpers) {
    await noteRun(helpers);
    await waitFor(
      'the gate to open',
      async () => (await helpers.query('select from other.gate')).rows.length > 0,
      10 * 60_000,
    );
  },
};

async function noteRun({ job, query }: Parameters<NonNullable<TaskList[string]>>[1]): Promise<void> {
  await query('insert into other.runs (job_id, task) values ($1, $2)', [job.id, job.task_identifier]);
}

if (import.meta.main) {
  const [from = '', schema = ''] = process.argv.slice(2);
  const { run, Logger } = await import(from);
  const runner = await run({
    connectionString: process.env.DATABASE_URL,
    schema,
    concurrency: 4,
    pollInterval: 500,
    taskList: TASKS,
    crontab: '* * * * * maintain ?id=other_maintain',
    logger: new Logger(() => () => undefined),
  });
  process.stdout.write('ready\n');
  await runner.promise;
}
