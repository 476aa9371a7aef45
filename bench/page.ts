/** The first paint of the page: its map with 2 500 places and its queue of 5 000, in a real Chromium. */
import { startPage } from '../src/page/server.ts';
import { paintTime, startBrowser, visit, withoutBrowser } from '../test/support/browser.ts';
import type { Environment } from '../test/support/environment.ts';
import type { Line } from './table.ts';

const LIMIT_MS = 1000;

/** Nothing where there is no Chromium. Leaves its places and their tickets behind. */
export async function measurePage(env: Environment): Promise<Line[]> {
  if (withoutBrowser) return [];
  await env.reset();
  await env.pool.query(
    `insert into tickets.inc (ticket_id, raw)
     select 'P' || n, jsonb_build_object('cluster', 'Kilimani', 'location_name', 'NW_Place ' || n, 'is_actionable', 'true',
       'latitude', (-1.4 + (n % 50) * 0.01)::text, 'longitude', (36.6 + n / 50 * 0.01)::text)
     from generate_series(1, 2500) as n;
     do $$ begin
       perform tickets_ops.as_pipeline(true); -- a person's own rows would be verified
       insert into tickets.geo_locations (cluster, location_key, location_name, status)
       select 'Kilimani', 'place number ' || n, 'NW_Place Number ' || n, 'not_found' from generate_series(1, 5000) as n;
       perform tickets_ops.as_pipeline(false);
     end $$`,
  );
  const page = await startPage(env.databaseUrl, 0, { MAP_TILES_ATTRIBUTION: '' });
  const browser = await startBrowser();
  try {
    const { tab } = await visit(browser, page.url);
    const map = await paintTime(tab, 'map', `document.querySelectorAll('path.place').length >= 2500`);
    const queue = await paintTime(
      tab,
      'review',
      `document.querySelector('#review .list li') && document.querySelector('article h2')`,
    );
    const line = (what: string, ms: number) => ({
      what,
      ours: `${ms.toFixed(0)} ms`,
      reference: '',
      value: ms,
      limit: LIMIT_MS,
      unit: 'ms',
    });
    return [
      line('page: first paint of the map, 2 500 places', map),
      line('page: first paint of the queue, 5 000', queue),
    ];
  } finally {
    await browser.close();
    await page.close();
  }
}
