/** The review: a queue of doubtful places, decided one after the other by key or by button. */
import { $, chip, count, get, html, name, nameOf, notice, post, put, refill, say } from './dom.js';
import { clear, draw, guard, pin, pinTo, resize, shown } from './place.js';

/** Thousands of rows at once would take a second. */
const LISTED = 100;
const view = $('#review');
const filters = $('aside form', view);
const list = $('.list', view);
const help = $('dialog', view);
const guardForm = $('form.guard', view);
/** Rows of tickets_ops.review_queue, of which the first are listed. @type {any[]} */
let queue = [];
let listed = LISTED;
let at = 0;
/** The decisions of this sitting that can be undone, the last one last, each with the row that was shown. @type {any[]} */
const decided = [];
/** Of several queues that are asked for only the last one counts. */
let turn = 0;
/** The cluster whose guard is edited, as tickets_ops.review_place gives it. @type {any} */
let guarded;

/** What can be done: its key, the word on its button, what it does in words, and how. */
const ACTIONS = {
  accept: ['a', 'Accept', 'accept the coordinate that is proposed', () => decide({ decision: 'accept' }, 'accepted')],
  pin: ['s', 'Save pin', 'save the pin: the place is there', () => decide({ decision: 'pin', ...pin }, 'pinned')],
  reject: [
    'r',
    'Reject',
    'reject: its tickets stay at their cluster',
    () => decide({ decision: 'reject' }, 'rejected'),
  ],
  skip: ['n', 'Skip', 'skip: to the end of the queue', skip],
  guard: ['g', 'Widen guard', 'widen the guard of the cluster', editGuard],
  undo: ['u', 'Undo', 'undo your last decision', undo],
  previous: ['k', 'Previous', 'previous place', () => open(at - 1)],
  next: ['j', 'Next', 'next place', () => open(at + 1)],
  help: ['?', 'Help', 'this help', () => help.showModal()],
};
const all = Object.entries(ACTIONS).map(([action, [key, word, title]]) => ({ action, key, word, title }));
const button = ({ action, key, word, title }) =>
  html`<button type="button" value="${action}" aria-keyshortcuts="${key}" title="${title}">${word} <kbd aria-hidden="true">${key}</kbd></button>`;
put(all.map(button), $('.actions', view));
const line = ({ key, title }) => html`<li><kbd>${key}</kbd> ${title}</li>`;
put(all.map(line), $('ul', help));

filters.oninput = () => show();
guardForm.oninput = countInside;
guardForm.onsubmit = () => {
  const guard_km = guardForm.guard_km.valueAsNumber;
  decide({ decision: 'guard', guard_km }, `guard of ${guard_km} km`, guarded.place);
};
$('form.pin-form', view).onsubmit = () => $('.actions [value=pin]', view).click();
view.onsubmit = ({ target }) => $(':focus', target)?.blur(); // a field with the focus would take the next key as text
list.onclick = ({ target }) => open(Number(target.closest('button').value));
list.onscroll = () => {
  if (listed >= queue.length || list.scrollTop + 2 * list.clientHeight < list.scrollHeight) return;
  listed += LISTED;
  listQueue();
};
document.onclick = (/** @type {any} */ { target }) => {
  const button = target.closest('[aria-keyshortcuts]');
  if (!button || view.ariaBusy) return;
  const candidate = shown?.candidates[button.ariaKeyShortcuts - 1];
  candidate ? pinTo(candidate) : /** @type {any} */ (ACTIONS)[button.value]?.[3]();
};
document.onkeydown = (/** @type {any} */ { target, key, ctrlKey, altKey, metaKey }) => {
  if (view.hidden || ctrlKey || altKey || metaKey) return;
  if (key === 'Escape' && target.matches('input')) return leave();
  if (target.closest('input, select, dialog')) return;
  const button = $(`[aria-keyshortcuts="${CSS.escape(key)}"]`, view);
  if (button?.disabled && shown) say(`Not now: ${button.title}.`);
  button?.click();
};

/** Leaves a text field, and what was typed there: the place is shown as it is. */
function leave() {
  $(':focus', view).blur();
  open(at);
}

/** Fetches the queue. @param {any} [wanted] the place to show: the present one, if it is still there, or the first */
export async function show(wanted) {
  resize();
  if (!shown) clear();
  const asked = ++turn;
  try {
    const answer = await get('/api/queue', new FormData(filters));
    if (asked !== turn) return;
    const { cluster, location_key } = wanted ?? queue[at] ?? {};
    queue = answer;
    listed = LISTED;
    const isWanted = (item) => item.cluster === cluster && item.location_key === location_key;
    await open(Math.max(queue.findIndex(isWanted), 0));
  } catch (error) {
    put('', $('.summary', view));
    clear(notice(error));
  }
}

/** Tab goes to the present place only, j and k to the others. */
function listQueue() {
  const row = (item, index) => html`<li>
    <button type="button" value="${index}" ${index === at ? 'aria-current=true' : 'tabindex=-1'}>${nameOf(item)}${chip(item.status)}
    <small>${item.location_key ? name(item.cluster) : 'cluster'} · ${item.open} open</small></button></li>`;
  refill(queue.slice(0, listed).map(row), list);
}

/** Shows a place of the queue. @param {number} index */
async function open(index) {
  const item = queue[index];
  if (!item && queue.length > 0) return say(index < 0 ? 'This is the first place.' : 'That was the last place.');
  at = index;
  guardForm.hidden = true;
  listed = Math.max(listed, at + 1);
  listQueue();
  put(item ? `${at + 1} of ${queue.length.toLocaleString('en')}` : 'Nothing is in doubt here.', $('.summary', view));
  clear(!item && 'No place matches: choose another filter.');
  if (!item) return;
  $('[aria-current]', list).scrollIntoView({ block: 'nearest' });
  const { kind, cluster, location_key } = item;
  try {
    const details = await get('/api/place', { kind, cluster, location_key: location_key ?? '' });
    if (item === queue[at]) draw(details, item.open); // not if another one was chosen meanwhile
  } catch (error) {
    if (item === queue[at]) clear(notice(error));
  }
}

function skip() {
  if (queue.length === 0) return;
  queue.push(...queue.splice(at, 1));
  open(at);
}

/** Until it is done nothing else is; what went wrong is said. */
async function during(work) {
  view.ariaBusy = 'true';
  try {
    await work();
  } catch (error) {
    say(notice(error));
    if (error.status === 409) await show();
  }
  view.ariaBusy = null;
}

/** @param {any} decision with what it takes @param {string} done in words */
function decide(decision, done, place = shown.place) {
  const { kind, cluster, location_key, updated_at } = place;
  during(async () => {
    const asked = { kind, cluster, location_key, updated_at, ...decision };
    const { decision_id, tickets_moved, notices } = await post('/api/decide', asked);
    decided.push({ decision_id, item: queue[at] });
    const remarks = notices.map((text) => html`<small>${text}</small>`);
    say(html`<span>${nameOf(place)}: ${done}. ${count(tickets_moved, 'ticket')} moved</span>
      <button type="button" value="undo" aria-keyshortcuts="${ACTIONS.undo[0]}">undo</button>${remarks}`);
    if (decision.decision !== 'guard') queue.splice(at, 1);
    // What is decided about a cluster changes the verdict on its places.
    return kind === 'cluster' ? show() : open(Math.min(at, queue.length - 1));
  });
}

function undo() {
  const last = decided.pop();
  if (!last) return void say('You have decided nothing yet that could be undone.');
  return during(async () => {
    const undone = await post('/api/undo', { decision_id: last.decision_id });
    say(html`<span>${nameOf(undone)} is as it was. ${count(undone.tickets_moved, 'ticket')} moved back</span>`);
    await show(last.item);
  });
}

function editGuard() {
  during(async () => {
    const place = shown;
    guarded = await get('/api/place', { kind: 'cluster', cluster: place.place.cluster });
    if (shown !== place) return; // another one was chosen meanwhile
    guardForm.hidden = false;
    put(guarded.place.cluster, $('bdi', guardForm));
    guardForm.guard_km.value = guarded.centre.guard_km;
    countInside();
    guardForm.guard_km.select();
  });
}

/** While a number is typed, the places that it would let in are counted and the circle on the map grows. */
function countInside() {
  const km = guardForm.guard_km.valueAsNumber || 0;
  const inside = guarded.beyond.filter(({ needs_km }) => needs_km <= km).length;
  put(`${inside} of ${count(guarded.beyond.length, 'rejected place')} would fall inside`, $('output', guardForm));
  guard.setRadius(km * 1000);
}
