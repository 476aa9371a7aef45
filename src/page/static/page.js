/** The page: three views, one at a time, named in the address (`#map`). */
import { context } from './basemap.js';
import { $, put, say } from './dom.js';
import * as jobs from './jobs.js';
import * as map from './map.js';
import * as review from './review.js';

/** @type {Record<string, { show(): unknown }>} */
const VIEWS = { map, review, jobs };

function go() {
  const chosen = location.hash.slice(1) in VIEWS ? location.hash.slice(1) : 'map';
  for (const view of document.querySelectorAll('main')) view.hidden = view.id !== chosen;
  for (const link of document.querySelectorAll('nav a'))
    link.ariaCurrent = link.getAttribute('href') === `#${chosen}` ? 'page' : null;
  say();
  VIEWS[chosen]?.show();
}

put(`${context.role} on ${context.database}`, $('#who'));
window.onhashchange = go;
go();
