import { setTimeout as sleep } from 'node:timers/promises';
import { AppError } from '@banyan/contracts/errors.ts';
import type { Upstream } from '@banyan/contracts/vocabulary.ts';
import type { Aliases } from '../core/parity/aliases.ts';
import { compareObservations } from '../core/parity/compare.ts';
import { mediaTypeOf } from '../core/parity/media.ts';
import type { Difference, Observation, Verdict } from '../core/parity/observation.ts';
import { excuseVolatile, reproduced, volatileFields } from '../core/parity/probe.ts';
import { type CompiledRules, compileRules, type ExpiredRule, type ParityRules } from '../core/parity/rules.ts';
import { smallPair } from './decode.ts';
import type { Evidence, JudgedAnswers, JudgedPair } from './evidence.ts';
import { COMPARE_QUEUE_FULL, GIVEN_UP, type JudgeThread, PairGivenUp } from './judge-thread.ts';
import { createAsk, type SendCopy, type ShadowSettings } from './shadow-ask.ts';
import { isUnsafeQuery } from './shadow-copy.ts';
import { createSlots, createTokenBucket, type Slots, type TokenBucket } from './shadow-limits.ts';
import { createStopping } from './stopping.ts';

export type ShadowInput = {
  readonly requestId: string;
  readonly context: string;
  /** Template, e.g. `/api/orders/:id`. */
  readonly route: string;
  readonly method: string;
  readonly target: string;
  /** Flat pairs, as the client sent them. */
  readonly headers: readonly string[];
  readonly primary: Upstream;
  /** Body as sent (encoded), or null with its SHA-256 hex `digest` when larger than the limit. */
  readonly primaryObservation: Observation;
  /** Is the client inside a pin? Then the other side may lag, and nobody is asked. */
  readonly pinned: boolean;
  /** From the request to the head of the primary's answer, ms. */
  readonly latencyMs: number;
};

export type ShadowDeps = {
  /** Undefined = nothing is mirrored for this context now. */
  readonly settings: (context: string) => ShadowSettings | undefined;
  readonly send: SendCopy;
  readonly evidence: Pick<Evidence, 'count' | 'note'>;
  /** Ids that both sides mint; undefined = none are known of this context. */
  readonly aliases?: (context: string) => Pick<Aliases, 'target' | 'excuse'> | undefined;
  /** Unix ms. */
  readonly now: () => number;
  /** 0 <= x < 1. */
  readonly random: () => number;
  /** Rejects when the signal fires. Default: a timer. */
  readonly delay?: (ms: number, signal: AbortSignal) => Promise<unknown>;
  /** When a mismatch is asked again on both sides, ms after the verdict before. Default 250, 1000. */
  readonly askAgainAfterMs?: readonly number[];
  /** A copy is given up after this long. Default 10,000. */
  readonly sendTimeoutMs?: number;
  /** A copy that waits longer than this for a free slot is dropped. Default 5,000. */
  readonly maxWaitMs?: number;
  /** Pairs under way or waiting, per context. Default 200. */
  readonly maxPending?: number;
  /** Bytes of primary answers held for pairs under way, in all. Default 64 MiB. */
  readonly maxPendingBytes?: number;
  /** Told once per configuration, and again when a rule runs out, of the rules that no longer work. */
  readonly onExpiredRules?: (expired: readonly ExpiredRule[]) => void;
  /** Judges answers with bodies over 64 KiB away from the event loop; see `judge-thread.ts`. Default: they are judged like others. */
  readonly judgeLarge?: JudgeThread['judge'];
  /** Told of each copy that was not made or not compared, and why in one word. */
  readonly onDropped?: (context: string, why: string) => void;
  /** Told how long each answer of a mirrored query took to its head, ms. */
  readonly onLatency?: (input: ShadowInput, upstream: Upstream, asked: 'primary' | 'copy', ms: number) => void;
  /** Told of each judged pair, for metrics and logs. */
  readonly onJudged?: (pair: JudgedPair, latencyMs: { readonly primary: number; readonly shadow: number | null }) => void;
};

export type ShadowStats = {
  readonly offered: number;
  readonly pending: number;
  readonly pendingBytes: number;
  readonly dropped: Readonly<Record<string, number>>;
  readonly skipped: Readonly<Record<string, number>>;
  readonly verdicts: Readonly<Record<string, number>>;
};

export type Shadow = {
  /** Takes an answered query for mirroring. Never throws, never waits; nothing it starts can reach the client. */
  readonly offer: (input: ShadowInput) => void;
  readonly stats: () => ShadowStats;
  /** Gives up what is under way and waits for it to end. */
  readonly stop: () => Promise<void>;
};

/** Bodies above this, sent or decoded, are not looked at on the event loop. */
const LARGE_BYTES = 64 * 1024;

const bare = (answer: Observation): Observation => ({ ...answer, body: null });

/** Why nothing became of a copy, in one word. */
const whyDropped = (error: unknown): string => {
  if (!(error instanceof AppError) || error.code !== 'overloaded') return 'failed';
  return error.details?.why === COMPARE_QUEUE_FULL ? COMPARE_QUEUE_FULL : 'stale';
};

const QUERIES = new Set(['GET', 'HEAD']);
const isEventStream = (answer: Observation): boolean => mediaTypeOf(answer)?.type === 'text/event-stream';

type Lane = {
  readonly slots: Readonly<Record<Upstream, Slots>>;
  readonly buckets: Readonly<Record<Upstream, TokenBucket>>;
  pending: number;
};

/** The next turn of the event loop; all who ask in one turn share it. */
const createNextTurn = (): (() => Promise<void>) => {
  let next: Promise<void> | null = null;
  return () => {
    next ??= new Promise((resolve) => {
      setImmediate(() => {
        next = null;
        resolve();
      });
    });
    return next;
  };
};

const pairsOf = (flat: readonly string[]): [string, string][] => {
  const pairs: [string, string][] = [];
  for (let i = 0; i + 1 < flat.length; i += 2) pairs.push([flat[i]!, flat[i + 1]!]);
  return pairs;
};

/** The shadow path: mirrors, compares, asks again, hands verdicts to the evidence. Everything in it is bounded. */
export const createShadow = (deps: ShadowDeps): Shadow => {
  const { evidence, now, random } = deps;
  const delay = deps.delay ?? ((ms: number, signal: AbortSignal) => sleep(ms, undefined, { signal }));
  const askAgainAfterMs = deps.askAgainAfterMs ?? [250, 1_000];
  const maxPending = deps.maxPending ?? 200;
  const maxPendingBytes = deps.maxPendingBytes ?? 64 * 1024 * 1024;

  const stopping = createStopping();
  const nextTurn = createNextTurn();
  const ask = createAsk(deps.send, deps.sendTimeoutMs ?? 10_000, stopping, deps.maxWaitMs);
  const lanes = new Map<string, Lane>();
  /** Pairs under way in all; `idle` is called when the last of them is over after a stop. */
  let under = 0;
  let idle = (): void => undefined;
  const compiled = new WeakMap<ParityRules, CompiledRules>();
  const counts = { dropped: new Map<string, number>(), skipped: new Map<string, number>(), verdicts: new Map<string, number>() };
  let offered = 0;
  let pendingBytes = 0;

  const bump = (map: Map<string, number>, key: string): void => void map.set(key, (map.get(key) ?? 0) + 1);
  const leave = (kind: 'dropped' | 'skipped', { context, route }: ShadowInput, why: string): void => {
    bump(counts[kind], why);
    evidence.count(context, route, kind, why);
    if (kind === 'dropped') deps.onDropped?.(context, why);
  };

  const laneOf = (context: string): Lane => {
    const known = lanes.get(context);
    if (known) return known;
    const limits = (): ShadowSettings['shadow'] => deps.settings(context)?.shadow ?? { maxPerSecond: 0, concurrency: 1, cookies: 'drop' };
    const bucket = (): TokenBucket => createTokenBucket(() => limits().maxPerSecond, now);
    const slots = (): Slots => createSlots(() => Math.max(1, limits().concurrency));
    const lane: Lane = {
      // one each, so that a side that hangs holds up no questions to the other
      slots: { legacy: slots(), extracted: slots() },
      buckets: { legacy: bucket(), extracted: bucket() },
      pending: 0,
    };
    lanes.set(context, lane);
    return lane;
  };

  const rulesOf = (rules: ParityRules): CompiledRules => {
    const known = compiled.get(rules);
    if (known && now() < known.validUntilMs) return known;
    const fresh = compileRules(rules, now());
    compiled.set(rules, fresh);
    if (fresh.expired.length > 0) deps.onExpiredRules?.(fresh.expired);
    return fresh;
  };

  const drawn = (shareBp: number): boolean => random() * 10_000 < shareBp;

  type Judged = { readonly verdict: Verdict; readonly answers: JudgedAnswers };
  const judge = async (legacy: Observation, extracted: Observation, { parity }: ShadowSettings): Promise<Judged> => {
    const rules = rulesOf(parity);
    const pair = await smallPair(legacy, extracted, parity.bodyLimit, deps.judgeLarge === undefined ? parity.bodyLimit : LARGE_BYTES);
    if (pair === null) return judgeLarge(legacy, extracted, parity);
    await nextTurn();
    return { verdict: compareObservations(...pair, rules), answers: { legacy: pair[0], extracted: pair[1] } };
  };
  const judgeLarge = async (legacy: Observation, extracted: Observation, parity: ShadowSettings['parity']): Promise<Judged> => {
    const answers: JudgedAnswers = { legacy, extracted, undecoded: { bodyLimitBytes: parity.bodyLimit } };
    // What is not whole is not looked at.
    if (!legacy.complete || !extracted.complete) return { verdict: compareObservations(legacy, extracted, rulesOf(parity)), answers };
    try {
      return { verdict: await deps.judgeLarge!(legacy, extracted, parity, parity.bodyLimit, now()), answers };
    } catch (error) {
      if (!(error instanceof PairGivenUp)) throw error;
      // Whoever looks at these bodies again may take as long again.
      return { verdict: { kind: 'incomparable', why: error.why }, answers: { legacy: bare(legacy), extracted: bare(extracted) } };
    }
  };
  const volatileIn = async (first: Observation, second: Observation, settings: ShadowSettings): Promise<readonly Difference[]> =>
    volatileFields((await judge(first, second, settings)).verdict);

  /** A side is asked about its own ids: the client knows those of who answers it. */
  const askedAs = (input: ShadowInput, side: Upstream): ShadowInput => {
    const aliases = side === input.primary ? undefined : deps.aliases?.(input.context);
    return aliases === undefined ? input : { ...input, target: aliases.target(input.target, side) };
  };
  const excuseAliases = (context: string, verdict: Verdict): Verdict => deps.aliases?.(context)?.excuse(verdict) ?? verdict;

  /** Asks both sides again, more than once; what does not show every time was a side lagging or a value that never repeats. */
  const confirm = async (
    first: Verdict,
    legacy: Observation,
    input: ShadowInput,
    settings: ShadowSettings,
    lane: Lane,
  ): Promise<Verdict> => {
    let verdict = first;
    for (const ms of askAgainAfterMs) {
      if (verdict.kind !== 'mismatch') return verdict;
      const { controller, unlink } = stopping.link();
      await delay(ms, controller.signal).finally(unlink);
      if (!lane.buckets.legacy.borrow() || !lane.buckets.extracted.borrow()) return { kind: 'incomparable', why: 'unconfirmed' };
      const sides = random() < 0.5 ? (['legacy', 'extracted'] as const) : (['extracted', 'legacy'] as const);
      const answers = await Promise.all(sides.map((side) => ask(side, askedAs(input, side), settings, lane.slots[side])));
      const again = { [sides[0]]: answers[0]!, [sides[1]]: answers[1]! } as Record<Upstream, Observation>;
      const volatile = await volatileIn(legacy, again.legacy, settings);
      const later = excuseVolatile(excuseAliases(input.context, (await judge(again.legacy, again.extracted, settings)).verdict), volatile);
      verdict = reproduced(excuseVolatile(verdict, volatile), later);
    }
    return verdict;
  };

  /** `confirm`, but that no turn came to ask again is no proof, and not nothing either. */
  const confirmed: typeof confirm = (...all) =>
    confirm(...all).catch((error: unknown): Verdict => {
      if (error instanceof AppError && error.code === 'overloaded') return { kind: 'incomparable', why: 'unconfirmed' };
      throw error;
    });

  const mirror = async (input: ShadowInput, settings: ShadowSettings, lane: Lane): Promise<void> => {
    const other: Upstream = input.primary === 'legacy' ? 'extracted' : 'legacy';
    const started = now();
    const comparing = drawn(settings.parity.compare);
    const probing = comparing && drawn(settings.parity.probe) && lane.buckets.legacy.take();
    const asked = ask(other, askedAs(input, other), settings, lane.slots[other]);
    const [answer, second] = probing
      ? await Promise.all([asked, ask('legacy', askedAs(input, 'legacy'), settings, lane.slots.legacy)])
      : [await asked, undefined];
    const shadowMs = answer.complete ? now() - started : null;
    if (answer.complete) {
      deps.onLatency?.(input, input.primary, 'primary', input.latencyMs);
      if (answer.headMs !== undefined) deps.onLatency?.(input, other, 'copy', answer.headMs);
      if (second?.complete && second.headMs !== undefined) deps.onLatency?.(input, 'legacy', 'copy', second.headMs);
    }
    if (!comparing) {
      leave('skipped', input, 'compare');
      return;
    }

    const { primaryObservation } = input;
    const sides =
      other === 'legacy' ? { legacy: answer, extracted: primaryObservation } : { legacy: primaryObservation, extracted: answer };
    const judged = await judge(sides.legacy, sides.extracted, settings);
    const found = { ...judged, verdict: excuseAliases(input.context, judged.verdict) };
    const volatile = second ? await volatileIn(sides.legacy, second, settings) : [];
    const excused = excuseVolatile(found.verdict, volatile);
    const verdict = excused.kind === 'mismatch' ? await confirmed(excused, sides.legacy, input, settings, lane) : excused;
    settle(
      input,
      verdict,
      found.answers,
      shadowMs,
      second?.complete ? { volatile, differences: found.verdict.kind === 'mismatch' ? found.verdict.differences : [] } : undefined,
    );
  };

  const settle = (
    input: ShadowInput,
    verdict: Verdict,
    answers: JudgedPair['answers'],
    shadowMs: number | null,
    probe?: JudgedPair['probe'],
  ): void => {
    const { context, route, requestId, primary, method, target } = input;
    const pair: JudgedPair = {
      context,
      route,
      requestId,
      at: now(),
      verdict,
      confirmed: verdict.kind === 'mismatch',
      primary,
      method,
      target,
      // few pairs are kept as examples; the others need none
      get headers() {
        return pairsOf(input.headers);
      },
      answers,
      probe,
    };
    bump(counts.verdicts, verdict.kind);
    if (verdict.kind === 'incomparable' && GIVEN_UP.has(verdict.why)) deps.onDropped?.(context, verdict.why);
    evidence.note(pair);
    deps.onJudged?.(pair, { primary: input.latencyMs, shadow: shadowMs });
  };

  /** Why this query is not mirrored; undefined = it is. */
  const reasonToSkip = (input: ShadowInput, settings: ShadowSettings): string | undefined => {
    const { status, complete } = input.primaryObservation;
    if (!QUERIES.has(input.method)) return 'not-a-query';
    if (!complete) return 'primary-incomplete';
    if (status === 304) return 'not-modified';
    if (status === 206) return 'partial';
    if (status < 200) return 'upgrade';
    // a copy would open a stream of its own, and nobody would end it
    if (isEventStream(input.primaryObservation)) return 'stream';
    if (isUnsafeQuery(settings.parity.unsafeQueries, input.method, input.target)) return 'unsafe';
    return drawn(settings.parity.sample) ? undefined : 'sample';
  };

  const start = (input: ShadowInput, settings: ShadowSettings): void => {
    const lane = laneOf(input.context);
    const bytes = input.primaryObservation.body?.length ?? 0;
    const other: Upstream = input.primary === 'legacy' ? 'extracted' : 'legacy';
    const full =
      lane.pending >= maxPending
        ? 'queue-full'
        : pendingBytes + bytes > maxPendingBytes
          ? 'memory'
          : lane.buckets[other].take()
            ? undefined
            : 'rate';
    if (full !== undefined) {
      leave('dropped', input, full);
      return;
    }
    lane.pending++;
    under++;
    pendingBytes += bytes;
    void run(input, settings, lane, bytes);
  };

  const run = async (input: ShadowInput, settings: ShadowSettings, lane: Lane, bytes: number): Promise<void> => {
    try {
      await nextTurn();
      await mirror(input, settings, lane);
    } catch (error) {
      leave('dropped', input, stopping.stopped ? 'stopping' : whyDropped(error));
    } finally {
      lane.pending--;
      pendingBytes -= bytes;
      under--;
      if (under === 0) idle();
    }
  };

  return {
    offer: (input) => {
      try {
        if (stopping.stopped) return;
        const settings = deps.settings(input.context);
        if (!settings) return;
        offered++;
        evidence.count(input.context, input.route, 'requests');
        evidence.count(input.context, input.route, 'answers', `${Math.floor(input.primaryObservation.status / 100)}xx`);
        const skip = reasonToSkip(input, settings);
        if (skip !== undefined) leave('skipped', input, skip);
        else if (input.pinned) settle(input, { kind: 'incomparable', why: 'lagging' }, undefined, null);
        else start(input, settings);
      } catch {
        bump(counts.dropped, 'failed');
      }
    },
    stats: () => ({
      offered,
      pending: under,
      pendingBytes,
      dropped: Object.fromEntries(counts.dropped),
      skipped: Object.fromEntries(counts.skipped),
      verdicts: Object.fromEntries(counts.verdicts),
    }),
    stop: async () => {
      stopping.stop(new AppError('draining', 'The gateway stops'));
      if (under > 0) await new Promise<void>((resolve) => (idle = resolve));
    },
  };
};
