import { type Gate, sprt } from '../parity/stats.ts';
import { type Histogram, quantileAbove, quantileBoundMs, quantileMs, total } from './histogram.ts';
import { binomialTail, fisherTail, spent } from './statistics.ts';

/** What one upstream did at first hand: answers, how many failed (5xx, time-out, no connection), latencies of the rest. */
export type Answers = { readonly n: number; readonly failed: number; readonly latency: Histogram };

export type Parity = { readonly matches: number; readonly mismatches: number };

/** What was seen of one context since its evidence began: at the step, or when another version of its service showed up. */
export type ContextEvidence = {
  readonly context: string;
  /** Does extracted answer anybody yet? Before (shadow) there is parity only. */
  readonly canary: boolean;
  readonly parity: Parity;
  /** Query routes: offered to the comparison, compared, and left out on purpose (`unsafeQueries`). */
  readonly routes: readonly { readonly route: string; readonly requests: number; readonly compared: number; readonly unsafe: number }[];
  /** Answers of the primary by kind: 2xx and 3xx, 4xx and 5xx. */
  readonly answers: { readonly successes: number; readonly errors: number };
  readonly extracted: Answers;
  readonly legacy: Answers;
  /** `earlier`: legacy answers nobody at this step, so its figures are those of the last step at which it did. */
  readonly legacyFrom: 'step' | 'earlier';
  /** The last minute or two of the same: a long clean stretch must not hide what began a moment ago. null = not long enough yet. */
  readonly recent: { readonly parity: Parity; readonly extracted: Answers; readonly legacy: Answers } | null;
  /** How often a replica saw its breaker open. */
  readonly breakerOpened: number;
  /** Does the consumer lag by more than `pin` covers? */
  readonly stale: boolean;
};

export type Evidence = {
  /** Unix ms. */
  readonly since: number;
  /** How many times it was judged before, from 0: each look spends of the same chance of a false alarm. */
  readonly looks: number;
  /** One, or all contexts of a group. */
  readonly contexts: readonly ContextEvidence[];
};

/** What a step asks for. */
export type RampGate = {
  readonly parity: Pick<Gate, 'good' | 'bad'>;
  readonly errors: { readonly floor: number };
  readonly latencyP95Ratio: number;
  readonly latencyP99Ratio: number;
  /** Answers that each side needs before latencies count. */
  readonly latencySamples: number;
  /** ms; extracted may be so much slower whatever the ratio. */
  readonly latencySlack: number;
  readonly minRequests: number;
  /** ms. */
  readonly hold: number;
};

/** `code` stays the same while the figures in `text` move. */
export type RampReason = {
  readonly code:
    | 'parity'
    | 'errors'
    | 'latency'
    | 'breaker'
    | 'lag'
    | 'routes'
    | 'answers'
    | 'requests'
    | 'hold'
    | 'schedule'
    | 'approval'
    | 'webhook'
    | 'refused'
    | 'version';
  readonly text: string;
};

export type Judgement = { readonly outcome: 'advance' | 'hold' | 'rollback'; readonly reasons: readonly RampReason[] };

/** Chance of a false roll-back per step and kind of test, over all looks together. */
const ALPHA = 0.01;
/** Below this the doubt holds a step, without a roll-back. */
const DOUBT = 0.05;
/** Likelihood ratio against the good service from which the last minutes alone roll back (Page, Biometrika 41, 1954: repeated SPRTs). */
const RECENT_LLR = -Math.log(2_000);
/** Routes and kinds of answers that nobody asked for, and a doubt that cannot grow less, are waited for so many holds, then named and passed over. */
const PATIENCE = 2;

const figure = (n: number): string => (n < 1_000 ? String(n) : String(n).replaceAll(/\B(?=(\d{3})+$)/g, ','));
const percent = (rate: number): string => `${Number((rate * 100).toPrecision(2))} %`;
const rateOf = ({ failed, n }: Answers): number => (n === 0 ? 0 : failed / n);
const ms = (value: number): string => `${value < 10 ? value.toPrecision(2) : Math.round(value)} ms`;

type Findings = { readonly bad: RampReason[]; readonly open: RampReason[]; readonly good: RampReason[] };

const duration = (of: number): string => {
  const seconds = Math.max(1, Math.ceil(of / 1000));
  if (seconds < 120) return `${seconds} s`;
  const minutes = Math.ceil(seconds / 60);
  return minutes < 120 ? `${minutes} min` : `${Math.round(minutes / 60)} h`;
};

const judgeParity = ({ parity, recent }: ContextEvidence, gate: RampGate, find: Findings): void => {
  const compared = parity.matches + parity.mismatches;
  const { state, llr } = sprt(parity.matches, parity.mismatches, gate.parity);
  const seen = `${figure(parity.mismatches)} of ${figure(compared)} compared answers differ`;
  const last = recent && sprt(recent.parity.matches, recent.parity.mismatches, gate.parity);
  if (state === 'rollback') find.bad.push({ code: 'parity', text: `${seen} (likelihood ratio ${llr.toFixed(2)}: no good service)` });
  else if (recent && last && last.llr <= RECENT_LLR)
    find.bad.push({
      code: 'parity',
      text: `lately ${figure(recent.parity.mismatches)} of ${figure(recent.parity.matches + recent.parity.mismatches)} compared answers differ`,
    });
  else if (state === 'promote') find.good.push({ code: 'parity', text: seen });
  else {
    const missing = Math.max(1, Math.ceil((Math.log(0.95 / 0.01) - llr) / Math.log(gate.parity.good / gate.parity.bad)));
    find.open.push({
      code: 'parity',
      text: compared === 0 ? 'nothing was compared yet' : `${seen}; about ${figure(missing)} more equal ones are needed`,
    });
  }
};

/** Both must be refused: "fails no more than legacy" and "fails no more than the floor" (intersection-union test, Berger 1982). */
const errorsP = (extracted: Answers, legacy: Answers, floor: number): number =>
  legacy.n === 0
    ? 1
    : Math.max(
        fisherTail(extracted.failed, extracted.n, legacy.failed, legacy.n),
        floor > 0 ? binomialTail(extracted.failed, extracted.n, floor) : 0,
      );

const judgeErrors = (evidence: ContextEvidence, gate: RampGate, alpha: number, waitedFor: boolean, find: Findings): void => {
  const { extracted, legacy, recent } = evidence;
  const told = (e: Answers, l: Answers): string =>
    `extracted fails in ${percent(rateOf(e))} (${figure(e.failed)} of ${figure(e.n)}), legacy in ${percent(rateOf(l))} (${figure(l.failed)} of ${figure(l.n)})`;
  const p = errorsP(extracted, legacy, gate.errors.floor);
  if (p <= alpha / 2) find.bad.push({ code: 'errors', text: told(extracted, legacy) });
  else if (recent && errorsP(recent.extracted, recent.legacy, gate.errors.floor) <= alpha / 2)
    find.bad.push({ code: 'errors', text: `lately ${told(recent.extracted, recent.legacy)}` });
  else if (legacy.n === 0) find.open.push({ code: 'errors', text: 'legacy has answered nothing that errors could be compared with' });
  // where legacy answers nobody any more its figures stay as they are, and with them the doubt: simulated, 1 equal service in 50 waited for ever
  else if (p <= DOUBT && evidence.legacyFrom === 'earlier' && waitedFor)
    find.good.push({ code: 'errors', text: `${told(extracted, legacy)}: perhaps chance, not waited for any longer` });
  else if (p <= DOUBT) find.open.push({ code: 'errors', text: `${told(extracted, legacy)}: perhaps chance, more answers will tell` });
  else find.good.push({ code: 'errors', text: told(extracted, legacy) });
};

const slower = (extracted: Histogram, legacy: Histogram, q: number, ratio: number, slack: number, alpha: number): boolean => {
  const bound = quantileBoundMs(legacy, q, alpha / 2);
  return Number.isFinite(bound) && quantileAbove(extracted, q, Math.max(bound * ratio, bound + slack)) <= alpha / 2;
};

const judgeLatency = ({ extracted, legacy, recent }: ContextEvidence, gate: RampGate, alpha: number, find: Findings): void => {
  const { latencySamples: least, latencySlack: slack } = gate;
  const quantiles = [
    { name: 'p95', q: 0.95, ratio: gate.latencyP95Ratio },
    { name: 'p99', q: 0.99, ratio: gate.latencyP99Ratio },
  ];
  const enough = (e: Answers, l: Answers): boolean => total(e.latency) >= least && total(l.latency) >= least;
  for (const { name, q, ratio } of quantiles) {
    const windows = [{ word: '', extracted, legacy }, ...(recent ? [{ word: 'lately ', ...recent }] : [])];
    const found = windows.find(
      (one) => enough(one.extracted, one.legacy) && slower(one.extracted.latency, one.legacy.latency, q, ratio, slack, alpha / 4),
    );
    if (!found) continue;
    const [e, l] = [quantileMs(found.extracted.latency, q), quantileMs(found.legacy.latency, q)];
    find.bad.push({
      code: 'latency',
      text: `${found.word}${name} is ${ms(e)} on extracted and ${ms(l)} on legacy: ${(e / l).toFixed(2)} times, ${ratio} are allowed`,
    });
    return;
  }
  if (!enough(extracted, legacy)) {
    find.open.push({
      code: 'latency',
      text: `latencies count from ${figure(least)} answers on each side: extracted has ${figure(total(extracted.latency))}, legacy ${figure(total(legacy.latency))}`,
    });
    return;
  }
  for (const { name, q, ratio } of quantiles) {
    const [e, l] = [quantileMs(extracted.latency, q), quantileMs(legacy.latency, q)];
    const text = `${name} is ${ms(e)} on extracted and ${ms(l)} on legacy: ${(e / l).toFixed(2)} times`;
    if (e > Math.max(l * ratio, l + slack)) find.open.push({ code: 'latency', text: `${text}, ${ratio} are allowed` });
    else find.good.push({ code: 'latency', text });
  }
};

const judgeCoverage = (evidence: ContextEvidence, waitedFor: boolean, find: Findings): void => {
  const blind = evidence.routes.filter(({ requests, compared, unsafe }) => requests > unsafe && compared === 0);
  const silent = evidence.routes.filter(({ requests }) => requests === 0);
  const names = (routes: readonly { readonly route: string }[]): string =>
    `${routes
      .slice(0, 5)
      .map(({ route }) => route)
      .join(', ')}${routes.length > 5 ? ` and ${routes.length - 5} more` : ''}`;
  if (blind.length > 0) find.open.push({ code: 'routes', text: `asked for but never compared: ${names(blind)}` });
  if (silent.length > 0)
    (waitedFor ? find.good : find.open).push({
      code: 'routes',
      text: `nobody has asked for ${names(silent)}${waitedFor ? ', not waited for any longer' : ''}`,
    });
  const { successes, errors } = evidence.answers;
  if (successes === 0) find.open.push({ code: 'answers', text: 'no successful answer was seen yet' });
  if (errors === 0)
    (waitedFor ? find.good : find.open).push({
      code: 'answers',
      text: `no error answer (4xx or 5xx) was seen${waitedFor ? ', not waited for any longer' : ' yet'}`,
    });
};

const judgeContext = (evidence: ContextEvidence, gate: RampGate, alpha: number, waitedFor: boolean): Findings => {
  const find: Findings = { bad: [], open: [], good: [] };
  if (evidence.breakerOpened > 0) find.bad.push({ code: 'breaker', text: 'the breaker has opened' });
  judgeParity(evidence, gate, find);
  const seen = evidence.canary ? evidence.extracted.n : evidence.parity.matches + evidence.parity.mismatches;
  if (seen < gate.minRequests)
    find.open.push({
      code: 'requests',
      text:
        seen === 0
          ? `inconclusive: no traffic, ${figure(gate.minRequests)} ${evidence.canary ? 'answers of extracted' : 'compared answers'} are needed`
          : `${figure(seen)} of at least ${figure(gate.minRequests)} ${evidence.canary ? 'answers of extracted' : 'compared answers'}`,
    });
  if (evidence.canary) {
    judgeErrors(evidence, gate, alpha, waitedFor, find);
    judgeLatency(evidence, gate, alpha, find);
  }
  if (evidence.stale) find.open.push({ code: 'lag', text: 'the consumer lags by more than `pin`: canary queries go to legacy' });
  judgeCoverage(evidence, waitedFor, find);
  return find;
};

/**
 * Whether the evidence of a step moves the traffic. Pure. Roll back: a test says that extracted is bad. Hold: anything is undecided, and no traffic
 * decides nothing. Advance: every test of every context has passed and the step was held. docs/ramp.md has the sources and what each number means.
 */
export const judge = (evidence: Evidence, gate: RampGate, now: number): Judgement => {
  const held = now - evidence.since;
  const alpha = spent(ALPHA, evidence.looks);
  const found = evidence.contexts.map((one) => {
    const { bad, open, good } = judgeContext(one, gate, alpha, held >= PATIENCE * gate.hold);
    const named = (reasons: readonly RampReason[]): readonly RampReason[] =>
      evidence.contexts.length === 1 ? reasons : reasons.map(({ code, text }) => ({ code, text: `${one.context}: ${text}` }));
    return { bad: named(bad), open: named(open), good: named(good) };
  });
  const all = (of: 'bad' | 'open' | 'good'): RampReason[] => found.flatMap((one) => one[of]);
  if (all('bad').length > 0) return { outcome: 'rollback', reasons: all('bad') };
  const open = all('open');
  if (held < gate.hold) open.push({ code: 'hold', text: `the step is held for another ${duration(gate.hold - held)}` });
  if (open.length > 0) return { outcome: 'hold', reasons: open };
  return { outcome: 'advance', reasons: all('good') };
};
