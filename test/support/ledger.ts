/** What the ledger says of a version by its status, for tests of plans; test/repository/rules.test.ts holds it to what SQL says. */
import type { KnownVersion, LedgerStatus } from '../../src/bucket/plan.ts';

export const versionOfStatus = (status: LedgerStatus): KnownVersion => ({
  isOpen: status === 'superseded',
  isWhole: status === 'done' || status === 'unchanged',
  inFlight: status === 'staging' || status === 'loading' || status === 'finalizing',
});
