/** Rows that the database refuses: each goes to the rejects with its reason, every other row loads, and none costs much. */
import assert from 'node:assert/strict';
import { after, before, beforeEach, test } from 'node:test';
import { MAX_REJECTS_KEPT, MAX_TEXT_BYTES } from '../../src/csv/rejects.ts';
import { type Environment, startEnvironment } from '../support/environment.ts';
import { csvOf, fetchNow, keyOf, ledger, TICKETS } from '../support/pipeline.ts';

let env: Environment;
before(async () => {
  env = await startEnvironment();
});
after(() => env.close());
beforeEach(() => env.reset());

const records = (count: number, owner: (n: number) => string) =>
  Array.from({ length: count }, (_, n) => ({
    ticket_id: `WOT${String(n).padStart(7, '0')}`,
    is_actionable: 'true',
    normalized_status: 'Open',
    created_at_service: '2026-06-15 10:00:00',
    owner: owner(n),
  }));

/** Loads these records while the table has a constraint. */
async function loadUnder(constraint: string, rows: Record<string, string>[], hour = 7) {
  await env.pool.query(`alter table ${TICKETS} add constraint no_poison ${constraint}`);
  try {
    await env.putObject(keyOf(hour), csvOf(rows));
    assert.deepEqual(await fetchNow(env), []);
  } finally {
    await env.pool.query(`alter table ${TICKETS} drop constraint no_poison`);
  }
  const entry = (await ledger(env)).at(-1);
  return [entry?.status, entry?.rows_inserted, entry?.rows_rejected];
}

const rejects = async () =>
  (
    await env.pool.query<{ line: number; reason: string; row_text: string }>(
      'select line::int, reason, row_text from tickets_ops.snapshot_rejects order by line',
    )
  ).rows;

const NO_POISON = `check (raw ->> 'owner' is distinct from 'poison')`;
/** What no check says: two tickets may not have one owner. */
const UNIQUE_OWNER = `exclude ((left(raw ->> 'owner', 20)) with =)`;

test('a few among many, wherever they stand: the others of their batch load, with their history', async () => {
  const poisoned = [0, 13, 14, 699];
  const loaded = await loadUnder(
    NO_POISON,
    records(700, (n) => (poisoned.includes(n) ? 'poison' : 'NOC')),
  );
  assert.deepEqual(loaded, ['done', 696, 4]);
  const found = await rejects();
  assert.deepEqual(
    found.map(({ line }) => line),
    [2, 15, 16, 701],
  );
  assert.match(found[1]?.reason ?? '', /^The database refuses it: .*no_poison/);
  assert.match(found[1]?.row_text ?? '', /poison.*WOT0000013/);
  const { rows } = await env.pool.query(
    `select (select count(*)::int from ${TICKETS}) as tickets, (select count(*)::int from ${TICKETS}_events) as events`,
  );
  assert.deepEqual(rows, [{ tickets: 696, events: 696 }]);
});

test('its text is kept as that of any reject: what nobody sees is escaped, and it is cut at 64 KiB', async () => {
  const hidden = 'poison \u202e\u200b\u2028';
  await loadUnder(
    `check (raw ->> 'owner' not like 'poison%')`,
    records(2, (n) => hidden + (n === 1 ? 'é'.repeat(MAX_TEXT_BYTES) : '')),
  );
  const [short, long] = await rejects();
  assert.match(short?.row_text ?? '', /"poison \\u202e\\u200b\\u2028"/);
  assert.ok(Buffer.byteLength(long?.row_text ?? '') <= MAX_TEXT_BYTES);
  assert.ok(Buffer.byteLength(long?.row_text ?? '') > MAX_TEXT_BYTES - 4);
});

test('a check that looks at a typed column, and a refusal that is no check', async () => {
  assert.deepEqual(
    await loadUnder(
      `check (owner is null or owner <> 'poison' or created_at_service > '2026-06-16')`,
      records(100, (n) => (n % 10 === 0 ? 'poison' : `owner ${n}`)),
    ),
    ['done', 90, 10],
  );
  await env.reset();
  assert.deepEqual(
    await loadUnder(
      UNIQUE_OWNER,
      records(40, (n) => `owner ${Math.min(n, 37)}`),
    ),
    ['done', 38, 2],
  );
});

test('an update that is refused leaves the ticket as it was', async () => {
  assert.deepEqual(
    await loadUnder(
      NO_POISON,
      records(3, () => 'NOC'),
    ),
    ['done', 3, 0],
  );
  const [, , rejected] = await loadUnder(
    NO_POISON,
    records(3, (n) => (n === 1 ? 'poison' : 'Fibre')),
    8,
  );
  assert.equal(rejected, 1);
  const { rows } = await env.pool.query(`select owner from ${TICKETS} order by ticket_id`);
  assert.deepEqual(
    rows.map(({ owner }) => owner),
    ['Fibre', 'NOC', 'Fibre'],
  );
});

test('thousands at once cost no more than as many that load; of one snapshot 10 000 are kept with their text', async () => {
  const count = MAX_REJECTS_KEPT + 2_500;
  const started = performance.now();
  assert.deepEqual(
    await loadUnder(
      NO_POISON,
      records(count, () => 'poison'),
    ),
    ['done', 0, count],
  );
  const refused = performance.now() - started;
  assert.equal((await rejects()).length, MAX_REJECTS_KEPT);
  const { rows } = await env.pool.query('select rejects_kept::int as kept from tickets_ops.snapshots');
  assert.deepEqual(rows, [{ kept: MAX_REJECTS_KEPT }]);

  await env.reset();
  const again = performance.now();
  assert.deepEqual(
    await loadUnder(
      NO_POISON,
      records(count, () => 'NOC'),
    ),
    ['done', count, 0],
  );
  const loaded = performance.now() - again;
  assert.ok(refused < 2 * loaded + 1_000, `${Math.round(refused)} ms against ${Math.round(loaded)} ms`);
});

test('rows that the reader rejects and rows that the database refuses count together', async () => {
  const rows = records(2_000, () => 'poison');
  await env.pool.query(`alter table ${TICKETS} add constraint no_poison ${NO_POISON}`);
  try {
    await env.putObject(
      keyOf(7),
      `${csvOf([...rows, ...records(30_000, () => 'NOC').slice(2_000)])}${',\n'.repeat(9_000)}`,
    );
    assert.deepEqual(await fetchNow(env), []);
  } finally {
    await env.pool.query(`alter table ${TICKETS} drop constraint no_poison`);
  }
  const [entry] = await ledger(env);
  assert.deepEqual([entry?.status, entry?.rows_inserted, entry?.rows_rejected], ['done', 28_000, 11_000]);
  assert.equal((await rejects()).length, MAX_REJECTS_KEPT);
});
