/** The doctor's check of the vehicles: whether tickets.vehicles can be read, and whether what it says can be true. */
import type pg from 'pg';
import { pending } from '../../database/committed.ts';
import { countVehicles } from '../../dispatch/trackers.ts';
import { NAIROBI_AHEAD_MS, NAIROBI_ZONE } from '../../text/nairobi.ts';
import { failed, ok, skipped, type Verdict, warning } from './finding.ts';

/** A time zone mistake of Nairobi's 3 hours, give or take a quarter of an hour. */
const ZONE_MINUTES = [NAIROBI_AHEAD_MS / 60_000 - 15, NAIROBI_AHEAD_MS / 60_000 + 15] as const;
/** Of positions that are nowhere or in the future. */
const IMPLAUSIBLE_SHARE = 0.2;

interface Facts {
  several_rows: number;
  /** Minutes since the newest position; negative when it lies in the future. */
  newest_minutes: number | null;
  /** Functions and views of others that the view calls. */
  foreign: string | null;
}

export async function vehicles(client: pg.Client): Promise<Verdict> {
  if ((await pending(client)).length > 0) return skipped('needs the schema');
  const counts = await countVehicles(client).catch((error: Error) => error);
  if (counts instanceof Error)
    return failed(
      counts.message,
      'fleettickets vehicles prints the view tickets.vehicles and the grants that it needs',
    );
  const total = counts.reduce((sum, { vehicles: count }) => sum + count, 0);
  if (total === 0) return skipped('tickets.vehicles lists none; fleettickets vehicles points it at a tracker');
  const detail = `${total}: ${counts.map(({ freshness, vehicles: count }) => `${count} ${freshness}`).join(', ')}`;
  const countOf = (...kinds: string[]) =>
    counts.reduce((sum, { freshness, vehicles: count }) => sum + (kinds.includes(freshness) ? count : 0), 0);
  const { several_rows, newest_minutes, foreign } = await look(client);
  const minutes = newest_minutes ?? 0;
  // Where most are right it is the clock of one tracker: another time zone in the view would make the others wrong.
  const isZone =
    countOf('clock') >= countOf('live') && Math.abs(minutes) >= ZONE_MINUTES[0] && Math.abs(minutes) <= ZONE_MINUTES[1];
  const wrong: [what: string, remedy: string][] = [];
  if (foreign)
    wrong.push([
      `the view calls ${foreign}, which run with our rights`,
      'read the table itself: fleettickets vehicles prints such a view',
    ]);
  if (several_rows > 0)
    wrong.push([
      `${several_rows} of them have several rows`,
      'fleettickets vehicles prints a view with the newest row of each',
    ]);
  if (isZone)
    wrong.push([
      `the newest position is some 3 hours ${minutes < 0 ? 'ahead' : 'behind'}: a time zone mistake?`,
      `in the view write: located_at at time zone '${minutes < 0 ? NAIROBI_ZONE : 'UTC'}'`,
    ]);
  else if (!counts.some(({ usable }) => usable))
    wrong.push(['none is usable: the newest position is too old', 'look whether the tracker still writes its table']);
  if (!isZone && countOf('nowhere', 'clock') >= IMPLAUSIBLE_SHARE * total)
    wrong.push([
      'many positions are missing, outside the operating area or in the future',
      'look at tickets.vehicles: are longitude and latitude exchanged? widen tickets.dispatch_settings.area where they are true',
    ]);
  if (wrong.length === 0) return ok(detail);
  return warning([detail, ...wrong.map(([what]) => what)].join('\n'), wrong.map(([, remedy]) => remedy).join('\n'));
}

async function look(client: pg.Client): Promise<Facts> {
  const { rows } = await client.query<Facts>(
    `select
       (select count(*)::integer from (select from tickets.vehicles where vehicle_id is not null group by vehicle_id having count(*) > 1) as v) as several_rows,
       (select extract(epoch from now() - max(located_at))::float8 / 60 from tickets.tracked_vehicles()) as newest_minutes,
       tickets_ops.foreign_vehicle_code() as "foreign"`,
  );
  return rows[0] as Facts;
}
