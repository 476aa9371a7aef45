/** Quotes that are not closed where they should be: what they swallow is found, and what merely looks like it is not. */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import fc from 'fast-check';
import { feed } from '../../demo/feed.ts';
import { csvLine } from '../../demo/ticket.ts';
import { assertAddsUp, descriptionsOf, linesOf, read } from '../support/read-csv.ts';

const COLUMNS = ['ticket_id', 'normalized_status', 'is_actionable', 'is_alarm', 'location_name', 'description'];
const HEADER = COLUMNS.join(',');
const row = (id: string, description = 'd', place = 'Rose Court') => `${id},open,true,false,${place},${description}`;
const file = (...rows: string[]) => [HEADER, ...rows, ''].join('\n');

describe('a quote that swallows records', () => {
  test('costs its own line, in whatever column it opens and wherever another closes it', async () => {
    const ids: string[] = ['WOT0000001', 'WOT0000002', 'WOT0000003', 'WOT0000004', 'WOT0000005'];
    const columns = [0, 1, 2, 3, 4];
    const closing = ['"well, quoted"', '"well"', '"of\r\nlines"', '"says ""so"""', undefined];
    for (const idAt of [0, 2, 4]) {
      const names = ['a', 'b', 'is_alarm', 'd'].toSpliced(idAt, 0, 'ticket_id');
      for (const opens of columns) {
        for (const closes of columns.filter((column) => column !== idAt && names[column] !== 'is_alarm')) {
          for (const closesOn of [2, 3]) {
            for (const quoted of closing) {
              const records = ids.map((id) => ['1', '2', 'false', '4'].toSpliced(idAt, 0, id));
              const lines = records.map((fields, n) =>
                fields
                  .map((field, column) => {
                    if (n === 1 && column === opens) return `"${field}`;
                    return n === closesOn && column === closes && quoted ? quoted : field;
                  })
                  .join(','),
              );
              if (quoted) (records[closesOn] as string[])[closes] = quoted.slice(1, -1).replaceAll('""', '"');
              const where = `id in ${idAt}, opens in ${opens}, closes in ${closes} of row ${closesOn} with ${quoted}`;
              const seen = await read([names, ...lines, ''].join('\n'));
              assert.deepEqual(
                seen.rows.map(({ raw }) => names.map((name) => JSON.parse(raw)[name])),
                records.toSpliced(1, 1),
                where,
              );
              assert.deepEqual(
                seen.rejects.map(({ line, text }) => [line, text]),
                [[3, lines[1]]],
                where,
              );
              assert.match(seen.rejects[0]?.reason ?? '', /quote that opens in it is not closed/);
              assert.equal(seen.ending.brokenOff, undefined, where);
              assertAddsUp(seen);
            }
          }
        }
      }
    }
  });

  const shapes: Record<string, (n: number) => string> = {
    'of letters and digits': (n) => `WOT${1_000_000 + n}`,
    'with dashes': (n) => `INC-2026-${String(n).padStart(6, '0')}`,
    'of digits': (n) => String(4_711_000 + n),
    'with underscores': (n) => `fo_${n}_x`,
    'with a number sign': (n) => `#${n}`,
    'in other scripts': (n) => `Тикет-${n}`,
    'with slashes and blanks': (n) => `KE / ${n}`,
    'that are UUIDs': (n) => `00000000-0000-4000-8000-${String(n).padStart(12, '0')}`,
    'all of them quoted': (n) => `"WOT${1_000_000 + n}"`,
  };
  for (const [what, id] of Object.entries(shapes)) {
    test(`is seen among ids ${what}, first, in the middle and last, also twice`, async () => {
      const unclosed = (n: number) => row(id(n), 'd', '"Rose Court');
      for (const opens of [[0], [4], [2, 3], [2, 5], [0, 8]]) {
        const rows = Array.from({ length: 10 }, (_, n) => (opens.includes(n) ? unclosed(n) : row(id(n))));
        const seen = await read(file(...rows));
        assert.deepEqual(
          linesOf(seen.rows),
          rows.flatMap((_, n) => (opens.includes(n) ? [] : [n + 2])),
          `opens in ${opens}`,
        );
        assert.deepEqual(
          linesOf(seen.rejects),
          opens.map((n) => n + 2),
        );
        assert.equal(seen.ending.brokenOff, undefined);
        assertAddsUp(seen);
      }
    });
  }

  test('in the last record, with nothing behind it, breaks the file off', async () => {
    const seen = await read(file(row('WOT0000001'), row('WOT0000002', 'd', '"Rose Court')));
    assert.deepEqual(linesOf(seen.rows), [2]);
    assert.match(seen.ending.brokenOff ?? '', /a quote that opens in the record on line 3 is never closed/);
  });

  test('before a record of several lines loses neither it nor those behind', async () => {
    for (const description of ['"two\nlines"', '"a\n\nb\n"', '"says ""so"",\nor not"']) {
      for (const place of ['Rose Court', '"Rose Court, 2"', '"a\nb"']) {
        const rows = [
          row('WOT0000001', description, place),
          row('WOT0000002', 'd', '"Rose Court'),
          row('WOT0000003', description, place),
          row('WOT0000004', description, place),
        ];
        const seen = await read(file(...rows));
        assert.deepEqual(Object.keys(descriptionsOf(seen)), ['WOT0000001', 'WOT0000003', 'WOT0000004'], file(...rows));
        assert.equal(seen.counts.rejected, 1);
      }
    }
  });

  test('that reaches over more than a record may hold is found all the same, and costs one line', async () => {
    const rows = Array.from({ length: 120_000 }, (_, n) => row(`WOT${n}`, 'some more text to fill the line with'));
    rows[1_000] = row('WOT1000', 'd', '"Rose Court');
    const seen = await read(file(...rows));
    assert.ok(file(...rows).length > 8_000_000);
    assert.deepEqual([seen.rows.length, linesOf(seen.rejects)], [119_999, [1_002]]);
    assert.equal(seen.ending.brokenOff, undefined);
  });

  test('anywhere in a generated feed costs its own line', async () => {
    const [snapshot] = feed({ seed: 11, hours: 1, tickets: 400 });
    const records = (await read(snapshot?.csv ?? '')).rows.map(({ raw }) => JSON.parse(raw) as Record<string, string>);
    const names = Object.keys(records[0] ?? {});
    await fc.assert(
      fc.asyncProperty(fc.nat(records.length - 2), fc.nat(names.length - 1), async (n, opens) => {
        const lines = records.map((record) => names.map((name) => record[name] ?? ''));
        const broken = (lines[n] as string[]).map((field, column) => {
          const plain = field.replace(/[",\r\n]/g, ' ');
          return column === opens ? `"${plain}` : plain;
        });
        const rows = lines.map((fields, at) => (at === n ? broken.join(',') : csvLine(fields)));
        const seen = await read([names.join(','), ...rows, ''].join('\n'));
        const id = (lines[n] as string[])[names.indexOf('ticket_id')];
        assert.deepEqual(
          seen.rows.map(({ raw }) => JSON.parse(raw)),
          records.filter(({ ticket_id }) => ticket_id !== id),
        );
        assert.equal(seen.counts.rejected, 1);
      }),
      { numRuns: 150, seed: 20260615 },
    );
  });
});

describe('what is quoted as it should be is what it says', () => {
  const texts: Record<string, string> = {
    'a list of ticket numbers': 'see also\nWOT0000009, WOT0000010\nand INC1234567,',
    'a column of ticket numbers': `duplicates:\n${Array.from({ length: 50 }, (_, n) => `WOT${1_000_000 + n}`).join('\n')}`,
    'ticket numbers with commas as many as a record has':
      'all of\nWOT0000003,WOT0000004,WOT0000005,WOT0000006,WOT0000007,WOT0000008\nare down',
    'a table': 'ticket,status,open,alarm,place,text\nWOT0000003,open,maybe,?,Rose Court,x',
    'a record that lacks a field': `was\n${row('WOT0000003').slice(0, row('WOT0000003').lastIndexOf(','))}`,
    'a record without a number': `was\n${row('Rose')}`,
    'quotes at the beginnings of lines': '"a"\n"b", "c"\n""\n",',
  };
  for (const [what, text] of Object.entries(texts)) {
    test(what, async () => {
      const quoted = `"${text.replaceAll('"', '""')}"`;
      const seen = await read(file(row('WOT0000001', quoted), row('WOT0000002')));
      assert.deepEqual(descriptionsOf(seen), { WOT0000001: text, WOT0000002: 'd' });
      assert.deepEqual([seen.counts.rejected, seen.ending.brokenOff], [0, undefined]);
    });
  }
});

test('a record that is cut off at the end of the file breaks it off; one that only lacks its line end does not', async () => {
  const whole = [row('WOT0000001'), row('WOT0000002')].join('\n');
  const seen = await read(`${HEADER}\n${whole}`);
  assert.deepEqual([seen.rows.length, seen.ending.brokenOff], [2, undefined]);
  for (let cut = 1; cut <= 'false,Rose Court,d'.length; cut += 1) {
    const { rows, counts, ending } = await read(`${HEADER}\n${whole.slice(0, -cut)}`);
    const isCut = whole.slice(0, -cut).split('\n')[1]?.split(',').length !== COLUMNS.length;
    assert.equal(rows.length, isCut ? 1 : 2);
    assert.equal(counts.rejected, 0);
    if (isCut)
      assert.match(ending.brokenOff ?? '', /the record on line 3 ends after \d of 6 fields.*rows before line 3/);
  }
  const ragged = await read(`${HEADER}\nWOT0000001,open\n`);
  assert.deepEqual(
    [ragged.counts.rejected, ragged.ending.brokenOff],
    [1, undefined],
    'a line end makes it a whole line',
  );
  const sentinel = await read(`${HEADER}\n${whole}\nEXPORT STOPPED`);
  assert.deepEqual([sentinel.counts.sentinels, sentinel.ending.brokenOff], [1, undefined]);
});

describe('ids', () => {
  test('are compared without invisible characters and blanks, in NFC, and otherwise as they stand', async () => {
    const ids = [
      'WOT0000001',
      'WOT0000001\u200b',
      '\ufeffWOT0000001',
      'wot0000001',
      'WOT0000001\u00a0',
      'WOT\u00ad0000001',
    ];
    const seen = await read(file(...ids.map((id, n) => row(id, `d ${n}`)), row('E\u0301-1'), row('\u00c9-1', 'last')));
    assert.deepEqual(descriptionsOf(seen), { wot0000001: 'd 3', WOT0000001: 'd 5', '\u00c9-1': 'last' });
    assert.equal(seen.counts.duplicates, 5);
    for (const { ticket_id, raw } of seen.rows) assert.equal(JSON.parse(raw).ticket_id, ticket_id);
    assertAddsUp(seen);
  });

  test('that have only invisible characters are none', async () => {
    const seen = await read(file(row('\u200b\u2060')));
    assert.deepEqual(
      seen.rejects.map(({ reason, text }) => [reason, text.slice(0, 12)]),
      [['no ticket_id', '\\u200b\\u2060']],
    );
  });
});
