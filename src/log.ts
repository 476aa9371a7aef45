/** The log: JSON lines on stdout, pretty on a terminal, without secrets (see secrets.ts). */
import { Writable } from 'node:stream';
import { Logger as GraphileLogger } from 'graphile-worker';
import { type Logger, type LoggerOptions, pino } from 'pino';
import { hideSecrets } from './secrets.ts';
import { readSettings, WorkerSettings } from './settings.ts';

export type Log = Logger;

/** The process's logger: one JSON object a line, or one readable line on a terminal. */
export async function createLog(): Promise<Log> {
  const options: LoggerOptions = {
    level: readSettings(WorkerSettings).LOG_LEVEL,
    base: null,
    timestamp: pino.stdTimeFunctions.isoTime,
    formatters: { level: (label) => ({ level: label }) },
  };
  const target: Writable = process.stdout.isTTY
    ? (await import('pino-pretty')).default({ translateTime: 'SYS:HH:MM:ss', colorize: true, sync: true })
    : process.stdout;
  const withoutSecrets = new Writable({
    decodeStrings: false,
    write: (line: string, _encoding, done) => {
      target.write(hideSecrets(line), () => done());
    },
  });
  return pino(options, withoutSecrets);
}

/** graphile-worker's logger on top of ours. Of its metadata only ids pass: it carries whole jobs, payload included. */
export function graphileLogger(log: Log): GraphileLogger {
  return new GraphileLogger((scope) => (level, message) => {
    const fields = { job: scope.jobId, task: scope.taskIdentifier };
    const method = level === 'warning' ? 'warn' : level;
    // graphile-worker reports every start and completion at info; the tasks' own lines say more.
    log[method === 'info' ? 'debug' : method](fields, message);
  });
}
