/** Peak memory of a process, as Linux counts it. */
import { readFile, writeFile } from 'node:fs/promises';

/** The most that was resident since the process started, or since `resetPeakMemory`. */
export async function peakMemoryMb(pid: number): Promise<number> {
  const status = await readFile(`/proc/${pid}/status`, 'utf8');
  return Number(/VmHWM:\s+(\d+) kB/.exec(status)?.[1]) / 1024;
}

export async function resetPeakMemory(pid: number): Promise<void> {
  await writeFile(`/proc/${pid}/clear_refs`, '5');
}
