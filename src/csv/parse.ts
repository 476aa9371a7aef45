/** Parsing: framed records become fields. */
import { parse } from 'csv-parse/sync';

const LINE_FEED = Buffer.from('\n');
const QUOTE = 34;

/**
 * The fields of each record. One without a quote is cut at its commas; the others go through csv-parse, all at once,
 * because a call costs more than a record.
 * @param records framed, in valid UTF-8; none of them empty
 */
export function fieldsOf(records: readonly Buffer[]): string[][] {
  const quoted = records.filter((record) => record.includes(QUOTE));
  const parsed = quoted.length > 0 ? parseQuoted(quoted) : [];
  if (parsed.length !== quoted.length) {
    throw new Error(`csv-parse finds ${parsed.length} records where ${quoted.length} are: the framing is wrong`);
  }
  let n = 0;
  return records.map((record) => (record.includes(QUOTE) ? (parsed[n++] as string[]) : record.toString().split(',')));
}

function parseQuoted(records: readonly Buffer[]): string[][] {
  const [first] = records;
  const lines = () => Buffer.concat(records.flatMap((record) => [record, LINE_FEED]));
  return parse(first && records.length === 1 ? first : lines(), {
    record_delimiter: '\n',
    relax_column_count: true,
    // A stray quote inside an unquoted field is text, and spoils no other row.
    relax_quotes: true,
  });
}
