import { parseArgs } from 'node:util';
import { withCurrentDatabase } from '../database/current.ts';
import { type Idle, makePlan, type Plan } from '../dispatch/plan.ts';
import { APPLY, printAnswer } from '../terminal/output.ts';
import { table } from '../terminal/table.ts';
import { UsageError } from '../terminal/usage.ts';
import { listed } from '../text/wording.ts';

export const summary = 'which vehicle goes to which ticket; a dry run unless --apply';
export const usage = `Usage: fleettickets dispatch [--capacity N] [--radius KM] [--region NAME] [--cluster NAME]
                             [--team NAME | --same-team] [--stale] [--apply] [--json]

Plans which usable vehicle goes to which open ticket that no vehicle is assigned to, by
tickets.dispatch_plan. Kilometres are estimates from straight lines.
Without --apply nothing is assigned.

  --capacity N     tickets that a vehicle may have at once (default 1: the exact optimum)
  --radius KM      the longest way to a ticket, in a straight line
                   (default: tickets.dispatch_settings)
  --region NAME    only tickets of this region, in any case
  --cluster NAME   only tickets of this cluster, in any case
  --team NAME      only vehicles and tickets of this team, in any case
  --same-team      a vehicle goes to tickets of its own team only
  --stale          also vehicles located longer ago, up to the stale_hours
                   of tickets.dispatch_settings
  --apply          assign the plan
  --json           print one JSON object

Settings: DATABASE_URL.
`;

export async function run(args: string[]): Promise<number> {
  const { values } = parseArgs({
    args,
    options: {
      capacity: { type: 'string', default: '1' },
      radius: { type: 'string' },
      region: { type: 'string' },
      cluster: { type: 'string' },
      team: { type: 'string' },
      'same-team': { type: 'boolean', default: false },
      stale: { type: 'boolean', default: false },
      apply: { type: 'boolean', default: false },
      json: { type: 'boolean', default: false },
    },
  });
  const { radius, region, cluster, team, stale, apply, json } = values;
  if (!/^[1-9]\d{0,3}$/.test(values.capacity)) throw new UsageError('--capacity must be a whole number, 1 or more.');
  if (radius !== undefined && !/^\d+(\.\d+)?$/.test(radius))
    throw new UsageError('--radius must be kilometres, like 20 or 7.5.');
  const question = {
    capacity: Number(values.capacity),
    radiusKm: radius === undefined ? undefined : Number(radius),
    region,
    cluster,
    team,
    sameTeam: values['same-team'],
    stale,
  };
  return withCurrentDatabase(async (client) => {
    const plan = await makePlan(client, question, apply);
    printAnswer(json, { ...plan, applied: apply }, page);
    return 0;
  });
}

function page({ stops, leftOut, idle, applied }: Plan & { readonly applied: boolean }): string {
  const sent = new Set(stops.map(({ vehicle_id }) => vehicle_id)).size;
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
  const without = Map.groupBy(idle, ({ freshness }) => freshness);
  return [
    stops.length > 0 ? `${table(rows)}\n` : '',
    `${stops.length} tickets for ${sent} vehicles, some ${kilometres} km of road.\n`,
    stops.length + leftOut.length === 0 ? 'No open ticket that is free is among those asked for.\n' : '',
    ...[...reasons].map(([reason, tickets]) => `${tickets.length} left out: ${reason}\n`),
    ...[...without].map(
      ([freshness, vehicles]) => `${vehicles.length} without a ticket, ${freshness}: ${names(vehicles)}\n`,
    ),
    applied ? 'They are assigned: see tickets.assignments.\n' : `${APPLY}\n`,
  ].join('');
}

const NAMED = 8;

const names = (vehicles: readonly Idle[]) =>
  listed(
    vehicles.map(({ vehicle }) => vehicle),
    NAMED,
  );
