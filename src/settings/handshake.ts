/**
 * How long an address may take to answer the handshake of a connection. To be imported by whatever connects to hosts that
 * settings name: the database, the bucket, a provider, a webhook. It holds for every connection of the process.
 *
 * Of a host with several addresses Node gives each a quarter of a second, and then tries the next. From Nairobi to a server in
 * America that is a round trip: the right address is given up, and what is left may be one that no packet reaches.
 */
import { setDefaultAutoSelectFamilyAttemptTimeout } from 'node:net';

/** Milliseconds. Less than any of them allows for a connection as a whole. */
const HANDSHAKE_MS = 3_000;

setDefaultAutoSelectFamilyAttemptTimeout(HANDSHAKE_MS);
