import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { type CleanRecord, cleanerFor as cleanerBelow } from '../../src/csv/clean.ts';
import { readHeader } from '../../src/csv/header.ts';
import { RefusedFileError } from '../../src/csv/refused.ts';

const cleanerFor = (header: string[]) => cleanerBelow(readHeader(header));

/** Cleans one record given as an object; its keys are the header. */
const clean = (record: Record<string, string>): CleanRecord => cleanerFor(Object.keys(record))(Object.values(record));

const rawOf = (record: CleanRecord): Record<string, string> =>
  record.kind === 'ticket' ? JSON.parse(record.raw) : assert.fail(JSON.stringify(record));

describe('cleaning a record', () => {
  test('keeps values as they stand, an empty one as an empty text', () => {
    const record = {
      ticket_id: 'WOT0000001',
      owner: '',
      description: '  a\n "b" ',
      mttr: '1.50',
      is_actionable: 'TRUE',
    };
    assert.deepEqual(rawOf(clean(record)), record);
  });

  test('lowers region, raises raw_status, trims ticket_id, and nothing else', () => {
    const record = {
      ticket_id: ' WOT0000001\t',
      region: 'Coast North',
      raw_status: 'pending Customer',
      normalized_status: ' Open ',
    };
    assert.deepEqual(rawOf(clean(record)), {
      ticket_id: 'WOT0000001',
      region: 'coast north',
      raw_status: 'PENDING CUSTOMER',
      normalized_status: ' Open ',
    });
  });

  test("drops the export's bookkeeping, and only that", () => {
    const dropped = [
      'week_start',
      'week_end',
      'source_s3_bucket',
      'source_s3_key',
      'source_s3_anything',
      'source_snapshot_id',
      'department',
      'source_type',
    ];
    const kept = ['source_created_at', 'source_updated_at', 'departments', 'week_starts', 'my_source_type'];
    const record = Object.fromEntries(['ticket_id', ...dropped, ...kept].map((name) => [name, 'x']));
    assert.deepEqual(Object.keys(rawOf(clean(record))).sort(), ['ticket_id', ...kept].sort());
  });

  test('drops alarms, no matter who writes true how', () => {
    for (const yes of ['true', 'TRUE', ' True ', 't', 'yes', 'Y', '1']) {
      assert.equal(clean({ ticket_id: 'WOT1', is_alarm: yes }).kind, 'alarm', yes);
    }
    for (const no of ['false', '', '0', 'no', 'maybe'])
      assert.equal(clean({ ticket_id: 'WOT1', is_alarm: no }).kind, 'ticket', no);
    assert.equal(clean({ ticket_id: 'WOT1' }).kind, 'ticket');
  });

  test('knows the sentinel before it counts fields', () => {
    const of = cleanerFor(['ticket_id', 'is_alarm', 'region']);
    assert.equal(of(['EXPORT STOPPED at row 5000']).kind, 'sentinel');
    assert.equal(of(['EXPORT STOPPED', 'true', '']).kind, 'sentinel');
    assert.equal(of(['WOT1 EXPORT STOPPED', '', '']).kind, 'ticket');
    assert.deepEqual(of(['WOT1', '']), { kind: 'reject', reason: '2 fields where the header has 3' });
  });

  test('takes header names without blanks, keeps a column that stands twice, passes over one without a name', () => {
    const record = cleanerFor([' ticket_id ', 'note', '', 'note', 'note_2', 'note'])(['WOT1', 'a', 'b', 'c', 'd', 'e']);
    const { ticket_id, ...notes } = rawOf(record);
    assert.equal(ticket_id, 'WOT1');
    assert.deepEqual(Object.values(notes).sort(), ['a', 'c', 'd', 'e']);
    assert.equal(notes.note, 'a');
  });

  test('refuses a header without ticket_id', () => {
    assert.throws(() => cleanerFor(['Ticket', 'region']), RefusedFileError);
  });
});
