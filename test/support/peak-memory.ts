/** Peak memory of a process, as Linux counts it. */
import { readFile } from 'node:fs/promises';

/** The most that was resident since the process started. */
export async function peakMemoryMb(pid: number): Promise<number> {
  const status = await readFile(`/proc/${pid}/status`, 'utf8');
  return Number(/VmHWM:\s+(\d+) kB/.exec(status)?.[1]) / 1024;
}
