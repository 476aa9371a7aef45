/** Reading a whole ticket CSV in a test. */
import assert from 'node:assert/strict';
import { addCounts, type Chunk, type Counts, noCounts } from '../../src/csv/chunks.ts';
import { type Ending, readTicketCsv } from '../../src/csv/records.ts';
import { MAX_REJECTS_KEPT } from '../../src/csv/rejects.ts';

export type Read = Pick<Chunk, 'rows' | 'rejects'> & { counts: Counts; chunks: readonly Chunk[]; ending: Ending };

/** Reads a whole file, handed over in buffers that end at these offsets. */
export async function read(file: string | Buffer, cuts: readonly number[] = []): Promise<Read> {
  const bytes = Buffer.from(file);
  const edges = [0, ...[...cuts].sort((a, b) => a - b), bytes.length];
  async function* buffers() {
    for (const [n, edge] of edges.slice(1).entries()) yield bytes.subarray(edges[n], edge);
  }
  const chunks: Chunk[] = [];
  const reader = readTicketCsv(buffers());
  for (;;) {
    const next = await reader.next();
    if (!next.done) {
      chunks.push(next.value);
      continue;
    }
    const counts = noCounts();
    for (const chunk of chunks) addCounts(counts, chunk.counts);
    return {
      rows: chunks.flatMap(({ rows }) => rows),
      rejects: chunks.flatMap(({ rejects }) => rejects),
      counts,
      chunks,
      ending: next.value,
    };
  }
}

/** What every file promises: each record is a ticket, a duplicate, a reject, an alarm or a sentinel. */
export function assertAddsUp({ rows, rejects, counts }: Read): void {
  assert.equal(counts.read, rows.length + counts.rejected + counts.duplicates + counts.alarms + counts.sentinels);
  assert.equal(rejects.length, Math.min(counts.rejected, MAX_REJECTS_KEPT));
}

export const descriptionsOf = ({ rows }: Read) =>
  Object.fromEntries(rows.map((row) => [row.ticket_id, JSON.parse(row.raw).description]));
export const linesOf = (rows: readonly { line: number }[]) => rows.map(({ line }) => line);
