/** What lies below both maps, from this machine: Kenya, names of towns and clusters, a scale; tiles only if they are set. */
import { $, get, nameOf, safe } from './dom.js';

/** @typedef {[name: string, lat: number, lng: number, rank: number]} Label towns are of rank 1 and 2, clusters 3 */
/** @type {{ role: string, database: string, outline: any, labels: Label[], source: string, tiles?: string, attribution: string }} */
export const context = await get('/context.json');

/** A mark of that many pixels; what can be clicked there is a button elsewhere, too. @param {L.MarkerOptions} [options] */
export function mark(latlng, className, content, pixels, options) {
  const icon = L.divIcon({ className, html: safe(content), iconSize: [pixels, pixels] });
  return L.marker(latlng, { icon, keyboard: false, ...options });
}

/** A dot with the name of a place or cluster. */
export const label = (place, latlng, rank) =>
  mark(latlng, `label rank${rank}`, nameOf(place), 0, { pane: 'labels', interactive: false });

/** Hides the names that would run into one that was there before. @param {L.Map} map */
export function declutter(map) {
  /** @type {DOMRect[]} */
  const taken = [];
  for (const element of $('.leaflet-labels-pane', map.getContainer()).children) {
    const box = element.firstElementChild.getBoundingClientRect();
    const hits = (other) =>
      box.left < other.right && other.left < box.right && box.top < other.bottom && other.top < box.bottom;
    element.style.visibility = taken.some(hits) ? 'hidden' : '';
    if (!taken.some(hits)) taken.push(box);
  }
}

/** @param {HTMLElement} container on the screen: a map needs its size */
export function baseMap(container) {
  const { outline, labels, source, tiles, attribution } = context;
  const map = L.map(container, { minZoom: 5, maxZoom: 19, zoomSnap: 0.5, zoomControl: false });
  L.control.scale({ imperial: false, position: 'topleft' }).addTo(map);
  L.control.zoom({ position: 'topright' }).addTo(map);
  const sources = ['© OpenStreetMap contributors', source, attribution].filter(Boolean).join(' · ');
  map.attributionControl.setPrefix(false).addAttribution(safe(sources));
  map.createPane('labels').style.zIndex = '450'; // above circles, below what can be clicked
  if (tiles) L.tileLayer(tiles, { maxZoom: 19 }).addTo(map);
  const country = L.geoJSON(outline, { interactive: false, style: { className: 'country' } }).addTo(map);
  map.fitBounds(country.getBounds());
  for (const [cluster, lat, lng, rank] of labels) label({ cluster }, [lat, lng], rank).addTo(map);
  declutter(map);
  return map.on('zoomend', () => declutter(map));
}
