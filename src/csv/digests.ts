/**
 * Digests: a record is known by its bytes. What a record becomes follows from its bytes, the header and the rules of
 * cleaning, and from nothing else in the file; so where all of these are as they were when it was loaded, and its ticket has
 * not been written since, it need not be parsed. Whether that is so the database knows; here records are gathered into
 * portions to ask for.
 */
import { createHash, hash } from 'node:crypto';
import { CLEANING_VERSION, isDropped } from './clean.ts';
import { closingQuote } from './framing.ts';
import type { Header } from './header.ts';
import { endOfField } from './swallowed.ts';
import { visible } from './text.ts';

/** A record that is framed and nothing more. */
export interface FramedRecord {
  readonly line: number;
  readonly bytes: Buffer;
  /** It ends with the file, not with a line. */
  readonly isLast: boolean;
  /** As it stands there; '' where it is none that could be asked for, or nobody asks. If it is not the ticket's, the record is parsed. */
  readonly ticketId: string;
  /** 32 hexadecimal digits. */
  readonly digest: string;
  /** Of its ticket, where the record is known (see values.ts); undefined where it must be parsed. */
  readonly figures?: number | undefined;
}

/** What is known of records. */
export interface KnownRecords {
  /** Where their tickets are kept: it goes into the digests. */
  readonly store: string;
  /**
   * Stages those of the records that are known. Tells for each record the figures of its ticket; undefined where it must be parsed.
   * Undefined itself: nothing is known.
   */
  readonly stage: ((records: readonly FramedRecord[]) => Promise<readonly (number | undefined)[]>) | undefined;
}

/** All records are parsed. */
export const NO_RECORDS_KNOWN: KnownRecords = { store: '', stage: undefined };

const QUOTE = 34;
const COMMA = 44;
const BLANK = 32;
const TILDE = 126;

/** Bytes of a record; a larger one is read at once, by itself. */
export const MAX_IN_PORTION = 64 * 1024;
const PORTION_RECORDS = 2_000;
const PORTION_BYTES = 512 * 1024;
/** Bytes of an id with what is around it, of which others are not made. */
const MAX_ID = 300;

const DIGEST_DIGITS = 32;

/** Makes the digests of one file. */
export class Digester {
  /** What a digest rests on beside the record's own bytes. */
  readonly #salt: Buffer;
  /** The salt, and room for a record behind it: hashing both at once takes a third of the time. */
  readonly #salted: Buffer;
  readonly #idColumn: number;
  readonly #asks: boolean;
  /** For each column whether its values are dropped, up to the last one of which they are. */
  readonly #drops: readonly boolean[];

  constructor({ names, idColumn }: Header, { store, stage }: KnownRecords) {
    this.#salt = hash('sha256', JSON.stringify([CLEANING_VERSION, store, names]), 'buffer');
    this.#salted = Buffer.concat([this.#salt, Buffer.alloc(MAX_IN_PORTION)]);
    this.#idColumn = idColumn;
    this.#asks = stage !== undefined;
    // Not the first, by which a sentinel is recognised.
    const drops = names.map((name, column) => column > 0 && isDropped(name));
    this.#drops = drops.slice(0, drops.lastIndexOf(true) + 1);
  }

  record(line: number, bytes: Buffer, isLast: boolean): FramedRecord {
    const ticketId = this.#asks ? this.#idOf(bytes) : '';
    return { line, bytes, isLast, ticketId, digest: this.#digestOf(bytes).slice(0, DIGEST_DIGITS) };
  }

  #digestOf(bytes: Buffer): string {
    if (bytes.length > MAX_IN_PORTION) return createHash('sha256').update(this.#salt).update(bytes).digest('hex');
    return hash('sha256', this.#salted.subarray(0, this.#copy(bytes)), 'hex');
  }

  /**
   * Copies a record behind the salt, without the values that are dropped: the export's bookkeeping among them differs in every
   * file. With an empty value in their place the record would become the same ticket, so both have the same digest. A value in
   * which there may be more than text stays, and so does all that stands behind a quote that is not where it should be.
   * @returns where the copy ends
   */
  #copy(bytes: Buffer): number {
    let to = this.#salt.length;
    let copied = 0;
    let at = 0;
    for (const isDropped of this.#drops) {
      const end = endOfPlainField(bytes, at);
      if (end === undefined) break;
      if (isDropped && isPrintable(bytes, at, end)) {
        // A comma between two of them is written, because a copy costs more.
        if (at === copied + 1) this.#salted[to++] = COMMA;
        else to += bytes.copy(this.#salted, to, copied, at);
        copied = end;
      }
      at = end + 1;
      if (at > bytes.length) break;
    }
    return to + bytes.copy(this.#salted, to, copied);
  }

  #idOf(bytes: Buffer): string {
    let from = 0;
    for (let column = 0; column < this.#idColumn; column += 1) {
      from = endOfField(bytes, from, bytes.length) + 1;
      if (from > bytes.length) return '';
    }
    const to = endOfField(bytes, from, bytes.length);
    if (to - from > MAX_ID) return '';
    const isQuoted = bytes[from] === QUOTE && bytes[to - 1] === QUOTE && to - from > 1;
    return visible(isQuoted ? bytes.toString('utf8', from + 1, to - 1) : bytes.toString('utf8', from, to));
  }
}

/** Where a field ends; undefined where a quote stands in it that neither opens nor closes it. */
function endOfPlainField(bytes: Buffer, from: number): number | undefined {
  if (bytes[from] === QUOTE) {
    const end = closingQuote(bytes, from, bytes.length) + 1;
    return end === bytes.length || bytes[end] === COMMA ? end : undefined;
  }
  let at = from;
  for (const { length } = bytes; at < length; at += 1) {
    const byte = bytes[at];
    if (byte === COMMA) return at;
    if (byte === QUOTE) return undefined;
  }
  return at;
}

function isPrintable(bytes: Buffer, from: number, to: number): boolean {
  for (let at = from; at < to; at += 1) {
    const byte = bytes[at] as number;
    if (byte < BLANK || byte > TILDE) return false;
  }
  return true;
}

/** Records that are asked for together; their bytes are copied, because the reader writes over its own. */
export class Portion {
  readonly #bytes = Buffer.allocUnsafeSlow(PORTION_BYTES + MAX_IN_PORTION);
  #size = 0;
  #records: FramedRecord[] = [];
  #found: Promise<readonly (number | undefined)[]> | undefined;

  get isFull(): boolean {
    return this.#records.length >= PORTION_RECORDS || this.#size >= PORTION_BYTES;
  }

  /** @param bytes of the record, at most MAX_IN_PORTION */
  add(digester: Digester, line: number, bytes: Buffer, isLast: boolean): void {
    bytes.copy(this.#bytes, this.#size);
    this.#records.push(digester.record(line, this.#bytes.subarray(this.#size, this.#size + bytes.length), isLast));
    this.#size += bytes.length;
  }

  ask({ stage }: KnownRecords): void {
    if (this.#records.length === 0) return;
    this.#found = stage?.(this.#records);
    // Awaited in take(); if reading ends before, nobody does.
    this.#found?.catch(() => undefined);
  }

  /** The records in the order of the file, with the figures of those that are known. Empties the portion but for its bytes. */
  async take(): Promise<readonly FramedRecord[]> {
    const found = await this.#found;
    const records = this.#records;
    this.#size = 0;
    this.#records = [];
    this.#found = undefined;
    return found ? records.map((record, n) => ({ ...record, figures: found[n] })) : records;
  }
}
