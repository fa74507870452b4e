import { setTimeout as pause } from 'node:timers/promises';
import type { Logger } from 'pino';

export type LoopOptions = {
  /** For logs. */
  readonly name: string;
  readonly log: Logger;
  /** One turn; answers after how many milliseconds the next one is due. */
  readonly turn: (signal: AbortSignal) => Promise<number>;
};

export type Loop = {
  /** The last turn that ended without an error, in `performance.now()` milliseconds; null before the first. */
  readonly lastOk: () => number | null;
  /** The message of the last turn's error, or null. */
  readonly failure: () => string | null;
  /** Lets the running turn end and starts no other. */
  readonly stop: () => Promise<void>;
};

const FIRST_RETRY_MS = 100;
const LAST_RETRY_MS = 5000;

/** Runs turns one after the other until stopped. A turn that throws is repeated after 100 ms, doubling up to 5 s; only the first of a row of failures is logged. */
export const startLoop = ({ name, log, turn }: LoopOptions): Loop => {
  const stopping = new AbortController();
  let lastOk: number | null = null;
  let failure: string | null = null;
  const run = async (): Promise<void> => {
    let retryMs = FIRST_RETRY_MS;
    while (!stopping.signal.aborted) {
      let waitMs: number;
      try {
        waitMs = await turn(stopping.signal);
        if (failure !== null) log.info(`${name} works again`);
        failure = null;
        lastOk = performance.now();
        retryMs = FIRST_RETRY_MS;
      } catch (error) {
        if (failure === null) log.warn({ err: error }, `${name} failed and is tried again`);
        failure = error instanceof Error ? error.message : String(error);
        waitMs = retryMs;
        retryMs = Math.min(retryMs * 2, LAST_RETRY_MS);
      }
      if (waitMs > 0) await pause(waitMs, undefined, { signal: stopping.signal }).catch(() => undefined);
    }
  };
  const ended = run();
  return {
    lastOk: () => lastOk,
    failure: () => failure,
    stop: async () => {
      stopping.abort();
      await ended;
    },
  };
};
