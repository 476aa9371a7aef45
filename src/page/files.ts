/** The files that the page consists of, read once: the server has no others, so no path leads out of this list. */
import { readdir, readFile } from 'node:fs/promises';
import { basename, extname } from 'node:path';
import type { Db } from '../database/client.ts';
import { ExpectedError } from '../settings/errors.ts';
import type { PageSettings } from '../settings/settings.ts';
import { asMember, Refused } from './refused.ts';
import towns from './towns.json' with { type: 'json' };

export interface PageFile {
  readonly type: string;
  readonly body: Buffer;
}

const TYPES: Record<string, string> = {
  html: 'text/html',
  css: 'text/css',
  js: 'text/javascript',
  svg: 'image/svg+xml',
};

/** By path. `/context.json` is what the page is told once: who it acts as, where, and what to draw the map from. */
export async function pageFiles(db: Db, tiles: PageSettings): Promise<ReadonlyMap<string, PageFile>> {
  const own = new URL('./static/', import.meta.url);
  const urls = [
    ...(await readdir(own)).map((name) => new URL(name, own)),
    ...['leaflet.css', 'leaflet.js'].map((name) => new URL(import.meta.resolve(`leaflet/dist/${name}`))),
  ];
  const files = new Map<string, PageFile>();
  for (const url of urls) {
    const name = basename(url.pathname);
    const type = TYPES[extname(name).slice(1)];
    const path = name === 'index.html' ? '/' : `/${name}`;
    if (type) files.set(path, { type: `${type}; charset=utf-8`, body: await readFile(url) });
  }
  const context = { ...(await contextOf(db)), tiles: tiles.MAP_TILES_URL, attribution: tiles.MAP_TILES_ATTRIBUTION };
  return files.set('/context.json', { type: 'application/json', body: Buffer.from(JSON.stringify(context)) });
}

/** @throws ExpectedError with the GRANT where the person may not even read */
async function contextOf(db: Db): Promise<object> {
  const read = () =>
    db.query(
      `select current_user as role, current_database() as database,
         tickets.country_outline() as outline,
         (select coalesce(json_agg(json_build_array(cluster, (geom::point)[1], (geom::point)[0], 3) order by cluster), '[]')
          from tickets.geo_clusters where geom is not null and cluster <> all ($1)) as clusters`,
      [towns.towns.map(([name]) => name)], // a cluster may be called like its town
    );
  const { rows } = await asMember(db, 'tickets_reader', read).catch((error) => {
    if (!(error instanceof Refused)) throw error;
    throw new ExpectedError(`${error.message} The owner of the database can allow it: ${error.grant}`);
  });
  const { clusters, ...context } = rows[0];
  return { ...context, labels: [...towns.towns, ...clusters], source: towns.source };
}
