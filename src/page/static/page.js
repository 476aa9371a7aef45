/** The page: three views, one at a time, named in the address (`#map`). */
import { $, ask, notice, on, say } from './dom.js';
import * as jobs from './jobs.js';
import * as map from './map.js';
import * as review from './review.js';

/** @type {Record<string, { start(context: import('./basemap.js').Context): void, show(): Promise<void> }>} */
const VIEWS = { map, review, jobs };
const started = new Set();

/** @param {import('./basemap.js').Context} context */
function go(context) {
  const chosen = location.hash.slice(1) in VIEWS ? location.hash.slice(1) : 'map';
  for (const view of document.querySelectorAll('main')) view.hidden = view.id !== chosen;
  for (const link of document.querySelectorAll('nav a'))
    link.ariaCurrent = link.getAttribute('href') === `#${chosen}` ? 'page' : null;
  say();
  if (!started.has(chosen)) VIEWS[chosen]?.start(context); // not before it is seen: a map needs its size
  started.add(chosen);
  VIEWS[chosen]?.show();
}

try {
  const context = await ask('/context.json');
  $('#who').textContent = `${context.role} on ${context.database}`;
  on(window, 'hashchange', () => go(context));
  go(context);
} catch (error) {
  document.body.append(notice(error));
}
