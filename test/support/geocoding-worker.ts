/**
 * A worker process that runs geocoding jobs only, for tests that need several of them or kill one. Settings come from the
 * environment. Ends on SIGTERM.
 */
import { run } from 'graphile-worker';
import { pino } from 'pino';
import { forbiddenFlags, geocodingSlots } from '../../src/geocoding/concurrency.ts';
import { GeocoderSettings, geocoderFrom } from '../../src/geocoding/settings.ts';
import { readSettings } from '../../src/settings/settings.ts';
import { workerPreset } from '../../src/worker/worker.ts';
import geocode_cluster from '../../tasks/geocode_cluster.ts';
import geocode_location from '../../tasks/geocode_location.ts';

const geocoder = geocoderFrom(readSettings(GeocoderSettings));
if ('off' in geocoder) throw new Error(geocoder.off);
const slots = geocodingSlots(geocoder.rate);
const preset = workerPreset(pino({ level: 'silent' }));
preset.worker.concurrentJobs = slots;
const runner = await run({ preset, forbiddenFlags: forbiddenFlags(slots) }, { geocode_cluster, geocode_location }, []);
await runner.promise;
