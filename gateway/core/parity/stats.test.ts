import { describe, expect, it } from '@jest/globals';
import { mannWhitney, rankTest, sprt, wilson } from './stats.ts';

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
  const counts = (values: readonly number[]): Map<number, number> => {
    const found = new Map<number, number>();
    for (const value of values) found.set(value, (found.get(value) ?? 0) + 1);
    return found;
  };
  it('gives what SciPy documents for mannwhitneyu(males, females, method="asymptotic")', () => {
    const { larger, p } = rankTest(counts([20, 11, 17, 12]), counts([19, 22, 16, 29, 24]));
    expect(larger * 20).toBeCloseTo(17, 10);
    expect(p).toBeCloseTo(0.111347, 6);
  });
  it('gives what R documents for wilcox.test(Ozone ~ Month, airquality, Month %in% c(5, 8)), with ties', () => {
    const may = [41, 36, 12, 18, 28, 23, 19, 8, 7, 16, 11, 14, 18, 14, 34, 6, 30, 11, 1, 11, 4, 32, 23, 45, 115, 37];
    const august = [39, 9, 16, 78, 35, 66, 122, 89, 110, 44, 28, 65, 22, 59, 23, 31, 44, 21, 9, 45, 168, 73, 76, 118, 84, 85];
    const { larger, p } = mannWhitney(august, may)!;
    expect(larger * 26 * 26).toBeCloseTo(127.5, 10);
    expect(p).toBeCloseTo(0.0001208, 7);
  });
  it('tells a shift from none, and says nothing about a handful', () => {
    expect(mannWhitney(range(0, 100), range(0, 100))).toEqual({ larger: 0.5, p: 1 });
    const shifted = mannWhitney(range(0, 100), range(30, 100))!;
    expect(shifted.larger).toBeCloseTo(0.755, 3);
    expect(shifted.p).toBeLessThan(1e-8);
    expect(mannWhitney([1, 1, 1, 1, 1, 1, 1, 1], [1, 1, 1, 1, 1, 1, 1, 1])).toEqual({ larger: 0.5, p: 1 });
    expect(mannWhitney([1, 2], range(0, 100))).toBeNull();
  });
});
