import { AppError } from '@banyan/contracts/errors.ts';
import { LEDGER_STATES, type LedgerState } from '@banyan/contracts/vocabulary.ts';

/** What can happen to a dual write. */
export const LEDGER_EVENTS = [
  'send',
  'expire',
  'not-sent',
  'ok',
  'refused',
  'lost',
  'found',
  'absent',
  'resent',
  'exhausted',
  'acked',
  'nothing-due',
  'unbuildable',
  'all-acked',
  'seen',
  'again',
  'tentative-out',
  'take-back',
  'as-applied',
  'as-not-applied',
  'as-no-event',
  'as-compensate',
] as const;
export type LedgerEvent = (typeof LEDGER_EVENTS)[number];

const unanswered = { seen: 'applied', again: 'sent', 'tentative-out': 'compensating' } as const;

/** Every legal move of a ledger entry; the SQL table `banyan.ledger_moves` is filled from it. An empty row is final. */
export const MOVES: Readonly<Record<LedgerState, Partial<Record<LedgerEvent, LedgerState>>>> = {
  intent: { send: 'sent', expire: 'expired', 'not-sent': 'rejected' },
  sent: { ok: 'applied', refused: 'rejected', 'not-sent': 'rejected', lost: 'unknown' },
  unknown: { found: 'applied', absent: 'rejected', resent: 'sent', exhausted: 'parked' },
  applied: { acked: 'published', 'nothing-due': 'done', unbuildable: 'parked', 'take-back': 'compensating' },
  published: { 'all-acked': 'done' },
  rejected: unanswered,
  expired: unanswered,
  compensating: { acked: 'compensated', exhausted: 'parked' },
  compensated: {},
  parked: { 'as-applied': 'applied', 'as-not-applied': 'rejected', 'as-no-event': 'done', 'as-compensate': 'compensating' },
  done: {},
};

/** A late or repeated event: loud instead of lost. */
export class LedgerMoveError extends AppError {
  constructor(from: LedgerState, event: LedgerEvent) {
    super('illegal-move', `a ledger entry in state ${from} knows no event ${event}`);
    this.name = 'LedgerMoveError';
  }
}

const refuse = (from: LedgerState, event: LedgerEvent): never => {
  throw new LedgerMoveError(from, event);
};

/** @throws LedgerMoveError for a move that is not in the table. */
export const move = (from: LedgerState, event: LedgerEvent): LedgerState => MOVES[from][event] ?? refuse(from, event);

/** The table as rows, in a stable order: for SQL, the dashboard and the diagram in the docs. */
export const movesAsRows = (): { from: LedgerState; event: LedgerEvent; to: LedgerState }[] =>
  LEDGER_STATES.flatMap((from) =>
    LEDGER_EVENTS.flatMap((event) => {
      const to = MOVES[from][event];
      return to === undefined ? [] : [{ from, event, to }];
    }),
  );
