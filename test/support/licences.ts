/** `npm run licences`: docs/licences.md, the licence of every package that a production install has, from package-lock.json. */
import { readFile, writeFile } from 'node:fs/promises';

const LOCK = new URL('../../package-lock.json', import.meta.url);
export const LICENCES_FILE = new URL('../../docs/licences.md', import.meta.url);

type Locked = { version: string; license?: string; dev?: boolean; devOptional?: boolean };

/** The text of docs/licences.md. */
export async function listLicences(): Promise<string> {
  const { packages } = JSON.parse(await readFile(LOCK, 'utf8')) as { packages: Record<string, Locked> };
  const byLicence = new Map<string, Set<string>>();
  for (const [path, { version, license = 'none stated', dev }] of Object.entries(packages)) {
    if (path === '' || dev) continue;
    const name = path.slice(path.lastIndexOf('node_modules/') + 'node_modules/'.length);
    byLicence.set(license, (byLicence.get(license) ?? new Set()).add(`${name} ${version}`));
  }
  const sections = [...byLicence]
    .sort(([a], [b]) => (a < b ? -1 : 1))
    .map(([licence, names]) => `## ${licence} (${names.size})\n\n${[...names].sort().join(', ')}\n`);
  return `# Licences\n\nOf the packages that \`npm ci --omit=dev\` installs; made by \`npm run licences\` from package-lock.json.\n\n${sections.join('\n')}`;
}

if (import.meta.main) await writeFile(LICENCES_FILE, await listLicences());
