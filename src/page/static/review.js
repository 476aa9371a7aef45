/** The review: a queue of doubtful places, decided one after the other by key or by button. */
import { $, ask, chip, count, html, name, notice, on, say } from './dom.js';
import { accepts, clear, draw, guard, nameOf, pin, pinTo, resize, shown, start as startPlace } from './place.js';

/** @typedef {{ kind: 'cluster' | 'location', cluster: string, location_key: string | null }} Key */

const LISTED = 100;
const view = $('#review');
const filters = $('aside form', view);
const list = $('.list', view);
const help = $('dialog', view);
const guardForm = $('form.guard', view);
/** @type {(Key & { status: string, open: number })[]} */
let queue = [];
let total = 0;
let at = 0;
/** A decision is under way: keys wait. */
let busy = false;
/** The decisions of this sitting that can be undone, the last one last. @type {number[]} */
const decided = [];
/** Of several answers under way only the last one counts. */
let turn = 0;

/** The keys; each is a button too. @type {Record<string, () => unknown>} */
const ACTIONS = {
  j: () => open(at + 1),
  k: () => open(at - 1),
  n: skip,
  a: () => (accepts() ? decide('accept') : say('Nothing is proposed where the pin is: s saves the pin.')),
  s: () => (pin ? decide('pin', pin) : say('There is no pin: click the map, or type coordinates.')),
  r: () => decide('reject'),
  g: editGuard,
  u: undo,
  '?': () => help.showModal(),
};

/** @param {import('./basemap.js').Context} context */
export function start(context) {
  startPlace(context);
  for (const form of view.querySelectorAll('form:not([method])')) on(form, 'submit', (event) => event.preventDefault());
  on(filters, 'input', () => show());
  on($('form.pin-form', view), 'submit', () => press('s'));
  on(guardForm, 'input', countInside);
  on(guardForm, 'submit', saveGuard);
  on(list, 'click', ({ target }) => target.closest('li') && open([...list.children].indexOf(target.closest('li'))));
  on(list, 'scroll', () => list.scrollTop + 2 * list.clientHeight > list.scrollHeight && listMore());
  on($('.actions', view), 'click', ({ target }) => press(target.getAttribute('aria-keyshortcuts')));
  on(document, 'keydown', (event) => {
    if (view.hidden || help.open || event.target.closest('input, select, textarea')) return;
    if (!event.ctrlKey && !event.altKey && !event.metaKey && press(event.key)) event.preventDefault();
  });
}

/** @param {string} key @returns {boolean} whether it means something now */
function press(key) {
  const candidate = shown?.candidates[Number(key) - 1];
  const action = candidate ? () => pinTo(candidate) : ACTIONS[key];
  if (busy || !action || (!shown && 'asrg'.includes(key))) return false;
  action();
  return true;
}

/** Fetches the queue. @param {Key} [wanted] the place to show: the present one, if it is still there, or the first */
export async function show(wanted = shown?.place) {
  resize();
  const asked = ++turn;
  try {
    const answer = await ask('/api/queue', { status: filters.status.value, text: filters.text.value });
    if (asked !== turn) return;
    ({ places: queue, total } = answer);
    list.replaceChildren();
    const same = queue.findIndex(
      (item) => item.cluster === wanted?.cluster && item.location_key === wanted.location_key,
    );
    await open(Math.max(same, 0));
  } catch (error) {
    $('.summary', view).replaceChildren(notice(error));
  }
}

/** Lists more of the queue: thousands at once would take a second. */
function listMore(upTo = list.children.length + LISTED) {
  for (const item of queue.slice(list.children.length, upTo)) {
    list.append(html`<li><button type="button"><span>${name(nameOf(item))}</span>${chip(item.status)}
      <small>${item.location_key === null ? 'cluster' : name(item.cluster)} · ${item.open} open</small></button></li>`);
  }
}

/** Shows a place of the queue. @param {number} index */
async function open(index) {
  const item = queue[index];
  if (!item && queue.length > 0) return say(index < 0 ? 'This is the first place.' : 'That was the last place.');
  at = index;
  guardForm.hidden = true;
  $('[aria-current]', list)?.removeAttribute('aria-current');
  $('.summary', view).textContent = item ? `${at + 1} of ${total.toLocaleString('en')}` : 'Nothing is in doubt here.';
  if (!item) return clear(html`<p>No place matches. Choose another filter, or have a rest.</p>`);
  clear();
  if (!list.children[at]) listMore(at + LISTED);
  const button = list.children[at].firstElementChild;
  button.ariaCurrent = 'true';
  button.scrollIntoView({ block: 'nearest' });
  const { kind, cluster, location_key } = item;
  const asked = ++turn;
  try {
    const details = await ask('/api/place', { kind, cluster, location_key });
    if (asked === turn) draw(details, item.open);
  } catch (error) {
    clear(notice(error));
  }
}

function skip() {
  queue.push(...queue.splice(at, 1));
  list.children[at].remove();
  open(at);
}

/** Until it is done nothing else is; what went wrong is said. @param {() => Promise<unknown>} work */
async function during(work) {
  busy = true;
  view.ariaBusy = 'true';
  try {
    await work();
  } catch (/** @type {any} */ error) {
    say(notice(error));
    if (error.status === 409) await show();
  } finally {
    busy = false;
    view.ariaBusy = null;
  }
}

const DONE = { accept: 'accepted', pin: 'pinned', reject: 'rejected' };

/** @param {keyof typeof DONE} decision @param {{ lat: number, lng: number }} [point] */
function decide(decision, point) {
  if (!shown) return;
  const { kind, cluster, location_key, updated_at } = shown.place;
  during(async () => {
    await save(
      { kind, cluster, location_key, updated_at, decision, ...point },
      `${nameOf(shown.place)}: ${DONE[decision]}`,
    );
    queue.splice(at, 1);
    list.children[at].remove();
    total -= 1;
    // A centroid that moved changes the verdict on the places around it.
    await (kind === 'cluster' ? show() : open(Math.min(at, queue.length - 1)));
  });
}

/** @param {object} decision @param {string} what for the message */
async function save(decision, what) {
  const { decision_id, tickets_moved, notices } = await ask('/api/decide', decision, 'POST');
  decided.push(decision_id);
  const remarks = notices.map((/** @type {string} */ text) => html`<small>${text}</small>`);
  say(
    `${what}. ${count(tickets_moved, 'ticket')} moved`,
    html`<button type="button" @click=${undo}>undo</button>`,
    ...remarks,
  );
}

function undo() {
  const decision_id = decided.pop();
  if (decision_id === undefined) return say('You have decided nothing yet that could be undone.');
  during(async () => {
    const undone = await ask('/api/undo', { decision_id }, 'POST');
    say(`${nameOf(undone)} is as it was. ${count(undone.tickets_moved, 'ticket')} moved back`);
    await show(undone);
  });
}

/** The cluster whose guard is edited, as tickets_ops.review_place gives it. @type {any} */
let guarded;

function editGuard() {
  if (!shown?.centre?.lat) return say('The cluster has no centroid, so it has no guard.');
  during(async () => {
    guarded = await ask('/api/place', { kind: 'cluster', cluster: shown.place.cluster });
    guardForm.hidden = false;
    $('bdi', guardForm).textContent = guarded.place.cluster;
    guardForm.km.value = guarded.centre.guard_km;
    countInside();
    guardForm.km.select();
  });
}

/** While a number is typed, the places that it would let in are counted and the circle on the map grows. */
function countInside() {
  const km = guardForm.km.valueAsNumber || 0;
  const inside = guarded.beyond.filter((/** @type {any} */ { needs_km }) => needs_km <= km).length;
  $('output', guardForm).textContent =
    `${inside} of ${count(guarded.beyond.length, 'rejected place')} would fall inside`;
  guard.setRadius(km * 1000);
}

function saveGuard() {
  const { kind, cluster, updated_at } = guarded.place;
  const guard_km = guardForm.km.valueAsNumber;
  during(async () => {
    await save({ kind, cluster, updated_at, decision: 'guard', guard_km }, `Guard of ${cluster}: ${guard_km} km`);
    await show();
  });
}
