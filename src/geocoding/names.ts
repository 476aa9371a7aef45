/** Names of places, as jobs are given them. A cluster's is as long as the gazetteers take it (tickets.cluster_spelling). */
import { z } from 'zod';

export const ClusterName = z.string().trim().min(1).max(200);

export const LONGEST_LOCATION_NAME = 1_000;
/** As field staff typed it, network codes included. */
export const LocationName = z.string().trim().min(1).max(LONGEST_LOCATION_NAME);
