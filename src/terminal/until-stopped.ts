/** Commands that serve run until somebody ends them: Ctrl-C, or a container's SIGTERM. */
import { once } from 'node:events';

export async function untilStopped(): Promise<void> {
  await Promise.race([once(process, 'SIGINT'), once(process, 'SIGTERM')]);
}
