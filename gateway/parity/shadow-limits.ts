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

/** How what held a slot ended. `hung` = it got no answer in time. */
export type Outcome = 'answered' | 'hung';

/** Who waits for a slot. */
export type Waiter = {
  /** A slot is taken for it. */
  enter(): void;
};

/**
 * At most `limit` at a time; those who wait come in turn. Each one that hangs halves what is let through, down to one, and each answer lets one more
 * in (additive increase, multiplicative decrease): a side that hangs is asked little, and its time-outs do not come by the hundred in one moment.
 */
export type Slots = {
  /** `enter` is called when a slot is taken: at once if one is free, else in turn, unless it leaves. */
  acquire(waiter: Waiter): void;
  /** It waits no longer. */
  leave(waiter: Waiter): void;
  /** Once for each `enter`. */
  release(outcome: Outcome): void;
};

/** `limit` is read at each use. How many wait is bounded by how many call. */
export const createSlots = (limit: () => number): Slots => {
  let used = 0;
  let allowed = Number.POSITIVE_INFINITY;
  const most = (): number => Math.min(limit(), allowed);
  // an array: see `stopping.ts` for what a Set does to what has left it
  const waiting: Waiter[] = [];
  return {
    acquire(waiter) {
      if (used >= most() || waiting.length > 0) {
        waiting.push(waiter);
        return;
      }
      used++;
      waiter.enter();
    },
    leave(waiter) {
      const at = waiting.indexOf(waiter);
      if (at >= 0) waiting.splice(at, 1);
    },
    release(outcome) {
      used--;
      const now = most();
      if (outcome === 'hung') allowed = Math.max(1, Math.floor(now / 2));
      else if (allowed < limit()) allowed++;
      while (waiting.length > 0 && used < most()) {
        used++;
        waiting.shift()!.enter();
      }
    },
  };
};
