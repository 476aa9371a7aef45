/**
 * What analytics must say of simulated lives, counted from the lives themselves: which state each look showed of each
 * ticket, and nothing else. Knows neither events nor SQL.
 */
import { DAY, HOUR, type Life, type Simulation, type State, stateAt } from './lifecycles.ts';

export type Dimension = 'team' | 'cluster' | 'region' | 'owner' | 'status';

/** A look that showed a ticket for the first time, or otherwise than before. `look` -1: what a takeover found. */
export interface Sight {
  readonly look: number;
  readonly at: number;
  readonly before: State | null;
  readonly state: State;
}

export interface Closing {
  readonly life: Life;
  /** 1 for the first; one of before history that was undone counts. */
  readonly no: number;
  readonly observedAt: number;
  readonly observed: boolean;
  readonly state: State;
  readonly before: State | null;
  /** closed_at as it was first told. */
  readonly toldFirst: number | null;
  readonly reassignments: number;
  /** As last told of this closing. */
  closed: number | null;
  mttr: string;
  sla: string;
  reopenedAt: number | null;
}

/** A day's number in Nairobi. */
export const dayOf = (at: number) => Math.floor((at + 3 * HOUR) / DAY);

export const valueIn = (state: State, by: Dimension | null): string | null =>
  by === null ? null : state[by] || '(none)';

/** What the looks showed of a ticket, one after the other. A look that does not list it shows nothing of it. */
export function sights(life: Life, { looks, baselineAt }: Simulation): Sight[] {
  const found: Sight[] = [];
  const all = looks.map(({ at, shows }, look) => ({ look, at, shows }));
  if (baselineAt !== null) all.unshift({ look: -1, at: baselineAt, shows: baselineAt });
  for (const { look, at, shows } of all) {
    const state = stateAt(life, shows);
    const before = found.at(-1)?.state ?? null;
    if (state && state !== before) found.push({ look, at, before, state });
  }
  return found;
}

/** Every closing, also those of before history that were never undone. */
export function closings(simulation: Simulation): Closing[] {
  return simulation.lives.flatMap((life) => closingsOf(life, sights(life, simulation)));
}

function closingsOf(life: Life, seen: readonly Sight[]): Closing[] {
  const found: Closing[] = [];
  let no = 0;
  let reassignments = 0;
  for (const { look, at, before, state } of seen) {
    const last = found.at(-1);
    if (before?.open && before.team !== '' && before.team !== state.team) reassignments += 1;
    if (!state.open && before?.open !== false) {
      no += 1;
      const { closed, mttr, sla } = state;
      const told = { closed, mttr, sla, toldFirst: closed, reopenedAt: null };
      found.push({ life, no, observedAt: at, observed: look >= 0, state, before, reassignments, ...told });
      reassignments = 0;
    } else if (!state.open && last && (last.closed !== state.closed || last.mttr !== state.mttr)) {
      Object.assign(last, { closed: state.closed, mttr: state.mttr, sla: state.sla });
    } else if (state.open && before?.open === false) {
      if (last && !last.observed) found.pop();
      else if (last) last.reopenedAt = at;
      reassignments = 0;
    }
  }
  return found;
}

/** The clock of a ticket, as it is known once all looks are in. */
export function clockOf(life: Life, simulation: Simulation): { at: number; known: boolean } | undefined {
  const state = sights(life, simulation).at(-1)?.state;
  return state && { at: state.created ?? state.firstSeen, known: state.created !== null };
}

/** The clock that counts for a closing: what was told with it, else what is known now. */
export function clockOfClosing({ life, state }: Closing, simulation: Simulation): { at: number; known: boolean } {
  const now = clockOf(life, simulation) as { at: number; known: boolean };
  return state.created !== null ? { at: state.created, known: true } : now;
}

/** Milliseconds as hours with two decimals, halves up, as SQL rounds them. */
export const hoursIn = (duration: number) => Math.round(duration / 36_000) / 100;

export const minutesOf = (mttr: string): number | null => (mttr === '' ? null : Math.round(Number(mttr) * 60));

/** Of a day without a look: the last one before it. undefined: there was none yet. */
export function lastLookOf(day: number, { looks }: Simulation): number | undefined {
  const found = looks.findLastIndex(({ at }) => dayOf(at) <= day);
  return found >= 0 ? found : undefined;
}

/** Of an ascending list: the smallest value that at least that share does not exceed. */
export function quantile(sorted: readonly number[], share: number): number | null {
  return sorted[Math.ceil(sorted.length * share - 1e-9) - 1] ?? null;
}

/** Kaplan-Meier: the time until that share is closed; null: not so many are. */
export function kaplanMeier(subjects: readonly { lasted: number; ended: boolean }[], share: number): number | null {
  let open = 1;
  for (const time of [...new Set(subjects.map(({ lasted }) => lasted))].sort((a, b) => a - b)) {
    const watched = subjects.filter(({ lasted }) => lasted >= time).length;
    const closed = subjects.filter(({ lasted, ended }) => lasted === time && ended).length;
    open *= 1 - closed / watched;
    if (open <= 1 - share + 1e-9) return time;
  }
  return null;
}
