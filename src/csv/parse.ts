/** Parsing: framed records become fields. */
import { parse } from 'csv-parse/sync';
import { closingQuote } from './framing.ts';

const LINE_FEED = Buffer.from('\n');
const QUOTE = 34;
const COMMA = 44;
/** Bytes from which on a record is cut here: csv-parse builds a field byte by byte, and a copy of each of its buffers stays. */
const ENORMOUS = 256 * 1024;

/**
 * The fields of each record. One without a quote is cut at its commas; the others go through csv-parse, all at once,
 * because a call costs more than a record.
 * @param records framed, in valid UTF-8; none of them empty
 * @param enormous bytes from which on a record with quotes is cut here as well
 */
export function fieldsOf(records: readonly Buffer[], enormous: number = ENORMOUS): string[][] {
  const quoted = records.filter((record) => record.length < enormous && record.includes(QUOTE));
  const parsed = quoted.length > 0 ? parseQuoted(quoted) : [];
  if (parsed.length !== quoted.length) {
    throw new Error(`csv-parse finds ${parsed.length} records where ${quoted.length} are: the framing is wrong`);
  }
  let n = 0;
  return records.map((record) => {
    if (!record.includes(QUOTE)) return record.toString().split(',');
    return record.length < enormous ? (parsed[n++] as string[]) : cut(record);
  });
}

function parseQuoted(records: readonly Buffer[]): string[][] {
  const lines = records.flatMap((record) => [record, LINE_FEED]);
  return parse(Buffer.concat(lines), {
    record_delimiter: '\n',
    relax_column_count: true,
    // A stray quote inside an unquoted field is text, and spoils no other row.
    relax_quotes: true,
  });
}

/** As csv-parse does it: where text stands behind the quote that closes a field, its quotes are text. */
function cut(record: Buffer): string[] {
  const fields: string[] = [];
  for (let from = 0; from <= record.length; ) {
    const close = record[from] === QUOTE ? closingQuote(record, from, record.length) : undefined;
    const comma = record.indexOf(COMMA, close ?? from);
    const end = comma < 0 ? record.length : comma;
    if (close === undefined) fields.push(record.toString('utf8', from, end));
    else {
      const text = undoubled(record, from + 1, close);
      const behind = record.toString('utf8', close + 1, end);
      fields.push(behind === '' ? text : `"${text}"${behind}`);
    }
    from = end + 1;
  }
  return fields;
}

/** The text between the quotes around a field, in which quotes are doubled. */
function undoubled(record: Buffer, from: number, to: number): string {
  const text = Buffer.allocUnsafeSlow(to - from);
  let length = 0;
  for (let at = from; at < to; at += 1) {
    text[length] = record[at] as number;
    length += 1;
    if (record[at] === QUOTE) at += 1;
  }
  return text.toString('utf8', 0, length);
}
