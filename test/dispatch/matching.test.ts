import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import fc from 'fast-check';
import { linearSumAssignment } from 'linear-sum-assignment';
import { Dice } from '../../demo/chance.ts';
import { type Environment, startEnvironment } from '../support/environment.ts';
import { bruteForce, type Costs, optimum } from '../support/optimum.ts';

describe('tickets_ops.min_cost_assignment', () => {
  let env: Environment;
  before(async () => {
    env = await startEnvironment();
  });
  after(() => env.close());

  const assign = async (costs: Costs): Promise<number[]> => {
    const flat = costs.flat().map((cost) => (cost === undefined ? 'Infinity' : cost));
    const { rows } = await env.pool.query<{ columns: number[] }>(
      'select tickets_ops.min_cost_assignment($1, $2, $3) as columns',
      [flat, costs.length, costs[0]?.length ?? 0],
    );
    return rows[0]?.columns ?? assert.fail();
  };
  /** Pairs and cost of an assignment that keeps the rules. */
  const weigh = (costs: Costs, columns: readonly number[]) => {
    assert.equal(columns.length, costs.length);
    const used = columns.filter((column) => column > 0);
    assert.equal(new Set(used).size, used.length, 'a column is used twice');
    let cost = 0;
    for (const [row, column] of columns.entries()) {
      if (column > 0) cost += costs[row]?.[column - 1] ?? assert.fail('a forbidden pair');
    }
    return { pairs: used.length, cost };
  };
  const assertOptimal = async (costs: Costs, best: { pairs: number; cost: number }) => {
    const found = weigh(costs, await assign(costs));
    assert.equal(found.pairs, best.pairs, JSON.stringify(costs));
    assert.ok(
      Math.abs(found.cost - best.cost) < 1e-6,
      `${found.cost} instead of ${best.cost}: ${JSON.stringify(costs)}`,
    );
  };
  /** Of whole numbers, so that there are ties; every third pair or so is forbidden. */
  const matrices = (most: number, widest: number, cost: fc.Arbitrary<number>) =>
    fc.tuple(fc.integer({ min: 1, max: most }), fc.integer({ min: 1, max: widest })).chain(([rows, columns]) =>
      fc.array(fc.array(fc.option(cost, { nil: undefined, freq: 2 }), { minLength: columns, maxLength: columns }), {
        minLength: rows,
        maxLength: rows,
      }),
    );

  test('is as good as the best of all permutations, up to 7 × 7, with forbidden pairs and ties', async () => {
    await fc.assert(
      fc.asyncProperty(matrices(7, 7, fc.integer({ min: -3, max: 9 })), async (costs) => {
        await assertOptimal(costs, bruteForce(costs));
      }),
      { numRuns: 300 },
    );
  });

  test('is as good as an independent solver where each row has more columns than are looked at', async () => {
    const cost = fc.oneof(fc.double({ min: -10, max: 70, noNaN: true }), fc.integer({ min: 0, max: 5 }));
    await fc.assert(
      fc.asyncProperty(matrices(8, 60, cost), fc.boolean(), async (drawn, turned) => {
        const costs = turned ? (drawn[0] ?? []).map((_, column) => drawn.map((row) => row[column])) : drawn;
        await assertOptimal(costs, optimum(costs));
      }),
      { numRuns: 300 },
    );
  });

  test('is as good as an independent solver where all rows want the same columns', async () => {
    // Vehicles in one depot: each row is the first one with a little noise.
    await fc.assert(
      fc.asyncProperty(
        fc.integer(),
        fc.integer({ min: 2, max: 12 }),
        fc.integer({ min: 2, max: 40 }),
        async (seed, rows, columns) => {
          const dice = new Dice(seed);
          const distances = Array.from({ length: columns }, () => dice.next() * 50);
          const costs = Array.from({ length: rows }, () =>
            distances.map((distance) => (dice.chance(0.1) ? undefined : distance + dice.below(3) * dice.next() * 0.1)),
          );
          await assertOptimal(costs, optimum(costs));
        },
      ),
      { numRuns: 200 },
    );
  });

  const positions = (seed: number, count: number, spread: number) => {
    const dice = new Dice(seed);
    return Array.from(
      { length: count },
      () => [50 + (dice.next() - 0.5) * spread, 50 + (dice.next() - 0.5) * spread] as const,
    );
  };
  const distances = (rows: number, columns: number, spread: number) => {
    const to = positions(2, columns, 100);
    return positions(1, rows, spread).map(([x, y]) => to.map(([x2, y2]) => Math.hypot(x2 - x, y2 - y)));
  };
  for (const [what, rows, columns, spread] of [
    ['200 × 2 000, spread out', 200, 2_000, 100],
    ['200 × 2 000, in one depot', 200, 2_000, 0.1],
    ['100 × 1 000, at one point', 100, 1_000, 0],
    ['1 000 × 100', 1_000, 100, 100],
    ['150 × 150', 150, 150, 100],
  ] as const) {
    test(`costs what npm's linear-sum-assignment finds: ${what}`, async () => {
      const costs = distances(rows, columns, spread);
      const { gain } = linearSumAssignment(costs, { maximaze: false });
      await assertOptimal(costs, { pairs: Math.min(rows, columns), cost: gain });
    });
  }

  test('gives equal output for equal input, and 0 to a row that gets no column', async () => {
    const costs = [
      [1, 1],
      [1, 1],
      [1, 1],
    ];
    const once = await assign(costs);
    assert.deepEqual(await assign(costs), once);
    assert.equal(once.filter((column) => column === 0).length, 1);
    assert.deepEqual(await assign([[undefined], [3]]), [0, 1]);
  });

  test('takes NULL and NaN for forbidden, and nothing for nothing', async () => {
    const { rows } = await env.pool.query(
      `select
         tickets_ops.min_cost_assignment(array['NaN', null, 4, 'Infinity']::float8[], 2, 2) as some,
         tickets_ops.min_cost_assignment(array['NaN', null]::float8[], 1, 2) as none,
         tickets_ops.min_cost_assignment('{}', 0, 5) as no_rows,
         tickets_ops.min_cost_assignment('{}', 3, 0) as no_columns`,
    );
    assert.deepEqual(rows, [{ some: [0, 1], none: [0], no_rows: [], no_columns: [0, 0, 0] }]);
  });

  test('refuses costs that do not fill the matrix', async () => {
    const refused = (costs: string, rows: number, columns: number) =>
      assert.rejects(
        env.pool.query('select tickets_ops.min_cost_assignment($1, $2, $3)', [costs, rows, columns]),
        /p_costs must hold p_rows × p_columns costs|A cost must lie between/,
      );
    await refused('{1,2,3}', 2, 2);
    await refused('{}', -1, 0);
    await refused('{1}', 100_000, 100_000);
    await refused('{-Infinity}', 1, 1);
    await refused('{1,2e100}', 1, 2);
  });
});
