import { sprt } from '../../gateway/core/parity/stats.ts';
import { type ContextEvidence, judge, type RampGate } from '../../gateway/core/ramp/judge.ts';
import type { Random } from './random.ts';

/** A context in shadow: nobody is answered by extracted yet, parity decides. */
const shadow = (matches: number, mismatches: number): ContextEvidence => ({
  context: 'order',
  canary: false,
  parity: { matches, mismatches },
  routes: [{ route: 'GET /orders/:id', requests: matches + mismatches, compared: matches + mismatches, unsafe: 0 }],
  answers: { successes: matches + mismatches, errors: 1 },
  extracted: { n: 0, failed: 0, latency: new Map() },
  legacy: { n: 0, failed: 0, latency: new Map() },
  legacyFrom: 'step',
  recent: null,
  breakerOpened: 0,
  stale: false,
});

export type Ended = { readonly promoted: boolean /** Compared answers until then. */; readonly at: number };

/** One service whose answers are equal at a true rate, judged by the whole gate after every single comparison until it decides. The hold is over. */
export const untilJudged = (rate: number, gate: RampGate, random: Random): Ended => {
  let matches = 0;
  let mismatches = 0;
  for (;;) {
    if (random() < rate) matches++;
    else mismatches++;
    const { outcome } = judge({ since: 0, looks: 0, contexts: [shadow(matches, mismatches)] }, gate, gate.hold);
    if (outcome !== 'hold') return { promoted: outcome === 'advance', at: matches + mismatches };
  }
};

/** The same by the parity test alone: fast enough for error rates, which take thousands of services. */
export const untilDecided = (rate: number, gate: RampGate, random: Random): Ended => {
  let matches = 0;
  let mismatches = 0;
  for (;;) {
    if (random() < rate) matches++;
    else mismatches++;
    const { state } = sprt(matches, mismatches, gate.parity);
    if (state !== 'continue') return { promoted: state === 'promote', at: matches + mismatches };
  }
};
