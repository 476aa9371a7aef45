/**
 * The tracker of the demo: twelve made-up vehicles in a table of its own, as other software would keep them. Each drives to
 * the first ticket that it is assigned to, and stands there; without one it goes round the places of its cluster. One sleeps
 * and one was last located some hours ago. Time runs twenty times as fast for them as for everybody else.
 */
import type { ClientBase } from 'pg';
import { connect } from '../src/database/client.ts';
import { findTracker, pointVehiclesAt } from '../src/dispatch/trackers.ts';
import { Dice } from './chance.ts';
import { type Cluster, clusters, kilometres, type Point } from './places.ts';

const TICK_MS = 3_000;
const SPEED_KMH = 30;
const TIME_LAPSE = 20;
/** In one tick. */
const STEP_KM = (SPEED_KMH * TIME_LAPSE * TICK_MS) / 3_600_000;

const HOMES = [
  'Westlands',
  'Kilimani',
  'Embakasi',
  'Kasarani',
  'South B',
  'Ruaka',
  "Lang'ata",
  'Thika',
  'Kitengela',
  'Mombasa',
  'Kisumu',
  'Nakuru',
];
const ASLEEP = 'Ruaka';
const SILENT = 'Kitengela';

interface Vehicle {
  imei: string;
  cluster: Cluster;
  at: Point;
  goal: Point;
  moving: boolean;
}

/** Makes the table, points tickets.vehicles at it, and drives until stopped. */
export async function startTracker(databaseUrl: string): Promise<{ stop(): Promise<void> }> {
  const client = await connect(databaseUrl);
  const dice = new Dice(12);
  const vehicles = HOMES.map((home, n): Vehicle => {
    const cluster = clusters.find(({ name }) => name === home);
    if (!cluster?.centre) throw new Error(`places.ts has no cluster ${home}`);
    const [at, goal] = [dice.pick(cluster.places), dice.pick(cluster.places)];
    return { imei: String(860_000_000_000_000 + n), cluster, at, goal, moving: home !== ASLEEP && home !== SILENT };
  });
  await park(client, vehicles);
  await pointVehiclesAt(client, await findTracker(client, 'tracker.positions'));

  let ticking = Promise.resolve();
  const timer = setInterval(() => {
    ticking = ticking.then(() => tick(client, vehicles, dice));
  }, TICK_MS);
  return {
    async stop() {
      clearInterval(timer);
      await ticking;
      await client.end();
    },
  };
}

async function park(client: ClientBase, vehicles: readonly Vehicle[]): Promise<void> {
  await client.query(
    `create schema tracker;
     create table tracker.positions (
       imei text primary key, plate text, team text, lng double precision, lat double precision, gps_time timestamptz,
       heartbeat_time timestamptz, is_moving boolean, speed_kmh double precision
     )`,
  );
  await client.query(
    `insert into tracker.positions
     select imei, plate, team, lng, lat, now() - hours * interval '1 hour',
       now() - case when asleep then interval '4 minutes' else hours * interval '1 hour' end, hours = 0, case when hours = 0 then $2::float8 else 0 end
     from jsonb_to_recordset($1) as v (imei text, plate text, team text, lng float8, lat float8, hours float8, asleep boolean)`,
    [
      JSON.stringify(
        vehicles.map(({ imei, cluster, at: { lng, lat } }, n) => ({
          imei,
          plate: `KD${'ABCDEFGHJKLM'[n]} ${101 + 37 * n}${'ZYXWVUTSRQPN'[n]}`,
          team: `${cluster.name} A`,
          lng,
          lat,
          hours: cluster.name === ASLEEP ? 9 : cluster.name === SILENT ? 5 : 0,
          asleep: cluster.name === ASLEEP,
        })),
      ),
      SPEED_KMH,
    ],
  );
}

/** One step of every vehicle that is awake. */
async function tick(client: ClientBase, vehicles: readonly Vehicle[], dice: Dice): Promise<void> {
  const { rows } = await client.query<{ vehicle_id: string; lng: number; lat: number }>(
    `select distinct on (a.vehicle_id) a.vehicle_id, t.longitude as lng, t.latitude as lat
     from tickets.assignments a join tickets.inc t using (ticket_id)
     where a.state = 'assigned' and t.longitude is not null order by a.vehicle_id, a.position`,
  );
  const tickets = new Map(rows.map(({ vehicle_id, lng, lat }) => [vehicle_id, { lng, lat }]));
  const awake = vehicles.filter(({ cluster }) => cluster.name !== ASLEEP && cluster.name !== SILENT);
  for (const vehicle of awake) {
    const ticket = tickets.get(vehicle.imei);
    if (ticket) vehicle.goal = ticket;
    else if (kilometres(vehicle.at, vehicle.goal) < STEP_KM) vehicle.goal = dice.pick(vehicle.cluster.places);
    const left = kilometres(vehicle.at, vehicle.goal);
    const share = Math.min(1, STEP_KM / Math.max(left, STEP_KM));
    vehicle.moving = left > STEP_KM;
    vehicle.at = {
      lng: vehicle.at.lng + (vehicle.goal.lng - vehicle.at.lng) * share,
      lat: vehicle.at.lat + (vehicle.goal.lat - vehicle.at.lat) * share,
    };
  }
  await client.query(
    `update tracker.positions p
     set lng = v.lng, lat = v.lat, gps_time = now(), heartbeat_time = now(), is_moving = v.moving, speed_kmh = case when v.moving then $2::float8 else 0 end
     from jsonb_to_recordset($1) as v (imei text, lng float8, lat float8, moving boolean) where p.imei = v.imei`,
    [JSON.stringify(awake.map(({ imei, at: { lng, lat }, moving }) => ({ imei, lng, lat, moving }))), SPEED_KMH],
  );
}
