/** Normal quantile of a two-sided 95 % interval. */
const Z95 = 1.959963984540054;

/** Wilson score interval of a proportion, two-sided 95 %; [0, 1] while nothing was seen. For display only: peeking at it breaks its promise. */
export const wilson = (successes: number, total: number, z: number = Z95): [low: number, high: number] => {
  if (total <= 0) return [0, 1];
  const p = successes / total;
  const z2 = z * z;
  const centre = p + z2 / (2 * total);
  const margin = z * Math.sqrt((p * (1 - p)) / total + z2 / (4 * total * total));
  const scale = 1 + z2 / total;
  return [Math.max(0, (centre - margin) / scale), Math.min(1, (centre + margin) / scale)];
};

export type Gate = {
  /** Share of equal answers of a service that should pass; 0..1, above `bad`. Default 0.9995. */
  readonly good: number;
  /** Share of a service that must not pass. Default 0.998. */
  readonly bad: number;
  /** Chance to promote a bad one. Default 0.01. */
  readonly alpha: number;
  /** Chance to stop a good one. Default 0.05. */
  readonly beta: number;
};

const DEFAULT_GATE: Gate = { good: 0.9995, bad: 0.998, alpha: 0.01, beta: 0.05 };

export type Sprt = { readonly state: 'promote' | 'rollback' | 'continue'; readonly llr: number };

/**
 * Wald's sequential probability ratio test, valid at every look. `llr` is the log likelihood ratio good/bad; with the default gate a
 * match adds 0.001502, a mismatch takes 1.3863, promote from 4.554, roll back from -2.986 (a clean run promotes at 3,033).
 */
export const sprt = (matches: number, mismatches: number, gate: Partial<Gate> = {}): Sprt => {
  const { good, bad, alpha, beta } = { ...DEFAULT_GATE, ...gate };
  const llr = matches * Math.log(good / bad) + (mismatches === 0 ? 0 : mismatches * Math.log((1 - good) / (1 - bad)));
  const state = llr >= Math.log((1 - beta) / alpha) ? 'promote' : llr <= Math.log(beta / (1 - alpha)) ? 'rollback' : 'continue';
  return { state, llr };
};

export type RankTest = {
  /** Chance that a value of `b` is larger than one of `a`; 0.5 = alike. */
  readonly larger: number;
  /** Two-sided p-value, normal approximation with ties. */
  readonly p: number;
};

/** Coefficients of erfc's Chebyshev fit, highest first (Numerical Recipes, 2nd ed., section 6.2). */
const ERFC = [
  0.17087277, -0.82215223, 1.48851587, -1.13520398, 0.27886807, -0.18628806, 0.09678418, 0.37409196, 1.00002368, -1.26551223,
] as const;

/** Upper tail of the standard normal distribution, z >= 0; relative error below 1.2e-7, so that small chances keep their digits. */
const normalTail = (z: number): number => {
  const x = z / Math.SQRT2;
  const t = 1 / (1 + x / 2);
  return 0.5 * t * Math.exp(ERFC.reduce((sum, coefficient) => sum * t + coefficient, 0) - x * x);
};

/** How often each value was seen. */
export type Counts = ReadonlyMap<number, number>;

/** Values of a side below which the normal approximation says nothing. */
const LEAST_VALUES = 8;

const sumOf = (counts: Counts): number => {
  let n = 0;
  for (const count of counts.values()) n += count;
  return n;
};

/**
 * Mann-Whitney U (Ann. Math. Stat. 18, 1947) of counted values, with mid-ranks for ties and continuity correction: are values of `b` larger than
 * those of `a`? `larger` 0.5 and p 1 when either is empty or all values are one.
 */
export const rankTest = (a: Counts, b: Counts): RankTest => {
  const [n, m] = [sumOf(a), sumOf(b)];
  const total = n + m;
  let [rankSum, ties, before] = [0, 0, 0];
  for (const value of [...new Set([...a.keys(), ...b.keys()])].sort((x, y) => x - y)) {
    const theirs = b.get(value) ?? 0;
    const here = (a.get(value) ?? 0) + theirs;
    rankSum += theirs * (before + (here + 1) / 2);
    ties += here ** 3 - here;
    before += here;
  }
  const u = rankSum - (m * (m + 1)) / 2;
  const variance = n === 0 || m === 0 ? 0 : ((n * m) / 12) * (total + 1 - ties / (total * (total - 1)));
  if (!(variance > 0)) return { larger: 0.5, p: 1 };
  const z = Math.max(0, Math.abs(u - (n * m) / 2) - 0.5) / Math.sqrt(variance);
  return { larger: u / (n * m), p: z === 0 ? 1 : Math.min(1, 2 * normalTail(z)) };
};

/** The same test; null with fewer than 8 values on a side. */
export const mannWhitneyOf = (a: Counts, b: Counts): RankTest | null =>
  sumOf(a) < LEAST_VALUES || sumOf(b) < LEAST_VALUES ? null : rankTest(a, b);

const counted = (values: readonly number[]): Counts => {
  const counts = new Map<number, number>();
  for (const value of values) counts.set(value, (counts.get(value) ?? 0) + 1);
  return counts;
};

/** Mann-Whitney of plain values; null with fewer than 8 on a side. */
export const mannWhitney = (a: readonly number[], b: readonly number[]): RankTest | null => mannWhitneyOf(counted(a), counted(b));
