import { parseArgs } from 'node:util';
import { withBoundedWaits } from '../database/waits.ts';
import { isPort } from '../http/listen.ts';
import { exposition, readMetrics, requireMetrics } from '../operations/metrics.ts';
import { serveMetrics } from '../operations/metrics-server.ts';
import { createLog } from '../settings/log.ts';
import { DatabaseSettings, readSettings } from '../settings/settings.ts';
import { untilStopped } from '../terminal/until-stopped.ts';
import { UsageError } from '../terminal/usage.ts';

export const summary = 'figures for Prometheus, once or served';
export const usage = `Usage: fleettickets metrics [--listen HOST:PORT]

Prints the figures of tickets_ops.metrics in Prometheus's text format, for node_exporter's
textfile collector: write to a file beside it and rename that, or it may read half of it.

  --listen HOST:PORT   serve them at http://HOST:PORT/metrics until Ctrl-C, asking the
                       database at each scrape; without a password, so on 127.0.0.1:9464
                       or where only your monitor gets in

Needs a role that is a member of tickets_monitor, or owns the schema. docs/monitoring.md
tells of alerts and dashboards. Exit status: 0 done, 1 failed. Settings: DATABASE_URL.
`;

export async function run(args: string[]): Promise<number> {
  const { values } = parseArgs({ args, options: { listen: { type: 'string' } } });
  const { DATABASE_URL } = readSettings(DatabaseSettings);
  if (values.listen !== undefined) return serve(DATABASE_URL, values.listen);
  await withBoundedWaits(DATABASE_URL, async (client) => {
    await requireMetrics(client);
    process.stdout.write(exposition(await readMetrics(client)));
  });
  return 0;
}

async function serve(databaseUrl: string, listen: string): Promise<number> {
  const [, ipv6, name, digits = ''] = /^(?:\[([0-9a-f:.]+)\]|([^:[\]\s]+)):(\d+)$/i.exec(listen) ?? [];
  const host = ipv6 ?? name;
  if (host === undefined || !isPort(digits))
    throw new UsageError(`--listen ${listen} is no host and port; 127.0.0.1:9464 is one.`);
  const log = await createLog({ to: process.stderr });
  const server = await serveMetrics(databaseUrl, host, Number(digits), log);
  process.stdout.write(`${server.url}\n`);
  await untilStopped();
  await server.close();
  return 0;
}
