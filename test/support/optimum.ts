/**
 * An independent answer to the assignment problem, to compare with: successive shortest paths by Bellman and Ford on the
 * flow network, which needs no potentials and no pruning. Slow and plain.
 */

/** A cost, or undefined where the pair is forbidden. */
export type Costs = readonly (readonly (number | undefined)[])[];

/** How many pairs there can be, and what so many cost at least. */
export function optimum(costs: Costs): { pairs: number; cost: number } {
  const rows = costs.length;
  const columns = costs[0]?.length ?? 0;
  const columnOf: (number | undefined)[] = Array(rows).fill(undefined);
  const rowOf: (number | undefined)[] = Array(columns).fill(undefined);
  let total = 0;
  for (let pairs = 0; ; pairs += 1) {
    // The cheapest alternating path from any unmatched row to each column.
    const length = Array(columns).fill(Number.POSITIVE_INFINITY);
    const from: number[] = Array(columns).fill(-1);
    for (let changed = true; changed; ) {
      changed = false;
      for (const [row, list] of costs.entries()) {
        const own = columnOf[row];
        const start = own === undefined ? 0 : length[own] - (costs[row]?.[own] ?? 0);
        for (const [column, cost] of list.entries()) {
          if (cost === undefined || column === own || start + cost >= length[column] - 1e-9) continue;
          length[column] = start + cost;
          from[column] = row;
          changed = true;
        }
      }
    }
    let end = -1;
    for (let column = 0; column < columns; column += 1)
      if (rowOf[column] === undefined && length[column] < (length[end] ?? Number.POSITIVE_INFINITY)) end = column;
    if (end < 0) return { pairs, cost: total };
    total += length[end];
    for (let column: number | undefined = end; column !== undefined; ) {
      const row: number = from[column] as number;
      const before: number | undefined = columnOf[row];
      columnOf[row] = column;
      rowOf[column] = row;
      column = before;
    }
  }
}

/** The same by trying every way, for a handful of rows. */
export function bruteForce(costs: Costs, row = 0, taken = new Set<number>()): { pairs: number; cost: number } {
  if (row === costs.length) return { pairs: 0, cost: 0 };
  let best = bruteForce(costs, row + 1, taken); // this row goes nowhere
  for (const [column, cost] of (costs[row] ?? []).entries()) {
    if (cost === undefined || taken.has(column)) continue;
    taken.add(column);
    const rest = bruteForce(costs, row + 1, taken);
    taken.delete(column);
    const found = { pairs: rest.pairs + 1, cost: rest.cost + cost };
    if (found.pairs > best.pairs || (found.pairs === best.pairs && found.cost < best.cost)) best = found;
  }
  return best;
}
