import { describe, expect, it } from '@jest/globals';
import { mannWhitney, sprt, wilson } from './stats.ts';

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

describe('Mann-Whitney', () => {
  const range = (from: number, n: number): number[] => Array.from({ length: n }, (_, i) => from + i);
  it('tells a shift from none, and says nothing about a handful', () => {
    expect(mannWhitney(range(0, 100), range(0, 100))).toEqual({ larger: 0.5, p: 1 });
    const shifted = mannWhitney(range(0, 100), range(30, 100))!;
    expect(shifted.larger).toBeCloseTo(0.755, 3);
    expect(shifted.p).toBeLessThan(1e-8);
    expect(mannWhitney([1, 1, 1, 1, 1, 1, 1, 1], [1, 1, 1, 1, 1, 1, 1, 1])).toEqual({ larger: 0.5, p: 1 });
    expect(mannWhitney([1, 2], range(0, 100))).toBeNull();
  });
});
