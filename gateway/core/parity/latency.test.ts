import { describe, expect, it } from '@jest/globals';
import fc from 'fast-check';
import { createRandom } from '../../../bench/random.ts';
import { type LatencyRow, latencyBucket, latencyEdge, latencyQuantile, latencyReportsOf } from './latency.ts';

describe('buckets of latencies', () => {
  it('hold what was measured to 1.6 %, in order, and no more than 1,280 of them', () => {
    fc.assert(
      fc.property(fc.double({ min: 0, max: 330_000, noNaN: true }), (ms) => {
        const edge = latencyEdge(latencyBucket(ms));
        expect(edge).toBeGreaterThanOrEqual(ms - 1e-6);
        expect(edge).toBeLessThanOrEqual(ms * 1.016 + 0.0101);
      }),
    );
    let last = -1;
    for (let ms = 0; ms < 400_000; ms = ms * 1.003 + 0.004) {
      const bucket = latencyBucket(ms);
      expect(bucket).toBeGreaterThanOrEqual(last);
      last = bucket;
    }
    expect(last).toBe(1_279);
    expect(latencyBucket(Number.POSITIVE_INFINITY)).toBe(1_279);
    expect([latencyBucket(-1), latencyBucket(Number.NaN)]).toEqual([0, 0]);
  });
  it('give quantiles', () => {
    const counts = new Map<number, number>();
    for (let ms = 1; ms <= 1_000; ms++) counts.set(latencyBucket(ms), (counts.get(latencyBucket(ms)) ?? 0) + 1);
    expect(latencyQuantile(counts, 0.5) / 500).toBeCloseTo(1, 1);
    expect(latencyQuantile(counts, 0.99) / 990).toBeCloseTo(1, 1);
    expect(latencyQuantile(counts, 1)).toBeGreaterThanOrEqual(1_000);
    expect(latencyQuantile(new Map(), 0.5)).toBe(0);
  });
});

describe('latency of both sides', () => {
  const random = createRandom(7);
  const rows = (upstream: LatencyRow['upstream'], asked: LatencyRow['asked'], n: number, factor: number): LatencyRow[] =>
    Array.from({ length: n }, () => ({
      context: 'order',
      route: '/o',
      upstream,
      asked,
      bucket: latencyBucket(factor * Math.exp(2 + random() + random())),
      n: 1,
    }));
  it('compares copies with copies where there are enough, else what there is', () => {
    const slower = latencyReportsOf([...rows('legacy', 'primary', 500, 1), ...rows('extracted', 'copy', 500, 1.2)])[0]!;
    expect(slower.test).toMatchObject({ basis: 'mixed' });
    expect(slower.test!.larger).toBeGreaterThan(0.55);
    expect(slower.test!.p).toBeLessThan(1e-3);
    expect(slower.test!.medians).toBeGreaterThan(1.1);
    expect(slower.sides.map(({ upstream, asked, n }) => [upstream, asked, n])).toEqual([
      ['legacy', 'primary', 500],
      ['extracted', 'copy', 500],
    ]);
    const copies = latencyReportsOf([
      ...rows('legacy', 'primary', 500, 0.5),
      ...rows('legacy', 'copy', 50, 1),
      ...rows('extracted', 'copy', 500, 1),
    ])[0]!;
    expect(copies.test).toMatchObject({ basis: 'copies' });
    expect(copies.test!.p).toBeGreaterThan(0.001);
    expect(latencyReportsOf(rows('legacy', 'primary', 50, 1))[0]!.test).toBeNull();
  });
  it('raises at most 2 % false alarms at 1 % between equal sides, in 500 seeded runs', () => {
    let alarms = 0;
    for (let run = 0; run < 500; run++) {
      const { test } = latencyReportsOf([...rows('legacy', 'copy', 60, 1), ...rows('extracted', 'copy', 60, 1)])[0]!;
      if (test!.p < 0.01) alarms++;
    }
    expect(alarms).toBeLessThanOrEqual(10);
  });
});
