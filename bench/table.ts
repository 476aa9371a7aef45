/** The result as a markdown table. */
import { cpus } from 'node:os';
import type { Environment } from '../test/support/environment.ts';

export interface Line {
  readonly what: string;
  readonly ours: string;
  readonly reference: string;
  /** Ours by the reference, or in `unit`. */
  readonly value?: number;
  /** The most that value may be. */
  readonly limit?: number;
  readonly unit?: string;
}

/** On what it was measured. */
export async function heading(env: Environment, rows: number): Promise<void> {
  const { rows: versions } = await env.pool.query<{ postgres: string; postgis: string }>(
    `select current_setting('server_version') as postgres, postgis_lib_version() as postgis`,
  );
  const { postgres, postgis } = versions[0] ?? {};
  console.log(
    `${rows} rows, Postgres ${postgres}, PostGIS ${postgis}, Node ${process.version}, ${cpus().length} × ${cpus()[0]?.model}\n`,
  );
}

/** While it goes on. */
export function printLine(line: Line): void {
  console.error(
    `${line.what}: ${line.ours}${line.reference && ` against ${line.reference}`}${line.value === undefined ? '' : ` = ${shown(line)}`}`,
  );
}

export function printTable(lines: readonly Line[]): void {
  console.log('| | ours | baseline | ratio | limit |\n|---|---|---|---|---|');
  for (const line of lines) {
    const limit = line.limit === undefined ? '' : `${line.limit}${line.unit ? ` ${line.unit}` : ''}`;
    const beyond = line.limit !== undefined && (line.value ?? 0) > line.limit ? ' **over**' : '';
    console.log(
      `| ${line.what} | ${line.ours} | ${line.reference} | ${line.value === undefined ? '' : shown(line)}${beyond} | ${limit} |`,
    );
  }
}

const shown = ({ value = 0, unit }: Line) => (unit ? `${value.toFixed(0)} ${unit}` : value.toFixed(2));
