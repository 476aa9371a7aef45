/** OpenStreetMap's own search, which Nominatim speaks and LocationIQ inherited: how it is asked, and the shape of a place. */
import { z } from 'zod';
import type { Candidate, Level } from '../outcome.ts';
import { boxAround, CANDIDATE_LIMIT, COUNTRY, type Question } from '../provider.ts';

/** A coordinate as JSON number or decimal text; anything else is null, never 0 (Number('') is 0). */
export const Degrees = z
  .union([
    z.number(),
    z
      .string()
      .trim()
      .regex(/^[+-]?[0-9]{1,3}(\.[0-9]{1,20})?$/)
      .transform(Number),
  ])
  .nullable()
  .catch(null);

const text = z.string().optional().catch(undefined);

const OsmPlace = z.looseObject({
  lat: Degrees,
  lon: Degrees,
  display_name: z.string().catch(''),
  class: text,
  category: text,
  type: text,
  addresstype: text,
  place_rank: z.number().optional().catch(undefined),
  address: z.looseObject({ country_code: text }).optional().catch(undefined),
  matchquality: z.looseObject({ matchlevel: text }).optional().catch(undefined),
});
type OsmPlace = z.infer<typeof OsmPlace>;

/**
 * Path and parameters of a search.
 * @param own the provider's own parameters: the format of its answer, the key if it has one
 */
export function searchPath({ text: q, near }: Question, own: Record<string, string>): string {
  const parameters = new URLSearchParams({
    q,
    countrycodes: COUNTRY.code,
    limit: String(CANDIDATE_LIMIT),
    addressdetails: '1',
    'accept-language': 'en',
    ...own,
  });
  if (near) parameters.set('viewbox', boxAround(near).join(','));
  return `/search?${parameters}`;
}

/** An array of places, each an object; undefined if the answer is anything else. */
export function readPlaces(json: unknown): Candidate[] | undefined {
  const places = z.array(OsmPlace).safeParse(json);
  if (!places.success) return undefined;
  return places.data.map((place, index) => ({
    lat: place.lat,
    lng: place.lon,
    level: levelOf(place),
    country: place.address?.country_code?.toLowerCase() ?? null,
    label: place.display_name,
    original: (json as unknown[])[index],
  }));
}

/** Words of OpenStreetMap for an area within a town, or a settlement smaller than one; sources that build on it use them too. */
export const NEIGHBOURHOODS = [
  'neighbourhood',
  'suburb',
  'quarter',
  'hamlet',
  'village',
  'locality',
  'island',
  'residential',
];

const PLACE_LEVELS: Record<string, Level> = {
  ...Object.fromEntries(['house', 'plot'].map((type) => [type, 'point'])),
  ...Object.fromEntries(
    [...NEIGHBOURHOODS, 'isolated_dwelling', 'farm', 'allotments', 'city_block', 'square'].map((type) => [
      type,
      'neighbourhood',
    ]),
  ),
  town: 'town',
};

/** LocationIQ's own statement, where it is asked for. Its `city` includes towns: the place's type tells them apart. */
const MATCH_LEVELS: Record<string, Level> = {
  venue: 'point',
  building: 'point',
  street: 'street',
  neighbourhood: 'neighbourhood',
  island: 'neighbourhood',
};

function levelOf(place: OsmPlace): Level {
  const kind = place.class ?? place.category;
  const type = place.addresstype ?? place.type ?? '';
  const known = PLACE_LEVELS[type];
  const stated = place.matchquality?.matchlevel;
  if (kind === 'place') return known ?? 'city';
  if (stated !== undefined) return MATCH_LEVELS[stated] ?? (known === 'town' ? 'town' : 'city');
  if (kind === 'highway') return place.type === 'bus_stop' ? 'point' : 'street';
  if (kind === 'boundary') return known ?? levelOfRank(place.place_rank);
  if (kind === 'landuse' || kind === 'natural' || kind === 'waterway') return 'neighbourhood';
  return kind === undefined ? 'city' : 'point';
}

/** Nominatim's address rank of a boundary: to 16 cities and larger, 17 and 18 towns and boroughs, from 19 suburbs and smaller. */
function levelOfRank(rank = 0): Level {
  if (rank >= 19) return 'neighbourhood';
  return rank >= 17 ? 'town' : 'city';
}
