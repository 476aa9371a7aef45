/**
 * `npm run screenshots`: the pictures of docs/page.md, of the demo in a real browser. They show made-up tickets at real
 * places; times and ages are those of the moment.
 */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { stat } from 'node:fs/promises';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import type { Page as Tab } from 'playwright-core';
import { withClient } from '../../src/database/client.ts';
import { startBrowser, visit } from './browser.ts';
import { CLI } from './command.ts';
import { waitFor } from './environment.ts';

const DOCS = fileURLToPath(new URL('../../docs/', import.meta.url));
const WINDOW = { viewport: { width: 1200, height: 720 } };

/** A job that fails for good: its place has no name. */
const FAILING_JOB = `select tickets_ops.enqueue('geocode_location', '{"location_name": "", "cluster": "Kilimani"}', p_max_attempts => 1)`;

async function shoot(tab: Tab, name: string): Promise<void> {
  const path = `${DOCS}page-${name}.png`;
  await tab.mouse.move(0, 0);
  await tab.screenshot({ path });
  process.stdout.write(`${path}: ${Math.round((await stat(path)).size / 1000)} kB\n`);
}

const demo = spawn(process.execPath, [CLI, 'demo'], { stdio: ['ignore', 'pipe', 'inherit'] });
try {
  let url = '';
  let database = '';
  for await (const line of createInterface(demo.stdout)) {
    url ||= /http:\/\/127\.0\.0\.1:\d+\/\?token=\S+/.exec(line)?.[0] ?? '';
    database ||= /psql '(.*)'/.exec(line)?.[1] ?? '';
    if (url && database) break;
  }
  const browser = await startBrowser();
  const { tab } = await visit(browser, url, WINDOW);

  await tab
    .locator('#map .list')
    .getByText(/^Several near Kasarani/)
    .first()
    .click();
  await tab.locator('#map .list li:has(b)').first().waitFor();
  await shoot(tab, 'map');

  await tab.getByRole('link', { name: 'Review' }).click();
  await tab.getByRole('combobox', { name: 'Status' }).selectOption('rejected');
  await tab.locator('#review .list').getByText('needs review').first().waitFor({ state: 'detached' });
  await tab.locator('#review .list').getByText('Sunbird Gardens Kisii').click();
  await tab.locator('article h2').filter({ hasText: 'Sunbird Gardens Kisii' }).waitFor();
  await shoot(tab, 'review');

  await withClient(database, (client) => client.query(FAILING_JOB));
  await tab.getByRole('link', { name: 'Jobs' }).click();
  await waitFor('the job to fail', async () => {
    await tab.getByRole('button', { name: 'Refresh' }).click();
    return tab.locator('.jobs').getByText('failed').isVisible();
  });
  await tab.locator('.jobs summary').first().click();
  await shoot(tab, 'jobs');
  await browser.close();
} finally {
  demo.kill('SIGINT');
  await once(demo, 'exit');
}
