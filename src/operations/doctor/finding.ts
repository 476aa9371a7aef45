/** What the doctor finds: one check, its state, what was seen, and the remedy for what is wrong. */
import { messageOf } from '../../settings/errors.ts';
import { hideSecrets } from '../../settings/secrets.ts';

export interface Finding {
  readonly check: string;
  readonly state: 'ok' | 'warning' | 'failed' | 'skipped';
  readonly detail: string;
  /** What to do; for a warning and a failure. */
  readonly remedy?: string;
}

export type Verdict = Omit<Finding, 'check'>;

export const ok = (detail: string): Verdict => ({ state: 'ok', detail });
export const skipped = (detail: string): Verdict => ({ state: 'skipped', detail });
export const failed = (detail: string, remedy: string): Verdict => ({ state: 'failed', detail, remedy });
export const warning = (detail: string, remedy: string): Verdict => ({ state: 'warning', detail, remedy });

/** Runs one check; what it throws becomes a finding. */
export const check = async (name: string, look: () => Promise<Verdict> | Verdict): Promise<Finding> => ({
  check: name,
  ...(await attempt(look)),
});

export async function attempt(look: () => Promise<Verdict> | Verdict): Promise<Verdict> {
  try {
    return await look();
  } catch (error) {
    return failed(hideSecrets(messageOf(error)), 'the message above says what was tried; the other checks may say why');
  }
}
