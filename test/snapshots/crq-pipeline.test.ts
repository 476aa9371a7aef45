/** The suite of the pipeline once more, of CRQ: which dataset it is must not matter to it. */
import { describe } from 'node:test';

process.env['TEST_DATASET'] = 'crq';
process.env['CRQ_ENABLED'] = 'true';

for (const subject of [
  'snapshots/loading',
  'bucket/which-file',
  'bucket/bucket-trouble',
  'snapshots/database-trouble',
  'tickets/events',
  'snapshots/refused-rows',
  'snapshots/suspect-snapshots',
  'snapshots/feed-of-changes',
  'jobs/retry',
  'operations/maintain',
])
  describe(subject, async () => {
    await import(`../${subject}.test.ts`);
  });
