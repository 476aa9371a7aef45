import { parseArgs } from 'node:util';
import { requireCurrent } from '../database/schema.ts';
import { withBoundedWaits } from '../database/waits.ts';
import { makePlan, type Plan } from '../dispatch/plan.ts';
import { DatabaseSettings, readSettings } from '../settings/settings.ts';
import { print, printJson } from '../terminal/output.ts';
import { table } from '../terminal/table.ts';
import { UsageError } from '../terminal/usage.ts';

export const summary = 'which vehicle goes to which ticket; a dry run unless --apply';
export const usage = `Usage: fleettickets dispatch [--capacity N] [--apply] [--json]

Plans which usable vehicle goes to which open ticket that no vehicle is assigned to, by
tickets.dispatch_plan with its defaults. Kilometres are estimates from straight lines.
Without --apply nothing is assigned.

  --capacity N   tickets that a vehicle may have at once (default 1: the exact optimum)
  --apply        assign the plan
  --json         print one JSON object

Settings: DATABASE_URL.
`;

export async function run(args: string[]): Promise<number> {
  const { values } = parseArgs({
    args,
    options: {
      capacity: { type: 'string', default: '1' },
      apply: { type: 'boolean', default: false },
      json: { type: 'boolean', default: false },
    },
  });
  const { apply, json } = values;
  if (!/^[1-9]\d{0,3}$/.test(values.capacity)) throw new UsageError('--capacity must be a whole number, 1 or more.');
  return withBoundedWaits(readSettings(DatabaseSettings).DATABASE_URL, async (client) => {
    await requireCurrent(client);
    const plan = await makePlan(client, Number(values.capacity), apply);
    if (json) printJson({ ...plan, applied: apply });
    else print(page(plan, apply));
    return 0;
  });
}

function page({ stops, leftOut }: Plan, applied: boolean): string {
  const vehicles = new Set(stops.map(({ vehicle_id }) => vehicle_id)).size;
  const kilometres = Math.round(stops.reduce((sum, { road_km }) => sum + road_km, 0));
  const rows = stops.map(
    ({ vehicle, position, ticket_id, road_km, sla, hours_open, cluster, location_name, note }) => ({
      vehicle,
      nth: position,
      ticket: ticket_id,
      km: road_km.toFixed(1),
      sla,
      hours: hours_open,
      cluster,
      place: location_name,
      note,
    }),
  );
  const reasons = Map.groupBy(leftOut, ({ note }) => note);
  return [
    stops.length > 0 ? `${table(rows)}\n` : '',
    `${stops.length} tickets for ${vehicles} vehicles, some ${kilometres} km of road.\n`,
    ...[...reasons].map(([reason, tickets]) => `${tickets.length} left out: ${reason}\n`),
    applied
      ? 'They are assigned: see tickets.assignments.\n'
      : 'Nothing was assigned: this was a dry run. Add --apply to assign.\n',
  ].join('');
}
