import { readFileSync } from 'node:fs';

/** What a gateway's heap did up to some moment. */
export type HeapUse = {
  /** Allocated in JavaScript heaps, KiB; counted at collections, so that a short while says little. */
  readonly allocatedKiB: number;
  readonly collections: number;
  /** All pauses together. */
  readonly pausedMs: number;
  readonly longestMs: number;
};

/** `[1234:0x55d0]  5678 ms: Scavenge 40.1 (60.2) -> 25.3 (60.2) MB, pooled: 0 MB, 1.5 / 0.0 ms …` */
const COLLECTION = /^\[\d+:(0x[0-9a-f]+)\]\s+\d+ ms: [^\n]*?([\d.]+) \([\d.]+\) -> ([\d.]+) \([\d.]+\) MB[^\n]*?, ([\d.]+) \/ [\d.]+ ms/gm;

/** Reads a log that `heap-trace.ts` writes, from byte `from` on: all the use after that. */
export const heapUseIn = (log: string, from: number): HeapUse => {
  const text = readFileSync(log).subarray(from).toString('latin1');
  const after = new Map<string, number>();
  let [allocatedMB, collections, pausedMs, longestMs] = [0, 0, 0, 0];
  for (const [, isolate, before, left, pause] of text.matchAll(COLLECTION)) {
    // what lay there at the first one came before
    allocatedMB += Number(before) - (after.get(isolate!) ?? Number(before));
    after.set(isolate!, Number(left));
    collections++;
    pausedMs += Number(pause);
    longestMs = Math.max(longestMs, Number(pause));
  }
  return { allocatedKiB: allocatedMB * 1024, collections, pausedMs, longestMs };
};
