/** The files that the page consists of, read once: the server has no others, so no path leads out of this list. */
import { readFile } from 'node:fs/promises';
import { type Db, SchemaError } from '../database/client.ts';
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
const OWN = 'index.html style.css icon.svg page.js dom.js basemap.js map.js review.js place.js jobs.js'.split(' ');

/** By path. `/context.json` is what the page is told once: who it acts as, where, and what to draw the map from. */
export async function pageFiles(db: Db, tiles: PageSettings): Promise<ReadonlyMap<string, PageFile>> {
  const urls = [
    ...OWN.map((name) => new URL(`./static/${name}`, import.meta.url)),
    ...['leaflet.css', 'leaflet.js'].map((name) => new URL(import.meta.resolve(`leaflet/dist/${name}`))),
  ];
  const files = urls.map(async (url): Promise<[string, PageFile]> => {
    const [, name = '', extension = ''] = /([^/]+)\.(\w+)$/.exec(url.pathname) ?? [];
    const path = name === 'index' ? '/' : `/${name}.${extension}`;
    return [path, { type: `${TYPES[extension]}; charset=utf-8`, body: await readFile(url) }];
  });
  const told = await asMember(db, 'tickets_reader', () => contextOf(db)).catch((error) => {
    if (!(error instanceof Refused)) throw error;
    throw new ExpectedError(`${error.message} The owner of the database can allow it: ${error.grant}`);
  });
  const context = { ...told, tiles: tiles.MAP_TILES_URL, attribution: tiles.MAP_TILES_ATTRIBUTION };
  const body = Buffer.from(JSON.stringify(context));
  return new Map([...(await Promise.all(files)), ['/context.json', { type: 'application/json', body }]]);
}

/** @throws SchemaError where the database has not what the page reads */
async function contextOf(db: Db): Promise<object> {
  const { rows: schema } = await db.query(`select from pg_class where oid = to_regclass('tickets.geo_decisions')`);
  if (!schema[0])
    throw new SchemaError('The schema of this database is not that of this release. Run: fleettickets migrate');
  const { rows } = await db.query(
    `select current_user as role, current_database() as database,
       tickets.country_outline() as outline,
       (select coalesce(json_agg(json_build_array(cluster, (geom::point)[1], (geom::point)[0], 3) order by cluster), '[]')
        from tickets.geo_clusters where geom is not null and cluster <> all ($1)) as clusters`,
    [towns.towns.map(([name]) => name)], // a cluster may be called like its town
  );
  const { clusters, ...context } = rows[0];
  return { ...context, labels: [...towns.towns, ...clusters], source: towns.source };
}
