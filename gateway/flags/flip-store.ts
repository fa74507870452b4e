import { AppError } from '@banyan/contracts/errors.ts';
import type { Stage, Upstream } from '@banyan/contracts/vocabulary.ts';
import type { Knex } from 'knex';
import { activeFlip, appendAudit, lockAppends, lockFlags, patchFlag, type StoredFlag } from './flag-store.ts';

/** How far a flip got. `undone` = everything is as before, `detail` says why. */
export type FlipState = 'pending' | 'freezing' | 'draining' | 'watermark' | 'switching' | 'done' | 'undone';
export type Flip = {
  readonly id: string;
  readonly contexts: string[];
  readonly from: Stage;
  readonly to: Stage;
  readonly state: FlipState;
  readonly detail: string | null;
  readonly actor: string;
  readonly reason: string;
  readonly createdAt: Date;
  readonly updatedAt: Date;
};

export type FlipRequest = {
  readonly names: readonly string[];
  /** Where `context` stood when the move was judged; absent = anywhere. */
  readonly from?: Stage | undefined;
  readonly to: Stage;
  readonly canaryShareBp: number;
  /** The context whose version is checked. */
  readonly context: string;
  readonly ifVersion?: number | undefined;
  readonly actor: string;
  readonly reason: string;
  /** The hand-over after a kill: overtakes a move that has not frozen anything yet. */
  readonly kill?: boolean;
};

type Row = {
  id: string;
  contexts: string[];
  from_stage: Stage;
  to_stage: Stage;
  state: FlipState;
  detail: string | null;
  actor: string;
  reason: string;
  created_at: Date;
  updated_at: Date;
};

const flipOf = (row: Row): Flip => ({
  id: row.id,
  contexts: row.contexts,
  from: row.from_stage,
  to: row.to_stage,
  state: row.state,
  detail: row.detail,
  actor: row.actor,
  reason: row.reason,
  createdAt: row.created_at,
  updatedAt: row.updated_at,
});

export const FINAL_STATES: readonly string[] = ['done', 'undone'];

export const findFlip = async (db: Knex, id: string): Promise<Flip | undefined> => {
  const row = await db<Row>('banyan.flip').where({ id }).first();
  return row && flipOf(row);
};
export const latestFlip = async (db: Knex, context: string): Promise<Flip | undefined> => {
  const row = await db<Row>('banyan.flip').whereRaw('? = any(contexts)', [context]).orderBy('created_at', 'desc').first();
  return row && flipOf(row);
};
export const activeFlips = async (db: Knex): Promise<Flip[]> =>
  (
    await db<Row>('banyan.flip')
      .whereNotIn('state', [...FINAL_STATES])
      .orderBy('created_at')
  ).map(flipOf);

/** How far it got; nothing for a flip that has ended. */
export const noteFlip = async (db: Knex, id: string, state: FlipState, detail: string | null): Promise<void> => {
  await db('banyan.flip')
    .where({ id })
    .whereNotIn('state', [...FINAL_STATES])
    .update({ state, detail, updated_at: db.fn.now() });
};

/** Makes the row of a flip. @throws AppError `stale-version`, `conflict` when another one is under way */
export const insertFlip = (db: Knex, id: string, request: FlipRequest, driver: string): Promise<void> =>
  db.transaction(async (trx) => {
    const rows = await lockFlags(trx, request.names);
    const target = rows.find((row) => row.name === request.context);
    if (!target) throw new AppError('not-found', `the store knows no context called ${request.context}`);
    if (request.ifVersion !== undefined && target.version !== request.ifVersion)
      throw new AppError(
        'stale-version',
        `${request.context} is at version ${target.version}, not ${request.ifVersion}: somebody changed it`,
        { details: { version: target.version } },
      );
    if (request.from !== undefined && target.stage !== request.from)
      throw new AppError('conflict', `${request.context} has just moved to ${target.stage}`);
    if (request.kill)
      await trx('banyan.flip')
        .where({ state: 'pending', kill: false })
        .whereRaw('contexts && ?::text[]', [[...request.names]])
        .update({ state: 'undone', detail: 'overtaken by a kill', updated_at: trx.fn.now() });
    const busy = await activeFlip(trx, request.names);
    if (busy) throw new AppError('conflict', `flip ${busy} of ${request.names.join(', ')} is under way`, { details: { flip: busy } });
    await trx('banyan.flip').insert({
      id,
      contexts: [...request.names],
      from_stage: target.stage,
      to_stage: request.to,
      state: 'pending',
      actor: request.actor,
      reason: request.reason,
      driver,
      kill: request.kill ?? false,
    });
  });

/** From the commit on nobody's command is admitted, and none that was admitted before has still to append its fact. */
export const freezeContexts = (db: Knex, id: string, request: FlipRequest, owner: Upstream): Promise<StoredFlag[]> =>
  db.transaction(async (trx) => {
    for (const name of request.names) await lockAppends(trx, name);
    const rows = await lockFlags(trx, request.names);
    const held = rows.find((row) => row.frozenBy && row.frozenBy !== id);
    if (held) throw new AppError('conflict', `${held.name} is frozen by flip ${held.frozenBy}`);
    const killed = rows.find((row) => row.killed && owner === 'extracted');
    if (killed) throw new AppError('conflict', `${killed.name} was killed meanwhile`);
    const row = await trx<Row>('banyan.flip').where({ id }).first('state', 'detail');
    if (!row || FINAL_STATES.includes(row.state)) throw new AppError('conflict', row?.detail ?? 'the flip was undone meanwhile');
    const frozen: StoredFlag[] = [];
    for (const row of rows) frozen.push(await patchFlag(trx, row.name, { frozen_by: id }, row.updatedBy));
    return frozen;
  });

/** Everything as before; nothing for a flip that has ended. */
export const undoFlip = (db: Knex, id: string, why: string): Promise<void> =>
  db.transaction(async (trx) => {
    const known = await trx<Row>('banyan.flip').where({ id }).first();
    if (!known) return;
    // flags before flips, as everywhere: two orders would deadlock
    const held = await lockFlags(trx, known.contexts);
    const row = await trx<Row>('banyan.flip').where({ id }).forUpdate().first();
    if (!row || FINAL_STATES.includes(row.state)) return;
    for (const flag of held) {
      if (flag.frozenBy === id) await patchFlag(trx, flag.name, { frozen_by: null }, flag.updatedBy);
      await appendAudit(trx, {
        actor: row.actor,
        action: 'flip-undone',
        context: flag.name,
        before: null,
        after: { stage: flag.stage, epoch: flag.epoch },
        reason: row.reason,
        evidence: { flip: id, why },
      });
    }
    await trx('banyan.flip').where({ id }).update({ state: 'undone', detail: why, updated_at: trx.fn.now() });
  });

const brief = (flag: StoredFlag) => ({ stage: flag.stage, owner: flag.owner, epoch: flag.epoch });

/** Gives the writes to `owner` under the next epoch and lifts the freeze. @throws AppError `conflict` when the freeze was lost, or a kill forbids it */
export const switchOver = async (
  trx: Knex,
  id: string,
  request: FlipRequest,
  owner: Upstream,
  found: { readonly detail: string; readonly evidence: Readonly<Record<string, unknown>> },
): Promise<void> => {
  for (const name of request.names) await lockAppends(trx, name);
  for (const row of await lockFlags(trx, request.names)) {
    if (row.frozenBy !== id) throw new AppError('conflict', `the freeze of ${row.name} was lost`);
    if (row.killed && owner === 'extracted') throw new AppError('conflict', `${row.name} was killed meanwhile`);
    const next = await patchFlag(
      trx,
      row.name,
      { stage: request.to, canary_share_bp: request.canaryShareBp, owner, epoch: row.epoch + 1, frozen_by: null },
      request.actor,
    );
    await appendAudit(trx, {
      actor: request.actor,
      action: 'flip',
      context: row.name,
      before: brief(row),
      after: brief(next),
      reason: request.reason,
      evidence: { flip: id, ...found.evidence },
    });
  }
  const done = await trx('banyan.flip')
    .where({ id })
    .whereNotIn('state', [...FINAL_STATES])
    .update({ state: 'done', detail: found.detail, updated_at: trx.fn.now() });
  if (done !== 1) throw new AppError('conflict', 'the flip was undone meanwhile');
};

/** Aggregates whose last facts of the extracted side legacy has not seen yet; at most 100. */
const notOnLegacy = async (trx: Knex, names: readonly string[]): Promise<string[]> => {
  const rows = await trx<{ context: string; subject: string }>('banyan.back_sync')
    .whereIn('context', [...names])
    .distinct('context', 'subject')
    .orderBy(['context', 'subject'])
    .limit(100);
  return rows.map(({ context, subject }) => `${context} ${subject}`);
};

/** Kill with `--now`: takes the contexts out of any hand-over under way and gives the writes to legacy in one transaction. */
export const seizeWrites = (db: Knex, id: string, request: FlipRequest, driver: string): Promise<void> =>
  db.transaction(async (trx) => {
    for (const name of request.names) await lockAppends(trx, name);
    await lockFlags(trx, request.names);
    const behind = await notOnLegacy(trx, request.names);
    await trx('banyan.flip')
      .whereNotIn('state', [...FINAL_STATES])
      .whereRaw('contexts && ?::text[]', [[...request.names]])
      .update({ state: 'undone', detail: 'overtaken by a kill that does not wait', updated_at: trx.fn.now() });
    await trx('banyan.flip').insert({
      id,
      contexts: [...request.names],
      from_stage: 'cutover',
      to_stage: request.to,
      state: 'switching',
      actor: request.actor,
      reason: `${request.reason} (now)`,
      driver,
      kill: true,
    });
    await trx('banyan.context')
      .whereIn('name', [...request.names])
      .update({ frozen_by: id });
    const detail =
      behind.length === 0
        ? 'nothing was waiting for legacy'
        : `legacy took the writes before it had seen the last facts of ${behind.slice(0, 10).join(', ')}${behind.length > 10 ? ', …' : ''}`;
    await switchOver(trx, id, request, 'legacy', { detail, evidence: { behind } });
  });

/**
 * Flips that nobody drives any more: their driver's heartbeat has expired, or it is `self` and does not know of them.
 * @param driven those that `self` drives now
 */
export const abandonedFlips = async (db: Knex, self: string, driven: readonly string[], maxStaleMs: number): Promise<string[]> => {
  const { rows } = await db.raw<{ rows: { id: string }[] }>(
    `select f.id from banyan.flip f left join banyan.member m on m.id = f.driver
     where f.state not in ('done', 'undone') and f.id <> all(?::uuid[])
       and (f.driver = ? or f.updated_at < now() - ? * interval '1 millisecond' and (m.id is null or m.heartbeat_at < now() - ? * interval '1 millisecond'))`,
    [[...driven], self, maxStaleMs, maxStaleMs],
  );
  return rows.map(({ id }) => id);
};

/** Names of the processes that are alive and do not serve these flags yet. */
export const behindOn = async (db: Knex, flags: readonly StoredFlag[], maxStaleMs: number): Promise<string[]> => {
  const { rows } = await db.raw<{ rows: { name: string }[] }>(
    `select m.name from banyan.member m
     where m.heartbeat_at > now() - ? * interval '1 millisecond'
       and exists (select 1 from jsonb_each_text(?::jsonb) w where coalesce((m.seen ->> w.key)::bigint, -1) < w.value::bigint)
     order by m.name`,
    [maxStaleMs, JSON.stringify(Object.fromEntries(flags.map((flag) => [flag.name, flag.version])))],
  );
  return rows.map(({ name }) => name);
};
