/** What to send to a provider: the readable place, its cluster and the country, then at most two simpler queries. */
import { COUNTRY } from './provider.ts';

/** A qualifier with a number at the end, like Phase 5 or Section 58: finer than most maps. */
const QUALIFIER = /\s+(?:phase|section|sector|zone|stage|block|court|gate)\s+[0-9a-z]{1,3}$/i;

/** The premises in front of an area: Acacia Road of Acacia Road Zimmerman, else the first of three words and more. */
const PREMISES =
  /^(?:\S+\s+){1,2}?(?:apartments?|avenue|close|court|drive|estate|gardens|heights|hospital|lane|mall|plaza|road|school|villas)\s+(?=\S)|^\S+\s+(?=\S+\s+\S)/i;

/**
 * Queries for a place within a cluster, the most specific first, at most three.
 * The cluster goes with the place because it may be a town; without it because it may be a name of the network only.
 */
export function locationQueries(place: string, cluster: string): string[] {
  const inCluster = (name: string) =>
    includesName(name, cluster) ? [name, COUNTRY.name] : [name, cluster, COUNTRY.name];
  const simpler = place.replace(QUALIFIER.test(place) ? QUALIFIER : PREMISES, '');
  const queries = [inCluster(place), [place, COUNTRY.name], inCluster(simpler)];
  // A simpler place that is the cluster itself would only find the centroid again.
  return distinct(queries.filter(([name]) => name === place || !sameName(name ?? '', cluster)));
}

/** Queries for a cluster: its region tells namesakes apart, unless it is a region of the network only. */
export function clusterQueries(cluster: string, region: string | null): string[] {
  const inRegion = region && !includesName(cluster, region) ? [[cluster, region, COUNTRY.name]] : [];
  return distinct([...inRegion, [cluster, COUNTRY.name]]);
}

const words = (name: string) =>
  ` ${
    name
      .toLowerCase()
      .match(/[\p{L}\p{N}]+/gu)
      ?.join(' ') ?? ''
  } `;
const includesName = (name: string, part: string) => words(name).includes(words(part));
const sameName = (one: string, other: string) => words(one) === words(other);
const distinct = (queries: string[][]) => [...new Set(queries.map((parts) => parts.join(', ')))];
