/**
 * Cleaning: one CSV record becomes a ticket, or the reason why it does not. Pure.
 * What is kept stays as the file has it; an empty field stays "".
 */
import { ExpectedError } from '../settings/errors.ts';

/** Values that say yes, as tickets.to_boolean() reads them. */
const TRUE = new Set(['true', 't', 'yes', 'y', '1']);

/** The export's own bookkeeping of where its rows came from: it changes hourly and says nothing about the ticket. */
const DROPPED = /^(week_start|week_end|source_s3_.*|source_snapshot_id|department|source_type)$/;

/** Longer ids break the B-tree of the primary key (2704 bytes an entry); real ones have ten characters. */
export const MAX_TICKET_ID = 200;

export type CleanRecord =
  | { readonly kind: 'ticket'; readonly ticketId: string; readonly raw: string }
  | { readonly kind: 'alarm' }
  | { readonly kind: 'sentinel' }
  | { readonly kind: 'reject'; readonly reason: string };

/** A file that is no ticket CSV; the message says what it looks like instead. */
export class NotTicketCsvError extends ExpectedError {
  override name = 'NotTicketCsvError';
}

/** The row with which the export says that it broke off: it may have fewer fields than the header. */
export const isSentinel = (fields: readonly string[]) => /^\s*EXPORT STOPPED/i.test(fields[0] ?? '');

/**
 * Reads a header and gives the function that cleans the records below it. The `raw` of a ticket is JSON as Postgres
 * writes a jsonb: the shorter keys first, `": "` and `", "` between. So a digest of it can be compared with one of the
 * stored record, and most rows need not be sent, nor parsed again.
 * A column that stands twice is kept twice, the second as `name_2`.
 * @throws NotTicketCsvError when there is no ticket_id column
 */
export function cleanerFor(header: readonly string[]): (fields: readonly string[]) => CleanRecord {
  if (header.some((cell) => cell.includes('\r'))) {
    throw new NotTicketCsvError('No ticket CSV: its lines end in a lone carriage return; export it with LF or CRLF');
  }
  const names: string[] = [];
  for (const cell of header) {
    const name = cell.trim();
    let unique = name;
    for (let n = 2; names.includes(unique); n += 1) unique = `${name}_${n}`;
    names.push(name === '' ? '' : unique);
  }
  const idColumn = names.indexOf('ticket_id');
  if (idColumn < 0) throw new NotTicketCsvError(whatInstead(header));
  const alarmColumn = names.indexOf('is_alarm');
  const members = names
    .map((name, column) => ({ name, column }))
    .filter(({ name }) => name !== '' && !DROPPED.test(name))
    .sort((a, b) => byJsonbOrder(a.name, b.name))
    .map(({ name, column }, n) => ({
      before: `${n === 0 ? '{' : '", '}"${escaped(name)}": "`,
      column,
      text: textOf(name),
    }));

  return (fields) => {
    if (isSentinel(fields)) return { kind: 'sentinel' };
    if (fields.length !== names.length) {
      return { kind: 'reject', reason: `${fields.length} fields where the header has ${names.length}` };
    }
    if (alarmColumn >= 0 && TRUE.has((fields[alarmColumn] ?? '').trim().toLowerCase())) return { kind: 'alarm' };
    const ticketId = (fields[idColumn] ?? '').trim();
    if (ticketId === '') return { kind: 'reject', reason: 'no ticket_id' };
    if (ticketId.length > MAX_TICKET_ID) {
      return { kind: 'reject', reason: `ticket_id is longer than ${MAX_TICKET_ID} characters` };
    }
    const raw = members.map(({ before, column, text }) => before + escaped(text(fields[column] ?? '')));
    return { kind: 'ticket', ticketId, raw: `${raw.join('')}"}` };
  };
}

function textOf(name: string): (value: string) => string {
  if (name === 'ticket_id') return (value) => value.trim();
  if (name === 'region') return (value) => value.toLowerCase();
  if (name === 'raw_status') return (value) => value.toUpperCase();
  return (value) => value;
}

/** jsonb sorts its keys by their length in bytes, then by their bytes. */
function byJsonbOrder(a: string, b: string): number {
  return Buffer.byteLength(a) - Buffer.byteLength(b) || Buffer.compare(Buffer.from(a), Buffer.from(b));
}

/** The inside of a string of JSON; most texts hold nothing that must be escaped. */
const escaped = (text: string) => (/["\\\p{Cc}]/u.test(text) ? JSON.stringify(text).slice(1, -1) : text);

function whatInstead(header: readonly string[]): string {
  const start = JSON.stringify(header.join(',').slice(0, 80));
  if (/^\s*</.test(header[0] ?? '')) return `No ticket CSV: it is HTML or XML (${start})`;
  if (header.some((cell) => /(^|[;\t|])ticket_id([;\t|]|$)/.test(cell))) {
    return `No ticket CSV: the columns are not separated by commas (${start})`;
  }
  return `No ticket CSV: the header has no ticket_id column (${start})`;
}
