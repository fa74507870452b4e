import { createAliases } from './aliases.ts';
import type { Difference, Noise, Observation, Verdict } from './observation.ts';
import { shapeOf } from './shape.ts';

/** The name under which moments that both sides took at the same time are counted. */
const CLOCK_RULE = 'clock';

/** The two sides look at their clocks at most so far apart, ms. */
const CLOCK_MS = 60_000;
const SCALE: Readonly<Record<string, number>> = { 'epoch-s': 1_000, 'epoch-ms': 1 };
/** What a program prints that has no id. */
const NO_ID = new Set(['undefined', 'null', 'NaN', '[object Object]', '0', '']);

const momentOf = (value: unknown): number => {
  const shape = shapeOf(value);
  if (shape === 'time') return Date.parse(String(value));
  return SCALE[shape] === undefined ? Number.NaN : Number(value) * SCALE[shape];
};

const isClock = ({ kind, legacy, extracted }: Difference): boolean =>
  kind === 'value' && shapeOf(legacy) === shapeOf(extracted) && Math.abs(momentOf(legacy) - momentOf(extracted)) <= CLOCK_MS;

/**
 * What no dry run can answer alike is noise: the id of a thing that it does not make (rule `alias`, with links to it), and the moment at which it was not made
 * (rule `clock`, at most a minute apart). Everything else counts. `verdict` is that of `legacy` and `extracted`, the answers to the command at `target`.
 */
export const excuseDryRun = (target: string, legacy: Observation, extracted: Observation, verdict: Verdict): Verdict => {
  if (verdict.kind !== 'mismatch') return verdict;
  const own = createAliases();
  for (const alias of createAliases().learn(target, legacy, extracted)) if (!NO_ID.has(alias.extracted)) own.remember(alias);
  const named = own.excuse(verdict);
  if (named.kind !== 'mismatch') return named;
  const differences: Difference[] = [];
  const noise: Noise[] = [...named.noise];
  for (const difference of named.differences)
    if (isClock(difference)) noise.push({ ...difference, rule: CLOCK_RULE });
    else differences.push(difference);
  return differences.length > 0 ? { kind: 'mismatch', differences, noise } : { kind: 'noise', noise };
};
