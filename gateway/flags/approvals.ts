import { AppError } from '@banyan/contracts/errors.ts';
import { STAGES, type Stage } from '@banyan/contracts/vocabulary.ts';
import type { Knex } from 'knex';
import { appendAudit, lockFlags } from './flag-store.ts';

/** A promotion that somebody asks for. */
export type Ask = {
  /** The first of the contexts that move as one. */
  readonly context: string;
  readonly stage: Stage;
  readonly canaryShareBp: number;
  /** Of the flag that it was asked for. */
  readonly version: number;
  readonly actor: string;
  readonly reason: string;
};

/** Who has asked for the same, in order. */
export type Asked = { readonly enough: boolean; readonly actors: readonly string[] };

/** Without tokens everybody is this one: nobody can be told from somebody else. */
const ANONYMOUS = 'local';

type Place = { readonly stage: Stage; readonly canaryShareBp: number };

/** Does the move bring more to extracted, or make it harder to take back? The way back needs nobody's approval. */
export const isPromotion = (from: Place, to: Place): boolean => {
  const steps = STAGES.indexOf(to.stage) - STAGES.indexOf(from.stage);
  return steps > 0 || (steps === 0 && to.canaryShareBp > from.canaryShareBp);
};

/**
 * Notes that somebody wants a promotion, inside the caller's transaction. `enough` once `needed` others want the very same of the same version of the flag,
 * within a day; whoever asks for something else withdraws what was asked for before.
 * @throws AppError `conflict` for somebody without a name
 */
export const askFor = async (trx: Knex, ask: Ask, needed: number): Promise<Asked> => {
  if (ask.actor === ANONYMOUS)
    throw new AppError('conflict', 'a promotion needs approvals, and those need names: give people tokens of their own (admin.tokens)');
  const { context, stage, canaryShareBp, version, actor, reason } = ask;
  // one after the other: two who ask at the same moment must see each other
  await lockFlags(trx, [context]);
  await trx.raw(
    `delete from banyan.stage_ask where context = ? and (stage <> ? or share_bp <> ? or version <> ? or at < now() - interval '1 day')`,
    [context, stage, canaryShareBp, version],
  );
  await trx('banyan.stage_ask')
    .insert({ context, actor, stage, share_bp: canaryShareBp, version, reason })
    .onConflict(['context', 'actor'])
    .ignore();
  const rows = await trx('banyan.stage_ask').where({ context }).orderBy(['at', 'actor']).select<{ actor: string }[]>('actor');
  const actors = rows.map((row) => row.actor);
  if (actors.length > needed) {
    await trx('banyan.stage_ask').where({ context }).delete();
    return { enough: true, actors };
  }
  await appendAudit(trx, {
    actor,
    action: 'stage-asked',
    context,
    before: null,
    after: { stage, canaryShareBp, askedBy: actors, needed: needed + 1 },
    reason,
  });
  return { enough: false, actors };
};
