import { describe, expect, it } from '@jest/globals';
import fc from 'fast-check';
import { bucketOfMs, edgeMs, quantileAbove, quantileBoundMs, quantileMs } from './histogram.ts';
import { binomialTail, fisherTail, spent } from './statistics.ts';

describe('binomialTail', () => {
  it.each([
    [3, 10, 0.1],
    [10, 10, 0.5],
    [20, 1_000, 0.001],
    [12, 1_000, 0.01],
    [990, 1_000, 0.95],
  ])('of %i in %i at %f is the sum of all its terms', (k, n, p) => {
    let sum = 0;
    let logC = 0;
    for (let i = 0; i <= n; i++) {
      if (i > 0) logC += Math.log((n - i + 1) / i);
      if (i >= k) sum += Math.exp(logC + i * Math.log(p) + (n - i) * Math.log1p(-p));
    }
    expect(binomialTail(k, n, p) / sum).toBeCloseTo(1, 9);
  });

  it('is 1 at the least, falls as more fail, and stays exact for millions', () => {
    expect(binomialTail(0, 10, 0.5)).toBe(1);
    expect(binomialTail(11, 10, 0.5)).toBe(0);
    const tail = binomialTail(10_500, 10_000_000, 0.001);
    expect(tail).toBeGreaterThan(2e-7);
    expect(tail).toBeLessThan(5e-7);
  });
});

describe('fisherTail', () => {
  it.each([
    // the lady tasting tea: 3 of 4 right, 1 of 4 wrong
    [3, 4, 1, 4, 0.242857],
    [4, 4, 0, 4, 0.0142857],
    [8, 100, 1, 100, 0.017_5],
    [20, 1_000, 0, 3_000, 0.25 ** 20 * 0.83],
  ])('of %i in %i against %i in %i is %f', (failed, n, otherFailed, otherN, p) => {
    expect(fisherTail(failed, n, otherFailed, otherN) / p).toBeCloseTo(1, 1);
  });

  it('is a probability, and smaller the more of the same failures lie on one side', () => {
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 5_000 }), fc.integer({ min: 1, max: 5_000 }), fc.nat(40), fc.nat(40), (n, m, a, b) => {
        const [failed, other] = [Math.min(a, n), Math.min(b, m)];
        const p = fisherTail(failed, n, other, m);
        expect(p).toBeGreaterThan(0);
        expect(p).toBeLessThanOrEqual(1);
        if (failed < n && other > 0) expect(fisherTail(failed + 1, n, other - 1, m)).toBeLessThanOrEqual(p * (1 + 1e-9));
      }),
    );
  });
});

it('looks spend no more than alpha together', () => {
  const sum = Array.from({ length: 10_000 }, (_, look) => spent(0.01, look)).reduce((a, b) => a + b, 0);
  expect(sum).toBeLessThanOrEqual(0.01);
  expect(sum).toBeGreaterThan(0.0099);
});

describe('histogram', () => {
  const of = (values: readonly number[]): Map<number, number> => {
    const made = new Map<number, number>();
    for (const value of values) made.set(bucketOfMs(value), (made.get(bucketOfMs(value)) ?? 0) + 1);
    return made;
  };

  it('keeps every latency within 4.4 %, in at most 481 buckets', () => {
    fc.assert(
      fc.property(fc.double({ min: 0.1, max: 86_400_000, noNaN: true }), (ms) => {
        const edge = edgeMs(bucketOfMs(ms));
        expect(edge / ms).toBeGreaterThan(0.999_999);
        expect(edge / ms).toBeLessThan(1.0443);
      }),
    );
    expect([bucketOfMs(-1), bucketOfMs(Number.NaN), bucketOfMs(0), bucketOfMs(1e300)]).toEqual([0, 0, 0, 480]);
  });

  it('gives quantiles, their bound, and how sure it is that one lies higher', () => {
    const values = Array.from({ length: 10_000 }, (_, i) => 1 + (i % 100));
    expect(quantileMs(of(values), 0.95) / 95).toBeCloseTo(1, 1);
    expect(quantileMs(new Map(), 0.95)).toBe(0);
    const bound = quantileBoundMs(of(values), 0.95, 0.001);
    expect(bound).toBeGreaterThanOrEqual(95);
    expect(bound).toBeLessThan(101);
    expect(quantileBoundMs(of([1, 2, 3]), 0.99, 0.01)).toBe(Number.POSITIVE_INFINITY);
    expect(quantileAbove(of(values), 0.95, 80)).toBeLessThan(1e-12);
    expect(quantileAbove(of(values), 0.95, 120)).toBe(1);
  });
});
