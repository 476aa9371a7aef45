/** Chunks: what a file's records become, in portions that are bounded by their own size, not by the bytes they came from. */
import { type Cleaner, cleanerFor } from './clean.ts';
import type { Header } from './header.ts';
import { MAX_REJECTS_KEPT, type Reject, rejectText } from './rejects.ts';
import { REPAIRED, ValueCounter, type Values } from './values.ts';

export interface TicketRow {
  /** Line of the file on which the record begins, from 1. */
  readonly line: number;
  readonly ticket_id: string;
  /** Of the record, by which it is known when it comes again: see digests.ts. */
  readonly digest: string;
  /** Of the record, as digits: see values.ts. */
  readonly figures: number;
  /** The cleaned record: JSON, as Postgres writes a jsonb. */
  readonly raw: string;
}

export interface Counts {
  read: number;
  alarms: number;
  sentinels: number;
  /** Earlier lines of a ticket id that stands again in the same chunk; across chunks the database counts. */
  duplicates: number;
  /** All of them, kept or not. */
  rejected: number;
  /** Rows that hold U+FFFD in place of a NUL or of bytes that are no UTF-8. */
  repaired: number;
}

export const noCounts = (): Counts => ({ read: 0, alarms: 0, sentinels: 0, duplicates: 0, rejected: 0, repaired: 0 });

export function addCounts(sum: Counts, counts: Readonly<Counts>): void {
  for (const name of Object.keys(counts) as (keyof Counts)[]) sum[name] += counts[name];
}

export interface Chunk {
  /** Of the records that are not known. At most one row per ticket id: the last. */
  readonly rows: readonly TicketRow[];
  /** Of a whole file only the first 10 000. */
  readonly rejects: readonly Reject[];
  readonly counts: Readonly<Counts>;
  /** Whether its size made it full, not the number of its rows: as large as a chunk may be. */
  readonly isLarge: boolean;
}

/** Rows in a chunk: measured, 1 000 take a tenth longer, and 4 000 only more memory. */
export const CHUNK_ROWS = 2_000;
/** Characters of a chunk's rows and rejects, after which it is full however few they are. */
export const CHUNK_SIZE = 2 * 1024 * 1024;
/** Characters of one row, after which the chunk is full: of rows of megabytes it holds one. */
const LARGE_ROW = 256 * 1024;

/** Records after which a chunk is full though none of them makes a row: so that reading tells how far it is. */
const CHUNK_RECORDS = 20_000;

/** A record between framing and cleaning. */
interface ReadRecord {
  readonly line: number;
  /** In valid UTF-8. */
  readonly bytes: Buffer;
  readonly isRepaired: boolean;
  /** Of the bytes as they stand in the file. */
  readonly digest: string;
  readonly fields: readonly string[];
}

/** Why most of a file may be rejected: the reason of its first reject, and how many have the same. */
export interface FirstReject {
  readonly reason: string;
  readonly line: number;
  count: number;
}

/** Sorts records into the chunk being filled. */
export class ChunkBuilder {
  firstReject: FirstReject | undefined;
  readonly #clean: Cleaner;
  readonly #values: ValueCounter;
  #rows = new Map<string, TicketRow>();
  #rejects: Reject[] = [];
  #kept = 0;
  #counts = noCounts();
  #size = 0;
  #largest = 0;

  /** @param sentinels that stand before the header */
  constructor(header: Header, sentinels: number) {
    this.#clean = cleanerFor(header);
    this.#values = new ValueCounter(header);
    this.#counts.read = sentinels;
    this.#counts.sentinels = sentinels;
  }

  get isFull(): boolean {
    return this.#isLarge || this.#rows.size >= CHUNK_ROWS || this.#counts.read >= CHUNK_RECORDS;
  }

  get #isLarge(): boolean {
    return this.#size >= CHUNK_SIZE || this.#largest >= LARGE_ROW;
  }

  /** Of all tickets so far. */
  get values(): Readonly<Record<string, Values>> {
    return this.#values.values;
  }

  /** Takes a record that is a ticket, an alarm, a sentinel, or none of them. */
  take({ line, bytes, isRepaired, digest, fields }: ReadRecord): void {
    const record = this.#clean(fields);
    if (record.kind === 'reject') {
      this.reject(line, record.reason, bytes);
      return;
    }
    this.#counts.read += 1;
    if (record.kind === 'alarm') this.#counts.alarms += 1;
    else if (record.kind === 'sentinel') this.#counts.sentinels += 1;
    else {
      const figures = this.#values.figuresOf(fields) + (isRepaired ? REPAIRED : 0);
      this.#count(figures);
      this.#keep({ line, ticket_id: record.ticketId, digest, figures, raw: record.raw });
    }
  }

  /** Counts a record that is known: it is that of a ticket, with these figures, and makes no row. */
  countKnown(figures: number): void {
    this.#counts.read += 1;
    this.#count(figures);
  }

  #count(figures: number): void {
    this.#values.count(figures);
    if (figures >= REPAIRED) this.#counts.repaired += 1;
  }

  #keep(row: TicketRow): void {
    if (this.#rows.delete(row.ticket_id)) this.#counts.duplicates += 1;
    this.#rows.set(row.ticket_id, row);
    this.#size += row.ticket_id.length + row.raw.length;
    this.#largest = Math.max(this.#largest, row.raw.length);
  }

  reject(line: number, reason: string, bytes: Buffer): void {
    this.#counts.read += 1;
    this.#counts.rejected += 1;
    this.firstReject ??= { reason, line, count: 0 };
    if (reason === this.firstReject.reason) this.firstReject.count += 1;
    if (this.#kept === MAX_REJECTS_KEPT) return;
    this.#kept += 1;
    const text = rejectText(bytes);
    this.#rejects.push({ line, reason, text });
    this.#size += reason.length + text.length;
  }

  /** The chunk; another begins. */
  release(): Chunk {
    const chunk = {
      rows: [...this.#rows.values()],
      rejects: this.#rejects,
      counts: this.#counts,
      isLarge: this.#isLarge,
    };
    this.#rows = new Map();
    this.#rejects = [];
    this.#counts = noCounts();
    this.#size = 0;
    this.#largest = 0;
    return chunk;
  }
}
