import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { describe, test } from 'node:test';
import fc from 'fast-check';
import { feed } from '../../demo/feed.ts';
import { CHUNK_ROWS, CHUNK_SIZE } from '../../src/csv/chunks.ts';
import { readTicketCsv } from '../../src/csv/records.ts';
import { assertAddsUp, descriptionsOf, linesOf, type Read, read } from '../support/read-csv.ts';

const REPLACEMENT = '\ufffd';

const HEADER = 'ticket_id,region,is_alarm,description';
const file = (...lines: string[]) => [HEADER, ...lines, ''].join('\n');

describe('a ticket CSV', () => {
  test('quotes, commas, newlines, semicolons, emoji and other scripts survive as they stand', async () => {
    const texts: Record<string, string> = {
      WOT0000001: 'says "no light", ONT is red',
      WOT0000002: 'call first\nthen visit',
      WOT0000003: 'one\r\ntwo\r\n\r\nthree',
      WOT0000004: 'a;b;c',
      WOT0000005: '😡 👩🏽‍🔧 光猫不亮 / لا يوجد إنترنت',
      WOT0000006: '  blanks around  ',
      WOT0000007: '',
      WOT0000008: '"',
      WOT0000009: ',,,',
      WOT0000010: '-- ; drop table tickets.inc; $1 \\ \u2028',
    };
    const quoted = (text: string) => `"${text.replaceAll('"', '""')}"`;
    const seen = await read(file(...Object.entries(texts).map(([id, text]) => `${id},coast,false,${quoted(text)}`)));
    assert.deepEqual(descriptionsOf(seen), texts);
    assert.equal(seen.ending.brokenOff, undefined);
    assertAddsUp(seen);
  });

  test('any field content comes back, whatever it is', async () => {
    const field = fc.oneof(
      fc.string({ unit: 'grapheme' }),
      fc.string({ unit: fc.constantFrom('"', ',', '\n', '\r', ';', 'x', 'ü') }),
    );
    await fc.assert(
      fc.asyncProperty(
        fc.array(field, { maxLength: 8 }),
        fc.boolean(),
        fc.array(fc.nat(400), { maxLength: 4 }),
        async (fields, crlf, cuts) => {
          const rows = fields.map((text, n) => `WOT${n},coast,false,"${text.replaceAll('"', '""')}"`);
          const bytes = Buffer.from([HEADER, ...rows, ''].join(crlf ? '\r\n' : '\n'));
          const seen = await read(
            bytes,
            cuts.filter((cut) => cut < bytes.length),
          );
          assert.deepEqual(
            Object.values(descriptionsOf(seen)),
            fields.map((text) => text.toWellFormed().replaceAll('\0', REPLACEMENT)),
          );
          assertAddsUp(seen);
        },
      ),
      { numRuns: 300, seed: 20260615 },
    );
  });

  test('a byte-order mark and CRLF are normal input, also with a quoted header', async () => {
    const seen = await read(`\ufeff"ticket_id","description"\r\nWOT0000001,one\r\nWOT0000002,"two"\r\n`);
    assert.deepEqual(descriptionsOf(seen), { WOT0000001: 'one', WOT0000002: 'two' });
  });

  test('line ends may differ from line to line, and the last may lack', async () => {
    const seen = await read('ticket_id,description\r\nWOT0000001,one\nWOT0000002,two\r\nWOT0000003,three');
    assert.deepEqual(descriptionsOf(seen), { WOT0000001: 'one', WOT0000002: 'two', WOT0000003: 'three' });
    const other = await read('ticket_id,description\nWOT0000001,one\r\nEXPORT STOPPED\nWOT0000002,two\n');
    assert.deepEqual(descriptionsOf(other), { WOT0000001: 'one', WOT0000002: 'two' });
  });

  test('a field of 1 MB loads', async () => {
    const long = 'Ünïcode, "quoted"\n'.repeat(55_000);
    const seen = await read(
      file(
        'WOT0000001,coast,false,short',
        `WOT0000002,coast,false,"${long.replaceAll('"', '""')}"`,
        'WOT0000003,coast,false,after',
      ),
    );
    assert.ok(Buffer.byteLength(long) > 1_000_000);
    assert.equal(descriptionsOf(seen).WOT0000002, long);
    assert.deepEqual(linesOf(seen.rows), [2, 3, 3 + 55_000 + 1]);
  });

  test('NUL and invalid UTF-8 become U+FFFD and are counted; the ticket loads', async () => {
    const bytes = Buffer.concat([
      Buffer.from(`${HEADER}\nWOT0000001,coast,false,a\0b\nWOT0000002,coast,false,`),
      Buffer.from([0x78, 0xff, 0x79, 0xc3, 0x28, 0xed, 0xa0, 0x80]), // a lone byte, a cut character, a surrogate
      Buffer.from('\nWOT0000003,coast,false,clean\n'),
    ]);
    const seen = await read(bytes);
    assert.deepEqual(descriptionsOf(seen), {
      WOT0000001: `a${REPLACEMENT}b`,
      WOT0000002: `x${REPLACEMENT}y${REPLACEMENT}(${REPLACEMENT.repeat(3)}`,
      WOT0000003: 'clean',
    });
    assert.equal(seen.counts.repaired, 2);
  });

  test('U+FFFD that the file itself holds is no repair', async () => {
    const seen = await read(file(`WOT0000001,coast,false,was broken before ${REPLACEMENT}`));
    assert.equal(seen.counts.repaired, 0);
  });

  test('where its buffers end does not matter', async () => {
    const bytes = Buffer.concat([
      Buffer.from(`\ufeff${HEADER}\r\nWOT0000001,coast,false,"ü€😀""x"",\r\ny"\r\n`),
      Buffer.from([0x57, 0x2c, 0xf0, 0x9f, 0x2c, 0xe2, 0x82, 0x2c, 0xff, 0x0d, 0x0a]),
      Buffer.from('EXPORT STOPPED\r\nWOT0000002,c\r\nWOT0000003,coast,false,😀'),
      Buffer.from([0xf0, 0x9f, 0x98]),
    ]);
    const { chunks: _, ...whole } = await read(bytes);
    for (let cut = 1; cut < bytes.length; cut += 1) {
      const { chunks: __, ...seen } = await read(bytes, [cut]);
      assert.deepEqual(seen, whole, `cut at ${cut}`);
    }
    const { chunks: __, ...single } = await read(bytes, Array.from(bytes.keys()).slice(1));
    assert.deepEqual(single, whole);
    assert.equal(descriptionsOf(whole as Read).WOT0000003, `😀${REPLACEMENT}`);
  });

  test('ragged rows are rejected with their line and text, and every other row loads', async () => {
    const seen = await read(
      file(
        'WOT0000001,coast,false,one',
        'WOT0000002,coast',
        '',
        'WOT0000003,coast,false,"a\nb"',
        'WOT0000004,coast,false,x,y',
        'WOT0000005,coast,false,last',
      ),
    );
    assert.deepEqual(Object.keys(descriptionsOf(seen)), ['WOT0000001', 'WOT0000003', 'WOT0000005']);
    assert.deepEqual(seen.rejects, [
      { line: 3, reason: '2 fields where the header has 4', text: 'WOT0000002,coast' },
      { line: 7, reason: '5 fields where the header has 4', text: 'WOT0000004,coast,false,x,y' },
    ]);
    assert.deepEqual(linesOf(seen.rows), [2, 5, 8]);
    assertAddsUp(seen);
  });

  test('lines are counted as an editor does: blank ones, CRLF and a lone CR within quotes', async () => {
    const seen = await read(
      `${HEADER}\r\n\r\n\r\nWOT0000001,c,false,"1\r\n2\r3\r\n4"\r\n\r\nWOT0000002,c,false,x\r\nWOT0000003,c\r\n`,
    );
    assert.deepEqual(linesOf(seen.rows), [4, 8]);
    assert.deepEqual(linesOf(seen.rejects), [9]);
  });

  test('an unknown column flows into raw, a missing optional one does not matter, and the order is free', async () => {
    const seen = await read('brand_new,description,ticket_id\nshiny,one,WOT0000001\n');
    assert.deepEqual(
      seen.rows.map(({ line, ticket_id, raw }) => ({ line, ticket_id, raw })),
      [
        {
          line: 2,
          ticket_id: 'WOT0000001',
          raw: '{"brand_new": "shiny", "ticket_id": "WOT0000001", "description": "one"}',
        },
      ],
    );
  });

  test('the last line of an id wins within a chunk, and the earlier ones are counted', async () => {
    const seen = await read(
      file(
        'WOT0000001,a,false,first',
        'WOT0000002,a,false,other',
        ' WOT0000001 ,a,false,second',
        'WOT0000001,a,false,third',
      ),
    );
    assert.deepEqual(descriptionsOf(seen), { WOT0000002: 'other', WOT0000001: 'third' });
    assert.equal(seen.counts.duplicates, 2);
    assertAddsUp(seen);
  });

  test('an empty id is rejected', async () => {
    const seen = await read(file(',coast,false,x', '"  ",coast,false,y', `${'W'.repeat(201)},coast,false,z`));
    assert.deepEqual(
      seen.rejects.map(({ line, reason }) => [line, reason]),
      [
        [2, 'no ticket_id'],
        [3, 'no ticket_id'],
        [4, 'ticket_id is longer than 200 characters'],
      ],
    );
  });

  test('the sentinel is recognised before the header, first, in the middle and last, ragged or not', async () => {
    const rows = ['WOT0000001,coast,false,one', 'WOT0000002,coast,false,two'];
    for (const sentinel of [
      'EXPORT STOPPED: row limit,,',
      '"EXPORT STOPPED, see ""log"""',
      'EXPORT STOPPED,a,b,c',
      ' export stopped',
    ]) {
      for (const at of [0, 1, 2, 3]) {
        const seen = await read([HEADER, ...rows].toSpliced(at, 0, sentinel).join('\n'));
        assert.equal(seen.rows.length, 2, `${sentinel} at ${at}`);
        assert.deepEqual([seen.counts.sentinels, seen.rejects.length, seen.ending.brokenOff], [1, 0, undefined]);
        assertAddsUp(seen);
      }
    }
  });

  test('only alarms, and only a header, are whole files', async () => {
    const alarms = await read(file('ALM1,coast,true,x', 'ALM2,coast,TRUE,x', 'ALM3,coast,1,x', ',coast, Yes ,x'));
    assert.deepEqual([alarms.rows.length, alarms.counts.alarms, alarms.counts.read], [0, 4, 4]);
    const empty = await read(`${HEADER}\n`);
    assert.deepEqual([empty.rows.length, empty.counts.read, empty.ending.brokenOff], [0, 0, undefined]);
  });

  test('a stray quote within an unquoted field spoils nothing', async () => {
    const seen = await read(
      file('WOT0000001,coast,false,6" duct', 'WOT0000002,coast,false,"quoted" and on', 'WOT0000003,coast,false,x'),
    );
    assert.deepEqual(descriptionsOf(seen), { WOT0000001: '6" duct', WOT0000002: '"quoted" and on', WOT0000003: 'x' });
  });

  test('an oversized record breaks the file off', async () => {
    const seen = await read(
      file('WOT0000001,a,false,one', `WOT0000002,a,false,${'x'.repeat(16 * 1024 * 1024)}`, 'WOT0000003,a,false,lost'),
    );
    assert.deepEqual(Object.keys(descriptionsOf(seen)), ['WOT0000001']);
    assert.match(seen.ending.brokenOff ?? '', /begins on line 3 is larger than 5 MiB/);
  });

  test('a reject is kept in a form that any terminal shows, and is cut at 64 KiB between characters', async () => {
    const seen = await read(file('WOT0000001,"a\nb\t""c""",\u0007\u2028', `WOT0000002,${'😀'.repeat(30_000)}`));
    assert.equal(seen.rejects[0]?.text, 'WOT0000001,"a\\nb\\t""c""",\\u0007\\u2028');
    const cut = seen.rejects[1]?.text ?? '';
    assert.ok(Buffer.byteLength(cut) <= 65_536 && Buffer.byteLength(cut) > 65_532);
    assert.match(cut, /^WOT0000002,(😀)+$/u);
  });

  test('an error of the source is passed on, not taken for the end of the file', async () => {
    const reader = readTicketCsv(
      (async function* () {
        yield Buffer.from(file('WOT0000001,a,false,"cut of'));
        throw new Error('the connection broke');
      })(),
    );
    await assert.rejects(async () => {
      for await (const _ of reader);
    }, /the connection broke/);
  });

  test('chunks are bounded, in the order of the file, and the hash is that of its bytes', async () => {
    const rows = Array.from({ length: 3_500 }, (_, n) => `WOT${String(n).padStart(7, '0')},coast,false,row ${n}`);
    const bytes = Buffer.from(file(...rows));
    const seen = await read(
      bytes,
      Array.from({ length: Math.floor(bytes.length / 4096) }, (_, n) => (n + 1) * 4096),
    );
    assert.deepEqual(
      linesOf(seen.rows),
      rows.map((_, n) => n + 2),
    );
    for (const chunk of seen.chunks) assert.ok(chunk.rows.length < CHUNK_ROWS + 4096 / 20, `${chunk.rows.length} rows`);
    assert.equal(seen.ending.sha256, createHash('sha256').update(bytes).digest('hex'));
  });

  test('chunks are bounded by what they become', async () => {
    const names = Array.from({ length: 900 }, (_, n) => `a_name_of_some_length_for_column_${n}`);
    const rows = Array.from({ length: 300 }, (_, n) => `WOT${n}${','.repeat(names.length)}`);
    const rejects = Array.from({ length: 300 }, () => `"${'\u0001'.repeat(2_000)}"`);
    const seen = await read([`ticket_id,${names}`, ...rows, ...rejects, ''].join('\n'));
    assert.deepEqual([seen.rows.length, seen.rejects.length], [300, 300]);
    assert.ok(seen.chunks.length > 5);
    for (const { rows, rejects } of seen.chunks) {
      const became = JSON.stringify([rows, rejects]).length;
      assert.ok(became < 2 * CHUNK_SIZE + 300_000, `${became}`);
    }
  });

  test('of rows of megabytes a chunk holds one, and says that it is large', async () => {
    const rows = Array.from({ length: 5 }, (_, n) => `WOT000000${n},coast,false,${'x'.repeat(1_500_000)}`);
    const seen = await read(file(...rows, 'WOT0000009,coast,false,x'));
    assert.deepEqual(
      seen.chunks.map(({ rows, isLarge }) => [rows.length, isLarge]),
      [...rows.map(() => [1, true]), [1, false]],
    );
  });

  test('of more than 10 000 rejects the first are kept with their text, and all are counted', async () => {
    const seen = await read(`${HEADER}\n${',\n'.repeat(15_000)}WOT0000001,coast,false,x\n`);
    assert.deepEqual([seen.rejects.length, seen.counts.rejected, seen.rows.length], [10_000, 15_000, 1]);
    assert.deepEqual(seen.rejects.at(-1), { line: 10_001, reason: '2 fields where the header has 4', text: ',' });
    assert.deepEqual(seen.ending.firstReject, { reason: '2 fields where the header has 4', line: 2, count: 15_000 });
    assertAddsUp(seen);
  });

  test('the generated feed reads as its author says', async () => {
    for (const { csv, expected } of feed({ seed: 3, hours: 4, tickets: 1500 })) {
      const seen = await read(
        csv,
        Array.from({ length: Math.floor(csv.length / 65_536) }, (_, n) => (n + 1) * 65_536),
      );
      assertAddsUp(seen);
      assert.deepEqual(
        [seen.counts.read, seen.counts.alarms, seen.counts.sentinels, seen.counts.repaired],
        [expected.rows_read, expected.rows_dropped_alarm, expected.rows_dropped_sentinel, expected.rows_repaired],
      );
      assert.deepEqual(
        seen.rejects.map(({ line, reason }) => ({ line, reason: reason === 'no ticket_id' ? reason : 'field count' })),
        expected.rejects,
      );
    }
  });
});
