import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { text } from 'node:stream/consumers';
import { describe, test } from 'node:test';
import { parse } from 'csv-parse/sync';
import { bigCsv, feed, type Snapshot } from '../../demo/feed.ts';
import type { Raw } from '../../demo/ticket.ts';

const snapshots = [...feed({ seed: 7, hours: 5, tickets: 2000 })];

/** A record as an independent reader sees it: fields and the line on which it begins. */
function records(csv: Buffer): { fields: string[]; line: number }[] {
  const rows = parse(csv, { bom: true, relax_column_count: true }) as string[][];
  let line = 1;
  return rows.map((fields) => {
    const at = line;
    line += fields.join('').split('\n').length;
    return { fields, line: at };
  });
}

/** Rows that a loader keeps, the last of an id, and what it throws away. */
function read(csv: Buffer) {
  const [header, ...rows] = records(csv);
  const names = header?.fields ?? [];
  const kept = new Map<string, Raw>();
  const seen = {
    read: rows.length,
    alarm: 0,
    sentinel: 0,
    duplicate: 0,
    rejects: [] as { line: number; reason: string }[],
  };
  for (const { fields, line } of rows) {
    const id = fields[0]?.trim() ?? '';
    if (id.startsWith('EXPORT STOPPED')) seen.sentinel++;
    else if (fields.length !== names.length) seen.rejects.push({ line, reason: 'field count' });
    else if (id === '') seen.rejects.push({ line, reason: 'no ticket_id' });
    else if (fields[names.indexOf('is_alarm')]?.toLowerCase() === 'true') seen.alarm++;
    else {
      if (kept.has(id)) seen.duplicate++;
      kept.set(id, Object.fromEntries(names.map((name, i) => [name, fields[i] ?? ''])));
    }
  }
  return { names, kept, seen };
}

async function digest(stream: AsyncIterable<Buffer>): Promise<{ sha256: string; bytes: number }> {
  const hash = createHash('sha256');
  let bytes = 0;
  for await (const chunk of stream) {
    hash.update(chunk);
    bytes += chunk.length;
  }
  return { sha256: hash.digest('hex'), bytes };
}

describe('the hourly feed', () => {
  test('is the same for the same seed and another for another', () => {
    const again = [...feed({ seed: 7, hours: 5, tickets: 2000 })];
    assert.deepEqual(again, snapshots);
    const [other] = feed({ seed: 8, hours: 1, tickets: 2000 });
    assert.notDeepEqual(other?.csv, snapshots[0]?.csv);
  });

  test('names its files by their time in Nairobi', () => {
    assert.deepEqual(
      snapshots.map((s) => s.name),
      ['07', '08', '09', '10', '11'].map((hour) => `2026-06-15T${hour}-00-00.csv`),
    );
    assert.equal(snapshots[0]?.at.toISOString(), '2026-06-15T04:00:00.000Z');
  });

  test('holds what it says it holds, as another reader counts it', () => {
    for (const { csv, expected } of snapshots) {
      const { names, seen, kept } = read(csv);
      assert.equal(names.length, 33);
      assert.equal(seen.read, expected.rows_read);
      assert.equal(seen.alarm, expected.rows_dropped_alarm);
      assert.equal(seen.sentinel, expected.rows_dropped_sentinel);
      assert.equal(seen.duplicate, expected.rows_duplicate);
      assert.deepEqual(seen.rejects, expected.rejects);
      assert.equal(seen.rejects.length, expected.rows_rejected);
      assert.equal(kept.size, expected.rows_inserted + expected.rows_updated + expected.rows_unchanged);
      assert.ok(seen.alarm > 0 && seen.sentinel > 0 && seen.duplicate > 0 && seen.rejects.length > 0);
    }
  });

  test('states the cleaned tickets that a load must arrive at', () => {
    const table = new Map<string, Raw>();
    for (const { csv, tickets, expected } of snapshots) {
      const counts = { inserted: 0, updated: 0, unchanged: 0 };
      const { kept } = read(csv);
      for (const [id, row] of kept) {
        const {
          week_start,
          week_end,
          source_s3_bucket,
          source_s3_key,
          source_snapshot_id,
          department,
          source_type,
          ...raw
        } = row;
        Object.assign(raw, {
          ticket_id: id,
          region: raw.region?.toLowerCase(),
          raw_status: raw.raw_status?.toUpperCase(),
        });
        raw.description = raw.description?.replaceAll('\0', '\ufffd') ?? '';
        const before = table.get(id);
        const same =
          before && JSON.stringify(Object.entries(before).sort()) === JSON.stringify(Object.entries(raw).sort());
        counts[same ? 'unchanged' : before ? 'updated' : 'inserted']++;
        table.set(id, raw);
      }
      assert.deepEqual(tickets, table);
      assert.deepEqual(counts, {
        inserted: expected.rows_inserted,
        updated: expected.rows_updated,
        unchanged: expected.rows_unchanged,
      });
      const missing = [...table.values()].filter((t) => t.is_actionable === 'true' && !kept.has(t.ticket_id ?? ''));
      assert.equal(missing.length, expected.open_missing);
    }
    assert.ok((snapshots.at(-1)?.expected.open_missing ?? 0) > 0);
  });

  test('repeats the second file byte for byte as the third, and changes every other one', () => {
    const [first, second, third, fourth] = snapshots as [Snapshot, Snapshot, Snapshot, Snapshot];
    assert.deepEqual(third.csv, second.csv);
    assert.equal(third.expected.identical, true);
    assert.notDeepEqual(second.csv, first.csv);
    assert.notDeepEqual(fourth.csv, third.csv);
    assert.equal(third.expected.rows_updated + third.expected.rows_inserted, 0);
  });

  test('has every kind of change in every hour that changes', () => {
    for (const { expected } of snapshots.filter((s, n) => n > 0 && !s.expected.identical)) {
      for (const [event, count] of Object.entries(expected.events)) assert.ok(count > 0, event);
      assert.ok(expected.rows_updated >= 40 && expected.rows_inserted === 20 && expected.rows_unchanged > 1900);
    }
    const { opened, closed, ...rest } = (snapshots[0] as Snapshot).expected.events;
    assert.equal(opened + closed, 2000);
    assert.deepEqual(rest, { reopened: 0, status_changed: 0, team_changed: 0, cluster_changed: 0 });
  });

  test('has the bytes that break loaders: byte-order mark, CRLF, a NUL, an invalid byte, quotes, newlines, Unicode', () => {
    const [first, second] = snapshots as [Snapshot, Snapshot];
    assert.deepEqual([...second.csv.subarray(0, 3)], [0xef, 0xbb, 0xbf]);
    assert.ok(second.csv.includes('description\r\n') && first.csv.includes('description\n'));
    for (const { csv, expected } of snapshots) {
      assert.ok(
        csv.includes(0) &&
          csv.includes(0xff) &&
          csv.includes('""it\'s down""') &&
          csv.includes('first\nthen') &&
          csv.includes('光'),
      );
      assert.equal(expected.rows_repaired, 2);
    }
  });

  test('has the proportions of the real feed', () => {
    const [{ tickets, at }] = [...feed({ hours: 1, tickets: 6000, openShare: 0.25 })] as [Snapshot];
    const all = [...tickets.values()];
    const open = all.filter((t) => t.is_actionable === 'true');
    const share = (of: Raw[], is: (t: Raw) => boolean) => of.filter(is).length / of.length;
    const near = (actual: number, wanted: number) =>
      assert.ok(Math.abs(actual - wanted) < 0.03, `${actual}, not ${wanted}`);
    near(open.length / all.length, 0.25);
    const undated = all.filter((t) => t.created_at_service === '');
    near(undated.length / all.length, 0.3);
    assert.ok(share(undated, (t) => t.is_actionable === 'true') > 0.6);
    assert.ok(
      open.every((t) => t.mttr === '' && t.closed_at === '' && t.bucket === 'pending' && t.sla_status === 'Compliant'),
    );
    const closed = all.filter((t) => t.is_actionable === 'false');
    assert.ok(closed.every((t) => Number(t.mttr) >= 0 && t.mttr !== '' && t.closed_at !== '' && t.bucket === 'closed'));
    near(
      share(closed, (t) => t.sla_status === 'Breached'),
      0.3,
    );
    const through = new Date(at.getTime() + 3 * 3_600_000 - 48 * 3_600_000)
      .toISOString()
      .replace('T', ' ')
      .slice(0, 19);
    assert.ok(all.every((t) => (t.created_at_service ?? '') <= through && (t.closed_at ?? '') <= through));
    assert.ok(all.every((t) => t.latitude === '' && t.longitude === ''));
  });

  test('writes one place in many ways, namesakes in several clusters, and tells where each ticket truly lies', () => {
    const [{ tickets, places }] = [...feed({ hours: 1, tickets: 6000 })] as [Snapshot];
    assert.deepEqual([...places.keys()].sort(), [...tickets.keys()].sort());
    const spellings = new Map<unknown, Set<string>>();
    const milimani = new Set<string>();
    for (const [id, place] of places) {
      const raw = tickets.get(id) as Raw;
      spellings.set(place, (spellings.get(place) ?? new Set()).add(raw.location_name ?? ''));
      if (place?.name === 'Milimani' && place.area === null) milimani.add(place.town);
    }
    assert.ok([...spellings.values()].some((s) => s.size > 20));
    assert.ok(milimani.size >= 3 && milimani.has('Kisumu') && milimani.has('Nakuru'));
    assert.ok(new Set([...tickets.values()].map((t) => t.cluster)).size > 45);
  });

  test('says so when it has too few tickets for its changes', () => {
    assert.throws(() => [...feed({ hours: 2, tickets: 10, openShare: 0 })], /too few open tickets/);
  });
});

describe('the big file', () => {
  test('is deterministic and about 340 bytes a row', async () => {
    const a = await digest(bigCsv({ tickets: 5000 }));
    assert.deepEqual(await digest(bigCsv({ tickets: 5000 })), a);
    assert.ok(a.bytes / 5000 > 320 && a.bytes / 5000 < 380, String(a.bytes / 5000));
  });

  test('differs from its base in exactly so many tickets', async () => {
    const base = parse(await text(bigCsv({ tickets: 3000 }))) as string[][];
    for (const changed of [0, 1, 30, 3000]) {
      const other = parse(await text(bigCsv({ tickets: 3000, changed }))) as string[][];
      assert.equal(other.length, base.length);
      assert.equal(other.filter((row, i) => JSON.stringify(row) !== JSON.stringify(base[i])).length, changed);
    }
  });

  test('has distinct ids and the asked share of open tickets', async () => {
    const rows = parse(await text(bigCsv({ tickets: 5000, openShare: 0.1 })), { columns: true }) as Raw[];
    assert.equal(new Set(rows.map((r) => r.ticket_id)).size, 5000);
    const open = rows.filter((r) => r.is_actionable === 'true').length;
    assert.ok(open > 400 && open < 600, String(open));
  });
});
