/** Settings of plain `npx graphile-worker` in this folder: the same worker as `fleettickets worker`. */
import { createLog } from './src/settings/log.ts';
import { loadDotEnv } from './src/settings/settings.ts';
import { printError } from './src/terminal/output.ts';
import { workerPreset } from './src/worker/worker.ts';

loadDotEnv((warning) => printError(`${warning}\n`));

export default workerPreset(await createLog());
