/** The files that the page consists of, read once: the server has no other, so no path leads out of this list. */
import { readFile } from 'node:fs/promises';
import { type Db, SchemaError } from '../database/client.ts';
import type { PageSettings } from '../settings/settings.ts';

export interface PageFile {
  readonly type: string;
  readonly content: Buffer;
}

const TYPES: Record<string, string> = { html: 'text/html', css: 'text/css', js: 'text/javascript', svg: 'image/svg+xml' };
const OWN = ['index.html', 'style.css', 'icon.svg', 'page.js', 'basemap.js', 'map.js', 'review.js', 'jobs.js'];
const LEAFLET = ['leaflet.css', 'leaflet.js'];

/** By path. `/context.json` is what the page is told once: who it acts as, where, and what to draw the map from. */
export async function pageFiles(db: Db, tiles: PageSettings): Promise<ReadonlyMap<string, PageFile>> {
  const locations: [string, string | URL][] = [
    ...OWN.map((name): [string, URL] => [name, new URL(`./static/${name}`, import.meta.url)]),
    ...LEAFLET.map((name): [string, URL] => [name, new URL(import.meta.resolve(`leaflet/dist/${name}`))]),
  ];
  const files = await Promise.all(
    locations.map(async ([name, location]): Promise<[string, PageFile]> => {
      const type = `${TYPES[name.slice(name.lastIndexOf('.') + 1)]}; charset=utf-8`;
      return [name === 'index.html' ? '/' : `/${name}`, { type, content: await readFile(location) }];
    }),
  );
  const context = Buffer.from(JSON.stringify({ ...(await contextOf(db)), tiles: tiles.MAP_TILES_URL, attribution: tiles.MAP_TILES_ATTRIBUTION }));
  return new Map([...files, ['/context.json', { type: 'application/json', content: context }]]);
}

/** @throws SchemaError where the database has not what the page reads */
async function contextOf(db: Db): Promise<object> {
  const { rows: schema } = await db.query(`select to_regclass('tickets.geo_decisions') is not null as current`);
  if (!schema[0]?.current) {
    throw new SchemaError('The schema of this database is not that of this release. Run: fleettickets migrate');
  }
  const towns = JSON.parse(await readFile(new URL('./towns.json', import.meta.url), 'utf8'));
  const { rows } = await db.query(
    `select current_user as role, current_database() as database,
       (select st_asgeojson(outline, 4)::json from tickets.geo_country limit 1) as outline,
       (select coalesce(json_agg(json_build_array(cluster, st_y(geom), st_x(geom), 3) order by cluster), '[]')
        from tickets.geo_clusters where geom is not null) as clusters`,
  );
  const { clusters, ...context } = rows[0];
  return { ...context, towns: [...towns.towns, ...clusters], source: towns.source };
}
