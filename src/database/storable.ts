/** Text that Postgres can hold, as text and in json: no NUL, and no half of a surrogate pair. */
export const storable = (text: string): string => text.toWellFormed().replaceAll('\0', '\uFFFD');

/** Whether all text in a value of JSON is storable. */
export function isStorable(value: unknown): boolean {
  if (typeof value === 'string') return storable(value) === value;
  if (value === null || typeof value !== 'object') return true;
  return Object.entries(value).every(([name, member]) => isStorable(name) && isStorable(member));
}
