/** A worker as a process of its own, as its container runs it, so that it can be killed, stopped and restarted. */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { dirname } from 'node:path';
import { createInterface } from 'node:readline';
import { CLI } from './command.ts';
import { waitFor } from './environment.ts';

type LogLine = { level: string; msg: string } & Record<string, unknown>;

export type WorkerProcess = {
  /** graphile-worker's id of its pool: what locked_by says of its jobs. */
  pool: string;
  /** Everything it has logged. */
  log: LogLine[];
  /** What it wrote that is no log line. */
  noise: string[];
  /** Its exit status, or the signal that ended it. */
  exited: Promise<number | NodeJS.Signals>;
  kill(signal: NodeJS.Signals): void;
};

const started = new Set<ChildProcess>();

/** Starts `fleettickets worker` and resolves when its pool has started. @param settings on top of this process's environment */
export async function startWorkerProcess(settings: Record<string, string> = {}): Promise<WorkerProcess> {
  const child = spawn(CLI, ['worker'], {
    env: { ...process.env, PATH: `${dirname(process.execPath)}:${process.env.PATH}`, LOG_LEVEL: 'debug', ...settings },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  started.add(child);
  const log: LogLine[] = [];
  const noise: string[] = [];
  const take = (line: string) => {
    try {
      log.push(JSON.parse(line));
    } catch {
      noise.push(line);
    }
  };
  createInterface(child.stdout).on('line', take);
  createInterface(child.stderr).on('line', take);
  const exited = once(child, 'exit').then(([code, signal]) => {
    started.delete(child);
    return (code ?? signal) as number | NodeJS.Signals;
  });
  let status: number | NodeJS.Signals | undefined;
  exited.then((value) => {
    status = value;
  });
  const pool = await waitFor('a worker to start', () => {
    if (status !== undefined) throw new Error(`The worker ended with ${status}: ${JSON.stringify([...log, ...noise])}`);
    return log.find(({ msg }) => msg === 'worker started')?.['pool'] as string | undefined;
  });
  return { pool, log, noise, exited, kill: (signal) => void child.kill(signal) };
}

/** Kills every worker that a test left behind. */
export async function killWorkers(): Promise<void> {
  const left = [...started];
  await Promise.all(
    left.map(async (child) => {
      const exited = once(child, 'exit');
      child.kill('SIGKILL');
      await exited;
    }),
  );
}
