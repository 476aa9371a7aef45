/** The place under review: what is known about it, in words and on the map, and the pin. */
import { baseMap, declutter, label } from './basemap.js';
import { $, chip, count, html, name, on, say, title, when } from './dom.js';

const view = $('#review');
const article = $('article', view);
const pinForm = $('form.pin-form', view);
const layer = L.layerGroup();
export const guard = L.circle([0, 0], { radius: 1, interactive: false, className: 'guard' });
/** @type {L.Map} */
let map;
/** What tickets_ops.review_place says; null while nothing can be decided. @type {any} */
export let shown = null;
/** @type {L.LatLng | null} */
export let pin = null;
/** @type {L.Marker | undefined} */
let marker;

/** @param {import('./basemap.js').Context} context */
export function start(context) {
  map = baseMap($('.leaflet', view), context).addLayer(layer);
  map.on('click', ({ latlng }) => setPin(latlng));
  on(pinForm.pin, 'input', () => {
    const [, lat, lng] = /^\s*(-?\d+(?:\.\d+)?)[\s,;]+(-?\d+(?:\.\d+)?)\s*$/.exec(pinForm.pin.value) ?? [];
    setPin(lat === undefined ? null : L.latLng(Number(lat), Number(lng)), true);
  });
}

export const resize = () => map.invalidateSize();

/** A location_key for people, or the cluster itself. @param {any} place */
export const nameOf = ({ cluster, location_key }) => (location_key === null ? cluster : title(location_key));

/** @param {any} point with a longitude and a latitude, or null for them */
const latLng = ({ lat, lng }) => (lat === null ? null : L.latLng(lat, lng));

/** Whether the pin is where the place is proposed, so that accepting it is no surprise. */
export const accepts = () => pin !== null && shown !== null && latLng(shown.place)?.equals(pin) === true;

/** @param {any} candidate */
export function pinTo(candidate) {
  setPin(latLng(candidate));
  if (!pin) return say(`Candidate ${candidate.candidate_no} has no coordinates.`);
  map.panInside(pin, { padding: [40, 40] });
}

/** @param {L.LatLng | null} point @param {boolean} [typed] the text is the person's own, and stays */
function setPin(point, typed = false) {
  // Kenya lies east of 33° and within 6° of the equator, so swapped axes show.
  const swapped = point !== null && point.lat > 33 && Math.abs(point.lng) < 6;
  // What is saved is what is shown: six digits are 11 cm.
  pin = point && !swapped ? L.latLng(+point.lat.toFixed(6), +point.lng.toFixed(6)) : null;
  marker?.remove();
  if (pin) {
    const icon = L.divIcon({ className: 'pin', iconSize: [26, 26], iconAnchor: [13, 26] });
    marker = L.marker(pin, { icon, draggable: true, zIndexOffset: 1000, alt: 'Pin' }).addTo(map);
    marker.on('dragend', ({ target }) => setPin(target.getLatLng()));
  }
  if (!typed) pinForm.pin.value = pin ? `${pin.lat}, ${pin.lng}` : '';
  const hint = pinForm.pin.value && 'Latitude and longitude, as in -1.2921, 36.7856';
  const said = swapped ? `Latitude first: did you mean ${point.lng}, ${point.lat}?` : hint;
  $('output', pinForm).textContent = pin ? distance(pin) : said;
  $('[aria-keyshortcuts=a]', view).disabled = !accepts();
  $('[aria-keyshortcuts=s]', view).disabled = !pin;
}

/** @param {L.LatLng} point */
function distance(point) {
  const centre = shown?.place.kind === 'location' && shown.centre && latLng(shown.centre);
  if (!centre) return '';
  const { guard_km } = shown.centre;
  const km = point.distanceTo(centre) / 1000;
  const beyond = km > guard_km ? `, beyond its guard of ${guard_km} km` : '';
  return `${km.toFixed(1)} km from the centre of ${shown.place.cluster}${beyond}`;
}

/** Shows nothing that could be decided about. @param {Node} [words] */
export function clear(words) {
  shown = null;
  if (words) article.replaceChildren(words);
}

/** In words, where the judge left none. @type {Record<string, string>} */
const DOUBTS = {
  found: 'It was found; nobody has checked it.',
  not_found: 'The provider knows no such place.',
  suspicious: 'Many of its places lie together elsewhere: its centroid is probably the wrong one.',
  centreless: 'It has no centroid: its tickets are on no map, and its places are not asked.',
};

/** @param {any} details as tickets_ops.review_place gives them @param {number} open tickets */
export function draw(details, open) {
  shown = details;
  const { place, together, candidates, names, history } = details;
  const isCluster = place.kind === 'cluster';
  article.replaceChildren(html`<div>
    <h2>${name(nameOf(place))} ${chip(place.status)}</h2>
    <p>${isCluster ? 'Cluster' : name(place.cluster)} · ${count(open, 'open ticket')} ${place.confidence !== null && `· confidence ${place.confidence}`}</p>
    <p class="why">${place.note ?? DOUBTS[isCluster && place.lat === null ? 'centreless' : place.status]}</p>
    ${together && togetherOf(together)}
    <h3>As field staff typed it</h3>
    <ul class="names">${names.map(nameItem)}</ul>
    <h3>${candidates.length > 0 ? 'What the provider found' : 'The provider found nothing'}</h3>
    <p><small>${place.query && ['Asked: ', name(place.query)]}</small></p>
    <ol class="candidates">${candidates.map(candidateItem)}</ol>
    <h3>${history.length > 0 && 'Decided before'}</h3>
    <ul>${history.map(decisionItem)}</ul></div>`);
  article.parentElement.scrollTop = 0;
  drawMap(details);
  setPin(latLng(place));
}

/** @param {any} together */
const togetherOf = ({
  places,
  of_all,
  km,
  lat,
  lng,
}) => html`<p class="why">${places} of its ${count(of_all, 'rejected place')} lie together,
  ${km} km from the centroid. <button type="button" @click=${() => setPin(L.latLng(lat, lng))}>Put the pin there</button></p>`;

/** @param {any} typed */
const nameItem = ({ name: text, tickets }) => html`<li>${name(text)} <small>× ${tickets}</small></li>`;

/** @param {any} candidate */
const candidateItem = (
  candidate,
) => html`<li><button type="button" @click=${() => pinTo(candidate)}><kbd>${candidate.candidate_no}</kbd>
  <span>${name(candidate.label)}<small>${candidate.level} · ${candidate.distance_km?.toFixed(1) ?? '?'} km · ${candidate.verdict}</small></span></button></li>`;

/** @param {any} made */
const decisionItem = ({ decided_at, decided_by, decision, tickets_moved }) =>
  html`<li>${when(decided_at)} · ${name(decided_by)} · ${decision} <small>${count(tickets_moved, 'ticket')} moved</small></li>`;

/** @param {any} details */
function drawMap({ place, centre, candidates, beyond, found }) {
  layer.clearLayers();
  const points = L.latLngBounds([]);
  /** @param {any} point @param {string} className @param {string | number} text @param {any} words */
  const mark = (point, className, text, words) => {
    const latlng = latLng(point);
    if (!latlng) return undefined;
    points.extend(latlng);
    const icon = L.divIcon({ className, html: html`<b>${text}</b>`, iconSize: [22, 22] });
    return L.marker(latlng, { icon, alt: words, keyboard: false })
      .bindTooltip(() => name(words))
      .addTo(layer);
  };
  for (const [lng, lat, key] of found) {
    label(title(key.replace(` ${place.cluster.toLowerCase()}`, '')), [lat, lng], 4).addTo(layer);
  }
  for (const rejected of beyond) mark(rejected, 'beyond', '', title(rejected.location_key));
  if (centre && mark(centre, 'centre', '✚', `Centre of ${place.cluster}`)) {
    guard
      .setLatLng([centre.lat, centre.lng])
      .setRadius(centre.guard_km * 1000)
      .addTo(layer);
  }
  for (const candidate of candidates) {
    mark(candidate, 'candidate', candidate.candidate_no, candidate.label)?.on('click', () => pinTo(candidate));
  }
  if (points.isValid()) map.fitBounds(points.pad(0.2), { maxZoom: 14, animate: false });
  declutter(map);
}
