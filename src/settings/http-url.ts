/** Settings that are addresses of something that speaks HTTP. */
import { z } from 'zod';

export const httpUrl = z.url({ protocol: /^https?$/, error: 'must be an http or https URL' });

/** Of a server whose paths are ours to choose; what is a secret has a setting of its own. */
export const endpointUrl = httpUrl.refine(
  (url) => !/[@?#]/.test(url),
  'must not hold a user, password, query or fragment',
);
