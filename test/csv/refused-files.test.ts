/** Files that are refused as a whole, with a reason that names what they are, and those that look odd and load. */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { gzipSync } from 'node:zlib';
import { gunzipped } from '../../src/csv/gunzip.ts';
import { RefusedFileError } from '../../src/csv/refused.ts';
import { descriptionsOf, linesOf, read } from '../support/read-csv.ts';

const HEADER = 'ticket_id,is_alarm,description';
const FILE = `${HEADER}\nWOT0000001,false,one\nWOT0000002,false,"two\nlines"\n`;
const LOADED = { WOT0000001: 'one', WOT0000002: 'two\nlines' };

describe('a file that is no ticket CSV is refused, and the reason says what it is', () => {
  const utf16 = (text: string) => Buffer.from(text, 'utf16le');
  const cases: Record<string, [file: string | Buffer, reason: RegExp]> = {
    empty: ['', /it is empty/],
    'nothing but blank lines': ['\n\n\r\n', /it has no header/],
    'nothing but a byte-order mark': ['\ufeff', /it is empty/],
    'nothing but the sentinel': ['EXPORT STOPPED: nothing there\n', /it has no header/],
    HTML: [
      '<!DOCTYPE html>\n<html><a href="x">502 Bad Gateway</a>\n</html>',
      /it is HTML or XML \("<!DOCTYPE html>"\)/,
    ],
    'HTML on one line with an odd quote': [`<html><p class="${'x'.repeat(70_000)}`, /it is HTML or XML/],
    XML: ['<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>', /it is HTML or XML/],
    'a JSON object': ['{"error": "quota"}', /it is JSON \("\{/],
    'a JSON array on one line': [`[${'{"ticket_id": "WOT0000001"},'.repeat(60_000)}{}]`, /it is JSON/],
    'a JSON array over lines': ['[\n  {\n    "ticket_id": "WOT0000001"\n  }\n]\n', /it is JSON/],
    gzip: [gzipSync(FILE), /it is compressed with gzip.*\.csv\.gz/],
    'an Excel workbook': [Buffer.from('PK\x03\x04\x14\x00\x06\x00', 'latin1'), /an Excel workbook \(\.xlsx\)/],
    'an old Excel workbook': [Buffer.from([0xd0, 0xcf, 0x11, 0xe0, 0xa1]), /an Excel workbook \(\.xls\)/],
    PDF: ['%PDF-1.7\n', /it is a PDF/],
    'UTF-16, little-endian': [utf16(`\ufeff${FILE}`), /it is UTF-16 text: export it as UTF-8/],
    'UTF-16, big-endian': [utf16(`\ufeff${FILE}`).swap16(), /it is UTF-16 text: export it as UTF-8/],
    'UTF-16 without a mark': [utf16(FILE), /it is UTF-16 text without a byte-order mark/],
    'UTF-16 without a mark, big-endian': [utf16(FILE).swap16(), /it is UTF-16 text without a byte-order mark/],
    'sep= of Excel': [`sep=,\n${FILE}`, /names the separator.*without that line/],
    'sep= and semicolons': ['sep=;\nticket_id;region\n', /names the separator/],
    semicolons: ['ticket_id;region\nWOT0000001;coast\n', /not separated by commas/],
    tabs: ['ticket_id\tregion\nWOT0000001\tcoast\n', /not separated by commas/],
    'columns with anything else between them': ['ticket_id^region\nWOT0000001^coast\n', /not separated by commas/],
    'lines that are quoted as a whole': ['"ticket_id,region"\n"WOT0000001,coast"\n', /each line is one quoted field/],
    'lone carriage returns': ['ticket_id,region\rWOT0000001,coast\r', /lone carriage return/],
    'lone carriage returns, of many rows': [
      `ticket_id,region\r${'WOT0000001,coast\r'.repeat(2_000)}`,
      /lone carriage return/,
    ],
    'lone carriage returns, of more rows': [
      `ticket_id,region\r${'WOT0000001,coast\r'.repeat(20_000)}`,
      /lone carriage return/,
    ],
    'lines that a form feed ends': ['ticket_id,region\fWOT0000001,coast\f', /its lines end in U\+000C/],
    'lines that U+2028 ends': [
      `ticket_id,region\u2028${'WOT0000001,coast\u2028'.repeat(9_999)}`,
      /its lines end in U\+2028/,
    ],
    'line ends that are written out': [
      JSON.stringify(FILE.repeat(2_000)).slice(1, -1),
      /its line ends are written out as \\n .*as within JSON/,
    ],
    'CSV as a text of JSON': [JSON.stringify(FILE), /its line ends are written out as \\n/],
    'a binary file': [Buffer.from('7z\xbc\xaf\x27\x1c\0\x04\r\x80\xff', 'latin1'), /it is a binary file/],
    EBCDIC: [Buffer.from('a389839285a36d89846b99858789969515', 'hex'), /text in another encoding than UTF-8/],
    'UTF-32, big-endian': [
      Buffer.concat([...FILE].map((letter) => Buffer.from([0, 0, 0, letter.charCodeAt(0)]))),
      /text in another encoding than UTF-8/,
    ],
    'another table': ['id,region\nWOT0000001,coast\n', /no ticket_id column \("id,region"\)/],
    'a quote in the header that is never closed': [
      '"ticket_id,region\nWOT0000001,coast\n',
      /no readable header: a quote that opens in it is never closed/,
    ],
    'a quote in the header that a row closes': [
      'ticket_id,"region\nWOT0000001,"the coast"\n',
      /no readable header: a quote that opens in it is not closed there/,
    ],
    'a quote in the last column of the header': [
      'ticket_id,"region\n"WOT0000001","the coast"\n',
      /no readable header: a quote that opens in it is not closed there/,
    ],
    'no line end at all': [Buffer.alloc(17 * 1024 * 1024, 'x'), /no readable header: its first record is larger/],
    'too many columns': [`ticket_id,${'a,'.repeat(6_000)}a\n`, /its header has 6002 columns, and at most 1000/],
    'too long a name': [`ticket_id,${'n'.repeat(65_536)}\nWOT0000001,x\n`, /its first record is larger than 64 KiB/],
  };
  for (const [what, [file, reason]] of Object.entries(cases)) {
    test(what, async () => {
      const started = performance.now();
      for (const cuts of [[], [1], [1, 2, 3, 4, 5, 6, 7]]) {
        await assert.rejects(read(file, cuts), (error: Error) => {
          assert.ok(error instanceof RefusedFileError, String(error));
          assert.match(error.message, /^No ticket CSV: /);
          assert.match(error.message, reason);
          assert.ok(error.message.length < 300, error.message);
          return true;
        });
      }
      assert.ok(performance.now() - started < 2_000, 'it takes no time to see');
    });
  }
});

describe('a file that looks odd loads', () => {
  const same: Record<string, string> = {
    'with CRLF': FILE.replaceAll('\n', '\r\n').replace('two\r\n', 'two\n'),
    'with CR CR LF': FILE.replaceAll('\n', '\r\r\n').replace('two\r\r\n', 'two\n'),
    'with a byte-order mark': `\ufeff${FILE}`,
    'with two byte-order marks': `\ufeff\ufeff${FILE}`,
    'with three, and a quoted header': `\ufeff\ufeff\ufeff"ticket_id","is_alarm","description"${FILE.slice(HEADER.length)}`,
    'with invisible characters in its header': `\u200bticket_id,is_alarm\u200b, description${FILE.slice(HEADER.length)}`,
    'with blank lines before its header': `\n\r\n\n${FILE}`,
    'with a thousand columns': [
      `${HEADER}${Array.from({ length: 997 }, (_, n) => `,c${n}`).join('')}`,
      `WOT0000001,false,one${','.repeat(997)}`,
      `WOT0000002,false,"two\nlines"${','.repeat(997)}\n`,
    ].join('\n'),
  };
  for (const [what, file] of Object.entries(same)) {
    test(what, async () => {
      for (const cuts of [[], [1], [1, 2, 3, 4, 5, 6, 7]]) {
        const seen = await read(file, cuts);
        assert.deepEqual(descriptionsOf(seen), LOADED);
        assert.deepEqual([seen.counts.rejected, seen.ending.brokenOff], [0, undefined]);
      }
    });
  }

  test('with a header of many lines in a name', async () => {
    const seen = await read('ticket_id,"Notes of\nthe customer"\nWOT0000001,none\n');
    assert.deepEqual(JSON.parse(seen.rows[0]?.raw ?? ''), {
      ticket_id: 'WOT0000001',
      'Notes of\nthe customer': 'none',
    });
    assert.deepEqual(linesOf(seen.rows), [3]);
  });
});

describe('a header', () => {
  test('that stands again in the middle is no ticket', async () => {
    const seen = await read(
      `${FILE}${FILE.replace('WOT0000001', 'WOT0000003')}\ufeff${FILE.replace('ticket_id', 'Ticket_ID')}`,
    );
    assert.deepEqual(Object.keys(descriptionsOf(seen)).sort(), ['WOT0000001', 'WOT0000002', 'WOT0000003']);
    assert.deepEqual(
      seen.rejects.map(({ line, reason }) => [line, reason]),
      [
        [5, 'it repeats the header'],
        [9, 'it repeats the header'],
      ],
    );
  });

  test('of a thousand equal names keeps each value, in no time', async () => {
    const names = Array.from({ length: 999 }, (_, n) => (n % 2 === 0 ? 'a' : `a_${n}`));
    const started = performance.now();
    const seen = await read(`ticket_id,${names.join(',')}\nWOT0000001,${names.map((_, n) => n).join(',')}\n`);
    assert.ok(performance.now() - started < 500);
    const { ticket_id: _, ...values } = JSON.parse(seen.rows[0]?.raw ?? '');
    assert.deepEqual(
      Object.values(values)
        .map(Number)
        .sort((a, b) => a - b),
      names.map((_, n) => n),
    );
  });
});

describe('a .csv.gz', () => {
  async function* inParts(bytes: Buffer, size: number) {
    for (let at = 0; at < bytes.length; at += size) yield bytes.subarray(at, at + size);
  }
  const unpack = async (bytes: Buffer, size = 7, max?: number) => {
    const parts: Buffer[] = [];
    for await (const part of gunzipped(inParts(bytes, size), max)) parts.push(part);
    return Buffer.concat(parts).toString();
  };

  test('is unpacked, also in several members, or passes as it is when it is none', async () => {
    for (const size of [1, 7, 10_000]) {
      assert.equal(await unpack(gzipSync(FILE), size), FILE);
      assert.equal(await unpack(Buffer.concat([gzipSync(FILE), gzipSync(FILE)]), size), FILE + FILE);
      assert.equal(await unpack(Buffer.from(FILE), size), FILE);
      assert.equal(await unpack(Buffer.from('x'), size), 'x');
    }
    assert.equal(await unpack(Buffer.alloc(0)), '');
  });

  test('that is damaged, cut off, or unpacks to too much is refused', async () => {
    const packed = gzipSync(FILE.repeat(1_000));
    const damaged = Buffer.from(packed);
    damaged.fill(0xff, 100, 120);
    for (const bytes of [damaged, packed.subarray(0, -20)]) {
      await assert.rejects(unpack(bytes), (error: Error) => {
        assert.ok(error instanceof RefusedFileError, String(error));
        assert.match(error.message, /gzip data are damaged \(.*\): upload it again/);
        return true;
      });
    }
    await assert.rejects(
      unpack(gzipSync(Buffer.alloc(30_000_000)), 10_000, 10 * 1024 * 1024),
      /unpacks to more than 10 MiB/,
    );
  });

  test('whose reading fails, or is given up, ends its source', async () => {
    const packed = gzipSync(FILE.repeat(10_000));
    let ended = 0;
    async function* source(fail: boolean) {
      try {
        yield packed.subarray(0, 1_000);
        if (fail) throw new Error('the connection broke');
        yield packed.subarray(1_000);
      } finally {
        ended += 1;
      }
    }
    await assert.rejects(async () => {
      for await (const _ of gunzipped(source(true)));
    }, /the connection broke/);
    for await (const _ of gunzipped(source(false))) break;
    assert.equal(ended, 2);
  });
});
