/**
 * Quotes that swallow records. A quote that opens and is not closed where it should be runs on to the next one, and all
 * that stands between becomes one field, in the worst case of a record that looks well. What gives it away is a line
 * within the quotes that is, read by itself, a whole record of this file: it has its number of fields, an id of a shape
 * that the file shows, and flags that read. A description that merely has lines, commas or ticket numbers has no such line.
 */
import { closingQuote, endOfRecord, type Frame } from './framing.ts';
import type { Header } from './header.ts';
import { visible } from './text.ts';
import { toBoolean } from './values.ts';

const LINE_FEED = 10;
const QUOTE = 34;
const COMMA = 44;

const FLAGS = ['is_actionable', 'is_alarm', 'is_auto_created', 'is_auto_closed'];
/** Lines of one record at which a record of several lines may begin: each is read on, and all of them would cost a square. */
const MAX_BEGINNINGS = 20;
/** A feed has a few. */
const MAX_SHAPES = 1_000;

export class SwallowedRecords {
  readonly #width: number;
  readonly #idColumn: number;
  readonly #flags: readonly number[];
  /** Shapes of ids: see shapeOf. */
  readonly #shapes = new Set<number>();

  constructor({ names, idColumn }: Header) {
    this.#width = names.length;
    this.#idColumn = idColumn;
    this.#flags = FLAGS.map((name) => names.indexOf(name)).filter((column) => column >= 0);
  }

  /** Learns from a record how ids of this file look. */
  learn({ bytes, linesWithin }: Frame): void {
    let from = 0;
    for (let column = 0; column < this.#idColumn; column += 1) {
      from = endOfField(bytes, from, bytes.length) + 1;
      if (from > bytes.length) return;
    }
    const to = endOfField(bytes, from, bytes.length);
    // On a further line it may belong to another record.
    const lineFeed = linesWithin > 0 ? bytes.indexOf(LINE_FEED) : bytes.length;
    if (to > from && to <= lineFeed && this.#shapes.size < MAX_SHAPES) this.#shapes.add(shapeOf(bytes, from, to));
  }

  /** Whether a line within the record's quotes is a record of its own. Only a record of several lines has such. */
  isIn({ bytes, end }: Frame): boolean {
    const whole = end === 'line' || end === 'file' ? look(bytes, 0, bytes.length) : undefined;
    const isAstray = whole?.closesAstray ?? true;
    const isWell = !isAstray && whole?.fields === this.#width;
    let beginnings = 0;
    for (let from = bytes.indexOf(LINE_FEED) + 1; from > 0; from = bytes.indexOf(LINE_FEED, from) + 1) {
      const lineFeed = bytes.indexOf(LINE_FEED, from);
      const to = lineFeed < 0 ? bytes.length : lineFeed;
      const seen = look(bytes, from, to);
      if (!seen.isOpen) {
        if (this.#isRecord(bytes, from, to, seen, isAstray)) return true;
      } else if (beginnings < MAX_BEGINNINGS) {
        beginnings += 1;
        // Where a record is not written as it should be anyway, the beginning of another will do.
        if (!isWell && this.#isBeginning(bytes, from, to, seen, isAstray)) return true;
        const last = endOfRecord(bytes, from, true) ?? from;
        if (this.#isRecord(bytes, from, last, look(bytes, from, last), isAstray)) return true;
      }
    }
    return false;
  }

  /**
   * Whether this is a record. Where the quotes around it are as they should be, its own must be: the last line of a first
   * field of several lines looks like a record but for the quote that closes the field.
   */
  #isRecord(bytes: Buffer, from: number, to: number, seen: Look, isAstray: boolean): boolean {
    return seen.fields === this.#width && (isAstray || !seen.hasStrayQuote) && this.#fits(cellsOf(bytes, from, to));
  }

  /** Whether a line whose last quote stays open begins a record. */
  #isBeginning(bytes: Buffer, from: number, to: number, seen: Look, isAstray: boolean): boolean {
    if (seen.fields > this.#width) return false;
    return seen.fields > this.#idColumn + 1 ? this.#fits(cellsOf(bytes, from, to).slice(0, -1)) : isAstray;
  }

  #fits(cells: readonly string[]): boolean {
    const id = Buffer.from(visible(cells[this.#idColumn] ?? ''));
    // Before the first record nothing is known: then an id at least has a digit.
    const hasShape = this.#shapes.size > 0 ? this.#shapes.has(shapeOf(id, 0, id.length)) : /\d/.test(id.toString());
    const flags = this.#flags.map((column) => cells[column]?.trim() ?? '').filter((flag) => flag !== '');
    const isPart = cells.length < this.#width || this.#flags.length === 0;
    return hasShape && flags.every((flag) => toBoolean(flag) !== undefined) && (flags.length > 0 || isPart);
  }
}

interface Look {
  readonly fields: number;
  /** A quote opens a field and is not closed. */
  readonly isOpen: boolean;
  /** A quote that closes a field does not stand at its end. */
  readonly closesAstray: boolean;
  /** A quote stands within a field that has none around it, or behind the one that closes it. */
  readonly hasStrayQuote: boolean;
}

/** How the fields and quotes of one record, or line, stand. In place: a record may have as many lines as bytes. */
function look(bytes: Buffer, from: number, to: number): Look {
  let fields = 0;
  let isOpen = false;
  let closesAstray = false;
  let hasStrayQuote = false;
  for (let at = from; at <= to; at += 1) {
    let behind = -1;
    if (at < to && bytes[at] === QUOTE) {
      behind = closingQuote(bytes, at, to) + 1;
      isOpen = behind > to;
      at = behind;
    }
    for (; at < to && bytes[at] !== COMMA; at += 1) if (bytes[at] === QUOTE) hasStrayQuote = true;
    if (behind >= 0 && at > behind) closesAstray = true;
    fields += 1;
  }
  return { fields, isOpen, closesAstray, hasStrayQuote: hasStrayQuote || closesAstray };
}

export function endOfField(bytes: Buffer, from: number, to: number): number {
  let at = from < to && bytes[from] === QUOTE ? closingQuote(bytes, from, to) : from;
  while (at < to && bytes[at] !== COMMA) at += 1;
  return at;
}

/** The fields of a record without the quotes around them: near enough for ids and flags. */
function cellsOf(bytes: Buffer, from: number, to: number): string[] {
  const cells: string[] = [];
  for (let at = from; at <= to; at += 1) {
    const end = endOfField(bytes, at, to);
    cells.push(bytes.toString('utf8', at, end).replace(/^"(.*)"$/s, '$1'));
    at = end;
  }
  return cells;
}

/** The shape of an id, as a number: its runs of letters, of digits, and its other characters. WOT0715527 looks like ABC1. */
function shapeOf(bytes: Buffer, from: number, to: number): number {
  const DIGIT = 1;
  const LETTER = 2;
  let shape = 0;
  let last = 0;
  for (let at = from; at < to; at += 1) {
    const byte = bytes[at] ?? 0;
    // Blanks, and the quotes around it, are no part of it.
    if (byte === 32 || byte === 9 || byte === QUOTE) continue;
    const lower = byte | 32;
    const kind = byte >= 48 && byte <= 57 ? DIGIT : byte >= 128 || (lower >= 97 && lower <= 122) ? LETTER : byte;
    if (kind === last && kind <= LETTER) continue;
    shape = (Math.imul(shape, 31) + kind) | 0;
    last = kind;
  }
  return shape;
}
