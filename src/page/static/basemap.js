/** The map below both maps: Kenya's outline, towns, clusters and a scale, from this machine; with tiles if they are set. */
import { h } from './dom.js';

/** @typedef {{ role: string, database: string, outline: import('geojson').Geometry, towns: [string, number, number, number][], source: string, tiles?: string, attribution: string }} Context */

/** Towns of a rank are named from this zoom on. */
const ZOOM_OF_RANK = [0, 0, 8, 10];

/** Text for an option of Leaflet that is HTML. */
const escaped = (/** @type {string} */ text) => h('i', {}, text).innerHTML;

/** @param {HTMLElement} container @param {Context} context */
export function baseMap(container, context) {
  const map = L.map(container, { minZoom: 5, maxZoom: 19, zoomSnap: 0.5, zoomControl: false });
  map.attributionControl.setPrefix(false);
  const sources = ['© OpenStreetMap contributors', context.source, context.attribution].filter(Boolean);
  map.attributionControl.addAttribution(escaped(sources.join(' · ')));
  L.control.scale({ imperial: false }).addTo(map);
  L.control.zoom({ position: 'topright' }).addTo(map);
  if (context.tiles) L.tileLayer(context.tiles, { maxZoom: 19 }).addTo(map);
  const outline = L.geoJSON(context.outline, { interactive: false, style: { className: 'country' } }).addTo(map);
  map.createPane('names').classList.add('names');
  const named = new Set();
  for (const [town, lat, lng, rank] of context.towns) {
    if (named.has(town)) continue; // a cluster that is called like its town
    named.add(town);
    const icon = L.divIcon({ className: `town rank${rank}`, html: h('bdi', {}, town), iconSize: [0, 0] });
    L.marker([lat, lng], { icon, pane: 'names', interactive: false, keyboard: false }).addTo(map);
  }
  map.on('zoomend', () => {
    container.dataset.rank = String(ZOOM_OF_RANK.findLastIndex((zoom) => map.getZoom() >= zoom));
  });
  map.fitBounds(outline.getBounds());
  return map;
}
