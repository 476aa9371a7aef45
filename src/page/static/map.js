/** The map: a circle per place, sized by its open tickets, ringed by the worst of them; a click lists them. */
import { baseMap, context, mark } from './basemap.js';
import { $, chip, count, get, html, name, nameOf, notice, options, put, refill, safe, say } from './dom.js';

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
/** The place whose tickets are listed. @type {any} */
let chosen;

filters.onchange = ({ target }) => {
  if (target === filters.dataset) filters.cluster.value = filters.team.value = ''; // another dataset has others
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
    // Those of a tracker that cannot be read leave the map as it is.
    await get('/api/vehicles').then(drawVehicles, (error) => say(notice(error)));
  } catch (error) {
    put(notice(error), summary);
  }
}

/** @param {any[]} features GeoJSON */
function draw(features) {
  const isInc = filters.dataset.value === 'inc';
  const measure = isInc ? filters.sla.value : 'open'; // open, breached or at_risk
  places = features
    .map(({ geometry, properties }) => ({ ...properties, ...L.GeoJSON.coordsToLatLng(geometry.coordinates) }))
    .filter((place) => place[measure] > 0)
    .sort((a, b) => b.breached - a.breached || b.open - a.open);
  circles.clearLayers();
  // Large circles first, so that small ones lie on them.
  for (const place of places.toSorted((a, b) => b[measure] - a[measure])) {
    const className = `place ${place.breached ? 'breached' : place.at_risk ? 'at_risk' : 'ok'}`;
    L.circleMarker(place, { radius: 2 + 2 * Math.sqrt(place[measure]), className })
      .bindTooltip(() => safe([titleOf(place), ' · ', count(place.open, 'open ticket')]))
      .on('click', () => select(place))
      .addTo(circles);
  }
  const total = (state) => places.reduce((sum, place) => sum + place[state], 0);
  const late = isInc && `: ${total('breached')} breached, ${total('at_risk')} at risk`;
  const words = [count(places.length, 'place'), ', ', count(total('open'), 'open ticket'), late];
  put(places.length > 0 ? words : 'No open ticket has a place here.', summary);
  listPlaces();
}

/** The same as the circles, for those who cannot click them. */
function listPlaces() {
  const item = (place, index) => {
    const late = ['breached', 'at_risk'].filter((state) => place[state] > 0);
    const counts = ['open', ...late].map((state) => `${place[state]} ${state.replace('_', ' ')}`).join(' · ');
    return html`<li><button type="button" value="${index}">${titleOf(place)}
      <small>${isOne(place) && [name(place.cluster), ' · ']}${counts}</small></button></li>`;
  };
  const more = places.length - LISTED;
  chosen = undefined;
  refill(
    [places.slice(0, LISTED).map(item), more > 0 && html`<li><small>and ${more} more on the map</small></li>`],
    list,
  );
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

const ticketRow = (t) => html`<li><div><b>${t.ticket_id}</b> ${t.sla_state && chip(t.at_risk ? 'at_risk' : t.sla_state)}
  ${t.hours_open !== null && `${Math.floor(t.hours_open)} h`}</div>
  <small>${name(t.normalized_status)} · ${name(t.assigned_team ?? 'no team')} · ${name(t.location_name)}</small></li>`;

const vehicleRow = (v) => html`<li><div>${name(v.name)} ${chip(v.freshness)}</div>
  <small>about ${v.km.toFixed(1)} km by road, ${Math.round(v.minutes)} min${
    v.open_assignments > 0 && ` · ${count(v.open_assignments, 'assignment')}`
  }</small></li>`;

async function select(place) {
  const { lat, lng, ticket_ids } = place;
  chosen = place;
  map?.setView(place, Math.max(map.getZoom(), 13));
  const head = html`<li><button type="button">← all places</button></li><li><h2>${titleOf(place)}</h2></li>`;
  // Not if another one was chosen meanwhile.
  const show = (rows) => chosen === place && refill([head, rows], list);
  show('');
  try {
    const tickets = await get('/api/tickets', { ...Object.fromEntries(new FormData(filters)), lat, lng });
    const ticket = vehicles.getLayers().length > 0 && ticket_ids?.[0];
    const near = ticket ? await get('/api/vehicles', { ticket }) : [];
    show([tickets.map(ticketRow), near.length > 0 && html`<li><h3>Nearest vehicles</h3></li>`, near.map(vehicleRow)]);
  } catch (error) {
    show(notice(error));
  }
}

/** There are some once the operator has pointed tickets.vehicles at a tracker. */
function drawVehicles(seen) {
  const choice = filters.vehicles.parentElement;
  choice.hidden = seen.length === 0;
  put(count(seen.length, 'vehicle'), $('span', choice));
  vehicles.clearLayers();
  for (const { name: called, team, freshness, open_assignments, ...place } of filters.vehicles.checked ? seen : []) {
    const words = [name(called), ' · ', name(team ?? 'no team'), ` · ${freshness} · `];
    mark(place, `vehicle ${freshness}`, '▲', 16)
      .bindTooltip(safe([words, count(open_assignments, 'assignment')]))
      .addTo(vehicles);
  }
}
