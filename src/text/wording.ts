/** How lengths of time, long texts and long lists are told, on a terminal, in a message and in the ledger. */

const MINUTES_A_DAY = 24 * 60;

/** `40 s`, `80 min`, `3 h 5 min` or `4 days`: as exact as a person needs. @param seconds not negative */
export function duration(seconds: number): string {
  if (Math.round(seconds) < 60) return `${Math.round(seconds)} s`;
  const minutes = Math.round(seconds / 60);
  if (minutes < 120) return `${minutes} min`;
  if (minutes < 2 * MINUTES_A_DAY) return `${Math.floor(minutes / 60)} h${minutes % 60 ? ` ${minutes % 60} min` : ''}`;
  return `${Math.round(minutes / MINUTES_A_DAY)} days`;
}

/** The text in so many characters at most, the last of them … where it was cut; never through a surrogate pair. */
export const shortened = (text: string, length: number): string =>
  text.length > length ? `${text.slice(0, length - 1).replace(/[\ud800-\udbff]$/, '')}…` : text;

/** The line below the first `shown` of `all`: none where that is all. */
export const andMore = (all: number, shown: number): string[] => (all > shown ? [`and ${all - shown} more`] : []);

/** `a, b and 3 more`: the first of the names, and how many there are besides. */
export const listed = (names: readonly string[], most: number): string =>
  [names.slice(0, most).join(', '), ...andMore(names.length, most)].join(' ');
