/**
 * A container engine for the tests: buildah and podman from Debian packages, as root, with storage of their own in the
 * folder CONTAINER_STORAGE and the host's network. run.ts provides the folder and the namespaces, and cleans up.
 *
 * Containers run as a production engine runs them: with the image's own user, command and stop signal, as PID 1, on a
 * read-only root file system with a tmpfs on /tmp. What is not tested: limits, which need cgroups, and a network of their own.
 */
import { execFile } from 'node:child_process';
import { existsSync } from 'node:fs';
import { appendFile, copyFile, mkdir, readFile, symlink, writeFile } from 'node:fs/promises';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { waitFor } from '../support/environment.ts';

const PROJECT = fileURLToPath(new URL('../..', import.meta.url));
/** Bytes: a build says more than execFile's own megabyte. */
const MAX_OUTPUT = 16_000_000;

const run = promisify(execFile);

async function engine(program: 'buildah' | 'podman', args: string[]): Promise<string> {
  const storage = process.env.CONTAINER_STORAGE;
  if (!storage) throw new Error('Run these tests with npm run test:container');
  const places = ['--root', `${storage}/root`, '--runroot', `${storage}/run`, '--storage-driver', 'overlay'];
  const how = program === 'podman' ? ['--cgroup-manager', 'cgroupfs', '--events-backend', 'file'] : [];
  const { stdout, stderr } = await run(program, [...places, ...how, ...args], { maxBuffer: MAX_OUTPUT });
  return args[0] === 'logs' ? stdout + stderr : stdout.trim();
}

const podman = (...args: string[]) => engine('podman', args);
const buildah = (...args: string[]) => engine('buildah', args);

/**
 * Builds a stand-in for node:24-slim: a minimal Debian, the Node of the lock file, this machine's npm with its
 * settings, and the user node. For tests only: it may hold this machine's certificates.
 */
export async function buildBase(): Promise<string> {
  const image = 'localhost/node:24-slim';
  const container = await buildah('from', 'scratch');
  const root = await buildah('mount', container);
  const { codename, sources } = await debian();
  const quick = ['--dpkgopt=force-unsafe-io', '--aptopt=Acquire::Languages "none"', '--aptopt=Acquire::Retries "5"'];
  const what = ['--mode=root', '--variant=essential', '--include=libstdc++6', '--format=directory'];
  await run('mmdebstrap', ['--quiet', ...what, ...quick, codename, root, ...sources], { maxBuffer: MAX_OUTPUT });

  const local = `${root}/usr/local`;
  await copyFile(`${PROJECT}/node_modules/node/bin/node`, `${local}/bin/node`);
  await mkdir(`${local}/lib/node_modules`, { recursive: true });
  const { stdout: npm } = await run('sh', ['-c', 'dirname "$(dirname "$(realpath "$(command -v npm)")")"']);
  await run('cp', ['-a', npm.trim(), `${local}/lib/node_modules/npm`]);
  await symlink('../lib/node_modules/npm/bin/npm-cli.js', `${local}/bin/npm`);
  await takeNpmSettings(root);
  await appendFile(`${root}/etc/passwd`, 'node:x:1000:1000::/home/node:/bin/sh\n');
  await appendFile(`${root}/etc/group`, 'node:x:1000:\n');

  await buildah('umount', container);
  await buildah('config', '--env', 'PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin', container);
  await buildah('commit', '--quiet', '--rm', container, image);
  return image;
}

async function debian(): Promise<{ codename: string; sources: string[] }> {
  const codename = /^VERSION_CODENAME=(\w+)$/m.exec(await readFile('/etc/os-release', 'utf8'))?.[1];
  if (!codename) throw new Error('This is no Debian: /etc/os-release has no VERSION_CODENAME');
  const files = ['/etc/apt/sources.list', '/etc/apt/sources.list.d/debian.sources'];
  return { codename, sources: files.filter((file) => existsSync(file)) };
}

/** npm inside reaches the registry that npm outside does, and trusts whom this machine trusts. */
async function takeNpmSettings(root: string): Promise<void> {
  const { stdout: registry } = await run('npm', ['config', 'get', 'registry']);
  const settings = [`registry=${registry.trim()}`];
  const certificates = '/etc/ssl/certs/ca-certificates.crt';
  if (existsSync(certificates)) {
    await mkdir(`${root}/etc/ssl/certs`, { recursive: true });
    await copyFile(certificates, `${root}${certificates}`);
    settings.push(`cafile=${certificates}`);
  }
  await mkdir(`${root}/usr/local/etc`, { recursive: true });
  await writeFile(`${root}/usr/local/etc/npmrc`, `${settings.join('\n')}\n`);
}

/** Builds the project's Dockerfile from the project's folder, as an engine would. */
export async function buildImage(base: string): Promise<string> {
  const image = 'localhost/fleettickets:test';
  const how = ['--isolation', 'chroot', '--pull-never', '--layers', '--format', 'docker'];
  await buildah('bud', ...how, '--build-arg', `NODE_IMAGE=${base}`, '--tag', image, PROJECT);
  return image;
}

/** Bytes, uncompressed. */
export async function sizeOf(image: string): Promise<number> {
  return Number(await podman('image', 'inspect', '--format', '{{.Size}}', image));
}

export interface Container {
  readonly name: string;
  /** What a command in it prints; it must succeed. */
  exec(...command: string[]): Promise<string>;
  /** What it has written so far. */
  logs(): Promise<string>;
  /** What the image's HEALTHCHECK says now. */
  isHealthy(): Promise<boolean>;
  /** Sends the image's stop signal, after the grace SIGKILL; returns the exit status. */
  stop(graceSeconds: number): Promise<number>;
  /** SIGKILL, as when the machine loses its power; returns the exit status. */
  kill(): Promise<number>;
  /** Waits for its end. */
  exitStatus(): Promise<number>;
}

/** Starts a container that is removed by `removeContainers`. */
export async function start(
  name: string,
  image: string,
  env: Record<string, string>,
  ...command: string[]
): Promise<Container> {
  const settings = Object.entries(env).flatMap(([key, value]) => ['--env', `${key}=${value}`]);
  const limits = '--cgroups=disabled --ulimit nofile=1024:1024 --ulimit nproc=1024:1024'.split(' ');
  const root = '--read-only --read-only-tmpfs=false --tmpfs /tmp'.split(' ');
  const host = `--runtime crun --network host --hostname ${name} --log-driver k8s-file`.split(' ');
  await podman('run', '--detach', '--name', name, ...limits, ...root, ...host, ...settings, image, ...command);
  const exitStatus = async () => Number(await podman('wait', name));
  return {
    name,
    exec: (...inside) => podman('exec', name, ...inside),
    logs: () => podman('logs', name),
    isHealthy: () =>
      podman('healthcheck', 'run', name).then(
        () => true,
        () => false,
      ),
    async stop(graceSeconds) {
      await podman('stop', '--time', String(graceSeconds), name);
      return exitStatus();
    },
    async kill() {
      await podman('kill', '--signal', 'KILL', name);
      return exitStatus();
    },
    exitStatus,
  };
}

/** Waits for a line in a container's log. */
export function said(container: Container, line: RegExp): Promise<boolean> {
  return waitFor(`${line} in the log of ${container.name}`, async () => line.test(await container.logs()));
}

export async function removeContainers(): Promise<void> {
  await podman('rm', '--all', '--force', '--time', '0');
}
