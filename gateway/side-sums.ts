import { AppError } from '@banyan/contracts/errors.ts';
import {
  type ChecksumAnswer,
  type ChecksumQuestion,
  checksumAnswerSchema,
  checksumQueryOf,
  MAX_SUBJECTS,
} from '@banyan/contracts/side-checksum.ts';
import type { Upstream as Side } from '@banyan/contracts/vocabulary.ts';
import type { Knex } from 'knex';
import { lockAppends } from './flags/flag-store.ts';
import type { Baseline, Levels } from './flags/levels.ts';
import type { LiveParts } from './live.ts';
import { askUpstream } from './proxy/ask.ts';

export type SideSumsDeps = {
  readonly db: Knex;
  readonly live: () => LiveParts;
  readonly adapterToken: string | null;
};

/** Both sides add up so many parts: a part is spoilt when one of its aggregates changes between the two looks. */
const PARTS = 256;
const ANSWER_BYTES = 64 * 1_048_576;
/** What a request's address may hold. */
const QUERY_BYTES = 6_000;
const LOOK_AGAIN_MS = 100;
/** Until the head of an answer that adds all aggregates up. */
const WHOLE_MS = 120_000;
const NAMED = 10;
/** How long an aggregate may differ before the freeze: the way of a change to the other side. */
const SETTLE_MS = 5_000;
/** The same in the freeze, where only those change who write around the gateway: commands wait meanwhile. */
const FROZEN_SETTLE_MS = 1_000;
/** What one question about named aggregates may take before the freeze. */
const NAMED_MS = 30_000;

const pause = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));
const listed = (subjects: readonly string[]): string =>
  `${subjects.slice(0, NAMED).join(', ')}${subjects.length > NAMED ? `, … (${subjects.length} in all)` : ''}`;

/** @throws AppError `upstream-protocol` */
const answerIn = (text: string, who: string): ChecksumAnswer => {
  try {
    return checksumAnswerSchema.parse(JSON.parse(text));
  } catch (error) {
    throw new AppError('upstream-protocol', `${who} gave no checksum when asked what it holds: ${text.slice(0, 100)}`, { cause: error });
  }
};

/** Batches that fit one request each. */
const batchesOf = (subjects: readonly string[]): string[][] => {
  const batches: string[][] = [];
  let bytes = Number.POSITIVE_INFINITY;
  for (const subject of subjects) {
    const size = encodeURIComponent(subject).length + 10;
    if (bytes + size > QUERY_BYTES || batches.at(-1)!.length >= MAX_SUBJECTS) {
      batches.push([]);
      bytes = 0;
    }
    batches.at(-1)!.push(subject);
    bytes += size;
  }
  return batches;
};

/**
 * Compares what the two sides hold (DESIGN.md section 7): everything before a freeze, while traffic goes on, and inside the freeze only what
 * has changed since.
 */
export const createSideSums = ({ db, live, adapterToken }: SideSumsDeps): Levels => {
  /** null = this side does not offer it. */
  const askLegacy = async (context: string, question: ChecksumQuestion, timeoutMs: number): Promise<ChecksumAnswer | null> => {
    const { url } = live().config.adapter;
    const path = `/v1/contexts/${encodeURIComponent(context)}/checksum${checksumQueryOf(question)}`;
    let response: Response;
    let text: string;
    try {
      response = await fetch(new URL(path, url), {
        headers: adapterToken ? { authorization: `Bearer ${adapterToken}` } : {},
        signal: AbortSignal.timeout(Math.max(1, Math.ceil(timeoutMs))),
      });
      text = await response.text();
    } catch (error) {
      throw new AppError('conflict', `the adapter does not say at ${url} what legacy holds`, { cause: error });
    }
    if (response.status === 404) return null;
    if (!response.ok)
      throw new AppError('conflict', `the adapter does not say what legacy holds: ${response.status} ${text.slice(0, 300)}`);
    return answerIn(text, 'the adapter');
  };
  const askExtracted = async (context: string, question: ChecksumQuestion, timeoutMs: number): Promise<ChecksumAnswer | null> => {
    const upstream = live().contexts.get(context)?.extracted?.upstream;
    if (!upstream) throw new AppError('not-configured', `${context} has no extracted service`);
    const { status, body } = await askUpstream(upstream, {
      path: `/_banyan/checksum${checksumQueryOf(question)}`,
      limitBytes: ANSWER_BYTES,
      timeoutMs: Math.max(1, Math.ceil(timeoutMs)),
    });
    if (status === 404 || status === 405 || status === 501) return null;
    if (status < 200 || status > 299)
      throw new AppError('conflict', `the service of ${context} answered ${status} when asked what it holds`);
    return answerIn(body.toString(), `the service of ${context}`);
  };
  type Pair = { readonly legacy: ChecksumAnswer; readonly extracted: ChecksumAnswer };
  /** A string = who does not offer it. */
  const askBoth = async (context: string, question: ChecksumQuestion, timeoutMs: number): Promise<Pair | Side> => {
    const [legacy, extracted] = await Promise.all([askLegacy(context, question, timeoutMs), askExtracted(context, question, timeoutMs)]);
    if (extracted === null) return 'extracted';
    return legacy === null ? 'legacy' : { legacy, extracted };
  };

  /** Where the outbox ends. Under the lock that every append holds: no fact with a lower position can still be on its way. */
  const endOf = (context: string): Promise<string> =>
    db.transaction(async (trx) => {
      await lockAppends(trx, context);
      const { rows } = await trx.raw<{ rows: { mark: string }[] }>('select coalesce(max(position), 0)::text as mark from banyan.outbox');
      return rows[0]!.mark;
    });

  const namesIn = ({ legacy, extracted }: Pair): string[] => {
    const here = new Map(legacy.aggregates);
    const there = new Map(extracted.aggregates);
    return [...new Set([...here.keys(), ...there.keys()])].filter((subject) => here.get(subject) !== there.get(subject));
  };

  /** Those of `subjects` that differ now. */
  const differing = async (context: string, subjects: readonly string[], lastAnswer: number): Promise<string[]> => {
    const found: string[] = [];
    for (const batch of batchesOf(subjects)) {
      const pair = await askBoth(context, { kind: 'subjects', subjects: batch }, lastAnswer - performance.now());
      if (typeof pair === 'string') throw new AppError('conflict', `the ${pair} side of ${context} does not say any more what it holds`);
      found.push(...namesIn(pair));
    }
    return found;
  };

  /**
   * Gives the two sides time to come level about `subjects`.
   * @param lastLook no question is begun behind it, but the first; `lastAnswer` ends one that is under way: a side that answers slowly is not one that differs
   * @throws AppError `conflict` naming those that stay different
   */
  const settle = async (
    context: string,
    subjects: readonly string[],
    { lastLook, lastAnswer }: { readonly lastLook: number; readonly lastAnswer: number },
  ): Promise<void> => {
    let left = await differing(context, subjects, lastAnswer);
    while (left.length > 0) {
      if (performance.now() + LOOK_AGAIN_MS >= lastLook)
        throw new AppError('conflict', `the two sides of ${context} differ: ${listed(left)}`, { details: { differ: left.slice(0, 100) } });
      await pause(LOOK_AGAIN_MS);
      left = await differing(context, left, lastAnswer);
    }
  };

  return {
    async compare(context, timeoutMs): Promise<Baseline> {
      const deadline = performance.now() + timeoutMs;
      const from = await endOf(context);
      let open = new Set(Array.from({ length: PARTS }, (_, part) => part));
      let aggregates = 0;
      // what is equal once and has not changed since is equal: whatever changes from now on is looked at again in the freeze
      for (let look = 0; look < 4 && open.size > 0; look++) {
        if (look > 0) await pause(LOOK_AGAIN_MS * 2 ** look);
        const pair = await askBoth(context, { kind: 'whole', parts: PARTS }, Math.min(WHOLE_MS, deadline - performance.now()));
        if (typeof pair === 'string') return { context, from, aggregates: null };
        const { legacy, extracted } = pair;
        aggregates = extracted.count;
        open = new Set([...open].filter((part) => legacy.parts?.[part]?.checksum !== extracted.parts?.[part]?.checksum));
        if (look > 0 && open.size > PARTS / 2) break;
      }
      const suspects: string[] = [];
      for (const part of [...open].slice(0, NAMED)) {
        const pair = await askBoth(context, { kind: 'part', parts: PARTS, part }, deadline - performance.now());
        if (typeof pair !== 'string') suspects.push(...namesIn(pair));
      }
      // traffic may have been quick enough to spoil a part at every look: only those that stay different count
      if (suspects.length > 0) {
        const now = performance.now();
        await settle(context, suspects, {
          lastLook: Math.min(deadline, now + SETTLE_MS),
          lastAnswer: Math.min(deadline, now + SETTLE_MS + NAMED_MS),
        });
      }
      if (open.size > NAMED)
        throw new AppError('conflict', `the two sides of ${context} differ in ${open.size} of ${PARTS} parts: they have not come level`);
      return { context, from, aggregates };
    },

    async recheck(baseline, timeoutMs) {
      if (baseline.aggregates === null) return null;
      const { rows } = await db.raw<{ rows: { subject: string }[] }>(
        'select distinct subject from banyan.outbox where position > ? and context = ? order by subject',
        [baseline.from, baseline.context],
      );
      const now = performance.now();
      await settle(
        baseline.context,
        rows.map(({ subject }) => subject),
        { lastLook: now + Math.min(timeoutMs, FROZEN_SETTLE_MS), lastAnswer: now + timeoutMs },
      );
      return rows.length;
    },
  };
};
