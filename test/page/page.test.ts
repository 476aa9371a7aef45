/** The map and the jobs of the page, in a real browser. */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { after, afterEach, before, beforeEach, describe, test } from 'node:test';
import type { Browser, Page as Tab } from 'playwright-core';
import { type Page, startPage } from '../../src/page/server.ts';
import { assertPrompt, paintTime, startBrowser, type Visit, visit, withoutBrowser } from '../support/browser.ts';
import { type Environment, startEnvironment, waitFor } from '../support/environment.ts';
import { makePlaces } from '../support/places.ts';

const NO_TILES = { MAP_TILES_ATTRIBUTION: '' };

describe('the page', { skip: withoutBrowser, timeout: 400_000 }, () => {
  let env: Environment;
  let page: Page;
  let browser: Browser;
  let seen: Visit;
  let tab: Tab;
  before(async () => {
    [env, browser] = await Promise.all([startEnvironment(), startBrowser()]);
  });
  after(async () => {
    await browser?.close();
    await env?.close();
  });
  beforeEach(async () => {
    await env.reset();
    await makePlaces(env.pool, {
      clusters: { Kilimani: [-1.29, 36.78], Nyali: [-4.03, 39.72] },
      places: [
        {
          cluster: 'Kilimani',
          name: 'NW_Rose Court',
          candidates: [{ label: 'Rose Court, Kilimani, Nairobi', lat: -1.2912, lng: 36.7851 }],
          tickets: 12,
        },
        {
          cluster: 'Kilimani',
          name: 'NW_Acacia Road',
          candidates: [{ label: 'Acacia Road, Kilimani, Nairobi', lat: -1.295, lng: 36.79, level: 'street' }],
          tickets: 6,
        },
        { cluster: 'Nyali', name: 'NW_Palm Court', tickets: 3 },
      ],
    });
    page = await startPage(env.databaseUrl, 0, NO_TILES);
    seen = await visit(browser, page.url);
    tab = seen.tab;
  });
  afterEach(async () => {
    assert.deepEqual(seen.elsewhere, [], 'nothing leaves this machine');
    assert.deepEqual(seen.complaints, []);
    await tab.context().close();
    await page.close();
  });

  /** The view that is shown. */
  const view = () => tab.locator('main:not([hidden])');
  const list = () => tab.locator('main:not([hidden]) .list');
  const summary = () => tab.locator('#map .summary');
  const message = (text: string) => tab.locator('#message').filter({ hasText: text }).waitFor();

  test('opens on the map; the token has left the address bar, and says nothing to the page', async () => {
    assert.equal(tab.url(), `${new URL(page.url).origin}/`);
    assert.equal(await tab.evaluate('document.cookie'), '');
    assert.match(await tab.locator('#who').innerText(), /^\w+ on \w+$/);
    await tab.reload();
    await summary().getByText('3 places').waitFor();
  });

  describe('the map', () => {
    test('counts places and tickets; circles say the worst state by more than colour; a click lists the tickets', async () => {
      await summary().getByText('3 places, 21 open tickets: 6 breached, 2 at risk').waitFor();
      assert.deepEqual(await list().locator('li').allInnerTexts(), [
        'Rose Court\nKilimani · 12 open · 6 breached · 1 at risk',
        'Acacia Road\nKilimani · 6 open · 1 at risk',
        'Nyali (centre)\n3 open',
      ]);
      assert.deepEqual(
        await tab
          .locator('path.place')
          .evaluateAll((circles) => circles.map((circle) => circle.getAttribute('class')?.split(' ')[1])),
        ['breached', 'at_risk', 'ok'],
      );
      const widths = await tab
        .locator('path.place')
        .evaluateAll((circles) => circles.map((circle) => Math.round(circle.getBoundingClientRect().width)));
      assert.deepEqual(
        [...new Set(widths)],
        widths.toSorted((a, b) => b - a),
        'the more tickets the larger',
      );
      await list().getByText('Rose Court').click();
      const tickets = list().locator('li:has(b)');
      await tickets.nth(11).waitFor();
      assert.equal(await tickets.first().innerText(), 'WOT0000012 breached 84 h\nOpen · Kilimani A · NW_Rose Court');
      await list().getByRole('button', { name: 'all places' }).click();
      await tab.locator('path.place.ok').dispatchEvent('click');
      await list().getByRole('heading', { name: 'Nyali (centre)' }).waitFor();
    });

    test('shows requests for new installations where CRQ is on, and no choice where it is off', async () => {
      await summary().getByText('3 places').waitFor();
      assert.equal(await view().getByLabel('Dataset').isVisible(), false);
      await env.pool.query(
        `insert into tickets_ops.settings (name, pool_id, value) values ('CRQ_ENABLED', 'some pool', 'true')`,
      );
      await env.pool.query(
        `insert into tickets.crq (ticket_id, raw)
         select 'CRQ' || n, '{"is_actionable": "true", "normalized_status": "Open", "cluster": "Kilimani", "location_name": "NW_Rose Court"}' from generate_series(1, 4) n`,
      );
      await tab.reload();
      await view().getByLabel('Dataset').selectOption('crq');
      await summary()
        .getByText(/^1 place, 4 open tickets$/)
        .waitFor();
      assert.equal(await view().getByLabel('SLA').isVisible(), false);
      await list().getByText('Rose Court').click();
      await list().getByText('CRQ4').waitFor();
      assert.match(await list().innerText(), /^CRQ4\s+Open · no team · NW_Rose Court$/m);
      await tab.getByRole('link', { name: 'Jobs' }).click();
      await view().getByText('CRQ: 4 open tickets as of –').waitFor();
      await view().getByRole('button', { name: 'Look at CRQ' }).click();
      await message('The bucket is looked at now.');
      const { rows } = await env.pool.query(`select key from graphile_worker.jobs where key like 'fetch%'`);
      assert.deepEqual(rows, [{ key: 'fetch_snapshot:crq:newest' }]);
    });

    test('an answer that comes late does not replace the place that was chosen meanwhile; the focus stays in the list', async () => {
      let release = () => {};
      const held = new Promise<void>((resolve) => {
        release = resolve;
      });
      await summary().getByText('3 places').waitFor();
      await tab.route('**/api/tickets?*', (route) => held.then(() => route.continue()), { times: 1 });
      await list().getByRole('button', { name: 'Rose Court' }).press('Enter');
      await list().getByRole('button', { name: 'all places' }).and(tab.locator(':focus')).press('Enter');
      await list().getByRole('button', { name: 'Acacia Road' }).press('Enter');
      await list().locator('li:has(b)').nth(5).waitFor();
      const late = tab.waitForResponse('**/api/tickets?*');
      release();
      await (await late).finished();
      await tab.waitForLoadState('networkidle');
      assert.equal(await list().locator('h2').innerText(), 'Acacia Road');
      await list().getByRole('button', { name: 'all places' }).and(tab.locator(':focus')).press('Enter');
      await list().getByRole('button').first().and(tab.locator(':focus')).waitFor();
    });

    test('filters by cluster, team and SLA', async () => {
      await view().getByLabel('Cluster').selectOption('Nyali');
      await summary().getByText('1 place, 3 open tickets: 0 breached, 0 at risk').waitFor();
      await view().getByLabel('Cluster').selectOption('');
      await view().getByLabel('Team').selectOption('Kilimani A');
      await summary().getByText('2 places, 18 open tickets').waitFor();
      await view().getByLabel('SLA').selectOption('breached');
      await summary().getByText('1 place, 12 open tickets: 6 breached, 1 at risk').waitFor();
      await view().getByLabel('Team').selectOption('Nyali A');
      await summary().getByText('No open ticket has a place here.').waitFor();
    });

    test('orients without tiles: Kenya, towns, clusters, a scale, and who is to be named', async () => {
      assert.equal(await tab.locator('#map path.country').count(), 1);
      for (const town of ['Nairobi', 'Mombasa', 'Kisumu', 'Marsabit'])
        await tab.locator('#map .label').getByText(town, { exact: true }).waitFor();
      await tab.locator('#map').getByText('© OpenStreetMap contributors · GeoNames (CC BY 4.0)').waitFor();
      await tab.locator('#map .leaflet-control-scale').waitFor();
    });

    test('2 500 places are painted promptly', async (t) => {
      const few = await paintTime(tab, 'map', `document.querySelector('path.place')`);
      await env.pool.query(
        `insert into tickets.inc (ticket_id, raw)
         select 'P' || n, jsonb_build_object('cluster', 'Kilimani', 'location_name', 'NW_Place ' || n, 'is_actionable', 'true',
           'latitude', (-1.4 + (n % 50) * 0.01)::text, 'longitude', (36.6 + n / 50 * 0.01)::text)
         from generate_series(1, 2500) as n`,
      );
      const many = await paintTime(tab, 'map', `document.querySelectorAll('path.place').length >= 2500`);
      assertPrompt(t, many, few);
    });

    test('with tiles set, only their server is asked, and nothing else', async (t) => {
      const asked: string[] = [];
      const tiles = createServer((request, response) => {
        asked.push(`${request.headers.referer} ${request.url}`);
        response.writeHead(204).end();
      });
      await once(tiles.listen(0, '127.0.0.1'), 'listening');
      const { port } = tiles.address() as AddressInfo;
      const tiled = await startPage(env.databaseUrl, 0, {
        MAP_TILES_URL: `http://127.0.0.1:${port}/{z}/{x}/{y}.png`,
        MAP_TILES_ATTRIBUTION: 'Tiles <b>by us</b>',
      });
      const other = await visit(browser, tiled.url);
      t.after(async () => {
        await other.tab.context().close();
        await tiled.close();
        tiles.closeAllConnections();
        tiles.close();
      });
      await waitFor('a tile', () =>
        asked.some((line) => /^http:\/\/127\.0\.0\.1:\d+\/ \/\d+\/\d+\/\d+\.png$/.test(line)),
      );
      await other.tab.getByText('Tiles <b>by us</b>').waitFor();
      await other.tab.evaluate(`fetch('http://127.0.0.1:${port}/data').catch(() => undefined)`);
      assert.ok(!asked.some((line) => line.includes('/data')), 'images only');
      assert.deepEqual(other.elsewhere, []);
    });

    test('vehicles are shown where there are any, and the nearest ones to a ticket', async () => {
      assert.equal(await tab.getByLabel(/vehicle/).isVisible(), false);
      await env.pool.query(vehicles('true'));
      await env.pool.query(
        `insert into tickets.assignments (ticket_id, vehicle_id, position) values ('WOT1', 'v1', 1)`,
      );
      try {
        await tab.reload();
        await tab.getByLabel('2 vehicles').waitFor();
        assert.deepEqual(
          await tab.locator('.vehicle').evaluateAll((marks) => marks.map((mark) => mark.className.includes('live'))),
          [true, false],
        );
        await list().getByText('Rose Court').click();
        await list().getByText('Nearest vehicles').waitFor();
        assert.match(
          await list().locator('li').last().innerText(),
          /^KDA 123A live\s+about 0\.8 km by road, \d min · 1 assignment$/,
        );
        await tab.getByLabel('2 vehicles').uncheck();
        await tab.locator('.vehicle').first().waitFor({ state: 'detached' });
      } finally {
        await env.pool.query(vehicles('false'));
        await env.pool.query('delete from tickets.assignments');
      }
    });
  });

  describe('the jobs', () => {
    /** A snapshot that is not there, and a wrong payload: they fail for good. */
    const failing = `
      select tickets_ops.enqueue('upsert_batch', json_build_object('snapshot_id', 999999, 'batch', n)) from generate_series(1, 3) as n
      union all select tickets_ops.enqueue('geocode_location', '{"location_name": "", "cluster": "Kilimani"}')`;
    const later = `select tickets_ops.enqueue('fleettickets_maintain', '{}', p_run_at => now() + interval '1 day')`;
    const rows = () => tab.locator('.jobs tr');

    beforeEach(async () => {
      await env.pool.query(failing);
      await env.runJobs();
      await env.pool.query(later);
      await tab.getByRole('link', { name: 'Jobs' }).click();
      await rows().nth(4).waitFor();
    });

    test('failed ones come first, the last error is whole, and what health says is on top', async () => {
      assert.match(await tab.locator('.health').innerText(), /4 job\(s\) failed/);
      const wrong = rows().filter({ hasText: 'geocode_location' });
      await wrong.locator('summary').getByText('Wrong payload').click();
      await wrong.locator('pre').getByText('A right one').waitFor();
      const again = tab.waitForResponse('**/api/jobs?*');
      await tab.getByRole('button', { name: 'Refresh' }).click();
      await (await again).finished();
      await tab.waitForLoadState('networkidle');
      assert.ok(await wrong.locator('pre').getByText('A right one').isVisible(), 'what is read stays open');
      assert.equal(await rows().first().locator('.chip').innerText(), 'failed');
      assert.equal(await rows().last().locator('.chip').innerText(), 'scheduled');
    });

    test('are filtered by task and state; all failed ones that match are retried, not only those that are shown', async () => {
      await view().getByLabel('Task').selectOption('upsert_batch');
      await tab.getByRole('button', { name: 'Retry all 3 failed upsert_batch' }).waitFor();
      await view().getByLabel('Task').selectOption('geocode_location');
      await view().getByLabel('State').selectOption('failed');
      await tab.getByText('1 job waiting, running or failed').waitFor();
      await tab.getByRole('button', { name: 'Retry all 1 failed geocode_location' }).click();
      await message('It is due now.');
      const { rows: waiting } = await env.pool.query(
        `select task, state from tickets_ops.jobs where state <> 'failed' order by 1`,
      );
      assert.deepEqual(waiting, [
        { task: 'fleettickets_maintain', state: 'scheduled' },
        { task: 'geocode_location', state: 'ready' },
      ]);
    });

    test('more failed ones than are listed are all retried', async () => {
      await env.pool.query(
        `select tickets_ops.enqueue('geocode_location', json_build_object('location_name', '', 'cluster', n), p_max_attempts => 1)
         from generate_series(1, 204) as n`,
      );
      await env.runJobs();
      await view().getByLabel('Task').selectOption('geocode_location');
      await tab.getByText('205 jobs waiting, running or failed, of which 200 are listed').waitFor();
      await tab.getByRole('button', { name: 'Retry all 205 failed geocode_location' }).click();
      await message('It is due now.');
      const { rows: left } = await env.pool.query(
        `select state, count(*)::integer as jobs from tickets_ops.jobs where task = 'geocode_location' group by 1`,
      );
      assert.deepEqual(left, [{ state: 'ready', jobs: 205 }]);
    });

    test('one is retried, or cancelled; what cannot be is said', async () => {
      const geocode = rows().filter({ hasText: 'geocode_location' });
      await geocode.getByRole('button', { name: 'Retry' }).click();
      await message('It is due now.');
      await geocode.locator('.chip').getByText('ready').waitFor();
      await geocode.getByRole('button', { name: 'Run now' }).and(tab.locator(':focus')).waitFor();
      await geocode.getByRole('button', { name: 'Cancel' }).click();
      await message('is cancelled.');
      await geocode.waitFor({ state: 'detached' });
      await rows().filter({ hasText: 'upsert_batch' }).first().getByRole('button', { name: 'Retry' }).click();
      await message('is not tried again');
    });

    test('the bucket is looked at, and a place is asked for', async () => {
      await tab.getByRole('button', { name: 'Look at the bucket now' }).click();
      await message('The bucket is looked at now. But no worker is alive.');
      await view().getByLabel('Cluster').fill('Kilimani');
      await view().getByRole('textbox', { name: 'Location' }).fill('NW_Acacia Road');
      await tab.getByRole('button', { name: 'Ask', exact: true }).click();
      await message('An answer is known: it will not be asked again without force.');
      await rows().filter({ hasText: 'geocode_location:Kilimani:acacia road' }).waitFor();
      await view().getByRole('textbox', { name: 'Location' }).fill('');
      await tab.getByRole('button', { name: 'Ask', exact: true }).click();
      await rows().filter({ hasText: 'geocode_cluster:Kilimani' }).waitFor();
      await rows().filter({ hasText: 'fetch_snapshot' }).waitFor();
    });
  });

  for (const [what, options] of [
    ['on a narrow screen', { viewport: { width: 390, height: 844 } }],
    ['in the dark', { colorScheme: 'dark' }],
  ] as const) {
    test(`${what} nothing is wider than the window, and text can be read`, async (t) => {
      const long = 'Unbroken'.repeat(18);
      await makePlaces(env.pool, {
        clusters: { [long]: [-1.2, 36.8] },
        places: [
          {
            cluster: long,
            name: `NW_${long}`,
            candidates: [{ label: `${long}, Nairobi`, lat: -1.2, lng: 36.8 }],
            tickets: 20,
          },
        ],
      });
      await env.pool.query('select tickets_ops.enqueue($1, json_build_object($2::text, $2::text))', [
        'geocode_cluster',
        long,
      ]);
      const other = await visit(browser, page.url, options);
      t.after(() => other.tab.context().close());
      for (const [view, part] of Object.entries({ Map: '.list li', Review: 'article h2', Jobs: '.jobs tr' })) {
        await other.tab.getByRole('link', { name: view, exact: true }).click();
        await other.tab.locator(`main:not([hidden]) ${part}`).first().waitFor();
        if (view === 'Map') await other.tab.locator('#map .list button').first().click();
        if (view === 'Review') await other.tab.locator('#review .list').getByText(long).first().click();
        await other.tab.waitForLoadState('networkidle');
        assert.equal(await other.tab.evaluate('document.documentElement.scrollWidth <= innerWidth'), true, view);
        assert.deepEqual(await other.tab.evaluate(PALE), [], view);
      }
    });
  }

  test('a server that has ended is said', async () => {
    const ended = page;
    page = await startPage(env.databaseUrl, 0, NO_TILES);
    await ended.close();
    await view().getByLabel('Cluster').selectOption('Nyali');
    await summary().getByText('The server of this page has ended.').waitFor();
  });
});

/** In the browser: texts whose contrast with their ground is less than WCAG's 4.5. */
const PALE = `(() => {
  const canvas = new OffscreenCanvas(1, 1).getContext('2d', { willReadFrequently: true });
  const rgb = (colour) => { canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = colour; canvas.fillRect(0, 0, 1, 1); return [...canvas.getImageData(0, 0, 1, 1).data]; };
  const light = ([r, g, b]) => [r, g, b].map((c) => c / 255).map((c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4)).reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
  const ground = (element) => { for (let e = element; e; e = e.parentElement) { const colour = rgb(getComputedStyle(e).backgroundColor); if (colour[3] === 255) return colour; } return [255, 255, 255, 255]; };
  return [...document.querySelectorAll('main:not([hidden]) *, header *')]
    .filter((e) => e.checkVisibility() && !e.closest('.leaflet, :disabled') && [...e.childNodes].some((node) => node.nodeType === 3 && node.data.trim()))
    .map((e) => { const [a, b] = [light(rgb(getComputedStyle(e).color)), light(ground(e))].sort((x, y) => y - x); return [(a + 0.05) / (b + 0.05), e.textContent.trim().slice(0, 30)]; })
    .filter(([contrast]) => contrast < 4.5);
})()`;

/** The operator's view of a tracker, with two vehicles or without any. */
const vehicles = (where: string) => `
  create or replace view tickets.vehicles as
  select id as vehicle_id, label, 'Kilimani A' as team, lng::double precision as lng, lat::double precision as lat, now() - age as located_at,
    now() - age as seen_at, false as moving, 0::double precision as speed_kmh, 'test' as source
  from (values
    ('v1', 'KDA 123A', 36.79, -1.29, interval '0'), ('v2', '<b>KDB</b>', 36.7, -1.3, interval '2 hours')
  ) as v (id, label, lng, lat, age)
  where ${where}`;
