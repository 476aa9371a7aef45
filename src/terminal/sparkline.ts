/** A series in one line of text. */

const BARS = '▁▂▃▄▅▆▇█';

/**
 * One character a value, the largest a full block; 0 is the lowest bar, and what is not known a blank.
 * @param values not negative
 */
export function sparkline(values: readonly (number | null)[]): string {
  const largest = Math.max(1, ...values.map((value) => value ?? 0));
  return values
    .map((value) => (value === null ? ' ' : BARS[Math.ceil((value / largest) * (BARS.length - 1))]))
    .join('');
}
