import { type BenchOptions, machine, type Report, type Row, round } from '../report.ts';
import { type Rule, type Scenario, simulate } from './simulate.ts';

const FIELDS = [1, 50, 200];

/** What a service may be like; `key` names the figure of one field. */
const KINDS = [
  { key: 'false_alarm', name: 'same as legacy, 1 % noise', noise: 0.01, extracted: 0.01, n: 100_000 },
  { key: 'false_alarm_30', name: 'same as legacy, 30 % noise', noise: 0.3, extracted: 0.3, n: 10_000 },
  { key: 'power_30_37', name: 'differs in 37 % instead of 30 %', noise: 0.3, extracted: 0.37, n: 10_000 },
  { key: 'power_rare', name: 'wrong in 0.02 %, no noise', noise: 0, extracted: 0.0002, n: 100_000 },
] as const;

const RULES: readonly Rule[] = ['banyan', 'looks-by-triples', 'diffy'];

/**
 * How often the sign test with its looks and Holm's correction raises an alarm: about services that are as good as legacy (the share should stay below
 * 1 %) and about worse ones (the share should be near 1). Seeded simulations of whole runs, every look taken as the gateway takes it; the same triples are
 * judged by looks at 100 * 2^k triples and by Diffy's rule. 1,000 simulations of one field, 500 of 50 and 200.
 */
export const benchParityNoise = async (options: BenchOptions): Promise<Report> => {
  const about = machine();
  const table: Row[] = [];
  const figures: Record<string, number> = {};
  for (const fields of options.quick ? [1] : FIELDS) {
    const runs = options.quick ? 100 : fields === 1 ? 1_000 : 500;
    for (const { key, name, noise, extracted, n } of KINDS) {
      // Many fields with 30 % noise cost minutes and say nothing new.
      if (fields > 1 && key === 'false_alarm_30') continue;
      options.say(`${name}, ${fields} field(s), ${runs} runs of ${n} triples`);
      const scenario: Scenario = { name, noise, extracted, fields, n };
      const alarms: Record<Rule, number> = { banyan: 0, 'looks-by-triples': 0, diffy: 0 };
      for (let seed = 1; seed <= runs; seed++) {
        const found = simulate(scenario, seed * 7_919 + fields);
        for (const rule of RULES) if (found[rule]) alarms[rule]++;
      }
      const share = (rule: Rule): number => round(alarms[rule] / runs, 4);
      const suffix = fields === 1 ? '' : `_${fields}_fields`;
      figures[`${key}${suffix}`] = share('banyan');
      figures[`${key}${suffix}_diffy`] = share('diffy');
      table.push({
        service: name,
        fields,
        triples: n,
        runs,
        banyan: share('banyan'),
        'looks at 100 * 2^k': share('looks-by-triples'),
        "Diffy's rule": share('diffy'),
      });
    }
  }
  return { name: 'parity-noise', machine: about, figures, table, missing: [], versions: { node: process.version } };
};
