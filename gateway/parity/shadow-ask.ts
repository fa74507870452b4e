import { AppError } from '@banyan/contracts/errors.ts';
import type { Upstream } from '@banyan/contracts/vocabulary.ts';
import type { Observation } from '../core/parity/observation.ts';
import type { ParityRules } from '../core/parity/rules.ts';
import { copyHeaders } from './shadow-copy.ts';
import type { Slots } from './shadow-limits.ts';
import type { Stopping } from './stopping.ts';

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
  /** Flat pairs. */
  readonly headers: readonly string[];
  /** Of a dry run only. */
  readonly body?: Buffer;
  /** The idempotency key of a dry run. */
  readonly key?: string | null;
  /** Keep at most this much of the answer's body; beyond it answer `body: null` with a SHA-256 hex `digest`. */
  readonly bodyLimitBytes: number;
  /** Fires when the copy has taken too long or the process stops. */
  readonly signal: AbortSignal;
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

/** A copy that waited longer for its turn would be compared with an answer of the past. */
const MAX_WAIT_MS = 5_000;

/** Why an observation is missing, in one word. */
const whyFailed = (error: unknown): string => {
  if (!(error instanceof AppError)) return 'failed';
  return error.code.startsWith('upstream-') ? error.code.slice('upstream-'.length) : error.code;
};

/**
 * Sends one copy, once. A slot is held only while it is under way; a hung upstream gives it back after the time-out, whether `send` heeds its
 * signal or not. What went wrong comes back as an incomplete observation.
 * @throws AppError `overloaded` when no slot came free in time; the reason of `stopping` once it stops
 */
export const createAsk =
  (send: SendCopy, sendTimeoutMs: number, stopping: Stopping) =>
  async (upstream: Upstream, question: Question, settings: ShadowSettings, slots: Slots): Promise<CopyAnswer> => {
    const { controller: limit, unlink } = stopping.link();
    const { signal } = limit;
    const release = await slots.acquire(MAX_WAIT_MS, signal).catch((error: unknown) => {
      unlink();
      throw error;
    });
    const timer = setTimeout(() => limit.abort(new AppError('upstream-timeout', 'The copy took too long')), sendTimeoutMs);
    const ended = new Promise<never>((_, reject) => signal.addEventListener('abort', () => reject(signal.reason), { once: true }));
    const { requestId, context, method, target } = question;
    const headers = copyHeaders(question.headers, settings.shadow.cookies, question.mark);
    const ofCommand = question.body === undefined ? {} : { body: question.body, key: question.key ?? null };
    let hung = false;
    try {
      return await Promise.race([
        send(upstream, context, { requestId, method, target, headers, ...ofCommand, bodyLimitBytes: settings.parity.bodyLimit, signal }),
        ended,
      ]);
    } catch (error) {
      stopping.throwIfStopped();
      const why = whyFailed(error);
      hung = why === 'timeout';
      return { status: 0, headers: [], body: null, complete: false, why };
    } finally {
      clearTimeout(timer);
      unlink();
      release(hung ? 'hung' : 'answered');
    }
  };
