import { setTimeout as sleep } from 'node:timers/promises';
import { AppError } from '@banyan/contracts/errors.ts';
import { HEADERS, type Upstream } from '@banyan/contracts/vocabulary.ts';
import type { Alias } from '../../core/parity/aliases.ts';
import type { Observation } from '../../core/parity/observation.ts';
import { decodePair } from '../decode.ts';
import { createAsk, type SendCopy, type ShadowSettings } from '../shadow-ask.ts';
import { createSlots, createTokenBucket, type Slots, type TokenBucket } from '../shadow-limits.ts';
import { createStopping } from '../stopping.ts';
import type { AliasBook } from './book.ts';

/** A command that one side has done. */
export type Made = {
  readonly requestId: string;
  readonly context: string;
  /** Of the command. */
  readonly target: string;
  /** Flat pairs, as the client sent them. */
  readonly headers: readonly string[];
  readonly primary: Upstream;
  readonly answer: Observation;
  /** Target of the question what became of it. */
  readonly question: string;
  /** What stands for the command's answer in the answer to that question, as JSON text; null = it is not there. */
  readonly read: (status: number, text: string) => string | null;
};

export type TwinsDeps = {
  readonly book: Pick<AliasBook, 'of' | 'learned'>;
  readonly settings: (context: string) => ShadowSettings | undefined;
  readonly send: SendCopy;
  /** Unix ms. */
  readonly now: () => number;
  readonly delay?: (ms: number, signal: AbortSignal) => Promise<unknown>;
  /** Pauses before the looks at the other side; it learns by the stream. Default 100 ms to 30 s. */
  readonly lookAfterMs?: readonly number[];
  /** Told what became of each: `learned`, `same`, `absent`, or why nothing was asked. */
  readonly onEnd?: (made: Made, outcome: string) => void;
};

export type Twins = {
  /** Takes a done command. Never throws, never waits. */
  readonly offer: (made: Made) => void;
  readonly stop: () => Promise<void>;
};

const MAX_PENDING = 200;
const CONCURRENCY = 4;
const LOOK_AFTER_MS = [100, 400, 1_500, 5_000, 30_000];
/** Of the command and its body; the question has none. */
const OF_COMMAND = new Set([HEADERS.idempotencyKey, 'content-type', 'content-encoding', 'content-language', 'content-md5', 'digest']);

const questionHeaders = (headers: readonly string[]): string[] => {
  const kept: string[] = [];
  for (let i = 0; i + 1 < headers.length; i += 2) if (!OF_COMMAND.has(headers[i]!.toLowerCase())) kept.push(headers[i]!, headers[i + 1]!);
  return kept;
};

type Lane = { readonly slots: Slots; readonly bucket: TokenBucket };

/**
 * Finds out what the other side calls a thing that a command has made: both are asked the question of `writes.resolve`, whose answer stands for the
 * command's own. Only queries are sent, and few: bounded, rate-limited, given up after a while.
 */
export const createTwins = (deps: TwinsDeps): Twins => {
  const delay = deps.delay ?? ((ms: number, signal: AbortSignal) => sleep(ms, undefined, { signal, ref: false }));
  const stopping = createStopping();
  const ask = createAsk(deps.send, 10_000, stopping);
  const lanes = new Map<string, Lane>();
  const under = new Set<Promise<void>>();

  const laneOf = (context: string, side: Upstream): Lane => {
    const key = `${side} ${context}`;
    const known = lanes.get(key) ?? {
      slots: createSlots(() => CONCURRENCY),
      bucket: createTokenBucket(() => deps.settings(context)?.shadow.maxPerSecond ?? 0, deps.now),
    };
    lanes.set(key, known);
    return known;
  };

  const look = async (made: Made): Promise<string> => {
    const other: Upstream = made.primary === 'legacy' ? 'extracted' : 'legacy';
    for (const ms of deps.lookAfterMs ?? LOOK_AFTER_MS) {
      const { controller, unlink } = stopping.link();
      await delay(ms, controller.signal).finally(unlink);
      const settings = deps.settings(made.context);
      const aliases = deps.book.of(made.context);
      if (settings === undefined || aliases === undefined) return 'off';
      const { slots, bucket } = laneOf(made.context, other);
      if (!bucket.take()) continue;
      const question = { ...made, method: 'GET', target: aliases.target(made.question, other), headers: questionHeaders(made.headers) };
      const said = await ask(other, question, settings, slots);
      if (!said.complete || said.body === null) continue;
      const [twin, answer] = await decodePair(said, made.answer, settings.parity.bodyLimit);
      const found = twin.body === null ? null : made.read(twin.status, Buffer.from(twin.body).toString());
      if (found === null) continue;
      const its: Observation = { ...answer, headers: [['content-type', 'application/json']], body: Buffer.from(found) };
      const own: Observation = { ...answer, headers: answer.headers.filter(([name]) => name.toLowerCase() !== 'location') };
      const sides: [Observation, Observation] = other === 'extracted' ? [own, its] : [its, own];
      const learned: readonly Alias[] = aliases.learn(made.target, ...sides);
      deps.book.learned(made.context, learned);
      return learned.length > 0 ? 'learned' : 'same';
    }
    return 'absent';
  };

  return {
    offer: (made) => {
      if (stopping.stopped || deps.book.of(made.context) === undefined) return;
      if (under.size >= MAX_PENDING) {
        deps.onEnd?.(made, 'queue-full');
        return;
      }
      const run = look(made)
        .catch((error: unknown) => (stopping.stopped ? 'stopping' : error instanceof AppError ? error.code : 'failed'))
        .then((outcome) => {
          under.delete(run);
          deps.onEnd?.(made, outcome);
        });
      under.add(run);
    },
    stop: async () => {
      stopping.stop(new AppError('draining', 'The gateway stops'));
      await Promise.all(under);
    },
  };
};
