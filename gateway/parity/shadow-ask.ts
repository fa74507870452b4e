import { AppError } from '@banyan/contracts/errors.ts';
import type { Upstream } from '@banyan/contracts/vocabulary.ts';
import type { Observation } from '../core/parity/observation.ts';
import type { ParityRules } from '../core/parity/rules.ts';
import { copyHeaders } from './shadow-copy.ts';
import type { Outcome, Slots, Waiter } from './shadow-limits.ts';
import type { Stoppable, Stopping } from './stopping.ts';

/** The part of a context's configuration that the shadow path reads; a new object after each reload. */
export type ShadowSettings = {
  readonly parity: ParityRules & {
    /** Shares in basis points, 0..10000. */
    readonly sample: number;
    readonly compare: number;
    readonly probe: number;
    readonly unsafeQueries: readonly string[];
    /** Bytes. */
    readonly bodyLimit: number;
  };
  readonly shadow: { readonly maxPerSecond: number; readonly concurrency: number; readonly cookies: 'pass' | 'drop' };
};

/** A copy as `send` gets it: no conditions, marked. */
export type ShadowCopy = {
  readonly requestId: string;
  readonly method: string;
  readonly target: string;
  /** Flat pairs, a list of its own each time. */
  readonly headers: string[];
  /** Of a dry run only. */
  readonly body?: Buffer | undefined;
  /** The idempotency key of a dry run; null = none. */
  readonly key?: string | null | undefined;
  /** Keep at most this much of the answer's body; beyond it answer `body: null` with a SHA-256 hex `digest`. */
  readonly bodyLimitBytes: number;
  /** The copy has taken too long, or the process stops: nobody waits for its answer any more. */
  readonly ended: boolean;
  /** Calls `listener` once when it ends, at once if it has. The last one counts. */
  onEnd(listener: () => void): void;
};

/** `headMs`: from the moment it was sent to the head of the answer. */
export type CopyAnswer = Observation & { readonly headMs?: number };

/** Sends a copy on sockets and time-outs of its own. Never retries. May reject (an AppError names the reason). */
export type SendCopy = (upstream: Upstream, context: string, copy: ShadowCopy) => Promise<CopyAnswer>;

/** The request that is asked again. */
export type Question = {
  readonly requestId: string;
  readonly context: string;
  readonly method: string;
  readonly target: string;
  readonly headers: readonly string[];
  readonly body?: Buffer;
  readonly key?: string | null;
  /** Default `banyan-shadow`. */
  readonly mark?: string;
};

/** Why an observation is missing, in one word. */
const whyFailed = (error: unknown): string => {
  if (!(error instanceof AppError)) return 'failed';
  return error.code.startsWith('upstream-') ? error.code.slice('upstream-'.length) : error.code;
};

const missing = (why: string): Observation => ({ status: 0, headers: [], body: null, complete: false, why });

/** A copy that waited longer for its turn would be compared with an answer of the past. */
const MAX_WAIT_MS = 5_000;

type AskDeps = { readonly send: SendCopy; readonly sendTimeoutMs: number; readonly stopping: Stopping; readonly maxWaitMs: number };

/** One copy on its way. One object with methods instead of closures, promises and signals: some hundred of them wait while a side hangs. */
class Asking implements ShadowCopy, Waiter, Stoppable {
  readonly #deps: AskDeps;
  readonly #upstream: Upstream;
  readonly #question: Question;
  readonly #settings: ShadowSettings;
  readonly #slots: Slots;
  readonly #resolve: (answer: CopyAnswer) => void;
  readonly #reject: (error: Error) => void;
  #timer: NodeJS.Timeout | undefined;
  #entered = false;
  #over = false;
  #onEnd: (() => void) | null = null;
  ended = false;
  place = -1;

  constructor(
    deps: AskDeps,
    upstream: Upstream,
    question: Question,
    settings: ShadowSettings,
    slots: Slots,
    resolve: (answer: CopyAnswer) => void,
    reject: (error: Error) => void,
  ) {
    this.#deps = deps;
    this.#upstream = upstream;
    this.#question = question;
    this.#settings = settings;
    this.#slots = slots;
    this.#resolve = resolve;
    this.#reject = reject;
  }

  get requestId(): string {
    return this.#question.requestId;
  }
  get method(): string {
    return this.#question.method;
  }
  get target(): string {
    return this.#question.target;
  }
  get headers(): string[] {
    return copyHeaders(this.#question.headers, this.#settings.shadow.cookies, this.#question.mark);
  }
  get body(): Buffer | undefined {
    return this.#question.body;
  }
  get key(): string | null | undefined {
    return this.#question.key;
  }
  get bodyLimitBytes(): number {
    return this.#settings.parity.bodyLimit;
  }

  onEnd(listener: () => void): void {
    if (this.ended) listener();
    else this.#onEnd = listener;
  }

  /** @throws the reason of `stopping` once it stops */
  start(): void {
    this.#deps.stopping.add(this);
    this.#slots.acquire(this);
    if (!this.#entered) this.#timer = setTimeout(expire, this.#deps.maxWaitMs, this);
  }

  enter(): void {
    this.#entered = true;
    // a slot that the stop has freed; this one is stopped next
    if (this.#deps.stopping.stopped) return;
    clearTimeout(this.#timer);
    this.#timer = setTimeout(expire, this.#deps.sendTimeoutMs, this);
    void this.#send();
  }

  expire(): void {
    if (this.#entered) this.#settle(missing('timeout'), 'hung');
    else this.#fail(new AppError('overloaded', 'The copy waited too long for its turn'));
  }

  stop(reason: Error): void {
    this.#fail(reason);
  }

  async #send(): Promise<void> {
    try {
      this.#settle(await this.#deps.send(this.#upstream, this.#question.context, this), 'answered');
    } catch (error) {
      const why = whyFailed(error);
      this.#settle(missing(why), why === 'timeout' ? 'hung' : 'answered');
    }
  }

  #settle(answer: CopyAnswer, outcome: Outcome): void {
    if (!this.#leave()) return;
    // before the next one enters, which wants its connection
    if (outcome === 'hung') this.#end();
    this.#resolve(answer);
    this.#slots.release(outcome);
  }

  #fail(error: Error): void {
    if (!this.#leave()) return;
    this.#end();
    this.#reject(error);
    if (this.#entered) this.#slots.release('answered');
    else this.#slots.leave(this);
  }

  /** False when it is over already. */
  #leave(): boolean {
    if (this.#over) return false;
    this.#over = true;
    clearTimeout(this.#timer);
    this.#deps.stopping.remove(this);
    return true;
  }

  #end(): void {
    this.ended = true;
    this.#onEnd?.();
    this.#onEnd = null;
  }
}

const expire = (asking: Asking): void => asking.expire();

/**
 * Sends one copy, once. A slot is held only while it is under way; a hung upstream gives it back after the time-out, whether `send` heeds its
 * end or not. What went wrong comes back as an incomplete observation.
 * @throws AppError `overloaded` when no slot came free in time; the reason of `stopping` once it stops
 */
export const createAsk = (send: SendCopy, sendTimeoutMs: number, stopping: Stopping, maxWaitMs: number = MAX_WAIT_MS) => {
  const deps: AskDeps = { send, sendTimeoutMs, stopping, maxWaitMs };
  return (upstream: Upstream, question: Question, settings: ShadowSettings, slots: Slots): Promise<CopyAnswer> =>
    new Promise((resolve, reject) => new Asking(deps, upstream, question, settings, slots, resolve, reject).start());
};
