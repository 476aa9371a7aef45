/**
 * Real servers for the tests, private to one run: a Postgres cluster with PostGIS and a Swift with its S3 API, both
 * from Debian packages, on loopback, with their data in a temporary folder that `close()` removes.
 * As root, which Postgres refuses, it runs them as the user `postgres` that Debian's package creates.
 */
import { execFile, spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { chown, mkdir, mkdtemp, readdir, rm } from 'node:fs/promises';
import { type AddressInfo, createServer } from 'node:net';
import { tmpdir, userInfo } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';

const run = promisify(execFile);
const SWIFT = fileURLToPath(new URL('./swift-server.py', import.meta.url));
const DEBIAN_POSTGRES = '/usr/lib/postgresql';

export type NativeServers = {
  /** What the tests read: TEST_DATABASE_URL and TEST_S3_*. */
  environment: Record<string, string>;
  /** Ends all sessions and starts Postgres again: `fast` in good order, `immediate` as a crash. */
  restartPostgres(mode: 'fast' | 'immediate'): Promise<void>;
  close(): Promise<void>;
};

/**
 * Starts both servers.
 * @throws with the package to install when one is not there
 */
export async function startNativeServers(): Promise<NativeServers> {
  return inFolder(async (folder, account, closing) => {
    const postgres = await startPostgres(folder, account);
    closing.push(postgres.close);
    const swift = await startSwift(folder, account);
    closing.push(swift.close);
    return { environment: { ...postgres.environment, ...swift.environment }, restartPostgres: postgres.restart };
  });
}

/**
 * Starts Postgres alone.
 * @returns the URL of its maintenance database, as a superuser
 * @throws with the package to install when it is not there
 */
export async function startNativePostgres(): Promise<{ url: string; close(): Promise<void> }> {
  return inFolder(async (folder, account, closing) => {
    const postgres = await startPostgres(folder, account);
    closing.push(postgres.close);
    return { url: postgres.environment.TEST_DATABASE_URL };
  });
}

/**
 * Starts a streaming replica (hot standby) of a server that was started by the functions above.
 * @param primaryUrl any database of it, as its superuser
 * @returns the URL of the same database on the replica
 */
export async function startReplica(primaryUrl: string): Promise<{ url: string; close(): Promise<void> }> {
  return inFolder(async (folder, account, closing) => {
    const backup = ['-d', primaryUrl, '-D', dataIn(folder), '--write-recovery-conf', '--checkpoint=fast', '--no-sync'];
    await run(`${await postgresPrograms()}/pg_basebackup`, backup, { ...account, cwd: folder });
    const postgres = await startServer(folder, account);
    closing.push(postgres.close);
    const url = new URL(postgres.environment.TEST_DATABASE_URL);
    url.pathname = new URL(primaryUrl).pathname;
    return { url: url.href };
  });
}

type Closing = (() => Promise<void>)[];

/** Starts servers in a temporary folder; what was started is stopped by `close()`, or at once when `start` fails. */
async function inFolder<T extends object>(
  start: (folder: string, account: Account | undefined, closing: Closing) => Promise<T>,
): Promise<T & { close(): Promise<void> }> {
  const folder = await mkdtemp(join(tmpdir(), 'fleettickets-native-'));
  const closing: Closing = [() => rm(folder, { recursive: true, force: true })];
  const close = async () => {
    for (const step of closing.splice(0).reverse()) await step();
  };
  try {
    const account = await serverAccount();
    if (account) await chown(folder, account.uid, account.gid);
    return { ...(await start(folder, account, closing)), close };
  } catch (error) {
    await close();
    throw error;
  }
}

/** The folder of Postgres's programs: as POSTGRES_BIN says, else of the newest one that Debian has installed. */
export async function postgresPrograms(): Promise<string> {
  const { POSTGRES_BIN } = process.env;
  if (POSTGRES_BIN) return POSTGRES_BIN;
  const versions = await readdir(DEBIAN_POSTGRES).catch(() => []);
  const newest = versions.map(Number).sort((a, b) => b - a)[0];
  if (!newest)
    throw new Error(`No Postgres under ${DEBIAN_POSTGRES}: apt-get install postgresql-15 postgresql-15-postgis-3`);
  return `${DEBIAN_POSTGRES}/${newest}/bin`;
}

type Account = { uid: number; gid: number };

/** The user that servers run as when we are root, which they refuse; undefined: as we are. */
export async function serverAccount(): Promise<Account | undefined> {
  if (process.getuid?.() !== 0) return undefined;
  const id = async (flag: string) => Number((await run('id', [flag, 'postgres'])).stdout);
  return { uid: await id('-u'), gid: await id('-g') };
}

const dataIn = (folder: string) => join(folder, 'postgres');

async function startPostgres(folder: string, account: Account | undefined) {
  await run(
    `${await postgresPrograms()}/initdb`,
    ['-D', dataIn(folder), '-U', 'postgres', '-A', 'trust', '-E', 'UTF8', '--locale=C.UTF-8', '--no-sync'],
    { ...account, cwd: folder },
  );
  return startServer(folder, account);
}

/** Starts the server whose data lie in the folder. */
async function startServer(folder: string, account: Account | undefined) {
  const programs = await postgresPrograms();
  const data = dataIn(folder);
  const port = await freePort();
  const settings = [
    `port=${port}`,
    'listen_addresses=127.0.0.1',
    `unix_socket_directories=${folder}`,
    'max_connections=200',
    'shared_buffers=256MB',
    'fsync=off', // the data need not outlive the machine's power; a killed process loses nothing by it
    'full_page_writes=off',
  ];
  await run(
    `${programs}/pg_ctl`,
    [
      '-D',
      data,
      '-l',
      join(folder, 'postgres.log'),
      '-o',
      settings.map((setting) => `-c ${setting}`).join(' '),
      '-w',
      'start',
    ],
    { ...account, cwd: folder },
  );
  return {
    environment: { TEST_DATABASE_URL: `postgres://postgres@127.0.0.1:${port}/postgres` },
    restart: async (mode: 'fast' | 'immediate') => {
      const log = join(folder, 'postgres.log'); // not inherited from us: pg_ctl would never see our pipe closed
      await run(`${programs}/pg_ctl`, ['-D', data, '-l', log, '-m', mode, '-w', 'restart'], {
        ...account,
        cwd: folder,
      });
    },
    close: async () => {
      await run(`${programs}/pg_ctl`, ['-D', data, '-m', 'immediate', '-w', 'stop'], { ...account, cwd: folder });
    },
  };
}

async function startSwift(folder: string, account: Account | undefined) {
  const data = join(folder, 'swift');
  await mkdir(data);
  if (account) await chown(data, account.uid, account.gid);
  const accessKey = 'test:tester';
  const secretKey = randomBytes(12).toString('hex');
  const server = spawn('/usr/bin/python3', [SWIFT, data, accessKey, secretKey], {
    ...account,
    cwd: folder,
    env: { ...process.env, USER: account ? 'postgres' : userInfo().username, HOME: folder },
    stdio: ['pipe', 'pipe', 'inherit'],
  });
  const exited = once(server, 'exit');
  const ready = once(createInterface(server.stdout), 'line');
  const [line] = await Promise.race([ready, exited.then(() => [undefined])]);
  if (line === undefined) throw new Error('Swift did not start: apt-get install --no-install-recommends python3-swift');
  return {
    environment: {
      TEST_S3_ENDPOINT: `http://127.0.0.1:${line}`,
      TEST_S3_ACCESS_KEY: accessKey,
      TEST_S3_SECRET_KEY: secretKey,
    },
    close: async () => {
      server.kill();
      await exited;
    },
  };
}

export async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  server.close();
  await once(server, 'close');
  return port;
}
