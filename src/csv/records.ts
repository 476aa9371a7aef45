/**
 * Reading a ticket CSV: its bytes become chunks of tickets, rejects and counts, in the order of the file.
 * Memory stays flat however large the file, a line of it, or what becomes of it is. Nothing is silently lost: a record
 * that is no ticket is counted or rejected with its line; where the rest of the file cannot be trusted, reading stops and
 * says so.
 */
import { createHash, type Hash } from 'node:crypto';
import { type Chunk, ChunkBuilder, type FirstReject } from './chunks.ts';
import { isSentinel } from './clean.ts';
import {
  Digester,
  type FramedRecord,
  type KnownRecords,
  MAX_IN_PORTION,
  NO_RECORDS_KNOWN,
  Portion,
} from './digests.ts';
import { type Frame, Framer } from './framing.ts';
import { type Header, MAX_HEADER_BYTES, readHeader } from './header.ts';
import { fieldsOf } from './parse.ts';
import { noTicketCsv, plainText, whatInstead } from './refused.ts';
import { SwallowedRecords } from './swallowed.ts';
import { repaired, repairedLength } from './text.ts';
import type { Values } from './values.ts';

export interface Ending {
  /** Why the rest of the file after this line was not read; undefined when all of it was. */
  readonly brokenOff: string | undefined;
  /** SHA-256 of the bytes read, in hex. */
  readonly sha256: string;
  /** Names of the columns. */
  readonly columns: readonly string[];
  /** Of the tickets, by counted column. */
  readonly values: Readonly<Record<string, Values>>;
  readonly firstReject: FirstReject | undefined;
}

/** Bytes of one record; a field of 1 MB is normal input, a file without line ends is not. */
const MAX_RECORD_BYTES = 5 * 1024 * 1024;
/** Records are parsed together, so many. */
const GROUP_RECORDS = 500;
/** Of a record that is rejected for its size. */
const MAX_SHOWN_BYTES = 256 * 1024;

/**
 * Reads a ticket CSV.
 * @param bytes the file, in buffers of any size
 * @param known records that need not be parsed: they are counted, and make no rows
 * @returns yields chunks of at most CHUNK_ROWS rows; the generator's return value says how it ended
 * @throws RefusedFileError when the file is no ticket CSV at all; whatever `bytes` throws
 */
export async function* readTicketCsv(
  bytes: AsyncIterable<Buffer>,
  known: KnownRecords = NO_RECORDS_KNOWN,
): AsyncGenerator<Chunk, Ending> {
  const hash = createHash('sha256');
  const framer = new Framer();
  const header = new HeaderReader(framer, known);
  let records: RecordReader | undefined;
  for await (const buffer of plainText(hashed(bytes, hash))) {
    framer.push(buffer);
    records ??= header.read();
    if (records) yield* records.chunks();
    if (records?.brokenOff) break;
  }
  framer.end();
  records ??= header.read();
  if (!records) throw noTicketCsv('it has no header');
  yield* records.chunks();
  yield* records.rest();
  return { ...records.ending(), sha256: hash.digest('hex') };
}

async function* hashed(bytes: AsyncIterable<Buffer>, hash: Hash): AsyncGenerator<Buffer> {
  for await (const buffer of bytes) {
    hash.update(buffer);
    yield buffer;
  }
}

/** The head of a file: its header, and sentinels that may stand before it. */
class HeaderReader {
  readonly #framer: Framer;
  readonly #known: KnownRecords;
  #sentinels = 0;

  constructor(framer: Framer, known: KnownRecords) {
    this.#framer = framer;
    this.#known = known;
  }

  /**
   * @returns the reader of what stands below the header, as soon as the header's bytes are there
   * @throws RefusedFileError when it is no header of a ticket CSV
   */
  read(): RecordReader | undefined {
    for (;;) {
      const frame = this.#framer.next(MAX_HEADER_BYTES);
      if (!frame) return undefined;
      if (frame.end === 'open' || frame.end === 'oversized') throw noHeader(frame);
      const [cells = []] = fieldsOf([repaired(frame.bytes)]);
      if (!isSentinel(cells)) return new RecordReader(this.#framer, readHeader(cells), this.#sentinels, this.#known);
      this.#sentinels += 1;
    }
  }
}

function noHeader({ bytes, end }: Frame): Error {
  const why =
    end === 'open'
      ? 'a quote that opens in it is never closed'
      : `its first record is larger than ${MAX_HEADER_BYTES / 1024} KiB`;
  return noTicketCsv(whatInstead(bytes.toString()) ?? `it has no readable header: ${why}`);
}

/** The records below the header. */
class RecordReader {
  brokenOff: string | undefined;
  readonly #framer: Framer;
  readonly #header: Header;
  readonly #swallowed: SwallowedRecords;
  readonly #chunk: ChunkBuilder;
  readonly #digester: Digester;
  readonly #known: KnownRecords;
  #filling = new Portion();
  /** Asked for, and not sorted yet. */
  #asked = new Portion();

  constructor(framer: Framer, header: Header, sentinels: number, known: KnownRecords) {
    this.#framer = framer;
    this.#header = header;
    this.#swallowed = new SwallowedRecords(header);
    this.#chunk = new ChunkBuilder(header, sentinels);
    this.#digester = new Digester(header, known);
    this.#known = known;
  }

  /** The chunks that are full, as far as the bytes go that are there. */
  async *chunks(): AsyncGenerator<Chunk> {
    while (!this.brokenOff) {
      const frame = this.#framer.next(MAX_RECORD_BYTES);
      if (!frame) return;
      const { line, bytes, end } = frame;
      const swallower = this.#swallower(frame);
      const isWhole = end === 'line' || end === 'file';
      const isPlain = isWhole && !swallower && !growsTooLarge(frame);
      if (isPlain && bytes.length <= MAX_IN_PORTION) {
        this.#filling.add(this.#digester, line, bytes, end === 'file');
        if (this.#filling.isFull) yield* this.#turn();
        continue;
      }
      yield* this.#sortAll();
      if (isPlain) yield* this.#sort([this.#digester.record(line, bytes, end === 'file')]);
      else if (swallower) this.#chunk.reject(line, SWALLOWS, repaired(swallower));
      else if (!isWhole) this.#breakOff(frame);
      else this.#chunk.reject(line, GROWS_TOO_LARGE, repaired(bytes.subarray(0, MAX_SHOWN_BYTES)));
    }
  }

  /** Asks for the portion that was filled, and sorts the one before it meanwhile. */
  async *#turn(): AsyncGenerator<Chunk> {
    this.#filling.ask(this.#known);
    const records = await this.#asked.take();
    for (let n = 0; n < records.length; n += GROUP_RECORDS) yield* this.#sort(records.slice(n, n + GROUP_RECORDS));
    [this.#filling, this.#asked] = [this.#asked, this.#filling];
  }

  async *#sortAll(): AsyncGenerator<Chunk> {
    yield* this.#turn();
    yield* this.#turn();
  }

  /** The first line of a record that swallows others, which are read anew. */
  #swallower(frame: Frame): Buffer | undefined {
    this.#swallowed.learn(frame);
    return frame.linesWithin > 0 && this.#swallowed.isIn(frame) ? this.#framer.splitFirstLine() : undefined;
  }

  *#sort(group: readonly FramedRecord[]): Generator<Chunk> {
    const unknown = group.filter(({ figures }) => figures === undefined);
    const texts = unknown.map(({ bytes }) => repaired(bytes));
    const parsed = fieldsOf(texts);
    let n = 0;
    for (const record of group) {
      const { line, bytes, isLast, digest, figures } = record;
      if (figures !== undefined) this.#chunk.countKnown(figures);
      else {
        const [text, fields] = [texts[n] as Buffer, parsed[n] as string[]];
        n += 1;
        if (isLast && fields.length < this.#header.names.length && !isSentinel(fields)) {
          const { length } = this.#header.names;
          this.#breaksOff(line, `the record on line ${line} ends after ${fields.length} of ${length} fields`);
          return;
        }
        this.#chunk.take({ line, bytes: text, isRepaired: text !== bytes, digest, fields });
      }
      if (this.#chunk.isFull) yield this.#chunk.release();
    }
  }

  #breakOff({ line, end }: Frame): void {
    this.#breaksOff(
      line,
      end === 'open'
        ? `a quote that opens in the record on line ${line} is never closed`
        : `the record that begins on line ${line} is larger than ${MAX_RECORD_BYTES / 1024 / 1024} MiB`,
    );
  }

  #breaksOff(line: number, reason: string): void {
    this.brokenOff = `The file breaks off: ${reason}. The rows before line ${line} are loaded, the rest is not.`;
  }

  /** What is left when nothing more is read. */
  async *rest(): AsyncGenerator<Chunk> {
    yield* this.#sortAll();
    yield this.#chunk.release();
  }

  ending(): Omit<Ending, 'sha256'> {
    return {
      brokenOff: this.brokenOff,
      columns: this.#header.names.filter((name) => name !== ''),
      values: this.#chunk.values,
      firstReject: this.#chunk.firstReject,
    };
  }
}

/** An invalid byte becomes three, of U+FFFD. */
const growsTooLarge = ({ bytes }: Frame) =>
  3 * bytes.length > MAX_RECORD_BYTES && repairedLength(bytes) > MAX_RECORD_BYTES;

const GROWS_TOO_LARGE = `with U+FFFD in place of its invalid bytes it is larger than ${MAX_RECORD_BYTES / 1024 / 1024} MiB`;
const SWALLOWS = 'a quote that opens in it is not closed before the records behind it begin';
