import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { comparePositions, snapshotFiles, timeInName, versionOf } from '../../src/bucket/files.ts';
import {
  type Knowledge,
  type KnownVersion,
  type LedgerStatus,
  type Mode,
  planSnapshots,
} from '../../src/bucket/plan.ts';
import type { BucketObject } from '../../src/bucket/s3.ts';
import { versionOfStatus } from '../support/ledger.ts';

const PREFIX = 'automations/inc/';
const NOON = new Date('2026-06-15T12:00:00+03:00');
const MODES = ['newest', 'backfill', 'force'] as const;

/** An object named by its hour on 2026-06-15, last modified then too unless said otherwise. */
function at(hour: string, object: Partial<BucketObject> = {}): BucketObject {
  const key = `${PREFIX}2026-06-15T${hour}-00-00.csv`;
  return { key, etag: `etag-${hour}`, size: 100, lastModified: timeInName(key) ?? NOON, ...object };
}

const position = (object: BucketObject) => ({ ...object, snapshotAt: timeInName(object.key) ?? object.lastModified });

/** @param statuses by hour @param mark the hour that is the high-water mark */
function known(statuses: Record<string, LedgerStatus> = {}, mark: string | null = null): Knowledge {
  const versions = Object.entries(statuses).map(([hour, status]): [string, KnownVersion] => [
    versionOf(at(hour)),
    versionOfStatus(status),
  ]);
  return {
    now: NOON,
    versions: new Map(versions),
    unarchived: [],
    highWaterMark: mark === null ? null : position(at(mark)),
    feed: 'snapshots',
    blocker: null,
    loadedEtag: null,
    held: null,
  };
}

const shortKey = (key: string) => key.replace(`${PREFIX}2026-06-15T`, '').replace('-00-00.csv', '');

/** The plan in short: `load 09`, `supersede 08`. */
const planned = (objects: readonly BucketObject[], knowledge: Knowledge, mode: Mode = 'newest') =>
  planSnapshots(snapshotFiles(objects), knowledge, mode).map(({ action, file }) => `${action} ${shortKey(file.key)}`);

describe('the time in a name', () => {
  for (const [name, time] of [
    ['automations/inc/2026-06-15T07-30-05.csv', '2026-06-15T04:30:05.000Z'],
    ['2026-06-15T00-00-00.CSV', '2026-06-14T21:00:00.000Z'],
    ['2026-06-15T07-30-05-again.csv', '2026-06-15T04:30:05.000Z'],
    ['2026-06-15T07-30-05 (1).csv', '2026-06-15T04:30:05.000Z'],
    ['2026-06-15T07-30-05.120.csv', '2026-06-15T04:30:05.120Z'],
    ['2026-06-15T07-30-05.870456.csv', '2026-06-15T04:30:05.870Z'],
    ['2026-06-15T07-30-05-120Z.csv', '2026-06-15T04:30:05.120Z'],
    ['2026-06-15T07-30-05.5.csv', '2026-06-15T04:30:05.500Z'],
    ['2026-06-15T07-30-05,87 (1).csv', '2026-06-15T04:30:05.870Z'],
    ['2026-06-15T07-30-05.1234567890.csv', '2026-06-15T04:30:05.000Z'],
    ['2026-06-15T07-30-05-2.csv', '2026-06-15T04:30:05.000Z'],
    ['2026-06-15T07-30-05.csv.gz', '2026-06-15T04:30:05.000Z'],
  ] as const) {
    test(`is East Africa Time: ${name}`, () => assert.equal(timeInName(name)?.toISOString(), time));
  }

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

describe('the files of a folder', () => {
  test('are CSVs that are not empty; what is nearly one is named with a reason; the rest is left out', () => {
    const named = (name: string, object: Partial<BucketObject> = {}) => at('09', { key: PREFIX + name, ...object });
    const { files, ignored } = snapshotFiles([
      at('07'),
      at('08', { size: 0 }),
      named('2026-06-15T09-00-00.csv.gz'),
      named('2026-06-15T09-00-00.csv.tmp'),
      named('export.xlsx'),
      named('readme.md'),
      named(''),
    ]);
    assert.deepEqual(
      files.map(({ key }) => key.slice(PREFIX.length)),
      ['2026-06-15T07-00-00.csv', '2026-06-15T09-00-00.csv.gz'],
    );
    assert.deepEqual(
      ignored.map(({ file, reason }) => [file.key.slice(PREFIX.length), /empty|no \.csv/.exec(reason)?.[0]]),
      [
        ['2026-06-15T08-00-00.csv', 'empty'],
        ['2026-06-15T09-00-00.csv.tmp', 'no .csv'],
        ['export.xlsx', 'no .csv'],
      ],
    );
  });

  test('that were meant as CSVs and are none by their names are named, and nothing else is', () => {
    const named = (name: string) => at('09', { key: PREFIX + name });
    const names = (found: readonly string[]) =>
      snapshotFiles(found.map(named)).ignored.map(({ file }) => file.key.slice(PREFIX.length));
    const meant = [
      ...[
        'x.csv~',
        'x.csv.part',
        'x.csv.bz2',
        'x.csv (1)',
        'x.cvs',
        'x.parquet',
        'x.ndjson',
        'x.htm',
        'x.gz',
        'X.XLSX',
      ],
      ...['2026-06-15T09-00-00', '2026-06-15T09-00-00csv', '2026-06-15T09:00:00.dat', '2026-06-15 09-00-00.out'],
    ].sort();
    assert.deepEqual(names(meant).sort(), meant);
    const others = ['readme.md', 'x.probe', '.keep', '2026-06-15', '2026-06-15T09-00-00.csv', 'x.CSV.GZ'];
    assert.deepEqual(names(others), []);
  });

  test('are in the order of the times in their names, then LastModified, then key by its bytes', () => {
    const early = at('07', { lastModified: NOON });
    const late = at('09', { lastModified: new Date(0) });
    const copy = { ...late, key: late.key.replace('.csv', ' (1).csv'), lastModified: new Date(1) };
    const twin = { ...copy, key: late.key.replace('.csv', ' (2).csv') };
    const fraction = { ...late, key: late.key.replace('.csv', '.120.csv') };
    const unnamed = { ...at('08'), key: `${PREFIX}manual.csv` };
    assert.deepEqual(
      snapshotFiles([fraction, twin, copy, late, unnamed, early]).files.map(({ key }) => key),
      [early, unnamed, late, copy, twin, fraction].map(({ key }) => key),
    );
    const astral = { ...position(late), key: '\u{1F600}.csv' };
    assert.ok(comparePositions({ ...astral, key: '\uFFFD.csv' }, astral) < 0, 'as Postgres orders under "C"');
  });
});

describe('the plan of a look', () => {
  const rows: [what: string, objects: BucketObject[], knowledge: Knowledge, mode: Mode, expected: string[]][] = [
    [
      'takes the newest and passes over the others',
      [at('08'), at('07'), at('09')],
      known(),
      'newest',
      ['supersede 07', 'supersede 08', 'load 09'],
    ],
    [
      'of a backfill takes the oldest above the mark and passes over those below',
      [at('06'), at('07'), at('08')],
      known({}, '07'),
      'backfill',
      ['supersede 06', 'load 07'],
    ],
    [
      'of a backfill goes on with the next',
      [at('06'), at('07'), at('08'), at('09')],
      known({ '07': 'done', '06': 'superseded' }, '07'),
      'backfill',
      ['archive 07', 'load 08'],
    ],
    [
      'takes a file again whose content was replaced',
      [at('08', { etag: 'other' })],
      known({ '08': 'done' }, '08'),
      'newest',
      ['load 08'],
    ],
    [
      'takes a file again that was written anew with the bytes it had before the last',
      [at('08', { lastModified: NOON })],
      known({ '08': 'done' }, '08'),
      'newest',
      ['load 08'],
    ],
    [
      'does not try again what failed: the next-newest above the mark',
      [at('07'), at('08'), at('09')],
      known({ '09': 'failed', '08': 'superseded' }, '07'),
      'newest',
      ['supersede 07', 'load 08'],
    ],
    ['does not try again what is partial', [at('09')], known({ '09': 'partial' }, '09'), 'newest', []],
    ['leaves a held snapshot to a person', [at('09')], known({ '09': 'held' }, '08'), 'newest', []],
    [
      'takes a newer file beside a held one',
      [at('09'), at('10')],
      known({ '09': 'held' }, '08'),
      'newest',
      ['load 10'],
    ],
    [
      'by force takes the newest, whatever became of it',
      [at('08'), at('09')],
      known({ '09': 'failed' }, '09'),
      'force',
      ['load 09'],
    ],
    [
      'by force writes nothing down about the archive that it looks through',
      [at('06', { key: `${PREFIX}processed/2026-06-15T06-00-00.csv` }), at('08')],
      known(),
      'force',
      ['load 08'],
    ],
    [
      'archives what is loaded or unchanged and still lies there; partial and failed files stay',
      ['05', '06', '07', '08', '09'].map((hour) => at(hour)),
      known({ '05': 'done', '06': 'unchanged', '07': 'partial', '08': 'failed', '09': 'superseded' }, '09'),
      'newest',
      ['archive 05', 'archive 06', 'load 09'],
    ],
    [
      'completes the archiving of what was moved, though nobody wrote that down, and of nothing twice',
      [at('06'), at('09')],
      { ...known({ '06': 'done' }, '06'), unarchived: [position(at('05')), position(at('06'))] },
      'newest',
      ['archive 06', 'archive 05', 'load 09'],
    ],
    [
      'moves no other version that stands at the key of what was loaded, even with the same bytes',
      [at('08', { lastModified: NOON }), at('09')],
      { ...known({ '08': 'done' }, '08'), unarchived: [position(at('08'))] },
      'newest',
      ['write off 08', 'supersede 08', 'load 09'],
    ],
    ['records what is nearly a CSV once', [at('09', { size: 0 })], known(), 'newest', ['ignore 09']],
    ['says nothing twice about it', [at('09', { size: 0 })], known({ '09': 'failed' }), 'newest', []],
  ];
  for (const [what, objects, knowledge, mode, expected] of rows) {
    test(what, () => assert.deepEqual(planned(objects, knowledge, mode), expected));
  }

  for (const mode of MODES) {
    test(`of an empty folder is nothing (${mode})`, () => assert.deepEqual(planned([], known(), mode), []));

    test(`never loads what is below the high-water mark (${mode})`, () => {
      const steps = planned([at('07'), at('08')], known({}, '09'), mode);
      assert.deepEqual(
        steps.filter((step) => step.startsWith('load')),
        [],
      );
    });

    test(`orders two files of one second by LastModified (${mode})`, () => {
      const first = at('08');
      const second = at('08', { key: first.key.replace('.csv', ' (1).csv'), lastModified: NOON });
      const above = { ...known(), highWaterMark: position(second) };
      const steps = planSnapshots(snapshotFiles([first, second]), above, mode);
      assert.ok(!steps.some(({ action, file }) => action === 'load' && file.key === first.key));
    });

    test(`refuses a file ahead of the clock until its time has come, at each look anew (${mode})`, () => {
      const ahead = at('12', { key: `${PREFIX}2026-06-15T12-16-00.csv`, etag: 'ahead' });
      const near = at('11');
      const refused: Knowledge = {
        ...known({}, '10'),
        versions: new Map([[versionOf(ahead), versionOfStatus('failed')]]),
      };
      for (const knowledge of [known({}, '10'), refused]) {
        assert.deepEqual(planned([ahead, near], knowledge, mode), [`postpone ${shortKey(ahead.key)}`, 'load 11']);
      }
      const later: Knowledge = {
        ...refused,
        now: new Date(NOON.getTime() + 2 * 60_000),
        versions: new Map([[versionOf(ahead), { ...versionOfStatus('failed'), isOpen: true }]]),
      };
      assert.equal(planned([ahead], later, mode).at(-1), `load ${shortKey(ahead.key)}`);
    });
  }

  test('allows clocks to differ by a quarter of an hour', () => {
    const ahead = at('12', { key: `${PREFIX}2026-06-15T12-15-00.csv` });
    assert.deepEqual(planned([ahead], known()), [`load ${shortKey(ahead.key)}`]);
  });

  test('marks the bytes of the last load as unchanged, except by force', () => {
    const knowledge = { ...known({ '08': 'done' }, '08'), loadedEtag: 'etag-09' };
    assert.deepEqual(planned([at('09')], knowledge), ['mark unchanged 09']);
    assert.deepEqual(planned([at('09')], knowledge, 'force'), ['load 09']);
    assert.deepEqual(planned([at('09', { etag: '' })], { ...knowledge, loadedEtag: '' }), ['load 09']);
  });

  test('leaves the bytes of a held snapshot alone for an hour, or for good where only a person can decide', () => {
    const held = { etag: 'etag-10', judgedAgainAt: position(at('10')).snapshotAt };
    const again = at('10');
    const sooner = { ...again, key: again.key.replace('10-00', '09-30') };
    assert.deepEqual(planned([sooner], { ...known({}, '08'), held }), [`leave held ${shortKey(sooner.key)}`]);
    assert.deepEqual(planned([again], { ...known({}, '08'), held }), ['load 10']);
    const forGood = { ...known({}, '08'), held: { ...held, judgedAgainAt: null } };
    assert.deepEqual(planned([again], forGood), ['leave held 10']);
    assert.deepEqual(planned([again], forGood, 'force'), ['load 10']);
  });

  test('gives each step a reason in words', () => {
    const future = at('23');
    const objects = [at('06'), at('07'), at('08'), future, at('05', { size: 0 })];
    const steps = planSnapshots(snapshotFiles(objects), known({ '06': 'done' }, '06'), 'newest');
    assert.deepEqual(
      steps.map(({ action, reason }) => [action, reason.slice(0, 40)]),
      [
        ['archive', 'it is loaded, and its archiving was cut '],
        ['postpone', 'It is future-dated: its time is 2026-06-'],
        ['ignore', 'The file is empty (0 bytes): nothing to '],
        ['supersede', `${at('08').key} is newer`.slice(0, 40)],
        ['load', 'it is the newest that is not loaded'],
      ],
    );
  });
});
