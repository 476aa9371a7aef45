/**
 * Values of the typed columns: whether a text reads as the generated columns of tickets.inc read it (migrations/fixtures/tickets/values.sql). Nothing
 * is converted here; a file's figures tell whether a column has stopped to make sense. A test holds both against each other.
 */
import type { Header } from './header.ts';

/** The code of a blank; the other characters that are trimmed come before it. */
const BLANK = 32;

/** Without the blanks around it that btrim() takes off there; most texts have none. */
const trimmed = (text: string) =>
  text.charCodeAt(0) > BLANK && text.charCodeAt(text.length - 1) > BLANK
    ? text
    : text.replace(/^[ \t\r\n]+|[ \t\r\n]+$/g, '');

const TRUE = new Set(['true', 't', 'yes', 'y', '1', '1.0']);
const FALSE = new Set(['false', 'f', 'no', 'n', '0', '0.0']);

/** As tickets.to_boolean() reads it; undefined for what is neither. */
export function toBoolean(text: string): boolean | undefined {
  const word = text === 'true' || text === 'false' ? text : trimmed(text).toLowerCase();
  return TRUE.has(word) ? true : FALSE.has(word) ? false : undefined;
}

const DATE = '(?:19[0-9][0-9]|20[0-9][0-9]|2100)-(?:0[1-9]|1[0-2])-(?:0[1-9]|[12][0-9]|3[01])';
const CLOCK = '(?:[01][0-9]|2[0-3]):[0-5][0-9]';
const OFFSET = ' ?(?:Z|[+-](?:0[0-9]|1[0-5])(?::?[0-5][0-9])?)';
const TIME = new RegExp(`^${DATE}(?:[ T]${CLOCK}(?::[0-5][0-9](?:\\.[0-9]{1,6})?)?(?:${OFFSET})?)?$`);

/** As tickets.eat_ts() reads it. */
function isTime(text: string): boolean {
  const time = text.length <= 64 ? trimmed(text) : '';
  if (!TIME.test(time)) return false;
  const day = Number(time.slice(8, 10));
  if (day <= 28) return true;
  const [year, month] = [Number(time.slice(0, 4)), Number(time.slice(5, 7))];
  const leap = year % 4 === 0 && year !== 1900 && year !== 2100;
  return day <= (month === 2 ? (leap ? 29 : 28) : [4, 6, 9, 11].includes(month) ? 30 : 31);
}

/** As tickets.hours_to_minutes() reads it. */
function isHours(text: string): boolean {
  const hours = trimmed(text);
  return hours.length <= 40 && /^[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)$/.test(hours);
}

/** As tickets.to_degrees() reads it. */
function isDegrees(text: string): boolean {
  const degrees = trimmed(text);
  return degrees.length <= 40 && /^[+-]?[0-9]{1,3}(?:\.[0-9]*)?$/.test(degrees);
}

/** What programs write where they have no value. */
const NO_VALUE = /^(?:null|undefined|nan|none|n\/a|#n\/a|\[object object\])$/i;

/** Whether a text only says that there is none. */
export const isNoValue = (text: string) => text.length <= 20 && NO_VALUE.test(trimmed(text));

/** Of a text, what is there reads, unless it says that nothing is. */
const isSaid = (text: string) => !isNoValue(text);

/** The columns whose values are counted: the typed ones, and texts without which tickets lose their place or their team. */
export const COUNTED_COLUMNS: Readonly<Record<string, (text: string) => boolean>> = {
  normalized_status: isSaid,
  raw_status: isSaid,
  cluster: isSaid,
  region: isSaid,
  location_name: isSaid,
  assigned_team: isSaid,
  is_actionable: (text) => toBoolean(text) !== undefined,
  mttr: isHours,
  created_at_service: isTime,
  scheduled_at: isTime,
  closed_at: isTime,
  first_seen_at: isTime,
  last_seen_at: isTime,
  source_created_at: isTime,
  source_updated_at: isTime,
  latitude: isDegrees,
  longitude: isDegrees,
};

/** A ticket's figures: a digit in base 3 for each counted column, in that order, and one for the record as a whole. */
const FILLED = 1;
const READS = 2;
export const REPAIRED = 3 ** Object.keys(COUNTED_COLUMNS).length;

/** Of a counted column: the tickets that have a value there, and those whose value reads. */
export interface Values {
  filled: number;
  read: number;
}

/** Counts the values of one ticket after the other, for the counted columns that the header has. */
export class ValueCounter {
  readonly #columns: readonly {
    name: string;
    column: number;
    reads: (text: string) => boolean;
    place: number;
    values: Values;
  }[];

  constructor({ names }: Header) {
    this.#columns = Object.entries(COUNTED_COLUMNS)
      .map(([name, reads], n) => {
        return { name, column: names.indexOf(name), reads, place: 3 ** n, values: { filled: 0, read: 0 } };
      })
      .filter(({ column }) => column >= 0);
  }

  /** Which values of a ticket are filled, and which of them read, as digits. They follow from its record and the header. */
  figuresOf(fields: readonly string[]): number {
    let figures = 0;
    for (const { column, reads, place } of this.#columns) {
      const text = fields[column] ?? '';
      if (text === '' || trimmed(text) === '') continue;
      figures += place * (reads(text) ? READS : FILLED);
    }
    return figures;
  }

  count(figures: number): void {
    for (const { place, values } of this.#columns) {
      const digit = Math.floor(figures / place) % 3;
      if (digit >= FILLED) values.filled += 1;
      if (digit === READS) values.read += 1;
    }
  }

  /** What was counted so far, by column. */
  get values(): Readonly<Record<string, Values>> {
    return Object.fromEntries(this.#columns.map(({ name, values }) => [name, values]));
  }
}
