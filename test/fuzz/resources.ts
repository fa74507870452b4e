import { setTimeout as pause } from 'node:timers/promises';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';

/** What this process holds, after a collection. */
export type Resources = { readonly sockets: number; readonly heapBytes: number };

const SOCKETS: ReadonlySet<string> = new Set(['TCPSocketWrap', 'TCPServerWrap', 'TLSWrap']);

const openSockets = (): number => process.getActiveResourcesInfo().filter((name) => SOCKETS.has(name)).length;

/** `expected` = so many sockets are waited for, at most two seconds: a handle outlives its socket by a turn or two. */
export const resources = async (expected = 0): Promise<Resources> => {
  for (let i = 0; i < 100 && openSockets() > expected; i++) await pause(20);
  setFlagsFromString('--expose-gc');
  (runInNewContext('gc') as () => void)();
  return {
    sockets: openSockets(),
    heapBytes: process.memoryUsage().heapUsed,
  };
};
