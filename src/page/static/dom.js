/** What the views share: elements, requests, messages. What comes from the database becomes text nodes, never HTML. */

/** @typedef {Node | string | number | null | false | undefined | Child[]} Child */

/**
 * @template {keyof HTMLElementTagNameMap} T
 * @param {T} tag
 * @param {Record<string, unknown>} properties of the element; `class` and names with a hyphen as attributes
 * @param {...Child} children null, undefined and false are left out
 */
export function h(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name === 'class' || name.includes('-')) element.setAttribute(name, String(value));
    else Reflect.set(element, name, value);
  }
  // @ts-expect-error: flat() does not know how deep a Child goes
  for (const child of children.flat(9)) if (child || child === 0) element.append(typeof child === 'number' ? `${child}` : child);
  return element;
}

/** A name from the database, whose direction of writing must not turn what stands around it. */
export const name = (/** @type {string | null} */ text) => h('bdi', {}, text || '(no name)');

/** A location_key for people: `rose court` → `Rose Court`. */
export const title = (/** @type {string} */ key) => key.replace(/(^|[\s-])\p{L}/gu, (letter) => letter.toUpperCase());

export const count = (/** @type {number} */ n, /** @type {string} */ thing) =>
  `${n.toLocaleString('en')} ${thing}${n === 1 ? '' : 's'}`;

/** A state as a word, with its colour. */
export const chip = (/** @type {string} */ state) => h('span', { class: `chip ${state}` }, state.replace('_', ' '));

/** Nairobi's wall clock, as everywhere in fleettickets. */
const clock = new Intl.DateTimeFormat('en-GB', {
  ...{ timeZone: 'Africa/Nairobi', day: 'numeric', month: 'short', hour: '2-digit', minute: '2-digit' },
});
export const when = (/** @type {string | null} */ time) => (time ? clock.format(new Date(time)) : '');

/** The server did not do it, and says why. */
export class Refusal extends Error {
  /** @param {number} status @param {{ error?: string, grant?: string }} answer */
  constructor(status, { error, grant }) {
    super(error ?? `The server answered ${status}.`);
    this.status = status;
    this.grant = grant;
  }
}

/**
 * @param {string} path
 * @param {object} [body] makes it a write
 * @returns {Promise<any>} @throws {Refusal}
 */
export async function ask(path, body) {
  const post = { method: 'POST', headers: { 'content-type': 'application/json' }, body: JSON.stringify(body) };
  const response = await fetch(path, body && post).catch(() => {
    throw new Refusal(0, { error: 'The server of this page has ended. Start it again: fleettickets page' });
  });
  const answer = await response.json().catch(() => ({}));
  if (!response.ok) throw new Refusal(response.status, answer);
  return answer;
}

/** Parameters of a GET, without those that are empty. */
export const query = (/** @type {Record<string, string | null>} */ fields) =>
  new URLSearchParams(Object.entries(fields).flatMap(([key, value]) => (value ? [[key, value]] : [])));

/** An error as an element; with the statement that would help, for whoever owns the database. */
export const notice = (/** @type {any} */ error) =>
  h(
    'div',
    { class: 'notice', role: 'alert' },
    h('p', {}, error.message),
    error.grant && h('p', {}, 'The owner of the database can allow it: ', h('code', {}, error.grant)),
  );

/** @param {string} selector @param {ParentNode} [root] @returns {any} what must be there */
export const $ = (selector, root = document) => root.querySelector(selector);

/** Shows a message at the foot of the page, until the next one. @param {...Child} children */
export function say(...children) {
  const message = $('#message');
  message.hidden = children.length === 0;
  message.replaceChildren(...children.filter(Boolean));
}
