/**
 * A call at its slot: reserved in the database for all workers together, paced and capped within the process by bottleneck.
 *
 * Guarantees: no call without a reservation; a call that could only start late (a process that was suspended, a timer that
 * slipped) reserves again instead, since a late call would share another one's second; a call whose breaker opened while it
 * waited is not made, nor one that waited when the worker was told to stop; one that the stop cuts off counts against the
 * budget, but not against the provider. No lock and no transaction is held while waiting.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import Bottleneck from 'bottleneck';
import type { Db } from '../database/client.ts';
import { call } from './call.ts';
import { geocodingSlots } from './concurrency.ts';
import type { Outcome } from './outcome.ts';
import { CONTROL, type Question } from './provider.ts';
import type { Geocoder } from './settings.ts';

/** How late a call may start. A timer that slips under load is 10 to 50 ms late. */
const LATE_MS = 250;

type Reservation = {
  granted: boolean;
  wait_ms: number;
  reserved_at: Date;
  slot_at: Date;
  is_control: boolean;
  reason: string | null;
};

type AtSlot =
  /** `isControl`: the provider is suspected, and was asked the control question instead. */
  | { readonly outcome: Outcome; readonly slotAt: Date; readonly isControl: boolean }
  /** The budget is spent, the breaker is open or the worker stops: not before `retryMs`. */
  | { readonly outcome: null; readonly retryMs: number; readonly reason: string };

const pacers = new Map<string, Bottleneck>();

function pacerOf({ provider, rate }: Geocoder): Bottleneck {
  const name = `${provider.name} ${rate}`;
  const pacer =
    pacers.get(name) ?? new Bottleneck({ minTime: Math.floor(1000 / rate), maxConcurrent: geocodingSlots(rate) });
  pacers.set(name, pacer);
  return pacer;
}

/** Reserves a slot, waits for it, and asks; a suspected provider something else than the question. */
export async function callAtSlot(
  db: Db,
  geocoder: Geocoder,
  question: Question,
  signal?: AbortSignal,
): Promise<AtSlot> {
  const { name } = geocoder.provider;
  for (;;) {
    // Before the query: the time that its answer takes is lateness too.
    const asked = performance.now();
    const { rows } = await db.query('select * from tickets_ops.reserve_geocoding_call($1)', [name]);
    const { granted, wait_ms, reserved_at, slot_at, is_control, reason } = rows[0] as Reservation;
    if (!granted) return { outcome: null, retryMs: Math.max(0, wait_ms), reason: reason ?? '' };
    const start = asked + wait_ms;
    // Cut short when the worker stops: then no call is made.
    await sleep(wait_ms, undefined, signal && { signal }).catch((error) => {
      if (!signal?.aborted) throw error;
    });
    const outcome = await pacerOf(geocoder).schedule(async () => {
      const { rows: kept } = await db.query('select tickets_ops.keep_geocoding_call($1, $2) as may', [
        name,
        reserved_at,
      ]);
      if (!kept[0].may) return undefined;
      if (signal?.aborted || performance.now() - start > LATE_MS) {
        await db.query('select tickets_ops.return_geocoding_call($1, $2)', [name, reserved_at]);
        return undefined;
      }
      return call(geocoder, is_control ? CONTROL : question, signal && { signal });
    });
    if (outcome) return { outcome, slotAt: slot_at, isControl: is_control };
    if (signal?.aborted) return { outcome: null, retryMs: 0, reason: 'the worker stops' };
  }
}
