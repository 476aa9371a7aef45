/** ops/alerts.yml: what it says of two days of made-up series, by promtool; and that each alert leads somewhere. */
import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { test } from 'node:test';
import { parseCrontab } from 'graphile-worker';
import { FEW_ROWS_SHARE, MANY_REJECTED_SHARE } from '../../src/snapshots/suspicion.ts';
import { entryOf } from '../../src/worker/schedule.ts';
import { promtool, skipWithoutPromtool } from '../support/promtool.ts';

const ROOT = new URL('../..', import.meta.url);
const file = (name: string) => readFile(new URL(name, ROOT), 'utf8');
const rules = await file('ops/alerts.yml');

test('the rules and the settings of Prometheus are valid', skipWithoutPromtool, async () => {
  await promtool(['check', 'rules', 'ops/alerts.yml']);
  await promtool(['check', 'config', 'ops/prometheus.yml']);
});

test(
  'two days of made-up series: each alert fires when it should, and not otherwise',
  skipWithoutPromtool,
  async () => {
    await promtool(['test', 'rules', 'test/data/alerts.yml']);
  },
);

test('every alert is tried, has a summary, and leads to its section of the runbook', async () => {
  const alerts = rules.split(/^ +- alert: /m).slice(1);
  const [tried, runbook] = [await file('test/data/alerts.yml'), await file('docs/monitoring.md')];
  assert.equal(alerts.length, 13);
  for (const alert of alerts) {
    const name = /^\w+/.exec(alert)?.[0] ?? '';
    assert.match(tried, new RegExp(`alertname: ${name}\\n.*\\n +exp_alerts:`), name);
    assert.match(alert, / {10}summary: >-\n {12}\S.*\n {12}.*tickets_ops\.health/, name);
    const anchor = / {10}runbook: docs\/monitoring\.md#(\S+)/.exec(alert)?.[1];
    assert.match(runbook, new RegExp(`^## ${anchor}\n\n\`${name}\``, 'm'), name);
  }
});

test('every alert names the problems in the same words, but for the one that fires when nobody can ask', () => {
  const lines = [...rules.matchAll(/^ +summary: >-\n.*\n +(.*)$/gm)].map(([, line]) => line);
  const [alone, ...same] = lines.toSorted();
  assert.match(alone ?? '', /^Ask it: select problems from tickets_ops\.health\.$/);
  assert.equal(new Set(same).size, 1);
});

test('many rejects and few rows are what loading warns of', () => {
  assert.ok(rules.includes(`fleettickets:snapshot_rejected:ratio > ${MANY_REJECTED_SHARE}\n`));
  assert.ok(rules.includes(`# Over ${100 * MANY_REJECTED_SHARE} %,`));
  assert.ok(rules.includes(`fleettickets:snapshot_rows:sum < ${FEW_ROWS_SHARE} * avg_over_time(`));
});

test('old data are an alarm in the hours in which the crontab looks, but for its first', async () => {
  const look = parseCrontab(await file('crontab'))
    .map(entryOf)
    .find(({ dataset }) => dataset === 'inc');
  const [first = 0, last = 0] = [look?.hours[0], look?.hours.at(-1)];
  assert.ok(rules.includes(`hour() >= ${first + 1} and hour() <= ${last}`), `hours ${first} to ${last} UTC`);
});
