import { describe, expect, it } from '@jest/globals';
import { createLinger } from './linger.ts';

/** `perSecond` facts, in requests `everyMs` apart, for two seconds. */
const after = (perSecond: number, everyMs = 50) => {
  const linger = createLinger();
  for (let at = 0; at <= 2_000; at += everyMs) linger.sent((perSecond * everyMs) / 1_000, at);
  return linger;
};

describe('the linger of the relay', () => {
  it('is short while nothing comes', () => {
    expect(createLinger().pauseMs(1_000)).toBe(20);
  });

  it('grows with the rate, up to its limit', () => {
    const pauses = [10, 100, 500, 2_000, 100_000].map((rate) => after(rate).pauseMs(2_000));
    expect(pauses).toEqual(pauses.toSorted((a, b) => a - b));
    expect(pauses[0]).toBeLessThan(22);
    expect(pauses[2]).toBeGreaterThan(40);
    expect(pauses.at(-1)).toBe(80);
  });

  it('is short again soon after a burst', () => {
    const linger = after(5_000);
    expect(linger.pauseMs(2_000)).toBe(80);
    expect(linger.pauseMs(8_000)).toBeLessThan(21);
  });
});
