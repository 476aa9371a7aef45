/** PgBouncer in front of a Postgres, on a free port of loopback: Debian's package. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { chown, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import pg from 'pg';
import { waitFor } from './environment.ts';
import { freePort, serverAccount } from './native.ts';

type Pooler = { url: string; close(): Promise<void> };

/**
 * @param databaseUrl of a database that asks for no password
 * @param settings more lines for its [pgbouncer] section
 */
export async function startPgBouncer(
  databaseUrl: string,
  mode: 'session' | 'transaction' | 'statement',
  settings = '',
): Promise<Pooler> {
  const account = await serverAccount();
  const folder = await mkdtemp(join(tmpdir(), 'fleettickets-pgbouncer-'));
  const port = await freePort();
  const server = new URL(databaseUrl);
  await writeFile(join(folder, 'users'), `"${server.username}" ""\n`);
  await writeFile(
    join(folder, 'ini'),
    `[databases]
* = host=${server.hostname} port=${server.port}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = ${port}
unix_socket_dir =
auth_type = trust
auth_file = ${folder}/users
pool_mode = ${mode}
max_client_conn = 200
default_pool_size = 60
ignore_startup_parameters = extra_float_digits
${settings}
`,
  );
  if (account) await chown(folder, account.uid, account.gid);
  const bouncer = spawn('/usr/sbin/pgbouncer', ['-q', join(folder, 'ini')], {
    ...account,
    cwd: folder,
    stdio: ['ignore', 'ignore', 'pipe'],
  });
  const said: string[] = [];
  bouncer.stderr.setEncoding('utf8').on('data', (text: string) => said.push(text));
  const exited = once(bouncer, 'exit').catch((error: Error) => said.push(error.message));
  const url = new URL(databaseUrl);
  url.port = String(port);
  await waitFor(`PgBouncer to listen (${said.join('')})`, () => reachable(url.href));
  return {
    url: url.href,
    async close() {
      bouncer.kill('SIGKILL');
      await exited;
      await rm(folder, { recursive: true });
    },
  };
}

async function reachable(url: string): Promise<boolean> {
  const client = new pg.Client({ connectionString: url });
  try {
    await client.connect();
    return true;
  } catch {
    return false;
  } finally {
    await client.end().catch(() => undefined); // never connected
  }
}
