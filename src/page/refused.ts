/** What the page answers where it does not do what it was asked: a status, words for a person, and the GRANT that is missing. */
import type { Db } from '../database/client.ts';
import type { Role } from '../database/roles.ts';
import { hideSecrets } from '../settings/secrets.ts';

export class Refused extends Error {
  readonly status: number;
  /** A statement for the database's owner. */
  readonly grant: string | undefined;

  constructor(status: number, message: string, grant?: string) {
    super(message);
    this.status = status;
    this.grant = grant;
  }
}

/** By SQLSTATE, or by its class. 55000 is tickets.undo_decision's: the place was changed since. */
const STATUSES: Record<string, number> = { 55000: 409, P0002: 404, P0001: 422, 22: 422, 23: 422, '08': 503, 57: 503 };

/** Any error as a refusal: what Postgres says, with its hint; what nobody expected is a 500. */
export function refusalOf(error: unknown): Refused {
  if (error instanceof Refused) return error;
  const { code = '', message, hint } = error as { code?: string; message: string; hint?: string };
  const isCutOff = /^E[A-Z]+$/.test(code) || message.startsWith('Connection terminated');
  const status = isCutOff ? 503 : (STATUSES[code] ?? STATUSES[code.slice(0, 2)] ?? 500);
  const words = status === 503 ? ['The database cannot be reached:', message] : [message, hint];
  return new Refused(status, hideSecrets(words.filter(Boolean).join(' ')));
}

/** Runs what takes `role`. @throws Refused with the GRANT where the person's role is no member of it */
export async function asMember<T>(db: Db, role: Role, run: () => Promise<T>): Promise<T> {
  try {
    return await run();
  } catch (error) {
    const { code, message } = error as { code?: string; message: string };
    if (code !== '42501') throw error;
    // A member who lacks a right all the same lacks it on something that is not ours, a tracker's table say.
    const { rows } = await db.query(
      `select current_user as who, (
         select format('grant %I to %I;', rolname, current_user) from pg_roles
         where rolname = $1 and not pg_has_role(oid, 'usage')
       ) as remedy`,
      [role],
    );
    throw new Refused(403, `Your role ${rows[0].who} may not do this: ${message}.`, rows[0].remedy ?? undefined);
  }
}
