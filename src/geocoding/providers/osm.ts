/** The shape of a place in OpenStreetMap's own search, which Nominatim speaks and LocationIQ inherited. */
import { z } from 'zod';
import type { Candidate, Level } from '../outcome.ts';

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

const PLACE_LEVELS: Record<string, Level> = {
  ...Object.fromEntries(['house', 'plot'].map((type) => [type, 'point'])),
  ...Object.fromEntries(
    ['neighbourhood', 'suburb', 'quarter', 'hamlet', 'village', 'isolated_dwelling', 'locality', 'farm', 'island'].map(
      (type) => [type, 'neighbourhood'],
    ),
  ),
  ...Object.fromEntries(['residential', 'allotments', 'city_block', 'square'].map((type) => [type, 'neighbourhood'])),
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
