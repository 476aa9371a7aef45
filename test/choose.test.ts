import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import {
  candidates,
  choose,
  type Knowledge,
  type LedgerStatus,
  type Mode,
  timeInName,
  versionOf,
} from '../src/bucket/choose.ts';
import type { BucketObject } from '../src/bucket/s3.ts';

const PREFIX = 'automations/inc/';
const NOON = new Date('2026-06-15T12:00:00+03:00');

/** An object named by its hour on 2026-06-15, last modified then too unless said otherwise. */
function at(hour: string, object: Partial<BucketObject> = {}): BucketObject {
  const key = `${PREFIX}2026-06-15T${hour}-00-00.csv`;
  return { key, etag: `etag-${hour}`, size: 100, lastModified: timeInName(key) ?? NOON, ...object };
}

const known = (statuses: Record<string, LedgerStatus> = {}, loadedThrough: string | null = null): Knowledge => ({
  looked: new Map(Object.entries(statuses).map(([hour, status]) => [versionOf(at(hour).key, `etag-${hour}`), status])),
  loadedThrough: loadedThrough === null ? null : (timeInName(at(loadedThrough).key) ?? null),
  now: NOON,
});

/** The decision, by the hours in the names. */
function decide(objects: readonly BucketObject[], knowledge: Knowledge, mode: Mode = 'newest') {
  const hour = ({ key }: BucketObject) => key.slice(PREFIX.length).slice(11, 13);
  const { take, superseded, unarchived, fromTheFuture } = choose(candidates(objects), knowledge, mode);
  return {
    take: take && hour(take),
    superseded: superseded.map(hour),
    unarchived: unarchived.map(hour),
    fromTheFuture: fromTheFuture.map(({ key }) => key.slice(PREFIX.length)),
  };
}

const nothing = { take: undefined, superseded: [], unarchived: [], fromTheFuture: [] };

describe('the time in a name', () => {
  test('is East Africa Time', () => {
    assert.equal(timeInName('automations/inc/2026-06-15T07-30-05.csv')?.toISOString(), '2026-06-15T04:30:05.000Z');
    assert.equal(timeInName('2026-06-15T00-00-00.CSV')?.toISOString(), '2026-06-14T21:00:00.000Z');
    assert.equal(timeInName('2026-06-15T07-30-05-again.csv')?.toISOString(), '2026-06-15T04:30:05.000Z');
  });

  test('is none where the name holds no valid one', () => {
    for (const name of [
      'latest.csv',
      '2026-02-30T07-00-00.csv',
      '2026-13-01T07-00-00.csv',
      '2026-06-15T24-00-00.csv',
      '2026-06-15T07-60-00.csv',
      '2026-06-15T07-00-00.txt',
      '2026-06-15T07-00-00.csv/x.csv',
    ]) {
      assert.equal(timeInName(name), undefined, name);
    }
  });
});

describe('snapshots among the objects', () => {
  test('are CSVs that are not empty', () => {
    const objects = [
      at('07'),
      at('08', { size: 0 }),
      at('09', { key: `${PREFIX}2026-06-15T09-00-00.csv.tmp` }),
      at('10', { key: PREFIX }),
    ];
    assert.deepEqual(
      candidates(objects).map(({ key }) => key),
      [at('07').key],
    );
  });

  test('are in the order of the times in their names, whatever LastModified says, which only breaks ties', () => {
    const early = at('07', { lastModified: NOON });
    const late = at('09', { lastModified: new Date(0) });
    const twin = { ...late, key: late.key.replace('.csv', '-b.csv'), lastModified: new Date(1) };
    const unnamed = { ...at('08'), key: `${PREFIX}manual.csv` };
    assert.deepEqual(
      candidates([twin, late, unnamed, early]).map(({ key }) => key),
      [early.key, unnamed.key, late.key, twin.key],
    );
  });
});

describe('choosing', () => {
  test('an empty folder is a normal nothing', () => {
    for (const mode of ['newest', 'backfill', 'force'] as const) assert.deepEqual(decide([], known(), mode), nothing);
  });

  test('takes the newest and passes over the others', () => {
    assert.deepEqual(decide([at('08'), at('07'), at('09')], known()), {
      ...nothing,
      take: '09',
      superseded: ['07', '08'],
    });
  });

  test('takes the oldest that is newer than what is loaded in a backfill, and passes over none of the newer ones', () => {
    const folder = [at('06'), at('07'), at('08'), at('09')];
    assert.deepEqual(decide(folder, known({}, '07'), 'backfill'), { ...nothing, take: '07', superseded: ['06'] });
    assert.deepEqual(decide(folder, known({ '07': 'done', '06': 'superseded' }, '07'), 'backfill'), {
      ...nothing,
      take: '08',
      unarchived: ['07'],
    });
  });

  test('never takes what is older than what is loaded, not even by force', () => {
    for (const mode of ['newest', 'backfill', 'force'] as const) {
      assert.equal(decide([at('07'), at('08')], known({}, '09'), mode).take, undefined, mode);
    }
  });

  test('takes a file again whose content was replaced', () => {
    assert.equal(decide([at('08', { etag: 'other' })], known({ '08': 'done' }, '08')).take, '08');
  });

  test('does not try again what failed or broke off: the next-newest that is newer than what is loaded', () => {
    for (const status of ['failed', 'partial'] as const) {
      assert.equal(
        decide([at('07'), at('08'), at('09')], known({ '09': status, '08': 'superseded' }, '07')).take,
        '08',
      );
      assert.equal(decide([at('07'), at('09')], known({ '09': status, '07': 'done' }, '07')).take, undefined);
    }
  });

  test('by force takes the newest, whatever became of it', () => {
    for (const status of ['done', 'failed', 'partial', 'unchanged'] as const) {
      assert.equal(decide([at('08'), at('09')], known({ '09': status }, '09'), 'force').take, '09');
    }
  });

  test('by force writes nothing down about the archive that it looks through', () => {
    const archived = at('06', { key: `${PREFIX}processed/2026-06-15T06-00-00.csv` });
    assert.deepEqual(choose(candidates([archived, at('08')]), known(), 'force').superseded, []);
  });

  test('archives what is loaded or unchanged and still lies there; partial and failed files stay', () => {
    const statuses = { '05': 'done', '06': 'unchanged', '07': 'partial', '08': 'failed', '09': 'superseded' } as const;
    const folder = Object.keys(statuses).map((hour) => at(hour));
    assert.deepEqual(decide(folder, known(statuses, '09')), { ...nothing, take: '09', unarchived: ['05', '06'] });
  });

  test('refuses a name from the future once, and takes the newest real one', () => {
    const future = at('09', { key: `${PREFIX}2062-06-15T09-00-00.csv` });
    const tomorrow = at('11', { key: `${PREFIX}2026-06-16T11-00-00.csv` });
    for (const mode of ['newest', 'backfill', 'force'] as const) {
      const { take, fromTheFuture } = choose(candidates([future, at('08')]), known({}, '07'), mode);
      assert.equal(take?.key, at('08').key);
      assert.deepEqual(
        fromTheFuture.map(({ key }) => key),
        [future.key],
      );
    }
    const knows: Knowledge = { ...known(), looked: new Map([[versionOf(future.key, future.etag), 'failed']]) };
    assert.deepEqual(choose(candidates([future]), knows, 'newest').fromTheFuture, []);
    assert.equal(choose(candidates([tomorrow]), known(), 'newest').take?.key, tomorrow.key);
  });
});
