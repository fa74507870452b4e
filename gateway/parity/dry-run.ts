import { AppError } from '@banyan/contracts/errors.ts';
import { HEADERS } from '@banyan/contracts/vocabulary.ts';
import type { Aliases } from '../core/parity/aliases.ts';
import { compareObservations } from '../core/parity/compare.ts';
import { excuseDryRun } from '../core/parity/dry-run.ts';
import { headerValues, type Observation, type Verdict } from '../core/parity/observation.ts';
import { type CompiledRules, compileRules } from '../core/parity/rules.ts';
import type { AliasBook } from './aliases/book.ts';
import { decodePair } from './decode.ts';
import type { Evidence } from './evidence.ts';
import { type CopyAnswer, createAsk, type SendCopy, type ShadowSettings } from './shadow-ask.ts';
import { createSlots, createTokenBucket, type Slots, type TokenBucket } from './shadow-limits.ts';
import { createStopping } from './stopping.ts';

/** A command on its way to legacy. */
export type DryRunInput = {
  readonly requestId: string;
  readonly context: string;
  /** Template, e.g. `POST /api/orders`. */
  readonly route: string;
  readonly method: string;
  readonly target: string;
  /** Flat pairs, as the client sent them. */
  readonly headers: readonly string[];
  /** null = it is too large to be kept. */
  readonly body: Buffer | null;
  /** The idempotency key under which legacy gets it; null = none. */
  readonly key: string | null;
  /** Is the client inside a pin? Then the service may not know yet what its last command has changed. */
  readonly pinned: boolean;
};

/** A dry run under way beside its command. Exactly one of these is called. */
export type DryRun = {
  readonly answered: (legacy: Observation) => void;
  readonly lost: () => void;
};

/** What a service says at `GET /_banyan/dry-run`. */
export type Declaration = { readonly ids: 'stable' | 'transient' };

export type DryRunSettings = Omit<ShadowSettings, 'parity'> & { readonly parity: ShadowSettings['parity'] & { readonly dryRun: number } };

export type DryRunsDeps = {
  readonly settings: (context: string) => DryRunSettings | undefined;
  /** Asks the service; null = it makes no dry runs. May reject. */
  readonly declaration: (context: string, signal: AbortSignal) => Promise<Declaration | null>;
  readonly send: SendCopy;
  readonly evidence: Pick<Evidence, 'count' | 'note'>;
  readonly book: Pick<AliasBook, 'of' | 'learned'>;
  /** Unix ms. */
  readonly now: () => number;
  /** 0 <= x < 1. */
  readonly random: () => number;
  /** Told once when a service answered a dry run without saying that it was one: it may have done it. */
  readonly onIgnored?: (context: string, requestId: string) => void;
  readonly onJudged?: (context: string, verdict: Verdict['kind']) => void;
  /** A dry run is given up after this long. Default 10,000. */
  readonly sendTimeoutMs?: number;
};

export type DryRuns = {
  /** Starts a dry run, or gives null and counts why not. Never throws, never waits. */
  readonly begin: (input: DryRunInput) => DryRun | null;
  readonly stop: () => Promise<void>;
};

const MAX_PENDING = 50;
const NOTHING = Buffer.alloc(0);
/** A declaration holds so long; a service that is replaced says it anew. */
const DECLARED_MS = 30_000;

type Known = { declared: Declaration | null; at: number; asking: boolean; ignored: boolean };
type Lane = { readonly slots: Slots; readonly bucket: TokenBucket; readonly known: Known };

/**
 * Dry runs of commands: while legacy does a command, the service that declares dry runs gets a copy that must have no effect, and the answers are compared.
 * Sent once, never again; bounded like the shadow path; without the service's own word for it nothing is sent, and a service that once answers without the
 * mark gets no more.
 */
export const createDryRuns = (deps: DryRunsDeps): DryRuns => {
  const stopping = createStopping();
  const ask = createAsk(deps.send, deps.sendTimeoutMs ?? 10_000, stopping);
  const lanes = new Map<string, Lane>();
  const under = new Set<Promise<void>>();

  const laneOf = (context: string): Lane => {
    const known = lanes.get(context) ?? {
      slots: createSlots(() => Math.max(1, deps.settings(context)?.shadow.concurrency ?? 1)),
      bucket: createTokenBucket(() => deps.settings(context)?.shadow.maxPerSecond ?? 0, deps.now),
      known: { declared: null, at: Number.NEGATIVE_INFINITY, asking: false, ignored: false },
    };
    lanes.set(context, known);
    return known;
  };
  const compiled = new WeakMap<object, CompiledRules>();
  const rulesOf = (settings: DryRunSettings): CompiledRules => {
    const known = compiled.get(settings.parity);
    if (known && deps.now() < known.validUntilMs) return known;
    const fresh = compileRules(settings.parity, deps.now());
    compiled.set(settings.parity, fresh);
    return fresh;
  };
  const track = (work: Promise<void>): void => {
    under.add(work);
    void work.finally(() => under.delete(work));
  };

  /** What the service has declared, as far as it is known now; asks behind the client's back when that is old. */
  const declaredBy = (context: string, known: Known): Declaration | null => {
    const old = deps.now() - known.at > DECLARED_MS;
    if (old && !known.asking) {
      known.asking = true;
      const { controller, unlink } = stopping.link();
      track(
        deps
          .declaration(context, controller.signal)
          .catch(() => null)
          .then((declared) => {
            unlink();
            Object.assign(known, { declared, at: deps.now(), asking: false });
          }),
      );
    }
    return known.declared;
  };

  const reasonToSkip = (input: DryRunInput, settings: DryRunSettings, lane: Lane): string | undefined => {
    if (lane.known.ignored) return 'skipped:not-honoured';
    if (declaredBy(input.context, lane.known) === null) return 'skipped:undeclared';
    if (input.pinned) return 'skipped:lagging';
    if (input.body === null || input.body.length > settings.parity.bodyLimit) return 'skipped:too-large';
    if (deps.random() * 10_000 >= settings.parity.dryRun) return 'skipped:sample';
    if (under.size >= MAX_PENDING) return 'dropped:queue-full';
    return lane.bucket.take() ? undefined : 'dropped:rate';
  };

  const judge = async (
    input: DryRunInput,
    settings: DryRunSettings,
    known: Known,
    ours: Observation,
    theirs: CopyAnswer,
  ): Promise<void> => {
    const { context, route, requestId, method, target } = input;
    const unmarked = theirs.complete && headerValues(theirs, HEADERS.dryRun).length === 0;
    if (unmarked && theirs.status < 400) {
      if (!known.ignored) deps.onIgnored?.(context, requestId);
      known.ignored = true;
    }
    const [legacy, extracted] = await decodePair(ours, withoutMark(theirs), settings.parity.bodyLimit);
    const found: Verdict = unmarked
      ? { kind: 'incomparable', why: 'not-honoured' }
      : compareObservations(legacy, extracted, rulesOf(settings));
    const aliases: Aliases | undefined = deps.book.of(context);
    if (aliases && !unmarked && known.declared?.ids === 'stable') deps.book.learned(context, aliases.learn(target, legacy, extracted));
    const verdict = excuseDryRun(target, legacy, extracted, aliases?.excuse(found) ?? found);
    const headers: [string, string][] = [];
    for (let i = 0; i + 1 < input.headers.length; i += 2) headers.push([input.headers[i]!, input.headers[i + 1]!]);
    const answers = { legacy, extracted };
    deps.evidence.note({
      context,
      route,
      requestId,
      at: deps.now(),
      verdict,
      confirmed: false,
      primary: 'legacy',
      method,
      target,
      headers,
      answers,
      dryRun: true,
    });
    deps.onJudged?.(context, verdict.kind);
  };

  const run = async (input: DryRunInput, settings: DryRunSettings, lane: Lane, legacy: Promise<Observation | null>): Promise<void> => {
    const { context, route } = input;
    try {
      const target = deps.book.of(context)?.target(input.target, 'extracted') ?? input.target;
      const question = { ...input, target, body: input.body ?? NOTHING, mark: HEADERS.dryRun };
      // at the same moment as legacy: a moment later the service might know of the command by its fact
      const [answer, ours] = await Promise.all([ask('extracted', question, settings, lane.slots), legacy]);
      if (ours === null) deps.evidence.count(context, route, 'dry-run', 'skipped:no-answer');
      else await judge(input, settings, lane.known, ours, answer);
    } catch (error) {
      const why = stopping.stopped ? 'stopping' : error instanceof AppError && error.code === 'overloaded' ? 'stale' : 'failed';
      deps.evidence.count(context, route, 'dry-run', `dropped:${why}`);
    }
  };

  return {
    begin: (input) => {
      try {
        const settings = deps.settings(input.context);
        if (stopping.stopped || settings === undefined || settings.parity.dryRun === 0) return null;
        const lane = laneOf(input.context);
        const skip = reasonToSkip(input, settings, lane);
        if (skip !== undefined) {
          deps.evidence.count(input.context, input.route, 'dry-run', skip);
          return null;
        }
        const { promise, resolve } = Promise.withResolvers<Observation | null>();
        track(run(input, settings, lane, promise));
        return { answered: resolve, lost: () => resolve(null) };
      } catch {
        return null;
      }
    },
    stop: async () => {
      stopping.stop(new AppError('draining', 'The gateway stops'));
      await Promise.all(under);
    },
  };
};

/** The mark is no difference. */
const withoutMark = (answer: CopyAnswer): CopyAnswer => ({
  ...answer,
  headers: answer.headers.filter(([name]) => name.toLowerCase() !== HEADERS.dryRun),
});
