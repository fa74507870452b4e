import { type Envelope, envelopeSchema } from '@banyan/contracts/envelope.ts';
import { AppError } from '@banyan/contracts/errors.ts';
import type { Knex } from 'knex';
import type { Logger } from 'pino';
import { ZodError } from 'zod';
import { isPassing } from '../database-errors.ts';
import type { Shapes } from '../legacy-rows.ts';
import type { Aggregate, Translation } from '../ports.ts';
import { applyFact } from './apply.ts';

export type BackSyncDeps = {
  readonly legacy: Knex;
  readonly store: Knex;
  readonly translation: Translation;
  readonly aggregates: readonly Aggregate[];
  /** The tables' shapes once capture is installed, else null: without its schema nothing marks or guards the writes. */
  readonly shapes: () => Promise<Shapes | null>;
  readonly log: Logger;
  /** Called between the legacy commit and the removal of the store's row; a test lets it throw. */
  readonly beforeSettle?: () => Promise<void>;
};

/** A fact that could not be written yet; later facts of its subject wait behind it. */
export type Failing = { readonly context: string; readonly subject: string; readonly error: string };

export type BackSync = { readonly turn: (signal: AbortSignal) => Promise<number>; readonly failing: () => readonly Failing[] };

type Row = {
  fact_id: string;
  context: string;
  subject: string;
  envelope: string;
  attempts: number;
  /** Under which legacy itself has changed the subject last; null = never. */
  legacy_epoch: number | null;
};

const BATCH_ROWS = 200;
/** Subjects that are written at the same time. */
const WRITERS = 4;
const IDLE_MS = 50;
const NOT_INSTALLED_MS = 500;
const FIRST_RETRY_MS = 250;
const LAST_RETRY_MS = 30_000;
const MAX_FAILING = 2000;
const MAX_ERROR_LENGTH = 1000;
/** From this attempt on a person should look: it is logged as an error, once per attempt number. */
const ALARM_ATTEMPTS = 5;

/**
 * After `kill --now` legacy takes commands before it has seen the last facts: what somebody has changed there meanwhile is not written over. It stays a
 * failing fact, which a hand-over to extracted waits for, until a person has settled it.
 * @throws AppError `conflict`
 */
const refuseOvertaken = ({ context, subject, legacy_epoch: changed }: Row, fact: Envelope): void => {
  if (changed !== null && changed > fact.epoch)
    throw new AppError(
      'conflict',
      `legacy has changed ${context} ${subject} under epoch ${changed}, after it took the writes: ${fact.type} of epoch ${fact.epoch} is not written over that`,
    );
};

const nameOf = ({ context, subject }: { context: string; subject: string }): string => `${context}/${subject}`;

/** Takes facts of `banyan.back_sync` in the order of their position per subject and writes them into the legacy tables. */
export const createBackSync = (deps: BackSyncDeps): BackSync => {
  const { legacy, store, translation, aggregates, log } = deps;
  const failing = new Map<string, Failing & { readonly at: number }>();

  const fail = async (row: Row, error: unknown): Promise<void> => {
    const message = (error instanceof Error ? error.message : String(error)).slice(0, MAX_ERROR_LENGTH);
    const attempts = row.attempts + 1;
    failing.set(nameOf(row), {
      context: row.context,
      subject: row.subject,
      error: message,
      at: performance.now() + Math.min(FIRST_RETRY_MS * 2 ** Math.min(row.attempts, 10), LAST_RETRY_MS),
    });
    log[attempts >= ALARM_ATTEMPTS ? 'error' : 'warn'](
      { context: row.context, subject: row.subject, factId: row.fact_id, attempts, error: message },
      'a fact cannot be written into the legacy tables',
    );
    await store.raw('update banyan.back_sync set attempts = ?, error = ? where fact_id = ?', [attempts, message, row.fact_id]);
  };

  const applySubject = async (shapes: Shapes, rows: readonly Row[], signal: AbortSignal): Promise<void> => {
    for (const row of rows) {
      if (signal.aborted) return;
      try {
        const fact = envelopeSchema.parse(JSON.parse(row.envelope));
        refuseOvertaken(row, fact);
        await applyFact({ legacy, translation, aggregates, shapes }, row.context, fact);
      } catch (error) {
        if (!(error instanceof AppError) && !(error instanceof ZodError) && isPassing(error)) throw error;
        await fail(row, error);
        return;
      }
      failing.delete(nameOf(row));
      await deps.beforeSettle?.();
      await store.raw('delete from banyan.back_sync where fact_id = ?', [row.fact_id]);
    }
  };

  const turn = async (signal: AbortSignal): Promise<number> => {
    const now = performance.now();
    const waiting = [...failing.values()].filter(({ at }) => at > now).map(nameOf);
    if (waiting.length >= MAX_FAILING) return IDLE_MS;
    const { rows } = await store.raw<{ rows: Row[] }>(
      `select fact_id, context, subject, envelope, attempts,
         (select max(h.epoch) from banyan.subject_head h where h.source = '/banyan/' || context || '/legacy' and h.subject = back_sync.subject) as legacy_epoch
       from banyan.back_sync where context = any(?::text[]) and context || '/' || subject not in (select unnest(?::text[])) order by position limit ?`,
      [aggregates.map(({ context }) => context), waiting, BATCH_ROWS],
    );
    if (rows.length === 0) {
      // Rows that somebody else took away do not fail any more.
      for (const [name, { at }] of failing) if (at <= now) failing.delete(name);
      return IDLE_MS;
    }
    const shapes = await deps.shapes();
    if (shapes === null) return NOT_INSTALLED_MS;
    const bySubject = Map.groupBy(rows, nameOf);
    const queue = [...bySubject.values()];
    const writer = async (): Promise<void> => {
      for (let next = queue.shift(); next !== undefined; next = queue.shift()) await applySubject(shapes, next, signal);
    };
    // Not Promise.all: a turn ends when all of its writers have.
    const ended = await Promise.allSettled(Array.from({ length: WRITERS }, writer));
    for (const end of ended) if (end.status === 'rejected') throw end.reason;
    return 0;
  };

  return { turn, failing: () => [...failing.values()].map(({ at: _, ...rest }) => rest) };
};
