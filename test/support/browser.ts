/**
 * A real Chromium, headless, for tests of the page: the one that is installed (Debian's package chromium). Where there is
 * none the tests are skipped, but for CI, where that is a failure.
 */
import { accessSync, constants } from 'node:fs';
import { delimiter, join } from 'node:path';
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
  tab.on('console', (message) => message.type() === 'error' && complaints.push(message.text()));
  tab.on('pageerror', ({ message }) => complaints.push(message));
  await tab.goto(url);
  await tab.waitForLoadState('networkidle');
  return { tab, elsewhere, complaints };
}
