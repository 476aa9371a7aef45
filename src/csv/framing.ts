/**
 * Framing: where the records of a CSV begin and end (RFC 4180, with stray quotes taken as text). Bytes go in, in buffers
 * of any size, and frames come out; how the buffers were cut makes no difference. Memory holds one record beside the last
 * buffer, and every byte is looked at a bounded number of times.
 */

const LINE_FEED = 10;
const CARRIAGE_RETURN = 13;
const QUOTE = 34;
const COMMA = 44;

/**
 * Bytes that may be read once more behind a line that was split off: these, and so many times those before it. A quote
 * that swallows records costs one reading more; only a file made for it would cost a reading for every line.
 */
const READ_AGAIN_BYTES = 16 * 1024 * 1024;
const READ_AGAIN_SHARE = 4;
/** Room for a few of the buffers in which files arrive. */
const FIRST_BYTES = 256 * 1024;

export interface Frame {
  /** The record without its line end; of an `open` or `oversized` one as much as may be looked at. */
  readonly bytes: Buffer;
  /** Line of the file on which it begins, from 1, as an editor counts: a CRLF is one line end, a lone CR none. */
  readonly line: number;
  readonly end:
    | 'line' // a line end stands behind it
    | 'file' // it is the last of the file, which ends without one
    | 'open' // a quote that opens in it is never closed
    | 'oversized';
  /** Line ends within its quotes. */
  readonly linesWithin: number;
}

export class Framer {
  /** One buffer for all, which is written over: of a record of megabytes no copies are left behind to be collected. */
  #buffer: Buffer = Buffer.allocUnsafe(FIRST_BYTES);
  /** Its bytes that are there; those that are not framed yet begin at #at, which stands on line #line. */
  #bytes: Buffer = this.#buffer.subarray(0, 0);
  #at = 0;
  #line = 1;
  /** The next quote at or behind #at, where it was looked for; the end of the bytes when there is none. */
  #quote = -1;
  /** A record that is not complete is looked at again when there are so many bytes of it. */
  #wanted = 0;
  #ended = false;
  #last: { readonly from: number; readonly frame: Frame } | undefined;
  /** Bytes of the file before #bytes. */
  #before = 0;
  #readAgain = 0;

  /** Takes more bytes. What `next` gave before is no longer valid: its bytes are written over. */
  push(bytes: Buffer): void {
    const rest = this.#bytes.length - this.#at;
    const target = rest + bytes.length > this.#buffer.length ? roomFor(rest + bytes.length) : this.#buffer;
    this.#bytes.copy(target, 0, this.#at);
    bytes.copy(target, rest);
    this.#before += this.#at;
    this.#buffer = target;
    this.#bytes = target.subarray(0, rest + bytes.length);
    this.#at = 0;
    this.#quote = -1;
    this.#last = undefined;
  }

  /** No more bytes come. */
  end(): void {
    this.#ended = true;
  }

  /**
   * The next record; undefined when more bytes are needed, or none are left. Blank lines are passed over.
   * @param maxBytes the largest that is read
   */
  next(maxBytes: number): Frame | undefined {
    for (;;) {
      const from = this.#at;
      const left = this.#bytes.length - from;
      if (left === 0 || (left < this.#wanted && !this.#ended)) return undefined;
      const found = this.#endOfRecord(from);
      if (found === undefined && !this.#ended && left <= maxBytes) {
        // Twice as many: so the length of a record costs no square.
        this.#wanted = Math.min(2 * left, maxBytes + 1);
        return undefined;
      }
      this.#wanted = 0;
      const end = found ?? this.#bytes.length;
      let to = end;
      while (to > from && this.#bytes[to - 1] === CARRIAGE_RETURN) to -= 1;
      if (found !== undefined && to === from) {
        this.#at = Math.min(end + 1, this.#bytes.length);
        this.#line += 1;
        continue;
      }
      // Its carriage returns count, or it would depend on where a buffer ends whether it is too large.
      if (end - from > maxBytes) return this.#frame(from, from + maxBytes, end, 'oversized');
      if (found === undefined) return this.#frame(from, to, end, 'open');
      return this.#frame(from, to, end, end < this.#bytes.length ? 'line' : 'file');
    }
  }

  #frame(from: number, to: number, end: number, how: Frame['end']): Frame {
    const bytes = this.#bytes.subarray(from, to);
    const linesWithin = this.#quote < end ? countLineFeeds(bytes) : 0;
    const frame: Frame = { bytes, line: this.#line, end: how, linesWithin };
    this.#last = { from, frame };
    this.#at = Math.min(end + 1, this.#bytes.length);
    this.#line += 1 + linesWithin;
    return frame;
  }

  /**
   * Reads on behind the first line of the record that was just given: the line is a record of its own, and so are those
   * behind it. @returns the line, or undefined when so much was read again already that this must not go on
   */
  splitFirstLine(): Buffer | undefined {
    const { from, frame } = this.#last ?? {};
    const lineFeed = frame?.bytes.indexOf(LINE_FEED) ?? -1;
    if (from === undefined || !frame || lineFeed < 0) return undefined;
    this.#readAgain += frame.bytes.length;
    if (this.#readAgain > READ_AGAIN_BYTES + READ_AGAIN_SHARE * (this.#before + from)) return undefined;
    this.#at = from + lineFeed + 1;
    this.#line = frame.line + 1;
    this.#quote = -1;
    this.#wanted = 0;
    const end = frame.bytes[lineFeed - 1] === CARRIAGE_RETURN ? lineFeed - 1 : lineFeed;
    return frame.bytes.subarray(0, end);
  }

  /** Where the record that begins there ends: at its line feed, or at the end of the file. Most have no quote. */
  #endOfRecord(from: number): number | undefined {
    const bytes = this.#bytes;
    if (this.#quote < from) {
      const quote = bytes.indexOf(QUOTE, from);
      this.#quote = quote < 0 ? bytes.length : quote;
    }
    const lineFeed = bytes.indexOf(LINE_FEED, from);
    const end = lineFeed < 0 ? bytes.length : lineFeed;
    if (this.#quote >= end) return lineFeed >= 0 || this.#ended ? end : undefined;
    return endOfRecord(bytes, from, this.#ended);
  }
}

const roomFor = (bytes: number) => Buffer.allocUnsafeSlow(2 ** Math.ceil(Math.log2(bytes)));

/**
 * Where the record that begins at `from` ends: at its line feed, or at the end of the bytes where they are the last.
 * A quote opens at the beginning of a field only, and the next one that is not doubled closes it; what stands between
 * that one and the delimiter is text.
 * @returns undefined when more bytes are needed: forever, where a quote is never closed
 */
export function endOfRecord(bytes: Buffer, from: number, isLast: boolean): number | undefined {
  const { length } = bytes;
  let at = from;
  for (;;) {
    if (bytes[at] === QUOTE) {
      const close = closingQuote(bytes, at, length);
      // Of the last byte nobody knows yet whether another quote doubles it.
      if (close === length || (close + 1 === length && !isLast)) return undefined;
      at = close + 1;
    }
    while (at < length && bytes[at] !== COMMA && bytes[at] !== LINE_FEED) at += 1;
    if (at >= length) return isLast ? length : undefined;
    if (bytes[at] === LINE_FEED) return at;
    at += 1;
  }
}

/**
 * The quote before `to` that closes the one there: the next that is not doubled; `to` where none does.
 * Byte by byte: quotes can stand so close that a search for each costs more.
 */
export function closingQuote(bytes: Buffer, open: number, to: number): number {
  let at = open + 1;
  while (at < to && (bytes[at] !== QUOTE || (at + 1 < to && bytes[at + 1] === QUOTE)))
    at += bytes[at] === QUOTE ? 2 : 1;
  return Math.min(at, to);
}

function countLineFeeds(bytes: Buffer): number {
  let count = 0;
  for (let at = 0; at < bytes.length; at += 1) if (bytes[at] === LINE_FEED) count += 1;
  return count;
}
