import type { Knex } from 'knex';
import { claimUnknown, type LedgerRow, prune, recoverRows } from './ledger.ts';
import { createLoop } from './loop.ts';
import { turnOutboxOver } from './outbox.ts';
import type { Log } from './write.ts';

export type RecoveryDeps = {
  readonly db: Knex;
  readonly memberId: string;
  readonly reconcile: (row: LedgerRow) => Promise<void>;
  /** Takes back what is due; answers how many it looked at. */
  readonly compensate?: () => Promise<number>;
  readonly wakeRelay: () => void;
  readonly log: Log;
  /** A member whose heartbeat is older than this is dead. Default 5,000. */
  readonly deadMs?: number;
  /** Pause between looks; default 500. */
  readonly intervalMs?: number;
  /** Nobody else asks about a claimed row meanwhile. Default 30,000. */
  readonly leaseMs?: number;
  /** Rows asked about at a time; default 8. */
  readonly concurrency?: number;
  /** Final rows, stored answers and published facts are kept so long. Default 7 days. */
  readonly keepMs?: number;
};

const PRUNE_EVERY_MS = 60_000;

/** Every gateway looks after the rows of those that died, after those whose outcome nobody knows, and after what is to be taken back. */
export const createRecovery = (deps: RecoveryDeps): { start: () => void; stop: () => Promise<void>; wake: () => void } => {
  const { db, log } = deps;
  let prunedAt = Date.now();
  const round = async (): Promise<number> => {
    const intervalMs = deps.intervalMs ?? 500;
    try {
      const recovered = await recoverRows(db, deps.deadMs ?? 5_000, 500);
      if (recovered.length > 0) {
        log.warn(
          { rows: recovered.length, unknown: recovered.filter((row) => row.state === 'unknown').length },
          'commands of a gateway that did not finish were taken over',
        );
        deps.wakeRelay();
      }
      const due = await claimUnknown(db, deps.memberId, deps.leaseMs ?? 30_000, deps.concurrency ?? 8);
      const [undone] = await Promise.all([deps.compensate?.() ?? 0, ...due.map(deps.reconcile)]);
      if (due.length > 0) deps.wakeRelay();
      if (Date.now() - prunedAt > PRUNE_EVERY_MS) {
        prunedAt = Date.now();
        const keepMs = deps.keepMs ?? 7 * 86_400_000;
        await prune(db, keepMs, 5_000);
        await turnOutboxOver(db, keepMs);
      }
      return due.length > 0 || undone > 0 || recovered.length === 500 ? 10 : intervalMs * (0.75 + Math.random() / 2);
    } catch (error) {
      log.warn({ error: String(error) }, 'recovery could not look at the ledger');
      return intervalMs * 2;
    }
  };
  return createLoop(round);
};
