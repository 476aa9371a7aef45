/** Serving HTTP from a process of its own: the page, and the metrics. */
import { once } from 'node:events';
import type { Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import type pg from 'pg';
import { ExpectedError } from '../settings/errors.ts';

interface Listening {
  readonly port: number;
  /** Ends every connection, then the pool. */
  close(): Promise<void>;
}

/** Whether it is the number of a port; 0 is any that is free. */
export const isPort = (digits: string): boolean => /^\d{1,5}$/.test(digits) && Number(digits) <= 65_535;

/**
 * Lets a server listen. The pool that it asks is ended with it, also where it cannot listen.
 * @throws ExpectedError where the port or the host is not to be had
 */
export async function listen(server: Server, host: string, port: number, pool: pg.Pool): Promise<Listening> {
  server.listen(port, host);
  try {
    await once(server, 'listening');
  } catch (error) {
    await pool.end();
    const reason = refusals(host, port)[(error as NodeJS.ErrnoException).code ?? ''];
    throw reason === undefined ? error : new ExpectedError(reason);
  }
  return {
    port: (server.address() as AddressInfo).port,
    async close() {
      server.closeAllConnections();
      server.close();
      await once(server, 'close');
      await pool.end();
    },
  };
}

const refusals = (host: string, port: number): Record<string, string> => ({
  EADDRINUSE: `Port ${port} is in use: choose another.`,
  EADDRNOTAVAIL: `This machine has no address ${host}.`,
  ENOTFOUND: `There is no host ${host}.`,
  EACCES: `Port ${port} is not for everybody: choose one above 1023.`,
});
