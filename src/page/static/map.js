/** The map: a circle per place, sized by its open tickets, ringed by the worst of them; a click lists them. */
import { baseMap } from './basemap.js';
import { $, ask, chip, count, html, name, notice, on, options, say, title } from './dom.js';

const LISTED = 100;
const view = $('#map');
const filters = $('form', view);
const list = $('.list', view);
const circles = L.layerGroup();
const vehicles = L.layerGroup();
/** @type {L.Map} */
let map;
/** @type {import('./basemap.js').Label[]} */
let towns = [];
/** The features of reporting.fn_ticket_places: their properties with `lat` and `lng`. @type {any[]} */
let places = [];

/** @param {import('./basemap.js').Context} context */
export function start(context) {
  towns = context.labels;
  map = baseMap($('.leaflet', view), context).addLayer(circles).addLayer(vehicles);
  on(filters, 'change', ({ target }) => {
    if (target.name === 'vehicles') map[target.checked ? 'addLayer' : 'removeLayer'](vehicles);
    else if (target.name === 'sla') draw();
    else show();
  });
}

export async function show() {
  map.invalidateSize();
  try {
    const asked = { cluster: filters.cluster.value, team: filters.team.value };
    const answer = await ask('/api/places', asked);
    places = answer.places;
    if (!asked.cluster) options(filters.cluster, places, 'cluster');
    options(filters.team, answer.teams, 'team');
    draw();
  } catch (error) {
    return $('.summary', view).replaceChildren(notice(error));
  }
  // Those of a tracker that cannot be read leave the map as it is.
  await ask('/api/vehicles').then(drawVehicles, (error) => say(notice(error)));
}

function draw() {
  const measure = filters.sla.value; // open, breached or at_risk
  // Large circles first, so that small ones lie on them.
  const shown = places.filter((place) => place[measure] > 0).sort((a, b) => b[measure] - a[measure]);
  circles.clearLayers();
  for (const place of shown) {
    const className = `place ${place.breached ? 'breached' : place.at_risk ? 'at_risk' : 'ok'}`;
    const circle = L.circleMarker(place, { radius: 2 + 2 * Math.sqrt(place[measure]), className }).addTo(circles);
    circle.bindTooltip(() => html`<span>${nameOf(place)} · ${count(place.open, 'open ticket')}</span>`);
    circle.on('click', () => select(place));
  }
  const sum = (/** @type {string} */ key) => shown.reduce((total, place) => total + place[key], 0);
  const states = `${sum('breached')} breached, ${sum('at_risk')} at risk`;
  const words = `${count(shown.length, 'place')}, ${count(sum('open'), 'open ticket')}: ${states}`;
  $('.summary', view).textContent = shown.length > 0 ? words : 'No open ticket has a place here.';
  // The same for those who cannot click circles, the worst first.
  const worst = shown.toSorted((a, b) => b.breached - a.breached).slice(0, LISTED);
  list.replaceChildren(...worst.map(placeItem));
  if (shown.length > LISTED) list.append(html`<li>and ${shown.length - LISTED} more on the map</li>`);
}

/** @param {any} place */
const placeItem = (place) => html`<li><button type="button" @click=${() => select(place)}><span>${nameOf(place)}</span>
  <small>${isNamed(place) && [name(place.cluster), ' · ']}${place.open} open${place.breached > 0 && ` · ${place.breached} breached`}${
    place.at_risk > 0 && ` · ${place.at_risk} at risk`
  }</small></button></li>`;

/** Whether it is one place of one cluster. @param {any} place */
const isNamed = ({ location_key, cluster, geo_source }) => location_key && cluster && geo_source !== 'cluster';

/** A coordinate that several places share is called after the town next to it. @param {any} place */
function nameOf(place) {
  const { location_key, cluster, geo_source } = place;
  if (isNamed(place)) return name(title(location_key));
  if (cluster) return html`<span>${name(cluster)} ${geo_source === 'cluster' ? '(centre)' : '(several places)'}</span>`;
  const far = (/** @type {import('./basemap.js').Label} */ [, lat, lng]) => L.latLng(place).distanceTo([lat, lng]);
  const [town] = towns.reduce((one, other) => (far(one) <= far(other) ? one : other));
  return html`<span>Several near ${name(town)}</span>`;
}

/** @param {any} place */
async function select(place) {
  const { lat, lng, ticket_ids } = place;
  map.setView([lat, lng], Math.max(map.getZoom(), 13));
  const back = html`<button type="button" @click=${draw}>← all places</button>`;
  list.replaceChildren(back, html`<h2>${nameOf(place)}</h2>`);
  back.focus();
  try {
    const asked = { lat, lng, cluster: filters.cluster.value, team: filters.team.value };
    list.append(...(await ask('/api/tickets', asked)).map(ticketItem));
    if (vehicles.getLayers().length === 0) return;
    const near = await ask('/api/vehicles', { ticket: ticket_ids[0] });
    list.append(html`<h3>Nearest vehicles</h3>`, ...near.map(vehicleItem));
  } catch (error) {
    list.append(notice(error));
  }
}

/** @param {any} ticket */
const ticketItem = ({ ticket_id, normalized_status, location_name, assigned_team, hours_open, sla_state, at_risk }) =>
  html`<li class="ticket"><b>${ticket_id}</b> ${chip(at_risk ? 'at_risk' : sla_state)} ${hours_open !== null && `${Math.floor(hours_open)} h`}
    <small>${name(normalized_status)} · ${name(assigned_team ?? 'no team')} · ${name(location_name)}</small></li>`;

/** @param {any} vehicle */
const vehicleItem = ({
  label,
  vehicle_id,
  km,
  minutes,
  freshness,
}) => html`<li class="ticket">${name(label ?? vehicle_id)}
  ${chip(freshness)} <small>about ${km.toFixed(1)} km by road, ${Math.round(minutes)} min</small></li>`;

/** The layer is there once the operator has pointed tickets.vehicles at a tracker. @param {any[]} seen */
function drawVehicles(seen) {
  vehicles.clearLayers();
  filters.vehicles.parentElement.hidden = seen.length === 0;
  $('span', filters.vehicles.parentElement).textContent = count(seen.length, 'vehicle');
  for (const { label, vehicle_id, team, lng, lat, freshness, open_assignments } of seen) {
    const icon = L.divIcon({ className: `vehicle ${freshness}`, iconSize: [16, 16] });
    const words = [name(team ?? 'no team'), ` · ${freshness} · ${count(open_assignments, 'assignment')}`];
    const marker = L.marker([lat, lng], { icon, keyboard: false }).addTo(vehicles);
    marker.bindTooltip(() => html`<span>${name(label ?? vehicle_id)} · ${words}</span>`);
  }
}
