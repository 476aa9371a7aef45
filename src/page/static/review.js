/** The review: one doubtful place after the other, decided by key, by click or by typed coordinates. */
import { baseMap, declutter, label } from './basemap.js';
import { $, ask, chip, count, html, name, notice, on, say, title, when } from './dom.js';

/** @typedef {{ kind: 'cluster' | 'location', cluster: string, location_key: string | null }} Key */
/** @typedef {{ candidate_no: number, label: string | null, level: string, lng: number | null, lat: number | null, distance_km: number | null, verdict: string }} Candidate */
/** @typedef {{ lng: number, lat: number, needs_km: number, location_key: string }} Beyond */
/** @typedef {{ place: Key & Record<string, any>, centre: any, candidates: Candidate[], beyond: Beyond[], names: any[], found: [number, number, string][], history: any[] }} Details as tickets_ops.review_place gives them */

const LISTED = 100;
const view = $('#review');
const article = $('article', view);
const filters = $('aside form', view);
const pinForm = $('form.pin-form', view);
const list = $('.list', view);
const help = $('dialog', view);
const layer = L.layerGroup();
const guard = L.circle([0, 0], { radius: 1, interactive: false, className: 'guard' });
/** @type {L.Map} */
let map;
/** @type {(Key & { status: string, open: number })[]} */
let queue = [];
let total = 0;
let at = 0;
/** What is decided about; null while it is fetched. @type {Details | null} */
let shown = null;
/** @type {L.LatLng | null} */
let pin = null;
/** @type {L.Marker | undefined} */
let marker;
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
  s: () =>
    pin ? decide('pin', { lat: pin.lat, lng: pin.lng }) : say('There is no pin: click the map, or type coordinates.'),
  r: () => decide('reject'),
  g: editGuard,
  u: undo,
  '?': () => help.showModal(),
};

/** @param {import('./basemap.js').Context} context */
export function start(context) {
  map = baseMap($('.leaflet', view), context).addLayer(layer);
  map.on('click', ({ latlng }) => setPin(latlng));
  on(filters, 'input', () => show());
  on(pinForm.pin, 'input', () => setPin(coordinates(pinForm.pin.value), true));
  for (const form of [filters, pinForm]) on(form, 'submit', (event) => event.preventDefault());
  on(pinForm, 'submit', () => press('s'));
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
  if (busy || !action) return false;
  action();
  return true;
}

const idOf = (/** @type {Key} */ { kind, cluster, location_key }) => JSON.stringify([kind, cluster, location_key]);
const nameOf = (/** @type {Key} */ { cluster, location_key }) =>
  location_key === null ? cluster : title(location_key);

/** Fetches the queue. @param {Key} [wanted] the place to show: the present one, if it is still there, or the first */
export async function show(wanted = shown?.place) {
  map.invalidateSize();
  const asked = ++turn;
  try {
    const answer = await ask('/api/queue', { status: filters.status.value, text: filters.text.value });
    if (asked !== turn) return;
    ({ places: queue, total } = answer);
    list.replaceChildren();
    const same = queue.findIndex((item) => wanted && idOf(item) === idOf(wanted));
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
  if (!item && queue.length > 0)
    return say(index < 0 ? 'This is the first of the queue.' : 'That was the last of the queue.');
  at = index;
  shown = null;
  $('[aria-current]', list)?.removeAttribute('aria-current');
  $('.summary', view).textContent = item ? `${at + 1} of ${total.toLocaleString('en')}` : 'Nothing is in doubt here.';
  if (!item) return article.replaceChildren(html`<p>No place matches. Choose another filter, or have a rest.</p>`);
  if (!list.children[at]) listMore(at + LISTED);
  const button = list.children[at].firstElementChild;
  button.ariaCurrent = 'true';
  button.scrollIntoView({ block: 'nearest' });
  const asked = ++turn;
  try {
    const details = await ask('/api/place', {
      kind: item.kind,
      cluster: item.cluster,
      location_key: item.location_key,
    });
    if (asked === turn) draw(details, item.open);
  } catch (error) {
    article.replaceChildren(notice(error));
  }
}

function skip() {
  queue.push(...queue.splice(at, 1));
  list.children[at].remove();
  open(at);
}

/** Whether the pin is where the place is proposed, so that accepting it is no surprise. */
const accepts = () =>
  shown !== null && shown.place.lat !== null && pin?.equals([shown.place.lat, shown.place.lng]) === true;

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

/** @param {'accept' | 'pin' | 'reject'} decision @param {object} [values] */
function decide(decision, values) {
  if (!shown) return;
  const { kind, cluster, location_key, updated_at } = shown.place;
  during(async () => {
    const done = await ask('/api/decide', { kind, cluster, location_key, updated_at, decision, ...values }, 'POST');
    tell(
      done,
      `${nameOf({ kind, cluster, location_key })}: ${{ accept: 'accepted', pin: 'pinned', reject: 'rejected' }[decision]}`,
    );
    queue.splice(at, 1);
    list.children[at].remove();
    total -= 1;
    // A centroid that moved changes the verdict on the places around it.
    await (kind === 'cluster' ? show() : open(Math.min(at, queue.length - 1)));
  });
}

/** @param {{ decision_id: number, tickets_moved: number, notices: string[] }} done @param {string} what */
function tell({ decision_id, tickets_moved, notices }, what) {
  decided.push(decision_id);
  say(
    `${what}. ${count(tickets_moved, 'ticket')} moved `,
    html`<button type="button" @click=${undo}>undo</button>`,
    ...notices.map((text) => html`<small>${text}</small>`),
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

/** @param {string} text latitude first */
function coordinates(text) {
  const [, lat, lng] = /^\s*(-?\d+(?:\.\d+)?)[\s,;]+(-?\d+(?:\.\d+)?)\s*$/.exec(text) ?? [];
  return lat === undefined ? null : L.latLng(Number(lat), Number(lng));
}

/** @param {Candidate} candidate */
function pinTo({ lat, lng, candidate_no }) {
  if (lat === null || lng === null) return say(`Candidate ${candidate_no} has no coordinates.`);
  setPin(L.latLng(lat, lng));
  map.panInside([lat, lng], { padding: [40, 40] });
}

/** @param {L.LatLng | null} place @param {boolean} [typed] the text is the person's own, and stays */
function setPin(place, typed = false) {
  // Kenya lies east of 33° and within 6° of the equator, so swapped axes show.
  const swapped = place && place.lat > 33 && Math.abs(place.lng) < 6;
  // What is saved is what is shown: six digits are 11 cm.
  pin = swapped || !place ? null : L.latLng(+place.lat.toFixed(6), +place.lng.toFixed(6));
  marker?.remove();
  marker = pin
    ? L.marker(pin, {
        icon: L.divIcon({ className: 'pin', iconSize: [26, 26], iconAnchor: [13, 26] }),
        draggable: true,
        zIndexOffset: 1000,
        alt: 'Pin',
      })
    : undefined;
  marker?.addTo(map).on('dragend', ({ target }) => setPin(target.getLatLng()));
  if (!typed) pinForm.pin.value = pin ? `${pin.lat}, ${pin.lng}` : '';
  const hint = pinForm.pin.value && 'Latitude and longitude, as in -1.2921, 36.7856';
  $('output', pinForm).textContent = swapped
    ? `Latitude first: did you mean ${place.lng}, ${place.lat}?`
    : pin
      ? distance(pin)
      : hint;
  $('[aria-keyshortcuts=a]', view).disabled = !accepts();
  $('[aria-keyshortcuts=s]', view).disabled = !pin;
}

/** @param {L.LatLng} place */
function distance(place) {
  const { lat, lng, guard_km } = shown?.centre ?? {};
  if (!lat || shown?.place.kind === 'cluster') return '';
  const km = place.distanceTo([lat, lng]) / 1000;
  return `${km.toFixed(1)} km from the centre of ${shown?.place.cluster}${km > guard_km ? `, beyond its guard of ${guard_km} km` : ''}`;
}

/** In words, where the judge left none. @type {Record<string, string>} */
const DOUBTS = {
  found: 'It was found; nobody has checked it.',
  not_found: 'The provider knows no such place.',
  suspicious: 'Many of its places lie together elsewhere: its centroid is probably the wrong one.',
};

/** @param {Details} details @param {number} open tickets */
function draw(details, open) {
  shown = details;
  const { place, centre, candidates, beyond, names, history } = details;
  const group = agreement(details);
  article.replaceChildren(html`<div>
    <h2>${name(nameOf(place))} ${chip(place.status)}</h2>
    <p>${place.kind === 'cluster' ? 'Cluster' : name(place.cluster)} · ${count(open, 'open ticket')}${place.confidence !== null && ` · confidence ${place.confidence}`}</p>
    <p class="why">${place.note ?? (place.kind === 'cluster' && place.lat === null ? 'It has no centroid: its tickets are on no map, and its places are not asked.' : DOUBTS[place.status])}</p>
    ${
      group &&
      html`<p class="why">${group.places} of its ${count(beyond.length, 'rejected place')} lie together, ${Math.round(group.km)} km from the centroid.
      <button type="button" @click=${() => setPin(group.middle)}>Put the pin there</button></p>`
    }
    <h3>As field staff typed it</h3>
    <ul class="names">${names.map(({ name: text, tickets }) => html`<li>${name(text)} <small>× ${tickets}</small></li>`)}</ul>
    <h3>${candidates.length > 0 ? 'What the provider found' : 'The provider found nothing'}</h3>
    <p><small>${place.query && ['Asked: ', name(place.query)]}</small></p>
    <ol class="candidates">${candidates.map(
      (
        candidate,
      ) => html`<li><button type="button" @click=${() => pinTo(candidate)}><kbd>${candidate.candidate_no}</kbd>
      <span>${name(candidate.label)}<small>${candidate.level} · ${candidate.distance_km?.toFixed(1) ?? '?'} km · ${candidate.verdict}</small></span></button></li>`,
    )}</ol>
    ${history.length > 0 && html`<h3>Decided before</h3>`}
    <ul>${history.map(
      ({ decided_at, decided_by, decision, tickets_moved }) =>
        html`<li>${when(decided_at)} · ${name(decided_by)} · ${decision} <small>${count(tickets_moved, 'ticket')} moved</small></li>`,
    )}</ul></div>`);
  article.scrollTop = 0;
  drawMap(details);
  setPin(place.lat === null ? null : L.latLng(place.lat, place.lng));
  const points = L.latLngBounds([]);
  for (const { lat, lng } of [place, centre ?? place, ...candidates, ...beyond])
    if (lat !== null && lng !== null) points.extend([lat, lng]);
  if (points.isValid()) map.fitBounds(points.pad(0.2), { maxZoom: 14, animate: false });
  declutter(map);
}

/** @param {Details} details */
function drawMap({ place, centre, candidates, beyond, found }) {
  layer.clearLayers();
  /** @param {number} lat @param {number} lng @param {string} className @param {string | number} text @param {any} words */
  const mark = (lat, lng, className, text, words) =>
    L.marker([lat, lng], {
      icon: L.divIcon({ className, html: html`<b>${text}</b>`, iconSize: [22, 22] }),
      alt: words,
      keyboard: false,
    })
      .bindTooltip(() => html`<span>${name(words)}</span>`)
      .addTo(layer);
  for (const [lng, lat, key] of found)
    label(title(key.replace(` ${place.cluster.toLowerCase()}`, '')), [lat, lng], 4).addTo(layer);
  for (const { lng, lat, location_key } of beyond) mark(lat, lng, 'beyond', '', title(location_key));
  if (centre?.lat) {
    guard
      .setLatLng([centre.lat, centre.lng])
      .setRadius(centre.guard_km * 1000)
      .addTo(layer);
    mark(centre.lat, centre.lng, 'centre', '✚', `Centre of ${place.cluster}`);
  }
  for (const candidate of candidates) {
    const { lat, lng, candidate_no, label: words } = candidate;
    if (lat !== null && lng !== null)
      mark(lat, lng, 'candidate', candidate_no, words).on('click', () => pinTo(candidate));
  }
}

/** Where three or more rejected places lie together. @param {Details} details */
function agreement({ beyond, centre }) {
  if (!centre?.lat) return null;
  const near = (/** @type {Beyond} */ one) =>
    beyond.filter((other) => L.latLng(one.lat, one.lng).distanceTo([other.lat, other.lng]) <= centre.guard_km * 1000);
  const [most = []] = beyond.map(near).sort((a, b) => b.length - a.length);
  const middle = L.latLngBounds(most.map(({ lat, lng }) => [lat, lng]));
  return most.length < 3
    ? null
    : {
        places: most.length,
        middle: middle.getCenter(),
        km: middle.getCenter().distanceTo([centre.lat, centre.lng]) / 1000,
      };
}

/** A form above the place, with a live count of what the guard would let in. */
async function editGuard() {
  if (!shown?.centre?.lat) return say('The cluster has no centroid, so it has no guard.');
  const { cluster } = shown.place;
  const { beyond, centre } = await ask('/api/place', { kind: 'cluster', cluster });
  const form = html`<form class="guard"><label>Guard of ${name(cluster)} in km <input name="km" type="number" min="1" max="2000" step="any" required></label><output></output><button>Save</button></form>`;
  const counted = () => {
    const inside = beyond.filter((/** @type {Beyond} */ { needs_km }) => needs_km <= form.km.valueAsNumber).length;
    $('output', form).textContent = `${inside} of ${count(beyond.length, 'rejected place')} would fall inside`;
    guard.setRadius((form.km.valueAsNumber || 0) * 1000);
  };
  on(form, 'input', counted);
  on(form, 'submit', (event) => {
    event.preventDefault();
    const change = {
      kind: 'cluster',
      cluster,
      updated_at: centre.updated_at,
      decision: 'guard',
      guard_km: form.km.valueAsNumber,
    };
    during(async () => {
      tell(await ask('/api/decide', change, 'POST'), `Guard of ${cluster}: ${change.guard_km} km`);
      await show();
    });
  });
  $('form.guard', article)?.remove();
  article.prepend(form);
  form.km.value = centre.guard_km;
  counted();
  form.km.select();
}
