/** Nairobi's clock: the one of the feed's own times, and of every time that a person reads. */

export const NAIROBI_ZONE = 'Africa/Nairobi';
/** How far it is ahead of UTC, all year: East Africa Time has no daylight saving. */
export const NAIROBI_AHEAD_MS = 3 * 3_600_000;

const WALL_CLOCK = new Intl.DateTimeFormat('en-GB', {
  timeZone: NAIROBI_ZONE,
  weekday: 'short',
  day: 'numeric',
  month: 'short',
  hour: '2-digit',
  minute: '2-digit',
});

/** `Mon 15 Jun 09:00 EAT` @param time as Postgres writes it in JSON */
export const wallClock = (time: string): string =>
  `${WALL_CLOCK.format(new Date(time)).replace(',', '').replace(' at ', ' ')} EAT`;
