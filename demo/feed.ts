/**
 * The n8n export, synthetic: hourly full CSVs with everything that the real ones have (alarms, the sentinel, rejects, duplicates, bad bytes,
 * a byte-identical hour), and beside each the tickets and the counts that a right load must arrive at.
 * Pure: the same options give the same bytes.
 */
import { Readable } from 'node:stream';
import { Dice, hash } from './chance.ts';
import { again, badByte, type Expected, load } from './expected.ts';
import type { Place } from './places.ts';
import { changes, columns, csvLine, eat, type Raw, type Ticket, ticket, ticketLine } from './ticket.ts';

type FeedOptions = {
  seed?: number;
  /** How many files; the third repeats the second byte for byte. */
  hours?: number;
  /** Tickets in the first file. */
  tickets?: number;
  /** Share of the first file's tickets that are open. */
  openShare?: number;
  /** Share of the tickets that changes from one file to the next (at least one of each kind of change); half as many are new. */
  changeShare?: number;
  /** Time of the first file. */
  start?: Date;
};

export type Snapshot = {
  /** The object's name without prefix: its time in EAT. */
  name: string;
  at: Date;
  csv: Buffer;
  expected: Expected;
  /** `tickets.inc.raw` by ticket_id, of all tickets, once this file and all before it are loaded. */
  tickets: ReadonlyMap<string, Raw>;
  /** Where each ticket truly lies; null where its location_name names no place. */
  places: ReadonlyMap<string, Place | null>;
};

/** 07:00 in Nairobi. */
const defaultStart = new Date('2026-06-15T07:00:00+03:00');
const hour = 3_600_000;

/** The files, oldest first. */
export function* feed(options: FeedOptions = {}): Generator<Snapshot> {
  const { seed = 1, hours = 6, tickets = 3000, openShare = 0.25, changeShare = 0.02, start = defaultStart } = options;
  const listed = new Map<string, Ticket>();
  const loaded = new Map<string, Raw>();
  const places = new Map<string, Place | null>();
  let last: Snapshot | undefined;
  let made = 0;
  for (let n = 0; n < hours; n++) {
    const at = start.getTime() + n * hour;
    const when = { name: `${eat(at).replace(' ', 'T').replaceAll(':', '-')}.csv`, at: new Date(at) };
    if (n === 2 && last) {
      last = { ...last, ...when, expected: again(last.expected) };
      yield last;
      continue;
    }
    const dice = new Dice(hash(seed, 'hour', n));
    const count = n === 0 ? tickets : Math.ceil((tickets * changeShare) / 2);
    if (n > 0) alter(listed, at, Math.round(tickets * changeShare), dice);
    for (let i = 0; i < count; i++, made++) {
      const newcomer = ticket(seed, made, at, n === 0 ? openShare : 0.9, n > 0);
      listed.set(newcomer.raw.ticket_id as string, made < 2 ? damaged(newcomer, made) : newcomer);
    }
    const expected = load(listed, loaded);
    for (const [id, { place }] of listed) places.set(id, place);
    const { csv, noise } = file(listed, at, n, dice);
    last = {
      ...when,
      csv,
      expected: { ...expected, ...noise },
      tickets: new Map(loaded),
      places: new Map(places),
    };
    yield last;
  }
}

/** The first ticket has a NUL in it, the second a byte that is no UTF-8. */
function damaged({ raw, place }: Ticket, i: number): Ticket {
  return { raw: { ...raw, description: `line ${i === 0 ? '\0' : badByte} noise` }, place };
}

/** Changes `count` tickets, every kind of change at least once, and takes one open ticket off the list, as the source at times does. */
function alter(listed: Map<string, Ticket>, at: number, count: number, dice: Dice): void {
  const kinds = Object.keys(changes) as (keyof typeof changes)[];
  const ids = [...listed.keys()].slice(2);
  const untouched = (open: boolean) => {
    for (let tries = 0; tries < 100_000 && ids.length > 0; tries++) {
      const index = dice.below(ids.length);
      const id = ids[index] as string;
      if ((listed.get(id)?.raw.is_actionable === 'true') !== open) continue;
      ids[index] = ids.at(-1) as string;
      ids.pop();
      return id;
    }
    throw new Error(
      `the feed has too few ${open ? 'open' : 'closed'} tickets for its changes: ask for more tickets or fewer changes`,
    );
  };
  for (let i = 0; i < Math.max(count, kinds.length); i++) {
    const kind = kinds[i % kinds.length] as keyof typeof changes;
    const id = untouched(kind !== 'reopen');
    listed.set(id, changes[kind](listed.get(id) as Ticket, at, dice));
  }
  listed.delete(untouched(true));
}

type Line = { text: string; what?: 'alarm' | 'duplicate' | 'sentinel' | Reject };
type Reject = Expected['rejects'][number]['reason'];

/**
 * The file of hour `n`, and what it adds to the counts. Every second file has a byte-order mark and CRLF.
 * The sentinel stands last, first or in the middle, by turns.
 */
function file(listed: ReadonlyMap<string, Ticket>, at: number, n: number, dice: Dice) {
  const lines: Line[] = [...listed.values()].map(({ raw }) => ({
    text: ticketLine({ ...raw, source_snapshot_id: String(at / hour) }),
  }));
  for (const line of older(listed)) {
    const id = line.text.slice(1, line.text.indexOf(' ', 1));
    lines.splice(dice.below(lines.findIndex(({ text }) => text.startsWith(id)) + 1), 0, line);
  }
  for (const line of [...alarms(listed.size, at), ...rejects(at)]) lines.splice(dice.below(lines.length + 1), 0, line);
  const sentinel: Line = { text: 'EXPORT STOPPED: row limit of the source reached,,', what: 'sentinel' };
  lines.splice([lines.length, 0, lines.length >> 1][n % 3] as number, 0, sentinel);

  const found: Expected['rejects'] = [];
  let line = 2;
  for (const { text, what } of lines) {
    if (what === 'field count' || what === 'no ticket_id') found.push({ line, reason: what });
    line += text.split('\n').length;
  }
  const count = (what: Line['what']) => lines.filter((l) => l.what === what).length;
  const noise = {
    rows_read: lines.length,
    rows_dropped_alarm: count('alarm'),
    rows_dropped_sentinel: count('sentinel'),
    rows_duplicate: count('duplicate'),
    rows_rejected: found.length,
    rejects: found,
  };
  const text = [columns.join(','), ...lines.map((l) => l.text), ''].join(n % 2 === 0 ? '\n' : '\r\n');
  return { csv: withBadBytes(n % 2 === 0 ? text : `\ufeff${text}`), noise };
}

/** Older states of a few tickets, their ids not trimmed: each must stand before the true line. */
function older(listed: ReadonlyMap<string, Ticket>): Line[] {
  return [...listed.values()].slice(2, 2 + Math.ceil(listed.size / 1000)).map(({ raw }) => ({
    text: ticketLine({ ...raw, ticket_id: ` ${raw.ticket_id} `, assigned_team: 'Outdated' }),
    what: 'duplicate',
  }));
}

/** Two per cent of the rows. */
function alarms(tickets: number, at: number): Line[] {
  return Array.from({ length: Math.ceil(tickets / 50) }, (_, i) => {
    const { raw } = ticket(hash(at, 'alarm'), i, at, 0.5);
    const is_alarm = i % 2 === 0 ? 'true' : 'True';
    return { text: ticketLine({ ...raw, ticket_id: `ALM${100_000 + i}`, is_alarm }), what: 'alarm' };
  });
}

/** Too few fields, too many, and no ticket_id in two ways. */
function rejects(at: number): Line[] {
  const { raw } = ticket(hash(at, 'reject'), 0, at, 0.5);
  const [, ...fields] = columns.map((column) => raw[column] ?? '');
  return [
    { text: csvLine(['WOT0200000', ...fields.slice(0, 11)]), what: 'field count' },
    { text: csvLine(['WOT0200001', ...fields, 'one', 'too many']), what: 'field count' },
    { text: csvLine(['', ...fields]), what: 'no ticket_id' },
    { text: csvLine(['   ', ...fields]), what: 'no ticket_id' },
  ];
}

/** UTF-8, but with the byte FF for every `badByte`. */
function withBadBytes(text: string): Buffer {
  const parts = text
    .split(badByte)
    .flatMap((part, i) => (i === 0 ? [Buffer.from(part)] : [Buffer.of(0xff), Buffer.from(part)]));
  return Buffer.concat(parts);
}

type BigCsvOptions = {
  tickets: number;
  seed?: number;
  openShare?: number;
  /** Exactly so many tickets, spread evenly, differ from those of the same seed with 0. */
  changed?: number;
  /** Time of the file. */
  at?: Date;
  /** Number that the export writes into every row (source_snapshot_id, which cleaning drops). */
  snapshot?: number;
};

/** One clean file of any size (about 340 bytes a row, 33 columns) as a stream that holds a few hundred rows at a time. */
export function bigCsv({
  tickets,
  seed = 1,
  openShare = 0.04,
  changed = 0,
  snapshot = 0,
  at = defaultStart,
}: BigCsvOptions): Readable {
  const time = at.getTime();
  function* chunks() {
    let chunk = `${columns.join(',')}\n`;
    for (let i = 0; i < tickets; i++) {
      const base = ticket(seed, i, time, openShare);
      const differs = Math.floor(((i + 1) * changed) / tickets) > Math.floor((i * changed) / tickets);
      const { raw } = differs ? changes.team(base, time, new Dice(i)) : base;
      chunk += `${ticketLine({ ...raw, source_snapshot_id: String(snapshot) })}\n`;
      if (chunk.length > 65_536) {
        yield Buffer.from(chunk);
        chunk = '';
      }
    }
    yield Buffer.from(chunk);
  }
  return Readable.from(chunks(), { objectMode: false });
}
