import { readFileSync } from 'node:fs';

/** Linux counts processor time in hundredths of a second, whatever the kernel's own tick. */
const TICK_US = 10_000;

type Stat = { readonly cpuUs: number };

const statOf = (pid: number): Stat | null => {
  try {
    const text = readFileSync(`/proc/${pid}/stat`, 'latin1');
    // the name in parentheses may hold anything, even spaces
    const fields = text.slice(text.lastIndexOf(')') + 2).split(' ');
    return { cpuUs: (Number(fields[11]) + Number(fields[12])) * TICK_US };
  } catch {
    return null;
  }
};

const childrenOf = (pid: number): number[] => {
  try {
    return readFileSync(`/proc/${pid}/task/${pid}/children`, 'latin1').split(' ').filter(Boolean).map(Number);
  } catch {
    return [];
  }
};

const tree = (pid: number): number[] => [pid, ...childrenOf(pid).flatMap(tree)];

/** Processor time (user and system, every thread) of a process and its living children, microseconds, in steps of 10 ms. */
export const cpuUs = (pid: number): number => tree(pid).reduce((sum, one) => sum + (statOf(one)?.cpuUs ?? 0), 0);

/** Resident memory of a process and its children, MiB. */
export const rssMiB = (pid: number): number =>
  tree(pid).reduce((sum, one) => {
    try {
      return sum + Number(/^VmRSS:\s+(\d+) kB/m.exec(readFileSync(`/proc/${one}/status`, 'latin1'))?.[1] ?? 0) / 1024;
    } catch {
      return sum;
    }
  }, 0);
