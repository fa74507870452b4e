import type { RampState } from '@banyan/contracts/vocabulary.ts';
import { bucketOfMs } from '../../gateway/core/ramp/histogram.ts';
import { type ContextEvidence, judge, type RampGate, type RampReason } from '../../gateway/core/ramp/judge.ts';
import { isWatched, rampMove } from '../../gateway/core/ramp/states.ts';
import { marksFrom, turnMarks } from '../../gateway/ramp/gather.ts';
import { EMPTY_READING, fromStored, minus, type Reading } from '../../gateway/ramp/readings.ts';
import { normal, type Random } from './random.ts';

/** How an extracted service behaves; shares 0..1 of its answers. Legacy always does as `SAME`. */
export type Service = {
  /** Differ from legacy's. */
  readonly differs: number;
  /** Fail besides those that fail on legacy as well. */
  readonly fails: number;
  /** Take twice legacy's p99. */
  readonly slow: number;
};
export const SAME: Service = { differs: 0, fails: 0, slow: 0 };

export type Setting = {
  readonly gate: RampGate;
  /** Basis points, rising. */
  readonly steps: readonly number[];
  /** ms between two looks. */
  readonly interval: number;
  /** Queries of the context, all sides together. */
  readonly requestsPerSecond: number;
  /** Pairs of them that are compared (`shadow.maxPerSecond`). */
  readonly comparedPerSecond: number;
  /** Share of answers that fail on both sides. */
  readonly failsAnyway: number;
  /** The simulated ramp ends after so long, wherever it is. */
  readonly hours: number;
};

export type Walk = {
  readonly state: RampState;
  /** Where traffic stood when it ended, in basis points; 0 = shadow. */
  readonly shareBp: number;
  /** Moves of traffic: steps and roll-backs. */
  readonly moves: number;
  readonly hours: number;
  /** Looks from the first that could see a fault to the one that decided; null = there was no fault. */
  readonly faultyLooks: number | null;
  /** Share at which it was rolled back. */
  readonly rolledBackFromBp: number | null;
  readonly reasons: readonly RampReason[];
};

const CONTEXT = 'order';
const HOUR_MS = 3_600_000;
const EVERYBODY_BP = 10_000;

type Side = { n: number; failed: number; readonly latency: Map<number, number> };
const side = (): Side => ({ n: 0, failed: 0, latency: new Map() });

const DRAWS = 65_536;

/** Latencies of a log-normal upstream, median 20 ms and p99 of about 81 ms, as buckets to draw from. */
const latenciesOf = (random: Random): { draw(): number; p99Bucket: number } => {
  const ms = Float64Array.from({ length: DRAWS }, () => 20 * Math.exp(0.6 * normal(random))).sort();
  const buckets = Uint16Array.from(ms, bucketOfMs);
  return { draw: () => buckets[Math.floor(random() * DRAWS)]!, p99Bucket: bucketOfMs(2 * ms[Math.floor(0.99 * DRAWS)]!) };
};

/**
 * One ramp from shadow on, under a clock of its own: traffic comes, every interval the real judge looks at it with the real marks of the last minutes, and
 * the real table of states says what may follow. What a store, sockets and people add is left out.
 * @param serviceAt how the service behaves, by share and look within the step
 */
export const walk = (setting: Setting, serviceAt: (shareBp: number, look: number) => Service, random: Random): Walk => {
  const { gate, interval, steps } = setting;
  const latencies = latenciesOf(random);
  const [perLook, comparedPerLook] = [setting.requestsPerSecond, setting.comparedPerSecond].map((n) => Math.round((n * interval) / 1000));
  let now = 0;
  let state: RampState = rampMove('idle', 'start')!;
  let shareBp = 0;
  let moves = 0;
  let faultyLooks: number | null = null;
  let rolledBackFromBp: number | null = null;
  let reasons: readonly RampReason[] = [];

  let since = 0;
  let looks = 0;
  let reference: Side | null = null;
  let parity = { matches: 0, mismatches: 0 };
  let sides = { extracted: side(), legacy: side() };
  let marks = marksFrom({}, new Date(0), {});
  const begin = (): void => {
    since = now;
    looks = 0;
    parity = { matches: 0, mismatches: 0 };
    sides = { extracted: side(), legacy: side() };
    marks = marksFrom({}, new Date(now), {});
  };

  const answer = (one: Side, fails: number, slow: number): void => {
    one.n++;
    if (random() < fails) one.failed++;
    else {
      const bucket = slow > 0 && random() < slow ? latencies.p99Bucket : latencies.draw();
      one.latency.set(bucket, (one.latency.get(bucket) ?? 0) + 1);
    }
  };
  const serve = (service: Service): void => {
    for (let i = 0; i < comparedPerLook!; i++) {
      if (random() < service.differs) parity.mismatches++;
      else parity.matches++;
    }
    if (shareBp === 0) return;
    const fails = setting.failsAnyway + service.fails;
    for (let i = 0; i < perLook!; i++) {
      if (random() * EVERYBODY_BP < shareBp) answer(sides.extracted, fails, service.slow);
      else answer(sides.legacy, setting.failsAnyway, 0);
    }
  };

  const seenSoFar = (): Reading => ({ ...EMPTY_READING, parity, ...sides });
  const evidenceOf = (reading: Reading): ContextEvidence => {
    const recent = marks.older ? minus(reading, fromStored(marks.older.readings[CONTEXT])) : null;
    const seen = parity.matches + parity.mismatches;
    return {
      context: CONTEXT,
      canary: shareBp > 0,
      parity,
      routes: [{ route: 'GET /orders/:id', requests: seen, compared: seen, unsafe: 0 }],
      answers: { successes: Math.max(0, seen - 1), errors: Math.min(1, seen) },
      extracted: reading.extracted,
      legacy: reference ?? reading.legacy,
      legacyFrom: reference ? 'earlier' : 'step',
      recent: recent && { parity: recent.parity, extracted: recent.extracted, legacy: reference ?? recent.legacy },
      breakerOpened: 0,
      stale: false,
    };
  };

  while (now < setting.hours * HOUR_MS && state !== 'done') {
    now += interval;
    const service = serviceAt(shareBp, looks);
    serve(service);
    if (!isWatched(state)) continue;
    if (service !== SAME) faultyLooks = (faultyLooks ?? 0) + 1;
    const reading = seenSoFar();
    const judgement = judge({ since, looks, contexts: [evidenceOf(reading)] }, gate, now);
    reasons = judgement.reasons;
    if (judgement.outcome === 'hold') {
      looks++;
      marks = turnMarks(marks, { [CONTEXT]: reading }, new Date(now), interval);
    } else if (judgement.outcome === 'rollback') {
      state = rampMove(state, 'roll-back')!;
      rolledBackFromBp = shareBp;
      if (shareBp > 0) moves++;
      shareBp = 0;
      reference = null;
      begin();
    } else {
      const next = steps.find((step) => step > shareBp);
      state = rampMove(state, next === undefined ? 'finish' : 'walk')!;
      if (next === undefined) continue;
      if (next === EVERYBODY_BP) reference = sides.legacy;
      shareBp = next;
      moves++;
      begin();
    }
  }
  return { state, shareBp, moves, hours: now / HOUR_MS, faultyLooks, rolledBackFromBp, reasons };
};
