/** Random files of tickets as no feed should write them, most of whose records stand in the file before as well. */
import fc from 'fast-check';

/** Some columns are dropped: one in which the files differ (@), the first one, and one that holds any text. */
const HEADERS = [
  'ticket_id,is_actionable,is_alarm,normalized_status,mttr,source_snapshot_id,description',
  'ticket_id,is_actionable,is_alarm,normalized_status,mttr,source_snapshot_id,description,owner',
  'is_actionable,ticket_id,is_alarm,normalized_status,mttr,source_snapshot_id,description',
  'source_type,is_actionable,is_alarm,normalized_status,mttr,source_snapshot_id,ticket_id',
  'ticket_id,is_alarm,is_alarm,normalized_status,mttr,source_snapshot_id,week_start',
  '"ticket_id",is_actionable,is_alarm,normalized_status,,source_s3_key,description',
];

/** Mostly what a feed has, at times what it should not have. */
const mostly = (usual: readonly string[], odd: readonly string[]) =>
  fc.oneof({ weight: 6, arbitrary: fc.constantFrom(...usual) }, { weight: 1, arbitrary: fc.constantFrom(...odd) });

const id = mostly(
  ['WOT1', 'WOT2', 'WOT3', 'WOT4'],
  [' WOT1 ', '"WOT2"', '\u200bWOT3', 'AB-7', '', 'ticket_id', 'WOT\u00001'],
);
const flag = mostly(['true', 'false'], ['TRUE', ' f', '1', '', 'maybe']);
const alarm = mostly(['false', ''], ['true']);
const status = mostly(['Open', 'Closed', '"On Hold"'], ['', 'a""b', 'ü']);
const hours = mostly(['1.5', ''], ['x', ' 2', '9'.repeat(50)]);
const dropped = mostly(['@', '@', '"@"'], ['', 'a"@', '"@" "', '"a,@"', 'ü@', '\0@']);
const text = mostly(
  [
    '',
    'plain',
    '"quoted, with a comma"',
    '"says ""so"""',
    '"two\nlines"',
    '"two\r\nlines, and ""quotes"""',
    'stray " quote',
  ],
  [
    '"closed" astray',
    'NUL \0 in it',
    '\ufeff',
    '"a line\nWOT8,true,false,Open,1,@,inside"',
    `"${'long '.repeat(15_000)}"`,
    'long '.repeat(15_000),
  ],
);

const record = fc.tuple(id, flag, alarm, status, hours, dropped, text).map((fields) => Buffer.from(fields.join(',')));
const oddity = fc
  .constantFrom(
    'EXPORT STOPPED: row limit',
    'EXPORT STOPPED,,,,,,',
    'WOT1,true',
    'WOT2,true,false,Open,1,@,a,b,c,d',
    ',,,,,,',
    '',
    '"',
    'WOT4,true,false,Open,1,@,"swallows',
    'WOT5,"true,false,Open,1,swallows"',
    'WOT1,true,false,Open,1,@,\xff\xfe',
    'WOT1,true,false,Open,1,\xff,bad',
    'WOT3,false,false,Cl\xc3,1,@,bad',
    '\r',
  )
  .map((line) => Buffer.from(line, 'latin1'));

const line = fc.oneof({ weight: 12, arbitrary: record }, { weight: 1, arbitrary: oddity });
const lineEnd = fc.constantFrom('\n', '\n', '\n', '\r\n', '\n\n');

/**
 * Files that follow each other: they share lines but for the number of the file, and most of them the header.
 * @param count how many
 */
export const filesInARow = (count: number): fc.Arbitrary<Buffer[]> =>
  fc
    .record({
      lines: fc.array(line, { minLength: 4, maxLength: 10 }),
      header: fc.nat(HEADERS.length - 1),
      files: fc.array(
        fc.record({
          mark: fc.constantFrom('', '', '\ufeff'),
          otherHeader: fc.oneof({ weight: 5, arbitrary: fc.constant(undefined) }, fc.nat(HEADERS.length - 1)),
          picks: fc.array(fc.tuple(fc.nat(9), lineEnd), { minLength: 3, maxLength: 14 }),
          fresh: fc.array(fc.tuple(fc.nat(14), line), { maxLength: 2 }),
          end: fc.constantFrom('\n', '\n', ''),
        }),
        { minLength: count, maxLength: count },
      ),
    })
    .map(({ lines, header, files }) =>
      files.map(({ mark, otherHeader, picks, fresh, end }, file) => {
        const body: Buffer[] = picks.flatMap(([pick, ending], n) => [
          ...fresh.filter(([at]) => at === n).flatMap(([, one]) => [one, Buffer.from('\n')]),
          lines[pick % lines.length] as Buffer,
          Buffer.from(n === picks.length - 1 ? end : ending),
        ]);
        const whole = Buffer.concat([Buffer.from(`${mark}${HEADERS[otherHeader ?? header]}\n`), ...body]);
        return Buffer.from(whole.toString('latin1').replaceAll('@', `${file}`), 'latin1');
      }),
    );
