/** maintain: frees work that a dead worker held, re-drives what stalled, prunes. The crontab enqueues it. See src/maintain.ts. */
import { z } from 'zod';
import { maintain } from '../src/maintain.ts';
import { RetentionSettings, readSettings } from '../src/settings.ts';
import { defineTask } from '../src/task.ts';

export default defineTask('maintain', z.strictObject({}), {}, async (_payload, context) => {
  const keep = readSettings(RetentionSettings);
  await context.withPgClient((client) => maintain(client, context.job.locked_by ?? '', keep, context.log));
});
