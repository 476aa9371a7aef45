/** The map: a circle per place, sized by its tickets, ringed by the worst of them; a click lists them. */
import { $, ask, chip, count, h, name, notice, query, title } from './dom.js';
import { baseMap } from './basemap.js';

/** @typedef {{ cluster: string | null, location_key: string | null, location_name: string | null, geo_source: string, open: number, breached: number, at_risk: number, oldest_hours: number | null, ticket_ids: string[], more?: number }} Properties */
/** @typedef {{ geometry: { coordinates: [number, number] }, properties: Properties }} Place */
/** @typedef {'open' | 'breached' | 'at_risk'} Measure */

const LISTED = 100;
const view = $('#map');
const form = $('form', view);

/** @type {import('leaflet').Map} */
let map;
const circles = L.layerGroup();
const vehicles = L.layerGroup();
/** @type {Place[]} */
let places = [];

/** @param {import('./basemap.js').Context} context */
export function start(context) {
  map = baseMap($('.leaflet', view), context).addLayer(circles).addLayer(vehicles);
  form.addEventListener('change', (/** @type {Event} */ { target }) => {
    const changed = /** @type {HTMLInputElement} */ (target).name;
    if (changed === 'vehicles') map[form.vehicles.checked ? 'addLayer' : 'removeLayer'](vehicles);
    else if (changed === 'sla') draw();
    else show();
  });
  form.addEventListener('submit', (/** @type {Event} */ event) => event.preventDefault());
}

export async function show() {
  map.invalidateSize();
  try {
    const answer = await ask(`/api/places?${query({ cluster: form.cluster.value, team: form.team.value })}`);
    places = answer.places.features;
    if (!form.cluster.value) fill(form.cluster, places.map(({ properties }) => properties.cluster));
    fill(form.team, answer.teams);
    draw();
    await drawVehicles();
  } catch (error) {
    $('.summary', view).replaceChildren(notice(error));
  }
}

/** @param {HTMLSelectElement} select @param {(string | null)[]} values */
function fill(select, values) {
  const { value } = select;
  const options = [...new Set(values)].filter((text) => text !== null).sort();
  select.replaceChildren(h('option', { value: '' }, 'all'), ...options.map((text) => h('option', {}, text)));
  select.value = value;
}

const worst = (/** @type {Properties} */ { breached, at_risk }) => (breached ? 'breached' : at_risk ? 'at_risk' : 'ok');

function draw() {
  const measure = /** @type {Measure} */ (form.sla.value);
  const shown = places.filter(({ properties }) => properties[measure] > 0);
  // Large ones first, so that small ones lie on them.
  shown.sort((a, b) => b.properties[measure] - a.properties[measure]);
  circles.clearLayers();
  for (const place of shown) {
    const radius = 3 + 1.5 * Math.sqrt(place.properties[measure]);
    L.circleMarker(pointOf(place), { radius, className: `place ${worst(place.properties)}` })
      .bindTooltip(() => h('span', {}, nameOf(place), ` · ${count(place.properties.open, 'open ticket')}`))
      .on('click', () => select(place))
      .addTo(circles);
  }
  const total = (/** @type {Measure} */ key) => shown.reduce((sum, { properties }) => sum + properties[key], 0);
  $('.summary', view).textContent = shown.length === 0
    ? 'No open tickets here.'
    : `${count(shown.length, 'place')}, ${count(total('open'), 'open ticket')}: ${total('breached')} breached, ${total('at_risk')} at risk`;
  list(shown, measure);
}

/** The same places for those who cannot click circles, the worst first. @param {Place[]} shown @param {Measure} measure */
function list(shown, measure) {
  const rows = shown
    .toSorted((a, b) => b.properties.breached - a.properties.breached || b.properties[measure] - a.properties[measure])
    .slice(0, LISTED);
  $('.list', view).replaceChildren(
    h('ol', {}, ...rows.map((place) =>
      h('li', {}, h('button', { type: 'button', onclick: () => select(place) },
        h('span', {}, nameOf(place)),
        h('small', {}, [place.properties.location_key && place.properties.cluster, count(place.properties.open, 'open ticket'),
          place.properties.breached && `${place.properties.breached} breached`, place.properties.at_risk && `${place.properties.at_risk} at risk`,
        ].filter(Boolean).join(' · ')))))),
    shown.length > LISTED && h('p', {}, `and ${count(shown.length - LISTED, 'more place')} on the map`),
  );
}

const pointOf = (/** @type {Place} */ { geometry: { coordinates: [lng, lat] } }) => L.latLng(lat, lng);

const nameOf = (/** @type {Place} */ { properties: { location_key, location_name, cluster, geo_source } }) =>
  geo_source === 'cluster' ? h('span', {}, name(cluster), ' (centre)') : name(location_key ? title(location_key) : location_name);

/** @param {Place} place */
async function select(place) {
  map.setView(pointOf(place), Math.max(map.getZoom(), 13));
  const { cluster, location_key, geo_source, ticket_ids, open } = place.properties;
  const panel = $('.list', view);
  const head = [
    h('button', { type: 'button', onclick: draw }, '← all places'),
    h('h2', {}, nameOf(place)),
    h('p', {}, location_key && cluster ? [name(cluster), ' · '] : null, count(open, 'open ticket')),
  ];
  panel.replaceChildren(...head);
  $('button', panel).focus();
  try {
    // By the place where it has one: a feature carries 20 numbers only.
    const asked = geo_source === 'feed' ? { ids: ticket_ids.join() } : { cluster, location_key, source: geo_source };
    const [tickets, near] = await Promise.all([
      ask(`/api/tickets?${query(asked)}`),
      vehicles.getLayers().length > 0 ? ask(`/api/vehicles?${query({ ticket: ticket_ids[0] ?? '' })}`) : [],
    ]);
    panel.replaceChildren(...head, h('ol', {}, ...tickets.map(ticketItem)), ...nearest(near));
  } catch (error) {
    panel.replaceChildren(...head, notice(error));
  }
}

const ticketItem = (/** @type {any} */ { ticket_id, normalized_status, assigned_team, owner, hours_open, sla_state, at_risk }) =>
  h('li', { class: 'ticket' },
    h('b', {}, ticket_id), ' ', chip(at_risk ? 'at_risk' : sla_state), ` ${hours_open === null ? '' : `${Math.floor(hours_open)} h`}`,
    h('small', {}, name(normalized_status), ' · ', name(assigned_team ?? 'no team'), owner && [' · ', name(owner)]));

/** @param {any[]} near @returns {HTMLElement[]} */
const nearest = (near) => near.length === 0 ? [] : [
  h('h3', {}, 'Nearest vehicles'),
  h('ol', {}, ...near.map(({ label, vehicle_id, road_km_estimate, minutes_estimate, freshness }) =>
    h('li', {}, name(label ?? vehicle_id),
      h('small', {}, `about ${road_km_estimate.toFixed(1)} km, ${Math.round(minutes_estimate)} min · ${freshness}`)))),
];

/** The layer is there once the operator has pointed tickets.vehicles at a tracker. */
async function drawVehicles() {
  const rows = await ask('/api/vehicles');
  vehicles.clearLayers();
  form.vehicles.parentElement.hidden = rows.length === 0;
  $('span', form.vehicles.parentElement).textContent = count(rows.length, 'vehicle');
  for (const { label, vehicle_id, team, lng, lat, freshness } of rows) {
    const icon = L.divIcon({ className: `vehicle ${freshness}`, iconSize: [14, 14] });
    const words = () => h('span', {}, name(label ?? vehicle_id), team && [' · ', name(team)], ` · ${freshness}`);
    L.marker([lat, lng], { icon, keyboard: false }).bindTooltip(words).addTo(vehicles);
  }
}
