import { AppError } from '@banyan/contracts/errors.ts';
import type { Knex } from 'knex';
import { type Failpoints, NO_FAILPOINTS } from './failpoints.ts';
import { claimUndo, endUndo, type UndoRow } from './ledger.ts';
import type { Log } from './write.ts';

/** Sends what takes a command back, with `key` as Idempotency-Key; answers the status, and what the other side says of it. @throws AppError whose `sent` tells whether it may have gone out */
export type SendUndo = (
  row: UndoRow,
  key: string,
  timeoutMs: number,
) => Promise<{ readonly status: number; readonly detail: string | null }>;

export type CompensationDeps = {
  readonly db: Knex;
  readonly memberId: string;
  readonly send: SendUndo;
  /** Compensated facts are in the outbox. */
  readonly wakeRelay: () => void;
  readonly log: Log;
  readonly fail?: Failpoints;
  /** Attempts before it waits for a person. Default 12. */
  readonly maxAttempts?: number;
  /** Pause after the first attempt, doubled up to `maxDelayMs`, with jitter. Defaults 250 and 30,000. */
  readonly firstDelayMs?: number;
  readonly maxDelayMs?: number;
  /** Nobody else takes it meanwhile; an attempt is given two thirds of it. Default 30,000. */
  readonly leaseMs?: number;
  /** At a time; default 8. */
  readonly concurrency?: number;
};

type Ending = { readonly as: 'done' | 'due' | 'sent' | 'parked'; readonly error: string | null };

/** Refused before it was looked at: asking again cannot do it twice. */
const LATER = new Set([408, 425, 429]);

const endingOf = (row: UndoRow, status: number, detail: string | null): Ending => {
  if (status >= 200 && status < 400) return { as: 'done', error: null };
  const error = `${row.undo.to} answered ${status} when it was to take it back${detail === null ? '' : `: ${detail.slice(0, 300)}`}`;
  if (LATER.has(status)) return { as: 'due', error };
  return status >= 500 ? { as: 'sent', error } : { as: 'parked', error };
};

/**
 * Takes back what legacy did (`writes.compensate`). Every attempt is committed before its first byte and goes out under one key, so that legacy does it once
 * however often a gateway dies; where legacy does not honour keys, one whose outcome nobody knows is never repeated. What cannot be taken back waits for a
 * person. Resolves to the number of commands looked at.
 */
export const createCompensation = (deps: CompensationDeps): (() => Promise<number>) => {
  const { db, log } = deps;
  const fail = deps.fail ?? NO_FAILPOINTS;
  const leaseMs = deps.leaseMs ?? 30_000;
  const maxAttempts = deps.maxAttempts ?? 12;

  const attempt = async (row: UndoRow): Promise<Ending> => {
    if (row.was === 'sent' && !row.undo.repeat)
      return { as: 'parked', error: 'nobody knows whether an earlier attempt took it back, and legacy honours no keys' };
    try {
      fail.hit('undo-before');
      fail.later('undo-sent', 3);
      const { status, detail } = await deps.send(row, `compensate-${row.id}`, Math.round((leaseMs * 2) / 3));
      fail.hit('undo-after');
      return endingOf(row, status, detail);
    } catch (error) {
      const notSent = error instanceof AppError && error.sent === 'no';
      return { as: notSent ? 'due' : 'sent', error: (error instanceof Error ? error.message : String(error)).slice(0, 300) };
    }
  };

  const one = async (row: UndoRow): Promise<void> => {
    let { as, error } = await attempt(row);
    const lost = as === 'sent' && !row.undo.repeat;
    if (lost || ((as === 'due' || as === 'sent') && row.attempts >= maxAttempts)) as = 'parked';
    const ceiling = Math.min(deps.maxDelayMs ?? 30_000, (deps.firstDelayMs ?? 250) * 2 ** Math.min(row.attempts, 20));
    const state = await endUndo(db, row, as, Math.round(ceiling * (0.5 + Math.random() / 2)), error);
    if (as === 'parked' && state === 'parked')
      log.error({ id: row.id, context: row.context, error }, 'a command waits for a person: what legacy did could not be taken back');
    if (as === 'done') deps.wakeRelay();
  };

  return async () => {
    const due = await claimUndo(db, deps.memberId, leaseMs, deps.concurrency ?? 8);
    await Promise.all(
      due.map((row) =>
        // what was claimed comes back when its lease is over
        one(row).catch((error: unknown) => log.warn({ id: row.id, error: String(error) }, 'a compensation could not be noted')),
      ),
    );
    return due.length;
  };
};
