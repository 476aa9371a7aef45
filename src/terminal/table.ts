/** Rows of a query as a table of text, as psql draws it. */
import { printableLine } from '../text/printable.ts';

const cellOf = (value: unknown): string => {
  if (value === null || value === undefined) return '';
  if (value instanceof Date) return `${value.toISOString().slice(0, 19).replace('T', ' ')}Z`;
  if (typeof value !== 'object') return String(value);
  return JSON.stringify(value);
};

/**
 * @param rows all with the same keys, which head the columns
 * @returns lines, each ended; numbers to the right, text to the left
 */
export function table(rows: readonly Record<string, unknown>[]): string {
  const names = Object.keys(rows[0] ?? {});
  if (names.length === 0) return ' (no rows)\n';
  const columns = names.map((name) => {
    const cells = rows.map((row) => printableLine(cellOf(row[name])));
    const isNumeric = cells.every((cell) => /^-?[\d.]*$/.test(cell));
    const width = Math.max(...[name, ...cells].map((cell) => cell.length));
    return { name, cells, width, isNumeric };
  });
  const line = (texts: readonly string[]) => ` ${texts.join(' | ').trimEnd()}\n`;
  const head = line(columns.map(({ name, width }) => name.padEnd(width)));
  const rule = `-${columns.map(({ width }) => '-'.repeat(width)).join('-+-')}-\n`;
  const body = rows.map((_, i) =>
    line(
      columns.map(
        ({ cells, width, isNumeric }) => (isNumeric ? cells[i]?.padStart(width) : cells[i]?.padEnd(width)) ?? '',
      ),
    ),
  );
  return head + rule + body.join('');
}
