import { AppError } from '@banyan/contracts/errors.ts';

/** Tokens that come back evenly; `now` in ms. */
export type TokenBucket = {
  /** One token if there is one now. */
  readonly take: () => boolean;
  /** One token even if there is none, on credit of at most one second's worth: those who come later wait for it. */
  readonly borrow: () => boolean;
};

/** A bucket of one second's worth of tokens, at least one; `perSecond` 0 never gives any. It is read at each use, so a reload takes effect. */
export const createTokenBucket = (perSecond: () => number, now: () => number): TokenBucket => {
  let tokens = Number.POSITIVE_INFINITY;
  let at = now();
  const takeAbove = (floor: (size: number) => number) => (): boolean => {
    const rate = perSecond();
    if (rate <= 0) return false;
    const size = Math.max(1, rate);
    const time = now();
    tokens = Math.min(size, tokens + (Math.max(0, time - at) / 1_000) * rate);
    at = time;
    if (tokens - 1 < floor(size)) return false;
    tokens--;
    return true;
  };
  return { take: takeAbove(() => 0), borrow: takeAbove((size) => -size) };
};

/** Gives a slot back. `hung` = what held it got no answer in time. */
export type Release = (outcome: 'answered' | 'hung') => void;

/**
 * At most `limit` at a time; those who wait come in turn. Each one that hangs halves what is let through, down to one, and each answer lets one more
 * in (additive increase, multiplicative decrease): a side that hangs is asked little, and its time-outs do not come by the hundred in one moment.
 */
export type Slots = {
  /**
   * @throws AppError `overloaded` after waiting `waitMs`; the signal's reason when it fires
   */
  readonly acquire: (waitMs: number, signal: AbortSignal) => Promise<Release>;
};

/** `limit` is read at each use. How many wait is bounded by how many call. */
export const createSlots = (limit: () => number): Slots => {
  let used = 0;
  let allowed = Number.POSITIVE_INFINITY;
  const most = (): number => Math.min(limit(), allowed);
  const waiting = new Set<() => void>();
  const release: Release = (outcome) => {
    used--;
    const now = most();
    if (outcome === 'hung') allowed = Math.max(1, Math.floor(now / 2));
    else if (allowed < limit()) allowed++;
    for (const next of waiting) {
      if (used >= most()) return;
      next();
    }
  };
  const once = (): Release => {
    let done = false;
    return (outcome) => {
      if (!done) release(outcome);
      done = true;
    };
  };
  return {
    acquire: async (waitMs, signal) => {
      signal.throwIfAborted();
      if (used < most() && waiting.size === 0) {
        used++;
        return once();
      }
      return new Promise((resolve, reject) => {
        const leave = (): void => {
          waiting.delete(enter);
          clearTimeout(timer);
          signal.removeEventListener('abort', abort);
        };
        const enter = (): void => {
          leave();
          used++;
          resolve(once());
        };
        const abort = (): void => {
          leave();
          reject(signal.reason);
        };
        const timer = setTimeout(() => {
          leave();
          reject(new AppError('overloaded', 'The copy waited too long for its turn'));
        }, waitMs);
        waiting.add(enter);
        signal.addEventListener('abort', abort, { once: true });
      });
    },
  };
};
