import { AppError } from '@banyan/contracts/errors.ts';
import { isDryRun } from '@banyan/kit/dry-run.ts';
import type { Knex } from 'knex';
import { cancel, type Order, OrderRefused, type OrderRequest, place, repeat, stateOf, wanted } from './domain.ts';
import type { Ids } from './ids.ts';
import { bookStock, findByRef, findOrder, lockOrder, lockProducts, markCancelled, putOrder } from './store.ts';

/** How a command came, from the headers that the gateway sends with it. */
export type CommandContext = {
  /** `Idempotency-Key`. */
  readonly key: string | null;
  /** `banyan-epoch`: under which the gateway believes this service to own the context. Null = it was not asked. */
  readonly epoch: number | null;
  /** `banyan-write`: the ledger row; becomes the fact's `causationid`. */
  readonly causation: string | null;
  readonly traceparent: string | null;
};

export type Commands = {
  /** @throws OrderRefused 409, 422; AppError `context-unavailable` when this service may not write */
  place(wish: OrderRequest, context: CommandContext): Promise<Order>;
  /** @throws OrderRefused 404, 409; AppError `context-unavailable` */
  cancel(id: number, context: CommandContext): Promise<Order>;
  /** The same as parts of the caller's transaction. */
  placeIn(trx: Knex.Transaction, wish: OrderRequest, context: CommandContext): Promise<Order>;
  cancelIn(trx: Knex.Transaction, id: number, context: CommandContext): Promise<Order>;
};

export type CommandsDeps = { readonly db: Knex; readonly ids: Ids; readonly now: () => Date };

/** `append_fact` says with these that the service may not write: frozen, not the owner, stale epoch, unknown context. */
const NOT_NOW = new Set(['BY001', 'BY002', 'BY003', 'BY404']);
/** Nobody waits for a lock longer than the gateway waits for the answer: whoever holds it (a flip, a page of facts) will be done soon. */
const LOCK_MS = 1000;
const LOCKED = '55P03';
/** Two transactions waited for each other; one was rolled back and may simply run again. */
const AGAIN = new Set(['40P01', '40001']);
const ATTEMPTS = 4;

const unavailable = (why: string, cause?: unknown): AppError =>
  new AppError('context-unavailable', why, { retryable: true, retryAfterSeconds: 1, cause });

const codeOf = (error: unknown): string => (error instanceof Error && 'code' in error ? String(error.code) : '');

/** Runs a command's transaction: domain rule, own rows and fact commit together or not at all. */
const inTransaction = async <T>(db: Knex, work: (trx: Knex.Transaction) => Promise<T>): Promise<T> => {
  for (let attempt = 1; ; attempt += 1) {
    try {
      return await db.transaction(async (trx) => {
        await trx.raw(`select set_config('lock_timeout', ?, true)`, [`${LOCK_MS}ms`]);
        return work(trx);
      });
    } catch (error) {
      const code = codeOf(error);
      if (code === LOCKED) throw unavailable('what this command needs is being changed by others just now', error);
      if (NOT_NOW.has(code)) throw unavailable((error as Error).message.replace(/^.* - /s, ''), error);
      if (!AGAIN.has(code) || attempt === ATTEMPTS) throw error;
    }
  }
};

/**
 * Refuses early, so that a service that owns nothing does not answer with what it happens to know. The lock is the one that `append_fact` takes: until
 * the transaction ends no flip can move the ownership.
 */
const assertOwner = async (trx: Knex, epoch: number | null): Promise<void> => {
  if (isDryRun()) return;
  await trx.raw(`select pg_advisory_xact_lock_shared(banyan.context_lock('order'))`);
  await ownedAt(trx, epoch);
};

/** The epoch of the ownership. @throws AppError `context-unavailable` */
const ownedAt = async (trx: Knex, epoch: number | null): Promise<number> => {
  const { rows } = await trx.raw<{ rows: { owner: string; epoch: number }[] }>(
    `select owner, epoch from banyan.context where name = 'order'`,
  );
  const found = rows[0];
  if (!found) throw unavailable('context order is not known to the store');
  if (found.owner !== 'extracted') throw unavailable(`context order is owned by ${found.owner}, not by extracted`);
  if (epoch !== null && epoch !== found.epoch)
    throw unavailable(`context order is at epoch ${found.epoch}, the command came under ${epoch}`);
  return found.epoch;
};

/** @throws OrderRefused 422 when this key has published such a fact before: then the change would go unreported, so it must not be made */
const append = async (trx: Knex, type: string, id: number, data: object, context: CommandContext): Promise<void> => {
  if (isDryRun()) return;
  const { rows } = await trx.raw<{ rows: { appended: boolean }[] }>(
    `select appended from banyan.append_fact(p_context => 'order', p_origin => 'extracted', p_type => ?, p_subject => ?, p_data => ?::jsonb,
       p_kind => 'command', p_key => ?, p_causation => ?, p_traceparent => ?, p_epoch => ?)`,
    [type, String(id), JSON.stringify(data), context.key, context.causation, context.traceparent, context.epoch],
  );
  if (!rows[0]?.appended) throw new OrderRefused(422, `this Idempotency-Key was used for an earlier ${type} of order ${id}`);
};

const cancelIn =
  (now: () => Date): Commands['cancelIn'] =>
  async (trx, id, context) => {
    await assertOwner(trx, context.epoch);
    const order = await lockOrder(trx, id);
    if (!order) throw new OrderRefused(404, 'order not found');
    const cancelled = cancel(order, now().toISOString());
    if (!cancelled) return (await findOrder(trx, id))!;
    await markCancelled(trx, id, cancelled.cancelledAt!);
    await bookStock(trx, wanted(order.items), 1);
    await append(trx, 'order.cancelled.v1', id, { id, cancelledAt: cancelled.cancelledAt }, context);
    return cancelled;
  };

type PlaceDeps = { readonly now: () => Date; readonly takeId: () => Promise<number> };

const placeIn = async (trx: Knex.Transaction, wish: OrderRequest, context: CommandContext, { now, takeId }: PlaceDeps): Promise<Order> => {
  const { key } = context;
  // before any other lock: a command that repeats this key waits here and then finds what the first one made
  if (key !== null) await trx.raw('select pg_advisory_xact_lock(hashtextextended(?, 0))', [`svc_order.key:${key}`]);
  const made = key === null ? null : await findByRef(trx, key);
  if (made) return repeat(made, wish);
  const id = await takeId();
  await assertOwner(trx, context.epoch);
  const quantities = wanted(wish.items);
  const products = await lockProducts(trx, [...quantities.keys()]);
  const order = place(wish, products, { id, ref: key, createdAt: now().toISOString() });
  await putOrder(trx, order);
  await bookStock(trx, quantities, -1);
  await append(trx, 'order.placed.v1', id, stateOf(order), context);
  return order;
};

/** The write side. Synchronous: when it answers, the order and its fact are committed. */
export const createCommands = ({ db, ids, now }: CommandsDeps): Commands => ({
  place: async (wish, context) => {
    const { key } = context;
    const known = key === null ? null : await findByRef(db, key);
    if (known) return repeat(known, wish);
    // no number of the legacy sequence is spent on what will not be
    const id = isDryRun() ? Number.MAX_SAFE_INTEGER : await ids.take(context.epoch ?? 0);
    return inTransaction(db, (trx) => placeIn(trx, wish, context, { now, takeId: async () => id }));
  },
  placeIn: (trx, wish, context) => placeIn(trx, wish, context, { now, takeId: async () => ids.take(await ownedAt(trx, context.epoch)) }),

  cancel: (id, context) => inTransaction(db, (trx) => cancelIn(now)(trx, id, context)),
  cancelIn: cancelIn(now),
});
