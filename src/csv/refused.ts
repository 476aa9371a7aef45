/**
 * Files that are refused as a whole, and why: what a file looks like that is no ticket CSV. Its first bytes tell the
 * formats that people send instead; they are looked at before anything is parsed. A header that is none is told in header.ts, a
 * file of which too little can be loaded in snapshots/suspicion.ts; all are a RefusedFileError.
 */
import { ExpectedError } from '../settings/errors.ts';

/** A file of which nothing is loaded; the message says why, and what it looks like. */
export class RefusedFileError extends ExpectedError {
  override name = 'RefusedFileError';
}

/** Why a file is refused, in words for people. */
export class Refusal {
  readonly reason: string;
  constructor(reason: string) {
    this.reason = reason;
  }
}

/** What reading a file comes to, or why the file is refused: nothing else catches a RefusedFileError. */
export async function orRefusal<T>(reading: Promise<T>): Promise<T | Refusal> {
  try {
    return await reading;
  } catch (error) {
    if (error instanceof RefusedFileError) return new Refusal(error.message);
    throw error;
  }
}

export const noTicketCsv = (reason: string) => new RefusedFileError(`No ticket CSV: ${reason}`);

/** Bytes at the start of a file by which a format is known. */
const FORMATS: readonly (readonly [start: string | readonly number[], what: string])[] = [
  [[0x1f, 0x8b], 'it is compressed with gzip: unpack it, or pack it once under a name that ends in .csv.gz'],
  ['PK\x03\x04', 'it is an Excel workbook (.xlsx) or another ZIP archive: export it as CSV'],
  [[0xd0, 0xcf, 0x11, 0xe0], 'it is an Excel workbook (.xls): export it as CSV'],
  ['%PDF', 'it is a PDF'],
  ['PAR1', 'it is a Parquet file'],
  ['BZh', 'it is compressed with bzip2: unpack it'],
  [[0x28, 0xb5, 0x2f, 0xfd], 'it is compressed with Zstandard: unpack it'],
  [[0xfd, 0x37, 0x7a, 0x58, 0x5a], 'it is compressed with xz: unpack it'],
  [[0xff, 0xfe], 'it is UTF-16 text: export it as UTF-8'],
  [[0xfe, 0xff], 'it is UTF-16 text: export it as UTF-8'],
];
const LONGEST = 5;
const BYTE_ORDER_MARK = Buffer.from('\ufeff');

/**
 * The same bytes without the byte-order marks before them: some tools write two.
 * @throws RefusedFileError when they are empty or begin as no CSV does; whatever `bytes` throws
 */
export async function* plainText(bytes: AsyncIterable<Buffer>): AsyncGenerator<Buffer> {
  let start: Buffer | undefined = Buffer.alloc(0);
  for await (const buffer of bytes) {
    if (start === undefined) {
      yield buffer;
      continue;
    }
    start = withoutMarks(Buffer.concat([start, buffer]));
    // A mark that is not complete yet is shorter than any format's start.
    if (start.length < LONGEST) continue;
    refuseOtherFormats(start);
    yield start;
    start = undefined;
  }
  if (start === undefined) return;
  if (start.length === 0) throw noTicketCsv('it is empty, and has no header');
  refuseOtherFormats(start);
  yield start;
}

function withoutMarks(bytes: Buffer): Buffer {
  let at = 0;
  while (bytes.subarray(at, at + BYTE_ORDER_MARK.length).equals(BYTE_ORDER_MARK)) at += BYTE_ORDER_MARK.length;
  return bytes.subarray(at);
}

function refuseOtherFormats(start: Buffer): void {
  const format = FORMATS.find(([begin]) => {
    const expected = typeof begin === 'string' ? Buffer.from(begin, 'latin1') : Buffer.from(begin);
    return start.subarray(0, expected.length).equals(expected);
  });
  if (format) throw noTicketCsv(format[1]);
  // UTF-16 without its byte-order mark: every second byte of plain letters is NUL.
  const [a, b, c, d] = start;
  if ((a && b === 0 && c && d === 0) || (a === 0 && b && c === 0 && d)) {
    throw noTicketCsv('it is UTF-16 text without a byte-order mark: export it as UTF-8');
  }
}

/** What a text is that has no header of a ticket CSV, as far as its first characters tell. */
export function whatInstead(text: string): string | undefined {
  const start = JSON.stringify(text.slice(0, 80));
  if (/^\s*</.test(text)) return `it is HTML or XML (${start})`;
  if (/^\s*[[{]\s*(["[{\]}]|$)/.test(text)) return `it is JSON (${start})`;
  if (/^\s*"?sep=/i.test(text)) {
    return `it begins with a line for Excel that names the separator (${start}): export it without that line`;
  }
  if (text.includes('\\n'))
    return `its line ends are written out as \\n (${start}), as within JSON: export it as plain CSV`;
  // An old encoding spoils a letter of a header here and there, and is read all the same.
  if (!text.includes('ticket_id') && /(?!\s)[\p{Cc}\ufffd]/u.test(text)) {
    return `it is a binary file, or text in another encoding than UTF-8 (${start})`;
  }
  return otherLineEnds(text);
}

const OTHER_LINE_END = /\S([\r\v\f\u0085\u2028\u2029])+\S/;

/** What else than LF or CRLF its lines end in: a lone carriage return, a form feed, U+2028 and the like. */
export function otherLineEnds(text: string): string | undefined {
  const [, end = ''] = OTHER_LINE_END.exec(text) ?? [];
  if (end === '') return undefined;
  const name =
    end === '\r' ? 'a lone carriage return' : `U+${end.charCodeAt(0).toString(16).toUpperCase().padStart(4, '0')}`;
  return `its lines end in ${name}; export it with LF or CRLF`;
}
