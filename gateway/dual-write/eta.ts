/** The fall of the last seconds counts by half after so many ms. */
const HALF_LIFE_MS = 5_000;

/** When a backlog will be empty if it goes on falling as it does, new facts included. */
export type Eta = {
  /** @param rows that wait at `nowMs` @returns ms; 0 = nothing waits; null = it does not fall, or was counted once only */
  readonly counted: (rows: number, nowMs: number) => number | null;
};

export const createEta = (): Eta => {
  let last: { readonly rows: number; readonly at: number } | null = null;
  /** Rows per ms; positive = fewer and fewer wait. */
  let fall: number | null = null;
  return {
    counted: (rows, nowMs) => {
      const before = last;
      last = { rows, at: nowMs };
      if (before !== null && nowMs > before.at) {
        const took = nowMs - before.at;
        const now = (before.rows - rows) / took;
        fall = fall === null ? now : now + (fall - now) * 2 ** (-took / HALF_LIFE_MS);
      }
      if (rows === 0) return 0;
      return fall === null || fall <= 0 ? null : Math.round(rows / fall);
    },
  };
};
