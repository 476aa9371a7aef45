/** Records are framed by us and parsed by csv-parse: both must see the same ones. */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { parse } from 'csv-parse/sync';
import fc from 'fast-check';
import { type Frame, Framer } from '../../src/csv/framing.ts';
import { fieldsOf } from '../../src/csv/parse.ts';

const LARGEST = 1_000;

function framesOf(bytes: Buffer, cuts: readonly number[] = [], largest = LARGEST): Frame[] {
  const framer = new Framer();
  const frames: Frame[] = [];
  const take = () => {
    for (let frame = framer.next(largest); frame; frame = framer.next(largest)) {
      frames.push({ ...frame, bytes: Buffer.from(frame.bytes) });
      if (frame.end === 'open' || frame.end === 'oversized') return true;
    }
    return false;
  };
  const edges = [0, ...[...cuts].sort((a, b) => a - b), bytes.length];
  for (const [n, edge] of edges.slice(1).entries()) {
    framer.push(bytes.subarray(edges[n], edge));
    if (take()) return frames;
  }
  framer.end();
  take();
  return frames;
}

/** What csv-parse makes of the whole file; undefined where a quote is never closed. */
function reference(text: string): string[][] | undefined {
  try {
    return parse(text, {
      record_delimiter: ['\r\n', '\n'],
      relax_column_count: true,
      relax_quotes: true,
      skip_empty_lines: true,
    });
  } catch (error) {
    assert.equal((error as { code?: string }).code, 'CSV_QUOTE_NOT_CLOSED');
    return undefined;
  }
}

describe('framing', () => {
  const text = fc
    .array(fc.constantFrom('"', '""', ',', '\n', '\r\n', '\rx', 'x', 'ü', ' ', ',"', '"\n', '",'), { maxLength: 40 })
    .map((tokens) => tokens.join(''));

  test('finds the records that csv-parse finds, whatever the text and wherever its buffers end', () => {
    fc.assert(
      fc.property(text, fc.array(fc.nat(60), { maxLength: 5 }), (file, cuts) => {
        const bytes = Buffer.from(file);
        const frames = framesOf(
          bytes,
          cuts.filter((cut) => cut < bytes.length),
        );
        const records = reference(file);
        assert.equal(frames.at(-1)?.end === 'open', records === undefined);
        const closed = frames.filter(({ end }) => end !== 'open').map((frame) => frame.bytes);
        if (records) assert.deepEqual(fieldsOf(closed), records);
        if (records) assert.deepEqual(fieldsOf(closed, 0), records, 'cut here, as enormous ones are');
        assert.deepEqual(framesOf(bytes), frames);
      }),
      { numRuns: 20_000, seed: 20260615 },
    );
  });

  test('counts lines as an editor does', () => {
    fc.assert(
      fc.property(text, (file) => {
        let at = 0;
        for (const { bytes, line, linesWithin } of framesOf(Buffer.from(file))) {
          const record = bytes.toString();
          at = file.indexOf(record, at);
          assert.equal(line, file.slice(0, at).split('\n').length);
          assert.equal(linesWithin, record.split('\n').length - 1);
          at += record.length;
        }
      }),
      { numRuns: 5_000, seed: 20260615 },
    );
  });

  test('a record is too large, or not, wherever its buffers end', () => {
    for (const [length, end] of [
      [LARGEST - 1, 'line'],
      [LARGEST, 'line'],
      [LARGEST + 1, 'oversized'],
      [3 * LARGEST, 'oversized'],
    ] as const) {
      for (const [open, close] of [
        ['', '\n'],
        ['"\n', '"\n'],
        ['', ',""\r\r\n'],
      ] as const) {
        const body = 'x'.repeat(length - open.length - close.length + 1);
        const bytes = Buffer.from(`first\n${open}${body}${close}last`);
        for (const size of [1, 7, 999, 1_000, 1_001, 1_002, 5_000]) {
          const cuts = Array.from({ length: Math.ceil(bytes.length / size) - 1 }, (_, n) => (n + 1) * size);
          const frames = framesOf(bytes, cuts);
          assert.deepEqual(
            frames.map((frame) => frame.end),
            end === 'line' ? ['line', 'line', 'file'] : ['line', 'oversized'],
            `${length} bytes in buffers of ${size}`,
          );
        }
      }
    }
  });

  test('a line that is split off is a record, and so are those behind it', () => {
    const framer = new Framer();
    framer.push(Buffer.from('a,"b\r\nc,d\ne,"f",g\nh'));
    framer.end();
    const swallowing = framer.next(LARGEST);
    assert.equal(swallowing?.linesWithin, 2);
    assert.equal(framer.splitFirstLine()?.toString(), 'a,"b');
    const others = [framer.next(LARGEST), framer.next(LARGEST), framer.next(LARGEST), framer.next(LARGEST)];
    assert.deepEqual(
      others.map((frame) => frame && [frame.line, frame.bytes.toString(), frame.end]),
      [[2, 'c,d', 'line'], [3, 'e,"f",g', 'line'], [4, 'h', 'file'], undefined],
    );
  });
});
