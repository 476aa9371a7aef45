/** Progress on stderr: a bar on a terminal, a plain line now and then elsewhere (a cron mail, a container's log). */
import { Presets, SingleBar } from 'cli-progress';
import { printError } from './output.ts';

export interface Progress {
  /** @param done of total, whatever is counted; both may change */
  update(phase: string, done: number, total: number): void;
  stop(): void;
}

export function showProgress(): Progress {
  return process.stderr.isTTY ? bar() : lines();
}

function bar(): Progress {
  const single = new SingleBar(
    {
      format: '{phase} {bar} {value}/{total} {eta_formatted} left',
      stream: process.stderr,
      hideCursor: true,
      clearOnComplete: true,
    },
    Presets.shades_classic,
  );
  let running = false;
  return {
    update(phase, done, total) {
      if (!running) single.start(total, done, { phase });
      running = true;
      single.setTotal(total);
      single.update(done, { phase });
    },
    stop() {
      if (running) single.stop();
      running = false;
    },
  };
}

function lines(): Progress {
  let last = '';
  return {
    update(phase, done, total) {
      const tenths = total > 0 ? Math.floor((done / total) * 10) : 0;
      const line = `${phase} ${tenths * 10} %`;
      if (line !== last) printError(`${line} (${done} of ${total})\n`);
      last = line;
    },
    stop() {},
  };
}
