import { createDecay } from './decay.ts';

/** Pause between two requests while little comes, ms: a fact is on the stream in no time. */
const REST_MS = 20;
/** And while much comes: records fill up, and requests, commits and answers are shared by more facts. */
const BUSY_MS = 80;
/** Facts per second from which on the pause is the longest. */
const BUSY_PER_SECOND = 1_000;
/** A rate is forgotten by half in so many ms. */
const HALF_LIFE_MS = 500;

/** How long the relay gathers before its next request. Between 20 and 80 ms, by the rate of the last second; times in ms. */
export type Linger = {
  /** So many facts were sent, at this time. */
  readonly sent: (facts: number, nowMs: number) => void;
  readonly pauseMs: (nowMs: number) => number;
};

export const createLinger = (): Linger => {
  const rate = createDecay(HALF_LIFE_MS);
  return {
    sent: rate.add,
    pauseMs: (nowMs) => REST_MS + (BUSY_MS - REST_MS) * Math.min(1, rate.perSecond(nowMs) / BUSY_PER_SECOND),
  };
};
