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

/** A vehicle that has no ticket, neither by this plan nor from before. */
export interface Idle {
  readonly vehicle_id: string;
  readonly vehicle: string;
  /** As in tickets.vehicles_now: a plan uses live and parked ones. */
  readonly freshness: string;
}

export interface Plan {
  /** By vehicle, in the order of its tour. */
  readonly stops: readonly Stop[];
  readonly leftOut: readonly LeftOut[];
  readonly idle: readonly Idle[];
}

/** What a plan is about: the arguments of tickets.dispatch_plan, and the one team that it is for. */
interface Question {
  /** Tickets that a vehicle may have at once, those that it has already included. */
  readonly capacity: number;
  /** Straight kilometres of the longest way; by default as tickets.dispatch_settings says. */
  readonly radiusKm?: number | undefined;
  readonly region?: string | undefined;
  readonly cluster?: string | undefined;
  /** Only this team's vehicles and tickets, in any case. */
  readonly team?: string | undefined;
  /** A vehicle goes to its own team's tickets only. */
  readonly sameTeam: boolean;
  /** Vehicles with a stale position too. */
  readonly stale: boolean;
}

/**
 * Makes the plan, and assigns it when `apply` says so (tickets.assign_plan).
 * @throws ExpectedError when tickets.vehicles is gone
 */
export async function makePlan(db: Db, question: Question, apply: boolean): Promise<Plan> {
  const { capacity, radiusKm, region, cluster, team, sameTeam, stale } = question;
  const query = db.query<Omit<Stop, 'vehicle_id'> & { vehicle_id: string | null }>(
    `select p.vehicle_id, tickets.vehicle_name(v.label, p.vehicle_id) as vehicle, p.position, p.ticket_id,
       e.road_km_estimate::float8 as road_km, case when p.at_risk then 'at risk' else p.sla_state end as sla,
       trunc(t.hours_open)::float8 as hours_open, t.cluster, t.location_name, p.note
     from tickets.${apply ? 'assign_plan' : 'dispatch_plan'}(
       $1, p_radius_km => $2, p_region => $3, p_cluster => $4, p_same_team => $5::boolean or $6::text is not null, p_stale => $7,
       p_vehicles => case when $6 is not null then array(select vehicle_id from tickets.vehicles_now where tickets.is_of(null, null, team, null, null, $6)) end
     ) p
     left join tickets.vehicles_now v on v.vehicle_id = p.vehicle_id
     left join tickets.inc_open_sla t on t.ticket_id = p.ticket_id
     left join lateral tickets.road_estimate(p.metres) e on true
     where p.vehicle_id is not null or tickets.is_of(null, null, t.assigned_team, null, null, $6)
     order by p.vehicle_id, p.position, p.ticket_id`,
    [capacity, radiusKm, region, cluster, sameTeam, team, stale],
  );
  const { rows } = await query.catch((error: Error & { code?: string }) => {
    if (error.code !== UNDEFINED_TABLE) throw error;
    throw new ExpectedError(
      'The view tickets.vehicles is gone, as it goes with the table that it reads. Make it again: fleettickets vehicles',
    );
  });
  const stops = rows.filter((row): row is Stop => row.vehicle_id !== null);
  const { rows: idle } = await db.query<Idle>(
    `select vehicle_id, tickets.vehicle_name(label, vehicle_id) as vehicle, freshness
     from tickets.vehicles_now
     where open_assignments = 0 and tickets.is_of(null, null, team, null, null, $1) and vehicle_id <> all ($2)
     order by vehicle_id`,
    [team, stops.map(({ vehicle_id }) => vehicle_id)],
  );
  return {
    stops,
    idle,
    leftOut: rows.flatMap(({ vehicle_id, ticket_id, note }) =>
      vehicle_id === null ? [{ ticket_id, note: note ?? '' }] : [],
    ),
  };
}
const UNDEFINED_TABLE = '42P01';
