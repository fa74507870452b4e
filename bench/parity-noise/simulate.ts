import { holm, type Looked, look, NOT_LOOKED, nextLookAt } from '../../gateway/core/parity/noise.ts';
import { binomialTail, spent } from '../../gateway/core/ramp/statistics.ts';
import { createRandom, type Random } from '../random.ts';

/** One simulated endpoint: chances that an answer differs from legacy's first one at a field, independent of each other. */
export type Scenario = {
  readonly name: string;
  /** Of legacy's second answer. */
  readonly noise: number;
  /** Of extracted's answer, at the first field. */
  readonly extracted: number;
  readonly fields: number;
  /** Triples. */
  readonly n: number;
};

export type Rule = 'banyan' | 'looks-by-triples' | 'diffy';

/** Draws from Binomial(n, p) by the waits between successes: quick where p is small. */
const binomial = (random: Random, n: number, p: number): number => {
  if (p <= 0) return 0;
  if (p > 0.05) {
    let successes = 0;
    for (let i = 0; i < n; i++) if (random() < p) successes++;
    return successes;
  }
  const scale = Math.log1p(-p);
  let [at, successes] = [0, 0];
  for (;;) {
    at += Math.floor(Math.log1p(-random()) / scale) + 1;
    if (at > n) return successes;
    successes++;
  }
};

/** The triples between two looks are drawn at once; what they show, in the order of the gateway's batches. */
const BATCH = 50;

type Field = { raw: number; noise: number; onlyExtracted: number; onlyLegacy: number; state: Looked; byTriples: Looked };

/** Diffy's rule, as Settings.scala sets it: raw over noise, more than 20 % of both, more than 0.03 % of all. */
const diffyFlags = ({ raw, noise }: Field, total: number): boolean =>
  raw > noise && ((raw - noise) / (raw + noise)) * 100 > 20 && ((raw - noise) / total) * 100 > 0.03;

/**
 * One run of `scenario`: which rules raise an alarm about any field by its end. Ours looks when the gateway would: whenever a batch of triples
 * was added and a look is due. `looks-by-triples` is the same test with looks at 100 * 2^k triples. Diffy's rule is read once, at the end: read more often it only alarms more.
 */
export const simulate = (scenario: Scenario, seed: number): Readonly<Record<Rule, boolean>> => {
  const random = createRandom(seed);
  const { noise, extracted, n } = scenario;
  const fields: Field[] = Array.from({ length: scenario.fields }, () => ({
    raw: 0,
    noise: 0,
    onlyExtracted: 0,
    onlyLegacy: 0,
    state: NOT_LOOKED,
    byTriples: NOT_LOOKED,
  }));
  const alarms = { banyan: false, 'looks-by-triples': false, diffy: false };
  let triples = 0;
  while (triples < n) {
    const batch = Math.min(BATCH, n - triples);
    triples += batch;
    let looked = false;
    for (const [i, field] of fields.entries()) {
      const p = i === 0 ? extracted : noise;
      const differs = binomial(random, batch, noise);
      const both = binomial(random, differs, p);
      const only = binomial(random, batch - differs, p);
      field.noise += differs;
      field.raw += both + only;
      field.onlyExtracted += only;
      field.onlyLegacy += differs - both;
      if (field.onlyExtracted + field.onlyLegacy >= nextLookAt(field.state.looks)) {
        field.state = look(field.state, field);
        looked = true;
      }
    }
    if (looked && !alarms.banyan) alarms.banyan = holm(fields.map(({ state }) => state.p)).includes(true);
    const k = fields[0]!.byTriples.looks;
    if (triples >= 100 * 2 ** k) {
      for (const field of fields) {
        const p = binomialTail(field.onlyExtracted, field.onlyExtracted + field.onlyLegacy, 0.5) / spent(1, k);
        field.byTriples = { looks: k + 1, p: Math.min(field.byTriples.p, p) };
      }
      alarms['looks-by-triples'] ||= holm(fields.map(({ byTriples }) => byTriples.p)).includes(true);
    }
  }
  alarms.diffy = fields.some((field) => diffyFlags(field, triples));
  return alarms;
};
