/**
 * Serves the metrics over HTTP, for a scraper. Each scrape asks the database: where that does not answer, the scrape fails,
 * and nothing old is shown as if it were new. There is no password: it listens where it is told, on loopback as a rule, and
 * what it shows are counts and ages.
 */
import { createServer } from 'node:http';
import type pg from 'pg';
import { withClient } from '../database/client.ts';
import { openPinnedPool } from '../database/pool.ts';
import { listen } from '../http/listen.ts';
import type { Log } from '../settings/log.ts';
import { hideSecrets } from '../settings/secrets.ts';
import { CONTENT_TYPE, exposition, readMetrics, requireMetrics } from './metrics.ts';

/** Shorter than a scraper waits (Prometheus: 10 s), so that it is told the reason. */
const ANSWER_MS = 5_000;

export interface MetricsServer {
  readonly url: string;
  close(): Promise<void>;
}

/**
 * @param port 0: any that is free
 * @throws ConnectionError, SchemaError, ExpectedError where the role may not read, or it cannot listen there
 */
export async function serveMetrics(databaseUrl: string, host: string, port: number, log: Log): Promise<MetricsServer> {
  await withClient(databaseUrl, requireMetrics);
  const pool = openPinnedPool(databaseUrl, {
    max: 2, // two scrapers; a third waits
    application_name: 'fleettickets metrics',
    connectionTimeoutMillis: ANSWER_MS,
    query_timeout: ANSWER_MS,
    onConnect: async (client) => {
      await client.query(`set statement_timeout = ${ANSWER_MS}`);
    },
  });
  const server = createServer(async (request, response) => {
    const { status, type, body } = await answer(request.method ?? '', request.url ?? '', pool, log);
    response.writeHead(status, { 'content-type': type, 'cache-control': 'no-store' });
    response.end(request.method === 'HEAD' ? undefined : body);
  });
  const { port: bound, close } = await listen(server, host, port, pool);
  return { url: `http://${host.includes(':') ? `[${host}]` : host}:${bound}/metrics`, close };
}

async function answer(method: string, url: string, pool: pg.Pool, log: Log) {
  const text = (status: number, body: string) => ({ status, type: 'text/plain; charset=utf-8', body: `${body}\n` });
  if (url.split('?', 1)[0] !== '/metrics') return text(404, 'The metrics are at /metrics.');
  if (!['GET', 'HEAD'].includes(method)) return text(405, 'Only GET.');
  try {
    return { status: 200, type: CONTENT_TYPE, body: exposition(await readMetrics(pool)) };
  } catch (error) {
    const reason = hideSecrets((error as Error).message);
    log.error(`a scrape failed: ${reason}`);
    return text(503, `The database does not answer: ${reason}`);
  }
}
