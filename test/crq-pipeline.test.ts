/** The suite of the pipeline once more, of CRQ: what a dataset is must not matter to it. */
process.env['TEST_DATASET'] = 'crq';
process.env['CRQ_ENABLED'] = 'true';

await import('./ingest.test.ts');
await import('./events.test.ts');
await import('./refused-rows.test.ts');
await import('./suspect-snapshots.test.ts');
await import('./changes.test.ts');
