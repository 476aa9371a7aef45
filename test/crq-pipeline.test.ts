/** The suite of the pipeline once more, of CRQ: which dataset it is must not matter to it. */
import { describe } from 'node:test';

process.env['TEST_DATASET'] = 'crq';
process.env['CRQ_ENABLED'] = 'true';

for (const subject of [
  'loading',
  'which-file',
  'bucket-trouble',
  'database-trouble',
  'events',
  'refused-rows',
  'suspect-snapshots',
  'changes',
  'retry',
  'maintain',
])
  describe(subject, async () => {
    await import(`./${subject}.test.ts`);
  });
