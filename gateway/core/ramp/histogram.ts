import { binomialTail } from './statistics.ts';

/** Buckets per doubling: neighbours differ by 4.4 %, and so does what a quantile may be off. */
const PER_OCTAVE = 16;
const LEAST_MS = 0.1;
/** From 0.1 ms to 29 hours: the bound of memory and rows per upstream, whatever the latencies. */
const MAX_BUCKET = 30 * PER_OCTAVE;

/** Latencies in buckets that grow by a fixed factor (as HdrHistogram and DDSketch do): bucket -> count. */
export type Histogram = ReadonlyMap<number, number>;

/** The bucket of a latency in ms: 0..480. */
export const bucketOfMs = (ms: number): number => {
  if (!(ms > LEAST_MS)) return 0;
  return Math.min(MAX_BUCKET, Math.ceil(Math.log2(ms / LEAST_MS) * PER_OCTAVE));
};

/** The upper edge of a bucket in ms. */
export const edgeMs = (bucket: number): number => LEAST_MS * 2 ** (bucket / PER_OCTAVE);

export const total = (histogram: Histogram): number => {
  let n = 0;
  for (const count of histogram.values()) n += count;
  return n;
};

const ascending = (histogram: Histogram): [number, number][] => [...histogram].filter(([, n]) => n > 0).sort(([a], [b]) => a - b);

/** The quantile (0..1) in ms: the upper edge of the bucket that holds it; 0 for an empty histogram. */
export const quantileMs = (histogram: Histogram, q: number): number => {
  const rank = Math.ceil(q * total(histogram));
  let seen = 0;
  for (const [bucket, n] of ascending(histogram)) {
    seen += n;
    if (seen >= rank) return edgeMs(bucket);
  }
  return 0;
};

/**
 * Distribution-free upper confidence bound of a quantile, from order statistics (Hahn, Meeker, Escobar: Statistical Intervals, 2nd ed., section 5.2):
 * the least edge v for which "the quantile lies above v" is refused at `alpha`. Infinity while there are too few samples for any.
 */
export const quantileBoundMs = (histogram: Histogram, q: number, alpha: number): number => {
  const n = total(histogram);
  let below = 0;
  for (const [bucket, count] of ascending(histogram)) {
    below += count;
    if (binomialTail(below, n, q) <= alpha) return edgeMs(bucket);
  }
  return Number.POSITIVE_INFINITY;
};

/** p-value of "the quantile is at most `ms`": the exact sign test of how many samples lie above it. */
export const quantileAbove = (histogram: Histogram, q: number, ms: number): number => {
  let above = 0;
  let n = 0;
  for (const [bucket, count] of histogram) {
    n += count;
    if (edgeMs(bucket - 1) >= ms) above += count;
  }
  return binomialTail(above, n, 1 - q);
};
