/** What the views share: elements, requests, messages. What comes from the database becomes text, never HTML. */

const ATTRIBUTE = '\ue000';
/** Parsed once for each place in the code. @type {WeakMap<TemplateStringsArray, HTMLTemplateElement>} */
const templates = new WeakMap();

/**
 * Elements from HTML with values in it. Between tags a value is text, an element, or a list of these (null, false and ''
 * are nothing); as an attribute it is text, or for `@click` a listener.
 * @param {TemplateStringsArray} parts @param {...any} values @returns {any} the element
 */
export function html(parts, ...values) {
  const template = templates.get(parts) ?? document.createElement('template');
  if (!templates.has(parts)) {
    template.innerHTML = parts.reduce((all, part) => all + (/<[^>]*$/.test(all) ? ATTRIBUTE : '<!---->') + part).trim();
    templates.set(parts, template);
  }
  const root = document.importNode(template.content, true);
  const walker = document.createTreeWalker(root, NodeFilter.SHOW_ELEMENT | NodeFilter.SHOW_COMMENT);
  /** @type {any[]} */
  const nodes = [];
  while (walker.nextNode()) nodes.push(walker.currentNode);
  for (const node of nodes) {
    if (node instanceof Comment) node.replaceWith(...[values.shift()].flat(9).filter((value) => value || value === 0));
    for (const { name: key, value: mark } of [...(node.attributes ?? [])]) {
      if (mark !== ATTRIBUTE) continue;
      const value = values.shift();
      node.removeAttribute(key);
      if (key[0] === '@') node.addEventListener(key.slice(1), value);
      else node.setAttribute(key, value);
    }
  }
  return root.firstElementChild;
}

/** @param {string} selector @param {ParentNode} [root] @returns {any} what must be there */
export const $ = (selector, root = document) => root.querySelector(selector);

/** @param {EventTarget} target @param {string} type @param {(event: any) => void} listener */
export const on = (target, type, listener) => target.addEventListener(type, listener);

/** A name from the database, whose direction of writing must not turn what stands around it. @param {any} text */
export const name = (text) => html`<bdi>${text || '(no name)'}</bdi>`;

/** A location_key for people: `rose court` → `Rose Court`. @param {string} key */
export const title = (key) => key.replace(/(^|[\s-])\p{L}/gu, (letter) => letter.toUpperCase());

/** @param {number} n @param {string} thing */
export const count = (n, thing) => `${n.toLocaleString('en')} ${thing}${n === 1 ? '' : 's'}`;

/** A state as a word, with its colour. @param {string} state */
export const chip = (state) => html`<span class="chip" data-state=${state}>${state.replace('_', ' ')}</span>`;

/** @param {HTMLSelectElement} select @param {any[]} rows whose values of `key` are its options, besides the first */
export function options(select, rows, key = '') {
  const { value } = select;
  const texts = [...new Set(rows.map((row) => row[key]))].filter((text) => text !== null).sort();
  select.replaceChildren(select.options[0] ?? '', ...texts.map((text) => html`<option>${text}</option>`));
  select.value = texts.includes(value) ? value : '';
}

const clock = new Intl.DateTimeFormat('en-GB', { timeZone: 'Africa/Nairobi', dateStyle: 'medium', timeStyle: 'short' });
/** Nairobi's wall clock, as everywhere in fleettickets. @param {string | null} time */
export const when = (time) => (time ? clock.format(new Date(time)) : '–');

/**
 * @param {string} path @param {Record<string, any>} fields those that are empty are left out
 * @param {'GET' | 'POST'} [method] @returns {Promise<any>}
 * @throws what the server refused: a message, the status, and the GRANT that is missing
 */
export async function ask(path, fields = {}, method = 'GET') {
  const given = Object.entries(fields).filter(([, value]) => value !== null && value !== '');
  const post = {
    method,
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify(Object.fromEntries(given)),
  };
  const request = method === 'GET' ? fetch(`${path}?${new URLSearchParams(given)}`) : fetch(path, post);
  const response = await request.catch(() => {
    throw new Error('The server of this page has ended. Start it again: fleettickets page');
  });
  const answer = await response.json().catch(() => ({}));
  if (response.ok) return answer;
  throw Object.assign(new Error(answer.error ?? `The server answered ${response.status}.`), {
    status: response.status,
    grant: answer.grant,
  });
}

/** An error, with the statement that would help, for whoever owns the database. @param {any} error */
export const notice = ({ message, grant }) =>
  html`<div class="notice" role="alert">${message}${grant && html`<p>The owner of the database can allow it: <code>${grant}</code></p>`}</div>`;

/** Shows a message at the foot of the page, until the next one. @param {...any} children */
export function say(...children) {
  const message = $('#message');
  message.hidden = children.length === 0;
  message.replaceChildren(...children);
}
