/** Which servers this release is for: the oldest is what its SQL needs, the newest is what it was tested with. */
import type { Db } from './client.ts';

export const OLDEST_POSTGRES = 15;
export const NEWEST_POSTGRES = 18;
export const OLDEST_POSTGIS = '3.3';

export interface Server {
  /** As the server says it, e.g. `17.6 (Debian 17.6-1)`. */
  readonly version: string;
  readonly major: number;
  readonly encoding: string;
}

export async function readServer(db: Db): Promise<Server> {
  const { rows } = await db.query<Server>(
    `select current_setting('server_version') as version, current_setting('server_version_num')::integer / 10000 as major,
       current_setting('server_encoding') as encoding`,
  );
  return rows[0] as Server;
}

/** Why nothing can be done with this server, and what can be done about it; undefined where it can. */
export function serverObstacle({ version, major, encoding }: Server): { what: string; remedy: string } | undefined {
  if (major < OLDEST_POSTGRES)
    return {
      what: `This server is Postgres ${version}, which is too old`,
      remedy: `Use Postgres ${OLDEST_POSTGRES} to ${NEWEST_POSTGRES}.`,
    };
  if (encoding !== 'UTF8')
    return {
      what: `The encoding of this database is ${encoding}`,
      remedy: 'Create it with encoding UTF8: place names need that.',
    };
  return undefined;
}

/** What is to be said of a server that is newer than this release; undefined of others. */
export function newerServer({ version, major }: Server): { what: string; remedy: string } | undefined {
  if (major <= NEWEST_POSTGRES) return undefined;
  return {
    what: `Postgres ${version} is newer than this release, which was tested with ${OLDEST_POSTGRES} to ${NEWEST_POSTGRES}`,
    remedy: 'see whether a newer release of fleettickets names it; try the upgrade on a copy of the database first',
  };
}
