/**
 * A task: a payload schema and a function. People type payloads in psql, so a wrong one fails at once, for good, with a
 * message that says what is wrong and shows a right one; and no error reaches `last_error` with a secret in it.
 */

import type { JobHelpers, Task } from 'graphile-worker';
import { z } from 'zod';
import type { TaskName } from '../database/jobs.ts';
import { isStorable, storable } from '../database/storable.ts';
import { DATASET_NAMES } from '../settings/dataset.ts';
import { ExpectedError } from '../settings/errors.ts';
import type { Log } from '../settings/log.ts';
import { createLog } from '../settings/log.ts';
import { hideSecrets } from '../settings/secrets.ts';
import { JobSchemaSettings, readSettings } from '../settings/settings.ts';

/** No further attempt of this job can succeed; the message says why and what to do instead. */
export class PermanentError extends ExpectedError {
  override name = 'PermanentError';
}

export interface TaskContext extends JobHelpers {
  readonly log: Log;
  /** When this attempt fails, no other follows. */
  readonly isLastAttempt: boolean;
}

/**
 * Makes a graphile-worker task.
 * @param example a payload as it is typed in psql, for the message
 * @param run throws PermanentError to fail for good, anything else to be tried again
 */
export function defineTask<S extends z.ZodType>(
  name: TaskName,
  schema: S,
  example: z.input<S>,
  run: (payload: z.output<S>, context: TaskContext) => Promise<void>,
): Task {
  return async (payload, helpers) => {
    const log = (await createLog()).child({ task: name, job: String(helpers.job.id) });
    const isLastAttempt = helpers.job.attempts >= helpers.job.max_attempts;
    try {
      await run(parsePayload(name, schema, example, payload), { ...helpers, log, isLastAttempt });
    } catch (error) {
      // A failure that graphile-worker cannot store leaves the job locked, and ends the worker.
      const message = storable(hideSecrets(error instanceof Error ? error.message : String(error)));
      log.error({ attempt: helpers.job.attempts, of: helpers.job.max_attempts }, message);
      if (error instanceof PermanentError) await helpers.query('select tickets_ops.give_up($1)', [helpers.job.id]);
      throw new Error(message); // a new one: the cause's stack and fields may hold what the message no longer does
    }
  };
}

function parsePayload<S extends z.ZodType>(
  name: TaskName,
  schema: S,
  example: z.input<S>,
  payload: unknown,
): z.output<S> {
  // graphile-worker adds _cron to the payload of a scheduled job.
  const { _cron, ...given } = (payload ?? {}) as Record<string, unknown>;
  const parsed = schema.safeParse(typeof payload === 'object' && !Array.isArray(payload) ? given : payload);
  if (parsed.success && isStorable(given)) return parsed.data;
  const { WORKER_SCHEMA } = readSettings(JobSchemaSettings);
  const right = `select ${WORKER_SCHEMA}.add_job('${name}', '${JSON.stringify(example)}');`;
  const complaint = parsed.success
    ? 'it holds a NUL, or half of a surrogate pair, which no text in Postgres can'
    : z.prettifyError(parsed.error);
  throw new PermanentError(`Wrong payload:\n${complaint}\nA right one: ${right}`);
}

/** A dataset's name, as payloads give it. */
export const DatasetName = z.enum(DATASET_NAMES);
/** The number of a row or job: a bigint, as a number or as text. */
export const Id = z.union([z.int().positive(), z.string().regex(/^[1-9][0-9]{0,17}$/)]).transform(String);
