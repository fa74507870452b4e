import { binomialTail, spent } from '../ramp/statistics.ts';

/**
 * Does a field differ more often between the sides than legacy differs from itself? Of each triple (legacy twice, extracted once) it counts
 * how often only extracted, and how often only the second legacy answer, differs from the first. If extracted behaves like legacy, both are
 * equally likely whatever the noise, so that the first is Binomial(both, 1/2): the sign test of McNemar (Psychometrika 12, 1947), exact, one-sided.
 */
export type Tally = { readonly onlyExtracted: number; readonly onlyLegacy: number };

/** What is remembered of a field between looks. */
export type Looked = {
  /** How many looks were taken. */
  readonly looks: number;
  /** The smallest p-value of any look, over the share of the error that the look may spend; 1 = nothing. Valid over all looks (union bound). */
  readonly p: number;
};

export const NOT_LOOKED: Looked = { looks: 0, p: 1 };

/** Chance that a service that behaves like legacy ever raises an alarm in an endpoint. */
export const NOISE_ALPHA = 0.01;

/**
 * Look k happens when FIRST_LOOK * 2^k triples were discordant (differed on one side only), and may spend 1/((k+1)(k+2)) of alpha. Counting
 * discordant triples instead of all spends nothing while nothing could be decided: an error in 0.02 % of 100,000 answers that are otherwise equal is
 * found at the eighth, where looks at 100 * 2^k triples would need 14 of the 20 expected (2^-14 < 0.01/132) and come too late.
 * Given their number the signs of discordant triples are fair coins, so the error holds. 8 is the first count that can decide: 2^-8 < 0.01/2.
 */
const FIRST_LOOK = 8;

/** Discordant triples at which the next look is due. */
export const nextLookAt = (looks: number): number => FIRST_LOOK * 2 ** looks;

/** Exact P(at least `onlyExtracted` of all discordant triples) for a fair coin; 1 where they are not the larger half. */
export const signTest = ({ onlyExtracted, onlyLegacy }: Tally): number => binomialTail(onlyExtracted, onlyExtracted + onlyLegacy, 0.5);

/** Looks at a field, if a look is due; the same object when none is. Late looks (many triples at once) count as the last one that was due. */
export const look = (before: Looked, tally: Tally): Looked => {
  const discordant = tally.onlyExtracted + tally.onlyLegacy;
  if (discordant < nextLookAt(before.looks)) return before;
  let looks = before.looks;
  while (discordant >= nextLookAt(looks)) looks++;
  return { looks, p: Math.min(before.p, signTest(tally) / spent(1, looks - 1)) };
};

/**
 * Holm's step-down procedure (Scand. J. Statist. 6, 1979): which of the p-values are significant when the chance of a single false one among all
 * is to stay below `alpha`.
 */
export const holm = (pValues: readonly number[], alpha: number = NOISE_ALPHA): boolean[] => {
  const order = pValues.map((_, i) => i).sort((a, b) => pValues[a]! - pValues[b]!);
  const significant = pValues.map(() => false);
  for (const [rank, i] of order.entries()) {
    if (pValues[i]! > alpha / (pValues.length - rank)) break;
    significant[i] = true;
  }
  return significant;
};
