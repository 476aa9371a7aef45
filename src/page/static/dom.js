/** What the views share: HTML, requests, messages. What comes from the database becomes text, never HTML. */

/** HTML that `html` made, and nothing else did. */
class Html extends String {}

/** Text, or what `html` made, or a list of these, as HTML; null, false and '' are nothing. @param {any} value @returns {string} */
export function safe(value) {
  if (value instanceof Html) return String(value);
  if (Array.isArray(value)) return value.map(safe).join('');
  const text = value || value === 0 ? String(value) : '';
  return text.replace(/[&<>"']/g, (sign) => `&#${sign.charCodeAt(0)};`);
}

/** HTML with values in it, between tags or in quoted attributes, each made `safe`. */
export const html = (parts, ...values) => new Html(String.raw(parts, ...values.map(safe)));

/** @param {any} content as `safe` takes it @param {Element} element that shows it from now on */
export function put(content, element) {
  element.innerHTML = safe(content);
}

/** Fills a list anew. The focus that was in it goes to what is current there, or to the first. */
export function refill(content, list) {
  const hadFocus = list.contains(document.activeElement);
  put(content, list);
  if (hadFocus) ($('[aria-current]', list) ?? $('button', list))?.focus();
}

/** Shows a message at the foot of the page, until the next one. @param {any} [content] */
export const say = (content) => put(content, $('#message'));

/** @param {string} selector @param {ParentNode} [root] @returns {any} what must be there */
export const $ = (selector, root = document) => root.querySelector(selector);

/** A name from the database, whose direction of writing must not turn what stands around it. */
export const name = (text) => html`<bdi>${text || '(no name)'}</bdi>`;

/** A place by its location_key, for people: Rose Court; or the cluster itself. @param {any} place */
export const nameOf = ({ location_key, cluster }) =>
  location_key ? html`<bdi class="key">${location_key}</bdi>` : name(cluster);

export const count = (n, thing) => `${n.toLocaleString('en')} ${thing}${n === 1 ? '' : 's'}`;

/** A state as a word, with its colour. */
export const chip = (state) => html`<span class="chip ${state}">${state.replace('_', ' ')}</span>`;

const clock = new Intl.DateTimeFormat('en-GB', { timeZone: 'Africa/Nairobi', dateStyle: 'medium', timeStyle: 'short' });
/** Nairobi's wall clock, as everywhere in fleettickets. */
export const when = (time) => (time ? clock.format(new Date(time)) : '–');

/** @param {HTMLSelectElement} select @param {string[]} texts its options, besides "all" */
export function options(select, texts) {
  const { value } = select;
  put([html`<option value="">all</option>`, texts.map((text) => html`<option>${text}</option>`)], select);
  select.value = texts.includes(value) ? value : '';
}

/** @param {any} [fields] names and values, or a form's data */
export const get = (path, fields = {}) => ask(`${path}?${new URLSearchParams(fields)}`);

export const post = (path, fields) =>
  ask(path, { method: 'POST', headers: { 'content-type': 'application/json' }, body: JSON.stringify(fields) });

/**
 * @param {RequestInit} [init] @returns {Promise<any>}
 * @throws what the server refused: a message, the status, and the GRANT that is missing
 */
async function ask(url, init) {
  const response = await fetch(url, init).catch(() => {
    throw new Error('The server of this page has ended. Start it again: fleettickets page');
  });
  const said = await response.json();
  if (response.ok) return said;
  throw Object.assign(new Error(said.error), { status: response.status, grant: said.grant });
}

/** An error, with the statement that would help, for the database's owner. @param {any} error */
export const notice = ({ message, grant }) => html`<div class="notice" role="alert">${message}
  ${grant && html`<p>The owner of the database can allow it: <code>${grant}</code></p>`}</div>`;
