/** The jobs: how the pipeline is, what waits, runs and failed, and what to do about it. */
import { $, ask, chip, count, h, name, notice, query, say, when } from './dom.js';

/** @typedef {{ id: number, task: string, key: string | null, payload: unknown, state: string, run_at: string, attempts: number, max_attempts: number, last_error: string | null, age: string }} Job */

const view = $('#jobs');
const filters = $('form.filters', view);
const geocode = $('form[name=geocode]', view);

export function start() {
  filters.addEventListener('change', show);
  filters.addEventListener('submit', (/** @type {Event} */ event) => event.preventDefault());
  filters.refresh.addEventListener('click', show);
  filters.fetch.addEventListener('click', () => act({ action: 'fetch', force: false }));
  filters.retry_failed.addEventListener('click', () => act({ action: 'retry_failed', task: filters.task.value || null }));
  geocode.addEventListener('submit', (/** @type {Event} */ event) => {
    event.preventDefault();
    act({ action: 'geocode', cluster: geocode.cluster.value, location: geocode.location.value || null });
  });
}

/** @param {object} action */
async function act(action) {
  try {
    const { notes } = await ask('/api/jobs', action);
    say(notes.length === 0 ? 'No job matches.' : notes.length === 1 ? notes[0] : `${count(notes.length, 'job')}: ${summed(notes)}`);
    await show();
  } catch (error) {
    say(notice(error));
  }
}

/** `3 × It is due now.` @param {string[]} notes */
const summed = (notes) => [...Map.groupBy(notes, (note) => note)].map(([note, same]) => `${same.length} × ${note}`).join(' ');

export async function show() {
  try {
    const { health, counts, jobs, total, snapshots } = await ask(`/api/jobs?${query({ task: filters.task.value, state: filters.state.value })}`);
    drawHealth(health);
    drawFilters(counts ?? []);
    $('.summary', view).textContent = total > (jobs ?? []).length ? `The first ${jobs.length} of ${count(total, 'job')}` : count(total, 'job');
    $('.table', view).replaceChildren(table(['Job', 'State', 'Attempts', 'Due', 'What', ''], (jobs ?? []).map(jobRow), 'No job waits, runs or has failed.'));
    $('.snapshots', view).replaceChildren(table(['Snapshot', 'Status', 'When', 'Read', 'New', 'Changed', 'Rejected', 'Why'],
      (snapshots ?? []).map(snapshotRow), 'No file has been looked at yet.'));
  } catch (error) {
    $('.health', view).replaceChildren(notice(error));
  }
}

/** @param {any} health */
function drawHealth({ ok, problems, jobs_waiting, jobs_running, jobs_failed, workers_alive, next_run_at, data_at, geocoding_state }) {
  $('.health', view).replaceChildren(
    ok ? h('p', {}, chip('ok'), ' All is well.') : h('ul', {}, problems.map((/** @type {string} */ text) => h('li', {}, chip('failed'), ' ', text))),
    h('p', {}, h('small', {}, [`Tickets as of ${when(data_at)}`, `${jobs_waiting} due, ${jobs_running} running, ${jobs_failed} failed`,
      `${count(workers_alive, 'worker')} alive`, `geocoding ${geocoding_state ?? 'off'}`, `next look ${when(next_run_at)}`].join(' · '))),
  );
}

/** @param {{ task: string, state: string, jobs: number }[]} counts of all jobs, whatever the filter */
function drawFilters(counts) {
  const { task } = filters;
  const { value } = task;
  const tasks = [...new Set(counts.map((row) => row.task))];
  task.replaceChildren(h('option', { value: '' }, 'all'), ...tasks.map((text) => h('option', {}, text)));
  task.value = tasks.includes(value) ? value : '';
  const failed = counts.filter((row) => row.state === 'failed' && (!task.value || row.task === task.value)).reduce((sum, { jobs }) => sum + jobs, 0);
  filters.retry_failed.textContent = `Retry all ${failed} failed${task.value && ` ${task.value}`}`;
  filters.retry_failed.disabled = failed === 0;
}

/** @param {string[]} heads @param {HTMLElement[]} rows @param {string} nothing */
const table = (heads, rows, nothing) => rows.length === 0 ? h('p', {}, nothing)
  : h('table', {}, h('thead', {}, h('tr', {}, heads.map((head) => h('th', { scope: 'col' }, head)))), h('tbody', {}, rows));

const jobRow = (/** @type {Job} */ { id, task, key, payload, state, run_at, attempts, max_attempts, last_error, age }) =>
  h('tr', {},
    h('td', {}, `${id} `, h('b', {}, task)),
    h('td', {}, chip(state)),
    h('td', {}, `${attempts} of ${max_attempts}`),
    h('td', {}, when(run_at)),
    h('td', {}, h('details', {},
      h('summary', {}, name(last_error?.split('\n')[0] ?? key ?? '—')),
      last_error && h('pre', {}, last_error),
      h('pre', {}, JSON.stringify(payload, null, 2)), h('small', {}, name(key), ` · asked for ${age} ago`))),
    h('td', {}, state !== 'running' && h('button', { type: 'button', onclick: () => act({ action: 'retry', id }) }, state === 'failed' ? 'Retry' : 'Run now'),
      h('button', { type: 'button', onclick: () => act({ action: 'cancel', id }) }, 'Cancel')));

const snapshotRow = (/** @type {any} */ { snapshot_id, source_key, status, at, rows_read, rows_inserted, rows_updated, rows_rejected, reason }) =>
  h('tr', {}, h('td', {}, `${snapshot_id} `, name(source_key.split('/').at(-1))), h('td', {}, chip(status)), h('td', {}, when(at)),
    ...[rows_read, rows_inserted, rows_updated, rows_rejected].map((n) => h('td', { class: 'number' }, n)), h('td', {}, name(reason ?? ' ')));
