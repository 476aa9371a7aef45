/**
 * The country of the demo: real Kenyan towns and estates (kenya-places.csv states source and licence), the network clusters of an
 * imaginary operator over them, and invented premises (courts, roads, schools) inside each cluster at fixed coordinates near real estates.
 * The feed writes these places in its tickets and the stand-in provider knows them, so that a pin can be checked against the truth.
 */
import { readFileSync } from 'node:fs';
import { fraction } from './chance.ts';

/** What a place is, from vague to precise. */
export type PlaceKind = 'city' | 'neighbourhood' | 'street' | 'building';

/** WGS 84 degrees. */
export type Point = { lat: number; lng: number };

export type Place = Point & {
  name: string;
  kind: PlaceKind;
  /** The estate that a street or a building stands in; otherwise null. */
  area: string | null;
  /** The town it belongs to; a town's own name. */
  town: string;
  county: string;
};

export type Cluster = {
  name: string;
  /** As the export writes it, in mixed case. */
  region: string;
  /** Share of the tickets, relative to the other clusters. */
  weight: number;
  /** Null for a cluster that is named after no place on earth. */
  centre: Place | null;
  /** Places whose tickets belong to this cluster, the busiest first. */
  places: readonly Place[];
};

/** Geodesic enough for a demo: kilometres on a sphere. */
export function kilometres(a: Point, b: Point): number {
  const rad = Math.PI / 180;
  const h =
    Math.sin(((b.lat - a.lat) * rad) / 2) ** 2 +
    Math.cos(a.lat * rad) * Math.cos(b.lat * rad) * Math.sin(((b.lng - a.lng) * rad) / 2) ** 2;
  return 2 * 6371 * Math.asin(Math.sqrt(h));
}

/** Towns and estates; among namesakes the most important first. */
export const settlements: readonly Place[] = readFileSync(new URL('./kenya-places.csv', import.meta.url), 'utf8')
  .split('\n')
  .filter((line) => line !== '' && !line.startsWith('#') && !line.startsWith('name,'))
  .map((line) => {
    const [name = '', lat, lng, county = '', town = ''] = line.split(',');
    const kind = town === '' ? 'city' : 'neighbourhood';
    return { name, lat: Number(lat), lng: Number(lng), county, kind, area: null, town: town || name };
  });

/** `cluster weight` or `cluster@town weight` (an estate of that town), by region. */
const network: Record<string, string> = {
  Nairobi:
    'Westlands@Nairobi 6, Kilimani@Nairobi 7, Lavington@Nairobi 4, Karen@Nairobi 3, Parklands@Nairobi 4, Runda@Nairobi 2, ' +
    'South B@Nairobi 3, South C@Nairobi 3, Embakasi@Nairobi 5, Donholm@Nairobi 3, Buruburu@Nairobi 3, Umoja@Nairobi 3, ' +
    'Kasarani@Nairobi 5, Roysambu@Nairobi 4, Githurai@Nairobi 2, Kahawa West@Nairobi 2, Eastleigh@Nairobi 2, ' +
    "Utawala@Nairobi 2, Kayole@Nairobi 1, Kawangware@Nairobi 1, Lang'ata@Nairobi 3, Ruaka@Nairobi 4, Upper Hill@Nairobi 2",
  'NAIROBI METRO':
    'Kitengela 4, Ongata Rongai 4, Ngong 2, Kiambu 2, Kikuyu 2, Limuru 1, Ruiru 3, Juja 2, Thika 4, Athi River 2, Syokimau@Mlolongo 2',
  Coast: 'Mombasa 4, Nyali@Mombasa 3, Likoni@Mombasa 1, Bamburi@Mombasa 2, Malindi 1, Kilifi 1, Ukunda 1',
  'Rift valley': 'Nakuru 5, Eldoret 4, Naivasha 2, Kericho 1, Kitale 1',
  western: 'Kisumu 5, Kakamega 1, Bungoma 1, Kisii 2',
  'Mount Kenya': 'Nyeri 1, Nanyuki 1, Meru 1, Embu 1, Machakos 1',
};

const premisesPerCluster = 40;
const firstNames = (
  'Rose Acacia Jacaranda Baobab Palm Sunrise Uhuru Jamhuri Amani Tumaini Baraka Neema Imani Upendo Furaha Twiga Chui Ndovu Kifaru ' +
  'Tausi Mwangaza Muungano Harambee Azimio Nguzo Makao Malaika Olive Cedar Savannah Highview Greenpark Riverside Hillcrest Lakeview ' +
  'Oakwood Kijani Bahari Wananchi Maisha Safari Jabali Kilele Nyota Mwezi Zawadi Hekima Busara Ushirika Shujaa Bougainvillea Cypress ' +
  'Eucalyptus Flamingo Heron Ibis Kingfisher Sunbird Weaver Zebra Impala Oryx Kudu Topi Swala Nyati Duma Kongoni Mbuni Kanga ' +
  'Korongo Njiwa Mkuyu Mwembe Mnazi Mkoko Mpingo Muringa Mvule Msitu Ziwa Mlima Bonde Chemchemi Daraja Soko Bandari Jua Upepo Asubuhi ' +
  'Tunza Faraja Raha Utu Haki Ukweli Ujenzi Elimu Afya Heshima Nidhamu Subira'
).split(' ');
const kindOf: Record<string, PlaceKind> = {
  ...{
    Court: 'building',
    Heights: 'building',
    Gardens: 'building',
    Villas: 'building',
    Plaza: 'building',
    Mall: 'building',
  },
  ...{ School: 'building', Hospital: 'building', Road: 'street', Lane: 'street', Drive: 'street', Avenue: 'street' },
  Estate: 'neighbourhood',
};
const secondNames = Object.keys(kindOf);

/** A cluster that no geocoder can know: its tickets stay off the map, and an operator must place it by hand. */
const nowhere: Cluster = { name: 'Backbone East', region: 'Nairobi', weight: 0.3, centre: null, places: [] };

export const clusters: readonly Cluster[] = [
  ...Object.entries(network).flatMap(([region, members]) => members.split(', ').map((text) => cluster(region, text))),
  nowhere,
];

/** Every place that the feed can mean. */
export const allPlaces: readonly Place[] = [...settlements, ...clusters.flatMap((c) => c.places.filter((p) => p.area))];

function cluster(region: string, text: string): Cluster {
  const [, name = '', town, weight] = /^(.+?)(?:@(.+?))? ([\d.]+)$/.exec(text) ?? [];
  const centre = settlements.find((p) => p.name === name && (town ? p.town === town : p.kind === 'city'));
  if (!centre) throw new Error(`kenya-places.csv has no ${text}`);
  const areas = settlements
    .filter((p) => p !== centre && p.kind === 'neighbourhood' && p.town === centre.town && kilometres(p, centre) < 8)
    .sort((a, b) => kilometres(a, centre) - kilometres(b, centre))
    .slice(0, 6);
  const around = [centre, ...areas];
  return { name, region, weight: Number(weight), centre, places: [...around, ...premises(name, around)] };
}

/** Invented premises: a fixed name and a fixed point within 1 km of an estate of the cluster. The same name recurs in other clusters. */
function premises(cluster: string, areas: readonly Place[]): Place[] {
  const found = new Map<string, Place>();
  for (let n = 0; found.size < premisesPerCluster; n++) {
    const pick = <T>(what: string, items: readonly T[]): T =>
      items[Math.floor(fraction(what, cluster, n) * items.length)] as T;
    const second = pick('second', secondNames);
    const kind = kindOf[second] as PlaceKind;
    const name = `${pick('first', firstNames)} ${second}`;
    const area = pick('area', areas);
    // The coast runs north to south: there, premises lie west of the estate's centre, not in the ocean.
    const coastal = area.lng > 39.5;
    const lat = area.lat + (fraction('lat', cluster, n) - 0.5) * (coastal ? 0.008 : 0.016);
    const lng =
      area.lng + (coastal ? -0.008 * fraction('lng', cluster, n) : (fraction('lng', cluster, n) - 0.5) * 0.016);
    const round = (degrees: number) => Math.round(degrees * 1e6) / 1e6;
    found.set(name, {
      name,
      kind,
      area: area.name,
      town: area.town,
      county: area.county,
      lat: round(lat),
      lng: round(lng),
    });
  }
  return [...found.values()];
}
