/** fleettickets_alert: tells people that health has turned. Added by tickets_ops.announce_health. See src/operations/health-alert.ts. */
import { z } from 'zod';
import { messageOf, post } from '../src/operations/health-alert.ts';
import { ExpectedError } from '../src/settings/errors.ts';
import { hideSecrets } from '../src/settings/secrets.ts';
import { AlertSettings, readSettings } from '../src/settings/settings.ts';
import { defineTask } from '../src/worker/task.ts';

const Payload = z.strictObject({
  ok: z.boolean(),
  problems: z.array(z.string()),
  at: z.string(),
  lasted_seconds: z.int().nullable(),
  database: z.string(),
});

const EXAMPLE = { ok: false, problems: ['Fault: …'], at: '2026-06-15 12:00 EAT', lasted_seconds: null, database: 'db' };

export default defineTask('fleettickets_alert', Payload, EXAMPLE, async (turn, { abortSignal, log }) => {
  const { ALERT_WEBHOOK_URL } = readSettings(AlertSettings);
  if (!ALERT_WEBHOOK_URL) throw new ExpectedError('ALERT_WEBHOOK_URL is not set in this worker.');
  await post(ALERT_WEBHOOK_URL, hideSecrets(messageOf(turn)), abortSignal).catch((error: Error) => {
    throw new ExpectedError(`ALERT_WEBHOOK_URL: ${error.message}`);
  });
  log.info({ ok: turn.ok }, 'told the webhook');
});
