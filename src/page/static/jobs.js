/** The jobs: how the pipeline is, what waits, runs and failed, and what to do about it. */
import { $, chip, count, get, html, name, notice, options, post, put, say, when } from './dom.js';

const EVERY_MS = 10_000;
const view = $('#jobs');
const filters = $('form', view);
const retryAll = $('[value=retry_failed]', view);

filters.onchange = show;
// Not while somebody reads an error, or is about to.
const isIdle = () => !view.hidden && !document.hidden && !$('.jobs :is(details[open], summary:focus)', view);
setInterval(() => isIdle() && show(), EVERY_MS);

/** Every button submits its form: what is to be done, and to which job, task or place. */
view.onsubmit = async ({ target, submitter }) => {
  const { action: asked, ...fields } = Object.fromEntries(new FormData(target, submitter));
  const [action, dataset] = String(asked ?? '').split(' ');
  try {
    if (action) {
      const { notes } = await post('/api/jobs', { action, ...(dataset && { dataset }), ...fields });
      say(notes.join(' ') || 'No job matches.');
    }
    await show();
  } catch (error) {
    say(notice(error));
  }
};

export async function show() {
  try {
    const { health, datasets, tasks, failed, jobs, total, snapshots } = await get('/api/jobs', new FormData(filters));
    options(filters.task, tasks);
    retryAll.disabled = failed === 0;
    put(failed ? `Retry all ${failed} failed ${filters.task.value}` : 'Retry all failed', retryAll);
    const others = datasets.filter(({ dataset }) => dataset !== 'inc');
    put([healthOf(health), others.map(lineOf)], $('.health', view));
    $('[value="fetch crq"]', view).hidden = others.length === 0;
    const more = total > jobs.length && `, of which ${jobs.length} are listed`;
    put([count(total, 'job'), ' waiting, running or failed', more], $('.summary', view));
    const focused = $('.jobs button:focus', view);
    const read = Array.from(view.querySelectorAll('details[open]'), ({ id }) => id);
    put(jobs.map(jobRow), $('.jobs', view));
    for (const id of read) $(`details[id="${id}"]`, view)?.toggleAttribute('open', true);
    if (focused) {
      const same = $(`.jobs [value="${focused.form.elements.id.value}"] ~ [value=${focused.value}]`, view);
      (same ?? $('.jobs button', view) ?? filters.task).focus(); // the job may be gone
    }
    put(snapshots.map(snapshotRow), $('.snapshots', view));
  } catch (error) {
    put(notice(error), $('.health', view));
    put('', $('.summary', view));
  }
}

const healthOf = (h) => html`
  ${h.ok ? html`<p>${chip('ok')} All is well.</p>` : h.problems.map((text) => html`<p>${chip('attention')} ${text}</p>`)}
  <p><small>Tickets as of ${when(h.data_at)} · ${h.jobs_waiting} due, ${h.jobs_running} running, ${h.jobs_failed} failed ·
    ${count(h.workers_alive, 'worker')} alive · geocoding ${h.geocoding_state ?? 'off'} · next look ${when(h.next_run_at)}</small></p>`;

const lineOf = (d) => html`
  <p><small>${d.dataset.toUpperCase()}: ${count(d.open_tickets, 'open ticket')} as of ${when(d.data_at)} · next look ${when(d.next_run_at)}</small></p>`;

const jobRow = (job) => html`<tr>
  <td>${job.id} <b>${job.task}</b></td><td>${chip(job.state)}</td><td>${job.attempts} of ${job.max_attempts}</td><td>${when(job.run_at)}</td>
  <td class="long"><details id="${job.id}"><summary>${name(job.last_error?.slice(0, 100) ?? job.key ?? JSON.stringify(job.payload))}</summary>
    ${job.last_error && html`<pre>${job.last_error}</pre>`}<pre>${JSON.stringify(job.payload, null, 2)}</pre>
    <small>${name(job.key ?? 'no key')} · asked for ${job.age} ago</small></details></td>
  <td><form method="dialog"><input type="hidden" name="id" value="${job.id}">
    ${job.state !== 'running' && html`<button name="action" value="retry">${job.state === 'failed' ? 'Retry' : 'Run now'}</button>`}
    <button name="action" value="cancel">Cancel</button></form></td></tr>`;

const snapshotRow = (s) => html`<tr>
  <td>${s.snapshot_id} ${s.dataset !== 'inc' && `${s.dataset.toUpperCase()} `}${name(s.file.split('/').at(-1))}</td><td>${chip(s.status)}</td><td>${when(s.at)}</td>
  <td>${s.read}</td><td>${s.inserted}</td><td>${s.updated}</td><td>${s.rejected}</td><td class="long">${s.reason && name(s.reason)}</td></tr>`;
