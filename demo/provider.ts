/**
 * A stand-in for a geocoding provider, on loopback: LocationIQ's `/v1/search` and `/v1/balance`, and Nominatim's `/search`.
 * It knows the places of places.ts and behaves as badly as the real ones do: of namesakes it names the most important first, wherever one
 * asked from; it falls back to the estate or town; some premises it does not know, some it puts into another city; who calls too fast gets 429.
 * The same question always gets the same answer. It is no geocoder: it matches whole names, and its importance is invented.
 */
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { fraction, hash } from './chance.ts';
import { allPlaces, clusters, kilometres, type Place, type PlaceKind, type Point } from './places.ts';

export type ProviderOptions = {
  /** Calls allowed in any one second; the next is answered 429. Only LocationIQ's paths are limited. */
  rate?: number;
  /** Calls answered in a day (UTC), as /v1/balance tells; the next is answered 429. */
  perDay?: number;
  /** The key it accepts. */
  key?: string;
  /** Milliseconds; a test passes its own clock. */
  now?: () => number;
};

/** One call as the provider saw it. The key is not kept. */
export type Call = { at: Date; path: string; query: string; status: number; results: number };

export type Provider = {
  /** Of the server, without a path: LocationIQ's API is `${url}/v1/search`, Nominatim's `${url}/search`. */
  url: string;
  key: string;
  calls: readonly Call[];
  /** Ends the connections and the server. */
  close: () => Promise<void>;
};

/** A place as the provider answers it. */
type Match = { place: Place; code: 'exact' | 'approximate' | 'fallback' };
type Answer = { status: number; body: unknown };

const licence = 'Demo data: GeoNames (CC BY 4.0) and invented premises';
/** Of the invented premises: what the provider does not know, and what it puts elsewhere. */
const unknownShare = 0.1;
const misplacedShare = 0.03;
/** How often the most important of the namesakes goes before the nearest, among streets and buildings. */
const importantShare = 0.15;

/** Starts the stand-in on a free port of 127.0.0.1. */
export async function startProvider(options: ProviderOptions = {}): Promise<Provider> {
  const { rate = 2, perDay = 5000, key = 'demo-key', now = Date.now } = options;
  const calls: Call[] = [];
  let lastSecond: number[] = [];
  let today = 0;
  let left = perDay;

  function locationIq(path: string, asked: URLSearchParams): Answer {
    if (!asked.get('key') || asked.get('key') !== key) return refuse(401, 'Invalid key');
    const time = now();
    const day = Math.floor(time / 86_400_000);
    if (day !== today) [today, left] = [day, perDay];
    if (path === '/v1/balance') return { status: 200, body: { status: 'ok', balance: { day: left, bonus: 0 } } };
    if (left <= 0) return refuse(429, 'Rate Limited Day');
    lastSecond = lastSecond.filter((at) => time - at < 1000);
    if (lastSecond.length >= rate) return refuse(429, 'Rate Limited Second');
    lastSecond.push(time);
    if (!asked.get('q')?.trim()) return refuse(400, 'Invalid Request');
    left--;
    const found = search(asked);
    return found.length > 0 ? { status: 200, body: found } : refuse(404, 'Unable to geocode');
  }

  function answer(path: string, asked: URLSearchParams): Answer {
    if (path === '/v1/search' || path === '/v1/search.php' || path === '/v1/balance') return locationIq(path, asked);
    if (path !== '/search') return refuse(404, 'Not Found');
    if (!asked.get('q')?.trim()) return refuse(400, 'Nothing to search for.');
    return { status: 200, body: search(asked) };
  }

  const server = createServer((request: IncomingMessage, response: ServerResponse) => {
    const url = new URL(request.url ?? '/', 'http://provider');
    const { status, body } =
      request.method === 'GET' ? answer(url.pathname, url.searchParams) : refuse(405, 'Method Not Allowed');
    const results = Array.isArray(body) ? body.length : 0;
    calls.push({ at: new Date(now()), path: url.pathname, query: url.searchParams.get('q') ?? '', status, results });
    response.writeHead(status, { 'content-type': 'application/json; charset=utf-8' }).end(JSON.stringify(body));
  });
  await new Promise<void>((resolve, reject) => server.once('error', reject).listen(0, '127.0.0.1', resolve));
  const close = () =>
    new Promise<void>((resolve, reject) => {
      server.close((error) => (error ? reject(error) : resolve()));
      server.closeAllConnections();
    });
  return { url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`, key, calls, close };
}

const refuse = (status: number, error: string): Answer => ({ status, body: { error } });

/** Answers one question in the shape that its parameters ask for. */
function search(asked: URLSearchParams): object[] {
  const countries = asked.get('countrycodes')?.toLowerCase().split(',');
  if (countries && !countries.includes('ke')) return [];
  const box = viewbox(asked.get('viewbox'));
  const inside = ({ place }: Match) =>
    !box || (Math.abs(place.lat - box.lat) <= box.height && Math.abs(place.lng - box.lng) <= box.width);
  const limit = Math.min(Math.max(Number(asked.get('limit') ?? 10) || 10, 1), 50);
  return find(asked.get('q') ?? '', box)
    .filter((match) => asked.get('bounded') !== '1' || inside(match))
    .slice(0, limit)
    .map((match) => result(match, asked));
}

/** Centre and half extents of `lon,lat,lon,lat`. */
function viewbox(text: string | null): (Point & { width: number; height: number }) | null {
  const [x1, y1, x2, y2, more] = (text ?? '')
    .split(',')
    .map((part) => (part.trim() === '' ? Number.NaN : Number(part)));
  if (x1 === undefined || y1 === undefined || x2 === undefined || y2 === undefined || more !== undefined) return null;
  if (![x1, y1, x2, y2].every(Number.isFinite)) return null;
  return { lng: (x1 + x2) / 2, lat: (y1 + y2) / 2, width: Math.abs(x2 - x1) / 2, height: Math.abs(y2 - y1) / 2 };
}

/** Names without case, accents, blanks and punctuation: `Lang'ata`, `lang ata` and `Langata` are one. */
const fold = (name: string) =>
  name
    .normalize('NFKD')
    .toLowerCase()
    .replace(/[^a-z0-9]/g, '');

/** What the provider knows, by folded name, and by every folded name that lost one letter (long names only). */
const known = new Map<string, Place[]>();
const misspelt = new Map<string, Place[]>();
for (const place of allPlaces.flatMap(asKnown)) {
  const name = fold(place.name);
  known.set(name, [...(known.get(name) ?? []), place]);
  if (name.length < 7) continue;
  for (const slip of new Set(Array.from(name, (_, i) => name.slice(0, i) + name.slice(i + 1)))) {
    misspelt.set(slip, [...(misspelt.get(slip) ?? []), place]);
  }
}

/** Real towns and estates are right; of the invented premises some are unknown and some are believed to lie in another city. */
function asKnown(place: Place): Place[] {
  if (!place.area) return [place];
  const luck = fraction('known', place.name, place.area, place.town);
  if (luck < unknownShare) return [];
  if (luck >= unknownShare + misplacedShare) return [place];
  const far = clusters.flatMap(({ centre }) => (centre && kilometres(centre, place) > 60 ? [centre] : []));
  const { lat, lng, name, town, county } = far[hash('misplaced', place.name, place.area) % far.length] as Place;
  return [{ ...place, lat: lat + 0.004, lng: lng - 0.004, area: name, town, county }];
}

const precision: Record<PlaceKind, number> = { building: 3, street: 2, neighbourhood: 1, city: 0 };

/** A run of words of the query that is a name, and what is so called. */
type Named = { first: number; last: number; places: Place[]; exact: boolean };

/** Names in the query: from each word on, the longest; a slip of one letter is forgiven where nothing is called exactly so. */
function namesIn(words: readonly string[]): Named[] {
  const found: Named[] = [];
  for (let first = 0; first < words.length; first++) {
    for (let last = Math.min(first + 4, words.length); last > first; last--) {
      const text = words.slice(first, last).map(fold).join('');
      const places = known.get(text) ?? misspelt.get(text);
      if (!places) continue;
      found.push({ first, last, places, exact: known.has(text) });
      first = last - 1;
      break;
    }
  }
  return found;
}

/**
 * Candidates, as the provider ranks them. The most precise name of the query is what is looked for; the other names and the viewbox are only
 * a bias. Where words of the query belong to no name, an estate or a town is only a fallback.
 */
function find(query: string, bias: Point | null): Match[] {
  const words = query.split(/[\s,;/]+/).filter((word) => fold(word) !== '' && fold(word) !== 'kenya');
  const names = namesIn(words);
  const best = names.reduce<Named | null>((a, b) => (a && level(a) >= level(b) ? a : b), null);
  const unexplained = words.filter((_, i) => !names.some(({ first, last }) => first <= i && i < last));
  // Like a strict provider, half of the time it gives up over words that it does not know.
  if (!best || (unexplained.length > 0 && fraction('strict', fold(unexplained.join(''))) < 0.5)) return [];
  const context = names.filter((named) => named !== best).flatMap(({ places }) => places);
  const code =
    unexplained.length > 0 && level(best) < precision.street ? 'fallback' : best.exact ? 'exact' : 'approximate';
  const centre = bias ?? context[0] ?? (best.places[0] as Place);
  return ranked(best, context, centre).map((place) => ({ place, code }));
}

/** Namesakes: those in an estate that the query names, then by distance; but of towns and estates the most important goes before all. */
function ranked(best: Named, context: readonly Place[], centre: Point): Place[] {
  const named = (place: Place) => context.some(({ name }) => name === place.area);
  const order = [...best.places].sort(
    (a, b) => Number(named(b)) - Number(named(a)) || kilometres(a, centre) - kilometres(b, centre),
  );
  const important = best.places[0] as Place;
  const wrongFirst =
    level(best) < precision.street || fraction('important', important.name, centre.lat, centre.lng) < importantShare;
  return wrongFirst ? [important, ...order.filter((place) => place !== important)] : order;
}

const level = ({ places }: Named) => Math.max(...places.map(({ kind }) => precision[kind]));

/** How each kind of place is called: OpenStreetMap's tag and LocationIQ's level. */
const described: Record<PlaceKind, { class: string; type: string; level: string; box: number; importance: number }> = {
  building: { class: 'building', type: 'yes', level: 'building', box: 0.0003, importance: 0.2 },
  street: { class: 'highway', type: 'residential', level: 'street', box: 0.002, importance: 0.25 },
  neighbourhood: { class: 'place', type: 'suburb', level: 'neighbourhood', box: 0.01, importance: 0.4 },
  city: { class: 'place', type: 'city', level: 'city', box: 0.08, importance: 0.6 },
};

function result({ place, code }: Match, asked: URLSearchParams): object {
  const { class: klass, type, level, box, importance } = described[place.kind];
  const id = hash(place.name, place.lat, place.lng);
  const settlement = place.kind === 'city' ? null : place.town;
  const parts = [place.name, place.area, settlement, place.county && `${place.county} County`, 'Kenya'];
  const iq = asked.get('format') !== 'jsonv2';
  return {
    place_id: iq ? String(id) : id,
    licence,
    osm_type: place.kind === 'street' ? 'way' : 'node',
    osm_id: iq ? String(id) : id,
    boundingbox: [place.lat - box, place.lat + box, place.lng - box, place.lng + box].map((degrees) =>
      degrees.toFixed(6),
    ),
    lat: place.lat.toFixed(6),
    lon: place.lng.toFixed(6),
    display_name: parts.filter((part, i) => part && part !== parts[i - 1]).join(', '),
    [iq ? 'class' : 'category']: klass,
    type,
    importance: importance + fraction('importance', id) / 10,
    ...(asked.get('addressdetails') === '1' ? { address: address(place) } : {}),
    ...(asked.get('matchquality') === '1'
      ? { matchquality: { matchcode: code, matchtype: matchtype(place), matchlevel: level } }
      : {}),
  };
}

const matchtype = ({ kind }: Place) => (kind === 'building' ? 'point' : 'centroid');

function address(place: Place): Record<string, string> {
  const own = { building: 'building', street: 'road', neighbourhood: 'suburb', city: 'city' }[place.kind];
  const area = place.area ? { suburb: place.area } : {};
  return { [own]: place.name, ...area, city: place.town, county: place.county, country: 'Kenya', country_code: 'ke' };
}
