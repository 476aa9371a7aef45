/** Vehicles and tickets where a test wants them: a tracker's table that tickets.vehicles is pointed at, and open tickets. */
import type { Db } from '../../src/database/client.ts';

export interface Vehicle {
  id: string;
  lng: number | null;
  lat: number | null;
  /** Minutes since the position was taken; default 1. */
  located?: number | null;
  /** Minutes since the tracker was heard of; default as located. */
  seen?: number | null;
  moving?: boolean | null;
  speed?: number | null;
  team?: string | null;
}

export interface Ticket {
  id: string;
  lng?: number;
  lat?: number;
  /** Hours since its SLA clock started; default 1. From 40 on it is at risk, from 48 on breached. */
  hours?: number;
  team?: string;
  cluster?: string;
  region?: string;
  open?: boolean;
}

/** A tracker's table as other software has it, empty, with tickets.vehicles over it. */
export async function createTracker(db: Db): Promise<void> {
  await db.query(
    `drop schema if exists tracker cascade;
     create schema tracker;
     create table tracker.positions (
       imei text, plate text, crew text, longitude double precision, latitude double precision, fix_time timestamptz,
       heartbeat timestamptz, moving boolean, speed double precision
     );
     create or replace view tickets.vehicles as
     select imei as vehicle_id, plate as label, crew as team, longitude as lng, latitude as lat, fix_time as located_at,
       heartbeat as seen_at, moving, speed as speed_kmh, 'test'::text as source
     from tracker.positions`,
  );
}

/** Puts these vehicles in the place of those that are there. */
export async function park(db: Db, vehicles: readonly Vehicle[]): Promise<void> {
  await db.query('delete from tracker.positions');
  await db.query(
    `insert into tracker.positions
     select id, 'KDA ' || id, team, lng, lat, now() - located * interval '1 minute', now() - seen * interval '1 minute', moving, speed
     from jsonb_to_recordset($1) as v (
       id text, team text, lng float8, lat float8, located float8, seen float8, moving boolean, speed float8
     )`,
    [
      JSON.stringify(
        vehicles.map(({ located = 1, seen = located, ...vehicle }) => ({ team: null, ...vehicle, located, seen })),
      ),
    ],
  );
}

/** Adds these tickets, as a load writes them; with lng and lat they lie there, without nowhere or at their cluster. */
export async function report(db: Db, tickets: readonly Ticket[]): Promise<void> {
  await db.query(
    `insert into tickets.inc (ticket_id, raw)
     select id, jsonb_strip_nulls(jsonb_build_object(
       'ticket_id', id, 'is_actionable', open::text, 'longitude', lng::text, 'latitude', lat::text, 'assigned_team', team,
       'cluster', cluster, 'region', region,
       'created_at_service', to_char((now() - hours * interval '1 hour') at time zone 'Africa/Nairobi', 'YYYY-MM-DD HH24:MI:SS.US')
     ))
     from jsonb_to_recordset($1) as t (
       id text, open boolean, lng text, lat text, team text, cluster text, region text, hours float8
     )`,
    [JSON.stringify(tickets.map((ticket) => ({ hours: 1, open: true, ...ticket })))],
  );
}
