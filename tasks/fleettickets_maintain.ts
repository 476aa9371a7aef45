/** fleettickets_maintain: frees work that a dead worker held, re-drives what stalled, prunes, watches health. The crontab enqueues it. See src/worker/maintenance.ts. */
import { z } from 'zod';
import { watchHealth } from '../src/operations/health-alert.ts';
import { AlertSettings, RetentionSettings, readSettings } from '../src/settings/settings.ts';
import { maintain } from '../src/worker/maintenance.ts';
import { defineTask } from '../src/worker/task.ts';

export default defineTask('fleettickets_maintain', z.strictObject({}), {}, async (_payload, context) => {
  const keep = readSettings(RetentionSettings);
  await context.withPgClient((client) => maintain(client, context.job.locked_by ?? '', keep, context.log));
  await watchHealth(context, readSettings(AlertSettings), context.log);
});
