/**
 * Settings: the environment, validated. Each group is read by the part that needs it, so that `migrate` asks for no bucket.
 * An error names every variable that is wrong, and its remedy; no message ever shows a value, which may be a secret.
 */

import { z } from 'zod';
import { ARCHIVE_FOLDER } from '../bucket/files.ts';
import { ALL_OURS } from '../database/schemas.ts';
import { GeocoderSettings } from '../geocoding/settings.ts';
import { asLibpq, refusalOfUrl } from './database-url.ts';
import { ExpectedError } from './errors.ts';
import { endpointUrl, httpUrl } from './http-url.ts';

export const DatabaseSettings = z.object({
  DATABASE_URL: z
    .string()
    .superRefine((url, context) => {
      const refusal = refusalOfUrl(url);
      if (refusal) context.addIssue(refusal);
    })
    .transform(asLibpq)
    .describe('Postgres connection string of the database, e.g. postgres://worker:…@db:5432/tracksolid_db'),
});

/** Postgres's schemas, ours (database/schemas.ts), and those that hold something else than jobs. */
const isTaken = (name: string) =>
  /^(pg_.*|information_schema|public|reporting|graphile_migrate)$/.test(name) || ALL_OURS.includes(name);

export const JobSchemaSettings = z.object({
  WORKER_SCHEMA: z
    .string()
    .regex(/^[a-z_][a-z0-9_]{0,62}$/, 'must be lower-case letters, digits and underscores, 63 at most')
    .refine((name) => !isTaken(name), 'must not be a schema that holds something else')
    .default('graphile_worker')
    .describe(
      'Schema of the jobs: another one where graphile_worker is another application’s; fixed by the first migrate',
    ),
  WORKER_SCHEMA_SHARED: z
    .enum(['true', 'false'])
    .optional()
    .describe('true: another application has its jobs in the same schema, and must be of the same revision'),
});

export const TakeoverSettings = z.object({
  MIGRATE_KEEP_OLD_MAP: z
    .literal('1')
    .optional()
    .describe(
      '1: a takeover leaves the old map function under its name, and ours is reporting.fn_tickets_for_map_v2 (docs/taking-over.md)',
    ),
});

export const BucketSettings = z.object({
  RUSTFS_ENDPOINT: endpointUrl.describe('URL of the S3 server, e.g. http://rustfs:9000'),
  RUSTFS_REGION: z.string().min(1).default('us-east-1').describe('S3 region; RustFS accepts any'),
  RUSTFS_ACCESS_KEY: z.string().min(1).describe('S3 access key; may list, read, write and delete under the prefix'),
  RUSTFS_SECRET_KEY: z.string().min(1).describe('S3 secret key').meta({ secret: true }),
  RUSTFS_BUCKET: z.string().min(1).default('tickets').describe('Bucket'),
  RUSTFS_PREFIX: z
    .string()
    .regex(/^([^/].*\/)?$/, 'must end with a slash and not begin with one')
    .default('automations/inc/')
    .describe('Folder of the INC snapshots, with its closing slash'),
  CRQ_PREFIX: z
    .string()
    .regex(/^[^/].*\/$/, 'must end with a slash and not begin with one')
    .optional()
    .describe(
      'Folder of the CRQ snapshots, with its closing slash. Unset: as recorded; the folder crq/ beside RUSTFS_PREFIX where none ever was',
    ),
});

/**
 * The folder of CRQ's snapshots: where it has none by setting, the one beside INC's.
 * @throws SettingsError where it is INC's, or one is where the other's files are archived
 */
export function crqFolder({ RUSTFS_PREFIX, CRQ_PREFIX }: Pick<BucketSettings, 'RUSTFS_PREFIX' | 'CRQ_PREFIX'>): string {
  const folder = CRQ_PREFIX ?? RUSTFS_PREFIX.replace(/[^/]*\/$/, 'crq/');
  const isTaken =
    folder === RUSTFS_PREFIX ||
    folder.startsWith(RUSTFS_PREFIX + ARCHIVE_FOLDER) ||
    RUSTFS_PREFIX.startsWith(folder + ARCHIVE_FOLDER);
  if (!isTaken) return folder;
  throw new SettingsError(
    `Wrong settings: the folder of CRQ (CRQ_PREFIX), ${folder}, and that of INC (RUSTFS_PREFIX), ${RUSTFS_PREFIX}, are one, or one is the other's archive. Each dataset needs a folder of its own.`,
  );
}

export const MOST_WORKER_CONCURRENCY = 64;

export const WorkerSettings = z.object({
  WORKER_CONCURRENCY: z.coerce
    .number()
    .int()
    .min(1)
    .max(MOST_WORKER_CONCURRENCY)
    .default(2)
    .describe('Jobs that one worker runs at once, besides geocoding; more than the database has cores gains nothing'),
  LOG_LEVEL: z
    .enum(['trace', 'debug', 'info', 'warn', 'error', 'fatal'])
    .default('info')
    .describe('Least severe log line that is written'),
});

const feed = z.enum(['snapshots', 'changes'], 'must be snapshots or changes').optional();

/** What SQL goes by as well: each process records those that its environment gives it (recorded.ts). */
export const FeedSettings = z.object({
  INC_FEED: feed.describe(
    'What the files are: snapshots (every ticket in each; the newest is enough) or changes (each is needed, in its order). Unset: as recorded; snapshots where none ever was',
  ),
  CRQ_ENABLED: z
    .enum(['true', 'false'], 'must be true or false')
    .optional()
    .describe(
      'true: CRQ, the requests for new installations, are loaded as well. Unset: as recorded; off where it never was on',
    ),
  CRQ_FEED: feed.describe('What the files of CRQ are, as INC_FEED. Unset: as recorded; snapshots where none ever was'),
  ON_SUSPECT_SNAPSHOT: z
    .enum(['hold', 'load'], 'must be hold or load')
    .optional()
    .describe(
      'What is done with a file that would close nearly all open tickets, or has lost a vital column: hold it for a person, or load it with a warning. Unset: hold',
    ),
  FEED_STALE_HOURS: z.coerce
    .number('must be a whole number of hours')
    .int('must be a whole number of hours')
    .min(1, 'must be at least 1')
    .max(168, 'must be at most 168')
    .optional()
    .describe(
      'Hours of scheduled time without a new file after which health says that the feed stands still. Unset: 3',
    ),
});

const days = (standard: number) => z.coerce.number().int().min(1).max(36_500).default(standard);

export const RetentionSettings = z.object({
  KEEP_FAILED_STAGING_DAYS: days(7).describe('Days in which the jobs of a failed snapshot can be tried again'),
  KEEP_FAILED_JOBS_DAYS: days(30).describe('Days that a failed job is kept'),
  KEEP_REJECTS_DAYS: days(90).describe('Days that rejected rows are kept'),
  KEEP_LEDGER_DAYS: days(730).describe(
    'Days that the ledger remembers a file; tickets and their history are kept for ever',
  ),
});

export const AlertSettings = z.object({
  ALERT_WEBHOOK_URL: httpUrl
    .optional()
    .describe(
      'Where a message is posted when health turns, as Slack, Mattermost and their like take it. Unset: nowhere',
    )
    .meta({ secret: true }),
  ALERT_PING_URL: httpUrl
    .optional()
    .describe(
      'What is asked for every two minutes while health is ok: a push monitor of Uptime Kuma or healthchecks, which alarms when that ends. Unset: nothing',
    )
    .meta({ secret: true }),
});

export const PageSettings = z.object({
  MAP_TILES_URL: z
    .string()
    .regex(
      /^https?:\/\/[^/{}\s;,]+\/(?=.*\{z\})(?=.*\{x\})(?=.*\{y\})/,
      'must be an address with {z}, {x} and {y} in its path',
    )
    .optional()
    .describe(
      'Map tiles below the page’s map, e.g. https://tiles.example/{z}/{x}/{y}.png. Unset: nothing leaves this machine',
    ),
  MAP_TILES_ATTRIBUTION: z.string().default('').describe('Whose tiles they are, as their terms ask to say on the map'),
});

/** Every setting, by group: docs/settings.md is made from it. One that is a secret is marked so, by zod's `meta`. */
export const SETTINGS = {
  Database: DatabaseSettings,
  JobSchema: JobSchemaSettings,
  Takeover: TakeoverSettings,
  Bucket: BucketSettings,
  Worker: WorkerSettings,
  Feed: FeedSettings,
  Geocoding: GeocoderSettings,
  Retention: RetentionSettings,
  Alert: AlertSettings,
  Page: PageSettings,
} as const;

/** Names of the settings that are secrets as a whole; DATABASE_URL holds one. */
export const secretSettings = (): string[] =>
  Object.values(SETTINGS).flatMap((group) =>
    Object.entries<z.ZodType>(group.shape).flatMap(([name, type]) => (type.meta()?.['secret'] ? [name] : [])),
  );

export type AlertSettings = z.infer<typeof AlertSettings>;
export type JobSchemaSettings = z.infer<typeof JobSchemaSettings>;
export type BucketSettings = z.infer<typeof BucketSettings>;
export type PageSettings = z.infer<typeof PageSettings>;
export type RetentionSettings = z.infer<typeof RetentionSettings>;

/** One or more variables are missing or wrong; the message lists each with its remedy. */
export class SettingsError extends ExpectedError {
  override name = 'SettingsError';
}

/**
 * Reads one group of settings.
 * An empty variable counts as unset: compose files and Coolify write unset variables as empty ones. Blanks around a value
 * are no part of it.
 * @throws SettingsError naming every wrong variable
 */
export function readSettings<T extends z.ZodType>(group: T, env: NodeJS.ProcessEnv = process.env): z.infer<T> {
  const given = Object.fromEntries(
    Object.entries(env).flatMap(([name, value]) => (value?.trim() ? [[name, value.trim()]] : [])),
  );
  const shape: Record<string, z.ZodType> = group instanceof z.ZodObject ? group.shape : {};
  const quoted = Object.keys(shape).filter((name) => /^(["'`]).*\1$/s.test(given[name] ?? ''));
  const read = group.safeParse(given);
  if (read.success && quoted.length === 0) return read.data;
  const problems = [
    ...quoted.map((name) => [name, 'stands in quotes, which are taken as a part of it: leave them out'] as const),
    ...(read.error?.issues ?? []).flatMap((issue) => {
      const name = String(issue.path[0] ?? 'settings');
      if (quoted.includes(name)) return [];
      const isMissing = given[name] === undefined && issue.code === 'invalid_type';
      return [[name, isMissing ? 'is not set' : issue.message] as const];
    }),
  ];
  const wrong = problems.map(([name, problem]) => {
    const meaning = shape[name]?.description;
    return `  ${name}: ${problem}.${meaning ? ` ${meaning}.` : ''}`;
  });
  throw new SettingsError(`Wrong settings, in the environment or in .env (see .env.example):\n${wrong.join('\n')}`);
}

/**
 * Reads all of them, so that a wrong one, or two that contradict each other, are found before any work begins.
 * @throws SettingsError naming every wrong variable of every group
 */
export function requireSettings(env: NodeJS.ProcessEnv = process.env): void {
  const shapes = Object.values(SETTINGS).map((group) => group.shape);
  readSettings(z.object(Object.assign({}, ...shapes)), env);
  const bucket = readSettings(BucketSettings, env);
  if (bucket.CRQ_PREFIX || readSettings(FeedSettings, env).CRQ_ENABLED === 'true') crqFolder(bucket);
}
