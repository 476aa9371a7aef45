/** The place under review: what is known about it, in words and on the map, and the pin. */
import { baseMap, declutter, label, mark } from './basemap.js';
import { $, chip, count, html, name, nameOf, put, safe, say, when } from './dom.js';

const view = $('#review');
const article = $('article', view);
const input = $('[name=pin]', view);
const layer = L.layerGroup();
const pinIcon = L.divIcon({ className: 'pin', iconSize: [26, 26], iconAnchor: [13, 26] });
const marker = L.marker([0, 0], { icon: pinIcon, draggable: true, zIndexOffset: 1000, alt: 'Pin' });
export const guard = L.circle([0, 0], { radius: 1, interactive: false, className: 'guard' });
/** @type {L.Map} */
let map;
/** What tickets_ops.review_place says; null while nothing can be decided. @type {any} */
export let shown = null;
/** @type {L.LatLng | null} */
export let pin = null;

marker.on('dragend', () => setPin(marker.getLatLng()));
input.oninput = () => {
  const [lat, lng] = input.validity.valid ? input.value.match(/-?[\d.]+/g).map(Number) : [];
  setPin(lng === undefined ? null : L.latLng(lat, lng), input.value);
};

/** Before anything is drawn, and when the view may have another size. */
export function resize() {
  map ??= baseMap($('.leaflet', view))
    .addLayer(layer)
    .on('click', ({ latlng }) => setPin(latlng));
  map.invalidateSize();
}

/** null for what has no coordinate. */
const latLng = ({ lat, lng }) => (lat === null ? null : L.latLng(lat, lng));

export function pinTo(candidate) {
  setPin(latLng(candidate));
  if (pin) map.panInside(pin, { padding: [40, 40] });
  else say(`Candidate ${candidate.candidate_no} has no coordinates.`);
}

/** @param {L.LatLng | null} point @param {string} [typed] the person's own text for it, which stays */
function setPin(point, typed) {
  // Kenya lies east of 33° and within 6° of the equator, so swapped axes show.
  const swapped = point !== null && point.lat > 33 && Math.abs(point.lng) < 6;
  // What is saved is what is shown: six digits are 11 cm.
  pin = point && !swapped ? L.latLng(+point.lat.toFixed(6), +point.lng.toFixed(6)) : null;
  if (pin) marker.setLatLng(pin).addTo(map);
  else marker.remove();
  input.value = typed ?? (pin ? `${pin.lat}, ${pin.lng}` : '');
  const hint = swapped ? `Latitude first: did you mean ${point.lng}, ${point.lat}?` : input.value && input.title;
  put(pin ? distance(pin) : hint, $('.pin-form output', view));
  enable();
}

/** Which of the actions of review.js can be done now. To accept what is proposed must be no surprise, so the pin is there. */
function enable() {
  const proposed = shown && latLng(shown.place);
  const isNew = !shown?.place.verified || !proposed?.equals(pin); // a cluster that somebody verified may be suspicious
  const can = {
    accept: pin && isNew && proposed?.equals(pin),
    pin: pin && isNew && shown,
    reject: shown,
    guard: Number.isFinite(shown?.centre?.lat),
  };
  for (const [action, value] of Object.entries(can)) $(`.actions [value=${action}]`, view).disabled = !value;
}

function distance(point) {
  if (shown?.place.kind !== 'location' || !shown.centre?.lat) return '';
  const km = point.distanceTo(shown.centre) / 1000;
  const beyond = km > shown.centre.guard_km && `, beyond its guard of ${shown.centre.guard_km} km`;
  return [km.toFixed(1), ' km from the centre of ', shown.place.cluster, beyond];
}

/** Shows nothing that could be decided about. @param {any} [words] */
export function clear(words) {
  shown = null;
  if (!words) return enable();
  put(words, article);
  layer.clearLayers();
  setPin(null);
}

/** In words, where the queue has none. */
const DOUBTS = {
  found: 'It was found; nobody has checked it.',
  not_found: 'The provider knows no such place.',
  rejected: 'Somebody decided that it is nowhere: its tickets are on no map.',
};

/** @param {any} details as tickets_ops.review_place gives them @param {number} open tickets */
export function draw(details, open) {
  shown = details;
  const { place, together, candidates, names, history } = details;
  const isCluster = place.kind === 'cluster';
  const why = place.note ?? DOUBTS[place.status];
  // Where the places of a suspicious cluster lie is one more place for its pin.
  if (together) {
    const label = `${together.places} of its ${count(together.of_all, 'rejected place')} lie together here`;
    candidates.push({ ...together, candidate_no: candidates.length + 1, label, distance_km: together.km });
  }
  const typed = (n) => html`<li>${name(n.name)} <small>× ${n.tickets}</small></li>`;
  const candidate = ({ candidate_no, label, level, distance_km, verdict }) => html`<li>
    <button type="button" aria-keyshortcuts="${candidate_no}">${name(label)} <kbd>${candidate_no}</kbd>
      <small>${level && `${level} · `}${distance_km?.toFixed(1) ?? '?'} km${verdict && ` · ${verdict}`}</small></button></li>`;
  const made = ({ decided_at, decided_by, decision, tickets_moved }) =>
    html`<li>${when(decided_at)} · ${name(decided_by)} · ${decision} <small>${count(tickets_moved, 'ticket')} went along</small></li>`;
  put(
    html`<h2>${nameOf(place)} ${chip(place.status)}</h2>
    <p>${isCluster ? 'Cluster' : name(place.cluster)} · ${count(open, 'open ticket')} ${place.confidence !== null && `· confidence ${place.confidence}`}
      ${place.verified && ['· verified by ', name(place.verified_by)]}</p>
    <p class="why">${why}</p>
    ${names.length > 0 && html`<h3>As field staff typed it</h3><ul>${names.map(typed)}</ul>`}
    <h3>${candidates.length > 0 ? 'Where it may be' : 'The provider found nothing'}</h3>
    <p><small>${place.query && ['Asked: ', name(place.query)]}</small></p>
    <ol class="candidates">${candidates.map(candidate)}</ol>
    ${history.length > 0 && html`<h3>Decided before</h3><ul>${history.map(made)}</ul>`}`,
    article,
  );
  article.parentElement.scrollTop = 0;
  drawMap(details);
  setPin(latLng(place));
}

function drawMap({ place, centre, candidates, beyond, found }) {
  layer.clearLayers();
  const points = L.latLngBounds([]);
  const add = (point, className, text, words) => {
    const latlng = latLng(point);
    if (!latlng) return undefined;
    points.extend(latlng);
    return mark(latlng, className, text, 22).bindTooltip(safe(words)).addTo(layer);
  };
  for (const [lng, lat, key] of found) {
    const location_key = key.replace(` ${place.cluster.toLowerCase()}`, ''); // which goes without saying here
    label({ location_key }, [lat, lng], 'place').addTo(layer);
  }
  for (const rejected of beyond) add(rejected, 'beyond', '◆', nameOf(rejected));
  if (centre && add(centre, 'centre', '✚', `Centre of ${place.cluster}`)) guard.setLatLng(centre).addTo(layer);
  guard.setRadius(1000 * (centre?.guard_km ?? 0));
  for (const candidate of candidates)
    add(candidate, 'candidate', candidate.candidate_no, name(candidate.label))?.on('click', () => pinTo(candidate));
  if (points.isValid()) map.fitBounds(points.pad(0.2), { maxZoom: 14, animate: false });
  declutter(map);
}
