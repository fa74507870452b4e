import type { Upstream } from '@banyan/contracts/vocabulary.ts';
import { type Counts, mannWhitneyOf, type RankTest } from './stats.ts';

/** Smallest step, ms. */
const UNIT_MS = 0.01;
/** Values up to 2^7 units stand for themselves, above that each doubling has 2^6 buckets: the upper edge is at most 1.6 % above what was measured. */
const EXACT_BITS = 7;
const HALF = 1 << (EXACT_BITS - 1);
/** From 0.01 ms to 2^25 units, 5.6 minutes. */
const MAX_BITS = 25;

/** The bucket of a latency in ms, log-linear as HdrHistogram's (Gil Tene, 2012): 0..1279. */
export const latencyBucket = (ms: number): number => {
  const units = Math.min(2 ** MAX_BITS - 1, Math.max(0, Math.ceil(ms / UNIT_MS)));
  if (!(units >= 2 * HALF)) return units || 0;
  const shift = Math.floor(Math.log2(units)) - EXACT_BITS + 1;
  return shift * HALF + (units >> shift);
};

/** The largest latency, ms, that falls into a bucket. */
export const latencyEdge = (bucket: number): number => {
  if (bucket < 2 * HALF) return bucket * UNIT_MS;
  const shift = Math.floor(bucket / HALF) - 1;
  const units = (((bucket - shift * HALF + 1) << shift) - 1) * UNIT_MS;
  return Math.round(units * 100) / 100;
};

/** The quantile (0..1) in ms; 0 of nothing. */
export const latencyQuantile = (buckets: Counts, q: number): number => {
  const ordered = [...buckets].sort(([a], [b]) => a - b);
  const rank = Math.max(1, Math.ceil(q * ordered.reduce((n, [, count]) => n + count, 0)));
  let seen = 0;
  for (const [bucket, count] of ordered) {
    seen += count;
    if (seen >= rank) return latencyEdge(bucket);
  }
  return 0;
};

/** `primary` = the client waited for it; `copy` = only the comparison did. */
export type Asked = 'primary' | 'copy';

export type LatencyRow = {
  readonly context: string;
  readonly route: string;
  readonly upstream: Upstream;
  readonly asked: Asked;
  readonly bucket: number;
  readonly n: number;
};

type SideLatency = {
  readonly upstream: Upstream;
  readonly asked: Asked;
  readonly n: number;
  /** ms to the head of the answer. */
  readonly p50: number;
  readonly p90: number;
  readonly p99: number;
  readonly max: number;
};

export type LatencyReport = {
  readonly route: string;
  readonly sides: readonly SideLatency[];
  /** Mann-Whitney: is extracted slower? null while there are fewer than 8 answers of a side. */
  readonly test:
    | (RankTest & {
        /** `copies` = both were asked beside the client, at the same moment; `mixed` = one of them answered the client. */
        readonly basis: 'copies' | 'mixed';
        /** Median of extracted over that of legacy. */
        readonly medians: number;
      })
    | null;
};

/** By route. Pure. */
export const latencyReportsOf = (rows: readonly LatencyRow[]): LatencyReport[] =>
  [...Map.groupBy(rows, ({ route }) => route)]
    .sort(([a], [b]) => (a < b ? -1 : 1))
    .map(([route, own]) => {
      const groups = new Map([...Map.groupBy(own, (row) => `${row.upstream} ${row.asked}`)].map(([key, some]) => [key, countsOf(some)]));
      const sides = (['legacy', 'extracted'] as const).flatMap((upstream) =>
        (['primary', 'copy'] as const).flatMap((asked): SideLatency[] => {
          const counts = groups.get(`${upstream} ${asked}`);
          if (!counts) return [];
          const [p50, p90, p99, max] = [0.5, 0.9, 0.99, 1].map((q) => latencyQuantile(counts, q)) as [number, number, number, number];
          return [{ upstream, asked, n: [...counts.values()].reduce((sum, n) => sum + n, 0), p50, p90, p99, max }];
        }),
      );
      return { route, sides, test: testOf(groups) };
    });

const countsOf = (rows: readonly LatencyRow[]): Map<number, number> => {
  const counts = new Map<number, number>();
  for (const { bucket, n } of rows) counts.set(bucket, (counts.get(bucket) ?? 0) + n);
  return counts;
};

/** Both as copies is fairer: they start at the same moment and wait in the same queues. */
const testOf = (groups: ReadonlyMap<string, Counts>): LatencyReport['test'] => {
  const pairs = [
    ['copies', 'legacy copy', 'extracted copy'],
    ['mixed', 'legacy primary', 'extracted copy'],
    ['mixed', 'legacy copy', 'extracted primary'],
  ] as const;
  for (const [basis, ours, theirs] of pairs) {
    const [legacy, extracted] = [groups.get(ours), groups.get(theirs)];
    const found = legacy && extracted ? mannWhitneyOf(legacy, extracted) : null;
    if (!found) continue;
    const median = latencyQuantile(legacy!, 0.5);
    return { ...found, basis, medians: median === 0 ? 1 : Math.round((latencyQuantile(extracted!, 0.5) / median) * 1_000) / 1_000 };
  }
  return null;
};
