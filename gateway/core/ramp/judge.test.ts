import { describe, expect, it } from '@jest/globals';
import fc from 'fast-check';
import { bucketOfMs } from './histogram.ts';
import { type Answers, type ContextEvidence, type Evidence, judge, type RampGate } from './judge.ts';

const GATE: RampGate = {
  parity: { good: 0.9995, bad: 0.998 },
  errors: { floor: 0.001 },
  latencyP95Ratio: 1.3,
  latencyP99Ratio: 1.5,
  latencySamples: 1_000,
  latencySlack: 5,
  minRequests: 500,
  hold: 600_000,
};
const HOUR = 3_600_000;

const answers = (n: number, failed = 0, slowShare = 0, ms = 20): Answers => {
  const slow = Math.round((n - failed) * slowShare);
  return {
    n,
    failed,
    latency: new Map([
      [bucketOfMs(ms), n - failed - slow],
      [bucketOfMs(ms * 2), slow],
    ]),
  };
};

const context = (more: Partial<ContextEvidence> = {}): ContextEvidence => ({
  context: 'order',
  canary: true,
  parity: { matches: 4_000, mismatches: 0 },
  routes: [{ route: 'GET /orders/:id', requests: 4_000, compared: 4_000, unsafe: 0 }],
  answers: { successes: 3_900, errors: 100 },
  extracted: answers(2_000),
  legacy: answers(6_000),
  legacyFrom: 'step',
  recent: null,
  breakerOpened: 0,
  stale: false,
  ...more,
});
const evidence = (more: Partial<ContextEvidence> = {}, of: Partial<Evidence> = {}): Evidence => ({
  since: 0,
  looks: 60,
  contexts: [context(more)],
  ...of,
});
const codes = (found: ReturnType<typeof judge>): string[] => found.reasons.map(({ code }) => code);

describe('judge', () => {
  it('advances when every test has passed and the step was held, and says with which figures', () => {
    const found = judge(evidence(), GATE, HOUR);
    expect(found.outcome).toBe('advance');
    expect(found.reasons.map(({ text }) => text)).toEqual([
      '0 of 4,000 compared answers differ',
      'extracted fails in 0 % (0 of 2,000), legacy in 0 % (0 of 6,000)',
      expect.stringMatching(/^p95 is \d+ ms on extracted and \d+ ms on legacy: 1.00 times$/),
      expect.stringMatching(/^p99 is /),
    ]);
  });

  it.each<[string, Partial<ContextEvidence>, number, string[]]>([
    ['the step has just begun', {}, 1_000, ['hold']],
    ['parity is undecided', { parity: { matches: 2_000, mismatches: 0 } }, HOUR, ['parity']],
    ['extracted has answered too little', { extracted: answers(400) }, HOUR, ['requests', 'latency']],
    ['a quantile is above its ratio, perhaps by chance', { extracted: answers(1_000, 0, 0.012) }, HOUR, ['latency']],
    ['errors are suspicious, but may be chance', { extracted: answers(2_000, 7), legacy: answers(6_000, 6) }, HOUR, ['errors']],
    ['the consumer lags', { stale: true }, HOUR, ['lag']],
    ['a route is asked for and never compared', { routes: [{ route: 'GET /a', requests: 9, compared: 0, unsafe: 0 }] }, HOUR, ['routes']],
    ['nobody has asked for a route', { routes: [{ route: 'GET /a', requests: 0, compared: 0, unsafe: 0 }] }, GATE.hold, ['routes']],
    ['no error answer was seen', { answers: { successes: 9, errors: 0 } }, GATE.hold, ['answers']],
    ['legacy has nothing to compare with', { legacy: answers(0) }, HOUR, ['errors', 'latency']],
  ])('holds while %s', (_, more, now, expected) => {
    const found = judge(evidence(more), GATE, now);
    expect([found.outcome, codes(found)]).toEqual(['hold', expected]);
  });

  it('names what nobody asks for, and passes it over after two holds; what is never mirrored on purpose does not count', () => {
    const found = judge(
      evidence({
        routes: [
          { route: 'GET /never', requests: 0, compared: 0, unsafe: 0 },
          { route: 'GET /unsafe', requests: 7, compared: 0, unsafe: 7 },
        ],
        answers: { successes: 5, errors: 0 },
      }),
      GATE,
      2 * GATE.hold,
    );
    expect(found.outcome).toBe('advance');
    expect(found.reasons.map(({ text }) => text)).toEqual(
      expect.arrayContaining([
        'nobody has asked for GET /never, not waited for any longer',
        'no error answer (4xx or 5xx) was seen, not waited for any longer',
      ]),
    );
  });

  it('does not wait for ever for a doubt that legacy cannot clear up, because it answers nobody any more', () => {
    const doubt = { extracted: answers(2_000, 7), legacy: answers(6_000, 6) };
    const at = (legacyFrom: 'step' | 'earlier', now: number) => judge(evidence({ ...doubt, legacyFrom }), GATE, now);
    expect([at('earlier', 1.9 * GATE.hold).outcome, at('step', 100 * GATE.hold).outcome]).toEqual(['hold', 'hold']);
    const found = at('earlier', 2 * GATE.hold);
    expect(found.outcome).toBe('advance');
    expect(found.reasons.map(({ text }) => text)).toContain(
      'extracted fails in 0.35 % (7 of 2,000), legacy in 0.1 % (6 of 6,000): perhaps chance, not waited for any longer',
    );
    // proof rolls back at any time
    const proof = { extracted: answers(2_000, 40), legacy: answers(6_000, 6), legacyFrom: 'earlier' as const };
    expect(judge(evidence(proof), GATE, 2 * GATE.hold).outcome).toBe('rollback');
  });

  it.each<[string, Partial<ContextEvidence>, string]>([
    ['answers differ', { parity: { matches: 1_000, mismatches: 5 } }, 'parity'],
    ['2 % of its answers fail', { extracted: answers(1_000, 20) }, 'errors'],
    ['its p99 has doubled', { extracted: answers(4_000, 0, 0.03) }, 'latency'],
    ['the breaker has opened', { breakerOpened: 1 }, 'breaker'],
  ])('rolls back at once, in the middle of a hold, when %s', (_, more, code) => {
    const found = judge(evidence(more), GATE, 1_000);
    expect([found.outcome, codes(found)]).toEqual(['rollback', [code]]);
  });

  it('is not lulled by a long clean stretch', () => {
    const long = {
      parity: { matches: 1_000_000, mismatches: 12 },
      extracted: answers(500_000, 40),
      legacy: answers(500_000),
    };
    expect(judge(evidence({ ...long, recent: null }), GATE, HOUR).outcome).not.toBe('rollback');
    const clean = { matches: 2_000, mismatches: 0 };
    const lately = (more: object) => ({ parity: clean, extracted: answers(2_000), legacy: answers(2_000), ...more });
    const reasonOf = (recent: ContextEvidence['recent']) => {
      const found = judge(evidence({ ...long, recent }), GATE, HOUR);
      return [found.outcome, found.reasons[0]?.text];
    };
    expect(reasonOf(lately({ parity: { matches: 2_000, mismatches: 12 } }))).toEqual([
      'rollback',
      'lately 12 of 2,012 compared answers differ',
    ]);
    expect(reasonOf(lately({ extracted: answers(2_000, 40) }))[1]).toMatch(/^lately extracted fails in 2 %/);
    expect(reasonOf(lately({ extracted: answers(2_000, 0, 0.05) }))[1]).toMatch(
      /^lately p99 is \d+ ms on extracted and \d+ ms on legacy: 2.00 times/,
    );
  });

  it('forgives what stays under the floor of errors and the slack of latencies', () => {
    expect(judge(evidence({ extracted: answers(100_000, 60), legacy: answers(100_000, 10) }), GATE, HOUR).outcome).not.toBe('rollback');
    expect(judge(evidence({ extracted: answers(4_000, 0, 1, 2), legacy: answers(4_000, 0, 0, 2) }), GATE, HOUR).outcome).toBe('advance');
  });

  it('takes the worst of a group', () => {
    const bad = context({ context: 'inventory', breakerOpened: 1 });
    const both = judge({ since: 0, looks: 0, contexts: [context(), bad] }, GATE, HOUR);
    expect(both).toEqual({ outcome: 'rollback', reasons: [{ code: 'breaker', text: 'inventory: the breaker has opened' }] });
    const open = context({ context: 'inventory', parity: { matches: 10, mismatches: 0 } });
    expect(judge({ since: 0, looks: 0, contexts: [context(), open] }, GATE, HOUR).outcome).toBe('hold');
  });

  it('says that an hour without traffic is inconclusive, and moves nothing, however long it lasts', () => {
    const nothing = {
      parity: { matches: 0, mismatches: 0 },
      routes: [{ route: 'GET /orders/:id', requests: 0, compared: 0, unsafe: 0 }],
      answers: { successes: 0, errors: 0 },
      extracted: answers(0),
      legacy: answers(0),
    };
    for (const now of [HOUR, 1_000 * HOUR])
      for (const canary of [true, false]) {
        const found = judge(evidence({ ...nothing, canary }), GATE, now);
        expect(found.outcome).toBe('hold');
        expect(found.reasons.map(({ text }) => text)).toEqual(
          expect.arrayContaining(['nothing was compared yet', expect.stringMatching(/^inconclusive: no traffic/)]),
        );
      }
  });

  it('promotes at most 6 of 200 services at a true 99.8 %, judged after every single comparison', () => {
    let seed = 20_261_123;
    const random = (): number => {
      // mulberry32: the same 200 services in every run
      seed = (seed + 0x6d2b79f5) | 0;
      let t = Math.imul(seed ^ (seed >>> 15), 1 | seed);
      t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
      return ((t ^ (t >>> 14)) >>> 0) / 4_294_967_296;
    };
    const shadow = context({ canary: false, extracted: answers(0), legacy: answers(0) });
    const run = (rate: number): { outcome: string; at: number } => {
      let matches = 0;
      let mismatches = 0;
      for (;;) {
        if (random() < rate) matches++;
        else mismatches++;
        const { outcome } = judge({ since: 0, looks: 0, contexts: [{ ...shadow, parity: { matches, mismatches } }] }, GATE, HOUR);
        if (outcome !== 'hold') return { outcome, at: matches + mismatches };
      }
    };
    const promoted = Array.from({ length: 200 }, () => run(0.998)).filter(({ outcome }) => outcome === 'advance');
    expect(promoted.length).toBeLessThanOrEqual(6);
    expect(run(1)).toEqual({ outcome: 'advance', at: 3_033 });
  });

  it('rolls no equal service back by chance: 150 of them, 20 looks each', () => {
    let seed = 7;
    const random = (): number => {
      seed = (Math.imul(seed, 1_664_525) + 1_013_904_223) >>> 0;
      return seed / 4_294_967_296;
    };
    let alarms = 0;
    for (let service = 0; service < 150; service++) {
      const side = () => ({ n: 0, failed: 0, latency: new Map<number, number>() });
      const sides = [side(), side()] as const;
      for (let looks = 0; looks < 20; looks++) {
        for (let i = 0; i < 200; i++) {
          const one = sides[i % 4 === 0 ? 0 : 1];
          one.n++;
          const bucket = bucketOfMs(-20 * Math.log(1 - random()));
          if (random() < 0.01) one.failed++;
          else one.latency.set(bucket, (one.latency.get(bucket) ?? 0) + 1);
        }
        const found = judge(evidence({ extracted: sides[0], legacy: sides[1] }, { looks }), GATE, HOUR);
        if (found.outcome !== 'rollback') continue;
        alarms++;
        break;
      }
    }
    // nominal: 1 % for errors and 1 % for latencies
    expect(alarms).toBeLessThanOrEqual(6);
  });

  it('never advances with less evidence than asked for, whatever the rest says', () => {
    fc.assert(
      fc.property(
        fc.nat(10_000),
        fc.nat(20),
        fc.nat(10_000),
        fc.nat(50),
        fc.nat(10_000),
        fc.nat(2 * HOUR),
        fc.nat(1_000),
        (matches, mismatches, n, failed, legacyN, now, looks) => {
          const found = judge(
            evidence({ parity: { matches, mismatches }, extracted: answers(n, Math.min(n, failed)), legacy: answers(legacyN) }, { looks }),
            GATE,
            now,
          );
          expect(found.reasons.length).toBeGreaterThan(0);
          if (found.outcome !== 'advance') return;
          expect(now).toBeGreaterThanOrEqual(GATE.hold);
          expect(matches).toBeGreaterThanOrEqual(3_033);
          expect(Math.min(n, legacyN)).toBeGreaterThanOrEqual(GATE.latencySamples);
        },
      ),
    );
  });
});
