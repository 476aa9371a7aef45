/**
 * A real Chromium, headless, for tests of the page: the one that is installed (Debian's package chromium). Where there is
 * none the tests are skipped, but for CI, where that is a failure.
 */
import assert from 'node:assert/strict';
import { accessSync, constants } from 'node:fs';
import { delimiter, join } from 'node:path';
import type { TestContext } from 'node:test';
import { type Browser, type BrowserContextOptions, chromium, type Page as Tab } from 'playwright-core';

const NAMES = ['chromium', 'chromium-browser', 'google-chrome'];
const FLAGS =
  '--headless --disable-gpu --disable-quic --no-first-run --disable-background-networking --disable-component-update --disable-sync';

const isProgram = (path: string) => {
  try {
    accessSync(path, constants.X_OK);
    return true;
  } catch {
    return false;
  }
};

const installed = (process.env.PATH ?? '')
  .split(delimiter)
  .flatMap((folder) => NAMES.map((name) => join(folder, name)))
  .find(isProgram);

/** For `test({ skip })`: why these tests are skipped here. */
export const withoutBrowser = !installed && !process.env.CI && 'needs Chromium: apt-get install chromium';

export function startBrowser(): Promise<Browser> {
  if (!installed) throw new Error('There is no Chromium on the PATH: apt-get install chromium fonts-dejavu-core');
  // As root Chromium has no sandbox. What the page shows is our own.
  const args = [...FLAGS.split(' '), ...(process.getuid?.() === 0 ? ['--no-sandbox'] : [])];
  return chromium.launch({ executablePath: installed, args });
}

export interface Visit {
  readonly tab: Tab;
  /** Every address that was asked for, but not this machine's. */
  readonly elsewhere: string[];
  /** What the browser complained about. */
  readonly complaints: string[];
}

/** Opens an address in a browser without history, and waits until it asks for nothing more. */
export async function visit(browser: Browser, url: string, options: BrowserContextOptions = {}): Promise<Visit> {
  const context = await browser.newContext({ viewport: { width: 1280, height: 800 }, ...options });
  context.setDefaultTimeout(15_000);
  const tab = await context.newPage();
  const elsewhere: string[] = [];
  const complaints: string[] = [];
  context.on('request', (request) => {
    if (!/^(data|blob):/.test(request.url()) && new URL(request.url()).hostname !== '127.0.0.1')
      elsewhere.push(request.url());
  });
  tab.on('console', (message) => {
    // That a request was refused is no complaint: the page says why.
    if (message.type() === 'error' && !/^Failed to load resource/.test(message.text())) complaints.push(message.text());
  });
  tab.on('pageerror', ({ message }) => complaints.push(message));
  await tab.goto(url);
  await tab.waitForLoadState('networkidle');
  return { tab, elsewhere, complaints };
}

/**
 * Milliseconds from a change of the view until `isPainted` (JavaScript for the browser) holds in a painted frame: the best
 * of three, for the machine may be busy with something else.
 */
export async function paintTime(tab: Tab, view: string, isPainted: string): Promise<number> {
  const times: number[] = [];
  for (let n = 0; n < 3; n++) {
    await tab.evaluate(`location.hash = 'jobs'`);
    await tab.waitForLoadState('networkidle');
    times.push(
      await tab.evaluate<number>(`(async () => {
        document.querySelectorAll('path.place, #review .list li, article h2').forEach((element) => element.remove());
        const started = performance.now();
        location.hash = '${view}';
        while (!(${isPainted})) await new Promise(requestAnimationFrame);
        await new Promise(requestAnimationFrame);
        return performance.now() - started;
      })()`),
    );
  }
  return Math.min(...times);
}

/**
 * A first paint does not get slow with what there is to paint: many take at most twenty times as long as a handful, which is
 * measured on the same machine at the same time. What it takes in milliseconds is told by `npm run bench -- --only page`.
 */
export function assertPrompt(t: TestContext, many: number, few: number): void {
  const words = `${Math.round(many)} ms, and ${Math.round(few)} ms for a handful`;
  t.diagnostic(words);
  assert.ok(many < 20 * few, words);
}
