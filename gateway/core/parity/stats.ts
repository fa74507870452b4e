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
