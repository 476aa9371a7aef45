/** Files that are made to be expensive: what they become is far more than their bytes, or costs far more to look at. */

const HEADERS = {
  plain: 'ticket_id,is_actionable,is_alarm,normalized_status,location_name,description',
  /** As many names, and as long, as are read: a row of commas becomes 64 KiB. */
  widest: ['ticket_id', ...Array.from({ length: 999 }, (_, n) => `column_${n}_${'n'.repeat(53)}`)].join(','),
  narrow: 'ticket_id',
  'id last': 'description,is_alarm,ticket_id',
} as const;

/** The same text over and over, whole. */
const flood = (text: string, bytes: number) => {
  const length = Buffer.byteLength(text);
  return Buffer.alloc(Math.max(0, bytes - (bytes % length)), text);
};

/** What stands below a header of so many columns, in so many bytes. */
const BODIES: Record<string, (columns: number, bytes: number) => Buffer> = {
  'ragged rows': (_, bytes) => flood(',\n', bytes),
  'rows of commas': (columns, bytes) => {
    const rows: string[] = [];
    for (let size = 0; size < bytes; size += columns + 8) rows.push(`WOT${rows.length}${','.repeat(columns - 1)}\n`);
    return Buffer.from(rows.join(''));
  },
  'rejects of 64 KiB': (columns, bytes) => flood(`${'r'.repeat(65_000)}${','.repeat(columns)}\n`, bytes),
  'blank lines': (_, bytes) => flood('\n', bytes),
  'one line without an end': (_, bytes) => flood('x', bytes),
  'one line of commas': (_, bytes) => flood(',', bytes),
  'one line of quotes': (_, bytes) => flood('"', bytes),
  'lines of one quote': (_, bytes) => flood('"\n', bytes),
  'an open quote over plain lines': (_, bytes) => Buffer.concat([Buffer.from('"'), flood('some text\n', bytes)]),
  'an open quote over records': (columns, bytes) =>
    Buffer.concat([Buffer.from('WOT1,"'), flood(`WOT2${','.repeat(columns - 1)}\n`, bytes)]),
  'a field of many lines': (columns, bytes) =>
    Buffer.concat([
      Buffer.from('WOT1,"'),
      flood('WOT2,""a""\n', bytes / 2),
      Buffer.from(`"${','.repeat(Math.max(0, columns - 2))}\n`),
    ]),
  'fields of two lines, side by side': (_, bytes) => flood('"WOT1\nWOT2",', bytes),
  'fields of control characters': (columns, bytes) => bigFields('\u0001', columns, bytes),
  'fields of quotes': (columns, bytes) => bigFields('""', columns, bytes),
  'fields of wide characters': (columns, bytes) => bigFields('猫', columns, bytes),
  'fields of one wide character': (columns, bytes) => bigFields('x', columns, bytes, '猫'),
  'fields of invalid bytes': (columns, bytes) => bigFields(Buffer.from([0xff]), columns, bytes),
  'fields of NULs': (columns, bytes) => bigFields('\0', columns, bytes),
  'ids of every shape': (columns, bytes) => {
    const rows: string[] = [];
    for (let size = 0; size < bytes; size += columns + 20) {
      const shape = rows.length.toString(2).replaceAll('0', '-').replaceAll('1', '_');
      rows.push(`W${shape}${','.repeat(columns - 1)}\n`);
    }
    return Buffer.from(rows.join(''));
  },
  sentinels: (_, bytes) => flood('EXPORT STOPPED: row limit\n', bytes),
};

/** Rows of which one field takes up nearly all of a record. */
function bigFields(fill: string | Buffer, columns: number, bytes: number, first = ''): Buffer {
  const size = Math.min(2_090_000, bytes);
  const field = Buffer.alloc(size, fill).subarray(0, size - (size % Buffer.byteLength(fill)));
  const rest = Buffer.from(`"${columns > 1 ? ',"' : '\n'}`);
  const end = Buffer.from(`"${','.repeat(Math.max(0, columns - 2))}\n`);
  const rows: Buffer[] = [];
  for (let total = 0, n = 0; total < bytes; total += size, n += 1) {
    rows.push(
      Buffer.from(`"WOT${n}`),
      ...(columns > 1 ? [rest, Buffer.from(first), field, end] : [Buffer.from(first), field, Buffer.from('"\n')]),
    );
  }
  return Buffer.concat(rows);
}

export const HEADER_NAMES = Object.keys(HEADERS) as (keyof typeof HEADERS)[];
export const BODY_NAMES = Object.keys(BODIES);

/** A file of about so many bytes. */
export function hostileFile(header: keyof typeof HEADERS, body: string, bytes: number): Buffer {
  const names = HEADERS[header];
  return Buffer.concat([Buffer.from(`${names}\n`), BODIES[body]?.(names.split(',').length, bytes) ?? Buffer.alloc(0)]);
}

/** Files whose header alone is the trouble. */
export const HOSTILE_HEADERS: Record<string, () => Buffer> = {
  'a JSON array on one line': () => Buffer.from(`[${'{"ticket_id":"WOT1","mttr":""},'.repeat(250_000)}{}]`),
  'six thousand equal names': () => Buffer.from(`ticket_id,${'a,'.repeat(6_000)}a\nWOT1\n`),
  'names of 8 kB': () =>
    Buffer.from(
      `ticket_id,${Array.from({ length: 300 }, (_, n) => `${n}${'n'.repeat(8_000)}`)}\n${`WOT1${','.repeat(300)}\n`.repeat(3_000)}`,
    ),
  'sentinels before it': () => Buffer.concat([flood('EXPORT STOPPED\n', 8_000_000), Buffer.from('ticket_id\nWOT1\n')]),
  'an open quote in it': () => Buffer.concat([Buffer.from('ticket_id,"'), flood('some text\n', 8_000_000)]),
};
