/** The schemas of ours, by name. Beside them `reporting` holds what dashboards read, ours and others'. */

/** What the pipeline works in. */
export const OUR_SCHEMAS: readonly string[] = ['tickets', 'tickets_ops'];

/** And what a takeover makes or keeps, where there was one (docs/taking-over.md). */
export const ALL_OURS: readonly string[] = [
  ...OUR_SCHEMAS,
  'tickets_legacy',
  'tickets_takeover',
  'tickets_set_aside',
  'tickets_ops_set_aside',
];
