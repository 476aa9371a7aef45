/** The review: one doubtful place after the other, decided by key, by click or by typed coordinates. */
import { baseMap } from './basemap.js';
import { $, ask, chip, count, h, name, notice, query, say, title, when } from './dom.js';

/** @typedef {{ kind: 'cluster' | 'location', cluster: string, location_key: string | null }} Key */
/** @typedef {Key & { status: string, doubt: number, open: number }} Item */
/** @typedef {{ candidate_no: number, label: string | null, level: string, lng: number | null, lat: number | null, distance_km: number | null, verdict: string }} Candidate */
/** @typedef {{ lng: number, lat: number, distance_km: number, location_key: string }} Beyond */
/**
 * @typedef {object} Details as tickets_ops.review_place gives them
 * @property {Key & { location_name: string | null, status: string, note: string | null, precision: string | null, confidence: number | null, provider: string | null, query: string | null, lng: number | null, lat: number | null, updated_at: string }} place
 * @property {{ guard_km: number, suspicious: boolean, lng: number | null, lat: number | null, updated_at: string } | null} centre
 * @property {Candidate[]} candidates
 * @property {Beyond[]} beyond
 * @property {{ name: string | null, tickets: number, open: number }[]} names
 * @property {[number, number, string][]} found
 * @property {{ decided_at: string, decided_by: string, decision: string, tickets_moved: number }[]} history
 */

const view = $('#review');
const article = $('article', view);
const filters = $('aside form', view);
const pinForm = $('form.pin', view);
const list = $('ol.list', view);
const help = $('dialog', view);

/** @type {import('leaflet').Map} */
let map;
const layer = L.featureGroup();
/** @type {Item[]} */
let queue = [];
let total = 0;
let at = 0;
/** @type {Details | null} what is shown; null while it is fetched */
let shown = null;
/** @type {L.LatLng | null} */
let pin = null;
/** @type {L.Marker | null} */
let marker = null;
/** A decision is under way: keys wait. */
let busy = false;
/** @type {number[]} the decisions of this sitting that can be undone, the last one last */
const decided = [];

/** @param {import('./basemap.js').Context} context */
export function start(context) {
  map = baseMap($('.leaflet', view), context).addLayer(layer);
  map.on('click', ({ latlng }) => setPin(latlng));
  filters.addEventListener('input', () => show());
  filters.addEventListener('submit', (/** @type {Event} */ event) => event.preventDefault());
  pinForm.pin.addEventListener('input', () => setPin(read(pinForm.pin.value), true));
  pinForm.addEventListener('submit', (/** @type {Event} */ event) => (event.preventDefault(), press('s')));
  list.addEventListener('click', (/** @type {any} */ { target }) => {
    const item = target.closest('button');
    if (item) open(queue.findIndex((entry) => idOf(entry) === item.dataset.id));
  });
  $('.actions', view).addEventListener('click', (/** @type {any} */ { target }) => press(target.dataset.key));
  document.addEventListener('keydown', (event) => {
    const typing = /** @type {Element} */ (event.target).closest('input, select, textarea');
    if (view.hidden || help.open || typing || event.ctrlKey || event.altKey || event.metaKey) return;
    if (press(event.key)) event.preventDefault();
  });
}

/** The keys; each is a button too. @type {Record<string, () => unknown>} */
const ACTIONS = {
  j: () => open(at + 1),
  k: () => open(at - 1),
  n: skip,
  a: () => (accepts() ? decide('accept') : say('The pin is elsewhere: s saves it where it is.')),
  s: () => (pin ? decide('pin', { lat: pin.lat, lng: pin.lng }) : say('There is no pin: click the map, or type coordinates.')),
  r: () => decide('reject'),
  g: editGuard,
  u: undo,
  '?': () => help.showModal(),
};

/** @param {string | undefined} key @returns {boolean} whether it means something */
function press(key = '') {
  const candidate = shown?.candidates[Number(key) - 1];
  const action = candidate ? () => pinTo(candidate) : ACTIONS[key];
  if (!action || busy) return false;
  action();
  return true;
}

const idOf = (/** @type {Key} */ { kind, cluster, location_key }) => JSON.stringify([kind, cluster, location_key]);
const nameOf = (/** @type {Key} */ { cluster, location_key }) => (location_key === null ? cluster : title(location_key));

/** Only the last of several answers counts. */
let turn = 0;

/** @param {Key} [wanted] the place to go to; the one that is shown, if it is still there */
export async function show(wanted = shown?.place) {
  map.invalidateSize();
  const asked = ++turn;
  try {
    const answer = await ask(`/api/queue?${query({ status: filters.status.value, text: filters.text.value })}`);
    if (asked !== turn) return;
    ({ places: queue, total } = answer);
    list.replaceChildren(...queue.map(listItem));
    await open(Math.max(queue.findIndex((item) => wanted && idOf(item) === idOf(wanted)), 0));
  } catch (error) {
    $('.summary', view).replaceChildren(notice(error));
  }
}

const listItem = (/** @type {Item} */ item) =>
  h('li', {}, h('button', { type: 'button', 'data-id': idOf(item) },
    h('span', {}, name(nameOf(item))), h('b', { title: 'open tickets' }, item.open),
    h('small', {}, item.location_key === null ? 'cluster' : name(item.cluster)), chip(item.status)));

/** Shows a place of the queue. @param {number} index */
async function open(index) {
  if (index < 0 || (index >= queue.length && queue.length > 0)) return say('That was the end of the queue.');
  const item = queue[index];
  at = index;
  shown = null;
  $('[aria-current]', list)?.removeAttribute('aria-current');
  $('.summary', view).textContent = item
    ? `${at + 1} of ${total.toLocaleString('en')}${total > queue.length ? ` (the first ${queue.length.toLocaleString('en')} are listed)` : ''}`
    : 'Nothing is in doubt here.';
  if (!item) return article.replaceChildren(h('p', {}, 'No place matches. Well done, or choose another filter.'));
  const button = list.children[at].firstChild;
  button.setAttribute('aria-current', 'true');
  button.scrollIntoView({ block: 'nearest' });
  const asked = ++turn;
  try {
    const { kind, cluster, location_key } = item;
    const details = await ask(`/api/place?${query({ kind, cluster, location_key })}`);
    if (asked !== turn) return;
    shown = details;
    draw(item, details);
  } catch (error) {
    article.replaceChildren(notice(error));
  }
}

function skip() {
  const [item] = queue.splice(at, 1);
  if (!item) return;
  queue.push(item);
  list.append(list.children[at]);
  open(at);
}

/** Whether the pin is where the place is proposed, so that accepting it is no surprise. */
function accepts() {
  const { lat, lng } = shown?.place ?? {};
  return lat !== null && lat !== undefined && lng !== null && lng !== undefined && pin?.equals([lat, lng]);
}

/** Nothing else happens until it is done; what went wrong is said. @param {() => Promise<unknown>} work */
async function during(work) {
  busy = true;
  view.setAttribute('aria-busy', 'true');
  try {
    await work();
  } catch (error) {
    say(notice(error));
    if (/** @type {import('./dom.js').Refusal} */ (error).status === 409) await show();
  } finally {
    busy = false;
    view.removeAttribute('aria-busy');
  }
}

/** @param {'accept' | 'pin' | 'reject'} decision @param {object} [values] */
function decide(decision, values) {
  if (!shown) return;
  const { kind, cluster, location_key, updated_at } = shown.place;
  during(async () => {
    const done = await ask('/api/decide', { kind, cluster, location_key, updated_at, decision, ...values });
    tell(done, `${nameOf({ kind, cluster, location_key })} ${done.decision}`);
    queue.splice(at, 1);
    list.children[at].remove();
    total -= 1;
    // A centroid that moved changes the verdict on the places around it.
    await (kind === 'cluster' ? show() : open(Math.min(at, queue.length - 1)));
  });
}

/** @param {{ decision_id: number, tickets_moved: number, notices: string[] }} done @param {string} what */
function tell(done, what) {
  decided.push(done.decision_id);
  say(`${what}: ${count(done.tickets_moved, 'ticket')} moved`, ...done.notices.map((text) => h('small', {}, text)),
    h('button', { type: 'button', onclick: undo }, 'undo'));
}

function undo() {
  const decision_id = decided.at(-1);
  if (decision_id === undefined) return say('There is nothing to undo: you have decided nothing since you opened the page.');
  during(async () => {
    decided.pop();
    const undone = await ask('/api/undo', { decision_id });
    say(`${nameOf(undone)} is as it was: ${count(undone.tickets_moved, 'ticket')} moved back`);
    await show(undone);
  });
}

// The pin ------------------------------------------------------------------------------------------------------------

/** Coordinates as text, latitude first. */
const write = (/** @type {L.LatLng} */ { lat, lng }) => `${+lat.toFixed(6)}, ${+lng.toFixed(6)}`;

/** @param {string} text @returns {L.LatLng | null} */
function read(text) {
  const [, lat, lng] = /^\s*(-?\d+(?:\.\d+)?)[\s,;]+(-?\d+(?:\.\d+)?)\s*$/.exec(text) ?? [];
  return lat === undefined ? null : L.latLng(Number(lat), Number(lng));
}

function pinTo(/** @type {Candidate} */ { lat, lng, candidate_no }) {
  if (lat === null || lng === null) return say(`Candidate ${candidate_no} has no coordinates.`);
  setPin(L.latLng(lat, lng));
  map.panInside(/** @type {L.LatLng} */ (pin), { padding: [40, 40] });
}

/** @param {L.LatLng | null} place @param {boolean} [typed] the text is the person's own, and stays */
function setPin(place, typed = false) {
  // Kenya lies east of 33° and between 5° south and 5.5° north, so swapped axes show.
  const swapped = place && place.lat > 33 && Math.abs(place.lng) < 6;
  pin = swapped ? null : place;
  marker?.remove();
  marker = null;
  if (pin) {
    const icon = L.divIcon({ className: 'pin', iconSize: [26, 26], iconAnchor: [13, 26] });
    marker = L.marker(pin, { icon, draggable: true, zIndexOffset: 1000, alt: 'Pin' }).addTo(map);
    marker.on('dragend', () => setPin(/** @type {L.Marker} */ (marker).getLatLng()));
  }
  if (!typed) pinForm.pin.value = pin ? write(pin) : '';
  const { value } = pinForm.pin;
  $('output', pinForm).textContent = swapped ? `Latitude first: did you mean ${place.lng}, ${place.lat}?`
    : pin ? distance(pin) : value && 'Latitude and longitude, as in -1.2921, 36.7856';
  $('[data-key=a]', view).disabled = !accepts();
  $('[data-key=s]', view).disabled = !pin;
}

function distance(/** @type {L.LatLng} */ place) {
  const { lat, lng, guard_km } = shown?.centre ?? {};
  if (!lat || !lng || !guard_km || shown?.place.kind === 'cluster') return '';
  const km = place.distanceTo([lat, lng]) / 1000;
  return `${km.toFixed(1)} km from the centre of ${shown?.place.cluster}${km > guard_km ? `, beyond its guard of ${guard_km} km` : ''}`;
}

// What is known about the place ----------------------------------------------------------------------------------------

/** In words, where the judge left none. @type {Record<string, string>} */
const DOUBTS = {
  found: 'It was found; nobody has checked it.',
  not_found: 'The provider knows no such place.',
  suspicious: 'Many of its places lie together elsewhere: its centroid is probably the wrong one.',
};

/** @param {Item} item @param {Details} details */
function draw(item, details) {
  const { place, candidates, names, history, beyond } = details;
  const together = agreement(details);
  const why = place.note ?? (place.kind === 'cluster' && place.lat === null
    ? 'It has no centroid: its tickets are on no map, and its places are not asked.' : DOUBTS[place.status]);
  article.replaceChildren(
    h('h2', {}, name(nameOf(place)), ' ', chip(place.status)),
    h('p', {}, place.kind === 'cluster' ? 'Cluster' : [name(place.cluster)], ` · ${count(item.open, 'open ticket')}`,
      place.confidence !== null && ` · confidence ${place.confidence}`),
    h('p', { class: 'why' }, why),
    together && h('p', { class: 'why' }, `${together.places} of its ${count(beyond.length, 'rejected place')} lie together, ${Math.round(together.km)} km from the centroid. `,
      h('button', { type: 'button', onclick: () => setPin(together.middle) }, 'Pin there')),
    h('h3', {}, 'As field staff typed it'),
    h('ul', { class: 'names' }, names.map(({ name: text, tickets }) => h('li', {}, name(text), h('small', {}, ` × ${tickets}`)))),
    h('h3', {}, candidates.length > 0 ? 'What the provider found' : 'The provider found nothing'),
    place.query && h('p', {}, h('small', {}, 'Asked: ', name(place.query))),
    h('ol', { class: 'candidates' }, candidates.map(candidateItem)),
    history.length > 0 && h('h3', {}, 'Decided before'),
    h('ul', {}, history.map(({ decided_at, decided_by, decision, tickets_moved }) =>
      h('li', {}, `${when(decided_at)} · `, name(decided_by), ` · ${decision}`, h('small', {}, ` · ${count(tickets_moved, 'ticket')} moved`)))),
  );
  article.scrollTop = 0;
  drawMap(details);
  setPin(place.lat === null || place.lng === null ? null : L.latLng(place.lat, place.lng));
  const points = L.latLngBounds([...layer.getLayers().flatMap((one) => 'getLatLng' in one ? [/** @type {L.Marker} */ (one).getLatLng()] : [])]);
  if (pin) points.extend(pin);
  if (points.isValid()) map.fitBounds(points.pad(0.2), { maxZoom: 15, animate: false });
}

const candidateItem = (/** @type {Candidate} */ candidate) =>
  h('li', {}, h('button', { type: 'button', onclick: () => pinTo(candidate) },
    h('kbd', {}, candidate.candidate_no),
    h('span', {}, name(candidate.label), h('small', {}, [candidate.level,
      candidate.distance_km !== null && `${candidate.distance_km.toFixed(1)} km`, candidate.verdict].filter(Boolean).join(' · ')))));

/** @param {Details} details */
function drawMap({ centre, candidates, beyond, found }) {
  layer.clearLayers();
  const icon = (/** @type {string} */ className, /** @type {Node | string} */ html = '') =>
    L.divIcon({ className, html: h('span', {}, html), iconSize: [22, 22] });
  for (const [lng, lat, key] of found) {
    L.circleMarker([lat, lng], { radius: 4, className: 'found' }).bindTooltip(() => h('span', {}, name(title(key)))).addTo(layer);
  }
  for (const { lng, lat, location_key } of beyond) {
    L.marker([lat, lng], { icon: icon('beyond'), keyboard: false }).bindTooltip(() => h('span', {}, name(title(location_key)))).addTo(layer);
  }
  if (centre?.lat && centre.lng) {
    L.circle([centre.lat, centre.lng], { radius: centre.guard_km * 1000, interactive: false, className: 'guard' }).addTo(layer);
    L.marker([centre.lat, centre.lng], { icon: icon('centre'), interactive: false, keyboard: false }).addTo(layer);
  }
  for (const candidate of candidates) {
    if (candidate.lat === null || candidate.lng === null) continue;
    L.marker([candidate.lat, candidate.lng], { icon: icon('candidate', `${candidate.candidate_no}`), alt: `Candidate ${candidate.candidate_no}` })
      .bindTooltip(() => h('span', {}, name(candidate.label))).on('click', () => pinTo(candidate)).addTo(layer);
  }
}

/** Where rejected places lie together, if three or more do. @param {Details} details */
function agreement({ beyond, centre }) {
  const km = (centre?.guard_km ?? 0) * 1000;
  const around = beyond.map(({ lat, lng }) => beyond.filter((other) => L.latLng(lat, lng).distanceTo([other.lat, other.lng]) <= km));
  const [most = []] = around.sort((a, b) => b.length - a.length);
  if (most.length < 3 || !centre?.lat || !centre.lng) return null;
  const mean = (/** @type {'lat' | 'lng'} */ axis) => most.reduce((sum, place) => sum + place[axis], 0) / most.length;
  const middle = L.latLng(mean('lat'), mean('lng'));
  return { places: most.length, middle, km: middle.distanceTo([centre.lat, centre.lng]) / 1000 };
}

/** A form below the place, with a live count of what the guard would let in. */
async function editGuard() {
  if (!shown?.centre?.lat) return say('The cluster has no centroid, so it has no guard.');
  const { cluster } = shown.place;
  const { beyond, centre } = await ask(`/api/place?${query({ kind: 'cluster', cluster })}`);
  const inside = h('output', {});
  const input = h('input', { type: 'number', name: 'guard', min: '1', max: '2000', step: 'any', required: true, value: `${centre.guard_km}` });
  const counted = () => {
    const let_in = beyond.filter((/** @type {Beyond} */ { distance_km }) => distance_km <= input.valueAsNumber).length;
    inside.textContent = `${let_in} of ${count(beyond.length, 'rejected place')} would fall inside`;
  };
  const form = h('form', { class: 'guard' }, h('label', {}, 'Guard of ', name(cluster), ' in km ', input), inside, h('button', {}, 'Save'));
  input.addEventListener('input', counted);
  form.addEventListener('submit', (event) => {
    event.preventDefault();
    during(async () => {
      const change = { kind: 'cluster', cluster, updated_at: centre.updated_at, decision: 'guard', guard_km: input.valueAsNumber };
      tell(await ask('/api/decide', change), `Guard of ${cluster} is ${input.value} km`);
      await show();
    });
  });
  counted();
  $('form.guard', article)?.remove();
  article.prepend(form);
  input.select();
}
