import type { Envelope } from '@banyan/contracts/envelope.ts';
import { inventoryEvents } from '@banyan/contracts/events/inventory.ts';
import { type OrderState, orderEvents } from '@banyan/contracts/events/order.ts';
import { fromFact, idOf, type Order } from './domain.ts';

/** What several facts come to, as if they had been applied one after the other. Pure: a page is a few statements then, however many facts it has. */

type Told = Pick<Envelope, 'type' | 'data' | 'time'>;

const STATES = ['order.placed.v1', 'order.imported.v1', 'order.changed.v1'] as const;
export const ORDER_FACTS = [...STATES, 'order.cancelled.v1', 'order.deleted.v1'] as const;
const isState = (type: string): boolean => (STATES as readonly string[]).includes(type);
const stateOf = (data: unknown): OrderState => orderEvents['order.placed.v1'].parse(data);

/** What must be known before facts about orders are folded: the orders that they name, and the products of lines without a price. */
export const namedBy = (facts: readonly Told[]): { readonly orders: number[]; readonly unpriced: number[] } => {
  const orders = new Set<number>();
  const unpriced = new Set<number>();
  for (const { type, data } of facts) {
    if (!isState(type)) {
      orders.add(idOf(orderEvents['order.deleted.v1'].parse(data).id));
      continue;
    }
    const state = stateOf(data);
    orders.add(idOf(state.id));
    for (const item of state.items) if (item.price === undefined) unpriced.add(idOf(item.productId));
  }
  return { orders: [...orders], unpriced: [...unpriced] };
};

export type KnownOrders = {
  readonly there: ReadonlySet<number>;
  /** When orders were cancelled of which nobody had told, ISO 8601. */
  readonly early: ReadonlyMap<number, string>;
  readonly prices: ReadonlyMap<number, number>;
};
export type OrderChanges = {
  readonly put: readonly Order[];
  readonly cancelled: ReadonlyMap<number, string>;
  readonly deleted: readonly number[];
  readonly early: ReadonlyMap<number, string>;
};

/** @throws OrderRefused, ZodError for a fact that cannot be applied */
export const foldOrders = (facts: readonly Told[], known: KnownOrders): OrderChanges => {
  /** An order as it stands, `there` = as the table has it; without an entry it is nowhere. */
  const now = new Map<number, Order | 'there'>([...known.there].map((id) => [id, 'there'] as const));
  const cancelled = new Map<number, string>();
  const early = new Map<number, string>();
  const touched = new Set<number>();
  for (const { type, data, time } of facts) {
    if (isState(type)) {
      const order = fromFact(stateOf(data), time, known.prices);
      const at = type === 'order.imported.v1' ? (known.early.get(order.id) ?? early.get(order.id)) : undefined;
      now.set(order.id, at === undefined ? order : { ...order, status: 'cancelled', cancelledAt: at });
      touched.add(order.id);
      cancelled.delete(order.id);
    } else if (type === 'order.cancelled.v1') {
      const { id: told, cancelledAt } = orderEvents['order.cancelled.v1'].parse(data);
      const id = idOf(told);
      const at = new Date(cancelledAt ?? time).toISOString();
      const order = now.get(id);
      if (order === 'there') cancelled.set(id, at);
      else if (order) now.set(id, { ...order, status: 'cancelled', cancelledAt: at });
      // an old order can be cancelled before the snapshot has told of it
      else if (!early.has(id) && !known.early.has(id)) early.set(id, at);
    } else {
      const id = idOf(orderEvents['order.deleted.v1'].parse(data).id);
      now.delete(id);
      touched.add(id);
      cancelled.delete(id);
    }
  }
  const put: Order[] = [];
  const deleted: number[] = [];
  for (const id of touched) {
    const order = now.get(id);
    if (order === undefined) deleted.push(id);
    else if (order !== 'there') put.push(order);
  }
  return { put, cancelled, deleted, early };
};

export const PRODUCT_FACTS = ['inventory.imported.v1', 'inventory.changed.v1', 'inventory.deleted.v1'] as const;

/** A product with the last fact about it that is in it. */
export type StampedProduct = {
  readonly price: number;
  readonly stock: number;
  readonly active: boolean;
  readonly epoch: number;
  readonly sequence: bigint;
};
export type ProductChanges = {
  readonly put: ReadonlyMap<number, StampedProduct>;
  readonly deleted: readonly number[];
  /** For lines that came without a price. */
  readonly prices: ReadonlyMap<number, number>;
};

export const productOfFact = (data: unknown): number => idOf(inventoryEvents['inventory.deleted.v1'].parse(data).id);

/** The stock moves by `stockDelta` where there is one, because orders placed here are taken off it already. A fact that is read again changes nothing. @throws as above */
export const foldProducts = (
  facts: readonly Pick<Envelope, 'type' | 'data' | 'epoch' | 'sequence'>[],
  known: ReadonlyMap<number, StampedProduct>,
): ProductChanges => {
  const now = new Map(known);
  const touched = new Set<number>();
  const prices = new Map<number, number>();
  for (const { type, data, epoch, sequence } of facts) {
    const id = productOfFact(data);
    if (type === 'inventory.deleted.v1') {
      now.delete(id);
      touched.add(id);
      continue;
    }
    const { price, stock, active, stockDelta } = inventoryEvents['inventory.changed.v1'].parse(data);
    if (!prices.has(id)) prices.set(id, price);
    const before = now.get(id);
    const stamp = { epoch, sequence: BigInt(sequence) };
    if (before && (before.epoch > epoch || (before.epoch === epoch && before.sequence >= stamp.sequence))) continue;
    now.set(id, { price, stock: before && stockDelta !== undefined ? before.stock + stockDelta : stock, active, ...stamp });
    touched.add(id);
  }
  const put = new Map([...touched].flatMap((id) => (now.has(id) ? [[id, now.get(id)!] as const] : [])));
  return { put, deleted: [...touched].filter((id) => !now.has(id)), prices };
};
