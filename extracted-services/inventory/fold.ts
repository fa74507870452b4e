import type { Envelope } from '@banyan/contracts/envelope.ts';
import { inventoryEvents } from '@banyan/contracts/events/inventory.ts';
import { orderEvents } from '@banyan/contracts/events/order.ts';
import { type Booking, bookingsOf, idOf, type Line, moveOf, type Product, productOf } from './domain.ts';

/** What several facts come to, as if they had been applied one after the other; `domain.ts` says how they fit together. Pure. */

export const PRODUCT_FACTS = ['inventory.imported.v1', 'inventory.changed.v1', 'inventory.deleted.v1'] as const;
export const ORDER_FACTS = ['order.placed.v1', 'order.imported.v1', 'order.changed.v1', 'order.cancelled.v1', 'order.deleted.v1'] as const;

/** A product as its row stands. `stateAt` is when its youngest state was appended, ISO 8601; epoch and sequence are those of the last fact in it. */
export type Kept = Product & { readonly deleted: boolean; readonly stateAt: string; readonly epoch: number; readonly sequence: bigint };
export type ProductChanges = {
  readonly put: readonly Kept[];
  /** Those whose stock was set: what was booked up to then is void. */
  readonly set: readonly number[];
};

export const productIdOf = (data: unknown): number => idOf(inventoryEvents['inventory.deleted.v1'].parse(data).id);

/** A fact that is read again changes nothing. @throws TypeError, ZodError for a fact that cannot be applied */
export const foldProducts = (
  facts: readonly Pick<Envelope, 'type' | 'data' | 'time' | 'epoch' | 'sequence'>[],
  known: ReadonlyMap<number, Kept>,
): ProductChanges => {
  const now = new Map(known);
  const touched = new Set<number>();
  const set = new Set<number>();
  for (const { type, data, time, epoch, sequence } of facts) {
    const id = productIdOf(data);
    const before = now.get(id);
    const stamp = { epoch, sequence: BigInt(sequence) };
    const news = !before || before.epoch < epoch || (before.epoch === epoch && before.sequence < stamp.sequence);
    if (!news) continue;
    if (type === 'inventory.deleted.v1') {
      if (!before || before.deleted) continue;
      now.set(id, { ...before, deleted: true, stateAt: time, ...stamp });
      set.add(id);
    } else {
      const state = inventoryEvents['inventory.changed.v1'].parse(data);
      const product = productOf(state);
      const move = moveOf(state, before !== undefined && !before.deleted);
      const base = move.kind === 'add' && before ? before : { stock: 0, stateAt: time };
      now.set(id, { ...product, stock: base.stock + move.pieces, deleted: false, stateAt: base.stateAt, ...stamp });
      if (move.kind === 'set') set.add(id);
    }
    touched.add(id);
  }
  return { put: [...touched].map((id) => now.get(id)!), set: [...set] };
};

export type OrderChanges = {
  readonly put: ReadonlyMap<number, readonly Line[]>;
  readonly deleted: readonly number[];
  readonly bookings: readonly (Booking & { readonly factId: string })[];
};

/** Orders that are cancelled: a cancellation does not say what it gives back. */
export const cancelledIn = (facts: readonly Pick<Envelope, 'type' | 'data' | 'origin'>[]): number[] => [
  ...new Set(
    facts
      .filter(({ type, origin }) => type === 'order.cancelled.v1' && origin === 'extracted')
      .map(({ data }) => idOf(orderEvents['order.cancelled.v1'].parse(data).id)),
  ),
];

/** @param known what was in the orders that are cancelled. @throws Error for a cancellation of an order of which nothing is known */
export const foldOrders = (
  facts: readonly Pick<Envelope, 'id' | 'type' | 'data' | 'time' | 'origin'>[],
  known: ReadonlyMap<number, readonly Line[]>,
): OrderChanges => {
  const now = new Map(known);
  const touched = new Set<number>();
  const bookings: (Booking & { factId: string })[] = [];
  const book = (factId: string, lines: readonly Line[], sign: 1 | -1, at: string): void =>
    void bookings.push(...bookingsOf(lines, sign, at).map((booking) => ({ ...booking, factId })));
  for (const { id: factId, type, data, time, origin } of facts) {
    if (type === 'order.cancelled.v1') {
      if (origin !== 'extracted') continue;
      const id = idOf(orderEvents['order.cancelled.v1'].parse(data).id);
      const lines = now.get(id);
      // its placing came before it on the same key, so it never will: a person must look
      if (!lines) throw new Error(`order ${id} was cancelled, but nothing said what was in it`);
      book(factId, lines, 1, time);
    } else if (type === 'order.deleted.v1') {
      const id = idOf(orderEvents['order.deleted.v1'].parse(data).id);
      now.delete(id);
      touched.add(id);
    } else {
      const order = orderEvents['order.placed.v1'].parse(data);
      const id = idOf(order.id);
      const lines = order.items.map((item) => ({ productId: idOf(item.productId), quantity: item.quantity }));
      now.set(id, lines);
      touched.add(id);
      // what legacy sold is in the stock that legacy reports
      if (type === 'order.placed.v1' && origin === 'extracted') book(factId, lines, -1, time);
    }
  }
  const put = new Map([...touched].flatMap((id) => (now.has(id) ? [[id, now.get(id)!] as const] : [])));
  return { put, deleted: [...touched].filter((id) => !now.has(id)), bookings };
};
