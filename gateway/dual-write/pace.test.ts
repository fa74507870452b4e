import { describe, expect, it } from '@jest/globals';
import { createPace, type Pace } from './pace.ts';

/** A shard with a bucket of one second, as Kinesis has it. */
const bucket = (perSecond: number) => {
  let tokens = perSecond;
  let at = 0;
  return (bytes: number, nowMs: number): boolean => {
    tokens = Math.min(perSecond, tokens + ((nowMs - at) / 1_000) * perSecond);
    at = nowMs;
    if (tokens < bytes) return false;
    tokens -= bytes;
    return true;
  };
};

/** Lanes with more to send than fits; records of a PUT unit, a round every 50 ms. */
const run = (
  pace: Pace,
  lanes: readonly number[],
  shard: string,
  takes: (bytes: number, nowMs: number) => boolean,
  fromMs: number,
  forMs: number,
) => {
  let [taken, refused] = [0, 0];
  for (let nowMs = fromMs; nowMs < fromMs + forMs; nowMs += 50)
    for (const lane of lanes) {
      const budget = Math.min(1_048_576, pace.budget(lane, nowMs));
      let throttled = false;
      for (let sent = 0; sent + 25_600 <= budget; sent += 25_600)
        if (takes(25_600, nowMs)) {
          taken += 25_600;
          pace.taken(lane, shard, 25_600, nowMs);
        } else {
          refused += 1;
          throttled = true;
        }
      if (throttled) pace.throttled(lane, nowMs);
    }
  return { perSecond: taken / (forMs / 1_000), refusedShare: refused / (refused + taken / 25_600) };
};

describe('pace', () => {
  it('knows no limit until a shard throttles', () => {
    const pace = createPace();
    expect(pace.budget(0, 0)).toBe(Number.POSITIVE_INFINITY);
    pace.throttled(0, 0);
    expect(pace.slowest()).toBeNull();
  });

  it('learns what a shard takes: at least nine tenths of it, and little is refused', () => {
    const pace = createPace();
    const takes = bucket(1_000_000);
    run(pace, [0, 1, 2, 3], 'a', takes, 0, 5_000);
    const { perSecond, refusedShare } = run(pace, [0, 1, 2, 3], 'a', takes, 5_000, 30_000);
    expect(perSecond).toBeGreaterThan(900_000);
    expect(refusedShare).toBeLessThan(0.2);
  });

  it('keeps shards apart, and finds out when one takes more than before', () => {
    const pace = createPace();
    const slow = bucket(100_000);
    run(pace, [0], 'a', slow, 0, 5_000);
    expect(pace.slowest()).toBeLessThan(150_000);
    pace.taken(1, 'b', 1_000, 5_000);
    expect(pace.budget(1, 5_000)).toBe(Number.POSITIVE_INFINITY);
    // split: the lane goes to a shard that nobody knows yet
    pace.taken(0, 'c', 1_000, 5_000);
    expect(pace.slowest()).toBeNull();
    expect(pace.budget(0, 5_000)).toBe(Number.POSITIVE_INFINITY);
  });

  it('grows again without throttling, until there is no limit', () => {
    const pace = createPace();
    pace.taken(0, 'a', 100_000, 0);
    pace.throttled(0, 0);
    const before = pace.slowest()!;
    pace.budget(0, 10_000);
    expect(pace.slowest()!).toBeGreaterThan(before * 1.3);
    for (let s = 11; s < 300; s += 1) pace.budget(0, s * 1_000);
    expect(pace.slowest()).toBeNull();
  });
});
