/** The map: a circle per place, sized by its open tickets, ringed by the worst of them; a click lists them. */
import { baseMap } from './basemap.js';
import { $, ask, chip, count, html, name, notice, on, options, title } from './dom.js';

/** @typedef {{ geometry: { coordinates: [number, number] }, properties: any }} Place a feature of reporting.fn_ticket_places */

const LISTED = 100;
const view = $('#map');
const filters = $('form', view);
const list = $('.list', view);
const circles = L.layerGroup();
const vehicles = L.layerGroup();
/** @type {L.Map} */
let map;
/** @type {[string, number, number, number][]} */
let towns = [];
/** @type {Place[]} */
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
    const [answer, seen] = await Promise.all([ask('/api/places', asked), ask('/api/vehicles')]);
    places = answer.places.features;
    if (!asked.cluster)
      options(
        filters.cluster,
        places.map(({ properties }) => properties.cluster),
      );
    options(filters.team, answer.teams);
    draw();
    drawVehicles(seen);
  } catch (error) {
    $('.summary', view).replaceChildren(notice(error));
  }
}

function draw() {
  /** @type {'open' | 'breached' | 'at_risk'} */
  const measure = filters.sla.value;
  // Large circles first, so that small ones lie on them.
  const shown = places
    .filter(({ properties }) => properties[measure] > 0)
    .sort((a, b) => b.properties[measure] - a.properties[measure]);
  circles.clearLayers();
  for (const place of shown) {
    const { open, breached, at_risk } = place.properties;
    const className = `place ${breached ? 'breached' : at_risk ? 'at_risk' : 'ok'}`;
    L.circleMarker(pointOf(place), { radius: 2 + 2 * Math.sqrt(place.properties[measure]), className })
      .bindTooltip(() => html`<span>${nameOf(place)} · ${count(open, 'open ticket')}</span>`)
      .on('click', () => select(place))
      .addTo(circles);
  }
  const sum = (/** @type {string} */ key) => shown.reduce((total, { properties }) => total + properties[key], 0);
  $('.summary', view).textContent =
    shown.length === 0
      ? 'No open ticket has a place here.'
      : `${count(shown.length, 'place')}, ${count(sum('open'), 'open ticket')}: ${sum('breached')} breached, ${sum('at_risk')} at risk`;
  // The same for those who cannot click circles, the worst first.
  const worst = shown.toSorted((a, b) => b.properties.breached - a.properties.breached).slice(0, LISTED);
  list.replaceChildren(
    ...worst.map(placeItem),
    shown.length > LISTED ? html`<li>and ${shown.length - LISTED} more on the map</li>` : '',
  );
}

/** @param {Place} place */
const placeItem = (place) => {
  const { open, breached, at_risk, cluster, location_key, geo_source } = place.properties;
  return html`<li><button type="button" @click=${() => select(place)}><span>${nameOf(place)}</span>
    <small>${geo_source !== 'cluster' && location_key && cluster && [name(cluster), ' · ']}${open} open${breached > 0 && ` · ${breached} breached`}${at_risk > 0 && ` · ${at_risk} at risk`}</small>
  </button></li>`;
};

const pointOf = (
  /** @type {Place} */ {
    geometry: {
      coordinates: [lng, lat],
    },
  },
) => L.latLng(lat, lng);

/** A coordinate that several places share is called after the town next to it. @param {Place} place */
function nameOf(place) {
  const { location_key, cluster, geo_source } = place.properties;
  if (geo_source === 'cluster' && cluster) return html`<span>${name(cluster)} (centre)</span>`;
  if (location_key) return name(title(location_key));
  if (cluster) return html`<span>${name(cluster)} (several places)</span>`;
  const far = (/** @type {[string, number, number, number]} */ [, lat, lng]) => pointOf(place).distanceTo([lat, lng]);
  return html`<span>Several near ${name(towns.reduce((one, other) => (far(one) <= far(other) ? one : other))[0])}</span>`;
}

/** @param {Place} place */
async function select(place) {
  const { lat, lng } = pointOf(place);
  map.setView([lat, lng], Math.max(map.getZoom(), 13));
  const head = [
    html`<li><button type="button" @click=${draw}>← all places</button></li>`,
    html`<h2>${nameOf(place)}</h2>`,
  ];
  list.replaceChildren(...head);
  $('button', list).focus();
  try {
    const [tickets, near] = await Promise.all([
      ask('/api/tickets', { lat, lng, cluster: filters.cluster.value, team: filters.team.value }),
      vehicles.getLayers().length > 0 ? ask('/api/vehicles', { ticket: place.properties.ticket_ids[0] }) : [],
    ]);
    list.append(
      ...tickets.map(ticketItem),
      near.length > 0 ? html`<h3>Nearest vehicles</h3>` : '',
      ...near.map(vehicleItem),
    );
  } catch (error) {
    list.append(notice(error));
  }
}

/** @param {any} ticket */
const ticketItem = ({ ticket_id, normalized_status, location_name, assigned_team, hours_open, sla_state, at_risk }) =>
  html`<li class="ticket"><b>${ticket_id}</b> ${chip(at_risk ? 'at_risk' : sla_state)} ${hours_open !== null && `${Math.floor(hours_open)} h`}
    <small>${name(normalized_status)} · ${name(assigned_team ?? 'no team')} · ${name(location_name)}</small></li>`;

/** @param {any} vehicle */
const vehicleItem = ({ label, vehicle_id, km, minutes, freshness }) =>
  html`<li class="ticket">${name(label ?? vehicle_id)} ${chip(freshness)}
    <small>about ${km.toFixed(1)} km by road, ${Math.round(minutes)} min</small></li>`;

/** The layer is there once the operator has pointed tickets.vehicles at a tracker. @param {any[]} seen */
function drawVehicles(seen) {
  vehicles.clearLayers();
  filters.vehicles.parentElement.hidden = seen.length === 0;
  $('span', filters.vehicles.parentElement).textContent = count(seen.length, 'vehicle');
  for (const { label, vehicle_id, team, lng, lat, freshness, open_assignments } of seen) {
    L.marker([lat, lng], {
      icon: L.divIcon({ className: `vehicle ${freshness}`, iconSize: [16, 16] }),
      keyboard: false,
    })
      .bindTooltip(
        () =>
          html`<span>${name(label ?? vehicle_id)} · ${name(team ?? 'no team')} · ${freshness} · ${count(open_assignments, 'assignment')}</span>`,
      )
      .addTo(vehicles);
  }
}
