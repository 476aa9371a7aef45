/** The header of a ticket CSV, judged before anything is built on it: its names become the keys of every record. */
import { noTicketCsv, otherLineEnds, whatInstead } from './refused.ts';
import { visible } from './text.ts';

export interface Header {
  /** Name of each column, every name once; '' where a column has none, and is passed over. */
  readonly names: readonly string[];
  readonly idColumn: number;
}

/** What is built on a header grows with it: a row of 1 000 empty fields becomes as many keys. */
const MAX_COLUMNS = 1_000;
export const MAX_HEADER_BYTES = 64 * 1024;

/**
 * Names the columns. A name that stands twice is kept twice, the second as `name_2`.
 * @throws RefusedFileError when there is no ticket_id column, there are too many, or a quote swallowed what follows
 */
export function readHeader(cells: readonly string[]): Header {
  const start = cells.join(',');
  const lineEnds = start.includes('ticket_id') ? otherLineEnds(start) : undefined;
  if (lineEnds !== undefined && (start.includes('\r') || areLines(cells))) throw noTicketCsv(lineEnds);
  if (cells.length > MAX_COLUMNS) {
    throw noTicketCsv(
      whatInstead(start) ?? `its header has ${cells.length} columns, and at most ${MAX_COLUMNS} are read`,
    );
  }
  if (cells.some((cell) => /\n/.test(cell) && /[,"]/.test(cell))) {
    throw noTicketCsv('it has no readable header: a quote that opens in it is not closed there');
  }
  const names = unique(cells.map(visible));
  const idColumn = names.indexOf('ticket_id');
  if (idColumn < 0) throw noTicketCsv(whatInstead(start) ?? whyNoId(cells, start));
  return { names, idColumn };
}

/** Whether cells are lines of equally many fields, of which every last one holds the next line's first: a name may hold a form feed. */
function areLines(cells: readonly string[]): boolean {
  const ends = cells.flatMap((cell, index) => (otherLineEnds(cell) === undefined ? [] : [index]));
  const [first = 0] = ends;
  return cells.length > MAX_COLUMNS || (first > 0 && cells.length === first * (ends.length + 1) + 1);
}

function unique(names: readonly string[]): string[] {
  const used = new Set<string>();
  // Where the search for a free number goes on, so that many columns of one name are named in linear time.
  const next = new Map<string, number>();
  return names.map((name) => {
    if (name === '') return '';
    let n = next.get(name) ?? 1;
    let free = n === 1 ? name : `${name}_${n}`;
    while (used.has(free)) {
      n += 1;
      free = `${name}_${n}`;
    }
    next.set(name, n + 1);
    used.add(free);
    return free;
  });
}

function whyNoId(cells: readonly string[], text: string): string {
  const start = JSON.stringify(text.slice(0, 80));
  if (cells.some((cell) => /\bticket_id,/.test(cell))) return `each line is one quoted field (${start})`;
  return cells.length === 1 && /\bticket_id\b/.test(text)
    ? `the columns are not separated by commas (${start})`
    : `the header has no ticket_id column (${start})`;
}
