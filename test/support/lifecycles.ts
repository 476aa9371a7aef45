/**
 * Simulated lives of tickets, and what an hourly export shows of them: tickets are reopened, moved while open, while closed
 * and at the moment of closing, opened and closed between two looks, corrected, dated late or never; some vanish from the
 * files; for three days there is no file at all; content trails the files by hours to days.
 * Pure: the same seed gives the same lives. What analytics must say of them is counted in counts.ts.
 */
import { Dice, hash } from '../../demo/chance.ts';
import { eat } from '../../demo/ticket.ts';

export const HOUR = 3_600_000;
export const DAY = 24 * HOUR;

/** What the export says of a ticket; times in milliseconds. */
export interface State {
  readonly open: boolean;
  readonly status: string;
  readonly team: string;
  readonly cluster: string;
  readonly region: string;
  readonly owner: string;
  /** null: not told (yet). */
  readonly created: number | null;
  readonly closed: number | null;
  /** Decimal hours as text, as in the feed. */
  readonly mttr: string;
  readonly sla: string;
  readonly firstSeen: number;
}

export interface Life {
  readonly id: string;
  /** What is told, and from when on; oldest first. */
  readonly told: readonly { readonly from: number; readonly state: State }[];
  /** From then on no file lists it. */
  readonly vanishes: number;
}

export interface Simulation {
  readonly lives: readonly Life[];
  /** The files, oldest first: the time in the name, of which two may be equal, and the time whose state is shown. */
  readonly looks: readonly { readonly at: number; readonly shows: number }[];
  /** When history begins with what a takeover found; null: with the first file. */
  readonly baselineAt: number | null;
}

interface SimulationOptions {
  readonly seed: number;
  readonly tickets?: number;
  readonly days?: number;
  readonly baseline?: boolean;
  /** Midnight in Nairobi of the first day; the default crosses ISO week 53, a month's and a year's end. */
  readonly start?: number;
}

/** Times of day in Nairobi at which a file may be written; the last and the first second of a day among them. */
const TIMES = [0, 7 * HOUR, 13 * HOUR, 19.25 * HOUR, DAY - 1000];
const OUTAGE_DAYS = 3;

const CLUSTERS = [
  { cluster: 'Kilimani', region: 'nairobi' },
  { cluster: 'Nyali', region: 'coast' },
  { cluster: 'Milimani', region: 'rift valley' },
  { cluster: '', region: 'nairobi' },
];
const OWNERS = ['Last Mile', 'NOC', ''];

export function simulate(options: SimulationOptions): Simulation {
  const { seed, tickets = 160, days = 16, baseline = false, start = Date.parse('2020-12-20T00:00:00+03:00') } = options;
  const dice = new Dice(hash(seed, 'looks'));
  const outage = 4 + dice.below(Math.max(1, days - 9));
  const looks: { at: number; shows: number }[] = [];
  for (let day = 0; day < days; day += 1) {
    if (day >= outage && day < outage + OUTAGE_DAYS) continue;
    for (const time of TIMES) {
      const at = start + day * DAY + time;
      if (dice.chance(0.5)) looks.push({ at, shows: Math.max(at, looks.at(-1)?.shows ?? 0) });
    }
    const last = looks.at(-1);
    const isWrittenAgain = dice.chance(0.15) || day === outage + OUTAGE_DAYS;
    if (last && isWrittenAgain) looks.push({ at: last.at, shows: last.shows + 2 * HOUR });
  }
  const lives = Array.from({ length: tickets }, (_, i) => life(seed, i, start, days));
  return { lives, looks, baselineAt: baseline ? start - HOUR : null };
}

/** The life of ticket `i`, from at most a week before the first day on. */
function life(seed: number, i: number, start: number, days: number): Life {
  const dice = new Dice(hash(seed, 'life', i));
  const within = (hours: number) => Math.ceil(dice.next() * hours * 3600) * 1000;
  const lasting = () => Math.ceil(-Math.log(1 - dice.next()) * 20 * 3600) * 1000;
  const created = start + Math.round((dice.next() * (days + 7) - 7) * 86_400) * 1000;
  /** From when on created_at_service is told: always, from the first closing on, never. */
  const dated = dice.pick(['always', 'always', 'late', 'never']);
  const place = dice.pick(CLUSTERS);
  const told: { from: number; state: State }[] = [];
  let from = created + within(36);
  let state: State = {
    ...place,
    open: true,
    status: 'Open',
    team: someTeam(dice, place.cluster),
    owner: dice.pick(OWNERS),
    created: dated === 'always' ? created : null,
    closed: null,
    mttr: '',
    sla: 'Compliant',
    firstSeen: from,
  };
  const tell = (after: number, change: Partial<State>) => {
    from = Math.max(from, after);
    state = { ...state, ...change };
    told.push({ from, state });
  };
  tell(from, {});
  let happened = created;
  for (let closings = 0; closings < 3; closings += 1) {
    if (dice.chance(0.3)) tell(from + within(20), { team: someTeam(dice, state.cluster) });
    if (dice.chance(0.1)) tell(from + within(20), { ...dice.pick(CLUSTERS) });
    if (dice.chance(0.1)) tell(from + within(20), { status: 'On Hold', owner: dice.pick(OWNERS) });
    if (dice.chance(0.12)) break; // stays open
    happened += lasting();
    tell(Math.max(from, happened + within(dice.chance(0.3) ? 60 : 6)), {
      ...closing(dice, happened, created),
      ...(dice.chance(0.25) && { team: someTeam(dice, state.cluster) }),
      ...(dated === 'late' && { created }),
    });
    while (dice.chance(0.25)) tell(from + within(30), correction(dice, state, happened));
    if (dice.chance(0.15)) tell(from + within(30), { team: someTeam(dice, state.cluster) }); // moved while closed
    if (!dice.chance(0.25)) break;
    happened = from;
    tell(from + within(40), {
      open: true,
      status: 'Open',
      ...(dice.chance(0.7) && { closed: null, mttr: '' }),
      ...(dice.chance(0.3) && { team: someTeam(dice, state.cluster) }),
    });
  }
  const vanishes = dice.chance(0.05) ? (told[0]?.from ?? 0) + within(200) : Number.POSITIVE_INFINITY;
  return { id: `WOT${String(700_000 + i).padStart(7, '0')}`, told, vanishes };
}

const someTeam = (dice: Dice, cluster: string) =>
  dice.chance(0.1) ? '' : `${cluster || 'Pool'} ${dice.pick(['A', 'B'])}`;

function closing(dice: Dice, at: number, created: number): Partial<State> {
  return {
    open: false,
    status: dice.pick(['Closed', 'Resolved', 'Cancelled']),
    closed: dice.chance(0.92) ? at : null,
    mttr: dice.chance(0.9) ? (((at - created) / HOUR) * dice.next()).toFixed(2) : '',
    sla: dice.pick(['Compliant', 'Breached']),
  };
}

/** Of the time, of the repair time, of both: or of a closing that had no time yet. */
function correction(dice: Dice, state: State, at: number): Partial<State> {
  const closed = (state.closed ?? at) + Math.round((dice.next() * 6 - 3) * 3600) * 1000;
  const mttr = (dice.next() * 50).toFixed(2);
  return dice.pick([{ closed }, { mttr }, { closed, mttr }]);
}

/** What a file written at that time says of the ticket; undefined: it does not list it. */
export function stateAt(life: Life, at: number): State | undefined {
  if (at >= life.vanishes) return undefined;
  return life.told.findLast(({ from }) => from <= at)?.state;
}

/** The ticket's record in the feed. */
export function recordOf(id: string, state: State): Record<string, string> {
  const time = (at: number | null) => (at === null ? '' : eat(at));
  return {
    ticket_id: id,
    normalized_status: state.status,
    raw_status: state.status,
    is_actionable: String(state.open),
    cluster: state.cluster,
    region: state.region,
    assigned_team: state.team,
    owner: state.owner,
    created_at_service: time(state.created),
    first_seen_at: time(state.firstSeen),
    closed_at: time(state.closed),
    mttr: state.mttr,
    sla_status: state.sla,
  };
}

/** Every file, in order. */
export function files({
  lives,
  looks,
}: Simulation): { readonly name: string; readonly records: Record<string, string>[] }[] {
  return looks.map(({ at, shows }, n) => {
    // Sorts after the first, should both be written within the second to which a bucket tells times.
    const again = looks[n - 1]?.at === at ? '_again' : '';
    const name = `${eat(at).replace(' ', 'T').replaceAll(':', '-')}${again}.csv`;
    const records = lives.flatMap((life) => {
      const state = stateAt(life, shows);
      return state ? [recordOf(life.id, state)] : [];
    });
    return { name, records };
  });
}
