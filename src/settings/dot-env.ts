/** `.env` of the working directory. Node reads it; what Node would misread without a word is told. */
import { readFileSync } from 'node:fs';
import { parseEnv } from 'node:util';
import { SettingsError } from './settings.ts';

/**
 * Loads it, if there is one, without overriding what is set already.
 * @param warn is told of each line that is probably not read as it was meant; no warning shows a value
 * @throws SettingsError when it cannot be read
 */
export function loadDotEnv(warn: (warning: string) => void): void {
  const text = readDotEnv();
  if (text === undefined) return;
  for (const [name, value] of Object.entries(parseEnv(text))) process.env[name] ??= value;
  for (const oddity of oddities(text)) warn(`.env: ${oddity}`);
}

/** @returns undefined where there is none */
function readDotEnv(): string | undefined {
  try {
    const bytes = readFileSync('.env');
    // A byte-order mark at its beginning is dropped. What is no UTF-8 is UTF-16, in which Windows saves what it redirects.
    return new TextDecoder('utf-8', { fatal: true }).decode(bytes);
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException;
    if (code === 'ENOENT') return undefined;
    if (code === 'EISDIR')
      throw new SettingsError('.env is a folder: Docker makes one where it is to mount a file that is not there.');
    if (code === 'ERR_ENCODING_INVALID_ENCODED_DATA') throw new SettingsError('.env is not in UTF-8: save it in that.');
    throw new SettingsError(`.env cannot be read: ${message}`);
  }
}

const ASSIGNMENT = /^[ \t]*(?:export[ \t]+)?([\w.-]+)[ \t]*=[ \t]*("[^"]*"|'[^']*'|`[^`]*`|[^\n]*)/gm;

/** What is probably meant otherwise than Node reads it, a sentence each. */
function oddities(text: string): string[] {
  const found: string[] = [];
  const rest = text.replace(ASSIGNMENT, (assignment, name: string, value: string) => {
    const [quote = ''] = /^["'`]/.exec(value) ?? [];
    if (quote && (value.length === 1 || !value.endsWith(quote)))
      found.push(`the value of ${name} begins with a quote that nothing closes.`);
    if (!quote && /^[^#]*[^\s#]#/.test(assignment))
      found.push(`the value of ${name} ends before its first #, where a comment begins. Put it in quotes.`);
    return assignment.replace(/[^\n]/g, '');
  });
  const unread = rest.split('\n').flatMap((line, index) => (/^\s*(#|$)/.test(line) ? [] : [index + 1]));
  return [...found, ...unread.map((line) => `line ${line} is not NAME=value, and is not read as that.`)];
}
