/**
 * The metrics (tickets_ops.metrics) in Prometheus's text exposition format 0.0.4, for its textfile collector and for
 * scraping. The view decides what there is; this only writes it down.
 */
import type { ClientBase } from 'pg';
import { type Db, SchemaError } from '../database/client.ts';
import { requireCurrent } from '../database/schema.ts';
import { ExpectedError } from '../settings/errors.ts';
import { printable } from '../text/printable.ts';

/** A row of tickets_ops.metrics. The rows of a name follow each other. */
export interface Metric {
  readonly name: string;
  readonly labels: Readonly<Record<string, string>>;
  /** Seconds, a count, or 1 and 0; NaN where it is unknown. */
  readonly value: number;
  readonly kind: string;
  readonly help: string;
}

/** What a scraper is told of the format. */
export const CONTENT_TYPE = 'text/plain; version=0.0.4; charset=utf-8';

const DENIED = '42501';

export async function readMetrics(db: Db): Promise<Metric[]> {
  const { rows } = await db.query<Metric>('select name, labels, value, kind, help from tickets_ops.metrics');
  return rows;
}

/**
 * Makes sure that this role can read the metrics. A monitor's role sees nothing else, not even which migrations there are.
 * @throws SchemaError, or ExpectedError with the grant that is missing
 */
export async function requireMetrics(client: ClientBase): Promise<void> {
  const { rows } = await client.query<{ role: string; exists: boolean; owns: boolean; migrated: boolean }>(
    `select quote_ident(current_user) as role, v.oid is not null as exists, coalesce(pg_has_role(v.relowner, 'usage'), false) as owns,
       to_regnamespace('graphile_migrate') is not null as migrated
     from (select) as one
     left join (pg_class v join pg_namespace n on n.oid = v.relnamespace and n.nspname = 'tickets_ops') on v.relname = 'metrics'`,
  );
  const { role = '', exists = false, owns = false, migrated = false } = rows[0] ?? {};
  if (owns || !migrated) return requireCurrent(client);
  if (!exists)
    throw new SchemaError('The schema of this database is not that of this release. Run: fleettickets migrate');
  await client.query('select from tickets_ops.metrics limit 0').catch((error: { code?: string }) => {
    if (error.code !== DENIED) throw error;
    throw new ExpectedError(
      `The role ${role} may not read tickets_ops.metrics. Its owner can allow it: grant tickets_monitor to ${role};`,
    );
  });
}

/** @returns the whole exposition, with its last newline */
export function exposition(metrics: readonly Metric[]): string {
  let last = '';
  return metrics
    .map(({ name, labels, value, kind, help }) => {
      const head = name === last ? '' : `# HELP ${name} ${escaped(help)}\n# TYPE ${name} ${kind}\n`;
      last = name;
      return `${head}${name}${labelsOf(labels)} ${value}\n`;
    })
    .join('');
}

function labelsOf(labels: Metric['labels']): string {
  const pairs = Object.entries(labels).map(
    ([name, value]) => `${name}="${escaped(printable(value)).replaceAll('"', '\\"')}"`,
  );
  return pairs.length === 0 ? '' : `{${pairs.join(',')}}`;
}

const escaped = (text: string) => text.replaceAll('\\', '\\\\').replaceAll('\n', '\\n');
