/**
 * The log: JSON lines on stdout, pretty on a terminal, without secrets (secrets.ts) and without anything that steers a
 * terminal (text/printable.ts).
 */
import type { Writable } from 'node:stream';
import { Logger as GraphileLogger } from 'graphile-worker';
import { type Logger, type LoggerOptions, pino } from 'pino';
import { printable } from '../text/printable.ts';
import { hideSecrets } from './secrets.ts';
import { readSettings, WorkerSettings } from './settings.ts';

export type Log = Logger;

interface LogOptions {
  /** stderr for commands whose stdout is their answer. */
  readonly to?: NodeJS.WriteStream;
  /** Instead of LOG_LEVEL. */
  readonly level?: string;
}

let processLog: Promise<Log> | undefined;

/** The process's one log, tasks included; the first that asks decides where it goes. */
export function createLog(options: LogOptions = {}): Promise<Log> {
  processLog ??= openLog(options);
  return processLog;
}

async function openLog({ to = process.stdout, level }: LogOptions): Promise<Log> {
  const options: LoggerOptions = {
    level: level ?? readSettings(WorkerSettings.pick({ LOG_LEVEL: true })).LOG_LEVEL,
    base: null,
    timestamp: pino.stdTimeFunctions.isoTime,
    formatters: { level: (label) => ({ level: label }) },
  };
  const target: Writable = to.isTTY
    ? (await import('pino-pretty')).default({
        translateTime: 'SYS:HH:MM:ss o',
        colorize: true,
        destination: to === process.stderr ? 2 : 1,
        sync: true,
      })
    : to;
  // Not a stream of its own, whose buffer a process that ends at once would lose.
  const shown = to.isTTY ? printableValues : printable;
  return pino(options, { write: (line: string) => void target.write(shown(hideSecrets(line))) });
}

/** What is printed pretty is decoded first: the escapes of JSON do not last. */
const printableValues = (line: string) =>
  `${JSON.stringify(JSON.parse(line, (_name, value) => (typeof value === 'string' ? printable(value) : value)))}\n`;

/** graphile-worker's logger on top of ours. Of its metadata only ids pass: it carries whole jobs, payload included. */
export function graphileLogger(log: Log): GraphileLogger {
  return new GraphileLogger((scope) => (level, message, meta) => {
    // A job that failed: the task has said so itself, without a stack (worker/task.ts). One without a task of ours has not.
    // graphile-worker marks that line so, and says so nowhere: https://github.com/graphile/worker/blob/main/src/worker.ts
    if (meta?.['failure'] && !/Unsupported task/.test(message)) return;
    const fields = { job: scope.jobId, task: scope.taskIdentifier };
    const method = level === 'warning' ? 'warn' : level;
    // graphile-worker reports every start and completion at info; the tasks' own lines say more.
    log[method === 'info' ? 'debug' : method](fields, message);
  });
}
