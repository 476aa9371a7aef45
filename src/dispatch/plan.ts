/** The plan of dispatch for the command line: tickets.dispatch_plan with what a dispatcher calls things. */
import type { Db } from '../database/client.ts';
import { ExpectedError } from '../settings/errors.ts';

/** A ticket that a vehicle goes to. */
interface Stop {
  readonly vehicle_id: string;
  /** Registration plate or name; the vehicle's id where it has none. */
  readonly vehicle: string;
  readonly position: number;
  readonly ticket_id: string;
  /** Estimated from the straight line. */
  readonly road_km: number;
  readonly sla: string;
  /** Whole hours, cut: 47.9 h is not yet a breach. */
  readonly hours_open: number | null;
  readonly cluster: string | null;
  readonly location_name: string | null;
  readonly note: string | null;
}

/** A ticket that is left out, and why. */
interface LeftOut {
  readonly ticket_id: string;
  readonly note: string;
}

export interface Plan {
  /** By vehicle, in the order of its tour. */
  readonly stops: readonly Stop[];
  readonly leftOut: readonly LeftOut[];
}

/**
 * Makes the plan, and assigns it when `apply` says so (tickets.assign_plan).
 * @param capacity tickets that a vehicle may have at once, those that it has already included
 * @throws ExpectedError when tickets.vehicles is gone
 */
export async function makePlan(db: Db, capacity: number, apply: boolean): Promise<Plan> {
  const query = db.query<Omit<Stop, 'vehicle_id'> & { vehicle_id: string | null }>(
    `select p.vehicle_id, coalesce(nullif(v.label, ''), p.vehicle_id) as vehicle, p.position, p.ticket_id,
       e.road_km_estimate::float8 as road_km, case when p.at_risk then 'at risk' else p.sla_state end as sla,
       trunc(t.hours_open)::float8 as hours_open, t.cluster, t.location_name, p.note
     from tickets.${apply ? 'assign_plan' : 'dispatch_plan'}($1) p
     left join tickets.vehicles_now v on v.vehicle_id = p.vehicle_id
     left join tickets.inc_open_sla t on t.ticket_id = p.ticket_id
     left join lateral tickets.road_estimate(p.metres) e on true
     order by p.vehicle_id, p.position, p.ticket_id`,
    [capacity],
  );
  const { rows } = await query.catch((error: Error & { code?: string }) => {
    if (error.code !== UNDEFINED_TABLE) throw error;
    throw new ExpectedError(
      'The view tickets.vehicles is gone, as it goes with the table that it reads. Make it again: fleettickets vehicles',
    );
  });
  return {
    stops: rows.filter((row): row is Stop => row.vehicle_id !== null),
    leftOut: rows.flatMap(({ vehicle_id, ticket_id, note }) =>
      vehicle_id === null ? [{ ticket_id, note: note ?? '' }] : [],
    ),
  };
}
const UNDEFINED_TABLE = '42P01';
