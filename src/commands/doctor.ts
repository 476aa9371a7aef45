import { parseArgs } from 'node:util';
import { examine } from '../operations/doctor/doctor.ts';
import type { Finding } from '../operations/doctor/finding.ts';
import { print, printJson } from '../terminal/output.ts';

export const summary = 'check everything the pipeline needs, each with a remedy';
export const usage = `Usage: fleettickets doctor [--json]

Checks settings, database, PostGIS, other applications in the database, schema, rights
(before the first migration those that it needs), roles, clock, schedule, vehicles, bucket
and provider, and says what to do about what is wrong. It moves a small object of its own
through the bucket to try the rights there, and asks the provider one question.

  --json   print one JSON array

Exit status: 0 nothing failed (there may be warnings), 1 something did.
Settings: all that the worker has.
`;

const MARKS: Record<Finding['state'], string> = { ok: 'ok', warning: 'WARN', failed: 'FAIL', skipped: '-' };

export async function run(args: string[]): Promise<number> {
  const { values } = parseArgs({ args, options: { json: { type: 'boolean', default: false } } });
  const findings: Finding[] = [];
  for await (const finding of examine()) {
    findings.push(finding);
    if (!values.json) print(describe(finding));
  }
  if (values.json) printJson(findings);
  return findings.some(({ state }) => state === 'failed') ? 1 : 0;
}

function describe({ check, state, detail, remedy }: Finding): string {
  const indent = ' '.repeat(21);
  const indented = (text: string) => text.trim().replaceAll('\n', `\n${indent}`);
  const hint = remedy ? `${indent}→ ${indented(remedy)}\n` : '';
  return `${MARKS[state].padEnd(6)}${check.padEnd(14)} ${indented(detail)}\n${hint}`;
}
