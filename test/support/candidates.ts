/** Candidates as a provider’s answer is kept: what the judge is given. */
export type Candidate = { lat: unknown; lng: unknown; level?: string; country?: string | null; label?: string | null };

export const at = (label: string, lat: unknown, lng: unknown, level = 'neighbourhood', country = 'ke'): Candidate => ({
  lat,
  lng,
  level,
  country,
  label,
});
