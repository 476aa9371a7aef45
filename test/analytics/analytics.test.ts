/**
 * Analytics against simulated lives of tickets (test/support/lifecycles.ts), sent through the pipeline file by file: every cell
 * of backlog, flow and closings equals what is counted from the lives. ANALYTICS_SEEDS=1,2,3 takes other seeds.
 */
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import {
  type Closing,
  clockOf,
  clockOfClosing,
  closings,
  type Dimension,
  dayOf,
  hoursIn,
  kaplanMeier,
  lastLookOf,
  minutesOf,
  quantile,
  type Sight,
  sights,
  valueIn,
} from '../support/counts.ts';
import { type Environment, startEnvironment } from '../support/environment.ts';
import { DAY, files, HOUR, recordOf, type Simulation, type State, simulate, stateAt } from '../support/lifecycles.ts';
import { csvOf, fetchNow, PREFIX } from '../support/pipeline.ts';

const SEEDS = (process.env['ANALYTICS_SEEDS'] ?? '1,2').split(',').map(Number);
const DIMENSIONS = [null, 'team', 'cluster', 'region', 'owner', 'status'] as const;

/** The first day, and the day after the last, that analytics is asked about. */
const FROM = '2020-12-10';
const TO = '2021-01-10';
const first = dayOf(Date.parse(`${FROM}T00:00:00+03:00`));
const days = dayOf(Date.parse(`${TO}T00:00:00+03:00`)) - first;

/** Sums by cell; a cell that is asked for and never counted is 0. */
class Cells {
  readonly #counts = new Map<string, number>();
  add(...cell: unknown[]): void {
    const key = cell.join('|');
    this.#counts.set(key, (this.#counts.get(key) ?? 0) + 1);
  }
  get(...cell: unknown[]): number {
    return this.#counts.get(cell.join('|')) ?? 0;
  }
  values(place: number): Set<string> {
    return new Set([...this.#counts.keys()].map((key) => key.split('|')[place] as string));
  }
}

for (const seed of SEEDS) {
  describe(`simulated lives of seed ${seed}`, () => {
    let env: Environment;
    let simulation: Simulation;
    let closed: Closing[];
    let seen: Sight[];
    before(async () => {
      env = await startEnvironment();
      simulation = simulate({ seed, baseline: seed % 2 === 0 });
      closed = closings(simulation);
      seen = simulation.lives.flatMap((life) => sights(life, simulation));
      if (simulation.baselineAt !== null) await takeOver(env, simulation, simulation.baselineAt);
      for (const { name, records } of files(simulation)) {
        await env.putObject(PREFIX + name, csvOf(records));
        assert.deepEqual(await fetchNow(env), [], name);
      }
    });
    after(() => env.close());
    const ask = async (sql: string, values: unknown[] = []) => (await env.pool.query(sql, values)).rows;

    test('the lives hold all that has to be told apart', () => {
      const some = (what: string, found: unknown) => assert.ok(found, what);
      some(
        'closed twice',
        closed.some(({ reopenedAt }) => reopenedAt !== null),
      );
      some(
        'moved while closed',
        seen.some(({ before, state }) => before && !before.open && !state.open && before.team !== state.team),
      );
      some(
        'moved and closed',
        closed.some(({ before, state }) => before?.open && before.team !== state.team),
      );
      some(
        'first seen closed',
        closed.some(({ before, observed }) => observed && before === null),
      );
      some('closed by the baseline', simulation.baselineAt === null || closed.some(({ observed }) => !observed));
      some(
        'never dated',
        closed.some(({ closed: at }) => at === null),
      );
      some(
        'corrected',
        closed.some(({ closed: at, toldFirst }) => at !== toldFirst),
      );
      some(
        'vanished',
        simulation.lives.some(({ vanishes }) => Number.isFinite(vanishes)),
      );
      some(
        'equal times',
        simulation.looks.some(({ at }, n) => simulation.looks[n + 1]?.at === at),
      );
    });

    test('inc_closures: every closing with its team, times and figures', async () => {
      const rows = await ask(
        `select ticket_id, closure_no, closed_at, observed_at, observed, assigned_team, team_before, handover_at_close, owner, cluster,
           region, clock_start, clock_source, hours_to_close::float8, mttr_minutes::int, source_sla_status, within_24h, within_48h,
           reassignments, reopened_at, is_final, normalized_status
         from tickets.inc_closures order by ticket_id, closure_no`,
      );
      const expected = closed.map((closing) => {
        const { life, no, state, before } = closing;
        const clock = clockOfClosing(closing, simulation);
        const lasted = closing.closed === null || closing.closed < clock.at ? null : closing.closed - clock.at;
        return {
          ticket_id: life.id,
          closure_no: no,
          closed_at: closing.closed === null ? null : new Date(closing.closed),
          observed_at: new Date(closing.observedAt),
          observed: closing.observed,
          assigned_team: state.team || null,
          team_before: before?.team || null,
          handover_at_close: Boolean(before?.team) && before?.team !== state.team,
          owner: state.owner || null,
          cluster: state.cluster || null,
          region: state.region,
          clock_start: new Date(clock.at),
          clock_source: clock.known ? 'created_at_service' : 'first_seen_at',
          hours_to_close: lasted === null ? null : hoursIn(lasted),
          mttr_minutes: minutesOf(closing.mttr),
          source_sla_status: closing.sla,
          within_24h: lasted === null ? null : lasted <= 24 * HOUR,
          within_48h: lasted === null ? null : lasted <= 48 * HOUR,
          reassignments: closing.reassignments,
          reopened_at: closing.reopenedAt === null ? null : new Date(closing.reopenedAt),
          is_final: closing.reopenedAt === null,
          normalized_status: state.status,
        };
      });
      assert.deepEqual(rows, expected);
      const [open] = await ask('select count(*)::int as n from tickets.inc where is_actionable is not true');
      assert.equal(
        rows.filter((row) => row.is_final).length,
        open.n,
        'those that stand are the tickets that are not open',
      );
    });

    test('inc_backlog_daily: what was open and what changed, by day and value', async () => {
      let cells = 0;
      for (const by of [null, 'team', 'cluster', 'region'] as const) {
        const expected = backlog(simulation, by);
        const rows = await ask(
          `select day::text, value, open::int, opened::int, reopened::int, closed::int, net::int, observed,
             array[open_breached, open_at_risk, open_unknown, aged_0_24h, aged_24_48h, aged_2_7d, aged_7_30d, aged_over_30d]::int[] as clocks
           from tickets.inc_backlog_daily($1, $2, $3)`,
          [FROM, TO, by],
        );
        assert.equal(rows.length, days * (by === null ? 1 : expected.values(2).size));
        for (const { day, value, open, observed, net, clocks, ...flow } of rows) {
          const on = dayOf(Date.parse(`${day}T00:00:00+03:00`));
          const look = lastLookOf(on, simulation);
          const [lastAt] = look === undefined ? [undefined] : [simulation.looks[look]?.at];
          const known = look !== undefined || (simulation.baselineAt !== null && dayOf(simulation.baselineAt) <= on);
          assert.equal(open, known ? expected.get('open', on, value) : null, `open ${day} ${value}`);
          const byClock = CLOCKS.map((what) => (known ? expected.get(what, on, value) : null));
          assert.deepEqual(clocks, byClock, `clocks ${day} ${value}`);
          const counted = { opened: 0, reopened: 0, closed: 0 };
          for (const what of ['opened', 'reopened', 'closed'] as const) counted[what] = expected.get(what, on, value);
          assert.deepEqual(flow, counted, `${day} ${value}`);
          assert.equal(net, counted.opened + counted.reopened - counted.closed);
          const isBaseline = simulation.baselineAt !== null && dayOf(simulation.baselineAt) === on;
          assert.equal(observed, isBaseline || (lastAt !== undefined && dayOf(lastAt) === on), `observed ${day}`);
          cells += 4;
        }
      }
      assert.ok(cells > 1000);
    });

    test('inc_flow: what was created, closed and reopened, by period and value', async () => {
      for (const step of ['day', 'week', 'month']) {
        for (const by of DIMENSIONS) {
          const expected = flow(simulation, closed, by, step);
          const rows = await ask(
            `select period::text, value, created::int, closed::int, closed_final::int, reopened::int, undated::int, net::int,
               clock_known_pct::float8, provisional, starts_at
             from tickets.inc_flow($1, $2, $3, $4)`,
            [FROM, TO, step, by],
          );
          const [{ settled }] = await ask('select tickets.settled_through() as settled');
          const periods = new Set(rows.map(({ period }) => period));
          if (by) assert.deepEqual(new Set(rows.map(({ value }) => value)), expected.values(2));
          assert.equal(rows.length, periods.size * (by ? expected.values(2).size : 1));
          for (const {
            period,
            value,
            net,
            clock_known_pct,
            provisional,
            starts_at,
            created,
            closed,
            reopened,
            ...others
          } of rows) {
            const counts = { created, closed, reopened, ...others };
            const told = Object.fromEntries(
              Object.keys(counts).map((what) => [what, expected.get(what, period, value)]),
            );
            assert.deepEqual(counts, told, `${step} ${period} ${value}`);
            assert.equal(net, created + reopened - closed);
            const known = expected.get('known', period, value);
            assert.equal(clock_known_pct, created === 0 ? null : Math.round((1000 * known) / created) / 10);
            assert.equal(starts_at.getTime(), Date.parse(`${period}T00:00:00+03:00`));
            const end = Math.min(periodEnd(period, step), Date.parse(`${TO}T00:00:00+03:00`));
            assert.equal(provisional, end > settled.getTime());
          }
        }
      }
    });

    test('inc_repair_times and inc_team_scorecard: figures of the closings', async () => {
      const dated = closed.filter(({ closed: at }) => at !== null && dayOf(at) >= first && dayOf(at) < first + days);
      const hoursOf = (closing: Closing) => {
        const lasted = (closing.closed ?? 0) - clockOfClosing(closing, simulation).at;
        return lasted < 0 ? null : hoursIn(lasted);
      };
      const sorted = (values: (number | null)[]) => values.filter((v) => v !== null).sort((a, b) => a - b);
      const pct = (n: number, of: number) => (of === 0 ? null : Math.round((1000 * n) / of) / 10);
      const [all] = await ask(`select sum(n)::int as n from tickets.inc_repair_times($1, $2, 'day') where n > 0`, [
        FROM,
        TO,
      ]);
      assert.equal(all.n, dated.length);
      const teams = await ask(
        `select assigned_team, closed::int, closed_final::int, share_pct::float8, reopened_pct::float8, mttr_median::int,
           hours_p80::float8, within_48h_pct::float8, received::int, handed_over::int, open_now::int, low_n
         from tickets.inc_team_scorecard($1, $2)`,
        [FROM, TO],
      );
      const moves = seen.filter(
        ({ look, before, state }) => look >= 0 && before && before.team !== state.team && (before.open || state.open),
      );
      const now = simulation.lives.flatMap((life) => sights(life, simulation).at(-1)?.state ?? []);
      for (const { assigned_team: team, ...figures } of teams) {
        const its = dated.filter(({ state }) => valueIn(state, 'team') === team);
        const mttr = sorted(its.map(({ mttr }) => minutesOf(mttr)));
        const hours = sorted(its.map(hoursOf));
        const reopened = its.filter(
          ({ closed: at, reopenedAt }) => reopenedAt !== null && reopenedAt - (at ?? 0) <= 30 * DAY,
        );
        assert.deepEqual(
          figures,
          {
            closed: its.length,
            closed_final: its.filter(({ reopenedAt }) => reopenedAt === null).length,
            share_pct: pct(its.length, dated.length),
            reopened_pct: pct(reopened.length, its.length),
            mttr_median: mttr.length < 5 ? null : quantile(mttr, 0.5),
            hours_p80: hours.length < 5 ? null : quantile(hours, 0.8),
            within_48h_pct: pct(its.filter((c) => (hoursOf(c) ?? Infinity) <= 48).length, hours.length),
            received: moves.filter(({ state }) => valueIn(state, 'team') === team).length,
            handed_over: moves.filter(({ before }) => before && valueIn(before, 'team') === team).length,
            open_now: now.filter((state) => state.open && valueIn(state, 'team') === team).length,
            low_n: its.length < 20,
          },
          team,
        );
      }
      for (const row of await ask(
        `select value, n::int, mttr_known_pct::float8, mttr_median::int, mttr_p80::int, mttr_p95::int, hours_known_pct::float8,
           hours_median::float8, hours_p80::float8, hours_p95::float8, within_24h_pct::float8, source_compliant_pct::float8
         from tickets.inc_repair_times('2020-12-01', '2021-02-01', 'month', 'cluster') where period = '2020-12-01'`,
      )) {
        const { value, ...figures } = row;
        const its = closed.filter(
          (c) =>
            c.closed !== null &&
            c.closed < Date.parse('2021-01-01T00:00:00+03:00') &&
            c.closed >= Date.parse('2020-12-01T00:00:00+03:00') &&
            valueIn(c.state, 'cluster') === value,
        );
        const mttr = sorted(its.map(({ mttr }) => minutesOf(mttr)));
        const hours = sorted(its.map(hoursOf));
        const of = (values: number[], share: number) => (values.length < 5 ? null : quantile(values, share));
        assert.deepEqual(
          figures,
          {
            n: its.length,
            mttr_known_pct: pct(mttr.length, its.length),
            mttr_median: of(mttr, 0.5),
            mttr_p80: of(mttr, 0.8),
            mttr_p95: of(mttr, 0.95),
            hours_known_pct: pct(hours.length, its.length),
            hours_median: of(hours, 0.5),
            hours_p80: of(hours, 0.8),
            hours_p95: of(hours, 0.95),
            within_24h_pct: pct(hours.filter((h) => h <= 24).length, hours.length),
            source_compliant_pct: pct(its.filter(({ sla }) => sla === 'Compliant').length, its.length),
          },
          value,
        );
      }
    });

    test('inc_time_to_close: Kaplan-Meier over the lives', async () => {
      const [{ settled }] = await ask('select tickets.settled_through() as settled');
      for (const by of [null, 'cluster'] as const) {
        const rows = await ask(
          `select value, opened::int, closed::int, still_open::int, median_hours::float8, p80_hours::float8, p95_hours::float8
           from tickets.inc_time_to_close($1, $2, $3)`,
          [FROM, TO, by],
        );
        for (const { value, ...figures } of rows) {
          const cohort = simulation.lives.flatMap((life) => {
            const clock = clockOf(life, simulation);
            const [firstSight] = sights(life, simulation);
            if (!clock || !firstSight || dayOf(clock.at) < first || dayOf(clock.at) >= first + days) return [];
            if (valueIn(firstSight.state, by) !== value) return [];
            return [{ clock: clock.at, end: firstClosing(simulation, closed, life.id) }];
          });
          // Who was open when the past was settled is watched until then; where none is open now, all closings are told.
          const known = cohort.some(({ end }) => end === undefined) ? settled.getTime() : Number.POSITIVE_INFINITY;
          const subjects = cohort
            .filter(({ clock, end }) => end === undefined || (end !== null && end >= clock))
            .map(({ clock, end = Number.POSITIVE_INFINITY }) => ({
              lasted: Math.min(end ?? Number.NaN, known) - clock,
              ended: (end ?? Number.NaN) <= known,
            }))
            .filter(({ lasted }) => lasted >= 0);
          const at = (share: number) => {
            const time = kaplanMeier(subjects, share);
            return subjects.length < 5 || time === null ? null : hoursIn(time);
          };
          const ended = cohort.filter(({ end }) => end !== undefined).length;
          assert.deepEqual(
            figures,
            {
              opened: cohort.length,
              closed: ended,
              still_open: cohort.length - ended,
              median_hours: at(0.5),
              p80_hours: at(0.8),
              p95_hours: at(0.95),
            },
            String(value),
          );
        }
      }
    });

    test('the parts add up, on every day and in every period', async () => {
      assert.deepEqual(
        await ask(
          `select day from (
             select day, open, lag(open) over (order by day) + net as expected from tickets.inc_backlog_daily($1, $2)
           ) as d where expected <> open`,
          [FROM, TO],
        ),
        [],
      );
      assert.deepEqual(
        await ask(
          `select * from (
             select day, sum(open) as open, max(snapshot_at) as snapshot_at from tickets.inc_daily group by day
           ) as d
           where open <> (select b.open_tickets from tickets.inc_backlog b where b.snapshot_at <= d.snapshot_at order by b.snapshot_at desc limit 1)`,
        ),
        [],
      );
      assert.deepEqual(
        await ask(
          'select * from tickets.inc_daily where open <> open_unknown + aged_0_24h + aged_24_48h + aged_2_7d + aged_7_30d + aged_over_30d',
        ),
        [],
      );
      for (const by of ['team', 'cluster', 'region', 'owner', 'status']) {
        const counts =
          'sum(created) as created, sum(closed) as closed, sum(closed_final) as final, sum(reopened) as reopened, sum(undated) as undated';
        assert.deepEqual(
          await ask(`select period, ${counts} from tickets.inc_flow($1, $2, 'day', $3) group by 1 order by 1`, [
            FROM,
            TO,
            by,
          ]),
          await ask(`select period, ${counts} from tickets.inc_flow($1, $2, 'day') group by 1 order by 1`, [FROM, TO]),
          by,
        );
        assert.deepEqual(
          await ask(`select * from tickets.inc_flow($1, $2, 'week', $3) where closed_final > closed`, [FROM, TO, by]),
          [],
        );
      }
      for (const by of ['team', 'cluster', 'region']) {
        const counts =
          'sum(open) as open, sum(open_breached) as breached, sum(aged_2_7d) as aged, sum(opened) as opened, sum(closed) as closed';
        assert.deepEqual(
          await ask(`select day, ${counts} from tickets.inc_backlog_daily($1, $2, $3) group by 1 order by 1`, [
            FROM,
            TO,
            by,
          ]),
          await ask(`select day, ${counts} from tickets.inc_backlog_daily($1, $2) group by 1 order by 1`, [FROM, TO]),
          by,
        );
      }
    });

    test('recording a day again changes nothing; history rebuilds what was open', async () => {
      const daily = () => ask('select * from tickets.inc_daily order by day, cluster, region, assigned_team');
      const recorded = await daily();
      await ask(`select tickets_ops.record_day('inc'), tickets_ops.record_day('inc')`);
      assert.deepEqual(await daily(), recorded);
      // By cluster and team only: no event tells that a region changed.
      const byTeam = `select day, cluster, assigned_team, sum(open) as open, sum(opened) as opened, sum(reopened) as reopened, sum(closed) as closed
        from tickets.inc_daily group by 1, 2, 3 order by 1, 2, 3`;
      const before = await ask(byTeam);
      await ask('delete from tickets.inc_daily');
      await ask('select tickets_ops.rebuild_days()');
      assert.deepEqual(await ask(byTeam), before);
    });
  });
}

/** What a takeover leaves: tickets, a baseline of each, the time of the last import, the day. */
async function takeOver(env: Environment, { lives }: Simulation, at: number): Promise<void> {
  const records = lives.flatMap((life) => {
    const state = stateAt(life, at);
    return state ? [recordOf(life.id, state)] : [];
  });
  await env.pool.query(
    `insert into tickets.inc (ticket_id, raw) select r ->> 'ticket_id', r from jsonb_array_elements($1) as r`,
    [JSON.stringify(records)],
  );
  await env.pool.query(
    `insert into tickets.inc_events
       (ticket_id, event, new_value, snapshot_at, assigned_team, owner, cluster, region, created_at_service, closed_at, mttr, sla_status)
     select ticket_id, 'baseline', normalized_status, $1, assigned_team, owner, cluster, region, created_at_service, closed_at, mttr, sla_status
     from tickets.inc`,
    [new Date(at)],
  );
  await env.pool.query(
    `insert into tickets.import_meta (dataset, metadata) values ('inc', jsonb_build_object('snapshot_at', $1::timestamptz))`,
    [new Date(at)],
  );
  await env.pool.query(`select tickets_ops.record_day('inc')`);
}

/** Of an open ticket, as of the look: its SLA (48 h, at risk from 40 h), and its age. */
const CLOCKS = ['breached', 'at risk', 'unknown', '24 h', '48 h', '7 d', '30 d', 'older'];

function clocksOf({ created, firstSeen }: State, at: number): string[] {
  const hours = (at - (created ?? firstSeen)) / HOUR;
  const age = hours < 24 ? '24 h' : hours < 48 ? '48 h' : hours < 168 ? '7 d' : hours < 720 ? '30 d' : 'older';
  return [age, ...(hours >= 48 ? ['breached'] : hours >= 40 ? ['at risk'] : [])];
}

/** Cells: what, day, value. */
function backlog(simulation: Simulation, by: Dimension | null): Cells {
  const cells = new Cells();
  for (const life of simulation.lives) {
    const seen = sights(life, simulation);
    for (let day = first; day < first + days; day += 1) {
      const look = lastLookOf(day, simulation) ?? -1;
      const state = seen.findLast((sight) => sight.look <= look && dayOf(sight.at) <= day)?.state;
      if (!state?.open) continue;
      cells.add('open', day, valueIn(state, by));
      const at = simulation.looks[look]?.at ?? simulation.baselineAt ?? 0;
      for (const what of clocksOf(state, at)) cells.add(what, day, valueIn(state, by));
    }
    for (const { look, at, before, state } of seen) {
      if (look < 0) continue;
      if (state.open && before === null) cells.add('opened', dayOf(at), valueIn(state, by));
      if (state.open && before?.open === false) cells.add('reopened', dayOf(at), valueIn(state, by));
      if (!state.open && before?.open) cells.add('closed', dayOf(at), valueIn(state, by));
    }
  }
  return cells;
}

/** Cells: what, period, value. */
function flow(simulation: Simulation, closed: readonly Closing[], by: Dimension | null, step: string): Cells {
  const cells = new Cells();
  const add = (what: string, at: number, value: string | null) => {
    if (dayOf(at) >= first && dayOf(at) < first + days) cells.add(what, periodOf(at, step), value);
  };
  for (const life of simulation.lives) {
    const clock = clockOf(life, simulation);
    const seen = sights(life, simulation);
    if (!clock || !seen[0]) continue;
    const value = valueIn(seen[0].state, by);
    add('created', clock.at, value);
    if (clock.known) add('known', clock.at, value);
    for (const { look, at, before, state } of seen) {
      if (look >= 0 && state.open && before?.open === false) add('reopened', at, valueIn(state, by));
    }
  }
  for (const { closed: at, observed, observedAt, state, reopenedAt } of closed) {
    if (at === null && observed) add('undated', observedAt, valueIn(state, by));
    if (at === null) continue;
    add('closed', at, valueIn(state, by));
    if (reopenedAt === null) add('closed_final', at, valueIn(state, by));
  }
  return cells;
}

/** The first day of the period in Nairobi, as text. */
function periodOf(at: number, step: string): string {
  const date = new Date(dayOf(at) * DAY);
  if (step === 'week') date.setUTCDate(date.getUTCDate() - ((date.getUTCDay() + 6) % 7));
  if (step === 'month') date.setUTCDate(1);
  return date.toISOString().slice(0, 10);
}

function periodEnd(period: string, step: string): number {
  const date = new Date(`${period}T00:00:00Z`);
  if (step === 'month') date.setUTCMonth(date.getUTCMonth() + 1);
  else date.setUTCDate(date.getUTCDate() + (step === 'week' ? 7 : 1));
  return date.getTime() - 3 * HOUR;
}

/** When it was first closed, as it was last told before a reopening; null: nobody told; undefined: never. */
function firstClosing(simulation: Simulation, closed: readonly Closing[], id: string): number | null | undefined {
  const life = simulation.lives.find((one) => one.id === id);
  const seen = life ? sights(life, simulation) : [];
  const undone = seen.findIndex(({ state }) => state.open);
  if (seen[0]?.look === -1 && !seen[0].state.open) return (seen[undone - 1] ?? seen.at(-1))?.state.closed;
  return closed.find(({ life: { id: other } }) => other === id)?.closed;
}
