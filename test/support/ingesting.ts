/**
 * What the tests of the pipeline share: an environment whose bucket is reached through a proxy that can fail, files of a few
 * tickets, and short questions about what came of them. `env` and `proxy` are those of the suite that runs.
 */
import { after, before, beforeEach } from 'node:test';
import { HeadObjectCommand } from '@aws-sdk/client-s3';
import { type Environment, startEnvironment } from './environment.ts';
import { type FaultProxy, startFaultProxy } from './fault-proxy.ts';
import { csvOf, keyOf, PREFIX, rawTickets } from './pipeline.ts';
import { countRows } from './rows.ts';

export let env: Environment;
export let proxy: FaultProxy;

/** To be called in a `describe`: starts and ends what its tests use, and empties it before each. */
export function ingesting(): void {
  before(async () => {
    env = await startEnvironment();
    proxy = await startFaultProxy(env.s3.endpoint);
  });
  after(async () => {
    await proxy.close();
    await env.close();
  });
  beforeEach(async () => {
    proxy.heal();
    process.env.RUSTFS_ENDPOINT = proxy.endpoint;
    await env.reset();
  });
}

export const open = (id: number, fields: Record<string, string> = {}) => ({
  ticket_id: `WOT${String(id).padStart(7, '0')}`,
  is_actionable: 'true',
  is_alarm: 'false',
  normalized_status: 'Open',
  ...fields,
});
export const ONE = csvOf([open(1), open(2)]);
export const TWO = csvOf([open(1), open(2, { normalized_status: 'On Hold' }), open(3)]);
export const THREE = csvOf([open(1), open(3, { normalized_status: 'Assigned' })]);
export const HTML = '<!DOCTYPE html>\n<html><body>502 Bad Gateway</body></html>';

export const put = (hour: number, body: string | Uint8Array) => env.putObject(keyOf(hour), body);
export const archivedKey = (hour: number) => keyOf(hour).replace(PREFIX, `${PREFIX}processed/`);
export const ids = async () => Object.keys(await rawTickets(env)).map((id) => Number(id.slice(3)));
export const looks = async (): Promise<{ future_dated: string[]; new_file_at: Date | null } | undefined> =>
  (await env.pool.query('select future_dated, new_file_at from tickets_ops.looks')).rows[0];
/** LastModified in milliseconds. */
export const modified = async (Key: string) =>
  (await env.bucket.send(new HeadObjectCommand({ Bucket: env.s3.bucket, Key }))).LastModified?.getTime();
export const staged = () => countRows(env.pool, 'tickets_ops.snapshot_rows');
