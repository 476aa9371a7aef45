/** Reviewing places in a real browser: by key, by pin, by typed coordinates; undone, in conflict, and on a database with 5 000. */
import assert from 'node:assert/strict';
import { after, afterEach, before, beforeEach, describe, test } from 'node:test';
import type { Browser, Page as Tab } from 'playwright-core';
import { type Page, startPage } from '../../src/page/server.ts';
import { assertPrompt, paintTime, startBrowser, type Visit, visit, withoutBrowser } from '../support/browser.ts';
import { type Environment, startEnvironment, waitFor } from '../support/environment.ts';
import { makePlaces, ticketsAt } from '../support/places.ts';

const OTHER_NAME = { label: 'Rose Gardens, Kilimani, Nairobi', lat: -1.2912, lng: 36.7851 };
const TOO_FAR = { label: 'Palm Court, Thika', lat: -1.0333, lng: 37.0693 };
const FAR_TOO = { label: 'Palm Court, Ruiru', lat: -1.1466, lng: 36.9609 };

const PAINTED = `document.querySelector('#review .list li') && document.querySelector('article h2')`;

/** As tests of a person at a keyboard need it: most doubtful first, so the order of the queue is that of these lines. */
const WORLD = {
  clusters: { Kilimani: [-1.29, 36.78], Nyali: null },
  places: [
    { cluster: 'Kilimani', name: 'NW_Rose Court', candidates: [OTHER_NAME], tickets: 12 },
    { cluster: 'Kilimani', name: 'NW_Palm Court_FDT3', candidates: [TOO_FAR, FAR_TOO], tickets: 5 },
    { cluster: 'Kilimani', name: 'SDUS_Acacia Road', tickets: 3 },
    {
      cluster: 'Kilimani',
      name: 'NW_Yaya Centre',
      candidates: [{ label: 'Yaya Centre, Kilimani, Nairobi', lat: -1.2921, lng: 36.7878 }],
      tickets: 2,
    },
  ],
} as const;

describe('the review', { skip: withoutBrowser, timeout: 400_000 }, () => {
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
    await makePlaces(env.pool, WORLD);
    page = await startPage(env.databaseUrl, 0, { MAP_TILES_ATTRIBUTION: '' });
    seen = await visit(browser, page.url);
    tab = seen.tab;
    await tab.getByRole('link', { name: 'Review' }).click();
    await shows('Nyali');
  });
  afterEach(async () => {
    assert.deepEqual(seen.elsewhere, [], 'nothing leaves this machine');
    await tab.context().close();
    await page.close();
  });

  const heading = () => tab.locator('article h2');
  const message = () => tab.locator('#message');
  const pin = () => tab.getByRole('textbox', { name: 'Pin' });
  /** Waits until a place is shown, ready to be decided. */
  const shows = (name: string) => heading().filter({ hasText: name }).waitFor();
  const says = (text: string) => message().filter({ hasText: text }).waitFor();
  /** Keys wait for a decision that is under way. */
  const isIdle = () => tab.locator('#review[aria-busy]').waitFor({ state: 'detached' });
  const press = (...keys: string[]) =>
    keys.reduce((before, key) => before.then(() => tab.keyboard.press(key)), Promise.resolve());
  const row = async (key: string) =>
    (
      await env.pool.query(
        `select status, verified, verified_by = current_user as mine, st_y(geom) as lat, st_x(geom) as lng from tickets.geo_locations where location_key = $1`,
        [key],
      )
    ).rows[0];

  test('the queue is by doubt, and a place shows the raw names, the reason in words, and the candidates with their verdicts', async () => {
    await shows('Nyali');
    const queue = await tab.locator('#review .list li').allInnerTexts();
    assert.deepEqual(
      queue.map((line) => line.split('\n')[0]),
      ['Nyali', 'Rose Court', 'Palm Court', 'Acacia Road', 'Kilimani', 'Yaya Centre'],
    );
    await press('j', 'j');
    await shows('Palm Court');
    const text = await tab.locator('article').innerText();
    for (const part of [
      'rejected',
      'NW_Palm Court_FDT3 × 5',
      'Palm Court, Thika',
      'point · 42.9 km · refused: it is 42.9 km',
      'Asked: Palm Court, Kenya',
      '5 open tickets',
    ]) {
      assert.ok(text.includes(part), `${part} in:\n${text}`);
    }
    assert.equal(
      await tab
        .locator('#review [aria-current]')
        .innerText()
        .then((line) => line.split('\n')[0]),
      'Palm Court',
    );
    assert.equal(await tab.locator('path.guard').count(), 1, 'the guard is drawn');
    assert.deepEqual(await tab.locator('.candidate').allInnerTexts(), ['1', '2']);
    assert.equal(await tab.locator('.centre').count(), 1, 'the centroid is drawn');
    assert.deepEqual(await tab.locator('.rankplace').allTextContents(), ['yaya centre'], 'the places that are found');
    assert.equal(await tab.locator('#review path.country').count(), 1);
    await tab.locator('#review .leaflet-control-scale').waitFor();
  });

  test('keys decide: the tickets move in the database, and the next place is shown', async () => {
    await press('j');
    await shows('Rose Court');
    await press('a');
    await says('Rose Court: accepted. 12 tickets moved');
    await shows('Palm Court');
    assert.equal(await ticketsAt(env.pool, 'rose court'), 'location -1.2912 36.7851 × 12');
    assert.deepEqual(await row('rose court'), {
      status: 'found',
      verified: true,
      mine: true,
      lat: -1.2912,
      lng: 36.7851,
    });
    await press('2', 's');
    await says('Palm Court: pinned. 5 tickets moved');
    assert.equal(await ticketsAt(env.pool, 'palm court'), 'location -1.1466 36.9609 × 5');
    await shows('Acacia Road');
    await press('r');
    await says('Acacia Road: rejected. 0 tickets moved');
    assert.deepEqual(await row('acacia road'), {
      status: 'rejected',
      verified: true,
      mine: true,
      lat: null,
      lng: null,
    });
  });

  test('undo restores the row and the tickets, and shows the place again', async () => {
    const before = await row('rose court');
    await press('j');
    await shows('Rose Court');
    await press('a');
    await says('12 tickets moved');
    await shows('Palm Court');
    await press('u');
    await says('Rose Court is as it was. 12 tickets moved back');
    await shows('Rose Court');
    assert.deepEqual(await row('rose court'), before);
    assert.equal(await ticketsAt(env.pool, 'rose court'), 'cluster -1.2900 36.7800 × 12');
    await press('u');
    await says('You have decided nothing yet');
    await press('r');
    await shows('Palm Court');
    await message().getByRole('button', { name: 'undo', exact: true }).click();
    await says('Rose Court is as it was');
  });

  test('a pin is typed, pasted, clicked and dragged; its distance is told, and swapped axes are noticed', async () => {
    await tab.locator('#review .list').getByText('Acacia Road').click();
    await shows('Acacia Road');
    assert.ok(await tab.getByRole('button', { name: 'Save pin' }).isDisabled(), 'there is no pin yet');
    await pin().fill('36.7856, -1.2921');
    assert.equal(await tab.locator('.pin-form output').innerText(), 'Latitude first: did you mean -1.2921, 36.7856?');
    await pin().fill('somewhere');
    assert.match(await tab.locator('.pin-form output').innerText(), /as in -1\.2921/);
    await pin().fill('-1.6, 36.7856');
    assert.match(
      await tab.locator('.pin-form output').innerText(),
      /^34\.\d km from the centre of Kilimani, beyond its guard of 25 km$/,
    );
    await pin().fill(' -1.2921 36.7856 ');
    assert.match(await tab.locator('.pin-form output').innerText(), /^0\.7 km from the centre of Kilimani$/);
    await pin().press('Enter');
    await says('Acacia Road: pinned. 3 tickets moved');
    assert.equal(await ticketsAt(env.pool, 'acacia road'), 'location -1.2921 36.7856 × 3');

    await tab.locator('#review .list').getByText('Palm Court').click();
    await shows('Palm Court');
    const map = tab.locator('#review .leaflet');
    await map.click({ position: { x: 200, y: 150 } });
    const clicked = await pin().inputValue();
    assert.match(clicked, /^-?\d+\.\d+, 3\d\.\d+$/);
    const marker = tab.locator('.pin.leaflet-marker-icon');
    await marker.dragTo(map, { targetPosition: { x: 260, y: 300 } });
    const dragged = await pin().inputValue();
    assert.notEqual(dragged, clicked);
    await tab.getByRole('button', { name: 'Save pin' }).click();
    await says('Palm Court: pinned. 5 tickets moved');
    const { lat, lng } = await row('palm court');
    assert.equal(dragged, `${lat}, ${lng}`);
  });

  test('a change by a second session is a conflict: nothing is written, it is said, and the place is read again', async () => {
    await press('j');
    await shows('Rose Court');
    await env.pool.query(
      `update tickets.geo_locations set note = 'The gate is behind the school' where location_key = 'rose court'`,
    );
    await press('a');
    await says('Someone changed this place since you looked');
    await tab.locator('article').getByText('The gate is behind the school').waitFor();
    assert.equal((await row('rose court')).verified, false);
    await press('a');
    await says('Rose Court: accepted');
    await shows('Palm Court'); // no key while the next place is still being read
    await env.pool.query(`update tickets.geo_locations set note = null where location_key = 'rose court'`);
    await press('u');
    await says('the place was changed since');
    assert.equal((await row('rose court')).verified, true);
  });

  test('a filter counts also when a place of the old list is chosen before its answer is there', async () => {
    let release = () => {};
    const held = new Promise<void>((resolve) => {
      release = resolve;
    });
    await tab.route('**/api/queue?*', async (route) => {
      await held;
      await route.continue();
    });
    await tab.getByRole('combobox', { name: 'Status' }).selectOption('rejected');
    await tab.locator('#review .list').getByText('Palm Court').click();
    await shows('Palm Court');
    release();
    await tab.locator('#review .summary').getByText('1 of 1').waitFor();
    await shows('Palm Court');
    assert.equal(await tab.locator('#review .list [aria-current]').count(), 1);
  });

  test('no key with Ctrl, Alt or Meta, in a text field, or while a decision is under way', async () => {
    await press('j');
    await shows('Rose Court');
    await press('Control+a', 'Alt+a', 'Meta+r');
    await tab.getByLabel('Place or cluster').pressSequentially('nya');
    await shows('Nyali');
    await tab.getByLabel('Place or cluster').fill('');
    await tab.locator('#review .summary').getByText('1 of 6').waitFor();
    assert.equal((await env.pool.query('select from tickets.geo_decisions')).rows.length, 0);
    await press('Tab', 'Tab', 'Tab');
    await tab.locator('#review .list').getByText('Rose Court').click();
    await shows('Rose Court');
    let release = () => {};
    const held = new Promise<void>((resolve) => {
      release = resolve;
    });
    await tab.route('**/api/decide', async (route) => {
      await held;
      await route.continue();
    });
    await press('a', 'r', 'r', 'j', 'a');
    release();
    await says('Rose Court: accepted');
    await shows('Palm Court');
    const { rows } = await env.pool.query('select location_key, decision from tickets.geo_decisions');
    assert.deepEqual(rows, [{ location_key: 'rose court', decision: 'accepted' }]);
  });

  test('a guard is widened with a live count of the rejected places that it would let in; its cluster’s places are rescored', async () => {
    await tab.locator('#review .list').getByText('Palm Court').click();
    await shows('Palm Court');
    await press('g');
    const form = tab.locator('form.guard');
    await form.getByText('0 of 1 rejected place would fall inside').waitFor();
    await form.getByLabel('Guard of Kilimani in km').fill('30');
    await form.getByText('1 of 1 rejected place would fall inside').waitFor();
    await tab.keyboard.press('Enter');
    await says('Kilimani: guard of 30 km. 5 tickets moved');
    assert.equal(await ticketsAt(env.pool, 'palm court'), 'location -1.1466 36.9609 × 5');
    await isIdle();
    await press('u');
    await says('Kilimani is as it was. 5 tickets moved back');
    await isIdle();
    await shows('Palm Court'); // where the guard was widened, not its cluster
    assert.equal((await row('palm court')).status, 'rejected');
  });

  test('a guard is not opened for a place that was left before its cluster was read; Escape leaves it', async () => {
    await tab.locator('#review .list').getByText('Palm Court').click();
    await shows('Palm Court');
    let release = () => {};
    const held = new Promise<void>((resolve) => {
      release = resolve;
    });
    await tab.route('**/api/place?kind=cluster*', (route) => held.then(() => route.continue()), { times: 1 });
    await press('g');
    await tab.locator('#review .list').getByText('Rose Court').click();
    await shows('Rose Court');
    release();
    await isIdle();
    assert.equal(await tab.locator('form.guard').isVisible(), false);
    await press('g');
    await tab.getByLabel('Guard of Kilimani in km').and(tab.locator(':focus')).fill('300');
    await press('Escape');
    await tab.locator('form.guard').waitFor({ state: 'hidden' });
    await press('j');
    await shows('Palm Court');
    assert.equal((await env.pool.query('select from tickets.geo_decisions')).rows.length, 0);
  });

  test('Enter and Escape leave a field, so that the keys are keys again; Escape leaves the pin as it was', async () => {
    await press('j');
    await shows('Rose Court');
    const { lat, lng } = await row('rose court');
    await pin().fill('-1.5, 36.9');
    await press('Escape');
    await waitFor('the pin as it was', async () => (await pin().inputValue()) === `${lat}, ${lng}`);
    await pin().fill('-1.2921, 36.7856');
    await press('Enter');
    await says('Rose Court: pinned');
    await shows('Palm Court');
    await press('j');
    await shows('Acacia Road');
  });

  test('a cluster gets its centroid by a click', async () => {
    await shows('Nyali');
    await tab.locator('#review .leaflet').click({ position: { x: 300, y: 300 } });
    await press('s');
    await says('Nyali: pinned');
    await isIdle();
    await press('u');
    await says('Nyali is as it was');
    await isIdle();
    await press('r');
    await says('Nyali: rejected');
    await isIdle();
    await tab.locator('#review .list').getByText('Nyali').click();
    await tab.locator('.why').getByText('its tickets are on no map').waitFor();
    await tab.locator('#review .leaflet').click({ position: { x: 300, y: 300 } });
    await press('s');
    await says('Nyali: pinned');
    const { rows } = await env.pool.query(
      `select verified, provider, geom is not null as placed from tickets.geo_clusters where cluster = 'Nyali'`,
    );
    assert.deepEqual(rows, [{ verified: true, provider: 'manual', placed: true }]);
  });

  /** A cluster whose four places lie together in another town. */
  const makeMilimani = () =>
    makePlaces(env.pool, {
      clusters: { Milimani: [-1.297, 36.81] },
      places: ['Baobab Court', 'Cedar Villas', 'Olive Gardens', 'Heron Plaza'].map((name, i) => ({
        cluster: 'Milimani',
        name: `NW_${name}`,
        candidates: [{ label: `${name}, Nakuru`, lat: -0.28 + i / 1000, lng: 36.07 }],
      })),
    });

  test('a suspicious cluster shows where its places lie together', async () => {
    await makeMilimani();
    await tab.getByRole('combobox', { name: 'Status' }).selectOption('suspicious');
    await shows('Milimani');
    await tab.locator('article .candidates').getByText('4 of its 4 rejected places lie together here').waitFor();
    assert.match(await tab.locator('article .candidates').innerText(), /140\.0 km/);
    assert.equal(await tab.locator('.beyond').count(), 4);
    await tab.locator('.why').getByText('its centroid is probably the wrong one').waitFor();
    await press('1', 's');
    await says('Milimani: pinned. 4 tickets moved');
    assert.equal(await ticketsAt(env.pool, 'heron plaza'), 'location -0.2770 36.0700 × 1');
  });

  test('a suspicious cluster that somebody verified can be moved, not accepted once more', async () => {
    await makeMilimani();
    await env.pool.query(
      `update tickets.geo_clusters set geom = st_setsrid(st_makepoint(36.82, -1.3), 4326) where cluster = 'Milimani'`,
    );
    await tab.getByRole('combobox', { name: 'Status' }).selectOption('suspicious');
    await shows('Milimani');
    await tab.locator('article').getByText('4 open tickets · verified by').waitFor();
    await press('a');
    await says('Not now: accept the coordinate');
    await press('s');
    await says('Not now: save the pin');
    await press('1', 's');
    await says('Milimani: pinned. 4 tickets moved');
  });

  test('skip puts a place last; the first and the last are said; everything is a button too', async () => {
    await shows('Nyali');
    await press('k');
    await says('This is the first place.');
    await tab.getByRole('button', { name: 'Skip' }).click();
    await shows('Rose Court');
    await press('k');
    await says('This is the first place.');
    await press('j', 'j', 'j', 'j', 'j');
    await shows('Nyali');
    await press('j');
    await says('That was the last place.');
    await press('k');
    await shows('Yaya Centre');
    await press('n');
    await shows('Nyali');
    await press('s');
    await says('Not now: save the pin');
    await tab.locator('#review .list').getByText('Rose Court').click();
    await shows('Rose Court');
    await tab.getByRole('button', { name: /^Next/ }).click();
    await shows('Palm Court');
    await tab.getByRole('button', { name: /^Previous/ }).click();
    await shows('Rose Court');
    await tab.getByRole('button', { name: /^Accept/ }).click();
    await says('Rose Court: accepted');
    await shows('Palm Court');
    await tab.getByRole('button', { name: 'Undo', exact: true }).click();
    await shows('Rose Court');
    await tab.getByRole('button', { name: 'Reject', exact: true }).click();
    await shows('Palm Court');
    await tab.locator('article .candidates button').first().click();
    assert.equal(await pin().inputValue(), '-1.0333, 37.0693');
    for (const openHelp of [() => tab.getByRole('button', { name: 'Help' }).click(), () => press('?')]) {
      await openHelp();
      await tab.getByRole('dialog').getByText('undo your last decision').waitFor();
      await press('j', 'Escape');
      await tab.getByRole('dialog').waitFor({ state: 'hidden' });
      await shows('Palm Court');
    }
    await tab.getByRole('button', { name: 'Widen guard' }).click();
    await tab.locator('form.guard').waitFor();
  });

  test('Tab goes from the queue over the place and its pin to the decisions; what changes is announced', async () => {
    await press('j', 'j');
    await shows('Palm Court');
    await tab.getByLabel('Place or cluster').focus();
    const order: string[] = [];
    for (let n = 0; n < 40 && order.at(-1) !== 'actions'; n++) {
      const part = await tab.evaluate<string>(
        `(document.activeElement.closest('.filters, .list, .candidates, .leaflet, .actions') ?? document.body).className`,
      );
      if (part !== order.at(-1)) order.push(part.split(' ')[0] as string);
      await press('Tab');
    }
    assert.deepEqual(
      order.filter((part, i) => part !== order[i - 1]),
      ['filters', 'list', 'candidates', 'pin-form', 'leaflet', 'actions'],
    );
    assert.equal(await tab.locator('#review .summary').getAttribute('role'), 'status');
    assert.equal(await message().getAttribute('role'), 'status');
    assert.equal(await tab.locator('nav [aria-current=page]').innerText(), 'Review');
  });

  test('ten places by keyboard alone', async () => {
    await env.reset();
    await makePlaces(env.pool, {
      clusters: { Kilimani: [-1.29, 36.78] },
      places: Array.from({ length: 10 }, (_, i) => ({
        cluster: 'Kilimani',
        name: `NW_${'Baobab Cedar Heron Kudu Olive Palm Swala Topi Twiga Zebra'.split(' ')[i]} Estate`,
        candidates: [{ label: `Gardens ${i}, Kilimani, Nairobi`, lat: -1.29 + i / 1000, lng: 36.78 }],
      })),
    });
    await tab.reload();
    await tab.locator('#review .list li').nth(9).waitFor();
    for (let n = 0; n < 10; n++) {
      await waitFor(
        `place ${n + 1} to be shown`,
        async () =>
          (await tab.locator('#review .summary').innerText()).endsWith(` of ${11 - n}`) && heading().isVisible(),
      );
      await isIdle();
      await press('1', ['s', 'r'][n % 2] as string);
      await waitFor(
        `decision ${n + 1}`,
        async () => (await env.pool.query('select from tickets.geo_decisions')).rows.length === n + 1,
      );
    }
    const { rows } = await env.pool.query(
      'select decision, count(*)::integer as places from tickets.geo_decisions group by 1 order by 1',
    );
    assert.deepEqual(rows, [
      { decision: 'accepted', places: 5 },
      { decision: 'rejected', places: 5 },
    ]);
  });

  test('names from the database are text, whatever is in them', async () => {
    const hostile = [
      '<img src=x onerror="document.title=1">',
      '"><script>alert(1)</script>',
      `${'x'.repeat(200)}`,
      '\u202eshalom \u05e9\u05dc\u05d5\u05dd',
      '😡📍'.repeat(20),
      '\u001b[31mred\u001b[0m \u001b]0;title\u0007',
      '{{7*7}} \ue000',
    ];
    await makePlaces(env.pool, {
      clusters: Object.fromEntries(
        hostile.map((name, i) => [`${i} ${name}`.slice(0, 200).trim(), [-1.2 - i / 50, 36.8] as const]),
      ),
      places: hostile.map((name, i) => ({
        cluster: `${i} ${name}`.slice(0, 200).trim(),
        name: `Estate ${i} ${name}`,
        candidates: [{ label: `${name}, Nairobi`, lat: -1.2 - i / 50, lng: 36.8 }],
      })),
    });
    await tab.reload();
    await tab.locator('#review .list li').nth(12).waitFor();
    for (let i = 0; i < (await tab.locator('#review .list li').count()); i++) {
      await tab.locator('#review .list li button').nth(i).click();
      await heading().waitFor();
      await tab.waitForLoadState('networkidle');
    }
    await env.pool.query('select tickets_ops.enqueue($1, json_build_object($2::text, $3::text))', [
      'geocode_cluster',
      ...hostile.slice(0, 2),
    ]);
    for (const view of ['Map', 'Jobs']) {
      await tab.getByRole('link', { name: view }).click();
      await tab.waitForLoadState('networkidle');
    }
    await tab.locator('.jobs summary').first().getByText('<img src=x onerror=').waitFor();
    await tab.getByRole('link', { name: 'Map' }).click();
    const circles = tab.locator('path.place');
    await circles.first().waitFor();
    for (let i = 0; i < (await circles.count()); i++) {
      await circles.nth(i).dispatchEvent('mouseover');
      await tab.locator('.leaflet-tooltip').last().waitFor();
    }
    assert.equal(await tab.locator('main img, main script').count(), 0);
    assert.equal(await tab.title(), 'fleettickets');
    assert.deepEqual(seen.complaints, []);
    const overflow = await tab.evaluate('document.documentElement.scrollWidth > document.documentElement.clientWidth');
    assert.equal(overflow, false, 'nothing is wider than the window');
  });

  test('a queue of 5 000 is painted promptly', async (t) => {
    const few = await paintTime(tab, 'review', PAINTED);
    await env.pool.query(
      `do $$ begin
         perform tickets_ops.as_pipeline(true);
         insert into tickets.geo_locations (cluster, location_key, location_name, status)
         select 'Kilimani', 'place number ' || n, 'NW_Place Number ' || n, 'not_found' from generate_series(1, 5000) as n;
         perform tickets_ops.as_pipeline(false);
       end $$`,
    );
    const many = await paintTime(tab, 'review', PAINTED);
    assert.match(await tab.locator('#review .summary').innerText(), / of 5,006$/);
    assertPrompt(t, many, few);
    assert.equal(await tab.locator('#review .list li').count(), 100);
    await tab.locator('#review .list').evaluate((list) => list.scrollTo(0, 4000));
    await tab.locator('#review .list li').nth(150).waitFor();
  });
});
