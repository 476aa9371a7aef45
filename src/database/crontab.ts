/** Our crontab, the one place that holds an hour: the file as graphile-worker reads it. */
import { readFile } from 'node:fs/promises';
import { fileURLToPath } from 'node:url';
import { type ParsedCronItem, parseCrontab } from 'graphile-worker';

export const CRONTAB_FILE = fileURLToPath(new URL('../../crontab', import.meta.url));

/** The entries of our crontab, those of datasets that are off too. @throws what graphile-worker's parser says */
export const readCrontab = async (): Promise<ParsedCronItem[]> => parseCrontab(await readFile(CRONTAB_FILE, 'utf8'));
