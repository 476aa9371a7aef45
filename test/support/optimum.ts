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

/** Who drives, and what each way costs: from a vehicle's start to a ticket, and from a ticket to the next. */
interface Tours {
  readonly fromStart: readonly (readonly number[])[];
  readonly between: readonly (readonly number[])[];
  /** How many tickets a vehicle takes at most. */
  readonly capacity: number;
}

/**
 * What tours cost at least that leave out as few tickets as the capacity lets them: Held and Karp's open tours of each
 * vehicle over each set of tickets, then the best division of the tickets among the vehicles. For eight tickets or so.
 */
export function bestTours({ fromStart, between, capacity }: Tours): number {
  const tickets = between.length;
  const sets = 2 ** tickets;
  const size = (set: number) => set.toString(2).replaceAll('0', '').length;
  const costsOf = (start: readonly number[]): number[] => {
    const ending = Array.from({ length: sets }, () => Array<number>(tickets).fill(Number.POSITIVE_INFINITY));
    const at = (set: number, last: number) => ending[set]?.[last] ?? Number.POSITIVE_INFINITY;
    for (let set = 1; set < sets; set += 1)
      for (let last = 0; last < tickets; last += 1) {
        const before = set & ~(1 << last);
        if (before === set || size(set) > capacity) continue;
        const ways = between.map((legs, previous) => at(before, previous) + (legs[last] ?? 0));
        (ending[set] as number[])[last] = before === 0 ? (start[last] ?? 0) : Math.min(...ways);
      }
    return ending.map((ways, set) => (set === 0 ? 0 : Math.min(...ways)));
  };
  let best = Array.from({ length: sets }, (_, set) => (set === 0 ? 0 : Number.POSITIVE_INFINITY));
  for (const start of fromStart) {
    const own = costsOf(start);
    best = best.map((alone, set) => {
      let least = alone;
      for (let part = set; part > 0; part = (part - 1) & set)
        least = Math.min(least, (best[set ^ part] ?? 0) + (own[part] ?? 0));
      return least;
    });
  }
  const most = Math.min(tickets, capacity * fromStart.length);
  return Math.min(...best.filter((_, set) => size(set) === most));
}
