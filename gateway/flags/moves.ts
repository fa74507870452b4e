import { randomUUID } from 'node:crypto';
import { AppError } from '@banyan/contracts/errors.ts';
import type { Stage } from '@banyan/contracts/vocabulary.ts';
import type { Knex } from 'knex';
import { planMove } from '../core/stage-moves.ts';
import { askFor, isPromotion } from './approvals.ts';
import { activeFlip, appendAudit, killOnce, lockFlags, patchFlag, type StoredFlag, summary } from './flag-store.ts';
import type { Flags } from './flags.ts';
import type { Flips } from './flips.ts';

export type MovesDeps = {
  readonly db: Knex | null;
  readonly flags: Flags;
  readonly flips: Flips | null;
  /** What the configuration says of a context that matters to a move. */
  readonly contextOf: (name: string) =>
    | {
        readonly firstShareBp: number /** Why this context may not be cut over now, in words; empty = it may. */;
        readonly cutoverObstacles: readonly string[];
      }
    | undefined;
  /** People besides the one who asks who must ask for the same promotion; default 0. */
  readonly approvals?: () => number;
};

export type StageRequest = {
  readonly stage: Stage;
  /** 0..10000; only with `canary`. Absent = the present share, or the first ramp step when it comes from elsewhere. */
  readonly canaryShareBp?: number | undefined;
  readonly reason: string;
  readonly force?: boolean | undefined;
  readonly ifVersion?: number | undefined;
  readonly actor: string;
  /** The ramp has approvals of its own. */
  readonly approved?: boolean | undefined;
  /** Kept with the audit row of the move. */
  readonly evidence?: unknown;
  /** Runs in the transaction of an instant move; what it throws undoes the move. */
  readonly also?: ((trx: Knex, moved: readonly StoredFlag[]) => Promise<void>) | undefined;
};

export type Moved =
  | { readonly kind: 'done'; readonly flags: StoredFlag[] }
  | { readonly kind: 'flip'; readonly id: string; readonly state: string }
  /** Others must ask for the same first. */
  | { readonly kind: 'asked'; readonly canaryShareBp: number; readonly askedBy: readonly string[]; readonly needed: number };

export type KillRequest = {
  /** A UUID: the same kill is told to many gateways, and obeyed once by the store. Absent = a new one. */
  readonly id?: string | undefined;
  readonly reason: string;
  readonly now?: boolean | undefined;
  readonly actor: string;
};

export type Moves = {
  stage(context: string, request: StageRequest): Promise<Moved>;
  kill(contexts: readonly string[], request: KillRequest): Promise<StoredFlag[]>;
  revive(contexts: readonly string[], request: { reason: string; actor: string }): Promise<StoredFlag[]>;
};

const AWAY = 'the store is not configured: only kill works here, the stage comes from the file';

/** A kill takes effect here at once: a store that is slower than this counts as away. */
const KILL_WAIT_MS = 1_000;

const inTime = async (work: Promise<unknown>): Promise<void> => {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Error(`the store took longer than ${KILL_WAIT_MS} ms`)), KILL_WAIT_MS);
  });
  try {
    await Promise.race([work, late]);
  } finally {
    clearTimeout(timer);
  }
};

/** Changes of flags by people. Everything is audited in the transaction of the change. */
export const createMoves = ({ db, flags, flips, contextOf, approvals }: MovesDeps): Moves => {
  const known = (name: string): StoredFlag => {
    const flag = flags.current(name);
    if (!flag)
      throw new AppError(
        'not-found',
        `no context is called ${name}; there are: ${
          flags
            .all()
            .map((f) => f.name)
            .join(', ') || 'none'
        }`,
      );
    return flag;
  };
  /** Contexts of one group move as one. */
  const groupOf = (name: string): string[] => {
    const { group } = known(name);
    return group === null
      ? [name]
      : flags
          .all()
          .filter((flag) => flag.group === group)
          .map((flag) => flag.name)
          .sort();
  };
  const withStore = async <T>(work: (store: Knex) => Promise<T>): Promise<T> => {
    if (!db) throw new AppError('not-configured', AWAY);
    try {
      return await work(db);
    } catch (error) {
      if (error instanceof AppError) throw error;
      throw new AppError('store-unavailable', 'the store does not answer, nothing was changed', {
        cause: error,
        retryable: true,
        retryAfterSeconds: 2,
      });
    }
  };
  const all = (names: readonly string[]): string[] => [...new Set(names.flatMap(groupOf))].sort();

  return {
    async stage(context, request) {
      const names = groupOf(context);
      const target = known(context);
      if (request.stage !== 'canary' && request.canaryShareBp !== undefined)
        throw new AppError('bad-request', `a percentage goes with canary only, not with ${request.stage}`);
      const move = planMove(target.stage, request.stage, request.force ?? false);
      if (move.kind === 'illegal')
        throw new AppError('illegal-move', `${move.why}; legal from ${target.stage}: ${move.legal.join(', ') || 'nothing'}`, {
          details: { from: target.stage, to: request.stage, legal: move.legal },
        });
      if (request.stage === 'retired' && !request.force)
        throw new AppError(
          'illegal-move',
          'cutover -> retired needs 7 days without drift or force: drift is not measured yet, so it needs force',
        );
      const shareBp =
        request.stage === 'canary'
          ? (request.canaryShareBp ?? (target.stage === 'canary' ? target.canaryShareBp : (contextOf(context)?.firstShareBp ?? 100)))
          : request.stage === 'cutover' || request.stage === 'retired'
            ? 10_000
            : 0;
      const approval: { by: readonly string[] | null } = { by: null };
      /** Of a promotion that needs others: who has asked for it so far, unless that is enough. */
      const asked = async (): Promise<Extract<Moved, { kind: 'asked' }> | null> => {
        const needed = approvals?.() ?? 0;
        if (needed === 0 || request.approved || !isPromotion(target, { stage: request.stage, canaryShareBp: shareBp })) return null;
        const { version } = target;
        if (request.ifVersion !== undefined && request.ifVersion !== version)
          throw new AppError('stale-version', `${context} is at version ${version}, not ${request.ifVersion}: somebody changed it`, {
            details: { version },
          });
        const { actor, reason } = request;
        const found = await withStore((store) =>
          store.transaction((trx) =>
            askFor(trx, { context: names[0]!, stage: request.stage, canaryShareBp: shareBp, version, actor, reason }, needed),
          ),
        );
        if (!found.enough) return { kind: 'asked', canaryShareBp: shareBp, askedBy: found.actors, needed: needed + 1 };
        approval.by = found.actors;
        return null;
      };
      if (move.kind === 'flip') {
        if (!flips) throw new AppError('not-configured', AWAY);
        if (request.stage === 'cutover') {
          const killed = names.filter((name) => known(name).killed);
          if (killed.length > 0) throw new AppError('conflict', `cutover is refused: ${killed.join(', ')} is killed; revive it first`);
          const obstacles = names.flatMap((name) => contextOf(name)?.cutoverObstacles ?? []);
          if (obstacles.length > 0)
            throw new AppError('conflict', `cutover is refused: ${obstacles.join('; ')}`, { details: { obstacles } });
        }
        const waiting = await asked();
        if (waiting) return waiting;
        return withStore(() =>
          flips.begin({
            names,
            from: target.stage,
            to: request.stage,
            canaryShareBp: shareBp,
            ifVersion: approval.by ? target.version : request.ifVersion,
            context,
            actor: request.actor,
            reason: approval.by ? `${request.reason} (asked for by ${approval.by.join(', ')})` : request.reason,
          }),
        );
      }
      const waiting = await asked();
      if (waiting) return waiting;
      const changed = await withStore((store) =>
        store.transaction(async (trx) => {
          const rows = await lockFlags(trx, names);
          const before = rows.find((row) => row.name === context);
          if (!before) throw new AppError('not-found', `the store knows no context called ${context}`);
          // what was approved is the step from there, and from nowhere else
          if (approval.by && before.version !== target.version) throw new AppError('conflict', `${context} has just changed: ask again`);
          if (request.ifVersion !== undefined && before.version !== request.ifVersion)
            throw new AppError(
              'stale-version',
              `${context} is at version ${before.version}, not ${request.ifVersion}: somebody changed it`,
              {
                details: { version: before.version },
              },
            );
          if (before.stage !== target.stage) throw new AppError('conflict', `${context} has just moved to ${before.stage}`);
          const flip = await activeFlip(trx, names);
          if (flip) throw new AppError('conflict', `flip ${flip} of ${names.join(', ')} is under way`, { details: { flip } });
          const after: StoredFlag[] = [];
          for (const row of rows)
            after.push(await patchFlag(trx, row.name, { stage: request.stage, canary_share_bp: shareBp }, request.actor));
          // before the audit, whose lock everybody takes last: two changes must not wait for each other in a circle
          await request.also?.(trx, after);
          for (const [i, row] of rows.entries())
            await appendAudit(trx, {
              actor: request.actor,
              action: 'stage',
              context: row.name,
              before: summary(row),
              after: summary(after[i]!),
              reason: request.reason,
              evidence: request.evidence ?? (approval.by ? { approvedBy: approval.by } : undefined),
            });
          return after;
        }),
      );
      await flags.refresh();
      return { kind: 'done', flags: changed };
    },

    async kill(contexts, request) {
      const names = all(contexts);
      const retired = names.filter((name) => known(name).stage === 'retired');
      if (retired.length > 0) throw new AppError('illegal-move', `retired contexts have no legacy to go back to: ${retired.join(', ')}`);
      const by = { id: request.id ?? randomUUID(), actor: request.actor, reason: request.reason };
      if (!db) {
        await flags.killLocally(names, by);
        return names.map(known);
      }
      try {
        const written = db.transaction(async (trx) => {
          await killOnce(trx, names, by);
        });
        await inTime(written.then(() => flags.refresh()));
      } catch {
        if (request.now) throw new AppError('store-unavailable', '--now needs the store', { retryable: true, retryAfterSeconds: 2 });
        // the store is away: this process at once, the others through peers; merged when the store is back
        await flags.killLocally(names, by);
        return names.map(known);
      }
      // one that was revived since this kill was first heard of stays where it is
      const owned = names.filter((name) => known(name).stage === 'cutover' && known(name).killed);
      if (owned.length > 0) flips?.evacuate(owned, { actor: request.actor, reason: request.reason, now: request.now ?? false });
      return names.map(known);
    },

    async revive(contexts, request) {
      const names = all(contexts);
      await withStore((store) =>
        store.transaction(async (trx) => {
          for (const row of await lockFlags(trx, names)) {
            if (!row.killed) continue;
            const next = await patchFlag(trx, row.name, { killed: false }, request.actor);
            await appendAudit(trx, {
              actor: request.actor,
              action: 'revive',
              context: row.name,
              before: summary(row),
              after: summary(next),
              reason: request.reason,
            });
          }
        }),
      );
      await flags.refresh();
      return names.map(known);
    },
  };
};
