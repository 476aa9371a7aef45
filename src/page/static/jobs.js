/** The jobs: how the pipeline is, what waits, runs and failed, and what to do about it. */
import { $, ask, chip, count, html, name, notice, on, options, say, when } from './dom.js';

const EVERY_MS = 10_000;
const view = $('#jobs');
const filters = $('form', view);
const geocode = $('form[name=geocode]', view);

export function start() {
  on(filters, 'change', show);
  on(filters, 'submit', (event) => event.preventDefault());
  on(filters.refresh, 'click', show);
  // Not while somebody reads an error, or is about to press a button of the table.
  const isIdle = () => !view.hidden && !document.hidden && !$('.jobs :is(details[open], :focus)', view);
  setInterval(() => isIdle() && show(), EVERY_MS);
  on(filters.fetch, 'click', () => act({ action: 'fetch' }));
  on(filters.retry_failed, 'click', () => act({ action: 'retry_failed', task: filters.task.value }));
  on(geocode, 'submit', (event) => {
    event.preventDefault();
    act({ action: 'geocode', cluster: geocode.cluster.value, location: geocode.location.value });
  });
}

/** @param {object} action */
async function act(action) {
  try {
    const { notes } = await ask('/api/jobs', action, 'POST');
    const same = Object.entries(Object.groupBy(notes, (/** @type {string} */ note) => note));
    say(
      same.map(([note, all]) => (all?.length === 1 ? note : `${all?.length} × ${note}`)).join(' ') || 'No job matches.',
    );
    await show();
  } catch (error) {
    say(notice(error));
  }
}

export async function show() {
  try {
    const asked = { task: filters.task.value, state: filters.state.value };
    const { health, tasks, failed, jobs, total, snapshots } = await ask('/api/jobs', asked);
    options(filters.task, tasks, 'task');
    filters.retry_failed.textContent = failed ? `Retry all ${failed} failed ${filters.task.value}` : 'Retry all failed';
    filters.retry_failed.disabled = failed === 0;
    $('.health', view).replaceChildren(healthOf(health));
    const more = total > jobs.length ? `, of which ${jobs.length} are listed` : '';
    $('.summary', view).textContent = `${count(total, 'job')} waiting, running or failed${more}`;
    $('.jobs', view).replaceChildren(...jobs.map(jobRow));
    $('.snapshots', view).replaceChildren(...snapshots.map(snapshotRow));
  } catch (error) {
    $('.health', view).replaceChildren(notice(error));
  }
}

/** @param {any} health */
const healthOf = ({
  ok,
  problems,
  jobs_waiting,
  jobs_running,
  jobs_failed,
  workers_alive,
  next_run_at,
  data_at,
  geocoding_state,
}) =>
  html`<div>${ok ? html`<p>${chip('ok')} All is well.</p>` : problems.map((/** @type {string} */ text) => html`<p>${chip('attention')} ${text}</p>`)}
    <p><small>Tickets as of ${when(data_at)} · ${jobs_waiting} due, ${jobs_running} running, ${jobs_failed} failed ·
      ${count(workers_alive, 'worker')} alive · geocoding ${geocoding_state ?? 'off'} · next look ${when(next_run_at)}</small></p></div>`;

/** @param {any} job */
const jobRow = ({ id, task, key, payload, state, run_at, attempts, max_attempts, last_error, age }) =>
  html`<tr><td>${id} <b>${task}</b></td><td>${chip(state)}</td><td>${attempts} of ${max_attempts}</td><td>${when(run_at)}</td>
    <td><details><summary>${name(last_error?.split('\n')[0] ?? key ?? 'details')}</summary>
      ${last_error && html`<pre>${last_error}</pre>`}<pre>${JSON.stringify(payload, null, 2)}</pre>
      <small>${name(key ?? 'no key')} · asked for ${age} ago</small></details></td>
    <td>${state !== 'running' && html`<button type="button" @click=${() => act({ action: 'retry', id })}>${state === 'failed' ? 'Retry' : 'Run now'}</button>`}
      <button type="button" @click=${() => act({ action: 'cancel', id })}>Cancel</button></td></tr>`;

/** @param {any} snapshot */
const snapshotRow = ({ snapshot_id, file, status, at, read, inserted, updated, rejected, reason }) =>
  html`<tr><td>${snapshot_id} ${name(file.split('/').at(-1))}</td><td>${chip(status)}</td><td>${when(at)}</td>
    <td>${read}</td><td>${inserted}</td><td>${updated}</td><td>${rejected}</td><td>${reason && name(reason)}</td></tr>`;
