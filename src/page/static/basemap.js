/** What lies below both maps, from this machine: Kenya, names of towns and clusters, a scale; tiles only if they are set. */
import { html } from './dom.js';

/** @typedef {[name: string, lat: number, lng: number, rank: number]} Label */
/** @typedef {{ role: string, database: string, outline: any, labels: Label[], source: string, tiles?: string, attribution: string }} Context */

/**
 * A dot with its name, which is shown where it does not run into one of a lower rank: towns 1 and 2, clusters 3, places 4.
 * @param {string} text @param {L.LatLngTuple} place @param {number} rank
 */
export function label(text, place, rank) {
  const icon = L.divIcon({ className: `label rank${rank}`, html: html`<bdi>${text}</bdi>`, iconSize: [0, 0] });
  return L.marker(place, {
    icon,
    pane: 'labels',
    interactive: false,
    keyboard: false,
    title: text,
    zIndexOffset: rank,
  });
}

/** @param {L.Map} map */
export function declutter(map) {
  /** @type {any[]} */
  const labels = [];
  map.eachLayer((layer) => layer.options.pane === 'labels' && labels.push(layer));
  /** @type {{ x: number, y: number, half: number }[]} in pixels */
  const taken = [];
  for (const marker of labels.sort((a, b) => a.options.zIndexOffset - b.options.zIndexOffset)) {
    const { x, y } = map.latLngToLayerPoint(marker.getLatLng());
    const half = 3.5 * marker.options.title.length;
    const hidden = taken.some((other) => Math.abs(other.x - x) < other.half + half && Math.abs(other.y - y) < 15);
    marker.getElement().classList.toggle('nameless', hidden);
    if (!hidden) taken.push({ x, y, half });
  }
}

/** @param {HTMLElement} container @param {Context} context */
export function baseMap(container, { outline, labels, source, tiles, attribution }) {
  const map = L.map(container, { minZoom: 5, maxZoom: 19, zoomSnap: 0.5, zoomControl: false });
  const sources = ['© OpenStreetMap contributors', source, attribution].filter(Boolean).join(' · ');
  map.attributionControl.setPrefix(false).addAttribution(html`<i>${sources}</i>`.innerHTML);
  map.addControl(L.control.scale({ imperial: false })).addControl(L.control.zoom({ position: 'topright' }));
  map.createPane('labels');
  if (tiles) L.tileLayer(tiles, { maxZoom: 19 }).addTo(map);
  const country = L.geoJSON(outline, { interactive: false, style: { className: 'country' } }).addTo(map);
  map.fitBounds(country.getBounds());
  for (const [text, lat, lng, rank] of labels) label(text, [lat, lng], rank).addTo(map);
  declutter(map);
  return map.on('zoomend', () => declutter(map));
}
