/** geocode_location: where is a place of a cluster? See src/geocoding/jobs.ts. */
import { z } from 'zod';
import { geocodeLocation } from '../src/geocoding/jobs.ts';
import { ClusterName, LocationName } from '../src/geocoding/names.ts';
import { defineTask } from '../src/worker/task.ts';

const Payload = z.strictObject({
  location_name: LocationName,
  cluster: ClusterName,
  /** Ask although an answer is known; never one that a person verified. */
  force: z.boolean().default(false),
  /** Added by the planner, not by a person. */
  planned: z.boolean().default(false),
  /** How often the job has put itself back. */
  snoozes: z.int32().min(0).default(0),
});

const EXAMPLE = { location_name: 'NW_Kilimani_FDT3', cluster: 'Kilimani' };

export default defineTask('geocode_location', Payload, EXAMPLE, geocodeLocation);
