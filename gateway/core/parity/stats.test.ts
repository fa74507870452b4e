import { describe, expect, it } from '@jest/globals';
import { sprt, wilson } from './stats.ts';

describe('sprt', () => {
  it('promotes a clean run at the 3,033rd match, not before', () => {
    expect(sprt(3032, 0).state).toBe('continue');
    expect(sprt(3033, 0).state).toBe('promote');
  });
  it('rolls back at the third early mismatch', () => {
    expect(sprt(100, 2).state).toBe('continue');
    expect(sprt(100, 3).state).toBe('rollback');
  });
  it('weighs a match 0.001502 and a mismatch -1.3863', () => {
    expect(sprt(1, 0).llr).toBeCloseTo(0.001502, 6);
    expect(sprt(0, 1).llr).toBeCloseTo(-1.3863, 4);
  });
  it('starts undecided', () => {
    expect(sprt(0, 0)).toEqual({ state: 'continue', llr: 0 });
  });
});

describe('wilson', () => {
  it.each([
    [0, 0, 0, 1],
    [10, 10, 0.7225, 1],
    [50, 100, 0.4038, 0.5962],
    [0, 10, 0, 0.2775],
  ])('of %i in %i is %f..%f', (successes, total, low, high) => {
    const [lo, hi] = wilson(successes, total);
    expect(lo).toBeCloseTo(low, 4);
    expect(hi).toBeCloseTo(high, 4);
  });
});
