/** A rate over the last moments: what was added fades by half in `halfLifeMs`. Times in ms. */
export type Decay = {
  readonly add: (amount: number, nowMs: number) => void;
  readonly perSecond: (nowMs: number) => number;
};

export const createDecay = (halfLifeMs: number): Decay => {
  // what a steady rate of one a second adds up to while older amounts fade
  const steady = halfLifeMs / Math.LN2 / 1_000;
  let weight = 0;
  let at = 0;
  const fade = (nowMs: number): void => {
    weight *= 2 ** (-Math.max(0, nowMs - at) / halfLifeMs);
    at = nowMs;
  };
  return {
    add: (amount, nowMs) => {
      fade(nowMs);
      weight += amount;
    },
    perSecond: (nowMs) => {
      fade(nowMs);
      return weight / steady;
    },
  };
};
