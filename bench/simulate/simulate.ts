import { ramp } from '../../gateway/config/ramp.ts';
import type { RampGate } from '../../gateway/core/ramp/judge.ts';
import { type BenchOptions, machine, percentile, type Report, type Row, round } from '../report.ts';
import { type Ended, untilDecided, untilJudged } from './continuous.ts';
import { type Random, randomOf } from './random.ts';
import { SAME, type Service, type Setting, type Walk, walk } from './walk.ts';

const SEED = 20_261_128;
/** Services at a true 99.8 %, as the acceptance of the gate wants them. */
const BAD_SERVICES = 200;
const BAD = 0.998;
const GOOD = 0.9995;
/** A fault begins at this step. */
const FAULTY_BP = 2_500;

const FAULTS: Readonly<Record<'5xx' | 'p99' | 'parity', Service>> = {
  '5xx': { ...SAME, fails: 0.02 },
  // 3 % of the answers take twice what legacy's slowest 1 % take: its p99 doubles, its p95 does not
  p99: { ...SAME, slow: 0.03 },
  parity: { ...SAME, differs: 0.02 },
};

const shareOf = (found: readonly Ended[]): number => found.filter(({ promoted }) => promoted).length / found.length;

/** The gate as `banyan run` has it when a file says nothing of it. */
const defaults = (): Setting => {
  const { steps, interval, gate, hold, minRequests } = ramp.parse({});
  return {
    gate: { ...gate, hold, minRequests } satisfies RampGate,
    steps,
    interval,
    requestsPerSecond: 200,
    comparedPerSecond: 50,
    failsAnyway: 0.005,
    hours: 24,
  };
};

/**
 * The gate against services whose true behaviour is known, because it is drawn: the real judge, the real marks of the last minutes and the real states of
 * a ramp, under a clock that costs no time. Everything depends on the seed alone. docs/ramp.md quotes it.
 */
export const benchSimulate = async (options: BenchOptions): Promise<Report> => {
  const where = machine();
  const { quick, say } = options;
  const seed = options.seed ?? SEED;
  const services = options.count ?? BAD_SERVICES;
  const many = quick ? 400 : 10_000;
  const ramps = quick ? 3 : 40;
  const setting = defaults();
  const { gate } = setting;
  // every part draws from a sequence of its own, so that more of one changes nothing of another
  let parts = 0;
  const random = (): Random => randomOf(seed + 1_000_003 * parts++);
  const rows: Row[] = [];
  const note = (what: string, n: number, result: string, limit: string): void => void rows.push({ what, n, result, limit });

  say(`${services} services at 99.8 %, judged after every comparison`);
  const draw = random();
  const bad = Array.from({ length: services }, () => untilJudged(BAD, gate, draw));
  const promoted = bad.filter((one) => one.promoted).length;
  const clean = untilJudged(1, gate, random());
  const middle = percentile(
    bad.map(({ at }) => at),
    0.5,
  );
  note('services at a true 99.8 %', services, `${promoted} promoted; half are stopped by ${middle} comparisons`, '<= 6 of 200');
  note('a clean service', 1, `promoted at ${clean.at} comparisons`, '<= 3,100');

  say(`error rates of the parity test over ${many} services each`);
  const errors = random();
  const badMany = Array.from({ length: many }, () => untilDecided(BAD, gate, errors));
  const goodMany = Array.from({ length: many }, () => untilDecided(GOOD, gate, errors));
  const alpha = shareOf(badMany);
  const beta = 1 - shareOf(goodMany);
  note('alpha: 99.8 % promoted', many, `${round(100 * alpha, 2)} %`, '<= 1 %');
  note('beta: 99.95 % stopped', many, `${round(100 * beta, 2)} %`, '<= 5 %');

  say('an hour of no traffic');
  const silent = { ...setting, requestsPerSecond: 0, comparedPerSecond: 0, hours: 1 };
  const idle = walk(silent, () => SAME, random());
  note('an hour without traffic', 1, `${idle.state}, ${idle.moves} moves; ${idle.reasons[0]?.text ?? ''}`, '0 moves');

  say(`${ramps} ramps of a service like legacy, ${setting.requestsPerSecond} queries a second`);
  const equal = random();
  const walks = Array.from({ length: ramps }, () => walk(setting, () => SAME, equal));
  const done = walks.filter(({ state, shareBp }) => state === 'done' && shareBp === 10_000);
  const hours = percentile(
    done.map((one) => one.hours),
    0.5,
  );
  note(
    'ramps of a service like legacy',
    ramps,
    `${done.length} come to 100 %, half within ${round(hours, 2)} h`,
    'each false alarm <= 1 %',
  );

  const faulty = (fault: Service, from: number): Walk[] => {
    const source = random();
    return Array.from({ length: ramps }, () =>
      walk(setting, (shareBp, look) => (shareBp === FAULTY_BP && look >= from ? fault : SAME), source),
    );
  };
  const slowest = (found: readonly Walk[]): number => Math.max(...found.map(({ faultyLooks }) => faultyLooks ?? Number.POSITIVE_INFINITY));
  const figures: Record<string, number> = {};
  let missed = 0;
  let again = 0;
  for (const [name, fault] of Object.entries(FAULTS)) {
    say(`${ramps} ramps that meet a fault at 25 %: ${name}`);
    const [atOnce, late] = [faulty(fault, 0), faulty(fault, 30)];
    const found = [...atOnce, ...late];
    missed += found.filter(({ rolledBackFromBp }) => rolledBackFromBp !== FAULTY_BP).length;
    // the clock goes on to the end of the day, with a service that is as good as legacy again
    again += found.filter(({ state, shareBp }) => state !== 'rolled-back' || shareBp !== 0).length;
    figures[`looks_${name}`] = slowest(atOnce);
    figures[`looks_${name}_mid_step`] = slowest(late);
    const text = `all back after ${slowest(atOnce)} looks at the most; begun 5 min into the step: ${slowest(late)}`;
    note(
      `at 25 %: ${{ '5xx': '2 % 5xx', p99: 'p99 x 2', parity: '2 % of answers differ' }[name as 'p99']}`,
      2 * ramps,
      text,
      'none missed',
    );
  }
  note('healed after a roll-back', 6 * ramps, `${again} promoted again by themselves in 24 h`, '0');

  return {
    name: 'simulate',
    machine: where,
    figures: {
      seed,
      bad_services: services,
      bad_promoted: promoted,
      clean_promoted_at: clean.at,
      alpha: round(alpha, 5),
      beta: round(beta, 5),
      idle_moves: idle.moves,
      idle_state_running: idle.state === 'running' ? 1 : 0,
      equal_ramps: ramps,
      equal_rolled_back: walks.filter(({ state }) => state === 'rolled-back').length,
      equal_hours: round(hours, 3),
      ...figures,
      faults_missed: missed,
      promoted_again: again,
    },
    table: rows,
    missing: [],
    versions: {},
  };
};
