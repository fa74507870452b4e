import type { Difference, Noise, Verdict } from './observation.ts';
import { fieldOf } from './path.ts';
import { shapeOf } from './shape.ts';

/** The name under which noise that legacy shows against itself is counted. */
export const PROBE_RULE = 'probe';

/** What a field family and a kind of difference are counted under. */
export const fieldKey = ({ path, kind }: Pick<Difference, 'path' | 'kind'>): string => `${fieldOf(path)} ${kind}`;

/** The places at which two answers of legacy to the same query differ. */
export const volatileFields = (legacyTwice: Verdict): readonly Difference[] =>
  legacyTwice.kind === 'mismatch' ? legacyTwice.differences : [];

/**
 * Excuses differences at places where legacy differs from itself in the same way (same field family, same kind), as rule `probe`.
 * A value is excused only while its shape is one that legacy showed there: a field that is always noisy must not hide a broken one.
 */
export const excuseVolatile = (verdict: Verdict, volatile: readonly Difference[]): Verdict => {
  if (verdict.kind !== 'mismatch' || volatile.length === 0) return verdict;
  const shapes = new Map<string, Set<string>>();
  for (const difference of volatile) {
    const known = shapes.get(fieldKey(difference)) ?? new Set();
    shapes.set(fieldKey(difference), known.add(shapeOf(difference.legacy)).add(shapeOf(difference.extracted)));
  }
  const differences: Difference[] = [];
  const noise: Noise[] = [...verdict.noise];
  for (const difference of verdict.differences) {
    const seen = shapes.get(fieldKey(difference));
    const excused = seen !== undefined && (difference.kind !== 'value' || seen.has(shapeOf(difference.extracted)));
    if (excused) noise.push({ ...difference, rule: PROBE_RULE });
    else differences.push(difference);
  }
  return differences.length > 0 ? { kind: 'mismatch', differences, noise } : { kind: 'noise', noise };
};

/**
 * What of an earlier verdict shows again in a later one, asked of both sides anew. A mismatch keeps only the differences whose field
 * and kind repeat; with none left it was one side lagging behind the other. An answer that could not be compared again proves nothing.
 */
export const reproduced = (earlier: Verdict, later: Verdict): Verdict => {
  if (earlier.kind !== 'mismatch') return earlier;
  if (later.kind === 'incomparable') return later;
  if (later.kind !== 'mismatch') return { kind: 'incomparable', why: 'lagging' };
  const again = new Set(later.differences.map(fieldKey));
  const differences = earlier.differences.filter((difference) => again.has(fieldKey(difference)));
  return differences.length > 0 ? { ...earlier, differences } : { kind: 'incomparable', why: 'lagging' };
};
