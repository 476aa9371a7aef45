/**
 * Documentation that is made from the code: docs/settings.md and docs/commands.md.
 * `node test/support/docs.ts` writes them; a test compares.
 */
import { writeFile } from 'node:fs/promises';
import { fileURLToPath } from 'node:url';
import type { z } from 'zod';
import { COMMANDS, overview } from '../../src/cli.ts';
import { SETTINGS } from '../../src/settings/settings.ts';

export const ROOT = new URL('../..', import.meta.url);

function defaultOf(type: z.ZodType): string {
  const parsed = type.safeParse(undefined);
  if (!parsed.success) return '**required**';
  return parsed.data === undefined ? '' : `\`${String(parsed.data)}\``;
}

/** The settings as a Markdown table, from their zod schema. */
function settingsTable(): string {
  const rows = Object.values(SETTINGS).flatMap((group) =>
    Object.entries(group.shape as Record<string, z.ZodType>).map(
      ([name, type]) =>
        `| \`${name}\` | ${defaultOf(type)} | ${(type.description ?? '').replaceAll('|', '\\|')}${type.meta()?.['secret'] ? '. A secret' : ''} |`,
    ),
  );
  return ['| setting | default | meaning |', '|---|---|---|', ...rows].join('\n');
}

/** docs/settings.md: the table of settings. */
export const settingsPage = () =>
  `# Settings\n\nFrom the environment, and from \`.env\` on the command line. Nothing else is configured. Made by \`npm run docs\` from src.\n\n${settingsTable()}\n`;

/** docs/commands.md: what --help prints. */
export async function commandsPage(): Promise<string> {
  const pages = await Promise.all(
    Object.entries(COMMANDS).map(async ([name, load]) => `## ${name}\n\n\`\`\`\n${(await load()).usage}\`\`\`\n`),
  );
  return `# Commands\n\nMade by \`npm run docs\` from what \`--help\` prints.\n\n\`\`\`\n${await overview()}\`\`\`\n\n${pages.join('\n')}`;
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  await writeFile(new URL('docs/settings.md', ROOT), settingsPage());
  await writeFile(new URL('docs/commands.md', ROOT), await commandsPage());
}
