/**
 * Cleaning: the fields of one record become a ticket, or the reason why they do not. Pure. Alarms and sentinels are dropped;
 * what makes a record one is decided here, and values.ts has the words that mean yes in any flag.
 * What is kept stays as the file has it; an empty field stays "".
 */
import type { Header } from './header.ts';
import { visible } from './text.ts';
import { isNoValue, toBoolean } from './values.ts';

/**
 * Version of the rules below, and of the reading before them. A change that makes another ticket of the same bytes, or other
 * figures (values.ts), raises it: then the newest file is loaded once more, though its bytes are those of the last load, and
 * no digest fits.
 */
export const CLEANING_VERSION = 1;

/** The export's own bookkeeping of where its rows came from: it changes hourly and says nothing about the ticket. */
const DROPPED = /^(week_start|week_end|source_s3_.*|source_snapshot_id|department|source_type)$/;
export const isDropped = (name: string) => DROPPED.test(name);

/** Characters. Longer ids break the B-tree of the primary key (2704 bytes an entry); real ones have ten characters. */
const MAX_TICKET_ID = 200;
/** With what is invisible, and blanks: more is not even looked through. */
const MAX_ID_FIELD = 1_000;

/** Characters of a ticket's JSON. A record becomes larger than it was only where control characters are escaped. */
const MAX_RAW = 8 * 1024 * 1024;

/** Characters before it are written as \\u0000 in JSON, or as \\n and the like. */
const FIRST_PRINTABLE = 32;

export type CleanRecord =
  | { readonly kind: 'ticket'; readonly ticketId: string; readonly raw: string }
  | { readonly kind: 'alarm' }
  | { readonly kind: 'sentinel' }
  | { readonly kind: 'reject'; readonly reason: string };

export type Cleaner = (fields: readonly string[]) => CleanRecord;

/** The row with which the export says that it broke off: it may have fewer fields than the header. */
export const isSentinel = (fields: readonly string[]) => /^\s*EXPORT STOPPED/i.test(fields[0] ?? '');

/**
 * The function that cleans the records below a header. The `raw` of a ticket is JSON as Postgres writes a jsonb: the
 * shorter keys first, `": "` and `", "` between. So Postgres has nothing to sort.
 */
export function cleanerFor({ names, idColumn }: Header): Cleaner {
  const alarmColumn = names.indexOf('is_alarm');
  const members = names
    .map((name, column) => ({ name, column }))
    .filter(({ name }) => name !== '' && !isDropped(name))
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
    if (alarmColumn >= 0 && toBoolean(fields[alarmColumn] ?? '')) return { kind: 'alarm' };
    const id = fields[idColumn] ?? '';
    const ticketId = visible(id.slice(0, MAX_ID_FIELD));
    if (id.length > MAX_ID_FIELD || ticketId.length > MAX_TICKET_ID) {
      return { kind: 'reject', reason: `ticket_id is longer than ${MAX_TICKET_ID} characters` };
    }
    if (ticketId === '' || isNoValue(ticketId)) return { kind: 'reject', reason: 'no ticket_id' };
    if (ticketId.toLowerCase() === 'ticket_id') return { kind: 'reject', reason: 'it repeats the header' };
    if (isTooLarge(fields)) return { kind: 'reject', reason: `its JSON is larger than ${MAX_RAW / 1024 / 1024} MiB` };
    // Joined, not added up: a text of a hundred parts that lives as long as its chunk is costly to collect.
    const parts = members.map(({ before, column, text }) => before + escaped(text(fields[column] ?? '')));
    parts.push('"}');
    return { kind: 'ticket', ticketId, raw: parts.join('') };
  };
}

function textOf(name: string): (value: string) => string {
  if (name === 'ticket_id') return visible;
  if (name === 'region') return (value) => value.toLowerCase();
  if (name === 'raw_status') return (value) => value.toUpperCase();
  return (value) => value;
}

/** Asked before it is made, because six times as many characters can come of a record. */
function isTooLarge(fields: readonly string[]): boolean {
  let size = 0;
  for (const field of fields) size += field.length;
  if (6 * size <= MAX_RAW) return false;
  for (const field of fields) {
    for (let at = 0; at < field.length; at += 1) if (field.charCodeAt(at) < FIRST_PRINTABLE) size += 5;
  }
  return size > MAX_RAW;
}

/** jsonb sorts its keys by their length in bytes, then by their bytes. */
function byJsonbOrder(a: string, b: string): number {
  return Buffer.byteLength(a) - Buffer.byteLength(b) || Buffer.compare(Buffer.from(a), Buffer.from(b));
}

/** The inside of a string of JSON; most texts hold nothing that must be escaped. */
const escaped = (text: string) => (/["\\\p{Cc}]/u.test(text) ? JSON.stringify(text).slice(1, -1) : text);
