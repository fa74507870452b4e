/** ln n!, by table below 32 and by Stirling's series above (its error there is under 1e-13). */
const SMALL: readonly number[] = (() => {
  const made = [0];
  for (let n = 1; n < 32; n++) made.push(made[n - 1]! + Math.log(n));
  return made;
})();
const logFactorial = (n: number): number => {
  if (n < SMALL.length) return SMALL[n]!;
  const n3 = n * n * n;
  return n * Math.log(n) - n + 0.5 * Math.log(2 * Math.PI * n) + 1 / (12 * n) - 1 / (360 * n3) + 1 / (1260 * n3 * n * n);
};

/** Sum of terms that fall from the first on: ends when a term no longer counts. @param ratio term at k+1 over term at k */
const tailFrom = (first: number, last: number, logTerm: number, ratio: (k: number) => number): number => {
  let term = Math.exp(logTerm);
  let sum = term;
  for (let k = first; k < last && term > sum * 1e-17; k++) {
    term *= ratio(k);
    sum += term;
  }
  return Math.min(1, sum);
};

/**
 * Exact upper tail P(X >= k) of X ~ Bin(n, p): the one-sided exact binomial test (Clopper and Pearson, Biometrika 26, 1934).
 * 1 where k does not exceed what is expected: no test of ours looks there.
 */
export const binomialTail = (k: number, n: number, p: number): number => {
  if (k <= 0 || k <= n * p) return 1;
  if (k > n || p <= 0) return 0;
  const log = logFactorial(n) - logFactorial(k) - logFactorial(n - k) + k * Math.log(p) + (n - k) * Math.log1p(-p);
  return tailFrom(k, n, log, (i) => ((n - i) / (i + 1)) * (p / (1 - p)));
};

/**
 * One-sided p-value of Fisher's exact test that the first of two groups fails more often (Fisher, Statistical Methods for Research Workers, 1934, section 21.02):
 * the hypergeometric chance of so many of all failures in the first group. 1 where it has no more than its share.
 */
export const fisherTail = (failed: number, n: number, otherFailed: number, otherN: number): number => {
  const all = n + otherN;
  const failures = failed + otherFailed;
  if (failed === 0 || failed * all <= failures * n) return 1;
  const most = Math.min(failures, n);
  const log =
    logFactorial(n) -
    logFactorial(failed) -
    logFactorial(n - failed) +
    logFactorial(otherN) -
    logFactorial(otherFailed) -
    logFactorial(otherN - otherFailed) -
    (logFactorial(all) - logFactorial(failures) - logFactorial(all - failures));
  return tailFrom(failed, most, log, (i) => ((n - i) * (failures - i)) / ((i + 1) * (otherN - failures + i + 1)));
};

/**
 * Chance of a false alarm that look number `look` (from 0) may spend of `alpha`: alpha / ((k+1)(k+2)), which sums to alpha over all looks.
 * By the union bound the whole series keeps alpha, however often and however long somebody looks.
 */
export const spent = (alpha: number, look: number): number => alpha / ((look + 1) * (look + 2));
