/**
 * What the page may ask: a fixed list of routes, each with its statements. All values are parameters, and every statement
 * runs with the rights of the role that the page was started with: what that role lacks is answered with the GRANT.
 */
import type pg from 'pg';
import { z } from 'zod';
import { type Db, transaction } from '../database/client.ts';
import type { Role } from '../database/roles.ts';
import { LONGEST_LOCATION_NAME } from '../geocoding/names.ts';
import { readStatus } from '../operations/status.ts';
import { DATASET_NAMES, type DatasetName, DEFAULT_DATASET } from '../settings/dataset.ts';
import { asMember, Refused } from './refused.ts';

interface Route<T extends z.ZodType = z.ZodType> {
  /** Of which the role of the person has to be a member. */
  readonly role: Role;
  readonly input: T;
  run(db: Db, asked: z.infer<T>): Promise<object>;
}

const route = <T extends z.ZodType>(role: Role, input: T, run: Route<T>['run']): Route =>
  ({ role, input, run }) as Route;

/** Nothing that a person types is longer than the name of a place. */
const text = z.string().min(1).max(LONGEST_LOCATION_NAME);
/** A field that is left empty says nothing. */
const optional = z
  .string()
  .max(LONGEST_LOCATION_NAME)
  .nullish()
  .transform((value) => value || null);
const place = z.object({ kind: z.enum(['cluster', 'location']), cluster: text, location_key: optional });
const dataset = z.enum(DATASET_NAMES).default(DEFAULT_DATASET);
/** Addresses, forms and Postgres's bigint have numbers as text. */
const numeral = text.transform(Number);
const degrees = numeral.pipe(z.number().min(-180).max(180));
const id = z.union([z.number(), numeral]).pipe(z.int().positive());

/** The SET clause of each decision; the triggers of the gazetteers do the rest, as they do for psql. */
const DECISIONS: Record<string, string> = {
  'location accept': `status = 'found', verified = true`,
  'location pin': `geom = $4, status = 'found', verified = true`,
  'location reject': `status = 'rejected', verified = true`,
  'cluster accept': `verified = true`,
  'cluster pin': `geom = $4, verified = true`,
  'cluster reject': `geom = null, verified = true`,
  'cluster guard': `guard_km = $4`,
};
/** With updated_at as it was read: another one means that somebody changed the place meanwhile. */
const seen = place.extend({ updated_at: text });
const decision = z.discriminatedUnion('decision', [
  seen.extend({ decision: z.literal(['accept', 'reject']) }),
  seen.extend({ decision: z.literal('pin'), lng: z.number().min(-180).max(180), lat: z.number().min(-90).max(90) }),
  seen.extend({ decision: z.literal('guard'), kind: z.literal('cluster'), guard_km: z.number().min(0.1).max(1_000) }),
]);

/** What can be done to jobs; the parameters are the fields of the request, in this order. */
const jobAction = z.discriminatedUnion('action', [
  z.object({ action: z.literal(['retry', 'cancel']), id }),
  z.object({ action: z.literal('retry_failed'), task: optional }),
  z.object({ action: z.literal('fetch'), dataset }),
  z.object({ action: z.literal('geocode'), cluster: text, location: optional }),
]);
const JOB_ACTIONS = {
  retry: 'select note from tickets_ops.retry_job($1)',
  cancel: 'select tickets_ops.cancel_job($1) as note',
  retry_failed: 'select note from tickets_ops.retry_failed($1)',
  fetch: 'select note from tickets_ops.fetch_now($1)',
  // Where there is nothing to remark, the job waits.
  geocode: `select coalesce(note, 'The provider is asked now.') as note from (
              select note from tickets.geocode_location($2, $1) where $2::text is not null
              union all select note from tickets.geocode_cluster($1) where $2::text is null
            ) as asked`,
};

const onMap = z.object({ dataset, cluster: optional, team: optional });
/** Of each dataset: its places as GeoJSON with what is open there, its open tickets, and how these stand against the SLA. */
const MAPS: Record<DatasetName, { places: string; open: string; sla: string }> = {
  inc: {
    places: `reporting.fn_ticket_places(p_cluster => $1, p_team => $2) -> 'features'`,
    open: 'tickets.inc_open_sla',
    sla: 'sla_state, at_risk',
  },
  crq: { places: 'tickets.crq_places($1, $2)', open: 'tickets.crq_open', sla: 'null as sla_state, false as at_risk' },
};

/** The clusters of the open tickets, each once, in the spelling of the map. */
const clusters = (dataset: DatasetName) => `
  select c.spelling
  from (
    select array_agg(cluster) as seen, array_agg(tickets) as tickets
    from (select cluster, count(*) as tickets from tickets.${dataset} where is_actionable group by cluster) as spelled
  ) as s, tickets.chosen_spellings(s.seen, s.tickets) c
  where exists (select from unnest(s.seen) as t (cluster) where tickets.cluster_key(t.cluster) = c.cluster_key)
  order by 1`;

/** Their teams, each once, as most tickets write it. */
const teams = (dataset: DatasetName) => `
  select (array_agg(team order by tickets desc, team collate "C"))[1]
  from (select assigned_team as team, count(*) as tickets from tickets.${dataset} where is_actionable group by assigned_team) as spelled
  where tickets.team_key(team) <> ''
  group by tickets.team_key(team)
  order by 1`;

/** By method and path. */
export const ROUTES: Record<string, Route> = {
  'GET /api/queue': route('tickets_curator', z.object({ status: optional, text: optional }), async (db, asked) => {
    const { rows } = await db.query(
      `select kind, cluster, location_key, status, open_tickets::integer as open
       from tickets_ops.review_queue
       where ($1::text is null or status = $1 or kind = $1)
         and ($2::text is null or strpos(lower(concat_ws(' ', location_key, location_name, cluster)), lower($2)) > 0)`,
      [asked.status, asked.text],
    );
    return rows;
  }),

  'GET /api/place': route('tickets_curator', place, async (db, asked) => {
    const { rows } = await db.query('select tickets_ops.review_place($1, $2, $3) as found', Object.values(asked));
    if (rows[0].found.place) return rows[0].found;
    throw new Refused(404, `${asked.location_key ?? 'The cluster'} is no longer in the gazetteer.`);
  }),

  'POST /api/decide': route('tickets_curator', decision, async (db, asked) => {
    const { kind, cluster, location_key, updated_at } = asked;
    const guard = asked.decision === 'guard' ? [asked.guard_km] : [];
    const values = asked.decision === 'pin' ? [`SRID=4326;POINT(${asked.lng} ${asked.lat})`] : guard;
    const { rowCount } = await db.query(
      `update tickets.geo_${kind}s set ${DECISIONS[`${kind} ${asked.decision}`]}
       where cluster = $1 and updated_at::text = $2 and ${kind === 'location' ? 'location_key = $3' : '$3::text is null'}`,
      [cluster, updated_at, location_key, ...values],
    );
    if (rowCount === 0) throw new Refused(409, 'Someone changed this place since you looked. Look at it again.');
    const { rows } = await db.query(
      `select decision_id, decision, tickets_moved::integer as tickets_moved from tickets.geo_decisions
       where cluster = $1 and location_key is not distinct from $2 and decided_at = now()
       order by decision_id desc limit 1`,
      [cluster, location_key],
    );
    if (!rows[0]) throw new Refused(422, 'There is nothing to decide: the place is like this already.');
    return rows[0];
  }),

  'POST /api/undo': route('tickets_curator', z.object({ decision_id: id }), async (db, { decision_id }) => {
    const { rows } = await db.query(
      `select kind, cluster, location_key, tickets_moved::integer as tickets_moved from tickets.undo_decision($1)`,
      [decision_id],
    );
    return rows[0];
  }),

  'GET /api/places': route('tickets_reader', onMap, async (db, { dataset, cluster, team }) => {
    const { rows } = await db.query(
      `select array(select tickets.datasets()) as datasets,
         array(${clusters(dataset)}) as clusters, array(${teams(dataset)}) as teams,
         ${MAPS[dataset].places} as places`,
      [cluster, team],
    );
    return rows[0];
  }),

  'GET /api/tickets': route('tickets_reader', onMap.extend({ lng: degrees, lat: degrees }), async (db, asked) => {
    const { open, sla } = MAPS[asked.dataset];
    const { rows } = await db.query(
      `select ticket_id, normalized_status, location_name, assigned_team, owner, hours_open::float8 as hours_open, ${sla}
       from ${open}
       where (geom::point)[0] = $1 and (geom::point)[1] = $2
         and tickets.is_of(cluster, region, assigned_team, $3, null, $4)
       order by hours_open desc nulls last, ticket_id
       limit 500`,
      [asked.lng, asked.lat, asked.cluster, asked.team],
    );
    return rows;
  }),

  'GET /api/vehicles': route('tickets_reader', z.object({ ticket: optional }), async (db, { ticket }) => {
    const { rows } = ticket
      ? await db.query(
          `select tickets.vehicle_name(label, vehicle_id) as name, freshness, road_km_estimate::float8 as km, minutes_estimate::float8 as minutes, open_assignments
           from tickets.nearest_vehicles($1)`,
          [ticket],
        )
      : await db.query(
          `select tickets.vehicle_name(label, vehicle_id) as name, team, lng, lat, freshness, open_assignments from tickets.vehicles_now
           where freshness <> 'nowhere'`,
        );
    return rows;
  }),

  'GET /api/jobs': route('tickets_operator', z.object({ task: optional, state: optional }), async (db, asked) => {
    const { rows } = await db.query(
      `with every as materialized (select * from tickets_ops.jobs),
       matching as (
         select id, task, key, payload, state, run_at, attempts, max_attempts, last_error, age::text as age
         from every where ($1::text is null or task = $1) and ($2::text is null or state = $2)
       )
       select
         array(select distinct task from every order by 1) as tasks,
         (select count(*)::integer from every where state = 'failed' and ($1::text is null or task = $1)) as failed,
         (select coalesce(json_agg(j), '[]') from (
           select * from matching
           order by state = 'failed' desc, last_error is not null desc, state = 'running' desc, run_at limit 200
         ) as j) as jobs,
         (select count(*)::integer from matching) as total`,
      [asked.task, asked.state],
    );
    const { health, datasets, snapshots } = await readStatus(db);
    return { ...rows[0], health, datasets, snapshots };
  }),

  'POST /api/jobs': route('tickets_operator', jobAction, async (db, { action, ...asked }) => {
    // One note a job: the same ones as one.
    const { rows } = await db.query(
      `select case count(*) when 1 then note else count(*) || ' × ' || note end as note
       from (${JOB_ACTIONS[action]}) as done group by done.note`,
      Object.values(asked),
    );
    return { notes: rows.map(({ note }) => note) };
  }),
};

/**
 * Runs a route in one transaction. What Postgres has to remark is sent along with an object, as `notices`.
 * @throws Refused, and whatever Postgres refuses
 */
export async function answerOf(pool: pg.Pool, { role, input, run }: Route, given: unknown): Promise<string> {
  const read = input.safeParse(given);
  if (!read.success) throw new Refused(400, z.prettifyError(read.error));
  const client = await pool.connect();
  const notices: string[] = [];
  const listen = ({ message = '' }) => notices.push(message);
  client.on('notice', listen);
  try {
    const answer = await asMember(client, role, () => transaction(client, () => run(client, read.data)));
    return JSON.stringify(Array.isArray(answer) ? answer : { ...answer, notices });
  } finally {
    client.off('notice', listen);
    client.release();
  }
}
