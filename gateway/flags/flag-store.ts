import type { Stage, Upstream } from '@banyan/contracts/vocabulary.ts';
import type { Knex } from 'knex';
import type { ContextFlag } from '../core/decide.ts';

/** A flag as the store holds it, with who changed it last. */
export type StoredFlag = ContextFlag & {
  readonly frozenBy: string | null;
  /** Last change of stage: start of the parity window. */
  readonly since: Date;
  readonly updatedAt: Date;
  readonly updatedBy: string;
};

/** How facts are spread over the stream. */
type Partition = 'aggregate' | { readonly slots?: readonly number[] | null; readonly shards?: number | null };

/** What the configuration says of a context the store has not met yet. */
export type FlagSeed = {
  readonly name: string;
  readonly group: string | null;
  readonly stage: Stage;
  readonly canaryShareBp: number;
  /** Default `aggregate`. */
  readonly partition?: Partition | undefined;
};

/** What the flags need of the configured contexts. */
export const seedsOf = (
  contexts: readonly { name: string; group: string | null; stage: Stage; share: number; partition?: Partition }[],
): FlagSeed[] =>
  contexts.map(({ name, group, stage, share, partition }) => ({
    name,
    group,
    stage,
    canaryShareBp: stage === 'canary' ? share : 0,
    partition,
  }));

/** The columns a change may set; `version` rises with every change. */
export type FlagPatch = Partial<{
  stage: Stage;
  canary_share_bp: number;
  killed: boolean;
  frozen_by: string | null;
  owner: Upstream;
  epoch: number;
  grp: string | null;
}>;

type Row = {
  name: string;
  grp: string | null;
  stage: Stage;
  canary_share_bp: number;
  killed: boolean;
  frozen_by: string | null;
  owner: Upstream;
  epoch: number;
  version: string;
  since: Date;
  updated_at: Date;
  updated_by: string;
};

const flagOf = (row: Row): StoredFlag => ({
  name: row.name,
  group: row.grp,
  stage: row.stage,
  canaryShareBp: row.canary_share_bp,
  killed: row.killed,
  frozen: row.frozen_by !== null,
  frozenBy: row.frozen_by,
  owner: row.owner,
  epoch: row.epoch,
  version: Number(row.version),
  since: row.since,
  updatedAt: row.updated_at,
  updatedBy: row.updated_by,
});

/** Announces that flags changed; listeners read the table, the payload is only the name. */
export const FLAG_CHANNEL = 'banyan_flags';

/** @param timeoutMs after it the connection is given up: one that hangs must not keep the flags stale once the store is back */
export const loadFlags = async (db: Knex, timeoutMs: number): Promise<StoredFlag[]> =>
  (await db<Row>('banyan.context').select('*').orderBy('name').timeout(timeoutMs)).map(flagOf);

/**
 * Makes rows for contexts the store does not know. Only a stage that hands over no write ownership may come from a file:
 * `cutover` and `retired` are reached by flips, never by a seed.
 * @param further contexts that were last known to be past what a file may say: a store that has lost them must not start them over
 * @returns the names that were refused.
 */
export const seedFlags = async (db: Knex, seeds: readonly FlagSeed[], further: ReadonlySet<string>): Promise<string[]> => {
  const refused: string[] = [];
  for (const seed of seeds) {
    if (seed.stage === 'cutover' || seed.stage === 'retired' || further.has(seed.name)) {
      const known = await db<Row>('banyan.context').where({ name: seed.name }).first('name');
      if (!known) {
        refused.push(seed.name);
        continue;
      }
    }
    const stage = seed.stage === 'cutover' || seed.stage === 'retired' ? 'legacy' : seed.stage;
    await db('banyan.context')
      .insert({ name: seed.name, grp: seed.group, stage, canary_share_bp: seed.canaryShareBp })
      .onConflict('name')
      .ignore();
    // group and partition live in the file; the stage does not
    const { slots, shards } = typeof seed.partition === 'object' ? seed.partition : {};
    const partition = slots ? JSON.stringify({ slots }) : shards ? JSON.stringify({ shards }) : null;
    await db('banyan.context')
      .where({ name: seed.name })
      .whereRaw('partition is distinct from ?::jsonb', [partition])
      .update({ partition });
    await db('banyan.context').where({ name: seed.name }).whereRaw('grp is distinct from ?', [seed.group]).update({ grp: seed.group });
  }
  return refused;
};

/** Locks the rows of `names` for a change, in a fixed order so that two changes cannot wait for each other. */
export const lockFlags = async (trx: Knex, names: readonly string[]): Promise<StoredFlag[]> =>
  (
    await trx<Row>('banyan.context')
      .whereIn('name', [...names])
      .orderBy('name')
      .forUpdate()
      .select('*')
  ).map(flagOf);

/** Applies one patch inside the caller's transaction, raises the version and announces it at commit. */
export const patchFlag = async (trx: Knex, name: string, patch: FlagPatch, actor: string): Promise<StoredFlag> => {
  const staged = patch.stage !== undefined || patch.canary_share_bp !== undefined;
  const [row] = await trx<Row>('banyan.context')
    .where({ name })
    .update({
      ...patch,
      version: trx.raw('version + 1') as unknown as string,
      updated_at: trx.fn.now() as unknown as Date,
      updated_by: actor,
      ...(staged ? { since: trx.fn.now() as unknown as Date } : {}),
    })
    .returning('*');
  await trx.raw('select pg_notify(?, ?)', [FLAG_CHANNEL, name]);
  return flagOf(row as Row);
};

/** What one kill is known by wherever it is told. */
export type KillBy = { readonly id: string; readonly actor: string; readonly reason: string };

/**
 * Kills those of `names` that stand and have not been killed by this very kill before: somebody may have revived them since.
 * @param suffix added to the reason in the audit
 */
export const killOnce = async (trx: Knex, names: readonly string[], by: KillBy, suffix = ''): Promise<void> => {
  // the flags first: everything that changes them locks in this order
  const flags = await lockFlags(trx, names);
  const { rows } = await trx.raw<{ rows: { context: string }[] }>(
    'insert into banyan.kill_heard (id, context) select ?::uuid, unnest(?::text[]) on conflict do nothing returning context',
    [by.id, [...names]],
  );
  const news = new Set(rows.map(({ context }) => context));
  for (const flag of flags) {
    if (flag.killed || !news.has(flag.name)) continue;
    const next = await patchFlag(trx, flag.name, { killed: true }, by.actor);
    await appendAudit(trx, {
      actor: by.actor,
      action: 'kill',
      context: flag.name,
      before: summary(flag),
      after: summary(next),
      reason: `${by.reason}${suffix}`,
    });
  }
};

/** A gateway may come back with kills of its own after so long and be heard once more. */
const HEARD_DAYS = 30;

/** Forgets kills and processes nobody counts any more. */
export const tidyFlags = async (db: Knex): Promise<void> => {
  await db.raw(`delete from banyan.member where heartbeat_at < now() - interval '1 hour'`);
  await db.raw('delete from banyan.kill_heard where at < now() - make_interval(days => ?)', [HEARD_DAYS]);
};

/** What the audit says of a flag. */
export const summary = (flag: StoredFlag) => ({
  stage: flag.stage,
  canaryShareBp: flag.canaryShareBp,
  killed: flag.killed,
  epoch: flag.epoch,
});

/** One audit row in the transaction of the change it reports. */
export const appendAudit = async (
  trx: Knex,
  entry: { actor: string; action: string; context: string | null; before: unknown; after: unknown; reason: string; evidence?: unknown },
): Promise<void> => {
  await trx.raw('select banyan.append_audit(?, ?, ?, ?::jsonb, ?::jsonb, ?, ?::jsonb)', [
    entry.actor,
    entry.action,
    entry.context,
    JSON.stringify(entry.before ?? null),
    JSON.stringify(entry.after ?? null),
    entry.reason,
    JSON.stringify(entry.evidence ?? null),
  ]);
};

/** Takes the lock that every append holds shared: once granted, no transaction that saw the earlier state is open. */
export const lockAppends = async (trx: Knex, context: string): Promise<void> => {
  await trx.raw('select pg_advisory_xact_lock(banyan.context_lock(?))', [context]);
};

/** The flip of any of these contexts that is neither done nor undone; it may not have frozen them yet. */
export const activeFlip = async (db: Knex, names: readonly string[]): Promise<string | undefined> =>
  (
    await db<{ id: string; state: string }>('banyan.flip')
      .whereNotIn('state', ['done', 'undone'])
      .whereRaw('contexts && ?::text[]', [[...names]])
      .first('id')
  )?.id;
