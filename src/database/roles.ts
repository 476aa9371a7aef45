/** The database roles that people and monitors are given, as migrations/grants.sql makes them. What each may do: docs/privileges.md. */
export const ROLES = [
  'tickets_reader',
  'tickets_curator',
  'tickets_operator',
  'tickets_dispatcher',
  'tickets_monitor',
] as const;

export type Role = (typeof ROLES)[number];
