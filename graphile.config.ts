/** Settings of plain `npx graphile-worker` in this folder: the same worker as `fleettickets worker`. */

import { withClient } from './src/database/client.ts';
import { loadDotEnv } from './src/settings/dot-env.ts';
import { createLog } from './src/settings/log.ts';
import { DatabaseSettings, readSettings } from './src/settings/settings.ts';
import { printError } from './src/terminal/output.ts';
import { recordSchedule } from './src/worker/schedule.ts';
import { workerPreset } from './src/worker/worker.ts';

loadDotEnv((warning) => printError(`${warning}\n`));

const log = await createLog();
const preset = workerPreset(log);
preset.worker.events.on('cron:starting', () => {
  withClient(readSettings(DatabaseSettings).DATABASE_URL, recordSchedule).catch((error: Error) =>
    log.error(`the schedule cannot be recorded: ${error.message}`),
  );
});

export default preset;
