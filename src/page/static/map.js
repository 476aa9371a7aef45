/** The map: a circle per place, sized by its open tickets, ringed by the worst of them; a click lists them. */
import { baseMap, context } from './basemap.js';
import { $, chip, count, get, html, name, nameOf, notice, options, put, safe, say } from './dom.js';

const LISTED = 100;
const view = $('#map');
const filters = $('form', view);
const list = $('.list', view);
const summary = $('.summary', view);
const circles = L.layerGroup();
const vehicles = L.layerGroup();
/** @type {L.Map | undefined} */
let map;
/** The features of reporting.fn_ticket_places, the worst first: their properties with `lat` and `lng`. @type {any[]} */
let places = [];

filters.onchange = ({ target }) => {
  if (target === filters.dataset) for (const choice of [filters.cluster, filters.team]) choice.value = ''; // another one's
  return show();
};
list.onclick = ({ target }) => {
  const button = target.closest('button');
  if (button) button.value ? select(places[button.value]) : listPlaces();
};

export async function show() {
  map ??= baseMap($('.leaflet', view)).addLayer(circles).addLayer(vehicles);
  map.invalidateSize();
  try {
    const answer = await get('/api/places', new FormData(filters));
    filters.dataset.parentElement.hidden = answer.datasets.length === 1;
    filters.sla.parentElement.hidden = filters.dataset.value !== 'inc'; // no SLA is known for others
    options(filters.cluster, answer.clusters);
    options(filters.team, answer.teams);
    draw(answer.places);
  } catch (error) {
    put(notice(error), summary);
  }
  // Those of a tracker that cannot be read leave the map as it is.
  await get('/api/vehicles').then(drawVehicles, (error) => say(notice(error)));
}

function draw(found) {
  const isInc = filters.dataset.value === 'inc';
  const measure = isInc ? filters.sla.value : 'open'; // open, breached or at_risk
  places = found.filter((place) => place[measure] > 0).sort((a, b) => b.breached - a.breached || b.open - a.open);
  circles.clearLayers();
  // Large circles first, so that small ones lie on them.
  for (const place of places.toSorted((a, b) => b[measure] - a[measure])) {
    const className = `place ${place.breached ? 'breached' : place.at_risk ? 'at_risk' : 'ok'}`;
    L.circleMarker(place, { radius: 2 + 2 * Math.sqrt(place[measure]), className })
      .bindTooltip(() => safe([titleOf(place), ' · ', count(place.open, 'open ticket')]))
      .on('click', () => select(place))
      .addTo(circles);
  }
  const [open, breached, atRisk] = ['open', 'breached', 'at_risk'].map((key) =>
    places.reduce((sum, place) => sum + place[key], 0),
  );
  const late = isInc ? `: ${breached} breached, ${atRisk} at risk` : '';
  const words = `${count(places.length, 'place')}, ${count(open, 'open ticket')}${late}`;
  put(open ? words : 'No open ticket has a place here.', summary);
  listPlaces();
}

/** The same as the circles, for those who cannot click them. */
function listPlaces() {
  const item = (place, index) => html`<li><button type="button" value="${index}">${titleOf(place)}
    <small>${isOne(place) && [name(place.cluster), ' · ']}${place.open} open${
      place.breached > 0 && ` · ${place.breached} breached`
    }${place.at_risk > 0 && ` · ${place.at_risk} at risk`}</small></button></li>`;
  const more = places.length - LISTED;
  put([places.slice(0, LISTED).map(item), more > 0 && html`<li><small>and ${more} more on the map</small></li>`], list);
}

/** Whether it is one place of one cluster. */
const isOne = ({ location_key, cluster, geo_source }) => location_key && cluster && geo_source !== 'cluster';

/** A coordinate that several places share is called after the town next to it. */
function titleOf(place) {
  const { cluster, geo_source } = place;
  if (isOne(place)) return nameOf(place);
  if (cluster) return html`<span>${name(cluster)} ${geo_source === 'cluster' ? '(centre)' : '(several places)'}</span>`;
  const far = (town) => L.latLng(place).distanceTo([town[1], town[2]]);
  const [town] = context.labels.reduce((one, other) => (far(one) <= far(other) ? one : other));
  return html`<span>Several near ${name(town)}</span>`;
}

async function select(place) {
  const { lat, lng, ticket_ids } = place;
  map?.setView(place, Math.max(map.getZoom(), 13));
  const head = html`<li><button type="button">← all places</button></li><li><h2>${titleOf(place)}</h2></li>`;
  put(head, list);
  $('button', list).focus();
  const ticket = (t) => html`<li><b>${t.ticket_id}</b> ${t.sla_state && chip(t.at_risk ? 'at_risk' : t.sla_state)}
    ${t.hours_open !== null && `${Math.floor(t.hours_open)} h`}
    <small>${name(t.normalized_status)} · ${name(t.assigned_team ?? 'no team')} · ${name(t.location_name)}</small></li>`;
  const vehicle = (v) => html`<li>${name(v.label ?? v.vehicle_id)} ${chip(v.freshness)}
    <small>about ${v.km.toFixed(1)} km by road, ${Math.round(v.minutes)} min</small></li>`;
  try {
    const { dataset, cluster, team } = filters;
    const asked = { lat, lng, dataset: dataset.value, cluster: cluster.value, team: team.value };
    const tickets = await get('/api/tickets', asked);
    const near =
      ticket_ids && vehicles.getLayers().length > 0 ? await get('/api/vehicles', { ticket: ticket_ids[0] }) : [];
    const nearest = near.length > 0 && html`<li><h3>Nearest vehicles</h3></li>${near.map(vehicle)}`;
    put([head, tickets.map(ticket), nearest], list);
  } catch (error) {
    put([head, notice(error)], list);
  }
}

/** There are some once the operator has pointed tickets.vehicles at a tracker. */
function drawVehicles(seen) {
  const label = filters.vehicles.parentElement;
  label.hidden = seen.length === 0;
  put(count(seen.length, 'vehicle'), $('span', label));
  vehicles.clearLayers();
  for (const vehicle of filters.vehicles.checked ? seen : []) {
    const { label, vehicle_id, team, freshness, open_assignments } = vehicle;
    const state = ` · ${freshness} · ${count(open_assignments, 'assignment')}`;
    L.marker(vehicle, { icon: L.divIcon({ className: `vehicle ${freshness}`, iconSize: [16, 16] }), keyboard: false })
      .bindTooltip(safe([name(label ?? vehicle_id), ' · ', name(team ?? 'no team'), state]))
      .addTo(vehicles);
  }
}
