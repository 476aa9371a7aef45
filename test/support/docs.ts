/**
 * Documentation that is made from the code: the settings table of the README and docs/commands.md.
 * `node test/support/docs.ts` writes them; a test compares.
 */
import { readFile, writeFile } from 'node:fs/promises';
import { fileURLToPath } from 'node:url';
import type { z } from 'zod';
import { COMMANDS, overview } from '../../src/cli.ts';
import { SETTINGS } from '../../src/settings/settings.ts';

export const ROOT = new URL('../..', import.meta.url);
const BEGIN = '<!-- settings: made by npm run docs -->';
const END = '<!-- end of settings -->';

function defaultOf(type: z.ZodType): string {
  const parsed = type.safeParse(undefined);
  if (!parsed.success) return '**required**';
  return parsed.data === undefined ? '' : `\`${String(parsed.data)}\``;
}

/** The settings as a Markdown table, from their zod schema. */
export function settingsTable(): string {
  const rows = Object.values(SETTINGS).flatMap((group) =>
    Object.entries(group.shape as Record<string, z.ZodType>).map(
      ([name, type]) => `| \`${name}\` | ${defaultOf(type)} | ${(type.description ?? '').replaceAll('|', '\\|')} |`,
    ),
  );
  return ['| setting | default | meaning |', '|---|---|---|', ...rows].join('\n');
}

/** The README with a fresh table of settings. */
export async function readme(): Promise<{ current: string; fresh: string }> {
  const current = await readFile(new URL('README.md', ROOT), 'utf8');
  const [before, rest] = current.split(BEGIN);
  const after = rest?.split(END)[1];
  if (before === undefined || after === undefined) throw new Error(`README.md lacks the lines ${BEGIN} and ${END}`);
  return { current, fresh: `${before}${BEGIN}\n${settingsTable()}\n${END}${after}` };
}

/** docs/commands.md: what --help prints. */
export async function commandsPage(): Promise<string> {
  const pages = await Promise.all(
    Object.entries(COMMANDS).map(async ([name, load]) => `## ${name}\n\n\`\`\`\n${(await load()).usage}\`\`\`\n`),
  );
  return `# Commands\n\nMade by \`npm run docs\` from what \`--help\` prints.\n\n\`\`\`\n${await overview()}\`\`\`\n\n${pages.join('\n')}`;
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  await writeFile(new URL('README.md', ROOT), (await readme()).fresh);
  await writeFile(new URL('docs/commands.md', ROOT), await commandsPage());
}
