/**
 * The geocoding provider of the chaos, in a process of its own: what the test does otherwise must not keep it from seeing
 * a call when it arrives. In front of it stands a proxy that fails on demand. Run as a program it is that process.
 */
import { fork } from 'node:child_process';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';
import { startProvider } from '../../../demo/provider.ts';
import { cutAfter, hang, startFaultProxy, status } from '../../support/fault-proxy.ts';

const FAULTS = {
  fails: status(503, '{"error":"down"}'),
  'too many requests': status(429, '{"error":"Rate Limited Second"}'),
  'breaks off': cutAfter(20),
  hangs: hang(),
};

type Order = { fault: keyof typeof FAULTS; times: number } | 'heal' | 'report';
type Address = { endpoint: string; key: string };
export type Report = {
  /** When each call arrived, failed ones included; milliseconds. */
  arrivals: number[];
  /** Calls that the provider itself refused as too many. */
  refused: number;
};

export type ChaosProvider = Address & {
  inject(fault: keyof typeof FAULTS, times: number): void;
  heal(): void;
  report(): Promise<Report>;
  close(): void;
};

/** @param most calls in any one second that it answers */
export async function startChaosProvider(most: number): Promise<ChaosProvider> {
  const child = fork(fileURLToPath(import.meta.url), [String(most)]);
  const [address] = (await once(child, 'message')) as [Address];
  const order = (what: Order) => void child.send(what);
  return {
    ...address,
    inject: (fault, times) => order({ fault, times }),
    heal: () => order('heal'),
    report: async () => {
      order('report');
      return ((await once(child, 'message')) as [Report])[0];
    },
    close: () => child.disconnect(),
  };
}

if (import.meta.main) {
  const provider = await startProvider({ rate: Number(process.argv[2]), perDay: 100_000 });
  const proxy = await startFaultProxy(provider.url);
  process.on('message', (order: Order) => {
    if (order === 'heal') proxy.heal();
    else if (order === 'report')
      process.send?.({
        arrivals: proxy.arrivals,
        refused: provider.calls.filter(({ status: answered }) => answered === 429).length,
      } satisfies Report);
    else proxy.inject(/search/, FAULTS[order.fault], order.times);
  });
  process.on('disconnect', () => process.exit());
  process.send?.({ endpoint: proxy.endpoint, key: provider.key } satisfies Address);
}
