/**
 * The page: its three views, and what they share: elements, requests, messages.
 * Whatever comes from the database becomes text nodes, never HTML.
 */

/** @typedef {{ role: string, database: string, outline: import('geojson').Geometry, towns: [string, number, number, number][], source: string, tiles?: string, attribution: string }} Context */

/**
 * @template {keyof HTMLElementTagNameMap} T
 * @param {T} tag
 * @param {Record<string, unknown>} properties of the element; `class` and aria-… and data-… as attributes
 * @param {...(Node | string | number | null | false | undefined)} children
 */
export function h(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name === 'class' || name.includes('-')) element.setAttribute(name, String(value));
    else Object.assign(element, { [name]: value });
  }
  element.append(...children.filter((child) => child !== null && child !== false && child !== undefined).map((child) => typeof child === 'number' ? String(child) : child));
  return element;
}
