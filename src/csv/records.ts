/**
 * The file format: bytes of a ticket CSV become chunks of tickets, rejects and counts, in the order of the file.
 * Memory stays flat however large the file or a single line is. Nothing is silently lost: a record that is no ticket
 * is counted or rejected with its line; where the rest of the file cannot be trusted, reading stops and says so.
 */
import { isUtf8 } from 'node:buffer';
import { createHash, type Hash } from 'node:crypto';
import { CsvError, parse } from 'csv-parse';
import { type CleanRecord, cleanerFor, isSentinel, NotTicketCsvError } from './clean.ts';

export interface TicketRow {
  /** Line of the file on which the record begins, from 1. */
  readonly line: number;
  readonly ticket_id: string;
  /** The cleaned record: JSON, as Postgres writes a jsonb. */
  readonly raw: string;
}

/** Rows as a JSON array for Postgres: `[{"line", "ticket_id", "raw"}, …]`. */
export const rowsAsJson = (rows: readonly TicketRow[]): string =>
  `[${rows.map((row) => `{"line":${row.line},"ticket_id":${JSON.stringify(row.ticket_id)},"raw":${row.raw}}`).join(',')}]`;

export interface Reject {
  readonly line: number;
  readonly reason: string;
  /** The record as CSV, control characters escaped, cut at 64 KiB. */
  readonly text: string;
}

export interface Counts {
  read: number;
  alarms: number;
  sentinels: number;
  /** Earlier lines of a ticket id that stands again in the same chunk; across chunks the database counts. */
  duplicates: number;
  /** Rows that hold U+FFFD in place of a NUL or of bytes that are no UTF-8. */
  repaired: number;
}

export interface Chunk {
  /** At most one row per ticket id: the last. */
  readonly rows: readonly TicketRow[];
  readonly rejects: readonly Reject[];
  readonly counts: Readonly<Counts>;
}

export interface Ending {
  /** Why the rest of the file after this line was not read; undefined when all of it was. */
  readonly brokenOff: string | undefined;
  /** SHA-256 of the bytes read, in hex. */
  readonly sha256: string;
}

/** Rows in a chunk: measured, 1 000 take a tenth longer, and 4 000 only more memory. */
export const CHUNK_ROWS = 2_000;
/** Bytes of one record; a field of 1 MB is normal input, a file without line ends is not. */
const MAX_RECORD_BYTES = 16 * 1024 * 1024;
const MAX_REJECT_BYTES = 64 * 1024;
/** Bytes of the file after which a chunk is full, however few rows it holds. */
const CHUNK_BYTES = 4 * 1024 * 1024;

/**
 * Reads a ticket CSV.
 * @param bytes the file, in buffers of any size
 * @returns yields chunks of at most CHUNK_ROWS rows; the generator's return value says how it ended
 * @throws NotTicketCsvError when the file is no ticket CSV at all; whatever `bytes` throws
 */
export async function* readTicketCsv(bytes: AsyncIterable<Buffer>): AsyncGenerator<Chunk, Ending> {
  const hash = createHash('sha256');
  const collector = new Collector();
  // Records are taken in the callback, not from the stream: an error would throw away those it has buffered.
  const parser = parse({
    bom: true,
    // Named, because csv-parse would take the header's for that of all rows; the sentinel may be written by another hand.
    record_delimiter: ['\r\n', '\n'],
    relax_column_count: true,
    // A stray quote inside an unquoted field is text, and spoils no other row.
    relax_quotes: true,
    skip_empty_lines: true,
    max_record_size: MAX_RECORD_BYTES,
    on_record: (fields: string[], place) => {
      collector.take(fields, place);
    },
  });
  let failure: Error | undefined;
  parser.on('error', (error) => {
    failure = error;
  });
  parser.resume();

  for await (const buffer of repaired(hashed(bytes, hash), (count) => collector.noteRepair(count))) {
    parser.write(buffer);
    failure ??= parser.errored ?? undefined;
    if (failure || collector.brokenOff) break;
    if (collector.isFull()) yield collector.release();
  }
  if (!failure && !collector.brokenOff) {
    await new Promise<void>((resolve) => {
      parser.once('close', resolve);
      parser.end();
    });
  }
  parser.destroy();
  if (failure && !(failure instanceof CsvError)) throw failure;
  if (!collector.hasHeader)
    throw new NotTicketCsvError(failure ? notEvenAHeader(failure) : 'No ticket CSV: it has no header');
  yield collector.release();
  const brokenOff =
    collector.brokenOff ?? (failure && breakReason(failure, collector.lineAfter(parser.info.empty_lines)));
  return { brokenOff, sha256: hash.digest('hex') };
}

const notEvenAHeader = (failure: Error) => `No ticket CSV: it has no readable header (${failure.message})`;

function breakReason(failure: CsvError, line: number): string {
  const reason =
    failure.code === 'CSV_MAX_RECORD_SIZE'
      ? `the record that begins on line ${line} is larger than ${MAX_RECORD_BYTES / 1024 / 1024} MiB`
      : failure.code === 'CSV_QUOTE_NOT_CLOSED'
        ? `a quote that opens in the record on line ${line} is never closed`
        : `the record on line ${line} cannot be read (${failure.message})`;
  return `The file breaks off: ${reason}. The rows before line ${line} are loaded, the rest is not.`;
}

/** Sorts records into the chunk being filled. */
class Collector {
  brokenOff: string | undefined;
  #clean: ((fields: readonly string[]) => CleanRecord) | undefined;
  #width = 0;
  /** Lines of the file that records took so far; blank ones come on top. */
  #lines = 0;
  #rows = new Map<string, TicketRow>();
  #rejects: Reject[] = [];
  #miscounted = 0;
  #begin = 0;
  #end = 0;
  #counts: Counts = { read: 0, alarms: 0, sentinels: 0, duplicates: 0, repaired: 0 };
  /** Repairs in bytes whose records are not complete yet. */
  #repairs = 0;

  get hasHeader(): boolean {
    return this.#clean !== undefined;
  }

  isFull(): boolean {
    return this.#rows.size >= CHUNK_ROWS || this.#end - this.#begin >= CHUNK_BYTES;
  }

  noteRepair(count: number): void {
    this.#repairs += count;
  }

  /** Line on which the next record begins, after so many blank lines in all. */
  lineAfter(blankLines: number): number {
    return this.#lines + blankLines + 1;
  }

  /** @param place csv-parse's count of the file up to the end of this record */
  take(fields: readonly string[], place: { lines: number; empty_lines: number; bytes: number }): void {
    if (this.brokenOff) return;
    this.#end = place.bytes;
    const line = this.lineAfter(place.empty_lines);
    // csv-parse counts a CRLF inside quotes as two lines, and a lone CR as one; an editor does not.
    const further = place.lines - this.#miscounted > line ? lineEndsWithin(fields) : 0;
    this.#miscounted = place.lines - line - further;
    this.#lines += 1 + further;
    if (!this.#clean && !isSentinel(fields)) {
      this.#clean = cleanerFor(fields);
      this.#width = fields.length;
      return;
    }
    if (further > 0 && swallowsRecords(fields, this.#width)) {
      this.brokenOff = `The file breaks off: a quote that opens in the record on line ${line} swallows the records after it. The rows before line ${line} are loaded, the rest is not.`;
      return;
    }
    this.#counts.read += 1;
    const record = this.#clean?.(fields) ?? { kind: 'sentinel' };
    if (record.kind === 'alarm') this.#counts.alarms += 1;
    else if (record.kind === 'sentinel') this.#counts.sentinels += 1;
    else if (record.kind === 'reject') this.#reject(line, record.reason, fields);
    else this.#keep({ line, ticket_id: record.ticketId, raw: record.raw }, fields);
  }

  #keep(row: TicketRow, fields: readonly string[]): void {
    if (this.#rows.delete(row.ticket_id)) this.#counts.duplicates += 1;
    this.#rows.set(row.ticket_id, row);
    if (this.#repairs > 0 && fields.some((field) => field.includes('\uFFFD'))) this.#counts.repaired += 1;
  }

  #reject(line: number, reason: string, fields: readonly string[]): void {
    this.#rejects.push({ line, reason, text: escapedCsv(fields) });
  }

  release(): Chunk {
    const chunk: Chunk = { rows: [...this.#rows.values()], rejects: this.#rejects, counts: this.#counts };
    this.#rows = new Map();
    this.#rejects = [];
    this.#begin = this.#end;
    this.#counts = { read: 0, alarms: 0, sentinels: 0, duplicates: 0, repaired: 0 };
    return chunk;
  }
}

/**
 * Does a field of this multi-line record hold what must be other records? A quote that is never closed runs on to the
 * opening quote of some later field. Where that is the same column, the record even has the right number of fields: then
 * the field holds a ticket number between commas, and as many commas as a whole record. Where the number of fields is
 * wrong, a further line of the field holds a ticket number. A description that merely has lines, commas or ticket
 * numbers is not mistaken.
 */
function swallowsRecords(fields: readonly string[], width: number): boolean {
  const foreign = fields.length === width ? /(?:^|[,\n])"?[A-Za-z]{2,6}-?\d{4,12}"?(?:,|\r?\n|$)/ : FOREIGN_LINE;
  return fields.some(
    (field) =>
      field.includes('\n') &&
      foreign.test(field) &&
      (fields.length !== width || (field.match(/,/g)?.length ?? 0) >= width - 1),
  );
}

const FOREIGN_LINE = /\n(?:[^\n]*,)?"?[A-Za-z]{2,6}-?\d{4,12}"?(?:,|\r?\n|$)/;

const lineEndsWithin = (fields: readonly string[]) =>
  fields.reduce((count, field) => count + (field.match(/\n/g)?.length ?? 0), 0);

/** The record as one line of CSV that any terminal can show. */
function escapedCsv(fields: readonly string[]): string {
  const text = fields
    .map((field) => field.slice(0, MAX_REJECT_BYTES))
    .map((field) => (/[",\r\n]/.test(field) ? `"${field.replaceAll('"', '""')}"` : field))
    .join(',')
    .slice(0, MAX_REJECT_BYTES)
    .replace(/[\p{Cc}\u2028\u2029]/gu, (char) =>
      char === '\n'
        ? '\\n'
        : char === '\r'
          ? '\\r'
          : char === '\t'
            ? '\\t'
            : `\\u${char.charCodeAt(0).toString(16).padStart(4, '0')}`,
    );
  const utf8 = Buffer.from(text);
  // Cut between characters, not inside one.
  return utf8.length <= MAX_REJECT_BYTES
    ? text
    : new TextDecoder().decode(utf8.subarray(0, MAX_REJECT_BYTES), { stream: true });
}

async function* hashed(bytes: AsyncIterable<Buffer>, hash: Hash): AsyncGenerator<Buffer> {
  for await (const buffer of bytes) {
    hash.update(buffer);
    yield buffer;
  }
}

/**
 * The same text in valid UTF-8 without NUL: every NUL and every invalid byte sequence becomes U+FFFD.
 * Clean buffers, which nearly all are, pass untouched; a character cut by a buffer's end waits for the next buffer.
 */
async function* repaired(bytes: AsyncIterable<Buffer>, note: (count: number) => void): AsyncGenerator<Buffer> {
  let carried: Buffer = Buffer.alloc(0);
  const repair = (buffer: Buffer): Buffer => {
    if (isUtf8(buffer) && !buffer.includes(0)) return buffer;
    const text = new TextDecoder('utf-8', { ignoreBOM: true }).decode(buffer).replaceAll('\0', '\uFFFD');
    note(text.split('\uFFFD').length - 1);
    return Buffer.from(text);
  };
  for await (const buffer of bytes) {
    const joined = carried.length > 0 ? Buffer.concat([carried, buffer]) : buffer;
    const whole = joined.length - incompleteTail(joined);
    carried = joined.subarray(whole);
    if (whole > 0) yield repair(joined.subarray(0, whole));
  }
  if (carried.length > 0) yield repair(carried);
}

/** How many bytes at the end begin a UTF-8 character that is not complete: 0 to 3. */
function incompleteTail(buffer: Buffer): number {
  for (let back = 1; back <= Math.min(3, buffer.length); back += 1) {
    const byte = buffer[buffer.length - back] ?? 0;
    if (byte < 0x80) return 0;
    if (byte >= 0xc0) {
      const needs = byte >= 0xf0 ? 4 : byte >= 0xe0 ? 3 : 2;
      return needs > back ? back : 0;
    }
  }
  return 0;
}
