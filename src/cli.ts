#!/usr/bin/env node
/**
 * The command line: `fleettickets <command>`. Exit status 0 done, 1 failed, 2 wrong usage.
 * A command is one file in commands/: its usage text, and a function that takes the arguments and gives the status.
 */
import { existsSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { loadDotEnv } from './settings/dot-env.ts';
import { messageOf, reasonOf } from './settings/errors.ts';
import { hideSecrets } from './settings/secrets.ts';
import { endWithReader, print, printError, printJson } from './terminal/output.ts';
import { UsageError } from './terminal/usage.ts';

interface Command {
  /** One line for the list of commands. */
  readonly summary: string;
  /** What `--help` prints. */
  readonly usage: string;
  /** Set where what it says goes to the log: then the reason why it failed is the log's last line. */
  readonly logs?: boolean;
  run(args: string[]): Promise<number>;
}

/** The demo stands beside src/ and is no part of the image or the package: only a checkout has it, and lists it. */
const DEMO = new URL('../demo/command.ts', import.meta.url);

/** Loaded one by one: no command pays for the packages of another. */
export const COMMANDS: Record<string, () => Promise<Command>> = {
  migrate: () => import('./commands/migrate.ts'),
  worker: () => import('./commands/worker.ts'),
  ingest: () => import('./commands/ingest.ts'),
  geocode: () => import('./commands/geocode.ts'),
  page: () => import('./commands/page.ts'),
  vehicles: () => import('./commands/vehicles.ts'),
  dispatch: () => import('./commands/dispatch.ts'),
  status: () => import('./commands/status.ts'),
  metrics: () => import('./commands/metrics.ts'),
  report: () => import('./commands/report.ts'),
  doctor: () => import('./commands/doctor.ts'),
  healthcheck: () => import('./commands/healthcheck.ts'),
  ...(existsSync(DEMO) && { demo: () => import(DEMO.href) }),
};

async function main([name = '', ...args]: string[]): Promise<number> {
  if (['', 'help', '-h', '--help'].includes(name)) {
    print(await overview());
    return name === '' ? 2 : 0;
  }
  if (name === '--version') {
    print(`${await version()}\n`);
    return 0;
  }
  const load = Object.hasOwn(COMMANDS, name) ? COMMANDS[name] : undefined;
  if (!load && name === 'demo') {
    printError('The demo is not installed here. In a checkout of the repository: npm install && npm run demo\n');
    return 1;
  }
  if (!load) {
    printError(`There is no command ${name}.\n\n${await overview()}`);
    return 2;
  }
  const command = await load();
  if (args.includes('--help') || args.includes('-h')) {
    print(command.usage);
    return 0;
  }
  try {
    loadDotEnv((warning) => printError(`${warning}\n`));
    return await command.run(args);
  } catch (error) {
    if (isUsageError(error)) {
      printError(`${(error as Error).message}\n\n${command.usage}`);
      return 2;
    }
    const reason = reasonOf(error);
    if (!command.logs || !(await logged(reason))) printError(`${hideSecrets(reason)}\n`);
    // A caller that asked for JSON gets some, whatever happens.
    if (args.includes('--json')) printJson({ error: hideSecrets(messageOf(error)) });
    return 1;
  }
}

/** @returns false where there can be no log: its own settings are wrong */
async function logged(reason: string): Promise<boolean> {
  const { createLog } = await import('./settings/log.ts');
  const log = await createLog().catch(() => undefined);
  log?.fatal(reason);
  return log !== undefined;
}

const isUsageError = (error: unknown) =>
  error instanceof UsageError || ((error as { code?: string }).code ?? '').startsWith('ERR_PARSE_ARGS');

/** The version of this release, such as 1.0.0. */
async function version(): Promise<string> {
  return JSON.parse(await readFile(new URL('../package.json', import.meta.url), 'utf8')).version;
}

/** What `fleettickets --help` prints. */
export async function overview(): Promise<string> {
  const lines = await Promise.all(
    Object.entries(COMMANDS).map(async ([name, load]) => `  ${name.padEnd(12)}${(await load()).summary}\n`),
  );
  return `Usage: fleettickets <command> [options]\n\n${lines.join('')}\nfleettickets <command> --help tells more, fleettickets --version the version. Settings come from the environment and from .env (see .env.example).\n`;
}

if (import.meta.main) {
  endWithReader();
  process.exitCode = await main(process.argv.slice(2));
}
