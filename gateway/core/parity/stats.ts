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

/** Upper tail of the standard normal distribution (Abramowitz and Stegun, 26.2.17; error below 7.5e-8). */
const normalTail = (z: number): number => {
  const t = 1 / (1 + 0.2316419 * z);
  const poly = t * (0.31938153 + t * (-0.356563782 + t * (1.781477937 + t * (-1.821255978 + t * 1.330274429))));
  return (Math.exp((-z * z) / 2) / Math.sqrt(2 * Math.PI)) * poly;
};

/** Mann-Whitney U (Ann. Math. Stat. 18, 1947): are values of `b` larger than those of `a`? Null with fewer than 8 values on a side. */
export const mannWhitney = (a: readonly number[], b: readonly number[]): RankTest | null => {
  const [n, m] = [a.length, b.length];
  if (n < 8 || m < 8) return null;
  const all = [...a.map((value) => ({ value, b: false })), ...b.map((value) => ({ value, b: true }))].sort((x, y) => x.value - y.value);
  let [rankSum, ties] = [0, 0];
  for (let i = 0; i < all.length; ) {
    let end = i;
    while (end < all.length && all[end]!.value === all[i]!.value) end++;
    for (let k = i; k < end; k++) if (all[k]!.b) rankSum += (i + 1 + end) / 2;
    ties += (end - i) ** 3 - (end - i);
    i = end;
  }
  const u = rankSum - (m * (m + 1)) / 2;
  const total = n + m;
  const variance = ((n * m) / 12) * (total + 1 - ties / (total * (total - 1)));
  if (variance === 0) return { larger: 0.5, p: 1 };
  const z = Math.max(0, Math.abs(u - (n * m) / 2) - 0.5) / Math.sqrt(variance);
  return { larger: u / (n * m), p: z === 0 ? 1 : Math.min(1, 2 * normalTail(z)) };
};
