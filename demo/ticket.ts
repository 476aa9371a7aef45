/**
 * One synthetic INC ticket: the record as the n8n export writes it, and what becomes of it (closed, moved, …).
 * Ticket `i` of a seed is the same whatever else is generated, so half a million of them need no memory.
 * All times are Nairobi's, as in the real feed. Nothing here knows how the pipeline cleans or loads.
 */
import { NAIROBI_AHEAD_MS } from '../src/text/nairobi.ts';
import { Dice, hash } from './chance.ts';
import { type Cluster, clusters, type Place } from './places.ts';

/** The feed's columns, in its order; the last is the free text of the customer. */
export const columns: readonly string[] = (
  'ticket_id service_type normalized_status raw_status bucket is_actionable is_alarm is_auto_created is_auto_closed cluster region ' +
  'location_name assigned_team owner sla_status mttr created_at_service scheduled_at closed_at first_seen_at last_seen_at ' +
  'source_created_at source_updated_at latitude longitude week_start week_end source_s3_bucket source_s3_key source_snapshot_id ' +
  'department source_type description'
).split(' ');

/** A record of the feed: every column, as text. */
export type Raw = Record<string, string>;

export type Ticket = { raw: Raw; place: Place | null };

const hour = 3_600_000;
const day = 24 * hour;
/** The tickets' content trails the file's own time by two days. */
const contentLag = 2 * day;
/** Of all rows; nearly all of them are open. */
const withoutCreation = 0.3;

/** `YYYY-MM-DD` by day since 1970: half of the time of a row went into toISOString, and a feed has a few hundred days. */
const dates = new Map<number, string>();

/** `YYYY-MM-DD HH:MM:SS` in Nairobi. */
export function eat(time: number): string {
  const local = time + NAIROBI_AHEAD_MS;
  const today = Math.floor(local / day);
  let date = dates.get(today);
  if (date === undefined) {
    date = new Date(today * day).toISOString().slice(0, 10);
    dates.set(today, date);
  }
  const second = Math.floor((local - today * day) / 1000);
  const two = (n: number) => (n < 10 ? `0${n}` : `${n}`);
  return `${date} ${two(Math.floor(second / 3600))}:${two(Math.floor(second / 60) % 60)}:${two(second % 60)}`;
}

const openStatuses: readonly (readonly [normalized: string, raw: string])[] = [
  ['Open', 'New'],
  ['Assigned', 'Assigned to team'],
  ['In Progress', 'work in progress'],
  ['In Progress', 'WIP'],
  ['On Hold', 'Pending customer'],
  ['On Hold', 'awaiting wayleave'],
];
const closedStatuses: typeof openStatuses = [
  ['Closed', 'Closed'],
  ['Closed', 'closed - confirmed'],
  ['Resolved', 'Resolved'],
  ['Cancelled', 'cancelled by customer'],
];
const owners = ['Last Mile', 'Fibre Ops', 'NOC', 'Wanjikũ Njeri', 'Otieno O.', 'Achieng’ & Sons', 'Mwende, Ltd', ''];
const descriptions = [
  '',
  '',
  '',
  'No light',
  'Red LOS',
  'Slow speed',
  'Hakuna mtandao',
  'Customer says "no light", ONT is red',
  'Drop cable cut, 30 m',
  'LOS; power OK',
  'Call first\nthen visit',
  'Fibre cut at 6" duct, "behind" the gate',
  'Mteja: mtandao polepole 😡',
  '光猫不亮 / لا يوجد إنترنت',
  'O\'Brien: "it\'s down",\r\nsince 06:00',
];
const totalWeight = clusters.reduce((sum, { weight }) => sum + weight, 0);

/** A cluster, by its share of the tickets. */
function someCluster(dice: Dice): Cluster {
  let left = dice.next() * totalWeight;
  for (const cluster of clusters) {
    left -= cluster.weight;
    if (left < 0) return cluster;
  }
  return clusters[0] as Cluster;
}

const teams = (cluster: string) => ['A', 'B', 'C', 'D'].map((letter) => `${cluster} ${letter}`);

/**
 * Ticket number `i` as it stands when the file of `at` is written.
 * Open in `openShare` of the cases; the newest content is two days older than `at`. `fresh`: reported within the last hour of content.
 */
export function ticket(seed: number, i: number, at: number, openShare: number, fresh = false): Ticket {
  const dice = new Dice(hash(seed, i));
  const open = dice.chance(openShare);
  const through = at - contentLag;
  const lasted = Math.min(-Math.log(1 - dice.next()) * 20 + 0.5, 400) * hour;
  const created = through - (fresh ? dice.next() * hour : open ? lasted * 2 : lasted + dice.next() * 45 * day);
  const closed = fresh ? through : created + lasted;
  const seen = Math.min(created + contentLag + dice.next() * hour, at);
  const changed = open ? seen : Math.min(closed + contentLag, at);
  // 85 % of the open rows lack their creation; the closed ones make it up to 30 % of all.
  const unknown = open ? 0.85 : Math.max(0, (withoutCreation - 0.85 * openShare) / (1 - openShare));
  const cluster = someCluster(dice);
  const monday = created - ((new Date(created + NAIROBI_AHEAD_MS).getUTCDay() + 6) % 7) * day;
  const [normalized, status] = dice.pick(open ? openStatuses : closedStatuses);
  const { place, text } = location(cluster, dice);
  const raw: Raw = {
    ticket_id: `WOT${String(700_000 + i).padStart(7, '0')}`,
    service_type: 'inc',
    normalized_status: normalized,
    raw_status: status,
    bucket: open ? 'pending' : 'closed',
    is_actionable: String(open),
    is_alarm: 'false',
    is_auto_created: 'false',
    is_auto_closed: 'false',
    // A few tickets were never given a cluster: they are not geocoded.
    cluster: dice.chance(0.005) ? '' : cluster.name,
    region: cluster.region,
    location_name: text,
    assigned_team: dice.chance(0.1) && open ? '' : dice.pick(teams(cluster.name)),
    owner: dice.pick(owners),
    sla_status: open || dice.chance(0.7) ? 'Compliant' : 'Breached',
    mttr: open ? '' : repairHours(created, closed, dice),
    created_at_service: dice.chance(unknown) ? '' : eat(created),
    scheduled_at: dice.chance(0.35) ? eat(created + 4 * hour + dice.next() * 2 * day) : '',
    closed_at: open ? '' : eat(closed),
    first_seen_at: eat(seen),
    last_seen_at: eat(changed),
    source_created_at: eat(seen).replace(' ', 'T'),
    source_updated_at: eat(changed).replace(' ', 'T'),
    latitude: '',
    longitude: '',
    week_start: eat(monday).slice(0, 10),
    week_end: eat(monday + 6 * day).slice(0, 10),
    source_s3_bucket: 'ops',
    source_s3_key: 'wm_task.xlsx',
    source_snapshot_id: '0',
    department: 'FO',
    source_type: 'xlsx',
    description: dice.pick(descriptions),
  };
  return { raw, place };
}

/** Decimal hours, and not the difference of the two times: the source subtracts waiting that it does not tell. */
function repairHours(created: number, closed: number, dice: Dice): string {
  return (((closed - created) / hour) * (0.5 + dice.next() * 0.6)).toFixed(2);
}

/** What can happen to a ticket between two files. Each returns a record that differs from the old one. */
export const changes = {
  status: ({ raw, place }: Ticket, at: number, dice: Dice): Ticket => {
    const others = openStatuses.filter(([normalized]) => normalized !== raw.normalized_status);
    const [normalized_status, raw_status] = dice.pick(others);
    return { raw: { ...raw, normalized_status, raw_status, ...touched(at) }, place };
  },
  team: ({ raw, place }: Ticket, at: number, dice: Dice): Ticket => {
    const others = teams(raw.cluster || 'Team').filter((team) => team !== raw.assigned_team);
    return { raw: { ...raw, assigned_team: dice.pick(others), ...touched(at) }, place };
  },
  /** Found to lie elsewhere: another cluster and place. */
  cluster: ({ raw }: Ticket, at: number, dice: Dice): Ticket => {
    const others = clusters.filter((c) => c.name !== raw.cluster && c.centre);
    const cluster = dice.pick(others);
    const { place, text } = location(cluster, dice);
    return {
      raw: { ...raw, cluster: cluster.name, region: cluster.region, location_name: text, ...touched(at) },
      place,
    };
  },
  /** A remark: an update that is no event. */
  remark: ({ raw, place }: Ticket, at: number): Ticket => ({
    raw: { ...raw, description: `${raw.description}\n“seen” ${eat(at)}, ✔`.slice(-400), ...touched(at) },
    place,
  }),
  close: ({ raw, place }: Ticket, at: number, dice: Dice): Ticket => {
    const [normalized_status, raw_status] = dice.pick(closedStatuses);
    const closed = at - contentLag;
    const created = closed - (1 + dice.next() * 60) * hour;
    const status = { normalized_status, raw_status, bucket: 'closed', is_actionable: 'false' };
    const done = {
      closed_at: eat(closed),
      mttr: repairHours(created, closed, dice),
      sla_status: dice.pick(['Compliant', 'Breached']),
    };
    return { raw: { ...raw, ...status, ...done, ...touched(at) }, place };
  },
  reopen: ({ raw, place }: Ticket, at: number): Ticket => {
    const status = { normalized_status: 'Open', raw_status: 'Re-opened', bucket: 'pending', is_actionable: 'true' };
    return { raw: { ...raw, ...status, closed_at: '', mttr: '', sla_status: 'Compliant', ...touched(at) }, place };
  },
};

function touched(at: number): Raw {
  return { last_seen_at: eat(at), source_updated_at: eat(at).replace(' ', 'T') };
}

/** A place of the cluster (busy ones more often) as field staff type it, and now and then something that names none. */
function location(cluster: Cluster, dice: Dice): { place: Place | null; text: string } {
  const place = cluster.places[Math.floor(cluster.places.length * dice.next() ** 2)];
  if (!place || dice.chance(0.01)) return { place: null, text: dice.pick(['NW_ADR_MNT', 'FDT12_SDUS', '']) };
  const name = place.area ? `${place.name} ${place.area}` : place.name;
  return { place, text: dice.pick(spellings)(dice.chance(0.02) ? mistyped(name) : name, dice.below(90) + 10) };
}

const spellings: readonly ((name: string, n: number) => string)[] = [
  (name) => `NW_${name}`,
  (name) => `NW_${name}`,
  (name, n) => `NW_${name}_FDT${n}`,
  (name, n) => `ADR_MNT_FDT${n}_${name}`,
  (name) => `NW_ADR_MNT_${name}`,
  (name) => `FDT_${name}_SDUS`,
  (name, n) => `SDUS_${name}_FDT-${n}`,
  (name) => `nw_${name.toLowerCase()}_mdu`,
  (name, n) => `OLT_${name}_PON 0/1/${n}`,
  (name, n) => `${name.toUpperCase()} FAT${n}`,
  (name, n) => `INC00123${n} NW_${name}`,
  (name, n) => `NW_${name}_PORT ${n}`,
  (name, n) => `${name} Hse No ${n}`,
  (name, n) => `${name} Blk C Door ${n}`,
  (name) => `  NW__${name.replaceAll(' ', '   ')}__ `,
  (name) => `NW_${name.replace(' Road', ' Rd').replace(' Estate', ' Est')}_SDU`,
  (name) => `NW_${name.replace("'", '’').replace('Phase ', 'PH')}📍`,
  (name) => `Opp, ${name}`,
];

/** One letter lost in the longest word. */
function mistyped(name: string): string {
  const longest = name.split(' ').reduce((a, b) => (b.length > a.length ? b : a));
  return name.replace(longest, longest.slice(0, 2) + longest.slice(3));
}

/** `fields` as a CSV line without its end. */
export function csvLine(fields: readonly string[]): string {
  return fields.map((field) => (/[",\r\n]/.test(field) ? `"${field.replaceAll('"', '""')}"` : field)).join(',');
}

/** The record as a CSV line without its end. */
export function ticketLine(raw: Raw): string {
  return csvLine(columns.map((column) => raw[column] ?? ''));
}
