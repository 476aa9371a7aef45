/** geocode_cluster: where is a cluster? See src/geocoding/jobs.ts. */
import { z } from 'zod';
import { geocodeCluster } from '../src/geocoding/jobs.ts';
import { ClusterName } from '../src/geocoding/names.ts';
import { defineTask } from '../src/worker/task.ts';

const Payload = z.strictObject({
  cluster: ClusterName,
  /** Ask although the centroid is known; never one that a person verified. */
  force: z.boolean().default(false),
  /** Added by the planner, not by a person. */
  planned: z.boolean().default(false),
  /** How often the job has put itself back. */
  snoozes: z.int32().min(0).default(0),
});

export default defineTask('geocode_cluster', Payload, { cluster: 'Kilimani' }, geocodeCluster);
